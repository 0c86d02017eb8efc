//! Leaves and nodes of the index: entries by key, and lines that lead to nodes of the level below.
//!
//! ```text
//! leaf:  key, birth, len << 2 | form, …      form 0: the value · 1: a track right behind the one before · 2: set, frame, stored, at
//!                                        form 3: a track that is lost
//! node:  key, set, offset, stored            the first key of a node below, and where that is
//! ```
//!
//! A set is named by its number in the foot of the set that has the node: 0 is that set itself.

use super::layout::Bytes;
use crate::clock::Epoch;
use crate::limits::{SET_KEY_BYTES_MAX, SET_SETS_MAX, SET_VALUE_BYTES_MAX, TRACK_BYTES_MAX};
use crate::meta::packed::{put_key, put_number};

const RECORD: u64 = 0;
const NEXT_TRACK: u64 = 1;
const PLACED_TRACK: u64 = 2;
const LOST: u64 = 3;

/// What a key is at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<P> {
    /// A table's number and a record's key without its base.
    pub key: Vec<u8>,
    /// The epoch of the store in which it became what it is.
    pub birth: Epoch,
    pub value: Value<P>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<P> {
    /// As the store has it, without its birth.
    Record(Vec<u8>),
    /// The bytes of a track, which lie at a place.
    Track { len: u32, place: P },
    /// A track whose bytes could not be read when the set was made: nobody has them here.
    Lost,
}

/// Where the bytes of a track begin: a set's number, a frame of data and what is stored of it, and bytes into its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub set: u32,
    pub offset: u64,
    pub stored: u32,
    pub at: u32,
}

/// A node of the level below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The first key in it, or one that is not greater.
    pub first: Vec<u8>,
    pub set: u32,
    pub offset: u64,
    pub stored: u32,
}

/// A node as it is read.
#[derive(Debug)]
pub(super) enum Node {
    Leaf(Vec<Entry<Place>>),
    Inner(Vec<Line>),
}

