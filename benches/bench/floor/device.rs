//! The tree over /dev/fuse, through fuser. What is not here is answered with ENOSYS, and then the kernel asks for most of it
//! no more.

use super::content::within;
use super::tree::{Attr, BLOCK_BYTES, BLOCKS, INODES, KEEP, NAME_BYTES_MAX, New, Result, Tree};
use fuser::*;
use pitfs::clock::Timestamp;
use pitfs::fuse::placement;
use pitfs::tree::{Change, SetTime};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of one request.
pub const REQUEST_BYTES: u32 = 1 << 20;
/// As pitfs has it: what is forgotten meanwhile is handed over together.
const REST_BETWEEN_FORGETS: Duration = Duration::from_millis(2);

pub struct Served {
    pub tree: Arc<Tree>,
    /// In: that requests are to come through rings. Out: that the kernel knows it.
    pub rings: Arc<AtomicBool>,
    /// The last request to forget something.
    forgetting: AtomicU64,
}

impl Served {
    pub fn new(tree: Arc<Tree>, rings: Arc<AtomicBool>) -> Served {
        Served { tree, rings, forgetting: AtomicU64::default() }
    }
}

fn kind(attr: &Attr) -> FileType {
    match attr.kind() {
        0o01 => FileType::NamedPipe,
        0o02 => FileType::CharDevice,
        0o04 => FileType::Directory,
        0o06 => FileType::BlockDevice,
        0o12 => FileType::Symlink,
        0o14 => FileType::Socket,
        _ => FileType::RegularFile,
    }
}

impl From<&Attr> for FileAttr {
    fn from(attr: &Attr) -> FileAttr {
        FileAttr {
            ino: INodeNo(attr.number),
            size: attr.size,
            blocks: attr.blocks(),
            atime: attr.atime.into(),
            mtime: attr.mtime.into(),
            ctime: attr.ctime.into(),
            crtime: UNIX_EPOCH,
            kind: kind(attr),
            perm: (attr.mode & 0o7777) as u16,
            nlink: attr.links,
            uid: attr.uid,
            gid: attr.gid,
            rdev: attr.rdev,
            blksize: BLOCK_BYTES,
            flags: 0,
        }
    }
}

fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::To(Timestamp::from(time)),
    }
}

fn errno(error: pitfs::error::Errno) -> Errno {
    Errno::from_i32(error.raw_os_error())
}

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

fn reply_made(reply: ReplyEntry, made: Result<Attr>) {
    reply_or_error!(reply, made, attr => reply.entry(&KEEP, &FileAttr::from(&attr), Generation(0)));
}

fn owner(request: &Request) -> (u32, u32) {
    (request.uid(), request.gid())
}

