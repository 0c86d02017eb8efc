//! Going back: a base shows an older state from one moment to the next.

use super::naming::free_name;
use super::session::take;
use super::{View, Views, refused};
use crate::clock::Timestamp;
use crate::device::{BaseId, Changing, Epoch, Moment, Point, Purpose, SnapOptions, Snapshot, Walk};
use crate::error::{Errno, Error, Result};
use crate::meta::Table;
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

const BRINGING_BACK: &[u8] = b"bringing back";

/// Takes the snapshot that undoes a restore.
fn take_before(change: &mut Changing<'_>, base: BaseId) -> Result<Snapshot> {
    let time = Timestamp::now();
    let name = free_name(change, &[base], &format!("before-restore-{}", time.as_name()))?;
    let options = SnapOptions { purpose: Purpose::BeforeRestore, ..SnapOptions::default() };
    take(change, &[base], Some(name), time, options)?.pop().ok_or(Error::Posix(Errno::NOENT))
}

impl Views {
    /// Lets this base be as it was in a snapshot, at once and durably. What was there before is kept as a
    /// snapshot; records are brought up to date in the background.
    pub fn restore(&self, to: &Snapshot) -> Result<Restored> {
        self.restore_as(to, |before| vec![Walk::Changed { base: self.base, after: to.epoch, to: before }])
    }

    /// Like [`Views::restore`], where what can differ is told by `walks`, given the epoch of the snapshot before.
    pub(super) fn restore_as(&self, to: &Snapshot, walks: impl FnOnce(Epoch) -> Vec<Walk>) -> Result<Restored> {
        if !to.is_readable() {
            let text = format!("{:?} was deactivated: what it showed is not kept any more", to.record.name);
            return Err(refused(Errno::INVAL, text));
        }
        let mut before = None;
        // What operations have read of files before they change them must still be so when they do.
        let _files = self.tree.lock_all_files();
        self.change(|change| {
            let taken = take_before(change, self.base)?;
            change.begin_restore(self.base, to.point(), walks(taken.epoch))?;
            let what = format!("restore {:?}; before it: {:?}", to.record.name, taken.record.name);
            before = Some(taken);
            Ok(what)
        })?;
        self.tree.device().wake();
        let before = before.ok_or(Error::Posix(Errno::NOENT))?;
        Ok(Restored { before, to: to.clone() })
    }

    /// Keeps this base as it is before paths of it are brought back, and notes that they are, durably. `what` is for
    /// the history.
    pub fn begin_bringing_back(&self, to: Point, paths: &[ByteBuf], what: &str) -> Result<Snapshot> {
        let mut before = None;
        self.change(|change| {
            let taken = take_before(change, self.base)?;
            let noted = BringingBack { to, before: taken.epoch, paths: paths.to_vec() };
            change.meta_mut().put(Table::State, BRINGING_BACK, &noted);
            before = Some(taken);
            Ok(what.to_string())
        })?;
        before.ok_or(Error::Posix(Errno::NOENT))
    }

    /// It is over, done or given up; durable with the next commit.
    pub fn end_bringing_back(&self) -> Result<()> {
        let mut txn = self.tree.device().begin()?;
        txn.meta_mut().remove(Table::State, BRINGING_BACK);
        txn.finish()
    }

    /// What was being brought back when the store was last open.
    pub fn unfinished_bringing_back(&self) -> Result<Option<BringingBack>> {
        self.tree.device().look()?.meta().get(Table::State, BRINGING_BACK)
    }

    /// The snapshot of the last `save`.
    pub fn last_save(&self) -> Result<Snapshot> {
        let saved = self.snapshots()?.into_iter().rev().find(|snapshot| snapshot.record.purpose == Purpose::Save);
        saved.ok_or_else(|| refused(Errno::NOENT, "nothing was saved yet; `pitfs save` does that".into()))
    }

    /// What was kept of the state before the last restore, so that it can be undone.
    pub fn last_before_restore(&self) -> Result<Option<Snapshot>> {
        Ok(self.snapshots()?.into_iter().rev().find(|snapshot| snapshot.record.purpose == Purpose::BeforeRestore))
    }

    /// The snapshot behind a view, if it is one.
    pub fn point_of(&self, view: View) -> Option<Point> {
        match view.moment {
            Moment::At(epoch) => Some(Point { base: view.base, epoch }),
            Moment::Live => None,
        }
    }
}
