//! What is known of a file of the source without reading it.

use crate::clock::Timestamp;
use crate::daemon::descent::Identity;
use crate::tree::Kind;
use rustix::fs::{AtFlags, Statx, StatxFlags, StatxTimestamp};
use std::io;
use std::os::fd::AsFd;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub device: u64,
    pub inode: u64,
    pub mode: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of a special file.
    pub rdev: u64,
    pub size: u64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
}

impl Facts {
    /// Of a name in a directory. A link is not followed.
    pub fn at(directory: impl AsFd, name: &[u8]) -> io::Result<Facts> {
        let found = rustix::fs::statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
        Ok(Facts::of_statx(&found))
    }

    /// Of what is open.
    pub fn of(file: impl AsFd) -> io::Result<Facts> {
        Ok(Facts::of_statx(&rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?))
    }

    fn of_statx(found: &Statx) -> Facts {
        let time = |time: StatxTimestamp| Timestamp { seconds: time.tv_sec, nanos: time.tv_nsec };
        Facts {
            device: rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            mode: found.stx_mode.into(),
            links: found.stx_nlink,
            uid: found.stx_uid,
            gid: found.stx_gid,
            rdev: rustix::fs::makedev(found.stx_rdev_major, found.stx_rdev_minor),
            size: found.stx_size,
            atime: time(found.stx_atime),
            mtime: time(found.stx_mtime),
            ctime: time(found.stx_ctime),
        }
    }

    pub fn identity(&self) -> Identity {
        (self.device, self.inode)
    }

    pub fn kind(&self) -> Option<Kind> {
        Kind::from_mode(self.mode)
    }

    pub fn is_directory(&self) -> bool {
        self.kind() == Some(Kind::Directory)
    }

    pub fn is_file(&self) -> bool {
        self.kind() == Some(Kind::File)
    }

    /// Whether a file has not been written to between two looks at it.
    pub fn has_same_content(&self, other: &Facts) -> bool {
        (self.size, self.mtime, self.ctime) == (other.size, other.mtime, other.ctime)
    }
}
