//! Bases and clones: making, listing, renaming and deleting them.

use super::naming::check_free;
use super::{LIVE_NAME, Views, check_name, refused};
use crate::clock::Timestamp;
use crate::device::{BaseId, BaseRecord, LIVE, Point, Settle, Snapshot, State};
use crate::error::{Errno, Error, Result};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BaseKind {
    Base,
    /// Of a snapshot, as BASE:SNAPSHOT; without one, it was deleted.
    Clone(Option<String>),
    /// Of a base.
    Mirror(String),
}

/// What there is to be said of a base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseInfo {
    pub id: BaseId,
    pub name: String,
    pub time: Timestamp,
    pub kind: BaseKind,
    pub snapshots: u64,
    /// Bytes that its tracks take, shared or not.
    pub refers: u64,
    /// The snapshot without which it could not be.
    pub needs: Option<String>,
    /// Blocks settled, and of how many (0: unknown), while something is being settled.
    pub settling: Option<(u64, u64)>,
    pub is_split: bool,
}

/// Says that a base, or a snapshot of it, is not deleted because others depend on it, and what helps; `of_mirrors`
/// is what is to be said of mirrors.
pub(super) fn needed_by(
    state: &State,
    name: &str,
    of: BaseId,
    dependants: &[BaseId],
    of_mirrors: &str,
) -> Result<String> {
    let records: Vec<&BaseRecord> = dependants.iter().map(|base| state.base_record(*base)).collect::<Result<_>>()?;
    let names: Vec<&str> = records.iter().map(|record| record.name.as_str()).collect();
    let needed = format!("{name:?} is needed by {}", names.join(", "));
    // A split mirror needs a snapshot of its own, to know what it has changed.
    if dependants == [of] {
        return Ok(format!("{needed} itself; `pitfs mirror resync {}` releases it", names.join(" ")));
    }
    let has_mirror = records.iter().any(|record| record.mirror.is_some());
    let others = || records.iter().zip(dependants).filter(|(record, _)| record.mirror.is_none());
    let mut helps = vec!["delete them first"];
    if others().any(|(record, _)| record.clone_of.is_some()) {
        helps.push(match has_mirror {
            true => "make the clones independent with `pitfs promote`",
            false => "make them independent with `pitfs promote`",
        });
    }
    if others().any(|(record, _)| record.clone_of.is_none()) {
        helps.push("wait until `pitfs base list` shows as settled what is being made independent");
    }
    let of_mirrors = if has_mirror { of_mirrors } else { "" };
    Ok(format!("{needed}; {}, or add --recursive to delete them as well{of_mirrors}", helps.join(", ")))
}

/// Checks that a base could have this name.
pub(super) fn check_base_name(name: &[u8]) -> Result<&str> {
    let name = check_name(name)?;
    match name.contains(':') {
        true => Err(refused(Errno::INVAL, format!("{name:?} has a colon, which ends the name of a base"))),
        false => Ok(name),
    }
}

/// Checks that nothing that is shown with a base, or beside one, has the name that it is to have.
pub(super) fn check_base_free(state: &State, name: &str) -> Result<()> {
    state.bases().try_for_each(|(base, _)| check_free(state, base, name))
}

impl Views {
    /// The base of a name; `live` in a store with one base is that base.
    pub fn base_named(&self, name: &[u8]) -> Result<BaseId> {
        let name = String::from_utf8_lossy(name);
        self.tree.device().look()?.base_named(&name).ok_or_else(|| {
            refused(Errno::NOENT, format!("there is no base named {name:?}; `pitfs base list` shows those there are"))
        })
    }

    /// All bases, in the order in which they were made.
    pub fn bases(&self) -> Result<Vec<BaseInfo>> {
        let ids: Vec<BaseId> = self.tree.device().look()?.bases().map(|(id, _)| id).collect();
        let infos = ids.into_iter().map(|id| self.of(id).base_info());
        // It may have been deleted just now.
        infos.filter(|info| !matches!(info, Err(Error::Posix(Errno::STALE)))).collect()
    }

    pub fn base_info(&self) -> Result<BaseInfo> {
        let look = self.tree.device().look()?;
        let record = look.base_record(self.base)?;
        let name_of = |point: Point| -> Result<Option<String>> {
            let base = look.base_record(point.base).map_or("?", |record| &record.name);
            let snapshot = look.snapshot(point.base, point.epoch)?;
            Ok(snapshot.map(|snapshot| format!("{base}:{}", snapshot.record.name)))
        };
        let kind = match (record.mirror, record.clone_of) {
            (Some(mirror), _) => {
                BaseKind::Mirror(look.base_record(mirror.of).map_or("?".into(), |record| record.name.clone()))
            }
            (None, Some(point)) => BaseKind::Clone(name_of(point)?),
            (None, None) => BaseKind::Base,
        };
        let elsewhere = record.eras.iter().find(|era| era.source.base != self.base);
        Ok(BaseInfo {
            id: self.base,
            name: record.name.clone(),
            time: record.time,
            kind,
            snapshots: look.snapshots(self.base)?.len() as u64,
            refers: look.counts(self.base)?.refers * crate::limits::BLOCK_BYTES as u64,
            needs: elsewhere.map(|era| name_of(era.source)).transpose()?.flatten(),
            settling: look.settling(self.base)?.map(|Settle { done, total, .. }| (done, total)),
            is_split: record.mirror.is_some_and(|mirror| mirror.is_split),
        })
    }

