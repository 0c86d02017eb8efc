//! The namespace that a front shows: what stands in it and in no tree. The root, a directory with `live`, the snapshots
//! and the clones of a base, whose changes are snapshot commands; and the directories that show snapshots in other ways.
//! It knows neither a kernel nor its numbers.
//!
//! ```text
//! /snap/live  /snap/NAME  /snap/CLONE        one base is shown; of several: /snap/BASE/live …
//! /snap/@2h -> NAME                          time as a name, not listed
//! /snap/.snapshots/@GMT-2026.11.20-10.00.00/live  all of it as it was, not listed above
//! /snap/live/.snapshots/@GMT-…               the tree as it was, not listed
//! /snap/live/any/directory/.snap/NAME        that directory in every snapshot, not listed
//! ```

mod hidden;
mod listing;
#[cfg(test)]
mod tests;

use super::{LIVE_NAME, View, Views};
use crate::clock::{Epoch, Timestamp};
use crate::device::{BaseId, InodeNo, Moment, Snapshot};
use crate::error::{Errno, Error, Result};
use crate::tree::{Asker, Kind};
pub use hidden::{SHADOW, SNAP, name_of};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Instant;

/// A directory, or link, that is in no tree.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Virtual {
    /// The root of it all.
    Root,
    /// A base with its snapshots, where several are shown.
    Base(BaseId),
    /// `.snap` of a live directory.
    Snap(InodeNo),
    /// `.snapshots` in the root of a live tree: all snapshots of the base under their times.
    Shadow(BaseId),
    /// `.snapshots` above the trees: all times at which there is a snapshot of a base, or of any.
    Times(Option<BaseId>),
    /// What stood beside a base, or all bases, at a time.
    Time(Option<BaseId>, Timestamp),
    /// `@TIME`: leads to the snapshot of this name.
    Link(String),
}

impl Virtual {
    /// Whether what it shows changes without anybody being told.
    pub fn is_always_new(&self) -> bool {
        match self {
            Virtual::Root | Virtual::Base(_) | Virtual::Link(_) => false,
            Virtual::Snap(_) | Virtual::Shadow(_) | Virtual::Times(_) | Virtual::Time(..) => true,
        }
    }
}

/// Behind which name a view was entered, if not its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    /// `.snap`
    Snap,
    /// `.snapshots` of a live tree.
    Shadow,
    /// `.snapshots/@TIME` above the trees.
    Time(Timestamp),
}

/// What a name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The directory itself, or the one above.
    Dots,
    Virtual(Virtual),
    /// The root of a view, under the view's own name.
    View(View),
    /// A directory in a snapshot, reached through a door.
    Aside {
        inode: InodeNo,
        epoch: Epoch,
        door: Door,
    },
}

/// What is told of a directory, or link, that is in no tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub kind: Kind,
    pub size: u64,
    /// When the newest snapshot was taken, if there is one.
    pub time: Option<Timestamp>,
    /// When what it shows changed.
    pub changed: Option<Timestamp>,
    pub permissions: u32,
    pub uid: u32,
    pub gid: u32,
}

/// What a front shows.
pub struct Namespace {
    views: Views,
    /// The base that the root shows; where there are several it has a directory for each.
    only: Option<BaseId>,
    /// Hidden directories that were removed, and when.
    removed: Mutex<HashMap<Virtual, Instant>>,
    /// Owner of what is in no tree.
    uid: u32,
    gid: u32,
}

impl Namespace {
    /// Of one base, or of all that there are.
    pub fn new(views: Views, only: Option<BaseId>) -> Namespace {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Namespace { views, only, removed: Mutex::default(), uid, gid }
    }

    /// Whether the root shows one base.
    pub fn is_of_one(&self) -> bool {
        self.only.is_some()
    }

    /// The base that a directory shows with its snapshots.
    pub fn base_shown(&self, node: &Virtual) -> Option<BaseId> {
        match node {
            Virtual::Root => self.only,
            Virtual::Base(base) => Some(*base),
            _ => None,
        }
    }

    /// Bases that stand in the root, each with its name.
    pub fn tops(&self) -> Result<Vec<(BaseId, String)>> {
        match self.only {
            Some(only) => Ok(vec![(only, String::new())]),
            None => self.views.bases().top(),
        }
    }

    /// Where a base as it is now stands, by names from the root.
    pub fn path_of_live(&self, base: BaseId) -> Result<Vec<String>> {
        for (top, name) in self.tops()? {
            let above = (!name.is_empty()).then_some(name);
            let here = match top == base {
                true => Some(LIVE_NAME.to_string()),
                false => {
                    self.views.of(top).bases().beside()?.into_iter().find(|(id, _)| *id == base).map(|(_, name)| name)
                }
            };
            if let Some(here) = here {
                return Ok(above.into_iter().chain([here]).collect());
            }
        }
        Err(Error::Posix(Errno::NOENT))
    }

