//! Naive trees of files: everything in memory, copied whole for each snapshot, clone and restore.

use pitfs::clock::{Epoch, Timestamp};
use pitfs::device::{BaseId, InodeNo, LIVE};
use pitfs::error::Errno;
use pitfs::tree::{Kind, ROOT, RenameMode, root_of};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub btime: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub kind: Kind,
    pub permissions: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub links: u32,
    pub times: Times,
    /// A file's content or a symlink's target.
    pub bytes: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub entries: BTreeMap<Vec<u8>, InodeNo>,
}

impl Node {
    pub fn size(&self) -> u64 {
        if self.kind == Kind::Directory { self.entries.len() as u64 } else { self.bytes.len() as u64 }
    }

    pub fn kill_privileges(&mut self) {
        self.permissions &= if self.permissions & 0o010 != 0 { !0o6000 } else { !0o4000 };
    }
}

/// The name and the inode of an entry that is to be moved.
pub type Place<'a> = (InodeNo, &'a [u8]);

/// One tree at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    pub nodes: BTreeMap<InodeNo, Node>,
}

/// The epoch of a snapshot that is being taken.
pub const TO_COME: Epoch = Epoch::MAX;
/// The name, until it is known, of what a restore keeps.
pub const BEFORE_RESTORE: &str = "before-restore-?";

/// A snapshot.
#[derive(Clone)]
pub struct Kept {
    pub model: Rc<Model>,
    pub epoch: Epoch,
    pub is_held: bool,
    pub is_active: bool,
    /// Nothing protects it any more: it cannot be looked into.
    pub has_ended: bool,
}

/// A base: what it shows now, and its snapshots by name.
#[derive(Clone, Default)]
pub struct Shown {
    pub name: String,
    pub live: Model,
    pub snapshots: BTreeMap<String, Kept>,
    /// It is shown beside the base that it is a clone of.
    pub is_clone: bool,
    /// The snapshot that it shows what it did not change of, until somebody wants it to be independent.
    pub needs: Option<(BaseId, Epoch)>,
    /// Nothing was done to it since it was made.
    pub is_pristine: bool,
}

/// All that can be seen of a store: the base that is being worked on, and the others.
#[derive(Clone, Default)]
pub struct Picture {
    pub base: BaseId,
    here: Shown,
    others: BTreeMap<BaseId, Rc<Shown>>,
}

impl Deref for Picture {
    type Target = Shown;

    fn deref(&self) -> &Shown {
        &self.here
    }
}

impl DerefMut for Picture {
    fn deref_mut(&mut self) -> &mut Shown {
        &mut self.here
    }
}

impl Shown {
    /// Snapshots, oldest first.
    pub fn in_order(&self) -> Vec<(&String, &Kept)> {
        let mut all: Vec<_> = self.snapshots.iter().collect();
        all.sort_by_key(|(_, kept)| kept.epoch);
        all
    }
}

impl Shown {
    /// Keeps the tree as it is now.
    pub fn keep(&mut self, name: &str) {
        let model = Rc::new(self.live.clone());
        let kept = Kept { model, epoch: TO_COME, is_held: false, is_active: true, has_ended: false };
        self.snapshots.insert(name.to_string(), kept);
        self.is_pristine = false;
    }
}

impl Picture {
    pub fn bases(&self) -> Vec<BaseId> {
        let mut all: Vec<BaseId> = self.others.keys().copied().chain([self.base]).collect();
        all.sort_unstable();
        all
    }

    pub fn shown(&self, base: BaseId) -> &Shown {
        if base == self.base { &self.here } else { &self.others[&base] }
    }

    pub fn shown_mut(&mut self, base: BaseId) -> &mut Shown {
        match base == self.base {
            true => &mut self.here,
            false => Rc::make_mut(self.others.get_mut(&base).expect("the model has this base")),
        }
    }

    pub fn add(&mut self, base: BaseId, shown: Shown) {
        self.others.insert(base, Rc::new(shown));
    }

