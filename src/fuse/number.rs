//! Kernel inode numbers: 1 is the mount root; otherwise each is made of a view's number (0 for `live` of the first base)
//! and the inode's number within the view.
//!
//! A view can be reached in more than one way: through its name, and through `.snap` and `.snapshots`. A
//! directory may stand in one place only, as far as the kernel is concerned, so behind each such door the view has a
//! number of its own while the store is mounted. Directories that are in no tree have the last view's number.

mod given;
mod layout;

use crate::clock::Epoch;
use crate::device::{BaseId, InodeAt, InodeNo, LIVE, Moment};
use crate::error::{Errno, Error, Result};
use crate::limits::{BASES_MAX, VIEW_BITS, VIEWS_PASSING};
use crate::view::{Door, SHADOW, SNAP, View, ViewNo, Virtual};
use given::{Given, What};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use std::collections::HashMap;

/// What the kernel knows an inode of the mount by, see [`layout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct KernelNo(pub u64);

pub(super) const ROOT: KernelNo = KernelNo(1);

const VIRTUAL: ViewNo = (1 << VIEW_BITS) - 1;

/// What a kernel inode number stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Virtual(Virtual),
    In(Place),
}

/// An inode at a moment, and the view's number by which it was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub at: InodeAt,
    pub way: ViewNo,
}

impl Place {
    /// The same way at another inode.
    pub(super) fn to(self, inode: InodeNo) -> Place {
        Place { at: inode.at(self.moment()), ..self }
    }

    pub(super) fn inode(self) -> InodeNo {
        self.at.inode
    }

    pub(super) fn moment(self) -> Moment {
        self.at.moment
    }

    pub(super) fn number(self) -> KernelNo {
        layout::join(self.way, self.inode().number())
    }

    /// The root of a view, under the view's own name.
    pub(super) fn root(view: View) -> Place {
        Place { at: view.root().at(view.moment), way: view.number() }
    }
}

/// The number of an inode in its base as it is now.
pub(super) fn live_number(inode: InodeNo) -> KernelNo {
    Place { at: inode.live(), way: View::live(inode.base()).number() }.number()
}

/// The number of the directory of a base, in a mount of several.
pub(super) fn base_number(base: BaseId) -> KernelNo {
    layout::join(VIRTUAL, u64::from(base.number()))
}

/// The views and virtual nodes that the kernel has been told numbers of.
///
/// What is given out while the store is mounted is taken back when the kernel has forgotten all that it stands for: a number may be
/// another's then. It is given a little before it is told, and not taken back in between ([`Numbers::telling`]).
#[derive(Default)]
pub(super) struct Numbers {
    views: RwLock<HashMap<ViewNo, View>>,
    given: Mutex<Given>,
    telling: RwLock<()>,
}

impl Numbers {
    /// The kernel may come back with numbers of this view from now on.
    pub(super) fn know(&self, place: Place) -> Place {
        let view = View { base: place.inode().base(), moment: place.moment() };
        if place.way != 0 && self.views.read().get(&place.way) != Some(&view) {
            self.views.write().insert(place.way, view);
        }
        place
    }

    /// An inode of a snapshot, reached through a door.
    pub(super) fn aside(&self, inode: InodeNo, epoch: Epoch, door: Door) -> Result<Place> {
        let view = View::at(inode.base(), epoch);
        let way = self.given.lock().way(view, door).ok_or(Error::Posix(Errno::NFILE))?;
        Ok(self.know(Place { at: inode.at(view.moment), way }))
    }

    pub(super) fn virtual_number(&self, node: &Virtual) -> KernelNo {
        match node {
            Virtual::Root => ROOT,
            Virtual::Base(base) => base_number(*base),
            _ => layout::join(VIRTUAL, self.given.lock().own(node)),
        }
    }

    /// Whether the kernel can know a node.
    pub(super) fn is_given(&self, node: &Virtual) -> bool {
        self.given.lock().has(node)
    }

    /// Gives a node another number when it is next found: to the kernel the one it has had is removed.
    pub(super) fn renumber(&self, node: &Virtual) {
        self.given.lock().renumber(node);
    }

    /// Held from before a number is given to after it is counted, where that can be for what is behind a name.
    pub(super) fn telling(&self, parent: KernelNo, name: &[u8]) -> Option<RwLockReadGuard<'_, ()>> {
        let is_here = parent == ROOT || layout::split(parent).0 == VIRTUAL || name == SNAP || name == SHADOW;
        is_here.then(|| self.telling.read())
    }

    /// The kernel is told a number.
    pub(super) fn hold(&self, number: KernelNo) {
        if let Some(what) = what(number) {
            self.given.lock().hold(what);
        }
    }

    /// The kernel has forgotten a number as often as it was told.
    pub(super) fn forget(&self, number: KernelNo, count: u64) {
        let Some(what) = what(number) else { return };
        let is_unknown = self.given.lock().forget(what, count);
        // Else somebody is told of something: what is left then goes with the next.
        if is_unknown && let Some(_nobody_is_told) = self.telling.try_write() {
            let mut views = self.views.write();
            for way in self.given.lock().sweep() {
                views.remove(&way);
            }
        }
    }

    /// ESTALE for a number whose view is not known.
    pub(super) fn node(&self, number: KernelNo) -> Result<Node> {
        if number == ROOT {
            return Ok(Node::Virtual(Virtual::Root));
        }
        let (way, own) = layout::split(number);
        let place = |view: View, way| Node::In(Place { at: InodeNo::new(view.base, own).at(view.moment), way });
        match way {
            0 => Ok(Node::In(Place { at: InodeNo::new(LIVE, own).live(), way: 0 })),
            VIRTUAL if own < u64::from(BASES_MAX) => Ok(Node::Virtual(Virtual::Base(BaseId::new(own as u32)))),
            VIRTUAL => {
                let found = self.given.lock().node(own);
                found.map(Node::Virtual).ok_or(Error::Gone)
            }
            way => match self.views.read().get(&way) {
                Some(view) => Ok(place(*view, way)),
                None => Err(Error::Gone),
            },
        }
    }
}

