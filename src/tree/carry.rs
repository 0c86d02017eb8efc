//! What a set has to carry of a moment: all records that it has, or those that another moment has not, or has differently.
//!
//! What increments name is looked at. What only came into being is in none of them: names are found in the directories that
//! changed, and with them all of what is new; tracks by the numbers of tracks that files have. Each key that is found so is
//! looked up in both moments, and carried if it differs.
//!
//! Invariant: what a set has of an inode is all that its snapshot has of it, or, of one that has no name there, nothing: what is in use
//! without a name is no part of the tree. It can get a name again, and is carried as a whole then.

use super::Tree;
use super::inode::{Inode, Kind, root_of};
use crate::clock::Epoch;
use crate::device::{BaseId, Increments, InodeNo, Moment, TrackNo, each_named, split_track_key, track_key};
use crate::error::{Error, Result};
use crate::meta::{Table, prefix_end};
use crate::shown::shown;
use std::collections::{BTreeSet, VecDeque};
use std::iter::Peekable;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Tables of which sets carry records, in the order of their numbers.
pub(super) const TABLES: [Table; 5] = [Table::Inode, Table::Dirent, Table::Xattr, Table::Track, Table::Link];

/// Records read under one lock.
const STEP: usize = 1024;

/// A record of a moment.
#[derive(Debug)]
pub struct Carried {
    pub table: Table,
    /// Without its base.
    pub key: Vec<u8>,
    /// When it became what it is, or for what is gone the moment itself.
    pub birth: Epoch,
    pub what: Burden,
}

#[derive(Debug)]
pub enum Burden {
    /// As the store has it.
    Record(Vec<u8>),
    Track(Arc<Vec<u8>>),
    Gone,
    /// A track that cannot be read, the path of its file, and why.
    Lost(String, Error),
}

impl Carried {
    /// Bytes of a file that are in it: those of a track, or of a tiny file in its record.
    pub fn file_bytes(&self) -> u64 {
        match &self.what {
            Burden::Track(bytes) => bytes.len() as u64,
            // A record without any ends with an empty string of bytes.
            Burden::Record(value) if self.table == Table::Inode && !value.ends_with(&[0xc4, 0]) => {
                let inode = rmp_serde::from_slice::<Inode>(value).ok().filter(|inode| inode.kind() == Kind::File);
                inode.map_or(0, |inode| inode.inline.len() as u64)
            }
            _ => 0,
        }
    }
}

/// A key of the store.
type Key = (Table, Vec<u8>);

/// Records that are to be carried, in the order of tables and keys.
pub struct Carry<'a> {
    tree: &'a Tree,
    base: BaseId,
    epoch: Epoch,
    /// What is looked at next.
    next: Next,
    batch: VecDeque<(Key, Epoch, Vec<u8>)>,
    /// Of all, only up to this key, as sets have it.
    last: Option<Vec<u8>>,
    /// Whether the inode that was looked at last has a name, then and now: keys of one come together.
    named: [Option<(InodeNo, bool)>; 2],
}

enum Next {
    /// All of a table, from a key on.
    Table(usize, Vec<u8>),
    /// These, where they differ from another moment.
    Keys(std::collections::btree_set::IntoIter<Key>, Epoch),
}

impl<'a> Carry<'a> {
    /// All records of a snapshot.
    pub fn all(tree: &'a Tree, base: BaseId, epoch: Epoch) -> Carry<'a> {
        Carry {
            tree,
            base,
            epoch,
            next: Next::Table(0, base.prefix().to_vec()),
            batch: VecDeque::new(),
            last: None,
            named: [None; 2],
        }
    }

    /// The records of a snapshot that differ from those of an earlier one, which is there as well.
    pub fn since(tree: &'a Tree, base: BaseId, before: Epoch, epoch: Epoch) -> Result<Carry<'a>> {
        let (keys, inodes) = (BTreeSet::new(), BTreeSet::new());
        let keys = Candidates { tree, base, before, epoch, keys, inodes }.find()?;
        let next = Next::Keys(keys.into_iter(), before);
        Ok(Carry { tree, base, epoch, next, batch: VecDeque::new(), last: None, named: [None; 2] })
    }

    /// Only what comes behind a key, as sets have them.
    pub fn behind(mut self, last: &[u8]) -> Carry<'a> {
        let Some((number, rest)) = last.split_first() else { return self };
        let prefix = self.base.prefix();
        match &mut self.next {
            Next::Table(at, from) => {
                *at = TABLES.iter().position(|table| *table as u8 >= *number).unwrap_or(TABLES.len());
                if TABLES.get(*at).is_some_and(|table| *table as u8 == *number) {
                    *from = [&prefix[..], rest, &[0]].concat();
                }
            }
            Next::Keys(keys, _) => {
                let is_behind = |(table, key): &Key| (*table as u8, &key[prefix.len()..]) > (*number, rest);
                *keys = keys.filter(is_behind).collect::<BTreeSet<_>>().into_iter();
            }
        }
        self
    }

    /// Only what comes up to, and with, a key.
    pub fn up_to(mut self, last: &[u8]) -> Carry<'a> {
        let prefix = self.base.prefix().len();
        let is_before = |(table, key): &Key| last.split_first() >= Some((&(*table as u8), &key[prefix..]));
        if let Next::Keys(keys, _) = &mut self.next {
            *keys = keys.filter(is_before).collect::<BTreeSet<_>>().into_iter();
        } else {
            self.last = Some(last.to_vec());
        }
        self
    }
}

