//! Snapshots brought to a target one by one, and got back without the store, beside programs that back up.
//!
//! Each round begins anew, with the same history; each version goes to all programs, in an order that rotates. What pitfs has to
//! do before, to have the version and a snapshot of it, is not part of a backup and has a row of its own.

use crate::command::{cold, drop_caches, shell, timed};
use crate::place::Ground;
use crate::programs::{self, Program, Wanted, disk_usage};
use crate::report::{Table, Target, number};
use crate::samples::{Samples, median};
use crate::scale::memory_of;
use crate::store::{PITFS, Store};
use crate::versions::History;
use crate::work::unmount;
use crate::{Bench, Result, million};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

const VERSIONS: f64 = 40.0;
const MB: f64 = 40.0;
const MIB: f64 = (1 << 20) as f64;
/// The column that is judged, and the one that shows what encryption costs.
const ENCRYPTED: &str = "pitfs";
const PLAIN: &str = "pitfs, not encrypted";

const FIRST: &str = "first version, s";
const FURTHER: &str = "each further version, s";
const ALL_FURTHER: &str = "all further versions, s";
const BEFORE: &str = "sync and snapshot before each, s";
const ROOM: &str = "room, MiB";
const MEMORY: &str = "memory of the daemon at most, MiB";
const MOUNT: &str = "mount of what is kept, cold, ms";
const FIRST_READ: &str = "first read in the oldest, ms";
const VERIFY: &str = "verify, cold, s";
const VERIFY_RATE: &str = "verify, MiB/s";
const READ_RATE: &str = "reading the same files, cold, MiB/s";
const RESTORES: [(&str, When, bool); 6] = [
    ("restoring the oldest, s", When::Oldest, false),
    ("restoring the middle one, s", When::Middle, false),
    ("restoring the newest, s", When::Newest, false),
    ("restoring the oldest, cold, s", When::Oldest, true),
    ("restoring the middle one, cold, s", When::Middle, true),
    ("restoring the newest, cold, s", When::Newest, true),
];

#[derive(Clone, Copy)]
enum When {
    Oldest,
    Middle,
    Newest,
}

/// pitfs with a store that is mounted and a target.
fn pitfs(ground: &Path, name: &'static str) -> Result<(Program, Store)> {
    let (key, environment) = match name {
        ENCRYPTED => ("--key-file \"$at/key\"", "PITFS_KEY_FILE=\"$at/key\" "),
        _ => ("--no-encryption", ""),
    };
    let ours = format!("'{PITFS}' -s \"$at/store\"");
    let snapshot = format!("{ours} sync \"$source\" && {ours} snap v$version");
    let backup = format!("{ours} backup v$version");
    let program = Program {
        prepare: format!("mkdir \"$at/copy\" && {ours} target add target \"$at/copy\" {key}"),
        steps: vec![snapshot, "sync -f \"$source\"".to_string(), backup],
        restore: format!("{environment}'{PITFS}' -s \"$at/copy\" restore v$version --to \"$target\""),
        verify: format!("{ours} set verify"),
        mount: format!("{environment}'{PITFS}' mount \"$at/copy\" \"$target\""),
        load: format!("cat '{PITFS}'"),
        ..Program::new(ground, name)
    };
    let store = Store::mounted(&program.directory)?;
    Ok((program, store))
}

/// What one round has, in a directory of its own. Stores go before the directory that they lie in.
struct Round {
    directory: PathBuf,
    programs: Vec<Program>,
    stores: Vec<Store>,
    history: History,
    versions: usize,
    number: usize,
}

impl Round {
    fn begin(bench: &Bench, ground: &Path, number: usize) -> Result<Round> {
        let directory = ground.join(format!("round-{number}"));
        std::fs::create_dir(&directory)?;
        let (mut programs, mut stores) = (Vec::new(), Vec::new());
        for name in [ENCRYPTED, PLAIN] {
            let (program, store) = pitfs(&directory, name)?;
            programs.push(program);
            stores.push(store);
        }
        programs.extend(programs::others(&directory));
        for program in &programs {
            std::fs::create_dir_all(&program.directory)?;
            if !program.prepare.is_empty() {
                shell(&program.line(&program.prepare, &program.directory, 0, 0))?;
            }
        }
        let history = History::begin(&directory.join("source"), bench.scaled(MB) as u64 * 1_000_000)?;
        Ok(Round { directory, programs, stores, history, versions: bench.scaled(VERSIONS).max(3), number })
    }

    /// The same place in turn for each program.
    fn order(&self, turn: usize) -> impl Iterator<Item = usize> + use<> {
        let count = self.programs.len();
        let begin = turn + self.number;
        (0..count).map(move |i| (i + begin) % count)
    }

    /// The tree as it was.
    fn original(&self, version: usize) -> PathBuf {
        match version + 1 == self.versions {
            true => self.history.directory().to_path_buf(),
            false => self.directory.join(format!("kept-{version}")),
        }
    }

