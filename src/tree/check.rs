//! What records of inodes, entries, further names and xattrs say, each by itself and all together: whether it can be so.
//!
//! Records are given as the commit that is checked has them, or as old values; whether what is wrong still is so, the caller
//! asks, or a function that takes the tree.

mod circles;
mod links;
mod moments;

pub use circles::{Above, circle_problem, circles};
pub use links::{Counted, Links};
pub use moments::{Gap, Moments};

use super::names::split_link_key;
use super::xattr::xattr_value;
use super::{Entry, Inode, Kind, NEXT_INODE, Origin, Tree};
use crate::clock::Epoch;
use crate::device::check::{birth_of, is_tombstone};
use crate::device::{BaseId, InodeNo, Moment, Named, TrackNo, split_record, split_track_key};
use crate::error::{Error, Result};
use crate::limits::INODE_BITS;
use crate::meta::{Table, decode, hex, prefix_end, record_name};
use crate::shown::shown;
use std::ops::ControlFlow;

/// What the record of an inode says.
pub struct InodeSays {
    pub number: InodeNo,
    pub birth: Epoch,
    pub inode: Result<Inode>,
}

impl InodeSays {
    /// As it is now; `None` if it says that there is nothing, and why its key is none.
    pub fn of(key: &[u8], value: &[u8]) -> std::result::Result<Option<InodeSays>, String> {
        if is_tombstone(value) {
            return Ok(None);
        }
        let Some(number) = InodeNo::of_key(key).filter(|number| number.prefix() == key[..]) else {
            return Err(format!("record {} of table inode is damaged: its key is none", hex(key)));
        };
        let split = split_record(Table::Inode, key, value);
        let birth = split.as_ref().map_or(Epoch::ZERO, |(birth, _)| *birth);
        let inode = split.and_then(|(_, record)| inode_of(number, key, record));
        Ok(Some(InodeSays { number, birth, inode }))
    }
}

fn inode_of(number: InodeNo, key: &[u8], record: &[u8]) -> Result<Inode> {
    decode::<Inode>(Table::Inode, key, record)?.checked_stored(number)
}

/// The entry that a record says as it is now.
pub fn entry(tree: &Tree, key: &[u8], value: &[u8]) -> Result<Entry> {
    tree.names().entry_of(key, split_record(Table::Dirent, key, value)?.1)
}

/// A record of a further name as it is now: whether it is one.
pub fn link(key: &[u8], value: &[u8]) -> Result<()> {
    match split_record(Table::Link, key, value)?.1 {
        [] => Ok(()),
        _ => split_link_key(key).map(drop),
    }
}

/// An old value of a record: whether it could be shown. If not, with the epoch from which on it is said to have been there.
pub fn old_value(
    tree: &Tree,
    Named { table, key, .. }: &Named,
    value: &[u8],
) -> std::result::Result<(), (Epoch, Error)> {
    let looked = split_record(*table, key, value).and_then(|(_, record)| match record {
        [] => Ok(()),
        record => could_be(tree, *table, key, record),
    });
    looked.map_err(|error| (birth_of(*table, key, value), error))
}

/// Whether a store can have made a record, which is given without its birth.
pub fn could_be(tree: &Tree, table: Table, key: &[u8], record: &[u8]) -> Result<()> {
    match table {
        Table::Dirent => tree.names().entry_of(key, record).map(drop),
        Table::Inode => inode_of(InodeNo::of_key(key).unwrap_or_default(), key, record).map(drop),
        Table::Link => split_link_key(key).map(drop),
        Table::Xattr => xattr_value(key, record).map(drop),
        _ => Ok(()),
    }
}

/// Whether a record by itself can be what its table has.
pub fn check_record(table: Table, key: &[u8], value: &[u8]) -> Result<()> {
    match (table, key) {
        (Table::Xattr, _) => match split_record(table, key, value)?.1 {
            [] => Ok(()),
            value => xattr_value(key, value).map(drop),
        },
        (Table::Origin, _) => {
            decode::<Origin>(table, key, value)?;
            match key.len() == 12 && InodeNo::of_key(key).is_some() {
                true => Ok(()),
                false => Err(Error::corrupt(record_name(table, key), "its key is that of no inode")),
            }
        }
        (Table::State, NEXT_INODE) if decode::<u64>(table, key, value)? > 1 << INODE_BITS => {
            Err(Error::corrupt(record_name(table, key), "no inode has this number"))
        }
        _ => Ok(()),
    }
}

