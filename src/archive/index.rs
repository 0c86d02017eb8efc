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
use crate::error::{Error, Result};
use crate::media::{DiskDir, MediaDir, ScratchMedia};
use crate::meta::{Kv, Overlay, Pair, Stored, Table, decode, encode, prefix_end};
use crate::shown::shown_file;
use parking_lot::RwLock;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
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
pub type IndexEntry = fn(&Header, &Entry) -> Pair;

/// Told how many bytes of increments are done; ends the work with an error.
pub type Tell<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

/// The increments that are in an index, by the names of their files: what they say of themselves, and their lengths;
/// `None` where the index says something that makes no sense.
pub(super) type Known = Option<BTreeMap<String, (Header, u64)>>;

pub(super) struct Index {
    directory: PathBuf,
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
    pub(super) fn open(directory: &Path, entry: IndexEntry) -> Result<Index> {
        let (kv, is_aside) = match open_or_create(directory) {
            Err(error) if error.is_unwritable() => (open_aside(directory)?, true),
            opened => (opened?, false),
        };
        Ok(Index {
            directory: directory.to_path_buf(),
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
        let has_room = || DiskDir::new(&self.directory).room().is_ok_and(|room| room.available / 2 > bytes);
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
        let reader = increment.open()?;
        let mut overlay = Overlay::default();
        for entry in reader.entries() {
            let (key, value) = (self.entry)(&increment.header, &entry?);
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

    /// Forgets an increment that is about to go, or all where it cannot be read: whether the others are still in it.
    pub(super) fn forget(&self, increment: &Increment) -> Result<bool> {
        match self.or_aside(|| self.forget_entries(increment)) {
            Err(Error::Corrupt { .. } | Error::Store(_)) => self.make_anew().map(|()| false),
            result => result.map(|()| true),
        }
    }

    fn forget_entries(&self, increment: &Increment) -> Result<()> {
        let reader = increment.open()?;
        let mut overlay = Overlay::default();
        // From here on it counts as missing, whatever is left of it.
        overlay.remove(Table::State, &header_key(&increment.name()));
        overlay.put(Table::State, ADDING, increment.name().into_bytes());
        for entry in reader.entries() {
            let (key, _) = (self.entry)(&increment.header, &entry?);
            overlay.remove(Table::Preimage, &key);
            if overlay.len() >= BATCH || overlay.bytes() >= BATCH_BYTES {
                self.kv.read().commit(&std::mem::take(&mut overlay))?;
            }
        }
        overlay.remove(Table::State, ADDING);
        self.kv.read().commit(&overlay)
    }

    fn make_anew(&self) -> Result<()> {
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
            && let Err(error) = kv.trim(&DiskDir::new(&self.directory), FILE)
        {
            log::warn!("{}: {error}", shown_file(&self.directory.join(FILE)));
        }
        if kv.met_damage() { kv.reopen() } else { Ok(()) }
    }
}

/// Opens the index; makes it anew where it cannot be read.
fn open_or_create(directory: &Path) -> Result<Kv> {
    let media = DiskDir::new(directory);
    let path = directory.join(FILE);
    let opening = |error| failed("opening", &path, error);
    media.tidy(FILE).map_err(opening)?;
    if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
        log::warn!("{} is no plain file, and so no index; one is made in its place", shown_file(&path));
        remove_index(directory)?;
    }
    if path.exists() {
        match media.open(FILE, false).map_err(opening).and_then(|file| with_tables(Kv::open(file, None)?)) {
            Ok(kv) => return Ok(kv),
            // A device that fails may work again; what was read, and makes no sense, will not.
            Err(Error::Corrupt { problem, .. } | Error::Fault(problem)) => {
                log::warn!("the index {} is damaged ({problem}); it is made anew", shown_file(&path));
            }
            Err(error) => return Err(error),
        }
        std::fs::remove_file(&path).map_err(opening)?;
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

fn create(directory: &Path) -> Result<Kv> {
    let file = DiskDir::new(directory).open(FILE, true);
    Kv::create(file.map_err(|error| failed("making", &directory.join(FILE), error))?, None)
}

/// Opens the index of a directory that cannot be written to, or makes a new one.
fn open_aside(directory: &Path) -> Result<Kv> {
    let path = directory.join(FILE);
    let opened = scratch(directory, Some(&path)).and_then(|media| with_tables(Kv::open(media, None)?));
    // What is missing, may not be read, or is damaged, is not needed.
    opened.or_else(|_| Kv::create(scratch(directory, None)?, None))
}

fn scratch(directory: &Path, below: Option<&Path>) -> Result<Arc<ScratchMedia>> {
    let media = ScratchMedia::over(below);
    media.map(Arc::new).map_err(|error| failed("making a temporary index of", directory, error))
}

/// Whether something has the name that an index has.
pub fn has_index(directory: &Path) -> Result<bool> {
    let path = directory.join(FILE);
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(failed("looking at", &path, error)),
    }
}

/// Removes the index of a directory; it is made anew when it is needed.
pub fn remove_index(directory: &Path) -> Result<()> {
    let path = directory.join(FILE);
    let is_directory = path.symlink_metadata().is_ok_and(|found| found.is_dir());
    // One with something in it stays, and is said.
    match if is_directory { std::fs::remove_dir(&path) } else { std::fs::remove_file(&path) } {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed("removing", &path, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Archive, LEVEL, Label, Mark, Writer, file_name};
    use super::*;
    use crate::clock::Timestamp;
    use crate::id::Id;
    use crate::purpose::Purpose;

    fn mark(epoch: u32) -> Mark {
        let (id, name) = (Id::of_parts("snapshot", &[&epoch.to_le_bytes()]), format!("r{epoch}"));
        let time = Timestamp { seconds: epoch.into(), nanos: 0 };
        Mark { epoch, id, name, time, purpose: Purpose::Plain, offline: false }
    }

    fn save(directory: &Path, label: &Label, epoch: u32) {
        let Label { store, base: base_id, .. } = *label;
        let (from, to, base_name) = (mark(epoch), mark(epoch + 1), "live".to_string());
        let name = file_name(&from, &to);
        let (base, track_bytes, hash_seed, merged) = (0, 65_536, 1, Vec::new());
        let header = Header { store, base_id, base, base_name, from, to, track_bytes, hash_seed, merged };
        Writer::create(directory, &name, &header, LEVEL).unwrap().finish().unwrap();
    }

    /// A look at an archive reads of each increment once what it is.
    #[test]
    fn what_is_known_of_increments_is_read_once_for_each_look() {
        let dir = tempfile::tempdir().unwrap();
        let label = Label { archive: Id::random(), store: Id::random(), base: Id::random() };
        (1..=20).for_each(|epoch| save(dir.path(), &label, epoch));
        let holds = |mark: &Mark| Ok(mark.epoch >= 21);
        let open = || Archive::open(dir.path(), label, 0, |_, _| Default::default(), &holds, &mut |_| Ok(())).unwrap();
        let decoded = |archive: &Archive| archive.index.decoded.swap(0, Ordering::Relaxed);
        assert_eq!(decoded(&open()), 0, "nothing is known at first");
        let archive = open();
        assert_eq!((decoded(&archive), archive.increments().len()), (20, 20));
        save(dir.path(), &label, 21);
        archive.refresh(&holds, &mut |_| Ok(())).unwrap();
        assert_eq!((decoded(&archive), archive.increments().len()), (20, 21));
        let parts = archive.increments();
        archive.merge(&parts[3..9], &mut |_| Ok(())).unwrap();
        assert_eq!((decoded(&archive), archive.increments().len()), (0, 16));
    }

    #[test]
    fn an_archive_that_was_closed_is_free_whoever_still_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let label = Label { archive: Id::random(), store: Id::random(), base: Id::random() };
        save(dir.path(), &label, 1);
        let open = || Archive::open(dir.path(), label, 0, |_, _| Default::default(), &|_| Ok(true), &mut |_| Ok(()));
        let first = open().unwrap();
        assert!(open().unwrap_err().to_string().contains("is in use"));
        first.close();
        assert_eq!(open().unwrap().increments(), first.increments());
    }
}
