//! Snapshots: taking, naming, finding and ending them.
//!
//! ```text
//!              activate                deactivate, with an active one behind it
//! (session) ─────────────▶ Active ───────────────────────────────▶ Deactivated
//!                            │                                        │ the last active one behind it goes
//!                            │ deactivate, being the newest           ▼
//!                            └─────────────────────────────────────▶ Ended
//! ```
//!
//! An active snapshot protects what it shows. A deactivated one protects nothing and can be seen as long as a
//! later one protects it. Of one that has ended only the increment is left: what changed while it was active.

use super::Past;
use super::base::{Point, SnapshotRef};
use super::moment::{InodeAt, Moment};
use super::names::check_snapshot_name;
use super::number::BaseId;
use crate::archive::Mark;
use crate::clock::{Epoch, Timestamp};
use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::meta::{Table, decode, hex};
use crate::purpose::Purpose;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotState {
    #[default]
    Active,
    Deactivated,
    /// Nothing has been protected for it since this epoch.
    Ended(Epoch),
}

/// What is stored of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    pub name: String,
    pub time: Timestamp,
    /// It is being deleted: nobody sees it any more.
    pub deleting: bool,
    /// The mount does not show it.
    pub offline: bool,
    /// No rule and no lack of room deletes it.
    pub held: bool,
    pub state: SnapshotState,
    pub purpose: Purpose,
    /// Blocks that its tracks take.
    #[serde(deserialize_with = "crate::limits::number::blocks")]
    pub refers: u64,
    /// Blocks that only it holds; unknown while it is the newest, and after a neighbour was deleted.
    #[serde(deserialize_with = "crate::limits::number::known_blocks")]
    pub alone: Option<u64>,
    /// Bytes of room that are set aside for it.
    #[serde(deserialize_with = "crate::limits::number::bytes")]
    pub reserve: u64,
    /// No other snapshot has it, in no copy of the store.
    pub id: Id,
    /// Why it is held; empty where nobody said.
    pub tags: Vec<String>,
}

/// Of a hold for which nobody said why.
pub const HOLD_TAG: &str = "hold";

impl SnapshotRecord {
    /// Why it is held; one reason at least if it is.
    pub fn hold_tags(&self) -> Vec<String> {
        match self.held && self.tags.is_empty() {
            true => vec![HOLD_TAG.to_string()],
            false => self.tags.clone(),
        }
    }

    /// Adds a reason to hold it; false if it was there.
    pub fn add_hold(&mut self, tag: &str) -> bool {
        let mut tags = self.hold_tags();
        let is_new = !tags.iter().any(|known| known == tag);
        if is_new {
            tags.push(tag.to_string());
        }
        (self.held, self.tags) = (true, tags);
        is_new
    }

    /// Takes a reason away, or all; with the last of them the hold ends. False if it was not there.
    pub fn end_hold(&mut self, tag: Option<&str>) -> bool {
        let before = self.hold_tags();
        let left: Vec<String> = before.iter().filter(|known| tag.is_some_and(|tag| *known != tag)).cloned().collect();
        let has_ended = left.len() < before.len();
        (self.held, self.tags) = (!left.is_empty(), left);
        has_ended
    }
}

/// How a snapshot is to be taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct SnapOptions {
    pub offline: bool,
    pub held: bool,
    pub purpose: Purpose,
    /// Set room aside, so that all of the base can be written anew.
    pub reserve: bool,
}

/// One moment of a base that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub base: BaseId,
    pub epoch: Epoch,
    pub record: SnapshotRecord,
    /// An archive has it, and not the store.
    pub is_archived: bool,
}

impl Snapshot {
    pub fn point(&self) -> Point {
        Point { base: self.base, epoch: self.epoch }
    }

    /// How an archive names it.
    pub fn mark(&self) -> Mark {
        let SnapshotRecord { id, name, time, purpose, offline, .. } = &self.record;
        let (name, offline) = (name.clone(), *offline);
        Mark { epoch: self.epoch, id: *id, name, time: *time, purpose: *purpose, offline }
    }

    /// How others name it.
    pub fn as_ref(&self) -> SnapshotRef {
        SnapshotRef { epoch: self.epoch, id: self.record.id }
    }

    /// Whether it can still be looked into.
    pub fn is_readable(&self) -> bool {
        !self.record.deleting && !matches!(self.record.state, SnapshotState::Ended(_))
    }
}

/// The key of a snapshot's record, and of an archived time.
pub(in crate::device) fn snapshot_key(base: BaseId, epoch: Epoch) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&base.prefix());
    key[4..].copy_from_slice(&epoch.to_be_bytes());
    key
}

pub(in crate::device) fn name_key(base: BaseId, name: &str) -> Vec<u8> {
    [&base.prefix()[..], name.as_bytes()].concat()
}

