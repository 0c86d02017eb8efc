//! Carrying requests out on an open store.

use super::{Answer, Archive, Base, FreedInfo, Group, Mirror, Request, Session, SessionInfo, Snap, SnapshotInfo};
use super::{StatusInfo, TracksInfo, Verb, VersionInfo};
use crate::daemon::{Daemon, OnProgress};
use crate::device::{BaseId, LIVE, Moment, Purpose, SnapOptions, Snapshot};
use crate::error::{Errno, Error, Result};
use crate::view::{HistoryEntry, SnapRequest, Views};
use serde_bytes::ByteBuf;

/// Paths that `freed` names.
const PATHS_SHOWN: usize = 20;

/// Carries out a request on an open store, on behalf of a user.
pub fn serve(daemon: &Daemon, request: Request, uid: u32, progress: OnProgress<'_>) -> Result<Answer> {
    let views = daemon.views().by(uid);
    let views = match &request.base {
        Some(name) => views.of(views.base_named(name)?),
        None => views,
    };
    match request.verb {
        Verb::Snap(wanted) => snap(daemon, &views, wanted),
        Verb::List => counted(&views, &views.all_snapshots()?).map(Answer::Snapshots),
        Verb::Delete { names, recursive } => delete(daemon, &views, &names, recursive),
        Verb::Freed { names } => freed(&views, &names).map(Answer::Freed),
        Verb::Rename { old, new } => daemon.rename(&views, &old, &new).map(|()| Answer::Nothing),
        Verb::Hold { names, held } => {
            let what = if held { "hold" } else { "release" };
            let hold = |name: &ByteBuf| views.update(name, what, |snapshot| snapshot.record.held = held);
            let snapshots: Vec<Snapshot> = names.iter().map(hold).collect::<Result<_>>()?;
            infos(&views, &snapshots).map(Answer::Snapshots)
        }
        Verb::Session(session) => serve_session(daemon, &views, session),
        Verb::Group(group) => serve_group(&views, group),
        Verb::Base(base) => serve_base(daemon, &views, base),
        Verb::Clone { snapshot, name, full, copy } => {
            let base = daemon.clone_snapshot(&views, &snapshot, &name, full, copy)?;
            base_answer(&views, base)
        }
        Verb::Refresh { name, snapshot } => daemon.refresh(&views, &name, &snapshot).map(|()| Answer::Nothing),
        Verb::Promote { name } => {
            let base = daemon.promote(&views, &name)?;
            base_answer(&views, base)
        }
        Verb::Mirror(mirror) => serve_mirror(daemon, &views, mirror, progress),
        Verb::Restore { snapshot, paths } => {
            check_paths(&paths)?;
            restore(daemon, &views, snapshot, paths, progress)
        }
        Verb::CopyOut(options) => {
            check_paths(&options.paths)?;
            Ok(Answer::CopyOut(daemon.copy_out(&views, &options, progress)?))
        }
        Verb::History => history(&views).map(Answer::History),
        Verb::Versions { path } => versions(&views, &path).map(Answer::Versions),
        Verb::Diff { before, after } => {
            let (before, after) = (views.view(&before)?, views.view(&after)?);
            if before.base != after.base {
                let text = "only states of one base can be compared".into();
                return Err(Error::Refused(Errno::INVAL, text));
            }
            match views.tree().diff(before.base, before.moment, after.moment) {
                Ok(found) => Ok(Answer::Differences(found)),
                Err(Error::Posix(Errno::STALE)) => {
                    let text = "one of the two was deleted while they were compared".into();
                    Err(Error::Refused(Errno::STALE, text))
                }
                Err(error) => Err(error),
            }
        }
        Verb::Tracks { before, after, path } => tracks(&views, &before, after, path),
        Verb::Roll(options) => Ok(Answer::Roll(daemon.roll(&views, &options, progress)?)),
        Verb::Archive(archive) => serve_archive(daemon, &views, archive, progress),
        Verb::Policy { drop_oldest } => {
            if let Some(drop_oldest) = drop_oldest {
                views.set_drop_oldest(drop_oldest)?;
            }
            Ok(Answer::Policy { drop_oldest: views.drops_oldest()? })
        }
        Verb::Status => status(daemon, &views).map(Answer::Status),
        Verb::Check => Ok(Answer::Check(daemon.check(progress)?)),
        Verb::Sync(options) => Ok(Answer::Sync(daemon.sync(&views, &options, progress)?)),
        Verb::Mount => Ok(Answer::Mount { mount_point: daemon.mount_point() }),
    }
}

