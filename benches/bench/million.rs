//! A tree of a million small files at a target: what a few that changed cost.

use crate::command::{drop_caches, seconds};
use crate::report::{Table, Target, number};
use crate::samples::median;
use crate::scale::memory_of;
use crate::sets::read_rate;
use crate::store::Store;
use crate::{Bench, Result, fill};
use std::path::Path;
use std::time::Instant;

const FILES: f64 = 1e6;
const FILE_BYTES: usize = 500;
const CHANGED: usize = 100;
const MIB: f64 = (1 << 20) as f64;

/// Seconds of making the files.
fn build(store: &Store, files: usize) -> Result<f64> {
    let start = Instant::now();
    let daemon = store.open()?;
    let content = |i, number| fill::write(daemon.views().tree(), number, &fill::noise(i as u64 + 1, FILE_BYTES));
    fill::files(daemon.views().tree(), files, content)?;
    daemon.close()?;
    Ok(start.elapsed().as_secs_f64())
}

/// Takes a snapshot and keeps it; seconds of the latter.
fn keep(store: &Store, name: &str) -> Result<f64> {
    store.pitfs(["snap", name])?;
    rustix::fs::sync();
    let start = Instant::now();
    Ok(seconds(store.pitfs(["backup", name]), start))
}

pub fn run(bench: &mut Bench, ground: &Path) -> Result<()> {
    let files = bench.scaled(FILES).max(CHANGED);
    bench.report.doing(&format!("sets: a tree of {files} files"));
    let store = Store::create(&ground.join("many"))?;
    let [target, key] = ["copy", "key"].map(|name| ground.join("many").join(name));
    std::fs::create_dir(&target)?;
    let built = build(&store, files)?;
    store.mount()?;
    let [at, with] = [&target, &key].map(|path| path.display().to_string());
    store.pitfs(["target", "add", "target", &at, "--key-file", &with])?;
    let first = keep(&store, "first")?;
    let first_memory = memory_of(store.daemon()?, "VmHWM")?;
    let mut further = Vec::new();
    for time in 1..=bench.rounds {
        for change in 0..CHANGED {
            let path = fill::path((change * (files / CHANGED) + time) % files);
            std::fs::write(store.live().join(path), format!("changed {time} {change}"))?;
        }
        further.push(keep(&store, &format!("changed-{time}"))?);
    }
    let memory = memory_of(store.daemon()?, "VmHWM")?;
    store.umount()?;
    let title = format!("A tree of {files} files of {FILE_BYTES} bytes, which took {} s to make", number(built));
    let mut table = Table::new(&title, &["work", "value", "target"]);
    let mut row = |bench: &mut Bench, what: &str, value: f64, target: Option<Target>| {
        let verdict = target
            .map_or(String::new(), |target| bench.report.judge(&format!("sets, {files} files, {what}"), value, target));
        table.row([what.to_string(), number(value), verdict]);
    };
    row(bench, "`pitfs backup` of all, s", first, None);
    row(bench, "memory of the daemon after it, MiB", first_memory, None);
    row(bench, &format!("after {CHANGED} had changed, s"), median(&further), Some(Target::AtMost(1.0)));
    row(bench, "memory of the daemon at the end, MiB", memory, Some(Target::AtMost(150.0)));
    if drop_caches() {
        let (bytes, read) = read_rate(&target)?;
        drop_caches();
        let rate = bytes / MIB / store.timed(["set", "verify"]);
        row(bench, "at the target, MiB", bytes / MIB, None);
        row(bench, "reading that, cold, MiB/s", read, None);
        row(bench, "`pitfs set verify`, cold, MiB/s", rate, None);
        row(bench, "of reading", rate / read, Some(Target::AtLeast(0.7)));
    }
    bench.report.table(&table)
}
