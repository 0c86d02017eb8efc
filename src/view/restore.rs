//! Going back: a base shows an older state from one moment to the next.

use super::naming::free_name;
use super::room::may_be_dropped;
use super::snapshot::take;
use super::{Views, not_kept, refused};
use crate::clock::{Epoch, Timestamp};
use crate::device::{BaseId, Changing, Fetched, Point, SnapOptions, Snapshot, Walk};
use crate::error::{Errno, Error, Result};
use crate::meta::{Table, decode};
use crate::purpose::Purpose;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Keeps what was there before: restoring it undoes the restore.
    pub before: Snapshot,
    pub to: Snapshot,
}

/// Paths that are being brought back. It is in the store as long as the work lasts: what a crash ends is completed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BringingBack {
    pub to: Point,
    /// The snapshot of what was there before.
    pub before: Epoch,
    pub paths: Vec<ByteBuf>,
}

/// How the last restore of a base is undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    /// The snapshot of what was there before.
    pub before: Epoch,
    /// What was restored; nothing where that was everything.
    pub paths: Vec<ByteBuf>,
}

const UNDO: &[u8] = b"undo ";

fn undo_key(base: BaseId) -> Vec<u8> {
    [UNDO, &base.number().to_be_bytes()].concat()
}

/// What a record says of it, if it is one of those.
pub(super) fn check_record(key: &[u8], value: &[u8]) -> Result<()> {
    match key.starts_with(UNDO) {
        true => decode::<Undo>(Table::State, key, value).map(drop),
        false => Ok(()),
    }
}

pub(super) const BRINGING_BACK: &[u8] = b"bringing back";
pub(super) const BEFORE_RESTORES: &[u8] = b"before restores";

/// Takes the snapshots that undo a restore, of one moment.
pub(super) fn take_before(change: &mut Changing<'_>, fetched: Fetched, bases: &[BaseId]) -> Result<Vec<Snapshot>> {
    let time = Timestamp::now();
    let name = free_name(change, bases, &format!("before-restore-{}", time.as_name()))?;
    let options = SnapOptions { purpose: Purpose::BeforeRestore, ..SnapOptions::default() };
    take(change, fetched, bases, Some(name), time, options)
}

/// Bases that become what they were, and what is kept of what they were before.
#[derive(Clone, Copy)]
pub struct Restores<'a> {
    pub(super) views: &'a Views,
}

