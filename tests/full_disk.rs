//! A store on a small file system that fills up.

mod mounted;

use mounted::*;
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system of its own, gone with the test.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, megabytes: u32) -> Small {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o"]).arg(format!("size={megabytes}m")).args(["pitfs-test"]).arg(at);
        assert!(command.status().unwrap().success());
        Small(at.to_path_buf())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _gone_already = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

fn is_full<T>(result: std::io::Result<T>) -> bool {
    match result {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(Errno::from_io_error(&error), Some(Errno::NOSPC), "{error}");
            true
        }
    }
}

/// Writes files until there is no room; what each of them holds.
fn fill(dir: &Path, first: u64) -> Vec<(PathBuf, Vec<u8>)> {
    let mut written = Vec::new();
    for i in first.. {
        let path = dir.join(format!("file {i}"));
        let bytes = random_bytes(i, [3000, 500_000, 70_000, 300][i as usize % 4]);
        let file = File::create(&path);
        if is_full(file.as_ref().map_err(|error| std::io::Error::from(error.kind()))) {
            return written;
        }
        if is_full(file.and_then(|mut file| file.write_all(&bytes))) {
            // What of it was accepted has to stay right.
            let kept = fs::read(&path).unwrap();
            assert!(bytes.starts_with(&kept) || kept.iter().zip(&bytes).all(|(a, b)| a == b || *a == 0));
            written.push((path, kept));
            return written;
        }
        written.push((path, bytes));
    }
    written
}

fn compare(files: &[(PathBuf, Vec<u8>)]) {
    for (path, bytes) in files {
        assert!(fs::read(path).unwrap() == *bytes, "{}", path.display());
    }
}

#[test]
fn a_full_disk_loses_nothing_and_can_be_emptied() {
    if !can_mount() || !is_root() {
        return eprintln!("not run: needs root and /dev/fuse");
    }
    let mounted = Mounted { dir: temporary() };
    let disk = mounted.dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let _small = Small::mount(&disk, 64);
    fs::create_dir(mounted.snap()).unwrap();
    fs::create_dir(disk.join("store")).unwrap();
    std::os::unix::fs::symlink(disk.join("store"), mounted.store()).unwrap();
    mounted.ok(["create", mounted.store().to_str().unwrap()]);
    mounted.mount(&[]);
    let live = mounted.live();

    let first = fill(&live, 0);
    let bytes: usize = first.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes > 25 << 20, "only {bytes} bytes fitted into 64 MiB");
    compare(&first);
    File::open(&live).unwrap().sync_all().unwrap();
    // A snapshot needs next to no room; it is taken or refused, and nothing else happens.
    let has_snapshot = !is_full(fs::create_dir(mounted.snap().join("full")));
    compare(&first);
    let overwritten =
        File::options().write(true).open(&first[1].0).and_then(|mut file| file.write_all(&random_bytes(99, 500_000)));
    if has_snapshot && overwritten.is_ok() {
        assert_eq!(fs::read(mounted.snap().join("full").join(first[1].0.file_name().unwrap())).unwrap(), first[1].1);
    }
    mounted.kill();
    mounted.check();
    mounted.mount(&[]);
    compare(&first[2..]);

    // Full again, rm and delete work and bring the room back.
    let second = fill(&live, 1_000_000);
    compare(&first[2..]);
    compare(&second);
    for (path, _) in first.iter().chain(&second) {
        fs::remove_file(path).unwrap_or_else(|error| panic!("rm {} on a full disk: {error}", path.display()));
    }
    if has_snapshot {
        mounted.ok(["delete", "full"]);
    }
    File::open(&live).unwrap().sync_all().unwrap();
    wait_for("room to come back", || {
        let status = mounted.ok(["status", "--json"]);
        let live_bytes = status.lines().find(|line| line.contains("\"live_bytes\"")).unwrap();
        let log_bytes = status.lines().find(|line| line.contains("\"log_bytes\"")).unwrap();
        let number = |line: &str| line.trim().trim_end_matches(',').rsplit(' ').next().unwrap().parse::<u64>().unwrap();
        number(live_bytes) + number(log_bytes) < 1 << 20
    });
    let third = fill(&live, 2_000_000);
    let again: usize = third.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(again * 10 > bytes * 8, "first {bytes} bytes fitted, after emptying {again}");
    compare(&third);
    mounted.umount();
    mounted.check();
}
