//! Jobs, and other work that is under way.

use super::ProgressInfo;
use super::spelling::TimeInfo;
use crate::daemon::JobStanding;
use crate::view;
use serde::{Deserialize, Serialize};

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    Waiting,
    Running,
    Paused,
    Stopped,
    Done,
    /// Done, but for what could not be read.
    Incomplete,
    Cancelled,
}

impl From<view::JobState> for JobState {
    fn from(state: view::JobState) -> JobState {
        match state {
            view::JobState::Waiting => JobState::Waiting,
            view::JobState::Running => JobState::Running,
            view::JobState::Paused => JobState::Paused,
            view::JobState::Stopped => JobState::Stopped,
            view::JobState::Done => JobState::Done,
            view::JobState::Cancelled => JobState::Cancelled,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobInfo {
    /// By what it is named: a number, or for what is noted nowhere a name.
    pub job: String,
    pub what: String,
    pub state: JobState,
    /// When it was asked for.
    #[serde(flatten)]
    pub time: TimeInfo,
    pub uid: u32,
    /// The daemon works on it by itself.
    pub detached: bool,
    /// Where its snapshots go.
    pub target: Option<String>,
    /// How many snapshots it has to write, and how many are written.
    pub snapshots: u64,
    pub written: u64,
    /// How far what is being done by now has come.
    pub progress: ProgressInfo,
    /// Bytes of files that were new or changed in what is written, and what was written of that to the target.
    pub added: u64,
    pub bytes: u64,
    /// Names of the snapshots that are held for it.
    pub holds: Vec<String>,
    pub waits_for: Option<String>,
    /// When it ended.
    pub ended: Option<TimeInfo>,
    /// Why it stopped.
    pub failure: Option<String>,
    /// What could not be read.
    pub missing: Vec<String>,
}

impl From<JobStanding> for JobInfo {
    fn from(standing: JobStanding) -> JobInfo {
        let JobStanding { name, what, by, made, state, record, holds, progress, waits_for } = standing;
        let of = record.as_ref();
        JobInfo {
            job: name,
            what,
            state: match of {
                Some(record) if state == view::JobState::Done && !record.missing.is_empty() => JobState::Incomplete,
                _ => state.into(),
            },
            time: made.into(),
            uid: by,
            detached: of.is_some_and(|record| record.is_detached),
            target: of.map(|record| record.target.clone()),
            snapshots: of.map_or(0, |record| record.snapshots),
            written: of.map_or(0, |record| record.written),
            progress: (&progress).into(),
            added: of.map_or(0, |record| record.added),
            bytes: of.map_or(0, |record| record.bytes),
            holds,
            waits_for,
            ended: of.and_then(|record| record.ended).map(TimeInfo::from),
            failure: of.and_then(|record| record.failure.clone()),
            missing: record.map(|record| record.missing).unwrap_or_default(),
        }
    }
}
