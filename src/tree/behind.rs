//! What a kernel still sends of a state that is over.
//!
//! A whole tree, or one file, changes behind the back of the kernel that shows it. Until the kernel is told, it can
//! write out pages that were made of what the file was, and append where the file ended. Either would be written
//! over what the file is now.
//!
//! ```text
//! expect ──▶ the change, with the locks of files held ──▶ place: passed over, or moved to the end ──▶ told ──▶ end
//! ```
//!
//! Invariants:
//! - from the change until the kernel was told of a file, no page that it had before is written to the file;
//! - what is passed over was stored before the change was reported as done, and counts as stored before it;
//! - what lies behind the end that the kernel was given is new: it had let go of what it knew there, and goes on from that end;
//! - a file of which something was passed over or moved is astray: the kernel shows what is not there, and is told again;
//! - without somebody who will tell the kernel nothing is passed over.

use super::Tree;
use super::inode::{self, Inode};
use crate::device::{BaseId, InodeNo, Moment, Point, State};
use crate::error::{Error, Result};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

/// How a kernel sends bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// A page that it writes out, not a write of a program.
    pub from_cache: bool,
    /// Where it takes the end of the file to be.
    pub appended: bool,
}

#[derive(Default)]
pub(super) struct Behind {
    /// Somebody shows this tree.
    is_shown: AtomicBool,
    /// Whether there is anything in the rest.
    is_any: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    expected: HashSet<BaseId>,
    /// Trees that have changed, with the snapshot of what was there before, if there is one, which is kept until then. It
    /// can be another base's, where inodes have the same numbers.
    trees: HashMap<BaseId, Option<Point>>,
    files: HashMap<InodeNo, File>,
    /// Something was passed over.
    astray: BTreeSet<InodeNo>,
    /// Something was moved.
    moved: BTreeSet<InodeNo>,
}

#[derive(Clone, Copy, Default)]
struct File {
    /// The size that the kernel believes in.
    size: Option<u64>,
    /// The size that the kernel was given: it lets go of the pages behind it. Others may still be old.
    end: Option<u64>,
    /// The kernel has let go of old pages.
    is_told: bool,
    /// It knows where the file ends.
    is_sized: bool,
}

impl Known {
    fn is_any(&self) -> bool {
        !(self.trees.is_empty() && self.files.is_empty())
    }
}

impl Behind {
    /// Where `len` bytes that a kernel sent belong, in a file of this size, and how many of them are passed over before that;
    /// `None` where all are. The caller holds the file's lock.
    pub(super) fn place(
        &self,
        state: &State,
        number: InodeNo,
        size: u64,
        (offset, len): (u64, u64),
        sent: Sent,
    ) -> Result<Option<(u64, usize)>> {
        if !self.is_any.load(Ordering::Acquire) {
            return Ok(Some((offset, 0)));
        }
        let mut known = self.known.lock();
        let tree = known.trees.get(&number.base()).copied();
        let file = known.files.get(&number).copied();
        if tree.is_none() && file.is_none() {
            return Ok(Some((offset, 0)));
        }
        let File { end, is_told, is_sized, .. } = file.unwrap_or_default();
        if sent.from_cache && !is_told {
            // Behind what it was then: pages come in any order, and may come again.
            let old = end.map_or(len, |end| end.saturating_sub(offset).min(len));
            if old > 0 {
                known.astray.insert(number);
                return Ok((old < len).then_some((offset + old, old as usize)));
            }
        }
        if is_sized {
            return Ok(Some((offset, 0)));
        }
        let believed = match (file.and_then(|file| file.size), tree) {
            (Some(size), _) => Some(size),
            (None, Some(Some(before))) => inode_then(state, number, before)?.map(|found| found.size),
            (None, _) => None,
        };
        known.files.entry(number).or_default().size = believed;
        if !sent.appended || believed != Some(offset) || offset == size {
            return Ok(Some((offset, 0)));
        }
        known.moved.insert(number);
        Ok(Some((size, 0)))
    }

