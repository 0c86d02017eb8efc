//! A segment: 8 MiB of addresses in blocks, its members, which blocks are taken, and its summary.

use super::summary::{self, ENTRIES_IN_BLOCK, Entry, Owner};
use super::{Location, Volume};
use crate::error::{Error, Result};
use crate::limits::*;
use bitvec::array::BitArray;
use bitvec::order::Lsb0;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

const MAP_BYTES: usize = SEGMENT_BLOCKS / 8;
const BLOCKS_IN_PSEG: usize = PSEG_BYTES as usize / BLOCK_BYTES;
/// Segments are sorted by free room into this many classes (eighths).
pub(super) const CLASSES: u8 = 8;

type Map = BitArray<[u8; MAP_BYTES], Lsb0>;

/// The room of one volume that takes part in a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub volume: u16,
    /// Physical segments in the order of the segment's addresses.
    pub psegs: Vec<u32>,
}

pub(super) type Members = Arc<Vec<Member>>;

/// How the members make one segment. The numbers are part of the format.
const PLAIN: u8 = 0;

/// A segment as it is stored in the metadata.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Descriptor {
    redundancy: u8,
    pub members: Vec<Member>,
    /// The blocks that carry the summary.
    pub summary: Vec<u16>,
    /// One bit a block, lowest first: taken or free.
    map: ByteBuf,
}

impl Descriptor {
    /// The members, after checking that this version of the program can read them.
    pub(super) fn checked_members(&self, id: u64) -> Result<Members> {
        let plain =
            self.redundancy == PLAIN && self.members.len() == 1 && self.members[0].psegs.len() == PSEGS_IN_SEGMENT;
        if !plain {
            return Err(Error::corrupt(format!("segment {id}"), "its members are not those of a plain segment"));
        }
        if let Some(block) = self.summary.iter().find(|block| !self.is_taken(**block)) {
            let problem = format!("block {block} is said to have its summary, and is not taken");
            return Err(Error::corrupt(format!("segment {id}"), problem));
        }
        Ok(Arc::new(self.members.clone()))
    }

    pub fn is_taken(&self, block: u16) -> bool {
        let (byte, bit) = (usize::from(block) / 8, block % 8);
        self.map.get(byte).is_some_and(|byte| byte >> bit & 1 == 1)
    }
}

/// A run of free blocks that tracks are appended to.
#[derive(Debug)]
pub(super) struct Extent {
    pub segment: u64,
    pub next: u16,
    pub end: u16,
}

impl Extent {
    pub fn blocks(&self) -> usize {
        usize::from(self.end - self.next)
    }

    pub fn take(&mut self, blocks: usize) -> u16 {
        let first = self.next;
        self.next += blocks as u16;
        debug_assert!(self.next <= self.end);
        first
    }
}

/// A segment in memory.
pub(super) struct Segment {
    id: u64,
    pub members: Members,
    taken: Map,
    /// Freed, but still referred to by the last durable commit.
    held: Map,
    summary: Vec<u16>,
    /// Read from the media when the first track is added.
    entries: Option<Vec<Option<Entry>>>,
    free_entries: Vec<usize>,
    dirty_summary: BTreeSet<usize>,
    pub stored_class: u8,
    pub changed: bool,
}

impl Segment {
    pub fn create(id: u64, volume: u16, psegs: Vec<u32>, summary_blocks: u16) -> Segment {
        let mut taken = Map::ZERO;
        taken[..summary_blocks.into()].fill(true);
        let entries = vec![None; usize::from(summary_blocks) * ENTRIES_IN_BLOCK];
        Segment {
            id,
            members: Arc::new(vec![Member { volume, psegs }]),
            taken,
            held: Map::ZERO,
            summary: (0..summary_blocks).collect(),
            free_entries: (0..entries.len()).rev().collect(),
            entries: Some(entries),
            dirty_summary: (0..usize::from(summary_blocks)).collect(),
            stored_class: 0,
            changed: true,
        }
    }

