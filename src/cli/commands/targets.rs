//! Targets, and backups to them.

use super::args;
use super::asking::{quietly, until_interrupted, with_display};
use super::output::{Display, count, print, print_json, size, table, tell_all};
use super::passphrase;
use super::transfer::{self, STREAM, Unpacked};
use super::{absolute, bytes, find_store, headed, in_place, paths, plan, say_done, unexpected};
use crate::control::{
    Answer, Backup, Base, FromTarget, KeyInfo, PathText, SetInfo, SetKind, Sets, Target, TargetInfo, Targets, Verb,
    ask, spelling,
};
use crate::daemon::{
    FromSets, FromSetsReport, KEY_FILE_VARIABLE, PASSPHRASE_VARIABLE, create_from_sets, give_key_file, no_target,
    open_alone, wants_passphrase,
};
use crate::error::{Errno, Error, Result};
use crate::target::{Retention, given_twice, with_id};
use serde::Serialize;
use serde_json::json;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub(super) fn target(to: &Target, verb: args::TargetVerb, as_json: bool) -> Result<bool> {
    let (verb, json, shows) = match verb {
        args::TargetVerb::Add { name, directory, key_file, passphrase, no_encryption: _ } => {
            let key_file = key_file.as_deref().map(absolute).transpose()?;
            let passphrase = passphrase.then(|| passphrase::new(PASSPHRASE_VARIABLE)).transpose()?;
            (Targets::Add { name, directory: absolute(&directory)?, key_file, passphrase }, as_json, false)
        }
        args::TargetVerb::Keys { target, json } => return keys(to, Targets::KeyList { target }, json || as_json),
        args::TargetVerb::AddKey { target, key_file, passphrase, json } => {
            let key_file = key_file.as_deref().map(absolute).transpose()?;
            let passphrase = passphrase.then(|| passphrase::new(passphrase::NEW_VARIABLE)).transpose()?;
            return keys(to, Targets::KeyAdd { target, key_file, passphrase }, json || as_json);
        }
        args::TargetVerb::RemoveKey { slot, target, json } => {
            return keys(to, Targets::KeyRemove { target, slot }, json || as_json);
        }
        args::TargetVerb::List { json } => (Targets::List, json || as_json, true),
        args::TargetVerb::Prune {
            target,
            keep_last: last,
            keep_hourly: hourly,
            keep_daily: daily,
            keep_weekly: weekly,
            keep_monthly: monthly,
            keep_yearly: yearly,
            keep_within: within,
            dry_run,
            json,
        } => {
            let keep = Retention { last, hourly, daily, weekly, monthly, yearly, within };
            return let_go(to, Sets::Prune { target, keep, dry_run }, json || as_json);
        }
        args::TargetVerb::Forget { name } => {
            ask(to, Verb::Target(Targets::Forget { name: name.clone() }), &mut |_| Ok(()))?;
            return say_done(as_json, json!({ "forgotten": name }));
        }
    };
    let Answer::Targets(targets) = ask(to, Verb::Target(verb), &mut |_| Ok(()))? else { return Err(unexpected()) };
    if json {
        print_json(&targets)?;
    } else if shows {
        let row = |one: &TargetInfo| {
            let kept = if one.encrypted { "encrypted" } else { "not encrypted" };
            vec![one.name.clone(), one.directory.to_string(), kept.to_string()]
        };
        print(&table(&headed(["target", "directory", ""], targets.iter().map(row))))?;
    }
    Ok(true)
}

/// Shows or changes what opens a target.
fn keys(to: &Target, verb: Targets, as_json: bool) -> Result<bool> {
    let Answer::Keys(keys) = quietly(to, Verb::Target(verb))? else { return Err(unexpected()) };
    if as_json {
        print_json(&keys)?;
        return Ok(true);
    }
    let of = |key: &KeyInfo| if key.passphrase { "passphrase" } else { "key file" };
    let rows = keys.iter().map(|key| vec![key.slot.to_string(), of(key).to_string()]);
    print(&table(&headed(["slot", "opened by"], rows)))?;
    Ok(true)
}

/// What becomes of a backup that is interrupted.
const LEFT: &str = "what was written of it stays, and the next backup goes on with that";

