//! The store as a whole: its state, and what it does by itself.

use super::{info, list};
use crate::control::{
    Answer, ArchiveInfo, BaseInfo, Keep, PathText, PolicyInfo, SnapshotInfo, StatusInfo, WhenFull, WorkerInfo,
};
use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::view::Views;

pub(super) fn status(daemon: &Daemon, views: &Views) -> Result<StatusInfo> {
    let tree = views.tree();
    let settings = tree.device().settings();
    let bases = views.bases().all()?;
    let mut snapshots = Vec::new();
    let (mut archives, mut saves) = (Vec::new(), Vec::new());
    let needs = list::needs(views)?;
    for base in &bases {
        let views = views.of(base.id);
        // The archive first: this notices one that went away, whose times are then no snapshots.
        archives.extend(views.unless_gone(daemon.archives().attached_info(&views))?.flatten().map(ArchiveInfo::from));
        let found = views.snapshots().with_archived().and_then(|all| list::counted(&views, &all, &needs));
        snapshots.extend(views.unless_gone(found)?.into_iter().flatten());
        let save = || views.snapshots().newest_save()?.map(|save| info(&views, &save)).transpose();
        saves.extend(views.unless_gone(save())?.flatten());
    }
    let reserved = tree.device().look()?.reserved_room();
    let space = tree.space()?;
    Ok(StatusInfo {
        store: daemon.path().into(),
        id: settings.id.to_string(),
        mount_point: daemon.mount_point().map(PathText::from),
        transport: daemon.transport().map(|transport| transport.to_string()),
        track_bytes: settings.track_bytes.into(),
        compression: format!("{:?}", settings.codec).to_lowercase(),
        total_bytes: space.total,
        available_bytes: space.available,
        live_bytes: space.live,
        log_bytes: space.log,
        metadata_bytes: space.meta,
        segment_bytes: space.segments,
        reserved_bytes: reserved,
        drop_oldest: views.room().drops_oldest()?,
        bases: bases.into_iter().map(BaseInfo::from).collect(),
        archives,
        saves,
        snapshots,
        workers: daemon.workers()?.into_iter().map(WorkerInfo::from).collect(),
        only_read: daemon.is_unwritable(),
        stopped: match tree.device().check_running() {
            Err(error @ Error::Stopped(_)) => Some(error.to_string()),
            _ => None,
        },
    })
}

/// Shows what the store does by itself, after what is given was changed.
pub(super) fn policy(daemon: &Daemon, views: &Views, drop_oldest: Option<bool>, kept: Option<Keep>) -> Result<Answer> {
    if let Some(drop_oldest) = drop_oldest {
        views.room().set_drop_oldest(drop_oldest)?;
    }
    let mut deleted = Vec::new();
    if let Some(kept) = kept {
        let most = match kept {
            Keep::All => None,
            Keep::Newest(most) => Some(most),
        };
        views.restores().keep_before(most)?;
        for base in views.bases().all()? {
            let views = views.of(base.id);
            let gone = views.unless_gone(daemon.whole_bases().drop_before_restores(&views))?.unwrap_or_default();
            deleted.extend(gone.iter().map(|snapshot| SnapshotInfo::new(&base.name, snapshot)));
        }
    }
    let when_full = if views.room().drops_oldest()? { WhenFull::DropOldest } else { WhenFull::Refuse };
    Ok(Answer::Policy(PolicyInfo { when_full, before_restore: views.restores().before_kept()?, deleted }))
}
