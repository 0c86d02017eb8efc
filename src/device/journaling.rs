//! What fsync needs of the device: what has changed in an inode, and the journal.

use super::changes::Changes;
use super::{Device, State};
use crate::error::Result;
use crate::journal::Ticket;
use crate::meta::Table;
use parking_lot::RwLockWriteGuard;

/// The state, held still while an entry for the journal is put together.
pub struct Journaling<'a> {
    state: RwLockWriteGuard<'a, State>,
    after: u64,
}

impl std::ops::Deref for Journaling<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl Journaling<'_> {
    /// The freeze after which the entry is written.
    pub fn after(&self) -> u64 {
        self.after
    }

    pub fn changes(&mut self) -> &mut Changes {
        &mut self.state.changes
    }

    /// The values that a record has where an entry may meet it: in the last durable commit and, if one is
    /// under way, in that. Each is a value or nothing.
    pub fn found_by_replay(&self, table: Table, key: &[u8]) -> Result<Vec<Vec<u8>>> {
        let found = self.state.past.meta.below(table, key)?;
        found.into_iter().flatten().map(|bytes| Ok(super::split_record(table, key, &bytes)?.1.to_vec())).collect()
    }
}

/// What fsync needs: the state held still, and the journal.
#[derive(Clone, Copy)]
pub struct Fsync<'a> {
    pub(super) device: &'a Device,
}

impl<'a> Fsync<'a> {
    pub fn hold_still(self) -> Result<Journaling<'a>> {
        let state = self.device.state.write();
        self.device.check_running()?;
        Ok(Journaling { state, after: self.device.freezes.load(std::sync::atomic::Ordering::SeqCst) })
    }

    /// The last commit that is durable, while what was journaled after it is done again.
    pub fn replaying(self) -> Option<u64> {
        self.device.state.read().replaying
    }

    /// All that was journaled after the last commit has been done again; the next commit makes it durable.
    pub fn replayed(self) {
        self.device.state.write().replaying = None;
    }

    /// Sets room aside with which small commits are durable sooner; for a store that stays open.
    pub fn prepare(self) -> Result<()> {
        self.device.check_running()?;
        self.device.journal.prepare()
    }

    /// Appends to the journal; `None` when only a commit will do, because there is no room.
    pub fn append(self, after: u64, payload: &[u8]) -> Result<Option<Ticket>> {
        let appended = self.device.journal.append(after, payload);
        if self.device.journal.is_filling() {
            self.device.wake();
        }
        appended.inspect_err(|error| self.device.stop(error))
    }

    /// Waits until what was journaled would survive a power cut.
    pub fn sync(self, ticket: Ticket) -> Result<()> {
        self.device.check_running()?;
        self.device.journal.sync(ticket).inspect_err(|error| self.device.stop(error))
    }
}
