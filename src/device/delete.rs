//! Work that outlives the operation that caused it: snapshots being deleted and inodes being removed.
//!
//! Each piece of work is a record in the `orphan` table, written in the same transaction that caused it,
//! so that a crash at any point loses none of it. It is done in steps that each take the lock briefly.
//!
//! A step of a snapshot's deletion walks the increments between it and the next snapshot and drops each
//! pre-image born after the snapshot before: those hold this snapshot and no other. A snapshot whose own
//! deletion is still to come counts as existing here; its own steps drop what is left. The newest is
//! deleted first: what it shares with the one before lies ahead of that one's cursor, never behind it.

use super::history::{increment_key, preimage_key, split_increment, split_record};
use super::{Device, Epoch, InodeNo, LIVE, Pointer, Txn};
use crate::error::Result;
use crate::logstore::Holder;
use crate::meta::{Table, decode};

/// Increments that one step looks at.
const STEP: usize = 512;

const SNAPSHOT: u8 = 1;
const INODE: u8 = 0;

fn work_key(kind: u8, number: u64) -> [u8; 13] {
    let mut key = [0; 13];
    key[..4].copy_from_slice(&LIVE.to_be_bytes());
    key[4] = kind;
    key[5..].copy_from_slice(&number.to_be_bytes());
    key
}

impl Device {
    /// Makes a snapshot invisible at once; [`Device::delete_step`] gives its room back.
    pub fn hide_snapshot(&self, epoch: Epoch) -> Result<()> {
        let mut txn = self.begin_unthrottled()?;
        txn.hide_snapshot(epoch)?;
        txn.state.meta.put(Table::Orphan, &work_key(SNAPSHOT, epoch.into()), &serde_bytes::ByteBuf::new());
        let newest = txn.newest_snapshot()?;
        txn.state.newest = newest;
        txn.finish()
    }

    /// Does a piece of the deletion that is to be done first; false when there is none.
    pub fn delete_step(&self) -> Result<bool> {
        let mut txn = self.begin()?;
        let work = txn.meta().last(Table::Orphan, &work_key(SNAPSHOT, 0), &work_key(SNAPSHOT, u64::MAX))?;
        let Some((key, value)) = work else { return Ok(false) };
        let cursor: serde_bytes::ByteBuf = decode(Table::Orphan, &key, &value)?;
        let epoch = u64::from_be_bytes(key[5..].try_into().unwrap_or_default()) as Epoch;
        match txn.drop_preimages(epoch, &cursor)? {
            Some(cursor) => txn.state.meta.put(Table::Orphan, &key, &serde_bytes::ByteBuf::from(cursor)),
            None => {
                txn.forget_snapshot(epoch);
                txn.state.meta.remove(Table::Orphan, &key);
            }
        }
        txn.finish()?;
        Ok(true)
    }

    /// Bytes of file data that deleting this snapshot, alone, would free.
    pub fn unique_bytes(&self, epoch: Epoch) -> Result<u64> {
        let look = self.look()?;
        let before = look.snapshot_before(epoch)?.map_or(0, |snapshot| snapshot.epoch);
        let after = look.snapshot_after(epoch)?.map_or(Epoch::MAX - 1, |snapshot| snapshot.epoch);
        let mut bytes = 0;
        let range = look.meta().range(
            Table::Increment,
            &increment_key(Table::State, &LIVE.to_be_bytes(), epoch + 1),
            &increment_key(Table::State, &LIVE.to_be_bytes(), after + 1),
        )?;
        for pair in range {
            let (table, key, end) = split_increment(&pair?.0)?;
            if table != Table::Track {
                continue;
            }
            if let Some(value) = look.meta().get_raw(Table::Preimage, &preimage_key(table, &key, end))? {
                let (birth, value) = split_record(table, &key, &value)?;
                let pointer: Pointer = decode(table, &key, value)?;
                for location in pointer.locations().filter(|_| birth > before) {
                    if !look.meta().contains(Table::Shared, &location.key())? {
                        bytes += (location.blocks() * crate::limits::BLOCK_BYTES) as u64;
                    }
                }
            }
        }
        Ok(bytes)
    }

    /// The first inode without a name whose records are still there and that `may_go`.
    pub fn first_orphan(&self, may_go: impl Fn(InodeNo) -> bool) -> Result<Option<InodeNo>> {
        let look = self.look()?;
        for pair in look.meta().range(Table::Orphan, &work_key(INODE, 0), &work_key(INODE, u64::MAX))? {
            let number = u64::from_be_bytes(pair?.0[5..].try_into().unwrap_or_default());
            if may_go(number) {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Whether an inode has lost its last name and is to be removed.
    pub fn is_orphan(&self, inode: InodeNo) -> Result<bool> {
        self.look()?.meta().contains(Table::Orphan, &work_key(INODE, inode))
    }
}

impl Txn<'_> {
    /// Drops up to [`STEP`] pre-images; where to go on, or `None` when there are no more.
    fn drop_preimages(&mut self, epoch: Epoch, cursor: &[u8]) -> Result<Option<Vec<u8>>> {
        let before = self.snapshot_before(epoch)?.map_or(0, |snapshot| snapshot.epoch);
        let after = self.snapshot_after(epoch)?.map_or(Epoch::MAX - 1, |snapshot| snapshot.epoch);
        let start = increment_key(Table::State, &LIVE.to_be_bytes(), epoch + 1);
        let from = start.as_slice().max(cursor);
        let to = increment_key(Table::State, &LIVE.to_be_bytes(), after + 1);
        let mut keys = Vec::new();
        for pair in self.meta().range(Table::Increment, from, &to)? {
            keys.push(pair?.0);
            if keys.len() > STEP {
                break;
            }
        }
        let next = if keys.len() > STEP { keys.pop() } else { None };
        for full in keys {
            let (table, key, end) = split_increment(&full)?;
            let preimage = preimage_key(table, &key, end);
            let Some(value) = self.meta().get_raw(Table::Preimage, &preimage)? else { continue };
            let (birth, value) = split_record(table, &key, &value)?;
            if birth <= before {
                continue;
            }
            if table == Table::Track {
                let pointer: Pointer = decode(table, &key, value)?;
                self.releases.extend(pointer.locations().map(|location| (*location, Holder::Log)));
            }
            self.state.meta.remove(Table::Preimage, &preimage);
            self.state.meta.remove(Table::Increment, &full);
        }
        Ok(next)
    }

    /// Writes down that an inode has no name any more and is to be removed.
    pub fn add_orphan(&mut self, inode: InodeNo) {
        self.state.meta.put(Table::Orphan, &work_key(INODE, inode), &());
    }

    pub fn remove_orphan(&mut self, inode: InodeNo) {
        self.state.meta.remove(Table::Orphan, &work_key(INODE, inode));
    }
}
