//! Making a directory of `live` equal to one outside the store.
//!
//! A source file whose device, inode number, size, modification and change times are those noted when it
//! was brought in is skipped, unless its copy was changed since. A changed file is compared track by
//! track, and only tracks that differ are written. What is not in the source any more is removed.

mod attributes;
mod content;
mod exclude;
mod walk;

pub use attributes::Owner;

use super::copy_out::encode_device;
use super::{Daemon, OnProgress, Progress};
use crate::clock::Timestamp;
use crate::device::{InodeNo, Moment};
use crate::error::{Errno, Error, Result};
use crate::fuse::Notify;
use crate::tree::{Caller, Inode, Kind, New, Origin, Tree, root_of, shown};
use crate::view::Views;
use content::{READING, open};
use exclude::Pattern;
use parking_lot::MutexGuard;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use walk::{Listing, Skipped};

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
    /// The store was made for this.
    pub is_new_store: bool,
}

impl SyncOptions {
    /// In the words of the command line.
    fn what(&self) -> String {
        let source = &self.source;
        match (self.is_new_store, self.destination.as_slice()) {
            (true, _) => format!("create --from {source:?}"),
            (false, []) => format!("sync {source:?}"),
            (false, destination) => format!("sync {source:?} {:?}", String::from_utf8_lossy(destination)),
        }
    }
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

/// How long a restore in place, which is soon over, is waited for.
const WAIT_FOR_RESTORE: Duration = Duration::from_secs(1);

impl Daemon {
    /// Of what changes many files, one thing at a time.
    pub(super) fn alone_with_files(&self) -> Result<MutexGuard<'_, ()>> {
        self.syncing.try_lock_for(WAIT_FOR_RESTORE).ok_or_else(|| {
            let text = "a sync or a restore of files is running in this store; wait for its end";
            Error::Refused(Errno::BUSY, text.into())
        })
    }

    /// Makes a base equal to a directory outside the store.
    pub fn sync(&self, views: &Views, options: &SyncOptions, progress: OnProgress<'_>) -> Result<SyncReport> {
        views.check_writable()?;
        let _syncing = self.alone_with_files()?;
        let given = options.source.display().to_string();
        let metadata =
            std::fs::metadata(&options.source).map_err(|error| Error::media(format!("looking at {given}"), error))?;
        if !metadata.is_dir() {
            return Err(Error::Refused(Errno::NOTDIR, format!("{given} is not a directory")));
        }
        let exclude = options.exclude.iter().map(|pattern| Pattern::parse(pattern)).collect::<Result<_>>()?;
        let own = [Some(self.path.clone()), self.mount_point()];
        let own = own
            .into_iter()
            .flatten()
            .filter_map(|path| path.metadata().ok().map(|found| (found.dev(), found.ino())))
            .collect();
        let skipped = Skipped { exclude, own, ..Skipped::default() };
        let (sender, listings) = std::sync::mpsc::sync_channel(walk::AHEAD);
        let mut sync = Sync {
            tree: views.tree(),
            root: root_of(views.base()),
            notify: self.notify(),
            dry_run: options.dry_run,
            skipped: &skipped,
            listings,
            source: options.source.clone(),
            owner: Owner::of_this_process(),
            names: HashMap::new(),
            report: SyncReport::default(),
            progress,
        };
        if skipped.is_own(&metadata) {
            return Err(Error::Refused(Errno::INVAL, format!("{given} is the store itself or its mount point")));
        }
        let target = sync.destination(&options.destination)?;
        let is_empty = |target| Ok::<bool, Error>(views.tree().inode(target, Moment::Live)?.size == 0);
        skipped.reads_all.store(target.map(is_empty).transpose()?.unwrap_or(true), Ordering::Relaxed);
        let (report, result) = std::thread::scope(|scope| {
            scope.spawn(|| skipped.walk(&options.source, Path::new(""), &{ sender }));
            // It takes the receiver along when it ends, however it ends: the walk does not wait then.
            sync.run(&options.source, &metadata, target)
        });
        if !options.dry_run && report.added + report.changed + report.removed > 0 {
            // What was done counts, whether there is room to note it or not.
            let noted = views.note_done(&options.what());
            noted.or_else(|error| if error.is_no_space() { views.tree().commit() } else { Err(error) })?;
        }
        result?;
        views.tree().commit()?;
        Ok(report)
    }
}