    /// Bytes that a kernel sent were written: it believes that the file ends behind them, wherever they are.
    pub(super) fn written(&self, number: InodeNo, end: u64) {
        if self.is_any.load(Ordering::Acquire)
            && let Some(file) = self.known.lock().files.get_mut(&number)
        {
            file.size = file.size.map(|size| size.max(end));
        }
    }

    /// Whether what a kernel writes out of a file is old.
    fn passes_over(&self, number: InodeNo) -> bool {
        if !self.is_any.load(Ordering::Acquire) {
            return false;
        }
        let mut known = self.known.lock();
        let file = known.files.get(&number).copied();
        let is_told = file.is_some_and(|file| file.is_told);
        let passes_over = !is_told && (file.is_some() || known.trees.contains_key(&number.base()));
        if passes_over {
            known.astray.insert(number);
        }
        passes_over
    }

    fn change<R>(&self, change: impl FnOnce(&mut Known) -> R) -> R {
        let mut known = self.known.lock();
        let result = change(&mut known);
        self.is_any.store(known.is_any(), Ordering::Release);
        result
    }
}

fn inode_then(state: &State, number: InodeNo, before: Point) -> Result<Option<Inode>> {
    inode::find(state, number.in_base(before.base).at(Moment::At(before.epoch)))
}

impl Tree {
    /// A kernel shows this tree from now on: it has to be told of what changes behind its back.
    pub fn shown(&self) {
        self.behind.is_shown.store(true, Ordering::Release);
    }

    /// Somebody is about to change all of some bases, and will tell the kernel.
    pub fn expect_replaced(&self, bases: &[BaseId]) {
        self.behind.change(|known| known.expected.extend(bases));
    }

    /// Changes what bases show, while nobody changes the data of a file. `change` says for each, before it is committed,
    /// which snapshot is what was there before, if there is one: that is kept until the kernel was told.
    ///
    /// Refused where a kernel shows the trees and nobody has said that it will be told.
    pub fn replace(
        &self,
        bases: &[BaseId],
        change: impl FnOnce(&mut dyn FnMut(Vec<Option<Point>>)) -> Result<()>,
    ) -> Result<()> {
        let is_expected = self.behind.change(|known| bases.iter().all(|base| known.expected.contains(base)));
        if self.behind.is_shown.load(Ordering::Acquire) && !is_expected {
            return Err(Error::Store("a tree is to be replaced and nobody would tell the kernel".into()));
        }
        let _files = self.locks.lock_all();
        let mut before = Vec::new();
        let result = change(&mut |points| {
            if is_expected {
                points.iter().flatten().for_each(|point| self.device.removal().keep(*point));
            }
            before = points;
        });
        if !is_expected {
            return result;
        }
        match &result {
            Ok(()) => {
                let before = before.into_iter().chain(std::iter::repeat(None));
                self.behind.change(|known| known.trees.extend(bases.iter().copied().zip(before)));
            }
            Err(_) => before.into_iter().flatten().for_each(|point| self.device.removal().let_go(point)),
        }
        result
    }

    /// The snapshot of what was there before a base was replaced.
    pub fn before_replaced(&self, base: BaseId) -> Option<Point> {
        self.behind.change(|known| known.trees.get(&base).copied().flatten())
    }

    /// What an inode was then, by the snapshot, also if that was deleted meanwhile.
    pub fn inode_before(&self, inode: InodeNo, before: Point) -> Result<Inode> {
        inode_then(&*self.device.look()?, inode, before)?.ok_or(Error::Gone)
    }

    /// The kernel was told of a base, or nothing came of it. Files of which it shows what is not there.
    pub fn end_replaced(&self, base: BaseId) -> Vec<InodeNo> {
        self.before_replaced(base).into_iter().for_each(|before| self.device.removal().let_go(before));
        self.behind.change(|known| {
            known.expected.remove(&base);
            known.trees.remove(&base);
            known.files.retain(|inode, _| inode.base() != base);
            let (astray, rest): (BTreeSet<_>, _) =
                known.astray.union(&known.moved).copied().partition(|of| of.base() == base);
            known.astray = rest;
            known.moved.clear();
            astray.into_iter().collect()
        })
    }

