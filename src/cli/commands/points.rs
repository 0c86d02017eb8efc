//! Bases, sessions, groups, clones and mirrors: ask for it to be done, and show the result.

use super::args::{BaseVerb, Clone, GroupVerb, History, Hold, MirrorVerb, Policy, SessionVerb, Versions, WhenFull};
use super::delete::{self, Told};
use super::output::{Display, count, print, print_json, size, table, tell, write};
use super::{bytes, headed, name_of, plan, say_done, unexpected};
use crate::control::{
    Answer, Base, BaseInfo, ByteRange, BytesInfo, CloneRequest, FileTracksInfo, Group, Kind, Mirror, MountedInfo,
    PathText, Session, SessionInfo, SnapshotInfo, State, Target, TracksInfo, Verb, ask, spelling,
};
use crate::error::{Errno, Error, Result};
use crate::shown::shown;
use crate::view::Copying;
use serde::Serialize;
use serde_bytes::ByteBuf;
use serde_json::json;
use std::collections::HashSet;
use std::ffi::OsString;

pub(super) fn quietly(target: &Target, verb: Verb) -> Result<Answer> {
    ask(target, verb, &mut |_| Ok(()))
}

pub(super) fn with_display(target: &Target, verb: Verb, what: &'static str) -> Result<Answer> {
    let mut display = Display::new(what);
    let answer = ask(target, verb, &mut |progress| display.update(progress));
    display.finish();
    answer
}

pub(super) fn base(target: &Target, verb: BaseVerb, as_json: bool) -> Result<bool> {
    let mut wait = None;
    let (verb, json, is_list) = match verb {
        BaseVerb::Create { name, from, copy, offline, reserve, wait: waits, dry_run, json } => {
            let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
            if waits {
                wait = Some(bytes(name.clone()));
            }
            let (name, snapshot) = (bytes(name), from.map(bytes));
            let create = Base::Create { name, snapshot, uid, gid, copy, offline, reserve };
            if dry_run {
                return plan::show(target, Verb::Base(create), json);
            }
            (create, json, false)
        }
        BaseVerb::Wait { name } => {
            let done = json!({ "name": name_of(&name) });
            waited(target, bytes(name))?;
            return say_done(as_json, done);
        }
        BaseVerb::List { json } => (Base::List, json, true),
        BaseVerb::Delete { name, recursive, dry_run } => {
            let verb = Verb::Base(Base::Delete { name: bytes(name), recursive });
            return delete::delete(target, verb, Told { dry_run, goes: recursive, as_json });
        }
        BaseVerb::Rename { old, new } => (Base::Rename { old: bytes(old), new: bytes(new) }, as_json, false),
    };
    let is_new = matches!(verb, Base::Create { .. });
    let Answer::Bases(mut bases) = with_display(target, Verb::Base(verb), "copying")? else { return Err(unexpected()) };
    if let Some(name) = wait {
        waited(target, name)?;
        let Answer::Bases(now) = quietly(target, Verb::Base(Base::List))? else { return Err(unexpected()) };
        bases = now;
    }
    if is_new
        && let Answer::Mount(MountedInfo { mount_point: Some(mount_point) }) = quietly(target, Verb::Mount)?
        && crate::control::view_depth(mount_point.as_path()) == 1
    {
        tell(format_args!("{mount_point} shows one base; the new one is shown when the store is mounted again"));
    }
    if json {
        print_json(&bases)?;
    } else if is_list {
        print(&table(&base_rows(&bases)))?;
    }
    Ok(true)
}

/// Waits until what is copied in the background for a base is done.
fn waited(target: &Target, name: ByteBuf) -> Result<()> {
    with_display(target, Verb::Wait { name }, "copying").map(|_| ())
}

