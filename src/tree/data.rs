//! The bytes of files: reading, writing, changing the size, making holes and finding them.

use super::inode::{self, Inode};
use super::{Sent, Tree};
use crate::device::{InodeAt, InodeNo, Note, Source, TrackNo, Txn};
use crate::error::{Errno, Error, Result};
use crate::limits::*;
use serde_bytes::ByteBuf;
use std::ops::Range;
use std::sync::Arc;

/// Tracks that a search for a hole walks under one lock.
const SEEK_TRACKS: u64 = 1 << 16;

/// What a track holds, fetched before the transaction that needs it.
type Before = Option<Arc<Vec<u8>>>;

/// Bytes that are asked for.
enum Found {
    Bytes(Vec<u8>),
    /// Which there are, and what is to be read for them.
    Tracks(Range<u64>, Vec<(TrackNo, Source)>),
}

/// The bytes of files.
#[derive(Clone, Copy)]
pub struct Files<'a> {
    pub(super) tree: &'a Tree,
}

impl Files<'_> {
    pub(super) fn tracks_of(self, bytes: Range<u64>) -> Range<TrackNo> {
        let size = self.tree.device.track_bytes();
        TrackNo::of(bytes.start, size)..TrackNo::behind(bytes.end, size)
    }

    /// The part of a byte range that lies in one track, relative to its start.
    pub(super) fn part_of(self, bytes: &Range<u64>, track: TrackNo) -> Range<usize> {
        let start = track.start(self.tree.device.track_bytes());
        let end = start + self.tree.device.track_bytes();
        (bytes.start.max(start) - start) as usize..(bytes.end.min(end) - start) as usize
    }

    /// Reads up to `len` bytes; fewer only at the end of the file.
    pub fn read(self, at: InodeAt, offset: u64, len: usize) -> Result<Vec<u8>> {
        match self.find_bytes(at, offset, len)? {
            Found::Bytes(bytes) => Ok(bytes),
            Found::Tracks(bytes, sources) => {
                let mut out = vec![0; (bytes.end - bytes.start) as usize];
                self.fill(&mut out, at, &bytes, sources)?;
                Ok(out)
            }
        }
    }

    /// Reads as many bytes as there is room for, fewer only at the end of the file; how many. If that fails there may be anything
    /// in `out`.
    pub fn read_into(self, at: InodeAt, offset: u64, out: &mut [u8]) -> Result<usize> {
        match self.find_bytes(at, offset, out.len())? {
            Found::Bytes(bytes) => {
                out[..bytes.len()].copy_from_slice(&bytes);
                Ok(bytes.len())
            }
            Found::Tracks(bytes, sources) => {
                let len = (bytes.end - bytes.start) as usize;
                self.fill(&mut out[..len], at, &bytes, sources)?;
                Ok(len)
            }
        }
    }

    fn find_bytes(self, at: InodeAt, offset: u64, len: usize) -> Result<Found> {
        let look = self.tree.device.look()?;
        look.moments().check(at)?;
        let found = inode::load_file(&look, at)?;
        let end = found.size.min(offset.saturating_add(len as u64));
        if offset >= end {
            return Ok(Found::Bytes(Vec::new()));
        }
        let bytes = offset..end;
        if found.tracks == 0 {
            return Ok(Found::Bytes(inline_part(&found, bytes)));
        }
        let sources: Result<Vec<(TrackNo, Source)>> = TrackNo::each(self.tracks_of(bytes.clone()))
            .map(|track| Ok((track, self.tree.device.source(&look, at, track)?)))
            .collect();
        Ok(Found::Tracks(bytes, sources?))
    }

    /// Fills `out` with these bytes of a file, which lie in these tracks.
    pub(super) fn fill(
        self,
        mut out: &mut [u8],
        at: InodeAt,
        bytes: &Range<u64>,
        sources: Vec<(TrackNo, Source)>,
    ) -> Result<()> {
        for (track, source) in sources {
            let part = self.part_of(bytes, track);
            let (place, rest) = out.split_at_mut(part.len());
            self.tree.device.read_part(source, at, track, part, place)?;
            out = rest;
        }
        Ok(())
    }

    /// Writes bytes. With `kill_privileges`, clears suid and sgid as for a writer without that right.
    pub fn write(self, number: InodeNo, offset: u64, data: &[u8], kill_privileges: bool) -> Result<()> {
        self.write_somehow(number, offset, data, kill_privileges, Sent::default())
    }

    /// Writes bytes as a kernel sent them, which may not know yet what the file has become.
    pub fn write_sent(
        self,
        number: InodeNo,
        offset: u64,
        data: &[u8],
        kill_privileges: bool,
        sent: Sent,
    ) -> Result<()> {
        self.write_somehow(number, offset, data, kill_privileges, sent)?;
        self.tree.behind.written(number, offset.saturating_add(data.len() as u64));
        Ok(())
    }

    fn write_somehow(self, number: InodeNo, offset: u64, data: &[u8], kill_privileges: bool, sent: Sent) -> Result<()> {
        self.tree.with_room(|| match self.write_now(number, offset, data, kill_privileges, sent) {
            Err(error) if error.is_no_space() => {
                // Dirty tracks have reserved more than they will take, and what was freed waits for a commit.
                self.tree.commit()?;
                self.write_now(number, offset, data, kill_privileges, sent)
            }
            result => result,
        })
    }

    fn write_now(self, number: InodeNo, sent_to: u64, data: &[u8], kill_privileges: bool, sent: Sent) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let _file = self.tree.locks.lock(number);
        let mut txn = self.tree.device.begin_growing()?;
        let mut found = inode::load_file(&txn, number.live())?;
        let (offset, data) = match sent == Sent::default() {
            true => (sent_to, data),
            false => match self.tree.behind.place(&txn, number, found.size, (sent_to, data.len() as u64), sent)? {
                Some((offset, old)) => (offset, &data[old..]),
                None => return Ok(()),
            },
        };
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= FILE_BYTES_MAX);
        let bytes = offset..end.ok_or(Error::Posix(Errno::FBIG))?;
        txn.note(number, Note::Written(bytes.clone()));
        self.tree.stamps.touch(number, &mut found);
        if kill_privileges {
            found.kill_privileges();
        }
        let old_size = found.size;
        found.size = old_size.max(bytes.end);
        if found.tracks == 0 && old_size <= INLINE_BYTES_MAX as u64 && found.size <= INLINE_BYTES_MAX as u64 {
            let (start, end) = (bytes.start as usize, bytes.end as usize);
            if found.inline.len() < end {
                found.inline.resize(end, 0);
            }
            found.inline[start..end].copy_from_slice(data);
            inode::store(&mut txn, number, &found)?;
            return txn.finish();
        }
        let tracks = self.tracks_of(bytes.clone());
        let mut edit = TrackEdit::start(self.tree, &txn, number, &mut found, old_size, tracks.clone())?;
        edit.apply_inode(&mut txn, &found)?;
        for track in TrackNo::each(tracks) {
            let part = self.part_of(&bytes, track);
            let at = (track.start(self.tree.device.track_bytes()) + part.start as u64 - offset) as usize;
            edit.write(&mut txn, track, part.start, &data[at..at + part.len()]);
        }
        txn.finish()
    }

    /// Takes whole tracks off the end of a file that is to have a smaller size, in steps from the end, until one transaction
    /// can do the rest. Whoever looks meanwhile sees the file get shorter, as with truncate(2) on btrfs. Between steps others,
    /// who share the file's lock, have their turn.
    pub(super) fn shorten(self, number: InodeNo, size: u64, kill_privileges: bool) -> Result<()> {
        let track_bytes = self.tree.device.track_bytes();
        let mut ends = Vec::new();
        let found = self.tree.inode(number.live())?;
        if found.tracks > STEP_TRACKS && size < found.size {
            let mut from = Some(TrackNo::behind(size, track_bytes));
            let end = TrackNo::behind(found.size, track_bytes);
            while let Some(at) = from {
                // In pieces: nobody should wait for a large file to be walked.
                let (some, rest) =
                    self.tree.device.look()?.tracks().every_track(number, at..end, STEP_TRACKS, SEEK_TRACKS)?;
                ends.extend(some);
                from = rest;
            }
        }
        for end in ends.into_iter().rev() {
            let _file = self.tree.locks.lock(number);
            let mut txn = self.tree.device.begin()?;
            let mut found = inode::load_file(&txn, number.live())?;
            // It may be another's content by now, that of a snapshot.
            if found.size <= end.start(track_bytes) {
                continue;
            }
            self.tree.stamps.touch(number, &mut found);
            if kill_privileges {
                found.kill_privileges();
            }
            // Between two tracks nothing is cut through.
            self.resize(&mut txn, number, &mut found, end.start(track_bytes), None)?;
            inode::store(&mut txn, number, &found)?;
            txn.finish()?;
        }
        Ok(())
    }

    /// Sets the size within an operation on an inode. The caller holds the file's lock and got `edge`
    /// from [`Files::fetch_cut`].
    pub(super) fn resize(
        self,
        txn: &mut Txn<'_>,
        number: InodeNo,
        found: &mut Inode,
        size: u64,
        edge: Before,
    ) -> Result<Option<Cut>> {
        let old_size = std::mem::replace(&mut found.size, size);
        if size < old_size {
            txn.note(number, Note::Cut(size));
        }
        if found.tracks == 0 {
            found.inline.truncate(size as usize);
            if size <= INLINE_BYTES_MAX as u64 || found.inline.is_empty() {
                return Ok(None);
            }
            // The bytes leave the record for a track.
            let bytes = std::mem::take(&mut found.inline).into_vec();
            found.tracks = 1;
            return Ok(Some(Cut { track: TrackNo::FIRST, before: Some(Arc::new(bytes)), len: usize::MAX }));
        }
        if size >= old_size {
            return Ok(None);
        }
        let track_bytes = self.tree.device.track_bytes();
        let kept = TrackNo::behind(size, track_bytes);
        found.tracks -= txn.remove_tracks(number, kept, TrackNo::MAX)?.min(found.tracks);
        let rest = (size % track_bytes) as usize;
        let track = TrackNo::of(size, track_bytes);
        let is_cut = rest > 0 && txn.tracks().has_track(number, track)?;
        Ok(is_cut.then_some(Cut { track, before: edge, len: rest }))
    }

    /// Carries out what [`Files::resize`] left to be done. Nothing may fail after it.
    pub(super) fn cut(self, txn: &mut Txn<'_>, number: InodeNo, cut: Cut) -> Result<()> {
        let slot = usize::from(txn.needs_slot(number, cut.track));
        txn.reserve(slot)?;
        txn.edit_track(number, cut.track, cut.before, |content| content.truncate(cut.len));
        Ok(())
    }

    /// What the track holds that a new size cuts through.
    pub(super) fn fetch_cut(self, number: InodeNo, size: u64) -> Result<Before> {
        let track_bytes = self.tree.device.track_bytes();
        if size.is_multiple_of(track_bytes) {
            return Ok(None);
        }
        let track = TrackNo::of(size, track_bytes);
        let source = {
            let look = self.tree.device.look()?;
            if inode::load(&look, number.live())?.tracks == 0 {
                return Ok(None);
            }
            self.tree.device.source(&look, number.live(), track)?
        };
        Ok(Some(self.tree.device.read_track(source, number.live(), track)?))
    }

    /// Gives the room of a byte range back; it reads as zeros. With `keep_size` false the file grows to
    /// hold the range. Many tracks go in several steps, from the front, as many writes would. `kill_privileges` is as for
    /// writing.
    pub fn zero(self, number: InodeNo, offset: u64, len: u64, keep_size: bool, kill_privileges: bool) -> Result<()> {
        let end = offset.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX).ok_or(Error::Posix(Errno::FBIG))?;
        while !self.zero_step(number, offset..end, keep_size, kill_privileges)? {}
        Ok(())
    }

    /// One transaction's worth of zeroing a range, from the front; whether that was all.
    fn zero_step(self, number: InodeNo, range: Range<u64>, keep_size: bool, kill_privileges: bool) -> Result<bool> {
        let _file = self.tree.locks.lock(number);
        let mut txn = self.tree.device.begin()?;
        let mut found = inode::load_file(&txn, number.live())?;
        self.tree.stamps.touch(number, &mut found);
        if kill_privileges {
            found.kill_privileges();
        }
        let grown = if keep_size { None } else { Some(range.end.max(found.size)) };
        let bytes = range.start.min(found.size)..range.end.min(found.size);
        txn.note(number, Note::Written(bytes.clone()));
        if found.tracks == 0 {
            let (from, to) = (bytes.start as usize, (bytes.end as usize).min(found.inline.len()));
            if from < to {
                found.inline[from..to].fill(0);
            }
        }
        let mut edits = Vec::new();
        if found.tracks > 0 && !bytes.is_empty() {
            let track_bytes = self.tree.device.track_bytes();
            let is_to_end = bytes.end == found.size;
            let first_whole = TrackNo::behind(bytes.start, track_bytes);
            let part = if is_to_end { TrackNo::behind } else { TrackNo::of };
            let last_whole = part(bytes.end, track_bytes);
            if first_whole < last_whole {
                let (removed, rest) = txn.remove_some_tracks(number, first_whole..last_whole, STEP_TRACKS)?;
                found.tracks -= removed.min(found.tracks);
                if rest.is_some() {
                    inode::store(&mut txn, number, &found)?;
                    txn.finish()?;
                    return Ok(false);
                }
            }
            let mut edges = [bytes.start, bytes.end - 1].map(|at| TrackNo::of(at, track_bytes)).to_vec();
            edges.dedup();
            for track in edges {
                if !(first_whole..last_whole).contains(&track) && txn.tracks().has_track(number, track)? {
                    edits.push((track, self.part_of(&bytes, track)));
                }
            }
        }
        let cut = match grown {
            Some(size) if size > found.size => self.resize(&mut txn, number, &mut found, size, None)?,
            _ => None,
        };
        inode::store(&mut txn, number, &found)?;
        let slots = edits.iter().filter(|(track, _)| txn.needs_slot(number, *track)).count();
        txn.reserve(slots)?;
        for (track, part) in edits {
            txn.write_track(number, track, part.start, &vec![0; part.len()], false);
        }
        if let Some(cut) = cut {
            self.cut(&mut txn, number, cut)?;
        }
        txn.finish()?;
        Ok(true)
    }

    /// Makes sure that the file is at least as long as the range, like fallocate(2) with mode 0. Room is
    /// not set aside: every write goes to a new place anyway. A range that could not be filled is refused.
    pub fn allocate(
        self,
        number: InodeNo,
        offset: u64,
        len: u64,
        keep_size: bool,
        kill_privileges: bool,
    ) -> Result<()> {
        let end = offset.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX).ok_or(Error::Posix(Errno::FBIG))?;
        let found = self.tree.inode(number.live())?;
        let missing = len.saturating_sub(found.tracks * self.tree.device.track_bytes());
        if missing > self.tree.space()?.available {
            return Err(Error::Posix(Errno::NOSPC));
        }
        if keep_size || end <= found.size {
            let mut txn = self.tree.device.begin()?;
            let mut found = inode::load_file(&txn, number.live())?;
            self.tree.stamps.touch(number, &mut found);
            if kill_privileges {
                found.kill_privileges();
            }
            inode::store(&mut txn, number, &found)?;
            return txn.finish();
        }
        self.zero(number, found.size, end - found.size, false, kill_privileges)
    }

    /// The start of the next data at or after an offset; ENXIO where there is none.
    pub fn seek_data(self, at: InodeAt, offset: u64) -> Result<u64> {
        let look = self.tree.device.look()?;
        look.moments().check(at)?;
        let found = inode::load_file(&look, at)?;
        if offset >= found.size {
            return Err(Error::Posix(Errno::NXIO));
        }
        if found.tracks == 0 {
            return if offset < found.inline.len() as u64 { Ok(offset) } else { Err(Error::Posix(Errno::NXIO)) };
        }
        let track_bytes = self.tree.device.track_bytes();
        let tracks = self.tracks_of(offset..found.size);
        match look.tracks().next_track(at, tracks.start, tracks.end)? {
            Some(track) => Ok(offset.max(track.start(track_bytes))),
            None => Err(Error::Posix(Errno::NXIO)),
        }
    }

    /// The start of the next hole at or after an offset; the end of the file counts as one.
    pub fn seek_hole(self, at: InodeAt, offset: u64) -> Result<u64> {
        let look = self.tree.device.look()?;
        look.moments().check(at)?;
        let found = inode::load_file(&look, at)?;
        if offset >= found.size {
            return Err(Error::Posix(Errno::NXIO));
        }
        if found.tracks == 0 {
            return Ok(if offset < found.inline.len() as u64 { found.size } else { offset });
        }
        let track_bytes = self.tree.device.track_bytes();
        let end = TrackNo::behind(found.size, track_bytes);
        drop(look);
        let mut track = TrackNo::of(offset, track_bytes);
        while track < end {
            // In pieces: nobody should wait for a large file to be walked.
            let piece_end = end.min(track.plus(SEEK_TRACKS));
            track = self.tree.device.look()?.tracks().next_gap(at, track, piece_end)?;
            if track < piece_end {
                break;
            }
        }
        Ok(offset.max(track.start(track_bytes)).min(found.size))
    }

    /// Where a file has data, in order, up to a size; what was cut off since is left out.
    pub fn data_ranges(self, at: InodeAt, size: u64) -> impl Iterator<Item = Result<Range<u64>>> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let next = self.next_data(at, from..size).transpose()?;
            from = next.as_ref().map_or(size, |range| range.end);
            Some(next)
        })
    }

    /// The first data in a range.
    fn next_data(self, at: InodeAt, mut bytes: Range<u64>) -> Result<Option<Range<u64>>> {
        let size = bytes.end;
        let or_size = |found| match found {
            Err(Error::Posix(Errno::NXIO)) => Ok(size),
            found => found.map(|offset| size.min(offset)),
        };
        while !bytes.is_empty() {
            bytes.start = or_size(self.seek_data(at, bytes.start))?;
            let end = if bytes.is_empty() { size } else { or_size(self.seek_hole(at, bytes.start))? };
            // Empty where somebody makes a hole meanwhile: there may be data behind it.
            if end > bytes.start {
                return Ok(Some(bytes.start..end));
            }
        }
        Ok(None)
    }
}

