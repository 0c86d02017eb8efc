//! Making a directory of `live` equal to one outside the store.
//!
//! A source file whose device, inode number, size, modification and change times are those noted when it
//! was brought in is skipped, unless its copy was changed since. A changed file is compared track by
//! track, and only tracks that differ are written. What is not in the source any more is removed.

use super::copy_out::encode_device;
use super::{Daemon, OnProgress, Progress};
use crate::clock::Timestamp;
use crate::device::{InodeNo, Moment};
use crate::error::{Errno, Error, Result};
use crate::fuse::Notify;
use crate::tree::{Caller, Change, Inode, Kind, New, Origin, ROOT, SetMode, SetTime, Tree};
use rustix::fs::SeekFrom;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What to bring in.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SyncOptions {
    /// An absolute path.
    pub source: PathBuf,
    /// A path in `live`; empty for its root.
    #[serde(with = "serde_bytes")]
    pub destination: Vec<u8>,
    /// Patterns: with a slash for the path from the source, without for the last name.
    pub exclude: Vec<String>,
    pub dry_run: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncReport {
    pub added: u64,
    pub changed: u64,
    pub removed: u64,
    pub unchanged: u64,
    /// Bytes that were read, and bytes that had to be written.
    pub read_bytes: u64,
    pub written_bytes: u64,
    /// With a dry run: what would be done, a line each.
    pub planned: Vec<String>,
    /// What could not be read, each with the reason.
    pub problems: Vec<String>,
}

impl Daemon {
    pub fn sync(&self, options: &SyncOptions, progress: OnProgress<'_>) -> Result<SyncReport> {
        let Some(_syncing) = self.syncing.try_lock() else {
            return Err(Error::Refused(Errno::BUSY, "another sync of this store is running; wait for its end".into()));
        };
        let shown = options.source.display().to_string();
        let metadata =
            std::fs::metadata(&options.source).map_err(|error| Error::media(format!("looking at {shown}"), error))?;
        if !metadata.is_dir() {
            return Err(Error::Refused(Errno::NOTDIR, format!("{shown} is not a directory")));
        }
        let exclude = options.exclude.iter().map(|pattern| Pattern::parse(pattern)).collect::<Result<_>>()?;
        let own = [Some(self.path.clone()), self.mount_point()];
        let own = own
            .into_iter()
            .flatten()
            .filter_map(|path| path.metadata().ok().map(|found| (found.dev(), found.ino())))
            .collect();
        let mut sync = Sync {
            tree: self.views.tree(),
            notify: self.notify(),
            dry_run: options.dry_run,
            exclude,
            owner: Owner::of_this_process(),
            own,
            names: HashMap::new(),
            report: SyncReport::default(),
            progress,
        };
        if sync.own.contains(&(metadata.dev(), metadata.ino())) {
            return Err(Error::Refused(Errno::INVAL, format!("{shown} is the store itself or its mount point")));
        }
        let target = sync.destination(&options.destination)?;
        sync.directory(&options.source, Path::new(""), target)?;
        if let Some(target) = target {
            sync.attributes(&options.source, &metadata, target)?;
        }
        self.views.tree().commit()?;
        Ok(sync.report)
    }
}

/// A pattern of `--exclude`.
struct Pattern {
    pattern: glob::Pattern,
    is_path: bool,
}

impl Pattern {
    fn parse(text: &str) -> Result<Pattern> {
        let trimmed = text.trim_matches('/');
        let pattern = glob::Pattern::new(trimmed)
            .map_err(|error| Error::Refused(Errno::INVAL, format!("--exclude {text}: {}", error.msg)))?;
        Ok(Pattern { pattern, is_path: trimmed.contains('/') || text.starts_with('/') })
    }

    fn matches(&self, relative: &Path) -> bool {
        if self.is_path {
            return self.pattern.matches_path(relative);
        }
        relative.file_name().is_some_and(|name| self.pattern.matches(&name.to_string_lossy()))
    }
}

struct Sync<'a> {
    tree: &'a Tree,
    notify: Option<Notify>,
    dry_run: bool,
    exclude: Vec<Pattern>,
    owner: Owner,
    /// Directories that must not be brought into themselves.
    own: Vec<(u64, u64)>,
    /// Source files with several names: where the first one went.
    names: HashMap<(u64, u64), InodeNo>,
    report: SyncReport,
    progress: OnProgress<'a>,
}

