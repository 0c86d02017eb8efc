//! What an increment says of itself.

use crate::clock::{Epoch, Timestamp};
use crate::id::Id;
use crate::set::{self, Kind, Mark, Reverse};
use crate::shown::shown;
use serde::{Deserialize, Serialize};

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

impl Header {
    /// As the head of a set says it.
    pub(super) fn in_set(&self) -> set::Header {
        set::Header {
            store: self.store,
            base: self.base_id,
            base_name: self.base_name.clone(),
            mark: self.from.clone(),
            kind: Kind::Full,
            before: None,
            track_bytes: self.track_bytes,
            hash_seed: self.hash_seed,
            bytes: 0,
            reverse: Some(Reverse { to: self.to.clone(), base: self.base, merged: self.merged.clone() }),
        }
    }

    /// What the head of a set says, if that is a reverse one.
    pub(super) fn of_set(found: &set::Header) -> Option<Header> {
        let Reverse { to, base, merged } = found.reverse.clone()?;
        Some(Header {
            store: found.store,
            base_id: found.base,
            base,
            base_name: found.base_name.clone(),
            from: found.mark.clone(),
            to,
            track_bytes: found.track_bytes,
            hash_seed: found.hash_seed,
            merged,
        })
    }

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
