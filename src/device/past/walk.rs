//! How far settling a base has come: what is still to be looked at, and where that goes on.

use super::base::Point;
use super::number::BaseId;
use super::work::NotedWork;
use super::work::{SETTLE, work_range};
use crate::clock::Epoch;
use crate::error::{Error, Result};
use crate::meta::{Table, decode, record_name};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
/// Where to look for keys that are to be settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Walk {
    /// Everything that the source has.
    All,
    /// What a base changed after an epoch, up to another.
    Changed { base: BaseId, after: Epoch, to: Epoch },
    /// What has no name in the base at an epoch, and so is found in no directory.
    Nameless { to: Epoch },
}

/// How far settling an era has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settle {
    /// Walks to be made. What they look at stays until all are over.
    pub walks: Vec<Walk>,
    /// How many of them are over; the next is under way.
    pub over: usize,
    /// Where it goes on.
    pub cursor: ByteBuf,
    /// Blocks of tracks that were settled, and how many there are in all, if that is known.
    #[serde(deserialize_with = "crate::limits::number::blocks")]
    pub done: u64,
    #[serde(deserialize_with = "crate::limits::number::blocks")]
    pub total: u64,
}

impl Settle {
    pub fn new(walks: Vec<Walk>, total: u64) -> Settle {
        Settle { walks, over: 0, cursor: ByteBuf::new(), done: 0, total }
    }

    /// What a record says.
    pub(in crate::device) fn of(key: &[u8], value: &[u8]) -> Result<Settle> {
        let settle: Settle = decode(Table::Orphan, key, value)?;
        match settle.over <= settle.walks.len() {
            true => Ok(settle),
            false => {
                let problem = format!("{} of its {} walks are said to be over", settle.over, settle.walks.len());
                Err(Error::corrupt(record_name(Table::Orphan, key), problem))
            }
        }
    }

    /// Snapshots whose increments and states the walks look at.
    pub(in crate::device) fn points(&self) -> impl Iterator<Item = Point> {
        self.walks.iter().flat_map(|walk| match *walk {
            Walk::Changed { base, after, to } => vec![Point { base, epoch: after }, Point { base, epoch: to }],
            Walk::All | Walk::Nameless { .. } => Vec::new(),
        })
    }
}

/// An inode that changed: what was created in it is still to be looked for.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::device) struct InodeWalk {
    pub base: BaseId,
    pub after: Epoch,
    pub to: Epoch,
    pub cursor: ByteBuf,
}

impl NotedWork<'_> {
    /// Whether some of a base is still to be settled in the background.
    pub fn is_settling(self, base: BaseId) -> Result<bool> {
        let (from, to) = work_range(base, SETTLE);
        Ok(self.past.meta.last(Table::Orphan, &from, &to)?.is_some())
    }

    /// How far settling a base has come: blocks done and in all (0 where unknown).
    pub fn settling(self, base: BaseId) -> Result<Option<Settle>> {
        let (from, to) = work_range(base, SETTLE);
        let first = self.past.meta.range(Table::Orphan, &from, &to)?.next().transpose()?;
        first.map(|(key, value)| Settle::of(&key, &value)).transpose()
    }

    /// Snapshots that are needed until a base is settled, besides those its eras name.
    pub fn walked(self, base: BaseId) -> Result<Vec<Point>> {
        let (from, to) = work_range(base, SETTLE);
        let mut points = Vec::new();
        for pair in self.past.meta.range(Table::Orphan, &from, &to)? {
            let (key, value) = pair?;
            points.extend(Settle::of(&key, &value)?.points());
        }
        Ok(points)
    }
}
