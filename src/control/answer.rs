//! What is answered.

use crate::clock::Timestamp;
use crate::daemon::{
    ArchiveInfo, BringBackReport, CheckReport, Detached, Progress, RestoreReport, RollReport, SyncReport,
};
use crate::device::{Purpose, Snapshot, SnapshotState};
use crate::tree::{Difference, Space};
use crate::view::{BaseInfo, HistoryEntry, SessionRecord};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    Progress(Progress),
    Done(Box<Answer>),
    /// The text is for the user.
    Failed {
        errno: i32,
        text: String,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    Nothing,
    Snapshots(Vec<SnapshotInfo>),
    Freed(FreedInfo),
    Sessions(Vec<SessionInfo>),
    Groups(Vec<(String, Vec<String>)>),
    Bases(Vec<BaseInfo>),
    /// In place: what was kept of the state before, and what was gone back to.
    Restored {
        before: SnapshotInfo,
        to: SnapshotInfo,
    },
    BroughtBack(BringBackReport),
    CopyOut(RestoreReport),
    /// With the name of the base, where that is still there.
    History(Vec<(HistoryEntry, Option<String>)>),
    Versions(Vec<VersionInfo>),
    Differences(Vec<Difference>),
    Tracks {
        track_bytes: u64,
        files: Vec<TracksInfo>,
    },
    Roll(RollReport),
    Archives(Vec<ArchiveInfo>),
    Detached(Detached),
    Policy {
        drop_oldest: bool,
    },
    Status(StatusInfo),
    Check(CheckReport),
    Sync(SyncReport),
    Mount {
        mount_point: Option<PathBuf>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    pub base: String,
    pub name: String,
    pub epoch: u32,
    pub time: Timestamp,
    pub state: SnapshotState,
    pub purpose: Purpose,
    pub held: bool,
    pub offline: bool,
    /// It is in the archive, not in the store.
    pub archived: bool,
    /// Bytes that its tracks take.
    pub refers: u64,
    /// Bytes that deleting it, alone, would free; not told by every operation.
    pub unique: Option<u64>,
    /// Bytes of room set aside for it.
    pub reserve: u64,
}

impl SnapshotInfo {
    pub fn new(base: &str, snapshot: &Snapshot, unique: Option<u64>) -> SnapshotInfo {
        let record = &snapshot.record;
        SnapshotInfo {
            base: base.to_string(),
            name: record.name.clone(),
            epoch: snapshot.epoch,
            time: record.time,
            state: record.state,
            purpose: record.purpose,
            held: record.held,
            offline: record.offline,
            archived: snapshot.is_archived,
            refers: record.refers * crate::limits::BLOCK_BYTES as u64,
            unique,
            reserve: record.reserve,
        }
    }
}

/// What deleting snapshots would free, and the paths that hold most of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreedInfo {
    pub bytes: u64,
    /// Clones and others that depend on them.
    pub needed_by: Vec<String>,
    pub paths: Vec<(String, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    pub name: String,
    pub bases: Vec<String>,
    pub record: SessionRecord,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// The newest snapshot that shows it; nothing: it is what is there now.
    pub snapshot: Option<String>,
    /// When that snapshot was taken.
    pub taken: Option<Timestamp>,
    pub modified: Timestamp,
    pub size: u64,
    pub inode: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracksInfo {
    #[serde(with = "serde_bytes")]
    pub path: Vec<u8>,
    pub inode: u64,
    pub size_before: Option<u64>,
    pub size_after: Option<u64>,
    /// Numbers of tracks: the first, and the one behind the last.
    pub tracks: Vec<(u64, u64)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusInfo {
    pub store: PathBuf,
    pub mount_point: Option<PathBuf>,
    pub track_bytes: u64,
    pub compression: String,
    pub space: Space,
    pub reserved: u64,
    pub drop_oldest: bool,
    pub bases: Vec<BaseInfo>,
    pub snapshots: Vec<SnapshotInfo>,
    pub archives: Vec<ArchiveInfo>,
    /// Why writing has stopped, if it has.
    pub stopped: Option<String>,
}
