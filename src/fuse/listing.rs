//! Listing directories: of trees, and of what stands above them.

use super::convert::file_type;
use super::nodes::GENERATION;
use super::number::{KernelNo, Node, Place, ROOT};
use super::{FileSystem, KEEP};
use crate::device::Moment;
use crate::error::{Error, Result};
use crate::tree::Entry;
use crate::view::{Target, Virtual};
use fuser::{FileAttr, FileType, Generation, ReplyDirectory, ReplyDirectoryPlus};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, UNIX_EPOCH};

impl FileSystem {
    /// Whether all snapshots are looked through for one directory.
    pub(super) fn is_listed_long(&self, number: KernelNo) -> bool {
        matches!(self.numbers.node(number), Ok(Node::Virtual(Virtual::Snap(_))))
    }

    pub(super) fn list_plain(&self, number: KernelNo, offset: u64, reply: &mut ReplyDirectory) -> Result<()> {
        let place = match self.numbers.node(number)? {
            Node::In(place) => place,
            Node::Virtual(node) => {
                return self.namespace.list(&node, offset, &mut |name, next, target| {
                    let number = match (&target, self.place_of(&target)?) {
                        (_, Some(place)) => place.number(),
                        (Target::Virtual(node), None) => self.numbers.virtual_number(node),
                        (_, None) => number,
                    };
                    Ok(reply.add(number.into(), next, FileType::Directory, OsStr::from_bytes(name)))
                });
            }
        };
        if offset < 1 && reply.add(number.into(), 1, FileType::Directory, ".") {
            return Ok(());
        }
        if offset < 2 {
            let above = self.number_above(place)?;
            if reply.add(above.into(), 2, FileType::Directory, "..") {
                return Ok(());
            }
        }
        self.views.tree().names().list(place.inode, offset, place.moment, |entry: &Entry| {
            let number = place.at(entry.inode).number();
            Ok(!reply.add(number.into(), entry.offset, file_type(entry.kind), OsStr::from_bytes(&entry.name)))
        })
    }

    fn number_above(&self, place: Place) -> Result<KernelNo> {
        if crate::tree::is_root(place.inode) {
            return Ok(ROOT);
        }
        Ok(place.at(self.views.tree().inode(place.inode, place.moment)?.parent).number())
    }

    pub(super) fn list_plus(&self, number: KernelNo, offset: u64, reply: &mut ReplyDirectoryPlus) -> Result<()> {
        let own = self.attr_of(number)?;
        let _telling = self.numbers.telling(number, b"");
        let place = match self.numbers.node(number)? {
            Node::In(place) => place,
            Node::Virtual(node) => {
                let keep = keep(&node);
                return self.namespace.list(&node, offset, &mut |name, next, target| {
                    let is_dots = target == Target::Dots;
                    let attr = match (&target, self.place_of(&target)?) {
                        (_, Some(place)) => {
                            self.attributes(place).unwrap_or_else(|error| unknown(place, FileType::Directory, &error))
                        }
                        (Target::Virtual(node), None) => self.attributes_of_virtual(node)?,
                        (_, None) => own,
                    };
                    let generation = self.generation(attr.ino.into());
                    let is_full = reply.add(attr.ino, next, OsStr::from_bytes(name), &keep, &attr, generation);
                    if !is_full && !is_dots {
                        self.hold(attr.ino.into());
                    }
                    Ok(is_full)
                });
            }
        };
        // The kernel takes no attributes from these two.
        if offset < 1 && reply.add(own.ino, 1, ".", &KEEP, &own, GENERATION) {
            return Ok(());
        }
        if offset < 2 && reply.add(own.ino, 2, "..", &KEEP, &own, GENERATION) {
            return Ok(());
        }
        self.views.tree().names().list_with_what_is_known(place.inode, offset, place.moment, |entry, found| {
            let at = place.at(entry.inode);
            let attr = found.and_then(|found| self.attributes_of(at, &found));
            let attr = attr.unwrap_or_else(|error| unknown(at, file_type(entry.kind), &error));
            let is_live = place.moment == Moment::Live;
            let generation = Generation(if is_live { self.views.tree().held().generation(entry.inode) } else { 0 });
            let name = OsStr::from_bytes(&entry.name);
            let keep = self.keep_attributes(&attr);
            let is_full = reply.add(attr.ino, entry.offset, name, &keep, &attr, generation);
            match is_live {
                _ if is_full => {}
                true => {
                    self.views.tree().held().hold(entry.inode);
                }
                false => self.numbers.hold(attr.ino.into()),
            }
            Ok(!is_full)
        })
    }
}

/// What is told of an entry whose inode cannot be read, so that it is listed: the kernel takes no attributes with such a size,
/// forgets the number, and asks when somebody wants to know.
fn unknown(place: Place, kind: FileType, error: &Error) -> FileAttr {
    log::error!("listing inode {}: {error}", place.inode.number());
    FileAttr {
        ino: place.number().into(),
        size: u64::MAX,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// How long the kernel may keep what a node is and shows.
pub(super) fn keep(node: &Virtual) -> Duration {
    if node.is_always_new() { Duration::ZERO } else { KEEP }
}
