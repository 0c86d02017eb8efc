//! The transport over /dev/fuse, through fuser: one method for each request, which converts, calls and replies.

mod convert;
mod domain;
pub mod placement;

use super::aside::Aside;
use super::attr::Made;
use super::operations::{Client, Found, Room, Value, Write};
use super::seek::Sought;
use super::{FileSystem, Opens, REQUEST_BYTES, listing, seek, thread};
use crate::error::Result;
use crate::tree::Change;
use crate::view::Virtual;
use convert::{errno, file_type, set_time, timestamp};
pub(super) use domain::Domains;
use fuser::*;
pub(super) use placement::allow as allow_following;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// The file system as fuser serves it.
pub(super) struct Served {
    fs: Arc<FileSystem>,
    aside: Arc<Aside>,
    /// In: that requests are to come through rings. Out: that the kernel knows it.
    rings: Arc<AtomicBool>,
    /// The last request to forget something.
    forgetting: AtomicU64,
}

pub(super) fn served(fs: Arc<FileSystem>, rings: Arc<AtomicBool>) -> Domains {
    Domains(Served { fs, aside: Arc::default(), rings, forgetting: AtomicU64::default() })
}

macro_rules! reply_or_error {
    ($reply:ident, $result:expr, $value:pat => $send:expr) => {
        let result = $result;
        let _yielding = placement::yielding();
        match result {
            Ok($value) => $send,
            Err(error) => $reply.error(errno(&error)),
        }
    };
}

fn reply_made(reply: ReplyEntry, made: Result<Made>) {
    reply_or_error!(reply, made, Made { attr, generation, keep } => {
        reply.entry(&keep, &attr.into(), Generation(generation));
    });
}

fn reply_value(reply: ReplyXattr, value: Result<Value>) {
    reply_or_error!(reply, value, value => match value {
        Value::Length(length) => reply.size(length),
        Value::Bytes(bytes) => reply.data(&bytes),
    });
}

fn reply_offset(reply: ReplyLseek, found: Result<u64>) {
    match found {
        Ok(offset) => reply.offset(offset as i64),
        Err(error) => reply.error(errno(&error)),
    }
}

/// How long nodes that are forgotten wait for others. The kernel then hands them over together, and whoever removes a tree
/// is spared a wake-up for each.
const REST_BETWEEN_FORGETS: Duration = Duration::from_millis(2);

impl Served {
    /// Called with each node that is forgotten; several may be by one request. Nothing else that is urgent comes this way
    /// while rings serve.
    fn rest_before_forgetting(&self, request: &Request) {
        let unique = request.unique().0;
        if self.forgetting.swap(unique, Ordering::Relaxed) != unique && self.rings.load(Ordering::Relaxed) {
            std::thread::sleep(REST_BETWEEN_FORGETS);
        }
    }

    /// Carries out a request, aside where it takes long.
    fn here_or_aside(&self, client: Client, takes_long: bool, work: impl FnOnce(&Arc<FileSystem>) + Send + 'static) {
        if !takes_long {
            return work(&self.fs);
        }
        let fs = self.fs.clone();
        self.aside.run(client.uid, move || work(&fs));
    }
}

