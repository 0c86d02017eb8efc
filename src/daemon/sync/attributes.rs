//! Mode, owner, times and xattrs.

use super::Sync;
use crate::clock::Timestamp;
use crate::device::{InodeNo, Moment};
use crate::error::{Errno, Error, Result};
use crate::tree::{Change, Kind, SetTime, SetXattr};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Whose the copies are: root keeps every owner; anybody else could not use files of others.
pub enum Owner {
    Kept,
    Ours { uid: u32, groups: Vec<u32> },
}

impl Owner {
    pub fn of_this_process() -> Owner {
        let uid = rustix::process::geteuid();
        if uid.is_root() {
            return Owner::Kept;
        }
        let mut groups = vec![rustix::process::getegid().as_raw()];
        groups.extend(rustix::process::getgroups().unwrap_or_default().iter().map(|gid| gid.as_raw()));
        Owner::Ours { uid: uid.as_raw(), groups }
    }

    /// The owner and the group that a copy gets.
    pub fn of(&self, metadata: &Metadata) -> (u32, u32) {
        match self {
            Owner::Kept => (metadata.uid(), metadata.gid()),
            Owner::Ours { uid, groups } if groups.contains(&metadata.gid()) => (*uid, metadata.gid()),
            Owner::Ours { uid, groups } => (*uid, groups[0]),
        }
    }
}

impl Sync<'_> {
    /// Mode, owner, times and xattrs; whether any differed.
    pub(super) fn attributes(&mut self, path: &Path, metadata: &Metadata, inode: InodeNo) -> Result<bool> {
        let mut is_changed = self.xattrs(path, inode)?;
        let old = self.tree.inode(inode, Moment::Live)?;
        let time = |seconds, nanos| Timestamp { seconds, nanos: nanos as u32 };
        let mtime = time(metadata.mtime(), metadata.mtime_nsec());
        let atime = time(metadata.atime(), metadata.atime_nsec());
        let (uid, gid) = self.owner.of(metadata);
        let wanted = (metadata.mode() & 0o7777, uid, gid, mtime);
        let is_link = old.kind() == Kind::Symlink;
        let is_same = (if is_link { wanted.0 } else { old.permissions() }, old.uid, old.gid, old.mtime) == wanted;
        if is_same {
            return Ok(is_changed);
        }
        is_changed = true;
        if !self.dry_run {
            let change = Change {
                permissions: (!is_link).then_some(wanted.0),
                uid: Some(wanted.1),
                gid: Some(wanted.2),
                atime: Some(SetTime::To(atime)),
                mtime: Some(SetTime::To(mtime)),
                ..Change::default()
            };
            self.tree.change(inode, change)?;
            self.inode_changed(inode);
        }
        Ok(is_changed)
    }

    fn xattrs(&mut self, path: &Path, inode: InodeNo) -> Result<bool> {
        let names = match list_xattrs(path) {
            Ok(names) => names,
            Err(Errno::OPNOTSUPP) => Vec::new(),
            Err(errno) => {
                self.problem(path, format!("its xattrs cannot be listed: {}", io::Error::from(errno)));
                return Ok(false);
            }
        };
        let mut old = self.tree.xattr_names(inode, Moment::Live)?;
        let mut is_changed = false;
        for name in &names {
            let value = match get_xattr(path, name) {
                Ok(value) => value,
                Err(errno) => {
                    self.problem(
                        path,
                        format!(
                            "its xattr {} cannot be read: {}",
                            String::from_utf8_lossy(name),
                            io::Error::from(errno)
                        ),
                    );
                    continue;
                }
            };
            let is_same = old.contains(name) && self.tree.xattr(inode, name, Moment::Live)? == value;
            old.retain(|known| known != name);
            if is_same {
                continue;
            }
            is_changed = true;
            if self.dry_run {
                continue;
            }
            match self.tree.set_xattr(inode, name, &value, SetXattr::default()) {
                Ok(()) => {}
                Err(Error::Posix(Errno::OPNOTSUPP | Errno::TOOBIG)) => {
                    self.problem(path, format!("its xattr {} cannot be stored", String::from_utf8_lossy(name)));
                }
                Err(error) => return Err(error),
            }
        }
        // Only root sees these in the source.
        let sees_trusted = rustix::process::geteuid().is_root();
        for name in old.into_iter().filter(|name| sees_trusted || !name.starts_with(b"trusted.")) {
            is_changed = true;
            if !self.dry_run {
                self.tree.remove_xattr(inode, &name)?;
            }
        }
        if is_changed {
            self.inode_changed(inode);
        }
        Ok(is_changed)
    }
}

fn list_xattrs(path: &Path) -> Result<Vec<Vec<u8>>, Errno> {
    let list = with_growing_buffer(|buffer| rustix::fs::llistxattr(path, buffer))?;
    let names = list.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_vec).collect())
}

fn get_xattr(path: &Path, name: &[u8]) -> Result<Vec<u8>, Errno> {
    with_growing_buffer(|buffer| rustix::fs::lgetxattr(path, OsStr::from_bytes(name), buffer))
}

fn with_growing_buffer(read: impl Fn(&mut Vec<u8>) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 256];
    loop {
        match read(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 8, 0),
            Err(errno) => return Err(errno),
        }
    }
}
