//! The inode record.

use crate::clock::Timestamp;
use crate::device::{BaseId, InodeAt, InodeNo, LIVE, State, Txn};
use crate::error::{Errno, Error, Result};
use crate::limits::{FILE_BYTES_MAX, INLINE_BYTES_MAX, LINKS_MAX, SYMLINK_BYTES_MAX, TRACKS_MAX};
use crate::meta::{Table, is_name};
use crate::shown::shown;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// The root of a tree. Number 1 is left to whoever shows several trees under one root.
pub const ROOT: InodeNo = InodeNo::new(LIVE, 2);

/// The root of a base.
pub fn root_of(base: BaseId) -> InodeNo {
    ROOT.in_base(base)
}

pub fn is_root(inode: InodeNo) -> bool {
    inode.number() == ROOT.number()
}

pub(super) const SETUID: u32 = 0o4000;
pub(super) const SETGID: u32 = 0o2000;
const PERMISSION_MASK: u32 = 0o7777;

/// What an inode is. The numbers are those of `S_IFMT`, shifted right by 12.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    Fifo = 1,
    CharDevice = 2,
    Directory = 4,
    BlockDevice = 6,
    File = 8,
    Symlink = 10,
    Socket = 12,
}

impl Kind {
    pub fn from_mode(mode: u32) -> Option<Kind> {
        Kind::from_number((mode >> 12 & 0xf) as u8)
    }

    pub fn from_number(number: u8) -> Option<Kind> {
        let all =
            [Kind::Fifo, Kind::CharDevice, Kind::Directory, Kind::BlockDevice, Kind::File, Kind::Symlink, Kind::Socket];
        all.into_iter().find(|kind| *kind as u8 == number)
    }

    pub fn mode_bits(self) -> u32 {
        u32::from(self as u8) << 12
    }
}

/// One file, directory or other object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inode {
    /// Type and permissions, as in `st_mode`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub links: u32,
    /// Bytes of a file or of a symlink's target; entries of a directory.
    pub size: u64,
    /// How many tracks exist (holes have none).
    pub tracks: u64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub btime: Timestamp,
    /// The directory and the name under which it is found; for a file with several names, one of them.
    pub parent: InodeNo,
    pub name: ByteBuf,
    /// The bytes of a tiny file, or a symlink's target. Bytes from here to `size` are zeros.
    pub inline: ByteBuf,
}

impl Inode {
    pub(super) fn new(kind: Kind, mode: u32, uid: u32, gid: u32, now: Timestamp) -> Inode {
        Inode {
            mode: kind.mode_bits() | mode & PERMISSION_MASK,
            uid,
            gid,
            rdev: 0,
            links: if kind == Kind::Directory { 2 } else { 1 },
            size: 0,
            tracks: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            parent: InodeNo::default(),
            name: ByteBuf::new(),
            inline: ByteBuf::new(),
        }
    }

    /// The record of an inode, if the name in it can be one; what has none yet, and the root, has an empty one.
    pub fn checked(self, number: InodeNo) -> Result<Inode> {
        let inline = self.inline.len() as u64;
        let is_file = self.kind() == Kind::File;
        let problem = if !self.name.is_empty() && !is_name(&self.name) {
            format!("nothing can have its name \"{}\"", shown(&self.name))
        } else if self.size > FILE_BYTES_MAX {
            format!("nothing is {} bytes long", self.size)
        } else if [self.uid, self.gid].contains(&u32::MAX) {
            "nobody has its owner or its group".into()
        } else if self.links > LINKS_MAX + 2 {
            format!("nothing has {} links", self.links)
        } else if self.tracks > TRACKS_MAX {
            format!("nothing has {} tracks", self.tracks)
        } else if inline > SYMLINK_BYTES_MAX as u64 {
            format!("nothing has {inline} bytes in its record")
        } else if is_file && inline > 0 && (inline > self.size || self.size > INLINE_BYTES_MAX as u64) {
            format!("it has {inline} bytes in its record, and is {} bytes long", self.size)
        } else {
            return Ok(self);
        };
        Err(Error::corrupt(format!("inode {number}"), problem))
    }

    /// The same of a record in a table, where the directory has its number alone.
    pub fn checked_stored(self, number: InodeNo) -> Result<Inode> {
        if self.parent.is_bare() {
            return self.checked(number);
        }
        let problem = format!("no directory has the number {:?}", self.parent);
        Err(Error::corrupt(format!("inode {number}"), problem))
    }

    pub fn kind(&self) -> Kind {
        // Records are written with a kind only; a damaged one is caught by its page's checksum.
        Kind::from_mode(self.mode).unwrap_or(Kind::File)
    }

    pub fn permissions(&self) -> u32 {
        self.mode & PERMISSION_MASK
    }

    pub fn is_setgid(&self) -> bool {
        self.mode & SETGID != 0
    }

    pub fn is_directory(&self) -> bool {
        self.kind() == Kind::Directory
    }

    /// Bytes that are data for lseek(2), in units of 512, for `st_blocks`: programs take a file with none for one hole.
    pub fn blocks(&self, track_bytes: u64) -> u64 {
        match self.kind() {
            Kind::File if self.tracks == 0 && self.inline.is_empty() => 0,
            Kind::File if self.tracks == 0 => self.size.div_ceil(512),
            Kind::File => self.tracks.saturating_mul(track_bytes).min(self.size.next_multiple_of(4096)).div_ceil(512),
            _ => 0,
        }
    }

    pub(super) fn touch(&mut self, now: Timestamp) {
        self.mtime = now;
        self.ctime = now;
    }

    /// Clears the suid bit, and the sgid bit where it means what it does for programs.
    pub(super) fn kill_privileges(&mut self) {
        if self.kind() != Kind::Directory {
            self.mode &= !SETUID;
            if self.mode & 0o010 != 0 {
                self.mode &= !SETGID;
            }
        }
    }
}

pub(super) fn key(inode: InodeNo) -> [u8; 12] {
    inode.prefix()
}

/// The inode at a moment, if there is one.
pub(super) fn find(state: &State, at: InodeAt) -> Result<Option<Inode>> {
    let found: Option<Inode> = state.get(Table::Inode, &key(at.inode), at.moment)?;
    let inside = |found: Inode| Inode { parent: found.parent.in_base(at.inode.base()), ..found };
    found.map(|found| found.checked_stored(at.inode).map(inside)).transpose()
}

/// The inode at a moment; ESTALE where there is none.
pub(super) fn load(state: &State, at: InodeAt) -> Result<Inode> {
    find(state, at)?.ok_or(Error::Gone)
}

pub(super) fn load_directory(state: &State, at: InodeAt) -> Result<Inode> {
    let found = load(state, at)?;
    if found.is_directory() { Ok(found) } else { Err(Error::Posix(Errno::NOTDIR)) }
}

pub(super) fn load_file(state: &State, at: InodeAt) -> Result<Inode> {
    let found = load(state, at)?;
    match found.kind() {
        Kind::File => Ok(found),
        Kind::Directory => Err(Error::Posix(Errno::ISDIR)),
        _ => Err(Error::Posix(Errno::INVAL)),
    }
}

pub(super) fn store(txn: &mut Txn<'_>, inode: InodeNo, record: &Inode) -> Result<()> {
    // Stored with the number alone: a clone shows the same record.
    txn.set(Table::Inode, &key(inode), &Inode { parent: record.parent.bare(), ..record.clone() })
}
