//! A directory of increments, as one: which there are, how they join, and what they have.
//!
//! What a time showed is found through the chain of increments from it to a snapshot that the store has. What else lies
//! in the directory is not looked into: increments of a copy of the store, or what is newer than what the store has.

use super::chain::{Joined, tip};
use super::index::{Index, IndexEntry, Tell, Unreadable};
use super::{Header, Increment, Label, Leftover, Mark, Place, Reach, Reader, failed};
use crate::clock::Epoch;
use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::limits::ARCHIVE_READERS_MAX;
use crate::media::Directory;
use crate::meta::{Pair, Stored, Table};
use crate::shown::shown_file;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) const SUFFIX: &str = ".increment";

/// Whether the store has the very snapshot that a mark names.
pub type Holds<'a> = &'a dyn Fn(&Mark) -> Result<bool>;

/// An increment that is not as it should be, or the times that cannot be reached for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub path: PathBuf,
    pub problem: String,
}

#[derive(Default)]
pub(super) struct Inner {
    index: Option<Stored>,
    /// The increments that join up to the tip, by the epoch they begin with.
    pub(super) chain: BTreeMap<Epoch, Increment>,
    by_name: HashMap<String, Epoch>,
    /// Parts of what was merged, which are still there.
    pub(super) leftovers: Vec<Leftover>,
    /// What else there is of this base, the oldest first.
    pub(super) others: Vec<Increment>,
    tip: Option<Mark>,
    broken: Vec<Broken>,
}

impl Inner {
    pub(super) fn set_chain(&mut self, chain: Vec<Increment>) {
        // Of several times with one name the oldest is found by it.
        self.by_name = chain.iter().rev().map(|one| (one.header.from.name.clone(), one.header.from.epoch)).collect();
        self.tip = chain.last().map(|newest| newest.header.to.clone());
        self.chain = chain.into_iter().map(|increment| (increment.header.from.epoch, increment)).collect();
    }

    pub(super) fn set_index(&mut self, index: Stored) {
        self.index = Some(index);
    }
}

/// The epochs between which an increment leads.
type Ends = (Epoch, Epoch);

/// Increments of one base of one store.
pub struct Archive {
    pub(super) directory: Arc<Directory>,
    label: Label,
    base: u32,
    pub(super) index: Index,
    pub(super) inner: RwLock<Inner>,
    /// Open increments, that which was used last at the end.
    readers: Mutex<Vec<(Ends, Arc<Reader>)>>,
    /// Held while it is open: two stores would each think the index theirs.
    lock: File,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").field("directory", &self.path()).finish()
    }
}

/// The name of an increment's file: it sorts by time, and no two increments have the same.
pub fn file_name(from: &Mark, to: &Mark) -> String {
    format!("{:010}-{}-{}-{}{SUFFIX}", from.epoch, from.time.as_name(), from.id.short(), to.id.short())
}

/// As it was called before there were ids.
pub(super) fn old_file_name(from: &Mark) -> String {
    format!("{:010}-{}{SUFFIX}", from.epoch, from.time.as_name())
}

impl Archive {
    /// Opens the archive in a directory that has this label, of the base with this number. Increments of the chain that
    /// are not in the index yet are brought into it; `tell` learns how many bytes that took.
    pub fn open(
        directory: &Arc<Directory>,
        label: Label,
        base: u32,
        entry: IndexEntry,
        holds: Holds<'_>,
        tell: Tell<'_>,
    ) -> Result<Archive> {
        let lock = lock(directory)?;
        let archive = Archive {
            directory: directory.clone(),
            label,
            base,
            index: Index::open(directory, entry)?,
            inner: RwLock::default(),
            readers: Mutex::default(),
            lock,
        };
        archive.refresh(holds, tell)?;
        Ok(archive)
    }

    /// Ends its use, also for those who still have it: whoever opens the store next finds the archive free.
    pub fn close(&self) {
        self.index.close();
        if let Err(errno) = rustix::fs::flock(&self.lock, rustix::fs::FlockOperation::Unlock) {
            log::warn!("unlocking the archive {}: {errno}", shown_file(self.path()));
        }
    }

