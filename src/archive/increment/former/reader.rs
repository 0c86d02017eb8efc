//! Reading an increment: one entry, a range or all of them, and the bytes of tracks.

use super::super::{Entry, Header, Place, Summary, full_key};
use super::cache::Cache;
use super::cursor::Block;
use super::entries::Entries;
use super::header::Header1;
use super::layout::{
    BLOCK_START, BlockStart, CHECK, FOOTER, Footer, HEAD_START, KIND_MAX, MAGIC, OLDEST, PLAIN, Seed, TRACKS, VERSION,
    ZSTD, number_at,
};
use super::verify::Verifier;
use crate::error::{Error, Result};
use crate::limits::{ARCHIVE_BLOCK_BYTES_MAX, ARCHIVE_HEADER_BYTES_MAX};
use crate::shown::shown_file;
use parking_lot::Mutex;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// An increment's file, open for reading. Threads may share it.
#[derive(Debug)]
pub struct Reader {
    file: File,
    header: Header,
    footer: Footer,
    summary: Summary,
    seed: Seed,
    /// Where the blocks begin.
    start: u64,
    cache: Mutex<Cache>,
}

/// The parts of a head that are needed later.
struct Head {
    header: Header,
    seed: Seed,
    bytes: u64,
}

impl Reader {
    /// Looks at a file that was opened. Head and footer are verified, and nothing else is read.
    pub fn of(file: File, path: PathBuf) -> Result<Reader> {
        let path = &path;
        let failed = |source| Error::media(format!("opening {}", shown_file(path)), source);
        let len = file.metadata().map_err(failed)?.len();
        let head = read_head(&file, path, len)?;
        if len - head.bytes < FOOTER as u64 {
            return Err(damaged(path, format!("it ends after {len} bytes, and its end is missing")));
        }
        let mut bytes = [0; FOOTER];
        read_at(&file, path, len - FOOTER as u64, &mut bytes)?;
        let footer = Footer::decode(&bytes, head.seed, head.bytes, len).map_err(|problem| damaged(path, problem))?;
        let Footer { records, tracks, track_bytes, bytes, .. } = footer;
        let summary = Summary { path: path.clone(), bytes, records, tracks, track_bytes };
        let Head { header, seed, bytes: start } = head;
        Ok(Reader { file, header, footer, summary, seed, start, cache: Mutex::default() })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    pub fn path(&self) -> &Path {
        &self.summary.path
    }

    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.footer.bytes
    }

    /// All entries, in the order of table and key.
    pub fn entries(&self) -> Entries<'_> {
        Entries::new(self, Vec::new(), None)
    }

    /// The entries of a table with `from <= key < to`, in order.
    pub fn range(&self, table: u8, from: &[u8], to: &[u8]) -> Entries<'_> {
        Entries::new(self, full_key(table, from), Some(full_key(table, to)))
    }

    /// One entry, with one read for each level of the index and one for the entry, unless they are in memory.
    pub fn find(&self, table: u8, key: &[u8]) -> Result<Option<Entry>> {
        let from = full_key(table, key);
        // The first key after it.
        let to = [&from, &[0][..]].concat();
        Entries::new(self, from, Some(to)).next().transpose()
    }

    /// The bytes of a track, exactly as many as its place says.
    pub fn read_track(&self, place: &Place) -> Result<Arc<Vec<u8>>> {
        let block = self.load(TRACKS, place.block)?;
        let (at, len) = (place.at as usize, place.raw as usize);
        if at == 0 && len == block.bytes.len() {
            return Ok(block.bytes);
        }
        match block.bytes.get(at..).and_then(|rest| rest.get(..len)) {
            Some(bytes) => Ok(Arc::new(bytes.to_vec())),
            None => {
                let has = block.bytes.len();
                Err(self.damaged(place.block, format!("a track of {len} bytes is said to be at {at} of its {has}")))
            }
        }
    }

    /// Reads everything and verifies it: the checksum of each block, the order of entries, the place of each track,
    /// the index, and the counts. `tell` gets the bytes done so far, and can end it with an error.
    pub fn verify(&self, tell: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        let mut verifier = Verifier::new(self);
        let mut at = self.start;
        while at < self.blocks_end() {
            let (block, end) = self.read_block(at)?;
            verifier.add(block)?;
            at = end;
            tell(at)?;
        }
        verifier.finish(&self.footer)?;
        tell(self.file_bytes())
    }

    /// Kind and offset of the block from which every entry is found.
    pub(super) fn root(&self) -> Option<(u8, u64)> {
        (self.footer.root != 0).then_some((self.footer.root_kind, self.footer.root))
    }

    /// A block of a kind, from memory or from the file.
    pub(super) fn load(&self, kind: u8, offset: u64) -> Result<Block> {
        let cached = self.cache.lock().get(offset);
        let block = match cached {
            Some(block) => block,
            None => {
                let (block, _) = self.read_block(offset)?;
                self.cache.lock().put(block.clone());
                block
            }
        };
        match block.kind == kind {
            true => Ok(block),
            false => Err(self.damaged(offset, format!("it is of kind {} instead of {kind}", block.kind))),
        }
    }

    /// A block from the file, and the offset behind it.
    fn read_block(&self, offset: u64) -> Result<(Block, u64)> {
        let damaged = |problem| self.damaged(offset, problem);
        let room = self.blocks_end().saturating_sub(offset);
        if offset < self.start || room < BLOCK_START as u64 {
            let (start, end) = (self.start, self.blocks_end());
            return Err(damaged(format!("there can be none: blocks lie from {start} to {end}")));
        }
        let mut head = [0; BLOCK_START];
        read_at(&self.file, self.path(), offset, &mut head)?;
        let start = BlockStart::decode(&head);
        let room = room - BLOCK_START as u64;
        check_start(&start, room).map_err(damaged)?;
        let mut bytes = vec![0; BLOCK_START + start.stored as usize];
        let (copy, stored) = bytes.split_at_mut(BLOCK_START);
        copy.copy_from_slice(&head);
        read_at(&self.file, self.path(), offset + BLOCK_START as u64, stored)?;
        let found = self.seed.check(offset, &bytes[CHECK..]);
        if found != start.check {
            return Err(damaged(format!("its checksum is {found:016x} instead of {:016x}", start.check)));
        }
        let end = offset + bytes.len() as u64;
        let bytes = Arc::new(decode(&start, bytes).map_err(damaged)?);
        Ok((Block { offset, kind: start.kind, bytes }, end))
    }

    fn blocks_end(&self) -> u64 {
        self.footer.bytes - FOOTER as u64
    }

    /// The error for a block that is not what it should be.
    pub(super) fn damaged(&self, offset: u64, problem: String) -> Error {
        Error::corrupt(format!("the block at {offset} of {}", shown_file(self.path())), problem)
    }
}

