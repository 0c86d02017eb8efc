//! Work that outlives the operation that caused it: snapshots being deleted and inodes being removed.
//!
//! Each piece of work is a record in the `orphan` table, written in the same transaction that caused it,
//! so that a crash at any point loses none of it. It is done in steps that each take the lock briefly.
//!
//! A step of a snapshot's deletion walks the increments between it and the next snapshot and drops each
//! pre-image born after the snapshot before: those hold this snapshot and no other. A snapshot whose own
//! deletion is still to come counts as existing here; its own steps drop what is left. The newest is
//! deleted first: what it shares with the one before lies ahead of that one's cursor, never behind it.

use super::base::{Point, base_of, in_base, number_of};
use super::history::{increment_key, preimage_key, split_increment, split_record};
use super::{BaseId, Device, Epoch, InodeNo, Pointer, Purpose, State, Txn};
use crate::error::{Errno, Error, Result};
use crate::limits::BLOCK_BYTES;
use crate::logstore::Holder;
use crate::meta::{Table, decode, prefix_end};

/// Increments that one step looks at.
const STEP: usize = 512;

pub(super) const INODE: u8 = 0;
const SNAPSHOT: u8 = 1;
pub(super) const SETTLE: u8 = 2;
pub(super) const INODE_WALK: u8 = 3;
pub(super) const SWEEP: u8 = 4;
pub(super) const SEPARATE: u8 = 5;
const BASE: u8 = 6;

pub(super) fn work_key(base: BaseId, kind: u8, number: u64) -> [u8; 13] {
    let mut key = [0; 13];
    key[..4].copy_from_slice(&base.to_be_bytes());
    key[4] = kind;
    key[5..].copy_from_slice(&number.to_be_bytes());
    key
}

/// All work of a kind in a base.
pub(super) fn work_range(base: BaseId, kind: u8) -> ([u8; 13], [u8; 13]) {
    (work_key(base, kind, 0), work_key(base, kind + 1, 0))
}

impl State {
    pub(super) fn has_work(&self, base: BaseId, kind: u8) -> Result<bool> {
        let (from, to) = work_range(base, kind);
        Ok(self.meta.last(Table::Orphan, &from, &to)?.is_some())
    }
}

impl Device {
    /// Makes snapshots invisible at once, those that are there; [`Device::delete_step`] gives their room back. EBUSY if
    /// something depends on one of them, and then all stay.
    pub fn hide_snapshots(&self, points: &[Point]) -> Result<()> {
        let mut txn = self.begin_unthrottled()?;
        for point in points {
            // The mark of a mirror goes with what needed it.
            if txn.stored_snapshot(point.base, point.epoch)?.is_none() {
                continue;
            }
            if !txn.dependants(*point)?.is_empty() {
                return Err(Error::Posix(Errno::BUSY));
            }
            if txn.is_archiving(*point) {
                let text = "the archive needs this snapshot now; delete it when `pitfs roll` is over";
                return Err(Error::Refused(Errno::BUSY, text.into()));
            }
            txn.hide_snapshot(*point)?;
        }
        txn.finish()
    }

    /// Deletes a snapshot that was taken for a mirror, unless something still needs it.
    pub fn drop_mark(&self, point: Point) -> Result<()> {
        let mut txn = self.begin_unthrottled()?;
        txn.drop_mark(point)?;
        txn.finish()
    }

    /// Makes a base invisible at once; [`Device::delete_step`] gives its room back.
    pub fn hide_base(&self, base: BaseId) -> Result<()> {
        let mut txn = self.begin_unthrottled()?;
        let mut record = txn.base_record(base)?.clone();
        record.deleting = true;
        // It needs nothing any more.
        record.mirror = None;
        let eras = std::mem::take(&mut record.eras);
        txn.state.put_base(base, record);
        for source in eras.iter().map(|era| era.source.base).filter(|source| *source != base) {
            txn.state.protection_changed(source)?;
        }
        txn.state.meta.put(Table::Orphan, &work_key(base, BASE, 0), &());
        // What is in memory of it must not come to be flushed.
        let all = (in_base(base, 0), 0)..(in_base(base + 1, 0), 0);
        let tracks = [&txn.state.dirty, &txn.state.flushing].into_iter().flat_map(|tracks| tracks.range(all.clone()));
        let tracks: Vec<_> = tracks.map(|(key, _)| *key).collect();
        txn.forget.extend(tracks);
        txn.finish()
    }

