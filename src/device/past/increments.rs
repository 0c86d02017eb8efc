//! What changed after an epoch, up to another: increments name the records whose values ended, in the order of time and, within
//! an epoch, of tables and keys. One walk, of the store and of its archives, for all who ask.

use super::Past;
use super::number::{BaseId, InodeNo, TrackNo};
use super::record::{expect_track, increment_key, split_increment, split_track_key};
use super::timeline::Chronicle;
use crate::clock::Epoch;
use crate::error::Result;
use crate::meta::Table;

/// Where to go on in the tracks of a file: in this epoch, from this one on.
pub type TracksFrom = (Epoch, TrackNo);

/// A record of which a value ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    pub table: Table,
    /// The record's own.
    pub key: Vec<u8>,
    /// The epoch in which it ended; of what an increment in an archive names, the one that this leads to.
    pub end: Epoch,
}

impl Named {
    pub(super) fn of(full: &[u8]) -> Result<Named> {
        let (table, key, end) = split_increment(full)?;
        Ok(Named { table, key, end })
    }

    pub fn inode(&self) -> Option<InodeNo> {
        InodeNo::of_key(&self.key)
    }

    /// The track, if it is the record of one.
    pub fn track(&self) -> Option<TrackNo> {
        split_track_key(&self.key).filter(|_| self.table == Table::Track).map(|(_, track)| track)
    }
}

/// How a walk goes on after a record.
pub enum Then {
    GoOn,
    /// With the next epoch in which anything ended, in a step of its own.
    NextEpoch,
}

/// A walk in steps, between which the store may change.
#[derive(Debug)]
pub struct Increments {
    table: Table,
    base: BaseId,
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Increments {
    /// Over what ended after an epoch, up to another.
    pub fn between(base: BaseId, after: Epoch, to: Epoch) -> Increments {
        Increments::of(Table::Increment, base, after, to)
    }

    /// Over what came into being after an epoch, up to another, and went without that its value was kept.
    pub fn passed(base: BaseId, after: Epoch, to: Epoch) -> Increments {
        Increments::of(Table::Passed, base, after, to)
    }

    fn of(table: Table, base: BaseId, after: Epoch, to: Epoch) -> Increments {
        let key = |epoch: Epoch| increment_key(Table::State, &base.prefix(), epoch);
        Increments { table, base, from: key(after.next()), to: key(to.next()) }
    }

    /// The rest of the walk that had come to here, see [`Increments::cursor`].
    pub fn on_from(mut self, cursor: &[u8]) -> Increments {
        if self.from.as_slice() < cursor {
            self.from = cursor.to_vec();
        }
        self
    }

    /// Where to go on; `None` if all has been seen.
    pub fn cursor(&self) -> Option<&[u8]> {
        (self.from < self.to).then_some(&self.from[..])
    }

    /// All of the rest, under one look.
    pub fn all<'a>(&self, past: &'a Past) -> Result<impl Iterator<Item = Result<Named>> + 'a> {
        Ok(self.keys(past)?.map(|key| Named::of(&key?)))
    }

    /// The same as it is stored, whether it makes sense or not.
    pub fn keys<'a>(&self, past: &'a Past) -> Result<impl Iterator<Item = Result<Vec<u8>>> + use<'a>> {
        Ok(past.meta().range(self.table, &self.from, &self.to)?.map(|pair| Ok(pair?.0)))
    }

    /// The next records, `most` at most.
    pub fn step(&mut self, past: &Past, most: usize) -> Result<Vec<Named>> {
        let mut found = Vec::new();
        self.visit(past, most, &mut |named| {
            found.push(named);
            Ok(Then::GoOn)
        })?;
        Ok(found)
    }

    /// Visits the next records, `most` at most.
    pub fn visit(&mut self, past: &Past, most: usize, visit: &mut dyn FnMut(Named) -> Result<Then>) -> Result<()> {
        let mut next = self.to.clone();
        for (i, key) in self.keys(past)?.enumerate() {
            let key = key?;
            if i == most {
                next = key;
                break;
            }
            let named = Named::of(&key)?;
            let end = named.end;
            if let Then::NextEpoch = visit(named)? {
                next = increment_key(Table::State, &self.base.prefix(), end.next());
                break;
            }
        }
        self.from = next;
        Ok(())
    }
}

impl Chronicle<'_> {
    /// Tracks of a file, up to `most`, that increments up to an epoch name, from a place in them on; and where to look
    /// on, if there may be more. A track can come again.
    pub fn tracks_named(
        self,
        inode: InodeNo,
        (mut epoch, mut track): TracksFrom,
        to: Epoch,
        most: usize,
    ) -> Result<(Vec<TrackNo>, Option<TracksFrom>)> {
        let mut tracks = Vec::new();
        while epoch <= to {
            let key = |track: TrackNo| increment_key(Table::Track, &super::track_key(inode, track), epoch);
            let of_file =
                Increments { table: Table::Increment, base: inode.base(), from: key(track), to: key(TrackNo::MAX) };
            for named in of_file.all(self.past)? {
                let (_, track) = expect_track(&named?.key)?;
                if tracks.len() == most {
                    return Ok((tracks, Some((epoch, track))));
                }
                tracks.push(track);
            }
            // The next epoch in which anything changed.
            match Increments::between(inode.base(), epoch, to).all(self.past)?.next().transpose()? {
                Some(named) => (epoch, track) = (named.end, TrackNo::FIRST),
                None => break,
            }
        }
        Ok((tracks, None))
    }
}
