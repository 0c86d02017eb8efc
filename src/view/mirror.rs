//! Mirrors: a second copy of a base, kept in step with it, or apart for a while.
//!
//! ```text
//! establish ──▶ in step ──split──▶ split ──resync──▶ in step
//!                 │  ▲                └──reverse: the base becomes what the mirror is──▶ in step
//!                 └──┘ sync
//! ```
//!
//! A mirror in step is not written to. `same` in its record names the snapshots in which both were the same: what
//! either has changed since is told by the increments from there, and nothing else is looked at.

use super::base::{check_base_free, check_base_name};
use super::naming::free_name;
use super::session::take;
use super::{Views, refused};
use crate::clock::Timestamp;
use crate::device::{BaseId, BaseRecord, Changing, Epoch, MirrorRecord, Point, Purpose, SnapOptions, Snapshot, Walk};
use crate::error::{Errno, Error, Result};

/// The snapshots that hold a mirror together, before and after a step.
const OPTIONS: SnapOptions = SnapOptions { offline: true, held: false, purpose: Purpose::Mirror, reserve: false };

fn mark(change: &mut Changing<'_>, base: BaseId, what: &str) -> Result<Snapshot> {
    let time = Timestamp::now();
    let name = free_name(change, &[base], &format!("{what}-{}", time.as_name()))?;
    take(change, &[base], Some(name), time, OPTIONS)?.pop().ok_or(Error::Posix(Errno::NOENT))
}

impl Views {
    /// Begins a mirror of this base: a clone of it as it is now that takes everything over.
    pub fn establish_mirror(&self, name: &[u8]) -> Result<BaseId> {
        let name = check_base_name(name)?;
        let mut id = self.base;
        self.change(|change| {
            check_base_free(change, name)?;
            let same = mark(change, self.base, &format!("mirror-{name}"))?;
            let mirror = MirrorRecord { of: self.base, same: Some((same.epoch, 0)), is_split: false };
            let record = BaseRecord { mirror: Some(mirror), ..BaseRecord::new(name, Timestamp::now()) };
            id = change.add_clone(record, same.point(), true)?;
            change.separate(id);
            Ok(format!("mirror establish {:?} {name:?}", record_name(change, self.base)))
        })?;
        Ok(id)
    }

    fn mirror_record(&self) -> Result<(BaseRecord, MirrorRecord)> {
        let look = self.tree.device().look()?;
        let record = look.base_record(self.base)?.clone();
        match record.mirror {
            Some(mirror) => Ok((record, mirror)),
            None => Err(refused(Errno::INVAL, format!("{:?} is no mirror", record.name))),
        }
    }

    fn check_split(&self, wanted: bool) -> Result<(BaseRecord, MirrorRecord)> {
        let (record, mirror) = self.mirror_record()?;
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
        if self.tree.device().look()?.is_settling(self.base)? {
            let text = format!("the mirror {:?} is still being settled; wait for its end", record.name);
            return Err(refused(Errno::BUSY, text));
        }
        Ok((record, mirror))
    }

    /// Brings a mirror that is in step up to what its base is now.
    pub fn sync_mirror(&self) -> Result<()> {
        let (record, mirror) = self.check_split(false)?;
        let old = mirror.same.map_or(0, |(of, _)| of);
        self.change(|change| {
            let new = mark(change, mirror.of, &format!("mirror-{}", record.name))?;
            let walks = vec![Walk::Changed { base: mirror.of, after: old, to: new.epoch }];
            self.show(change, new.point(), walks, MirrorRecord { same: Some((new.epoch, 0)), ..mirror })?;
            Ok(format!("mirror sync {:?}", record.name))
        })?;
        self.drop_marks(mirror.of, &[old], &[])
    }

    /// Lets a base become what another point is, and notes how it stands to its own base.
    fn show(&self, change: &mut Changing<'_>, source: Point, walks: Vec<Walk>, mirror: MirrorRecord) -> Result<()> {
        change.begin_restore(self.base, source, walks)?;
        let record = change.base_record(self.base)?.clone();
        change.update_base(self.base, BaseRecord { mirror: Some(mirror), ..record });
        change.separate(self.base);
        Ok(())
    }

    /// Lets a mirror be written to; its base goes on without it.
    pub fn split_mirror(&self) -> Result<()> {
        let (record, mirror) = self.mirror_record()?;
        if mirror.is_split {
            return Err(refused(Errno::INVAL, format!("the mirror {:?} is split already", record.name)));
        }
        let (record, mirror) = self.check_split(false)?;
        self.change(|change| {
            let own = mark(change, self.base, "split")?;
            let same = mirror.same.map(|(of, _)| (of, own.epoch));
            let record = BaseRecord { mirror: Some(MirrorRecord { same, is_split: true, ..mirror }), ..record.clone() };
            let what = format!("mirror split {:?}", record.name);
            change.update_base(self.base, record);
            Ok(what)
        })
    }