/// What is told of a snapshot by an operation that must not take longer where much changed.
fn info(views: &Views, snapshot: &Snapshot) -> Result<SnapshotInfo> {
    Ok(SnapshotInfo::new(&views.of(snapshot.base).base_name()?, snapshot, None))
}

/// What is deleted while a list is made is not in it.
fn unless_gone<T: Default>(result: Result<T>) -> Result<T> {
    match result {
        Err(Error::Posix(Errno::STALE)) => Ok(T::default()),
        result => result,
    }
}

fn base_answer(views: &Views, base: BaseId) -> Result<Answer> {
    unless_gone(views.of(base).base_info().map(|info| vec![info])).map(Answer::Bases)
}

/// Snapshots with what only each holds, counted if that is not known.
fn counted(views: &Views, snapshots: &[Snapshot]) -> Result<Vec<SnapshotInfo>> {
    let mut all = infos(views, snapshots)?;
    for (info, snapshot) in all.iter_mut().zip(snapshots).filter(|(info, _)| !info.archived) {
        info.unique = unless_gone(views.tree().device().unique_bytes(snapshot.point()).map(Some))?;
    }
    Ok(all)
}

fn infos(views: &Views, snapshots: &[Snapshot]) -> Result<Vec<SnapshotInfo>> {
    snapshots.iter().map(|snapshot| info(views, snapshot)).collect()
}

fn bases_of(views: &Views, names: &[ByteBuf], group: Option<&ByteBuf>) -> Result<Vec<BaseId>> {
    let mut bases = match group {
        Some(group) => views.group(group)?,
        None => Vec::new(),
    };
    for name in names {
        bases.push(views.base_named(name)?);
    }
    if bases.is_empty() {
        bases.push(views.base());
    }
    bases.sort_unstable();
    bases.dedup();
    Ok(bases)
}

fn snap(daemon: &Daemon, views: &Views, wanted: Snap) -> Result<Answer> {
    let purpose = if wanted.save { Purpose::Save } else { Purpose::Plain };
    let options = SnapOptions { offline: wanted.offline, held: wanted.hold, purpose, reserve: wanted.reserve };
    let name = wanted.name.as_ref().map(|name| name.as_slice());
    let request = SnapRequest { name, options };
    let taken = match &wanted.group {
        Some(group) => daemon.snapshot_group(views, group, request)?,
        None => daemon.snapshot_all(views, &[views.base()], request)?,
    };
    infos(views, &taken).map(Answer::Snapshots)
}

fn delete(daemon: &Daemon, views: &Views, names: &[ByteBuf], recursive: bool) -> Result<Answer> {
    let mut snapshots: Vec<&[u8]> = Vec::new();
    let mut trees = Vec::new();
    for name in names {
        let is_snapshot = name.starts_with(b"@") || views.find(name)?.is_some();
        let named = views.tree().device().look()?.base_named(&String::from_utf8_lossy(name));
        match named {
            // The name of a base alone is too much to be deleted by a slip.
            Some(base)
                if !is_snapshot && base != LIVE && views.of(base).base_info()?.kind != crate::view::BaseKind::Base =>
            {
                trees.push(base);
            }
            _ => snapshots.push(name),
        }
    }
    let deleted = daemon.delete(views, &snapshots, &trees, recursive)?;
    infos(views, &deleted).map(Answer::Snapshots)
}

fn history(views: &Views) -> Result<Vec<(HistoryEntry, Option<String>)>> {
    let entries = views.history()?;
    let look = views.tree().device().look()?;
    let name = |base| look.base_record(base).ok().map(|record| record.name.clone());
    Ok(entries
        .into_iter()
        .map(|entry| {
            let base = name(entry.base);
            (entry, base)
        })
        .collect())
}

/// Refused where deleting them would be, but for what depends on them.
fn freed(views: &Views, names: &[ByteBuf]) -> Result<FreedInfo> {
    let names: Vec<&[u8]> = names.iter().map(|name| name.as_slice()).collect();
    let snapshots = views.deletable(&names)?;
    let epochs: Vec<u32> = snapshots.iter().map(|snapshot| snapshot.epoch).collect();
    let mut needed_by = Vec::new();
    for snapshot in &snapshots {
        let look = views.tree().device().look()?;
        for base in look.dependants(snapshot.point())?.into_iter().filter(|base| *base != views.base()) {
            needed_by.push(look.base_record(base)?.name.clone());
        }
    }
    needed_by.sort_unstable();
    needed_by.dedup();
    let newest = epochs.iter().copied().max().unwrap_or_default();
    let freed = views.tree().device().freed_by(views.base(), &epochs)?;
    let mut by_size: Vec<(u64, u64)> = freed.iter().map(|(inode, bytes)| (*bytes, *inode)).collect();
    by_size.sort_unstable_by(|a, b| b.cmp(a));
    let mut paths = Vec::new();
    for (bytes, inode) in by_size.into_iter().take(PATHS_SHOWN) {
        let found = views.tree().paths(inode, Moment::At(newest)).ok().and_then(|paths| paths.into_iter().next());
        let path = found.map_or(format!("inode {}", crate::device::number_of(inode)), |path| {
            String::from_utf8_lossy(&path).into_owned()
        });
        paths.push((path, bytes));
    }
    Ok(FreedInfo { bytes: freed.values().sum(), needed_by, paths })
}

