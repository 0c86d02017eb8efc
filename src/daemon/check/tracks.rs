//! Tracks: every location's bytes, its room in its segment, its holders and its owner in the summary.

use super::volume::VOLUME;
use super::{Check, Paths};
use crate::clock::Epoch;
use crate::device::{InodeNo, Moment, Pointer, TrackNo, split_preimage, split_record, split_track_key};
use crate::error::Result;
use crate::limits::{SEGMENT_BLOCKS, SEGMENTS_MAX};
use crate::logstore::{Descriptor, Holders, Location};
use crate::meta::{Pair, Table, decode, hex};
use crate::tree::{Inode, Kind};
use crate::view::LIVE_NAME;
use std::collections::{HashMap, HashSet};

/// What is known of one segment.
struct Segment {
    descriptor: Descriptor,
    /// First block and checksum of each valid entry of the summary.
    entries: HashSet<(u16, u64)>,
    /// Blocks that records refer to.
    used: Vec<bool>,
}

/// A record that names locations.
struct Record {
    table: Table,
    key: Vec<u8>,
    value: Vec<u8>,
    inode: InodeNo,
    track: TrackNo,
}

#[derive(Default)]
pub(super) struct Known {
    segments: HashMap<u64, Segment>,
    /// Which segment has each physical one.
    pub(super) places: HashMap<u32, u64>,
    /// Who holds each location.
    holders: HashMap<(u64, u16), Holders>,
    /// What the first of them says of it.
    said: HashMap<(u64, u16), Location>,
    /// What is wrong with the bytes at a location, for all that hold it.
    damaged: HashMap<(u64, u16), String>,
}

/// Whether a record says that there is nothing: it has a birth only.
pub(super) fn is_tombstone(value: &[u8]) -> bool {
    split_record(Table::State, &[], value).is_ok_and(|(_, value)| value.is_empty())
}

