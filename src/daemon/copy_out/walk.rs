//! Going through a view: directories are made on the way, everything else is handed to threads.

use super::handle::Handle;
use super::put::{Directory, Job, Putter};
use crate::daemon::OnProgress;
use crate::daemon::descent::{Descent, Identity, path_of};
use crate::device::InodeNo;
use crate::error::{Errno, Error, Result};
use crate::shown::shown;
use crate::tree::{Entry, Inode, Kind};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, FileType, Mode};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::time::Duration;

/// Threads that copy, at most.
const THREADS_MAX: usize = 8;
/// What the walk is ahead of them, at most.
const AHEAD: usize = 256;
/// How long the walk rests when the threads have enough to do.
const FULL_PAUSE: Duration = Duration::from_millis(1);
/// How often somebody who waits is told how far it is.
const TELL: Duration = Duration::from_millis(100);

/// A further name of an inode.
pub(super) struct Further {
    pub number: u64,
    pub inode: InodeNo,
    pub target: Vec<u8>,
}

/// A directory that was entered; the one above it is the last before it that is less deep.
pub(super) struct Entered {
    pub depth: usize,
    pub inode: InodeNo,
    pub name: Vec<u8>,
    pub identity: Option<Identity>,
}

pub(super) struct Walk<'a> {
    pub putter: &'a Putter<'a>,
    pub root: InodeNo,
    pub descent: Descent,
    /// Where it is, from the directory that receives everything, and how deep that is.
    pub path: Vec<u8>,
    pub depth: usize,
    /// While threads wait for them.
    pub jobs: Option<SyncSender<Job>>,
    /// How many jobs there have been.
    pub numbered: u64,
    /// Where an inode with several names is put first.
    pub firsts: HashMap<InodeNo, Vec<u8>>,
    pub further: Vec<Further>,
    /// Directories get their attributes last: filling them changes their times.
    pub directories: Vec<Entered>,
    /// Those on the way down, the root first.
    pub way: Vec<InodeNo>,
    /// How often each was entered.
    pub visits: HashMap<InodeNo, u32>,
    pub progress: OnProgress<'a>,
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
    pub fn with_threads(&mut self, walk: impl FnOnce(&mut Self) -> Result<()>) {
        let putter = self.putter;
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
                        if let Err(what) = crate::fault::contained(|| putter.put(&job)) {
                            putter.tally.count(job.number, &job.target(), Err(Error::Fault(what)));
                        }
                    }
                    drop(is_done);
                });
            }
            drop((jobs, is_done));
            self.jobs = Some(sender);
            let walking = Walking(self);
            if let Err(error) = walk(walking.0) {
                putter.tally.end(error);
            }
            drop(walking);
            while done.recv_timeout(TELL) == Err(RecvTimeoutError::Timeout) {
                // Whoever does not want to wait has ended it by that.
                drop(self.tell());
            }
        });
    }

    /// Copies what a path leads to, and makes the directories on the way.
    pub fn path(&mut self, names: &[&[u8]]) -> Result<()> {
        let mut at = self.root;
        for (i, name) in names.iter().enumerate() {
            let (inode, found) = match self.putter.tree.names().lookup(at.at(self.putter.moment), name) {
                Ok(found) => found,
                Err(Error::Posix(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG)) => {
                    self.numbered += 1;
                    self.putter.tally.note(self.numbered, super::not_in_snapshot(names));
                    break;
                }
                Err(error) => return Err(error),
            };
            at = inode;
            if found.kind() != Kind::Directory {
                if i + 1 == names.len() {
                    self.one(&self.here()?, inode, found, name.to_vec())?;
                }
                continue;
            }
            if !self.enter(inode, name)? {
                break;
            }
            if i + 1 == names.len() {
                self.content(inode)?;
            }
        }
        if names.is_empty() {
            self.content(self.root)?;
        }
        while self.depth > 0 {
            self.leave()?;
        }
        Ok(())
    }

    /// Copies all that is in a directory, which was entered.
    pub fn content(&mut self, directory: InodeNo) -> Result<()> {
        let Some(below) = self.files_of(directory)? else { return Ok(()) };
        let mut pending = vec![below];
        while let Some(below) = pending.last_mut() {
            let Some(Entry { name, inode, .. }) = below.pop() else {
                pending.pop();
                if !pending.is_empty() {
                    self.leave()?;
                }
                continue;
            };
            if !self.enter(inode, &name)? {
                continue;
            }
            match self.files_of(inode)? {
                Some(below) => pending.push(below),
                None => self.leave()?,
            }
        }
        Ok(())
    }

    /// Hands over what a directory has in it but directories, which are returned, the last first. `None` if it cannot
    /// be listed.
    fn files_of(&mut self, directory: InodeNo) -> Result<Option<Vec<Entry>>> {
        let mut entries = Vec::new();
        let (tree, moment) = (self.putter.tree, self.putter.moment);
        let listed = tree.names().list_with_what_is_known(directory.at(moment), 0, |entry, found| {
            match found {
                Ok(found) => entries.push((entry.clone(), found)),
                // What one name leads to may be damaged: the others are there.
                Err(error) => {
                    self.numbered += 1;
                    let path = crate::tree::join(&self.path, &entry.name);
                    self.putter.tally.count(self.numbered, &path, Err(error));
                }
            }
            Ok(true)
        });
        self.numbered += 1;
        if let Err(error) = listed {
            self.putter.tally.count(self.numbered, &self.path, Err(error));
            return self.tell().map(|()| None);
        }
        if self.depth > 0 {
            self.putter.tally.count(self.numbered, &self.path, Ok(()));
        }
        let here = self.here()?;
        let mut below = Vec::new();
        for (entry, found) in entries {
            match found.kind() {
                Kind::Directory => below.push(entry),
                _ => self.one(&here, entry.inode, found, entry.name)?,
            }
        }
        below.reverse();
        self.tell().map(|()| Some(below))
    }

    /// Tells how far it is; fails when it is to end.
    pub fn tell(&mut self) -> Result<()> {
        self.putter.tally.check()?;
        (self.progress)(&self.putter.tally.progress()).or_else(|error| {
            self.putter.tally.end(error);
            self.putter.tally.check()
        })
    }

    fn here(&self) -> Result<Arc<Directory>> {
        let open = self.descent.here().map_err(|error| Error::media("going through the target", error))?;
        Ok(Arc::new(Directory { open: open.clone(), path: self.path.clone() }))
    }

    /// Copies one inode, which is no directory, soon; what goes wrong with it is noted, and the rest is done.
    fn one(&mut self, directory: &Arc<Directory>, inode: InodeNo, found: Inode, name: Vec<u8>) -> Result<()> {
        self.numbered += 1;
        let number = self.numbered;
        let job = Job { number, inode, found, directory: directory.clone(), name };
        if job.found.links > 1 && self.firsts.contains_key(&inode) {
            self.further.push(Further { number, inode, target: job.target() });
        } else {
            if job.found.links > 1 {
                self.firsts.insert(inode, job.target());
            }
            self.send(job)?;
        }
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

    /// Makes a directory, unless it is there, and goes into it; false if that cannot be done, which is noted.
    fn enter(&mut self, inode: InodeNo, name: &[u8]) -> Result<bool> {
        let before = self.path.len();
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
        let entered = match self.way.contains(&inode) {
            true => Err(Error::corrupt(format!("the directory {}", shown(&self.path)), "it contains itself")),
            false => self.make_directory(inode, name),
        };
        if let Err(error) = entered {
            self.numbered += 1;
            self.putter.tally.count(self.numbered, &self.path, Err(error));
            self.path.truncate(before);
            return self.tell().map(|()| false);
        }
        self.depth += 1;
        self.way.push(inode);
        *self.visits.entry(inode).or_default() += 1;
        let identity = self.descent.identity();
        self.directories.push(Entered { depth: self.depth, inode, name: name.to_vec(), identity });
        Ok(true)
    }

    fn make_directory(&mut self, inode: InodeNo, name: &[u8]) -> Result<()> {
        let making = making_directory;
        let here = self.descent.here().map_err(making)?;
        // Nobody else looks into it before it has its own mode.
        let is_new = match rustix::fs::mkdirat(here, name, Mode::from(0o700u32)) {
            Ok(()) => true,
            Err(Errno::EXIST) => {
                let found = rustix::fs::statat(here, name, AtFlags::SYMLINK_NOFOLLOW);
                if !found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory) {
                    return Err(in_the_way());
                }
                false
            }
            Err(errno) => return Err(making(errno.into())),
        };
        self.descent.enter(name).map_err(making)?;
        let entered = self.descent.here().map_err(making)?;
        // Somebody can have put another one in the place of what was made.
        let owner = rustix::fs::statat(entered, c"", AtFlags::EMPTY_PATH).map_err(|errno| making(errno.into()))?.st_uid;
        match is_new && owner == rustix::process::geteuid().as_raw() {
            true => Handle::Path(path_of(entered)).drop_default_list(),
            false => self.narrow(inode, entered)?,
        }
        Ok(())
    }

    /// What comes into a directory that is there is not for those who could enter it only as it is now. Whose it is not, to be
    /// changed, is said when it gets its attributes.
    fn narrow(&self, inode: InodeNo, entered: &Arc<OwnedFd>) -> Result<()> {
        let wanted = self.putter.tree.inode(inode.at(self.putter.moment))?.permissions();
        let found = rustix::fs::statat(entered, c"", AtFlags::EMPTY_PATH);
        let now = found.map_err(|errno| making_directory(errno.into()))?.st_mode & 0o7777;
        // What it is for files that others make stays.
        let narrowed = now & (wanted | 0o7000);
        if narrowed != now {
            let _said_later = rustix::fs::chmod(path_of(entered), Mode::from(narrowed));
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        self.path.truncate(self.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
        self.depth -= 1;
        self.way.pop();
        self.descent.leave().map_err(|error| Error::media("going through the target", error))
    }
}

fn making_directory(error: std::io::Error) -> Error {
    Error::media("making the directory", error)
}

/// Something that is no directory has the name of one.
pub(super) fn in_the_way() -> Error {
    Error::Refused(Errno::EXIST, "a directory belongs here, and something else has its name; it is left alone".into())
}
