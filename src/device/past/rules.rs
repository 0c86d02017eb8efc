//! The write rule and the read rule.
//!
//! *Write*: replacing or removing a record whose birth is not after the newest snapshot first moves the
//! old value into `preimage` under the current epoch. *Read*: the value of a key in snapshot e is the
//! pre-image with the smallest end epoch greater than e, if its birth is not after e; with no such
//! pre-image it is the base record, if its birth is not after e; otherwise there was nothing.
//!
//! In an era (`base.rs`), a value counts only if it was born since the era began; where there is none, the
//! era's source is read by the same rule. A record without a value is a tombstone: nothing is there.

use super::Past;
use super::base::Era;
use super::elsewhere::Elsewhere;
use super::moment::Moment;
use super::number::{BaseId, InodeNo};
use super::record::{
    increment_key, key_in, preimage_key, split_increment, split_preimage, split_record, tombstone, tombstone_key,
    with_birth,
};
use crate::archive::Archive;
use crate::clock::Epoch;
use crate::error::{Error, Result};
use crate::meta::{Pair, Table, decode, prefix_end, record_name};
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::sync::Arc;

/// Tables of which increments tell also what came into being.
const TOLD: [Table; 2] = [Table::Track, Table::Inode];

/// A record that was found.
pub(in crate::device) struct Found {
    /// With its birth in front.
    pub bytes: Vec<u8>,
    /// Whether it is a pre-image.
    pub is_old: bool,
    /// Who has it, if it is not in the store.
    pub outside: Option<Outside>,
}

impl Found {
    /// Whether an archive has it. Sets name the bytes of a track by where they lie, and their records were all born alike.
    pub fn is_archived(&self) -> bool {
        matches!(self.outside, Some(Outside::Archive(_)))
    }
}

/// Where a record is that is not in the store.
pub(in crate::device) enum Outside {
    Archive(Arc<Archive>),
    Sets(Arc<Elsewhere>),
}

impl Found {
    fn stored(bytes: Vec<u8>, is_old: bool) -> Found {
        Found { bytes, is_old, outside: None }
    }
}

