//! Deleting snapshots and bases: they are gone at once, and their room comes back in steps that each take the lock briefly.
//!
//! Snapshots side by side are deleted as one, as far as a step goes, the newest first: it walks the increments from the oldest
//! of them to the snapshot that stays behind them and drops each pre-image born after the one before: those hold these
//! snapshots and no other. How far it has come is noted with the oldest. One before it that comes to go as well is the
//! oldest then, and the walk begins anew; what one behind them adds lies ahead.

use super::past::{
    BASE, BaseId, INODE, Increments, InodeNo, Named, Point, SNAPSHOT, Snapshot, SnapshotState, increment_key,
    preimage_key, split_preimage, split_record, work_epoch, work_key, work_number, work_range,
};
use super::pointer::Pointer;
use super::work::first_that_works;
use super::{Device, State, Txn};
use crate::clock::Epoch;
use crate::error::{Errno, Error, Result};
use crate::limits::BLOCK_BYTES;
use crate::logstore::{Holder, Location};
use crate::meta::{Table, decode, prefix_end};
use crate::purpose::Purpose;
use std::collections::{BTreeMap, HashMap};

/// Increments that one step looks at.
const STEP: usize = 512;

/// Snapshots, bases and inodes that go.
#[derive(Clone, Copy)]
pub struct Removal<'a> {
    pub(super) device: &'a Device,
}

