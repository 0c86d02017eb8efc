//! What an interrupted merge leaves: parts that the merged increment has, and files that were never given their name.
//!
//! A merged increment names the snapshots whose times went into it. So its parts are told from increments of a copy of the
//! store that lie between the same epochs, however few of them are left.

use super::catalog::SUFFIX;
use super::{Archive, Increment, sync};
use crate::error::Result;
use crate::media::Directory;
use crate::shown::shown_file;
use std::path::{Path, PathBuf};

/// A part of what was merged, which is still there. Nothing reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    pub increment: Increment,
    /// The file into which it was merged.
    pub merged: PathBuf,
}

impl Archive {
    /// Removes what merges have left, and what was being written when a program ended. A part stays until all that it was
    /// merged into was read and is whole. What cannot go is said, and stays as it is.
    pub fn remove_leftovers(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let leftovers = self.leftovers();
        for of_one in leftovers.chunk_by(|a, b| a.merged == b.merged) {
            match self.verify_merged(&of_one[0].merged) {
                Ok(()) => problems.extend(of_one.iter().filter_map(|one| self.remove_leftover(one))),
                Err(error) => {
                    let left = of_one.len();
                    problems.push(format!(
                        "{error}; the {left} increments of which it was merged stay, and have what it had"
                    ));
                }
            }
        }
        let removed = remove_unfinished(&self.directory, &mut problems);
        if (removed > 0 || !leftovers.is_empty())
            && let Err(error) = sync(&self.directory)
        {
            problems.push(error.to_string());
        }
        problems
    }

    fn verify_merged(&self, path: &Path) -> Result<()> {
        let merged = self.increments().into_iter().find(|one| one.path == path);
        merged.map_or(Ok(()), |merged| merged.open(&self.directory)?.verify(&mut |_| Ok(())))
    }

    /// Removes a part; says why if it cannot.
    fn remove_leftover(&self, leftover: &Leftover) -> Option<String> {
        let path = &leftover.increment.path;
        match self.directory.remove(&leftover.increment.name()) {
            Err(error) => {
                let merged = shown_file(&leftover.merged);
                Some(format!("{}, which was merged into {merged}, cannot be removed: {error}", shown_file(path)))
            }
            Ok(()) => {
                self.inner.write().leftovers.retain(|one| one.increment.path != *path);
                None
            }
        }
    }
}

/// Removes files that were being written; whoever writes one holds the archive. How many there were.
fn remove_unfinished(directory: &Directory, problems: &mut Vec<String>) -> usize {
    let Ok(names) = directory.names() else { return 0 };
    let unfinished = |name: &&str| name.starts_with('.') && name.ends_with(&format!("{SUFFIX}.new"));
    let mut removed = 0;
    for name in names.iter().filter_map(|name| name.to_str()).filter(unfinished) {
        match directory.remove(name) {
            Ok(()) => removed += 1,
            Err(error) => {
                problems.push(format!("{} cannot be removed: {error}", shown_file(&directory.path().join(name))))
            }
        }
    }
    removed
}
