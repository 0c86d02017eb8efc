//! Listing directories: of trees, and of what stands above them.

use super::convert::file_type;
use super::nodes::GENERATION;
use super::number::{Node, Place, ROOT};
use super::root::Target;
use super::{FileSystem, KEEP};
use crate::device::Moment;
use crate::error::Result;
use crate::tree::{Entry, Inode};
use fuser::{FileType, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

impl FileSystem {
    pub(super) fn list_plain(&self, number: u64, offset: u64, reply: &mut ReplyDirectory) -> Result<()> {
        let place = match self.numbers.node(number)? {
            Node::In(place) => place,
            node => {
                return self.virtual_list(&node, offset, &mut |name, next, target| {
                    let (number, kind) = match target {
                        Target::Dots => (number, FileType::Directory),
                        Target::Virtual(node) => (self.numbers.virtual_number(&node), FileType::Directory),
                        Target::In(place) => (place.number(), FileType::Directory),
                    };
                    Ok(reply.add(INodeNo(number), next, kind, OsStr::from_bytes(name)))
                });
            }
        };
        if offset < 1 && reply.add(INodeNo(number), 1, FileType::Directory, ".") {
            return Ok(());
        }
        if offset < 2 {
            let above = self.number_above(place)?;
            if reply.add(INodeNo(above), 2, FileType::Directory, "..") {
                return Ok(());
            }
        }
        self.views.tree().list(place.inode, offset, place.moment, |entry: &Entry| {
            let number = place.at(entry.inode).number();
            Ok(!reply.add(INodeNo(number), entry.offset, file_type(entry.kind), OsStr::from_bytes(&entry.name)))
        })
    }

    fn number_above(&self, place: Place) -> Result<u64> {
        if crate::tree::is_root(place.inode) {
            return Ok(ROOT);
        }
        Ok(place.at(self.views.tree().inode(place.inode, place.moment)?.parent).number())
    }

    pub(super) fn list_plus(&self, number: u64, offset: u64, reply: &mut ReplyDirectoryPlus) -> Result<()> {
        let own = self.attr_of(number)?;
        let _telling = self.numbers.telling(number, b"");
        let place = match self.numbers.node(number)? {
            Node::In(place) => place,
            node => {
                let keep = keep(&node);
                return self.virtual_list(&node, offset, &mut |name, next, target| {
                    let is_dots = matches!(target, Target::Dots);
                    let attr = match target {
                        Target::Dots => own,
                        Target::Virtual(node) => self.attributes_of_virtual(&node)?,
                        Target::In(place) => self.attributes(place)?,
                    };
                    let generation = self.generation(attr.ino.0);
                    let is_full = reply.add(attr.ino, next, OsStr::from_bytes(name), &keep, &attr, generation);
                    if !is_full && !is_dots {
                        self.hold(attr.ino.0);
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
        self.views.tree().list_with_inodes(place.inode, offset, place.moment, |entry: &Entry, found: &Inode| {
            let attr = self.attributes_of(place.at(entry.inode), found)?;
            let is_live = place.moment == Moment::Live;
            let generation = Generation(if is_live { self.views.tree().generation(entry.inode) } else { 0 });
            let name = OsStr::from_bytes(&entry.name);
            let keep = self.keep_attributes(&attr);
            let is_full = reply.add(attr.ino, entry.offset, name, &keep, &attr, generation);
            match is_live {
                _ if is_full => {}
                true => {
                    self.views.tree().hold(entry.inode);
                }
                false => self.numbers.hold(attr.ino.0),
            }
            Ok(!is_full)
        })
    }
}

/// How long the kernel may keep what a node is and shows.
pub(super) fn keep(node: &Node) -> Duration {
    match node {
        Node::Virtual(node) if node.is_always_new() => Duration::ZERO,
        Node::Root | Node::Virtual(_) | Node::In(_) => KEEP,
    }
}