impl Removal<'_> {
    /// Makes snapshots invisible at once, those that are there; [`Removal::step`] gives their room back. EBUSY if
    /// something depends on one of them, and then all stay.
    pub fn hide_snapshots(self, points: &[Point]) -> Result<()> {
        let mut txn = self.device.begin_unthrottled()?;
        let needed = txn.all_dependants()?;
        let mut going: BTreeMap<Point, Snapshot> = BTreeMap::new();
        for point in points {
            // The mark of a mirror goes with what needed it.
            let Some(snapshot) = txn.moments().stored_snapshot(point.base, point.epoch)? else { continue };
            if needed.contains_key(point) {
                return Err(Error::Posix(Errno::BUSY));
            }
            if txn.is_archiving(*point) {
                let text = "the archive needs this snapshot now; delete it when `pitfs roll` is over";
                return Err(Error::Refused(Errno::BUSY, text.into()));
            }
            going.insert(*point, snapshot);
        }
        hide_all(&mut txn, going.into_values().collect())?;
        txn.finish()
    }

    /// Deletes a snapshot that was taken for a mirror, unless something still needs it.
    pub fn drop_mark(self, point: Point) -> Result<()> {
        let mut txn = self.device.begin_unthrottled()?;
        drop_mark(&mut txn, point)?;
        txn.finish()
    }

    /// Makes a base invisible at once, with what else is noted of that; [`Removal::step`] gives its room back.
    pub fn hide_base(self, base: BaseId, noted: impl FnOnce(&mut Txn<'_>)) -> Result<()> {
        let mut txn = self.device.begin_unthrottled()?;
        let mut record = txn.base_record(base)?.clone();
        record.deleting = true;
        // It needs nothing any more.
        record.mirror = None;
        let eras = std::mem::take(&mut record.eras);
        txn.state.past.put_base(base, record);

        for source in eras.iter().map(|era| era.source.base).filter(|source| *source != base) {
            txn.state.protection_changed(source)?;
        }
        txn.state.past.meta.put(Table::Orphan, &work_key(base, BASE, 0), &());
        // Nor is anything written in it any more.
        let own = txn.state.reserve_of(base).map_or(0, |own| own.bytes);
        let set_aside = txn
            .state
            .moments()
            .snapshots(base)?
            .iter()
            .map(|snapshot| snapshot.record.reserve)
            .fold(0, u64::saturating_add);
        txn.state.past.put_reserve(base, None);
        txn.state.accounts.reserved = txn.state.accounts.reserved.saturating_sub(set_aside.saturating_add(own));
        // What is in memory of it must not come to be flushed.
        let tracks = txn.tracks().tracks_in_memory(base);
        txn.forget.extend(tracks);
        noted(&mut txn);
        txn.finish()
    }

    /// Does a piece of the deletions that are to be done; false when there are none.
    pub fn step(self) -> Result<bool> {
        let bases: Vec<BaseId> = self.device.look()?.bases.keys().copied().collect();
        first_that_works(bases, |base| {
            if self.device.look()?.noted_work().has(base, BASE)? {
                return self.delete_base_step(base).map(|()| true);
            }
            Ok(self.device.look()?.noted_work().has(base, SNAPSHOT)? && self.delete_snapshot_step(base)?)
        })
    }

    /// A snapshot can be looked into, also if it is deleted meanwhile, until [`Removal::let_go`].
    pub fn keep(self, point: Point) {
        self.device.kept.lock().insert(point);
    }

    pub fn let_go(self, point: Point) {
        self.device.kept.lock().remove(&point);
        self.device.wake();
    }

    /// Whether no room comes back from snapshots of a base now.
    pub fn is_kept(self, base: BaseId) -> bool {
        self.device.kept.lock().iter().any(|kept| kept.base == base)
    }

    /// Whether a deletion waits for somebody who looks into a snapshot.
    pub fn is_held_up(self) -> Result<bool> {
        let look = self.device.look()?;
        for base in look.bases.keys().filter(|base| self.is_kept(**base)) {
            if look.noted_work().has(*base, SNAPSHOT)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn delete_snapshot_step(self, base: BaseId) -> Result<bool> {
        let mut txn = self.device.begin()?;
        // What one snapshot shows, those after it hold as well.
        if self.is_kept(base) {
            return Ok(false);
        }
        let (from, to) = work_range(base, SNAPSHOT);
        let Some((key, _)) = txn.meta().last(Table::Orphan, &from, &to)? else { return Ok(false) };
        let newest = work_epoch(&key)?;
        let going = going_from(&txn, base, newest)?;
        let key = work_key(base, SNAPSHOT, going.oldest().number().into());
        let cursor: serde_bytes::ByteBuf = txn.meta().get(Table::Orphan, &key)?.unwrap_or_default();
        let next = match drop_preimages(&mut txn, &going, &cursor)? {
            Some(cursor) => Some(cursor),
            None if drop_passed(&mut txn, &going)? => {
                Some(increment_key(Table::State, &base.prefix(), going.after().next()))
            }
            None => {
                forget_going(&mut txn, &going)?;
                None
            }
        };
        if let Some(cursor) = next {
            txn.state.past.meta.put(Table::Orphan, &key, &serde_bytes::ByteBuf::from(cursor));
        }
        txn.finish()?;
        Ok(true)
    }

    /// Removes some records of a base that is being deleted, and at last the base.
    fn delete_base_step(self, base: BaseId) -> Result<()> {
        const TABLES: [Table; 14] = [
            Table::Track,
            Table::Preimage,
            Table::Increment,
            Table::Passed,
            Table::Inode,
            Table::Dirent,
            Table::Xattr,
            Table::Link,
            Table::Snapshot,
            Table::Name,
            Table::Origin,
            Table::Tombstone,
            Table::Archived,
            Table::Orphan,
        ];
        let mut txn = self.device.begin()?;
        let prefix = base.prefix();
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
                        txn.state
                            .accounts
                            .releases
                            .extend(pointer.locations().map(|location| (*location, holder, None)));
                    }
                }
                // The work itself goes last.
                if table != Table::Orphan || key.get(4) != Some(&BASE) {
                    txn.state.past.meta.remove(table, &key);
                }
            }
        }
        if budget > 1 {
            txn.state.past.meta.remove(Table::Orphan, &work_key(base, BASE, 0));
            txn.state.past.forget_base(base);
        }
        txn.finish()
    }

    /// Bytes of file data that deleting this snapshot, alone, would free. Counted while the store works, and
    /// anew after a neighbour was deleted. What files share is counted where it was shared last.
    pub fn unique_bytes(self, point: Point) -> Result<u64> {
        let counted = self.device.look()?.freed_room().counted_alone(point)?;
        if let Some(blocks) = counted {
            return Ok(blocks * BLOCK_BYTES as u64);
        }
        if self.device.check_running().is_err() {
            return Ok(self.device.look()?.freed_room().by(point.base, &[point.epoch])?.values().sum());
        }
        let mut txn = self.device.begin_unthrottled()?;
        let bytes: u64 = txn.freed_room().by(point.base, &[point.epoch])?.values().sum();
        let blocks = Some(bytes / BLOCK_BYTES as u64);
        if txn.base(point.base)?.newest != point.epoch {
            if let Some(mut snapshot) = txn.moments().stored_snapshot(point.base, point.epoch)? {
                snapshot.record.alone = blocks;
                txn.state.past.put_snapshot(&snapshot);
            }
        } else if txn.moments().kept_after(point.base, point.epoch)?.is_none() {
            txn.state.count(point.base, |counts| counts.newest_alone = blocks);
        }
        txn.finish()?;
        Ok(bytes)
    }

    /// Up to so many of the first inodes without a name whose records are still there and that `may_go`.
    pub fn orphans(self, may_go: impl Fn(InodeNo) -> bool, most: usize) -> Result<Vec<InodeNo>> {
        let look = self.device.look()?;
        let mut orphans = Vec::new();
        for (base, _) in look.bases() {
            if !look.noted_work().may_remove_orphans(base)? {
                continue;
            }
            let (from, to) = work_range(base, INODE);
            for pair in look.meta().range(Table::Orphan, &from, &to)? {
                let inode = InodeNo::new(base, work_number(&pair?.0)?);
                if may_go(inode) {
                    orphans.push(inode);
                }
                if orphans.len() == most {
                    return Ok(orphans);
                }
            }
        }
        Ok(orphans)
    }
}