struct Sync<'a> {
    tree: &'a Tree,
    root: InodeNo,
    notify: Option<Notify>,
    dry_run: bool,
    skipped: &'a Skipped,
    listings: Receiver<Listing>,
    source: PathBuf,
    owner: Owner,
    /// Source files with several names: where the first one went.
    names: HashMap<(u64, u64), InodeNo>,
    report: SyncReport,
    progress: OnProgress<'a>,
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
    /// What was done, and how it ended.
    fn run(mut self, source: &Path, metadata: &Metadata, target: Option<InodeNo>) -> (SyncReport, Result<()>) {
        let result = self.directory(source, target).and_then(|()| match target {
            Some(target) => self.attributes(source, metadata, target).map(|_| ()),
            None => Ok(()),
        });
        (self.report, result)
    }

    /// The directory of `live` to fill, made where it is missing; `None` if a dry run would make it.
    fn destination(&mut self, path: &[u8]) -> Result<Option<InodeNo>> {
        if path.split(|&byte| byte == b'/').any(|name| name == b"..") {
            let path = String::from_utf8_lossy(path).into_owned();
            let text = format!("the destination {path:?} has to be a path below live, without `..`");
            return Err(Error::Refused(Errno::INVAL, text));
        }
        let mut at = self.root;
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

    fn problem(&mut self, path: &Path, error: impl std::fmt::Display) {
        self.report.problems.push(format!("{}: {error}", shown(path.as_os_str().as_bytes())));
    }

    fn plan(&mut self, what: &str, relative: &Path) {
        if self.dry_run {
            self.report.planned.push(format!("{what} {}", shown(relative.as_os_str().as_bytes())));
        }
    }

    /// Makes a directory's content equal to the source's. Without a target, all of it is new.
    fn directory(&mut self, source: &Path, target: Option<InodeNo>) -> Result<()> {
        let entries = match walk::next(&self.listings, source) {
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
            let before = existing.remove(&entry.name);
            let path = source.join(&entry.name);
            let metadata = match entry.metadata {
                Ok(metadata) => metadata,
                Err(error) => {
                    self.problem(&path, error);
                    continue;
                }
            };
            let Some(kind) = Kind::from_mode(metadata.mode()).filter(|_| !self.skipped.is_own(&metadata)) else {
                continue;
            };
            let found = Found { path, relative: entry.relative, name: &entry.name, metadata, kind };
            self.one(found, target, before)?;
        }
        let Some(target) = target else { return Ok(()) };
        let relative = source.strip_prefix(&self.source).unwrap_or(Path::new("")).to_path_buf();
        for (name, (inode, found)) in existing {
            self.remove(target, &name, &relative.join(&name), inode, &found)?;
        }
        Ok(())
    }

    fn one(&mut self, found: Found<'_>, parent: Option<InodeNo>, mut before: Option<(InodeNo, Inode)>) -> Result<()> {
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
        let old_ctime = before.as_ref().map(|(_, old)| old.ctime);
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
            self.directory(&found.path, target)?;
        }
        match target {
            Some(inode) if found.kind == Kind::File => self.file(&found, inode, old_ctime)?,
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
        if self.skipped.is_excluded(relative) {
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

    /// `old_ctime` is the change time of a copy that was there.
    fn file(&mut self, found: &Found<'_>, inode: InodeNo, old_ctime: Option<Timestamp>) -> Result<()> {
        let metadata = &found.metadata;
        let facts = |copy_ctime| Origin {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            mtime: Timestamp { seconds: metadata.mtime(), nanos: metadata.mtime_nsec() as u32 },
            ctime: Timestamp { seconds: metadata.ctime(), nanos: metadata.ctime_nsec() as u32 },
            copy_ctime,
        };
        let is_new = old_ctime.is_none();
        if let Some(copy_ctime) = old_ctime
            && self.tree.origin(inode)? == Some(facts(copy_ctime))
        {
            self.report.unchanged += 1;
            return Ok(());
        }
        let is_changed = match self.content(found, inode, is_new) {
            Ok(is_changed) => is_changed,
            Err(Error::Media { what, source }) if what == READING => {
                self.problem(&found.path, source);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.skipped.done.fetch_add(metadata.len(), Ordering::Relaxed);
        let is_changed = self.attributes(&found.path, metadata, inode)? || is_changed;
        self.count(is_new, is_changed, &found.relative);
        if self.dry_run {
            return Ok(());
        }
        let copy_ctime = self.tree.inode(inode, Moment::Live)?.ctime;
        self.tree.set_origin(inode, &facts(copy_ctime))
    }
}