    /// What everything in it is made, opened and removed through, wherever its path leads by now.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn id(&self) -> Id {
        self.label.archive
    }

    /// That the directory is still the one that was opened: a disk can be gone, and an empty directory in its place.
    pub fn check_there(&self) -> Result<()> {
        match self.directory.is_there() && Label::read(&self.directory)? == Some(self.label) {
            true => Ok(()),
            false => Err(not_there(self.path())),
        }
    }

    /// Looks again which increments there are.
    pub fn refresh(&self, holds: Holds<'_>, tell: Tell<'_>) -> Result<()> {
        let mut broken = Vec::new();
        self.index.come_back();
        let mut known = self.index.known()?;
        let mut found = self.find(known.as_ref(), &mut broken)?;
        let (tip, Joined { chain, leftovers, others }) = loop {
            let headers: Vec<&Header> = found.iter().map(|increment| &increment.header).collect();
            let tip = tip(&headers, holds)?;
            let joined = Joined::of(found.clone(), tip.as_ref());
            match self.index.follow(&known, &joined.chain, tell)? {
                Ok(()) => break (tip, joined),
                Err(Unreadable { at, error }) => {
                    let path = joined.chain[at].path.clone();
                    found.retain(|one| one.path != path);
                    known = self.index.known()?;
                    broken.push(Broken { path, problem: error.to_string() });
                }
            }
        };
        note_gaps(self.path(), &chain, &others, tip.as_ref(), &mut broken);
        let index = Some(self.index.tables()?);
        let mut inner = Inner { index, leftovers, others, broken, ..Inner::default() };
        inner.set_chain(chain);
        *self.inner.write() = inner;
        self.readers.lock().clear();
        Ok(())
    }

    /// The increments of this base that are as they should be, as far as their heads and ends tell.
    fn find(
        &self,
        known: Option<&BTreeMap<String, (Header, u64)>>,
        broken: &mut Vec<Broken>,
    ) -> Result<Vec<Increment>> {
        let mut found = Vec::new();
        for (name, bytes) in files(&self.directory)? {
            let path = self.path().join(&name);
            let header = match known.and_then(|known| known.get(&name)) {
                Some((header, known_bytes)) if *known_bytes == bytes => Ok(header.clone()),
                _ => Reader::open(&self.directory, &name).map(|reader| reader.header().clone()),
            };
            match header.and_then(|header| self.check_origin(&path, &name, header)) {
                Ok(header) => found.push(Increment { header, path, bytes }),
                // Also one that cannot be read: the others can.
                Err(error) => broken.push(Broken { path, problem: error.to_string() }),
            }
        }
        Ok(found)
    }

    /// Whether an increment is of this base, and the one that its name says.
    pub(super) fn check_origin(&self, path: &Path, name: &str, header: Header) -> Result<Header> {
        if header.store != self.label.store {
            return Err(Error::Store(format!("{} is an increment of another store", shown_file(path))));
        }
        if header.base_id != self.label.base || header.base != self.base {
            let text = format!("{} is an increment of another base, {:?}", shown_file(path), header.base_name);
            return Err(Error::Store(text));
        }
        let is = file_name(&header.from, &header.to);
        if name != is && name != old_file_name(&header.from) {
            return Err(Error::Store(format!("{} is not what its name says, but {is}", shown_file(path))));
        }
        Ok(header)
    }

    pub fn broken(&self) -> Vec<Broken> {
        self.inner.read().broken.clone()
    }

    /// The increments whose times can be reached, the oldest first.
    pub fn increments(&self) -> Vec<Increment> {
        self.inner.read().chain.values().cloned().collect()
    }

    /// Increments of this base whose times cannot be reached, the oldest first.
    pub fn others(&self) -> Vec<Increment> {
        self.inner.read().others.clone()
    }

    /// Parts of what was merged, which are still there, the oldest first.
    pub fn leftovers(&self) -> Vec<Leftover> {
        self.inner.read().leftovers.clone()
    }

    /// The newest snapshot that the store has and an increment leads to.
    pub fn tip(&self) -> Option<Mark> {
        self.inner.read().tip.clone()
    }

    /// What of it the store can reach, as it was found last.
    pub fn reach(&self) -> Reach {
        let inner = self.inner.read();
        Reach {
            others: inner.others.clone(),
            broken: inner.broken.clone(),
            ..Reach::of_chain(self.path(), inner.tip.clone(), inner.chain.values())
        }
    }

    /// The time that began in an epoch, if it can be reached.
    pub fn mark(&self, epoch: Epoch) -> Option<Mark> {
        self.inner.read().chain.get(&epoch).map(|increment| increment.header.from.clone())
    }

    /// The increment that begins with the time of an epoch, if that can be reached.
    pub fn increment_from(&self, epoch: Epoch) -> Option<Increment> {
        self.inner.read().chain.get(&epoch).cloned()
    }

    /// The newest time that can be reached and was taken by `save`.
    pub fn newest_save(&self) -> Option<Mark> {
        let inner = self.inner.read();
        inner.chain.values().rev().map(|increment| &increment.header.from).find(|mark| mark.purpose.is_save()).cloned()
    }

    /// The oldest time of this name that can be reached.
    pub fn named(&self, name: &str) -> Option<Mark> {
        let inner = self.inner.read();
        let epoch = inner.by_name.get(name)?;
        inner.chain.get(epoch).map(|increment| increment.header.from.clone())
    }

    /// Times after an epoch that can be reached, the oldest first.
    pub fn marks_after(&self, epoch: Epoch) -> Vec<Mark> {
        let inner = self.inner.read();
        let from = epoch.next();
        inner.chain.range(from..).map(|(_, increment)| increment.header.from.clone()).collect()
    }

    /// Entries of the index with `from <= key < to`, in order.
    pub fn range(&self, from: &[u8], to: &[u8]) -> Result<Box<dyn Iterator<Item = Result<Pair>>>> {
        match &self.inner.read().index {
            Some(index) => Ok(Box::new(index.range(Table::Preimage, from, to)?)),
            None => Err(Error::Posix(Errno::IO)),
        }
    }

    /// Takes up an increment that was written a moment ago and leads on from the tip.
    pub fn append(&self, increment: Increment, tell: Tell<'_>) -> Result<()> {
        self.index.take_up(&increment, tell)?;
        let index = self.index.tables()?;
        let mut inner = self.inner.write();
        let from = &increment.header.from;
        inner.by_name.entry(from.name.clone()).or_insert(from.epoch);
        inner.tip = Some(increment.header.to.clone());
        inner.chain.insert(from.epoch, increment);
        inner.set_index(index);
        Ok(())
    }

    /// What the index has now, and of which increments: to be asked for while neither changes.
    pub fn indexed(&self) -> Result<(Stored, Vec<Increment>)> {
        Ok((self.index.tables()?, self.increments()))
    }

    /// Whether the index had what the increments have; if not, it is empty now, and [`Archive::refresh`] fills it.
    pub fn check_index(&self, (tables, chain): &(Stored, Vec<Increment>), tell: Tell<'_>) -> Result<bool> {
        let agrees = self.index.agrees(tables, chain, tell)?;
        if !agrees {
            self.index.make_anew()?;
        }
        Ok(agrees)
    }

    /// Gives room of the index back that nothing is in any more, after increments were taken up.
    pub fn pack(&self) -> Result<()> {
        self.index.trim()?;
        let index = self.index.tables()?;
        self.inner.write().set_index(index);
        Ok(())
    }

    /// The bytes of a track that the increment between two epochs has.
    pub fn read(&self, ends: Ends, place: &Place) -> Result<Arc<Vec<u8>>> {
        self.reader(ends)?.read_track(place)
    }

    /// Keeps increments open that are about to go, for whoever has just been told to look there.
    pub(super) fn retire(&self, increments: &[Increment]) -> Result<()> {
        for one in increments.iter().rev().take(ARCHIVE_READERS_MAX) {
            self.reader((one.header.from.epoch, one.header.to.epoch))?;
        }
        Ok(())
    }

    fn reader(&self, increment: Ends) -> Result<Arc<Reader>> {
        let mut readers = self.readers.lock();
        if let Some(at) = readers.iter().position(|(ends, _)| *ends == increment) {
            let found = readers.remove(at);
            readers.push(found);
            return Ok(readers[readers.len() - 1].1.clone());
        }
        let found = {
            let inner = self.inner.read();
            let found = inner.chain.get(&increment.0).filter(|found| found.header.to.epoch == increment.1);
            found.cloned().ok_or(Error::Posix(Errno::IO))?
        };
        let reader = Arc::new(found.open(&self.directory)?);
        if readers.len() >= ARCHIVE_READERS_MAX {
            readers.remove(0);
        }
        readers.push((increment, reader.clone()));
        Ok(reader)
    }
}

