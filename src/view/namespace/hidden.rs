//! `.snap` and `.snapshots` in live trees, where nothing real has that name.
//!
//! A program that copies a tree with real files of these names finds the hidden directory first and takes it for the one
//! that it is to fill. So the first thing that is made in it makes it real. Where something else than a directory is to
//! have the name, it can be removed first: nothing is found there for a while.

use super::{Namespace, Standing, Virtual};
use crate::device::{InodeAt, InodeNo, Moment};
use crate::error::{Errno, Error, Result};
use crate::tree::{self, Kind, Most};
use crate::view::View;
use std::time::{Duration, Instant};

pub const SNAP: &[u8] = b".snap";
pub const SHADOW: &[u8] = b".snapshots";

/// Paths that are looked for in other times.
const REACH: Most = Most { names: 256, bytes: 4096 };

/// How long a hidden directory that was removed is not there.
const REMOVED: Duration = Duration::from_secs(60);

/// The directory in which a hidden one is, and its name.
pub fn name_of(node: &Virtual) -> Option<(InodeNo, &'static [u8])> {
    match node {
        Virtual::Snap(directory) => Some((*directory, SNAP)),
        Virtual::Shadow(base) => Some((View::live(*base).root(), SHADOW)),
        _ => None,
    }
}

pub(super) fn directory_of(node: &Virtual) -> Option<InodeNo> {
    name_of(node).map(|(directory, _)| directory)
}

impl Namespace {
    /// What a name in a live directory can lead to where nothing real has it.
    pub fn hidden(directory: InodeNo, name: &[u8]) -> Option<Virtual> {
        match name {
            SNAP => Some(Virtual::Snap(directory)),
            SHADOW if tree::is_root(directory) => Some(Virtual::Shadow(directory.base())),
            _ => None,
        }
    }

    /// `.snap` and `.snapshots`, where nothing real has that name; ENOENT if there is none.
    pub fn hidden_lookup(&self, directory: InodeAt, name: &[u8]) -> Result<Virtual> {
        let found = Namespace::hidden(directory.inode, name).filter(|_| directory.is_live());
        let node = found.ok_or(Error::Posix(Errno::NOENT))?;
        let is_removed = self.removed.lock().get(&node).is_some_and(|since| since.elapsed() < REMOVED);
        let tree = self.views.tree();
        if is_removed || !tree.inode(directory.inode.live())?.is_directory() || !self.has_past(directory.inode)? {
            return Err(Error::Posix(Errno::NOENT));
        }
        Ok(node)
    }

    /// Whether a snapshot shows a live directory, under its number or its path.
    fn has_past(&self, directory: InodeNo) -> Result<bool> {
        let views = self.views.of(directory.base());
        let tree = views.tree();
        for snapshot in views.snapshots().with_archived()?.iter().rev().filter(|snapshot| snapshot.is_shown()) {
            let found = tree.inode(directory.at(Moment::At(snapshot.epoch)));
            if found.is_ok_and(|found| found.is_directory() && found.links > 0) {
                return Ok(true);
            }
        }
        if let Some(path) = self.path_in_reach(directory)? {
            let versions = tree.comparison().versions(views.base(), &path)?;
            if versions.iter().any(|version| version.oldest.is_some() && version.kind == Kind::Directory) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The path of a live directory, if it is short: to follow that of one which lies a hundred times deeper through all
    /// times takes seconds.
    pub fn path_in_reach(&self, directory: InodeNo) -> Result<Option<Vec<u8>>> {
        self.views.tree().names().directory_path(directory.live(), REACH)
    }

    /// Whoever may make something in the directory may do so in what is hidden in it.
    pub(super) fn standing_hidden(&self, directory: InodeNo, standing: Standing) -> Result<Standing> {
        let tree = self.views.tree();
        let above = tree.inode(directory.live())?;
        // What a list grants, and to whom not, the mode of what has none cannot say: only the owner makes something then.
        let has_list = tree.attributes().has_access_list(directory)?;
        let permissions = above.permissions() & if has_list { 0o755 } else { 0o777 };
        Ok(Standing { permissions, uid: above.uid, gid: above.gid, ..standing })
    }

    /// Takes a hidden directory away for a while; ENOENT if there is none.
    pub fn hide(&self, directory: InodeAt, name: &[u8]) -> Result<Virtual> {
        let node = self.hidden_lookup(directory, name)?;
        let mut removed = self.removed.lock();
        removed.retain(|_, since| since.elapsed() < REMOVED);
        removed.insert(node.clone(), Instant::now());
        Ok(node)
    }
}
