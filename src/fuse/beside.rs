//! Asking the mount from beside: what the kernel takes only from an answer to somebody who asks.
//!
//! No notification makes a file smaller that the kernel knows, nor, with its writeback cache, changes its size or
//! its times at all. Answers do: one to a change of the time, and with the writeback cache one to a change of the size.
//! Both have the inode locked, so that no write is between where it belongs and the daemon; where whoever runs
//! the daemon may not change the file, a look-up has to do. So the visitor, a companion, asks for these, by a name in the mount root that leads to any live
//! inode, whether that has a name or not. Nobody else finds anything under it. Its changes change nothing: the answer is
//! what the inode is.

use super::companion::{Outcome, Visit};
use super::notify::Notify;
use super::number::{KernelNo, live_number};
use crate::clock::Timestamp;
use crate::device::InodeNo;
use crate::error::Errno;
use parking_lot::Mutex;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

const PREFIX: &str = ".pitfs-beside-";
/// Programs that write at the same time can make the kernel pass over an answer.
const TRIES: usize = 20;

/// Who asks from beside now: the process number of the visitor, 0 for nobody, and those of visitors that are stuck in asking. It
/// has other errands as well, in which what the kernel sends in its name is what programs did.
#[derive(Default)]
pub(super) struct Beside {
    now: AtomicU32,
    stuck: Mutex<Vec<u32>>,
    has_stuck: AtomicBool,
}

impl Beside {
    pub(super) fn begin(&self, process: u32) {
        self.now.store(process, Ordering::Release);
    }

    /// A process has done what it was asked, or is stuck in it.
    pub(super) fn end(&self, process: u32, is_stuck: bool) {
        if is_stuck {
            self.stuck.lock().push(process);
            self.has_stuck.store(true, Ordering::Release);
        }
        self.now.store(0, Ordering::Release);
    }

    /// A process is gone that was stuck.
    pub(super) fn forget(&self, process: u32) {
        let mut stuck = self.stuck.lock();
        stuck.retain(|one| *one != process);
        self.has_stuck.store(!stuck.is_empty(), Ordering::Release);
    }

    pub(super) fn is_asking(&self, process: u32) -> bool {
        let is_stuck = || self.has_stuck.load(Ordering::Acquire) && self.stuck.lock().contains(&process);
        process != 0 && (self.now.load(Ordering::Acquire) == process || is_stuck())
    }
}

fn name_of(inode: InodeNo) -> String {
    format!("{PREFIX}{:016x}", live_number(inode).0)
}

/// The inode that a name in the mount root stands for, for who asks from beside.
pub(super) fn number_in(name: &[u8]) -> Option<KernelNo> {
    let digits = std::str::from_utf8(name).ok()?.strip_prefix(PREFIX)?;
    u64::from_str_radix(digits, 16).ok().map(KernelNo)
}

/// The size of a file and the time of its last change; `None` if it is gone.
pub type Facts<'a> = &'a dyn Fn(InodeNo) -> Option<(u64, Timestamp)>;

impl Notify {
    /// Makes the kernel take the sizes of live files anew, and with its writeback cache the times of their last change.
    /// Those for which it does not, each with the reason.
    pub fn renew(&self, inodes: &[InodeNo], facts: Facts<'_>) -> Vec<(InodeNo, Errno)> {
        let failed = self.ask(inodes, facts);
        self.drop_beside(&inodes.iter().map(|inode| name_of(*inode)).collect::<Vec<_>>());
        failed
    }

    /// With its writeback cache the kernel took what cannot be written to a live file: it gets the size and the time that
    /// the file has.
    pub(super) fn take_back(&self, inode: InodeNo) {
        self.inode_changed(inode);
        let facts = |inode: InodeNo| {
            let found = self.fs.views.tree().inode(inode.live()).ok()?;
            Some((found.size, found.mtime))
        };
        for (inode, errno) in self.renew(&[inode], &facts) {
            log::warn!("another size of inode {inode} may be shown than it has: {}", std::io::Error::from(errno));
        }
    }

    fn ask(&self, inodes: &[InodeNo], facts: Facts<'_>) -> Vec<(InodeNo, Errno)> {
        let mut left: Vec<InodeNo> = inodes.to_vec();
        let mut failed = Vec::new();
        for _ in 0..TRIES {
            let asked: Vec<(InodeNo, Timestamp)> =
                left.drain(..).filter_map(|inode| Some((inode, facts(inode)?.1))).collect();
            let visit = |time| if self.keeps_times() { Visit::Set(time) } else { Visit::Touch(time) };
            let messages: Vec<_> =
                asked.iter().map(|(inode, time)| visit(*time).message(&self.path_of(*inode))).collect();
            for ((inode, _), (result, size)) in asked.into_iter().zip(self.visit(&messages)) {
                match result {
                    Err(errno) => failed.push((inode, errno)),
                    // With the writeback cache the kernel may know more than the daemon by now.
                    Ok(()) if self.keeps_times() => {}
                    Ok(()) if facts(inode).is_none_or(|(now, _)| now == size) => {}
                    Ok(()) => left.push(inode),
                }
            }
            if left.is_empty() {
                break;
            }
        }
        failed.extend(left.into_iter().map(|inode| (inode, Errno::AGAIN)));
        failed
    }

    fn path_of(&self, inode: InodeNo) -> PathBuf {
        self.mount_point().join(name_of(inode))
    }

    fn visit(&self, messages: &[Vec<u8>]) -> Vec<Outcome> {
        if messages.is_empty() {
            return Vec::new();
        }
        self.visitor.ask_from_beside(messages).unwrap_or_else(|error| {
            log::warn!("no visitor can be started: {error}");
            messages.iter().map(|_| (Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)), 0)).collect()
        })
    }

    /// Lets the kernel find live directories where they are now, and take along what is mounted inside.
    pub fn find(&self, inodes: impl Iterator<Item = InodeNo>) {
        let mut found = Vec::new();
        for inode in inodes {
            let Ok(live) = self.fs.path_of_live(inode.base()) else { continue };
            let paths = self.fs.views.tree().names().paths(inode.live()).unwrap_or_default();
            found.extend(paths.into_iter().map(|path| live.join(OsStr::from_bytes(&path))));
        }
        self.look_up(&found);
    }

    /// Lets the kernel look up paths below the mount point.
    pub fn look_up(&self, paths: &[PathBuf]) {
        let messages: Vec<_> = paths.iter().map(|path| Visit::Look.message(&self.mount_point().join(path))).collect();
        self.visit(&messages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::LIVE;

    #[test]
    fn names_lead_to_numbers_for_who_asks_only() {
        assert_eq!(number_in(name_of(InodeNo::new(LIVE, 77)).as_bytes()), Some(KernelNo(77)));
        for name in [&b".pitfs-beside-"[..], b"live", b".pitfs-beside-x", b"\xff"] {
            assert_eq!(number_in(name), None);
        }
        let beside = Beside::default();
        assert!(!beside.is_asking(0) && !beside.is_asking(7));
        beside.begin(7);
        assert!(beside.is_asking(7) && !beside.is_asking(0));
        beside.end(7, true);
        beside.begin(8);
        beside.end(8, false);
        assert!(beside.is_asking(7) && !beside.is_asking(8));
        beside.forget(7);
        assert!(!beside.is_asking(7));
    }
}