impl Past {
    /// The birth and the value of a stored record, which was not born after now.
    pub(in crate::device) fn split_record<'a>(
        &self,
        table: Table,
        key: &[u8],
        bytes: &'a [u8],
    ) -> Result<(Epoch, &'a [u8])> {
        match split_record(table, key, bytes)? {
            (birth, _) if birth > self.epoch => {
                let problem = format!("it is born in epoch {birth}, and the store has come to {}", self.epoch);
                Err(Error::corrupt(record_name(table, key), problem))
            }
            found => Ok(found),
        }
    }

    pub(in crate::device) fn birth_of(&self, table: Table, key: &[u8], bytes: &[u8]) -> Result<Epoch> {
        Ok(self.split_record(table, key, bytes)?.0)
    }

    /// The largest number of an inode that a base has or had, as far as the store knows.
    pub fn last_inode(&self, base: BaseId) -> Result<Option<u64>> {
        let last = |table: Table, prefix: &[u8]| {
            Ok::<_, Error>(self.meta.last(table, prefix, &prefix_end(prefix))?.map(|(key, _)| key))
        };
        let live = last(Table::Inode, &base.prefix())?;
        let old = last(Table::Preimage, &[&base.prefix()[..], &[Table::Inode as u8]].concat())?;
        let old = old.and_then(|key| Some(split_preimage(&key).ok()?.1));
        Ok(live.into_iter().chain(old).filter_map(|key| InodeNo::of_key(&key)).map(InodeNo::number).max())
    }

    /// The last epoch in which something of a base ended.
    pub(in crate::device) fn last_end(&self, base: BaseId) -> Result<Epoch> {
        let prefix = base.prefix();
        let last = self.meta.last(Table::Increment, &prefix, &prefix_end(&prefix))?;
        // One that makes no sense shows nothing, and is named by `check`.
        Ok(last.and_then(|(key, _)| split_increment(&key).ok()).map_or(Epoch::ZERO, |(_, _, end)| end))
    }

    /// A record's value at a moment, without its birth.
    pub fn value(&self, table: Table, key: &[u8], moment: Moment) -> Result<Option<Vec<u8>>> {
        self.with(table, key, moment, |value| Ok(value.to_vec()))
    }

    /// The same with its birth.
    pub fn record_at(&self, table: Table, key: &[u8], moment: Moment) -> Result<Option<(Epoch, Vec<u8>)>> {
        let Some(found) = self.find(table, key, moment)? else { return Ok(None) };
        let (birth, value) = self.split_record(table, key, &found.bytes)?;
        Ok(Some((birth, value.to_vec())))
    }

    pub fn get<T: DeserializeOwned>(&self, table: Table, key: &[u8], moment: Moment) -> Result<Option<T>> {
        self.with(table, key, moment, |value| decode(table, key, value))
    }

    /// Whether there is such a record now.
    pub fn exists(&self, table: Table, key: &[u8]) -> Result<bool> {
        Ok(self.with(table, key, Moment::Live, |_| Ok(()))?.is_some())
    }

    /// Calls `read` with a record's value at a moment.
    fn with<R>(
        &self,
        table: Table,
        key: &[u8],
        moment: Moment,
        read: impl FnOnce(&[u8]) -> Result<R>,
    ) -> Result<Option<R>> {
        if moment == Moment::Live && self.base(BaseId::of_key(key)?)?.record.eras.is_empty() {
            let found = self.meta.with(table, key, |bytes| {
                let (_, value) = self.split_record(table, key, bytes)?;
                if value.is_empty() { Ok(None) } else { read(value).map(Some) }
            });
            return found.map(Option::flatten);
        }
        match self.find(table, key, moment)? {
            Some(found) => read(self.split_record(table, key, &found.bytes)?.1).map(Some),
            None => Ok(None),
        }
    }

    /// The record that says what a key is at a moment.
    pub(in crate::device) fn find(&self, table: Table, key: &[u8], moment: Moment) -> Result<Option<Found>> {
        let mut key = Cow::Borrowed(key);
        let mut moment = moment;
        loop {
            let base = self.base(BaseId::of_key(&key)?)?;
            let era = match moment {
                Moment::Live => base.record.eras.last(),
                Moment::At(epoch) => base.era_at(epoch),
            };
            if let Some(found) = self.candidate(table, &key, moment)? {
                let (birth, value) = self.split_record(table, &key, &found.bytes)?;
                if moment.includes(birth) && era.is_none_or(|era| birth > era.since) {
                    return Ok((!value.is_empty()).then_some(found));
                }
            }
            let Some(era) = era else { return Ok(None) };
            key = Cow::Owned(key_in(era.source.base, &key));
            moment = Moment::At(era.source.epoch);
        }
    }

    /// Whether an old value of a key was kept that ended after an epoch, up to another, and was there in the first.
    pub fn is_saved(&self, table: Table, key: &[u8], epoch: Epoch, end: Epoch) -> Result<bool> {
        let from = preimage_key(table, key, epoch.next());
        let to = preimage_key(table, key, end.next());
        let old: Box<dyn Iterator<Item = Result<Pair>>> =
            match self.moments().archive_of(BaseId::of_key(key)?, epoch)? {
                Some((archive, _)) => archive.range(&from, &to)?,
                None => Box::new(self.meta.range(Table::Preimage, &from, &to)?),
            };
        for pair in old {
            let (full, bytes) = pair?;
            // A longer key that starts with this one can lie in between.
            if full.len() == from.len() {
                let (birth, value) = self.split_record(table, key, &bytes)?;
                return Ok(birth <= epoch && !value.is_empty());
            }
        }
        Ok(false)
    }

    /// The record of the base itself that decides what a key is at a moment, if its birth allows it.
    pub(in crate::device) fn candidate(&self, table: Table, key: &[u8], mut moment: Moment) -> Result<Option<Found>> {
        if let Moment::At(epoch) = moment
            && let Some((elsewhere, set)) = self.elsewhere(BaseId::of_key(key)?, epoch)?
        {
            return elsewhere.find(table, key, set);
        }
        if let Moment::At(epoch) = moment
            && let Some((archive, tip)) = self.moments().archive_of(BaseId::of_key(key)?, epoch)?
        {
            if let Some(bytes) = self.moments().archived_candidate(archive, table, key, epoch)? {
                let outside = Some(Outside::Archive(archive.clone()));
                return Ok(Some(Found { bytes, is_old: true, outside }));
            }
            moment = Moment::At(tip);
        }
        if let Moment::At(epoch) = moment {
            let from = preimage_key(table, key, epoch.next());
            let to = preimage_key(table, key, Epoch::MAX);
            for pair in self.meta.range(Table::Preimage, &from, &to)? {
                let (found, bytes) = pair?;
                // A longer key that starts with this one can lie in between.
                if found.len() == from.len() {
                    return Ok(Some(Found::stored(bytes, true)));
                }
            }
        }
        Ok(self.meta.get_raw(table, key)?.map(|bytes| Found::stored(bytes, false)))
    }
}

