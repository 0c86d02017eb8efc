//! A store and its mount for one test, gone afterwards whatever happens.
#![allow(dead_code, reason = "each test file uses its part")]

mod asking;
mod guard;
mod holder;
mod records;
mod small_disk;

#[allow(unused_imports, reason = "as above")]
pub use asking::*;
#[allow(unused_imports, reason = "as above")]
pub use guard::{guarded, temporary};
#[allow(unused_imports, reason = "as above")]
pub use holder::*;
#[allow(unused_imports, reason = "as above")]
pub use records::{Records, ends};
#[allow(unused_imports, reason = "as above")]
pub use small_disk::{Disk, small_disk};

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

pub const PITFS: &str = env!("CARGO_BIN_EXE_pitfs");

/// Whether this machine can mount; tests that need to say so and pass where it cannot.
pub fn can_mount() -> bool {
    let can = Path::new("/dev/fuse").exists();
    if !can {
        eprintln!("not run: /dev/fuse is missing");
    }
    can
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub struct Mounted {
    pub dir: tempfile::TempDir,
}

impl Mounted {
    /// A new, empty store, mounted.
    pub fn new() -> Mounted {
        Mounted::with_options(&[])
    }

    pub fn with_options(options: &[&str]) -> Mounted {
        let mounted = Mounted::unmounted();
        mounted.mount(options);
        mounted
    }

    /// A new, empty store.
    /// A mounted store with the bases `live` and `b` in the group `g`, where that can be had.
    pub fn with_group() -> Option<Mounted> {
        if !can_mount() {
            return None;
        }
        let mounted = Mounted::unmounted();
        mounted.ok(["base", "create", "b"]);
        mounted.ok(["group", "create", "g", "live", "b"]);
        mounted.mount(&[]);
        Some(mounted)
    }

    pub fn unmounted() -> Mounted {
        let mounted = Mounted { dir: temporary() };
        fs::create_dir(mounted.snap()).unwrap();
        mounted.ok(["create", mounted.store().to_str().unwrap(), "--track-size", "16K"]);
        mounted
    }

    /// A new, empty store that is not mounted, and another one that is, where that can be had.
    pub fn unmounted_and_mounted() -> impl Iterator<Item = (Mounted, bool)> {
        [false, true].into_iter().filter(|is_mounted| !is_mounted || can_mount()).map(|is_mounted| {
            let mounted = Mounted::unmounted();
            if is_mounted {
                mounted.mount(&[]);
            }
            (mounted, is_mounted)
        })
    }

    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// The mount point.
    pub fn snap(&self) -> PathBuf {
        self.dir.path().join("snap")
    }

    pub fn live(&self) -> PathBuf {
        self.snap().join("live")
    }

    pub fn mount(&self, options: &[&str]) {
        let store = self.store();
        let snap = self.snap();
        let mut args = vec![OsStr::new("mount")];
        for option in options {
            args.extend([OsStr::new("-o"), OsStr::new(option)]);
        }
        args.extend([store.as_os_str(), snap.as_os_str()]);
        self.ok(args);
    }

    pub fn umount(&self) {
        let snap = self.snap();
        self.ok([OsStr::new("umount"), snap.as_os_str()]);
    }

    pub fn remount(&self) {
        self.umount();
        self.mount(&[]);
    }

    /// A target beside the store, called `usb`, which is not encrypted.
    pub fn add_target(&self) -> PathBuf {
        let target = self.dir.path().join("usb");
        fs::create_dir(&target).unwrap();
        self.ok(["target", "add", "usb", target.to_str().unwrap(), "--no-encryption"]);
        target
    }

    /// Runs a command on this store.
    pub fn run<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Output {
        self.command(args).output().unwrap()
    }

    pub fn command<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> Command {
        let mut command = Command::new(PITFS);
        command.args(args).env("PITFS_STORE", self.store()).stdin(Stdio::null());
        command
    }

    /// Runs a command that has to succeed; what it printed.
    pub fn ok<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, args: I) -> String {
        let args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_os_string()).collect();
        let output = self.run(&args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {:?}\n{text}{errors}", output.status);
        text
    }

    /// Runs a command that has to fail with this exit status; what it said.
    pub fn fails<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, status: i32, args: I) -> String {
        let args: Vec<_> = args.into_iter().map(|arg| arg.as_ref().to_os_string()).collect();
        let output = self.run(&args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{args:?}: {text}");
        text
    }

    /// The process that has the store open.
    pub fn daemon(&self) -> Option<rustix::process::Pid> {
        let text = fs::read_to_string(self.store().join("lock")).ok()?;
        let number = text.lines().next()?.strip_prefix("process ")?.parse().ok()?;
        rustix::process::Pid::from_raw(number)
    }

    pub fn signal_daemon(&self, signal: rustix::process::Signal) {
        if let Some(daemon) = self.daemon() {
            rustix::process::kill_process(daemon, signal).unwrap();
        }
    }

    /// Kills the daemon without warning and clears its mount away.
    pub fn kill(&self) {
        self.signal_daemon(rustix::process::Signal::KILL);
        wait_for("the store's lock to be free", || {
            let file = fs::File::open(self.store().join("lock")).unwrap();
            rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
        });
        detach(&self.snap());
    }

    /// Whether somebody has the store open.
    pub fn is_open(&self) -> bool {
        let lock = fs::File::open(self.store().join("lock"));
        lock.is_ok_and(|lock| {
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockShared)
                == Err(rustix::io::Errno::WOULDBLOCK)
        })
    }

    /// `pitfs check` finds nothing.
    pub fn check(&self) {
        let text = self.ok(["check"]);
        assert!(text.contains("no problems"), "{text}");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if is_mount_point(&self.snap()) {
            let output = Command::new(PITFS).arg("umount").arg("--lazy").arg(self.snap()).output();
            if output.is_ok_and(|output| !output.status.success()) {
                detach(&self.snap());
            }
        }
        // One that does not end by itself is a fault that another test shows; this one leaves nothing behind.
        let start = Instant::now();
        while self.is_open() {
            if start.elapsed() > Duration::from_secs(10)
                && let Some(daemon) = self.daemon()
            {
                let _gone_already = rustix::process::kill_process(daemon, rustix::process::Signal::KILL);
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        detach_below(self.dir.path());
    }
}

/// Takes away whatever is mounted below a directory, what is on top first.
pub fn detach_below(directory: &Path) {
    let mounts = pitfs::fuse::mounts();
    mounts.iter().rev().map(|mount| &*mount.at).filter(|at| at.starts_with(directory)).for_each(detach);
}

pub fn detach(path: &Path) {
    if is_root() {
        let _gone_already = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
    } else {
        let _gone_already = Command::new("fusermount3").arg("-uzq").arg(path).output();
    }
}

pub fn is_mount_point(path: &Path) -> bool {
    pitfs::fuse::mounts().iter().any(|mount| mount.at == path)
}

pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One file as lstat shows it, with its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub path: PathBuf,
    pub kind: char,
    pub mode: u32,
    pub owner: (u32, u32),
    pub links: u64,
    pub size: u64,
    pub mtime: (i64, i64),
    pub device: u64,
    /// The target of a symlink or the hash of a file's bytes.
    pub content: u64,
    /// The position of the first name of the same inode.
    pub same_as: usize,
}

