//! Histories over years: letting an archive's oldest times go, keeping one time of each period, and taking in what was
//! saved elsewhere.

use super::archives::Archives;
use super::archives::{open_there, refused};
use super::roll::{check_continues, has_lost_newest};
use super::{ArchiveInfo, OnProgress, Progress};
use crate::archive::{Archive, Increment, Merged, TakenIn, check_writable};
use crate::clock::{Epoch, Period, Timestamp};
use crate::error::{Errno, Error, Result};
use crate::limits::ARCHIVE_MERGE_MAX;
use crate::media::Directory;
use crate::shown::shown_file;
use crate::view::Views;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which times of an archive are to go: those that are beyond the newest `keep` and, if both are given, before a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PruneOptions {
    pub keep: Option<u64>,
    pub before: Option<Timestamp>,
    pub is_dry_run: bool,
}

/// One time of each period is to stay, the first, of what is before a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeOptions {
    pub per: Period,
    pub before: Option<Timestamp>,
    pub is_dry_run: bool,
}

impl PruneOptions {
    /// In the words of the command line.
    fn what(&self) -> String {
        let keep = self.keep.map_or(String::new(), |keep| format!(" --keep {keep}"));
        format!("archive prune{keep}{}", before(self.before))
    }
}

impl MergeOptions {
    /// In the words of the command line.
    fn what(&self) -> String {
        format!("archive merge --per {}{}", format!("{:?}", self.per).to_lowercase(), before(self.before))
    }
}

fn before(time: Option<Timestamp>) -> String {
    time.map_or(String::new(), |time| format!(" --before {:?}", time.as_exact_text()))
}

/// What went from an archive, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortened {
    pub directory: PathBuf,
    /// The times that cannot be reached any more, the oldest first.
    pub times: Vec<(String, Timestamp)>,
    /// Bytes that the archive takes less; not known ahead of a merge.
    pub bytes: u64,
    /// A save that stays because it is the newest.
    pub standing_save: Option<String>,
    pub is_dry_run: bool,
    /// What could not be removed, and why.
    pub problems: Vec<String>,
}

