//! Reading the source ahead: a thread of its own lists directories and looks at what is in them, in the
//! order in which they are compared.

use super::exclude::Pattern;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender};

/// Directories that are listed ahead.
pub(super) const AHEAD: usize = 64;

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
pub(super) struct Skipped {
    pub exclude: Vec<Pattern>,
    /// Directories that must not be brought into themselves.
    pub own: Vec<(u64, u64)>,
}

impl Skipped {
    pub fn is_excluded(&self, relative: &Path) -> bool {
        self.exclude.iter().any(|pattern| pattern.matches(relative))
    }

    pub fn is_own(&self, metadata: &Metadata) -> bool {
        metadata.is_dir() && self.own.contains(&(metadata.dev(), metadata.ino()))
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
        listener.send(Listing { path: path.to_path_buf(), entries }).is_ok()
            && below.iter().all(|(path, relative)| self.walk(path, relative, listener))
    }
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