pub(in crate::device) fn split_snapshot_key(key: &[u8]) -> Result<(BaseId, Epoch)> {
    let wrong = |problem: &str| Error::corrupt("the table of snapshots", format!("the key {} {problem}", hex(key)));
    let [a, b, c, d, e, f, g, h] = *<&[u8; 8]>::try_from(key).map_err(|_| wrong("has the wrong length"))?;
    let (base, epoch) = (BaseId::new(u32::from_be_bytes([a, b, c, d])), Epoch::from_be_bytes([e, f, g, h]));
    if epoch > Epoch::ZERO && epoch.is_possible() {
        Ok((base, epoch))
    } else {
        Err(wrong("names an epoch that cannot be"))
    }
}

/// The epoch that follows, as long as there is one.
pub(in crate::device) fn epoch_after(epoch: Epoch) -> Result<Epoch> {
    let next = Some(epoch.next()).filter(|next| next.is_possible());
    next.ok_or_else(|| Error::Refused(Errno::NOSPC, "this store has taken all the snapshots it can count".into()))
}

/// The snapshot that a record says.
pub(super) fn split_snapshot(key: &[u8], value: &[u8]) -> Result<Snapshot> {
    let (base, epoch) = split_snapshot_key(key)?;
    let record: SnapshotRecord = decode(Table::Snapshot, key, value)?;
    check_snapshot_name(&record.name, || format!("the snapshot of epoch {epoch} of base {base}"))?;
    Ok(Snapshot { base, epoch, record, is_archived: false })
}

/// The moments of bases: snapshots, and times that only an archive has.
#[derive(Clone, Copy)]
pub struct Moments<'a> {
    pub(super) past: &'a Past,
}

impl<'a> Moments<'a> {
    /// The newest snapshot before an epoch for which old values are kept; 0 without any.
    pub(in crate::device) fn newest_protecting(self, base: BaseId, mut before: Epoch) -> Result<Epoch> {
        let mut needed = None;
        loop {
            let snapshot = match self.found_before(base, before)? {
                Some((_, Ok(snapshot))) => snapshot,
                // Nobody knows what it needs: it keeps all that it can show.
                Some((epoch, Err(Error::Corrupt { .. }))) => return Ok(epoch),
                Some((_, Err(error))) => return Err(error),
                None => return Ok(Epoch::ZERO),
            };
            let is_active = snapshot.record.state == SnapshotState::Active && !snapshot.record.deleting;
            if is_active || self.past.is_archiving(snapshot.point()) {
                return Ok(snapshot.epoch);
            }
            let needed = match &mut needed {
                Some(needed) => needed,
                none => none.insert(self.past.all_dependants()?),
            };
            if needed.contains_key(&snapshot.point()) {
                return Ok(snapshot.epoch);
            }
            before = snapshot.epoch;
        }
    }

    /// The last snapshot before this epoch, also if it is being deleted.
    pub fn snapshot_before(self, base: BaseId, epoch: Epoch) -> Result<Option<Snapshot>> {
        self.found_before(base, epoch)?.map(|(_, snapshot)| snapshot).transpose()
    }

    /// The same with its epoch, whatever its record is like. A key that is none is passed over: `check` says it.
    fn found_before(self, base: BaseId, epoch: Epoch) -> Result<Option<(Epoch, Result<Snapshot>)>> {
        let mut end = snapshot_key(base, epoch).to_vec();
        while let Some((key, value)) = self.past.meta.last(Table::Snapshot, &snapshot_key(base, Epoch::new(1)), &end)? {
            if let Ok((_, epoch)) = split_snapshot_key(&key) {
                return Ok(Some((epoch, split_snapshot(&key, &value))));
            }
            end = key;
        }
        Ok(None)
    }

    /// The epoch of the last snapshot of a base, whatever its record is like; 0 without any.
    pub(in crate::device) fn last_epoch(self, base: BaseId) -> Result<Epoch> {
        Ok(self.found_before(base, Epoch::MAX)?.map_or(Epoch::ZERO, |(epoch, _)| epoch))
    }

    /// The last snapshot before this epoch that is not being deleted.
    pub(in crate::device) fn kept_before(self, base: BaseId, mut epoch: Epoch) -> Result<Option<Snapshot>> {
        loop {
            match self.snapshot_before(base, epoch)? {
                Some(snapshot) if snapshot.record.deleting => epoch = snapshot.epoch,
                found => return Ok(found),
            }
        }
    }

    /// The first snapshot after this epoch that is not being deleted.
    pub(in crate::device) fn kept_after(self, base: BaseId, mut epoch: Epoch) -> Result<Option<Snapshot>> {
        loop {
            match self.snapshot_after(base, epoch)? {
                Some(snapshot) if snapshot.record.deleting => epoch = snapshot.epoch,
                found => return Ok(found),
            }
        }
    }

