//! A large store: how long it takes to open, how much memory it wants, and what its snapshots cost.

use crate::command::{drop_caches, seconds, timed};
use crate::place::Ground;
use crate::report::{Table, Target, number};
use crate::samples::{Samples, median};
use crate::store::{Store, delete_snapshots};
use crate::{Bench, Result, fill};
use pitfs::daemon::Daemon;
use pitfs::device::{InodeNo, LIVE, Moment};
use pitfs::limits::{META_CACHE_BYTES, TRACK_BYTES_DEFAULT, TRACK_CACHE_BYTES};
use pitfs::tree::ROOT;
use std::path::Path;
use std::time::Instant;

const FILES: f64 = 1e6;
const TRACKS: f64 = 1e7;
const SNAPSHOTS: f64 = 1e4;
const SNAPSHOTS_FEW: usize = 10;
/// Of so many files one is large, and has its share of the tracks; the others have one track each.
const FILES_PER_LARGE: usize = 100;
const SMALL_BYTES: u64 = 4000;
const CHANGES_PER_SNAPSHOT: usize = 5;
/// Tracks of which all others are copies.
const TEMPLATE_TRACKS: usize = 256;
const MIB: f64 = (1 << 20) as f64;

pub fn run(bench: &mut Bench) -> Result<()> {
    let ground = Ground::new(&bench.work)?;
    let store = Store::create(&ground.dir.join("pitfs"))?;
    let files = bench.scaled(FILES).max(FILES_PER_LARGE);
    let snapshots = bench.scaled(SNAPSHOTS).max(2 * SNAPSHOTS_FEW);
    let tracks_of_large = (bench.scaled(TRACKS).saturating_sub(files) / (files / FILES_PER_LARGE)).max(1);
    bench.report.doing(&format!("scale: making {files} files, the large ones of {tracks_of_large} tracks"));
    let mut times = Samples::new(["few", "many"]);
    let built = {
        let daemon = store.open()?;
        let built = build(&daemon, files, tracks_of_large)?;
        take_snapshots(&daemon, &built.files, 0..SNAPSHOTS_FEW)?;
        measure_snapshots(&daemon, &built, SNAPSHOTS_FEW, "few", &mut times)?;
        bench.report.doing(&format!("scale: taking {snapshots} snapshots"));
        take_snapshots(&daemon, &built.files, SNAPSHOTS_FEW..snapshots)?;
        measure_snapshots(&daemon, &built, snapshots, "many", &mut times)?;
        daemon.close()?;
        built
    };
    let title = format!(
        "A store of {files} files, {} tracks and {snapshots} snapshots, which took {} s to make",
        built.tracks,
        number(built.seconds)
    );
    let many = format!("with {snapshots}");
    let mut table =
        Table::new(&title, &["in the daemon, ms", &format!("with {SNAPSHOTS_FEW} snapshots"), &many, "ratio"]);
    for row in times.rows() {
        let [few, many] = ["few", "many"].map(|column| times.median(column, row));
        table.row([row.to_string(), number(few), number(many), number(many / few)]);
    }
    bench.report.table(&table)?;
    opening(bench, &store)?;
    memory(bench, &store)?;
    metadata(bench, &store, built.logical)?;
    drop(store);
    import(bench, &ground.dir)
}

struct Built {
    files: Vec<InodeNo>,
    tracks: u64,
    /// Bytes of all files.
    logical: u64,
    seconds: f64,
}

/// Makes the files; their tracks are copies of a few that are stored.
fn build(daemon: &Daemon, files: usize, tracks_of_large: usize) -> Result<Built> {
    let start = Instant::now();
    let tree = daemon.views().tree();
    let [large, small] = ["large", "small"].map(|name| fill::file(tree, name));
    let (large, small) = (large?, small?);
    for track in 0..TEMPLATE_TRACKS {
        let noise = fill::noise(track as u64, TRACK_BYTES_DEFAULT);
        tree.files().write(large, (track * TRACK_BYTES_DEFAULT) as u64, &noise, false)?;
    }
    tree.files().write(small, 0, &fill::noise(0, SMALL_BYTES as usize), false)?;
    // What is copied out of a snapshot has a place already, and need not be flushed.
    let template = Moment::At(daemon.views().snapshots().take(Some(b"template"))?.epoch);
    let (mut tracks, mut logical) = (0, 0);
    let numbers = fill::files(tree, files, |i, number| {
        if i % FILES_PER_LARGE > 0 {
            (tracks, logical) = (tracks + 1, logical + SMALL_BYTES);
            return fill::share(tree, small.at(template), number, SMALL_BYTES);
        }
        let bytes = (tracks_of_large * TRACK_BYTES_DEFAULT) as u64;
        (tracks, logical) = (tracks + tracks_of_large as u64, logical + bytes);
        fill::share(tree, large.at(template), number, bytes)
    })?;
    delete_snapshots(daemon, &[b"template"])?;
    daemon.finish_deletions()?;
    Ok(Built { files: numbers, tracks, logical, seconds: start.elapsed().as_secs_f64() })
}

