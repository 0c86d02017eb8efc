//! When room ends: what needs some is tried again, as long as whoever opened the store can make some.

use std::sync::OnceLock;

/// Makes room, as by dropping an old snapshot; false where there is none to be had. Called with no lock held.
pub type MakeRoom = Box<dyn Fn() -> bool + Send + Sync>;

#[derive(Default)]
pub(super) struct Shortage {
    make_room: OnceLock<MakeRoom>,
}

impl Shortage {
    pub(super) fn when_full(&self, make_room: MakeRoom) {
        if self.make_room.set(make_room).is_err() {
            log::debug!("how room is made was said before");
        }
    }

    /// Makes some room; false where there is none to be had.
    pub(super) fn make_room(&self) -> bool {
        self.make_room.get().is_some_and(|make_room| make_room())
    }
}
