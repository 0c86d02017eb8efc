//! When room ends: which snapshots go then, if that is the store's policy.

use super::Views;
use super::save::newest_save;
use crate::device::{BaseId, Point, Snapshot, State};
use crate::error::Result;
use crate::meta::Table;
use crate::purpose::Purpose;
use std::collections::BTreeMap;

pub(super) const DROP_OLDEST: &[u8] = b"drop oldest";

/// What needs each snapshot that something needs.
pub(super) type Needed = BTreeMap<Point, Vec<BaseId>>;

/// Whether a snapshot may go by rule, or for want of room.
pub(super) fn may_be_dropped(state: &State, needed: &Needed, snapshot: &Snapshot) -> bool {
    let is_wanted = snapshot.record.held || snapshot.record.reserve > 0 || state.is_archiving(snapshot.point());
    !is_wanted && !needed.contains_key(&snapshot.point())
}

/// What is done when room ends.
#[derive(Clone, Copy)]
pub struct Room<'a> {
    pub(super) views: &'a Views,
}

impl Room<'_> {
    /// Whether the oldest snapshots are dropped when room ends, rather than writes refused.
    pub fn drops_oldest(self) -> Result<bool> {
        Ok(self.views.tree.device().look()?.meta().get(Table::State, DROP_OLDEST)?.unwrap_or(false))
    }

    pub fn set_drop_oldest(self, drop_oldest: bool) -> Result<()> {
        self.views.change(|change| {
            change.meta_mut().put(Table::State, DROP_OLDEST, &drop_oldest);
            Ok(format!("policy --when-full {}", if drop_oldest { "drop-oldest" } else { "refuse" }))
        })
    }

    /// Drops the oldest snapshot to make room, if that is the store's policy; false if there is nothing to be had.
    pub fn make_room(self) -> Result<bool> {
        if !self.drops_oldest()? || self.drop_oldest()?.is_none() {
            return Ok(false);
        }
        while self.views.tree.device().removal().step()? {}
        // What is freed may be used when that is durable.
        self.views.tree.commit().map(|()| true)
    }

    /// Deletes the oldest snapshot of the store that may go for want of room; `None` where there is none.
    pub fn drop_oldest(self) -> Result<Option<Snapshot>> {
        let oldest = {
            let look = self.views.tree.device().look()?;
            let needed = look.all_dependants()?;
            let mut oldest: Option<Snapshot> = None;
            // Nothing would come of it where they are kept.
            for (base, _) in look.bases().filter(|(base, _)| !self.views.tree.device().removal().is_kept(*base)) {
                let save = newest_save(&look, base)?.map(|save| save.epoch);
                let mut snapshots = look.moments().snapshots(base)?;
                // A roll that is under way, or the next one, goes on from what it has just taken.
                snapshots.pop_if(|newest| newest.record.purpose == Purpose::Roll);
                for snapshot in snapshots {
                    if oldest.as_ref().is_some_and(|oldest| oldest.epoch <= snapshot.epoch) {
                        break;
                    }
                    if save != Some(snapshot.epoch) && may_be_dropped(&look, &needed, &snapshot) {
                        oldest = Some(snapshot);
                    }
                }
            }
            oldest
        };
        if let Some(oldest) = &oldest {
            log::warn!("room ends: the snapshot {:?} is dropped", oldest.record.name);
            self.views.tree.device().removal().hide_snapshots(&[oldest.point()])?;
            self.views.of(oldest.base).change(|_| Ok(format!("drop {:?}: room ended", oldest.record.name)))?;
        }
        Ok(oldest)
    }
}
