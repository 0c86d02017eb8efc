//! Bases: the trees of a store that are written to, and where what they do not hold themselves comes from.
//!
//! A base that is a clone, or that was restored a moment ago, has an *era*: from an epoch on, a key without
//! a record that was born since then has the value that it has in another state, the era's *source*. Settling
//! an era gives the base records of its own, one by one; when all have one, the era ends.
//!
//! ```text
//!            before          era                       no era
//! live ──────────────┬──────────────────────────┬───────────────────▶
//!                    │ own records born since,  │
//!                 restore   else the source's   settled
//! ```
//!
//! Invariants:
//! - a record of a base that was born in an era, or the lack of one with a tombstone, hides the source;
//! - what an era's source is, a snapshot, is not deleted while the era lasts;
//! - eras are settled in the order in which they began.

use super::bases::Bases;
use super::elsewhere::Elsewhere;
use super::names::check_base_name;
use super::number::{BaseId, InodeNo, LIVE};
use super::work::{SETTLE, work_key};
use super::{HISTORY, Past};
use crate::archive::Archive;
use crate::clock::{Epoch, Timestamp};
use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::limits::BASES_MAX;
use crate::meta::{Table, decode, hex, prefix_end, record_name};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// A state that is kept: a base as it was in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Point {
    pub base: BaseId,
    pub epoch: Epoch,
}

/// From when on what a base does not hold itself is looked for elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Era {
    /// Records of the base up to this epoch do not count after it.
    pub since: Epoch,
    pub source: Point,
}

/// What is stored of a base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseRecord {
    pub name: String,
    pub time: Timestamp,
    /// Of a clone: the base beside which it is shown, and the snapshot it was made of.
    pub clone_of: Option<Point>,
    /// Of a mirror: what it is a copy of.
    pub mirror: Option<MirrorRecord>,
    /// The oldest first.
    pub eras: Vec<Era>,
    /// Where its increments go.
    pub archive: Option<ArchiveRecord>,
    /// It is being deleted: nobody sees it any more.
    pub deleting: bool,
    pub id: Id,
}

/// A snapshot as something else names it: it counts only if it is the very one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRef {
    pub epoch: Epoch,
    pub id: Id,
}

/// An archive that is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveRecord {
    #[serde(with = "crate::meta::path")]
    pub directory: PathBuf,
    /// What the directory's label says.
    pub id: Id,
    /// The snapshot that the newest increment leads to: it must be there to reach any of them.
    pub anchor: Option<SnapshotRef>,
    /// Snapshots whose increments are being saved.
    pub saving: Vec<SnapshotRef>,
    /// The machines on which somebody has said that the archive is there, the last one behind.
    #[serde(default)]
    pub hosts: Vec<Id>,
}

impl ArchiveRecord {
    /// Whether the archive, or what is being saved to it, would be broken without this snapshot.
    pub fn needs(&self, epoch: Epoch) -> bool {
        self.anchor.iter().chain(&self.saving).any(|needed| needed.epoch == epoch)
    }
}

/// What ties a mirror to its base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorRecord {
    pub of: BaseId,
    /// The snapshots in which both were the same: of the base, and of the mirror.
    pub same: Option<Same>,
    /// The mirror may be written to.
    pub is_split: bool,
}

/// Snapshots in which two bases were the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Same {
    /// Of the base.
    pub of: SnapshotRef,
    /// Of the mirror, once it may have changed since.
    pub own: Option<SnapshotRef>,
}

impl Same {
    /// The epochs of both; 0 for none.
    pub fn epochs(&self) -> (Epoch, Epoch) {
        (self.of.epoch, self.own.map_or(Epoch::ZERO, |own| own.epoch))
    }
}

/// Room that a base takes, counted as it changes, in blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// What all its tracks take.
    #[serde(deserialize_with = "crate::limits::number::blocks")]
    pub refers: u64,
    /// What only the newest snapshot holds; unknown after a neighbour of it was deleted or deactivated.
    #[serde(deserialize_with = "crate::limits::number::known_blocks")]
    pub newest_alone: Option<u64>,
    /// What the base has let go of since the newest snapshot was taken, which that has kept.
    #[serde(default, deserialize_with = "crate::limits::number::blocks")]
    pub kept: u64,
}

