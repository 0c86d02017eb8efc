//! What changes behind the back of the kernel that shows the store: what the kernel still holds is fetched before,
//! and it is told after.
//!
//! Two ways lead to such a change, and each does all that is due, so that no command can forget a part of it:
//! [`Daemon::replace`] for what a whole base shows, and [`Unseen`] for file after file. The tree itself refuses to
//! be replaced in any other way where it is shown.
//!
//! Invariants:
//! - before anything is compared or kept, what programs have stored in mappings is fetched;
//! - from the change on until the kernel was told of a file, old pages of it are passed over (`tree/behind.rs`);
//! - the kernel is told of what changed and of nothing else, as far as that is known: what is mounted on a directory
//!   that did not change stays;
//! - a file of another size is asked for, since nothing else makes the kernel take its size anew.

use super::Daemon;
use crate::device::{BaseId, InodeAt, InodeNo, Moment, silently};
use crate::error::{Errno, Error, Result};
use crate::fuse::{Names, Notify, has_mounts_inside};
use crate::limits::NAMES_AT_ONCE;
use crate::shown::shown;
use crate::tree::{Inode, Kind, Tree};
use crate::view::{LIVE_NAME, Views};
use parking_lot::MutexGuard;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a restore in place, which is soon over, is waited for.
const WAIT_FOR_RESTORE: Duration = Duration::from_secs(1);

impl Daemon {
    /// Of what changes many files, one thing at a time.
    pub(super) fn alone_with_files(&self) -> Result<MutexGuard<'_, ()>> {
        self.syncing.try_lock_for(WAIT_FOR_RESTORE).ok_or_else(|| {
            let text = "a sync or a restore of files is running in this store; wait for its end";
            Error::Refused(Errno::BUSY, text.into())
        })
    }

    /// Changes what bases show, as a whole, or rehearses it. Files are nobody else's meanwhile.
    pub(super) fn replace<R>(&self, views: &Views, bases: &[BaseId], change: impl FnOnce() -> Result<R>) -> Result<R> {
        let _alone = self.alone_with_files()?;
        self.views.fetched()?;
        let Some(notify) = self.notify() else { return change() };
        let unseen = Unseen { tree: self.views.tree(), notify: Some(notify) };
        bases.iter().try_for_each(|base| unseen.fetch(*base))?;
        if views.is_rehearsing() {
            return change();
        }
        // With something mounted inside, names cannot be forgotten all at once.
        let has_mounts = unseen.has_mounts_inside();
        let known: Vec<_> = bases.iter().map(|base| has_mounts.then(|| unseen.known(*base))).collect();
        unseen.tree.expect_replaced(bases);
        let told = Told { unseen: &unseen, bases };
        let result = change();
        if result.is_ok() {
            bases.iter().zip(known).for_each(|(base, known)| unseen.tell_of_tree(*base, known));
        }
        drop(told);
        result
    }

    /// For changes of files of a base, one after the other.
    pub(super) fn unseen(&self, base: BaseId) -> Result<Unseen<'_>> {
        let unseen = Unseen { tree: self.views.tree(), notify: self.notify() };
        unseen.fetch(base)?;
        Ok(unseen)
    }
}

/// Ends, however it ends, that old pages are passed over.
struct Told<'a, 'b> {
    unseen: &'a Unseen<'b>,
    bases: &'a [BaseId],
}

impl Drop for Told<'_, '_> {
    fn drop(&mut self) {
        let astray: Vec<_> = self.bases.iter().flat_map(|base| self.unseen.tree.end_replaced(*base)).collect();
        self.unseen.tell_again(&astray);
    }
}

/// How often the kernel is told of a file to which a program appends without end.
const ROUNDS: usize = 20;

/// The kernel that shows the store, if one does, and what it does not see.
pub(super) struct Unseen<'a> {
    tree: &'a Tree,
    notify: Option<Notify>,
}

/// A live inode that the kernel knows, as it was before a change.
struct Known {
    inode: InodeNo,
    names: Vec<(InodeNo, Vec<u8>)>,
    found: Option<Inode>,
}