/// Makes snapshots invisible that nothing needs.
fn hide_all(txn: &mut Txn<'_>, snapshots: Vec<Snapshot>) -> Result<()> {
    let key = |snapshot: &Snapshot| work_key(snapshot.base, SNAPSHOT, snapshot.epoch.number().into());
    for snapshot in &snapshots {
        txn.state.past.meta.put(Table::Orphan, &key(snapshot), &serde_bytes::ByteBuf::new());
    }
    snapshots.chunk_by(|a, b| a.base == b.base).try_for_each(|of_base| txn.state.hide(of_base[0].base, of_base))
}

pub(super) fn drop_mark(txn: &mut Txn<'_>, point: Point) -> Result<()> {
    let mark = txn.moments().stored_snapshot(point.base, point.epoch)?;
    let mark = mark.filter(|mark| mark.record.purpose == Purpose::Mirror);
    let is_free = txn.dependants(point)?.is_empty() && !txn.is_archiving(point);
    mark.filter(|_| is_free).map_or(Ok(()), |mark| hide_all(txn, vec![mark]))
}

/// Snapshots side by side whose records are being removed, the one before them, which may be about to go as well, and the
/// one that stays behind them.
struct Going {
    base: BaseId,
    /// The newest first.
    epochs: Vec<Epoch>,
    before: Option<Snapshot>,
    after: Option<Snapshot>,
}

impl Going {
    fn oldest(&self) -> Epoch {
        self.epochs.last().copied().unwrap_or_default()
    }

    fn after(&self) -> Epoch {
        self.after.as_ref().map_or(Epoch::MAX.before(), |snapshot| snapshot.epoch)
    }
}

/// What room deletions would free.
#[derive(Clone, Copy)]
pub struct FreedRoom<'a> {
    pub(super) state: &'a State,
}

