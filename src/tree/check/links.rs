//! What inodes say of themselves, and what the entries of directories say of them.

use super::super::{Entry, Inode, Kind, Tree, is_root};
use crate::device::InodeNo;
use std::collections::HashMap;

/// What an inode says of itself, and what was counted of it.
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

/// Inodes of bases whose own records are all that they show, and what entries say of them.
#[derive(Default)]
pub struct Links {
    inodes: HashMap<InodeNo, Seen>,
}

/// Something wrong with what an inode counts.
pub struct Counted {
    pub inode: InodeNo,
    pub problem: String,
    links: u32,
    size: u64,
}

impl Counted {
    /// Whether the inode still says the same.
    pub fn is_current(&self, tree: &Tree) -> bool {
        let now = tree.inode(self.inode.live());
        now.is_ok_and(|now| (now.links, now.size) == (self.links, self.size))
    }
}

impl Links {
    /// An inode. All of these come before the entries.
    pub fn add(&mut self, number: InodeNo, inode: &Inode) {
        self.inodes.insert(number, Seen::new(inode));
    }

    /// An entry of a directory; what is wrong with what it leads to, or with where it is.
    pub fn entry(&mut self, directory: InodeNo, entry: &Entry) -> Option<&'static str> {
        let is_directory = entry.kind == Kind::Directory;
        let is_in_one = self.inodes.get_mut(&directory).is_some_and(|directory| {
            directory.entries += 1;
            directory.subdirectories = directory.subdirectories.saturating_add(u32::from(is_directory));
            true
        });
        let Some(inode) = self.inodes.get_mut(&entry.inode) else {
            return Some("its inode is missing or cannot be read");
        };
        inode.names = inode.names.saturating_add(1);
        match inode.kind == entry.kind {
            false => Some("its inode is of another kind"),
            true if !is_in_one => Some("the directory it is in is missing or cannot be read"),
            true => None,
        }
    }

    /// What does not fit together, once all entries are counted.
    pub fn problems(&self) -> impl Iterator<Item = Counted> {
        self.inodes.iter().filter_map(|(&inode, seen)| {
            let problem = seen.problem(inode)?;
            Some(Counted { inode, problem, links: seen.links, size: seen.size })
        })
    }
}
