//! Inodes, names, snapshots and the log: do they fit together?

use super::directories::{Above, circles};
use super::past::Past;
use super::tracks::is_tombstone;
use super::{Check, Paths};
use crate::clock::Epoch;
use crate::device::{BaseId, InodeNo, Moment, split_increment, split_preimage, split_record};
use crate::error::{Error, Result};
use crate::meta::{Table, decode, hex};
use crate::shown::shown;
use crate::tree::{Entry, Inode, Kind, is_root, split_link_key, xattr_value};
use crate::view::LIVE_NAME;
use std::collections::HashMap;
use std::ops::ControlFlow;

/// What an inode says of itself, and what the entries of directories say of it.
struct Seen {
    size: u64,
    links: u32,
    kind: Kind,
    names: u32,
    subdirectories: u32,
    entries: u64,
}

impl Seen {
    fn new(inode: &Inode) -> Seen {
        let (size, links, kind) = (inode.size, inode.links, inode.kind());
        Seen { size, links, kind, names: 0, subdirectories: 0, entries: 0 }
    }

    /// What does not fit together.
    fn problem(&self, number: InodeNo) -> Option<String> {
        let Seen { size, links, kind, names, subdirectories, entries } = *self;
        let is_directory = kind == Kind::Directory;
        let found = match (is_directory, links) {
            (_, 0) => 0,
            (true, _) => subdirectories.saturating_add(2),
            (false, _) => names,
        };
        if links == 0 && names > 0 {
            Some(format!("it counts no links, and has {names} names"))
        } else if links == 0 && entries > 0 {
            Some(format!("it is a directory that was removed, and has {entries} entries"))
        } else if found != links {
            Some(format!("it counts {links} links and has {found}"))
        } else if is_directory && size != entries {
            Some(format!("it counts {size} entries and has {entries}"))
        } else if names == 0 && links > 0 && !is_root(number) {
            Some("it has no name".into())
        } else if is_directory && names > u32::from(!is_root(number)) {
            Some(format!(
                "it is a directory and has {names} names{}",
                if is_root(number) { ", being the root" } else { "" }
            ))
        } else {
            None
        }
    }
}

/// Inodes of bases whose own records are all that they show.
type Inodes = HashMap<InodeNo, Seen>;