impl Carry<'_> {
    fn step(&mut self) -> Result<Option<Carried>> {
        while let Next::Keys(keys, before) = &mut self.next {
            let (key, before) = (keys.next(), *before);
            let Some((table, key)) = key else { return Ok(None) };
            if let Some(carried) = self.differing(table, &key, before)? {
                return Ok(Some(carried));
            }
        }
        match self.next_record()? {
            Some(((table, key), birth, value)) => self.carried(table, &key, birth, value).map(Some),
            None => Ok(None),
        }
    }

    /// The next of all records of inodes that have a name.
    fn next_record(&mut self) -> Result<Option<(Key, Epoch, Vec<u8>)>> {
        loop {
            if let Some(((table, key), birth, value)) = self.batch.pop_front() {
                let place = (table as u8, &key[self.base.prefix().len()..]);
                let is_behind =
                    |last: &Vec<u8>| last.split_first().is_none_or(|(number, rest)| place > (*number, rest));
                if self.last.as_ref().is_some_and(is_behind) {
                    self.batch.clear();
                    self.next = Next::Table(TABLES.len(), Vec::new());
                    return Ok(None);
                }
                if self.is_named(1, &key, self.epoch)? {
                    return Ok(Some(((table, key), birth, value)));
                }
                continue;
            }
            let Next::Table(at, from) = &mut self.next else { return Ok(None) };
            let Some(table) = TABLES.get(*at).copied() else { return Ok(None) };
            let from = std::mem::take(from);
            let rest = self.read_range(table, from)?;
            let Next::Table(at, from) = &mut self.next else { continue };
            match rest {
                Some(rest) => *from = rest,
                None => (*at, *from) = (*at + 1, self.base.prefix().to_vec()),
            }
        }
    }

    /// What a key is now, where that is not what it was.
    fn differing(&mut self, table: Table, key: &[u8], before: Epoch) -> Result<Option<Carried>> {
        let is_part = [self.is_named(0, key, before)?, self.is_named(1, key, self.epoch)?];
        let look = self.tree.device.look()?;
        // One that was deleted meanwhile would look as if it had nothing.
        for epoch in [before, self.epoch] {
            look.moments().check(root_of(self.base).at(Moment::At(epoch)))?;
        }
        let at = |number: usize, epoch| match is_part[number] {
            true => look.record_at(table, key, Moment::At(epoch)),
            false => Ok(None),
        };
        let (old, new) = (at(0, before)?, at(1, self.epoch)?);
        drop(look);
        match (old, new) {
            (Some((_, old)), Some((_, new))) if old == new => Ok(None),
            (_, Some((birth, value))) => self.carried(table, key, birth, value).map(Some),
            (Some(_), None) => {
                let key = key[self.base.prefix().len()..].to_vec();
                Ok(Some(Carried { table, key, birth: self.epoch, what: Burden::Gone }))
            }
            (None, None) => Ok(None),
        }
    }

    /// Whether the inode of a key has a name in a snapshot: then, which is 0, or now.
    fn is_named(&mut self, which: usize, key: &[u8], epoch: Epoch) -> Result<bool> {
        let Some(inode) = InodeNo::of_key(key) else { return Ok(false) };
        if let Some((known, is_named)) = self.named[which]
            && known == inode
        {
            return Ok(is_named);
        }
        self.tree.device.look()?.moments().check(inode.at(Moment::At(epoch)))?;
        let is_named = self.tree.comparison().inode_or_none(inode.at(Moment::At(epoch)))?.is_some();
        self.named[which] = Some((inode, is_named));
        Ok(is_named)
    }

    /// Reads some records of a table; where to go on, if there may be more.
    fn read_range(&mut self, table: Table, from: Vec<u8>) -> Result<Option<Vec<u8>>> {
        let look = self.tree.device.look()?;
        let moment = Moment::At(self.epoch);
        look.moments().check(root_of(self.base).at(moment))?;
        let mut rest = None;
        let batch = &mut self.batch;
        look.records(table, &from, &prefix_end(&self.base.prefix()), moment, |key, birth, value| {
            if batch.len() == STEP {
                rest = Some(key.to_vec());
                return Ok(ControlFlow::Break(()));
            }
            batch.push_back(((table, key.to_vec()), birth, value.to_vec()));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(rest)
    }

    fn carried(&self, table: Table, key: &[u8], birth: Epoch, value: Vec<u8>) -> Result<Carried> {
        let rest = key[self.base.prefix().len()..].to_vec();
        let what = match split_track_key(key).filter(|_| table == Table::Track) {
            Some((inode, track)) => self.read_track(inode, track)?,
            None => Burden::Record(value),
        };
        Ok(Carried { table, key: rest, birth, what })
    }

    fn read_track(&self, inode: InodeNo, track: TrackNo) -> Result<Burden> {
        let device = &self.tree.device;
        let at = inode.at(Moment::At(self.epoch));
        let source = {
            let look = device.look()?;
            look.moments().check(at)?;
            device.source(&look, at, track)?
        };
        let read = device.read_track(source, at, track);
        device.look()?.moments().check(at)?;
        match read {
            Ok(bytes) => Ok(Burden::Track(bytes)),
            Err(error @ (Error::Corrupt { .. } | Error::Media { .. })) => {
                let path = self.tree.names().paths(at).unwrap_or_default().pop();
                let path = path.map_or(format!("inode {}", inode.number()), |path| shown(&path).to_string());
                Ok(Burden::Lost(path, error))
            }
            Err(error) => Err(error),
        }
    }
}

impl Iterator for Carry<'_> {
    type Item = Result<Carried>;

    fn next(&mut self) -> Option<Result<Carried>> {
        self.step().transpose()
    }
}

