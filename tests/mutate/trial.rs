//! Commands and a mount on one store that was changed.

use super::sample::{Files, PITFS, Sample, VIEWS, files};
use std::fmt;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What no command on a small store takes, on a busy machine.
const LONGEST: Duration = Duration::from_secs(40);
/// Address space, in KiB: far more than it takes, far less than there is.
const MEMORY: u64 = 4 << 20;

#[derive(Debug)]
pub enum Fault {
    Panicked { what: String, said: String },
    Waits { what: String },
    Ended { what: String, how: String, said: String },
    WrongBytes { what: String, file: String },
    Unsaid { view: &'static str, file: String },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Panicked { what, said } => write!(f, "panic in {what}: {said}"),
            Fault::Waits { what } => write!(f, "{what} does not end"),
            Fault::Ended { what, how, said } => write!(f, "{what} ended with {how}: {said}"),
            Fault::WrongBytes { what, file } => write!(f, "wrong bytes of {file} by {what}"),
            Fault::Unsaid { view, file } => write!(f, "{file} of {view} is lost, and nobody says so"),
        }
    }
}

pub struct Trial<'a> {
    pub sample: &'a Sample,
    pub is_accident: bool,
}

/// What a trial came to.
#[derive(Debug, Default)]
pub struct Outcome {
    pub faults: Vec<Fault>,
    /// Files that are missing, of which view.
    pub lost: Vec<(&'static str, String)>,
    /// A command that only looks has found something, or has failed.
    pub is_said: bool,
}

impl Outcome {
    /// With losses of which nobody has said anything.
    pub fn all(self) -> Vec<Fault> {
        let mut faults = self.faults;
        if !self.is_said {
            faults.extend(self.lost.into_iter().map(|(view, file)| Fault::Unsaid { view, file }));
        }
        faults
    }
}

/// What a command came to.
struct Done {
    status: Option<i32>,
    said: String,
}

impl Trial<'_> {
    pub fn run(&self) -> Outcome {
        let Outcome { mut faults, mut lost, mut is_said } = Outcome::default();
        let out = self.sample.out();
        for args in [&["status"][..], &["list"], &["history"], &["check"], &["archive", "list"], &["archive", "verify"]]
        {
            is_said |= self.done(args, &mut faults).is_none_or(|done| done.status != Some(0));
        }
        self.done(&["diff", "second", "third"], &mut faults);
        self.done(&["versions", "directory/many tracks"], &mut faults);
        for view in VIEWS {
            fs::remove_dir_all(&out).unwrap_or_default();
            let done = self.done(&["restore", view, "--to", out.to_str().unwrap()], &mut faults);
            is_said |= done.is_none_or(|done| done.status != Some(0));
            if self.is_accident {
                self.compare(view, &out, "restore --to", &mut faults, &mut lost);
            }
        }
        self.mount(&mut faults);
        self.done(&["snap", "new"], &mut faults);
        self.done(&["roll"], &mut faults);
        self.done(&["restore", "third"], &mut faults);
        self.done(&["delete", "second", "--recursive"], &mut faults);
        self.done(&["check"], &mut faults);
        Outcome { faults, lost, is_said }
    }

    fn done(&self, args: &[&str], faults: &mut Vec<Fault>) -> Option<Done> {
        let store = self.sample.place().join("store");
        limited(Command::new(PITFS).args(args).env("PITFS_STORE", store), &format!("pitfs {}", args.join(" ")), faults)
    }

