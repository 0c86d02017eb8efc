//! Bringing back without changing anything: the same walk, with what it would change counted.

use super::PathRestores;
use super::{BringBack, BringBackReport, IfMissing, Now, Place, Source, Tops};
use crate::daemon::OnProgress;
use crate::device::{BaseId, InodeAt, InodeNo, Snapshot};
use crate::error::Result;
use crate::tree::{Kind, Likened, RenameMode};
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
        self.carry_out(&views.rehearsing(), Source::in_store(snapshot), paths, progress)
    }

    pub(super) fn rehearse_alone(
        self,
        views: &Views,
        alone: MutexGuard<'_, ()>,
        source: Source<'_>,
        paths: &[ByteBuf],
        progress: OnProgress<'_>,
    ) -> Result<(BringBackReport, Option<Snapshot>)> {
        let begun = self.begin(views, alone, source, paths)?;
        let work = BringBack::new((views, &begun.unseen), &begun.tops, (source, &begun.before), progress);
        let (report, has_changed) = work.rehearse()?;
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
        let tops = Tops::find(&views, snapshot, &[ByteBuf::new()], IfMissing::IsRefused)?;
        let unseen = self.daemon.unseen(snapshot.base)?;
        let source = Source::in_store(snapshot);
        BringBack::new((&views, &unseen), &tops, (source, before), progress).rehearse().map(|(report, _)| report)
    }
}

/// What would be otherwise by then.
#[derive(Default)]
pub(super) struct Rehearsal {
    /// What names would lead to that something would have been moved from or to.
    moved: HashMap<Place, Now>,
    /// Names that something that would have been moved would have got.
    got: HashMap<InodeNo, Vec<Place>>,
    /// How many of its names an inode would have lost; of a directory that would be gone, more than it has.
    lost: HashMap<InodeNo, u32>,
    /// Directories above paths that would have been made.
    made_above: HashSet<InodeNo>,
}

/// Stands for whatever would be made.
pub(super) const UNMADE: InodeNo = InodeNo::new(BaseId::new(u32::MAX), u64::MAX);

impl Rehearsal {
    /// What a name would lead to that something would have been moved from or to.
    pub fn after_moves(&self, place: &Place) -> Option<Now> {
        self.moved.get(place).cloned()
    }

    fn change_name(&mut self, place: &Place, now: Now) {
        if let Some((inode, _)) = &now {
            self.got.entry(*inode).or_default().push(place.clone());
        }
        // Whatever would be made is told apart by nothing, and has nothing in it.
        if place.parent != UNMADE {
            self.moved.insert(place.clone(), now);
        }
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
    fn rehearse(mut self) -> Result<(BringBackReport, bool)> {
        self.find_changed()?;
        self.run()?;
        Ok((self.report, self.has_changed.get()))
    }

    /// Moves a directory to where it was; what is there goes to where it has been.
    pub(super) fn move_back(&mut self, directory: InodeNo, from: &Place, to: &Place, now: Now) -> Result<()> {
        if let Some(rehearsal) = &mut self.rehearsal {
            let moved = self.tree.inode(directory.live())?;
            rehearsal.change_name(from, now);
            rehearsal.change_name(to, Some((directory, moved)));
            self.has_changed.set(true);
            return Ok(());
        }
        let mode = if now.is_some() { RenameMode::Exchange } else { RenameMode::NoReplace };
        self.tree.names().rename(from.parent, &from.name, to.parent, &to.name, mode)?;
        self.has_changed.set(true);
        Ok(())
    }

    /// The names that lead to an inode.
    pub(super) fn places(&self, inode: InodeNo) -> Result<Vec<Place>> {
        let names = self.tree.names().of(inode.live())?.into_iter();
        let mut places: Vec<Place> = names.map(|(parent, name)| Place { parent, name }).collect();
        if let Some(rehearsal) = &self.rehearsal {
            places.extend(rehearsal.got.get(&inode).into_iter().flatten().cloned());
            let leads = |now: &Now| now.as_ref().is_some_and(|(now, _)| *now == inode);
            places.retain(|place| rehearsal.moved.get(place).is_none_or(leads));
        }
        Ok(places)
    }

    /// The paths that lead to an inode.
    pub(super) fn paths(&self, inode: InodeNo) -> Result<Vec<Vec<u8>>> {
        if self.rehearsal.as_ref().is_none_or(|rehearsal| rehearsal.moved.is_empty()) {
            return self.tree.names().paths(inode.live());
        }
        let places = self.places(inode)?.into_iter();
        let paths = places.map(|place| self.path(inode, place)).filter_map(Result::transpose);
        paths.collect()
    }

    /// The path of a name of an inode, if the root is above it.
    fn path(&self, inode: InodeNo, mut place: Place) -> Result<Option<Vec<u8>>> {
        let (mut below, mut names, mut known) = (inode, Vec::new(), HashSet::new());
        while place.parent != UNMADE {
            names.push(place.name);
            below = place.parent;
            place = match self.places(below)?.pop() {
                _ if below == self.root => break,
                Some(above) if known.insert(below) => above,
                _ => return Ok(None),
            };
        }
        if place.parent == UNMADE {
            // What is moved there is where it was then.
            names.extend(self.tree.names().paths(below.at(self.then))?.pop());
        }
        names.reverse();
        Ok(Some(names.join(&b'/')))
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
                let place = Place { parent: directory, name: entry.name.clone() };
                names.push((place, (entry.inode, found.clone())));
                Ok(true)
            })?;
            let mut found = Vec::new();
            if let Some(rehearsal) = &mut self.rehearsal {
                rehearsal.lost.insert(directory, u32::MAX);
                let after = |(place, now)| rehearsal.after_moves(&place).unwrap_or(Some(now));
                found.extend(names.into_iter().filter_map(after));
            }
            let names = found;
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
