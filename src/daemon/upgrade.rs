//! Bringing a store to the present format, and back until that is confirmed.
//!
//! ```text
//! format 3 ──▶ upgrading ──records, one commit──▶ upgraded ──confirm──▶ format 4
//!    ▲                                               │ undo
//!    └──────── going back ◀──────────────────────────┘
//! ```
//!
//! The file `store` says where a store is on the way: what was interrupted is done again, or undone. Only this does it, never a
//! mount. Before anything is touched all of it is tried over the store's files, which tells how much room it takes.

use super::archives::{is_without_archive, open_there};
use super::identity::{FORMAT, Identity, OLDEST, Step, open_directory, read_identity, write_identity};
use super::{Daemon, Lock, OnProgress, Use, host};
use crate::archive::{Label, Survey, check_writable, lock, not_there, remove_index};
use crate::device::{self, ArchiveRecord, BaseId, BaseRecord, SnapshotRef};
use crate::error::{Errno, Error, Result};
use crate::media::{Directory, DiskDir, MediaDir, ScratchDir};
use crate::meta::Reserve;
use crate::shown::shown_file;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What became of a store and of the archives that it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpgradeReport {
    pub from: u32,
    pub to: u32,
    /// It can still be undone.
    pub can_be_undone: bool,
    pub archives: Vec<PathBuf>,
    /// What could not be brought over, and what to do.
    pub problems: Vec<String>,
    /// What was done in the present format that the older one has no words for.
    pub dropped: Vec<String>,
}

fn media_of(directory: &Arc<Directory>) -> Arc<dyn MediaDir> {
    Arc::new(DiskDir::of(directory.clone()))
}

/// Brings a store that nobody has open to the present format, with the archives that are attached, where they are
/// or in the directory given: that of the only archive, or one that has the archive of each base under the base's name.
pub fn upgrade(path: &Path, archive: Option<&Path>, progress: OnProgress<'_>) -> Result<UpgradeReport> {
    let directory = open_directory(path)?;
    let lock = Lock::take(&directory, &Use::Command)?;
    let found = read_identity(&directory)?;
    archive.map_or(Ok(()), check_has_archives)?;
    let mut report = UpgradeReport { from: found.format, to: FORMAT, ..UpgradeReport::default() };
    if found.step == Step::Upgrading || found.format < FORMAT {
        report.from = OLDEST;
        if found.step != Step::Upgrading {
            check_upgrade(&directory)?;
        }
        write_step(&directory, Identity { format: FORMAT, step: Step::Upgrading })?;
        device::upgrade(&media_of(&directory))?;
        write_step(&directory, Identity { format: FORMAT, step: Step::Upgraded })?;
    } else if found.step == Step::Undoing {
        let text = "going back to format 3 was interrupted; `pitfs upgrade --undo` completes it";
        return Err(Error::Store(text.into()));
    }
    report.can_be_undone = read_identity(&directory)?.step == Step::Upgraded;
    // What is not where it was would be missed twice.
    let daemon = Daemon::open_without_archives(lock, DiskDir::of)?;
    let mut is_used = false;
    for attached in attached(&daemon)? {
        let views = daemon.views().of(attached.base);
        let directory = place_of(&daemon, &attached, archive)?;
        is_used |= archive.is_some_and(|given| directory.starts_with(given));
        match daemon.archives().attach_there(&views, &directory, progress) {
            Ok(_) => report.archives.push(directory),
            Err(error) => {
                report.problems.push(format!(
                    "the archive {} was not brought over: {error}; `pitfs archive attach DIR` does that when it is there",
                    shown_file(&directory)
                ));
                // Whoever upgrades here has said where it is.
                if let Some(record) = daemon.archives().record(&views)? {
                    let hosts = host::with_this(record.hosts.clone());
                    views.set_archive(Some(ArchiveRecord { hosts, ..record }), None)?;
                }
            }
        }
    }
    if let Some(given) = archive.filter(|_| !is_used) {
        let given = shown_file(given);
        report.problems.push(format!("no base of this store has its archive in {given}, or in a directory there"));
    }
    daemon.complete_what_was_begun();
    daemon.close()?;
    Ok(report)
}

