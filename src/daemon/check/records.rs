//! Inodes, names, snapshots and the log: do they fit together?

use super::{Check, Paths, epochs};
use crate::clock::Epoch;
use crate::device::check::{Facts, is_tombstone};
use crate::device::{BaseId, InodeNo, Moment};
use crate::error::Result;
use crate::meta::Table;
use crate::shown::shown;
use crate::tree::check::{
    Above, Gap, InodeSays, Links, Moments, circle_problem, circles, entry as entry_of, link, old_value,
};
use crate::view::LIVE_NAME;

pub(super) fn all(check: &mut Check<'_>) -> Result<()> {
    let mut moments = Moments::default();
    check.each(Table::Snapshot, |check, (key, value)| {
        check.bases.snapshot_of_own(&key, &value).into_iter().for_each(|snapshot| moments.snapshot(snapshot));
        Ok(())
    })?;
    let mut links = Links::default();
    check.each(Table::Inode, |check, (key, value)| {
        epochs::born(check, Table::Inode, &key, &value);
        inode(check, &mut links, &mut moments, &key, &value);
        Ok(())
    })?;
    // Old values come before what is now: entries that are there now were so in snapshots.
    log(check, &mut moments)?;
    let mut above = Above::default();
    check.each(Table::Dirent, |check, (key, value)| {
        epochs::born(check, Table::Dirent, &key, &value);
        if is_tombstone(&value) {
            return Ok(());
        }
        check.report.names += 1;
        let found = moments.entry(check.daemon.views.tree(), &key, &value);
        found.into_iter().for_each(|found| gap(check, &found));
        if BaseId::of_key(&key).map_or(true, |base| check.bases.is_whole(base)) {
            entry(check, &mut links, &mut above, &key, &value);
        }
        Ok(())
    })?;
    drop(moments);
    check.each(Table::Link, |check, (key, value)| {
        epochs::born(check, Table::Link, &key, &value);
        if let Err(error) = link(&key, &value) {
            let paths = InodeNo::of_key(&key).map_or_else(Paths::default, |inode| check.paths_now(inode));
            check.problem(error.to_string(), paths);
        }
        Ok(())
    })?;
    if !check.is_partial {
        counts(check, &links);
    }
    circles(&above).iter().for_each(|circle| say_circle(check, circle));
    snapshot_names(check)
}

/// An inode as it is now.
fn inode(check: &mut Check<'_>, links: &mut Links, moments: &mut Moments, key: &[u8], value: &[u8]) {
    let says = InodeSays::of(key, value);
    check.report.inodes += u64::from(!matches!(says, Ok(None)));
    let says = match says {
        Ok(Some(says)) => says,
        Ok(None) => return,
        Err(problem) => return check.unreadable(problem, Paths::default()),
    };
    moments.inode(&says);
    match says.inode {
        Ok(inode) if check.bases.is_whole(says.number.base()) => links.add(says.number, &inode),
        Ok(_) => {}
        Err(error) => {
            let paths = check.paths(says.number, Epoch::ZERO, None);
            check.unreadable(error.to_string(), paths);
        }
    }
}

fn entry(check: &mut Check<'_>, links: &mut Links, above: &mut Above, key: &[u8], value: &[u8]) {
    let parent = InodeNo::of_key(key).unwrap_or_default();
    let entry = match entry_of(check.daemon.views.tree(), key, value) {
        Ok(entry) => entry,
        Err(error) => {
            let paths = check.paths_now(parent);
            return check.unreadable(error.to_string(), paths);
        }
    };
    above.add(parent, &entry);
    if let Some(problem) = links.entry(parent, &entry)
        && check.is_current(Table::Dirent, key, value)
    {
        let paths = check.paths_of_name(parent.live(), &entry.name, LIVE_NAME);
        let name = shown(&entry.name);
        check.problem(format!("entry \"{name}\" of directory {}: {problem}", parent.number()), paths);
    }
}

fn counts(check: &mut Check<'_>, links: &Links) {
    for counted in links.problems() {
        if counted.is_current(check.daemon.views.tree()) {
            let paths = check.paths_now(counted.inode);
            check.problem(format!("inode {}: {}", counted.inode.number(), counted.problem), paths);
        }
    }
}

/// An entry leads to nothing in a snapshot that shows it.
fn gap(check: &mut Check<'_>, gap: &Gap) {
    if let Some(name) = gap.snapshot_now(check.daemon.views.tree()) {
        let paths = check.paths_of_name(gap.directory.at(Moment::At(gap.epoch)), &gap.entry.name, &name);
        check.problem(gap.problem(&name), paths);
    }
}

pub(super) fn say_circle(check: &mut Check<'_>, circle: &[InodeNo]) {
    let Some(first) = circle.first() else { return };
    let paths = check.paths_now(*first);
    check.problem(circle_problem(circle), paths);
}

/// Names and snapshots lead to each other.
fn snapshot_names(check: &mut Check<'_>) -> Result<()> {
    for snapshot in check.snapshots.clone() {
        let found = check.daemon.views.of(snapshot.base).find(snapshot.record.name.as_bytes())?;
        if found.as_ref().map(|found| found.epoch) == Some(snapshot.epoch) {
            continue;
        }
        // It may have been deleted or renamed meanwhile.
        let now = check.daemon.views.tree().device().look()?.moments().snapshot(snapshot.base, snapshot.epoch)?;
        if now.is_some_and(|now| now.record == snapshot.record) {
            check.say(format!("the name of snapshot {:?} does not lead to it", snapshot.record.name));
        }
    }
    Ok(())
}

/// Old values, and that pre-images and increments are the same facts in two orders.
fn log(check: &mut Check<'_>, moments: &mut Moments) -> Result<()> {
    let tree = check.daemon.views.tree();
    let mut facts = Facts::default();
    check.each(Table::Preimage, |check, (key, value)| {
        let named = match facts.preimage(&key) {
            Ok(named) => named,
            Err(error) => {
                check.unreadable(error.to_string(), Paths::default());
                return Ok(());
            }
        };
        if let Err((birth, error)) = old_value(tree, &named, &value) {
            let inode = InodeNo::of_key(&named.key);
            let paths = inode.map_or_else(Paths::default, |inode| check.paths(inode, birth, Some(named.end)));
            check.problem(error.to_string(), paths);
        }
        epochs::ended(check, &named, &value);
        moments.old_value(tree, &named, &value).into_iter().for_each(|found| gap(check, &found));
        Ok(())
    })?;
    moments.finish();
    check.each(Table::Increment, |check, (key, _)| {
        if let Err(error) = facts.increment(&key) {
            check.unreadable(error.to_string(), Paths::default());
        }
        Ok(())
    })?;
    if !check.is_partial
        && let Some(problem) = facts.problem()
    {
        check.say(problem);
    }
    Ok(())
}
