//! Opening and syncing files of the mount, looking at them, and unmounting it.

use super::Outcome;
use crate::clock::Timestamp;
use crate::error::{Errno, Error};
use crate::fuse::unmount_path;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::fs::{fstat, fsync, ftruncate, futimens, open, statx, utimensat};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What is to be done with a file of the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fuse) enum Visit {
    /// What the kernel keeps of what was written to it goes to the daemon. The answer has the file's inode number, or 0
    /// if it could not be opened.
    Sync,
    /// It is looked up, and no more. The answer has the size that the kernel knows.
    Look,
    /// It gets this time of its last change, if whoever asks may do that. The answer has the size that the kernel knows
    /// then.
    Touch(Timestamp),
    /// It gets the size that the kernel knows, and this time of its last change. The answer has that size.
    Set(Timestamp),
    /// The mount ends.
    Unmount,
    UnmountLazily,
}

/// Bytes of a message in front of the path.
const HEAD: usize = 13;

impl Visit {
    pub(in crate::fuse) fn message(self, path: &Path) -> Vec<u8> {
        let (kind, time) = match self {
            Visit::Sync => (0, Timestamp::default()),
            Visit::Look => (1, Timestamp::default()),
            Visit::Touch(time) => (2, time),
            Visit::Set(time) => (3, time),
            Visit::Unmount => (4, Timestamp::default()),
            Visit::UnmountLazily => (5, Timestamp::default()),
        };
        [&[kind], &time.seconds.to_ne_bytes()[..], &time.nanos.to_ne_bytes(), path.as_os_str().as_bytes()].concat()
    }

    fn parse(message: &[u8]) -> Option<(Visit, &Path)> {
        let (&[kind, a, b, c, d, e, f, g, h, ref nanos @ ..], path) = message.split_first_chunk::<HEAD>()?;
        let time =
            Timestamp { seconds: i64::from_ne_bytes([a, b, c, d, e, f, g, h]), nanos: u32::from_ne_bytes(*nanos) };
        let visit = match kind {
            0 => Visit::Sync,
            1 => Visit::Look,
            2 => Visit::Touch(time),
            3 => Visit::Set(time),
            4 => Visit::Unmount,
            5 => Visit::UnmountLazily,
            _ => return None,
        };
        Some((visit, Path::new(OsStr::from_bytes(path))))
    }
}

pub(super) fn visit(message: &[u8]) -> Outcome {
    let done = match Visit::parse(message) {
        Some((Visit::Sync, path)) => return sync(path),
        Some((Visit::Look, path)) => look(path),
        Some((Visit::Touch(time), path)) => touch(path, time),
        Some((Visit::Set(time), path)) => set(path, time),
        Some((Visit::Unmount, path)) => unmount(path, false),
        Some((Visit::UnmountLazily, path)) => unmount(path, true),
        None => Err(Errno::INVAL),
    };
    done.map_or_else(|errno| (Err(errno), 0), |size| (Ok(()), size))
}

fn opened(path: &Path, how: OFlags) -> Result<OwnedFd, Errno> {
    open(path, how | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
}

fn sync(path: &Path) -> Outcome {
    let file = match opened(path, OFlags::RDONLY) {
        Ok(file) => file,
        Err(errno) => return (Err(errno), 0),
    };
    let number = fstat(&file).map_or(0, |found| found.st_ino);
    (retry(|| fsync(&file)), number)
}

fn unmount(path: &Path, lazy: bool) -> Result<u64, Errno> {
    unmount_path(path, lazy).map(|()| 0).map_err(|error: Error| error.errno())
}

fn look(path: &Path) -> Result<u64, Errno> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::SYMLINK_NOFOLLOW;
    Ok(statx(CWD, path, flags, StatxFlags::SIZE)?.stx_size)
}

fn touch(path: &Path, time: Timestamp) -> Result<u64, Errno> {
    match retry(|| utimensat(CWD, path, &modified(time), AtFlags::SYMLINK_NOFOLLOW)) {
        Ok(()) | Err(Errno::PERM | Errno::ACCESS | Errno::ROFS) => look(path),
        Err(errno) => Err(errno),
    }
}

fn modified(time: Timestamp) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ },
        last_modification: Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() },
    }
}

fn set(path: &Path, time: Timestamp) -> Result<u64, Errno> {
    let file = opened(path, OFlags::WRONLY)?;
    let size = fstat(&file)?.st_size as u64;
    retry(|| ftruncate(&file, size))?;
    retry(|| futimens(&file, &modified(time)))?;
    Ok(size)
}

fn retry(call: impl Fn() -> Result<(), Errno>) -> Result<(), Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_arrives_as_it_was_sent() {
        let path = Path::new("/a/b");
        for visit in [
            Visit::UnmountLazily,
            Visit::Sync,
            Visit::Look,
            Visit::Touch(Timestamp::default()),
            Visit::Set(Timestamp { seconds: -5, nanos: 7 }),
        ] {
            assert_eq!(Visit::parse(&visit.message(path)), Some((visit, path)));
        }
        assert!(Visit::parse(b"short").is_none());
    }
}
