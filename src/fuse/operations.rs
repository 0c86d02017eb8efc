//! What each request means: plain arguments, plain results, whatever brings the one and takes the other. Names are those of
//! the kernel's requests.

use super::attr::{Attr, Made};
use super::nodes::FOR_WRITING;
use super::number::{KernelNo, Node, ROOT};
use super::{FileSystem, KEEP, Opens, beside};
use crate::device::aloud;
use crate::error::{Errno, Error, Result};
use crate::limits::{COPY_BYTES_MAX, NAME_BYTES_MAX, STEP_TRACKS};
use crate::tree::dropped;
use crate::tree::{Asker, Caller, Change, Kind, New, Position, RenameMode, Sent, SetMode, SetXattr};
use crate::view::{Virtual, name_of};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Flags of setxattr(2), renameat2(2) and open(2), as the kernel passes them on.
const XATTR_CREATE: u32 = 1;
const XATTR_REPLACE: u32 = 2;
const RENAME_NOREPLACE: u32 = 1;
const RENAME_EXCHANGE: u32 = 2;
const APPEND: u32 = 0o2000;

/// For what a request makes in passing and that does not tell its caller's.
const UMASK: u32 = 0o022;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
}

impl Client {
    pub fn caller(self, umask: u32) -> Caller {
        Caller { uid: self.uid, gid: self.gid, umask }
    }

    /// Whether it may keep suid and sgid bits of what it changes.
    pub fn keeps_privileges(self) -> bool {
        self.uid == 0
    }

    /// Whether it belongs to a group, as far as that can be seen.
    pub fn is_in_group(self, gid: u32) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
        self.gid == gid || groups.split_whitespace().any(|group| group.parse() == Ok(gid))
    }
}

/// What is behind a name.
pub(super) enum Found {
    Made(Made),
    /// There is nothing, which may be remembered for so long.
    Nothing(Duration),
}

/// What a write asks for, besides its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    pub offset: u64,
    /// It takes suid and sgid bits away.
    pub kill: bool,
    /// The kernel writes out what it kept.
    pub from_cache: bool,
    /// With which the file was opened.
    pub flags: u32,
}

/// A value of xattrs, or what room it takes, for who does not know yet.
pub(super) enum Value {
    Length(u32),
    Bytes(Vec<u8>),
}

impl Value {
    /// As it is answered who has room for so many bytes; who has none wants to know the length.
    fn within(bytes: Vec<u8>, room: u32) -> Result<Value> {
        match bytes.len() as u32 {
            length if room == 0 => Ok(Value::Length(length)),
            length if length > room => Err(Error::Posix(Errno::RANGE)),
            _ => Ok(Value::Bytes(bytes)),
        }
    }
}

/// What statfs(2) shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub blocks: u64,
    pub free: u64,
    pub inodes: u64,
    pub block_bytes: u32,
    pub name_bytes: u32,
}

impl FileSystem {
    pub(super) fn lookup(&self, client: Client, parent: KernelNo, name: &[u8]) -> Result<Found> {
        let found = {
            let _telling = self.numbers.telling(parent, name);
            let found = self.lookup_in(client, parent, name);
            found.map(|(attr, keep)| Made { attr, generation: self.hold(attr.number), keep })
        };
        match found {
            Ok(made) => {
                self.wait_for_count(client, [made.attr.number]);
                Ok(Found::Made(made))
            }
            // That there is nothing may be remembered as well, but of times.
            Err(Error::Posix(Errno::NOENT)) if self.may_be_kept(parent, name) => Ok(Found::Nothing(KEEP)),
            Err(error) => Err(error),
        }
    }

