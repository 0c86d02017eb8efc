//! Ordered walks over the records of a base at a moment, with what shines through from elsewhere.
//!
//! ```text
//! base, at a moment ───┐  a record that counts, or a tombstone, hides
//! its era's source ────┤  what the states below have under the same key
//! the source's era's … ┘
//! ```

use super::Past;
use super::moment::Moment;
use super::number::BaseId;
use super::record::{end_in, key_in, log_range, rest_of, split_preimage};
use crate::clock::Epoch;
use crate::error::Result;
use crate::meta::{Pair, Table};
use std::iter::Peekable;
use std::ops::ControlFlow;

/// Records of one base that count, in order.
type Records<'a> = Box<dyn Iterator<Item = Result<Pair>> + 'a>;

/// One of the states that a walk looks through.
#[derive(Clone, Copy)]
struct Layer {
    base: BaseId,
    moment: Moment,
    /// Records up to this epoch do not count.
    since: Epoch,
}

impl Past {
    /// Calls `each` with every key and value with `from <= key < to` at a moment, in order, until it breaks.
    pub fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        moment: Moment,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        self.records(table, from, to, moment, |key, _, value| each(key, value))
    }

    /// Like [`State::scan`], with the birth of each record.
    pub fn records(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        moment: Moment,
        mut each: impl FnMut(&[u8], Epoch, &[u8]) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let base = BaseId::of_key(from)?;
        let layers = self.layers(base, moment)?;
        if let [only] = layers.as_slice() {
            for pair in self.records_of(table, from, to, *only)? {
                let (key, bytes) = pair?;
                let (birth, value) = self.split_record(table, &key, &bytes)?;
                if !value.is_empty() && each(&key, birth, value)?.is_break() {
                    break;
                }
            }
            return Ok(());
        }
        let mut streams: Vec<Peekable<Records<'_>>> = Vec::new();
        for layer in layers {
            // The end can be the beginning of the next base.
            let (from, to) = (key_in(layer.base, from), end_in(layer.base, base, to));
            streams.push(self.records_of(table, &from, &to, layer)?.peekable());
        }
        while let Some((key, bytes)) = next_of(&mut streams)? {
            let key = key_in(base, &key);
            let (birth, value) = self.split_record(table, &key, &bytes)?;
            if !value.is_empty() && each(&key, birth, value)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The states that a base shows at a moment, the uppermost first.
    fn layers(&self, mut base: BaseId, mut moment: Moment) -> Result<Vec<Layer>> {
        let mut layers = Vec::new();
        loop {
            let found = self.base(base)?;
            let era = match moment {
                Moment::Live => found.record.eras.last(),
                Moment::At(epoch) => found.era_at(epoch),
            };
            layers.push(Layer { base, moment, since: era.map_or(Epoch::ZERO, |era| era.since) });
            let Some(era) = era else { return Ok(layers) };
            (base, moment) = (era.source.base, Moment::At(era.source.epoch));
        }
    }

    /// The records of one layer that count, tombstones among them.
    fn records_of<'a>(&'a self, table: Table, from: &[u8], to: &[u8], layer: Layer) -> Result<Records<'a>> {
        let base = self.meta.range(table, from, to)?;
        let counts = move |bytes: &[u8]| match self.split_record(table, &[], bytes) {
            Ok((birth, _)) => birth > layer.since && layer.moment.includes(birth),
            // Whoever takes it apart says so.
            Err(_) => true,
        };
        let filter = move |pair: &Result<Pair>| pair.as_ref().map_or(true, |(_, bytes)| counts(bytes));
        // Pre-images of a key come after the key with a zero appended.
        let start = from.to_vec();
        let is_before = move |pair: &Result<Pair>| pair.as_ref().is_ok_and(|(key, _)| *key < start);
        if let Moment::At(epoch) = layer.moment
            && let Some((elsewhere, set)) = self.elsewhere(layer.base, epoch)?
        {
            return Ok(Box::new(elsewhere.range(table, from, to, set)?));
        }
        match layer.moment {
            Moment::Live if layer.since == Epoch::ZERO => Ok(Box::new(base)),
            Moment::Live => Ok(Box::new(base.filter(filter))),
            Moment::At(epoch) if self.moments().archive_of(layer.base, epoch)?.is_some() => {
                let Some((archive, tip)) = self.moments().archive_of(layer.base, epoch)? else {
                    return Ok(Box::new(base));
                };
                let below = self.records_of(table, from, to, Layer { moment: Moment::At(tip), ..layer })?;
                let (log_from, log_to) = log_range(table, from, to, layer.base);
                let log = archive.range(&log_from, &log_to)?.peekable();
                let records = History { base: below.peekable(), log, epoch, group: None, has_begun: false };
                Ok(Box::new(records.filter(filter).skip_while(is_before)))
            }
            Moment::At(epoch) => {
                let (log_from, log_to) = log_range(table, from, to, layer.base);
                let log = self.meta.range(Table::Preimage, &log_from, &log_to)?.peekable();
                let records = History { base: base.peekable(), log, epoch, group: None, has_begun: false };
                Ok(Box::new(records.filter(filter).skip_while(is_before)))
            }
        }
    }
}

