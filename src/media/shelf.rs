//! The one door to what lies outside a store and is written once: objects by name, whole or not there.
//!
//! A [`Shelf`] can be a directory, and later a bucket or another machine: so an object is written from its beginning to its end,
//! and read in ranges; nothing in one is ever changed.

use super::Directory;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Objects by their names, which are names of files without a dot in front.
pub trait Shelf: Debug + Send + Sync {
    /// The names of all objects, and their lengths in bytes, in no order.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
    /// Opens an object; `NotFound` where there is none.
    fn open(&self, name: &str) -> io::Result<Box<dyn Object>>;
    /// Begins an object. It is not there before it is finished, and goes unfinished when it is dropped. `AlreadyExists` comes at
    /// the end, where something has the name by then.
    fn put(&self, name: &str) -> io::Result<Box<dyn Putting>>;
    /// Puts a small object in the place of what has its name: afterwards there is the old one or the new, whole and durable.
    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()>;
    /// Removes an object, if it is there.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Removes what was begun and never finished. Nobody is to be writing anything.
    fn clear(&self) -> io::Result<()>;
    /// Where it is, for messages.
    fn describe(&self) -> String;
    /// Where an object of a name is, for messages.
    fn path_of(&self, name: &str) -> String {
        format!("{}/{name}", self.describe())
    }
}

/// An object that is read.
#[expect(clippy::len_without_is_empty, reason = "an object's length is that of a file, never of a collection")]
pub trait Object: Debug + Send + Sync {
    /// Its length in bytes, which does not change.
    fn len(&self) -> u64;
    /// Fills `out`; `UnexpectedEof` where the object is shorter.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
}

/// An object that is being written.
pub trait Putting: Send {
    /// Adds to its end.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Returns once it is there under its name, whole and durable.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// A directory of plain files.
#[derive(Clone, Debug)]
pub struct DiskShelf(Arc<Directory>);

/// What an object is called until it is whole.
fn unfinished(name: &str) -> String {
    format!(".{name}.new")
}

impl DiskShelf {
    pub fn of(directory: Arc<Directory>) -> DiskShelf {
        DiskShelf(directory)
    }
}

/// A plain file that is read.
#[derive(Debug)]
pub struct DiskObject {
    file: File,
    len: u64,
}

impl DiskObject {
    /// As long as the file is now.
    pub fn of(file: File) -> io::Result<DiskObject> {
        let len = file.metadata()?.len();
        Ok(DiskObject { file, len })
    }
}

struct DiskPutting {
    directory: Arc<Directory>,
    name: String,
    file: File,
    is_finished: bool,
}

impl Shelf for DiskShelf {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut found = Vec::new();
        for name in self.0.names()? {
            if let Ok(name) = name.into_string()
                && !name.starts_with('.')
                && self.0.kind(&name)?.is_some_and(|kind| kind.is_file())
                && let Some(bytes) = self.0.bytes(&name)?
            {
                found.push((name, bytes));
            }
        }
        Ok(found)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Object>> {
        Ok(Box::new(DiskObject::of(self.0.open_plain(name)?)?))
    }

    fn put(&self, name: &str) -> io::Result<Box<dyn Putting>> {
        let file = self.0.make_anew(&unfinished(name))?;
        Ok(Box::new(DiskPutting { directory: self.0.clone(), name: name.into(), file, is_finished: false }))
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let file = self.0.make_anew(&unfinished(name))?;
        let written = file.write_all_at(content, 0).and_then(|()| file.sync_all());
        let placed = written.and_then(|()| self.0.rename(&unfinished(name), name));
        if placed.is_err() {
            // What is left of it is removed by the next, at the latest.
            self.0.remove(&unfinished(name)).unwrap_or_default();
        }
        placed.and_then(|()| self.0.sync())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name).and_then(|()| self.0.sync())
    }

    fn clear(&self) -> io::Result<()> {
        for name in self.0.names()? {
            let Ok(name) = name.into_string() else { continue };
            if name.starts_with('.') && name.ends_with(".new") && self.0.kind(&name)?.is_some_and(|kind| kind.is_file())
            {
                self.0.remove(&name)?;
            }
        }
        Ok(())
    }

    fn describe(&self) -> String {
        crate::shown::shown_file(self.0.path()).to_string()
    }
}

impl Object for DiskObject {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }
}

