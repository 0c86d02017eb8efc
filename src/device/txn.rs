//! Changes of records within an operation.

use super::Txn;
use super::accounts::OldTrack;
use super::changes::Note;
use super::feed::Changed;
use super::past::{BaseId, BaseRecord, INODE, InodeNo, Moment, encode_record, record_of, work_key};
use crate::error::Result;
use crate::logstore::Holder;
use crate::meta::{Meta, Table};
use serde::Serialize;

impl Txn<'_> {
    /// Makes the changes visible.
    pub fn finish(mut self) -> Result<()> {
        let state = &mut *self.state;
        let released = match state.let_go(&self.device.log) {
            // A read that fails concerns this operation alone, as long as that can be taken back.
            Err(error) if !self.has_edited => return Err(error),
            let_go => let_go.and_then(|()| state.free_all(&self.device.log)),
        };
        state.keep_changes();
        self.before = None;
        for (inode, note) in self.notes.drain(..) {
            state.changes.note(inode, note);
        }
        for key in &self.forget {
            if let Some(track) = state.dirty.remove(key) {
                state.dirty_bytes -= track.bytes();
                self.device.log.unreserve(1);
            }
            // Whoever flushes it notices that it is gone, and gives its slot back.
            if let Some(track) = state.flushing.remove(key) {
                state.dirty_bytes -= track.bytes();
            }
        }
        if state.wants_commit() || state.wants_flush(self.device.track_bytes()) {
            self.device.wake();
        }
        let changed = self.changed.take().unwrap_or_default();
        let changed = state.changed(changed);
        let device = self.device;
        drop(self);
        device.feed.publish(changed);
        // Room that cannot be accounted for any more must not reach the disk.
        released.inspect_err(|error| device.stop(error))
    }

    /// Tells fsync what this operation does to an inode.
    pub fn note(&mut self, inode: InodeNo, note: Note) {
        self.notes.push((inode, note));
    }

    /// The open transaction, for changing tables that have no history.
    pub fn meta_mut(&mut self) -> &mut Meta {
        &mut self.state.past.meta
    }

    /// Adds a base without any record but this.
    pub fn add_base(&mut self, record: BaseRecord) -> Result<BaseId> {
        self.state.past.add_base(record)
    }

    /// Whether the mount shows a base.
    pub fn show_base(&mut self, id: BaseId, is_shown: bool) {
        self.state.past.show_base(id, is_shown);
    }

    /// Writes down that an inode has no name any more and is to be removed.
    pub fn add_orphan(&mut self, inode: InodeNo) {
        self.state.past.meta.put(Table::Orphan, &work_key(inode.base(), INODE, inode.number()), &());
    }

    pub fn remove_orphan(&mut self, inode: InodeNo) {
        self.state.past.meta.remove(Table::Orphan, &work_key(inode.base(), INODE, inode.number()));
    }

    /// Gives a key a new value, keeping the old one if a snapshot needs it.
    pub fn set<T: Serialize>(&mut self, table: Table, key: &[u8], value: &T) -> Result<()> {
        self.set_record(table, key, encode_record(self.state.past.epoch, value))
    }

    /// The same with a value as it is stored, without its birth.
    pub fn set_value(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<()> {
        self.set_record(table, key, record_of(self.state.past.epoch, value))
    }

    fn set_record(&mut self, table: Table, key: &[u8], record: Vec<u8>) -> Result<()> {
        self.note_changed(table, key)?;
        self.protect(table, key)?;
        self.note_record(table, key);
        self.state.past.meta.put_raw(table, key, record);
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
