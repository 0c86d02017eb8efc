//! The past of a store: records with a memory, of bases that snapshots were taken of. It knows keys and values, and nothing of what
//! they are: neither tracks nor where their bytes lie, nor who shares them.

mod archived;
mod base;
mod bases;
pub(in crate::device) mod check;
mod elsewhere;
mod increments;
mod moment;
mod names;
mod number;
mod record;
mod rules;
mod scan;
mod shown;
mod snapshot;
#[cfg(test)]
mod tests;
mod timeline;
mod walk;
mod work;

pub use base::{
    ArchiveRecord, BaseRecord, BaseReserve, Counts, Era, MirrorRecord, Point, Same, SnapshotRef, last_save_key,
};
pub(in crate::device) use base::{Base, counts_key, offline_key, or_damage, reserve_key};
pub use elsewhere::{Elsewhere, InSet, SetTrack};
pub use increments::{Increments, Named, Then, TracksFrom};
pub use moment::{InodeAt, Moment};
pub use names::{LIVE_NAME, is_virtual_name};
pub use number::{BaseId, InodeNo, LIVE, TrackKey, TrackNo};
pub(in crate::device) use record::{
    encode_record, expect_track, increment_key, key_in, keys_of, preimage_key, record_of, rest_of, split_tombstone,
    with_birth,
};
pub use record::{split_increment, split_preimage, split_record, split_track_key, track_key};
pub(in crate::device) use rules::{Old, Outside};
pub(in crate::device) use shown::Appearances;
pub use shown::Shown;
pub use snapshot::{HOLD_TAG, SnapOptions, Snapshot, SnapshotRecord, SnapshotState};
pub(in crate::device) use snapshot::{epoch_after, name_key, snapshot_key, split_snapshot_key};
pub use timeline::{Span, Timeline, Value};
pub(in crate::device) use walk::InodeWalk;
pub use walk::{Settle, Walk};
pub(in crate::device) use work::{
    BASE, INODE, INODE_WALK, SEPARATE, SETTLE, SNAPSHOT, SWEEP, WALKED, work_epoch, work_key, work_number, work_range,
};

use bases::Bases;
use snapshot::Moments;
use timeline::Chronicle;
use work::NotedWork;

use crate::archive::Archive;
use crate::clock::{Epoch, Timestamp};
use crate::error::Result;
use crate::id::Id;
use crate::limits::BLOCK_BYTES;
use crate::meta::{Meta, Table};
use crate::set::Sets;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Under which the epoch is stored.
pub(in crate::device) const HISTORY: &[u8] = b"history";

/// Records of all bases, at all moments.
pub struct Past {
    pub(in crate::device) meta: Meta,
    /// Counts the snapshots of all bases.
    pub(in crate::device) epoch: Epoch,
    pub(in crate::device) bases: Bases,
    pub(in crate::device) shown: Appearances,
}

impl Past {
    /// Of a store whose bases are yet to be taken up.
    pub(in crate::device) fn new(meta: Meta, epoch: Epoch) -> Past {
        Past { meta, epoch, bases: Bases::default(), shown: Appearances::default() }
    }

    /// Begins an operation that [`Past::take_back`] can undo as a whole.
    pub(in crate::device) fn begin(&mut self) {
        // What was changed outside of any operation stays.
        self.bases.keep_changes();
        self.meta.begin();
    }

    /// The operation has taken effect.
    pub(in crate::device) fn keep_changes(&mut self) {
        self.bases.keep_changes();
        self.meta.finish();
    }

    /// Undoes an operation that began in this epoch.
    pub(in crate::device) fn take_back(&mut self, epoch: Epoch) {
        self.meta.rollback();
        self.bases.take_back();
        self.shown.clear();
        self.epoch = epoch;
    }

    /// The open transaction, for reading tables that have no history.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The archive of a base, if it is attached and could be opened.
    pub fn archive(&self, base: BaseId) -> Option<Arc<Archive>> {
        self.bases.get(&base).and_then(|base| base.archive.clone())
    }

    pub(in crate::device) fn put_snapshot(&mut self, snapshot: &Snapshot) {
        let before = self.moments().snapshot_record(snapshot.base, snapshot.epoch).ok().flatten();
        self.shown.note_snapshot(before, snapshot);
        self.meta.put(Table::Snapshot, &snapshot_key(snapshot.base, snapshot.epoch), &snapshot.record);
    }

