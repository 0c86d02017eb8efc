//! A tree of files in memory, with what a mount needs to know of it and nothing else.
//!
//! Invariants:
//! - an inode is there as long as a name leads to it or the kernel knows it; then its place is given to another one;
//! - an entry keeps its offset in its directory, and no other entry gets it, so that a listing goes on where it was;
//! - the tree's lock is held for look-ups only. Bytes have a lock of their own, under which they are moved.

use super::content::{Content, FILE_BYTES_MAX, Spares};
use parking_lot::{Mutex, MutexGuard};
use pitfs::clock::Timestamp;
use pitfs::error::Errno;
use pitfs::tree::{Change, SetTime};
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

const ROOT: u64 = 1;
pub const ROOT_MODE: u32 = DIRECTORY | 0o755;
/// How long the kernel may keep what it was told: nothing changes without its knowledge.
pub const KEEP: Duration = Duration::from_secs(24 * 3600);
pub const BLOCK_BYTES: u32 = 4096;
pub const NAME_BYTES_MAX: usize = 255;
/// What statfs(2) shows, whatever memory there is.
pub const BLOCKS: u64 = FILE_BYTES_MAX / BLOCK_BYTES as u64;
pub const INODES: u64 = 1 << 32;

const RENAME_NOREPLACE: u32 = 1;

const TYPE: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o010;

/// Where in a directory entries begin, behind `.` and `..`.
const FIRST_OFFSET: u64 = 3;

pub type Result<T> = std::result::Result<T, Errno>;

/// What stat(2) shows.
#[derive(Clone, Copy, Debug)]
pub struct Attr {
    pub number: u64,
    pub size: u64,
    /// With the type of file.
    pub mode: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
}

impl Attr {
    /// As a directory entry has it, and as the highest four bits of a mode.
    pub fn kind(&self) -> u32 {
        self.mode >> 12
    }

    /// Of 512 bytes.
    pub fn blocks(&self) -> u64 {
        self.size.div_ceil(512)
    }

    fn kill_privileges(&mut self) {
        if self.mode & TYPE == FILE {
            let with_group = if self.mode & GROUP_EXECUTE != 0 { SET_GID } else { 0 };
            self.mode &= !(SET_UID | with_group);
        }
    }
}

/// What is to be made.
#[derive(Clone, Copy, Debug)]
pub struct New<'a> {
    /// With the type of file.
    pub mode: u32,
    pub rdev: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of a symlink.
    pub target: &'a [u8],
}

impl<'a> New<'a> {
    pub fn directory(mode: u32, (uid, gid): (u32, u32)) -> New<'a> {
        New { mode: DIRECTORY | mode & !TYPE, rdev: 0, uid, gid, target: b"" }
    }

    pub fn file(mode: u32, (uid, gid): (u32, u32)) -> New<'a> {
        New { mode: FILE | mode & !TYPE, rdev: 0, uid, gid, target: b"" }
    }

    pub fn symlink(target: &'a [u8], (uid, gid): (u32, u32)) -> New<'a> {
        New { mode: SYMLINK | 0o777, rdev: 0, uid, gid, target }
    }
}

/// Takes the name of an entry, what is behind it, and the offset where to go on; says whether there was no room for it.
pub type Add<'a> = &'a mut dyn FnMut(&[u8], &Attr, u64) -> bool;

enum Body {
    File(Content),
    Directory(Box<Directory>),
    Symlink(Box<[u8]>),
    Other,
}

struct Directory {
    parent: u64,
    offsets: HashMap<Arc<[u8]>, u64>,
    entries: BTreeMap<u64, (Arc<[u8]>, u64)>,
    next_offset: u64,
}

impl Directory {
    fn new(parent: u64) -> Directory {
        Directory { parent, offsets: HashMap::new(), entries: BTreeMap::new(), next_offset: FIRST_OFFSET }
    }

    fn get(&self, name: &[u8]) -> Option<u64> {
        self.entries.get(self.offsets.get(name)?).map(|(_, number)| *number)
    }

