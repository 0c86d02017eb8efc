//! Bytes of a set: the beginning of its head, frames, its end, and numbers and keys within frames.
//!
//! ```text
//! head:  "pitfsset" │ version u32 │ flags u32 │ id 16 │ store 16 │ check u64      and a frame with the header behind it
//! frame: stored u32 │ kind u8 │ sealed: codec u8 │ raw u32 │ content
//! end:   offset of the foot u64 │ stored of it u32 │ 0 u32 │ length u64 │ check u64 │ "pitfsend"
//! ```
//!
//! Numbers are little-endian. Checks are XXH3 of what stands before, of the end with that of the head as seed.

use super::seal::Seal;
use crate::id::Id;
use crate::limits::{SET_FRAME_BYTES_MAX, SET_LEVELS_MAX};
use crate::meta::packed::{take_bytes, take_number};
use std::cell::RefCell;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};
use zstd::bulk::{Compressor, Decompressor};

pub const MAGIC: &[u8; 8] = b"pitfsset";
const END_MAGIC: &[u8; 8] = b"pitfsend";
const VERSION: u32 = 1;
/// The frames are encrypted.
const SECRET: u32 = 1;

pub(super) const HEAD: usize = 56;
pub(super) const END: usize = 40;
pub(super) const START: usize = 5;
/// What stands before the content within the seal.
const INNER: usize = 5;

/// Kinds of frames. One above `LEAF` is a node over leaves, two above it a node over those, and so on.
pub(super) const DATA: u8 = 0;
pub(super) const LABEL: u8 = 1;
pub(super) const LEAF: u8 = 2;
pub(super) const KIND_MAX: u8 = LEAF + SET_LEVELS_MAX as u8;
pub(super) const HEADER: u8 = 0xf0;
pub(super) const FOOT: u8 = 0xf1;

/// How the content of a frame is stored, with the numbers that a store has.
const PLAIN: u8 = 0;
const ZSTD: u8 = 2;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// The beginning of a head, which can be read without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub id: Id,
    pub store: Id,
    pub is_secret: bool,
}

impl Head {
    pub fn encode(&self) -> [u8; HEAD] {
        let mut out = [0; HEAD];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&(if self.is_secret { SECRET } else { 0 }).to_le_bytes());
        out[16..32].copy_from_slice(&self.id.to_bytes());
        out[32..48].copy_from_slice(&self.store.to_bytes());
        let check = xxh3_64(&out[..48]);
        out[48..].copy_from_slice(&check.to_le_bytes());
        out
    }

    /// What a head says, or what is wrong with it.
    pub fn decode(bytes: &[u8; HEAD]) -> Result<Head, Problem> {
        if bytes[..8] != MAGIC[..] {
            return Err(Problem::Other("it is no set, or its beginning was overwritten".into()));
        }
        let (found, expected) = (xxh3_64(&bytes[..48]), u64_at(bytes, 48));
        let version = u32_at(bytes, 8);
        if found == expected && version != VERSION {
            return Err(Problem::Other(format!(
                "it has format {version}, and this program reads format {VERSION}; use a newer version of pitfs"
            )));
        }
        let flags = u32_at(bytes, 12);
        if found != expected || flags & !SECRET != 0 {
            return Err(Problem::Damage("its head is not what was written".into()));
        }
        let id = |at: usize| {
            let mut id = [0; 16];
            id.copy_from_slice(&bytes[at..at + 16]);
            Id::from_bytes(id)
        };
        Ok(Head { id: id(16), store: id(32), is_secret: flags & SECRET != 0 })
    }
}

/// Why a set cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    Damage(String),
    Other(String),
}

/// The end of a set, which says where its foot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub foot: u64,
    pub stored: u32,
    /// Length of the set in bytes, with this.
    pub bytes: u64,
}

impl End {
    pub fn encode(&self, head: &[u8; HEAD]) -> [u8; END] {
        let mut out = [0; END];
        out[..8].copy_from_slice(&self.foot.to_le_bytes());
        out[8..12].copy_from_slice(&self.stored.to_le_bytes());
        out[16..24].copy_from_slice(&self.bytes.to_le_bytes());
        let check = xxh3_64_with_seed(&out[..24], u64_at(head, 48));
        out[24..32].copy_from_slice(&check.to_le_bytes());
        out[32..].copy_from_slice(END_MAGIC);
        out
    }

