//! The archives of a store: attaching, looking at them, and what is wrong with them.
//!
//! ```text
//! attach ─▶ open ─▶ (look again) ─▶ detach
//!             └─ not there, another one, in use: its times are missing, and the reason is told
//! ```
//!
//! The store knows an archive by its id and by the snapshot that its newest increment leads to, never by its path alone:
//! where a disk is not mounted, an empty directory has the path.

mod info;
mod place;
mod verify;

pub(super) use info::problems_of;
pub(super) use place::{Place, check_nothing_at, leads_nowhere, open_there};

use super::upgrade::can_be_undone;
use super::{Daemon, OnProgress, Progress, host};
use crate::archive::{
    Archive, Increment, Label, Reach, Survey, before_ids, check_writable, has_index, not_there, open_named,
    remove_index,
};
use crate::clock::{Epoch, Timestamp};
use crate::device::{ArchiveRecord, BaseId, index_entry};
use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::media::Directory;
use crate::purpose::Purpose;
use crate::shown::shown_file;
use crate::view::Views;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What there is to be said of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveInfo {
    pub directory: PathBuf,
    pub base: String,
    pub increments: Vec<IncrementInfo>,
    pub bytes: u64,
    /// What is wrong, and which times cannot be reached for it.
    pub problems: Vec<String>,
    /// Increments that were verified and are whole, and their bytes.
    pub whole: u64,
    pub whole_bytes: u64,
    /// Times that it had and that cannot be read from it now.
    pub missing: Vec<MissingTime>,
}

/// A time that an archive had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingTime {
    pub name: String,
    pub time: Timestamp,
    pub epoch: Epoch,
    pub purpose: Purpose,
}

/// An archive that is not attached any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detached {
    pub directory: PathBuf,
    /// The snapshot through which it is read.
    pub leads_to: Option<String>,
    /// What there is to be known before the store goes back to format 3.
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncrementInfo {
    pub name: String,
    pub time: Timestamp,
    pub epoch: Epoch,
    pub bytes: u64,
    pub file: PathBuf,
    pub purpose: Purpose,
    /// Whether its time can be reached from the store.
    pub is_reachable: bool,
    /// Whether it was found to be damaged: what its time showed cannot be relied on, as far as that is in it.
    pub is_damaged: bool,
    /// The file into which it was merged: it is left over, and goes with the next roll, prune or merge.
    pub merged_into: Option<PathBuf>,
}

impl IncrementInfo {
    fn file_name(&self) -> &str {
        self.file.file_name().and_then(OsStr::to_str).unwrap_or_default()
    }
}

pub(super) fn refused(errno: Errno, text: String) -> Error {
    Error::Refused(errno, text)
}

/// Who an archive's increments have to be of.
#[derive(Clone, Copy)]
struct Origin {
    store: Id,
    base: Id,
    hash_seed: u64,
}

impl Origin {
    fn is_of(&self, increment: &Increment) -> bool {
        (increment.header.store, increment.header.base_id) == (self.store, self.base)
    }
}

impl ArchiveInfo {
    /// Notes what is wrong with an increment, and the times that it costs.
    fn note_damage(&mut self, at: usize, error: &Error) {
        let (first, damaged) = (self.increments[0].time.as_text(), &mut self.increments[at]);
        damaged.is_damaged = true;
        let last = damaged.time.as_text();
        self.problems.push(format!("{error}; the times from {first} to {last} cannot be relied on"));
    }
}

/// The archives of a store.
#[derive(Clone, Copy)]
pub struct Archives<'a> {
    pub(super) daemon: &'a Daemon,
}

