//! How long fsync of a small file takes, alone and beside others.

use crate::command::{Running, shell};
use crate::files::Input;
use crate::place::{PITFS, Places};
use crate::report::{Table, number};
use crate::samples::quantile;
use crate::{Bench, Result, fill};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// For one kind of load in one place in one round.
const TIME: Duration = Duration::from_secs(5);

/// What runs beside.
const LOADS: [&str; 3] = ["alone", "beside a program that streams into another file", "beside an untar"];

/// A line of shell that never ends.
fn load(kind: usize, directory: &Path, input: &Input) -> Option<String> {
    let at = directory.display();
    match kind {
        0 => None,
        1 => {
            let (random, times) = (input.random.display(), (input.mb / 64).max(1));
            let source = format!("for i in $(seq {times}); do cat '{random}'; done");
            Some(format!("while {source} | dd of='{at}/stream' bs=1M iflag=fullblock conv=notrunc; do :; done"))
        }
        _ => Some(format!(
            "n=0; while mkdir '{at}/'$n && tar -C '{at}/'$n -xf '{}'; do n=$((n + 1)); done",
            input.tree.display()
        )),
    }
}

/// Milliseconds of each fsync.
fn measure(file: &File, time: Duration) -> Result<Vec<f64>> {
    let start = Instant::now();
    let mut all = Vec::new();
    while start.elapsed() < time {
        file.write_all_at(&fill::noise(all.len() as u64, 4096), 0)?;
        let before = Instant::now();
        file.sync_all()?;
        all.push(before.elapsed().as_secs_f64() * 1e3);
    }
    Ok(all)
}

pub fn run(bench: &mut Bench) -> Result<()> {
    let input = Input::new(bench)?;
    let places = Places::new(&bench.work)?;
    let time = TIME.mul_f64((bench.scaled(100.0) as f64 / 100.0).clamp(0.1, 1.0));
    let mut found: BTreeMap<(usize, &str), Vec<f64>> = BTreeMap::new();
    for round in 1..=bench.rounds {
        for (name, directory) in places.iter() {
            bench.report.doing(&format!("snapshots: fsync, round {round}, {name}"));
            for kind in 0..LOADS.len() {
                let work = directory.join(format!("latency.{}", std::process::id()));
                std::fs::create_dir(&work)?;
                let file = File::create(work.join("small"))?;
                file.sync_all()?;
                let running = load(kind, &work, &input).map(|line| Running::shell(&line)).transpose()?;
                if running.is_some() {
                    // The first writes of a load meet empty caches.
                    std::thread::sleep(time / 5);
                }
                found.entry((kind, name)).or_default().extend(measure(&file, time)?);
                drop((running, file));
                shell(&format!("rm -rf '{0}' && sync -f '{1}'", work.display(), directory.display()))?;
            }
        }
    }
    let header = ["fsync after 4 KiB to a small file", "in", "median, ms", "99 %, ms", "most, ms", "times"];
    let mut table = Table::new("How long fsync takes", &header);
    for ((kind, name), times) in &found {
        let what = if *name == PITFS { format!("**{name}**") } else { name.to_string() };
        let numbers = [0.5, 0.99, 1.0].map(|share| number(quantile(times, share)));
        table.row([LOADS[*kind].to_string(), what].into_iter().chain(numbers).chain([times.len().to_string()]));
    }
    bench.report.table(&table)
}
