//! A disk that fails, is full, slow or does things by halves, under a real daemon with load on its mount: errors
//! reach those whose requests they concern, nobody hangs, and nothing that was reported as done is lost.
//!
//! `PITFS_SEED` says with which seed to begin, `PITFS_FAULTS` with how many each fault is tried.

mod disk;
mod load;
mod mounted;
mod rig;

use disk::{Faults, Image};
use load::{OnError, Rng};
use mounted::can_mount;
use rig::*;
use rustix::io::Errno;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

/// How long the load lasts.
const LOAD: Duration = Duration::from_millis(800);
/// What has to fail, fails within this time.
const FAST: Duration = Duration::from_secs(2);

/// A mounted store on a disk without faults, with something in it.
fn begin(seed: u64) -> (Rig, Rng) {
    let mut rig = Rig::new(&[]);
    let mut rng = Rng::new(seed);
    rig.plug_in(Image::default(), seed);
    let created = rig.create(["lz4", "none", "zstd"][seed as usize % 3]);
    assert!(created.status.success(), "{created:?}");
    assert!(rig.mount(), "{}", rig.log());
    rig.make_directories();
    load_for(&rig, &mut rng, OnError::Stop, LOAD / 4);
    (rig, rng)
}

/// Loads the mount for a while; nobody may be stopped by an error that was not expected.
fn load_for(rig: &Rig, rng: &mut Rng, on_error: OnError, time: Duration) {
    rig.load(rng, on_error, |has_ended| {
        std::thread::sleep(time);
        let was_stopped = has_ended.load(std::sync::atomic::Ordering::Relaxed);
        assert!(!was_stopped, "a writer was stopped by an error: {}", rig.log());
    });
}

/// Everything that was done is there: in the mount, after unmounting, and after mounting again.
fn end(mut rig: Rig) {
    let done = rig.ledger.done();
    rig.ledger.make_safe(&done);
    rig.compare().unwrap_or_else(|text| panic!("{text}: {}", rig.log()));
    assert!(rig.umount(), "{}", rig.log());
    rig.check().unwrap();
    assert!(rig.mount(), "{}", rig.log());
    rig.compare().unwrap_or_else(|text| panic!("after mounting again: {text}: {}", rig.log()));
    assert!(rig.umount(), "{}", rig.log());
    rig.log();
}

