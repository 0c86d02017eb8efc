//! Walking through the keys of a block of records or of the index.

use super::super::{Entry, Place, Value};
use super::layout::RECORDS;
use crate::clock::Epoch;
use crate::limits::{ARCHIVE_KEY_BYTES_MAX, TRACK_BYTES_MAX};
use crate::meta::packed::{take_bytes, take_number};
use std::sync::Arc;

/// A block as it was before it was compressed, its checksum verified.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub offset: u64,
    pub kind: u8,
    pub bytes: Arc<Vec<u8>>,
}

/// A line of the index: a block of the level below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Child {
    /// The first key in it.
    pub first: Vec<u8>,
    pub offset: u64,
}

/// How the value of an entry is stored: the low two bits of its first number, the others being its length.
pub(super) const RECORD: u64 = 0;
/// A track whose bytes are right behind those of the track before it in this block of records.
pub(super) const NEXT_TRACK: u64 = 1;
/// A track whose block, and first byte in it, follow.
pub(super) const PLACED_TRACK: u64 = 2;

/// A place between two entries of a block, or between the key and the value of one.
///
/// Invariant: keys ascend, and each has a table; bytes of which that is not so give an error. With an error the rest
/// of the block is given up.
#[derive(Debug)]
pub(super) struct Cursor {
    block: Block,
    at: usize,
    /// The key read last: a table's number and a key in it.
    key: Vec<u8>,
    /// The value of `key` is still to be taken.
    is_peeked: bool,
    /// Where the track behind the last one begins.
    next_track: Option<(u64, u32)>,
}

impl Cursor {
    pub(super) fn new(block: Block) -> Cursor {
        Cursor { block, at: 0, key: Vec::new(), is_peeked: false, next_track: None }
    }

    pub(super) fn offset(&self) -> u64 {
        self.block.offset
    }

    pub(super) fn is_index(&self) -> bool {
        self.block.kind > RECORDS
    }

    pub(super) fn kind(&self) -> u8 {
        self.block.kind
    }

    /// The key of the entry that comes next, `None` at the end.
    pub(super) fn peek(&mut self) -> Result<Option<&[u8]>, String> {
        if !self.is_peeked {
            if self.at == self.block.bytes.len() {
                return Ok(None);
            }
            self.read_key()?;
            self.is_peeked = true;
        }
        Ok(Some(&self.key))
    }

    fn read_key(&mut self) -> Result<(), String> {
        let shared = take_number(&self.block.bytes, &mut self.at)?;
        let len = take_number(&self.block.bytes, &mut self.at)?;
        let own = take_bytes(&self.block.bytes, &mut self.at, len)?;
        let Some(replaced) = usize::try_from(shared).ok().and_then(|shared| self.key.get(shared..)) else {
            return Err(format!("a key shares {shared} bytes with one of {}", self.key.len()));
        };
        if own <= replaced {
            return Err("its keys are not in order".into());
        }
        self.key.truncate(self.key.len() - replaced.len());
        self.key.extend_from_slice(own);
        if self.key.len() > 1 + ARCHIVE_KEY_BYTES_MAX {
            return Err(format!(
                "it has a key of {} bytes, and {ARCHIVE_KEY_BYTES_MAX} are possible",
                self.key.len() - 1
            ));
        }
        Ok(())
    }

    /// The block that the next line of an index names; there is a next line.
    pub(super) fn take_child(&mut self, child: &mut Child) -> Result<(), String> {
        self.peek()?;
        child.first.clone_from(&self.key);
        child.offset = take_number(&self.block.bytes, &mut self.at)?;
        self.is_peeked = false;
        Ok(())
    }

    /// The last of the next blocks that begins at `from` or before, or else the very next one.
    pub(super) fn take_child_for(&mut self, from: &[u8]) -> Result<Child, String> {
        let mut child = Child::default();
        self.take_child(&mut child)?;
        while self.peek()?.is_some_and(|key| key <= from) {
            self.take_child(&mut child)?;
        }
        Ok(child)
    }

    /// The next entry of a block of records, `None` at the end.
    pub(super) fn take_entry(&mut self) -> Result<Option<Entry>, String> {
        let Some((&table, key)) = self.peek()?.and_then(<[u8]>::split_first) else { return Ok(None) };
        let key = key.to_vec();
        self.is_peeked = false;
        let birth = take_number(&self.block.bytes, &mut self.at)?;
        let birth = u32::try_from(birth).map(Epoch::new).map_err(|_| format!("it has an epoch of {birth}"))?;
        let value = self.take_value()?;
        Ok(Some(Entry { table, key, birth, value }))
    }

    fn take_value(&mut self) -> Result<Value, String> {
        let number = take_number(&self.block.bytes, &mut self.at)?;
        let (len, kind) = (number >> 2, number & 3);
        match kind {
            RECORD => Ok(Value::Record(take_bytes(&self.block.bytes, &mut self.at, len)?.to_vec())),
            NEXT_TRACK | PLACED_TRACK => Ok(Value::Track(self.take_place(len, kind)?)),
            _ => Err(format!("it has a value of kind {kind}")),
        }
    }

    fn take_place(&mut self, len: u64, kind: u64) -> Result<Place, String> {
        let (block, at) = match (kind, self.next_track) {
            (NEXT_TRACK, Some(next)) => next,
            (NEXT_TRACK, None) => return Err("its first track is said to be behind another".into()),
            _ => {
                let block = take_number(&self.block.bytes, &mut self.at)?;
                let at = take_number(&self.block.bytes, &mut self.at)?;
                (block, u32::try_from(at).map_err(|_| format!("it has a track at {at} of a block"))?)
            }
        };
        let raw = u32::try_from(len).ok().filter(|raw| *raw as usize <= TRACK_BYTES_MAX);
        match raw.and_then(|raw| Some((raw, at.checked_add(raw)?))) {
            // What names a block comes behind it: a place cannot lead in a circle.
            Some((raw, end)) if block < self.block.offset => {
                self.next_track = Some((block, end));
                Ok(Place { block, at, raw, stored: 0 })
            }
            _ => Err(format!("it has a track of {len} bytes at {at} of block {block}")),
        }
    }
}
