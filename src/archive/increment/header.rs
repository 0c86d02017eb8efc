//! What an increment says of itself, in the present format and in that of before.

use crate::clock::{Epoch, Timestamp};
use crate::id::Id;
use crate::meta::is_name;
use crate::purpose::Purpose;
use crate::shown::shown;
use serde::{Deserialize, Deserializer, Serialize};
use serde_bytes::ByteArray;

/// One snapshot at an end of an increment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub epoch: Epoch,
    /// Which snapshot it is, in whatever copy of the store.
    pub id: Id,
    pub name: String,
    pub time: Timestamp,
    /// Why it was taken.
    pub purpose: Purpose,
    /// The mount does not show it.
    pub offline: bool,
}

/// What an increment says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The store and the base that it comes from.
    pub store: Id,
    pub base_id: Id,
    pub base: u32,
    pub base_name: String,
    /// The snapshot whose values are in it.
    pub from: Mark,
    /// The snapshot after it, over which they are to be laid.
    pub to: Mark,
    pub track_bytes: u32,
    /// Seeds the hashes of directory entries.
    pub hash_seed: u64,
    /// The snapshots between the two whose times were merged away: increments among these are parts of this one.
    #[serde(default)]
    pub merged: Vec<Id>,
}

impl Mark {
    /// Whether its name, which stands for a directory, can be that of one.
    pub fn has_name(&self) -> bool {
        is_name(self.name.as_bytes())
    }
}

impl Header {
    /// What is wrong with what it says, whatever its checksum: somebody may have prepared it.
    pub(in crate::archive) fn check(&self) -> Result<(), String> {
        let (from, to) = (&self.from, &self.to);
        if from.epoch >= to.epoch {
            return Err(format!("it is said to lead from epoch {} to {}", from.epoch, to.epoch));
        }
        match [from, to].into_iter().find(|mark| !mark.has_name()) {
            Some(mark) => Err(format!("no snapshot can have the name \"{}\"", shown(mark.name.as_bytes()))),
            None => Ok(()),
        }
    }

    /// Whether another increment is one of those that this one was merged of.
    pub fn has_part(&self, part: &Header) -> bool {
        let is_end = |id: Id| id == self.from.id || id == self.to.id || self.merged.contains(&id);
        let is_of_same = (self.store, self.base_id) == (part.store, part.base_id);
        let spans_all = (part.from.id, part.to.id) == (self.from.id, self.to.id);
        is_of_same && is_end(part.from.id) && is_end(part.to.id) && !spans_all
    }
}

/// The ids of what format 3 had without any: always the same for the same thing, and others in a copy that went its own way.
pub mod before_ids {
    use super::{Epoch, Id, Timestamp};

    pub fn store(hash_seed: u64) -> Id {
        Id::of_parts("pitfs store", &[&hash_seed.to_le_bytes()])
    }

    pub fn base(hash_seed: u64, base: u32) -> Id {
        Id::of_parts("pitfs base", &[&hash_seed.to_le_bytes(), &base.to_le_bytes()])
    }

    pub fn volume(hash_seed: u64, number: u16) -> Id {
        Id::of_parts("pitfs volume", &[&hash_seed.to_le_bytes(), &number.to_le_bytes()])
    }

    pub fn archive(hash_seed: u64, base: u32) -> Id {
        Id::of_parts("pitfs archive", &[&hash_seed.to_le_bytes(), &base.to_le_bytes()])
    }

    /// Two copies of a store that both took a snapshot in one epoch did so at different times.
    pub fn snapshot(hash_seed: u64, base: u32, epoch: Epoch, time: Timestamp) -> Id {
        let numbers: [&[u8]; 5] = [
            &hash_seed.to_le_bytes(),
            &base.to_le_bytes(),
            &epoch.number().to_le_bytes(),
            &time.seconds.to_le_bytes(),
            &time.nanos.to_le_bytes(),
        ];
        Id::of_parts("pitfs snapshot", &numbers)
    }
}

/// The header of version 1.
#[derive(Deserialize)]
pub(super) struct Header1 {
    #[serde(deserialize_with = "sixteen_bytes")]
    store: u128,
    base: u32,
    base_name: String,
    from: Mark1,
    to: Mark1,
    track_bytes: u32,
    hash_seed: u64,
}

#[derive(Deserialize)]
struct Mark1 {
    epoch: Epoch,
    name: String,
    time: Timestamp,
}

/// MessagePack has no integers of 128 bits.
fn sixteen_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
    Ok(u128::from_le_bytes(ByteArray::deserialize(deserializer)?.into_array()))
}

impl From<Header1> for Header {
    fn from(old: Header1) -> Header {
        let Header1 { store, base, base_name, from, to, track_bytes, hash_seed } = old;
        let mark = |mark: Mark1| Mark {
            epoch: mark.epoch,
            id: before_ids::snapshot(hash_seed, base, mark.epoch, mark.time),
            name: mark.name,
            time: mark.time,
            purpose: Purpose::Plain,
            offline: false,
        };
        // A store's number was its seed.
        let store = if store == u128::from(hash_seed) { before_ids::store(hash_seed) } else { Id::default() };
        let base_id = before_ids::base(hash_seed, base);
        let (from, to, merged) = (mark(from), mark(to), Vec::new());
        Header { store, base_id, base, base_name, from, to, track_bytes, hash_seed, merged }
    }
}
