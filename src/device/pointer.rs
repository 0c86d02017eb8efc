//! What a track's record says: where its bytes lie.
//!
//! A pointer is the location of a whole track, and of patches laid over it, the oldest first: sections that
//! were written since. Patches make a small write into a large track cost what it writes; when there are
//! too many of them, the track is written anew.

use crate::error::Result;
use crate::limits::TRACK_BYTES_MAX;
use crate::logstore::Location;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A section of a track, stored apart from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    /// The first byte within the track.
    pub at: u32,
    pub location: Location,
}

impl Patch {
    pub fn end(&self) -> usize {
        self.at as usize + self.location.raw as usize
    }
}

/// Where the bytes of one track lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    pub whole: Location,
    /// Oldest first: where two overlap, the later one counts.
    pub patches: Vec<Patch>,
}

impl Pointer {
    pub fn new(whole: Location) -> Pointer {
        Pointer { whole, patches: Vec::new() }
    }

    pub fn locations(&self) -> impl Iterator<Item = &Location> {
        std::iter::once(&self.whole).chain(self.patches.iter().map(|patch| &patch.location))
    }

    /// Blocks that it takes.
    pub fn blocks(&self) -> u64 {
        self.locations().map(|location| location.blocks() as u64).sum()
    }

    /// Bytes that the track holds; zeros follow to its end.
    pub fn held(&self) -> usize {
        self.patches.iter().map(Patch::end).fold(self.whole.raw as usize, usize::max)
    }

    /// What no track can have, though each of its numbers could be.
    fn problem(&self) -> Option<String> {
        if let Some(location) = self.locations().find(|location| !location.is_possible()) {
            let Location { segment, block, stored, raw, .. } = location;
            return Some(format!(
                "no track of {raw} bytes can have {stored} of them in segment {segment} from block {block} on"
            ));
        }
        let held = self.held();
        (held > TRACK_BYTES_MAX).then(|| format!("no track has the {held} bytes that it is said to hold"))
    }

    /// Lays a patch over the others; those that it hides go.
    pub fn lay(&mut self, patch: Patch) {
        self.patches.retain(|old| old.at < patch.at || old.end() > patch.end());
        self.patches.push(patch);
    }

    /// What has the bytes of this one if `twin` has those of `then`: with the patches that this one has and `then` had not.
    /// `None` if this one was written anew since.
    pub fn over(&self, then: &Pointer, mut twin: Pointer) -> Option<Pointer> {
        if self.whole != then.whole {
            return None;
        }
        // A patch goes only when a later one hides it, which is here then.
        let later = self.patches.iter().filter(|patch| !then.patches.contains(patch));
        later.for_each(|patch| twin.lay(*patch));
        Some(twin)
    }
}

/// A plain location as itself, with patches a pair.
impl Serialize for Pointer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.patches.is_empty() {
            true => self.whole.serialize(serializer),
            false => (&self.whole, &self.patches).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pointer, D::Error> {
        deserializer.deserialize_any(PointerVisitor)
    }
}

struct PointerVisitor;

impl<'de> Visitor<'de> for PointerVisitor {
    type Value = Pointer;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a location, or a location and its patches")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Pointer, A::Error> {
        let pointer = read(seq)?;
        match pointer.problem() {
            None => Ok(pointer),
            Some(problem) => Err(A::Error::custom(problem)),
        }
    }
}

fn read<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<Pointer, A::Error> {
    let missing = || A::Error::custom("the location of a track is cut off");
    if seq.size_hint() == Some(2) {
        let whole = seq.next_element()?.ok_or_else(missing)?;
        return Ok(Pointer { whole, patches: seq.next_element()?.ok_or_else(missing)? });
    }
    Ok(Pointer::new(Location {
        segment: seq.next_element()?.ok_or_else(missing)?,
        block: seq.next_element()?.ok_or_else(missing)?,
        stored: seq.next_element()?.ok_or_else(missing)?,
        raw: seq.next_element()?.ok_or_else(missing)?,
        codec: seq.next_element()?.ok_or_else(missing)?,
        check: seq.next_element()?.ok_or_else(missing)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logstore::Codec;

    fn location(block: u16, raw: u32) -> Location {
        Location { segment: 7, block, stored: raw, raw, codec: Codec::None, check: u64::MAX }
    }

    #[test]
    fn a_pointer_comes_back_with_and_without_patches() {
        let mut pointer = Pointer::new(location(3, 60_000));
        let plain = rmp_serde::to_vec(&pointer).unwrap();
        assert_eq!(plain, rmp_serde::to_vec(&location(3, 60_000)).unwrap());
        assert_eq!(rmp_serde::from_slice::<Pointer>(&plain).unwrap(), pointer);
        pointer.lay(Patch { at: 4096, location: location(99, 4096) });
        pointer.lay(Patch { at: 61_000, location: location(100, 10) });
        let patched = rmp_serde::to_vec(&pointer).unwrap();
        assert_eq!(rmp_serde::from_slice::<Pointer>(&patched).unwrap(), pointer);
        assert_eq!(pointer.held(), 61_010);
    }

    #[test]
    fn a_patch_that_is_hidden_by_a_later_one_goes() {
        let mut pointer = Pointer::new(location(3, 60_000));
        for (at, raw) in [(0, 100), (50, 100), (20, 10), (40, 120)] {
            pointer.lay(Patch { at, location: location(9, raw) });
        }
        let left: Vec<(u32, usize)> = pointer.patches.iter().map(|patch| (patch.at, patch.end())).collect();
        assert_eq!(left, [(0, 100), (20, 30), (40, 160)]);
    }
}
