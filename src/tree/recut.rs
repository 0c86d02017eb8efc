//! Tracks of another size, taken over: their bytes are written where they belong, as a program would write them.
//!
//! ```text
//! record of an inode ─▶ cut to its size, with the tracks that it has here ──▶ its tracks, one after the other ──▶ its record again
//! ```
//!
//! Invariant: what is done again, wherever it was broken off, changes nothing: ranges are written or made zeros, absolutely.

use super::inode::{self, Inode, Kind};
use super::{Change, Tree};
use crate::device::{InodeNo, TrackNo};
use crate::error::Result;
use crate::meta::{Table, decode, encode};

/// Tracks of a size that is not the store's, on their way into files.
pub(super) struct Recut {
    /// Bytes of a track where they come from.
    track_bytes: u64,
    /// The file whose tracks come, and what its record is to be.
    open: Option<(InodeNo, Inode)>,
    /// The inode whose record comes next had all its bytes in it, where it comes from.
    was_in_record: bool,
}

impl Recut {
    pub fn of(track_bytes: u64) -> Recut {
        Recut { track_bytes, open: None, was_in_record: false }
    }

    /// What the record was that comes next.
    pub fn begin(&mut self, number: InodeNo, was: &[u8]) -> Result<()> {
        let was: Inode = decode(Table::Inode, &inode::key(number), was)?;
        self.was_in_record = was.tracks == 0;
        Ok(())
    }

    /// The record of an inode for here. One that is fresh has nothing yet.
    pub fn record(&mut self, tree: &Tree, number: InodeNo, is_fresh: bool, value: &[u8]) -> Result<Vec<u8>> {
        let mut wanted: Inode = decode(Table::Inode, &inode::key(number), value)?;
        let was_in_record = std::mem::take(&mut self.was_in_record);
        let has_tracks = std::mem::take(&mut wanted.tracks) > 0;
        let find = || inode::find(&*tree.device.look()?, number.live());
        let there = if is_fresh { None } else { find()?.filter(|found| found.kind() == Kind::File) };
        if wanted.kind() != Kind::File {
            // Copies of a store give one number to inodes of several kinds: of a file that it was nothing is left.
            if there.is_some_and(|there| there.size > 0) {
                tree.attributes().change(number, Change { size: Some(0), ..Change::default() })?;
            }
            return Ok(encode(&wanted));
        }
        let Some(there) = there else { return Ok(encode(&wanted)) };
        // What has its bytes in its record now loses the tracks that it had, and what had them there the bytes: what has not come to be a
        // hole comes.
        let size = match (has_tracks, was_in_record) {
            (true, false) => wanted.size,
            (true, true) => 0,
            (false, _) if there.tracks > 0 => 0,
            (false, _) => there.size,
        };
        if there.size != size {
            tree.attributes().change(number, Change { size: Some(size), ..Change::default() })?;
        }
        if let Some(there) = find()?
            && has_tracks
        {
            (wanted.tracks, wanted.inline) = (there.tracks, there.inline);
        }
        Ok(encode(&wanted))
    }

    /// The bytes of a track, or that it is gone; how many bytes were written.
    pub fn track(&mut self, tree: &Tree, (number, track): (InodeNo, TrackNo), bytes: Option<&[u8]>) -> Result<usize> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
            self.close(tree)?;
            let found = inode::find(&*tree.device.look()?, number.live())?;
            self.open = found.filter(|found| found.kind() == Kind::File).map(|found| (number, found));
        }
        // Of what is no file any more nothing is left.
        let Some((_, wanted)) = &self.open else { return Ok(0) };
        let start = track.start(self.track_bytes);
        let end = wanted.size.min(start.saturating_add(self.track_bytes));
        let (is_gone, bytes) = (bytes.is_none(), bytes.unwrap_or_default());
        let bytes = &bytes[..bytes.len().min(end.saturating_sub(start) as usize)];
        if !bytes.is_empty() {
            tree.files().write(number, start, bytes, false)?;
        }
        let rest = start + bytes.len() as u64;
        // Where one is gone and there are none, the record has all that there is.
        let is_in_record = is_gone && tree.inode(number.live())?.tracks == 0;
        if rest < end && !is_in_record {
            tree.files().zero(number, rest, end - rest, true, false)?;
        }
        Ok(bytes.len())
    }

    /// The file that was open has all its tracks: it gets the times that it is to have.
    pub fn close(&mut self, tree: &Tree) -> Result<()> {
        let Some((number, wanted)) = self.open.take() else { return Ok(()) };
        let mut txn = tree.device.begin_growing()?;
        let Inode { tracks, inline, .. } = inode::load(&txn, number.live())?;
        inode::store(&mut txn, number, &Inode { tracks, inline, ..wanted })?;
        txn.finish()
    }
}