/// Whether all of it could be read.
pub(super) fn backup(to: &Target, args: args::Backup) -> Result<bool> {
    let kind = match (args.full, args.since_full) {
        (true, _) => SetKind::Full,
        (_, true) => SetKind::Differential,
        _ => SetKind::Incremental,
    };
    let wanted = Backup {
        snapshot: args.snapshot.map(bytes),
        target: args.target,
        kind,
        all: args.all_snapshots,
        group: args.group.map(bytes),
        level: args.level,
        limit: args.limit,
        detach: args.detach,
    };
    if wanted.detach {
        let Answer::Jobs(jobs) = quietly(to, Verb::Backup(wanted))? else { return Err(unexpected()) };
        let job = jobs.first().ok_or_else(unexpected)?;
        return super::jobs::said(job, args.json).map(|()| true);
    }
    let Answer::Backups(reports) = until_interrupted(to, Verb::Backup(wanted), "backing up", LEFT)? else {
        return Err(unexpected());
    };
    if args.json {
        print_json(&reports)?;
    }
    for report in reports.iter().filter(|_| !args.json) {
        let kind = match report.kind {
            SetKind::Full => "in full",
            SetKind::Differential => "since the last in full",
            SetKind::Incremental => "since the last",
        };
        let is_of_several = reports.iter().any(|other| other.base != report.base);
        let base = if is_of_several { format!("{}:", report.base) } else { String::new() };
        let name = format!("{base}{}", report.snapshot);
        let text = match report.was_there {
            true => format!("{name}: there already\n"),
            false => format!("{name}: {} written {kind}, {} changed\n", size(report.bytes), size(report.added)),
        };
        print(&text)?;
        tell_all(&report.missing);
    }
    Ok(reports.iter().all(|report| report.missing.is_empty()))
}

/// What is done with sets; `to` finds the store, where that is needed, which may have been named.
pub(super) fn set(
    to: impl Fn() -> Result<Target>,
    is_named: bool,
    mut verb: args::SetVerb,
    as_json: bool,
) -> Result<bool> {
    let has_store = || is_named || to().is_ok();
    let alone = verb.target().map(|target| alone(has_store, target)).transpose()?.flatten();
    let to = || alone.clone().map_or_else(&to, Ok);
    let (verb, json, verifies) = match verb {
        args::SetVerb::List { target, json } => (Sets::List { target }, json || as_json, false),
        args::SetVerb::Verify { target, read, json } => (Sets::Verify { target, read }, json || as_json, true),
        args::SetVerb::Delete { sets, target, dry_run, json } => {
            let sets = sets.into_iter().map(bytes).collect();
            return let_go(&to()?, Sets::Delete { target, sets, dry_run }, json || as_json);
        }
        args::SetVerb::Merge { sets, at, target, dry_run, json } => {
            let sets = sets.into_iter().map(bytes).collect();
            let at = at.as_deref().map(super::archive::when).transpose()?;
            return let_go(&to()?, Sets::Merge { target, sets, at, dry_run }, json || as_json);
        }
        args::SetVerb::Compact { target, waste, dry_run, json } => {
            return let_go(&to()?, Sets::Compact { target, waste, dry_run }, json || as_json);
        }
        args::SetVerb::Repair { target, json } => {
            return let_go(&to()?, Sets::Repair { target }, json || as_json);
        }
        args::SetVerb::Receive { directory, json } => return transfer::receive(&directory, json || as_json),
        args::SetVerb::Rebuild { target, json } => {
            return let_go(&to()?, Sets::Rebuild { target }, json || as_json);
        }
    };
    let Answer::Sets(sets) = with_display(&to()?, Verb::Set(verb), "reading")? else { return Err(unexpected()) };
    let problems: Vec<&String> = sets.iter().flat_map(|set| &set.problems).collect();
    if json {
        print_json(&sets)?;
    } else if verifies {
        let verdict = match problems.len() {
            0 => "no problems".to_string(),
            problems => count(problems as u64, "problem"),
        };
        let bytes = sets.iter().map(|set| set.bytes).sum();
        print(&format!("{}, {} read: {verdict}\n", count(sets.len() as u64, "set"), size(bytes)))?;
        let name = told_apart(&sets);
        for set in &sets {
            tell_all(&set.problems);
            let lost = |what: &String| format!("{}:{} has lost {what}", set.base, name(set));
            tell_all(&set.lost.iter().map(lost).collect::<Vec<_>>());
        }
    } else {
        print_sets(&sets)?;
    }
    Ok(problems.is_empty())
}

