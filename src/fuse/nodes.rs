//! What requests ask of nodes, whatever they show: a tree, the root of the mount, or what is in none.

use super::attr::Attr;
use super::listing::keep;
use super::number::{KernelNo, Node, Place, ROOT};
use super::opened::Unwritten;
use super::operations::Client;
use super::{BASE_XATTR, FileSystem, KEEP, STORE_XATTR, beside};
use crate::device::{InodeAt, InodeNo, Moment};
use crate::error::{Errno, Error, Result};
use crate::limits::STEP_TRACKS;
use crate::tree::{Change, Kind, New};
use crate::view::Virtual;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

const PUNCH_HOLE: i32 = 0x02;
const KEEP_SIZE: i32 = 0x01;
const ZERO_RANGE: i32 = 0x10;

/// `O_ACCMODE`; 0 is `O_RDONLY`.
const ACCESS_MODE: i32 = 3;

/// Mode bits by which a program is run as somebody else.
const SUID_OR_SGID: u32 = 0o6000;

pub(super) const FOR_READING: u64 = 0;
pub(super) const FOR_WRITING: u64 = 1;

impl FileSystem {
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

    /// What the kernel can have of files that nobody else knows of.
    pub(super) fn unwritten(&self) -> Unwritten<'_> {
        Unwritten { fs: self }
    }

    /// How long the kernel may keep attributes of an inode, and the name that leads to it. It counts no blocks itself, but
    /// with the writeback cache it asks at every write(2) for what it may not keep: so it keeps them, and is told when
    /// blocks are others because a file without any is opened or closed, or because it wrote pages out. While the mount
    /// ends it is to ask (`mount/end.rs`). Of programs that are run as somebody else it asks each time: a write takes that
    /// from them, and the kernel, which does not look what has become of the mode, must not go on with it.
    pub(super) fn keep_attributes(&self, attr: &Attr) -> Duration {
        match self.numbers.node(attr.number) {
            Ok(Node::Virtual(node)) if node.is_always_new() => Duration::ZERO,
            Ok(Node::In(Place { at: InodeAt { inode, moment: Moment::Live }, .. }))
                if self.unwritten().is_stopping_writers() && self.open_for_writing.has(inode) =>
            {
                Duration::ZERO
            }
            Ok(Node::In(Place { at: InodeAt { moment: Moment::Live, .. }, .. }))
                if attr.kind == Kind::File && attr.permissions & SUID_OR_SGID != 0 =>
            {
                Duration::ZERO
            }
            _ => KEEP,
        }
    }

    pub(super) fn live_inode(&self, number: KernelNo) -> Option<InodeNo> {
        match self.numbers.node(number) {
            Ok(Node::In(Place { at: InodeAt { inode, moment: Moment::Live }, .. })) => Some(inode),
            _ => None,
        }
    }

    /// The kernel is told of this inode: it stays until it is forgotten.
    pub(super) fn hold(&self, number: KernelNo) -> u64 {
        match self.live_inode(number) {
            Some(inode) => self.views.tree().held().hold(inode),
            None => {
                self.numbers.hold(number);
                0
            }
        }
    }

    pub(super) fn generation(&self, number: KernelNo) -> u64 {
        self.live_inode(number).map_or(0, |inode| self.views.tree().held().generation(inode))
    }

    pub(super) fn make(&self, client: Client, umask: u32, parent: KernelNo, name: &[u8], new: New<'_>) -> Result<Attr> {
        let caller = client.caller(umask);
        let parent = self.place_for_new(caller, parent)?;
        let (inode, made) = self.views.tree().names().make(caller, parent.inode(), name, new)?;
        self.settle(self.attributes_of(parent.to(inode), &made)?)
    }

    pub(super) fn attr_of(&self, number: KernelNo) -> Result<Attr> {
        match self.numbers.node(number)? {
            Node::Virtual(node) => self.attributes_of_virtual(&node),
            Node::In(place) => self.attributes(place),
        }
    }

    pub(super) fn change_node(&self, number: KernelNo, change: Change, is_of_times: bool) -> Result<Attr> {
        let place = self.writable_place(number)?;
        // A kernel that keeps times itself writes them out as it does pages.
        if self.writeback && is_of_times && self.views.tree().passes_over(place.inode()) {
            return self.attributes(place);
        }
        let found = self.views.tree().attributes().change(place.inode(), change)?;
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
        let found = self.inside(number).and_then(|at| self.views.tree().inode(at));
        found.is_ok_and(|found| found.tracks > most && found.size.saturating_sub(from) > bytes)
    }

    pub(super) fn xattr_of(&self, number: KernelNo, name: &[u8]) -> Result<Vec<u8>> {
        match self.numbers.node(number)? {
            Node::Virtual(Virtual::Root) if name == STORE_XATTR.as_bytes() => {
                Ok(self.store.as_os_str().as_bytes().to_vec())
            }
            Node::In(place) if name == BASE_XATTR.as_bytes() && crate::tree::is_root(place.inode()) => {
                Ok(self.views.of(place.inode().base()).base_name()?.into_bytes())
            }
            Node::Virtual(node) if name == BASE_XATTR.as_bytes() => match self.namespace.base_shown(&node) {
                Some(base) => Ok(self.views.of(base).base_name()?.into_bytes()),
                None => Err(Error::Posix(Errno::NODATA)),
            },
            Node::Virtual(_) => Err(Error::Posix(Errno::NODATA)),
            Node::In(place) => self.views.tree().attributes().xattr(place.at, name),
        }
    }

    /// Whether an access list that this caller sets takes the sgid bit away: it does if the caller is not in the
    /// file's group. The kernel knows and says so in a flag of the request; fuser 0.18 does not pass it on. Nobody
    /// changes mode or group between this look and the change, since the kernel has the inode locked.
    pub(super) fn clears_sgid(&self, client: Client, inode: InodeNo) -> Result<bool> {
        if client.keeps_privileges() {
            return Ok(false);
        }
        let found = self.views.tree().inode(inode.live())?;
        Ok(found.is_setgid() && !client.is_in_group(found.gid))
    }

    /// What may not be written to is not opened for that: not even a mapping changes what others read of it.
    pub(super) fn open_node(&self, number: KernelNo, flags: i32) -> Result<u64> {
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
    pub(super) fn close_node(&self, number: KernelNo, handle: u64) -> bool {
        let Ok(InodeAt { inode, .. }) = self.inside(number) else { return false };
        let is_last = handle == FOR_WRITING && self.open_for_writing.close(inode);
        if is_last {
            self.views.tree().stamps().take_back(inode);
            // Whoever stored in it is gone.
            self.not_stored.take(&[inode]);
        }
        is_last
    }

    /// A file is open for writing from now on, or was until now.
    pub(super) fn ask_for_blocks_again(&self, number: KernelNo) {
        if self.live_inode(number).is_some_and(|inode| self.unwritten().stored_blocks(inode).1) {
            self.drop_attributes(number);
        }
    }

    /// For a thread that serves a request about this very inode.
    pub(super) fn drop_attributes(&self, number: KernelNo) {
        if let Some(notify) = self.notify.get() {
            notify.drop_attributes(number);
        }
    }

    /// Lets the kernel drop what somebody tried to write to a snapshot, or to a mirror that is in step.
    pub(super) fn drop_written(&self, number: KernelNo, offset: u64, len: usize) {
        let Some(notify) = self.notify.get().cloned() else { return };
        // With its writeback cache it has the size and the time of what it took.
        let live = self.live_inode(number).filter(|_| self.writeback);
        // The request that failed still holds the pages; they are free once it is answered.
        super::thread::begin_or_tell("drop pages", move || {
            notify.drop_pages(number, offset, len);
            live.into_iter().for_each(|inode| notify.take_back(inode));
        });
    }

    /// Requests cannot be served any more: whoever waits for one gets an error, and the mount ends.
    pub(super) fn end_connection(&self) {
        if !self.connection.get().is_some_and(|(connection, device)| connection.abort(device)) {
            log::error!("the mount could not be ended; `pitfs umount` does it");
        }
    }

    pub(super) fn forget_node(&self, number: KernelNo, count: u64) {
        if let Some(inode) = self.live_inode(number) {
            self.views.tree().let_go(inode, count);
        }
        self.numbers.forget(number, count);
    }
}
