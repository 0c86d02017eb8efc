//! What requests ask of nodes, whatever they show: a tree, the root of the mount, or what is in none.

use super::listing::keep;
use super::number::{KernelNo, Node, Place, ROOT};
use super::{BASE_XATTR, FileSystem, STORE_XATTR, beside};
use crate::device::{InodeNo, Moment};
use crate::error::{Errno, Error, Result};
use crate::limits::STEP_TRACKS;
use crate::tree::{Asker, Caller, Change, Kind, New, RenameMode};
use crate::view::Virtual;
use fuser::{FileAttr, FileHandle, Generation, RenameFlags, Request};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

pub(super) const GENERATION: Generation = Generation(0);

const PUNCH_HOLE: i32 = 0x02;
const KEEP_SIZE: i32 = 0x01;
const ZERO_RANGE: i32 = 0x10;

/// `O_ACCMODE`; 0 is `O_RDONLY`.
const ACCESS_MODE: i32 = 3;

pub(super) const FOR_READING: FileHandle = FileHandle(0);
pub(super) const FOR_WRITING: FileHandle = FileHandle(1);

impl FileSystem {
    /// Whether a caller may keep suid and sgid bits of what it changes.
    pub(super) fn keeps_privileges(request: &Request) -> bool {
        request.uid() == 0
    }

    pub(super) fn caller(request: &Request, umask: u32) -> Caller {
        Caller { uid: request.uid(), gid: request.gid(), umask }
    }

    pub(super) fn lookup_in(&self, request: &Request, parent: KernelNo, name: &[u8]) -> Result<(FileAttr, Duration)> {
        if parent == ROOT
            && self.beside.is_asking(request.pid())
            && let Some(number) = beside::number_in(name)
        {
            return Ok((self.attr_of(number)?, Duration::ZERO));
        }
        let place = match self.numbers.node(parent)? {
            Node::In(place) => place,
            Node::Virtual(node) => {
                let is_in = |group| is_in_group(request, group);
                return self.virtual_lookup(&Asker { uid: request.uid(), is_in: &is_in }, &node, name);
            }
        };
        match self.views.tree().names().lookup(place.inode, name, place.moment) {
            Ok((inode, found)) => {
                let attr = self.attributes_of(place.at(inode), &found)?;
                Ok((attr, self.keep_attributes(&attr)))
            }
            Err(Error::Posix(Errno::NOENT)) => self.hidden_lookup(place, name),
            Err(error) => Err(error),
        }
    }

    /// Whether the kernel may remember that there is nothing under a name.
    pub(super) fn may_be_kept(&self, parent: KernelNo, name: &[u8]) -> bool {
        let is_beside = parent == ROOT && beside::number_in(name).is_some();
        !crate::view::is_virtual_name(name)
            && !is_beside
            && self.numbers.node(parent).is_ok_and(|node| match node {
                Node::Virtual(node) => !keep(&node).is_zero(),
                Node::In(_) => true,
            })
    }

    pub(super) fn live_inode(&self, number: KernelNo) -> Option<InodeNo> {
        match self.numbers.node(number) {
            Ok(Node::In(Place { inode, moment: Moment::Live, .. })) => Some(inode),
            _ => None,
        }
    }

    /// The kernel is told of this inode: it stays until it is forgotten.
    pub(super) fn hold(&self, number: KernelNo) -> Generation {
        match self.live_inode(number) {
            Some(inode) => Generation(self.views.tree().held().hold(inode)),
            None => {
                self.numbers.hold(number);
                GENERATION
            }
        }
    }

    pub(super) fn generation(&self, number: KernelNo) -> Generation {
        self.live_inode(number).map_or(GENERATION, |inode| Generation(self.views.tree().held().generation(inode)))
    }

    pub(super) fn make(
        &self,
        request: &Request,
        umask: u32,
        parent: KernelNo,
        name: &OsStr,
        new: New<'_>,
    ) -> Result<FileAttr> {
        let caller = FileSystem::caller(request, umask);
        let parent = self.place_for_new(caller, parent)?;
        let (inode, made) = self.views.tree().names().make(caller, parent.inode, name.as_bytes(), new)?;
        self.settle(self.attributes_of(parent.at(inode), &made)?)
    }

