//! Targets, and the sets that are kept there.

use super::restore::check_paths;
use crate::clock::Timestamp;
use crate::control::answer::{Answer, KeyInfo, LetGoInfo, SetInfo, TargetInfo};
use crate::control::request::{Base, FromTarget, Send, Sets, Targets};
use crate::daemon::{
    self, AddTarget, AtTarget, BackupOptions, BringBackReport, Daemon, KeptBy, KeyChange, LetGo, OnProgress, Parts,
    SealedBy, add_target, base_from_set, change_keys, compact_sets, delete_sets, merge_sets, note_newest,
    open_alone_by, open_repository, prune_sets, rebuild_sets, repair_sets, verify_sets,
};
use crate::device::{BaseId, Snapshot};
use crate::error::{Errno, Error, Result};
use crate::set::Kind;
use crate::view::Views;
use serde_bytes::ByteBuf;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

pub(super) fn targets(daemon: &Daemon, views: &Views, targets: Targets) -> Result<Answer> {
    match targets {
        Targets::Add { name, directory, key_file, passphrase } => {
            let lock = lock(key_file, passphrase)?.unwrap_or(KeptBy::Nobody);
            let record = add_target(daemon, views, &AddTarget { name: name.clone(), directory, lock })?;
            Ok(Answer::Targets(vec![TargetInfo::of(name, record, views.targets().store()?)]))
        }
        Targets::KeyList { target } => keys(daemon, views, target, &KeyChange::Show),
        Targets::KeyAdd { target, key_file, passphrase } => {
            let none = || Error::Refused(Errno::INVAL, "give a key file or a passphrase".into());
            keys(daemon, views, target, &KeyChange::Add(lock(key_file, passphrase)?.ok_or_else(none)?))
        }
        Targets::KeyRemove { target, slot } => keys(daemon, views, target, &KeyChange::Remove(slot)),
        Targets::List => {
            let (all, store) = (views.targets().all()?, views.targets().store()?);
            Ok(Answer::Targets(all.into_iter().map(|(name, record)| TargetInfo::of(name, record, store)).collect()))
        }
        Targets::Forget { name } => views.targets().forget(&name).map(|()| Answer::Nothing),
    }
}

/// A snapshot, written to a stream.
pub(super) fn send(views: &Views, wanted: Send, out: &Arc<File>, progress: OnProgress<'_>) -> Result<Answer> {
    let sealed = match wanted.target {
        Some(name) => SealedBy::Target(name),
        None => SealedBy::Own(lock(wanted.key_file, wanted.passphrase)?.unwrap_or(KeptBy::Nobody)),
    };
    let options = BackupOptions {
        snapshot: wanted.snapshot.map(ByteBuf::into_vec),
        kind: Kind::Full,
        level: wanted.level.unwrap_or(daemon::LEVEL),
        limit: wanted.limit,
        parts: Parts::default(),
    };
    let report = daemon::send(views, out, &sealed, &options, progress)?;
    Ok(Answer::Backups(vec![report.into()]))
}

/// A base of a moment that a target has.
pub(super) fn base(daemon: &Daemon, views: &Views, wanted: Base, progress: OnProgress<'_>) -> Result<BaseId> {
    let Base::FromSet { name, snapshot, from } = wanted else {
        return Err(Error::Fault("it is no base of a set".into()));
    };
    base_from_set(views, &open(daemon, views, from)?, (&snapshot, &name), progress)
}

/// Paths in place, or what they would come to: the moment that they are of, what was done, and what is kept of before.
pub(super) fn restore(
    daemon: &Daemon,
    views: &Views,
    from: FromTarget,
    (snapshot, paths): (ByteBuf, Vec<ByteBuf>),
    progress: OnProgress<'_>,
) -> Result<(Snapshot, BringBackReport, Option<Snapshot>)> {
    check_paths(&paths)?;
    let paths = if paths.is_empty() { vec![ByteBuf::new()] } else { paths };
    let at = open(daemon, views, from)?;
    daemon.path_restores().bring_back_from_set(views, &at, (&snapshot, &paths), progress)
}

fn open(daemon: &Daemon, views: &Views, from: FromTarget) -> Result<AtTarget> {
    match from.directory {
        Some(path) => open_alone_by(&path, &lock(from.key_file, from.passphrase)?.unwrap_or(KeptBy::Nobody)),
        None => open_repository(daemon, views, from.target.as_deref()),
    }
}

fn keys(daemon: &Daemon, views: &Views, target: Option<String>, change: &KeyChange) -> Result<Answer> {
    let slots = change_keys(daemon, views, target.as_deref(), change)?;
    Ok(Answer::Keys(slots.iter().enumerate().map(|(slot, found)| KeyInfo::of(slot, found)).collect()))
}

/// What is to open what is kept, if that was said.
fn lock(key_file: Option<PathBuf>, passphrase: Option<String>) -> Result<Option<KeptBy>> {
    match (key_file, passphrase) {
        (Some(file), None) => Ok(Some(KeptBy::File(file))),
        (None, Some(passphrase)) => Ok(Some(KeptBy::Passphrase(passphrase))),
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            Err(Error::Refused(Errno::INVAL, "give a key file or a passphrase; the other can be added then".into()))
        }
    }
}

pub(super) fn sets(daemon: &Daemon, views: &Views, sets: Sets, progress: OnProgress<'_>) -> Result<Answer> {
    let of = |sets: &Sets| match sets {
        Sets::List { target } | Sets::Verify { target, .. } | Sets::Rebuild { target } | Sets::Repair { target } => {
            target.clone()
        }
        Sets::Delete { target, .. }
        | Sets::Merge { target, .. }
        | Sets::Compact { target, .. }
        | Sets::Prune { target, .. } => target.clone(),
    };
    let mut at = open_repository(daemon, views, of(&sets).as_deref())?;
    let answer = set(&mut at, views, sets, progress);
    if !daemon.is_only_read() {
        note_newest(views, &at.target, &at.repository)?;
    }
    answer
}

fn set(at: &mut AtTarget, views: &Views, sets: Sets, progress: OnProgress<'_>) -> Result<Answer> {
    let names = |sets: Vec<ByteBuf>| sets.into_iter().map(ByteBuf::into_vec).collect::<Vec<_>>();
    let done = match sets {
        Sets::List { .. } => {
            return Ok(Answer::Sets(at.repository.catalogue().sets().iter().map(SetInfo::from).collect()));
        }
        Sets::Verify { read, .. } => {
            let verified = verify_sets(&at.repository, read, progress)?;
            return Ok(Answer::Sets(verified.into_iter().map(SetInfo::from).collect()));
        }
        Sets::Delete { sets, dry_run, .. } => delete_sets(at, &names(sets), dry_run)?,
        Sets::Merge { sets, at: until, dry_run, .. } => merge_sets(at, &names(sets), until, dry_run)?,
        Sets::Compact { waste, dry_run, .. } => compact_sets(at, waste, dry_run, progress)?,
        Sets::Rebuild { .. } => {
            let problems = rebuild_sets(at)?;
            let kept = at.repository.catalogue().moments().map(|listed| (listed.clone(), Vec::new())).collect();
            return Ok(Answer::LetGo(LetGoInfo { problems, ..LetGo { kept, ..LetGo::default() }.into() }));
        }
        Sets::Repair { .. } => {
            return Ok(Answer::LetGo(repair_sets(at, views, progress)?.into()));
        }
        Sets::Prune { keep, dry_run, .. } => prune_sets(at, &keep, Timestamp::now(), dry_run)?,
    };
    Ok(Answer::LetGo(done.into()))
}
