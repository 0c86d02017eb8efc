//! One open store: which layers are open, in which order they open, work in the background and close.
//!
//! The same object serves a mounted store, whose requests come through FUSE and the control socket, and
//! a command that opens an unmounted store for itself.

mod agenda;
mod archives;
mod backup;
mod bring_back;
mod check;
mod copies;
mod copy_out;
mod descent;
mod doctor;
mod from_sets;
mod health;
mod host;
mod identity;
mod jobs;
mod keeping;
mod kernel;
mod lock;
mod of_target;
mod outside;
mod roll;
mod shorten;
mod stream;
mod sync;
mod targets;
mod transfer;
mod upgrade;
mod whole_bases;
mod works;
mod xattrs;

pub use agenda::WorkerInfo;
pub use archives::{ArchiveInfo, Detached, IncrementInfo, MissingTime};
pub use backup::{BackupOptions, BackupReport, LEVEL, LEVELS, Parts, backup};
pub use bring_back::BringBackReport;
pub use check::{CheckReport, Problem, check};
pub use copy_out::{RestoreOptions, RestoreReport, copy_out, plan_copy_out, resolved};
pub use doctor::{Finding, Grade, look_at_directory, look_at_machine};
pub use from_sets::{FromSets, FromSetsReport, base_from_set, create_from_sets};
pub use health::{Health, HealthState, Signs, Trouble};
pub use identity::{FORMAT, is_store, trust_owners, trusts_owners};
pub use jobs::{JobStanding, Jobs, Wish};
pub use keeping::{
    LetGo, Repaired, VerifiedSet, compact_sets, delete_sets, merge_sets, prune_sets, rebuild_sets, repair_sets,
    verify_sets,
};
pub use lock::{
    Holder, Lock, Patience, Use, holder, holding, is_dead, is_read, last_use, store_of, wait_a_moment, wait_for,
};
pub use roll::{RollOptions, RollPlan, RollReport};
pub use shorten::{MergeOptions, PruneOptions, Shortened};
pub use stream::{StreamReport, get, put};
pub use sync::{Owner, Planned, SyncOptions, SyncReport, sync};
pub use targets::{
    AddTarget, AtTarget, KEY_FILE_VARIABLE, KeptBy, KeyChange, PASSPHRASE_VARIABLE, add_target, ask_passphrase_by,
    change_keys, give_key_file, no_target, note_newest, open_alone, open_alone_by, open_repository, open_target,
    wants_passphrase,
};
pub use transfer::{SealedBy, receive_into, send};
pub use upgrade::{UpgradeReport, confirm_upgrade, undo_upgrade, upgrade};
pub use works::UnderWay;

use archives::Archives;
use bring_back::PathRestores;
use of_target::Scratch;
use roll::Rolls;
use whole_bases::WholeBases;
use works::Works;

use crate::error::{Errno, Error, Result};
use crate::fuse::{FileSystem, MountPoint, Mounted, Notify, Options, Transport};
use crate::media::{Directory, DiskDir, ScratchDir};
use crate::shown::shown_file;
use crate::tree::{CreateOptions, Tree};
use crate::view::Views;
use agenda::Agenda;
use jobs::Bell;
use parking_lot::Mutex;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

/// How far a long piece of work has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub files: u64,
    pub bytes: u64,
    /// What `bytes` will be at the end; 0 where that is not known.
    pub total_bytes: u64,
}

/// Called now and then during long work, which ends with the error that this returns.
pub type OnProgress<'a> = &'a mut dyn FnMut(&Progress) -> Result<()>;