impl Unseen<'_> {
    fn fetch(&self, base: BaseId) -> Result<()> {
        self.notify.as_ref().map_or(Ok(()), |notify| notify.fetch(base))
    }

    /// What programs have stored in a mapping of a file that is about to be looked at.
    pub(super) fn fetch_file(&self, inode: InodeNo) -> Result<()> {
        match self.notify.as_ref().filter(|_| self.tree.held().is_held(inode)) {
            Some(notify) => notify.fetch_file(inode),
            None => Ok(()),
        }
    }

    fn names_lead_elsewhere(&self, names: &Names) {
        if let Some(notify) = &self.notify {
            notify.names_lead_elsewhere(names);
        }
    }

    fn entries_changed(&self, entries: &[(InodeNo, Vec<u8>)]) {
        if let Some(notify) = &self.notify
            && !entries.is_empty()
        {
            notify.entries_changed(entries);
        }
    }

    fn inodes_changed(&self, inodes: &[InodeNo]) {
        if let Some(notify) = &self.notify
            && !inodes.is_empty()
        {
            notify.inodes_changed(inodes.iter().copied());
        }
    }

    /// Changes one file. `change` says whether it did; what the kernel sends of it meanwhile is old.
    pub(super) fn change_file<R>(
        &self,
        inode: InodeNo,
        change: impl FnOnce() -> Result<R>,
        is_changed: impl FnOnce(&R) -> bool,
    ) -> Result<R> {
        if self.notify.is_none() || !self.tree.held().is_held(inode) {
            return change();
        }
        let before = self.tree.inode(inode.live()).ok();
        // Of what the kernel keeps no pages of, the feed is enough.
        if before.as_ref().is_none_or(|found| found.kind() != Kind::File) {
            return change();
        }
        self.tree.begin_behind(inode)?;
        let result = silently(change);
        if !matches!(&result, Ok(result) if !is_changed(result)) {
            self.tell_of_files(&[inode], &|_| before.clone());
        } else if self.tree.told(inode) {
            self.inodes_changed(&[inode]);
        }
        self.tree.end_behind(inode);
        result
    }

    /// Tells of inodes that are not what they were before, as `before` has them.
    fn tell_of_files(&self, inodes: &[InodeNo], before: &dyn Fn(InodeNo) -> Option<Inode>) {
        self.inodes_changed(inodes);
        let renewed: Vec<InodeNo> =
            inodes.iter().copied().filter(|inode| self.is_renewed(*inode, before(*inode).as_ref())).collect();
        self.renew(&renewed);
        // A page that was passed over since the pages went.
        let astray: Vec<InodeNo> = inodes.iter().copied().filter(|inode| self.tree.told(*inode)).collect();
        self.tell_again(&astray);
        // An append that was moved: the kernel has it where it sent it, and goes on from there.
        let mut moved = inodes.to_vec();
        for _ in 0..ROUNDS {
            moved.retain(|inode| !self.tree.sized(*inode));
            self.tell_again(&moved);
        }
    }

    fn tell_again(&self, inodes: &[InodeNo]) {
        self.inodes_changed(inodes);
        self.renew(inodes);
    }

    /// Whether the kernel, to which a file was this, has to take its size or its time anew.
    fn is_renewed(&self, inode: InodeNo, before: Option<&Inode>) -> bool {
        let Ok(now) = self.tree.inode(inode.live()) else { return false };
        let notify = self.notify.as_ref().filter(|notify| notify.keeps_times());
        // A program that is writing may have made the file longer since it was asked for.
        let is_other = |then: &Inode| {
            then.size != now.size
                || notify.is_some_and(|notify| then.mtime != now.mtime || notify.is_open_for_writing(inode))
        };
        now.kind() == Kind::File && before.is_none_or(is_other)
    }

    fn renew(&self, inodes: &[InodeNo]) {
        let Some(notify) = self.notify.as_ref().filter(|_| !inodes.is_empty()) else { return };
        let facts = |inode: InodeNo| {
            let found = self.tree.inode(inode.live()).ok().filter(|found| found.kind() == Kind::File)?;
            self.tree.held().is_held(inode).then_some((found.size, found.mtime))
        };
        for (inode, errno) in notify.renew(inodes, &facts) {
            let path = self.tree.names().paths(inode.live()).unwrap_or_default().pop().unwrap_or_default();
            let path = shown(&path);
            let error = std::io::Error::from(errno);
            if notify.keeps_times() {
                // Better an error than a size that is not that of the file.
                log::warn!(
                    "programs that have {path:?} open get errors from now on: its size could not be set: {error}"
                );
                self.tree.held().forsake(inode);
                notify.attributes_changed([inode]);
                self.entries_changed(&self.tree.names().of(inode.live()).unwrap_or_default());
            } else {
                log::warn!("programs that have {path:?} open may see another size of it than it has: {error}");
            }
        }
    }

    fn has_mounts_inside(&self) -> bool {
        self.notify.as_ref().is_some_and(|notify| has_mounts_inside(notify.mount_point()))
    }

    /// All that the kernel knows of a base.
    fn known(&self, base: BaseId) -> Vec<Known> {
        let held = self.tree.held().known_outside().into_iter().filter(|inode| inode.base() == base);
        let known = |inode| Known {
            inode,
            names: self.tree.names().of(inode.live()).unwrap_or_default(),
            found: self.tree.inode(inode.live()).ok(),
        };
        held.map(known).collect()
    }

    /// A base shows another state: what the kernel keeps of it may not be believed.
    fn tell_of_tree(&self, base: BaseId, known: Option<Vec<Known>>) {
        let Some(notify) = &self.notify else { return };
        let tree = self.tree;
        let before = tree.before_replaced(base);
        // Names are compared within a base.
        let own = before.filter(|before| before.base == base).map(|before| Moment::At(before.epoch));
        let file_before = |inode| before.and_then(|before| tree.inode_before(inode, before).ok());
        // What is left to the background has errors of its own.
        let changed = tree.settle_at_once(base).ok().flatten();
        match (changed, own) {
            (Some(changed), Some(before)) if known.is_some() || self.entries(&changed, before) <= NAMES_AT_ONCE => {
                self.tell_of_names(&changed, before);
                let held: Vec<InodeNo> = changed.into_iter().filter(|inode| tree.held().is_held(*inode)).collect();
                self.tell_of_files(&held, &file_before);
            }
            (changed, _) => {
                match &known {
                    Some(known) => self.tell_of_known(known),
                    None if notify.look_up_again() => {}
                    None => self.tell_of_held_names(base),
                }
                let held: Vec<InodeNo> = match changed {
                    Some(changed) => changed.into_iter().filter(|inode| tree.held().is_held(*inode)).collect(),
                    None => tree.held().known_outside().into_iter().filter(|inode| inode.base() == base).collect(),
                };
                self.tell_of_files(&held, &file_before);
            }
        }
    }

    /// For kernels that cannot forget all names by themselves.
    fn tell_of_held_names(&self, base: BaseId) {
        self.notify.iter().for_each(|notify| notify.shown_anew(base, LIVE_NAME));
        let held = self.tree.held().known_outside().into_iter().filter(|inode| inode.base() == base);
        let found = held.filter_map(|inode| self.tree.inode(inode.live()).ok());
        self.entries_changed(&found.map(|found| (found.parent, found.name.into_vec())).collect::<Vec<_>>());
    }

    /// How many entries directories have, among inodes, that the kernel knows.
    fn entries(&self, inodes: &BTreeSet<InodeNo>, before: Moment) -> u64 {
        let size = |at| match self.tree.inode(at) {
            Ok(found) if found.is_directory() => found.size,
            _ => 0,
        };
        let held = inodes.iter().filter(|inode| self.tree.held().is_held(**inode));
        held.map(|inode| size(inode.at(before)) + size(inode.live())).sum()
    }

    fn listed(&self, directory: InodeAt) -> BTreeMap<Vec<u8>, (InodeNo, Kind)> {
        let mut found = BTreeMap::new();
        let listed = self.tree.names().list(directory, 0, |entry| {
            found.insert(entry.name.clone(), (entry.inode, entry.kind));
            Ok(true)
        });
        // What is no directory at that moment has no entries then.
        listed.map_or(BTreeMap::new(), |()| found)
    }

    /// Tells of every name that leads elsewhere than before, in directories that may differ.
    fn tell_of_names(&self, changed: &BTreeSet<InodeNo>, before: Moment) {
        let mut names = Names::default();
        for &directory in changed.iter().filter(|inode| self.tree.held().is_held(**inode)) {
            let (then, now) = (self.listed(directory.at(before)), self.listed(directory.live()));
            for (name, target) in &then {
                if now.get(name) != Some(target) {
                    names.add(self.tree, (directory, name.clone()), Some(*target));
                }
            }
            for name in now.into_keys().filter(|name| !then.contains_key(name)) {
                names.add(self.tree, (directory, name), None);
            }
        }
        self.names_lead_elsewhere(&names);
    }

    /// The same where only what the kernel knew is known.
    fn tell_of_known(&self, known: &[Known]) {
        let mut names = Names::default();
        for Known { inode, names: had, found } in known {
            let kind = found.as_ref().map_or(Kind::File, Inode::kind);
            for (parent, name) in had {
                if !self.tree.names().lookup(parent.live(), name).is_ok_and(|(now, _)| now == *inode) {
                    names.add(self.tree, (*parent, name.clone()), Some((*inode, kind)));
                }
            }
        }
        // The kernel may remember that there was nothing under a name.
        let had: BTreeSet<&(InodeNo, Vec<u8>)> = known.iter().flat_map(|known| &known.names).collect();
        let directories = known.iter().filter(|known| known.found.as_ref().is_some_and(Inode::is_directory));
        for Known { inode, .. } in directories {
            let places = self.listed(inode.live()).into_keys().map(|name| (*inode, name));
            places.filter(|place| !had.contains(place)).for_each(|place| names.add(self.tree, place, None));
        }
        self.names_lead_elsewhere(&names);
    }
}
