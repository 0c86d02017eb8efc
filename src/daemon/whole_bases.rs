//! What lets whole bases show something else: restores, clones that are moved, mirrors.

use super::{Daemon, OnProgress, Progress};
use crate::device::{BaseId, Snapshot};
use crate::error::{Errno, Error, Result};
use crate::view::{MirrorStep, Restored, ToDelete, Views};

/// Bases that come to show something else, and copies that become bases.
#[derive(Clone, Copy)]
pub struct WholeBases<'a> {
    pub(super) daemon: &'a Daemon,
}

impl WholeBases<'_> {
    pub fn refresh(self, views: &Views, name: &[u8], snapshot: &[u8]) -> Result<()> {
        let base = views.bases().named(name)?;
        let snapshot = views.snapshot_of(snapshot)?;
        self.daemon.replace(views, &[base], || views.bases().refresh(base, &snapshot))
    }

    /// Lets a base be as it was in a snapshot, at once; `None` if it is already.
    pub fn restore(self, views: &Views, snapshot: &Snapshot) -> Result<Option<Restored>> {
        Ok(self.restore_all(views, std::slice::from_ref(snapshot), None)?.pop())
    }

    /// Lets bases be as they were in snapshots of theirs, at once and in one step; nothing is done if all are already.
    pub fn restore_all(self, views: &Views, to: &[Snapshot], group: Option<&str>) -> Result<Vec<Restored>> {
        let bases: Vec<BaseId> = to.iter().map(|snapshot| snapshot.base).collect();
        if self.are_as_in(views, to)? {
            return Ok(Vec::new());
        }
        let restored = self.daemon.replace(views, &bases, || views.restores().restore_all(to, group))?;
        if views.is_rehearsing() {
            return Ok(restored);
        }
        for restored in &restored {
            self.drop_before_restores(&views.of(restored.to.base))?;
        }
        Ok(restored)
    }

    /// Whether bases show just what they did in snapshots of theirs. What cannot be restored is not looked at.
    fn are_as_in(self, views: &Views, snapshots: &[Snapshot]) -> Result<bool> {
        views.fetched()?;
        for snapshot in snapshots {
            views.of(snapshot.base).check_writable()?;
            // What programs have stored in mappings is fetched.
            drop(self.daemon.unseen(snapshot.base)?);
            let is_same = || match views.tree().comparison().is_as_after(snapshot.base, snapshot.epoch) {
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
    pub fn drop_before_restores(self, views: &Views) -> Result<Vec<Snapshot>> {
        let mut gone = Vec::new();
        for snapshot in views.restores().too_many_before(0)? {
            let names = [snapshot.record.name.as_bytes()];
            let what = ToDelete { names: &names, of: &[snapshot.base], ..ToDelete::default() };
            match views.deletions().delete_all(&what) {
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

    /// Brings a mirror in step up to what its base is now; the copy is under way.
    pub fn sync_mirror(self, views: &Views, name: &[u8]) -> Result<MirrorStep> {
        let mirror = views.bases().named(name)?;
        self.daemon.replace(views, &[mirror], || views.of(mirror).mirrors().sync())
    }

    /// Splits a mirror as its base is now; the copy of what it lacked is under way.
    pub fn split_mirror(self, views: &Views, name: &[u8]) -> Result<MirrorStep> {
        let mirror = views.bases().named(name)?;
        self.daemon.replace(views, &[mirror], || views.of(mirror).mirrors().split())
    }

    /// Brings a split mirror back in step, or its base with it; which of the two has changed and is being copied.
    pub fn resync_mirror(self, views: &Views, name: &[u8], reverse: bool) -> Result<MirrorStep> {
        let mirror = views.bases().named(name)?;
        let changed = if reverse { views.of(mirror).mirrors().mirror()? } else { mirror };
        if reverse {
            // What programs have stored in mappings of the mirror is its own: in step, it takes nothing any more.
            drop(self.daemon.unseen(mirror)?);
        }
        self.daemon.replace(views, &[changed], || match reverse {
            true => views.of(mirror).mirrors().reverse(),
            false => views.of(mirror).mirrors().resync(),
        })
    }

    /// Lets a mirror be what its base was in a snapshot; the copy is under way.
    pub fn restore_mirror(self, views: &Views, name: &[u8], snapshot: &[u8]) -> Result<MirrorStep> {
        let mirror = views.bases().named(name)?;
        let snapshot = views.snapshot_of(snapshot)?;
        self.daemon.replace(views, &[mirror], || views.of(mirror).mirrors().restore(&snapshot))
    }

    /// Does what the background would do for a base, and shows how far it is. Interrupted, the background goes on.
    pub fn finish_copy(self, views: &Views, base: BaseId, progress: OnProgress<'_>) -> Result<()> {
        views
            .of(base)
            .bases()
            .finish_copy(&mut |bytes, total_bytes| progress(&Progress { files: 0, bytes, total_bytes }))
    }
}
