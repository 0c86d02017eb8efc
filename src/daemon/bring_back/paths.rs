//! Which paths are brought back.

use crate::device::{InodeNo, Moment, Snapshot};
use crate::error::{Errno, Error, Result};
use crate::shown::{shown, shown_path};
use crate::tree::{Kind, Tree, names_of, root_of};
use crate::view::Views;
use serde_bytes::ByteBuf;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Paths that an error names; of more, it says how many.
const ERROR_PATHS: usize = 20;

/// A path as it is in the snapshot.
pub(super) struct Top {
    pub path: Vec<u8>,
    /// The directories that lead to it, with their names.
    pub above: Vec<(Vec<u8>, InodeNo)>,
    /// `None` for the root.
    pub name: Option<Vec<u8>>,
    pub then: InodeNo,
    pub kind: Kind,
}

/// What becomes of a path that is not in the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfMissing {
    IsRefused,
    /// It goes, with the directories above it that are not there either.
    Goes,
}

/// All paths, of which none lies below another.
pub(super) struct Tops {
    by_path: BTreeMap<Vec<u8>, Top>,
    /// Paths that are not in the snapshot, and go.
    gone: BTreeSet<Vec<u8>>,
    /// Those that are no directories.
    files: HashSet<InodeNo>,
}

impl Tops {
    /// Looks all of them up; an error in words if one cannot be brought back.
    pub fn find(views: &Views, snapshot: &Snapshot, paths: &[ByteBuf], if_missing: IfMissing) -> Result<Tops> {
        if paths.is_empty() {
            return Err(refused(Errno::INVAL, "no path is given that is to be brought back".into()));
        }
        let wanted = paths.iter().map(|path| normal(path)).collect::<Result<BTreeSet<_>>>()?;
        let mut missing = Vec::new();
        let (mut tops, mut gone) = (BTreeMap::new(), BTreeSet::new());
        for path in &wanted {
            let is_below = above(path).any(|above| wanted.contains(above));
            match find(views.tree(), snapshot, path)? {
                None if if_missing == IfMissing::Goes => gone.extend([highest_missing(views.tree(), snapshot, path)?]),
                None => missing.push(path.as_slice()),
                Some(_) if is_below => {}
                Some(top) => drop(tops.insert(path.clone(), top)),
            }
        }
        if !missing.is_empty() {
            let (paths, name) = (shown_all(missing, ERROR_PATHS), &snapshot.record.name);
            return Err(refused(Errno::NOENT, format!("not in the snapshot {name:?}: {paths}; nothing was changed")));
        }
        tops.values().try_for_each(|top| check_above(views.tree(), root_of(views.base()), top))?;
        let files = tops.values().filter(|top| top.kind != Kind::Directory).map(|top| top.then).collect();
        Ok(Tops { by_path: tops, gone, files })
    }

    pub fn iter(&self) -> impl Iterator<Item = &Top> {
        self.by_path.values()
    }

    pub fn paths(&self) -> impl Iterator<Item = &[u8]> {
        self.by_path.keys().chain(&self.gone).map(Vec::as_slice)
    }

    /// Those that the snapshot does not have.
    pub fn gone(&self) -> impl Iterator<Item = &[u8]> {
        self.gone.iter().map(Vec::as_slice)
    }

    /// Whether a file is one of these by itself.
    pub fn name_file(&self, then: InodeNo) -> bool {
        self.files.contains(&then)
    }

    pub fn have_directory(&self) -> bool {
        self.iter().any(|top| top.kind == Kind::Directory)
    }

    /// Whether a path is one of these or lies below one.
    pub fn contain(&self, path: &[u8]) -> bool {
        let is_one = |path: &[u8]| self.by_path.contains_key(path) || self.gone.contains(path);
        is_one(path) || above(path).any(is_one)
    }
}

fn refused(errno: Errno, text: String) -> Error {
    Error::Refused(errno, text)
}

pub(super) fn not_a_directory(path: &[u8]) -> Error {
    let path = shown(path);
    refused(Errno::NOTDIR, format!("{path:?} is not a directory now; move it away, or bring it back as a whole"))
}

/// Paths as text, the first few of them.
pub(super) fn shown_all<'a>(paths: impl IntoIterator<Item = &'a [u8]>, most: usize) -> String {
    let all: Vec<&[u8]> = paths.into_iter().collect();
    let first = all.iter().take(most).map(|path| format!("{:?}", shown_path(path)));
    let mut shown = first.collect::<Vec<_>>().join(" ");
    if all.len() > most {
        shown.push_str(&format!(" and {} more", all.len() - most));
    }
    shown
}

/// A path without slashes that say nothing.
fn normal(path: &[u8]) -> Result<Vec<u8>> {
    let names: Vec<&[u8]> = names_of(path).collect();
    if names.contains(&&b".."[..]) {
        let path = shown(path);
        return Err(refused(Errno::INVAL, format!("{path:?} has to be a path from the root, without `..`")));
    }
    Ok(names.join(&b'/'))
}

/// The paths of the directories above a path, the root among them.
fn above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at]);
    slashes.chain((!path.is_empty()).then_some(&path[..0]))
}

fn find(tree: &Tree, snapshot: &Snapshot, path: &[u8]) -> Result<Option<Top>> {
    let moment = Moment::At(snapshot.epoch);
    let root = root_of(snapshot.base);
    let mut top = Top { path: path.to_vec(), above: Vec::new(), name: None, then: root, kind: Kind::Directory };
    for name in names_of(path) {
        match tree.names().lookup(top.then.at(moment), name) {
            Ok((inode, found)) => {
                if let Some(name) = top.name.replace(name.to_vec()) {
                    top.above.push((name, top.then));
                }
                (top.then, top.kind) = (inode, found.kind());
            }
            Err(Error::Posix(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG)) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(top))
}

/// The path, or the highest above it, that is not in a snapshot.
fn highest_missing(tree: &Tree, snapshot: &Snapshot, path: &[u8]) -> Result<Vec<u8>> {
    for above in above(path) {
        if find(tree, snapshot, above)?.is_none() {
            return Ok(above.to_vec());
        }
    }
    Ok(path.to_vec())
}

/// An error if something above a path is there now and no directory.
fn check_above(tree: &Tree, root: InodeNo, top: &Top) -> Result<()> {
    let mut at = root;
    let mut path = Vec::new();
    for (name, _) in &top.above {
        path = crate::tree::join(&path, name);
        match tree.names().lookup(at.live(), name) {
            Ok((inode, found)) if found.is_directory() => at = inode,
            Ok(_) => return Err(not_a_directory(&path)),
            Err(Error::Posix(Errno::NOENT)) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_brought_into_one_form() {
        for (path, expected) in [("", ""), ("/", ""), ("a", "a"), ("//a/./b/", "a/b"), ("./a...", "a...")] {
            assert_eq!(normal(path.as_bytes()).unwrap(), expected.as_bytes());
        }
        assert!(normal(b"a/../b").is_err());
    }

    #[test]
    fn every_directory_above_a_path_is_found() {
        let all = |path: &'static str| above(path.as_bytes()).collect::<Vec<_>>();
        assert_eq!(all("a/bc/d"), [&b"a"[..], b"a/bc", b""]);
        assert_eq!(all("a"), [b""]);
        assert!(all("").is_empty());
    }

    #[test]
    fn many_paths_are_counted() {
        let paths = [&b""[..], b"a b", b"\xff"];
        assert_eq!(shown_all(paths, 3), "\"/\" \"a b\" \"\\xff\"");
        assert_eq!(shown_all(paths, 1), "\"/\" and 2 more");
    }
}