    pub(super) fn attr_of(&self, number: KernelNo) -> Result<FileAttr> {
        match self.numbers.node(number)? {
            Node::Virtual(node) => self.attributes_of_virtual(&node),
            Node::In(place) => self.attributes(place),
        }
    }

    pub(super) fn rename_nodes(
        &self,
        caller: Caller,
        parent: KernelNo,
        name: &OsStr,
        new_parent: KernelNo,
        new_name: &OsStr,
        flags: RenameFlags,
    ) -> Result<()> {
        let target = self.node_for_new(caller, new_parent)?;
        let (from, to) = match (self.numbers.node(parent)?, target) {
            (Node::In(from), Node::In(to)) if from.way == to.way => {
                crate::view::check_writable(from.moment)?;
                (from.inode, to.inode)
            }
            (Node::Virtual(_), _) if flags.contains(RenameFlags::RENAME_EXCHANGE) => {
                return Err(Error::Posix(Errno::INVAL));
            }
            (Node::Virtual(node), _) if parent == new_parent => {
                return self.namespace.rename(&node, name.as_bytes(), new_name.as_bytes());
            }
            _ => return Err(Error::Posix(Errno::XDEV)),
        };
        let mode = match flags {
            flags if flags.is_empty() => RenameMode::Replace,
            RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
            RenameFlags::RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return Err(Error::Posix(Errno::INVAL)),
        };
        if mode == RenameMode::Replace {
            self.check_may_go(to, new_name.as_bytes())?;
        }
        self.views.tree().names().rename(from, name.as_bytes(), to, new_name.as_bytes(), mode)?;
        // What is hidden under that name is gone to the kernel, which saw it replaced.
        self.forget_hidden(to, new_name.as_bytes());
        self.settle(())
    }

    pub(super) fn link_node(
        &self,
        caller: Caller,
        number: KernelNo,
        parent: KernelNo,
        name: &OsStr,
    ) -> Result<FileAttr> {
        let (Node::In(place), Node::In(parent)) = (self.numbers.node(number)?, self.node_for_new(caller, parent)?)
        else {
            return Err(Error::Posix(Errno::PERM));
        };
        if place.way != parent.way {
            return Err(Error::Posix(Errno::XDEV));
        }
        crate::view::check_writable(place.moment)?;
        let linked = self.views.tree().names().link(place.inode, parent.inode, name.as_bytes())?;
        self.settle(self.attributes_of(place, &linked)?)
    }

    pub(super) fn change_node(&self, number: KernelNo, change: Change, is_of_times: bool) -> Result<FileAttr> {
        let place = self.writable_place(number)?;
        // A kernel that keeps times itself writes them out as it does pages.
        if self.writeback && is_of_times && self.views.tree().passes_over(place.inode) {
            return self.attributes(place);
        }
        let found = self.views.tree().attributes().change(place.inode, change)?;
        self.attributes_of(place, &found)
    }

    pub(super) fn preallocate(&self, number: KernelNo, offset: u64, length: u64, mode: i32, kill: bool) -> Result<()> {
        let inode = self.writable(number)?;
        let keep_size = mode & KEEP_SIZE != 0;
        match mode & !KEEP_SIZE {
            0 => self.views.tree().files().allocate(inode, offset, length, keep_size, kill),
            PUNCH_HOLE if keep_size => self.views.tree().files().zero(inode, offset, length, true, kill),
            ZERO_RANGE => self.views.tree().files().zero(inode, offset, length, keep_size, kill),
            _ => Err(Error::Posix(Errno::OPNOTSUPP)),
        }
    }

    /// Whether making a hole takes more than a step, so that nobody should wait for it.
    pub(super) fn takes_long(&self, number: KernelNo, length: u64, mode: i32) -> bool {
        mode & (PUNCH_HOLE | ZERO_RANGE) != 0
            && length > STEP_TRACKS * self.views.tree().device().track_bytes()
            && self.has_more_tracks(number, 0, STEP_TRACKS)
    }

    /// Whether more tracks than these may lie behind an offset in a file.
    pub(super) fn has_more_tracks(&self, number: KernelNo, from: u64, most: u64) -> bool {
        let bytes = most * self.views.tree().device().track_bytes();
        let found = self.inside(number).and_then(|(inode, moment)| self.views.tree().inode(inode, moment));
        found.is_ok_and(|found| found.tracks > most && found.size.saturating_sub(from) > bytes)
    }

