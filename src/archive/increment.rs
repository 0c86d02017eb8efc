//! One increment of an archive: the old value of every record that was replaced or removed between two
//! neighbouring snapshots.
//!
//! ```text
//! head │ tracks tracks records tracks records … index … │ footer
//!                         │       ▲       │        │  ▲      │
//!                         └───────┘ (back)└────────┘  └──────┘ root
//! ```
//!
//! Blocks are compressed, each for itself. A block of tracks is the bytes of tracks, one behind the other. A block
//! of records is entries in the order of table and key; of a track it says where its bytes are, in a block before
//! it. A block of the index has the first key and the offset of each block of the level below; the root is a block of
//! records where there is only one.
//!
//! Invariants:
//! - a file under its final name is whole: it was synced before it got the name;
//! - every byte is under a checksum, seeded with its offset and with the checksum of the head, so that a block which
//!   lies at a wrong place or comes from another increment is damage as well;
//! - whatever names a block comes behind it in the file and is of a higher level: following names always ends;
//! - no length that was read is believed beyond the limits and beyond the file.

mod cache;
mod cursor;
mod entries;
mod header;
mod layout;
mod reader;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

pub use entries::Entries;
pub use header::{Header, Mark, before_ids};
pub use reader::Reader;
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
