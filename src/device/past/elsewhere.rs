//! Moments that lie in sets at a target, shown with no store behind them: each is looked up in the index of its own set, which
//! knows all of it. The store that shows them has their names and times as snapshots, and no record of what is in them.

use super::Past;
use super::number::BaseId;
use super::record::{key_in, record_of, rest_of};
use super::rules::{Found, Outside};
use super::timeline::{Span, Value};
use crate::archive::Mark;
use crate::clock::Epoch;
use crate::error::{Error, Result};
use crate::id::Id;
use crate::meta::{Pair, Table, encode};
use crate::set::{Entry, Sets, Spot};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// A moment that lies in a set, and the bytes that it took in its store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InSet {
    pub mark: Mark,
    pub set: Id,
    pub bytes: u64,
}

/// The sets of a base's moments.
pub struct Elsewhere {
    sets: Arc<Sets>,
    moments: BTreeMap<Epoch, Id>,
}

impl std::fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Elsewhere({} moments)", self.moments.len())
    }
}

/// Where the bytes of a track lie that is in a set; nowhere, if they could not be read when the set was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetTrack(Option<(Spot, u32)>);

/// All that such records say was so before anything that is done here.
const BIRTH: Epoch = Epoch::new(1);

fn set_key(table: Table, key: &[u8]) -> Vec<u8> {
    [&[table as u8], rest_of(key)].concat()
}

/// A record as the store would have it.
fn record(entry: &Entry<Spot>) -> Vec<u8> {
    let value = match &entry.value {
        crate::set::Value::Record(value) => value.clone(),
        crate::set::Value::Track { len, place } => encode(&SetTrack(Some((*place, *len)))),
        crate::set::Value::Lost => encode(&SetTrack(None)),
    };
    record_of(BIRTH, &value)
}

impl Elsewhere {
    pub fn new(sets: Arc<Sets>, moments: BTreeMap<Epoch, Id>) -> Elsewhere {
        Elsewhere { sets, moments }
    }

    pub fn set_at(&self, epoch: Epoch) -> Option<Id> {
        self.moments.get(&epoch).copied()
    }

    pub(super) fn find(self: &Arc<Self>, table: Table, key: &[u8], set: Id) -> Result<Option<Found>> {
        let found = self.sets.find(set, &set_key(table, key))?;
        let outside = || Some(Outside::Sets(self.clone()));
        Ok(found.map(|entry| Found { bytes: record(&entry), is_old: true, outside: outside() }))
    }

    /// Records of a table at the moment of a set, `to` not among them; it can be the beginning of the next base.
    pub(super) fn range(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        set: Id,
    ) -> Result<impl Iterator<Item = Result<Pair>> + use<'_>> {
        let base = BaseId::of_key(from)?;
        let end = match to.starts_with(&base.prefix()) {
            true => set_key(table, to),
            false => vec![table as u8 + 1],
        };
        let all = self.sets.scan(set, &set_key(table, from), &end)?;
        Ok(all.map(move |entry| {
            let entry = entry?;
            Ok(([&base.prefix()[..], entry.key.get(1..).unwrap_or_default()].concat(), record(&entry)))
        }))
    }

    /// The bytes of a track.
    pub(in crate::device) fn read(&self, track: &SetTrack) -> Result<Arc<Vec<u8>>> {
        match track.0 {
            Some((spot, len)) => self.sets.read(&spot, len).map(Arc::new),
            None => Err(Error::corrupt("this part of the file", "it could not be read when the set was made")),
        }
    }

    /// Calls `each` with every key of a base that may differ between two moments.
    pub(in crate::device) fn each_differing(
        &self,
        base: BaseId,
        (before, after): (Epoch, Epoch),
        each: &mut dyn FnMut(Table, Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        // As it is now, it is as in the last.
        let set_at =
            |epoch| self.set_at(epoch).or_else(|| self.moments.range(..=epoch).next_back().map(|(_, set)| *set));
        let [Some(before), Some(after)] = [before, after].map(set_at) else { return Ok(()) };
        self.sets.differing(before, after, &mut |key| match key.split_first() {
            Some((table, rest)) => {
                let table = Table::from_number(*table);
                table.map_or(Ok(()), |table| each(table, [&base.prefix()[..], rest].concat()))
            }
            None => Ok(()),
        })
    }

    /// What a key was in a window of epochs of which each moment is looked up by itself.
    pub(super) fn spans(
        self: &Arc<Self>,
        past: &Past,
        table: Table,
        key: &[u8],
        window: Range<Epoch>,
    ) -> Result<Vec<Span>> {
        let mut spans: Vec<Span> = Vec::new();
        for (epoch, set) in self.moments.range(window.clone()) {
            let Some(found) = self.find(table, key, *set)? else { continue };
            let value = Value::of(past, table, key, &found.bytes, false)?;
            match spans.last_mut() {
                Some(last) if last.epochs.end == *epoch && last.value.is_same(&value) => last.epochs.end = epoch.next(),
                _ => spans.push(Span { epochs: *epoch..epoch.next(), value }),
            }
        }
        Ok(spans)
    }

    /// Keys of records of a prefix that any of the moments has.
    pub(super) fn keys(&self, table: Table, prefix: &[u8]) -> Result<BTreeSet<Vec<u8>>> {
        let mut keys = BTreeSet::new();
        for set in self.moments.values() {
            for pair in self.range(table, prefix, &crate::meta::prefix_end(prefix), *set)? {
                keys.insert(key_in(BaseId::of_key(prefix)?, &pair?.0));
            }
        }
        Ok(keys)
    }
}
