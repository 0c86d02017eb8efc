//! What the kernel and a ring's entry hand each other, as the kernel's header `include/uapi/linux/fuse.h` (7.44) and its
//! `Documentation/filesystems/fuse/fuse-io-uring.rst` have it.
//!
//! An entry has two buffers. The *header* is 288 bytes: the request's or the answer's own header (128 bytes, of which a
//! request uses 40 and an answer 16), the fixed part of what the operation is given (128), and 32 bytes with the id under
//! which the answer is committed and the length of the payload. The *payload* has what is of no fixed length: names, each
//! with a zero behind it, or data; and all of an answer. An operation that is given nothing fixed has zeros there.
//!
//! All numbers are in the byte order of the machine.

use crate::clock::Timestamp;
use crate::fuse::attr::{Attr, Made};
use crate::fuse::operations::{Client, Room};
use std::time::Duration;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub const HEADER_BYTES: usize = 288;
const FIXED_AT: usize = 128;
const ENTRY_AT: usize = 256;

/// Kinds of requests.
pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const READDIR: u32 = 28;
    pub const FSYNCDIR: u32 = 30;
    pub const CREATE: u32 = 35;
    pub const IOCTL: u32 = 39;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
}

/// Fields of a SETATTR that are meant.
pub mod setattr {
    pub const MODE: u32 = 1;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const CTIME: u32 = 1 << 10;
}

pub const WRITE_CACHE: u32 = 1;
pub const WRITE_KILL: u32 = 1 << 2;
const OPEN_KEEP_CACHE: u32 = 1 << 1;

/// `fuse_in_header`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct InHeader {
    pub len: u32,
    pub opcode: u32,
    pub unique: u64,
    pub node: u64,
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
    extension_len: u16,
    padding: u16,
}

impl InHeader {
    pub(in crate::fuse) fn client(&self) -> Client {
        Client { uid: self.uid, gid: self.gid, pid: self.pid }
    }
}

/// `fuse_out_header`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct OutHeader {
    len: u32,
    error: i32,
    unique: u64,
}

/// `fuse_uring_ent_in_out`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct EntryPart {
    flags: u64,
    commit_id: u64,
    payload_len: u32,
    padding: u32,
    reserved: u64,
}

/// A request that an entry's buffers hold.
pub struct Incoming<'a> {
    pub header: InHeader,
    fixed: &'a [u8],
    pub payload: &'a [u8],
    /// Under which the answer is committed.
    pub commit_id: u64,
}

impl<'a> Incoming<'a> {
    /// None where the lengths make no sense.
    pub fn of(header: &'a [u8; HEADER_BYTES], payload: &'a [u8]) -> Option<Incoming<'a>> {
        let (own, _) = InHeader::read_from_prefix(header).ok()?;
        let (part, _) = EntryPart::read_from_prefix(&header[ENTRY_AT..]).ok()?;
        let payload = payload.get(..part.payload_len as usize)?;
        Some(Incoming { header: own, fixed: &header[FIXED_AT..ENTRY_AT], payload, commit_id: part.commit_id })
    }

    /// The fixed part of what the operation is given.
    pub fn fixed<T: FromBytes + KnownLayout + Immutable>(&self) -> Option<T> {
        T::read_from_prefix(self.fixed).ok().map(|(fixed, _)| fixed)
    }

    /// The name that the payload begins with, and what follows it.
    pub fn name(&self) -> Option<(&'a [u8], &'a [u8])> {
        split_name(self.payload)
    }
}

pub fn split_name(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = payload.iter().position(|byte| *byte == 0)?;
    Some((&payload[..end], &payload[end + 1..]))
}

/// Puts the header of an answer into an entry's: an error number, or 0 and a payload of some length.
pub fn put_answer(header: &mut [u8; HEADER_BYTES], unique: u64, error: i32, payload_len: usize) {
    let payload_len = if error == 0 { payload_len } else { 0 };
    let out = OutHeader { len: (size_of::<OutHeader>() + payload_len) as u32, error: -error, unique };
    header[..size_of::<OutHeader>()].copy_from_slice(out.as_bytes());
    let at = ENTRY_AT + std::mem::offset_of!(EntryPart, payload_len);
    header[at..at + 4].copy_from_slice(&(payload_len as u32).to_ne_bytes());
}

macro_rules! given {
    ($($(#[$about:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        $($(#[$about])*
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(C)]
        pub struct $name { $(pub $field: $type),* })*
    };
}

