//! File data in tracks: where a track's bytes are now, reading them, and changing them in memory.

use super::{Device, InodeNo, LIVE, Moment, State, TrackNo, Txn};
use crate::error::{Error, Result};
use crate::limits::DIRTY_BYTES_MAX;
use crate::logstore::{Location, Placed};
use crate::meta::Table;
use std::ops::ControlFlow;
use std::sync::Arc;

pub(super) fn track_key(inode: InodeNo, track: TrackNo) -> [u8; 20] {
    let mut key = [0; 20];
    key[..4].copy_from_slice(&LIVE.to_be_bytes());
    key[4..12].copy_from_slice(&inode.to_be_bytes());
    key[12..].copy_from_slice(&track.to_be_bytes());
    key
}

/// The inode and track that a key of the track table names.
pub fn split_track_key(key: &[u8]) -> Option<(InodeNo, TrackNo)> {
    let key: &[u8; 20] = key.try_into().ok()?;
    let (inode, track) = key[4..].split_at(8);
    Some((u64::from_be_bytes(inode.try_into().ok()?), u64::from_be_bytes(track.try_into().ok()?)))
}

/// Where the bytes of a track are at this moment. Bytes past the end of what it holds are zeros.
pub enum Source {
    Memory(Arc<Vec<u8>>),
    Stored(Placed),
    Hole,
}

impl State {
    fn in_memory(&self, inode: InodeNo, track: TrackNo) -> Option<&Arc<Vec<u8>>> {
        self.dirty.get(&(inode, track)).or_else(|| self.flushing.get(&(inode, track)))
    }

    /// Whether the live file has this track.
    pub fn has_track(&self, inode: InodeNo, track: TrackNo) -> Result<bool> {
        Ok(self.in_memory(inode, track).is_some() || self.meta.contains(Table::Track, &track_key(inode, track))?)
    }

    pub fn location(&self, inode: InodeNo, track: TrackNo, moment: Moment) -> Result<Option<Location>> {
        self.get(Table::Track, &track_key(inode, track), moment)
    }

    /// The first track at or after `from` and before `to` that exists.
    pub fn next_track(&self, inode: InodeNo, from: TrackNo, to: TrackNo, moment: Moment) -> Result<Option<TrackNo>> {
        let mut found = None;
        self.scan(Table::Track, &track_key(inode, from), &track_key(inode, to), moment, |key, _| {
            found = split_track_key(key).map(|(_, track)| track);
            Ok(ControlFlow::Break(()))
        })?;
        if moment == Moment::Live && from < to {
            let range = (inode, from)..(inode, to);
            let first = |tracks: &super::Tracks| tracks.range(range.clone()).next().map(|((_, track), _)| *track);
            found = [found, first(&self.dirty), first(&self.flushing)].into_iter().flatten().min();
        }
        Ok(found)
    }

    /// The first track at or after `from` that does not exist, or `to` if all before it do.
    pub fn next_gap(&self, inode: InodeNo, from: TrackNo, to: TrackNo, moment: Moment) -> Result<TrackNo> {
        let in_memory = |track| moment == Moment::Live && self.in_memory(inode, track).is_some();
        let mut next = from;
        self.scan(Table::Track, &track_key(inode, from), &track_key(inode, to), moment, |key, _| {
            let track = split_track_key(key).map_or(to, |(_, track)| track);
            while next < track && in_memory(next) {
                next += 1;
            }
            if next < track {
                return Ok(ControlFlow::Break(()));
            }
            next = track + 1;
            Ok(ControlFlow::Continue(()))
        })?;
        while next < to && in_memory(next) {
            next += 1;
        }
        Ok(next.min(to))
    }

    /// All tracks at or after `from` and before `to` that the live file has, in order.
    fn live_tracks(&self, inode: InodeNo, from: TrackNo, to: TrackNo) -> Result<Vec<TrackNo>> {
        let mut found = Vec::new();
        self.scan(Table::Track, &track_key(inode, from), &track_key(inode, to), Moment::Live, |key, _| {
            found.extend(split_track_key(key).map(|(_, track)| track));
            Ok(ControlFlow::Continue(()))
        })?;
        if from < to {
            let range = (inode, from)..(inode, to);
            found.extend(self.dirty.range(range.clone()).map(|((_, track), _)| *track));
            found.extend(self.flushing.range(range).map(|((_, track), _)| *track));
            found.sort_unstable();
            found.dedup();
        }
        Ok(found)
    }
}

impl Device {
    pub fn source(&self, state: &State, inode: InodeNo, track: TrackNo, moment: Moment) -> Result<Source> {
        if moment == Moment::Live
            && let Some(bytes) = state.in_memory(inode, track)
        {
            return Ok(Source::Memory(bytes.clone()));
        }
        match state.location(inode, track, moment)? {
            Some(location) => Ok(Source::Stored(self.log.placed(state.meta(), location)?)),
            None => Ok(Source::Hole),
        }
    }

