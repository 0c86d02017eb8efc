//! Carrying requests out on an open store.

mod delete;
mod list;
mod rehearse;

use super::{
    Answer, Archive, Base, ByteRange, CloneRequest, Group, Keep, Mirror, Request, Session, SessionInfo, Snap,
    SnapshotInfo, StatusInfo, TracksInfo, Verb, VersionInfo,
};
use crate::daemon::{Daemon, OnProgress};
use crate::device::{BaseId, SnapOptions, Snapshot, SnapshotState, TrackNo};
use crate::error::{Errno, Error, Result};
use crate::purpose::Purpose;
use crate::shown::shown_file;
use crate::tree::ChangedTracks;
use crate::view::{BaseInfo, CloneOptions, HistoryEntry, MirrorStep, RegisterOptions, Restored, SnapRequest, Views};
use serde_bytes::ByteBuf;

/// Bytes of saved tracks that one answer carries.
const READ_BYTES_MAX: u64 = 4 << 20;

/// Carries out a request on an open store, on behalf of a user.
pub fn serve(daemon: &Daemon, request: Request, uid: u32, progress: OnProgress<'_>) -> Result<Answer> {
    // Whatever goes wrong with one command, others are served.
    let carried_out = Error::of_panic(|| carry_out(daemon, request, uid, progress));
    // Who asked sees what was done.
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

fn carry_out(daemon: &Daemon, request: Request, uid: u32, progress: OnProgress<'_>) -> Result<Answer> {
    let views = daemon.views().by(uid);
    let views = match &request.base {
        Some(name) => views.of(views.base_named(name)?),
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
            let snapshots = if held { views.hold(&names, tag)? } else { views.release(&names, tag)? };
            infos(&views, &snapshots).map(Answer::Snapshots)
        }
        Verb::Session(session) => serve_session(&views, session, request.base.is_some()),
        Verb::Group(group) => serve_group(&views, group),
        Verb::Base(base) => serve_base(daemon, &views, base, progress),
        Verb::Clone(wanted) => clone(daemon, &views, wanted, progress),
        Verb::Wait { name } => {
            let base = views.base_named(&name)?;
            daemon.finish_copy(&views, base, progress)?;
            base_answer(&views, base)
        }
        Verb::Refresh { name, snapshot } => daemon.refresh(&views, &name, &snapshot).map(|()| Answer::Nothing),
        Verb::Promote { name } => {
            let base = views.base_named(&name)?;
            views.promote(base)?;
            base_answer(&views, base)
        }
        Verb::Mirror(mirror) => base_answer(&views, step_mirror(daemon, &views, mirror)?.base),
        Verb::Restore { snapshot, group: Some(group), .. } => {
            let (to, restored) = restore_group(daemon, &views, &group, snapshot)?;
            // All of them go back or, where nothing differs, none.
            let before = restored.iter().map(|one| Some(&one.before)).chain(std::iter::repeat(None));
            let pair = |(before, to): (Option<&Snapshot>, &Snapshot)| {
                Ok((before.map(|before| info(&views, before)).transpose()?, info(&views, to)?))
            };
            before.zip(&to).map(pair).collect::<Result<_>>().map(Answer::RestoredAll)
        }
        Verb::Restore { snapshot, paths, group: None } => restore(daemon, &views, snapshot, paths, progress),
        Verb::CopyOut(options) => {
            check_paths(&options.paths)?;
            Ok(Answer::CopyOut(daemon.copy_out(&views, &options, progress)?))
        }
        Verb::History => history(&views).map(Answer::History),
        Verb::Versions { path } => {
            views.fetched()?;
            versions(&views, &path).map(Answer::Versions)
        }
        Verb::Diff { before, after } => {
            let (before, after) = (views.view(&before)?, views.view(&after)?);
            if before.base != after.base {
                let text = "only states of one base can be compared".into();
                return Err(Error::Refused(Errno::INVAL, text));
            }
            views.tree().diff(before.base, before.moment, after.moment).map(Answer::Differences)
        }
        Verb::Tracks { before, after, path, range } => tracks(&views, &before, after, path, range),
        Verb::Roll(options) => Ok(Answer::Roll(daemon.roll(&views, &options, progress)?)),
        Verb::RollGroup { group, options } => {
            Ok(Answer::RollGroup(daemon.roll_group(&views, &group, &options, progress)?))
        }
        Verb::Archive(archive) => serve_archive(daemon, &views, archive, progress),
        Verb::Policy { drop_oldest, before_restores } => policy(daemon, &views, drop_oldest, before_restores),
        Verb::Status => status(daemon, &views).map(Answer::Status),
        Verb::Check => Ok(Answer::Check(daemon.check(progress)?)),
        Verb::Sync(options) => Ok(Answer::Sync(daemon.sync(&views, &options, progress)?)),
        Verb::Mount => Ok(Answer::Mount { mount_point: daemon.mount_point() }),
        Verb::Rehearse(verb) => rehearse::rehearse(daemon, &views.rehearsing(), *verb, progress),
    }
}