/// What is wrong with the last track of an inode, which has this record: whether there is a file as long as that. What cannot be
/// read is named elsewhere.
pub fn track_problem(inode: InodeNo, record: Option<&[u8]>, track: TrackNo, track_bytes: u64) -> Option<String> {
    let key = inode.prefix();
    let record = match record {
        Some(record) => split_record(Table::Inode, &key, record).ok()?.1,
        None => &[],
    };
    if record.is_empty() {
        return Some(format!("there is no such inode, and it has track {track}"));
    }
    let found = decode::<Inode>(Table::Inode, &key, record).ok()?;
    let start = track.start(track_bytes);
    if found.kind() != Kind::File {
        Some(format!("it is no file, and has track {track}"))
    } else if found.size <= start {
        Some(format!("it is {} bytes long, and has track {track}, which begins at {start}", found.size))
    } else {
        None
    }
}

/// What a record is of; `base` is the name of its base, if that has to be said.
pub fn what(table: Table, key: &[u8], base: Option<&str>) -> String {
    let base = base.map_or(String::new(), |name| format!(" of base {name:?}"));
    let inode = InodeNo::of_key(key).map(InodeNo::number);
    match (table, inode, split_track_key(key)) {
        (Table::Inode, Some(inode), _) => format!("inode {inode}{base}"),
        (Table::Dirent, Some(inode), _) => {
            format!("the entry \"{}\" of directory {inode}{base}", shown(key.get(20..).unwrap_or_default()))
        }
        (Table::Track, _, Some((inode, track))) => format!("track {track} of inode {}{base}", inode.number()),
        (Table::Xattr | Table::Link, Some(inode), _) => {
            format!("a record of table {} of inode {inode}{base}", table.name())
        }
        _ => record_name(table, key),
    }
}

/// The entries that a base shows now, wherever they come from, a look at a time.
pub struct Shown<'a> {
    tree: &'a Tree,
    from: Vec<u8>,
    end: Vec<u8>,
}

impl<'a> Shown<'a> {
    pub fn of(tree: &'a Tree, base: BaseId) -> Shown<'a> {
        let from = base.prefix().to_vec();
        Shown { tree, end: prefix_end(&from), from }
    }

    /// Some more of them, each with the key of its record, or why it is none; nothing when there are no more.
    pub fn step(&mut self) -> Result<Vec<(Vec<u8>, Result<Entry>)>> {
        const BATCH: usize = 512;
        let mut records = Vec::new();
        self.tree.device().look()?.scan(Table::Dirent, &self.from, &self.end, Moment::Live, |key, value| {
            records.push((key.to_vec(), value.to_vec()));
            Ok(if records.len() < BATCH { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        if let Some((last, _)) = records.last() {
            self.from = [&last[..], &[0]].concat();
        }
        let entry = |(key, value): (Vec<u8>, Vec<u8>)| {
            let entry = self.tree.names().entry_of(&key, &value);
            (key, entry)
        };
        Ok(records.into_iter().map(entry).collect())
    }
}

/// Whether an entry leads to an inode that is not there, at one moment: it may have been removed, or lead elsewhere, meanwhile.
pub fn leads_nowhere(tree: &Tree, key: &[u8], target: InodeNo) -> Result<bool> {
    let look = tree.device().look()?;
    let entry = look.value(Table::Dirent, key, Moment::Live)?;
    let is_led_to = entry.is_some_and(|now| tree.names().entry_of(key, &now).is_ok_and(|entry| entry.inode == target));
    let found = look.get::<Inode>(Table::Inode, &target.prefix(), Moment::Live);
    let is_there = found.is_ok_and(|found| found.is_some_and(|inode| inode.checked_stored(target).is_ok()));
    Ok(is_led_to && !is_there)
}
