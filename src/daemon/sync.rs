//! Making a directory of `live` equal to one outside the store.
//!
//! A source file whose device, inode number, size, modification and change times are those noted when it
//! was brought in is skipped, unless its copy was changed since. A changed file is compared track by
//! track, and only tracks that differ are written. What is not in the source any more is removed.

mod attributes;
mod content;
mod exclude;
mod facts;
mod files;
mod remove;
mod walk;

pub use attributes::Owner;

use super::descent::{Identity, identity};
use super::kernel::Unseen;
use super::outside::mounts_of_same;
use super::{Daemon, OnProgress, Progress};
use crate::device::InodeNo;
use crate::error::{Errno, Error, Result};
use crate::media::open_directory;
use crate::shown::{shown, shown_file};
use crate::tree::{Caller, Inode, Kind, New, Rights, Tree, names_of, root_of};
use crate::view::Views;
use attributes::Whose;
use exclude::Pattern;
use facts::Facts;
use remove::{remove, remove_here};
use serde_bytes::ByteBuf;
use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use walk::{Entry, Listing, Skipped, pop, push};

/// What to bring in.
#[derive(Clone, Debug, Default)]
pub struct SyncOptions {
    /// An absolute path.
    pub source: PathBuf,
    /// A path in `live`; empty for its root.
    pub destination: Vec<u8>,
    /// Patterns: with a slash for the path from the source, without for the last name.
    pub exclude: Vec<ByteBuf>,
    /// Directories on other file systems than the source are not entered.
    pub one_file_system: bool,
    pub dry_run: bool,
    /// The store was made for this.
    pub is_new_store: bool,
}

