//! One method for each request: convert, call, reply.

use super::convert::{errno, file_type, set_time};
use super::number::{Node, Place, ROOT};
use super::root::Target;
use super::{BASE_XATTR, FileSystem, KEEP, REQUEST_BYTES, STORE_XATTR, placement};
use crate::device::{InodeNo, Moment, base_of};
use crate::error::{Errno, Error, Result};
use crate::tree::{Caller, Change, Entry, Inode, Kind, New, Position, RenameMode, SetMode, SetXattr};
use fuser::*;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

const GENERATION: Generation = Generation(0);

const PUNCH_HOLE: i32 = 0x02;
const KEEP_SIZE: i32 = 0x01;
const ZERO_RANGE: i32 = 0x10;

const XATTR_CREATE: i32 = 1;
const XATTR_REPLACE: i32 = 2;

/// `O_ACCMODE` and `O_RDONLY`.
const ACCESS_MODE: i32 = 3;

macro_rules! reply_or_error {
    ($reply:ident, $result:expr, $value:pat => $send:expr) => {
        let result = $result;
        let _yielding = placement::yielding();
        match result {
            Ok($value) => $send,
            Err(error) => $reply.error(errno(error)),
        }
    };
}

impl FileSystem {
    /// Whether a caller may keep suid and sgid bits of what it changes.
    fn keeps_privileges(request: &Request) -> bool {
        request.uid() == 0
    }

    fn caller(request: &Request, umask: u32) -> Caller {
        Caller { uid: request.uid(), gid: request.gid(), umask }
    }

    fn lookup_in(&self, parent: u64, name: &[u8]) -> Result<(FileAttr, Duration)> {
        let place = match self.numbers.node(parent)? {
            Node::In(place) => place,
            node => return self.virtual_lookup(&node, name),
        };
        match self.views.tree().lookup(place.inode, name, place.moment) {
            Ok((inode, found)) => Ok((self.attributes_of(place.at(inode), &found)?, KEEP)),
            Err(Error::Posix(Errno::NOENT)) => self.hidden_lookup(place, name),
            Err(error) => Err(error),
        }
    }

    /// Whether the kernel may remember that there is nothing under a name.
    fn may_be_kept(&self, parent: u64, name: &[u8]) -> bool {
        !crate::view::is_virtual_name(name) && self.numbers.node(parent).is_ok_and(|node| !keep(&node).is_zero())
    }

    fn live_inode(&self, number: u64) -> Option<InodeNo> {
        match self.numbers.node(number) {
            Ok(Node::In(Place { inode, moment: Moment::Live, .. })) => Some(inode),
            _ => None,
        }
    }

    /// The kernel is told of this inode: it stays until it is forgotten.
    fn hold(&self, number: u64) -> Generation {
        self.live_inode(number).map_or(GENERATION, |inode| Generation(self.views.tree().hold(inode)))
    }

    fn generation(&self, number: u64) -> Generation {
        self.live_inode(number).map_or(GENERATION, |inode| Generation(self.views.tree().generation(inode)))
    }

    fn make(&self, request: &Request, umask: u32, parent: u64, name: &OsStr, new: New<'_>) -> Result<FileAttr> {
        let parent = self.writable_place(parent)?;
        let caller = FileSystem::caller(request, umask);
        let (inode, made) = self.with_room(|| self.views.tree().make(caller, parent.inode, name.as_bytes(), new))?;
        self.settle(self.attributes_of(parent.at(inode), &made)?)
    }

    fn reply_made(&self, reply: ReplyEntry, made: Result<FileAttr>) {
        reply_or_error!(reply, made, attr => {
            let generation = self.hold(attr.ino.0);
            reply.entry(&KEEP, &attr, generation);
        });
    }

    fn attr_of(&self, number: u64) -> Result<FileAttr> {
        match self.numbers.node(number)? {
            Node::Root => self.root_attributes(),
            Node::Virtual(node) => self.attributes_of_virtual(&node),
            Node::In(place) => self.attributes(place),
        }
    }

