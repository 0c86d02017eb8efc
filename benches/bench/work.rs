//! The directory that all of a run lies in, and its end.

use crate::Result;
use crate::command::{self, is_root, ok, shell};
use crate::switch;
use rustix::fs::{FlockOperation, flock};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const NAME: &str = "pitfs-bench.work";
/// How long the end of a run waits for daemons to commit.
const END_TIMEOUT: Duration = Duration::from_secs(60);

pub struct Work {
    path: PathBuf,
    /// Removed at the end if this run made it and nothing else is in it.
    parent: PathBuf,
    is_ext4: bool,
    /// Two runs in one directory would clear each other away.
    _lock: File,
}

impl Work {
    /// Takes the directory, and clears away what a run that was killed left there.
    pub fn begin(parent: &Path) -> Result<Work> {
        std::fs::create_dir_all(parent)?;
        let parent = parent.canonicalize()?;
        let lock = File::open(&parent)?;
        let is_free = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        if !is_free {
            return Err(format!("another run works in {}", parent.display()).into());
        }
        let path = parent.join(NAME);
        clear_away(&path);
        std::fs::create_dir(&path)?;
        let mut work = Work { path, parent, is_ext4: false, _lock: lock };
        work.is_ext4 = work.kind() == "ext2/ext3";
        Ok(work)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn is_ext4(&self) -> bool {
        self.is_ext4
    }

    /// The file system it lies on, as stat(1) calls it.
    pub fn kind(&self) -> String {
        let kind = ok(Command::new("stat").args(["-f", "-c", "%T"]).arg(&self.path));
        kind.unwrap_or_default().trim().to_string()
    }

    /// 64 MiB that do not compress.
    pub fn random(&self) -> Result<PathBuf> {
        let path = self.file("random");
        if !path.exists() {
            shell(&format!("head -c 64M /dev/urandom > '{}'", path.display()))?;
        }
        Ok(path)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        clear_away(&self.path);
        // Only if it is empty.
        let _kept = std::fs::remove_dir(&self.parent);
    }
}

/// Mount points below a directory, the innermost first.
fn mounts(below: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut found: Vec<PathBuf> = points.filter(|point| point.starts_with(below)).collect();
    found.reverse();
    found
}

pub fn unmount(path: &Path) -> Result<()> {
    let (program, lazily): (&str, &[&str]) = if is_root() { ("umount", &["-l"]) } else { ("fusermount3", &["-uz"]) };
    let gently: &[&str] = if is_root() { &[] } else { &["-u"] };
    // Not through `command::ok`: this also works while the run is being ended.
    let run = |arguments: &[&str]| Command::new(program).args(arguments).arg(path).output();
    for _ in 0..20 {
        if run(gently)?.status.success() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    match run(lazily)? {
        output if output.status.success() => Ok(()),
        output => Err(String::from_utf8_lossy(&output.stderr).trim().to_string().into()),
    }
}

/// Waits until no daemon has the store open.
pub fn wait_for_daemon(store: &Path) {
    let start = Instant::now();
    let Ok(lock) = File::open(store.join("lock")) else { return };
    while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() && start.elapsed() < END_TIMEOUT {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Takes a directory away with all that is mounted in it, and has the kernel as it was.
fn clear_away(path: &Path) {
    switch::back();
    for point in mounts(path) {
        if let Err(error) = unmount(&point) {
            eprintln!("bench: {}: {error}", point.display());
        }
        if let Some(store) = point.parent() {
            wait_for_daemon(&store.join("store"));
        }
    }
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => eprintln!("bench: {}: {error}", path.display()),
        _ => {}
    }
}

/// An interruption ends what runs and leaves nothing behind either.
pub fn clear_when_interrupted(path: &Path) -> Result<()> {
    let path = path.to_path_buf();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            eprintln!("# interrupted, clearing away");
            command::stop_all();
            clear_away(&path);
            let _kept = path.parent().map(std::fs::remove_dir);
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}
