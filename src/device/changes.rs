//! What has changed in each inode since the last freeze, as far as fsync has to know.

use super::past::InodeNo;
use crate::journal::Ticket;
use crate::limits::JOURNAL_RANGES_MAX;
use std::collections::HashMap;
use std::ops::Range;

/// What one operation did to an inode.
#[derive(Clone, Debug)]
pub enum Note {
    /// Its record changed.
    Record,
    Written(Range<u64>),
    /// It was made shorter, to this size.
    Cut(u64),
    Created,
    /// Something that only a commit makes durable: its names, its xattrs, the entries of a directory.
    NeedsCommit,
}

/// What has become of an inode and is not in the journal.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub is_pending: bool,
    pub needs_commit: bool,
    pub is_new: bool,
    /// The smallest size it was cut to.
    pub cut: Option<u64>,
    /// Bytes that were written since, in no order.
    pub ranges: Vec<Range<u64>>,
    /// What the journal has of it is durable once this is.
    pub journaled: Ticket,
}

impl Change {
    fn note(&mut self, note: Note) {
        self.is_pending = true;
        match note {
            Note::Record => {}
            Note::Written(range) => self.add(range),
            Note::Cut(size) => {
                self.cut = Some(self.cut.map_or(size, |cut| cut.min(size)));
                self.ranges.retain_mut(|range| {
                    range.end = range.end.min(size);
                    range.start < range.end
                });
            }
            Note::Created => self.is_new = true,
            Note::NeedsCommit => self.needs_commit = true,
        }
    }

    fn add(&mut self, range: Range<u64>) {
        // Most writes go on where the last one ended, or write the same place again.
        if let Some(known) = self.ranges.iter_mut().find(|known| known.start <= range.end && range.start <= known.end) {
            *known = known.start.min(range.start)..known.end.max(range.end);
        } else if self.ranges.len() < JOURNAL_RANGES_MAX {
            self.ranges.push(range);
        } else {
            self.needs_commit = true;
        }
    }

    /// What was done before this, in an overlay that is being committed, is to be done as well.
    fn after(mut self, before: &Change) -> Change {
        let ranges = std::mem::take(&mut self.ranges);
        let cut = self.cut.take();
        let mut whole = before.clone();
        if let Some(size) = cut {
            whole.note(Note::Cut(size));
        }
        for range in ranges {
            whole.add(range);
        }
        whole.is_pending |= self.is_pending;
        whole.needs_commit |= self.needs_commit;
        whole.is_new |= self.is_new;
        whole.journaled = whole.journaled.max(self.journaled);
        whole
    }

    fn clear(&mut self) {
        *self = Change {
            journaled: self.journaled,
            needs_commit: self.needs_commit,
            is_new: self.is_new,
            ..Change::default()
        };
    }
}

#[derive(Default)]
struct Period {
    inodes: HashMap<InodeNo, Change>,
    /// Keys of directory entries that the journal makes, and for which inode.
    claimed: HashMap<Vec<u8>, InodeNo>,
}

/// The changes since the last freeze, and those of a commit under way.
#[derive(Default)]
pub struct Changes {
    active: Period,
    frozen: Period,
}

impl Changes {
    pub(super) fn note(&mut self, inode: InodeNo, note: Note) {
        self.active.inodes.entry(inode).or_default().note(note);
    }

    pub(super) fn freeze(&mut self) {
        self.frozen = std::mem::take(&mut self.active);
    }

    pub(super) fn published(&mut self) {
        self.frozen = Period::default();
    }

    /// All that is not durable of an inode.
    pub fn get(&self, inode: InodeNo) -> Option<Change> {
        match (self.active.inodes.get(&inode), self.frozen.inodes.get(&inode)) {
            (Some(active), Some(frozen)) => Some(active.clone().after(frozen)),
            (active, frozen) => active.or(frozen).cloned(),
        }
    }

    /// The inode's changes up to now are about to be journaled.
    pub fn begin(&mut self, inode: InodeNo) {
        for period in [&mut self.active, &mut self.frozen] {
            if let Some(change) = period.inodes.get_mut(&inode) {
                change.clear();
            }
        }
    }

    /// They are in the journal, and with them that the inode exists.
    pub fn journaled(&mut self, inode: InodeNo, ticket: Ticket) {
        for period in [&mut self.active, &mut self.frozen] {
            if let Some(change) = period.inodes.get_mut(&inode) {
                change.is_new = false;
                change.journaled = change.journaled.max(ticket);
            }
        }
    }

    /// Reserves a directory entry for the journal; false if it has made that entry for another inode.
    pub fn claim(&mut self, dirent: &[u8], inode: InodeNo) -> bool {
        let is_other = |period: &Period| period.claimed.get(dirent).is_some_and(|owner| *owner != inode);
        if is_other(&self.active) || is_other(&self.frozen) {
            return false;
        }
        self.active.claimed.insert(dirent.to_vec(), inode);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::LIVE;

    const FILE: InodeNo = InodeNo::new(LIVE, 7);
    const OTHER: InodeNo = InodeNo::new(LIVE, 8);

    #[test]
    fn a_cut_takes_what_was_written_behind_it_along() {
        let mut change = Change::default();
        change.note(Note::Written(0..100));
        change.note(Note::Written(100..200));
        change.note(Note::Written(500..600));
        assert_eq!(change.ranges, [0..200, 500..600]);
        change.note(Note::Cut(150));
        change.note(Note::Written(160..170));
        assert_eq!((change.cut, change.ranges.as_slice()), (Some(150), &[0..150, 160..170][..]));
    }

    #[test]
    fn changes_of_a_commit_under_way_come_first() {
        let mut changes = Changes::default();
        changes.note(FILE, Note::Created);
        changes.note(FILE, Note::Written(0..100));
        changes.freeze();
        changes.note(FILE, Note::Cut(50));
        changes.note(FILE, Note::Written(60..70));
        let change = changes.get(FILE).unwrap();
        assert_eq!((change.cut, change.ranges.as_slice()), (Some(50), &[0..50, 60..70][..]));
        assert!(change.is_new && change.is_pending);
        changes.begin(FILE);
        changes.journaled(FILE, Ticket::default());
        let change = changes.get(FILE).unwrap();
        assert!(!change.is_new && !change.is_pending && change.ranges.is_empty() && change.cut.is_none());
        assert!(changes.claim(b"a", FILE) && changes.claim(b"a", FILE) && !changes.claim(b"a", OTHER));
        changes.freeze();
        assert!(!changes.claim(b"a", OTHER));
        changes.published();
        assert!(changes.claim(b"a", OTHER));
    }
}
