//! Backups as jobs: noted in the store with what they hold, worked on by a command or by the daemon, paused, resumed and cancelled.
//!
//! ```text
//! backup ──▶ record, snapshots held ──▶ each snapshot written ──▶ record of the end, snapshots let go
//!                    └─ with --detach by a thread of the daemon, one job after the other; one that is interrupted goes on
//! ```
//!
//! What was written of a snapshot when it was broken off is a part at the target, over which the rest is written later.

use super::backup::{BackupOptions, BackupReport, Parts, backup_of, check_level, chosen};
use super::host;
use super::targets::open_target;
use super::works::{Wanted, Work, Works};
use super::{Daemon, OnProgress, Progress, WorkerInfo};
use crate::clock::Timestamp;
use crate::device::Snapshot;
use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::set::Kind;
use crate::view::{JobRecord, JobState, MISSING_TOLD, TargetRecord, Upkeep, Views, note_upkeep};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Whoever waits for a job looks so often how it is.
const ROUND: Duration = Duration::from_millis(100);
/// How long whoever lets it pause or end waits for it to have done so.
const ROUNDS_TO_LEAVE: usize = 50;

/// What is asked of a backup.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Without one, the newest.
    pub snapshot: Option<Vec<u8>>,
    /// Every snapshot.
    pub all: bool,
    /// Those of all its bases.
    pub group: Option<Vec<u8>>,
    pub target: Option<String>,
    pub kind: Kind,
    pub level: i32,
    pub limit: Option<u64>,
    pub is_detached: bool,
}

/// What there is to be said of a job.
#[derive(Clone, Debug)]
pub struct JobStanding {
    /// By what it is named.
    pub name: String,
    pub what: String,
    pub by: u32,
    pub made: Timestamp,
    pub state: JobState,
    pub record: Option<JobRecord>,
    /// Names of the snapshots that are held for it.
    pub holds: Vec<String>,
    /// Of what is under way.
    pub progress: Progress,
    pub waits_for: Option<String>,
}

/// Tells the thread that works on jobs that there may be one, or that it is to end.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    pub fn ring(&self) {
        *self.rung.lock() = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock();
        while !std::mem::take(&mut *rung) {
            self.changed.wait(&mut rung);
        }
    }
}

/// The jobs of an open store.
pub struct Jobs<'a> {
    pub(super) daemon: &'a Daemon,
}