impl Check<'_> {
    pub(super) fn tracks(&mut self) -> Result<()> {
        let mut known = Known::default();
        let has_all_segments = self.wholly(|check| {
            check.each(Table::Segment, |check, (key, value)| check.segment(&mut known, &key, &value))
        })?;
        self.volume(&known, has_all_segments)?;
        let mut last = None;
        self.each(Table::Track, |check, pair| {
            let Some((inode, track)) = split_track_key(&pair.0) else {
                let text = format!("record {} of table track: its key makes no sense", hex(&pair.0));
                check.unreadable(text, Paths::default());
                return Ok(());
            };
            if !is_tombstone(&pair.1) {
                let before = last.replace((inode, track));
                before.filter(|(before, _)| *before != inode).into_iter().for_each(|last| check.is_in_file(last));
            }
            check.born(Table::Track, &pair.0, &pair.1);
            check.track_record(&mut known, Table::Track, pair, inode, track, None)
        })?;
        last.into_iter().for_each(|last| self.is_in_file(last));
        self.each(Table::Preimage, |check, pair| {
            let (table, key, end) = match split_preimage(&pair.0) {
                Ok(parts) => parts,
                Err(error) => {
                    check.unreadable(error.to_string(), Paths::default());
                    return Ok(());
                }
            };
            match (table, split_track_key(&key)) {
                (Table::Track, Some((inode, track))) => {
                    check.track_record(&mut known, Table::Preimage, pair, inode, track, Some(end))
                }
                (Table::Track, None) => {
                    let text = format!("the old value {} of a track: its key makes no sense", hex(&pair.0));
                    check.unreadable(text, Paths::default());
                    Ok(())
                }
                _ => Ok(()),
            }
        })?;
        self.holders(&known)?;
        self.room(&known);
        Ok(())
    }

    /// The last track of an inode: whether its file is as long as that. Of what a base shows from elsewhere, records of its
    /// own say nothing yet.
    fn is_in_file(&mut self, (inode, track): (InodeNo, TrackNo)) {
        let key = inode.prefix();
        // What cannot be read is named elsewhere.
        let Ok(found) = self.meta.get_raw(Table::Inode, &key) else { return };
        let record = found.as_deref().map(|found| split_record(Table::Inode, &key, found));
        let start = track.start(self.daemon.views.tree().device().track_bytes());
        let problem = match record {
            _ if !self.is_whole(inode.base()) => return,
            None | Some(Ok((_, []))) => format!("there is no such inode, and it has track {track}"),
            Some(Err(_)) => return,
            Some(Ok((_, record))) => match decode::<Inode>(Table::Inode, &key, record) {
                Ok(inode) if inode.kind() != Kind::File => format!("it is no file, and has track {track}"),
                Ok(inode) if inode.size <= start => {
                    format!("it is {} bytes long, and has track {track}, which begins at {start}", inode.size)
                }
                _ => return,
            },
        };
        if self.is_now(&key, found.as_deref()) {
            let paths = self.paths_now(inode);
            self.problem(format!("inode {}: {problem}", inode.number()), paths);
        }
    }

    /// Whether the record of an inode is still this, or still missing.
    fn is_now(&self, key: &[u8], value: Option<&[u8]>) -> bool {
        let look = self.daemon.views.tree().device().look();
        look.is_ok_and(|look| look.meta().get_raw(Table::Inode, key).is_ok_and(|now| now.as_deref() == value))
    }

    fn segment(&mut self, known: &mut Known, key: &[u8], value: &[u8]) -> Result<()> {
        let id = <[u8; 8]>::try_from(key).ok().map(u64::from_be_bytes);
        let Some(id) = id.filter(|id| *id < SEGMENTS_MAX) else {
            self.unreadable(format!("record {} of table segment: its key makes no sense", hex(key)), Paths::default());
            return Ok(());
        };
        let descriptor: Descriptor = match decode(Table::Segment, key, value) {
            Ok(descriptor) => descriptor,
            Err(error) => {
                self.unreadable(error.to_string(), Paths::default());
                return Ok(());
            }
        };
        let entries = match self.daemon.views.tree().device().log().summary(id, &descriptor) {
            Ok(entries) => entries.iter().map(|entry| (entry.block, entry.check)).collect(),
            Err(error) => {
                self.say(error.to_string());
                HashSet::new()
            }
        };
        for member in descriptor.members.iter().filter(|member| member.volume != VOLUME) {
            self.say(format!("segment {id} is said to lie in volume {}, which is not there", member.volume));
        }
        for pseg in descriptor.members.iter().flat_map(|member| &member.psegs) {
            if let Some(other) = known.places.insert(*pseg, id) {
                self.say(format!("segments {other} and {id} are both said to lie at {pseg}"));
            }
        }
        let mut used = vec![false; SEGMENT_BLOCKS];
        for &block in &descriptor.summary {
            if let Some(used) = used.get_mut(usize::from(block)) {
                *used = true;
            }
        }
        known.segments.insert(id, Segment { descriptor, entries, used });
        Ok(())
    }

    fn track_record(
        &mut self,
        known: &mut Known,
        table: Table,
        pair: Pair,
        inode: InodeNo,
        track: TrackNo,
        end: Option<Epoch>,
    ) -> Result<()> {
        let (key, value) = pair;
        if is_tombstone(&value) {
            return Ok(());
        }
        let decoded = split_record(table, &key, &value)
            .and_then(|(birth, record)| Ok((birth, decode::<Pointer>(Table::Track, &key, record)?)));
        let (birth, pointer) = match decoded {
            Ok(decoded) => decoded,
            Err(error) => {
                let paths = self.paths(inode, Epoch::ZERO, end);
                self.unreadable(error.to_string(), paths);
                return Ok(());
            }
        };
        self.report.tracks += 1;
        let record = Record { table, key, value, inode, track };
        for location in pointer.locations() {
            if let Some(problem) = self.location(known, &record, location)
                && self.is_current(record.table, &record.key, &record.value)
            {
                let mut paths = self.paths(inode, birth, end);
                self.add_paths_through(&mut paths, inode, track, location);
                self.problem(format!("inode {} track {track}: {problem}", inode.number()), paths);
            }
        }
        if pointer.held() as u64 > self.daemon.views.tree().device().track_bytes() {
            let paths = self.paths(inode, birth, end);
            let text = format!("inode {} track {track}: it is said to hold {} bytes", inode.number(), pointer.held());
            self.problem(text, paths);
        }
        Ok(())
    }

    /// Adds where other bases show a location of this track, which have no record of it of their own yet.
    fn add_paths_through(&self, paths: &mut Paths, inode: InodeNo, track: TrackNo, location: &Location) {
        let Ok(look) = self.daemon.views.tree().device().look() else { return };
        let mut shown = Vec::new();
        for (base, _) in look.bases().filter(|(base, record)| *base != inode.base() && !record.eras.is_empty()) {
            let inode = inode.in_base(base);
            let has = |moment| {
                let found = look.pointer(inode, track, moment).ok().flatten();
                found.is_some_and(|(pointer, _)| pointer.locations().any(|one| one == location))
            };
            let own = self.snapshots.iter().filter(|snapshot| snapshot.base == base && !snapshot.is_archived);
            let views = own.map(|snapshot| (snapshot.record.name.as_str(), Moment::At(snapshot.epoch)));
            let views = std::iter::once((LIVE_NAME, Moment::Live)).chain(views);
            shown.extend(views.filter(|(_, moment)| has(*moment)).map(|(name, moment)| (inode, name, moment)));
        }
        drop(look);
        shown.into_iter().for_each(|(inode, name, moment)| self.add_paths(paths, inode, name, moment, b""));
    }

    /// What is wrong with one location.
    fn location(&mut self, known: &mut Known, record: &Record, location: &Location) -> Option<String> {
        let place = format!("segment {} block {}", location.segment, location.block);
        let Some(segment) = known.segments.get_mut(&location.segment) else {
            self.is_partial = true;
            return Some(format!("it is said to lie in {place}, and that segment does not exist or cannot be read"));
        };
        let range = usize::from(location.block)..usize::from(location.block) + location.blocks();
        let holders = known.holders.entry((location.segment, location.block)).or_default();
        match record.table {
            Table::Track => holders.live += 1,
            _ => holders.log += 1,
        }
        if *known.said.entry((location.segment, location.block)).or_insert(*location) != *location {
            return Some(format!("of what lies at {place} it says another thing than another track that shares it"));
        }
        if holders.all() > 1 {
            // The bytes were read with the first holder.
            return known.damaged.get(&(location.segment, location.block)).cloned();
        }
        let used = &mut segment.used[range.clone()];
        if used.iter().any(|used| *used) {
            self.is_partial = true;
            return Some(format!("its blocks at {place} belong to another track as well"));
        }
        used.fill(true);
        let is_taken = range.clone().all(|block| segment.descriptor.is_taken(block as u16));
        let is_summarized = segment.entries.contains(&(location.block, location.check));
        let device = self.daemon.views.tree().device();
        let read = device.log().placed(&self.meta, *location).and_then(|placed| device.log().read(&placed));
        self.report.read_bytes += u64::from(location.stored);
        match read {
            Err(error) => {
                known.damaged.insert((location.segment, location.block), error.to_string());
                Some(error.to_string())
            }
            Ok(_) if !is_taken => Some(format!("its blocks at {place} are not marked as taken")),
            Ok(_) if !is_summarized => Some(format!(
                "the summary of segment {} does not name it (inode {}, track {})",
                location.segment,
                record.inode.number(),
                record.track
            )),
            Ok(_) => None,
        }
    }

    /// The counts of shared locations.
    fn holders(&mut self, known: &Known) -> Result<()> {
        let mut counted = HashMap::new();
        self.each(Table::Shared, |check, (key, value)| {
            let holders: Holders = match decode(Table::Shared, &key, &value) {
                Ok(holders) => holders,
                Err(error) => {
                    check.unreadable(error.to_string(), Paths::default());
                    return Ok(());
                }
            };
            match key.split_first_chunk::<8>().map(|(segment, block)| (segment, block.try_into())) {
                Some((segment, Ok(block))) => {
                    counted.insert((u64::from_be_bytes(*segment), u16::from_be_bytes(block)), holders);
                }
                _ => check.say(format!("record {} of table shared: its key is no place", hex(&key))),
            }
            Ok(())
        })?;
        let shared = known.holders.iter().filter(|(_, holders)| holders.all() > 1).map(|(place, _)| place);
        let places: HashSet<(u64, u16)> = counted.keys().chain(shared).copied().collect();
        let has_lost_records = self.is_partial;
        for place in places {
            let found = known.holders.get(&place).copied().unwrap_or_default();
            let said = counted.get(&place).copied().unwrap_or_default();
            // With unreadable records the count is too low for a reason that was reported already.
            if said != found && !(has_lost_records && found.all() < said.all()) {
                let (segment, block) = place;
                self.say(format!(
                    "the track at segment {segment} block {block} is said to have {} holders in live and {} in \
                     the log, and has {} and {}",
                    said.live, said.log, found.live, found.log
                ));
            }
        }
        Ok(())
    }

    /// The block maps.
    fn room(&mut self, known: &Known) {
        if self.is_partial {
            // Blocks of records that cannot be read would be taken for lost ones.
            return;
        }
        let mut ids: Vec<&u64> = known.segments.keys().collect();
        ids.sort_unstable();
        for id in ids {
            let segment = &known.segments[id];
            let lost = (0..SEGMENT_BLOCKS)
                .filter(|&block| segment.descriptor.is_taken(block as u16) && !segment.used[block])
                .count();
            if lost > 0 {
                self.say(format!("segment {id}: {lost} blocks are marked as taken and belong to nothing"));
            }
        }
    }
}
