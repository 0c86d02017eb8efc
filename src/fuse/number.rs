//! Kernel inode numbers: 1 is the mount root; otherwise each is made of a view's number (0 for `live` of the first base)
//! and the inode's number within the view.
//!
//! A view can be reached in more than one way: through its name, and through `.snap` and `.snapshots`. A
//! directory may stand in one place only, as far as the kernel is concerned, so behind each such door the view has a
//! number of its own while the store is mounted. Directories that are in no tree have the last view's number.

mod layout;

use crate::clock::Timestamp;
use crate::device::{BaseId, Epoch, InodeNo, Moment, base_of, in_base, number_of};
use crate::error::{Errno, Error, Result};
use crate::limits::{BASES_MAX, VIEW_BITS, VIEWS_PASSING};
use crate::view::{View, ViewNo};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;

pub(super) const ROOT: u64 = 1;

const VIRTUAL: ViewNo = (1 << VIEW_BITS) - 1;

/// What a kernel inode number stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Root,
    Virtual(Virtual),
    In(Place),
}

/// An inode at a moment, and the view's number by which it was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub inode: InodeNo,
    pub moment: Moment,
    pub way: ViewNo,
}

/// What stands in the mount and in no tree.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Virtual {
    /// A base with its snapshots, in a mount of several.
    Base(BaseId),
    /// `.snap` of a live directory.
    Snap(InodeNo),
    /// `.snapshots` in the root of a live tree: all snapshots of the base under their times.
    Shadow(BaseId),
    /// `.snapshots` in the mount: all times at which there is a snapshot of a base, or of any.
    Times(Option<BaseId>),
    /// The mount as it was at a time: what stands beside a base, or all bases.
    Time(Option<BaseId>, Timestamp),
    /// `@TIME`: leads to the snapshot of this name.
    Link(String),
}

impl Virtual {
    /// Whether what it shows changes without the kernel being told.
    pub(super) fn is_always_new(&self) -> bool {
        match self {
            Virtual::Base(_) | Virtual::Link(_) => false,
            Virtual::Snap(_) | Virtual::Shadow(_) | Virtual::Times(_) | Virtual::Time(..) => true,
        }
    }
}

/// Behind which name a view was entered, if not its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Door {
    /// `.snap`
    Snap,
    /// `.snapshots` of a live tree.
    Shadow,
    /// `.snapshots/@TIME` in the mount.
    Time(Timestamp),
}

impl Place {
    /// The same way at another inode.
    pub(super) fn at(self, inode: InodeNo) -> Place {
        Place { inode, ..self }
    }

    pub(super) fn number(self) -> u64 {
        layout::join(self.way, number_of(self.inode))
    }

    /// The root of a view, under the view's own name.
    pub(super) fn root(view: View) -> Place {
        Place { inode: view.root(), moment: view.moment, way: view.number() }
    }
}

/// The number of an inode in its base as it is now.
pub(super) fn live_number(inode: InodeNo) -> u64 {
    Place { inode, moment: Moment::Live, way: View::live(base_of(inode)).number() }.number()
}

/// The number of the directory of a base, in a mount of several.
pub(super) fn base_number(base: BaseId) -> u64 {
    layout::join(VIRTUAL, u64::from(base))
}

#[derive(Default)]
struct Given {
    numbers: HashMap<Virtual, u64>,
    nodes: HashMap<u64, Virtual>,
    ways: HashMap<(View, Door), ViewNo>,
}

/// The views and virtual nodes that the kernel has been told numbers of.
#[derive(Default)]
pub(super) struct Numbers {
    views: RwLock<HashMap<ViewNo, View>>,
    given: Mutex<Given>,
}

impl Numbers {
    /// The kernel may come back with numbers of this view from now on.
    pub(super) fn know(&self, place: Place) -> Place {
        let view = View { base: base_of(place.inode), moment: place.moment };
        if place.way != 0 && self.views.read().get(&place.way) != Some(&view) {
            self.views.write().insert(place.way, view);
        }
        place
    }