/// Shows what the store does by itself, after what is given was changed.
fn policy(daemon: &Daemon, views: &Views, drop_oldest: Option<bool>, kept: Option<Keep>) -> Result<Answer> {
    if let Some(drop_oldest) = drop_oldest {
        views.set_drop_oldest(drop_oldest)?;
    }
    let mut deleted = Vec::new();
    if let Some(kept) = kept {
        let most = match kept {
            Keep::All => None,
            Keep::Newest(most) => Some(most),
        };
        views.keep_before_restores(most)?;
        for base in views.bases()? {
            let views = views.of(base.id);
            let gone = views.unless_gone(daemon.drop_before_restores(&views))?.unwrap_or_default();
            deleted.extend(gone.iter().map(|snapshot| SnapshotInfo::new(&base.name, snapshot, None)));
        }
    }
    let (drop_oldest, before_restores) = (views.drops_oldest()?, views.before_restores_kept()?);
    Ok(Answer::Policy { drop_oldest, before_restores, deleted })
}

fn slices(names: &[ByteBuf]) -> Vec<&[u8]> {
    names.iter().map(|name| name.as_slice()).collect()
}

/// What is told of a snapshot by an operation that must not take longer where much changed.
fn info(views: &Views, snapshot: &Snapshot) -> Result<SnapshotInfo> {
    Ok(SnapshotInfo::new(&views.of(snapshot.base).base_name()?, snapshot, None))
}

fn base_answer(views: &Views, base: BaseId) -> Result<Answer> {
    base_infos(views, &[base]).map(Answer::Bases)
}

