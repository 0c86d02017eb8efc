//! Who has a store open, and what for: a lock, and a note in the locked file.
//!
//! ```text
//! free ──take──▶ Command ──────────────────────────────▶ free
//!        └─────▶ Starting ──▶ Mounted ──▶ Closing ──▶ Closed or Failed, free
//!                    └──────────────────────▲
//! ```
//!
//! The lock alone counts. Whoever is killed leaves its note behind.

use crate::error::{Errno, Error, Result};
use crate::fuse::{DeviceNo, MountInfo, mounts, unescape};
use crate::media::{Access, Directory};
use crate::proc;
use crate::shown::shown_file;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LOCK: &str = "lock";

/// How long a command, or somebody who shows the store nowhere, is waited for.
const WAIT: Duration = Duration::from_secs(10);
/// How long one is waited for that has it mounted, since the mount may just be ending.
const WAIT_FOR_MOUNT: Duration = Duration::from_secs(1);
/// After this it is said what is waited for.
const SILENCE: Duration = Duration::from_secs(3);
/// A path, and a few words.
const NOTE_BYTES_MAX: u64 = 16 << 10;
const POLL: Duration = Duration::from_millis(20);
const POLL_FIRST: Duration = Duration::from_millis(1);

/// What a store is open for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    Command,
    Starting,
    Mounted {
        at: PathBuf,
        device: Option<DeviceNo>,
    },
    Closing,
    Closed,
    /// It was not closed well; in words.
    Failed(String),
}

/// Who has a store open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// By its own account; in another PID namespace it has another number here.
    pub process: Option<u32>,
    pub uses: Use,
    /// The number here, if it was killed and has not ended.
    pub is_ending: Option<u32>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.process {
            Some(process) => write!(f, "process {process}")?,
            None => write!(f, "another process")?,
        }
        match &self.uses {
            Use::Command | Use::Closed | Use::Failed(_) => Ok(()),
            Use::Starting => write!(f, ", which opens it to mount it"),
            Use::Mounted { at, .. } => write!(f, ", mounted at {}", shown_file(at)),
            Use::Closing => write!(f, ", which writes what is left and closes it"),
        }
    }
}

const PROCESS: &str = "process ";
const STARTING: &str = "starting";
const MOUNTED: &str = "mounted at ";
const DEVICE: &str = "device ";
const CLOSING: &str = "closing";
const CLOSED: &str = "closed";
const FAILED: &str = "failed: ";

impl Use {
    fn write(&self) -> Vec<u8> {
        let line = |text: &str| format!("{text}\n").into_bytes();
        match self {
            Use::Command => Vec::new(),
            Use::Starting => line(STARTING),
            Use::Mounted { at, device } => {
                let mut text = [MOUNTED.as_bytes(), &escape(at.as_os_str().as_bytes()), b"\n"].concat();
                if let Some(device) = device {
                    text.extend(line(&format!("{DEVICE}{device}")));
                }
                text
            }
            Use::Closing => line(CLOSING),
            Use::Closed => line(CLOSED),
            Use::Failed(why) => line(&format!("{FAILED}{}", why.replace('\n', " "))),
        }
    }

    fn read(lines: &[&[u8]]) -> Use {
        let behind = |start: &str| lines.iter().find_map(|line| line.strip_prefix(start.as_bytes()));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if let Some(at) = behind(MOUNTED) {
            let device = behind(DEVICE).and_then(|device| DeviceNo::parse(&text(device)));
            return Use::Mounted { at: PathBuf::from(OsString::from_vec(unescape(at))), device };
        }
        if let Some(why) = behind(FAILED) {
            return Use::Failed(text(why));
        }
        let is = |word: &str| lines.contains(&word.as_bytes());
        match () {
            () if is(STARTING) => Use::Starting,
            () if is(CLOSING) => Use::Closing,
            () if is(CLOSED) => Use::Closed,
            () => Use::Command,
        }
    }
}

/// A path on one line.
fn escape(path: &[u8]) -> Vec<u8> {
    path.iter()
        .flat_map(|byte| match byte {
            b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
            byte => vec![*byte],
        })
        .collect()
}

