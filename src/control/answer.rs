//! What is answered.
//!
//! These types are the protocol and nothing else: no table holds one, and what a layer below reports or stores is put into
//! one before it leaves. Each is said once, for the socket and for `--json` alike: docs/protocol.md has every field.

mod archive;
mod base;
mod change;
mod compare;
mod job;
mod snapshot;
pub mod spelling;
mod store;
mod target;

pub use archive::{
    ArchiveInfo, BaseRollInfo, DetachedInfo, GoneInfo, IncrementInfo, MissingInfo, RollInfo, ShortenedInfo,
    VerifiedInfo,
};
pub use base::{BaseInfo, GroupInfo, Kind, SessionInfo, SessionState};
pub use change::{
    CopiedOutInfo, DeletionInfo, FreedInfo, PlanInfo, PlannedInfo, PolicyInfo, RestoredInfo, StreamInfo, SyncInfo,
    WhenFull,
};
pub use compare::{BytesInfo, Change, DifferenceInfo, FileTracksInfo, HistoryInfo, TracksInfo, VersionInfo};
pub use job::{JobInfo, JobState};
pub use snapshot::{SnapshotInfo, State};
pub use spelling::{DirectoryInfo, PathInfo, PathText, TimeInfo};
pub use store::{
    CheckInfo, DoneInfo, HealthInfo, MountedInfo, ProblemInfo, StatusInfo, TroubleInfo, UpgradeInfo, WorkerInfo,
};
pub use target::{BackupInfo, KeyInfo, LetGoInfo, SetInfo, SetKind, TargetInfo};

use crate::daemon::Progress;
use crate::error::Errno;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The request is being carried out. Before this nothing was done.
    Begun,
    Progress(ProgressInfo),
    Done(Box<Answer>),
    Failed(ErrorInfo),
    /// The daemon ends; what was asked for changes nothing and can be asked of the closed store.
    Closing,
}

/// How far long work has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressInfo {
    pub files: u64,
    pub bytes: u64,
    /// What `bytes` will be at the end; 0 where that is not known.
    pub total_bytes: u64,
}

impl From<&Progress> for ProgressInfo {
    fn from(progress: &Progress) -> ProgressInfo {
        let Progress { files, bytes, total_bytes } = *progress;
        ProgressInfo { files, bytes, total_bytes }
    }
}

impl From<ProgressInfo> for Progress {
    fn from(progress: ProgressInfo) -> Progress {
        let ProgressInfo { files, bytes, total_bytes } = progress;
        Progress { files, bytes, total_bytes }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorInfo {
    /// Its name, such as `ENOENT`.
    pub errno: String,
    pub number: i32,
    /// For the user.
    pub message: String,
}

impl ErrorInfo {
    pub fn new(errno: Errno, message: &str) -> ErrorInfo {
        let number = errno.raw_os_error();
        let errno = format!("{:?}", nix::errno::Errno::from_raw(number));
        ErrorInfo { errno, number, message: message.to_string() }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Nothing,
    Snapshots(Vec<SnapshotInfo>),
    /// With the times that archives had and cannot be read now, each where it was.
    List(Vec<SnapshotInfo>),
    Deletion(DeletionInfo),
    Sessions(Vec<SessionInfo>),
    Groups(Vec<GroupInfo>),
    Bases(Vec<BaseInfo>),
    Restored(Box<RestoredInfo>),
    /// Of each base of a group.
    RestoredAll(Vec<RestoredInfo>),
    CopiedOut(CopiedOutInfo),
    History(Vec<HistoryInfo>),
    Versions(Vec<VersionInfo>),
    Differences(Vec<DifferenceInfo>),
    Tracks(TracksInfo),
    Bytes(BytesInfo),
    Roll(RollInfo),
    /// Of each base of a group.
    RollGroup(Vec<BaseRollInfo>),
    Archives(Vec<ArchiveInfo>),
    Targets(Vec<TargetInfo>),
    Backups(Vec<BackupInfo>),
    /// One, but where all were asked for.
    Jobs(Vec<JobInfo>),
    Sets(Vec<SetInfo>),
    LetGo(LetGoInfo),
    Keys(Vec<KeyInfo>),
    Verified(VerifiedInfo),
    Detached(DetachedInfo),
    Shortened(ShortenedInfo),
    Policy(PolicyInfo),
    Status(Box<StatusInfo>),
    Check(CheckInfo),
    Plan(PlanInfo),
    Sync(SyncInfo),
    Stream(StreamInfo),
    Mount(MountedInfo),
}
