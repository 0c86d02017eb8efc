//! What a command would do: it is carried out on views that take every step back, and what it came to is told.

use super::base::{base_options, clone_options, cloned, step_mirror};
use super::restore::{check_paths, restore_group, wanted};
use super::{delete, info, infos, target};
use crate::control::{Answer, Base, DirectoryInfo, Mirror, PlanInfo, Verb};
use crate::daemon::{BringBackReport, Daemon, OnProgress, RestoreReport, RollPlan, plan_copy_out};
use crate::device::Snapshot;
use crate::error::{Errno, Error, Result};
use crate::limits::BLOCK_BYTES;
use crate::view::{CloneOptions, Restored, Views};
use serde_bytes::ByteBuf;

pub(super) fn rehearse(daemon: &Daemon, views: &Views, verb: Verb, progress: OnProgress<'_>) -> Result<Answer> {
    let plan = match verb {
        Verb::Restore { snapshot, group: Some(group), .. } => {
            let (to, restored) = restore_group(daemon, views, &group, snapshot)?;
            whole(daemon, views, (&to, &restored), progress)
        }
        Verb::Restore { snapshot, paths, group: None } => restore(daemon, views, snapshot, paths, progress),
        Verb::Undo => match views.restores().last_undo()? {
            (before, paths) if paths.is_empty() => {
                restore(daemon, views, Some(before.record.name.into_bytes().into()), paths, progress)
            }
            (before, paths) => {
                let (report, kept) = daemon.path_restores().undo(views, &before, &paths, progress)?;
                path_by_path(views, &before, report, kept)
            }
        },
        Verb::RestoreFrom { snapshot, paths, from } => {
            let (snapshot, report, before) = target::restore(daemon, views, from, (snapshot, paths), progress)?;
            path_by_path(views, &snapshot, report, before)
        }
        Verb::CopyOut(options) => {
            check_paths(&options.paths)?;
            let RestoreReport { files, bytes, problems } = plan_copy_out(daemon, views, &options, progress)?;
            Ok(PlanInfo { files: Some(files), bytes: Some(bytes), problems, ..PlanInfo::default() })
        }
        Verb::Delete { names, group, recursive } => {
            return delete::rehearse(views, &delete::named(views, &names, group.as_deref())?, recursive);
        }
        Verb::Base(Base::Delete { name, recursive }) => {
            return delete::rehearse(views, &delete::base(views, &name)?, recursive);
        }
        Verb::Clone(wanted) => {
            let (of, options) = (cloned(views, &wanted)?, clone_options(&wanted));
            clone(daemon, views, of, options, progress)
        }
        Verb::Base(Base::Create { name, snapshot: Some(snapshot), copy, offline, reserve, .. }) => {
            let of = vec![(views.snapshot_of(&snapshot)?, name.into_vec())];
            clone(daemon, views, of, base_options(copy, offline, reserve), progress)
        }
        Verb::Refresh { name, snapshot } => {
            daemon.whole_bases().refresh(views, &name, &snapshot)?;
            let restored = vec![info(views, &views.snapshot_of(&snapshot)?)?];
            Ok(PlanInfo { restored, changed: vec![text(&name)], ..PlanInfo::default() })
        }
        Verb::Mirror(wanted) => mirror(daemon, views, wanted),
        Verb::Roll(options) => roll(views, vec![daemon.rolls().plan(views, &options)?]),
        Verb::RollGroup { group, options } => roll(views, daemon.rolls().plan_group(views, &group, &options)?),
        _ => Err(Error::Refused(Errno::INVAL, "there is no dry run of this".into())),
    };
    plan.map(|plan| Answer::Plan(PlanInfo { dry_run: true, ..plan }))
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn restore(
    daemon: &Daemon,
    views: &Views,
    snapshot: Option<ByteBuf>,
    paths: Vec<ByteBuf>,
    progress: OnProgress<'_>,
) -> Result<PlanInfo> {
    let (snapshot, paths) = wanted(views, snapshot, paths)?;
    if paths.is_empty() {
        let restored = daemon.whole_bases().restore(views, &snapshot)?;
        return whole(daemon, views, (&[snapshot], restored.as_slice()), progress);
    }
    let (report, before) = daemon.path_restores().rehearse(views, &snapshot, &paths, progress)?;
    path_by_path(views, &snapshot, report, before)
}

fn path_by_path(
    views: &Views,
    snapshot: &Snapshot,
    report: BringBackReport,
    before: Option<Snapshot>,
) -> Result<PlanInfo> {
    let mut plan = PlanInfo { restored: vec![info(views, snapshot)?], ..PlanInfo::default() };
    count(&mut plan, &report);
    plan.problems = report.problems;
    if let Some(before) = before {
        note_before(views, &mut plan, &before)?;
    }
    Ok(plan)
}

/// Bases that would go back to snapshots as a whole; nothing would be done where nothing differs.
fn whole(
    daemon: &Daemon,
    views: &Views,
    (to, restored): (&[Snapshot], &[Restored]),
    progress: OnProgress<'_>,
) -> Result<PlanInfo> {
    let mut plan = PlanInfo { restored: infos(views, to)?, ..PlanInfo::default() };
    count(&mut plan, &BringBackReport::default());
    for restored in restored {
        count(&mut plan, &daemon.path_restores().count_restored(views, (&restored.to, &restored.before), progress)?);
        note_before(views, &mut plan, &restored.before)?;
    }
    Ok(plan)
}

fn count(plan: &mut PlanInfo, report: &BringBackReport) {
    let add = |sum: &mut Option<u64>, number| *sum = Some(sum.unwrap_or(0) + number);
    add(&mut plan.files, report.files);
    add(&mut plan.bytes, report.bytes);
    add(&mut plan.removed, report.removed);
}

/// The snapshot of what is there would be taken, and others might be one too many then.
fn note_before(views: &Views, plan: &mut PlanInfo, before: &Snapshot) -> Result<()> {
    plan.taken.push(info(views, before)?.untaken());
    plan.freed.extend(infos(views, &views.of(before.base).restores().too_many_before(1)?)?);
    Ok(())
}

fn clone(
    daemon: &Daemon,
    views: &Views,
    of: Vec<(Snapshot, Vec<u8>)>,
    options: CloneOptions,
    progress: OnProgress<'_>,
) -> Result<PlanInfo> {
    let mut plan = PlanInfo { made: of.iter().map(|(_, name)| text(name)).collect(), ..PlanInfo::default() };
    let snapshots: Vec<Snapshot> = of.iter().map(|(snapshot, _)| snapshot.clone()).collect();
    plan.restored = infos(views, &snapshots)?;
    if let [(snapshot, name)] = of.as_slice()
        && snapshot.is_archived
    {
        let counted = daemon.whole_bases().count_filled(views, snapshot, name)?;
        (plan.files, plan.bytes, plan.copied_bytes) = (Some(counted.files), Some(counted.bytes), Some(counted.bytes));
        plan.reserved_bytes = if options.reserve { counted.bytes } else { 0 };
        return Ok(plan);
    }
    let refers = snapshots.iter().map(|snapshot| snapshot.record.refers).fold(0, u64::saturating_add);
    let refers = refers.saturating_mul(BLOCK_BYTES as u64);
    daemon.whole_bases().make_clones(views, of, options, None, progress)?;
    plan.copied_bytes = Some(if options.copies { refers } else { 0 });
    plan.reserved_bytes = if options.reserve { refers } else { 0 };
    Ok(plan)
}

fn mirror(daemon: &Daemon, views: &Views, mirror: Mirror) -> Result<PlanInfo> {
    let mut plan = PlanInfo::default();
    match &mirror {
        Mirror::Establish { name, .. } => plan.made.push(text(name)),
        Mirror::RestoreTo { snapshot, .. } => plan.restored.push(info(views, &views.snapshot_of(snapshot)?)?),
        Mirror::Sync { .. } | Mirror::Split { .. } | Mirror::Resync { .. } => {}
    }
    let step = step_mirror(daemon, views, mirror)?;
    if plan.made.is_empty() {
        plan.changed.push(views.of(step.base).base_name()?);
    }
    if let Some(before) = &step.before {
        plan.taken.push(info(views, before)?.untaken());
    }
    plan.copied_bytes = Some(step.bytes);
    Ok(plan)
}

fn roll(views: &Views, plans: Vec<RollPlan>) -> Result<PlanInfo> {
    let mut plan = PlanInfo::default();
    for RollPlan { taken, deactivated, archive, saved, freed, problems } in plans {
        plan.taken.push(info(views, &taken)?.untaken());
        plan.deactivated.extend(infos(views, &deactivated)?);
        plan.saved.extend(infos(views, &saved)?);
        plan.freed.extend(infos(views, &freed)?);
        plan.problems.extend(problems);
        plan.archives.extend(archive.map(|archive| DirectoryInfo { directory: archive.into() }));
    }
    Ok(plan)
}
