//! The clock by which the kernel stamps files.
//!
//! It is not the one that tells the time of day: it stands still for some milliseconds, and goes on where a file system
//! that stamps finer has been. Where the kernel stamps some inodes of a tree and this process others, only one and the same
//! clock keeps them in order: a file that changed after another one is never older.

use super::Timestamp;
use rustix::fs::{MemfdFlags, Timespec, Timestamps, UTIME_NOW, fstat, futimens, memfd_create};
use std::os::fd::OwnedFd;

/// A file of its own that is stamped to see the time.
pub struct FileClock(OwnedFd);

impl FileClock {
    pub fn open() -> rustix::io::Result<FileClock> {
        memfd_create("clock", MemfdFlags::CLOEXEC).map(FileClock)
    }

    /// Not before any stamp that the kernel gave to a file, and not after any that it is going to give.
    pub fn now(&self) -> rustix::io::Result<Timestamp> {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        futimens(&self.0, &Timestamps { last_access: now, last_modification: now })?;
        let stat = fstat(&self.0)?;
        Ok(Timestamp { seconds: stat.st_ctime as i64, nanos: stat.st_ctime_nsec as u32 })
    }
}
