//! Names that inodes have lost a moment ago, and that were not their last.
//!
//! A kernel that removes a name counts one link less by itself when it is answered. Whoever is told of the inode's attributes in
//! between has the new count already, and from that the kernel counts one less: it then takes the file for one that is removed, and
//! refuses link(2) with ENOENT until somebody asks for its attributes. What was asked for before the answer came is passed over by
//! the kernel. So whoever asks meanwhile is answered a moment later.

use crate::device::InodeNo;
use parking_lot::Mutex;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long it is until whoever removed the name surely has its answer.
const MOMENT: Duration = Duration::from_millis(1);

thread_local! {
    static BY: Cell<u32> = const { Cell::new(0) };
}

/// Removes a name for a thread of a program, whose kernel counts by itself.
pub fn by<R>(thread: u32, work: impl FnOnce() -> R) -> R {
    let _by = By(BY.replace(thread));
    work()
}

/// Who it was for before, put back whatever the work comes to.
struct By(u32);

impl Drop for By {
    fn drop(&mut self) {
        BY.set(self.0);
    }
}

#[derive(Default)]
pub struct Dropped {
    any: AtomicBool,
    /// With who removed the name, and when.
    recent: Mutex<Vec<(InodeNo, u32, Instant)>>,
}

impl Dropped {
    /// An inode is about to lose a name, and has another.
    pub(super) fn note(&self, inode: InodeNo) {
        let by = BY.get();
        if by == 0 {
            return;
        }
        let mut recent = self.recent.lock();
        recent.retain(|(_, _, since)| since.elapsed() < MOMENT);
        recent.push((inode, by, Instant::now()));
        self.any.store(true, Ordering::Release);
    }

    /// Whether any inode has lost a name, as far as was looked.
    pub fn is_any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// How long a thread that asked for the attributes of an inode is to wait for its answer.
    pub fn rest(&self, inode: InodeNo, thread: u32) -> Option<Duration> {
        let mut recent = self.recent.lock();
        recent.retain(|(_, _, since)| since.elapsed() < MOMENT);
        self.any.store(!recent.is_empty(), Ordering::Release);
        // Who removed it has been answered when it asks for more.
        let others = recent.iter().filter(|(dropped, by, _)| *dropped == inode && *by != thread);
        others.map(|(_, _, since)| MOMENT.saturating_sub(since.elapsed())).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::LIVE;

    #[test]
    fn others_wait_a_moment_for_what_lost_a_name() {
        let dropped = Dropped::default();
        let [one, two] = [1, 2].map(|number| InodeNo::new(LIVE, number));
        dropped.note(one);
        assert_eq!(dropped.rest(one, 7), None, "nobody's kernel counts that");
        by(5, || dropped.note(one));
        assert!(dropped.rest(one, 7).is_some_and(|rest| rest <= MOMENT));
        assert_eq!((dropped.rest(one, 5), dropped.rest(two, 7)), (None, None));
        std::thread::sleep(MOMENT);
        assert_eq!(dropped.rest(one, 7), None);
        assert!(!dropped.any.load(Ordering::Relaxed));
        dropped.note(one);
        assert_eq!(dropped.rest(one, 7), None, "what was done for one is over with it");
    }
}
