//! What is no directory: made, filled, replaced, or found to be the same.

use super::attributes::Whose;
use super::content::{READING, Runs};
use super::facts::Facts;
use super::{Found, Sync};
use crate::clock::Timestamp;
use crate::daemon::copy_out::encode_device;
use crate::daemon::descent::path_in;
use crate::device::InodeNo;
use crate::error::{Error, Result};
use crate::tree::{Caller, Inode, Kind, New, Origin};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

pub(super) fn origin(facts: &Facts, copy_ctime: Timestamp) -> Origin {
    let Facts { device, inode, size, mtime, ctime, .. } = *facts;
    Origin { device, inode, size, mtime, ctime, copy_ctime }
}

impl Sync<'_> {
    /// A symlink or special file.
    pub(super) fn other(
        &mut self,
        directory: &OwnedFd,
        found: &Found,
        parent: Option<InodeNo>,
        before: Option<(InodeNo, Inode)>,
        link_target: &[u8],
    ) -> Result<Option<InodeNo>> {
        let is_new = before.is_none();
        let target = match (before, parent) {
            (Some((inode, _)), _) => Some(inode),
            (None, Some(parent)) if !self.dry_run => Some(self.make(found, parent, link_target)?),
            (None, _) => None,
        };
        if is_new {
            self.added();
        }
        if let Some(inode) = target {
            let has_xattrs = self.xattrs(Whose::Named(&path_in(directory, &found.name)), inode)?;
            let is_changed = self.attributes(&found.facts, inode)? || has_xattrs;
            self.count(is_new, is_changed);
        }
        Ok(target)
    }

    /// Whether what is there can become what the source has, without being made anew.
    pub(super) fn is_same_object(&self, found: &Found, link_target: &[u8], inode: InodeNo, old: &Inode) -> bool {
        if old.kind() != found.kind {
            return false;
        }
        let is_same = match found.kind {
            Kind::Symlink => link_target == old.inline.as_slice(),
            Kind::CharDevice | Kind::BlockDevice => encode_device(found.facts.rdev) == old.rdev,
            Kind::Directory | Kind::File | Kind::Fifo | Kind::Socket => true,
        };
        // Names that belong together in the source have to belong together here, and no others.
        is_same
            && match self.names.get(&found.facts.identity()) {
                Some(first) => *first == inode,
                None => old.links == 1 || found.facts.links > 1 && !self.named.contains(&inode),
            }
    }

    pub(super) fn make(&mut self, found: &Found, parent: InodeNo, target: &[u8]) -> Result<InodeNo> {
        let rdev = match found.kind {
            Kind::CharDevice | Kind::BlockDevice => encode_device(found.facts.rdev),
            _ => 0,
        };
        // It is its owner's from the beginning, and nobody else's until all of it is there.
        let (uid, gid) = self.owner.of(found.facts.uid, found.facts.gid);
        let permissions = if found.kind == Kind::Directory { 0o700 } else { 0o600 };
        let new = New { kind: found.kind, permissions, rdev, target };
        let (inode, _) = self.tree.names().make(Caller { uid, gid, umask: 0 }, parent, &found.name, new)?;
        Ok(inode)
    }

    /// A file of the source; `None`, and said, if it cannot be opened or is none any more.
    pub(super) fn opened(&mut self, directory: &OwnedFd, found: &Found) -> Option<(Facts, File)> {
        match super::content::open(directory, &found.name).and_then(|file| Ok((Facts::of(&file)?, file))) {
            Ok((facts, file)) if facts.is_file() => return Some((facts, file)),
            Ok(_) => self.problem("it was replaced while it was looked at"),
            Err(error) => self.problem(error),
        }
        None
    }

    /// Makes a regular file what the source has; nothing happens to it if that cannot be opened, if it is not already.
    pub(super) fn file(
        &mut self,
        (directory, opened): (&OwnedFd, Option<(Facts, File)>),
        found: &Found,
        parent: Option<InodeNo>,
        before: Option<(InodeNo, Inode)>,
    ) -> Result<Option<InodeNo>> {
        let inode = before.map(|(inode, _)| inode);
        let old_ctime = match inode {
            Some(inode) => {
                // A program can have stored in a mapping, which nothing here tells.
                self.unseen.fetch_file(inode)?;
                Some(self.tree.inode(inode.live())?.ctime)
            }
            None => None,
        };
        if let (Some(inode), Some(copy_ctime)) = (inode, old_ctime)
            && self.tree.likeness().origin(inode)? == Some(origin(&found.facts, copy_ctime))
        {
            self.report.unchanged += 1;
            return Ok(Some(inode));
        }
        let Some((facts, file)) = opened.or_else(|| self.opened(directory, found)) else { return Ok(None) };
        let inode = match (inode, parent) {
            (Some(inode), _) => inode,
            (None, Some(parent)) if !self.dry_run => self.make(found, parent, &[])?,
            (None, _) => {
                let track_bytes = self.tree.device().track_bytes();
                let bytes = Runs::of(&file, facts.size, track_bytes).map(|run| run.map(|run| run.end - run.start));
                match bytes.sum::<std::io::Result<u64>>() {
                    Ok(bytes) => {
                        self.report.read_bytes += bytes;
                        self.report.written_bytes += bytes;
                    }
                    Err(error) => self.problem(error),
                }
                self.added();
                return Ok(None);
            }
        };
        let is_new = old_ctime.is_none();
        if let (false, Some(parent)) = (is_new || self.dry_run, parent)
            && self.is_anothers(&file, &facts, inode)?
        {
            return self.replace(&file, facts, inode, (parent, &found.name)).map(Some);
        }
        if !self.fill(&file, facts, inode, is_new)? {
            if let (true, Some(parent)) = (is_new, parent) {
                // Half a file is worse than none.
                self.tree.names().unlink(parent, &found.name)?;
                return Ok(None);
            }
            return Ok(Some(inode));
        }
        if is_new {
            self.added();
        }
        Ok(Some(inode))
    }

    /// Whether a file must not become what the source has, since somebody may have it open.
    pub(super) fn is_anothers(&mut self, file: &File, facts: &Facts, inode: InodeNo) -> Result<bool> {
        let found = self.tree.inode(inode.live())?;
        let (uid, _) = self.owner.of(facts.uid, facts.gid);
        let has_capability = || Ok(Whose::Open(file.as_fd()).has_capability());
        if !found.must_not_become(uid, facts.mode, has_capability)? {
            return Ok(false);
        }
        // Whether its bytes differ is looked at without a change, and not counted.
        let (before, was_dry) = (self.report.clone(), std::mem::replace(&mut self.dry_run, true));
        let differs = self.settled_content(file, *facts, inode, false);
        (self.report, self.dry_run) = (before, was_dry);
        match differs {
            Ok((differs, ..)) => Ok(differs),
            // It is said by whoever reads it again.
            Err(Error::Media { what, .. }) if what == READING => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts another file in the place of one; what it was stays with those who have it open.
    pub(super) fn replace(
        &mut self,
        file: &File,
        facts: Facts,
        old: InodeNo,
        (parent, name): (InodeNo, &[u8]),
    ) -> Result<InodeNo> {
        let made = self.tree.likeness().make_nameless(old.live())?;
        let filled = self.fill(file, facts, made, true);
        let placed = match filled {
            Ok(true) => self.tree.likeness().place(made, parent, name).map(|_| made),
            Ok(false) => Ok(old),
            Err(error) => Err(error),
        };
        self.tree.made(made);
        let placed = placed?;
        if placed == made {
            self.report.changed += 1;
            // What is noted of it has to be of when it had its name.
            if let Some(noted) = self.tree.likeness().origin(made)? {
                let copy_ctime = self.tree.inode(made.live())?.ctime;
                self.tree.likeness().set_origin(made, &Origin { copy_ctime, ..noted })?;
            }
        }
        Ok(placed)
    }

    /// Bytes and attributes of a file; false if it could not be read.
    pub(super) fn fill(&mut self, file: &File, facts: Facts, inode: InodeNo, is_new: bool) -> Result<bool> {
        let unseen = self.unseen;
        self.arms = (!is_new && !self.dry_run).then(|| (inode, self.rights(&facts, Whose::Open(file.as_fd()))));
        let change = || {
            let (is_changed, facts, is_settled) = self.settled_content(file, facts, inode, is_new)?;
            let has_xattrs = self.xattrs(Whose::Open(file.as_fd()), inode)?;
            Ok((self.attributes(&facts, inode)? || has_xattrs || is_changed, facts, is_settled))
        };
        let (is_changed, facts, is_settled) = match unseen.change_file(inode, change, |(is_changed, ..)| *is_changed) {
            Ok(done) => done,
            Err(Error::Media { what, source }) if what == READING => {
                self.problem(source);
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        self.skipped.done.fetch_add(facts.size, Ordering::Relaxed);
        self.count(is_new, is_changed);
        if !is_settled {
            self.problem("it was written to while it was read: what was brought in is of no one moment; sync again");
        } else if !self.dry_run {
            let copy_ctime = self.tree.inode(inode.live())?.ctime;
            self.tree.likeness().set_origin(inode, &origin(&facts, copy_ctime))?;
        }
        Ok(true)
    }
}
