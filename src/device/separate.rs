//! Giving tracks that a base shares with others places of their own: a second copy, in the background.
//!
//! A track is read, and written as if somebody had written the same bytes again: it is dirty then, and goes to a
//! new place like any other. The copy stops where it would take the room that is left to everybody else, and goes on
//! when there is room again. It is over when a walk over all tracks has found none that is shared.

use super::past::{BaseId, InodeNo, SEPARATE, TrackKey, TrackNo, expect_track, work_key};
use super::pointer::Pointer;
use super::{Changing, Device, State};
use crate::error::{Error, Result};
use crate::limits::BLOCK_BYTES;
use crate::meta::{Table, decode, prefix_end};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// The number under which is noted what a copy has left shared; under 0 is how far it has come.
pub(super) const LEFT: u64 = 1;
/// Tracks that one step looks at.
const STEP: usize = 256;

/// How far it has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Separate {
    /// Where it goes on.
    pub(super) cursor: ByteBuf,
    /// Bytes that the tracks take which are known to have places of their own, and all of the base.
    #[serde(deserialize_with = "crate::limits::number::bytes")]
    pub done: u64,
    #[serde(default, deserialize_with = "crate::limits::number::bytes")]
    pub total: u64,
    /// Bytes that were to be copied, as far as that was known when it began, and that were.
    #[serde(default, deserialize_with = "crate::limits::number::bytes")]
    pub wanted: u64,
    #[serde(default, deserialize_with = "crate::limits::number::bytes")]
    pub copied: u64,
    /// It has stopped for want of room.
    #[serde(default)]
    pub is_stopped: bool,
    /// It had at some time.
    #[serde(default)]
    pub has_stopped: bool,
    /// A track could not be copied while others worked on it: all are looked at once more.
    #[serde(default)]
    again: bool,
    /// Tracks that are damaged, which cannot be copied and stay as they are.
    #[serde(default, deserialize_with = "crate::limits::number::count")]
    pub damaged: u64,
}

/// Damaged tracks that a copy has left shared.
#[derive(Serialize, Deserialize)]
pub(super) struct Left(#[serde(deserialize_with = "crate::limits::number::count")] u64);

/// What a step has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Separated {
    /// There is nothing to be done, or no room for it.
    Nothing,
    Some,
    /// Room has ended; it goes on by itself.
    Stopped(BaseId, Separate),
    /// There is room again.
    Resumed(BaseId),
    Done(BaseId, Separate),
}

/// What became of a track that was to be copied.
enum Copied {
    Done,
    Damaged,
    /// Others worked on it.
    Left,
}

/// Copies under way, and what they left.
#[derive(Clone, Copy)]
pub struct Copies<'a> {
    pub(super) state: &'a State,
}

impl Copies<'_> {
    /// How far separating a base has come.
    pub fn of(self, base: BaseId) -> Result<Option<Separate>> {
        self.state.past.meta.get(Table::Orphan, &work_key(base, SEPARATE, 0))
    }

    /// Damaged tracks that the last copy of a base has left shared.
    pub fn left_shared(self, base: BaseId) -> Result<u64> {
        let left: Option<Left> = self.state.past.meta.get(Table::Orphan, &work_key(base, SEPARATE, LEFT))?;
        Ok(left.map_or(0, |left| left.0))
    }

    /// Bytes that the copies under way will still take.
    pub fn to_come(self) -> Result<u64> {
        let mut bytes: u64 = 0;
        for (base, _) in self.state.bases() {
            let separate = self.of(base)?.unwrap_or_default();
            bytes = bytes.saturating_add(separate.wanted.saturating_sub(separate.copied));
        }
        Ok(bytes)
    }
}

impl Changing<'_> {
    /// From now on the background gives the tracks of a base places of their own, once it is settled; it takes so
    /// many bytes.
    pub fn separate(&mut self, base: BaseId, wanted: u64) -> Result<()> {
        let total = self.state.counts(base)?.refers * BLOCK_BYTES as u64;
        let begun = Separate { total, wanted, ..Separate::default() };
        self.state.past.meta.put(Table::Orphan, &work_key(base, SEPARATE, 0), &begun);
        self.state.past.meta.remove(Table::Orphan, &work_key(base, SEPARATE, LEFT));
        Ok(())
    }
}

/// Tracks that one step looks at.
struct Piece {
    shared: Vec<TrackKey>,
    /// Bytes that the shared ones take, and all.
    shared_bytes: u64,
    bytes: u64,
    /// Where to go on.
    next: Option<Vec<u8>>,
}

/// Tracks that are given places of their own.
#[derive(Clone, Copy)]
pub struct Separation<'a> {
    pub(super) device: &'a Device,
}