impl Archives<'_> {
    fn archive_to_change(self, views: &Views) -> Result<Arc<Archive>> {
        self.look_again(views)?;
        let none = || refused(Errno::NOENT, "no archive is attached; `pitfs archive attach DIR` does that".into());
        let archive = self.attached(views).ok_or_else(none)?;
        archive.check_there()?;
        check_writable(archive.directory())?;
        Ok(archive)
    }

    /// An archive to let times go from: as a roll, not one that has gone on without this store, whose times these are then,
    /// nor one that lost what was saved last.
    fn archive_to_shorten(self, views: &Views) -> Result<Arc<Archive>> {
        let archive = self.archive_to_change(views)?;
        check_continues(&archive.reach(), self.record(views)?.as_ref())?;
        Ok(archive)
    }

    /// The newest save of a base, if only the archive has it.
    fn standing_save(self, views: &Views) -> Result<Option<(Epoch, String)>> {
        let save = views.snapshots().newest_save()?.filter(|save| save.is_archived);
        Ok(save.map(|save| (save.epoch, save.record.name)))
    }

    /// Lets the oldest times of the attached archive go. The newest time stays, and so does the newest save.
    pub fn prune(self, views: &Views, options: PruneOptions, progress: OnProgress<'_>) -> Result<Shortened> {
        let _changing = self.daemon.rolls().begin()?;
        let archive = self.archive_to_shorten(views)?;
        let all = archive.increments();
        let mut cut = first_to_stay(&all, options)?;
        let newest_save = views.snapshots().newest_save()?.map(|save| save.epoch);
        // One that cannot be reached now stays with all that leads to it once what is missing is back.
        let unreachable = save_behind(&archive.others(), newest_save);
        let save = unreachable.or(self.standing_save(views)?).filter(|(epoch, _)| *epoch < cut);
        if let Some((epoch, _)) = &save {
            cut = *epoch;
        }
        let mut gone = unreachable_to_go(archive.others(), (cut, all.len()), options);
        gone.extend(all.into_iter().filter(|one| one.header.from.epoch < cut));
        let mut shortened = shortened(&archive, &gone, save.map(|(_, name)| name), options.is_dry_run);
        if options.is_dry_run {
            return Ok(shortened);
        }
        shortened.problems = archive.remove_leftovers();
        if gone.is_empty() {
            // What was removed by hand is forgotten by that, but for what others may still lead to.
            if archive.others().is_empty() && archive.broken().is_empty() {
                self.daemon.rolls().note_archive_if_new(views, &archive)?;
            }
            return Ok(shortened);
        }
        self.change_times(views, || {
            let pruned = archive.prune(&gone, &mut |bytes| progress(&Progress { bytes, ..Progress::default() }));
            if pruned.is_err() {
                // What could not go is there still.
                self.look_again(views)?;
            }
            self.daemon.rolls().note_archive(views, &archive, &[])?;
            pruned
        })?;
        views.note_done(&format!("{}; times gone: {}", options.what(), shortened.times.len()))?;
        Ok(shortened)
    }

    /// Merges increments of the attached archive, so that of each period the first time is left.
    pub fn merge(self, views: &Views, options: MergeOptions, progress: OnProgress<'_>) -> Result<Shortened> {
        let _changing = self.daemon.rolls().begin()?;
        let archive = self.archive_to_shorten(views)?;
        let save = views.snapshots().newest_save()?.map(|save| save.epoch);
        let groups = groups(archive.increments(), options, save);
        let gone: Vec<Increment> = groups.iter().flat_map(|group| group[1..].iter().cloned()).collect();
        let mut shortened = shortened(&archive, &gone, None, options.is_dry_run);
        shortened.bytes = 0;
        if options.is_dry_run {
            return Ok(shortened);
        }
        shortened.problems = archive.remove_leftovers();
        if groups.is_empty() {
            return Ok(shortened);
        }
        let bytes_of = |archive: &Archive| archive.increments().iter().map(|one| one.bytes).sum::<u64>();
        let had = bytes_of(&archive);
        self.change_times(views, || {
            let mut merge = |group| merge_group(&archive, group, &mut shortened.problems, progress);
            let merged = groups.into_iter().try_for_each(&mut merge);
            self.daemon.rolls().note_archive(views, &archive, &[])?;
            merged
        })?;
        shortened.bytes = had.saturating_sub(bytes_of(&archive));
        views.note_done(&format!("{}; times gone: {}", options.what(), shortened.times.len()))?;
        Ok(shortened)
    }

    /// Takes increments in that were saved to another directory.
    pub fn join(self, views: &Views, from: &Path, progress: OnProgress<'_>) -> Result<ArchiveInfo> {
        let _changing = self.daemon.rolls().begin()?;
        let archive = self.archive_to_change(views)?;
        let from = &self.daemon.outside(from)?;
        let no_directory = || refused(Errno::NOENT, format!("{} is no directory", shown_file(from)));
        let source = open_there(from)?.ok_or_else(no_directory)?;
        let (left, archive) = self.change_times(views, || self.take_in(views, archive, &source, from, progress))?;
        let mut info = self.info_of(views, &archive)?;
        info.problems.extend(left);
        Ok(info)
    }

    /// What could not be taken in, in words.
    fn take_in(
        self,
        views: &Views,
        archive: Arc<Archive>,
        source: &Arc<Directory>,
        from: &Path,
        progress: OnProgress<'_>,
    ) -> Result<(Vec<String>, Arc<Archive>)> {
        let mut done = 0;
        let device = views.tree().device();
        let holds = |mark: &crate::archive::Mark| device.archiving().holds(views.base(), mark);
        let TakenIn { taken, left } = archive.take_in(source, &holds, &mut |bytes| {
            done += bytes;
            progress(&Progress { bytes: done, ..Progress::default() })
        })?;
        if taken == 0 {
            let mut text = format!(
                "{} has no whole increments of this base that the archive lacks and that lead to what the store has",
                shown_file(from)
            );
            left.iter().for_each(|problem| text.extend(["; ", problem]));
            return Err(refused(Errno::NOENT, text));
        }
        archive.refresh(&holds, &mut |_| Ok(()))?;
        // What it lacks still stays missed.
        if !has_lost_newest(&archive.reach(), self.record(views)?.as_ref()) {
            self.daemon.rolls().note_archive(views, &archive, &[])?;
        }
        views.note_done(&format!("archive join {from:?}; increments that came: {taken}"))?;
        Ok((left, archive))
    }
}

