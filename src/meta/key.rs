//! A key as an overlay keeps it: most comparisons are decided without a look at where its bytes are.

use smallvec::SmallVec;
use std::borrow::Borrow;
use std::cmp::Ordering;

/// Bytes that those of inodes and of tracks have, at most.
const INLINE_BYTES: usize = 20;

/// A key, in the order of its bytes.
#[derive(Clone, Debug)]
pub(super) struct Key {
    head: u128,
    bytes: SmallVec<[u8; INLINE_BYTES]>,
}

impl Key {
    pub(super) fn new(bytes: &[u8]) -> Key {
        Key { head: head_of(bytes), bytes: SmallVec::from_slice(bytes) }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes
    }
}

/// The first bytes as a number that is in the same order, with zeros for what there is none of. Where two are the same, the
/// bytes themselves tell the keys apart.
fn head_of(bytes: &[u8]) -> u128 {
    let mut head = [0; size_of::<u128>()];
    let len = bytes.len().min(head.len());
    head[..len].copy_from_slice(&bytes[..len]);
    u128::from_be_bytes(head)
}

/// What a key is looked for by.
pub(super) trait Sought {
    fn head(&self) -> u128;
    fn bytes(&self) -> &[u8];
}

/// Bytes that are looked for.
pub(super) struct Bytes<'a> {
    head: u128,
    bytes: &'a [u8],
}

impl<'a> Bytes<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Bytes<'a> {
        Bytes { head: head_of(bytes), bytes }
    }
}

impl Sought for Bytes<'_> {
    fn head(&self) -> u128 {
        self.head
    }

    fn bytes(&self) -> &[u8] {
        self.bytes
    }
}

impl Sought for Key {
    fn head(&self) -> u128 {
        self.head
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl<'a> Borrow<dyn Sought + 'a> for Key {
    fn borrow(&self) -> &(dyn Sought + 'a) {
        self
    }
}

impl Ord for dyn Sought + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.head().cmp(&other.head()).then_with(|| self.bytes().cmp(other.bytes()))
    }
}

impl PartialOrd for dyn Sought + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Sought + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for dyn Sought + '_ {}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.head.cmp(&other.head).then_with(|| self.bytes.cmp(&other.bytes))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Few different bytes, so that keys begin alike and end with zeros.
        #[test]
        fn keys_are_in_the_order_of_their_bytes(
            a in proptest::collection::vec(0u8..3, 0..40),
            b in proptest::collection::vec(0u8..3, 0..40),
        ) {
            prop_assert_eq!(Key::new(&a).cmp(&Key::new(&b)), a.cmp(&b));
            let (sought, key) = (Bytes::new(&a), Key::new(&b));
            let (sought, key): (&dyn Sought, &dyn Sought) = (&sought, key.borrow());
            prop_assert_eq!(sought.cmp(key), a.cmp(&b));
            let (one, same) = (Key::new(&a), Key::new(&a));
            prop_assert!(one == same && one.as_slice() == a);
        }
    }
}
