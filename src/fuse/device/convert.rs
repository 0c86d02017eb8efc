//! Between the plain types of operations and those of fuser.

use crate::clock::Timestamp;
use crate::error::Error;
use crate::fuse::attr::Attr;
use crate::fuse::number::KernelNo;
use crate::fuse::operations::Client;
use crate::tree::{Kind, SetTime};
use fuser::{FileAttr, FileType, Request, TimeOrNow};
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

impl From<fuser::INodeNo> for KernelNo {
    fn from(number: fuser::INodeNo) -> KernelNo {
        KernelNo(number.0)
    }
}

impl From<KernelNo> for fuser::INodeNo {
    fn from(number: KernelNo) -> fuser::INodeNo {
        fuser::INodeNo(number.0)
    }
}

impl From<Attr> for FileAttr {
    fn from(attr: Attr) -> FileAttr {
        FileAttr {
            ino: attr.number.into(),
            size: attr.size,
            blocks: attr.blocks,
            atime: attr.atime.into(),
            mtime: attr.mtime.into(),
            ctime: attr.ctime.into(),
            crtime: UNIX_EPOCH,
            kind: file_type(attr.kind),
            perm: attr.permissions as u16,
            nlink: attr.links,
            uid: attr.uid,
            gid: attr.gid,
            rdev: attr.rdev,
            blksize: attr.block_bytes,
            flags: 0,
        }
    }
}

impl From<&Request> for Client {
    fn from(request: &Request) -> Client {
        Client { uid: request.uid(), gid: request.gid(), pid: request.pid() }
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

/// The number the caller will see.
pub(super) fn errno(error: &Error) -> fuser::Errno {
    fuser::Errno::from_i32(crate::fuse::number_told(error))
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