/// The epoch of the oldest time that stays.
fn first_to_stay(all: &[Increment], options: PruneOptions) -> Result<Epoch> {
    if options.keep.is_none() && options.before.is_none() {
        let text = "say which times are to go: all but the newest, `--keep NUMBER`, or the old ones, `--before TIME`";
        return Err(refused(Errno::INVAL, text.into()));
    }
    let last = all.len().saturating_sub(1);
    let by_number = options.keep.map_or(last, |keep| all.len().saturating_sub(keep.try_into().unwrap_or(usize::MAX)));
    let is_old = |one: &Increment| options.before.is_some_and(|before| one.header.from.time < before);
    let by_time = if options.before.is_some() { all.iter().take_while(|one| is_old(one)).count() } else { last };
    let at = by_number.min(by_time).min(last);
    all.get(at)
        .map(|first| first.header.from.epoch)
        .ok_or_else(|| Error::Refused(Errno::NOENT, "the archive has no times that can be reached".into()))
}

/// The newest save among increments that cannot be reached, if it may be the one that stands.
fn save_behind(others: &[Increment], newest_save: Option<Epoch>) -> Option<(Epoch, String)> {
    let saves = others.iter().map(|one| &one.header.from).filter(|from| from.purpose.is_save());
    let newest = saves.max_by_key(|save| save.epoch).map(|save| (save.epoch, save.name.clone()));
    newest.filter(|(save, _)| newest_save.is_none_or(|newest| newest < *save))
}

/// What goes of the increments that cannot be reached: only what would go if they could, since what is missing after them
/// may be put back. `cut` is the epoch of the oldest time that stays, and how many there are that can be reached.
fn unreachable_to_go(
    others: Vec<Increment>,
    (cut, reachable): (Epoch, usize),
    options: PruneOptions,
) -> Vec<Increment> {
    let mut gone = others;
    gone.retain(|one| one.header.to.epoch <= cut);
    gone.retain(|one| options.before.is_none_or(|before| one.header.from.time < before));
    let kept = options.keep.map_or(0, |keep| usize::try_from(keep).unwrap_or(usize::MAX).saturating_sub(reachable));
    gone.truncate(gone.len().saturating_sub(kept));
    gone
}

/// Increments that follow each other and whose times lie in one period, where there are several.
fn groups(all: Vec<Increment>, options: MergeOptions, save: Option<Epoch>) -> Vec<Vec<Increment>> {
    let mut groups: Vec<(String, Vec<Increment>)> = Vec::new();
    for one in all {
        let from = &one.header.from;
        if options.before.is_some_and(|before| from.time >= before) {
            break;
        }
        let period = options.per.of(from.time);
        match groups.last_mut() {
            // The newest save is the first of its group: it stays.
            Some((last, group)) if *last == period && save != Some(from.epoch) => group.push(one),
            _ => groups.push((period, vec![one])),
        }
    }
    groups.into_iter().map(|(_, group)| group).filter(|group| group.len() > 1).collect()
}

/// Merges increments into one, in several steps where they are many.
fn merge_group(
    archive: &Archive,
    mut group: Vec<Increment>,
    problems: &mut Vec<String>,
    progress: OnProgress<'_>,
) -> Result<()> {
    while group.len() > 1 {
        let mut merged = Vec::new();
        for parts in group.chunks(ARCHIVE_MERGE_MAX) {
            if let [one] = parts {
                merged.push(one.clone());
                continue;
            }
            let Merged { increment, problems: met } =
                archive.merge(parts, &mut |bytes| progress(&Progress { bytes, ..Progress::default() }))?;
            // A part that is left is told of once.
            problems.extend(met.into_iter().filter(|problem| !problems.contains(problem)).collect::<Vec<_>>());
            merged.push(increment);
        }
        group = merged;
    }
    Ok(())
}

fn shortened(archive: &Archive, gone: &[Increment], standing_save: Option<String>, is_dry_run: bool) -> Shortened {
    Shortened {
        directory: archive.path().to_path_buf(),
        times: gone.iter().map(|one| (one.header.from.name.clone(), one.header.from.time)).collect(),
        bytes: gone.iter().map(|one| one.bytes).sum(),
        standing_save,
        is_dry_run,
        problems: Vec::new(),
    }
}
