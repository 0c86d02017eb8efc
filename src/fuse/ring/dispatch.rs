//! A request in an entry's buffers: what it asks for is done, and the answer put in its place.

use super::memory::Entry;
use super::wire::{
    AttrAnswer, CopyIn, CreateIn, Dirent, EntryOut, FallocateIn, ForgetIn, GetxattrIn, Incoming, LinkIn, Listing,
    LseekIn, MkdirIn, MknodIn, OffsetOut, OpenIn, OpenOut, ReadIn, ReleaseIn, Rename2In, RenameIn, SetattrIn,
    SetxattrIn, SizeOut, StatfsOut, WRITE_CACHE, WRITE_KILL, WriteIn, WriteOut, opcode, put_answer, setattr,
    split_name, time,
};
use super::{Serves, Weight};
use crate::error::{Errno, Error, Result};
use crate::fuse::number::KernelNo;
use crate::fuse::operations::{Found, Value, Write};
use crate::fuse::seek::Sought;
use crate::fuse::{FileSystem, listing, seek};
use crate::tree::{Change, SetTime};
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes that are much to move. Reads of so many are worth another thread, so that several are read and decompressed at once.
const LARGE: u32 = 64 << 10;

/// The file system, for queues.
pub(in crate::fuse) struct Requests(pub Arc<FileSystem>);

impl Serves for Requests {
    fn weight(&self, entry: &Entry) -> Weight {
        weight(&self.0, entry)
    }

    fn answer(&self, entry: &mut Entry) {
        answer(&self.0, entry);
    }

    fn end_connection(&self) {
        self.0.end_connection();
    }
}

fn weight(fs: &FileSystem, entry: &Entry) -> Weight {
    let Some(request) = entry.incoming() else { return Weight::Light };
    let number = KernelNo(request.header.node);
    let long = |is_long| if is_long { Weight::Long(request.header.uid) } else { Weight::Light };
    match request.header.opcode {
        opcode::FSYNC | opcode::FSYNCDIR | opcode::COPY_FILE_RANGE | opcode::LSEEK => Weight::Waits,
        opcode::MKDIR | opcode::RMDIR | opcode::RENAME | opcode::RENAME2 if fs.is_above_trees(number) => Weight::Waits,
        opcode::READ if moves_much(&request) => Weight::Waits,
        code if is_change(code) && (fs.waits_for_disk(code != opcode::WRITE) || fs.is_throttled()) => Weight::Waits,
        opcode::READDIR | opcode::READDIRPLUS => long(listing::is_listed_long(fs, number)),
        opcode::FALLOCATE => long(
            request.fixed().is_some_and(|given: FallocateIn| fs.takes_long(number, given.length, given.mode as i32)),
        ),
        opcode::SETATTR => long(request.fixed().is_some_and(|given: SetattrIn| {
            given.valid & setattr::SIZE != 0 && fs.is_setattr_long(number, &change(&given))
        })),
        _ => Weight::Light,
    }
}

/// Whether a request moves so much that it is better served beside its program than in its place.
pub fn moves_much(request: &Incoming<'_>) -> bool {
    match request.header.opcode {
        opcode::READ => request.fixed().is_some_and(|read: ReadIn| read.size >= LARGE),
        opcode::WRITE => request.header.len >= LARGE,
        _ => false,
    }
}

/// Whether a request changes the store.
fn is_change(code: u32) -> bool {
    use opcode::*;
    matches!(
        code,
        SETATTR
            | SYMLINK
            | MKNOD
            | MKDIR
            | UNLINK
            | RMDIR
            | RENAME
            | RENAME2
            | LINK
            | WRITE
            | CREATE
            | SETXATTR
            | REMOVEXATTR
    )
}

/// What is put behind the header of an answer: so many bytes that are there, or an error.
type Answered = Result<usize>;

/// Carries a request out, and leaves the answer in the entry.
fn answer(fs: &Arc<FileSystem>, entry: &mut Entry) {
    let Some((unique, code)) = entry.incoming().map(|request| (request.header.unique, request.header.opcode)) else {
        // Nobody knows whose answer it would be.
        log::error!("the kernel sent a request that makes no sense");
        return;
    };
    let mut answered = Err(Error::Posix(Errno::IO));
    crate::fuse::contained("a request of a ring", || answered = carry_out(fs, code, entry));
    let (header, _) = entry.parts();
    match answered {
        Ok(len) => put_answer(header, unique, 0, len),
        Err(error) => put_answer(header, unique, crate::fuse::number_told(&error), 0),
    }
}

