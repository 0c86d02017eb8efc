//! From an inode back to its names.

use super::inode::{self, root_of};
use super::names::{Names, split_link_key};
use super::{Tree, is_root};
use crate::device::{BaseId, InodeAt, InodeNo, Moment, State};
use crate::error::Result;
use crate::meta::{Table, prefix_end};
use std::ops::ControlFlow;

impl Names<'_> {
    /// All paths of an inode, relative to the root of its tree; none if it has no name.
    pub fn paths(self, at: InodeAt) -> Result<Vec<Vec<u8>>> {
        let look = self.tree.device.look()?;
        look.moments().check(at)?;
        paths_in(self.tree, &look, at)
    }

    /// The path of a directory, relative to the root of its tree, if it has no more names, and fewer bytes, than these.
    pub fn directory_path(self, at: InodeAt, most: Most) -> Result<Option<Vec<u8>>> {
        let look = self.tree.device.look()?;
        look.moments().check(at)?;
        directory_path(&look, at, most)
    }

    /// All names of an inode: the directories that have them, and the names. The root has none.
    pub fn of(self, at: InodeAt) -> Result<Vec<(InodeNo, Vec<u8>)>> {
        if is_root(at.inode) {
            return Ok(Vec::new());
        }
        let look = self.tree.device.look()?;
        look.moments().check(at)?;
        names_in(self.tree, &look, at)
    }

    /// Follows a path from the root of the tree. Symlinks are not followed.
    pub fn resolve(self, base: BaseId, path: &[u8], moment: Moment) -> Result<InodeNo> {
        let mut at = root_of(base);
        for name in names_of(path) {
            at = self.lookup(at.at(moment), name)?.0;
        }
        Ok(at)
    }
}

/// How long a path is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    pub names: usize,
    pub bytes: usize,
}

/// The names that a path consists of.
pub fn names_of(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

/// The names of an inode: directories and the names in them.
fn names_in(tree: &Tree, state: &State, at: InodeAt) -> Result<Vec<(InodeNo, Vec<u8>)>> {
    let Some(found) = inode::find(state, at)? else { return Ok(Vec::new()) };
    let mut places = vec![(found.parent, found.name.into_vec())];
    let prefix = at.inode.prefix();
    state.scan(Table::Link, &prefix, &prefix_end(&prefix), at.moment, |key, _| {
        places.push(split_link_key(key).map(|(parent, name)| (parent, name.to_vec()))?);
        Ok(ControlFlow::Continue(()))
    })?;
    let mut names = Vec::new();
    for (parent, name) in places {
        // A record can hold a name that was removed after the last link; only what can be found counts.
        if tree.names().find(state, parent.at(at.moment), &name)?.is_some_and(|dirent| dirent.inode == at.inode) {
            names.push((parent, name));
        }
    }
    Ok(names)
}

pub(super) fn paths_in(tree: &Tree, state: &State, at: InodeAt) -> Result<Vec<Vec<u8>>> {
    if is_root(at.inode) {
        return Ok(vec![Vec::new()]);
    }
    let mut paths = Vec::new();
    for (parent, name) in names_in(tree, state, at)? {
        let any = Most { names: usize::MAX, bytes: usize::MAX };
        paths.extend(directory_path(state, parent.at(at.moment), any)?.map(|path| join(&path, &name)));
    }
    Ok(paths)
}

/// `None` for what is not reached from the root: it was removed, or damaged records lead in a circle.
fn directory_path(state: &State, mut at: InodeAt, most: Most) -> Result<Option<Vec<u8>>> {
    let mut names = Vec::new();
    let mut bytes = 0usize;
    // Brent's search for a circle: each time as many steps as there were before are looked for the same inode.
    let mut mark = at.inode;
    while !is_root(at.inode) {
        match inode::find(state, at)? {
            Some(found) if found.links > 0 && found.parent != mark && !found.name.is_empty() => {
                bytes += found.name.len() + 1;
                if names.len() == most.names || bytes > most.bytes {
                    return Ok(None);
                }
                names.push(found.name.into_vec());
                at.inode = found.parent;
            }
            _ => return Ok(None),
        }
        if names.len().is_power_of_two() {
            mark = at.inode;
        }
    }
    names.reverse();
    Ok(Some(names.join(&b'/')))
}

/// The path of a name in a directory.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// The path of the directory that a path's last name is in, and that name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&path[..0], path),
    }
}
