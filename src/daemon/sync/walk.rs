//! Reading the source ahead: a thread of its own lists directories and looks at what is in them, in the
//! order in which they are compared.

use super::exclude::Pattern;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

/// Directories that are listed ahead.
pub(super) const AHEAD: usize = 64;
/// Bytes of files that are read ahead.
const BYTES_AHEAD: u64 = 64 << 20;
/// Bytes of one file that are read ahead; of a larger one, the kernel reads the rest ahead by itself.
const FILE_BYTES_AHEAD: u64 = 1 << 20;

/// A directory of the source.
pub(super) struct Listing {
    path: PathBuf,
    pub entries: io::Result<Vec<Entry>>,
}

/// A name in a directory of the source.
pub(super) struct Entry {
    pub name: OsString,
    /// The path from the source's root.
    pub relative: PathBuf,
    pub metadata: io::Result<Metadata>,
}

/// What of the source is passed over.
#[derive(Default)]
pub(super) struct Skipped {
    pub exclude: Vec<Pattern>,
    /// Directories that must not be brought into themselves.
    pub own: Vec<(u64, u64)>,
    /// Whether every file will be read: then the disk may begin with them.
    pub reads_all: AtomicBool,
    /// Bytes of files that have been looked at, and of those that have been read.
    pub asked: AtomicU64,
    pub done: AtomicU64,
}

impl Skipped {
    pub fn is_excluded(&self, relative: &Path) -> bool {
        self.exclude.iter().any(|pattern| pattern.matches(relative))
    }

    pub fn is_own(&self, metadata: &Metadata) -> bool {
        metadata.is_dir() && self.own.contains(&(metadata.dev(), metadata.ino()))
    }

    /// Lets the disk begin to read a file.
    fn read_ahead(&self, path: &Path, size: u64) {
        let asked = self.asked.fetch_add(size, Ordering::Relaxed) + size;
        if asked.saturating_sub(self.done.load(Ordering::Relaxed)) > BYTES_AHEAD {
            return;
        }
        if let Ok(file) = super::content::open(path) {
            // What goes wrong here shows when the file is read.
            let len = NonZeroU64::new(size.min(FILE_BYTES_AHEAD));
            let _only_a_hint = rustix::fs::fadvise(&file, 0, len, rustix::fs::Advice::WillNeed);
        }
    }

    fn list(&self, path: &Path, relative: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            let relative = relative.join(&name);
            if self.is_excluded(&relative) {
                continue;
            }
            entries.push(Entry { name, relative, metadata: entry.metadata() });
        }
        Ok(entries)
    }

    /// Lists a directory and all below it; false when nobody listens any more.
    pub fn walk(&self, path: &Path, relative: &Path, listener: &SyncSender<Listing>) -> bool {
        let entries = self.list(path, relative);
        let is_directory =
            |entry: &&Entry| entry.metadata.as_ref().is_ok_and(|metadata| metadata.is_dir() && !self.is_own(metadata));
        let below: Vec<(PathBuf, PathBuf)> = entries
            .iter()
            .flatten()
            .filter(is_directory)
            .map(|entry| (path.join(&entry.name), entry.relative.clone()))
            .collect();
        let files: Vec<(PathBuf, u64)> = match self.reads_all.load(Ordering::Relaxed) {
            true => {
                entries.iter().flatten().filter_map(|entry| Some((path.join(&entry.name), file_size(entry)?))).collect()
            }
            false => Vec::new(),
        };
        if listener.send(Listing { path: path.to_path_buf(), entries }).is_err() {
            return false;
        }
        files.iter().for_each(|(path, size)| self.read_ahead(path, *size));
        below.iter().all(|(path, relative)| self.walk(path, relative, listener))
    }
}

fn file_size(entry: &Entry) -> Option<u64> {
    let metadata = entry.metadata.as_ref().ok()?;
    (metadata.is_file() && metadata.len() > 0).then_some(metadata.len())
}

/// The listing of a directory. Those before it in the walk's order are not wanted any more.
pub(super) fn next(listings: &Receiver<Listing>, path: &Path) -> io::Result<Vec<Entry>> {
    loop {
        match listings.recv() {
            Ok(listing) if listing.path == path => return listing.entries,
            Ok(_) => {}
            Err(_) => return Err(io::Error::other("it has disappeared")),
        }
    }
}