    /// Brings a split mirror back in step: what it changed is undone, what its base changed is taken over.
    pub fn resync_mirror(&self) -> Result<()> {
        let (record, mirror) = self.check_split(true)?;
        let (of, own) = mirror.same.unwrap_or((0, 0));
        let _files = self.tree.lock_all_files();
        self.change(|change| {
            let new = mark(change, mirror.of, &format!("mirror-{}", record.name))?;
            let before = mark(change, self.base, "before-resync")?;
            let walks = vec![
                Walk::Changed { base: mirror.of, after: of, to: new.epoch },
                Walk::Changed { base: self.base, after: own, to: before.epoch },
            ];
            let mirror = MirrorRecord { same: Some((new.epoch, 0)), is_split: false, ..mirror };
            self.show(change, new.point(), walks, mirror)?;
            Ok(format!("mirror resync {:?}", record.name))
        })?;
        drop(_files);
        self.drop_marks(mirror.of, &[of], &[own])
    }

    /// Lets the base become what its split mirror is; both are in step then.
    pub fn reverse_mirror(&self) -> Result<BaseId> {
        let (record, mirror) = self.check_split(true)?;
        let (of, own) = mirror.same.unwrap_or((0, 0));
        let base = self.of(mirror.of);
        let _files = self.tree.lock_all_files();
        self.change(|change| {
            let new = mark(change, self.base, "mirror")?;
            let time = Timestamp::now();
            let name = free_name(change, &[mirror.of], &format!("before-restore-{}", time.as_name()))?;
            let options = SnapOptions { purpose: Purpose::BeforeRestore, ..SnapOptions::default() };
            let before = take(change, &[mirror.of], Some(name), time, options)?.pop();
            let before = before.ok_or(Error::Posix(Errno::NOENT))?;
            let walks = vec![
                Walk::Changed { base: mirror.of, after: of, to: before.epoch },
                Walk::Changed { base: self.base, after: own, to: new.epoch },
            ];
            change.begin_restore(base.base, new.point(), walks)?;
            change.separate(base.base);
            let same = mark(change, mirror.of, &format!("mirror-{}", record.name))?;
            let mirror = MirrorRecord { same: Some((same.epoch, new.epoch)), is_split: false, ..mirror };
            change.update_base(self.base, BaseRecord { mirror: Some(mirror), ..record.clone() });
            Ok(format!("mirror restore {:?}", record.name))
        })?;
        drop(_files);
        self.drop_marks(mirror.of, &[of], &[own])?;
        Ok(mirror.of)
    }

    /// Lets a mirror be what its base was in a snapshot; it is split then.
    pub fn restore_mirror(&self, to: &Snapshot) -> Result<()> {
        let (record, mirror) = self.mirror_record()?;
        self.check_split(mirror.is_split)?;
        if to.base != mirror.of || to.is_archived {
            let text = format!("{:?} is no snapshot of what {:?} is a mirror of", to.record.name, record.name);
            return Err(refused(Errno::INVAL, text));
        }
        let (of, own) = mirror.same.unwrap_or((0, 0));
        let _files = self.tree.lock_all_files();
        self.change(|change| {
            let before = mark(change, self.base, "before-restore")?;
            let mut walks = vec![Walk::Changed { base: mirror.of, after: of.min(to.epoch), to: of.max(to.epoch) }];
            if own > 0 {
                walks.push(Walk::Changed { base: self.base, after: own, to: before.epoch });
            }
            self.show(change, to.point(), walks, MirrorRecord { is_split: true, ..mirror })?;
            let same = mark(change, self.base, "split")?;
            let record = change.base_record(self.base)?.clone();
            let mirror = MirrorRecord { same: Some((to.epoch, same.epoch)), is_split: true, ..mirror };
            change.update_base(self.base, BaseRecord { mirror: Some(mirror), ..record });
            Ok(format!("restore --to-mirror {:?} {:?}", record_name(change, self.base), to.record.name))
        })?;
        drop(_files);
        self.drop_marks(mirror.of, &[of], &[own])
    }

    /// Deletes marks that were taken for the mirror and that nothing needs any more.
    pub(super) fn drop_marks(&self, of: BaseId, bases: &[Epoch], own: &[Epoch]) -> Result<()> {
        let points = bases.iter().map(|epoch| Point { base: of, epoch: *epoch });
        for point in points.chain(own.iter().map(|epoch| Point { base: self.base, epoch: *epoch })) {
            self.tree.device().drop_mark(point)?;
        }
        self.tree.device().wake();
        Ok(())
    }
}

fn record_name(change: &Changing<'_>, base: BaseId) -> String {
    change.base_record(base).map_or(String::new(), |record| record.name.clone())
}

impl Views {
    /// Gives the tracks of this base places of their own, in the background.
    pub fn separate(&self) -> Result<()> {
        self.change(|change| {
            change.separate(self.base);
            Ok(format!("clone --copy: {:?} gets tracks of its own", record_name(change, self.base)))
        })?;
        self.tree.device().wake();
        Ok(())
    }
}
