//! What is counted: who holds the locations that records of tracks name, and what bases, snapshots and the past of all take of them.

use super::past::{
    BaseId, BaseReserve, Counts, InodeAt, Moment, Old, Point, TrackKey, TrackNo, counts_key, encode_record,
    reserve_key, split_record, track_key,
};
use super::pointer::Pointer;
use super::{Device, State};
use crate::clock::Epoch;
use crate::error::{Error, Result};
use crate::logstore::{Holder, Holders, Location, LogStore};
use crate::meta::{Table, decode};

/// What is counted for all bases together, and what the operation under way has changed of what is counted.
#[derive(Default)]
pub(super) struct Accounts {
    /// Blocks of locations that only pre-images hold.
    pub log_blocks: u64,
    /// Bytes of room that snapshots and clones have set aside.
    pub reserved: u64,
    /// Locations that records let go of in the operation under way, what kind of record it was, and of a live one
    /// which, if a pre-image of it may have to do with them.
    pub releases: Vec<(Location, Holder, Option<TrackKey>)>,
    /// Those among them that nobody holds any more, and that are free when the operation has taken effect.
    pub freed: Vec<Location>,
}

/// What became of a track that is replaced or removed.
pub(super) enum OldTrack {
    None,
    /// It went.
    Gone(Pointer),
    /// A snapshot needs it: it is a pre-image now; of the newest one alone, if `is_alone`.
    Kept {
        pointer: Pointer,
        is_alone: bool,
    },
}

impl OldTrack {
    pub fn pointer(&self) -> Option<&Pointer> {
        match self {
            OldTrack::None => None,
            OldTrack::Gone(pointer) | OldTrack::Kept { pointer, .. } => Some(pointer),
        }
    }
}

/// What kind of record holds the locations of a track.
pub(super) fn holder(is_old: bool) -> Holder {
    if is_old { Holder::Log } else { Holder::Live }
}

/// What a state was before an operation, besides its tables and bases, which know that themselves.
pub(super) struct Before {
    epoch: Epoch,
    reserved: u64,
    log_blocks: u64,
}

impl Accounts {
    pub fn new(log_blocks: u64, reserved: u64) -> Accounts {
        Accounts { log_blocks, reserved, ..Accounts::default() }
    }
}

impl State {
    /// Begins an operation that [`State::take_back`] can undo as a whole.
    pub(super) fn begin(&mut self) -> Before {
        self.past.begin();
        let Accounts { reserved, log_blocks, .. } = self.accounts;
        Before { epoch: self.past.epoch, reserved, log_blocks }
    }

    /// The operation has taken effect.
    pub(super) fn keep_changes(&mut self) {
        self.past.keep_changes();
    }

    /// Undoes an operation.
    pub(super) fn take_back(&mut self, before: Before) {
        let Before { epoch, reserved, log_blocks } = before;
        self.past.take_back(epoch);
        (self.accounts.reserved, self.accounts.log_blocks) = (reserved, log_blocks);
        self.accounts.releases.clear();
        self.accounts.freed.clear();
    }

    /// Changes what is counted of a base; taken back if the operation under way fails.
    pub(super) fn count(&mut self, id: BaseId, change: impl FnOnce(&mut Counts)) {
        self.past.bases.count(id, |counts, _| change(counts));
    }

    /// The same of what it has set aside for itself.
    pub(super) fn count_reserve(&mut self, id: BaseId, change: impl FnOnce(&mut BaseReserve)) {
        self.past.bases.count(id, |_, reserve| {
            if let Some(reserve) = reserve {
                change(reserve);
            }
        });
    }

    /// Puts the counts into the open transaction, just before that is frozen.
    pub(super) fn freeze_counts(&mut self) -> Result<()> {
        for (id, base) in self.past.bases.iter() {
            let key = counts_key(*id);
            if self.past.meta.get::<Counts>(Table::State, &key)? != Some(base.counts) {
                self.past.meta.put(Table::State, &key, &base.counts);
            }
            if let Some(reserve) = &base.reserve
                && self.past.meta.get::<BaseReserve>(Table::State, &reserve_key(*id))?.as_ref() != Some(reserve)
            {
                self.past.meta.put(Table::State, &reserve_key(*id), reserve);
            }
        }
        Ok(())
    }

    /// What records let go of in an operation is free, now that it takes effect.
    pub(super) fn release_all(&mut self, log: &LogStore) -> Result<()> {
        self.let_go(log)?;
        self.free_all(log)
    }

