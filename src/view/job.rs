//! Jobs: work that outlives the command that asked for it, and the daemon that does it. Each is a record, with the snapshots that are
//! held for it.
//!
//! ```text
//! waiting ─▶ running ─▶ done
//!    ▲          ├─────▶ paused ──┐
//!    │          └─────▶ stopped ─┤      by a failure, which is kept
//!    └────── asked to go on ◀────┘      cancelled: from any but the last ones
//! ```
//!
//! Invariants:
//! - the commit that notes a job holds its snapshots, and the one that ends it lets them go;
//! - a job that is running where nobody works is one that was interrupted.

use super::hold::add_hold;
use super::{Views, refused};
use crate::clock::Timestamp;
use crate::device::{BaseId, Changing, Snapshot, State};
use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::limits::JOBS_ENDED_KEPT;
use crate::meta::{Table, decode, prefix_end, record_name};
use crate::set::Kind;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobState {
    /// Nobody works on it yet.
    Waiting,
    Running,
    /// By somebody who asked for that.
    Paused,
    /// It failed; it goes on when it is asked to.
    Stopped,
    Done,
    Cancelled,
}

impl JobState {
    pub fn name(self) -> &'static str {
        match self {
            JobState::Waiting => "waiting",
            JobState::Running => "running",
            JobState::Paused => "paused",
            JobState::Stopped => "stopped",
            JobState::Done => "done",
            JobState::Cancelled => "cancelled",
        }
    }
}

/// A backup as a job: what it is to do, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    pub state: JobState,
    pub made: Timestamp,
    pub ended: Option<Timestamp>,
    /// Who asked for it, and on which machines.
    pub by: u32,
    pub hosts: Vec<Id>,
    pub base: BaseId,
    /// The target's name, and which one it was then.
    pub target: String,
    pub target_id: Id,
    pub kind: Kind,
    pub level: i32,
    pub limit: Option<u64>,
    /// The daemon works on it by itself, whatever becomes of the command.
    pub is_detached: bool,
    /// How many snapshots are to be written, how many of them are, and how many were gone before that.
    pub snapshots: u64,
    pub written: u64,
    pub gone: u64,
    /// Bytes of files that were read, and bytes that were written to the target.
    pub added: u64,
    pub bytes: u64,
    /// Why it stopped.
    pub failure: Option<String>,
    /// What is not in it, as far as it is told.
    pub missing: Vec<String>,
}

const JOB: &[u8] = b"job ";
/// The snapshots of a job, of which each is held for it: ids and names.
const HOLDS: &[u8] = b"held for job ";

/// What of a job cannot be read is told up to so many.
pub const MISSING_TOLD: usize = 100;

fn key(prefix: &[u8], number: u64) -> Vec<u8> {
    [prefix, &number.to_be_bytes()].concat()
}

const TAG: &str = "job ";

/// For what a snapshot is held.
fn tag(number: u64) -> String {
    format!("{TAG}{number}")
}

/// The job for which a snapshot is held, if the tag is that of one.
pub(super) fn job_of_tag(tag: &str) -> Option<&str> {
    tag.strip_prefix(TAG)
}

/// The number of a job in the key of one of its records.
fn number_of(prefix: &[u8], key: &[u8]) -> Result<u64> {
    let number = key.strip_prefix(prefix).and_then(|rest| rest.try_into().ok()).map(u64::from_be_bytes);
    number.ok_or_else(|| Error::corrupt(record_name(Table::State, key), "its key is that of no job"))
}

type Held = Vec<(Id, String)>;

/// What records of jobs say, if one is of those.
pub(super) fn check_record(key: &[u8], value: &[u8]) -> Result<()> {
    if key.starts_with(JOB) {
        decode::<JobRecord>(Table::State, key, value)?;
        number_of(JOB, key).map(drop)
    } else if key.starts_with(HOLDS) {
        decode::<Held>(Table::State, key, value)?;
        number_of(HOLDS, key).map(drop)
    } else {
        Ok(())
    }
}

/// The jobs of a store.
#[derive(Clone, Copy)]
pub struct Jobs<'a> {
    pub(super) views: &'a Views,
}

