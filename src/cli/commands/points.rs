//! Bases, sessions, groups, clones, mirrors, archives: ask for it to be done, and show the result.

use super::args::{
    ArchiveVerb, BaseVerb, Clone, GroupVerb, History, MirrorVerb, Policy, Roll, SessionVerb, Versions, WhenFull,
};
use super::output::{Display, count, path, print, print_json, size, table};
use super::{absolute, bytes, headed, snapshot_json, unexpected};
use crate::control::{Answer, Archive, Base, Group, Mirror, Session, SnapshotInfo, Target, Verb, ask};
use crate::daemon::{ArchiveInfo, Detached, RollOptions};
use crate::error::{Error, Result};
use crate::view::{BaseInfo, BaseKind};
use serde_json::json;
use std::ffi::OsString;

fn quietly(target: &Target, verb: Verb) -> Result<Answer> {
    ask(target, verb, &mut |_| Ok(()))
}

fn with_display(target: &Target, verb: Verb, what: &'static str) -> Result<Answer> {
    let mut display = Display::new(what);
    let answer = ask(target, verb, &mut |progress| display.update(progress));
    display.finish();
    answer
}

pub(super) fn base(target: &Target, verb: BaseVerb) -> Result<bool> {
    let (verb, json, is_list) = match verb {
        BaseVerb::Create { name, from, json } => {
            let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
            (Base::Create { name: bytes(name), snapshot: from.map(bytes), uid, gid }, json, false)
        }
        BaseVerb::List { json } => (Base::List, json, true),
        BaseVerb::Delete { name, recursive } => (Base::Delete { name: bytes(name), recursive }, false, false),
        BaseVerb::Rename { old, new } => (Base::Rename { old: bytes(old), new: bytes(new) }, false, false),
    };
    let is_new = matches!(verb, Base::Create { .. });
    let Answer::Bases(bases) = quietly(target, Verb::Base(verb))? else { return Err(unexpected()) };
    if is_new
        && let Answer::Mount { mount_point: Some(mount_point) } = quietly(target, Verb::Mount)?
        && crate::control::view_depth(&mount_point) == 1
    {
        eprintln!(
            "pitfs: {} shows one base; the new one is shown when the store is mounted again",
            mount_point.display()
        );
    }
    if json {
        print_json(&bases.iter().map(base_json).collect::<Vec<_>>())?;
    } else if is_list {
        print(&table(&base_rows(&bases)))?;
    }
    Ok(true)
}

pub(super) fn base_rows(bases: &[BaseInfo]) -> Vec<Vec<String>> {
    let mut rows = vec![["base", "kind", "snapshots", "refers to", "made"].map(str::to_string).to_vec()];
    rows.extend(bases.iter().map(|base| {
        let kind = match &base.kind {
            BaseKind::Base => "base".to_string(),
            BaseKind::Clone(None) => "clone, independent".to_string(),
            BaseKind::Clone(Some(of)) if base.needs.is_none() => format!("clone of {of}, independent"),
            BaseKind::Clone(Some(of)) => format!("clone of {of}"),
            BaseKind::Mirror(of) if base.is_split => format!("mirror of {of}, split"),
            BaseKind::Mirror(of) => format!("mirror of {of}"),
        };
        let kind = match base.settling {
            Some((done, total)) if total > 0 => format!("{kind}, {} % settled", done * 100 / total),
            Some(_) => format!("{kind}, being settled"),
            None => kind,
        };
        vec![base.name.clone(), kind, base.snapshots.to_string(), size(base.refers), base.time.as_text()]
    }));
    rows
}

pub(super) fn base_json(base: &BaseInfo) -> serde_json::Value {
    let (kind, of) = match &base.kind {
        BaseKind::Base => ("base", None),
        BaseKind::Clone(of) => ("clone", of.as_ref()),
        BaseKind::Mirror(of) => ("mirror", Some(of)),
    };
    json!({
        "name": base.name,
        "kind": kind,
        "of": of,
        "snapshots": base.snapshots,
        "refers_bytes": base.refers,
        "time": base.time.as_text(),
        "needs": base.needs,
        "settled_blocks": base.settling.map(|settling| settling.0),
        "blocks_to_settle": base.settling.map(|settling| settling.1),
        "split": base.is_split,
    })
}

