//! Each verb: ask for it to be done, and show the result.

mod points;

use super::args::{Args, Verb as Args_};
use super::output::{Display, count, path, print, print_json, size, table};
use super::{args, output};
use super::{command, mounting};
use crate::control::{Answer, Snap, SnapshotInfo, StatusInfo, Target, Verb, ask, locate_store};
use crate::daemon::{CheckReport, Daemon, Owner, RestoreOptions, SyncOptions, SyncReport, is_store};
use crate::error::{Errno, Error, Result};
use crate::tree::{CreateOptions, Difference, DifferenceKind};
use serde_bytes::ByteBuf;
use serde_json::json;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Runs a command; false when it was done and found something wrong.
pub fn run(args: Args) -> Result<bool> {
    let store = args.store;
    let target = || find_store(store.clone());
    match args.verb {
        Args_::Create(args) => create(&args),
        Args_::Mount(args) => mounting::mount(store, &args),
        Args_::Umount(args) => mounting::umount(store, &args),
        Args_::Snap(args) => snap(&target()?, args),
        Args_::List(args) => list(&target()?, &args),
        Args_::Delete(args) => delete(&target()?, args),
        Args_::Rename(args) => {
            let verb = Verb::Rename { old: bytes(args.old), new: bytes(args.new) };
            ask(&target()?, verb, &mut |_| Ok(())).map(|_| true)
        }
        Args_::Hold(args) => points::hold(&target()?, args.names, true),
        Args_::Release(args) => points::hold(&target()?, args.names, false),
        Args_::Restore(args) => restore(&target()?, args),
        Args_::Save(args) => {
            let snap = Snap { name: args.name.map(bytes), save: true, ..Snap::default() };
            take(&target()?, snap, args.json)
        }
        Args_::History(args) => points::history(&target()?, &args),
        Args_::Diff(args) if args.tracks => points::tracks(&target()?, args),
        Args_::Diff(args) => diff(&target()?, args),
        Args_::Versions(args) => {
            let target = target()?;
            let path = points::path_in_live(&target, &args.path)?;
            points::versions(&target, path, &args)
        }
        Args_::Base(args) => points::base(&target()?, args.verb),
        Args_::Session(args) => points::session(&target()?, args.verb),
        Args_::Group(args) => points::group(&target()?, args.verb),
        Args_::Clone(args) => points::clone(&target()?, args),
        Args_::Promote(args) => points::promote(&target()?, args.name),
        Args_::Mirror(args) => points::mirror(&target()?, args.verb),
        Args_::Roll(args) => points::roll(&target()?, args),
        Args_::Archive(args) => points::archive(&target()?, args.verb),
        Args_::Policy(args) => points::policy(&target()?, &args),
        Args_::Status(args) => status(&target()?, &args),
        Args_::Check(args) => check(&target()?, &args),
        Args_::Sync(args) => sync(&target()?, args),
        Args_::Completions(args) => {
            let mut text = Vec::new();
            clap_complete::generate(args.shell, &mut command(), "pitfs", &mut text);
            print(&String::from_utf8_lossy(&text)).map(|()| true)
        }
    }
}

fn bytes(text: OsString) -> ByteBuf {
    ByteBuf::from(text.into_vec())
}

/// The store that is meant: given, or the mount that we stand in.
fn find_store(given: Option<PathBuf>) -> Result<Target> {
    if let Some(given) = given {
        return locate_store(&given);
    }
    let here = std::env::current_dir().map_err(|error| Error::media("looking where we stand", error))?;
    let found = locate_store(&here)?;
    if found.store == here.canonicalize().unwrap_or(here) && !is_store(&found.store) {
        return Err(Error::Refused(
            Errno::INVAL,
            "which store? Give it with -s STORE or in PITFS_STORE, or stand inside its mount".into(),
        ));
    }
    Ok(found)
}

fn unexpected() -> Error {
    Error::Refused(Errno::PROTO, "the daemon gave an answer to another question".into())
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Error::media(format!("looking at {}", path.display()), error))
}

