//! Snapshots taken, deactivated and hidden, with what that does to what is counted; and one-step changes.

use super::commit::Commit;
use super::feed::Fetched;
use super::past::{
    BaseId, BaseRecord, InSet, LIVE, Past, Point, SnapOptions, Snapshot, SnapshotRecord, SnapshotState, epoch_after,
    name_key,
};
use super::{Device, State};
use crate::clock::{Epoch, Timestamp};
use crate::error::{Errno, Error, Result};
use crate::meta::Table;
use crate::set::Sets;
use std::collections::BTreeSet;
use std::sync::Arc;

impl State {
    /// Something that protected snapshots may be gone: it was deleted, settled or given up, which means no other snapshot. So
    /// the last deactivated one that it protected is active from now on.
    pub(super) fn protection_changed(&mut self, base: BaseId) -> Result<()> {
        if self.base(base).is_err() {
            return Ok(());
        }
        if let Some(mut last) = self.moments().unprotected(base)?.into_iter().rfind(|last| !last.record.deleting) {
            last.record.state = SnapshotState::Active;
            self.past.put_snapshot(&last);
        }
        self.end_unprotected(base)
    }

    /// What the snapshots still need must be protected, and what is no longer protected has ended.
    fn end_unprotected(&mut self, base: BaseId) -> Result<()> {
        let neighbours = |base: &super::past::Base| (base.newest, base.before_newest);
        let Ok(before) = self.base(base).map(neighbours) else { return Ok(()) };
        self.past.find_newest(base)?;
        let after = neighbours(self.base(base)?);
        if before != after {
            self.count(base, |counts| (counts.newest_alone, counts.kept) = (None, 0));
        }
        let now = self.past.epoch;
        for mut later in self.moments().unprotected(base)? {
            later.record.state = SnapshotState::Ended(now);
            self.past.put_snapshot(&later);
            self.past.note_ended(base, now);
        }
        Ok(())
    }

    /// Ends the protection of a snapshot.
    pub(super) fn deactivate(&mut self, point: Point) -> Result<Snapshot> {
        let mut snapshot = self.moments().stored_snapshot(point.base, point.epoch)?.ok_or(Error::Gone)?;
        if snapshot.record.state != SnapshotState::Active {
            let text = format!("the snapshot {:?} is deactivated already", snapshot.record.name);
            return Err(Error::Refused(Errno::INVAL, text));
        }
        if self.base(point.base)?.newest == point.epoch {
            // What changes from now on is not part of its increment.
            self.past.epoch = epoch_after(self.past.epoch)?;
        }
        snapshot.record.state = SnapshotState::Deactivated;
        self.past.put_snapshot(&snapshot);
        self.moments().check_held_are_protected(point.base)?;
        self.end_unprotected(point.base)?;
        Ok(self.moments().stored_snapshot(point.base, point.epoch)?.unwrap_or(snapshot))
    }

    /// Makes snapshots of a base invisible; what only they need is removed later, step by step.
    pub(super) fn hide(&mut self, base: BaseId, snapshots: &[Snapshot]) -> Result<()> {
        let mut hidden = BTreeSet::new();
        for snapshot in snapshots {
            self.past.meta.remove(Table::Name, &name_key(base, &snapshot.record.name));
            self.accounts.reserved = self.accounts.reserved.saturating_sub(snapshot.record.reserve);
            let record = SnapshotRecord { deleting: true, ..snapshot.record.clone() };
            self.past.put_snapshot(&Snapshot { record, ..snapshot.clone() });
            hidden.insert(snapshot.epoch);
        }
        // What the neighbours hold alone has to be counted anew; those that lie side by side have the same ones.
        while let Some(newest) = hidden.pop_last() {
            let after = self.moments().kept_after(base, newest)?;
            let mut oldest = newest;
            let before = loop {
                match self.moments().snapshot_before(base, oldest)? {
                    Some(snapshot) if snapshot.record.deleting => oldest = snapshot.epoch,
                    found => break found,
                }
                hidden.remove(&oldest);
            };
            before.into_iter().chain(after).try_for_each(|neighbour| self.forget_alone(neighbour))?;
        }
        self.protection_changed(base)
    }

