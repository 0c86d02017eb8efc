//! The summary of a segment: whose each track is, the way back when the metadata is lost.
//!
//! A summary block has eight sectors of 512 bytes; a sector has a header of 8 bytes (magic, low half of
//! the segment number) and twelve entries of 42 bytes, each with a check of its own, so that a write
//! cut off at a sector leaves every entry either old or new.

use super::Location;
use crate::limits::BLOCK_BYTES;
use xxhash_rust::xxh3::xxh3_64_with_seed;

const SECTOR: usize = 512;
const HEADER: usize = 8;
const ENTRY: usize = 42;
const CHECKED: usize = 39;
const MAGIC: u32 = u32::from_le_bytes(*b"pitS");
/// Set in the byte of the codec.
const PATCH: u8 = 0x80;
const ENTRIES_IN_SECTOR: usize = 12;
pub(super) const ENTRIES_IN_BLOCK: usize = BLOCK_BYTES / SECTOR * ENTRIES_IN_SECTOR;

const _: () = assert!(HEADER + ENTRIES_IN_SECTOR * ENTRY == SECTOR);

/// Whose a track is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub base: u32,
    pub inode: u64,
    /// Where in the file its bytes begin.
    pub at: u64,
    /// It lies over an older version of its track, and does not replace it.
    pub is_patch: bool,
    /// The epoch in which this version of the track was written.
    pub birth: u32,
}

/// One track of a segment and its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub block: u16,
    pub stored: u32,
    pub codec: u8,
    pub check: u64,
    pub owner: Owner,
}

impl Entry {
    pub(super) fn new(owner: Owner, location: &Location) -> Entry {
        Entry {
            block: location.block,
            stored: location.stored,
            codec: location.codec.into(),
            check: location.check,
            owner,
        }
    }

    fn encode(&self, segment: u64, out: &mut [u8]) {
        out[0..2].copy_from_slice(&self.block.to_le_bytes());
        out[2..6].copy_from_slice(&self.stored.to_le_bytes());
        out[6] = self.codec | if self.owner.is_patch { PATCH } else { 0 };
        out[7..11].copy_from_slice(&self.owner.base.to_le_bytes());
        out[11..15].copy_from_slice(&self.owner.birth.to_le_bytes());
        out[15..23].copy_from_slice(&self.owner.inode.to_le_bytes());
        out[23..31].copy_from_slice(&self.owner.at.to_le_bytes());
        out[31..39].copy_from_slice(&self.check.to_le_bytes());
        let check = xxh3_64_with_seed(&out[..CHECKED], segment).to_le_bytes();
        out[CHECKED..ENTRY].copy_from_slice(&check[..3]);
    }

    fn decode(segment: u64, bytes: &[u8]) -> Option<Entry> {
        let check = xxh3_64_with_seed(&bytes[..CHECKED], segment).to_le_bytes();
        if bytes[CHECKED..ENTRY] != check[..3] || bytes.iter().all(|&byte| byte == 0) {
            return None;
        }
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Some(Entry {
            block: u16_at(0),
            stored: u32_at(2),
            codec: bytes[6] & !PATCH,
            check: u64_at(31),
            owner: Owner {
                base: u32_at(7),
                birth: u32_at(11),
                inode: u64_at(15),
                at: u64_at(23),
                is_patch: bytes[6] & PATCH != 0,
            },
        })
    }
}

/// One summary block from its entries.
pub(super) fn encode(segment: u64, entries: &[Option<Entry>]) -> Vec<u8> {
    debug_assert_eq!(entries.len(), ENTRIES_IN_BLOCK);
    let mut bytes = vec![0; BLOCK_BYTES];
    for (sector, entries) in bytes.chunks_exact_mut(SECTOR).zip(entries.chunks_exact(ENTRIES_IN_SECTOR)) {
        sector[..4].copy_from_slice(&MAGIC.to_le_bytes());
        sector[4..HEADER].copy_from_slice(&(segment as u32).to_le_bytes());
        for (out, entry) in sector[HEADER..].chunks_exact_mut(ENTRY).zip(entries) {
            if let Some(entry) = entry {
                entry.encode(segment, out);
            }
        }
    }
    bytes
}

/// The entries of one summary block; `None` where there is none or it is not valid.
pub(super) fn decode(segment: u64, bytes: &[u8]) -> Vec<Option<Entry>> {
    bytes
        .chunks_exact(SECTOR)
        .flat_map(|sector| sector[HEADER..].chunks_exact(ENTRY))
        .map(|bytes| Entry::decode(segment, bytes))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_the_way_there_and_back_and_damage_drops_one() {
        let entry = |i: u64| Entry {
            block: i as u16,
            stored: 4000,
            codec: 1,
            check: i << 40,
            owner: Owner { base: 1, inode: i * 7, at: i, is_patch: i == 12, birth: 3 },
        };
        let mut entries = vec![None; ENTRIES_IN_BLOCK];
        for i in [0usize, 11, 12, 95] {
            entries[i] = Some(entry(i as u64 + 1));
        }
        let mut bytes = encode(9, &entries);
        assert_eq!(decode(9, &bytes), entries);
        assert!(decode(8, &bytes).iter().all(Option::is_none), "another segment's entries are not taken for ours");
        bytes[HEADER + 20] ^= 1;
        entries[0] = None;
        assert_eq!(decode(9, &bytes), entries);
    }
}
