//! `.snap` and `.snapshots` in live trees, where nothing real has that name.
//!
//! A program that copies a tree with real files of these names finds the hidden directory first and takes it for the one
//! that it is to fill. So the first thing that is made in it makes it real. Where something else than a directory is to
//! have the name, it can be removed first: nothing is found there for a while.

use super::FileSystem;
use super::mounts::has_mounts_inside;
use super::number::{KernelNo, Node, Place, Virtual};
use crate::clock::Timestamp;
use crate::device::{InodeNo, Moment};
use crate::error::{Errno, Error, Result};
use crate::tree::{self, Caller, Kind, Most, New};
use crate::view::View;
use fuser::{FileAttr, FileType};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

pub(super) const SNAP: &[u8] = b".snap";
pub(super) const SHADOW: &[u8] = b".snapshots";

/// Paths that are looked for in other times.
const REACH: Most = Most { names: 256, bytes: 4096 };

/// How long a hidden directory that was removed is not there.
const REMOVED: Duration = Duration::from_secs(60);

/// The directory in which a hidden one is, and its name.
pub(super) fn name_of(node: &Node) -> Option<(InodeNo, &'static [u8])> {
    match node {
        Node::Virtual(Virtual::Snap(directory)) => Some((*directory, SNAP)),
        Node::Virtual(Virtual::Shadow(base)) => Some((View::live(*base).root(), SHADOW)),
        _ => None,
    }
}

/// What a name in a live directory can lead to where nothing real has it.
fn hidden(directory: InodeNo, name: &[u8]) -> Option<Virtual> {
    match name {
        SNAP => Some(Virtual::Snap(directory)),
        SHADOW if tree::is_root(directory) => Some(Virtual::Shadow(directory.base())),
        _ => None,
    }
}

impl FileSystem {
    /// `.snap` and `.snapshots`, where nothing real has that name.
    pub(super) fn hidden_lookup(&self, place: Place, name: &[u8]) -> Result<(FileAttr, Duration)> {
        let found = hidden(place.inode, name).filter(|_| place.moment == Moment::Live);
        let node = found.ok_or(Error::Posix(Errno::NOENT))?;
        let is_removed = self.removed.lock().get(&node).is_some_and(|since| since.elapsed() < REMOVED);
        let tree = self.views.tree();
        if is_removed || !tree.inode(place.inode, Moment::Live)?.is_directory() || !self.has_past(place.inode)? {
            return Err(Error::Posix(Errno::NOENT));
        }
        Ok((self.attributes_of_virtual(&node)?, Duration::ZERO))
    }