/// The directory that is given in the place of a target's name: by a path, or where there is no store that could have such a name.
fn alone(has_store: impl Fn() -> bool, target: &mut Option<String>) -> Result<Option<Target>> {
    let is_directory =
        |given: &String| Path::new(given).is_dir() && (Path::new(given).components().count() > 1 || !has_store());
    let directory = target.take_if(|given| is_directory(given));
    directory.map(|directory| Ok(Target { store: absolute(Path::new(&directory))?, base: None })).transpose()
}

/// What sets are called: a copy of a store can have given a name again, and so can the store itself.
fn told_apart<'a>(sets: impl IntoIterator<Item = &'a SetInfo>) -> impl Fn(&SetInfo) -> String {
    let name = |set: &SetInfo| (set.base.clone(), set.snapshot.clone());
    let twice = given_twice(sets.into_iter().map(|set| (name(set), set.snapshot_id.as_str())));
    move |set| match twice.contains(&name(set)) {
        true => with_id(&set.snapshot, &set.set),
        false => set.snapshot.clone(),
    }
}

/// Of forks, which a copy of a store makes, one sees what each set was made over.
fn print_sets(sets: &[SetInfo]) -> Result<()> {
    let name = told_apart(sets);
    let by_id: HashMap<&str, &SetInfo> = sets.iter().map(|set| (set.set.as_str(), set)).collect();
    let row = |set: &SetInfo| {
        let kind = match (set.kind, set.incomplete) {
            _ if set.part => "part",
            (_, true) => "incomplete",
            (SetKind::Full, _) => "full",
            (SetKind::Differential, _) => "differential",
            (SetKind::Incremental, _) => "incremental",
        };
        let over = set.over.as_deref().map(|over| by_id.get(over).map_or("?".to_string(), |over| name(over)));
        let (taken, base, size) = (set.time.text.clone(), set.base.clone(), size(set.bytes));
        vec![name(set), taken, base, kind.to_string(), over.unwrap_or_default(), size]
    };
    let shown = sets.iter().filter(|set| !set.hidden);
    print(&table(&headed(["snapshot", "taken", "base", "set", "over", "size"], shown.map(row))))?;
    let others: Vec<&SetInfo> = sets.iter().filter(|set| set.hidden).collect();
    if others.is_empty() {
        return Ok(());
    }
    let all = size(others.iter().map(|set| set.bytes).sum());
    let were = if others.len() == 1 { "was" } else { "were" };
    let others = count(others.len() as u64, "set");
    print(&format!("and {all} in {others} that {were} let go, or went into others, and that others need\n"))
}

/// Lets sets go, and shows which.
fn let_go(to: &Target, verb: Sets, as_json: bool) -> Result<bool> {
    let Answer::LetGo(done) = with_display(to, Verb::Set(verb), "packing")? else { return Err(unexpected()) };
    if as_json {
        print_json(&done)?;
        return Ok(done.problems.is_empty());
    }
    let (goes, freed) = if done.dry_run { ("would go", "would be freed") } else { ("gone", "freed") };
    let called = told_apart(done.gone.iter().chain(&done.kept));
    let name = |set: &SetInfo| vec![called(set), set.time.text.clone(), set.base.clone()];
    let gone = done.gone.iter().map(|set| [name(set), vec![goes.to_string()]].concat());
    let kept = done.kept.iter().map(|set| [name(set), vec![set.reasons.join(", ")]].concat());
    print(&table(&headed(["snapshot", "taken", "base", ""], gone.chain(kept))))?;
    let written = match done.written_bytes {
        0 => String::new(),
        bytes => format!(", {} written anew", size(bytes)),
    };
    print(&format!("{} {goes}, {} {freed}{written}\n", count(done.gone.len() as u64, "set"), size(done.freed_bytes)))?;
    tell_all(&done.problems);
    Ok(done.problems.is_empty())
}

/// The name of a target, where what was given is no directory.
fn name_of(from: &Path) -> Option<&str> {
    from.to_str().filter(|_| !from.is_dir() && from.components().count() == 1)
}

/// What a directory has as a target, or one that the store knows by a name, with no store.
pub(super) fn target_alone(store: Option<PathBuf>, from: &Path, key_file: Option<&Path>) -> Result<Target> {
    if let Some(path) = key_file {
        give_key_file(absolute(path)?);
    }
    let directory = match name_of(from) {
        Some(name) => {
            let Answer::Targets(all) = quietly(&find_store(store)?, Verb::Target(Targets::List))? else {
                return Err(unexpected());
            };
            let found = all.iter().find(|one| one.name == name).ok_or_else(|| {
                let text = format!("there is no directory and no target {name:?}");
                Error::Refused(Errno::NOENT, text)
            })?;
            if let Some(path) = found.key_file.clone().filter(|_| key_file.is_none()) {
                give_key_file(path.into());
            }
            // Others may keep theirs there as well.
            found.directory.as_path().join(&found.store)
        }
        None => absolute(from)?,
    };
    Ok(Target { store: directory, base: None })
}