/// Those that are still there.
fn base_infos(views: &Views, bases: &[BaseId]) -> Result<Vec<BaseInfo>> {
    let info = |base: &BaseId| views.of(*base).unless_gone(views.of(*base).base_info());
    bases.iter().filter_map(|base| info(base).transpose()).collect()
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

fn snap(views: &Views, wanted: Snap) -> Result<Answer> {
    let purpose = if wanted.save { Purpose::Save } else { Purpose::Plain };
    let options = SnapOptions { offline: wanted.offline, held: wanted.hold, purpose, reserve: wanted.reserve };
    let name = wanted.name.as_ref().map(|name| name.as_slice());
    let request = SnapRequest { name, options, keep: None };
    let taken = match &wanted.group {
        Some(group) => views.snapshot_group(group, request)?,
        None => views.snapshot_all(&[views.base()], request)?,
    };
    infos(views, &taken).map(Answer::Snapshots)
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

/// Bases with the names that their snapshots are to have, where that is not the session's.
fn named_bases(views: &Views, given: &[ByteBuf], group: Option<&ByteBuf>) -> Result<Vec<(BaseId, Vec<u8>)>> {
    let mut names = std::collections::BTreeMap::new();
    let mut bases = Vec::new();
    for given in given {
        // A base has no colon in its name.
        let mut parts = given.splitn(2, |byte| *byte == b':');
        let base = ByteBuf::from(parts.next().unwrap_or_default());
        if let Some(own) = parts.next() {
            names.insert(views.base_named(&base)?, own.to_vec());
        }
        bases.push(base);
    }
    let bases = bases_of(views, &bases, group)?;
    Ok(bases.into_iter().map(|base| (base, names.remove(&base).unwrap_or_default())).collect())
}

/// `of_one` says that only one base is meant.
fn serve_session(views: &Views, session: Session, of_one: bool) -> Result<Answer> {
    match session {
        Session::Register { name, bases, group, offline, reserve } => {
            let bases = named_bases(views, &bases, group.as_ref())?;
            views.register(&name, &bases, RegisterOptions { offline, reserve })?;
            sessions(views)
        }
        Session::Relate { name } => {
            check_not_taken(views, &name)?;
            views.relate(&name)?;
            sessions(views)
        }
        Session::Activate { name } => {
            check_not_taken(views, &name)?;
            let taken = views.activate(&name)?;
            infos(views, &taken).map(Answer::Snapshots)
        }
        Session::Deactivate { name } => {
            if views.session(&name).is_ok() {
                views.unregister(&name)?;
                return sessions(views);
            }
            let snapshot = views.expect_stored(&name)?;
            let all = if of_one { vec![snapshot] } else { views.of_one_moment(&snapshot)? };
            let ended = views.deactivate_all(&all)?;
            infos(views, &ended).map(Answer::Snapshots)
        }
        Session::Show { name, shown } => {
            let is_base = views.find(&name)?.is_none() && views.tree().device().look()?.base_named(&name).is_some();
            if is_base {
                let base = views.base_named(&name)?;
                views.show_base(base, shown)?;
                return base_answer(views, base);
            }
            let what = if shown { "session online" } else { "session offline" };
            let snapshot = views.update(&name, what, |record| record.offline = !shown)?;
            infos(views, &[snapshot]).map(Answer::Snapshots)
        }
        Session::Tracks { name, path, range } => {
            let snapshot = ended(views, &name)?;
            let found = views.tree().saved_tracks(snapshot.base, snapshot.epoch, path.as_deref().map(Vec::as_slice))?;
            Ok(tracks_answer(views, found, range))
        }
        Session::Read { name, inode, range: (from, to) } => {
            let snapshot = ended(views, &name)?;
            let inode = crate::device::InodeNo::new(snapshot.base, inode);
            let to = to.min(from.saturating_add(READ_BYTES_MAX));
            views.tree().read_saved(snapshot.epoch, inode, from..to).map(ByteBuf::from).map(Answer::Bytes)
        }
        Session::List => sessions(views),
    }
}

/// Says of a session that is one no more that its snapshot was taken.
fn check_not_taken(views: &Views, name: &[u8]) -> Result<()> {
    let (Err(_), Some(snapshot)) = (views.session(name), views.find(name)?) else { return Ok(()) };
    let name = &snapshot.record.name;
    let text = match snapshot.record.state {
        _ if snapshot.is_archived => format!("the snapshot {name:?} was taken, and is in the archive"),
        SnapshotState::Active => {
            format!(
                "the session {name:?} is active already: its snapshot was taken; `pitfs session deactivate {name}` is next"
            )
        }
        SnapshotState::Deactivated | SnapshotState::Ended(_) => {
            format!("the session {name:?} was active, and is deactivated already")
        }
    };
    Err(Error::Refused(Errno::INVAL, text))
}

/// A snapshot whose increment changes no more.
fn ended(views: &Views, name: &[u8]) -> Result<Snapshot> {
    let snapshot = views.expect(name)?;
    if snapshot.record.state == SnapshotState::Active {
        let name = &snapshot.record.name;
        let text = format!(
            "{name:?} is active: look into it, or `pitfs session deactivate {name}` first; saved tracks are read of \
             what is deactivated"
        );
        return Err(Error::Refused(Errno::INVAL, text));
    }
    Ok(snapshot)
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

/// Of a base that begins as a snapshot.
fn base_options(copies: bool, is_offline: bool, reserve: bool) -> CloneOptions {
    CloneOptions { is_full: true, copies, is_shown_beside: false, is_offline, reserve }
}

fn serve_base(daemon: &Daemon, views: &Views, base: Base, progress: OnProgress<'_>) -> Result<Answer> {
    match base {
        Base::Create { name, snapshot: None, uid, gid, offline, .. } => {
            let base = views.create_base(&name, uid, gid, 0o755)?;
            if offline {
                views.show_base(base, false)?;
            }
        }
        Base::Create { name, snapshot: Some(snapshot), copy, offline, reserve, .. } => {
            let of = vec![(views.snapshot_of(&snapshot)?, name.into_vec())];
            let options = base_options(copy, offline, reserve);
            daemon.make_clones(views, of, options, None, progress)?;
        }
        Base::Delete { name, recursive } => {
            return delete::delete(views, &delete::base(views, &name)?, recursive);
        }
        Base::Rename { old, new } => {
            views.rename_base(views.base_named(&old)?, &new)?;
        }
        Base::List => {}
    }
    Ok(Answer::Bases(views.bases()?))
}

fn step_mirror(daemon: &Daemon, views: &Views, mirror: Mirror) -> Result<MirrorStep> {
    match mirror {
        Mirror::Establish { base, name, offline } => {
            views.of(views.base_named(&base)?).establish_mirror(&name, offline)
        }
        Mirror::Sync { name } => daemon.sync_mirror(views, &name),
        Mirror::Split { name } => daemon.split_mirror(views, &name),
        Mirror::Resync { name, reverse } => daemon.resync_mirror(views, &name, reverse),
        Mirror::RestoreTo { name, snapshot } => daemon.restore_mirror(views, &name, &snapshot),
    }
}

/// An empty path would mean everything, which a variable that is not set in a script does not.
fn check_paths(paths: &[ByteBuf]) -> Result<()> {
    if paths.iter().any(|path| path.is_empty()) {
        let text = "a path is empty; name what is to be restored, or no path at all for everything".into();
        return Err(Error::Refused(Errno::INVAL, text));
    }
    Ok(())
}

/// The snapshot that is to be gone back to, without a name the last save, and the paths that are brought back one by one.
/// Without any it is done in one step; what is in the archive is copied, since there are no tracks to share.
fn wanted(views: &Views, name: Option<ByteBuf>, paths: Vec<ByteBuf>) -> Result<(Snapshot, Vec<ByteBuf>)> {
    check_paths(&paths)?;
    let snapshot = match name {
        Some(name) => views.snapshot_of(&name)?,
        None => views.last_save()?,
    };
    if snapshot.base == views.base() {
        let is_copied = paths.is_empty() && snapshot.is_archived;
        return Ok((snapshot, if is_copied { vec![ByteBuf::new()] } else { paths }));
    }
    let text = "a base is restored to its own snapshots; `pitfs base create NAME --from SNAPSHOT` makes another one";
    Err(Error::Refused(Errno::INVAL, text.into()))
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
        let restored = daemon.restore(views, &snapshot)?;
        let before = restored.map(|restored| info(views, &restored.before)).transpose()?;
        return Ok(Answer::Restored { before, to: info(views, &snapshot)? });
    }
    let (report, before) = daemon.bring_back(views, &snapshot, &paths, progress)?;
    let before = before.map(|before| info(views, &before)).transpose()?;
    Ok(Answer::BroughtBack { before, to: info(views, &snapshot)?, report })
}

/// All bases of a group, in one step: what was to be gone back to, and what was done, nothing where nothing differs.
fn restore_group(
    daemon: &Daemon,
    views: &Views,
    group: &[u8],
    snapshot: Option<ByteBuf>,
) -> Result<(Vec<Snapshot>, Vec<Restored>)> {
    let to = match snapshot {
        Some(name) => views.of_group(group, &name)?,
        None => views.last_save_of_group(group)?,
    };
    let restored = daemon.restore_all(views, &to, Some(&String::from_utf8_lossy(group)))?;
    Ok((to, restored))
}

/// Of what clones are to be made, and under which names.
fn cloned(views: &Views, wanted: &CloneRequest) -> Result<Vec<(Snapshot, Vec<u8>)>> {
    let CloneRequest { snapshot, name, group, .. } = wanted;
    let Some(group) = group else { return Ok(vec![(views.snapshot_of(snapshot)?, name.to_vec())]) };
    let mut of = Vec::new();
    for snapshot in views.of_group(group, snapshot)? {
        let base = views.of(snapshot.base).base_name()?;
        of.push((snapshot, [&name[..], b"-", base.as_bytes()].concat()));
    }
    Ok(of)
}

fn clone_options(wanted: &CloneRequest) -> CloneOptions {
    let CloneRequest { full, copy, offline, reserve, .. } = *wanted;
    CloneOptions { is_full: full, copies: copy, is_shown_beside: true, is_offline: offline, reserve }
}

fn clone(daemon: &Daemon, views: &Views, wanted: CloneRequest, progress: OnProgress<'_>) -> Result<Answer> {
    let (of, options) = (cloned(views, &wanted)?, clone_options(&wanted));
    let group = wanted.group.map(|group| String::from_utf8_lossy(&group).into_owned());
    let made = daemon.make_clones(views, of, options, group.as_deref(), progress)?;
    base_infos(views, &made).map(Answer::Bases)
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
            inode: version.inode.number(),
        })
        .collect())
}