    /// Does a piece of the deletions that are to be done; false when there are none.
    pub fn delete_step(&self) -> Result<bool> {
        let bases: Vec<BaseId> = self.look()?.bases.keys().copied().collect();
        for base in bases {
            if self.look()?.has_work(base, BASE)? {
                return self.delete_base_step(base).map(|()| true);
            }
            if self.look()?.has_work(base, SNAPSHOT)? && self.delete_snapshot_step(base)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn delete_snapshot_step(&self, base: BaseId) -> Result<bool> {
        let mut txn = self.begin()?;
        let (from, to) = work_range(base, SNAPSHOT);
        let Some((key, value)) = txn.meta().last(Table::Orphan, &from, &to)? else { return Ok(false) };
        let cursor: serde_bytes::ByteBuf = decode(Table::Orphan, &key, &value)?;
        let epoch = u64::from_be_bytes(key[5..].try_into().unwrap_or_default()) as Epoch;
        match txn.drop_preimages(Point { base, epoch }, &cursor)? {
            Some(cursor) => txn.state.meta.put(Table::Orphan, &key, &serde_bytes::ByteBuf::from(cursor)),
            None => {
                txn.state.forget_snapshot(Point { base, epoch })?;
                txn.state.meta.remove(Table::Orphan, &key);
            }
        }
        txn.finish()?;
        Ok(true)
    }

    /// Removes some records of a base that is being deleted, and at last the base.
    fn delete_base_step(&self, base: BaseId) -> Result<()> {
        const TABLES: [Table; 12] = [
            Table::Track,
            Table::Preimage,
            Table::Increment,
            Table::Inode,
            Table::Dirent,
            Table::Xattr,
            Table::Link,
            Table::Snapshot,
            Table::Name,
            Table::Origin,
            Table::Tombstone,
            Table::Orphan,
        ];
        let mut txn = self.begin()?;
        let prefix = base.to_be_bytes();
        let mut budget = STEP;
        for table in TABLES {
            let mut pairs = Vec::new();
            for pair in txn.meta().range(table, &prefix, &prefix_end(&prefix))?.take(budget) {
                pairs.push(pair?);
            }
            budget -= pairs.len();
            for (key, value) in pairs {
                let (holder, own) = match table {
                    Table::Track => (Holder::Live, Some(value.as_slice())),
                    Table::Preimage if key.get(4) == Some(&(Table::Track as u8)) => {
                        (Holder::Log, Some(value.as_slice()))
                    }
                    _ => (Holder::Live, None),
                };
                if let Some(own) = own {
                    let value = split_record(table, &key, own)?.1;
                    if !value.is_empty() {
                        let pointer: Pointer = decode(table, &key, value)?;
                        txn.state.releases.extend(pointer.locations().map(|location| (*location, holder, None)));
                    }
                }
                // The work itself goes last.
                if table != Table::Orphan || key[4] != BASE {
                    txn.state.meta.remove(table, &key);
                }
            }
        }
        if budget > 1 {
            txn.state.meta.remove(Table::Orphan, &work_key(base, BASE, 0));
            txn.state.forget_base(base);
        }
        txn.finish()
    }

    /// Bytes of file data that deleting these snapshots of a base, together, would free, by inode.
    pub fn freed_by(&self, base: BaseId, epochs: &[Epoch]) -> Result<std::collections::BTreeMap<InodeNo, u64>> {
        self.look()?.freed_by(base, epochs)
    }

    /// Bytes of file data that deleting this snapshot, alone, would free. Counted while the store works, and
    /// anew after a neighbour was deleted. What files share is counted where it was shared last.
    pub fn unique_bytes(&self, point: Point) -> Result<u64> {
        let counted = self.look()?.counted_alone(point)?;
        if let Some(blocks) = counted {
            return Ok(blocks * BLOCK_BYTES as u64);
        }
        if self.check_running().is_err() {
            return Ok(self.look()?.freed_by(point.base, &[point.epoch])?.values().sum());
        }
        let mut txn = self.begin_unthrottled()?;
        let bytes: u64 = txn.freed_by(point.base, &[point.epoch])?.values().sum();
        let blocks = Some(bytes / BLOCK_BYTES as u64);
        if txn.base(point.base)?.newest != point.epoch {
            if let Some(mut snapshot) = txn.stored_snapshot(point.base, point.epoch)? {
                snapshot.record.alone = blocks;
                txn.state.put_snapshot(&snapshot);
            }
        } else if txn.kept_after(point.base, point.epoch)?.is_none() {
            txn.state.count(point.base, |counts| counts.newest_alone = blocks);
        }
        txn.finish()?;
        Ok(bytes)
    }

    /// The first inode without a name whose records are still there and that `may_go`.
    pub fn first_orphan(&self, may_go: impl Fn(InodeNo) -> bool) -> Result<Option<InodeNo>> {
        let look = self.look()?;
        for (base, _) in look.bases() {
            // Until that is settled, what has no name may be of a state that was restored away.
            if look.is_settling(base)? {
                continue;
            }
            let (from, to) = work_range(base, INODE);
            for pair in look.meta().range(Table::Orphan, &from, &to)? {
                let number = u64::from_be_bytes(pair?.0[5..].try_into().unwrap_or_default());
                let inode = in_base(base, number);
                if may_go(inode) {
                    return Ok(Some(inode));
                }
            }
        }
        Ok(None)
    }

    /// Whether an inode has lost its last name and is to be removed.
    pub fn is_orphan(&self, inode: InodeNo) -> Result<bool> {
        let look = self.look()?;
        let key = work_key(base_of(inode), INODE, number_of(inode));
        Ok(look.meta().contains(Table::Orphan, &key)? && !look.is_settling(base_of(inode))?)
    }
}

impl Txn<'_> {
    fn hide_snapshot(&mut self, point: Point) -> Result<()> {
        let snapshot = self.stored_snapshot(point.base, point.epoch)?.ok_or(Error::Posix(Errno::STALE))?;
        self.state.hide(&snapshot)?;
        let key = work_key(point.base, SNAPSHOT, point.epoch.into());
        self.state.meta.put(Table::Orphan, &key, &serde_bytes::ByteBuf::new());
        Ok(())
    }

    pub(super) fn drop_mark(&mut self, point: Point) -> Result<()> {
        let mark = self.stored_snapshot(point.base, point.epoch)?;
        let is_mark = mark.is_some_and(|mark| mark.record.purpose == Purpose::Mirror);
        let is_free = self.dependants(point)?.is_empty() && !self.is_archiving(point);
        if is_mark && is_free { self.hide_snapshot(point) } else { Ok(()) }
    }
}

impl State {
    /// Blocks that only this snapshot holds, if that is known.
    fn counted_alone(&self, point: Point) -> Result<Option<u64>> {
        let base = self.base(point.base)?;
        let Some(snapshot) = self.stored_snapshot(point.base, point.epoch)? else { return Ok(Some(0)) };
        Ok(if base.newest == point.epoch { base.counts.newest_alone } else { snapshot.record.alone })
    }

