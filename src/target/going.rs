//! Moments that are let go, and objects that nothing needs any more.
//!
//! ```text
//! note "ID.hidden" ──▶ catalogue without what nothing needs, the rest hidden ──▶ objects removed, their notes last
//! ```
//!
//! What takes the place of others is written with such notes first, which go when the catalogue has it. Whatever interrupts this leaves the old catalogue or the new one, and what is left over goes with the next.

use super::catalogue::{Catalogue, Listed};
use super::{Repository, sets_at};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::media::Shelf;
use crate::set::object_name;
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
        let sets = self.sets.clone();
        going.iter().try_for_each(|id| self.note_hidden(*id))?;
        let mut next = self.catalogue.clone();
        coming.into_iter().for_each(|listed| next.add(listed));
        next.hide(going);
        next.drop_unneeded();
        next.write(&sets, self.store)?;
        self.catalogue = next;
        self.sweep()
    }

    /// Sets of the catalogue whose objects are not there.
    pub fn gone(&self) -> Result<HashSet<Id>> {
        let there: HashSet<Id> = sets_at(&**self.sets.shelf())?.into_iter().map(|(id, _)| id).collect();
        let all = self.catalogue.sets().iter().flat_map(|listed| listed.needs.iter().chain([&listed.id]));
        Ok(all.filter(|id| !there.contains(*id)).copied().collect())
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
        let remove = |name: &str| {
            shelf.remove(name).map_err(|error| Error::media(format!("removing {}/{name}", shelf.describe()), error))
        };
        let (hidden, there) = (hidden_at(shelf)?, sets_at(shelf)?);
        let (mut freed, mut found) = (0, Vec::new());
        for (id, bytes) in there {
            match self.catalogue.find(id) {
                Some(_) => {}
                None if hidden.contains(&id) => {
                    remove(&object_name(id))?;
                    freed += bytes;
                }
                None => match sets.file(id) {
                    Ok(file) => found.push(Listed::of(&file)),
                    Err(error) => log::warn!("a set that the catalogue does not have stays as it is: {error}"),
                },
            }
        }
        // The catalogue says what is let go; notes are for when it is lost.
        for id in hidden {
            if self.catalogue.find(id).is_none_or(|listed| !listed.is_hidden) {
                remove(&note_name(id))?;
            }
        }
        if !found.is_empty() {
            let mut next = self.catalogue.clone();
            found.into_iter().for_each(|listed| next.add(listed));
            next.write(&sets, self.store)?;
            self.catalogue = next;
        }
        sets.forget();
        Ok(freed)
    }
}

impl Catalogue {
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