/// A base as it is known while the store is open.
#[derive(Clone, Debug)]
pub(in crate::device) struct Base {
    pub record: BaseRecord,
    /// The newest snapshot that protects anything; 0 without any.
    pub newest: Epoch,
    /// The one before it, whether it protects anything or not.
    pub before_newest: Epoch,
    pub counts: Counts,
    /// The archive, if it is attached and could be opened.
    pub archive: Option<Arc<Archive>>,
    /// Where its moments lie, if that is in sets.
    pub elsewhere: Option<Arc<Elsewhere>>,
    /// A moment in a set that is looked into as one of this base.
    pub visited: Option<Arc<Elsewhere>>,
    /// The last epoch in which the protection of a snapshot ended that is still there; 0 without any.
    pub ended: Epoch,
    /// Bytes of room that the newest has set aside.
    pub newest_reserve: u64,
    /// Room that it has set aside for itself.
    pub reserve: Option<BaseReserve>,
    /// The mount does not show it.
    pub is_offline: bool,
    /// Inodes that settling looked at since the last restore; `None` when they are many.
    pub changed_inodes: Option<BTreeSet<InodeNo>>,
}

/// Room that a clone has set aside, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseReserve {
    #[serde(deserialize_with = "crate::limits::number::bytes")]
    pub bytes: u64,
    /// What it has written anew: what its tracks take that nobody else holds.
    #[serde(deserialize_with = "crate::limits::number::bytes")]
    pub used: u64,
}

/// Where it is kept what a base has set aside.
pub(in crate::device) fn reserve_key(base: BaseId) -> Vec<u8> {
    [b"reserve", &base.prefix()[..]].concat()
}

pub(in crate::device) fn counts_key(base: BaseId) -> Vec<u8> {
    [b"counts", &base.prefix()[..]].concat()
}

/// Where it is kept of a base when the protection of a snapshot last ended.
fn ended_key(base: BaseId) -> Vec<u8> {
    [b"ended", &base.prefix()[..]].concat()
}

/// Where it is noted of a base that the mount does not show it.
pub(in crate::device) fn offline_key(base: BaseId) -> Vec<u8> {
    [b"offline", &base.prefix()[..]].concat()
}

/// Where it is kept of a base which of its snapshots was saved last.
pub fn last_save_key(base: BaseId) -> Vec<u8> {
    [b"last save", &base.prefix()[..]].concat()
}

impl Base {
    fn new(record: BaseRecord, counts: Counts) -> Base {
        Base {
            record,
            newest: Epoch::ZERO,
            before_newest: Epoch::ZERO,
            counts,
            archive: None,
            elsewhere: None,
            visited: None,
            ended: Epoch::ZERO,
            newest_reserve: 0,
            reserve: None,
            is_offline: false,
            changed_inodes: None,
        }
    }

    /// The era that a moment lies in.
    pub fn era_at(&self, epoch: Epoch) -> Option<&Era> {
        // A set knows all of its moment.
        let is_in_store = self.in_set(epoch).is_none();
        self.record.eras.iter().rev().find(|era| is_in_store && era.since < epoch)
    }

    /// Where the moment of an epoch lies, if that is in a set.
    pub fn in_set(&self, epoch: Epoch) -> Option<(&Arc<Elsewhere>, Id)> {
        let all = self.elsewhere.iter().chain(&self.visited);
        all.into_iter().find_map(|elsewhere| Some((elsewhere, elsewhere.set_at(epoch)?)))
    }
}

impl BaseRecord {
    pub fn new(name: &str, time: Timestamp) -> BaseRecord {
        BaseRecord {
            name: name.into(),
            time,
            clone_of: None,
            mirror: None,
            eras: Vec::new(),
            archive: None,
            deleting: false,
            id: Id::random(),
        }
    }
}

/// The base that a record says.
pub(super) fn split_base(key: &[u8], value: &[u8]) -> Result<(BaseId, BaseRecord)> {
    let wrong = || Error::corrupt("the table of bases", format!("the key {} has the wrong length", hex(key)));
    let id = BaseId::new(u32::from_be_bytes(key.try_into().map_err(|_| wrong())?));
    let record: BaseRecord = decode(Table::Base, key, value)?;
    check_base_name(&record.name, || format!("the base {id}"))?;
    if id.number() >= BASES_MAX {
        return Err(Error::corrupt(format!("the base {id}"), format!("its number is not below {BASES_MAX}")));
    }
    // Following the sources of eras leads back in time, and so ends.
    match record.eras.iter().find(|era| era.source.epoch > era.since) {
        None => Ok((id, record)),
        Some(Era { since, source }) => {
            let problem = format!("from epoch {since} on it is said to show epoch {}, which is later", source.epoch);
            Err(Error::corrupt(format!("the base {id}"), problem))
        }
    }
}