/// Does what begins copies in the background, and waits for their end.
pub(super) fn copied(target: &Target, verb: Verb, waits: bool, as_json: bool) -> Result<bool> {
    let Answer::Bases(mut bases) = with_display(target, verb, "copying")? else { return Err(unexpected()) };
    if waits {
        bases.iter().try_for_each(|base| waited(target, ByteBuf::from(base.name.clone())))?;
    }
    if waits && as_json {
        let Answer::Bases(now) = quietly(target, Verb::Base(Base::List))? else { return Err(unexpected()) };
        let is_meant = |base: &BaseInfo| bases.iter().any(|known| known.id == base.id);
        bases = now.into_iter().filter(is_meant).collect();
    }
    say_done(as_json, Answer::Bases(bases))
}

/// What a base is, and of what.
pub(super) fn kind_of(base: &BaseInfo) -> String {
    let of = base.of.as_ref().map_or(String::new(), |of| format!(" of {of}"));
    let is_independent = base.needs.is_none() && base.copied_bytes.is_none();
    match base.kind {
        Kind::Base => "base".to_string(),
        // Of a snapshot that is gone.
        Kind::Clone if base.of.is_none() && base.copied_bytes.is_none() => "clone, independent".to_string(),
        Kind::Clone if base.of.is_some() && is_independent => format!("clone{of}, independent"),
        Kind::Clone => format!("clone{of}"),
        Kind::Mirror if base.split => format!("mirror{of}, split"),
        Kind::Mirror => format!("mirror{of}"),
    }
}

pub(super) fn base_rows(bases: &[BaseInfo]) -> Vec<Vec<String>> {
    let mut rows = vec![["base", "kind", "snapshots", "refers to", "made"].map(str::to_string).to_vec()];
    rows.extend(bases.iter().map(|base| {
        let kind = kind_of(base);
        let kind = match base.settled_blocks.zip(base.blocks_to_settle) {
            Some((done, total)) if total > 0 => format!("{kind}, {} % settled", done * 100 / total),
            Some(_) => format!("{kind}, being settled"),
            None => kind,
        };
        let kind = match base.copied_bytes.zip(base.bytes_to_copy) {
            Some((done, total)) if base.copy_stopped => {
                format!("{kind}, incomplete: no room, {} of {} copied", size(done), size(total))
            }
            Some((done, total)) => {
                format!("{kind}, {} % copied", Copying { done, total, is_stopped: false }.percent())
            }
            None => kind,
        };
        let kind = match (base.filling, base.offline) {
            (true, _) => format!("{kind}, being filled"),
            (false, true) => format!("{kind}, offline"),
            (false, false) => kind,
        };
        let kind = if base.reserved_bytes > 0 { format!("{kind}, reserved") } else { kind };
        vec![base.name.clone(), kind, base.snapshots.to_string(), size(base.refers_bytes), base.time.text.clone()]
    }));
    rows
}

pub(super) fn session(target: &Target, verb: SessionVerb, as_json: bool) -> Result<bool> {
    let verb = match verb {
        SessionVerb::Register { name, base, group, offline, reserve } => {
            Session::Register { name: bytes(name), bases: distinct(base)?, group: group.map(bytes), offline, reserve }
        }
        SessionVerb::Relate { name } => Session::Relate { name: bytes(name) },
        SessionVerb::Activate { name } => Session::Activate { name: bytes(name) },
        SessionVerb::Deactivate { name } => Session::Deactivate { name: bytes(name) },
        SessionVerb::Online { name } => Session::Show { name: bytes(name), shown: true },
        SessionVerb::Offline { name } => Session::Show { name: bytes(name), shown: false },
        SessionVerb::Tracks { name, path, range, json } => {
            let verb = Session::Tracks { name: bytes(name), path: path.map(bytes), range };
            return print_tracks(quietly(target, Verb::Session(verb))?, json);
        }
        SessionVerb::Read { name, path, inode, range } => {
            return read_saved(target, bytes(name), path, inode, range, as_json);
        }
        SessionVerb::List { json } => return list_sessions(target, json),
    };
    say_done(as_json, quietly(target, Verb::Session(verb))?)
}

