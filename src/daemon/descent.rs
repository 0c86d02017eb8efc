//! Going down and up in directories outside the store, of any depth.
//!
//! Each directory is opened in the one above it: no path gets too long, and no link on the way is followed. The
//! lowest few stay open. Those above are found again through `..`, and have to be the ones that were left.

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Directories of one way down that stay open.
const OPEN_MAX: usize = 32;

/// Device and number of an inode.
pub(super) type Identity = (u64, u64);

struct Level {
    identity: Identity,
    /// Unless it lies far above.
    directory: Option<Arc<OwnedFd>>,
}

pub(super) struct Descent {
    levels: Vec<Level>,
    flags: OFlags,
}

/// What an open file or directory is.
pub(super) fn identity(file: impl AsFd) -> io::Result<Identity> {
    look(file, b"", AtFlags::EMPTY_PATH)
}

/// What has a name in an open directory.
pub(super) fn identity_in(directory: &OwnedFd, name: &[u8]) -> io::Result<Identity> {
    look(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}

fn look(at: impl AsFd, name: &[u8], flags: AtFlags) -> io::Result<Identity> {
    let found = rustix::fs::statx(at, name, flags, StatxFlags::INO)?;
    Ok((rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino))
}

/// Somebody else has put something in the place of what was made.
pub(super) fn is_another() -> io::Error {
    io::Error::other("something else has its name by now")
}

/// A path to a name in an open directory, for system calls that take no directory.
pub(super) fn path_in(directory: &OwnedFd, name: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(std::ffi::OsStr::from_bytes(name))
}

/// A path to what is open.
pub(super) fn path_of(file: &OwnedFd) -> PathBuf {
    Path::new("/proc/self/fd").join(file.as_raw_fd().to_string())
}

impl Descent {
    /// Begins in a directory; those below it are opened with these flags.
    pub fn begin(root: OwnedFd, flags: OFlags) -> io::Result<Descent> {
        let level = Level { identity: identity(&root)?, directory: Some(Arc::new(root)) };
        let flags = flags | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Descent { levels: vec![level], flags })
    }

    /// The directory that was entered last.
    pub fn here(&self) -> io::Result<&Arc<OwnedFd>> {
        self.levels.last().and_then(|level| level.directory.as_ref()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// What that directory is.
    pub fn identity(&self) -> Option<Identity> {
        self.levels.last().map(|level| level.identity)
    }

    /// Goes down into what has been there before; nothing has changed where that fails.
    pub fn enter_again(&mut self, name: &[u8], before: Option<Identity>) -> io::Result<()> {
        self.enter(name)?;
        match self.identity() == before {
            true => Ok(()),
            false => self.leave().and(Err(is_another())),
        }
    }

    /// Goes down; nothing has changed where that fails.
    pub fn enter(&mut self, name: &[u8]) -> io::Result<()> {
        let directory = rustix::fs::openat(self.here()?, name, self.flags, Mode::empty())?;
        self.levels.push(Level { identity: identity(&directory)?, directory: Some(Arc::new(directory)) });
        if let Some(above) = self.levels.len().checked_sub(OPEN_MAX + 1).and_then(|at| self.levels.get_mut(at)) {
            above.directory = None;
        }
        Ok(())
    }

    /// Goes up again; an error if the directory was moved elsewhere meanwhile.
    pub fn leave(&mut self) -> io::Result<()> {
        let left = self.levels.pop().and_then(|level| level.directory);
        let (Some(left), Some(above)) = (left, self.levels.last_mut()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if above.directory.is_none() {
            let found = rustix::fs::openat(&left, c"..", self.flags, Mode::empty())?;
            if identity(&found)? != above.identity {
                return Err(io::Error::other("a directory was moved while it was walked through"));
            }
            above.directory = Some(Arc::new(found));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_deeper_than_any_path_leads_down_and_up_again() {
        let dir = tempfile::tempdir().unwrap();
        let open = || OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        let mut descent = Descent::begin(open(), OFlags::PATH).unwrap();
        let mut seen = vec![identity(descent.here().unwrap()).unwrap()];
        for _ in 0..2500 {
            rustix::fs::mkdirat(descent.here().unwrap(), "dd", Mode::from(0o700)).unwrap();
            descent.enter(b"dd").unwrap();
            seen.push(identity(descent.here().unwrap()).unwrap());
        }
        assert!(descent.levels.iter().filter(|level| level.directory.is_some()).count() <= OPEN_MAX);
        while seen.len() > 1 {
            seen.pop();
            descent.leave().unwrap();
            assert_eq!(identity(descent.here().unwrap()).unwrap(), *seen.last().unwrap());
        }
        assert!(descent.enter(b"none").is_err() && descent.enter(b"dd").is_ok());
    }
}
