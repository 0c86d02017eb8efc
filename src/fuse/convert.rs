//! Between the tree's types and fuser's.

use super::number::KernelNo;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::limits::BLOCK_BYTES;
use crate::tree::{Inode, Kind, SetTime};
use crate::view::Standing;
use fuser::{FileAttr, FileType, TimeOrNow};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Fifo => FileType::NamedPipe,
        Kind::CharDevice => FileType::CharDevice,
        Kind::Directory => FileType::Directory,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::File => FileType::RegularFile,
        Kind::Symlink => FileType::Symlink,
        Kind::Socket => FileType::Socket,
    }
}

pub(super) fn attributes(number: KernelNo, inode: &Inode, track_bytes: u64) -> FileAttr {
    FileAttr {
        ino: number.into(),
        size: inode.size,
        blocks: inode.blocks(track_bytes),
        atime: inode.atime.into(),
        mtime: inode.mtime.into(),
        ctime: inode.ctime.into(),
        crtime: inode.btime.into(),
        kind: file_type(inode.kind()),
        perm: inode.permissions() as u16,
        nlink: inode.links,
        uid: inode.uid,
        gid: inode.gid,
        rdev: inode.rdev,
        blksize: BLOCK_BYTES as u32,
        flags: 0,
    }
}

/// What is told of what is in no tree.
pub(super) fn standing(number: KernelNo, standing: &Standing) -> FileAttr {
    let time = |time: Option<Timestamp>| time.map_or(UNIX_EPOCH, SystemTime::from);
    FileAttr {
        ino: number.into(),
        size: standing.size,
        blocks: 0,
        atime: time(standing.time),
        mtime: time(standing.changed),
        ctime: time(standing.time),
        crtime: UNIX_EPOCH,
        kind: file_type(standing.kind),
        perm: standing.permissions as u16,
        // One link: the number of subdirectories is not told, as on btrfs.
        nlink: 1,
        uid: standing.uid,
        gid: standing.gid,
        rdev: 0,
        blksize: BLOCK_BYTES as u32,
        flags: 0,
    }
}

/// A time as the kernel sent it. Before 1970 fuser subtracts the nanoseconds that it should add.
pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    match UNIX_EPOCH.duration_since(time) {
        Ok(before) if before > Duration::ZERO => {
            Timestamp { seconds: (before.as_secs() as i64).wrapping_neg(), nanos: before.subsec_nanos() }
        }
        _ => Timestamp::from(time),
    }
}

pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::To(timestamp(time)),
    }
}

/// The number the caller will see. What points to a fault of the store goes to the log as well.
pub(super) fn errno(error: Error) -> fuser::Errno {
    match &error {
        Error::Media { .. } | Error::Corrupt { .. } if !error.is_no_space() => log::error!("{error}"),
        _ => {}
    }
    fuser::Errno::from_i32(error.errno().raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_arrive_as_they_were_sent() {
        // What fuser makes of -2 s + 800,000,000 ns.
        let sent = UNIX_EPOCH - Duration::new(2, 800_000_000);
        assert_eq!(timestamp(sent), Timestamp { seconds: -2, nanos: 800_000_000 });
        assert_eq!(timestamp(UNIX_EPOCH + Duration::new(5, 6)), Timestamp { seconds: 5, nanos: 6 });
        assert_eq!(timestamp(UNIX_EPOCH), Timestamp::default());
    }
}
