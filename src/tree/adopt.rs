//! Taking over into a base what a set has of a moment, record by record: the other way round than [`super::carry`].
//!
//! Inodes keep their numbers, and entries their places. What is taken over is said absolutely, so that doing it again changes
//! nothing: after an interruption it is begun anew.
//!
//! Invariants:
//! - the base is shown by nobody meanwhile: in between, names lead to what is not there yet;
//! - a record that no store could have made is damage, whoever has sealed it.

use super::carry::TABLES as CARRIED;
use super::recut::Recut;
use super::{NEXT_INODE, Tree, check};
use crate::device::{BaseId, InodeNo, Moment, TrackNo, Txn, split_track_key};
use crate::error::{Error, Result};
use crate::meta::{Table, hex, prefix_end, record_name};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Changes of one transaction, and bytes after which it ends.
const STEP: usize = 512;
const STEP_BYTES: usize = 4 << 20;
/// Bytes of changes after which there is a commit: more is not kept in memory.
const COMMIT_BYTES: usize = 32 << 20;
/// About what a record takes in memory.
const RECORD_BYTES: usize = 256;

/// What a key is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// As a set has it, without its birth.
    Record(Vec<u8>),
    /// The bytes of a track.
    Track(Vec<u8>),
    Gone,
    /// Nothing is left of this inode, and another one may come.
    Fresh,
}

/// Records on their way into a base, in the order of tables and keys.
pub struct Adoption<'a> {
    tree: &'a Tree,
    base: BaseId,
    pending: Vec<(Table, Vec<u8>, Adopted)>,
    /// What is pending takes tracks away: in the same transaction they cannot come.
    clears: bool,
    bytes: usize,
    uncommitted: usize,
    /// Where tracks have another size.
    recut: Option<Recut>,
}

impl<'a> Adoption<'a> {
    /// Of a store with tracks of so many bytes.
    pub fn into(tree: &'a Tree, base: BaseId, track_bytes: u64) -> Adoption<'a> {
        let recut = (track_bytes != tree.device.track_bytes()).then(|| Recut::of(track_bytes));
        Adoption { tree, base, pending: Vec::new(), clears: false, bytes: 0, uncommitted: 0, recut }
    }

    /// A record comes, and was this in the moment that the base shows. If it is an inode that was not there, the base may have had one
    /// of its number that was in use without a name, and has nothing of that any more.
    pub fn begin(&mut self, key: &[u8], was: Option<&[u8]>) -> Result<()> {
        let Some(rest) = key.strip_prefix(&[Table::Inode as u8]) else { return Ok(()) };
        match (was, &mut self.recut) {
            (None, _) => self.take(key, Adopted::Fresh),
            (Some(was), Some(recut)) => {
                let number = InodeNo::of_key(&[&self.base.prefix()[..], rest].concat());
                recut.begin(number.unwrap_or_default(), was)
            }
            (Some(_), None) => Ok(()),
        }
    }

    /// Lets a record be something. In front of its key a set has the table's number, and not the base.
    pub fn take(&mut self, key: &[u8], mut what: Adopted) -> Result<()> {
        let found = key.split_first().and_then(|(table, rest)| Some((Table::from_number(*table)?, rest)));
        let damaged = || Error::corrupt(format!("the key {}", hex(key)), "it is one of no table");
        let (table, rest) = found.ok_or_else(damaged)?;
        let key = [&self.base.prefix()[..], rest].concat();
        match &what {
            _ if !CARRIED.contains(&table) => {
                return Err(Error::corrupt(record_name(table, &key), "no set has records of this table"));
            }
            Adopted::Record(value) => {
                check::could_be(self.tree, table, &key, value)?;
                if table == Table::Inode && InodeNo::of_key(&key).is_none_or(|number| number.prefix() != key[..]) {
                    return Err(Error::corrupt(record_name(table, &key), "its key is that of no inode"));
                }
            }
            Adopted::Track(bytes) if self.recut.is_none() && bytes.len() as u64 > self.tree.device.track_bytes() => {
                let problem = format!("it has {} bytes, and no track of this store can have", bytes.len());
                return Err(Error::corrupt(record_name(table, &key), problem));
            }
            Adopted::Track(_) | Adopted::Gone | Adopted::Fresh => {}
        }
        if self.recut.is_some() && table == Table::Track {
            return self.take_recut(&key, what);
        }
        if self.recut.is_some() && table == Table::Inode && what == Adopted::Gone {
            // Its tracks are not told one by one what they are here.
            what = Adopted::Fresh;
        }
        if let (Some(recut), Adopted::Record(value), Table::Inode) = (&mut self.recut, &what, table) {
            let number = InodeNo::of_key(&key).unwrap_or_default();
            let is_fresh = matches!(self.pending.last(), Some((_, last, Adopted::Fresh)) if *last == key);
            what = Adopted::Record(recut.record(self.tree, number, is_fresh, value)?);
        }
        if self.clears && matches!(what, Adopted::Track(_)) {
            self.apply()?;
        }
        self.clears |= what == Adopted::Fresh;
        self.bytes += match &what {
            Adopted::Record(value) => value.len() + RECORD_BYTES,
            Adopted::Track(bytes) => bytes.len() + RECORD_BYTES,
            Adopted::Gone | Adopted::Fresh => RECORD_BYTES,
        };
        self.pending.push((table, key, what));
        if self.pending.len() >= STEP || self.bytes >= STEP_BYTES { self.apply() } else { Ok(()) }
    }

    /// A track of another size, or that it is gone.
    fn take_recut(&mut self, key: &[u8], what: Adopted) -> Result<()> {
        if !self.pending.is_empty() {
            self.apply()?;
        }
        let (Some(recut), Some(track)) = (&mut self.recut, split_track_key(key)) else {
            return Err(Error::corrupt(record_name(Table::Track, key), "it is no record of its table"));
        };
        let bytes = match &what {
            Adopted::Track(bytes) => Some(bytes.as_slice()),
            _ => None,
        };
        self.uncommitted += recut.track(self.tree, track, bytes)?;
        self.commit_if_much()
    }

    /// All is durable when this returns.
    pub fn finish(mut self) -> Result<()> {
        self.apply()?;
        if let Some(recut) = &mut self.recut {
            recut.close(self.tree)?;
        }
        self.tree.commit()
    }

    fn commit_if_much(&mut self) -> Result<()> {
        if self.uncommitted < COMMIT_BYTES {
            return Ok(());
        }
        self.uncommitted = 0;
        self.tree.commit()
    }

    fn apply(&mut self) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        self.clears = false;
        match self.tree.with_room(|| self.apply_once(&pending)) {
            // What is not written yet has room set aside as if nothing of it could be compressed.
            Err(error) if error.is_no_space() && self.uncommitted > 0 => {
                self.tree.commit()?;
                self.uncommitted = 0;
                self.tree.with_room(|| self.apply_once(&pending))?;
            }
            applied => applied?,
        }
        self.uncommitted += std::mem::take(&mut self.bytes);
        self.commit_if_much()
    }

