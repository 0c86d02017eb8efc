//! What a change lets come into view, or go: noted where records of snapshots and bases change, so that no operation can
//! forget to say it.

use super::base::BaseRecord;
use super::number::BaseId;
use super::snapshot::{Snapshot, SnapshotRecord, SnapshotState};

/// Something that stands in no tree of files came, went or has another name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A snapshot came into view under a name, or went.
    Snapshot { base: BaseId, name: String },
    /// A snapshot that is in view has another name.
    Renamed { base: BaseId, old: String, new: String },
    /// A whole tree came, went, has another name or stands elsewhere, and others with it: the names that it had and has, and what
    /// it is a clone of.
    Tree { id: BaseId, names: Vec<String>, of: Option<BaseId> },
}

impl Snapshot {
    /// Whether it is in view, unless its whole base is not.
    pub fn is_shown(&self) -> bool {
        self.record.is_shown()
    }
}

impl SnapshotRecord {
    fn is_shown(&self) -> bool {
        !self.deleting && !self.offline && !matches!(self.state, SnapshotState::Ended(_))
    }
}

/// What the operation under way lets come into view, or go.
#[derive(Default)]
pub(in crate::device) struct Appearances(Vec<Shown>);

impl Appearances {
    /// A snapshot's record is about to be put, in the place of one, if that can be read: otherwise it was not in view.
    pub(super) fn note_snapshot(&mut self, before: Option<SnapshotRecord>, after: &Snapshot) {
        let before = before.filter(SnapshotRecord::is_shown);
        let (base, new) = (after.base, after.record.name.clone());
        match (before, after.record.is_shown()) {
            (Some(before), true) if before.name != new => {
                self.0.push(Shown::Renamed { base, old: before.name, new });
            }
            (Some(before), false) => self.0.push(Shown::Snapshot { base, name: before.name }),
            (None, true) => self.0.push(Shown::Snapshot { base, name: new }),
            (Some(_), true) | (None, false) => {}
        }
    }

    /// The same of a base.
    pub(super) fn note_base(&mut self, id: BaseId, before: Option<&BaseRecord>, after: &BaseRecord) {
        let place = |record: &BaseRecord| (record.name.clone(), record.clone_of, record.deleting);
        if before.is_none_or(|before| place(before) != place(after)) {
            let mut names: Vec<String> = before.map(|before| before.name.clone()).into_iter().collect();
            names.extend((names.first() != Some(&after.name)).then(|| after.name.clone()));
            self.note_tree(id, names, after);
        }
    }

    /// The same of one whose record stays.
    pub(super) fn note_tree(&mut self, id: BaseId, names: Vec<String>, record: &BaseRecord) {
        self.0.push(Shown::Tree { id, names, of: record.clone_of.map(|point| point.base) });
    }

    pub(in crate::device) fn take(&mut self) -> impl Iterator<Item = Shown> {
        self.0.drain(..)
    }

    pub(in crate::device) fn clear(&mut self) {
        self.0.clear();
    }
}
