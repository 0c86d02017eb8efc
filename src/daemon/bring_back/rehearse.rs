//! Bringing back without changing anything: the same walk, with what it would change counted.

use super::PathRestores;
use super::{BringBack, BringBackReport, Now, Place, Source, Tops, check_is_of};
use crate::daemon::OnProgress;
use crate::device::{BaseId, InodeAt, InodeNo, Snapshot};
use crate::error::Result;
use crate::tree::{Inode, Kind, Likened, RenameMode};
use crate::view::Views;
use parking_lot::MutexGuard;
use serde_bytes::ByteBuf;
use std::collections::{HashMap, HashSet};

impl PathRestores<'_> {
    /// What [`PathRestores::bring_back`] would come to, and the snapshot that it would take, if anything differs.
    pub fn rehearse(
        self,
        views: &Views,
        snapshot: &Snapshot,
        paths: &[ByteBuf],
        progress: OnProgress<'_>,
    ) -> Result<(BringBackReport, Option<Snapshot>)> {
        check_is_of(views, snapshot)?;
        let alone = self.daemon.alone_with_files()?;
        self.rehearse_of(views, alone, Source { snapshot, in_set: None }, paths, progress)
    }

    pub(super) fn rehearse_of(
        self,
        views: &Views,
        alone: MutexGuard<'_, ()>,
        source: Source<'_>,
        paths: &[ByteBuf],
        progress: OnProgress<'_>,
    ) -> Result<(BringBackReport, Option<Snapshot>)> {
        let views = views.rehearsing();
        let begun = self.begin(&views, alone, source, paths)?;
        let work = BringBack::new(&views, &begun.unseen, &begun.tops, source, progress);
        let (report, has_changed) = work.rehearse(&begun.before)?;
        Ok((report, Some(begun.before).filter(|_| has_changed)))
    }

    /// The same of a whole base, of which a restore was rehearsed.
    pub fn count_restored(
        self,
        views: &Views,
        (snapshot, before): (&Snapshot, &Snapshot),
        progress: OnProgress<'_>,
    ) -> Result<BringBackReport> {
        let views = views.of(snapshot.base).rehearsing();
        let tops = Tops::find(&views, snapshot, &[ByteBuf::new()])?;
        let unseen = self.daemon.unseen(snapshot.base)?;
        let source = Source { snapshot, in_set: None };
        BringBack::new(&views, &unseen, &tops, source, progress).rehearse(before).map(|(report, _)| report)
    }
}

/// What would be otherwise by then.
#[derive(Default)]
pub(super) struct Rehearsal {
    /// Directories that would have been moved, and what would be where they are now.
    moved: HashMap<InodeNo, Now>,
    /// How many of its names an inode would have lost; of a directory that would be gone, more than it has.
    lost: HashMap<InodeNo, u32>,
    /// Directories above paths that would have been made.
    made_above: HashSet<InodeNo>,
}

/// Stands for whatever would be made.
pub(super) const UNMADE: InodeNo = InodeNo::new(BaseId::new(u32::MAX), u64::MAX);

impl Rehearsal {
    /// What a name would lead to that leads to this now.
    pub fn after_moves(&self, found: (InodeNo, Inode)) -> Now {
        let mut found = Some(found);
        for _ in 0..self.moved.len() {
            match found.as_ref().and_then(|(inode, _)| self.moved.get(inode)) {
                Some(instead) => found.clone_from(instead),
                None => break,
            }
        }
        found
    }

    pub fn names_lost(&self, inode: InodeNo) -> u32 {
        self.lost.get(&inode).copied().unwrap_or(0)
    }

    /// Whether a directory above a path would not have been made yet.
    pub fn is_first_above(&mut self, then: InodeNo) -> bool {
        self.made_above.insert(then)
    }
}

impl BringBack<'_> {
    /// What it came to, and whether anything would be changed at all.
    fn rehearse(mut self, before: &Snapshot) -> Result<(BringBackReport, bool)> {
        self.find_changed(before)?;
        self.run()?;
        Ok((self.report, self.has_changed.get()))
    }

    /// Moves a directory to where it was; what is there goes to where it has been.
    pub(super) fn move_back(&mut self, directory: InodeNo, from: &Place, to: &Place, now: Now) -> Result<()> {
        if let Some(rehearsal) = &mut self.rehearsal {
            rehearsal.moved.insert(directory, now);
            self.has_changed.set(true);
            return Ok(());
        }
        let mode = if now.is_some() { RenameMode::Exchange } else { RenameMode::NoReplace };
        self.tree.names().rename(from.parent, &from.name, to.parent, &to.name, mode)?;
        self.has_changed.set(true);
        Ok(())
    }

    /// What would be made anew is counted; a directory is entered, and has nothing in it.
    pub(super) fn make_nothing(&mut self, place: &Place, then: InodeNo, now: Now) -> Result<InodeNo> {
        self.has_changed.set(true);
        self.put(place, UNMADE, now.as_ref())?;
        let model = self.tree.inode(then.at(self.then))?;
        self.report.files += 1;
        if model.kind() == Kind::File {
            self.report.bytes += model.size;
        }
        Ok(UNMADE)
    }

    pub(super) fn unlikeness(&mut self, now: InodeNo, model: InodeAt) -> Result<Likened> {
        // What would be made has everything at once.
        if now == UNMADE {
            return Ok(Likened::default());
        }
        self.tree.likeness().check_readable(now, model, &mut |_| Ok(()))?;
        let found = self.tree.likeness().unlikeness(now, model)?;
        if found.any() {
            self.has_changed.set(true);
        }
        Ok(found)
    }

    /// A name of an inode that is no directory would be gone, or lead to another one.
    pub(super) fn lose_name(&mut self, inode: InodeNo) {
        self.has_changed.set(true);
        if let Some(rehearsal) = &mut self.rehearsal {
            *rehearsal.lost.entry(inode).or_default() += 1;
        }
    }

    /// A directory would go, with all that would be in it.
    pub(super) fn count_removed(&mut self, directory: InodeNo) -> Result<()> {
        self.has_changed.set(true);
        self.report.removed += 1;
        let mut pending = vec![directory];
        while let Some(directory) = pending.pop() {
            let mut names = Vec::new();
            self.tree.names().list_with_inodes(directory.live(), 0, |entry, found| {
                names.push((entry.inode, found.clone()));
                Ok(true)
            })?;
            if let Some(rehearsal) = &mut self.rehearsal {
                rehearsal.lost.insert(directory, u32::MAX);
                names = names.into_iter().filter_map(|found| rehearsal.after_moves(found)).collect();
            }
            self.report.removed += names.len() as u64;
            for (inode, found) in names {
                match found.is_directory() {
                    true => pending.push(inode),
                    false => self.lose_name(inode),
                }
            }
            self.tell(0)?;
        }
        Ok(())
    }
}
