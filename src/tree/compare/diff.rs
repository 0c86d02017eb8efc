//! What differs between two moments of a tree.
//!
//! The increments between the moments name every inode that was changed. Of the directories among them
//! the listings are compared; what appears in a directory without having existed before is listed as a
//! whole. The cost follows what changed and the size of the directories it changed in.

use crate::clock::Epoch;
use crate::device::{BaseId, Increments, InodeAt, InodeNo, Moment, Named, each_named, each_named_outside};
use crate::error::{Errno, Error, Result};
use crate::meta::Table;
use crate::tree::Tree;
use crate::tree::inode::{Inode, Kind, is_root};
use crate::tree::names::Entry;
use crate::tree::paths::join;
use std::collections::{BTreeMap, HashMap, HashSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DifferenceKind {
    Added,
    Removed,
    /// The bytes of a file, or the target of a symlink.
    Changed,
    /// Mode, owner or xattrs, and not the content.
    Attributes,
    Renamed,
}

/// One path that differs. Paths are relative to the root of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub kind: DifferenceKind,
    pub path: Vec<u8>,
    /// Where it was before, if it was renamed.
    pub from: Option<Vec<u8>>,
    pub is_directory: bool,
    pub size_before: Option<u64>,
    pub size_after: Option<u64>,
}

/// Moments of one base in the order of time; what is in the increments between two has ended after the one, and
/// not after the other.
pub(super) fn order(moment: Moment) -> Epoch {
    match moment {
        Moment::At(epoch) => epoch,
        Moment::Live => Epoch::MAX.before(),
    }
}

/// What kinds of records of an inode changed.
#[derive(Default)]
struct Touch {
    data: bool,
    xattr: bool,
}

/// Increments that are to be looked at.
pub(in crate::tree) struct Spans {
    /// After the first epoch, up to the second.
    pub spans: Vec<(Epoch, Epoch)>,
    /// Whether they name all that changed. Of what was taken over from another base they do not.
    pub is_all: bool,
}

/// Moments of a tree, compared.
#[derive(Clone, Copy)]
pub struct Comparison<'a> {
    pub(in crate::tree) tree: &'a Tree,
}

