//! Names that do not lead where they led, as the kernel is told of them.

use super::Notify;
use super::mounts::has_mounts_inside;
use crate::device::InodeNo;
use crate::tree::{Kind, Tree};

/// A name in a live directory.
pub type Place = (InodeNo, Vec<u8>);

/// What a name led to.
pub type Target = (InodeNo, Kind);

/// Names of live directories that do not lead where they led.
#[derive(Default)]
pub struct Names {
    changed: Vec<Place>,
    /// They led to nothing: what somebody has found there meanwhile, and mounted on, stays.
    came: Vec<Place>,
    /// They led to directories that are elsewhere now.
    moved: Vec<(Place, InodeNo)>,
}

impl Names {
    /// A name, and what it led to, if anything.
    pub fn add(&mut self, tree: &Tree, place: Place, then: Option<Target>) {
        match then {
            Some((inode, Kind::Directory)) if tree.inode(inode.live()).is_ok_and(|now| now.links > 0) => {
                self.moved.push((place, inode));
            }
            None => self.came.push(place),
            Some(_) => self.changed.push(place),
        }
    }

    /// Whether one of them is in a directory.
    pub(super) fn is_in(&self, directory: InodeNo) -> bool {
        let moved = self.moved.iter().map(|(place, _)| place);
        self.changed.iter().chain(&self.came).chain(moved).any(|(in_directory, _)| *in_directory == directory)
    }
}

impl Notify {
    /// Has names looked up again. When the kernel finds a directory under a new name, it moves there what is mounted
    /// inside: so before the old one is given up.
    pub fn names_lead_elsewhere(&self, Names { changed, came, moved }: &Names) {
        if !changed.is_empty() {
            self.entries_changed(changed);
        }
        if !came.is_empty() {
            self.entries_moved(came);
        }
        if moved.is_empty() {
            return;
        }
        if has_mounts_inside(self.mount_point()) {
            self.find(moved.iter().map(|(_, inode)| *inode));
        }
        self.entries_moved(&moved.iter().map(|(place, _)| place.clone()).collect::<Vec<_>>());
    }
}
