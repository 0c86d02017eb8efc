//! Carrying requests out on an open store.

mod base;
mod compare;
mod delete;
mod job;
mod list;
mod rehearse;
mod restore;
mod session;
mod store;
mod target;

use super::{
    Answer, Archive, ArchiveInfo, BaseRollInfo, CopiedOutInfo, MountedInfo, PathText, Request, Snap, SnapshotInfo,
    SyncInfo, Verb,
};
use crate::daemon::{Daemon, OnProgress, RollOptions, check, copy_out, get, put, sync};
use crate::device::{BaseId, SnapOptions, Snapshot};
use crate::error::{Errno, Error, Result};
use crate::purpose::Purpose;
use crate::shown::shown_file;
use crate::view::{SnapRequest, Views};
use base::{base_answer, step_mirror};
use serde_bytes::ByteBuf;
use std::fs::File;
use std::sync::Arc;

/// Carries out a request on an open store, on behalf of a user.
pub fn serve(daemon: &Daemon, request: Request, uid: u32, progress: OnProgress<'_>) -> Result<Answer> {
    // Whatever goes wrong with one command, others are served.
    let carried_out = Error::of_panic(|| {
        daemon.views().remove_what_waits();
        match request.verb.work_name().map(|what| daemon.begin_work(what, uid)) {
            Some(work) => carry_out(daemon, request, uid, &mut |done| work.step(done, progress)),
            None => carry_out(daemon, request, uid, progress),
        }
    });
    // Who asked sees what was done, and what a look has found to be there again.
    daemon.views().tree().device().feed().wait();
    carried_out.inspect_err(note_fault).map_err(|error| in_words(daemon, error))
}

fn note_fault(error: &Error) {
    if let Error::Fault(_) = error {
        log::error!("a command: {error}");
    }
}

/// A bare number would say neither what nor where nor what helps.
fn in_words(daemon: &Daemon, error: Error) -> Error {
    match error {
        Error::Gone => {
            let text = "another command removed it meanwhile; `pitfs list` and `pitfs base list` show what there is";
            Error::Refused(Errno::STALE, text.into())
        }
        Error::Posix(_) | Error::Media { .. } if error.is_no_space() => no_room(daemon, &error),
        error => error,
    }
}

/// Free room from which on it was not the store's that was missing.
const ROOM_ENOUGH: u64 = 4 << 20;

/// What failed may have been to take room elsewhere, as on an archive's disk, and then it says so itself.
fn no_room(daemon: &Daemon, error: &Error) -> Error {
    let store = shown_file(daemon.path());
    // Where that cannot be told either, it is too little.
    let free = daemon.views().tree().space().ok().map(|space| space.available);
    let shown = free.map_or_else(|| "too little".to_string(), |free| format!("{} KiB", free / 1024));
    let helps = format!(
        "with {shown} free for new data; delete snapshots (`pitfs list --sort frees` shows what each frees), or make room on the \
         store's disk"
    );
    let text = match error {
        Error::Media { .. } if free.is_some_and(|free| free >= ROOM_ENOUGH) => {
            format!("{error}; make room on the disk that this is on (the store {store} has room)")
        }
        Error::Media { .. } => format!("{error}; the store is {store}, {helps}"),
        _ => format!("there is no room in the store {store} for this, {helps}"),
    };
    Error::Refused(error.errno(), text)
}

/// The stream that has to come with a request.
fn brought(stream: Option<Arc<File>>) -> Result<Arc<File>> {
    use std::os::unix::fs::FileTypeExt;
    let kind = stream.as_ref().and_then(|stream| stream.metadata().ok()).map(|found| found.file_type());
    let is_one = kind.is_some_and(|kind| kind.is_file() || kind.is_fifo() || kind.is_socket());
    let refused =
        || Error::Refused(Errno::INVAL, "a file, pipe or socket has to come with this, as a descriptor".into());
    stream.filter(|_| is_one).ok_or_else(refused)
}

