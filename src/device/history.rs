//! The write rule and the read rule.
//!
//! *Write*: replacing or removing a record whose birth is not after the newest snapshot first moves the
//! old value into `preimage` under the current epoch. *Read*: the value of a key in snapshot e is the
//! pre-image with the smallest end epoch greater than e, if its birth is not after e; with no such
//! pre-image it is the base record, if its birth is not after e; otherwise there was nothing.
//!
//! In an era (`base.rs`), a value counts only if it was born since the era began; where there is none, the
//! era's source is read by the same rule. A record without a value is a tombstone: nothing is there.

use super::record::{
    encode_record, increment_key, key_in, preimage_key, split_increment, split_preimage, split_record, tombstone,
    tombstone_key, track_key,
};
use super::{BaseId, Device, Epoch, InodeNo, Note, Pointer, State, TrackKey, TrackNo, Txn};
use crate::archive::Archive;
use crate::error::{Errno, Error, Result};
use crate::logstore::{Holder, Location, LogStore};
use crate::meta::{Pair, Table, decode, prefix_end, record_name};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::sync::Arc;

/// Which moment of a base to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    Live,
    At(Epoch),
}

impl Moment {
    /// Whether what was born in an epoch is there at this moment, if nothing ended it.
    pub(super) fn includes(self, birth: Epoch) -> bool {
        match self {
            Moment::Live => true,
            Moment::At(epoch) => birth <= epoch,
        }
    }
}

/// A record that was found.
pub(super) struct Found {
    /// With its birth in front.
    pub bytes: Vec<u8>,
    /// What kind of record it is.
    pub holder: Holder,
    /// The archive that has it, if it is not in the store.
    pub archive: Option<Arc<Archive>>,
}

impl Found {
    fn stored(bytes: Vec<u8>, holder: Holder) -> Found {
        Found { bytes, holder, archive: None }
    }
}

