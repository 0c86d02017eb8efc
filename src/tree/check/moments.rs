//! Entries in snapshots: what each of them names has to be there, in every snapshot that shows it.
//!
//! A record is there from the first snapshot at or after its birth to the last before its end, so snapshots are
//! counted by their place among those of their base. Of almost every inode one run of places says it all. Snapshots of
//! which some comes from elsewhere are left out.

use super::super::{Entry, Inode, Kind, Tree};
use super::InodeSays;
use crate::clock::Epoch;
use crate::device::{BaseId, InodeNo, Moment, Named, Point, split_record};
use crate::meta::{Table, decode};
use crate::shown::shown;
use std::collections::HashMap;

/// Snapshots in which an inode is there, from one place up to another.
#[derive(Clone, Copy, Debug)]
struct Run {
    from: u32,
    to: u32,
    /// Nothing where it cannot be read: it is named itself.
    kind: Option<Kind>,
}

/// In which snapshots inodes are there.
#[derive(Default)]
pub struct Moments {
    /// The epochs of the snapshots of each base, in order.
    epochs: HashMap<BaseId, Vec<Epoch>>,
    runs: HashMap<InodeNo, Run>,
    /// Of inodes that were there several times.
    more: HashMap<InodeNo, Vec<Run>>,
    /// Old values of one inode, as they come.
    old: Option<Old>,
}

struct Old {
    inode: InodeNo,
    end: Epoch,
    runs: Vec<Run>,
}

impl Moments {
    /// A snapshot that can be looked into; those of a base in order, and all before the records.
    pub fn snapshot(&mut self, Point { base, epoch }: Point) {
        self.epochs.entry(base).or_default().push(epoch);
    }

    /// The places of what was born and has ended, or lasts.
    fn places(&self, base: BaseId, birth: Epoch, end: Option<Epoch>) -> (u32, u32) {
        let epochs = self.epochs.get(&base).map_or(&[][..], Vec::as_slice);
        let place = |at: Epoch| epochs.partition_point(|epoch| *epoch < at) as u32;
        (place(birth), end.map_or(epochs.len() as u32, place))
    }

    /// An inode as it is now. All of these come before the old values.
    pub fn inode(&mut self, InodeSays { number, birth, inode }: &InodeSays) {
        let (from, to) = self.places(number.base(), *birth, None);
        if from < to {
            let kind = inode.as_ref().ok().map(Inode::kind);
            self.runs.insert(*number, Run { from, to, kind });
        }
    }

    /// An old value of a record, in the order of keys and then of ends; an entry can have led to what was not there.
    pub fn old_value(&mut self, tree: &Tree, Named { table, key, end }: &Named, value: &[u8]) -> Option<Gap> {
        let (Ok((birth, record)), Some(inode)) = (split_record(*table, key, value), InodeNo::of_key(key)) else {
            return None;
        };
        match table {
            Table::Inode if record.is_empty() => drop(self.pass_old(inode, birth, *end)),
            Table::Inode => {
                let kind = decode::<Inode>(*table, key, record).ok().map(|inode| inode.kind());
                self.add_old(inode, birth, *end, kind);
            }
            Table::Dirent => {
                self.finish();
                return self.gap(tree, key, (birth, Some(*end)), record);
            }
            _ => self.finish(),
        }
        None
    }

    /// An entry as it is now, when all old values are known.
    pub fn entry(&self, tree: &Tree, key: &[u8], value: &[u8]) -> Option<Gap> {
        let (birth, record) = split_record(Table::Dirent, key, value).ok()?;
        self.gap(tree, key, (birth, None), record)
    }

    /// An entry of some time: whether what it names is there in every snapshot that shows it.
    fn gap(&self, tree: &Tree, key: &[u8], (birth, end): (Epoch, Option<Epoch>), record: &[u8]) -> Option<Gap> {
        // Of a key that is none the entry itself is told.
        let places = self.places(BaseId::of_key(key).ok()?, birth, end);
        if record.is_empty() || places.0 >= places.1 {
            return None;
        }
        let (directory, entry) = (InodeNo::of_key(key)?, tree.names().entry_of(key, record).ok()?);
        let epoch = self.missing(entry.inode, entry.kind, places)?;
        Some(Gap { key: key.to_vec(), directory, entry, epoch })
    }

