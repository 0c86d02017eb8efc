//! A history brought in version by version and got back, beside programs that back up.
//!
//! All see the same machine: each version goes to all of them, in an order that rotates, before there is the next.
//! The files are in the kernel's caches and on the disk when a program begins with them.

use crate::command::shell;
use crate::place::Ground;
use crate::programs::{self, Program, Wanted, disk_usage};
use crate::report::{Table, Target, number};
use crate::samples::{Samples, median};
use crate::store::PITFS;
use crate::versions::History;
use crate::{Bench, Result};
use std::path::{Path, PathBuf};

const VERSIONS: f64 = 40.0;
const MB: f64 = 20.0;
const MIB: f64 = (1 << 20) as f64;
/// Seconds that getting a tree of [`MB`] back may take.
const RESTORE_MAX: f64 = 0.3;
/// All that are installed, those of pitfs first.
fn programs(ground: &Path) -> Vec<Program> {
    let mut all = Vec::new();
    let pitfs = format!("'{PITFS}' -s \"$at/store\"");
    for (name, codec) in [("pitfs, zstd", "zstd"), ("pitfs, lz4", "lz4")] {
        let sync = format!("{pitfs} sync \"$source\"");
        let roll = format!("{pitfs} roll --archive \"$at/archive\" --keep 1 --name v$version");
        all.push(Program {
            prepare: format!("'{PITFS}' create --compress {codec} \"$at/store\""),
            steps: vec![sync, roll],
            restore: format!("{pitfs} restore v$version --to \"$target\""),
            ..Program::new(ground, name)
        });
    }
    all.extend(programs::others(ground));
    all
}

/// Where a tree is kept to compare with, by its version.
fn kept(ground: &Path, version: usize) -> PathBuf {
    ground.join(format!("kept-{version}"))
}

pub fn run(bench: &mut Bench) -> Result<()> {
    let ground = Ground::new(&bench.work)?;
    let versions = bench.scaled(VERSIONS).max(3);
    let mut programs = programs(&ground.dir);
    let names: Vec<&str> = programs.iter().map(|program| program.name).collect();
    let mut samples = Samples::new(names.iter().copied());
    let mut history = History::begin(&ground.dir.join("source"), bench.scaled(MB) as u64 * 1_000_000)?;
    for program in &programs {
        std::fs::create_dir(&program.directory)?;
        if !program.prepare.is_empty() {
            shell(&program.line(&program.prepare, &program.directory, 0, 0))?;
        }
    }
    for version in 0..versions {
        bench.report.doing(&format!("archive: version {version} of {versions}"));
        if version > 0 {
            history.advance()?;
        }
        if [0, versions / 2].contains(&version) {
            shell(&format!("cp -a '{}' '{}'", history.directory().display(), kept(&ground.dir, version).display()))?;
        }
        let count = programs.len();
        for at in (0..count).map(|i| (i + version) % count) {
            let steps = programs[at].save(history.directory(), version)?;
            let row = if version == 0 { FIRST } else { FURTHER };
            samples.add(names[at], row, steps.iter().sum());
            if version > 0 && steps.len() == 2 {
                samples.add(names[at], SYNC, steps[0]);
                samples.add(names[at], ROLL, steps[1]);
            }
        }
    }
    for program in &programs {
        samples.add(program.name, ROOM, program.room()? / MIB);
    }
    for round in 1..=bench.rounds {
        bench.report.doing(&format!("archive: getting versions back, round {round}"));
        for (row, version, is_cold) in [
            (OLDEST, 0, false),
            (MIDDLE, versions / 2, false),
            (OLDEST_COLD, 0, true),
            (MIDDLE_COLD, versions / 2, true),
        ] {
            for i in 0..programs.len() {
                let program = &programs[(i + round) % programs.len()];
                let original = kept(&ground.dir, version);
                let wanted = Wanted { version, back: versions - 1 - version, original: &original };
                samples.add(program.name, row, program.restore(&ground.dir, &wanted, is_cold)?);
            }
        }
    }
    let tree = disk_usage([history.directory()].into_iter())? / MIB;
    report(bench, &programs, &samples, versions, tree)
}

