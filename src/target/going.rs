//! Moments that are let go, and objects that nothing needs any more.
//!
//! ```text
//! catalogue with what goes hidden ──▶ notes "ID.hidden" ──▶ catalogue without what nothing needs ──▶ objects removed, their notes last
//! ```
//!
//! What takes the place of others is written with such notes first, which go when the catalogue has it. Whatever interrupts this
//! leaves the old catalogue or the new one, and what is left over goes with the next. Notes never run ahead of the catalogue: where it
//! is lost as well, each moment is still in one of its sets.

use super::catalogue::{Catalogue, Listed};
use super::{Repository, sets_at};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::media::Shelf;
use crate::set::{Sets, object_name};
use std::collections::HashSet;

const HIDDEN: &str = ".hidden";

fn note_name(id: Id) -> String {
    format!("{id}{HIDDEN}")
}

/// The sets whose moments were let go, as notes beside them say.
pub(super) fn hidden_at(shelf: &dyn Shelf) -> Result<HashSet<Id>> {
    let all = shelf.list().map_err(|error| Error::media(format!("listing {}", shelf.describe()), error))?;
    Ok(all.into_iter().filter_map(|(name, _)| name.strip_suffix(HIDDEN)?.parse().ok()).collect())
}

impl Repository {
    /// Notes that a set is of no moment, or that it will not be before the catalogue has it.
    pub fn note_hidden(&self, id: Id) -> Result<()> {
        let (shelf, name) = (self.sets.shelf(), note_name(id));
        let noted = shelf.replace(&name, b"");
        noted.map_err(|error| Error::media(format!("writing {}/{name}", shelf.describe()), error))
    }

    /// Lets the moments of some sets go, and takes others into the catalogue in the same step; bytes that are free then. Whoever calls
    /// this has the target's lock.
    pub fn let_go(&mut self, going: &[Id], coming: Vec<Listed>) -> Result<u64> {
        let mut next = self.catalogue.clone();
        coming.into_iter().for_each(|listed| next.add(listed));
        next.hide(going);
        self.put(next)?;
        self.note_all(&hidden_at(&**self.sets.shelf())?)?;
        let mut next = self.catalogue.clone();
        next.drop_unneeded();
        self.put(next)?;
        self.sweep()
    }

    /// Sets of the catalogue whose objects are not there.
    pub fn gone(&self) -> Result<HashSet<Id>> {
        let there: HashSet<Id> = sets_at(&**self.sets.shelf())?.into_iter().map(|(id, _)| id).collect();
        let all = self.catalogue.sets().iter().flat_map(|listed| listed.needs.iter().chain([&listed.id]));
        Ok(all.filter(|id| !there.contains(*id)).copied().collect())
    }

    /// Puts another catalogue in the place of the one that is there, if it says something else.
    fn put(&mut self, mut next: Catalogue) -> Result<()> {
        if next != self.catalogue || self.has_taken_in {
            next.write(&self.sets, self.store)?;
            (self.catalogue, self.has_taken_in) = (next, false);
        }
        Ok(())
    }

    /// Lets the notes of all sets in the catalogue say what it says: first that moments are there, then that others are not, so that
    /// at no time a moment has all of its sets hidden.
    pub(super) fn note_all(&self, hidden: &HashSet<Id>) -> Result<()> {
        for listed in self.catalogue.sets().iter().filter(|listed| !listed.is_hidden && hidden.contains(&listed.id)) {
            self.remove(&note_name(listed.id))?;
        }
        let unnoted = self.catalogue.sets().iter().filter(|listed| listed.is_hidden && !hidden.contains(&listed.id));
        unnoted.map(|listed| listed.id).try_for_each(|id| self.note_hidden(id))
    }

    fn remove(&self, name: &str) -> Result<()> {
        let shelf = self.sets.shelf();
        shelf.remove(name).map_err(|error| Error::media(format!("removing {}/{name}", shelf.describe()), error))
    }

    /// Bytes that would be free.
    pub fn would_free(&self, going: &[Id]) -> u64 {
        let bytes = |catalogue: &Catalogue| catalogue.sets().iter().map(|listed| listed.bytes).sum::<u64>();
        let mut next = self.catalogue.clone();
        next.hide(going);
        next.drop_unneeded();
        bytes(&self.catalogue).saturating_sub(bytes(&next))
    }

    /// Removes unfinished objects, and sets that were let go and are not in the catalogue any more. One without a note that is not in
    /// it was written just before an interruption, and is taken in. Bytes that are free then.
    pub fn sweep(&mut self) -> Result<u64> {
        let sets = self.sets.clone();
        let shelf = &**sets.shelf();
        shelf.clear().map_err(|error| Error::media(format!("tidying {}", shelf.describe()), error))?;
        self.note_all(&hidden_at(shelf)?)?;
        let (hidden, there) = (hidden_at(shelf)?, sets_at(shelf)?);
        let mut next = self.catalogue.clone();
        let is_all_read = next.take_in(&sets, self.store)?;
        // What one needs that cannot be read is not known.
        if is_all_read {
            next.drop_unneeded();
        }
        self.put(next)?;
        // One that is needed and could not be read when the catalogue was made anew stays as well.
        let needed = self.catalogue.needed();
        let goes = |id: &Id| hidden.contains(id) && self.catalogue.find(*id).is_none() && !needed.contains_key(id);
        let mut freed = 0;
        for (id, bytes) in there.into_iter().filter(|(id, _)| goes(id)) {
            self.remove(&object_name(id))?;
            freed += bytes;
        }
        for id in hidden.iter().filter(|id| goes(id)) {
            self.remove(&note_name(*id))?;
        }
        sets.forget();
        Ok(freed)
    }
}

impl Catalogue {
    /// Takes in sets that it does not have and of which nothing says that they were let go: they were written just before an
    /// interruption, or came in a stream. Whether all could be read.
    pub(super) fn take_in(&mut self, sets: &Sets, store: Id) -> Result<bool> {
        let shelf = &**sets.shelf();
        let mut is_all_read = true;
        let there = sets_at(shelf)?;
        let mut unknown = there.iter().map(|(id, _)| *id).filter(|id| self.find(*id).is_none()).peekable();
        if unknown.peek().is_none() {
            return Ok(true);
        }
        let hidden = hidden_at(shelf)?;
        let mut found = Vec::new();
        for id in unknown.filter(|id| !hidden.contains(id)) {
            match sets.file(id) {
                Ok(file) if file.header().store == store => found.push(Listed::of(&file)),
                Ok(file) => log::warn!("the set {} stays as it is: it is of another store", file.id()),
                Err(error) => {
                    log::warn!("a set that the catalogue does not have stays as it is: {error}");
                    is_all_read = false;
                }
            }
        }
        found.into_iter().for_each(|listed| self.add(listed));
        Ok(is_all_read)
    }

    fn hide(&mut self, going: &[Id]) {
        let hides = |listed: &&mut Listed| going.contains(&listed.id);
        self.sets_mut().iter_mut().filter(hides).for_each(|listed| listed.is_hidden = true);
    }

    /// Leaves out sets that are there for nobody.
    pub(super) fn drop_unneeded(&mut self) {
        let needed = self.needed();
        self.sets_mut().retain(|listed| !listed.is_hidden || needed.contains_key(&listed.id));
    }
}
