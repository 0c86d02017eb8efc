//! The mounts that this process sees, who uses one, and the end of one whose daemon is gone.

use super::connection::Connection;
use super::mount::unmount_path;
use crate::error::{Errno, Error, Result};
use crate::shown::{Shown, shown, shown_file};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, statx};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What a file system is known by as long as it is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceNo {
    pub major: u32,
    pub minor: u32,
}

impl fmt::Display for DeviceNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl DeviceNo {
    pub fn parse(text: &str) -> Option<DeviceNo> {
        let (major, minor) = text.split_once(':')?;
        Some(DeviceNo { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    pub device: DeviceNo,
    pub at: PathBuf,
    /// The store, unless `-o fsname=` says something else; with `:BASE` behind it if one is shown.
    pub source: PathBuf,
    kind: Vec<u8>,
    /// The user who mounted it, which FUSE file systems tell.
    user: Option<u32>,
}

impl MountInfo {
    pub fn is_pitfs(&self) -> bool {
        self.kind == b"fuse.pitfs"
    }

    /// The type of file system.
    pub fn kind(&self) -> Shown<'_> {
        shown(&self.kind)
    }

    /// Whether it shows this store, as far as its source says so.
    pub fn shows(&self, store: &Path) -> bool {
        let (source, named) = (self.source.as_os_str().as_bytes(), store.as_os_str().as_bytes());
        let is_named = source.strip_prefix(named).is_some_and(|rest| rest.is_empty() || rest[0] == b':');
        self.is_pitfs() && is_named && self.may_show(store)
    }

    /// Whether this user mounted it, with this source.
    pub fn was_made_by_us(&self, source: &str) -> bool {
        let us = rustix::process::geteuid().as_raw();
        self.is_pitfs() && self.source == Path::new(source) && self.user == Some(us)
    }

    /// Whether what its source says of this store is believed: of root, of whoever asks, and of the store's owner. Anybody can
    /// mount something and call it so.
    pub fn may_show(&self, store: &Path) -> bool {
        let owner = || std::fs::metadata(store).ok().map(|found| found.uid());
        let asks = rustix::process::geteuid().as_raw();
        self.user.is_some_and(|user| user == 0 || user == asks || owner() == Some(user))
    }
}

/// The mounts in this process's mount namespace, those on top last.
pub fn mounts() -> Vec<MountInfo> {
    parse(&std::fs::read("/proc/self/mountinfo").unwrap_or_default())
}

/// What is mounted at a directory. Asks nothing of it.
pub fn mount_at(path: &Path) -> Option<MountInfo> {
    let path = without_asking(path)?;
    mounts().into_iter().rev().find(|mount| mount.at == path)
}

/// The mount that a path lies in, as far as that can be told without asking anything of it.
pub fn mount_around(path: &Path) -> Option<MountInfo> {
    let path = std::path::absolute(path).ok()?;
    let around = mounts().into_iter().filter(|mount| path.starts_with(&mount.at));
    // Of several at one place the last is on top.
    around.max_by_key(|mount| mount.at.as_os_str().len())
}

/// An absolute path without links, whose last part is not looked at.
fn without_asking(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    match (path.parent(), path.file_name()) {
        (Some(above), Some(name)) => Some(above.canonicalize().ok()?.join(name)),
        _ => Some(path),
    }
}

fn parse(text: &[u8]) -> Vec<MountInfo> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// `ID PARENT MAJOR:MINOR ROOT PLACE OPTIONS [FIELDS…] - KIND SOURCE OPTIONS`
fn parse_line(line: &[u8]) -> Option<MountInfo> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let device = DeviceNo::parse(std::str::from_utf8(words.get(2)?).ok()?)?;
    let dash = words.iter().position(|word| *word == b"-")?;
    let path = |at: usize| Some(PathBuf::from(OsString::from_vec(unescape(words.get(at)?))));
    let of_system = words.get(dash + 3).copied().unwrap_or_default();
    let user = of_system.split(|byte| *byte == b',').find_map(|option| option.strip_prefix(b"user_id="));
    let user = user.and_then(|user| std::str::from_utf8(user).ok()?.parse().ok());
    Some(MountInfo { device, at: path(4)?, source: path(dash + 2)?, kind: words.get(dash + 1)?.to_vec(), user })
}

/// A way to a mount that leads to no other one, whatever becomes of the directories above.
pub(super) struct Door {
    above: OwnedFd,
    at: PathBuf,
}

impl Door {
    /// To where a file system is mounted now, at this place if it still is there.
    pub(super) fn to(device: DeviceNo, was_at: &Path) -> Option<Door> {
        const TRIES: usize = 100;
        for _ in 0..TRIES {
            // Not mounted any more.
            let at = place_of(device, was_at)?;
            match Door::at(device, at) {
                None => {}
                door => return door,
            }
        }
        None
    }