impl Jobs<'_> {
    /// Runs a backup as a job of the command that asks for it.
    pub fn run(self, views: &Views, wish: &Wish, progress: OnProgress<'_>) -> Result<Vec<BackupReport>> {
        let number = note(views, wish)?;
        let work = self.daemon.works.begin(title(&views.jobs().find(number)?), views.uid(), Some(number), false);
        let mut reports = Vec::new();
        let done = Error::of_panic(|| work_on(views, number, work.work(), &mut reports, progress));
        let noted = finish(views, number, work.work(), &done);
        done.and(noted)?;
        let record = views.jobs().find(number)?;
        match record.gone {
            0 => Ok(reports),
            _ => Err(Error::Refused(Errno::NOENT, record.missing.join("; "))),
        }
    }

    /// Notes a backup for the daemon to work on.
    pub fn detach(self, views: &Views, wish: &Wish) -> Result<JobStanding> {
        if self.daemon.jobs_thread.lock().is_none() {
            let text = "no daemon has the store to work on this by itself: mount it first, or leave out --detach";
            return Err(Error::Refused(Errno::INVAL, text.into()));
        }
        let number = note(views, wish)?;
        self.daemon.bell.ring();
        self.of(views, number)
    }

    fn of(&self, views: &Views, number: u64) -> Result<JobStanding> {
        self.of_record(views, number, views.jobs().find(number)?)
    }

    fn of_record(&self, views: &Views, number: u64, mut record: JobRecord) -> Result<JobStanding> {
        let holds = views.jobs().held(number)?.into_iter().map(|(_, name)| name).collect();
        let works = self.daemon.works.all();
        let work = works.iter().find(|work| work.job == Some(number));
        if work.is_none() && self.daemon.is_only_read() {
            record.note_interrupted();
        }
        let is_paused = work.is_some_and(|work| work.wanted() == Wanted::Pauses);
        let state = if is_paused && record.state == JobState::Running { JobState::Paused } else { record.state };
        Ok(JobStanding {
            name: number.to_string(),
            what: title(&record),
            by: record.by,
            made: record.made,
            state,
            holds,
            progress: work.map(|work| work.progress()).unwrap_or_default(),
            record: Some(record),
            waits_for: None,
        })
    }

    /// What is under way, and what waits or has failed; with `ended`, also what has ended.
    pub fn list(&self, views: &Views, ended: bool) -> Result<Vec<JobStanding>> {
        let mut all = Vec::new();
        for (number, record) in views.jobs().all()? {
            let standing = self.of_record(views, number, record)?;
            if ended || standing.record.as_ref().is_some_and(|record| record.ended.is_none()) {
                all.push(standing);
            }
        }
        all.extend(self.daemon.works.all().iter().filter(|work| work.job.is_none()).map(|work| of_work(work)));
        let workers = self.daemon.workers()?;
        all.extend(workers.into_iter().filter(|one| one.is_working || one.waits_for.is_some()).map(of_worker));
        Ok(all)
    }

    /// The job of a name.
    pub fn show(&self, views: &Views, name: &str) -> Result<JobStanding> {
        if let Ok(number) = name.parse() {
            return self.of(views, number);
        }
        let found = self.list(views, true)?.into_iter().find(|one| one.name == name);
        found.ok_or_else(|| no_job(name))
    }

    /// Waits until a job has ended, or stopped; how it is then.
    pub fn wait(&self, views: &Views, name: &str, progress: OnProgress<'_>) -> Result<JobStanding> {
        let mut last = self.show(views, name)?;
        let work = self.daemon.works.all().into_iter().find(|work| work.job.is_none() && work_name(work) == name);
        loop {
            match last.state {
                JobState::Running | JobState::Paused => {}
                JobState::Waiting if self.daemon.jobs_thread.lock().is_none() => {
                    let text = format!("nobody works on the job {name}: `pitfs mount` the store, and it goes on");
                    return Err(Error::Refused(Errno::INVAL, text));
                }
                JobState::Waiting => {}
                JobState::Stopped | JobState::Done | JobState::Cancelled => return Ok(last),
            }
            progress(&last.progress)?;
            std::thread::sleep(ROUND);
            last = match self.show(views, name) {
                Ok(now) => now,
                // What is noted nowhere is over when it is not there any more.
                Err(_) if last.record.is_none() => {
                    let was_cancelled = work.is_some_and(|work| work.left_for().is_some());
                    let state = if was_cancelled { JobState::Cancelled } else { JobState::Done };
                    return Ok(JobStanding { state, ..last });
                }
                Err(error) => return Err(error),
            };
        }
    }

    pub fn pause(&self, views: &Views, name: &str) -> Result<JobStanding> {
        self.want(views, name, Wanted::Pauses, |record| match record.state {
            JobState::Waiting => {
                record.state = JobState::Paused;
                Ok(())
            }
            JobState::Paused | JobState::Running => Ok(()),
            state => Err(cannot(name, state, "be paused")),
        })
    }

    pub fn resume(&self, views: &Views, name: &str) -> Result<JobStanding> {
        let resumed = self.want(views, name, Wanted::GoesOn, |record| match record.state {
            JobState::Paused | JobState::Stopped if record.ended.is_none() => {
                (record.state, record.failure) = (JobState::Waiting, None);
                record.hosts = host::with_this(std::mem::take(&mut record.hosts));
                Ok(())
            }
            JobState::Waiting | JobState::Running => Ok(()),
            JobState::Stopped => {
                let text = format!(
                    "the job {name} was a command's, and is over with it: run `pitfs backup` again, which goes on with what is there"
                );
                Err(Error::Refused(Errno::INVAL, text))
            }
            state => Err(cannot(name, state, "go on")),
        })?;
        self.daemon.bell.ring();
        Ok(resumed)
    }

    pub fn cancel(&self, views: &Views, name: &str) -> Result<JobStanding> {
        self.want(views, name, Wanted::Cancelled, |record| match record.state {
            // Whoever works on it notes the end of it.
            JobState::Running => Ok(()),
            state if record.ended.is_some() => Err(cannot(name, state, "be cancelled")),
            _ => {
                record.end(JobState::Cancelled);
                Ok(())
            }
        })
    }

    /// Wants something of a job, whether somebody works on it or not.
    fn want(
        &self,
        views: &Views,
        name: &str,
        wanted: Wanted,
        update: impl Fn(&mut JobRecord) -> Result<()>,
    ) -> Result<JobStanding> {
        let Ok(number) = name.parse() else {
            return self.want_of_work(views, name, wanted);
        };
        views.jobs().find(number)?;
        views.jobs().update(number, |record| {
            // Whoever works on it is listed before it is noted to be running, and until its end is: nobody noted that.
            if !self.daemon.works.all().iter().any(|work| work.job == Some(number)) {
                record.note_interrupted();
            }
            update(record)
        })?;
        self.daemon.works.want(|work| work.job == Some(number), wanted);
        // It ends at its next step, if what it writes to does not keep it waiting.
        let is_leaving = |work: &Arc<Work>| {
            work.job == Some(number)
                && (wanted == Wanted::Cancelled || wanted == Wanted::Pauses && work.leaves_to_pause)
        };
        for _ in 0..ROUNDS_TO_LEAVE {
            if !self.daemon.works.all().iter().any(is_leaving) {
                break;
            }
            std::thread::sleep(ROUND);
        }
        self.of(views, number)
    }

    fn want_of_work(&self, views: &Views, name: &str, wanted: Wanted) -> Result<JobStanding> {
        let now = self.show(views, name)?;
        if wanted != Wanted::Cancelled {
            let text = format!("{name} cannot be paused: only backups can, which let go of everything meanwhile");
            return Err(Error::Refused(Errno::INVAL, text));
        }
        if !self.daemon.works.want(|work| work.job.is_none() && work_name(work) == name, wanted) {
            let text = format!(
                "{name} is what the daemon does by itself, when there is nothing else to do: it cannot be told to wait or to end"
            );
            return Err(Error::Refused(Errno::INVAL, text));
        }
        Ok(JobStanding { state: JobState::Cancelled, ..now })
    }
}

