//! Which tracks of which files changed between two moments.
//!
//! A track that was replaced or removed has a pre-image, and the increments name it. One that only came into
//! being has none, but it changed the record of its file, and files whose record changed are looked through:
//! only as far as their number of tracks says that there is something to be found. Files that are new or gone
//! are found in the directories that changed.

use super::diff::{Spans, order};
use crate::clock::Epoch;
use crate::device::{BaseId, Increments, InodeAt, InodeNo, Moment, Named, TrackNo, each_named, each_named_outside};
use crate::error::{Errno, Error, Result};
use crate::limits::BLOCK_BYTES;
use crate::meta::{Table, prefix_end};
use crate::shown::shown;
use crate::tree::Tree;
use crate::tree::inode::{Inode, Kind, root_of};
use crate::tree::paths::names_of;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};

/// Records read under one lock.
const STEP: usize = 1024;

/// Tracks of one file that differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedTracks {
    pub inode: InodeNo,
    /// One of its paths, relative to the root of the base; empty if none is known.
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
pub fn bitmap(tracks: &[Range<u64>], count: u64) -> Vec<u8> {
    let mut bits = vec![0; count.div_ceil(8) as usize];
    for track in tracks.iter().flat_map(|range| range.start.min(count)..range.end.min(count)) {
        bits[(track / 8) as usize] |= 1 << (track % 8);
    }
    bits
}

pub(super) fn ranges(tracks: &BTreeSet<TrackNo>) -> Vec<Range<TrackNo>> {
    let mut ranges: Vec<Range<TrackNo>> = Vec::new();
    for &track in tracks {
        match ranges.last_mut() {
            Some(last) if last.end == track => last.end = track.next(),
            _ => ranges.push(track..track.next()),
        }
    }
    ranges
}

/// Inodes of which a record changed, with the tracks that the increments name.
pub(super) type TracksNamed = BTreeMap<InodeNo, BTreeSet<TrackNo>>;

/// Notes what an increment names.
pub(super) fn note(named: &Named, changed: &mut TracksNamed) {
    if let Some(inode) = named.inode() {
        changed.entry(inode).or_default().extend(named.track());
    }
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

/// Tracks that changed between moments.
#[derive(Clone, Copy)]
pub struct TrackChanges<'a> {
    pub(in crate::tree) tree: &'a Tree,
}

