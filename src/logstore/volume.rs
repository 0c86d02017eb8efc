//! A volume: one place that holds bytes, handed out in physical segments of 2 MiB.
//!
//! Which physical segments are taken is kept in the metadata, in chunks of one bit each. Physical
//! segment 0 carries the volume's header.

use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::limits::*;
use crate::media::{Media, MediaDir};
use crate::meta::{Meta, Table};
use bitvec::order::Lsb0;
use bitvec::vec::BitVec;
use parking_lot::Mutex;
use serde_bytes::ByteBuf;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use xxhash_rust::xxh3::xxh3_64;

/// Physical segments of which one record says whether they are taken.
pub(super) const CHUNK_BITS: usize = 4096;
const CHUNKS_MAX: u32 = (PSEGS_MAX / CHUNK_BITS as u64) as u32;
const MAGIC: &[u8; 8] = b"pitfsvol";
/// The version of the label.
const LABEL: u16 = 4;
const LABEL_BYTES: usize = 56;
/// In format 3, which had no id of the store.
const OLD_LABEL_BYTES: usize = 24;

type Chunk = BitVec<u8, Lsb0>;

pub struct Volume {
    number: u16,
    media: Arc<dyn Media>,
    state: Mutex<State>,
    /// Something was written or grown since the last sync.
    is_changed: AtomicBool,
}

#[derive(Default)]
struct State {
    chunks: BTreeMap<u32, Chunk>,
    changed: BTreeSet<u32>,
    /// No chunk before this one has room for a segment.
    first_with_room: u32,
    /// Released, but still referred to by the last durable commit.
    held: BTreeSet<u32>,
}

fn file_name(number: u16) -> String {
    format!("volume.{number}")
}

fn key(number: u16, chunk: u32) -> [u8; 6] {
    let mut key = [0; 6];
    key[..2].copy_from_slice(&number.to_be_bytes());
    key[2..].copy_from_slice(&chunk.to_be_bytes());
    key
}

/// Whose a volume is, and its own id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    pub store: Id,
    pub volume: Id,
}

/// What a volume says of itself at its beginning: whose it is, and which of the store's.
fn label(number: u16, ids: Ids) -> [u8; LABEL_BYTES] {
    let mut label = [0; LABEL_BYTES];
    label[..8].copy_from_slice(MAGIC);
    label[8..10].copy_from_slice(&number.to_le_bytes());
    label[10..12].copy_from_slice(&LABEL.to_le_bytes());
    label[16..32].copy_from_slice(&ids.store.to_bytes());
    label[32..48].copy_from_slice(&ids.volume.to_bytes());
    let check = xxh3_64(&label[..48]);
    label[48..].copy_from_slice(&check.to_le_bytes());
    label
}

fn old_label(number: u16) -> [u8; OLD_LABEL_BYTES] {
    let mut label = [0; OLD_LABEL_BYTES];
    label[..8].copy_from_slice(MAGIC);
    label[8..10].copy_from_slice(&number.to_le_bytes());
    let check = xxh3_64(&label[..16]);
    label[16..].copy_from_slice(&check.to_le_bytes());
    label
}

/// Labels a volume, durably, as of the present format with its ids, or of format 3 without any.
pub(super) fn relabel(dir: &dyn MediaDir, number: u16, ids: Option<Ids>) -> Result<()> {
    let failed = |source| Error::media(format!("writing the label of {}", file_name(number)), source);
    let media = dir.open(&file_name(number), false).map_err(failed)?;
    let mut bytes = [0; LABEL_BYTES];
    match ids {
        Some(ids) => bytes = label(number, ids),
        None => bytes[..OLD_LABEL_BYTES].copy_from_slice(&old_label(number)),
    }
    media.write_at(0, &bytes).and_then(|()| media.sync()).map_err(failed)
}

/// Why a label is not the one expected.
fn whose(name: &str, found: &[u8; LABEL_BYTES], number: u16, ids: Ids) -> Error {
    let id_at = |at: usize| {
        let mut id = [0; 16];
        id.copy_from_slice(&found[at..at + 16]);
        Id::from_bytes(id)
    };
    let other = Ids { store: id_at(16), volume: id_at(32) };
    if *found == label(number, other) {
        let whose =
            if other.store == ids.store { "is another volume of this store" } else { "belongs to another store" };
        let (is, wanted) = (other.volume, ids.volume);
        return Error::Store(format!("{name} {whose}: it is {is}, not {wanted}; put the right one back"));
    }
    Error::corrupt(name, "its label is not that of this volume")
}

impl Volume {
    pub(super) fn create(dir: &dyn MediaDir, meta: &mut Meta, number: u16, ids: Ids) -> Result<()> {
        let failed = |source| Error::media(format!("making {}", file_name(number)), source);
        let media = dir.open(&file_name(number), true).map_err(failed)?;
        media.set_len(PSEG_BYTES).map_err(failed)?;
        media.write_at(0, &label(number, ids)).map_err(failed)?;
        media.sync().map_err(failed)?;
        let mut chunk = empty_chunk();
        chunk.set(0, true);
        meta.put(Table::Volume, &key(number, 0), &ByteBuf::from(chunk.into_vec()));
        Ok(())
    }

