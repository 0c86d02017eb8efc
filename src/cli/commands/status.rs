//! `status`: what a store takes, what is under way, and its snapshots.

use super::args::Status;
use super::bases::base_rows;
use super::list::snapshot_row;
use super::output::{age, ago, count, print, print_json, size, table, tell};
use super::unexpected;
use crate::clock::Timestamp;
use crate::control::{Answer, DoneInfo, StatusInfo, Target, Verb, WorkerInfo, ask};
use crate::daemon::HealthState;
use crate::error::Result;
use crate::shown::line;

pub(super) fn ask_status(store: &Target) -> Result<Box<StatusInfo>> {
    match ask(store, Verb::Status, &mut |_| Ok(()))? {
        Answer::Status(status) => Ok(status),
        _ => Err(unexpected()),
    }
}

pub(super) fn status(store: &Target, args: &Status) -> Result<bool> {
    let status = ask_status(store)?;
    if args.json {
        return print_json(&status).map(|()| status.stopped.is_none());
    }
    print_health(&status)?;
    print_store(&status)?;
    print_workers(&status.workers)?;
    for save in &status.saves {
        let base = if status.bases.len() > 1 { format!("{}:", save.base) } else { String::new() };
        let place = if save.archived { ", in the archive" } else { "" };
        print(&format!("last save  {base}{}, {}{place}\n", save.name, save.time.text))?;
    }
    if status.bases.len() > 1 {
        print(&format!("\n{}", table(&base_rows(&status.bases))))?;
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
        tell(stopped);
    }
    Ok(status.stopped.is_none())
}

/// How it is, with what helps, and when it was last kept well.
fn print_health(status: &StatusInfo) -> Result<()> {
    let mut troubles = status.health.troubles.iter().map(|trouble| {
        let since = trouble.since.as_ref().map_or(String::new(), |since| format!("since {}: ", since.text));
        format!("{since}{}; {}", line(&trouble.what), trouble.helps)
    });
    let first = troubles.next().map_or(String::new(), |trouble| format!(", {trouble}"));
    print(&format!("state      {}{first}\n", status.health.state.name()))?;
    troubles.try_for_each(|trouble| print(&format!("           {trouble}\n")))?;
    let now = Timestamp::now().seconds;
    let told = |done: &DoneInfo| format!("{} {}", done.what, ago(now - done.time.seconds));
    let last: Vec<String> = status.done.iter().map(told).collect();
    if last.is_empty() { Ok(()) } else { print(&format!("last       {}\n", last.join(", "))) }
}

/// What monitoring asks: one line, and the exit status that plugins of Nagios have. A store that cannot be asked is unknown.
pub(super) fn check(store: Result<Target>, max_age: Option<u64>) -> Result<u8> {
    let verdict = store.and_then(|store| ask_status(&store));
    let (level, text) = match &verdict {
        Ok(status) => judge(status, max_age, Timestamp::now()),
        Err(error) => (Level::Unknown, error.to_string()),
    };
    print(&format!("PITFS {} - {}\n", level.name(), line(&text)))?;
    Ok(level as u8)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Ok,
    Warning,
    Critical,
    Unknown,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Ok => "OK",
            Level::Warning => "WARNING",
            Level::Critical => "CRITICAL",
            Level::Unknown => "UNKNOWN",
        }
    }
}

/// Seconds that clocks may differ.
pub(super) const CLOCKS: i64 = 300;

fn judge(status: &StatusInfo, max_age: Option<u64>, now: Timestamp) -> (Level, String) {
    let state = status.health.state;
    let mut level = match state {
        HealthState::Normal => Level::Ok,
        HealthState::Degraded => Level::Warning,
        HealthState::Full | HealthState::ReadOnly | HealthState::Stopped => Level::Critical,
    };
    let mut said = Vec::new();
    if state != HealthState::Normal {
        said.push(state.name().to_string());
    }
    said.extend(status.health.troubles.iter().map(|trouble| trouble.what.clone()));
    let wanted = [("snapshot", true), ("roll", !status.archives.is_empty()), ("backup", !status.targets.is_empty())];
    for (what, _) in wanted.into_iter().filter(|(_, is_wanted)| *is_wanted) {
        let Some(most) = max_age else { break };
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let (found, text) = match status.seconds_since(what, now) {
            Some(seconds) if seconds < -CLOCKS => (Level::Warning, format!("the last {what} is of a time to come")),
            Some(seconds) if seconds <= most => continue,
            Some(seconds) => {
                (Level::Critical, format!("the last {what} is {} old, {} at most", age(seconds), age(most)))
            }
            None => (Level::Critical, format!("there is no {what} yet")),
        };
        level = level.max(found);
        said.push(text);
    }
    if said.is_empty() {
        said.push(state.name().into());
    }
    let ages = status.done.iter().map(|done| format!("{}_age={}s", done.what, now.seconds - done.time.seconds));
    let figures = [format!("available={}B", status.available_bytes), format!("total={}B", status.total_bytes)];
    let figures: Vec<String> = figures.into_iter().chain(ages).collect();
    // What stands behind the bar is data to monitoring, and begins at the first.
    let said = said.join("; ").replace('|', "/");
    (level, format!("{}: {said} | {}", status.store, figures.join(" ")))
}

/// Where it is, what it takes, and its archives.
fn print_store(status: &StatusInfo) -> Result<()> {
    let mounted = match &status.mount_point {
        Some(path) if status.transport.as_deref() == Some("rings") => {
            format!("mounted at {path}, served through the kernel's rings")
        }
        Some(path) => format!("mounted at {path}"),
        None if status.only_read => "where it can only be read".into(),
        None => "not mounted".into(),
    };
    print(&format!(
        "store      {}, {mounted}\ntracks     {}, {}\n",
        status.store,
        size(status.track_bytes),
        match status.compression.as_str() {
            "none" => "not compressed".to_string(),
            how => format!("compressed with {how}"),
        }
    ))?;
    print(&format!(
        "live       {}\nlog        {}\nmetadata   {}\nfree       {}\n",
        size(status.live_bytes),
        size(status.log_bytes),
        size(status.metadata_bytes),
        size(status.available_bytes)
    ))?;
    if status.reserved_bytes > 0 {
        print(&format!("reserved   {}\n", size(status.reserved_bytes)))?;
    }
    if status.drop_oldest {
        print("when full  the oldest snapshots that are not held are dropped\n")?;
    }
    for archive in &status.archives {
        let increments = count(archive.increments.len() as u64, "increment");
        print(&format!("archive    {}, {increments}, {}\n", archive.directory, size(archive.bytes)))?;
        for problem in &archive.problems {
            print(&format!("           {}\n", line(problem)))?;
        }
        if let (Some(first), Some(last)) = (archive.missing.first(), archive.missing.last()) {
            print(&format!(
                "           {} cannot be read: {:?} ({}) to {:?} ({})\n",
                count(archive.missing.len() as u64, "time"),
                first.name,
                first.time.text,
                last.name,
                last.time.text
            ))?;
        }
    }
    Ok(())
}

/// What is under way in the background, and what holds it up.
fn print_workers(workers: &[WorkerInfo]) -> Result<()> {
    for worker in workers {
        let state = match (&worker.failure, &worker.waits_for) {
            (Some(failure), _) => format!("failed: {}", line(failure)),
            (None, Some(what)) => format!("waits for {what}"),
            (None, None) if worker.working => format!("at work, {}", count(worker.turns, "turn")),
            (None, None) => continue,
        };
        print(&format!("background {}: {state}\n", worker.name))?;
    }
    Ok(())
}
