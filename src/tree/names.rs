//! Directory entries: looking up, listing, making, linking and removing.
//!
//! Entries are keyed by a 63-bit hash of the name. The offset that a listing continues from follows from it and the name
//! (`position.rs`): listings need no state, and an offset stays good whatever happens in between.

use super::inode::{self, Inode, Kind, SETGID};
use super::{NEXT_INODE, Tree, acl, position};
use crate::clock::Timestamp;
use crate::device::{BaseId, InodeAt, InodeNo, Moment, Note, State, Txn};
use crate::error::{Errno, Error, Result};
use crate::limits::*;
use crate::meta::{Table, hex, is_name, record_name};
use crate::shown::shown;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::ops::ControlFlow;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Entries of one run that a listing keeps in memory.
const RUN_ENTRIES_MAX: usize = 1 << 16;

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Dirent {
    pub inode: InodeNo,
    pub kind: u8,
}

impl Dirent {
    /// As it is stored: with the number alone.
    pub(super) fn new(inode: InodeNo, kind: Kind) -> Dirent {
        Dirent { inode, kind: kind as u8 }.stored()
    }

    pub(super) fn stored(self) -> Dirent {
        Dirent { inode: self.inode.bare(), ..self }
    }

    /// As it is used: with the base of its directory.
    pub(super) fn inside(self, directory: InodeNo) -> Dirent {
        Dirent { inode: self.inode.in_base(directory.base()), ..self }
    }
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: Vec<u8>,
    pub inode: InodeNo,
    pub kind: Kind,
    /// Where a listing continues after this entry.
    pub offset: u64,
}

/// Who makes something.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    pub umask: u32,
}

/// What is to be made.
#[derive(Clone, Copy, Debug)]
pub struct New<'a> {
    pub kind: Kind,
    pub permissions: u32,
    pub rdev: u32,
    /// A symlink's target; empty for everything else.
    pub target: &'a [u8],
}

/// A name that something can be given.
pub(super) fn check_name(name: &[u8]) -> Result<()> {
    match name {
        _ if is_name(name) => Ok(()),
        b"" => Err(Error::Posix(Errno::NOENT)),
        _ if name.len() > NAME_BYTES_MAX => Err(Error::Posix(Errno::NAMETOOLONG)),
        _ => Err(Error::Posix(Errno::INVAL)),
    }
}

/// The names of a tree: entries of directories, and the ways to them.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    pub(super) tree: &'a Tree,
}