    pub(super) fn open(dir: &dyn MediaDir, number: u16, ids: Ids) -> Result<Volume> {
        let name = file_name(number);
        let media = dir.open(&name, false).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => {
                Error::corrupt(format!("the store in {}", dir.describe()), format!("{name} is missing"))
            }
            _ => Error::media(format!("opening {name}"), source),
        })?;
        let mut found = [0; LABEL_BYTES];
        media.read_at(0, &mut found).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Error::corrupt(name.clone(), "it is too short to have a label"),
            _ => Error::media(format!("reading {name}"), source),
        })?;
        if found != label(number, ids) {
            return Err(whose(&name, &found, number, ids));
        }
        Ok(Volume { number, media, state: Mutex::default(), is_changed: AtomicBool::new(true) })
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.media.read_at(offset, out)
    }

    pub(super) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.is_changed.store(true, Ordering::SeqCst);
        self.media.write_at(offset, data)
    }

    pub(super) fn sync(&self) -> Result<()> {
        if !self.is_changed.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        self.media.sync().map_err(|source| Error::media(format!("syncing {}", file_name(self.number)), source))
    }

    /// Hands out physical segments with real room behind them, in one piece if there is one.
    pub(super) fn allocate(&self, meta: &Meta, count: usize) -> Result<Vec<u32>> {
        let mut state = self.state.lock();
        let mut found = Vec::new();
        for number in state.first_with_room.. {
            if number >= CHUNKS_MAX {
                return Err(Error::Posix(Errno::NOSPC));
            }
            self.chunk(&mut state, meta, number)?;
            let first = number * CHUNK_BITS as u32;
            let chunk = &state.chunks[&number];
            let is_free = |bit: usize| !chunk[bit] && !state.held.contains(&(first + bit as u32));
            let start = (0..CHUNK_BITS).step_by(count).find(|&start| (start..start + count).all(is_free));
            if let Some(start) = start {
                found = (start..start + count).map(|bit| first + bit as u32).collect();
                state.first_with_room = number;
                break;
            }
        }
        self.is_changed.store(true, Ordering::SeqCst);
        for pseg in &found {
            let offset = u64::from(*pseg) * PSEG_BYTES;
            self.media
                .allocate(offset, PSEG_BYTES)
                .map_err(|source| Error::media(format!("growing {}", file_name(self.number)), source))?;
        }
        for &pseg in &found {
            self.set(&mut state, meta, pseg, true)?;
        }
        Ok(found)
    }

    /// Makes sure that a part of a physical segment that is taken has room behind it.
    pub(super) fn ensure(&self, offset: u64, len: u64) -> Result<()> {
        self.is_changed.store(true, Ordering::SeqCst);
        let failed = |source| Error::media(format!("growing {}", file_name(self.number)), source);
        self.media.allocate(offset, len).map_err(failed)
    }

    pub(super) fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.media.punch(offset, len)
    }

    /// Takes physical segments back; they may be handed out again after [`Volume::reuse`].
    pub(super) fn release(&self, meta: &Meta, psegs: &[u32]) -> Result<()> {
        let mut state = self.state.lock();
        for &pseg in psegs {
            self.set(&mut state, meta, pseg, false)?;
            state.held.insert(pseg);
        }
        Ok(())
    }

    /// The release of these physical segments is durable: their room goes back to the file system.
    pub(super) fn reuse(&self, psegs: &[u32]) -> Result<()> {
        let mut state = self.state.lock();
        let failed = |source| Error::media(format!("giving back room of {}", file_name(self.number)), source);
        for pseg in psegs {
            self.media.punch(u64::from(*pseg) * PSEG_BYTES, PSEG_BYTES).map_err(failed)?;
            state.held.remove(pseg);
            state.first_with_room = state.first_with_room.min(pseg / CHUNK_BITS as u32);
        }
        Ok(())
    }

    pub(super) fn freeze(&self, meta: &mut Meta) {
        let mut state = self.state.lock();
        for number in std::mem::take(&mut state.changed) {
            let bytes = ByteBuf::from(state.chunks[&number].clone().into_vec());
            meta.put(Table::Volume, &key(self.number, number), &bytes);
        }
    }

    /// Whether a physical segment is in use, as the map of room says.
    pub(super) fn is_taken(&self, meta: &Meta, pseg: u32) -> Result<bool> {
        let mut state = self.state.lock();
        Ok(self.chunk(&mut state, meta, pseg / CHUNK_BITS as u32)?[pseg as usize % CHUNK_BITS])
    }

    fn set(&self, state: &mut State, meta: &Meta, pseg: u32, taken: bool) -> Result<()> {
        let number = pseg / CHUNK_BITS as u32;
        self.chunk(state, meta, number)?.set(pseg as usize % CHUNK_BITS, taken);
        state.changed.insert(number);
        Ok(())
    }

    fn chunk<'a>(&self, state: &'a mut State, meta: &Meta, number: u32) -> Result<&'a mut Chunk> {
        match state.chunks.entry(number) {
            Entry::Occupied(chunk) => Ok(chunk.into_mut()),
            Entry::Vacant(place) => {
                let stored: Option<ByteBuf> = meta.get(Table::Volume, &key(self.number, number))?;
                Ok(place.insert(match stored {
                    Some(bytes) if bytes.len() * 8 == CHUNK_BITS => Chunk::from_vec(bytes.into_vec()),
                    Some(_) => {
                        return Err(Error::corrupt(file_name(self.number), "its map of room has the wrong length"));
                    }
                    None => empty_chunk(),
                }))
            }
        }
    }
}

fn empty_chunk() -> Chunk {
    Chunk::repeat(false, CHUNK_BITS)
}
