//! Programs that the benchmark runs: installed when root, named when not.

use crate::command::{has, is_root};
use std::process::Command;

/// A program, its package, and the parts that need it; with none, all do.
const NEEDS: [(&str, &str, &[&str]); 7] = [
    ("fio", "fio", &["files", "history"]),
    ("mkfs.btrfs", "btrfs-progs", &["files", "snapshots", "sync", "points"]),
    ("rsync", "rsync", &["sync"]),
    ("restic", "restic", &["sync", "archive", "sets"]),
    ("borg", "borgbackup", &["sync", "archive", "sets"]),
    // Without it, borg does not mount.
    ("/usr/lib/python3/dist-packages/pyfuse3_asyncio.py", "python3-pyfuse3", &["sets"]),
    ("rdiff-backup", "rdiff-backup", &["sync", "archive", "sets"]),
];

pub fn install(parts: &[&str]) {
    let missing = || -> Vec<&str> {
        let is_needed = |for_parts: &[&str]| for_parts.iter().any(|part| parts.contains(part));
        let missing = NEEDS.iter().filter(|(program, _, for_parts)| is_needed(for_parts) && !has(program));
        missing.map(|(_, package, _)| *package).collect()
    };
    let packages = missing();
    if packages.is_empty() {
        return;
    }
    if is_root() && has("apt-get") {
        eprintln!("# installing {}", packages.join(" "));
        let run = |arguments: &[&str]| {
            let mut command = Command::new("apt-get");
            command.arg("-qq").args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
            command.stdout(std::process::Stdio::null()).status().is_ok_and(|status| status.success())
        };
        let install = [&["install", "-y", "--no-install-recommends"], &packages[..]].concat();
        if !(run(&["update"]) && run(&install)) {
            eprintln!("bench: apt-get failed");
        }
    }
    let packages = missing();
    if !packages.is_empty() {
        eprintln!("bench: rows are missing without: sudo apt-get install {}", packages.join(" "));
    }
}
