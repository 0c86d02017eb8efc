//! Mode, owner, times and xattrs.

use super::Sync;
use super::facts::Facts;
use crate::daemon::xattrs;
use crate::device::InodeNo;
use crate::error::{Errno, Error, Result};
use crate::shown::shown;
use crate::tree::{ACCESS_LIST, Change, Kind, Rights, SetTime, SetXattr};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

const CAPABILITY: &[u8] = b"security.capability";

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
    pub fn of(&self, uid: u32, gid: u32) -> (u32, u32) {
        match self {
            Owner::Kept => (uid, gid),
            Owner::Ours { uid, groups } if groups.contains(&gid) => (*uid, gid),
            Owner::Ours { uid, groups } => (*uid, groups[0]),
        }
    }
}

impl Sync<'_> {
    /// What a copy of something in the source is to have in the end.
    pub(super) fn rights(&self, facts: &Facts, whose: Whose<'_>) -> Rights {
        let (uid, gid) = self.owner.of(facts.uid, facts.gid);
        Rights { uid, gid, permissions: facts.mode & 0o7777, list: whose.value(ACCESS_LIST).ok() }
    }

    /// Takes from what is there what it must not have while it becomes what is wanted; whether it had any of that.
    pub(super) fn disarm(&mut self, inode: InodeNo, wanted: &Rights) -> Result<bool> {
        Ok(!self.dry_run && self.tree.attributes().disarm(inode, wanted)?)
    }

    /// The same of the file that is being filled, before the first change of its content.
    pub(super) fn before_change(&mut self) -> Result<()> {
        match self.arms.take() {
            Some((inode, wanted)) => self.disarm(inode, &wanted).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Mode, owner and times; whether any differed.
    pub(super) fn attributes(&mut self, facts: &Facts, inode: InodeNo) -> Result<bool> {
        let old = self.tree.inode(inode.live())?;
        let (uid, gid) = self.owner.of(facts.uid, facts.gid);
        let wanted = (facts.mode & 0o7777, uid, gid, facts.mtime);
        let is_link = old.kind() == Kind::Symlink;
        let is_same = (if is_link { wanted.0 } else { old.permissions() }, old.uid, old.gid, old.mtime) == wanted;
        if is_same {
            return Ok(false);
        }
        if !self.dry_run {
            let change = Change {
                permissions: (!is_link).then_some(wanted.0),
                uid: Some(wanted.1),
                gid: Some(wanted.2),
                atime: Some(SetTime::To(facts.atime)),
                mtime: Some(SetTime::To(facts.mtime)),
                ..Change::default()
            };
            self.tree.attributes().change(inode, change)?;
        }
        Ok(true)
    }

    /// The xattrs; whether any differed.
    pub(super) fn xattrs(&mut self, whose: Whose<'_>, inode: InodeNo) -> Result<bool> {
        let names = match whose.names() {
            Ok(names) => names,
            Err(errno) => {
                self.problem(format!("its xattrs cannot be listed: {}", io::Error::from(errno)));
                return Ok(false);
            }
        };
        let mut old = self.tree.attributes().xattr_names(inode.live())?;
        let mut is_changed = false;
        for name in &names {
            // What cannot be read is not known to be gone.
            let was_there = old.contains(name);
            old.retain(|known| known != name);
            let value = match whose.value(name) {
                Ok(value) => value,
                Err(errno) => {
                    self.problem(format!("its xattr {} cannot be read: {}", shown(name), io::Error::from(errno)));
                    continue;
                }
            };
            if was_there && self.tree.attributes().xattr(inode.live(), name)? == value {
                continue;
            }
            is_changed = true;
            if self.dry_run {
                continue;
            }
            match self.tree.attributes().set_xattr(inode, name, &value, SetXattr::default()) {
                Ok(()) => {}
                Err(Error::Posix(Errno::OPNOTSUPP | Errno::TOOBIG)) => {
                    self.problem(format!("its xattr {} cannot be stored", shown(name)));
                }
                Err(error) => return Err(error),
            }
        }
        // Only root sees these in the source.
        let sees_trusted = rustix::process::geteuid().is_root();
        for name in old.into_iter().filter(|name| sees_trusted || !name.starts_with(b"trusted.")) {
            is_changed = true;
            if !self.dry_run {
                self.tree.attributes().remove_xattr(inode, &name)?;
            }
        }
        Ok(is_changed)
    }
}

/// Whose xattrs are read.
#[derive(Clone, Copy)]
pub(super) enum Whose<'a> {
    Open(BorrowedFd<'a>),
    /// A link is not followed.
    Named(&'a Path),
}

impl Whose<'_> {
    fn names(self) -> Result<Vec<Vec<u8>>, Errno> {
        xattrs::names(|buffer| match self {
            Whose::Open(file) => rustix::fs::flistxattr(file, buffer),
            Whose::Named(path) => rustix::fs::llistxattr(path, buffer),
        })
    }

    pub(super) fn has_capability(self) -> bool {
        self.value(CAPABILITY).is_ok()
    }

    fn value(self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        xattrs::with_growing_buffer(|buffer| match self {
            Whose::Open(file) => rustix::fs::fgetxattr(file, name, buffer),
            Whose::Named(path) => rustix::fs::lgetxattr(path, name, buffer),
        })
    }
}
