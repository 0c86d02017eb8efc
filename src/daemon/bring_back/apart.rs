//! Names that stay as they are, since what they were cannot be read: their inodes may be brought back under other names.
//!
//! ```text
//! then:  a ─▶ 1 (lost)   b ─▶ 2        now:  a ─▶ 2, changed        wanted:  a ─▶ 3, as 2 was before   b ─▶ 2, as it was then
//! ```

use super::{BringBack, Place};
use crate::device::{InodeNo, Moment};
use crate::error::{Error, Result};
use crate::tree::Kind;
use std::collections::{HashMap, HashSet};

/// What is known of them.
#[derive(Default)]
pub(super) struct Apart {
    /// Names that stay, with what they lead to; of those that have another name or had one.
    kept: Vec<(Place, InodeNo)>,
    /// What was changed though it had another name than the one that was brought back. Without it, after a crash, all may have been.
    pub changed: Option<HashSet<InodeNo>>,
}

/// What a name leads to stays as it is, with all below it.
pub(super) fn keep(work: &mut BringBack<'_>, place: &Place, now: InodeNo, kind: Kind) -> Result<()> {
    match kind {
        _ if work.rehearsal.is_some() => Ok(()),
        Kind::Directory => keep_below(work, now),
        _ => keep_file(work, place, now),
    }
}

/// The same of what lies in a directory.
pub(super) fn keep_below(work: &mut BringBack<'_>, directory: InodeNo) -> Result<()> {
    let mut pending = vec![directory];
    while let (Some(parent), None) = (pending.pop(), &work.rehearsal) {
        let mut files = Vec::new();
        let listed = work.tree.names().list(parent.live(), 0, |entry| {
            match entry.kind {
                Kind::Directory => pending.push(entry.inode),
                _ => files.push(entry.clone()),
            }
            Ok(true)
        });
        if let Err(error) = listed {
            // It may be what could not be listed in the first place.
            pass_over(work, error)?;
        }
        for entry in files {
            keep_file(work, &Place { parent, name: entry.name }, entry.inode)?;
        }
        work.tell(0)?;
    }
    Ok(())
}

fn keep_file(work: &mut BringBack<'_>, place: &Place, now: InodeNo) -> Result<()> {
    match work.named(now.at(work.then)) {
        Ok(Some(_)) => work.apart.kept.push((place.clone(), now)),
        Ok(None) => {}
        // Nothing becomes what cannot be read.
        Err(error) => pass_over(work, error)?,
    }
    Ok(())
}

/// What is in the way of this alone ends no more than this.
fn pass_over(work: &BringBack<'_>, error: Error) -> Result<()> {
    if work.concerns_all(&error) { Err(error) } else { Ok(()) }
}

/// Whatever is brought back, a name that stays is as it was before the work.
pub(super) fn part(work: &mut BringBack<'_>) -> Result<()> {
    let mut own = HashMap::new();
    for (place, inode) in std::mem::take(&mut work.apart.kept) {
        let result = part_one(work, &place, inode, &mut own);
        work.settle(result, &place)?;
    }
    Ok(())
}

fn part_one(
    work: &mut BringBack<'_>,
    place: &Place,
    inode: InodeNo,
    own: &mut HashMap<InodeNo, InodeNo>,
) -> Result<()> {
    let now = work.lookup(place)?.filter(|(now, _)| *now == inode);
    let may_differ = work.apart.changed.as_ref().is_none_or(|changed| changed.contains(&inode));
    let was = inode.at(Moment::At(work.before));
    if now.is_none() || !may_differ || !work.tree.likeness().unlikeness(inode, was)?.any() {
        return Ok(());
    }
    match own.get(&inode) {
        Some(own) => work.put(place, *own, now.as_ref()).map(drop),
        None => {
            own.insert(inode, work.make_like(place, was, now)?);
            Ok(())
        }
    }
}