given! {
    /// `fuse_forget_in`.
    ForgetIn { times: u64 }
    /// `fuse_setattr_in`.
    SetattrIn {
        valid: u32, padding: u32, handle: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64, ctime: u64,
        atime_nanos: u32, mtime_nanos: u32, ctime_nanos: u32, mode: u32, unused: u32, uid: u32, gid: u32, unused_too: u32,
    }
    /// `fuse_mknod_in`.
    MknodIn { mode: u32, rdev: u32, umask: u32, padding: u32 }
    /// `fuse_mkdir_in`.
    MkdirIn { mode: u32, umask: u32 }
    /// `fuse_rename_in`.
    RenameIn { new_directory: u64 }
    /// `fuse_rename2_in`.
    Rename2In { new_directory: u64, flags: u32, padding: u32 }
    /// `fuse_link_in`.
    LinkIn { old_node: u64 }
    /// `fuse_open_in`.
    OpenIn { flags: u32, open_flags: u32 }
    /// `fuse_create_in`.
    CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32 }
    /// `fuse_release_in`.
    ReleaseIn { handle: u64, flags: u32, release_flags: u32, lock_owner: u64 }
    /// `fuse_read_in`.
    ReadIn { handle: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    /// `fuse_write_in`.
    WriteIn { handle: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    /// `fuse_setxattr_in`, as it is without FUSE_SETXATTR_EXT.
    SetxattrIn { size: u32, flags: u32 }
    /// `fuse_getxattr_in`.
    GetxattrIn { size: u32, padding: u32 }
    /// `fuse_fallocate_in`.
    FallocateIn { handle: u64, offset: u64, length: u64, mode: u32, padding: u32 }
    /// `fuse_lseek_in`.
    LseekIn { handle: u64, offset: u64, whence: u32, padding: u32 }
    /// `fuse_copy_file_range_in`.
    CopyIn { from_handle: u64, from_offset: u64, to_node: u64, to_handle: u64, to_offset: u64, len: u64, flags: u64 }
    /// `fuse_attr`.
    AttrOut {
        number: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64, atime_nanos: u32, mtime_nanos: u32,
        ctime_nanos: u32, mode: u32, links: u32, uid: u32, gid: u32, rdev: u32, block_bytes: u32, flags: u32,
    }
    /// `fuse_attr_out`.
    AttrAnswer { valid: u64, valid_nanos: u32, dummy: u32, attr: AttrOut }
    /// `fuse_entry_out`.
    EntryOut {
        node: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nanos: u32, attr_valid_nanos: u32,
        attr: AttrOut,
    }
    /// `fuse_open_out`.
    OpenOut { handle: u64, flags: u32, backing: i32 }
    /// `fuse_write_out`; also what answers COPY_FILE_RANGE.
    WriteOut { size: u32, padding: u32 }
    /// `fuse_statfs_out`.
    StatfsOut {
        blocks: u64, free: u64, available: u64, files: u64, files_free: u64, block_bytes: u32, name_bytes: u32,
        fragment_bytes: u32, padding: u32, spare: [u32; 6],
    }
    /// `fuse_getxattr_out`.
    SizeOut { size: u32, padding: u32 }
    /// `fuse_lseek_out`.
    OffsetOut { offset: u64 }
    /// `fuse_dirent`, without the name behind it.
    Dirent { number: u64, next: u64, name_len: u32, kind: u32 }
}

pub fn time(seconds: u64, nanos: u32) -> Timestamp {
    Timestamp { seconds: seconds as i64, nanos }
}

impl From<&Attr> for AttrOut {
    fn from(attr: &Attr) -> AttrOut {
        AttrOut {
            number: attr.number.0,
            size: attr.size,
            blocks: attr.blocks,
            atime: attr.atime.seconds as u64,
            mtime: attr.mtime.seconds as u64,
            ctime: attr.ctime.seconds as u64,
            atime_nanos: attr.atime.nanos,
            mtime_nanos: attr.mtime.nanos,
            ctime_nanos: attr.ctime.nanos,
            mode: (attr.kind as u32) << 12 | attr.permissions,
            links: attr.links,
            uid: attr.uid,
            gid: attr.gid,
            rdev: attr.rdev,
            block_bytes: attr.block_bytes,
            flags: 0,
        }
    }
}

impl AttrAnswer {
    pub(in crate::fuse) fn of(attr: &Attr, keep: Duration) -> AttrAnswer {
        AttrAnswer { valid: keep.as_secs(), valid_nanos: keep.subsec_nanos(), dummy: 0, attr: attr.into() }
    }
}

impl EntryOut {
    pub(in crate::fuse) fn of(made: &Made) -> EntryOut {
        let (seconds, nanos) = (made.keep.as_secs(), made.keep.subsec_nanos());
        EntryOut {
            node: made.attr.number.0,
            generation: made.generation,
            entry_valid: seconds,
            attr_valid: seconds,
            entry_valid_nanos: nanos,
            attr_valid_nanos: nanos,
            attr: (&made.attr).into(),
        }
    }

    /// That there is nothing under a name may be remembered.
    pub fn nothing(keep: Duration) -> EntryOut {
        EntryOut { entry_valid: keep.as_secs(), entry_valid_nanos: keep.subsec_nanos(), ..EntryOut::default() }
    }
}

impl Default for EntryOut {
    fn default() -> EntryOut {
        zerocopy::FromZeros::new_zeroed()
    }
}

impl OpenOut {
    pub fn of(handle: u64) -> OpenOut {
        OpenOut { handle, flags: OPEN_KEEP_CACHE, backing: 0 }
    }
}

impl StatfsOut {
    pub(in crate::fuse) fn of(room: &Room) -> StatfsOut {
        StatfsOut {
            blocks: room.blocks,
            free: room.free,
            available: room.free,
            files: room.inodes,
            files_free: room.inodes,
            block_bytes: room.block_bytes,
            name_bytes: room.name_bytes,
            fragment_bytes: room.block_bytes,
            padding: 0,
            spare: [0; 6],
        }
    }
}

/// Entries of a listing, one behind the other as far as there is room.
pub struct Listing<'a> {
    room: &'a mut [u8],
    pub len: usize,
}