    pub fn decode(bytes: &[u8; END], head: &[u8; HEAD], len: u64) -> Result<End, String> {
        if bytes[32..] != END_MAGIC[..] {
            return Err("its end is missing or was overwritten".into());
        }
        if xxh3_64_with_seed(&bytes[..24], u64_at(head, 48)) != u64_at(bytes, 24) {
            return Err("its end is not what was written".into());
        }
        let end = End { foot: u64_at(bytes, 0), stored: u32_at(bytes, 8), bytes: u64_at(bytes, 16) };
        let is_possible = end.bytes == len
            && end.foot >= HEAD as u64
            && end.foot.checked_add((START + END) as u64 + u64::from(end.stored)).is_some_and(|end| end == len);
        if is_possible { Ok(end) } else { Err(format!("it is said to have {} bytes, and has {len}", end.bytes)) }
    }
}

/// For what place something is sealed.
fn place(id: Id, offset: u64, kind: u8) -> [u8; 25] {
    let mut place = [0; 25];
    place[..16].copy_from_slice(&id.to_bytes());
    place[16..24].copy_from_slice(&offset.to_le_bytes());
    place[24] = kind;
    place
}

/// Content that is compressed, where that makes it smaller: codec, length before, and bytes.
pub(super) fn compress(compressor: &mut Compressor<'_>, content: &[u8]) -> Vec<u8> {
    let mut out = vec![0; INNER + zstd::zstd_safe::compress_bound(content.len())];
    out[1..INNER].copy_from_slice(&(content.len() as u32).to_le_bytes());
    // Only a lack of memory fails here; the content is then stored as it is.
    let (codec, len) = match compressor.compress_to_buffer(content, &mut out[INNER..]) {
        Ok(len) if len < content.len() => (ZSTD, len),
        _ => {
            out.truncate(INNER);
            out.extend_from_slice(content);
            (PLAIN, content.len())
        }
    };
    out[0] = codec;
    out.truncate(INNER + len);
    out
}

/// A whole frame of compressed content, for its place.
pub(super) fn frame(seal: &Seal, id: Id, offset: u64, kind: u8, compressed: Vec<u8>) -> Result<Vec<u8>, String> {
    let mut sealed = compressed;
    seal.close(&place(id, offset, kind), &mut sealed)?;
    let mut out = Vec::with_capacity(START + sealed.len());
    out.extend_from_slice(&(sealed.len() as u32).to_le_bytes());
    out.push(kind);
    out.extend_from_slice(&sealed);
    Ok(out)
}

/// What the first bytes of a frame say: bytes that are stored behind them, and its kind.
pub(super) fn start(bytes: &[u8; START]) -> (u32, u8) {
    (u32_at(bytes, 0), bytes[4])
}

/// The content of a frame that is said to be of a kind, or what is wrong with it.
pub(super) fn open(seal: &Seal, id: Id, offset: u64, kind: u8, mut bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    let Some(first) = bytes.first_chunk::<START>() else { return Err("it ends within a frame".into()) };
    let (stored, found) = start(first);
    if found != kind || stored as usize != bytes.len() - START {
        return Err(format!("it is a frame of kind {found} and {stored} bytes, and should be one of kind {kind}"));
    }
    bytes.drain(..START);
    seal.open(&place(id, offset, kind), &mut bytes)?;
    if bytes.len() < INNER {
        return Err("it has no content".into());
    }
    let (codec, raw) = (bytes[0], u32_at(&bytes, 1) as usize);
    if raw > SET_FRAME_BYTES_MAX {
        return Err(format!("it is said to have {raw} bytes, and {SET_FRAME_BYTES_MAX} are possible"));
    }
    let content = match codec {
        PLAIN => bytes.split_off(INNER),
        ZSTD => decompress(&bytes[INNER..], raw).map_err(|error| format!("it does not decompress: {error}"))?,
        other => return Err(format!("compression {other} is not known")),
    };
    if content.len() == raw { Ok(content) } else { Err(format!("it has {} bytes instead of {raw}", content.len())) }
}

/// Each thread keeps what it decompresses with: making that takes as long as decompressing a small frame.
fn decompress(bytes: &[u8], raw: usize) -> std::io::Result<Vec<u8>> {
    thread_local! {
        static KEPT: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }
    KEPT.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(kept) => kept,
            None => kept.insert(Decompressor::new()?),
        };
        decompressor.decompress(bytes, raw)
    })
}

