//! One method for each request: convert, call, reply.

use super::convert::{errno, set_time, timestamp};
use super::nodes::{FOR_READING, FOR_WRITING, GENERATION};
use super::number::Node;
use super::seek::LONG_SEEK_TRACKS;
use super::{FileSystem, KEEP, Opens, REQUEST_BYTES, placement};
use crate::error::{Errno, Error, Result};
use crate::limits::{COPY_BYTES_MAX, STEP_TRACKS};
use crate::tree::{Change, Kind, New, Position, Sent, SetMode, SetXattr};
use crate::view::name_of;
use fuser::*;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

const XATTR_CREATE: i32 = 1;
const XATTR_REPLACE: i32 = 2;

/// For what a request makes in passing and that does not tell its caller's.
const UMASK: u32 = 0o022;

/// `O_APPEND`, as the kernel passes it on.
const APPEND: i32 = 0o2000;

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
    fn reply_made(&self, reply: ReplyEntry, made: Result<FileAttr>) {
        reply_or_error!(reply, made, attr => {
            let generation = self.hold(attr.ino.into());
            reply.entry(&self.keep_attributes(&attr), &attr, generation);
        });
    }
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
            | F::FUSE_BIG_WRITES
            | F::FUSE_MAX_PAGES;
        if self.writeback {
            wanted |= F::FUSE_WRITEBACK_CACHE;
        }
        if self.opens == Opens::None {
            wanted |= F::FUSE_NO_OPEN_SUPPORT;
        }
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
        let _telling = self.numbers.telling(parent.into(), name.as_bytes());
        let found = self.lookup_in(request, parent.into(), name.as_bytes());
        let _yielding = placement::yielding();
        match found {
            Ok((attr, keep)) => {
                let generation = self.hold(attr.ino.into());
                reply.entry(&keep, &attr, generation);
            }
            // That there is nothing may be remembered as well, but of times.
            Err(Error::Posix(Errno::NOENT)) if self.may_be_kept(parent.into(), name.as_bytes()) => {
                match self.attributes_of_virtual(&crate::view::Virtual::Root) {
                    Ok(attr) => reply.entry(&KEEP, &FileAttr { ino: INodeNo(0), ..attr }, GENERATION),
                    Err(error) => reply.error(errno(error)),
                }
            }
            Err(error) => reply.error(errno(error)),
        }
    }

    fn forget(&self, _request: &Request, ino: INodeNo, nlookup: u64) {
        self.forget_node(ino.into(), nlookup);
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        placement::serving(request.pid());
        let attr = self.ending_for(request.pid(), ino.into()).and_then(|()| self.attr_of(ino.into()));
        reply_or_error!(reply, attr, attr => reply.attr(&self.keep_attributes(&attr), &attr));
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
        ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if self.beside.is_asking(request.pid()) {
            // To learn what the file is.
            let attr = self.attr_of(ino.into());
            if let (Some(_), Ok(attr), Ok(Node::In(place))) = (size, &attr, self.numbers.node(ino.into())) {
                self.views.tree().end_given(place.inode, attr.size);
            }
            reply_or_error!(reply, attr, attr => reply.attr(&self.keep_attributes(&attr), &attr));
            return;
        }
        placement::serving(request.pid());
        let is_of_times = (mode, uid, gid, size) == (None, None, None, None);
        let change = Change {
            permissions: mode,
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            // Only a kernel that keeps times itself gives one.
            ctime: ctime.map(timestamp),
            // A change of owner clears the bits whoever makes it, unless it sets the mode as well.
            kill_privileges: uid.is_some() || gid.is_some() || !FileSystem::keeps_privileges(request),
        };
        let is_long = size.is_some_and(|size| self.has_more_tracks(ino.into(), size, STEP_TRACKS));
        self.here_or_aside(request, is_long, move |fs| {
            let changed = fs.change_node(ino.into(), change, is_of_times);
            reply_or_error!(reply, changed, attr => reply.attr(&fs.keep_attributes(&attr), &attr));
        });
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        placement::serving(request.pid());
        let target = self.numbers.node(ino.into()).and_then(|node| match node {
            Node::In(place) => self.views.tree().names().read_link(place.inode, place.moment),
            Node::Virtual(node) => self.namespace.read_link(&node),
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
            self.make(request, umask, parent.into(), name, New { kind, permissions: mode & 0o7777, rdev, target: b"" })
        });
        self.reply_made(reply, made);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        placement::serving(request.pid());
        let is_in_tree = |node| match node {
            Node::In(_) => true,
            Node::Virtual(node) => name_of(&node).is_some(),
        };
        if self.numbers.node(parent.into()).is_ok_and(|node| !is_in_tree(node)) {
            return self.mkdir_in_root(request, parent.into(), name.as_bytes().to_vec(), reply);
        }
        let new = New { kind: Kind::Directory, permissions: mode & 0o7777, rdev: 0, target: b"" };
        self.reply_made(reply, self.make(request, umask, parent.into(), name, new));
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        placement::serving(request.pid());
        let removed = self.writable(parent.into()).and_then(|parent| {
            self.views.tree().names().unlink(parent, name.as_bytes())?;
            self.settle(())
        });
        reply_or_error!(reply, removed, () => reply.ok());
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        placement::serving(request.pid());
        let removed = self.numbers.node(parent.into()).and_then(|node| match node {
            Node::In(place) => {
                let parent = self.writable(parent.into())?;
                self.check_may_go(parent, name.as_bytes())?;
                match self.views.tree().names().remove_directory(parent, name.as_bytes()) {
                    Err(Error::Posix(Errno::NOENT)) => self.hide(place, name.as_bytes()),
                    removed => removed.and_then(|_| self.settle(())),
                }
            }
            node => self.rmdir_in_root(request, &node, name.as_bytes()),
        });
        reply_or_error!(reply, removed, () => reply.ok());
    }

    fn symlink(&self, request: &Request, parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry) {
        placement::serving(request.pid());
        let new = New { kind: Kind::Symlink, permissions: 0o777, rdev: 0, target: target.as_os_str().as_bytes() };
        self.reply_made(reply, self.make(request, 0, parent.into(), link_name, new));
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
        let caller = FileSystem::caller(request, UMASK);
        let renamed = self.rename_nodes(caller, parent.into(), name, newparent.into(), newname, flags);
        reply_or_error!(reply, renamed, () => reply.ok());
    }

    fn link(&self, request: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        placement::serving(request.pid());
        let caller = FileSystem::caller(request, UMASK);
        self.reply_made(reply, self.link_node(caller, ino.into(), newparent.into(), newname));
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if self.opens == Opens::None {
            // Once for all files: the kernel asks no more.
            return reply.error(fuser::Errno::ENOSYS);
        }
        if self.beside.is_asking(request.pid()) {
            // It writes nothing, also to what may not be written to.
            return reply.opened(FOR_READING, FopenFlags::FOPEN_KEEP_CACHE);
        }
        placement::serving(request.pid());
        let opened = self.open_node(ino.into(), flags.0);
        if let Ok(FOR_WRITING) = opened {
            self.ask_for_blocks_again(ino.into());
        }
        reply_or_error!(reply, opened, handle => reply.opened(handle, FopenFlags::FOPEN_KEEP_CACHE));
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
        let read = self
            .inside(ino.into())
            .and_then(|(inode, moment)| self.views.tree().files().read(inode, offset, size as usize, moment));
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
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        placement::moving(request.pid(), data.len());
        let written = self.writable(ino.into()).and_then(|inode| {
            let kill = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
            let from_cache = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
            let sent = Sent { from_cache, appended: !from_cache && flags.0 & APPEND != 0 };
            // Of all other writes the kernel knows that they change blocks.
            let before = (self.writeback && from_cache).then(|| self.stored_blocks(inode));
            let written = self.views.tree().files().write_sent(inode, offset, data, kill, sent);
            if let Err(error) = written {
                // What may not be written is nobody's to miss.
                if from_cache && !matches!(error, Error::Gone | Error::Posix(Errno::ROFS)) {
                    self.not_stored.note(inode);
                }
                return Err(error);
            }
            if before.is_some_and(|before| before != self.stored_blocks(inode)) {
                self.drop_attributes(ino.into());
            }
            Ok(())
        });
        if let Err(Error::Posix(Errno::ROFS)) = written {
            self.drop_written(ino.into(), offset, data.len());
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
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if self.close_node(ino.into(), fh) {
            self.ask_for_blocks_again(ino.into());
        }
        reply.ok();
    }

    fn fsync(&self, request: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        placement::serving(request.pid());
        reply_or_error!(reply, self.sync_node(ino.into()), () => reply.ok());
    }

    fn fsyncdir(&self, _request: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply_or_error!(reply, self.sync_node(ino.into()), () => reply.ok());
    }

    fn readdir(&self, request: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        placement::serving(request.pid());
        self.here_or_aside(request, self.is_listed_long(ino.into()), move |fs| {
            reply_or_error!(reply, fs.list_plain(ino.into(), offset, &mut reply), () => reply.ok());
        });
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
        self.here_or_aside(request, self.is_listed_long(ino.into()), move |fs| {
            reply_or_error!(reply, fs.list_plus(ino.into(), offset, &mut reply), () => reply.ok());
        });
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
            let inode = self.writable(ino.into())?;
            let how = SetXattr { mode, clears_sgid: self.clears_sgid(request, inode)? };
            self.views.tree().attributes().set_xattr(inode, name.as_bytes(), value, how)
        });
        reply_or_error!(reply, set, () => reply.ok());
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        placement::serving(request.pid());
        reply_or_error!(reply, self.xattr_of(ino.into(), name.as_bytes()), value => reply_sized(reply, &value, size));
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = match self.numbers.node(ino.into()) {
            Ok(Node::Virtual(_)) => Ok(Vec::new()),
            Ok(Node::In(place)) => self.views.tree().attributes().xattr_names(place.inode, place.moment),
            Err(error) => Err(error),
        };
        reply_or_error!(reply, names, names => {
            let list: Vec<u8> = names.into_iter().flat_map(|mut name| { name.push(0); name }).collect();
            reply_sized(reply, &list, size);
        });
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if self.beside.is_asking(request.pid()) {
            // The kernel takes capabilities from whatever is truncated.
            return reply.ok();
        }
        placement::serving(request.pid());
        let removed = self
            .writable(ino.into())
            .and_then(|inode| self.views.tree().attributes().remove_xattr(inode, name.as_bytes()));
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
        if self.opens == Opens::None {
            // The kernel then makes files with mknod, and has no handle to release.
            return reply.error(fuser::Errno::ENOSYS);
        }
        placement::serving(request.pid());
        let created = self.create_node(request, umask, parent.into(), name, mode, flags);
        reply_or_error!(reply, created, (attr, handle) => {
            let generation = self.hold(attr.ino.into());
            reply.created(&self.keep_attributes(&attr), &attr, generation, handle, FopenFlags::FOPEN_KEEP_CACHE);
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
        self.here_or_aside(request, self.takes_long(ino.into(), length, mode), move |fs| {
            reply_or_error!(reply, fs.preallocate(ino.into(), offset, length, mode, kill), () => reply.ok());
        });
    }

    fn lseek(&self, request: &Request, ino: INodeNo, _fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let is_long = self.has_more_tracks(ino.into(), offset.max(0) as u64, LONG_SEEK_TRACKS);
        self.here_or_aside(request, is_long, move |fs| fs.seek(ino.into(), offset, whence, reply));
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
        // The reply says how many these were, in 32 bits; the caller goes on from there.
        let len = len.min(COPY_BYTES_MAX);
        let copied = self.inside(ino_in.into()).and_then(|(inode, moment)| {
            let from = Position { inode, offset: offset_in, moment };
            let kill = !FileSystem::keeps_privileges(request);
            let to = self.writable(ino_out.into())?;
            self.views.tree().files().copy_range(from, to, offset_out, len, kill)
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
