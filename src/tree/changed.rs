//! Which tracks of which files changed: between two moments, and while one snapshot was active.
//!
//! A track that was replaced or removed has a pre-image, and the increments name it. One that only came into
//! being has none, but it changed the record of its file, and files whose record changed are looked through:
//! only as far as their number of tracks says that there is something to be found. Files that are new or gone
//! are found in the directories that changed.

use super::Tree;
use super::diff::{Spans, order};
use super::inode::{self, Inode, Kind, root_of};
use super::paths::names_of;
use crate::archive::{Increment, Reader};
use crate::device::{
    BaseId, Epoch, InodeNo, Moment, Snapshot, SnapshotState, State, TrackNo, inode_of_key, split_increment,
    split_track_key,
};
use crate::error::{Errno, Error, Result};
use crate::meta::{Table, prefix_end};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};

/// Records read under one lock.
const STEP: usize = 1024;

/// Tracks of one file that differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedTracks {
    pub inode: InodeNo,
    /// One of its paths, relative to the root of the base; empty if none is known.
    #[serde(with = "serde_bytes")]
    pub path: Vec<u8>,
    /// Bytes of the file; `None` if it was not there, or if that is not known any more.
    pub size_before: Option<u64>,
    pub size_after: Option<u64>,
    /// Ascending, and neither overlapping nor touching.
    pub tracks: Vec<Range<TrackNo>>,
    /// The file is new or gone.
    pub is_whole: bool,
}

/// A bit for each of `count` tracks, the lowest of each byte first.
pub fn bitmap(tracks: &[Range<TrackNo>], count: u64) -> Vec<u8> {
    let mut bits = vec![0; count.div_ceil(8) as usize];
    for track in tracks.iter().flat_map(|range| range.start.min(count)..range.end.min(count)) {
        bits[(track / 8) as usize] |= 1 << (track % 8);
    }
    bits
}

fn ranges(tracks: &BTreeSet<TrackNo>) -> Vec<Range<TrackNo>> {
    let mut ranges: Vec<Range<TrackNo>> = Vec::new();
    for &track in tracks {
        match ranges.last_mut() {
            Some(last) if last.end == track => last.end = track + 1,
            _ => ranges.push(track..track + 1),
        }
    }
    ranges
}

/// Inodes of which a record changed, with the tracks that the increments name.
type Touched = BTreeMap<InodeNo, BTreeSet<TrackNo>>;

fn note_key(table: Table, key: &[u8], touched: &mut Touched) {
    if let Some(inode) = inode_of_key(key) {
        let tracks = touched.entry(inode).or_default();
        tracks.extend(split_track_key(key).filter(|_| table == Table::Track).map(|(_, track)| track));
    }
}

/// Notes what an increment outside the store names.
fn note_entries(base: BaseId, increment: &Increment, touched: &mut Touched) -> Result<()> {
    for entry in Reader::open(&increment.path)?.entries() {
        let entry = entry?;
        if let Some(table) = Table::from_number(entry.table) {
            note_key(table, &[&base.to_be_bytes()[..], &entry.key].concat(), touched);
        }
    }
    Ok(())
}

/// What is between two moments.
struct Window {
    base: BaseId,
    early: Moment,
    late: Moment,
    start: Epoch,
    /// An era that is not settled began in it: increments do not name everything.
    has_era: bool,
}

