//! Restoring in place, by how much it changes: until it returns, and until it is settled.

use crate::command::seconds;
use crate::place::Ground;
use crate::report::{Table, Target, number};
use crate::samples::Samples;
use crate::store::{Store, delete_snapshots};
use crate::{Bench, Result, fill};
use pitfs::control::{Answer, Base, Verb};
use pitfs::device::{InodeNo, Moment};
use pitfs::limits::TRACK_BYTES_MIN;
use serde_bytes::ByteBuf;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

const TRACKS: [f64; 3] = [10.0, 1e4, 1e6];
const TRACKS_EACH_MAX: usize = 1000;
/// Files that are open and in the kernel's caches.
const OPEN: usize = 8;
const POLL: Duration = Duration::from_millis(2);

/// The two states of the tree between which it goes, and what their files begin with.
const STATES: [&str; 2] = ["before", "after"];

const REQUEST: &str = "the request in the daemon, ms";
const FIRST_READ: &str = "the first read after it, ms";
const COMMAND: &str = "`pitfs restore`, ms";
const SETTLED: &str = "until settled, ms";
const PATH_REQUEST: &str = "one file: the request, ms";
const PATH_COMMAND: &str = "one file: `pitfs restore`, ms";

/// A store in which this many tracks differ between two snapshots, and how many files they lie in. All are copies of
/// the tracks of one file.
fn build(store: &Store, tracks: usize) -> Result<usize> {
    let daemon = store.open()?;
    let tree = daemon.views().tree();
    let each = tracks.min(TRACKS_EACH_MAX);
    let mut templates = Vec::new();
    for (i, name) in STATES.iter().enumerate() {
        let number = fill::file(tree, &format!("template-{name}"))?;
        for track in 0..each {
            let noise = fill::noise((i * each + track + 1) as u64, TRACK_BYTES_MIN);
            tree.files().write(number, (track * TRACK_BYTES_MIN) as u64, &noise, false)?;
        }
        templates.push(number);
    }
    let moment = Moment::At(daemon.views().snapshots().take(Some(b"templates"))?.epoch);
    let bytes = (each * TRACK_BYTES_MIN) as u64;
    let share = |from: InodeNo, number| fill::share(tree, from.at(moment), number, bytes);
    let files = fill::files(tree, tracks / each, |_, number| share(templates[0], number))?;
    daemon.views().snapshots().take(Some(STATES[0].as_bytes()))?;
    files.iter().try_for_each(|number| share(templates[1], *number))?;
    daemon.views().snapshots().take(Some(STATES[1].as_bytes()))?;
    delete_snapshots(&daemon, &[b"templates"])?;
    daemon.finish_deletions()?;
    daemon.close()?;
    Ok(files.len())
}

/// How each file of a state begins.
fn head(store: &Store, state: &str) -> Result<Vec<u8>> {
    let mut head = vec![0; 4096];
    File::open(store.live().join(format!("template-{state}")))?.read_exact_at(&mut head, 0)?;
    Ok(head)
}

/// Reads files whole, so that the kernel has them; they stay open.
fn open(store: &Store, files: usize) -> Result<Vec<File>> {
    let open = |i: usize| -> Result<File> {
        let mut file = File::open(store.live().join(fill::path(i * files.div_ceil(OPEN) % files)))?;
        std::io::copy(&mut file, &mut std::io::sink())?;
        Ok(file)
    };
    (0..OPEN.min(files)).map(open).collect()
}

/// That files that were open all the time show this state; milliseconds of the first read.
fn check(files: &[File], head: &[u8], what: &str) -> Result<f64> {
    let mut first = f64::NAN;
    for (i, file) in files.iter().enumerate() {
        let mut found = vec![0; head.len()];
        let start = Instant::now();
        file.read_exact_at(&mut found, 0)?;
        if i == 0 {
            first = start.elapsed().as_secs_f64() * 1e3;
        }
        if found != head {
            return Err(format!("{what}: a file that was open shows something else").into());
        }
    }
    Ok(first)
}

