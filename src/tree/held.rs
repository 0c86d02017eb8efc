//! Inodes that are known outside, by a kernel, or are in the making inside: until that is over, they are not removed.

use crate::device::InodeNo;
use crate::limits::{REAPING_AT, REST_BEFORE_REAPING, REST_BEFORE_REAPING_MAX};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

#[derive(Default)]
pub struct Held {
    known: Mutex<HashMap<InodeNo, Known>>,
    let_go: Mutex<LetGo>,
}

/// How an inode is known.
#[derive(Default)]
struct Known {
    /// By a kernel.
    times: u64,
    /// Somebody here makes it, and no kernel can know of it before it has a name.
    is_in_the_making: bool,
    generation: u64,
    /// Its last name was removed meanwhile.
    is_nameless: bool,
}

/// What lost its name first and was then forgotten, and is still to be removed.
#[derive(Default)]
struct LetGo {
    inodes: Vec<InodeNo>,
    /// When the first of them was, and when the last.
    since: Option<(Instant, Instant)>,
}

impl Held {
    /// Notes that the inode is known outside; it is then not removed before [`Tree::let_go`](super::Tree::let_go). Its
    /// generation.
    pub fn hold(&self, inode: InodeNo) -> u64 {
        let mut known = self.known.lock();
        let known = known.entry(inode).or_default();
        known.times += 1;
        known.generation
    }

    /// An inode without a name is being made; it is not removed before [`Tree::made`](super::Tree::made).
    pub(super) fn hold_in_the_making(&self, inode: InodeNo) {
        let mut known = self.known.lock();
        let known = known.entry(inode).or_default();
        known.is_in_the_making = true;
        known.is_nameless = true;
    }

    /// An inode is made; whether nobody holds it now.
    pub(super) fn made(&self, inode: InodeNo) -> bool {
        let mut all = self.known.lock();
        let Some(known) = all.get_mut(&inode) else { return false };
        known.is_in_the_making = false;
        let is_over = known.times == 0;
        if is_over {
            all.remove(&inode);
        }
        is_over
    }

    /// A kernel takes back `count` holds; an inode without a name that these were the last of waits until it is removed. Whether it is
    /// the first that does.
    pub(super) fn let_go(&self, inode: InodeNo, count: u64) -> bool {
        let mut all = self.known.lock();
        let Some(known) = all.get_mut(&inode) else { return false };
        known.times = known.times.saturating_sub(count);
        if known.times > 0 || known.is_in_the_making {
            return false;
        }
        let is_nameless = known.is_nameless;
        all.remove(&inode);
        drop(all);
        if !is_nameless {
            return false;
        }
        let mut waiting = self.let_go.lock();
        waiting.inodes.push(inode);
        let now = Instant::now();
        let is_first = waiting.since.is_none();
        waiting.since.get_or_insert((now, now)).1 = now;
        is_first
    }

    /// Up to so many of those that wait to be removed.
    pub(super) fn take_to_go(&self, most: usize) -> Vec<InodeNo> {
        let mut waiting = self.let_go.lock();
        let rest = waiting.inodes.len().saturating_sub(most);
        let taken = waiting.inodes.split_off(rest);
        if rest == 0 {
            *waiting = LetGo::default();
        }
        taken
    }

    /// How long it is until what waits to be removed should be, if something does. When a tree is removed, each is let go by
    /// itself, and whoever removes it would wait again and again for whoever frees what is left of it: so that begins when
    /// nothing more comes, or after a while, or when there are many.
    pub fn rest(&self) -> Option<Duration> {
        let waiting = self.let_go.lock();
        let (first, last) = waiting.since?;
        if waiting.inodes.len() >= REAPING_AT {
            return Some(Duration::ZERO);
        }
        let quiet = REST_BEFORE_REAPING.saturating_sub(last.elapsed());
        Some(quiet.min(REST_BEFORE_REAPING_MAX.saturating_sub(first.elapsed())))
    }

    /// An inode has lost its last name, if it had one; whether it is held.
    pub(super) fn loses_name(&self, inode: InodeNo) -> bool {
        let mut all = self.known.lock();
        let known = all.get_mut(&inode);
        known.map(|known| known.is_nameless = true).is_some()
    }

    pub fn is_held(&self, inode: InodeNo) -> bool {
        self.known.lock().contains_key(&inode)
    }

    /// Whether a kernel may know it.
    pub(super) fn is_known_outside(&self, inode: InodeNo) -> bool {
        self.known.lock().get(&inode).is_some_and(|known| known.times > 0)
    }

    /// All that a kernel may know.
    pub fn known_outside(&self) -> Vec<InodeNo> {
        self.known.lock().iter().filter(|(_, known)| known.times > 0).map(|(inode, _)| *inode).collect()
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
