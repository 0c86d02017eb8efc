//! The file of one increment as a shelf, which has one set under whatever name that asks for.

use crate::media::{Directory, DiskObject, DiskShelf, Object, Putting, Shelf};
use crate::shown::shown_file;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// It is there and open, or is to be made.
#[derive(Debug)]
pub(super) enum Alone {
    /// It stays what it was when its name goes.
    Opened {
        file: File,
        path: PathBuf,
    },
    Made {
        directory: Arc<Directory>,
        name: String,
    },
}

fn only_this() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "an increment is one file")
}

impl Shelf for Alone {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        Err(only_this())
    }

    fn open(&self, _name: &str) -> io::Result<Box<dyn Object>> {
        match self {
            Alone::Opened { file, .. } => Ok(Box::new(DiskObject::of(file.try_clone()?)?)),
            Alone::Made { .. } => Err(only_this()),
        }
    }

    fn put(&self, _name: &str) -> io::Result<Box<dyn Putting>> {
        match self {
            Alone::Opened { .. } => Err(only_this()),
            Alone::Made { directory, name } => DiskShelf::of(directory.clone()).put(name),
        }
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
        match self {
            Alone::Opened { path, .. } => shown_file(path).to_string(),
            Alone::Made { directory, name } => shown_file(&directory.path().join(name)).to_string(),
        }
    }

    fn path_of(&self, _name: &str) -> String {
        self.describe()
    }
}
