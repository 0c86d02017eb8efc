//! POSIX access control lists, kept as the xattrs that Linux uses for them.
//!
//! The kernel checks permissions; here lists are inherited by new files and kept in step with the mode,
//! as acl(5) describes.

use super::access::Asker;
use super::xattr;
use crate::device::{InodeAt, InodeNo, State, Txn};
use crate::error::{Errno, Error, Result};

/// The xattr that has the list of who may do what.
pub const ACCESS_LIST: &[u8] = b"system.posix_acl_access";
/// The xattr of a directory that has the list which new files in it get.
pub const DEFAULT_LIST: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const HEADER: usize = 4;
const ENTRY: usize = 8;

/// Search permission of one class.
const SEARCH: u16 = 1;

/// Whom an entry is for, by the numbers and in the order that Linux has for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AclTag {
    UserObj = 0x01,
    User = 0x02,
    GroupObj = 0x04,
    Group = 0x08,
    Mask = 0x10,
    Other = 0x20,
}

impl AclTag {
    fn of(number: u16) -> Option<AclTag> {
        use AclTag::*;
        [UserObj, User, GroupObj, Group, Mask, Other].into_iter().find(|tag| *tag as u16 == number)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AclEntry {
    pub tag: AclTag,
    /// As one class has them in a mode: 4 to read, 2 to write, 1 to execute or search.
    pub permissions: u16,
    /// The user or group; [`NO_ID`] of an entry that names none.
    pub id: u32,
}

pub const NO_ID: u32 = u32::MAX;

/// A list, in the order in which the kernel keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl(Vec<AclEntry>);

/// What a new inode gets from its directory.
pub(super) struct Inherited {
    pub permissions: u32,
    access: Option<Acl>,
    default: Acl,
}

impl Acl {
    /// A list of these entries, put into order.
    pub fn of(mut entries: Vec<AclEntry>) -> Acl {
        entries.sort_by_key(|entry| (entry.tag, entry.id));
        Acl(entries)
    }

    pub fn entries(&self) -> &[AclEntry] {
        &self.0
    }

    /// The list in an xattr; EINVAL for what is none.
    pub fn decode(bytes: &[u8]) -> Result<Acl> {
        let invalid = || Error::Posix(Errno::INVAL);
        let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or_else(invalid)?;
        if u32::from_le_bytes(*header) != VERSION || !rest.len().is_multiple_of(ENTRY) {
            return Err(invalid());
        }
        let entry = |entry: &[u8]| {
            Some(AclEntry {
                tag: AclTag::of(u16::from_le_bytes([entry[0], entry[1]]))?,
                permissions: u16::from_le_bytes([entry[2], entry[3]]),
                id: u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]),
            })
        };
        let entries: Option<Vec<AclEntry>> = rest.chunks_exact(ENTRY).map(entry).collect();
        let acl = Acl(entries.ok_or_else(invalid)?);
        if acl.is_valid() { Ok(acl) } else { Err(invalid()) }
    }