impl Tree {
    /// The tracks that differ between two moments, of each regular file whose bytes may differ, sorted by path.
    /// A file without tracks, which lies in its inode's record, counts as track 0. Of a file that is new or gone
    /// it is all that it has. With a path, only of that file or what is below that directory, in one of the
    /// moments; ENOENT in words if neither has it.
    pub fn changed_tracks(
        &self,
        base: BaseId,
        before: Moment,
        after: Moment,
        path: Option<&[u8]>,
    ) -> Result<Vec<ChangedTracks>> {
        let is_forward = order(before) <= order(after);
        let (early, late) = if is_forward { (before, after) } else { (after, before) };
        let below = path.map(|path| self.check_path(base, path, [before, after])).transpose()?;
        let mut window = Window { base, early, late, start: order(early), has_era: false };
        let touched = self.touched_between(&mut window)?;
        let mut found = Vec::new();
        for (&inode, tracks) in &touched {
            let Some(changed) = self.compare_file(&window, inode, tracks)? else { continue };
            let moments = if is_forward { [late, early] } else { [early, late] };
            if let Some(path) = self.path_below(inode, moments, below.as_deref())? {
                let (size_before, size_after) = match is_forward {
                    true => (changed.size_before, changed.size_after),
                    false => (changed.size_after, changed.size_before),
                };
                found.push(ChangedTracks { path, size_before, size_after, ..changed });
            }
        }
        found.sort_by(|a, b| (&a.path, a.inode).cmp(&(&b.path, b.inode)));
        Ok(found)
    }

    /// The tracks of which old values were kept while a snapshot was active, from its moment to the next
    /// snapshot's: those whose protection has ended. It is known of snapshots that have ended as well. Then
    /// paths are those of the base now, and a size after is known only if the file has not changed since.
    pub fn session_bits(&self, base: BaseId, epoch: Epoch) -> Result<Vec<ChangedTracks>> {
        let mut touched = Touched::new();
        let look = self.device.look()?;
        let snapshot = look.snapshot(base, epoch)?.ok_or(Error::Posix(Errno::STALE))?;
        let end = match archived_increment(&look, &snapshot) {
            Some(increment) => {
                drop(look);
                note_entries(base, &increment, &mut touched)?;
                increment.header.to.epoch
            }
            None => {
                let end = end_of(&look, &snapshot)?;
                let now = look.epoch();
                drop(look);
                // First of all: what is flushed after that is in the increments when they are read.
                if end.is_none() {
                    self.note_memory(base, &mut touched)?;
                }
                self.note_increments(base, epoch, end.unwrap_or(now), &mut touched)?;
                end.unwrap_or(now)
            }
        };
        let mut found = Vec::new();
        for (inode, tracks) in touched {
            found.extend(self.bits_of(&snapshot, end, inode, &tracks)?);
        }
        found.sort_by(|a, b| (&a.path, a.inode).cmp(&(&b.path, b.inode)));
        Ok(found)
    }

    /// A path as it is spelled in results; ENOENT in words if none of the moments has it.
    fn check_path(&self, base: BaseId, path: &[u8], moments: [Moment; 2]) -> Result<Vec<u8>> {
        for moment in moments {
            match self.resolve(base, path, moment) {
                Ok(_) => return Ok(names_of(path).collect::<Vec<_>>().join(&b'/')),
                Err(Error::Posix(Errno::NOENT | Errno::NOTDIR)) => {}
                Err(error) => return Err(error),
            }
        }
        let text = format!("there is no {:?} in either of the moments", String::from_utf8_lossy(path));
        Err(Error::Refused(Errno::NOENT, text))
    }

