//! What commands do to snapshots, clones, bases and mirrors, with the kernel told of it.

use super::{Daemon, OnProgress, Progress};
use crate::device::{BaseId, Moment, Snapshot, base_of};
use crate::error::{Errno, Error, Result};
use crate::limits::BLOCK_BYTES;
use crate::view::{LIVE_NAME, Restored, SnapRequest, Views};
use std::collections::BTreeSet;

impl Daemon {
    /// What has to happen before a snapshot is taken by command.
    pub fn before_snapshot(&self) -> Result<()> {
        match self.mounted.lock().as_ref() {
            Some(mounted) => mounted.before_snapshot(),
            None => Ok(()),
        }
    }

    /// Takes a snapshot of the first base.
    pub fn snapshot(&self, name: Option<&[u8]>) -> Result<Snapshot> {
        let request = SnapRequest { name, ..SnapRequest::default() };
        let mut taken = self.snapshot_all(&self.views, &[self.views.base()], request)?;
        taken.pop().ok_or(Error::Posix(Errno::NOENT))
    }

    /// Takes snapshots of several bases, all of one moment.
    pub fn snapshot_all(&self, views: &Views, bases: &[BaseId], request: SnapRequest<'_>) -> Result<Vec<Snapshot>> {
        self.before_snapshot()?;
        Ok(self.tell_of_taken(views.snapshot_all(bases, request)?))
    }

    /// Takes snapshots of the bases of a group.
    pub fn snapshot_group(&self, views: &Views, group: &[u8], request: SnapRequest<'_>) -> Result<Vec<Snapshot>> {
        self.before_snapshot()?;
        Ok(self.tell_of_taken(views.snapshot_group(group, request)?))
    }

    fn tell_of_taken(&self, taken: Vec<Snapshot>) -> Vec<Snapshot> {
        for snapshot in &taken {
            self.tell_of(snapshot.base, &snapshot.record.name);
        }
        taken
    }

    /// Deletes snapshots and whole trees; what depends on them as well, if `recursive`.
    pub fn delete(&self, views: &Views, names: &[&[u8]], trees: &[BaseId], recursive: bool) -> Result<Vec<Snapshot>> {
        let before = self.trees_shown()?;
        let deleted = if recursive { views.delete_recursive(names)? } else { views.delete(names)? };
        for base in trees {
            views.delete_base(*base, recursive)?;
        }
        for snapshot in &deleted {
            self.tell_of(snapshot.base, &snapshot.record.name);
        }
        self.tell_of_trees(&before)?;
        Ok(deleted)
    }

    /// Gives a snapshot, or a clone, another name.
    pub fn rename(&self, views: &Views, old: &[u8], new: &[u8]) -> Result<()> {
        let shown = String::from_utf8_lossy(old).into_owned();
        let tree = views.tree().device().look()?.base_named(&shown);
        match tree {
            Some(base) if views.find(old)?.is_none() => return self.rename_base(views, base, new),
            _ => views.rename(old, new).map(|_| ())?,
        }
        self.tell_of(views.base(), &shown);
        self.tell_of(views.base(), &String::from_utf8_lossy(new));
        Ok(())
    }

    pub fn rename_base(&self, views: &Views, base: BaseId, name: &[u8]) -> Result<()> {
        let before = self.trees_shown()?;
        views.rename_base(base, name)?;
        self.tell_of_trees(&before)
    }

    /// Makes a clone a base in its own right.
    pub fn promote(&self, views: &Views, name: &[u8]) -> Result<BaseId> {
        let before = self.trees_shown()?;
        let base = views.base_named(name)?;
        views.promote(base)?;
        self.tell_of_trees(&before)?;
        Ok(base)
    }

    pub fn clone_snapshot(
        &self,
        views: &Views,
        snapshot: &[u8],
        name: &[u8],
        is_full: bool,
        copies: bool,
    ) -> Result<BaseId> {
        let snapshot = views.snapshot_of(snapshot)?;
        let before = self.trees_shown()?;
        let base = views.of(snapshot.base).clone_snapshot(&snapshot, name, is_full || copies, true)?;
        if copies {
            views.of(base).separate()?;
        }
        self.tell_of_trees(&before)?;
        Ok(base)
    }

    pub fn refresh(&self, views: &Views, name: &[u8], snapshot: &[u8]) -> Result<()> {
        let base = views.base_named(name)?;
        views.refresh(base, &views.snapshot_of(snapshot)?)?;
        self.tell_of_tree(base);
        Ok(())
    }

    /// Lets a base be as it was in a snapshot, at once.
    pub fn restore(&self, views: &Views, snapshot: &Snapshot) -> Result<Restored> {
        let _syncing = self.alone_with_files()?;
        self.before_snapshot()?;
        let restored = views.restore(snapshot)?;
        self.tell_of_tree(views.base());
        self.tell_of(views.base(), &restored.before.record.name);
        Ok(restored)
    }

