//! What is told of an inode, or of what is in no tree, whatever it is told through.

use super::number::KernelNo;
use crate::clock::Timestamp;
use crate::limits::BLOCK_BYTES;
use crate::tree::{Inode, Kind};
use crate::view::Standing;
use std::time::Duration;

/// What stat(2) shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attr {
    pub number: KernelNo,
    pub size: u64,
    /// Of 512 bytes.
    pub blocks: u64,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub kind: Kind,
    /// The mode without its type.
    pub permissions: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    /// Of one access, in bytes.
    pub block_bytes: u32,
}

/// What a name leads to, which the kernel may know from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Made {
    pub attr: Attr,
    pub generation: u64,
    /// How long the kernel may keep it, and the name.
    pub keep: Duration,
}

impl Attr {
    pub fn of_inode(number: KernelNo, inode: &Inode, track_bytes: u64) -> Attr {
        Attr {
            number,
            size: inode.size,
            blocks: inode.blocks(track_bytes),
            atime: inode.atime,
            mtime: inode.mtime,
            ctime: inode.ctime,
            kind: inode.kind(),
            permissions: inode.permissions(),
            links: inode.links,
            uid: inode.uid,
            gid: inode.gid,
            rdev: inode.rdev,
            block_bytes: BLOCK_BYTES as u32,
        }
    }

    pub fn of_standing(number: KernelNo, standing: &Standing) -> Attr {
        let time = standing.time.unwrap_or_default();
        Attr {
            number,
            size: standing.size,
            blocks: 0,
            atime: time,
            mtime: standing.changed.unwrap_or_default(),
            ctime: time,
            kind: standing.kind,
            permissions: standing.permissions,
            // One link: the number of subdirectories is not told, as on btrfs.
            links: 1,
            uid: standing.uid,
            gid: standing.gid,
            rdev: 0,
            block_bytes: BLOCK_BYTES as u32,
        }
    }

    /// What is told of an entry whose inode cannot be read, so that it is listed: the kernel takes no attributes with such a
    /// size, forgets the number, and asks when somebody wants to know.
    pub fn unknown(number: KernelNo, kind: Kind) -> Attr {
        Attr {
            number,
            size: u64::MAX,
            blocks: 0,
            atime: Timestamp::default(),
            mtime: Timestamp::default(),
            ctime: Timestamp::default(),
            kind,
            permissions: 0,
            links: 0,
            uid: 0,
            gid: 0,
            rdev: 0,
            block_bytes: 0,
        }
    }
}
