//! Ordered tables over a key-value store, seen through an open transaction.
//!
//! ```text
//! put/remove ──▶ active overlay ──freeze()──▶ frozen overlay ──Kv::commit()──▶ key-value store
//!                     ▲                                                            │
//!                  rollback()                                     published() ◀────┘
//! ```
//!
//! Invariants:
//! - a reader looks through active, then frozen, then the last durable commit, and never sees one
//!   without the ones below it;
//! - what an operation changed between `begin` and `rollback` is as if it had never been;
//! - a frozen overlay does not change: it is one commit, whole.
//!
//! Keys are bytes that sort; values are MessagePack. What they mean is for the layers above.

mod key;
mod known;
mod kv;
mod lookups;
mod overlay;
pub mod packed;
mod pages;
pub mod path;
mod reserve;

pub use kv::{Kv, Stored};
#[cfg(debug_assertions)]
pub use lookups::lookups;
pub use overlay::Overlay;
pub use path::is_name;
pub use reserve::Reserve;

use crate::error::{Error, Result};
use crate::media::MediaDir;
use crate::shown::shown;
use key::Key;
use kv::Stored as Tables;
use overlay::Merge;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Every table of a store. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// Single records: configuration, counters.
    State = 0,
    Inode = 1,
    Dirent = 2,
    Xattr = 3,
    Track = 4,
    Link = 5,
    Preimage = 6,
    Increment = 7,
    Snapshot = 8,
    Name = 9,
    Segment = 10,
    Volume = 11,
    Room = 12,
    Shared = 13,
    Orphan = 14,
    Origin = 15,
    Base = 16,
    /// Keys that were removed from a base while an older state shines through: to be swept.
    Tombstone = 17,
    Session = 18,
    Group = 19,
    History = 20,
    /// Records of ended snapshots' increments that came into being, and were replaced or removed since.
    Passed = 21,
    /// Times that only an archive has, as far as the store knows.
    Archived = 22,
}

impl Table {
    pub const ALL: [Table; 23] = [
        Table::State,
        Table::Inode,
        Table::Dirent,
        Table::Xattr,
        Table::Track,
        Table::Link,
        Table::Preimage,
        Table::Increment,
        Table::Snapshot,
        Table::Name,
        Table::Segment,
        Table::Volume,
        Table::Room,
        Table::Shared,
        Table::Orphan,
        Table::Origin,
        Table::Base,
        Table::Tombstone,
        Table::Session,
        Table::Group,
        Table::History,
        Table::Passed,
        Table::Archived,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Table::State => "state",
            Table::Inode => "inode",
            Table::Dirent => "dirent",
            Table::Xattr => "xattr",
            Table::Track => "track",
            Table::Link => "link",
            Table::Preimage => "preimage",
            Table::Increment => "increment",
            Table::Snapshot => "snapshot",
            Table::Name => "name",
            Table::Segment => "segment",
            Table::Volume => "volume",
            Table::Room => "room",
            Table::Shared => "shared",
            Table::Orphan => "orphan",
            Table::Origin => "origin",
            Table::Base => "base",
            Table::Tombstone => "tombstone",
            Table::Session => "session",
            Table::Group => "group",
            Table::History => "history",
            Table::Passed => "passed",
            Table::Archived => "archived",
        }
    }

    pub fn from_number(number: u8) -> Option<Table> {
        Table::ALL.get(number as usize).copied()
    }
}

/// Bytes that most records have, at most.
pub const RECORD_BYTES: usize = 128;

/// Changes of an operation for which room is kept until the next.
const SPARE_UNDO: usize = 64;

/// A key and its value, both encoded.
pub type Pair = (Vec<u8>, Vec<u8>);

/// The open transaction: the durable tables with the changes since laid over them.
pub struct Meta {
    tables: Tables,
    frozen: Option<Arc<Overlay>>,
    active: Overlay,
    undo: Option<Vec<Undo>>,
    /// Where the next operation's go.
    spare: Vec<Undo>,
}

struct Undo {
    table: Table,
    key: Key,
    /// What the active overlay held for the key: nothing, a removal, or a value.
    before: Option<Option<Vec<u8>>>,
}

impl Meta {
    pub fn new(kv: &Kv) -> Result<Meta> {
        Ok(Meta { tables: kv.tables()?, frozen: None, active: Overlay::default(), undo: None, spare: Vec::new() })
    }

    /// One over nothing, which is never committed.
    pub fn empty() -> Meta {
        Meta { tables: Tables::nothing(), frozen: None, active: Overlay::default(), undo: None, spare: Vec::new() }
    }

    pub fn get_raw(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.with(table, key, |bytes| Ok(bytes.to_vec()))
    }

    pub fn get<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Result<Option<T>> {
        self.with(table, key, |bytes| decode(table, key, bytes))
    }

    /// Calls `read` with the value of a key, without copying it first.
    pub fn with<R>(&self, table: Table, key: &[u8], read: impl FnOnce(&[u8]) -> Result<R>) -> Result<Option<R>> {
        lookups::note();
        let frozen = || self.frozen.as_ref().and_then(|frozen| frozen.get(table, key));
        match self.active.get(table, key).or_else(frozen) {
            Some(Some(bytes)) => read(bytes).map(Some),
            Some(None) => Ok(None),
            None => self.tables.with(table, key, read),
        }
    }

