//! What commands do to snapshots, clones, bases and mirrors, with the kernel told of it.

use super::{Daemon, OnProgress, Progress};
use crate::device::{BaseId, Snapshot};
use crate::error::{Errno, Error, Result};
use crate::view::{CloneOptions, Deletion, MirrorStep, Restored, SnapRequest, ToDelete, Views};
use std::collections::BTreeSet;

impl Daemon {
    /// What has to happen before a snapshot is taken by command, or a command looks at a tree as it is now: what programs
    /// have written is there for everybody.
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

    /// Deletes snapshots and whole trees; what depends on them as well, if that is wanted.
    pub fn delete(&self, views: &Views, what: &ToDelete<'_>) -> Result<Deletion> {
        let before = self.trees_shown()?;
        let deleted = views.delete_all(what)?;
        for snapshot in deleted.snapshots.iter().chain(&deleted.marks) {
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
        if old != new {
            let new = String::from_utf8_lossy(new).into_owned();
            self.tell_of_renamed(&[(views.base(), shown)], &[(views.base(), new)]);
        }
        Ok(())
    }

    pub fn rename_base(&self, views: &Views, base: BaseId, name: &[u8]) -> Result<()> {
        let before = self.trees_shown()?;
        views.rename_base(base, name)?;
        self.tell_of_renamed_trees(&before)
    }

    /// Makes a clone a base in its own right.
    pub fn promote(&self, views: &Views, name: &[u8]) -> Result<BaseId> {
        let before = self.trees_shown()?;
        let base = views.base_named(name)?;
        views.promote(base)?;
        self.tell_of_renamed_trees(&before)?;
        Ok(base)
    }

    /// Makes clones, each of a snapshot under a name, in one step.
    pub fn clone_all(
        &self,
        views: &Views,
        of: &[(Snapshot, Vec<u8>)],
        options: CloneOptions,
        group: Option<&str>,
    ) -> Result<Vec<BaseId>> {
        let before = self.trees_shown()?;
        let base = of.first().map_or(views.base(), |(snapshot, _)| snapshot.base);
        let made = views.of(base).clone_all(of, options, group)?;
        self.tell_of_trees(&before)?;
        Ok(made)
    }

    /// Shows a base, clone or mirror in the mount, or does not.
    pub fn show_base(&self, views: &Views, base: BaseId, is_shown: bool) -> Result<()> {
        let before = self.trees_shown()?;
        views.show_base(base, is_shown)?;
        self.tell_of_trees(&before)
    }

    pub fn refresh(&self, views: &Views, name: &[u8], snapshot: &[u8]) -> Result<()> {
        let base = views.base_named(name)?;
        let snapshot = views.snapshot_of(snapshot)?;
        self.replace(views, &[base], || views.refresh(base, &snapshot))
    }

    /// Lets a base be as it was in a snapshot, at once; `None` if it is already.
    pub fn restore(&self, views: &Views, snapshot: &Snapshot) -> Result<Option<Restored>> {
        Ok(self.restore_all(views, std::slice::from_ref(snapshot), None)?.pop())
    }

    /// Lets bases be as they were in snapshots of theirs, at once and in one step; nothing is done if all are already.
    pub fn restore_all(&self, views: &Views, to: &[Snapshot], group: Option<&str>) -> Result<Vec<Restored>> {
        let bases: Vec<BaseId> = to.iter().map(|snapshot| snapshot.base).collect();
        if self.are_as_in(views, to)? {
            return Ok(Vec::new());
        }
        let restored = self.replace(views, &bases, || views.restore_all(to, group))?;
        if views.is_rehearsing() {
            return Ok(restored);
        }
        for restored in &restored {
            self.tell_of(restored.to.base, &restored.before.record.name);
            self.drop_before_restores(&views.of(restored.to.base))?;
        }
        Ok(restored)
    }

    /// Whether bases show just what they did in snapshots of theirs. What cannot be restored is not looked at.
    fn are_as_in(&self, views: &Views, snapshots: &[Snapshot]) -> Result<bool> {
        self.before_snapshot()?;
        for snapshot in snapshots {
            views.of(snapshot.base).check_writable()?;
            // What programs have stored in mappings is fetched.
            drop(self.unseen(snapshot.base)?);
            let is_same = || match views.tree().is_as_after(snapshot.base, snapshot.epoch) {
                // What was being looked at went meanwhile, as in another restore.
                Err(Error::Gone) => Ok(false),
                result => result,
            };
            if !snapshot.is_readable() || !is_same()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Deletes what the policy says is too much of what was kept before restores, and returns what went.
    pub fn drop_before_restores(&self, views: &Views) -> Result<Vec<Snapshot>> {
        let mut gone = Vec::new();
        for snapshot in views.before_restores_too_many(0)? {
            let names = [snapshot.record.name.as_bytes()];
            let what = ToDelete { names: &names, of: &[snapshot.base], ..ToDelete::default() };
            match self.delete(views, &what) {
                // Somebody came to need it, or has deleted it.
                Err(error) if matches!(error.errno(), Errno::BUSY | Errno::NOENT | Errno::PERM) => {}
                result => {
                    result?;
                    gone.push(snapshot);
                }
            }
        }
        Ok(gone)
    }

    /// Something that the mount shows under a name came, went or leads elsewhere.
    pub fn tell_of(&self, base: BaseId, name: &str) {
        let Some(notify) = self.notify() else { return };
        // What leads to the same as before, as where an archive has it from now on, keeps what is mounted inside.
        match self.views.of(base).is_shown(name.as_bytes()) {
            Ok(true) => notify.shown_anew(base, name),
            Ok(false) | Err(_) => notify.shown_changed(base, name),
        }
    }

    /// In which base's directory each tree is shown, and under which name.
    pub(super) fn trees_shown(&self) -> Result<BTreeSet<(BaseId, String)>> {
        let mut shown = BTreeSet::new();
        for (top, name) in self.views.top_bases()? {
            shown.extend(self.views.of(top).beside()?.into_iter().map(|(_, name)| (top, name)));
            shown.insert((top, name));
        }
        Ok(shown)
    }

    /// Trees came, went or were renamed since `before`.
    pub(super) fn tell_of_trees(&self, before: &BTreeSet<(BaseId, String)>) -> Result<()> {
        for (top, name) in self.trees_shown()?.symmetric_difference(before) {
            self.tell_of(*top, name);
        }
        Ok(())
    }

    /// The same trees have other names since `before`, or stand elsewhere.
    fn tell_of_renamed_trees(&self, before: &BTreeSet<(BaseId, String)>) -> Result<()> {
        let now = self.trees_shown()?;
        let gone: Vec<_> = before.difference(&now).cloned().collect();
        let came: Vec<_> = now.difference(before).cloned().collect();
        self.tell_of_renamed(&gone, &came);
        Ok(())
    }

    /// Begins a mirror of a base; the copy is under way.
    pub fn establish_mirror(&self, views: &Views, base: &[u8], name: &[u8], is_offline: bool) -> Result<MirrorStep> {
        self.before_snapshot()?;
        let before = self.trees_shown()?;
        let base = views.base_named(base)?;
        let step = views.of(base).establish_mirror(name, is_offline)?;
        self.tell_of_trees(&before)?;
        Ok(step)
    }

    /// Brings a mirror in step up to what its base is now; the copy is under way.
    pub fn sync_mirror(&self, views: &Views, name: &[u8]) -> Result<MirrorStep> {
        let mirror = views.base_named(name)?;
        self.replace(views, &[mirror], || views.of(mirror).sync_mirror())
    }

    /// Splits a mirror as its base is now; the copy of what it lacked is under way.
    pub fn split_mirror(&self, views: &Views, name: &[u8]) -> Result<MirrorStep> {
        let mirror = views.base_named(name)?;
        self.replace(views, &[mirror], || views.of(mirror).split_mirror())
    }

    /// Brings a split mirror back in step, or its base with it; which of the two has changed and is being copied.
    pub fn resync_mirror(&self, views: &Views, name: &[u8], reverse: bool) -> Result<MirrorStep> {
        let mirror = views.base_named(name)?;
        let changed = if reverse { views.of(mirror).mirror_of()? } else { mirror };
        if reverse {
            // What programs have stored in mappings of the mirror is its own: in step, it takes nothing any more.
            drop(self.unseen(mirror)?);
        }
        self.replace(views, &[changed], || match reverse {
            true => views.of(mirror).reverse_mirror(),
            false => views.of(mirror).resync_mirror(),
        })
    }

    /// Lets a mirror be what its base was in a snapshot; the copy is under way.
    pub fn restore_mirror(&self, views: &Views, name: &[u8], snapshot: &[u8]) -> Result<MirrorStep> {
        let mirror = views.base_named(name)?;
        let snapshot = views.snapshot_of(snapshot)?;
        self.replace(views, &[mirror], || views.of(mirror).restore_mirror(&snapshot))
    }

    /// Does what the background would do for a base, and shows how far it is. Interrupted, the background goes on.
    pub fn finish_copy(&self, views: &Views, base: BaseId, progress: OnProgress<'_>) -> Result<()> {
        views.of(base).finish_copy(&mut |bytes, total_bytes| progress(&Progress { files: 0, bytes, total_bytes }))
    }
}
