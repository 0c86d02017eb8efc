//! Bases, sessions, groups, clones, mirrors, archives: ask for it to be done, and show the result.

use super::args::{
    ArchiveVerb, BaseVerb, Clone, GroupVerb, History, Hold, MirrorVerb, Policy, Roll, SessionVerb, Versions, WhenFull,
};
use super::delete::{self, Told};
use super::json::{self, state_of};
use super::output::{Display, count, file, path, print, print_json, size, table, tell, tell_all, write};
use super::{absolute, bytes, headed, name_of, plan, say_done, unexpected};
use crate::clock::{Timestamp, parse_when};
use crate::control::{
    Answer, Archive, Base, ByteRange, CloneRequest, Group, ListInfo, Mirror, Session, Target, Verb, ask,
};
use crate::daemon::{ArchiveInfo, Detached, MergeOptions, PruneOptions, RollOptions, RollReport, Shortened, resolved};
use crate::error::{Errno, Error, Result};
use crate::shown::{shown, shown_file};
use crate::view::{BaseInfo, BaseKind};
use serde_bytes::ByteBuf;
use serde_json::json;
use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

fn quietly(target: &Target, verb: Verb) -> Result<Answer> {
    ask(target, verb, &mut |_| Ok(()))
}

fn with_display(target: &Target, verb: Verb, what: &'static str) -> Result<Answer> {
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
        && let Answer::Mount { mount_point: Some(mount_point) } = quietly(target, Verb::Mount)?
        && crate::control::view_depth(&mount_point) == 1
    {
        let shown = shown_file(&mount_point);
        tell(format_args!("{shown} shows one base; the new one is shown when the store is mounted again"));
    }
    if json {
        print_json(&json::all(&bases, json::base))?;
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
        let is_meant = |base: &BaseInfo| bases.iter().any(|known| known.unique_id == base.unique_id);
        bases = now.into_iter().filter(is_meant).collect();
    }
    say_done(as_json, json::answer(&Answer::Bases(bases)))
}

/// What a base is, and of what.
pub(super) fn kind_of(base: &BaseInfo) -> String {
    match &base.kind {
        BaseKind::Base => "base".to_string(),
        BaseKind::Clone(None) if base.copying.is_some() => "clone".to_string(),
        BaseKind::Clone(None) => "clone, independent".to_string(),
        BaseKind::Clone(Some(of)) if base.needs.is_none() && base.copying.is_none() => {
            format!("clone of {of}, independent")
        }
        BaseKind::Clone(Some(of)) => format!("clone of {of}"),
        BaseKind::Mirror(of) if base.is_split => format!("mirror of {of}, split"),
        BaseKind::Mirror(of) => format!("mirror of {of}"),
    }
}

