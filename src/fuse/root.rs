//! The mount root: a directory with `live` and the snapshots, whose changes are snapshot commands.

use super::FileSystem;
use super::convert::attributes;
use crate::device::{Moment, Snapshot};
use crate::error::{Errno, Error, Result};
use crate::tree::{self, Inode};
use crate::view::LIVE_NAME;
use fuser::{FileAttr, FileType, INodeNo};
use std::time::UNIX_EPOCH;

/// Offsets of the root's listing: `.`, `..`, `live`, then the snapshots by epoch.
const LIVE_OFFSET: u64 = 3;
/// Snapshots looked up at once.
const BATCH: usize = 128;

impl FileSystem {
    pub(super) fn root_attributes(&self) -> Result<FileAttr> {
        let newest = self.views.tree().device().look()?.snapshot_before(u32::MAX)?;
        let time = newest.map_or(UNIX_EPOCH, |snapshot| snapshot.record.time.into());
        Ok(FileAttr {
            ino: INodeNo(super::number::ROOT),
            size: 0,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: UNIX_EPOCH,
            kind: FileType::Directory,
            perm: 0o755,
            // One link: the number of subdirectories is not told, as on btrfs.
            nlink: 1,
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    /// The attributes of an inode in a view. A snapshot's root shows the snapshot's time as mtime.
    pub(super) fn attributes(&self, number: u64, moment: Moment) -> Result<FileAttr> {
        let found = self.views.tree().inode(number, moment)?;
        self.attributes_of(number, moment, &found)
    }

    pub(super) fn attributes_of(&self, number: u64, moment: Moment, found: &Inode) -> Result<FileAttr> {
        let tree = self.views.tree();
        let mut attr = attributes(self.numbers.number(number, moment), found, tree.device().track_bytes());
        if let (Moment::At(epoch), tree::ROOT) = (moment, number)
            && let Some(snapshot) = tree.device().look()?.snapshot(epoch)?
        {
            attr.mtime = snapshot.record.time.into();
        }
        Ok(attr)
    }

    pub(super) fn root_lookup(&self, name: &[u8]) -> Result<FileAttr> {
        let moment = if name == LIVE_NAME.as_bytes() {
            Moment::Live
        } else {
            let snapshot = self.views.find(name)?.ok_or(Error::Posix(Errno::NOENT))?;
            Moment::At(snapshot.epoch)
        };
        self.attributes(tree::ROOT, moment)
    }

    /// Lists the root after an offset until `add` says that its buffer is full.
    pub(super) fn root_list(&self, offset: u64, mut add: impl FnMut(&[u8], u64, Option<Moment>) -> bool) -> Result<()> {
        if offset < 1 && add(b".", 1, None) || offset < 2 && add(b"..", 2, None) {
            return Ok(());
        }
        if offset < LIVE_OFFSET && add(LIVE_NAME.as_bytes(), LIVE_OFFSET, Some(Moment::Live)) {
            return Ok(());
        }
        let mut epoch = offset.saturating_sub(LIVE_OFFSET) as u32;
        loop {
            // `add` may look at the state itself: it is not held here meanwhile.
            let batch = self.views.tree().device().look()?.snapshots_after(epoch, BATCH)?;
            let Some(last) = batch.last() else { return Ok(()) };
            epoch = last.epoch;
            for Snapshot { epoch, record } in batch {
                if !record.deleting
                    && add(record.name.as_bytes(), LIVE_OFFSET + u64::from(epoch), Some(Moment::At(epoch)))
                {
                    return Ok(());
                }
            }
        }
    }
}
