//! Where the bytes of tracks lie: segments of blocks, with checksums and compression.
//!
//! Tracks are appended in runs to open segments; a [`Location`] names the segment, never the volume, so
//! moving a segment's members changes one descriptor and no pointer table. Whose track it is stands in
//! the segment's summary and means nothing here.
//!
//! ```text
//!  reserve() ─▶ extents ──append()──▶ run in memory ──▶ media ──sync()──▶ durable
//!                  ▲                                                        │
//!                  └──── durable(): freed blocks may be used again ◀── freeze()
//! ```
//!
//! Invariants:
//! - a block that the last durable commit refers to is not written before a later commit is durable;
//! - every reserved slot can be filled with a whole track, in whatever order tracks come;
//! - every byte read is checked against the location's checksum, which is seeded with the address.

mod cache;
pub mod check;
mod codec;
mod holders;
mod places;
mod segment;
mod slots;
mod summary;
mod volume;

pub use codec::{Codec, Encoded};
pub use holders::{Holder, Holders};
pub use segment::Descriptor;
pub use summary::Owner;
pub use volume::{Ids, Volume};

use crate::error::{Error, Result};
use crate::id::Id;
use crate::limits::*;
use crate::media::MediaDir;
use crate::meta::{Meta, Table, record_name};
use parking_lot::Mutex;
use segment::{Extent, Members, Run, Segment};
use serde::{Deserialize, Serialize};
use slots::room_key;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Where the bytes of one track lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Location {
    pub segment: u64,
    /// The first block within the segment.
    pub block: u16,
    /// Bytes on the media.
    pub stored: u32,
    /// Bytes of the track.
    pub raw: u32,
    pub codec: Codec,
    /// XXH3 of the stored bytes, seeded with the address.
    pub check: u64,
}

impl Location {
    /// Blocks that it takes, at least one.
    pub fn blocks(&self) -> usize {
        (self.stored as usize).div_ceil(BLOCK_BYTES).max(1)
    }

    /// Whether a segment and a track can have so much.
    pub fn is_possible(&self) -> bool {
        let most = TRACK_BYTES_MAX as u32;
        let end = usize::from(self.block) + self.blocks();
        self.segment < SEGMENTS_MAX && self.stored <= most && self.raw <= most && end <= SEGMENT_BLOCKS
    }

    /// The key under which further holders of this location are counted.
    pub fn key(&self) -> [u8; 10] {
        let mut key = [0; 10];
        key[..8].copy_from_slice(&self.segment.to_be_bytes());
        key[8..].copy_from_slice(&self.block.to_be_bytes());
        key
    }

    fn describe(&self) -> String {
        format!("track at segment {} block {}", self.segment, self.block)
    }
}

fn address_seed(segment: u64, block: u16) -> u64 {
    segment << 16 | u64::from(block)
}

/// The counters that are stored with each commit.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Counters {
    #[serde(deserialize_with = "crate::limits::number::segment")]
    next_segment: u64,
    #[serde(deserialize_with = "crate::limits::number::blocks")]
    used_blocks: u64,
    #[serde(deserialize_with = "crate::limits::number::segments")]
    segments: u64,
}

thread_local! {
    /// Where stored bytes are read to before they are decompressed.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The id of the volume with the number 0.
const VOLUME_0: &[u8] = b"volume\0\0";
const COUNTERS: &[u8] = b"logstore";

/// Room inside the log store, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Blocks that hold tracks and summaries.
    pub used: u64,
    /// Room of all segments.
    pub segments: u64,
}

pub struct LogStore {
    dir: Arc<dyn MediaDir>,
    volume: Arc<Volume>,
    codec: Codec,
    slot_blocks: usize,
    inner: Mutex<Inner>,
    places: Mutex<places::Places>,
    cache: Mutex<cache::Cache>,
}

/// Why stored bytes could not be read.
enum Failure {
    Media(std::io::Error),
    Damage(String),
}

impl From<String> for Failure {
    fn from(problem: String) -> Failure {
        Failure::Damage(problem)
    }
}

