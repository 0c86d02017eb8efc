//! Rolling increments out to an archive, and the archives of a store.
//!
//! ```text
//! take a snapshot ─▶ deactivate the one before ─▶ save increments, oldest first ─▶ note how far ─▶ free old ones
//! ```
//!
//! A crash in between leaves whole increments only. Which are missing is told by the store's snapshots and by what
//! the archive has, so that running it again goes on where it stopped.

use super::{Daemon, OnProgress, Progress};
use crate::archive::{Archive, LEVEL};
use crate::clock::Timestamp;
use crate::device::{ArchiveRecord, BaseId, Purpose, SnapOptions, Snapshot, SnapshotState, index_entry};
use crate::error::{Errno, Error, Result};
use crate::view::{SnapRequest, Views};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How to roll.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollOptions {
    /// The archive; without one, that which is attached.
    pub archive: Option<PathBuf>,
    /// Snapshots that stay in the store; without a number, all.
    pub keep: Option<u64>,
    /// The new snapshot's name; without one, the time.
    pub name: Option<ByteBuf>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// What there is to be said of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// An archive that is not attached any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detached {
    pub directory: PathBuf,
    /// The snapshot through which it is read.
    pub leads_to: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncrementInfo {
    pub name: String,
    pub time: Timestamp,
    pub epoch: u32,
    pub bytes: u64,
    pub file: PathBuf,
    /// Whether its time can be reached from the store.
    pub is_reachable: bool,
}

fn refused(errno: Errno, text: String) -> Error {
    Error::Refused(errno, text)
}

/// How often it is looked again which snapshots can go, while others use them.
const FREE_TRIES: usize = 10;
const FREE_PAUSE: Duration = Duration::from_millis(20);

impl Daemon {
    /// Takes a snapshot, saves what changed since the ones before to the archive, and frees these when asked.
    pub fn roll(&self, views: &Views, options: &RollOptions, progress: OnProgress<'_>) -> Result<RollReport> {
        let Some(_rolling) = self.rolling.try_lock() else {
            return Err(refused(Errno::BUSY, "another roll of this store is running; wait for its end".into()));
        };
        self.check_rollable(views)?;
        if let Some(directory) = &options.archive {
            self.attach_for_roll(views, directory, progress)?;
        }
        while views.tree().device().look()?.is_settling(views.base())? {
            views.tree().settle_step()?;
            progress(&Progress::default())?;
        }
        let snapshot = SnapOptions { purpose: Purpose::Roll, ..SnapOptions::default() };
        let name = options.name.as_ref().map(|name| name.as_slice());
        let taken = self.snapshot_all(views, &[views.base()], SnapRequest { name, options: snapshot })?;
        let taken = taken.into_iter().next().ok_or(Error::Posix(Errno::NOENT))?;
        let mut report = RollReport { snapshot: taken.record.name.clone(), ..RollReport::default() };
        let archive = self.archive(views);
        let saving = match &archive {
            Some(archive) => self.begin_saving(views, archive)?,
            None => Vec::new(),
        };
        for earlier in views.snapshots()? {
            if earlier.epoch < taken.epoch && earlier.record.state == SnapshotState::Active && !earlier.record.held {
                views.deactivate(earlier.record.name.as_bytes())?;
            }
        }
        if let Some(archive) = archive {
            self.save_increments(views, &archive, &saving, &mut report, progress)?;
            report.archive = Some(archive.directory().to_path_buf());
            report.problems = archive.broken().iter().map(problem_text).collect();
        }
        if let Some(keep) = options.keep {
            report.freed = self.free_old(views, keep)?;
        }
        Ok(report)
    }

    fn archive(&self, views: &Views) -> Option<Arc<Archive>> {
        views.tree().device().look().ok().and_then(|look| look.archive(views.base()))
    }

    fn check_rollable(&self, views: &Views) -> Result<()> {
        let record = views.tree().device().look()?.base_record(views.base())?.clone();
        if record.eras.iter().any(|era| era.source.base != views.base()) {
            let name = &record.name;
            let text = format!("{name:?} depends on a snapshot of another base; `pitfs promote {name}` comes first");
            return Err(refused(Errno::INVAL, text));
        }
        let Some(ArchiveRecord { directory, .. }) = record.archive else { return Ok(()) };
        if directory.is_dir() {
            self.look_again(views)?;
        }
        if self.archive(views).is_none() || !directory.is_dir() {
            let shown = directory.display();
            let text = format!(
                "the archive {shown} is attached and cannot be opened; make it available, or `pitfs archive detach`"
            );
            return Err(refused(Errno::NOENT, text));
        }
        Ok(())
    }

    fn attach_for_roll(&self, views: &Views, directory: &Path, progress: OnProgress<'_>) -> Result<()> {
        if let Some(attached) = self.archive(views) {
            let same = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
            if same(attached.directory()) == same(directory) {
                return Ok(());
            }
            let shown = attached.directory().display();
            let text = format!("{shown} is attached already; `pitfs archive detach` comes first");
            return Err(refused(Errno::BUSY, text));
        }
        self.attach(views, directory, progress).map(|_| ())
    }

    /// What is not in the archive yet, the oldest first. None of it can be deleted until it is saved: the increment
    /// after it would lead nowhere.
    fn begin_saving(&self, views: &Views, archive: &Archive) -> Result<Vec<Snapshot>> {
        loop {
            let anchor = archive.tip().map(|tip| tip.epoch);
            let mut all = views.snapshots()?;
            all.retain(|snapshot| snapshot.epoch >= anchor.unwrap_or(0) && snapshot.is_readable());
            if all.len() < 2 {
                return Ok(all);
            }
            match self.set_anchor(views, archive, anchor, &all) {
                // One of them was deleted meanwhile.
                Err(Error::Refused(Errno::STALE, _)) => {}
                result => return result.map(|()| all),
            }
        }
    }

    fn set_anchor(&self, views: &Views, archive: &Archive, anchor: Option<u32>, saving: &[Snapshot]) -> Result<()> {
        let saving = saving.iter().map(|snapshot| snapshot.epoch).collect();
        views.set_archive(Some(ArchiveRecord { directory: archive.directory().to_path_buf(), anchor, saving }))
    }

    fn save_increments(
        &self,
        views: &Views,
        archive: &Arc<Archive>,
        saving: &[Snapshot],
        report: &mut RollReport,
        progress: OnProgress<'_>,
    ) -> Result<()> {
        let mut save = |pair: &[Snapshot], left: &[Snapshot]| -> Result<()> {
            let mut tell = |bytes| progress(&Progress { files: 0, bytes, total_bytes: 0 });
            let ends = (&pair[0], &pair[1]);
            let summary = views.tree().device().save_increment(archive.directory(), ends, LEVEL, &mut tell)?;
            report.saved += 1;
            report.saved_bytes += summary.bytes;
            archive.refresh(&mut |_| Ok(()))?;
            // The snapshot before is given up only when this is durable.
            self.set_anchor(views, archive, Some(pair[1].epoch), left)
        };
        for (i, pair) in saving.windows(2).enumerate() {
            let is_last = i + 2 == saving.len();
            save(pair, if is_last { &[] } else { &saving[i + 1..] }).or_else(|error| {
                let tip = archive.tip().map(|tip| tip.epoch);
                self.set_anchor(views, archive, tip, &[]).and(Err(error))
            })?;
        }
        Ok(())
    }

    /// Deletes the oldest snapshots but `keep`, as far as the archive has them, or there is none.
    fn free_old(&self, views: &Views, keep: u64) -> Result<u64> {
        for _ in 0..FREE_TRIES {
            match self.free_old_once(views, keep) {
                // Somebody deleted one of them meanwhile, or came to need it.
                Err(error) if matches!(error.errno(), Errno::NOENT | Errno::BUSY) => {
                    std::thread::sleep(FREE_PAUSE);
                }
                result => return result,
            }
        }
        self.free_old_once(views, keep)
    }

    fn free_old_once(&self, views: &Views, keep: u64) -> Result<u64> {
        let archive = self.archive(views);
        let all = views.snapshots()?;
        let many = all.len().saturating_sub(keep.max(1) as usize);
        let mut names: Vec<Vec<u8>> = Vec::new();
        for snapshot in &all[..many] {
            let is_saved = archive.as_ref().is_none_or(|archive| archive.mark(snapshot.epoch).is_some());
            let is_needed = !views.tree().device().look()?.dependants(snapshot.point())?.is_empty();
            if is_saved && !snapshot.record.held && !is_needed {
                names.push(snapshot.record.name.clone().into_bytes());
            }
        }
        let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        if !names.is_empty() {
            views.delete(&names)?;
        }
        for name in &names {
            self.tell_of(views.base(), &String::from_utf8_lossy(name));
        }
        Ok(names.len() as u64)
    }

    /// Opens an archive for a base and lets its times be seen.
    pub fn attach(&self, views: &Views, directory: &Path, progress: OnProgress<'_>) -> Result<ArchiveInfo> {
        if self.archive(views).is_some() {
            return Err(refused(
                Errno::BUSY,
                "an archive is attached already; `pitfs archive detach` comes first".into(),
            ));
        }
        let directory = self.archive_directory(directory)?;
        let archive = self.open_archive(views, &directory, progress)?;
        if let (None, Some(foreign)) = (archive.tip(), archive.broken().first()) {
            return Err(refused(Errno::INVAL, foreign.problem.clone()));
        }
        self.check_tip(views, &archive)?;
        self.set_anchor(views, &archive, archive.tip().map(|tip| tip.epoch), &[])?;
        let archive = Arc::new(archive);
        let info = info_of(views, &archive)?;
        views.tree().device().set_archive(views.base(), Some(archive));
        self.tell_of_all(views, &views.all_snapshots()?);
        Ok(info)
    }

    /// The directory of an archive, made if it is missing; it has to lie outside the store and its mount.
    fn archive_directory(&self, given: &Path) -> Result<PathBuf> {
        let failed = |error| Error::media(format!("making {}", given.display()), error);
        let mut above = given;
        while !above.exists() {
            above = above.parent().unwrap_or(Path::new("/"));
        }
        // Before anything is made, and asked of the daemon itself, it must not be its own.
        let inside = |path: &Path| path.canonicalize().is_ok_and(|path| self.is_own(&path));
        if inside(above) {
            let text = format!("{} is inside the store or its mount; choose another directory", given.display());
            return Err(refused(Errno::INVAL, text));
        }
        std::fs::create_dir_all(given).map_err(failed)?;
        given.canonicalize().map_err(failed)
    }

    fn is_own(&self, path: &Path) -> bool {
        path.starts_with(&self.path) || self.mount_point().is_some_and(|mounted| path.starts_with(mounted))
    }

    fn open_archive(&self, views: &Views, directory: &Path, progress: OnProgress<'_>) -> Result<Archive> {
        let number = views.tree().device().store_number();
        let mut done = 0;
        let mut tell = |bytes| {
            done += bytes;
            progress(&Progress { files: 0, bytes: done, total_bytes: 0 })
        };
        Archive::open(directory, (number, views.base()), index_entry, &mut tell)
    }

    /// The increments have to lead to a snapshot that the store holds.
    fn check_tip(&self, views: &Views, archive: &Archive) -> Result<()> {
        let Some(tip) = archive.tip() else { return Ok(()) };
        let found = views.tree().device().look()?.snapshot(views.base(), tip.epoch)?;
        if found.is_some_and(|found| found.is_readable()) {
            return Ok(());
        }
        let times = archive.increments();
        let (first, last) = (times.first(), times.last());
        let (first, last) = (first.map(|first| first.header.from.time), last.map(|last| last.header.from.time));
        Err(refused(
            Errno::INVAL,
            format!(
                "the archive leads to the snapshot {:?} ({}), which the store does not hold: its times from {} to {} cannot be reached",
                tip.name,
                tip.time.as_text(),
                first.map_or("?".into(), Timestamp::as_text),
                last.map_or("?".into(), Timestamp::as_text)
            ),
        ))
    }

    /// Opens the archives that were attached; one that is not there is left out until it is looked for again.
    pub(super) fn attach_known(&self) -> Result<()> {
        let bases: Vec<BaseId> = self.views.tree().device().look()?.bases().map(|(id, _)| id).collect();
        bases.into_iter().try_for_each(|base| self.attach_known_to(base))
    }

    fn attach_known_to(&self, base: BaseId) -> Result<()> {
        let attached = self.views.tree().device().look()?.base_record(base)?.archive.clone();
        let Some(ArchiveRecord { directory, .. }) = attached else { return Ok(()) };
        let views = self.views.of(base);
        let opened = match directory.is_dir() {
            true => self.open_archive(&views, &directory, &mut |_| Ok(())),
            false => Err(refused(Errno::NOENT, "the directory is not there".into())),
        };
        match opened.and_then(|archive| self.check_tip(&views, &archive).map(|()| archive)) {
            Ok(archive) => views.tree().device().set_archive(base, Some(Arc::new(archive))),
            Err(error) => log::warn!("the archive {} is not shown: {error}", directory.display()),
        }
        Ok(())
    }

    /// Looks again what the archive that is attached has, also where it could not be opened until now, and shows
    /// what can be reached again.
    fn look_again(&self, views: &Views) -> Result<()> {
        let before = views.all_snapshots()?;
        match self.archive(views) {
            Some(archive) => archive.refresh(&mut |_| Ok(()))?,
            None => self.attach_known_to(views.base())?,
        }
        let after = views.all_snapshots()?;
        let epochs = |all: &[Snapshot]| all.iter().map(|snapshot| snapshot.epoch).collect::<BTreeSet<_>>();
        let (had, has) = (epochs(&before), epochs(&after));
        let mut changed = before;
        changed.retain(|snapshot| !has.contains(&snapshot.epoch));
        changed.extend(after.into_iter().filter(|snapshot| !had.contains(&snapshot.epoch)));
        self.tell_of_all(views, &changed);
        Ok(())
    }

    pub fn detach(&self, views: &Views, directory: Option<&Path>) -> Result<Detached> {
        let directory = self.check_meant(views, directory)?;
        let leads_to = {
            let look = views.tree().device().look()?;
            let anchor = look.base_record(views.base())?.archive.as_ref().and_then(|archive| archive.anchor);
            anchor.map(|epoch| look.snapshot(views.base(), epoch)).transpose()?.flatten()
        };
        let shown = views.all_snapshots()?;
        views.set_archive(None)?;
        views.tree().device().set_archive(views.base(), None);
        self.tell_of_all(views, &shown);
        Ok(Detached { directory, leads_to: leads_to.map(|snapshot| snapshot.record.name) })
    }

    /// That the archive given is the one attached.
    fn check_meant(&self, views: &Views, directory: Option<&Path>) -> Result<PathBuf> {
        let attached = views.tree().device().look()?.base_record(views.base())?.archive.clone();
        let attached = attached.map(|archive| archive.directory);
        let attached = attached.ok_or_else(|| {
            refused(Errno::NOENT, "no archive is attached; `pitfs archive attach DIR` does that".into())
        })?;
        match directory.map(|directory| directory.canonicalize().unwrap_or_else(|_| directory.to_path_buf())) {
            Some(given) if given != attached => {
                let text = format!("{} is attached, not {}", attached.display(), given.display());
                Err(refused(Errno::INVAL, text))
            }
            _ => Ok(attached),
        }
    }

    pub fn archive_info(&self, views: &Views, directory: Option<&Path>) -> Result<ArchiveInfo> {
        let is_attached = self.check_meant(views, directory).is_ok();
        if is_attached {
            self.look_again(views)?;
        }
        match (self.archive(views), directory) {
            (Some(archive), _) if is_attached => info_of(views, &archive),
            (_, Some(directory)) if directory.is_dir() => survey_info(views, directory),
            (_, Some(directory)) => {
                Err(refused(Errno::NOENT, format!("there is no archive at {}", directory.display())))
            }
            (_, None) => {
                let directory = self.check_meant(views, None)?;
                Err(refused(Errno::NOENT, format!("the archive {} cannot be opened", directory.display())))
            }
        }
    }

    /// What there is to be said of the archive that is attached, if one is.
    pub fn attached_info(&self, views: &Views) -> Result<Option<ArchiveInfo>> {
        self.archive(views).map(|archive| info_of(views, &archive)).transpose()
    }

    /// Reads and verifies every increment; what is wrong is in the answer, with the times it costs.
    pub fn verify_archive(
        &self,
        views: &Views,
        directory: Option<&Path>,
        progress: OnProgress<'_>,
    ) -> Result<ArchiveInfo> {
        let mut info = self.archive_info(views, directory)?;
        let mut done = 0;
        let total_bytes = info.bytes;
        for at in 0..info.increments.len() {
            let file = info.increments[at].file.clone();
            let verified = crate::archive::Reader::open(&file).and_then(|reader| {
                reader.verify(&mut |bytes| progress(&Progress { files: at as u64, bytes: done + bytes, total_bytes }))
            });
            done += info.increments[at].bytes;
            match verified {
                Ok(()) => {
                    info.whole += 1;
                    info.whole_bytes += info.increments[at].bytes;
                }
                Err(error) if error.errno() == Errno::INTR => return Err(error),
                Err(error) => {
                    let first = &info.increments[0];
                    let last = &info.increments[at];
                    let text = format!(
                        "{error}; the times from {} to {} cannot be relied on",
                        first.time.as_text(),
                        last.time.as_text()
                    );
                    info.problems.push(text);
                }
            }
        }
        Ok(info)
    }

    fn tell_of_all(&self, views: &Views, snapshots: &[Snapshot]) {
        for snapshot in snapshots {
            self.tell_of(views.base(), &snapshot.record.name);
        }
    }
}

/// What is in a directory that is not attached.
fn survey_info(views: &Views, directory: &Path) -> Result<ArchiveInfo> {
    let number = views.tree().device().store_number();
    let (all, broken) = crate::archive::survey(directory)?;
    let mut problems: Vec<String> = broken.iter().map(problem_text).collect();
    for foreign in all.iter().filter(|increment| increment.header.store != number) {
        problems.push(format!("{} is an increment of another store", foreign.path.display()));
    }
    let increments: Vec<IncrementInfo> =
        all.into_iter().map(|increment| increment_info(increment, problems.is_empty())).collect();
    info(views, directory, increments, problems)
}

fn info(views: &Views, directory: &Path, increments: Vec<IncrementInfo>, problems: Vec<String>) -> Result<ArchiveInfo> {
    Ok(ArchiveInfo {
        directory: directory.to_path_buf(),
        base: views.base_name()?,
        bytes: increments.iter().map(|increment| increment.bytes).sum(),
        increments,
        problems,
        whole: 0,
        whole_bytes: 0,
    })
}

fn increment_info(increment: crate::archive::Increment, is_reachable: bool) -> IncrementInfo {
    IncrementInfo {
        is_reachable,
        name: increment.header.from.name,
        time: increment.header.from.time,
        epoch: increment.header.from.epoch,
        bytes: increment.bytes,
        file: increment.path,
    }
}

fn problem_text(broken: &crate::archive::Broken) -> String {
    let path = broken.path.display().to_string();
    if broken.problem.contains(&path) { broken.problem.clone() } else { format!("{path}: {}", broken.problem) }
}

fn info_of(views: &Views, archive: &Archive) -> Result<ArchiveInfo> {
    let increments: Vec<IncrementInfo> = archive
        .increments()
        .into_iter()
        .map(|increment| {
            let is_reachable = archive.mark(increment.header.from.epoch).is_some();
            increment_info(increment, is_reachable)
        })
        .collect();
    let problems = archive.broken().iter().map(problem_text).collect();
    info(views, archive.directory(), increments, problems)
}
