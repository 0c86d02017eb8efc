//! Copying files out of a view into an ordinary directory, with all their metadata.
//!
//! One thread walks the view and makes directories; others put in them what is no directory. Further names of an
//! inode are made when all first names are there, and attributes of directories come last.

mod put;

use super::{Daemon, OnProgress};
use crate::device::{InodeNo, Moment};
use crate::error::{Errno, Error, Result};
use crate::tree::{Inode, Kind, Tree, root_of};
use crate::view::{View, Views};
use parking_lot::Mutex;
use put::{Job, Putter, Tally};
use serde::{Deserialize, Serialize};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::time::Duration;

/// What to copy out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RestoreOptions {
    #[serde(with = "serde_bytes")]
    pub snapshot: Vec<u8>,
    /// Paths in the snapshot; none stands for all of it.
    pub paths: Vec<serde_bytes::ByteBuf>,
    /// The directory that receives them, under the same paths.
    pub to: PathBuf,
    /// Replace what is there already.
    pub overwrite: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreReport {
    pub files: u64,
    pub bytes: u64,
    /// What could not be restored, each with the reason.
    pub problems: Vec<String>,
}

/// Threads that copy, at most.
const THREADS_MAX: usize = 8;
/// What the walk is ahead of them, at most.
const AHEAD: usize = 256;
/// How long the walk rests when the threads have enough to do.
const FULL_PAUSE: Duration = Duration::from_millis(1);
/// How often somebody who waits is told how far it is.
const TELL: Duration = Duration::from_millis(100);

impl Daemon {
    /// Copies files out of a view of a base.
    pub fn copy_out(&self, views: &Views, options: &RestoreOptions, progress: OnProgress<'_>) -> Result<RestoreReport> {
        let View { base, moment } = views.view(&options.snapshot)?;
        let root = root_of(base);
        if options.to.starts_with(&self.path) {
            return Err(Error::Refused(
                Errno::INVAL,
                format!("{} is inside the store's own directory; choose another one", options.to.display()),
            ));
        }
        let is_new = !options.to.exists();
        std::fs::create_dir_all(&options.to)
            .map_err(|error| Error::media(format!("making {}", options.to.display()), error))?;
        let tally = Tally::default();
        let putter = Putter {
            tree: views.tree(),
            moment,
            overwrite: options.overwrite,
            is_root: rustix::process::geteuid().is_root(),
            tally: &tally,
        };
        let mut walk = Walk {
            tree: views.tree(),
            root,
            moment,
            jobs: None,
            numbered: 0,
            firsts: HashMap::new(),
            further: Vec::new(),
            directories: Vec::new(),
            known_directories: HashSet::new(),
            tally: &tally,
            progress,
        };
        let paths = apart(&options.paths);
        walk.with_threads(&putter, |walk| {
            if paths.is_empty() {
                walk.content(root, &options.to)?;
            }
            paths.iter().try_for_each(|names| walk.path(names, &options.to))
        });
        // A directory that was there already keeps its own attributes.
        if paths.is_empty() && is_new {
            walk.directories.insert(0, (root, options.to.clone()));
        }
        let finished = walk.finish_names(&putter).and_then(|()| walk.finish_directories(&putter));
        drop(walk);
        tally.reason()?;
        finished?;
        Ok(tally.report())
    }
}

/// The names of each path, without those that lie in others: two threads would be at one place.
fn apart(paths: &[serde_bytes::ByteBuf]) -> Vec<Vec<&[u8]>> {
    let names = |path| -> Vec<&[u8]> {
        let split = <[u8]>::split(path, |&byte| byte == b'/');
        split.filter(|name| !name.is_empty() && *name != b".").collect()
    };
    let all: Vec<_> = paths.iter().map(|path| names(path.as_slice())).collect();
    let is_in_another = |(at, path): (usize, &Vec<&[u8]>)| {
        all.iter().enumerate().any(|(i, other)| path.starts_with(other) && (other.len() < path.len() || i < at))
    };
    let kept = all.iter().enumerate().filter(|(at, path)| !is_in_another((*at, path)));
    kept.map(|(_, path)| path.clone()).collect()
}

/// A further name of an inode.
struct Further {
    number: u64,
    inode: InodeNo,
    target: PathBuf,
}

struct Walk<'a> {
    tree: &'a Tree,
    root: InodeNo,
    moment: Moment,
    /// While threads wait for them.
    jobs: Option<SyncSender<Job>>,
    /// How many jobs there have been.
    numbered: u64,
    /// Where an inode with several names is put first.
    firsts: HashMap<InodeNo, PathBuf>,
    further: Vec<Further>,
    /// Directories get their attributes last: filling them changes their times.
    directories: Vec<(InodeNo, PathBuf)>,
    known_directories: HashSet<InodeNo>,
    tally: &'a Tally,
    progress: OnProgress<'a>,
}

/// Ends what the threads wait for when the walk ends, however it does.
struct Walking<'w, 'a>(&'w mut Walk<'a>);

impl Drop for Walking<'_, '_> {
    fn drop(&mut self) {
        self.0.jobs = None;
    }
}

