//! Increments as they were written before there were sets, which are only read.
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

pub use entries::Entries;
pub(super) use layout::MAGIC;
pub use reader::Reader;
