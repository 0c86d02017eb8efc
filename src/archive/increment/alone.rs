//! The file of one increment as a shelf, which has one set under whatever name that asks for.

use crate::media::{Directory, DiskShelf, Object, Putting, Shelf};
use crate::shown::shown_file;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

/// One that is open: it stays what it was when its name goes.
#[derive(Debug)]
pub(super) struct Opened {
    pub file: File,
    pub path: PathBuf,
}

#[derive(Debug)]
struct OpenObject(File, u64);

impl Object for OpenObject {
    fn len(&self) -> u64 {
        self.1
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }
}

/// One that is to be made.
#[derive(Debug)]
pub(super) struct Made {
    pub directory: Arc<Directory>,
    pub name: String,
}

fn only_this() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "an increment is one file")
}

impl Shelf for Opened {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        Err(only_this())
    }

    fn open(&self, _name: &str) -> io::Result<Box<dyn Object>> {
        let file = self.file.try_clone()?;
        let len = file.metadata()?.len();
        Ok(Box::new(OpenObject(file, len)))
    }

    fn put(&self, _name: &str) -> io::Result<Box<dyn Putting>> {
        Err(only_this())
    }

    fn replace(&self, _name: &str, _content: &[u8]) -> io::Result<()> {
        Err(only_this())
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Err(only_this())
    }

    fn clear(&self) -> io::Result<()> {
        Err(only_this())
    }

    fn describe(&self) -> String {
        shown_file(&self.path).to_string()
    }

    fn path_of(&self, _name: &str) -> String {
        self.describe()
    }
}

impl Shelf for Made {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        Err(only_this())
    }

    fn open(&self, _name: &str) -> io::Result<Box<dyn Object>> {
        Err(only_this())
    }

    fn put(&self, _name: &str) -> io::Result<Box<dyn Putting>> {
        DiskShelf::of(self.directory.clone()).put(&self.name)
    }

    fn replace(&self, _name: &str, _content: &[u8]) -> io::Result<()> {
        Err(only_this())
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Err(only_this())
    }

    fn clear(&self) -> io::Result<()> {
        Err(only_this())
    }

    fn describe(&self) -> String {
        shown_file(&self.directory.path().join(&self.name)).to_string()
    }

    fn path_of(&self, _name: &str) -> String {
        self.describe()
    }
}
