//! Each verb: ask for it to be done, and show the result.

use super::args::{self, Args, Verb as Args_};
use super::output::{Display, count, path, print, print_json, size, table};
use super::{command, mounting};
use crate::control::{Answer, SnapshotInfo, StatusInfo, Verb, ask, locate_store};
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
    match args.verb {
        Args_::Create(args) => create(&args),
        Args_::Mount(args) => mounting::mount(store, &args),
        Args_::Umount(args) => mounting::umount(store, &args),
        Args_::Snap(args) => snap(&find_store(store)?, args),
        Args_::List(args) => list(&find_store(store)?, &args),
        Args_::Delete(args) => delete(&find_store(store)?, args),
        Args_::Rename(args) => {
            let verb = Verb::Rename { old: bytes(args.old), new: bytes(args.new) };
            ask(&find_store(store)?, verb, &mut |_| Ok(())).map(|_| true)
        }
        Args_::Restore(args) => restore(&find_store(store)?, args),
        Args_::Diff(args) => diff(&find_store(store)?, args),
        Args_::Status(args) => status(&find_store(store)?, &args),
        Args_::Check(args) => check(&find_store(store)?, &args),
        Args_::Sync(args) => sync(&find_store(store)?, args),
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
fn find_store(given: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(given) = given {
        return locate_store(&given);
    }
    let here = std::env::current_dir().map_err(|error| Error::media("looking where we stand", error))?;
    let found = locate_store(&here)?;
    if found == here.canonicalize().unwrap_or(here) && !is_store(&found) {
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
    let options = SyncOptions { source, exclude: args.exclude.clone(), ..SyncOptions::default() };
    run_sync(&directory, options, "importing", args.json).inspect_err(|_| {
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

fn snap(store: &Path, args: args::Snap) -> Result<bool> {
    let verb = Verb::Snap { name: args.name.map(bytes) };
    let Answer::Snapshots(snapshots) = ask(store, verb, &mut |_| Ok(()))? else { return Err(unexpected()) };
    for snapshot in snapshots {
        if args.json {
            print_json(&snapshot_json(&snapshot))?;
        } else {
            print(&format!("{}\n", snapshot.name))?;
        }
    }
    Ok(true)
}

fn snapshot_json(snapshot: &SnapshotInfo) -> serde_json::Value {
    json!({
        "name": snapshot.name,
        "epoch": snapshot.epoch,
        "time": snapshot.time.as_text(),
        "seconds": snapshot.time.seconds,
        "nanoseconds": snapshot.time.nanos,
    })
}

fn list(store: &Path, args: &args::List) -> Result<bool> {
    let Answer::Snapshots(snapshots) = ask(store, Verb::List, &mut |_| Ok(()))? else { return Err(unexpected()) };
    if args.json {
        print_json(&snapshots.iter().map(snapshot_json).collect::<Vec<_>>())?;
    } else {
        let rows: Vec<Vec<String>> =
            snapshots.iter().map(|snapshot| vec![snapshot.name.clone(), snapshot.time.as_text()]).collect();
        print(&table(&rows))?;
    }
    Ok(true)
}

fn delete(store: &Path, args: args::Delete) -> Result<bool> {
    let names = args.names.into_iter().map(bytes).collect();
    ask(store, Verb::Delete { names }, &mut |_| Ok(())).map(|_| true)
}

fn restore(store: &Path, args: args::Restore) -> Result<bool> {
    let options = RestoreOptions {
        snapshot: args.snapshot.into_vec(),
        paths: args.paths.into_iter().map(bytes).collect(),
        to: absolute(&args.to)?,
        overwrite: args.overwrite,
    };
    let mut display = Display::new("restoring");
    let answer = ask(store, Verb::Restore(options), &mut |progress| display.update(progress));
    display.finish();
    let Answer::Restore(report) = answer? else { return Err(unexpected()) };
    if args.json {
        print_json(&report)?;
    } else {
        print(&format!("{}, {} restored\n", count(report.files, "file"), size(report.bytes)))?;
        warn(&report.problems);
    }
    Ok(report.problems.is_empty())
}

fn warn(problems: &[String]) {
    for problem in problems {
        eprintln!("pitfs: {problem}");
    }
}

fn diff(store: &Path, args: args::Diff) -> Result<bool> {
    let verb = Verb::Diff { before: bytes(args.before), after: bytes(args.after) };
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

fn status(store: &Path, args: &args::Status) -> Result<bool> {
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
    if !status.unique.is_empty() {
        let mut rows = vec![vec!["snapshot".to_string(), "time".to_string(), "deleting it frees".to_string()]];
        rows.extend(
            status
                .unique
                .iter()
                .map(|(snapshot, bytes)| vec![snapshot.name.clone(), snapshot.time.as_text(), size(*bytes)]),
        );
        print(&format!("\n{}", table(&rows)))?;
    }
    if let Some(stopped) = &status.stopped {
        eprintln!("pitfs: {stopped}");
    }
    Ok(status.stopped.is_none())
}

fn status_json(status: &StatusInfo) -> serde_json::Value {
    let snapshots: Vec<_> = status
        .unique
        .iter()
        .map(|(snapshot, bytes)| {
            let mut value = snapshot_json(snapshot);
            value["unique_bytes"] = json!(bytes);
            value
        })
        .collect();
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
        "snapshots": snapshots,
        "stopped": status.stopped,
    })
}

/// Affected paths that a problem shows in text; JSON has them all.
const PATHS_SHOWN: usize = 20;

fn check(store: &Path, args: &args::Check) -> Result<bool> {
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

fn sync(store: &Path, args: args::Sync) -> Result<bool> {
    let source = args
        .source
        .canonicalize()
        .map_err(|error| Error::media(format!("looking at {}", args.source.display()), error))?;
    let options = SyncOptions {
        source,
        destination: args.destination.map(OsString::into_vec).unwrap_or_default(),
        exclude: args.exclude,
        dry_run: args.dry_run,
    };
    run_sync(store, options, "syncing", args.json)
}

fn run_sync(store: &Path, options: SyncOptions, what: &'static str, as_json: bool) -> Result<bool> {
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