impl Names<'_> {
    pub(super) fn dirent_key(self, parent: InodeNo, name: &[u8]) -> Vec<u8> {
        [&parent.prefix()[..], &self.hash_of(name).to_be_bytes(), name].concat()
    }

    fn hash_of(self, name: &[u8]) -> u64 {
        position::clamp(xxh3_64_with_seed(name, self.tree.device.settings().hash_seed) >> 1)
    }

    /// The entry that a record of a directory says, with its hash: the only place where one is taken apart. Where its name cannot
    /// be one, or lies where it would not be looked for, the record is damaged.
    fn take_apart<'k>(self, key: &'k [u8], value: &[u8]) -> Result<(u64, &'k [u8], InodeNo, Kind)> {
        let damaged = |problem: &str| Error::corrupt(format!("record {} of table dirent", hex(key)), problem);
        let directory = InodeNo::of_key(key).ok_or_else(|| damaged("its key is that of no entry"))?;
        let rest = key.get(directory.prefix().len()..).unwrap_or_default();
        let (hash, name) = rest.split_first_chunk::<8>().ok_or_else(|| damaged("its key is that of no entry"))?;
        let entry = || format!("the entry \"{}\" of directory {}", shown(name), directory.number());
        if !is_name(name) {
            return Err(Error::corrupt(entry(), "nothing can have this name"));
        }
        let hash = u64::from_be_bytes(*hash);
        if hash != self.hash_of(name) {
            return Err(Error::corrupt(entry(), "it lies where its name would not be looked for"));
        }
        let dirent: Dirent = crate::meta::decode(Table::Dirent, key, value)?;
        if !dirent.inode.is_bare() {
            return Err(Error::corrupt(entry(), format!("no inode has the number {:?}", dirent.inode)));
        }
        let kind = Kind::from_number(dirent.kind);
        let kind = kind.ok_or_else(|| Error::corrupt(entry(), format!("there is no kind {}", dirent.kind)))?;
        Ok((hash, name, dirent.inside(directory).inode, kind))
    }

    /// The entry that a record of a directory says.
    pub fn entry_of(self, key: &[u8], value: &[u8]) -> Result<Entry> {
        let (hash, name, inode, kind) = self.take_apart(key, value)?;
        Ok(Entry { name: name.to_vec(), inode, kind, offset: self.tree.positions.of(hash, name) })
    }

    pub(super) fn find(self, state: &State, parent: InodeAt, name: &[u8]) -> Result<Option<Dirent>> {
        // What cannot be a name is not looked for: a record of it would be damage.
        if !is_name(name) {
            return Ok(None);
        }
        let found: Option<Dirent> = state.get(Table::Dirent, &self.dirent_key(parent.inode, name), parent.moment)?;
        Ok(found.map(|dirent| dirent.inside(parent.inode)))
    }

    fn find_existing(self, state: &State, parent: InodeNo, name: &[u8]) -> Result<Dirent> {
        self.find(state, parent.live(), name)?.ok_or(Error::Posix(Errno::NOENT))
    }

    /// The inode behind a name; ENOENT where there is none.
    pub fn lookup(self, parent: InodeAt, name: &[u8]) -> Result<(InodeNo, Inode)> {
        if name.len() > NAME_BYTES_MAX {
            return Err(Error::Posix(Errno::NAMETOOLONG));
        }
        let look = self.tree.device.look()?;
        look.moments().check(parent)?;
        match self.find(&look, parent, name)? {
            Some(dirent) => Ok((dirent.inode, inode::load(&look, dirent.inode.at(parent.moment))?)),
            None => {
                inode::load_directory(&look, parent)?;
                Err(Error::Posix(Errno::NOENT))
            }
        }
    }

    /// Lists entries after an offset, in order, until `each` says no. `.` and `..` are not among them.
    pub fn list(self, directory: InodeAt, offset: u64, mut each: impl FnMut(&Entry) -> Result<bool>) -> Result<()> {
        let look = self.tree.device.look()?;
        look.moments().check(directory)?;
        list_in(self.tree, &look, directory, offset, &mut |entry| each(entry))
    }

    /// Lists entries together with their inodes; otherwise like [`Names::list`].
    pub fn list_with_inodes(
        self,
        directory: InodeAt,
        offset: u64,
        mut each: impl FnMut(&Entry, &Inode) -> Result<bool>,
    ) -> Result<()> {
        self.list_with_what_is_known(directory, offset, |entry, found| each(entry, &found?))
    }

    /// The same where one that cannot be read keeps nobody from the others.
    pub fn list_with_what_is_known(
        self,
        directory: InodeAt,
        offset: u64,
        mut each: impl FnMut(&Entry, Result<Inode>) -> Result<bool>,
    ) -> Result<()> {
        let look = self.tree.device.look()?;
        look.moments().check(directory)?;
        list_in(self.tree, &look, directory, offset, &mut |entry| {
            each(entry, inode::load(&look, entry.inode.at(directory.moment)))
        })
    }

    pub fn read_link(self, at: InodeAt) -> Result<Vec<u8>> {
        let found = self.tree.inode(at)?;
        match found.kind() {
            Kind::Symlink => Ok(found.inline.into_vec()),
            _ => Err(Error::Posix(Errno::INVAL)),
        }
    }

    /// Makes a file, directory, symlink or special file.
    pub fn make(self, caller: Caller, parent: InodeNo, name: &[u8], new: New<'_>) -> Result<(InodeNo, Inode)> {
        self.tree.with_room(|| self.make_once(caller, parent, name, new))
    }

    fn make_once(self, caller: Caller, parent: InodeNo, name: &[u8], new: New<'_>) -> Result<(InodeNo, Inode)> {
        check_name(name)?;
        if new.target.len() > SYMLINK_BYTES_MAX {
            return Err(Error::Posix(Errno::NAMETOOLONG));
        }
        let mut txn = self.tree.device.begin_growing()?;
        let directory = inode::load_directory(&txn, parent.live())?;
        if directory.links == 0 {
            return Err(Error::Posix(Errno::NOENT));
        }
        if txn.exists(Table::Dirent, &self.dirent_key(parent, name))? {
            return Err(Error::Posix(Errno::EXIST));
        }
        if new.kind == Kind::Directory && directory.links >= LINKS_MAX {
            return Err(Error::Posix(Errno::MLINK));
        }
        let now = self.tree.stamps.now();
        let number = new_number(&mut txn, parent.base())?;
        let inherited = if new.kind == Kind::Symlink { None } else { acl::inherit(&txn, parent, new.permissions)? };
        let permissions = match &inherited {
            Some(inherited) => inherited.permissions,
            None if new.kind == Kind::Symlink => 0o777,
            None => new.permissions & !caller.umask,
        };
        let mut made = Inode::new(new.kind, permissions, caller.uid, caller.gid, now);
        if directory.is_setgid() {
            made.gid = directory.gid;
            if new.kind == Kind::Directory {
                made.mode |= SETGID;
            }
        }
        made.rdev = new.rdev;
        made.parent = parent;
        made.name = ByteBuf::from(name);
        if new.kind == Kind::Symlink {
            made.size = new.target.len() as u64;
            made.inline = ByteBuf::from(new.target);
        }
        if let Some(inherited) = inherited {
            inherited.store(&mut txn, number, new.kind == Kind::Directory)?;
        }
        self.add_entry(&mut txn, directory, number, &made, now)?;
        txn.finish()?;
        Ok((number, made))
    }

    /// Stores a new inode and its entry in a directory.
    pub(super) fn add_entry(
        self,
        txn: &mut Txn<'_>,
        mut directory: Inode,
        number: InodeNo,
        made: &Inode,
        now: Timestamp,
    ) -> Result<()> {
        let kind = made.kind();
        inode::store(txn, number, made)?;
        let key = self.dirent_key(made.parent, &made.name);
        txn.set(Table::Dirent, &key, &Dirent::new(number, kind))?;
        directory.size += 1;
        directory.links += u32::from(kind == Kind::Directory);
        directory.touch(now);
        inode::store(txn, made.parent, &directory)?;
        txn.note(number, Note::Created);
        Ok(())
    }

    /// Gives an inode one more name.
    pub fn link(self, number: InodeNo, parent: InodeNo, name: &[u8]) -> Result<Inode> {
        self.tree.with_room(|| self.link_once(number, parent, name))
    }

    fn link_once(self, number: InodeNo, parent: InodeNo, name: &[u8]) -> Result<Inode> {
        check_name(name)?;
        if number.base() != parent.base() {
            return Err(Error::Posix(Errno::XDEV));
        }
        let mut txn = self.tree.device.begin_growing()?;
        let mut target = inode::load(&txn, number.live())?;
        let mut directory = inode::load_directory(&txn, parent.live())?;
        if target.is_directory() {
            return Err(Error::Posix(Errno::PERM));
        }
        if target.links == 0 || directory.links == 0 {
            return Err(Error::Posix(Errno::NOENT));
        }
        if target.links >= LINKS_MAX {
            return Err(Error::Posix(Errno::MLINK));
        }
        let key = self.dirent_key(parent, name);
        if txn.exists(Table::Dirent, &key)? {
            return Err(Error::Posix(Errno::EXIST));
        }
        let now = self.tree.stamps.now();
        txn.set(Table::Dirent, &key, &Dirent::new(number, target.kind()))?;
        txn.set(Table::Link, &link_key(number, parent, name), &())?;
        target.links += 1;
        target.ctime = now;
        inode::store(&mut txn, number, &target)?;
        directory.size += 1;
        directory.touch(now);
        inode::store(&mut txn, parent, &directory)?;
        txn.finish()?;
        Ok(target)
    }

    /// Removes a name that is not a directory's.
    pub fn unlink(self, parent: InodeNo, name: &[u8]) -> Result<InodeNo> {
        let mut txn = self.tree.device.begin()?;
        let dirent = self.find_existing(&txn, parent, name)?;
        if dirent.kind == Kind::Directory as u8 {
            return Err(Error::Posix(Errno::ISDIR));
        }
        let now = self.tree.stamps.now();
        let is_gone = self.drop_name(&mut txn, parent, name, dirent, now)?;
        self.count(&mut txn, parent, -1, 0, now)?;
        txn.finish()?;
        if is_gone {
            self.tree.reap_if_orphan(dirent.inode);
        }
        Ok(dirent.inode)
    }

    /// Removes an empty directory.
    pub fn remove_directory(self, parent: InodeNo, name: &[u8]) -> Result<InodeNo> {
        let mut txn = self.tree.device.begin()?;
        let dirent = self.find_existing(&txn, parent, name)?;
        if dirent.kind != Kind::Directory as u8 {
            return Err(Error::Posix(Errno::NOTDIR));
        }
        let now = self.tree.stamps.now();
        self.drop_directory(&mut txn, parent, name, dirent, now)?;
        self.count(&mut txn, parent, -1, -1, now)?;
        txn.finish()?;
        self.tree.held.died(dirent.inode);
        self.tree.reap_if_orphan(dirent.inode);
        Ok(dirent.inode)
    }

    /// Removes an entry of a file and the inode's knowledge of it; whether that was its last name.
    pub(super) fn drop_name(
        self,
        txn: &mut Txn<'_>,
        parent: InodeNo,
        name: &[u8],
        dirent: Dirent,
        now: Timestamp,
    ) -> Result<bool> {
        txn.unset(Table::Dirent, &self.dirent_key(parent, name))?;
        let mut target = inode::load(txn, dirent.inode.live())?;
        txn.note(dirent.inode, Note::NeedsCommit);
        target.links = target.links.saturating_sub(1);
        target.ctime = now;
        if target.links == 0 {
            txn.add_orphan(dirent.inode);
        } else {
            self.tree.dropped.note(dirent.inode);
            forget_name(txn, dirent.inode, &mut target, parent, name)?;
        }
        inode::store(txn, dirent.inode, &target)?;
        Ok(target.links == 0)
    }

    /// Removes an entry of a directory, which has to be empty, and with it the directory.
    pub(super) fn drop_directory(
        self,
        txn: &mut Txn<'_>,
        parent: InodeNo,
        name: &[u8],
        dirent: Dirent,
        now: Timestamp,
    ) -> Result<()> {
        let mut target = inode::load_directory(txn, dirent.inode.live())?;
        if target.size > 0 {
            return Err(Error::Posix(Errno::NOTEMPTY));
        }
        txn.unset(Table::Dirent, &self.dirent_key(parent, name))?;
        target.links = 0;
        target.ctime = now;
        txn.add_orphan(dirent.inode);
        inode::store(txn, dirent.inode, &target)
    }
}

