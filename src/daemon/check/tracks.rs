//! Tracks: every location's bytes, its room in its segment, its holders and its owner in the summary.

use super::{Check, Paths, epochs};
use crate::clock::Epoch;
use crate::device::check::{TrackOf, TrackSays, is_tombstone, leads_to, old_track_of, others_with_eras, track_of};
use crate::device::{InodeNo, Moment, TrackNo};
use crate::error::Result;
use crate::logstore::Location;
use crate::logstore::check::Claims;
use crate::meta::{Pair, Table};
use crate::tree::check::track_problem;
use crate::view::LIVE_NAME;

pub(super) fn all(check: &mut Check<'_>) -> Result<()> {
    let mut claims = Claims::default();
    let log = check.daemon.views.tree().device().log();
    let has_all_segments = check.wholly(|check| {
        check.each(Table::Segment, |check, (key, value)| {
            let looked = claims.segment(log, (&key, &value), |problem| check.say(problem));
            looked.unwrap_or_else(|problem| check.unreadable(problem, Paths::default()));
            Ok(())
        })
    })?;
    volume(check, &mut claims, has_all_segments)?;
    let mut last = None;
    check.each(Table::Track, |check, pair| {
        let of = match track_of(&pair.0) {
            Ok(of) => of,
            Err(problem) => {
                check.unreadable(problem, Paths::default());
                return Ok(());
            }
        };
        if !is_tombstone(&pair.1) {
            let before = last.replace((of.inode, of.track));
            before.filter(|(before, _)| *before != of.inode).into_iter().for_each(|last| is_in_file(check, last));
        }
        epochs::born(check, Table::Track, &pair.0, &pair.1);
        track_record(check, &mut claims, Table::Track, pair, of);
        Ok(())
    })?;
    last.into_iter().for_each(|last| is_in_file(check, last));
    check.each(Table::Preimage, |check, pair| {
        match old_track_of(&pair.0) {
            Ok(Some(of)) => track_record(check, &mut claims, Table::Preimage, pair, of),
            Ok(None) => {}
            Err(problem) => check.unreadable(problem, Paths::default()),
        }
        Ok(())
    })?;
    check.each(Table::Shared, |check, (key, value)| {
        let looked = claims.count(&key, &value, |problem| check.say(problem));
        looked.unwrap_or_else(|problem| check.unreadable(problem, Paths::default()));
        Ok(())
    })?;
    claims.miscounted(check.is_partial).for_each(|problem| check.say(problem));
    // Blocks of records that cannot be read would be taken for lost ones.
    if !check.is_partial {
        claims.lost_blocks().for_each(|problem| check.say(problem));
    }
    Ok(())
}

/// Room of the volume: what its map has as taken is where segments lie, and nothing else.
fn volume(check: &mut Check<'_>, claims: &mut Claims, has_all_segments: bool) -> Result<()> {
    check.each(Table::Volume, |check, (key, value)| {
        claims.map_of_room(&key, &value).into_iter().for_each(|problem| check.say(problem));
        Ok(())
    })?;
    claims.misplaced().for_each(|problem| check.say(problem));
    if has_all_segments {
        claims.lost_room().for_each(|problem| check.say(problem));
    }
    Ok(())
}

/// The last track of an inode: whether its file is as long as that. Of what a base shows from elsewhere, records of its
/// own say nothing yet.
fn is_in_file(check: &mut Check<'_>, (inode, track): (InodeNo, TrackNo)) {
    let key = inode.prefix();
    // What cannot be read is named elsewhere.
    let Ok(found) = check.meta.get_raw(Table::Inode, &key) else { return };
    let track_bytes = check.daemon.views.tree().device().track_bytes();
    if check.bases.is_whole(inode.base())
        && let Some(problem) = track_problem(inode, found.as_deref(), track, track_bytes)
        && check.is_now(Table::Inode, &key, found.as_deref())
    {
        let paths = check.paths_now(inode);
        check.problem(format!("inode {}: {problem}", inode.number()), paths);
    }
}

fn track_record(check: &mut Check<'_>, claims: &mut Claims, table: Table, (key, value): Pair, of: TrackOf) {
    let TrackOf { inode, track, end } = of;
    let says = match TrackSays::of(table, &key, &value) {
        Ok(Some(says)) => says,
        Ok(None) => return,
        Err(error) => {
            let paths = check.paths(inode, Epoch::ZERO, end);
            return check.unreadable(error.to_string(), paths);
        }
    };
    check.report.tracks += 1;
    let device = check.daemon.views.tree().device();
    for location in says.locations() {
        let whose = format_args!("inode {}, track {track}", inode.number());
        let claimed = claims.location((device.log(), &check.meta), location, says.holder, whose);
        check.report.read_bytes += claimed.read_bytes;
        check.is_partial |= claimed.is_unplaced;
        if let Some(problem) = claimed.problem
            && check.is_current(table, &key, &value)
        {
            let mut paths = check.paths(inode, says.birth, end);
            add_paths_through(check, &mut paths, (inode, track), location);
            check.problem(format!("inode {} track {track}: {problem}", inode.number()), paths);
        }
    }
    if let Some(problem) = says.problem(device.track_bytes()) {
        let paths = check.paths(inode, says.birth, end);
        check.problem(format!("inode {} track {track}: {problem}", inode.number()), paths);
    }
}

/// Adds where other bases show a location of this track, which have no record of it of their own yet.
fn add_paths_through(check: &Check<'_>, paths: &mut Paths, (inode, track): (InodeNo, TrackNo), location: &Location) {
    let Ok(look) = check.daemon.views.tree().device().look() else { return };
    let mut shown = Vec::new();
    for base in others_with_eras(&look, inode.base()) {
        let inode = inode.in_base(base);
        let own = check.snapshots.iter().filter(|snapshot| snapshot.base == base && !snapshot.is_archived);
        let views = own.map(|snapshot| (snapshot.record.name.as_str(), Moment::At(snapshot.epoch)));
        let views = std::iter::once((LIVE_NAME, Moment::Live)).chain(views);
        let views = views.map(|(name, moment)| (name, inode.at(moment)));
        shown.extend(views.filter(|(_, at)| leads_to(&look, *at, track, location)));
    }
    drop(look);
    shown.into_iter().for_each(|(name, at)| check.add_paths(paths, at, name, b""));
}