#[derive(Default)]
struct Inner {
    counters: Counters,
    /// Segments that are open, or changed since the last durable commit.
    segments: HashMap<u64, Segment>,
    /// Where the members of segments lie, for reading.
    placed: HashMap<u64, Members>,
    extents: VecDeque<Extent>,
    reserved_slots: usize,
    run: Run,
    /// Segments in which blocks were freed since the store was opened.
    thinned: BTreeSet<u64>,
    freed: Vec<Freed>,
    freed_frozen: Vec<Freed>,
    /// Room of segments that ceased to exist: since the last freeze, and in the commit under way.
    dropped: Vec<u32>,
    dropped_frozen: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Freed {
    segment: u64,
    block: u16,
    blocks: u16,
}

/// A location with the place of its segment, to be read without any lock.
pub struct Placed {
    pub location: Location,
    members: Members,
}

impl LogStore {
    /// `slot_bytes` is the track size of the store.
    pub fn open(dir: Arc<dyn MediaDir>, meta: &Meta, store: Id, codec: Codec, slot_bytes: usize) -> Result<LogStore> {
        let volume = meta.get(Table::State, VOLUME_0)?;
        let volume = volume.ok_or_else(|| Error::corrupt("the metadata (meta.redb)", "it has no id of the volume"))?;
        let ids = Ids { store, volume };
        let volume = Arc::new(Volume::open(&*dir, 0, ids)?);
        let counters = meta
            .get(Table::State, COUNTERS)?
            .ok_or_else(|| Error::corrupt("the metadata (meta.redb)", "it has no counters of the log store"))?;
        let inner = Mutex::new(Inner { counters, ..Inner::default() });
        let (places, cache) = (Mutex::default(), Mutex::default());
        Ok(LogStore { dir, volume, codec, slot_blocks: slot_bytes / BLOCK_BYTES, inner, places, cache })
    }

    /// Lays out the log store of a new store.
    pub fn create(dir: &dyn MediaDir, meta: &mut Meta, store: Id) -> Result<()> {
        let ids = Ids { store, volume: Id::random() };
        meta.put(Table::State, VOLUME_0, &ids.volume);
        Volume::create(dir, meta, 0, ids)?;
        meta.put(Table::State, COUNTERS, &Counters { next_segment: 1, ..Counters::default() });
        Ok(())
    }

    /// Labels the volume, durably, and notes its id: with ids, or as format 3 had it without any.
    pub fn relabel(dir: &dyn MediaDir, meta: &mut Meta, ids: Option<Ids>) -> Result<()> {
        match ids {
            Some(ids) => meta.put(Table::State, VOLUME_0, &ids.volume),
            None => meta.remove(Table::State, VOLUME_0),
        }
        volume::relabel(dir, 0, ids)
    }

    /// A new segment must not take the place of one that is there.
    pub fn check_next(&self, meta: &Meta) -> Result<()> {
        let next = self.inner.lock().counters.next_segment;
        let last = meta.last(Table::Segment, &[], &[u8::MAX; 9])?;
        match last.and_then(|(key, _)| Some(u64::from_be_bytes(key.try_into().ok()?))) {
            Some(last) if last >= next => {
                let problem = format!("the next segment is said to be {next}, and there is one of number {last}");
                Err(Error::corrupt(record_name(Table::State, COUNTERS), problem))
            }
            _ => Ok(()),
        }
    }

    pub fn usage(&self) -> Usage {
        let counters = self.inner.lock().counters;
        let bytes = |count: u64, each: u64| count.saturating_mul(each);
        Usage {
            used: bytes(counters.used_blocks, BLOCK_BYTES as u64),
            segments: bytes(counters.segments, SEGMENT_BYTES),
        }
    }

