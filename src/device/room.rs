//! Room: what can still be written, what is set aside, and what a copy would take.
//!
//! A snapshot that was taken with a reserve sets as much room aside as its base takes: all that it shares with the
//! base can be written anew then. A clone with a reserve does so for all that it shows. What is set aside is taken
//! up by that writing alone: new data does not get it, nor does what is written anew elsewhere and keeps its old
//! tracks. Copies in the background leave a part of the room to everybody else.

use super::past::{BaseId, BaseReserve, InodeNo, TrackKey, TrackNo, split_record, track_key};
use super::pointer::Pointer;
use super::snapshot::Changing;
use super::{Device, State, Txn};
use crate::clock::Epoch;
use crate::error::{Errno, Error, Result};
use crate::limits::{BLOCK_BYTES, COPY_SPARE_MAX, COPY_SPARE_MIN, COPY_SPARE_SHARE, RESERVE_BYTES_MIN, SEGMENT_BYTES};
use crate::meta::{Table, decode};

impl State {
    /// Bytes that are set aside for snapshots and clones and not taken up by them yet.
    pub fn reserved_room(&self) -> u64 {
        if self.accounts.reserved == 0 {
            return 0;
        }
        let mut reserved = self.accounts.reserved;
        for base in self.past.bases.values().filter(|base| !base.record.deleting) {
            let own = base.reserve.unwrap_or_default();
            reserved = reserved.saturating_sub(own.used.min(own.bytes));
            // What the newest snapshot has kept has come out of its reserve, if it has one.
            let taken = base.counts.kept * BLOCK_BYTES as u64;
            reserved = reserved.saturating_sub(taken.min(base.newest_reserve));
        }
        reserved
    }

    /// Whether what is written anew in a base comes out of room that was set aside for that.
    fn is_covered(&self, id: BaseId) -> Result<bool> {
        let base = self.base(id)?;
        let has_own = base.reserve.is_some_and(|own| own.used < own.bytes);
        Ok(has_own || base.newest_reserve > 0)
    }

    /// Blocks of a track that nobody else holds.
    fn own_blocks(&self, key: TrackKey) -> Result<u64> {
        let key = track_key(key.0, key.1);
        let Some(bytes) = self.past.meta.get_raw(Table::Track, &key)? else { return Ok(0) };
        let value = split_record(Table::Track, &key, &bytes)?.1;
        if value.is_empty() {
            return Ok(0);
        }
        let pointer: Pointer = decode(Table::Track, &key, value)?;
        let mut blocks = 0;
        for location in pointer.locations() {
            if !location.is_shared(&self.past.meta)? {
                blocks += location.blocks() as u64;
            }
        }
        Ok(blocks)
    }

    /// Counts what a change of a track does to the room that its base has set aside for itself.
    pub(super) fn counting_own<R>(&mut self, key: TrackKey, change: impl FnOnce(&mut State) -> Result<R>) -> Result<R> {
        let base = key.0.base();
        if self.past.bases.get(&base).is_none_or(|base| base.reserve.is_none()) {
            return change(self);
        }
        let before = self.own_blocks(key)?;
        let result = change(self)?;
        let after = self.own_blocks(key)?;
        let bytes = |blocks: u64| blocks * BLOCK_BYTES as u64;
        self.count_reserve(base, |own| own.used = (own.used + bytes(after)).saturating_sub(bytes(before)));
        Ok(result)
    }

    /// A track goes: what it took of the room that its base has set aside for itself is there again.
    pub(super) fn uncount_own(&mut self, key: TrackKey) -> Result<()> {
        let base = key.0.base();
        if self.past.bases.get(&base).is_some_and(|base| base.reserve.is_some()) {
            let bytes = self.own_blocks(key)? * BLOCK_BYTES as u64;
            self.count_reserve(base, |own| own.used = own.used.saturating_sub(bytes));
        }
        Ok(())
    }
}

/// What can still be written.
#[derive(Clone, Copy)]
pub struct Capacity<'a> {
    pub(super) device: &'a Device,
}

