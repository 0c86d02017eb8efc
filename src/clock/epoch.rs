//! The clock of a store, which ticks with each snapshot.

use crate::limits::EPOCHS_MAX;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// Counts snapshots; every record carries the epoch of its birth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Epoch(u32);

impl Epoch {
    /// Before all snapshots.
    pub const ZERO: Epoch = Epoch(0);
    /// After all that can be.
    pub const MAX: Epoch = Epoch(u32::MAX);

    pub const fn new(number: u32) -> Epoch {
        Epoch(number)
    }

    pub const fn number(self) -> u32 {
        self.0
    }

    /// The one after; after the last there is only the last.
    pub const fn next(self) -> Epoch {
        self.plus(1)
    }

    /// The one before; before the first there is only the first.
    pub const fn before(self) -> Epoch {
        self.minus(1)
    }

    /// Whether a store can count as far.
    pub const fn is_possible(self) -> bool {
        self.0 <= EPOCHS_MAX
    }

    /// So many snapshots later, if a store can count as far at all.
    pub const fn plus(self, snapshots: u32) -> Epoch {
        Epoch(self.0.saturating_add(snapshots))
    }

    /// So many snapshots earlier, or the first.
    pub const fn minus(self, snapshots: u32) -> Epoch {
        Epoch(self.0.saturating_sub(snapshots))
    }

    /// As it stands in keys.
    pub const fn to_be_bytes(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }

    pub const fn from_be_bytes(bytes: [u8; 4]) -> Epoch {
        Epoch(u32::from_be_bytes(bytes))
    }
}

/// What no store can count to makes no sense, and nothing computes with it.
impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Epoch, D::Error> {
        crate::limits::number::epoch(deserializer).map(Epoch)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}
