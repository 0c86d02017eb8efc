//! Work that outlives the operation that caused it: which there is, and where it is noted.
//!
//! Each piece of work is a record in the `orphan` table, written in the same transaction that caused it,
//! so that a crash at any point loses none of it. Whose work it is knows what is done for it.

use super::Past;
use super::base::Point;
use super::number::{BaseId, InodeNo, LIVE};
use crate::clock::Epoch;
use crate::error::{Error, Result};
use crate::meta::{Table, hex, record_name};

pub(in crate::device) const INODE: u8 = 0;
pub(in crate::device) const SNAPSHOT: u8 = 1;
pub(in crate::device) const SETTLE: u8 = 2;
pub(in crate::device) const INODE_WALK: u8 = 3;
pub(in crate::device) const SWEEP: u8 = 4;
pub(in crate::device) const SEPARATE: u8 = 5;
pub(in crate::device) const BASE: u8 = 6;
/// Directories that settling has looked through in the walk under way.
pub(in crate::device) const WALKED: u8 = 7;

pub(in crate::device) fn work_key(base: BaseId, kind: u8, number: u64) -> [u8; 13] {
    let mut key = [0; 13];
    key[..4].copy_from_slice(&base.prefix());
    key[4] = kind;
    key[5..].copy_from_slice(&number.to_be_bytes());
    key
}

/// What work is about: an inode, an epoch or nothing, as its kind says.
pub(in crate::device) fn work_number(key: &[u8]) -> Result<u64> {
    let damaged = |what: &str| Error::corrupt("the table of work", format!("the key {} {what}", hex(key)));
    let number = key.get(5..).and_then(|number| number.try_into().ok()).map(u64::from_be_bytes);
    let number = number.ok_or_else(|| damaged("has the wrong length"))?;
    // What is masked away would be looked for under another key, and never be done.
    let is_epoch = [SNAPSHOT, SETTLE].map(Some).contains(&key.get(4).copied());
    match InodeNo::from_bare(number).is_some() && !(is_epoch && number >= Epoch::MAX.number().into()) {
        true => Ok(number),
        false => Err(damaged("has a number that nothing can have")),
    }
}

/// The epoch that work on a snapshot or an era is about.
pub(in crate::device) fn work_epoch(key: &[u8]) -> Result<Epoch> {
    work_number(key).map(|number| Epoch::new(number as u32))
}

/// All work of a kind in a base.
pub(in crate::device) fn work_range(base: BaseId, kind: u8) -> ([u8; 13], [u8; 13]) {
    (work_key(base, kind, 0), work_key(base, kind + 1, 0))
}

/// Work that is noted, and how far it has come.
#[derive(Clone, Copy)]
pub struct NotedWork<'a> {
    pub(super) past: &'a Past,
}

impl NotedWork<'_> {
    /// Whether an inode has lost its last name and is to be removed, some time.
    pub fn has_orphan(self, inode: InodeNo) -> Result<bool> {
        self.past.meta.contains(Table::Orphan, &work_key(inode.base(), INODE, inode.number()))
    }

    /// Whether it is to be removed now.
    pub fn may_remove(self, inode: InodeNo) -> Result<bool> {
        Ok(self.has_orphan(inode)? && self.may_remove_orphans(inode.base())?)
    }

    /// Whether what has no name in a base is to be removed now. Until it is settled, that may be of a state that was restored
    /// away. And a mirror in step is the same as a snapshot of its base, with what had no name in it: what goes by itself would be
    /// in no increment, and missing when the mirror becomes another snapshot of its base. It goes with the next step, or once
    /// the mirror is split.
    pub(in crate::device) fn may_remove_orphans(self, base: BaseId) -> Result<bool> {
        let is_in_step = self.past.base(base)?.record.mirror.is_some_and(|mirror| !mirror.is_split);
        Ok(!is_in_step && !self.is_settling(base)?)
    }

    pub(in crate::device) fn has(self, base: BaseId, kind: u8) -> Result<bool> {
        let (from, to) = work_range(base, kind);
        Ok(self.past.meta.last(Table::Orphan, &from, &to)?.is_some())
    }

    /// What is said to go has to be noted as going, and to be needed by nothing.
    pub(in crate::device) fn check_going(self) -> Result<()> {
        let needed = self.past.all_dependants()?;
        for (id, base) in self.past.bases.iter() {
            if self.has(*id, BASE)? && (*id == LIVE || !base.record.deleting) {
                let name = record_name(Table::Orphan, &work_key(*id, BASE, 0));
                return Err(Error::corrupt(name, format!("the base {:?} is not to be deleted", base.record.name)));
            }
            let (from, to) = work_range(*id, SNAPSHOT);
            for pair in self.past.meta.range(Table::Orphan, &from, &to)? {
                let (key, _) = pair?;
                let epoch = work_epoch(&key)?;
                let Some(record) = self.past.moments().snapshot_record(*id, epoch)? else { continue };
                if !record.deleting || record.held || needed.contains_key(&Point { base: *id, epoch }) {
                    let problem = format!("the snapshot {:?} is not to be deleted", record.name);
                    return Err(Error::corrupt(record_name(Table::Orphan, &key), problem));
                }
            }
        }
        Ok(())
    }
}