impl State {
    /// The birth and the value of a stored record, which was not born after now.
    pub(super) fn split_record<'a>(&self, table: Table, key: &[u8], bytes: &'a [u8]) -> Result<(Epoch, &'a [u8])> {
        match split_record(table, key, bytes)? {
            (birth, _) if birth > self.epoch => {
                let problem = format!("it is born in epoch {birth}, and the store has come to {}", self.epoch);
                Err(Error::corrupt(record_name(table, key), problem))
            }
            found => Ok(found),
        }
    }

    pub(super) fn birth_of(&self, table: Table, key: &[u8], bytes: &[u8]) -> Result<Epoch> {
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
    pub(super) fn last_end(&self, base: BaseId) -> Result<Epoch> {
        let prefix = base.prefix();
        let last = self.meta.last(Table::Increment, &prefix, &prefix_end(&prefix))?;
        // One that makes no sense shows nothing, and is named by `check`.
        Ok(last.and_then(|(key, _)| split_increment(&key).ok()).map_or(Epoch::ZERO, |(_, _, end)| end))
    }

    /// A record's value at a moment, without its birth.
    pub fn value(&self, table: Table, key: &[u8], moment: Moment) -> Result<Option<Vec<u8>>> {
        self.with(table, key, moment, |value| Ok(value.to_vec()))
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
    pub(super) fn find(&self, table: Table, key: &[u8], moment: Moment) -> Result<Option<Found>> {
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
        let old: Box<dyn Iterator<Item = Result<Pair>>> = match self.archive_of(BaseId::of_key(key)?, epoch)? {
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
    pub(super) fn candidate(&self, table: Table, key: &[u8], mut moment: Moment) -> Result<Option<Found>> {
        if let Moment::At(epoch) = moment
            && let Some((archive, tip)) = self.archive_of(BaseId::of_key(key)?, epoch)?
        {
            if let Some(bytes) = self.archived_candidate(archive, table, key, epoch)? {
                return Ok(Some(Found { bytes, holder: Holder::Log, archive: Some(archive.clone()) }));
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
                    return Ok(Some(Found::stored(bytes, Holder::Log)));
                }
            }
        }
        Ok(self.meta.get_raw(table, key)?.map(|bytes| Found::stored(bytes, Holder::Live)))
    }
}

/// What became of a record that is replaced or removed.
pub(super) enum Old {
    None,
    /// It went.
    Gone(Option<Pointer>),
    /// A snapshot needs it: it is a pre-image now; of the newest one alone, if `is_alone`.
    Kept {
        pointer: Option<Pointer>,
        is_alone: bool,
    },
}

impl Old {
    fn pointer(&self) -> Option<&Pointer> {
        match self {
            Old::None => None,
            Old::Gone(pointer) | Old::Kept { pointer, .. } => pointer.as_ref(),
        }
    }
}

impl State {
    /// Removes a record whose old value is cared for; with a tombstone where a source would shine through.
    fn take_away(&mut self, table: Table, key: &[u8]) -> Result<()> {
        if self.shines_through(table, key)? {
            self.put_tombstone(table, key, self.epoch);
        } else {
            self.meta.remove(table, key);
        }
        Ok(())
    }

    /// Whether the source of any era, also of one that a later one hides, has this key.
    pub(super) fn shines_through(&self, table: Table, key: &[u8]) -> Result<bool> {
        for era in &self.base(BaseId::of_key(key)?)?.record.eras {
            let source = key_in(era.source.base, key);
            if self.find(table, &source, Moment::At(era.source.epoch))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn put_tombstone(&mut self, table: Table, key: &[u8], birth: Epoch) {
        self.meta.put_raw(table, key, tombstone(birth));
        self.meta.put_raw(Table::Tombstone, &tombstone_key(table, key), Vec::new());
    }

    /// Keeps the current value of a key if a snapshot needs it, before it is replaced or removed.
    fn protect(&mut self, log: &LogStore, table: Table, key: &[u8]) -> Result<Old> {
        self.settle_key(log, table, key)?;
        let base = self.base(BaseId::of_key(key)?)?;
        let (newest, before_newest, ended) = (base.newest, base.before_newest, base.ended);
        // Of an unprotected record nothing is needed but a track's pointer.
        let old = self.meta.with(table, key, |bytes| {
            let (birth, value) = self.split_record(table, key, bytes)?;
            let is_needed = birth <= newest || table == Table::Track || birth < ended || value.is_empty();
            Ok((birth, is_needed.then(|| bytes.to_vec())))
        })?;
        let Some((birth, bytes)) = old else { return Ok(Old::None) };
        let Some(bytes) = bytes else { return Ok(Old::Gone(None)) };
        let value = split_record(table, key, &bytes)?.1;
        let is_tombstone = value.is_empty();
        let pointer: Option<Pointer> = match table {
            Table::Track if !is_tombstone => Some(decode(table, key, value)?),
            _ => None,
        };
        if is_tombstone {
            self.meta.remove(Table::Tombstone, &tombstone_key(table, key));
        }
        if birth > newest {
            self.pass(table, key, birth)?;
            return Ok(if is_tombstone { Old::None } else { Old::Gone(pointer) });
        }
        self.put_preimage(table, key, self.epoch, bytes);
        if let Some(pointer) = &pointer {
            self.count(BaseId::of_key(key)?, |counts| counts.kept += pointer.blocks());
        }
        let is_alone = birth > before_newest;
        for location in pointer.iter().flat_map(Pointer::locations) {
            if self.keep(log, location)?.all() == 1 && is_alone {
                self.count_newest_alone(BaseId::of_key(key)?, |blocks| blocks + location.blocks() as u64);
            }
        }
        Ok(if is_tombstone { Old::None } else { Old::Kept { pointer, is_alone } })
    }

    /// Remembers of what goes without a pre-image that it came into being while a snapshot was active whose
    /// protection has ended: its increment is not to lose that.
    pub(super) fn pass(&mut self, table: Table, key: &[u8], birth: Epoch) -> Result<()> {
        let is_told = matches!(table, Table::Track | Table::Inode);
        if is_told && self.bases.get(&BaseId::of_key(key)?).is_some_and(|base| birth < base.ended) {
            self.meta.put_raw(Table::Passed, &increment_key(table, key, birth), Vec::new());
        }
        Ok(())
    }

    pub(super) fn put_preimage(&mut self, table: Table, key: &[u8], end: Epoch, bytes: Vec<u8>) {
        self.meta.put_raw(Table::Preimage, &preimage_key(table, key, end), bytes);
        self.meta.put_raw(Table::Increment, &increment_key(table, key, end), Vec::new());
    }

    /// Points a track at the place it was just flushed to, which can share locations with the old one.
    pub(super) fn replace_track(&mut self, device: &Device, key: TrackKey, pointer: &Pointer) -> Result<()> {
        self.counting_own(key, |state| state.put_track(device, key, pointer))
    }

    fn put_track(&mut self, device: &Device, key: TrackKey, pointer: &Pointer) -> Result<()> {
        let track = key;
        let key = track_key(key.0, key.1);
        let base = BaseId::of_key(&key)?;
        let old = self.protect(&device.log, Table::Track, &key)?;
        self.count_refers(base, old.pointer(), Some(pointer));
        match old {
            Old::Gone(Some(old)) => {
                for location in old.locations().filter(|old| pointer.locations().all(|new| new != *old)) {
                    self.release(&device.log, location, Holder::Live, Some(track))?;
                }
            }
            Old::Kept { pointer: Some(old), is_alone } => {
                for location in old.locations().filter(|old| pointer.locations().any(|new| new == *old)) {
                    if self.share(&device.log, location, Holder::Log)?.all() == 1 && is_alone {
                        self.count_newest_alone(base, |blocks| blocks.saturating_sub(location.blocks() as u64));
                    }
                }
            }
            _ => {}
        }
        self.meta.put_raw(Table::Track, &key, encode_record(self.epoch, pointer));
        self.counts_undo.clear();
        self.release_all(&device.log)
    }

    /// A track has let go of a location that a single pre-image holds now, or shares it from now on: counted if that
    /// is its own, and holds the newest snapshot alone.
    pub(super) fn count_single(
        &mut self,
        track: TrackKey,
        location: &Location,
        change: impl FnOnce(u64, u64) -> u64,
    ) -> Result<()> {
        let key = track_key(track.0, track.1);
        let base = self.base(BaseId::of_key(&key)?)?;
        let (newest, before_newest) = (base.newest, base.before_newest);
        let Some(found) = self.candidate(Table::Track, &key, Moment::At(newest))? else { return Ok(()) };
        let (birth, value) = self.split_record(Table::Track, &key, &found.bytes)?;
        if found.holder == Holder::Log && !value.is_empty() && birth > before_newest && birth <= newest {
            let pointer: Pointer = decode(Table::Track, &key, value)?;
            if pointer.locations().any(|other| other == location) {
                self.count_newest_alone(BaseId::of_key(&key)?, |blocks| change(blocks, location.blocks() as u64));
            }
        }
        Ok(())
    }

    fn count_newest_alone(&mut self, base: BaseId, change: impl FnOnce(u64) -> u64) {
        self.count(base, |counts| counts.newest_alone = counts.newest_alone.map(change));
    }

    /// Counts what the tracks of a base take.
    pub(super) fn count_refers(&mut self, base: BaseId, old: Option<&Pointer>, new: Option<&Pointer>) {
        let blocks = |pointer: Option<&Pointer>| pointer.map_or(0, Pointer::blocks);
        let (old, new) = (blocks(old), blocks(new));
        if old != new {
            self.count(base, |counts| counts.refers = (counts.refers + new).saturating_sub(old));
        }
    }

    /// The pointer of a track at a moment, and what kind of record it stands in.
    pub fn pointer(&self, inode: InodeNo, track: TrackNo, moment: Moment) -> Result<Option<(Pointer, Holder)>> {
        let key = track_key(inode, track);
        match self.find(Table::Track, &key, moment)? {
            // What an archive has cannot be named by a pointer.
            Some(found) if found.archive.is_some() => Err(Error::Posix(Errno::XDEV)),
            Some(found) => {
                Ok(Some((decode(Table::Track, &key, split_record(Table::Track, &key, &found.bytes)?.1)?, found.holder)))
            }
            None => Ok(None),
        }
    }
}

impl Txn<'_> {
    /// Gives a key a new value, keeping the old one if a snapshot needs it.
    pub fn set<T: Serialize>(&mut self, table: Table, key: &[u8], value: &T) -> Result<()> {
        self.protect(table, key)?;
        self.note_record(table, key);
        let bytes = encode_record(self.state.epoch, value);
        self.state.meta.put_raw(table, key, bytes);
        Ok(())
    }

    /// Removes a key, keeping its value if a snapshot needs it; whether there was one.
    pub fn unset(&mut self, table: Table, key: &[u8]) -> Result<bool> {
        if !self.exists(table, key)? {
            return Ok(false);
        }
        let track = super::split_track_key(key).filter(|_| table == Table::Track);
        if let Some(track) = track {
            self.state.uncount_own(track)?;
        }
        self.protect(table, key)?;
        self.note_record(table, key);
        self.state.take_away(table, key)?;
        Ok(true)
    }

    /// A record of an inode changes; what becomes of its bytes is noted by whoever changes them.
    fn note_record(&mut self, table: Table, key: &[u8]) {
        let note = match table {
            Table::Inode => Note::Record,
            Table::Dirent | Table::Xattr | Table::Link => Note::NeedsCommit,
            _ => return,
        };
        if let Some(inode) = InodeNo::of_key(key) {
            self.note(inode, note);
        }
    }

    fn protect(&mut self, table: Table, key: &[u8]) -> Result<()> {
        let old = self.state.protect(&self.device.log, table, key)?;
        self.state.count_refers(BaseId::of_key(key)?, old.pointer(), None);
        if let Old::Gone(pointer) = old {
            let locations = pointer.iter().flat_map(Pointer::locations);
            let track = super::split_track_key(key);
            self.state.releases.extend(locations.map(|location| (*location, Holder::Live, track)));
        }
        Ok(())
    }
}