    /// Goes on with another base.
    pub fn go_to(&mut self, base: BaseId) {
        if base != self.base {
            let next = self.others.remove(&base).expect("the model has this base");
            let next = Rc::try_unwrap(next).unwrap_or_else(|shared| (*shared).clone());
            self.others.insert(self.base, Rc::new(std::mem::replace(&mut self.here, next)));
            self.base = base;
        }
    }

    /// Without a base; work goes on in the first one.
    pub fn remove(&mut self, base: BaseId) {
        if base == self.base {
            self.go_to(LIVE);
        }
        self.others.remove(&base);
    }

    /// Bases that show what they do not have themselves from a snapshot.
    pub fn needing(&self, base: BaseId, epoch: Epoch) -> Vec<BaseId> {
        self.bases().into_iter().filter(|other| self.shown(*other).needs == Some((base, epoch))).collect()
    }

    /// Without the inodes that only whoever holds them can see.
    pub fn forget_nameless(&mut self) {
        for base in self.bases() {
            if self.shown(base).live.nodes.values().any(|node| node.links == 0) {
                self.shown_mut(base).live.nodes.retain(|_, node| node.links > 0);
            }
        }
    }
}

impl Model {
    /// The same tree in a base that comes to show it.
    pub fn in_base(&self, base: BaseId) -> Model {
        let named = self.nodes.iter().filter(|(_, node)| node.links > 0);
        let moved = |(number, node): (&InodeNo, &Node)| {
            let mut node = node.clone();
            node.entries.values_mut().for_each(|child| *child = child.in_base(base));
            (number.in_base(base), node)
        };
        Model { nodes: named.map(moved).collect() }
    }

    fn root(&self) -> InodeNo {
        self.nodes.keys().next().map_or(ROOT, |number| root_of(number.base()))
    }

    pub fn node(&self, number: InodeNo) -> &Node {
        &self.nodes[&number]
    }

    pub fn node_mut(&mut self, number: InodeNo) -> &mut Node {
        self.nodes.get_mut(&number).expect("the model has this inode")
    }

    pub fn entry(&self, parent: InodeNo, name: &[u8]) -> Option<InodeNo> {
        self.node(parent).entries.get(name).copied()
    }

    pub fn of_kind(&self, is_wanted: impl Fn(Kind) -> bool) -> Vec<InodeNo> {
        self.nodes.iter().filter(|(_, node)| is_wanted(node.kind)).map(|(number, _)| *number).collect()
    }

    /// All entries: directory, name, inode.
    pub fn all_entries(&self) -> Vec<(InodeNo, Vec<u8>, InodeNo)> {
        let entries = |(parent, node): (&InodeNo, &Node)| {
            let parent = *parent;
            node.entries.iter().map(move |(name, number)| (parent, name.clone(), *number)).collect::<Vec<_>>()
        };
        self.nodes.iter().flat_map(entries).collect()
    }

    /// All paths of each inode that has a name.
    pub fn paths(&self) -> BTreeMap<InodeNo, Vec<Vec<u8>>> {
        let mut paths = BTreeMap::from([(self.root(), vec![Vec::new()])]);
        let mut waiting = vec![(self.root(), Vec::new())];
        while let Some((directory, path)) = waiting.pop() {
            for (name, number) in &self.node(directory).entries {
                let path = if path.is_empty() { name.clone() } else { [&path, &b"/"[..], name].concat() };
                paths.entry(*number).or_default().push(path.clone());
                if self.node(*number).kind == Kind::Directory {
                    waiting.push((*number, path));
                }
            }
        }
        paths
    }

    pub fn is_inside(&self, number: InodeNo, directory: InodeNo) -> bool {
        number == directory || self.node(directory).entries.values().any(|child| self.is_inside(number, *child))
    }

    pub fn check_place(&self, parent: InodeNo) -> Result<(), Errno> {
        if self.node(parent).links == 0 { Err(Errno::NOENT) } else { Ok(()) }
    }

