//! Flushing dirty tracks and committing the open transaction.
//!
//! A commit: flush until little is dirty; then, with operations waiting, flush the rest and freeze; then,
//! with operations going on in the next overlay, sync the log store, commit the frozen overlay to the
//! key-value store, publish. Whatever fails on the way stops the store: what was promised cannot be kept.

use super::{BaseRecord, Device, LIVE, State, TrackKey, base_key};
use crate::error::Result;
use crate::limits::{DIRTY_BYTES_FLUSH, DIRTY_RECORDS_COMMIT, FREEZE_BYTES_MAX};
use crate::logstore::{Encoded, Owner};
use crate::meta::Table;
use parking_lot::MutexGuard;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Tracks are moved to the log store in batches of this many, so that operations get their turn.
const BATCH: usize = 16;
/// How often a commit tries to get ahead of writers before it lets them wait.
const FLUSH_ROUNDS: usize = 8;

/// The right to commit; one holder at a time.
pub struct Commit<'a> {
    device: &'a Device,
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
        let (bytes, records) = {
            let state = self.state.read();
            (state.dirty_bytes, state.meta.dirty_records())
        };
        if records >= DIRTY_RECORDS_COMMIT {
            self.commit()
        } else if bytes >= DIRTY_BYTES_FLUSH {
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
        state.meta.put(Table::State, &base_key(LIVE), &BaseRecord { epoch: state.epoch, log_blocks: state.log_blocks });
        device.log.freeze(&mut state.meta).inspect_err(|error| device.stop(error))?;
        let overlay = state.meta.freeze();
        let freeze = device.freezes.fetch_add(1, Ordering::SeqCst) + 1;
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
        device.state.write().meta.published(&device.kv)?;
        device.log.durable()
    }

    /// Moves all tracks that are dirty now to the log store.
    pub fn flush(&self) -> Result<()> {
        let batch: Vec<(TrackKey, Arc<Vec<u8>>)> = {
            let mut state = self.device.state.write();
            debug_assert!(state.flushing.is_empty());
            state.flushing = std::mem::take(&mut state.dirty);
            state.flushing.iter().map(|(key, bytes)| (*key, bytes.clone())).collect()
        };
        for tracks in batch.chunks(BATCH) {
            let encoded: Vec<Encoded<'_>> = tracks.iter().map(|(_, bytes)| self.device.log.encode(bytes)).collect();
            let mut state = self.device.state.write();
            for ((key, bytes), encoded) in tracks.iter().zip(&encoded) {
                self.place(&mut state, *key, bytes, encoded).inspect_err(|error| self.device.stop(error))?;
            }
        }
        Ok(())
    }

    /// Moves what is still dirty while operations wait.
    fn flush_rest(&self, state: &mut State) -> Result<()> {
        state.flushing = std::mem::take(&mut state.dirty);
        let tracks: Vec<(TrackKey, Arc<Vec<u8>>)> =
            state.flushing.iter().map(|(key, bytes)| (*key, bytes.clone())).collect();
        for (key, bytes) in &tracks {
            let encoded = self.device.log.encode(bytes);
            self.place(state, *key, bytes, &encoded).inspect_err(|error| self.device.stop(error))?;
        }
        Ok(())
    }

    /// Gives one flushing track its place, unless an operation has made it void meanwhile.
    fn place(&self, state: &mut State, key: TrackKey, bytes: &Arc<Vec<u8>>, encoded: &Encoded<'_>) -> Result<()> {
        let device = self.device;
        let is_current = state.flushing.get(&key).is_some_and(|current| Arc::ptr_eq(current, bytes));
        if is_current {
            let owner = Owner { base: LIVE, inode: key.0, track: key.1, birth: state.epoch };
            let location = device.log.append(&mut state.meta, encoded, owner)?;
            state.replace_track(device, key, &location)?;
            state.flushing.remove(&key);
            state.dirty_bytes -= bytes.len();
        }
        device.log.unreserve(1);
        Ok(())
    }
}