    /// An old value of an inode; those of one come together, in order of their ends.
    fn add_old(&mut self, inode: InodeNo, birth: Epoch, end: Epoch, kind: Option<Kind>) {
        let (from, to) = self.pass_old(inode, birth, end);
        if let Some(old) = &mut self.old {
            add_run(&mut old.runs, Run { from, to, kind });
        }
    }

    /// The same of one that says that there was nothing; for which snapshots it is read.
    fn pass_old(&mut self, inode: InodeNo, birth: Epoch, end: Epoch) -> (u32, u32) {
        if self.old.as_ref().is_none_or(|old| old.inode != inode) {
            self.finish();
        }
        let old = self.old.get_or_insert(Old { inode, end: Epoch::ZERO, runs: Vec::new() });
        // Up to the end of the one before, that one is read.
        let birth = birth.max(old.end);
        old.end = end;
        self.places(inode.base(), birth, Some(end))
    }

    /// The old values that came last are all of their inode.
    pub fn finish(&mut self) {
        let Some(Old { inode, end, mut runs }) = self.old.take() else { return };
        if let Some(now) = self.runs.remove(&inode) {
            let (from, _) = self.places(inode.base(), end, None);
            add_run(&mut runs, Run { from: now.from.max(from), ..now });
        }
        match runs.as_slice() {
            [] => {}
            [run] => drop(self.runs.insert(inode, *run)),
            _ => drop(self.more.insert(inode, runs)),
        }
    }

    /// The first snapshot of some in which an inode is not there, or is of another kind.
    fn missing(&self, inode: InodeNo, kind: Kind, (from, to): (u32, u32)) -> Option<Epoch> {
        let one = self.runs.get(&inode).map(std::slice::from_ref);
        let runs = one.or_else(|| self.more.get(&inode).map(Vec::as_slice)).unwrap_or_default();
        let mut at = from;
        for run in runs.iter().filter(|run| run.kind.is_none_or(|is| is == kind)) {
            if (run.from..run.to).contains(&at) {
                at = run.to;
            }
        }
        let epochs = self.epochs.get(&inode.base())?;
        if at < to { epochs.get(at as usize).copied() } else { None }
    }
}

/// Adds a run behind others, as a part of the last if it goes on with that.
fn add_run(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        _ if run.from >= run.to => {}
        Some(last) if last.to == run.from && last.kind == run.kind => last.to = run.to,
        _ => runs.push(run),
    }
}

/// A snapshot that shows an entry, and not what it names.
pub struct Gap {
    key: Vec<u8>,
    pub directory: InodeNo,
    pub entry: Entry,
    pub epoch: Epoch,
}

impl Gap {
    /// The name of the snapshot, if whoever looks into it now finds it so.
    pub fn snapshot_now(&self, tree: &Tree) -> Option<String> {
        let Gap { key, directory, entry, epoch } = self;
        let moment = Moment::At(*epoch);
        let (snapshot, value) = {
            let look = tree.device().look().ok()?;
            let snapshot = look.moments().snapshot(directory.base(), *epoch).ok()??;
            (snapshot, look.value(Table::Dirent, key, moment).ok()??)
        };
        let is_shown =
            snapshot.is_readable() && tree.names().entry_of(key, &value).is_ok_and(|now| now.inode == entry.inode);
        let is_there = tree.inode(entry.inode.at(moment)).is_ok_and(|inode| inode.kind() == entry.kind);
        (is_shown && !is_there).then_some(snapshot.record.name)
    }

    pub fn problem(&self, snapshot: &str) -> String {
        format!(
            "entry \"{}\" of directory {} in snapshot {snapshot:?}: its inode {} is missing or of another kind there",
            shown(&self.entry.name),
            self.directory.number(),
            self.entry.inode.number()
        )
    }
}
