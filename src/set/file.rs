//! One set, opened: its head and its foot, and frames anywhere in it.

use super::layout::{DATA, END, End, FOOT, HEAD, HEADER, Head, KIND_MAX, LABEL, LEAF, Problem, START, open, start};
use super::node::{Place, decode_inner, decode_leaf};
use super::seal::Seal;
use super::unit::Label;
use super::{Foot, Header, object_name};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::limits::{SET_FRAME_BYTES_MAX, SET_SETS_MAX};
use crate::media::{Object, Shelf};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

#[derive(Debug)]
pub struct SetFile {
    id: Id,
    object: Box<dyn Object>,
    seal: Seal,
    /// Where it is, for messages.
    path: String,
    header: Header,
    foot: Foot,
    /// Where the frames behind the head begin, and where the foot does.
    frames: (u64, u64),
}

impl SetFile {
    /// Opens the set of an id.
    pub fn open(shelf: &dyn Shelf, id: Id, seal: &Seal) -> Result<SetFile> {
        let (object, path) = open_object(shelf, id)?;
        let (head, head_bytes) = read_head(&*object, &path, id)?;
        let len = object.len();
        let damaged = |problem: String| Error::corrupt(path.clone(), problem);
        match (head.is_secret, seal.is_secret()) {
            (true, false) => return Err(Error::Store(format!("{path} is encrypted: it needs the key of its target"))),
            (false, true) => {
                let text = format!("{path} is not encrypted, and was not made with the key of this target");
                return Err(Error::Store(text));
            }
            _ => {}
        }
        let Some(end_at) = len.checked_sub(END as u64).filter(|at| *at >= HEAD as u64) else {
            return Err(damaged(format!("it ends after {len} bytes")));
        };
        let mut end = [0; END];
        read(&*object, &path, end_at, &mut end)?;
        let end = End::decode(&end, &head_bytes, len).map_err(damaged)?;
        let whole = |offset, stored, kind| read_frame(&*object, &path, offset, stored, kind, id, seal);
        let mut first = [0; START];
        read(&*object, &path, HEAD as u64, &mut first)?;
        let (stored, _) = start(&first);
        let header: Header = from_message_pack(&whole(HEAD as u64, stored, HEADER)?).map_err(damaged)?;
        let foot: Foot = from_message_pack(&whole(end.foot, end.stored, FOOT)?).map_err(damaged)?;
        let frames = ((HEAD + START) as u64 + u64::from(stored), end.foot);
        check(&header, &foot, id, frames).map_err(damaged)?;
        Ok(SetFile { id, object, seal: seal.clone(), path, header, foot, frames })
    }

    pub fn id(&self) -> Id {
        self.id
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    pub fn foot(&self) -> &Foot {
        &self.foot
    }

    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        self.object.len()
    }

    /// The set that has a number in this one.
    pub(super) fn set(&self, number: u32) -> Result<Id> {
        let share = self.foot.sets.get(number as usize);
        let missing = || Error::corrupt(self.path.clone(), format!("it names a set {number} that is not in its foot"));
        share.map(|share| share.set).ok_or_else(missing)
    }

    /// The content of a frame.
    pub(super) fn frame(&self, offset: u64, stored: u32, kind: u8) -> Result<Vec<u8>> {
        let end = offset.saturating_add(START as u64).saturating_add(stored.into());
        if offset < self.frames.0 || end > self.frames.1 {
            let problem = format!("a frame is said to lie at {offset}, of {stored} bytes");
            return Err(Error::corrupt(self.path.clone(), problem));
        }
        read_frame(&*self.object, &self.path, offset, stored, kind, self.id, &self.seal)
    }

    /// Calls `each` with the offset, the kind and what is stored of every frame, in order.
    pub(super) fn each_frame(&self, mut each: impl FnMut(u64, u8, u32) -> Result<()>) -> Result<()> {
        let mut at = self.frames.0;
        while at < self.frames.1 {
            let mut first = [0; START];
            read(&*self.object, &self.path, at, &mut first)?;
            let (stored, kind) = start(&first);
            if kind > KIND_MAX || at + START as u64 + u64::from(stored) > self.frames.1 {
                return Err(self.damaged(at, "no frame begins there"));
            }
            each(at, kind, stored)?;
            at += START as u64 + u64::from(stored);
        }
        Ok(())
    }