impl Jobs<'_> {
    /// All jobs that are known, by number.
    pub fn all(self) -> Result<Vec<(u64, JobRecord)>> {
        let look = self.views.tree.device().look()?;
        let all = look.meta().range(Table::State, JOB, &prefix_end(JOB))?;
        all.map(|pair| {
            let (key, value) = pair?;
            Ok((number_of(JOB, &key)?, decode(Table::State, &key, &value)?))
        })
        .collect()
    }

    pub fn find(self, number: u64) -> Result<JobRecord> {
        let found = self.views.tree.device().look()?.meta().get(Table::State, &key(JOB, number))?;
        found.ok_or_else(|| {
            refused(Errno::NOENT, format!("there is no job {number}; `pitfs job list` shows what there is"))
        })
    }

    /// The snapshots that are held for a job, by id and name.
    pub fn held(self, number: u64) -> Result<Vec<(Id, String)>> {
        let found = self.views.tree.device().look()?.meta().get(Table::State, &key(HOLDS, number))?;
        Ok(found.unwrap_or_default())
    }

    /// Notes a job, and holds its snapshots; its number.
    pub fn add(self, record: &JobRecord, snapshots: &[Snapshot]) -> Result<u64> {
        let held: Held = snapshots.iter().map(|one| (one.record.id, one.record.name.clone())).collect();
        self.views.tree.device().committer()?.change(|change| {
            let all = change.meta().range(Table::State, JOB, &prefix_end(JOB))?;
            let last = all.last().transpose()?.map_or(Ok(0), |(key, _)| number_of(JOB, &key))?;
            let number = last.saturating_add(1);
            for snapshot in snapshots {
                let state: &State = change;
                let now = state.moments().snapshot(snapshot.base, snapshot.epoch)?.filter(|now| !now.is_archived);
                let mut now = now.ok_or(Error::Gone)?;
                add_hold(&mut now.record, &tag(number))?;
                change.update(&now);
            }
            change.meta_mut().put(Table::State, &key(JOB, number), record);
            change.meta_mut().put(Table::State, &key(HOLDS, number), &held);
            Ok(number)
        })
    }

    /// Changes what is noted of a job, which others may have changed meanwhile; as it is then.
    pub fn update(self, number: u64, update: impl Fn(&mut JobRecord) -> Result<()>) -> Result<JobRecord> {
        self.views.tree.device().committer()?.change(|change| {
            let key = key(JOB, number);
            let mut record: JobRecord = change.meta().get(Table::State, &key)?.ok_or(Error::Gone)?;
            update(&mut record)?;
            change.meta_mut().put(Table::State, &key, &record);
            if record.ended.is_some() {
                release(change, number)?;
                forget_old(change)?;
            }
            Ok(record)
        })
    }

    /// What was being done when the store was last open, and is not done any more: it waits again, or has failed, where the command
    /// that did it is gone.
    pub fn note_interrupted(self) -> Result<()> {
        for (number, _) in self.all()?.into_iter().filter(|(_, record)| record.state == JobState::Running) {
            self.update(number, |record| {
                record.note_interrupted();
                Ok(())
            })?;
        }
        Ok(())
    }
}

impl JobRecord {
    /// Notes that it failed. What a command did for itself holds nothing any more.
    pub fn stop(&mut self, failure: String) {
        (self.state, self.failure) = (JobState::Stopped, Some(failure));
        self.ended = (!self.is_detached).then(Timestamp::now);
    }

    /// Notes that nobody works on it, if it seems so.
    pub fn note_interrupted(&mut self) {
        match (self.state, self.is_detached) {
            (JobState::Running, true) => self.state = JobState::Waiting,
            (JobState::Running, false) => self.stop("it was interrupted".into()),
            _ => {}
        }
    }

    /// Notes that nothing more is done.
    pub fn end(&mut self, state: JobState) {
        (self.state, self.ended) = (state, Some(Timestamp::now()));
    }
}

/// Lets the snapshots go that are held for a job.
fn release(change: &mut Changing<'_>, number: u64) -> Result<()> {
    let key = key(HOLDS, number);
    let held: Option<Held> = change.meta().get(Table::State, &key)?;
    let Some(held) = held else { return Ok(()) };
    let held: HashSet<Id> = held.into_iter().map(|(id, _)| id).collect();
    let state: &State = change;
    let bases: Vec<BaseId> = state.bases().map(|(id, _)| id).collect();
    let mut all = Vec::new();
    for base in bases {
        all.extend(state.moments().snapshots(base)?);
    }
    for mut snapshot in all.into_iter().filter(|one| !one.is_archived && held.contains(&one.record.id)) {
        if snapshot.record.end_hold(Some(&tag(number))) {
            change.update(&snapshot);
        }
    }
    change.meta_mut().remove(Table::State, &key);
    Ok(())
}

/// Forgets jobs that have ended but for the last ones.
fn forget_old(change: &mut Changing<'_>) -> Result<()> {
    let mut all = Vec::new();
    for pair in change.meta().range(Table::State, JOB, &prefix_end(JOB))? {
        let (key, value) = pair?;
        // What is damaged is left for `check` to tell.
        let ended = decode::<JobRecord>(Table::State, &key, &value).ok().and_then(|record| record.ended);
        all.extend(ended.map(|ended| (ended, key)));
    }
    all.sort_unstable();
    for (_, key) in all.iter().take(all.len().saturating_sub(JOBS_ENDED_KEPT)) {
        change.meta_mut().remove(Table::State, key);
    }
    Ok(())
}
