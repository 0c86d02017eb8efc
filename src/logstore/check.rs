//! Whether what is said of places holds together: where segments lie, which room the map has as taken, and who holds what.
//!
//! Everything that says something of a place is shown to [`Claims`], in this order: segments, the map of room, the locations of
//! all tracks, the counts of those that are shared. What does not fit is told in words; the caller knows which records those
//! words are about, and whether they are still there.

use super::{Descriptor, Holder, Holders, Location, LogStore, segment, volume};
use crate::error::{Error, Result};
use crate::limits::{PSEG_BYTES, PSEGS_MAX, SEGMENT_BLOCKS, SEGMENTS_MAX};
use crate::meta::{Meta, Table, decode, hex, record_name};
use serde_bytes::ByteBuf;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

/// The only volume there is.
const VOLUME: u16 = 0;
const CHUNK_BITS: u32 = volume::CHUNK_BITS as u32;

/// The first block of a location, in its segment.
type Place = (u64, u16);

/// Why what a record says is not known.
pub type OrUnreadable = std::result::Result<(), String>;

/// What is known of one segment.
struct Segment {
    descriptor: Descriptor,
    /// First block and checksum of each valid entry of the summary.
    entries: HashSet<(u16, u64)>,
    /// Blocks that records refer to.
    used: Vec<bool>,
}

/// What looking at a location has shown.
#[derive(Default)]
pub struct Claimed {
    /// Bytes that were read for it.
    pub read_bytes: u64,
    pub problem: Option<String>,
    /// Blocks that it, or another one, takes can look like lost ones.
    pub is_unplaced: bool,
}

/// What records say of places.
#[derive(Default)]
pub struct Claims {
    segments: HashMap<u64, Segment>,
    /// Which segment has each physical one.
    places: HashMap<u32, u64>,
    /// The map of room, in its parts.
    map: BTreeMap<u32, ByteBuf>,
    /// Who holds each location.
    holders: HashMap<Place, Holders>,
    /// Who is said to hold those that are shared.
    counted: HashMap<Place, Holders>,
    /// What the first holder of each says of it.
    said: HashMap<Place, Location>,
    /// What is wrong with the bytes at a location, for all that hold it.
    damaged: HashMap<Place, String>,
}

impl Claims {
    /// A record of a segment; `say` gets what is wrong with it.
    pub fn segment(
        &mut self,
        log: &LogStore,
        (key, value): (&[u8], &[u8]),
        mut say: impl FnMut(String),
    ) -> OrUnreadable {
        let id = <[u8; 8]>::try_from(key).ok().map(u64::from_be_bytes);
        let id = id.filter(|id| *id < SEGMENTS_MAX);
        let id = id.ok_or_else(|| format!("record {} of table segment: its key makes no sense", hex(key)))?;
        let descriptor: Descriptor = decode(Table::Segment, key, value).map_err(|error| error.to_string())?;
        let entries = match log.summary(id, &descriptor) {
            Ok(entries) => entries.iter().map(|entry| (entry.block, entry.check)).collect(),
            Err(error) => {
                say(error.to_string());
                HashSet::new()
            }
        };
        for member in descriptor.members.iter().filter(|member| member.volume != VOLUME) {
            say(format!("segment {id} is said to lie in volume {}, which is not there", member.volume));
        }
        for pseg in descriptor.members.iter().flat_map(|member| &member.psegs) {
            if let Some(other) = self.places.insert(*pseg, id) {
                say(format!("segments {other} and {id} are both said to lie at {pseg}"));
            }
        }
        let mut used = vec![false; SEGMENT_BLOCKS];
        for &block in &descriptor.summary {
            if let Some(used) = used.get_mut(usize::from(block)) {
                *used = true;
            }
        }
        self.segments.insert(id, Segment { descriptor, entries, used });
        Ok(())
    }

