//! Targets: where sets lie that outlive the store and its disk.
//!
//! ```text
//! TARGET/target              the label: which target it is
//! TARGET/STORE/keys          how the key of this store's sets is had, if they are encrypted
//! TARGET/STORE/catalogue     which sets there are, in one small object that is replaced as a whole
//! TARGET/STORE/ID.set        the sets
//! TARGET/STORE/ID.hidden     says that the moment of a set was let go
//! ```
//!
//! A target holds what many stores have brought, each in a directory of its own, with a key of its own.
//!
//! Invariants:
//! - a directory without the label that is expected is never taken for an empty target: its disk may not be mounted;
//! - a set is in the catalogue when it is whole, and goes from it before it goes;
//! - the catalogue has nothing that the sets do not say themselves: it is made anew from them where it is lost.

mod catalogue;
mod going;
mod keys;
mod label;
mod retention;
mod stream;
#[cfg(test)]
mod tests;

pub use catalogue::{Catalogue, Listed, given_twice, with_id};
pub use keys::{Keys, Opens, Slot, make_key_file, read_key_file};
pub use label::Label;
pub use retention::Retention;
pub use stream::{Incoming, Received, StreamShelf};

use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::media::{Directory, DiskShelf, Shelf};
use crate::set::{Key, Seal, SetFile, Sets, id_of};
use crate::shown::shown_file;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the sets of stores lie.
pub struct Target {
    directory: Directory,
    label: Label,
}

fn failed(doing: &str, path: &Path, error: io::Error) -> Error {
    Error::media(format!("{doing} {}", shown_file(path)), error)
}

/// All of a small object; `None` where there is none, and damage where it has not a length that it can have.
fn read_whole(shelf: &dyn Shelf, name: &str, lengths: RangeInclusive<u64>) -> Result<Option<Vec<u8>>> {
    let path = format!("{}/{name}", shelf.describe());
    let object = match shelf.open(name) {
        Ok(object) => object,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::media(format!("opening {path}"), error)),
    };
    let len = object.len();
    if !lengths.contains(&len) {
        return Err(Error::corrupt(path, format!("it has {len} bytes, and cannot have")));
    }
    let mut bytes = vec![0; len as usize];
    object.read_at(0, &mut bytes).map_err(|error| Error::media(format!("reading {path}"), error))?;
    Ok(Some(bytes))
}

/// The sets of a shelf by the names of their objects, with their lengths.
fn sets_at(shelf: &dyn Shelf) -> Result<Vec<(Id, u64)>> {
    let all = shelf.list().map_err(|error| Error::media(format!("listing {}", shelf.describe()), error))?;
    Ok(all.into_iter().filter_map(|(name, bytes)| Some((id_of(&name)?, bytes))).collect())
}

impl Target {
    /// Makes a directory, which has to be there and be empty, a target.
    pub fn create(path: &Path) -> Result<Target> {
        let directory = Directory::open(path).map_err(|error| failed("opening", path, error))?;
        if Label::read(&directory)?.is_some() {
            return Err(Error::Refused(Errno::EXIST, format!("{} is a target already", shown_file(path))));
        }
        if let Some(above) = path.ancestors().skip(1).find(|above| Target::is_one(above)) {
            let text = format!("{} lies in the target {}; make it elsewhere", shown_file(path), shown_file(above));
            return Err(Error::Refused(Errno::INVAL, text));
        }
        let names = directory.names().map_err(|error| failed("listing", path, error))?;
        // What mkfs leaves at the root of a disk is nothing of anybody's.
        if let Some(name) = names.iter().find(|name| *name != "lost+found") {
            let text = format!(
                "{} has something in it, {:?}, and a target begins as an empty directory; make one for it",
                shown_file(path),
                name.to_string_lossy()
            );
            return Err(Error::Refused(Errno::NOTEMPTY, text));
        }
        let label = Label { target: Id::random() };
        label.create(&directory)?;
        Ok(Target { directory, label })
    }

