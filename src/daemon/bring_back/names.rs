//! Bringing one name back: which inode of now gets it.

use super::apart::keep;
use super::remove::remove;
use super::{BringBack, Now, Place};
use crate::device::{InodeAt, InodeNo};
use crate::error::Result;
use crate::tree::{Inode, Kind};
use std::collections::HashSet;

/// Whether a name leads to an inode that has no other one.
fn is_only_name(now: Option<&(InodeNo, Inode)>, inode: InodeNo) -> bool {
    now.is_some_and(|(now, found)| *now == inode && found.links == 1)
}

impl BringBack<'_> {
    /// Lets a name lead to what it led to then. A directory gets its place and is returned, to be entered.
    pub(super) fn name(&mut self, place: &Place, then: InodeNo, kind: Kind) -> Result<Option<InodeNo>> {
        let now = self.lookup(place)?;
        if now.as_ref().is_some_and(|(now, _)| self.is_all_unchanged(then, *now)) {
            return Ok(None);
        }
        let found = now.as_ref().map(|(now, found)| (*now, found.kind()));
        let result = match kind {
            Kind::Directory => self.directory(place, then, now).map(Some),
            _ => self.file(place, then, now).and_then(|()| self.tell(0)).map(|()| None),
        };
        if let (Err(error), Some((now, found))) = (&result, found)
            && !self.concerns_all(error)
        {
            keep(self, place, now, found)?;
        }
        result
    }

    /// A directory that was moved is moved back; another one in its place becomes it.
    fn directory(&mut self, place: &Place, then: InodeNo, now: Now) -> Result<InodeNo> {
        if now.as_ref().is_some_and(|(now, _)| *now == then) && self.is_same(then)? {
            return Ok(then);
        }
        if let Some(from) = self.movable(then)? {
            self.move_back(then, &from, place, now)?;
            self.report.files += 1;
            return Ok(then);
        }
        match now {
            Some((now, found)) if found.is_directory() => {
                self.taken.insert(now);
                Ok(now)
            }
            now => self.make(place, then, now),
        }
    }

    /// Where a directory is now, if it may be moved from there to where it was.
    fn movable(&self, directory: InodeNo) -> Result<Option<Place>> {
        if self.taken.contains(&directory) || self.named(directory.live())?.is_none() || !self.is_same(directory)? {
            return Ok(None);
        }
        let from = self.paths(directory)?.pop();
        // Where it was then is where it is to be.
        let (Some(from), Some(to)) = (from, self.tree.names().paths(directory.at(self.then))?.pop()) else {
            return Ok(None);
        };
        let is_below = |path: &[u8], above: &[u8]| path.strip_prefix(above).is_some_and(|rest| rest.starts_with(b"/"));
        if !self.tops.contain(&from) || is_below(&from, &to) || is_below(&to, &from) {
            return Ok(None);
        }
        Ok(self.places(directory)?.pop())
    }

    /// Whether a file must not become what it was, since somebody may have it open: another one takes its place.
    fn is_anothers(&self, target: InodeNo, then: InodeNo, model: &Inode) -> Result<bool> {
        if model.kind() != Kind::File {
            return Ok(false);
        }
        let found = self.tree.inode(target.live())?;
        let has_capability = || self.tree.attributes().has_capability(then.at(self.then));
        Ok(found.must_not_become(model.uid, model.permissions(), has_capability)?
            && self.tree.likeness().unlikeness(target, self.model(then))?.content)
    }

    fn file(&mut self, place: &Place, then: InodeNo, now: Now) -> Result<()> {
        if let Some(&chosen) = self.chosen.get(&then) {
            self.report.files += u64::from(self.put(place, chosen, now.as_ref())?);
            return Ok(());
        }
        let model = self.tree.inode(then.at(self.then))?;
        let stand_in = match self.stand_in(then, &model, now.as_ref())? {
            Some(target) if self.is_anothers(target, then, &model)? => None,
            stand_in => stand_in,
        };
        let target = match stand_in {
            Some(target) => {
                if let (Some(changed), false) = (&mut self.apart.changed, is_only_name(now.as_ref(), target)) {
                    changed.insert(target);
                }
                let likened = self.liken(target, then)?;
                if self.put(place, target, now.as_ref())? || likened.any() {
                    self.report.files += 1;
                }
                if likened.content {
                    self.report.bytes += model.size;
                }
                target
            }
            None => self.make(place, then, now)?,
        };
        if model.links > 1 {
            self.chosen.insert(then, target);
        }
        Ok(())
    }

    /// The inode of now that can become what a name led to then, if there is one.
    fn stand_in(&mut self, then: InodeNo, model: &Inode, now: Option<&(InodeNo, Inode)>) -> Result<Option<InodeNo>> {
        let is_there = self.named(then.live())?.is_some() && self.is_same(then)?;
        if is_there && is_only_name(now, then) {
            return Ok(Some(then));
        }
        let is_in_the_way = now.is_some_and(|(_, found)| found.is_directory());
        if is_there && self.may_stand(then, is_in_the_way)? {
            return Ok(Some(then));
        }
        // What was brought back before under another number needs not be made again.
        if let Some((now, found)) = now
            && found.kind() == model.kind()
            && !self.taken.contains(now)
            && !self.was_then(*now)?
            && self.tree.likeness().is_like(*now, self.model(then))?
        {
            if found.links > 1 {
                self.taken.insert(*now);
            }
            return Ok(Some(*now));
        }
        Ok(None)
    }

    /// Whether a live inode can become what it was then, and have all names that it had and that are brought back.
    /// The answer is the same for each of these.
    fn may_stand(&self, inode: InodeNo, is_directory_in_the_way: bool) -> Result<bool> {
        let now = self.paths(inode)?;
        let then: HashSet<Vec<u8>> = self.tree.names().paths(inode.at(self.then))?.into_iter().collect();
        let is_inside = |path: &Vec<u8>| self.tops.contain(path);
        if now.iter().any(|path| is_inside(path) && then.contains(path)) {
            let is_closed = now.iter().all(|path| is_inside(path) || then.contains(path));
            return Ok(is_closed || self.tree.likeness().is_like(inode, self.model(inode))?);
        }
        // What lies below a directory that is in the way goes with it.
        Ok(!is_directory_in_the_way && now.iter().all(is_inside))
    }

    /// Lets a name lead to an inode, whatever it led to; whether it did not yet.
    pub(super) fn put(&mut self, place: &Place, inode: InodeNo, now: Option<&(InodeNo, Inode)>) -> Result<bool> {
        if now.is_some_and(|(now, _)| *now == inode) {
            return Ok(false);
        }
        if now.is_some_and(|(_, found)| found.is_directory()) {
            remove(self, place)?;
        }
        if self.rehearsal.is_some() {
            self.has_changed.set(true);
            now.iter().filter(|(_, found)| !found.is_directory()).for_each(|(now, _)| self.lose_name(*now));
            return Ok(true);
        }
        self.tree.likeness().place(inode, place.parent, &place.name)?;
        self.has_changed.set(true);
        Ok(true)
    }

    /// Makes a new inode as another one was then, and gives it a name.
    pub(super) fn make(&mut self, place: &Place, then: InodeNo, now: Now) -> Result<InodeNo> {
        if self.rehearsal.is_some() {
            return self.make_nothing(place, then, now);
        }
        let made = self.make_like(place, self.model(then), now)?;
        let found = self.tree.inode(made.live())?;
        self.report.files += 1;
        if found.kind() == Kind::File {
            self.report.bytes += found.size;
        }
        Ok(made)
    }

    /// Makes a new inode like another one, and gives it a name.
    pub(super) fn make_like(&mut self, place: &Place, model: InodeAt, now: Now) -> Result<InodeNo> {
        let tree = self.tree;
        let made = tree.likeness().make_nameless(model)?;
        // The kernel does not know it yet.
        let filled = tree.likeness().become_like(made, model, &mut |bytes| self.tell(bytes));
        let result = filled.and_then(|_| self.put(place, made, now.as_ref()));
        // Without a name, it goes.
        self.tree.made(made);
        result.map(|_| made)
    }
}