/// The name of the newest moment that a target has.
pub(super) fn newest(target: &Path) -> Result<String> {
    let at = open_alone(target)?.ok_or_else(|| no_target(target))?;
    at.repository.check_all_known()?;
    let all: Vec<SetInfo> = at.repository.catalogue().moments().map(SetInfo::from).collect();
    let none = || Error::Refused(Errno::NOENT, "the target has no moment yet".into());
    all.last().map(told_apart(&all)).ok_or_else(none)
}

/// A store that was made of sets.
#[derive(Serialize)]
struct MadeOfSets<'a> {
    #[serde(flatten, serialize_with = "spelling::store::serialize")]
    store: PathText,
    snapshots: u64,
    bytes: u64,
    left_out: &'a [String],
}

/// Makes a store of what a target has of one.
pub(super) fn create(args: &args::Create) -> Result<bool> {
    let directory = &absolute(&args.directory)?;
    let from = args.from_set.as_deref().unwrap_or(directory);
    if let Some(path) = &args.key_file {
        give_key_file(absolute(path)?);
    }
    let unpacked = (from.as_os_str() == STREAM).then(|| Unpacked::beside(directory)).transpose()?;
    let from = unpacked.as_ref().map_or_else(|| absolute(from), |unpacked| Ok(unpacked.target()))?;
    let at = open_alone(&from)?.ok_or_else(|| no_target(&from))?;
    let options = FromSets { with_history: args.history, codec: args.compress.into(), track_bytes: args.track_size };
    let mut display = Display::new("bringing back");
    let made = create_from_sets(directory, &at.repository, &options, &mut |progress| display.update(progress));
    display.finish();
    let report = made?;
    if args.json {
        let FromSetsReport { snapshots, bytes, left_out } = &report;
        let store = PathText::from(directory.as_path());
        print_json(&MadeOfSets { store, snapshots: *snapshots, bytes: *bytes, left_out })?;
    } else {
        let snapshots = count(report.snapshots, "snapshot");
        print(&format!("{snapshots}, {} brought back\n", size(report.bytes)))?;
        tell_all(&report.left_out);
    }
    Ok(report.left_out.is_empty())
}

/// Restores what a target has of a snapshot in place, or makes a base of it.
pub(super) fn restore(to: &Target, from: &Path, args: args::Restore) -> Result<bool> {
    let Some(snapshot) = args.snapshot else {
        let text = "say which snapshot, as NAME or @TIME; `pitfs set list` shows what the target has".into();
        return Err(Error::Usage(text));
    };
    let paths = paths::paths_in_view(to, args.paths)?;
    let (snapshot, from) = (bytes(snapshot), from_target(from, args.key_file)?);
    let Some(name) = args.to_base else {
        let verb = Verb::RestoreFrom { snapshot, paths, from };
        return if args.dry_run { plan::show(to, verb, args.json) } else { in_place(to, verb, args.json) };
    };
    if args.dry_run {
        return Err(Error::Usage("there is no dry run of making a base of what a target has".into()));
    }
    let verb = Base::FromSet { name: bytes(name), snapshot, from };
    let Answer::Bases(bases) = with_display(to, Verb::Base(verb), "restoring")? else { return Err(unexpected()) };
    if args.json {
        print_json(&bases)?;
    }
    Ok(true)
}

/// A target that the store knows, or a directory with what opens it: as the daemon is to read it.
fn from_target(from: &Path, key_file: Option<PathBuf>) -> Result<FromTarget> {
    if let Some(name) = name_of(from) {
        return Ok(FromTarget { target: Some(name.to_string()), ..FromTarget::default() });
    }
    let directory = absolute(from)?;
    let key_file = key_file.or_else(|| std::env::var_os(KEY_FILE_VARIABLE).map(PathBuf::from));
    let key_file = key_file.as_deref().map(absolute).transpose()?;
    let given = || std::env::var(PASSPHRASE_VARIABLE).ok();
    let passphrase = match key_file {
        Some(_) => None,
        None if wants_passphrase(&directory) => given().or_else(passphrase::known),
        None => given(),
    };
    Ok(FromTarget { target: None, directory: Some(directory), key_file, passphrase })
}