impl Comparison<'_> {
    /// What became different from `before` to `after`, sorted by path.
    pub fn diff(self, base: BaseId, before: Moment, after: Moment) -> Result<Vec<Difference>> {
        let (start, end) = (order(before), order(after));
        let mut found = if start <= end {
            self.diff_forward(base, (before, start), (after, end))?
        } else {
            self.diff_forward(base, (after, end), (before, start))?.into_iter().map(Difference::reversed).collect()
        };
        found.sort_by(|a, b| (&a.path, a.kind).cmp(&(&b.path, b.kind)));
        Ok(found)
    }

    /// What changed from the epoch of the earlier moment to that of the later, in no order.
    fn diff_forward(
        self,
        base: BaseId,
        (before, start): (Moment, Epoch),
        (after, end): (Moment, Epoch),
    ) -> Result<Vec<Difference>> {
        let changed = self.changed(base, start, end)?;
        let mut names = ChangedNames {
            tree: self.tree,
            before,
            after,
            removed: BTreeMap::new(),
            added: BTreeMap::new(),
            known: Default::default(),
            seen: HashSet::new(),
        };
        let mut directories = Directories::at(after);
        let mut found = Vec::new();
        for (&number, touch) in &changed {
            let (old, new) = (self.inode_or_none(number.at(before))?, self.inode_or_none(number.at(after))?);
            let is_directory = |inode: &Option<Inode>| inode.as_ref().is_some_and(Inode::is_directory);
            if is_directory(&old) || is_directory(&new) {
                names.compare_directory(number, is_directory(&old), is_directory(&new))?;
            }
            let (Some(old), Some(new)) = (old, new) else { continue };
            let change = self.change_of(number, touch, &old, &new, before, after);
            if let Some(kind) = self.unless_gone(number.at(after), change)? {
                for path in self.paths_through(&mut directories, number)? {
                    found.push(Difference {
                        kind,
                        path,
                        from: None,
                        is_directory: new.is_directory(),
                        size_before: size_of(&old),
                        size_after: size_of(&new),
                    });
                }
            }
        }
        names.finish(&mut found)?;
        Ok(found)
    }

    /// All paths of an inode at the moment of these directories.
    fn paths_through(self, directories: &mut Directories, number: InodeNo) -> Result<Vec<Vec<u8>>> {
        if is_root(number) {
            return Ok(vec![Vec::new()]);
        }
        let names =
            self.unless_gone(number.at(directories.moment), self.tree.names().of(number.at(directories.moment)))?;
        let paths = names.iter().map(|name| directories.path_of(self.tree, name));
        Ok(paths.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// What programs remove while it is compared is as if it were not there, as long as the moment itself is.
    fn unless_gone<T: Default>(self, at: InodeAt, result: Result<T>) -> Result<T> {
        match result {
            Err(Error::Gone) => {
                self.tree.device.look()?.moments().check(at)?;
                Ok(T::default())
            }
            result => result,
        }
    }

    pub(in crate::tree) fn inode_or_none(self, at: InodeAt) -> Result<Option<Inode>> {
        // An inode without a name is not part of the tree any more.
        let found = self.tree.inode(at).map(|found| (found.links > 0).then_some(found));
        self.unless_gone(at, found)
    }

    /// Inodes that changed after an epoch, up to another.
    fn changed(self, base: BaseId, start: Epoch, end: Epoch) -> Result<BTreeMap<InodeNo, Touch>> {
        let mut changed: BTreeMap<InodeNo, Touch> = BTreeMap::new();
        let mut note = |named: &Named| {
            if let Some(inode) = named.inode() {
                let touch = changed.entry(inode).or_default();
                touch.data |= named.table == Table::Track;
                touch.xattr |= named.table == Table::Xattr;
            }
            Ok(())
        };
        for (start, end) in self.spans(base, start, end)?.spans {
            each_named(&self.tree.device, Increments::between(base, start, end), &mut note)?;
        }
        each_named_outside(&self.tree.device, base, &[Moment::At(start)], start..end, &mut note)?;
        Ok(changed)
    }

    /// The epochs whose increments name what changed after an epoch, up to another.
    pub(in crate::tree) fn spans(self, base: BaseId, start: Epoch, end: Epoch) -> Result<Spans> {
        let mut found = Spans { spans: vec![(start, end)], is_all: true };
        let look = self.tree.device.look()?;
        let eras = &look.base_record(base)?.eras;
        let mut next = 0;
        while let Some(&(start, end)) = found.spans.get(next) {
            next += 1;
            // What a restore changed is in no increment before it is settled. What it went back over can have
            // another restore in it.
            for era in eras.iter().filter(|era| start <= era.since && era.since < end) {
                let span = (era.source.epoch, era.since);
                if era.source.base != base {
                    found.is_all = false;
                } else if !found.spans.contains(&span) {
                    found.spans.push(span);
                }
            }
        }
        Ok(found)
    }

    fn change_of(
        self,
        number: InodeNo,
        touch: &Touch,
        old: &Inode,
        new: &Inode,
        before: Moment,
        after: Moment,
    ) -> Result<Option<DifferenceKind>> {
        let is_other_content = !new.is_directory()
            && (old.size != new.size
                || old.inline != new.inline
                || old.mtime != new.mtime
                || old.rdev != new.rdev
                // What was brought back has the tracks it had, or copies of them.
                || touch.data
                    && !self.tree.likeness().has_same_tracks(number.at(before), number.at(after))?
                    && !self.has_same_bytes(number.at(before), number.at(after), new));
        if is_other_content {
            return Ok(Some(DifferenceKind::Changed));
        }
        let is_other = (old.mode, old.uid, old.gid) != (new.mode, new.uid, new.gid);
        // A new xattr leaves no pre-image; the change time of the inode tells.
        let may_have_new_xattrs = touch.xattr || old.ctime != new.ctime;
        if is_other
            || may_have_new_xattrs
                && self.tree.attributes().xattrs(number.at(before))?
                    != self.tree.attributes().xattrs(number.at(after))?
        {
            return Ok(Some(DifferenceKind::Attributes));
        }
        Ok(None)
    }

    /// What cannot be read is not the same.
    pub(in crate::tree) fn has_same_bytes(self, old: InodeAt, new: InodeAt, inode: &Inode) -> bool {
        const STEP: usize = 1 << 20;
        let read = |of: InodeAt, offset| self.tree.files().read(of, offset, STEP);
        let is_same = |offset| matches!((read(old, offset), read(new, offset)), (Ok(old), Ok(new)) if old == new);
        if inode.kind() != Kind::File || inode.tracks == 0 {
            return true;
        }
        // Where both have a hole there is nothing to be read.
        let next = |of: InodeAt, offset| match self.tree.files().seek_data(of, offset) {
            Err(Error::Posix(Errno::NXIO)) => Ok(u64::MAX),
            found => found,
        };
        let mut offset = 0;
        loop {
            let (Ok(before), Ok(after)) = (next(old, offset), next(new, offset)) else { return false };
            offset = before.min(after);
            if offset >= inode.size {
                return true;
            }
            if !is_same(offset) {
                return false;
            }
            offset += STEP as u64;
        }
    }
}

fn size_of(inode: &Inode) -> Option<u64> {
    (!inode.is_directory()).then_some(inode.size)
}

/// Whether a name was there before or is there after.
#[derive(Clone, Copy)]
enum Way {
    Went,
    Came,
}

/// A name in a directory.
type Name = (InodeNo, Vec<u8>);

/// Where directories are at one moment. Each is looked up once, however many paths lead through it.
struct Directories {
    moment: Moment,
    above: HashMap<InodeNo, Option<Name>>,
    /// The path that was made last: names of one directory come together.
    last: Option<(InodeNo, Option<Vec<u8>>)>,
}

impl Directories {
    fn at(moment: Moment) -> Directories {
        Directories { moment, above: HashMap::new(), last: None }
    }

    /// `None` for what is not reached from the root.
    fn path(&mut self, tree: &Tree, directory: InodeNo) -> Result<Option<&[u8]>> {
        if self.last.as_ref().is_none_or(|(known, _)| *known != directory) {
            self.last = Some((directory, self.find(tree, directory)?));
        }
        Ok(self.last.as_ref().and_then(|(_, path)| path.as_deref()))
    }

    fn find(&mut self, tree: &Tree, directory: InodeNo) -> Result<Option<Vec<u8>>> {
        let mut names: Vec<InodeNo> = Vec::new();
        let mut at = directory;
        let mut path = Vec::new();
        while !is_root(at) {
            // Often the last one is on the way: in a chain of directories each is.
            if let Some((known, Some(above))) = &self.last
                && *known == at
            {
                path.clone_from(above);
                break;
            }
            if !self.above.contains_key(&at) {
                let found = tree.comparison().inode_or_none(at.at(self.moment))?;
                self.above.insert(at, found.map(|found| (found.parent, found.name.into_vec())));
            }
            names.push(at);
            match self.above.get(&at) {
                // More names than directories are known: damaged records lead in a circle.
                Some(Some((parent, _))) if names.len() <= self.above.len() => at = *parent,
                _ => return Ok(None),
            }
        }
        for (_, name) in names.iter().rev().filter_map(|inode| self.above.get(inode)?.as_ref()) {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        Ok(Some(path))
    }

    /// The path of a name, with what it leads to.
    fn path_of(&mut self, tree: &Tree, (directory, name): &Name) -> Result<Option<Vec<u8>>> {
        Ok(self.path(tree, *directory)?.map(|path| join(path, name)))
    }
}

/// Names that went and names that came.
struct ChangedNames<'a> {
    tree: &'a Tree,
    before: Moment,
    after: Moment,
    removed: BTreeMap<InodeNo, Vec<(Name, Kind)>>,
    added: BTreeMap<InodeNo, Vec<(Name, Kind)>>,
    /// The names in each: one is found in its directory, and again with that.
    known: [HashSet<Name>; 2],
    seen: HashSet<InodeNo>,
}

/// Paths of one inode, in order.
type Paths = BTreeMap<Vec<u8>, Kind>;

impl ChangedNames<'_> {
    fn entries(&self, directory: InodeAt) -> Result<HashMap<Vec<u8>, Entry>> {
        let mut entries = HashMap::new();
        let listed = self.tree.names().list(directory, 0, |entry| {
            entries.insert(entry.name.clone(), entry.clone());
            Ok(true)
        });
        self.tree.comparison().unless_gone(directory, listed)?;
        Ok(entries)
    }

    fn compare_directory(&mut self, directory: InodeNo, was_there: bool, is_there: bool) -> Result<()> {
        let old = if was_there { self.entries(directory.at(self.before))? } else { HashMap::new() };
        let new = if is_there { self.entries(directory.at(self.after))? } else { HashMap::new() };
        let is_same = |a: &Entry, b: Option<&Entry>| b.is_some_and(|b| a.inode == b.inode);
        for entry in old.values().filter(|entry| !is_same(entry, new.get(&entry.name))) {
            self.note(Way::Went, directory, entry)?;
        }
        for entry in new.values().filter(|entry| !is_same(entry, old.get(&entry.name))) {
            self.note(Way::Came, directory, entry)?;
        }
        Ok(())
    }

    /// What went or came with its directory is found in that alone, if a restore that is not settled took or brought
    /// both.
    fn note(&mut self, way: Way, directory: InodeNo, entry: &Entry) -> Result<()> {
        let mut pending = vec![(directory, entry.clone())];
        while let Some((directory, Entry { name, inode, kind, .. })) = pending.pop() {
            let (names, here, there) = match way {
                Way::Went => (&mut self.removed, self.before, self.after),
                Way::Came => (&mut self.added, self.after, self.before),
            };
            if !self.known[way as usize].insert((directory, name.clone())) {
                continue;
            }
            names.entry(inode).or_default().push(((directory, name), kind));
            let is_whole_directory =
                kind == Kind::Directory && self.tree.comparison().inode_or_none(inode.at(there))?.is_none();
            if is_whole_directory && self.seen.insert(inode) {
                pending.extend(self.entries(inode.at(here))?.into_values().map(|child| (inode, child)));
            }
        }
        Ok(())
    }

    /// Gives names their paths. What a damaged or half removed directory has in it has none.
    fn paths(&self, moment: Moment, names: BTreeMap<InodeNo, Vec<(Name, Kind)>>) -> Result<BTreeMap<InodeNo, Paths>> {
        let mut directories = Directories::at(moment);
        let mut found: BTreeMap<InodeNo, Paths> = BTreeMap::new();
        for (number, names) in names {
            for (name, kind) in names {
                if let Some(path) = directories.path_of(self.tree, &name)? {
                    found.entry(number).or_default().insert(path, kind);
                }
            }
        }
        Ok(found)
    }

    fn finish(mut self, found: &mut Vec<Difference>) -> Result<()> {
        let size = |tree: &Tree, at: InodeAt| -> Result<Option<u64>> {
            Ok(tree.comparison().inode_or_none(at)?.as_ref().and_then(size_of))
        };
        let (removed, added) = (std::mem::take(&mut self.removed), std::mem::take(&mut self.added));
        let (mut removed, mut added) = (self.paths(self.before, removed)?, self.paths(self.after, added)?);
        keep_what_changed(&mut removed, &mut added);
        let mut by_path = HashMap::new();
        for (&number, paths) in &removed {
            by_path.extend(paths.keys().map(|path| (path.clone(), number)));
        }
        for (number, added) in added {
            for (path, kind) in added {
                let from = removed.get_mut(&number).and_then(BTreeMap::pop_first).map(|(from, _)| from);
                if let Some(from) = &from {
                    by_path.remove(from);
                } else if let Some(old) = by_path.remove(&path) {
                    // Another inode in the place of the old one: removed and made again, or renamed over it.
                    removed.entry(old).or_default().remove(&path);
                    let replaced = self.replaced(path, old, number);
                    found.extend(self.tree.comparison().unless_gone(number.at(self.after), replaced)?);
                    continue;
                }
                found.push(Difference {
                    kind: if from.is_some() { DifferenceKind::Renamed } else { DifferenceKind::Added },
                    path,
                    is_directory: kind == Kind::Directory,
                    size_before: if from.is_some() { size(self.tree, number.at(self.before))? } else { None },
                    size_after: size(self.tree, number.at(self.after))?,
                    from,
                });
            }
        }
        for (number, removed) in removed {
            if removed.is_empty() {
                continue;
            }
            let size_before = size(self.tree, number.at(self.before))?;
            found.extend(removed.into_iter().map(|(path, kind)| Difference {
                kind: DifferenceKind::Removed,
                path,
                from: None,
                is_directory: kind == Kind::Directory,
                size_before,
                size_after: None,
            }));
        }
        Ok(())
    }
}

