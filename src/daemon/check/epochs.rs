//! When records were born and when they ended: not before each other, and not in an epoch to come.

use super::Check;
use crate::device::check::{birth_problem, end_problem};
use crate::device::{BaseId, InodeNo, LIVE, Named};
use crate::meta::Table;
use crate::tree::check::what;

/// A record as it is now: whether the store has come to its birth.
pub(super) fn born(check: &mut Check<'_>, table: Table, key: &[u8], value: &[u8]) {
    if let Some(problem) = birth_problem(table, key, value, check.epoch)
        && check.is_current(table, key, value)
    {
        let paths = InodeNo::of_key(key).map_or_else(Default::default, |inode| check.paths_now(inode));
        check.problem(format!("{}: {problem}", described(check, table, key)), paths);
    }
}

/// The old value of a record: whether it was there for a time.
pub(super) fn ended(check: &mut Check<'_>, named: &Named, value: &[u8]) {
    if let Some(problem) = end_problem(named, value, check.epoch) {
        // What is not there for any time is in no view.
        check.say(format!("an old value of {}: {problem}", described(check, named.table, &named.key)));
    }
}

fn described(check: &Check<'_>, table: Table, key: &[u8]) -> String {
    let base = BaseId::of_key(key).ok().filter(|base| *base != LIVE);
    what(table, key, base.and_then(|base| check.bases.name(base)))
}
