//! The increment of a snapshot: what changed from its moment to the next one's, or until its protection ended.
//!
//! Of a snapshot that can be looked into this is the difference of two moments. One that has ended shows no more,
//! and what changed while it was active is put together from what is left of it:
//! - the increments name every record that was replaced or removed;
//! - what came into being has a birth in these epochs, now or in the snapshots behind;
//! - of what went since, the table `passed` says so.
//!
//! The *saved tracks* are those whose old values were kept.

use super::tracks::{ChangedTracks, TrackChanges, TracksNamed, note, ranges};
use crate::archive::{Archive, Increment};
use crate::clock::Epoch;
use crate::device::{
    BaseId, Increments, InodeNo, Moment, Snapshot, SnapshotState, State, TrackNo, each_named_in, split_track_key,
    track_key,
};
use crate::error::{Errno, Error, Result};
use crate::meta::{Table, decode, prefix_end};
use crate::tree::inode::{self, Inode, Kind};
use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// Records read under one lock.
const STEP: usize = 1024;

/// Which epochs a snapshot's increment covers.
struct Extent {
    snapshot: Snapshot,
    /// The last epoch; that of the next snapshot where there is one.
    end: Epoch,
    /// The moment at the end, if that can be looked into.
    moment: Option<Moment>,
    /// It goes on.
    is_open: bool,
    archived: Option<(Arc<Archive>, Increment)>,
}

/// The increment of a snapshot that only an archive has.
fn archived_increment(state: &State, snapshot: &Snapshot) -> Option<(Arc<Archive>, Increment)> {
    let archive = state.archive(snapshot.base).filter(|_| snapshot.is_archived)?;
    let increment = archive.increment_from(snapshot.epoch)?;
    Some((archive, increment))
}

fn extent(state: &State, base: BaseId, epoch: Epoch) -> Result<Extent> {
    let snapshot = state.moments().snapshot(base, epoch)?.ok_or(Error::Gone)?;
    let at = |epoch| -> Result<Option<Moment>> {
        Ok(state.moments().snapshot(base, epoch)?.filter(Snapshot::is_readable).map(|found| Moment::At(found.epoch)))
    };
    if let Some(archived) = archived_increment(state, &snapshot) {
        let end = archived.1.header.to.epoch;
        let (archived, moment) = (Some(archived), at(end)?);
        return Ok(Extent { snapshot, end, moment, is_open: false, archived });
    }
    let mut next = state.moments().snapshot_after(base, epoch)?;
    while let Some(found) = next.take_if(|found| found.record.deleting) {
        next = state.moments().snapshot_after(base, found.epoch)?;
    }
    let next = next.map(|next| next.epoch);
    let archived = None;
    Ok(match (snapshot.record.state, next) {
        (SnapshotState::Ended(ended), _) => {
            let end = next.unwrap_or(Epoch::MAX).min(ended.before());
            Extent { snapshot, end, moment: None, is_open: false, archived }
        }
        (_, Some(end)) => Extent { snapshot, end, moment: at(end)?, is_open: false, archived },
        (_, None) => Extent { snapshot, end: state.epoch(), moment: Some(Moment::Live), is_open: true, archived },
    })
}