impl<'a> Listing<'a> {
    pub fn new(room: &'a mut [u8]) -> Listing<'a> {
        Listing { room, len: 0 }
    }

    /// Adds an entry, with what is told of it in front where that is wanted; true where there is no room for it.
    pub fn add(&mut self, made: Option<&EntryOut>, dirent: Dirent, name: &[u8]) -> bool {
        let front = made.map_or(&[][..], IntoBytes::as_bytes);
        let len = front.len() + size_of::<Dirent>() + name.len();
        let padded = len.next_multiple_of(8);
        let Some(room) = self.room.get_mut(self.len..self.len + padded) else { return true };
        let mut at = 0;
        for part in [front, dirent.as_bytes(), name, &[0; 8][..padded - len]] {
            room[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        self.len += padded;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel has them.
    #[test]
    fn parts_are_as_long_as_the_kernel_takes_them_for() {
        assert_eq!(size_of::<InHeader>(), 40);
        assert_eq!(size_of::<OutHeader>(), 16);
        assert_eq!(size_of::<EntryPart>(), 32);
        assert_eq!(HEADER_BYTES, ENTRY_AT + size_of::<EntryPart>());
        let given = [size_of::<SetattrIn>(), size_of::<ReadIn>(), size_of::<WriteIn>(), size_of::<CopyIn>()];
        assert_eq!(given, [88, 40, 40, 56]);
        let told = [size_of::<AttrOut>(), size_of::<AttrAnswer>(), size_of::<EntryOut>(), size_of::<StatfsOut>()];
        assert_eq!(told, [88, 104, 128, 80]);
        assert_eq!((size_of::<OpenOut>(), size_of::<Dirent>(), size_of::<FallocateIn>()), (16, 24, 32));
    }

    #[test]
    fn a_request_is_taken_apart_and_its_answer_put_in_its_place() {
        let mut header = [0u8; HEADER_BYTES];
        let request = InHeader {
            len: 0,
            opcode: opcode::RENAME2,
            unique: 1 << 40,
            node: 7,
            uid: 1,
            gid: 2,
            pid: 3,
            extension_len: 0,
            padding: 0,
        };
        header[..40].copy_from_slice(request.as_bytes());
        header[FIXED_AT..FIXED_AT + 8].copy_from_slice(&9u64.to_ne_bytes());
        let part = EntryPart { flags: 0, commit_id: 1 << 41, payload_len: 8, padding: 0, reserved: 0 };
        header[ENTRY_AT..].copy_from_slice(part.as_bytes());
        let payload = b"old\0new\0and more";
        let found = Incoming::of(&header, payload).unwrap();
        assert_eq!((found.header.node, found.commit_id), (7, 1 << 41));
        assert_eq!(found.fixed::<Rename2In>().unwrap().new_directory, 9);
        let (old, rest) = found.name().unwrap();
        assert_eq!((old, split_name(rest).unwrap().0), (&b"old"[..], &b"new"[..]));
        assert!(Incoming::of(&header, &payload[..7]).is_none());
        put_answer(&mut header, 1 << 40, 2, 100);
        assert_eq!(
            header[..16],
            [&16u32.to_ne_bytes()[..], &(-2i32).to_ne_bytes(), &(1u64 << 40).to_ne_bytes()].concat()
        );
        assert_eq!(header[ENTRY_AT + 16..ENTRY_AT + 20], [0; 4]);
        put_answer(&mut header, 1 << 40, 0, 100);
        assert_eq!(header[ENTRY_AT + 16..ENTRY_AT + 20], 100u32.to_ne_bytes());
    }

    #[test]
    fn entries_of_a_listing_lie_at_multiples_of_eight_and_do_not_overflow() {
        let mut room = [0xffu8; 64];
        let mut listing = Listing::new(&mut room);
        let dirent = |name: &[u8]| Dirent { number: 1, next: 2, name_len: name.len() as u32, kind: 4 };
        assert!(!listing.add(None, dirent(b"abc"), b"abc"));
        assert_eq!(listing.len, 32);
        assert!(!listing.add(None, dirent(b"12345678"), b"12345678"));
        assert!(listing.add(None, dirent(b"x"), b"x"));
        assert_eq!((listing.len, room[27], room[31]), (64, 0, 0));
    }
}