    pub fn load(id: u64, descriptor: &Descriptor) -> Result<Segment> {
        let bytes: [u8; MAP_BYTES] = descriptor
            .map
            .as_slice()
            .try_into()
            .map_err(|_| Error::corrupt(format!("segment {id}"), "its block map has the wrong length"))?;
        let mut segment = Segment {
            id,
            members: descriptor.checked_members(id)?,
            taken: Map::new(bytes),
            held: Map::ZERO,
            summary: descriptor.summary.clone(),
            entries: None,
            free_entries: Vec::new(),
            dirty_summary: BTreeSet::new(),
            stored_class: 0,
            changed: false,
        };
        segment.stored_class = segment.class();
        Ok(segment)
    }

    pub fn descriptor(&self) -> Descriptor {
        Descriptor {
            redundancy: PLAIN,
            members: self.members.to_vec(),
            summary: self.summary.clone(),
            map: ByteBuf::from(self.taken.data.to_vec()),
        }
    }

    pub fn used_blocks(&self) -> usize {
        self.taken.count_ones()
    }

    /// Nothing but the summary is left.
    pub fn is_empty(&self) -> bool {
        self.used_blocks() == self.summary.len()
    }

    pub fn class(&self) -> u8 {
        ((SEGMENT_BLOCKS - self.used_blocks()) * usize::from(CLASSES) / SEGMENT_BLOCKS) as u8
    }

    pub fn free(&mut self, block: u16, blocks: usize) -> Result<()> {
        let range = usize::from(block)..usize::from(block) + blocks;
        if range.end > SEGMENT_BLOCKS || !self.taken[range.clone()].all() {
            return Err(Error::corrupt(
                format!("segment {}", self.id),
                format!("blocks {}..{} are to be freed but are free already", range.start, range.end),
            ));
        }
        self.taken[range.clone()].fill(false);
        self.held[range].fill(true);
        self.changed = true;
        Ok(())
    }

    pub fn unhold(&mut self, block: u16, blocks: u16) {
        self.held[usize::from(block)..usize::from(block) + usize::from(blocks)].fill(false);
    }

    pub fn has_held(&self) -> bool {
        self.held.any()
    }

    pub fn has_dirty_summary(&self) -> bool {
        !self.dirty_summary.is_empty()
    }

    /// Runs of at least `least` blocks that may be written.
    pub fn free_runs(&self, least: usize) -> Vec<(u16, u16)> {
        let busy = self.taken | self.held;
        let mut runs = Vec::new();
        let mut at = 0;
        while let Some(skip) = busy[at..].first_zero() {
            let start = at + skip;
            let end = busy[start..].first_one().map_or(SEGMENT_BLOCKS, |len| start + len);
            if end - start >= least {
                runs.push((start as u16, end as u16));
            }
            at = end;
        }
        runs
    }

    /// How many tracks of any size surely fit into so many pieces of free room, each large enough for
    /// one, when the summary has to grow on the way.
    pub fn tracks_in(&self, pieces: usize) -> usize {
        let without_entry = pieces.saturating_sub(self.free_entries.len());
        pieces - without_entry.div_ceil(ENTRIES_IN_BLOCK + 1)
    }

    /// Whether the summary has no entry left for one more track.
    pub fn needs_summary_block(&mut self, volume: &Volume) -> Result<bool> {
        if self.free_entries.is_empty() {
            self.find_free_entries(volume)?;
        }
        Ok(self.free_entries.is_empty())
    }

    /// Takes stock of the summary's entries that name no track any more.
    pub fn find_free_entries(&mut self, volume: &Volume) -> Result<()> {
        let busy = self.taken | self.held;
        let is_busy = |entry: Entry| busy.get(usize::from(entry.block)).is_some_and(|bit| *bit);
        let entries = self.load_entries(volume)?;
        let mut free = Vec::new();
        for (slot, entry) in entries.iter_mut().enumerate() {
            if !entry.is_some_and(is_busy) {
                *entry = None;
                free.push(slot);
            }
        }
        self.free_entries = free;
        Ok(())
    }

