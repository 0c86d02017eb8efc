//! The files' locks: whoever changes the data of a file holds its one.

use crate::device::InodeNo;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeSet;

const FILE_LOCKS: usize = 64;

pub(super) struct FileLocks(Vec<Mutex<()>>);

impl FileLocks {
    pub(super) fn new() -> FileLocks {
        FileLocks((0..FILE_LOCKS).map(|_| Mutex::default()).collect())
    }

    pub(super) fn lock(&self, inode: InodeNo) -> MutexGuard<'_, ()> {
        self.0[lock_of(inode)].lock()
    }

    /// Locks two files, in an order in which no two callers can wait for each other.
    pub(super) fn lock_two(&self, a: InodeNo, b: InodeNo) -> (MutexGuard<'_, ()>, Option<MutexGuard<'_, ()>>) {
        let (a, b) = (lock_of(a), lock_of(b));
        let first = self.0[a.min(b)].lock();
        (first, (a != b).then(|| self.0[a.max(b)].lock()))
    }

    /// Locks several files, in the same order.
    pub(super) fn lock_these(&self, inodes: &[InodeNo]) -> Vec<MutexGuard<'_, ()>> {
        let which: BTreeSet<usize> = inodes.iter().map(|inode| lock_of(*inode)).collect();
        which.into_iter().map(|lock| self.0[lock].lock()).collect()
    }

    /// Nobody changes the data of a file while this is held: what operations have read of files before they change
    /// them must still be so when they do. Taken before the right to commit, which those who hold a file may be
    /// waiting for.
    pub(super) fn lock_all(&self) -> Vec<MutexGuard<'_, ()>> {
        self.0.iter().map(|lock| lock.lock()).collect()
    }
}

/// Which of the locks of files is this one's.
fn lock_of(inode: InodeNo) -> usize {
    (inode.number() % FILE_LOCKS as u64) as usize
}
