//! Committing the open transaction.
//!
//! A commit: flush until little is dirty; then, with operations waiting, flush the rest and freeze; then,
//! with operations going on in the next overlay, sync the log store, commit the frozen overlay to the
//! key-value store, publish. Whatever fails on the way stops the store: what was promised cannot be kept.
//!
//! The small overlay of a change that somebody waits for goes to the journal first, where it is durable with
//! one flush of the disk. The key-value store takes it over in the background, or when the next commit comes.

use super::feed::Changed;
use super::past::HISTORY;
use super::{COMMITS, Device, HistoryRecord, State};
use crate::error::{Errno, Error, Result};
use crate::limits::{COUNT_MAX, FREEZE_BYTES_MAX, JOURNAL_COMMIT_MAX, JOURNAL_COMMIT_RECORDS_MAX};
use crate::meta::{Overlay, Table};
use parking_lot::{MutexGuard, RwLockWriteGuard};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How often a commit tries to get ahead of writers before it lets them wait.
const FLUSH_ROUNDS: usize = 8;

/// What is frozen and the key-value store does not have.
pub(super) type Pending = Option<Arc<Overlay>>;

/// The right to commit; one holder at a time. The key-value store has all commits up to then.
pub struct Commit<'a> {
    pub(super) device: &'a Device,
    pending: MutexGuard<'a, Pending>,
    /// Dropped after the lock: whoever is woken wants it.
    tell: Tell<'a>,
}

/// Tells the background, when dropped, that something is pending. A commit that a panic ended cannot be undone: the store
/// stops as after a failed write.
struct Tell<'a> {
    device: &'a Device,
    is_due: bool,
    changed: Vec<Changed>,
}

impl Drop for Tell<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.device.stop(&Error::Fault("it ended in the middle of a commit".into()));
        }
        if self.is_due {
            self.device.wake();
        }
        self.device.feed.publish(std::mem::take(&mut self.changed));
    }
}

impl Device {
    /// Waits for the right to commit.
    pub fn committer(&self) -> Result<Commit<'_>> {
        let pending = self.commit_lock.lock();
        self.check_running()?;
        let mut commit =
            Commit { device: self, pending, tell: Tell { device: self, is_due: false, changed: Vec::new() } };
        commit.take_over()?;
        Ok(commit)
    }

    fn has_pending(&self) -> bool {
        // Whoever holds the lock sees to it, or tells the background when it is free.
        self.commit_lock.try_lock().is_some_and(|pending| pending.is_some())
    }

    /// Makes everything that has happened before the call durable.
    pub fn commit(&self) -> Result<()> {
        let seen = self.freezes.load(Ordering::SeqCst);
        let mut commit = self.committer()?;
        // Somebody else may have frozen, after this call began, and finished, while it waited.
        if self.durable_freezes.load(Ordering::SeqCst) > seen {
            return Ok(());
        }
        commit.run(|_| Ok(()))
    }

    /// What the background thread does: flush what has piled up, and commit when it is time.
    pub fn relieve(&self) -> Result<()> {
        if self.has_pending() {
            self.committer()?;
        }
        let (wants_flush, wants_commit) = {
            let state = self.state.read();
            (state.wants_flush(self.track_bytes()), state.wants_commit() || self.holds_too_many_records(&state))
        };
        if wants_commit || self.journal.is_filling() {
            self.commit()
        } else if wants_flush {
            self.committer()?.flush()
        } else {
            Ok(())
        }
    }
}

impl<'a> Commit<'a> {
    /// Runs one commit; `last` changes the state just before it is frozen, while nothing is dirty. What it has freed
    /// may be used again.
    pub fn run<R>(&mut self, last: impl FnOnce(&mut State) -> Result<R>) -> Result<R> {
        let (result, freeze) = self.freeze(last)?;
        self.take_over()?;
        self.is_durable(freeze);
        Ok(result)
    }

    /// Like [`Commit::run`], for somebody who waits: what is freed may be used again a little later.
    pub(super) fn run_soon<R>(&mut self, last: impl FnOnce(&mut State) -> Result<R>) -> Result<R> {
        let (result, freeze) = self.freeze(last)?;
        match self.journal(freeze).inspect_err(|error| self.device.stop(error))? {
            true => {
                // fsync has nothing to add to them: a change that was undone since must not be done again.
                self.device.state.write().changes.published();
                self.tell.is_due = true;
            }
            false => self.take_over()?,
        }
        self.is_durable(freeze);
        Ok(result)
    }