impl Capacity<'_> {
    /// Room of the file system that carries the store and inside the store's segments, in bytes.
    fn free(self) -> Result<u64> {
        let usage = self.device.log.usage();
        Ok(self.device.room()?.available + usage.segments.saturating_sub(usage.used))
    }

    /// What has to stay free, besides what is set aside, for new data to be taken.
    fn spare(self, state: &State) -> Result<u64> {
        let dirty = state.dirty_room(self.device.track_bytes()) as u64;
        Ok(dirty + self.device.kv.reserve_to_come()? + 2 * RESERVE_BYTES_MIN + SEGMENT_BYTES)
    }

    /// Bytes of new data that can be written.
    pub fn writable(self, state: &State) -> Result<u64> {
        let usage = self.device.log.usage();
        // The disk gives room to whole segments only.
        let segments = self.device.room()?.available.saturating_sub(RESERVE_BYTES_MIN) / SEGMENT_BYTES * SEGMENT_BYTES;
        let free = segments + usage.segments.saturating_sub(usage.used);
        let set_aside = state.reserved_room();
        if set_aside == 0 {
            return Ok(free);
        }
        Ok(free.min(self.free()?.saturating_sub(set_aside + self.spare(state)?)))
    }

    /// What copies in the background leave to others.
    fn copy_spare(self) -> Result<u64> {
        Ok((self.device.room()?.total / COPY_SPARE_SHARE).clamp(COPY_SPARE_MIN, COPY_SPARE_MAX))
    }

    /// Whether a copy in the background may take so many bytes more.
    pub(super) fn has_room_for_copy(self, state: &State, bytes: u64) -> Result<bool> {
        Ok(self.writable(state)? >= bytes + self.copy_spare()?)
    }

    /// NOSPC where so many bytes cannot be set aside as well.
    pub(super) fn check_reservable(self, state: &State, bytes: u64) -> Result<()> {
        let free = self.free()?.saturating_sub(RESERVE_BYTES_MIN + state.reserved_room());
        if bytes > free {
            let text = format!("{bytes} bytes cannot be set aside: {free} are free; delete snapshots or files first");
            return Err(Error::Refused(Errno::NOSPC, text));
        }
        Ok(())
    }

    /// NOSPC in words where copies of so many bytes, besides those under way, would not fit.
    pub fn check_copyable(self, state: &State, bytes: u64) -> Result<()> {
        let (writable, to_come, spare) = (self.writable(state)?, state.copies().to_come()?, self.copy_spare()?);
        let free = writable.saturating_sub(to_come.saturating_add(spare));
        if bytes > free {
            let text = format!(
                "a copy of {bytes} bytes does not fit: {writable} are free, of which {to_come} are wanted by other \
                 copies and {spare} are left to everybody else; delete snapshots or files first"
            );
            return Err(Error::Refused(Errno::NOSPC, text));
        }
        Ok(())
    }
}

impl Txn<'_> {
    /// NOSPC where so many tracks more would take room that is set aside.
    pub fn check_growth(&self, tracks: usize) -> Result<()> {
        let set_aside = self.state.reserved_room();
        if tracks == 0 || set_aside == 0 {
            return Ok(());
        }
        let wanted = tracks as u64 * self.device.track_bytes() + self.device.capacity().spare(&self.state)?;
        if self.device.capacity().free()? < set_aside + wanted { Err(Error::Posix(Errno::NOSPC)) } else { Ok(()) }
    }

    /// Whether writing a track that is there anew takes room that is set aside for others: the old one stays,
    /// since a snapshot or somebody else holds it.
    pub fn keeps_old(&self, inode: InodeNo, track: TrackNo) -> Result<bool> {
        let key = track_key(inode, track);
        let base = BaseId::of_key(&key)?;
        if self.state.accounts.reserved == 0
            || self.state.tracks().is_in_memory(&(inode, track))
            || self.state.is_covered(base)?
        {
            return Ok(false);
        }
        let Some((pointer, _)) = self.state.pointer(inode.live(), track)? else { return Ok(false) };
        let own = self.state.past.meta.get_raw(Table::Track, &key)?;
        let birth = own.map(|bytes| self.state.birth_of(Table::Track, &key, &bytes)).transpose()?;
        // Without a record of its own, the base shows somebody else's.
        if birth.is_none_or(|birth| birth <= self.state.past.bases.get(&base).map_or(Epoch::ZERO, |base| base.newest)) {
            return Ok(true);
        }
        for location in pointer.locations() {
            if location.is_shared(&self.state.past.meta)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Changing<'_> {
    /// NOSPC in words where a copy of so many bytes does not fit.
    pub fn check_copyable(&self, bytes: u64) -> Result<()> {
        self.device.capacity().check_copyable(self.state, bytes)
    }

    /// Sets room aside, so that all that a base shows can be written anew.
    pub fn reserve_for_base(&mut self, base: BaseId) -> Result<()> {
        let bytes = self.state.counts(base)?.refers * BLOCK_BYTES as u64;
        self.device.capacity().check_reservable(self.state, bytes)?;
        self.state.past.put_reserve(base, Some(BaseReserve { bytes, used: 0 }));
        self.state.accounts.reserved += bytes;
        Ok(())
    }

    /// NOSPC in words where a snapshot of these bases could not set its room aside.
    pub fn check_reservable(&self, bases: &[BaseId]) -> Result<()> {
        let mut bytes: u64 = 0;
        for base in bases {
            bytes = bytes.saturating_add(self.state.counts(*base)?.refers * BLOCK_BYTES as u64);
        }
        self.device.capacity().check_reservable(self.state, bytes)
    }
}