/// Bases, perhaps with a name behind a colon; wrong usage where one is given twice.
fn distinct(given: Vec<OsString>) -> Result<Vec<ByteBuf>> {
    let given: Vec<ByteBuf> = given.into_iter().map(bytes).collect();
    let mut known = HashSet::new();
    for one in &given {
        let base = one.split(|byte| *byte == b':').next().unwrap_or_default();
        if !known.insert(base) {
            return Err(Error::Usage(format!("the base {:?} is given twice", shown(base).to_string())));
        }
    }
    Ok(given)
}

/// A session, before and after it was activated.
#[derive(Serialize)]
#[serde(untagged)]
enum Step<'a> {
    Snapshot(&'a SnapshotInfo),
    Session(&'a SessionInfo),
}

fn list_sessions(target: &Target, as_json: bool) -> Result<bool> {
    let Answer::Sessions(sessions) = quietly(target, Verb::Session(Session::List))? else { return Err(unexpected()) };
    let Answer::List(mut snapshots) = quietly(target, Verb::List { all: false })? else { return Err(unexpected()) };
    snapshots.retain(|snapshot| snapshot.state != State::Missing);
    if as_json {
        let all = snapshots.iter().map(Step::Snapshot).chain(sessions.iter().map(Step::Session));
        return print_json(&all.collect::<Vec<_>>()).map(|()| true);
    }
    let mut rows: Vec<Vec<String>> = snapshots
        .iter()
        .map(|snapshot| {
            let shown = if snapshot.offline { "offline" } else { "" };
            vec![
                snapshot.name.clone(),
                snapshot.state.as_str().into(),
                snapshot.base.clone(),
                shown.into(),
                snapshot.time.text.clone(),
            ]
        })
        .collect();
    rows.extend(sessions.iter().map(|session| {
        let shown = if session.offline { "offline" } else { "" };
        vec![
            session.name.clone(),
            session.state.as_str().into(),
            session.bases.join(","),
            shown.into(),
            session.time.text.clone(),
        ]
    }));
    print(&table(&headed(["snapshot", "state", "base", "", "taken"], rows.into_iter()))).map(|()| true)
}

pub(super) fn group(target: &Target, verb: GroupVerb, as_json: bool) -> Result<bool> {
    let (verb, json, is_list) = match verb {
        GroupVerb::Create { name, bases } => {
            (Group::Create { name: bytes(name), bases: distinct(bases)? }, as_json, false)
        }
        GroupVerb::List { json } => (Group::List, json, true),
        GroupVerb::Delete { name } => (Group::Delete { name: bytes(name) }, as_json, false),
    };
    let Answer::Groups(groups) = quietly(target, Verb::Group(verb))? else { return Err(unexpected()) };
    if json {
        print_json(&groups)?;
    } else if is_list {
        let rows = groups.into_iter().map(|group| vec![group.name, group.bases.join(", ")]);
        print(&table(&headed(["group", "bases"], rows)))?;
    }
    Ok(true)
}

pub(super) fn clone(target: &Target, args: Clone, as_json: bool) -> Result<bool> {
    let Clone { first, second, full, copy, group, offline, reserve, wait, refresh, dry_run } = args;
    let moved = json!({ "name": name_of(&first), "snapshot": name_of(&second) });
    let (snapshot, name) = (bytes(first), bytes(second));
    if refresh {
        let verb = Verb::Refresh { name: snapshot, snapshot: name };
        if dry_run {
            return plan::show(target, verb, as_json);
        }
        quietly(target, verb)?;
        return say_done(as_json, moved);
    }
    let verb = Verb::Clone(CloneRequest { snapshot, name, group: group.map(bytes), full, copy, offline, reserve });
    if dry_run { plan::show(target, verb, as_json) } else { copied(target, verb, wait, as_json) }
}

pub(super) fn promote(target: &Target, name: OsString, waits: bool, as_json: bool) -> Result<bool> {
    copied(target, Verb::Promote { name: bytes(name) }, waits, as_json)
}

pub(super) fn hold(target: &Target, args: Hold, held: bool, as_json: bool) -> Result<bool> {
    let (names, tag) = (args.names.into_iter().map(bytes).collect(), args.tag.map(bytes));
    say_done(as_json, quietly(target, Verb::Hold { names, tag, held })?)
}

pub(super) fn mirror(target: &Target, args: super::args::Mirror, as_json: bool) -> Result<bool> {
    let verb = match args.verb {
        MirrorVerb::Establish { base, name, offline } => {
            Mirror::Establish { base: bytes(base), name: bytes(name), offline }
        }
        MirrorVerb::Sync { name } => Mirror::Sync { name: bytes(name) },
        MirrorVerb::Split { name } => Mirror::Split { name: bytes(name) },
        MirrorVerb::Resync { name, reverse } => Mirror::Resync { name: bytes(name), reverse },
        MirrorVerb::Restore { name } => Mirror::Resync { name: bytes(name), reverse: true },
    };
    match args.dry_run {
        true => plan::show(target, Verb::Mirror(verb), as_json),
        false => copied(target, Verb::Mirror(verb), !args.no_wait, as_json),
    }
}

pub(super) fn history(target: &Target, args: &History) -> Result<bool> {
    let Answer::History(entries) = quietly(target, Verb::History)? else { return Err(unexpected()) };
    if args.json {
        return print_json(&entries).map(|()| true);
    }
    let rows = entries.into_iter().map(|entry| {
        let base = entry.base.unwrap_or_else(|| "(deleted)".into());
        vec![entry.time.text, user_name(entry.uid), base, entry.what]
    });
    print(&table(&headed(["time", "user", "base", "what"], rows))).map(|()| true)
}

/// The name of a user, if it can be told.
fn user_name(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let wanted = uid.to_string();
    let found = users.lines().find(|line| line.split(':').nth(2) == Some(&wanted));
    found.and_then(|line| line.split(':').next()).map_or_else(|| format!("uid {uid}"), str::to_string)
}

pub(super) fn versions(target: &Target, path: Vec<u8>, args: &Versions) -> Result<bool> {
    let verb = Verb::Versions { path: ByteBuf::from(path) };
    let Answer::Versions(versions) = quietly(target, verb)? else { return Err(unexpected()) };
    if args.json {
        return print_json(&versions).map(|()| true);
    }
    let rows = versions.iter().map(|version| {
        let shown = version.snapshot.clone().unwrap_or_else(|| "live".into());
        vec![shown, version.modified.clone(), size(version.size_bytes)]
    });
    print(&table(&headed(["snapshot", "modified", "size"], rows))).map(|()| true)
}

pub(super) fn tracks(target: &Target, args: super::args::Diff) -> Result<bool> {
    let path = args.path.or(args.only).map(bytes);
    let verb = Verb::Tracks { before: bytes(args.before), after: args.after.map(bytes), path, range: args.range };
    print_tracks(quietly(target, verb)?, args.json)
}

/// Beyond so many tracks, 4 TiB of the usual ones, there are only ranges: a hole would take memory as bytes do.
const BITMAP_TRACKS_MAX: u64 = 1 << 26;

/// The tracks of a file that changed, also as bits: whoever shows them makes them, so that none are sent.
#[derive(Serialize)]
struct FileBits {
    #[serde(flatten)]
    file: FileTracksInfo,
    bitmap: Option<String>,
}

impl From<FileTracksInfo> for FileBits {
    fn from(file: FileTracksInfo) -> FileBits {
        let ranges: Vec<_> = file.tracks.iter().map(|(from, to)| *from..*to).collect();
        let count = ranges.last().map_or(0, |range| range.end);
        let bits = || spelling::hex(&crate::tree::bitmap(&ranges, count));
        FileBits { bitmap: (count <= BITMAP_TRACKS_MAX).then(bits), file }
    }
}

/// Bytes that an increment has of a file.
#[derive(Serialize)]
struct Saved {
    #[serde(flatten, serialize_with = "spelling::path::serialize")]
    path: PathText,
    inode: u64,
    bytes: usize,
    #[serde(flatten)]
    data: BytesInfo,
}

fn print_tracks(answer: Answer, as_json: bool) -> Result<bool> {
    let Answer::Tracks(TracksInfo { track_bytes, files }) = answer else { return Err(unexpected()) };
    if as_json {
        let files: Vec<FileBits> = files.into_iter().map(FileBits::from).collect();
        return print_json(&json!({ "track_bytes": track_bytes, "files": files })).map(|()| true);
    }
    let mut text = String::new();
    for file in &files {
        for (from, to) in &file.tracks {
            text.push_str(&format!("{} {} {}\n", from * track_bytes, (to - from) * track_bytes, file.path));
        }
    }
    print(&text).map(|()| true)
}

/// Writes what a snapshot's increment has saved of a file: all of it, or a range.
fn read_saved(
    target: &Target,
    name: ByteBuf,
    path: Option<OsString>,
    inode: Option<u64>,
    range: Option<ByteRange>,
    as_json: bool,
) -> Result<bool> {
    let mut saved = Vec::new();
    let wanted =
        path.as_ref().map_or_else(|| format!("inode {}", inode.unwrap_or_default()), |path| format!("{path:?}"));
    let verb = Session::Tracks { name: name.clone(), path: path.map(bytes), range: None };
    let Answer::Tracks(TracksInfo { track_bytes, files }) = quietly(target, Verb::Session(verb))? else {
        return Err(unexpected());
    };
    let mut files = files.into_iter().filter(|file| inode.is_none_or(|inode| file.inode == inode));
    let (Some(file), None) = (files.next(), files.next()) else {
        let name = shown(&name);
        let text = format!(
            "the increment of {name:?} has no tracks of {wanted}, or of several files there; `pitfs session tracks {name}` shows what it has"
        );
        return Err(Error::Refused(Errno::NOENT, text));
    };
    let whole = file.tracks.iter().map(|(from, to)| (from * track_bytes, to * track_bytes)).collect();
    for (mut from, to) in range.map_or(whole, |range| vec![range]) {
        loop {
            let verb = Session::Read { name: name.clone(), inode: file.inode, range: (from, to) };
            let Answer::Bytes(BytesInfo { data }) = quietly(target, Verb::Session(verb))? else {
                return Err(unexpected());
            };
            if as_json {
                saved.extend_from_slice(&data);
            } else {
                write(&data)?;
            }
            from += data.len() as u64;
            if data.is_empty() || from >= file.size_before_bytes.map_or(to, |size| to.min(size)) {
                break;
            }
        }
    }
    let (path, inode, bytes) = (file.path, file.inode, saved.len());
    say_done(as_json, Saved { path, inode, bytes, data: BytesInfo { data: saved } })
}

pub(super) fn policy(target: &Target, args: &Policy) -> Result<bool> {
    let drop_oldest = args.when_full.map(|what| what == WhenFull::DropOldest);
    let verb = Verb::Policy { drop_oldest, before_restores: args.before_restore };
    let Answer::Policy(policy) = quietly(target, verb)? else { return Err(unexpected()) };
    if args.json {
        print_json(&policy)?;
    } else if !policy.deleted.is_empty() {
        print(&format!("{} deleted\n", count(policy.deleted.len() as u64, "snapshot")))?;
    } else if args.when_full.is_none() && args.before_restore.is_none() {
        let kept = policy.before_restore.map_or("all".into(), |kept| kept.to_string());
        print(&format!("when-full {}\nbefore-restore {kept}\n", policy.when_full.as_str()))?;
    }
    Ok(true)
}