fn serve_session(daemon: &Daemon, views: &Views, session: Session) -> Result<Answer> {
    match session {
        Session::Register { name, bases, group, offline } => {
            let bases = bases_of(views, &bases, group.as_ref())?;
            views.register(&name, &bases, offline)?;
            sessions(views)
        }
        Session::Relate { name } => {
            daemon.before_snapshot()?;
            views.relate(&name)?;
            sessions(views)
        }
        Session::Activate { name } => {
            if views.session(&name).is_err() && views.find(&name)?.is_some() {
                let text = format!("the session {:?} is active already", String::from_utf8_lossy(&name));
                return Err(Error::Refused(Errno::INVAL, text));
            }
            daemon.before_snapshot()?;
            let taken = views.activate(&name)?;
            for snapshot in &taken {
                daemon.tell_of(snapshot.base, &snapshot.record.name);
            }
            infos(views, &taken).map(Answer::Snapshots)
        }
        Session::Deactivate { name } => {
            if views.session(&name).is_ok() {
                views.unregister(&name)?;
                return sessions(views);
            }
            let snapshot = views.deactivate(&name)?;
            daemon.tell_of(snapshot.base, &snapshot.record.name);
            infos(views, &[snapshot]).map(Answer::Snapshots)
        }
        Session::Show { name, shown } => {
            let what = if shown { "session online" } else { "session offline" };
            let snapshot = views.update(&name, what, |snapshot| snapshot.record.offline = !shown)?;
            daemon.tell_of(snapshot.base, &snapshot.record.name);
            infos(views, &[snapshot]).map(Answer::Snapshots)
        }
        Session::List => sessions(views),
    }
}

fn names_of(views: &Views, bases: &[BaseId]) -> Vec<String> {
    bases.iter().map(|base| views.of(*base).base_name().unwrap_or_else(|_| "(deleted)".into())).collect()
}

fn sessions(views: &Views) -> Result<Answer> {
    let all = views.sessions()?.into_iter().map(|session| SessionInfo {
        bases: names_of(views, &session.record.bases),
        name: session.name,
        record: session.record,
    });
    Ok(Answer::Sessions(all.collect()))
}

fn serve_group(views: &Views, group: Group) -> Result<Answer> {
    match group {
        Group::Create { name, bases } => views.create_group(&name, &bases_of(views, &bases, None)?)?,
        Group::Delete { name } => views.delete_group(&name)?,
        Group::List => {}
    }
    let groups = views.groups()?.into_iter().map(|(name, bases)| (name, names_of(views, &bases)));
    Ok(Answer::Groups(groups.collect()))
}

fn serve_base(daemon: &Daemon, views: &Views, base: Base) -> Result<Answer> {
    match base {
        Base::Create { name, snapshot: None, uid, gid } => {
            let base = views.create_base(&name, uid, gid, 0o755)?;
            daemon.tell_of(base, &String::from_utf8_lossy(&name));
        }
        Base::Create { name, snapshot: Some(snapshot), .. } => {
            let snapshot = views.snapshot_of(&snapshot)?;
            let base = views.clone_snapshot(&snapshot, &name, true, false)?;
            daemon.tell_of(base, &String::from_utf8_lossy(&name));
        }
        Base::Delete { name, recursive } => {
            let base = views.base_named(&name)?;
            daemon.delete(views, &[], &[base], recursive)?;
        }
        Base::Rename { old, new } => {
            daemon.rename_base(views, views.base_named(&old)?, &new)?;
        }
        Base::List => {}
    }
    Ok(Answer::Bases(views.bases()?))
}

fn serve_mirror(daemon: &Daemon, views: &Views, mirror: Mirror, progress: OnProgress<'_>) -> Result<Answer> {
    let base = match mirror {
        Mirror::Establish { base, name } => daemon.establish_mirror(views, &base, &name, progress)?,
        Mirror::Sync { name } => daemon.sync_mirror(views, &name, progress)?,
        Mirror::Split { name } => daemon.split_mirror(views, &name)?,
        Mirror::Resync { name, reverse } => daemon.resync_mirror(views, &name, reverse, progress)?,
        Mirror::RestoreTo { name, snapshot } => daemon.restore_mirror(views, &name, &snapshot, progress)?,
    };
    base_answer(views, base)
}