    /// The bytes behind a source; fails where they were moved away or are damaged.
    pub fn fetch(&self, source: &Source) -> Result<Arc<Vec<u8>>> {
        match source {
            Source::Memory(bytes) => Ok(bytes.clone()),
            Source::Stored(placed) => Ok(Arc::new(self.log.read(placed)?)),
            Source::Hole => Ok(Arc::new(Vec::new())),
        }
    }

    /// Like [`Device::fetch`], looking the pointer up again as long as it changes.
    pub fn fetch_again(
        &self,
        mut source: Source,
        inode: InodeNo,
        track: TrackNo,
        moment: Moment,
    ) -> Result<Arc<Vec<u8>>> {
        loop {
            let error = match self.fetch(&source) {
                Ok(bytes) => return Ok(bytes),
                Err(error) => error,
            };
            let look = self.look()?;
            if let Moment::At(epoch) = moment {
                look.check_snapshot(epoch)?;
            }
            let again = self.source(&look, inode, track, moment)?;
            let is_same = match (&source, &again) {
                (Source::Stored(before), Source::Stored(now)) => before.location == now.location,
                _ => false,
            };
            if is_same {
                return Err(name_file(error, inode, track));
            }
            source = again;
        }
    }

    /// Waits while there is more dirty data or are more open changes than the store should hold.
    pub(super) fn throttle(&self) -> Result<()> {
        let is_over = {
            let state = self.state.read();
            state.dirty_bytes > DIRTY_BYTES_MAX || state.meta.dirty_records() > crate::limits::DIRTY_RECORDS_MAX
        };
        if is_over { self.relieve() } else { Ok(()) }
    }
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
        self.device.log.reserve(&mut self.state.meta, tracks)
    }

    pub fn unreserve(&mut self, tracks: usize) {
        self.device.log.unreserve(tracks);
    }

    /// Whether editing this track would use up a reserved slot.
    pub fn needs_slot(&self, inode: InodeNo, track: TrackNo) -> bool {
        !self.state.dirty.contains_key(&(inode, track))
    }

    /// Changes a track in memory. `before` is what it holds now, if that was needed, for the case that it
    /// is not in memory. The caller has reserved a slot if [`Txn::needs_slot`] said so. Cannot fail.
    pub fn edit_track(
        &mut self,
        inode: InodeNo,
        track: TrackNo,
        before: Option<Arc<Vec<u8>>>,
        edit: impl FnOnce(&mut Vec<u8>),
    ) {
        let state = &mut *self.state;
        let flushing = &state.flushing;
        let before_bytes = state.dirty.get(&(inode, track)).map_or(0, |bytes| bytes.len());
        let entry = state
            .dirty
            .entry((inode, track))
            .or_insert_with(|| flushing.get(&(inode, track)).cloned().or(before).unwrap_or_default());
        let bytes = Arc::make_mut(entry);
        edit(bytes);
        state.dirty_bytes = state.dirty_bytes + bytes.len() - before_bytes;
    }

    /// Removes the tracks from `from` up to and without `to`; how many there were.
    pub fn remove_tracks(&mut self, inode: InodeNo, from: TrackNo, to: TrackNo) -> Result<u64> {
        let tracks = self.state.live_tracks(inode, from, to)?;
        for &track in &tracks {
            self.unset(Table::Track, &track_key(inode, track))?;
        }
        self.forget.extend(tracks.iter().map(|&track| (inode, track)));
        Ok(tracks.len() as u64)
    }

    /// Removes up to `most` tracks of a file; whether that were all.
    pub fn remove_some_tracks(&mut self, inode: InodeNo, most: usize) -> Result<bool> {
        let mut to = TrackNo::MAX;
        let mut count = 0;
        self.state.scan(
            Table::Track,
            &track_key(inode, 0),
            &track_key(inode, TrackNo::MAX),
            Moment::Live,
            |key, _| {
                count += 1;
                if count > most {
                    to = split_track_key(key).map_or(to, |(_, track)| track);
                }
                Ok(if count > most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            },
        )?;
        self.remove_tracks(inode, 0, to)?;
        Ok(count <= most)
    }

    /// Points a track at a location, releasing or keeping the one before.
    pub(super) fn set_track(&mut self, inode: InodeNo, track: TrackNo, location: &Location) -> Result<()> {
        self.set(Table::Track, &track_key(inode, track), location)
    }

    /// Lets a track share the location of another one, which must not be in memory only.
    pub fn share_track(&mut self, inode: InodeNo, track: TrackNo, location: &Location) -> Result<()> {
        self.device.log.share(&mut self.state.meta, location)?;
        self.set_track(inode, track, location)?;
        self.forget.push((inode, track));
        Ok(())
    }

    /// The location of a live track that is stored and not in memory.
    pub fn stored_location(&self, inode: InodeNo, track: TrackNo) -> Result<Option<Location>> {
        match self.state.in_memory(inode, track) {
            Some(_) => Ok(None),
            None => self.state.location(inode, track, Moment::Live),
        }
    }
}
