//! A target's objects as a stream: a set, and how its key is had, one behind the other, for a pipe, a tape or another machine.
//!
//! ```text
//! "pitfsstm" │ version u32 │ 0 u32 │ store 16 │ XXH3 of these 32 bytes
//! object: length of its name u8, name │ length u32, bytes … │ 0 u32 │ length of all u64 │ XXH3 of all
//! end:    0 u8
//! ```
//!
//! Numbers are little-endian. It is written as it is made, with nothing known ahead; whoever takes it in sees by the sums that all has
//! come, and an object is there when it has.

use super::{Target, failed, keys};
use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::limits::STREAM_CHUNK_BYTES;
use crate::media::{Object, Putting, Shelf};
use crate::set::id_of;
use crate::shown::shown_file;
use parking_lot::Mutex;
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

const MAGIC: &[u8; 8] = b"pitfsstm";
const VERSION: u32 = 1;

type Out = Arc<Mutex<dyn Write + Send>>;

/// A shelf that what is put on leaves at once.
pub struct StreamShelf(Out);

impl fmt::Debug for StreamShelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamShelf")
    }
}

impl StreamShelf {
    /// Begins a stream of what a store has.
    pub fn begin(out: impl Write + Send + 'static, store: Id) -> io::Result<StreamShelf> {
        let out: Out = Arc::new(Mutex::new(out));
        let mut head = [&MAGIC[..], &VERSION.to_le_bytes(), &[0; 4], &store.to_bytes()].concat();
        head.extend_from_slice(&xxh3_64(&head).to_le_bytes());
        out.lock().write_all(&head)?;
        Ok(StreamShelf(out))
    }

    /// Says that all objects have come.
    pub fn end(&self) -> io::Result<()> {
        let mut out = self.0.lock();
        out.write_all(&[0])?;
        out.flush()
    }
}

struct StreamPutting {
    out: Out,
    sum: Xxh3,
    bytes: u64,
}

impl Putting for StreamPutting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for chunk in bytes.chunks(STREAM_CHUNK_BYTES) {
            let mut out = self.out.lock();
            out.write_all(&(chunk.len() as u32).to_le_bytes())?;
            out.write_all(chunk)?;
        }
        self.sum.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        let end = [&[0; 4][..], &self.bytes.to_le_bytes(), &self.sum.digest().to_le_bytes()].concat();
        self.out.lock().write_all(&end)
    }
}

fn only_written() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "a stream is only written to")
}

impl Shelf for StreamShelf {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(Vec::new())
    }

    fn open(&self, _name: &str) -> io::Result<Box<dyn Object>> {
        Err(only_written())
    }

    fn put(&self, name: &str) -> io::Result<Box<dyn Putting>> {
        let len = u8::try_from(name.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidFilename))?;
        let mut out = self.0.lock();
        out.write_all(&[len])?;
        out.write_all(name.as_bytes())?;
        drop(out);
        Ok(Box::new(StreamPutting { out: self.0.clone(), sum: Xxh3::new(), bytes: 0 }))
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut putting = self.put(name)?;
        putting.write(content)?;
        putting.finish()
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Err(only_written())
    }

    fn clear(&self) -> io::Result<()> {
        Ok(())
    }

    fn describe(&self) -> String {
        "the output".into()
    }
}

/// What came in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub store: Id,
    /// Sets that were not there before.
    pub sets: Vec<Id>,
    pub bytes: u64,
}

/// What is read of a stream.
struct Input<'a>(&'a mut dyn Read);

impl Input<'_> {
    fn fill(&mut self, out: &mut [u8]) -> Result<()> {
        self.0.read_exact(out).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                damaged("it ends in the middle: whoever wrote it was broken off, or not all has come")
            }
            _ => Error::media("reading the stream", error),
        })
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes).map(|()| bytes)
    }

    /// The rest of an object, piece by piece; its length.
    fn content(&mut self, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<u64> {
        let (mut sum, mut bytes, mut buffer) = (Xxh3::new(), 0, Vec::new());
        loop {
            let len = u32::from_le_bytes(self.number()?) as usize;
            if len == 0 {
                break;
            }
            if len > STREAM_CHUNK_BYTES {
                return Err(damaged("a piece of it says to be larger than any can be"));
            }
            buffer.resize(len, 0);
            self.fill(&mut buffer)?;
            sum.update(&buffer);
            bytes += len as u64;
            take(&buffer)?;
        }
        if u64::from_le_bytes(self.number()?) != bytes || u64::from_le_bytes(self.number()?) != sum.digest() {
            return Err(damaged("it is not what was written: something changed it on the way"));
        }
        Ok(bytes)
    }
}

