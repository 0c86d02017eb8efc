//! Targets, and backups to them.

use crate::control::answer::{Answer, BackupInfo, SetInfo};
use crate::control::request::{Backup, Sets, Targets, Verb};
use crate::daemon::{
    self, AddTarget, BackupOptions, Daemon, OnProgress, add_target, open_repository, open_target, verify_sets,
};
use crate::error::{Error, Result};
use crate::view::Views;

pub(super) fn serve(daemon: &Daemon, views: &Views, verb: Verb, progress: OnProgress<'_>) -> Result<Answer> {
    match verb {
        Verb::Target(wanted) => targets(daemon, views, wanted),
        Verb::Backup(wanted) => backup(views, wanted, progress),
        Verb::Set(wanted) => sets(views, wanted, progress),
        other => Err(Error::Fault(format!("{other:?} has nothing to do with targets"))),
    }
}

fn targets(daemon: &Daemon, views: &Views, targets: Targets) -> Result<Answer> {
    match targets {
        Targets::Add { name, directory, key_file } => {
            let record = add_target(daemon, views, &AddTarget { name: name.clone(), directory, key_file })?;
            Ok(Answer::Targets(vec![(name, record).into()]))
        }
        Targets::List => Ok(Answer::Targets(views.targets().all()?.into_iter().map(Into::into).collect())),
        Targets::Forget { name } => views.targets().forget(&name).map(|()| Answer::Nothing),
    }
}

fn backup(views: &Views, wanted: Backup, progress: OnProgress<'_>) -> Result<Answer> {
    let (target, key) = open_target(views, wanted.target.as_deref())?;
    let names = match (wanted.all, wanted.snapshot) {
        (true, _) => {
            let all = views.snapshots().all()?.into_iter().filter(|snapshot| snapshot.is_readable());
            all.map(|snapshot| Some(snapshot.record.name.into_bytes())).collect()
        }
        (false, name) => vec![name.map(|name| name.into_vec())],
    };
    let mut reports = Vec::new();
    for snapshot in names {
        let options = BackupOptions { snapshot, kind: wanted.kind.into(), level: daemon::LEVEL };
        reports.push(BackupInfo::from(daemon::backup(views, &target, key.as_ref(), &options, progress)?));
    }
    Ok(Answer::Backups(reports))
}

fn sets(views: &Views, sets: Sets, progress: OnProgress<'_>) -> Result<Answer> {
    match sets {
        Sets::List { target } => {
            let repository = open_repository(views, target.as_deref())?;
            Ok(Answer::Sets(repository.catalogue().sets().iter().map(SetInfo::from).collect()))
        }
        Sets::Verify { target } => {
            let repository = open_repository(views, target.as_deref())?;
            Ok(Answer::Sets(verify_sets(&repository, progress)?.into_iter().map(SetInfo::from).collect()))
        }
    }
}