impl Restores<'_> {
    /// Lets this base be as it was in a snapshot, at once and durably. What was there before is kept as a
    /// snapshot; records are brought up to date in the background.
    pub fn restore(self, to: &Snapshot) -> Result<Restored> {
        self.restore_all(std::slice::from_ref(to), None)?.pop().ok_or(Error::Posix(Errno::NOENT))
    }

    /// Lets bases be as they were in snapshots of theirs, all of them in one step; those of a group, if one is named.
    pub fn restore_all(self, to: &[Snapshot], group: Option<&str>) -> Result<Vec<Restored>> {
        for snapshot in to {
            if !snapshot.is_readable() {
                return Err(not_kept(snapshot));
            }
            if snapshot.is_archived {
                let text = format!("{:?} is in the archive: it is gone back to base by base", snapshot.record.name);
                return Err(refused(Errno::INVAL, text));
            }
        }
        let bases: Vec<BaseId> = to.iter().map(|snapshot| snapshot.base).collect();
        let fetched = self.views.fetched()?;
        let mut before = Vec::new();
        self.views.replace(&bases, |change| {
            before = take_before(change, fetched, &bases)?;
            for (to, taken) in to.iter().zip(&before) {
                let walk = Walk::Changed { base: to.base, after: to.epoch, to: taken.epoch };
                change.begin_restore(to.base, to.point(), vec![walk])?;
                let undo = Undo { before: taken.epoch, paths: Vec::new() };
                change.meta_mut().put(Table::State, &undo_key(to.base), &undo);
            }
            let name = to.first().map_or("", |to| &to.record.name);
            let of = group.map_or(String::new(), |group| format!("--group {group:?} "));
            let taken = before.first().map_or("", |taken| &taken.record.name);
            let what = format!("restore {of}{name:?}; before it: {taken:?}");
            Ok((what, before.iter().map(|taken| Some(taken.point())).collect()))
        })?;
        self.views.tree.device().wake();
        Ok(before.into_iter().zip(to).map(|(before, to)| Restored { before, to: to.clone() }).collect())
    }

    /// Keeps this base as it is before paths of it are brought back, and notes that they are, durably. `what` is for
    /// the history.
    pub fn begin_bringing_back(self, to: Point, paths: &[ByteBuf], what: &str) -> Result<Snapshot> {
        let fetched = self.views.fetched()?;
        let mut before = None;
        self.views.change(|change| {
            let taken = take_before(change, fetched, &[self.views.base])?.pop().ok_or(Error::Posix(Errno::NOENT))?;
            let noted = BringingBack { to, before: taken.epoch, paths: paths.to_vec() };
            change.meta_mut().put(Table::State, BRINGING_BACK, &noted);
            before = Some(taken);
            Ok(what.to_string())
        })?;
        before.ok_or(Error::Posix(Errno::NOENT))
    }

    /// It is over, done or given up; durable with the next commit. What it changed in this base is undone like that.
    pub fn end_bringing_back(self, undo: Option<Undo>) -> Result<()> {
        let mut txn = self.views.tree.device().begin()?;
        txn.meta_mut().remove(Table::State, BRINGING_BACK);
        if let Some(undo) = undo {
            txn.meta_mut().put(Table::State, &undo_key(self.views.base), &undo);
        }
        txn.finish()
    }

    /// The snapshot with which the last restore of this base is undone, and the paths that it was of.
    pub fn last_undo(self) -> Result<(Snapshot, Vec<ByteBuf>)> {
        let look = self.views.tree.device().look()?;
        let undo: Option<Undo> = look.meta().get(Table::State, &undo_key(self.views.base))?;
        let nothing = || refused(Errno::NOENT, "nothing was restored yet that could be undone".into());
        let Undo { before, paths } = undo.ok_or_else(nothing)?;
        let gone = || {
            let text = "what was there before the last restore is not kept any more: its snapshot was deleted";
            refused(Errno::NOENT, text.into())
        };
        // An epoch is given once.
        let kept = look.moments().snapshot(self.views.base, before)?.filter(Snapshot::is_readable);
        Ok((kept.ok_or_else(gone)?, paths))
    }

    /// What was being brought back when the store was last open.
    pub fn unfinished_bringing_back(self) -> Result<Option<BringingBack>> {
        self.views.tree.device().look()?.meta().get(Table::State, BRINGING_BACK)
    }

    /// What was kept of the state before the last restore, so that it can be undone.
    pub fn last_before(self) -> Result<Option<Snapshot>> {
        Ok(self
            .views
            .snapshots()
            .all()?
            .into_iter()
            .rev()
            .find(|snapshot| snapshot.record.purpose == Purpose::BeforeRestore))
    }

    /// How many snapshots of what was there before restores each base keeps; `None`: all.
    pub fn before_kept(self) -> Result<Option<u64>> {
        self.views.tree.device().look()?.meta().get(Table::State, BEFORE_RESTORES)
    }

    pub fn keep_before(self, most: Option<u64>) -> Result<()> {
        self.views.change(|change| {
            match most {
                Some(most) => change.meta_mut().put(Table::State, BEFORE_RESTORES, &most),
                None => change.meta_mut().remove(Table::State, BEFORE_RESTORES),
            }
            Ok(format!("policy --before-restore {}", most.map_or("all".into(), |most| most.to_string())))
        })
    }

    /// Snapshots of what was there before restores that are too many, oldest first, if `more` were there besides; none
    /// that is held, has room set aside or that something depends on.
    pub fn too_many_before(self, more: usize) -> Result<Vec<Snapshot>> {
        let Some(most) = self.before_kept()? else { return Ok(Vec::new()) };
        let look = self.views.tree.device().look()?;
        let mut all = look.moments().snapshots(self.views.base)?;
        all.retain(|snapshot| snapshot.record.purpose == Purpose::BeforeRestore);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        all.truncate((all.len() + more).saturating_sub(most));
        let needed = look.all_dependants()?;
        all.retain(|snapshot| may_be_dropped(&look, &needed, snapshot));
        Ok(all)
    }

    /// Lets the snapshot go that was taken before a restore that then changed nothing; false if something needs it.
    pub fn forget_before(self, before: &Snapshot) -> Result<bool> {
        match self.views.tree.device().removal().hide_snapshots(&[before.point()]) {
            Ok(()) => {
                self.views.tree.device().wake();
                Ok(true)
            }
            Err(error) if error.errno() == Errno::BUSY => Ok(false),
            Err(error) => Err(error),
        }
    }
}