/// The directory and the name of an entry with this key.
pub(super) fn place_of(key: &[u8]) -> Result<(InodeNo, &[u8])> {
    let damaged = || Error::corrupt(format!("record {} of table dirent", hex(key)), "its key is that of no entry");
    let directory = InodeNo::of_key(key).ok_or_else(damaged)?;
    let rest = key.get(directory.prefix().len()..).unwrap_or_default();
    let (_, name) = rest.split_first_chunk::<8>().filter(|(_, name)| is_name(name)).ok_or_else(damaged)?;
    Ok((directory, name))
}

/// Where a record of a directory leads, whatever its name is.
pub(super) fn leads_to(key: &[u8], value: &[u8]) -> Result<InodeNo> {
    let directory = InodeNo::of_key(key).ok_or_else(|| Error::corrupt(hex(key), "it is the key of no entry"))?;
    Ok(crate::meta::decode::<Dirent>(Table::Dirent, key, value)?.inside(directory).inode)
}

/// A number that no inode has had.
pub(super) fn new_number(txn: &mut Txn<'_>, base: BaseId) -> Result<InodeNo> {
    let next: Option<u64> = txn.meta().get(Table::State, NEXT_INODE)?;
    let number = next.ok_or_else(|| Error::corrupt("the metadata (meta.redb)", "it has no next inode number"))?;
    if number >> INODE_BITS != 0 {
        return Err(Error::Refused(Errno::NOSPC, "this store has had all the inodes it can count".into()));
    }
    txn.meta_mut().put(Table::State, NEXT_INODE, &(number + 1));
    Ok(InodeNo::new(base, number))
}

