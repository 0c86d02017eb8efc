//! Times that only an archive holds.
//!
//! The read rule goes on where the store ends: the value of a key in archived epoch *e* is that of the entry with the
//! smallest end after *e* in the archive's index, if its birth is not after *e*; with no such entry it is what the key
//! is in the snapshot that the newest increment leads to, if that was born by *e*.

use super::past::{
    BaseId, Elsewhere, Increments, InodeAt, Named, Outside, SetTrack, Snapshot, TrackNo, expect_track, preimage_key,
    rest_of, split_record, track_key, with_birth,
};
use super::pointer::Pointer;
use super::tracks::Source;
use super::{Device, State};
use crate::archive::{Archive, Entry, Header, Increment, Mark, Place, Value, Writer};
use crate::clock::Epoch;
use crate::error::{Error, Result};
use crate::limits::*;
use crate::logstore::Holder;
use crate::media::Directory;
use crate::meta::{Pair, Table, decode, encode, hex};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Where an archive has the bytes of a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedTrack {
    /// The epochs between which its increment leads.
    pub increment: (Epoch, Epoch),
    pub place: Place,
}

/// What a track's record says.
pub enum TrackRecord {
    Stored(Pointer, Holder),
    Archived(ArchivedTrack, Arc<Archive>),
    InSet(SetTrack, Arc<Elsewhere>),
}

/// What an entry of an increment can be of: what no store has in its tables is damage, and does not fill the index.
fn check_entry(entry: &Entry) -> Result<()> {
    const INODE: usize = 8;
    let table = Table::from_number(entry.table);
    // The most bytes of a key and of a value; MessagePack takes some for itself.
    let most = match table {
        Some(Table::Inode) => (INODE, NAME_BYTES_MAX + SYMLINK_BYTES_MAX + 256),
        Some(Table::Dirent) => (INODE + 8 + NAME_BYTES_MAX, 16),
        Some(Table::Xattr) => (INODE + XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX + 8),
        Some(Table::Track) => (INODE + 8, 0),
        Some(Table::Link) => (INODE + 8 + NAME_BYTES_MAX, 8),
        _ => (0, 0),
    };
    let value = match &entry.value {
        Value::Record(value) => value.len(),
        Value::Track(_) => 0,
    };
    let (key, is_track) = (entry.key.len(), matches!(entry.value, Value::Track(_)));
    let is_possible = key >= INODE && key <= most.0 && value <= most.1 && entry.birth.is_possible();
    if is_possible && (table == Some(Table::Track) || !is_track) {
        return Ok(());
    }
    let what = format!("the entry {} of table {} of an increment", hex(&entry.key), entry.table);
    Err(Error::corrupt(what, format!("no record has a key of {key} and a value of {value} bytes there, or its birth")))
}

/// The entry of the index for an entry of an increment.
pub fn index_entry(header: &Header, entry: &Entry) -> Result<Pair> {
    check_entry(entry)?;
    let key = [&header.base.to_be_bytes()[..], &[entry.table], &entry.key, &header.to.epoch.to_be_bytes()].concat();
    let value = match &entry.value {
        Value::Record(value) => value.clone(),
        Value::Track(place) => {
            encode(&ArchivedTrack { increment: (header.from.epoch, header.to.epoch), place: *place })
        }
    };
    Ok((key, with_birth(entry.birth, &[&[0; 5][..], &value].concat())))
}

/// What a track's record says at a moment.
pub(super) fn track_record(state: &State, at: InodeAt, track: TrackNo) -> Result<Option<TrackRecord>> {
    let key = track_key(at.inode, track);
    let Some(found) = state.find(Table::Track, &key, at.moment)? else { return Ok(None) };
    let value = split_record(Table::Track, &key, &found.bytes)?.1;
    Ok(Some(match found.outside {
        Some(Outside::Sets(sets)) => TrackRecord::InSet(decode(Table::Track, &key, value)?, sets),
        Some(Outside::Archive(archive)) => TrackRecord::Archived(decode(Table::Track, &key, value)?, archive),
        None => TrackRecord::Stored(decode(Table::Track, &key, value)?, super::accounts::holder(found.is_old)),
    }))
}

/// Keys of increments read under one lock.
const STEP: usize = 4096;

/// The archives of bases, and what is saved to them.
#[derive(Clone, Copy)]
pub struct Archiving<'a> {
    pub(super) device: &'a Device,
}

impl Archiving<'_> {
    /// Whether the store has the very snapshot of a base that a mark names, and it can be looked into.
    pub fn holds(self, base: BaseId, mark: &Mark) -> Result<bool> {
        let found = self.device.look()?.moments().stored_snapshot(base, mark.epoch)?;
        Ok(found.is_some_and(|found| found.record.id == mark.id && found.is_readable()))
    }

    /// Lets an archive's times be seen, or not any more.
    pub fn set_archive(self, base: BaseId, archive: Option<Arc<Archive>>) {
        self.device.state.write().past.bases.set_archive(base, archive);
    }

    /// Writes the increment of a snapshot into a directory: what it shows and the next one does not.
    pub fn save_increment(
        self,
        directory: &Arc<Directory>,
        (from, to): (&Snapshot, &Snapshot),
        level: i32,
        tell: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Increment> {
        let (base_id, base_name) = {
            let look = self.device.look()?;
            let record = look.base_record(from.base)?;
            (record.id, record.name.clone())
        };
        let header = Header {
            store: self.device.settings.id,
            base_id,
            base: from.base.number(),
            base_name,
            from: from.mark(),
            to: to.mark(),
            track_bytes: self.device.settings.track_bytes,
            hash_seed: self.device.settings.hash_seed,
            merged: Vec::new(),
        };
        // In the order of tables.
        let mut keys = BTreeSet::new();
        let mut walk = Increments::between(from.base, from.epoch, to.epoch);
        while walk.cursor().is_some() {
            keys.extend(walk.step(&*self.device.look()?, STEP)?);
        }
        let name = crate::archive::file_name(&header.from, &header.to);
        let mut writer = Writer::create(directory, &name, &header, level)?;
        let mut saved = 0;
        for Named { table, key, end } in keys {
            // What holds the snapshot and not the next one cannot change, nor go while both are there.
            let look = self.device.look()?;
            let bytes = look.meta.get_raw(Table::Preimage, &preimage_key(table, &key, end))?;
            let Some(bytes) = bytes else { continue };
            let (birth, value) = split_record(table, &key, &bytes)?;
            if birth > from.epoch {
                continue;
            }
            if table == Table::Track && !value.is_empty() {
                let pointer: Pointer = decode(table, &key, value)?;
                let source = Source::stored(self.device.placed(&look, pointer)?);
                drop(look);
                let (inode, track) = expect_track(&key)?;
                let content = self.device.read_track(source, inode.at(super::Moment::At(from.epoch)), track)?;
                saved += content.len() as u64;
                writer.track(table as u8, rest_of(&key), birth, &content)?;
                tell(saved)?;
            } else {
                writer.record(table as u8, rest_of(&key), birth, value)?;
            }
        }
        let summary = writer.finish()?;
        Ok(Increment { header, path: summary.path, bytes: summary.bytes })
    }
}