    pub(super) fn xattr_of(&self, number: KernelNo, name: &[u8]) -> Result<Vec<u8>> {
        match self.numbers.node(number)? {
            Node::Virtual(Virtual::Root) if name == STORE_XATTR.as_bytes() => {
                Ok(self.store.as_os_str().as_bytes().to_vec())
            }
            Node::In(place) if name == BASE_XATTR.as_bytes() && crate::tree::is_root(place.inode) => {
                Ok(self.views.of(place.inode.base()).base_name()?.into_bytes())
            }
            Node::Virtual(node) if name == BASE_XATTR.as_bytes() => match self.namespace.base_shown(&node) {
                Some(base) => Ok(self.views.of(base).base_name()?.into_bytes()),
                None => Err(Error::Posix(Errno::NODATA)),
            },
            Node::Virtual(_) => Err(Error::Posix(Errno::NODATA)),
            Node::In(Place { inode, moment, .. }) => self.views.tree().attributes().xattr(inode, name, moment),
        }
    }

    /// Snapshots are durable from their beginning; so is the root's list of them.
    pub(super) fn sync_node(&self, number: KernelNo) -> Result<()> {
        match self.numbers.node(number)? {
            Node::In(Place { inode, moment: Moment::Live, .. }) => self.views.tree().files().sync_inode(inode),
            Node::In(_) | Node::Virtual(_) => Ok(()),
        }
    }

    /// Whether an access list that this caller sets takes the sgid bit away: it does if the caller is not in the
    /// file's group. The kernel knows and says so in a flag of the request; fuser 0.18 does not pass it on. Nobody
    /// changes mode or group between this look and the change, since the kernel has the inode locked.
    pub(super) fn clears_sgid(&self, request: &Request, inode: InodeNo) -> Result<bool> {
        if FileSystem::keeps_privileges(request) {
            return Ok(false);
        }
        let found = self.views.tree().inode(inode, Moment::Live)?;
        Ok(found.is_setgid() && !is_in_group(request, found.gid))
    }

    /// What may not be written to is not opened for that: not even a mapping changes what others read of it.
    pub(super) fn open_node(&self, number: KernelNo, flags: i32) -> Result<FileHandle> {
        if flags & ACCESS_MODE == 0 {
            self.inside(number)?;
            return Ok(FOR_READING);
        }
        let inode = self.writable(number)?;
        self.open_for_writing.open(inode);
        if self.writeback {
            self.views.tree().stamps().leave_to_kernel(inode);
        }
        Ok(FOR_WRITING)
    }

    /// Whether nobody has the file open for writing any more, who had until now.
    pub(super) fn close_node(&self, number: KernelNo, handle: FileHandle) -> bool {
        let Ok((inode, _)) = self.inside(number) else { return false };
        let is_last = handle == FOR_WRITING && self.open_for_writing.close(inode);
        if is_last {
            self.views.tree().stamps().take_back(inode);
            // Whoever stored in it is gone.
            self.not_stored.take(&[inode]);
        }
        is_last
    }

    /// Makes a file and opens it.
    pub(super) fn create_node(
        &self,
        request: &Request,
        umask: u32,
        parent: KernelNo,
        name: &OsStr,
        mode: u32,
        flags: i32,
    ) -> Result<(FileAttr, FileHandle)> {
        let new = New { kind: Kind::File, permissions: mode & 0o7777, rdev: 0, target: b"" };
        let mut attr = self.make(request, umask, parent, name, new)?;
        let handle = self.open_node(attr.ino.into(), flags)?;
        if let Node::In(place) = self.numbers.node(attr.ino.into())? {
            self.show_unseen_data(place, &mut attr);
        }
        Ok((attr, handle))
    }

    pub(super) fn forget_node(&self, number: KernelNo, count: u64) {
        if let Ok(Node::In(Place { inode, moment: Moment::Live, .. })) = self.numbers.node(number)
            && let Err(error) = self.views.tree().unhold(inode, count)
        {
            log::error!("inode {inode} could not be removed: {error}");
        }
        self.numbers.forget(number, count);
    }
}

/// Whether the caller belongs to a group, as far as that can be seen.
fn is_in_group(request: &Request, gid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", request.pid())).unwrap_or_default();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    request.gid() == gid || groups.split_whitespace().any(|group| group.parse() == Ok(gid))
}