pub struct Daemon {
    path: PathBuf,
    views: Arc<Views>,
    mounted: Mutex<Option<Mounted>>,
    /// Held by a sync: two at once would make each other's files.
    syncing: Mutex<()>,
    /// Held by a roll.
    rolling: Mutex<()>,
    agenda: Arc<Agenda>,
    /// What is under way and takes long, whoever asked for it.
    works: Arc<Works>,
    bell: Arc<Bell>,
    /// Works on jobs by itself, where the store is mounted.
    jobs_thread: Mutex<Option<JoinHandle<()>>>,
    background: Mutex<Option<JoinHandle<()>>>,
    /// From then on somebody else may open the store.
    lock: Lock,
    /// Goes last of all: the store, if it was only made to show a target.
    scratch: Option<Scratch>,
}

/// A store whose lock was taken.
pub struct Taken {
    lock: Lock,
    scratch: Option<Scratch>,
}

impl Taken {
    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    /// Whether it shows a target, and can only be read.
    pub fn is_target(&self) -> bool {
        self.scratch.is_some()
    }

    pub fn open(self) -> Result<Daemon> {
        let Some(scratch) = self.scratch else { return Daemon::open_locked(self.lock) };
        let mut daemon = Daemon::open_without_archives(self.lock, DiskDir::passing)?;
        scratch.show(&daemon.views)?;
        daemon.scratch = Some(scratch);
        Ok(daemon)
    }
}

impl Daemon {
    /// Lays out a new store in a directory that does not exist or is empty.
    pub fn create(path: &Path, options: &CreateOptions) -> Result<()> {
        Daemon::create_in(path, options, DiskDir::of)
    }

    fn create_in(path: &Path, options: &CreateOptions, files: fn(Arc<Directory>) -> DiskDir) -> Result<()> {
        let made = identity::prepare_directory(path)?;
        let make = || {
            let lock = Lock::take(&made.directory, &Use::Command)?;
            Tree::create(Arc::new(files(lock.directory().clone())), options)?;
            identity::write(lock.directory())
        };
        make().inspect_err(|_| made.undo())
    }

    /// Takes the lock of a store, for as long as it is not of another process, so that it can be opened.
    pub fn lock(path: &Path, uses: &Use) -> Result<Lock> {
        Lock::take(&checked(path)?, uses)
    }

    /// Opens a store and starts its background work; waits a while for others who have it open.
    pub fn open(path: &Path) -> Result<Daemon> {
        Daemon::open_locked(Daemon::lock(path, &Use::Command)?)
    }

    /// Takes a store, or what a target has as one, to be opened.
    pub fn take(path: &Path, uses: &Use) -> Result<Taken> {
        let scratch = Scratch::of(path)?;
        let lock = Daemon::lock(scratch.as_ref().map_or(path, Scratch::path), uses)?;
        Ok(Taken { lock, scratch })
    }

    /// Opens a store for a command; nothing if somebody else has it open. Where it is only to be read, others may read it too, and
    /// nothing is written.
    pub fn try_open(path: &Path, only_reads: bool) -> Result<Option<Daemon>> {
        if let Some(scratch) = Scratch::of(path)? {
            let lock = Daemon::lock(scratch.path(), &Use::Command)?;
            return Taken { lock, scratch: Some(scratch) }.open().map(Some);
        }
        let directory = checked(path)?;
        let lock = match only_reads {
            true => Lock::try_share(&directory)?,
            false => Lock::try_take(&directory, &Use::Command)?,
        };
        lock.map(Daemon::open_locked).transpose()
    }

    /// Opens a store whose lock was taken.
    pub fn open_locked(lock: Lock) -> Result<Daemon> {
        let daemon = Daemon::open_without_archives(lock, DiskDir::of)?;
        daemon.archives().attach_known()?;
        if !daemon.is_only_read() {
            daemon.complete_what_was_begun();
        }
        Ok(daemon)
    }

