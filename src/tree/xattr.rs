//! Extended attributes.

use super::acl;
use super::attributes::Attributes;
use super::inode::{self, Inode, SETGID};
use crate::device::{InodeAt, InodeNo, Moment, State, Txn};
use crate::error::{Errno, Error, Result};
use crate::limits::*;
use crate::meta::{Table, decode, prefix_end, record_name};
use crate::shown::shown;
use serde_bytes::ByteBuf;
use std::ops::ControlFlow;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetMode {
    #[default]
    Any,
    Create,
    Replace,
}

/// How an xattr is set.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetXattr {
    pub mode: SetMode,
    /// Take the sgid bit away if the xattr is the access list: the caller is not in the file's group.
    pub clears_sgid: bool,
}

const NAMESPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

fn key(inode: InodeNo, name: &[u8]) -> Vec<u8> {
    [&inode.prefix()[..], name].concat()
}

pub(super) fn load(state: &State, at: InodeAt, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let key = key(at.inode, name);
    state.value(Table::Xattr, &key, at.moment)?.map(|value| xattr_value(&key, &value)).transpose()
}

/// The value that a record of an xattr has.
pub(super) fn xattr_value(key: &[u8], value: &[u8]) -> Result<Vec<u8>> {
    let (inode, name) = split_key(key)?;
    let value: ByteBuf = decode(Table::Xattr, key, value)?;
    match value.len() <= XATTR_VALUE_BYTES_MAX {
        true => Ok(value.into_vec()),
        false => Err(Error::corrupt(described(inode, name), format!("nothing has a value of {} bytes", value.len()))),
    }
}

fn split_key(key: &[u8]) -> Result<(InodeNo, &[u8])> {
    let damaged = || Error::corrupt(record_name(Table::Xattr, key), "its key is that of no xattr");
    let inode = InodeNo::of_key(key).ok_or_else(damaged)?;
    let name = &key[inode.prefix().len()..];
    // A list of names is told apart by zeros.
    match name.is_empty() || name.len() > XATTR_NAME_BYTES_MAX || name.contains(&0) {
        true => Err(Error::corrupt(described(inode, name), "nothing can have this name")),
        false => Ok((inode, name)),
    }
}

fn described(inode: InodeNo, name: &[u8]) -> String {
    format!("the xattr \"{}\" of inode {}", shown(name), inode.number())
}

pub(super) fn store(txn: &mut Txn<'_>, inode: InodeNo, name: &[u8], value: &[u8]) -> Result<()> {
    txn.set(Table::Xattr, &key(inode, name), &ByteBuf::from(value))
}

pub(super) fn remove(txn: &mut Txn<'_>, inode: InodeNo, name: &[u8]) -> Result<bool> {
    txn.unset(Table::Xattr, &key(inode, name))
}

