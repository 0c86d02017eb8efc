//! Bases and snapshots that come into a store from sets.

use super::snapshot::take_named;
use super::{LIVE_NAME, Views};
use crate::archive::Mark;
use crate::clock::Timestamp;
use crate::device::{BaseId, BaseRecord, LIVE, SnapOptions, Snapshot};
use crate::error::Result;
use crate::id::Id;

/// The base that sets have moments of: the one of that id if it is there; the first one, if that is its name and it has nothing yet;
/// else one that is made, with a number behind its name if that is taken.
pub fn adopt_base(views: &Views, id: Id, name: &str, time: Timestamp) -> Result<BaseId> {
    let look = views.tree.device().look()?;
    if let Some((found, _)) = look.bases().find(|(_, state)| state.id == id) {
        return Ok(found);
    }
    let is_unused = look.moments().snapshots(LIVE)?.is_empty();
    let is_free = |name: &String| super::base::check_base_free(&look, name).is_ok();
    let free = std::iter::once(name.to_string()).chain((2..).map(|number| format!("{name}~{number}"))).find(is_free);
    drop(look);
    if name == LIVE_NAME && is_unused {
        views.tree.device().committer()?.change(|change| {
            let record = BaseRecord { id, ..change.base_record(LIVE)?.clone() };
            change.update_base(LIVE, record);
            Ok(())
        })?;
        return Ok(LIVE);
    }
    let free = free.unwrap_or_default();
    let record = BaseRecord { id, ..BaseRecord::new(&free, time) };
    views.tree.create_base(record, 0, 0, 0o755, |state| super::base::check_base_free(state, &free), |_, _| {})
}

/// Keeps a base as it is now, durably, as the snapshot that a set says that it was.
pub fn adopt_snapshot(views: &Views, mark: &Mark) -> Result<Snapshot> {
    let fetched = views.fetched()?;
    let base = views.base();
    views.tree.device().committer()?.change(|change| {
        let is_taken =
            change.base_named(&mark.name).is_some() || change.moments().snapshot_named(base, &mark.name)?.is_some();
        let name = if is_taken { format!("{}~{}", mark.name, mark.id.short()) } else { mark.name.clone() };
        let options = SnapOptions { offline: mark.offline, purpose: mark.purpose, ..SnapOptions::default() };
        let mut taken = take_named(change, fetched, std::iter::once((base, name.as_str())), mark.time, options)?;
        let mut snapshot = taken.pop().ok_or(crate::error::Error::Gone)?;
        // It is that very one, wherever it lies.
        snapshot.record.id = mark.id;
        change.update(&snapshot);
        Ok(snapshot)
    })
}

/// Notes in the history where what is there came from.
pub fn note_adopted(views: &Views, what: &str) -> Result<()> {
    views.change(|_| Ok(what.to_string()))
}