fn wait_until_settled(store: &Store) -> Result<()> {
    loop {
        let Answer::Bases(bases) = store.ask(Verb::Base(Base::List))? else { return Err("no list of bases".into()) };
        if bases.iter().all(|base| base.settled_blocks.is_none()) {
            return Ok(());
        }
        std::thread::sleep(POLL);
    }
}

fn restore(state: &str, paths: &[&str]) -> Verb {
    let bytes = |text: &str| ByteBuf::from(text);
    Verb::Restore { snapshot: Some(bytes(state)), paths: paths.iter().map(|path| bytes(path)).collect(), group: None }
}

/// Goes there by request and back by command; then one file does.
fn measure(store: &Store, files: &[File], heads: &[Vec<u8>; 2], mut add: impl FnMut(&str, f64)) -> Result<()> {
    let milliseconds = |start: Instant| start.elapsed().as_secs_f64() * 1e3;
    let [before, after] = STATES;
    let start = Instant::now();
    store.ask(restore(before, &[]))?;
    add(REQUEST, milliseconds(start));
    add(FIRST_READ, check(files, &heads[0], "restoring by request")?);
    wait_until_settled(store)?;
    add(SETTLED, milliseconds(start));
    check(files, &heads[0], "restoring by request, settled")?;
    let start = Instant::now();
    store.pitfs(["restore", after])?;
    add(COMMAND, milliseconds(start));
    add(FIRST_READ, check(files, &heads[1], "restoring by command")?);
    wait_until_settled(store)?;
    add(SETTLED, milliseconds(start));
    one_file(store, &files[0], heads, add)
}

/// One file goes there by request and back by command.
fn one_file(store: &Store, file: &File, heads: &[Vec<u8>; 2], mut add: impl FnMut(&str, f64)) -> Result<()> {
    let one = fill::path(0);
    let file = std::slice::from_ref(file);
    let start = Instant::now();
    let asked = store.ask(restore(STATES[0], &[&one]));
    let shown = asked.and_then(|_| check(file, &heads[0], "restoring one file by request"));
    add(PATH_REQUEST, 1e3 * seconds(shown, start));
    wait_until_settled(store)?;
    let start = Instant::now();
    let ended = store.pitfs(["restore", STATES[1], &one]);
    let shown = ended.and_then(|_| check(file, &heads[1], "restoring one file by command"));
    add(PATH_COMMAND, 1e3 * seconds(shown, start));
    wait_until_settled(store)
}

pub fn run(bench: &mut Bench) -> Result<()> {
    let ground = Ground::new(&bench.work)?;
    let counts = TRACKS.map(|tracks| bench.scaled(tracks).max(TRACKS[0] as usize));
    let columns = counts.map(|count| count.to_string());
    let mut samples = Samples::new(columns.iter().map(String::as_str));
    for (count, column) in counts.into_iter().zip(&columns) {
        for round in 1..=bench.rounds {
            bench.report.doing(&format!("points: restoring {count} tracks in place, round {round}"));
            // Each time anew: what is settled is looked for in all that changed since, and that would grow.
            let store = Store::create_with(&ground.dir.join("pitfs"), &["--track-size", "16K"])?;
            let files = build(&store, count)?;
            store.mount()?;
            let heads = [head(&store, STATES[0])?, head(&store, STATES[1])?];
            let files = open(&store, files)?;
            measure(&store, &files, &heads, |row, value| samples.add(column, row, value))?;
            drop(files);
            store.umount()?;
        }
    }
    let title = "Restoring in place, by changed tracks of 16 KiB";
    let header = std::iter::once("").chain(columns.iter().map(String::as_str)).chain(["target"]);
    let mut table = Table::new(title, &header.collect::<Vec<_>>());
    for row in samples.rows() {
        let values: Vec<f64> = columns.iter().map(|column| samples.median(column, row)).collect();
        let most = values.iter().copied().fold(f64::NAN, f64::max);
        let is_judged = [REQUEST, COMMAND].contains(&row);
        let verdict = is_judged.then(|| bench.report.judge(&format!("restore, {row}"), most, Target::AtMost(50.0)));
        let numbers = values.into_iter().map(number);
        table.row(std::iter::once(row.to_string()).chain(numbers).chain([verdict.unwrap_or_default()]));
    }
    bench.report.table(&table)
}
