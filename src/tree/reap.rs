//! Removing inodes that have no name any more.

use super::inode::{self};
use super::{Tree, imported, xattr};
use crate::device::{InodeNo, Moment, TrackNo};
use crate::error::{Error, Result};
use crate::limits::{STEP_TRACKS, STEP_XATTRS};
use crate::meta::{Table, prefix_end};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

impl Tree {
    /// Removes an inode that has no name and is not held. A large file's tracks are left to
    /// [`Tree::reap_step`], so that nobody waits for them.
    pub(super) fn reap_if_orphan(&self, number: InodeNo) -> Result<()> {
        // Most inodes that are forgotten have a name: a look is all they cost.
        if self.held.is_held(number) || !self.device.removal().is_orphan(number)? {
            return Ok(());
        }
        let is_done = self.reap(number)?;
        if !is_done {
            self.device.wake();
        }
        Ok(())
    }

    /// Does a piece of the removal of inodes without a name; false when there is nothing to do.
    pub fn reap_step(&self) -> Result<bool> {
        // One that is damaged holds up no other, and is told when there is nothing else to do.
        let (mut damaged, mut damage) = (BTreeSet::new(), None);
        let may_go = |damaged: &BTreeSet<InodeNo>, number| !self.held.is_held(number) && !damaged.contains(&number);
        while let Some(number) = self.device.removal().first_orphan(|number| may_go(&damaged, number))? {
            match self.reap(number) {
                Err(error @ Error::Corrupt { .. }) => {
                    damaged.insert(number);
                    damage = damage.or(Some(error));
                }
                done => return done.map(|_is_done| true),
            }
        }
        damage.map_or(Ok(false), Err)
    }

    /// One transaction's worth of removing an inode; whether it is gone.
    fn reap(&self, number: InodeNo) -> Result<bool> {
        let _file = self.locks.lock(number);
        let mut txn = self.device.begin()?;
        let found = match inode::find(&txn, number.live())? {
            Some(found) if found.links == 0 => found,
            Some(_) | None => {
                txn.remove_orphan(number);
                txn.finish()?;
                return Ok(true);
            }
        };
        let has_tracks = found.tracks > 0
            && matches!(txn.remove_some_tracks(number, TrackNo::ALL, STEP_TRACKS)?, (_removed, Some(_rest)));
        if has_tracks || !xattr::remove_some(&mut txn, number, STEP_XATTRS)? {
            txn.finish()?;
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
        imported::forget(&mut txn, number)?;
        txn.unset(Table::Inode, &inode::key(number))?;
        txn.remove_orphan(number);
        txn.finish()?;
        Ok(true)
    }
}
