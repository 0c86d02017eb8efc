//! Whole trees: making one, and what is done to all of one in the background.

use super::inode::{self, Inode, Kind, ROOT, root_of};
use super::{Tree, names};
use crate::clock::Timestamp;
use crate::device::{BaseId, BaseRecord, InodeNo, Separated, State, Txn, settle_step};
use crate::error::Result;
use crate::limits::SETTLE_AT_ONCE;
use crate::meta::Table;
use std::collections::BTreeSet;
use std::time::Instant;

impl Tree {
    /// Makes a base with an empty root, if `check` lets it be, in one step with what else is `noted` of it.
    pub fn create_base(
        &self,
        record: BaseRecord,
        uid: u32,
        gid: u32,
        mode: u32,
        check: impl FnOnce(&State) -> Result<()>,
        noted: impl FnOnce(&mut Txn<'_>, BaseId),
    ) -> Result<BaseId> {
        let mut txn = self.device.begin_growing()?;
        check(&txn)?;
        let base = txn.add_base(record)?;
        let mut root = Inode::new(Kind::Directory, mode, uid, gid, Timestamp::now());
        root.parent = root_of(base);
        txn.set(Table::Inode, &inode::key(root_of(base)), &Inode { parent: ROOT, ..root })?;
        noted(&mut txn, base);
        txn.finish()?;
        Ok(base)
    }

    /// Does a piece of settling; false when there is nothing to do.
    pub fn settle_step(&self) -> Result<bool> {
        settle_step(&self.device, names::leads_to, |txn, inodes| {
            for inode in inodes {
                // In a snapshot there can be inodes that were in use without a name: nobody uses them here.
                match inode::find(txn, inode.live())? {
                    Some(found) if found.links == 0 => txn.add_orphan(*inode),
                    // It had none in what the base was before.
                    _ if txn.noted_work().has_orphan(*inode)? => txn.remove_orphan(*inode),
                    _ => {}
                }
            }
            Ok(())
        })
    }

    /// Settles a base that was just restored, if that can be done soon. The inodes in which it can differ from what
    /// it was before; `None` if they are many, or not known yet.
    pub fn settle_at_once(&self, base: BaseId) -> Result<Option<BTreeSet<InodeNo>>> {
        let start = Instant::now();
        loop {
            let look = self.device.look()?;
            if !look.noted_work().is_settling(base)? {
                return Ok(look.changed_inodes(base).cloned());
            }
            if look.changed_inodes(base).is_none() || start.elapsed() > SETTLE_AT_ONCE {
                return Ok(None);
            }
            drop(look);
            self.settle_step()?;
        }
    }

    /// Does a piece of giving shared tracks places of their own.
    pub fn separate_step(&self) -> Result<Separated> {
        self.device.separation().step(|inode| self.locks.lock(inode))
    }
}