impl Archives<'_> {
    fn origin(self, views: &Views) -> Result<Origin> {
        let look = views.tree().device().look()?;
        let settings = views.tree().device().settings();
        let base = look.base_record(views.base())?.id;
        Ok(Origin { store: settings.id, base, hash_seed: settings.hash_seed })
    }

    pub(super) fn attached(self, views: &Views) -> Option<Arc<Archive>> {
        views.tree().device().look().ok().and_then(|look| look.archive(views.base()))
    }

    pub(super) fn record(self, views: &Views) -> Result<Option<ArchiveRecord>> {
        Ok(views.tree().device().look()?.base_record(views.base())?.archive.clone())
    }

    /// Attaches an archive that is there: one that is not may be on a disk that is not mounted, and a new one in its place would
    /// let the store go on without it.
    pub fn attach_existing(self, views: &Views, directory: &Path, progress: OnProgress<'_>) -> Result<ArchiveInfo> {
        let _changing = self.daemon.rolls().begin()?;
        self.attach_there(views, &self.daemon.outside(directory)?, progress)
    }

    /// [`Archives::attach`] for the directory at a path, which is not made.
    pub(super) fn attach_there(self, views: &Views, path: &Path, progress: OnProgress<'_>) -> Result<ArchiveInfo> {
        let attached = self.record(views)?;
        let without = |what| {
            let text = format!(
                "there is {what} {}; if its disk is not mounted, mount it, and to begin an archive there, \
                 `pitfs roll --archive` makes it",
                shown_file(path)
            );
            refused(Errno::NOENT, text)
        };
        let Some(directory) = open_there(path)? else {
            check_nothing_at(path)?;
            return Err(attached.map_or_else(|| without("no directory"), |attached| not_that_one(&attached, path)));
        };
        if attached.is_none() && is_without_archive(&directory)? {
            return Err(without("no archive in"));
        }
        self.attach(views, &directory, progress)
    }

    /// Opens an archive for a base and lets its times be seen. One that is attached already is looked at anew, also where
    /// it lies elsewhere now, and the store goes on from what it leads to.
    pub(super) fn attach(
        self,
        views: &Views,
        directory: &Arc<Directory>,
        progress: OnProgress<'_>,
    ) -> Result<ArchiveInfo> {
        let attached = self.record(views)?;
        let label = self.label_of(views, directory, attached.as_ref())?;
        let archive = self.change_times(views, || self.attach_anew(views, directory, label, attached, progress))?;
        self.info_of(views, &archive)
    }

    fn attach_anew(
        self,
        views: &Views,
        directory: &Arc<Directory>,
        label: Label,
        attached: Option<ArchiveRecord>,
        progress: OnProgress<'_>,
    ) -> Result<Arc<Archive>> {
        let archive = match attached {
            Some(attached) if attached.id != label.archive => return Err(attached_already(&attached)),
            // Whoever reads in it goes on, and has it open.
            Some(attached) if attached.directory == directory.path() => {
                let archive = self.open_told(views, &attached)?;
                let device = views.tree().device();
                archive.refresh(&|mark| device.archiving().holds(views.base(), mark), &mut |_| Ok(()))?;
                archive
            }
            Some(_) => {
                views.tree().device().archiving().set_archive(views.base(), None);
                Arc::new(self.open_archive(views, directory, label, progress)?)
            }
            None => Arc::new(self.open_archive(views, directory, label, progress)?),
        };
        check_leads_somewhere(&archive.reach())?;
        self.daemon.rolls().note_archive(views, &archive, &[])?;
        views.tree().device().archiving().set_archive(views.base(), Some(archive.clone()));
        Ok(archive)
    }

    /// The label of an archive for this base; made where there is none and nothing of others is in the directory.
    fn label_of(self, views: &Views, directory: &Directory, attached: Option<&ArchiveRecord>) -> Result<Label> {
        let (label, is_there) = self.label_for(views, directory, attached)?;
        if !is_there {
            check_writable(directory)?;
            label.create(directory)?;
        }
        Ok(label)
    }

    /// The label that a directory has or should have, and whether it has.
    fn label_for(
        self,
        views: &Views,
        directory: &Directory,
        attached: Option<&ArchiveRecord>,
    ) -> Result<(Label, bool)> {
        let origin = self.origin(views)?;
        let shown = shown_file(directory.path());
        if let Some(label) = Label::read(directory)? {
            check_owner(&label, &origin, directory.path())?;
            return Ok((label, true));
        }
        let Survey { increments, .. } = Survey::of(directory)?;
        if let Some(foreign) = increments.iter().find(|increment| !origin.is_of(increment)) {
            let text = format!(
                "{shown} has increments of another store or base, such as {}; choose another directory",
                shown_file(&foreign.path)
            );
            return Err(refused(Errno::INVAL, text));
        }
        // What begins an archive makes its index, and takes nobody's file for that.
        if increments.is_empty() && attached.is_none_or(|attached| attached.anchor.is_none()) && has_index(directory)? {
            let text = format!(
                "{shown} has a file that is called as an archive's index is, and no archive: choose another directory, or move that \
                 file away"
            );
            return Err(refused(Errno::EXIST, text));
        }
        let archive = match (increments.is_empty(), attached) {
            // Without a label it is of format 3, or the label was lost.
            (false, None) => before_ids::archive(origin.hash_seed, views.base().number()),
            (false, Some(attached)) => attached.id,
            (true, None) => Id::random(),
            // Nothing was saved to it yet.
            (true, Some(ArchiveRecord { anchor: None, id, .. })) => *id,
            (true, Some(attached)) => return Err(not_that_one(attached, directory.path())),
        };
        Ok((Label { archive, store: origin.store, base: origin.base }, false))
    }

    /// Whether a directory has the archive that is attached to a base, as far as that can be told without opening it.
    pub(super) fn is_archive_of(self, views: &Views, directory: &Directory) -> bool {
        let is = || -> Result<bool> {
            let attached = self.record(views)?;
            let (label, _) = self.label_for(views, directory, attached.as_ref())?;
            Ok(!is_without_archive(directory)? && attached.is_some_and(|attached| label.archive == attached.id))
        };
        is().unwrap_or(false)
    }

    /// What a directory would be to this base as its archive: looked at as [`Archives::attach`] does, and left as it is.
    pub(super) fn reach_of(self, views: &Views, directory: &Directory) -> Result<Reach> {
        let (label, _) = self.label_for(views, directory, None)?;
        let device = views.tree().device();
        let reach = Reach::survey(directory, &label, &|mark| device.archiving().holds(views.base(), mark))?;
        check_leads_somewhere(&reach).map(|()| reach)
    }

    fn open_archive(
        self,
        views: &Views,
        directory: &Arc<Directory>,
        label: Label,
        progress: OnProgress<'_>,
    ) -> Result<Archive> {
        let device = views.tree().device();
        let base = views.base();
        let mut done = 0;
        let mut tell = |bytes| {
            done += bytes;
            progress(&Progress { files: 0, bytes: done, total_bytes: 0 })
        };
        Archive::open(
            directory,
            label,
            base.number(),
            index_entry,
            &|mark| device.archiving().holds(base, mark),
            &mut tell,
        )
    }

    /// The archive that is attached, opened if it is not; an error says why that cannot be. Where it is, the store says: that
    /// counts for whom it is his own, on a machine on which somebody has said so.
    pub(super) fn open_attached(self, views: &Views, record: &ArchiveRecord) -> Result<Arc<Archive>> {
        if self.attached(views).is_none() && !(self.daemon.is_own() && host::is_among(&record.hosts)) {
            let shown = shown_file(&record.directory);
            let text = format!(
                "this store has been elsewhere, and so nothing is read at {shown} only because it says that its archive is there: if it \
                 is, `pitfs archive attach {shown}`"
            );
            return Err(refused(Errno::PERM, text));
        }
        self.open_told(views, record)
    }

    /// The same where whoever asks has said where the archive is.
    fn open_told(self, views: &Views, record: &ArchiveRecord) -> Result<Arc<Archive>> {
        if let Some(archive) = self.attached(views) {
            match archive.check_there() {
                Ok(()) => return Ok(archive),
                // What is below the path now may be the archive all the same.
                Err(_) => views.tree().device().archiving().set_archive(views.base(), None),
            }
        }
        let path = &record.directory;
        let directory = open_there(path)?.ok_or_else(|| not_there(path))?;
        let label = Label::read(&directory)?.ok_or_else(|| missing_label(&directory))?;
        check_owner(&label, &self.origin(views)?, path)?;
        if label.archive != record.id {
            let shown = shown_file(path);
            let text = format!(
                "{shown} is another archive than the one that is attached; put that one back, or `pitfs archive detach`"
            );
            return Err(refused(Errno::INVAL, text));
        }
        let archive = Arc::new(self.open_archive(views, &directory, label, &mut |_| Ok(()))?);
        views.tree().device().archiving().set_archive(views.base(), Some(archive.clone()));
        Ok(archive)
    }

    /// Opens the archives that were attached; one that is not there is left out until it is looked for again.
    pub(super) fn attach_known(self) -> Result<()> {
        let bases: Vec<BaseId> = self.daemon.views.tree().device().look()?.bases().map(|(id, _)| id).collect();
        for base in bases {
            let views = self.daemon.views.of(base);
            if let Some(record) = self.record(&views)?
                && let Err(error) = self.open_attached(&views, &record)
            {
                log::warn!("the archive {} is not shown: {error}", shown_file(&record.directory));
            }
        }
        Ok(())
    }

    /// Looks again what the archive that is attached has, also where it could not be opened until now, and shows
    /// what can be reached again.
    pub(super) fn look_again(self, views: &Views) -> Result<()> {
        let Some(record) = self.record(views)? else { return Ok(()) };
        let device = views.tree().device();
        self.change_times(views, || {
            let archive = self.open_attached(views, &record)?;
            archive.refresh(&|mark| device.archiving().holds(views.base(), mark), &mut |_| Ok(()))
        })
    }

    pub fn detach(self, views: &Views, directory: Option<&Path>) -> Result<Detached> {
        let _changing = self.daemon.rolls().begin()?;
        let directory = self.check_meant(views, directory)?;
        let leads_to = {
            let look = views.tree().device().look()?;
            let anchor = look.base_record(views.base())?.archive.as_ref().and_then(|archive| archive.anchor);
            anchor.map(|anchor| look.moments().snapshot(views.base(), anchor.epoch)).transpose()?.flatten()
        };
        let notes = self.change_times(views, || {
            views.set_archive(None, Some(&[]))?;
            let notes = self.leave_to_format_3(&directory, self.attached(views).as_deref())?;
            views.tree().device().archiving().set_archive(views.base(), None);
            Ok(notes)
        })?;
        Ok(Detached { directory, leads_to: leads_to.map(|snapshot| snapshot.record.name), notes })
    }

    /// Removes the index of an archive that is given up while the store can still go back to format 3, which takes an index of
    /// format 4 for damage. What is left in its way is said.
    fn leave_to_format_3(self, directory: &Path, archive: Option<&Archive>) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        if !can_be_undone(self.daemon)? {
            return Ok(notes);
        }
        let shown = shown_file(directory);
        // Another one in its place is nobody's to change.
        let archive = archive.filter(|archive| archive.check_there().is_ok());
        if archive.is_none_or(|archive| remove_index(archive.directory()).is_err()) {
            notes.push(format!(
                "should `pitfs upgrade --undo` follow: the file {shown}/index is of format 4 and has to be removed before \
                 format 3 attaches the archive"
            ));
        }
        let all = archive.map_or(Vec::new(), |archive| [archive.increments(), archive.others()].concat());
        let newer = all.iter().filter(|increment| !increment.is_of_format_3()).count();
        if newer > 0 {
            notes.push(format!(
                "should `pitfs upgrade --undo` follow: {newer} of its increments were saved since the upgrade, and are read again only \
                 when the store has been brought over once more"
            ));
        }
        Ok(notes)
    }

    /// That the archive given is the one attached.
    fn check_meant(self, views: &Views, directory: Option<&Path>) -> Result<PathBuf> {
        let attached = self.record(views)?.map(|archive| archive.directory);
        let attached = attached.ok_or_else(|| {
            refused(Errno::NOENT, "no archive is attached; `pitfs archive attach DIR` does that".into())
        })?;
        match directory.map(|given| self.daemon.outside(given)).transpose()? {
            Some(given) if given != attached => {
                let text = format!("{} is attached, not {}", shown_file(&attached), shown_file(&given));
                Err(refused(Errno::INVAL, text))
            }
            _ => Ok(attached),
        }
    }

    /// Attaches, shortens or looks at an archive again, and says which times came and went by that.
    pub(super) fn change_times<R>(self, views: &Views, change: impl FnOnce() -> Result<R>) -> Result<R> {
        let before = views.snapshots().with_archived()?;
        let result = change();
        let told = views.times_changed(&before);
        // What went wrong first counts.
        result.and_then(|result| told.map(|()| result))
    }
}

