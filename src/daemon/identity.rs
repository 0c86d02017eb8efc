//! What makes a directory a store: a file that says so, with the format's version.

use crate::error::{Errno, Error, Result};
use crate::media::{Directory, DiskDir, MediaDir};
use crate::shown::shown_file;
use rustix::fs::FileType;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The version of everything that is stored.
pub const FORMAT: u32 = 4;
/// What can be brought over; older formats were never released.
pub(super) const OLDEST: u32 = 3;

const IDENTITY: &str = "store";
/// Far more than it says.
const IDENTITY_BYTES_MAX: u64 = 4096;
const FIRST_LINE: &str = "pitfs store";
/// Files that an interrupted `create` can leave behind.
const OWN_FILES: &[&str] =
    &["lock", "meta.redb", "volume.0", "journal", "reserve", "store.new", FILLING, "filling.new"];
/// Says from what a store is being made that is none yet.
const FILLING: &str = "filling";

/// The directory in which `create` makes a store, and what is to go if that fails.
pub(super) struct Made {
    pub directory: Arc<Directory>,
    /// It was made as well.
    is_new: bool,
    /// What was begun there goes on.
    pub goes_on: bool,
}

impl Made {
    pub(super) fn undo(&self) {
        let path = self.directory.path();
        self.remove_files();
        if self.is_new
            && let Err(error) = std::fs::remove_dir(path)
        {
            log::warn!("{} stays behind: {error}", shown_file(path));
        }
    }

    /// The same of one that was made by an earlier beginning of the same work.
    pub(super) fn undo_as(mut self, is_new: bool) {
        self.is_new = is_new;
        self.undo();
    }

    /// Of this directory, whatever its path leads to by now.
    fn remove_files(&self) {
        for name in OWN_FILES {
            if let Err(error) = self.directory.remove(name) {
                log::warn!("{} stays behind: {error}", shown_file(&self.directory.path().join(name)));
            }
        }
    }
}

/// Makes sure that the directory is there and has nothing in it that is not ours.
pub(super) fn prepare_directory(path: &Path) -> Result<Made> {
    let made = look_at_directory(path)?;
    made.remove_files();
    Ok(made)
}

/// The same, but that what was begun of the same source is left as it is.
pub(super) fn prepare_filling(path: &Path, source: &str) -> Result<Made> {
    let mut made = look_at_directory(path)?;
    let begun = made.directory.read_file(FILLING, IDENTITY_BYTES_MAX);
    made.goes_on = begun.is_ok_and(|begun| begun == source.as_bytes());
    if !made.goes_on {
        made.remove_files();
    }
    Ok(made)
}

/// Notes that a store is being made, which has all but its content.
pub(super) fn note_filling(directory: &Arc<Directory>, source: &str) -> Result<()> {
    let written = DiskDir::of(directory.clone()).replace(FILLING, source.as_bytes());
    written.map_err(|error| Error::media(format!("writing {FILLING}"), error))
}

pub(super) fn end_filling(directory: &Arc<Directory>) -> Result<()> {
    let removed = directory.remove(FILLING).and_then(|()| directory.sync());
    removed.map_err(|error| Error::media(format!("removing {FILLING}"), error))
}

fn look_at_directory(path: &Path) -> Result<Made> {
    let shown = shown_file(path);
    let listing = |error| Error::media(format!("listing {shown}"), error);
    let is_new = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(path).map_err(|error| Error::media(format!("making {shown}"), error))?;
            true
        }
        _ => false,
    };
    let directory = match path.canonicalize().and_then(|path| Directory::open(&path)) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            let text = format!("{shown} is not a directory; a store needs one of its own");
            return Err(Error::Refused(Errno::NOTDIR, text));
        }
        opened => opened.map_err(listing)?,
    };
    // Before what else is there, such as the log of a daemon.
    if directory.look(IDENTITY).map_err(listing)?.is_some() {
        let text = format!(
            "{shown} is a store already; choose another directory, or bring files into it with `pitfs -s {shown} sync SRC`"
        );
        return Err(Error::Refused(Errno::EXIST, text));
    }
    for name in directory.names().map_err(listing)? {
        if !OWN_FILES.iter().any(|own| name == *own) {
            let text = format!(
                "{shown} is not empty (it has {}); a store needs a directory of its own",
                shown_file(name.as_ref())
            );
            return Err(Error::Refused(Errno::NOTEMPTY, text));
        }
    }
    Ok(Made { directory: Arc::new(of_whoever_runs_this(directory)), is_new, goes_on: false })
}

