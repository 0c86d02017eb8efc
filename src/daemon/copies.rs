//! Bases and clones of snapshots: in the store they share what these have; of times that only an archive has, all
//! is copied.
//!
//! A base that is filled from an archive is noted in the store and shown by nothing until it is whole. What a crash
//! interrupts is deleted when the store is opened next.

use super::whole_bases::WholeBases;
use super::{OnProgress, Progress};
use crate::device::{BaseId, InodeNo, Moment, Snapshot};
use crate::error::{Errno, Error, Result};
use crate::shown::shown;
use crate::tree::{Kind, Tree, root_of};
use crate::view::{CloneOptions, Views};
use std::collections::{HashMap, HashSet};

impl WholeBases<'_> {
    /// Makes bases or clones of snapshots, each under its name: in one step, or from an archive.
    pub fn make_clones(
        self,
        views: &Views,
        of: Vec<(Snapshot, Vec<u8>)>,
        options: CloneOptions,
        group: Option<&str>,
        progress: OnProgress<'_>,
    ) -> Result<Vec<BaseId>> {
        match of.as_slice() {
            [(snapshot, name)] if snapshot.is_archived => {
                self.fill_from_archive(views, snapshot, name, options, progress).map(|base| vec![base])
            }
            _ => {
                let base = of.first().map_or(views.base(), |(snapshot, _)| snapshot.base);
                views.of(base).bases().clone_all(&of, options, group)
            }
        }
    }

    fn fill_from_archive(
        self,
        views: &Views,
        snapshot: &Snapshot,
        name: &[u8],
        options: CloneOptions,
        progress: OnProgress<'_>,
    ) -> Result<BaseId> {
        let views = views.of(snapshot.base);
        let base = views.bases().begin_filling(snapshot, name, options)?;
        let mut filling =
            Filling { tree: views.tree(), moment: Moment::At(snapshot.epoch), base, progress, files: 0, bytes: 0 };
        if let Err(error) =
            filling.fill(root_of(snapshot.base)).and_then(|()| views.bases().end_filling(base, snapshot, options))
        {
            views.bases().give_up_filling(base)?;
            let name = shown(name);
            return Err(match error.is_no_space() {
                true => {
                    Error::Refused(Errno::NOSPC, format!("there is no room for all of {name:?}; nothing of it is kept"))
                }
                false => error,
            });
        }
        Ok(base)
    }

    /// What a copy of a time of an archive would take: files and bytes, as their sizes say.
    pub fn count_filled(self, views: &Views, snapshot: &Snapshot, name: &[u8]) -> Result<Progress> {
        views.of(snapshot.base).bases().check_filling(name)?;
        let (tree, moment) = (views.tree(), Moment::At(snapshot.epoch));
        let mut counted = Progress::default();
        let mut seen = HashSet::new();
        let mut directories = vec![root_of(snapshot.base)];
        while let Some(directory) = directories.pop() {
            tree.names().list_with_inodes(directory.at(moment), 0, |entry, found| {
                if found.kind() == Kind::Directory {
                    directories.push(entry.inode);
                }
                let is_first = found.links < 2 || found.kind() == Kind::Directory || seen.insert(entry.inode);
                counted.files += u64::from(is_first);
                counted.bytes += if is_first && found.kind() == Kind::File { found.size } else { 0 };
                Ok(true)
            })?;
        }
        Ok(counted)
    }

    /// Deletes what was being filled when the store was last open.
    pub(super) fn give_up_fillings(self) -> Result<()> {
        let device = self.daemon.views.tree().device();
        let unfinished = match self.daemon.views.bases().unfinished_fillings() {
            Err(damage @ Error::Corrupt { .. }) => {
                device.found_damage(&damage);
                return Ok(());
            }
            found => found?,
        };
        // Where nothing may be changed they stay.
        if !device.damage().is_empty() {
            return Ok(());
        }
        for base in unfinished {
            log::warn!("a base that was not whole is deleted");
            self.daemon.views.bases().give_up_filling(base)?;
        }
        Ok(())
    }
}

/// Copies a tree as it was at a moment into a base that is empty.
struct Filling<'a> {
    tree: &'a Tree,
    moment: Moment,
    base: BaseId,
    progress: OnProgress<'a>,
    files: u64,
    bytes: u64,
}

impl Filling<'_> {
    fn fill(&mut self, root: InodeNo) -> Result<()> {
        // Directories with what they become, in the order in which they are found: each after the one above it.
        let mut directories = vec![(root, root_of(self.base))];
        let mut with_names: HashMap<InodeNo, InodeNo> = HashMap::new();
        let mut at = 0;
        while let Some(&(source, target)) = directories.get(at) {
            at += 1;
            let mut entries = Vec::new();
            self.tree.names().list_with_inodes(source.at(self.moment), 0, |entry, found| {
                entries.push((entry.clone(), found.kind(), found.links, found.size));
                Ok(true)
            })?;
            for (entry, kind, links, size) in entries {
                if let Some(known) = with_names.get(&entry.inode) {
                    self.tree.likeness().place(*known, target, &entry.name)?;
                    continue;
                }
                let made = self.make(entry.inode, target, &entry.name)?;
                if kind == Kind::Directory {
                    directories.push((entry.inode, made));
                } else if links > 1 {
                    with_names.insert(entry.inode, made);
                }
                self.files += 1;
                self.bytes += if kind == Kind::File { size } else { 0 };
                (self.progress)(&Progress { files: self.files, bytes: self.bytes, total_bytes: 0 })?;
            }
        }
        // Filling them has changed their times.
        for (source, target) in directories.into_iter().rev() {
            self.tree.likeness().become_like(target, source.at(self.moment), &mut |_| Ok(()))?;
        }
        Ok(())
    }

    fn make(&mut self, source: InodeNo, parent: InodeNo, name: &[u8]) -> Result<InodeNo> {
        let made = self.tree.likeness().make_nameless_in(self.base, source.at(self.moment))?;
        let (files, bytes) = (self.files, self.bytes);
        let filled = self
            .tree
            .likeness()
            .become_like(made, source.at(self.moment), &mut |done| {
                (self.progress)(&Progress { files, bytes: bytes + done, total_bytes: 0 })
            })
            .and_then(|_| self.tree.likeness().place(made, parent, name));
        self.tree.made(made);
        filled.map(|_| made)
    }
}
