//! The directory of an archive: opened once for each command, so that what was looked at is what is used.

use super::refused;
use crate::error::{Errno, Error, Result};
use crate::media::Directory;
use crate::shown::shown_file;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, unlinkat};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The directory at a path; `None` where there is none.
pub(in crate::daemon) fn open_there(path: &Path) -> Result<Option<Arc<Directory>>> {
    match Directory::open(path) {
        Ok(directory) => Ok(Some(Arc::new(directory))),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Error::media(format!("opening {}", shown_file(path)), error)),
    }
}

/// That nothing is where there is no directory.
pub(in crate::daemon) fn check_nothing_at(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(_) if path.exists() => Err(no_directory(path)),
        Ok(_) => Err(leads_nowhere(path)),
        Err(_) => Ok(()),
    }
}

fn no_directory(path: &Path) -> Error {
    refused(Errno::NOTDIR, format!("{} is no directory; an archive needs one of its own", shown_file(path)))
}

/// What is there may be below a disk that is mounted later.
pub(in crate::daemon) fn leads_nowhere(path: &Path) -> Error {
    let text = format!(
        "{} is or has a symbolic link to what is not there, and nothing is made at its end; is its disk mounted? If it is, make the \
         directory, or give the path without the link",
        shown_file(path)
    );
    refused(Errno::NOENT, text)
}

/// The directory for an archive, and what was made for it.
pub(in crate::daemon) struct Place {
    pub directory: Arc<Directory>,
    /// Each with the one above it, the outermost first.
    made: Vec<(File, OsString)>,
}

impl Place {
    /// Opens a directory, or makes it with those above it.
    pub(in crate::daemon) fn open_or_make(path: &Path) -> Result<Place> {
        if let Some(directory) = open_there(path)? {
            return Ok(Place { directory, made: Vec::new() });
        }
        check_nothing_at(path)?;
        let mut made = Vec::new();
        let opened = make(deepest(path)?, &mut made).and_then(|file| Directory::of(file, path));
        match opened {
            Ok(directory) => Ok(Place { directory: Arc::new(directory), made }),
            Err(error) => {
                remove(made);
                Err(Error::media(format!("making {}", shown_file(path)), error))
            }
        }
    }

    /// Takes away what was made, as far as nothing is in it.
    pub(in crate::daemon) fn give_up(self) {
        remove(self.made);
    }
}

/// The deepest directory on the way to a path that is there, and the names that are missing below it.
fn deepest(path: &Path) -> Result<(File, Vec<&OsStr>)> {
    let mut missing = Vec::new();
    let mut at = path;
    loop {
        // It need not be one that may be read.
        match openat(CWD, at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(directory) => {
                missing.reverse();
                return Ok((directory.into(), missing));
            }
            Err(errno) => match (errno, at.parent(), at.file_name()) {
                (Errno::NOENT, Some(above), Some(name)) => {
                    missing.push(name);
                    at = above;
                }
                _ => return Err(Error::media(format!("opening {}", shown_file(at)), errno.into())),
            },
        }
    }
}

/// Makes directories, each in the one before, and opens the last.
fn make((mut above, missing): (File, Vec<&OsStr>), made: &mut Vec<(File, OsString)>) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for name in missing {
        match mkdirat(&above, name, Mode::from_raw_mode(0o777)) {
            Ok(()) => made.push((above.try_clone()?, name.to_os_string())),
            // Somebody else was faster.
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        above = openat(&above, name, flags | OFlags::PATH, Mode::empty())?.into();
    }
    Ok(openat(&above, ".", flags | OFlags::RDONLY, Mode::empty())?.into())
}

fn remove(made: Vec<(File, OsString)>) {
    for (above, name) in made.into_iter().rev() {
        // What has something in it is not ours any more, nor are those above it.
        if unlinkat(above, &name, AtFlags::REMOVEDIR).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_was_made_goes_again_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        let make = |path: &str| Place::open_or_make(&at(path)).unwrap();
        fs::create_dir(at("there")).unwrap();
        make("there").give_up();
        make("there/a/b/c").give_up();
        assert_eq!(fs::read_dir(at("there")).unwrap().count(), 0);
        let place = make("there/a/b/c");
        assert!(place.directory.is_there());
        fs::write(at("there/a/mine"), "").unwrap();
        place.give_up();
        assert!(at("there/a/mine").exists() && !at("there/a/b").exists());
        // Where somebody has put a link in the place of a directory above.
        let place = make("there/new/deep");
        fs::create_dir_all(at("victim/new/deep")).unwrap();
        fs::rename(at("there"), at("away")).unwrap();
        symlink(at("victim"), at("there")).unwrap();
        assert!(!place.directory.is_there());
        place.give_up();
        assert!(at("victim/new/deep").exists() && at("away/a/mine").exists() && !at("away/new").exists());
    }

    #[test]
    fn what_is_no_directory_is_said_and_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::write(at("file"), "").unwrap();
        symlink(at("none"), at("dangling")).unwrap();
        symlink(at("file"), at("to-file")).unwrap();
        for (path, words) in [
            ("file", "is no directory"),
            ("to-file", "is no directory"),
            ("dangling", "symbolic link to what is not there"),
            ("file/below", "Not a directory"),
            ("dangling/below", "making"),
        ] {
            let said = Place::open_or_make(&at(path)).err().unwrap().to_string();
            assert!(said.contains(words), "{path}: {said}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
