//! Rolling increments out to an archive.
//!
//! ```text
//! look at the archive ─▶ take a snapshot ─▶ deactivate those before ─▶ save increments, oldest first ─▶ note how far ─▶ free old ones
//! ```
//!
//! A crash in between leaves whole increments only. Which are missing is told by the store's snapshots and by what
//! the archive has, so that running it again goes on where it stopped. An archive that is not as the store left it is
//! refused before anything is taken or freed.

mod group;
mod plan;

pub use plan::RollPlan;

use super::archives::{Place, attached_already, refused};
use super::{Daemon, OnProgress, Progress, host};
use crate::archive::{Archive, LEVEL, Reach, check_writable, explain_no_room, file_name};
use crate::clock::Epoch;
use crate::device::{ArchiveRecord, SnapOptions, Snapshot, SnapshotRef, SnapshotState};
use crate::error::{Errno, Error, Result};
use crate::media::Directory;
use crate::purpose::Purpose;
use crate::shown::shown_file;
use crate::view::{SnapRequest, Upkeep, Views, note_upkeep};
use parking_lot::MutexGuard;
use serde_bytes::ByteBuf;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How to roll.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RollOptions {
    /// The archive; without one, that which is attached.
    pub archive: Option<PathBuf>,
    /// Snapshots that stay in the store; without a number, all.
    pub keep: Option<u64>,
    /// The new snapshot's name; without one, the time.
    pub name: Option<ByteBuf>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RollReport {
    pub snapshot: String,
    /// Increments that were saved.
    pub saved: u64,
    pub saved_bytes: u64,
    /// Snapshots that the store does not hold any more.
    pub freed: u64,
    pub archive: Option<PathBuf>,
    /// What is wrong with the archive.
    pub problems: Vec<String>,
}

/// How often it is looked again which snapshots can go, while others use them.
const FREE_TRIES: usize = 10;
const FREE_PAUSE: Duration = Duration::from_millis(20);

/// Increments on their way to archives.
#[derive(Clone, Copy)]
pub struct Rolls<'a> {
    pub(super) daemon: &'a Daemon,
}

impl<'a> Rolls<'a> {
    /// Takes a snapshot, saves what changed since the ones before to the archive, and frees these when asked.
    pub fn roll(self, views: &Views, options: &RollOptions, progress: OnProgress<'_>) -> Result<RollReport> {
        let _rolling = self.begin()?;
        let options = &self.located(options)?;
        if options.archive.is_some() {
            // A name that is taken is found before an archive is made and attached.
            views.rehearsing().snapshots().take_all(&[views.base()], request(options))?;
        }
        let archive = self.prepare_roll(views, options, progress)?;
        let taken = views.snapshots().take_all(&[views.base()], request(options))?;
        let taken = taken.into_iter().next().ok_or(Error::Posix(Errno::NOENT))?;
        self.roll_taken(views, (&taken, archive), options, progress)
    }