/// A tree as a list, sorted by path. Sizes and links of directories are not compared.
pub fn listing(root: &Path) -> Vec<Shown> {
    let mut found = Vec::new();
    walk(root, Path::new(""), &mut found);
    found.sort_by(|a, b| a.0.path.cmp(&b.0.path));
    let inodes: Vec<u64> = found.iter().map(|(_, inode)| *inode).collect();
    let first = |inode: u64| inodes.iter().position(|other| *other == inode).unwrap();
    found.iter().map(|(shown, inode)| Shown { same_as: first(*inode), ..shown.clone() }).collect()
}

fn walk(root: &Path, relative: &Path, found: &mut Vec<(Shown, u64)>) {
    for entry in fs::read_dir(root.join(relative)).unwrap() {
        let relative = relative.join(entry.unwrap().file_name());
        let path = root.join(&relative);
        let metadata = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file_type = metadata.file_type();
        let hash = |bytes: &[u8]| xxhash_rust::xxh3::xxh3_64(bytes);
        let (kind, content) = if file_type.is_dir() {
            ('d', 0)
        } else if file_type.is_symlink() {
            ('l', hash(fs::read_link(&path).unwrap().as_os_str().as_encoded_bytes()))
        } else if file_type.is_file() {
            ('f', hash(&fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))))
        } else if file_type.is_fifo() {
            ('p', 0)
        } else if file_type.is_socket() {
            ('s', 0)
        } else if file_type.is_block_device() {
            ('b', 0)
        } else {
            ('c', 0)
        };
        let is_directory = kind == 'd';
        let shown = Shown {
            path: relative.clone(),
            kind,
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            links: if is_directory { 0 } else { metadata.nlink() },
            size: if is_directory { 0 } else { metadata.size() },
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            device: metadata.rdev(),
            content,
            same_as: 0,
        };
        found.push((shown, metadata.ino()));
        if is_directory {
            walk(root, &relative, found);
        }
    }
}

/// Fails with the first difference of two trees.
pub fn assert_same(a: &[Shown], b: &[Shown], what: &str) {
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a, b, "{what}");
    }
    assert_eq!(a.len(), b.len(), "{what}: {:?}", a.iter().map(|x| &x.path).zip(b.iter().map(|x| &x.path)).next_back());
}