    /// `mv` in a base's directory renames a snapshot or a clone; in the root of a mount of several, a base.
    fn rename_shown(&self, node: &Node, name: &OsStr, new_name: &OsStr, flags: RenameFlags) -> Result<()> {
        if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            return Err(Error::Posix(Errno::INVAL));
        }
        let (name, new_name) = (name.as_bytes(), new_name.as_bytes());
        let known = match self.base_shown(node) {
            Some(base) => {
                let views = self.views.of(base);
                if views.find(name)?.is_some() || name == crate::view::LIVE_NAME.as_bytes() {
                    return views.rename(name, new_name).map(|_| ());
                }
                views.beside()?
            }
            None if *node == Node::Root => self.views.top_bases()?,
            None => return Err(Error::Posix(Errno::PERM)),
        };
        let base = known.into_iter().find(|(_, known)| known.as_bytes() == name).ok_or(Error::Posix(Errno::NOENT))?.0;
        self.views.rename_base(base, new_name)
    }

    fn rename_nodes(
        &self,
        parent: u64,
        name: &OsStr,
        new_parent: u64,
        new_name: &OsStr,
        flags: RenameFlags,
    ) -> Result<()> {
        let (from, to) = match (self.numbers.node(parent)?, self.numbers.node(new_parent)?) {
            (Node::In(from), Node::In(to)) if from.way == to.way => {
                crate::view::check_writable(from.moment)?;
                (from.inode, to.inode)
            }
            (node, _) if parent == new_parent => return self.rename_shown(&node, name, new_name, flags),
            _ => return Err(Error::Posix(Errno::XDEV)),
        };
        let mode = match flags {
            flags if flags.is_empty() => RenameMode::Replace,
            RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
            RenameFlags::RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return Err(Error::Posix(Errno::INVAL)),
        };
        self.views.tree().rename(from, name.as_bytes(), to, new_name.as_bytes(), mode)?;
        self.settle(())
    }

    fn link_node(&self, number: u64, parent: u64, name: &OsStr) -> Result<FileAttr> {
        let (Node::In(place), Node::In(parent)) = (self.numbers.node(number)?, self.numbers.node(parent)?) else {
            return Err(Error::Posix(Errno::PERM));
        };
        if place.way != parent.way {
            return Err(Error::Posix(Errno::XDEV));
        }
        crate::view::check_writable(place.moment)?;
        let linked = self.views.tree().link(place.inode, parent.inode, name.as_bytes())?;
        self.settle(self.attributes_of(place, &linked)?)
    }

    fn list_plain(&self, number: u64, offset: u64, reply: &mut ReplyDirectory) -> Result<()> {
        let place = match self.numbers.node(number)? {
            Node::In(place) => place,
            node => {
                return self.virtual_list(&node, offset, &mut |name, next, target| {
                    let (number, kind) = match target {
                        Target::Dots => (number, FileType::Directory),
                        Target::Virtual(node) => (self.numbers.virtual_number(&node), FileType::Directory),
                        Target::In(place) => (place.number(), FileType::Directory),
                    };
                    Ok(reply.add(INodeNo(number), next, kind, OsStr::from_bytes(name)))
                });
            }
        };
        if offset < 1 && reply.add(INodeNo(number), 1, FileType::Directory, ".") {
            return Ok(());
        }
        if offset < 2 {
            let above = self.number_above(place)?;
            if reply.add(INodeNo(above), 2, FileType::Directory, "..") {
                return Ok(());
            }
        }
        self.views.tree().list(place.inode, offset, place.moment, |entry: &Entry| {
            let number = place.at(entry.inode).number();
            Ok(!reply.add(INodeNo(number), entry.offset, file_type(entry.kind), OsStr::from_bytes(&entry.name)))
        })
    }

    fn number_above(&self, place: Place) -> Result<u64> {
        if crate::tree::is_root(place.inode) {
            return Ok(ROOT);
        }
        Ok(place.at(self.views.tree().inode(place.inode, place.moment)?.parent).number())
    }

    fn list_plus(&self, number: u64, offset: u64, reply: &mut ReplyDirectoryPlus) -> Result<()> {
        let own = self.attr_of(number)?;
        let place = match self.numbers.node(number)? {
            Node::In(place) => place,
            node => {
                let keep = keep(&node);
                return self.virtual_list(&node, offset, &mut |name, next, target| {
                    let is_dots = matches!(target, Target::Dots);
                    let attr = match target {
                        Target::Dots => own,
                        Target::Virtual(node) => self.attributes_of_virtual(&node)?,
                        Target::In(place) => self.attributes(place)?,
                    };
                    let generation = self.generation(attr.ino.0);
                    let is_full = reply.add(attr.ino, next, OsStr::from_bytes(name), &keep, &attr, generation);
                    if !is_full && !is_dots {
                        self.hold(attr.ino.0);
                    }
                    Ok(is_full)
                });
            }
        };
        // The kernel takes no attributes from these two.
        if offset < 1 && reply.add(own.ino, 1, ".", &KEEP, &own, GENERATION) {
            return Ok(());
        }
        if offset < 2 && reply.add(own.ino, 2, "..", &KEEP, &own, GENERATION) {
            return Ok(());
        }
        self.views.tree().list_with_inodes(place.inode, offset, place.moment, |entry: &Entry, found: &Inode| {
            let attr = self.attributes_of(place.at(entry.inode), found)?;
            let is_live = place.moment == Moment::Live;
            let generation = Generation(if is_live { self.views.tree().generation(entry.inode) } else { 0 });
            let name = OsStr::from_bytes(&entry.name);
            let is_full = reply.add(attr.ino, entry.offset, name, &KEEP, &attr, generation);
            if !is_full && is_live {
                self.views.tree().hold(entry.inode);
            }
            Ok(!is_full)
        })
    }

    fn preallocate(&self, number: u64, offset: u64, length: u64, mode: i32, kill: bool) -> Result<()> {
        let inode = self.writable(number)?;
        let keep_size = mode & KEEP_SIZE != 0;
        match mode & !KEEP_SIZE {
            0 => self.views.tree().allocate(inode, offset, length, keep_size, kill),
            PUNCH_HOLE if keep_size => self.views.tree().zero(inode, offset, length, true, kill),
            ZERO_RANGE => self.views.tree().zero(inode, offset, length, keep_size, kill),
            _ => Err(Error::Posix(Errno::OPNOTSUPP)),
        }
    }

    fn seek(&self, number: u64, offset: i64, whence: i32) -> Result<i64> {
        const SEEK_DATA: i32 = 3;
        const SEEK_HOLE: i32 = 4;
        let (inode, moment) = self.inside(number)?;
        let offset = u64::try_from(offset).map_err(|_| Error::Posix(Errno::NXIO))?;
        let found = match whence {
            SEEK_DATA => self.views.tree().seek_data(inode, offset, moment)?,
            SEEK_HOLE => self.views.tree().seek_hole(inode, offset, moment)?,
            _ => return Err(Error::Posix(Errno::INVAL)),
        };
        Ok(found as i64)
    }

    fn xattr_of(&self, number: u64, name: &[u8]) -> Result<Vec<u8>> {
        match self.numbers.node(number)? {
            Node::Root if name == STORE_XATTR.as_bytes() => Ok(self.store.as_os_str().as_bytes().to_vec()),
            Node::In(place) if name == BASE_XATTR.as_bytes() && crate::tree::is_root(place.inode) => {
                Ok(self.views.of(base_of(place.inode)).base_name()?.into_bytes())
            }
            node @ (Node::Root | Node::Virtual(_)) if name == BASE_XATTR.as_bytes() => match self.base_shown(&node) {
                Some(base) => Ok(self.views.of(base).base_name()?.into_bytes()),
                None => Err(Error::Posix(Errno::NODATA)),
            },
            Node::Root | Node::Virtual(_) => Err(Error::Posix(Errno::NODATA)),
            Node::In(Place { inode, moment, .. }) => self.views.tree().xattr(inode, name, moment),
        }
    }

    /// Snapshots are durable from their beginning; so is the root's list of them.
    fn sync_node(&self, number: u64) -> Result<()> {
        match self.numbers.node(number)? {
            Node::In(Place { inode, moment: Moment::Live, .. }) => self.views.tree().sync_inode(inode),
            Node::In(_) | Node::Root | Node::Virtual(_) => Ok(()),
        }
    }

    /// Whether an access list that this caller sets takes the sgid bit away: it does if the caller is not in the
    /// file's group. The kernel knows and says so in a flag of the request; fuser 0.18 does not pass it on. Nobody
    /// changes mode or group between this look and the change, since the kernel has the inode locked.
    fn clears_sgid(&self, request: &Request, inode: u64) -> Result<bool> {
        if FileSystem::keeps_privileges(request) {
            return Ok(false);
        }
        let found = self.views.tree().inode(inode, Moment::Live)?;
        Ok(found.is_setgid() && !is_in_group(request, found.gid))
    }

    fn open_node(&self, number: u64, flags: i32) -> Result<()> {
        let (inode, moment) = self.inside(number)?;
        if flags & ACCESS_MODE != 0 {
            crate::view::check_writable(moment)?;
            *self.open_for_writing.lock().entry(inode).or_default() += 1;
        }
        Ok(())
    }

    fn close_node(&self, number: u64, flags: i32) {
        let Ok((inode, _)) = self.inside(number) else { return };
        let mut open = self.open_for_writing.lock();
        if self.writeback
            && flags & ACCESS_MODE != 0
            && let Some(count) = open.get_mut(&inode)
        {
            *count -= 1;
            if *count == 0 {
                open.remove(&inode);
            }
        }
    }

    fn forget_node(&self, number: u64, count: u64) {
        if let Ok(Node::In(Place { inode, moment: Moment::Live, .. })) = self.numbers.node(number)
            && let Err(error) = self.views.tree().unhold(inode, count)
        {
            log::error!("inode {inode} could not be removed: {error}");
        }
    }
}