    /// Rolls, and other changes of archives, one after the other.
    pub(super) fn begin(self) -> Result<MutexGuard<'a, ()>> {
        let text = "a roll, or another change of an archive, of this store is running; wait for its end";
        let busy = || refused(Errno::BUSY, text.into());
        self.daemon.rolling.try_lock().ok_or_else(busy)
    }

    /// With the path of the archive as it is found outside the store.
    fn located(self, options: &RollOptions) -> Result<RollOptions> {
        let archive = options.archive.as_deref().map(|given| self.daemon.outside_to_make(given)).transpose()?;
        Ok(RollOptions { archive, ..options.clone() })
    }

    /// What can fail is done, and what takes time, before a snapshot is taken; the archive to roll to, if there is one.
    fn prepare_roll(
        self,
        views: &Views,
        options: &RollOptions,
        progress: OnProgress<'_>,
    ) -> Result<Option<Arc<Archive>>> {
        let archive = self.archive_to_roll(views, options.archive.as_deref(), progress)?;
        while views.tree().device().look()?.noted_work().is_settling(views.base())? {
            views.tree().settle_step()?;
            progress(&Progress::default())?;
        }
        Ok(archive)
    }

    /// The rest of a roll, when its snapshot is taken.
    fn roll_taken(
        self,
        views: &Views,
        (taken, archive): (&Snapshot, Option<Arc<Archive>>),
        options: &RollOptions,
        progress: OnProgress<'_>,
    ) -> Result<RollReport> {
        let mut report = RollReport { snapshot: taken.record.name.clone(), ..RollReport::default() };
        match &archive {
            Some(archive) => {
                let saving = self.begin_saving(views, archive)?;
                let saved = self
                    .deactivate_before(views, taken)
                    .and_then(|()| self.save_increments(views, archive, &saving, &mut report, progress));
                // Whatever came of it, what was to be saved is protected no longer than this takes.
                let noted = self.end_saving(views, archive, saving.len());
                saved.and(noted)?;
                report.archive = Some(archive.path().to_path_buf());
                report.problems = super::archives::problems_of(&archive.broken());
                report.problems.extend(archive.remove_leftovers());
            }
            None => self.deactivate_before(views, taken)?,
        }
        if let Some(keep) = options.keep {
            report.freed = self.free_old(views, archive.as_deref(), keep)?;
        }
        note_upkeep(views, Upkeep::Roll, report.problems.len() as u64);
        Ok(report)
    }

    fn deactivate_before(self, views: &Views, taken: &Snapshot) -> Result<()> {
        views.snapshots().deactivate_active(&active_before(views.snapshots().all()?, taken))
    }

    /// The archive to roll to, which is as the store left it; `None` where none is attached or given.
    fn archive_to_roll(
        self,
        views: &Views,
        given: Option<&Path>,
        progress: OnProgress<'_>,
    ) -> Result<Option<Arc<Archive>>> {
        match (attached(views, given)?, given) {
            (None, None) => return Ok(None),
            (None, Some(path)) => {
                let place = Place::open_or_make(path)?;
                let writable = check_writable(&place.directory);
                if let Err(error) =
                    writable.and_then(|()| self.daemon.archives().attach(views, &place.directory, progress))
                {
                    place.give_up();
                    return Err(error);
                }
            }
            (Some(_), _) => self.daemon.archives().look_again(views)?,
        }
        let record = views.tree().device().look()?.base_record(views.base())?.archive.clone();
        let record = record.ok_or(Error::Posix(Errno::NOENT))?;
        let archive = self.daemon.archives().open_attached(views, &record)?;
        check_writable(archive.directory())?;
        check_continues(&archive.reach(), Some(&record))?;
        check_names_are_free(archive.directory(), &archive.reach(), views.snapshots().all()?)?;
        Ok(Some(archive))
    }

    /// What is not in the archive yet, the oldest first. None of it can be deleted until it is saved: the increment
    /// after it would lead nowhere.
    fn begin_saving(self, views: &Views, archive: &Archive) -> Result<Vec<Snapshot>> {
        loop {
            let all = unsaved(&archive.reach(), views.snapshots().all()?);
            if all.len() < 2 {
                return Ok(all);
            }
            match self.note_archive(views, archive, &all) {
                // One of them was deleted meanwhile.
                Err(error) if error.is_gone() => {}
                result => return result.map(|()| all),
            }
        }
    }

    /// Notes how far the archive leads, and what is being saved to it or, if that is nothing, which times it has.
    pub(super) fn note_archive(self, views: &Views, archive: &Archive, saving: &[Snapshot]) -> Result<()> {
        let before = self.daemon.archives().record(views)?.filter(|before| before.id == archive.id());
        let record = ArchiveRecord {
            hosts: host::with_this(before.map(|before| before.hosts).unwrap_or_default()),
            directory: archive.path().to_path_buf(),
            id: archive.id(),
            anchor: archive.tip().map(|tip| SnapshotRef { epoch: tip.epoch, id: tip.id }),
            saving: saving.iter().map(Snapshot::as_ref).collect(),
        };
        // What is being saved changes nothing about the times that there are.
        let times = saving.is_empty().then(|| archive.marks_after(Epoch::ZERO));
        views.set_archive(Some(record), times.as_deref())
    }

    fn save_increments(
        self,
        views: &Views,
        archive: &Arc<Archive>,
        saving: &[Snapshot],
        report: &mut RollReport,
        progress: OnProgress<'_>,
    ) -> Result<()> {
        let mut save = |pair: &[Snapshot]| -> Result<()> {
            let mut tell = |bytes| progress(&Progress { files: 0, bytes, total_bytes: 0 });
            archive.check_there()?;
            let ends = (&pair[0], &pair[1]);
            let saved = views.tree().device().archiving().save_increment(archive.directory(), ends, LEVEL, &mut tell);
            let saved = saved.map_err(|error| not_saved(saving, &pair[0], explain_no_room(archive.path(), error)))?;
            report.saved += 1;
            report.saved_bytes += saved.bytes;
            archive.append(saved, &mut |_| Ok(()))
        };
        saving.windows(2).try_for_each(&mut save)
    }

    /// Notes how far the archive leads now: the snapshots before are given up only when this is durable.
    fn end_saving(self, views: &Views, archive: &Archive, saving: usize) -> Result<()> {
        if saving < 2 {
            return self.note_archive_if_new(views, archive);
        }
        let packed = archive.pack();
        self.note_archive(views, archive, &[]).and(packed)
    }

    /// Nothing was to be saved: what the archive has is noted where the store does not know it.
    pub(super) fn note_archive_if_new(self, views: &Views, archive: &Archive) -> Result<()> {
        let known = views.tree().device().look()?.moments().known_archived(views.base())?;
        if known == archive.marks_after(Epoch::ZERO) { Ok(()) } else { self.note_archive(views, archive, &[]) }
    }

    /// Deletes the oldest snapshots but `keep`, as far as the archive has them, or there is none.
    fn free_old(self, views: &Views, archive: Option<&Archive>, keep: u64) -> Result<u64> {
        for _ in 0..FREE_TRIES {
            match self.free_old_once(views, archive, keep) {
                // Somebody deleted one of them meanwhile, or came to need it.
                Err(error) if matches!(error.errno(), Errno::NOENT | Errno::BUSY) => {
                    std::thread::sleep(FREE_PAUSE);
                }
                result => return result,
            }
        }
        self.free_old_once(views, archive, keep)
    }

    fn free_old_once(self, views: &Views, archive: Option<&Archive>, keep: u64) -> Result<u64> {
        if let Some(archive) = archive {
            archive.check_there()?;
        }
        let reach = archive.map(Archive::reach);
        let is_saved = |snapshot: &Snapshot| reach.as_ref().is_none_or(|reach| is_done_with(reach, snapshot));
        let freed = to_free(views, views.snapshots().all()?, keep, is_saved)?;
        let names: Vec<&[u8]> = freed.iter().map(|snapshot| snapshot.record.name.as_bytes()).collect();
        if !names.is_empty() {
            views.deletions().delete(&names)?;
        }
        Ok(names.len() as u64)
    }
}