fn carry_out(daemon: &Daemon, request: Request, uid: u32, progress: OnProgress<'_>) -> Result<Answer> {
    let views = daemon.views().by(uid);
    let views = match &request.base {
        Some(name) => views.of(views.bases().named(name)?),
        None => views,
    };
    match request.verb {
        Verb::Snap(wanted) => snap(&views, wanted),
        Verb::List { all } => list::list(daemon, &views, all).map(Answer::List),
        Verb::Delete { names, group, recursive } => {
            delete::delete(&views, &delete::named(&views, &names, group.as_deref())?, recursive)
        }
        Verb::Rename { old, new } => views.rename_shown(&old, &new).map(|()| Answer::Nothing),
        Verb::Hold { names, tag, held } => {
            let (names, tag) = (slices(&names), tag.as_ref().map(|tag| tag.as_slice()));
            let snapshots =
                if held { views.snapshots().hold(&names, tag)? } else { views.snapshots().release(&names, tag)? };
            infos(&views, &snapshots).map(Answer::Snapshots)
        }
        Verb::Session(session) => session::session(&views, session, request.base.is_some()),
        Verb::Group(group) => session::group(&views, group),
        Verb::Base(base) => base::base(daemon, &views, base, progress),
        Verb::Clone(wanted) => base::clone(daemon, &views, wanted, progress),
        Verb::Wait { name } => {
            let base = views.bases().named(&name)?;
            daemon.whole_bases().finish_copy(&views, base, progress)?;
            base_answer(&views, base)
        }
        Verb::Refresh { name, snapshot } => {
            daemon.whole_bases().refresh(&views, &name, &snapshot).map(|()| Answer::Nothing)
        }
        Verb::Promote { name } => base::promote(&views, &name),
        Verb::Mirror(mirror) => base_answer(&views, step_mirror(daemon, &views, mirror)?.base),
        verb @ (Verb::Restore { .. } | Verb::RestoreFrom { .. } | Verb::Undo) => {
            restore::serve(daemon, &views, verb, progress)
        }
        Verb::CopyOut(options) => {
            restore::check_paths(&options.paths)?;
            let report = copy_out(daemon, &views, &options, progress)?;
            Ok(Answer::CopiedOut(CopiedOutInfo::new(&options.to, report)))
        }
        Verb::History => compare::history(&views).map(Answer::History),
        Verb::Versions { path } => compare::versions(&views, &path).map(Answer::Versions),
        Verb::Diff { before, after } => compare::diff(&views, &before, &after).map(Answer::Differences),
        Verb::Tracks { before, after, path, range } => compare::tracks(&views, &before, after, path, range),
        Verb::Roll(options) => Ok(Answer::Roll(daemon.rolls().roll(&views, &options, progress)?.into())),
        Verb::RollGroup { group, options } => roll_group(daemon, &views, &group, &options, progress),
        verb @ (Verb::Target(_) | Verb::Backup(_) | Verb::Set(_) | Verb::Job(_)) => {
            job::serve(daemon, &views, verb, progress)
        }
        Verb::Archive(archive) => serve_archive(daemon, &views, archive, progress),
        Verb::Policy { drop_oldest, before_restores } => store::policy(daemon, &views, drop_oldest, before_restores),
        Verb::Status => store::status(daemon, &views).map(|status| Answer::Status(Box::new(status))),
        Verb::Check => Ok(Answer::Check(check(daemon, progress)?.into())),
        Verb::Sync(options) => {
            Ok(Answer::Sync(SyncInfo::new(sync(daemon, &views, &options, progress)?, options.dry_run)))
        }
        Verb::Put { directory } => {
            let report = put(daemon, &views, &directory, brought(request.stream)?, progress)?;
            Ok(Answer::Stream(report.into()))
        }
        Verb::Get { snapshot, paths } => {
            let report = get(&views, &snapshot, &paths, brought(request.stream)?, progress)?;
            Ok(Answer::Stream(report.into()))
        }
        Verb::Send(wanted) => target::send(&views, wanted, &brought(request.stream)?, progress),
        Verb::Mount => Ok(Answer::Mount(MountedInfo { mount_point: daemon.mount_point().map(PathText::from) })),
        Verb::Rehearse(verb) => rehearse::rehearse(daemon, &views.rehearsing(), *verb, progress),
    }
}

fn slices(names: &[ByteBuf]) -> Vec<&[u8]> {
    names.iter().map(|name| name.as_slice()).collect()
}

/// What is told of a snapshot by an operation that must not take longer where much changed.
fn info(views: &Views, snapshot: &Snapshot) -> Result<SnapshotInfo> {
    Ok(SnapshotInfo::new(&views.of(snapshot.base).base_name()?, snapshot))
}

fn infos(views: &Views, snapshots: &[Snapshot]) -> Result<Vec<SnapshotInfo>> {
    snapshots.iter().map(|snapshot| info(views, snapshot)).collect()
}

fn bases_of(views: &Views, names: &[ByteBuf], group: Option<&ByteBuf>) -> Result<Vec<BaseId>> {
    let mut bases = match group {
        Some(group) => views.groups().bases(group)?,
        None => Vec::new(),
    };
    for name in names {
        bases.push(views.bases().named(name)?);
    }
    if bases.is_empty() {
        bases.push(views.base());
    }
    bases.sort_unstable();
    bases.dedup();
    Ok(bases)
}

fn snap(views: &Views, wanted: Snap) -> Result<Answer> {
    let purpose = if wanted.save { Purpose::Save } else { Purpose::Plain };
    let options = SnapOptions { offline: wanted.offline, held: wanted.hold, purpose, reserve: wanted.reserve };
    let name = wanted.name.as_ref().map(|name| name.as_slice());
    let request = SnapRequest { name, options, keep: None };
    let taken = match &wanted.group {
        Some(group) => views.snapshots().take_of_group(group, request)?,
        None => views.snapshots().take_all(&[views.base()], request)?,
    };
    infos(views, &taken).map(Answer::Snapshots)
}

fn roll_group(
    daemon: &Daemon,
    views: &Views,
    group: &[u8],
    options: &RollOptions,
    progress: OnProgress<'_>,
) -> Result<Answer> {
    let reports = daemon.rolls().roll_group(views, group, options, progress)?.into_iter();
    let rolled = reports.map(|(base, report)| BaseRollInfo { base, roll: report.into() });
    Ok(Answer::RollGroup(rolled.collect()))
}

fn serve_archive(daemon: &Daemon, views: &Views, archive: Archive, progress: OnProgress<'_>) -> Result<Answer> {
    let archive = match archive {
        Archive::Attach { directory } => daemon.archives().attach_existing(views, &directory, progress)?,
        Archive::List { directory } => daemon.archives().list(views, directory.as_deref())?,
        Archive::Join { directory } => daemon.archives().join(views, &directory, progress)?,
        Archive::Verify { directory } => {
            let found = daemon.archives().verify(views, directory.as_deref(), progress)?;
            return Ok(Answer::Verified(found.into()));
        }
        Archive::Detach { directory } => {
            return Ok(Answer::Detached(daemon.archives().detach(views, directory.as_deref())?.into()));
        }
        Archive::Prune(options) => {
            return Ok(Answer::Shortened(daemon.archives().prune(views, options, progress)?.into()));
        }
        Archive::Merge(options) => {
            return Ok(Answer::Shortened(daemon.archives().merge(views, options, progress)?.into()));
        }
    };
    Ok(Answer::Archives(vec![ArchiveInfo::from(archive)]))
}