    /// A part of the map of room; what is wrong with it. One that does not decode [`check_record`] names.
    pub fn map_of_room(&mut self, key: &[u8], value: &[u8]) -> Option<String> {
        let parts = key.split_first_chunk::<2>().and_then(|(volume, chunk)| Some((*volume, chunk.try_into().ok()?)));
        let (Some((volume, chunk)), Ok(bits)) = (parts, decode::<ByteBuf>(Table::Volume, key, value)) else {
            return None;
        };
        let (volume, chunk) = (u16::from_be_bytes(volume), u32::from_be_bytes(chunk));
        if volume == VOLUME && u64::from(chunk) < PSEGS_MAX / u64::from(CHUNK_BITS) {
            self.map.insert(chunk, bits);
            return None;
        }
        Some(format!("record {} of table volume: there is no such part of a volume", hex(key)))
    }

    fn is_taken(&self, pseg: u32) -> bool {
        let (byte, bit) = (pseg % CHUNK_BITS / 8, pseg % 8);
        let bits = self.map.get(&(pseg / CHUNK_BITS)).and_then(|bits| bits.get(byte as usize));
        bits.is_some_and(|byte| byte >> bit & 1 == 1)
    }

    /// Segments that lie where the map has free room, or the label.
    pub fn misplaced(&self) -> impl Iterator<Item = String> {
        let label = "the map of room has the beginning of the volume as free, where its label is";
        let label = (!self.is_taken(0)).then(|| label.to_string());
        let mut places: Vec<(u32, u64)> = self.places.iter().map(|(pseg, segment)| (*pseg, *segment)).collect();
        places.sort_unstable();
        label.into_iter().chain(places.into_iter().filter_map(|(pseg, segment)| {
            let at = u64::from(pseg) * PSEG_BYTES;
            match pseg {
                0 => Some(format!(
                    "segment {segment} is said to lie at the beginning of the volume, where its label is"
                )),
                _ if self.is_taken(pseg) => None,
                _ => Some(format!(
                    "segment {segment} is said to lie at {pseg} (byte {at} of the volume), which the map of room has as free"
                )),
            }
        }))
    }

    /// Room that the map has as taken and no segment has, if all segments are known.
    pub fn lost_room(&self) -> impl Iterator<Item = String> {
        self.map.iter().filter_map(|(chunk, bits)| {
            let is_lost = |bit: &u32| {
                let (byte, pseg) = (bits.get((bit / 8) as usize), chunk * CHUNK_BITS + bit);
                byte.is_some_and(|byte| byte >> (bit % 8) & 1 == 1) && pseg != 0 && !self.places.contains_key(&pseg)
            };
            let mut lost = (0..CHUNK_BITS).filter(is_lost);
            let (first, count) = (chunk * CHUNK_BITS + lost.next()?, lost.count() + 1);
            Some(format!(
                "{count} physical segments of the volume, of which the first is {first}, are marked as taken, and no segment lies there"
            ))
        })
    }

    /// A location that a record names. The bytes of each are read with its first holder; `whose` says which that is.
    pub fn location(
        &mut self,
        (log, meta): (&LogStore, &Meta),
        location: &Location,
        holder: Holder,
        whose: fmt::Arguments<'_>,
    ) -> Claimed {
        let at = (location.segment, location.block);
        let place = || format!("segment {} block {}", location.segment, location.block);
        let wrong = |problem: String| Claimed { problem: Some(problem), ..Claimed::default() };
        let unplaced = |problem: String| Claimed { is_unplaced: true, ..wrong(problem) };
        let Some(segment) = self.segments.get_mut(&location.segment) else {
            let problem = "and that segment does not exist or cannot be read";
            return unplaced(format!("it is said to lie in {}, {problem}", place()));
        };
        let holders = self.holders.entry(at).or_default();
        *holders.count(holder) += 1;
        if *self.said.entry(at).or_insert(*location) != *location {
            let problem = "it says another thing than another track that shares it";
            return wrong(format!("of what lies at {} {problem}", place()));
        }
        if holders.all() > 1 {
            return Claimed { problem: self.damaged.get(&at).cloned(), ..Claimed::default() };
        }
        let range = usize::from(location.block)..usize::from(location.block) + location.blocks();
        let used = &mut segment.used[range.clone()];
        if used.iter().any(|used| *used) {
            return unplaced(format!("its blocks at {} belong to another track as well", place()));
        }
        used.fill(true);
        let is_taken = range.clone().all(|block| segment.descriptor.is_taken(block as u16));
        let is_summarized = segment.entries.contains(&(location.block, location.check));
        let problem = match log.placed(meta, *location).and_then(|placed| log.read(&placed)) {
            Err(error) => {
                self.damaged.insert(at, error.to_string());
                Some(error.to_string())
            }
            Ok(_) if !is_taken => Some(format!("its blocks at {} are not marked as taken", place())),
            Ok(_) if !is_summarized => {
                Some(format!("the summary of segment {} does not name it ({whose})", location.segment))
            }
            Ok(_) => None,
        };
        Claimed { read_bytes: location.stored.into(), problem, is_unplaced: false }
    }