fn read_note(mut file: &File) -> std::io::Result<(Option<u32>, Use)> {
    let mut note = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(NOTE_BYTES_MAX).read_to_end(&mut note)?;
    let lines: Vec<&[u8]> = note.split(|byte| *byte == b'\n').collect();
    let process = lines.iter().find_map(|line| line.strip_prefix(PROCESS.as_bytes()));
    let process = process.and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
    Ok((process, Use::read(&lines)))
}

/// What the last note says, whether whoever wrote it is there or not.
pub fn last_use(store: &Path) -> Result<Use> {
    let failed = |error| Error::media(format!("reading {}", shown_file(&store.join(LOCK))), error);
    let file = open_to_look(store).map_err(failed)?;
    Ok(read_note(&file).map_err(failed)?.1)
}

/// The lock of a store, not taken.
fn open_to_look(store: &Path) -> std::io::Result<File> {
    Directory::open(store)?.open_file(LOCK, Access::Read)
}

/// Who has a store open now.
pub fn holder(store: &Path) -> Result<Option<Holder>> {
    let name = store.join(LOCK);
    let failed = |error| Error::media(format!("looking at {}", shown_file(&name)), error);
    let file = match open_to_look(store) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    // Whoever wants the lock at this moment tries again.
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(Errno::WOULDBLOCK) => {
            let (process, uses) = read_note(&file).map_err(failed)?;
            let is_alive = process.is_some_and(|process| has_open(process, &file));
            let holding = if is_alive { None } else { holding_process(&file) };
            let is_ending = holding.filter(|process| was_killed(*process));
            Ok(Some(Holder { process, uses, is_ending }))
        }
        Err(error) => Err(failed(error.into())),
    }
}

/// The process that has a store open, where it can be seen here, to wait for its end.
pub fn holding(store: &Path) -> Option<OwnedFd> {
    let file = open_to_look(store).ok()?;
    let number = read_note(&file).ok()?.0?;
    let process = pidfd_open(Pid::from_raw(i32::try_from(number).ok()?)?, PidfdFlags::empty()).ok()?;
    // Looked at last, so that it is no other with the same number.
    has_open(number, &file).then_some(process)
}

/// Waits until a process has ended, with all that it had open; not longer than this.
pub fn wait_for(process: &OwnedFd, longest: Duration) {
    let ended = &mut [PollFd::new(process, PollFlags::IN)];
    let longest = Timespec { tv_sec: longest.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: 0 };
    while rustix::event::poll(ended, Some(&longest)) == Err(Errno::INTR) {}
}

/// Whether a process, by its number here, has a file open. Of one that was killed that is not known.
fn has_open(process: u32, file: &File) -> bool {
    let Ok(known) = file.metadata() else { return false };
    let files = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    // To look at others could wait for what they are on.
    let locks =
        files.filter(|found| found.path().read_link().is_ok_and(|path| path.file_name() == Some(LOCK.as_ref())));
    let is_same = |of: Metadata| (of.dev(), of.ino()) == (known.dev(), known.ino());
    locks.filter_map(|found| std::fs::metadata(found.path()).ok()).any(is_same)
}

/// The process that has a file locked, by its number here, as far as the kernel tells. That takes the kernel some
/// milliseconds, in which nobody else gets a lock.
fn holding_process(file: &File) -> Option<u32> {
    let number = file.metadata().ok()?.ino().to_string();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    // `1: FLOCK  ADVISORY  WRITE 4711 fe:01:131 0 EOF`
    let mut found = locks.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", process, file, ..] = words.as_slice() else { return None };
        (file.rsplit(':').next()? == number).then(|| process.parse().ok())
    });
    // Another file system may have a locked file of that number, and its device is not told alike everywhere.
    match (found.next(), found.next()) {
        (Some(process), None) => process,
        _ => None,
    }
}

/// Whether somebody has a store open that can only be read, as far as the kernel tells.
pub fn is_read(store: &Path) -> bool {
    let Ok(number) = open_to_look(store).and_then(|file| file.metadata()).map(|found| found.ino().to_string()) else {
        return false;
    };
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    locks.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        matches!(words.as_slice(), [_, "FLOCK", _, "READ", _, file, ..] if file.rsplit(':').next() == Some(&number))
    })
}

