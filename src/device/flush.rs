//! Flushing: dirty tracks get their places in the log store.
//!
//! A track that was written in part is stored as patches over what lies there, as long as these stay few
//! and small. Otherwise it is merged with what it held before and stored whole.

use super::State;
use super::commit::Commit;
use super::dirty::{Dirty, Patches};
use super::past::TrackKey;
use super::pointer::{Patch, Pointer};
use super::tracks::Stored;
use crate::error::{Error, Result};
use crate::limits::{BLOCK_BYTES, TRACK_PATCHES_HURRIED, TRACK_PATCHES_MAX};
use crate::logstore::{Encoded, Owner};
use std::sync::Arc;

/// Tracks are moved to the log store in batches of this many, so that operations get their turn.
const BATCH: usize = 16;

/// How a dirty track will be stored.
enum Plan {
    Whole(Arc<Vec<u8>>),
    Patches(Pointer, Arc<Patches>),
    /// What it held before has to be read first.
    Merge(Stored, Arc<Patches>),
}

/// Bytes to be stored, and where in the track they begin.
type Piece<'a> = (usize, Encoded<'a>);

impl Commit<'_> {
    /// Moves all tracks that are dirty now to the log store.
    pub fn flush(&self) -> Result<()> {
        let batch: Vec<(TrackKey, Dirty)> = {
            let mut state = self.device.state.write();
            debug_assert!(state.flushing.is_empty());
            state.flushing = std::mem::take(&mut state.dirty);
            state.flushing.iter().map(|(key, track)| (*key, track.clone())).collect()
        };
        for tracks in batch.chunks(BATCH) {
            // Under one lock: whoever waits for it has to be woken, and so has whoever waits for that one.
            let plans: Result<Vec<Plan>> = {
                let state = self.device.state.read();
                tracks.iter().map(|(key, track)| self.plan(&state, *key, track, TRACK_PATCHES_MAX)).collect()
            };
            let merge = |(plan, (key, _)): (Plan, &(TrackKey, Dirty))| {
                self.merge(plan, || self.twins(&self.device.state.read(), *key))
            };
            let plans = plans.and_then(|plans| plans.into_iter().zip(tracks).map(merge).collect::<Result<Vec<Plan>>>());
            let plans = plans.inspect_err(|error| self.device.stop(error))?;
            let pieces: Vec<Vec<Piece<'_>>> = plans.iter().map(|plan| self.encode(plan)).collect();
            let mut state = self.device.state.write();
            for (((key, track), plan), pieces) in tracks.iter().zip(&plans).zip(&pieces) {
                self.place(&mut state, *key, track, plan, pieces).inspect_err(|error| self.device.stop(error))?;
            }
        }
        Ok(())
    }

    /// Moves what is still dirty while operations wait.
    pub(super) fn flush_rest(&self, state: &mut State) -> Result<()> {
        state.flushing = std::mem::take(&mut state.dirty);
        let tracks: Vec<(TrackKey, Dirty)> = state.flushing.iter().map(|(key, track)| (*key, track.clone())).collect();
        for (key, track) in &tracks {
            let plan = self.plan(state, *key, track, TRACK_PATCHES_HURRIED);
            let plan = plan.and_then(|plan| self.merge(plan, || self.twins(state, *key)));
            let placed = plan.and_then(|plan| self.place(state, *key, track, &plan, &self.encode(&plan)));
            placed.inspect_err(|error| self.device.stop(error))?;
        }
        Ok(())
    }

    /// Decides how to store a track that may have up to `most` patches.
    fn plan(&self, state: &State, key: TrackKey, track: &Dirty, most: usize) -> Result<Plan> {
        if !state.flushing.get(&key).is_some_and(|current| current.is(track)) {
            // An operation has made it void; its whole base may be gone.
            return Ok(Plan::Whole(Arc::default()));
        }
        let patches = match track {
            Dirty::Whole(bytes) => return Ok(Plan::Whole(bytes.clone())),
            Dirty::Patched(patches) => patches,
        };
        let Some((pointer, _)) = state.pointer(key.0.live(), key.1)? else {
            // An operation has removed what they lay over, and made them void.
            return Ok(Plan::Whole(Arc::default()));
        };
        if patches.get(&(0..pointer.held())).is_some() {
            return Ok(Plan::Whole(Arc::new(over(Vec::new(), patches))));
        }
        // What a slot of the log store is sure to hold.
        let fit = patches.blocks() * BLOCK_BYTES * 2 <= self.device.track_bytes() as usize;
        if fit && pointer.patches.len() + patches.count() <= most {
            return Ok(Plan::Patches(pointer, patches.clone()));
        }
        Ok(Plan::Merge(self.device.placed(state, pointer)?, patches.clone()))
    }

    /// Reads what a plan needs, from a twin where it is damaged.
    fn merge(&self, plan: Plan, twins: impl FnOnce() -> Result<Vec<Stored>>) -> Result<Plan> {
        let Plan::Merge(stored, patches) = plan else { return Ok(plan) };
        match self.device.read_stored(&stored) {
            Ok(before) => return Ok(Plan::Whole(Arc::new(over(before, &patches)))),
            Err(error @ Error::Corrupt { .. }) => log::error!("{error}"),
            Err(error) => return Err(error),
        }
        for twin in twins()? {
            if let Ok(before) = self.device.read_stored(&twin) {
                return Ok(Plan::Whole(Arc::new(over(before, &patches))));
            }
        }
        // What was written is worth keeping, even over something that cannot be read any more.
        Ok(Plan::Patches(stored.pointer, patches))
    }

    fn twins(&self, state: &State, (inode, track): TrackKey) -> Result<Vec<Stored>> {
        let twins = state.tracks().twins(inode.live(), track)?;
        twins.into_iter().map(|twin| self.device.placed(state, twin)).collect()
    }

    fn encode<'a>(&self, plan: &'a Plan) -> Vec<Piece<'a>> {
        match plan {
            Plan::Whole(bytes) => vec![(0, self.device.log.encode(bytes))],
            Plan::Patches(_, patches) | Plan::Merge(_, patches) => {
                patches.iter().map(|(at, bytes)| (at, self.device.log.encode(bytes))).collect()
            }
        }
    }

    /// Gives one flushing track its place, unless an operation has made it void meanwhile.
    fn place(&self, state: &mut State, key: TrackKey, track: &Dirty, plan: &Plan, pieces: &[Piece<'_>]) -> Result<()> {
        let device = self.device;
        if state.flushing.get(&key).is_some_and(|current| current.is(track)) {
            let mut pointer = match plan {
                Plan::Patches(pointer, _) => Some(pointer.clone()),
                _ => None,
            };
            for (at, encoded) in pieces {
                let owner = Owner {
                    base: key.0.base().number(),
                    inode: key.0.number(),
                    at: key.1.start(device.track_bytes()) + *at as u64,
                    is_patch: pointer.is_some(),
                    birth: state.past.epoch.number(),
                };
                let location = device.log.append(&mut state.past.meta, encoded, owner)?;
                match &mut pointer {
                    Some(pointer) => pointer.lay(Patch { at: *at as u32, location }),
                    None => pointer = Some(Pointer::new(location)),
                }
            }
            if let Some(pointer) = pointer {
                state.replace_track(device, key, &pointer)?;
            }
            state.flushing.remove(&key);
            state.dirty_bytes -= track.bytes();
        }
        device.log.unreserve(1);
        Ok(())
    }
}

/// Patches laid over what a track held.
fn over(mut before: Vec<u8>, patches: &Patches) -> Vec<u8> {
    before.resize(before.len().max(patches.end()), 0);
    patches.lay_over(0, &mut before);
    before
}
