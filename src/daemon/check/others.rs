//! Records that nothing else in a store leans on: each by itself, whether it can be what its table has.

use super::{Check, Paths};
use crate::archive::Mark;
use crate::clock::Epoch;
use crate::device::{BaseId, BaseReserve, Counts, InodeNo, check_work, split_record, split_snapshot};
use crate::error::{Error, Result};
use crate::limits::{COUNT_MAX, INODE_BITS};
use crate::logstore::CHUNK_BITS;
use crate::meta::{Table, decode, record_name};
use crate::tree::{Origin, xattr_value};
use crate::view::{BringingBack, HistoryEntry, Session, check_name};
use serde_bytes::ByteBuf;

/// Whether a table is looked at where what it has leans on other records.
const fn is_looked_at_elsewhere(table: Table) -> bool {
    use Table::*;
    matches!(table, Inode | Dirent | Track | Link | Preimage | Increment | Segment | Shared | Base)
}

impl Check<'_> {
    pub(super) fn others(&mut self) -> Result<()> {
        for table in Table::ALL.into_iter().filter(|table| !is_looked_at_elsewhere(*table)) {
            self.each(table, |check, (key, value)| {
                if table == Table::Xattr {
                    check.born(table, &key, &value);
                }
                let mut looked = check_record(table, &key, &value);
                if looked.is_ok() && table == Table::Room && !check.meta.contains(Table::Segment, &key[1..])? {
                    looked = Err(Error::corrupt(record_name(table, &key), "there is no such segment"));
                }
                if let Err(error) = looked
                    && check.is_current(table, &key, &value)
                {
                    let inode = InodeNo::of_key(&key).filter(|_| table == Table::Xattr);
                    let paths = inode.map_or_else(Paths::default, |inode| check.paths_now(inode));
                    check.problem(error.to_string(), paths);
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

fn check_record(table: Table, key: &[u8], value: &[u8]) -> Result<()> {
    let or_damage = |is_possible: bool, problem: &str| match is_possible {
        true => Ok(()),
        false => Err(Error::corrupt(record_name(table, key), problem)),
    };
    let is_table = |at: usize| key.get(at).is_some_and(|number| Table::from_number(*number).is_some());
    match table {
        Table::State => check_state(key, value),
        Table::Xattr => match split_record(table, key, value)?.1 {
            [] => Ok(()),
            value => xattr_value(key, value).map(drop),
        },
        Table::Snapshot => split_snapshot(key, value).map(drop),
        Table::Name => or_damage(decode::<Epoch>(table, key, value)? > Epoch::ZERO, "no snapshot has its epoch"),
        Table::Volume => {
            let map: ByteBuf = decode(table, key, value)?;
            or_damage(key.len() == 6 && map.len() * 8 == CHUNK_BITS, "it is no map of room")
        }
        Table::Room => or_damage(key.len() == 9 && key[0] <= 8, "its key is that of no segment with room"),
        Table::Orphan => check_work(key, value),
        Table::Origin => {
            decode::<Origin>(table, key, value)?;
            or_damage(key.len() == 12 && InodeNo::of_key(key).is_some(), "its key is that of no inode")
        }
        Table::Tombstone => or_damage(is_table(4), "its key is that of no record"),
        Table::Session => Session::of(key, value).map(drop),
        Table::Group => {
            decode::<Vec<BaseId>>(table, key, value)?;
            or_damage(check_name(key).is_ok(), "nothing can have this name")
        }
        Table::History => {
            decode::<HistoryEntry>(table, key, value)?;
            let number = key.try_into().map(u64::from_be_bytes);
            or_damage(number.is_ok_and(|number| number <= COUNT_MAX), "its key is that of no entry")
        }
        Table::Passed => {
            let birth = key.get(4..).and_then(|rest| rest.first_chunk()).map(|birth| Epoch::from_be_bytes(*birth));
            or_damage(is_table(8) && birth.is_some_and(|birth| birth.is_possible()), "its key is that of no record")
        }
        Table::Archived => {
            let mark: Mark = decode(table, key, value)?;
            let is_its = key.len() == 8 && key[4..] == mark.epoch.to_be_bytes();
            or_damage(is_its && mark.has_name(), "no archive has such a time")
        }
        _ => Ok(()),
    }
}

/// What opening a store takes apart, it says itself.
fn check_state(key: &[u8], value: &[u8]) -> Result<()> {
    let table = Table::State;
    let of_base = |name: &[u8]| key.strip_prefix(name).is_some_and(|base| base.len() == 4);
    match key {
        b"next inode" if decode::<u64>(table, key, value)? > 1 << INODE_BITS => {
            Err(Error::corrupt(record_name(table, key), "no inode has this number"))
        }
        b"bringing back" => decode::<BringingBack>(table, key, value).map(drop),
        b"before restores" => decode::<u64>(table, key, value).map(drop),
        b"drop oldest" => decode::<bool>(table, key, value).map(drop),
        _ if of_base(b"counts") => decode::<Counts>(table, key, value).map(drop),
        _ if of_base(b"ended") => decode::<Epoch>(table, key, value).map(drop),
        _ if of_base(b"reserve") => decode::<BaseReserve>(table, key, value).map(drop),
        _ if of_base(b"last save") => decode::<Mark>(table, key, value).map(drop),
        _ => Ok(()),
    }
}
