//! Removing inodes that have no name any more.

use super::inode::{self};
use super::{Tree, imported, xattr};
use crate::device::{InodeNo, Moment, TrackNo, Txn};
use crate::error::{Error, Result};
use crate::limits::{STEP_INODES, STEP_TRACKS, STEP_XATTRS};
use crate::meta::{Table, prefix_end};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

impl Tree {
    /// Removes an inode that has no name and is not held. A large file's tracks are left to
    /// [`Tree::reap_step`], so that nobody waits for them; and so is one that cannot be removed now, since what took its name away
    /// is done.
    pub(super) fn reap_if_orphan(&self, number: InodeNo) {
        // Most inodes that are forgotten have a name: a look is all they cost.
        let is_left = || {
            let may_go = self.device.look()?.noted_work().may_remove(number)?;
            Ok::<bool, Error>(may_go && self.reap(&[number])? == 0)
        };
        if self.held.loses_name(number) {
            return;
        }
        match is_left() {
            Ok(false) => {}
            Ok(true) => self.device.wake(),
            Err(error) => {
                log::debug!("inode {number} is removed later: {error}");
                self.device.wake();
            }
        }
    }

    /// Does a piece of the removal of inodes without a name; false when there is nothing to do.
    pub fn reap_step(&self) -> Result<bool> {
        let let_go = self.held.take_to_go(STEP_INODES);
        if !let_go.is_empty() {
            match self.reap(&let_go) {
                // What is damaged is found, and told, where they are looked for one by one.
                Err(Error::Corrupt { .. }) => {}
                done => return done.map(|_gone| true),
            }
        }
        // One that is damaged holds up no other, and is told when there is nothing else to do.
        let (mut damaged, mut damage) = (BTreeSet::new(), None);
        loop {
            let may_go = |number| !self.held.is_held(number) && !damaged.contains(&number);
            let most = if damage.is_none() { STEP_INODES } else { 1 };
            let orphans = self.device.removal().orphans(may_go, most)?;
            match self.reap(&orphans) {
                Ok(_) if orphans.is_empty() => return damage.map_or(Ok(false), Err),
                Err(error @ Error::Corrupt { .. }) => {
                    if let [one] = orphans[..] {
                        damaged.insert(one);
                    }
                    damage = damage.or(Some(error));
                }
                done => return done.map(|_gone| true),
            }
        }
    }

    /// Does something that may need room, and again when there is more: what waits to be removed goes first. The caller holds no
    /// lock.
    pub(super) fn with_room<R>(&self, mut action: impl FnMut() -> Result<R>) -> Result<R> {
        loop {
            match action() {
                // What is freed may be used when that is durable.
                Err(error) if error.is_no_space() && matches!(self.reap_what_waits(), Ok(true)) => self.commit()?,
                Err(error) if error.is_no_space() && self.shortage.make_room() => {}
                result => return result,
            }
        }
    }

    /// Removes what was let go, at once; whether there was any.
    pub fn reap_what_waits(&self) -> Result<bool> {
        let mut any = false;
        while self.held.rest().is_some() && self.reap_step()? {
            any = true;
        }
        Ok(any)
    }

    /// One transaction's worth of removing inodes; how many of them are gone now.
    fn reap(&self, numbers: &[InodeNo]) -> Result<usize> {
        if numbers.is_empty() {
            return Ok(0);
        }
        let _files = self.locks.lock_these(numbers);
        let mut txn = self.device.begin()?;
        let (mut gone, mut tracks) = (0, 0);
        for &number in numbers {
            // It may be a long time since that was so.
            if self.held.is_held(number) || !txn.noted_work().may_remove(number)? {
                continue;
            }
            if tracks == STEP_TRACKS || !remove(&mut txn, number, &mut tracks)? {
                break;
            }
            gone += 1;
        }
        txn.finish()?;
        Ok(gone)
    }
}

