//! Reading a tree through a long chain of increments, beside the same tree in a snapshot that the store holds.

use crate::command::{drop_caches, seconds, shell, timed};
use crate::files::read_tree;
use crate::place::Ground;
use crate::report::{Table, Target, number};
use crate::samples::Samples;
use crate::store::Store;
use crate::{Bench, Result, fill};
use pitfs::daemon::{Daemon, RollOptions};
use pitfs::device::InodeNo;
use serde_bytes::ByteBuf;
use std::path::Path;
use std::time::Instant;

const INCREMENTS: f64 = 1000.0;
const FILES: f64 = 2000.0;
const CHANGES_EACH: usize = 5;
const FILE_BYTES_MAX: usize = 20_000;

const ARCHIVED: &str = "archived";
const STORED: &str = "stored";

fn name(i: usize) -> String {
    format!("time-{i}")
}

/// Makes a tree and changes it before each time; `keep` takes the times. Both stores get the same.
fn build(daemon: &Daemon, files: usize, times: usize, keep: impl Fn(&Daemon, &str) -> Result<()>) -> Result<()> {
    let tree = daemon.views().tree();
    let content = |seed: usize| fill::noise(seed as u64 + 1, 200 + seed * 7919 % FILE_BYTES_MAX);
    let numbers: Vec<InodeNo> = fill::files(tree, files, |i, number| fill::write(tree, number, &content(i)))?;
    keep(daemon, &name(0))?;
    for i in 1..times {
        for change in 0..CHANGES_EACH {
            let seed = i * CHANGES_EACH + change;
            // Spread over all of them; a prime, so that no file is met twice for long.
            fill::write(tree, numbers[seed * 7919 % files], &content(seed))?;
        }
        fill::write(tree, fill::file(tree, &format!("new-{i}"))?, b"new")?;
        keep(daemon, &name(i))?;
    }
    daemon.finish_deletions()?;
    Ok(daemon.views().tree().commit()?)
}

/// One way to see all of a time: listing it and reading it, each with empty caches and again at once.
fn measure(store: &Store, time: &str, mut add: impl FnMut(&str, f64)) -> Result<()> {
    let at = store.snap().join(time);
    let list = format!("find '{}' -printf '%s %T@\\n'", at.display());
    for (what, line) in [("listing", list), ("reading", read_tree(&at))] {
        store.umount()?;
        let is_cold = drop_caches();
        store.mount()?;
        let first = timed(&line);
        add(&format!("{what} all, cold"), if is_cold { first } else { f64::NAN });
        add(&format!("{what} all, warm"), timed(&line));
    }
    Ok(())
}

fn mounting(store: &Store) -> Result<f64> {
    store.umount()?;
    drop_caches();
    let start = Instant::now();
    Ok(seconds(store.mount(), start))
}

fn roll(archive: &Path) -> impl Fn(&Daemon, &str) -> Result<()> {
    let archive = archive.to_path_buf();
    move |daemon, name| {
        let options = RollOptions { archive: Some(archive.clone()), keep: Some(1), name: Some(ByteBuf::from(name)) };
        daemon.rolls().roll(daemon.views(), &options, &mut |_| Ok(()))?;
        Ok(())
    }
}

pub fn run(bench: &mut Bench) -> Result<()> {
    let ground = Ground::new(&bench.work)?;
    let (increments, files) = (bench.scaled(INCREMENTS).max(2), bench.scaled(FILES).max(100));
    let archive = ground.dir.join("archive");
    let archived = Store::create(&ground.dir.join(ARCHIVED))?;
    let stored = Store::create(&ground.dir.join(STORED))?;
    bench.report.doing(&format!("points: rolling {increments} increments"));
    let start = Instant::now();
    let daemon = archived.open()?;
    build(&daemon, files, increments + 1, roll(&archive))?;
    daemon.close()?;
    drop(daemon);
    let rolled = start.elapsed().as_secs_f64();
    let daemon = stored.open()?;
    build(&daemon, files, increments + 1, |daemon, name| {
        Ok(daemon.views().snapshots().take(Some(name.as_bytes())).map(|_| ())?)
    })?;
    daemon.close()?;
    drop(daemon);
    let stores = [(ARCHIVED, archived), (STORED, stored)];
    for (_, store) in &stores {
        store.mount()?;
    }
    let mut samples = Samples::new([ARCHIVED, STORED]);
    let times = [("the oldest", 0), ("the middle one", increments / 2)];
    for (_, time) in times {
        let [at, other] = [0, 1].map(|i: usize| stores[i].1.snap().join(name(time)));
        shell(&format!("diff -r --no-dereference '{}' '{}'", at.display(), other.display()))
            .map_err(|error| format!("the archived time {time} is not what the store has: {error}"))?;
    }
    for round in 1..=bench.rounds {
        bench.report.doing(&format!("points: reading through {increments} increments, round {round}"));
        for (words, time) in times {
            for (column, store) in (0..2).map(|i| &stores[(i + round) % 2]) {
                measure(store, &name(time), |row, value| samples.add(column, &format!("{row}, {words}"), value))?;
            }
        }
        for (column, store) in &stores {
            samples.add(column, MOUNTING, mounting(store)?);
        }
    }
    let title = format!(
        "A tree of {files} files through a chain of {increments} increments, which took {} s to make",
        number(rolled)
    );
    let header = ["seconds", "in a snapshot in the store", "in the archive", "ratio", "target"];
    let mut table = Table::new(&title, &header);
    for row in samples.rows() {
        let [archived, stored] = [ARCHIVED, STORED].map(|column| samples.median(column, row));
        let ratio = archived / stored;
        let verdict = match row {
            MOUNTING => String::new(),
            _ => bench.report.judge(&format!("a chain of increments, {row}"), ratio, Target::AtMost(2.0)),
        };
        table.row([row.to_string(), number(stored), number(archived), number(ratio), verdict]);
    }
    bench.report.table(&table)?;
    drop(stores);
    Ok(std::fs::remove_dir_all(archive)?)
}

const MOUNTING: &str = "mounting, cold";