    /// Compresses a track. Takes no lock.
    pub fn encode<'a>(&self, raw: &'a [u8]) -> Encoded<'a> {
        codec::encode(self.codec, raw)
    }

    /// Makes sure that `slots` more tracks of any size will find room; NOSPC where they will not. A slot
    /// also holds several pieces that together take at most half its blocks.
    pub fn reserve(&self, meta: &mut Meta, slots: usize) -> Result<()> {
        let mut inner = self.inner.lock();
        if slots == 0 {
            return Ok(());
        }
        while inner.free_slots(self.slot_blocks) < inner.reserved_slots + slots {
            self.add_extents(&mut inner, meta)?;
        }
        inner.reserved_slots += slots;
        Ok(())
    }

    /// Gives back slots that were reserved, used or not.
    pub fn unreserve(&self, slots: usize) {
        let mut inner = self.inner.lock();
        debug_assert!(inner.reserved_slots >= slots);
        inner.reserved_slots = inner.reserved_slots.saturating_sub(slots);
    }

    /// Gives a track its place and its bytes to the media. The caller holds a reserved slot.
    pub fn append(&self, meta: &mut Meta, encoded: &Encoded<'_>, owner: Owner) -> Result<Location> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let blocks = encoded.stored().len().div_ceil(BLOCK_BYTES).max(1);
        let (segment, block) = self.place(inner, meta, blocks)?;
        let check = xxh3_64_with_seed(encoded.stored(), address_seed(segment, block));
        let location = Location {
            segment,
            block,
            stored: encoded.stored().len() as u32,
            raw: encoded.raw_len() as u32,
            codec: encoded.codec(),
            check,
        };
        let open = inner.segments.get_mut(&segment).expect("an extent's segment is loaded");
        open.note(&self.volume, block, blocks, owner, &location)?;
        inner.counters.used_blocks += blocks as u64;
        let members = open.members.clone();
        inner.run.append(&self.volume, segment, block, &members, encoded.stored())?;
        Ok(location)
    }

    /// Where to read a location. The caller sees to it that `meta` still refers to it.
    pub fn placed(&self, meta: &Meta, location: Location) -> Result<Placed> {
        let mut inner = self.inner.lock();
        let id = location.segment;
        if let Some(open) = inner.segments.get(&id) {
            return Ok(Placed { location, members: open.members.clone() });
        }
        if let Some(members) = inner.placed.get(&id) {
            return Ok(Placed { location, members: members.clone() });
        }
        let descriptor: Descriptor = meta
            .get(Table::Segment, &id.to_be_bytes())?
            .ok_or_else(|| Error::corrupt(location.describe(), "its segment has no descriptor"))?;
        let members = descriptor.checked_members(id)?;
        if inner.placed.len() > 1 << 16 {
            inner.placed.clear();
        }
        inner.placed.insert(id, members.clone());
        Ok(Placed { location, members })
    }

    /// Reads and verifies what lies at a location; the result has `location.raw` bytes.
    pub fn read(&self, placed: &Placed) -> Result<Vec<u8>> {
        let raw = placed.location.raw as usize;
        if raw > TRACK_BYTES_MAX {
            let problem = format!("{raw} bytes are more than a track can have");
            return Err(Error::corrupt(placed.location.describe(), problem));
        }
        let mut out = vec![0; raw];
        self.read_into(placed, &mut out)?;
        Ok(out)
    }

    /// Like [`LogStore::read`], for callers that will want other parts of it soon.
    pub fn read_cached(&self, placed: &Placed) -> Result<Arc<Vec<u8>>> {
        if let Some(bytes) = self.cache.lock().get(&placed.location) {
            return Ok(bytes);
        }
        let bytes = Arc::new(self.read(placed)?);
        self.cache.lock().put(placed.location, bytes.clone());
        Ok(bytes)
    }

    /// Fills `out`, which has room for `location.raw` bytes, with what lies at a location, verified. If that fails there may be
    /// anything in it.
    pub fn read_into(&self, placed: &Placed, out: &mut [u8]) -> Result<()> {
        let location = &placed.location;
        let lengths = (location.stored as usize, location.raw as usize, out.len());
        let result = match (location.codec, lengths) {
            (_, (stored, ..)) if stored > TRACK_BYTES_MAX => {
                Err("more bytes are said to be stored than a track can have".to_string().into())
            }
            (Codec::None, (stored, raw, room)) if stored == raw && raw == room => self.read_stored(placed, out),
            (Codec::None, _) => Err("it is shorter or longer than it should be".to_string().into()),
            (codec, (stored, ..)) => SCRATCH.with_borrow_mut(|scratch| {
                if scratch.len() < stored {
                    scratch.resize(stored, 0);
                }
                self.read_stored(placed, &mut scratch[..stored])?;
                codec::decode_into(codec, &scratch[..stored], out)
            }),
        };
        result.map_err(|failure: Failure| match failure {
            Failure::Media(source) if source.kind() == std::io::ErrorKind::UnexpectedEof => {
                Error::corrupt(location.describe(), "it is said to lie behind the end of the volume")
            }
            Failure::Media(source) => Error::media(format!("reading the {}", location.describe()), source),
            Failure::Damage(problem) => Error::corrupt(location.describe(), problem),
        })
    }

    /// Reads the stored bytes, verified.
    fn read_stored(&self, placed: &Placed, stored: &mut [u8]) -> Result<(), Failure> {
        let location = &placed.location;
        if !self.inner.lock().run.read(location.segment, location.block, stored) {
            segment::read(&self.volume, &placed.members, location.block, stored).map_err(Failure::Media)?;
        }
        if xxh3_64_with_seed(stored, address_seed(location.segment, location.block)) != location.check {
            return Err("its bytes do not match their checksum".to_string().into());
        }
        Ok(())
    }

    /// One holder lets go of a location; the blocks are free once the last one has, and may be used
    /// again once that is durable. Says who is left.
    pub fn release(&self, meta: &mut Meta, location: &Location, holder: Holder) -> Result<Holders> {
        let left = holders::release(meta, location, holder)?;
        if left.all() == 0 {
            self.check_all_places(meta)?;
            self.inner.lock().load(meta, location.segment)?;
        }
        Ok(left)
    }

    /// Nobody holds a location any more, as [`LogStore::release`] has said: fails on damage alone.
    pub fn free(&self, meta: &Meta, location: &Location) -> Result<()> {
        let mut inner = self.inner.lock();
        let blocks = location.blocks();
        inner.load(meta, location.segment)?.free(location.block, blocks)?;
        inner.counters.used_blocks = inner.counters.used_blocks.saturating_sub(blocks as u64);
        inner.thinned.insert(location.segment);
        inner.freed.push(Freed { segment: location.segment, block: location.block, blocks: blocks as u16 });
        Ok(())
    }

    /// A live record names a location that `known` holds already; who held it before.
    pub fn share(&self, meta: &mut Meta, location: &Location, known: Holder) -> Result<Holders> {
        holders::share(meta, location, known)
    }

    /// A live record that names this location becomes a pre-image; who holds the location then.
    pub fn keep(&self, meta: &mut Meta, location: &Location) -> Result<Holders> {
        holders::keep(meta, location)
    }

    /// Puts what changed since the last call into the open transaction, just before that is frozen.
    pub fn freeze(&self, meta: &mut Meta) -> Result<()> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        inner.close_empty(self.slot_blocks);
        let open: BTreeSet<u64> = inner.extents.iter().map(|extent| extent.segment).collect();
        let mut changed: Vec<u64> =
            inner.segments.iter().filter(|(_, segment)| segment.changed).map(|(id, _)| *id).collect();
        changed.sort_unstable();
        for id in changed {
            let segment = inner.segments.get_mut(&id).expect("listed above");
            let is_idle = segment.is_empty() && !open.contains(&id);
            // What is still to be written there must not meet the segment's successor.
            let is_awaited = inner.run.segment() == Some(id);
            let is_empty = is_idle && !is_awaited;
            let class = if is_empty { 0 } else { segment.class() };
            if class != segment.stored_class {
                meta.remove(Table::Room, &room_key(segment.stored_class, id));
                if class > 0 {
                    meta.put(Table::Room, &room_key(class, id), &());
                }
                segment.stored_class = class;
            }
            segment.changed = is_idle && is_awaited;
            if is_empty {
                meta.remove(Table::Segment, &id.to_be_bytes());
                let counters = &mut inner.counters;
                counters.segments = counters.segments.saturating_sub(1);
                counters.used_blocks = counters.used_blocks.saturating_sub(segment.used_blocks() as u64);
                let psegs: Vec<u32> = segment.members.iter().flat_map(|member| member.psegs.iter().copied()).collect();
                self.volume.release(meta, &psegs)?;
                inner.dropped.extend(psegs);
                inner.segments.remove(&id);
                inner.placed.remove(&id);
            } else {
                meta.put(Table::Segment, &id.to_be_bytes(), &segment.descriptor());
            }
        }
        self.volume.freeze(meta);
        meta.put(Table::State, COUNTERS, &inner.counters);
        inner.freed_frozen = std::mem::take(&mut inner.freed);
        inner.dropped_frozen = std::mem::take(&mut inner.dropped);
        Ok(())
    }

    /// Everything appended so far would survive a power cut when this returns.
    pub fn sync(&self) -> Result<()> {
        {
            let mut inner = self.inner.lock();
            let inner = &mut *inner;
            inner.run.flush(&self.volume)?;
            for segment in inner.segments.values_mut() {
                segment.write_summary(&self.volume)?;
            }
        }
        self.volume.sync()
    }

    /// The frozen state is durable: what it freed may be used again.
    pub fn durable(&self) -> Result<()> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        for freed in std::mem::take(&mut inner.freed_frozen) {
            if let Some(segment) = inner.segments.get_mut(&freed.segment) {
                segment.unhold(freed.block, freed.blocks);
            }
        }
        let dropped = std::mem::take(&mut inner.dropped_frozen);
        self.volume.reuse(&dropped)?;
        let open: BTreeSet<u64> = inner.extents.iter().map(|extent| extent.segment).collect();
        let run = inner.run.segment();
        inner.segments.retain(|id, segment| {
            segment.changed
                || segment.has_held()
                || segment.has_dirty_summary()
                || open.contains(id)
                || run == Some(*id)
        });
        Ok(())
    }

    /// Gives room that is open and was not used back to the file system; nothing may be appended any more.
    pub fn trim(&self, meta: &Meta) {
        /// Segments that closing takes the time for.
        const SEGMENTS: usize = 2048;
        /// Shorter runs of free blocks are left.
        const BLOCKS: usize = 4;
        let mut inner = self.inner.lock();
        let open: BTreeSet<u64> = inner.extents.iter().map(|extent| extent.segment).collect();
        let thinned: Vec<u64> = std::mem::take(&mut inner.thinned).into_iter().take(SEGMENTS).collect();
        for id in thinned.into_iter().filter(|id| !open.contains(id)) {
            // It may be gone by now.
            let Ok(segment) = inner.load(meta, id) else { continue };
            let runs = segment.free_runs(BLOCKS);
            let members = segment.members.clone();
            if let Err(error) = runs.iter().try_for_each(|run| segment::give_back(&self.volume, &members, *run)) {
                log::warn!("room of segment {id} is not given back: {error}");
            }
        }
        for extent in inner.extents.iter().filter(|extent| extent.blocks() > 0) {
            let Some(segment) = inner.segments.get(&extent.segment) else { continue };
            if let Err(error) = segment::give_back(&self.volume, &segment.members, (extent.next, extent.end)) {
                log::warn!("room of segment {} is not given back: {error}", extent.segment);
            }
        }
    }

    /// Every segment that exists, and what its descriptor says.
    pub fn descriptors<'a>(
        &self,
        meta: &'a Meta,
    ) -> Result<impl Iterator<Item = Result<(u64, Result<Descriptor>)>> + use<'a>> {
        places::descriptors(meta, &[])
    }

    /// The valid entries of a segment's summary.
    pub fn summary(&self, id: u64, descriptor: &Descriptor) -> Result<Vec<summary::Entry>> {
        let members = descriptor.checked_members(id)?;
        let mut entries = Vec::new();
        for &block in &descriptor.summary {
            let mut bytes = vec![0; BLOCK_BYTES];
            segment::read(&self.volume, &members, block, &mut bytes)
                .map_err(|source| Error::media(format!("reading the summary of segment {id}"), source))?;
            entries.extend(summary::decode(id, &bytes).into_iter().flatten());
        }
        Ok(entries)
    }
}