    /// The part of that which has to read, and can be taken back.
    pub(super) fn let_go(&mut self, log: &LogStore) -> Result<()> {
        for (location, holder, track) in std::mem::take(&mut self.accounts.releases) {
            if self.release(log, &location, holder, track)? {
                self.accounts.freed.push(location);
            }
        }
        Ok(())
    }

    /// The part that cannot be taken back.
    pub(super) fn free_all(&mut self, log: &LogStore) -> Result<()> {
        let freed = std::mem::take(&mut self.accounts.freed);
        freed.iter().try_for_each(|location| log.free(&self.past.meta, location))
    }

    /// A record lets go of a location; whether nobody holds that any more.
    fn release(
        &mut self,
        log: &LogStore,
        location: &Location,
        holder: Holder,
        track: Option<TrackKey>,
    ) -> Result<bool> {
        let left = log.release(&mut self.past.meta, location, holder)?;
        let blocks = location.blocks() as u64;
        match holder {
            Holder::Live if left.live == 0 && left.log > 0 => {
                self.accounts.log_blocks = self.accounts.log_blocks.saturating_add(blocks);
                if let (1, Some(track)) = (left.log, track) {
                    self.count_single(track, location, u64::saturating_add)?;
                }
            }
            Holder::Log if left.all() == 0 => {
                self.accounts.log_blocks = self.accounts.log_blocks.saturating_sub(blocks)
            }
            _ => {}
        }
        Ok(left.all() == 0)
    }

    /// A live record that names this location has become a pre-image; who holds it then.
    fn keep(&mut self, log: &LogStore, location: &Location) -> Result<Holders> {
        let holders = log.keep(&mut self.past.meta, location)?;
        if holders.live == 0 {
            self.accounts.log_blocks = self.accounts.log_blocks.saturating_add(location.blocks() as u64);
        }
        Ok(holders)
    }

    /// A live record comes to name a location that `known` holds; who held it before.
    pub(super) fn share(&mut self, log: &LogStore, location: &Location, known: Holder) -> Result<Holders> {
        let before = log.share(&mut self.past.meta, location, known)?;
        if before.live == 0 {
            self.accounts.log_blocks = self.accounts.log_blocks.saturating_sub(location.blocks() as u64);
        }
        Ok(before)
    }

    /// Keeps the current value of a key if a snapshot needs it, before it is replaced or removed.
    pub(super) fn protect(&mut self, log: &LogStore, table: Table, key: &[u8]) -> Result<OldTrack> {
        self.settle_key(log, table, key)?;
        let is_track = table == Table::Track;
        match self.past.protect(table, key, is_track)? {
            Old::Gone(Some(value)) => Ok(OldTrack::Gone(decode(table, key, &value)?)),
            Old::Kept { value: Some(value), is_alone } => {
                let base = BaseId::of_key(key)?;
                let pointer: Pointer = decode(table, key, &value)?;
                self.count(base, |counts| counts.kept += pointer.blocks());
                for location in pointer.locations() {
                    if self.keep(log, location)?.all() == 1 && is_alone {
                        self.count_newest_alone(base, |blocks| blocks + location.blocks() as u64);
                    }
                }
                Ok(OldTrack::Kept { pointer, is_alone })
            }
            Old::None | Old::Gone(None) | Old::Kept { value: None, .. } => Ok(OldTrack::None),
        }
    }

    /// Gives a key a record of its own in every era of its base; the blocks of what it took over.
    pub(super) fn settle_key(&mut self, log: &LogStore, table: Table, key: &[u8]) -> Result<u64> {
        let base = BaseId::of_key(key)?;
        let eras = self.base(base)?.record.eras.clone();
        let mut blocks = 0;
        for era in eras {
            let settled = self.past.settle_in(table, key, era, table == Table::Track)?;
            if let Some((value, before)) = settled.ended {
                self.count_ended(log, base, &decode(table, key, &value)?, before)?;
            }
            if let Some((value, is_old)) = settled.taken {
                let pointer: Pointer = decode(table, key, &value)?;
                let mut was_alone = false;
                for location in pointer.locations() {
                    was_alone |= self.share(log, location, holder(is_old))?.live == 0;
                }
                if was_alone {
                    self.forget_alone_at(era.source)?;
                }
                blocks += pointer.blocks();
            }
        }
        Ok(blocks)
    }

