//! `make bench`: pitfs beside ext4 and btrfs, its snapshots, its sync beside backup programs, and a large store.
//!
//! Rounds are interleaved: each round does all of its work in each place, and what is shown are medians. All
//! that a run makes lies in one directory, which is gone at its end, also after an interruption.

mod archive;
mod chain;
mod client;
mod clones;
mod command;
mod costs;
mod differences;
mod files;
mod fill;
mod floor;
mod history;
mod in_place;
mod latency;
mod million;
mod needs;
mod place;
mod points;
mod programs;
mod report;
mod samples;
mod scale;
mod sets;
mod snapshots;
mod source;
mod store;
mod switch;
mod sync;
mod versions;
mod work;

use report::Report;
use std::path::PathBuf;
use std::process::ExitCode;
use work::Work;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "\
make bench PARTS='PART ...'     measures; without PARTS, everything

  files      work on files, on ext4, btrfs and pitfs; several programs at once       20 minutes
  history    what snapshots cost live                                               10 minutes
  snapshots  taking, comparing and deleting them; how long fsync takes              15 minutes
  sync       pitfs sync beside cp, find, rsync, restic, borg and rdiff-backup        5 minutes
  archive    40 versions, in and back, beside restic, borg and rdiff-backup          10 minutes
  sets       40 versions at a target, beside the same programs; a million files     20 minutes
  points     restoring in place, clones, reading through 1,000 increments            10 minutes
  scale      a million files, ten thousand snapshots, ten million tracks            20 minutes

  ROUNDS=3          interleaved rounds
  MB=1024           size of a large file
  SCALE=1           factor for numbers of files, snapshots and tracks; 0.01 to try it
  DIR=target/bench  where; to compare with ext4 itself, and not in an image, on ext4
  OUT=FILE          keep the tables there as well
  TREE=FILE.tar     the tree that is unpacked; without it, sources of dependencies

As root, it installs the programs it needs, mounts images and empties the kernel's caches; otherwise rows are missing.
";

/// What a run is asked to do.
pub struct Bench {
    pub rounds: usize,
    pub mb: u64,
    scale: f64,
    tree: Option<PathBuf>,
    pub work: Work,
    pub report: Report,
}

impl Bench {
    /// A number of things, in the size of this run.
    pub fn scaled(&self, number: f64) -> usize {
        (number * self.scale).round().max(1.0) as usize
    }

    /// A tar file of at least 16,000 files.
    pub fn tree(&self) -> Result<PathBuf> {
        match &self.tree {
            Some(tree) => Ok(tree.clone()),
            None => source::pack(&self.work.file("tree.tar")),
        }
    }
}

type Part = fn(&mut Bench) -> Result<()>;
const PARTS: [(&str, Part); 8] = [
    ("files", files::run),
    ("history", history::run),
    ("snapshots", snapshots::run),
    ("sync", sync::run),
    ("archive", archive::run),
    ("sets", sets::run),
    ("points", points::run),
    ("scale", scale::run),
];

fn setting<T: std::str::FromStr>(name: &str, default: T) -> Result<T> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().map_err(|_| format!("{name}={text} makes no sense").into()),
        _ => Ok(default),
    }
}

fn parts(names: &[String]) -> Result<Vec<(&'static str, Part)>> {
    if let Some(wrong) = names.iter().find(|name| *name != "all" && !PARTS.iter().any(|(part, _)| part == name)) {
        return Err(format!("there is no part {wrong:?}\n\n{USAGE}").into());
    }
    let is_asked = |part: &str| names.iter().any(|name| name == "all" || name == part);
    Ok(PARTS.into_iter().filter(|(part, _)| is_asked(part)).collect())
}

/// Whether all parts ran to their end.
fn run(names: &[String]) -> Result<bool> {
    let parts = parts(names)?;
    let tree: String = setting("TREE", String::new())?;
    let out: String = setting("OUT", String::new())?;
    needs::install(&parts.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    let work = Work::begin(&PathBuf::from(setting("DIR", "target/bench".to_string())?))?;
    work::clear_when_interrupted(work.path())?;
    let mut bench = Bench {
        rounds: setting("ROUNDS", 3)?.max(1),
        mb: setting("MB", 1024)?.max(64),
        scale: setting("SCALE", 1.0)?,
        tree: if tree.is_empty() { None } else { Some(std::path::absolute(tree)?) },
        report: Report::new(&out)?,
        work,
    };
    bench.report.conditions(&bench.work, bench.rounds, bench.mb, bench.scale)?;
    let mut is_whole = true;
    for (name, part) in parts {
        bench.report.doing(name);
        if let Err(error) = part(&mut bench) {
            bench.report.line(&format!("\n{name} ended early: {error}"))?;
            is_whole = false;
        }
    }
    bench.report.summary()?;
    Ok(is_whole)
}

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == floor::ARGUMENT) {
        return floor::serve(&args[1..]);
    }
    // Cargo says `--bench` to a benchmark and not to a test.
    let is_bench = args.iter().any(|arg| arg == "--bench");
    args.retain(|arg| !arg.starts_with('-'));
    if !is_bench || args.is_empty() || args == ["help"] {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