pub(super) fn link_key(inode: InodeNo, parent: InodeNo, name: &[u8]) -> Vec<u8> {
    [&inode.prefix()[..], &parent.number().to_be_bytes(), name].concat()
}

/// The directory and the name that a key of the link table holds.
pub(super) fn split_link_key(key: &[u8]) -> Result<(InodeNo, &[u8])> {
    match key.get(12..).and_then(|rest| rest.split_first_chunk::<8>()) {
        Some((parent, name)) if is_name(name) => {
            match (InodeNo::of_key(key), InodeNo::from_bare(u64::from_be_bytes(*parent))) {
                (Some(inode), Some(parent)) => Ok((parent.in_base(inode.base()), name)),
                _ => Err(Error::corrupt(record_name(Table::Link, key), "its key names what is no inode")),
            }
        }
        Some((_, name)) => {
            let number = InodeNo::of_key(key).unwrap_or_default();
            let record = format!("the further name \"{}\" of inode {number}", shown(name));
            Err(Error::corrupt(record, "nothing can have this name"))
        }
        None => Err(Error::corrupt(record_name(Table::Link, key), "its key is that of no name")),
    }
}

/// The inode has lost a name: another one takes the place of the first if it was that.
pub(super) fn forget_name(
    txn: &mut Txn<'_>,
    number: InodeNo,
    target: &mut Inode,
    parent: InodeNo,
    name: &[u8],
) -> Result<()> {
    if target.parent != parent || target.name != name {
        txn.unset(Table::Link, &link_key(number, parent, name))?;
        return Ok(());
    }
    let mut other = None;
    let prefix = number.prefix();
    txn.scan(Table::Link, &prefix, &crate::meta::prefix_end(&prefix), Moment::Live, |key, _| {
        other = Some(split_link_key(key).map(|(parent, name)| (parent, name.to_vec()))?);
        Ok(ControlFlow::Break(()))
    })?;
    if let Some((parent, name)) = other {
        txn.unset(Table::Link, &link_key(number, parent, &name))?;
        target.parent = parent;
        target.name = ByteBuf::from(name);
    }
    Ok(())
}

