//! One increment of an archive: the old value of every record that was replaced or removed between two
//! neighbouring snapshots.
//!
//! It is a reverse set (`set.rs`), laid out like one that is a moment, and with an index of what changed alone. Those that were
//! written before there were sets are read as well.
//!
//! Invariants:
//! - a file under its final name is whole: it was synced before it got the name;
//! - every byte is under a checksum that is bound to its file and its place, so that what lies at a wrong place or comes from
//!   another increment is damage as well;
//! - no length that was read is believed beyond the limits and beyond the file.

mod alone;
mod former;
mod header;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use header::{Header, before_ids};
pub use reader::{Entries, Reader};
pub use writer::Writer;

use crate::clock::Epoch;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The compression level where nothing else is asked for: the room of zstd's higher levels is little less, and they
/// take several times as long.
pub const LEVEL: i32 = 9;

/// One record's old value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub table: u8,
    /// The record's key, without the base.
    pub key: Vec<u8>,
    /// The epoch in which the value was written.
    pub birth: Epoch,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// The value as the store has it, without its birth.
    Record(Vec<u8>),
    /// The bytes of a track are elsewhere in the file.
    Track(Place),
}

/// Where the bytes of an old track lie in an increment's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Offset of the block in the file.
    pub block: u64,
    /// The first byte within the block, decompressed.
    pub at: u32,
    /// Bytes of the track.
    pub raw: u32,
    /// Of a set, what is stored of the block.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stored: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes what it looks at by reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn full_key(table: u8, key: &[u8]) -> Vec<u8> {
    [&[table], key].concat()
}

/// What there is in an increment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub path: PathBuf,
    /// Length of the file.
    pub bytes: u64,
    /// Entries that are no tracks.
    pub records: u64,
    pub tracks: u64,
    /// Bytes of all tracks before compression.
    pub track_bytes: u64,
}
