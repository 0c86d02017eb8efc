//! The store as a whole: its state, and what it does by itself.

use super::{info, list};
use crate::clock::Timestamp;
use crate::control::{
    Answer, ArchiveInfo, BaseInfo, DoneInfo, Keep, PathText, PolicyInfo, SnapshotInfo, StatusInfo, TimeInfo, WhenFull,
    WorkerInfo,
};
use crate::daemon::{self, Daemon, Health, Signs, Trouble};
use crate::error::{Error, Result};
use crate::view::{Done, JobState, Upkeep, Views, last_upkeep};

pub(super) fn status(daemon: &Daemon, views: &Views) -> Result<StatusInfo> {
    let tree = views.tree();
    let settings = tree.device().settings();
    let bases = views.bases().all()?;
    let mut snapshots = Vec::new();
    let (mut archives, mut saves) = (Vec::new(), Vec::new());
    let needs = list::needs(views)?;
    for base in &bases {
        let views = views.of(base.id);
        // The archive first: this notices one that went away, whose times are then no snapshots.
        archives.extend(views.unless_gone(daemon.archives().attached_info(&views))?.flatten().map(ArchiveInfo::from));
        let found = views.snapshots().with_archived().and_then(|all| list::counted(&views, &all, &needs));
        snapshots.extend(views.unless_gone(found)?.into_iter().flatten());
        let save = || views.snapshots().newest_save()?.map(|save| info(&views, &save)).transpose();
        saves.extend(views.unless_gone(save())?.flatten());
    }
    let reserved = tree.device().look()?.reserved_room();
    let space = tree.space()?;
    let workers = daemon.workers()?;
    let done = done(views, &snapshots, &saves)?;
    let stopped = stopped(views);
    let signs = Signs {
        stopped: stopped.clone(),
        is_only_read: daemon.is_unwritable(),
        available: space.available,
        others: troubles(daemon, views, &archives, &workers)?,
    };
    Ok(StatusInfo {
        store: daemon.path().into(),
        id: settings.id.to_string(),
        mount_point: daemon.mount_point().map(PathText::from),
        transport: daemon.transport().map(|transport| transport.to_string()),
        track_bytes: settings.track_bytes.into(),
        compression: format!("{:?}", settings.codec).to_lowercase(),
        total_bytes: space.total,
        available_bytes: space.available,
        live_bytes: space.live,
        log_bytes: space.log,
        metadata_bytes: space.meta,
        segment_bytes: space.segments,
        reserved_bytes: reserved,
        drop_oldest: views.room().drops_oldest()?,
        bases: bases.into_iter().map(BaseInfo::from).collect(),
        archives,
        saves,
        snapshots,
        workers: workers.into_iter().map(WorkerInfo::from).collect(),
        only_read: daemon.is_unwritable(),
        stopped: stopped.map(|(why, _)| why),
        health: Health::of(signs).into(),
        done,
        targets: views.targets().all()?.into_iter().map(|(name, _)| name).collect(),
    })
}

/// Why nothing is changed any more, and since when.
fn stopped(views: &Views) -> Option<(String, Option<Timestamp>)> {
    match views.tree().device().check_running() {
        Err(error @ Error::Stopped(_)) => Some((error.to_string(), views.tree().device().stopped_since())),
        _ => None,
    }
}

/// What is to protect the store, and does not.
fn troubles(
    daemon: &Daemon,
    views: &Views,
    archives: &[ArchiveInfo],
    workers: &[daemon::WorkerInfo],
) -> Result<Vec<Trouble>> {
    let mut troubles = Vec::new();
    for archive in archives {
        let helps = "attach its disk; `pitfs archive verify` reads all of it";
        let told =
            |problem: &String| Trouble { what: format!("archive: {problem}"), since: None, helps: helps.to_string() };
        troubles.extend(archive.problems.iter().map(told));
    }
    for (name, failure) in workers.iter().filter_map(|worker| Some((&worker.name, worker.failure.as_ref()?))) {
        let helps = "it is tried again; what is missing may be room, or a disk";
        troubles.push(Trouble { what: format!("background {name}: {failure}"), since: None, helps: helps.into() });
    }
    for job in daemon.jobs().list(views, false)?.into_iter().filter(|job| job.state == JobState::Stopped) {
        let failure = job.record.and_then(|record| record.failure).unwrap_or_default();
        let helps = format!("when that is mended, `pitfs job resume {}`, or `cancel`", job.name);
        troubles.push(Trouble { what: format!("{} stopped: {failure}", job.what), since: Some(job.made), helps });
    }
    if let Some(Done { time, problems }) = last_upkeep(views, Upkeep::Check)?.filter(|last| last.problems > 0) {
        let what = format!("the last check found {problems} problem{}", if problems == 1 { "" } else { "s" });
        let helps =
            "`pitfs check` names the files: bring them back from a snapshot, an archive or a target, and check again";
        troubles.push(Trouble { what, since: Some(time), helps: helps.into() });
    }
    Ok(troubles)
}

/// When the store was last kept well.
fn done(views: &Views, snapshots: &[SnapshotInfo], saves: &[SnapshotInfo]) -> Result<Vec<DoneInfo>> {
    let newest = |all: &[SnapshotInfo]| {
        let times = all.iter().filter(|snapshot| !snapshot.archived).map(|snapshot| snapshot.time.clone());
        times.max_by_key(|time| (time.seconds, time.nanoseconds))
    };
    let taken = [("snapshot", newest(snapshots)), ("save", newest(saves))];
    let told = |(what, time): (&str, Option<TimeInfo>)| Some(DoneInfo { what: what.into(), time: time?, problems: 0 });
    let mut done: Vec<DoneInfo> = taken.into_iter().filter_map(told).collect();
    for what in Upkeep::ALL {
        let last = last_upkeep(views, what)?;
        done.extend(last.map(|last| DoneInfo::new(what.name(), last.time, last.problems)));
    }
    Ok(done)
}

/// Shows what the store does by itself, after what is given was changed.
pub(super) fn policy(daemon: &Daemon, views: &Views, drop_oldest: Option<bool>, kept: Option<Keep>) -> Result<Answer> {
    if let Some(drop_oldest) = drop_oldest {
        views.room().set_drop_oldest(drop_oldest)?;
    }
    let mut deleted = Vec::new();
    if let Some(kept) = kept {
        let most = match kept {
            Keep::All => None,
            Keep::Newest(most) => Some(most),
        };
        views.restores().keep_before(most)?;
        for base in views.bases().all()? {
            let views = views.of(base.id);
            let gone = views.unless_gone(daemon.whole_bases().drop_before_restores(&views))?.unwrap_or_default();
            deleted.extend(gone.iter().map(|snapshot| SnapshotInfo::new(&base.name, snapshot)));
        }
    }
    let when_full = if views.room().drops_oldest()? { WhenFull::DropOldest } else { WhenFull::Refuse };
    Ok(Answer::Policy(PolicyInfo { when_full, before_restore: views.restores().before_kept()?, deleted }))
}