fn create(args: &args::Create) -> Result<bool> {
    let source = match &args.from {
        Some(source) => {
            let source = source
                .canonicalize()
                .map_err(|error| Error::media(format!("looking at {}", source.display()), error))?;
            if !source.is_dir() {
                return Err(Error::Refused(Errno::NOTDIR, format!("{} is not a directory", source.display())));
            }
            Some(source)
        }
        None => None,
    };
    let metadata = source
        .as_ref()
        .map(std::fs::metadata)
        .transpose()
        .map_err(|error| Error::media("looking at the source", error))?;
    let ours = || (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let (uid, gid) = metadata.as_ref().map_or_else(ours, |metadata| Owner::of_this_process().of(metadata));
    let options = CreateOptions {
        track_bytes: args.track_size,
        codec: args.compress.into(),
        uid,
        gid,
        mode: metadata.as_ref().map_or(0o755, |metadata| metadata.mode() & 0o7777),
        hash_seed: random_seed()?,
    };
    let directory = absolute(&args.directory)?;
    Daemon::create(&directory, &options)?;
    let Some(source) = source else {
        if args.json {
            print_json(&json!({ "store": directory }))?;
        }
        return Ok(true);
    };
    let options = SyncOptions { source, exclude: args.exclude.clone(), is_new_store: true, ..SyncOptions::default() };
    run_sync(&Target { store: directory.clone(), base: None }, options, "importing", args.json).inspect_err(|_| {
        let shown = directory.display();
        eprintln!(
            "pitfs: the store {shown} was made and not all was brought in; `pitfs -s {shown} sync` goes on from here"
        );
    })
}

fn random_seed() -> Result<u64> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
        .map_err(|error| Error::media("reading /dev/urandom", error))?;
    Ok(u64::from_le_bytes(bytes))
}

fn snap(target: &Target, args: args::Snap) -> Result<bool> {
    let snap = Snap {
        name: args.name.map(bytes),
        group: args.group.map(bytes),
        offline: args.offline,
        hold: args.hold,
        reserve: args.reserve,
        save: false,
    };
    take(target, snap, args.json)
}

fn take(target: &Target, snap: Snap, as_json: bool) -> Result<bool> {
    let Answer::Snapshots(snapshots) = ask(target, Verb::Snap(snap), &mut |_| Ok(()))? else {
        return Err(unexpected());
    };
    if as_json && snapshots.len() == 1 {
        return print_json(&snapshot_json(&snapshots[0])).map(|()| true);
    }
    if as_json {
        return print_json(&snapshots.iter().map(snapshot_json).collect::<Vec<_>>()).map(|()| true);
    }
    // One moment has one name.
    match snapshots.first() {
        Some(snapshot) => print(&format!("{}\n", snapshot.name)).map(|()| true),
        None => Ok(true),
    }
}

fn snapshot_json(snapshot: &SnapshotInfo) -> serde_json::Value {
    json!({
        "name": snapshot.name,
        "base": snapshot.base,
        "epoch": snapshot.epoch,
        "time": snapshot.time.as_text(),
        "seconds": snapshot.time.seconds,
        "nanoseconds": snapshot.time.nanos,
        "state": points::state_of(snapshot),
        "purpose": snapshot.purpose,
        "held": snapshot.held,
        "offline": snapshot.offline,
        "archived": snapshot.archived,
        "refers_bytes": snapshot.refers,
        "unique_bytes": snapshot.unique,
        "reserved_bytes": snapshot.reserve,
    })
}

fn list(target: &Target, args: &args::List) -> Result<bool> {
    let Answer::Snapshots(snapshots) = ask(target, Verb::List, &mut |_| Ok(()))? else { return Err(unexpected()) };
    if args.json {
        print_json(&snapshots.iter().map(snapshot_json).collect::<Vec<_>>())?;
    } else {
        print(&table(&headed(["snapshot", "taken", "refers to", "frees", ""], snapshots.iter().map(snapshot_row))))?;
    }
    Ok(true)
}

/// Rows under headings; nothing where there are none.
fn headed<const N: usize>(headings: [&str; N], rows: impl Iterator<Item = Vec<String>>) -> Vec<Vec<String>> {
    let mut all = vec![headings.map(str::to_string).to_vec()];
    all.extend(rows);
    if all.len() == 1 { Vec::new() } else { all }
}

/// Name, time, what it refers to, what deleting it frees, and what is special about it.
fn snapshot_row(snapshot: &SnapshotInfo) -> Vec<String> {
    let state = points::state_of(snapshot);
    let mut notes: Vec<&str> = Vec::new();
    if state != "active" {
        notes.push(&state);
    }
    for (is_so, note) in [(snapshot.held, "held"), (snapshot.offline, "offline"), (snapshot.reserve > 0, "reserved")] {
        if is_so {
            notes.push(note);
        }
    }
    let sizes = match snapshot.archived {
        true => [String::new(), String::new()],
        false => [size(snapshot.refers), snapshot.unique.map_or(String::new(), size)],
    };
    let [refers, frees] = sizes;
    vec![snapshot.name.clone(), snapshot.time.as_text(), refers, frees, notes.join(",")]
}