/// Where an archive is: in the directory given or, where that is none of this base, below it as `roll --group` lays them
/// out, or else where it was.
fn place_of(daemon: &Daemon, attached: &Attached, given: Option<&Path>) -> Result<PathBuf> {
    let Some(given) = given else { return Ok(attached.directory.clone()) };
    let views = daemon.views().of(attached.base);
    let below = given.join(views.base_name()?);
    for place in [given, &below, &attached.directory] {
        if let Ok(Some(directory)) = open_there(place)
            && daemon.archives().is_archive_of(&views, &directory)
        {
            return Ok(place.to_path_buf());
        }
    }
    // What is wrong with it is said when it is attached.
    let is_one = |directory: Arc<Directory>| is_without_archive(&directory).is_ok_and(|without| !without);
    let is_given = open_there(given).is_ok_and(|found| found.is_some_and(is_one));
    Ok(if is_given { given.to_path_buf() } else { below })
}

/// Brings a store back to the format from which it was upgraded, with what was done since.
pub fn undo_upgrade(path: &Path) -> Result<UpgradeReport> {
    let directory = open_directory(path)?;
    let mut lock = Lock::take(&directory, &Use::Command)?;
    let found = read_identity(&directory)?;
    let mut report = UpgradeReport { from: FORMAT, to: OLDEST, ..UpgradeReport::default() };
    match found.step {
        Step::Upgraded => {
            // What is in the journal is in the tables when it is closed.
            let daemon = Daemon::open_locked(lock)?;
            let archives = attached(&daemon)?;
            daemon.close()?;
            drop(daemon);
            lock = Lock::take(&directory, &Use::Command)?;
            if read_identity(&directory)? != found {
                let text = "the store was upgraded, confirmed or undone by somebody else meanwhile";
                return Err(Error::Refused(Errno::BUSY, text.into()));
            }
            // All of them are there, and nobody else's, before anything is changed in one.
            let held = archives.iter().map(Attached::hold_to_go_back).collect::<Result<Vec<_>>>()?;
            for (directory, _) in &held {
                remove_index(directory)?;
                Label::remove(directory)?;
            }
            report.archives = archives.into_iter().map(|archive| archive.directory).collect();
        }
        Step::Undoing | Step::Upgrading => {}
        Step::None => {
            let text = match found.format {
                FORMAT => "there is no upgrade to be undone: it was confirmed, or the store was made in this format",
                _ => "the store was not upgraded; there is nothing to be undone",
            };
            return Err(Error::Refused(Errno::INVAL, text.into()));
        }
    }
    write_step(&directory, Identity { format: FORMAT, step: Step::Undoing })?;
    report.dropped = device::downgrade(&media_of(&directory))?;
    write_step(&directory, Identity { format: OLDEST, step: Step::None })?;
    drop(lock);
    Ok(report)
}

/// Whether the store was brought over and can still go back.
pub(super) fn can_be_undone(daemon: &Daemon) -> Result<bool> {
    Ok(read_identity(daemon.lock.directory())?.step == Step::Upgraded)
}

/// Ends the time in which an upgrade can be undone.
pub fn confirm_upgrade(path: &Path) -> Result<UpgradeReport> {
    let directory = open_directory(path)?;
    let _lock = Lock::take(&directory, &Use::Command)?;
    match read_identity(&directory)? {
        Identity { format: FORMAT, step: Step::Upgraded } => {
            write_step(&directory, Identity { format: FORMAT, step: Step::None })?;
            Ok(UpgradeReport { from: OLDEST, to: FORMAT, ..UpgradeReport::default() })
        }
        _ => Err(Error::Refused(Errno::INVAL, "there is no upgrade to be confirmed".into())),
    }
}

/// That a directory has an archive, or has directories that have.
fn check_has_archives(given: &Path) -> Result<()> {
    let failed = |error| Error::media(format!("listing {}", shown_file(given)), error);
    // What cannot be read as one may be a damaged one: that is said when it is attached.
    let may_be = |directory: &Directory| !is_without_archive(directory).is_ok_and(|without| without);
    if let Some(directory) = open_there(given)? {
        if may_be(&directory) {
            return Ok(());
        }
        for name in directory.names().map_err(failed)? {
            if open_there(&given.join(name)).map_or(true, |found| found.is_some_and(|below| may_be(&below))) {
                return Ok(());
            }
        }
    }
    let text = format!(
        "there is no archive in {}, nor in a directory there that has the name of a base. Nothing was changed; is its disk mounted?",
        shown_file(given)
    );
    Err(Error::Refused(Errno::NOENT, text))
}

/// What else is written than records: the file `store`.
const STEP_BYTES: u64 = 64 << 10;

