//! What stands in the mount and in no tree, as the kernel knows it: numbers and attributes for what the namespace says.

use super::attr::Attr;
use super::mounts::has_mounts_inside;
use super::number::{KernelNo, Node, Place};
use super::{FileSystem, KEEP};
use crate::device::{InodeNo, Moment};
use crate::error::{Errno, Error, Result};
use crate::tree::{self, Asker, Caller, Inode, Kind, New};
use crate::view::{Namespace, SNAP, Target, View, Virtual, name_of};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

impl FileSystem {
    pub(super) fn attributes_of_virtual(&self, node: &Virtual) -> Result<Attr> {
        Ok(Attr::of_standing(self.numbers.virtual_number(node), &self.namespace.standing(node)?))
    }

    /// The attributes of an inode in a view. A snapshot's root shows the snapshot's time as mtime.
    pub(super) fn attributes(&self, place: Place) -> Result<Attr> {
        let found = self.views.tree().inode(place.at)?;
        self.attributes_of(place, &found)
    }

    pub(super) fn attributes_of(&self, place: Place, found: &Inode) -> Result<Attr> {
        let tree = self.views.tree();
        let mut attr = Attr::of_inode(place.number(), found, tree.device().track_bytes());
        if let Moment::At(epoch) = place.moment()
            && tree::is_root(place.inode())
            && let Some(snapshot) = tree.device().look()?.moments().snapshot(place.inode().base(), epoch)?
        {
            attr.mtime = snapshot.record.time;
        }
        self.unwritten().show_unseen_data(place, &mut attr);
        Ok(attr)
    }

    /// The place that a name leads to, if it leads into a tree.
    pub(super) fn place_of(&self, target: &Target) -> Result<Option<Place>> {
        match target {
            Target::Dots | Target::Virtual(_) => Ok(None),
            Target::View(view) => Ok(Some(self.numbers.know(Place::root(*view)))),
            Target::Aside { inode, epoch, door } => self.numbers.aside(*inode, *epoch, *door).map(Some),
        }
    }

    pub(super) fn attributes_of_target(&self, target: &Target) -> Result<Attr> {
        match (target, self.place_of(target)?) {
            (_, Some(place)) => self.attributes(place),
            (Target::Virtual(node), None) => self.attributes_of_virtual(node),
            (_, None) => self.attributes_of_virtual(&Virtual::Root),
        }
    }

    /// A name in a directory that is in no tree, and how long that may be remembered.
    pub(super) fn virtual_lookup(&self, asker: &Asker<'_>, node: &Virtual, name: &[u8]) -> Result<(Attr, Duration)> {
        let (target, is_kept) = self.namespace.lookup(asker, node, name).or_else(|error| match (node, error) {
            // When somebody may not go there, the kernel would let go of what others have mounted there.
            (Virtual::Snap(directory), Error::Posix(Errno::ACCESS)) if self.has_mounts_behind(*directory)? => {
                Err(Error::Posix(Errno::NOMEM))
            }
            (_, error) => Err(error),
        })?;
        Ok((self.attributes_of_target(&target)?, if is_kept { KEEP } else { Duration::ZERO }))
    }

    /// Whether something is mounted in `.snap` of a directory.
    fn has_mounts_behind(&self, directory: InodeNo) -> Result<bool> {
        let Some(path) = self.namespace.path_in_reach(directory)? else { return Ok(false) };
        let above = self.path_of_live(directory.base())?.join(OsStr::from_bytes(&path));
        Ok(self.check_nothing_inside(&above, SNAP).is_err())
    }

    /// `.snap` and `.snapshots`, where nothing real has that name.
    pub(super) fn hidden_lookup(&self, place: Place, name: &[u8]) -> Result<(Attr, Duration)> {
        let node = self.namespace.hidden_lookup(place.at, name)?;
        Ok((self.attributes_of_virtual(&node)?, Duration::ZERO))
    }

    /// Takes a hidden directory away for a while; ENOENT if there is none.
    pub(super) fn hide(&self, place: Place, name: &[u8]) -> Result<()> {
        let node = self.namespace.hide(place.at, name)?;
        self.numbers.renumber(&node);
        Ok(())
    }

    /// Where a base as it is now stands in the mount.
    pub(super) fn path_of_live(&self, base: crate::device::BaseId) -> Result<PathBuf> {
        Ok(self.namespace.path_of_live(base)?.iter().collect())
    }

    /// EBUSY where a directory is to go, or a hidden one, and something is mounted in what is hidden there: the kernel, which
    /// asks only about the directory itself, would keep it where nobody reaches it.
    pub(super) fn check_may_go(&self, parent: InodeNo, name: &[u8]) -> Result<()> {
        let tree = self.views.tree();
        let node = match tree.names().lookup(parent.live(), name) {
            Ok((inode, _)) => Some(Virtual::Snap(inode)),
            Err(_) => Namespace::hidden(parent, name),
        };
        if !node.is_some_and(|node| self.numbers.is_given(&node)) {
            return Ok(());
        }
        // Nothing leads to a tree that is offline.
        let Ok(live) = self.path_of_live(parent.base()) else { return Ok(()) };
        let mut above = tree.names().paths(parent.live())?.into_iter();
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
        if let Some(node) = Namespace::hidden(directory, name) {
            self.numbers.renumber(&node);
        }
    }

    /// The node in which something is to be made.
    pub(super) fn node_for_new(&self, caller: Caller, number: KernelNo) -> Result<Node> {
        let node = self.numbers.node(number)?;
        match &node {
            Node::Virtual(hidden) => match name_of(hidden) {
                Some((directory, name)) => self.real(caller, directory, name).map(Node::In),
                None => Ok(node),
            },
            Node::In(_) => Ok(node),
        }
    }

    /// The place in which something is to be made.
    pub(super) fn place_for_new(&self, caller: Caller, number: KernelNo) -> Result<Place> {
        match self.node_for_new(caller, number)? {
            Node::In(place) => self.writable_place(place.number()),
            Node::Virtual(_) => Err(Error::Posix(Errno::PERM)),
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
        let above = self.numbers.know(Place { at: directory.at(view.moment), way: view.number() });
        self.writable_place(above.number())?;
        let new = New { kind: Kind::Directory, permissions: 0o777, rdev: 0, target: b"" };
        let made = match self.views.tree().names().lookup(directory.live(), name) {
            Ok((inode, found)) if found.is_directory() => return Ok(above.to(inode)),
            Ok(_) => return Err(Error::Posix(Errno::NOTDIR)),
            Err(Error::Posix(Errno::NOENT)) => self.views.tree().names().make(caller, directory, name, new),
            Err(error) => return Err(error),
        };
        match made {
            Ok((inode, _)) => {
                self.made_behind(directory, name);
                Ok(above.to(inode))
            }
            // By somebody else at the same time.
            Err(Error::Posix(Errno::EXIST)) => {
                Ok(above.to(self.views.tree().names().lookup(directory.live(), name)?.0))
            }
            Err(error) => Err(error),
        }
    }
}
