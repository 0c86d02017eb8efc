//! What a key was over time.
//!
//! All pre-images of a key are neighbours, so that the history of a key is one range of them, however many
//! snapshots lie between. It is told in spans: a value, and the epochs in which the read rule gives it. A base
//! as it is now counts as its current epoch, which no snapshot has yet.
//!
//! Epochs of which no snapshot is left get what the rule gives as well, which means nothing: spans are for
//! looking up what was there in snapshots that can be read. Times that only an archive holds follow the archive's
//! rule (`archived.rs`), which its index answers in the same way.

use super::Past;
use super::base::Era;
use super::moment::{InodeAt, Moment};
use super::number::{BaseId, InodeNo, TrackNo};
use super::record::{key_in, preimage_key, preimages_of, split_preimage, track_key};
use super::snapshot::Snapshot;
use crate::archive::Archive;
use crate::clock::Epoch;
use crate::error::Result;
use crate::meta::{Pair, Table, prefix_end};
use std::collections::BTreeSet;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

type Keys = BTreeSet<Vec<u8>>;

/// Records that one call walks at most.
const PIECE: usize = 4096;

/// A value of a key.
#[derive(Clone, Debug)]
pub struct Value {
    /// Without its birth.
    pub bytes: Vec<u8>,
    birth: Epoch,
    is_archived: bool,
}

impl Value {
    pub(super) fn of(past: &Past, table: Table, key: &[u8], bytes: &[u8], is_archived: bool) -> Result<Value> {
        let (birth, value) = past.split_record(table, key, bytes)?;
        Ok(Value { bytes: value.to_vec(), birth, is_archived })
    }

    /// Whether it is the same value of the same key. An archive names the bytes of a track in its own way: what was
    /// written in the same epoch is the same there, and what came back with a restore is not.
    pub fn is_same(&self, other: &Value) -> bool {
        self.bytes == other.bytes || (self.is_archived || other.is_archived) && self.birth == other.birth
    }
}

/// A value of a key, and when it was there.
#[derive(Clone, Debug)]
pub struct Span {
    pub epochs: Range<Epoch>,
    pub value: Value,
}

/// Which moments of a base can be seen: snapshots in the store, and times that only its archive holds.
pub struct Timeline {
    base: BaseId,
    /// Times that only the archive holds, oldest first.
    archived: Vec<Snapshot>,
    archive: Option<(Arc<Archive>, Epoch)>,
    /// Where moments of one kind begin and those of the other end; the first are in the archive.
    turns: Vec<Epoch>,
}

impl Timeline {
    /// A window of epochs in parts, and whether the archive has each.
    fn parts(&self, window: Range<Epoch>) -> Vec<(Range<Epoch>, bool)> {
        let mut parts = Vec::new();
        let mut start = window.start;
        for (i, turn) in self.turns.iter().chain([&Epoch::MAX]).enumerate() {
            let end = window.end.min(*turn);
            if start < end {
                parts.push((start..end, i < self.turns.len() && i % 2 == 0));
                start = end;
            }
        }
        parts
    }

    /// The first snapshot in a range of epochs that can be looked into.
    pub fn first(&self, past: &Past, epochs: Range<Epoch>) -> Result<Option<Snapshot>> {
        let archived = self.archived.get(self.archived.partition_point(|found| found.epoch < epochs.start));
        let archived = archived.filter(|found| found.epoch < epochs.end);
        let end = archived.map_or(epochs.end, |found| found.epoch);
        let mut after = epochs.start.before();
        loop {
            match past.moments().snapshot_after(self.base, after)?.filter(|found| found.epoch < end) {
                Some(found) if found.is_readable() => return Ok(Some(found)),
                Some(found) => after = found.epoch,
                None => return Ok(archived.cloned()),
            }
        }
    }

