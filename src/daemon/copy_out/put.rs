//! Putting one inode, which is no directory, where it belongs.

use super::handle::{Handle, Named};
use super::{RestoreReport, decode_device};
use crate::daemon::Progress;
use crate::daemon::descent::{Identity, identity, identity_in, is_another};
use crate::device::{InodeNo, Moment};
use crate::error::{Errno, Error, Result};
use crate::shown::shown_file;
use crate::tree::{Inode, Kind, Tree, join};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const CHUNK: u64 = 1 << 20;

/// A directory that receives something.
pub(super) struct Directory {
    pub open: Arc<OwnedFd>,
    /// From the one that receives everything.
    pub path: Vec<u8>,
}

/// An inode to be copied.
pub(super) struct Job {
    /// By which problems are sorted.
    pub number: u64,
    pub inode: InodeNo,
    pub found: Inode,
    pub directory: Arc<Directory>,
    pub name: Vec<u8>,
}

impl Job {
    pub fn target(&self) -> Vec<u8> {
        join(&self.directory.path, &self.name)
    }
}

/// What all threads have done.
#[derive(Default)]
pub(super) struct Tally {
    /// The directory that receives everything, for messages.
    to: PathBuf,
    files: AtomicU64,
    bytes: AtomicU64,
    is_ended: AtomicBool,
    failures: Mutex<Failures>,
    /// What was made of inodes that have further names.
    linked: Mutex<HashMap<InodeNo, Identity>>,
}

#[derive(Default)]
struct Failures {
    problems: Vec<(u64, String)>,
    /// Where nothing was put.
    unmade: HashSet<Vec<u8>>,
    /// Why nothing more is done.
    reason: Option<Error>,
}

impl Tally {
    /// Of what is put in a directory.
    pub fn of(to: &Path) -> Tally {
        Tally { to: to.to_path_buf(), ..Tally::default() }
    }

    /// One inode was copied, or was not.
    pub fn count(&self, number: u64, target: &[u8], result: Result<()>) {
        match result {
            Ok(()) => {
                self.files.fetch_add(1, Ordering::Relaxed);
            }
            // No room, or nobody waits any more: the rest would fare no better.
            Err(error) if error.is_no_space() || error.errno() == Errno::INTR => self.end(error),
            Err(error) => self.problem(number, target, error),
        }
    }

    pub fn note(&self, number: u64, text: String) {
        self.failures.lock().problems.push((number, text));
    }

    pub fn problem(&self, number: u64, target: &[u8], error: impl std::fmt::Display) {
        let to = self.to.join(std::ffi::OsStr::from_bytes(target));
        self.note(number, format!("{}: {error}", shown_file(&to)));
    }

    pub fn is_unmade(&self, target: &[u8]) -> bool {
        self.failures.lock().unmade.contains(target)
    }

    /// What is not done yet stays undone. The first reason counts.
    pub fn end(&self, error: Error) {
        self.failures.lock().reason.get_or_insert(error);
        self.is_ended.store(true, Ordering::Release);
    }

    /// EINTR once something has ended it: why says [`Tally::reason`].
    pub fn check(&self) -> Result<()> {
        if self.is_ended.load(Ordering::Acquire) { Err(Error::Posix(Errno::INTR)) } else { Ok(()) }
    }

    /// Fails with what ended it, if anything did.
    pub fn reason(&self) -> Result<()> {
        self.failures.lock().reason.take().map_or(Ok(()), Err)
    }

    pub fn progress(&self) -> Progress {
        let [files, bytes] = [&self.files, &self.bytes].map(|count| count.load(Ordering::Relaxed));
        Progress { files, bytes, total_bytes: 0 }
    }

    pub fn report(self) -> RestoreReport {
        let mut problems = self.failures.into_inner().problems;
        problems.sort_by_key(|(number, _)| *number);
        RestoreReport {
            files: self.files.into_inner(),
            bytes: self.bytes.into_inner(),
            problems: problems.into_iter().map(|(_, text)| text).collect(),
        }
    }
}

pub(super) struct Putter<'a> {
    pub tree: &'a Tree,
    pub moment: Moment,
    pub overwrite: bool,
    pub is_root: bool,
    pub tally: &'a Tally,
}

