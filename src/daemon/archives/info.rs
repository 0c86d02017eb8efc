//! What is told of an archive.

use super::Archives;
use super::{ArchiveInfo, IncrementInfo, MissingTime, open_there, refused, removed};
use crate::archive::{Archive, Broken, Increment, Label, Leftover, Mark, Survey, open_named};
use crate::clock::Epoch;
use crate::daemon::roll::check_continues;
use crate::error::{Errno, Error, Result};
use crate::media::Directory;
use crate::shown::shown_file;
use crate::view::Views;
use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the store knows the archive had and has not now, nor the store.
pub(super) fn missing_times(views: &Views, there: &[Mark]) -> Result<Vec<MissingTime>> {
    let look = views.tree().device().look()?;
    let mut known = look.moments().known_archived(views.base())?;
    let has: BTreeSet<Epoch> = there.iter().map(|mark| mark.epoch).collect();
    known.retain(|mark| !has.contains(&mark.epoch));
    let mut missing = Vec::new();
    for mark in known {
        let is_stored =
            look.moments().snapshot(views.base(), mark.epoch)?.is_some_and(|snapshot| !snapshot.is_archived);
        if !is_stored {
            let Mark { epoch, name, time, purpose, id: _, offline: _ } = mark;
            missing.push(MissingTime { name, time, epoch, purpose });
        }
    }
    Ok(missing)
}

pub(super) fn info(
    views: &Views,
    directory: &Path,
    increments: Vec<IncrementInfo>,
    problems: Vec<String>,
) -> Result<ArchiveInfo> {
    Ok(ArchiveInfo {
        directory: directory.to_path_buf(),
        base: views.base_name()?,
        bytes: increments.iter().map(|increment| increment.bytes).sum(),
        increments,
        problems,
        whole: 0,
        whole_bytes: 0,
        missing: Vec::new(),
    })
}

pub(super) fn increment_info(increment: Increment, is_reachable: bool) -> IncrementInfo {
    IncrementInfo {
        is_reachable,
        is_damaged: false,
        purpose: increment.header.from.purpose,
        name: increment.header.from.name,
        time: increment.header.from.time,
        epoch: increment.header.from.epoch,
        bytes: increment.bytes,
        file: increment.path,
        merged_into: None,
    }
}

pub(super) fn leftover_info(leftover: Leftover) -> IncrementInfo {
    IncrementInfo { merged_into: Some(leftover.merged), ..increment_info(leftover.increment, false) }
}

/// The oldest first, and of several that begin at one time the parts behind the one into which they were merged.
pub(super) fn sorted(increments: impl Iterator<Item = IncrementInfo>) -> Vec<IncrementInfo> {
    let mut increments: Vec<IncrementInfo> = increments.collect();
    increments.sort_by_key(|increment| (increment.epoch, increment.merged_into.is_some()));
    increments
}

pub(super) fn problem_text(broken: &Broken) -> String {
    let path = shown_file(&broken.path).to_string();
    if broken.problem.contains(&path) { broken.problem.clone() } else { format!("{path}: {}", broken.problem) }
}

pub(in crate::daemon) fn problems_of(broken: &[Broken]) -> Vec<String> {
    broken.iter().map(problem_text).collect()
}