    /// The last snapshot in a range of epochs that can be looked into.
    pub fn last(&self, past: &Past, epochs: Range<Epoch>) -> Result<Option<Snapshot>> {
        let before = &self.archived[..self.archived.partition_point(|found| found.epoch < epochs.end)];
        let archived = before.last().filter(|found| found.epoch >= epochs.start);
        let start = archived.map_or(epochs.start, |found| found.epoch);
        let mut before = epochs.end;
        loop {
            match past.moments().snapshot_before(self.base, before)?.filter(|found| found.epoch >= start) {
                Some(found) if found.is_readable() => return Ok(Some(found)),
                Some(found) => before = found.epoch,
                None => return Ok(archived.cloned()),
            }
        }
    }

    /// Keys of an inode's records of which the archive has old values.
    pub fn archived_keys(&self, table: Table, inode: InodeNo) -> Result<BTreeSet<Vec<u8>>> {
        let Some((archive, _)) = &self.archive else { return Ok(BTreeSet::new()) };
        let prefix = preimages_of(table, inode);
        let all = archive.range(&prefix, &prefix_end(&prefix))?;
        all.map(|pair| pair.and_then(|(full, _)| Ok(split_preimage(&full)?.1))).collect()
    }
}

/// The spans of a key in one era, as far as they are known.
struct Spans {
    /// Records up to this epoch do not count.
    since: Epoch,
    /// What shines through where the base has nothing itself.
    source: Option<Value>,
    /// What is still to be told.
    rest: Range<Epoch>,
    spans: Vec<Span>,
}

impl Spans {
    /// Tells the epochs before `end` by the record that decides there.
    fn add(&mut self, value: Value, end: Epoch) {
        let end = end.min(self.rest.end);
        if value.birth > self.since && value.birth < end {
            self.shine_through(value.birth);
            self.push(value, end);
        } else {
            self.shine_through(end);
        }
    }

    /// Tells the epochs before `end`, in which the base has nothing itself.
    fn shine_through(&mut self, end: Epoch) {
        match self.source.clone() {
            Some(value) => self.push(value, end),
            None => self.rest.start = self.rest.start.max(end),
        }
    }

    fn push(&mut self, value: Value, end: Epoch) {
        let epochs = self.rest.start..end;
        self.rest.start = self.rest.start.max(end);
        // A record without a value is a tombstone.
        if !epochs.is_empty() && !value.bytes.is_empty() {
            self.spans.push(Span { epochs, value });
        }
    }
}

/// What keys were over time.
#[derive(Clone, Copy)]
pub struct Chronicle<'a> {
    pub(super) past: &'a Past,
}

