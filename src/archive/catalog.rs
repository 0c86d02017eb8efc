//! A directory of increments, as one: which there are, how they join, and one index over all of them.
//!
//! ```text
//!  increment    increment    increment   │ store
//!  from ── to ═ from ── to ═ from ── to ═│ a snapshot that is there
//!  ◀──────────── can be reached ────────▶│
//! ```
//!
//! The index is a file `index` beside the increments: for each record its key, where its value ended, and the
//! value, or where in which increment the bytes of a track are. So looking something up costs the same however long
//! the chain is. It has nothing that the increments do not have, and is made anew from them where it is missing,
//! damaged or behind.
//!
//! Invariants:
//! - an increment is in the index as a whole or not at all;
//! - a time can be reached only if every increment from it to the store is there.

use super::{Entry, Header, Mark, Place, Reader};
use crate::error::{Errno, Error, Result};
use crate::limits::ARCHIVE_READERS_MAX;
use crate::media::{DiskDir, MediaDir};
use crate::meta::{Kv, Overlay, Pair, Stored, Table, decode, encode};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const INDEX: &str = "index";
const SUFFIX: &str = ".increment";
/// Records that one commit of the index takes.
const BATCH: usize = 50_000;

/// Makes an entry of the index out of an entry of an increment.
pub type IndexEntry = fn(&Header, &Entry) -> Pair;

/// One increment of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Increment {
    pub header: Header,
    pub path: PathBuf,
    /// Length of the file.
    pub bytes: u64,
}

/// An increment that is not as it should be, and the times that cannot be reached for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub path: PathBuf,
    pub problem: String,
}

#[derive(Default)]
struct Inner {
    index: Option<Stored>,
    /// By the epoch they begin with.
    increments: BTreeMap<u32, Increment>,
    /// The first epoch that can be reached from the store.
    reachable_from: u32,
    broken: Vec<Broken>,
}

/// Increments of one base of one store.
pub struct Archive {
    directory: PathBuf,
    store: u128,
    base: u32,
    entry: IndexEntry,
    kv: Kv,
    inner: RwLock<Inner>,
    readers: Mutex<Vec<(u32, Arc<Reader>)>>,
    /// Held while it is open: two stores would each think the index theirs.
    _lock: File,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").field("directory", &self.directory).finish()
    }
}

/// The name of an increment's file: it sorts by time.
pub fn file_name(from: &Mark) -> String {
    format!("{:010}-{}{SUFFIX}", from.epoch, from.time.as_name())
}

fn header_key(name: &str) -> Vec<u8> {
    [b"increment ", name.as_bytes()].concat()
}