fn tracks(
    views: &Views,
    before: &[u8],
    after: Option<ByteBuf>,
    path: Option<ByteBuf>,
    range: Option<ByteRange>,
) -> Result<Answer> {
    let tree = views.tree();
    let path = path.as_ref().map(|path| path.as_slice());
    let found = match after {
        None => {
            views.fetched()?;
            tree.session_bits(views.base(), views.expect(before)?.epoch, path)?
        }
        Some(after) => {
            let (before, after) = (views.moment(before)?, views.moment(&after)?);
            tree.changed_tracks(views.base(), before, after, path)?
        }
    };
    Ok(tracks_answer(views, found, range))
}

/// Tracks in, or partly in, a range of bytes.
fn tracks_answer(views: &Views, mut found: Vec<ChangedTracks>, range: Option<ByteRange>) -> Answer {
    let track_bytes = views.tree().device().track_bytes();
    if let Some((from, to)) = range {
        let (first, end) = (TrackNo::of(from, track_bytes), TrackNo::behind(to, track_bytes));
        for file in &mut found {
            let within = |tracks: &std::ops::Range<TrackNo>| tracks.start.max(first)..tracks.end.min(end);
            file.tracks = file.tracks.iter().map(within).filter(|tracks| !tracks.is_empty()).collect();
        }
        found.retain(|file| !file.tracks.is_empty());
    }
    let files = found.into_iter().map(|file| TracksInfo {
        path: file.path,
        inode: file.inode.number(),
        size_before: file.size_before,
        size_after: file.size_after,
        tracks: file.tracks.into_iter().map(|range| (range.start.number(), range.end.number())).collect(),
    });
    Answer::Tracks { track_bytes, files: files.collect() }
}

