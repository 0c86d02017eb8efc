//! Listing what is in no tree.

use super::{Door, Namespace, Target, Virtual};
use crate::clock::{Epoch, Timestamp};
use crate::device::{BaseId, InodeNo, Snapshot};
use crate::error::{Errno, Error, Result};
use crate::view::{LIVE_NAME, View, Views};
use std::collections::BTreeMap;

/// Offsets of a base's listing: `.`, `..`, `live`, then the snapshots by epoch, then the clones by number.
const LIVE_OFFSET: u64 = 3;
const CLONE_OFFSET: u64 = 1 << 33;
/// Snapshots looked up at once.
const BATCH: usize = 128;

/// Takes an entry of a listing: its name, where to go on after it, where it leads; whether that was one too many.
pub type Add<'a> = &'a mut dyn FnMut(&[u8], u64, Target) -> Result<bool>;

impl Namespace {
    /// Lists a directory that is in no tree, after an offset.
    pub fn list(&self, node: &Virtual, offset: u64, add: Add<'_>) -> Result<()> {
        if offset < 1 && add(b".", 1, Target::Dots)? || offset < 2 && add(b"..", 2, Target::Dots)? {
            return Ok(());
        }
        if let Some(base) = self.base_shown(node) {
            return self.list_base(&self.views.of(base), offset, add);
        }
        match node {
            Virtual::Root => {
                for (base, name) in self.views.bases().top()? {
                    let next = LIVE_OFFSET + u64::from(base.number());
                    if next > offset && add(name.as_bytes(), next, Target::Virtual(Virtual::Base(base)))? {
                        break;
                    }
                }
                Ok(())
            }
            Virtual::Snap(directory) => self.list_snap(*directory, offset, add),
            Virtual::Shadow(base) => self.list_shadow(&self.views.of(*base), offset, add),
            Virtual::Times(base) => self.list_times(*base, offset, add),
            Virtual::Time(base, time) => {
                for (i, (name, target)) in self.beside_at(*base, *time)?.into_iter().enumerate() {
                    let next = LIVE_OFFSET + i as u64;
                    if next > offset && add(name.as_bytes(), next, target)? {
                        break;
                    }
                }
                Ok(())
            }
            Virtual::Base(_) | Virtual::Link(_) => Err(Error::Posix(Errno::NOTDIR)),
        }
    }

    fn list_base(&self, views: &Views, offset: u64, add: Add<'_>) -> Result<()> {
        let live = Target::View(View::live(views.base()));
        if offset < LIVE_OFFSET && add(LIVE_NAME.as_bytes(), LIVE_OFFSET, live)? {
            return Ok(());
        }
        let mut epoch = Epoch::new(offset.saturating_sub(LIVE_OFFSET).min(u64::from(u32::MAX)) as u32);
        let mut is_at_snapshots = offset < CLONE_OFFSET;
        while is_at_snapshots {
            // `add` may look at the state itself: it is not held here meanwhile.
            let batch = views.tree().device().look()?.moments().shown_after(views.base(), epoch, BATCH)?;
            is_at_snapshots = !batch.is_empty();
            epoch = batch.last().map_or(epoch, |last| last.epoch);
            for snapshot in batch.iter().filter(|snapshot| snapshot.is_shown()) {
                let target = Target::View(View::at(snapshot.base, snapshot.epoch));
                let next = LIVE_OFFSET + u64::from(snapshot.epoch.number());
                if add(snapshot.record.name.as_bytes(), next, target)? {
                    return Ok(());
                }
            }
        }
        for (base, name) in views.bases().beside()? {
            let next = CLONE_OFFSET + u64::from(base.number());
            let target = Target::View(View::live(base));
            if next > offset && add(name.as_bytes(), next, target)? {
                break;
            }
        }
        Ok(())
    }

    fn list_snap(&self, directory: InodeNo, offset: u64, add: Add<'_>) -> Result<()> {
        let views = self.views.of(directory.base());
        let path = self.path_in_reach(directory)?;
        for snapshot in views.snapshots().with_archived()?.into_iter().filter(Snapshot::is_shown) {
            let next = LIVE_OFFSET + u64::from(snapshot.epoch.number());
            if next > offset
                && let Some(inode) = self.in_snapshot(directory, path.as_deref(), &snapshot)
                && add(
                    snapshot.record.name.as_bytes(),
                    next,
                    Target::Aside { inode, epoch: snapshot.epoch, door: Door::Snap },
                )?
            {
                break;
            }
        }
        Ok(())
    }

    fn list_times(&self, base: Option<BaseId>, offset: u64, add: Add<'_>) -> Result<()> {
        // Of several in one second the newest is found under that name.
        let mut times: BTreeMap<i64, Timestamp> = BTreeMap::new();
        for tree in self.trees_beside(base)? {
            let all = self.views.of(tree).snapshots().with_archived()?;
            for snapshot in all.into_iter().filter(Snapshot::is_shown) {
                let time = snapshot.record.time;
                let newest = times.entry(time.seconds).or_insert(time);
                *newest = time.max(*newest);
            }
        }
        for (seconds, time) in times {
            let next = LIVE_OFFSET + seconds.max(0) as u64;
            let name = time.as_gmt_name();
            let target = Target::Virtual(Virtual::Time(base, time));
            if next > offset && add(name.as_bytes(), next, target)? {
                break;
            }
        }
        Ok(())
    }

    fn list_shadow(&self, views: &Views, offset: u64, add: Add<'_>) -> Result<()> {
        // Of several in one second the newest is found under that name.
        let mut by_name: BTreeMap<i64, Snapshot> = BTreeMap::new();
        for snapshot in views.snapshots().with_archived()?.into_iter().filter(Snapshot::is_shown) {
            by_name.insert(snapshot.record.time.seconds, snapshot);
        }
        for snapshot in by_name.into_values() {
            let next = LIVE_OFFSET + u64::from(snapshot.epoch.number());
            if next > offset {
                let (inode, epoch) = (View::live(views.base()).root(), snapshot.epoch);
                let target = Target::Aside { inode, epoch, door: Door::Shadow };
                if add(snapshot.record.time.as_gmt_name().as_bytes(), next, target)? {
                    break;
                }
            }
        }
        Ok(())
    }
}