/// The error for a directory in which the archive that was there is not.
pub fn not_there(directory: &Path) -> Error {
    let shown = shown_file(directory);
    let text = format!(
        "the archive {shown} is not there: the directory is missing or has no such archive; is its disk mounted? Make it available, or give it up with `pitfs archive detach`"
    );
    Error::Refused(Errno::NOENT, text)
}

/// Takes an archive, which then nobody else can open, for as long as the file is open; or, where nobody can write to it,
/// beside others who read it.
pub fn lock(directory: &Directory) -> Result<File> {
    let path = directory.path();
    let is_shared = super::check_writable(directory).is_err();
    let locked = directory.try_lock_whole(is_shared).map_err(|error| failed("locking", path, error))?;
    locked.ok_or_else(|| {
        let text = format!(
            "the archive {} is in use by a copy of this store; unmount that one first, or end what it does",
            shown_file(path)
        );
        Error::Refused(Errno::BUSY, text)
    })
}

/// What is in a directory of increments, without opening it as an archive: nothing is written.
#[derive(Debug, Default)]
pub struct Survey {
    /// All increments, the oldest first.
    pub increments: Vec<Increment>,
    /// Which of them are parts of others.
    pub leftovers: Vec<Leftover>,
    pub broken: Vec<Broken>,
}