fn list_in(
    tree: &Tree,
    state: &State,
    directory: InodeAt,
    offset: u64,
    each: &mut dyn FnMut(&Entry) -> Result<bool>,
) -> Result<()> {
    inode::load_directory(state, directory)?;
    let prefix = directory.inode.prefix();
    let to = crate::meta::prefix_end(&prefix);
    let mut run = Run::after(offset);
    loop {
        let from = [&prefix[..], &position::run_start(run.after).to_be_bytes()].concat();
        let mut goes_on = true;
        state.scan(Table::Dirent, &from, &to, directory.moment, |key, value| {
            let (hash, name, inode, kind) = tree.names().take_apart(key, value)?;
            if run.ends_before(hash) {
                goes_on = run.deliver(each)?;
                if !goes_on || run.is_cut {
                    return Ok(ControlFlow::Break(()));
                }
            }
            run.add(tree.positions.of(hash, name), name, inode, kind);
            Ok(ControlFlow::Continue(()))
        })?;
        if !goes_on || !run.deliver(each)? || !std::mem::take(&mut run.is_cut) {
            return Ok(());
        }
    }
}

/// The entries of the run that a listing has come to: one, in almost all directories.
struct Run {
    /// Those from `len` on are buffers to be used again.
    entries: Vec<Entry>,
    len: usize,
    /// What comes after this position is wanted.
    after: u64,
    /// There were more than are kept: what comes after them is to be looked for again.
    is_cut: bool,
}

impl Run {
    fn after(after: u64) -> Run {
        Run { entries: Vec::new(), len: 0, after, is_cut: false }
    }

    /// Whether a hash is the first of another run.
    fn ends_before(&self, hash: u64) -> bool {
        self.len > 0 && position::run_start(self.entries[0].offset) != position::run_start(hash)
    }

    fn add(&mut self, position: u64, name: &[u8], inode: InodeNo, kind: Kind) {
        if position <= self.after {
            return;
        }
        if self.len == 2 * RUN_ENTRIES_MAX {
            self.cut();
        }
        match self.entries.get_mut(self.len) {
            Some(entry) => {
                entry.name.clear();
                entry.name.extend_from_slice(name);
                (entry.inode, entry.kind, entry.offset) = (inode, kind, position);
            }
            None => self.entries.push(Entry { name: name.to_vec(), inode, kind, offset: position }),
        }
        self.len += 1;
    }

    /// Keeps the first entries of many, and no part of those with one position.
    fn cut(&mut self) {
        self.sort();
        self.len = RUN_ENTRIES_MAX;
        while self.len > 1 && self.entries[self.len - 1].offset == self.entries[self.len].offset {
            self.len -= 1;
        }
        self.is_cut = true;
    }

    fn sort(&mut self) {
        if self.len > 1 {
            self.entries[..self.len].sort_unstable_by(|a, b| (a.offset, &a.name).cmp(&(b.offset, &b.name)));
        }
    }

    /// Hands out what there is, in order; false if no more is wanted.
    fn deliver(&mut self, each: &mut dyn FnMut(&Entry) -> Result<bool>) -> Result<bool> {
        self.sort();
        let len = std::mem::take(&mut self.len);
        for i in 0..len {
            self.after = self.entries[i].offset;
            // Two of one position, which nobody can bring about, come together: who goes on between them gets both again.
            let is_shared = i + 1 < len && self.entries[i + 1].offset == self.after;
            self.entries[i].offset -= u64::from(is_shared);
            if !each(&self.entries[i])? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