pub(super) fn attached_already(attached: &ArchiveRecord) -> Error {
    let shown = shown_file(&attached.directory);
    let text = format!(
        "{shown} is attached already; if it was moved, `pitfs archive attach` with where it is now takes it on, and for \
         another one `pitfs archive detach` comes first"
    );
    refused(Errno::BUSY, text)
}

/// Nothing is where the archive that is attached should be, or where another one would be.
fn not_that_one(attached: &ArchiveRecord, directory: &Path) -> Error {
    if attached.directory == directory { not_there(directory) } else { attached_already(attached) }
}

/// Whether a directory has nothing of an archive.
pub(super) fn is_without_archive(directory: &Directory) -> Result<bool> {
    if Label::read(directory)?.is_some() {
        return Ok(false);
    }
    let Survey { increments, broken, .. } = Survey::of(directory)?;
    Ok(increments.is_empty() && broken.is_empty())
}

/// The directory has increments and no label, or nothing at all.
fn missing_label(directory: &Directory) -> Error {
    match Survey::of(directory) {
        Ok(found) if !found.increments.is_empty() => {
            let shown = shown_file(directory.path());
            let text = format!(
                "{shown} has increments and no label: they are of format 3, or it was lost; `pitfs archive attach {shown}` makes one"
            );
            refused(Errno::INVAL, text)
        }
        _ => not_there(directory.path()),
    }
}