    fn apply_once(&self, pending: &[(Table, Vec<u8>, Adopted)]) -> Result<()> {
        let mut txn = self.tree.device.begin_growing()?;
        let mut tracks: Vec<((InodeNo, TrackNo), &Vec<u8>)> = Vec::new();
        let mut newest = 0;
        for (table, key, what) in pending {
            match (what, split_track_key(key).filter(|_| *table == Table::Track)) {
                (Adopted::Track(bytes), Some(track)) => tracks.push((track, bytes)),
                (Adopted::Gone, Some((inode, track))) => {
                    txn.remove_tracks(inode, track, track.plus(1))?;
                }
                (Adopted::Record(value), None) => {
                    if *table == Table::Inode {
                        newest = newest.max(InodeNo::of_key(key).unwrap_or_default().number());
                    }
                    txn.set_value(*table, key, value)?;
                }
                (Adopted::Gone, None) => drop(txn.unset(*table, key)?),
                (Adopted::Fresh, _) => clear(&mut txn, key)?,
                _ => return Err(Error::corrupt(record_name(*table, key), "it is no record of its table")),
            }
        }
        let next: u64 = txn.meta().get(Table::State, NEXT_INODE)?.unwrap_or_default();
        if newest >= next {
            txn.meta_mut().put(Table::State, NEXT_INODE, &(newest + 1));
        }
        txn.check_growth(tracks.len())?;
        let slots = tracks.iter().filter(|((inode, track), _)| txn.needs_slot(*inode, *track)).count();
        txn.reserve(slots)?;
        // From here on nothing fails.
        for ((inode, track), bytes) in tracks {
            txn.edit_track(inode, track, Some(Arc::default()), |now| now.clone_from(bytes));
        }
        txn.finish()
    }
}

/// Removes all that there is of an inode.
fn clear(txn: &mut Txn<'_>, key: &[u8]) -> Result<()> {
    let inode =
        InodeNo::of_key(key).ok_or_else(|| Error::corrupt(record_name(Table::Inode, key), "it is of no inode"))?;
    // It would go, were it noted as one without a name.
    txn.remove_orphan(inode);
    let (from, to) = (inode.prefix(), prefix_end(&inode.prefix()));
    for table in CARRIED.into_iter().filter(|table| *table != Table::Track) {
        let mut keys = Vec::new();
        txn.scan(table, &from, &to, Moment::Live, |key, _| {
            keys.push(key.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        for key in keys {
            txn.unset(table, &key)?;
        }
    }
    txn.remove_tracks(inode, TrackNo::FIRST, TrackNo::MAX).map(drop)
}
