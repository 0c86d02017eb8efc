//! Entries in snapshots: what each of them names has to be there, in every snapshot that shows it.
//!
//! A record is there from the first snapshot at or after its birth to the last before its end, so snapshots are
//! counted by their place among those of their base. Of almost every inode one run of places says it all. Snapshots of
//! which some comes from elsewhere are left out.

use super::Check;
use crate::clock::Epoch;
use crate::device::{BaseId, InodeNo, Moment, split_record, split_snapshot};
use crate::error::Result;
use crate::meta::{Table, decode};
use crate::shown::shown;
use crate::tree::{Entry, Inode, Kind};
use std::collections::HashMap;

/// Snapshots in which an inode is there, from one place up to another.
#[derive(Clone, Copy, Debug)]
struct Run {
    from: u32,
    to: u32,
    /// Nothing where it cannot be read: it is named itself.
    kind: Option<Kind>,
}

#[derive(Default)]
pub(super) struct Past {
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

impl Past {
    /// The places of what was born and has ended, or lasts.
    fn places(&self, base: BaseId, birth: Epoch, end: Option<Epoch>) -> (u32, u32) {
        let epochs = self.epochs.get(&base).map_or(&[][..], Vec::as_slice);
        let place = |at: Epoch| epochs.partition_point(|epoch| *epoch < at) as u32;
        (place(birth), end.map_or(epochs.len() as u32, place))
    }

    /// An inode as it is now. All of these come before the old values.
    pub fn add(&mut self, inode: InodeNo, birth: Epoch, kind: Option<Kind>) {
        let (from, to) = self.places(inode.base(), birth, None);
        if from < to {
            self.runs.insert(inode, Run { from, to, kind });
        }
    }

    /// An old value of an inode; those of one come together, in order of their ends.
    pub fn add_old(&mut self, inode: InodeNo, birth: Epoch, end: Epoch, kind: Option<Kind>) {
        let (from, to) = self.pass_old(inode, birth, end);
        if let Some(old) = &mut self.old {
            add_run(&mut old.runs, Run { from, to, kind });
        }
    }

    /// The same of one that says that there was nothing; for which snapshots it is read.
    pub fn pass_old(&mut self, inode: InodeNo, birth: Epoch, end: Epoch) -> (u32, u32) {
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

impl Check<'_> {
    /// Snapshots that can be looked into, of bases whose own records are all that they show there.
    pub(super) fn past(&mut self) -> Result<Past> {
        let mut past = Past::default();
        self.each(Table::Snapshot, |check, (key, value)| {
            // What is damaged is named elsewhere.
            let Ok(snapshot) = split_snapshot(&key, &value) else { return Ok(()) };
            let is_its_own = check
                .bases
                .get(&snapshot.base)
                .is_some_and(|base| !base.deleting && base.eras.iter().all(|era| era.since >= snapshot.epoch));
            if is_its_own && snapshot.is_readable() {
                past.epochs.entry(snapshot.base).or_default().push(snapshot.epoch);
            }
            Ok(())
        })?;
        Ok(past)
    }

    /// An old value of an inode or an entry.
    pub(super) fn past_record(&mut self, past: &mut Past, table: Table, key: &[u8], end: Epoch, value: &[u8]) {
        let (Ok((birth, record)), Some(inode)) = (split_record(table, key, value), InodeNo::of_key(key)) else {
            return;
        };
        match table {
            Table::Inode if record.is_empty() => drop(past.pass_old(inode, birth, end)),
            Table::Inode => {
                let kind = decode::<Inode>(table, key, record).ok().map(|inode| inode.kind());
                past.add_old(inode, birth, end, kind);
            }
            Table::Dirent => {
                past.finish();
                self.past_entry(past, key, (birth, Some(end)), record);
            }
            _ => past.finish(),
        }
    }

    /// An entry of a directory, of some time: whether what it names is there in every snapshot that shows it.
    pub(super) fn past_entry(&mut self, past: &Past, key: &[u8], (birth, end): (Epoch, Option<Epoch>), record: &[u8]) {
        // Of a key that is none the entry itself is told.
        let Ok(base) = BaseId::of_key(key) else { return };
        let places = past.places(base, birth, end);
        if record.is_empty() || places.0 >= places.1 {
            return;
        }
        let (Some(directory), Ok(entry)) = (InodeNo::of_key(key), self.daemon.views.tree().entry_of(key, record))
        else {
            return;
        };
        let Some(epoch) = past.missing(entry.inode, entry.kind, places) else { return };
        if let Some(name) = self.misses(key, &entry, epoch) {
            let text = format!(
                "entry \"{}\" of directory {} in snapshot {name:?}: its inode {} is missing or of another kind there",
                shown(&entry.name),
                directory.number(),
                entry.inode.number()
            );
            let paths = self.paths_of_name(directory, &entry.name, &name, Moment::At(epoch));
            self.problem(text, paths);
        }
    }

    /// The name of a snapshot, if whoever looks into it now finds the entry there, and not what it names.
    fn misses(&self, key: &[u8], entry: &Entry, epoch: Epoch) -> Option<String> {
        let tree = self.daemon.views.tree();
        let moment = Moment::At(epoch);
        let (snapshot, value) = {
            let look = tree.device().look().ok()?;
            let snapshot = look.snapshot(BaseId::of_key(key).ok()?, epoch).ok()??;
            (snapshot, look.value(Table::Dirent, key, moment).ok()??)
        };
        let is_shown = snapshot.is_readable() && tree.entry_of(key, &value).is_ok_and(|now| now.inode == entry.inode);
        let is_there = tree.inode(entry.inode, moment).is_ok_and(|inode| inode.kind() == entry.kind);
        (is_shown && !is_there).then_some(snapshot.record.name)
    }
}