    pub(super) fn forget_alone(&mut self, mut snapshot: Snapshot) -> Result<()> {
        if self.base(snapshot.base)?.newest == snapshot.epoch {
            self.count(snapshot.base, |counts| counts.newest_alone = None);
        } else if snapshot.record.alone.take().is_some() {
            self.past.put_snapshot(&snapshot);
        }
        Ok(())
    }
}

impl Commit<'_> {
    /// Changes the state as one step that is durable when this returns, while nothing is dirty. If `change`
    /// fails, nothing has happened.
    pub fn change<R>(&mut self, change: impl FnOnce(&mut Changing<'_>) -> Result<R>) -> Result<R> {
        let device = self.device;
        let (result, changed) = self.run_soon(|state| {
            let before = state.begin();
            match Error::of_panic(|| change(&mut Changing { device, state })) {
                Ok(result) => {
                    state.keep_changes();
                    Ok((result, state.changed(Vec::new())))
                }
                Err(error) => {
                    state.take_back(before);
                    Err(error)
                }
            }
        })?;
        self.publish(changed);
        Ok(result)
    }

    /// What [`Commit::change`] would come to, or why it would be refused. It is done, and taken back: nothing has happened.
    pub fn rehearse<R>(&mut self, change: impl FnOnce(&mut Changing<'_>) -> Result<R>) -> Result<R> {
        let device = self.device;
        let mut guard = self.flushed()?;
        let state = &mut *guard;
        let before = state.begin();
        let result = Error::of_panic(|| change(&mut Changing { device, state }));
        state.take_back(before);
        result
    }
}

/// A state of which nothing is dirty, about to be committed.
pub struct Changing<'a> {
    pub(super) device: &'a Device,
    pub(super) state: &'a mut State,
}

impl std::ops::Deref for Changing<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        self.state
    }
}

impl Changing<'_> {
    /// Keeps a base as it is now under a name that is good and free. An epoch for which `may_use` says no is
    /// left out.
    pub fn snapshot(
        &mut self,
        _: Fetched,
        base: BaseId,
        name: String,
        time: Timestamp,
        options: SnapOptions,
        may_use: &dyn Fn(&Past, Epoch) -> Result<bool>,
    ) -> Result<Snapshot> {
        if options.reserve {
            self.check_reservable(&[base])?;
        }
        let snapshot = self.state.past.add_snapshot(base, name, time, options, may_use)?;
        self.state.accounts.reserved = self.state.accounts.reserved.saturating_add(snapshot.record.reserve);
        Ok(snapshot)
    }

    pub fn deactivate(&mut self, point: Point) -> Result<Snapshot> {
        self.state.deactivate(point)
    }

    /// Changes what is stored of a snapshot, but for its name.
    pub fn update(&mut self, snapshot: &Snapshot) {
        self.state.past.put_snapshot(snapshot);
    }

    pub fn rename(&mut self, snapshot: &Snapshot, name: &str) {
        self.state.past.rename(snapshot, name);
    }

    /// Adds a base that shows moments that lie in sets, the oldest first, and the last of them as it is now; the first base of a
    /// store that has nothing else is it itself.
    pub fn show_elsewhere(&mut self, record: BaseRecord, sets: Arc<Sets>, all: &[InSet]) -> Result<()> {
        let past = &mut self.state.past;
        let base = match past.base(LIVE)?.elsewhere.is_none() {
            true => {
                past.put_base(LIVE, record);
                LIVE
            }
            false => past.add_base(record)?,
        };
        past.show_elsewhere(base, sets, all)
    }

    /// The tables without a history.
    pub fn meta_mut(&mut self) -> &mut crate::meta::Meta {
        &mut self.state.past.meta
    }
}