/// Whether the kernel, which knows only of all users and of one, asks for somebody who is let in. What it asks for without
/// somebody behind it is open.
fn is_let_in(fs: &FileSystem, code: u32, entry: &Entry) -> bool {
    let Some(owner) = fs.only_for else { return true };
    match code {
        opcode::READ | opcode::READDIR | opcode::READDIRPLUS | opcode::WRITE => true,
        opcode::FSYNC | opcode::FSYNCDIR | opcode::RELEASE | opcode::FORGET => true,
        _ => entry.incoming().is_some_and(|request| request.header.uid == 0 || request.header.uid == owner),
    }
}

fn carry_out(fs: &Arc<FileSystem>, code: u32, entry: &mut Entry) -> Answered {
    if !is_let_in(fs, code, entry) {
        return Err(Error::Posix(Errno::ACCESS));
    }
    match code {
        opcode::READ => return read(fs, entry),
        opcode::READDIR | opcode::READDIRPLUS => return list(fs, entry, code == opcode::READDIRPLUS),
        _ => {}
    }
    let request = entry.incoming().ok_or(Error::Posix(Errno::INVAL))?;
    let told = simple(fs, code, &request)?;
    let (_, payload) = entry.parts();
    let bytes = told.bytes();
    // No answer is longer, but a value that the kernel did not ask for.
    payload.get_mut(..bytes.len()).ok_or(Error::Posix(Errno::RANGE))?.copy_from_slice(bytes);
    Ok(bytes.len())
}

/// What is answered, but for data and listings.
enum Told {
    Nothing,
    Entry(EntryOut),
    Attr(AttrAnswer),
    Open(OpenOut),
    Created([u8; size_of::<EntryOut>() + size_of::<OpenOut>()]),
    Written(WriteOut),
    Room(StatfsOut),
    Size(SizeOut),
    Offset(OffsetOut),
    Bytes(Vec<u8>),
}

impl Told {
    fn bytes(&self) -> &[u8] {
        match self {
            Told::Nothing => &[],
            Told::Entry(entry) => entry.as_bytes(),
            Told::Attr(attr) => attr.as_bytes(),
            Told::Open(open) => open.as_bytes(),
            Told::Created(bytes) => bytes,
            Told::Written(written) => written.as_bytes(),
            Told::Room(room) => room.as_bytes(),
            Told::Size(size) => size.as_bytes(),
            Told::Offset(offset) => offset.as_bytes(),
            Told::Bytes(bytes) => bytes,
        }
    }
}

/// The fixed part of a request; EINVAL where it is shorter than that.
fn fixed<T: FromBytes + KnownLayout + Immutable>(request: &Incoming<'_>) -> Result<T> {
    request.fixed().ok_or(Error::Posix(Errno::INVAL))
}

fn name<'a>(request: &Incoming<'a>) -> Result<(&'a [u8], &'a [u8])> {
    request.name().ok_or(Error::Posix(Errno::INVAL))
}

