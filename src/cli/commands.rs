//! Each verb: ask for it to be done, and show the result.

mod archive;
mod asking;
mod bases;
mod delete;
mod doctor;
mod groups;
mod hooks;
mod jobs;
mod kept;
mod list;
mod metrics;
mod passphrase;
mod paths;
mod plan;
mod sessions;
mod status;
mod stream;
mod targets;
mod tracks;
mod transfer;
mod upgrade;

use self::delete::Told;
pub use self::passphrase::known as known_passphrase;
use super::args::{Args, Verb as Args_};
use super::output::{Display, count, file, print, print_json, tell, tell_all, write};
use super::{args, command, mounting, output};
use crate::control::{
    Answer, Change, CheckInfo, DifferenceInfo, PathText, RestoredInfo, Snap, SyncInfo, Target, Verb, ask, locate_store,
    spelling,
};
use crate::daemon::{Daemon, Owner, RestoreOptions, SyncOptions, ask_passphrase_by, is_store, resolved, trust_owners};
use crate::error::{Errno, Error, Result};
use crate::shown::{line, shown_file, size};
use crate::tree::CreateOptions;
use serde::Serialize;
use serde_bytes::ByteBuf;
use serde_json::json;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Runs a command; false when it was done and found something wrong.
/// How a command ended that did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    WithProblems,
    /// Some of what was asked for could not be read, and is named.
    Incomplete,
    /// As monitoring wants it.
    Status(u8),
}

impl From<bool> for Outcome {
    fn from(is_all_well: bool) -> Outcome {
        if is_all_well { Outcome::Done } else { Outcome::WithProblems }
    }
}

impl Outcome {
    fn complete(is_complete: bool) -> Outcome {
        if is_complete { Outcome::Done } else { Outcome::Incomplete }
    }
}

pub fn run(args: Args) -> Result<Outcome> {
    ask_passphrase_by(passphrase::known);
    match args.verb.hooks() {
        Some((verb, found)) => {
            let found = found.clone();
            hooks::around(&found, verb, || run_alone(args))
        }
        None => run_alone(args),
    }
}

fn run_alone(args: Args) -> Result<Outcome> {
    match args.verb {
        Args_::Backup(verb) if verb.to.is_some() => {
            transfer::send(&find_store(args.store)?, verb).map(Outcome::complete)
        }
        Args_::Backup(verb) => targets::backup(&find_store(args.store)?, verb).map(Outcome::complete),
        Args_::Create(verb) if verb.from_set.is_some() => targets::create(&verb).map(Outcome::complete),
        Args_::Job(verb) => jobs::job(&find_store(args.store)?, verb.verb, args.json),
        Args_::Status(verb) if verb.check => status::check(find_store(args.store), verb.max_age).map(Outcome::Status),
        verb => run_verb(Args { verb, ..args }).map(Outcome::from),
    }
}