/// What became of the value of a record that is replaced or removed; with it, if it was asked for. A tombstone has none.
pub(in crate::device) enum Old {
    None,
    /// It went.
    Gone(Option<Vec<u8>>),
    /// A snapshot needs it: it is a pre-image now; of the newest one alone, if `is_alone`.
    Kept {
        value: Option<Vec<u8>>,
        is_alone: bool,
    },
}

/// What settling a key in one era has moved; with the values, if they were asked for.
#[derive(Default)]
pub(in crate::device) struct Settled {
    /// The value of the time before the era, which has ended with it, and the snapshot that it is kept for, if any.
    pub ended: Option<(Vec<u8>, Option<Epoch>)>,
    /// The value that was taken over from the era's source, and whether that is a pre-image there.
    pub taken: Option<(Vec<u8>, bool)>,
}

impl Past {
    /// Removes a record whose old value is cared for; with a tombstone where a source would shine through.
    pub(in crate::device) fn take_away(&mut self, table: Table, key: &[u8]) -> Result<()> {
        if self.shines_through(table, key)? {
            self.put_tombstone(table, key, self.epoch);
        } else {
            self.meta.remove(table, key);
        }
        Ok(())
    }

    /// Whether the source of any era, also of one that a later one hides, has this key.
    pub(in crate::device) fn shines_through(&self, table: Table, key: &[u8]) -> Result<bool> {
        for era in &self.base(BaseId::of_key(key)?)?.record.eras {
            let source = key_in(era.source.base, key);
            if self.find(table, &source, Moment::At(era.source.epoch))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(in crate::device) fn put_tombstone(&mut self, table: Table, key: &[u8], birth: Epoch) {
        self.meta.put_raw(table, key, tombstone(birth));
        self.meta.put_raw(Table::Tombstone, &tombstone_key(table, key), Vec::new());
    }

    /// Keeps the current value of a key that is settled if a snapshot needs it, before it is replaced or removed.
    pub(in crate::device) fn protect(&mut self, table: Table, key: &[u8], wants_value: bool) -> Result<Old> {
        let base = self.base(BaseId::of_key(key)?)?;
        let (newest, before_newest, ended) = (base.newest, base.before_newest, base.ended);
        let old = self.meta.with(table, key, |bytes| {
            let (birth, value) = self.split_record(table, key, bytes)?;
            let is_needed = birth <= newest || wants_value || birth < ended || value.is_empty();
            Ok((birth, is_needed.then(|| bytes.to_vec())))
        })?;
        let Some((birth, bytes)) = old else { return Ok(Old::None) };
        let Some(bytes) = bytes else { return Ok(Old::Gone(None)) };
        let value = split_record(table, key, &bytes)?.1;
        let is_tombstone = value.is_empty();
        let value = wants_value.then(|| value.to_vec());
        if is_tombstone {
            self.meta.remove(Table::Tombstone, &tombstone_key(table, key));
        }
        if birth > newest {
            self.pass(table, key, birth)?;
            return Ok(if is_tombstone { Old::None } else { Old::Gone(value) });
        }
        self.put_preimage(table, key, self.epoch, bytes);
        Ok(if is_tombstone { Old::None } else { Old::Kept { value, is_alone: birth > before_newest } })
    }

    /// Settles a key in one era of its base.
    pub(in crate::device) fn settle_in(
        &mut self,
        table: Table,
        key: &[u8],
        era: Era,
        wants_values: bool,
    ) -> Result<Settled> {
        let base = BaseId::of_key(key)?;
        let own = self.meta.get_raw(table, key)?;
        let birth = own.as_deref().map(|bytes| self.birth_of(table, key, bytes)).transpose()?;
        let mut settled = Settled::default();
        if birth.is_some_and(|birth| birth > era.since) {
            return Ok(settled);
        }
        if era.source.base == base && birth.is_some_and(|birth| birth <= era.source.epoch) {
            // It has not changed since the source.
            return Ok(settled);
        }
        let found = self.find(table, &key_in(era.source.base, key), Moment::At(era.source.epoch))?;
        if let (Some(bytes), Some(birth)) = (own, birth) {
            let value = split_record(table, key, &bytes)?.1;
            let value = (wants_values && !value.is_empty()).then(|| value.to_vec());
            let before = self.end_with_era(table, key, era, birth, bytes)?;
            settled.ended = value.map(|value| (value, before));
        }
        let Some(found) = found else {
            // What an earlier era shows must not come back when this one is over, nor be settled again.
            if birth.is_some() && self.shines_through(table, key)? {
                self.put_tombstone(table, key, era.since.next());
            }
            return Ok(settled);
        };
        if wants_values {
            settled.taken = Some((split_record(table, key, &found.bytes)?.1.to_vec(), found.is_old));
        }
        self.meta.put_raw(table, key, with_birth(era.since.next(), &found.bytes));
        Ok(settled)
    }

    /// A record of the time before an era ends where the era begins; the snapshot that it is kept for, if any.
    fn end_with_era(
        &mut self,
        table: Table,
        key: &[u8],
        era: Era,
        birth: Epoch,
        bytes: Vec<u8>,
    ) -> Result<Option<Epoch>> {
        if split_record(table, key, &bytes)?.1.is_empty() {
            self.meta.remove(Table::Tombstone, &tombstone_key(table, key));
        }
        self.meta.remove(table, key);
        let before = self.moments().newest_protecting(BaseId::of_key(key)?, era.since.next())?;
        if birth > before {
            self.pass(table, key, birth)?;
            return Ok(None);
        }
        self.put_preimage(table, key, era.since.next(), bytes);
        Ok(Some(before))
    }

    /// Remembers of what goes without a pre-image that it came into being while a snapshot was active whose
    /// protection has ended: its increment is not to lose that.
    pub(in crate::device) fn pass(&mut self, table: Table, key: &[u8], birth: Epoch) -> Result<()> {
        if TOLD.contains(&table) && self.bases.get(&BaseId::of_key(key)?).is_some_and(|base| birth < base.ended) {
            self.meta.put_raw(Table::Passed, &increment_key(table, key, birth), Vec::new());
        }
        Ok(())
    }

    pub(in crate::device) fn put_preimage(&mut self, table: Table, key: &[u8], end: Epoch, bytes: Vec<u8>) {
        self.meta.put_raw(Table::Preimage, &preimage_key(table, key, end), bytes);
        self.meta.put_raw(Table::Increment, &increment_key(table, key, end), Vec::new());
    }
}
