//! When records were born and when they ended: not before each other, and not in an epoch to come.

use super::Check;
use crate::clock::Epoch;
use crate::device::{BaseId, InodeNo, LIVE, split_record, split_track_key};
use crate::meta::{Table, record_name};
use crate::shown::shown;

impl Check<'_> {
    /// A record as it is now: whether the store has come to its birth. One without a birth is named where it is taken apart.
    pub(super) fn born(&mut self, table: Table, key: &[u8], value: &[u8]) {
        let Ok((birth, _)) = split_record(table, key, value) else { return };
        if birth > self.epoch && self.is_current(table, key, value) {
            let text = format!(
                "{}: it is said to be born in epoch {birth}, and the store has come to {}",
                self.what(table, key),
                self.epoch
            );
            let paths = InodeNo::of_key(key).map_or_else(Default::default, |inode| self.paths_now(inode));
            self.problem(text, paths);
        }
    }

    /// The old value of a record: whether it was there for a time.
    pub(super) fn ended(&mut self, table: Table, key: &[u8], end: Epoch, value: &[u8]) {
        let Ok((birth, _)) = split_record(table, key, value) else { return };
        let problem = if end > self.epoch {
            format!("it is said to end in epoch {end}, and the store has come to {}", self.epoch)
        } else if end <= birth {
            format!("it is said to be born in epoch {birth} and to end in epoch {end}")
        } else {
            return;
        };
        // What is not there for any time is in no view.
        self.say(format!("an old value of {}: {problem}", self.what(table, key)));
    }

    /// What a record is of.
    pub(super) fn what(&self, table: Table, key: &[u8]) -> String {
        let base = match BaseId::of_key(key).ok().filter(|base| *base != LIVE).and_then(|base| self.bases.get(&base)) {
            Some(record) => format!(" of base {:?}", record.name),
            _ => String::new(),
        };
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
}