    /// Makes a base with an empty tree, durably.
    pub fn create_base(&self, name: &[u8], uid: u32, gid: u32, mode: u32) -> Result<BaseId> {
        let name = check_base_name(name)?;
        let record = BaseRecord::new(name, Timestamp::now());
        let id = self.tree.create_base(record, uid, gid, mode, |state| check_base_free(state, name))?;
        self.of(id).change(|_| Ok(format!("base create {name:?}")))?;
        Ok(id)
    }

    pub fn rename_base(&self, base: BaseId, name: &[u8]) -> Result<()> {
        // The first base may get its first name back.
        let is_first = name == LIVE_NAME.as_bytes() && base == LIVE;
        let name = if is_first { LIVE_NAME } else { check_base_name(name)? };
        self.of(base).change(|change| {
            if !is_first {
                check_base_free(change, name)?;
            }
            let record = change.base_record(base)?.clone();
            let what = format!("base rename {:?} {name:?}", record.name);
            change.update_base(base, BaseRecord { name: name.to_string(), ..record });
            Ok(what)
        })
    }

    /// Makes a clone of a snapshot of this base, durably. Independent of it in time, if `is_full`.
    pub fn clone_snapshot(
        &self,
        snapshot: &Snapshot,
        name: &[u8],
        is_full: bool,
        is_shown_beside: bool,
    ) -> Result<BaseId> {
        let name = check_base_name(name)?;
        if snapshot.is_archived {
            let text = format!(
                "{:?} is in the archive: `pitfs restore {} --to DIR` copies it",
                snapshot.record.name, snapshot.record.name
            );
            return Err(refused(Errno::INVAL, text));
        }
        let clone_of = is_shown_beside.then(|| snapshot.point());
        let mut id = LIVE;
        self.change(|change| {
            check_base_free(change, name)?;
            let record = BaseRecord { clone_of, ..BaseRecord::new(name, Timestamp::now()) };
            id = change.add_clone(record, snapshot.point(), is_full)?;
            let of = &snapshot.record.name;
            Ok(match (is_shown_beside, is_full) {
                (true, true) => format!("clone --full {of:?} {name:?}"),
                (true, false) => format!("clone {of:?} {name:?}"),
                (false, _) => format!("base create {name:?} --from {of:?}"),
            })
        })?;
        if is_full {
            self.tree.device().wake();
        }
        Ok(id)
    }

    /// Makes a clone a base in its own right: it stands beside the others, and needs no snapshot when all is
    /// settled.
    pub fn promote(&self, base: BaseId) -> Result<()> {
        self.of(base).change(|change| {
            let mut record = change.base_record(base)?.clone();
            if record.clone_of.is_none() {
                return Err(refused(Errno::INVAL, format!("{:?} is no clone", record.name)));
            }
            record.clone_of = None;
            let name = record.name.clone();
            change.update_base(base, record);
            change.settle_clone(base)?;
            Ok(format!("promote {name:?}"))
        })?;
        self.tree.device().wake();
        Ok(())
    }

    /// Moves a clone that was not written to onto another snapshot.
    pub fn refresh(&self, base: BaseId, snapshot: &Snapshot) -> Result<()> {
        self.of(base).change(|change| {
            let record = change.base_record(base)?;
            let name = record.name.clone();
            let what = if record.clone_of.is_none() || record.eras.is_empty() {
                "it does not depend on a snapshot"
            } else if change.has_own_records(base)? {
                "it was written to"
            } else if !change.snapshots(base)?.is_empty() {
                "it has snapshots of its own"
            } else if change.is_settling(base)? {
                "it is being made independent"
            } else {
                change.move_clone(base, snapshot.point())?;
                return Ok(format!("clone --refresh {name:?} {:?}", snapshot.record.name));
            };
            Err(refused(Errno::BUSY, format!("{name:?} cannot be moved: {what}; delete it and clone anew")))
        })
    }

    /// What a base's snapshots are needed by.
    fn dependants_of(&self, base: BaseId) -> Result<Vec<BaseId>> {
        let look = self.tree.device().look()?;
        let needs = |record: &BaseRecord| {
            record.eras.iter().any(|era| era.source.base == base)
                || record.mirror.is_some_and(|mirror| mirror.of == base)
        };
        Ok(look.bases().filter(|(id, record)| *id != base && needs(record)).map(|(id, _)| id).collect())
    }

