//! Increments outside the store: files that need nothing else to be read, written once and never changed.
//!
//! This layer knows how such a file is laid out, that its records have a table, a key, a birth and a value, and which
//! increments lead to which. What the records mean is for the layers above.

mod catalog;
mod chain;
mod increment;
mod index;
mod join;
mod label;
mod leftover;
mod reach;
mod shorten;
#[cfg(test)]
mod tests;

pub use crate::set::Mark;
pub use catalog::{Archive, Broken, Holds, Survey, file_name, lock, not_there};
pub use increment::{Entries, Entry, Header, LEVEL, Place, Reader, Summary, Value, Writer, before_ids};
pub use index::{IndexEntry, Tell, has_index, remove_index};
pub use join::TakenIn;
pub use label::Label;
pub use leftover::Leftover;
pub use reach::Reach;
pub use shorten::Merged;

use crate::error::{Errno, Error, Result};
use crate::media::Directory;
use crate::shown::shown_file;
use std::path::{Path, PathBuf};

/// One increment of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Increment {
    pub header: Header,
    pub path: PathBuf,
    /// Length of the file.
    pub bytes: u64,
}

/// Opens the increment in a file, which has to be the one that its name says.
pub fn open_named(directory: &Directory, name: &str) -> Result<Reader> {
    let reader = Reader::open(directory, name)?;
    let header = reader.header();
    let is = file_name(&header.from, &header.to);
    match name == is || name == catalog::old_file_name(&header.from) {
        true => Ok(reader),
        false => Err(not_as_named(reader.path(), &is)),
    }
}

fn not_as_named(path: &Path, is: &str) -> Error {
    Error::corrupt(shown_file(path).to_string(), format!("it is not what its name says, but {is}"))
}

impl Increment {
    /// The name of its file.
    fn name(&self) -> String {
        self.path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned())
    }

    /// Opens its file in the directory in which it was found, which has to be of this very increment: another may have been put
    /// in its place under its name.
    pub fn open(&self, directory: &Directory) -> Result<Reader> {
        let reader = Reader::open(directory, &self.name())?;
        if *reader.header() == self.header {
            return Ok(reader);
        }
        Err(not_as_named(&self.path, &file_name(&reader.header().from, &reader.header().to)))
    }

    /// Whether it was saved before there were ids.
    pub fn is_of_format_3(&self) -> bool {
        self.name() == catalog::old_file_name(&self.header.from)
    }
}

/// What an increment's file is called until it is whole.
fn temporary_name(name: &str) -> String {
    format!(".{name}.new")
}

fn failed(doing: &str, path: &Path, error: std::io::Error) -> Error {
    Error::media(format!("{doing} {}", shown_file(path)), error)
}

/// What a full disk met while something was written to an archive, in words: not the store's disk is full.
pub fn explain_no_room(directory: &Path, error: Error) -> Error {
    if !error.is_no_space() {
        return error;
    }
    let text = format!(
        "there is no room in the archive {}: {error}. What was saved before is whole, and nothing was freed for this. Make room on \
         its disk, or let its oldest times go (`pitfs archive prune`), and run this again",
        shown_file(directory)
    );
    Error::Refused(error.errno(), text)
}

/// That increments can be saved to a directory, and removed from it.
pub fn check_writable(directory: &Directory) -> Result<()> {
    use rustix::fs::{Access, AtFlags, accessat};
    let (shown, wanted) = (shown_file(directory.path()), Access::WRITE_OK | Access::EXEC_OK);
    let why = match accessat(directory.as_file(), ".", wanted, AtFlags::EACCESS) {
        Ok(()) => return Ok(()),
        Err(Errno::ROFS) => "its file system is mounted read-only",
        Err(Errno::ACCESS | Errno::PERM) => "this user may not write to its directory",
        Err(errno) => return Err(failed("looking at", directory.path(), errno.into())),
    };
    let text = format!(
        "the archive {shown} can only be read: {why}. Nothing was changed. Its times are shown all the same; to save to it or to let \
         times go, make it writable"
    );
    Err(Error::Refused(Errno::ROFS, text))
}

/// Makes the names in an archive's directory durable.
fn sync(directory: &Directory) -> Result<()> {
    directory.sync().map_err(|error| failed("syncing", directory.path(), error))
}