    /// An inode of a snapshot, reached through a door.
    pub(super) fn aside(&self, inode: InodeNo, epoch: Epoch, door: Door) -> Result<Place> {
        let view = View::at(base_of(inode), epoch);
        let way = {
            let mut given = self.given.lock();
            let next = VIEWS_PASSING + given.ways.len() as ViewNo;
            if next >= VIRTUAL && !given.ways.contains_key(&(view, door)) {
                return Err(Error::Posix(Errno::NFILE));
            }
            *given.ways.entry((view, door)).or_insert(next)
        };
        Ok(self.know(Place { inode, moment: view.moment, way }))
    }

    pub(super) fn virtual_number(&self, node: &Virtual) -> u64 {
        if let Virtual::Base(base) = node {
            return base_number(*base);
        }
        let mut given = self.given.lock();
        if let Some(number) = given.numbers.get(node) {
            return *number;
        }
        let number = layout::join(VIRTUAL, u64::from(BASES_MAX) + given.nodes.len() as u64);
        given.numbers.insert(node.clone(), number);
        given.nodes.insert(number, node.clone());
        number
    }

    /// Whether the kernel can know a node.
    pub(super) fn is_given(&self, node: &Virtual) -> bool {
        self.given.lock().numbers.contains_key(node)
    }

    /// Gives a node another number when it is next found: to the kernel the one it has had is removed.
    pub(super) fn renumber(&self, node: &Virtual) {
        self.given.lock().numbers.remove(node);
    }

    /// ESTALE for a number whose view is not known.
    pub(super) fn node(&self, number: u64) -> Result<Node> {
        if number == ROOT {
            return Ok(Node::Root);
        }
        let (way, own) = layout::split(number);
        let place = |view: View, way| Node::In(Place { inode: in_base(view.base, own), moment: view.moment, way });
        match way {
            0 => Ok(Node::In(Place { inode: own, moment: Moment::Live, way: 0 })),
            VIRTUAL if own < u64::from(BASES_MAX) => Ok(Node::Virtual(Virtual::Base(own as BaseId))),
            VIRTUAL => {
                let found = self.given.lock().nodes.get(&number).cloned();
                found.map(Node::Virtual).ok_or(Error::Posix(Errno::STALE))
            }
            way => match self.views.read().get(&way) {
                Some(view) => Ok(place(*view, way)),
                None => Err(Error::Posix(Errno::STALE)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back_to_what_they_stand_for() {
        let numbers = Numbers::default();
        for view in [View::live(0), View::at(0, 1), View::at(0, (1 << 24) + 5), View::live(3), View::at(3, 77)] {
            let place = numbers.know(Place::root(view)).at(in_base(view.base, 77));
            assert_eq!(numbers.node(place.number()).unwrap(), Node::In(place));
        }
        let mut seen = vec![Place::root(View::at(3, 77)).at(in_base(3, 5)).number()];
        for door in [7, 8]
            .map(|seconds| Door::Time(Timestamp { seconds, nanos: 0 }))
            .into_iter()
            .chain([Door::Snap, Door::Shadow])
        {
            let aside = numbers.aside(in_base(3, 5), 77, door).unwrap();
            assert_eq!(numbers.aside(in_base(3, 5), 77, door).unwrap(), aside);
            assert_eq!(numbers.node(aside.number()).unwrap(), Node::In(aside));
            assert!(!seen.contains(&aside.number()));
            seen.push(aside.number());
        }
        for node in [Virtual::Base(4), Virtual::Snap(9), Virtual::Shadow(0), Virtual::Link("a".into())] {
            assert_eq!(numbers.node(numbers.virtual_number(&node)).unwrap(), Node::Virtual(node));
        }
        assert_eq!(numbers.node(ROOT).unwrap(), Node::Root);
        assert!(numbers.node(layout::join(9, 2)).is_err());
    }
}
