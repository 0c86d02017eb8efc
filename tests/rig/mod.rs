//! A store on a test disk, the real daemon over it, and load on its mount.
#![allow(dead_code, reason = "each test file uses its part")]

use crate::disk::{Disk, Image};
use crate::load::{self, Ledger, OnError, Rng, Snapshots, directory, is_end, look};
use crate::mounted::{PITFS, detach, detach_below, is_mount_point, temporary};
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// No request and no command may take longer.
pub const TIMEOUT: Duration = Duration::from_secs(60);

pub const WRITERS: usize = 3;

pub struct Rig {
    pub disk: Option<Disk>,
    daemon: Option<Child>,
    pub ledger: Ledger,
    pub snapshots: Snapshots,
    pub options: &'static [&'static str],
    /// Dropped last, when nothing is mounted in it any more.
    dir: tempfile::TempDir,
}

/// What a mount showed.
pub struct Found {
    survivors: Vec<load::Survivor>,
    snapshots: load::Found,
}

/// Runs a command that has to end in time.
pub fn run(command: &mut Command) -> Output {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    if wait(&mut child, TIMEOUT).is_none() {
        child.kill().unwrap();
        panic!("{command:?} hangs: {:?}", child.wait_with_output());
    }
    child.wait_with_output().unwrap()
}