pub(super) fn session(target: &Target, verb: SessionVerb) -> Result<bool> {
    let verb = match verb {
        SessionVerb::Register { name, base, group, offline } => Session::Register {
            name: bytes(name),
            bases: base.into_iter().map(bytes).collect(),
            group: group.map(bytes),
            offline,
        },
        SessionVerb::Relate { name } => Session::Relate { name: bytes(name) },
        SessionVerb::Activate { name } => Session::Activate { name: bytes(name) },
        SessionVerb::Deactivate { name } => Session::Deactivate { name: bytes(name) },
        SessionVerb::Online { name } => Session::Show { name: bytes(name), shown: true },
        SessionVerb::Offline { name } => Session::Show { name: bytes(name), shown: false },
        SessionVerb::List { json } => return list_sessions(target, json),
    };
    quietly(target, Verb::Session(verb)).map(|_| true)
}

fn list_sessions(target: &Target, as_json: bool) -> Result<bool> {
    let Answer::Sessions(sessions) = quietly(target, Verb::Session(Session::List))? else { return Err(unexpected()) };
    let Answer::Snapshots(snapshots) = quietly(target, Verb::List)? else { return Err(unexpected()) };
    if as_json {
        let mut all: Vec<_> = snapshots.iter().map(snapshot_json).collect();
        all.extend(sessions.iter().map(|session| {
            json!({
                "name": session.name,
                "bases": session.bases,
                "state": if session.record.is_related { "related" } else { "registered" },
                "offline": session.record.offline,
                "time": session.record.time.as_text(),
            })
        }));
        return print_json(&all).map(|()| true);
    }
    let mut rows: Vec<Vec<String>> = snapshots
        .iter()
        .filter(|snapshot| !snapshot.archived)
        .map(|snapshot| {
            let shown = if snapshot.offline { "offline" } else { "" };
            vec![
                snapshot.name.clone(),
                state_of(snapshot),
                snapshot.base.clone(),
                shown.into(),
                snapshot.time.as_text(),
            ]
        })
        .collect();
    rows.extend(sessions.iter().map(|session| {
        let state = if session.record.is_related { "related" } else { "registered" };
        let shown = if session.record.offline { "offline" } else { "" };
        vec![session.name.clone(), state.into(), session.bases.join(","), shown.into(), session.record.time.as_text()]
    }));
    print(&table(&headed(["snapshot", "state", "base", "", "taken"], rows.into_iter()))).map(|()| true)
}

/// `active`, `deactivated`, `ended` or `archived`.
pub(super) fn state_of(snapshot: &SnapshotInfo) -> String {
    use crate::device::SnapshotState as State;
    match snapshot.state {
        _ if snapshot.archived => "archived".into(),
        State::Active => "active".into(),
        State::Deactivated => "deactivated".into(),
        State::Ended(_) => "ended".into(),
    }
}

pub(super) fn group(target: &Target, verb: GroupVerb) -> Result<bool> {
    let (verb, json, is_list) = match verb {
        GroupVerb::Create { name, bases } => {
            let bases = bases.into_iter().map(bytes).collect();
            (Group::Create { name: bytes(name), bases }, false, false)
        }
        GroupVerb::List { json } => (Group::List, json, true),
        GroupVerb::Delete { name } => (Group::Delete { name: bytes(name) }, false, false),
    };
    let Answer::Groups(groups) = quietly(target, Verb::Group(verb))? else { return Err(unexpected()) };
    if json {
        let all: Vec<_> = groups.iter().map(|(name, bases)| json!({ "name": name, "bases": bases })).collect();
        print_json(&all)?;
    } else if is_list {
        let rows = groups.into_iter().map(|(name, bases)| vec![name, bases.join(", ")]);
        print(&table(&headed(["group", "bases"], rows)))?;
    }
    Ok(true)
}

pub(super) fn clone(target: &Target, args: Clone) -> Result<bool> {
    let verb = match args.refresh {
        true => Verb::Refresh { name: bytes(args.first), snapshot: bytes(args.second) },
        false => {
            Verb::Clone { snapshot: bytes(args.first), name: bytes(args.second), full: args.full, copy: args.copy }
        }
    };
    quietly(target, verb).map(|_| true)
}

pub(super) fn promote(target: &Target, name: OsString) -> Result<bool> {
    quietly(target, Verb::Promote { name: bytes(name) }).map(|_| true)
}

pub(super) fn hold(target: &Target, names: Vec<OsString>, held: bool) -> Result<bool> {
    let names = names.into_iter().map(bytes).collect();
    quietly(target, Verb::Hold { names, held }).map(|_| true)
}

