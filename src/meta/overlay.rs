//! Changes that are not in the key-value store yet, and the merge of several levels of them.

use super::key::{Bytes as KeyBytes, Key, Sought};
use super::{Pair, Table, encode};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_bytes::{ByteBuf, Bytes};
use std::collections::btree_map::{self, BTreeMap, Entry};
use std::iter::Peekable;
use std::ops::Bound;

type Changes = BTreeMap<Key, Option<Vec<u8>>>;

/// A changed key, as it is written.
#[derive(Serialize, Deserialize)]
struct Change<B> {
    table: u8,
    key: B,
    value: Option<B>,
}

/// For each changed key its new value, or `None` where it was removed.
#[derive(Debug, Default)]
pub struct Overlay {
    changes: [Changes; Table::ALL.len()],
    len: usize,
    /// Of all keys and values together.
    bytes: usize,
}

fn value_bytes(value: &Option<Vec<u8>>) -> usize {
    value.as_ref().map_or(0, Vec::len)
}

impl Overlay {
    pub fn get(&self, table: Table, key: &[u8]) -> Option<Option<&[u8]>> {
        self.changes[table as usize].get(&KeyBytes::new(key) as &dyn Sought).map(Option::as_deref)
    }

    /// Gives a key a value, apart from any transaction.
    pub fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.set(table, key, Some(value));
    }

    /// Removes a key, apart from any transaction.
    pub fn remove(&mut self, table: Table, key: &[u8]) {
        self.set(table, key, None);
    }

    /// Returns what this overlay held for the key before.
    pub(super) fn set(&mut self, table: Table, key: &[u8], value: Option<Vec<u8>>) -> Option<Option<Vec<u8>>> {
        let changes = &mut self.changes[table as usize];
        self.bytes += value_bytes(&value);
        match changes.entry(Key::new(key)) {
            Entry::Occupied(mut slot) => {
                let before = slot.insert(value);
                self.bytes -= value_bytes(&before);
                Some(before)
            }
            Entry::Vacant(slot) => {
                slot.insert(value);
                self.len += 1;
                self.bytes += key.len();
                None
            }
        }
    }

    pub(super) fn restore(&mut self, table: Table, key: &[u8], before: Option<Option<Vec<u8>>>) {
        match before {
            Some(value) => {
                self.set(table, key, value);
            }
            None => {
                if let Some(value) = self.changes[table as usize].remove(&KeyBytes::new(key) as &dyn Sought) {
                    self.len -= 1;
                    self.bytes -= key.len() + value_bytes(&value);
                }
            }
        }
    }

    pub(super) fn range(&self, table: Table, from: &[u8], to: &[u8]) -> btree_map::Range<'_, Key, Option<Vec<u8>>> {
        let (from, to) = (KeyBytes::new(from), KeyBytes::new(if from < to { to } else { from }));
        let bounds = (Bound::Included(&from as &dyn Sought), Bound::Excluded(&to as &dyn Sought));
        self.changes[table as usize].range::<dyn Sought, _>(bounds)
    }

    pub(super) fn table(&self, table: Table) -> impl Iterator<Item = (&Key, &Option<Vec<u8>>)> {
        self.changes[table as usize].iter()
    }

    /// All of it as bytes, to be read by [`Overlay::from_bytes`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let changes = Table::ALL.into_iter().flat_map(|table| {
            self.table(table).map(move |(key, value)| Change {
                table: table as u8,
                key: Bytes::new(key.as_slice()),
                value: value.as_deref().map(Bytes::new),
            })
        });
        encode(&changes.collect::<Vec<_>>())
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Overlay> {
        let failed = |problem: String| Error::corrupt("the journal", format!("a commit does not decode: {problem}"));
        let changes: Vec<Change<ByteBuf>> = rmp_serde::from_slice(bytes).map_err(|error| failed(error.to_string()))?;
        let mut overlay = Overlay::default();
        for Change { table, key, value } in changes {
            let table = Table::from_number(table).ok_or_else(|| failed(format!("there is no table {table}")))?;
            overlay.set(table, &key, value.map(ByteBuf::into_vec));
        }
        Ok(overlay)
    }

    /// How many keys are changed.
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many bytes the keys and their values have.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

type Changed<'a> = Peekable<btree_map::Range<'a, Key, Option<Vec<u8>>>>;

/// One ordered stream out of three levels, of which an upper one hides the same key in a lower.
pub(super) struct Merge<'a, I: Iterator<Item = Result<Pair>>> {
    active: Changed<'a>,
    frozen: Option<Changed<'a>>,
    stored: Peekable<I>,
}

impl<'a, I: Iterator<Item = Result<Pair>>> Merge<'a, I> {
    pub(super) fn new(
        active: btree_map::Range<'a, Key, Option<Vec<u8>>>,
        frozen: Option<btree_map::Range<'a, Key, Option<Vec<u8>>>>,
        stored: I,
    ) -> Self {
        Merge { active: active.peekable(), frozen: frozen.map(Iterator::peekable), stored: stored.peekable() }
    }
}

impl<I: Iterator<Item = Result<Pair>>> Iterator for Merge<'_, I> {
    type Item = Result<Pair>;

    fn next(&mut self) -> Option<Result<Pair>> {
        loop {
            super::lookups::note();
            let active = self.active.peek().map(|(key, _)| key.as_slice());
            let frozen = self.frozen.as_mut().and_then(|frozen| frozen.peek().map(|(key, _)| key.as_slice()));
            let stored = match self.stored.peek() {
                Some(Ok((key, _))) => Some(key.as_slice()),
                Some(Err(_)) => return self.stored.next(),
                None => None,
            };
            let least = [active, frozen, stored].into_iter().flatten().min()?;
            let (in_active, in_frozen, in_stored) =
                (active == Some(least), frozen == Some(least), stored == Some(least));
            let from_stored = if in_stored { self.stored.next() } else { None };
            let from_frozen = if in_frozen { self.frozen.as_mut().and_then(Iterator::next) } else { None };
            let from_active = if in_active { self.active.next() } else { None };
            match from_active.or(from_frozen) {
                Some((key, Some(value))) => return Some(Ok((key.as_slice().to_vec(), value.clone()))),
                Some((_, None)) => continue,
                None => return from_stored,
            }
        }
    }
}
