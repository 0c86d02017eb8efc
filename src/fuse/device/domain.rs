//! Each request is a fault domain: a panic gives EIO to whoever asked and a line in the log, and the thread serves on.
//!
//! fuser calls what serves requests in loops of its own, so that this stands between the two, and has every method that
//! `requests.rs` has: one that is missing here is answered with ENOSYS. A reply that a panic drops is EIO.

use super::Served;
use crate::fuse::contained;
use fuser::*;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::SystemTime;

/// What fuser serves, each request for itself.
pub(in crate::fuse) struct Domains(pub(super) Served);

macro_rules! each_in_a_domain {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        $(fn $name(&self, request: &Request, $($argument: $type),*) {
            contained(stringify!($name), || self.0.$name(request, $($argument),*));
        })*
    };
}

impl Filesystem for Domains {
    fn init(&mut self, request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.0.init(request, config)
    }

    each_in_a_domain! {
        lookup(parent: INodeNo, name: &OsStr, reply: ReplyEntry);
        forget(ino: INodeNo, nlookup: u64);
        getattr(ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr);
        setattr(
            ino: INodeNo, mode: Option<u32>, uid: Option<u32>, gid: Option<u32>, size: Option<u64>,
            atime: Option<TimeOrNow>, mtime: Option<TimeOrNow>, ctime: Option<SystemTime>, fh: Option<FileHandle>,
            crtime: Option<SystemTime>, chgtime: Option<SystemTime>, bkuptime: Option<SystemTime>,
            flags: Option<BsdFileFlags>, reply: ReplyAttr
        );
        readlink(ino: INodeNo, reply: ReplyData);
        mknod(parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry);
        mkdir(parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry);
        unlink(parent: INodeNo, name: &OsStr, reply: ReplyEmpty);
        rmdir(parent: INodeNo, name: &OsStr, reply: ReplyEmpty);
        symlink(parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry);
        rename(
            parent: INodeNo, name: &OsStr, newparent: INodeNo, newname: &OsStr, flags: RenameFlags, reply: ReplyEmpty
        );
        link(ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry);
        open(ino: INodeNo, flags: OpenFlags, reply: ReplyOpen);
        opendir(ino: INodeNo, flags: OpenFlags, reply: ReplyOpen);
        read(
            ino: INodeNo, fh: FileHandle, offset: u64, size: u32, flags: OpenFlags, lock_owner: Option<LockOwner>,
            reply: ReplyData
        );
        write(
            ino: INodeNo, fh: FileHandle, offset: u64, data: &[u8], write_flags: WriteFlags, flags: OpenFlags,
            lock_owner: Option<LockOwner>, reply: ReplyWrite
        );
        flush(ino: INodeNo, fh: FileHandle, lock_owner: LockOwner, reply: ReplyEmpty);
        release(
            ino: INodeNo, fh: FileHandle, flags: OpenFlags, lock_owner: Option<LockOwner>, flush: bool, reply: ReplyEmpty
        );
        fsync(ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty);
        fsyncdir(ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty);
        readdir(ino: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectory);
        readdirplus(ino: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectoryPlus);
        statfs(ino: INodeNo, reply: ReplyStatfs);
        setxattr(ino: INodeNo, name: &OsStr, value: &[u8], flags: i32, position: u32, reply: ReplyEmpty);
        getxattr(ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr);
        listxattr(ino: INodeNo, size: u32, reply: ReplyXattr);
        removexattr(ino: INodeNo, name: &OsStr, reply: ReplyEmpty);
        create(parent: INodeNo, name: &OsStr, mode: u32, umask: u32, flags: i32, reply: ReplyCreate);
        ioctl(
            ino: INodeNo, fh: FileHandle, flags: IoctlFlags, cmd: u32, in_data: &[u8], out_size: u32, reply: ReplyIoctl
        );
        fallocate(ino: INodeNo, fh: FileHandle, offset: u64, length: u64, mode: i32, reply: ReplyEmpty);
        lseek(ino: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek);
        copy_file_range(
            ino_in: INodeNo, fh_in: FileHandle, offset_in: u64, ino_out: INodeNo, fh_out: FileHandle, offset_out: u64,
            len: u64, flags: CopyFileRangeFlags, reply: ReplyWrite
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is not handed on here is answered as if pitfs could not do it.
    #[test]
    fn every_request_has_its_domain() {
        let methods = |source: &str| -> Vec<String> {
            let begin = source.find("impl Filesystem for").unwrap();
            let names = source[begin..].lines().filter_map(|line| line.strip_prefix("    fn ")?.split('(').next());
            names.map(str::to_string).collect()
        };
        let served = methods(include_str!("../device.rs"));
        assert!(served.len() > 20, "{served:?}");
        let here = include_str!("domain.rs");
        for name in served {
            let is_here = here.contains(&format!("\n        {name}(")) || here.contains(&format!("    fn {name}("));
            assert!(is_here, "{name} is not served");
        }
    }

    #[test]
    fn a_panic_ends_one_request() {
        let mut served = 0;
        contained("read", || panic!("as if"));
        contained("read", || served += 1);
        assert_eq!(served, 1);
    }
}
