//! Changes of records within an operation.

use super::Txn;
use super::accounts::OldTrack;
use super::changes::Note;
use super::feed::Changed;
use super::past::{BaseId, InodeNo, Moment, encode_record};
use crate::error::Result;
use crate::logstore::Holder;
use crate::meta::Table;
use serde::Serialize;

impl Txn<'_> {
    /// Gives a key a new value, keeping the old one if a snapshot needs it.
    pub fn set<T: Serialize>(&mut self, table: Table, key: &[u8], value: &T) -> Result<()> {
        self.note_changed(table, key)?;
        self.protect(table, key)?;
        self.note_record(table, key);
        let bytes = encode_record(self.state.past.epoch, value);
        self.state.past.meta.put_raw(table, key, bytes);
        Ok(())
    }

    /// Removes a key, keeping its value if a snapshot needs it; whether there was one.
    pub fn unset(&mut self, table: Table, key: &[u8]) -> Result<bool> {
        if !self.exists(table, key)? {
            return Ok(false);
        }
        let track = super::split_track_key(key).filter(|_| table == Table::Track);
        if let Some(track) = track {
            self.state.uncount_own(track)?;
        }
        self.note_changed(table, key)?;
        self.protect(table, key)?;
        self.note_record(table, key);
        self.state.past.take_away(table, key)?;
        Ok(true)
    }

    /// Whoever is told of changes may need what an entry led to.
    fn note_changed(&mut self, table: Table, key: &[u8]) -> Result<()> {
        if let (Some(changed), Table::Inode | Table::Dirent | Table::Xattr) = (&mut self.changed, table) {
            let before = match table {
                Table::Dirent => self.state.value(table, key, Moment::Live)?,
                _ => None,
            };
            changed.push(Changed::Record { table, key: key.to_vec(), before });
        }
        Ok(())
    }

    /// A record of an inode changes; what becomes of its bytes is noted by whoever changes them.
    fn note_record(&mut self, table: Table, key: &[u8]) {
        let note = match table {
            Table::Inode => Note::Record,
            Table::Dirent | Table::Xattr | Table::Link => Note::NeedsCommit,
            _ => return,
        };
        if let Some(inode) = InodeNo::of_key(key) {
            self.note(inode, note);
        }
    }

    fn protect(&mut self, table: Table, key: &[u8]) -> Result<()> {
        let old = self.state.protect(&self.device.log, table, key)?;
        self.state.count_refers(BaseId::of_key(key)?, old.pointer(), None);
        if let OldTrack::Gone(pointer) = old {
            let track = super::split_track_key(key);
            self.state.accounts.releases.extend(pointer.locations().map(|location| (*location, Holder::Live, track)));
        }
        Ok(())
    }
}
