//! What of a directory of increments a store can reach, and what else lies there.

use super::catalog::{Broken, Holds, note_gaps, read_all};
use super::chain::{Joined, tip};
use super::{Header, Increment, Label, Mark};
use crate::clock::Epoch;
use crate::error::Result;
use crate::media::Directory;
use std::path::{Path, PathBuf};

/// How the increments of a base join, as seen from a store.
#[derive(Clone, Debug)]
pub struct Reach {
    pub directory: PathBuf,
    /// The newest snapshot that the store has and an increment leads to.
    pub tip: Option<Mark>,
    /// The times that can be reached, the oldest first.
    pub marks: Vec<Mark>,
    /// The epochs between which times were merged away, in order.
    pub merged: Vec<(Epoch, Epoch)>,
    /// What else there is of the base, the oldest first.
    pub others: Vec<Increment>,
    pub broken: Vec<Broken>,
}

impl Reach {
    /// Of a directory that is not there, or has nothing in it.
    pub fn of_nothing(directory: &Path) -> Reach {
        Reach::of_chain(directory, None, &[])
    }

    pub(super) fn of_chain<'a>(
        directory: &Path,
        tip: Option<Mark>,
        chain: impl IntoIterator<Item = &'a Increment>,
    ) -> Reach {
        let (mut marks, mut merged) = (Vec::new(), Vec::new());
        for Header { from, to, merged: within, .. } in chain.into_iter().map(|one| &one.header) {
            marks.push(from.clone());
            merged.extend((!within.is_empty()).then_some((from.epoch, to.epoch)));
        }
        Reach { directory: directory.to_path_buf(), tip, marks, merged, others: Vec::new(), broken: Vec::new() }
    }

    /// Of a directory that is not opened as an archive: nothing is written.
    pub fn survey(directory: &Directory, label: &Label, holds: Holds<'_>) -> Result<Reach> {
        let (mut found, mut broken) = read_all(directory)?;
        found.retain(|one| (one.header.store, one.header.base_id) == (label.store, label.base));
        let headers: Vec<&Header> = found.iter().map(|one| &one.header).collect();
        let tip = tip(&headers, holds)?;
        let Joined { chain, others, .. } = Joined::of(found, tip.as_ref());
        note_gaps(directory.path(), &chain, &others, tip.as_ref(), &mut broken);
        Ok(Reach { others, broken, ..Reach::of_chain(directory.path(), tip, &chain) })
    }

    /// What it leads to beyond what the store has.
    pub fn beyond(&self) -> Option<&Mark> {
        let tip = self.tip.as_ref().map_or(Epoch::ZERO, |tip| tip.epoch);
        self.others.iter().map(|one| &one.header.to).rfind(|to| to.epoch > tip)
    }

    /// Whether the store need not keep a snapshot for it, one that can be looked into: it has its time, or had it until
    /// that was merged away. All such snapshots before the tip were saved, and the chain leads over them.
    pub fn is_done_with(&self, mark: &Mark) -> bool {
        let before = self.merged.partition_point(|(from, _)| *from < mark.epoch);
        let was_merged = before.checked_sub(1).is_some_and(|at| mark.epoch < self.merged[at].1);
        was_merged || self.has(mark)
    }

    /// Whether it has the very time that a mark names.
    pub fn has(&self, mark: &Mark) -> bool {
        let found = self.marks.binary_search_by_key(&mark.epoch, |known| known.epoch);
        found.is_ok_and(|at| self.marks[at].id == mark.id)
    }
}