pub(super) fn mirror(target: &Target, verb: MirrorVerb) -> Result<bool> {
    let verb = match verb {
        MirrorVerb::Establish { base, name } => Mirror::Establish { base: bytes(base), name: bytes(name) },
        MirrorVerb::Sync { name } => Mirror::Sync { name: bytes(name) },
        MirrorVerb::Split { name } => Mirror::Split { name: bytes(name) },
        MirrorVerb::Resync { name, reverse } => Mirror::Resync { name: bytes(name), reverse },
        MirrorVerb::Restore { name } => Mirror::Resync { name: bytes(name), reverse: true },
    };
    with_display(target, Verb::Mirror(verb), "copying").map(|_| true)
}

pub(super) fn history(target: &Target, args: &History) -> Result<bool> {
    let Answer::History(entries) = quietly(target, Verb::History)? else { return Err(unexpected()) };
    if args.json {
        let all: Vec<_> = entries
            .iter()
            .map(|(entry, base)| json!({ "time": entry.time.as_text(), "uid": entry.uid, "base": base, "what": entry.what }))
            .collect();
        return print_json(&all).map(|()| true);
    }
    let rows = entries.into_iter().map(|(entry, base)| {
        let base = base.unwrap_or_else(|| "(deleted)".into());
        vec![entry.time.as_text(), user_name(entry.uid), base, entry.what]
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
    let verb = Verb::Versions { path: serde_bytes::ByteBuf::from(path) };
    let Answer::Versions(versions) = quietly(target, verb)? else { return Err(unexpected()) };
    if args.json {
        let all: Vec<_> = versions
            .iter()
            .map(|version| {
                json!({
                    "snapshot": version.snapshot,
                    "taken": version.taken.map(|time| time.as_text()),
                    "modified": version.modified.as_text(),
                    "size": version.size,
                    "inode": version.inode,
                })
            })
            .collect();
        return print_json(&all).map(|()| true);
    }
    let rows = versions.iter().map(|version| {
        let shown = version.snapshot.clone().unwrap_or_else(|| "live".into());
        vec![shown, version.modified.as_text(), size(version.size)]
    });
    print(&table(&headed(["snapshot", "modified", "size"], rows))).map(|()| true)
}

pub(super) fn tracks(target: &Target, args: super::args::Diff) -> Result<bool> {
    let path_given = args.path.map(bytes);
    let verb = Verb::Tracks { before: bytes(args.before), after: args.after.map(bytes), path: path_given };
    let Answer::Tracks { track_bytes, files } = quietly(target, verb)? else { return Err(unexpected()) };
    if args.json {
        let all: Vec<_> = files
            .iter()
            .map(|file| {
                let ranges: Vec<_> =
                    file.tracks.iter().map(|(from, to)| std::ops::Range { start: *from, end: *to }).collect();
                let count = ranges.last().map_or(0, |range| range.end);
                let bits = crate::tree::bitmap(&ranges, count);
                json!({
                    "path": path(&file.path),
                    "inode": file.inode,
                    "size_before": file.size_before,
                    "size_after": file.size_after,
                    "tracks": file.tracks,
                    "bitmap": bits.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
                })
            })
            .collect();
        return print_json(&json!({ "track_bytes": track_bytes, "files": all })).map(|()| true);
    }
    let mut text = String::new();
    for file in &files {
        for (from, to) in &file.tracks {
            text.push_str(&format!("{} {} {}\n", from * track_bytes, (to - from) * track_bytes, path(&file.path)));
        }
    }
    print(&text).map(|()| true)
}

pub(super) fn roll(target: &Target, args: Roll) -> Result<bool> {
    let archive = args.archive.as_deref().map(absolute).transpose()?;
    let options = RollOptions { archive, keep: args.keep, name: args.name.map(bytes) };
    let Answer::Roll(report) = with_display(target, Verb::Roll(options), "rolling")? else { return Err(unexpected()) };
    if args.json {
        print_json(&report)?;
        return Ok(report.problems.is_empty());
    }
    for problem in &report.problems {
        eprintln!("pitfs: {problem}");
    }
    print(&format!(
        "{}: {} saved ({}), {} freed\n",
        report.snapshot,
        count(report.saved, "increment"),
        size(report.saved_bytes),
        count(report.freed, "snapshot")
    ))?;
    Ok(report.problems.is_empty())
}

pub(super) fn archive(target: &Target, verb: ArchiveVerb) -> Result<bool> {
    let (verb, json, shows) = match verb {
        ArchiveVerb::Attach { directory } => (Archive::Attach { directory: absolute(&directory)? }, false, false),
        ArchiveVerb::Detach { directory } => {
            (Archive::Detach { directory: directory.as_deref().map(absolute).transpose()? }, false, false)
        }
        ArchiveVerb::List { directory, json } => {
            (Archive::List { directory: directory.as_deref().map(absolute).transpose()? }, json, true)
        }
        ArchiveVerb::Verify { directory, json } => {
            (Archive::Verify { directory: directory.as_deref().map(absolute).transpose()? }, json, false)
        }
    };
    let is_verify = matches!(verb, Archive::Verify { .. });
    let archives = match with_display(target, Verb::Archive(verb), "reading")? {
        Answer::Archives(archives) => archives,
        Answer::Detached(detached) => return print(&detached_text(&detached)).map(|()| true),
        _ => return Err(unexpected()),
    };
    if json {
        print_json(&archives.iter().map(archive_json).collect::<Vec<_>>())?;
    }
    for archive in &archives {
        if shows && !json {
            print(&table(&increment_rows(archive)))?;
        }
        if is_verify && !json {
            let verdict = match archive.problems.len() {
                0 => "no problems".to_string(),
                problems => count(problems as u64, "problem"),
            };
            let increments = count(archive.whole, "increment");
            print(&format!("{increments}, {} read: {verdict}\n", size(archive.whole_bytes)))?;
        }
        for problem in &archive.problems {
            eprintln!("pitfs: {problem}");
        }
    }
    Ok(archives.iter().all(|archive| archive.problems.is_empty()))
}

fn detached_text(detached: &Detached) -> String {
    let directory = detached.directory.display();
    match &detached.leads_to {
        Some(name) => format!(
            "{directory}: detached; it leads to the snapshot {name:?}, which has to stay in the store for the archive to be attached again\n"
        ),
        None => format!("{directory}: detached; it has no increments\n"),
    }
}

fn archive_json(archive: &ArchiveInfo) -> serde_json::Value {
    let increments: Vec<_> = archive
        .increments
        .iter()
        .map(|increment| {
            json!({
                "name": increment.name,
                "epoch": increment.epoch,
                "time": increment.time.as_text(),
                "seconds": increment.time.seconds,
                "nanoseconds": increment.time.nanos,
                "bytes": increment.bytes,
                "file": increment.file,
                "reachable": increment.is_reachable,
            })
        })
        .collect();
    json!({
        "directory": archive.directory,
        "base": archive.base,
        "bytes": archive.bytes,
        "increments": increments,
        "problems": archive.problems,
    })
}

fn increment_rows(archive: &ArchiveInfo) -> Vec<Vec<String>> {
    let row = |increment: &crate::daemon::IncrementInfo| {
        let reach = if increment.is_reachable { "" } else { "cannot be reached" };
        vec![increment.name.clone(), increment.time.as_text(), size(increment.bytes), reach.to_string()]
    };
    headed(["time", "taken", "size", ""], archive.increments.iter().map(row))
}

pub(super) fn policy(target: &Target, args: &Policy) -> Result<bool> {
    let drop_oldest = args.when_full.map(|what| what == WhenFull::DropOldest);
    let Answer::Policy { drop_oldest } = quietly(target, Verb::Policy { drop_oldest })? else {
        return Err(unexpected());
    };
    if args.json {
        print_json(&json!({ "when_full": if drop_oldest { "drop-oldest" } else { "refuse" } }))?;
    } else if args.when_full.is_none() {
        print(&format!("when-full {}\n", if drop_oldest { "drop-oldest" } else { "refuse" }))?;
    }
    Ok(true)
}

/// The path below live that a path given by the user means: below the mount, or as it is.
pub(super) fn path_in_live(target: &Target, given: &std::path::Path) -> Result<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    let Answer::Mount { mount_point } = quietly(target, Verb::Mount)? else { return Err(unexpected()) };
    let Some(mount_point) = mount_point else { return Ok(given.as_os_str().as_bytes().to_vec()) };
    // The file itself may be gone; the directory it was in tells where we are.
    let absolute = std::path::absolute(given).map_err(|error| Error::media("looking at the path", error))?;
    let here = match (absolute.parent().and_then(|parent| parent.canonicalize().ok()), absolute.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => absolute,
    };
    let is_relative_name = !given.is_absolute() && !here.starts_with(&mount_point);
    let Ok(below) = here.strip_prefix(&mount_point) else {
        return match is_relative_name {
            true => Ok(given.as_os_str().as_bytes().to_vec()),
            false => Err(Error::Refused(
                crate::error::Errno::INVAL,
                format!("{} is not below {}", given.display(), mount_point.display()),
            )),
        };
    };
    // The view's name goes; in a mount of several bases the base's before it as well.
    let mut names = below.components();
    for _ in 0..crate::control::view_depth(&mount_point) {
        names.next();
    }
    Ok(names.as_path().as_os_str().as_bytes().to_vec())
}
