//! Inodes that are known outside, by a kernel: until that is over, they are not removed.

use crate::device::InodeNo;
use parking_lot::Mutex;
use std::collections::HashMap;

#[derive(Default)]
pub struct Held {
    known: Mutex<HashMap<InodeNo, Known>>,
}

/// How an inode is known outside.
#[derive(Default)]
struct Known {
    times: u64,
    generation: u64,
}

impl Held {
    /// Notes that the inode is known outside; it is then not removed before [`Tree::unhold`](super::Tree::unhold). Its
    /// generation.
    pub fn hold(&self, inode: InodeNo) -> u64 {
        let mut known = self.known.lock();
        let known = known.entry(inode).or_default();
        known.times += 1;
        known.generation
    }

    /// Takes back `count` holds; whether these were the last.
    pub(super) fn unhold(&self, inode: InodeNo, count: u64) -> bool {
        let mut all = self.known.lock();
        let Some(known) = all.get_mut(&inode) else { return false };
        known.times = known.times.saturating_sub(count);
        let is_over = known.times == 0;
        if is_over {
            all.remove(&inode);
        }
        is_over
    }

    pub fn is_held(&self, inode: InodeNo) -> bool {
        self.known.lock().contains_key(&inode)
    }

    pub fn all(&self) -> Vec<InodeNo> {
        self.known.lock().keys().copied().collect()
    }

    /// Told of an inode with its number. A kernel takes a directory that was removed for dead, as long as a process
    /// stands in it or has something open below: when it comes back meanwhile, it has to be told from that.
    pub fn generation(&self, inode: InodeNo) -> u64 {
        self.known.lock().get(&inode).map_or(0, |known| known.generation)
    }

    /// A kernel knows an inode in a way that cannot be mended: it is to take it for another one. Whoever has it open gets
    /// errors.
    pub fn forsake(&self, inode: InodeNo) {
        self.died(inode);
    }

    /// A directory was removed from outside.
    pub(super) fn died(&self, inode: InodeNo) {
        if let Some(known) = self.known.lock().get_mut(&inode) {
            known.generation += 1;
        }
    }
}