    /// Looks at all that a mount shows, as programs do.
    fn mount(&self, faults: &mut Vec<Fault>) {
        let (store, snap) = (self.sample.place().join("store"), self.sample.snap());
        let (store, at) = (store.to_str().unwrap(), snap.to_str().unwrap());
        let Some(mounted) = self.done(&["mount", store, at], faults) else { return };
        if mounted.status == Some(0) {
            let walk =
                format!("ls -laR '{at}' >/dev/null 2>&1; find '{at}' -type f -exec cat {{}} + >/dev/null 2>&1; true");
            limited(Command::new("sh").arg("-c").arg(walk), "a walk through the mount", faults);
            if self.is_accident {
                for view in ["third", "live"] {
                    self.compare(view, &snap.join(view), "the mount", faults, &mut Vec::new());
                }
            }
            // A thread that has gone shows now.
            let stat = format!("stat -f '{at}'");
            let alive = limited(Command::new("sh").arg("-c").arg(stat), "statfs of the mount", faults);
            if let Some(Done { status: Some(status), said }) = alive.filter(|done| done.status != Some(0)) {
                faults.push(Fault::Ended { what: "the daemon".into(), how: format!("{status}"), said });
            }
            self.done(&["umount", at], faults);
            let log = fs::read(self.sample.place().join("store/log")).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            if let Some(line) = log.lines().find(|line| shows_panic(line)) {
                // What is met in one request ends that request; it is a fault all the same, and has a place.
                faults.push(Fault::Panicked { what: "the daemon".into(), said: line.to_string() });
            }
        }
        let left = Command::new("umount").args(["-l", at]).stderr(Stdio::null()).status();
        drop(left);
    }

    /// What is there must be right; what is missing is noted.
    fn compare(
        &self,
        view: &'static str,
        shown: &Path,
        what: &str,
        faults: &mut Vec<Fault>,
        lost: &mut Vec<(&'static str, String)>,
    ) {
        let (wanted, found): (Files, Files) = (self.sample.files_of(view), files(shown));
        for (path, bytes) in &wanted {
            let file = path.display().to_string();
            match found.get(path) {
                None => lost.push((view, file)),
                // What cannot be read, `files` takes for empty.
                Some(read) if read.is_empty() && what == "the mount" => {}
                Some(read) if read != bytes => {
                    faults.push(Fault::WrongBytes { what: format!("{what} {view}"), file });
                }
                Some(_) => {}
            }
        }
        for path in found.keys().filter(|path| !wanted.contains_key(*path)) {
            faults.push(Fault::WrongBytes { what: format!("{what} {view}"), file: path.display().to_string() });
        }
    }
}

/// Runs a command within bounds; nothing if it did not end by itself.
fn limited(command: &mut Command, what: &str, faults: &mut Vec<Fault>) -> Option<Done> {
    let errors = tempfile::tempfile().unwrap();
    command.env("RUST_BACKTRACE", "0").stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors.try_clone().unwrap());
    let limit = rustix::process::Rlimit { current: Some(MEMORY << 10), maximum: Some(MEMORY << 10) };
    let before = rustix::process::getrlimit(rustix::process::Resource::As);
    rustix::process::setrlimit(
        rustix::process::Resource::As,
        rustix::process::Rlimit { maximum: before.maximum, ..limit },
    )
    .unwrap();
    let spawned = command.process_group(0).spawn();
    rustix::process::setrlimit(rustix::process::Resource::As, before).unwrap();
    let mut child = spawned.unwrap();
    let start = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if start.elapsed() > LONGEST => {
                let group = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
                rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
                child.wait().unwrap();
                faults.push(Fault::Waits { what: what.to_string() });
                return None;
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let said = said(errors);
    if shows_panic(&said) {
        faults.push(Fault::Panicked { what: what.to_string(), said: said.clone() });
    }
    match status.code() {
        Some(0 | 1) => {}
        _ => faults.push(Fault::Ended { what: what.to_string(), how: status.to_string(), said: said.clone() }),
    }
    Some(Done { status: status.code(), said })
}

fn said(mut errors: fs::File) -> String {
    use std::io::{Read, Seek};
    let mut said = Vec::new();
    drop(errors.rewind());
    drop(errors.read_to_end(&mut said));
    String::from_utf8_lossy(&said[..said.len().min(2000)]).into_owned()
}

/// What ends one request only is a fault all the same.
fn shows_panic(text: &str) -> bool {
    text.contains("panicked") || text.contains("a fault in pitfs")
}
