//! Making clones, and snapshots beside them; a writable snapshot of btrfs for comparison.

use crate::command::{has, ok};
use crate::place::{BTRFS, Places};
use crate::report::{Table, Target, number};
use crate::samples::{median, quantile};
use crate::store::{Store, delete_snapshots};
use crate::{Bench, Result, fill};
use pitfs::control::{CloneRequest, Snap, Verb};
use pitfs::view::CloneOptions;
use serde_bytes::ByteBuf;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const FILES: f64 = 1e4;
const TIMES_A_ROUND: usize = 10;
const CONTENT: &[u8] = &[b'.'; 100];
const SNAPSHOT: &str = "origin";

/// Milliseconds of each time, with a pause after it.
fn repeat(count: usize, mut take: impl FnMut(&str) -> Result<()>) -> Result<Vec<f64>> {
    let one = |i| -> Result<f64> {
        let name = format!("n{i}");
        let start = Instant::now();
        take(&name)?;
        let took = start.elapsed().as_secs_f64() * 1e3;
        std::thread::sleep(Duration::from_millis(20));
        Ok(took)
    };
    (0..count).map(one).collect()
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("n{i}")).collect()
}

/// In this process, which has the store open: clones, and snapshots.
fn inside(store: &Store, count: usize) -> Result<[Vec<f64>; 2]> {
    let daemon = store.open()?;
    let views = daemon.views();
    let clones = repeat(count, |name| {
        let of = [(views.expect(SNAPSHOT.as_bytes())?, name.as_bytes().to_vec())];
        let options = CloneOptions { is_shown_beside: true, ..CloneOptions::default() };
        views.bases().clone_all(&of, options, None)?;
        Ok(())
    })?;
    for name in names(count) {
        views.deletions().delete_base(views.bases().named(name.as_bytes())?, false)?;
    }
    daemon.finish_deletions()?;
    let snapshots = repeat(count, |name| {
        views.snapshots().take(Some(name.as_bytes()))?;
        Ok(())
    })?;
    delete_snapshots(&daemon, &names(count).iter().map(String::as_bytes).collect::<Vec<_>>())?;
    daemon.finish_deletions()?;
    daemon.close()?;
    Ok([clones, snapshots])
}

/// Asks the daemon that has it mounted, over its socket.
fn asked(store: &Store, count: usize) -> Result<[Vec<f64>; 2]> {
    let bytes = |text: &str| ByteBuf::from(text);
    let delete = || {
        let names = names(count).into_iter().map(ByteBuf::from).collect();
        store.ask(Verb::Delete { names, group: None, recursive: false }).map(|_| ())
    };
    let clones = repeat(count, |name| {
        let (snapshot, name) = (bytes(SNAPSHOT), bytes(name));
        store.ask(Verb::Clone(CloneRequest { snapshot, name, ..CloneRequest::default() })).map(|_| ())
    })?;
    delete()?;
    let snapshots =
        repeat(count, |name| store.ask(Verb::Snap(Snap { name: Some(bytes(name)), ..Snap::default() })).map(|_| ()))?;
    delete()?;
    Ok([clones, snapshots])
}

fn by_command(store: &Store, count: usize) -> Result<[Vec<f64>; 2]> {
    let delete = || store.pitfs(std::iter::once("delete".to_string()).chain(names(count))).map(|_| ());
    let clones = repeat(count, |name| store.pitfs(["clone", SNAPSHOT, name]).map(|_| ()))?;
    delete()?;
    let snapshots = repeat(count, |name| store.pitfs(["snap", name]).map(|_| ()))?;
    delete()?;
    Ok([clones, snapshots])
}

/// Writable snapshots of a subvolume, by command; they are durable when it returns.
fn of_btrfs(directory: &Path, files: usize, count: usize) -> Result<Vec<f64>> {
    let volume = directory.join("origin");
    ok(Command::new("btrfs").args(["subvolume", "create"]).arg(&volume))?;
    for i in 0..files {
        let path = volume.join(fill::path(i));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, CONTENT)?;
    }
    rustix::fs::sync();
    repeat(count, |name| {
        ok(Command::new("btrfs").args(["subvolume", "snapshot"]).arg(&volume).arg(directory.join(name))).map(|_| ())
    })
}

pub fn run(bench: &mut Bench) -> Result<()> {
    let places = Places::new(&bench.work)?;
    let store = &places.store;
    let files = bench.scaled(FILES);
    let count = TIMES_A_ROUND * bench.rounds;
    bench.report.doing(&format!("points: clones of {files} files"));
    store.umount()?;
    let daemon = store.open()?;
    let tree = daemon.views().tree();
    fill::files(tree, files, |_, number| fill::write(tree, number, CONTENT))?;
    daemon.views().snapshots().take(Some(SNAPSHOT.as_bytes()))?;
    daemon.close()?;
    drop(daemon);
    let inside = inside(store, count)?;
    store.mount()?;
    let (asked, by_command) = (asked(store, count)?, by_command(store, count)?);
    let header = ["what", "how", "median, ms", "99 %, ms", "target"];
    let mut table = Table::new(&format!("Clones and snapshots of {files} files"), &header);
    let mut row = |what: &str, how: &str, times: &[f64], target: Option<Target>| {
        let judged = format!("{what}, {how}");
        let verdict = target.map_or(String::new(), |target| bench.report.judge(&judged, median(times), target));
        let numbers = [median(times), quantile(times, 0.99)].map(number);
        table.row([what.to_string(), how.to_string()].into_iter().chain(numbers).chain([verdict]));
    };
    let all = [("in the daemon", inside), ("the request to the daemon", asked), ("`pitfs`", by_command)];
    for (how, [clones, snapshots]) in &all {
        let target = (*how == "in the daemon").then_some(Target::AtMost(1.0));
        row("clone", how, clones, target);
        row("snapshot", how, snapshots, target);
    }
    if let Some((_, directory)) = places.iter().find(|(name, _)| *name == BTRFS)
        && has("btrfs")
    {
        row("writable snapshot of btrfs", "`btrfs subvolume snapshot`", &of_btrfs(directory, files, count)?, None);
    }
    bench.report.table(&table)
}