/// What was found; if it is damaged, that is noted.
pub(in crate::device) fn or_damage<T>(found: Result<T>, damage: &mut Vec<Error>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error @ Error::Corrupt { .. }) => {
            damage.push(error);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl Past {
    /// Takes the bases up. What is damaged is left out, and in the answer: without it nobody knows what may go, nor which
    /// numbers are free, so that nothing must change.
    pub(in crate::device) fn load_bases(&mut self) -> Result<Vec<Error>> {
        let mut damage = Vec::new();
        let mut bases = BTreeMap::new();
        for pair in self.meta.range(Table::Base, &[], &[u8::MAX; 40])? {
            let (key, value) = pair?;
            let Some((id, record)) = or_damage(split_base(&key, &value), &mut damage)? else { continue };
            let counts = or_damage(self.meta.get(Table::State, &counts_key(id)), &mut damage)?;
            let ended = or_damage(self.meta.get(Table::State, &ended_key(id)), &mut damage)?;
            let reserve = or_damage(self.meta.get(Table::State, &reserve_key(id)), &mut damage)?.flatten();
            let (counts, ended) = (counts.flatten().unwrap_or_default(), ended.flatten().unwrap_or_default());
            let is_offline = self.meta.contains(Table::State, &offline_key(id))?;
            bases.insert(id, Base { ended, reserve, is_offline, ..Base::new(record, counts) });
        }
        if !bases.contains_key(&LIVE) {
            let without = Error::corrupt("the metadata (meta.redb)", "it has no record of the first base");
            return Err(damage.into_iter().next().unwrap_or(without));
        }
        let ids: Vec<BaseId> = bases.keys().copied().collect();
        self.bases = Bases::new(bases);
        for id in &ids {
            self.find_newest(*id)?;
            self.bases.keep_changes();
        }
        let next = or_damage(self.meta.get::<BaseId>(Table::State, NEXT_BASE), &mut damage)?;
        let checked = self.check_next(&ids, next.flatten().unwrap_or(LIVE.next()));
        or_damage(checked, &mut damage)?;
        or_damage(self.noted_work().check_going(), &mut damage)?;
        Ok(damage)
    }

    /// A new base, or a new snapshot, must not take the place of one that is there.
    fn check_next(&self, ids: &[BaseId], next_base: BaseId) -> Result<()> {
        if let Some(last) = ids.last().filter(|last| **last >= next_base) {
            let problem = format!("the next base is said to be {next_base}, and there is one of number {last}");
            return Err(Error::corrupt(record_name(Table::State, NEXT_BASE), problem));
        }
        let epoch = self.epoch;
        for id in ids {
            let last = self.moments().last_epoch(*id)?;
            if last >= epoch {
                let problem =
                    format!("the epoch is said to be {epoch}, and the base {id} has a snapshot of epoch {last}");
                return Err(Error::corrupt(record_name(Table::State, HISTORY), problem));
            }
            let end = self.last_end(*id)?;
            if end > epoch {
                let problem = format!("the epoch is said to be {epoch}, and something of the base {id} ended in {end}");
                return Err(Error::corrupt(record_name(Table::State, HISTORY), problem));
            }
        }
        Ok(())
    }

    /// Looks up again which snapshots protect a base.
    pub(in crate::device) fn find_newest(&mut self, id: BaseId) -> Result<()> {
        let newest = self.moments().newest_protecting(id, Epoch::MAX)?;
        // Of damaged ones it is not known what they hold alone, nor what they have set aside.
        let mut damage = Vec::new();
        let before = or_damage(self.moments().kept_before(id, newest), &mut damage)?.flatten();
        let before = before.map_or(Epoch::ZERO, |snapshot| snapshot.epoch);
        let reserve = or_damage(self.moments().stored_snapshot(id, newest), &mut damage)?.flatten();
        let reserve = reserve.map_or(0, |snapshot| snapshot.record.reserve);
        let found = (newest, before, reserve);
        self.bases.change(id, |base| (base.newest, base.before_newest, base.newest_reserve) = found);
        Ok(())
    }

    /// A base that is there and is not being deleted; else ESTALE.
    pub(in crate::device) fn base(&self, id: BaseId) -> Result<&Base> {
        self.bases.get(&id).filter(|base| !base.record.deleting).ok_or(Error::Gone)
    }

    /// What is stored of a base; ESTALE if it is gone.
    pub fn base_record(&self, id: BaseId) -> Result<&BaseRecord> {
        self.base(id).map(|base| &base.record)
    }

    /// All bases that can be seen, in the order in which they were made.
    pub fn bases(&self) -> impl Iterator<Item = (BaseId, &BaseRecord)> {
        self.bases.iter().map(|(id, base)| (*id, &base.record)).filter(|(_, record)| !record.deleting)
    }

    /// The base of a name; of bytes that are no UTF-8 there is none.
    pub fn base_named(&self, name: impl AsRef<[u8]>) -> Option<BaseId> {
        self.bases().find(|(_, record)| record.name.as_bytes() == name.as_ref()).map(|(id, _)| id)
    }

    pub fn counts(&self, id: BaseId) -> Result<Counts> {
        self.base(id).map(|base| base.counts)
    }

    /// The only inodes in which a base, since it was settled, can differ from what it was before it was restored;
    /// `None` if that cannot be told.
    pub fn changed_inodes(&self, id: BaseId) -> Option<&BTreeSet<InodeNo>> {
        self.bases.get(&id).and_then(|base| base.changed_inodes.as_ref())
    }

    /// Bases that need a snapshot: it is the source of an era, it has what an era is to be cleared of, settling
    /// looks at it, or it holds a mirror together.
    pub fn dependants(&self, point: Point) -> Result<Vec<BaseId>> {
        let mut dependants = Vec::new();
        for (id, base) in self.bases.iter().filter(|(_, base)| !base.record.deleting) {
            if self.needs(*id, base)?.contains(&point) {
                dependants.push(*id);
            }
        }
        Ok(dependants)
    }

    /// The same of all snapshots that something depends on.
    pub fn all_dependants(&self) -> Result<BTreeMap<Point, Vec<BaseId>>> {
        self.dependants_by(|id, base| self.needs(id, base))
    }

    /// The same as it will be when all is settled that is being settled.
    pub fn all_dependants_when_settled(&self) -> Result<BTreeMap<Point, Vec<BaseId>>> {
        self.dependants_by(|id, base| self.needs_when_settled(id, base))
    }

    fn dependants_by(
        &self,
        needs: impl Fn(BaseId, &Base) -> Result<BTreeSet<Point>>,
    ) -> Result<BTreeMap<Point, Vec<BaseId>>> {
        let mut all: BTreeMap<Point, Vec<BaseId>> = BTreeMap::new();
        for (id, base) in self.bases.iter().filter(|(_, base)| !base.record.deleting) {
            for point in needs(*id, base)? {
                all.entry(point).or_default().push(*id);
            }
        }
        Ok(all)
    }

    /// The snapshots that a base could not be without.
    fn needs(&self, id: BaseId, base: &Base) -> Result<BTreeSet<Point>> {
        let eras = &base.record.eras;
        let mut points = needed(id, base, eras.iter());
        // Only what has eras is settled.
        if !eras.is_empty() {
            points.extend(self.noted_work().walked(id)?);
        }
        Ok(points)
    }

    fn needs_when_settled(&self, id: BaseId, base: &Base) -> Result<BTreeSet<Point>> {
        let mut eras = Vec::new();
        for era in &base.record.eras {
            if !self.meta.contains(Table::Orphan, &work_key(id, SETTLE, era.since.number().into()))? {
                eras.push(*era);
            }
        }
        Ok(needed(id, base, eras.iter()))
    }

    /// Whether the archive of its base, or what is being saved to it, needs a snapshot.
    pub fn is_archiving(&self, point: Point) -> bool {
        // A base that is being deleted has no archive any more.
        let archive = self.base_record(point.base).ok().and_then(|record| record.archive.as_ref());
        archive.is_some_and(|archive| archive.needs(point.epoch))
    }

    pub(in crate::device) fn put_base(&mut self, id: BaseId, record: BaseRecord) {
        self.shown.note_base(id, self.bases.get(&id).map(|before| &before.record), &record);
        self.meta.put(Table::Base, &id.prefix(), &record);
        match self.bases.contains_key(&id) {
            true => self.bases.change(id, |base| base.record = record),
            false => self.bases.insert(id, Base::new(record, Counts::default())),
        }
    }

    /// Whether the mount does not show a base.
    pub fn is_base_offline(&self, id: BaseId) -> bool {
        self.bases.get(&id).is_some_and(|base| base.is_offline)
    }

    /// What a base has set aside for itself.
    pub fn reserve_of(&self, id: BaseId) -> Option<BaseReserve> {
        self.bases.get(&id).and_then(|base| base.reserve)
    }

    pub(in crate::device) fn put_reserve(&mut self, id: BaseId, reserve: Option<BaseReserve>) {
        match &reserve {
            Some(reserve) => self.meta.put(Table::State, &reserve_key(id), reserve),
            None => self.meta.remove(Table::State, &reserve_key(id)),
        }
        self.bases.change(id, |base| base.reserve = reserve);
    }

    /// Notes that the protection of a snapshot of a base has ended: what was born before is of its increment.
    pub(in crate::device) fn note_ended(&mut self, id: BaseId, epoch: Epoch) {
        let Some(ended) = self.bases.get(&id).map(|base| base.ended.max(epoch)) else { return };
        self.bases.change(id, |base| base.ended = ended);
        self.meta.put(Table::State, &ended_key(id), &ended);
    }

    pub(in crate::device) fn forget_ended(&mut self, id: BaseId) {
        self.bases.change(id, |base| base.ended = Epoch::ZERO);
        self.meta.remove(Table::State, &ended_key(id));
    }

    /// Forgets a base of which no record is left.
    pub(in crate::device) fn forget_base(&mut self, id: BaseId) {
        self.meta.remove(Table::Base, &id.prefix());
        self.meta.remove(Table::State, &counts_key(id));
        self.meta.remove(Table::State, &ended_key(id));
        self.meta.remove(Table::State, &offline_key(id));
        self.bases.remove(id);
    }
}

/// The snapshots that eras of a base, and what it is a mirror of, need.
fn needed<'a>(id: BaseId, base: &Base, eras: impl Iterator<Item = &'a Era>) -> BTreeSet<Point> {
    let own = |epoch: Epoch| Point { base: id, epoch };
    let mut points: BTreeSet<Point> = eras.flat_map(|era| [era.source, own(era.since)]).collect();
    if let Some((mirror, same)) = base.record.mirror.and_then(|mirror| Some((mirror, mirror.same?))) {
        let (of, since) = same.epochs();
        points.extend([Point { base: mirror.of, epoch: of }, own(since)]);
    }
    points
}

