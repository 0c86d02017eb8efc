//! File data in tracks: where a track's bytes are now, reading them, and changing them in memory.

use super::archived::{ArchivedTrack, TrackRecord, track_record};
use super::dirty::{Dirty, Patches, lay_over};
use super::past::{Elsewhere, InodeAt, InodeNo, Moment, SetTrack, TrackKey, TrackNo, expect_track, track_key};
use super::pointer::Pointer;
use super::{Device, State, Txn};
use crate::archive::Archive;
use crate::error::{Error, Result};
use crate::limits::{DIRTY_BYTES_MAX, DIRTY_ROOM_MAX};
use crate::logstore::{Holder, Holders, Placed};
use crate::meta::Table;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// Where the bytes of a track are at this moment. Bytes past the end of what it holds are zeros.
pub struct Source {
    /// Patches in memory, the newest first.
    patches: Vec<Arc<Patches>>,
    below: Below,
}

impl Source {
    pub(super) fn stored(stored: Stored) -> Source {
        Source { patches: Vec::new(), below: Below::Stored(stored) }
    }
}

/// What patches in memory lie over.
enum Below {
    Memory(Arc<Vec<u8>>),
    Stored(Stored),
    Archived(ArchivedTrack, Arc<Archive>),
    InSet(SetTrack, Arc<Elsewhere>),
    Hole,
}

/// A pointer with the places of its segments.
pub(super) struct Stored {
    pub pointer: Pointer,
    whole: Placed,
    patches: Vec<Placed>,
}

/// The tracks of files, in memory and on the media.
#[derive(Clone, Copy)]
pub struct Tracks<'a> {
    pub(super) state: &'a State,
}

