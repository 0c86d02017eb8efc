//! Sets: snapshots outside the store that need no store to be read.
//!
//! A set is one object on a shelf, written from its beginning to its end and never changed:
//!
//! ```text
//! head │ label data data … label data … │ leaves and nodes, between them │ foot │ end
//! ```
//!
//! It has what changed since the set that it builds on, or everything; and an **index of the whole moment**: a search tree whose
//! nodes are shared. A node of which nothing changed is not written again, but named where it lies, in whichever earlier set. So
//! writing a set costs what changed, looking a key up costs the height of the tree however long the chain of sets is, and leaving
//! the sets between two moments out takes nothing from either but what only they needed.
//!
//! Invariants:
//! - everything but the beginning of the head and the end is sealed: bound to its set, its kind and its place in it;
//! - what a node names lies before it in the same set, or in a set that was whole before this one was begun;
//! - a key is a table's number and the record's key without its base; keys ascend within a node, and from one to the next.
//!
//! This layer knows keys, births and values, and nothing of what they mean.

mod builder;
mod cache;
mod file;
mod layout;
mod mark;
mod node;
mod reading;
mod recast;
mod seal;
#[cfg(test)]
mod tests;
mod unit;
mod update;
mod writer;

pub use file::{SetFile, id_in};
pub use layout::MAGIC;
pub use mark::Mark;
pub use node::{Entry, Value};
pub use reading::{Scan, Sets, Spot};
pub use recast::{Recast, recast, recast_all};
pub use seal::{Key, Seal, random};
pub use update::{Change, Delta, update};
pub use writer::{Summary, Writer};

use crate::id::Id;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// What a set builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Nothing: it has all of its moment.
    Full,
    /// The last full set.
    Differential,
    /// The set before.
    Incremental,
}

/// The set that another one builds on, and the snapshot that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    pub set: Id,
    pub snapshot: Id,
}

/// What a set says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The store and the base that it comes from.
    pub store: Id,
    pub base: Id,
    pub base_name: String,
    /// The snapshot that it is of.
    pub mark: Mark,
    pub kind: Kind,
    pub before: Option<Before>,
    /// Track *n* of a file has its bytes from `n * track_bytes`.
    pub track_bytes: u32,
    /// Seeds the hashes of directory entries.
    pub hash_seed: u64,
    /// Bytes that the whole moment takes in the store, as the store counts them: what a restore will need, about.
    pub bytes: u64,
    /// Of one that is no moment: what its records were in the snapshot, and are not in this later one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverse: Option<Reverse>,
}

/// Of a reverse set, where it leads: laid over a later snapshot, its records make that the earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reverse {
    pub to: Mark,
    /// The number of the base in its store.
    pub base: u32,
    /// The snapshots between the two whose times were merged away.
    pub merged: Vec<Id>,
}

/// What was found at the end of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foot {
    /// The index of the moment, if there is anything in it.
    pub root: Option<Root>,
    /// The sets that something of the moment lies in, this one first.
    pub sets: Vec<Share>,
    /// What is in the moment: entries that are no tracks, and tracks.
    pub records: u64,
    pub tracks: u64,
    /// What could not be read when the set was made, by path: it is not in it.
    pub missing: Vec<String>,
    /// Of a part, which is no moment yet: the last key that is as its snapshot has it. What comes behind is as in the set before, if
    /// there is one, and is not there otherwise.
    #[serde(default)]
    pub part: Option<ByteBuf>,
}

/// What of a moment lies in one set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    pub set: Id,
    /// Nodes of the index.
    pub nodes: u64,
    /// Bytes of tracks, before compression.
    pub bytes: u64,
}

/// Where a tree begins: the number of a set in the foot, a frame of a kind, its offset and what is stored of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// An earlier one, where nothing has changed since.
    pub set: u32,
    pub kind: u8,
    pub offset: u64,
    pub stored: u32,
}

impl Foot {
    /// Whether all that the snapshot had is in it.
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty()
    }
}

/// The name of a set's object.
pub fn object_name(id: Id) -> String {
    format!("{id}.set")
}

/// The set that an object is, by its name.
pub fn id_of(name: &str) -> Option<Id> {
    name.strip_suffix(".set")?.parse().ok()
}