impl Separation<'_> {
    /// Does a piece of separating. `lock` keeps a file from being changed.
    pub fn step<L>(self, lock: impl Fn(InodeNo) -> L) -> Result<Separated> {
        let _one_at_a_time = self.device.separating.lock();
        for (base, separate) in self.to_separate()? {
            let piece = self.shared_tracks(base, &separate)?;
            let has_room = piece.shared_bytes == 0
                || self.device.capacity().has_room_for_copy(&*self.device.look()?, piece.shared_bytes)?;
            if has_room == separate.is_stopped {
                let changed = Separate { is_stopped: !has_room, has_stopped: true, ..separate };
                self.note_separating(base, &changed, false)?;
                return Ok(if has_room { Separated::Resumed(base) } else { Separated::Stopped(base, changed) });
            }
            // What needs less room, or none, does not wait for what is stopped.
            if has_room {
                return self.separate_piece(base, separate, piece, lock);
            }
        }
        Ok(Separated::Nothing)
    }

    /// Bases with tracks that are to get places of their own, and how far that has come.
    fn to_separate(self) -> Result<Vec<(BaseId, Separate)>> {
        let look = self.device.look()?;
        let mut found = Vec::new();
        for (base, _) in look.bases().filter(|(_, record)| record.eras.is_empty()) {
            found.extend(look.copies().of(base)?.map(|separate| (base, separate)));
        }
        Ok(found)
    }

    /// Whether a copy waits for room.
    pub fn is_held_up(self) -> Result<bool> {
        Ok(self.to_separate()?.iter().any(|(_, separate)| separate.is_stopped))
    }

    fn separate_piece<L>(
        self,
        base: BaseId,
        mut separate: Separate,
        piece: Piece,
        lock: impl Fn(InodeNo) -> L,
    ) -> Result<Separated> {
        let damaged_before = separate.damaged;
        for (inode, track) in piece.shared {
            let _file = lock(inode);
            match self.write_again(inode, track) {
                Ok(Copied::Done) => {}
                Ok(Copied::Damaged) => separate.damaged += 1,
                Ok(Copied::Left) => separate.again = true,
                // Somebody else was faster.
                Err(error) if error.is_no_space() => {
                    // It begins here again.
                    let damaged = damaged_before;
                    let changed = Separate { is_stopped: true, has_stopped: true, damaged, ..separate };
                    self.note_separating(base, &changed, false)?;
                    return Ok(Separated::Stopped(base, changed));
                }
                Err(error) => return Err(error),
            }
        }
        separate.done += piece.bytes;
        separate.copied += piece.shared_bytes;
        separate.total = separate.total.max(separate.done);
        match piece.next {
            Some(next) => separate.cursor = ByteBuf::from(next),
            None if separate.again => {
                separate = Separate { cursor: ByteBuf::new(), done: 0, damaged: 0, again: false, ..separate };
            }
            None => {
                self.note_separating(base, &separate, true)?;
                return Ok(Separated::Done(base, separate));
            }
        }
        self.note_separating(base, &separate, false)?;
        Ok(Separated::Some)
    }

    /// Notes how far it has come, or that it is over.
    fn note_separating(self, base: BaseId, separate: &Separate, is_over: bool) -> Result<()> {
        let mut txn = self.device.begin_unthrottled()?;
        let key = work_key(base, SEPARATE, 0);
        // The base may be gone.
        if txn.meta().contains(Table::Orphan, &key)? {
            let meta = &mut txn.state.past.meta;
            match is_over {
                false => meta.put(Table::Orphan, &key, separate),
                true => meta.remove(Table::Orphan, &key),
            }
            if is_over && separate.damaged > 0 {
                meta.put(Table::Orphan, &work_key(base, SEPARATE, LEFT), &separate.damaged);
            }
        }
        txn.finish()
    }

    /// Some tracks of a base, and which of them others hold as well.
    fn shared_tracks(self, base: BaseId, separate: &Separate) -> Result<Piece> {
        let look = self.device.look()?;
        let prefix = base.prefix();
        let from = separate.cursor.as_slice().max(&prefix);
        let mut piece = Piece { shared: Vec::new(), shared_bytes: 0, bytes: 0, next: None };
        let mut last = None;
        let mut count = 0;
        for pair in look.meta.range(Table::Track, from, &prefix_end(&prefix))?.take(STEP) {
            let (key, bytes) = pair?;
            let value = super::split_record(Table::Track, &key, &bytes)?.1;
            if !value.is_empty() {
                let (inode, track) = expect_track(&key)?;
                let pointer: Pointer = decode(Table::Track, &key, value)?;
                let bytes = pointer.blocks() * BLOCK_BYTES as u64;
                piece.bytes += bytes;
                for location in pointer.locations() {
                    if location.is_shared(&look.meta)? {
                        piece.shared.push((inode, track));
                        piece.shared_bytes += bytes;
                        break;
                    }
                }
            }
            count += 1;
            last = Some(key);
        }
        piece.next = last.filter(|_| count == STEP).map(|mut key| {
            key.push(0);
            key
        });
        debug_assert!(piece.next.as_ref().is_none_or(|key| InodeNo::of_key(key).is_some()));
        Ok(piece)
    }

    /// Makes a track dirty with the bytes that it has. What is in memory lies over the old place perhaps, and is
    /// made a whole. The caller holds the file's lock.
    fn write_again(self, inode: InodeNo, track: TrackNo) -> Result<Copied> {
        let (source, pointer) = {
            let look = self.device.look()?;
            match look.pointer(inode.live(), track)? {
                Some((pointer, _)) => (self.device.source(&look, inode.live(), track)?, pointer),
                None => return Ok(Copied::Done),
            }
        };
        let bytes = match self.device.read_track(source, inode.live(), track) {
            Ok(bytes) => bytes,
            Err(Error::Corrupt { .. }) => return Ok(Copied::Damaged),
            Err(error) => return Err(error),
        };
        let mut txn = self.device.begin_growing()?;
        // It may have been flushed meanwhile.
        if !txn.pointer(inode.live(), track)?.is_some_and(|(now, _)| now == pointer) {
            return Ok(Copied::Left);
        }
        if txn.needs_slot(inode, track) {
            txn.reserve(1)?;
        }
        txn.edit_track(inode, track, Some(bytes), |_| {});
        txn.finish()?;
        Ok(Copied::Done)
    }
}