/// A path that an inode has lost and got again, in another directory of the same path, is no change.
fn keep_what_changed(removed: &mut BTreeMap<InodeNo, Paths>, added: &mut BTreeMap<InodeNo, Paths>) {
    for (number, added) in added {
        if let Some(removed) = removed.get_mut(number) {
            added.retain(|path, _| removed.remove(path).is_none());
        }
    }
}

impl ChangedNames<'_> {
    /// How the inode at a path differs from the one that was there before; `None` where it is the same.
    fn replaced(&self, path: Vec<u8>, old_number: InodeNo, new_number: InodeNo) -> Result<Option<Difference>> {
        let (before, after) = (old_number.at(self.before), new_number.at(self.after));
        let (old, new) = (self.tree.inode(before)?, self.tree.inode(after)?);
        let is_same_content = old.kind() == new.kind()
            && (old.is_directory()
                || (old.size, old.rdev, &old.inline) == (new.size, new.rdev, &new.inline)
                    && self.tree.comparison().has_same_bytes(before, after, &old));
        let kind = if !is_same_content {
            DifferenceKind::Changed
        } else if (old.mode, old.uid, old.gid) != (new.mode, new.uid, new.gid)
            || self.tree.attributes().xattrs(before)? != self.tree.attributes().xattrs(after)?
        {
            DifferenceKind::Attributes
        } else {
            return Ok(None);
        };
        let is_directory = new.is_directory();
        Ok(Some(Difference {
            kind,
            path,
            from: None,
            is_directory,
            size_before: size_of(&old),
            size_after: size_of(&new),
        }))
    }
}

impl Difference {
    /// The same difference, seen from the other side.
    fn reversed(self) -> Difference {
        let (kind, path, from) = match (self.kind, self.from) {
            (DifferenceKind::Added, from) => (DifferenceKind::Removed, self.path, from),
            (DifferenceKind::Removed, from) => (DifferenceKind::Added, self.path, from),
            (DifferenceKind::Renamed, Some(from)) => (DifferenceKind::Renamed, from, Some(self.path)),
            (kind, from) => (kind, self.path, from),
        };
        Difference { kind, path, from, size_before: self.size_after, size_after: self.size_before, ..self }
    }
}
