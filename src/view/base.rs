//! Bases and clones: making, listing, renaming and deleting them.

use super::copies::Copying;
use super::filling::{check_filled, is_filling};
use super::naming::check_free;
use super::{LIVE_NAME, Views, check_name, refused};
use crate::clock::Timestamp;
use crate::device::{BaseId, BaseRecord, LIVE, Point, Settle, Snapshot, State};
use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::limits::BLOCK_BYTES;
use crate::shown::shown;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaseKind {
    Base,
    /// Of a snapshot, as BASE:SNAPSHOT; without one, it was deleted.
    Clone(Option<String>),
    /// Of a base.
    Mirror(String),
}

/// What there is to be said of a base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseInfo {
    /// Within the store.
    pub id: BaseId,
    /// No other base has it, in no copy of the store.
    pub unique_id: Id,
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
    /// How far it has come to tracks of its own, while they are being copied.
    pub copying: Option<Copying>,
    /// It is being filled from an archive, and nothing shows it before it is whole.
    pub is_filling: bool,
    /// The mount does not show it.
    pub is_offline: bool,
    /// Bytes of room that it has set aside for itself.
    pub reserve: u64,
}

/// How a clone is to be made.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneOptions {
    /// Independent of the snapshot in time.
    pub is_full: bool,
    /// That, with tracks of its own.
    pub copies: bool,
    /// Beside the base of the snapshot; otherwise it is a base in its own right.
    pub is_shown_beside: bool,
    pub is_offline: bool,
    /// Set room aside, so that all of it can be written anew.
    pub reserve: bool,
}

impl CloneOptions {
    /// The command that makes such a clone, for the history.
    pub(super) fn command(&self, of: &str, name: &str, group: Option<&str>) -> String {
        let mut what = match (self.is_shown_beside, group) {
            (true, Some(group)) => format!("clone --group {group:?}"),
            (true, None) => "clone".to_string(),
            (false, _) => "base create".to_string(),
        };
        let is_full = self.is_full && !self.copies && self.is_shown_beside;
        for (is_so, option) in [
            (is_full, " --full"),
            (self.copies, " --copy"),
            (self.is_offline, " --offline"),
            (self.reserve, " --reserve"),
        ] {
            what.push_str(if is_so { option } else { "" });
        }
        match self.is_shown_beside {
            true => format!("{what} {of:?} {name:?}"),
            false => format!("{what} {name:?} --from {of:?}"),
        }
    }
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

/// Bases and clones, and how far those that are being copied or filled are.
#[derive(Clone, Copy)]
pub struct Bases<'a> {
    pub(super) views: &'a Views,
}