fn serve_archive(daemon: &Daemon, views: &Views, archive: Archive, progress: OnProgress<'_>) -> Result<Answer> {
    Ok(Answer::Archives(match archive {
        Archive::Attach { directory } => vec![daemon.attach_existing(views, &directory, progress)?],
        Archive::Detach { directory } => return Ok(Answer::Detached(daemon.detach(views, directory.as_deref())?)),
        Archive::List { directory } => vec![daemon.list_archive(views, directory.as_deref())?],
        Archive::Verify { directory } => vec![daemon.verify_archive(views, directory.as_deref(), progress)?],
        Archive::Join { directory } => vec![daemon.join_archive(views, &directory, progress)?],
        Archive::Prune(options) => return Ok(Answer::Shortened(daemon.prune_archive(views, options, progress)?)),
        Archive::Merge(options) => return Ok(Answer::Shortened(daemon.merge_archive(views, options, progress)?)),
    }))
}

fn status(daemon: &Daemon, views: &Views) -> Result<StatusInfo> {
    let tree = views.tree();
    let settings = tree.device().settings();
    let bases = views.bases()?;
    let mut snapshots = Vec::new();
    let (mut archives, mut saves) = (Vec::new(), Vec::new());
    let needs = list::needs(views)?;
    for base in &bases {
        let views = views.of(base.id);
        // The archive first: this notices one that went away, whose times are then no snapshots.
        archives.extend(views.unless_gone(daemon.attached_info(&views))?.flatten());
        let found = views.all_snapshots().and_then(|all| list::counted(&views, &all, &needs));
        snapshots.extend(views.unless_gone(found)?.into_iter().flatten());
        let save = || views.newest_save()?.map(|save| info(&views, &save)).transpose();
        saves.extend(views.unless_gone(save())?.flatten());
    }
    let reserved = tree.device().look()?.reserved_room();
    Ok(StatusInfo {
        store: daemon.path().to_path_buf(),
        id: settings.id,
        mount_point: daemon.mount_point(),
        track_bytes: settings.track_bytes.into(),
        compression: format!("{:?}", settings.codec).to_lowercase(),
        space: tree.space()?,
        reserved,
        drop_oldest: views.drops_oldest()?,
        bases,
        snapshots,
        archives,
        saves,
        workers: daemon.workers()?,
        only_read: daemon.is_only_read(),
        stopped: match tree.device().check_running() {
            Err(error @ Error::Stopped(_)) => Some(error.to_string()),
            _ => None,
        },
    })
}
