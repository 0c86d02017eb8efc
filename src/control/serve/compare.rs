//! What differs between moments, and what was done when.

use crate::control::{Answer, ByteRange, DifferenceInfo, FileTracksInfo, HistoryInfo, TracksInfo, VersionInfo};
use crate::device::TrackNo;
use crate::error::{Errno, Error, Result};
use crate::tree::ChangedTracks;
use crate::view::Views;
use serde_bytes::ByteBuf;

pub(super) fn history(views: &Views) -> Result<Vec<HistoryInfo>> {
    let entries = views.history()?;
    let look = views.tree().device().look()?;
    let name = |base| look.base_record(base).ok().map(|record| record.name.clone());
    Ok(entries
        .into_iter()
        .map(|entry| {
            let base = name(entry.base);
            HistoryInfo::new(entry, base)
        })
        .collect())
}

pub(super) fn versions(views: &Views, path: &[u8]) -> Result<Vec<VersionInfo>> {
    views.fetched()?;
    let all = views.tree().comparison().versions(views.base(), path)?;
    Ok(all.into_iter().map(VersionInfo::from).collect())
}

pub(super) fn diff(views: &Views, before: &[u8], after: &[u8]) -> Result<Vec<DifferenceInfo>> {
    let (before, after) = (views.view(before)?, views.view(after)?);
    if before.base != after.base {
        let text = "only states of one base can be compared".into();
        return Err(Error::Refused(Errno::INVAL, text));
    }
    let found = views.tree().comparison().diff(before.base, before.moment, after.moment)?;
    Ok(found.into_iter().map(DifferenceInfo::from).collect())
}

pub(super) fn tracks(
    views: &Views,
    before: &[u8],
    after: Option<ByteBuf>,
    path: Option<ByteBuf>,
    range: Option<ByteRange>,
) -> Result<Answer> {
    let tree = views.tree();
    let path = path.as_ref().map(|path| path.as_slice());
    let found = match after {
        None => {
            views.fetched()?;
            tree.track_changes().session_bits(views.base(), views.expect(before)?.epoch, path)?
        }
        Some(after) => {
            let (before, after) = (views.moment(before)?, views.moment(&after)?);
            tree.track_changes().changed_tracks(views.base(), before, after, path)?
        }
    };
    Ok(tracks_answer(views, found, range))
}

/// Tracks in, or partly in, a range of bytes.
pub(super) fn tracks_answer(views: &Views, mut found: Vec<ChangedTracks>, range: Option<ByteRange>) -> Answer {
    let track_bytes = views.tree().device().track_bytes();
    if let Some((from, to)) = range {
        let (first, end) = (TrackNo::of(from, track_bytes), TrackNo::behind(to, track_bytes));
        for file in &mut found {
            let within = |tracks: &std::ops::Range<TrackNo>| tracks.start.max(first)..tracks.end.min(end);
            file.tracks = file.tracks.iter().map(within).filter(|tracks| !tracks.is_empty()).collect();
        }
        found.retain(|file| !file.tracks.is_empty());
    }
    Answer::Tracks(TracksInfo { track_bytes, files: found.into_iter().map(FileTracksInfo::from).collect() })
}