/// Makes the directory a store. The last step of `create`.
pub(super) fn write(directory: &Arc<Directory>) -> Result<()> {
    write_identity(directory, Identity { format: FORMAT, step: Step::None })
}

/// What a store's directory says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub format: u32,
    pub step: Step,
}

/// Where a store is between two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    None,
    /// Its records are being brought to the present format, or may not be there yet.
    Upgrading,
    /// They are, and they can still be brought back.
    Upgraded,
    /// They are being brought back.
    Undoing,
}

impl Step {
    const LINES: [(Step, &str); 3] = [
        (Step::Upgrading, "upgrading from 3"),
        (Step::Upgraded, "upgraded from 3"),
        (Step::Undoing, "going back to 3"),
    ];

    fn line(self) -> Option<&'static str> {
        Step::LINES.iter().find(|(step, _)| *step == self).map(|(_, line)| *line)
    }
}

pub(super) fn write_identity(directory: &Arc<Directory>, identity: Identity) -> Result<()> {
    let mut content = format!("{FIRST_LINE}\nformat {}\n", identity.format);
    content.extend(identity.step.line().into_iter().flat_map(|line| [line, "\n"]));
    DiskDir::of(directory.clone())
        .replace(IDENTITY, content.as_bytes())
        .map_err(|error| Error::media(format!("writing {IDENTITY}"), error))
}

fn no_store(path: &Path) -> Error {
    if path.join(FILLING).is_file() {
        let text = format!(
            "{} is no store yet: one is being made of what a target has; `pitfs create --from-set` goes on with it",
            shown_file(path)
        );
        return Error::Store(text);
    }
    let text = format!(
        "{} is not a pitfs store (it has no file `{IDENTITY}`), and none is mounted there; `pitfs create` makes one, `pitfs \
         mount` shows one",
        shown_file(path)
    );
    Error::Refused(Errno::INVAL, text)
}

/// Whether root opens stores of other users, by which these can have it read and change what is not theirs. Of the whole
/// process, as its user is.
static TRUSTS_OWNERS: AtomicBool = AtomicBool::new(false);

/// From now on root opens stores of other users as well: whoever runs this has asked for it.
pub fn trust_owners() {
    TRUSTS_OWNERS.store(true, Ordering::Relaxed);
}

/// Whether that was asked for.
pub fn trusts_owners() -> bool {
    TRUSTS_OWNERS.load(Ordering::Relaxed)
}

/// Whether a store is that of whoever runs this, or of somebody who is trusted like him.
pub(super) fn is_own(directory: &Directory) -> bool {
    let us = rustix::process::geteuid().as_raw();
    trusts_owners() || directory.look(IDENTITY).is_ok_and(|found| found.is_some_and(|(_, owner)| owner == us))
}

/// Opens the directory of a store, or of one that is to be made. EPERM to root where the store is another user's.
pub(super) fn open_directory(path: &Path) -> Result<Arc<Directory>> {
    let opened = path.canonicalize().and_then(|path| Directory::open(&path));
    let directory = opened.map_err(|error| explain_missing(path, error))?;
    let is_of_anybody = !rustix::process::geteuid().is_root() || trusts_owners();
    match directory.look(IDENTITY) {
        Ok(Some((_, owner))) if owner != 0 && !is_of_anybody => {
            let shown = shown_file(path);
            let text = format!(
                "the store {shown} belongs to user {owner}, who could have root read or change by it what is not his: work on it as \
                 that user or, if you trust him as yourself, with --trust-owner (`-o trust_owner` to mount it)"
            );
            Err(Error::Refused(Errno::PERM, text))
        }
        _ => Ok(Arc::new(of_whoever_runs_this(directory))),
    }
}

