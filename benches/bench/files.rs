//! Work on files, as programs do it: unpacking a tree, looking at it, reading it, large files, random places.

use crate::command::{cold, fio, timed};
use crate::place::{BTRFS, EXT4, PITFS, Places, RINGS};
use crate::report::{Table, Target, number};
use crate::samples::Samples;
use crate::{Bench, Result};
use std::path::Path;

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

const COLD: &str = "cold";
/// Of names that the kernel knows, and directories that it has not listed yet.
const FIRST_STAT: &str = "stat all, first, s";

/// Which rows count operations a second, of which more is better.
pub fn is_rate(row: &str) -> bool {
    row.ends_with("iops")
}

/// One round in one directory.
pub fn measure(directory: &Path, input: &Input, mut add: impl FnMut(&str, f64)) -> Result<()> {
    let work = directory.join(format!("bench.{}", std::process::id()));
    std::fs::create_dir(&work)?;
    let (at, mb) = (work.display(), input.mb);
    let big = work.join("big");
    let find = format!("find '{at}' -type f -printf '%s\\n'");
    let read_big = format!("dd if='{}' of=/dev/null bs=1M", big.display());
    crate::command::drop_caches();
    add("untar, s", timed(&input.untar(&work)));
    add(FIRST_STAT, timed(&find));
    add("stat all, again, s", timed(&find));
    add(&format!("stat all, {COLD}, s"), cold(|| timed(&find)));
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
    bench.report.table(&table)
}