    /// Makes a base disappear with its snapshots, durably; with all that depends on it, if `is_recursive`.
    pub fn delete_base(&self, base: BaseId, is_recursive: bool) -> Result<()> {
        let name = self.tree.device().look()?.base_record(base)?.name.clone();
        if base == LIVE {
            let text = format!("{name:?} is the store's first base and cannot be deleted; delete the store instead");
            return Err(refused(Errno::PERM, text));
        }
        let held = self.of(base).snapshots()?.into_iter().find(|snapshot| snapshot.record.held);
        if let Some(held) = held {
            let text = format!("{:?} of {name:?} is held; `pitfs release` ends that", held.record.name);
            return Err(refused(Errno::BUSY, text));
        }
        let dependants = self.dependants_of(base)?;
        if !is_recursive && !dependants.is_empty() {
            let of_mirrors = "; a mirror needs its base as long as it is there, also when it is split";
            let look = self.tree.device().look()?;
            return Err(refused(Errno::BUSY, needed_by(&look, &name, base, &dependants, of_mirrors)?));
        }
        for dependant in dependants {
            self.delete_base(dependant, true)?;
        }
        let (mirror, mut marks) = {
            let look = self.tree.device().look()?;
            (look.base_record(base)?.mirror, look.walked(base)?)
        };
        self.tree.device().hide_base(base)?;
        marks.retain(|mark| mark.base != base);
        marks.extend(mirror.and_then(|mirror| Some(Point { base: mirror.of, epoch: mirror.same?.0 })));
        for mark in marks {
            self.tree.device().drop_mark(mark)?;
        }
        self.change(|_| Ok(format!("base delete {name:?}")))?;
        self.tree.device().wake();
        Ok(())
    }

    /// The trees shown beside this base: its clones, and theirs.
    pub fn beside(&self) -> Result<Vec<(BaseId, String)>> {
        let look = self.tree.device().look()?;
        let mut family = vec![self.base];
        let mut found = Vec::new();
        // A clone is made after what it is a clone of.
        for (id, record) in look.bases() {
            if record.clone_of.is_some_and(|point| family.contains(&point.base)) {
                family.push(id);
                found.push((id, record.name.clone()));
            }
        }
        Ok(found)
    }

    /// Bases that stand for themselves in a mount of the whole store.
    pub fn top_bases(&self) -> Result<Vec<(BaseId, String)>> {
        let look = self.tree.device().look()?;
        let is_shown = |point: Point| look.base_record(point.base).is_ok_and(|record| !record.deleting);
        let mut found = Vec::new();
        for (id, record) in look.bases() {
            if !record.clone_of.is_some_and(is_shown) {
                found.push((id, record.name.clone()));
            }
        }
        Ok(found)
    }

    /// A mirror that is in step with its base is not written to.
    pub fn check_writable(&self) -> Result<()> {
        let look = self.tree.device().look()?;
        match look.base_record(self.base)?.mirror {
            Some(mirror) if !mirror.is_split => Err(Error::Posix(Errno::ROFS)),
            _ => Ok(()),
        }
    }

    /// The name of this base, for messages and paths: `live` where it is the tree beside its snapshots.
    pub fn base_name(&self) -> Result<String> {
        Ok(self.tree.device().look()?.base_record(self.base)?.name.clone())
    }

    /// A view by name: `live`, a snapshot of this base, a base or clone, or BASE:SNAPSHOT.
    pub fn view(&self, name: &[u8]) -> Result<super::View> {
        if name != LIVE_NAME.as_bytes() && !name.starts_with(b"@") && self.find(name)?.is_none() {
            let text = String::from_utf8_lossy(name);
            let look = self.tree.device().look()?;
            if let Some(base) = look.base_named(&text) {
                return Ok(super::View::live(base));
            }
            if let Some((base, rest)) = text.split_once(':')
                && let Some(base) = look.base_named(base)
            {
                drop(look);
                return self.of(base).view(rest.as_bytes());
            }
        }
        Ok(super::View { base: self.base, moment: self.moment(name)? })
    }

    /// A snapshot by name, of this base or as BASE:SNAPSHOT.
    pub fn snapshot_of(&self, name: &[u8]) -> Result<Snapshot> {
        match self.view(name)? {
            super::View { base, moment: crate::device::Moment::At(epoch) } => {
                self.tree.device().look()?.snapshot(base, epoch)?.ok_or(Error::Posix(Errno::STALE))
            }
            _ => {
                let name = String::from_utf8_lossy(name);
                Err(refused(Errno::INVAL, format!("{name:?} is a tree as it is now; give one of its snapshots")))
            }
        }
    }
}
