//! The write rule and the read rule.
//!
//! *Write*: replacing or removing a record whose birth is not after the newest snapshot first moves the
//! old value into `preimage` under the current epoch. *Read*: the value of a key in snapshot e is the
//! pre-image with the smallest end epoch greater than e, if its birth is not after e; with no such
//! pre-image it is the base record, if its birth is not after e; otherwise there was nothing.

use super::tracks::track_key;
use super::{Device, Epoch, Note, Pointer, State, TrackKey, Txn};
use crate::error::{Error, Result};
use crate::logstore::{Holder, LogStore};
use crate::meta::{Pair, Table, decode, encode, hex};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::iter::Peekable;
use std::ops::ControlFlow;

/// Which moment of a base to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    Live,
    At(Epoch),
}

const BASE_LEN: usize = 4;
const EPOCH_LEN: usize = 4;
/// MessagePack's mark of an unsigned integer of 32 bits.
const U32: u8 = 0xce;
const BIRTH_LEN: usize = 5;

/// A record as stored: its birth, then its value, as two MessagePack objects.
fn encode_record<T: Serialize>(birth: Epoch, value: &T) -> Vec<u8> {
    let mut bytes = vec![U32];
    bytes.extend_from_slice(&birth.to_be_bytes());
    bytes.extend_from_slice(&encode(value));
    bytes
}

/// The birth and the value of a stored record.
pub fn split_record<'a>(table: Table, key: &[u8], bytes: &'a [u8]) -> Result<(Epoch, &'a [u8])> {
    match bytes.split_at_checked(BIRTH_LEN) {
        Some(([U32, a, b, c, d], value)) => Ok((Epoch::from_be_bytes([*a, *b, *c, *d]), value)),
        _ => Err(Error::corrupt(format!("record {} of table {}", hex(key), table.name()), "it has no birth")),
    }
}

pub fn birth_of(table: Table, key: &[u8], bytes: &[u8]) -> Result<Epoch> {
    Ok(split_record(table, key, bytes)?.0)
}

/// Key of a pre-image: base, table, the rest of the record's key, end epoch.
pub(super) fn preimage_key(table: Table, key: &[u8], end: Epoch) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 1 + EPOCH_LEN);
    out.extend_from_slice(&key[..BASE_LEN]);
    out.push(table as u8);
    out.extend_from_slice(&key[BASE_LEN..]);
    out.extend_from_slice(&end.to_be_bytes());
    out
}

/// Key of the same fact in order of time: base, end epoch, table, the rest of the record's key.
pub(super) fn increment_key(table: Table, key: &[u8], end: Epoch) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 1 + EPOCH_LEN);
    out.extend_from_slice(&key[..BASE_LEN]);
    out.extend_from_slice(&end.to_be_bytes());
    out.push(table as u8);
    out.extend_from_slice(&key[BASE_LEN..]);
    out
}

/// The parts of an increment's key: table, the record's own key, end epoch.
pub fn split_increment(key: &[u8]) -> Result<(Table, Vec<u8>, Epoch)> {
    let damaged = || Error::corrupt(format!("record {} of table increment", hex(key)), "its key makes no sense");
    let (head, rest) = key.split_at_checked(BASE_LEN + EPOCH_LEN + 1).ok_or_else(damaged)?;
    let end = Epoch::from_be_bytes(head[BASE_LEN..BASE_LEN + EPOCH_LEN].try_into().map_err(|_| damaged())?);
    let table = Table::from_number(head[BASE_LEN + EPOCH_LEN]).ok_or_else(damaged)?;
    Ok((table, [&head[..BASE_LEN], rest].concat(), end))
}

/// The parts of a pre-image's key: table, the record's own key, end epoch.
pub fn split_preimage(key: &[u8]) -> Result<(Table, Vec<u8>, Epoch)> {
    let damaged = || Error::corrupt(format!("record {} of table preimage", hex(key)), "its key makes no sense");
    let (head, rest) = key.split_at_checked(BASE_LEN + 1).ok_or_else(damaged)?;
    let (rest, end) = rest.split_last_chunk::<EPOCH_LEN>().ok_or_else(damaged)?;
    let table = Table::from_number(head[BASE_LEN]).ok_or_else(damaged)?;
    Ok((table, [&head[..BASE_LEN], rest].concat(), Epoch::from_be_bytes(*end)))
}