impl Archive {
    /// Opens the archive in a directory, made if it is missing, for a base of a store. Increments that are not in the
    /// index yet are brought into it; `tell` learns how many bytes of how many that took.
    pub fn open(
        directory: &Path,
        (store, base): (u128, u32),
        entry: IndexEntry,
        tell: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Archive> {
        std::fs::create_dir_all(directory)
            .map_err(|error| Error::media(format!("making {}", directory.display()), error))?;
        let lock = lock(directory)?;
        let kv = open_index(directory)?;
        let archive = Archive {
            directory: directory.to_path_buf(),
            store,
            base,
            entry,
            kv,
            inner: RwLock::default(),
            readers: Mutex::default(),
            _lock: lock,
        };
        archive.refresh(tell)?;
        Ok(archive)
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Looks again which increments there are.
    pub fn refresh(&self, tell: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        let mut index = self.kv.tables()?;
        let mut increments = BTreeMap::new();
        let mut broken = Vec::new();
        let mut names = BTreeSet::new();
        let mut is_changed = false;
        for (name, bytes) in files(&self.directory)? {
            names.insert(name.clone());
            let path = self.directory.join(&name);
            let known: Option<(Header, u64)> =
                index.with(Table::State, &header_key(&name), |value| decode(Table::State, name.as_bytes(), value))?;
            let header = match known {
                Some((header, known_bytes)) if known_bytes == bytes => Ok(header),
                _ => {
                    is_changed = true;
                    self.add_to_index(&path, &name, bytes, tell)
                }
            };
            match header.and_then(|header| self.check_origin(&path, &name, header)) {
                Ok(header) => {
                    increments.insert(header.from.epoch, Increment { header, path, bytes });
                }
                Err(error @ (Error::Corrupt { .. } | Error::Store(_) | Error::Refused(..))) => {
                    broken.push(Broken { path, problem: error.to_string() });
                }
                Err(error) => return Err(error),
            }
            index = self.kv.tables()?;
        }
        self.note_missing(&index, &names, &mut broken)?;
        let reachable_from = chain(&increments);
        note_gaps(&self.directory, &increments, reachable_from, &mut broken);
        drop(index);
        let mut inner = self.inner.write();
        inner.index = None;
        if is_changed {
            // Only room depends on it.
            if let Err(error) = self.kv.trim(&DiskDir::new(&self.directory), INDEX) {
                log::warn!("{}: {error}", self.directory.join(INDEX).display());
            }
            if self.kv.met_damage() {
                self.kv.reopen()?;
            }
        }
        *inner = Inner { index: Some(self.kv.tables()?), increments, reachable_from, broken };
        drop(inner);
        self.readers.lock().clear();
        Ok(())
    }

    fn add_to_index(
        &self,
        path: &Path,
        name: &str,
        bytes: u64,
        tell: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Header> {
        let reader = Reader::open(path)?;
        let header = self.check_origin(path, name, reader.header().clone())?;
        let mut overlay = Overlay::default();
        for entry in reader.entries() {
            let (key, value) = (self.entry)(&header, &entry?);
            overlay.put(Table::Preimage, &key, value);
            if overlay.len() >= BATCH {
                self.kv.commit(&std::mem::take(&mut overlay))?;
                tell(0)?;
            }
        }
        // Last, and with the rest of it: until then the increment counts as missing in the index.
        overlay.put(Table::State, &header_key(name), encode(&(&header, bytes)));
        self.kv.commit(&overlay)?;
        tell(bytes)?;
        Ok(header)
    }

    /// Whether an increment is of this base, and the one that its name says.
    fn check_origin(&self, path: &Path, name: &str, header: Header) -> Result<Header> {
        if header.store != self.store {
            return Err(Error::Store(format!("{} is an increment of another store", path.display())));
        }
        if header.base != self.base {
            let text = format!("{} is an increment of another base, {:?}", path.display(), header.base_name);
            return Err(Error::Store(text));
        }
        if file_name(&header.from) != name {
            let is = file_name(&header.from);
            return Err(Error::Store(format!("{} is not what its name says, but {is}", path.display())));
        }
        Ok(header)
    }

    /// Increments that the index knows and the directory has no more.
    fn note_missing(&self, index: &Stored, names: &BTreeSet<String>, broken: &mut Vec<Broken>) -> Result<()> {
        let prefix = header_key("");
        for pair in index.range(Table::State, &prefix, &crate::meta::prefix_end(&prefix))? {
            let (key, _) = pair?;
            let name = String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
            if !names.contains(&name) {
                broken.push(Broken { path: self.directory.join(name), problem: "it is missing".into() });
            }
        }
        Ok(())
    }

    pub fn broken(&self) -> Vec<Broken> {
        self.inner.read().broken.clone()
    }

    /// All increments that are as they should be, the oldest first.
    pub fn increments(&self) -> Vec<Increment> {
        self.inner.read().increments.values().cloned().collect()
    }

    /// The snapshot that the newest increment leads to.
    pub fn tip(&self) -> Option<Mark> {
        self.inner.read().increments.last_key_value().map(|(_, newest)| newest.header.to.clone())
    }

    /// The time that began in an epoch, if it can be reached.
    pub fn mark(&self, epoch: u32) -> Option<Mark> {
        let inner = self.inner.read();
        if epoch < inner.reachable_from {
            return None;
        }
        inner.increments.get(&epoch).map(|increment| increment.header.from.clone())
    }

    /// Times after an epoch that can be reached, the oldest first.
    pub fn marks_after(&self, epoch: u32) -> Vec<Mark> {
        let inner = self.inner.read();
        let from = inner.reachable_from.max(epoch.saturating_add(1));
        inner.increments.range(from..).map(|(_, increment)| increment.header.from.clone()).collect()
    }

    /// Entries of the index with `from <= key < to`, in order.
    pub fn range(&self, from: &[u8], to: &[u8]) -> Result<Box<dyn Iterator<Item = Result<Pair>>>> {
        match &self.inner.read().index {
            Some(index) => Ok(Box::new(index.range(Table::Preimage, from, to)?)),
            None => Err(Error::Posix(Errno::IO)),
        }
    }

    /// The bytes of a track that an increment has.
    pub fn read(&self, increment: u32, place: &Place) -> Result<Arc<Vec<u8>>> {
        self.reader(increment)?.read_track(place)
    }

    fn reader(&self, increment: u32) -> Result<Arc<Reader>> {
        let mut readers = self.readers.lock();
        if let Some(at) = readers.iter().position(|(epoch, _)| *epoch == increment) {
            let found = readers.remove(at);
            readers.push(found);
            return Ok(readers[readers.len() - 1].1.clone());
        }
        let path = self.inner.read().increments.get(&increment).map(|found| found.path.clone());
        let path = path.ok_or(Error::Posix(Errno::IO))?;
        let reader = Arc::new(Reader::open(&path)?);
        if readers.len() >= ARCHIVE_READERS_MAX {
            readers.remove(0);
        }
        readers.push((increment, reader.clone()));
        Ok(reader)
    }
}

/// The first epoch from which the increments join up to the last.
fn chain(increments: &BTreeMap<u32, Increment>) -> u32 {
    let mut wanted = None;
    for (epoch, increment) in increments.iter().rev() {
        if wanted.is_some_and(|wanted| wanted != increment.header.to.epoch) {
            break;
        }
        wanted = Some(*epoch);
    }
    wanted.unwrap_or(u32::MAX)
}

fn lock(directory: &Path) -> Result<File> {
    let file =
        File::open(directory).map_err(|error| Error::media(format!("opening {}", directory.display()), error))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(Error::Refused(
            Errno::BUSY,
            format!("the archive {} is in use by another store, or another base", directory.display()),
        )),
        Err(errno) => Err(Error::media(format!("locking {}", directory.display()), errno.into())),
    }
}

/// What is in a directory of increments, without opening it as an archive: nothing is written.
pub fn survey(directory: &Path) -> Result<(Vec<Increment>, Vec<Broken>)> {
    let (mut increments, mut broken) = (BTreeMap::new(), Vec::new());
    for (name, bytes) in files(directory)? {
        let path = directory.join(name);
        match Reader::open(&path) {
            Ok(reader) => {
                let header = reader.header().clone();
                increments.insert(header.from.epoch, Increment { header, path, bytes });
            }
            Err(error) => broken.push(Broken { path, problem: error.to_string() }),
        }
    }
    note_gaps(directory, &increments, chain(&increments), &mut broken);
    Ok((increments.into_values().collect(), broken))
}

/// Names and lengths of the files that are increments by name.
fn files(directory: &Path) -> Result<Vec<(String, u64)>> {
    let failed = |error| Error::media(format!("listing {}", directory.display()), error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if let Ok(name) = entry.file_name().into_string()
            && name.ends_with(SUFFIX)
            && !name.starts_with('.')
        {
            files.push((name, entry.metadata().map_err(failed)?.len()));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// The index, made anew where it cannot be read.
fn open_index(directory: &Path) -> Result<Kv> {
    let media = DiskDir::new(directory);
    let path = directory.join(INDEX);
    let failed = |error| Error::media(format!("opening {}", path.display()), error);
    media.tidy(INDEX).map_err(failed)?;
    if path.exists() {
        match Kv::open(media.open(INDEX, false).map_err(failed)?, None) {
            Ok(kv) => return Ok(kv),
            Err(error @ Error::Corrupt { .. }) => log::warn!("{}: {error}; it is made anew", path.display()),
            Err(error) => return Err(error),
        }
        std::fs::remove_file(&path).map_err(failed)?;
    }
    Kv::create(media.open(INDEX, true).map_err(failed)?, None)
}

/// Says which times cannot be reached because an increment after them is not there.
fn note_gaps(directory: &Path, increments: &BTreeMap<u32, Increment>, reachable_from: u32, broken: &mut Vec<Broken>) {
    let lost: Vec<&Increment> = increments.range(..reachable_from).map(|(_, increment)| increment).collect();
    let (Some(first), Some(last)) = (lost.first(), lost.last()) else { return };
    let (from, to) = (first.header.from.time.as_text(), last.header.from.time.as_text());
    let times = match lost.len() {
        1 => format!("the time {from} cannot be reached"),
        many => format!("the {many} times from {from} to {to} cannot be reached"),
    };
    let next = &last.header.to;
    broken.push(Broken {
        path: directory.to_path_buf(),
        problem: format!(
            "the increment from {:?} ({}) on is missing or damaged: {times}",
            next.name,
            next.time.as_text()
        ),
    });
}