    /// Something that the mount shows under a name came, went or leads elsewhere.
    pub fn tell_of(&self, base: BaseId, name: &str) {
        if let Some(notify) = self.notify() {
            notify.shown_changed(base, name);
        }
    }

    /// In which base's directory each tree is shown, and under which name.
    fn trees_shown(&self) -> Result<BTreeSet<(BaseId, String)>> {
        let mut shown = BTreeSet::new();
        for (top, name) in self.views.top_bases()? {
            shown.extend(self.views.of(top).beside()?.into_iter().map(|(_, name)| (top, name)));
            shown.insert((top, name));
        }
        Ok(shown)
    }

    /// Trees came, went or were renamed since `before`.
    fn tell_of_trees(&self, before: &BTreeSet<(BaseId, String)>) -> Result<()> {
        for (top, name) in self.trees_shown()?.symmetric_difference(before) {
            self.tell_of(*top, name);
        }
        Ok(())
    }

    /// A base shows another state: what the kernel keeps of it may not be believed.
    fn tell_of_tree(&self, base: BaseId) {
        let Some(notify) = self.notify() else { return };
        let tree = self.views.tree();
        let held = || tree.held_inodes().into_iter().filter(|inode| base_of(*inode) == base);
        if !notify.look_up_again() {
            self.tell_of(base, LIVE_NAME);
            for found in held().filter_map(|inode| tree.inode(inode, Moment::Live).ok()) {
                notify.entry_changed(found.parent, &found.name.into_vec());
            }
        }
        match tree.settle_at_once(base) {
            Ok(Some(touched)) => {
                touched.into_iter().filter(|inode| tree.is_held(*inode)).for_each(|inode| notify.inode_changed(inode));
            }
            // The background settles it later, or says why it cannot.
            Ok(None) | Err(_) => held().for_each(|inode| notify.inode_changed(inode)),
        }
    }

    pub fn establish_mirror(
        &self,
        views: &Views,
        base: &[u8],
        name: &[u8],
        progress: OnProgress<'_>,
    ) -> Result<BaseId> {
        self.before_snapshot()?;
        let base = views.base_named(base)?;
        let mirror = views.of(base).establish_mirror(name)?;
        self.tell_of(mirror, &String::from_utf8_lossy(name));
        self.finish_mirror(views, mirror, progress)
    }

    pub fn sync_mirror(&self, views: &Views, name: &[u8], progress: OnProgress<'_>) -> Result<BaseId> {
        self.before_snapshot()?;
        let mirror = views.base_named(name)?;
        views.of(mirror).sync_mirror()?;
        self.tell_of_tree(mirror);
        self.finish_mirror(views, mirror, progress)
    }

    pub fn split_mirror(&self, views: &Views, name: &[u8]) -> Result<BaseId> {
        let mirror = views.base_named(name)?;
        views.of(mirror).split_mirror()?;
        Ok(mirror)
    }

    pub fn resync_mirror(&self, views: &Views, name: &[u8], reverse: bool, progress: OnProgress<'_>) -> Result<BaseId> {
        self.before_snapshot()?;
        let mirror = views.base_named(name)?;
        let changed = match reverse {
            true => views.of(mirror).reverse_mirror()?,
            false => views.of(mirror).resync_mirror().map(|()| mirror)?,
        };
        self.tell_of_tree(changed);
        self.finish_mirror(views, changed, progress)?;
        Ok(mirror)
    }

    pub fn restore_mirror(
        &self,
        views: &Views,
        name: &[u8],
        snapshot: &[u8],
        progress: OnProgress<'_>,
    ) -> Result<BaseId> {
        let mirror = views.base_named(name)?;
        let snapshot = views.snapshot_of(snapshot)?;
        views.of(mirror).restore_mirror(&snapshot)?;
        self.tell_of_tree(mirror);
        self.finish_mirror(views, mirror, progress)
    }

    /// Does what the background would do, and shows how far it is. Interrupted, the background goes on.
    fn finish_mirror(&self, views: &Views, base: BaseId, progress: OnProgress<'_>) -> Result<BaseId> {
        let tree = views.tree();
        loop {
            let look = tree.device().look()?;
            let settling = look.settling(base)?;
            let separating = look.separating(base)?;
            drop(look);
            let (bytes, total) = match (&settling, &separating) {
                (Some(settle), _) => (settle.done * BLOCK_BYTES as u64, settle.total * BLOCK_BYTES as u64),
                (None, Some(separate)) => (separate.done, 0),
                (None, None) => {
                    // What was copied is on disk, not only in memory.
                    tree.commit()?;
                    return Ok(base);
                }
            };
            progress(&Progress { files: 0, bytes, total_bytes: total })?;
            if !tree.settle_step()? {
                tree.separate_step()?;
            }
        }
    }
}