    /// The first snapshot after this epoch, also if it is being deleted.
    pub fn snapshot_after(self, base: BaseId, epoch: Epoch) -> Result<Option<Snapshot>> {
        Ok(self.snapshots_after(base, epoch, 1)?.pop())
    }

    /// Up to `most` snapshots after this epoch, also those that are being deleted.
    pub fn snapshots_after(self, base: BaseId, epoch: Epoch, most: usize) -> Result<Vec<Snapshot>> {
        self.found_after(base, epoch)?.take(most).collect()
    }

    fn found_after(self, base: BaseId, epoch: Epoch) -> Result<impl Iterator<Item = Result<Snapshot>> + use<'a>> {
        let next = snapshot_key(base, epoch.next());
        let after = self.past.meta.range(Table::Snapshot, &next, &snapshot_key(base, Epoch::MAX))?;
        Ok(after.filter_map(|pair| match pair {
            Ok((key, value)) => split_snapshot_key(&key).is_ok().then(|| split_snapshot(&key, &value)),
            Err(error) => Some(Err(error)),
        }))
    }

    /// Up to `most` of them to be shown, without those whose records are damaged.
    pub(in crate::device) fn whole_after(self, base: BaseId, epoch: Epoch, most: usize) -> Result<Vec<Snapshot>> {
        let whole = self.found_after(base, epoch)?.filter_map(|found| match found {
            Err(error @ Error::Corrupt { .. }) => {
                log::error!("{error}; it is left out");
                None
            }
            found => Some(found),
        });
        whole.take(most).collect()
    }

    /// All snapshots of a base that are not being deleted, oldest first. Damaged ones are left out.
    pub fn snapshots(self, base: BaseId) -> Result<Vec<Snapshot>> {
        let mut all = self.whole_after(base, Epoch::ZERO, usize::MAX)?;
        all.retain(|snapshot| !snapshot.record.deleting);
        Ok(all)
    }

    /// What is stored of a snapshot, also of one that is being deleted.
    pub(in crate::device) fn snapshot_record(self, base: BaseId, epoch: Epoch) -> Result<Option<SnapshotRecord>> {
        let key = snapshot_key(base, epoch);
        let found = self.past.meta.with(Table::Snapshot, &key, |value| split_snapshot(&key, value))?;
        Ok(found.map(|snapshot| snapshot.record))
    }

    pub fn snapshot(self, base: BaseId, epoch: Epoch) -> Result<Option<Snapshot>> {
        match self.snapshot_record(base, epoch)? {
            Some(record) if !record.deleting => Ok(Some(Snapshot { base, epoch, record, is_archived: false })),
            _ if self.past.base(base).is_ok_and(|base| base.archive.is_some()) => self.archived_snapshot(base, epoch),
            _ => Ok(None),
        }
    }

    /// The same of one that the store holds itself.
    pub(in crate::device) fn stored_snapshot(self, base: BaseId, epoch: Epoch) -> Result<Option<Snapshot>> {
        Ok(self.snapshot(base, epoch)?.filter(|snapshot| !snapshot.is_archived))
    }

    pub fn snapshot_named(self, base: BaseId, name: &str) -> Result<Option<Snapshot>> {
        match self.past.meta.get::<Epoch>(Table::Name, &name_key(base, name))? {
            Some(epoch) => self.snapshot(base, epoch),
            None if self.past.base(base).is_ok_and(|base| base.archive.is_some()) => self.archived_named(base, name),
            None => Ok(None),
        }
    }

    /// ESTALE if what an inode is looked at in is gone: its base, or the snapshot.
    pub fn check(self, at: InodeAt) -> Result<()> {
        let base = at.inode.base();
        let is_there = match at.moment {
            Moment::Live => !self.past.base(base)?.record.deleting,
            Moment::At(epoch) if self.past.elsewhere(base, epoch)?.is_some() => true,
            Moment::At(epoch) => self.snapshot(base, epoch)?.is_some_and(|snapshot| snapshot.is_readable()),
        };
        if is_there { Ok(()) } else { Err(Error::Gone) }
    }

    /// Deactivated snapshots that nothing protects.
    pub(in crate::device) fn unprotected(self, base: BaseId) -> Result<Vec<Snapshot>> {
        let newest = self.newest_protecting(base, Epoch::MAX)?;
        let mut later = self.snapshots_after(base, newest, usize::MAX)?;
        later.retain(|later| later.record.state == SnapshotState::Deactivated);
        Ok(later)
    }

    /// EBUSY where a snapshot that somebody holds would end.
    pub(in crate::device) fn check_held_are_protected(self, base: BaseId) -> Result<()> {
        match self.unprotected(base)?.iter().find(|later| later.record.held && !later.record.deleting) {
            None => Ok(()),
            Some(held) => {
                let name = &held.record.name;
                let text = format!(
                    "{name:?} is held and would end, since nothing protected it any more; `pitfs release {name}` ends that"
                );
                Err(Error::Refused(Errno::BUSY, text))
            }
        }
    }
}