impl Chronicle<'_> {
    /// Which moments of a base can be seen.
    pub fn timeline(self, base: BaseId) -> Result<Timeline> {
        let mut timeline = Timeline { base, archived: Vec::new(), archive: None, turns: Vec::new() };
        let Some(archive) = self.past.archive(base) else { return Ok(timeline) };
        for snapshot in
            self.past.moments().shown_after(base, Epoch::ZERO, usize::MAX)?.into_iter().filter(Snapshot::is_readable)
        {
            // The first kind is the archive's: with a store's snapshot first, it ends before it begins.
            if snapshot.is_archived != timeline.turns.len().is_multiple_of(2) {
                timeline.turns.push(snapshot.epoch);
            }
            if snapshot.is_archived {
                timeline.archived.push(snapshot);
            }
        }
        // What is behind the last of them is the store's.
        match timeline.archived.last() {
            Some(last) if timeline.turns.len().is_multiple_of(2) => timeline.turns.push(last.epoch.next()),
            Some(_) => {}
            None => timeline.turns.clear(),
        }
        timeline.archive = archive.tip().map(|tip| (archive, tip.epoch));
        Ok(timeline)
    }

    /// The values that a key had in a window of epochs, oldest first. In epochs between two spans there was none.
    pub fn spans(self, timeline: &Timeline, table: Table, key: &[u8], window: Range<Epoch>) -> Result<Vec<Span>> {
        if let Some(elsewhere) = &self.past.base(timeline.base)?.elsewhere {
            return elsewhere.spans(self.past, table, key, window);
        }
        let eras = &self.past.base(timeline.base)?.record.eras;
        let mut spans = Vec::new();
        let mut start = window.start;
        let mut era: Option<&Era> = None;
        for next in eras.iter().map(Some).chain([None]) {
            let end = next.map_or(window.end, |next| window.end.min(next.since.next()));
            if start < end {
                for (part, is_archived) in timeline.parts(start..end) {
                    let archive = timeline.archive.as_ref().filter(|_| is_archived);
                    spans.extend(self.spans_in(era, archive, table, key, part)?);
                }
                start = end;
            }
            era = next;
        }
        Ok(spans)
    }

    fn spans_in(
        self,
        era: Option<&Era>,
        archive: Option<&(Arc<Archive>, Epoch)>,
        table: Table,
        key: &[u8],
        window: Range<Epoch>,
    ) -> Result<Vec<Span>> {
        let from = preimage_key(table, key, window.start.next());
        let to = preimage_key(table, key, Epoch::MAX);
        let source = match era {
            Some(Era { source, .. }) => self.value_at(table, &key_in(source.base, key), Moment::At(source.epoch))?,
            None => None,
        };
        let mut all =
            Spans { since: era.map_or(Epoch::ZERO, |era| era.since), source, rest: window, spans: Vec::new() };
        let old: Box<dyn Iterator<Item = Result<Pair>>> = match archive {
            Some((archive, _)) => archive.range(&from, &to)?,
            None => Box::new(self.past.meta.range(Table::Preimage, &from, &to)?),
        };
        for pair in old {
            let (full, bytes) = pair?;
            // A longer key that starts with this one can lie in between.
            if full.len() == from.len() {
                all.add(Value::of(self.past, table, key, &bytes, archive.is_some())?, split_preimage(&full)?.2);
            }
            if all.rest.is_empty() {
                return Ok(all.spans);
            }
        }
        let end = all.rest.end;
        let last = archive.map_or(Moment::Live, |(_, tip)| Moment::At(*tip));
        match self.past.candidate(table, key, last)? {
            Some(found) => all.add(Value::of(self.past, table, key, &found.bytes, found.is_archived())?, end),
            None => all.shine_through(end),
        }
        Ok(all.spans)
    }

    fn value_at(self, table: Table, key: &[u8], moment: Moment) -> Result<Option<Value>> {
        let found = self.past.find(table, key, moment)?;
        found.map(|found| Value::of(self.past, table, key, &found.bytes, found.is_archived())).transpose()
    }

    /// What the record of a track says at a moment, to be compared.
    pub fn track_at(self, at: InodeAt, track: TrackNo) -> Result<Option<Value>> {
        self.value_at(Table::Track, &track_key(at.inode, track), at.moment)
    }

    /// Keys of an inode's records of which old values are kept, a piece of them from `cursor` on (empty: from
    /// the first), and where to go on.
    pub fn replaced_keys(self, table: Table, inode: InodeNo, cursor: &[u8]) -> Result<(Keys, Option<Vec<u8>>)> {
        if let Some(elsewhere) = &self.past.base(inode.base())?.elsewhere {
            return Ok((elsewhere.keys(table, &inode.prefix())?, None));
        }
        let prefix = preimages_of(table, inode);
        let from = prefix.as_slice().max(cursor);
        let mut keys = BTreeSet::new();
        for (count, pair) in self.past.meta.range(Table::Preimage, from, &prefix_end(&prefix))?.enumerate() {
            let (full, _) = pair?;
            if count == PIECE {
                return Ok((keys, Some(full)));
            }
            keys.insert(split_preimage(&full)?.1);
        }
        Ok((keys, None))
    }

    /// Keys of an inode's records that are there now, or shine through in an era that is not settled yet.
    pub fn present_keys(self, table: Table, inode: InodeNo) -> Result<BTreeSet<Vec<u8>>> {
        let prefix = inode.prefix();
        let base = BaseId::of_key(&prefix)?;
        let mut keys = BTreeSet::new();
        for pair in self.past.meta.range(table, &prefix, &prefix_end(&prefix))? {
            keys.insert(pair?.0);
        }
        for Era { source, .. } in &self.past.base(base)?.record.eras {
            let from = key_in(source.base, &prefix);
            self.past.scan(table, &from, &prefix_end(&from), Moment::At(source.epoch), |key, _| {
                keys.insert(key_in(base, key));
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(keys)
    }
}
