//! Whether a base is what it was.

use super::diff::Comparison;
use super::diff::order;
use crate::clock::Epoch;
use crate::device::{BaseId, Increments, InodeAt, Moment, Named};
use crate::error::Result;
use crate::tree::Inode;
use std::collections::{BTreeMap, HashSet};

/// Increments read under one lock: the first thing that differs ends the search.
const STEP: usize = 64;

impl Comparison<'_> {
    /// Whether a base shows now just what it did after an epoch, which a snapshot in the store has: content, names,
    /// attributes and times. False also where increments do not tell. Takes as long as nothing is found that differs.
    pub fn is_as_after(self, base: BaseId, epoch: Epoch) -> Result<bool> {
        let then = Moment::At(epoch);
        let spans = self.spans(base, epoch, order(Moment::Live))?;
        if !spans.is_all || !self.has_increments_since(base, epoch)? {
            return Ok(false);
        }
        let mut known = HashSet::new();
        for (start, end) in spans.spans {
            let mut walk = Increments::between(base, start, end);
            while walk.cursor().is_some() {
                let named = walk.step(&*self.tree.device.look()?, STEP)?;
                for inode in named.iter().filter_map(Named::inode) {
                    if known.insert(inode) && !self.is_as_at(inode.at(then))? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    fn is_as_at(self, then: InodeAt) -> Result<bool> {
        let (old, now) = (self.inode_or_none(then)?, self.inode_or_none(then.inode.live())?);
        match (old, now) {
            (None, None) => Ok(true),
            (Some(old), Some(now)) if old.is_directory() == now.is_directory() => {
                Ok(self.tree.likeness().is_like(then.inode, then)?
                    && (!now.is_directory() || self.has_same_entries(then, &old, &now)?))
            }
            _ => Ok(false),
        }
    }

    fn has_same_entries(self, directory: InodeAt, old: &Inode, now: &Inode) -> Result<bool> {
        if old.size != now.size {
            return Ok(false);
        }
        let mut names = BTreeMap::new();
        self.tree.names().list(directory.inode.live(), 0, |entry| {
            names.insert(entry.name.clone(), entry.inode);
            Ok(true)
        })?;
        let mut is_same = true;
        self.tree.names().list(directory, 0, |entry| {
            is_same = names.get(&entry.name) == Some(&entry.inode);
            Ok(is_same)
        })?;
        Ok(is_same)
    }
}