fn wait(child: &mut Child, timeout: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if start.elapsed() > timeout {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Rig {
    /// A disk without a store.
    pub fn new(options: &'static [&'static str]) -> Rig {
        let dir = temporary();
        let rig = Rig {
            disk: None,
            daemon: None,
            ledger: Ledger::new(WRITERS),
            snapshots: Snapshots::default(),
            options,
            dir,
        };
        fs::create_dir(rig.store()).unwrap();
        fs::create_dir(rig.snap()).unwrap();
        rig
    }

    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub fn snap(&self) -> PathBuf {
        self.dir.path().join("snap")
    }

    pub fn live(&self) -> PathBuf {
        self.snap().join("live")
    }

    pub fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("a disk is plugged in")
    }

    pub fn plug_in(&mut self, image: Image, seed: u64) {
        self.disk = None;
        self.disk = Some(Disk::plug_in(&self.store(), image, seed));
    }

    /// Runs `pitfs` on the store.
    pub fn pitfs(&self, args: &[&str]) -> Output {
        run(Command::new(PITFS).args(args).env("PITFS_STORE", self.store()))
    }

    pub fn create(&self, codec: &str) -> Output {
        self.pitfs(&["create", self.store().to_str().unwrap(), "--track-size", "16K", "--compress", codec])
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.path().join("daemon.log")
    }

    /// What daemons have said; fails if one of them panicked.
    pub fn log(&self) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        assert!(!log.contains("panicked"), "{log}");
        log
    }

    /// Starts the daemon; false if it ended before it showed the mount.
    pub fn mount(&mut self) -> bool {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = Command::new(PITFS);
        command.args(["mount", "--foreground"]);
        for option in self.options {
            command.args(["-o", option]);
        }
        command.arg(self.store()).arg(self.snap()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = self.daemon.insert(command.spawn().unwrap());
        let start = Instant::now();
        let snap = self.dir.path().join("snap");
        let listens = |rig: &Option<Disk>| match rig {
            Some(disk) => disk.has("control", 0o600),
            None => self.dir.path().join("store/control").exists(),
        };
        while !(is_mount_point(&snap) && listens(&self.disk)) {
            if child.try_wait().unwrap().is_some() {
                self.daemon = None;
                return false;
            }
            if self.disk.as_ref().is_some_and(Disk::is_cut) {
                return false;
            }
            assert!(start.elapsed() < TIMEOUT, "the daemon does not show its mount: {}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }

    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("a daemon runs").id()
    }

    /// Kills the daemon and clears its mount away.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
        if is_mount_point(&self.snap()) {
            detach(&self.snap());
        }
    }

    /// Unmounts; the daemon has to end. Whether it ended well.
    pub fn umount(&mut self) -> bool {
        let umount = || run(Command::new(PITFS).arg("umount").arg(self.snap()).env_remove("PITFS_STORE"));
        let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
        let mut output = umount();
        // Somebody outside may just be looking at all mounts.
        for _ in 0..50 {
            if !said(&output).contains("is in use") {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
            output = umount();
        }
        let text = said(&output);
        let Some(mut daemon) = self.daemon.take() else { return output.status.success() };
        match wait(&mut daemon, TIMEOUT) {
            Some(status) => {
                if is_mount_point(&self.snap()) {
                    detach(&self.snap());
                }
                output.status.success() && status.success()
            }
            None => {
                daemon.kill().unwrap();
                daemon.wait().unwrap();
                detach(&self.snap());
                panic!("the daemon did not end after umount, which said {text:?}: {}", self.log());
            }
        }
    }

    /// Makes the writers' directories, durably.
    pub fn make_directories(&self) {
        for writer in 0..WRITERS {
            fs::create_dir(directory(&self.live(), writer)).unwrap();
        }
        File::open(self.live()).unwrap().sync_all().unwrap();
    }

    /// Runs something on the mount that has to end: if it does not, the daemon is killed, so that it does, and
    /// that is a failure.
    pub fn guarded<T>(&self, what: &str, action: impl FnOnce() -> T) -> T {
        let pid = self.daemon.as_ref().and_then(|daemon| rustix::process::Pid::from_raw(daemon.id() as i32));
        let (tell, told) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let watch = scope.spawn(move || match (told.recv_timeout(TIMEOUT), pid) {
                (Err(RecvTimeoutError::Timeout), Some(pid)) => {
                    let _gone_already = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                    true
                }
                (result, _) => result == Err(RecvTimeoutError::Timeout),
            });
            let done = action();
            drop(tell);
            assert!(!watch.join().unwrap(), "{what} hangs: {}", self.log());
            done
        })
    }

    /// Lets all writers and a taker of snapshots work until `wait` returns, which gets a flag that says
    /// that one of them has ended. Errors that are no end are failures.
    pub fn load(&self, rng: &mut Rng, on_error: OnError, wait: impl FnOnce(&AtomicBool)) {
        let ends = AtomicBool::new(false);
        let has_ended = AtomicBool::new(false);
        let failures = Mutex::new(Vec::new());
        let (live, snap) = (self.live(), self.snap());
        let fail = |text: String| failures.lock().unwrap().push(text);
        // A daemon that ends by itself takes its mount away, and below it there is nothing.
        let is_over = |error: &io::Error| on_error == OnError::Stop && (is_end(error) || !is_mount_point(&snap));
        self.guarded("the load", || {
            std::thread::scope(|scope| {
                for writer in 0..WRITERS {
                    let mut rng = Rng::new(rng.next());
                    let (ends, has_ended, live, fail, is_over) = (&ends, &has_ended, &live, &fail, &is_over);
                    scope.spawn(move || {
                        let ends = || ends.load(Ordering::Relaxed);
                        let error = load::work(&self.ledger, live, writer, &mut rng, on_error, ends);
                        has_ended.store(true, Ordering::Relaxed);
                        if let Some((what, error)) = error {
                            let text = format!("writer {writer}: {what}: {error}");
                            // Also where it is an end, for whoever did not expect one.
                            eprintln!("{text}");
                            if !is_over(&error) {
                                fail(text);
                            }
                        }
                    });
                }
                let pause = Duration::from_millis(rng.below(30));
                let mut rng = Rng::new(rng.next());
                let (stop, snap, fail, is_over) = (&ends, &snap, &fail, &is_over);
                scope.spawn(move || {
                    let ends = || stop.load(Ordering::Relaxed);
                    let error = self.snapshots.work(&self.ledger, snap, &mut rng, (4, pause), on_error, ends);
                    if let Some(error) = error
                        && !is_over(&error)
                    {
                        fail(format!("snapshots: {error}"));
                    }
                });
                wait(&has_ended);
                ends.store(true, Ordering::Relaxed);
            })
        });
        let failures = failures.into_inner().unwrap();
        assert!(failures.is_empty(), "{failures:#?}\n{}", self.log());
    }

    /// From here on the store is as it was found.
    pub fn accept(&self, found: Found) {
        self.ledger.begin_anew(found.survivors);
        self.snapshots.accept(found.snapshots);
    }

    /// The mount shows a state that the ledger allows.
    pub fn compare(&self) -> Result<Found, String> {
        self.guarded("looking at the mount", || {
            let mut survivors = Vec::new();
            for writer in 0..WRITERS {
                let failed = |text: String| format!("writer {writer}: {text}");
                let seen = look(&directory(&self.live(), writer)).map_err(|error| failed(error.to_string()))?;
                survivors.push(self.ledger.survivor(writer, &seen).map_err(failed)?);
            }
            Ok(Found { survivors, snapshots: self.snapshots.compare(&self.ledger, &self.snap())? })
        })
    }

    /// `pitfs check` finds nothing.
    pub fn check(&self) -> Result<(), String> {
        let output = self.pitfs(&["check"]);
        let text = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
        let is_clean = output.status.success() && text.contains("no problems") && !text.contains("panicked");
        if is_clean { Ok(()) } else { Err(format!("check: {:?}: {text}", output.status)) }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // A panic in here would leave the rest behind.
            let _gone_already = daemon.kill();
            wait(&mut daemon, TIMEOUT);
        }
        detach_below(self.dir.path());
        // Its mount is one of those; it ends when nothing in it is mounted any more.
        self.disk = None;
    }
}

/// Runs `round` with each seed in turn and names the seed if it fails.
pub fn with_seeds(first: u64, count: u64, mut round: impl FnMut(u64)) {
    for seed in first..first + count {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| round(seed)));
        if let Err(panic) = result {
            eprintln!("failed with seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// A number from the environment.
pub fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
        Err(_) => default,
    }
}