    /// One file is about to be changed behind the kernel's back: what it sends of it is old until it was told.
    pub fn begin_behind(&self, number: InodeNo) -> Result<()> {
        let _file = self.locks.lock(number);
        let size = self.inode(number.live())?.size;
        self.behind.change(|known| known.files.insert(number, File { size: Some(size), ..File::default() }));
        Ok(())
    }

    /// The kernel has let go of the pages of a file: what it sends from now on is new. Whether it has to be told once
    /// more.
    pub fn told(&self, number: InodeNo) -> bool {
        self.behind.change(|known| {
            if known.trees.contains_key(&number.base()) || known.files.contains_key(&number) {
                known.files.entry(number).or_default().is_told = true;
            }
            known.astray.remove(&number)
        })
    }

    /// The kernel, which keeps sizes itself, is about to be given that of a file, and sends no page meanwhile: what it sends
    /// from behind that end is new, also when it is given a greater one later.
    pub fn end_given(&self, number: InodeNo, end: u64) {
        if !self.behind.is_any.load(Ordering::Acquire) {
            return;
        }
        self.behind.change(|known| {
            if known.trees.contains_key(&number.base()) || known.files.contains_key(&number) {
                let file = known.files.entry(number).or_default();
                file.end = Some(file.end.map_or(end, |given| given.min(end)));
            }
        });
    }

    /// The kernel was given the size of a file: what it appends from now on is meant as it is sent. False if something
    /// was moved since this was last asked: it has to be told, and given the size, once more.
    pub fn sized(&self, number: InodeNo) -> bool {
        self.behind.change(|known| {
            let was_moved = known.moved.remove(&number);
            if !was_moved && (known.trees.contains_key(&number.base()) || known.files.contains_key(&number)) {
                known.files.entry(number).or_default().is_sized = true;
            }
            !was_moved
        })
    }

    /// Whether times of a file that a kernel writes out are old. It has to be told again then.
    pub fn passes_over(&self, number: InodeNo) -> bool {
        self.behind.passes_over(number)
    }

