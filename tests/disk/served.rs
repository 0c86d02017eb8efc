//! The disk as the kernel sees it: each request looked up, failed if that is its lot, and done to the image.

use super::image::{Change, File, ROOT};
use super::{SLOW, Shared, State};
use fuser::*;
use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub struct Served(pub Arc<Shared>);

/// Nothing is kept by the kernel: every request arrives here.
const TTL: Duration = Duration::ZERO;
const GENERATION: Generation = Generation(0);
const SOCKET: u32 = 0o140_000;
const TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;

const KEEP_SIZE: i32 = 0x01;
const PUNCH_HOLE: i32 = 0x02;

/// The daemon's notes, which no test wants to lose.
const SPARED: &[&str] = &["log", "lock", "control"];

type Outcome<T> = Result<T, Errno>;

fn text(name: &OsStr) -> Outcome<&str> {
    name.to_str().ok_or(Errno::EILSEQ)
}

fn attributes(number: u64, file: &File) -> FileAttr {
    let kind = if file.mode & TYPE == SOCKET { FileType::Socket } else { FileType::RegularFile };
    attributes_of(number, kind, file.mode, file.bytes.len(), file.bytes.room(), (file.uid, file.gid))
}

fn attributes_of(number: u64, kind: FileType, mode: u32, size: u64, room: u64, owner: (u32, u32)) -> FileAttr {
    let time = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: room / 512,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm: (mode & 0o7777) as u16,
        nlink: 1,
        uid: owner.0,
        gid: owner.1,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn root_attributes() -> FileAttr {
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    attributes_of(ROOT, FileType::Directory, 0o700, 0, 0, owner)
}

impl State {
    fn check(&self) -> Outcome<()> {
        if self.is_cut { Err(Errno::EIO) } else { Ok(()) }
    }

    fn file(&self, number: u64) -> Outcome<&File> {
        self.check()?;
        self.image.files.get(&number).ok_or(Errno::ENOENT)
    }

    fn attr(&self, number: u64) -> Outcome<FileAttr> {
        self.check()?;
        if number == ROOT { Ok(root_attributes()) } else { Ok(attributes(number, self.file(number)?)) }
    }

    fn lookup(&self, name: &str) -> Outcome<FileAttr> {
        self.check()?;
        let number = self.image.find(name).ok_or(Errno::ENOENT)?;
        self.attr(number)
    }

    fn is_spared(&self, number: u64) -> bool {
        SPARED.iter().any(|name| self.image.find(name) == Some(number))
    }

    fn hits(&mut self, number: u64, chance: u64) -> bool {
        let hits = chance > 0 && !self.is_spared(number) && self.rng.below(1000) < chance;
        self.faults_met += u64::from(hits);
        hits
    }

    /// Counts a changing request that `change` carries out; at the one that is the last, the power goes.
    fn change(&mut self, change: impl FnOnce(&mut State)) -> Outcome<()> {
        self.check()?;
        let is_last = match &mut self.changes_left {
            Some(left) => {
                *left = left.saturating_sub(1);
                *left == 0
            }
            None => false,
        };
        if is_last {
            // Whether it was still carried out, nobody is told.
            if self.rng.percent(50) {
                change(self);
            }
            self.is_cut = true;
        } else {
            change(self);
        }
        self.check()
    }

    fn room_for(&mut self, number: u64, offset: u64, len: u64) -> Outcome<()> {
        let missing = self.file(number)?.bytes.missing(offset, len);
        let chance = self.faults.no_space;
        if missing > 0 && (self.image.room() + missing > self.room || self.hits(number, chance)) {
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }

    fn write(&mut self, number: u64, offset: u64, data: &[u8]) -> Outcome<u32> {
        self.room_for(number, offset, data.len() as u64)?;
        if self.hits(number, self.faults.write_fails) {
            return Err(Errno::EIO);
        }
        let mut count = data.len();
        if count > 1 && self.hits(number, self.faults.short) {
            count = 1 + self.rng.below(count as u64 - 1) as usize;
        }
        let change = Change::Write(offset, data[..count].to_vec());
        self.change(|state| state.image.change(number, change))?;
        Ok(count as u32)
    }

    fn read(&mut self, number: u64, offset: u64, len: u32) -> Outcome<Vec<u8>> {
        self.check()?;
        if self.hits(number, self.faults.read_fails) {
            return Err(Errno::EIO);
        }
        let mut bytes = self.file(number)?.bytes.read(offset, len.into());
        if bytes.len() > 1 && self.hits(number, self.faults.short) {
            bytes.truncate(1 + self.rng.below(bytes.len() as u64 - 1) as usize);
        }
        Ok(bytes)
    }

    fn sync(&mut self, number: u64) -> Outcome<()> {
        if self.hits(number, self.faults.sync_fails) {
            return Err(Errno::EIO);
        }
        self.change(|state| state.image.sync(number))?;
        self.syncs += 1;
        Ok(())
    }

    fn fallocate(&mut self, number: u64, offset: u64, len: u64, mode: i32) -> Outcome<()> {
        if mode == PUNCH_HOLE | KEEP_SIZE {
            let len = len.min(self.file(number)?.bytes.len().saturating_sub(offset));
            return self.change(|state| state.image.change(number, Change::Punch(offset, len)));
        }
        if mode != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        self.room_for(number, offset, len)?;
        if self.hits(number, self.faults.write_fails) {
            return Err(Errno::EIO);
        }
        let grows = self.file(number)?.bytes.len() < offset + len;
        self.change(|state| {
            state.image.change(number, Change::Allocate(offset, len));
            if grows {
                state.image.change(number, Change::Len(offset + len));
            }
        })
    }

    fn set_attributes(
        &mut self,
        number: u64,
        mode: Option<u32>,
        owner: (Option<u32>, Option<u32>),
        size: Option<u64>,
    ) -> Outcome<FileAttr> {
        self.attr(number)?;
        if let Some(size) = size {
            self.change(|state| state.image.change(number, Change::Len(size)))?;
        }
        if let Some(file) = self.image.files.get_mut(&number) {
            file.mode = mode.map_or(file.mode, |mode| file.mode & TYPE | mode & 0o7777);
            file.uid = owner.0.unwrap_or(file.uid);
            file.gid = owner.1.unwrap_or(file.gid);
        }
        self.attr(number)
    }

    fn make(&mut self, request: &Request, name: &str, mode: u32) -> Outcome<FileAttr> {
        if self.image.find(name).is_some() {
            return Err(Errno::EEXIST);
        }
        let mode = if mode & TYPE == 0 { mode | REGULAR } else { mode };
        self.change(|state| {
            state.image.create(name, mode, request.uid(), request.gid());
        })?;
        self.lookup(name)
    }
}

impl Served {
    /// Runs one request; where that is its lot, slowly.
    fn with<T>(&self, number: u64, run: impl FnOnce(&mut State) -> Outcome<T>) -> Outcome<T> {
        let is_slow = {
            let mut state = self.0.lock();
            let chance = state.faults.slow;
            state.hits(number, chance)
        };
        if is_slow {
            std::thread::sleep(SLOW);
        }
        let mut state = self.0.lock();
        let result = run(&mut state);
        if state.is_cut {
            self.0.was_cut.notify_all();
        }
        result
    }
}

macro_rules! reply_or_error {
    ($reply:ident, $result:expr, $value:pat => $send:expr) => {
        match $result {
            Ok($value) => $send,
            Err(error) => $reply.error(error),
        }
    };
}

impl Filesystem for Served {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        config.set_max_write(1 << 20).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(())
    }

    fn lookup(&self, _request: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = text(name).and_then(|name| self.with(ROOT, |state| state.lookup(name)));
        reply_or_error!(reply, found, attr => reply.entry(&TTL, &attr, GENERATION));
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let found = self.0.lock().attr(ino.0);
        reply_or_error!(reply, found, attr => reply.attr(&TTL, &attr));
    }

    fn setattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changed = self.with(ino.0, |state| state.set_attributes(ino.0, mode, (uid, gid), size));
        reply_or_error!(reply, changed, attr => reply.attr(&TTL, &attr));
    }

    fn mknod(
        &self,
        request: &Request,
        _parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let made = text(name).and_then(|name| self.with(ROOT, |state| state.make(request, name, mode & !umask)));
        reply_or_error!(reply, made, attr => reply.entry(&TTL, &attr, GENERATION));
    }

    fn unlink(&self, _request: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = text(name).and_then(|name| {
            self.with(ROOT, |state| {
                state.lookup(name)?;
                state.change(|state| state.image.unlink(name))
            })
        });
        reply_or_error!(reply, removed, () => reply.ok());
    }

    fn rename(
        &self,
        _request: &Request,
        _parent: INodeNo,
        name: &OsStr,
        _new_parent: INodeNo,
        new_name: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = text(name).and_then(|from| {
            let to = text(new_name)?;
            self.with(ROOT, |state| {
                let number = state.lookup(from)?.ino.0;
                state.change(|state| state.image.rename(from, to, number))
            })
        });
        reply_or_error!(reply, renamed, () => reply.ok());
    }

    fn open(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let found = self.0.lock().attr(ino.0);
        reply_or_error!(reply, found, _ => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO));
    }

    fn create(
        &self,
        request: &Request,
        _parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let made = text(name).and_then(|name| self.with(ROOT, |state| state.make(request, name, mode & !umask)));
        let flags = FopenFlags::FOPEN_DIRECT_IO;
        reply_or_error!(reply, made, attr => reply.created(&TTL, &attr, GENERATION, FileHandle(0), flags));
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.with(ino.0, |state| state.read(ino.0, offset, size));
        reply_or_error!(reply, read, bytes => reply.data(&bytes));
    }

    fn write(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.with(ino.0, |state| state.write(ino.0, offset, data));
        reply_or_error!(reply, written, count => reply.written(count));
    }

    fn flush(&self, _request: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _request: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let synced = self.with(ino.0, |state| state.sync(ino.0));
        reply_or_error!(reply, synced, () => reply.ok());
    }

    fn readdir(&self, _request: &Request, _ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let state = self.0.lock();
        if let Err(error) = state.check() {
            return reply.error(error);
        }
        for (i, (name, number)) in state.image.names.iter().enumerate().skip(offset as usize) {
            let kind = attributes(*number, &state.image.files[number]).kind;
            if reply.add(INodeNo(*number), i as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn fsyncdir(&self, _request: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let synced = self.with(ROOT, |state| {
            if state.hits(ROOT, state.faults.sync_fails) {
                return Err(Errno::EIO);
            }
            state.change(|state| state.image.sync_directory())
        });
        reply_or_error!(reply, synced, () => reply.ok());
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let state = self.0.lock();
        let (total, free) = (state.room / 4096, state.room.saturating_sub(state.image.room()) / 4096);
        reply.statfs(total, free, free, 1000, 1000, 4096, 255, 4096);
    }

    fn fallocate(
        &self,
        _request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let done = self.with(ino.0, |state| state.fallocate(ino.0, offset, length, mode));
        reply_or_error!(reply, done, () => reply.ok());
    }
}
