//! Content shared, track by track.

use super::Likeness;
use super::{Likened, OnStep, SEARCH_TRACKS, STEP_TRACKS};
use crate::clock::Timestamp;
use crate::device::{Differing, InodeAt, InodeNo, Moment, Note, TrackNo, Txn};
use crate::error::{Error, Result};
use crate::tree::copy::{Shared, share_track};
use crate::tree::disarm::{Rights, disarm};
use crate::tree::inode::{self, Inode};

impl Likeness<'_> {
    /// Shares what differs, from the beginning of the file to its end.
    pub(super) fn share_content(
        self,
        number: InodeNo,
        model: InodeAt,
        on_step: OnStep<'_>,
        likened: &mut Likened,
    ) -> Result<()> {
        let mut from = self.share_changed(number, model, on_step, likened)?;
        while let Some(next) = self.share_step(number, model, from, likened)? {
            on_step(next.start(self.tree.device.track_bytes()))?;
            from = next;
        }
        Ok(())
    }

    /// Shares what increments name, if these can tell all that differs: of a large file without holes that is the same
    /// inode. Up to which track all is alike then.
    pub(super) fn share_changed(
        self,
        number: InodeNo,
        like: InodeAt,
        on_step: OnStep<'_>,
        likened: &mut Likened,
    ) -> Result<TrackNo> {
        let Moment::At(since) = like.moment else { return Ok(TrackNo::FIRST) };
        let model = self.tree.inode(like)?;
        let track_bytes = self.tree.device.track_bytes();
        let has_no_hole = model.tracks == model.size.div_ceil(track_bytes);
        if number != like.inode || model.tracks < SEARCH_TRACKS || !has_no_hole {
            return Ok(TrackNo::FIRST);
        }
        // What is in memory is named when it has a place.
        self.tree.device.committer()?.flush()?;
        let (base, now) = (number.base(), self.tree.device.look()?.epoch());
        let spans = self.tree.comparison().spans(base, since, now)?;
        if !spans.is_all || !self.tree.comparison().has_increments_since(base, since)? {
            return Ok(TrackNo::FIRST);
        }
        let mut done = 0;
        for (start, end) in spans.spans {
            let mut from = Some((start.next(), TrackNo::FIRST));
            while let Some(place) = from {
                let _file = self.tree.locks.lock(number);
                let (mut tracks, next) =
                    self.tree.device.look()?.chronicle().tracks_named(number, place, end, STEP_TRACKS)?;
                from = next;
                // What lies behind the end is left to those who set it.
                tracks.retain(|track| track.number() < model.tracks);
                self.share_tracks(number, like, &model, &tracks, likened)?;
                done += tracks.len() as u64;
                on_step((done * track_bytes).min(model.size))?;
            }
        }
        Ok(TrackNo::of(model.size, track_bytes))
    }

    /// Shares some tracks, in one transaction. The caller holds the file's lock.
    pub(super) fn share_tracks(
        self,
        number: InodeNo,
        like: InodeAt,
        model: &Inode,
        tracks: &[TrackNo],
        likened: &mut Likened,
    ) -> Result<()> {
        if tracks.is_empty() {
            return Ok(());
        }
        let mut txn = self.tree.device.begin_growing()?;
        txn.moments().check(like)?;
        let mut target = inode::load_file(&txn, number.live())?;
        if self.share_in(&mut txn, number, like, tracks, &mut target)? {
            let rights = Rights::of(&txn, like, model)?;
            likened.attributes |= disarm(&mut txn, number, &mut target, &rights)?;
            let end = tracks.iter().max().map_or(0, |last| last.next().start(self.tree.device.track_bytes()));
            target.size = target.size.max(model.size.min(end));
            inode::store(&mut txn, number, &target)?;
            txn.finish()?;
            likened.content = true;
        }
        Ok(())
    }

    /// Shares some tracks within a transaction; whether any differed.
    pub(super) fn share_in(
        self,
        txn: &mut Txn<'_>,
        number: InodeNo,
        like: InodeAt,
        tracks: &[TrackNo],
        target: &mut Inode,
    ) -> Result<bool> {
        let mut is_changed = false;
        for &track in tracks {
            let had_track = txn.tracks().has_track(number, track)?;
            match share_track(txn, (like, track), (number, track), had_track, target)? {
                Shared::Same => {}
                Shared::Changed => is_changed = true,
                Shared::Unstored => return Err(Error::Unshared),
            }
        }
        target.inline.clear();
        target.touch(Timestamp::now());
        // Nothing but a commit knows about shared tracks.
        txn.note(number, Note::NeedsCommit);
        Ok(is_changed)
    }

    /// One transaction's worth of sharing, from a track on; where to go on. The last step sets the size and the
    /// attributes as well.
    pub(super) fn share_step(
        self,
        number: InodeNo,
        like: InodeAt,
        from: TrackNo,
        likened: &mut Likened,
    ) -> Result<Option<TrackNo>> {
        let track_bytes = self.tree.device.track_bytes();
        // From looking to the end of the transaction nobody writes to the file.
        let _file = self.tree.locks.lock(number);
        let (model, Differing { tracks, next }) = {
            let look = self.tree.device.look()?;
            look.moments().check(like)?;
            let model = inode::load_file(&look, like)?;
            let target = inode::load_file(&look, number.live())?;
            let differing = look.tracks().differing_tracks(number.live(), like, from, STEP_TRACKS)?;
            // Whoever writes between two steps may have put something behind the end again: the size is set in
            // a step that has seen all from the end on.
            let end = TrackNo::of(if model.tracks == 0 { 0 } else { model.size }, track_bytes);
            let next = if differing.next.is_none() && from > end { Some(end) } else { differing.next };
            let is_same = (target.size, &target.inline) == (model.size, &model.inline);
            if differing.tracks.is_empty() && (next.is_some() || is_same) {
                return Ok(next);
            }
            (model, Differing { next, ..differing })
        };
        if next.is_some() {
            self.share_tracks(number, like, &model, &tracks, likened)?;
            return Ok(next);
        }
        let mut txn = self.tree.device.begin_growing()?;
        txn.moments().check(like)?;
        let mut target = inode::load_file(&txn, number.live())?;
        self.share_in(&mut txn, number, like, &tracks, &mut target)?;
        target.size = model.size;
        target.inline = model.inline.clone();
        // Its mode comes in the same step, its xattrs do not.
        let rights = Rights::of(&txn, like, &model)?;
        likened.attributes |= disarm(&mut txn, number, &mut target.clone(), &rights)?;
        let (attributes, times) = target.take_attributes(&model);
        inode::store(&mut txn, number, &target)?;
        txn.finish()?;
        likened.content = true;
        likened.attributes |= attributes;
        likened.times |= times;
        Ok(None)
    }
}
