//! Targets: backups to them, as jobs, and what is wanted of these.

use super::target;
use crate::control::answer::{Answer, BackupInfo, JobInfo};
use crate::control::request::{Backup, Job, Verb};
use crate::daemon::{self, Daemon, OnProgress, Wish};
use crate::error::{Error, Result};
use crate::view::Views;
use serde_bytes::ByteBuf;

pub(super) fn serve(daemon: &Daemon, views: &Views, verb: Verb, progress: OnProgress<'_>) -> Result<Answer> {
    match verb {
        Verb::Backup(wanted) => backup(daemon, views, wanted, progress),
        Verb::Target(wanted) => target::targets(daemon, views, wanted),
        Verb::Set(wanted) => target::sets(daemon, views, wanted, progress),
        Verb::Job(wanted) => job(daemon, views, wanted, progress),
        other => Err(Error::Fault(format!("{other:?} has nothing to do with what is at a target"))),
    }
}

fn backup(daemon: &Daemon, views: &Views, wanted: Backup, progress: OnProgress<'_>) -> Result<Answer> {
    let wish = Wish {
        snapshot: wanted.snapshot.map(ByteBuf::into_vec),
        all: wanted.all,
        group: wanted.group.map(ByteBuf::into_vec),
        target: wanted.target,
        kind: wanted.kind.into(),
        level: wanted.level.unwrap_or(daemon::LEVEL),
        limit: wanted.limit,
        is_detached: wanted.detach,
    };
    if wish.is_detached {
        return Ok(Answer::Jobs(vec![daemon.jobs().detach(views, &wish)?.into()]));
    }
    let reports = daemon.jobs().run(views, &wish, progress)?;
    Ok(Answer::Backups(reports.into_iter().map(BackupInfo::from).collect()))
}

fn job(daemon: &Daemon, views: &Views, wanted: Job, progress: OnProgress<'_>) -> Result<Answer> {
    let jobs = daemon.jobs();
    let found = match wanted {
        Job::List { ended } => {
            return Ok(Answer::Jobs(jobs.list(views, ended)?.into_iter().map(JobInfo::from).collect()));
        }
        Job::Show { job } => jobs.show(views, &job),
        Job::Wait { job } => jobs.wait(views, &job, progress),
        Job::Pause { job } => jobs.pause(views, &job),
        Job::Resume { job } => jobs.resume(views, &job),
        Job::Cancel { job } => jobs.cancel(views, &job),
    };
    Ok(Answer::Jobs(vec![found?.into()]))
}
