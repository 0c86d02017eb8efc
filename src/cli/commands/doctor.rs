//! `doctor`: what this machine, a directory and a store are like, and what to do about it.

use super::output::{ago, print, print_json, size, table};
use super::status::{CLOCKS, ask_status};
use super::{absolute, args, find_store, unexpected};
use crate::clock::Timestamp;
use crate::control::{Answer, StatusInfo, Target, Targets, Verb, ask, locate_store};
use crate::daemon::{Finding, Grade, HealthState, is_store, look_at_directory, look_at_machine};
use crate::error::Result;
use crate::shown::{line, shown_file};
use crate::target;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Seconds after which something should have been done again.
const SNAPSHOT_OLD: i64 = 7 * 86_400;
const CHECK_OLD: i64 = 90 * 86_400;
/// No clock that is right was earlier: 2024.
const YEAR: i64 = 1_704_067_200;

pub(super) fn doctor(store: Option<PathBuf>, args: &args::Doctor) -> Result<bool> {
    let mut all = look_at_machine();
    match meant(store, args.directory.as_deref())? {
        Meant::Nothing => {}
        Meant::Directory(directory) => all.extend(look_at_directory(&directory)?),
        Meant::Store(store) => all.extend(of_store(&store)?),
    }
    let is_well = all.iter().all(|one| one.grade < Grade::Bad);
    if args.json {
        let told: Vec<Told<'_>> = all.iter().map(Told::of).collect();
        return print_json(&told).map(|()| is_well);
    }
    let rows = all.iter().map(|one| vec![one.grade.name().into(), one.what.to_string(), line(&one.found).into_owned()]);
    print(&table(&rows.collect::<Vec<_>>()))?;
    let helps: Vec<&Finding> = all.iter().filter(|one| one.helps.is_some()).collect();
    if !helps.is_empty() {
        print("\n")?;
    }
    for one in helps {
        print(&format!("{}: {}\n", one.what, one.helps.as_deref().unwrap_or_default()))?;
    }
    Ok(is_well)
}

#[derive(Serialize)]
struct Told<'a> {
    what: &'a str,
    grade: &'a str,
    found: &'a str,
    helps: Option<&'a str>,
}

impl<'a> Told<'a> {
    fn of(one: &'a Finding) -> Told<'a> {
        Told { what: one.what, grade: one.grade.name(), found: &one.found, helps: one.helps.as_deref() }
    }
}

/// What is to be looked at besides the machine.
enum Meant {
    Nothing,
    /// One that is no store yet.
    Directory(PathBuf),
    Store(Target),
}

/// Without a directory and a store the machine alone.
fn meant(store: Option<PathBuf>, directory: Option<&Path>) -> Result<Meant> {
    let Some(directory) = directory else {
        let is_given = store.is_some();
        return match find_store(store) {
            Ok(found) => Ok(Meant::Store(found)),
            Err(error) if is_given => Err(error),
            Err(_) => Ok(Meant::Nothing),
        };
    };
    let directory = absolute(directory)?;
    match locate_store(&directory) {
        Ok(found) if is_store(&found.store) => Ok(Meant::Store(found)),
        _ => Ok(Meant::Directory(directory)),
    }
}

fn of_store(store: &Target) -> Result<Vec<Finding>> {
    let status = match ask_status(store) {
        Ok(status) => status,
        Err(error) => {
            let helps = "what is said there comes first; `pitfs check` and the log of the daemon tell more";
            let mut all = look_at_directory(&store.store)?;
            all.push(Finding::bad("store", error.to_string(), helps));
            return Ok(all);
        }
    };
    let mut all = look_at_directory(status.store.as_path())?;
    all.extend(health(&status));
    all.extend([clock(&status), mount(&status)]);
    all.extend(archives(&status));
    all.extend(targets(store)?);
    all.extend(ages(&status));
    Ok(all)
}

fn health(status: &StatusInfo) -> Vec<Finding> {
    let state = status.health.state;
    let is_bad = !matches!(state, HealthState::Normal | HealthState::Degraded);
    let told = status.health.troubles.iter().enumerate().map(|(at, trouble)| match is_bad && at == 0 {
        true => Finding::bad("store", format!("{}: {}", state.name(), trouble.what), trouble.helps.clone()),
        false => Finding::poor("store", trouble.what.clone(), trouble.helps.clone()),
    });
    let told: Vec<Finding> = told.collect();
    if told.is_empty() { vec![Finding::good("store", state.name())] } else { told }
}

fn clock(status: &StatusInfo) -> Finding {
    let now = Timestamp::now();
    let newest = status.done.iter().map(|done| done.time.seconds).max().unwrap_or_default();
    let found = format!("it is {}", now.as_text());
    if now.seconds < YEAR {
        return Finding::bad("clock", found, "set it: snapshots are found by their times");
    }
    match newest > now.seconds + CLOCKS {
        true => Finding::poor(
            "clock",
            format!("{found}, and something was done after that"),
            "set it, or wait: times then mean what they say",
        ),
        false => Finding::good("clock", found),
    }
}

fn mount(status: &StatusInfo) -> Finding {
    match (&status.mount_point, status.transport.as_deref()) {
        (Some(path), Some("rings")) => Finding::good("mount", format!("at {path}, through rings")),
        (Some(path), _) => Finding::good("mount", format!("at {path}")),
        (None, _) => Finding::good("mount", "it is not mounted"),
    }
}

fn archives(status: &StatusInfo) -> Vec<Finding> {
    let whole = status.archives.iter().filter(|archive| archive.problems.is_empty());
    let told = |archive: &crate::control::ArchiveInfo| match archive.missing.len() {
        0 => Finding::good("archive", format!("{}, {}", archive.directory, size(archive.bytes))),
        missing => {
            let found = format!("{}, {missing} times of which cannot be read", archive.directory);
            Finding::poor("archive", found, "`pitfs list` names them with the reason")
        }
    };
    whole.map(told).collect()
}

fn targets(store: &Target) -> Result<Vec<Finding>> {
    let Answer::Targets(all) = ask(store, Verb::Target(Targets::List), &mut |_| Ok(()))? else {
        return Err(unexpected());
    };
    let told = |one: &crate::control::TargetInfo| {
        let directory = one.directory.as_path();
        let found = format!("{:?} at {}", one.name, shown_file(directory));
        match target::Target::is_one(directory) {
            true => Finding::good("target", found),
            false => {
                Finding::poor("target", format!("{found} is not there"), "attach or mount its disk: backups need it")
            }
        }
    };
    Ok(all.iter().map(told).collect())
}

fn ages(status: &StatusInfo) -> Vec<Finding> {
    let now = Timestamp::now();
    let of = |what: &'static str, most: i64, helps: &str| match status.seconds_since(what, now) {
        None => Finding::poor(what, "never", helps),
        Some(seconds) if seconds > most => Finding::poor(what, ago(seconds), helps),
        Some(seconds) => Finding::good(what, ago(seconds)),
    };
    vec![
        of(
            "snapshot",
            SNAPSHOT_OLD,
            "`pitfs snap` takes one; a timer takes them regularly, see \"EXAMPLES\" in pitfs(8)",
        ),
        of(
            "check",
            CHECK_OLD,
            "`pitfs check` reads everything, while the store is mounted and used; one of a store that is not mounted is not noted",
        ),
    ]
}
