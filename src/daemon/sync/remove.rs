//! Removing what the source does not have.

use super::{Sync, pop, push};
use crate::device::InodeNo;
use crate::error::Result;
use crate::tree::{Entry, Inode};

/// A directory that is being emptied.
struct Frame {
    parent: InodeNo,
    name: Vec<u8>,
    inode: InodeNo,
    pending: Vec<(Entry, Inode)>,
    /// Nothing excluded stays in it.
    is_empty: bool,
}

/// Removes a name of the directory that is being compared; false where something excluded keeps a directory.
pub(super) fn remove(sync: &mut Sync<'_>, parent: InodeNo, name: &[u8], inode: InodeNo, old: &Inode) -> Result<bool> {
    push(&mut sync.path, name);
    let is_gone = remove_here(sync, parent, name, inode, old);
    pop(&mut sync.path);
    is_gone
}

/// The same of the name that is being compared.
pub(super) fn remove_here(
    sync: &mut Sync<'_>,
    parent: InodeNo,
    name: &[u8],
    inode: InodeNo,
    old: &Inode,
) -> Result<bool> {
    if sync.skipped.is_excluded(&sync.path, old.is_directory()) {
        return Ok(false);
    }
    if !old.is_directory() {
        return unlink(sync, parent, name).map(|()| true);
    }
    let mut is_gone = false;
    let mut stack = vec![frame_of(sync, parent, name.to_vec(), inode)?];
    while let Some(frame) = stack.last_mut() {
        if let Some((Entry { name, inode: child, .. }, found)) = frame.pending.pop() {
            let directory = frame.inode;
            push(&mut sync.path, &name);
            if sync.skipped.is_excluded(&sync.path, found.is_directory()) {
                frame.is_empty = false;
            } else if found.is_directory() {
                stack.push(frame_of(sync, directory, name, child)?);
                continue;
            } else {
                unlink(sync, directory, &name)?;
            }
            pop(&mut sync.path);
            continue;
        }
        let Some(frame) = stack.pop() else { break };
        if frame.is_empty {
            removed(sync);
            if !sync.dry_run {
                sync.tree.names().remove_directory(frame.parent, &frame.name)?;
            }
        }
        match stack.last_mut() {
            Some(above) => {
                above.is_empty &= frame.is_empty;
                pop(&mut sync.path);
            }
            None => is_gone = frame.is_empty,
        }
        sync.tell()?;
    }
    Ok(is_gone)
}

fn frame_of(sync: &Sync<'_>, parent: InodeNo, name: Vec<u8>, inode: InodeNo) -> Result<Frame> {
    let mut pending = Vec::new();
    sync.tree.names().list_with_inodes(inode.live(), 0, |entry, found| {
        pending.push((entry.clone(), found.clone()));
        Ok(true)
    })?;
    Ok(Frame { parent, name, inode, pending, is_empty: true })
}

fn unlink(sync: &mut Sync<'_>, parent: InodeNo, name: &[u8]) -> Result<()> {
    removed(sync);
    if !sync.dry_run {
        sync.tree.names().unlink(parent, name)?;
    }
    Ok(())
}

fn removed(sync: &mut Sync<'_>) {
    sync.report.removed += 1;
    sync.plan("remove");
}