fn damaged(problem: &str) -> Error {
    Error::corrupt("the stream", problem)
}

/// A stream of which the beginning was read.
pub struct Incoming<'a> {
    input: Input<'a>,
    store: Id,
}

impl<'a> Incoming<'a> {
    /// Reads as much as says that it is one.
    pub fn begin(input: &'a mut dyn Read) -> Result<Incoming<'a>> {
        let mut input = Input(input);
        let head: [u8; 40] = input.number()?;
        if head[..8] != MAGIC[..] || xxh3_64(&head[..32]).to_le_bytes() != head[32..] {
            let text = "what comes is no stream of `pitfs backup --to -`";
            return Err(Error::Refused(Errno::INVAL, text.into()));
        }
        if head[8..12] != VERSION.to_le_bytes() {
            return Err(Error::Store("the stream has a format that this pitfs does not know; use a newer one".into()));
        }
        let store = head[16..32].try_into().map(Id::from_bytes);
        Ok(Incoming { input, store: store.map_err(|_| damaged("it has no store"))? })
    }

    /// Takes it into a target. A set that is there already is passed over.
    pub fn receive(mut self, target: &Target, tell: &mut dyn FnMut(u64) -> Result<()>) -> Result<Received> {
        let _locked = target.lock()?;
        let is_new = !target.place(self.store).exists();
        if is_new {
            target.add_store(self.store, None)?;
        }
        let taken = take(&mut self.input, target, (self.store, is_new), tell);
        if is_new && taken.is_err() {
            target.forget_store(self.store);
        }
        taken
    }
}

fn take(
    input: &mut Input<'_>,
    target: &Target,
    (store, is_new): (Id, bool),
    tell: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Received> {
    let shelf = target.shelf(store)?;
    shelf.clear().map_err(|error| Error::media(format!("tidying {}", shelf.describe()), error))?;
    let of_shelf = |error| Error::media(format!("writing to {}", shelf.describe()), error);
    let mut received = Received { store, sets: Vec::new(), bytes: 0 };
    let mut keys = None;
    loop {
        let [len] = input.number()?;
        if len == 0 {
            return Ok(received);
        }
        let mut name = vec![0; len.into()];
        input.fill(&mut name)?;
        let name = String::from_utf8(name).map_err(|_| damaged("an object has a name that none has"))?;
        if name == keys::OBJECT {
            let mut content = Vec::new();
            input.content(&mut |piece| {
                content.extend_from_slice(piece);
                match content.len() as u64 <= keys::BYTES_MAX {
                    true => Ok(()),
                    false => Err(damaged("its keys are larger than any can be")),
                }
            })?;
            keys = Some(keys::Keys::decode(&content, store, "the stream's keys")?);
            continue;
        }
        let id = id_of(&name).ok_or_else(|| damaged("an object has a name that none has"))?;
        match (is_new && received.sets.is_empty(), &keys) {
            (true, Some(keys)) => target.write_keys(store, keys)?,
            (true, None) => {}
            // Nothing of it could be opened there.
            (false, keys) if *keys != target.keys(store)? => {
                let text = format!(
                    "the target {} has sets of this store under another key, or without one: take this into another directory",
                    shown_file(target.path())
                );
                return Err(Error::Refused(Errno::KEYREJECTED, text));
            }
            (false, _) => {}
        }
        let is_there = shelf.list().map_err(of_shelf)?.iter().any(|(other, _)| *other == name);
        let before = received.bytes;
        let mut putting = if is_there { None } else { Some(shelf.put(&name).map_err(of_shelf)?) };
        let mut bytes = 0;
        input.content(&mut |piece| {
            if let Some(putting) = &mut putting {
                putting.write(piece).map_err(of_shelf)?;
            }
            bytes += piece.len() as u64;
            tell(before + bytes)
        })?;
        received.bytes += bytes;
        if let Some(putting) = putting {
            putting.finish().map_err(of_shelf)?;
            received.sets.push(id);
        }
    }
}

impl Target {
    /// Removes the place of a store that was made a moment ago.
    fn forget_store(&self, store: Id) {
        if let Err(error) = std::fs::remove_dir_all(self.place(store)) {
            log::warn!("{}", failed("removing", &self.place(store), error));
        }
    }
}