impl FreedRoom<'_> {
    /// Blocks that only this snapshot holds, if that is known.
    fn counted_alone(self, point: Point) -> Result<Option<u64>> {
        let base = self.state.base(point.base)?;
        let Some(snapshot) = self.state.moments().stored_snapshot(point.base, point.epoch)? else { return Ok(Some(0)) };
        Ok(if base.newest == point.epoch { base.counts.newest_alone } else { snapshot.record.alone })
    }

    /// Bytes of file data that deleting these snapshots of a base, together, would free, by inode. What files share is
    /// counted where it was shared last.
    fn by(self, base: BaseId, epochs: &[Epoch]) -> Result<BTreeMap<InodeNo, u64>> {
        let mut freed = BTreeMap::new();
        self.each_dropped(base, epochs, &mut |inode, location| {
            if !location.is_shared(self.state.meta())? {
                *freed.entry(inode).or_default() += (location.blocks() * BLOCK_BYTES) as u64;
            }
            Ok(())
        })?;
        Ok(freed)
    }

    /// Bytes of file data that deleting all of this would free, by inode: snapshots, by their bases, and whole bases.
    pub fn by_all(self, snapshots: &BTreeMap<BaseId, Vec<Epoch>>, bases: &[BaseId]) -> Result<BTreeMap<InodeNo, u64>> {
        let mut freed: BTreeMap<InodeNo, u64> = BTreeMap::new();
        let mut let_go: HashMap<_, u64> = HashMap::new();
        let mut drop_one = |inode: InodeNo, location: &Location| {
            // What several hold is free when the last of them lets go.
            let is_free = match location.sharers(self.state.meta())? {
                None => true,
                Some(holders) => {
                    let count = let_go.entry(location.key()).or_default();
                    *count += 1;
                    *count == holders.all()
                }
            };
            if is_free {
                *freed.entry(inode).or_default() += (location.blocks() * BLOCK_BYTES) as u64;
            }
            Ok(())
        };
        for (base, epochs) in snapshots {
            self.each_dropped(*base, epochs, &mut drop_one)?;
        }
        for base in bases {
            let prefix = base.prefix();
            for table in [Table::Track, Table::Preimage] {
                for pair in self.state.meta().range(table, &prefix, &prefix_end(&prefix))? {
                    let (key, value) = pair?;
                    let key = match table {
                        Table::Preimage => match split_preimage(&key)? {
                            (Table::Track, key, _) => key,
                            _ => continue,
                        },
                        _ => key,
                    };
                    let value = split_record(table, &key, &value)?.1;
                    if !value.is_empty() {
                        let pointer: Pointer = decode(table, &key, value)?;
                        let inode = InodeNo::expect_of_key(&key)?;
                        pointer.locations().try_for_each(|location| drop_one(inode, location))?;
                    }
                }
            }
        }
        Ok(freed)
    }

    /// Goes through the locations that only these snapshots of a base hold in it.
    fn each_dropped(
        self,
        base: BaseId,
        epochs: &[Epoch],
        drop_one: &mut dyn FnMut(InodeNo, &Location) -> Result<()>,
    ) -> Result<()> {
        let mut epochs = epochs.to_vec();
        epochs.sort_unstable();
        epochs.dedup();
        // The last snapshot before those that go with the one at hand, which stays.
        let (mut below, mut last) = (Epoch::ZERO, None);
        for &epoch in &epochs {
            if self.state.moments().stored_snapshot(base, epoch)?.is_none() {
                continue;
            }
            let before = self.state.moments().kept_before(base, epoch)?.map(|snapshot| snapshot.epoch);
            if before.is_none() || before != last {
                below = before.unwrap_or(Epoch::ZERO);
            }
            last = Some(epoch);
            let after =
                self.state.moments().kept_after(base, epoch)?.map_or(Epoch::MAX.before(), |snapshot| snapshot.epoch);
            for named in Increments::between(base, epoch, after).all(self.state)? {
                let Named { table, key, end } = named?;
                if table != Table::Track {
                    continue;
                }
                let Some(value) = self.state.meta().get_raw(Table::Preimage, &preimage_key(table, &key, end))? else {
                    continue;
                };
                let (birth, value) = split_record(table, &key, &value)?;
                // A damaged record may end before its birth: then nobody sees it.
                if value.is_empty() || birth > epoch || birth <= below {
                    continue;
                }
                let pointer: Pointer = decode(table, &key, value)?;
                let inode = InodeNo::expect_of_key(&key)?;
                pointer.locations().try_for_each(|location| drop_one(inode, location))?;
            }
        }
        Ok(())
    }
}