/// An empty path would mean everything, which a variable that is not set in a script does not.
fn check_paths(paths: &[ByteBuf]) -> Result<()> {
    if paths.iter().any(|path| path.is_empty()) {
        let text = "a path is empty; name what is to be restored, or no path at all for everything".into();
        return Err(Error::Refused(Errno::INVAL, text));
    }
    Ok(())
}

fn restore(
    daemon: &Daemon,
    views: &Views,
    snapshot: Option<ByteBuf>,
    paths: Vec<ByteBuf>,
    progress: OnProgress<'_>,
) -> Result<Answer> {
    let snapshot = match snapshot {
        Some(name) => views.snapshot_of(&name)?,
        None => views.last_save()?,
    };
    if snapshot.base != views.base() {
        let text =
            "a base is restored to its own snapshots; `pitfs base create NAME --from SNAPSHOT` makes another one"
                .into();
        return Err(Error::Refused(Errno::INVAL, text));
    }
    if paths.is_empty() && !snapshot.is_archived {
        let restored = daemon.restore(views, &snapshot)?;
        return Ok(Answer::Restored { before: info(views, &restored.before)?, to: info(views, &restored.to)? });
    }
    // What is in the archive is copied: there are no tracks to share.
    let paths = if paths.is_empty() { vec![ByteBuf::new()] } else { paths };
    Ok(Answer::BroughtBack(daemon.bring_back(views, &snapshot, &paths, progress)?))
}

fn versions(views: &Views, path: &[u8]) -> Result<Vec<VersionInfo>> {
    let all = views.tree().versions(views.base(), path)?;
    Ok(all
        .into_iter()
        .map(|version| VersionInfo {
            taken: version.snapshot.as_ref().map(|snapshot| snapshot.record.time),
            snapshot: version.snapshot.map(|snapshot| snapshot.record.name),
            modified: version.time,
            size: version.size,
            inode: crate::device::number_of(version.inode),
        })
        .collect())
}

fn tracks(views: &Views, before: &[u8], after: Option<ByteBuf>, path: Option<ByteBuf>) -> Result<Answer> {
    let tree = views.tree();
    let found = match after {
        None => tree.session_bits(views.base(), views.expect(before)?.epoch)?,
        Some(after) => {
            let (before, after) = (views.moment(before)?, views.moment(&after)?);
            tree.changed_tracks(views.base(), before, after, path.as_ref().map(|path| path.as_slice()))?
        }
    };
    let files = found.into_iter().map(|file| TracksInfo {
        path: file.path,
        inode: crate::device::number_of(file.inode),
        size_before: file.size_before,
        size_after: file.size_after,
        tracks: file.tracks.into_iter().map(|range| (range.start, range.end)).collect(),
    });
    Ok(Answer::Tracks { track_bytes: tree.device().track_bytes(), files: files.collect() })
}

fn serve_archive(daemon: &Daemon, views: &Views, archive: Archive, progress: OnProgress<'_>) -> Result<Answer> {
    Ok(Answer::Archives(match archive {
        Archive::Attach { directory } => vec![daemon.attach(views, &directory, progress)?],
        Archive::Detach { directory } => return Ok(Answer::Detached(daemon.detach(views, directory.as_deref())?)),
        Archive::List { directory } => vec![daemon.archive_info(views, directory.as_deref())?],
        Archive::Verify { directory } => vec![daemon.verify_archive(views, directory.as_deref(), progress)?],
    }))
}

fn status(daemon: &Daemon, views: &Views) -> Result<StatusInfo> {
    let tree = views.tree();
    let settings = tree.device().settings();
    let bases = views.bases()?;
    let mut snapshots = Vec::new();
    let mut archives = Vec::new();
    for base in &bases {
        let views = views.of(base.id);
        let found = views.all_snapshots().and_then(|all| counted(&views, &all));
        snapshots.extend(unless_gone(found)?);
        archives.extend(unless_gone(daemon.attached_info(&views))?);
    }
    let reserved = tree.device().look()?.reserved_room();
    Ok(StatusInfo {
        store: daemon.path().to_path_buf(),
        mount_point: daemon.mount_point(),
        track_bytes: settings.track_bytes.into(),
        compression: format!("{:?}", settings.codec).to_lowercase(),
        space: tree.space()?,
        reserved,
        drop_oldest: views.drops_oldest()?,
        bases,
        snapshots,
        archives,
        stopped: tree.device().check_running().err().map(|error| error.to_string()),
    })
}