/// Removes an inode that has no name any more, as far as one transaction goes, which has removed so many tracks; whether it
/// is gone.
fn remove(txn: &mut Txn<'_>, number: InodeNo, tracks: &mut u64) -> Result<bool> {
    let found = match inode::find(txn, number.live())? {
        Some(found) if found.links == 0 => found,
        Some(_) | None => {
            txn.remove_orphan(number);
            return Ok(true);
        }
    };
    if found.tracks > 0 {
        let (removed, rest) = txn.remove_some_tracks(number, TrackNo::ALL, STEP_TRACKS - *tracks)?;
        // Those in memory alone cost next to nothing, and all may go at once.
        *tracks = (*tracks + removed).min(STEP_TRACKS);
        if rest.is_some() {
            *tracks = STEP_TRACKS;
            return Ok(false);
        }
    }
    if !xattr::remove_some(txn, number, STEP_XATTRS)? {
        return Ok(false);
    }
    let prefix = number.prefix();
    let mut links = Vec::new();
    txn.scan(Table::Link, &prefix, &prefix_end(&prefix), Moment::Live, |key, _| {
        links.push(key.to_vec());
        Ok(ControlFlow::Continue(()))
    })?;
    for key in links {
        txn.unset(Table::Link, &key)?;
    }
    imported::forget(txn, number)?;
    txn.unset(Table::Inode, &inode::key(number))?;
    txn.remove_orphan(number);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::{Caller, CreateOptions, Kind, New, root_of};
    use super::*;
    use crate::device::LIVE;
    use crate::limits::REST_BEFORE_REAPING;
    use crate::logstore::Codec;
    use crate::media::TestDir;
    use std::sync::Arc;

    const CALLER: Caller = Caller { uid: 0, gid: 0, umask: 0 };

    fn tree() -> Tree {
        let dir = Arc::new(TestDir::new());
        let options =
            CreateOptions { track_bytes: 16384, codec: Codec::None, uid: 0, gid: 0, mode: 0o755, hash_seed: 1 };
        Tree::create(dir.clone(), &options).unwrap();
        Tree::open(dir).unwrap()
    }

    /// A file that a kernel knows, and that was then removed.
    fn removed(tree: &Tree, name: &[u8], tracks: u64) -> InodeNo {
        let new = New { kind: Kind::File, permissions: 0o644, rdev: 0, target: b"" };
        let (inode, _) = tree.names().make(CALLER, root_of(LIVE), name, new).unwrap();
        for track in 0..tracks {
            tree.files().write(inode, track * tree.device.track_bytes(), b"some bytes", false).unwrap();
        }
        tree.commit().unwrap();
        tree.held().hold(inode);
        tree.names().unlink(root_of(LIVE), name).unwrap();
        inode
    }

    #[test]
    fn tracks_that_are_in_memory_alone_go_with_their_file_however_many() {
        let tree = tree();
        let new = New { kind: Kind::File, permissions: 0o644, rdev: 0, target: b"" };
        let inodes = [b"a", b"b", b"c"].map(|name| {
            let (inode, _) = tree.names().make(CALLER, root_of(LIVE), name, new).unwrap();
            for track in 0..STEP_TRACKS + 50 {
                tree.files().write(inode, track * tree.device.track_bytes(), b"some bytes", false).unwrap();
            }
            tree.held().hold(inode);
            tree.names().unlink(root_of(LIVE), name).unwrap();
            inode
        });
        inodes.into_iter().for_each(|inode| tree.let_go(inode, 1));
        while tree.reap_step().unwrap() {}
        assert!(!inodes.into_iter().any(|inode| is_there(&tree, inode)));
    }

    #[test]
    fn who_needs_room_has_that_of_what_waits() {
        let dir = Arc::new(TestDir::new());
        let options =
            CreateOptions { track_bytes: 16384, codec: Codec::None, uid: 0, gid: 0, mode: 0o755, hash_seed: 1 };
        Tree::create(dir.clone(), &options).unwrap();
        dir.set_capacity(Some(64 << 20));
        let tree = Tree::open(dir).unwrap();
        let new = New { kind: Kind::File, permissions: 0o644, rdev: 0, target: b"" };
        let noise: Vec<u8> = (0..1u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        // As much as there is room for.
        let mut inodes = Vec::new();
        for i in 0..200 {
            let made = tree.names().make(CALLER, root_of(LIVE), format!("f{i}").as_bytes(), new);
            let Ok((inode, _)) = made else { break };
            tree.held().hold(inode);
            inodes.push(inode);
            if tree.files().write(inode, 0, &noise, false).and_then(|()| tree.commit()).is_err() {
                break;
            }
        }
        assert!(inodes.len() > 5 && inodes.len() < 200, "{} files", inodes.len());
        for (i, inode) in inodes.iter().enumerate() {
            tree.names().unlink(root_of(LIVE), format!("f{i}").as_bytes()).unwrap();
            tree.let_go(*inode, 1);
        }
        assert!(is_there(&tree, inodes[0]) && tree.held().rest().is_some());
        let (inode, _) = tree.names().make(CALLER, root_of(LIVE), b"new", new).unwrap();
        for i in 0..4 {
            tree.files().write(inode, i << 20, &noise, false).unwrap();
        }
        tree.commit().unwrap();
        assert!(!is_there(&tree, inodes[0]), "what waited was removed for it");
    }

    fn is_there(tree: &Tree, inode: InodeNo) -> bool {
        tree.inode(inode.live()).is_ok()
    }

    #[test]
    fn what_is_let_go_is_removed_together() {
        let tree = tree();
        let inodes: Vec<InodeNo> =
            (0..STEP_INODES + 10).map(|i| removed(&tree, format!("f{i}").as_bytes(), i as u64 % 3)).collect();
        assert!(!tree.reap_step().unwrap() && tree.held().rest().is_none(), "all are held");
        tree.let_go(inodes[0], 1);
        assert!(tree.held().rest().is_some_and(|rest| rest <= REST_BEFORE_REAPING));
        assert!(inodes.iter().all(|inode| is_there(&tree, *inode)), "nothing is done at once");
        inodes[1..].iter().for_each(|inode| tree.let_go(*inode, 1));
        // A kernel that comes back with its number has it still.
        tree.held().hold(inodes[7]);
        let left = |tree: &Tree| inodes.iter().filter(|inode| is_there(tree, **inode)).count();
        assert!(tree.reap_step().unwrap());
        assert!((10..=11).contains(&left(&tree)), "{} are left after a step", left(&tree));
        assert!(tree.reap_step().unwrap() && tree.held().rest().is_none());
        assert!(!tree.reap_step().unwrap() && left(&tree) == 1 && is_there(&tree, inodes[7]));
        tree.let_go(inodes[7], 1);
        while tree.reap_step().unwrap() {}
        assert_eq!(left(&tree), 0);
    }

    #[test]
    fn a_name_or_a_hold_that_is_left_keeps_an_inode() {
        let tree = tree();
        let inode = removed(&tree, b"two", 1);
        tree.held().hold(inode);
        tree.let_go(inode, 1);
        assert!(tree.held().rest().is_none() && !tree.reap_step().unwrap() && is_there(&tree, inode));
        let new = New { kind: Kind::File, permissions: 0o644, rdev: 0, target: b"" };
        let (named, _) = tree.names().make(CALLER, root_of(LIVE), b"named", new).unwrap();
        tree.held().hold(named);
        tree.let_go(named, 1);
        assert!(tree.held().rest().is_none() && !tree.reap_step().unwrap() && is_there(&tree, named));
    }

    #[test]
    fn a_large_file_goes_in_steps_and_holds_up_no_other() {
        let tree = tree();
        let large = removed(&tree, b"large", 2 * STEP_TRACKS + 1);
        let small = removed(&tree, b"small", 1);
        [small, large].into_iter().for_each(|inode| tree.let_go(inode, 1));
        assert!(tree.reap_step().unwrap());
        assert!(is_there(&tree, large));
        let mut steps = 1;
        while tree.reap_step().unwrap() {
            steps += 1;
        }
        assert!((3..=4).contains(&steps) && !is_there(&tree, large) && !is_there(&tree, small), "{steps} steps");
    }
}
