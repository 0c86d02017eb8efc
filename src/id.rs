//! Who is who: 128 random bits, given at birth and never again.
//!
//! An epoch says when, within one store. What was copied counts the same epochs with other content: only an id says
//! that a thing is the very one that is meant.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::ByteArray;
use std::fmt;
use std::str::FromStr;
use xxhash_rust::xxh3::Xxh3;

/// The id of a store, base, snapshot or archive. Written as 32 hexadecimal digits, stored as 16 bytes, the lowest first.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u128);

impl Id {
    /// One that nothing else has.
    pub fn random() -> Id {
        let mut bytes = [0; 16];
        // Linux has had the call since 3.17. Hashes of a map are seeded from the same source.
        if fill_random(&mut bytes).is_err() {
            return Id::of_parts("fallback", &[&seed().to_le_bytes(), &seed().to_le_bytes()]);
        }
        Id(u128::from_le_bytes(bytes))
    }

    /// The id of what was made before there were ids: always the same for the same parts.
    pub fn of_parts(kind: &str, parts: &[&[u8]]) -> Id {
        let mut hash = Xxh3::new();
        for part in std::iter::once(kind.as_bytes()).chain(parts.iter().copied()) {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Id(hash.digest128())
    }

    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    pub fn from_bytes(bytes: [u8; 16]) -> Id {
        Id(u128::from_le_bytes(bytes))
    }

    /// Enough of it for the name of a file.
    pub fn short(self) -> String {
        self.to_string()[..8].to_string()
    }
}

/// Fills bytes from the kernel's generator.
pub fn fill_random(out: &mut [u8]) -> Result<(), rustix::io::Errno> {
    let mut filled = 0;
    while filled < out.len() {
        match rustix::rand::getrandom(&mut out[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn seed() -> u64 {
    use std::hash::BuildHasher;
    std::hash::RandomState::new().hash_one(0u64)
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The text is not an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoId;

impl FromStr for Id {
    type Err = NoId;

    fn from_str(text: &str) -> Result<Id, NoId> {
        let mut bytes = [0; 16];
        if text.len() != 32 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(NoId);
        }
        for (byte, at) in bytes.iter_mut().zip((0..32).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| NoId)?;
        }
        Ok(Id::from_bytes(bytes))
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ByteArray::new(self.to_bytes()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        Ok(Id::from_bytes(ByteArray::<16>::deserialize(deserializer)?.into_array()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_as_text_and_as_bytes() {
        let id = Id::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(Id::from_bytes(id.to_bytes()), id);
        assert!(
            ["", "12", "zz345678901234567890123456789012", "+1345678901234567890123456789012"]
                .iter()
                .all(|text| text.parse::<Id>().is_err())
        );
    }

    #[test]
    fn no_two_random_ids_are_the_same_and_parts_are_told_apart() {
        assert_ne!(Id::random(), Id::random());
        assert_ne!(Id::of_parts("a", &[b"bc", b"d"]), Id::of_parts("a", &[b"b", b"cd"]));
        assert_eq!(Id::of_parts("a", &[b"b"]), Id::of_parts("a", &[b"b"]));
    }
}