impl Tracks<'_> {
    /// Whether a track was written and has no place on the media yet.
    pub fn is_in_memory(self, key: &TrackKey) -> bool {
        self.state.dirty.contains_key(key) || self.state.flushing.contains_key(key)
    }

    /// Whether the live file has this track.
    pub fn has_track(self, inode: InodeNo, track: TrackNo) -> Result<bool> {
        Ok(self.is_in_memory(&(inode, track)) || self.state.exists(Table::Track, &track_key(inode, track))?)
    }

    /// The first track at or after `from` and before `to` that exists.
    pub fn next_track(self, at: InodeAt, from: TrackNo, to: TrackNo) -> Result<Option<TrackNo>> {
        let mut found = None;
        self.state.scan(Table::Track, &track_key(at.inode, from), &track_key(at.inode, to), at.moment, |key, _| {
            found = Some(expect_track(key)?.1);
            Ok(ControlFlow::Break(()))
        })?;
        if at.is_live() && from < to {
            let range = (at.inode, from)..(at.inode, to);
            let first = |tracks: &super::DirtyTracks| tracks.range(range.clone()).next().map(|((_, track), _)| *track);
            found = [found, first(&self.state.dirty), first(&self.state.flushing)].into_iter().flatten().min();
        }
        Ok(found)
    }

    /// The first track at or after `from` that does not exist, or `to` if all before it do.
    pub fn next_gap(self, at: InodeAt, from: TrackNo, to: TrackNo) -> Result<TrackNo> {
        let in_memory = |track| at.is_live() && self.is_in_memory(&(at.inode, track));
        let mut next = from;
        self.state.scan(Table::Track, &track_key(at.inode, from), &track_key(at.inode, to), at.moment, |key, _| {
            let (_, track) = expect_track(key)?;
            while next < track && in_memory(next) {
                next = next.next();
            }
            if next < track {
                return Ok(ControlFlow::Break(()));
            }
            next = track.next();
            Ok(ControlFlow::Continue(()))
        })?;
        while next < to && in_memory(next) {
            next = next.next();
        }
        Ok(next.min(to))
    }

    /// Of the tracks of a live file in a range that are stored, the first and every `step`th after it, among the first `most`;
    /// and from where the rest is, if there are more.
    pub fn every_track(
        self,
        inode: InodeNo,
        tracks: Range<TrackNo>,
        step: u64,
        most: u64,
    ) -> Result<(Vec<TrackNo>, Option<TrackNo>)> {
        let (from, to) = (track_key(inode, tracks.start), track_key(inode, tracks.end));
        let (mut found, mut rest, mut count) = (Vec::new(), None, 0);
        self.state.scan(Table::Track, &from, &to, Moment::Live, |key, _| {
            let (_, track) = expect_track(key)?;
            if count == most {
                rest = Some(track);
                return Ok(ControlFlow::Break(()));
            }
            if count.is_multiple_of(step) {
                found.push(track);
            }
            count += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((found, rest))
    }

    /// All tracks at or after `from` and before `to` that the live file has, in order.
    fn live_tracks(self, inode: InodeNo, from: TrackNo, to: TrackNo) -> Result<Vec<TrackNo>> {
        let mut found = Vec::new();
        self.state.scan(Table::Track, &track_key(inode, from), &track_key(inode, to), Moment::Live, |key, _| {
            found.push(expect_track(key)?.1);
            Ok(ControlFlow::Continue(()))
        })?;
        if from < to {
            let range = (inode, from)..(inode, to);
            found.extend(self.state.dirty.range(range.clone()).map(|((_, track), _)| *track));
            found.extend(self.state.flushing.range(range).map(|((_, track), _)| *track));
            found.sort_unstable();
            found.dedup();
        }
        Ok(found)
    }
}

impl Device {
    pub fn source(&self, state: &State, at: InodeAt, track: TrackNo) -> Result<Source> {
        let mut patches = Vec::new();
        if at.is_live() {
            let key = (at.inode, track);
            for dirty in [state.dirty.get(&key), state.flushing.get(&key)].into_iter().flatten() {
                match dirty {
                    Dirty::Whole(bytes) => return Ok(Source { patches, below: Below::Memory(bytes.clone()) }),
                    Dirty::Patched(sections) => patches.push(sections.clone()),
                }
            }
        }
        let below = match track_record(state, at, track)? {
            Some(TrackRecord::Stored(pointer, _)) => Below::Stored(self.placed(state, pointer)?),
            Some(TrackRecord::Archived(track, archive)) => Below::Archived(track, archive),
            Some(TrackRecord::InSet(track, sets)) => Below::InSet(track, sets),
            None => Below::Hole,
        };
        Ok(Source { patches, below })
    }

    pub(super) fn placed(&self, state: &State, pointer: Pointer) -> Result<Stored> {
        let placed = |location| self.log.placed(&state.past.meta, location);
        Ok(Stored {
            whole: placed(pointer.whole)?,
            patches: pointer.patches.iter().map(|patch| placed(patch.location)).collect::<Result<_>>()?,
            pointer,
        })
    }

    /// All that a track holds; fails where it was moved away or is damaged.
    fn fetch(&self, source: &Source) -> Result<Arc<Vec<u8>>> {
        if let (Below::Memory(bytes), true) = (&source.below, source.patches.is_empty()) {
            return Ok(bytes.clone());
        }
        let mut out = Vec::new();
        match &source.below {
            Below::Memory(bytes) => out.extend_from_slice(bytes),
            Below::Stored(stored) => out = self.read_stored(stored)?,
            Below::Archived(track, archive) => return archive.read(track.increment, &track.place),
            Below::InSet(track, sets) => return sets.read(track),
            Below::Hole => {}
        }
        let end = source.patches.iter().map(|patches| patches.end()).fold(out.len(), usize::max);
        out.resize(end, 0);
        for patches in source.patches.iter().rev() {
            patches.lay_over(0, &mut out);
        }
        Ok(Arc::new(out))
    }

    /// Reads a stored track whole.
    pub(super) fn read_stored(&self, stored: &Stored) -> Result<Vec<u8>> {
        let mut out = vec![0; stored.pointer.held()];
        self.log.read_into(&stored.whole, &mut out[..stored.pointer.whole.raw as usize])?;
        for (patch, placed) in stored.pointer.patches.iter().zip(&stored.patches) {
            lay_over(patch.at as usize, &self.log.read_cached(placed)?, 0, &mut out);
        }
        Ok(out)
    }

    /// Fills `out` with a part of a track that is as long, with zeros behind what the track holds. Fails like
    /// [`Device::fetch`].
    fn fetch_part(&self, source: &Source, part: &Range<usize>, out: &mut [u8]) -> Result<()> {
        for patches in &source.patches {
            if let Some(bytes) = patches.get(part) {
                out.copy_from_slice(bytes);
                return Ok(());
            }
            if patches.touches(part) {
                break;
            }
        }
        match &source.below {
            Below::Memory(bytes) => fill(out, held(bytes, part)),
            Below::Stored(stored) => self.fetch_stored_part(stored, part, out)?,
            Below::Archived(track, archive) => fill(out, held(&archive.read(track.increment, &track.place)?, part)),
            Below::InSet(track, sets) => fill(out, held(&sets.read(track)?, part)),
            Below::Hole => out.fill(0),
        }
        for patches in source.patches.iter().rev() {
            patches.lay_over(part.start, out);
        }
        Ok(())
    }

    fn fetch_stored_part(&self, stored: &Stored, part: &Range<usize>, out: &mut [u8]) -> Result<()> {
        let pairs = || stored.pointer.patches.iter().zip(&stored.patches);
        let touches = |from: usize, to: usize| from < part.end && part.start < to;
        for (patch, placed) in pairs().rev() {
            let at = patch.at as usize;
            if at <= part.start && part.end <= patch.end() {
                let bytes = self.log.read_cached(placed)?;
                out.copy_from_slice(&bytes[part.start - at..part.end - at]);
                return Ok(());
            }
            if touches(at, patch.end()) {
                break;
            }
        }
        let whole = stored.pointer.whole.raw as usize;
        if part.start == 0 && part.end >= whole {
            self.log.read_into(&stored.whole, &mut out[..whole])?;
            out[whole..].fill(0);
        } else if part.start < whole {
            fill(out, held(&self.log.read_cached(&stored.whole)?, part));
        } else {
            out.fill(0);
        }
        for (patch, placed) in pairs().filter(|(patch, _)| touches(patch.at as usize, patch.end())) {
            lay_over(patch.at as usize, &self.log.read_cached(placed)?, part.start, out);
        }
        Ok(())
    }

    /// All that a track holds, looking the pointer up again as long as it changes.
    pub fn read_track(&self, source: Source, at: InodeAt, track: TrackNo) -> Result<Arc<Vec<u8>>> {
        self.again(source, at, track, |source| self.fetch(source))
    }

    /// Fills `out` with a part of a track that is as long, looking the pointer up again as long as it changes.
    pub fn read_part(
        &self,
        source: Source,
        at: InodeAt,
        track: TrackNo,
        part: Range<usize>,
        out: &mut [u8],
    ) -> Result<()> {
        self.again(source, at, track, |source| self.fetch_part(source, &part, out))
    }

    fn again<R>(
        &self,
        mut source: Source,
        at: InodeAt,
        track: TrackNo,
        mut fetch: impl FnMut(&Source) -> Result<R>,
    ) -> Result<R> {
        loop {
            let error = match fetch(&source) {
                Ok(fetched) => return Ok(fetched),
                Err(error) => error,
            };
            let look = self.look()?;
            look.moments().check(at)?;
            let again = self.source(&look, at, track)?;
            let is_same = match (&source.below, &again.below) {
                (Below::Stored(before), Below::Stored(now)) => before.pointer == now.pointer,
                (Below::Archived(before, _), Below::Archived(now, _)) => before == now,
                (Below::InSet(before, _), Below::InSet(now, _)) => before == now,
                _ => false,
            };
            if is_same {
                let twins = match (&error, &again.below) {
                    (Error::Corrupt { .. }, Below::Stored(_)) => look.tracks().twins(at, track)?,
                    _ => Vec::new(),
                };
                let mut others = Vec::new();
                for twin in twins {
                    let below = Below::Stored(self.placed(&look, twin)?);
                    others.push(Source { patches: again.patches.clone(), below });
                }
                drop(look);
                // As it was when it was looked up: one that is gone by now does not match its checksum.
                let error = name_file(error, at.inode, track);
                for other in others {
                    if let Ok(fetched) = fetch(&other) {
                        log::warn!("inode {}, track {track}: read from the other copy of its mirror", at.inode);
                        return Ok(fetched);
                    }
                }
                return Err(error);
            }
            source = again;
        }
    }

    /// Waits while there is more dirty data or are more open changes than the store should hold.
    pub(super) fn throttle(&self) -> Result<()> {
        if self.is_throttled() { self.relieve() } else { Ok(()) }
    }

    /// Whether whoever changes something has to wait until some of what there is was written.
    pub fn is_throttled(&self) -> bool {
        let state = self.state.read();
        state.dirty_bytes > DIRTY_BYTES_MAX
            || state.dirty_room(self.track_bytes()) > DIRTY_ROOM_MAX
            || self.holds_too_many_records(&state)
    }
}

/// Puts bytes at the beginning, and zeros behind them.
fn fill(out: &mut [u8], bytes: &[u8]) {
    let (place, behind) = out.split_at_mut(bytes.len());
    place.copy_from_slice(bytes);
    behind.fill(0);
}

/// The bytes of a part that are there.
fn held<'a>(bytes: &'a [u8], part: &Range<usize>) -> &'a [u8] {
    let end = bytes.len().clamp(part.start, part.end);
    bytes.get(part.start..end).unwrap_or_default()
}