impl TrackChanges<'_> {
    /// The tracks that differ between two moments, of each regular file whose bytes may differ, sorted by path.
    /// A file without tracks, which lies in its inode's record, counts as track 0. Of a file that is new or gone
    /// it is all that it has. With a path, only of that file or what is below that directory, in one of the
    /// moments; ENOENT in words if neither has it.
    pub fn changed_tracks(
        self,
        base: BaseId,
        before: Moment,
        after: Moment,
        path: Option<&[u8]>,
    ) -> Result<Vec<ChangedTracks>> {
        let is_forward = order(before) <= order(after);
        let (early, late) = if is_forward { (before, after) } else { (after, before) };
        let below = path.map(|path| self.check_path(base, path, [before, after])).transpose()?;
        let mut window = Window { base, early, late, start: order(early), has_era: false };
        let changed = self.changed_between(&mut window)?;
        let mut found = Vec::new();
        for (&inode, tracks) in &changed {
            let Some(file) = self.compare_file(&window, inode, tracks)? else { continue };
            let moments = if is_forward { [late, early] } else { [early, late] };
            if let Some(path) = self.path_below(inode, moments, below.as_deref())? {
                let (size_before, size_after) = match is_forward {
                    true => (file.size_before, file.size_after),
                    false => (file.size_after, file.size_before),
                };
                found.push(ChangedTracks { path, size_before, size_after, ..file });
            }
        }
        found.sort_by(|a, b| (&a.path, a.inode).cmp(&(&b.path, b.inode)));
        Ok(found)
    }

    /// Bytes that those tracks take which differ between two moments of a base, as they are in a base at a moment.
    pub fn changed_bytes(
        self,
        base: BaseId,
        before: Moment,
        after: Moment,
        (of, moment): (BaseId, Moment),
    ) -> Result<u64> {
        let mut bytes = 0;
        for file in self.changed_tracks(base, before, after, None)? {
            let inode = file.inode.in_base(of);
            for piece in file.tracks.into_iter().flat_map(TrackNo::each).collect::<Vec<_>>().chunks(STEP) {
                let look = self.tree.device.look()?;
                for &track in piece {
                    bytes += match look.pointer(inode.at(moment), track)? {
                        _ if moment == Moment::Live && look.tracks().is_in_memory(&(inode, track)) => {
                            self.tree.device.track_bytes()
                        }
                        Some((pointer, _)) => pointer.blocks() * BLOCK_BYTES as u64,
                        None => 0,
                    };
                }
            }
        }
        Ok(bytes)
    }

    /// A path as it is spelled in results; ENOENT in words if none of the moments has it.
    pub(super) fn check_path(self, base: BaseId, path: &[u8], moments: [Moment; 2]) -> Result<Vec<u8>> {
        for moment in moments {
            match self.tree.names().resolve(base, path, moment) {
                Ok(_) => return Ok(names_of(path).collect::<Vec<_>>().join(&b'/')),
                Err(Error::Posix(Errno::NOENT | Errno::NOTDIR)) => {}
                Err(error) => return Err(error),
            }
        }
        let text = format!("there is no {:?} in either of the moments", shown(path));
        Err(Error::Refused(Errno::NOENT, text))
    }

    /// The first path of an inode that is a directory or lies below it, in the first of the moments that has one.
    pub(super) fn path_below(
        self,
        inode: InodeNo,
        moments: [Moment; 2],
        below: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>> {
        let is_below = |path: &Vec<u8>| match below {
            None | Some(b"") => true,
            Some(below) => path.strip_prefix(below).is_some_and(|rest| rest.is_empty() || rest[0] == b'/'),
        };
        for moment in moments {
            if let Some(path) = self.tree.names().paths(inode.at(moment))?.into_iter().find(is_below) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// What changed in a window.
    fn changed_between(self, window: &mut Window) -> Result<TracksNamed> {
        let Window { base, early, late, start, .. } = *window;
        let end = order(late);
        let mut changed = TracksNamed::new();
        {
            let look = self.tree.device.look()?;
            [early, late].into_iter().try_for_each(|moment| look.moments().check(root_of(base).at(moment)))?;
        }
        if early == late {
            return Ok(changed);
        }
        // First of all: what is flushed after that is in the increments when they are read.
        if late == Moment::Live {
            self.note_memory(base, &mut changed)?;
        }
        let Spans { spans, is_all } = self.tree.comparison().spans(base, start, end)?;
        window.has_era = spans.len() > 1 || !is_all;
        for (start, end) in spans {
            self.note_all_of(Increments::between(base, start, end), &mut changed)?;
        }
        each_named_outside(&self.tree.device, base, &[early, late], start..end, &mut |named| {
            note(named, &mut changed);
            Ok(())
        })?;
        if !is_all {
            self.note_all(base, early, &mut changed)?;
            self.note_all(base, late, &mut changed)?;
        }
        self.note_files_of_directories(window, &mut changed)?;
        Ok(changed)
    }

    pub(super) fn note_memory(self, base: BaseId, changed: &mut TracksNamed) -> Result<()> {
        for (inode, track) in self.tree.device.look()?.tracks().tracks_in_memory(base) {
            changed.entry(inode).or_default().insert(track);
        }
        Ok(())
    }

    /// Notes what a walk names.
    pub(super) fn note_all_of(self, walk: Increments, changed: &mut TracksNamed) -> Result<()> {
        each_named(&self.tree.device, walk, &mut |named| {
            note(named, changed);
            Ok(())
        })
    }

    /// Notes all inodes of a moment.
    fn note_all(self, base: BaseId, moment: Moment, changed: &mut TracksNamed) -> Result<()> {
        let mut from = base.prefix().to_vec();
        let to = prefix_end(&from);
        loop {
            let look = self.tree.device.look()?;
            look.moments().check(root_of(base).at(moment))?;
            let mut next = None;
            let mut count = 0;
            look.scan(Table::Inode, &from, &to, moment, |key, _| {
                if count == STEP {
                    next = Some(key.to_vec());
                    return Ok(ControlFlow::Break(()));
                }
                count += 1;
                changed.extend(InodeNo::of_key(key).map(|inode| (inode, BTreeSet::new())));
                Ok(ControlFlow::Continue(()))
            })?;
            match next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    /// Notes files that directories gained or lost, and all that is in directories that they gained or lost.
    fn note_files_of_directories(self, window: &Window, changed: &mut TracksNamed) -> Result<()> {
        let mut directories: Vec<InodeNo> = changed.keys().copied().collect();
        let mut seen: BTreeSet<InodeNo> = directories.iter().copied().collect();
        while let Some(directory) = directories.pop() {
            let (old, new) =
                (self.entries_of(directory.at(window.early))?, self.entries_of(directory.at(window.late))?);
            for &(inode, kind) in old.symmetric_difference(&new) {
                match kind {
                    Kind::File => {
                        changed.entry(inode).or_default();
                    }
                    Kind::Directory if seen.insert(inode) => directories.push(inode),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// What is in a directory at a moment; nothing if it is not there, or something else.
    fn entries_of(self, directory: InodeAt) -> Result<BTreeSet<(InodeNo, Kind)>> {
        let mut entries = BTreeSet::new();
        if self.tree.comparison().inode_or_none(directory)?.is_some_and(|found| found.is_directory()) {
            self.tree.names().list(directory, 0, |entry| {
                entries.insert((entry.inode, entry.kind));
                Ok(true)
            })?;
        }
        Ok(entries)
    }

    /// How a file differs, with its sizes at the early and the late moment; without its path.
    fn compare_file(
        self,
        window: &Window,
        inode: InodeNo,
        tracks: &BTreeSet<TrackNo>,
    ) -> Result<Option<ChangedTracks>> {
        let file = |moment| -> Result<Option<Inode>> {
            Ok(self.tree.comparison().inode_or_none(inode.at(moment))?.filter(|found| found.kind() == Kind::File))
        };
        let (old, new) = (file(window.early)?, file(window.late)?);
        let is_whole = old.is_some() != new.is_some();
        let (size_before, size_after) = (old.as_ref().map(|old| old.size), new.as_ref().map(|new| new.size));
        let tracks = match (old, new) {
            (Some(old), Some(new)) => self.differing_tracks(window, inode, (&old, &new), tracks)?,
            (Some(gone), None) => self.all_tracks(inode.at(window.early), &gone)?,
            (None, Some(made)) => self.all_tracks(inode.at(window.late), &made)?,
            (None, None) => return Ok(None),
        };
        let differs = is_whole || size_before != size_after || !tracks.is_empty();
        let tracks = ranges(&tracks);
        let changed = ChangedTracks { inode, path: Vec::new(), size_before, size_after, tracks, is_whole };
        Ok(differs.then_some(changed))
    }

    /// The tracks of a file that differ, `tracks` among them being those that are known to have been changed.
    fn differing_tracks(
        self,
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
            differing.insert(TrackNo::FIRST);
        }
        let mut tracks = tracks.clone();
        if window.has_era {
            for moment in [window.early, window.late] {
                tracks.extend(self.tracks_born(inode.at(moment), TrackNo::ALL, Epoch::ZERO)?);
            }
        }
        // Tracks that came into being and are not among those changed.
        let mut missing = new.tracks as i64 - old.tracks as i64;
        let changed: Vec<TrackNo> = tracks.iter().copied().collect();
        for piece in changed.chunks(STEP) {
            let look = self.tree.device.look()?;
            for moment in [window.early, window.late] {
                look.moments().check(inode.at(moment))?;
            }
            for &track in piece {
                let before = look.chronicle().track_at(inode.at(window.early), track)?;
                let after = look.chronicle().track_at(inode.at(window.late), track)?;
                let is_dirty = window.late == Moment::Live && look.tracks().is_in_memory(&(inode, track));
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
        let end = TrackNo::behind(old.size, self.tree.device.track_bytes());
        for range in [end..TrackNo::MAX, TrackNo::FIRST..end] {
            if missing > 0 && !window.has_era {
                let born = self.tracks_born(inode.at(window.late), range, window.start)?;
                let born = born.difference(&tracks).copied();
                missing -= born.clone().count() as i64;
                differing.extend(born);
            }
        }
        Ok(differing)
    }

    /// All tracks that a file has.
    fn all_tracks(self, at: InodeAt, found: &Inode) -> Result<BTreeSet<TrackNo>> {
        if !found.inline.is_empty() {
            return Ok([TrackNo::FIRST].into());
        }
        if found.tracks == 0 {
            return Ok(BTreeSet::new());
        }
        self.tracks_born(at, TrackNo::ALL, Epoch::ZERO)
    }

    /// The tracks of a range that were born after an epoch.
    fn tracks_born(self, at: InodeAt, range: Range<TrackNo>, after: Epoch) -> Result<BTreeSet<TrackNo>> {
        let mut born = BTreeSet::new();
        let mut from = range.start;
        loop {
            let look = self.tree.device.look()?;
            look.moments().check(at)?;
            let (piece, next) = look.tracks().tracks_born(at, from..range.end, after)?;
            born.extend(piece);
            match next {
                Some(next) => from = next,
                None => return Ok(born),
            }
        }
    }
}