fn name(i: usize) -> Vec<u8> {
    format!("kept-{i}").into_bytes()
}

/// Changes a few small files before each snapshot.
fn take_snapshots(daemon: &Daemon, files: &[InodeNo], which: std::ops::Range<usize>) -> Result<()> {
    for i in which {
        change(daemon, files, i)?;
        daemon.views().snapshots().take(Some(&name(i)))?;
    }
    Ok(())
}

fn change(daemon: &Daemon, files: &[InodeNo], seed: usize) -> Result<()> {
    for change in 0..CHANGES_PER_SNAPSHOT {
        // Spread over all of them; a prime, so that no file is met twice for long.
        let at = (seed * CHANGES_PER_SNAPSHOT + change) * 7919 % files.len();
        fill::write(daemon.views().tree(), files[at], format!("changed {seed}").as_bytes())?;
    }
    Ok(())
}

/// Times of what people do with snapshots, in milliseconds.
fn measure_snapshots(daemon: &Daemon, built: &Built, count: usize, column: &str, times: &mut Samples) -> Result<()> {
    const TIMES: usize = 10;
    let views = daemon.views();
    let tree = views.tree();
    let mut add = |row: &str, start: Instant| times.add(column, row, start.elapsed().as_secs_f64() * 1e3);
    for i in 0..TIMES {
        change(daemon, &built.files, count + i)?;
        let start = Instant::now();
        let snapshot = views.snapshots().take(Some(b"one more"))?;
        add("taking one", start);
        let start = Instant::now();
        views.snapshots().all()?;
        add("listing all", start);
        let middle = count / 2 + i % 2;
        let start = Instant::now();
        let moments = [views.moment(&name(middle - 1))?, views.moment(&name(middle))?];
        tree.comparison().diff(LIVE, moments[0], moments[1])?;
        add("comparing two neighbours in the middle", start);
        let start = Instant::now();
        tree.comparison().diff(LIVE, moments[0], Moment::At(snapshot.epoch))?;
        add("comparing the middle with the newest", start);
        let path = fill::path(built.files.len() / TIMES * i);
        for (row, snapshot) in [("looking up a path in the oldest", name(0)), ("in the newest", name(count - 1))] {
            let start = Instant::now();
            tree.names().resolve(LIVE, path.as_bytes(), views.moment(&snapshot)?)?;
            add(row, start);
        }
        let start = Instant::now();
        tree.names().resolve(LIVE, path.as_bytes(), Moment::Live)?;
        add("in live", start);
        let start = Instant::now();
        tree.names().list(ROOT.at(views.moment(&name(0))?), 0, |_| Ok(true))?;
        add("listing the root of the oldest", start);
        let start = Instant::now();
        delete_snapshots(daemon, &[b"one more"])?;
        add("deleting it", start);
        daemon.finish_deletions()?;
        add("deleting it, until its room is free", start);
    }
    Ok(())
}

fn opening(bench: &mut Bench, store: &Store) -> Result<()> {
    bench.report.doing("scale: opening and mounting");
    let mut times = Samples::new(["seconds"]);
    for _ in 0..bench.rounds {
        for is_cold in [true, false] {
            let words = if is_cold { "caches empty" } else { "caches full" };
            if is_cold && !drop_caches() {
                continue;
            }
            let start = Instant::now();
            let daemon = store.open()?;
            times.add("seconds", &format!("opening, {words}"), start.elapsed().as_secs_f64());
            daemon.close()?;
            drop(daemon);
            if is_cold {
                drop_caches();
            }
            let start = Instant::now();
            let mounted = seconds(store.mount(), start);
            times.add("seconds", &format!("`pitfs mount`, {words}"), mounted);
            store.umount()?;
        }
    }
    let mut table = Table::new("Opening it", &["what", "seconds", "target"]);
    for row in times.rows() {
        let value = times.median("seconds", row);
        table.row([row.to_string(), number(value), bench.report.judge(row, value, Target::AtMost(0.2))]);
    }
    bench.report.table(&table)
}