impl Putter<'_> {
    pub fn put(&self, job: &Job) {
        if self.tally.check().is_err() {
            return;
        }
        let target = job.target();
        let made = self.make(job);
        if made.is_err() {
            self.tally.failures.lock().unmade.insert(target.clone());
        }
        let put = made.and_then(|made| {
            if job.found.links > 1 {
                let identity = made.identity().map_err(|error| Error::media("looking at what was made", error))?;
                self.tally.linked.lock().insert(job.inode, identity);
            }
            let xattrs = self.tree.attributes().xattrs(job.inode.at(self.moment))?;
            self.tally.set((job.number, &target), &made.handle(), &job.found, &xattrs, self.is_root)
        });
        self.tally.count(job.number, &target, put);
    }

    /// Gives what was put under its first name another one.
    pub fn link(&self, inode: InodeNo, first: (&OwnedFd, &[u8]), target: (&OwnedFd, &[u8])) -> Result<()> {
        let link = || rustix::fs::linkat(first.0, first.1, target.0, target.1, AtFlags::empty());
        self.made(target.0, target.1, link)?;
        let failed = |error| Error::media("giving it another name", error);
        if self.tally.linked.lock().get(&inode) == Some(&identity_in(target.0, target.1).map_err(failed)?) {
            return Ok(());
        }
        rustix::fs::unlinkat(target.0, target.1, AtFlags::empty()).map_err(|errno| failed(errno.into()))?;
        Err(failed(is_another()))
    }

    /// What `make` makes under a name; what has the name is replaced, if that is wanted and it is no directory. It is looked
    /// at only then: look-ups of names that are not there hold up everybody who makes files in the directory.
    fn made<T>(&self, directory: &OwnedFd, name: &[u8], make: impl Fn() -> Result<T, Errno>) -> Result<T> {
        let making = |errno: Errno| Error::media("making it", errno.into());
        match make() {
            Err(Errno::EXIST) => {}
            result => return result.map_err(making),
        }
        match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => return Err(directory_there()),
            Ok(_) | Err(_) if !self.overwrite => return Err(exists_already()),
            Ok(_) | Err(_) => {}
        }
        rustix::fs::unlinkat(directory, name, AtFlags::empty())
            .map_err(|errno| Error::media("replacing it", errno.into()))?;
        make().map_err(making)
    }

    fn make(&self, job: &Job) -> Result<Made> {
        let (directory, name) = (&*job.directory.open, job.name.as_slice());
        let file_type = match job.found.kind() {
            Kind::File => return self.file(job).map(Made::File),
            Kind::Symlink => {
                let link = || rustix::fs::symlinkat(job.found.inline.as_slice(), directory, name);
                self.made(directory, name, link)?;
                None
            }
            Kind::Fifo => Some(FileType::Fifo),
            Kind::Socket => Some(FileType::Socket),
            Kind::CharDevice => Some(FileType::CharacterDevice),
            Kind::BlockDevice => Some(FileType::BlockDevice),
            Kind::Directory => return Err(Error::Posix(Errno::ISDIR)),
        };
        if let Some(file_type) = file_type {
            let mode = Mode::from(0o600u32);
            let make = || rustix::fs::mknodat(directory, name, file_type, mode, decode_device(job.found.rdev));
            self.made(directory, name, make)?;
        }
        let named = Named::open(directory, name, job.found.kind(), decode_device(job.found.rdev));
        named.map(Made::Named).map_err(|error| Error::media("opening what was made", error))
    }

    fn file(&self, job: &Job) -> Result<File> {
        let (directory, name) = (&*job.directory.open, job.name.as_slice());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(directory, name, flags, Mode::from(0o600u32));
        let file: File = self.made(directory, name, open)?.into();
        // Only what was made here may go again.
        self.fill(&file, job.inode, &job.found).inspect_err(|_| self.discard(job))?;
        Ok(file)
    }

    fn fill(&self, file: &File, inode: InodeNo, found: &Inode) -> Result<()> {
        let (files, at) = (self.tree.files(), inode.at(self.moment));
        let mut written = 0;
        for range in files.data_ranges(at, found.size) {
            let Range { start: mut offset, end } = range?;
            while offset < end {
                self.tally.check()?;
                let bytes = files.read(at, offset, (end - offset).min(CHUNK) as usize)?;
                if bytes.is_empty() {
                    let text = "it was made shorter while it was read; restore it again";
                    return Err(Error::Refused(Errno::AGAIN, text.into()));
                }
                file.write_all_at(&bytes, offset).map_err(|error| Error::media("writing it", error))?;
                offset += bytes.len() as u64;
                written = offset;
                self.tally.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
        }
        match written < found.size {
            true => file.set_len(found.size).map_err(|error| Error::media("setting its length", error)),
            false => Ok(()),
        }
    }

    /// Half a file is worse than none.
    fn discard(&self, job: &Job) {
        if let Err(errno) = rustix::fs::unlinkat(&*job.directory.open, job.name.as_slice(), AtFlags::empty()) {
            let error = io::Error::from(errno);
            self.tally.problem(job.number, &job.target(), format!("a part of it stays behind: {error}"));
        }
    }
}

/// What was made, still open.
enum Made {
    File(File),
    Named(Named),
}

impl Made {
    fn identity(&self) -> io::Result<Identity> {
        match self {
            Made::File(file) => identity(file),
            Made::Named(named) => Ok(named.identity),
        }
    }

    fn handle(&self) -> Handle<'_> {
        match self {
            Made::File(file) => Handle::File(file),
            Made::Named(named) => named.handle(),
        }
    }
}

/// A directory has what the snapshot may not have, and is not replaced.
pub(super) fn directory_there() -> Error {
    Error::Refused(Errno::EXIST, "a directory is there, which is never replaced; move it away".into())
}

pub(super) fn exists_already() -> Error {
    Error::Refused(Errno::EXIST, "it exists already; --overwrite replaces it".into())
}