pub(super) fn encode_leaf(entries: &[Entry<Place>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut before: &[u8] = b"";
    let mut next: Option<Place> = None;
    for entry in entries {
        put_key(&mut out, before, &entry.key);
        before = &entry.key;
        put_number(&mut out, entry.birth.number().into());
        match &entry.value {
            Value::Record(value) => {
                put_number(&mut out, (value.len() as u64) << 2 | RECORD);
                out.extend_from_slice(value);
            }
            Value::Track { len, place } => {
                let is_next = next == Some(*place);
                put_number(&mut out, u64::from(*len) << 2 | if is_next { NEXT_TRACK } else { PLACED_TRACK });
                if !is_next {
                    let Place { set, offset, stored, at } = *place;
                    [set.into(), offset, stored.into(), at.into()]
                        .into_iter()
                        .for_each(|number| put_number(&mut out, number));
                }
                next = Some(Place { at: place.at + len, ..*place });
            }
            Value::Lost => put_number(&mut out, LOST),
        }
    }
    out
}

pub(super) fn encode_inner(lines: &[Line]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut before: &[u8] = b"";
    for line in lines {
        put_key(&mut out, before, &line.first);
        before = &line.first;
        [line.set.into(), line.offset, line.stored.into()].into_iter().for_each(|number| put_number(&mut out, number));
    }
    out
}

/// Bytes of the keys of a node at most: far more than one has.
const KEYS_MOST: usize = 2 << 20;

/// What a leaf has, or what is wrong with it.
pub(super) fn decode_leaf(bytes: &[u8]) -> Result<Node, String> {
    let mut rest = Bytes(bytes);
    let mut entries: Vec<Entry<Place>> = Vec::new();
    let mut next: Option<Place> = None;
    let mut keys = 0;
    while !rest.is_empty() {
        let before: &[u8] = entries.last().map_or(b"", |entry| &entry.key);
        let key = rest.key(before, entries.is_empty(), SET_KEY_BYTES_MAX)?;
        keys = few(keys + key.len())?;
        let birth = Epoch::new(rest.number_below(1 << 32, "a birth")? as u32);
        let number = rest.number()?;
        let (len, form) = (number >> 2, number & 3);
        let value = match form {
            RECORD if len <= SET_VALUE_BYTES_MAX as u64 => Value::Record(rest.take(len)?.to_vec()),
            NEXT_TRACK | PLACED_TRACK if len <= TRACK_BYTES_MAX as u64 => {
                let place = match next.filter(|_| form == NEXT_TRACK) {
                    Some(place) => place,
                    None if form == PLACED_TRACK => take_place(&mut rest)?,
                    None => return Err("a track follows none".into()),
                };
                let at = place.at.checked_add(len as u32).ok_or("a track has no end")?;
                next = Some(Place { at, ..place });
                Value::Track { len: len as u32, place }
            }
            LOST if len == 0 => Value::Lost,
            _ => return Err(format!("a value has form {form} and {len} bytes")),
        };
        entries.push(Entry { key, birth, value });
    }
    if entries.is_empty() { Err("it is empty".into()) } else { Ok(Node::Leaf(entries)) }
}

/// What begins like the one before takes few bytes, and many of memory: no node that was written has as many.
fn few(keys: usize) -> Result<usize, String> {
    if keys <= KEYS_MOST { Ok(keys) } else { Err(format!("it has more than {KEYS_MOST} bytes of keys")) }
}

fn take_place(rest: &mut Bytes<'_>) -> Result<Place, String> {
    Ok(Place {
        set: rest.number_below(SET_SETS_MAX as u64, "the number of a set")? as u32,
        offset: rest.number_below(1 << 62, "an offset")?,
        stored: rest.number_below(1 << 32, "a length")? as u32,
        at: rest.number_below(1 << 32, "a place in a frame")? as u32,
    })
}

/// What a node over others has, or what is wrong with it.
pub(super) fn decode_inner(bytes: &[u8]) -> Result<Node, String> {
    let mut rest = Bytes(bytes);
    let mut lines: Vec<Line> = Vec::new();
    let mut keys = 0;
    while !rest.is_empty() {
        let before: &[u8] = lines.last().map_or(b"", |line| &line.first);
        let first = rest.key(before, lines.is_empty(), SET_KEY_BYTES_MAX)?;
        keys = few(keys + first.len())?;
        lines.push(Line {
            first,
            set: rest.number_below(SET_SETS_MAX as u64, "the number of a set")? as u32,
            offset: rest.number_below(1 << 62, "an offset")?,
            stored: rest.number_below(1 << 32, "a length")? as u32,
        });
    }
    if lines.is_empty() { Err("it is empty".into()) } else { Ok(Node::Inner(lines)) }
}

impl Node {
    /// About how many bytes of memory it takes.
    pub fn memory(&self) -> usize {
        match self {
            Node::Leaf(entries) => entries.iter().map(memory_of).sum(),
            Node::Inner(lines) => lines.iter().map(|line| line.first.len() + size_of::<Line>()).sum(),
        }
    }
}

fn memory_of(entry: &Entry<Place>) -> usize {
    let value = if let Value::Record(value) = &entry.value { value.len() } else { 0 };
    entry.key.len() + value + size_of::<Entry<Place>>()
}

/// About how many bytes an entry takes in a leaf.
pub(super) fn weight(entry: &Entry<Place>) -> usize {
    let value = if let Value::Record(value) = &entry.value { value.len() } else { 8 };
    // Neighbours share most of the eight bytes of an inode and more.
    entry.key.len().saturating_sub(6) + value + 6
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn entries() -> Vec<Entry<Place>> {
        let place = Place { set: 3, offset: 1 << 40, stored: 77, at: 5 };
        let entry = |key: &[u8], value| Entry { key: key.to_vec(), birth: Epoch::new(9), value };
        vec![
            entry(b"a", Value::Record(b"value".to_vec())),
            entry(b"ab", Value::Record(vec![])),
            entry(b"t1", Value::Track { len: 10, place }),
            entry(b"t2", Value::Track { len: 0, place: Place { at: 15, ..place } }),
            entry(b"t3", Value::Track { len: 4, place: Place { at: 15, ..place } }),
            entry(b"u", Value::Track { len: 4, place: Place { set: 0, ..place } }),
            entry(b"v", Value::Lost),
        ]
    }

    #[test]
    fn leaves_and_nodes_come_back() {
        let bytes = encode_leaf(&entries());
        assert!(matches!(decode_leaf(&bytes), Ok(Node::Leaf(found)) if found == entries()));
        let line = |first: &[u8]| Line { first: first.to_vec(), set: 2, offset: 1 << 35, stored: 99 };
        let lines = vec![line(b"a"), line(b"abc"), line(b"b")];
        let bytes = encode_inner(&lines);
        assert!(matches!(decode_inner(&bytes), Ok(Node::Inner(found)) if found == lines));
    }

    #[test]
    fn nonsense_is_told_and_ends() {
        let (leaf, inner) =
            (encode_leaf(&entries()), encode_inner(&[Line { first: vec![1], set: 0, offset: 9, stored: 9 }]));
        for bytes in [leaf, inner] {
            for at in 0..bytes.len() {
                for flip in [1, 0x80, 0xff] {
                    let mut changed = bytes.clone();
                    changed[at] ^= flip;
                    let _any = (decode_leaf(&changed), decode_inner(&changed));
                }
                let _any = (decode_leaf(&bytes[..at]), decode_inner(&bytes[..at]));
            }
        }
        assert!(decode_leaf(b"").is_err() && decode_inner(b"").is_err());
        // A track behind none.
        assert!(decode_leaf(&[0, 1, b'a', 1, 4 << 2 | 1]).is_err());
    }
}
