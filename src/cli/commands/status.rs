//! `status`: what a store takes, what is under way, and its snapshots.

use super::args::Status;
use super::bases::base_rows;
use super::list::snapshot_row;
use super::output::{count, print, print_json, size, table, tell};
use super::unexpected;
use crate::control::{Answer, StatusInfo, Target, Verb, WorkerInfo, ask};
use crate::error::Result;
use crate::shown::line;

pub(super) fn status(store: &Target, args: &Status) -> Result<bool> {
    let Answer::Status(status) = ask(store, Verb::Status, &mut |_| Ok(()))? else { return Err(unexpected()) };
    if args.json {
        return print_json(&status).map(|()| status.stopped.is_none());
    }
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
