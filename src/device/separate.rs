//! Giving tracks that a base shares with others places of their own: a second copy, in the background.
//!
//! A track is read, and written as if somebody had written the same bytes again: it is dirty then, and goes to a
//! new place like any other.

use super::base::inode_of_key;
use super::delete::{SEPARATE, work_key, work_range};
use super::{BaseId, Device, InodeNo, Moment, TrackNo, split_track_key};
use crate::error::Result;
use crate::meta::{Table, decode, prefix_end};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// Tracks that one step looks at.
const STEP: usize = 256;

/// How far it has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Separate {
    /// Where it goes on.
    cursor: ByteBuf,
    /// Bytes copied.
    pub done: u64,
}

impl super::State {
    /// How far separating a base has come.
    pub fn separating(&self, base: BaseId) -> Result<Option<Separate>> {
        self.meta.get(Table::Orphan, &work_key(base, SEPARATE, 0))
    }
}

impl super::Changing<'_> {
    /// From now on the background gives the tracks of a base places of their own, once it is settled.
    pub fn separate(&mut self, base: BaseId) {
        self.state.meta.put(Table::Orphan, &work_key(base, SEPARATE, 0), &Separate::default());
    }
}

impl Device {
    /// Does a piece of separating; false when there is nothing to do. `lock` keeps a file from being changed.
    pub fn separate_step<L>(&self, lock: impl Fn(InodeNo) -> L) -> Result<bool> {
        let found = {
            let look = self.look()?;
            let mut found = None;
            for (base, record) in look.bases() {
                let (from, to) = work_range(base, SEPARATE);
                if record.eras.is_empty() && look.meta.last(Table::Orphan, &from, &to)?.is_some() {
                    found = Some(base);
                    break;
                }
            }
            found
        };
        let Some(base) = found else { return Ok(false) };
        let (shared, next) = self.shared_tracks(base)?;
        let mut done = 0;
        for (inode, track) in shared {
            let _file = lock(inode);
            done += self.write_again(inode, track)?;
        }
        let mut txn = self.begin()?;
        let key = work_key(base, SEPARATE, 0);
        if let Some(mut separate) = txn.meta().get::<Separate>(Table::Orphan, &key)? {
            separate.done += done;
            match next {
                Some(next) => {
                    separate.cursor = ByteBuf::from(next);
                    txn.state.meta.put(Table::Orphan, &key, &separate);
                }
                None => txn.state.meta.remove(Table::Orphan, &key),
            }
        }
        txn.finish()?;
        Ok(true)
    }

    /// Some tracks of a base that others hold as well, and where to go on.
    fn shared_tracks(&self, base: BaseId) -> Result<(Vec<super::TrackKey>, Option<Vec<u8>>)> {
        let look = self.look()?;
        let prefix = base.to_be_bytes();
        let separate: Separate = look.separating(base)?.unwrap_or_default();
        let from = separate.cursor.as_slice().max(&prefix);
        let mut shared = Vec::new();
        let mut last = None;
        let mut count = 0;
        for pair in look.meta.range(Table::Track, from, &prefix_end(&prefix))?.take(STEP) {
            let (key, bytes) = pair?;
            let value = super::split_record(Table::Track, &key, &bytes)?.1;
            if let (Some((inode, track)), false) = (split_track_key(&key), value.is_empty()) {
                let pointer: super::Pointer = decode(Table::Track, &key, value)?;
                for location in pointer.locations() {
                    if look.meta.contains(Table::Shared, &location.key())? {
                        shared.push((inode, track));
                        break;
                    }
                }
            }
            count += 1;
            last = Some(key);
        }
        let next = last.filter(|_| count == STEP).map(|mut key| {
            key.push(0);
            key
        });
        debug_assert!(next.as_ref().is_none_or(|key| inode_of_key(key).is_some()));
        Ok((shared, next))
    }

    /// Makes a track dirty with the bytes that it has.
    fn write_again(&self, inode: InodeNo, track: TrackNo) -> Result<u64> {
        let (source, pointer) = {
            let look = self.look()?;
            match look.pointer(inode, track, Moment::Live)? {
                Some((pointer, _)) if !look.is_in_memory(&(inode, track)) => {
                    (self.source(&look, inode, track, Moment::Live)?, pointer)
                }
                _ => return Ok(0),
            }
        };
        let bytes = self.read_track(source, inode, track, Moment::Live)?;
        let mut txn = self.begin_growing()?;
        let is_same = txn.pointer(inode, track, Moment::Live)?.is_some_and(|(now, _)| now == pointer);
        if !is_same || txn.is_in_memory(&(inode, track)) {
            return Ok(0);
        }
        txn.reserve(1)?;
        let len = bytes.len() as u64;
        txn.edit_track(inode, track, Some(bytes), |_| {});
        txn.finish()?;
        Ok(len)
    }
}