impl Putting for DiskPutting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut self.file, bytes)
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.file.sync_all()?;
        self.directory.rename_new(&unfinished(&self.name), &self.name)?;
        self.is_finished = true;
        self.directory.sync()
    }
}

impl Drop for DiskPutting {
    fn drop(&mut self) {
        if !self.is_finished {
            self.directory.remove(&unfinished(&self.name)).unwrap_or_default();
        }
    }
}

/// Objects in memory, for tests: with writes that can be counted and made to fail.
#[derive(Debug, Default)]
pub struct TestShelf {
    objects: Mutex<BTreeMap<String, Arc<Vec<u8>>>>,
    /// Bytes that were read, and how often.
    pub read: AtomicU64,
    pub reads: AtomicU64,
    /// Writes that succeed from now on, if that is limited.
    left: Mutex<Option<u64>>,
}

impl TestShelf {
    /// Lets so many more writes succeed, or all.
    pub fn fail_after(&self, writes: Option<u64>) {
        *self.left.lock() = writes;
    }

    /// What there is, to be changed.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(object) = self.objects.lock().get_mut(name) {
            change(Arc::make_mut(object));
        }
    }

    fn may_write(&self) -> io::Result<()> {
        match &mut *self.left.lock() {
            Some(0) => Err(io::Error::from(rustix::io::Errno::NOSPC)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[derive(Debug)]
struct TestObject {
    shelf: Arc<TestShelf>,
    bytes: Arc<Vec<u8>>,
}

struct TestPutting {
    shelf: Arc<TestShelf>,
    name: String,
    bytes: Vec<u8>,
}

impl Shelf for Arc<TestShelf> {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.objects.lock().iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Object>> {
        let bytes = self.objects.lock().get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(TestObject { shelf: self.clone(), bytes }))
    }

    fn put(&self, name: &str) -> io::Result<Box<dyn Putting>> {
        self.may_write()?;
        Ok(Box::new(TestPutting { shelf: self.clone(), name: name.into(), bytes: Vec::new() }))
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.may_write()?;
        self.objects.lock().insert(name.into(), Arc::new(content.to_vec()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.may_write()?;
        self.objects.lock().remove(name);
        Ok(())
    }

    fn clear(&self) -> io::Result<()> {
        self.may_write()
    }

    fn describe(&self) -> String {
        "memory".into()
    }
}

impl Object for TestObject {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let found = usize::try_from(offset).ok().and_then(|at| self.bytes.get(at..)?.get(..out.len()));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        self.shelf.read.fetch_add(out.len() as u64, Ordering::Relaxed);
        self.shelf.reads.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Putting for TestPutting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.shelf.may_write()?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        self.shelf.may_write()?;
        match self.shelf.objects.lock().entry(self.name) {
            std::collections::btree_map::Entry::Vacant(place) => drop(place.insert(Arc::new(self.bytes))),
            std::collections::btree_map::Entry::Occupied(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_a_shelf(shelf: &dyn Shelf) {
        let mut first = shelf.put("one").unwrap();
        first.write(b"some").unwrap();
        assert!(shelf.list().unwrap().is_empty(), "what is not finished is not there");
        first.write(b"thing").unwrap();
        first.finish().unwrap();
        shelf.put("two").unwrap().write(b"dropped").unwrap();
        assert_eq!(shelf.list().unwrap(), [("one".to_string(), 9)]);
        let object = shelf.open("one").unwrap();
        let mut out = [0; 5];
        object.read_at(4, &mut out).unwrap();
        assert_eq!((&out, object.len()), (b"thing", 9));
        assert_eq!(object.read_at(5, &mut out).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let again = shelf.put("one").unwrap().finish();
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AlreadyExists, "nothing is replaced unasked");
        shelf.replace("one", b"other").unwrap();
        assert_eq!(object.len(), 9, "what was opened stays what it was");
        shelf.open("one").unwrap().read_at(0, &mut out).unwrap();
        assert_eq!(&out, b"other");
        shelf.remove("one").and_then(|()| shelf.remove("one")).unwrap();
        assert_eq!(shelf.open("one").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(shelf.list().unwrap().is_empty());
    }

    #[test]
    fn an_object_is_there_when_it_is_whole_and_never_changed() {
        is_a_shelf(&Arc::new(TestShelf::default()));
        let dir = tempfile::tempdir().unwrap();
        is_a_shelf(&DiskShelf::of(Arc::new(Directory::open(dir.path()).unwrap())));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "and nothing is left of what was not finished");
    }
}
