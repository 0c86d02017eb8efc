//! The tree over rings. What is not here is answered with ENOSYS, and then the kernel asks for most of it no more.

use super::content::within;
use super::tree::{Attr, BLOCK_BYTES, BLOCKS, INODES, KEEP, NAME_BYTES_MAX, New, Result, Tree};
use pitfs::error::Errno;
use pitfs::fuse::ring::wire::{
    AttrAnswer, AttrOut, CreateIn, Dirent, EntryOut, ForgetIn, InHeader, Incoming, LinkIn, Listing, MkdirIn, MknodIn,
    OpenOut, ReadIn, Rename2In, RenameIn, SetattrIn, StatfsOut, WRITE_KILL, WriteIn, WriteOut, opcode, put_answer,
    setattr, split_name, time,
};
use pitfs::fuse::ring::{Entry, Serves, Weight};
use pitfs::tree::{Change, SetTime};
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub struct Served(pub Arc<Tree>);

impl Serves for Served {
    fn weight(&self, _entry: &Entry) -> Weight {
        Weight::Light
    }

    fn answer(&self, entry: &mut Entry) {
        // Else nobody knows whose answer it would be, and the queue ends.
        let Some(InHeader { unique, opcode: code, .. }) = entry.incoming().map(|request| request.header) else {
            return;
        };
        let answered = match code {
            opcode::READ => read(&self.0, entry),
            opcode::READDIR | opcode::READDIRPLUS => list(&self.0, entry, code == opcode::READDIRPLUS),
            _ => simple(&self.0, entry),
        };
        let (header, _) = entry.parts();
        match answered {
            Ok(len) => put_answer(header, unique, 0, len),
            Err(error) => put_answer(header, unique, error.raw_os_error(), 0),
        }
    }

    /// The connection ends with the process that serves it.
    fn end_connection(&self) {
        eprintln!("bench: a ring of the floor has ended");
        std::process::exit(1);
    }
}

/// How many bytes of an answer are in the payload, or an error.
type Answered = Result<usize>;

impl From<&Attr> for AttrOut {
    fn from(attr: &Attr) -> AttrOut {
        AttrOut {
            number: attr.number,
            size: attr.size,
            blocks: attr.blocks(),
            atime: attr.atime.seconds as u64,
            mtime: attr.mtime.seconds as u64,
            ctime: attr.ctime.seconds as u64,
            atime_nanos: attr.atime.nanos,
            mtime_nanos: attr.mtime.nanos,
            ctime_nanos: attr.ctime.nanos,
            mode: attr.mode,
            links: attr.links,
            uid: attr.uid,
            gid: attr.gid,
            rdev: attr.rdev,
            block_bytes: BLOCK_BYTES,
            flags: 0,
        }
    }
}

/// What is told of an inode that the kernel may know from now on.
fn made(attr: &Attr) -> EntryOut {
    let keep = KEEP.as_secs();
    EntryOut { node: attr.number, entry_valid: keep, attr_valid: keep, attr: attr.into(), ..EntryOut::default() }
}

fn attributes(attr: &Attr) -> AttrAnswer {
    AttrAnswer { valid: KEEP.as_secs(), valid_nanos: 0, dummy: 0, attr: attr.into() }
}

fn room() -> StatfsOut {
    StatfsOut {
        blocks: BLOCKS,
        free: BLOCKS,
        available: BLOCKS,
        files: INODES,
        files_free: INODES,
        block_bytes: BLOCK_BYTES,
        name_bytes: NAME_BYTES_MAX as u32,
        fragment_bytes: BLOCK_BYTES,
        padding: 0,
        spare: [0; 6],
    }
}

/// The fixed part of a request; EINVAL where it is shorter than that.
fn fixed<T: FromBytes + KnownLayout + Immutable>(request: &Incoming<'_>) -> Result<T> {
    request.fixed().ok_or(Errno::INVAL)
}

fn name<'a>(request: &Incoming<'a>) -> Result<(&'a [u8], &'a [u8])> {
    request.name().ok_or(Errno::INVAL)
}

/// Puts parts of an answer one behind the other.
fn put(entry: &mut Entry, parts: &[&[u8]]) -> Answered {
    let (_, payload) = entry.parts();
    let mut len = 0;
    for part in parts {
        payload.get_mut(len..len + part.len()).ok_or(Errno::RANGE)?.copy_from_slice(part);
        len += part.len();
    }
    Ok(len)
}

