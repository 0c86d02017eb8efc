//! Load on a mount for as long as wanted, with snapshots taken, compared and deleted all the while: everything
//! is as it should be, and the daemon takes no more memory and files than at the beginning.
//!
//! Run by `make soak MINUTES=n`.

mod disk;
mod load;
mod mounted;
mod rig;

use load::{OnError, Rng};
use mounted::can_mount;
use rig::*;
use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long the load goes on between two comparisons.
const ROUND: Duration = Duration::from_secs(5);
/// Growth that is let pass: caches fill up, and the allocator keeps what it once had.
const MEMORY_GROWTH_MAX: u64 = 64 << 10;
const FILES_GROWTH_MAX: u64 = 2;

/// What the daemon takes: resident memory in KiB, and open files.
#[derive(Clone, Copy, Debug)]
struct Taken {
    memory: u64,
    files: u64,
}

fn taken(rig: &Rig) -> Taken {
    let process = format!("/proc/{}", rig.pid());
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory = resident.trim().trim_end_matches(" kB").parse().unwrap();
    Taken { memory, files: fs::read_dir(format!("{process}/fd")).unwrap().count() as u64 }
}

/// The middle one of what was taken in some rounds: one that fell into a commit says nothing.
fn middle(rounds: &[Taken]) -> Taken {
    let of = |each: fn(&Taken) -> u64| {
        let mut all: Vec<u64> = rounds.iter().map(each).collect();
        all.sort_unstable();
        all[all.len() / 2]
    };
    Taken { memory: of(|taken| taken.memory), files: of(|taken| taken.files) }
}

/// The last quarter of all rounds takes no more than the second did.
fn check_growth(rounds: &[Taken]) {
    let quarter = rounds.len() / 4;
    if quarter < 2 {
        return;
    }
    let (early, late) = (middle(&rounds[quarter..2 * quarter]), middle(&rounds[3 * quarter..]));
    println!("taken early {early:?}, late {late:?}");
    assert!(late.memory <= early.memory + MEMORY_GROWTH_MAX, "the daemon grows: {rounds:?}");
    assert!(late.files <= early.files + FILES_GROWTH_MAX, "the daemon keeps files open: {rounds:?}");
}

/// Reads in a snapshot while everything else goes on; it may be deleted meanwhile.
fn read_snapshots(rig: &Rig) {
    for entry in fs::read_dir(rig.snap()).into_iter().flatten().flatten() {
        for writer in 0..WRITERS {
            match load::look(&load::directory(&entry.path(), writer)) {
                Ok(_) => {}
                // Gone, or changed on the way in `live`, where a directory can have become a file.
                Err(error) => {
                    let number = rustix::io::Errno::from_io_error(&error);
                    let expected = [rustix::io::Errno::NOENT, rustix::io::Errno::STALE, rustix::io::Errno::NODATA];
                    let is_replaced = entry.file_name() == "live" && number == Some(rustix::io::Errno::NOTDIR);
                    let is_expected = is_replaced || number.is_some_and(|number| expected.contains(&number));
                    assert!(is_expected, "{}: {error}", entry.path().display());
                }
            }
        }
    }
}

#[test]
#[ignore = "long: run by `make soak`"]
fn load_for_a_long_time_changes_nothing_but_files() {
    if !can_mount() {
        return;
    }
    let minutes = number("PITFS_MINUTES", 10);
    let seed = number("PITFS_SEED", 1);
    let mut rng = Rng::new(seed);
    let mut rig = Rig::new(&[]);
    let created = rig.create("lz4");
    assert!(created.status.success(), "{created:?}");
    assert!(rig.mount(), "{}", rig.log());
    rig.make_directories();
    let (start, mut rounds) = (Instant::now(), Vec::new());
    while start.elapsed() < Duration::from_secs(60 * minutes) {
        rig.load(&mut rng, OnError::GoOn(&[]), |has_ended| {
            let round = Instant::now();
            while round.elapsed() < ROUND && !has_ended.load(Ordering::Relaxed) {
                read_snapshots(&rig);
            }
        });
        let done = rig.ledger.done();
        rig.ledger.make_safe(&done);
        let found = rig.compare().unwrap_or_else(|text| panic!("round {} of seed {seed}: {text}", rounds.len()));
        rig.accept(found);
        rounds.push(taken(&rig));
        if rounds.len().is_multiple_of(12) {
            println!("round {}: {:?}, {} snapshots", rounds.len(), taken(&rig), rig.snapshots.len());
            rig.check().unwrap();
        }
    }
    check_growth(&rounds);
    assert!(rig.umount(), "{}", rig.log());
    rig.check().unwrap();
    assert!(rig.mount(), "{}", rig.log());
    rig.compare().unwrap_or_else(|text| panic!("after mounting again: {text}"));
    assert!(rig.umount(), "{}", rig.log());
    rig.log();
}