    /// A track of the time before an era has ended with it, and is kept for a snapshot, if for any.
    fn count_ended(&mut self, log: &LogStore, base: BaseId, pointer: &Pointer, before: Option<Epoch>) -> Result<()> {
        let Some(epoch) = before else {
            self.accounts.releases.extend(pointer.locations().map(|location| (*location, Holder::Live, None)));
            return Ok(());
        };
        let mut is_only_there = false;
        for location in pointer.locations() {
            is_only_there |= self.keep(log, location)?.live == 0;
        }
        if is_only_there { self.forget_alone_at(Point { base, epoch }) } else { Ok(()) }
    }

    /// What a snapshot holds alone is other than was counted.
    fn forget_alone_at(&mut self, point: Point) -> Result<()> {
        self.moments().stored_snapshot(point.base, point.epoch)?.map_or(Ok(()), |snapshot| self.forget_alone(snapshot))
    }

    /// Points a track at the place it was just flushed to, which can share locations with the old one.
    pub(super) fn replace_track(&mut self, device: &Device, key: TrackKey, pointer: &Pointer) -> Result<()> {
        self.counting_own(key, |state| state.put_track(device, key, pointer))?;
        // Nothing takes it back.
        self.past.bases.keep_changes();
        Ok(())
    }

    fn put_track(&mut self, device: &Device, key: TrackKey, pointer: &Pointer) -> Result<()> {
        let track = key;
        let key = track_key(key.0, key.1);
        let base = BaseId::of_key(&key)?;
        let old = self.protect(&device.log, Table::Track, &key)?;
        self.count_refers(base, old.pointer(), Some(pointer));
        match old {
            OldTrack::Gone(old) => {
                for location in old.locations().filter(|old| pointer.locations().all(|new| new != *old)) {
                    if self.release(&device.log, location, Holder::Live, Some(track))? {
                        device.log.free(&self.past.meta, location)?;
                    }
                }
            }
            OldTrack::Kept { pointer: old, is_alone } => {
                for location in old.locations().filter(|old| pointer.locations().any(|new| new == *old)) {
                    if self.share(&device.log, location, Holder::Log)?.all() == 1 && is_alone {
                        self.count_newest_alone(base, |blocks| blocks.saturating_sub(location.blocks() as u64));
                    }
                }
            }
            OldTrack::None => {}
        }
        self.past.meta.put_raw(Table::Track, &key, encode_record(self.past.epoch, pointer));
        self.release_all(&device.log)
    }

    /// A track has let go of a location that a single pre-image holds now, or shares it from now on: counted if that
    /// is its own, and holds the newest snapshot alone.
    pub(super) fn count_single(
        &mut self,
        track: TrackKey,
        location: &Location,
        change: impl FnOnce(u64, u64) -> u64,
    ) -> Result<()> {
        let key = track_key(track.0, track.1);
        let base = self.base(BaseId::of_key(&key)?)?;
        let (newest, before_newest) = (base.newest, base.before_newest);
        let Some(found) = self.candidate(Table::Track, &key, Moment::At(newest))? else { return Ok(()) };
        let (birth, value) = self.split_record(Table::Track, &key, &found.bytes)?;
        if found.is_old && !value.is_empty() && birth > before_newest && birth <= newest {
            let pointer: Pointer = decode(Table::Track, &key, value)?;
            if pointer.locations().any(|other| other == location) {
                self.count_newest_alone(BaseId::of_key(&key)?, |blocks| change(blocks, location.blocks() as u64));
            }
        }
        Ok(())
    }

    fn count_newest_alone(&mut self, base: BaseId, change: impl FnOnce(u64) -> u64) {
        self.count(base, |counts| counts.newest_alone = counts.newest_alone.map(change));
    }

    /// Counts what the tracks of a base take.
    pub(super) fn count_refers(&mut self, base: BaseId, old: Option<&Pointer>, new: Option<&Pointer>) {
        let blocks = |pointer: Option<&Pointer>| pointer.map_or(0, Pointer::blocks);
        let (old, new) = (blocks(old), blocks(new));
        if old != new {
            self.count(base, |counts| counts.refers = (counts.refers + new).saturating_sub(old));
        }
    }

    /// The pointer of a track at a moment, and what kind of record it stands in.
    pub fn pointer(&self, at: InodeAt, track: TrackNo) -> Result<Option<(Pointer, Holder)>> {
        let key = track_key(at.inode, track);
        match self.find(Table::Track, &key, at.moment)? {
            // What an archive has cannot be named by a pointer.
            Some(found) if found.outside.is_some() => Err(Error::Unshared),
            Some(found) => Ok(Some((
                decode(Table::Track, &key, split_record(Table::Track, &key, &found.bytes)?.1)?,
                holder(found.is_old),
            ))),
            None => Ok(None),
        }
    }
}
