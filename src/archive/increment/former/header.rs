//! What increments of version 1 said of themselves.

use super::super::{Header, before_ids};
use crate::clock::{Epoch, Timestamp};
use crate::id::Id;
use crate::purpose::Purpose;
use crate::set::Mark;
use serde::{Deserialize, Deserializer};
use serde_bytes::ByteArray;

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
