//! One index over all increments of a chain, so that looking something up costs the same however long the chain is.
//!
//! For each record it has its key, where its value ended, and the value, or where in which increment the bytes of a track
//! are. It has nothing that the increments do not have: it is made anew from them where it is missing or damaged, and
//! where it has something of an increment that is not in the chain any more. Where it cannot be written, as on a disk that
//! is mounted read-only, what would be is kept in a temporary file.
//!
//! Invariants:
//! - an increment is in the index as a whole or not at all;
//! - nothing is in it of an increment outside the chain, but for what ends before the chain begins.

use super::{Entry, Header, Increment, failed};
use crate::clock::Epoch;
use crate::error::{Error, Result};
use crate::media::{Directory, DiskDir, MediaDir, ScratchMedia};
use crate::meta::{Kv, Overlay, Pair, Stored, Table, decode, encode, prefix_end};
use crate::shown::shown_file;
use parking_lot::RwLock;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const FILE: &str = "index";
/// The increment that is being put in, while that takes several commits.
const ADDING: &[u8] = b"adding";
/// Records that one commit takes.
const BATCH: usize = 50_000;
/// And their bytes: what an increment from elsewhere has may be very long.
const BATCH_BYTES: usize = 16 << 20;

/// Makes an entry of the index out of an entry of an increment.
pub type IndexEntry = fn(&Header, &Entry) -> Result<Pair>;

/// Told how many bytes of increments are done; ends the work with an error.
pub type Tell<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

/// The increments that are in an index, by the names of their files: what they say of themselves, and their lengths;
/// `None` where the index says something that makes no sense.
pub(super) type Known = Option<BTreeMap<String, (Header, u64)>>;

pub(super) struct Index {
    directory: Arc<Directory>,
    entry: IndexEntry,
    kv: RwLock<Kv>,
    /// What is written does not go to the directory.
    is_aside: AtomicBool,
    /// Headers that were decoded.
    #[cfg(test)]
    pub(super) decoded: std::sync::atomic::AtomicUsize,
}

fn header_key(name: &str) -> Vec<u8> {
    [b"increment ", name.as_bytes()].concat()
}

/// An increment that could not be put into the index, by its place in the chain.
pub(super) struct Unreadable {
    pub at: usize,
    pub error: Error,
}

impl Index {
    pub(super) fn open(directory: &Arc<Directory>, entry: IndexEntry) -> Result<Index> {
        let (kv, is_aside) = match open_or_create(directory) {
            Err(error) if error.is_unwritable() => (open_aside(directory)?, true),
            opened => (opened?, false),
        };
        Ok(Index {
            directory: directory.clone(),
            entry,
            kv: RwLock::new(kv),
            is_aside: AtomicBool::new(is_aside),
            #[cfg(test)]
            decoded: Default::default(),
        })
    }

    fn is_aside(&self) -> bool {
        self.is_aside.load(Ordering::Relaxed)
    }

