//! Snapshots, and the times of an archive that are missing.

use super::spelling::TimeInfo;
use crate::daemon::MissingTime;
use crate::device::{Snapshot, SnapshotState};
use crate::limits::BLOCK_BYTES;
use crate::purpose::Purpose;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Active,
    Deactivated,
    Ended,
    /// It is in the archive, not in the store.
    Archived,
    /// The archive had it, and it cannot be read now.
    Missing,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Active => "active",
            State::Deactivated => "deactivated",
            State::Ended => "ended",
            State::Archived => "archived",
            State::Missing => "missing",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    pub name: String,
    /// Not of what would be taken, or is missing.
    pub id: Option<String>,
    pub base: String,
    pub epoch: u32,
    #[serde(flatten)]
    pub time: TimeInfo,
    pub state: State,
    pub purpose: Purpose,
    pub held: bool,
    /// Why it is held.
    pub tags: Vec<String>,
    /// Bases that could not be without it; not told by every operation.
    pub needed_by: Vec<String>,
    /// The archive continues from it.
    pub needed_by_archive: bool,
    pub offline: bool,
    pub archived: bool,
    /// What its tracks take. What only an archive has is not counted.
    pub refers_bytes: Option<u64>,
    /// What deleting it, alone, would free; not told by every operation.
    pub unique_bytes: Option<u64>,
    /// Room set aside for it.
    pub reserved_bytes: u64,
    /// Why it cannot be read, if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problems: Option<Vec<String>>,
}

impl SnapshotInfo {
    pub fn new(base: &str, snapshot: &Snapshot) -> SnapshotInfo {
        let record = &snapshot.record;
        SnapshotInfo {
            name: record.name.clone(),
            id: Some(record.id.to_string()),
            base: base.to_string(),
            epoch: snapshot.epoch.number(),
            time: record.time.into(),
            state: match record.state {
                _ if snapshot.is_archived => State::Archived,
                SnapshotState::Active => State::Active,
                SnapshotState::Deactivated => State::Deactivated,
                SnapshotState::Ended(_) => State::Ended,
            },
            purpose: record.purpose,
            held: record.held,
            tags: record.hold_tags(),
            needed_by: Vec::new(),
            needed_by_archive: false,
            offline: record.offline,
            archived: snapshot.is_archived,
            refers_bytes: (!snapshot.is_archived).then_some(record.refers * BLOCK_BYTES as u64),
            unique_bytes: None,
            reserved_bytes: record.reserve,
            problems: None,
        }
    }

    /// A time that an archive had, and why it cannot be read.
    pub fn missing(base: &str, missing: MissingTime, problems: &[String]) -> SnapshotInfo {
        SnapshotInfo {
            name: missing.name,
            id: None,
            base: base.to_string(),
            epoch: missing.epoch.number(),
            time: missing.time.into(),
            state: State::Missing,
            purpose: missing.purpose,
            held: false,
            tags: Vec::new(),
            needed_by: Vec::new(),
            needed_by_archive: false,
            offline: false,
            archived: true,
            refers_bytes: None,
            unique_bytes: None,
            reserved_bytes: 0,
            problems: Some(problems.to_vec()),
        }
    }

    /// One that would be taken: its id is given when it is.
    pub fn untaken(self) -> SnapshotInfo {
        SnapshotInfo { id: None, ..self }
    }
}