fn simple(fs: &Arc<FileSystem>, code: u32, request: &Incoming<'_>) -> Result<Told> {
    let (client, number) = (request.header.client(), KernelNo(request.header.node));
    match code {
        opcode::LOOKUP => Ok(Told::Entry(match fs.lookup(client, number, name(request)?.0)? {
            Found::Made(made) => EntryOut::of(&made),
            Found::Nothing(keep) => EntryOut::nothing(keep),
        })),
        opcode::GETATTR => {
            let (attr, keep) = fs.getattr(client, number)?;
            Ok(Told::Attr(AttrAnswer::of(&attr, keep)))
        }
        opcode::SETATTR => {
            let (attr, keep) = fs.setattr(client, number, change(&fixed(request)?))?;
            Ok(Told::Attr(AttrAnswer::of(&attr, keep)))
        }
        opcode::READLINK => fs.readlink(number).map(Told::Bytes),
        opcode::OPEN => Ok(Told::Open(OpenOut::of(fs.open(client, number, fixed::<OpenIn>(request)?.flags as i32)?))),
        opcode::WRITE => write(fs, number, request),
        opcode::STATFS => Ok(Told::Room(StatfsOut::of(&fs.statfs()?))),
        opcode::RELEASE => {
            fs.release(number, fixed::<ReleaseIn>(request)?.handle);
            Ok(Told::Nothing)
        }
        opcode::FORGET => {
            fs.forget_node(number, fixed::<ForgetIn>(request)?.times);
            Ok(Told::Nothing)
        }
        opcode::FSYNC | opcode::FSYNCDIR => fs.fsync(number).map(|()| Told::Nothing),
        opcode::SETXATTR | opcode::GETXATTR | opcode::LISTXATTR | opcode::REMOVEXATTR => xattr(fs, code, request),
        opcode::FALLOCATE => {
            let FallocateIn { offset, length, mode, .. } = fixed(request)?;
            fs.fallocate(client, number, (offset, length), mode as i32).map(|()| Told::Nothing)
        }
        opcode::LSEEK => {
            let LseekIn { offset, whence, .. } = fixed(request)?;
            let offset = match seek::lseek(fs, number, offset as i64, whence as i32) {
                Sought::Now(found) => found,
                Sought::AfterPages(find) => find(),
            }?;
            Ok(Told::Offset(OffsetOut { offset }))
        }
        opcode::COPY_FILE_RANGE => {
            let CopyIn { from_offset, to_node, to_offset, len, .. } = fixed(request)?;
            let to = (KernelNo(to_node), to_offset);
            let size = fs.copy_file_range(client, (number, from_offset), to, len)? as u32;
            Ok(Told::Written(WriteOut { size, padding: 0 }))
        }
        // Programs ask this of every file, to see whether it is a terminal.
        opcode::IOCTL => Err(Error::Posix(Errno::NOTTY)),
        _ => names(fs, code, request),
    }
}

/// What changes names.
fn names(fs: &Arc<FileSystem>, code: u32, request: &Incoming<'_>) -> Result<Told> {
    let (client, number) = (request.header.client(), KernelNo(request.header.node));
    let made = match code {
        opcode::MKNOD => {
            let MknodIn { mode, rdev, umask, .. } = fixed(request)?;
            fs.mknod(client, number, name(request)?.0, (mode, umask, rdev))?
        }
        opcode::MKDIR if fs.is_above_trees(number) => fs.mkdir_above(client, number, name(request)?.0)?,
        opcode::MKDIR => {
            let MkdirIn { mode, umask } = fixed(request)?;
            fs.mkdir(client, number, name(request)?.0, (mode, umask))?
        }
        opcode::SYMLINK => {
            let (name, rest) = name(request)?;
            let (target, _) = split_name(rest).ok_or(Error::Posix(Errno::INVAL))?;
            fs.symlink(client, number, name, target)?
        }
        opcode::LINK => fs.link(client, KernelNo(fixed::<LinkIn>(request)?.old_node), number, name(request)?.0)?,
        opcode::CREATE => {
            let CreateIn { flags, mode, umask, .. } = fixed(request)?;
            let (made, handle) = fs.create(client, number, name(request)?.0, (mode, umask), flags as i32)?;
            let mut bytes = [0; size_of::<EntryOut>() + size_of::<OpenOut>()];
            bytes[..size_of::<EntryOut>()].copy_from_slice(EntryOut::of(&made).as_bytes());
            bytes[size_of::<EntryOut>()..].copy_from_slice(OpenOut::of(handle).as_bytes());
            return Ok(Told::Created(bytes));
        }
        opcode::UNLINK => return fs.unlink(client, number, name(request)?.0).map(|()| Told::Nothing),
        opcode::RMDIR => return fs.rmdir(client, number, name(request)?.0).map(|()| Told::Nothing),
        opcode::RENAME => {
            return rename(fs, request, fixed::<RenameIn>(request)?.new_directory, 0);
        }
        opcode::RENAME2 => {
            let Rename2In { new_directory, flags, .. } = fixed(request)?;
            return rename(fs, request, new_directory, flags);
        }
        _ => return Err(Error::Posix(Errno::NOSYS)),
    };
    Ok(Told::Entry(EntryOut::of(&made)))
}

fn rename(fs: &Arc<FileSystem>, request: &Incoming<'_>, new_directory: u64, flags: u32) -> Result<Told> {
    let (old, rest) = name(request)?;
    let (new, _) = split_name(rest).ok_or(Error::Posix(Errno::INVAL))?;
    let (from, to) = ((KernelNo(request.header.node), old), (KernelNo(new_directory), new));
    fs.rename(request.header.client(), from, to, flags).map(|()| Told::Nothing)
}

