//! The history of a tree of real files: each version changes lines of some files, adds some and removes some. It is the
//! same for everybody with the same Cargo.lock.

use crate::command::{ok, shell};
use crate::{Result, source};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A package beyond this would be most of the tree by itself.
const PACKAGE_BYTES_MAX: u64 = 3 << 20;
/// One of so many files is changed in each version.
const FILES_PER_CHANGE: usize = 20;
/// One of so many files is added, and one removed.
const FILES_PER_ADDED: usize = 400;
const PLACES_MAX: usize = 3;
const LINES_REMOVED_MAX: usize = 5;
const LINES_ADDED_MAX: usize = 8;

/// The same numbers in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit.max(1)
    }
}

pub struct History {
    directory: PathBuf,
    files: Vec<PathBuf>,
    /// Files of packages that are not in the tree: what is added comes from them.
    spare: Vec<PathBuf>,
    random: Random,
    version: usize,
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) -> Result<u64> {
    let mut entries = std::fs::read_dir(directory)?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let mut bytes = 0;
    for entry in entries {
        let kind = entry.file_type()?;
        if kind.is_dir() {
            bytes += list(&entry.path(), files)?;
        } else if kind.is_file() {
            bytes += entry.metadata()?.len();
            files.push(entry.path());
        }
    }
    Ok(bytes)
}

fn lines(content: &[u8]) -> Vec<&[u8]> {
    content.split_inclusive(|byte| *byte == b'\n').collect()
}

fn is_text(content: &[u8]) -> bool {
    !content.is_empty() && !content.contains(&0)
}

impl History {
    /// Makes the first version: whole packages, until there are so many bytes.
    pub fn begin(directory: &Path, bytes: u64) -> Result<History> {
        std::fs::create_dir(directory)?;
        let mut history = History {
            directory: directory.to_path_buf(),
            files: Vec::new(),
            spare: Vec::new(),
            random: Random(0x9E37_79B9_7F4A_7C15),
            version: 0,
        };
        let mut taken = 0;
        for (parent, names) in source::directories()? {
            for name in names.into_iter().collect::<BTreeSet<_>>() {
                let mut found = Vec::new();
                let size = list(&parent.join(&name), &mut found)?;
                if size > PACKAGE_BYTES_MAX {
                    continue;
                }
                if taken >= bytes {
                    history.spare.extend(found);
                    continue;
                }
                taken += size;
                ok(Command::new("cp").arg("-a").arg(parent.join(&name)).arg(directory))?;
                list(&directory.join(&name), &mut history.files)?;
            }
        }
        if taken < bytes || history.spare.is_empty() {
            return Err("there are not enough sources of dependencies on this machine".into());
        }
        Ok(history)
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Lets the tree be its next version, and waits until that is on the disk.
    pub fn advance(&mut self) -> Result<()> {
        self.version += 1;
        let count = self.files.len();
        let mut chosen = BTreeSet::new();
        while chosen.len() < count.div_ceil(FILES_PER_CHANGE) {
            chosen.insert(self.random.below(count));
        }
        for at in chosen {
            self.change(at)?;
        }
        for i in 0..count.div_ceil(FILES_PER_ADDED) {
            let at = self.random.below(self.files.len());
            std::fs::remove_file(self.files.swap_remove(at))?;
            let beside = self.random.below(self.files.len());
            let from = self.random.below(self.spare.len());
            let to = self.files[beside].with_file_name(format!("added-{}-{i}.rs", self.version));
            std::fs::write(&to, std::fs::read(&self.spare[from])?)?;
            self.files.push(to);
        }
        shell(&format!("sync -f '{}'", self.directory.display()))
    }

    /// Replaces lines in a few places of a file by lines of others.
    fn change(&mut self, at: usize) -> Result<()> {
        let content = std::fs::read(&self.files[at])?;
        if !is_text(&content) {
            return Ok(());
        }
        let from = self.random.below(self.spare.len());
        let other = std::fs::read(&self.spare[from])?;
        let other = if is_text(&other) { lines(&other) } else { vec![&b"// changed\n"[..]] };
        let mut changed = lines(&content);
        for _ in 0..=self.random.below(PLACES_MAX) {
            let first = self.random.below(changed.len());
            let end = (first + self.random.below(LINES_REMOVED_MAX + 1)).min(changed.len());
            let new = self.random.below(other.len());
            let new_end = (new + 1 + self.random.below(LINES_ADDED_MAX)).min(other.len());
            changed.splice(first..end, other[new..new_end].iter().copied());
        }
        Ok(std::fs::write(&self.files[at], changed.concat())?)
    }
}
