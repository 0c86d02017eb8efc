//! Room of the volume: what its map has as taken is where segments lie, and nothing else.

use super::Check;
use super::tracks::Known;
use crate::error::Result;
use crate::limits::{PSEG_BYTES, PSEGS_MAX};
use crate::meta::{Table, decode, hex};
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;

/// The only volume there is.
pub(super) const VOLUME: u16 = 0;
const CHUNK_BITS: u32 = crate::logstore::CHUNK_BITS as u32;

impl Check<'_> {
    /// Compares the map of room with the places of segments.
    pub(super) fn volume(&mut self, known: &Known, has_all_segments: bool) -> Result<()> {
        let mut map: BTreeMap<u32, ByteBuf> = BTreeMap::new();
        self.each(Table::Volume, |check, (key, value)| {
            let parts =
                key.split_first_chunk::<2>().and_then(|(volume, chunk)| Some((*volume, chunk.try_into().ok()?)));
            // What does not decode is named elsewhere.
            let (Some((volume, chunk)), Ok(bits)) = (parts, decode::<ByteBuf>(Table::Volume, &key, &value)) else {
                return Ok(());
            };
            let (volume, chunk) = (u16::from_be_bytes(volume), u32::from_be_bytes(chunk));
            let is_there = volume == VOLUME && u64::from(chunk) < PSEGS_MAX / u64::from(CHUNK_BITS);
            match is_there {
                true => drop(map.insert(chunk, bits)),
                false => check.say(format!("record {} of table volume: there is no such part of a volume", hex(&key))),
            }
            Ok(())
        })?;
        self.places(known, &map);
        if has_all_segments {
            map.iter().for_each(|(chunk, bits)| self.lost(known, *chunk, bits));
        }
        Ok(())
    }

    /// Segments that lie where the map has free room, or the label.
    fn places(&mut self, known: &Known, map: &BTreeMap<u32, ByteBuf>) {
        let is_taken = |pseg: u32| {
            let (byte, bit) = (pseg % CHUNK_BITS / 8, pseg % 8);
            let bits = map.get(&(pseg / CHUNK_BITS)).and_then(|bits| bits.get(byte as usize));
            bits.is_some_and(|byte| byte >> bit & 1 == 1)
        };
        if !is_taken(0) {
            self.say("the map of room has the beginning of the volume as free, where its label is");
        }
        let mut places: Vec<(u32, u64)> = known.places.iter().map(|(pseg, segment)| (*pseg, *segment)).collect();
        places.sort_unstable();
        for (pseg, segment) in places {
            if pseg == 0 {
                self.say(format!(
                    "segment {segment} is said to lie at the beginning of the volume, where its label is"
                ));
            } else if !is_taken(pseg) {
                let at = u64::from(pseg) * PSEG_BYTES;
                self.say(format!("segment {segment} is said to lie at {pseg} (byte {at} of the volume), which the map of room has as free"));
            }
        }
    }

    /// Room that is taken by nothing.
    fn lost(&mut self, known: &Known, chunk: u32, bits: &[u8]) {
        let is_lost = |bit: &u32| {
            let (byte, pseg) = (bits.get((bit / 8) as usize), chunk * CHUNK_BITS + bit);
            byte.is_some_and(|byte| byte >> (bit % 8) & 1 == 1) && pseg != 0 && !known.places.contains_key(&pseg)
        };
        let mut lost = (0..CHUNK_BITS).filter(is_lost);
        if let Some(first) = lost.next() {
            let (first, count) = (chunk * CHUNK_BITS + first, lost.count() + 1);
            self.say(format!(
                "{count} physical segments of the volume, of which the first is {first}, are marked as taken, and no segment lies there"
            ));
        }
    }
}