const FIRST: &str = "first version, s";
const FURTHER: &str = "each further version, s";
const SYNC: &str = "of it sync, s";
const ROLL: &str = "of it roll, s";
const OLDEST: &str = "restoring the oldest, s";
const MIDDLE: &str = "restoring the middle one, s";
const OLDEST_COLD: &str = "restoring the oldest, cold, s";
const MIDDLE_COLD: &str = "restoring the middle one, cold, s";
const ROOM: &str = "room, MiB";

fn report(bench: &mut Bench, programs: &[Program], samples: &Samples, versions: usize, tree: f64) -> Result<()> {
    let title = format!("{versions} versions of a tree that takes {} MiB, in median", number(tree));
    let names = programs.iter().map(|program| program.name);
    let mut table = Table::new(&title, &std::iter::once("").chain(names).collect::<Vec<_>>());
    for row in samples.rows() {
        let values = programs.iter().map(|program| number(samples.median(program.name, row)));
        table.row(std::iter::once(row.to_string()).chain(values));
    }
    bench.report.table(&table)?;
    let header = ["", "best of the others", "its value", "pitfs", "value", "ratio", "target"];
    let mut table = Table::new("pitfs beside the best of the others", &header);
    for row in samples.rows().filter(|row| ![SYNC, ROLL].contains(row)) {
        let others = programs.iter().filter(|program| !program.is_pitfs);
        let values = others.map(|program| (program.name, samples.median(program.name, row)));
        let best = values.filter(|(_, value)| value.is_finite()).min_by(|a, b| a.1.total_cmp(&b.1));
        let (name, best) = best.unwrap_or(("-", f64::NAN));
        for program in programs.iter().filter(|program| program.is_pitfs) {
            let value = samples.median(program.name, row);
            let what = format!("archive, {}, {row}, of {name}", program.name);
            let most = if row == ROOM { 1.3 } else { 0.5 };
            let mut verdict = bench.report.judge(&what, value / best, Target::AtMost(most));
            if [OLDEST, MIDDLE].contains(&row) {
                let what = format!("archive, {}, {row}", program.name);
                verdict += &format!(", {} s", bench.report.judge(&what, value, Target::AtMost(RESTORE_MAX)));
            }
            let cells = [row.to_string(), name.to_string(), number(best), program.name.to_string()];
            table.row(cells.into_iter().chain([number(value), number(value / best), verdict]));
        }
    }
    bench.report.table(&table)?;
    room(bench, programs)
}

/// What the room of pitfs goes to, by file; the increments as one.
fn room(bench: &mut Bench, programs: &[Program]) -> Result<()> {
    let mut table = Table::new("Where the room of pitfs goes, MiB", &["", "what", "on the disk"]);
    for program in programs.iter().filter(|program| program.is_pitfs) {
        let mut increments = Vec::new();
        for directory in ["store", "archive"] {
            let mut entries =
                std::fs::read_dir(program.directory.join(directory))?.collect::<std::io::Result<Vec<_>>>()?;
            entries.sort_by_key(std::fs::DirEntry::file_name);
            for entry in entries {
                let used = disk_usage([entry.path().as_path()].into_iter())?;
                if entry.path().extension().is_some_and(|extension| extension == "increment") {
                    increments.push(used);
                    continue;
                }
                let what = format!("{directory}/{}", entry.file_name().display());
                table.row([program.name.to_string(), what, number(used / MIB)]);
            }
        }
        let what = format!("{} increments, {} in median", increments.len(), number(median(&increments) / MIB));
        table.row([program.name.to_string(), what, number(increments.iter().sum::<f64>() / MIB)]);
    }
    bench.report.table(&table)
}