/// What is damaged in words, since nothing can be rolled until something is done about it.
fn not_saved(saving: &[Snapshot], from: &Snapshot, error: Error) -> Error {
    let Error::Corrupt { .. } = error else { return error };
    let name = &from.record.name;
    let taken = saving.last().map_or("", |taken| taken.record.name.as_str());
    let text = format!(
        "{error}; so what {name:?} showed cannot be saved, nor what is newer than it. `pitfs check` names the files; when the \
         snapshots that show them are deleted, such as {name:?}, `pitfs roll` goes on. {taken:?} was taken and stays"
    );
    refused(Errno::IO, text)
}

/// The archive that is attached to a base that can be rolled; refused where another one is given.
fn attached(views: &Views, given: Option<&Path>) -> Result<Option<ArchiveRecord>> {
    let record = views.tree().device().look()?.base_record(views.base())?.clone();
    if record.eras.iter().any(|era| era.source.base != views.base()) {
        let name = &record.name;
        let text = format!("{name:?} depends on a snapshot of another base; `pitfs promote {name}` comes first");
        return Err(refused(Errno::INVAL, text));
    }
    match (&record.archive, given) {
        (Some(attached), Some(given)) if given != attached.directory => Err(attached_already(attached)),
        _ => Ok(record.archive),
    }
}

/// The snapshot that a roll takes.
fn request(options: &RollOptions) -> SnapRequest<'_> {
    let name = options.name.as_ref().map(|name| name.as_slice());
    let snapshot = SnapOptions { purpose: Purpose::Roll, ..SnapOptions::default() };
    SnapRequest { name, options: snapshot, keep: options.keep }
}

