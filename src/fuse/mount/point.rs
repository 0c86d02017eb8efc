//! The directory that a mount covers.

use rustix::fs::{Mode, OFlags, open, openat};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A directory that was looked at, and is covered as what it was then: whoever may move a directory above it cannot have
/// another one covered.
#[derive(Debug)]
pub struct MountPoint {
    /// Without links.
    pub(super) path: PathBuf,
    pub(super) file: OwnedFd,
}

impl MountPoint {
    pub fn open(path: &Path) -> io::Result<MountPoint> {
        let file = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let path = std::fs::read_link(door(&file)).or_else(|_| path.canonicalize())?;
        Ok(MountPoint { path, file })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_empty(&self) -> io::Result<bool> {
        let listed = openat(&self.file, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        for entry in rustix::fs::Dir::new(listed)? {
            if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A path that leads to it whatever becomes of its name; the name, where there is no proc(5).
    pub(super) fn door(&self) -> PathBuf {
        let door = door(&self.file);
        if door.exists() { door } else { self.path.clone() }
    }
}

fn door(file: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_what_it_was_when_its_name_leads_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().canonicalize().unwrap().join(name);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::os::unix::fs::symlink("a", at("link")).unwrap();
        let point = MountPoint::open(&at("link/b")).unwrap();
        assert_eq!(point.path(), at("a/b"));
        assert!(point.is_empty().unwrap());
        std::fs::rename(at("a"), at("moved")).unwrap();
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::write(at("moved/b/file"), "").unwrap();
        assert!(!point.is_empty().unwrap());
        assert!(point.door().join("file").exists() && !point.path().join("file").exists());
        assert_eq!(MountPoint::open(&at("moved/b/file")).unwrap_err().kind(), io::ErrorKind::NotADirectory);
    }
}
