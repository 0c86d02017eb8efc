//! What is done when everything has its first name: further names, and attributes of directories.

use super::handle::Handle;
use super::put::{Directory, Job};
use super::walk::{Entered, Further, Walk};
use crate::daemon::descent::{Descent, path_of};
use crate::device::InodeNo;
use crate::error::{Error, Result};
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Directories below one that is open; the last is remembered.
struct Below {
    root: Arc<OwnedFd>,
    last: Option<(Vec<u8>, Arc<OwnedFd>)>,
}

impl Below {
    /// The directory of a path, and its last name.
    fn split<'a>(&mut self, path: &'a [u8]) -> io::Result<(Arc<OwnedFd>, &'a [u8])> {
        let (above, name) = crate::tree::split(path);
        if let Some((known, directory)) = &self.last
            && known == above
        {
            return Ok((directory.clone(), name));
        }
        let mut directory = self.root.clone();
        for name in above.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            directory = Arc::new(rustix::fs::openat(&directory, name, flags, Mode::empty())?);
        }
        self.last = Some((above.to_vec(), directory.clone()));
        Ok((directory, name))
    }
}

impl Walk<'_> {
    /// Makes the further names of inodes; one whose first name could not be made is copied under the next.
    pub fn finish_names(&mut self, root: &Arc<OwnedFd>) -> Result<()> {
        let mut firsts = Below { root: root.clone(), last: None };
        let mut targets = Below { root: root.clone(), last: None };
        for further in std::mem::take(&mut self.further) {
            self.tell()?;
            let tally = self.putter.tally;
            let (number, target) = (further.number, further.target.clone());
            if let Err(error) = self.finish_name(further, &mut firsts, &mut targets) {
                tally.count(number, &target, Err(error));
            }
        }
        self.tell()
    }

    fn finish_name(&mut self, further: Further, firsts: &mut Below, targets: &mut Below) -> Result<()> {
        let going = |error| Error::media("going through the target", error);
        let Further { number, inode, target } = further;
        let (directory, name) = targets.split(&target).map_err(going)?;
        match self.firsts.get(&inode).filter(|first| !self.putter.tally.is_unmade(first)) {
            Some(first) => {
                let first = firsts.split(first).map_err(going)?;
                let linked = self.putter.link(inode, (&first.0, first.1), (&directory, name));
                self.putter.tally.count(number, &target, linked);
            }
            None => {
                let found = self.putter.tree.inode(inode.at(self.putter.moment))?;
                let path = target[..target.len() - name.len()].strip_suffix(b"/").unwrap_or_default().to_vec();
                let directory = Arc::new(Directory { open: directory, path });
                self.putter.put(&Job { number, inode, found, directory, name: name.to_vec() });
                self.firsts.insert(inode, target);
            }
        }
        Ok(())
    }

    /// Goes through the directories once more and sets their attributes, from the deepest up; those of the root, if it
    /// was made.
    pub fn finish_directories(&mut self, root: OwnedFd, own: Option<InodeNo>) -> Result<()> {
        let going = |error| Error::media("going through the target", error);
        let mut descent = Descent::begin(root, OFlags::PATH).map_err(going)?;
        let mut above: Vec<InodeNo> = Vec::new();
        self.path.clear();
        for Entered { depth, inode, name, identity } in std::mem::take(&mut self.directories) {
            while above.len() >= depth {
                self.finish_directory(&mut descent, &mut above)?;
            }
            // What could not be entered has nothing in it that could be.
            if above.len() + 1 < depth {
                continue;
            }
            let before = self.path.len();
            self.path = crate::tree::join(&self.path, &name);
            match descent.enter_again(&name, identity) {
                Ok(()) => above.push(inode),
                Err(error) => {
                    self.numbered += 1;
                    self.putter.tally.problem(self.numbered, &self.path, error);
                    self.path.truncate(before);
                }
            }
        }
        while !above.is_empty() {
            self.finish_directory(&mut descent, &mut above)?;
        }
        match own {
            Some(inode) => self.attributes(&descent, inode),
            None => Ok(()),
        }
    }

    /// Sets the attributes of a directory when it is left for the last time.
    fn finish_directory(&mut self, descent: &mut Descent, above: &mut Vec<InodeNo>) -> Result<()> {
        let Some(inode) = above.pop() else { return Ok(()) };
        let visits = self.visits.entry(inode).or_default();
        *visits = visits.saturating_sub(1);
        if *visits == 0 {
            self.attributes(descent, inode)?;
        }
        self.path.truncate(self.path.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
        descent.leave().map_err(|error| Error::media("going through the target", error))
    }

    fn attributes(&mut self, descent: &Descent, inode: InodeNo) -> Result<()> {
        let putter = self.putter;
        let found = putter.tree.inode(inode.at(putter.moment))?;
        let xattrs = putter.tree.attributes().xattrs(inode.at(putter.moment))?;
        self.numbered += 1;
        let directory = descent.here().map_err(|error| Error::media("going through the target", error))?;
        let handle = Handle::Path(path_of(directory));
        if let Err(error) = putter.tally.set((self.numbered, &self.path), &handle, &found, &xattrs, putter.is_root) {
            putter.tally.problem(self.numbered, &self.path, error);
        }
        Ok(())
    }
}
