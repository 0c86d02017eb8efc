//! Writing a set, from its head to its end, in one go.
//!
//! Invariants:
//! - nothing is written that names what is not written yet: entries of a unit that is open wait until it is, and so does what
//!   comes behind them;
//! - after a failed write nothing more is taken, and the set is never there.

use super::builder::{Builder, Step};
use super::layout::{END, End, FOOT, HEADER, Head, LEAF, START, compress, frame};
use super::node::{Entry, Line, Place, Value, encode_inner, encode_leaf};
use super::seal::Seal;
use super::unit::{OPEN, Unit, What};
use super::{Foot, Header, Root, Share, object_name};
use crate::clock::Epoch;
use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::limits::{SET_KEY_BYTES_MAX, SET_SETS_MAX, SET_VALUE_BYTES_MAX, TRACK_BYTES_MAX};
use crate::media::{Putting, Shelf};
use crate::meta::{encode, hex};
use serde_bytes::ByteBuf;
use std::collections::HashMap;
use std::io;
use zstd::bulk::Compressor;

/// What there is in a set that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub id: Id,
    /// Length of the object.
    pub bytes: u64,
    /// Bytes of tracks that were put in, before compression.
    pub added: u64,
    pub foot: Foot,
}

pub struct Writer {
    out: Output,
    unit: Unit,
    builder: Builder,
    shares: Shares,
    last: Vec<u8>,
    added: u64,
    records: u64,
    tracks: u64,
    missing: Vec<String>,
}

/// The sets that something lies in, and what.
struct Shares {
    all: Vec<Share>,
    numbers: HashMap<Id, u32>,
}

impl Shares {
    fn number(&mut self, set: Id) -> Result<u32> {
        if let Some(number) = self.numbers.get(&set) {
            return Ok(*number);
        }
        if self.all.len() >= SET_SETS_MAX {
            let text = format!("a moment can lie in {SET_SETS_MAX} sets at most; make a full one");
            return Err(Error::Refused(Errno::TOOBIG, text));
        }
        let number = self.all.len() as u32;
        self.all.push(Share { set, nodes: 0, bytes: 0 });
        self.numbers.insert(set, number);
        Ok(number)
    }
}

impl Writer {
    /// Begins a set of an id; `level` is that of zstd.
    pub fn create(shelf: &dyn Shelf, id: Id, header: &Header, seal: &Seal, level: i32) -> Result<Writer> {
        let mut out = Output::create(shelf, id, header.store, seal, level)?;
        let compressed = compress(&mut out.compressor, &encode(header));
        out.frame(HEADER, compressed)?;
        let mut shares = Shares { all: Vec::new(), numbers: HashMap::new() };
        shares.number(id)?;
        Ok(Writer {
            out,
            unit: Unit::default(),
            builder: Builder::default(),
            shares,
            last: Vec::new(),
            added: 0,
            records: 0,
            tracks: 0,
            missing: Vec::new(),
        })
    }

    /// Adds a record, new or changed, without its birth. Keys ascend, of all that is added.
    pub fn record(&mut self, key: &[u8], birth: Epoch, value: &[u8]) -> Result<()> {
        self.check(key, value.len(), SET_VALUE_BYTES_MAX)?;
        self.unit.tell(key, birth, What::Record);
        self.records += 1;
        self.add(Entry { key: key.to_vec(), birth, value: Value::Record(value.to_vec()) })
    }

    /// Adds a track, new or changed.
    pub fn track(&mut self, key: &[u8], birth: Epoch, bytes: &[u8]) -> Result<()> {
        self.check(key, bytes.len(), TRACK_BYTES_MAX)?;
        let place = self.unit.track(key, birth, bytes);
        self.added += bytes.len() as u64;
        self.tracks += 1;
        self.shares.all[0].bytes += bytes.len() as u64;
        self.add(Entry { key: key.to_vec(), birth, value: Value::Track { len: bytes.len() as u32, place } })
    }

    /// Notes that a key is not there any more.
    pub fn gone(&mut self, key: &[u8], birth: Epoch) -> Result<()> {
        self.check(key, 0, 0)?;
        self.unit.tell(key, birth, What::Gone);
        self.close_unit_if_full()
    }

    /// Notes that a track could not be read, of what path: the set is not whole then.
    pub fn lost(&mut self, key: &[u8], birth: Epoch, path: String) -> Result<()> {
        self.check(key, 0, 0)?;
        if self.missing.last() != Some(&path) {
            self.missing.push(path);
        }
        self.unit.tell(key, birth, What::Gone);
        self.tracks += 1;
        self.add(Entry { key: key.to_vec(), birth, value: Value::Lost })
    }