    fn insert(&mut self, name: &[u8], number: u64) {
        let name: Arc<[u8]> = name.into();
        self.offsets.insert(name.clone(), self.next_offset);
        self.entries.insert(self.next_offset, (name, number));
        self.next_offset += 1;
    }

    fn remove(&mut self, name: &[u8]) {
        if let Some(offset) = self.offsets.remove(name) {
            self.entries.remove(&offset);
        }
    }
}

struct Inode {
    attr: Attr,
    /// How often the kernel was told of it, and has not forgotten it yet.
    lookups: Cell<u64>,
    body: Body,
}

impl Inode {
    fn told(&self) -> Attr {
        self.lookups.set(self.lookups.get() + 1);
        self.attr
    }
}

/// Inodes, each at the place of its number.
struct Inodes {
    places: Vec<Option<Inode>>,
    free: Vec<u64>,
}

fn place(number: u64) -> usize {
    number.wrapping_sub(ROOT) as usize
}

impl Inodes {
    fn get(&self, number: u64) -> Result<&Inode> {
        self.places.get(place(number)).and_then(Option::as_ref).ok_or(Errno::STALE)
    }

    fn get_mut(&mut self, number: u64) -> Result<&mut Inode> {
        self.places.get_mut(place(number)).and_then(Option::as_mut).ok_or(Errno::STALE)
    }

