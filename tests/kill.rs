//! The daemon killed without warning, under load, again and again.

mod mounted;

use mounted::*;
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

const ROUNDS: usize = 12;

/// What a writer knows to be safe.
#[derive(Default)]
struct Safe {
    /// Files whose fsync has returned, with the number that each byte of them has.
    files: Vec<(String, u8)>,
    /// Snapshots whose command has returned, with how many files were safe before.
    snapshots: Vec<(String, usize)>,
}

#[test]
fn what_was_reported_as_done_survives_the_killing_of_the_daemon() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let safe = Mutex::new(Safe::default());
    for round in 0..ROUNDS {
        std::thread::scope(|scope| {
            let live = mounted.live();
            for writer in 0..2 {
                let (safe, live) = (&safe, live.clone());
                scope.spawn(move || write_files(&live, round, writer, safe));
            }
            let (safe, snap) = (&safe, mounted.snap());
            scope.spawn(move || take_snapshots(&snap, round, safe));
            let live = mounted.live();
            scope.spawn(move || churn(&live));
            std::thread::sleep(Duration::from_millis(150 + 37 * round as u64));
            mounted.signal_daemon(Signal::KILL);
        });
        mounted.kill();
        mounted.check();
        mounted.mount(&[]);
        compare(&mounted, &safe.lock().unwrap());
    }
    mounted.umount();
    mounted.check();
}

/// Writes and fsyncs files until the daemon is gone.
fn write_files(live: &Path, round: usize, writer: usize, safe: &Mutex<Safe>) {
    for i in 0.. {
        let (name, byte) = (format!("{round}-{writer}-{i}"), (i * 7 + writer) as u8);
        let len = [100, 5000, 70_000, 300_000][i % 4];
        let written = File::create(live.join(&name)).and_then(|mut file| {
            file.write_all(&vec![byte; len])?;
            file.write_all_at(&[byte; 10], len as u64 / 2)?;
            file.sync_all()
        });
        match written {
            Ok(()) => safe.lock().unwrap().files.push((name, byte)),
            Err(_) => return,
        }
    }
}

fn take_snapshots(snap: &Path, round: usize, safe: &Mutex<Safe>) {
    for i in 0.. {
        let name = format!("s{round}-{i}");
        let files = safe.lock().unwrap().files.len();
        if fs::create_dir(snap.join(&name)).is_err() {
            return;
        }
        safe.lock().unwrap().snapshots.push((name, files));
        if i % 3 == 2 {
            let victim = format!("s{round}-{}", i - 1);
            safe.lock().unwrap().snapshots.retain(|(name, _)| *name != victim);
            if fs::remove_dir(snap.join(victim)).is_err() {
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Changes that nobody waits for.
fn churn(live: &Path) {
    for i in 0.. {
        let path = live.join(format!("churn {}", i % 20));
        if fs::write(&path, vec![i as u8; (i * 977) % 100_000]).is_err()
            || i % 5 == 0 && fs::remove_file(&path).is_err()
        {
            return;
        }
    }
}

fn compare(mounted: &Mounted, safe: &Safe) {
    for (name, byte) in &safe.files {
        let bytes = fs::read(mounted.live().join(name)).unwrap_or_else(|error| panic!("{name} was fsynced: {error}"));
        assert!([100, 5000, 70_000, 300_000].contains(&bytes.len()), "{name} has {} bytes", bytes.len());
        assert!(bytes.iter().all(|found| found == byte), "{name} has other bytes");
    }
    for (snapshot, files) in &safe.snapshots {
        let root = mounted.snap().join(snapshot);
        assert!(root.exists(), "snapshot {snapshot} was taken");
        for (name, byte) in safe.files[..*files].iter().rev().take(20) {
            let bytes = fs::read(root.join(name)).unwrap_or_else(|error| panic!("{snapshot}/{name}: {error}"));
            assert!(bytes.iter().all(|found| found == byte), "{snapshot}/{name} has other bytes");
        }
    }
}