    /// Keeps a base as it is now. The caller has made sure that nothing is dirty, that the name is good and
    /// free, and which epochs can be used.
    pub(in crate::device) fn add_snapshot(
        &mut self,
        base: BaseId,
        name: String,
        time: Timestamp,
        options: SnapOptions,
        may_use: &dyn Fn(&Past, Epoch) -> Result<bool>,
    ) -> Result<Snapshot> {
        let mut epoch = self.epoch;
        while !may_use(self, epoch)? {
            epoch = epoch_after(epoch)?;
        }
        let next = epoch_after(epoch)?;
        let found = self.base(base)?;
        let (newest, counts) = (found.newest, found.counts);
        // What the newest one holds alone is settled from here on.
        if let Some(mut before) = self.moments().stored_snapshot(base, newest)? {
            before.record.alone = counts.newest_alone;
            self.put_snapshot(&before);
        }
        let last = self.moments().kept_before(base, epoch)?.map_or(Epoch::ZERO, |snapshot| snapshot.epoch);
        let reserve = if options.reserve { counts.refers * BLOCK_BYTES as u64 } else { 0 };
        let SnapOptions { offline, held, purpose, reserve: _ } = options;
        let refers = counts.refers;
        let id = Id::random();
        let record =
            SnapshotRecord { name, time, offline, held, purpose, refers, reserve, id, ..SnapshotRecord::default() };
        let snapshot = Snapshot { base, epoch, record, is_archived: false };
        self.put_snapshot(&snapshot);
        self.meta.put(Table::Name, &name_key(base, &snapshot.record.name), &epoch);
        self.epoch = next;
        self.bases.change(base, |found| {
            (found.before_newest, found.newest, found.newest_reserve) = (last, epoch, reserve);
            (found.counts.newest_alone, found.counts.kept) = (Some(0), 0);
        });
        Ok(snapshot)
    }

    pub(in crate::device) fn rename(&mut self, snapshot: &Snapshot, name: &str) {
        self.meta.remove(Table::Name, &name_key(snapshot.base, &snapshot.record.name));
        self.meta.put(Table::Name, &name_key(snapshot.base, name), &snapshot.epoch);
        let record = SnapshotRecord { name: name.to_string(), ..snapshot.record.clone() };
        self.put_snapshot(&Snapshot { record, ..snapshot.clone() });
    }

    /// Forgets a snapshot of which nothing is left.
    pub(in crate::device) fn forget_snapshot(&mut self, point: Point) {
        self.meta.remove(Table::Snapshot, &snapshot_key(point.base, point.epoch));
    }

    /// Where the moment of an epoch of a base lies, if that is in a set.
    pub(in crate::device) fn elsewhere(&self, base: BaseId, epoch: Epoch) -> Result<Option<(&Arc<Elsewhere>, Id)>> {
        Ok(self.base(base)?.in_set(epoch))
    }

    /// Shows moments that lie in sets, as snapshots of a base that has nothing itself and that shows the last of them, the oldest
    /// first. One whose name is taken has its place among them behind it.
    pub(in crate::device) fn show_elsewhere(&mut self, base: BaseId, sets: Arc<Sets>, all: &[InSet]) -> Result<()> {
        let mut names: BTreeSet<String> = BTreeSet::new();
        let mut moments = BTreeMap::new();
        for InSet { mark, set, bytes } in all {
            let epoch = self.epoch;
            let mut name = mark.name.clone();
            if self.base_named(&name).is_some() || !names.insert(name.clone()) {
                name = format!("{name}~{epoch}");
                names.insert(name.clone());
            }
            let record = SnapshotRecord {
                name: name.clone(),
                time: mark.time,
                offline: mark.offline,
                state: SnapshotState::Deactivated,
                purpose: mark.purpose,
                id: mark.id,
                refers: bytes / BLOCK_BYTES as u64,
                ..SnapshotRecord::default()
            };
            self.put_snapshot(&Snapshot { base, epoch, record, is_archived: false });
            self.meta.put(Table::Name, &name_key(base, &name), &epoch);
            moments.insert(epoch, *set);
            self.epoch = epoch_after(epoch)?;
        }
        let newest = moments.keys().next_back().copied();
        self.bases.set_elsewhere(base, Arc::new(Elsewhere::new(sets, moments)));
        match newest {
            Some(epoch) => self.begin_era(base, epoch, Point { base, epoch }, None),
            None => Ok(()),
        }
    }

    /// Begins an era after the newest epoch, with settling it if `settle` says how.
    pub(in crate::device) fn begin_era(
        &mut self,
        base: BaseId,
        since: Epoch,
        source: Point,
        settle: Option<Settle>,
    ) -> Result<()> {
        let mut record = self.base(base)?.record.clone();
        record.eras.push(Era { since, source });
        self.put_base(base, record);
        if let Some(settle) = settle {
            self.meta.put(Table::Orphan, &work_key(base, SETTLE, since.number().into()), &settle);
        }
        Ok(())
    }

    pub fn moments(&self) -> Moments<'_> {
        Moments { past: self }
    }

    pub fn chronicle(&self) -> Chronicle<'_> {
        Chronicle { past: self }
    }

    pub fn noted_work(&self) -> NotedWork<'_> {
        NotedWork { past: self }
    }
}