fn name_file(error: Error, inode: InodeNo, track: TrackNo) -> Error {
    match error {
        Error::Corrupt { object, problem } => {
            let error = Error::corrupt(format!("{object} (inode {inode}, track {track})"), problem);
            log::error!("{error}");
            error
        }
        other => other,
    }
}

impl Txn<'_> {
    /// Makes sure that so many tracks can become dirty; NOSPC where there is no room. What is reserved
    /// is used by [`Txn::edit_track`] or given back with [`Txn::unreserve`].
    pub fn reserve(&mut self, tracks: usize) -> Result<()> {
        // Behind this nothing is to fail.
        self.state.let_go(&self.device.log)?;
        self.device.log.reserve(&mut self.state.past.meta, tracks)
    }

    pub fn unreserve(&mut self, tracks: usize) {
        self.device.log.unreserve(tracks);
    }

    /// Whether editing this track would use up a reserved slot.
    pub fn needs_slot(&self, inode: InodeNo, track: TrackNo) -> bool {
        !self.state.dirty.contains_key(&(inode, track))
    }

    /// Changes a whole track in memory. `before` is all that it holds now, if that was needed; it is not
    /// used if the track is in memory as a whole. The caller has reserved a slot if [`Txn::needs_slot`]
    /// said so. Cannot fail.
    pub fn edit_track(
        &mut self,
        inode: InodeNo,
        track: TrackNo,
        before: Option<Arc<Vec<u8>>>,
        edit: impl FnOnce(&mut Vec<u8>),
    ) {
        self.has_edited = true;
        let state = &mut *self.state;
        let before_bytes = state.dirty.get(&(inode, track)).map_or(0, Dirty::bytes);
        let entry = state.dirty.entry((inode, track)).or_insert_with(|| Dirty::Whole(Arc::default()));
        if !matches!(entry, Dirty::Whole(bytes) if !bytes.is_empty()) {
            *entry = Dirty::Whole(before.unwrap_or_default());
        }
        if let Dirty::Whole(bytes) = entry {
            edit(Arc::make_mut(bytes));
        }
        state.dirty_bytes = state.dirty_bytes + entry.bytes() - before_bytes;
    }

    /// Writes into a track in memory, from byte `at` of it. `is_new` says that the track does not exist yet.
    /// The caller has reserved a slot if [`Txn::needs_slot`] said so. Cannot fail.
    pub fn write_track(&mut self, inode: InodeNo, track: TrackNo, at: usize, data: &[u8], is_new: bool) {
        let is_whole = at == 0 && data.len() as u64 == self.device.track_bytes();
        self.has_edited = true;
        let state = &mut *self.state;
        let before_bytes = state.dirty.get(&(inode, track)).map_or(0, Dirty::bytes);
        let entry = state.dirty.entry((inode, track)).or_insert_with(|| match is_new || is_whole {
            true => Dirty::Whole(Arc::default()),
            false => Dirty::Patched(Arc::default()),
        });
        match entry {
            _ if is_whole => *entry = Dirty::Whole(Arc::new(data.to_vec())),
            Dirty::Whole(bytes) => {
                let bytes = Arc::make_mut(bytes);
                if bytes.len() < at {
                    bytes.resize(at, 0);
                }
                let overlap = bytes.len().min(at + data.len()) - at;
                bytes[at..at + overlap].copy_from_slice(&data[..overlap]);
                bytes.extend_from_slice(&data[overlap..]);
            }
            Dirty::Patched(patches) => Arc::make_mut(patches).write(at, data),
        }
        state.dirty_bytes = state.dirty_bytes + entry.bytes() - before_bytes;
    }

    /// Removes the tracks from `from` up to and without `to`; how many there were.
    pub fn remove_tracks(&mut self, inode: InodeNo, from: TrackNo, to: TrackNo) -> Result<u64> {
        let tracks = self.state.tracks().live_tracks(inode, from, to)?;
        for &track in &tracks {
            self.unset(Table::Track, &track_key(inode, track))?;
        }
        self.forget.extend(tracks.iter().map(|&track| (inode, track)));
        Ok(tracks.len() as u64)
    }

    /// Like [`Txn::remove_tracks`], but not many more than `most`; how many there were, and from where the rest is, if
    /// that were not all.
    pub fn remove_some_tracks(
        &mut self,
        inode: InodeNo,
        tracks: Range<TrackNo>,
        most: u64,
    ) -> Result<(u64, Option<TrackNo>)> {
        let (from, to) = (track_key(inode, tracks.start), track_key(inode, tracks.end));
        let mut rest = None;
        let mut count = 0;
        // What is in memory alone is bounded, and goes with its part.
        self.state.scan(Table::Track, &from, &to, Moment::Live, |key, _| {
            count += 1;
            if count > most {
                rest = Some(expect_track(key)?.1);
            }
            Ok(if count > most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok((self.remove_tracks(inode, tracks.start, rest.unwrap_or(tracks.end))?, rest))
    }

    /// Lets a track share the locations of another one, which must not be in memory only. `known` is the
    /// kind of record that `pointer` stands in.
    pub fn share_track(&mut self, inode: InodeNo, track: TrackNo, pointer: &Pointer, known: Holder) -> Result<()> {
        self.state.uncount_own((inode, track))?;
        for location in pointer.locations() {
            if self.state.share(&self.device.log, location, known)? == (Holders { live: 0, log: 1 }) {
                self.state.count_single((inode, track), location, u64::saturating_sub)?;
            }
        }
        self.set(Table::Track, &track_key(inode, track), pointer)?;
        self.state.count_refers(inode.base(), None, Some(pointer));
        self.forget.push((inode, track));
        Ok(())
    }

    /// The pointer of a track that is stored and not in memory.
    pub fn stored_pointer(&self, at: InodeAt, track: TrackNo) -> Result<Option<(Pointer, Holder)>> {
        if at.is_live() && self.state.tracks().is_in_memory(&(at.inode, track)) {
            return Ok(None);
        }
        self.state.pointer(at, track)
    }
}
