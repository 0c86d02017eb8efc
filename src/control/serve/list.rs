//! Snapshots with what there is to be said of each, and the archived times that are missing.

use super::infos;
use crate::control::SnapshotInfo;
use crate::daemon::{ArchiveInfo, Daemon};
use crate::device::{BaseId, Point, Snapshot};
use crate::error::{Error, Result};
use crate::view::Views;
use std::collections::BTreeMap;

/// Of a base, or of all of them, in the order in which these were made, and those of a base in the order of time.
pub(super) fn list(daemon: &Daemon, views: &Views, all: bool) -> Result<Vec<SnapshotInfo>> {
    let bases = match all {
        true => views.bases().all()?.into_iter().map(|base| views.of(base.id)).collect(),
        false => vec![views.of(views.base())],
    };
    let mut list = Vec::new();
    let needs = needs(views)?;
    for views in bases {
        // First: it notices an archive that went away, whose times are then no snapshots.
        let archive = views.unless_gone(daemon.archives().attached_info(&views))?.flatten();
        let found = views.snapshots().with_archived().and_then(|found| counted(&views, &found, &needs));
        let mut found = if all { views.unless_gone(found)?.unwrap_or_default() } else { found? };
        if let Some(ArchiveInfo { base, missing, problems, .. }) = archive.filter(|archive| !archive.missing.is_empty())
        {
            found.extend(missing.into_iter().map(|time| SnapshotInfo::missing(&base, time, &problems)));
            found.sort_by_key(|snapshot| snapshot.epoch);
        }
        list.extend(found);
    }
    Ok(list)
}

/// By which bases each snapshot is needed that is.
type Needs = BTreeMap<Point, Vec<String>>;

pub(super) fn needs(views: &Views) -> Result<Needs> {
    let look = views.tree().device().look()?;
    let name = |base: BaseId| Ok(look.base_record(base)?.name.clone());
    let named = |(point, bases): (Point, Vec<BaseId>)| Ok((point, bases.into_iter().map(name).collect::<Result<_>>()?));
    look.all_dependants()?.into_iter().map(named).collect()
}

/// Snapshots with who needs each, and with what only it holds, counted if that is not known.
pub(super) fn counted(views: &Views, snapshots: &[Snapshot], needs: &Needs) -> Result<Vec<SnapshotInfo>> {
    let mut all = infos(views, snapshots)?;
    for (info, snapshot) in all.iter_mut().zip(snapshots).filter(|(info, _)| !info.archived) {
        info.needed_by = needs.get(&snapshot.point()).cloned().unwrap_or_default();
        info.needed_by_archive = views.tree().device().look()?.is_archiving(snapshot.point());
        info.unique_bytes = match views.tree().device().removal().unique_bytes(snapshot.point()) {
            // It was deleted meanwhile.
            Err(Error::Gone) => None,
            counted => Some(counted?),
        };
    }
    Ok(all)
}