fn no_job(name: &str) -> Error {
    Error::Refused(Errno::NOENT, format!("there is no job {name:?}; `pitfs job list` shows what there is"))
}

fn cannot(name: &str, state: JobState, what: &str) -> Error {
    Error::Refused(Errno::INVAL, format!("the job {name} is {} already, and cannot {what}", state.name()))
}

/// What a job does, in words.
fn title(record: &JobRecord) -> String {
    match record.snapshots {
        1 => format!("backup to {}", record.target),
        snapshots => format!("backup of {snapshots} snapshots to {}", record.target),
    }
}

fn work_name(work: &Work) -> String {
    format!("now-{}", work.number)
}

fn of_work(work: &Work) -> JobStanding {
    JobStanding {
        name: work_name(work),
        what: work.what.clone(),
        by: work.by,
        made: work.begun,
        state: JobState::Running,
        record: None,
        holds: Vec::new(),
        progress: work.progress(),
        waits_for: None,
    }
}

fn of_worker(worker: WorkerInfo) -> JobStanding {
    let state = if worker.is_working { JobState::Running } else { JobState::Waiting };
    JobStanding {
        what: "in the background".into(),
        name: worker.name,
        by: rustix::process::geteuid().as_raw(),
        made: Timestamp::now(),
        state,
        record: None,
        holds: Vec::new(),
        progress: Progress::default(),
        waits_for: worker.waits_for,
    }
}