    fn lookup_in(&self, client: Client, parent: KernelNo, name: &[u8]) -> Result<(Attr, Duration)> {
        if parent == ROOT
            && self.beside.is_asking(client.pid)
            && let Some(number) = beside::number_in(name)
        {
            return Ok((self.attr_of(number)?, Duration::ZERO));
        }
        let place = match self.numbers.node(parent)? {
            Node::In(place) => place,
            Node::Virtual(node) => {
                let is_in = |group| client.is_in_group(group);
                return self.virtual_lookup(&Asker { uid: client.uid, is_in: &is_in }, &node, name);
            }
        };
        match self.views.tree().names().lookup(place.at, name) {
            Ok((inode, found)) => {
                let attr = self.attributes_of(place.to(inode), &found)?;
                Ok((attr, self.keep_attributes(&attr)))
            }
            Err(Error::Posix(Errno::NOENT)) => self.hidden_lookup(place, name),
            Err(error) => Err(error),
        }
    }

    /// What the kernel may know from now on of something that was made.
    fn made(&self, attr: Attr) -> Made {
        Made { attr, generation: self.hold(attr.number), keep: self.keep_attributes(&attr) }
    }

    /// Whoever is told of these inodes waits until the kernel has counted the names that others have just removed.
    pub(super) fn wait_for_count(&self, client: Client, numbers: impl IntoIterator<Item = KernelNo>) {
        let dropped = self.views.tree().dropped();
        if !dropped.is_any() {
            return;
        }
        let rest = |number| self.live_inode(number).and_then(|inode| dropped.rest(inode, client.pid));
        if let Some(rest) = numbers.into_iter().filter_map(rest).max() {
            std::thread::sleep(rest);
        }
    }

    pub(super) fn getattr(&self, client: Client, number: KernelNo) -> Result<(Attr, Duration)> {
        self.unwritten().ending_for(client.pid, number)?;
        let attr = self.attr_of(number)?;
        self.wait_for_count(client, [number]);
        Ok((attr, self.keep_attributes(&attr)))
    }

    /// Whether [`FileSystem::setattr`] takes long.
    pub(super) fn is_setattr_long(&self, number: KernelNo, change: &Change) -> bool {
        change.size.is_some_and(|size| self.has_more_tracks(number, size, STEP_TRACKS))
    }

    /// `kill_privileges` of the change is set here.
    pub(super) fn setattr(&self, client: Client, number: KernelNo, change: Change) -> Result<(Attr, Duration)> {
        if self.beside.is_asking(client.pid) {
            // To learn what the file is.
            let attr = self.attr_of(number)?;
            if let (Some(_), Ok(Node::In(place))) = (change.size, self.numbers.node(number)) {
                self.views.tree().end_given(place.inode(), attr.size);
            }
            self.wait_for_count(client, [number]);
            return Ok((attr, self.keep_attributes(&attr)));
        }
        let Change { permissions, uid, gid, size, .. } = change;
        let is_of_times = (permissions, uid, gid, size) == (None, None, None, None);
        // A change of owner clears the bits whoever makes it, unless it sets the mode as well.
        let kill_privileges = uid.is_some() || gid.is_some() || !client.keeps_privileges();
        let attr = self.change_node(number, Change { kill_privileges, ..change }, is_of_times)?;
        self.wait_for_count(client, [number]);
        Ok((attr, self.keep_attributes(&attr)))
    }

    pub(super) fn readlink(&self, number: KernelNo) -> Result<Vec<u8>> {
        match self.numbers.node(number)? {
            Node::In(place) => self.views.tree().names().read_link(place.at),
            Node::Virtual(node) => self.namespace.read_link(&node),
        }
    }

    pub(super) fn mknod(
        &self,
        client: Client,
        parent: KernelNo,
        name: &[u8],
        (mode, umask, rdev): (u32, u32, u32),
    ) -> Result<Made> {
        let kind = Kind::from_mode(mode).ok_or(Error::Posix(Errno::INVAL))?;
        let new = New { kind, permissions: mode & 0o7777, rdev, target: b"" };
        Ok(self.made(self.make(client, umask, parent, name, new)?))
    }

    /// Whether a directory made here is a snapshot, or a base.
    pub(super) fn is_above_trees(&self, parent: KernelNo) -> bool {
        matches!(self.numbers.node(parent), Ok(Node::Virtual(node)) if name_of(&node).is_none())
    }

