//! Attributes of what was put in a directory, in the order in which one does not undo another.

use super::put::Tally;
use crate::clock::Timestamp;
use crate::daemon::descent::{Identity, identity, is_another, path_of};
use crate::daemon::xattrs;
use crate::error::{Error, Result};
use crate::shown::shown;
use crate::tree::{ACCESS_LIST, DEFAULT_LIST, Inode, Kind};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// A file or directory whose attributes are set.
pub(super) enum Handle<'a> {
    /// Open for reading or writing.
    File(&'a File),
    /// Open as a path only.
    Path(PathBuf),
    /// A symlink, open as a path only: what is done to it is done to itself.
    Link(PathBuf),
}

type Answer = std::result::Result<(), Errno>;

impl Handle<'_> {
    fn set_owner(&self, uid: u32, gid: u32) -> Answer {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match self {
            Handle::File(file) => rustix::fs::fchown(file, uid, gid),
            Handle::Path(path) | Handle::Link(path) => rustix::fs::chownat(CWD, path, uid, gid, AtFlags::empty()),
        }
    }

    fn set_mode(&self, permissions: u32) -> Answer {
        let mode = Mode::from(permissions);
        match self {
            Handle::File(file) => rustix::fs::fchmod(file, mode),
            Handle::Path(path) => rustix::fs::chmod(path, mode),
            Handle::Link(_) => Ok(()),
        }
    }

    fn set_times(&self, found: &Inode) -> Answer {
        let timespec = |time: Timestamp| Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() };
        let times = Timestamps { last_access: timespec(found.atime), last_modification: timespec(found.mtime) };
        match self {
            Handle::File(file) => rustix::fs::futimens(file, &times),
            Handle::Path(path) | Handle::Link(path) => rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()),
        }
    }

    fn set_xattr(&self, name: &[u8], value: &[u8]) -> Answer {
        match self {
            Handle::File(file) => rustix::fs::fsetxattr(file, name, value, XattrFlags::empty()),
            Handle::Path(path) | Handle::Link(path) => rustix::fs::setxattr(path, name, value, XattrFlags::empty()),
        }
    }

    fn remove_xattr(&self, name: &[u8]) -> Answer {
        match self {
            Handle::File(file) => rustix::fs::fremovexattr(file, name),
            Handle::Path(path) | Handle::Link(path) => rustix::fs::removexattr(path, name),
        }
    }

    /// The names of its xattrs; none where there cannot be any.
    fn xattrs(&self) -> std::result::Result<Vec<Vec<u8>>, Errno> {
        xattrs::names(|buffer| match self {
            Handle::File(file) => rustix::fs::flistxattr(file, buffer),
            Handle::Path(path) | Handle::Link(path) => rustix::fs::listxattr(path, buffer),
        })
    }

    /// A directory that was just made has the lists of the one above it: nothing that is put in it is to have them.
    pub fn drop_default_list(&self) {
        // Where there is none, or there are no lists, nothing has to be done; what stays is seen again at the end.
        let _there_is_none = self.remove_xattr(DEFAULT_LIST);
    }

    /// Owner, xattrs, mode and times. Xattrs come after the owner, whose change takes capabilities away, and the mode
    /// after the lists, which change it. `problem` is told of xattrs that stay as they are.
    pub fn set(
        &self,
        found: &Inode,
        xattrs: &[(Vec<u8>, Vec<u8>)],
        is_root: bool,
        mut problem: impl FnMut(String),
    ) -> Result<()> {
        let failed = |what: &'static str| move |errno: Errno| Error::media(what, errno.into());
        if is_root {
            self.set_owner(found.uid, found.gid).map_err(failed("setting its owner"))?;
        }
        let known = self.xattrs().map_err(failed("listing its xattrs"))?;
        for name in known.iter().filter(|name| is_carried(name) && !xattrs.iter().any(|(other, _)| other == *name)) {
            if let Err(errno) = self.remove_xattr(name) {
                let error = io::Error::from(errno);
                problem(format!("the xattr {}, which it did not have, could not be removed: {error}", shown(name)));
            }
        }
        for (name, value) in xattrs {
            if let Err(errno) = self.set_xattr(name, value) {
                problem(format!("the xattr {} could not be set: {}", shown(name), io::Error::from(errno)));
            }
        }
        self.set_mode(found.permissions()).map_err(failed("setting its mode"))?;
        self.set_times(found).map_err(failed("setting its times"))
    }
}

/// Whether an xattr is part of a file and not a label of the system it is on.
fn is_carried(name: &[u8]) -> bool {
    name == ACCESS_LIST
        || name == DEFAULT_LIST
        || name == b"security.capability"
        || name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
}

/// What has a name in a directory and is no regular file, without following it if it is a link.
pub(super) struct Named {
    /// What the path leads to, for as long as it is needed.
    _file: OwnedFd,
    path: PathBuf,
    kind: Kind,
    pub identity: Identity,
}

impl Named {
    /// Opens what was made under a name, of this kind, with the number of a device if it is one.
    pub fn open(directory: &OwnedFd, name: &[u8], kind: Kind, device: u64) -> io::Result<Named> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
        let found = rustix::fs::statat(&file, c"", AtFlags::EMPTY_PATH)?;
        // Somebody else may have put something in its place since it was made.
        let is_device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
        let is_other_device = is_device && found.st_rdev != device;
        if Kind::from_mode(found.st_mode) != Some(kind) || is_other_device || found.st_nlink != 1 {
            return Err(is_another());
        }
        Ok(Named { identity: identity(&file)?, path: path_of(&file), _file: file, kind })
    }

    pub fn handle(&self) -> Handle<'static> {
        match self.kind {
            Kind::Symlink => Handle::Link(self.path.clone()),
            _ => Handle::Path(self.path.clone()),
        }
    }
}

impl Tally {
    /// Sets attributes, and notes what stays as it is.
    pub(super) fn set(
        &self,
        (number, target): (u64, &[u8]),
        handle: &Handle<'_>,
        found: &Inode,
        xattrs: &[(Vec<u8>, Vec<u8>)],
        is_root: bool,
    ) -> Result<()> {
        handle.set(found, xattrs, is_root, |text| self.problem(number, target, text))
    }
}