fn change(given: &SetattrIn) -> Change {
    let is = |field| given.valid & field != 0;
    let set = |field, now, seconds, nanos| match () {
        () if !is(field) => None,
        () if is(now) => Some(SetTime::Now),
        () => Some(SetTime::To(time(seconds, nanos))),
    };
    Change {
        permissions: is(setattr::MODE).then_some(given.mode),
        uid: is(setattr::UID).then_some(given.uid),
        gid: is(setattr::GID).then_some(given.gid),
        size: is(setattr::SIZE).then_some(given.size),
        atime: set(setattr::ATIME, setattr::ATIME_NOW, given.atime, given.atime_nanos),
        mtime: set(setattr::MTIME, setattr::MTIME_NOW, given.mtime, given.mtime_nanos),
        ctime: is(setattr::CTIME).then(|| time(given.ctime, given.ctime_nanos)),
        kill_privileges: false,
    }
}

fn write(fs: &Arc<FileSystem>, number: KernelNo, request: &Incoming<'_>) -> Result<Told> {
    let WriteIn { offset, size, write_flags, flags, .. } = fixed(request)?;
    let data = request.payload.get(..size as usize).ok_or(Error::Posix(Errno::INVAL))?;
    let write =
        Write { offset, kill: write_flags & WRITE_KILL != 0, from_cache: write_flags & WRITE_CACHE != 0, flags };
    fs.write(number, data, write)?;
    Ok(Told::Written(WriteOut { size, padding: 0 }))
}

fn xattr(fs: &Arc<FileSystem>, code: u32, request: &Incoming<'_>) -> Result<Told> {
    let (client, number) = (request.header.client(), KernelNo(request.header.node));
    let room = || Ok::<_, Error>(fixed::<GetxattrIn>(request)?.size);
    let told = |value| match value {
        Value::Length(size) => Told::Size(SizeOut { size, padding: 0 }),
        Value::Bytes(bytes) => Told::Bytes(bytes),
    };
    match code {
        opcode::GETXATTR => fs.getxattr(number, name(request)?.0, room()?).map(told),
        opcode::LISTXATTR => fs.listxattr(number, room()?).map(told),
        opcode::REMOVEXATTR => fs.removexattr(client, number, name(request)?.0).map(|()| Told::Nothing),
        _ => {
            let SetxattrIn { size, flags } = fixed(request)?;
            let (name, rest) = name(request)?;
            let value = rest.get(..size as usize).ok_or(Error::Posix(Errno::INVAL))?;
            fs.setxattr(client, number, (name, value), flags).map(|()| Told::Nothing)
        }
    }
}

fn read(fs: &Arc<FileSystem>, entry: &mut Entry) -> Answered {
    let request = entry.incoming().ok_or(Error::Posix(Errno::INVAL))?;
    let ReadIn { offset, size, .. } = fixed(&request)?;
    let number = KernelNo(request.header.node);
    let (_, payload) = entry.parts();
    fs.read_into(number, offset, payload.get_mut(..size as usize).ok_or(Error::Posix(Errno::INVAL))?)
}

fn list(fs: &Arc<FileSystem>, entry: &mut Entry, with_attributes: bool) -> Answered {
    let request = entry.incoming().ok_or(Error::Posix(Errno::INVAL))?;
    let ReadIn { offset, size, .. } = fixed(&request)?;
    let (number, client) = (KernelNo(request.header.node), request.header.client());
    let (_, payload) = entry.parts();
    let room = payload.len().min(size as usize);
    let mut listing = Listing::new(&mut payload[..room]);
    let dirent = |number: KernelNo, next, name: &[u8], kind| Dirent {
        number: number.0,
        next,
        name_len: name.len() as u32,
        kind: kind as u32,
    };
    match with_attributes {
        true => listing::readdirplus(fs, client, number, offset, &mut |name, made, next| {
            let dirent = dirent(made.attr.number, next, name, made.attr.kind);
            listing.add(Some(&EntryOut::of(made)), dirent, name)
        })?,
        false => listing::readdir(fs, number, offset, &mut |name, number, next, kind| {
            listing.add(None, dirent(number, next, name, kind), name)
        })?,
    }
    Ok(listing.len)
}