fn delete(target: &Target, args: args::Delete) -> Result<bool> {
    let names: Vec<ByteBuf> = args.names.into_iter().map(bytes).collect();
    if !args.dry_run {
        // What goes is told where it was not named itself.
        let is_told = args.recursive || names.iter().any(|name| name.starts_with(b"@"));
        let verb = Verb::Delete { names, recursive: args.recursive };
        let answer = ask(target, verb, &mut |_| Ok(()))?;
        if let (true, Answer::Snapshots(deleted)) = (is_told, answer) {
            let lines = deleted.iter().map(|snapshot| format!("{}: deleted\n", snapshot.name));
            print(&lines.collect::<String>())?;
        }
        return Ok(true);
    }
    let Answer::Freed(freed) = ask(target, Verb::Freed { names }, &mut |_| Ok(()))? else { return Err(unexpected()) };
    if args.json {
        let paths: Vec<_> = freed.paths.iter().map(|(path, bytes)| json!({ "path": path, "bytes": bytes })).collect();
        let value = json!({ "bytes": freed.bytes, "needed_by": freed.needed_by, "paths": paths });
        return print_json(&value).map(|()| true);
    }
    print(&format!("{} would be freed\n", size(freed.bytes)))?;
    if !freed.needed_by.is_empty() {
        eprintln!("pitfs: {} would be deleted with it, by --recursive only", freed.needed_by.join(", "));
    }
    let rows: Vec<Vec<String>> =
        freed.paths.iter().map(|(name, bytes)| vec![path(name.as_bytes()), size(*bytes)]).collect();
    print(&table(&rows)).map(|()| true)
}

fn restore(target: &Target, args: args::Restore) -> Result<bool> {
    let mut paths = args.paths;
    let snapshot = match (args.last, &args.at) {
        (false, None) => args.snapshot.map(bytes),
        (is_last, at) => {
            // What stands where a snapshot would is a path then.
            paths.splice(0..0, args.snapshot);
            let at = at.as_ref().map(|at| ByteBuf::from(format!("@{at}")));
            if is_last { None } else { at }
        }
    };
    let paths: Vec<ByteBuf> = paths.into_iter().map(bytes).collect();
    if let (Some(name), Some(snapshot)) = (&args.to_base, &snapshot) {
        let verb = args::BaseVerb::Create { name: name.clone(), from: Some(os(snapshot)), json: args.json };
        return points::base(target, verb);
    }
    if let (Some(name), Some(snapshot)) = (&args.to_clone, &snapshot) {
        let clone = args::Clone { first: os(snapshot), second: name.clone(), full: false, copy: false, refresh: false };
        return points::clone(target, clone);
    }
    if let (Some(name), Some(snapshot)) = (&args.to_mirror, &snapshot) {
        let verb = crate::control::Mirror::RestoreTo { name: bytes(name.clone()), snapshot: snapshot.clone() };
        return ask(target, Verb::Mirror(verb), &mut |_| Ok(())).map(|_| true);
    }
    match args.to {
        Some(to) => {
            let snapshot = snapshot.ok_or_else(|| {
                Error::Refused(
                    Errno::INVAL,
                    "--last goes back in place; name the snapshot to copy it to a directory".into(),
                )
            })?;
            let options =
                RestoreOptions { snapshot: snapshot.into_vec(), paths, to: absolute(&to)?, overwrite: args.overwrite };
            copy_out(target, options, args.json)
        }
        None => in_place(target, snapshot, paths, args.json),
    }
}

fn os(name: &ByteBuf) -> OsString {
    OsString::from_vec(name.to_vec())
}

fn in_place(target: &Target, snapshot: Option<ByteBuf>, paths: Vec<ByteBuf>, as_json: bool) -> Result<bool> {
    let mut display = Display::new("restoring");
    let answer = ask(target, Verb::Restore { snapshot, paths }, &mut |progress| display.update(progress));
    display.finish();
    match answer? {
        Answer::Restored { before, to } => {
            if as_json {
                let value = json!({ "restored": snapshot_json(&to), "before": snapshot_json(&before) });
                return print_json(&value).map(|()| true);
            }
            print(&format!("{}: restored; what was there before is {}\n", to.name, before.name)).map(|()| true)
        }
        Answer::BroughtBack(report) => {
            if as_json {
                print_json(&report)?;
                return Ok(report.problems.is_empty());
            }
            print(&format!(
                "{}, {} restored, {} removed; what was there before is {}\n",
                count(report.files, "file"),
                size(report.bytes),
                report.removed,
                report.before
            ))?;
            warn(&report.problems);
            Ok(report.problems.is_empty())
        }
        _ => Err(unexpected()),
    }
}