    /// The first path of an inode that is a directory or lies below it, in the first of the moments that has one.
    fn path_below(&self, inode: InodeNo, moments: [Moment; 2], below: Option<&[u8]>) -> Result<Option<Vec<u8>>> {
        let is_below = |path: &Vec<u8>| match below {
            None | Some(b"") => true,
            Some(below) => path.strip_prefix(below).is_some_and(|rest| rest.is_empty() || rest[0] == b'/'),
        };
        for moment in moments {
            if let Some(path) = self.paths(inode, moment)?.into_iter().find(is_below) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// What changed in a window.
    fn touched_between(&self, window: &mut Window) -> Result<Touched> {
        let Window { base, early, late, start, .. } = *window;
        let end = order(late);
        let mut touched = Touched::new();
        {
            let look = self.device.look()?;
            [early, late].into_iter().try_for_each(|moment| look.check_moment(root_of(base), moment))?;
        }
        if early == late {
            return Ok(touched);
        }
        // First of all: what is flushed after that is in the increments when they are read.
        if late == Moment::Live {
            self.note_memory(base, &mut touched)?;
        }
        let Spans { spans, is_all } = self.spans(base, start, end)?;
        window.has_era = spans.len() > 1 || !is_all;
        for (start, end) in spans {
            self.note_increments(base, start, end, &mut touched)?;
        }
        self.note_archived(window, &mut touched)?;
        if !is_all {
            self.note_all(base, early, &mut touched)?;
            self.note_all(base, late, &mut touched)?;
        }
        self.note_files_of_directories(window, &mut touched)?;
        Ok(touched)
    }

    fn note_memory(&self, base: BaseId, touched: &mut Touched) -> Result<()> {
        for (inode, track) in self.device.look()?.tracks_in_memory(base) {
            touched.entry(inode).or_default().insert(track);
        }
        Ok(())
    }

    /// Notes what the increments after an epoch, up to another, name.
    fn note_increments(&self, base: BaseId, start: Epoch, end: Epoch, touched: &mut Touched) -> Result<()> {
        let key = |epoch: Epoch| [base.to_be_bytes(), epoch.to_be_bytes()].concat();
        let mut from = key(start + 1);
        let to = key(end + 1);
        loop {
            let look = self.device.look()?;
            let mut last = None;
            let mut count = 0;
            for pair in look.meta().range(Table::Increment, &from, &to)?.take(STEP) {
                let (full, _) = pair?;
                let (table, key, _) = split_increment(&full)?;
                note_key(table, &key, touched);
                count += 1;
                last = Some(full);
            }
            match last {
                Some(last) if count == STEP => from = [&last[..], &[0]].concat(),
                _ => return Ok(()),
            }
        }
    }

    /// Notes what increments outside the store name, where one of the moments needs them.
    fn note_archived(&self, window: &Window, touched: &mut Touched) -> Result<()> {
        let (archive, is_needed) = {
            let look = self.device.look()?;
            let is_archived = |moment| look.is_archived(root_of(window.base), moment);
            (look.archive(window.base), is_archived(window.early)? || is_archived(window.late)?)
        };
        let Some(archive) = archive.filter(|_| is_needed) else { return Ok(()) };
        let epochs = window.start..order(window.late);
        for increment in archive.increments().iter().filter(|found| epochs.contains(&found.header.from.epoch)) {
            note_entries(window.base, increment, touched)?;
        }
        Ok(())
    }

    /// Notes all inodes of a moment.
    fn note_all(&self, base: BaseId, moment: Moment, touched: &mut Touched) -> Result<()> {
        let mut from = base.to_be_bytes().to_vec();
        let to = prefix_end(&from);
        loop {
            let look = self.device.look()?;
            look.check_moment(root_of(base), moment)?;
            let mut next = None;
            let mut count = 0;
            look.scan(Table::Inode, &from, &to, moment, |key, _| {
                if count == STEP {
                    next = Some(key.to_vec());
                    return Ok(ControlFlow::Break(()));
                }
                count += 1;
                touched.extend(inode_of_key(key).map(|inode| (inode, BTreeSet::new())));
                Ok(ControlFlow::Continue(()))
            })?;
            match next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    /// Notes files that directories gained or lost, and all that is in directories that they gained or lost.
    fn note_files_of_directories(&self, window: &Window, touched: &mut Touched) -> Result<()> {
        let mut directories: Vec<InodeNo> = touched.keys().copied().collect();
        let mut seen: BTreeSet<InodeNo> = directories.iter().copied().collect();
        while let Some(directory) = directories.pop() {
            let (old, new) = (self.entries_of(directory, window.early)?, self.entries_of(directory, window.late)?);
            for &(inode, kind) in old.symmetric_difference(&new) {
                match kind {
                    Kind::File => {
                        touched.entry(inode).or_default();
                    }
                    Kind::Directory if seen.insert(inode) => directories.push(inode),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// What is in a directory at a moment; nothing if it is not there, or something else.
    fn entries_of(&self, directory: InodeNo, moment: Moment) -> Result<BTreeSet<(InodeNo, Kind)>> {
        let mut entries = BTreeSet::new();
        if self.inode_or_none(directory, moment)?.is_some_and(|found| found.is_directory()) {
            self.list(directory, 0, moment, |entry| {
                entries.insert((entry.inode, entry.kind));
                Ok(true)
            })?;
        }
        Ok(entries)
    }

    /// How a file differs, with its sizes at the early and the late moment; without its path.
    fn compare_file(
        &self,
        window: &Window,
        inode: InodeNo,
        tracks: &BTreeSet<TrackNo>,
    ) -> Result<Option<ChangedTracks>> {
        let file = |moment| -> Result<Option<Inode>> {
            Ok(self.inode_or_none(inode, moment)?.filter(|found| found.kind() == Kind::File))
        };
        let (old, new) = (file(window.early)?, file(window.late)?);
        let is_whole = old.is_some() != new.is_some();
        let (size_before, size_after) = (old.as_ref().map(|old| old.size), new.as_ref().map(|new| new.size));
        let tracks = match (old, new) {
            (Some(old), Some(new)) => self.differing_tracks(window, inode, (&old, &new), tracks)?,
            (Some(gone), None) => self.all_tracks(inode, &gone, window.early)?,
            (None, Some(made)) => self.all_tracks(inode, &made, window.late)?,
            (None, None) => return Ok(None),
        };
        let differs = is_whole || size_before != size_after || !tracks.is_empty();
        let tracks = ranges(&tracks);
        let changed = ChangedTracks { inode, path: Vec::new(), size_before, size_after, tracks, is_whole };
        Ok(differs.then_some(changed))
    }

    /// The tracks of a file that differ, `tracks` among them being those that are known to have been touched.
    fn differing_tracks(
        &self,
        window: &Window,
        inode: InodeNo,
        (old, new): (&Inode, &Inode),
        tracks: &BTreeSet<TrackNo>,
    ) -> Result<BTreeSet<TrackNo>> {
        let mut differing = BTreeSet::new();
        // Tracks that were only moved to another place have not changed.
        if old == new {
            return Ok(differing);
        }
        if old.inline != new.inline {
            differing.insert(0);
        }
        let mut tracks = tracks.clone();
        if window.has_era {
            for moment in [window.early, window.late] {
                tracks.extend(self.tracks_born(inode, 0..TrackNo::MAX, moment, 0)?);
            }
        }
        // Tracks that came into being and are not among those touched.
        let mut missing = new.tracks as i64 - old.tracks as i64;
        let touched: Vec<TrackNo> = tracks.iter().copied().collect();
        for piece in touched.chunks(STEP) {
            let look = self.device.look()?;
            for moment in [window.early, window.late] {
                look.check_moment(inode, moment)?;
            }
            for &track in piece {
                let before = look.track_at(inode, track, window.early)?;
                let after = look.track_at(inode, track, window.late)?;
                let is_dirty = window.late == Moment::Live && look.is_in_memory(&(inode, track));
                missing -= i64::from(is_dirty || after.is_some()) - i64::from(before.is_some());
                let is_same = match (&before, &after) {
                    (Some(before), Some(after)) => before.is_same(after),
                    (None, None) => true,
                    _ => false,
                };
                if is_dirty || !is_same {
                    differing.insert(track);
                }
            }
        }
        // Most files grow at their end.
        let end = old.size.div_ceil(self.device.track_bytes());
        for range in [end..TrackNo::MAX, 0..end] {
            if missing > 0 && !window.has_era {
                let born = self.tracks_born(inode, range, window.late, window.start)?;
                let born = born.difference(&tracks).copied();
                missing -= born.clone().count() as i64;
                differing.extend(born);
            }
        }
        Ok(differing)
    }

    /// All tracks that a file has.
    fn all_tracks(&self, inode: InodeNo, found: &Inode, moment: Moment) -> Result<BTreeSet<TrackNo>> {
        if !found.inline.is_empty() {
            return Ok([0].into());
        }
        if found.tracks == 0 {
            return Ok(BTreeSet::new());
        }
        self.tracks_born(inode, 0..TrackNo::MAX, moment, 0)
    }

    /// The tracks of a range that were born after an epoch.
    fn tracks_born(
        &self,
        inode: InodeNo,
        range: Range<TrackNo>,
        moment: Moment,
        after: Epoch,
    ) -> Result<BTreeSet<TrackNo>> {
        let mut born = BTreeSet::new();
        let mut from = range.start;
        loop {
            let look = self.device.look()?;
            look.check_moment(inode, moment)?;
            let (piece, next) = look.tracks_born(inode, from..range.end, moment, after)?;
            born.extend(piece);
            match next {
                Some(next) => from = next,
                None => return Ok(born),
            }
        }
    }

    /// The tracks of a file that a snapshot has and that were touched up to an epoch.
    fn bits_of(
        &self,
        snapshot: &Snapshot,
        end: Epoch,
        inode: InodeNo,
        tracks: &BTreeSet<TrackNo>,
    ) -> Result<Option<ChangedTracks>> {
        let mut bits = BTreeSet::new();
        // The read rule holds for a snapshot that has ended as well, for what changed while it was active.
        let then = Moment::At(snapshot.epoch);
        let (old, new, now) = {
            let look = self.device.look()?;
            let find = |moment| inode::find(&look, inode, moment);
            (find(then)?, find(Moment::At(end))?, find(Moment::Live)?)
        };
        if old.as_ref().is_some_and(|old| old.kind() != Kind::File) {
            return Ok(None);
        }
        for piece in tracks.iter().copied().collect::<Vec<_>>().chunks(STEP) {
            let look = self.device.look()?;
            for &track in piece {
                if look.track_at(inode, track, then)?.is_some() {
                    bits.insert(track);
                }
            }
        }
        let last_known = new.as_ref().or(now.as_ref());
        if let Some(old) = &old
            && !old.inline.is_empty()
            && last_known.is_none_or(|last| last.inline != old.inline)
        {
            bits.insert(0);
        }
        if bits.is_empty() {
            return Ok(None);
        }
        let mut moments = vec![Moment::Live];
        if snapshot.is_readable() {
            moments.insert(0, then);
        }
        let mut path = None;
        for moment in moments {
            path = path.or(self.paths(inode, moment)?.into_iter().next());
        }
        let is_there = |found: &Inode| found.links > 0;
        Ok(Some(ChangedTracks {
            inode,
            path: path.unwrap_or_default(),
            size_before: old.as_ref().map(|old| old.size),
            size_after: new.as_ref().filter(|new| is_there(new)).map(|new| new.size),
            tracks: ranges(&bits),
            is_whole: !last_known.is_some_and(is_there),
        }))
    }
}

/// The increment of a snapshot that only an archive has.
fn archived_increment(state: &State, snapshot: &Snapshot) -> Option<Increment> {
    let archive = state.archive(snapshot.base).filter(|_| snapshot.is_archived)?;
    archive.increments().into_iter().find(|increment| increment.header.from.epoch == snapshot.epoch)
}

/// Where the increment of a snapshot ends; `None` if it goes on.
fn end_of(state: &State, snapshot: &Snapshot) -> Result<Option<Epoch>> {
    let mut next = state.snapshot_after(snapshot.base, snapshot.epoch)?;
    while let Some(found) = next.take_if(|found| found.record.deleting) {
        next = state.snapshot_after(snapshot.base, found.epoch)?;
    }
    let ended = match snapshot.record.state {
        SnapshotState::Ended(end) => Some(end.saturating_sub(1)),
        SnapshotState::Active | SnapshotState::Deactivated => None,
    };
    Ok([next.map(|next| next.epoch), ended].into_iter().flatten().min())
}
