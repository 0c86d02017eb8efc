//! Copying files out of a view into an ordinary directory, with all their metadata.

use super::{Daemon, OnProgress, Progress};
use crate::clock::Timestamp;
use crate::device::{InodeNo, Moment};
use crate::error::{Errno, Error, Result};
use crate::tree::{Inode, Kind, Tree, root_of, shown};
use crate::view::{View, Views};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

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

const CHUNK: u64 = 1 << 20;

impl Daemon {
    /// Copies files out of a view of a base.
    pub fn copy_out(&self, views: &Views, options: &RestoreOptions, progress: OnProgress<'_>) -> Result<RestoreReport> {
        let View { base, moment } = views.view(&options.snapshot)?;
        let root = root_of(base);
        let mut copy = CopyOut {
            tree: views.tree(),
            root,
            moment,
            overwrite: options.overwrite,
            is_root: rustix::process::geteuid().is_root(),
            seen: HashMap::new(),
            directories: Vec::new(),
            known_directories: HashSet::new(),
            report: RestoreReport::default(),
            progress,
        };
        if options.to.starts_with(&self.path) {
            return Err(Error::Refused(
                Errno::INVAL,
                format!("{} is inside the store's own directory; choose another one", options.to.display()),
            ));
        }
        let is_new = !options.to.exists();
        std::fs::create_dir_all(&options.to)
            .map_err(|error| Error::media(format!("making {}", options.to.display()), error))?;
        if options.paths.is_empty() {
            copy.content(root, &options.to)?;
            // A directory that was there already keeps its own attributes.
            if is_new {
                copy.directories.push((root, options.to.clone()));
            }
        }
        for path in &options.paths {
            match copy.path(path, &options.to) {
                Err(Error::Refused(Errno::NOENT, text)) => copy.report.problems.push(text),
                result => result?,
            }
        }
        copy.finish_directories()?;
        Ok(copy.report)
    }
}

struct CopyOut<'a> {
    tree: &'a Tree,
    root: InodeNo,
    moment: Moment,
    overwrite: bool,
    is_root: bool,
    /// Where an inode with several names was put first.
    seen: HashMap<InodeNo, PathBuf>,
    /// Directories get their attributes last: filling them changes their times.
    directories: Vec<(InodeNo, PathBuf)>,
    known_directories: HashSet<InodeNo>,
    report: RestoreReport,
    progress: OnProgress<'a>,
}

impl CopyOut<'_> {
    fn path(&mut self, path: &[u8], to: &Path) -> Result<()> {
        let names: Vec<&[u8]> =
            path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
        let (mut at, mut target) = (self.root, to.to_path_buf());
        for (i, name) in names.iter().enumerate() {
            let (inode, found) = self.tree.lookup(at, name, self.moment).map_err(|error| match error {
                Error::Posix(Errno::NOENT | Errno::NOTDIR) => Error::Refused(
                    Errno::NOENT,
                    format!(
                        "{:?} is not in the snapshot; `ls` in the mounted snapshot or `pitfs diff` shows what is",
                        String::from_utf8_lossy(path)
                    ),
                ),
                other => other,
            })?;
            target.push(OsStr::from_bytes(name));
            at = inode;
            if i + 1 == names.len() {
                return self.one(inode, &found, &target);
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
            self.one(entry.inode, &found, &target.join(OsStr::from_bytes(&entry.name)))?;
        }
        Ok(())
    }

    fn problem(&mut self, target: &Path, error: impl std::fmt::Display) {
        self.report.problems.push(format!("{}: {error}", shown(target.as_os_str().as_bytes())));
    }

    fn tell(&mut self) -> Result<()> {
        (self.progress)(&Progress { files: self.report.files, bytes: self.report.bytes, total_bytes: 0 })
    }

    /// Copies one inode; what goes wrong with it is noted, and the rest is done.
    fn one(&mut self, inode: InodeNo, found: &Inode, target: &Path) -> Result<()> {
        let result = match found.kind() {
            Kind::Directory => self.directory(inode, target).and_then(|()| self.content(inode, target)),
            _ => self.not_directory(inode, found, target),
        };
        match result {
            Ok(()) => self.report.files += 1,
            // No room, or nobody waits any more: the rest would fare no better.
            Err(error) if error.is_no_space() || error.errno() == Errno::INTR => return Err(error),
            Err(error) => self.problem(target, error),
        }
        self.tell()
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

    fn not_directory(&mut self, inode: InodeNo, found: &Inode, target: &Path) -> Result<()> {
        if self.overwrite && target.symlink_metadata().is_ok_and(|found| !found.is_dir()) {
            std::fs::remove_file(target).map_err(|error| Error::media("replacing it", error))?;
        }
        if found.links > 1
            && let Some(first) = self.seen.get(&inode)
        {
            return std::fs::hard_link(first, target).map_err(cannot_make);
        }
        match found.kind() {
            Kind::File => self.file(inode, found, target)?,
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
        if found.links > 1 {
            self.seen.insert(inode, target.to_path_buf());
        }
        self.attributes(inode, found, target)
    }

    fn file(&mut self, inode: InodeNo, found: &Inode, target: &Path) -> Result<()> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(target).map_err(cannot_make)?;
        // Only what was made here may go again.
        self.fill(&file, inode, found).inspect_err(|_| self.discard(target))
    }

    fn fill(&mut self, file: &File, inode: InodeNo, found: &Inode) -> Result<()> {
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
                let bytes = self.tree.read(inode, offset, (end - offset).min(CHUNK) as usize, self.moment)?;
                file.write_all_at(&bytes, offset).map_err(|error| Error::media("writing it", error))?;
                offset += bytes.len() as u64;
                self.report.bytes += bytes.len() as u64;
                self.tell()?;
            }
        }
        file.set_len(found.size).map_err(|error| Error::media("setting its length", error))
    }

    /// Half a file is worse than none.
    fn discard(&mut self, target: &Path) {
        if let Err(error) = std::fs::remove_file(target) {
            self.problem(target, format!("a part of it stays behind: {error}"));
        }
    }

    /// Owner, xattrs, mode and times, in the order in which one does not undo another.
    fn attributes(&mut self, inode: InodeNo, found: &Inode, target: &Path) -> Result<()> {
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
                    self.problem(target, format!("the xattr {} could not be set: {error}", shown(&name)));
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

    fn finish_directories(&mut self) -> Result<()> {
        for (inode, target) in std::mem::take(&mut self.directories).into_iter().rev() {
            let found = self.tree.inode(inode, self.moment)?;
            if let Err(error) = self.attributes(inode, &found, &target) {
                self.problem(&target, error);
            }
        }
        Ok(())
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