/// Bytes that are taken apart, from the front.
pub(super) struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn number(&mut self) -> Result<u64, String> {
        let mut at = 0;
        let number = take_number(self.0, &mut at)?;
        self.0 = &self.0[at..];
        Ok(number)
    }

    pub fn number_below(&mut self, end: u64, what: &str) -> Result<u64, String> {
        let number = self.number()?;
        if number < end {
            Ok(number)
        } else {
            Err(format!("{what} is {number}, and can be {} at most", end.saturating_sub(1)))
        }
    }

    pub fn take(&mut self, len: u64) -> Result<&'a [u8], String> {
        let mut at = 0;
        let taken = take_bytes(self.0, &mut at, len)?;
        self.0 = &self.0[at..];
        Ok(taken)
    }

    /// The key behind another one, which has to be greater; the first may be any.
    pub fn key(&mut self, before: &[u8], is_first: bool, most: usize) -> Result<Vec<u8>, String> {
        let (shared, own) = (self.number()?, self.number()?);
        let own = self.take(own)?;
        let shared =
            usize::try_from(shared).ok().and_then(|len| before.get(..len)).ok_or("a key shares more than there is")?;
        let key = [shared, own].concat();
        if key.len() > most || key.is_empty() {
            return Err(format!("a key has {} bytes, and {most} are possible", key.len()));
        }
        if !is_first && key.as_slice() <= before {
            return Err("its keys do not ascend".into());
        }
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::packed::{put_key, put_number};

    #[test]
    fn heads_and_ends_come_back_and_belong_together() {
        let head = Head { id: Id::random(), store: Id::random(), is_secret: true };
        let bytes = head.encode();
        assert_eq!(Head::decode(&bytes), Ok(head));
        for at in 0..HEAD {
            let mut changed = bytes;
            changed[at] ^= 0x10;
            assert!(Head::decode(&changed).is_err(), "byte {at}");
        }
        let end = End { foot: 100, stored: 55, bytes: 200 };
        let encoded = end.encode(&bytes);
        assert_eq!(End::decode(&encoded, &bytes, 200), Ok(end));
        assert!(End::decode(&encoded, &bytes, 201).is_err());
        assert!(End::decode(&encoded, &Head { id: Id::random(), ..head }.encode(), 200).is_err());
        let mut newer = bytes;
        newer[8] = 9;
        let check = xxh3_64(&newer[..48]);
        newer[48..].copy_from_slice(&check.to_le_bytes());
        assert!(matches!(Head::decode(&newer), Err(Problem::Other(text)) if text.contains("format 9")));
    }

    #[test]
    fn frames_are_compressed_where_that_helps_and_open_at_their_place() {
        let (seal, id) = (Seal::plain(), Id::random());
        let mut compressor = Compressor::new(3).unwrap();
        let noise: Vec<u8> = (0..1000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for content in [vec![], vec![7; 5000], noise] {
            let compressed = compress(&mut compressor, &content);
            let whole = frame(&seal, id, 77, LEAF, compressed.clone()).unwrap();
            assert_eq!(whole.len(), START + compressed.len() + seal.overhead());
            assert_eq!(open(&seal, id, 77, LEAF, whole.clone()).unwrap(), content);
            assert!(open(&seal, id, 78, LEAF, whole.clone()).is_err());
            assert!(open(&seal, id, 77, LABEL, whole.clone()).is_err());
            assert!(open(&seal, Id::random(), 77, LEAF, whole).is_err());
        }
    }

    #[test]
    fn numbers_and_keys_come_back() {
        for number in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u64::MAX >> 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            assert_eq!(Bytes(&bytes).number(), Ok(number));
            assert!(Bytes(&bytes[..bytes.len() - 1]).number().is_err());
        }
        assert!(Bytes(&[0xff; 20]).number().is_err());
        let mut bytes = Vec::new();
        put_key(&mut bytes, b"", b"abc");
        put_key(&mut bytes, b"abc", b"abd");
        let mut rest = Bytes(&bytes);
        assert_eq!(rest.key(b"", true, 9).unwrap(), b"abc");
        assert_eq!(rest.key(b"abc", false, 9).unwrap(), b"abd");
        assert!(rest.is_empty());
        assert!(Bytes(&bytes).key(b"b", false, 9).is_err(), "it does not ascend");
    }
}