    fn save_all(&mut self, bench: &Bench, samples: &mut Samples) -> Result<()> {
        let mut further = vec![Vec::new(); self.programs.len()];
        let mut before = further.clone();
        for version in 0..self.versions {
            bench.report.doing(&format!("sets: round {}, version {version} of {}", self.number, self.versions));
            if version > 0 {
                self.history.advance()?;
            }
            let source = self.history.directory().to_path_buf();
            if [0, self.versions / 2].contains(&version) {
                shell(&format!("cp -a '{}' '{}'", source.display(), self.original(version).display()))?;
            }
            for at in self.order(version) {
                let steps = self.programs[at].save(&source, version)?;
                let (Some((took, before_it)), name) = (steps.split_last(), self.programs[at].name) else { continue };
                match version {
                    0 => samples.add(name, FIRST, *took),
                    _ => further[at].push(*took),
                }
                before[at].extend(before_it.first().filter(|_| version > 0));
            }
        }
        for (at, program) in self.programs.iter().enumerate() {
            samples.add(program.name, FURTHER, median(&further[at]));
            samples.add(program.name, ALL_FURTHER, further[at].iter().sum());
            samples.add(program.name, BEFORE, median(&before[at]));
        }
        Ok(())
    }

    /// After this, nothing has a store.
    fn end_of_saving(&self, samples: &mut Samples) -> Result<()> {
        for (store, program) in self.stores.iter().zip(&self.programs) {
            samples.add(program.name, MEMORY, memory_of(store.daemon()?, "VmHWM")?);
            store.umount()?;
        }
        for program in &self.programs {
            samples.add(program.name, ROOM, disk_usage([repository(program).as_path()].into_iter())? / MIB);
        }
        Ok(())
    }

    fn restore_all(&self, bench: &Bench, samples: &mut Samples) -> Result<()> {
        for (turn, (row, when, is_cold)) in RESTORES.into_iter().enumerate() {
            bench.report.doing(&format!("sets: round {}, {row}", self.number));
            let version = match when {
                When::Oldest => 0,
                When::Middle => self.versions / 2,
                When::Newest => self.versions - 1,
            };
            let original = self.original(version);
            let wanted = Wanted { version, back: self.versions - 1 - version, original: &original };
            for at in self.order(turn) {
                let program = &self.programs[at];
                samples.add(program.name, row, program.restore(&self.directory, &wanted, is_cold)?);
            }
        }
        Ok(())
    }

    fn look_at_all(&self, bench: &Bench, samples: &mut Samples) -> Result<()> {
        bench.report.doing(&format!("sets: round {}, mounting and verifying", self.number));
        for at in self.order(0) {
            let program = &self.programs[at];
            if !program.mount.is_empty() {
                mount(program, &self.original(0), samples)?;
            }
        }
        for at in self.order(1) {
            verify(&self.programs[at], samples)?;
        }
        Ok(())
    }
}

fn repository(program: &Program) -> PathBuf {
    program.directory.join("copy")
}

/// A file of a tree, as a path below it.
fn some_file(tree: &Path) -> Result<PathBuf> {
    let mut at = tree.to_path_buf();
    while at.is_dir() {
        let mut entries = std::fs::read_dir(&at)?.collect::<std::io::Result<Vec<_>>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        at = entries.last().ok_or("there is no file")?.path();
    }
    Ok(at.strip_prefix(tree)?.to_path_buf())
}

/// Ends with this.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.0) {
            eprintln!("bench: {}: {error}", self.0.display());
        }
    }
}

/// Shows what is kept, and reads one file of the oldest version there.
fn mount(program: &Program, original: &Path, samples: &mut Samples) -> Result<()> {
    let point = program.directory.join("shown");
    std::fs::create_dir(&point)?;
    let took = cold(|| timed(&program.line(&program.mount, &point, 0, 0)));
    samples.add(program.name, MOUNT, took * 1e3);
    if !took.is_finite() {
        return Ok(());
    }
    let mounted = Mounted(point);
    let file = some_file(original)?;
    let shown = mounted.0.join(program.shown.replace('@', "0")).join(&file);
    let start = Instant::now();
    let content = std::fs::read(&shown).map_err(|error| format!("{}: {error}", shown.display()))?;
    samples.add(program.name, FIRST_READ, start.elapsed().as_secs_f64() * 1e3);
    match content == std::fs::read(original.join(file))? {
        true => Ok(()),
        false => Err(format!("{}: {} is not what was kept", program.name, shown.display()).into()),
    }
}

/// Reads all files below a directory one after another; how many bytes they have.
fn read_all(directory: &Path, buffer: &mut [u8]) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            bytes += read_all(&entry.path(), buffer)?;
            continue;
        }
        let mut file = std::fs::File::open(entry.path())?;
        loop {
            match file.read(buffer)? {
                0 => break,
                read => bytes += read as u64,
            }
        }
    }
    Ok(bytes)
}

/// Bytes of all files below a directory, and MiB of them read in a second.
pub fn read_rate(directory: &Path) -> Result<(f64, f64)> {
    let start = Instant::now();
    let bytes = read_all(directory, &mut vec![0; 1 << 20])? as f64;
    Ok((bytes, bytes / MIB / start.elapsed().as_secs_f64()))
}