    /// A record of how many hold a location; `say` gets what is wrong with it.
    pub fn count(&mut self, key: &[u8], value: &[u8], mut say: impl FnMut(String)) -> OrUnreadable {
        let holders: Holders = decode(Table::Shared, key, value).map_err(|error| error.to_string())?;
        match key.split_first_chunk::<8>().map(|(segment, block)| (segment, block.try_into())) {
            Some((segment, Ok(block))) => {
                self.counted.insert((u64::from_be_bytes(*segment), u16::from_be_bytes(block)), holders);
            }
            _ => say(format!("record {} of table shared: its key is no place", hex(key))),
        }
        Ok(())
    }

    /// Locations that others hold than is counted. With records that could not be read the count can be too low for a reason
    /// that was told already.
    pub fn miscounted(&self, has_lost_records: bool) -> impl Iterator<Item = String> {
        let shared = self.holders.iter().filter(|(_, holders)| holders.all() > 1).map(|(place, _)| place);
        let places: HashSet<Place> = self.counted.keys().chain(shared).copied().collect();
        places.into_iter().filter_map(move |place| {
            let found = self.holders.get(&place).copied().unwrap_or_default();
            let said = self.counted.get(&place).copied().unwrap_or_default();
            if said == found || has_lost_records && found.all() < said.all() {
                return None;
            }
            let (segment, block) = place;
            Some(format!(
                "the track at segment {segment} block {block} is said to have {} holders in live and {} in \
                 the log, and has {} and {}",
                said.live, said.log, found.live, found.log
            ))
        })
    }

    /// Blocks that are taken by nothing, if all records that name any are known.
    pub fn lost_blocks(&self) -> impl Iterator<Item = String> {
        let mut ids: Vec<u64> = self.segments.keys().copied().collect();
        ids.sort_unstable();
        ids.into_iter().filter_map(|id| {
            let segment = &self.segments[&id];
            let is_lost = |block: &usize| segment.descriptor.is_taken(*block as u16) && !segment.used[*block];
            let lost = (0..SEGMENT_BLOCKS).filter(is_lost).count();
            (lost > 0).then(|| format!("segment {id}: {lost} blocks are marked as taken and belong to nothing"))
        })
    }
}

/// Whether a record by itself can be what its table has.
pub fn check_record(table: Table, key: &[u8], value: &[u8]) -> Result<()> {
    let or_damage = |is_possible: bool, problem: &str| match is_possible {
        true => Ok(()),
        false => Err(Error::corrupt(record_name(table, key), problem)),
    };
    match table {
        Table::Volume => {
            let map: ByteBuf = decode(table, key, value)?;
            or_damage(key.len() == 6 && map.len() * 8 == volume::CHUNK_BITS, "it is no map of room")
        }
        Table::Room => {
            or_damage(key.len() == 9 && key[0] <= segment::CLASSES, "its key is that of no segment with room")
        }
        _ => Ok(()),
    }
}

/// What is wrong with a record that can be one of a segment with room: whether there is that segment.
pub fn room_of_nothing(meta: &Meta, key: &[u8]) -> Result<Option<Error>> {
    let is_there = meta.contains(Table::Segment, &key[1..])?;
    Ok((!is_there).then(|| Error::corrupt(record_name(Table::Room, key), "there is no such segment")))
}
