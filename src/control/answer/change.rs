//! What was changed, or would be: restores, copies, syncs, deletions, and dry runs.

use super::base::BaseInfo;
use super::snapshot::SnapshotInfo;
use super::spelling::{self, DirectoryInfo, PathText};
use crate::daemon::{BringBackReport, Planned, RestoreReport, StreamReport, SyncReport};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A base that went back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredInfo {
    pub restored: SnapshotInfo,
    /// What was kept of the state before. Without it, nothing differed and nothing was changed.
    pub before: Option<SnapshotInfo>,
    /// What is done in one step is not counted.
    pub files: Option<u64>,
    pub bytes: Option<u64>,
    pub removed: Option<u64>,
    pub problems: Vec<String>,
}

impl RestoredInfo {
    /// In one step.
    pub fn whole(to: SnapshotInfo, before: Option<SnapshotInfo>) -> RestoredInfo {
        RestoredInfo { restored: to, before, files: None, bytes: None, removed: None, problems: Vec::new() }
    }

    /// Path by path.
    pub fn counted(to: SnapshotInfo, before: Option<SnapshotInfo>, report: BringBackReport) -> RestoredInfo {
        let (files, bytes, removed) = (Some(report.files), Some(report.bytes), Some(report.removed));
        RestoredInfo { restored: to, before, files, bytes, removed, problems: report.problems }
    }
}

/// What was copied to a directory outside the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedOutInfo {
    #[serde(flatten, with = "spelling::directory")]
    pub directory: PathText,
    pub files: u64,
    pub bytes: u64,
    pub problems: Vec<String>,
}

impl CopiedOutInfo {
    pub fn new(to: &Path, report: RestoreReport) -> CopiedOutInfo {
        let RestoreReport { files, bytes, problems } = report;
        CopiedOutInfo { directory: to.into(), files, bytes, problems }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncInfo {
    pub dry_run: bool,
    pub added: u64,
    pub changed: u64,
    pub removed: u64,
    pub unchanged: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    /// With a dry run: what would be done.
    pub planned: Vec<PlannedInfo>,
    /// What of the source belongs to this store and was passed over.
    pub left_out: Vec<String>,
    pub problems: Vec<String>,
}

/// What would be done to a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedInfo {
    /// `add`, `change` or `remove`.
    pub what: String,
    #[serde(flatten, with = "spelling::path")]
    pub path: PathText,
}

impl SyncInfo {
    pub fn new(report: SyncReport, dry_run: bool) -> SyncInfo {
        let planned = |Planned { what, path }| PlannedInfo { what, path: path.into_vec().into() };
        SyncInfo {
            dry_run,
            added: report.added,
            changed: report.changed,
            removed: report.removed,
            unchanged: report.unchanged,
            read_bytes: report.read_bytes,
            written_bytes: report.written_bytes,
            planned: report.planned.into_iter().map(planned).collect(),
            left_out: report.left_out,
            problems: report.problems,
        }
    }
}

/// What went, in the order in which it did, or would go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletionInfo {
    pub dry_run: bool,
    pub bases: Vec<BaseInfo>,
    /// Those of the bases, those that were named, and then those of other bases that were taken for mirrors.
    pub snapshots: Vec<SnapshotInfo>,
    /// What would be free; counted ahead only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The paths that hold most of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<FreedInfo>>,
}

/// What deleting would free of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreedInfo {
    pub base: String,
    #[serde(flatten, with = "spelling::path")]
    pub path: PathText,
    pub bytes: u64,
}

/// What a command would do. What it has nothing to do with is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanInfo {
    pub dry_run: bool,
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
    /// Tracks that would be copied inside the store.
    pub copied_bytes: Option<u64>,
    /// Room that would be set aside.
    pub reserved_bytes: u64,
    /// Where increments would be saved to.
    pub archives: Vec<DirectoryInfo>,
    /// What could not be done.
    pub problems: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyInfo {
    pub when_full: WhenFull,
    /// Snapshots before restores that a base keeps; nothing: all.
    pub before_restore: Option<u64>,
    /// Those that went, since they were more.
    pub deleted: Vec<SnapshotInfo>,
}

/// What is done when room ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    Refuse,
    /// The oldest snapshots that are not held are dropped.
    DropOldest,
}

impl WhenFull {
    pub fn as_str(self) -> &'static str {
        match self {
            WhenFull::Refuse => "refuse",
            WhenFull::DropOldest => "drop-oldest",
        }
    }
}

/// What came of a tar archive that was unpacked, or packed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamInfo {
    pub files: u64,
    pub bytes: u64,
    /// What could not be, each with the reason.
    pub problems: Vec<String>,
}

impl From<StreamReport> for StreamInfo {
    fn from(report: StreamReport) -> StreamInfo {
        let StreamReport { files, bytes, problems } = report;
        StreamInfo { files, bytes, problems }
    }
}
