//! Reading the source ahead: a thread of its own lists directories and looks at what is in them, in the
//! order in which they are compared.

use super::exclude::Pattern;
use super::facts::Facts;
use crate::daemon::descent::{Descent, Identity};
use rustix::fs::{Dir, FileType, OFlags};
use std::collections::{HashMap, HashSet};
use std::io;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;

/// Directories that are listed ahead.
pub(super) const AHEAD: usize = 64;
/// Bytes of files that are read ahead.
const BYTES_AHEAD: u64 = 64 << 20;
/// Bytes of one file that are read ahead; of a larger one, the kernel reads the rest ahead by itself.
const FILE_BYTES_AHEAD: u64 = 1 << 20;

/// A directory of the source with what is in it. They come in the order of the walk: each before those in it, and
/// these in the order of its entries, as far as these are entered.
pub(super) type Listing = io::Result<(Arc<OwnedFd>, Vec<Entry>)>;

/// A name in a directory of the source.
pub(super) struct Entry {
    pub name: Vec<u8>,
    pub facts: io::Result<Facts>,
    /// A directory whose listing follows.
    pub is_entered: bool,
    /// Why it is not brought in.
    pub left_out: Option<&'static str>,
}

/// What of the source is passed over.
#[derive(Default)]
pub(super) struct Skipped {
    pub exclude: Vec<Pattern>,
    /// Directories of this store, which must not be brought into it, and what they are.
    pub own: HashMap<Identity, &'static str>,
    /// Paths from the source's root at which this store is mounted: not even looked at, since whoever looks is served
    /// by this process.
    pub mounted: HashSet<Vec<u8>>,
    /// The device beyond which nothing is entered.
    pub only_device: Option<u64>,
    /// Whether every file will be read: then the disk may begin with them.
    pub reads_all: AtomicBool,
    /// Bytes of files that have been looked at, and of those that have been read.
    pub asked: AtomicU64,
    pub done: AtomicU64,
}

const OWN_MOUNT: &str = "this store's own mount";

impl Skipped {
    pub fn is_excluded(&self, relative: &[u8], is_directory: bool) -> bool {
        self.exclude.iter().any(|pattern| pattern.matches(relative, is_directory))
    }

    /// Lets the disk begin to read a file.
    fn read_ahead(&self, directory: &OwnedFd, name: &[u8], size: u64) {
        let asked = self.asked.fetch_add(size, Ordering::Relaxed) + size;
        if asked.saturating_sub(self.done.load(Ordering::Relaxed)) > BYTES_AHEAD {
            return;
        }
        if let Ok(file) = super::content::open(directory, name) {
            // What goes wrong here shows when the file is read.
            let len = NonZeroU64::new(size.min(FILE_BYTES_AHEAD));
            let _only_a_hint = rustix::fs::fadvise(&file, 0, len, rustix::fs::Advice::WillNeed);
        }
    }

    /// Looks at a name; `None` if it is excluded.
    fn entry(&self, directory: &OwnedFd, relative: &[u8], name: &[u8], kind: FileType) -> Option<Entry> {
        if self.mounted.contains(relative) {
            let facts = Err(io::ErrorKind::Unsupported.into());
            return Some(Entry { name: name.to_vec(), facts, is_entered: false, left_out: Some(OWN_MOUNT) });
        }
        // What is excluded is not touched, as far as the listing tells what it is.
        if kind != FileType::Unknown && self.is_excluded(relative, kind == FileType::Directory) {
            return None;
        }
        let facts = Facts::at(directory, name);
        let (mut is_entered, mut left_out) = (false, None);
        if let Ok(facts) = &facts {
            if kind == FileType::Unknown && self.is_excluded(relative, facts.is_directory()) {
                return None;
            }
            left_out = if facts.is_directory() { self.own.get(&facts.identity()).copied() } else { None };
            let is_beyond = self.only_device.is_some_and(|device| device != facts.device);
            is_entered = facts.is_directory() && left_out.is_none() && !is_beyond;
        }
        Some(Entry { name: name.to_vec(), facts, is_entered, left_out })
    }

    fn list(&self, directory: &OwnedFd, relative: &[u8]) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut path = relative.to_vec();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            path.truncate(relative.len());
            push(&mut path, name);
            entries.extend(self.entry(directory, &path, name, entry.file_type()));
        }
        Ok(entries)
    }

    /// Lists the directory in which a descent is and hands the listing over; the names in it that are to be entered, the
    /// last first, or `None` when nobody listens any more.
    fn visit(&self, descent: &Descent, relative: &[u8], listener: &SyncSender<Listing>) -> Option<Vec<Vec<u8>>> {
        let listing = descent.here().and_then(|here| Ok((here.clone(), self.list(here, relative)?)));
        let entries = listing.iter().flat_map(|(_, entries)| entries);
        let below = entries.rev().filter(|entry| entry.is_entered).map(|entry| entry.name.clone()).collect();
        let mut files = Vec::new();
        if self.reads_all.load(Ordering::Relaxed)
            && let Ok((directory, entries)) = &listing
        {
            let sized = entries.iter().filter_map(|entry| Some((entry.name.clone(), file_size(entry)?)));
            files = sized.map(|(name, size)| (directory.clone(), name, size)).collect();
        }
        listener.send(listing).ok()?;
        files.iter().for_each(|(directory, name, size)| self.read_ahead(directory, name, *size));
        Some(below)
    }

    /// Lists a directory and all below it.
    pub fn walk(&self, root: OwnedFd, listener: &SyncSender<Listing>) -> io::Result<()> {
        let mut descent = Descent::begin(root, OFlags::RDONLY)?;
        let mut path = Vec::new();
        let Some(below) = self.visit(&descent, &path, listener) else { return Ok(()) };
        let mut pending = vec![below];
        while let Some(below) = pending.last_mut() {
            let Some(name) = below.pop() else {
                pending.pop();
                if !pending.is_empty() {
                    descent.leave()?;
                    pop(&mut path);
                }
                continue;
            };
            if let Err(error) = descent.enter(&name) {
                if listener.send(Err(error)).is_err() {
                    return Ok(());
                }
                continue;
            }
            push(&mut path, &name);
            match self.visit(&descent, &path, listener) {
                Some(below) => pending.push(below),
                None => return Ok(()),
            }
        }
        Ok(())
    }
}

/// Appends a name to a path.
pub(super) fn push(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// Takes the last name off a path.
pub(super) fn pop(path: &mut Vec<u8>) {
    path.truncate(path.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
}

fn file_size(entry: &Entry) -> Option<u64> {
    let facts = entry.facts.as_ref().ok()?;
    (facts.is_file() && facts.size > 0).then_some(facts.size)
}
