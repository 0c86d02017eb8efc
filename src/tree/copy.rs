//! Copying a range from one file to another, sharing tracks where both lie alike.

use super::Inode;
use super::data::Files;
use super::inode::{self};
use crate::device::{InodeAt, InodeNo, Note, TrackNo, Txn};
use crate::error::{Errno, Error, Result};
use crate::limits::*;

/// Bytes that are copied at once where tracks cannot be shared.
const STEP_BYTES: u64 = 1 << 20;

/// What became of a track that was to be what another one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shared {
    /// It was already.
    Same,
    Changed,
    /// The other one has no place yet that could be shared.
    Unstored,
}

/// Makes a track of a live file, whose record is `target`, what another one is, by sharing it.
pub(super) fn share_track(
    txn: &mut Txn<'_>,
    (source, source_track): (InodeAt, TrackNo),
    (to, track): (InodeNo, TrackNo),
    had_track: bool,
    target: &mut Inode,
) -> Result<Shared> {
    match txn.stored_pointer(source, source_track)? {
        Some((pointer, holder)) => {
            if txn.stored_pointer(to.live(), track)?.is_some_and(|(own, _)| own == pointer) {
                return Ok(Shared::Same);
            }
            txn.share_track(to, track, &pointer, holder)?;
            target.tracks += u64::from(!had_track);
        }
        None if source.is_live() && txn.tracks().has_track(source.inode, source_track)? => return Ok(Shared::Unstored),
        None if !had_track => return Ok(Shared::Same),
        None => {
            txn.remove_tracks(to, track, track.next())?;
            target.tracks -= 1;
        }
    }
    Ok(Shared::Changed)
}

/// A position in a file at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    pub of: InodeAt,
    pub offset: u64,
}

impl Files<'_> {
    /// Copies up to `len` bytes from a file, of any moment, to a live one; how many were copied, which is
    /// fewer only at the end of the source, and where the rest fails: an error says that nothing was copied.
    /// `kill_privileges` is as for writing.
    pub fn copy_range(
        self,
        mut from: Position,
        to: InodeNo,
        mut to_offset: u64,
        len: u64,
        kill_privileges: bool,
    ) -> Result<u64> {
        let source = self.tree.inode(from.of)?;
        let end = source.size.min(from.offset.saturating_add(len));
        let total = end.saturating_sub(from.offset);
        if total == 0 {
            return Ok(0);
        }
        if to_offset.checked_add(total).is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(Error::Posix(Errno::FBIG));
        }
        if from.of.is_live() && source.tracks > 0 {
            // Tracks can be shared once they have a place.
            self.tree.device.committer()?.flush()?;
        }
        let is_shareable = source.inline.is_empty();
        while from.offset < end {
            let how = (is_shareable, kill_privileges);
            match self.tree.with_room(|| self.copy_step(from, to, to_offset, end - from.offset, how)) {
                Ok(0) => break,
                Ok(done) => {
                    from.offset += done;
                    to_offset += done;
                }
                Err(error) if end - from.offset == total => return Err(error),
                // Whoever goes on from there is told.
                Err(_) => break,
            }
        }
        Ok(total - (end - from.offset))
    }

    /// Shares or copies some of the bytes that are left; how many.
    fn copy_step(
        self,
        from: Position,
        to: InodeNo,
        to_offset: u64,
        rest: u64,
        (is_shareable, kill_privileges): (bool, bool),
    ) -> Result<u64> {
        let track_bytes = self.tree.device.track_bytes();
        let is_aligned = from.offset.is_multiple_of(track_bytes) && to_offset.is_multiple_of(track_bytes);
        if is_aligned && is_shareable {
            for is_last_try in [false, false, true] {
                match self.share_range(from, to, to_offset, rest, (is_last_try, kill_privileges))? {
                    Some(0) => break,
                    Some(shared) => return Ok(shared),
                    // It was written to, or merged, meanwhile. What is shared in one step is there as a whole or not at all.
                    None => self.tree.device.committer()?.flush()?,
                }
            }
        }
        let step = rest.min(if is_aligned { track_bytes } else { STEP_BYTES });
        let data = self.read(from.of, from.offset, step as usize)?;
        if !data.is_empty() {
            self.write(to, to_offset, &data, kill_privileges)?;
        }
        Ok(data.len() as u64)
    }

    /// Shares whole tracks as far as that is possible; how many bytes that made. Nothing, and nothing is done, where a
    /// track has no place yet and this is not the last try.
    fn share_range(
        self,
        from: Position,
        to: InodeNo,
        to_offset: u64,
        len: u64,
        (is_last_try, kill_privileges): (bool, bool),
    ) -> Result<Option<u64>> {
        let track_bytes = self.tree.device.track_bytes();
        if self.tree.device.look()?.moments().is_outside(from.of)? {
            return Ok(Some(0));
        }
        let _files = self.tree.locks.lock_two(from.of.inode, to);
        let mut txn = self.tree.device.begin_growing()?;
        txn.moments().check(from.of)?;
        // The source may have changed since the copy began.
        let source = inode::load_file(&txn, from.of)?;
        let len = len.min(source.size.saturating_sub(from.offset));
        if !source.inline.is_empty() {
            return Ok(Some(0));
        }
        let mut target: Inode = inode::load_file(&txn, to.live())?;
        if !target.inline.is_empty() {
            if to_offset > 0 {
                return Ok(Some(0));
            }
            target.inline.clear();
        }
        let old_size = target.size;
        let first_from = TrackNo::of(from.offset, track_bytes);
        let first_to = TrackNo::of(to_offset, track_bytes);
        let mut done = 0;
        for i in 0..STEP_TRACKS {
            let rest = len - done;
            let at_end_of_both = from.offset + len == source.size && to_offset + len >= old_size;
            let piece = if rest >= track_bytes {
                track_bytes
            } else if rest > 0 && at_end_of_both {
                rest
            } else {
                break;
            };
            let (source_track, target_track) = (first_from.plus(i), first_to.plus(i));
            let had_track = target_track.start(track_bytes) < old_size && txn.tracks().has_track(to, target_track)?;
            match share_track(&mut txn, (from.of, source_track), (to, target_track), had_track, &mut target)? {
                Shared::Unstored if !is_last_try => return Ok(None),
                Shared::Unstored => break,
                Shared::Same | Shared::Changed => {}
            }
            done += piece;
        }
        if done == 0 {
            return Ok(Some(0));
        }
        txn.note(to, Note::Written(to_offset..to_offset + done));
        target.size = old_size.max(to_offset + done);
        self.tree.stamps.touch(to, &mut target);
        if kill_privileges {
            target.kill_privileges();
        }
        inode::store(&mut txn, to, &target)?;
        txn.finish()?;
        Ok(Some(done))
    }
}