/// Of a store that root works on without trusting anybody, others may have the directory, but none of the files in it.
fn of_whoever_runs_this(directory: Directory) -> Directory {
    match (rustix::process::geteuid().is_root(), trusts_owners()) {
        (true, false) => directory.only_of(0),
        (true, true) => directory.giving(),
        (false, _) => directory,
    }
}

fn explain_missing(path: &Path, error: io::Error) -> Error {
    let shown = shown_file(path);
    match error.kind() {
        io::ErrorKind::NotADirectory => no_store(path),
        io::ErrorKind::NotFound => {
            let text = format!("there is no store at {shown}; make one with `pitfs create {shown}`");
            Error::Refused(Errno::NOENT, text)
        }
        _ => Error::media(format!("looking at {shown}"), error),
    }
}

/// Whether a directory says of itself that it is a store.
pub fn is_store(path: &Path) -> bool {
    let content = Directory::open(path).and_then(|directory| directory.read_file(IDENTITY, IDENTITY_BYTES_MAX));
    content.is_ok_and(|content| content.starts_with(FIRST_LINE.as_bytes()))
}

/// Checks that the directory is a store of the format that this program works with.
pub(super) fn check(directory: &Directory) -> Result<()> {
    let shown = shown_file(directory.path());
    match read_identity(directory)? {
        Identity { format: FORMAT, step: Step::None | Step::Upgraded } => Ok(()),
        Identity { format: FORMAT, step: Step::Upgrading | Step::Undoing } => Err(Error::Store(format!(
            "bringing the store {shown} to another format was interrupted; `pitfs upgrade -s {shown}` (or with --undo, back) \
             completes it"
        ))),
        Identity { format, .. } => Err(Error::Store(format!(
            "the store {shown} has format {format}, and this pitfs works with format {FORMAT}; `pitfs upgrade -s {shown}` brings \
             it over, and can be undone"
        ))),
    }
}

/// What the directory says of itself, if it is a store of a format that this program knows.
pub(super) fn read_identity(directory: &Directory) -> Result<Identity> {
    let shown = shown_file(directory.path());
    let file = directory.path().join(IDENTITY);
    let text = match directory.read_file(IDENTITY, IDENTITY_BYTES_MAX) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || directory.kind(IDENTITY).is_ok_and(|kind| kind == Some(FileType::Directory)) =>
        {
            return Err(no_store(directory.path()));
        }
        Err(error) => return Err(Error::media(format!("reading {}", shown_file(&file)), error)),
    };
    let mut lines = text.lines();
    let damaged = || {
        Error::Store(format!(
            "{} is damaged: it should begin with `{FIRST_LINE}` and the format's number",
            shown_file(&file)
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
    let step = lines.next().and_then(|line| Step::LINES.iter().find(|(_, known)| *known == line));
    Ok(Identity { format, step: step.map_or(Step::None, |(step, _)| *step) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever has the directory above can put another one in its place while a store is made.
    #[test]
    fn what_failed_is_undone_in_the_directory_that_was_opened() {
        let dir = tempfile::tempdir().unwrap();
        let (new, other) = (dir.path().join("new"), dir.path().join("other"));
        std::fs::create_dir(&other).unwrap();
        OWN_FILES.iter().for_each(|name| std::fs::write(other.join(name), "precious").unwrap());
        let made = prepare_directory(&new).unwrap();
        made.directory.make_file("meta.redb").unwrap();
        std::fs::rename(&new, dir.path().join("aside")).unwrap();
        std::os::unix::fs::symlink(&other, &new).unwrap();
        made.undo();
        OWN_FILES.iter().for_each(|name| assert_eq!(std::fs::read(other.join(name)).unwrap(), b"precious"));
        assert_eq!(std::fs::read_dir(dir.path().join("aside")).unwrap().count(), 0);
    }
}