    pub(super) fn mkdir(
        &self,
        client: Client,
        parent: KernelNo,
        name: &[u8],
        (mode, umask): (u32, u32),
    ) -> Result<Made> {
        let new = New { kind: Kind::Directory, permissions: mode & 0o7777, rdev: 0, target: b"" };
        Ok(self.made(self.make(client, umask, parent, name, new)?))
    }

    /// Takes a snapshot in a base's directory; makes a base in one above these. With the writeback cache, it waits for other
    /// requests: not on a thread that serves them.
    pub(super) fn mkdir_above(&self, client: Client, parent: KernelNo, name: &[u8]) -> Result<Made> {
        let Node::Virtual(node) = self.numbers.node(parent)? else { return Err(Error::Posix(Errno::PERM)) };
        let make = || self.namespace.make(&node, name, client.uid, client.gid);
        // Fetching what the kernel keeps is nothing that a front does for itself.
        let target = if self.writeback { aloud(make) } else { make() }?;
        let attr = self.attributes_of_target(&target)?;
        self.hold(attr.number);
        Ok(Made { attr, generation: 0, keep: KEEP })
    }

    pub(super) fn unlink(&self, client: Client, parent: KernelNo, name: &[u8]) -> Result<()> {
        let parent = self.writable(parent)?;
        dropped::by(client.pid, || self.views.tree().names().unlink(parent, name))?;
        self.settle(())
    }

    pub(super) fn rmdir(&self, client: Client, parent: KernelNo, name: &[u8]) -> Result<()> {
        match self.numbers.node(parent)? {
            Node::In(place) => {
                let parent = self.writable(parent)?;
                self.check_may_go(parent, name)?;
                match self.views.tree().names().remove_directory(parent, name) {
                    Err(Error::Posix(Errno::NOENT)) => self.hide(place, name),
                    removed => removed.and_then(|_| self.settle(())),
                }
            }
            Node::Virtual(node) => self.rmdir_above(client, &node, name),
        }
    }

    fn rmdir_above(&self, client: Client, node: &Virtual, name: &[u8]) -> Result<()> {
        if self.namespace.is_tree(node, name)? {
            // A tree with files in it; `pitfs clone delete` means it.
            return Err(Error::Posix(Errno::NOTEMPTY));
        }
        let base = self.namespace.base_shown(node).ok_or(Error::Posix(Errno::PERM))?;
        let live = self.path_of_live(base)?;
        // The kernel asks only about the directory itself, and would keep what is inside where nobody reaches it.
        self.check_nothing_inside(live.parent().unwrap_or(Path::new("")), name)?;
        self.namespace.remove(node, name, client.uid)
    }

    pub(super) fn symlink(&self, client: Client, parent: KernelNo, name: &[u8], target: &[u8]) -> Result<Made> {
        let new = New { kind: Kind::Symlink, permissions: 0o777, rdev: 0, target };
        Ok(self.made(self.make(client, 0, parent, name, new)?))
    }

    pub(super) fn rename(
        &self,
        client: Client,
        (parent, name): (KernelNo, &[u8]),
        (new_parent, new_name): (KernelNo, &[u8]),
        flags: u32,
    ) -> Result<()> {
        let mode = match flags {
            0 => RenameMode::Replace,
            RENAME_NOREPLACE => RenameMode::NoReplace,
            RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return Err(Error::Posix(Errno::INVAL)),
        };
        let target = self.node_for_new(client.caller(UMASK), new_parent)?;
        let (from, to) = match (self.numbers.node(parent)?, target) {
            (Node::In(from), Node::In(to)) if from.way == to.way => {
                crate::view::check_writable(from.moment())?;
                (from.inode(), to.inode())
            }
            (Node::Virtual(_), _) if mode == RenameMode::Exchange => return Err(Error::Posix(Errno::INVAL)),
            (Node::Virtual(node), _) if parent == new_parent => return self.namespace.rename(&node, name, new_name),
            _ => return Err(Error::Posix(Errno::XDEV)),
        };
        if mode == RenameMode::Replace {
            self.check_may_go(to, new_name)?;
        }
        dropped::by(client.pid, || self.views.tree().names().rename(from, name, to, new_name, mode))?;
        // What is hidden under that name is gone to the kernel, which saw it replaced.
        self.forget_hidden(to, new_name);
        self.settle(())
    }

