//! Times that only an archive has: as snapshots, and the values that records had then.

use super::moment::InodeAt;
use super::names::check_base_name;
use super::number::BaseId;
use super::record::preimage_key;
use super::snapshot::Moments;
use super::snapshot::{Snapshot, SnapshotRecord, SnapshotState, name_key, snapshot_key};
use crate::archive::{Archive, Mark};
use crate::clock::Epoch;
use crate::error::Result;
use crate::meta::{Pair, Table, decode};
use std::collections::HashSet;
use std::sync::Arc;
/// Between the name of an archived time and its epoch, where the name alone stands for something else.
const NUMBERED: char = '~';

impl<'a> Moments<'a> {
    /// The archive that holds a moment of a base, and the snapshot it leads to.
    pub(in crate::device) fn archive_of(self, base: BaseId, epoch: Epoch) -> Result<Option<(&'a Arc<Archive>, Epoch)>> {
        let Some(archive) = &self.past.base(base)?.archive else { return Ok(None) };
        if archive.mark(epoch).is_none() || self.is_stored(base, epoch)? {
            return Ok(None);
        }
        Ok(archive.tip().map(|tip| (archive, tip.epoch)))
    }

    /// Whether only an archive holds a moment.
    pub fn is_archived(self, at: InodeAt) -> Result<bool> {
        match at.moment {
            super::Moment::Live => Ok(false),
            super::Moment::At(epoch) => Ok(self.archive_of(at.inode.base(), epoch)?.is_some()),
        }
    }

    /// Whether a moment lies outside the store: in an archive, or in a set.
    pub fn is_outside(self, at: InodeAt) -> Result<bool> {
        let is_in_set = match at.moment {
            super::Moment::Live => false,
            super::Moment::At(epoch) => self.past.elsewhere(at.inode.base(), epoch)?.is_some(),
        };
        Ok(is_in_set || self.is_archived(at)?)
    }

    /// What is being deleted is not stored any more: the archive has it from then on.
    fn is_stored(self, base: BaseId, epoch: Epoch) -> Result<bool> {
        let record: Option<SnapshotRecord> = self.past.meta.get(Table::Snapshot, &snapshot_key(base, epoch))?;
        Ok(record.is_some_and(|record| !record.deleting))
    }

    /// A time that only the archive holds, as a snapshot.
    pub(in crate::device) fn archived_snapshot(self, base: BaseId, epoch: Epoch) -> Result<Option<Snapshot>> {
        let mark = self.past.base(base)?.archive.as_ref().and_then(|archive| archive.mark(epoch));
        match mark {
            Some(mark) if !self.is_stored(base, epoch)? => {
                let is_base = self.past.base_named(&mark.name).is_some();
                self.as_snapshot(base, mark, is_base).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// A time that only the archive has. Where its name has been given to something else while the archive was not
    /// attached, it is called `NAME~EPOCH`: no name stands for two, and what is stored keeps its own.
    fn as_snapshot(self, base: BaseId, mark: Mark, is_base: bool) -> Result<Snapshot> {
        let named = self.past.base(base)?.archive.as_ref().and_then(|archive| archive.named(&mark.name));
        let stored: Option<Epoch> = self.past.meta.get(Table::Name, &name_key(base, &mark.name))?;
        let is_other = |epoch: Epoch| epoch != mark.epoch;
        let is_taken = is_base || stored.is_some_and(is_other) || named.is_some_and(|first| is_other(first.epoch));
        let name = if is_taken { format!("{}{NUMBERED}{}", mark.name, mark.epoch) } else { mark.name };
        let record = SnapshotRecord {
            name,
            time: mark.time,
            offline: mark.offline,
            state: SnapshotState::Deactivated,
            purpose: mark.purpose,
            id: mark.id,
            ..SnapshotRecord::default()
        };
        Ok(Snapshot { base, epoch: mark.epoch, record, is_archived: true })
    }

    /// Snapshots that can be seen after an epoch, in the store and in the archive, oldest first.
    pub fn shown_after(self, base: BaseId, epoch: Epoch, most: usize) -> Result<Vec<Snapshot>> {
        let mut found = self.whole_after(base, epoch, most)?;
        let end = if found.len() < most { Epoch::MAX } else { found.last().map_or(Epoch::MAX, |last| last.epoch) };
        if let Some(archive) = &self.past.base(base)?.archive {
            let kept = found.iter().filter(|snapshot| !snapshot.record.deleting);
            let stored: std::collections::BTreeSet<Epoch> = kept.map(|snapshot| snapshot.epoch).collect();
            let marks = archive.marks_after(epoch).into_iter().filter(|mark| mark.epoch <= end);
            let bases: HashSet<&str> = self.past.bases().map(|(_, record)| record.name.as_str()).collect();
            let archived: Vec<Snapshot> = marks
                .filter(|mark| !stored.contains(&mark.epoch))
                .map(|mark| {
                    let is_base = bases.contains(mark.name.as_str());
                    self.as_snapshot(base, mark, is_base)
                })
                .collect::<Result<_>>()?;
            found.retain(|snapshot| {
                let is_in_archive = |archived: &Snapshot| archived.epoch == snapshot.epoch;
                !snapshot.record.deleting || !archived.iter().any(is_in_archive)
            });
            found.extend(archived);
            found.sort_by_key(|snapshot| snapshot.epoch);
            found.truncate(most);
        }
        Ok(found)
    }

    /// A time of the archive by name.
    pub(in crate::device) fn archived_named(self, base: BaseId, name: &str) -> Result<Option<Snapshot>> {
        let Some(archive) = &self.past.base(base)?.archive else { return Ok(None) };
        let numbered = || name.rsplit_once(NUMBERED)?.1.parse().ok().map(Epoch::new);
        let mut epochs = archive.named(name).map(|mark| mark.epoch).into_iter().chain(numbered());
        let found = epochs.find_map(|epoch| self.archived_snapshot(base, epoch).transpose());
        Ok(found.transpose()?.filter(|found| found.record.name == name))
    }

    /// The archive's entry that decides what a key is in an archived epoch.
    pub(in crate::device) fn archived_candidate(
        self,
        archive: &Archive,
        table: Table,
        key: &[u8],
        epoch: Epoch,
    ) -> Result<Option<Vec<u8>>> {
        let from = preimage_key(table, key, epoch.next());
        let to = preimage_key(table, key, Epoch::MAX);
        for pair in archive.range(&from, &to)? {
            let (found, bytes) = pair?;
            // A longer key that starts with this one can lie in between.
            if found.len() == from.len() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

impl Moments<'_> {
    /// The times that the archive of a base had when it was last known, the oldest first.
    pub fn known_archived(self, base: BaseId) -> Result<Vec<Mark>> {
        let all =
            self.past.meta.range(Table::Archived, &snapshot_key(base, Epoch::ZERO), &snapshot_key(base, Epoch::MAX))?;
        let mark = |(key, value): Pair| -> Result<Mark> {
            let mark: Mark = decode(Table::Archived, &key, &value)?;
            check_base_name(&mark.name, || format!("the archived time of epoch {} of base {base}", mark.epoch))?;
            Ok(mark)
        };
        all.map(|pair| pair.and_then(mark)).collect()
    }
}