/// Removes up to `most` xattrs of an inode; whether that were all.
pub(super) fn remove_some(txn: &mut Txn<'_>, inode: InodeNo, most: usize) -> Result<bool> {
    let prefix = inode.prefix();
    let mut keys = Vec::new();
    let mut is_all = true;
    txn.scan(Table::Xattr, &prefix, &prefix_end(&prefix), Moment::Live, |key, _| {
        is_all = keys.len() < most;
        if is_all {
            keys.push(key.to_vec());
        }
        Ok(if is_all { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    for key in keys {
        txn.unset(Table::Xattr, &key)?;
    }
    Ok(is_all)
}

pub(super) fn names(state: &State, at: InodeAt) -> Result<Vec<Vec<u8>>> {
    let prefix = at.inode.prefix();
    let mut names = Vec::new();
    state.scan(Table::Xattr, &prefix, &prefix_end(&prefix), at.moment, |key, _| {
        names.push(split_key(key)?.1.to_vec());
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(names)
}

/// ENOSPC where an inode would have more names or values than it may with this one.
fn check_room(state: &State, inode: InodeNo, name: &[u8], value: &[u8]) -> Result<()> {
    let prefix = inode.prefix();
    let (mut names, mut values) = (name.len() + 1, value.len());
    let mut is_too_much = false;
    state.scan(Table::Xattr, &prefix, &prefix_end(&prefix), Moment::Live, |key, stored| {
        if key[prefix.len()..] != *name {
            names += key.len() - prefix.len() + 1;
            values += stored.len();
        }
        is_too_much = names > XATTR_LIST_BYTES_MAX || values > XATTR_VALUES_BYTES_MAX;
        Ok(if is_too_much { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    if is_too_much { Err(Error::Posix(Errno::NOSPC)) } else { Ok(()) }
}

fn is_acl(name: &[u8]) -> bool {
    name == acl::ACCESS_LIST || name == acl::DEFAULT_LIST
}

fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > XATTR_NAME_BYTES_MAX {
        Err(Error::Posix(Errno::RANGE))
    } else if NAMESPACES.contains(&name) {
        Err(Error::Posix(Errno::INVAL))
    } else if is_acl(name) || NAMESPACES.iter().any(|space| name.starts_with(space)) {
        Ok(())
    } else {
        Err(Error::Posix(Errno::OPNOTSUPP))
    }
}

/// Brings the mode in line with an access list that is set; whether the list says more and has to be stored.
fn follow_list(found: &mut Inode, list: &acl::Acl, clears_sgid: bool) -> bool {
    found.mode = found.mode & !0o777 | list.permissions();
    if clears_sgid {
        found.mode &= !SETGID;
    }
    !list.is_minimal()
}

impl Attributes<'_> {
    /// The value of an xattr; ENODATA where there is none.
    pub fn xattr(self, at: InodeAt, name: &[u8]) -> Result<Vec<u8>> {
        let look = self.tree.device.look()?;
        look.moments().check(at)?;
        load(&look, at, name)?.ok_or(Error::Posix(Errno::NODATA))
    }

    /// The names of all xattrs.
    pub fn xattr_names(self, at: InodeAt) -> Result<Vec<Vec<u8>>> {
        let look = self.tree.device.look()?;
        look.moments().check(at)?;
        inode::load(&look, at)?;
        names(&look, at)
    }

    /// All xattrs with their values, sorted by name.
    pub fn xattrs(self, at: InodeAt) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let names = self.xattr_names(at)?;
        names.into_iter().map(|name| Ok((name.clone(), self.xattr(at, &name)?))).collect()
    }

    pub fn set_xattr(self, number: InodeNo, name: &[u8], value: &[u8], how: SetXattr) -> Result<()> {
        self.tree.with_room(|| self.set_xattr_once(number, name, value, how))
    }

    fn set_xattr_once(self, number: InodeNo, name: &[u8], value: &[u8], how: SetXattr) -> Result<()> {
        check_name(name)?;
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(Error::Posix(Errno::TOOBIG));
        }
        let mut txn = self.tree.device.begin_growing()?;
        let mut found = inode::load(&txn, number.live())?;
        let exists = txn.exists(Table::Xattr, &key(number, name))?;
        match how.mode {
            SetMode::Create if exists => return Err(Error::Posix(Errno::EXIST)),
            SetMode::Replace if !exists => return Err(Error::Posix(Errno::NODATA)),
            SetMode::Any | SetMode::Create | SetMode::Replace => {}
        }
        check_room(&txn, number, name, value)?;
        let mut is_stored = true;
        if is_acl(name) {
            let list = acl::Acl::decode(value)?;
            if name == acl::DEFAULT_LIST && !found.is_directory() {
                return Err(Error::Posix(Errno::ACCESS));
            }
            if name == acl::ACCESS_LIST {
                is_stored = follow_list(&mut found, &list, how.clears_sgid);
            }
        }
        if is_stored {
            store(&mut txn, number, name, value)?;
        } else {
            txn.unset(Table::Xattr, &key(number, name))?;
        }
        found.ctime = self.tree.stamps.now();
        inode::store(&mut txn, number, &found)?;
        txn.finish()
    }

    pub fn remove_xattr(self, number: InodeNo, name: &[u8]) -> Result<()> {
        let mut txn = self.tree.device.begin()?;
        let mut found = inode::load(&txn, number.live())?;
        if !txn.unset(Table::Xattr, &key(number, name))? {
            // A list that says no more than the mode is there without being stored.
            return if is_acl(name) { Ok(()) } else { Err(Error::Posix(Errno::NODATA)) };
        }
        found.ctime = self.tree.stamps.now();
        inode::store(&mut txn, number, &found)?;
        txn.finish()
    }
}