const NEXT_BASE: &[u8] = b"next base";

impl Past {
    /// A number for a new base.
    fn next_base(&mut self) -> Result<BaseId> {
        let id: BaseId = self.meta.get(Table::State, NEXT_BASE)?.unwrap_or(LIVE.next());
        if id.number() >= BASES_MAX {
            return Err(Error::Refused(Errno::NOSPC, "this store has had all the bases it can count".into()));
        }
        self.meta.put(Table::State, NEXT_BASE, &id.next());
        Ok(id)
    }
}

impl Past {
    pub(in crate::device) fn add_base(&mut self, record: BaseRecord) -> Result<BaseId> {
        let id = self.next_base()?;
        self.put_base(id, record);
        Ok(id)
    }

    pub(in crate::device) fn show_base(&mut self, id: BaseId, is_shown: bool) {
        if let Some(record) = self.bases.get(&id).map(|base| &base.record) {
            self.shown.note_tree(id, vec![record.name.clone()], record);
        }
        match is_shown {
            true => self.meta.remove(Table::State, &offline_key(id)),
            false => self.meta.put(Table::State, &offline_key(id), &()),
        }
        self.bases.change(id, |base| base.is_offline = !is_shown);
    }
}

impl Past {
    /// Whether a base has any record of its own.
    pub fn has_own_records(&self, base: BaseId) -> Result<bool> {
        let prefix = base.prefix();
        for table in [Table::Inode, Table::Dirent, Table::Xattr, Table::Track, Table::Link, Table::Preimage] {
            if self.meta.range(table, &prefix, &prefix_end(&prefix))?.next().transpose()?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