fn run_verb(args: Args) -> Result<bool> {
    let (store, as_json) = (args.store, args.json);
    if args.trust_owner {
        trust_owners();
    }
    let target = || find_store(store.clone());
    match args.verb {
        Args_::Create(args) => create(&args),
        Args_::Mount(args) => mounting::mount(store, &args, as_json),
        Args_::Umount(args) => mounting::umount(store, &args, as_json),
        Args_::Snap(args) => snap(&target()?, args),
        Args_::List(args) => list::list(&target()?, &args),
        Args_::Delete(args) => delete(&target()?, args),
        Args_::Rename(args) => {
            let done = json!({ "was": name_of(&args.old), "name": name_of(&args.new) });
            let verb = Verb::Rename { old: bytes(args.old), new: bytes(args.new) };
            ask(&target()?, verb, &mut |_| Ok(()))?;
            say_done(as_json, done)
        }
        Args_::Hold(args) => kept::hold(&target()?, args, true, as_json),
        Args_::Release(args) => kept::hold(&target()?, args, false, as_json),
        Args_::Restore(args) => match args.from.clone() {
            Some(from) if args.to.is_some() || from.as_os_str() == transfer::STREAM => {
                restore_from(store.clone(), &from, args)
            }
            Some(from) => targets::restore(&target()?, &from, args),
            None => restore(&target()?, args),
        },
        Args_::Undo(args) => undo(&target()?, &args),
        Args_::Save(args) => save(&target()?, args),
        Args_::History(args) => kept::history(&target()?, &args),
        Args_::Diff(args) if args.tracks => tracks::tracks(&target()?, args),
        Args_::Diff(args) => diff(&target()?, args),
        Args_::Versions(args) => {
            let target = target()?;
            let path = paths::path_in_live(&target, &args.path)?;
            kept::versions(&target, path, &args)
        }
        Args_::Base(args) => bases::base(&target()?, args.verb, as_json),
        Args_::Session(args) => sessions::session(&target()?, args.verb, as_json),
        Args_::Group(args) => groups::group(&target()?, args.verb, as_json),
        Args_::Clone(args) => bases::clone(&target()?, args, as_json),
        Args_::Promote(args) => bases::promote(&target()?, args.name, args.wait, as_json),
        Args_::Mirror(args) => bases::mirror(&target()?, args, as_json),
        Args_::Roll(args) => archive::roll(&target()?, args),
        Args_::Archive(args) => archive::archive(&target()?, args.verb, as_json),
        Args_::Target(args) => targets::target(&target()?, args.verb, as_json),
        Args_::Backup(args) => targets::backup(&target()?, args),
        Args_::Job(args) => Ok(jobs::job(&target()?, args.verb, as_json)? == Outcome::Done),
        Args_::Set(args) => targets::set(target, store.is_some(), args.verb, as_json),
        Args_::Policy(args) => kept::policy(&target()?, &args),
        Args_::Status(args) => status::status(&target()?, &args),
        Args_::Doctor(args) => doctor::doctor(store, &args),
        Args_::Metrics(args) => metrics::metrics(&target()?, &args),
        Args_::Check(args) => check(&target()?, &args),
        Args_::Sync(args) => sync(&target()?, args),
        Args_::Put(args) => stream::put(&target()?, args),
        Args_::Get(args) => stream::get(&target()?, args),
        Args_::Companion(args) => crate::fuse::run_companion(args.role, args.connection),
        Args_::Upgrade(args) => upgrade::run(&target()?, args, as_json),
        Args_::Completions(args) => {
            let mut text = Vec::new();
            clap_complete::generate(args.shell, &mut command(), "pitfs", &mut text);
            write(&text).map(|()| true)
        }
    }
}

/// What was done by a command that says nothing of it but in JSON.
fn say_done(as_json: bool, done: impl Serialize) -> Result<bool> {
    if as_json {
        print_json(&done)?;
    }
    Ok(true)
}

/// A name that was given, and was taken: so it is UTF-8.
fn name_of(name: &OsString) -> String {
    name.to_string_lossy().into_owned()
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
    std::path::absolute(path).map_err(|error| Error::media(format!("looking at {}", shown_file(path)), error))
}

/// A store that was made.
#[derive(Serialize)]
struct Created {
    #[serde(flatten, serialize_with = "spelling::store::serialize")]
    store: PathText,
}