    /// Adds a track, new or changed, whose bytes lie in an earlier set.
    pub fn kept(&mut self, key: &[u8], birth: Epoch, place: super::Spot, len: u32) -> Result<()> {
        self.check(key, len as usize, TRACK_BYTES_MAX)?;
        let set = self.shares.number(place.set)?;
        self.shares.all[set as usize].bytes += u64::from(len);
        self.tracks += 1;
        let super::Spot { offset, stored, at, .. } = place;
        let place = Place { set, offset, stored, at };
        self.add(Entry { key: key.to_vec(), birth, value: Value::Track { len, place } })
    }

    /// Takes an entry over as it is in an earlier set.
    pub(super) fn keep(&mut self, entry: &Entry<super::Spot>) -> Result<()> {
        self.last.clone_from(&entry.key);
        let value = match &entry.value {
            Value::Record(value) => Value::Record(value.clone()),
            Value::Track { len, place } => {
                let set = self.shares.number(place.set)?;
                let super::Spot { offset, stored, at, .. } = *place;
                Value::Track { len: *len, place: Place { set, offset, stored, at } }
            }
            Value::Lost => Value::Lost,
        };
        self.add(Entry { key: entry.key.clone(), birth: entry.birth, value })
    }

    /// Takes a whole node over, which lies in an earlier set.
    pub(super) fn keep_node(&mut self, kind: u8, first: &[u8], (set, offset, stored): (Id, u64, u32)) -> Result<()> {
        let set = self.shares.number(set)?;
        let line = Line { first: first.to_vec(), set, offset, stored };
        self.builder.node(usize::from(kind - LEAF), line);
        self.drain(false)
    }

    /// Whether the leaf that is open would be a small one: what follows had better be put into it.
    pub(super) fn is_leaf_small(&self) -> bool {
        self.builder.is_leaf_small()
    }

    /// Begins with what an earlier moment has, of which entries and nodes are kept or not. Sets that nothing of it lies in any more are
    /// not named again.
    pub(super) fn begin_with(&mut self, foot: &Foot) -> Result<()> {
        for share in foot.sets.iter().filter(|share| share.nodes > 0 || share.bytes > 0) {
            let number = self.shares.number(share.set)? as usize;
            self.shares.all[number] = *share;
        }
        (self.records, self.tracks) = (foot.records, foot.tracks);
        Ok(())
    }

    /// An entry of the earlier moment that is not kept.
    pub(super) fn let_go(&mut self, value: &Value<super::Spot>) -> Result<()> {
        match value {
            Value::Record(_) => self.records = self.records.saturating_sub(1),
            Value::Lost => self.tracks = self.tracks.saturating_sub(1),
            Value::Track { len, place } => {
                let share = self.shares.number(place.set)? as usize;
                let bytes = &mut self.shares.all[share].bytes;
                *bytes = bytes.saturating_sub(u64::from(*len));
                self.tracks = self.tracks.saturating_sub(1);
            }
        }
        Ok(())
    }

    /// A node of the earlier moment that is written anew.
    pub(super) fn let_go_of_node(&mut self, set: Id) -> Result<()> {
        let share = self.shares.number(set)? as usize;
        let nodes = &mut self.shares.all[share].nodes;
        *nodes = nodes.saturating_sub(1);
        Ok(())
    }

    fn check(&mut self, key: &[u8], len: usize, most: usize) -> Result<()> {
        let refused = |problem: String| {
            Err(Error::Refused(Errno::INVAL, format!("{}: the record {} {problem}", self.out.path, hex(key))))
        };
        if key.len() > SET_KEY_BYTES_MAX {
            return refused(format!("has a key of {} bytes, and {SET_KEY_BYTES_MAX} are possible", key.len()));
        }
        if len > most {
            return refused(format!("has {len} bytes, and {most} are possible"));
        }
        if key <= self.last.as_slice() {
            return refused(format!("does not come after {}, the one before", hex(&self.last)));
        }
        self.last.clear();
        self.last.extend_from_slice(key);
        Ok(())
    }

    fn add(&mut self, entry: Entry<Place>) -> Result<()> {
        self.builder.entry(entry);
        self.close_unit_if_full()?;
        self.drain(false)
    }

    fn close_unit_if_full(&mut self) -> Result<()> {
        if self.unit.is_full() || self.builder.waits_for_much() { self.close_unit() } else { Ok(()) }
    }

    fn close_unit(&mut self) -> Result<()> {
        if self.unit.is_empty() {
            return Ok(());
        }
        let packed = self.unit.pack(&mut self.out.compressor, &self.out.seal, self.out.end);
        for (kind, compressed) in packed.frames {
            self.out.frame(kind, compressed)?;
        }
        self.builder.resolve(|place| {
            if place.offset == OPEN {
                *place = packed.places[place.at as usize];
            }
        });
        Ok(())
    }

