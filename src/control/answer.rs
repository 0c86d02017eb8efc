//! What is answered.

use crate::clock::{Epoch, Timestamp};
use crate::daemon::{
    ArchiveInfo, BringBackReport, CheckReport, Detached, MissingTime, Progress, RestoreReport, RollReport, Shortened,
    SyncReport, WorkerInfo,
};
use crate::device::{Snapshot, SnapshotState};
use crate::id::Id;
use crate::purpose::Purpose;
use crate::tree::{Difference, Space};
use crate::view::{BaseInfo, HistoryEntry, SessionRecord};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::path::PathBuf;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The request is being carried out. Before this nothing was done.
    Begun,
    Progress(Progress),
    Done(Box<Answer>),
    /// The text is for the user.
    Failed {
        errno: i32,
        text: String,
    },
    /// The daemon ends; what was asked for changes nothing and can be asked of the closed store.
    Closing,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    Nothing,
    Snapshots(Vec<SnapshotInfo>),
    List(ListInfo),
    Deletion(DeletionInfo),
    Sessions(Vec<SessionInfo>),
    Groups(Vec<(String, Vec<String>)>),
    Bases(Vec<BaseInfo>),
    /// In place: what was kept of the state before, and what was gone back to.
    Restored {
        /// Without it, nothing differed and nothing was changed.
        before: Option<SnapshotInfo>,
        to: SnapshotInfo,
    },
    /// The same of several bases.
    RestoredAll(Vec<(Option<SnapshotInfo>, SnapshotInfo)>),
    /// The same in steps, path by path.
    BroughtBack {
        before: Option<SnapshotInfo>,
        to: SnapshotInfo,
        report: BringBackReport,
    },
    CopyOut(RestoreReport),
    /// With the name of the base, where that is still there.
    History(Vec<(HistoryEntry, Option<String>)>),
    Versions(Vec<VersionInfo>),
    Differences(Vec<Difference>),
    Tracks {
        track_bytes: u64,
        files: Vec<TracksInfo>,
    },
    Bytes(ByteBuf),
    Roll(RollReport),
    /// Of each base of a group.
    RollGroup(Vec<(String, RollReport)>),
    Archives(Vec<ArchiveInfo>),
    Detached(Detached),
    Shortened(Shortened),
    Policy {
        drop_oldest: bool,
        /// Snapshots before restores that a base keeps; nothing: all.
        before_restores: Option<u64>,
        /// Those that went, since they were more.
        deleted: Vec<SnapshotInfo>,
    },
    Status(StatusInfo),
    Check(CheckReport),
    Plan(PlanInfo),
    Sync(SyncReport),
    Mount {
        #[serde(with = "crate::meta::path::optional")]
        mount_point: Option<PathBuf>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    pub base: String,
    pub name: String,
    pub epoch: Epoch,
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
    pub id: Id,
    /// Why it is held.
    pub tags: Vec<String>,
    /// Bases that could not be without it; not told by every operation.
    pub needed_by: Vec<String>,
    /// The archive continues from it.
    pub is_anchor: bool,
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
            id: record.id,
            tags: record.hold_tags(),
            needed_by: Vec::new(),
            is_anchor: false,
        }
    }
}

/// Snapshots, and the times that archives had and cannot be read now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListInfo {
    pub snapshots: Vec<SnapshotInfo>,
    pub missing: Vec<MissingInfo>,
}

/// Times of a base that are missing, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingInfo {
    pub base: String,
    pub times: Vec<MissingTime>,
    pub problems: Vec<String>,
}

/// What goes, in the order in which it does, or would go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletionInfo {
    /// With their snapshots.
    pub bases: Vec<(BaseInfo, Vec<SnapshotInfo>)>,
    /// Those that were named, and then those of other bases that were taken for mirrors.
    pub snapshots: Vec<SnapshotInfo>,
    /// What is counted ahead only.
    pub freed: Option<FreedInfo>,
}

/// What would be free, and the paths that hold most of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreedInfo {
    pub bytes: u64,
    /// Of which base, the path, and bytes.
    pub paths: Vec<(String, ByteBuf, u64)>,
}

/// What a command would do. What it has nothing to do with is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanInfo {
    /// What would be gone back to, or moved or copied to somewhere else.
    pub restored: Vec<SnapshotInfo>,
    /// Snapshots that would be taken; without a name that was given, the name is that of this moment.
    pub taken: Vec<SnapshotInfo>,
    /// Snapshots that would protect nothing any more.
    pub deactivated: Vec<SnapshotInfo>,
    /// Snapshots whose times an archive would have besides.
    pub saved: Vec<SnapshotInfo>,
    /// Snapshots that would go.
    pub freed: Vec<SnapshotInfo>,
    /// Bases, clones and mirrors that would be made.
    pub made: Vec<String>,
    /// Those that would show another state, or be another kind of base.
    pub changed: Vec<String>,
    /// Files that would be made or changed, and the sizes of those that would get other content.
    pub files: Option<u64>,
    pub bytes: Option<u64>,
    /// Names that would go.
    pub removed: Option<u64>,
    /// Bytes of tracks that would be copied inside the store.
    pub copied: Option<u64>,
    /// Bytes of room that would be set aside.
    pub reserved: u64,
    /// Directories that increments would be saved to.
    pub archives: Vec<ByteBuf>,
    /// What could not be done.
    pub problems: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    pub name: String,
    pub bases: Vec<String>,
    pub record: SessionRecord,
}

impl SessionInfo {
    /// `related` or `registered`.
    pub fn state(&self) -> &'static str {
        if self.record.is_related { "related" } else { "registered" }
    }
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
    #[serde(with = "crate::meta::path")]
    pub store: PathBuf,
    pub id: Id,
    #[serde(with = "crate::meta::path::optional")]
    pub mount_point: Option<PathBuf>,
    pub track_bytes: u64,
    pub compression: String,
    pub space: Space,
    pub reserved: u64,
    pub drop_oldest: bool,
    pub bases: Vec<BaseInfo>,
    pub snapshots: Vec<SnapshotInfo>,
    pub archives: Vec<ArchiveInfo>,
    /// The newest save of each base that has one.
    pub saves: Vec<SnapshotInfo>,
    /// What is done in the background.
    pub workers: Vec<WorkerInfo>,
    /// Nothing can be written where the store is.
    pub only_read: bool,
    /// Why writing has stopped, if it has.
    pub stopped: Option<String>,
}
