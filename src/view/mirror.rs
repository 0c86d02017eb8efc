//! Mirrors: a second copy of a base, kept in step with it, or apart for a while.
//!
//! ```text
//! establish ──▶ in step ──split──▶ split ──resync──▶ in step
//!                 │  ▲                └──reverse: the base becomes what the mirror is──▶ in step
//!                 └──┘ sync
//! ```
//!
//! A mirror in step is not written to; splitting it syncs it in the same moment. `same` in its record names the snapshots in which both were the same: what
//! either has changed since is told by the increments from there, and nothing else is looked at.

use super::base::{check_base_free, check_base_name};
use super::naming::free_name;
use super::restore::take_before;
use super::snapshot::take;
use super::{Views, refused};
use crate::clock::{Epoch, Timestamp};
use crate::device::{
    BaseId, BaseRecord, Changing, Fetched, MirrorRecord, Moment, Point, Same, SnapOptions, Snapshot, Walk,
};
use crate::error::{Errno, Error, Result};
use crate::limits::BLOCK_BYTES;
use crate::purpose::Purpose;

/// The snapshots that hold a mirror together, before and after a step.
const OPTIONS: SnapOptions = SnapOptions { offline: true, held: false, purpose: Purpose::Mirror, reserve: false };

fn mark(change: &mut Changing<'_>, fetched: Fetched, base: BaseId, what: &str) -> Result<Snapshot> {
    let time = Timestamp::now();
    let name = free_name(change, &[base], &format!("{what}-{}", time.as_name()))?;
    take(change, fetched, &[base], Some(name), time, OPTIONS)?.pop().ok_or(Error::Posix(Errno::NOENT))
}

/// What a step of a mirror does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorStep {
    /// What shows another state from now on.
    pub base: BaseId,
    /// Bytes that are to be copied.
    pub bytes: u64,
    /// What was there before, if that is kept to be gone back to.
    pub before: Option<Snapshot>,
}

/// A base's mirror.
#[derive(Clone, Copy)]
pub struct Mirrors<'a> {
    pub(super) views: &'a Views,
}