    /// Writes what waits for nothing.
    fn drain(&mut self, is_end: bool) -> Result<()> {
        if self.unit.has_tracks() && !is_end {
            return Ok(());
        }
        while let Some(step) = self.builder.next() {
            match step {
                Step::Leaf(entries) => {
                    let line = self.node(LEAF, entries[0].key.clone(), &encode_leaf(&entries))?;
                    self.builder.line(1, line);
                }
                Step::Inner(level, lines) => {
                    let line = self.node(LEAF + level as u8, lines[0].first.clone(), &encode_inner(&lines))?;
                    self.builder.line(level + 1, line);
                }
            }
        }
        Ok(())
    }

    fn node(&mut self, kind: u8, first: Vec<u8>, content: &[u8]) -> Result<Line> {
        let compressed = compress(&mut self.out.compressor, content);
        let (offset, stored) = self.out.frame(kind, compressed)?;
        self.shares.all[0].nodes += 1;
        Ok(Line { first, set: 0, offset, stored })
    }

    /// Writes the rest, the foot and the end. With that the set is there, whole and durable.
    pub fn finish(self) -> Result<Summary> {
        self.end(None)
    }

    /// The same, as a part of a moment that was broken off behind a key.
    pub fn finish_part(self, last: Vec<u8>) -> Result<Summary> {
        self.end(Some(last))
    }

    fn end(mut self, part: Option<Vec<u8>>) -> Result<Summary> {
        self.close_unit()?;
        self.builder.end();
        self.drain(true)?;
        let root = loop {
            match self.builder.root() {
                Ok(None) => break None,
                Ok(Some((level, line))) => {
                    let Line { set, offset, stored, .. } = line;
                    break Some(Root { set, kind: LEAF + level as u8, offset, stored });
                }
                Err(()) => self.drain(true)?,
            }
        };
        let (sets, missing) = (std::mem::take(&mut self.shares.all), std::mem::take(&mut self.missing));
        let foot =
            Foot { root, sets, records: self.records, tracks: self.tracks, missing, part: part.map(ByteBuf::from) };
        let compressed = compress(&mut self.out.compressor, &encode(&foot));
        let (id, bytes) = self.out.finish(compressed)?;
        Ok(Summary { id, bytes, added: self.added, foot })
    }
}

/// The object itself.
struct Output {
    id: Id,
    head: [u8; super::layout::HEAD],
    seal: Seal,
    path: String,
    putting: Option<Box<dyn Putting>>,
    compressor: Compressor<'static>,
    end: u64,
}

impl Output {
    fn create(shelf: &dyn Shelf, id: Id, store: Id, seal: &Seal, level: i32) -> Result<Output> {
        let name = object_name(id);
        let path = shelf.path_of(&name);
        let failed = |error| Error::media(format!("making {path}"), error);
        let compressor = Compressor::new(level).map_err(failed)?;
        let putting = shelf.put(&name).map_err(failed)?;
        let head = Head { id, store, is_secret: seal.is_secret() }.encode();
        let mut out = Output { id, head, seal: seal.clone(), path, putting: Some(putting), compressor, end: 0 };
        out.append(&head)?;
        Ok(out)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(putting) = &mut self.putting else {
            let source = io::Error::other("an earlier write failed");
            return Err(Error::media(format!("writing {}", self.path), source));
        };
        if let Err(error) = putting.write(bytes) {
            self.putting = None;
            return Err(Error::media(format!("writing {}", self.path), error));
        }
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Writes a frame; its offset, and what is stored of it.
    fn frame(&mut self, kind: u8, compressed: Vec<u8>) -> Result<(u64, u32)> {
        let offset = self.end;
        let framed = frame(&self.seal, self.id, offset, kind, compressed);
        let framed = framed.map_err(|problem| Error::Refused(Errno::IO, format!("{}: {problem}", self.path)))?;
        self.append(&framed)?;
        Ok((offset, (framed.len() - START) as u32))
    }

    fn finish(mut self, foot: Vec<u8>) -> Result<(Id, u64)> {
        let (offset, stored) = self.frame(FOOT, foot)?;
        let end = End { foot: offset, stored, bytes: self.end + END as u64 };
        self.append(&end.encode(&self.head))?;
        let Some(putting) = self.putting.take() else { return Ok((self.id, self.end)) };
        putting.finish().map_err(|error| Error::media(format!("finishing {}", self.path), error))?;
        Ok((self.id, self.end))
    }
}
