//! Bases that show some of another state: what they show has to hold together as well.

use super::Check;
use super::records::say_circle;
use crate::device::{BaseId, InodeNo};
use crate::error::{Error, Result};
use crate::tree::Entry;
use crate::tree::check::{Above, Shown, circles, leads_nowhere};

pub(super) fn all(check: &mut Check<'_>) -> Result<()> {
    let bases: Vec<BaseId> = check.daemon.views.bases().all()?.iter().map(|base| base.id).collect();
    for base in bases.into_iter().filter(|base| !check.bases.is_whole(*base)).collect::<Vec<_>>() {
        let views = check.daemon.views.of(base);
        match views.unless_gone(one(check, base)) {
            // What it shows from elsewhere is not there.
            Err(Error::Gone) => {
                let name = views.base_name()?;
                check.say(format!("the base {name:?} cannot be looked into: what it shows is not there"));
            }
            // What comes behind it cannot be looked at.
            Err(error @ Error::Corrupt { .. }) => check.say(error.to_string()),
            result => drop(result?),
        }
    }
    Ok(())
}

fn one(check: &mut Check<'_>, base: BaseId) -> Result<()> {
    let mut above = Above::default();
    entries(check, base, |check, key, found| {
        note_above(&mut above, key, &found);
        entry(check, key, found)
    })?;
    let mut found = circles(&above);
    if found.is_empty() {
        return Ok(());
    }
    // Directories that were moved while these were read can look so: not twice.
    above = Above::default();
    entries(check, base, |_, key, found| {
        note_above(&mut above, key, &found);
        Ok(())
    })?;
    let again = circles(&above);
    found.retain(|circle| again.contains(circle));
    found.iter().for_each(|circle| say_circle(check, circle));
    Ok(())
}

/// Calls `each` with the entries that a base shows now, each with its key; an error names one that is none.
fn entries(
    check: &mut Check<'_>,
    base: BaseId,
    mut each: impl FnMut(&mut Check<'_>, &[u8], Result<Entry>) -> Result<()>,
) -> Result<()> {
    let mut shown = Shown::of(check.daemon.views.tree(), base);
    loop {
        let some = shown.step()?;
        if some.is_empty() {
            return Ok(());
        }
        for (key, entry) in some {
            each(check, &key, entry)?;
        }
        check.tell()?;
    }
}

fn entry(check: &mut Check<'_>, key: &[u8], entry: Result<Entry>) -> Result<()> {
    let tree = check.daemon.views.tree();
    let parent = InodeNo::of_key(key).unwrap_or_default();
    let target = match entry {
        Ok(entry) => entry.inode,
        Err(error) => {
            let paths = check.paths_now(parent);
            check.problem(error.to_string(), paths);
            return Ok(());
        }
    };
    let is_missing = tree.inode(target.live()).is_err();
    if is_missing && leads_nowhere(tree, key, target)? {
        let paths = check.paths_now(parent);
        let text = format!(
            "an entry of directory {} names inode {}, which is missing or cannot be read",
            parent.number(),
            target.number()
        );
        check.problem(text, paths);
    }
    Ok(())
}

/// Notes in which directory a directory is.
fn note_above(above: &mut Above, key: &[u8], entry: &Result<Entry>) {
    if let (Some(directory), Ok(entry)) = (InodeNo::of_key(key), entry) {
        above.add(directory, entry);
    }
}
