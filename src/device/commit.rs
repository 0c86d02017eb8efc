//! Committing the open transaction.
//!
//! A commit: flush until little is dirty; then, with operations waiting, flush the rest and freeze; then,
//! with operations going on in the next overlay, sync the log store, commit the frozen overlay to the
//! key-value store, publish. Whatever fails on the way stops the store: what was promised cannot be kept.

use super::{COMMITS, Device, HISTORY, HistoryRecord, State};
use crate::error::Result;
use crate::limits::{DIRTY_RECORDS_COMMIT, FREEZE_BYTES_MAX};
use crate::meta::Table;
use parking_lot::MutexGuard;
use std::sync::atomic::Ordering;

/// How often a commit tries to get ahead of writers before it lets them wait.
const FLUSH_ROUNDS: usize = 8;

/// The right to commit; one holder at a time.
pub struct Commit<'a> {
    pub(super) device: &'a Device,
    _lock: MutexGuard<'a, ()>,
}

impl Device {
    /// Waits for the right to commit.
    pub fn committer(&self) -> Result<Commit<'_>> {
        let lock = self.commit_lock.lock();
        self.check_running()?;
        Ok(Commit { device: self, _lock: lock })
    }

    /// Makes everything that has happened before the call durable.
    pub fn commit(&self) -> Result<()> {
        let seen = self.freezes.load(Ordering::SeqCst);
        let commit = self.committer()?;
        // Somebody else may have frozen, after this call began, and finished, while it waited.
        if self.durable_freezes.load(Ordering::SeqCst) > seen {
            return Ok(());
        }
        commit.run(|_| Ok(()))
    }

    /// What the background thread does: flush what has piled up, and commit when it is time.
    pub fn relieve(&self) -> Result<()> {
        let (wants_flush, records) = {
            let state = self.state.read();
            (state.wants_flush(self.track_bytes()), state.meta.dirty_records())
        };
        if records >= DIRTY_RECORDS_COMMIT || self.journal.is_filling() {
            self.commit()
        } else if wants_flush {
            self.committer()?.flush()
        } else {
            Ok(())
        }
    }
}

impl Commit<'_> {
    /// Runs one commit; `last` changes the state just before it is frozen, while nothing is dirty.
    pub fn run<R>(&self, last: impl FnOnce(&mut State) -> Result<R>) -> Result<R> {
        let device = self.device;
        for _ in 0..FLUSH_ROUNDS {
            if device.state.read().dirty_bytes <= FREEZE_BYTES_MAX {
                break;
            }
            self.flush()?;
        }
        let mut guard = device.state.write();
        let state = &mut *guard;
        self.flush_rest(state)?;
        let result = last(state)?;
        if state.meta.dirty_records() == 0 {
            return Ok(result);
        }
        state.release_all(&device.log).inspect_err(|error| device.stop(error))?;
        let history = HistoryRecord { epoch: state.epoch, log_blocks: state.log_blocks, reserved: state.reserved };
        state.meta.put(Table::State, HISTORY, &history);
        state.freeze_counts()?;
        device.log.freeze(&mut state.meta).inspect_err(|error| device.stop(error))?;
        let freeze = device.freezes.load(Ordering::SeqCst) + 1;
        state.meta.put(Table::State, COMMITS, &state.replaying.unwrap_or(freeze));
        let overlay = state.meta.freeze();
        state.changes.freeze();
        device.freezes.store(freeze, Ordering::SeqCst);
        device.journal.frozen();
        drop(guard);
        self.make_durable(&overlay).inspect_err(|error| device.stop(error))?;
        device.durable_freezes.store(freeze, Ordering::SeqCst);
        if let Err(error) = device.note_room() {
            log::warn!("the room of the store could not be looked at: {error}");
        }
        Ok(result)
    }

    fn make_durable(&self, overlay: &crate::meta::Overlay) -> Result<()> {
        let device = self.device;
        device.log.sync()?;
        device.kv.commit(overlay)?;
        {
            let mut state = device.state.write();
            state.meta.published(&device.kv)?;
            state.changes.published();
        }
        device.log.durable()
    }
}
