//! Kernel inode numbers: 1 is the mount root; otherwise the high 24 bits are the view's number (0 for
//! `live`) and the low 40 bits the inode's number within the view.

use crate::device::{Epoch, InodeNo, Moment};
use crate::error::{Errno, Error, Result};
use crate::limits::INODE_BITS;
use crate::view::{ViewNo, view_number};
use parking_lot::RwLock;
use std::collections::HashMap;

pub(super) const ROOT: u64 = 1;

/// What a kernel inode number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Root,
    In { inode: InodeNo, moment: Moment },
}

/// The views that the kernel has been told numbers of.
#[derive(Default)]
pub(super) struct Numbers {
    views: RwLock<HashMap<ViewNo, Epoch>>,
}

impl Numbers {
    /// The number of an inode; the kernel may come back with it from now on.
    pub(super) fn number(&self, inode: InodeNo, moment: Moment) -> u64 {
        match moment {
            Moment::Live => inode,
            Moment::At(epoch) => {
                let view = view_number(epoch);
                if self.views.read().get(&view) != Some(&epoch) {
                    self.views.write().insert(view, epoch);
                }
                u64::from(view) << INODE_BITS | inode
            }
        }
    }

    /// ESTALE for a number whose view is not known.
    pub(super) fn node(&self, number: u64) -> Result<Node> {
        if number == ROOT {
            return Ok(Node::Root);
        }
        let inode = number & ((1 << INODE_BITS) - 1);
        match (number >> INODE_BITS) as ViewNo {
            0 => Ok(Node::In { inode, moment: Moment::Live }),
            view => match self.views.read().get(&view) {
                Some(epoch) => Ok(Node::In { inode, moment: Moment::At(*epoch) }),
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
        for moment in [Moment::Live, Moment::At(1), Moment::At((1 << 24) + 5)] {
            let number = numbers.number(77, moment);
            assert_eq!(numbers.node(number).unwrap(), Node::In { inode: 77, moment });
        }
        assert_eq!(numbers.node(ROOT).unwrap(), Node::Root);
        assert!(numbers.node(9 << INODE_BITS | 2).is_err());
    }
}