impl Filesystem for Served {
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
        if self.fs.writeback {
            wanted |= F::FUSE_WRITEBACK_CACHE;
        }
        if self.fs.opens == Opens::None {
            wanted |= F::FUSE_NO_OPEN_SUPPORT;
        }
        for flag in wanted.iter() {
            if config.add_capabilities(flag).is_err() {
                log::info!("this kernel lacks {flag:?}; going on without");
            }
        }
        if self.rings.load(Ordering::Acquire) && config.add_capabilities(F::FUSE_OVER_IO_URING).is_err() {
            self.rings.store(false, Ordering::Release);
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
        let found = self.fs.lookup(request.into(), parent.into(), name.as_bytes());
        let _yielding = placement::yielding();
        match found {
            Ok(Found::Made(Made { attr, generation, keep })) => {
                reply.entry(&keep, &attr.into(), Generation(generation));
            }
            Ok(Found::Nothing(keep)) => match self.fs.attributes_of_virtual(&Virtual::Root) {
                Ok(attr) => {
                    reply.entry(&keep, &FileAttr { ino: INodeNo(0), ..FileAttr::from(attr) }, Generation(0));
                }
                Err(error) => reply.error(errno(&error)),
            },
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn forget(&self, request: &Request, ino: INodeNo, nlookup: u64) {
        self.rest_before_forgetting(request);
        self.fs.forget_node(ino.into(), nlookup);
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        placement::serving(request.pid());
        let found = self.fs.getattr(request.into(), ino.into());
        reply_or_error!(reply, found, (attr, keep) => reply.attr(&keep, &attr.into()));
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
        placement::serving(request.pid());
        let change = Change {
            permissions: mode,
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            // Only a kernel that keeps times itself gives one.
            ctime: ctime.map(timestamp),
            kill_privileges: false,
        };
        let client = Client::from(request);
        self.here_or_aside(client, self.fs.is_setattr_long(ino.into(), &change), move |fs| {
            let changed = fs.setattr(client, ino.into(), change);
            reply_or_error!(reply, changed, (attr, keep) => reply.attr(&keep, &attr.into()));
        });
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        placement::serving(request.pid());
        reply_or_error!(reply, self.fs.readlink(ino.into()), target => reply.data(&target));
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
        reply_made(reply, self.fs.mknod(request.into(), parent.into(), name.as_bytes(), (mode, umask, rdev)));
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        placement::serving(request.pid());
        let client = Client::from(request);
        if !self.fs.is_above_trees(parent.into()) {
            return reply_made(reply, self.fs.mkdir(client, parent.into(), name.as_bytes(), (mode, umask)));
        }
        let (fs, name) = (self.fs.clone(), name.as_bytes().to_vec());
        let make = move || reply_made(reply, fs.mkdir_above(client, parent.into(), &name));
        match self.fs.writeback {
            // It waits for other requests.
            true => thread::begin_or_tell("mkdir", make),
            false => make(),
        }
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        placement::serving(request.pid());
        reply_or_error!(reply, self.fs.unlink(request.into(), parent.into(), name.as_bytes()), () => reply.ok());
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        placement::serving(request.pid());
        reply_or_error!(reply, self.fs.rmdir(request.into(), parent.into(), name.as_bytes()), () => reply.ok());
    }

    fn symlink(&self, request: &Request, parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry) {
        placement::serving(request.pid());
        let target = target.as_os_str().as_bytes();
        reply_made(reply, self.fs.symlink(request.into(), parent.into(), link_name.as_bytes(), target));
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
        let (from, to) = ((parent.into(), name.as_bytes()), (newparent.into(), newname.as_bytes()));
        reply_or_error!(reply, self.fs.rename(request.into(), from, to, flags.bits()), () => reply.ok());
    }

    fn link(&self, request: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        placement::serving(request.pid());
        reply_made(reply, self.fs.link(request.into(), ino.into(), newparent.into(), newname.as_bytes()));
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        placement::serving(request.pid());
        let opened = self.fs.open(request.into(), ino.into(), flags.0);
        reply_or_error!(reply, opened, handle => reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE));
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
        reply_or_error!(reply, self.fs.read(ino.into(), offset, size as usize), bytes => reply.data(&bytes));
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
        let write = Write {
            offset,
            kill: write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
            from_cache: write_flags.contains(WriteFlags::FUSE_WRITE_CACHE),
            flags: flags.0 as u32,
        };
        reply_or_error!(reply, self.fs.write(ino.into(), data, write), () => reply.written(data.len() as u32));
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
        self.fs.release(ino.into(), fh.0);
        reply.ok();
    }

    fn fsync(&self, request: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        placement::serving(request.pid());
        reply_or_error!(reply, self.fs.fsync(ino.into()), () => reply.ok());
    }

    fn fsyncdir(&self, _request: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply_or_error!(reply, self.fs.fsync(ino.into()), () => reply.ok());
    }

    fn readdir(&self, request: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        placement::serving(request.pid());
        self.here_or_aside(request.into(), listing::is_listed_long(&self.fs, ino.into()), move |fs| {
            let listed = listing::readdir(fs, ino.into(), offset, &mut |name, number, next, kind| {
                reply.add(number.into(), next, file_type(kind), OsStr::from_bytes(name))
            });
            reply_or_error!(reply, listed, () => reply.ok());
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
        let client = request.into();
        self.here_or_aside(client, listing::is_listed_long(&self.fs, ino.into()), move |fs| {
            let listed = listing::readdirplus(fs, client, ino.into(), offset, &mut |name, made, next| {
                let (attr, name) = (FileAttr::from(made.attr), OsStr::from_bytes(name));
                reply.add(attr.ino, next, name, &made.keep, &attr, Generation(made.generation))
            });
            reply_or_error!(reply, listed, () => reply.ok());
        });
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        reply_or_error!(reply, self.fs.statfs(), room => {
            let Room { blocks, free, inodes, block_bytes, name_bytes } = room;
            reply.statfs(blocks, free, free, inodes, inodes, block_bytes, name_bytes, block_bytes);
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
        let set = self.fs.setxattr(request.into(), ino.into(), (name.as_bytes(), value), flags as u32);
        reply_or_error!(reply, set, () => reply.ok());
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        placement::serving(request.pid());
        reply_value(reply, self.fs.getxattr(ino.into(), name.as_bytes(), size));
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        reply_value(reply, self.fs.listxattr(ino.into(), size));
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        placement::serving(request.pid());
        let removed = self.fs.removexattr(request.into(), ino.into(), name.as_bytes());
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
        placement::serving(request.pid());
        let created = self.fs.create(request.into(), parent.into(), name.as_bytes(), (mode, umask), flags);
        reply_or_error!(reply, created, (Made { attr, generation, keep }, handle) => {
            let handle = FileHandle(handle);
            reply.created(&keep, &attr.into(), Generation(generation), handle, FopenFlags::FOPEN_KEEP_CACHE);
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
        let client = Client::from(request);
        self.here_or_aside(client, self.fs.takes_long(ino.into(), length, mode), move |fs| {
            let done = fs.fallocate(client, ino.into(), (offset, length), mode);
            reply_or_error!(reply, done, () => reply.ok());
        });
    }

    fn lseek(&self, request: &Request, ino: INodeNo, _fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let is_long = seek::is_seek_long(&self.fs, ino.into(), offset);
        self.here_or_aside(request.into(), is_long, move |fs| match seek::lseek(fs, ino.into(), offset, whence) {
            Sought::Now(found) => reply_offset(reply, found),
            Sought::AfterPages(find) => thread::begin_or_tell("seek", move || reply_offset(reply, find())),
        });
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
        let (from, to) = ((ino_in.into(), offset_in), (ino_out.into(), offset_out));
        let copied = self.fs.copy_file_range(request.into(), from, to, len);
        reply_or_error!(reply, copied, count => reply.written(count as u32));
    }
}
