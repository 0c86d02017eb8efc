//! Removing what the source does not have.

use super::{Sync, pop, push};
use crate::device::{InodeNo, Moment};
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

impl Sync<'_> {
    /// Removes a name of the directory that is being compared; false where something excluded keeps a directory.
    pub(super) fn remove(&mut self, parent: InodeNo, name: &[u8], inode: InodeNo, old: &Inode) -> Result<bool> {
        push(&mut self.path, name);
        let is_gone = self.remove_here(parent, name, inode, old);
        pop(&mut self.path);
        is_gone
    }

    /// The same of the name that is being compared.
    pub(super) fn remove_here(&mut self, parent: InodeNo, name: &[u8], inode: InodeNo, old: &Inode) -> Result<bool> {
        if self.skipped.is_excluded(&self.path, old.is_directory()) {
            return Ok(false);
        }
        if !old.is_directory() {
            return self.unlink(parent, name).map(|()| true);
        }
        let mut is_gone = false;
        let mut stack = vec![self.frame(parent, name.to_vec(), inode)?];
        while let Some(frame) = stack.last_mut() {
            if let Some((Entry { name, inode: child, .. }, found)) = frame.pending.pop() {
                let directory = frame.inode;
                push(&mut self.path, &name);
                if self.skipped.is_excluded(&self.path, found.is_directory()) {
                    frame.is_empty = false;
                } else if found.is_directory() {
                    stack.push(self.frame(directory, name, child)?);
                    continue;
                } else {
                    self.unlink(directory, &name)?;
                }
                pop(&mut self.path);
                continue;
            }
            let Some(frame) = stack.pop() else { break };
            if frame.is_empty {
                self.removed();
                if !self.dry_run {
                    self.tree.names().remove_directory(frame.parent, &frame.name)?;
                }
            }
            match stack.last_mut() {
                Some(above) => {
                    above.is_empty &= frame.is_empty;
                    pop(&mut self.path);
                }
                None => is_gone = frame.is_empty,
            }
            self.tell()?;
        }
        Ok(is_gone)
    }

    fn frame(&self, parent: InodeNo, name: Vec<u8>, inode: InodeNo) -> Result<Frame> {
        let mut pending = Vec::new();
        self.tree.names().list_with_inodes(inode, 0, Moment::Live, |entry, found| {
            pending.push((entry.clone(), found.clone()));
            Ok(true)
        })?;
        Ok(Frame { parent, name, inode, pending, is_empty: true })
    }

    fn unlink(&mut self, parent: InodeNo, name: &[u8]) -> Result<()> {
        self.removed();
        if !self.dry_run {
            self.tree.names().unlink(parent, name)?;
        }
        Ok(())
    }

    fn removed(&mut self) {
        self.report.removed += 1;
        self.plan("remove");
    }
}