    /// `None` where something else is at this place.
    fn at(device: DeviceNo, at: PathBuf) -> Option<Door> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let above = rustix::fs::open(at.parent()?, flags, Mode::empty()).ok()?;
        // Of the directory that was opened, not of its name. Nothing is asked of the file system, which may not answer.
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
        let found = statx(&above, at.file_name()?, flags, StatxFlags::empty()).ok()?;
        let is_it = (found.stx_dev_major, found.stx_dev_minor) == (device.major, device.minor);
        is_it.then_some(Door { above, at })
    }

    /// Root goes by the directory that is open. Others have a program of root's do it, which looks for itself where it is.
    pub(super) fn path(&self) -> PathBuf {
        let name = self.at.file_name().unwrap_or_default();
        let above = format!("/proc/{}/fd/{}", std::process::id(), self.above.as_raw_fd());
        if rustix::process::geteuid().is_root() { Path::new(&above).join(name) } else { self.at.clone() }
    }
}

/// Where a file system is mounted now: directories above can have been moved. At this place, if it still is there.
fn place_of(device: DeviceNo, was_at: &Path) -> Option<PathBuf> {
    let mut places: Vec<PathBuf> =
        mounts().into_iter().filter(|mount| mount.device == device).map(|mount| mount.at).collect();
    match places.iter().any(|at| at == was_at) {
        true => Some(was_at.to_path_buf()),
        false => places.pop(),
    }
}

/// Whether something is mounted below a path, as far as this process sees.
pub fn has_mounts_inside(path: &Path) -> bool {
    let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    lies_inside(&mounts, path)
}

/// Whether a line of a `mountinfo` has a mount point below a path.
fn lies_inside(mounts: &[u8], path: &Path) -> bool {
    parse(mounts).iter().any(|mount| mount.at != path && mount.at.starts_with(path))
}

/// Undoes `\040` and its like.
pub fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code.filter(|_| byte == b'\\') {
            Some(code) => {
                out.push(code);
                rest = &after[3..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

/// Ends a mount whose daemon is gone or cannot end: all that waits for it gets an error, and it disappears.
pub fn free(mount: &MountInfo) -> Result<()> {
    if !abort(mount) {
        let text = format!(
            "what waits for the dead mount at {0} cannot be freed by this user; root can do so with `umount -f {0}`",
            shown_file(&mount.at)
        );
        return Err(Error::Refused(Errno::PERM, text));
    }
    // With nobody in it, it went with the connection.
    let Some(door) = Door::to(mount.device, &mount.at) else { return Ok(()) };
    match unmount_path(&door.path(), true) {
        Err(error) if mount_at(&mount.at).as_ref() == Some(mount) => Err(error),
        _ => Ok(()),
    }
}

/// Whether the connection has ended, so that nothing waits for the mount.
fn abort(mount: &MountInfo) -> bool {
    // As long as this holds the mount, its number is no other's.
    let _door = Door::to(mount.device, &mount.at);
    if !mounts().iter().any(|now| (now.device, &now.source) == (mount.device, &mount.source)) {
        return true;
    }
    // A device of no disk has the major number 0.
    Connection(mount.device.minor).switch_off() || force(mount)
}

/// The same where the kernel's switch is not to be had.
pub(super) fn force(mount: &MountInfo) -> bool {
    use rustix::mount::{UnmountFlags, unmount};
    let Some(door) = Door::to(mount.device, &mount.at) else { return true };
    match unmount(door.path(), UnmountFlags::FORCE) {
        // The connection has been aborted in both cases.
        Ok(()) | Err(Errno::BUSY) => true,
        // Nobody waits for what has ended; for others root has to.
        Err(_) => has_ended(mount),
    }
}

/// Whether the kernel answers for a mount that its connection is gone. It may wait for ever where it is not, so
/// nothing waits for the answer longer than this.
fn has_ended(mount: &MountInfo) -> bool {
    const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);
    let (tell, told) = std::sync::mpsc::channel();
    let at = mount.at.clone();
    super::thread::begin_or_tell("statvfs", move || tell.send(rustix::fs::statvfs(&at).err()));
    told.recv_timeout(TIMEOUT).is_ok_and(|error| error == Some(Errno::NOTCONN))
}

/// Somebody who keeps a file system from ending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub process: u32,
    pub name: String,
    /// It sees the mount at this place of its own mount namespace; else it has something open.
    pub sees_at: Option<PathBuf>,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let User { process, name, .. } = self;
        match &self.sees_at {
            Some(at) => {
                write!(f, "process {process} ({name}) has it mounted at {} in its mount namespace", shown_file(at))
            }
            None => write!(f, "process {process} ({name}) stands in it or has something of it open"),
        }
    }
}