impl Filesystem for Served {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        use InitFlags as F;
        let wanted = F::FUSE_ASYNC_READ
            | F::FUSE_PARALLEL_DIROPS
            | F::FUSE_DO_READDIRPLUS
            | F::FUSE_READDIRPLUS_AUTO
            | F::FUSE_CACHE_SYMLINKS
            | F::FUSE_EXPLICIT_INVAL_DATA
            | F::FUSE_NO_OPENDIR_SUPPORT
            | F::FUSE_HANDLE_KILLPRIV_V2
            | F::FUSE_BIG_WRITES
            | F::FUSE_MAX_PAGES;
        // A kernel that lacks one is asked more.
        config.add_capabilities(wanted & config.capabilities()).unwrap_or_default();
        if self.rings.load(Ordering::Acquire) && config.add_capabilities(F::FUSE_OVER_IO_URING).is_err() {
            self.rings.store(false, Ordering::Release);
        }
        // A kernel with smaller limits answers with the largest value that it takes.
        if let Err(most) = config.set_max_write(REQUEST_BYTES) {
            config.set_max_write(most).map_err(|_| io::Error::other("no size of writes suits the kernel"))?;
        }
        if let Err(most) = config.set_max_readahead(REQUEST_BYTES) {
            config.set_max_readahead(most).map_err(|_| io::Error::other("no size of readahead suits the kernel"))?;
        }
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        placement::serving(request.pid());
        let found = self.tree.lookup(parent.0, name.as_bytes()).and_then(|found| match found {
            Some(attr) => Ok(FileAttr::from(&attr)),
            // Number 0 says that there is nothing, which may be remembered; only its type has to be one.
            None => self.tree.getattr(parent.0).map(|attr| FileAttr { ino: INodeNo(0), ..FileAttr::from(&attr) }),
        });
        reply_or_error!(reply, found, attr => reply.entry(&KEEP, &attr, Generation(0)));
    }

    fn forget(&self, request: &Request, ino: INodeNo, nlookup: u64) {
        let unique = request.unique().0;
        if self.forgetting.swap(unique, Ordering::Relaxed) != unique && self.rings.load(Ordering::Relaxed) {
            std::thread::sleep(REST_BETWEEN_FORGETS);
        }
        self.tree.forget(ino.0, nlookup);
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        placement::serving(request.pid());
        reply_or_error!(reply, self.tree.getattr(ino.0), attr => reply.attr(&KEEP, &FileAttr::from(&attr)));
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
            ctime: ctime.map(Timestamp::from),
            kill_privileges: uid.is_some() || gid.is_some() || size.is_some() && request.uid() != 0,
        };
        let changed = self.tree.setattr(ino.0, &change);
        reply_or_error!(reply, changed, attr => reply.attr(&KEEP, &FileAttr::from(&attr)));
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        placement::serving(request.pid());
        reply_or_error!(reply, self.tree.readlink(ino.0), target => reply.data(&target));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        placement::serving(request.pid());
        let (uid, gid) = owner(request);
        reply_made(reply, self.tree.make(parent.0, name.as_bytes(), New { mode, rdev, uid, gid, target: b"" }));
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        placement::serving(request.pid());
        reply_made(reply, self.tree.make(parent.0, name.as_bytes(), New::directory(mode, owner(request))));
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        placement::serving(request.pid());
        reply_or_error!(reply, self.tree.remove(parent.0, name.as_bytes()), () => reply.ok());
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        placement::serving(request.pid());
        reply_or_error!(reply, self.tree.remove(parent.0, name.as_bytes()), () => reply.ok());
    }

    fn symlink(&self, request: &Request, parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry) {
        placement::serving(request.pid());
        let new = New::symlink(target.as_os_str().as_bytes(), owner(request));
        reply_made(reply, self.tree.make(parent.0, link_name.as_bytes(), new));
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
        let (from, to) = ((parent.0, name.as_bytes()), (newparent.0, newname.as_bytes()));
        reply_or_error!(reply, self.tree.rename(from, to, flags.bits()), () => reply.ok());
    }

    fn link(&self, request: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        placement::serving(request.pid());
        reply_made(reply, self.tree.link(ino.0, newparent.0, newname.as_bytes()));
    }

    fn open(&self, request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        placement::serving(request.pid());
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn opendir(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
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
        reply_or_error!(reply, self.tree.content(ino.0), content => reply.data(within(&content.read(), offset, size)));
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
        let kill = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let written = self.tree.write(ino.0, offset, data, kill);
        reply_or_error!(reply, written, () => reply.written(data.len() as u32));
    }

    fn fsync(&self, request: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        placement::serving(request.pid());
        reply.ok();
    }

    fn fsyncdir(&self, _request: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(&self, request: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        placement::serving(request.pid());
        let listed = self.tree.list(ino.0, offset, false, &mut |name, attr, next| {
            reply.add(INodeNo(attr.number), next, kind(attr), OsStr::from_bytes(name))
        });
        reply_or_error!(reply, listed, () => reply.ok());
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
        let listed = self.tree.list(ino.0, offset, true, &mut |name, attr, next| {
            let (attr, name) = (FileAttr::from(attr), OsStr::from_bytes(name));
            reply.add(attr.ino, next, name, &KEEP, &attr, Generation(0))
        });
        reply_or_error!(reply, listed, () => reply.ok());
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, INODES, INODES, BLOCK_BYTES, NAME_BYTES_MAX as u32, BLOCK_BYTES);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        placement::serving(request.pid());
        let made = self.tree.make(parent.0, name.as_bytes(), New::file(mode, owner(request)));
        reply_or_error!(reply, made, attr => {
            let (attr, flags) = (FileAttr::from(&attr), FopenFlags::FOPEN_KEEP_CACHE);
            reply.created(&KEEP, &attr, Generation(0), FileHandle(0), flags);
        });
    }

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
        reply.error(Errno::ENOTTY);
    }
}