/// That a store can be brought over, and back: it is tried, and there is room for both.
fn check_upgrade(directory: &Arc<Directory>) -> Result<()> {
    let path = directory.path();
    let scratch = Arc::new(ScratchDir::over(directory.clone()));
    device::upgrade(&(scratch.clone() as Arc<dyn MediaDir>))?;
    let failed = |error| Error::media(format!("looking at {}", shown_file(path)), error);
    let disk = media_of(directory);
    let free = disk.room().map_err(failed)?.available + Reserve::bytes_in(&*disk).map_err(failed)?;
    let needed = 2 * (scratch.written_bytes() + STEP_BYTES);
    if free < needed {
        let text = format!(
            "bringing the store {} over, and back if that is wanted, takes up to {} KiB of room, and {} are free: nothing was changed; \
             make room on its disk first",
            shown_file(path),
            needed.div_ceil(1024),
            free / 1024
        );
        return Err(Error::Refused(Errno::NOSPC, text));
    }
    Ok(())
}

/// Notes where the store is on the way, with room of the reserve where the disk is full.
fn write_step(directory: &Arc<Directory>, identity: Identity) -> Result<()> {
    loop {
        match write_identity(directory, identity) {
            Err(error) if error.is_no_space() => {
                let reserve = Reserve::open(media_of(directory)).and_then(|reserve| reserve.give_up_some());
                if !reserve.is_ok_and(|gave| gave) {
                    return Err(error);
                }
            }
            result => return result,
        }
    }
}

/// An archive that a store knows.
struct Attached {
    base: BaseId,
    directory: PathBuf,
    /// What its directory has to say of itself.
    label: Label,
    /// The snapshot that its newest increment leads to.
    anchor: Option<SnapshotRef>,
}

fn attached(daemon: &Daemon) -> Result<Vec<Attached>> {
    let device = daemon.views().tree().device();
    let (look, store) = (device.look()?, device.settings().id);
    let of = |(base, record): (BaseId, &BaseRecord)| {
        let archive = record.archive.as_ref()?;
        let label = Label { archive: archive.id, store, base: record.id };
        Some(Attached { base, directory: archive.directory.clone(), label, anchor: archive.anchor })
    };
    Ok(look.bases().filter_map(of).collect())
}

impl Attached {
    /// Takes the archive, for as long as the file is open, if format 3 can go on with it: it is there, no other one, in use by
    /// nobody, and has nothing that format 3 does not read.
    fn hold_to_go_back(&self) -> Result<(Arc<Directory>, File)> {
        let path = &self.directory;
        let shown = shown_file(path);
        if path.to_str().is_none() {
            let text = format!(
                "format 3 cannot name the archive {shown}, which is not UTF-8; `pitfs archive detach` comes first"
            );
            return Err(Error::Refused(Errno::INVAL, text));
        }
        let directory = open_there(path)?.ok_or_else(|| not_there(path))?;
        let label = Label::read(&directory)?;
        if label.is_some_and(|label| label != self.label) {
            let text = format!(
                "{shown} is another archive than the one that is attached. Nothing was changed. Put that one back, mount its disk \
                 there, or give it up with `pitfs archive detach`"
            );
            return Err(Error::Refused(Errno::INVAL, text));
        }
        let held = lock(&directory)?;
        let Survey { mut increments, .. } = Survey::of(&directory)?;
        let newer = increments.iter().filter(|increment| !increment.is_of_format_3()).count();
        if newer > 0 {
            let text = format!(
                "{newer} increments were saved to {shown} since, which format 3 could not read. Nothing was changed. `pitfs archive detach` \
                 lets the store go back without the archive; brought over again, it can attach it, as long as it has the snapshot to \
                 which the archive leads"
            );
            return Err(Error::Refused(Errno::BUSY, text));
        }
        let Label { store, base, .. } = self.label;
        increments.retain(|increment| (increment.header.store, increment.header.base_id) == (store, base));
        let has = |anchor: SnapshotRef| increments.iter().any(|increment| increment.header.to.id == anchor.id);
        match (self.anchor, label) {
            (Some(anchor), _) if has(anchor) => {}
            // Nothing was saved to it yet: only the label says which it is.
            (None, Some(_)) => {}
            (Some(_), Some(_)) => {
                let text = format!(
                    "the archive {shown} has lost its newest increments, with which format 3 would go on. Nothing was changed. Put them \
                     back, or give the archive up with `pitfs archive detach`"
                );
                return Err(Error::Refused(Errno::NOENT, text));
            }
            // One that was never there since the upgrade has no label, and is told by its increments.
            (_, None) => return Err(not_there(path)),
        }
        check_writable(&directory)?;
        Ok((directory, held))
    }
}