impl State {
    /// A record's value at a moment, without its birth.
    pub fn get_raw(&self, table: Table, key: &[u8], moment: Moment) -> Result<Option<Vec<u8>>> {
        self.with(table, key, moment, &mut Holder::Live, |value| Ok(value.to_vec()))
    }

    pub fn get<T: DeserializeOwned>(&self, table: Table, key: &[u8], moment: Moment) -> Result<Option<T>> {
        self.with(table, key, moment, &mut Holder::Live, |value| decode(table, key, value))
    }

    /// Calls `read` with a record's value at a moment; `holder` becomes the kind of record that it stands in.
    fn with<R>(
        &self,
        table: Table,
        key: &[u8],
        moment: Moment,
        holder: &mut Holder,
        read: impl FnOnce(&[u8]) -> Result<R>,
    ) -> Result<Option<R>> {
        let Moment::At(epoch) = moment else {
            return self.meta.with(table, key, |bytes| read(split_record(table, key, bytes)?.1));
        };
        let from = preimage_key(table, key, epoch + 1);
        let to = preimage_key(table, key, Epoch::MAX);
        for pair in self.meta.range(Table::Preimage, &from, &to)? {
            let (found, value) = pair?;
            // A longer key that starts with this one can lie in between.
            if found.len() == from.len() {
                *holder = Holder::Log;
                let (birth, value) = split_record(table, key, &value)?;
                return if birth <= epoch { read(value).map(Some) } else { Ok(None) };
            }
        }
        let record = self.meta.with(table, key, |bytes| {
            let (birth, value) = split_record(table, key, bytes)?;
            if birth <= epoch { read(value).map(Some) } else { Ok(None) }
        })?;
        Ok(record.flatten())
    }

    /// Calls `each` with every key and value with `from <= key < to` at a moment, in order, until it breaks.
    pub fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        moment: Moment,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let mut base = self.meta.range(table, from, to)?.peekable();
        let Moment::At(epoch) = moment else {
            for pair in base {
                let (key, bytes) = pair?;
                if each(&key, split_record(table, &key, &bytes)?.1)?.is_break() {
                    break;
                }
            }
            return Ok(());
        };
        let log_from = preimage_key(table, from, 0);
        let log_to = preimage_key(table, to, 0);
        let mut log = self.meta.range(Table::Preimage, &log_from, &log_to)?.peekable();
        let mut group = next_group(&mut log, epoch)?;
        loop {
            let base_key = match base.peek() {
                Some(Ok((key, _))) => Some(key.clone()),
                Some(Err(_)) => None,
                None => None,
            };
            if let Some(Err(_)) = base.peek() {
                base.next().transpose()?;
            }
            let log_key = group.as_ref().map(|group| group.key.clone());
            let Some(key) = [base_key.clone(), log_key.clone()].into_iter().flatten().min() else { return Ok(()) };
            let record =
                if base_key.as_ref() == Some(&key) { base.next().transpose()?.map(|(_, bytes)| bytes) } else { None };
            let deciding = if log_key.as_ref() == Some(&key) {
                let found = group.take().and_then(|group| group.deciding);
                group = next_group(&mut log, epoch)?;
                found
            } else {
                None
            };
            if let Some(bytes) = deciding.or(record) {
                let (birth, value) = split_record(table, &key, &bytes)?;
                if birth <= epoch && each(&key, value)?.is_break() {
                    return Ok(());
                }
            }
        }
    }
}

/// All pre-images of one key.
struct Group {
    key: Vec<u8>,
    /// The one with the smallest end epoch after the snapshot.
    deciding: Option<Vec<u8>>,
}

fn next_group(log: &mut Peekable<impl Iterator<Item = Result<Pair>>>, epoch: Epoch) -> Result<Option<Group>> {
    let mut group: Option<Group> = None;
    loop {
        let key = match log.peek() {
            Some(Ok((key, _))) => split_preimage(key)?.1,
            Some(Err(_)) => {
                log.next().transpose()?;
                continue;
            }
            None => return Ok(group),
        };
        if group.as_ref().is_some_and(|group| group.key != key) {
            return Ok(group);
        }
        let group = group.get_or_insert(Group { key, deciding: None });
        if let Some((full, bytes)) = log.next().transpose()? {
            let (_, _, end) = split_preimage(&full)?;
            if end > epoch && group.deciding.is_none() {
                group.deciding = Some(bytes);
            }
        }
    }
}

