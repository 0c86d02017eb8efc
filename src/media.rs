//! The only door to bytes on disk.
//!
//! A [`MediaDir`] is a store's directory and a [`Media`] one file in it. Two kinds exist: real files
//! (`media/disk.rs`) and a test media that keeps everything in memory, knows what has been synced and
//! can stop at any sync (`media/test.rs`). Bytes in memory that are to become a file are media too,
//! and so is what is written over a file that may only be read.

mod directory;
mod disk;
mod memory;
mod scratch;
mod shelf;
mod test;

pub use directory::{Access, Directory, open_directory, open_regular};
pub use disk::DiskDir;
pub use memory::MemoryMedia;
pub use scratch::{ScratchDir, ScratchMedia};
pub use shelf::{DiskObject, DiskShelf, Object, Putting, Shelf, TestShelf};
pub use test::{Tearing, TestDir};

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

/// Bytes at addresses, as on a disk. Offsets and lengths are in bytes.
#[expect(clippy::len_without_is_empty, reason = "a media's length is that of a disk, never of a collection")]
pub trait Media: Debug + Send + Sync {
    fn len(&self) -> io::Result<u64>;
    /// Fills `out`; `UnexpectedEof` where the media is shorter.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Returns once everything written before the call would survive a power cut.
    fn sync(&self) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes sure that writes to this range cannot run out of room; grows the media if need be.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Gives the room of this range back; it reads as zeros afterwards.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
}

/// Room on the file system that carries a store, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub total: u64,
    /// What this process may still use.
    pub available: u64,
}

/// What a file that is to take another one's place is called.
fn replacement_of(name: &str) -> String {
    format!("{name}.new")
}

/// The files of one store.
pub trait MediaDir: Debug + Send + Sync {
    /// Opens a file of the store; with `create`, makes it if it does not exist.
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn Media>>;
    fn exists(&self, name: &str) -> io::Result<bool>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Replaces a file as a whole and durably: afterwards it has the old content or the new. Blocks of zeros take no
    /// room. A file that was opened before stays what it was. A crash may leave what [`MediaDir::tidy`] removes.
    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()>;
    /// Removes what is left of replacing a file.
    fn tidy(&self, name: &str) -> io::Result<()> {
        self.remove(&replacement_of(name))
    }
    fn room(&self) -> io::Result<Room>;
    /// Where the directory is, for messages.
    fn describe(&self) -> String;
}
