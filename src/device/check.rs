//! What records of tracks say, and whether it can be so. What is the past's is looked at in `past/check.rs`.

pub use super::past::check::{Bases, Facts, birth_of, birth_problem, end_problem, is_tombstone};

use super::State;
use super::past::check as past;
use super::past::{BaseId, InodeAt, InodeNo, TrackNo, split_record, split_track_key};
use super::pointer::Pointer;
use super::work::check_work;
use crate::clock::Epoch;
use crate::error::Result;
use crate::logstore::{Holder, Location};
use crate::meta::{Table, decode, hex};

/// What a record of a track is of; why its key is none, if it is none.
pub type Of<T> = std::result::Result<T, String>;

/// The track that a record is of as it is now.
pub fn track_of(key: &[u8]) -> Of<TrackOf> {
    let (inode, track) =
        split_track_key(key).ok_or_else(|| format!("record {} of table track: its key makes no sense", hex(key)))?;
    Ok(TrackOf { inode, track, end: None })
}

/// The track that a pre-image is of, if it is of one.
pub fn old_track_of(key: &[u8]) -> Of<Option<TrackOf>> {
    let named = past::ended(key).map_err(|error| error.to_string())?;
    if named.table != Table::Track {
        return Ok(None);
    }
    let (inode, track) = split_track_key(&named.key)
        .ok_or_else(|| format!("the old value {} of a track: its key makes no sense", hex(key)))?;
    Ok(Some(TrackOf { inode, track, end: Some(named.end) }))
}

/// A track now, or of a time that has ended.
#[derive(Clone, Copy)]
pub struct TrackOf {
    pub inode: InodeNo,
    pub track: TrackNo,
    pub end: Option<Epoch>,
}

/// What the record of a track says.
pub struct TrackSays {
    pub birth: Epoch,
    pub holder: Holder,
    pointer: Pointer,
}

impl TrackSays {
    /// `None` if it says that there is nothing.
    pub fn of(table: Table, key: &[u8], value: &[u8]) -> Result<Option<TrackSays>> {
        let (birth, record) = split_record(table, key, value)?;
        if record.is_empty() {
            return Ok(None);
        }
        let holder = if table == Table::Track { Holder::Live } else { Holder::Log };
        Ok(Some(TrackSays { birth, holder, pointer: decode(Table::Track, key, record)? }))
    }

    pub fn locations(&self) -> impl Iterator<Item = &Location> {
        self.pointer.locations()
    }

    /// What no track of a store can have.
    pub fn problem(&self, track_bytes: u64) -> Option<String> {
        let held = self.pointer.held();
        (held as u64 > track_bytes).then(|| format!("it is said to hold {held} bytes"))
    }
}

/// Other bases than this one that show some of another state.
pub fn others_with_eras(state: &State, than: BaseId) -> impl Iterator<Item = BaseId> {
    let has_eras = state.bases().filter(|(_, record)| !record.eras.is_empty());
    has_eras.map(|(base, _)| base).filter(move |base| *base != than)
}

/// Whether a track leads to a location at a moment.
pub fn leads_to(state: &State, at: InodeAt, track: TrackNo, location: &Location) -> bool {
    let found = state.pointer(at, track).ok().flatten();
    found.is_some_and(|(pointer, _)| pointer.locations().any(|one| one == location))
}

/// Whether a record by itself can be what its table has.
pub fn check_record(table: Table, key: &[u8], value: &[u8]) -> Result<()> {
    match table {
        Table::Orphan => check_work(key, value),
        _ => past::check_record(table, key, value),
    }
}
