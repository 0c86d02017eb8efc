//! What the kernel is told of changes that it did not ask for itself: taken from the feed, by a thread of its own, in the
//! order in which they took effect.
//!
//! Invariants:
//! - the kernel is told of what it knows and of nothing else: what is mounted on a directory that did not change stays;
//! - when the kernel finds a directory under a new name, it moves there what is mounted inside: so the new name is told
//!   before the old one is given up.

use super::mounts::has_mounts_inside;
use super::{Names, Notify};
use crate::device::{BaseId, Changed, News, Shown};
use crate::error::{Error, Result};
use crate::tree::Altered;
use crate::view::Views;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;

/// In which base's directory each tree is shown, and under which name.
type Trees = BTreeMap<BaseId, (BaseId, String)>;

pub(super) struct Teller {
    notify: Notify,
    views: Views,
    trees: Trees,
}

fn trees_shown(views: &Views) -> Result<Trees> {
    let mut shown = Trees::new();
    for (top, name) in views.bases().top()? {
        shown.extend(views.of(top).bases().beside()?.into_iter().map(|(id, name)| (id, (top, name))));
        shown.insert(top, (top, name));
    }
    Ok(shown)
}

impl Teller {
    pub fn new(notify: Notify, views: Views) -> Result<Teller> {
        Ok(Teller { notify, trees: trees_shown(&views)?, views })
    }

    /// Tells of all that comes, until nobody can send any more.
    pub fn run(mut self, news: &Receiver<News>) {
        for news in news {
            match news {
                News::Changed(changes) => super::contained("news", || self.tell(&changes)),
                News::Known(trees) => super::contained("news", || self.take_note(&trees)),
                // Who waited may have given up.
                News::Waits(done) => drop(done.send(())),
            }
        }
    }

    /// Trees that the kernel knows as they are now. Of all others it may still have to be told.
    fn take_note(&mut self, trees: &[BaseId]) {
        match trees_shown(&self.views) {
            Ok(now) => trees.iter().for_each(|id| match now.get(id) {
                Some(place) => drop(self.trees.insert(*id, place.clone())),
                None => drop(self.trees.remove(id)),
            }),
            Err(error) => log::warn!("which trees are shown is not known: {error}"),
        }
    }

    fn tell(&mut self, changes: &[Changed]) {
        // One that cannot be read keeps nobody from being told of the others.
        let not_told = |error: Error| log::warn!("the kernel is not told of a change: {error}");
        self.tell_of_records(changes).unwrap_or_else(not_told);
        for change in changes {
            if let Changed::Shown(shown) = change {
                self.tell_of(shown).unwrap_or_else(not_told);
            }
        }
    }

    /// Names and inodes of trees as they are now.
    fn tell_of_records(&self, changes: &[Changed]) -> Result<()> {
        let tree = self.views.tree();
        let (mut names, mut inodes) = (Names::default(), BTreeSet::new());
        for change in changes {
            let altered = tree.altered(change).unwrap_or_else(|error| {
                log::warn!("what a change means is not known: {error}");
                None
            });
            match altered {
                Some(Altered::Name { directory, name, then }) => names.add(tree, (directory, name), then),
                Some(Altered::Inode(inode)) => drop(inodes.insert(inode)),
                None => {}
            }
        }
        self.notify.names_lead_elsewhere(&names);
        // Those of directories of which a name changed are told with that.
        inodes.retain(|inode| !names.is_in(*inode));
        if !inodes.is_empty() {
            self.notify.inodes_changed(inodes);
        }
        Ok(())
    }

    fn tell_of(&mut self, shown: &Shown) -> Result<()> {
        match shown {
            Shown::Snapshot { base, name } => self.tell_of_name(*base, name),
            Shown::Renamed { base, old, new } => self.tell_of_renamed(&[(*base, old)], &[(*base, new)]),
            Shown::Tree { id, names, of } => {
                let now = trees_shown(&self.views)?;
                let before = std::mem::replace(&mut self.trees, now.clone());
                self.tell_of_trees(&before, &now);
                // Others may have changed it again since: names that it had in between are in neither.
                let top = |id: &BaseId| before.get(id).or_else(|| now.get(id)).map(|(top, _)| *top);
                let top = top(id).or_else(|| of.as_ref().and_then(top)).unwrap_or(*id);
                names.iter().for_each(|name| self.tell_of_name(top, name));
            }
        }
        Ok(())
    }

    fn tell_of_trees(&self, before: &Trees, now: &Trees) {
        let (mut gone, mut came) = (Vec::new(), Vec::new());
        for (id, (top, name)) in before {
            match now.get(id) {
                Some(place) if place == &(*top, name.clone()) => {}
                Some((now_top, now_name)) => {
                    gone.push((*top, name.as_str()));
                    came.push((*now_top, now_name.as_str()));
                }
                None => self.tell_of_name(*top, name),
            }
        }
        for (top, name) in now.iter().filter(|(id, _)| !before.contains_key(id)).map(|(_, place)| place) {
            self.tell_of_name(*top, name);
        }
        self.tell_of_renamed(&gone, &came);
    }

    /// Something that the mount shows under a name came, went or leads elsewhere.
    fn tell_of_name(&self, base: BaseId, name: &str) {
        // What leads to the same as before, as where an archive has it from now on, keeps what is mounted inside.
        match self.views.of(base).bases().is_shown(name.as_bytes()) {
            Ok(true) => self.notify.shown_anew(base, name),
            Ok(false) | Err(_) => self.notify.shown_changed(base, name),
        }
    }

    /// Trees or snapshots have other names, each in the directory of a base.
    fn tell_of_renamed(&self, gone: &[(BaseId, impl AsRef<str>)], came: &[(BaseId, impl AsRef<str>)]) {
        let mut paths: Vec<PathBuf> = Vec::new();
        for (base, name) in came {
            let name = name.as_ref();
            self.notify.shown_changed(*base, name);
            let top = self.views.of(*base).base_name().unwrap_or_default();
            paths.extend([Path::new(name).to_path_buf(), Path::new(&top).join(name)]);
        }
        if !paths.is_empty() && has_mounts_inside(self.notify.mount_point()) {
            self.notify.look_up(&paths);
        }
        for (base, name) in gone {
            self.notify.shown_anew(*base, name.as_ref());
        }
    }
}
