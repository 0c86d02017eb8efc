//! Removing what the snapshot does not have.

use super::{BringBack, Place};
use crate::device::InodeNo;
use crate::error::Result;
use crate::tree::{Entry, Kind};

/// Entries of a directory that are removed between two looks at it.
const PIECE: usize = 256;

/// A name that the snapshot does not have: removed now, or kept for later, which is then true. Something that
/// the snapshot has elsewhere may still be moved there.
pub(super) fn extra(work: &mut BringBack<'_>, place: &Place) -> Result<bool> {
    let Some((now, found)) = work.lookup(place)? else { return Ok(false) };
    if found.is_directory() || work.was_then(now)? {
        work.extras.push(place.clone());
        return Ok(true);
    }
    unlink(work, place, now)?;
    Ok(false)
}

/// Removes a name, of a directory with all that is in it.
pub(super) fn remove(work: &mut BringBack<'_>, place: &Place) -> Result<()> {
    match work.lookup(place)? {
        None => Ok(()),
        Some((now, found)) if found.is_directory() => remove_directory(work, place, now),
        Some((now, _)) => unlink(work, place, now),
    }
}

fn remove_directory(work: &mut BringBack<'_>, place: &Place, directory: InodeNo) -> Result<()> {
    if work.rehearsal.is_some() {
        return work.count_removed(directory);
    }
    let mut stack = vec![(place.clone(), directory)];
    while let Some((place, directory)) = stack.last().cloned() {
        let entries = some_entries(work, directory)?;
        if entries.is_empty() {
            work.tree.names().remove_directory(place.parent, &place.name)?;
            removed(work)?;
            stack.pop();
        }
        for Entry { name, inode, kind, .. } in entries {
            let place = Place { parent: directory, name };
            match kind {
                Kind::Directory => stack.push((place, inode)),
                _ => unlink(work, &place, inode)?,
            }
        }
    }
    Ok(())
}

fn some_entries(work: &BringBack<'_>, directory: InodeNo) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    work.tree.names().list(directory.live(), 0, |entry| {
        entries.push(entry.clone());
        Ok(entries.len() < PIECE)
    })?;
    Ok(entries)
}

fn unlink(work: &mut BringBack<'_>, place: &Place, now: InodeNo) -> Result<()> {
    if work.rehearsal.is_some() {
        work.report.removed += 1;
        work.lose_name(now);
        return Ok(());
    }
    work.tree.names().unlink(place.parent, &place.name)?;
    removed(work)
}

fn removed(work: &mut BringBack<'_>) -> Result<()> {
    work.has_changed.set(true);
    work.report.removed += 1;
    work.tell(0)
}
