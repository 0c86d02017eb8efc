//! Bytes of an increment's file: the head, the start of a block, the footer, and numbers and keys within blocks.

use crate::limits::ARCHIVE_LEVELS_MAX;
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub const MAGIC: &[u8; 8] = b"pitfsinc";
const END_MAGIC: &[u8; 8] = b"pitfsend";
/// The version of the format that was written last, and the oldest.
pub(super) const VERSION: u32 = 2;
pub(super) const OLDEST: u32 = 1;

/// Magic, version and length of the header: the part of a head that is the same in every version, with the checksum
/// behind the header.
pub(super) const HEAD_START: usize = 16;
pub(super) const CHECK: usize = 8;
pub(super) const FOOTER: usize = 64;
/// What stands before the stored bytes of a block.
pub(super) const BLOCK_START: usize = 18;

/// Kinds of blocks. One above `RECORDS` is an index of blocks of records, two above it an index of those, and so on.
pub(super) const TRACKS: u8 = 0;
pub(super) const RECORDS: u8 = 1;
pub(super) const KIND_MAX: u8 = RECORDS + ARCHIVE_LEVELS_MAX as u8;

/// How a block is stored, with the numbers that a store has for tracks.
pub(super) const PLAIN: u8 = 0;
pub(super) const ZSTD: u8 = 2;

/// What the checksums in one file are seeded with: that of its head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed(pub u64);

impl Seed {
    /// The checksum of bytes of which the first lies at `offset`.
    pub(super) fn check(self, offset: u64, bytes: &[u8]) -> u64 {
        xxh3_64_with_seed(bytes, self.0.wrapping_add(offset))
    }
}

/// The start of a block.
pub(super) struct BlockStart {
    /// Of everything in the block behind the checksum.
    pub check: u64,
    pub stored: u32,
    pub raw: u32,
    pub kind: u8,
    pub codec: u8,
}

impl BlockStart {
    pub(super) fn decode(bytes: &[u8; BLOCK_START]) -> BlockStart {
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        BlockStart { check: number_at(bytes, 0), stored: number(8), raw: number(12), kind: bytes[16], codec: bytes[17] }
    }
}

/// The end of a file: where the root of the index is, and what there is in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Footer {
    /// Offset of the block from which every entry is found; 0 if there is none.
    pub root: u64,
    pub root_kind: u8,
    pub records: u64,
    pub tracks: u64,
    pub track_bytes: u64,
    /// Length of the file.
    pub bytes: u64,
}

impl Footer {
    /// The footer of a file of `len` bytes whose blocks begin at `start`, or what is wrong with it.
    pub(super) fn decode(bytes: &[u8; FOOTER], seed: Seed, start: u64, len: u64) -> Result<Footer, String> {
        if bytes[56..] != END_MAGIC[..] {
            return Err("its end is missing or was overwritten".into());
        }
        let (found, expected) = (seed.check(len - FOOTER as u64, &bytes[..48]), number_at(bytes, 48));
        if found != expected {
            return Err(format!("its footer has the checksum {found:016x} instead of {expected:016x}"));
        }
        let [root, kind, records, tracks, track_bytes, bytes] = [0, 8, 16, 24, 32, 40].map(|at| number_at(bytes, at));
        let is_possible = match root {
            0 => kind == 0,
            _ => (start..len).contains(&root) && (RECORDS.into()..=KIND_MAX.into()).contains(&kind),
        };
        if !is_possible || bytes != len {
            return Err(format!(
                "its footer has a root of kind {kind} at {root} and a length of {bytes} instead of {len}"
            ));
        }
        // Not above KIND_MAX, as was just seen.
        Ok(Footer { root, root_kind: kind as u8, records, tracks, track_bytes, bytes })
    }
}

/// The 64 bits at a place that is known to be within `bytes`.
pub(super) fn number_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}
