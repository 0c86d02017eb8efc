//! Work on files, as programs do it: unpacking a tree, looking at it, reading it, large files, random places.

use crate::command::{cold, fio, ok, timed};
use crate::floor::Floor;
use crate::place::{BTRFS, EXT4, PITFS, Places, RINGS};
use crate::report::{Table, Target, number};
use crate::samples::Samples;
use crate::store::PITFS as PROGRAM;
use crate::{Bench, Result, client, costs};
use std::path::Path;
use std::process::Command;

/// What is unpacked and written.
pub struct Input {
    pub tree: std::path::PathBuf,
    pub random: std::path::PathBuf,
    pub mb: u64,
}

impl Input {
    pub fn new(bench: &Bench) -> Result<Input> {
        Ok(Input { tree: bench.tree()?, random: bench.work.random()?, mb: bench.mb })
    }

    /// How many names the tree has.
    pub fn names(&self) -> Result<f64> {
        let listed = ok(Command::new("tar").arg("-tf").arg(&self.tree))?;
        Ok(listed.lines().count() as f64)
    }

    /// A line of shell that unpacks the tree.
    pub fn untar(&self, to: &Path) -> String {
        let (to, tree) = (to.display(), self.tree.display());
        format!("tar -C '{to}' -xf '{tree}' && sync -f '{to}'")
    }

    /// A line of shell that writes a large file and waits for it to be on disk.
    pub fn write(&self, to: &Path, mb: u64, options: &str) -> String {
        let (to, random, times) = (to.display(), self.random.display(), (mb / 64).max(1));
        let source = format!("for i in $(seq {times}); do cat '{random}'; done");
        format!("{source} | dd of='{to}' bs=1M iflag=fullblock conv=fsync{options}")
    }
}

/// A line of shell that reads a tree.
pub fn read_tree(directory: &Path) -> String {
    format!("tar -C '{}' -cf - . | cat >/dev/null", directory.display())
}

/// A line of shell that lists a tree with the sizes of its files.
fn list(directory: &Path) -> String {
    format!("find '{}' -type f -printf '%s\\n'", directory.display())
}

/// A line of shell that reads a file.
fn read_file(file: &Path) -> String {
    format!("dd if='{}' of=/dev/null bs=1M", file.display())
}

const COLD: &str = "cold";
const UNTAR: &str = "untar, s";
const PUT: &str = "pitfs put + sync, s";
/// Of names that the kernel knows, and directories that it has not listed yet.
const FIRST_STAT: &str = "stat all, first, s";

/// Which rows count operations a second, of which more is better.
pub fn is_rate(row: &str) -> bool {
    row.ends_with("iops")
}

/// Unpacks the tree into a new directory below one, and lists it twice.
fn unpack_and_list(directory: &Path, input: &Input, add: &mut impl FnMut(&str, f64)) -> Result<std::path::PathBuf> {
    let work = directory.join(format!("bench.{}", std::process::id()));
    std::fs::create_dir(&work)?;
    crate::command::drop_caches();
    add(UNTAR, timed(&input.untar(&work)));
    let find = list(&work);
    add(FIRST_STAT, timed(&find));
    add("stat all, again, s", timed(&find));
    Ok(work)
}

/// One round in one directory.
pub fn measure(directory: &Path, input: &Input, mut add: impl FnMut(&str, f64)) -> Result<()> {
    let work = unpack_and_list(directory, input, &mut add)?;
    let (at, mb) = (work.display(), input.mb);
    let big = work.join("big");
    let read_big = read_file(&big);
    add(&format!("stat all, {COLD}, s"), cold(|| timed(&list(&work))));
    add(&format!("read all, {COLD}, s"), cold(|| timed(&read_tree(&work))));
    add("read all, warm, s", timed(&read_tree(&work)));
    add(&format!("write {mb} MiB + fsync, s"), timed(&input.write(&big, mb, "")));
    add(&format!("read {mb} MiB, {COLD}, s"), cold(|| timed(&read_big)));
    add(&format!("read {mb} MiB, warm, s"), timed(&read_big));
    let file = big.display();
    let random = format!("--name=a --filename='{file}' --rw=randwrite --size={mb}m --io_size=64m --end_fsync=1");
    add("random write 4k, iops", fio(&random));
    let synced = format!("--name=b --filename='{at}/sync' --rw=randwrite --size=64m --io_size=4m --fsync=1");
    add("random write 4k + fsync, iops", fio(&synced));
    let random = format!("--name=c --filename='{file}' --rw=randread --size={mb}m --io_size=64m");
    add(&format!("random read 4k, {COLD}, iops"), cold(|| fio(&random)));
    add("remove tree, s", timed(&format!("rm -rf '{at}'")));
    Ok(())
}

/// What a row of pitfs over rings should be as a multiple of btrfs.
fn target(row: &str) -> Option<Target> {
    let is_cold = row.contains(COLD);
    let most = |limit| Some(Target::AtMost(limit));
    match row.split([' ', ',']).next()? {
        "untar" => most(1.5),
        "stat" if row == FIRST_STAT => most(2.0),
        "stat" => most(1.1),
        "read" if row.starts_with("read all") => most(if is_cold { 1.2 } else { 1.1 }),
        "read" | "write" | "remove" => most(1.0),
        "random" if row.contains("fsync") => Some(Target::AtLeast(3.0)),
        "random" => Some(Target::AtLeast(1.2)),
        _ => None,
    }
}

