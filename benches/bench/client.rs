//! Two programs at once.

use crate::Result;
use crate::command::{Running, cold, fio, seconds, timed};
use crate::files::{Input, read_tree};
use crate::samples::Samples;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Runs all lines at once; seconds until the last has ended.
fn together(lines: &[String]) -> f64 {
    let start = Instant::now();
    let all: Result<Vec<Running>> = lines.iter().map(|line| Running::shell(line)).collect();
    let ended = all.and_then(|all| {
        all.into_iter().try_for_each(|one| {
            let output = one.output()?;
            if output.status.success() { Ok(()) } else { Err("one of two programs failed".into()) }
        })
    });
    seconds(ended, start)
}

/// How much two do in the time of one, by kind of work: 2 if they do not disturb each other, 1 if they take turns.
pub fn measure(directory: &Path, input: &Input, place: &str, samples: &mut Samples) -> Result<()> {
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