impl SyncOptions {
    /// In the words of the command line.
    fn what(&self) -> String {
        let source = &self.source;
        let exclude = self.exclude.iter().map(|pattern| format!("--exclude {:?} ", shown(pattern)));
        let mut options: String = exclude.collect();
        if self.one_file_system {
            options.push_str("--one-file-system ");
        }
        match (self.is_new_store, self.destination.as_slice()) {
            (true, _) => format!("create {options}--from {source:?}"),
            (false, []) => format!("sync {options}{source:?}"),
            (false, destination) => format!("sync {options}{source:?} {:?}", shown(destination)),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncReport {
    pub added: u64,
    pub changed: u64,
    pub removed: u64,
    pub unchanged: u64,
    /// Bytes that were read, and bytes that had to be written.
    pub read_bytes: u64,
    pub written_bytes: u64,
    /// With a dry run: what would be done.
    pub planned: Vec<Planned>,
    /// What of the source belongs to this store and was passed over.
    pub left_out: Vec<String>,
    /// What could not be read, each with the reason.
    pub problems: Vec<String>,
}

/// What would be done to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// `add`, `change` or `remove`.
    pub what: String,
    pub path: ByteBuf,
}

impl SyncOptions {
    /// An error if a pattern makes no sense.
    pub fn check(&self) -> Result<()> {
        self.exclude.iter().try_for_each(|pattern| Pattern::parse(pattern).map(drop))
    }
}

/// Makes a base equal to a directory outside the store.
pub fn sync(daemon: &Daemon, views: &Views, options: &SyncOptions, progress: OnProgress<'_>) -> Result<SyncReport> {
    views.check_writable()?;
    let options = &SyncOptions { source: daemon.outside(&options.source)?, ..options.clone() };
    let _syncing = daemon.alone_with_files()?;
    let root = open_source(&options.source)?;
    let facts = Facts::of(&root).map_err(|error| looking_at(&options.source, error))?;
    let skipped = skipped(daemon, options, &facts)?;
    views.fetched()?;
    let unseen = daemon.unseen(views.base())?;
    let (sender, listings) = std::sync::mpsc::sync_channel(walk::AHEAD);
    let mut sync = Sync {
        tree: views.tree(),
        root: root_of(views.base()),
        unseen: &unseen,
        dry_run: options.dry_run,
        skipped: &skipped,
        listings,
        source: options.source.clone(),
        path: Vec::new(),
        stack: Vec::new(),
        owner: Owner::of_this_process(),
        names: HashMap::new(),
        named: HashSet::new(),
        arms: None,
        report: SyncReport::default(),
        progress,
    };
    let target = sync.destination(&options.destination)?;
    let is_empty = |target: InodeNo| Ok::<bool, Error>(views.tree().inode(target.live())?.size == 0);
    skipped.reads_all.store(target.map(is_empty).transpose()?.unwrap_or(true), Ordering::Relaxed);
    let (report, result) = std::thread::scope(|scope| {
        let walk = scope.spawn(|| skipped.walk(root, &{ sender }));
        // It takes the receiver along when it ends, however it ends: the walk does not wait then.
        let (report, result) = sync.run(facts, target);
        let walked = walk.join().unwrap_or_else(|_| Err(std::io::Error::other("its thread ended")));
        // If the walk fails, there is no more to compare, and that is why.
        (report, walked.map_err(|error| looking_at(&options.source, error)).and(result))
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

/// Opens the directory to bring in.
fn open_source(source: &Path) -> Result<OwnedFd> {
    let given = shown_file(source);
    let refused = |errno, what: &str| Err(Error::Refused(errno, format!("{given} {what}")));
    match open_directory(source) {
        Ok(root) => Ok(root.into()),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOTDIR) => {
            refused(Errno::NOTDIR, "is not a directory")
        }
        Err(error) => Err(looking_at(source, error)),
    }
}

/// What of a source is passed over.
fn skipped(daemon: &Daemon, options: &SyncOptions, root: &Facts) -> Result<Skipped> {
    let mut own: HashMap<Identity, &'static str> = HashMap::new();
    let mut add = |path: &Path, what| {
        own.extend(open_directory(path).ok().and_then(|found| identity(found).ok()).map(|found| (found, what)));
    };
    add(&daemon.path, "this store");
    for archive in daemon.archive_directories()? {
        add(&archive, "an archive of this store");
    }
    if let Some(what) = own.get(&root.identity()) {
        let text = format!("{} is {what}", shown_file(&options.source));
        return Err(Error::Refused(Errno::INVAL, text));
    }
    let mounted = daemon.mount_point().map_or_else(Vec::new, |mount_point| mounts_of_same(&mount_point));
    let below = |path: &PathBuf| Some(path.strip_prefix(&options.source).ok()?.as_os_str().as_bytes().to_vec());
    Ok(Skipped {
        exclude: options.exclude.iter().map(|pattern| Pattern::parse(pattern)).collect::<Result<_>>()?,
        own,
        mounted: mounted.iter().filter_map(below).collect(),
        only_device: options.one_file_system.then_some(root.device),
        ..Skipped::default()
    })
}

fn looking_at(path: &Path, error: std::io::Error) -> Error {
    Error::media(format!("looking at {}", shown_file(path)), error)
}

struct Sync<'a> {
    tree: &'a Tree,
    root: InodeNo,
    unseen: &'a Unseen<'a>,
    dry_run: bool,
    skipped: &'a Skipped,
    listings: Receiver<Listing>,
    source: PathBuf,
    /// Where it is, from the source's root.
    path: Vec<u8>,
    stack: Vec<Frame>,
    owner: Owner,
    /// Source files with several names: where the first one went.
    names: HashMap<Identity, InodeNo>,
    /// Where they went.
    named: HashSet<InodeNo>,
    /// A file that was there, and what it must not have while its content changes, as long as nothing of it has.
    arms: Option<(InodeNo, Rights)>,
    report: SyncReport,
    progress: OnProgress<'a>,
}

/// What the source has at one name.
struct Found {
    name: Vec<u8>,
    facts: Facts,
    kind: Kind,
}

/// A directory that is being compared.
struct Frame {
    facts: Facts,
    /// What it becomes; nothing, where a dry run would make it.
    target: Option<InodeNo>,
    is_new: bool,
    is_changed: bool,
    /// Directories in it that are still to be entered, with what has their names now.
    pending: VecDeque<(Found, Option<(InodeNo, Inode)>)>,
}

impl Sync<'_> {
    /// What was done, and how it ended.
    fn run(mut self, facts: Facts, target: Option<InodeNo>) -> (SyncReport, Result<()>) {
        let result = self.compare(facts, target);
        (self.report, result)
    }

    fn compare(&mut self, facts: Facts, target: Option<InodeNo>) -> Result<()> {
        let root = Frame { facts, target, is_new: target.is_none(), is_changed: false, pending: VecDeque::new() };
        let listing = self.listing()?;
        self.enter(root, listing)?;
        while let Some(frame) = self.stack.last_mut() {
            match frame.pending.pop_front() {
                Some((found, before)) => {
                    let parent = frame.target;
                    push(&mut self.path, &found.name);
                    let listing = self.listing()?;
                    // What cannot be read takes nothing's place.
                    if let (Err(error), Some((_, old))) = (&listing, &before)
                        && !old.is_directory()
                    {
                        self.problem(error);
                        pop(&mut self.path);
                        continue;
                    }
                    let frame = self.directory(found, parent, before)?;
                    self.enter(frame, listing)?;
                }
                None => self.leave()?,
            }
        }
        Ok(())
    }

    /// What is in the directory that comes next, or why that is not known.
    fn listing(&self) -> Result<Listing> {
        let ended = |_| Error::media(format!("reading {}", self.shown()), std::io::Error::other("it cannot be read"));
        self.listings.recv().map_err(ended)
    }

    /// Compares the content of a directory, but for the directories in it.
    fn enter(&mut self, mut frame: Frame, listing: Listing) -> Result<()> {
        match listing {
            Ok((directory, entries)) => {
                if let Some(target) = frame.target {
                    if !frame.is_new {
                        let wanted = self.rights(&frame.facts, Whose::Open(directory.as_fd()));
                        frame.is_changed = self.disarm(target, &wanted)?;
                    }
                    frame.is_changed |= self.xattrs(Whose::Open(directory.as_fd()), target)?;
                }
                self.content_of(&directory, entries, &mut frame)?;
            }
            // What cannot be listed is left as it is: it is not known to be gone.
            Err(error) => self.problem(error),
        }
        self.stack.push(frame);
        Ok(())
    }

    fn content_of(&mut self, directory: &Arc<OwnedFd>, entries: Vec<Entry>, frame: &mut Frame) -> Result<()> {
        let mut existing: HashMap<Vec<u8>, (InodeNo, Inode)> = HashMap::new();
        if let Some(target) = frame.target {
            self.tree.names().list_with_inodes(target.live(), 0, |entry, found| {
                existing.insert(entry.name.clone(), (entry.inode, found.clone()));
                Ok(true)
            })?;
        }
        for entry in entries {
            let before = existing.remove(&entry.name);
            push(&mut self.path, &entry.name);
            self.entry(directory, entry, before, frame)?;
            pop(&mut self.path);
        }
        let Some(target) = frame.target else { return Ok(()) };
        for (name, (inode, found)) in existing {
            remove(self, target, &name, inode, &found)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        directory: &Arc<OwnedFd>,
        entry: Entry,
        before: Option<(InodeNo, Inode)>,
        frame: &mut Frame,
    ) -> Result<()> {
        if let Some(what) = entry.left_out {
            let text = format!("{}: left out: {what}", self.shown());
            self.report.left_out.push(text);
            return Ok(());
        }
        if let Err(error) = &entry.facts {
            self.problem(error);
            return Ok(());
        }
        let is_entered = entry.is_entered;
        let Some(found) = Found::of(entry) else { return Ok(()) };
        if is_entered {
            frame.pending.push_back((found, before));
            return Ok(());
        }
        if found.kind == Kind::Directory {
            // On another file system: it is there, and what is in it is another matter.
            let frame = self.directory(found, frame.target, before)?;
            return self.finish(&frame);
        }
        self.one(directory, &found, frame.target, before)?;
        self.tell()
    }

    /// Takes a directory's place; what is in it comes with its listing.
    fn directory(&mut self, found: Found, parent: Option<InodeNo>, before: Option<(InodeNo, Inode)>) -> Result<Frame> {
        let mut frame =
            Frame { facts: found.facts, target: None, is_new: true, is_changed: false, pending: VecDeque::new() };
        match (before, parent) {
            (Some((inode, old)), _) if old.is_directory() => (frame.target, frame.is_new) = (Some(inode), false),
            (before, Some(parent)) => {
                if let Some((inode, old)) = before {
                    remove_here(self, parent, &found.name, inode, &old)?;
                }
                if !self.dry_run {
                    frame.target = Some(self.make(&found, parent, &[])?);
                }
                self.added();
            }
            (_, None) => self.added(),
        }
        Ok(frame)
    }

    /// Goes up from a directory that has been compared.
    fn leave(&mut self) -> Result<()> {
        let Some(frame) = self.stack.pop() else { return Ok(()) };
        if self.stack.is_empty() {
            return match frame.target {
                Some(target) => self.attributes(&frame.facts, target).map(|_| ()),
                None => Ok(()),
            };
        }
        self.finish(&frame)?;
        pop(&mut self.path);
        self.tell()
    }

    fn finish(&mut self, frame: &Frame) -> Result<()> {
        let Some(target) = frame.target else { return Ok(()) };
        let is_changed = self.attributes(&frame.facts, target)? || frame.is_changed;
        self.count(frame.is_new, is_changed);
        Ok(())
    }

    fn tell(&mut self) -> Result<()> {
        (self.progress)(&Progress {
            files: self.report.added + self.report.changed + self.report.unchanged,
            bytes: self.report.read_bytes,
            total_bytes: 0,
        })
    }

    /// The directory of `live` to fill, made where it is missing; `None` if a dry run would make it.
    fn destination(&mut self, path: &[u8]) -> Result<Option<InodeNo>> {
        if names_of(path).any(|name| name == b"..") {
            let path = shown(path);
            let text = format!("the destination {path:?} has to be a path below live, without `..`");
            return Err(Error::Refused(Errno::INVAL, text));
        }
        let mut at = self.root;
        for name in names_of(path) {
            at = match self.tree.names().lookup(at.live(), name) {
                Ok((inode, found)) if found.is_directory() => inode,
                Ok(_) => {
                    let path = shown(path);
                    return Err(Error::Refused(Errno::NOTDIR, format!("{path:?} in live is not a directory")));
                }
                Err(Error::Posix(Errno::NOENT)) if self.dry_run => return Ok(None),
                Err(Error::Posix(Errno::NOENT)) => {
                    let new = New { kind: Kind::Directory, permissions: 0o755, rdev: 0, target: b"" };
                    let maker = Caller { uid: 0, gid: 0, umask: 0 };
                    let (inode, _) = self.tree.names().make(maker, at, name, new)?;
                    inode
                }
                Err(error) => return Err(error),
            };
        }
        Ok(Some(at))
    }

    /// The path of what is being compared, as text.
    fn shown(&self) -> String {
        let source = self.source.as_os_str().as_bytes();
        let slash: &[u8] = if self.path.is_empty() || source.ends_with(b"/") { b"" } else { b"/" };
        shown(&[source, slash, &self.path].concat()).to_string()
    }

    /// Notes what is wrong with what is being compared.
    fn problem(&mut self, error: impl std::fmt::Display) {
        let text = format!("{}: {error}", self.shown());
        self.report.problems.push(text);
    }

    fn plan(&mut self, what: &str) {
        if self.dry_run {
            self.report.planned.push(Planned { what: what.to_string(), path: ByteBuf::from(self.path.clone()) });
        }
    }

    fn added(&mut self) {
        self.report.added += 1;
        self.plan("add");
    }

    fn count(&mut self, is_new: bool, is_changed: bool) {
        match (is_new, is_changed) {
            (true, _) => {}
            (false, true) => {
                self.report.changed += 1;
                self.plan("change");
            }
            (false, false) => self.report.unchanged += 1,
        }
    }

    /// Makes a name that is no directory's what the source has.
    fn one(
        &mut self,
        directory: &OwnedFd,
        found: &Found,
        parent: Option<InodeNo>,
        mut before: Option<(InodeNo, Inode)>,
    ) -> Result<()> {
        let link_target = match found.kind {
            Kind::Symlink => match rustix::fs::readlinkat(directory, found.name.as_slice(), Vec::new()) {
                Ok(target) => target.into_bytes(),
                Err(errno) => {
                    self.problem(Error::Posix(errno));
                    return Ok(());
                }
            },
            _ => Vec::new(),
        };
        let mut opened = None;
        if let (Some((inode, old)), Some(parent)) = (&before, parent)
            && !self.is_same_object(found, &link_target, *inode, old)
        {
            // What cannot be read takes nothing's place.
            if found.kind == Kind::File {
                opened = self.opened(directory, found);
                if opened.is_none() {
                    return Ok(());
                }
            }
            if !remove_here(self, parent, &found.name, *inode, old)? {
                self.problem("a directory of that name holds excluded files and stays");
                return Ok(());
            }
            before = None;
        }
        let is_linked = found.facts.links > 1;
        let first = self.names.get(&found.facts.identity()).copied().filter(|_| is_linked);
        if let (None, Some(parent), Some(first), false) = (&before, parent, first, self.dry_run) {
            self.tree.names().link(first, parent, &found.name)?;
            self.added();
            return Ok(());
        }
        let target = match found.kind {
            Kind::File => self.file((directory, opened), found, parent, before)?,
            _ => self.other(directory, found, parent, before, &link_target)?,
        };
        if let (Some(inode), true) = (target, is_linked) {
            self.names.insert(found.facts.identity(), inode);
            self.named.insert(inode);
        }
        Ok(())
    }
}

impl Found {
    /// `None` for what cannot be looked at, or is of no kind that is known.
    fn of(entry: Entry) -> Option<Found> {
        let facts = entry.facts.ok()?;
        Some(Found { name: entry.name, facts, kind: facts.kind()? })
    }
}