/// With empty caches, but for the program itself.
fn verify(program: &Program, samples: &mut Samples) -> Result<()> {
    if !drop_caches() {
        return Ok(());
    }
    let (bytes, rate) = read_rate(&repository(program))?;
    drop_caches();
    shell(&program.load)?;
    let took = timed(&program.line(&program.verify, &program.directory, 0, 0));
    samples.add(program.name, VERIFY, took);
    samples.add(program.name, VERIFY_RATE, bytes / MIB / took);
    samples.add(program.name, READ_RATE, rate);
    Ok(())
}

pub fn run(bench: &mut Bench) -> Result<()> {
    let ground = Ground::new(&bench.work)?;
    let mut samples = Samples::new([ENCRYPTED, PLAIN, "restic", "borg", "rdiff-backup"]);
    let (mut names, mut title) = (Vec::new(), String::new());
    // Until the end, since what is removed makes what comes after it slower.
    let mut ended = Vec::new();
    for number_of_round in 1..=bench.rounds {
        let mut round = Round::begin(bench, &ground.dir, number_of_round)?;
        round.save_all(bench, &mut samples)?;
        round.end_of_saving(&mut samples)?;
        round.restore_all(bench, &mut samples)?;
        round.look_at_all(bench, &mut samples)?;
        let tree = disk_usage([round.history.directory()].into_iter())? / MIB;
        title = format!("{} versions of a tree that takes {} MiB, kept elsewhere", round.versions, number(tree));
        names = round.programs.iter().map(|program| program.name).collect();
        ended.push(round);
    }
    report(bench, &title, &names, &samples)?;
    drop(ended);
    million::run(bench, &ground.dir)
}

fn report(bench: &mut Bench, title: &str, names: &[&str], samples: &Samples) -> Result<()> {
    let mut table = Table::new(title, &[&[""], names].concat());
    for row in samples.rows() {
        let values = names.iter().map(|name| number(samples.median(name, row)));
        table.row(std::iter::once(row.to_string()).chain(values));
    }
    bench.report.table(&table)?;
    beside_others(bench, names, samples)?;
    encryption(bench, samples)
}

fn beside_others(bench: &mut Bench, names: &[&str], samples: &Samples) -> Result<()> {
    let header = ["", "what it is compared with", "its value", "pitfs", "ratio", "target"];
    let mut table = Table::new("pitfs beside the best of the others", &header);
    let [shorter, half] = [0.25, 0.5].map(|most| Some(Target::AtMost(most)));
    let rows = [(FIRST, None), (FURTHER, shorter), (ALL_FURTHER, shorter), (ROOM, Some(Target::AtMost(1.0)))];
    let restores = RESTORES.map(|(row, ..)| (row, half));
    for (row, target) in rows.into_iter().chain(restores).chain([(MOUNT, None)]) {
        let others = names.iter().filter(|name| ![ENCRYPTED, PLAIN].contains(name));
        let values = others.map(|name| (*name, samples.median(name, row))).filter(|(_, value)| value.is_finite());
        let (name, best) = values.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or(("-", f64::NAN));
        let value = samples.median(ENCRYPTED, row);
        let verdict = target.map_or(String::new(), |target| {
            bench.report.judge(&format!("sets, {row}, of {name}"), value / best, target)
        });
        let cells = [row, name].map(str::to_string);
        table.row(cells.into_iter().chain([best, value, value / best].map(number)).chain([verdict]));
    }
    let [rate, disk] = [VERIFY_RATE, READ_RATE].map(|row| samples.median(ENCRYPTED, row));
    let verdict = bench.report.judge("sets, verify, of reading the same files", rate / disk, Target::AtLeast(0.7));
    let cells = [VERIFY_RATE, "reading the same files"].map(str::to_string);
    table.row(cells.into_iter().chain([disk, rate, rate / disk].map(number)).chain([verdict]));
    for (row, most) in [(FIRST_READ, 50.0), (MEMORY, 150.0)] {
        let value = samples.median(ENCRYPTED, row);
        let verdict = bench.report.judge(&format!("sets, {row}"), value, Target::AtMost(most));
        table.row([row.to_string(), String::new(), String::new(), number(value), String::new(), verdict]);
    }
    bench.report.table(&table)
}

fn encryption(bench: &mut Bench, samples: &Samples) -> Result<()> {
    let mut table = Table::new("What encryption costs", &["", "not encrypted", "encrypted", "ratio", "target"]);
    for row in [FIRST, FURTHER, ALL_FURTHER, ROOM, RESTORES[0].0, RESTORES[3].0, VERIFY] {
        let [plain, encrypted] = [PLAIN, ENCRYPTED].map(|name| samples.median(name, row));
        let ratio = encrypted / plain;
        let verdict = bench.report.judge(&format!("sets, encrypted, {row}"), ratio, Target::AtMost(1.15));
        table.row(std::iter::once(row.to_string()).chain([plain, encrypted, ratio].map(number)).chain([verdict]));
    }
    bench.report.table(&table)
}