    fn directory(&self, number: u64) -> Result<&Directory> {
        match &self.get(number)?.body {
            Body::Directory(directory) => Ok(directory),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// A directory whose entries are changed at this time.
    fn change_directory(&mut self, number: u64, now: Timestamp) -> Result<&mut Directory> {
        let inode = self.get_mut(number)?;
        (inode.attr.mtime, inode.attr.ctime) = (now, now);
        match &mut inode.body {
            Body::Directory(directory) => Ok(directory),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// Fails where the name is taken or cannot be given.
    fn check_is_free(&self, parent: u64, name: &[u8]) -> Result<()> {
        match self.directory(parent)?.get(name) {
            Some(_) => Err(Errno::EXIST),
            None if name.len() > NAME_BYTES_MAX => Err(Errno::NAMETOOLONG),
            None => Ok(()),
        }
    }

    fn make(&mut self, parent: u64, name: &[u8], new: New<'_>) -> Result<Attr> {
        self.check_is_free(parent, name)?;
        let above = &self.get(parent)?.attr;
        let group = (above.mode & SET_GID != 0).then_some(above.gid);
        let now = Timestamp::now();
        let number = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() as u64
        });
        let inode = Inode::new(number, parent, new, group, now);
        let attr = inode.told();
        self.places[place(number)] = Some(inode);
        self.change_directory(parent, now)?.insert(name, number);
        Ok(attr)
    }

    /// Takes a name away that leads to `number`; what is not needed any more is given back, for whoever drops it.
    fn remove(&mut self, parent: u64, name: &[u8], number: u64) -> Result<Option<Inode>> {
        let now = Timestamp::now();
        if matches!(&self.get(number)?.body, Body::Directory(directory) if !directory.entries.is_empty()) {
            return Err(Errno::NOTEMPTY);
        }
        self.change_directory(parent, now)?.remove(name);
        let inode = self.get_mut(number)?;
        inode.attr.links -= 1;
        inode.attr.ctime = now;
        Ok(self.take_if_unused(number))
    }

    fn take_if_unused(&mut self, number: u64) -> Option<Inode> {
        let is_unused = self.get(number).is_ok_and(|inode| inode.attr.links == 0 && inode.lookups.get() == 0);
        let inode = if is_unused { self.places[place(number)].take() } else { None };
        self.free.extend(inode.iter().map(|_| number));
        inode
    }

    fn rename(&mut self, from: (u64, &[u8]), to: (u64, &[u8]), flags: u32) -> Result<Option<Inode>> {
        let moved = self.directory(from.0)?.get(from.1).ok_or(Errno::NOENT)?;
        let replaced = match self.check_is_free(to.0, to.1) {
            Err(Errno::EXIST) if flags == 0 => self.directory(to.0)?.get(to.1),
            free => free.map(|()| None)?,
        };
        if flags & !RENAME_NOREPLACE != 0 {
            return Err(Errno::INVAL);
        }
        let gone = match replaced {
            Some(replaced) if replaced == moved => return Ok(None),
            Some(replaced) => self.remove(to.0, to.1, replaced)?,
            None => None,
        };
        let now = Timestamp::now();
        self.change_directory(from.0, now)?.remove(from.1);
        self.change_directory(to.0, now)?.insert(to.1, moved);
        let inode = self.get_mut(moved)?;
        inode.attr.ctime = now;
        if let Body::Directory(directory) = &mut inode.body {
            directory.parent = to.0;
        }
        Ok(gone)
    }
}

impl Inode {
    /// In a directory that hands its group down, if there is one.
    fn new(number: u64, parent: u64, new: New<'_>, group: Option<u32>, now: Timestamp) -> Inode {
        let New { mut mode, rdev, uid, mut gid, target } = new;
        let (size, body) = match mode & TYPE {
            DIRECTORY => (0, Body::Directory(Box::new(Directory::new(parent)))),
            FILE => (0, Body::File(Content::default())),
            SYMLINK => (target.len() as u64, Body::Symlink(target.into())),
            _ => (0, Body::Other),
        };
        if let Some(group) = group {
            gid = group;
            mode |= if mode & TYPE == DIRECTORY { SET_GID } else { 0 };
        }
        // The number of subdirectories is not told.
        let attr = Attr { number, size, mode, links: 1, uid, gid, rdev, atime: now, mtime: now, ctime: now };
        Inode { attr, lookups: Cell::new(0), body }
    }
}

pub struct Tree {
    inodes: Mutex<Inodes>,
    spares: Spares,
}

impl Tree {
    /// A directory with nothing in it.
    pub fn new(uid: u32, gid: u32) -> Tree {
        let new = New::directory(ROOT_MODE, (uid, gid));
        let now = Timestamp::now();
        let root = Inode::new(ROOT, ROOT, new, None, now);
        let inodes = Inodes { places: vec![Some(root)], free: Vec::new() };
        Tree { inodes: Mutex::new(inodes), spares: Spares::default() }
    }

    /// None where there is nothing under the name.
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Result<Option<Attr>> {
        let inodes = self.inodes.lock();
        let found = inodes.directory(parent)?.get(name);
        found.map(|number| inodes.get(number).map(Inode::told)).transpose()
    }

    pub fn forget(&self, number: u64, times: u64) {
        let forgotten = |mut inodes: MutexGuard<'_, Inodes>| {
            let lookups = &inodes.get(number).ok()?.lookups;
            lookups.set(lookups.get().saturating_sub(times));
            inodes.take_if_unused(number)
        };
        self.end(forgotten(self.inodes.lock()));
    }

    /// Frees what is not needed any more, which may be much, without the lock.
    fn end(&self, gone: Option<Inode>) {
        if let Some(Inode { body: Body::File(content), .. }) = gone
            && let Some(content) = Arc::into_inner(content)
        {
            self.spares.keep(content.into_inner());
        }
    }

    pub fn getattr(&self, number: u64) -> Result<Attr> {
        self.inodes.lock().get(number).map(|inode| inode.attr)
    }

    pub fn setattr(&self, number: u64, change: &Change) -> Result<Attr> {
        if let Some(size) = change.size {
            self.spares.resize(&self.content(number)?, size)?;
        }
        let now = Timestamp::now();
        let stamp = |time: SetTime| match time {
            SetTime::Now => now,
            SetTime::To(time) => time,
        };
        let mut inodes = self.inodes.lock();
        let attr = &mut inodes.get_mut(number)?.attr;
        if change.kill_privileges {
            attr.kill_privileges();
        }
        if let Some(permissions) = change.permissions {
            attr.mode = attr.mode & TYPE | permissions & !TYPE;
        }
        if let Some(size) = change.size {
            (attr.size, attr.mtime) = (size, now);
        }
        attr.uid = change.uid.unwrap_or(attr.uid);
        attr.gid = change.gid.unwrap_or(attr.gid);
        attr.atime = change.atime.map_or(attr.atime, stamp);
        attr.mtime = change.mtime.map_or(attr.mtime, stamp);
        attr.ctime = change.ctime.unwrap_or(now);
        Ok(*attr)
    }

    pub fn readlink(&self, number: u64) -> Result<Vec<u8>> {
        match &self.inodes.lock().get(number)?.body {
            Body::Symlink(target) => Ok(target.to_vec()),
            _ => Err(Errno::INVAL),
        }
    }

    pub fn make(&self, parent: u64, name: &[u8], new: New<'_>) -> Result<Attr> {
        self.inodes.lock().make(parent, name, new)
    }

    pub fn link(&self, number: u64, parent: u64, name: &[u8]) -> Result<Attr> {
        let now = Timestamp::now();
        let mut inodes = self.inodes.lock();
        inodes.check_is_free(parent, name)?;
        let inode = inodes.get_mut(number)?;
        inode.attr.links = inode.attr.links.checked_add(1).ok_or(Errno::MLINK)?;
        inode.attr.ctime = now;
        let attr = inode.told();
        inodes.change_directory(parent, now)?.insert(name, number);
        Ok(attr)
    }

    /// Takes a name away, of a directory only if that is empty.
    pub fn remove(&self, parent: u64, name: &[u8]) -> Result<()> {
        let removed = |mut inodes: MutexGuard<'_, Inodes>| {
            let number = inodes.directory(parent)?.get(name).ok_or(Errno::NOENT)?;
            inodes.remove(parent, name, number)
        };
        removed(self.inodes.lock()).map(|gone| self.end(gone))
    }

