//! Times of change: by which clock, and whose they are.
//!
//! A kernel with a writeback cache stamps files itself when they are written, shows no other times, and hands them in on its
//! own where they differ from what it was told. So its clock stamps all other changes too, and a page that arrives changes no
//! time: it was stamped when it was written, and the time may have come before it or may be the one that is known.

use super::Inode;
use crate::clock::{FileClock, Timestamp};
use crate::device::InodeNo;
use crate::error::{Error, Result};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::OnceLock;

#[derive(Default)]
pub struct Stamps {
    /// The kernel's clock, where it stamps files too.
    clock: OnceLock<FileClock>,
    /// Files that the kernel stamps.
    left: Mutex<HashSet<InodeNo>>,
}

impl Stamps {
    /// From now on changes are stamped by the clock by which the kernel stamps files.
    pub fn follow_kernel(&self) -> Result<()> {
        let clock = FileClock::open().map_err(|errno| Error::media("making a file to see the time", errno.into()))?;
        self.clock.get_or_init(|| clock);
        Ok(())
    }

    pub(super) fn now(&self) -> Timestamp {
        let seen = self.clock.get().and_then(|clock| clock.now().ok());
        seen.unwrap_or_else(Timestamp::now)
    }

    /// Stamps a change of a file's data, unless the kernel does.
    pub(super) fn touch(&self, number: InodeNo, found: &mut Inode) {
        if !self.left.lock().contains(&number) {
            found.touch(self.now());
        }
    }

    /// From now on the kernel hands in when the file was written.
    pub fn leave_to_kernel(&self, inode: InodeNo) {
        self.left.lock().insert(inode);
    }

    /// Nobody writes to the file through the kernel any more.
    pub fn take_back(&self, inode: InodeNo) {
        self.left.lock().remove(&inode);
    }
}
