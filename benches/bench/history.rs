//! What snapshots cost the work on `live`.

use crate::command::{fio, timed};
use crate::files::{self, Input, is_rate};
use crate::place::Ground;
use crate::report::{Table, Target, number};
use crate::samples::Samples;
use crate::store::Store;
use crate::{Bench, Result};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

const SNAPSHOTS: f64 = 1000.0;
/// Files of which each snapshot keeps an old state of one.
const CHANGING: usize = 100;

const WITHOUT: &str = "without";
const WITH: &str = "with";

pub fn run(bench: &mut Bench) -> Result<()> {
    overwrites(bench)?;
    many_snapshots(bench)
}

/// Overwrites a file as a whole, or in random places, that a snapshot needs or not.
fn overwrite(store: &Store, input: &Input, mb: u64, is_protected: bool, is_random: bool) -> Result<f64> {
    let file = store.live().join("file");
    let snapshot = store.snap().join("before");
    // So that random places meet the same file each time: one without patches, and nobody's but live's.
    crate::command::shell(&input.write(&file, mb, ""))?;
    if is_protected {
        fs::create_dir(&snapshot)?;
    }
    let value = match is_random {
        true => fio(&format!(
            "--name=a --filename='{}' --rw=randwrite --size={mb}m --io_size={}m --end_fsync=1",
            file.display(),
            mb.min(64)
        )),
        false => mb as f64 / timed(&input.write(&file, mb, ",notrunc")),
    };
    if is_protected {
        fs::remove_dir(&snapshot)?;
    }
    Ok(value)
}

fn overwrites(bench: &mut Bench) -> Result<()> {
    let input = Input::new(bench)?;
    let ground = Ground::new(&bench.work)?;
    let store = Store::mounted(&ground.dir.join("pitfs"))?;
    let mb = input.mb.min(256);
    let mut samples = Samples::new([WITHOUT, WITH]);
    for round in 1..=bench.rounds {
        bench.report.doing(&format!("history: overwriting what a snapshot needs, round {round}"));
        for (row, is_random) in [("whole file, 1 MiB each, MiB/s", false), ("random 4k, iops", true)] {
            // Each goes first in every other round.
            let first = round % 2 == 0;
            for is_protected in [first, !first] {
                let value = overwrite(&store, &input, mb, is_protected, is_random)?;
                samples.add(if is_protected { WITH } else { WITHOUT }, row, value);
            }
        }
    }
    let title = format!("Overwriting a file of {mb} MiB for the first time after a snapshot");
    let mut table = Table::new(&title, &["work", "no snapshot", "first after one", "ratio", "target"]);
    for row in samples.rows() {
        let [without, with] = [WITHOUT, WITH].map(|column| samples.median(column, row));
        let verdict = bench.report.judge(&format!("overwrite, {row}"), with / without, Target::AtLeast(0.9));
        table.row([row.to_string(), number(without), number(with), number(with / without), verdict]);
    }
    bench.report.table(&table)
}

/// Takes snapshots with a small change before each.
fn take_snapshots(store: &Store, count: usize) -> Result<()> {
    let directory = store.live().join("changing");
    fs::create_dir(&directory)?;
    let files: Vec<File> = (0..CHANGING)
        .map(|i| {
            let file = File::create(directory.join(format!("{i}")))?;
            file.write_all_at(&vec![b'x'; 128 << 10], 0)?;
            Ok(file)
        })
        .collect::<Result<_>>()?;
    for i in 0..count {
        files[i % CHANGING].write_all_at(format!("change {i}").as_bytes(), (i as u64 * 4096) % (128 << 10))?;
        fs::create_dir(store.snap().join(format!("kept-{i}")))?;
    }
    Ok(())
}

fn many_snapshots(bench: &mut Bench) -> Result<()> {
    let input = Input::new(bench)?;
    let ground = Ground::new(&bench.work)?;
    let stores = [WITHOUT, WITH].map(|name| Store::mounted(&ground.dir.join(name)).map(|store| (name, store)));
    let [without, with] = stores;
    let stores = [without?, with?];
    let count = bench.scaled(SNAPSHOTS);
    bench.report.doing(&format!("history: taking {count} snapshots"));
    take_snapshots(&stores[1].1, count)?;
    let mut samples = Samples::new([WITHOUT, WITH]);
    for round in 1..=bench.rounds {
        let order: [usize; 2] = if round % 2 == 0 { [1, 0] } else { [0, 1] };
        for (name, store) in order.map(|i| &stores[i]) {
            bench.report.doing(&format!("history: round {round}, {name} {count} snapshots"));
            files::measure(&store.live(), &input, |row, value| samples.add(name, row, value))?;
        }
    }
    let title = format!("The same work with {count} snapshots kept");
    let mut table = Table::new(&title, &["work", "no snapshots", "with them", "speed", "target"]);
    for row in samples.rows() {
        let [without, with] = [WITHOUT, WITH].map(|column| samples.median(column, row));
        let speed = if is_rate(row) { with / without } else { without / with };
        let verdict = bench.report.judge(&format!("{count} snapshots, {row}"), speed, Target::AtLeast(0.9));
        table.row([row.to_string(), number(without), number(with), number(speed), verdict]);
    }
    bench.report.table(&table)
}