    /// The same, but that its archives are still to be attached, and what was begun is to be completed then.
    fn open_without_archives(lock: Lock, files: fn(Arc<Directory>) -> DiskDir) -> Result<Daemon> {
        let path = lock.store().to_path_buf();
        let directory = lock.directory().clone();
        let tree = match lock.is_shared() {
            false => Tree::open(Arc::new(files(directory)))?,
            // What the journal has besides is done aside, in memory or a temporary file.
            true => {
                let tree = Tree::open(Arc::new(ScratchDir::over(directory)))?;
                tree.only_read(&format!("the store {} can only be read", shown_file(&path)))?;
                tree
            }
        };
        let views = Arc::new(Views::new(tree));
        let agenda = Arc::new(Agenda::default());
        let background = if lock.is_shared() { None } else { Some(agenda::begin(&agenda, &views)?) };
        Ok(Daemon {
            path,
            views,
            mounted: Mutex::default(),
            syncing: Mutex::default(),
            rolling: Mutex::default(),
            agenda,
            works: Arc::default(),
            bell: Arc::default(),
            jobs_thread: Mutex::default(),
            background: Mutex::new(background),
            lock,
            scratch: None,
        })
    }

    /// Whether nothing can be written where the store is.
    pub fn is_unwritable(&self) -> bool {
        self.lock.is_unwritable()
    }

    /// Whether the store is not written to: what is in it can be looked at, by any number at a time.
    pub fn is_only_read(&self) -> bool {
        self.lock.is_shared() || self.scratch.is_some()
    }

    fn complete_what_was_begun(&self) {
        if let Err(error) = self.whole_bases().give_up_fillings() {
            log::error!("what was being filled is not deleted: {error}");
        }
        if let Err(error) = self.path_restores().complete() {
            log::error!("what was being brought back is not complete: {error}");
        }
        if let Err(error) = self.views.jobs().note_interrupted() {
            log::error!("jobs that were interrupted still seem to be running: {error}");
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The target that is shown, if no store is.
    pub(super) fn shown_target(&self) -> Option<&Path> {
        self.scratch.as_ref().map(Scratch::target)
    }

    /// The user to whom the store's directory belongs.
    pub fn owner(&self) -> u32 {
        self.lock.directory().owner()
    }

    /// Whether the store is that of whoever runs this, or of somebody who is trusted like him.
    fn is_own(&self) -> bool {
        identity::is_own(self.lock.directory())
    }

    pub fn views(&self) -> &Arc<Views> {
        &self.views
    }

    /// Shows the store at a mount point; `on_end` is called when somebody has unmounted it.
    /// The base given is shown, or, with none given, all of them if there are several.
    pub fn mount(
        &self,
        base: Option<&[u8]>,
        mount_point: MountPoint,
        options: &Options,
        on_end: impl FnOnce() + Send + 'static,
    ) -> Result<()> {
        self.check_hides_nothing(mount_point.path())?;
        if self.is_only_read() && !options.read_only {
            let text = format!("the store {} can only be read; mount it with `-o ro`", shown_file(&self.path));
            return Err(Error::Refused(Errno::ROFS, text));
        }
        let only = match base {
            Some(name) => {
                let base = self.views.bases().named(name)?;
                let info = self.views.of(base).bases().info()?;
                if info.is_offline {
                    let name = info.name;
                    let text = format!("{name:?} is offline; `pitfs session online {name}` comes first");
                    return Err(Error::Refused(Errno::INVAL, text));
                }
                Some(base)
            }
            // One that is online later is to be seen then.
            None => match self.views.bases().all_top()?.as_slice() {
                [(only, _)] => Some(*only),
                _ => None,
            },
        };
        // Commands only take a little longer without.
        if !self.is_only_read()
            && let Err(error) = self.views.tree().device().fsync().prepare()
        {
            log::warn!("no room was set aside for the journal: {error}");
        }
        let mut source = self.path.clone().into_os_string();
        if let Some(base) = base {
            source.push(":");
            source.push(std::ffi::OsStr::from_bytes(base));
        }
        let fs = FileSystem::new(Views::clone(&self.views), only, &self.path, options);
        let mounted = Mounted::mount(fs, &mount_point, &source.to_string_lossy(), options, on_end)?;
        self.views.tree().shown();
        if !self.is_only_read() {
            *self.jobs_thread.lock() = Some(jobs::begin(&self.works, &self.bell, &self.views)?);
        }
        self.lock.note(&Use::Mounted { at: mounted.mount_point().to_path_buf(), device: mounted.device() });
        *self.mounted.lock() = Some(mounted);
        Ok(())
    }

    pub fn mount_point(&self) -> Option<PathBuf> {
        self.mounted.lock().as_ref().map(|mounted| mounted.mount_point().to_path_buf())
    }

    /// What requests of the mount come through.
    pub fn transport(&self) -> Option<Transport> {
        self.mounted.lock().as_ref().map(Mounted::transport)
    }

    /// Whether somebody has unmounted what [`Daemon::mount`] mounted.
    pub fn is_unmounted(&self) -> bool {
        self.mounted.lock().as_ref().is_none_or(Mounted::has_ended)
    }

    /// Says that nobody else is let in any more, and that the store will soon be free.
    pub fn begin_closing(&self) {
        self.lock.note(&Use::Closing);
    }

    /// Unmounts what [`Daemon::mount`] mounted, if need be under its users' feet. What write(2) has taken is in the store
    /// after [`Daemon::close`].
    pub fn end_mount(&self) {
        if let Some(mounted) = &*self.mounted.lock()
            && !mounted.has_ended()
        {
            mounted.end();
        }
    }

    pub fn notify(&self) -> Option<Notify> {
        self.mounted.lock().as_ref().map(|mounted| mounted.notify().clone())
    }

    /// What is done in the background, and by whom.
    pub fn workers(&self) -> Result<Vec<WorkerInfo>> {
        self.agenda.info(&self.views)
    }

    /// Does what is left to be done for snapshots and files that were deleted.
    pub fn finish_deletions(&self) -> Result<()> {
        let tree = self.views.tree();
        if self.is_only_read() || !tree.device().damage().is_empty() {
            return Ok(());
        }
        while tree.device().removal().step()? || tree.reap_step()? {}
        Ok(())
    }

    pub fn jobs(&self) -> Jobs<'_> {
        Jobs { daemon: self }
    }

    /// Lists something as under way that may take long, for as long as what this returns lives.
    pub fn begin_work(&self, what: &str, by: u32) -> UnderWay {
        self.works.begin(what.into(), by, None, false)
    }

    pub fn archives(&self) -> Archives<'_> {
        Archives { daemon: self }
    }