    /// The list as an xattr has it.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            bytes.extend_from_slice(&(entry.tag as u16).to_le_bytes());
            bytes.extend_from_slice(&entry.permissions.to_le_bytes());
            bytes.extend_from_slice(&entry.id.to_le_bytes());
        }
        bytes
    }

    fn is_valid(&self) -> bool {
        let count = |tag| self.0.iter().filter(|entry| entry.tag == tag).count();
        let named = count(AclTag::User) + count(AclTag::Group);
        count(AclTag::UserObj) == 1
            && count(AclTag::GroupObj) == 1
            && count(AclTag::Other) == 1
            && (count(AclTag::Mask) == 1 || count(AclTag::Mask) == 0 && named == 0)
            && self.0.iter().all(|entry| entry.permissions <= 7)
    }

    fn get(&self, tag: AclTag) -> Option<u16> {
        self.0.iter().find(|entry| entry.tag == tag).map(|entry| entry.permissions)
    }

    fn set(&mut self, tag: AclTag, permissions: u32) {
        for entry in self.0.iter_mut().filter(|entry| entry.tag == tag) {
            entry.permissions = (permissions & 7) as u16;
        }
    }

    /// The nine permission bits that stand for this list.
    pub(super) fn permissions(&self) -> u32 {
        let group = self.get(AclTag::Mask).or(self.get(AclTag::GroupObj)).unwrap_or(0);
        let of = |tag| u32::from(self.get(tag).unwrap_or(0));
        of(AclTag::UserObj) << 6 | u32::from(group) << 3 | of(AclTag::Other)
    }

    /// Whether somebody who is not the owner may search a directory of a group.
    pub(super) fn lets_search(&self, group: u32, asker: &Asker<'_>) -> bool {
        let mask = self.get(AclTag::Mask).unwrap_or(7);
        let lets = |entry: &AclEntry| entry.permissions & mask & SEARCH != 0;
        if let Some(user) = self.0.iter().find(|entry| entry.tag == AclTag::User && entry.id == asker.uid) {
            return lets(user);
        }
        let mut of_groups = self.0.iter().filter(|entry| match entry.tag {
            AclTag::GroupObj => (asker.is_in)(group),
            AclTag::Group => (asker.is_in)(entry.id),
            _ => false,
        });
        match of_groups.next() {
            Some(first) => lets(first) || of_groups.any(lets),
            None => self.get(AclTag::Other).is_some_and(|other| other & SEARCH != 0),
        }
    }

    /// Whether the nine permission bits say everything.
    pub(super) fn is_minimal(&self) -> bool {
        self.0.len() == 3
    }

    /// Makes the list say what the permission bits say.
    fn follow(&mut self, permissions: u32) {
        self.set(AclTag::UserObj, permissions >> 6);
        self.set(AclTag::Other, permissions);
        let group = if self.get(AclTag::Mask).is_some() { AclTag::Mask } else { AclTag::GroupObj };
        self.set(group, permissions >> 3);
    }

    /// Takes away what the mode a file is created with does not grant.
    fn restrict(&mut self, permissions: u32) {
        let allowed = self.permissions() & permissions;
        self.follow(allowed);
    }
}

pub(super) fn load(state: &State, at: InodeAt, name: &[u8]) -> Result<Option<Acl>> {
    let value = xattr::load(state, at, name)?;
    value.map(|bytes| Acl::decode(&bytes)).transpose()
}

/// What a new inode in this directory inherits; `None` without a default list, when the umask counts.
pub(super) fn inherit(state: &State, parent: InodeNo, permissions: u32) -> Result<Option<Inherited>> {
    let Some(default) = load(state, parent.live(), DEFAULT_LIST)? else { return Ok(None) };
    let mut access = default.clone();
    access.restrict(permissions & 0o777);
    let permissions = permissions & 0o7000 | access.permissions();
    let access = (!access.is_minimal()).then_some(access);
    Ok(Some(Inherited { permissions, access, default }))
}

impl Inherited {
    pub(super) fn store(&self, txn: &mut Txn<'_>, inode: InodeNo, is_directory: bool) -> Result<()> {
        if let Some(access) = &self.access {
            xattr::store(txn, inode, ACCESS_LIST, &access.encode())?;
        }
        if is_directory {
            xattr::store(txn, inode, DEFAULT_LIST, &self.default.encode())?;
        }
        Ok(())
    }
}

/// Brings an access list in line with a new mode.
pub(super) fn follow_mode(txn: &mut Txn<'_>, inode: InodeNo, permissions: u32) -> Result<()> {
    if let Some(mut acl) = load(txn, inode.live(), ACCESS_LIST)? {
        acl.follow(permissions & 0o777);
        xattr::store(txn, inode, ACCESS_LIST, &acl.encode())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Acl {
        let entry = |tag, permissions, id| AclEntry { tag, permissions, id };
        let none = NO_ID;
        Acl(vec![
            entry(AclTag::UserObj, 7, none),
            entry(AclTag::User, 6, 1000),
            entry(AclTag::GroupObj, 5, none),
            entry(AclTag::Mask, 7, none),
            entry(AclTag::Other, 1, none),
        ])
    }

    #[test]
    fn lists_survive_the_way_there_and_back() {
        assert_eq!(Acl::decode(&sample().encode()).unwrap(), sample());
        assert!(Acl::decode(&sample().encode()[..20]).is_err());
        assert!(Acl::decode(b"").is_err());
    }

    #[test]
    fn the_mode_follows_the_mask_and_back() {
        let mut acl = sample();
        assert_eq!(acl.permissions(), 0o771);
        acl.follow(0o640);
        assert_eq!((acl.permissions(), acl.get(AclTag::GroupObj)), (0o640, Some(5)));
        acl.restrict(0o600);
        assert_eq!(acl.permissions(), 0o600);
    }
}