/// Whether the first thread of a process has ended while others have not: it was killed, and they wait for something.
fn was_killed(process: u32) -> bool {
    matches!(proc::field(process, proc::STATE), Some('Z' | 'X'))
}

/// Waits until it is worth looking again for who has been waited for this long: what ends at once is not waited for long.
pub fn wait_a_moment(waited: Duration) {
    std::thread::sleep((waited / 4).clamp(POLL_FIRST, POLL));
}

/// Waits for a store that somebody else has open, for as long as that makes sense.
pub struct Patience<'a> {
    store: &'a Path,
    start: Instant,
    has_told: bool,
}

impl<'a> Patience<'a> {
    pub fn new(store: &'a Path) -> Patience<'a> {
        Patience { store, start: Instant::now(), has_told: false }
    }

    /// Waits a moment. An error in words where it would be in vain.
    pub fn pause(&mut self) -> Result<()> {
        wait_a_moment(self.start.elapsed());
        let waited = self.start.elapsed();
        let shown = shown_file(self.store);
        let Some(holder) = holder(self.store)? else {
            if waited > WAIT && is_read(self.store) {
                let text = format!(
                    "the store {shown} is being read, by a command such as `pitfs check` or through a read-only mount of it"
                );
                return Err(Error::Refused(Errno::BUSY, text));
            }
            return Ok(());
        };
        if holder.is_ending.is_some() && waited > WAIT_FOR_MOUNT {
            let text = format!(
                "the store {shown} is in use by {holder}, which was killed and cannot end; `pitfs umount {shown}` frees it"
            );
            return Err(Error::Refused(Errno::BUSY, text));
        }
        let is_worth_it = match &holder.uses {
            Use::Starting | Use::Closing | Use::Closed | Use::Failed(_) => true,
            Use::Command => waited < WAIT,
            Use::Mounted { at, .. } => waited < if is_shown(at) { WAIT_FOR_MOUNT } else { WAIT },
        };
        if !is_worth_it {
            return Err(Error::Refused(Errno::BUSY, format!("the store {shown} is in use by {holder}")));
        }
        if waited > SILENCE && !std::mem::replace(&mut self.has_told, true) {
            log::warn!("waiting for the store {shown}, which is in use by {holder}");
        }
        Ok(())
    }
}

/// The store that a mount shows, as far as its source says so: with the base behind a colon, where it shows one.
pub fn store_of(mount: &MountInfo) -> Option<PathBuf> {
    let source = mount.source.as_os_str().as_bytes();
    let before_base = source.iter().rposition(|byte| *byte == b':').map(|at| &source[..at]);
    let mut stores =
        [Some(source), before_base].into_iter().flatten().map(|path| Path::new(std::ffi::OsStr::from_bytes(path)));
    stores.find(|path| super::is_store(path) && mount.may_show(path)).map(Path::to_path_buf)
}

/// Whether nobody serves a mount any more; nothing where its source is no store, as `-o fsname=` can have it. Asks
/// nothing of the mount.
pub fn is_dead(mount: &MountInfo) -> Option<bool> {
    if !mount.is_pitfs() {
        return Some(false);
    }
    let store = store_of(mount)?;
    match holder(&store).ok()? {
        None => Some(!is_read(&store)),
        Some(Holder { is_ending: Some(_), .. }) => Some(true),
        Some(Holder { uses: Use::Mounted { device: Some(device), .. }, .. }) => Some(device != mount.device),
        // Of a command, or of one that begins and has found this.
        Some(Holder { uses: Use::Command | Use::Starting, .. }) => Some(true),
        Some(_) => Some(false),
    }
}

fn is_shown(at: &Path) -> bool {
    mounts().iter().any(|mount| mount.at == at)
}

/// The right to open a store: one holder at a time, or any number that only read it.
pub struct Lock {
    file: File,
    directory: Arc<Directory>,
    is_shared: bool,
    /// Nothing can be written where the store is.
    is_unwritable: bool,
}

impl Lock {
    /// Takes the lock if nobody has it.
    pub fn try_take(directory: &Arc<Directory>, uses: &Use) -> Result<Option<Lock>> {
        let name = directory.path().join(LOCK);
        let (locked, is_shared) = match directory.try_lock(LOCK) {
            Err(error) if cannot_be_written(&error) => (directory.try_lock_shared(LOCK), true),
            locked => (locked, false),
        };
        let locked = locked.map_err(|error| Error::media(format!("locking {}", shown_file(&name)), error))?;
        let Some(file) = locked else { return Ok(None) };
        let lock = Lock { file, directory: directory.clone(), is_shared, is_unwritable: is_shared };
        lock.note(uses);
        Ok(Some(lock))
    }