    /// Up to the point where the frozen overlay is all that is missing; it is pending then. With the number of the
    /// freeze, which is that of the last one if nothing had changed.
    fn freeze<R>(&mut self, last: impl FnOnce(&mut State) -> Result<R>) -> Result<(R, u64)> {
        self.take_over()?;
        let device = self.device;
        let mut guard = self.flushed()?;
        let state = &mut *guard;
        let before = device.freezes.load(Ordering::SeqCst);
        if before >= COUNT_MAX {
            return Err(Error::Refused(Errno::NOSPC, "this store has had all the commits it can count".into()));
        }
        let result = last(state)?;
        if state.past.meta.dirty_records() == 0 {
            return Ok((result, before));
        }
        state.release_all(&device.log).inspect_err(|error| device.stop(error))?;
        let history = HistoryRecord {
            epoch: state.past.epoch,
            log_blocks: state.accounts.log_blocks,
            reserved: state.accounts.reserved,
        };
        state.past.meta.put(Table::State, HISTORY, &history);
        state.freeze_counts()?;
        device.log.freeze(&mut state.past.meta).inspect_err(|error| device.stop(error))?;
        let freeze = before + 1;
        state.past.meta.put(Table::State, COMMITS, &state.replaying.unwrap_or(freeze));
        *self.pending = Some(state.past.meta.freeze());
        state.changes.freeze();
        device.freezes.store(freeze, Ordering::SeqCst);
        device.journal.frozen();
        drop(guard);
        device.log.sync().inspect_err(|error| device.stop(error))?;
        Ok((result, freeze))
    }

    /// The state while nothing is dirty, and operations wait.
    pub(super) fn flushed(&self) -> Result<RwLockWriteGuard<'a, State>> {
        let device = self.device;
        for _ in 0..FLUSH_ROUNDS {
            if device.state.read().dirty_bytes <= FREEZE_BYTES_MAX {
                break;
            }
            self.flush()?;
        }
        let mut state = device.state.write();
        self.flush_rest(&mut state)?;
        Ok(state)
    }

    /// Says of a change, once somebody else may commit, what it let come into view, or go.
    pub(super) fn publish(&mut self, changed: Vec<Changed>) {
        self.tell.changed.extend(changed);
    }

    fn is_durable(&self, freeze: u64) {
        self.device.durable_freezes.store(freeze, Ordering::SeqCst);
    }

    /// Lets what is pending survive a power cut by the journal; false if only the key-value store can do that.
    fn journal(&self, freeze: u64) -> Result<bool> {
        let device = self.device;
        let Some(overlay) = self.pending.as_ref() else { return Ok(true) };
        // The entries that are done again must not be written over.
        if overlay.len() > JOURNAL_COMMIT_RECORDS_MAX || device.state.read().replaying.is_some() {
            return Ok(false);
        }
        let bytes = overlay.to_bytes();
        if bytes.len() > JOURNAL_COMMIT_MAX {
            return Ok(false);
        }
        match device.journal.append_commit(freeze, &bytes)? {
            Some(ticket) => device.journal.sync(ticket).map(|()| true),
            None => Ok(false),
        }
    }

    /// Commits what is pending to the key-value store.
    fn take_over(&mut self) -> Result<()> {
        let Some(overlay) = self.pending.clone() else { return Ok(()) };
        let device = self.device;
        if device.kv.met_damage() {
            // It stays pending where that cannot be read: somebody will try again.
            device.reopen_tables()?;
        }
        let publish = || {
            let mut state = device.state.write();
            state.changes.published();
            state.past.meta.published(&device.kv)
        };
        let taken_over = device.kv.commit(&overlay).and_then(|()| publish()).and_then(|()| device.log.durable());
        taken_over.inspect_err(|error| device.stop(error))?;
        *self.pending = None;
        if let Err(error) = device.note_room() {
            log::warn!("the room of the store could not be looked at: {error}");
        }
        Ok(())
    }
}
