//! Changing attributes: mode, owner, times and size, as one operation.

use super::inode::{self, Inode, Kind};
use super::{Tree, acl};
use crate::clock::Timestamp;
use crate::device::InodeNo;
use crate::error::{Errno, Error, Result};
use crate::limits::FILE_BYTES_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    Now,
    To(Timestamp),
}

/// What is to be changed of an inode; `None` leaves it as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// Permissions, with suid, sgid and sticky bits.
    pub permissions: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
    /// Now, if not given.
    pub ctime: Option<Timestamp>,
    /// Clear suid and sgid where a change of size or owner by this caller does so.
    pub kill_privileges: bool,
}

/// What an inode is besides its names and bytes: mode, owner, times, xattrs, and who may do what.
#[derive(Clone, Copy)]
pub struct Attributes<'a> {
    pub(super) tree: &'a Tree,
}

impl Attributes<'_> {
    pub fn change(self, number: InodeNo, change: Change) -> Result<Inode> {
        if change.size.is_some_and(|size| size > FILE_BYTES_MAX) {
            return Err(Error::Posix(Errno::FBIG));
        }
        if let Some(size) = change.size {
            self.tree.files().shorten(number, size, change.kill_privileges)?;
        }
        let _file = change.size.map(|_| self.tree.locks.lock(number));
        let edge = match change.size {
            Some(size) => self.tree.files().fetch_cut(number, size)?,
            None => None,
        };
        let mut txn = self.tree.device.begin()?;
        let mut found = inode::load(&txn, number.live())?;
        let now = self.tree.stamps.now();
        let mut cut = None;
        if let Some(size) = change.size {
            match found.kind() {
                Kind::File => {}
                Kind::Directory => return Err(Error::Posix(Errno::ISDIR)),
                _ => return Err(Error::Posix(Errno::INVAL)),
            }
            cut = self.tree.files().resize(&mut txn, number, &mut found, size, edge)?;
            found.mtime = now;
        }
        let is_other_owner = change.uid.is_some() || change.gid.is_some();
        found.uid = change.uid.unwrap_or(found.uid);
        found.gid = change.gid.unwrap_or(found.gid);
        if change.kill_privileges && (is_other_owner || change.size.is_some()) {
            found.kill_privileges();
        }
        if let Some(permissions) = change.permissions {
            found.mode = found.kind().mode_bits() | permissions & 0o7777;
            acl::follow_mode(&mut txn, number, permissions)?;
        }
        let pick = |set: Option<SetTime>, old: Timestamp| match set {
            Some(SetTime::Now) => now,
            Some(SetTime::To(time)) => time,
            None => old,
        };
        found.atime = pick(change.atime, found.atime);
        found.mtime = pick(change.mtime, found.mtime);
        found.ctime = change.ctime.unwrap_or(now);
        inode::store(&mut txn, number, &found)?;
        if let Some(cut) = cut {
            self.tree.files().cut(&mut txn, number, cut)?;
        }
        txn.finish()?;
        Ok(found)
    }
}
