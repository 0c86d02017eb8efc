//! Targets, and backups to them.

use super::args;
use super::asking::with_display;
use super::output::{count, print, print_json, size, table, tell_all};
use super::{absolute, bytes, headed, say_done, unexpected};
use crate::control::{Answer, Backup, SetInfo, SetKind, Sets, Target, TargetInfo, Targets, Verb, ask};
use crate::error::Result;
use serde_json::json;

pub(super) fn target(to: &Target, verb: args::TargetVerb, as_json: bool) -> Result<bool> {
    let (verb, json, shows) = match verb {
        args::TargetVerb::Add { name, directory, key_file, no_encryption: _ } => {
            let key_file = key_file.as_deref().map(absolute).transpose()?;
            (Targets::Add { name, directory: absolute(&directory)?, key_file }, as_json, false)
        }
        args::TargetVerb::List { json } => (Targets::List, json || as_json, true),
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

/// Three says that some of it could not be read.
pub(super) fn backup(to: &Target, args: args::Backup) -> Result<bool> {
    let kind = match (args.full, args.since_full) {
        (true, _) => SetKind::Full,
        (_, true) => SetKind::Differential,
        _ => SetKind::Incremental,
    };
    let wanted = Backup { snapshot: args.snapshot.map(bytes), target: args.target, kind, all: args.all_snapshots };
    let Answer::Backups(reports) = with_display(to, Verb::Backup(wanted), "backing up")? else {
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
        let text = match report.was_there {
            true => format!("{}: there already\n", report.snapshot),
            false => {
                format!("{}: {} written {kind}, {} changed\n", report.snapshot, size(report.bytes), size(report.added))
            }
        };
        print(&text)?;
        tell_all(&report.missing);
    }
    Ok(reports.iter().all(|report| report.missing.is_empty()))
}

pub(super) fn set(to: &Target, verb: args::SetVerb, as_json: bool) -> Result<bool> {
    let (verb, json, verifies) = match verb {
        args::SetVerb::List { target, json } => (Sets::List { target }, json || as_json, false),
        args::SetVerb::Verify { target, json } => (Sets::Verify { target }, json || as_json, true),
    };
    let Answer::Sets(sets) = with_display(to, Verb::Set(verb), "reading")? else { return Err(unexpected()) };
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
        sets.iter().for_each(|set| tell_all(&set.problems));
    } else {
        let row = |set: &SetInfo| {
            let kind = match (set.kind, set.incomplete) {
                (_, true) => "incomplete",
                (SetKind::Full, _) => "full",
                (SetKind::Differential, _) => "differential",
                (SetKind::Incremental, _) => "incremental",
            };
            vec![set.snapshot.clone(), set.time.text.clone(), set.base.clone(), kind.to_string(), size(set.bytes)]
        };
        print(&table(&headed(["snapshot", "taken", "base", "set", "size"], sets.iter().map(row))))?;
    }
    Ok(problems.is_empty())
}