    /// Reads all of it, or of data only so many hundredths of the frames, and calls `each` with the bytes that were read and, of what
    /// is damaged, the frame and what is wrong with it. Where a frame's beginning is damaged, nothing behind it is found.
    pub fn verify(&self, share: Option<u8>, each: OnVerified<'_>) -> Result<()> {
        let mut lot = Lot(u64::from_le_bytes(Id::random().to_bytes()[..8].try_into().unwrap_or_default()));
        let mut order = Order::default();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let walked = self.each_frame(|offset, kind, stored| {
            let is_read = kind != DATA || share.is_none_or(|share| lot.draws(share));
            batch.push(Frame { offset, kind, stored, is_read });
            bytes += if is_read { stored as usize } else { 0 };
            if bytes < VERIFY_BYTES && batch.len() < VERIFY_FRAMES {
                return Ok(());
            }
            bytes = 0;
            self.verify_batch(&std::mem::take(&mut batch), &mut order, each)
        });
        self.verify_batch(&batch, &mut order, each)?;
        match walked {
            Err(error @ Error::Corrupt { .. }) => each(0, Some((self.frames.1, error))),
            walked => walked,
        }
    }

    /// Reads some frames, with all processors, and looks at what they say in their order.
    fn verify_batch(&self, batch: &[Frame], order: &mut Order, each: OnVerified<'_>) -> Result<()> {
        let next = AtomicUsize::new(0);
        let read = || -> Vec<(usize, Result<Vec<u8>>)> {
            let mut found = Vec::new();
            while let Some((at, frame)) = Some(next.fetch_add(1, Relaxed)).and_then(|at| Some((at, batch.get(at)?))) {
                let content =
                    if frame.is_read { self.frame(frame.offset, frame.stored, frame.kind) } else { Ok(Vec::new()) };
                // Of data nothing is left to be looked at.
                found.push((at, content.map(|content| if frame.kind == DATA { Vec::new() } else { content })));
            }
            found
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(VERIFY_THREADS);
        let mut all = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(read)).collect();
            let mut all = read();
            for other in others {
                match other.join() {
                    Ok(found) => all.extend(found),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            all
        });
        all.sort_unstable_by_key(|(at, _)| *at);
        for ((_, content), frame) in all.into_iter().zip(batch) {
            let damaged = |problem: String| self.damaged(frame.offset, problem);
            // Whether it is the next one does not depend on what is in it.
            let is_next = if frame.kind == DATA { order.data(frame.stored) } else { Ok(()) };
            let found = content.and_then(|content| match frame.kind {
                DATA => is_next.map_err(damaged),
                LABEL => Label::decode(&content).and_then(|label| order.label(label)).map_err(damaged),
                LEAF => decode_leaf(&content).map(drop).map_err(damaged),
                _ => decode_inner(&content).map(drop).map_err(damaged),
            });
            let bytes = if frame.is_read { u64::from(frame.stored) } else { 0 };
            match found {
                Err(error @ (Error::Corrupt { .. } | Error::Media { .. })) => each(bytes, Some((frame.offset, error))),
                found => found.and_then(|()| each(bytes, None)),
            }?;
        }
        Ok(())
    }

    pub(super) fn damaged(&self, offset: u64, problem: impl Into<String>) -> Error {
        Error::corrupt(format!("the frame at {offset} of {}", self.path), problem)
    }

    /// A place as everybody can name it.
    pub(super) fn spot(&self, place: &Place) -> Result<super::Spot> {
        let Place { set, offset, stored, at } = *place;
        Ok(super::Spot { set: self.set(set)?, offset, stored, at })
    }
}

/// Called with bytes that were read and, of what is damaged, the offset of its frame and what is wrong with it.
pub type OnVerified<'a> = &'a mut dyn FnMut(u64, Option<(u64, Error)>) -> Result<()>;

/// What is read at once when a set is verified, and by how many.
const VERIFY_BYTES: usize = 8 << 20;
const VERIFY_FRAMES: usize = 1024;
const VERIFY_THREADS: usize = 8;

/// A frame that is to be verified.
struct Frame {
    offset: u64,
    kind: u8,
    stored: u32,
    is_read: bool,
}

/// Whether frames come as the labels say.
#[derive(Default)]
struct Order {
    units: u64,
    /// What the last label says that is to come.
    frames: VecDeque<u32>,
}

impl Order {
    fn data(&mut self, stored: u32) -> Result<(), String> {
        if self.frames.pop_front() == Some(stored) { Ok(()) } else { Err("its label does not name it".into()) }
    }

    fn label(&mut self, label: Label) -> Result<(), String> {
        let is_next = label.number == self.units && self.frames.is_empty();
        self.units = label.number + 1;
        self.frames = label.frames.into();
        if is_next { Ok(()) } else { Err("units are missing before it".into()) }
    }
}

