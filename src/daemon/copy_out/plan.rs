//! What copying out would come to. Nothing is made.

use super::put::{directory_there, exists_already};
use super::walk::in_the_way;
use super::{RestoreOptions, RestoreReport, apart, not_in_snapshot, target};
use crate::daemon::{Daemon, OnProgress, Progress};
use crate::device::{InodeNo, Moment};
use crate::error::{Errno, Error, Result};
use crate::shown::shown_file;
use crate::tree::{Inode, Kind, Tree, join, root_of};
use crate::view::{View, Views};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Counts what [`copy_out`](super::copy_out) would copy, and says what it could not.
pub fn plan_copy_out(
    daemon: &Daemon,
    views: &Views,
    options: &RestoreOptions,
    progress: OnProgress<'_>,
) -> Result<RestoreReport> {
    let View { base, moment } = views.view(&options.snapshot)?;
    let to = target(daemon, &options.to)?;
    let report = RestoreReport::default();
    let mut plan = Plan { tree: views.tree(), moment, overwrite: options.overwrite, to, report, progress };
    let paths = apart(&options.paths);
    if paths.is_empty() {
        plan.content(root_of(base), Vec::new())?;
    }
    paths.iter().try_for_each(|names| plan.path(root_of(base), names))?;
    Ok(plan.report)
}

struct Plan<'a> {
    tree: &'a Tree,
    moment: Moment,
    overwrite: bool,
    to: PathBuf,
    report: RestoreReport,
    progress: OnProgress<'a>,
}

impl Plan<'_> {
    /// What a path leads to, and the directories on the way.
    fn path(&mut self, root: InodeNo, names: &[&[u8]]) -> Result<()> {
        let (mut at, mut path) = (root, Vec::new());
        for (i, name) in names.iter().enumerate() {
            let (inode, found) = match self.tree.names().lookup(at.at(self.moment), name) {
                Ok(found) => found,
                Err(Error::Posix(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG)) => {
                    self.report.problems.push(not_in_snapshot(names));
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            (at, path) = (inode, join(&path, name));
            let is_last = i + 1 == names.len();
            match found.kind() {
                Kind::Directory if !self.directory(&path) => return Ok(()),
                Kind::Directory if is_last => {
                    self.report.files += 1;
                    self.content(inode, path.clone())?;
                }
                _ if is_last => self.one(&path, &found),
                _ => {}
            }
        }
        if names.is_empty() { self.content(root, Vec::new()) } else { Ok(()) }
    }

    /// All that is in a directory.
    fn content(&mut self, directory: InodeNo, path: Vec<u8>) -> Result<()> {
        let mut pending = vec![(directory, path)];
        let mut seen = HashSet::from([directory]);
        while let Some((directory, path)) = pending.pop() {
            let mut entries = Vec::new();
            self.tree.names().list_with_inodes(directory.at(self.moment), 0, |entry, found| {
                entries.push((entry.clone(), found.clone()));
                Ok(true)
            })?;
            for (entry, found) in entries {
                let path = join(&path, &entry.name);
                match found.kind() {
                    Kind::Directory if !seen.insert(entry.inode) => {
                        self.problem(&path, "it contains itself, or has two names")
                    }
                    Kind::Directory if self.directory(&path) => {
                        self.report.files += 1;
                        pending.push((entry.inode, path));
                    }
                    Kind::Directory => {}
                    _ => self.one(&path, &found),
                }
            }
            (self.progress)(&Progress { files: self.report.files, bytes: self.report.bytes, total_bytes: 0 })?;
        }
        Ok(())
    }

    /// Whether a directory can be made, or is there.
    fn directory(&mut self, path: &[u8]) -> bool {
        let is_possible = self.there(path).is_none_or(|there| there.is_dir());
        if !is_possible {
            self.problem(path, in_the_way());
        }
        is_possible
    }

    fn one(&mut self, path: &[u8], found: &Inode) {
        match self.there(path) {
            Some(there) if there.is_dir() => self.problem(path, directory_there()),
            Some(_) if !self.overwrite => self.problem(path, exists_already()),
            _ => {
                self.report.files += 1;
                let bytes = if found.kind() == Kind::File { found.size } else { 0 };
                self.report.bytes = self.report.bytes.saturating_add(bytes);
            }
        }
    }

    fn there(&self, path: &[u8]) -> Option<std::fs::Metadata> {
        self.to.join(OsStr::from_bytes(path)).symlink_metadata().ok()
    }

    fn problem(&mut self, path: &[u8], text: impl std::fmt::Display) {
        let path = self.to.join(OsStr::from_bytes(path));
        self.report.problems.push(format!("{}: {text}", shown_file(&path)));
    }
}