fn copy_out(target: &Target, options: RestoreOptions, as_json: bool) -> Result<bool> {
    let mut display = Display::new("restoring");
    let answer = ask(target, Verb::CopyOut(options), &mut |progress| display.update(progress));
    display.finish();
    let Answer::CopyOut(report) = answer? else { return Err(unexpected()) };
    if as_json {
        print_json(&report)?;
    } else {
        print(&format!("{}, {} restored\n", count(report.files, "file"), size(report.bytes)))?;
        warn(&report.problems);
    }
    Ok(report.problems.is_empty())
}

fn warn(problems: &[String]) {
    for problem in problems.iter().take(PROBLEMS_SHOWN) {
        eprintln!("pitfs: {}", plain(problem));
    }
    if problems.len() > PROBLEMS_SHOWN {
        eprintln!("pitfs: and {} more; --json shows all", problems.len() - PROBLEMS_SHOWN);
    }
}

/// Text without what would confuse a terminal.
fn plain(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// Problems that are shown in text; JSON has them all.
const PROBLEMS_SHOWN: usize = 20;

fn diff(store: &Target, args: args::Diff) -> Result<bool> {
    let after = args.after.map_or_else(|| ByteBuf::from("live"), bytes);
    let verb = Verb::Diff { before: bytes(args.before), after };
    let Answer::Differences(differences) = ask(store, verb, &mut |_| Ok(()))? else { return Err(unexpected()) };
    if args.json {
        let all: Vec<_> = differences
            .iter()
            .map(|found| {
                json!({
                    "kind": found.kind,
                    "path": path(&found.path),
                    "from": found.from.as_deref().map(path),
                    "directory": found.is_directory,
                    "size_before": found.size_before,
                    "size_after": found.size_after,
                })
            })
            .collect();
        print_json(&all)?;
        return Ok(true);
    }
    let mut text = String::new();
    for found in &differences {
        text.push_str(&difference_line(found));
        text.push('\n');
    }
    print(&text).map(|()| true)
}

/// `+ path  12 B`, `- path`, `M path  12 B -> 15 B`, `A path` (attributes), `R old -> new`.
fn difference_line(found: &Difference) -> String {
    let mut name = path(&found.path);
    if found.is_directory {
        name.push('/');
    }
    let sized = |bytes: Option<u64>| bytes.map_or(String::new(), |bytes| format!("  {}", size(bytes)));
    match found.kind {
        DifferenceKind::Added => format!("+ {name}{}", sized(found.size_after)),
        DifferenceKind::Removed => format!("- {name}{}", sized(found.size_before)),
        DifferenceKind::Changed => match (found.size_before, found.size_after) {
            (Some(before), Some(after)) if before != after => format!("M {name}  {} -> {}", size(before), size(after)),
            (_, after) => format!("M {name}{}", sized(after)),
        },
        DifferenceKind::Attributes => format!("A {name}"),
        DifferenceKind::Renamed => format!("R {} -> {name}", found.from.as_deref().map(path).unwrap_or_default()),
    }
}

fn status(store: &Target, args: &args::Status) -> Result<bool> {
    let Answer::Status(status) = ask(store, Verb::Status, &mut |_| Ok(()))? else { return Err(unexpected()) };
    if args.json {
        return print_json(&status_json(&status)).map(|()| status.stopped.is_none());
    }
    let mounted =
        status.mount_point.as_ref().map_or("not mounted".into(), |path| format!("mounted at {}", path.display()));
    print(&format!(
        "store      {}, {mounted}\ntracks     {}, {}\n",
        status.store.display(),
        size(status.track_bytes),
        match status.compression.as_str() {
            "none" => "not compressed".to_string(),
            how => format!("compressed with {how}"),
        }
    ))?;
    print(&format!(
        "live       {}\nlog        {}\nmetadata   {}\nfree       {}\n",
        size(status.space.live),
        size(status.space.log),
        size(status.space.meta),
        size(status.space.available)
    ))?;
    if status.reserved > 0 {
        print(&format!("reserved   {}\n", size(status.reserved)))?;
    }
    if status.drop_oldest {
        print("when full  the oldest snapshots that are not held are dropped\n")?;
    }
    for archive in &status.archives {
        let increments = count(archive.increments.len() as u64, "increment");
        print(&format!("archive    {}, {increments}, {}\n", archive.directory.display(), size(archive.bytes)))?;
    }
    if status.bases.len() > 1 {
        print(&format!("\n{}", table(&points::base_rows(&status.bases))))?;
    }
    let stored = || status.snapshots.iter().filter(|snapshot| !snapshot.archived);
    if stored().next().is_some() {
        let heads = ["snapshot", "time", "refers to", "deleting it frees", ""];
        let mut rows = vec![heads.map(str::to_string).to_vec()];
        rows.extend(stored().map(|snapshot| {
            let mut row = snapshot_row(snapshot);
            if status.bases.len() > 1 {
                row[0] = format!("{}:{}", snapshot.base, snapshot.name);
            }
            row
        }));
        print(&format!("\n{}", table(&rows)))?;
    }
    if let Some(stopped) = &status.stopped {
        eprintln!("pitfs: {stopped}");
    }
    Ok(status.stopped.is_none())
}

fn status_json(status: &StatusInfo) -> serde_json::Value {
    let snapshots: Vec<_> = status.snapshots.iter().map(snapshot_json).collect();
    json!({
        "store": status.store,
        "mount_point": status.mount_point,
        "track_bytes": status.track_bytes,
        "compression": status.compression,
        "total_bytes": status.space.total,
        "available_bytes": status.space.available,
        "live_bytes": status.space.live,
        "log_bytes": status.space.log,
        "metadata_bytes": status.space.meta,
        "segment_bytes": status.space.segments,
        "reserved_bytes": status.reserved,
        "drop_oldest": status.drop_oldest,
        "bases": status.bases.iter().map(points::base_json).collect::<Vec<_>>(),
        "archives": status.archives,
        "snapshots": snapshots,
        "stopped": status.stopped,
    })
}

/// Affected paths that a problem shows in text; JSON has them all.
const PATHS_SHOWN: usize = 20;

fn check(store: &Target, args: &args::Check) -> Result<bool> {
    let mut display = Display::new("checking");
    let answer = ask(store, Verb::Check, &mut |progress| display.update(progress));
    display.finish();
    let Answer::Check(report) = answer? else { return Err(unexpected()) };
    if args.json {
        print_json(&report)?;
        return Ok(report.problems.is_empty());
    }
    let CheckReport { inodes, names, tracks, read_bytes, snapshots, problems } = &report;
    for problem in problems {
        print(&format!("{}\n", problem.text))?;
        for path in problem.paths.iter().take(PATHS_SHOWN) {
            print(&format!("    damaged: {path}\n"))?;
        }
        if problem.paths.len() > PATHS_SHOWN {
            print(&format!("    and {} more\n", problem.paths.len() - PATHS_SHOWN))?;
        }
    }
    let verdict = if problems.is_empty() { "no problems".to_string() } else { count(problems.len() as u64, "problem") };
    print(&format!(
        "{}, {}, {}, {}, {} read: {verdict}\n",
        count(*inodes, "inode"),
        count(*names, "name"),
        count(*snapshots, "snapshot"),
        count(*tracks, "track"),
        size(*read_bytes)
    ))?;
    Ok(problems.is_empty())
}

fn sync(store: &Target, args: args::Sync) -> Result<bool> {
    let source = args
        .source
        .canonicalize()
        .map_err(|error| Error::media(format!("looking at {}", args.source.display()), error))?;
    let options = SyncOptions {
        source,
        destination: args.destination.map(OsString::into_vec).unwrap_or_default(),
        exclude: args.exclude,
        dry_run: args.dry_run,
        is_new_store: false,
    };
    run_sync(store, options, "syncing", args.json)
}

fn run_sync(store: &Target, options: SyncOptions, what: &'static str, as_json: bool) -> Result<bool> {
    let mut display = Display::new(what);
    let answer = ask(store, Verb::Sync(options), &mut |progress| display.update(progress));
    display.finish();
    let Answer::Sync(report) = answer? else { return Err(unexpected()) };
    if as_json {
        print_json(&report)?;
        return Ok(report.problems.is_empty());
    }
    let SyncReport { added, changed, removed, unchanged, read_bytes, written_bytes, planned, problems } = &report;
    for line in planned {
        print(&format!("{line}\n"))?;
    }
    print(&format!(
        "{added} added, {changed} changed, {removed} removed, {unchanged} unchanged; {} read, {} written\n",
        size(*read_bytes),
        size(*written_bytes)
    ))?;
    warn(problems);
    Ok(problems.is_empty())
}