/// Draws lots, another way each time.
struct Lot(u64);

impl Lot {
    fn draws(&mut self, hundredths: u8) -> bool {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % 100 < u64::from(hundredths)
    }
}

fn open_object(shelf: &dyn Shelf, id: Id) -> Result<(Box<dyn Object>, String)> {
    let path = shelf.path_of(&object_name(id));
    match shelf.open(&object_name(id)) {
        Ok(object) => Ok((object, path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Error::Store(format!("the set {path} is not there")))
        }
        Err(error) => Err(Error::media(format!("opening {path}"), error)),
    }
}

fn read(object: &dyn Object, path: &str, offset: u64, out: &mut [u8]) -> Result<()> {
    match object.read_at(offset, out) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(Error::corrupt(path, format!("it ends before byte {}", offset + out.len() as u64)))
        }
        result => result.map_err(|error| Error::media(format!("reading {path} at {offset}"), error)),
    }
}

/// The id that the head of an object says.
pub fn id_in(object: &dyn Object, path: &str) -> Result<Id> {
    let mut bytes = [0; HEAD];
    read(object, path, 0, &mut bytes)?;
    decode_head(&bytes, path).map(|head| head.id)
}

fn read_head(object: &dyn Object, path: &str, id: Id) -> Result<(Head, [u8; HEAD])> {
    let mut bytes = [0; HEAD];
    read(object, path, 0, &mut bytes)?;
    match decode_head(&bytes, path)? {
        head if head.id != id => Err(Error::corrupt(path, format!("it is the set {} under another's name", head.id))),
        head => Ok((head, bytes)),
    }
}

fn decode_head(bytes: &[u8; HEAD], path: &str) -> Result<Head> {
    match Head::decode(bytes) {
        Ok(head) => Ok(head),
        Err(Problem::Damage(problem)) => Err(Error::corrupt(path, problem)),
        Err(Problem::Other(problem)) => Err(Error::Store(format!("{path}: {problem}"))),
    }
}

fn read_frame(
    object: &dyn Object,
    path: &str,
    offset: u64,
    stored: u32,
    kind: u8,
    id: Id,
    seal: &Seal,
) -> Result<Vec<u8>> {
    // What is stored is never much more than what it was.
    if stored as usize > SET_FRAME_BYTES_MAX + (1 << 10) {
        return Err(Error::corrupt(path, format!("a frame at {offset} is said to have {stored} bytes")));
    }
    let mut bytes = vec![0; START + stored as usize];
    read(object, path, offset, &mut bytes)?;
    open(seal, id, offset, kind, bytes)
        .map_err(|problem| Error::corrupt(format!("the frame at {offset} of {path}"), problem))
}

fn from_message_pack<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    rmp_serde::from_slice(bytes).map_err(|error| format!("what it says of itself does not decode: {error}"))
}

/// Whether what a set says of itself can be, whatever its seal: somebody may have prepared it.
fn check(header: &Header, foot: &Foot, id: Id, frames: (u64, u64)) -> Result<(), String> {
    use crate::limits::{TRACK_BYTES_MAX, TRACK_BYTES_MIN};
    if !header.mark.has_name() {
        return Err("no snapshot can have its name".into());
    }
    let track_bytes = header.track_bytes as usize;
    if !(TRACK_BYTES_MIN..=TRACK_BYTES_MAX).contains(&track_bytes) || !track_bytes.is_power_of_two() {
        return Err(format!("no store has tracks of {track_bytes} bytes"));
    }
    if let Some(reverse) = &header.reverse {
        if !reverse.to.has_name() {
            return Err("no snapshot can have the name that it leads to".into());
        }
        if foot.sets.len() != 1 || !foot.missing.is_empty() || foot.part.is_some() {
            return Err("a reverse set lies in itself, and is whole".into());
        }
    }
    if foot.sets.first().map(|share| share.set) != Some(id) || foot.sets.len() > SET_SETS_MAX {
        return Err("its foot does not begin with itself".into());
    }
    match foot.root {
        Some(root) if !(super::layout::LEAF..=KIND_MAX).contains(&root.kind) => {
            Err(format!("its index is of kind {}", root.kind))
        }
        Some(root) if root.set as usize >= foot.sets.len() => Err(format!("its index lies in a set {}", root.set)),
        Some(root) if root.set == 0 && !(frames.0..frames.1).contains(&root.offset) => {
            Err("its index lies outside".into())
        }
        _ => Ok(()),
    }
}
