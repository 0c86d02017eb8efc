//! The past of a store: records with a memory, of bases that snapshots were taken of. It knows keys and values, and nothing of what
//! they are: neither tracks nor where their bytes lie, nor who shares them.

mod archived;
mod base;
pub(in crate::device) mod check;
mod increments;
mod names;
mod number;
mod record;
mod rules;
mod scan;
mod shown;
mod snapshot;
#[cfg(test)]
mod tests;
mod timeline;
mod walk;
mod work;

pub use base::{
    ArchiveRecord, BaseRecord, BaseReserve, Counts, Era, MirrorRecord, Point, Same, SnapshotRef, last_save_key,
};
pub(in crate::device) use base::{Base, Bases, counts_key, offline_key, or_damage, reserve_key};
pub use increments::{Increments, Named, Then, TracksFrom};
pub use names::{LIVE_NAME, is_virtual_name};
pub use number::{BaseId, InodeNo, LIVE, TrackKey, TrackNo};
pub(in crate::device) use record::{
    encode_record, expect_track, increment_key, key_in, keys_of, preimage_key, rest_of, split_tombstone, with_birth,
};
pub use record::{split_increment, split_preimage, split_record, split_track_key, track_key};
pub use rules::Moment;
pub(in crate::device) use rules::Old;
pub use shown::Shown;
pub use snapshot::{HOLD_TAG, SnapOptions, Snapshot, SnapshotRecord, SnapshotState};
pub(in crate::device) use snapshot::{epoch_after, name_key, snapshot_key, split_snapshot_key};
pub use timeline::{Span, Timeline, Value};
pub(in crate::device) use walk::InodeWalk;
pub use walk::{Settle, Walk};
pub(in crate::device) use work::{
    BASE, INODE, INODE_WALK, SEPARATE, SETTLE, SNAPSHOT, SWEEP, WALKED, work_epoch, work_key, work_number, work_range,
};

use crate::clock::Epoch;
use crate::meta::Meta;

/// Under which the epoch is stored.
pub(in crate::device) const HISTORY: &[u8] = b"history";

/// Records of all bases, at all moments.
pub struct Past {
    pub(in crate::device) meta: Meta,
    /// Counts the snapshots of all bases.
    pub(in crate::device) epoch: Epoch,
    pub(in crate::device) bases: Bases,
    /// What the operation under way lets come into view, or go.
    pub(in crate::device) shown: Vec<Shown>,
}

impl Past {
    /// Of a store whose bases are yet to be taken up.
    pub(in crate::device) fn new(meta: Meta, epoch: Epoch) -> Past {
        Past { meta, epoch, bases: Bases::new(), shown: Vec::new() }
    }

    /// The open transaction, for reading tables that have no history.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }
}