impl Check<'_> {
    /// Bases that show some of another state: what they show has to hold together as well.
    pub(super) fn layered(&mut self) -> Result<()> {
        let bases: Vec<BaseId> = self.daemon.views.bases()?.iter().map(|base| base.id).collect();
        for base in bases.into_iter().filter(|base| !self.is_whole(*base)).collect::<Vec<_>>() {
            let views = self.daemon.views.of(base);
            match views.unless_gone(self.layered_base(base)) {
                // What it shows from elsewhere is not there.
                Err(Error::Gone) => {
                    let name = views.base_name()?;
                    self.say(format!("the base {name:?} cannot be looked into: what it shows is not there"));
                }
                // What comes behind it cannot be looked at.
                Err(error @ Error::Corrupt { .. }) => self.say(error.to_string()),
                result => drop(result?),
            }
        }
        Ok(())
    }

    fn layered_base(&mut self, base: BaseId) -> Result<()> {
        let mut above = Above::new();
        self.layered_entries(base, |check, key, entry| check.layered_entry(&mut above, key, entry))?;
        let mut found = circles(&above);
        if found.is_empty() {
            return Ok(());
        }
        // Directories that were moved while these were read can look so: not twice.
        above.clear();
        self.layered_entries(base, |_, key, entry| note_above(&mut above, key, &entry))?;
        let again = circles(&above);
        found.retain(|circle| again.contains(circle));
        found.iter().for_each(|circle| self.say_circle(circle));
        Ok(())
    }

    /// Calls `each` with the entries that a base shows now, wherever they come from; an error names one that is none.
    fn layered_entries(
        &mut self,
        base: BaseId,
        mut each: impl FnMut(&mut Self, &[u8], Result<Entry>) -> Result<()>,
    ) -> Result<()> {
        const BATCH: usize = 512;
        let tree = self.daemon.views.tree();
        let prefix = base.prefix();
        let end = crate::meta::prefix_end(&prefix);
        let mut from = prefix.to_vec();
        loop {
            let mut entries = Vec::new();
            tree.device().look()?.scan(Table::Dirent, &from, &end, Moment::Live, |key, value| {
                entries.push((key.to_vec(), value.to_vec()));
                Ok(if entries.len() < BATCH { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })?;
            let Some((last, _)) = entries.last() else { return Ok(()) };
            from = last.clone();
            from.push(0);
            for (key, value) in entries {
                each(self, &key, tree.entry_of(&key, &value))?;
            }
            self.tell()?;
        }
    }

    /// Whether an entry leads to an inode that is not there, at one moment: it may have been removed, or lead elsewhere, meanwhile.
    fn leads_nowhere(&self, key: &[u8], target: InodeNo) -> Result<bool> {
        let tree = self.daemon.views.tree();
        let look = tree.device().look()?;
        let entry = look.value(Table::Dirent, key, Moment::Live)?;
        let is_led_to = entry.is_some_and(|now| tree.entry_of(key, &now).is_ok_and(|entry| entry.inode == target));
        let found = look.get::<Inode>(Table::Inode, &target.prefix(), Moment::Live);
        let is_there = found.is_ok_and(|found| found.is_some_and(|inode| inode.checked_stored(target).is_ok()));
        Ok(is_led_to && !is_there)
    }

    fn layered_entry(&mut self, above: &mut Above, key: &[u8], entry: Result<Entry>) -> Result<()> {
        let tree = self.daemon.views.tree();
        let parent = InodeNo::of_key(key).unwrap_or_default();
        note_above(above, key, &entry)?;
        let target = match entry {
            Ok(entry) => entry.inode,
            Err(error) => {
                let paths = self.paths_now(parent);
                self.problem(error.to_string(), paths);
                return Ok(());
            }
        };
        let is_missing = tree.inode(target, Moment::Live).is_err();
        if is_missing && self.leads_nowhere(key, target)? {
            let paths = self.paths_now(parent);
            let text = format!(
                "an entry of directory {} names inode {}, which is missing or cannot be read",
                parent.number(),
                target.number()
            );
            self.problem(text, paths);
        }
        Ok(())
    }

    pub(super) fn records(&mut self) -> Result<()> {
        let mut past = self.past()?;
        let mut inodes = Inodes::new();
        self.each(Table::Inode, |check, (key, value)| {
            check.born(Table::Inode, &key, &value);
            check.inode_record(&mut inodes, &mut past, &key, &value);
            Ok(())
        })?;
        // Old values come before what is now: entries that are there now were so in snapshots.
        self.log(&mut past)?;
        let mut above = Above::new();
        self.each(Table::Dirent, |check, (key, value)| {
            check.born(Table::Dirent, &key, &value);
            if is_tombstone(&value) {
                return Ok(());
            }
            check.report.names += 1;
            if let Ok((birth, record)) = split_record(Table::Dirent, &key, &value) {
                check.past_entry(&past, &key, (birth, None), record);
            }
            if BaseId::of_key(&key).map_or(true, |base| check.is_whole(base)) {
                check.entry(&mut inodes, &mut above, &key, &value);
            }
            Ok(())
        })?;
        drop(past);
        self.each(Table::Link, |check, (key, value)| {
            check.born(Table::Link, &key, &value);
            let is_one = split_record(Table::Link, &key, &value).map(drop).and(split_link_key(&key).map(drop));
            if let (Err(error), false) = (is_one, is_tombstone(&value)) {
                let paths = InodeNo::of_key(&key).map_or_else(Paths::default, |inode| check.paths_now(inode));
                check.problem(error.to_string(), paths);
            }
            Ok(())
        })?;
        if !self.is_partial {
            self.counts(&inodes);
        }
        circles(&above).iter().for_each(|circle| self.say_circle(circle));
        self.snapshot_names()
    }

    /// An inode as it is now.
    fn inode_record(&mut self, inodes: &mut Inodes, past: &mut Past, key: &[u8], value: &[u8]) {
        if is_tombstone(value) {
            return;
        }
        self.report.inodes += 1;
        let Some(number) = InodeNo::of_key(key).filter(|number| number.prefix() == key[..]) else {
            let text = format!("record {} of table inode is damaged: its key is none", hex(key));
            return self.unreadable(text, Paths::default());
        };
        let split = split_record(Table::Inode, key, value);
        let birth = split.as_ref().map_or(Epoch::ZERO, |(birth, _)| *birth);
        let decoded = split
            .and_then(|(_, record)| decode::<Inode>(Table::Inode, key, record))
            .and_then(|inode| inode.checked_stored(number));
        past.add(number, birth, decoded.as_ref().ok().map(Inode::kind));
        match decoded {
            Ok(inode) if self.is_whole(number.base()) => drop(inodes.insert(number, Seen::new(&inode))),
            Ok(_) => {}
            Err(error) => {
                let paths = self.paths(number, Epoch::ZERO, None);
                self.unreadable(error.to_string(), paths);
            }
        }
    }

    fn entry_of(&self, key: &[u8], value: &[u8]) -> Result<Entry> {
        let (_, record) = split_record(Table::Dirent, key, value)?;
        self.daemon.views.tree().entry_of(key, record)
    }

    /// A record's old value: whether it could be shown.
    fn old(&mut self, table: Table, key: &[u8], end: Epoch, value: &[u8]) {
        let looked = split_record(table, key, value).and_then(|(birth, record)| match table {
            _ if record.is_empty() => Ok(birth),
            Table::Dirent => self.daemon.views.tree().entry_of(key, record).map(|_| birth),
            Table::Inode => {
                let inode = decode::<Inode>(table, key, record)?;
                inode.checked_stored(InodeNo::of_key(key).unwrap_or_default()).map(|_| birth)
            }
            Table::Link => split_link_key(key).map(|_| birth),
            Table::Xattr => xattr_value(key, record).map(|_| birth),
            _ => Ok(birth),
        });
        if let Err(error) = looked {
            let birth = split_record(table, key, value).map_or(Epoch::ZERO, |(birth, _)| birth);
            let paths = InodeNo::of_key(key).map_or_else(Paths::default, |inode| self.paths(inode, birth, Some(end)));
            self.problem(error.to_string(), paths);
        }
    }

    fn entry(&mut self, inodes: &mut Inodes, above: &mut Above, key: &[u8], value: &[u8]) {
        let parent = InodeNo::of_key(key).unwrap_or_default();
        let entry = self.entry_of(key, value);
        let Entry { name, inode: target, kind, .. } = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let paths = self.paths_now(parent);
                return self.unreadable(error.to_string(), paths);
            }
        };
        if kind == Kind::Directory {
            above.insert(target, parent);
        }
        let is_in_one = inodes.get_mut(&parent).is_some_and(|directory| {
            directory.entries += 1;
            directory.subdirectories = directory.subdirectories.saturating_add(u32::from(kind == Kind::Directory));
            true
        });
        let problem = match inodes.get_mut(&target) {
            None => "its inode is missing or cannot be read",
            Some(inode) => {
                inode.names = inode.names.saturating_add(1);
                match inode.kind == kind {
                    false => "its inode is of another kind",
                    true if !is_in_one => "the directory it is in is missing or cannot be read",
                    true => return,
                }
            }
        };
        if self.is_current(Table::Dirent, key, value) {
            let paths = self.paths_of_name(parent, &name, LIVE_NAME, Moment::Live);
            let name = shown(&name);
            self.problem(format!("entry \"{name}\" of directory {}: {problem}", parent.number()), paths);
        }
    }

    fn counts(&mut self, inodes: &Inodes) {
        for (&number, seen) in inodes {
            let Some(problem) = seen.problem(number) else { continue };
            let now = self.daemon.views.tree().inode(number, Moment::Live);
            if now.is_ok_and(|now| (now.links, now.size) == (seen.links, seen.size)) {
                let paths = self.paths_now(number);
                self.problem(format!("inode {}: {problem}", number.number()), paths);
            }
        }
    }

    /// Names and snapshots lead to each other.
    fn snapshot_names(&mut self) -> Result<()> {
        for snapshot in self.snapshots.clone() {
            let found = self.daemon.views.of(snapshot.base).find(snapshot.record.name.as_bytes())?;
            if found.as_ref().map(|found| found.epoch) == Some(snapshot.epoch) {
                continue;
            }
            // It may have been deleted or renamed meanwhile.
            let now = self.daemon.views.tree().device().look()?.snapshot(snapshot.base, snapshot.epoch)?;
            if now.is_some_and(|now| now.record == snapshot.record) {
                self.say(format!("the name of snapshot {:?} does not lead to it", snapshot.record.name));
            }
        }
        Ok(())
    }

    /// Pre-images and increments are the same facts in two orders.
    fn log(&mut self, past: &mut Past) -> Result<()> {
        let (mut preimages, mut sum_of_preimages) = (0u64, 0u64);
        let sum = |key: &[u8], end: Epoch| xxhash_rust::xxh3::xxh3_64_with_seed(key, end.number().into());
        self.each(Table::Preimage, |check, (key, value)| {
            match split_preimage(&key) {
                Ok((table, own, end)) => {
                    preimages += 1;
                    sum_of_preimages = sum_of_preimages.wrapping_add(sum(&own, end) ^ u64::from(table as u8));
                    check.old(table, &own, end, &value);
                    check.ended(table, &own, end, &value);
                    check.past_record(past, table, &own, end, &value);
                }
                Err(error) => check.unreadable(error.to_string(), Paths::default()),
            }
            Ok(())
        })?;
        past.finish();
        let (mut increments, mut sum_of_increments) = (0u64, 0u64);
        self.each(Table::Increment, |check, (key, _)| {
            match split_increment(&key) {
                Ok((table, own, end)) => {
                    increments += 1;
                    sum_of_increments = sum_of_increments.wrapping_add(sum(&own, end) ^ u64::from(table as u8));
                }
                Err(error) => check.unreadable(error.to_string(), Paths::default()),
            }
            Ok(())
        })?;
        if !self.is_partial && (preimages, sum_of_preimages) != (increments, sum_of_increments) {
            self.say(format!("the log has {preimages} pre-images and {increments} increments that do not match"));
        }
        Ok(())
    }
}

/// Notes in which directory a directory is.
fn note_above(above: &mut Above, key: &[u8], entry: &Result<Entry>) -> Result<()> {
    if let (Some(directory), Ok(entry)) = (InodeNo::of_key(key), entry)
        && entry.kind == Kind::Directory
    {
        above.insert(entry.inode, directory);
    }
    Ok(())
}
