//! Moments of bases, and inodes at them.

use super::number::InodeNo;
use crate::clock::Epoch;

/// Which moment of a base to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    Live,
    At(Epoch),
}

impl Moment {
    /// Whether what was born in an epoch is there at this moment, if nothing ended it.
    pub(in crate::device) fn includes(self, birth: Epoch) -> bool {
        match self {
            Moment::Live => true,
            Moment::At(epoch) => birth <= epoch,
        }
    }
}

/// An inode as it is at a moment of its base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InodeAt {
    pub inode: InodeNo,
    pub moment: Moment,
}

impl InodeAt {
    pub fn is_live(self) -> bool {
        self.moment == Moment::Live
    }
}

impl InodeNo {
    pub const fn at(self, moment: Moment) -> InodeAt {
        InodeAt { inode: self, moment }
    }

    pub const fn live(self) -> InodeAt {
        self.at(Moment::Live)
    }
}