    pub(super) fn link(&self, client: Client, number: KernelNo, parent: KernelNo, name: &[u8]) -> Result<Made> {
        let target = self.node_for_new(client.caller(UMASK), parent)?;
        let (Node::In(place), Node::In(parent)) = (self.numbers.node(number)?, target) else {
            return Err(Error::Posix(Errno::PERM));
        };
        if place.way != parent.way {
            return Err(Error::Posix(Errno::XDEV));
        }
        crate::view::check_writable(place.moment())?;
        let linked = self.views.tree().names().link(place.inode(), parent.inode(), name)?;
        let made = self.made(self.settle(self.attributes_of(place, &linked)?)?);
        self.wait_for_count(client, [number]);
        Ok(made)
    }

    /// The handle of a file that is opened. With `open=none` ENOSYS, once for all files.
    pub(super) fn open(&self, client: Client, number: KernelNo, flags: i32) -> Result<u64> {
        if self.opens == Opens::None {
            return Err(Error::Posix(Errno::NOSYS));
        }
        if self.beside.is_asking(client.pid) {
            // It writes nothing, also to what may not be written to.
            return Ok(super::nodes::FOR_READING);
        }
        let opened = self.open_node(number, flags)?;
        if opened == FOR_WRITING {
            self.ask_for_blocks_again(number);
        }
        Ok(opened)
    }

    pub(super) fn release(&self, number: KernelNo, handle: u64) {
        if self.close_node(number, handle) {
            self.ask_for_blocks_again(number);
        }
    }

    pub(super) fn read(&self, number: KernelNo, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.views.tree().files().read(self.inside(number)?, offset, len)
    }

    /// The same into what there is room for; how many bytes.
    pub(super) fn read_into(&self, number: KernelNo, offset: u64, out: &mut [u8]) -> Result<usize> {
        self.views.tree().files().read_into(self.inside(number)?, offset, out)
    }

    pub(super) fn write(self: &Arc<Self>, number: KernelNo, data: &[u8], write: Write) -> Result<()> {
        let written = self.writable(number).and_then(|inode| {
            let Write { offset, kill, from_cache, flags } = write;
            let sent = Sent { from_cache, appended: !from_cache && flags & APPEND != 0 };
            // Of all other writes the kernel knows that they change blocks.
            let before = (self.writeback && from_cache).then(|| self.unwritten().stored_blocks(inode));
            let written = self.views.tree().files().write_sent(inode, offset, data, kill, sent);
            if let Err(error) = written {
                // What may not be written is nobody's to miss.
                if from_cache && !matches!(error, Error::Gone | Error::Posix(Errno::ROFS)) {
                    self.not_stored.note(inode);
                }
                return Err(error);
            }
            if before.is_some_and(|before| before != self.unwritten().stored_blocks(inode)) {
                self.drop_attributes(number);
            }
            Ok(())
        });
        if let Err(Error::Posix(Errno::ROFS)) = written {
            self.drop_written(number, write.offset, data.len());
        }
        written
    }

    /// Snapshots are durable from their beginning; so is the root's list of them.
    pub(super) fn fsync(&self, number: KernelNo) -> Result<()> {
        match self.numbers.node(number)? {
            Node::In(place) if place.at.is_live() => self.views.tree().files().sync_inode(place.inode()),
            Node::In(_) | Node::Virtual(_) => Ok(()),
        }
    }

    /// Whether a change of names is committed before it is answered.
    pub(super) fn waits_for_disk(&self, is_of_names: bool) -> bool {
        self.dirsync && is_of_names
    }

