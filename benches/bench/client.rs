//! Several programs at once.

use crate::command::{Running, cold, fio, seconds, timed};
use crate::files::{Input, read_tree};
use crate::place::{BTRFS, PITFS, Places, RINGS};
use crate::report::{Table, Target, number};
use crate::samples::Samples;
use crate::{Bench, Result};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Runs all lines at once; seconds until the last has ended.
fn together(lines: &[String]) -> f64 {
    let start = Instant::now();
    let all: Result<Vec<Running>> = lines.iter().map(|line| Running::shell(line)).collect();
    let ended = all.and_then(|all| {
        all.into_iter().try_for_each(|one| {
            let output = one.output()?;
            if output.status.success() { Ok(()) } else { Err("one of several programs failed".into()) }
        })
    });
    seconds(ended, start)
}

/// A tar file of files that are made in no time, for programs of which there are many.
const SMALL_FILES: usize = 2500;
const SMALL_BYTES: usize = 4096;

fn small_files(path: &Path) -> Result<()> {
    let mut tar = tar::Builder::new(std::fs::File::create(path)?);
    let mut header = tar::Header::new_gnu();
    header.set_size(SMALL_BYTES as u64);
    header.set_mode(0o644);
    for number in 0..SMALL_FILES {
        let bytes: Vec<u8> = (0..SMALL_BYTES).map(|at| (at * number % 251) as u8).collect();
        tar.append_data(&mut header, format!("{}/{number}", number / 50), &bytes[..])?;
    }
    Ok(tar.into_inner()?.sync_all()?)
}

/// Files a second that so many programs make together.
fn making(work: &Path, small: &Path, programs: usize) -> Result<f64> {
    let mut lines = Vec::new();
    for program in 0..programs {
        let to = work.join(format!("small.{programs}.{program}"));
        std::fs::create_dir(&to)?;
        lines.push(format!("tar -C '{}' -xf '{}'", to.display(), small.display()));
    }
    Ok((programs * SMALL_FILES) as f64 / together(&lines))
}

/// Work of several on each place, and how two compare with one.
pub fn run(bench: &mut Bench, places: &Places, input: &Input) -> Result<()> {
    let small = bench.work.file("small.tar");
    small_files(&small)?;
    let compared: Vec<_> = places.iter().filter(|(name, _)| [BTRFS, PITFS, RINGS].contains(name)).collect();
    let (mut two, mut many) = (Samples::new([BTRFS, PITFS, RINGS]), Samples::new([BTRFS, PITFS, RINGS]));
    for round in 1..=bench.rounds {
        for (name, directory) in &compared {
            bench.report.doing(&format!("files: several programs, round {round}, {name}"));
            measure(directory, input, name, &mut two)?;
            measure_many(directory, &small, name, &mut many)?;
        }
    }
    let header = ["work", BTRFS, PITFS, RINGS, "target"];
    let mut table = Table::new("Throughput of two programs at once, as a multiple of one", &header);
    for row in two.rows() {
        let values = [BTRFS, PITFS, RINGS].map(|place| two.median(place, row));
        let verdict = bench.report.judge(&format!("two programs over rings, {row}"), values[2], Target::AtLeast(1.5));
        table.row(std::iter::once(row.to_string()).chain(values.map(number)).chain([verdict]));
    }
    bench.report.table(&table)?;
    let mut table = Table::new("Files of 4 KiB that several programs unpack, a second", &header[..4]);
    for row in many.rows() {
        let values = [BTRFS, PITFS, RINGS].map(|place| many.median(place, row));
        table.row(std::iter::once(row.to_string()).chain(values.map(number)));
    }
    bench.report.table(&table)
}

fn measure_many(directory: &Path, small: &Path, place: &str, samples: &mut Samples) -> Result<()> {
    let work = directory.join(format!("many.{}", std::process::id()));
    std::fs::create_dir(&work)?;
    for programs in [1, 2, 8] {
        // What was removed before is freed in the background, whatever the place.
        crate::command::shell("sync; sleep 3")?;
        samples.add(place, &format!("{programs} at once"), making(&work, small, programs)?);
    }
    crate::command::shell(&format!("rm -rf '{}'", work.display()))
}

/// How much two do in the time of one, by kind of work: 2 if they do not disturb each other, 1 if they take turns.
fn measure(directory: &Path, input: &Input, place: &str, samples: &mut Samples) -> Result<()> {
    let work = directory.join(format!("clients.{}", std::process::id()));
    let parts: [PathBuf; 3] = ["alone", "a", "b"].map(|name| work.join(name));
    parts.iter().try_for_each(std::fs::create_dir_all)?;
    let [alone, a, b] = &parts;
    crate::command::drop_caches();
    let one = timed(&input.untar(alone));
    crate::command::drop_caches();
    let two = together(&[input.untar(a), input.untar(b)]);
    samples.add(place, "unpacking a tree each", 2.0 * one / two);
    let one = cold(|| timed(&read_tree(alone)));
    let two = cold(|| together(&[read_tree(a), read_tree(b)]));
    samples.add(place, "reading a tree each, cold", 2.0 * one / two);
    let mb = input.mb.min(256);
    let big = |part: &Path| part.join("big");
    for part in &parts {
        crate::command::shell(&input.write(&big(part), mb, ""))?;
    }
    let write = |part: &Path| {
        let file = big(part);
        format!("--filename='{}' --rw=randwrite --size={mb}m --io_size=64m --end_fsync=1", file.display())
    };
    let one = fio(&format!("--name=alone {}", write(alone)));
    let (of_a, of_b) = std::thread::scope(|scope| {
        let other = scope.spawn(|| fio(&format!("--name=b {}", write(b))));
        (fio(&format!("--name=a {}", write(a))), other.join().unwrap_or(f64::NAN))
    });
    samples.add(place, "random writes of 4k to a file each", (of_a + of_b) / one);
    crate::command::shell(&format!("rm -rf '{}'", work.display()))
}