fn is_stopped(rig: &Rig) -> bool {
    let output = rig.pitfs(&["status", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("\"stopped\""), "{output:?}");
    !text.contains("\"stopped\": null")
}

fn fails_fast<T>(what: &str, action: impl FnOnce() -> io::Result<T>) {
    let start = Instant::now();
    let Err(error) = action() else { panic!("{what} succeeds in a store that has stopped") };
    let expected = matches!(Errno::from_io_error(&error), Some(Errno::IO | Errno::ROFS));
    assert!(expected && start.elapsed() < FAST, "{what}: {error} after {:?}", start.elapsed());
}

/// A store that has stopped refuses changes at once, can still be read, and can be unmounted; what was
/// safe is there when the disk works again.
fn examine_stopped(rig: &mut Rig) {
    assert!(is_stopped(rig), "{}", rig.log());
    let live = rig.live();
    rig.guarded("a stopped store", || {
        fails_fast("making a file", || fs::write(live.join("new"), b"x"));
        fails_fast("making a directory", || fs::create_dir(live.join("new")));
        fails_fast("removing a directory", || fs::remove_dir(live.join("w0")));
        fails_fast("renaming", || fs::rename(live.join("w1"), live.join("w9")));
        fails_fast("taking a snapshot", || fs::create_dir(rig.snap().join("new")));
        fails_fast("fsync", || fs::File::open(&live)?.sync_all());
    });
    let start = Instant::now();
    let output = rig.pitfs(&["snap", "by-command"]);
    assert!(!output.status.success() && start.elapsed() < FAST, "{output:?}");
    // Reading goes on.
    rig.compare().unwrap_or_else(|text| panic!("{text}: {}", rig.log()));
    rig.disk().set_faults(Faults::default());
    let start = Instant::now();
    rig.umount();
    assert!(start.elapsed() < Duration::from_secs(20), "unmounting took {:?}", start.elapsed());
    rig.check().unwrap_or_else(|text| panic!("{text}: {}", rig.log()));
    assert!(rig.mount(), "{}", rig.log());
    let found = rig.compare().unwrap_or_else(|text| panic!("after mounting again: {text}: {}", rig.log()));
    rig.accept(found);
}

/// A disk that is only slow, or does things by halves, is not to blame.
fn works_without_an_error(seed: u64, faults: Faults) {
    let (rig, mut rng) = begin(seed);
    rig.disk().set_faults(faults);
    load_for(&rig, &mut rng, OnError::Stop, LOAD);
    assert!(rig.disk().faults_met() > 5, "{} faults were met", rig.disk().faults_met());
    rig.disk().set_faults(Faults::default());
    end(rig);
}

/// Writing fails: the store stops, if not at the first failure, then soon.
fn stops(seed: u64, faults: Faults) {
    let (mut rig, mut rng) = begin(seed);
    for _ in 0..2 {
        rig.disk().set_faults(faults.clone());
        let start = Instant::now();
        loop {
            load_for(&rig, &mut rng, OnError::GoOn(&[Errno::IO]), LOAD / 8);
            if is_stopped(&rig) {
                break;
            }
            assert!(start.elapsed() < TIMEOUT, "the store does not stop");
        }
        examine_stopped(&mut rig);
        load_for(&rig, &mut rng, OnError::Stop, LOAD / 4);
    }
    end(rig);
}

/// Runs `action` with a few seeds.
fn with_faults(action: impl FnMut(u64)) {
    if can_mount() {
        with_seeds(number("PITFS_SEED", 1), number("PITFS_FAULTS", 2), action);
    }
}

#[test]
fn short_reads_and_writes_go_on_where_they_ended() {
    with_faults(|seed| works_without_an_error(seed, Faults { short: 200, ..Faults::default() }));
}

#[test]
fn slow_requests_are_waited_for() {
    with_faults(|seed| works_without_an_error(seed, Faults { slow: 60, ..Faults::default() }));
}

#[test]
fn failed_writes_stop_the_store() {
    with_faults(|seed| stops(seed, Faults { write_fails: 30, ..Faults::default() }));
}

#[test]
fn failed_syncs_stop_the_store() {
    with_faults(|seed| stops(seed, Faults { sync_fails: 100, ..Faults::default() }));
}

/// A disk that says now and then that it is full: that is no failure, and nothing is lost.
#[test]
fn a_disk_that_is_full_now_and_then_loses_nothing() {
    with_faults(|seed| {
        let (rig, mut rng) = begin(seed);
        rig.disk().set_faults(Faults { no_space: 200, ..Faults::default() });
        let start = Instant::now();
        // Only what grows meets it.
        while rig.disk().faults_met() == 0 {
            assert!(start.elapsed() < TIMEOUT, "no fault was met");
            load_for(&rig, &mut rng, OnError::GoOn(&[Errno::NOSPC]), LOAD);
        }
        assert!(!is_stopped(&rig), "{}", rig.log());
        rig.disk().set_faults(Faults::default());
        load_for(&rig, &mut rng, OnError::GoOn(&[Errno::NOSPC]), LOAD / 2);
        end(rig);
    });
}

/// Reads that fail concern whoever reads. Once the disk works again, so does everything else; only where
/// a commit could not read, the store has stopped.
#[test]
fn failed_reads_concern_those_who_read() {
    with_faults(|seed| {
        let (mut rig, mut rng) = begin(seed);
        // With nothing of it in memory.
        assert!(rig.umount(), "{}", rig.log());
        assert!(rig.mount(), "{}", rig.log());
        rig.disk().set_faults(Faults { read_fails: 50, ..Faults::default() });
        let start = Instant::now();
        // How much is read in a while depends on the machine.
        while rig.disk().faults_met() <= 5 {
            assert!(start.elapsed() < TIMEOUT, "{} faults were met", rig.disk().faults_met());
            load_for(&rig, &mut rng, OnError::GoOn(&[Errno::IO]), LOAD);
            // Whoever looks now may be told of an error, and of nothing that is not so.
            for _ in 0..20 {
                if let Err(text) = rig.compare() {
                    assert!(text.contains("os error 5"), "{text}");
                }
            }
        }
        rig.disk().set_faults(Faults::default());
        if is_stopped(&rig) {
            examine_stopped(&mut rig);
        } else {
            rig.compare().unwrap_or_else(|text| panic!("after the disk works again: {text}: {}", rig.log()));
        }
        load_for(&rig, &mut rng, OnError::Stop, LOAD / 4);
        end(rig);
    });
}

/// A disk on which opening fails: the daemon says so and ends, and leaves no mount.
#[test]
fn a_store_that_cannot_be_opened_is_not_mounted() {
    with_faults(|seed| {
        let (mut rig, _rng) = begin(seed);
        assert!(rig.umount(), "{}", rig.log());
        rig.disk().set_faults(Faults { read_fails: 1000, ..Faults::default() });
        assert!(!rig.mount(), "it was mounted without a single read");
        assert!(!mounted::is_mount_point(&rig.snap()));
        let log = rig.log();
        assert!(log.lines().last().is_some_and(|line| line.contains("Input/output error")), "{log}");
        rig.disk().set_faults(Faults::default());
        assert!(rig.mount(), "{}", rig.log());
        end(rig);
    });
}