    /// What is told of a directory, or link, that is in no tree.
    pub fn standing(&self, node: &Virtual) -> Result<Standing> {
        let (kind, size, permissions) = match node {
            Virtual::Link(name) => (Kind::Symlink, name.len() as u64, 0o777),
            _ => (Kind::Directory, 0, 0o755),
        };
        let look = self.views.tree().device().look()?;
        if let Virtual::Base(base) = node {
            look.base_record(*base)?;
        }
        let mut time = None;
        for (base, _) in look.bases() {
            let snapshot = look.moments().snapshot_before(base, Epoch::MAX)?;
            time = time.max(snapshot.map(|snapshot| snapshot.record.time));
        }
        drop(look);
        // By a time that is new a kernel sees that it has to list it anew.
        let changed = if node.is_always_new() { Some(Timestamp::now()) } else { time };
        let standing = Standing { kind, size, time, changed, permissions, uid: self.uid, gid: self.gid };
        match hidden::directory_of(node) {
            Some(directory) => self.standing_hidden(directory, standing),
            None => Ok(standing),
        }
    }

    /// What a name in a directory that is in no tree leads to, and whether that may be remembered.
    pub fn lookup(&self, asker: &Asker<'_>, node: &Virtual, name: &[u8]) -> Result<(Target, bool)> {
        if let Some(base) = self.base_shown(node) {
            return base_lookup(&self.views.of(base), name);
        }
        match node {
            Virtual::Root if name == SHADOW => Ok((Target::Virtual(Virtual::Times(None)), false)),
            Virtual::Root => {
                let bases = self.views.bases().top()?;
                let found = bases.into_iter().find(|(_, known)| known.as_bytes() == name);
                let (base, _) = found.ok_or(Error::Posix(Errno::NOENT))?;
                Ok((Target::Virtual(Virtual::Base(base)), true))
            }
            Virtual::Snap(directory) => self.snap_lookup(asker, *directory, name),
            Virtual::Shadow(base) => {
                let snapshot = by_time(&self.views.of(*base), name)?;
                let (inode, epoch) = (View::live(*base).root(), snapshot.epoch);
                Ok((Target::Aside { inode, epoch, door: Door::Shadow }, false))
            }
            Virtual::Times(base) => {
                let time = self.time_named(*base, name)?;
                Ok((Target::Virtual(Virtual::Time(*base, time)), false))
            }
            Virtual::Time(base, time) => {
                let found = self.beside_at(*base, *time)?.into_iter().find(|(known, _)| known.as_bytes() == name);
                found.map(|(_, target)| (target, false)).ok_or(Error::Posix(Errno::NOENT))
            }
            Virtual::Base(_) | Virtual::Link(_) => Err(Error::Posix(Errno::NOTDIR)),
        }
    }

    /// The time of the newest snapshot to which `@TIME` leads.
    fn time_named(&self, base: Option<BaseId>, name: &[u8]) -> Result<Timestamp> {
        let mut newest = None;
        for base in self.trees_beside(base)? {
            match by_time(&self.views.of(base), name) {
                Ok(snapshot) => newest = newest.max(Some(snapshot.record.time)),
                Err(Error::Posix(Errno::NOENT)) => {}
                Err(error) => return Err(error),
            }
        }
        newest.ok_or(Error::Posix(Errno::NOENT))
    }

    /// All trees that the directory of a base shows, or the whole mount of several.
    fn trees_beside(&self, base: Option<BaseId>) -> Result<Vec<BaseId>> {
        let tops = match base {
            Some(base) => vec![base],
            None => self.views.bases().top()?.into_iter().map(|(base, _)| base).collect(),
        };
        let mut trees = tops.clone();
        for top in tops {
            trees.extend(self.views.of(top).bases().beside()?.into_iter().map(|(base, _)| base));
        }
        Ok(trees)
    }

    /// What stood beside a base, or in the root of a mount of several, at a time.
    fn beside_at(&self, base: Option<BaseId>, time: Timestamp) -> Result<Vec<(String, Target)>> {
        let Some(base) = base else {
            let tops = self.views.bases().top()?;
            return Ok(tops
                .into_iter()
                .map(|(base, name)| (name, Target::Virtual(Virtual::Time(Some(base), time))))
                .collect());
        };
        let mut trees = vec![(base, LIVE_NAME.to_string())];
        trees.extend(self.views.of(base).bases().beside()?);
        let mut found = Vec::new();
        for (tree, name) in trees {
            let views = self.views.of(tree);
            if let Some(snapshot) = views.unless_gone(views.before(time))?.flatten() {
                let (inode, epoch) = (View::live(tree).root(), snapshot.epoch);
                found.push((name, Target::Aside { inode, epoch, door: Door::Time(time) }));
            }
        }
        Ok(found)
    }

    /// The way that leads there is not the snapshot's: nobody gets where he could not have gone in that (EACCES).
    fn snap_lookup(&self, asker: &Asker<'_>, directory: InodeNo, name: &[u8]) -> Result<(Target, bool)> {
        let views = self.views.of(directory.base());
        if name.starts_with(b"@") {
            return time_link(&views, name);
        }
        let snapshot = views.find(name)?.filter(Snapshot::is_shown).ok_or(Error::Posix(Errno::NOENT))?;
        let path = self.path_in_reach(directory)?;
        let inode = self.in_snapshot(directory, path.as_deref(), &snapshot).ok_or(Error::Posix(Errno::NOENT))?;
        views.tree().attributes().check_way(inode.at(Moment::At(snapshot.epoch)), asker)?;
        Ok((Target::Aside { inode, epoch: snapshot.epoch, door: Door::Snap }, false))
    }