    /// From here on nothing is written to the directory.
    fn go_aside(&self) -> Result<()> {
        let mut kv = self.kv.write();
        *kv = open_aside(&self.directory)?;
        self.is_aside.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Goes back to the directory where that can be written again.
    pub(super) fn come_back(&self) {
        let bytes = self.kv.read().file_bytes().unwrap_or(u64::MAX);
        let has_room = || DiskDir::of(self.directory.clone()).room().is_ok_and(|room| room.available / 2 > bytes);
        if self.is_aside() && super::check_writable(&self.directory).is_ok() && has_room() {
            let mut kv = self.kv.write();
            // If not, it stays as it is.
            if let Ok(back) = open_or_create(&self.directory) {
                *kv = back;
                self.is_aside.store(false, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn close(&self) {
        let kv = self.kv.read();
        kv.close();
        // What cannot be read is not found again.
        if kv.met_damage()
            && !self.is_aside()
            && let Err(error) = remove_index(&self.directory)
        {
            log::warn!("{error}");
        }
    }

    pub(super) fn tables(&self) -> Result<Stored> {
        self.kv.read().tables()
    }

    pub(super) fn known(&self) -> Result<Known> {
        match self.read_known() {
            // It has nothing that the increments have not. After damage was met no other read succeeds either.
            Err(error) if matches!(error, Error::Corrupt { .. }) || self.kv.read().met_damage() => Ok(None),
            result => result,
        }
    }

    fn read_known(&self) -> Result<Known> {
        let prefix = header_key("");
        let mut known = BTreeMap::new();
        for pair in self.tables()?.range(Table::State, &prefix, &prefix_end(&prefix))? {
            let (key, value) = pair?;
            let Ok(name) = String::from_utf8(key[prefix.len()..].to_vec()) else { return Ok(None) };
            // An index of another format.
            let Ok(found) = decode::<(Header, u64)>(Table::State, &key, &value) else { return Ok(None) };
            if found.0.check().is_err() {
                return Ok(None);
            }
            #[cfg(test)]
            self.decoded.fetch_add(1, Ordering::Relaxed);
            known.insert(name, found);
        }
        Ok(Some(known))
    }

    /// Brings the index, of which that is known, in step with a chain. Damage of an increment is told apart from other
    /// failures.
    pub(super) fn follow(&self, known: &Known, chain: &[Increment], tell: Tell<'_>) -> Result<Result<(), Unreadable>> {
        let mut first = Some(known);
        let followed = self.or_aside(|| match first.take() {
            Some(known) => self.follow_once(known, chain, tell),
            None => self.follow_once(&self.known()?, chain, tell),
        });
        let is_damaged = !matches!(followed, Ok(Ok(()))) && self.kv.read().met_damage();
        match is_damaged {
            // Not the increments are damaged, but what was made of them.
            true => self.make_anew().and_then(|()| self.follow_once(&self.known()?, chain, tell)),
            false => followed,
        }
    }

    fn follow_once(&self, known: &Known, chain: &[Increment], tell: Tell<'_>) -> Result<Result<(), Unreadable>> {
        let wanted: HashMap<String, &Increment> = chain.iter().map(|one| (one.name(), one)).collect();
        let is_wanted = |name: &str, (header, bytes): &(Header, u64)| {
            wanted.get(name).is_some_and(|one| one.bytes == *bytes && one.header == *header)
        };
        let fits = known.as_ref().is_some_and(|known| known.iter().all(|(name, found)| is_wanted(name, found)));
        let adding = self.tables()?.with(Table::State, ADDING, |name| Ok(name.to_vec()))?;
        let goes_on = adding.is_none_or(|name| wanted.contains_key(&*String::from_utf8_lossy(&name)));
        let nothing = BTreeMap::new();
        let known = match known {
            Some(known) if fits && goes_on => known,
            _ => {
                self.make_anew()?;
                &nothing
            }
        };
        let mut is_changed = false;
        for (at, increment) in chain.iter().enumerate() {
            if known.contains_key(&increment.name()) {
                continue;
            }
            is_changed = true;
            match self.add(increment, tell) {
                Ok(()) => {}
                Err(error @ (Error::Corrupt { .. } | Error::Store(_))) => return Ok(Err(Unreadable { at, error })),
                Err(error) => return Err(error),
            }
        }
        if is_changed {
            self.trim()?;
        }
        Ok(Ok(()))
    }

    /// Puts an increment in that follows what is there.
    pub(super) fn take_up(&self, increment: &Increment, tell: Tell<'_>) -> Result<()> {
        self.or_aside(|| self.add(increment, tell))
    }

    /// Works on it, and once more aside where the directory cannot be written to: a full disk does not keep increments from
    /// being found, nor from being removed.
    fn or_aside<R>(&self, mut work: impl FnMut() -> Result<R>) -> Result<R> {
        match work() {
            Err(error) if error.is_unwritable() && !self.is_aside() => {
                self.go_aside()?;
                work()
            }
            result => result,
        }
    }

    fn add(&self, increment: &Increment, tell: Tell<'_>) -> Result<()> {
        let reader = increment.open(&self.directory)?;
        let mut overlay = Overlay::default();
        for entry in reader.entries() {
            let (key, value) = (self.entry)(&increment.header, &entry?)?;
            overlay.put(Table::Preimage, &key, value);
            if overlay.len() >= BATCH || overlay.bytes() >= BATCH_BYTES {
                overlay.put(Table::State, ADDING, increment.name().into_bytes());
                self.kv.read().commit(&std::mem::take(&mut overlay))?;
                tell(0)?;
            }
        }
        // Last, and with the rest of it: until then the increment counts as missing in the index.
        overlay.put(Table::State, &header_key(&increment.name()), encode(&(&increment.header, increment.bytes)));
        overlay.remove(Table::State, ADDING);
        self.kv.read().commit(&overlay)?;
        tell(increment.bytes)
    }

    /// Whether all that it has of a chain, and of nothing behind it, is what the increments have. Those that cannot be read,
    /// or went meanwhile, are left out.
    pub(super) fn agrees(&self, tables: &Stored, chain: &[Increment], tell: Tell<'_>) -> Result<bool> {
        // By the epoch they lead to: entries that the index has to have.
        let mut expected: HashMap<Epoch, u64> = HashMap::new();
        let mut unread = HashSet::new();
        for increment in chain {
            let end = increment.header.to.epoch;
            match self.agrees_with(tables, increment) {
                Ok(Some(entries)) => *expected.entry(end).or_default() += entries,
                Ok(None) => return Ok(false),
                Err(_) => drop(unread.insert(end)),
            }
            tell(0)?;
        }
        let first = chain.first().map_or(Epoch::MAX, |increment| increment.header.from.epoch);
        for pair in tables.range(Table::Preimage, &[], &[u8::MAX; 40])? {
            let (key, _) = pair?;
            let end = key.last_chunk().map_or(Epoch::ZERO, |end| Epoch::from_be_bytes(*end));
            match expected.get_mut(&end) {
                Some(left) if *left > 0 => *left -= 1,
                // What ends before the chain begins is asked for by nobody.
                _ if end > first && !unread.contains(&end) => return Ok(false),
                _ => {}
            }
        }
        Ok(true)
    }

    /// How many entries an increment has, if each is in the index as well.
    fn agrees_with(&self, tables: &Stored, increment: &Increment) -> Result<Option<u64>> {
        let mut entries = 0;
        for entry in increment.open(&self.directory)?.entries() {
            let (key, value) = (self.entry)(&increment.header, &entry?)?;
            if tables.with(Table::Preimage, &key, |found| Ok(found == value))? != Some(true) {
                return Ok(None);
            }
            entries += 1;
        }
        Ok(Some(entries))
    }

    /// Forgets an increment that is about to go, or all where it cannot be read: whether the others are still in it.
    pub(super) fn forget(&self, increment: &Increment) -> Result<bool> {
        match self.or_aside(|| self.forget_entries(increment)) {
            Err(Error::Corrupt { .. } | Error::Store(_)) => self.make_anew().map(|()| false),
            result => result.map(|()| true),
        }
    }

    fn forget_entries(&self, increment: &Increment) -> Result<()> {
        let reader = increment.open(&self.directory)?;
        let mut overlay = Overlay::default();
        // From here on it counts as missing, whatever is left of it.
        overlay.remove(Table::State, &header_key(&increment.name()));
        overlay.put(Table::State, ADDING, increment.name().into_bytes());
        for entry in reader.entries() {
            let (key, _) = (self.entry)(&increment.header, &entry?)?;
            overlay.remove(Table::Preimage, &key);
            if overlay.len() >= BATCH || overlay.bytes() >= BATCH_BYTES {
                self.kv.read().commit(&std::mem::take(&mut overlay))?;
            }
        }
        overlay.remove(Table::State, ADDING);
        self.kv.read().commit(&overlay)
    }

    pub(super) fn make_anew(&self) -> Result<()> {
        let mut kv = self.kv.write();
        if !self.is_aside() {
            let anew = remove_index(&self.directory).and_then(|()| create(&self.directory));
            match anew {
                Err(error) if error.is_unwritable() => self.is_aside.store(true, Ordering::Relaxed),
                anew => {
                    *kv = anew?;
                    return Ok(());
                }
            }
        }
        *kv = Kv::create(scratch(&self.directory, None)?, None)?;
        Ok(())
    }

    /// Gives room back that nothing is in.
    pub(super) fn trim(&self) -> Result<()> {
        let kv = self.kv.read();
        // Only room depends on it.
        if !self.is_aside()
            && let Err(error) = kv.trim(&DiskDir::of(self.directory.clone()), FILE)
        {
            log::warn!("{}: {error}", shown_file(&self.directory.path().join(FILE)));
        }
        if kv.met_damage() { kv.reopen() } else { Ok(()) }
    }
}

/// Opens the index; makes it anew where it cannot be read.
fn open_or_create(directory: &Arc<Directory>) -> Result<Kv> {
    let media = DiskDir::of(directory.clone());
    let path = directory.path().join(FILE);
    let opening = |error| failed("opening", &path, error);
    media.tidy(FILE).map_err(opening)?;
    let mut found = directory.kind(FILE).map_err(opening)?;
    if found.take_if(|found| !found.is_file()).is_some() {
        log::warn!("{} is no plain file, and so no index; one is made in its place", shown_file(&path));
        remove_index(directory)?;
    }
    if found.is_some() {
        match media.open(FILE, false).map_err(opening).and_then(|file| with_tables(Kv::open(file, None)?)) {
            Ok(kv) => return Ok(kv),
            // A device that fails may work again; what was read, and makes no sense, will not.
            Err(Error::Corrupt { problem, .. } | Error::Fault(problem)) => {
                log::warn!("the index {} is damaged ({problem}); it is made anew", shown_file(&path));
            }
            Err(error) => return Err(error),
        }
        directory.remove(FILE).map_err(opening)?;
    }
    create(directory)
}

/// One of an older format lacks tables, and what it has makes no sense to this one: that is no damage.
fn with_tables(kv: Kv) -> Result<Kv> {
    if kv.tables().is_err() && !kv.met_damage() {
        kv.commit(&Overlay::default())?;
    }
    kv.tables().map(|_| kv)
}

fn create(directory: &Arc<Directory>) -> Result<Kv> {
    let file = DiskDir::of(directory.clone()).open(FILE, true);
    Kv::create(file.map_err(|error| failed("making", &directory.path().join(FILE), error))?, None)
}

/// Opens the index of a directory that cannot be written to, or makes a new one.
fn open_aside(directory: &Directory) -> Result<Kv> {
    let opening = |error| failed("opening", &directory.path().join(FILE), error);
    let below = directory.open_plain(FILE).map_err(opening);
    let opened = below.and_then(|below| with_tables(Kv::open(scratch(directory, Some(below))?, None)?));
    // What is missing, may not be read, or is damaged, is not needed.
    opened.or_else(|_| Kv::create(scratch(directory, None)?, None))
}

fn scratch(directory: &Directory, below: Option<File>) -> Result<Arc<ScratchMedia>> {
    let media = ScratchMedia::over(below);
    media.map(Arc::new).map_err(|error| failed("making a temporary index of", directory.path(), error))
}

/// Whether something has the name that an index has.
pub fn has_index(directory: &Directory) -> Result<bool> {
    let found = directory.kind(FILE).map_err(|error| failed("looking at", &directory.path().join(FILE), error))?;
    Ok(found.is_some())
}

/// Removes the index of a directory; it is made anew when it is needed.
pub fn remove_index(directory: &Directory) -> Result<()> {
    let removed = directory.kind(FILE).and_then(|found| match found {
        // One with something in it stays, and is said.
        Some(found) if found.is_dir() => directory.remove_directory(FILE),
        _ => directory.remove(FILE),
    });
    removed.map_err(|error| failed("removing", &directory.path().join(FILE), error))
}