/// Memory of a process in MiB: `VmRSS` is what is resident now, `VmHWM` the most that was.
pub fn memory_of(process: i32, what: &str) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    let number = line.and_then(|rest| rest.trim().strip_suffix(" kB")).ok_or(format!("no {what}"))?;
    Ok(number.trim().parse::<f64>()? / 1024.0)
}

fn memory(bench: &mut Bench, store: &Store) -> Result<()> {
    bench.report.doing("scale: memory of the daemon, while everything is looked at and some is read");
    store.mount()?;
    let process = store.daemon()?;
    let caches = (META_CACHE_BYTES + TRACK_CACHE_BYTES) as f64 / MIB;
    let header = ["after", "seconds", "resident, MiB", &format!("beyond {caches} MiB of caches"), "target"];
    let mut table = Table::new("Memory of the daemon", &header);
    let live = store.live();
    let show = |path: &Path| path.display().to_string();
    let steps = [
        ("mounting", None),
        ("find over live", Some(format!("find '{}' -printf '%s\\n'", show(&live)))),
        (
            "reading a tenth of the small files",
            Some(format!("find '{}' -path '*/d*0/*[1-9]' -type f -print0 | xargs -0 cat", show(&live))),
        ),
        (
            "reading four large files",
            Some(format!("cd '{}' && cat d0/f0 d0/f100 d0/f200 d0/f300 || cat d0/f0", show(&live))),
        ),
        (
            "find over the oldest snapshot",
            Some(format!("find '{}' -printf '%s\\n'", show(&store.snap().join("kept-0")))),
        ),
        ("listing the mount and `pitfs list`", Some(format!("ls -l '{}'", show(&store.snap())))),
    ];
    for (what, line) in steps {
        let seconds = line.map_or(f64::NAN, |line| timed(&line));
        if what.contains("list`") {
            store.pitfs(["list"])?;
        }
        let found = memory_of(process, "VmRSS")?;
        let verdict = bench.report.judge(&format!("memory after {what}"), found - caches, Target::AtMost(100.0));
        table.row([what.to_string(), number(seconds), number(found), number(found - caches), verdict]);
    }
    store.umount()?;
    bench.report.table(&table)
}

fn metadata(bench: &mut Bench, store: &Store, logical: u64) -> Result<()> {
    let daemon = store.open()?;
    let space = daemon.views().tree().space()?;
    daemon.close()?;
    let [meta, stored, logical] = [space.meta, space.live + space.log, logical].map(|bytes| bytes as f64 / MIB);
    let mut table = Table::new("Its metadata", &["", "MiB", "metadata of it, %"]);
    table.row(["metadata".to_string(), number(meta), String::new()]);
    table.row(["data of all files".to_string(), number(logical), number(100.0 * meta / logical)]);
    table.row(["stored data, which the files share".to_string(), number(stored), number(100.0 * meta / stored)]);
    bench.report.table(&table)
}

/// Metadata of large files that share nothing.
fn import(bench: &mut Bench, ground: &Path) -> Result<()> {
    const FILE: u64 = 64 << 20;
    let files = bench.scaled(64.0);
    bench.report.doing(&format!("scale: importing {files} files of 64 MiB"));
    let store = Store::create(&ground.join("import"))?;
    let daemon = store.open()?;
    let tree = daemon.views().tree();
    let before = tree.space()?;
    let mut seconds = Vec::new();
    for i in 0..files {
        let start = Instant::now();
        let number = fill::file(tree, &format!("large{i}"))?;
        let mut noise = fill::noise(i as u64, 1 << 20);
        for at in (0..FILE).step_by(1 << 20) {
            // Different for each piece.
            noise.rotate_left(1);
            tree.files().write(number, at, &noise, false)?;
        }
        seconds.push(start.elapsed().as_secs_f64());
    }
    tree.commit()?;
    let space = tree.space()?;
    daemon.close()?;
    let (data, stored) = ((files as u64 * FILE) as f64, (space.live - before.live) as f64);
    let meta = space.meta as f64;
    let rate = FILE as f64 / MIB / median(&seconds);
    let title = format!("Metadata of large files with tracks of {} KiB", TRACK_BYTES_DEFAULT >> 10);
    let mut table = Table::new(
        &title,
        &["files of 64 MiB", "data, MiB", "stored, MiB", "metadata, MiB", "% of data", "target", "MiB/s"],
    );
    let percent = 100.0 * meta / data;
    let verdict = bench.report.judge("metadata of large files, %", percent, Target::AtMost(0.2));
    let numbers = [data / MIB, stored / MIB, meta / MIB, percent].map(number);
    table.row(std::iter::once(files.to_string()).chain(numbers).chain([verdict, number(rate)]));
    bench.report.table(&table)
}
