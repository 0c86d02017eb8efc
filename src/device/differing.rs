//! Which tracks of a file differ from those of another one, told by their pointers.

use super::DirtyTracks;
use super::past::{InodeAt, TrackNo, expect_track, track_key};
use super::tracks::Tracks;
use crate::error::Result;
use crate::meta::Table;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// Tracks of each file that are looked at in one go.
const LOOK: usize = 2048;

/// A piece of a search for tracks that differ.
#[derive(Debug, PartialEq, Eq)]
pub struct Differing {
    /// In order.
    pub tracks: Vec<TrackNo>,
    /// Where to look on; `None` at the end of both files.
    pub next: Option<TrackNo>,
}

/// Tracks with their pointers as stored, and the first track that was not looked at.
type Pointers = (Vec<(TrackNo, Vec<u8>)>, Option<TrackNo>);

impl Tracks<'_> {
    /// Tracks of a file at a moment, from `from` on and up to `most`, whose pointers are not those of another one,
    /// or that only one of them has. What is in memory counts as different.
    pub fn differing_tracks(self, file: InodeAt, other: InodeAt, from: TrackNo, most: usize) -> Result<Differing> {
        let (now, now_end) = self.pointers(file, from)?;
        let (then, then_end) = self.pointers(other, from)?;
        let end = now_end.into_iter().chain(then_end).min();
        let is_seen = |track: TrackNo| end.is_none_or(|end| track < end);
        let live = [file, other].into_iter().filter(|of| of.is_live());
        let in_memory = live.flat_map(|InodeAt { inode, .. }| {
            let of_file = move |tracks| DirtyTracks::range(tracks, (inode, from)..=(inode, TrackNo::MAX));
            let tracks = [&self.state.dirty, &self.state.flushing].into_iter().flat_map(of_file);
            tracks.map(|((_, track), _)| *track).filter(|track| is_seen(*track))
        });
        let mut differing: BTreeSet<TrackNo> = in_memory.collect();
        let (mut now, mut then) = (now.into_iter().peekable(), then.into_iter().peekable());
        loop {
            let track = match (now.peek(), then.peek()) {
                (Some((a, _)), Some((b, _))) => *a.min(b),
                (Some((track, _)), None) | (None, Some((track, _))) => *track,
                (None, None) => break,
            };
            if !is_seen(track) {
                break;
            }
            if now.next_if(|(at, _)| *at == track) != then.next_if(|(at, _)| *at == track) {
                differing.insert(track);
            }
        }
        let mut tracks: Vec<TrackNo> = differing.into_iter().collect();
        match tracks.get(most) {
            Some(&next) => {
                tracks.truncate(most);
                Ok(Differing { tracks, next: Some(next) })
            }
            None => Ok(Differing { tracks, next: end }),
        }
    }

    fn pointers(self, at: InodeAt, from: TrackNo) -> Result<Pointers> {
        let mut found = Vec::new();
        let mut end = None;
        let to = track_key(at.inode, TrackNo::MAX);
        self.state.scan(Table::Track, &track_key(at.inode, from), &to, at.moment, |key, pointer| {
            let (_, track) = expect_track(key)?;
            if found.len() == LOOK {
                end = Some(track);
                return Ok(ControlFlow::Break(()));
            }
            found.push((track, pointer.to_vec()));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((found, end))
    }
}