fn create(args: &args::Create) -> Result<bool> {
    let source = match &args.from {
        Some(source) => {
            let source = source
                .canonicalize()
                .map_err(|error| Error::media(format!("looking at {}", shown_file(source)), error))?;
            if !source.is_dir() {
                return Err(Error::Refused(Errno::NOTDIR, format!("{} is not a directory", shown_file(&source))));
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
    let (uid, gid) =
        metadata.as_ref().map_or_else(ours, |metadata| Owner::of_this_process().of(metadata.uid(), metadata.gid()));
    let options = CreateOptions {
        track_bytes: args.track_size.unwrap_or(crate::limits::TRACK_BYTES_DEFAULT),
        codec: args.compress.into(),
        uid,
        gid,
        mode: metadata.as_ref().map_or(0o755, |metadata| metadata.mode() & 0o7777),
        hash_seed: random_seed()?,
    };
    let bring_in = source.map(|source| SyncOptions {
        source,
        exclude: args.exclude.iter().cloned().map(bytes).collect(),
        one_file_system: args.one_file_system,
        is_new_store: true,
        ..SyncOptions::default()
    });
    // Before anything is made.
    bring_in.iter().try_for_each(SyncOptions::check).map_err(Error::as_usage)?;
    let directory = absolute(&args.directory)?;
    Daemon::create(&directory, &options)?;
    let Some(options) = bring_in else {
        return say_done(args.json, Created { store: directory.into() });
    };
    run_sync(&Target { store: directory.clone(), base: None }, options, "importing", args.json).inspect_err(|_| {
        let shown = shown_file(&directory);
        tell(format_args!(
            "the store {shown} was made and not all was brought in; `pitfs -s {shown} sync` goes on from here"
        ));
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

fn save(target: &Target, args: args::Save) -> Result<bool> {
    let group = args.group.map(bytes);
    take(target, Snap { name: args.name.map(bytes), group, save: true, ..Snap::default() }, args.json)
}

fn undo(target: &Target, args: &args::Undo) -> Result<bool> {
    match args.dry_run {
        true => plan::show(target, Verb::Undo, args.json),
        false => in_place(target, Verb::Undo, args.json),
    }
}

fn take(target: &Target, snap: Snap, as_json: bool) -> Result<bool> {
    let Answer::Snapshots(snapshots) = ask(target, Verb::Snap(snap), &mut |_| Ok(()))? else {
        return Err(unexpected());
    };
    match snapshots.as_slice() {
        [one] if as_json => print_json(one)?,
        all if as_json => print_json(all)?,
        // One moment has one name.
        [one, ..] => print(&format!("{}\n", one.name))?,
        [] => {}
    }
    Ok(true)
}

/// Rows under headings; nothing where there are none.
fn headed<const N: usize>(headings: [&str; N], rows: impl Iterator<Item = Vec<String>>) -> Vec<Vec<String>> {
    let mut all = vec![headings.map(str::to_string).to_vec()];
    all.extend(rows);
    if all.len() == 1 { Vec::new() } else { all }
}

fn delete(target: &Target, args: args::Delete) -> Result<bool> {
    let args::Delete { names, group, recursive, dry_run, json: as_json } = args;
    let names: Vec<ByteBuf> = names.into_iter().map(bytes).collect();
    // What goes is told where it was not named itself.
    let goes = recursive || names.iter().any(|name| name.starts_with(b"@"));
    let verb = Verb::Delete { names, group: group.map(bytes), recursive };
    delete::delete(target, verb, Told { dry_run, goes, as_json })
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
    let paths = paths::paths_in_view(target, paths)?;
    if let (Some(name), Some(snapshot)) = (&args.to_base, &snapshot) {
        let args::Restore { copy, offline, reserve, wait, dry_run, json, .. } = args;
        let (name, from) = (name.clone(), Some(os(snapshot)));
        let create = args::BaseVerb::Create { name, from, copy, offline, reserve, wait, dry_run, json };
        return bases::base(target, create, json);
    }
    if let (Some(name), Some(snapshot)) = (&args.to_clone, &snapshot) {
        let args::Restore { copy, offline, reserve, wait, dry_run, json, .. } = args;
        let (first, second) = (os(snapshot), name.clone());
        let (full, group, refresh) = (false, None, false);
        let clone = args::Clone { first, second, full, copy, group, offline, reserve, wait, refresh, dry_run };
        return bases::clone(target, clone, json);
    }
    if let (Some(name), Some(snapshot)) = (&args.to_mirror, &snapshot) {
        let verb = crate::control::Mirror::RestoreTo { name: bytes(name.clone()), snapshot: snapshot.clone() };
        return match args.dry_run {
            true => plan::show(target, Verb::Mirror(verb), args.json),
            false => bases::copied(target, Verb::Mirror(verb), true, args.json),
        };
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
                RestoreOptions { snapshot: snapshot.into_vec(), paths, to: target_of(&to)?, overwrite: args.overwrite };
            match args.dry_run {
                true => plan::show(target, Verb::CopyOut(options), args.json),
                false => copy_out(target, options, args.json),
            }
        }
        None => {
            let group = args.group.map(bytes);
            if group.is_some() && !paths.is_empty() {
                let text = "a group is gone back with as a whole; give no paths with --group".into();
                return Err(Error::Usage(text));
            }
            let verb = Verb::Restore { snapshot, paths, group };
            if args.dry_run { plan::show(target, verb, args.json) } else { in_place(target, verb, args.json) }
        }
    }
}

/// Restores what a target has to a directory, or what comes from the input.
fn restore_from(store: Option<PathBuf>, from: &Path, mut args: args::Restore) -> Result<bool> {
    let Some(to) = &args.to else {
        return Err(Error::Usage("what comes from the input is restored with --to DIR".into()));
    };
    let unpacked = (from.as_os_str() == transfer::STREAM).then(|| transfer::Unpacked::beside(to)).transpose()?;
    let key_file = args.key_file.as_deref();
    let target = match &unpacked {
        Some(unpacked) => targets::target_alone(None, &unpacked.target(), key_file)?,
        None => targets::target_alone(store, from, key_file)?,
    };
    if args.snapshot.is_none() {
        args.snapshot = Some(targets::newest(&target.store)?.into());
    }
    restore(&target, args)
}

/// A directory to be made or filled, without links on the way, as whoever gives the command sees it.
fn target_of(to: &Path) -> Result<PathBuf> {
    resolved(&absolute(to)?).map_err(|error| Error::media(format!("looking at {}", file(to)), error))
}

fn os(name: &ByteBuf) -> OsString {
    OsString::from_vec(name.to_vec())
}

fn in_place(target: &Target, verb: Verb, as_json: bool) -> Result<bool> {
    let mut display = Display::new("restoring");
    let answer = ask(target, verb, &mut |progress| display.update(progress));
    display.finish();
    match answer? {
        Answer::Restored(done) => {
            if as_json {
                print_json(&done)?;
            } else {
                print(&restored_text(&done))?;
                warn(&done.problems);
            }
            Ok(done.problems.is_empty())
        }
        Answer::RestoredAll(all) if as_json => print_json(&all).map(|()| true),
        Answer::RestoredAll(all) if all.iter().all(|one| one.before.is_none()) => {
            print("nothing differs and nothing was changed\n").map(|()| true)
        }
        Answer::RestoredAll(all) => {
            let lines = all.iter().filter_map(|RestoredInfo { restored: to, before, .. }| {
                let before = &before.as_ref()?.name;
                Some(format!("{}:{}: restored; what was there before is {before}\n", to.base, to.name))
            });
            print(&lines.collect::<String>()).map(|()| true)
        }
        _ => Err(unexpected()),
    }
}

fn restored_text(done: &RestoredInfo) -> String {
    let RestoredInfo { restored: to, before, files, bytes, removed, .. } = done;
    match (before, files) {
        (Some(before), None) => format!("{}: restored; what was there before is {}\n", to.name, before.name),
        (None, None) => format!("{}: nothing differs and nothing was changed\n", to.name),
        (None, Some(_)) => "nothing differs and nothing was changed\n".to_string(),
        (Some(before), Some(files)) => {
            let (bytes, removed) = (size(bytes.unwrap_or_default()), removed.unwrap_or_default());
            let files = count(*files, "file");
            format!("{files}, {bytes} restored, {removed} removed; what was there before is {}\n", before.name)
        }
    }
}

fn copy_out(target: &Target, options: RestoreOptions, as_json: bool) -> Result<bool> {
    let mut display = Display::new("restoring");
    let answer = ask(target, Verb::CopyOut(options), &mut |progress| display.update(progress));
    display.finish();
    let Answer::CopiedOut(report) = answer? else { return Err(unexpected()) };
    if as_json {
        print_json(&report)?;
    } else {
        print(&format!("{}, {} restored\n", count(report.files, "file"), size(report.bytes)))?;
        warn(&report.problems);
    }
    Ok(report.problems.is_empty())
}

fn warn(problems: &[String]) {
    tell_all(problems.iter().take(PROBLEMS_SHOWN));
    if problems.len() > PROBLEMS_SHOWN {
        tell(format_args!("and {} more; --json shows all", problems.len() - PROBLEMS_SHOWN));
    }
}

/// Problems that are shown in text; JSON has them all.
const PROBLEMS_SHOWN: usize = 20;

fn diff(store: &Target, args: args::Diff) -> Result<bool> {
    let after = args.after.map_or_else(|| ByteBuf::from("live"), bytes);
    let verb = Verb::Diff { before: bytes(args.before), after };
    let Answer::Differences(differences) = ask(store, verb, &mut |_| Ok(()))? else { return Err(unexpected()) };
    if args.json {
        return print_json(&differences).map(|()| true);
    }
    let mut text = String::new();
    for found in &differences {
        text.push_str(&difference_line(found));
        text.push('\n');
    }
    print(&text).map(|()| true)
}

/// `+ path  12 B`, `- path`, `M path  12 B -> 15 B`, `A path` (attributes), `R old -> new`.
fn difference_line(found: &DifferenceInfo) -> String {
    let mut name = found.path.to_string();
    if found.directory {
        name.push('/');
    }
    let sized = |bytes: Option<u64>| bytes.map_or(String::new(), |bytes| format!("  {}", size(bytes)));
    match found.kind {
        Change::Added => format!("+ {name}{}", sized(found.size_after_bytes)),
        Change::Removed => format!("- {name}{}", sized(found.size_before_bytes)),
        Change::Changed => match (found.size_before_bytes, found.size_after_bytes) {
            (Some(before), Some(after)) if before != after => format!("M {name}  {} -> {}", size(before), size(after)),
            (_, after) => format!("M {name}{}", sized(after)),
        },
        Change::Attributes => format!("A {name}"),
        Change::Renamed => {
            format!("R {} -> {name}", found.from.as_ref().map(PathText::to_string).unwrap_or_default())
        }
    }
}

/// Affected paths that a problem shows in text; JSON has all that the report has.
const PATHS_SHOWN: usize = 20;

fn check(store: &Target, args: &args::Check) -> Result<bool> {
    let mut display = Display::new("checking");
    let answer = ask(store, Verb::Check, &mut |progress| display.update(progress));
    display.finish();
    let Answer::Check(report) = answer? else { return Err(unexpected()) };
    if args.json {
        print_json(&report)?;
        return Ok(report.is_clean());
    }
    let CheckInfo { inodes, names, tracks, read_bytes, snapshots, problems, more_problems, problems_without_paths } =
        &report;
    for problem in problems {
        print(&format!("{}\n", line(&problem.text)))?;
        for damaged in problem.paths.iter().take(PATHS_SHOWN) {
            print(&format!("    damaged: {}\n", damaged.path))?;
        }
        if problem.paths.len() > PATHS_SHOWN {
            print(&format!("    and {} more\n", problem.paths.len() - PATHS_SHOWN))?;
        }
    }
    if *more_problems > 0 {
        print(&format!("{} more: only so many are listed\n", count(*more_problems, "problem")))?;
    }
    let without = match problems_without_paths {
        0 => String::new(),
        1 => "1 problem is".into(),
        without => format!("{without} problems are"),
    };
    if !without.is_empty() {
        print(&format!("{without} listed without some or all of the files: a report has no room for more paths\n"))?;
    }
    let verdict = if report.is_clean() { "no problems".to_string() } else { count(report.count(), "problem") };
    print(&format!(
        "{}, {}, {}, {}, {} read: {verdict}\n",
        count(*inodes, "inode"),
        count(*names, "name"),
        count(*snapshots, "snapshot"),
        count(*tracks, "track"),
        size(*read_bytes)
    ))?;
    Ok(report.is_clean())
}

fn sync(store: &Target, args: args::Sync) -> Result<bool> {
    let source = args
        .source
        .canonicalize()
        .map_err(|error| Error::media(format!("looking at {}", shown_file(&args.source)), error))?;
    let destination = args.destination.map_or(Ok(Vec::new()), |path| paths::destination(store, Path::new(&path)))?;
    let options = SyncOptions {
        source,
        destination,
        exclude: args.exclude.into_iter().map(bytes).collect(),
        one_file_system: args.one_file_system,
        dry_run: args.dry_run,
        is_new_store: false,
    };
    options.check().map_err(Error::as_usage)?;
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
    let SyncInfo { added, changed, removed, unchanged, read_bytes, written_bytes, left_out, problems, .. } = &report;
    for planned in &report.planned {
        print(&format!("{} {}\n", planned.what, planned.path))?;
    }
    print(&format!(
        "{added} added, {changed} changed, {removed} removed, {unchanged} unchanged; {} read, {} written\n",
        size(*read_bytes),
        size(*written_bytes)
    ))?;
    warn(left_out);
    warn(problems);
    Ok(problems.is_empty())
}
