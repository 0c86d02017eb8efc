//! Whether a whole increment is what it says, block by block in the order of the file.

use super::super::{Entry, Value};
use super::cursor::{Block, Child, Cursor};
use super::layout::{Footer, KIND_MAX, RECORDS, TRACKS};
use super::reader::Reader;
use crate::error::{Error, Result};
use crate::meta::hex;
use crate::shown::shown_file;

/// What has been seen so far. Memory: some 16 bytes for each block of tracks.
pub(super) struct Verifier<'a> {
    reader: &'a Reader,
    /// Offset and length of each block of tracks.
    tracks: Vec<(u64, usize)>,
    /// For each kind, the blocks that no index has named yet.
    unnamed: Vec<Vec<Child>>,
    /// The last key of the last block of records.
    last: Vec<u8>,
    /// Counts of what was found.
    found: Footer,
}

impl<'a> Verifier<'a> {
    pub(super) fn new(reader: &'a Reader) -> Verifier<'a> {
        let unnamed = vec![Vec::new(); usize::from(KIND_MAX) + 1];
        Verifier { reader, tracks: Vec::new(), unnamed, last: Vec::new(), found: Footer::default() }
    }

    pub(super) fn add(&mut self, block: Block) -> Result<()> {
        let (reader, kind, offset) = (self.reader, block.kind, block.offset);
        let damaged = |problem| reader.damaged(offset, problem);
        if kind == TRACKS {
            self.tracks.push((offset, block.bytes.len()));
            return Ok(());
        }
        let mut cursor = Cursor::new(block);
        let Some(first) = cursor.peek().map_err(damaged)? else { return Err(damaged("it is empty".into())) };
        let line = Child { first: first.to_vec(), offset };
        match kind {
            RECORDS => self.add_records(cursor, &line.first),
            _ => self.add_index(cursor),
        }
        .map_err(damaged)?;
        self.unnamed[usize::from(kind)].push(line);
        Ok(())
    }

    fn add_records(&mut self, mut cursor: Cursor, first: &[u8]) -> Result<(), String> {
        if first <= self.last.as_slice() {
            return Err(format!("its first key {} is not behind {}", hex(first), hex(&self.last)));
        }
        while let Some(key) = cursor.peek()? {
            self.last.clear();
            self.last.extend_from_slice(key);
            if let Some(entry) = cursor.take_entry()? {
                self.add_entry(&entry)?;
            }
        }
        Ok(())
    }

    fn add_entry(&mut self, entry: &Entry) -> Result<(), String> {
        let Value::Track(place) = &entry.value else {
            self.found.records += 1;
            return Ok(());
        };
        self.found.tracks += 1;
        self.found.track_bytes += u64::from(place.raw);
        let end = place.at as usize + place.raw as usize;
        match self.tracks.binary_search_by_key(&place.block, |(offset, _)| *offset) {
            Ok(at) if end <= self.tracks[at].1 => Ok(()),
            Ok(at) => {
                let (block, len) = self.tracks[at];
                Err(format!("key {} has a track up to {end} of block {block}, which has {len} bytes", hex(&entry.key)))
            }
            Err(_) => Err(format!("key {} has a track in block {}, which is none", hex(&entry.key), place.block)),
        }
    }

    /// An index names exactly the blocks of the level below that came since the last one.
    fn add_index(&mut self, mut cursor: Cursor) -> Result<(), String> {
        let expected = std::mem::take(&mut self.unnamed[usize::from(cursor.kind()) - 1]);
        let mut found = Child::default();
        for child in &expected {
            if cursor.peek()?.is_none() {
                return Err(format!("it ends before the block at {}", child.offset));
            }
            cursor.take_child(&mut found)?;
            if found != *child {
                let (a, b) = (hex(&found.first), hex(&child.first));
                let (at, instead) = (found.offset, child.offset);
                return Err(format!("it has key {a} and the block at {at} instead of key {b} and {instead}"));
            }
        }
        match cursor.peek()? {
            None => Ok(()),
            Some(key) => Err(format!("it has key {}, at which no block begins", hex(key))),
        }
    }

    /// Everything has been seen: compares it with the footer.
    pub(super) fn finish(self, footer: &Footer) -> Result<()> {
        let mut found = Footer { bytes: footer.bytes, ..self.found };
        for (kind, lines) in (0..).zip(&self.unnamed) {
            for line in lines {
                if found.root != 0 {
                    let problem = "neither an index nor the footer names it".into();
                    return Err(self.reader.damaged(found.root, problem));
                }
                (found.root, found.root_kind) = (line.offset, kind);
            }
        }
        if found != *footer {
            let problem = format!("its footer says {footer:?}, and found was {found:?}");
            return Err(Error::corrupt(shown_file(self.reader.path()).to_string(), problem));
        }
        Ok(())
    }
}
