//! Going back in place.

use super::{info, target};
use crate::control::request::FromTarget;
use crate::control::{Answer, RestoredInfo, Verb};
use crate::daemon::{BringBackReport, Daemon, OnProgress};
use crate::device::Snapshot;
use crate::error::{Errno, Error, Result};
use crate::view::{Restored, Views};
use serde_bytes::ByteBuf;

pub(super) fn serve(daemon: &Daemon, views: &Views, verb: Verb, progress: OnProgress<'_>) -> Result<Answer> {
    match verb {
        Verb::Restore { snapshot, group: Some(group), .. } => restore_all(daemon, views, &group, snapshot),
        Verb::Restore { snapshot, paths, group: None } => restore(daemon, views, snapshot, paths, progress),
        Verb::RestoreFrom { snapshot, paths, from } => restore_from(daemon, views, from, (snapshot, paths), progress),
        Verb::Undo => undo(daemon, views, progress),
        _ => Err(Error::Fault("it is no restore in place".into())),
    }
}

fn restore(
    daemon: &Daemon,
    views: &Views,
    snapshot: Option<ByteBuf>,
    paths: Vec<ByteBuf>,
    progress: OnProgress<'_>,
) -> Result<Answer> {
    let (snapshot, paths) = wanted(views, snapshot, paths)?;
    if paths.is_empty() {
        let restored = daemon.whole_bases().restore(views, &snapshot)?;
        let before = restored.map(|restored| info(views, &restored.before)).transpose()?;
        return Ok(Answer::Restored(Box::new(RestoredInfo::whole(info(views, &snapshot)?, before))));
    }
    let (report, before) = daemon.path_restores().bring_back(views, &snapshot, &paths, progress)?;
    counted(views, &snapshot, report, before.as_ref())
}

/// The last restore is undone, as far as it went; which is a restore as well, and can be undone.
fn undo(daemon: &Daemon, views: &Views, progress: OnProgress<'_>) -> Result<Answer> {
    let (before, paths) = views.restores().last_undo()?;
    if paths.is_empty() {
        return restore(daemon, views, Some(before.record.name.into_bytes().into()), paths, progress);
    }
    let (report, kept) = daemon.path_restores().undo(views, &before, &paths, progress)?;
    counted(views, &before, report, kept.as_ref())
}

/// What was done path by path.
fn counted(views: &Views, to: &Snapshot, report: BringBackReport, before: Option<&Snapshot>) -> Result<Answer> {
    let before = before.map(|before| info(views, before)).transpose()?;
    Ok(Answer::Restored(Box::new(RestoredInfo::counted(info(views, to)?, before, report))))
}

/// Out of what a target has.
fn restore_from(
    daemon: &Daemon,
    views: &Views,
    from: FromTarget,
    wanted: (ByteBuf, Vec<ByteBuf>),
    progress: OnProgress<'_>,
) -> Result<Answer> {
    let (snapshot, report, before) = target::restore(daemon, views, from, wanted, progress)?;
    counted(views, &snapshot, report, before.as_ref())
}

/// Of all bases of a group.
fn restore_all(daemon: &Daemon, views: &Views, group: &[u8], snapshot: Option<ByteBuf>) -> Result<Answer> {
    let (to, restored) = restore_group(daemon, views, group, snapshot)?;
    // All of them go back or, where nothing differs, none.
    let before = restored.iter().map(|one| Some(&one.before)).chain(std::iter::repeat(None));
    let pair = |(before, to): (Option<&Snapshot>, &Snapshot)| {
        Ok(RestoredInfo::whole(info(views, to)?, before.map(|before| info(views, before)).transpose()?))
    };
    before.zip(&to).map(pair).collect::<Result<_>>().map(Answer::RestoredAll)
}

/// All bases of a group, in one step: what was to be gone back to, and what was done, nothing where nothing differs.
pub(super) fn restore_group(
    daemon: &Daemon,
    views: &Views,
    group: &[u8],
    snapshot: Option<ByteBuf>,
) -> Result<(Vec<Snapshot>, Vec<Restored>)> {
    let to = match snapshot {
        Some(name) => views.groups().snapshots(group, &name)?,
        None => views.groups().last_save(group)?,
    };
    let restored = daemon.whole_bases().restore_all(views, &to, Some(&String::from_utf8_lossy(group)))?;
    Ok((to, restored))
}

/// The snapshot that is to be gone back to, without a name the last save, and the paths that are brought back one by one.
/// Without any it is done in one step; what is in the archive is copied, since there are no tracks to share.
pub(super) fn wanted(views: &Views, name: Option<ByteBuf>, paths: Vec<ByteBuf>) -> Result<(Snapshot, Vec<ByteBuf>)> {
    check_paths(&paths)?;
    let snapshot = match name {
        Some(name) => views.snapshot_of(&name)?,
        None => views.snapshots().last_save()?,
    };
    if snapshot.base == views.base() {
        let is_copied = paths.is_empty() && snapshot.is_archived;
        return Ok((snapshot, if is_copied { vec![ByteBuf::new()] } else { paths }));
    }
    let text = "a base is restored to its own snapshots; `pitfs base create NAME --from SNAPSHOT` makes another one";
    Err(Error::Refused(Errno::INVAL, text.into()))
}

/// An empty path would mean everything, which a variable that is not set in a script does not.
pub(super) fn check_paths(paths: &[ByteBuf]) -> Result<()> {
    if paths.iter().any(|path| path.is_empty()) {
        let text = "a path is empty; name what is to be restored, or no path at all for everything".into();
        return Err(Error::Refused(Errno::INVAL, text));
    }
    Ok(())
}