impl Bases<'_> {
    /// The base of a name; `live` in a store with one base is that base. EBUSY while it is being filled.
    pub fn named(self, name: &[u8]) -> Result<BaseId> {
        let look = self.views.tree.device().look()?;
        let base = look.base_named(name).ok_or_else(|| {
            let name = shown(name);
            refused(Errno::NOENT, format!("there is no base named {name:?}; `pitfs base list` shows those there are"))
        })?;
        check_filled(&look, base)?;
        Ok(base)
    }

    /// All bases, in the order in which they were made.
    pub fn all(self) -> Result<Vec<BaseInfo>> {
        let ids: Vec<BaseId> = self.views.tree.device().look()?.bases().map(|(id, _)| id).collect();
        let info = |id| self.views.of(id).unless_gone(self.views.of(id).bases().info());
        ids.into_iter().filter_map(|id| info(id).transpose()).collect()
    }

    pub fn info(self) -> Result<BaseInfo> {
        let look = self.views.tree.device().look()?;
        let record = look.base_record(self.views.base)?;
        let name_of = |point: Point| -> Result<Option<String>> {
            let base = look.base_record(point.base).map_or("?", |record| &record.name);
            let snapshot = look.moments().snapshot(point.base, point.epoch)?;
            Ok(snapshot.map(|snapshot| format!("{base}:{}", snapshot.record.name)))
        };
        let kind = match (record.mirror, record.clone_of) {
            (Some(mirror), _) => {
                BaseKind::Mirror(look.base_record(mirror.of).map_or("?".into(), |record| record.name.clone()))
            }
            (None, Some(point)) => BaseKind::Clone(name_of(point)?),
            (None, None) => BaseKind::Base,
        };
        let elsewhere = record.eras.iter().find(|era| era.source.base != self.views.base);
        Ok(BaseInfo {
            id: self.views.base,
            unique_id: record.id,
            name: record.name.clone(),
            time: record.time,
            kind,
            snapshots: look.moments().snapshots(self.views.base)?.len() as u64,
            refers: look.counts(self.views.base)?.refers * BLOCK_BYTES as u64,
            needs: elsewhere.map(|era| name_of(era.source)).transpose()?.flatten(),
            settling: look.noted_work().settling(self.views.base)?.map(|Settle { done, total, .. }| (done, total)),
            is_split: record.mirror.is_some_and(|mirror| mirror.is_split),
            copying: look.copies().of(self.views.base)?.map(Copying::from),
            is_filling: is_filling(&look, self.views.base)?,
            is_offline: look.is_base_offline(self.views.base),
            reserve: look.reserve_of(self.views.base).map_or(0, |reserve| reserve.bytes),
        })
    }

    /// Makes a base with an empty tree, durably.
    pub fn create(self, name: &[u8], uid: u32, gid: u32, mode: u32) -> Result<BaseId> {
        let name = check_base_name(name)?;
        let record = BaseRecord::new(name, Timestamp::now());
        let id =
            self.views.tree.create_base(record, uid, gid, mode, |state| check_base_free(state, name), |_, _| ())?;
        self.views.of(id).change(|_| Ok(format!("base create {name:?}")))?;
        Ok(id)
    }

    pub fn rename(self, base: BaseId, name: &[u8]) -> Result<()> {
        // The first base may get its first name back.
        let is_first = name == LIVE_NAME.as_bytes() && base == LIVE;
        let name = if is_first { LIVE_NAME } else { check_base_name(name)? };
        self.views.of(base).change(|change| {
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
        self,
        snapshot: &Snapshot,
        name: &[u8],
        is_full: bool,
        is_shown_beside: bool,
    ) -> Result<BaseId> {
        let options = CloneOptions { is_full, is_shown_beside, ..CloneOptions::default() };
        let made = self.clone_all(&[(snapshot.clone(), name.to_vec())], options, None)?;
        made.first().copied().ok_or(Error::Posix(Errno::NOENT))
    }

    /// Makes clones of snapshots, each under its name, durably and in one step; of those of a group, if one is named.
    pub fn clone_all(
        self,
        of: &[(Snapshot, Vec<u8>)],
        options: CloneOptions,
        group: Option<&str>,
    ) -> Result<Vec<BaseId>> {
        let mut made = Vec::new();
        self.views.change(|change| {
            let mut what = Vec::new();
            let refers = of.iter().map(|(snapshot, _)| snapshot.record.refers).fold(0, u64::saturating_add);
            if options.copies {
                change.check_copyable(refers.saturating_mul(BLOCK_BYTES as u64))?;
            }
            for (snapshot, name) in of {
                let name = check_base_name(name)?;
                if snapshot.is_archived {
                    return Err(refused(Errno::INVAL, format!("{:?} is in the archive", snapshot.record.name)));
                }
                check_base_free(change, name)?;
                let clone_of = options.is_shown_beside.then(|| snapshot.point());
                let record = BaseRecord { clone_of, ..BaseRecord::new(name, Timestamp::now()) };
                let id = change.add_clone(record, snapshot.point(), options.is_full || options.copies)?;
                if options.copies {
                    change.separate(id, snapshot.record.refers * BLOCK_BYTES as u64)?;
                }
                if options.reserve {
                    change.reserve_for_base(id)?;
                }
                change.show_base(id, !options.is_offline);
                made.push(id);
                what.push(options.command(&snapshot.record.name, name, group));
            }
            Ok(what.join("; "))
        })?;
        if options.is_full || options.copies {
            self.views.tree.device().wake();
        }
        Ok(made)
    }

    /// Shows a base, clone or mirror in the mount, or does not.
    pub fn show(self, base: BaseId, is_shown: bool) -> Result<()> {
        let name = self.views.of(base).base_name()?;
        if base == LIVE {
            let text = format!("{name:?} is the store's first base, which a mount always shows");
            return Err(refused(Errno::PERM, text));
        }
        self.views.of(base).change(|change| {
            change.base_record(base)?;
            change.show_base(base, is_shown);
            Ok(format!("session {} {name:?}", if is_shown { "online" } else { "offline" }))
        })
    }

    /// Makes a clone a base in its own right: it stands beside the others, and needs no snapshot when all is
    /// settled.
    pub fn promote(self, base: BaseId) -> Result<()> {
        self.views.of(base).change(|change| {
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
        self.views.tree.device().wake();
        Ok(())
    }

    /// Moves a clone that was not written to onto another snapshot.
    pub fn refresh(self, base: BaseId, snapshot: &Snapshot) -> Result<()> {
        self.views.of(base).replace(&[base], |change| {
            let record = change.base_record(base)?;
            let name = record.name.clone();
            let what = if record.clone_of.is_none() || record.eras.is_empty() {
                "it does not depend on a snapshot"
            } else if change.has_own_records(base)? {
                "it was written to"
            } else if !change.moments().snapshots(base)?.is_empty() {
                "it has snapshots of its own"
            } else if change.noted_work().is_settling(base)? {
                "it is being made independent"
            } else {
                let before = record.clone_of;
                change.move_clone(base, snapshot.point())?;
                return Ok((format!("clone --refresh {name:?} {:?}", snapshot.record.name), vec![before]));
            };
            Err(refused(Errno::BUSY, format!("{name:?} cannot be moved: {what}; delete it and clone anew")))
        })
    }

    /// The trees shown beside this base: its clones, and theirs, but for those that are offline.
    pub fn beside(self) -> Result<Vec<(BaseId, String)>> {
        let look = self.views.tree.device().look()?;
        let mut family = vec![self.views.base];
        let mut found = Vec::new();
        // A clone is made after what it is a clone of.
        for (id, record) in look.bases() {
            if record.clone_of.is_some_and(|point| family.contains(&point.base)) {
                family.push(id);
                if !look.is_base_offline(id) {
                    found.push((id, record.name.clone()));
                }
            }
        }
        Ok(found)
    }

    /// Whether a name leads to a snapshot that is shown, or to a tree, in the directory of this base.
    pub fn is_shown(self, name: &[u8]) -> Result<bool> {
        if let Some(snapshot) = self.views.find(name)? {
            return Ok(snapshot.is_readable() && !snapshot.record.offline);
        }
        let is_named = |(_, known): &(BaseId, String)| known.as_bytes() == name;
        Ok(name == LIVE_NAME.as_bytes() || self.beside()?.iter().any(is_named) || self.top()?.iter().any(is_named))
    }

    /// Bases that stand for themselves in a mount of the whole store, and are shown.
    pub fn top(self) -> Result<Vec<(BaseId, String)>> {
        let mut tops = self.all_top()?;
        let look = self.views.tree.device().look()?;
        tops.retain(|(base, _)| !look.is_base_offline(*base));
        Ok(tops)
    }

    /// Bases that stand for themselves, shown or not.
    pub fn all_top(self) -> Result<Vec<(BaseId, String)>> {
        let look = self.views.tree.device().look()?;
        let is_shown = |point: Point| look.base_record(point.base).is_ok_and(|record| !record.deleting);
        let mut found = Vec::new();
        for (id, record) in look.bases() {
            if !record.clone_of.is_some_and(is_shown) {
                found.push((id, record.name.clone()));
            }
        }
        Ok(found)
    }
}