/// Who uses a file system, by files or by a mount in another mount namespace, as far as this user may see it. Of each mount
/// namespace one process.
pub fn users(device: DeviceNo) -> Vec<User> {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    let mut known: BTreeSet<_> = namespace("self").into_iter().collect();
    let mut found = Vec::new();
    for process in processes() {
        let name = shown(std::fs::read(format!("/proc/{process}/comm")).unwrap_or_default().trim_ascii()).to_string();
        if let Some(other) = namespace(&process.to_string())
            && known.insert(other)
        {
            let seen = parse(&std::fs::read(format!("/proc/{process}/mountinfo")).unwrap_or_default());
            let at = seen.into_iter().find(|mount| mount.device == device).map(|mount| mount.at);
            if let Some(at) = at {
                found.push(User { process, name, sees_at: Some(at) });
                continue;
            }
        }
        if process != std::process::id() && has_open(process, device) {
            found.push(User { process, name, sees_at: None });
        }
    }
    found
}

fn processes() -> Vec<u32> {
    let Ok(listing) = std::fs::read_dir("/proc") else { return Vec::new() };
    listing.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn has_open(process: u32, device: DeviceNo) -> bool {
    let at = PathBuf::from(format!("/proc/{process}"));
    let files = std::fs::read_dir(at.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut places = ["cwd", "root", "exe"].map(|name| at.join(name)).into_iter().chain(files);
    // Nothing is asked of the file system, which may not answer.
    let is_on = |path: PathBuf| {
        let found = statx(CWD, &path, AtFlags::STATX_DONT_SYNC, StatxFlags::empty());
        found.is_ok_and(|found| (found.stx_dev_major, found.stx_dev_minor) == (device.major, device.minor))
    };
    let is_mapped = || {
        let maps = std::fs::read(at.join("maps")).unwrap_or_default();
        let mark = format!(" {:02x}:{:02x} ", device.major, device.minor);
        maps.windows(mark.len()).any(|window| window == mark.as_bytes())
    };
    places.any(is_on) || is_mapped()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_inside_are_found_by_their_path() {
        let mounts =
            b"1 2 0:3 / /mnt/a\\040b rw - x x rw\n1 2 0:3 / /mnt/a\\040b/live/d rw - x x rw\n9 9 0:9 / /mnt/c rw\n";
        assert!(lies_inside(mounts, Path::new("/mnt/a b")));
        assert!(lies_inside(mounts, Path::new("/mnt")));
        assert!(!lies_inside(mounts, Path::new("/mnt/c")));
        assert!(!lies_inside(mounts, Path::new("/mnt/a")));
        assert!(!lies_inside(b"", Path::new("/")));
    }

    #[test]
    fn mounts_are_read_with_blanks_in_their_names() {
        let text = b"22 1 0:20 / /proc rw shared:5 - proc proc rw\n\
            40 22 0:45 / /a\\040b rw,nosuid - fuse.pitfs /x/s\\134tore:one rw,user_id=0\n\nnonsense\n";
        let found = parse(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].device, DeviceNo { major: 0, minor: 45 });
        assert_eq!((found[1].at.as_path(), found[1].is_pitfs()), (Path::new("/a b"), true));
        assert!(found[1].shows(Path::new("/x/s\\tore")) && !found[1].shows(Path::new("/x/s")));
        assert!(!found[0].is_pitfs());
    }

    #[test]
    fn a_mount_of_a_stranger_shows_no_store() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().to_str().unwrap();
        let shows = |user: u32| {
            let line = format!("40 22 0:45 / /a rw - fuse.pitfs {store} rw,user_id={user},group_id=0\n");
            parse(line.as_bytes())[0].shows(dir.path())
        };
        let own = rustix::process::geteuid().as_raw();
        assert!(shows(0) && shows(own) && !shows(own + 4_000_000));
        let unknown = format!("40 22 0:45 / /a rw - fuse.pitfs {store} rw\n");
        assert!(!parse(unknown.as_bytes())[0].shows(dir.path()));
    }

    #[test]
    fn a_file_of_this_process_tells_the_device() {
        let found = statx(CWD, "/proc/self/cwd", AtFlags::empty(), StatxFlags::empty()).unwrap();
        let device = DeviceNo { major: found.stx_dev_major, minor: found.stx_dev_minor };
        assert!(has_open(std::process::id(), device));
        assert!(!has_open(std::process::id(), DeviceNo { major: 4000, minor: 1 }));
    }
}
