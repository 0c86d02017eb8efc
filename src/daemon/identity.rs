//! What makes a directory a store: a file that says so, with the format's version, and a lock.

use crate::error::{Errno, Error, Result};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The version of everything that is stored.
pub const FORMAT: u32 = 3;
/// Older formats were never released.
const OLDEST: u32 = 3;

const IDENTITY: &str = "store";
const LOCK: &str = "lock";
const FIRST_LINE: &str = "pitfs store";
/// Files that an interrupted `create` can leave behind.
const OWN_FILES: &[&str] = &["lock", "meta.redb", "volume.0", "journal", "reserve", "store.new"];

/// What `create` made itself, to be removed if it fails.
pub(super) struct Made {
    path: PathBuf,
    directory: bool,
}

impl Made {
    pub(super) fn undo(&self) {
        for name in OWN_FILES {
            if let Err(error) = std::fs::remove_file(self.path.join(name))
                && error.kind() != io::ErrorKind::NotFound
            {
                log::warn!("{} stays behind: {error}", self.path.join(name).display());
            }
        }
        if self.directory
            && let Err(error) = std::fs::remove_dir(&self.path)
        {
            log::warn!("{} stays behind: {error}", self.path.display());
        }
    }
}

/// Makes sure that the directory is there and has nothing in it that is not ours.
pub(super) fn prepare_directory(path: &Path) -> Result<Made> {
    let shown = path.display();
    match std::fs::read_dir(path) {
        Ok(entries) => {
            for entry in entries {
                let name = entry.map_err(|error| Error::media(format!("listing {shown}"), error))?.file_name();
                if name == IDENTITY {
                    return Err(Error::Refused(
                        Errno::EXIST,
                        format!(
                            "{shown} is a store already; choose another directory, or bring files into it with `pitfs -s {shown} sync SRC`"
                        ),
                    ));
                }
                if !OWN_FILES.iter().any(|own| name == *own) {
                    return Err(Error::Refused(
                        Errno::NOTEMPTY,
                        format!(
                            "{shown} is not empty (it has {}); a store needs a directory of its own",
                            name.to_string_lossy()
                        ),
                    ));
                }
            }
            let made = Made { path: path.to_path_buf(), directory: false };
            made.undo();
            Ok(made)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(path).map_err(|error| Error::media(format!("making {shown}"), error))?;
            Ok(Made { path: path.to_path_buf(), directory: true })
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(Error::Refused(Errno::NOTDIR, format!("{shown} is not a directory; a store needs one of its own")))
        }
        Err(error) => Err(Error::media(format!("listing {shown}"), error)),
    }
}

/// Makes the directory a store. The last step of `create`.
pub(super) fn write(path: &Path) -> Result<()> {
    use crate::media::{DiskDir, MediaDir};
    let content = format!("{FIRST_LINE}\nformat {FORMAT}\n");
    DiskDir::new(path)
        .replace(IDENTITY, content.as_bytes())
        .map_err(|error| Error::media(format!("writing {IDENTITY}"), error))
}

pub(super) fn explain_missing(path: &Path, error: io::Error) -> Error {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            Error::Store(format!("there is no store at {shown}; make one with `pitfs create {shown}`"))
        }
        _ => Error::media(format!("looking at {shown}"), error),
    }
}

/// Whether a directory says of itself that it is a store.
pub fn is_store(path: &Path) -> bool {
    std::fs::read(path.join(IDENTITY)).is_ok_and(|content| content.starts_with(FIRST_LINE.as_bytes()))
}

/// Checks that the directory is a store of a format that this program knows.
pub(super) fn check(path: &Path) -> Result<()> {
    let shown = path.display();
    let file = path.join(IDENTITY);
    let text = match std::fs::read(&file) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory
            ) =>
        {
            return Err(Error::Store(format!(
                "{shown} is not a pitfs store (it has no file `{IDENTITY}`); `pitfs create` makes one"
            )));
        }
        Err(error) => return Err(Error::media(format!("reading {}", file.display()), error)),
    };
    let mut lines = text.lines();
    let damaged = || {
        Error::Store(format!(
            "{} is damaged: it should begin with `{FIRST_LINE}` and the format's number",
            file.display()
        ))
    };
    if lines.next() != Some(FIRST_LINE) {
        return Err(damaged());
    }
    let format: u32 = lines.next().and_then(|line| line.strip_prefix("format ")?.parse().ok()).ok_or_else(damaged)?;
    if format > FORMAT {
        return Err(Error::Store(format!(
            "the store {shown} has format {format}; this pitfs knows formats up to {FORMAT}; use a newer pitfs"
        )));
    }
    if format == 0 {
        return Err(damaged());
    }
    if format < OLDEST {
        return Err(Error::Store(format!(
            "the store {shown} has format {format}, which no released pitfs has made; copy what is in it to a new store with the pitfs that made it"
        )));
    }
    Ok(())
}

const MOUNTED_AT: &str = "mounted at ";
const WAIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Whether the holder of a lock, by its note, has the store mounted.
fn is_shown(note: &str) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mount_point = note.lines().find_map(|line| line.strip_prefix(MOUNTED_AT));
    mount_point
        .is_some_and(|path| mounts.lines().any(|line| line.split(' ').nth(4) == Some(&path.replace(' ', "\\040"))))
}

/// The right to open a store; one holder at a time.
pub(super) struct Lock {
    file: File,
}

impl Lock {
    pub(super) fn take(path: &Path) -> Result<Lock> {
        let name = path.join(LOCK);
        let failed = |error| Error::media(format!("locking {}", name.display()), error);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&name)
            .map_err(failed)?;
        let start = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) => {
                    let mut holder = String::new();
                    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut holder)).map_err(failed)?;
                    // Whoever has it but shows it nowhere is about to end, or a short command.
                    if is_shown(&holder) || start.elapsed() > WAIT {
                        let holder = match holder.trim() {
                            "" => "another process".to_string(),
                            holder => holder.replace('\n', ", "),
                        };
                        return Err(Error::Store(format!("the store {} is in use by {holder}", path.display())));
                    }
                    std::thread::sleep(POLL);
                }
                Err(error) => return Err(failed(error.into())),
            }
        }
        let lock = Lock { file };
        lock.write(&format!("process {}\n", std::process::id()));
        Ok(lock)
    }

    pub(super) fn note_mount_point(&self, mount_point: &Path) {
        self.write(&format!("process {}\n{MOUNTED_AT}{}\n", std::process::id(), mount_point.display()));
    }

    fn write(&self, text: &str) {
        let mut file = &self.file;
        let written =
            file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).and_then(|_| file.write_all(text.as_bytes()));
        // On a full disk the note is missing; the lock holds all the same.
        if let Err(error) = written {
            log::warn!("the lock file could not be written: {error}");
        }
    }
}