    /// Whether a change waits until others were stored.
    pub(super) fn is_throttled(&self) -> bool {
        self.views.tree().device().is_throttled()
    }

    pub(super) fn statfs(&self) -> Result<Room> {
        const BLOCK: u64 = 4096;
        let space = self.views.tree().space()?;
        Ok(Room {
            blocks: space.total / BLOCK,
            free: space.available / BLOCK,
            // Inodes are not limited by number; this is what tools are told.
            inodes: 1 << 32,
            block_bytes: BLOCK as u32,
            name_bytes: NAME_BYTES_MAX as u32,
        })
    }

    pub(super) fn setxattr(
        &self,
        client: Client,
        number: KernelNo,
        (name, value): (&[u8], &[u8]),
        flags: u32,
    ) -> Result<()> {
        let mode = match flags {
            0 => SetMode::Any,
            XATTR_CREATE => SetMode::Create,
            XATTR_REPLACE => SetMode::Replace,
            _ => return Err(Error::Posix(Errno::INVAL)),
        };
        let inode = self.writable(number)?;
        let how = SetXattr { mode, clears_sgid: self.clears_sgid(client, inode)? };
        self.views.tree().attributes().set_xattr(inode, name, value, how)
    }

    pub(super) fn getxattr(&self, number: KernelNo, name: &[u8], room: u32) -> Result<Value> {
        Value::within(self.xattr_of(number, name)?, room)
    }

    /// The names, each with a zero behind it.
    pub(super) fn listxattr(&self, number: KernelNo, room: u32) -> Result<Value> {
        let names = match self.numbers.node(number)? {
            Node::Virtual(_) => Vec::new(),
            Node::In(place) => self.views.tree().attributes().xattr_names(place.at)?,
        };
        let ended = |mut name: Vec<u8>| {
            name.push(0);
            name
        };
        Value::within(names.into_iter().flat_map(ended).collect(), room)
    }

    pub(super) fn removexattr(&self, client: Client, number: KernelNo, name: &[u8]) -> Result<()> {
        if self.beside.is_asking(client.pid) {
            // The kernel takes capabilities from whatever is truncated.
            return Ok(());
        }
        self.views.tree().attributes().remove_xattr(self.writable(number)?, name)
    }

    /// Makes a file and opens it. With `open=none` ENOSYS: the kernel then makes files with mknod, and has no handle to release.
    pub(super) fn create(
        &self,
        client: Client,
        parent: KernelNo,
        name: &[u8],
        (mode, umask): (u32, u32),
        flags: i32,
    ) -> Result<(Made, u64)> {
        if self.opens == Opens::None {
            return Err(Error::Posix(Errno::NOSYS));
        }
        let new = New { kind: Kind::File, permissions: mode & 0o7777, rdev: 0, target: b"" };
        let mut attr = self.make(client, umask, parent, name, new)?;
        let handle = self.open_node(attr.number, flags)?;
        if let Node::In(place) = self.numbers.node(attr.number)? {
            self.unwritten().show_unseen_data(place, &mut attr);
        }
        Ok((self.made(attr), handle))
    }

    pub(super) fn fallocate(
        &self,
        client: Client,
        number: KernelNo,
        (offset, length): (u64, u64),
        mode: i32,
    ) -> Result<()> {
        self.preallocate(number, offset, length, mode, !client.keeps_privileges())
    }

    /// How many bytes were copied: the caller goes on from there.
    pub(super) fn copy_file_range(
        &self,
        client: Client,
        (from, from_offset): (KernelNo, u64),
        (to, to_offset): (KernelNo, u64),
        len: u64,
    ) -> Result<u64> {
        let from = Position { of: self.inside(from)?, offset: from_offset };
        let to = self.writable(to)?;
        // The answer says how many these were, in 32 bits.
        let len = len.min(COPY_BYTES_MAX);
        self.views.tree().files().copy_range(from, to, to_offset, len, !client.keeps_privileges())
    }
}