    pub fn contains(&self, table: Table, key: &[u8]) -> Result<bool> {
        Ok(self.with(table, key, |_| Ok(()))?.is_some())
    }

    pub fn put<T: Serialize>(&mut self, table: Table, key: &[u8], value: &T) {
        self.put_raw(table, key, encode(value));
    }

    pub fn put_raw(&mut self, table: Table, key: &[u8], value: Vec<u8>) {
        self.change(table, key, Some(value));
    }

    pub fn remove(&mut self, table: Table, key: &[u8]) {
        self.change(table, key, None);
    }

    fn change(&mut self, table: Table, key: &[u8], value: Option<Vec<u8>>) {
        let before = self.active.set(table, key, value);
        if let Some(undo) = &mut self.undo {
            undo.push(Undo { table, key: Key::new(key), before });
        }
    }

    /// All pairs with `from <= key < to`, in order.
    pub fn range<'a>(
        &'a self,
        table: Table,
        from: &[u8],
        to: &[u8],
    ) -> Result<impl Iterator<Item = Result<Pair>> + use<'a>> {
        let frozen = self.frozen.as_ref().map(|frozen| frozen.range(table, from, to));
        Ok(Merge::new(self.active.range(table, from, to), frozen, self.tables.range(table, from, to)?))
    }

    /// What a key has below the active overlay: in the frozen one, if that says anything, and in the tables.
    pub fn below(&self, table: Table, key: &[u8]) -> Result<[Option<Vec<u8>>; 2]> {
        let frozen = self.frozen.as_ref().and_then(|frozen| frozen.get(table, key)).flatten().map(<[u8]>::to_vec);
        Ok([frozen, self.tables.with(table, key, |bytes| Ok(bytes.to_vec()))?])
    }

    /// The last pair with `from <= key < to`.
    pub fn last(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Option<Pair>> {
        let mut end = to.to_vec();
        loop {
            let active = self.active.range(table, from, &end).next_back().map(|(key, _)| key.as_slice().to_vec());
            let frozen = self
                .frozen
                .as_ref()
                .and_then(|frozen| frozen.range(table, from, &end).next_back().map(|(key, _)| key.as_slice().to_vec()));
            let stored = self.tables.last(table, from, &end)?;
            let Some(key) = active.max(frozen).max(stored) else { return Ok(None) };
            match self.get_raw(table, &key)? {
                Some(value) => return Ok(Some((key, value))),
                None => end = key,
            }
        }
    }

    /// Starts to remember what an operation changes.
    pub fn begin(&mut self) {
        self.undo = Some(std::mem::take(&mut self.spare));
    }

    /// Whether anything was changed since `begin`.
    pub fn has_begun(&self) -> bool {
        self.undo.as_ref().is_some_and(|undo| !undo.is_empty())
    }

    /// Keeps what was changed since `begin`.
    pub fn finish(&mut self) {
        if let Some(mut undo) = self.undo.take() {
            undo.clear();
            undo.shrink_to(SPARE_UNDO);
            self.spare = undo;
        }
    }

    /// Takes back what was changed since `begin`.
    pub fn rollback(&mut self) {
        for Undo { table, key, before } in self.undo.take().unwrap_or_default().into_iter().rev() {
            self.active.restore(table, key.as_slice(), before);
        }
    }

    pub fn dirty_records(&self) -> usize {
        self.active.len()
    }

    /// What these records take, keys and values.
    pub fn dirty_record_bytes(&self) -> usize {
        self.active.bytes()
    }

    /// Closes the active overlay: it becomes one commit, and later changes go to the next.
    pub fn freeze(&mut self) -> Arc<Overlay> {
        debug_assert!(self.frozen.is_none() && self.undo.is_none());
        let frozen = Arc::new(std::mem::take(&mut self.active));
        self.frozen = Some(frozen.clone());
        frozen
    }

    /// The frozen overlay is durable, and `kv` shows it.
    pub fn published(&mut self, kv: &Kv) -> Result<()> {
        self.tables = kv.tables()?;
        self.frozen = None;
        Ok(())
    }

    /// Writes the file of `kv`, of this name in `dir`, anew if much of it holds nothing.
    pub fn trim(&mut self, kv: &Kv, dir: &dyn MediaDir, name: &str) -> Result<()> {
        self.tables = Tables::default();
        let trimmed = kv.trim(dir, name);
        self.reattach(kv)?;
        trimmed
    }

    /// Looks at the durable tables anew, after `kv` was reopened.
    pub fn reattach(&mut self, kv: &Kv) -> Result<()> {
        self.tables = kv.tables()?;
        Ok(())
    }
}

/// A value as MessagePack, its fields in order without names.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(RECORD_BYTES);
    encode_to(&mut bytes, value);
    bytes
}

/// The same, behind what there is.
pub fn encode_to<T: Serialize>(bytes: &mut Vec<u8>, value: &T) {
    // Only a map of unknown length or an error of a type's own Serialize can fail; no record has either.
    rmp_serde::encode::write(bytes, value).expect("records encode without failing");
}