impl Archives<'_> {
    /// What there is to be said of an archive, attached or not, and its directory.
    pub(super) fn info(self, views: &Views, directory: Option<&Path>) -> Result<(ArchiveInfo, Arc<Directory>)> {
        let path = directory.map(|given| self.daemon.outside(given)).transpose()?;
        if self.check_meant(views, path.as_deref()).is_ok() {
            self.look_again(views)?;
            let archive = self.attached(views).ok_or(Error::Posix(Errno::NOENT))?;
            return Ok((self.info_of(views, &archive)?, archive.directory().clone()));
        }
        let Some(path) = path else { return self.check_meant(views, None).map(|_| Err(Error::Posix(Errno::NOENT)))? };
        match open_there(&path)? {
            Some(directory) => Ok((self.survey_info(views, &directory)?, directory)),
            None => {
                let missing = if path.exists() { "it is no directory" } else { "there is no such directory" };
                Err(refused(Errno::NOENT, format!("there is no archive at {}: {missing}", shown_file(&path))))
            }
        }
    }

    /// What there is to be said of the archive that is attached, if one is, also where it is not there.
    pub fn attached_info(self, views: &Views) -> Result<Option<ArchiveInfo>> {
        let Some(record) = self.record(views)? else { return Ok(None) };
        match self.open_attached(views, &record) {
            Ok(archive) => self.info_of(views, &archive).map(Some),
            Err(error) => {
                let missing = missing_times(views, &[])?;
                let problems = vec![error.to_string()];
                Ok(Some(ArchiveInfo { missing, ..info(views, &record.directory, Vec::new(), problems)? }))
            }
        }
    }

    /// What there is to be said of an archive after a look at the beginning and the end of each increment, which the index does
    /// not need.
    pub fn list(self, views: &Views, directory: Option<&Path>) -> Result<ArchiveInfo> {
        let (mut info, directory) = self.info(views, directory)?;
        for at in 0..info.increments.len() {
            if info.increments[at].merged_into.is_some() {
                continue;
            }
            if let Err(error) = open_named(&directory, info.increments[at].file_name()) {
                info.note_damage(at, &error);
            }
        }
        Ok(info)
    }

    /// What is in a directory that is not attached.
    pub(super) fn survey_info(self, views: &Views, directory: &Directory) -> Result<ArchiveInfo> {
        let origin = self.origin(views)?;
        let Survey { mut increments, leftovers, broken } = Survey::of(directory)?;
        if increments.is_empty() && broken.is_empty() && Label::read(directory)?.is_none() {
            let text = format!("{} is no archive, or its disk is not mounted", shown_file(directory.path()));
            return Err(refused(Errno::NOENT, text));
        }
        let mut problems: Vec<String> = broken.iter().map(problem_text).collect();
        let mut foreign = increments.iter().filter(|increment| increment.header.store != origin.store);
        if let Some(first) = foreign.next() {
            let (number, first) = (1 + foreign.count(), shown_file(&first.path));
            problems.push(format!(
                "of the increments in {}, {number} are of another store, such as {first}: to that store they are an archive, to this one \
                 they are nothing",
                shown_file(directory.path())
            ));
        }
        let left: HashSet<&PathBuf> = leftovers.iter().map(|left| &left.increment.path).collect();
        increments.retain(|one| !left.contains(&one.path));
        let whole = increments.into_iter().map(|increment| increment_info(increment, problems.is_empty()));
        let increments = sorted(whole.chain(leftovers.into_iter().map(leftover_info)));
        info(views, directory.path(), increments, problems)
    }

    pub(in crate::daemon) fn info_of(self, views: &Views, archive: &Archive) -> Result<ArchiveInfo> {
        let reachable = archive.increments().into_iter().map(|increment| increment_info(increment, true));
        let others = archive.others().into_iter().map(|increment| increment_info(increment, false));
        let increments = sorted(reachable.chain(others).chain(archive.leftovers().into_iter().map(leftover_info)));
        let missing = missing_times(views, &archive.marks_after(Epoch::ZERO))?;
        let mut problems = problems_of(&archive.broken());
        if problems.is_empty() {
            let continues = check_continues(&archive.reach(), self.record(views)?.as_ref());
            problems.extend(match (continues, missing.last()) {
                (Ok(()), None) => None,
                (Ok(()), Some(last)) => Some(removed(archive.path(), missing.len(), last)),
                // Also where the store still has the times that it lost.
                (Err(error), _) => Some(error.to_string()),
            });
        }
        let found = info(views, archive.path(), increments, problems)?;
        Ok(ArchiveInfo { missing, ..found })
    }
}