    pub fn rolls(&self) -> Rolls<'_> {
        Rolls { daemon: self }
    }

    pub fn whole_bases(&self) -> WholeBases<'_> {
        WholeBases { daemon: self }
    }

    pub fn path_restores(&self) -> PathRestores<'_> {
        PathRestores { daemon: self }
    }

    /// Commits and ends: nothing is changed after what this has made durable.
    pub fn close(&self) -> Result<()> {
        self.works.end();
        self.bell.ring();
        if let Some(thread) = self.jobs_thread.lock().take()
            && thread.join().is_err()
        {
            log::error!("the thread for jobs ended with a panic");
        }
        self.agenda.stop();
        self.views.tree().device().wake();
        if let Some(background) = self.background.lock().take()
            && background.join().is_err()
        {
            log::error!("the background thread ended with a panic");
        }
        // The kernel has let go of all that it knew.
        self.views.remove_what_waits();
        let closed = self.views.tree().device().close();
        self.lock.note(&match &closed {
            Ok(()) => Use::Closed,
            Err(error) => Use::Failed(error.to_string()),
        });
        closed
    }
}

/// The directory of a store, after a look at what makes it one.
fn checked(path: &Path) -> Result<Arc<Directory>> {
    let directory = identity::open_directory(path)?;
    identity::check(&directory)?;
    Ok(directory)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.background.lock().is_some()
            && let Err(error) = self.close()
        {
            log::error!("closing the store: {error}");
        }
    }
}