    /// Where a live directory was in a snapshot: the directory itself, or the one that had its path.
    fn in_snapshot(&self, directory: InodeNo, path: Option<&[u8]>, snapshot: &Snapshot) -> Option<InodeNo> {
        let tree = self.views.tree();
        let moment = Moment::At(snapshot.epoch);
        let was_there =
            |inode: InodeNo| tree.inode(inode.at(moment)).is_ok_and(|found| found.is_directory() && found.links > 0);
        let had_path = || tree.names().resolve(snapshot.base, path?, moment).ok().filter(|inode| was_there(*inode));
        if was_there(directory) { Some(directory) } else { had_path() }
    }

    /// Makes a directory for a user: in a base's directory that takes a snapshot, above these it makes a base.
    pub fn make(&self, node: &Virtual, name: &[u8], uid: u32, gid: u32) -> Result<Target> {
        if let Some(base) = self.base_shown(node) {
            let snapshot = self.views.of(base).by(uid).snapshots().take(Some(name))?;
            return Ok(Target::View(View::at(base, snapshot.epoch)));
        }
        match node {
            Virtual::Root => {
                self.views.by(uid).bases().create(name, uid, gid, 0o755).map(Virtual::Base).map(Target::Virtual)
            }
            _ => Err(Error::Posix(Errno::PERM)),
        }
    }

    /// Deletes a snapshot for a user who removes its directory.
    pub fn remove(&self, node: &Virtual, name: &[u8], uid: u32) -> Result<()> {
        let base = self.base_shown(node).ok_or(Error::Posix(Errno::PERM))?;
        self.views.of(base).by(uid).deletions().delete(&[name]).map(|_| ())
    }

    /// Whether a name beside a base is that of a tree with files in it: `pitfs clone delete` means it.
    pub fn is_tree(&self, node: &Virtual, name: &[u8]) -> Result<bool> {
        let Some(base) = self.base_shown(node) else { return Ok(false) };
        Ok(self.views.of(base).bases().beside()?.iter().any(|(_, known)| known.as_bytes() == name))
    }

    /// `mv` in a base's directory renames a snapshot or a clone; in the root of several, a base.
    pub fn rename(&self, node: &Virtual, name: &[u8], new_name: &[u8]) -> Result<()> {
        let known = match self.base_shown(node) {
            Some(base) => {
                let views = self.views.of(base);
                if views.find(name)?.is_some() || name == LIVE_NAME.as_bytes() {
                    return views.snapshots().rename(name, new_name).map(|_| ());
                }
                views.bases().beside()?
            }
            None if *node == Virtual::Root => self.views.bases().top()?,
            None => return Err(Error::Posix(Errno::PERM)),
        };
        let base = known.into_iter().find(|(_, known)| known.as_bytes() == name).ok_or(Error::Posix(Errno::NOENT))?.0;
        self.views.bases().rename(base, new_name)
    }

    /// Where a link leads.
    pub fn read_link(&self, node: &Virtual) -> Result<Vec<u8>> {
        match node {
            Virtual::Link(name) => Ok(name.clone().into_bytes()),
            _ => Err(Error::Posix(Errno::INVAL)),
        }
    }
}

fn base_lookup(views: &Views, name: &[u8]) -> Result<(Target, bool)> {
    if name == LIVE_NAME.as_bytes() {
        return Ok((Target::View(View::live(views.base())), true));
    }
    if name == SHADOW {
        return Ok((Target::Virtual(Virtual::Times(Some(views.base()))), false));
    }
    if name.starts_with(b"@") {
        return time_link(views, name);
    }
    if let Some(snapshot) = views.find(name)? {
        return match snapshot.is_shown() {
            true => Ok((Target::View(View::at(snapshot.base, snapshot.epoch)), true)),
            false => Err(Error::Posix(Errno::NOENT)),
        };
    }
    let beside = views.bases().beside()?.into_iter().find(|(_, known)| known.as_bytes() == name);
    beside.map(|(base, _)| (Target::View(View::live(base)), true)).ok_or(Error::Posix(Errno::NOENT))
}

/// What time it leads to changes as time goes by: nothing is remembered.
fn time_link(views: &Views, name: &[u8]) -> Result<(Target, bool)> {
    let snapshot = by_time(views, name)?;
    Ok((Target::Virtual(Virtual::Link(snapshot.record.name)), false))
}

/// The snapshot that `@TIME` leads to; ENOENT for what is no time as well, as for any name.
fn by_time(views: &Views, name: &[u8]) -> Result<Snapshot> {
    let text = name.strip_prefix(b"@").and_then(|text| std::str::from_utf8(text).ok());
    match views.at_time(text.ok_or(Error::Posix(Errno::NOENT))?) {
        Err(Error::Refused(..)) => Err(Error::Posix(Errno::NOENT)),
        found => found,
    }
}