/// Notes a job, and holds what it is to write.
fn note(views: &Views, wish: &Wish) -> Result<u64> {
    check_level(wish.level)?;
    let snapshots = match (&wish.group, wish.all) {
        (Some(group), _) => of_group(views, group, wish.snapshot.as_deref())?,
        (None, true) => views.snapshots().all()?.into_iter().filter(Snapshot::is_readable).collect(),
        (None, false) => vec![chosen(views, wish.snapshot.as_deref())?],
    };
    let (target, TargetRecord { id: target_id, .. }) = views.targets().named(wish.target.as_deref())?;
    let record = JobRecord {
        state: if wish.is_detached { JobState::Waiting } else { JobState::Running },
        made: Timestamp::now(),
        ended: None,
        by: views.uid(),
        hosts: host::with_this(Vec::new()),
        base: views.base(),
        target,
        target_id,
        kind: wish.kind,
        level: wish.level,
        limit: wish.limit,
        is_detached: wish.is_detached,
        snapshots: snapshots.len() as u64,
        written: 0,
        gone: 0,
        added: 0,
        bytes: 0,
        failure: None,
        missing: Vec::new(),
    };
    views.jobs().add(&record, &snapshots)
}

/// The snapshots of a group that are meant, each of which can be written.
fn of_group(views: &Views, group: &[u8], name: Option<&[u8]>) -> Result<Vec<Snapshot>> {
    let all = match name {
        Some(name) => views.groups().snapshots(group, name)?,
        None => views.groups().newest(group)?,
    };
    match all.iter().find(|one| one.is_archived || !one.is_readable()) {
        None => Ok(all),
        Some(one) => {
            let (base, name) = (views.of(one.base).base_name()?, &one.record.name);
            let text = format!("what {base}:{name} showed is not in the store any more");
            Err(Error::Refused(Errno::INVAL, text))
        }
    }
}

/// Writes what is left of a job.
fn work_on(
    views: &Views,
    number: u64,
    work: &Work,
    reports: &mut Vec<BackupReport>,
    progress: OnProgress<'_>,
) -> Result<()> {
    let record = views.jobs().find(number)?;
    let views = views.of(record.base);
    let (target, key) = open_target(&views, Some(&record.target))?;
    if target.id() != record.target_id {
        let text = format!(
            "the target {:?} is another one than when this was asked for: `pitfs job cancel {number}`, and back up to the one that is meant",
            record.target
        );
        return Err(Error::Refused(Errno::INVAL, text));
    }
    let done = (record.written + record.gone) as usize;
    for (id, name) in views.jobs().held(number)?.into_iter().skip(done) {
        let Some(found) = by_id(&views, id)? else {
            note_missing(&views, number, format!("{name}: it was deleted before it was written"))?;
            continue;
        };
        let options = BackupOptions {
            snapshot: None,
            kind: record.kind,
            level: record.level,
            limit: record.limit,
            parts: Parts::default(),
        };
        let mut tell = |done: &Progress| work.step(done, progress);
        // Its name may be another one's by the time that it is its turn.
        let which = || by_id(&views, id)?.ok_or(Error::Gone);
        let written = backup_of(&views.of(found.base), (&target, key.as_ref()), &which, &options, &mut tell);
        if written.is_err() && work.left_for().is_none() && by_id(&views, id)?.is_none() {
            note_missing(&views, number, format!("{name}: it was deleted while it was written"))?;
            continue;
        }
        let report = written?;
        let missing = report.missing.iter().map(|(path, why)| format!("{name}: {path}: {why}"));
        let missing: Vec<String> = missing.take(MISSING_TOLD).collect();
        views.jobs().update(number, |record| {
            record.written += 1;
            (record.added, record.bytes) = (record.added + report.added, record.bytes + report.bytes);
            record.missing.extend(missing.iter().cloned());
            record.missing.truncate(MISSING_TOLD);
            Ok(())
        })?;
        reports.push(report);
    }
    Ok(())
}