/// Whose the copies are: root keeps every owner; anybody else could not use files of others.
pub enum Owner {
    Kept,
    Ours { uid: u32, groups: Vec<u32> },
}

impl Owner {
    pub fn of_this_process() -> Owner {
        let uid = rustix::process::geteuid();
        if uid.is_root() {
            return Owner::Kept;
        }
        let mut groups = vec![rustix::process::getegid().as_raw()];
        groups.extend(rustix::process::getgroups().unwrap_or_default().iter().map(|gid| gid.as_raw()));
        Owner::Ours { uid: uid.as_raw(), groups }
    }

    /// The owner and the group that a copy gets.
    pub fn of(&self, metadata: &Metadata) -> (u32, u32) {
        match self {
            Owner::Kept => (metadata.uid(), metadata.gid()),
            Owner::Ours { uid, groups } if groups.contains(&metadata.gid()) => (*uid, metadata.gid()),
            Owner::Ours { uid, groups } => (*uid, groups[0]),
        }
    }
}

/// What the source has at one name.
struct Found<'a> {
    path: PathBuf,
    relative: PathBuf,
    name: &'a OsStr,
    metadata: Metadata,
    kind: Kind,
}

const MAKER: Caller = Caller { uid: 0, gid: 0, umask: 0 };

impl Sync<'_> {
    /// The directory of `live` to fill, made where it is missing; `None` if a dry run would make it.
    fn destination(&mut self, path: &[u8]) -> Result<Option<InodeNo>> {
        if path.split(|&byte| byte == b'/').any(|name| name == b"..") {
            let path = String::from_utf8_lossy(path).into_owned();
            let text = format!("the destination {path:?} has to be a path below live, without `..`");
            return Err(Error::Refused(Errno::INVAL, text));
        }
        let mut at = ROOT;
        for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
            at = match self.tree.lookup(at, name, Moment::Live) {
                Ok((inode, found)) if found.is_directory() => inode,
                Ok(_) => {
                    let path = String::from_utf8_lossy(path).into_owned();
                    return Err(Error::Refused(Errno::NOTDIR, format!("{path:?} in live is not a directory")));
                }
                Err(Error::Posix(Errno::NOENT)) if self.dry_run => return Ok(None),
                Err(Error::Posix(Errno::NOENT)) => {
                    let new = New { kind: Kind::Directory, permissions: 0o755, rdev: 0, target: b"" };
                    let (inode, _) = self.tree.make(MAKER, at, name, new)?;
                    self.entry_changed(at, name);
                    inode
                }
                Err(error) => return Err(error),
            };
        }
        Ok(Some(at))
    }

    fn entry_changed(&self, directory: InodeNo, name: &[u8]) {
        if let Some(notify) = &self.notify {
            notify.entry_changed(directory, name);
        }
    }

    fn inode_changed(&self, inode: InodeNo) {
        if let Some(notify) = &self.notify {
            notify.inode_changed(inode);
        }
    }

    fn is_excluded(&self, relative: &Path) -> bool {
        self.exclude.iter().any(|pattern| pattern.matches(relative))
    }

    fn problem(&mut self, path: &Path, error: impl std::fmt::Display) {
        self.report.problems.push(format!("{}: {error}", path.display()));
    }

    fn plan(&mut self, what: &str, relative: &Path) {
        if self.dry_run {
            self.report.planned.push(format!("{what} {}", relative.display()));
        }
    }

    /// Makes a directory's content equal to the source's. Without a target, all of it is new.
    fn directory(&mut self, source: &Path, relative: &Path, target: Option<InodeNo>) -> Result<()> {
        let entries = match std::fs::read_dir(source).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            Err(error) => {
                // What cannot be listed is left as it is: it is not known to be gone.
                self.problem(source, error);
                return Ok(());
            }
        };
        let mut existing: HashMap<OsString, (InodeNo, Inode)> = HashMap::new();
        if let Some(target) = target {
            self.tree.list_with_inodes(target, 0, Moment::Live, |entry, found| {
                existing.insert(OsString::from_vec(entry.name.clone()), (entry.inode, found.clone()));
                Ok(true)
            })?;
        }
        for entry in entries {
            let name = entry.file_name();
            let relative = relative.join(&name);
            let before = existing.remove(&name);
            if self.is_excluded(&relative) {
                continue;
            }
            let path = entry.path();
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) => {
                    self.problem(&path, error);
                    continue;
                }
            };
            let Some(kind) = Kind::from_mode(metadata.mode()) else { continue };
            if kind == Kind::Directory && self.own.contains(&(metadata.dev(), metadata.ino())) {
                continue;
            }
            self.one(Found { path, relative, name: &name, metadata, kind }, target, before)?;
        }
        for (name, (inode, found)) in existing {
            if let Some(target) = target {
                self.remove(target, &name, &relative.join(&name), inode, &found)?;
            }
        }
        Ok(())
    }

    fn one(&mut self, found: Found<'_>, parent: Option<InodeNo>, before: Option<(InodeNo, Inode)>) -> Result<()> {
        let mut before = before;
        if let (Some((inode, old)), Some(parent)) = (&before, parent)
            && !self.is_same_object(&found, *inode, old)?
        {
            if !self.remove(parent, found.name, &found.relative, *inode, old)? {
                self.problem(&found.path, "a directory of that name holds excluded files and stays");
                return Ok(());
            }
            before = None;
        }
        let linked = (found.kind != Kind::Directory && found.metadata.nlink() > 1)
            .then(|| self.names.get(&(found.metadata.dev(), found.metadata.ino())).copied())
            .flatten();
        let is_new = before.is_none();
        let target = match (before, parent) {
            (Some((inode, _)), _) => Some(inode),
            (None, _) if self.dry_run => None,
            (None, None) => None,
            (None, Some(parent)) => match linked {
                Some(first) => {
                    self.tree.link(first, parent, found.name.as_bytes())?;
                    self.entry_changed(parent, found.name.as_bytes());
                    self.inode_changed(first);
                    self.report.added += 1;
                    return Ok(());
                }
                None => match self.make(&found, parent)? {
                    Some(inode) => Some(inode),
                    None => return Ok(()),
                },
            },
        };
        if let (Some(inode), true) = (target, found.metadata.nlink() > 1 && found.kind != Kind::Directory) {
            self.names.insert((found.metadata.dev(), found.metadata.ino()), inode);
        }
        if is_new {
            self.report.added += 1;
            self.plan("add", &found.relative);
        }
        if found.kind == Kind::Directory {
            self.directory(&found.path, &found.relative, target)?;
        }
        match target {
            Some(inode) if found.kind == Kind::File => self.file(&found, inode, is_new)?,
            Some(inode) => {
                let is_changed = self.attributes(&found.path, &found.metadata, inode)?;
                self.count(is_new, is_changed, &found.relative);
            }
            None => {}
        }
        (self.progress)(&Progress {
            files: self.report.added + self.report.changed + self.report.unchanged,
            bytes: self.report.read_bytes,
            total_bytes: 0,
        })
    }

    fn count(&mut self, is_new: bool, is_changed: bool, relative: &Path) {
        match (is_new, is_changed) {
            (true, _) => {}
            (false, true) => {
                self.report.changed += 1;
                self.plan("change", relative);
            }
            (false, false) => self.report.unchanged += 1,
        }
    }

    /// Whether what is there can become what the source has, without being made anew.
    fn is_same_object(&mut self, found: &Found<'_>, inode: InodeNo, old: &Inode) -> Result<bool> {
        if old.kind() != found.kind {
            return Ok(false);
        }
        let is_same = match found.kind {
            Kind::Symlink => match std::fs::read_link(&found.path) {
                Ok(target) => target.as_os_str().as_bytes() == old.inline.as_slice(),
                Err(_) => true,
            },
            Kind::CharDevice | Kind::BlockDevice => encode_device(found.metadata.rdev()) == old.rdev,
            Kind::Directory | Kind::File | Kind::Fifo | Kind::Socket => true,
        };
        if !is_same || found.kind == Kind::Directory {
            return Ok(is_same);
        }
        // Names that belong together in the source have to belong together here, and no others.
        let first = self.names.get(&(found.metadata.dev(), found.metadata.ino()));
        Ok(match first {
            Some(first) => *first == inode,
            None => old.links == 1 || found.metadata.nlink() > 1 && !self.names.values().any(|known| *known == inode),
        })
    }

    fn make(&mut self, found: &Found<'_>, parent: InodeNo) -> Result<Option<InodeNo>> {
        let target = match found.kind {
            Kind::Symlink => match std::fs::read_link(&found.path) {
                Ok(target) => target.into_os_string().into_vec(),
                Err(error) => {
                    self.problem(&found.path, error);
                    return Ok(None);
                }
            },
            _ => Vec::new(),
        };
        if found.kind == Kind::File
            && let Err(error) = open(&found.path)
        {
            self.problem(&found.path, error);
            return Ok(None);
        }
        let rdev = match found.kind {
            Kind::CharDevice | Kind::BlockDevice => encode_device(found.metadata.rdev()),
            _ => 0,
        };
        let new = New { kind: found.kind, permissions: found.metadata.mode() & 0o7777, rdev, target: &target };
        let (inode, _) = self.tree.make(MAKER, parent, found.name.as_bytes(), new)?;
        self.entry_changed(parent, found.name.as_bytes());
        Ok(Some(inode))
    }

    /// Removes what the source does not have; false where something excluded keeps a directory.
    fn remove(&mut self, parent: InodeNo, name: &OsStr, relative: &Path, inode: InodeNo, old: &Inode) -> Result<bool> {
        if self.is_excluded(relative) {
            return Ok(false);
        }
        if old.is_directory() {
            let mut children = Vec::new();
            self.tree.list_with_inodes(inode, 0, Moment::Live, |entry, found| {
                children.push((entry.clone(), found.clone()));
                Ok(true)
            })?;
            let mut is_empty = true;
            for (entry, found) in children {
                let name = OsStr::from_bytes(&entry.name);
                is_empty &= self.remove(inode, name, &relative.join(name), entry.inode, &found)?;
            }
            if !is_empty {
                return Ok(false);
            }
        }
        self.report.removed += 1;
        self.plan("remove", relative);
        if !self.dry_run {
            if old.is_directory() {
                self.tree.remove_directory(parent, name.as_bytes())?;
            } else {
                self.tree.unlink(parent, name.as_bytes())?;
            }
            self.entry_changed(parent, name.as_bytes());
            self.inode_changed(inode);
        }
        Ok(true)
    }

    fn file(&mut self, found: &Found<'_>, inode: InodeNo, is_new: bool) -> Result<()> {
        let metadata = &found.metadata;
        let facts = |copy_ctime| Origin {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            mtime: Timestamp { seconds: metadata.mtime(), nanos: metadata.mtime_nsec() as u32 },
            ctime: Timestamp { seconds: metadata.ctime(), nanos: metadata.ctime_nsec() as u32 },
            copy_ctime,
        };
        if !is_new {
            let copy_ctime = self.tree.inode(inode, Moment::Live)?.ctime;
            if self.tree.origin(inode)? == Some(facts(copy_ctime)) {
                self.report.unchanged += 1;
                return Ok(());
            }
        }
        let is_changed = match self.content(found, inode, is_new) {
            Ok(is_changed) => is_changed,
            Err(Error::Media { what, source }) if what == READING => {
                self.problem(&found.path, source);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let is_changed = self.attributes(&found.path, metadata, inode)? || is_changed;
        self.count(is_new, is_changed, &found.relative);
        if self.dry_run {
            return Ok(());
        }
        let copy_ctime = self.tree.inode(inode, Moment::Live)?.ctime;
        self.tree.set_origin(inode, &facts(copy_ctime))
    }

    /// Makes the bytes equal, track by track; whether any differed.
    fn content(&mut self, found: &Found<'_>, inode: InodeNo, is_new: bool) -> Result<bool> {
        let reading = |error| Error::media(READING, error);
        let file = open(&found.path).map_err(reading)?;
        let size = file.metadata().map_err(reading)?.len();
        let old_size = if is_new { 0 } else { self.tree.inode(inode, Moment::Live)?.size };
        let track_bytes = self.tree.device().track_bytes();
        let mut buffer = vec![0; STEP_BYTES as usize];
        let mut is_changed = size != old_size;
        if size < old_size && !self.dry_run {
            self.tree.change(inode, Change { size: Some(size), ..Change::default() })?;
        }
        let (mut offset, mut data_end) = (0, 0);
        while offset < size {
            if offset >= data_end {
                let data = next_data(&file, offset, size).map_err(reading)?;
                let track_start = data.min(size) / track_bytes * track_bytes;
                if track_start > offset || data >= size {
                    is_changed |= self.hole(inode, offset, data.min(old_size), is_new)?;
                    offset = offset.max(track_start);
                }
                if data >= size {
                    break;
                }
                data_end = next_hole(&file, data, size).map_err(reading)?.next_multiple_of(track_bytes);
            }
            let len = STEP_BYTES.min(size.min(data_end) - offset) as usize;
            let bytes = &mut buffer[..len];
            let got = read_full(&file, bytes, offset).map_err(reading)?;
            self.report.read_bytes += got as u64;
            is_changed |= self.tracks(inode, offset, &bytes[..got], old_size)?;
            if got < len {
                // The source has become shorter meanwhile; the next run sees that it changed.
                break;
            }
            offset += len as u64;
        }
        if size > self.tree.inode(inode, Moment::Live)?.size && !self.dry_run {
            self.tree.change(inode, Change { size: Some(size), ..Change::default() })?;
        }
        if is_changed {
            self.inode_changed(inode);
        }
        Ok(is_changed)
    }

    /// Writes the tracks of a piece that differ from what is there.
    fn tracks(&mut self, inode: InodeNo, offset: u64, bytes: &[u8], old_size: u64) -> Result<bool> {
        if offset >= old_size {
            self.write(inode, offset, bytes)?;
            return Ok(true);
        }
        let mut is_changed = false;
        let track_bytes = self.tree.device().track_bytes() as usize;
        for (i, piece) in bytes.chunks(track_bytes).enumerate() {
            let at = offset + (i * track_bytes) as u64;
            if self.tree.read(inode, at, piece.len(), Moment::Live)? != piece {
                self.write(inode, at, piece)?;
                is_changed = true;
            }
        }
        Ok(is_changed)
    }

    fn write(&mut self, inode: InodeNo, offset: u64, bytes: &[u8]) -> Result<()> {
        self.report.written_bytes += bytes.len() as u64;
        if self.dry_run { Ok(()) } else { self.tree.write(inode, offset, bytes, false) }
    }

    /// Makes a hole where the source has one and the copy has data.
    fn hole(&mut self, inode: InodeNo, from: u64, to: u64, is_new: bool) -> Result<bool> {
        if is_new || from >= to {
            return Ok(false);
        }
        match self.tree.seek_data(inode, from, Moment::Live) {
            Ok(data) if data < to => {
                if !self.dry_run {
                    self.tree.zero(inode, from, to - from, true)?;
                }
                Ok(true)
            }
            Ok(_) | Err(Error::Posix(Errno::NXIO)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Mode, owner, times and xattrs; whether any differed.
    fn attributes(&mut self, path: &Path, metadata: &Metadata, inode: InodeNo) -> Result<bool> {
        let mut is_changed = self.xattrs(path, inode)?;
        let old = self.tree.inode(inode, Moment::Live)?;
        let time = |seconds, nanos| Timestamp { seconds, nanos: nanos as u32 };
        let mtime = time(metadata.mtime(), metadata.mtime_nsec());
        let atime = time(metadata.atime(), metadata.atime_nsec());
        let (uid, gid) = self.owner.of(metadata);
        let wanted = (metadata.mode() & 0o7777, uid, gid, mtime);
        let is_link = old.kind() == Kind::Symlink;
        let is_same = (if is_link { wanted.0 } else { old.permissions() }, old.uid, old.gid, old.mtime) == wanted;
        if is_same {
            return Ok(is_changed);
        }
        is_changed = true;
        if !self.dry_run {
            let change = Change {
                permissions: (!is_link).then_some(wanted.0),
                uid: Some(wanted.1),
                gid: Some(wanted.2),
                atime: Some(SetTime::To(atime)),
                mtime: Some(SetTime::To(mtime)),
                ..Change::default()
            };
            self.tree.change(inode, change)?;
            self.inode_changed(inode);
        }
        Ok(is_changed)
    }

    fn xattrs(&mut self, path: &Path, inode: InodeNo) -> Result<bool> {
        let names = match list_xattrs(path) {
            Ok(names) => names,
            Err(Errno::OPNOTSUPP) => Vec::new(),
            Err(errno) => {
                self.problem(path, format!("its xattrs cannot be listed: {}", io::Error::from(errno)));
                return Ok(false);
            }
        };
        let mut old = self.tree.xattr_names(inode, Moment::Live)?;
        let mut is_changed = false;
        for name in &names {
            let value = match get_xattr(path, name) {
                Ok(value) => value,
                Err(errno) => {
                    self.problem(
                        path,
                        format!(
                            "its xattr {} cannot be read: {}",
                            String::from_utf8_lossy(name),
                            io::Error::from(errno)
                        ),
                    );
                    continue;
                }
            };
            let is_same = old.contains(name) && self.tree.xattr(inode, name, Moment::Live)? == value;
            old.retain(|known| known != name);
            if is_same {
                continue;
            }
            is_changed = true;
            if self.dry_run {
                continue;
            }
            match self.tree.set_xattr(inode, name, &value, SetMode::Any) {
                Ok(()) => {}
                Err(Error::Posix(Errno::OPNOTSUPP | Errno::TOOBIG)) => {
                    self.problem(path, format!("its xattr {} cannot be stored", String::from_utf8_lossy(name)));
                }
                Err(error) => return Err(error),
            }
        }
        // Only root sees these in the source.
        let sees_trusted = rustix::process::geteuid().is_root();
        for name in old.into_iter().filter(|name| sees_trusted || !name.starts_with(b"trusted.")) {
            is_changed = true;
            if !self.dry_run {
                self.tree.remove_xattr(inode, &name)?;
            }
        }
        if is_changed {
            self.inode_changed(inode);
        }
        Ok(is_changed)
    }
}

/// Marks errors of the source, which concern one file only.
const READING: &str = "reading the source";
/// Bytes read at once: whole tracks of every size.
const STEP_BYTES: u64 = 1 << 20;
const _: () = assert!(STEP_BYTES.is_multiple_of(crate::limits::TRACK_BYTES_MAX as u64));

fn open(path: &Path) -> io::Result<File> {
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits();
    File::options().read(true).custom_flags(flags as i32).open(path)
}

fn read_full(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < out.len() {
        match file.read_at(&mut out[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// The start of the next data at or after an offset, or the size where only a hole follows.
fn next_data(file: &File, offset: u64, size: u64) -> io::Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(data) => Ok(data),
        Err(Errno::NXIO) => Ok(size),
        // A file system without holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(offset),
        Err(errno) => Err(errno.into()),
    }
}

/// The end of the data at an offset.
fn next_hole(file: &File, offset: u64, size: u64) -> io::Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Hole(offset)) {
        Ok(hole) => Ok(hole.max(offset + 1)),
        Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => Ok(size),
        Err(errno) => Err(errno.into()),
    }
}

fn list_xattrs(path: &Path) -> Result<Vec<Vec<u8>>, Errno> {
    let list = with_growing_buffer(|buffer| rustix::fs::llistxattr(path, buffer))?;
    let names = list.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_vec).collect())
}

fn get_xattr(path: &Path, name: &[u8]) -> Result<Vec<u8>, Errno> {
    with_growing_buffer(|buffer| rustix::fs::lgetxattr(path, OsStr::from_bytes(name), buffer))
}

fn with_growing_buffer(read: impl Fn(&mut Vec<u8>) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 256];
    loop {
        match read(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 8, 0),
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names_or_paths() {
        let matches = |pattern: &str, path: &str| Pattern::parse(pattern).unwrap().matches(Path::new(path));
        assert!(matches("*.o", "a/b/c.o") && !matches("*.o", "a/b/c.ox"));
        assert!(matches("target", "a/target") && matches("/target", "target") && !matches("/target", "a/target"));
        assert!(matches("a/*/c", "a/b/c") && !matches("a/c", "b/a/c"));
        assert!(Pattern::parse("[").is_err());
    }
}