/// The snapshots before one that a roll deactivates.
fn active_before(mut all: Vec<Snapshot>, taken: &Snapshot) -> Vec<Snapshot> {
    all.retain(|earlier| {
        earlier.epoch < taken.epoch && earlier.record.state == SnapshotState::Active && !earlier.record.held
    });
    all
}

/// The snapshots between which an archive has nothing yet: what changed from each to the next is to be saved.
fn unsaved(archive: &Reach, mut all: Vec<Snapshot>) -> Vec<Snapshot> {
    let anchor = archive.tip.as_ref().map_or(Epoch::ZERO, |tip| tip.epoch);
    all.retain(|snapshot| snapshot.epoch >= anchor && snapshot.is_readable());
    all
}

/// The oldest snapshots but `keep` that nothing wants, as far as they are saved.
fn to_free(
    views: &Views,
    mut all: Vec<Snapshot>,
    keep: u64,
    is_saved: impl Fn(&Snapshot) -> bool,
) -> Result<Vec<Snapshot>> {
    all.truncate(all.len().saturating_sub(usize::try_from(keep.max(1)).unwrap_or(usize::MAX)));
    let save = views.snapshots().newest_save()?.map(|save| save.record.id);
    let needed = views.tree().device().look()?.all_dependants()?;
    all.retain(|snapshot| {
        let stands = snapshot.record.held || save == Some(snapshot.record.id);
        is_saved(snapshot) && !stands && !needed.contains_key(&snapshot.point())
    });
    Ok(all)
}

/// Whether the archive needs a snapshot no more: what has ended was never saved.
fn is_done_with(archive: &Reach, snapshot: &Snapshot) -> bool {
    snapshot.is_readable() && archive.is_done_with(&snapshot.mark())
}

/// That nothing has the name of an increment that is to be saved: as it was not found in the chain, it cannot be read.
fn check_names_are_free(directory: &Directory, archive: &Reach, all: Vec<Snapshot>) -> Result<()> {
    for pair in unsaved(archive, all).windows(2) {
        let name = file_name(&pair[0].mark(), &pair[1].mark());
        let path = directory.path().join(&name);
        let found = directory.kind(&name);
        if found.map_err(|error| Error::media(format!("looking at {}", shown_file(&path)), error))?.is_some() {
            let text = format!(
                "{} exists and cannot be read as the increment that it should be. Nothing was changed. Put a whole one in its \
                 place, or remove it: what the store has of it is saved again then",
                shown_file(&path)
            );
            return Err(refused(Errno::EXIST, text));
        }
    }
    Ok(())
}

/// Whether the archive does not lead to where the store left it.
pub(super) fn has_lost_newest(archive: &Reach, record: Option<&ArchiveRecord>) -> bool {
    let anchor = record.and_then(|record| record.anchor);
    anchor.is_some_and(|anchor| archive.tip.as_ref().is_none_or(|tip| tip.epoch < anchor.epoch))
}

/// That the archive leads to where the store left it, and no further.
pub(super) fn check_continues(archive: &Reach, record: Option<&ArchiveRecord>) -> Result<()> {
    let shown = shown_file(&archive.directory);
    let tip = &archive.tip;
    let leads_to = |tip: &Option<crate::archive::Mark>| match tip {
        Some(tip) => format!("leads to {:?} ({})", tip.name, tip.time.as_text()),
        None => "leads to nothing that the store has".into(),
    };
    if has_lost_newest(archive, record) {
        let text = format!(
            "the archive {shown} has lost its newest increments: it {}, and the store had saved more to it. Put them back \
             (they may be in the directory below a mount point: `pitfs archive join DIR` takes them in). `pitfs archive attach \
             {shown}` goes on from what is there, if the store has that, and `pitfs archive detach` gives the archive up",
            leads_to(tip)
        );
        return Err(refused(Errno::NOENT, text));
    }
    if let Some(beyond) = archive.beyond() {
        let text = format!(
            "the archive {shown} has gone on without this store: it has increments up to {:?} ({}), and for this store it {}. \
             This store is an older copy of the one that saved them, or that one is a copy of this. Nothing was changed. To go \
             on here, `pitfs archive detach` and roll to another directory; copy the increments up to there into it first, with \
             the file `archive`, to keep older times",
            beyond.name,
            beyond.time.as_text(),
            leads_to(tip)
        );
        return Err(refused(Errno::BUSY, text));
    }
    Ok(())
}