    /// Whether a snapshot shows a live directory, under its number or its path.
    fn has_past(&self, directory: InodeNo) -> Result<bool> {
        let views = self.views.of(directory.base());
        let tree = views.tree();
        for snapshot in views.all_snapshots()?.iter().rev().filter(|snapshot| super::root::is_shown(snapshot)) {
            let found = tree.inode(directory, Moment::At(snapshot.epoch));
            if found.is_ok_and(|found| found.is_directory() && found.links > 0) {
                return Ok(true);
            }
        }
        if let Some(path) = self.path_in_reach(directory)? {
            let versions = tree.versions(views.base(), &path)?;
            if versions.iter().any(|version| version.oldest.is_some() && version.kind == Kind::Directory) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The path of a live directory, if it is short: to follow that of one which lies a hundred times deeper through all
    /// times takes seconds.
    pub(super) fn path_in_reach(&self, directory: InodeNo) -> Result<Option<Vec<u8>>> {
        self.views.tree().directory_path(directory, Moment::Live, REACH)
    }

    /// Whoever may make something in the directory may do so in what is hidden in it.
    pub(super) fn attributes_of_hidden(&self, node: &Virtual, number: KernelNo) -> Result<FileAttr> {
        let attr = self.virtual_attributes(number, FileType::Directory, 0)?;
        // By a time that is new the kernel sees that it has to list it anew.
        let attr = FileAttr { mtime: Timestamp::now().into(), ..attr };
        let Some((directory, _)) = name_of(&Node::Virtual(node.clone())) else { return Ok(attr) };
        let tree = self.views.tree();
        let above = tree.inode(directory, Moment::Live)?;
        // What a list grants, and to whom not, the mode of what has none cannot say: only the owner makes something then.
        let has_list = tree.has_access_list(directory)?;
        let permissions = above.permissions() & if has_list { 0o755 } else { 0o777 };
        Ok(FileAttr { perm: permissions as u16, uid: above.uid, gid: above.gid, ..attr })
    }

    /// Takes a hidden directory away for a while; ENOENT if there is none.
    pub(super) fn hide(&self, place: Place, name: &[u8]) -> Result<()> {
        self.hidden_lookup(place, name)?;
        let Some(node) = hidden(place.inode, name) else { return Err(Error::Posix(Errno::NOENT)) };
        self.numbers.renumber(&node);
        let mut removed = self.removed.lock();
        removed.retain(|_, since| since.elapsed() < REMOVED);
        removed.insert(node, Instant::now());
        Ok(())
    }

    /// EBUSY where a directory is to go, or a hidden one, and something is mounted in what is hidden there: the kernel, which
    /// asks only about the directory itself, would keep it where nobody reaches it.
    pub(super) fn check_may_go(&self, parent: InodeNo, name: &[u8]) -> Result<()> {
        let tree = self.views.tree();
        let node = match tree.lookup(parent, name, Moment::Live) {
            Ok((inode, _)) => Some(Virtual::Snap(inode)),
            Err(_) => hidden(parent, name),
        };
        if !node.is_some_and(|node| self.numbers.is_given(&node)) {
            return Ok(());
        }
        // Nothing leads to a tree that is offline.
        let Ok(live) = self.path_of_live(parent.base()) else { return Ok(()) };
        let mut above = tree.paths(parent, Moment::Live)?.into_iter();
        above.try_for_each(|above| self.check_nothing_inside(&live.join(OsStr::from_bytes(&above)), name))
    }

    /// EBUSY if something is mounted in a directory, as far as this process sees.
    pub(super) fn check_nothing_inside(&self, above: &Path, name: &[u8]) -> Result<()> {
        let Some(notify) = self.notify.get() else { return Ok(()) };
        match has_mounts_inside(&notify.mount_point().join(above).join(OsStr::from_bytes(name))) {
            true => Err(Error::Posix(Errno::BUSY)),
            false => Ok(()),
        }
    }

    /// Something real got a name that may have been a hidden one's.
    pub(super) fn forget_hidden(&self, directory: InodeNo, name: &[u8]) {
        if let Some(node) = hidden(directory, name) {
            self.numbers.renumber(&node);
        }
    }

    /// The node in which something is to be made.
    pub(super) fn node_for_new(&self, caller: Caller, number: KernelNo) -> Result<Node> {
        let node = self.numbers.node(number)?;
        match name_of(&node) {
            Some((directory, name)) => self.real(caller, directory, name).map(Node::In),
            None => Ok(node),
        }
    }

    /// The place in which something is to be made.
    pub(super) fn place_for_new(&self, caller: Caller, number: KernelNo) -> Result<Place> {
        match self.node_for_new(caller, number)? {
            Node::In(place) => self.writable_place(place.number()),
            Node::Root | Node::Virtual(_) => Err(Error::Posix(Errno::PERM)),
        }
    }

    /// Tells the kernel of an entry that it did not ask to be made. Not by a thread that serves requests.
    fn made_behind(&self, directory: InodeNo, name: &'static [u8]) {
        if let Some(notify) = self.notify.get().cloned() {
            self.telling.run_aside_only(move || notify.entry_changed(directory, name));
        }
    }

    /// The real directory of a name, made if there is none.
    fn real(&self, caller: Caller, directory: InodeNo, name: &'static [u8]) -> Result<Place> {
        let view = View::live(directory.base());
        let above = self.numbers.know(Place { inode: directory, moment: view.moment, way: view.number() });
        self.writable_place(above.number())?;
        let new = New { kind: Kind::Directory, permissions: 0o777, rdev: 0, target: b"" };
        let made = match self.views.tree().lookup(directory, name, Moment::Live) {
            Ok((inode, found)) if found.is_directory() => return Ok(above.at(inode)),
            Ok(_) => return Err(Error::Posix(Errno::NOTDIR)),
            Err(Error::Posix(Errno::NOENT)) => self.views.tree().make(caller, directory, name, new),
            Err(error) => return Err(error),
        };
        match made {
            Ok((inode, _)) => {
                self.made_behind(directory, name);
                Ok(above.at(inode))
            }
            // By somebody else at the same time.
            Err(Error::Posix(Errno::EXIST)) => Ok(above.at(self.views.tree().lookup(directory, name, Moment::Live)?.0)),
            Err(error) => Err(error),
        }
    }
}
