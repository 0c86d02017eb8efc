//! Writing an increment, entry by entry: a reverse set under the name of an increment.

use super::alone::Alone;
use super::{Header, Summary};
use crate::archive::label::Label;
use crate::clock::Epoch;
use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::limits::ARCHIVE_HEADER_BYTES_MAX;
use crate::media::Directory;
use crate::meta::encode;
use crate::set::{self, Seal};
use crate::shown::shown_file;
use std::path::PathBuf;
use std::sync::Arc;

/// An increment that is being written, under a temporary name that goes with it unless it is finished.
pub struct Writer {
    set: set::Writer,
    path: PathBuf,
}

impl Writer {
    /// Begins a file in a directory under a temporary name, `.NAME.new`. A file that is left over under that name is
    /// replaced; one under the final name never is. `level` is that of zstd.
    pub fn create(directory: &Arc<Directory>, name: &str, header: &Header, level: i32) -> Result<Writer> {
        let path = directory.path().join(name);
        let header = header.in_set();
        let len = encode(&header).len();
        if len > ARCHIVE_HEADER_BYTES_MAX {
            let text = format!(
                "{}: its header would have {len} bytes, and {ARCHIVE_HEADER_BYTES_MAX} are allowed; use shorter names",
                shown_file(&path)
            );
            return Err(Error::Refused(Errno::NAMETOOLONG, text));
        }
        Label::raise(directory)?;
        let shelf = Alone::Made { directory: directory.clone(), name: name.into() };
        let set = set::Writer::create(&shelf, Id::random(), &header, &Seal::plain(), level)?;
        Ok(Writer { set, path })
    }

    /// Adds a record's old value, without its birth. Entries come in ascending order of table and key.
    pub fn record(&mut self, table: u8, key: &[u8], birth: Epoch, value: &[u8]) -> Result<()> {
        self.set.record(&super::full_key(table, key), birth, value)
    }

    /// Adds the bytes of an old track. Entries come in ascending order of table and key.
    pub fn track(&mut self, table: u8, key: &[u8], birth: Epoch, bytes: &[u8]) -> Result<()> {
        self.set.track(&super::full_key(table, key), birth, bytes)
    }

    /// Writes the index and the end, syncs the file, gives it its final name and syncs the directory. With that the
    /// increment exists, whole.
    pub fn finish(self) -> Result<Summary> {
        let written = self.set.finish()?;
        let (records, tracks, track_bytes) = (written.foot.records, written.foot.tracks, written.added);
        Ok(Summary { path: self.path, bytes: written.bytes, records, tracks, track_bytes })
    }
}
