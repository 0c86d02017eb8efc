//! Tracks that came into being, those in memory among them.

use super::past::{BaseId, InodeAt, InodeNo, TrackKey, TrackNo, expect_track, keys_of, track_key};
use super::tracks::Tracks;
use crate::clock::Epoch;
use crate::error::Result;
use crate::meta::Table;
use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};

/// Records looked at in one go.
const PIECE: usize = 4096;

impl Tracks<'_> {
    /// Tracks of a range that a file has at a moment and that were born after an epoch, among a piece of those
    /// that it has; and where to go on. What is in memory counts as born now.
    pub fn tracks_born(
        self,
        at: InodeAt,
        range: Range<TrackNo>,
        after: Epoch,
    ) -> Result<(Vec<TrackNo>, Option<TrackNo>)> {
        let (from, to) = (track_key(at.inode, range.start), track_key(at.inode, range.end));
        let mut born = Vec::new();
        let mut next = None;
        let mut count = 0;
        self.state.records(Table::Track, &from, &to, at.moment, |key, birth, _| {
            let (_, track) = expect_track(key)?;
            if count == PIECE {
                next = Some(track);
                return Ok(ControlFlow::Break(()));
            }
            count += 1;
            if birth > after {
                born.push(track);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if at.is_live() {
            let end = next.unwrap_or(range.end);
            born.extend(self.in_memory((at.inode, range.start)..(at.inode, end)).map(|(_, track)| track));
            born.sort_unstable();
            born.dedup();
        }
        Ok((born, next))
    }

    /// The tracks of a base that were written and have no place on the media yet.
    pub fn tracks_in_memory(self, base: BaseId) -> BTreeSet<(InodeNo, TrackNo)> {
        self.in_memory(keys_of(base)).collect()
    }

    /// Whether some of a file was written and has no place on the media yet.
    pub fn has_tracks_in_memory(self, inode: InodeNo) -> bool {
        self.in_memory((inode, TrackNo::FIRST)..(inode, TrackNo::MAX)).next().is_some()
    }

    fn in_memory(self, range: Range<TrackKey>) -> impl Iterator<Item = TrackKey> {
        let keys = |tracks: &super::DirtyTracks| match range.is_empty() {
            true => Vec::new(),
            false => tracks.range(range.clone()).map(|(key, _)| *key).collect(),
        };
        [keys(&self.state.dirty), keys(&self.state.flushing)].into_iter().flatten()
    }
}