impl Survey {
    pub fn of(directory: &Directory) -> Result<Survey> {
        let (increments, mut broken) = read_all(directory)?;
        let newest = increments.last().map(|newest| newest.header.to.clone());
        let Joined { chain, leftovers, others } = Joined::of(increments.clone(), newest.as_ref());
        note_gaps(directory.path(), &chain, &others, newest.as_ref(), &mut broken);
        Ok(Survey { increments, leftovers, broken })
    }
}

/// All increments in a directory, the oldest first, and what cannot be read as one.
pub(super) fn read_all(directory: &Directory) -> Result<(Vec<Increment>, Vec<Broken>)> {
    let (mut increments, mut broken) = (Vec::new(), Vec::new());
    for (name, bytes) in files(directory)? {
        let path = directory.path().join(&name);
        match Reader::open(directory, &name) {
            Ok(reader) => increments.push(Increment { header: reader.header().clone(), path, bytes }),
            Err(error) => broken.push(Broken { path, problem: error.to_string() }),
        }
    }
    increments.sort_by_key(|increment| increment.header.from.epoch);
    Ok((increments, broken))
}

/// Names and lengths of the files that are increments by name.
pub(super) fn files(directory: &Directory) -> Result<Vec<(String, u64)>> {
    let listing = |error| failed("listing", directory.path(), error);
    let mut files = Vec::new();
    for name in directory.names().map_err(listing)? {
        if let Ok(name) = name.into_string()
            && name.ends_with(SUFFIX)
            && !name.starts_with('.')
            // What is no plain file has none: opening it says what is wrong. One without a length was removed meanwhile.
            && let Some(bytes) = directory.bytes(&name).map_err(listing)?
        {
            files.push((name, bytes));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Says which times cannot be reached because an increment after them is not there.
pub(super) fn note_gaps(
    directory: &Path,
    chain: &[Increment],
    others: &[Increment],
    tip: Option<&Mark>,
    broken: &mut Vec<Broken>,
) {
    let end = chain.first().map(|first| first.header.from.epoch).or(tip.map(|tip| tip.epoch)).unwrap_or(Epoch::MAX);
    let lost: Vec<&Increment> = others.iter().filter(|one| one.header.to.epoch <= end).collect();
    let (Some(first), Some(last)) = (lost.first(), lost.last()) else { return };
    let (from, to) = (first.header.from.time.as_text(), last.header.from.time.as_text());
    let times = match lost.len() {
        1 => format!("the time {from} cannot be reached until it is put back"),
        many => format!("the {many} times from {from} to {to} cannot be reached until it is put back"),
    };
    let next = &last.header.to;
    let behind = chain.first().map(|first| &first.header.from).or(tip);
    // If several are missing it is called by its ends.
    let path = behind.map_or(directory.to_path_buf(), |behind| directory.join(file_name(next, behind)));
    broken.push(Broken {
        path,
        problem: format!(
            "the increment from {:?} ({}) on is missing or damaged: {times}",
            next.name,
            next.time.as_text()
        ),
    });
}
