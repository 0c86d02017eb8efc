//! Whether a record by itself can be what the tables of sessions, groups and the history have, or a policy.

use super::restore::{BEFORE_RESTORES, BRINGING_BACK};
use super::room::DROP_OLDEST;
use super::{BringingBack, HistoryEntry, Session, check_name};
use crate::device::BaseId;
use crate::error::{Error, Result};
use crate::limits::COUNT_MAX;
use crate::meta::{Table, decode, record_name};

pub fn check_record(table: Table, key: &[u8], value: &[u8]) -> Result<()> {
    let or_damage = |is_possible: bool, problem: &str| match is_possible {
        true => Ok(()),
        false => Err(Error::corrupt(record_name(table, key), problem)),
    };
    match (table, key) {
        (Table::Session, _) => Session::of(key, value).map(drop),
        (Table::Group, _) => {
            decode::<Vec<BaseId>>(table, key, value)?;
            or_damage(check_name(key).is_ok(), "nothing can have this name")
        }
        (Table::History, _) => {
            decode::<HistoryEntry>(table, key, value)?;
            let number = key.try_into().map(u64::from_be_bytes);
            or_damage(number.is_ok_and(|number| number <= COUNT_MAX), "its key is that of no entry")
        }
        (Table::State, BRINGING_BACK) => decode::<BringingBack>(table, key, value).map(drop),
        (Table::State, BEFORE_RESTORES) => decode::<u64>(table, key, value).map(drop),
        (Table::State, DROP_OLDEST) => decode::<bool>(table, key, value).map(drop),
        (Table::State, key) => {
            super::target::check_record(key, value)?;
            super::job::check_record(key, value)?;
            super::done::check_record(key, value)?;
            super::restore::check_record(key, value)
        }
        _ => Ok(()),
    }
}
