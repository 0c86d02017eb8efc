//! Putting one inode, which is no directory, where it belongs.

use super::super::Progress;
use super::{RestoreReport, decode_device};
use crate::clock::Timestamp;
use crate::device::{InodeNo, Moment};
use crate::error::{Errno, Error, Result};
use crate::tree::{Inode, Kind, Tree, shown};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const CHUNK: u64 = 1 << 20;

/// An inode to be copied.
pub(super) struct Job {
    /// By which problems are sorted.
    pub number: u64,
    pub inode: InodeNo,
    pub found: Inode,
    pub target: PathBuf,
}

/// What all threads have done.
#[derive(Default)]
pub(super) struct Tally {
    files: AtomicU64,
    bytes: AtomicU64,
    is_ended: AtomicBool,
    failures: Mutex<Failures>,
}

#[derive(Default)]
struct Failures {
    problems: Vec<(u64, String)>,
    /// Where nothing was put.
    unmade: HashSet<PathBuf>,
    /// Why nothing more is done.
    reason: Option<Error>,
}

impl Tally {
    /// One inode was copied, or was not.
    pub fn count(&self, number: u64, target: &Path, result: Result<()>) {
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

    pub fn problem(&self, number: u64, target: &Path, error: impl std::fmt::Display) {
        self.note(number, format!("{}: {error}", shown(target.as_os_str().as_bytes())));
    }

    pub fn is_unmade(&self, target: &Path) -> bool {
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
        let made = self.make(job);
        if made.is_err() {
            self.tally.failures.lock().unmade.insert(job.target.clone());
        }
        let put = made.and_then(|()| self.attributes(job.number, job.inode, &job.found, &job.target));
        self.tally.count(job.number, &job.target, put);
    }

    /// Gives what was put under its first name another one.
    pub fn link(&self, number: u64, target: &Path, first: &Path) {
        let link = || {
            self.make_way(target)?;
            std::fs::hard_link(first, target).map_err(cannot_make)
        };
        self.tally.count(number, target, link());
    }

    fn make_way(&self, target: &Path) -> Result<()> {
        if self.overwrite && target.symlink_metadata().is_ok_and(|found| !found.is_dir()) {
            std::fs::remove_file(target).map_err(|error| Error::media("replacing it", error))?;
        }
        Ok(())
    }

    fn make(&self, job: &Job) -> Result<()> {
        let Job { found, target, .. } = job;
        self.make_way(target)?;
        match found.kind() {
            Kind::File => self.file(job)?,
            Kind::Symlink => {
                std::os::unix::fs::symlink(OsStr::from_bytes(&found.inline), target).map_err(cannot_make)?
            }
            kind => {
                let file_type = match kind {
                    Kind::Fifo => FileType::Fifo,
                    Kind::Socket => FileType::Socket,
                    Kind::CharDevice => FileType::CharacterDevice,
                    Kind::BlockDevice => FileType::BlockDevice,
                    Kind::File | Kind::Symlink | Kind::Directory => FileType::RegularFile,
                };
                rustix::fs::mknodat(CWD, target, file_type, Mode::from(0o600u32), decode_device(found.rdev))
                    .map_err(|errno| cannot_make(errno.into()))?;
            }
        }
        Ok(())
    }

    fn file(&self, job: &Job) -> Result<()> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(&job.target).map_err(cannot_make)?;
        // Only what was made here may go again.
        self.fill(&file, job.inode, &job.found).inspect_err(|_| self.discard(job))
    }

    fn fill(&self, file: &File, inode: InodeNo, found: &Inode) -> Result<()> {
        let mut offset = 0;
        while offset < found.size {
            let data = match self.tree.seek_data(inode, offset, self.moment) {
                Ok(data) => data,
                Err(Error::Posix(Errno::NXIO)) => break,
                Err(error) => return Err(error),
            };
            let end = self.tree.seek_hole(inode, data, self.moment)?;
            offset = data;
            while offset < end {
                self.tally.check()?;
                let bytes = self.tree.read(inode, offset, (end - offset).min(CHUNK) as usize, self.moment)?;
                file.write_all_at(&bytes, offset).map_err(|error| Error::media("writing it", error))?;
                offset += bytes.len() as u64;
                self.tally.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
        }
        file.set_len(found.size).map_err(|error| Error::media("setting its length", error))
    }

    /// Half a file is worse than none.
    fn discard(&self, job: &Job) {
        if let Err(error) = std::fs::remove_file(&job.target) {
            self.tally.problem(job.number, &job.target, format!("a part of it stays behind: {error}"));
        }
    }

    /// Owner, xattrs, mode and times, in the order in which one does not undo another.
    pub fn attributes(&self, number: u64, inode: InodeNo, found: &Inode, target: &Path) -> Result<()> {
        let is_link = found.kind() == Kind::Symlink;
        if self.is_root {
            let (uid, gid) = (Uid::from_raw(found.uid), Gid::from_raw(found.gid));
            rustix::fs::chownat(CWD, target, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| Error::media("setting its owner", errno.into()))?;
        }
        for (name, value) in self.tree.xattrs(inode, self.moment)? {
            match rustix::fs::lsetxattr(target, OsStr::from_bytes(&name), &value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(errno) => {
                    let error = io::Error::from(errno);
                    self.tally.problem(number, target, format!("the xattr {} could not be set: {error}", shown(&name)));
                }
            }
        }
        if !is_link {
            rustix::fs::chmodat(CWD, target, Mode::from(found.permissions()), AtFlags::empty())
                .map_err(|errno| Error::media("setting its mode", errno.into()))?;
        }
        let timespec = |time: Timestamp| Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() };
        let times = Timestamps { last_access: timespec(found.atime), last_modification: timespec(found.mtime) };
        rustix::fs::utimensat(CWD, target, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| Error::media("setting its times", errno.into()))
    }
}

fn cannot_make(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Error::Refused(Errno::EXIST, "it exists already; --overwrite replaces it".into())
        }
        _ => Error::media("making it", error),
    }
}