    /// Takes the lock to read the store, beside others who do, if nobody changes it.
    pub fn try_share(directory: &Arc<Directory>) -> Result<Option<Lock>> {
        // Whoever makes the file would not see who has locked the directory in its place.
        if directory.kind(LOCK).is_ok_and(|kind| kind.is_none()) {
            return Lock::try_take(directory, &Use::Command);
        }
        let name = directory.path().join(LOCK);
        let failed = |error| Error::media(format!("locking {}", shown_file(&name)), error);
        let Some(file) = directory.try_lock_shared(LOCK).map_err(failed)? else { return Ok(None) };
        let is_unwritable = directory.open_file(LOCK, Access::ReadWrite).is_err_and(|error| cannot_be_written(&error));
        Ok(Some(Lock { file, directory: directory.clone(), is_shared: true, is_unwritable }))
    }

    pub fn take(directory: &Arc<Directory>, uses: &Use) -> Result<Lock> {
        let mut patience = Patience::new(directory.path());
        loop {
            if let Some(lock) = Lock::try_take(directory, uses)? {
                return Ok(lock);
            }
            patience.pause()?;
        }
    }

    pub fn store(&self) -> &Path {
        self.directory.path()
    }

    /// Whether the store can only be read, beside others who read it.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Whether nothing can be written where the store is.
    pub fn is_unwritable(&self) -> bool {
        self.is_unwritable
    }

    /// The store's directory, which stays that whatever its path leads to meanwhile.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Says what the store is open for.
    pub fn note(&self, uses: &Use) {
        // There is nowhere to say it.
        if self.is_shared {
            return;
        }
        let text = [format!("{PROCESS}{}\n", std::process::id()).as_bytes(), &uses.write()].concat();
        let mut file = &self.file;
        let written = file
            .seek(SeekFrom::Start(0))
            .and_then(|_| file.write_all(&text))
            .and_then(|()| file.set_len(text.len() as u64));
        // On a full disk the note is missing; the lock holds all the same.
        if let Err(error) = written {
            log::warn!("the lock file could not be written: {error}");
        }
    }
}

/// Whether it is no matter of this file, but of a medium, or of a user, that nothing can be written by.
fn cannot_be_written(error: &std::io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ROFS | Errno::ACCESS | Errno::PERM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Arc::new(Directory::open(dir.path()).unwrap());
        let lock = Lock::take(&directory, &Use::Starting).unwrap();
        let at = PathBuf::from(OsString::from_vec(b"/a b/\xff\n\\040".to_vec()));
        let device = DeviceNo::parse("0:45");
        for uses in [
            Use::Command,
            Use::Starting,
            Use::Mounted { at: at.clone(), device },
            Use::Mounted { at, device: None },
            Use::Closing,
            Use::Closed,
            Use::Failed("no room".into()),
        ] {
            lock.note(&uses);
            assert_eq!(last_use(dir.path()).unwrap(), uses);
            let found = holder(dir.path()).unwrap().unwrap();
            assert_eq!((found.process, found.uses), (Some(std::process::id()), uses));
        }
        assert!(Lock::try_take(&directory, &Use::Command).unwrap().is_none());
        assert_eq!(holding_process(&lock.file), Some(std::process::id()));
        drop(lock);
        assert_eq!(holder(dir.path()).unwrap(), None);
    }
}
