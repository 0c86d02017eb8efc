//! Renaming: moving, replacing and exchanging names.

use super::inode::{self, Inode, Kind};
use super::names::{Dirent, Names, check_name, forget_name, link_key};
use crate::clock::Timestamp;
use crate::device::{InodeNo, Note, Txn};
use crate::error::{Errno, Error, Result};
use crate::limits::LINKS_MAX;
use crate::meta::Table;
use serde_bytes::ByteBuf;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    Replace,
    NoReplace,
    Exchange,
}

/// A name in a directory.
#[derive(Clone, Copy)]
struct Place<'a> {
    parent: InodeNo,
    name: &'a [u8],
}

impl Names<'_> {
    /// Moves an entry. The caller has made sure that no directory moves into itself (the kernel does).
    pub fn rename(
        self,
        parent: InodeNo,
        name: &[u8],
        new_parent: InodeNo,
        new_name: &[u8],
        mode: RenameMode,
    ) -> Result<()> {
        self.tree.with_room(|| self.rename_once(parent, name, new_parent, new_name, mode))
    }

    fn rename_once(
        self,
        parent: InodeNo,
        name: &[u8],
        new_parent: InodeNo,
        new_name: &[u8],
        mode: RenameMode,
    ) -> Result<()> {
        check_name(new_name)?;
        if parent.base() != new_parent.base() {
            return Err(Error::Posix(Errno::XDEV));
        }
        let (from, to) = (Place { parent, name }, Place { parent: new_parent, name: new_name });
        let mut txn = match mode {
            RenameMode::Replace => self.tree.device.begin()?,
            RenameMode::NoReplace | RenameMode::Exchange => self.tree.device.begin_growing()?,
        };
        let source = self.find(&txn, parent.live(), name)?.ok_or(Error::Posix(Errno::NOENT))?;
        let target = self.find(&txn, new_parent.live(), new_name)?;
        if inode::load_directory(&txn, new_parent.live())?.links == 0 {
            return Err(Error::Posix(Errno::NOENT));
        }
        let now = self.tree.stamps.now();
        let mut gone = None;
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(Error::Posix(Errno::EXIST)),
            (RenameMode::Exchange, None) => return Err(Error::Posix(Errno::NOENT)),
            (_, Some(target)) if target.inode == source.inode => return Ok(()),
            (RenameMode::Exchange, Some(target)) => self.exchange(&mut txn, from, source, to, target, now)?,
            (_, target) => {
                if let Some(target) = target
                    && self.make_way(&mut txn, to, source, target, now)?
                {
                    gone = Some(target.inode);
                }
                self.move_entry(&mut txn, from, to, source, now)?;
            }
        }
        txn.finish()?;
        let Some(inode) = gone else { return Ok(()) };
        if source.kind == Kind::Directory as u8 {
            self.tree.held.died(inode);
        }
        self.tree.reap_if_orphan(inode);
        Ok(())
    }

    /// Removes what stands where an entry is to be moved; whether its inode has no name any more.
    fn make_way(
        self,
        txn: &mut Txn<'_>,
        to: Place<'_>,
        source: Dirent,
        target: Dirent,
        now: Timestamp,
    ) -> Result<bool> {
        let directory = Kind::Directory as u8;
        let is_gone = match (source.kind == directory, target.kind == directory) {
            (true, false) => return Err(Error::Posix(Errno::NOTDIR)),
            (false, true) => return Err(Error::Posix(Errno::ISDIR)),
            (true, true) => {
                self.drop_directory(txn, to.parent, to.name, target, now)?;
                true
            }
            (false, false) => self.drop_name(txn, to.parent, to.name, target, now)?,
        };
        self.count(txn, to.parent, -1, if target.kind == directory { -1 } else { 0 }, now)?;
        Ok(is_gone)
    }

    fn move_entry(
        self,
        txn: &mut Txn<'_>,
        from: Place<'_>,
        to: Place<'_>,
        source: Dirent,
        now: Timestamp,
    ) -> Result<()> {
        let subdirectories = i32::from(source.kind == Kind::Directory as u8);
        txn.unset(Table::Dirent, &self.dirent_key(from.parent, from.name))?;
        txn.set(Table::Dirent, &self.dirent_key(to.parent, to.name), &source.stored())?;
        self.count(txn, from.parent, -1, -subdirectories, now)?;
        self.count(txn, to.parent, 1, subdirectories, now)?;
        self.renamed(txn, source.inode, from, to, now)
    }

    fn exchange(
        self,
        txn: &mut Txn<'_>,
        from: Place<'_>,
        source: Dirent,
        to: Place<'_>,
        target: Dirent,
        now: Timestamp,
    ) -> Result<()> {
        txn.set(Table::Dirent, &self.dirent_key(from.parent, from.name), &target.stored())?;
        txn.set(Table::Dirent, &self.dirent_key(to.parent, to.name), &source.stored())?;
        let subdirectories = |dirent: Dirent| i32::from(dirent.kind == Kind::Directory as u8);
        let shift = subdirectories(source) - subdirectories(target);
        self.count(txn, from.parent, 0, -shift, now)?;
        self.count(txn, to.parent, 0, shift, now)?;
        self.renamed(txn, source.inode, from, to, now)?;
        self.renamed(txn, target.inode, to, from, now)
    }

    /// Adjusts a directory to entries that came or went.
    pub(super) fn count(
        self,
        txn: &mut Txn<'_>,
        directory: InodeNo,
        entries: i64,
        subdirectories: i32,
        now: Timestamp,
    ) -> Result<()> {
        let mut record = inode::load_directory(txn, directory.live())?;
        record.size = record.size.saturating_add_signed(entries);
        record.links = record.links.saturating_add_signed(subdirectories);
        if record.links > LINKS_MAX {
            return Err(Error::Posix(Errno::MLINK));
        }
        record.touch(now);
        inode::store(txn, directory, &record)
    }

    /// Tells an inode that one of its names has changed.
    fn renamed(self, txn: &mut Txn<'_>, number: InodeNo, from: Place<'_>, to: Place<'_>, now: Timestamp) -> Result<()> {
        let mut target: Inode = inode::load(txn, number.live())?;
        txn.note(number, Note::NeedsCommit);
        target.ctime = now;
        if target.parent == from.parent && target.name == from.name {
            target.parent = to.parent;
            target.name = ByteBuf::from(to.name);
        } else {
            txn.set(Table::Link, &link_key(number, to.parent, to.name), &())?;
            forget_name(txn, number, &mut target, from.parent, from.name)?;
        }
        inode::store(txn, number, &target)
    }
}