pub(super) fn base_rows(bases: &[BaseInfo]) -> Vec<Vec<String>> {
    let mut rows = vec![["base", "kind", "snapshots", "refers to", "made"].map(str::to_string).to_vec()];
    rows.extend(bases.iter().map(|base| {
        let kind = kind_of(base);
        let kind = match base.settling {
            Some((done, total)) if total > 0 => format!("{kind}, {} % settled", done * 100 / total),
            Some(_) => format!("{kind}, being settled"),
            None => kind,
        };
        let kind = match base.copying {
            Some(copying) if copying.is_stopped => {
                let (done, total) = (size(copying.done), size(copying.total));
                format!("{kind}, incomplete: no room, {done} of {total} copied")
            }
            Some(copying) => format!("{kind}, {} % copied", copying.percent()),
            None => kind,
        };
        let kind = match (base.is_filling, base.is_offline) {
            (true, _) => format!("{kind}, being filled"),
            (false, true) => format!("{kind}, offline"),
            (false, false) => kind,
        };
        let kind = if base.reserve > 0 { format!("{kind}, reserved") } else { kind };
        vec![base.name.clone(), kind, base.snapshots.to_string(), size(base.refers), base.time.as_text()]
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
    let answer = quietly(target, Verb::Session(verb))?;
    say_done(as_json, json::answer(&answer))
}

/// Bases, perhaps with a name behind a colon; wrong usage where one is given twice.
fn distinct(given: Vec<OsString>) -> Result<Vec<ByteBuf>> {
    let given: Vec<ByteBuf> = given.into_iter().map(bytes).collect();
    let mut known = HashSet::new();
    for one in &given {
        let base = one.split(|byte| *byte == b':').next().unwrap_or_default();
        if !known.insert(base) {
            return Err(Error::Usage(format!("the base {:?} is given twice", path(base))));
        }
    }
    Ok(given)
}

fn list_sessions(target: &Target, as_json: bool) -> Result<bool> {
    let Answer::Sessions(sessions) = quietly(target, Verb::Session(Session::List))? else { return Err(unexpected()) };
    let Answer::List(ListInfo { snapshots, .. }) = quietly(target, Verb::List { all: false })? else {
        return Err(unexpected());
    };
    if as_json {
        let all = snapshots.iter().map(json::snapshot).chain(sessions.iter().map(json::session));
        return print_json(&all.collect::<Vec<_>>()).map(|()| true);
    }
    let mut rows: Vec<Vec<String>> = snapshots
        .iter()
        .map(|snapshot| {
            let shown = if snapshot.offline { "offline" } else { "" };
            vec![
                snapshot.name.clone(),
                state_of(snapshot).into(),
                snapshot.base.clone(),
                shown.into(),
                snapshot.time.as_text(),
            ]
        })
        .collect();
    rows.extend(sessions.iter().map(|session| {
        let shown = if session.record.offline { "offline" } else { "" };
        vec![
            session.name.clone(),
            session.state().into(),
            session.bases.join(","),
            shown.into(),
            session.record.time.as_text(),
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
        print_json(&json::all(&groups, json::group))?;
    } else if is_list {
        let rows = groups.into_iter().map(|(name, bases)| vec![name, bases.join(", ")]);
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
    let answer = quietly(target, Verb::Hold { names, tag, held })?;
    say_done(as_json, json::answer(&answer))
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
        return print_json(&json::all(&entries, json::history)).map(|()| true);
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
    let verb = Verb::Versions { path: ByteBuf::from(path) };
    let Answer::Versions(versions) = quietly(target, verb)? else { return Err(unexpected()) };
    if args.json {
        return print_json(&json::all(&versions, json::version)).map(|()| true);
    }
    let rows = versions.iter().map(|version| {
        let shown = version.snapshot.clone().unwrap_or_else(|| "live".into());
        vec![shown, version.modified.as_text(), size(version.size)]
    });
    print(&table(&headed(["snapshot", "modified", "size"], rows))).map(|()| true)
}

pub(super) fn tracks(target: &Target, args: super::args::Diff) -> Result<bool> {
    let path = args.path.or(args.only).map(bytes);
    let verb = Verb::Tracks { before: bytes(args.before), after: args.after.map(bytes), path, range: args.range };
    print_tracks(quietly(target, verb)?, args.json)
}

fn print_tracks(answer: Answer, as_json: bool) -> Result<bool> {
    let Answer::Tracks { track_bytes, files } = answer else { return Err(unexpected()) };
    if as_json {
        let files = json::all(&files, json::tracks);
        return print_json(&json!({ "track_bytes": track_bytes, "files": files })).map(|()| true);
    }
    let mut text = String::new();
    for file in &files {
        for (from, to) in &file.tracks {
            text.push_str(&format!("{} {} {}\n", from * track_bytes, (to - from) * track_bytes, path(&file.path)));
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
    let shown =
        path.as_ref().map_or_else(|| format!("inode {}", inode.unwrap_or_default()), |path| format!("{path:?}"));
    let verb = Session::Tracks { name: name.clone(), path: path.map(bytes), range: None };
    let Answer::Tracks { track_bytes, files } = quietly(target, Verb::Session(verb))? else { return Err(unexpected()) };
    let mut files = files.into_iter().filter(|file| inode.is_none_or(|inode| file.inode == inode));
    let (Some(file), None) = (files.next(), files.next()) else {
        let name = crate::shown::shown(&name);
        let text = format!(
            "the increment of {name:?} has no tracks of {shown}, or of several files there; `pitfs session tracks {name}` shows what it has"
        );
        return Err(Error::Refused(Errno::NOENT, text));
    };
    let whole = file.tracks.iter().map(|(from, to)| (from * track_bytes, to * track_bytes)).collect();
    for (mut from, to) in range.map_or(whole, |range| vec![range]) {
        loop {
            let verb = Session::Read { name: name.clone(), inode: file.inode, range: (from, to) };
            let Answer::Bytes(bytes) = quietly(target, Verb::Session(verb))? else { return Err(unexpected()) };
            if as_json {
                saved.extend_from_slice(&bytes);
            } else {
                write(&bytes)?;
            }
            from += bytes.len() as u64;
            if bytes.is_empty() || from >= file.size_before.map_or(to, |size| to.min(size)) {
                break;
            }
        }
    }
    say_done(as_json, json::saved_bytes(&file, &saved))
}

pub(super) fn roll(target: &Target, args: Roll) -> Result<bool> {
    let archive = args.archive.as_deref().map(absolute).transpose()?;
    let options = RollOptions { archive, keep: args.keep, name: args.name.map(bytes) };
    if args.dry_run {
        let verb = match args.group.map(bytes) {
            Some(group) => Verb::RollGroup { group, options },
            None => Verb::Roll(options),
        };
        return plan::show(target, verb, args.json);
    }
    let Some(group) = args.group else {
        let Answer::Roll(report) = with_display(target, Verb::Roll(options), "rolling")? else {
            return Err(unexpected());
        };
        if args.json {
            print_json(&json::rolled(&report))?;
        } else {
            print_roll("", &report)?;
        }
        return Ok(report.problems.is_empty());
    };
    let verb = Verb::RollGroup { group: bytes(group), options };
    let Answer::RollGroup(reports) = with_display(target, verb, "rolling")? else { return Err(unexpected()) };
    if args.json {
        print_json(&json::all(&reports, |(base, report)| json!({ "base": base, "roll": json::rolled(report) })))?;
    } else {
        reports.iter().try_for_each(|(base, report)| print_roll(&format!("{base}:"), report))?;
    }
    Ok(reports.iter().all(|(_, report)| report.problems.is_empty()))
}

fn print_roll(base: &str, report: &RollReport) -> Result<()> {
    tell_all(&report.problems);
    print(&format!(
        "{base}{}: {} saved ({}), {} freed\n",
        report.snapshot,
        count(report.saved, "increment"),
        size(report.saved_bytes),
        count(report.freed, "snapshot")
    ))
}

pub(super) fn archive(target: &Target, verb: ArchiveVerb, as_json: bool) -> Result<bool> {
    let (verb, json, shows) = match verb {
        ArchiveVerb::Attach { directory } => (Archive::Attach { directory: absolute(&directory)? }, as_json, false),
        ArchiveVerb::Detach { directory } => {
            (Archive::Detach { directory: directory.as_deref().map(absolute).transpose()? }, as_json, false)
        }
        ArchiveVerb::List { directory, json } => {
            (Archive::List { directory: directory.as_deref().map(absolute).transpose()? }, json, true)
        }
        ArchiveVerb::Verify { directory, json } => {
            (Archive::Verify { directory: directory.as_deref().map(absolute).transpose()? }, json, false)
        }
        ArchiveVerb::Join { directory } => (Archive::Join { directory: absolute(&directory)? }, as_json, false),
        ArchiveVerb::Prune { keep, before, dry_run, json } => {
            let before = before.as_deref().map(when).transpose()?;
            (Archive::Prune(PruneOptions { keep, before, is_dry_run: dry_run }), json, false)
        }
        ArchiveVerb::Merge { per, before, dry_run, json } => {
            let before = before.as_deref().map(when).transpose()?;
            (Archive::Merge(MergeOptions { per: per.into(), before, is_dry_run: dry_run }), json, false)
        }
    };
    let is_verify = matches!(verb, Archive::Verify { .. });
    let archives = match with_display(target, Verb::Archive(verb), "reading")? {
        Answer::Archives(archives) => archives,
        Answer::Detached(detached) if as_json => return print_json(&json::detached(&detached)).map(|()| true),
        Answer::Detached(detached) => return print(&detached_text(&detached)).map(|()| true),
        Answer::Shortened(shortened) => return show_shortened(&shortened, json),
        _ => return Err(unexpected()),
    };
    if json {
        print_json(&json::all(&archives, json::archive))?;
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
        if (is_verify || shows) && !json {
            print(&leftovers_text(archive))?;
        }
        tell_all(archive.problems.iter().filter(|_| !json));
    }
    Ok(archives.iter().all(|archive| archive.problems.is_empty()))
}

/// What interrupted merges have left, if they have.
fn leftovers_text(archive: &ArchiveInfo) -> String {
    let left: Vec<_> = archive.increments.iter().filter(|increment| increment.merged_into.is_some()).collect();
    if left.is_empty() {
        return String::new();
    }
    let (number, bytes) = (count(left.len() as u64, "increment"), size(left.iter().map(|one| one.bytes).sum()));
    format!("{number}, {bytes}, left over of a merge: the next roll, `archive prune` or `archive merge` removes them\n")
}

fn when(text: &str) -> Result<Timestamp> {
    parse_when(text, Timestamp::now())
}

fn show_shortened(shortened: &Shortened, json: bool) -> Result<bool> {
    if json {
        print_json(&json::shortened(shortened))?;
    } else {
        print(&shortened_text(shortened))?;
        tell_all(&shortened.problems);
    }
    Ok(shortened.problems.is_empty())
}

fn shortened_text(shortened: &Shortened) -> String {
    let Shortened { times, bytes, standing_save, is_dry_run, .. } = shortened;
    let rows = times.iter().map(|(name, time)| vec![name.clone(), time.as_text()]);
    let mut text = table(&rows.collect::<Vec<_>>());
    let goes = if *is_dry_run { "would go" } else { "went" };
    // What a merge saves is not known before.
    let less = if *is_dry_run && *bytes == 0 { String::new() } else { format!(", {} less", size(*bytes)) };
    text.push_str(&format!("{} {goes} from the archive{less}\n", count(times.len() as u64, "time")));
    if let Some(save) = standing_save {
        text.push_str(&format!("{save:?} stays: it is the newest save\n"));
    }
    text
}

fn detached_text(detached: &Detached) -> String {
    let directory = shown_file(&detached.directory);
    let mut text = match &detached.leads_to {
        Some(name) => format!(
            "{directory}: detached; it leads to the snapshot {name:?}, which has to stay in the store for the archive to be attached again\n"
        ),
        None => format!("{directory}: detached; it has no increments\n"),
    };
    detached.notes.iter().for_each(|note| text.push_str(&format!("{note}\n")));
    text
}

fn increment_rows(archive: &ArchiveInfo) -> Vec<Vec<String>> {
    let row = |increment: &crate::daemon::IncrementInfo| {
        let reach = match &increment.merged_into {
            Some(_) => "left over of a merge",
            None if increment.is_damaged => "damaged",
            None if increment.is_reachable => "",
            None => "cannot be reached",
        };
        vec![increment.name.clone(), increment.time.as_text(), size(increment.bytes), reach.to_string()]
    };
    headed(["time", "taken", "size", ""], archive.increments.iter().map(row))
}

pub(super) fn policy(target: &Target, args: &Policy) -> Result<bool> {
    let drop_oldest = args.when_full.map(|what| what == WhenFull::DropOldest);
    let verb = Verb::Policy { drop_oldest, before_restores: args.before_restore };
    let Answer::Policy { drop_oldest, before_restores, deleted } = quietly(target, verb)? else {
        return Err(unexpected());
    };
    let when_full = if drop_oldest { "drop-oldest" } else { "refuse" };
    if args.json {
        let deleted = json::snapshots(&deleted);
        print_json(&json!({ "when_full": when_full, "before_restore": before_restores, "deleted": deleted }))?;
    } else if !deleted.is_empty() {
        print(&format!("{} deleted\n", count(deleted.len() as u64, "snapshot")))?;
    } else if args.when_full.is_none() && args.before_restore.is_none() {
        let kept = before_restores.map_or("all".into(), |kept| kept.to_string());
        print(&format!("when-full {when_full}\nbefore-restore {kept}\n"))?;
    }
    Ok(true)
}

/// The path below live that a path given by the user means: below the mount, or as it is.
pub(super) fn path_in_live(target: &Target, given: &Path) -> Result<Vec<u8>> {
    let Answer::Mount { mount_point } = quietly(target, Verb::Mount)? else { return Err(unexpected()) };
    match below_mount(target, mount_point.as_deref(), given)? {
        Some((_, path)) => Ok(path),
        None => relative(mount_point.as_deref(), given),
    }
}

/// The same of what is to be written to, which is in live and in no other view.
pub(super) fn destination(target: &Target, given: &Path) -> Result<Vec<u8>> {
    if given.as_os_str().is_empty() {
        let text = "an empty path names no directory; without a destination all of live is meant";
        return Err(Error::Refused(Errno::INVAL, text.into()));
    }
    let Answer::Mount { mount_point } = quietly(target, Verb::Mount)? else { return Err(unexpected()) };
    match below_mount(target, mount_point.as_deref(), given)? {
        Some((view, _)) if view.file_name() != Some(crate::view::LIVE_NAME.as_ref()) => {
            Err(Error::Refused(Errno::INVAL, format!("{} is not in live", file(given))))
        }
        Some((_, path)) => Ok(path),
        None => relative(mount_point.as_deref(), given),
    }
}

/// A path as it was given, from the root of a view.
fn relative(mount_point: Option<&Path>, given: &Path) -> Result<Vec<u8>> {
    if !given.is_absolute() {
        return Ok(given.as_os_str().as_bytes().to_vec());
    }
    let given = file(given);
    let text = match mount_point {
        Some(mount_point) => format!("{given} is not below {}", file(mount_point)),
        None => format!("{given} lies in no mount of the store; paths are relative to the root of live"),
    };
    Err(Error::Refused(Errno::INVAL, text))
}

/// The paths of what is to be restored; one that means a whole view is `/`.
pub(super) fn paths_in_view(target: &Target, given: Vec<OsString>) -> Result<Vec<ByteBuf>> {
    if given.is_empty() {
        return Ok(Vec::new());
    }
    let Answer::Mount { mount_point } = quietly(target, Verb::Mount)? else { return Err(unexpected()) };
    let paths = given.into_iter().map(|path| match path.is_empty() {
        true => Ok(ByteBuf::new()),
        false => match path_in_view(target, mount_point.as_deref(), Path::new(&path))? {
            whole if whole.is_empty() => Ok(ByteBuf::from("/")),
            path => Ok(ByteBuf::from(path)),
        },
    });
    paths.collect()
}

fn path_in_view(target: &Target, mount_point: Option<&Path>, given: &Path) -> Result<Vec<u8>> {
    let below = below_mount(target, mount_point, given)?;
    Ok(below.map_or_else(|| given.as_os_str().as_bytes().to_vec(), |(_, path)| path))
}

/// The view that a path lies in, and the path from its root; `None` if it is not one below the mount.
fn below_mount(target: &Target, mount_point: Option<&Path>, given: &Path) -> Result<Option<(PathBuf, Vec<u8>)>> {
    let Some(mount_point) = mount_point else { return Ok(None) };
    let looking = |error| Error::media("looking at the path", error);
    let absolute = std::path::absolute(given).map_err(looking)?;
    let here = match (entered(mount_point, &absolute), absolute.parent(), absolute.file_name()) {
        (Some(here), _, _) => here,
        // What it leads to may be gone, or a link: the directory it is in tells where we are.
        (None, Some(parent), Some(name)) => resolved(parent).map_err(looking)?.join(name),
        (None, _, _) => absolute,
    };
    let Ok(below) = here.strip_prefix(mount_point) else { return Ok(None) };
    // The view's name goes; in a mount of several bases the base's before it as well.
    let mut names = below.components();
    let mut view = mount_point.to_path_buf();
    for _ in 0..crate::control::view_depth(mount_point) {
        if let Some(name) = names.next() {
            view.push(name);
        }
    }
    if !given.is_absolute() && !is_there(&view) {
        return Ok(None);
    }
    check_base(target, mount_point, &view)?;
    Ok(Some((view, names.as_path().as_os_str().as_bytes().to_vec())))
}

/// A path that leads into a mount, from there on as it is written: links in the tree are whoever's who may write there, and
/// are not followed.
fn entered(mount_point: &Path, absolute: &Path) -> Option<PathBuf> {
    let names: Vec<Component<'_>> = absolute.components().collect();
    let (mut here, rest) = (1..=names.len()).find_map(|count| {
        let front: PathBuf = names[..count].iter().collect();
        let here = front.canonicalize().ok().filter(|here| here.starts_with(mount_point))?;
        Some((here, &names[count..]))
    })?;
    for name in rest {
        match name {
            Component::ParentDir => drop(here.pop()),
            name => here.push(name),
        }
    }
    Some(here)
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Refuses a path in a view of another base than is meant.
fn check_base(target: &Target, mount_point: &Path, view: &Path) -> Result<()> {
    use crate::control::base_shown;
    let wanted = target.base.clone().or_else(|| base_shown(mount_point));
    match (base_shown(view), wanted) {
        (Some(found), Some(wanted)) if found != wanted => {
            let (found, shown) = (shown(&found), shown_file(view));
            let text = format!("{shown} shows the base {found:?}; -s STORE:{found} says that it is meant");
            Err(Error::Refused(Errno::INVAL, text))
        }
        _ => Ok(()),
    }
}