/// What a number stands for that is given out while the store is mounted.
fn what(number: KernelNo) -> Option<What> {
    match layout::split(number) {
        (VIRTUAL, own) if own >= u64::from(BASES_MAX) => Some(What::Node(own)),
        (VIRTUAL, _) => None,
        (way, _) => (way >= VIEWS_PASSING).then_some(What::Way(way)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn numbers_lead_back_to_what_they_stand_for() {
        let numbers = Numbers::default();
        for view in [
            View::live(LIVE),
            View::at(LIVE, Epoch::new(1)),
            View::at(LIVE, Epoch::new((1 << 24) + 5)),
            View::live(BaseId::new(3)),
            View::at(BaseId::new(3), Epoch::new(77)),
        ] {
            let place = numbers.know(Place::root(view)).to(InodeNo::new(view.base, 77));
            assert_eq!(numbers.node(place.number()).unwrap(), Node::In(place));
        }
        let mut seen =
            vec![Place::root(View::at(BaseId::new(3), Epoch::new(77))).to(InodeNo::new(BaseId::new(3), 5)).number()];
        for door in [7, 8]
            .map(|seconds| Door::Time(Timestamp { seconds, nanos: 0 }))
            .into_iter()
            .chain([Door::Snap, Door::Shadow])
        {
            let aside = numbers.aside(InodeNo::new(BaseId::new(3), 5), Epoch::new(77), door).unwrap();
            assert_eq!(numbers.aside(InodeNo::new(BaseId::new(3), 5), Epoch::new(77), door).unwrap(), aside);
            assert_eq!(numbers.node(aside.number()).unwrap(), Node::In(aside));
            assert!(!seen.contains(&aside.number()));
            seen.push(aside.number());
        }
        for node in [
            Virtual::Base(BaseId::new(4)),
            Virtual::Snap(InodeNo::new(LIVE, 9)),
            Virtual::Shadow(LIVE),
            Virtual::Link("a".into()),
        ] {
            assert_eq!(numbers.node(numbers.virtual_number(&node)).unwrap(), Node::Virtual(node));
        }
        assert_eq!(numbers.node(ROOT).unwrap(), Node::Virtual(Virtual::Root));
        assert_eq!(numbers.virtual_number(&Virtual::Root), ROOT);
        assert_eq!(numbers.given.lock().count(), (4, 3));
        assert!(numbers.node(layout::join(9, 2)).is_err());
    }
    #[test]
    fn numbers_that_are_forgotten_come_back() {
        let numbers = Numbers::default();
        let stays = numbers.aside(InodeNo::new(LIVE, 5), Epoch::new(1), Door::Snap).unwrap();
        let node = Virtual::Snap(InodeNo::new(LIVE, 1));
        let node_stays = numbers.virtual_number(&node);
        [stays.number(), stays.number(), node_stays].into_iter().for_each(|number| numbers.hold(number));
        numbers.forget(stays.number(), 1);
        for i in 2..(1 << 20) + 1000 {
            let place = numbers.aside(InodeNo::new(LIVE, 5), Epoch::new(i), Door::Snap).unwrap();
            let other = numbers.virtual_number(&Virtual::Snap(InodeNo::new(LIVE, u64::from(i))));
            let told = [place.number(), place.to(InodeNo::new(LIVE, 6)).number(), place.number(), other];
            told.into_iter().for_each(|number| numbers.hold(number));
            numbers.forget(place.number(), 2);
            assert_eq!(numbers.node(told[1]).unwrap(), Node::In(place.to(InodeNo::new(LIVE, 6))), "one inode is known");
            numbers.forget(told[1], 1);
            numbers.forget(other, 1);
        }
        assert_eq!(numbers.given.lock().count(), (1, 1));
        assert!(numbers.views.read().len() == 1);
        assert_eq!(numbers.node(stays.number()).unwrap(), Node::In(stays));
        assert_eq!(numbers.node(node_stays).unwrap(), Node::Virtual(node));
    }

    #[test]
    fn what_is_about_to_be_told_is_not_taken_back() {
        let numbers = Numbers::default();
        let node = Virtual::Snap(InodeNo::new(LIVE, 7));
        let telling = numbers.telling(KernelNo(77), SNAP);
        assert!(telling.is_some() && numbers.telling(KernelNo(77), b"name").is_none());
        let number = numbers.virtual_number(&node);
        let other = numbers.virtual_number(&Virtual::Snap(InodeNo::new(LIVE, 8)));
        numbers.hold(other);
        numbers.forget(other, 1);
        assert_eq!(numbers.node(number).unwrap(), Node::Virtual(node.clone()));
        numbers.hold(number);
        drop(telling);
        numbers.hold(other);
        numbers.forget(other, 1);
        assert_eq!(numbers.node(number).unwrap(), Node::Virtual(node.clone()));
        // The kernel knows what was removed by its old number, until it has forgotten that.
        numbers.renumber(&node);
        assert!(!numbers.is_given(&node) && numbers.virtual_number(&node) != number);
        assert_eq!(numbers.node(number).unwrap(), Node::Virtual(node));
        numbers.forget(number, 1);
        assert!(numbers.node(number).is_err());
    }
}