    fn load_entries(&mut self, volume: &Volume) -> Result<&mut Vec<Option<Entry>>> {
        if self.entries.is_none() {
            let mut entries = Vec::new();
            for &block in &self.summary {
                let mut bytes = vec![0; BLOCK_BYTES];
                read(volume, &self.members, block, &mut bytes)
                    .map_err(|source| Error::media(format!("reading the summary of segment {}", self.id), source))?;
                entries.extend(summary::decode(self.id, &bytes));
            }
            self.entries = Some(entries);
        }
        Ok(self.entries.as_mut().expect("loaded above"))
    }

    pub fn add_summary_block(&mut self, block: u16) {
        let entries = self.entries.get_or_insert_default();
        let first = entries.len();
        entries.resize(first + ENTRIES_IN_BLOCK, None);
        self.free_entries.extend((first..first + ENTRIES_IN_BLOCK).rev());
        self.dirty_summary.insert(self.summary.len());
        self.summary.push(block);
        self.taken.set(block.into(), true);
        self.changed = true;
    }

    /// Takes blocks for a track and writes down whose it is.
    pub fn note(
        &mut self,
        volume: &Volume,
        block: u16,
        blocks: usize,
        owner: Owner,
        location: &Location,
    ) -> Result<()> {
        let range = usize::from(block)..usize::from(block) + blocks;
        debug_assert!(!self.taken[range.clone()].any() && !self.held[range.clone()].any());
        self.taken[range.clone()].fill(true);
        self.changed = true;
        // An entry that still names one of these blocks would be taken for that of a track again.
        let mut freed = Vec::new();
        for (slot, entry) in self.load_entries(volume)?.iter_mut().enumerate() {
            if entry.is_some_and(|entry| range.contains(&entry.block.into())) {
                *entry = None;
                freed.push(slot);
            }
        }
        self.dirty_summary.extend(freed.iter().map(|slot| slot / ENTRIES_IN_BLOCK));
        self.free_entries.extend(freed);
        let slot = self.free_entries.pop().expect("place() made sure that there is one");
        self.load_entries(volume)?[slot] = Some(Entry::new(owner, location));
        self.dirty_summary.insert(slot / ENTRIES_IN_BLOCK);
        Ok(())
    }

    pub fn write_summary(&mut self, volume: &Volume) -> Result<()> {
        for &index in &self.dirty_summary {
            let entries = self.entries.as_deref().unwrap_or_default();
            let bytes = summary::encode(self.id, &entries[index * ENTRIES_IN_BLOCK..(index + 1) * ENTRIES_IN_BLOCK]);
            write(volume, &self.members, self.summary[index], &bytes)
                .map_err(|source| Error::media(format!("writing the summary of segment {}", self.id), source))?;
        }
        self.dirty_summary.clear();
        Ok(())
    }
}

/// Splits a range of blocks into pieces that lie together on the volume: (volume offset, length).
fn pieces(members: &[Member], block: u16, len: usize) -> impl Iterator<Item = (u64, usize)> {
    let psegs = &members[0].psegs;
    let mut at = usize::from(block) * BLOCK_BYTES;
    let end = at + len;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let index = at / (BLOCKS_IN_PSEG * BLOCK_BYTES);
        let within = at % (BLOCKS_IN_PSEG * BLOCK_BYTES);
        let count = (PSEG_BYTES as usize - within).min(end - at);
        at += count;
        Some((u64::from(psegs[index]) * PSEG_BYTES + within as u64, count))
    })
}

pub(super) fn read(volume: &Volume, members: &[Member], block: u16, out: &mut [u8]) -> io::Result<()> {
    if usize::from(block) * BLOCK_BYTES + out.len() > SEGMENT_BYTES as usize {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the address is outside the segment"));
    }
    let mut done = 0;
    for (offset, count) in pieces(members, block, out.len()) {
        volume.read(offset, &mut out[done..done + count])?;
        done += count;
    }
    Ok(())
}

