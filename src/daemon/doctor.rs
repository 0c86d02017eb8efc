//! What a machine and a directory have for a store: looked at from outside, with nothing changed and no name made.

use crate::error::{Error, Result};
use crate::fuse::{DEVICE, FUSERMOUNT, ring};
use crate::shown::{shown_file, size};
use rustix::fs::{CWD, FallocateFlags, FlockOperation, Mode, OFlags, fallocate, flock, openat, statfs};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// How good something is for a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    Good,
    /// It works, with a limit that can matter.
    Poor,
    Bad,
}

impl Grade {
    pub fn name(self) -> &'static str {
        match self {
            Grade::Good => "good",
            Grade::Poor => "poor",
            Grade::Bad => "bad",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub what: &'static str,
    pub grade: Grade,
    pub found: String,
    /// What to do, where it is not good.
    pub helps: Option<String>,
}

impl Finding {
    pub fn good(what: &'static str, found: impl Into<String>) -> Finding {
        Finding { what, grade: Grade::Good, found: found.into(), helps: None }
    }

    pub fn poor(what: &'static str, found: impl Into<String>, helps: impl Into<String>) -> Finding {
        Finding { what, grade: Grade::Poor, found: found.into(), helps: Some(helps.into()) }
    }

    pub fn bad(what: &'static str, found: impl Into<String>, helps: impl Into<String>) -> Finding {
        Finding { grade: Grade::Bad, ..Finding::poor(what, found, helps) }
    }
}

/// The kernel, and the way to mount.
pub fn look_at_machine() -> Vec<Finding> {
    let is_root = rustix::process::geteuid().is_root();
    let release = read("/proc/sys/kernel/osrelease");
    let mut found = vec![kernel(&release), device()];
    if !is_root {
        found.push(helper(std::env::var_os("PATH").unwrap_or_default().as_os_str()));
        found.push(others(&read("/etc/fuse.conf")));
    }
    found.push(rings(&release, ring::is_enabled(), is_root));
    found
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_string()
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

const KERNEL_LEAST: (u32, u32) = (5, 4);
const RINGS_SINCE: (u32, u32) = (6, 14);

fn kernel(release: &str) -> Finding {
    match version(release) >= KERNEL_LEAST {
        true => Finding::good("kernel", format!("Linux {release}")),
        false => Finding::poor("kernel", format!("Linux {release}"), "pitfs is tried with Linux 5.4 and later"),
    }
}

fn device() -> Finding {
    match File::options().read(true).write(true).open(DEVICE) {
        Ok(_) => Finding::good(DEVICE, "can be opened"),
        Err(error) => {
            let helps = "load the module `fuse`, or give this user, or the container, the device";
            Finding::bad(DEVICE, error.to_string(), helps)
        }
    }
}

/// What mounts for a normal user.
fn helper(path: &std::ffi::OsStr) -> Finding {
    let found = std::env::split_paths(path).map(|dir| dir.join(FUSERMOUNT)).find(|path| path.is_file());
    let helps = "install the package `fuse3`: without it only root can mount";
    match found.and_then(|path| Some((path.metadata().ok()?, path))) {
        None => Finding::bad(FUSERMOUNT, "is not there", helps),
        Some((metadata, path)) if metadata.uid() != 0 || metadata.permissions().mode() & 0o4000 == 0 => {
            Finding::poor(FUSERMOUNT, format!("{} does not run as root", shown_file(&path)), helps)
        }
        Some((_, path)) => Finding::good(FUSERMOUNT, shown_file(&path).to_string()),
    }
}

fn others(conf: &str) -> Finding {
    match conf.lines().any(|line| line.trim() == "user_allow_other") {
        true => Finding::good("other users", "can be let in, with `-o allow_other`"),
        false => {
            let helps = "a line `user_allow_other` in /etc/fuse.conf lets `-o allow_other` show it to others";
            Finding::poor("other users", "cannot see what this user mounts", helps)
        }
    }
}

fn rings(release: &str, are_enabled: bool, is_root: bool) -> Finding {
    match (version(release) >= RINGS_SINCE, are_enabled, is_root) {
        (false, ..) => Finding::poor(
            "rings",
            "this kernel has none",
            "Linux 6.14 and later serve requests through rings, twice as fast",
        ),
        (true, true, _) => Finding::good("rings", "are switched on"),
        (true, _, true) => Finding::good("rings", "are switched on where `-o io_uring=on` is given"),
        (true, ..) => {
            let helps = "as root: echo Y > /sys/module/fuse/parameters/enable_uring";
            Finding::poor("rings", "are switched off: requests take up to twice as long", helps)
        }
    }
}

/// The directory of a store, or one that is to become a store, and the file system that it is on.
pub fn look_at_directory(directory: &Path) -> Result<Vec<Finding>> {
    let existing = directory.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
    let stat =
        statfs(existing).map_err(|error| Error::media(format!("looking at {}", shown_file(existing)), error.into()))?;
    let mut found = vec![file_system(stat.f_type as u64)];
    let (total, free) = (stat.f_blocks * stat.f_bsize as u64, stat.f_bavail * stat.f_bsize as u64);
    found.push(room(total, free));
    found.extend(unnamed(existing));
    Ok(found)
}

fn file_system(magic: u64) -> Finding {
    const LOCAL: [(u64, &str); 6] = [
        (0xef53, "ext4"),
        (0x5846_5342, "XFS"),
        (0x9123_683e, "btrfs"),
        (0xf2f5_2010, "F2FS"),
        (0x2fc1_2fc1, "ZFS"),
        (0xca45_1a4e, "bcachefs"),
    ];
    const REMOTE: [(u64, &str); 7] = [
        (0x6969, "NFS"),
        (0xff53_4d42, "CIFS"),
        (0xfe53_4d42, "SMB"),
        (0x0102_1997, "9P"),
        (0x00c3_6400, "Ceph"),
        (0x5346_414f, "AFS"),
        (0x6573_5546, "FUSE"),
    ];
    let name = |all: &[(u64, &'static str)]| all.iter().find(|(one, _)| *one == magic).map(|(_, name)| *name);
    match (name(&LOCAL), name(&REMOTE), magic) {
        (Some(name), ..) => Finding::good("file system", name),
        (_, Some(name), _) => {
            let helps = "put the store on a local disk: locks and syncs of this may not hold what they say";
            Finding::bad("file system", name, helps)
        }
        (.., 0x0102_1994) => {
            Finding::bad("file system", "in memory (tmpfs)", "it is gone with the machine: put the store on a disk")
        }
        (.., 0x794c_7630) => Finding::poor(
            "file system",
            "overlay, as of a container",
            "what it has can go with the container: mount a volume for the store",
        ),
        (.., magic) => {
            Finding::poor("file system", format!("of the kind {magic:#x}"), "pitfs is tried on ext4, XFS and btrfs")
        }
    }
}

/// Bytes with which nothing much can be written, and with which it becomes tight.
const ROOM_BAD: u64 = 64 << 20;
const ROOM_POOR: u64 = 1 << 30;

fn room(total: u64, free: u64) -> Finding {
    let found = format!("{} of {} are free", size(free), size(total));
    let helps = "make room on this disk, or delete snapshots: `pitfs list --sort frees` shows what each frees";
    match free {
        ..ROOM_BAD => Finding::bad("room", found, helps),
        ROOM_BAD..ROOM_POOR if free < total / 20 => Finding::poor("room", found, helps),
        _ => Finding::good("room", found),
    }
}

const PROBE_BYTES: usize = 1 << 20;
const SYNCS: usize = 5;
const SYNC_POOR: Duration = Duration::from_millis(50);

/// What a file without a name tells: of syncs, holes and locks.
fn unnamed(directory: &Path) -> Vec<Finding> {
    let opened = openat(CWD, directory, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
    let file = match opened {
        Ok(file) => File::from(file),
        Err(error) => {
            let helps = "syncs, holes and locks were not tried: this user, or this file system, makes no file without a name there";
            return vec![Finding::poor("files", std::io::Error::from(error).to_string(), helps)];
        }
    };
    vec![syncs(&file), holes(&file), locks(&file)]
}

fn syncs(file: &File) -> Finding {
    let mut took: Vec<Duration> = Vec::new();
    for at in 0..SYNCS {
        let begun = Instant::now();
        let synced = file.write_all_at(&[at as u8 + 1; 4096], (at * 4096) as u64).and_then(|()| file.sync_data());
        if let Err(error) = synced {
            return Finding::bad("sync", error.to_string(), "nothing is durable on this file system: use another one");
        }
        took.push(begun.elapsed());
    }
    took.sort();
    let found = format!("{:.1} ms each", took[SYNCS / 2].as_secs_f64() * 1000.0);
    match took[SYNCS / 2] > SYNC_POOR {
        true => Finding::poor(
            "sync",
            found,
            "each commit waits for this: an SSD, or a disk with a cache that is kept, is faster",
        ),
        false => Finding::good("sync", found),
    }
}

fn holes(file: &File) -> Finding {
    let punched = || -> std::io::Result<bool> {
        file.write_all_at(&vec![7; PROBE_BYTES], 0)?;
        file.sync_data()?;
        let before = file.metadata()?.blocks();
        fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, PROBE_BYTES as u64)?;
        file.sync_data()?;
        Ok(file.metadata()?.blocks() < before)
    };
    match punched() {
        Ok(true) => Finding::good("holes", "room inside files can be given back"),
        Ok(false) | Err(_) => {
            let helps = "what snapshots let go becomes free for the store alone, and not for others on this disk";
            Finding::poor("holes", "room inside files cannot be given back", helps)
        }
    }
}

fn locks(file: &File) -> Finding {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Finding::good("locks", "flock works"),
        Err(error) => {
            let helps = "two daemons could open the store at once here: use another file system";
            Finding::bad("locks", std::io::Error::from(error).to_string(), helps)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grades(all: &[Finding]) -> Vec<(&'static str, Grade)> {
        all.iter().map(|one| (one.what, one.grade)).collect()
    }

    #[test]
    fn what_is_not_good_says_what_helps() {
        let all = [
            kernel("4.19.0-x"),
            helper(std::ffi::OsStr::new("/none/such")),
            others("# user_allow_other\n"),
            rings("5.10.0", false, false),
            rings("6.18.1", false, false),
            file_system(0x6969),
            file_system(0x0102_1994),
            file_system(1),
            room(1 << 40, 1 << 20),
            room(1 << 40, 900 << 20),
        ];
        assert!(all.iter().all(|one| one.grade > Grade::Good && one.helps.is_some()), "{all:?}");
        let good = [
            kernel("6.1.0-28-amd64"),
            others("user_allow_other"),
            rings("6.18.1", true, false),
            rings("6.18.1", false, true),
            file_system(0xef53),
            room(2 << 30, 1 << 30),
        ];
        assert!(good.iter().all(|one| one.grade == Grade::Good && one.helps.is_none()), "{good:?}");
    }

    #[test]
    fn a_directory_is_looked_at_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        // One that is still to be made is looked at where it will be.
        let found = look_at_directory(&dir.path().join("to/come")).unwrap();
        let whats: Vec<&str> = grades(&found).iter().map(|(what, _)| *what).collect();
        assert_eq!(whats[..2], ["file system", "room"]);
        assert!(whats[2..] == ["sync", "holes", "locks"] || whats[2..] == ["files"], "{found:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn releases_are_compared_as_numbers() {
        assert!(version("6.2.0") < version("6.14.1-rc3") && version("10.0") > RINGS_SINCE);
        assert_eq!((version(""), version("odd")), ((0, 0), (0, 0)));
    }
}