/// Records of a snapshot that are not what a set has: found beside the keys of that set, whose own snapshot need not be there any
/// more. What has become what it is since then is carried, also where it is the same again.
pub struct Beside<'a, I: Iterator<Item = Result<Vec<u8>>>> {
    now: Carry<'a>,
    next: Option<(Key, Epoch, Vec<u8>)>,
    has_begun: bool,
    since: Epoch,
    /// Each with its table in front.
    before: Peekable<I>,
}

impl<'a> Carry<'a> {
    /// These records beside the keys that another moment of the base has in the same range, as a set keeps them: that of an epoch.
    pub fn beside<I: Iterator<Item = Result<Vec<u8>>>>(self, since: Epoch, before: I) -> Beside<'a, I> {
        Beside { now: self, next: None, has_begun: false, since, before: before.peekable() }
    }

    /// Whether it can be told by births what a base was: not while it shows what comes from elsewhere.
    pub fn can_be_beside(tree: &Tree, base: BaseId) -> Result<bool> {
        Ok(tree.device.look()?.base_record(base)?.eras.is_empty())
    }
}

impl<I: Iterator<Item = Result<Vec<u8>>>> Beside<'_, I> {
    fn step(&mut self) -> Result<Option<Carried>> {
        if !self.has_begun {
            (self.has_begun, self.next) = (true, self.now.next_record()?);
        }
        loop {
            let base = self.now.base.prefix().len();
            let key = self.next.as_ref().map(|((table, key), ..)| [&[*table as u8], &key[base..]].concat());
            let before = match self.before.peek() {
                Some(Ok(before)) => Some(before),
                Some(Err(_)) => return self.before.next().transpose().map(|_| None),
                None => None,
            };
            let is_gone = match (&before, &key) {
                (None, None) => return Ok(None),
                (Some(before), Some(key)) => *before < key,
                (before, _) => before.is_some(),
            };
            if is_gone {
                let Some(before) = self.before.next().transpose()? else { return Ok(None) };
                let table = before.first().and_then(|table| Table::from_number(*table));
                let (Some(table), epoch) = (table, self.now.epoch) else { continue };
                return Ok(Some(Carried { table, key: before[1..].to_vec(), birth: epoch, what: Burden::Gone }));
            }
            let was_there = before == key.as_ref();
            if was_there {
                self.before.next();
            }
            let Some(((table, key), birth, value)) = self.next.take() else { return Ok(None) };
            self.next = self.now.next_record()?;
            if !was_there || birth > self.since {
                return self.now.carried(table, &key, birth, value).map(Some);
            }
        }
    }
}