/// What became of a record that is replaced or removed.
pub(super) enum Old {
    None,
    /// It went.
    Gone(Option<Pointer>),
    /// A snapshot needs it: it is a pre-image now.
    Kept(Option<Pointer>),
}

impl State {
    /// Keeps the current value of a key if a snapshot needs it, before it is replaced or removed.
    fn protect(&mut self, log: &LogStore, table: Table, key: &[u8]) -> Result<Old> {
        let newest = self.newest;
        // Of an unprotected record nothing is needed but a track's pointer.
        let old = self.meta.with(table, key, |bytes| {
            let birth = birth_of(table, key, bytes)?;
            let is_needed = birth <= newest || table == Table::Track;
            Ok((birth, is_needed.then(|| bytes.to_vec())))
        })?;
        let Some((birth, bytes)) = old else { return Ok(Old::None) };
        let Some(bytes) = bytes else { return Ok(Old::Gone(None)) };
        let pointer: Option<Pointer> = match table {
            Table::Track => Some(decode(table, key, split_record(table, key, &bytes)?.1)?),
            _ => None,
        };
        if birth > newest {
            return Ok(Old::Gone(pointer));
        }
        let end = self.epoch;
        self.meta.put_raw(Table::Preimage, &preimage_key(table, key, end), bytes);
        self.meta.put_raw(Table::Increment, &increment_key(table, key, end), Vec::new());
        for location in pointer.iter().flat_map(Pointer::locations) {
            self.keep(log, location)?;
        }
        Ok(Old::Kept(pointer))
    }

    /// Points a track at the place it was just flushed to, which can share locations with the old one.
    pub(super) fn replace_track(&mut self, device: &Device, key: TrackKey, pointer: &Pointer) -> Result<()> {
        let key = track_key(key.0, key.1);
        match self.protect(&device.log, Table::Track, &key)? {
            Old::Gone(Some(old)) => {
                for location in old.locations().filter(|old| pointer.locations().all(|new| new != *old)) {
                    self.release(&device.log, location, Holder::Live)?;
                }
            }
            Old::Kept(Some(old)) => {
                for location in old.locations().filter(|old| pointer.locations().any(|new| new == *old)) {
                    self.share(&device.log, location, Holder::Log)?;
                }
            }
            _ => {}
        }
        self.meta.put_raw(Table::Track, &key, encode_record(self.epoch, pointer));
        Ok(())
    }

    /// The pointer of a track at a moment, and what kind of record it stands in.
    pub fn pointer(&self, inode: u64, track: u64, moment: Moment) -> Result<Option<(Pointer, Holder)>> {
        let key = track_key(inode, track);
        let mut holder = Holder::Live;
        let pointer = self.with(Table::Track, &key, moment, &mut holder, |value| decode(Table::Track, &key, value))?;
        Ok(pointer.map(|pointer| (pointer, holder)))
    }
}

impl Txn<'_> {
    /// Gives a key a new value, keeping the old one if a snapshot needs it.
    pub fn set<T: Serialize>(&mut self, table: Table, key: &[u8], value: &T) -> Result<()> {
        self.protect(table, key)?;
        self.note_record(table, key);
        let bytes = encode_record(self.state.epoch, value);
        self.state.meta.put_raw(table, key, bytes);
        Ok(())
    }

    /// Removes a key, keeping its value if a snapshot needs it; whether there was one.
    pub fn unset(&mut self, table: Table, key: &[u8]) -> Result<bool> {
        let existed = self.protect(table, key)?;
        if existed {
            self.note_record(table, key);
            self.state.meta.remove(table, key);
        }
        Ok(existed)
    }

    /// A record of an inode changes; what becomes of its bytes is noted by whoever changes them.
    fn note_record(&mut self, table: Table, key: &[u8]) {
        let note = match table {
            Table::Inode => Note::Record,
            Table::Dirent | Table::Xattr | Table::Link => Note::NeedsCommit,
            _ => return,
        };
        if let Some(inode) = key.get(4..12).and_then(|inode| inode.try_into().ok()) {
            self.note(u64::from_be_bytes(inode), note);
        }
    }

    fn protect(&mut self, table: Table, key: &[u8]) -> Result<bool> {
        match self.state.protect(&self.device.log, table, key)? {
            Old::None => Ok(false),
            Old::Gone(pointer) => {
                let locations = pointer.iter().flat_map(Pointer::locations);
                self.releases.extend(locations.map(|location| (*location, Holder::Live)));
                Ok(true)
            }
            Old::Kept(_) => Ok(true),
        }
    }
}
