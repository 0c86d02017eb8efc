//! Damage in a base that has a mirror, or in the mirror: the other one has the same bytes in another place.
//!
//! The two were the same in the snapshots that the mirror's record names, and a mirror in step still is that. What a
//! record says today is the same there if it was not written since: it is the very record that was there then.

use super::tracks::track_key;
use super::{BaseId, InodeNo, MirrorRecord, Moment, State, TrackNo, base_of, in_base};
use crate::error::Result;
use crate::meta::Table;

impl State {
    /// The same track in the mirror of its base, or in the base of its mirror, at a moment when it had the same
    /// bytes, as stored. Several, where a base has several mirrors.
    pub(super) fn twins(&self, inode: InodeNo, track: TrackNo, moment: Moment) -> Result<Vec<(InodeNo, Moment)>> {
        let base = base_of(inode);
        let mut twins = Vec::new();
        for (id, record) in self.bases() {
            let Some(MirrorRecord { of, same: Some(same), is_split }) = record.mirror else { continue };
            let (of_epoch, own) = same.epochs();
            // What is not settled yet shows the other's tracks.
            if id != base && of != base || !record.eras.is_empty() || !self.base_record(of)?.eras.is_empty() {
                continue;
            }
            let in_base_then = (of, Moment::At(of_epoch));
            let in_mirror_then = (id, if is_split { Moment::At(own) } else { Moment::Live });
            let (mine, other) =
                if id == base { (in_mirror_then, in_base_then) } else { (in_base_then, in_mirror_then) };
            if self.is_same_record(inode, track, moment, mine)? {
                twins.push((in_base(other.0, inode), other.1));
            }
        }
        Ok(twins)
    }

    /// Whether a track is, as stored, what it was at another moment of its base.
    fn is_same_record(&self, inode: InodeNo, track: TrackNo, moment: Moment, then: (BaseId, Moment)) -> Result<bool> {
        if moment == then.1 {
            return Ok(true);
        }
        let key = track_key(inode, track);
        let find = |moment| -> Result<_> { Ok(self.find(Table::Track, &key, moment)?.map(|found| found.bytes)) };
        let now = find(moment)?;
        Ok(now.is_some() && now == find(then.1)?)
    }
}