impl TrackChanges<'_> {
    /// The tracks that changed while a snapshot was the newest: from its moment to the next one's, to now if there is
    /// none, or to where its protection ended. It is known of snapshots that have ended as well: then paths are those
    /// of the base now, a size after is known only if the file has not changed since, and what was written and
    /// removed again is told. With a path, only of that file or what is below that directory.
    pub fn session_bits(self, base: BaseId, epoch: Epoch, path: Option<&[u8]>) -> Result<Vec<ChangedTracks>> {
        let extent = extent(&*self.tree.device.look()?, base, epoch)?;
        if let (true, Some(end)) = (extent.snapshot.is_readable(), extent.moment) {
            return self.changed_tracks(base, Moment::At(epoch), end, path);
        }
        let mut changed = self.changed_in(&extent)?;
        self.note_born(&extent, &mut changed)?;
        self.increment_of(&extent, changed, path, true, |_, _| Ok(true))
    }

    /// The tracks of which old values were kept while a snapshot was active: what its increment holds.
    pub fn saved_tracks(self, base: BaseId, epoch: Epoch, path: Option<&[u8]>) -> Result<Vec<ChangedTracks>> {
        let extent = extent(&*self.tree.device.look()?, base, epoch)?;
        let changed = self.changed_in(&extent)?;
        let then = Moment::At(epoch);
        self.increment_of(&extent, changed, path, false, |look, (inode, track)| {
            Ok(look.chronicle().track_at(inode.at(then), track)?.is_some())
        })
    }

    /// The old bytes of a range of a file that a snapshot's increment has kept; fewer at the end of the file. ENODATA
    /// in words if a track of the range is not in the increment.
    pub fn read_saved(self, epoch: Epoch, inode: InodeNo, range: Range<u64>) -> Result<Vec<u8>> {
        let extent = extent(&*self.tree.device.look()?, inode.base(), epoch)?;
        let then = Moment::At(epoch);
        let old = inode::find(&*self.tree.device.look()?, inode.at(then))?.filter(|old| old.kind() == Kind::File);
        if let Some(old) = old.as_ref().filter(|old| !old.inline.is_empty() && range.start < old.size) {
            self.check_saved(&extent, Table::Inode, &inode::key(inode), TrackNo::FIRST)?;
            let bytes =
                [old.inline.as_slice(), &vec![0; (old.size as usize).saturating_sub(old.inline.len())]].concat();
            let end = (range.end.min(bytes.len() as u64)) as usize;
            return Ok(bytes.get(range.start as usize..end).unwrap_or_default().to_vec());
        }
        let track_bytes = self.tree.device.track_bytes();
        let end = old.map_or(range.end, |old| range.end.min(old.size));
        let mut bytes = Vec::new();
        let mut at = range.start;
        if at >= end {
            let track = TrackNo::of(at, track_bytes);
            self.check_saved(&extent, Table::Track, &track_key(inode, track), track)?;
        }
        while at < end {
            let track = TrackNo::of(at, track_bytes);
            self.check_saved(&extent, Table::Track, &track_key(inode, track), track)?;
            let until = end.min(track.next().start(track_bytes));
            let part = (at % track_bytes) as usize..(until - track.start(track_bytes)) as usize;
            let source = {
                let look = self.tree.device.look()?;
                self.tree.device.source(&look, inode.at(then), track)?
            };
            let before = bytes.len();
            bytes.resize(before + part.len(), 0);
            self.tree.device.read_part(source, inode.at(then), track, part, &mut bytes[before..])?;
            at = until;
        }
        Ok(bytes)
    }

    /// That an increment has the old value of a record, which lies in a track of its file.
    fn check_saved(self, extent: &Extent, table: Table, key: &[u8], track: TrackNo) -> Result<()> {
        if self.tree.device.look()?.is_saved(table, key, extent.snapshot.epoch, extent.end)? {
            return Ok(());
        }
        let (at, len) = (track.start(self.tree.device.track_bytes()), self.tree.device.track_bytes());
        let text = format!(
            "the {len} bytes from {at} on are not in the increment of {:?}: they were not there, or did not change \
             while it was active",
            extent.snapshot.record.name
        );
        Err(Error::Refused(Errno::NODATA, text))
    }

    /// Records that were replaced or removed in the epochs of an increment.
    fn changed_in(self, extent: &Extent) -> Result<TracksNamed> {
        let mut changed = TracksNamed::new();
        let base = extent.snapshot.base;
        if let Some((archive, increment)) = &extent.archived {
            each_named_in(base, archive, increment, &mut |named| {
                note(named, &mut changed);
                Ok(())
            })?;
            return Ok(changed);
        }
        // First of all: what is flushed after that is in the increments when they are read.
        if extent.is_open {
            self.note_memory(base, &mut changed)?;
        }
        self.note_all_of(Increments::between(base, extent.snapshot.epoch, extent.end), &mut changed)?;
        Ok(changed)
    }

    /// Tracks, and small files, that came into being in the epochs of an increment that has ended.
    fn note_born(self, extent: &Extent, changed: &mut TracksNamed) -> Result<()> {
        let Extent { snapshot: Snapshot { base, epoch, .. }, end, .. } = *extent;
        self.note_all_of(Increments::passed(base, epoch, end), changed)?;
        for table in [Table::Track, Table::Inode] {
            let mut from = base.prefix().to_vec();
            let to = prefix_end(&from);
            loop {
                let look = self.tree.device.look()?;
                let mut next = None;
                let mut count = 0;
                look.records(table, &from, &to, Moment::At(end), |key, birth, value| {
                    if count == STEP {
                        next = Some(key.to_vec());
                        return Ok(ControlFlow::Break(()));
                    }
                    count += 1;
                    let Some(inode) = InodeNo::of_key(key).filter(|_| birth > epoch) else {
                        return Ok(ControlFlow::Continue(()));
                    };
                    match table {
                        Table::Track => {
                            changed.entry(inode).or_default().extend(split_track_key(key).map(|(_, track)| track));
                        }
                        _ => {
                            let found: Inode = decode(table, key, value)?;
                            if found.kind() == Kind::File {
                                changed.entry(inode).or_default();
                            }
                        }
                    }
                    Ok(ControlFlow::Continue(()))
                })?;
                match next {
                    Some(next) => from = next,
                    None => break,
                }
            }
        }
        Ok(())
    }

    /// Of the tracks that were changed those that are wanted, each file's with its path.
    fn increment_of(
        self,
        extent: &Extent,
        changed: TracksNamed,
        path: Option<&[u8]>,
        with_new: bool,
        is_wanted: impl Fn(&State, (InodeNo, TrackNo)) -> Result<bool>,
    ) -> Result<Vec<ChangedTracks>> {
        let snapshot = &extent.snapshot;
        let then = Moment::At(snapshot.epoch);
        let moments = [if snapshot.is_readable() { then } else { Moment::Live }, Moment::Live];
        let below = path.map(|path| self.check_path(snapshot.base, path, moments)).transpose()?;
        let mut all = Vec::new();
        for (inode, tracks) in changed {
            let (old, new, now) = {
                let look = self.tree.device.look()?;
                let find = |moment| inode::find(&look, inode.at(moment));
                (find(then)?, find(Moment::At(extent.end))?, find(Moment::Live)?)
            };
            let known = [&old, &new, &now].into_iter().flatten().next();
            if known.is_some_and(|known| known.kind() != Kind::File) {
                continue;
            }
            let mut bits = BTreeSet::new();
            for piece in tracks.into_iter().collect::<Vec<_>>().chunks(STEP) {
                let look = self.tree.device.look()?;
                for &track in piece {
                    if is_wanted(&look, (inode, track))? {
                        bits.insert(track);
                    }
                }
            }
            let last = new.as_ref().or(now.as_ref());
            let inline = |found: Option<&Inode>| found.map(|found| found.inline.clone()).unwrap_or_default();
            if inline(old.as_ref()) != inline(last) && (!inline(old.as_ref()).is_empty() || with_new && old.is_none()) {
                bits.insert(TrackNo::FIRST);
            }
            if bits.is_empty() {
                continue;
            }
            let path = self.path_below(inode, moments, below.as_deref())?;
            if path.is_none() && below.is_some() {
                continue;
            }
            let is_there = |found: &Inode| found.links > 0;
            all.push(ChangedTracks {
                inode,
                path: path.unwrap_or_default(),
                size_before: old.as_ref().map(|old| old.size),
                size_after: new.as_ref().filter(|new| is_there(new)).map(|new| new.size),
                tracks: ranges(&bits),
                is_whole: old.is_none() || !last.is_some_and(is_there),
            });
        }
        all.sort_by(|a, b| (&a.path, a.inode).cmp(&(&b.path, b.inode)));
        Ok(all)
    }
}
