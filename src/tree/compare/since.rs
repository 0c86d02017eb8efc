//! Which inodes changed since a snapshot, and which directories have such inodes below them.

use super::diff::Comparison;
use crate::clock::Epoch;
use crate::device::{BaseId, Increments, InodeNo, Moment, Then};
use crate::error::Result;
use crate::meta::Table;
use crate::tree::is_root;
use std::collections::{HashMap, HashSet};

/// Records read under one lock.
const STEP: usize = 1024;

/// What differs from a moment, as it is found in that moment. What was made since is not in it: the directories it was made
/// in are.
#[derive(Debug, Default)]
pub struct ChangedSince<'a> {
    inodes: HashSet<InodeNo>,
    /// Inodes that differed from the start.
    differing: Option<&'a HashSet<InodeNo>>,
    below: HashMap<InodeNo, Vec<(InodeNo, Vec<u8>)>>,
}

impl ChangedSince<'_> {
    pub fn has(&self, inode: InodeNo) -> bool {
        self.inodes.contains(&inode) || self.differing.is_some_and(|differing| differing.contains(&inode))
    }

    /// What a directory had in it that changed, or has such things below it, with the names there.
    pub fn below(&self, directory: InodeNo) -> &[(InodeNo, Vec<u8>)] {
        self.below.get(&directory).map_or(&[], Vec::as_slice)
    }
}

impl Comparison<'_> {
    /// What differs at epoch `to` from a moment that differs from the snapshot of epoch `since` in inodes, and has its names
    /// as the base had them at `then`: without such inodes, from that snapshot. `None` where increments do not tell. Calls
    /// `on_step` now and then, and ends with its error.
    pub fn differing_from<'d>(
        self,
        base: BaseId,
        then: Epoch,
        (since, differing): (Epoch, Option<&'d HashSet<InodeNo>>),
        to: Epoch,
        on_step: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Option<ChangedSince<'d>>> {
        let spans = self.spans(base, since, to)?;
        if !spans.is_all || !self.has_increments_since(base, since)? {
            return Ok(None);
        }
        let mut changed = ChangedSince { differing, ..ChangedSince::default() };
        for (start, end) in spans.spans {
            self.add_inodes(base, start, end, &mut changed.inodes, on_step)?;
        }
        let mut known = HashSet::new();
        // In the same order each time: who tries something first wants to know what is done then.
        let mut inodes: Vec<InodeNo> = changed.inodes.iter().chain(differing.into_iter().flatten()).copied().collect();
        inodes.sort_unstable();
        for (i, inode) in inodes.into_iter().enumerate() {
            let mut at = vec![inode];
            while let Some(inode) = at.pop() {
                if is_root(inode) || !known.insert(inode) {
                    continue;
                }
                for (parent, name) in self.tree.names().of(inode.at(Moment::At(then)))? {
                    changed.below.entry(parent).or_default().push((inode, name));
                    at.push(parent);
                }
            }
            if i % STEP == 0 {
                on_step()?;
            }
        }
        Ok(Some(changed))
    }

    /// Whether all increments since a snapshot are there. Those after one that is not in the store may have gone with
    /// it.
    pub(in crate::tree) fn has_increments_since(self, base: BaseId, since: Epoch) -> Result<bool> {
        let after = self.tree.device.look()?.moments().snapshots_after(base, since.before(), 1)?;
        Ok(after.iter().any(|found| found.epoch == since))
    }

    /// Every change of an inode changes its record. In each increment these come first: the others are passed over.
    fn add_inodes(
        self,
        base: BaseId,
        start: Epoch,
        end: Epoch,
        inodes: &mut HashSet<InodeNo>,
        on_step: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut walk = Increments::between(base, start, end);
        while walk.cursor().is_some() {
            on_step()?;
            walk.visit(&*self.tree.device.look()?, STEP, &mut |named| {
                if named.table > Table::Inode {
                    return Ok(Then::NextEpoch);
                }
                inodes.extend(named.inode());
                Ok(Then::GoOn)
            })?;
        }
        Ok(())
    }
}
