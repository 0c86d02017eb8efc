//! Bases, clones and mirrors.

use super::delete;
use crate::control::{Answer, Base, BaseInfo, CloneRequest, Mirror};
use crate::daemon::{Daemon, OnProgress};
use crate::device::{BaseId, Snapshot};
use crate::error::Result;
use crate::view::{CloneOptions, MirrorStep, Views};

pub(super) fn base(daemon: &Daemon, views: &Views, base: Base, progress: OnProgress<'_>) -> Result<Answer> {
    match base {
        Base::Create { name, snapshot: None, uid, gid, offline, .. } => {
            let base = views.bases().create(&name, uid, gid, 0o755)?;
            if offline {
                views.bases().show(base, false)?;
            }
        }
        Base::Create { name, snapshot: Some(snapshot), copy, offline, reserve, .. } => {
            let of = vec![(views.snapshot_of(&snapshot)?, name.into_vec())];
            let options = base_options(copy, offline, reserve);
            daemon.whole_bases().make_clones(views, of, options, None, progress)?;
        }
        wanted @ Base::FromSet { .. } => {
            let base = super::target::base(daemon, views, wanted, progress)?;
            return base_answer(views, base);
        }
        Base::Delete { name, recursive } => {
            return delete::delete(views, &delete::base(views, &name)?, recursive);
        }
        Base::Rename { old, new } => {
            views.bases().rename(views.bases().named(&old)?, &new)?;
        }
        Base::List => {}
    }
    Ok(Answer::Bases(views.bases().all()?.into_iter().map(BaseInfo::from).collect()))
}

/// Of a base that begins as a snapshot.
pub(super) fn base_options(copies: bool, is_offline: bool, reserve: bool) -> CloneOptions {
    CloneOptions { is_full: true, copies, is_shown_beside: false, is_offline, reserve }
}

pub(super) fn base_answer(views: &Views, base: BaseId) -> Result<Answer> {
    base_infos(views, &[base]).map(Answer::Bases)
}

/// Those that are still there.
fn base_infos(views: &Views, bases: &[BaseId]) -> Result<Vec<BaseInfo>> {
    let info = |base: &BaseId| views.of(*base).unless_gone(views.of(*base).bases().info());
    bases.iter().filter_map(|base| info(base).map(|info| info.map(BaseInfo::from)).transpose()).collect()
}

pub(super) fn clone(daemon: &Daemon, views: &Views, wanted: CloneRequest, progress: OnProgress<'_>) -> Result<Answer> {
    let (of, options) = (cloned(views, &wanted)?, clone_options(&wanted));
    let group = wanted.group.map(|group| String::from_utf8_lossy(&group).into_owned());
    let made = daemon.whole_bases().make_clones(views, of, options, group.as_deref(), progress)?;
    base_infos(views, &made).map(Answer::Bases)
}

pub(super) fn promote(views: &Views, name: &[u8]) -> Result<Answer> {
    let base = views.bases().named(name)?;
    views.bases().promote(base)?;
    base_answer(views, base)
}

/// Of what clones are to be made, and under which names.
pub(super) fn cloned(views: &Views, wanted: &CloneRequest) -> Result<Vec<(Snapshot, Vec<u8>)>> {
    let CloneRequest { snapshot, name, group, .. } = wanted;
    let Some(group) = group else { return Ok(vec![(views.snapshot_of(snapshot)?, name.to_vec())]) };
    let mut of = Vec::new();
    for snapshot in views.groups().snapshots(group, snapshot)? {
        let base = views.of(snapshot.base).base_name()?;
        of.push((snapshot, [&name[..], b"-", base.as_bytes()].concat()));
    }
    Ok(of)
}

pub(super) fn clone_options(wanted: &CloneRequest) -> CloneOptions {
    let CloneRequest { full, copy, offline, reserve, .. } = *wanted;
    CloneOptions { is_full: full, copies: copy, is_shown_beside: true, is_offline: offline, reserve }
}

pub(super) fn step_mirror(daemon: &Daemon, views: &Views, mirror: Mirror) -> Result<MirrorStep> {
    match mirror {
        Mirror::Establish { base, name, offline } => {
            views.of(views.bases().named(&base)?).mirrors().establish(&name, offline)
        }
        Mirror::Sync { name } => daemon.whole_bases().sync_mirror(views, &name),
        Mirror::Split { name } => daemon.whole_bases().split_mirror(views, &name),
        Mirror::Resync { name, reverse } => daemon.whole_bases().resync_mirror(views, &name, reverse),
        Mirror::RestoreTo { name, snapshot } => daemon.whole_bases().restore_mirror(views, &name, &snapshot),
    }
}