/// What is answered with what is of one length, or with nothing.
fn simple(tree: &Tree, entry: &mut Entry) -> Answered {
    let request = entry.incoming().ok_or(Errno::INVAL)?;
    let number = request.header.node;
    match request.header.opcode {
        opcode::LOOKUP => {
            let found = tree.lookup(number, name(&request)?.0)?;
            put(entry, &[found.as_ref().map_or_else(|| EntryOut::nothing(KEEP), made).as_bytes()])
        }
        opcode::FORGET => {
            tree.forget(number, fixed::<ForgetIn>(&request)?.times);
            Ok(0)
        }
        opcode::GETATTR => put(entry, &[attributes(&tree.getattr(number)?).as_bytes()]),
        opcode::SETATTR => {
            let change = change(&fixed(&request)?, request.header.uid);
            put(entry, &[attributes(&tree.setattr(number, &change)?).as_bytes()])
        }
        opcode::READLINK => put(entry, &[&tree.readlink(number)?]),
        opcode::OPEN => put(entry, &[OpenOut::of(0).as_bytes()]),
        opcode::WRITE => {
            let WriteIn { offset, size, write_flags, .. } = fixed(&request)?;
            let data = request.payload.get(..size as usize).ok_or(Errno::INVAL)?;
            tree.write(number, offset, data, write_flags & WRITE_KILL != 0)?;
            put(entry, &[WriteOut { size, padding: 0 }.as_bytes()])
        }
        opcode::STATFS => put(entry, &[room().as_bytes()]),
        opcode::RELEASE | opcode::FSYNC | opcode::FSYNCDIR => Ok(0),
        // Programs ask this of every file, to see whether it is a terminal.
        opcode::IOCTL => Err(Errno::NOTTY),
        opcode::UNLINK | opcode::RMDIR => tree.remove(number, name(&request)?.0).map(|()| 0),
        opcode::RENAME => rename(tree, &request, fixed::<RenameIn>(&request)?.new_directory, 0),
        opcode::RENAME2 => {
            let Rename2In { new_directory, flags, .. } = fixed(&request)?;
            rename(tree, &request, new_directory, flags)
        }
        code => {
            let attr = make(tree, code, &request)?;
            let open = OpenOut::of(0);
            let behind = if code == opcode::CREATE { open.as_bytes() } else { &[] };
            put(entry, &[made(&attr).as_bytes(), behind])
        }
    }
}

/// What makes a name.
fn make(tree: &Tree, code: u32, request: &Incoming<'_>) -> Result<Attr> {
    let (parent, uid, gid) = (request.header.node, request.header.uid, request.header.gid);
    let new = match code {
        opcode::MKNOD => {
            let MknodIn { mode, rdev, .. } = fixed(request)?;
            New { mode, rdev, uid, gid, target: b"" }
        }
        opcode::MKDIR => New::directory(fixed::<MkdirIn>(request)?.mode, (uid, gid)),
        opcode::CREATE => New::file(fixed::<CreateIn>(request)?.mode, (uid, gid)),
        opcode::SYMLINK => {
            let (target, _) = split_name(name(request)?.1).ok_or(Errno::INVAL)?;
            New::symlink(target, (uid, gid))
        }
        opcode::LINK => return tree.link(fixed::<LinkIn>(request)?.old_node, parent, name(request)?.0),
        _ => return Err(Errno::NOSYS),
    };
    tree.make(parent, name(request)?.0, new)
}

fn rename(tree: &Tree, request: &Incoming<'_>, new_directory: u64, flags: u32) -> Answered {
    let (old, rest) = name(request)?;
    let (new, _) = split_name(rest).ok_or(Errno::INVAL)?;
    tree.rename((request.header.node, old), (new_directory, new), flags).map(|()| 0)
}

fn change(given: &SetattrIn, asks: u32) -> Change {
    let is = |field| given.valid & field != 0;
    let set = |field, now, seconds, nanos| match () {
        () if !is(field) => None,
        () if is(now) => Some(SetTime::Now),
        () => Some(SetTime::To(time(seconds, nanos))),
    };
    let is_size = is(setattr::SIZE);
    Change {
        permissions: is(setattr::MODE).then_some(given.mode),
        uid: is(setattr::UID).then_some(given.uid),
        gid: is(setattr::GID).then_some(given.gid),
        size: is_size.then_some(given.size),
        atime: set(setattr::ATIME, setattr::ATIME_NOW, given.atime, given.atime_nanos),
        mtime: set(setattr::MTIME, setattr::MTIME_NOW, given.mtime, given.mtime_nanos),
        ctime: is(setattr::CTIME).then(|| time(given.ctime, given.ctime_nanos)),
        kill_privileges: is(setattr::UID) || is(setattr::GID) || is_size && asks != 0,
    }
}

fn read(tree: &Tree, entry: &mut Entry) -> Answered {
    let request = entry.incoming().ok_or(Errno::INVAL)?;
    let ReadIn { offset, size, .. } = fixed(&request)?;
    let content = tree.content(request.header.node)?;
    let bytes = content.read();
    put(entry, &[within(&bytes, offset, size)])
}

fn list(tree: &Tree, entry: &mut Entry, with_attributes: bool) -> Answered {
    let request = entry.incoming().ok_or(Errno::INVAL)?;
    let ReadIn { offset, size, .. } = fixed(&request)?;
    let number = request.header.node;
    let (_, payload) = entry.parts();
    let room = payload.len().min(size as usize);
    let mut listing = Listing::new(&mut payload[..room]);
    tree.list(number, offset, with_attributes, &mut |name, attr, next| {
        let dirent = Dirent { number: attr.number, next, name_len: name.len() as u32, kind: attr.kind() };
        let front = with_attributes.then(|| made(attr));
        listing.add(front.as_ref(), dirent, name)
    })?;
    Ok(listing.len)
}