    /// A file that was changed by itself is as the kernel knows it.
    pub fn end_behind(&self, number: InodeNo) {
        self.behind.change(|known| {
            known.files.remove(&number);
            known.astray.remove(&number);
            known.moved.remove(&number);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Caller, CreateOptions, Kind, New, root_of};
    use super::*;
    use crate::clock::Timestamp;
    use crate::device::LIVE;
    use crate::device::{Changing, SnapOptions};
    use crate::logstore::Codec;
    use crate::media::TestDir;
    use std::sync::Arc;

    const PAGE: Sent = Sent { from_cache: true, appended: false };
    const APPEND: Sent = Sent { from_cache: false, appended: true };

    fn tree_with_file() -> (Tree, InodeNo) {
        let dir = Arc::new(TestDir::new());
        let options =
            CreateOptions { track_bytes: 16384, codec: Codec::None, uid: 0, gid: 0, mode: 0o755, hash_seed: 1 };
        Tree::create(dir.clone(), &options).unwrap();
        let tree = Tree::open(dir).unwrap();
        let new = New { kind: Kind::File, permissions: 0o644, rdev: 0, target: b"" };
        let (inode, _) = tree.names().make(Caller { uid: 0, gid: 0, umask: 0 }, root_of(LIVE), b"f", new).unwrap();
        tree.files().write(inode, 0, b"0123456789", false).unwrap();
        (tree, inode)
    }

    fn content(tree: &Tree, inode: InodeNo) -> Vec<u8> {
        tree.files().read(inode.live(), 0, 100).unwrap()
    }

    #[test]
    fn old_pages_are_passed_over_until_the_kernel_was_told() {
        let (tree, inode) = tree_with_file();
        tree.begin_behind(inode).unwrap();
        tree.files().write_sent(inode, 0, b"old", false, PAGE).unwrap();
        assert_eq!(content(&tree, inode), b"0123456789");
        assert!(tree.told(inode), "the kernel shows the page");
        assert!(!tree.told(inode));
        tree.files().write_sent(inode, 0, b"new", false, PAGE).unwrap();
        assert_eq!(content(&tree, inode), b"new3456789");
        tree.end_behind(inode);
        assert!(!tree.behind.is_any.load(Ordering::Acquire));
    }

    #[test]
    fn what_comes_from_behind_the_end_that_the_kernel_was_given_is_new() {
        let (tree, inode) = tree_with_file();
        tree.begin_behind(inode).unwrap();
        tree.files().write_sent(inode, 10, b"old", false, PAGE).unwrap();
        tree.end_given(inode, 10);
        tree.files().write_sent(inode, 8, b"89", false, PAGE).unwrap();
        // A page has old bytes before the end all the same.
        tree.files().write_sent(inode, 8, b"--new", false, PAGE).unwrap();
        // They come in any order, and again, and the kernel is given the size anew.
        tree.files().write_sent(inode, 16, b"st", false, PAGE).unwrap();
        tree.end_given(inode, 18);
        tree.files().write_sent(inode, 13, b"eee", false, PAGE).unwrap();
        assert_eq!(content(&tree, inode), b"0123456789neweeest");
        assert!(tree.told(inode), "the kernel shows old bytes");
    }

    #[test]
    fn what_is_appended_at_the_old_end_goes_to_the_new_one() {
        let (tree, inode) = tree_with_file();
        tree.begin_behind(inode).unwrap();
        // Before the size changes, which is not the first thing that does.
        tree.files().write_sent(inode, 10, b"xyz", false, APPEND).unwrap();
        tree.attributes().change(inode, crate::tree::Change { size: Some(2), ..Default::default() }).unwrap();
        tree.files().write_sent(inode, 13, b"ab", false, APPEND).unwrap();
        tree.files().write_sent(inode, 15, b"cd", false, APPEND).unwrap();
        assert_eq!(content(&tree, inode), b"01abcd");
        assert!(!tree.told(inode) && !tree.sized(inode) && tree.sized(inode));
        // Told, it knows where the file ends; whoever writes elsewhere means it.
        tree.files().write_sent(inode, 8, b"e", false, APPEND).unwrap();
        assert_eq!(content(&tree, inode), b"01abcd\0\0e");
    }

    #[test]
    fn a_tree_is_not_replaced_under_a_kernel_that_nobody_tells() {
        let (tree, inode) = tree_with_file();
        tree.replace(&[LIVE], |_| Ok(())).unwrap();
        tree.files().write_sent(inode, 0, b"x", false, PAGE).unwrap();
        assert_eq!(content(&tree, inode), b"x123456789", "nothing is passed over where nobody tells");
        tree.shown();
        assert!(tree.replace(&[LIVE], |_| Ok(())).is_err());
        tree.expect_replaced(&[LIVE]);
        tree.replace(&[LIVE], |_| Ok(())).unwrap();
        tree.files().write_sent(inode, 0, b"y", false, PAGE).unwrap();
        assert_eq!(tree.end_replaced(LIVE), [inode]);
        tree.files().write_sent(inode, 1, b"z", false, PAGE).unwrap();
        assert_eq!(content(&tree, inode), b"xz23456789");
    }
    #[test]
    fn what_was_there_before_is_kept_until_the_kernel_was_told() {
        let (tree, inode) = tree_with_file();
        let mut taken = None;
        let fetched = tree.device.feed().fetch().unwrap();
        let take = |change: &mut Changing<'_>| {
            let options = SnapOptions::default();
            taken =
                Some(change.snapshot(fetched, LIVE, "s".into(), Timestamp::now(), options, &|_, _| Ok(true))?.point());
            Ok(())
        };
        tree.device.committer().unwrap().change(take).unwrap();
        let point = taken.unwrap();
        tree.expect_replaced(&[LIVE]);
        tree.replace(&[LIVE], |tell| {
            tell(vec![Some(point)]);
            Ok(())
        })
        .unwrap();
        tree.files().write(inode, 0, b"longer than it was", false).unwrap();
        tree.device.removal().hide_snapshots(&[point]).unwrap();
        assert!(!tree.device.removal().step().unwrap());
        assert_eq!(tree.inode_before(inode, point).unwrap().size, 10);
        tree.end_replaced(LIVE);
        assert!(tree.device.removal().step().unwrap());
    }
}