    /// Opens a target; with an id, that very one.
    pub fn open(path: &Path, expected: Option<Id>) -> Result<Target> {
        let not_there = |why: &str| {
            let text = format!(
                "the target {} is not there: {why}; is its disk mounted? Nothing was written",
                shown_file(path)
            );
            Error::Refused(Errno::NOENT, text)
        };
        let directory = match Directory::open(path) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(not_there("there is no such directory"));
            }
            Err(error) => return Err(failed("opening", path, error)),
        };
        let Some(label) = Label::read(&directory)? else {
            return Err(not_there("the directory has no file \"target\" that says it is one"));
        };
        if expected.is_some_and(|expected| expected != label.target) {
            return Err(not_there("another target is there"));
        }
        Ok(Target { directory, label })
    }

    /// Whether a directory is a target.
    pub fn is_one(path: &Path) -> bool {
        Directory::open(path).is_ok_and(|directory| Label::read(&directory).is_ok_and(|label| label.is_some()))
    }

    pub fn id(&self) -> Id {
        self.label.target
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The stores that have something here, in order.
    pub fn stores(&self) -> Result<Vec<Id>> {
        let names = self.directory.names().map_err(|error| failed("listing", self.path(), error))?;
        let mut stores: Vec<Id> = names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
        stores.sort_unstable();
        Ok(stores)
    }

    /// Keeps others from writing to it, for as long as the file is open.
    pub fn lock(&self) -> Result<std::fs::File> {
        let locked = self.directory.try_lock_whole(false).map_err(|error| failed("locking", self.path(), error))?;
        locked.ok_or_else(|| {
            let text = format!("the target {} is in use: something else writes to it", shown_file(self.path()));
            Error::Refused(Errno::BUSY, text)
        })
    }

    fn place(&self, store: Id) -> PathBuf {
        self.path().join(store.to_string())
    }

    /// Whether there is anything of a store.
    pub fn has_something_of(&self, store: Id) -> Result<bool> {
        if !self.stores()?.contains(&store) {
            return Ok(false);
        }
        let shelf = self.shelf(store)?;
        let all = shelf.list().map_err(|error| Error::media(format!("listing {}", shelf.describe()), error))?;
        Ok(!all.is_empty())
    }

    /// Puts the ways to a store's key in the place of those that are there.
    pub fn write_keys(&self, store: Id, keys: &Keys) -> Result<()> {
        keys.write(&*self.shelf(store)?)
    }

    /// Makes room for a store's sets, which are encrypted if there are keys. One that is there already stays as it is, and is an
    /// error.
    pub fn add_store(&self, store: Id, keys: Option<&Keys>) -> Result<()> {
        let path = self.place(store);
        match std::fs::create_dir(&path) {
            // What an interruption left before there was anything in it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !self.has_something_of(store)? => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let text = format!("the target {} has sets of this store already", shown_file(self.path()));
                return Err(Error::Refused(Errno::EXIST, text));
            }
            made => made.map_err(|error| failed("making", &path, error))?,
        }
        let made = (|| {
            let directory = Directory::open(&path).map_err(|error| failed("opening", &path, error))?;
            match keys {
                Some(keys) => keys.write(&DiskShelf::of(Arc::new(directory))),
                None => Ok(()),
            }
        })();
        if made.is_err() {
            std::fs::remove_dir_all(&path).unwrap_or_default();
        }
        made?;
        self.directory.sync().map_err(|error| failed("syncing", self.path(), error))
    }

    fn shelf(&self, store: Id) -> Result<Arc<dyn Shelf>> {
        let path = self.place(store);
        match Directory::open(&path) {
            Ok(directory) => Ok(Arc::new(DiskShelf::of(Arc::new(directory)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = format!("the target {} has nothing of the store {store}", shown_file(self.path()));
                Err(Error::Refused(Errno::NOENT, text))
            }
            Err(error) => Err(failed("opening", &path, error)),
        }
    }

    /// How the key of a store's sets is had; `None` where they are not encrypted.
    pub fn keys(&self, store: Id) -> Result<Option<Keys>> {
        Keys::read(&*self.shelf(store)?, store)
    }

    /// What a store has here, with the key if there are keys.
    pub fn repository(&self, store: Id, key: Option<&Key>) -> Result<Repository> {
        let shelf = self.shelf(store)?;
        let seal = match (Keys::read(&*shelf, store)?, key) {
            (Some(_), Some(key)) => Seal::with(key),
            (None, None) => Seal::plain(),
            (Some(_), None) => {
                let text = format!(
                    "what {} has of the store {store} is encrypted, and no key was given for it",
                    shown_file(self.path())
                );
                return Err(Error::Refused(Errno::NOKEY, text));
            }
            (None, Some(_)) => {
                let text = format!(
                    "what {} has of the store {store} is not encrypted, and a key was given for it: its file \"keys\" is \
                     missing, or it is another target",
                    shown_file(self.path())
                );
                return Err(Error::Refused(Errno::KEYREJECTED, text));
            }
        };
        Repository::open(shelf, store, seal)
    }
}

/// What one store has at a target.
pub struct Repository {
    store: Id,
    sets: Arc<Sets>,
    catalogue: Catalogue,
    /// It has sets that the one that is there has not.
    has_taken_in: bool,
    /// The catalogue had to be made anew, and why.
    pub was_rebuilt: Option<String>,
    /// Sets that could not be read when it was, and why: what moments they have is not known.
    pub unread: Vec<(Id, String)>,
}

impl Repository {
    /// What is on a shelf.
    pub fn open(shelf: Arc<dyn Shelf>, store: Id, seal: Seal) -> Result<Repository> {
        Repository::of(Arc::new(Sets::new(shelf, seal)), store)
    }

    fn of(sets: Arc<Sets>, store: Id) -> Result<Repository> {
        match Catalogue::read(&sets, store) {
            Ok(mut catalogue) => {
                let number = catalogue.sets().len();
                catalogue.take_in(&sets, store)?;
                let has_taken_in = catalogue.sets().len() > number;
                Ok(Repository { store, sets, catalogue, has_taken_in, was_rebuilt: None, unread: Vec::new() })
            }
            Err(Error::Corrupt { object, problem }) => {
                let (catalogue, unread) = Catalogue::of_sets(&sets, store)?;
                // That nothing opens says that the key is another one, and not that there is nothing.
                if let (true, [(id, why), ..]) = (catalogue.sets().is_empty(), &unread[..]) {
                    let more = format!("{problem}; and none of {} sets can be opened ({id}: {why})", unread.len());
                    return Err(Error::corrupt(object, more));
                }
                log::warn!("{object} was made anew from the sets: {problem}");
                unread.iter().for_each(|(id, why)| log::warn!("the set {id} is not in it: {why}"));
                Ok(Repository { store, sets, catalogue, has_taken_in: false, was_rebuilt: Some(problem), unread })
            }
            Err(error) => Err(error),
        }
    }

    pub fn store(&self) -> Id {
        self.store
    }

    /// That it is known which moment is the newest: with sets that nobody can read, and no list of them, it may be one of those.
    pub fn check_all_known(&self) -> Result<()> {
        let Some((id, why)) = self.unread.first() else { return Ok(()) };
        let text = format!(
            "which moment is the newest is not known: {why}, and the list of sets, which would say what the set {id} has, cannot be \
             read either. `pitfs set list` shows what is there: name one of these"
        );
        Err(Error::Refused(Errno::INVAL, text))
    }

    pub fn sets(&self) -> &Arc<Sets> {
        &self.sets
    }

    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Reads the catalogue once more: somebody else may have written it.
    pub fn look_again(&mut self) -> Result<()> {
        self.sets.forget();
        *self = Repository::of(self.sets.clone(), self.store)?;
        Ok(())
    }

    /// Takes a set into the catalogue that was written a moment ago.
    pub fn add(&mut self, file: &SetFile) -> Result<()> {
        let mut next = self.catalogue.clone();
        next.add(Listed::of(file));
        next.write(&self.sets, self.store)?;
        (self.catalogue, self.has_taken_in) = (next, false);
        Ok(())
    }

    /// Lets the list that is written next be newer than one of a number.
    pub fn go_on_from(&mut self, number: u64) {
        self.catalogue.number = self.catalogue.number.max(number);
    }

    /// Makes the catalogue anew from the sets, as one that is newer than what a store has seen; those that cannot be read, and why.
    pub fn rebuild(&mut self, seen: u64) -> Result<Vec<(Id, String)>> {
        // What an interruption left says less than a catalogue that can be read.
        if self.was_rebuilt.is_none() {
            self.note_all(&going::hidden_at(&**self.sets.shelf())?)?;
        }
        let (mut catalogue, unread) = Catalogue::of_sets(&self.sets, self.store)?;
        // Never behind what a store may have seen.
        catalogue.number = catalogue.number.max(self.catalogue.number).max(seen);
        catalogue.write(&self.sets, self.store)?;
        (self.catalogue, self.has_taken_in) = (catalogue, false);
        Ok(unread)
    }
}