/// Whether a block can be what its start says, with `room` bytes behind it.
fn check_start(start: &BlockStart, room: u64) -> Result<(), String> {
    let (stored, raw) = (u64::from(start.stored), u64::from(start.raw));
    if stored > raw || raw > ARCHIVE_BLOCK_BYTES_MAX as u64 || stored > room {
        return Err(format!(
            "it says that {stored} of {raw} bytes are stored; {room} follow, and {ARCHIVE_BLOCK_BYTES_MAX} are possible"
        ));
    }
    if start.kind > KIND_MAX {
        return Err(format!("it is of kind {}, and {KIND_MAX} is the last one known", start.kind));
    }
    Ok(())
}

/// What a block was before it was compressed; `bytes` is the block with its start.
fn decode(start: &BlockStart, mut bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    let raw = start.raw as usize;
    match start.codec {
        PLAIN => {
            bytes.drain(..BLOCK_START);
        }
        ZSTD => {
            let mut out = vec![0; raw];
            let len = zstd::bulk::decompress_to_buffer(&bytes[BLOCK_START..], &mut out[..])
                .map_err(|error| format!("it does not decompress: {error}"))?;
            out.truncate(len);
            bytes = out;
        }
        other => return Err(format!("compression {other} is not known")),
    }
    if bytes.len() == raw { Ok(bytes) } else { Err(format!("it has {} bytes instead of {raw}", bytes.len())) }
}

fn damaged(path: &Path, problem: String) -> Error {
    Error::corrupt(shown_file(path).to_string(), problem)
}

fn read_at(file: &File, path: &Path, offset: u64, out: &mut [u8]) -> Result<()> {
    file.read_exact_at(out, offset)
        .map_err(|source| Error::media(format!("reading {} at {offset}", shown_file(path)), source))
}

fn read_head(file: &File, path: &Path, len: u64) -> Result<Head> {
    let mut start = [0; HEAD_START];
    let found = &mut start[..len.min(HEAD_START as u64) as usize];
    read_at(file, path, 0, found)?;
    let magic = &found[..found.len().min(MAGIC.len())];
    if magic != MAGIC {
        let path = shown_file(path);
        return Err(Error::Store(format!("{path} is no increment of an archive, or its beginning was overwritten")));
    }
    if found.len() < HEAD_START {
        return Err(damaged(path, format!("it ends after {len} bytes, within its head")));
    }
    let number = |at: usize| u32::from_le_bytes([start[at], start[at + 1], start[at + 2], start[at + 3]]);
    let (version, header_len) = (number(8), number(12) as usize);
    let whole = header_len.saturating_add(HEAD_START + CHECK);
    if header_len > ARCHIVE_HEADER_BYTES_MAX || whole as u64 > len {
        let problem = format!(
            "its header is said to have {header_len} bytes, where {ARCHIVE_HEADER_BYTES_MAX} are possible, in a file of {len}"
        );
        return Err(damaged(path, problem));
    }
    let mut head = vec![0; whole];
    read_at(file, path, 0, &mut head)?;
    let (bytes, check) = head.split_at(whole - CHECK);
    let (found, expected) = (xxh3_64(bytes), number_at(check, 0));
    if found != expected {
        return Err(damaged(path, format!("its head has the checksum {found:016x} instead of {expected:016x}")));
    }
    if !(OLDEST..=VERSION).contains(&version) {
        return Err(Error::Store(format!(
            "{} has format {version}, and this program reads formats up to {VERSION}; use a newer version of pitfs",
            shown_file(path)
        )));
    }
    let bytes = &bytes[HEAD_START..];
    let header = match version {
        1 => rmp_serde::from_slice::<Header1>(bytes).map(Header::from),
        _ => rmp_serde::from_slice(bytes),
    };
    let header: Header = header.map_err(|error| damaged(path, format!("its header does not decode: {error}")))?;
    header.check().map_err(|problem| damaged(path, problem))?;
    Ok(Head { header, seed: Seed(expected), bytes: whole as u64 })
}