/// A snapshot, if it can be written by now.
fn by_id(views: &Views, id: Id) -> Result<Option<Snapshot>> {
    let can_be = |one: &Snapshot| one.record.id == id && one.is_readable() && !one.is_archived;
    if let Some(found) = views.snapshots().all()?.into_iter().find(can_be) {
        return Ok(Some(found));
    }
    // Those of a group lie in several bases.
    for base in views.bases().all()? {
        if let Some(found) = views.of(base.id).snapshots().all()?.into_iter().find(can_be) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn note_missing(views: &Views, number: u64, what: String) -> Result<()> {
    let noted = views.jobs().update(number, |record| {
        record.gone += 1;
        if record.missing.len() < MISSING_TOLD {
            record.missing.push(what.clone());
        }
        Ok(())
    });
    noted.map(drop)
}

/// Notes how the work on a job ended.
fn finish(views: &Views, number: u64, work: &Work, done: &Result<()>) -> Result<()> {
    let wanted = work.wanted();
    let noted = views.jobs().update(number, |record| {
        match (done, work.left_for()) {
            (Ok(()), _) => record.end(JobState::Done),
            (Err(_), Some(_)) if wanted == Wanted::Cancelled => record.end(JobState::Cancelled),
            // Somebody may have wanted it to go on again before it had left.
            (Err(_), Some(Wanted::Pauses)) if wanted == Wanted::Pauses => record.state = JobState::Paused,
            (Err(_), Some(Wanted::Pauses | Wanted::Ends)) if record.is_detached => record.state = JobState::Waiting,
            (Err(error), _) => record.stop(error.to_string()),
        }
        Ok(())
    });
    let record = noted?;
    if done.is_ok() {
        note_upkeep(views, Upkeep::Backup, record.missing.len() as u64);
    }
    Ok(())
}

/// Works on jobs that wait, in a thread of its own, until it is told to end.
pub(super) fn begin(works: &Arc<Works>, bell: &Arc<Bell>, views: &Arc<Views>) -> Result<JoinHandle<()>> {
    let (works, bell, views) = (works.clone(), bell.clone(), views.clone());
    std::thread::Builder::new()
        .name("jobs".into())
        .spawn(move || {
            while !works.has_ended() {
                if let Err(error) = Error::of_panic(|| work_on_all(&views, &works)) {
                    log::error!("jobs: {error}");
                }
                bell.wait();
            }
        })
        .map_err(|error| Error::media("starting the thread for jobs", error))
}

fn work_on_all(views: &Views, works: &Arc<Works>) -> Result<()> {
    let waits = |record: &JobRecord| record.state == JobState::Waiting;
    while let Some((number, record)) = views.jobs().all()?.into_iter().find(|(_, record)| waits(record)) {
        if works.has_ended() {
            return Ok(());
        }
        // Nothing is written outside only because a store that comes from elsewhere says so.
        if !host::is_among(&record.hosts) {
            views.jobs().update(number, |record| {
                record.stop(
                    "the store was on another machine when this was asked for: resume it to let it go on here".into(),
                );
                Ok(())
            })?;
            continue;
        }
        let work = works.begin(title(&record), record.by, Some(number), true);
        let begun = views.jobs().update(number, |record| {
            if waits(record) {
                record.state = JobState::Running;
            }
            Ok(())
        })?;
        if begun.state != JobState::Running {
            continue;
        }
        let views = views.by(record.by);
        let done = Error::of_panic(|| work_on(&views, number, work.work(), &mut Vec::new(), &mut |_| Ok(())));
        if let Err(error) = &done {
            log::warn!("job {number}, {}: {error}", title(&record));
        }
        finish(&views, number, work.work(), &done)?;
    }
    Ok(())
}
