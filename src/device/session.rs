//! Snapshots: taking, naming, finding and ending them.

use super::{Commit, Device, Epoch, LIVE, Moment, State, Txn};
use crate::clock::Timestamp;
use crate::error::{Errno, Error, Result};
use crate::meta::{Table, decode};
use serde::{Deserialize, Serialize};

/// What is stored of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    pub name: String,
    pub time: Timestamp,
    /// It is being deleted: nobody sees it any more.
    pub deleting: bool,
}

/// One moment of a base that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub epoch: Epoch,
    pub record: SnapshotRecord,
}

pub(super) fn snapshot_key(epoch: Epoch) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&LIVE.to_be_bytes());
    key[4..].copy_from_slice(&epoch.to_be_bytes());
    key
}

fn name_key(name: &str) -> Vec<u8> {
    [&LIVE.to_be_bytes()[..], name.as_bytes()].concat()
}

fn split_snapshot(key: &[u8], value: &[u8]) -> Result<Snapshot> {
    let epoch = key
        .get(4..8)
        .and_then(|epoch| Some(Epoch::from_be_bytes(epoch.try_into().ok()?)))
        .ok_or_else(|| Error::corrupt("the table of snapshots", "a key has the wrong length"))?;
    Ok(Snapshot { epoch, record: decode(Table::Snapshot, key, value)? })
}

impl State {
    pub(super) fn newest_snapshot(&self) -> Result<Epoch> {
        let mut before = Epoch::MAX;
        loop {
            let Some(snapshot) = self.snapshot_before(before)? else { return Ok(0) };
            if !snapshot.record.deleting {
                return Ok(snapshot.epoch);
            }
            before = snapshot.epoch;
        }
    }

    /// The last snapshot before this epoch, also if it is being deleted.
    pub fn snapshot_before(&self, epoch: Epoch) -> Result<Option<Snapshot>> {
        let found = self.meta.last(Table::Snapshot, &snapshot_key(0), &snapshot_key(epoch))?;
        found.map(|(key, value)| split_snapshot(&key, &value)).transpose()
    }

    /// The first snapshot after this epoch, also if it is being deleted.
    pub fn snapshot_after(&self, epoch: Epoch) -> Result<Option<Snapshot>> {
        Ok(self.snapshots_after(epoch, 1)?.pop())
    }

    /// Up to `most` snapshots after this epoch, also those that are being deleted.
    pub fn snapshots_after(&self, epoch: Epoch, most: usize) -> Result<Vec<Snapshot>> {
        let Some(next) = epoch.checked_add(1) else { return Ok(Vec::new()) };
        let after = self.meta.range(Table::Snapshot, &snapshot_key(next), &snapshot_key(Epoch::MAX))?;
        after.take(most).map(|pair| pair.and_then(|(key, value)| split_snapshot(&key, &value))).collect()
    }

    /// All snapshots that can be seen, oldest first.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let mut all = self.snapshots_after(0, usize::MAX)?;
        all.retain(|snapshot| !snapshot.record.deleting);
        Ok(all)
    }

    pub fn snapshot(&self, epoch: Epoch) -> Result<Option<Snapshot>> {
        let record: Option<SnapshotRecord> = self.meta.get(Table::Snapshot, &snapshot_key(epoch))?;
        Ok(record.filter(|record| !record.deleting).map(|record| Snapshot { epoch, record }))
    }

    /// ESTALE if the snapshot is gone.
    pub fn check_snapshot(&self, epoch: Epoch) -> Result<()> {
        match self.snapshot(epoch)? {
            Some(_) => Ok(()),
            None => Err(Error::Posix(Errno::STALE)),
        }
    }

    pub fn snapshot_named(&self, name: &str) -> Result<Option<Snapshot>> {
        match self.meta.get::<Epoch>(Table::Name, &name_key(name))? {
            Some(epoch) => self.snapshot(epoch),
            None => Ok(None),
        }
    }

    /// ESTALE if this moment is a snapshot that is gone.
    pub fn check_moment(&self, moment: Moment) -> Result<()> {
        match moment {
            Moment::Live => Ok(()),
            Moment::At(epoch) => self.check_snapshot(epoch),
        }
    }
}

impl Commit<'_> {
    /// Keeps the base as it is now under a name, durably. `name` gets to see the state, under the lock,
    /// and has made sure that the name is good and free. An epoch for which `may_use` says no is left out.
    pub fn snapshot(
        &self,
        time: Timestamp,
        name: impl FnOnce(&State) -> Result<String>,
        may_use: impl Fn(&State, Epoch) -> Result<bool>,
    ) -> Result<Snapshot> {
        self.run(|state| {
            let name = name(state)?;
            let mut epoch = state.epoch;
            while !may_use(state, epoch)? {
                epoch += 1;
            }
            let next = epoch.checked_add(1).filter(|next| *next < Epoch::MAX);
            let next = next.ok_or_else(|| {
                Error::Refused(Errno::NOSPC, "this store has taken all the snapshots it can count".into())
            })?;
            let record = SnapshotRecord { name, time, deleting: false };
            state.meta.put(Table::Snapshot, &snapshot_key(epoch), &record);
            state.meta.put(Table::Name, &name_key(&record.name), &epoch);
            state.epoch = next;
            state.newest = epoch;
            Ok(Snapshot { epoch, record })
        })
    }
}

impl Device {
    /// Gives a snapshot another name, unless `check` refuses it.
    pub fn rename_snapshot(&self, epoch: Epoch, name: &str, check: impl FnOnce(&State) -> Result<()>) -> Result<()> {
        let mut txn = self.begin()?;
        let snapshot = txn.snapshot(epoch)?.ok_or(Error::Posix(Errno::STALE))?;
        check(&txn)?;
        txn.state.meta.remove(Table::Name, &name_key(&snapshot.record.name));
        txn.state.meta.put(Table::Name, &name_key(name), &epoch);
        let record = SnapshotRecord { name: name.to_string(), ..snapshot.record };
        txn.state.meta.put(Table::Snapshot, &snapshot_key(epoch), &record);
        txn.finish()
    }
}

impl Txn<'_> {
    /// Makes a snapshot invisible; what only it needs is removed later, step by step.
    pub(super) fn hide_snapshot(&mut self, epoch: Epoch) -> Result<()> {
        let snapshot = self.snapshot(epoch)?.ok_or(Error::Posix(Errno::STALE))?;
        self.state.meta.remove(Table::Name, &name_key(&snapshot.record.name));
        let record = SnapshotRecord { deleting: true, ..snapshot.record };
        self.state.meta.put(Table::Snapshot, &snapshot_key(epoch), &record);
        Ok(())
    }

    pub(super) fn forget_snapshot(&mut self, epoch: Epoch) {
        self.state.meta.remove(Table::Snapshot, &snapshot_key(epoch));
    }
}