/// Up to [`STEP`] snapshots down from one that are being deleted.
fn going_from(txn: &Txn<'_>, base: BaseId, newest: Epoch) -> Result<Going> {
    let after = txn.moments().snapshot_after(base, newest)?;
    let mut epochs = vec![newest];
    let mut at = newest;
    let before = loop {
        match txn.moments().snapshot_before(base, at)? {
            Some(snapshot) if snapshot.record.deleting && epochs.len() < STEP => at = snapshot.epoch,
            found => break found,
        }
        epochs.push(at);
    };
    Ok(Going { base, epochs, before, after })
}

/// Drops up to [`STEP`] pre-images; where to go on, or `None` when there are no more.
fn drop_preimages(txn: &mut Txn<'_>, going: &Going, cursor: &[u8]) -> Result<Option<Vec<u8>>> {
    let before = going.before.as_ref().map_or(Epoch::ZERO, |snapshot| snapshot.epoch);
    let mut walk = Increments::between(going.base, going.oldest(), going.after()).on_from(cursor);
    for Named { table, key, end } in walk.step(txn, STEP)? {
        let preimage = preimage_key(table, &key, end);
        let Some(value) = txn.meta().get_raw(Table::Preimage, &preimage)? else { continue };
        let (birth, value) = split_record(table, &key, &value)?;
        if birth <= before {
            continue;
        }
        if table == Table::Track && !value.is_empty() {
            let pointer: Pointer = decode(table, &key, value)?;
            txn.state.accounts.releases.extend(pointer.locations().map(|location| (*location, Holder::Log, None)));
        }
        txn.state.past.pass(table, &key, birth)?;
        txn.state.past.meta.remove(Table::Preimage, &preimage);
        txn.state.past.meta.remove(Table::Increment, &increment_key(table, &key, end));
    }
    Ok(walk.cursor().map(<[u8]>::to_vec))
}

/// Forgets up to [`STEP`] records that came into being while snapshots were active that are being deleted, unless
/// they belong to the increment of the one before from now on; whether there may be more.
fn drop_passed(txn: &mut Txn<'_>, going: &Going) -> Result<bool> {
    match &going.before {
        // That one goes after these, and all as one then.
        Some(before) if before.record.deleting => return Ok(false),
        Some(before) if matches!(before.record.state, SnapshotState::Ended(_)) => return Ok(false),
        // Nothing is left of which anything is to be told.
        None if going.after.is_none() => txn.state.past.forget_ended(going.base),
        _ => {}
    }
    let before = going.before.as_ref().map_or(Epoch::ZERO, |before| before.epoch);
    // Whatever they say: what makes no sense goes as well.
    let passed = Increments::passed(going.base, before, going.after());
    let keys: Vec<_> = passed.keys(txn)?.take(STEP).collect::<Result<_>>()?;
    keys.iter().for_each(|key| txn.state.past.meta.remove(Table::Passed, key));
    Ok(keys.len() == STEP)
}

/// Forgets snapshots of which nothing is left; what their neighbours hold alone has to be counted anew.
fn forget_going(txn: &mut Txn<'_>, going: &Going) -> Result<()> {
    for &epoch in &going.epochs {
        txn.state.past.forget_snapshot(Point { base: going.base, epoch });
        txn.state.past.meta.remove(Table::Orphan, &work_key(going.base, SNAPSHOT, epoch.number().into()));
    }
    let neighbours = going.before.iter().chain(&going.after).filter(|neighbour| !neighbour.record.deleting);
    neighbours.cloned().collect::<Vec<_>>().into_iter().try_for_each(|neighbour| txn.state.forget_alone(neighbour))
}