/// The next record of several streams, of which an upper one hides the same key in those below.
fn next_of(streams: &mut [Peekable<Records<'_>>]) -> Result<Option<Pair>> {
    let mut least: Option<Vec<u8>> = None;
    for stream in streams.iter_mut() {
        match stream.peek() {
            Some(Ok((key, _))) if least.as_ref().is_none_or(|least| rest_of(key) < &least[..]) => {
                least = Some(rest_of(key).to_vec());
            }
            Some(Err(_)) => return stream.next().transpose(),
            Some(Ok(_)) | None => {}
        }
    }
    let Some(least) = least else { return Ok(None) };
    let mut found = None;
    for stream in streams.iter_mut() {
        if stream.peek().is_some_and(|pair| pair.as_ref().is_ok_and(|(key, _)| rest_of(key) == &least[..])) {
            let pair = stream.next().transpose()?;
            found = found.or(pair);
        }
    }
    Ok(found)
}

/// What a base's own records were in a snapshot: for each key the pre-image that decides, or the current record.
struct History<B: Iterator<Item = Result<Pair>>, L: Iterator<Item = Result<Pair>>> {
    base: Peekable<B>,
    log: Peekable<L>,
    epoch: Epoch,
    group: Option<Group>,
    has_begun: bool,
}

/// All pre-images of one key.
struct Group {
    key: Vec<u8>,
    /// The one with the smallest end epoch after the snapshot.
    deciding: Option<Vec<u8>>,
}

impl<B: Iterator<Item = Result<Pair>>, L: Iterator<Item = Result<Pair>>> History<B, L> {
    fn next_group(&mut self) -> Result<Option<Group>> {
        let mut group: Option<Group> = None;
        loop {
            let key = match self.log.peek() {
                Some(Ok((key, _))) => split_preimage(key)?.1,
                Some(Err(_)) => {
                    self.log.next().transpose()?;
                    continue;
                }
                None => return Ok(group),
            };
            if group.as_ref().is_some_and(|group| group.key != key) {
                return Ok(group);
            }
            let group = group.get_or_insert(Group { key, deciding: None });
            if let Some((full, bytes)) = self.log.next().transpose()? {
                let (_, _, end) = split_preimage(&full)?;
                if end > self.epoch && group.deciding.is_none() {
                    group.deciding = Some(bytes);
                }
            }
        }
    }

    fn step(&mut self) -> Result<Option<Pair>> {
        if !self.has_begun {
            self.group = self.next_group()?;
            self.has_begun = true;
        }
        loop {
            if let Some(Err(_)) = self.base.peek() {
                self.base.next().transpose()?;
            }
            let base_key = self.base.peek().and_then(|pair| pair.as_ref().ok()).map(|(key, _)| key);
            let log_key = self.group.as_ref().map(|group| &group.key);
            let Some(key) = [base_key, log_key].into_iter().flatten().min().cloned() else { return Ok(None) };
            let record =
                if base_key == Some(&key) { self.base.next().transpose()?.map(|(_, bytes)| bytes) } else { None };
            let deciding = if self.group.as_ref().is_some_and(|group| group.key == key) {
                let found = self.group.take().and_then(|group| group.deciding);
                self.group = self.next_group()?;
                found
            } else {
                None
            };
            if let Some(bytes) = deciding.or(record) {
                return Ok(Some((key, bytes)));
            }
        }
    }
}

impl<B: Iterator<Item = Result<Pair>>, L: Iterator<Item = Result<Pair>>> Iterator for History<B, L> {
    type Item = Result<Pair>;

    fn next(&mut self) -> Option<Result<Pair>> {
        self.step().transpose()
    }
}