    fn freed_by(&self, base: BaseId, epochs: &[Epoch]) -> Result<std::collections::BTreeMap<InodeNo, u64>> {
        let mut freed = std::collections::BTreeMap::new();
        let mut epochs = epochs.to_vec();
        epochs.sort_unstable();
        let all: Vec<Epoch> = self.snapshots(base)?.iter().map(|snapshot| snapshot.epoch).collect();
        let goes = |epoch: &Epoch| epochs.binary_search(epoch).is_ok();
        for &epoch in &epochs {
            let after = all.iter().copied().find(|other| *other > epoch).unwrap_or(Epoch::MAX - 1);
            let prefix = base.to_be_bytes();
            let from = increment_key(Table::State, &prefix, epoch + 1);
            let to = increment_key(Table::State, &prefix, after + 1);
            for pair in self.meta().range(Table::Increment, &from, &to)? {
                let (table, key, end) = split_increment(&pair?.0)?;
                if table != Table::Track {
                    continue;
                }
                let Some(value) = self.meta().get_raw(Table::Preimage, &preimage_key(table, &key, end))? else {
                    continue;
                };
                let (birth, value) = split_record(table, &key, &value)?;
                let holds = all.partition_point(|other| *other < birth)..all.partition_point(|other| *other < end);
                if value.is_empty() || holds.is_empty() || !all[holds].iter().all(goes) {
                    continue;
                }
                let pointer: Pointer = decode(table, &key, value)?;
                for location in pointer.locations() {
                    if !self.meta().contains(Table::Shared, &location.key())? {
                        let bytes = (location.blocks() * BLOCK_BYTES) as u64;
                        *freed.entry(super::base::inode_of_key(&key).unwrap_or_default()).or_default() += bytes;
                    }
                }
            }
        }
        Ok(freed)
    }
}

impl Txn<'_> {
    /// Drops up to [`STEP`] pre-images; where to go on, or `None` when there are no more.
    fn drop_preimages(&mut self, point: Point, cursor: &[u8]) -> Result<Option<Vec<u8>>> {
        let Point { base, epoch } = point;
        let before = self.snapshot_before(base, epoch)?.map_or(0, |snapshot| snapshot.epoch);
        let after = self.snapshot_after(base, epoch)?.map_or(Epoch::MAX - 1, |snapshot| snapshot.epoch);
        let prefix = base.to_be_bytes();
        let start = increment_key(Table::State, &prefix, epoch + 1);
        let from = start.as_slice().max(cursor);
        let to = increment_key(Table::State, &prefix, after + 1);
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
            if table == Table::Track && !value.is_empty() {
                let pointer: Pointer = decode(table, &key, value)?;
                self.state.releases.extend(pointer.locations().map(|location| (*location, Holder::Log, None)));
            }
            self.state.meta.remove(Table::Preimage, &preimage);
            self.state.meta.remove(Table::Increment, &full);
        }
        Ok(next)
    }

    /// Writes down that an inode has no name any more and is to be removed.
    pub fn add_orphan(&mut self, inode: InodeNo) {
        self.state.meta.put(Table::Orphan, &work_key(base_of(inode), INODE, number_of(inode)), &());
    }

    pub fn remove_orphan(&mut self, inode: InodeNo) {
        self.state.meta.remove(Table::Orphan, &work_key(base_of(inode), INODE, number_of(inode)));
    }
}