/// Makes sure of real room behind free blocks, which may have been given back.
pub(super) fn ensure(volume: &Volume, members: &[Member], (from, to): (u16, u16)) -> Result<()> {
    let len = usize::from(to - from) * BLOCK_BYTES;
    pieces(members, from, len).into_iter().try_for_each(|(offset, count)| volume.ensure(offset, count as u64))
}

/// Gives the room of free blocks back to the file system.
pub(super) fn give_back(volume: &Volume, members: &[Member], (from, to): (u16, u16)) -> io::Result<()> {
    let len = usize::from(to - from) * BLOCK_BYTES;
    pieces(members, from, len).into_iter().try_for_each(|(offset, count)| volume.punch(offset, count as u64))
}

fn write(volume: &Volume, members: &[Member], block: u16, data: &[u8]) -> io::Result<()> {
    let mut done = 0;
    for (offset, count) in pieces(members, block, data.len()) {
        volume.write(offset, &data[done..done + count])?;
        done += count;
    }
    Ok(())
}

/// Tracks appended one after the other that are not on the media yet.
#[derive(Default)]
pub(super) struct Run {
    target: Option<(u64, u16, Members)>,
    bytes: Vec<u8>,
}

const RUN_BYTES_MAX: usize = 1 << 20;

impl Run {
    pub fn segment(&self) -> Option<u64> {
        self.target.as_ref().map(|(segment, _, _)| *segment)
    }

    pub fn append(&mut self, volume: &Volume, segment: u64, block: u16, members: &Members, data: &[u8]) -> Result<()> {
        let follows = self.target.as_ref().is_some_and(|(current, first, _)| {
            *current == segment && usize::from(*first) + self.bytes.len() / BLOCK_BYTES == usize::from(block)
        });
        if !follows || self.bytes.len() >= RUN_BYTES_MAX {
            self.flush(volume)?;
            self.target = Some((segment, block, members.clone()));
        }
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES), 0);
        Ok(())
    }

    /// Copies bytes that are still here; false when they have to be read from the media.
    pub fn read(&self, segment: u64, block: u16, out: &mut [u8]) -> bool {
        let Some((current, first, _)) = &self.target else { return false };
        if *current != segment || block < *first {
            return false;
        }
        let at = usize::from(block - first) * BLOCK_BYTES;
        match self.bytes.get(at..at + out.len()) {
            Some(bytes) if at < self.bytes.len() => {
                out.copy_from_slice(bytes);
                true
            }
            _ => false,
        }
    }

    pub fn flush(&mut self, volume: &Volume) -> Result<()> {
        if let Some((segment, block, members)) = &self.target {
            write(volume, members, *block, &self.bytes)
                .map_err(|source| Error::media(format!("writing to segment {segment}"), source))?;
        }
        self.target = None;
        self.bytes.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_the_physical_segments() {
        let members = vec![Member { volume: 0, psegs: vec![5, 6, 9, 2] }];
        let block = (BLOCKS_IN_PSEG - 1) as u16;
        let all: Vec<_> = pieces(&members, block, 3 * BLOCK_BYTES).collect();
        assert_eq!(all, [(6 * PSEG_BYTES - BLOCK_BYTES as u64, BLOCK_BYTES), (6 * PSEG_BYTES, 2 * BLOCK_BYTES)]);
    }

    #[test]
    fn freed_blocks_are_held_until_the_commit_is_durable() {
        let mut segment = Segment::create(1, 0, vec![1, 2, 3, 4], 2);
        segment.taken[2..40].fill(true);
        segment.free(10, 20).unwrap();
        assert_eq!(segment.free_runs(8), [(40, SEGMENT_BLOCKS as u16)]);
        segment.unhold(10, 20);
        assert_eq!(segment.free_runs(8), [(10, 30), (40, SEGMENT_BLOCKS as u16)]);
        assert!(segment.free(10, 20).is_err(), "freeing twice is damage");
    }
}
