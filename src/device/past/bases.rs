//! The bases of an open store in memory, and how they were before the operation under way.

use super::base::{Base, BaseReserve, Counts};
use super::elsewhere::Elsewhere;
use super::number::{BaseId, InodeNo};
use crate::archive::Archive;
use crate::limits::CHANGED_INODES_MAX;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

/// They are changed through methods only, which note what was there before.
#[derive(Default)]
pub(in crate::device) struct Bases {
    known: BTreeMap<BaseId, Base>,
    /// What was before the changes of the operation under way, in their order.
    before: Vec<Before>,
}

enum Before {
    /// What each write can change: it is not to note more.
    Counts(BaseId, Counts, Option<BaseReserve>),
    /// An inode that was not among the changed ones of its base; settling notes many.
    NotChanged(InodeNo),
    /// Of a base that was not there, `None`.
    Whole(BaseId, Option<Box<Base>>),
}

impl Deref for Bases {
    type Target = BTreeMap<BaseId, Base>;

    fn deref(&self) -> &BTreeMap<BaseId, Base> {
        &self.known
    }
}

impl Bases {
    pub fn new(known: BTreeMap<BaseId, Base>) -> Bases {
        Bases { known, before: Vec::new() }
    }

    /// What was changed until now is not taken back any more.
    pub fn keep_changes(&mut self) {
        self.before.clear();
    }

    pub fn take_back(&mut self) {
        while let Some(before) = self.before.pop() {
            match before {
                Before::Counts(id, counts, reserve) => {
                    if let Some(base) = self.known.get_mut(&id) {
                        (base.counts, base.reserve) = (counts, reserve);
                    }
                }
                Before::NotChanged(inode) => {
                    let base = self.known.get_mut(&inode.base());
                    if let Some(changed) = base.and_then(|base| base.changed_inodes.as_mut()) {
                        changed.remove(&inode);
                    }
                }
                Before::Whole(id, Some(base)) => drop(self.known.insert(id, *base)),
                Before::Whole(id, None) => drop(self.known.remove(&id)),
            }
        }
    }

    /// The first note of an operation says what is to come back, whatever follows.
    fn note(&mut self, id: BaseId) {
        if !self.before.iter().any(|before| matches!(before, Before::Whole(known, _) if *known == id)) {
            self.before.push(Before::Whole(id, self.known.get(&id).cloned().map(Box::new)));
        }
    }

    pub fn insert(&mut self, id: BaseId, base: Base) {
        self.note(id);
        self.known.insert(id, base);
    }

    pub fn remove(&mut self, id: BaseId) {
        self.note(id);
        self.known.remove(&id);
    }

    /// Changes a base, if it is there.
    pub fn change(&mut self, id: BaseId, change: impl FnOnce(&mut Base)) {
        if self.known.contains_key(&id) {
            self.note(id);
            self.known.entry(id).and_modify(change);
        }
    }

    /// Changes what is counted of a base, if it is there.
    pub fn count(&mut self, id: BaseId, change: impl FnOnce(&mut Counts, &mut Option<BaseReserve>)) {
        if let Some(base) = self.known.get_mut(&id) {
            self.before.push(Before::Counts(id, base.counts, base.reserve));
            change(&mut base.counts, &mut base.reserve);
        }
    }

    /// An inode may differ from what it was before its base was restored.
    pub fn note_changed(&mut self, inode: InodeNo) {
        let base = self.known.get_mut(&inode.base());
        let Some(changed) = base.and_then(|base| base.changed_inodes.as_mut()) else { return };
        if changed.len() >= CHANGED_INODES_MAX && !changed.contains(&inode) {
            self.change(inode.base(), |base| base.changed_inodes = None);
        } else if changed.insert(inode) {
            self.before.push(Before::NotChanged(inode));
        }
    }

    /// The file that is open is of no operation.
    pub fn set_archive(&mut self, id: BaseId, archive: Option<Arc<Archive>>) {
        self.known.entry(id).and_modify(|base| base.archive = archive);
    }

    /// The same of sets.
    pub fn set_elsewhere(&mut self, id: BaseId, elsewhere: Arc<Elsewhere>) {
        self.known.entry(id).and_modify(|base| base.elsewhere = Some(elsewhere));
    }

    /// The same of a moment in a set that is looked into.
    pub fn set_visited(&mut self, id: BaseId, visited: Option<Arc<Elsewhere>>) {
        self.known.entry(id).and_modify(|base| base.visited = visited);
    }

    pub fn take_archives(&mut self) -> Vec<Arc<Archive>> {
        self.known.values_mut().filter_map(|base| base.archive.take()).collect()
    }
}
