//! Taking snapshots, of small stores and large ones, while nothing else goes on and beside a writer.

use crate::command::{Running, ok, seconds};
use crate::files::Input;
use crate::place::Ground;
use crate::report::{Table, Target, number};
use crate::samples::{median, quantile};
use crate::store::{Store, delete_snapshots};
use crate::{Bench, Result, differences, fill, latency};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const FILES: [f64; 3] = [1e3, 1e5, 1e6];
const SNAPSHOTS_A_ROUND: usize = 10;
const CONTENT: &[u8] = &[b'.'; 100];

pub fn run(bench: &mut Bench) -> Result<()> {
    taking(bench)?;
    differences::run(bench)?;
    latency::run(bench)
}

/// Takes `count` snapshots, with a pause after each; milliseconds of each.
fn repeat(count: usize, mut take: impl FnMut(&str) -> Result<()>) -> Vec<f64> {
    let one = |i| {
        let name = format!("s{i}");
        let start = Instant::now();
        let took = seconds(take(&name), start);
        std::thread::sleep(Duration::from_millis(20));
        took * 1e3
    };
    (0..count).map(one).collect()
}

/// In this process, which has the store open.
fn inside(store: &Store, count: usize, has_writer: bool) -> Result<Vec<f64>> {
    let daemon = store.open()?;
    let views = daemon.views();
    let end = AtomicBool::new(false);
    let noise = fill::noise(1, 1 << 20);
    let times = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let Ok(number) = fill::file(views.tree(), "stream") else { return };
            for i in (0..256).cycle().take_while(|_| has_writer && !end.load(Ordering::Relaxed)) {
                if views.tree().files().write(number, i << 20, &noise, false).is_err() {
                    return;
                }
            }
        });
        if has_writer {
            std::thread::sleep(Duration::from_millis(500));
        }
        let times = repeat(count, |name| {
            views.snapshots().take(Some(name.as_bytes()))?;
            Ok(())
        });
        end.store(true, Ordering::Relaxed);
        if writer.join().is_err() {
            eprintln!("bench: the writer failed");
        }
        times
    });
    let names: Vec<String> = (0..count).map(|i| format!("s{i}")).collect();
    delete_snapshots(&daemon, &names.iter().map(String::as_bytes).collect::<Vec<_>>())?;
    let root = pitfs::tree::ROOT;
    views.tree().names().unlink(root, b"stream")?;
    daemon.finish_deletions()?;
    daemon.close()?;
    Ok(times)
}

/// A line of shell that writes without end.
fn stream(to: &Path, random: &Path) -> String {
    let source = format!("for i in 1 2 3 4; do cat '{}'; done", random.display());
    format!("while {source} | dd of='{}' bs=1M iflag=fullblock conv=notrunc; do :; done", to.display())
}

/// Through the mount: commands, and mkdir.
fn outside(store: &Store, count: usize, random: &Path, has_writer: bool) -> Result<[Vec<f64>; 2]> {
    let file = store.live().join("stream");
    let writer = if has_writer { Some(Running::shell(&stream(&file, random))?) } else { None };
    if has_writer {
        std::thread::sleep(Duration::from_millis(500));
    }
    let remove = || -> Result<()> {
        let names: Vec<String> = (0..count).map(|i| format!("s{i}")).collect();
        store.pitfs(std::iter::once("delete".to_string()).chain(names)).map(|_| ())
    };
    let by_command = repeat(count, |name| store.pitfs(["snap", name]).map(|_| ()));
    remove()?;
    let by_mkdir = repeat(count, |name| Ok(fs::create_dir(store.snap().join(name))?));
    remove()?;
    drop(writer);
    if has_writer {
        fs::remove_file(&file)?;
    }
    Ok([by_command, by_mkdir])
}

/// What the disk needs for one small durable write, and the system for a command that does nothing.
fn floor(ground: &Path, store: &Store) -> Result<[f64; 2]> {
    use std::os::unix::fs::FileExt;
    let path = ground.join("floor");
    let file = fs::File::create(&path)?;
    file.write_all_at(&[1; 4096], 0)?;
    file.sync_all()?;
    let sync = |i: u8| {
        let start = Instant::now();
        let written = file.write_all_at(&[i; 4096], 0).and_then(|()| file.sync_data());
        seconds(written.map_err(Into::into), start) * 1e3
    };
    let sync = median(&(0..50).map(sync).collect::<Vec<_>>());
    fs::remove_file(&path)?;
    let command = |_| {
        let start = Instant::now();
        seconds(ok(&mut Command::new("true")), start) * 1e3
    };
    let command = median(&(0..50).map(command).collect::<Vec<_>>());
    let list = median(&(0..20).map(|_| store.timed(["list"]) * 1e3).collect::<Vec<_>>());
    eprintln!("# a durable write of 4 KiB {sync:.2} ms, true(1) {command:.2} ms, pitfs list {list:.2} ms");
    Ok([sync, list])
}

fn taking(bench: &mut Bench) -> Result<()> {
    let input = Input::new(bench)?;
    let ground = Ground::new(&bench.work)?;
    let header = ["files in the store", "how", "beside", "median, ms", "99 %, ms", "target"];
    let mut table = Table::new("Taking a snapshot", &header);
    let count = SNAPSHOTS_A_ROUND * bench.rounds;
    let mut floors = [f64::NAN; 2];
    for files in FILES.map(|files| bench.scaled(files)) {
        bench.report.doing(&format!("snapshots: taking them with {files} files"));
        let store = Store::create(&ground.dir.join("pitfs"))?;
        let daemon = store.open()?;
        fill::files(daemon.views().tree(), files, |_, number| fill::write(daemon.views().tree(), number, CONTENT))?;
        daemon.close()?;
        drop(daemon);
        let mut row = |how: &str, beside: &str, times: &[f64], target: Option<Target>| {
            let what = format!("snapshot of {files} files, {how}, {beside}");
            let verdict = target.map_or(String::new(), |target| bench.report.judge(&what, median(times), target));
            let numbers = [median(times), quantile(times, 0.99)].map(number);
            let words = [files.to_string(), how.to_string(), beside.to_string()];
            table.row(words.into_iter().chain(numbers).chain([verdict]));
        };
        for (has_writer, beside) in [(false, "nothing"), (true, "a program that streams")] {
            let target = |limit| Some(Target::AtMost(limit)).filter(|_| !has_writer);
            row("in the daemon", beside, &inside(&store, count, has_writer)?, target(1.0));
            store.mount()?;
            if !has_writer {
                floors = floor(&ground.dir, &store)?;
            }
            let [by_command, by_mkdir] = outside(&store, count, &input.random, has_writer)?;
            store.umount()?;
            row("`pitfs snap`", beside, &by_command, target(5.0));
            row("mkdir", beside, &by_mkdir, None);
        }
    }
    bench.report.table(&table)?;
    let [sync, list] = floors.map(number);
    bench.report.line(&format!(
        "\nFor comparison: writing 4 KiB to a file beside the store and fdatasync, {sync} ms; `pitfs list`, {list} ms."
    ))
}