impl Mirrors<'_> {
    /// Begins a mirror of this base: a clone of it as it is now that takes everything over.
    pub fn establish(self, name: &[u8], is_offline: bool) -> Result<MirrorStep> {
        let name = check_base_name(name)?;
        let mut step = MirrorStep { base: self.views.base, bytes: 0, before: None };
        let fetched = self.views.fetched()?;
        self.views.change(|change| {
            check_base_free(change, name)?;
            let same = mark(change, fetched, self.views.base, &format!("mirror-{name}"))?;
            let mirror = MirrorRecord {
                of: self.views.base,
                same: Some(Same { of: same.as_ref(), own: None }),
                is_split: false,
            };
            let record = BaseRecord { mirror: Some(mirror), ..BaseRecord::new(name, Timestamp::now()) };
            let bytes = same.record.refers * BLOCK_BYTES as u64;
            change.check_copyable(bytes)?;
            let id = change.add_clone(record, same.point(), true)?;
            change.separate(id, bytes)?;
            change.show_base(id, !is_offline);
            (step.base, step.bytes) = (id, bytes);
            let offline = if is_offline { "--offline " } else { "" };
            Ok(format!("mirror establish {offline}{:?} {name:?}", record_name(change, self.views.base)))
        })?;
        Ok(step)
    }

    /// The base that this is a mirror of.
    pub fn mirror(self) -> Result<BaseId> {
        Ok(self.record()?.1.of)
    }

    fn record(self) -> Result<(BaseRecord, MirrorRecord)> {
        let look = self.views.tree.device().look()?;
        let record = look.base_record(self.views.base)?.clone();
        match record.mirror {
            Some(mirror) => Ok((record, mirror)),
            None => Err(refused(Errno::INVAL, format!("{:?} is no mirror", record.name))),
        }
    }

    fn check_split(self, wanted: bool) -> Result<(BaseRecord, MirrorRecord)> {
        let (record, mirror) = self.record()?;
        if mirror.is_split != wanted {
            let name = &record.name;
            let text = match wanted {
                true => {
                    format!("the mirror {name:?} is in step with its base; `pitfs mirror split {name}` comes first")
                }
                false => {
                    format!("the mirror {name:?} is split from its base; `pitfs mirror resync {name}` comes first")
                }
            };
            return Err(refused(Errno::INVAL, text));
        }
        if self.views.tree.device().look()?.noted_work().is_settling(self.views.base)? {
            let text = format!("the mirror {:?} is still being settled; wait for its end", record.name);
            return Err(refused(Errno::BUSY, text));
        }
        Ok((record, mirror))
    }

    /// Brings a mirror that is in step up to what its base is now.
    pub fn sync(self) -> Result<MirrorStep> {
        let (record, mirror) = self.check_split(false)?;
        self.bring_up(&record, mirror, false)
    }

    /// Brings a mirror that is in step up to what its base is now, and splits it in the same moment, if `splits`.
    fn bring_up(self, record: &BaseRecord, mirror: MirrorRecord, splits: bool) -> Result<MirrorStep> {
        let old = mirror.same.map_or(Epoch::ZERO, |same| same.of.epoch);
        let before = mirror.same.map(|_| Point { base: mirror.of, epoch: old });
        let wanted = self.changed(mirror.of, old, mirror.of, Moment::Live)?;
        self.check_room(wanted)?;
        let fetched = self.views.fetched()?;
        self.views.replace(&[self.views.base], |change| {
            let new = mark(change, fetched, mirror.of, &format!("mirror-{}", record.name))?;
            let walks = vec![Walk::Changed { base: mirror.of, after: old, to: new.epoch }];
            self.show(
                change,
                new.point(),
                walks,
                MirrorRecord { same: Some(Same { of: new.as_ref(), own: None }), ..mirror },
                wanted,
            )?;
            if splits {
                self.mark_split(change, fetched, &new, mirror)?;
            }
            Ok((format!("mirror {} {:?}", if splits { "split" } else { "sync" }, record.name), vec![before]))
        })?;
        self.drop_marks(mirror.of, &[old], &[])?;
        Ok(MirrorStep { base: self.views.base, bytes: wanted, before: None })
    }

    /// Notes that a mirror goes its own way from where it is the same as a snapshot of its base.
    fn mark_split(
        self,
        change: &mut Changing<'_>,
        fetched: Fetched,
        of: &Snapshot,
        mirror: MirrorRecord,
    ) -> Result<()> {
        let own = mark(change, fetched, self.views.base, "split")?;
        let record = change.base_record(self.views.base)?.clone();
        let mirror =
            MirrorRecord { same: Some(Same { of: of.as_ref(), own: Some(own.as_ref()) }), is_split: true, ..mirror };
        change.update_base(self.views.base, BaseRecord { mirror: Some(mirror), ..record });
        Ok(())
    }

    /// Bytes of the tracks that a base has changed since a snapshot of it, as they are in a base at a moment.
    fn changed(self, base: BaseId, since: Epoch, of: BaseId, moment: Moment) -> Result<u64> {
        match since {
            Epoch::ZERO => Ok(0),
            since => self.views.tree.track_changes().changed_bytes(base, Moment::At(since), Moment::Live, (of, moment)),
        }
    }

    /// NOSPC in words where so many bytes would not fit.
    fn check_room(self, bytes: u64) -> Result<()> {
        let device = self.views.tree.device();
        device.capacity().check_copyable(&*device.look()?, bytes)
    }

    /// Lets a base become what another point is, and notes how it stands to its own base.
    fn show(
        self,
        change: &mut Changing<'_>,
        source: Point,
        walks: Vec<Walk>,
        mirror: MirrorRecord,
        wanted: u64,
    ) -> Result<()> {
        change.begin_restore(self.views.base, source, walks)?;
        let record = change.base_record(self.views.base)?.clone();
        change.update_base(self.views.base, BaseRecord { mirror: Some(mirror), ..record });
        change.separate(self.views.base, wanted)
    }

    /// Lets a mirror be written to, as its base is now, which goes on without it. A mirror that was never whole is not
    /// split.
    pub fn split(self) -> Result<MirrorStep> {
        let (record, mirror) = self.record()?;
        if mirror.is_split {
            return Err(refused(Errno::INVAL, format!("the mirror {:?} is split already", record.name)));
        }
        let (record, mirror) = self.check_split(false)?;
        self.views.bases().check_copied(self.views.base)?;
        self.bring_up(&record, mirror, true)
    }

    /// Brings a split mirror back in step: what it changed is undone, what its base changed is taken over.
    pub fn resync(self) -> Result<MirrorStep> {
        let (record, mirror) = self.check_split(true)?;
        let (of, own) = mirror.same.map_or((Epoch::ZERO, Epoch::ZERO), |same| same.epochs());
        let wanted = self.changed(mirror.of, of, mirror.of, Moment::Live)?
            + self.changed(self.views.base, own, mirror.of, Moment::Live)?;
        self.check_room(wanted)?;
        let fetched = self.views.fetched()?;
        self.views.replace(&[self.views.base], |change| {
            let new = mark(change, fetched, mirror.of, &format!("mirror-{}", record.name))?;
            let before = mark(change, fetched, self.views.base, "before-resync")?;
            let walks = vec![
                Walk::Changed { base: mirror.of, after: of, to: new.epoch },
                Walk::Changed { base: self.views.base, after: own, to: before.epoch },
            ];
            let mirror = MirrorRecord { same: Some(Same { of: new.as_ref(), own: None }), is_split: false, ..mirror };
            self.show(change, new.point(), walks, mirror, wanted)?;
            Ok((format!("mirror resync {:?}", record.name), vec![Some(before.point())]))
        })?;
        self.drop_marks(mirror.of, &[of], &[own])?;
        Ok(MirrorStep { base: self.views.base, bytes: wanted, before: None })
    }

    /// Lets the base become what its split mirror is; both are in step then.
    pub fn reverse(self) -> Result<MirrorStep> {
        let (record, mirror) = self.check_split(true)?;
        let (of, own) = mirror.same.map_or((Epoch::ZERO, Epoch::ZERO), |same| same.epochs());
        let wanted = self.changed(mirror.of, of, self.views.base, Moment::Live)?
            + self.changed(self.views.base, own, self.views.base, Moment::Live)?;
        self.check_room(wanted)?;
        let mut kept = None;
        let fetched = self.views.fetched()?;
        self.views.replace(&[mirror.of], |change| {
            let new = mark(change, fetched, self.views.base, "mirror")?;
            let before = take_before(change, fetched, &[mirror.of])?.pop().ok_or(Error::Posix(Errno::NOENT))?;
            let walks = vec![
                Walk::Changed { base: mirror.of, after: of, to: before.epoch },
                Walk::Changed { base: self.views.base, after: own, to: new.epoch },
            ];
            change.begin_restore(mirror.of, new.point(), walks)?;
            change.separate(mirror.of, wanted)?;
            let same = mark(change, fetched, mirror.of, &format!("mirror-{}", record.name))?;
            let mirror = MirrorRecord {
                same: Some(Same { of: same.as_ref(), own: Some(new.as_ref()) }),
                is_split: false,
                ..mirror
            };
            change.update_base(self.views.base, BaseRecord { mirror: Some(mirror), ..record.clone() });
            let point = before.point();
            kept = Some(before);
            Ok((format!("mirror restore {:?}", record.name), vec![Some(point)]))
        })?;
        self.drop_marks(mirror.of, &[of], &[own])?;
        Ok(MirrorStep { base: mirror.of, bytes: wanted, before: kept })
    }

    /// Lets a mirror be what its base was in a snapshot; it is split then.
    pub fn restore(self, to: &Snapshot) -> Result<MirrorStep> {
        let (record, mirror) = self.record()?;
        self.check_split(mirror.is_split)?;
        if to.base == mirror.of && to.is_archived {
            let name = &to.record.name;
            let text = format!(
                "{name:?} is in the archive, not in the store: a mirror becomes what the store has; `pitfs base create NAME --from {name}` copies it into a base of its own, `pitfs restore {name}` lets the mirror's base be it"
            );
            return Err(refused(Errno::INVAL, text));
        }
        if to.base != mirror.of {
            let text = format!("{:?} is no snapshot of what {:?} is a mirror of", to.record.name, record.name);
            return Err(refused(Errno::INVAL, text));
        }
        let (of, own) = mirror.same.map_or((Epoch::ZERO, Epoch::ZERO), |same| same.epochs());
        let then = Moment::At(to.epoch);
        let wanted =
            self.views.tree.track_changes().changed_bytes(mirror.of, Moment::At(of), then, (mirror.of, then))?
                + self.changed(self.views.base, own, mirror.of, then)?;
        self.check_room(wanted)?;
        let fetched = self.views.fetched()?;
        self.views.replace(&[self.views.base], |change| {
            let before = mark(change, fetched, self.views.base, "before-restore")?;
            let mut walks = vec![Walk::Changed { base: mirror.of, after: of.min(to.epoch), to: of.max(to.epoch) }];
            if own > Epoch::ZERO {
                walks.push(Walk::Changed { base: self.views.base, after: own, to: before.epoch });
            }
            self.show(change, to.point(), walks, MirrorRecord { is_split: true, ..mirror }, wanted)?;
            self.mark_split(change, fetched, to, mirror)?;
            let what = format!("restore --to-mirror {:?} {:?}", record_name(change, self.views.base), to.record.name);
            Ok((what, vec![Some(before.point())]))
        })?;
        self.drop_marks(mirror.of, &[of], &[own])?;
        Ok(MirrorStep { base: self.views.base, bytes: wanted, before: None })
    }

    /// Deletes marks that were taken for the mirror and that nothing needs any more.
    pub(super) fn drop_marks(self, of: BaseId, bases: &[Epoch], own: &[Epoch]) -> Result<()> {
        if self.views.is_rehearsing() {
            return Ok(());
        }
        let points = bases.iter().map(|epoch| Point { base: of, epoch: *epoch });
        for point in points.chain(own.iter().map(|epoch| Point { base: self.views.base, epoch: *epoch })) {
            self.views.tree.device().removal().drop_mark(point)?;
        }
        self.views.tree.device().wake();
        Ok(())
    }
}

fn record_name(change: &Changing<'_>, base: BaseId) -> String {
    change.base_record(base).map_or(String::new(), |record| record.name.clone())
}