pub fn run(bench: &mut Bench) -> Result<()> {
    let input = Input::new(bench)?;
    let places = Places::new(&bench.work)?;
    let mut samples = Samples::new(places.names());
    for round in 1..=bench.rounds {
        for (name, directory) in places.iter() {
            bench.report.doing(&format!("files: round {round}, {name}"));
            measure(directory, &input, |row, value| samples.add(name, row, value))?;
        }
    }
    let header = ["work", EXT4, BTRFS, PITFS, RINGS, "pitfs / btrfs", "rings / btrfs", "target"];
    let mut table = Table::new("Files: seconds, less is better, or operations a second, more is better", &header);
    for row in samples.rows() {
        let values = [EXT4, BTRFS, PITFS, RINGS].map(|place| samples.median(place, row));
        let [_, btrfs, pitfs, rings] = values;
        let verdict = target(row).map_or(String::new(), |target| {
            bench.report.judge(&format!("files, {row}, over rings, of btrfs"), rings / btrfs, target)
        });
        let numbers = values.into_iter().chain([pitfs / btrfs, rings / btrfs]).map(number);
        table.row(std::iter::once(row.to_string()).chain(numbers).chain([verdict]));
    }
    bench.report.table(&table)?;
    beside_floor(bench, &input, &samples)?;
    put(bench, &places, &input, samples.median(BTRFS, UNTAR))?;
    client::run(bench, &places, &input)?;
    costs::run(bench, &places, &input)
}

/// What the transports cost by themselves, with a file system in memory behind them.
fn beside_floor(bench: &mut Bench, input: &Input, pitfs: &Samples) -> Result<()> {
    let mut floor = Samples::new([PITFS, RINGS]);
    for round in 1..=bench.rounds {
        for (name, is_rings) in [(PITFS, false), (RINGS, true)] {
            bench.report.doing(&format!("files: in memory, round {round}, {name}"));
            let at = bench.work.file("floor");
            std::fs::create_dir_all(&at)?;
            match Floor::begin(&at, is_rings) {
                Ok(_mounted) => measure_floor(&at, input, |row, value| floor.add(name, row, value))?,
                Err(error) => eprintln!("bench: {error}"),
            }
        }
    }
    let header = ["work", "in memory", "pitfs", "in memory, rings", RINGS, "pitfs / in memory", "rings / in memory"];
    let mut table = Table::new("Beside a file system in memory over the same transports, in seconds", &header);
    for row in floor.rows() {
        let [device, rings] = [PITFS, RINGS].map(|place| (floor.median(place, row), pitfs.median(place, row)));
        let numbers = [device.0, device.1, rings.0, rings.1, device.1 / device.0, rings.1 / rings.0];
        table.row(std::iter::once(row.to_string()).chain(numbers.map(number)));
    }
    bench.report.table(&table)
}

/// What of a round does not depend on a disk, but for what pitfs makes durable.
fn measure_floor(directory: &Path, input: &Input, mut add: impl FnMut(&str, f64)) -> Result<()> {
    let work = unpack_and_list(directory, input, &mut add)?;
    let mb = input.mb;
    let big = work.join("big");
    crate::command::shell(&read_tree(&work))?;
    add("read all, warm, s", timed(&read_tree(&work)));
    add(&format!("write {mb} MiB + fsync, s"), timed(&input.write(&big, mb, "")));
    let read_big = read_file(&big);
    crate::command::shell(&read_big)?;
    add(&format!("read {mb} MiB, warm, s"), timed(&read_big));
    add("remove tree, s", timed(&format!("rm -rf '{}'", work.display())));
    Ok(())
}

/// `pitfs put` of the tree, as a multiple of unpacking it on btrfs.
fn put(bench: &mut Bench, places: &Places, input: &Input, untar: f64) -> Result<()> {
    let mut samples = Samples::new([PITFS, RINGS]);
    for round in 1..=bench.rounds {
        for (name, directory) in places.iter().filter(|(name, _)| [PITFS, RINGS].contains(name)) {
            bench.report.doing(&format!("files: put, round {round}, {name}"));
            let at = directory.join(format!("put.{}", std::process::id()));
            std::fs::create_dir(&at)?;
            crate::command::drop_caches();
            let (to, tree) = (at.display(), input.tree.display());
            let name_there = at.file_name().unwrap_or_default().display();
            let line =
                format!("'{PROGRAM}' put -s '{}' '{name_there}' < '{tree}' && sync -f '{to}'", directory.display());
            samples.add(name, PUT, timed(&line));
            crate::command::shell(&format!("rm -rf '{to}'"))?;
        }
    }
    let values = [PITFS, RINGS].map(|place| samples.median(place, PUT));
    let ratio = values[1] / untar;
    let verdict = bench.report.judge("files, put, of untar on btrfs", ratio, Target::AtMost(0.8));
    let header = ["work", "untar, btrfs", "pitfs", "pitfs, rings", "rings / btrfs", "target"];
    let mut table = Table::new("A tree put in by pitfs itself, in seconds", &header);
    table.row([PUT.to_string(), number(untar), number(values[0]), number(values[1]), number(ratio), verdict]);
    bench.report.table(&table)
}
