//! Taking from an inode what it must not have while its content becomes that of another: nobody is to run, read or change
//! what comes by what was allowed for what was there.
//!
//! ```text
//! disarm ──▶ content ──▶ xattrs ──▶ mode
//! ```
//!
//! The owner is the new one from the beginning, and only what both modes allow is allowed meanwhile, also to those who look
//! into a snapshot that is taken then.

use super::attributes::Attributes;
use super::inode::{self, Inode, SETGID, SETUID};
use super::{acl, xattr};
use crate::clock::Timestamp;
use crate::device::{InodeAt, InodeNo, State, Txn};
use crate::error::Result;

const CAPABILITY: &[u8] = b"security.capability";
/// Bits that do not depend on what the content is.
const HARMLESS: u32 = 0o1777;

/// What an inode is to have in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    pub uid: u32,
    pub gid: u32,
    /// With suid, sgid and sticky bits.
    pub permissions: u32,
    /// The access list, if it is to have one.
    pub list: Option<Vec<u8>>,
}

impl Rights {
    /// What another inode had.
    pub(super) fn of(state: &State, like: InodeAt, found: &Inode) -> Result<Rights> {
        let list = xattr::load(state, like, acl::ACCESS_LIST)?;
        Ok(Rights { uid: found.uid, gid: found.gid, permissions: found.permissions(), list })
    }
}

/// The permissions that it keeps.
fn harmless(found: &Inode, wanted: &Rights) -> u32 {
    // In a directory sgid says whose the files are that others make.
    let bits = if found.is_directory() { HARMLESS | SETGID } else { HARMLESS };
    found.permissions() & wanted.permissions & bits
}

/// Whether an inode has anything that [`disarm`] takes.
fn is_armed(state: &State, number: InodeNo, found: &Inode, wanted: &Rights) -> Result<bool> {
    let list = xattr::load(state, number.live(), acl::ACCESS_LIST)?;
    Ok((found.uid, found.gid, found.permissions()) != (wanted.uid, wanted.gid, harmless(found, wanted))
        || list.is_some() && list != wanted.list
        || xattr::load(state, number.live(), CAPABILITY)?.is_some())
}

/// Takes from an inode that has a name what is not both its own and wanted; whether it had anything of that kind. The
/// caller stores the inode.
pub(super) fn disarm(txn: &mut Txn<'_>, number: InodeNo, found: &mut Inode, wanted: &Rights) -> Result<bool> {
    if found.links == 0 {
        return Ok(false);
    }
    let before = (found.uid, found.gid, found.mode);
    (found.uid, found.gid) = (wanted.uid, wanted.gid);
    let permissions = harmless(found, wanted);
    found.mode = found.kind().mode_bits() | permissions;
    let mut is_changed = xattr::remove(txn, number, CAPABILITY)?;
    match xattr::load(txn, number.live(), acl::ACCESS_LIST)? {
        Some(list) if wanted.list.as_ref() != Some(&list) => {
            is_changed |= xattr::remove(txn, number, acl::ACCESS_LIST)?
        }
        Some(_) if before.2 != found.mode => acl::follow_mode(txn, number, permissions)?,
        Some(_) | None => {}
    }
    Ok(is_changed || before != (found.uid, found.gid, found.mode))
}

impl Inode {
    /// Whether somebody who has a file open as it is must not have it open with other bytes, as it is to be: it was his, or
    /// it is run with rights that are not his. Whether it is to have a capability is asked last.
    pub fn must_not_become(
        &self,
        uid: u32,
        permissions: u32,
        has_capability: impl FnOnce() -> Result<bool>,
    ) -> Result<bool> {
        Ok(self.uid != uid || permissions & (SETUID | SETGID) != 0 || has_capability()?)
    }
}

impl Attributes<'_> {
    /// Whether a file was to be run with a capability at a moment.
    pub fn has_capability(self, at: InodeAt) -> Result<bool> {
        Ok(xattr::load(&*self.tree.device.look()?, at, CAPABILITY)?.is_some())
    }

    /// What an inode had at a moment.
    pub fn rights(self, like: InodeAt) -> Result<Rights> {
        let look = self.tree.device.look()?;
        let found = inode::load(&look, like)?;
        Rights::of(&look, like, &found)
    }

    /// Takes from a live inode what it must not have while it becomes what is wanted; whether there was any of that.
    pub fn disarm(self, number: InodeNo, wanted: &Rights) -> Result<bool> {
        let is_armed = {
            let look = self.tree.device.look()?;
            is_armed(&look, number, &inode::load(&look, number.live())?, wanted)?
        };
        if !is_armed {
            return Ok(false);
        }
        let mut txn = self.tree.device.begin()?;
        let mut found = inode::load(&txn, number.live())?;
        if !disarm(&mut txn, number, &mut found, wanted)? {
            return Ok(false);
        }
        found.ctime = Timestamp::now();
        inode::store(&mut txn, number, &found)?;
        txn.finish()?;
        Ok(true)
    }
}
