//! Inodes, names, snapshots and the log: do they fit together?

use super::{Check, Inodes};
use crate::device::{
    BaseId, Epoch, InodeNo, Moment, base_of, base_of_key, inode_of_key, inode_prefix, number_of, split_base,
    split_increment, split_preimage, split_record,
};
use crate::error::Result;
use crate::meta::{Table, decode, hex};
use crate::shown::shown;
use crate::tree::{Entry, Inode, Kind, is_root, split_link_key, xattr_value};
use serde_bytes::ByteBuf;
use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

/// What the entries of directories say about an inode.
#[derive(Default)]
struct Named {
    names: u32,
    subdirectories: u32,
    entries: u64,
}

/// Whether a record says that there is nothing: it has a birth only.
fn is_tombstone(value: &[u8]) -> bool {
    split_record(Table::State, &[], value).is_ok_and(|(_, value)| value.is_empty())
}

impl Check<'_> {
    /// Bases whose own records are all that they show.
    fn whole_bases(&mut self) -> Result<BTreeSet<BaseId>> {
        let mut whole = BTreeSet::new();
        self.each(Table::Base, |check, (key, value)| {
            match split_base(&key, &value) {
                Ok((base, record)) if record.eras.is_empty() && !record.deleting => {
                    whole.insert(base);
                }
                Ok(_) => {}
                Err(error) => check.problem(error.to_string(), Vec::new()),
            }
            Ok(())
        })?;
        Ok(whole)
    }

    /// Bases that show some of another state: what they show has to hold together as well.
    pub(super) fn layered(&mut self) -> Result<()> {
        let whole = self.whole_bases()?;
        let bases: Vec<BaseId> = self.daemon.views.bases()?.iter().map(|base| base.id).collect();
        for base in bases.into_iter().filter(|base| !whole.contains(base)) {
            let views = self.daemon.views.of(base);
            views.unless_gone(self.layered_base(base))?;
        }
        Ok(())
    }

    fn layered_base(&mut self, base: BaseId) -> Result<()> {
        const BATCH: usize = 512;
        let tree = self.daemon.views.tree();
        let prefix = base.to_be_bytes();
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
                let parent = inode_of_key(&key).unwrap_or_default();
                let target = match tree.entry_of(&key, &value) {
                    Ok(entry) => entry.inode,
                    Err(error) => {
                        let paths = self.paths(parent, u32::MAX, None);
                        self.problem(error.to_string(), paths);
                        continue;
                    }
                };
                let is_missing = tree.inode(target, Moment::Live).is_err();
                // It may have been removed meanwhile.
                if is_missing && tree.device().look()?.exists(Table::Dirent, &key)? {
                    let paths = self.paths(parent, u32::MAX, None);
                    let text = format!(
                        "an entry of directory {} names inode {}, which is missing or cannot be read",
                        number_of(parent),
                        number_of(target)
                    );
                    self.problem(text, paths);
                }
            }
            self.tell()?;
        }
    }

    pub(super) fn records(&mut self) -> Result<()> {
        let mut inodes: HashMap<InodeNo, Inode> = HashMap::new();
        let mut unreadable = Inodes::new();
        let whole = self.whole_bases()?;
        self.each(Table::Inode, |check, (key, value)| {
            if is_tombstone(&value) {
                return Ok(());
            }
            check.report.inodes += 1;
            let Some(number) = inode_of_key(&key).filter(|number| inode_prefix(*number) == key[..]) else {
                check.problem(format!("record {} of table inode is damaged: its key is none", hex(&key)), Vec::new());
                return Ok(());
            };
            let decoded = split_record(Table::Inode, &key, &value)
                .and_then(|(_, record)| crate::meta::decode::<Inode>(Table::Inode, &key, record))
                .and_then(|inode| inode.checked_stored(number));
            match decoded {
                Ok(inode) => {
                    inodes.insert(number, Inode { inline: Default::default(), ..inode });
                }
                Err(error) => {
                    unreadable.insert(number);
                    let paths = check.paths(number, 0, None);
                    check.problem(error.to_string(), paths);
                }
            }
            Ok(())
        })?;
        let mut named: HashMap<InodeNo, Named> = HashMap::new();
        self.each(Table::Dirent, |check, (key, value)| {
            check.report.names += u64::from(!is_tombstone(&value));
            if whole.contains(&base_of_key(&key)) && !is_tombstone(&value) {
                check.entry(&inodes, &mut named, &key, &value);
            }
            Ok(())
        })?;
        self.each(Table::Link, |check, (key, value)| {
            let born = split_record(Table::Link, &key, &value).map(drop);
            if let (Err(error), false) = (born.and(split_link_key(&key).map(drop)), is_tombstone(&value)) {
                let paths = inode_of_key(&key).map_or(Vec::new(), |inode| check.paths(inode, u32::MAX, None));
                check.problem(error.to_string(), paths);
            }
            Ok(())
        })?;
        if self.report.problems.is_empty() {
            inodes.retain(|inode, _| whole.contains(&base_of(*inode)));
            self.counts(&inodes, &named);
        }
        self.snapshot_names()?;
        self.log()
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
                inode.checked_stored(inode_of_key(key).unwrap_or_default()).map(|_| birth)
            }
            Table::Link => split_link_key(key).map(|_| birth),
            Table::Xattr => xattr_value(key, record).map(|_| birth),
            _ => Ok(birth),
        });
        if let Err(error) = looked {
            let birth = split_record(table, key, value).map_or(0, |(birth, _)| birth);
            let paths = inode_of_key(key).map_or(Vec::new(), |inode| self.paths(inode, birth, Some(end)));
            self.problem(error.to_string(), paths);
        }
    }

    fn entry(
        &mut self,
        inodes: &HashMap<InodeNo, Inode>,
        named: &mut HashMap<InodeNo, Named>,
        key: &[u8],
        value: &[u8],
    ) {
        let parent = inode_of_key(key).unwrap_or_default();
        let Entry { name, inode: target, kind, .. } = match self.entry_of(key, value) {
            Ok(entry) => entry,
            Err(error) => {
                let paths = self.paths(parent, u32::MAX, None);
                return self.problem(error.to_string(), paths);
            }
        };
        named.entry(target).or_default().names += 1;
        let directory = named.entry(parent).or_default();
        directory.entries += 1;
        directory.subdirectories += u32::from(kind == Kind::Directory);
        let problem = match inodes.get(&target) {
            None => Some("its inode is missing or cannot be read".to_string()),
            Some(inode) if inode.kind() != kind => Some("its inode is of another kind".to_string()),
            Some(_) if !inodes.contains_key(&parent) => {
                Some("the directory it is in is missing or cannot be read".to_string())
            }
            Some(_) => None,
        };
        if let Some(problem) = problem
            && self.is_current(Table::Dirent, key, value)
        {
            let above = self.paths(parent, u32::MAX, None);
            let above = above.first().map_or(&b"live/?"[..], |above| above.as_slice());
            let path = ByteBuf::from([above, b"/", name.as_slice()].concat());
            let name = shown(&name);
            self.problem(format!("entry \"{name}\" of directory {}: {problem}", number_of(parent)), vec![path]);
        }
    }

    fn counts(&mut self, inodes: &HashMap<InodeNo, Inode>, named: &HashMap<InodeNo, Named>) {
        let none = Named::default();
        for (&number, inode) in inodes {
            let found = named.get(&number).unwrap_or(&none);
            let links = match (inode.is_directory(), inode.links) {
                (_, 0) => 0,
                (true, _) => 2 + found.subdirectories,
                (false, _) => found.names,
            };
            let problem = if links != inode.links {
                Some(format!("it counts {} links and has {links}", inode.links))
            } else if inode.is_directory() && inode.size != found.entries {
                Some(format!("it counts {} entries and has {}", inode.size, found.entries))
            } else if found.names == 0 && inode.links > 0 && !is_root(number) {
                Some("it has no name".into())
            } else {
                None
            };
            if let Some(problem) = problem {
                let is_unchanged = self
                    .daemon
                    .views
                    .tree()
                    .inode(number, Moment::Live)
                    .is_ok_and(|now| (now.links, now.size, now.ctime) == (inode.links, inode.size, inode.ctime));
                if is_unchanged {
                    let paths = self.paths(number, u32::MAX, None);
                    self.problem(format!("inode {}: {problem}", number_of(number)), paths);
                }
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
                self.problem(
                    format!("the name of snapshot {:?} does not lead to it", snapshot.record.name),
                    Vec::new(),
                );
            }
        }
        Ok(())
    }

    /// Pre-images and increments are the same facts in two orders.
    fn log(&mut self) -> Result<()> {
        let (mut preimages, mut sum_of_preimages) = (0u64, 0u64);
        let sum = |key: &[u8], end: u32| xxhash_rust::xxh3::xxh3_64_with_seed(key, end.into());
        self.each(Table::Preimage, |check, (key, value)| {
            match split_preimage(&key) {
                Ok((table, own, end)) => {
                    preimages += 1;
                    sum_of_preimages = sum_of_preimages.wrapping_add(sum(&own, end) ^ u64::from(table as u8));
                    check.old(table, &own, end, &value);
                }
                Err(error) => check.problem(error.to_string(), Vec::new()),
            }
            Ok(())
        })?;
        let (mut increments, mut sum_of_increments) = (0u64, 0u64);
        self.each(Table::Increment, |check, (key, _)| {
            match split_increment(&key) {
                Ok((table, own, end)) => {
                    increments += 1;
                    sum_of_increments = sum_of_increments.wrapping_add(sum(&own, end) ^ u64::from(table as u8));
                }
                Err(error) => check.problem(error.to_string(), Vec::new()),
            }
            Ok(())
        })?;
        if self.report.problems.is_empty() && (preimages, sum_of_preimages) != (increments, sum_of_increments) {
            self.problem(
                format!("the log has {preimages} pre-images and {increments} increments that do not match"),
                Vec::new(),
            );
        }
        Ok(())
    }
}