impl<I: Iterator<Item = Result<Vec<u8>>>> Iterator for Beside<'_, I> {
    type Item = Result<Carried>;

    fn next(&mut self) -> Option<Result<Carried>> {
        self.step().transpose()
    }
}

/// Keys that may differ between two snapshots.
struct Candidates<'a> {
    tree: &'a Tree,
    base: BaseId,
    before: Epoch,
    epoch: Epoch,
    keys: BTreeSet<Key>,
    /// Inodes that were looked into.
    inodes: BTreeSet<InodeNo>,
}

impl Candidates<'_> {
    fn find(mut self) -> Result<BTreeSet<Key>> {
        let spans = self.tree.comparison().spans(self.base, self.before, self.epoch)?;
        let mut changed = BTreeSet::new();
        for (start, end) in spans.spans {
            let keys = &mut self.keys;
            each_named(&self.tree.device, Increments::between(self.base, start, end), &mut |named| {
                if TABLES.contains(&named.table) {
                    keys.insert((named.table, named.key.clone()));
                    changed.extend(named.inode());
                }
                Ok(())
            })?;
        }
        if !spans.is_all {
            // What was taken over from another base is named by nothing of this one.
            for epoch in [self.before, self.epoch] {
                for table in TABLES {
                    self.add(table, &self.base.prefix(), epoch)?;
                }
            }
            return Ok(self.keys);
        }
        for inode in changed {
            self.look_into(inode)?;
        }
        let moments = [self.before, self.epoch].map(Moment::At);
        for file in self.tree.track_changes().changed_tracks(self.base, moments[0], moments[1], None)? {
            for track in file.tracks.into_iter().flat_map(TrackNo::each) {
                self.keys.insert((Table::Track, track_key(file.inode, track).to_vec()));
            }
        }
        Ok(self.keys)
    }

    /// All that belongs to an inode but its tracks, and to what is new in it.
    fn look_into(&mut self, inode: InodeNo) -> Result<()> {
        let mut pending = vec![inode];
        while let Some(inode) = pending.pop() {
            if !self.inodes.insert(inode) {
                continue;
            }
            let prefix = inode.prefix();
            self.keys.insert((Table::Inode, prefix.to_vec()));
            let epochs = [self.before, self.epoch];
            // Of one that had no name, and so was not part of the tree, all that there was may have changed.
            let is_there = |epoch| self.tree.comparison().inode_or_none(inode.at(Moment::At(epoch)));
            let [was_there, is_there] = [is_there(self.before)?.is_some(), is_there(self.epoch)?.is_some()];
            for epoch in epochs {
                for table in [Table::Xattr, Table::Link] {
                    self.add(table, &prefix, epoch)?;
                }
                if was_there != is_there {
                    self.add(Table::Track, &prefix, epoch)?;
                }
            }
            // Names that went, or came, and what they led to.
            let mut names = BTreeSet::new();
            if was_there {
                self.each(Table::Dirent, &prefix, self.before, |key, value| {
                    names.insert((key, value));
                })?;
            }
            let mut came = Vec::new();
            self.each(Table::Dirent, &prefix, self.epoch, |key, value| {
                let name = (key, value);
                if !names.remove(&name) {
                    came.push(name);
                }
            })?;
            for (key, value) in names.into_iter().chain(came) {
                pending.push(self.tree.names().entry_of(&key, &value)?.inode);
                self.keys.insert((Table::Dirent, key));
            }
        }
        Ok(())
    }

    /// Adds the keys of a table with a prefix at a moment.
    fn add(&mut self, table: Table, prefix: &[u8], epoch: Epoch) -> Result<()> {
        let mut found = Vec::new();
        self.each(table, prefix, epoch, |key, _| found.push((table, key)))?;
        self.keys.extend(found);
        Ok(())
    }

    /// Visits the records of a table with a prefix at a moment, so many under one lock.
    fn each(&self, table: Table, prefix: &[u8], epoch: Epoch, mut visit: impl FnMut(Vec<u8>, Vec<u8>)) -> Result<()> {
        let (mut from, to) = (prefix.to_vec(), prefix_end(prefix));
        loop {
            let look = self.tree.device.look()?;
            look.moments().check(root_of(self.base).at(Moment::At(epoch)))?;
            let (mut count, mut rest) = (0, None);
            look.scan(table, &from, &to, Moment::At(epoch), |key, value| {
                if count == STEP {
                    rest = Some(key.to_vec());
                    return Ok(ControlFlow::Break(()));
                }
                count += 1;
                visit(key.to_vec(), value.to_vec());
                Ok(ControlFlow::Continue(()))
            })?;
            match rest {
                Some(rest) => from = rest,
                None => return Ok(()),
            }
        }
    }
}
