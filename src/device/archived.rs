//! Times that only an archive holds.
//!
//! The read rule goes on where the store ends: the value of a key in archived epoch *e* is that of the entry with the
//! smallest end after *e* in the archive's index, if its birth is not after *e*; with no such entry it is what the key
//! is in the snapshot that the newest increment leads to, if that was born by *e*.

use super::names::check_base_name;
use super::record::{expect_track, preimage_key, rest_of, split_record, track_key, with_birth};
use super::snapshot::{name_key, snapshot_key};
use super::tracks::Source;
use super::{
    BaseId, Changing, Device, Epoch, Increments, InodeNo, Named, Pointer, Snapshot, SnapshotRecord, SnapshotState,
    State, TrackNo,
};
use crate::archive::{Archive, Entry, Header, Increment, Mark, Place, Value, Writer};
use crate::error::{Error, Result};
use crate::limits::*;
use crate::logstore::Holder;
use crate::media::Directory;
use crate::meta::{Pair, Table, decode, encode, hex};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// Between the name of an archived time and its epoch, where the name alone stands for something else.
const NUMBERED: char = '~';

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

impl State {
    /// The archive that holds a moment of a base, and the snapshot it leads to.
    pub(super) fn archive_of(&self, base: BaseId, epoch: Epoch) -> Result<Option<(&Arc<Archive>, Epoch)>> {
        let Some(archive) = &self.base(base)?.archive else { return Ok(None) };
        if archive.mark(epoch).is_none() || self.is_stored(base, epoch)? {
            return Ok(None);
        }
        Ok(archive.tip().map(|tip| (archive, tip.epoch)))
    }

    /// Whether only an archive holds a moment.
    pub fn is_archived(&self, inode: InodeNo, moment: super::Moment) -> Result<bool> {
        match moment {
            super::Moment::Live => Ok(false),
            super::Moment::At(epoch) => Ok(self.archive_of(inode.base(), epoch)?.is_some()),
        }
    }

    /// What is being deleted is not stored any more: the archive has it from then on.
    fn is_stored(&self, base: BaseId, epoch: Epoch) -> Result<bool> {
        let record: Option<SnapshotRecord> = self.meta.get(Table::Snapshot, &snapshot_key(base, epoch))?;
        Ok(record.is_some_and(|record| !record.deleting))
    }

    /// The archive of a base, if it is attached and could be opened.
    pub fn archive(&self, base: BaseId) -> Option<Arc<Archive>> {
        self.bases.get(&base).and_then(|base| base.archive.clone())
    }

