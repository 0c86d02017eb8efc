//! Records with a memory: how they are stored, and the keys of all that has to do with one. Nobody else cuts a key.

use super::number::{BaseId, InodeNo, TrackKey, TrackNo};
use crate::clock::Epoch;
use crate::error::{Error, Result};
use crate::limits::TRACKS_MAX;
use crate::meta::{RECORD_BYTES, Table, encode_to, hex, record_name};
use serde::Serialize;
use std::ops::Range;

const BASE_LEN: usize = 4;
const EPOCH_LEN: usize = 4;
/// MessagePack's mark of an unsigned integer of 32 bits.
const U32: u8 = 0xce;
const BIRTH_LEN: usize = 5;

/// A record as stored: its birth, then its value, as two MessagePack objects.
pub(in crate::device) fn encode_record<T: Serialize>(birth: Epoch, value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BIRTH_LEN + RECORD_BYTES);
    bytes.push(U32);
    bytes.extend_from_slice(&birth.to_be_bytes());
    encode_to(&mut bytes, value);
    bytes
}

/// The birth and the value of a stored record.
pub fn split_record<'a>(table: Table, key: &[u8], bytes: &'a [u8]) -> Result<(Epoch, &'a [u8])> {
    match bytes.split_at_checked(BIRTH_LEN) {
        Some(([U32, a, b, c, d], value)) => match Epoch::from_be_bytes([*a, *b, *c, *d]) {
            birth if birth.is_possible() => Ok((birth, value)),
            birth => Err(Error::corrupt(record_name(table, key), format!("nothing is born in epoch {birth}"))),
        },
        _ => Err(Error::corrupt(record_name(table, key), "it has no birth")),
    }
}

/// A record of a value as it is stored.
pub(in crate::device) fn record_of(birth: Epoch, value: &[u8]) -> Vec<u8> {
    [&tombstone(birth)[..], value].concat()
}

/// A record that says that there is nothing.
pub(in crate::device) fn tombstone(birth: Epoch) -> Vec<u8> {
    [&[U32][..], &birth.to_be_bytes()].concat()
}

/// The same record with another birth.
pub(in crate::device) fn with_birth(birth: Epoch, bytes: &[u8]) -> Vec<u8> {
    [&[U32][..], &birth.to_be_bytes(), &bytes[BIRTH_LEN..]].concat()
}

/// Key of a pre-image: base, table, the rest of the record's key, end epoch.
pub(in crate::device) fn preimage_key(table: Table, key: &[u8], end: Epoch) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 1 + EPOCH_LEN);
    out.extend_from_slice(&key[..BASE_LEN]);
    out.push(table as u8);
    out.extend_from_slice(&key[BASE_LEN..]);
    out.extend_from_slice(&end.to_be_bytes());
    out
}

/// Key of the same fact in order of time: base, end epoch, table, the rest of the record's key.
pub(in crate::device) fn increment_key(table: Table, key: &[u8], end: Epoch) -> Vec<u8> {
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
    let table = Table::from_number(head[BASE_LEN + EPOCH_LEN]).filter(|_| end.is_possible()).ok_or_else(damaged)?;
    Ok((table, [&head[..BASE_LEN], rest].concat(), end))
}

/// The parts of a pre-image's key: table, the record's own key, end epoch.
pub fn split_preimage(key: &[u8]) -> Result<(Table, Vec<u8>, Epoch)> {
    let damaged = || Error::corrupt(format!("record {} of table preimage", hex(key)), "its key makes no sense");
    let (head, rest) = key.split_at_checked(BASE_LEN + 1).ok_or_else(damaged)?;
    let (rest, end) = rest.split_last_chunk::<EPOCH_LEN>().ok_or_else(damaged)?;
    let end = Epoch::from_be_bytes(*end);
    let table = Table::from_number(head[BASE_LEN]).filter(|_| end.is_possible()).ok_or_else(damaged)?;
    Ok((table, [&head[..BASE_LEN], rest].concat(), end))
}

/// Where a tombstone is noted, to be found again: base, table, the rest of the record's key.
pub(in crate::device) fn tombstone_key(table: Table, key: &[u8]) -> Vec<u8> {
    [&key[..BASE_LEN], &[table as u8], &key[BASE_LEN..]].concat()
}

/// The parts of the key of such a note: table, the record's own key.
pub(in crate::device) fn split_tombstone(key: &[u8]) -> Result<(Table, Vec<u8>)> {
    let damaged = || Error::corrupt(format!("record {} of table tombstone", hex(key)), "its key makes no sense");
    let (head, rest) = key.split_at_checked(BASE_LEN + 1).ok_or_else(damaged)?;
    let table = Table::from_number(head[BASE_LEN]).ok_or_else(damaged)?;
    Ok((table, [&head[..BASE_LEN], rest].concat()))
}

/// The beginning of the keys of all pre-images of an inode's records in a table.
pub(in crate::device) fn preimages_of(table: Table, inode: InodeNo) -> Vec<u8> {
    tombstone_key(table, &inode.prefix())
}

/// What is behind the base in a record's key, the same in all bases that show the record.
pub(in crate::device) fn rest_of(key: &[u8]) -> &[u8] {
    key.get(BASE_LEN..).unwrap_or_default()
}

/// The same key in another base.
pub(in crate::device) fn key_in(base: BaseId, key: &[u8]) -> Vec<u8> {
    [&base.prefix()[..], rest_of(key)].concat()
}

/// Where pre-images of the keys of a range are.
pub(in crate::device) fn log_range(table: Table, from: &[u8], to: &[u8], base: BaseId) -> (Vec<u8>, Vec<u8>) {
    let end = match to.starts_with(&base.prefix()) {
        true => preimage_key(table, to, Epoch::ZERO),
        false => [&base.prefix()[..], &[table as u8 + 1]].concat(),
    };
    (preimage_key(table, from, Epoch::ZERO), end)
}

/// The end of a range in another base.
pub(in crate::device) fn end_in(base: BaseId, of: BaseId, to: &[u8]) -> Vec<u8> {
    if to.starts_with(&of.prefix()) { key_in(base, to) } else { base.next().prefix().to_vec() }
}

pub fn track_key(inode: InodeNo, track: TrackNo) -> [u8; 20] {
    let mut key = [0; 20];
    key[..12].copy_from_slice(&inode.prefix());
    key[12..].copy_from_slice(&track.number().to_be_bytes());
    key
}

/// The inode and track that a key of the track table names.
pub fn split_track_key(key: &[u8]) -> Option<(InodeNo, TrackNo)> {
    let key: &[u8; 20] = key.try_into().ok()?;
    let track = u64::from_be_bytes(*key.last_chunk()?);
    Some((InodeNo::of_key(key)?, TrackNo::new(track))).filter(|_| track < TRACKS_MAX)
}

/// The same where no other key can be.
pub(crate) fn expect_track(key: &[u8]) -> Result<TrackKey> {
    let damaged = || Error::corrupt(format!("record {} of table track", hex(key)), "its key makes no sense");
    split_track_key(key).ok_or_else(damaged)
}

/// All tracks that a base can have.
pub(in crate::device) fn keys_of(base: BaseId) -> Range<TrackKey> {
    let from = |base| (InodeNo::new(base, 0), TrackNo::FIRST);
    from(base)..from(base.next())
}
