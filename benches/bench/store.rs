//! A pitfs store and its mount.

use crate::Result;
use crate::command::{ok, seconds};
use crate::work::{unmount, wait_for_daemon};
use pitfs::control::{Answer, Target, Verb};
use pitfs::daemon::Daemon;
use pitfs::view::ToDelete;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

pub const PITFS: &str = env!("CARGO_BIN_EXE_pitfs");

/// A directory with a store and, while it is mounted, what it shows. It goes when this goes.
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// A new store, not mounted.
    pub fn create(dir: &Path) -> Result<Store> {
        Store::create_with(dir, &[])
    }

    /// The same with options of `pitfs create`.
    pub fn create_with(dir: &Path, options: &[&str]) -> Result<Store> {
        std::fs::create_dir_all(dir.join("snap"))?;
        let store = Store { dir: dir.to_path_buf() };
        ok(Command::new(PITFS).arg("create").args(options).arg(store.path()))?;
        Ok(store)
    }

    pub fn mounted(dir: &Path) -> Result<Store> {
        let store = Store::create(dir)?;
        store.mount()?;
        Ok(store)
    }

    /// The same with options of `pitfs mount`.
    pub fn mounted_with(dir: &Path, options: &[&str]) -> Result<Store> {
        let store = Store::create(dir)?;
        store.mount_with(options)?;
        Ok(store)
    }

    pub fn path(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// The mount point.
    pub fn snap(&self) -> PathBuf {
        self.dir.join("snap")
    }

    pub fn live(&self) -> PathBuf {
        self.snap().join("live")
    }

    /// Over /dev/fuse, whether or not the kernel offers rings meanwhile.
    pub fn mount(&self) -> Result<()> {
        self.mount_with(&["-o", "io_uring=off"])
    }

    fn mount_with(&self, options: &[&str]) -> Result<()> {
        ok(Command::new(PITFS).arg("mount").args(options).arg(self.path()).arg(self.snap())).map(|_| ())
    }

    /// Ends the mount and waits for its last commit.
    pub fn umount(&self) -> Result<()> {
        ok(Command::new(PITFS).arg("umount").arg(self.snap())).map(|_| ())
    }

    /// Opens it in this process, as a daemon that mounts it does.
    pub fn open(&self) -> Result<Daemon> {
        let daemon = Daemon::open(&self.path())?;
        daemon.views().tree().device().fsync().prepare()?;
        Ok(daemon)
    }

    pub fn pitfs<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<String> {
        ok(Command::new(PITFS).arg("-s").arg(self.path()).args(arguments))
    }

    /// Asks the daemon that has it mounted, without a command's start and end.
    pub fn ask(&self, verb: Verb) -> Result<Answer> {
        let target = Target { store: self.path(), base: None };
        Ok(pitfs::control::ask(&target, verb, &mut |_| Ok(()))?)
    }

    /// Seconds that a command takes, its start and end included.
    pub fn timed<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> f64 {
        let start = Instant::now();
        seconds(self.pitfs(arguments), start)
    }

    /// The process that has it mounted.
    pub fn daemon(&self) -> Result<i32> {
        let text = std::fs::read_to_string(self.path().join("lock"))?;
        let number = text.lines().next().and_then(|line| line.strip_prefix("process "));
        Ok(number.ok_or("the lock names no process")?.parse()?)
    }

    fn is_mounted(&self) -> bool {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        text.lines().any(|line| line.split(' ').nth(4).is_some_and(|point| Path::new(point) == self.snap()))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.is_mounted()
            && let Err(error) = unmount(&self.snap())
        {
            eprintln!("bench: {}: {error}", self.snap().display());
            return;
        }
        wait_for_daemon(&self.path());
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            eprintln!("bench: {}: {error}", self.dir.display());
        }
    }
}

/// Makes snapshots of an open store disappear; their room is freed later.
pub fn delete_snapshots(daemon: &Daemon, names: &[&[u8]]) -> Result<()> {
    let what = ToDelete { names, of: &[daemon.views().base()], ..ToDelete::default() };
    daemon.views().deletions().delete_all(&what)?;
    Ok(())
}