/// A track to be shortened, or filled with bytes that were inline, at the end of an operation.
pub(super) struct Cut {
    track: TrackNo,
    before: Before,
    len: usize,
}

/// One operation's changes to tracks of a file: first all that can fail, then the changes.
pub(super) struct TrackEdit {
    number: InodeNo,
    slots: usize,
    /// Bytes that leave the inode record for track 0.
    inline: Before,
    /// Tracks that did not exist before.
    new: Vec<TrackNo>,
    /// Tracks that take more room, and may not take what is set aside.
    growth: usize,
}

impl TrackEdit {
    /// Counts what the changes need, and brings the inode record up to date.
    pub(super) fn start(
        tree: &Tree,
        txn: &Txn<'_>,
        number: InodeNo,
        found: &mut Inode,
        old_size: u64,
        tracks: Range<TrackNo>,
    ) -> Result<TrackEdit> {
        let mut edit = TrackEdit { number, slots: 0, inline: None, new: Vec::new(), growth: 0 };
        if !found.inline.is_empty() {
            edit.inline = Some(Arc::new(std::mem::replace(&mut found.inline, ByteBuf::new()).into_vec()));
            if tracks.start > TrackNo::FIRST {
                found.tracks += 1;
                edit.slots += 1;
            }
        }
        let old_size = if found.tracks == 0 { 0 } else { old_size };
        let old_end = TrackNo::behind(old_size, tree.device.track_bytes());
        for track in TrackNo::each(tracks) {
            if track >= old_end || !txn.tracks().has_track(number, track)? {
                found.tracks += 1;
                edit.new.push(track);
                edit.growth += 1;
            } else {
                edit.growth += usize::from(txn.keeps_old(number, track)?);
            }
            edit.slots += usize::from(txn.needs_slot(number, track));
        }
        Ok(edit)
    }

    /// The last step that can fail.
    pub(super) fn apply_inode(&mut self, txn: &mut Txn<'_>, found: &Inode) -> Result<()> {
        inode::store(txn, self.number, found)?;
        txn.check_growth(self.growth)?;
        txn.reserve(self.slots)?;
        if let Some(inline) = self.inline.take() {
            txn.edit_track(self.number, TrackNo::FIRST, Some(inline), |_| {});
        }
        Ok(())
    }

    pub(super) fn write(&self, txn: &mut Txn<'_>, track: TrackNo, at: usize, data: &[u8]) {
        txn.write_track(self.number, track, at, data, self.new.contains(&track));
    }
}

/// A part of a file without tracks.
pub(super) fn inline_part(found: &Inode, bytes: Range<u64>) -> Vec<u8> {
    let held = found.inline.len() as u64;
    let from = bytes.start.min(held) as usize;
    let to = bytes.end.min(held) as usize;
    let mut out = found.inline[from..to].to_vec();
    out.resize((bytes.end - bytes.start) as usize, 0);
    out
}
