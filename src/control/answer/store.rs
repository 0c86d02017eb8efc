//! The store as a whole: its state, its check, its upgrade.

use super::archive::ArchiveInfo;
use super::base::BaseInfo;
use super::snapshot::SnapshotInfo;
use super::spelling::{self, DirectoryInfo, PathInfo, PathText, TimeInfo};
use crate::clock::Timestamp;
use crate::daemon::{self, CheckReport, Health, HealthState, Problem, Trouble, UpgradeReport};
use serde::{Deserialize, Serialize};
use std::path::Path;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusInfo {
    #[serde(flatten, with = "spelling::store")]
    pub store: PathText,
    pub id: String,
    #[serde(flatten, with = "spelling::mount_point")]
    pub mount_point: Option<PathText>,
    /// What requests of the mount come through: `device` or `rings`.
    pub transport: Option<String>,
    pub track_bytes: u64,
    pub compression: String,
    /// What the store could hold if it had all that is available.
    pub total_bytes: u64,
    /// What can still be written.
    pub available_bytes: u64,
    /// File data of `live`.
    pub live_bytes: u64,
    /// File data that only snapshots hold.
    pub log_bytes: u64,
    pub metadata_bytes: u64,
    /// What segments take on the disk, with the free blocks inside them.
    pub segment_bytes: u64,
    pub reserved_bytes: u64,
    pub drop_oldest: bool,
    pub bases: Vec<BaseInfo>,
    pub archives: Vec<ArchiveInfo>,
    /// The newest save of each base that has one.
    pub saves: Vec<SnapshotInfo>,
    pub snapshots: Vec<SnapshotInfo>,
    /// What is done in the background.
    pub workers: Vec<WorkerInfo>,
    /// Nothing can be written where the store is.
    pub only_read: bool,
    /// Why writing has stopped, if it has.
    pub stopped: Option<String>,
    pub health: HealthInfo,
    /// What keeps the store well: when each was last done. What was never done is missing.
    pub done: Vec<DoneInfo>,
    /// Names of the targets that snapshots can be backed up to.
    pub targets: Vec<String>,
}

impl StatusInfo {
    /// How many seconds ago something was last done; less than none where that is still to come.
    pub fn seconds_since(&self, what: &str, now: Timestamp) -> Option<i64> {
        self.done.iter().find(|done| done.what == what).map(|done| now.seconds - done.time.seconds)
    }
}

/// How the store is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthInfo {
    pub state: HealthState,
    /// All that is wrong, the worst first.
    pub troubles: Vec<TroubleInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TroubleInfo {
    pub what: String,
    /// Since when, where that is known.
    pub since: Option<TimeInfo>,
    pub helps: String,
}

impl From<Health> for HealthInfo {
    fn from(health: Health) -> HealthInfo {
        let told = |trouble: Trouble| TroubleInfo {
            what: trouble.what,
            since: trouble.since.map(TimeInfo::from),
            helps: trouble.helps,
        };
        HealthInfo { state: health.state, troubles: health.troubles.into_iter().map(told).collect() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneInfo {
    /// `snapshot`, `save`, `roll`, `backup` or `check`.
    pub what: String,
    #[serde(flatten)]
    pub time: TimeInfo,
    /// Problems that it found.
    pub problems: u64,
}

impl DoneInfo {
    pub fn new(what: &str, time: Timestamp, problems: u64) -> DoneInfo {
        DoneInfo { what: what.into(), time: time.into(), problems }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    pub name: String,
    /// Its last turn found something to do.
    pub working: bool,
    /// Turns in which it did something, since the store was opened.
    pub turns: u64,
    pub waits_for: Option<String>,
    /// Why its last turn failed, if it did.
    pub failure: Option<String>,
}

impl From<daemon::WorkerInfo> for WorkerInfo {
    fn from(worker: daemon::WorkerInfo) -> WorkerInfo {
        let daemon::WorkerInfo { name, is_working, turns, waits_for, failure } = worker;
        WorkerInfo { name, working: is_working, turns, waits_for, failure }
    }
}

/// Where the store is mounted, if it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountedInfo {
    #[serde(flatten, with = "spelling::mount_point")]
    pub mount_point: Option<PathText>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckInfo {
    pub inodes: u64,
    pub names: u64,
    pub tracks: u64,
    pub snapshots: u64,
    pub read_bytes: u64,
    pub problems: Vec<ProblemInfo>,
    /// Problems beyond those that are listed.
    pub more_problems: u64,
    /// Problems that are listed without some of their paths.
    pub problems_without_paths: u64,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemInfo {
    pub text: String,
    /// The files it concerns, each with the view in which they lie: `live/a/b`, `SNAPSHOT/a/b`.
    pub paths: Vec<PathInfo>,
    /// There are more of them, or would be: a report has no room for all.
    pub more_paths: bool,
}

impl From<Problem> for ProblemInfo {
    fn from(problem: Problem) -> ProblemInfo {
        let paths = problem.paths.into_iter().map(|path| PathInfo { path: path.into_vec().into() });
        ProblemInfo { text: problem.text, paths: paths.collect(), more_paths: problem.has_more_paths }
    }
}

impl From<CheckReport> for CheckInfo {
    fn from(report: CheckReport) -> CheckInfo {
        CheckInfo {
            problems_without_paths: report.without_paths(),
            inodes: report.inodes,
            names: report.names,
            tracks: report.tracks,
            snapshots: report.snapshots,
            read_bytes: report.read_bytes,
            problems: report.problems.into_iter().map(ProblemInfo::from).collect(),
            more_problems: report.more_problems,
        }
    }
}

impl CheckInfo {
    pub fn is_clean(&self) -> bool {
        self.count() == 0
    }

    /// Problems that were found, listed or not.
    pub fn count(&self) -> u64 {
        (self.problems.len() as u64).saturating_add(self.more_problems)
    }
}

/// What became of a store and of the archives that it knows. No daemon is asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeInfo {
    #[serde(flatten, with = "spelling::store")]
    pub store: PathText,
    pub from: u32,
    pub to: u32,
    pub can_be_undone: bool,
    pub archives: Vec<DirectoryInfo>,
    /// What could not be brought over, and what to do.
    pub problems: Vec<String>,
    /// What was done in the present format that the older one has no words for.
    pub dropped: Vec<String>,
}

impl UpgradeInfo {
    pub fn new(store: &Path, report: UpgradeReport) -> UpgradeInfo {
        let UpgradeReport { from, to, can_be_undone, archives, problems, dropped } = report;
        let archives = archives.into_iter().map(|archive| DirectoryInfo { directory: archive.into() }).collect();
        UpgradeInfo { store: store.into(), from, to, can_be_undone, archives, problems, dropped }
    }
}
