//! Bases and names: what leads from one to another has to lead there.

use super::{Check, Paths};
use crate::error::Result;
use crate::meta::Table;

pub(super) fn load(check: &mut Check<'_>) -> Result<()> {
    let has_all = check.wholly(|check| {
        check.each(Table::Base, |check, (key, value)| {
            if let Err(error) = check.bases.add(&key, &value) {
                check.unreadable(error.to_string(), Paths::default());
            }
            Ok(())
        })
    })?;
    if !has_all {
        check.bases.lost_some();
    }
    Ok(())
}

/// Names of snapshots lead to snapshots that have them.
pub(super) fn names(check: &mut Check<'_>) -> Result<()> {
    check.each(Table::Name, |check, (key, value)| {
        if let Some(problem) = check.bases.name_problem(&check.meta, &key, &value)
            && check.is_current(Table::Name, &key, &value)
        {
            check.say(problem);
        }
        Ok(())
    })
}

/// What bases say of each other.
pub(super) fn between(check: &mut Check<'_>) -> Result<()> {
    for (base, problem) in check.bases.problems(&check.meta) {
        let key = base.prefix();
        if let Some(value) = check.meta.get_raw(Table::Base, &key)?
            && check.is_current(Table::Base, &key, &value)
        {
            check.say(problem);
        }
    }
    Ok(())
}