fn check_owner(label: &Label, origin: &Origin, directory: &Path) -> Result<()> {
    let shown = shown_file(directory);
    let whose = match (label.store == origin.store, label.base == origin.base) {
        (true, true) => return Ok(()),
        (true, false) => "another base of this store",
        (false, _) => "another store",
    };
    let text = format!("{shown} is the archive of {whose}; each base of each store needs a directory of its own");
    Err(refused(Errno::INVAL, text))
}

/// Increments of which none leads to something that the store has are of no use to it.
fn check_leads_somewhere(archive: &Reach) -> Result<()> {
    if archive.tip.is_some() {
        return Ok(());
    }
    let (Some(first), Some(last)) = (archive.others.first(), archive.others.last()) else {
        return match archive.broken.first() {
            Some(broken) => Err(refused(Errno::INVAL, broken.problem.clone())),
            None => Ok(()),
        };
    };
    Err(refused(
        Errno::INVAL,
        format!(
            "the archive leads to the snapshot {:?} ({}), which the store does not hold: its times from {} to {} cannot be reached. Put back what was saved after them, or attach \
             a directory that has it",
            last.header.to.name,
            last.header.to.time.as_text(),
            first.header.from.time.as_text(),
            last.header.from.time.as_text()
        ),
    ))
}

/// Of an archive in which nothing is wrong, but for what was taken from it.
fn removed(directory: &Path, count: usize, last: &MissingTime) -> String {
    let times = if count == 1 { "a time" } else { "times" };
    format!(
        "the archive {} has not any more what it had: {times}, up to {:?} ({}), whose increments were removed; put them back, or the next roll \
         or `pitfs archive prune` forgets them",
        shown_file(directory),
        last.name,
        last.time.as_text()
    )
}
