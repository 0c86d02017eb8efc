//! Bases that come, go, or show something else.

use super::past::{
    ArchiveRecord, BaseId, BaseRecord, Era, Point, SETTLE, Settle, Snapshot, Walk, snapshot_key, work_key,
};
use super::snapshot::Changing;
use crate::archive::Mark;
use crate::clock::Epoch;
use crate::error::{Errno, Error, Result};
use crate::meta::Table;
use std::collections::{BTreeMap, BTreeSet};

impl Changing<'_> {
    /// Adds a base that shows a kept state from now on; with all of it to be taken over, if `settles`.
    pub fn add_clone(&mut self, record: BaseRecord, source: Point, settles: bool) -> Result<BaseId> {
        let snapshot = self.snapshot_at(source)?;
        let since = self.state.past.epoch.before();
        let id = self.state.past.add_base(record)?;
        let settle = settles.then(|| Settle::new(vec![Walk::All], snapshot.record.refers));
        self.state.past.begin_era(id, since, source, settle)?;
        self.state.count(id, |counts| counts.refers = snapshot.record.refers);
        self.state.past.find_newest(source.base)?;
        Ok(id)
    }

    /// Lets a base show a kept state from the next epoch on. What can differ is said by the walks.
    pub fn begin_restore(&mut self, base: BaseId, source: Point, walks: Vec<Walk>) -> Result<()> {
        let snapshot = self.snapshot_at(source)?;
        let since = self.state.past.epoch.before();
        let walks = [&[Walk::Nameless { to: since }][..], &walks].concat();
        self.state.past.begin_era(base, since, source, Some(Settle::new(walks, 0)))?;
        self.state.past.bases.change(base, |base| base.changed_inodes = Some(BTreeSet::new()));
        self.state.count(base, |counts| counts.refers = snapshot.record.refers);
        self.state.past.find_newest(source.base)
    }

    /// Takes over all that a clone still shows from elsewhere, in the background.
    pub fn settle_clone(&mut self, base: BaseId) -> Result<()> {
        let found = self.state.base(base)?;
        let refers = found.counts.refers;
        let Some(first) = found.record.eras.first().copied() else { return Ok(()) };
        let key = work_key(base, SETTLE, first.since.number().into());
        // A later era, of a restore, may be settling already.
        if !self.state.past.meta.contains(Table::Orphan, &key)? {
            self.state.past.meta.put(Table::Orphan, &key, &Settle::new(vec![Walk::All], refers));
        }
        Ok(())
    }

    /// Lets a clone without records of its own show another kept state.
    pub fn move_clone(&mut self, base: BaseId, source: Point) -> Result<()> {
        let refers = self.snapshot_at(source)?.record.refers;
        let mut record = self.state.base(base)?.record.clone();
        let since = self.state.past.epoch.before();
        let old = std::mem::replace(&mut record.eras, vec![Era { since, source }]);
        record.clone_of = Some(source);
        self.state.past.put_base(base, record);
        self.state.past.bases.change(base, |base| base.changed_inodes = None);
        self.state.count(base, |counts| counts.refers = refers);
        self.state.past.find_newest(source.base)?;
        old.iter().try_for_each(|era| self.state.protection_changed(era.source.base))
    }

    /// Notes where a base's increments go; the snapshots that they need, which must be there, are protected.
    pub fn set_archive(&mut self, base: BaseId, archive: Option<ArchiveRecord>) -> Result<()> {
        let record = self.state.base(base)?.record.clone();
        for saving in archive.iter().flat_map(|archive| &archive.saving) {
            if self.snapshot_at(Point { base, epoch: saving.epoch })?.record.id != saving.id {
                return Err(Error::Gone);
            }
        }
        self.state.past.put_base(base, BaseRecord { archive, ..record });
        self.state.protection_changed(base)
    }

    /// Notes which times the archive of a base has.
    pub fn note_archived(&mut self, base: BaseId, marks: &[Mark]) -> Result<()> {
        let known = self.moments().known_archived(base)?;
        let meta = self.meta_mut();
        let has: BTreeSet<Epoch> = marks.iter().map(|mark| mark.epoch).collect();
        for gone in known.iter().filter(|mark| !has.contains(&mark.epoch)) {
            meta.remove(Table::Archived, &snapshot_key(base, gone.epoch));
        }
        let known: BTreeMap<Epoch, &Mark> = known.iter().map(|mark| (mark.epoch, mark)).collect();
        for mark in marks.iter().filter(|mark| known.get(&mark.epoch) != Some(mark)) {
            meta.put(Table::Archived, &snapshot_key(base, mark.epoch), mark);
        }
        Ok(())
    }

    /// Whether the mount shows a base.
    pub fn show_base(&mut self, id: BaseId, is_shown: bool) {
        self.state.past.show_base(id, is_shown);
    }

    /// Changes what is stored of a base.
    pub fn update_base(&mut self, base: BaseId, record: BaseRecord) {
        self.state.past.put_base(base, record);
    }

    fn snapshot_at(&self, point: Point) -> Result<Snapshot> {
        let snapshot = self.state.moments().stored_snapshot(point.base, point.epoch)?;
        let gone = || Error::Refused(Errno::STALE, "the snapshot was deleted or deactivated and has ended".into());
        snapshot.filter(Snapshot::is_readable).ok_or_else(gone)
    }
}
