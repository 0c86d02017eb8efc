//! Damage in a base that has a mirror, or in the mirror: the other one has the same bytes in another place.
//!
//! The two were the same in the snapshots that the mirror's record names, and a mirror in step still is that. A track
//! that was not written anew since is the same there; patches that were laid over it since go over the other as well.

use super::past::{InodeAt, MirrorRecord, Moment, TrackNo};
use super::pointer::Pointer;
use super::tracks::Tracks;
use crate::error::{Error, Result};

impl Tracks<'_> {
    /// Where else the bytes of a track lie that its base, or its mirror, has at a moment. Several, where a base has
    /// several mirrors.
    pub(super) fn twins(self, at: InodeAt, track: TrackNo) -> Result<Vec<Pointer>> {
        let base = at.inode.base();
        let mut twins = Vec::new();
        let Some(now) = self.stored_pointer(at, track)? else { return Ok(twins) };
        for (id, record) in self.state.bases() {
            let Some(MirrorRecord { of, same: Some(same), is_split }) = record.mirror else { continue };
            let (of_epoch, own) = same.epochs();
            // What is not settled yet shows the other's tracks.
            if id != base && of != base || !record.eras.is_empty() || !self.state.base_record(of)?.eras.is_empty() {
                continue;
            }
            let in_base_then = at.inode.in_base(of).at(Moment::At(of_epoch));
            let in_mirror_then = at.inode.in_base(id).at(if is_split { Moment::At(own) } else { Moment::Live });
            let (then, other) =
                if id == base { (in_mirror_then, in_base_then) } else { (in_base_then, in_mirror_then) };
            let Some(then) = self.stored_pointer(then, track)? else { continue };
            let Some(twin) = self.stored_pointer(other, track)? else { continue };
            twins.extend(now.over(&then, twin));
        }
        Ok(twins)
    }

    /// `None` where there is no track, or only an archive has it.
    fn stored_pointer(self, at: InodeAt, track: TrackNo) -> Result<Option<Pointer>> {
        match self.state.pointer(at, track) {
            Err(Error::Unshared) => Ok(None),
            found => Ok(found?.map(|(pointer, _)| pointer)),
        }
    }
}
