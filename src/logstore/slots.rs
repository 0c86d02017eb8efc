//! Room handed out: segments that are open, and how new ones are made.

use super::segment::{Descriptor, Extent, Segment};
use super::{Inner, LogStore};
use crate::error::{Errno, Error, Result};
use crate::limits::*;
use crate::meta::{Meta, Table};
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, VecDeque};

pub(super) fn room_key(class: u8, segment: u64) -> [u8; 9] {
    let mut key = [0; 9];
    key[0] = class;
    key[1..].copy_from_slice(&segment.to_be_bytes());
    key
}

impl LogStore {
    pub(super) fn place(&self, inner: &mut Inner, meta: &mut Meta, blocks: usize) -> Result<(u64, u16)> {
        loop {
            let Some(extent) = inner.extents.front_mut() else {
                self.add_extents(inner, meta)?;
                continue;
            };
            let id = extent.segment;
            let segment = inner.segments.get_mut(&id).expect("an extent's segment is loaded");
            if extent.blocks() > 0 && segment.needs_summary_block(&self.volume)? {
                segment.add_summary_block(extent.take(1));
                inner.counters.used_blocks += 1;
            }
            if extent.blocks() < blocks {
                // No longer open, it may turn out to be empty at the next freeze.
                segment.changed = true;
                inner.extents.pop_front();
                continue;
            }
            return Ok((id, extent.take(blocks)));
        }
    }

    /// Opens more room: first segments that are at least half free, then a new one, then any with a
    /// run of free blocks that a whole track fits into.
    pub(super) fn add_extents(&self, inner: &mut Inner, meta: &mut Meta) -> Result<()> {
        const HALF_FREE: u8 = 4;
        /// Segments looked at before a new one is preferred.
        const CANDIDATES: usize = 16;
        self.check_all_places(meta)?;
        if self.reopen_one(inner, meta, HALF_FREE, CANDIDATES)? {
            return Ok(());
        }
        match self.new_segment(inner, meta) {
            Err(error) if error.is_no_space() => {
                if self.reopen_one(inner, meta, 1, usize::MAX)? {
                    Ok(())
                } else {
                    Err(error)
                }
            }
            result => result,
        }
    }

    /// Opens the runs of one segment of at least this class; `most` limits how many are looked at.
    pub(super) fn reopen_one(&self, inner: &mut Inner, meta: &mut Meta, least_class: u8, most: usize) -> Result<bool> {
        let open: BTreeSet<u64> = inner.extents.iter().map(|extent| extent.segment).collect();
        let mut candidates = Vec::new();
        for class in (least_class..=super::segment::CLASSES).rev() {
            for pair in meta.range(Table::Room, &[class], &[class + 1])? {
                let (key, _) = pair?;
                let id = u64::from_be_bytes(
                    key[1..]
                        .try_into()
                        .map_err(|_| Error::corrupt("the table of room", "a key has the wrong length"))?,
                );
                if !open.contains(&id) {
                    candidates.push(id);
                }
                if candidates.len() >= most {
                    break;
                }
            }
        }
        for id in candidates {
            let segment = match inner.load(meta, id) {
                Ok(segment) => segment,
                Err(error @ Error::Corrupt { .. }) => {
                    log::warn!("segment {id} is not written to: {error}");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let runs = segment.free_runs(self.slot_blocks);
            if !runs.is_empty() {
                if let Err(error) = segment.find_free_entries(&self.volume) {
                    // What lies in it can still be read; new tracks go elsewhere.
                    log::warn!("segment {id} is not written to: {error}");
                    continue;
                }
                let members = segment.members.clone();
                // Closing the store gave back what was not used.
                match runs.iter().try_for_each(|run| super::segment::ensure(&self.volume, &members, *run)) {
                    Err(error) if error.is_no_space() => continue,
                    result => result?,
                }
                inner.extents.extend(runs.into_iter().map(|(next, end)| Extent { segment: id, next, end }));
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn new_segment(&self, inner: &mut Inner, meta: &mut Meta) -> Result<()> {
        let room = self.dir.room().map_err(|error| Error::media("asking for room", error))?;
        // Metadata must be able to grow with what is written into the segment.
        let margin = RESERVE_BYTES_MIN + meta.dirty_records() as u64 * 512 + meta.dirty_record_bytes() as u64 * 2;
        if room.available < SEGMENT_BYTES + margin {
            return Err(Error::Posix(Errno::NOSPC));
        }
        let id = inner.counters.next_segment;
        if id >= SEGMENTS_MAX {
            return Err(Error::Refused(Errno::NOSPC, "this store has had all the segments it can count".into()));
        }
        let psegs = self.volume.allocate(meta, PSEGS_IN_SEGMENT)?;
        inner.counters.next_segment += 1;
        inner.counters.segments += 1;
        let summary_blocks = (SEGMENT_BLOCKS / self.slot_blocks).div_ceil(super::summary::ENTRIES_IN_BLOCK) as u16;
        inner.counters.used_blocks += u64::from(summary_blocks);
        inner.segments.insert(id, Segment::create(id, self.volume.number(), psegs, summary_blocks));
        inner.extents.push_back(Extent { segment: id, next: summary_blocks, end: SEGMENT_BLOCKS as u16 });
        Ok(())
    }
}

impl Inner {
    /// How many tracks of any size the open segments are sure to hold.
    pub(super) fn free_slots(&self, slot_blocks: usize) -> usize {
        let mut slots = 0;
        let mut extents = self.extents.iter().peekable();
        // The extents of a segment follow one another.
        while let Some(first) = extents.next() {
            let mut pieces = first.blocks() / slot_blocks;
            while let Some(next) = extents.next_if(|next| next.segment == first.segment) {
                pieces += next.blocks() / slot_blocks;
            }
            slots += self.segments[&first.segment].tracks_in(pieces);
        }
        slots
    }

    /// Closes the segments that are open and empty, all but one, as far as no reserved slot needs them.
    pub(super) fn close_empty(&mut self, slot_blocks: usize) {
        let empty = |extent: &&Extent| self.segments[&extent.segment].is_empty();
        let ids: BTreeSet<u64> = self.extents.iter().filter(empty).map(|extent| extent.segment).collect();
        for id in ids.into_iter().skip(1) {
            let (closed, kept): (VecDeque<Extent>, VecDeque<Extent>) =
                std::mem::take(&mut self.extents).into_iter().partition(|extent| extent.segment == id);
            self.extents = kept;
            if self.free_slots(slot_blocks) < self.reserved_slots {
                self.extents.extend(closed);
                return;
            }
            if let Some(segment) = self.segments.get_mut(&id) {
                segment.changed = true;
            }
        }
    }

    pub(super) fn load(&mut self, meta: &Meta, id: u64) -> Result<&mut Segment> {
        match self.segments.entry(id) {
            Entry::Occupied(segment) => Ok(segment.into_mut()),
            Entry::Vacant(place) => {
                let descriptor: Descriptor = meta
                    .get(Table::Segment, &id.to_be_bytes())?
                    .ok_or_else(|| Error::corrupt(format!("segment {id}"), "it has no descriptor"))?;
                Ok(place.insert(Segment::load(id, &descriptor)?))
            }
        }
    }
}