    /// A time that only the archive holds, as a snapshot.
    pub(super) fn archived_snapshot(&self, base: BaseId, epoch: Epoch) -> Result<Option<Snapshot>> {
        let mark = self.base(base)?.archive.as_ref().and_then(|archive| archive.mark(epoch));
        match mark {
            Some(mark) if !self.is_stored(base, epoch)? => {
                let is_base = self.base_named(&mark.name).is_some();
                self.as_snapshot(base, mark, is_base).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// A time that only the archive has. Where its name has been given to something else while the archive was not
    /// attached, it is called `NAME~EPOCH`: no name stands for two, and what is stored keeps its own.
    fn as_snapshot(&self, base: BaseId, mark: Mark, is_base: bool) -> Result<Snapshot> {
        let named = self.base(base)?.archive.as_ref().and_then(|archive| archive.named(&mark.name));
        let stored: Option<Epoch> = self.meta.get(Table::Name, &name_key(base, &mark.name))?;
        let is_other = |epoch: Epoch| epoch != mark.epoch;
        let is_taken = is_base || stored.is_some_and(is_other) || named.is_some_and(|first| is_other(first.epoch));
        let name = if is_taken { format!("{}{NUMBERED}{}", mark.name, mark.epoch) } else { mark.name };
        let record = SnapshotRecord {
            name,
            time: mark.time,
            offline: mark.offline,
            state: SnapshotState::Deactivated,
            purpose: mark.purpose,
            id: mark.id,
            ..SnapshotRecord::default()
        };
        Ok(Snapshot { base, epoch: mark.epoch, record, is_archived: true })
    }

    /// Snapshots that can be seen after an epoch, in the store and in the archive, oldest first.
    pub fn shown_after(&self, base: BaseId, epoch: Epoch, most: usize) -> Result<Vec<Snapshot>> {
        let mut found = self.whole_after(base, epoch, most)?;
        let end = if found.len() < most { Epoch::MAX } else { found.last().map_or(Epoch::MAX, |last| last.epoch) };
        if let Some(archive) = &self.base(base)?.archive {
            let kept = found.iter().filter(|snapshot| !snapshot.record.deleting);
            let stored: std::collections::BTreeSet<Epoch> = kept.map(|snapshot| snapshot.epoch).collect();
            let marks = archive.marks_after(epoch).into_iter().filter(|mark| mark.epoch <= end);
            let bases: HashSet<&str> = self.bases().map(|(_, record)| record.name.as_str()).collect();
            let archived: Vec<Snapshot> = marks
                .filter(|mark| !stored.contains(&mark.epoch))
                .map(|mark| {
                    let is_base = bases.contains(mark.name.as_str());
                    self.as_snapshot(base, mark, is_base)
                })
                .collect::<Result<_>>()?;
            found.retain(|snapshot| {
                let is_in_archive = |archived: &Snapshot| archived.epoch == snapshot.epoch;
                !snapshot.record.deleting || !archived.iter().any(is_in_archive)
            });
            found.extend(archived);
            found.sort_by_key(|snapshot| snapshot.epoch);
            found.truncate(most);
        }
        Ok(found)
    }

    /// A time of the archive by name.
    pub(super) fn archived_named(&self, base: BaseId, name: &str) -> Result<Option<Snapshot>> {
        let Some(archive) = &self.base(base)?.archive else { return Ok(None) };
        let numbered = || name.rsplit_once(NUMBERED)?.1.parse().ok().map(Epoch::new);
        let mut epochs = archive.named(name).map(|mark| mark.epoch).into_iter().chain(numbered());
        let found = epochs.find_map(|epoch| self.archived_snapshot(base, epoch).transpose());
        Ok(found.transpose()?.filter(|found| found.record.name == name))
    }

    /// The archive's entry that decides what a key is in an archived epoch.
    pub(super) fn archived_candidate(
        &self,
        archive: &Archive,
        table: Table,
        key: &[u8],
        epoch: Epoch,
    ) -> Result<Option<Vec<u8>>> {
        let from = preimage_key(table, key, epoch.next());
        let to = preimage_key(table, key, Epoch::MAX);
        for pair in archive.range(&from, &to)? {
            let (found, bytes) = pair?;
            // A longer key that starts with this one can lie in between.
            if found.len() == from.len() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// What a track's record says at a moment.
    pub(super) fn track_record(
        &self,
        inode: InodeNo,
        track: TrackNo,
        moment: super::Moment,
    ) -> Result<Option<TrackRecord>> {
        let key = track_key(inode, track);
        let Some(found) = self.find(Table::Track, &key, moment)? else { return Ok(None) };
        let value = split_record(Table::Track, &key, &found.bytes)?.1;
        Ok(Some(match found.archive {
            Some(archive) => TrackRecord::Archived(decode(Table::Track, &key, value)?, archive),
            None => TrackRecord::Stored(decode(Table::Track, &key, value)?, found.holder),
        }))
    }
}

impl Device {
    /// Whether the store has the very snapshot of a base that a mark names, and it can be looked into.
    pub fn holds(&self, base: BaseId, mark: &Mark) -> Result<bool> {
        let found = self.look()?.stored_snapshot(base, mark.epoch)?;
        Ok(found.is_some_and(|found| found.record.id == mark.id && found.is_readable()))
    }

    /// Lets an archive's times be seen, or not any more.
    pub fn set_archive(&self, base: BaseId, archive: Option<Arc<Archive>>) {
        if let Some(base) = self.state.write().bases.get_mut(&base) {
            base.archive = archive;
        }
    }

    /// Writes the increment of a snapshot into a directory: what it shows and the next one does not.
    pub fn save_increment(
        &self,
        directory: &Arc<Directory>,
        (from, to): (&Snapshot, &Snapshot),
        level: i32,
        tell: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Increment> {
        let (base_id, base_name) = {
            let look = self.look()?;
            let record = look.base_record(from.base)?;
            (record.id, record.name.clone())
        };
        let header = Header {
            store: self.settings.id,
            base_id,
            base: from.base.number(),
            base_name,
            from: from.mark(),
            to: to.mark(),
            track_bytes: self.settings.track_bytes,
            hash_seed: self.settings.hash_seed,
            merged: Vec::new(),
        };
        // In the order of tables.
        let mut keys = BTreeSet::new();
        self.each_named(Increments::between(from.base, from.epoch, to.epoch), &mut |named| {
            keys.insert(named.clone());
            Ok(())
        })?;
        let name = crate::archive::file_name(&header.from, &header.to);
        let mut writer = Writer::create(directory, &name, &header, level)?;
        let mut saved = 0;
        for Named { table, key, end } in keys {
            // What holds the snapshot and not the next one cannot change, nor go while both are there.
            let look = self.look()?;
            let bytes = look.meta.get_raw(Table::Preimage, &preimage_key(table, &key, end))?;
            let Some(bytes) = bytes else { continue };
            let (birth, value) = split_record(table, &key, &bytes)?;
            if birth > from.epoch {
                continue;
            }
            if table == Table::Track && !value.is_empty() {
                let pointer: Pointer = decode(table, &key, value)?;
                let source = Source::stored(self.placed(&look, pointer)?);
                drop(look);
                let (inode, track) = expect_track(&key)?;
                let content = self.read_track(source, inode, track, super::Moment::At(from.epoch))?;
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

impl State {
    /// The times that the archive of a base had when it was last known, the oldest first.
    pub fn known_archived(&self, base: BaseId) -> Result<Vec<Mark>> {
        let all =
            self.meta.range(Table::Archived, &snapshot_key(base, Epoch::ZERO), &snapshot_key(base, Epoch::MAX))?;
        let mark = |(key, value): Pair| -> Result<Mark> {
            let mark: Mark = decode(Table::Archived, &key, &value)?;
            check_base_name(&mark.name, || format!("the archived time of epoch {} of base {base}", mark.epoch))?;
            Ok(mark)
        };
        all.map(|pair| pair.and_then(mark)).collect()
    }
}

impl Changing<'_> {
    /// Notes which times the archive of a base has.
    pub fn note_archived(&mut self, base: BaseId, marks: &[Mark]) -> Result<()> {
        let known = self.known_archived(base)?;
        let meta = self.meta_mut();
        let has: BTreeSet<Epoch> = marks.iter().map(|mark| mark.epoch).collect();
        for gone in known.iter().filter(|mark| !has.contains(&mark.epoch)) {
            meta.remove(Table::Archived, &snapshot_key(base, gone.epoch));
        }
        let known: BTreeMap<Epoch, &Mark> = known.iter().map(|mark| (mark.epoch, mark)).collect();
        for mark in marks.iter().filter(|mark| known.get(&mark.epoch) != Some(mark)) {
            meta.put(Table::Archived, &snapshot_key(base, mark.epoch), mark);
        }
        Ok(())
    }
}