    pub fn rename(&self, from: (u64, &[u8]), to: (u64, &[u8]), flags: u32) -> Result<()> {
        let renamed = |mut inodes: MutexGuard<'_, Inodes>| inodes.rename(from, to, flags);
        renamed(self.inodes.lock()).map(|gone| self.end(gone))
    }

    /// The bytes of a file, to be read through [`within`](super::content::within).
    pub fn content(&self, number: u64) -> Result<Content> {
        match &self.inodes.lock().get(number)?.body {
            Body::File(content) => Ok(content.clone()),
            Body::Directory(_) => Err(Errno::ISDIR),
            Body::Symlink(_) | Body::Other => Err(Errno::INVAL),
        }
    }

    /// With `kill`, it takes suid and sgid bits away.
    pub fn write(&self, number: u64, offset: u64, data: &[u8], kill: bool) -> Result<()> {
        let end = self.spares.put(&self.content(number)?, offset, data)?;
        let now = Timestamp::now();
        let mut inodes = self.inodes.lock();
        let attr = &mut inodes.get_mut(number)?.attr;
        attr.size = attr.size.max(end);
        (attr.mtime, attr.ctime) = (now, now);
        if kill {
            attr.kill_privileges();
        }
        Ok(())
    }

    /// Lists a directory after an offset. With `is_told`, the kernel knows from now on of what was added, but for `.` and `..`.
    pub fn list(&self, number: u64, offset: u64, is_told: bool, add: Add<'_>) -> Result<()> {
        let inodes = self.inodes.lock();
        let directory = inodes.directory(number)?;
        if offset < 1 && add(b".", &inodes.get(number)?.attr, 1) {
            return Ok(());
        }
        if offset < 2 && add(b"..", &inodes.get(directory.parent)?.attr, 2) {
            return Ok(());
        }
        let further = (Bound::Excluded(offset), Bound::Unbounded);
        for (at, (name, number)) in directory.entries.range(further) {
            let inode = inodes.get(*number)?;
            if add(name, &inode.attr, *at) {
                break;
            }
            if is_told {
                inode.told();
            }
        }
        Ok(())
    }
}
