//! Where a listing goes on: the position of an entry in its directory.
//!
//! It has to follow from the name alone, since listings have no state, and to be another one for each entry, since a
//! listing goes on after it. Entries are in the order of the hashes of their names, and names of one hash can be made by whoever knows
//! the seed: so the hash is the upper half of a position only. The lower half is a keyed one-way hash of the name: by
//! it entries of one upper half, a *run*, are told apart. What is seen of positions does not give its key away.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::id::Id;
use crate::meta::Table;

/// Positions below this are those of `.` and `..`.
pub(super) const FIRST: u64 = 16;
const LAST: u64 = i64::MAX as u64 - 1;
/// The lower half.
const LOW_BITS: u32 = 31;

const KEY: &[u8] = b"positions";

/// Gives positions.
pub(super) struct Positions([u64; 2]);

impl Positions {
    fn new(key: Id) -> Positions {
        let bytes = u128::from_le_bytes(key.to_bytes());
        Positions([bytes as u64, (bytes >> 64) as u64])
    }

    /// The key is made when a store is first opened by a version that has it.
    pub(super) fn load(device: &Device) -> Result<Positions> {
        let known: Option<Id> = match device.look()?.meta().get(Table::State, KEY) {
            // Nothing is lost with it but the places of listings that are under way.
            Err(error @ Error::Corrupt { .. }) => {
                log::warn!("{error}; positions in listings are made anew");
                None
            }
            known => known?,
        };
        let key = known.unwrap_or_else(Id::random);
        if known.is_none() {
            // Where nothing can be written, positions are good until the store is closed.
            match device.begin() {
                Ok(mut txn) => {
                    txn.meta_mut().put(Table::State, KEY, &key);
                    txn.finish()?;
                }
                Err(error) => log::debug!("positions in listings change when the store is opened again: {error}"),
            }
        }
        Ok(Positions::new(key))
    }

    /// The position of a name with this hash.
    pub(super) fn of(&self, hash: u64, name: &[u8]) -> u64 {
        let low = siphash(self.0, name) & ((1 << LOW_BITS) - 1);
        (run_start(hash) | low).clamp(FIRST, LAST)
    }
}

/// The smallest hash in the run of a hash, or of a position.
pub(super) fn run_start(hash: u64) -> u64 {
    hash >> LOW_BITS << LOW_BITS
}

/// Brings a hash to where positions can be.
pub(super) fn clamp(hash: u64) -> u64 {
    hash.clamp(FIRST, LAST)
}

impl Default for Positions {
    fn default() -> Positions {
        Positions::new(Id::default())
    }
}

/// SipHash-2-4 (J.-P. Aumasson and D. J. Bernstein, 2012).
fn siphash(key: [u64; 2], bytes: &[u8]) -> u64 {
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let mut take = |word: u64| {
        v[3] ^= word;
        round(&mut v);
        round(&mut v);
        v[0] ^= word;
    };
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().for_each(|word| take(u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    last[7] = bytes.len() as u8;
    take(u64::from_le_bytes(last));
    v[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_way_hash_is_the_published_one() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let bytes: Vec<u8> = (0..15).collect();
        assert_eq!(siphash(key, &bytes), 0xa129_ca61_49be_45e5);
        assert_eq!(siphash(key, b""), 0x726f_db47_dd0e_0e31);
    }

    #[test]
    fn positions_are_in_the_run_of_their_hash() {
        let positions = Positions::new(Id::random());
        for hash in [FIRST, 1 << 40, (1 << 40) + 12_345, LAST] {
            let position = positions.of(hash, b"name");
            assert_eq!(run_start(position), run_start(hash));
            assert!((FIRST..=LAST).contains(&position));
            assert_ne!(positions.of(hash, b"other"), position);
        }
    }
}
