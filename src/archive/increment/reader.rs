//! Reading an increment: one entry, a range or all of them, and the bytes of tracks. It is a reverse set, or one of the files that
//! were written before there were sets.

use super::alone::Alone;
use super::{Entry, Header, Place, Summary, Value, former, full_key};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::media::{Directory, Shelf};
use crate::set::{self, Scan, Sets, Spot, id_in};
use crate::shown::shown_file;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An increment's file, open for reading. Threads may share it.
#[derive(Debug)]
pub enum Reader {
    Set(Box<Reverse>),
    Former(Box<former::Reader>),
}

/// A reverse set.
pub struct Reverse {
    sets: Sets,
    id: Id,
    header: Header,
    summary: Summary,
}

impl std::fmt::Debug for Reverse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reverse").field("path", &self.summary.path).finish()
    }
}

/// The entries of an increment, or some of them, in order. Where something is damaged there is one error, and the entries behind it
/// still come.
pub enum Entries<'a> {
    Set(&'a Reverse, Scan<'a>),
    Former(former::Entries<'a>),
    /// There are none, for this reason.
    Failed(Option<Error>),
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        match self {
            Entries::Set(of, scan) => scan.next().map(|entry| of.entry(entry?)),
            Entries::Former(entries) => entries.next(),
            Entries::Failed(error) => error.take().map(Err),
        }
    }
}

/// Behind all keys of all tables.
const END: [u8; 1] = [0xff];

impl Reader {
    /// Opens an increment in a directory. Its head and its end are verified, and nothing else is read.
    pub fn open(directory: &Directory, name: &str) -> Result<Reader> {
        let path = directory.path().join(name);
        let failed = |source| Error::media(format!("opening {}", shown_file(&path)), source);
        let file = directory.open_plain(name).map_err(failed)?;
        let mut first = [0; former::MAGIC.len()];
        // What is shorter is nothing that either reads.
        let is_former = file.read_exact_at(&mut first, 0).is_err() || first != *set::MAGIC;
        if is_former {
            return former::Reader::of(file, path).map(|reader| Reader::Former(Box::new(reader)));
        }
        Reverse::open(file, path).map(|reader| Reader::Set(Box::new(reader)))
    }

    /// Whether it was written before there were sets.
    pub fn is_former(&self) -> bool {
        matches!(self, Reader::Former(_))
    }

    pub fn header(&self) -> &Header {
        match self {
            Reader::Set(of) => &of.header,
            Reader::Former(of) => of.header(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.summary().path
    }

    pub fn summary(&self) -> &Summary {
        match self {
            Reader::Set(of) => &of.summary,
            Reader::Former(of) => of.summary(),
        }
    }

    /// Length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.summary().bytes
    }

    /// All entries, in the order of table and key.
    pub fn entries(&self) -> Entries<'_> {
        match self {
            Reader::Set(of) => of.scan(&[], &END),
            Reader::Former(of) => Entries::Former(of.entries()),
        }
    }

    /// The entries of a table with `from <= key < to`, in order.
    pub fn range(&self, table: u8, from: &[u8], to: &[u8]) -> Entries<'_> {
        match self {
            Reader::Set(of) => of.scan(&full_key(table, from), &full_key(table, to)),
            Reader::Former(of) => Entries::Former(of.range(table, from, to)),
        }
    }

    /// One entry, with one read for each level of the index, unless they are in memory.
    pub fn find(&self, table: u8, key: &[u8]) -> Result<Option<Entry>> {
        match self {
            Reader::Set(of) => of.sets.find(of.id, &full_key(table, key))?.map(|entry| of.entry(entry)).transpose(),
            Reader::Former(of) => of.find(table, key),
        }
    }

    /// The bytes of a track, exactly as many as its place says.
    pub fn read_track(&self, place: &Place) -> Result<Arc<Vec<u8>>> {
        match self {
            Reader::Set(of) => of.read_track(place).map(Arc::new),
            Reader::Former(of) => of.read_track(place),
        }
    }

    /// Reads everything and verifies it: each frame, the index, the place of each track, and the counts. `tell` gets the bytes done
    /// so far, and can end it with an error.
    pub fn verify(&self, tell: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        match self {
            Reader::Set(of) => of.verify(tell),
            Reader::Former(of) => of.verify(tell),
        }
    }
}

impl Reverse {
    fn open(file: File, path: PathBuf) -> Result<Reverse> {
        let opened = Alone::Opened { file, path: path.clone() };
        let shown = shown_file(&path).to_string();
        let failed = |source| Error::media(format!("opening {shown}"), source);
        let id = id_in(&*opened.open("").map_err(failed)?, &shown)?;
        let sets = Sets::reverse(Arc::new(opened));
        let file = sets.file(id)?;
        let damaged = |problem: String| Error::corrupt(shown.clone(), problem);
        let header = Header::of_set(file.header()).ok_or_else(|| damaged("it is no increment".into()))?;
        header.check().map_err(damaged)?;
        let foot = file.foot();
        let summary = Summary {
            path,
            bytes: file.bytes(),
            records: foot.records,
            tracks: foot.tracks,
            track_bytes: foot.sets.first().map_or(0, |own| own.bytes),
        };
        Ok(Reverse { sets, id, header, summary })
    }

    fn scan(&self, from: &[u8], to: &[u8]) -> Entries<'_> {
        match self.sets.scan(self.id, from, to) {
            Ok(scan) => Entries::Set(self, scan),
            Err(error) => Entries::Failed(Some(error)),
        }
    }

    fn entry(&self, entry: set::Entry<Spot>) -> Result<Entry> {
        let set::Entry { key, birth, value } = entry;
        let value = match value {
            set::Value::Record(value) => Value::Record(value),
            set::Value::Track { len, place: Spot { offset, stored, at, .. } } => {
                Value::Track(Place { block: offset, at, raw: len, stored })
            }
            set::Value::Lost => return Err(self.damaged("a track of it was never read")),
        };
        let (table, key) = key.split_first().ok_or_else(|| self.damaged("a key has no table"))?;
        Ok(Entry { table: *table, key: key.to_vec(), birth, value })
    }

    fn read_track(&self, place: &Place) -> Result<Vec<u8>> {
        let Place { block, at, raw, stored } = *place;
        self.sets.read(&Spot { set: self.id, offset: block, stored, at }, raw)
    }

    fn verify(&self, tell: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        let mut done = 0;
        self.sets.file(self.id)?.verify(None, &mut |bytes, damaged| {
            done += bytes;
            if let Some((_, error)) = damaged {
                return Err(error);
            }
            tell(done.min(self.summary.bytes))
        })?;
        let mut found = Summary { records: 0, tracks: 0, track_bytes: 0, ..self.summary.clone() };
        for entry in self.scan(&[], &END) {
            match entry?.value {
                Value::Record(_) => found.records += 1,
                Value::Track(place) => {
                    self.read_track(&place)?;
                    found.tracks += 1;
                    found.track_bytes += u64::from(place.raw);
                }
            }
        }
        if found != self.summary {
            return Err(self.damaged(format!("its end says {:?}, and found was {found:?}", self.summary)));
        }
        tell(self.summary.bytes)
    }

    fn damaged(&self, problem: impl Into<String>) -> Error {
        Error::corrupt(shown_file(&self.summary.path).to_string(), problem)
    }
}