/// How long the kernel may keep what a node is and shows.
fn keep(node: &Node) -> Duration {
    match node {
        Node::Virtual(node) if node.is_always_new() => Duration::ZERO,
        Node::Root | Node::Virtual(_) | Node::In(_) => KEEP,
    }
}

/// Whether the caller belongs to a group, as far as that can be seen.
fn is_in_group(request: &Request, gid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", request.pid())).unwrap_or_default();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    request.gid() == gid || groups.split_whitespace().any(|group| group.parse() == Ok(gid))
}

impl Filesystem for super::mount::Served {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        use InitFlags as F;
        let mut wanted = F::FUSE_ASYNC_READ
            | F::FUSE_PARALLEL_DIROPS
            | F::FUSE_DO_READDIRPLUS
            | F::FUSE_READDIRPLUS_AUTO
            | F::FUSE_CACHE_SYMLINKS
            | F::FUSE_EXPLICIT_INVAL_DATA
            | F::FUSE_NO_OPENDIR_SUPPORT
            | F::FUSE_POSIX_ACL
            | F::FUSE_DONT_MASK
            | F::FUSE_HANDLE_KILLPRIV_V2
            | F::FUSE_ASYNC_DIO
            | F::FUSE_BIG_WRITES
            | F::FUSE_MAX_PAGES;
        wanted |= if self.writeback { F::FUSE_WRITEBACK_CACHE } else { F::FUSE_NO_OPEN_SUPPORT };
        for flag in wanted.iter() {
            if config.add_capabilities(flag).is_err() {
                log::info!("this kernel lacks {flag:?}; going on without");
            }
        }
        // A kernel with smaller limits answers with the largest value it takes.
        if let Err(most) = config.set_max_write(REQUEST_BYTES) {
            config.set_max_write(most).map_err(|_| io::Error::other("no write size suits the kernel"))?;
        }
        if let Err(most) = config.set_max_readahead(REQUEST_BYTES) {
            config.set_max_readahead(most).map_err(|_| io::Error::other("no readahead suits the kernel"))?;
        }
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        placement::serving(request.pid());
        let found = self.lookup_in(parent.0, name.as_bytes());
        let _yielding = placement::yielding();
        match found {
            Ok((attr, keep)) => {
                let generation = self.hold(attr.ino.0);
                reply.entry(&keep, &attr, generation);
            }
            // That there is nothing may be remembered as well, but of times.
            Err(Error::Posix(Errno::NOENT)) if self.may_be_kept(parent.0, name.as_bytes()) => {
                match self.root_attributes() {
                    Ok(attr) => reply.entry(&KEEP, &FileAttr { ino: INodeNo(0), ..attr }, GENERATION),
                    Err(error) => reply.error(errno(error)),
                }
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn forget(&self, _request: &Request, ino: INodeNo, nlookup: u64) {
        self.forget_node(ino.0, nlookup);
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        placement::serving(request.pid());
        let keep = self.numbers.node(ino.0).map_or(KEEP, |node| keep(&node));
        reply_or_error!(reply, self.attr_of(ino.0), attr => reply.attr(&keep, &attr));
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        placement::serving(request.pid());
        let changed = self.writable_place(ino.0).and_then(|place| {
            let change = Change {
                permissions: mode,
                uid,
                gid,
                size,
                atime: atime.map(set_time),
                mtime: mtime.map(set_time),
                // A change of owner clears the bits whoever makes it, unless it sets the mode as well.
                kill_privileges: uid.is_some() || gid.is_some() || !FileSystem::keeps_privileges(request),
            };
            let found = self.views.tree().change(place.inode, change)?;
            self.attributes_of(place, &found)
        });
        reply_or_error!(reply, changed, attr => reply.attr(&KEEP, &attr));
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        placement::serving(request.pid());
        let target = self.numbers.node(ino.0).and_then(|node| match node {
            Node::In(place) => self.views.tree().read_link(place.inode, place.moment),
            Node::Virtual(node) => self.read_virtual_link(&node),
            Node::Root => Err(Error::Posix(Errno::INVAL)),
        });
        reply_or_error!(reply, target, target => reply.data(&target));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        placement::serving(request.pid());
        let made = Kind::from_mode(mode).ok_or(Error::Posix(Errno::INVAL)).and_then(|kind| {
            self.make(request, umask, parent.0, name, New { kind, permissions: mode & 0o7777, rdev, target: b"" })
        });
        self.reply_made(reply, made);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        placement::serving(request.pid());
        if self.numbers.node(parent.0).is_ok_and(|node| !matches!(node, Node::In(_))) {
            return self.mkdir_in_root(request, parent.0, name.as_bytes().to_vec(), reply);
        }
        let new = New { kind: Kind::Directory, permissions: mode & 0o7777, rdev: 0, target: b"" };
        self.reply_made(reply, self.make(request, umask, parent.0, name, new));
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        placement::serving(request.pid());
        let removed = self.writable(parent.0).and_then(|parent| {
            self.views.tree().unlink(parent, name.as_bytes())?;
            self.settle(())
        });
        reply_or_error!(reply, removed, () => reply.ok());
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        placement::serving(request.pid());
        let removed = self.numbers.node(parent.0).and_then(|node| match node {
            Node::In(_) => {
                self.views.tree().remove_directory(self.writable(parent.0)?, name.as_bytes())?;
                self.settle(())
            }
            node => self.rmdir_in_root(request, &node, name.as_bytes()),
        });
        reply_or_error!(reply, removed, () => reply.ok());
    }

    fn symlink(&self, request: &Request, parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry) {
        placement::serving(request.pid());
        let new = New { kind: Kind::Symlink, permissions: 0o777, rdev: 0, target: target.as_os_str().as_bytes() };
        self.reply_made(reply, self.make(request, 0, parent.0, link_name, new));
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        placement::serving(request.pid());
        let renamed = self.rename_nodes(parent.0, name, newparent.0, newname, flags);
        reply_or_error!(reply, renamed, () => reply.ok());
    }

    fn link(&self, request: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        placement::serving(request.pid());
        self.reply_made(reply, self.link_node(ino.0, newparent.0, newname));
    }

    fn open(&self, _request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if !self.writeback {
            // Once for all files: the kernel asks no more.
            return reply.error(fuser::Errno::ENOSYS);
        }
        reply_or_error!(reply, self.open_node(ino.0, flags.0), () => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE));
    }

    fn opendir(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        placement::moving(request.pid(), size as usize);
        let read =
            self.inside(ino.0).and_then(|(inode, moment)| self.views.tree().read(inode, offset, size as usize, moment));
        reply_or_error!(reply, read, bytes => reply.data(&bytes));
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        placement::moving(request.pid(), data.len());
        let written = self.writable(ino.0).and_then(|inode| {
            let kill = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
            self.with_room(|| self.views.tree().write(inode, offset, data, kill))
        });
        if let Err(Error::Posix(Errno::ROFS)) = written {
            self.drop_pages(ino.0, offset, data.len());
        }
        reply_or_error!(reply, written, () => reply.written(data.len() as u32));
    }

    fn flush(&self, _request: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn release(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.close_node(ino.0, flags.0);
        reply.ok();
    }

    fn fsync(&self, request: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        placement::serving(request.pid());
        reply_or_error!(reply, self.sync_node(ino.0), () => reply.ok());
    }

    fn fsyncdir(&self, _request: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply_or_error!(reply, self.sync_node(ino.0), () => reply.ok());
    }

    fn readdir(&self, request: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        placement::serving(request.pid());
        reply_or_error!(reply, self.list_plain(ino.0, offset, &mut reply), () => reply.ok());
    }

    fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        placement::serving(request.pid());
        reply_or_error!(reply, self.list_plus(ino.0, offset, &mut reply), () => reply.ok());
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        const BLOCK: u64 = 4096;
        /// Inodes are not limited by number; this is what tools are told.
        const INODES: u64 = 1 << 32;
        reply_or_error!(reply, self.views.tree().space(), space => {
            let (total, free) = (space.total / BLOCK, space.available / BLOCK);
            reply.statfs(total, free, free, INODES, INODES, BLOCK as u32, 255, BLOCK as u32);
        });
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        placement::serving(request.pid());
        let mode = match flags {
            0 => Ok(SetMode::Any),
            XATTR_CREATE => Ok(SetMode::Create),
            XATTR_REPLACE => Ok(SetMode::Replace),
            _ => Err(Error::Posix(Errno::INVAL)),
        };
        let set = mode.and_then(|mode| {
            let inode = self.writable(ino.0)?;
            let how = SetXattr { mode, clears_sgid: self.clears_sgid(request, inode)? };
            self.views.tree().set_xattr(inode, name.as_bytes(), value, how)
        });
        reply_or_error!(reply, set, () => reply.ok());
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        placement::serving(request.pid());
        reply_or_error!(reply, self.xattr_of(ino.0, name.as_bytes()), value => reply_sized(reply, &value, size));
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = match self.numbers.node(ino.0) {
            Ok(Node::Root | Node::Virtual(_)) => Ok(Vec::new()),
            Ok(Node::In(place)) => self.views.tree().xattr_names(place.inode, place.moment),
            Err(error) => Err(error),
        };
        reply_or_error!(reply, names, names => {
            let list: Vec<u8> = names.into_iter().flat_map(|mut name| { name.push(0); name }).collect();
            reply_sized(reply, &list, size);
        });
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        placement::serving(request.pid());
        let removed = self.writable(ino.0).and_then(|inode| self.views.tree().remove_xattr(inode, name.as_bytes()));
        reply_or_error!(reply, removed, () => reply.ok());
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        if !self.writeback {
            // The kernel then makes files with mknod, and has no handle to release.
            return reply.error(fuser::Errno::ENOSYS);
        }
        let new = New { kind: Kind::File, permissions: mode & 0o7777, rdev: 0, target: b"" };
        reply_or_error!(reply, self.make(request, umask, parent.0, name, new), attr => {
            let generation = self.hold(attr.ino.0);
            if flags & ACCESS_MODE != 0
                && let Ok((inode, _)) = self.inside(attr.ino.0)
            {
                *self.open_for_writing.lock().entry(inode).or_default() += 1;
            }
            reply.created(&KEEP, &attr, generation, FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
        });
    }

    /// Without a line in fuser's log: programs ask this of every file, to see whether it is a terminal.
    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(fuser::Errno::ENOTTY);
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let kill = !FileSystem::keeps_privileges(request);
        reply_or_error!(reply, self.preallocate(ino.0, offset, length, mode, kill), () => reply.ok());
    }

    fn lseek(&self, _request: &Request, ino: INodeNo, _fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        reply_or_error!(reply, self.seek(ino.0, offset, whence), offset => reply.offset(offset));
    }

    fn copy_file_range(
        &self,
        request: &Request,
        ino_in: INodeNo,
        _fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // The reply counts in 32 bits; the caller goes on from there.
        let len = len.min(u64::from(u32::MAX) & !0xfff_ffff);
        let copied = self.inside(ino_in.0).and_then(|(inode, moment)| {
            let from = Position { inode, offset: offset_in, moment };
            let kill = !FileSystem::keeps_privileges(request);
            let to = self.writable(ino_out.0)?;
            self.with_room(|| self.views.tree().copy_range(from, to, offset_out, len, kill))
        });
        reply_or_error!(reply, copied, count => reply.written(count as u32));
    }
}

fn reply_sized(reply: ReplyXattr, bytes: &[u8], size: u32) {
    if size == 0 {
        reply.size(bytes.len() as u32);
    } else if bytes.len() > size as usize {
        reply.error(fuser::Errno::ERANGE);
    } else {
        reply.data(bytes);
    }
}
