//! What was done to a store: when, by whom.

use super::Views;
use crate::clock::Timestamp;
use crate::device::{BaseId, Changing};
use crate::error::{Error, Result};
use crate::meta::{Pair, Table, decode};
use serde::{Deserialize, Serialize};

/// Older entries are forgotten.
const ENTRIES_MAX: u64 = 100_000;

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    pub time: Timestamp,
    pub uid: u32,
    pub base: BaseId,
    /// Like the command that did it.
    pub what: String,
}

impl Views {
    /// Notes what is being done, as a part of it.
    pub(super) fn note(&self, changing: &mut Changing<'_>, what: &str) -> Result<()> {
        let entry = HistoryEntry { time: Timestamp::now(), uid: self.uid, base: self.base, what: what.to_string() };
        let last = changing.meta().last(Table::History, &[], &[u8::MAX; 9])?;
        let after = |(key, _): Pair| u64::from_be_bytes(key.try_into().ok()?).checked_add(1);
        let damaged = || Error::corrupt("the table of the history", "its last key is no number that another follows");
        let number = last.map_or(Ok(1), |last| after(last).ok_or_else(damaged))?;
        let meta = changing.meta_mut();
        meta.put(Table::History, &number.to_be_bytes(), &entry);
        if let Some(old) = number.checked_sub(ENTRIES_MAX) {
            meta.remove(Table::History, &old.to_be_bytes());
        }
        Ok(())
    }

    /// Notes what was done, durably with all that came before.
    pub fn note_done(&self, what: &str) -> Result<()> {
        self.change(|_| Ok(what.to_string()))
    }

    /// All that is remembered, the oldest first.
    pub fn history(&self) -> Result<Vec<HistoryEntry>> {
        let look = self.tree.device().look()?;
        let all = look.meta().range(Table::History, &[], &[u8::MAX; 9])?;
        all.map(|pair| pair.and_then(|(key, value)| decode(Table::History, &key, &value))).collect()
    }
}