    pub fn add(&mut self, parent: InodeNo, name: &[u8], number: InodeNo) {
        let is_directory = self.node(number).kind == Kind::Directory;
        let parent = self.node_mut(parent);
        parent.entries.insert(name.to_vec(), number);
        parent.links += u32::from(is_directory);
    }

    /// Removes an entry; the inode it named.
    pub fn drop_entry(&mut self, parent: InodeNo, name: &[u8]) -> InodeNo {
        let number = self.node_mut(parent).entries.remove(name).expect("the model has this entry");
        if self.node(number).kind == Kind::Directory {
            self.node_mut(parent).links -= 1;
        }
        number
    }

    /// Takes a name off an inode's count of names.
    pub fn unname(&mut self, number: InodeNo) {
        let node = self.node_mut(number);
        node.links = if node.kind == Kind::Directory { 0 } else { node.links - 1 };
    }

    pub fn expect_unlink(&self, parent: InodeNo, name: &[u8]) -> Result<(), Errno> {
        match self.entry(parent, name).map(|number| self.node(number).kind) {
            None => Err(Errno::NOENT),
            Some(Kind::Directory) => Err(Errno::ISDIR),
            Some(_) => Ok(()),
        }
    }

    pub fn expect_remove_directory(&self, parent: InodeNo, name: &[u8]) -> Result<(), Errno> {
        let Some(number) = self.entry(parent, name) else { return Err(Errno::NOENT) };
        match self.node(number).kind {
            Kind::Directory if self.node(number).entries.is_empty() => Ok(()),
            Kind::Directory => Err(Errno::NOTEMPTY),
            _ => Err(Errno::NOTDIR),
        }
    }

    pub fn expect_rename(&self, from: Place<'_>, to: Place<'_>, mode: RenameMode) -> Result<(), Errno> {
        let source = self.entry(from.0, from.1).ok_or(Errno::NOENT)?;
        self.check_place(to.0)?;
        let target = match (mode, self.entry(to.0, to.1)) {
            (RenameMode::NoReplace, Some(_)) => return Err(Errno::EXIST),
            (RenameMode::Exchange, None) => return Err(Errno::NOENT),
            (RenameMode::Exchange, Some(_)) | (_, None) => return Ok(()),
            (RenameMode::Replace, Some(target)) => target,
        };
        let is_directory = |number| self.node(number).kind == Kind::Directory;
        match (is_directory(source), is_directory(target)) {
            _ if source == target => Ok(()),
            (true, false) => Err(Errno::NOTDIR),
            (false, true) => Err(Errno::ISDIR),
            (true, true) if !self.node(target).entries.is_empty() => Err(Errno::NOTEMPTY),
            _ => Ok(()),
        }
    }

    /// Carries out a rename that [`Model::expect_rename`] allows; the inodes whose change time moves,
    /// directories first, and the inode that was replaced.
    pub fn rename(
        &mut self,
        from: Place<'_>,
        to: Place<'_>,
        mode: RenameMode,
    ) -> (Vec<InodeNo>, Vec<InodeNo>, Option<InodeNo>) {
        let (source, target) = (self.entry(from.0, from.1).expect("checked"), self.entry(to.0, to.1));
        if target == Some(source) {
            return (Vec::new(), Vec::new(), None);
        }
        self.drop_entry(from.0, from.1);
        let target = target.inspect(|_| {
            self.drop_entry(to.0, to.1);
        });
        self.add(to.0, to.1, source);
        let mut moved = vec![source];
        moved.extend(target);
        let gone = match (mode, target) {
            (RenameMode::Exchange, Some(target)) => {
                self.add(from.0, from.1, target);
                None
            }
            (_, Some(target)) => {
                self.unname(target);
                Some(target)
            }
            (_, None) => None,
        };
        (vec![from.0, to.0], moved, gone)
    }
}

/// Overwrites or extends.
pub fn write(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if bytes.len() < offset + data.len() {
        bytes.resize(offset + data.len(), 0);
    }
    bytes[offset..offset + data.len()].copy_from_slice(data);
}
