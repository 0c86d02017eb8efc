//! Which files of a base as it is now somebody can change without a request: those that are open for writing,
//! through a mapping or, with the writeback cache, by write(2). Until a page is written out, only the kernel knows of it.
//!
//! A mapping keeps its file open. So what is not counted here has no dirty page.

use super::attr::Attr;
use super::number::Place;
use super::{FileSystem, Notify};
use crate::device::InodeNo;
use crate::error::{Errno, Error, Result};
use crate::tree::Kind;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;

/// Which opens of files the kernel asks for. It asks for all of a mount, or for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Opens {
    /// Each is a request: what may not be written to is not opened for writing.
    #[default]
    All,
    /// Answered once for all.
    None,
}

/// How often each inode is open for writing.
#[derive(Default)]
pub(super) struct OpenForWriting(Mutex<HashMap<InodeNo, usize>>);

impl OpenForWriting {
    pub(super) fn open(&self, inode: InodeNo) {
        *self.0.lock().entry(inode).or_default() += 1;
    }

    /// Whether that was the last one.
    pub(super) fn close(&self, inode: InodeNo) -> bool {
        let mut open = self.0.lock();
        let Some(count) = open.get_mut(&inode) else { return false };
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            open.remove(&inode);
        }
        is_last
    }

    pub(super) fn has(&self, inode: InodeNo) -> bool {
        self.0.lock().contains_key(&inode)
    }

    pub(super) fn all(&self) -> Vec<InodeNo> {
        self.0.lock().keys().copied().collect()
    }
}

/// Live files of which pages that the kernel wrote out could not be stored, and nobody was told yet.
#[derive(Default)]
pub(super) struct NotStored(Mutex<HashSet<InodeNo>>);

impl NotStored {
    pub(super) fn note(&self, inode: InodeNo) {
        self.0.lock().insert(inode);
    }

    /// Those of these files of which that is so. They are told by that.
    pub(super) fn take(&self, inodes: &[InodeNo]) -> Vec<InodeNo> {
        let mut known = self.0.lock();
        inodes.iter().copied().filter(|inode| known.remove(inode)).collect()
    }
}

/// What the kernel can have of files that nobody else knows of.
#[derive(Clone, Copy)]
pub(super) struct Unwritten<'a> {
    pub(super) fs: &'a FileSystem,
}

impl Unwritten<'_> {
    /// Whether the kernel can have pages of a file that it has not written out.
    pub(super) fn may_be_dirty(&self, inode: InodeNo) -> bool {
        self.fs.opens == Opens::None || self.fs.open_for_writing.has(inode)
    }

    /// All of which it can.
    pub(super) fn which_may_be_dirty(&self) -> Vec<InodeNo> {
        match self.fs.opens {
            Opens::All => self.fs.open_for_writing.all(),
            Opens::None => self.fs.views.tree().held().known_outside(),
        }
    }

    /// A file that may have data of which only the kernel knows is never shown without a block: programs take such a one for
    /// a hole from beginning to end.
    pub(super) fn show_unseen_data(&self, place: Place, attr: &mut Attr) {
        let is_empty = attr.size == 0 && !self.fs.writeback;
        if attr.kind == Kind::File
            && attr.blocks == 0
            && !is_empty
            && place.at.is_live()
            && self.may_be_dirty(place.inode())
        {
            attr.blocks = 1;
        }
    }

    /// What `st_blocks` is without data of which only the kernel knows, and whether it is not what is shown while the
    /// file is open for writing.
    pub(super) fn stored_blocks(&self, inode: InodeNo) -> (u64, bool) {
        let tree = self.fs.views.tree();
        let Ok(found) = tree.inode(inode.live()) else { return (0, false) };
        let blocks = found.blocks(tree.device().track_bytes());
        (blocks, blocks == 0 && found.kind() == Kind::File && (found.size > 0 || self.fs.writeback))
    }

    /// With the writeback cache: brings in what writers have written and the kernel still keeps. What cannot be fetched of one
    /// file keeps no other from it.
    pub(super) fn fetch_dirty_pages(&self, notify: &Notify) -> Result<()> {
        let mut fetched = Ok(());
        for inode in self.fs.open_for_writing.all() {
            let shown = match self.fs.path_of_live(inode.base()) {
                Ok(path) => path,
                // A tree that is offline has no path.
                Err(Error::Posix(Errno::NOENT)) => continue,
                Err(error) => return Err(error),
            };
            for path in self.fs.views.tree().names().paths(inode.live())?.into_iter().take(1) {
                let path = shown.join(std::ffi::OsStr::from_bytes(&path));
                fetched = fetched.and(notify.fetch_written(inode, &path));
            }
        }
        fetched
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::LIVE;

    #[test]
    fn of_each_file_it_is_told_once_that_something_was_not_stored() {
        let known = NotStored::default();
        let [one, two, three, four] = [1, 2, 3, 4].map(|number| InodeNo::new(LIVE, number));
        [one, two, three].into_iter().for_each(|inode| known.note(inode));
        assert_eq!(known.take(&[one, three, four]), [one, three]);
        assert!(known.take(&[one, three, four]).is_empty());
        assert_eq!(known.take(&[two]), [two]);
    }
}