impl Walk<'_> {
    /// Walks while threads copy what it comes to; returns when all of it is done, or something has ended it.
    fn with_threads(&mut self, putter: &Putter<'_>, walk: impl FnOnce(&mut Self) -> Result<()>) {
        let (sender, jobs) = sync_channel(AHEAD);
        let (is_done, done) = channel::<()>();
        // Only the threads keep it: without any, sending fails.
        let jobs = Arc::new(Mutex::new(jobs));
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let (jobs, is_done) = (jobs.clone(), is_done.clone());
                scope.spawn(move || {
                    // Until the walk has ended.
                    while let Ok(job) = { jobs.lock().recv() } {
                        putter.put(&job);
                    }
                    drop(is_done);
                });
            }
            drop((jobs, is_done));
            self.jobs = Some(sender);
            let walking = Walking(self);
            if let Err(error) = walk(walking.0) {
                walking.0.tally.end(error);
            }
            drop(walking);
            while done.recv_timeout(TELL) == Err(RecvTimeoutError::Timeout) {
                // Whoever does not want to wait has ended it by that.
                drop(self.tell());
            }
        });
    }

    fn path(&mut self, names: &[&[u8]], to: &Path) -> Result<()> {
        let (mut at, mut target) = (self.root, to.to_path_buf());
        for (i, name) in names.iter().enumerate() {
            let (inode, found) = match self.tree.lookup(at, name, self.moment) {
                Ok(found) => found,
                Err(Error::Posix(Errno::NOENT | Errno::NOTDIR)) => {
                    let text = format!(
                        "{:?} is not in the snapshot; `ls` in the mounted snapshot or `pitfs diff` shows what is",
                        String::from_utf8_lossy(&names.join(&b'/'))
                    );
                    self.numbered += 1;
                    self.tally.note(self.numbered, text);
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            target.push(OsStr::from_bytes(name));
            at = inode;
            if i + 1 == names.len() {
                return self.one(inode, found, target);
            }
            self.directory(inode, &target)?;
        }
        self.content(self.root, to)
    }

    fn content(&mut self, directory: InodeNo, target: &Path) -> Result<()> {
        let mut entries = Vec::new();
        self.tree.list_with_inodes(directory, 0, self.moment, |entry, found| {
            entries.push((entry.clone(), found.clone()));
            Ok(true)
        })?;
        for (entry, found) in entries {
            self.one(entry.inode, found, target.join(OsStr::from_bytes(&entry.name)))?;
        }
        Ok(())
    }

    /// Tells how far it is; fails when it is to end.
    fn tell(&mut self) -> Result<()> {
        self.tally.check()?;
        (self.progress)(&self.tally.progress()).or_else(|error| {
            self.tally.end(error);
            self.tally.check()
        })
    }

    /// Copies one inode, now or soon; what goes wrong with it is noted, and the rest is done.
    fn one(&mut self, inode: InodeNo, found: Inode, target: PathBuf) -> Result<()> {
        self.numbered += 1;
        let number = self.numbered;
        if found.kind() == Kind::Directory {
            let result = self.directory(inode, &target).and_then(|()| self.content(inode, &target));
            self.tally.count(number, &target, result);
            return self.tell();
        }
        if found.links > 1 {
            match self.firsts.entry(inode) {
                Entry::Occupied(_) => self.further.push(Further { number, inode, target }),
                Entry::Vacant(place) => {
                    place.insert(target.clone());
                    self.send(Job { number, inode, found, target })?;
                }
            }
            return self.tell();
        }
        self.send(Job { number, inode, found, target })?;
        self.tell()
    }

    /// Hands a job to the threads, and tells how far it is while they have enough to do.
    fn send(&mut self, mut job: Job) -> Result<()> {
        while let Some(jobs) = &self.jobs {
            job = match jobs.try_send(job) {
                Err(TrySendError::Full(job)) => job,
                // Without threads, one of them panicked: that goes on when they are waited for.
                Ok(()) | Err(TrySendError::Disconnected(_)) => break,
            };
            std::thread::sleep(FULL_PAUSE);
            self.tell()?;
        }
        Ok(())
    }

    fn directory(&mut self, inode: InodeNo, target: &Path) -> Result<()> {
        match std::fs::create_dir(target) {
            Ok(()) => {}
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists
                    && target.symlink_metadata().is_ok_and(|found| found.is_dir()) => {}
            Err(error) => return Err(Error::media("making the directory", error)),
        }
        if self.known_directories.insert(inode) {
            self.directories.push((inode, target.to_path_buf()));
        }
        Ok(())
    }

    /// Makes the further names of inodes; one whose first name could not be made is copied under the next.
    fn finish_names(&mut self, putter: &Putter<'_>) -> Result<()> {
        for Further { number, inode, target } in std::mem::take(&mut self.further) {
            self.tell()?;
            match self.firsts.get(&inode).filter(|first| !self.tally.is_unmade(first)) {
                Some(first) => putter.link(number, &target, first),
                None => {
                    let found = self.tree.inode(inode, self.moment)?;
                    self.firsts.insert(inode, target.clone());
                    putter.put(&Job { number, inode, found, target });
                }
            }
        }
        self.tell()
    }

    fn finish_directories(&mut self, putter: &Putter<'_>) -> Result<()> {
        for (inode, target) in std::mem::take(&mut self.directories).into_iter().rev() {
            let found = self.tree.inode(inode, self.moment)?;
            self.numbered += 1;
            if let Err(error) = putter.attributes(self.numbered, inode, &found, &target) {
                self.tally.problem(self.numbered, &target, error);
            }
        }
        Ok(())
    }
}

/// The kernel's 32-bit form of a device number, as FUSE passes it, to that of the system calls.
pub(super) fn decode_device(device: u32) -> u64 {
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
    rustix::fs::makedev(major, minor)
}

/// The other way.
pub(super) fn encode_device(device: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}