pub fn decode<T: DeserializeOwned>(table: Table, key: &[u8], bytes: &[u8]) -> Result<T> {
    rmp_serde::from_slice(bytes)
        .map_err(|error| Error::corrupt(record_name(table, key), format!("it does not decode: {error}")))
}

/// How errors name a record: by its key, which is a text in table `state`.
pub fn record_name(table: Table, key: &[u8]) -> String {
    match table {
        Table::State => format!("record \"{}\" of table state", shown(key)),
        _ => format!("record {} of table {}", hex(key), table.name()),
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The smallest key after every key that starts with `prefix`.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // No prefix, or all bytes at their maximum: beyond every key of a store.
    vec![u8::MAX; prefix.len() + 32]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{MediaDir, TestDir};

    fn open() -> (Kv, Meta) {
        let dir = TestDir::new();
        let media = dir.open("meta.redb", true).unwrap();
        let kv = Kv::create(media, None).unwrap();
        let meta = Meta::new(&kv).unwrap();
        (kv, meta)
    }

    fn keys(meta: &Meta) -> Vec<u8> {
        meta.range(Table::Inode, &[0], &[255]).unwrap().map(|pair| pair.unwrap().0[0]).collect()
    }

    #[test]
    fn readers_see_through_all_three_levels() {
        let (kv, mut meta) = open();
        for key in [1u8, 2, 3] {
            meta.put(Table::Inode, &[key], &key);
        }
        kv.commit(&meta.freeze()).unwrap();
        meta.published(&kv).unwrap();
        meta.remove(Table::Inode, &[2]);
        meta.put(Table::Inode, &[4], &4u8);
        let frozen = meta.freeze();
        meta.put(Table::Inode, &[2], &22u8);
        meta.remove(Table::Inode, &[3]);
        meta.put(Table::Inode, &[5], &5u8);
        assert_eq!(keys(&meta), [1, 2, 4, 5]);
        assert_eq!(meta.get::<u8>(Table::Inode, &[2]).unwrap(), Some(22));
        assert_eq!(meta.last(Table::Inode, &[0], &[4]).unwrap().unwrap().0, [2]);
        kv.commit(&frozen).unwrap();
        meta.published(&kv).unwrap();
        assert_eq!(keys(&meta), [1, 2, 4, 5]);
    }

    #[test]
    fn rollback_leaves_no_trace() {
        let (_kv, mut meta) = open();
        meta.put(Table::Inode, &[1], &1u8);
        meta.begin();
        meta.put(Table::Inode, &[1], &9u8);
        meta.remove(Table::Inode, &[1]);
        meta.put(Table::Inode, &[2], &2u8);
        meta.rollback();
        assert_eq!(keys(&meta), [1]);
        assert_eq!(meta.get::<u8>(Table::Inode, &[1]).unwrap(), Some(1));
    }

    #[test]
    fn records_are_counted_with_their_bytes() {
        let (_kv, mut meta) = open();
        let counts = |meta: &Meta| (meta.dirty_records(), meta.dirty_record_bytes());
        meta.put_raw(Table::Xattr, &[1; 10], vec![0; 1000]);
        meta.put_raw(Table::Xattr, &[2; 10], vec![0; 50]);
        assert_eq!(counts(&meta), (2, 1070));
        meta.put_raw(Table::Xattr, &[1; 10], vec![0; 7]);
        meta.remove(Table::Xattr, &[2; 10]);
        assert_eq!(counts(&meta), (2, 27));
        meta.begin();
        meta.put_raw(Table::Xattr, &[1; 10], vec![0; 500]);
        meta.put_raw(Table::Xattr, &[2; 10], vec![0; 500]);
        meta.put_raw(Table::Xattr, &[3; 10], vec![0; 500]);
        assert_eq!(counts(&meta), (3, 1530));
        meta.rollback();
        assert_eq!(counts(&meta), (2, 27));
        assert_eq!(meta.freeze().bytes(), 27);
        assert_eq!(counts(&meta), (0, 0));
    }

    #[test]
    fn an_overlay_comes_back_from_its_bytes() {
        let (_kv, mut meta) = open();
        meta.put(Table::Inode, &[1], &1u8);
        meta.put_raw(Table::History, &[], vec![0; 300]);
        meta.remove(Table::Track, &[2, 0]);
        let frozen = meta.freeze();
        let bytes = frozen.to_bytes();
        let read = Overlay::from_bytes(&bytes).unwrap();
        assert_eq!(format!("{read:?}"), format!("{frozen:?}"));
        assert!(Overlay::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        assert!(Overlay::from_bytes(&encode(&[(99u8, [0u8; 0], None::<u8>)])).is_err(), "a table that is not there");
    }

    #[test]
    fn the_end_of_a_prefix_is_after_all_its_keys() {
        assert_eq!(prefix_end(&[1, 2]), [1, 3]);
        assert_eq!(prefix_end(&[1, 255]), [2]);
        assert!(prefix_end(&[255]).as_slice() > [255u8; 20].as_slice());
    }
}
