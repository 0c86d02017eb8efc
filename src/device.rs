//! Tracks and records with a memory: pointer tables, protection, pre-images and sessions.
//!
//! A record is a value with the epoch of its birth. Base tables hold the current value; what a snapshot
//! still needs is moved to the `preimage` table before it is replaced or removed (*write rule*), and
//! found there again by the *read rule* (both in `past/rules.rs`). File data is written in tracks: first
//! into dirty tracks in memory, then to free room in the log store (*redirect on write*).
//!
//! ```text
//! edit_track ─▶ dirty ──flush──▶ flushing ──append, set_track──▶ pointer table
//!                 └──────────────── commit: flush all, freeze, sync, publish ──────────▶ durable
//! ```
//!
//! Invariants:
//! - a track is looked for in dirty, flushing and the pointer table, in this order;
//! - each dirty or flushing track holds one reserved slot of the log store, so flushing cannot run out
//!   of room;
//! - when the overlay is frozen nothing is dirty: a commit is a whole state;
//! - all dirty tracks belong to the current epoch, since a snapshot flushes before it advances it.

mod accounts;
mod archived;
mod base;
mod born;
mod changes;
pub mod check;
mod commit;
mod delete;
mod differing;
mod dirty;
mod feed;
mod flush;
mod journaling;
mod named;
mod opening;
mod past;
mod pointer;
mod reentry;
mod room;
mod separate;
mod settle;
mod snapshot;
mod tracks;
mod twin;
mod txn;
mod upgrade;
mod visited;
mod work;

pub use archived::{ArchivedTrack, TrackRecord, index_entry};
pub use changes::{Change, Changes, Note};
pub use commit::Commit;
pub use differing::Differing;
pub use feed::{Changed, Feed, Fetched, News, aloud, silently};
pub use journaling::Journaling;
pub use named::{each_named, each_named_in, each_named_outside};
pub use past::{
    ArchiveRecord, BaseId, BaseRecord, BaseReserve, Counts, Era, HOLD_TAG, InSet, Increments, InodeAt, InodeNo, LIVE,
    LIVE_NAME, MirrorRecord, Moment, Named, Past, Point, Same, Settle, Shown, SnapOptions, Snapshot, SnapshotRecord,
    SnapshotRef, SnapshotState, Span, Then, Timeline, TrackNo, TracksFrom, Value, Walk, is_virtual_name, last_save_key,
    split_increment, split_preimage, split_record, split_track_key, track_key,
};
pub use pointer::{Patch, Pointer};
pub use separate::{Separate, Separated};
pub use settle::settle_step;
pub use snapshot::Changing;
pub use tracks::Source;
pub use upgrade::{downgrade, upgrade};
pub use visited::{Visited, is_visited, visit};

use crate::clock::{Epoch, Timestamp};
use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::journal::Journal;
use crate::limits::*;
use crate::logstore::{Codec, LogStore};
use crate::media::MediaDir;
use crate::meta::{Kv, Meta, Table};
use accounts::{Accounts, Before};
use archived::Archiving;
use delete::{FreedRoom, Removal};
use dirty::Dirty;
use journaling::Fsync;
use parking_lot::{Condvar, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use past::{HISTORY, TrackKey};
use reentry::Alone;
use room::Capacity;
use separate::{Copies, Separation};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use tracks::Tracks;

/// The epoch that tables are in.
pub fn epoch_of(meta: &Meta) -> Result<Epoch> {
    let history: Option<HistoryRecord> = meta.get(Table::State, HISTORY)?;
    history.map(|history| history.epoch).ok_or_else(|| missing("record of its history"))
}

/// How a store was created. Never changes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    pub track_bytes: u32,
    pub codec: Codec,
    /// Seeds the hashes of directory entries, so that nobody can craft names that collide.
    pub hash_seed: u64,
    /// The store's own; a copy of a store has the same.
    pub id: Id,
}

const SETTINGS: &[u8] = b"settings";
/// Counts commits: what the journal has is obsolete or not by this number.
const COMMITS: &[u8] = b"commits";

/// What is counted for all bases together; stored with each commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct HistoryRecord {
    epoch: Epoch,
    /// Blocks of locations that only pre-images hold.
    #[serde(deserialize_with = "crate::limits::number::blocks")]
    log_blocks: u64,
    /// Bytes of room that snapshots have set aside.
    #[serde(deserialize_with = "crate::limits::number::bytes")]
    reserved: u64,
}

type DirtyTracks = BTreeMap<TrackKey, Dirty>;

/// Everything an operation can see and change, under one lock.
pub struct State {
    past: Past,
    accounts: Accounts,
    dirty: DirtyTracks,
    flushing: DirtyTracks,
    dirty_bytes: usize,
    changes: Changes,
    /// While what the journal has is done again: the commit that it follows. Until all is done, later
    /// commits count as this one, so that a crash begins anew.
    replaying: Option<u64>,
}

/// Why nothing is changed any more.
struct Stopped {
    why: String,
    since: Timestamp,
}

impl Stopped {
    fn now(why: &str) -> Stopped {
        Stopped { why: why.into(), since: Timestamp::now() }
    }
}

pub struct Device {
    state: RwLock<State>,
    log: LogStore,
    kv: Kv,
    journal: Journal,
    dir: Arc<dyn MediaDir>,
    settings: Settings,
    /// Held by whoever flushes or commits; taken before `state`. With what the key-value store does not have yet.
    commit_lock: Mutex<commit::Pending>,
    freezes: AtomicU64,
    durable_freezes: AtomicU64,
    stopped: Mutex<Option<Stopped>>,
    /// What was found to be damaged when the store was opened.
    damage: Mutex<Vec<String>>,
    has_stopped: AtomicBool,
    is_only_read: AtomicBool,
    full: AtomicBool,
    /// What records of the open transaction may take, as of the last commit.
    record_bytes_max: AtomicUsize,
    /// Held by whoever gives tracks places of their own.
    separating: Mutex<()>,
    /// Snapshots that keep what they hold, also when they are deleted.
    kept: Mutex<BTreeSet<Point>>,
    work: Mutex<bool>,
    work_came: Condvar,
    feed: Feed,
}

impl std::ops::Deref for State {
    type Target = Past;

    fn deref(&self) -> &Past {
        &self.past
    }
}

/// Looks at a state.
pub struct Look<'a> {
    state: RwLockReadGuard<'a, State>,
    _alone: Alone,
}

impl std::ops::Deref for Look<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

/// One operation's changes: all of them take effect with `finish`, none without.
pub struct Txn<'a> {
    device: &'a Device,
    state: RwLockWriteGuard<'a, State>,
    /// What is to be taken back; `None` once the changes have taken effect.
    before: Option<Before>,
    /// Tracks in memory that the operation makes void.
    forget: Vec<TrackKey>,
    notes: Vec<(InodeNo, Note)>,
    /// Bytes of tracks in memory are others, which no rollback takes back.
    has_edited: bool,
    /// Records that are not what they were, where somebody is told of that.
    changed: Option<Vec<Changed>>,
    _alone: Alone,
}

impl std::ops::Deref for Txn<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl State {
    pub fn tracks(&self) -> Tracks<'_> {
        Tracks { state: self }
    }

    pub fn freed_room(&self) -> FreedRoom<'_> {
        FreedRoom { state: self }
    }

    pub fn copies(&self) -> Copies<'_> {
        Copies { state: self }
    }

    /// What the operation that has just taken effect changed, besides records of trees.
    fn changed(&mut self, mut records: Vec<Changed>) -> Vec<Changed> {
        records.extend(self.past.shown.take().map(Changed::Shown));
        records
    }
}

impl Drop for Txn<'_> {
    fn drop(&mut self) {
        // What only passes through a panic is undone like after an error; but where it had begun to change something,
        // nobody knows what was half done.
        if std::thread::panicking() && (self.before.is_none() || self.has_edited || self.state.past.meta.has_begun()) {
            self.device.stop(&Error::Fault("it ended in the middle of a change".into()));
        }
        if let Some(before) = self.before.take() {
            self.state.take_back(before);
        }
    }
}

const META_FILE: &str = "meta.redb";
fn missing(what: &str) -> Error {
    Error::corrupt("the metadata (meta.redb)", format!("it has no {what}"))
}

impl Device {
    pub fn capacity(&self) -> Capacity<'_> {
        Capacity { device: self }
    }

    pub fn removal(&self) -> Removal<'_> {
        Removal { device: self }
    }

    pub fn separation(&self) -> Separation<'_> {
        Separation { device: self }
    }

    pub fn fsync(&self) -> Fsync<'_> {
        Fsync { device: self }
    }

    pub fn archiving(&self) -> Archiving<'_> {
        Archiving { device: self }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn feed(&self) -> &Feed {
        &self.feed
    }

    pub fn log(&self) -> &LogStore {
        &self.log
    }

    pub fn track_bytes(&self) -> u64 {
        self.settings.track_bytes.into()
    }

    /// A look at the current state; many threads may look at once, each but once.
    pub fn look(&self) -> Result<Look<'_>> {
        if self.kv.met_damage()
            && let Err(error) = self.reopen_after_damage()
        {
            // What is in memory can still be seen.
            log::error!("{error}");
        }
        let alone = Alone::with(self);
        Ok(Look { state: self.state.read(), _alone: alone })
    }

    /// Starts an operation. The caller may hold no other lock of this device.
    pub fn begin(&self) -> Result<Txn<'_>> {
        self.make_way()?;
        self.begin_unthrottled()
    }

    fn make_way(&self) -> Result<()> {
        self.check_running()?;
        if self.kv.met_damage() {
            self.reopen_after_damage()?;
        }
        self.throttle()
    }

    fn begin_unthrottled(&self) -> Result<Txn<'_>> {
        let alone = Alone::with(self);
        let mut state = self.state.write();
        self.check_running()?;
        let before = Some(state.begin());
        let (forget, notes) = (Vec::new(), Vec::new());
        let changed = self.feed.is_told().then(Vec::new);
        Ok(Txn { device: self, state, before, forget, notes, has_edited: false, changed, _alone: alone })
    }

    /// Starts an operation that needs more room than it frees: NOSPC on a full disk.
    pub fn begin_growing(&self) -> Result<Txn<'_>> {
        // First, since its commit can be what finds that room has ended.
        self.make_way()?;
        if self.full.load(Ordering::Relaxed) && !self.has_room_again()? {
            return Err(Error::Posix(Errno::NOSPC));
        }
        self.begin_unthrottled()
    }

    fn reopen_after_damage(&self) -> Result<()> {
        let _commit = self.commit_lock.lock();
        if self.kv.met_damage() { self.reopen_tables() } else { Ok(()) }
    }

    /// The caller holds the right to commit.
    fn reopen_tables(&self) -> Result<()> {
        let mut state = self.state.write();
        log::error!("a page of the metadata is damaged or could not be read or written; reopening to read the rest");
        self.kv.reopen()?;
        state.past.meta.reattach(&self.kv)
    }

    /// Looks at some more of where segments lie; whether there may be more to look at.
    pub fn check_places_step(&self) -> Result<bool> {
        const STEP: usize = 4096;
        // Of one that has stopped nothing depends on it.
        if self.log.knows_places() || self.check_running().is_err() {
            return Ok(false);
        }
        let looked = self.log.check_places(&self.look()?.meta, STEP);
        // What was changed since the store was opened, and is not durable, is lost: closing it fails, and says so.
        looked.map(|is_over| !is_over).inspect_err(|error| {
            if matches!(error, Error::Corrupt { .. }) {
                self.stop(error);
            }
        })
    }

    /// What was found when the store was opened leaves nobody know what may be changed: nothing is, and what is whole can be
    /// read.
    pub fn found_damage(&self, error: &Error) {
        log::error!("{error}; nothing is changed any more, what is whole can be copied out with `pitfs restore --to`");
        self.damage.lock().push(error.to_string());
        self.stop(error);
    }

    /// Nothing is changed from now on: where the store is, nothing can be.
    pub fn only_read(&self, why: &str) {
        self.stopped.lock().get_or_insert_with(|| Stopped::now(why));
        self.is_only_read.store(true, Ordering::Release);
        self.has_stopped.store(true, Ordering::Release);
    }

    /// What keeps the store from being changed since it was opened.
    pub fn damage(&self) -> Vec<String> {
        self.damage.lock().clone()
    }

    /// After a failed write or sync nothing is written any more until the store is reopened.
    fn stop(&self, error: &Error) {
        let mut stopped = self.stopped.lock();
        if stopped.is_none() {
            log::error!("writing stopped: {error}");
            *stopped = Some(Stopped::now(&error.to_string()));
        }
        self.has_stopped.store(true, Ordering::Release);
    }

    /// Commits, and lets nothing be changed after that.
    pub fn close(&self) -> Result<()> {
        // If it was damaged when it was opened nothing was changed, and nothing is.
        let is_whole = self.damage.lock().is_empty() && !self.is_only_read.load(Ordering::Acquire);
        if is_whole {
            self.committer()?.run(|_| {
                *self.stopped.lock() = Some(Stopped::now("it is being closed"));
                self.has_stopped.store(true, Ordering::Release);
                Ok(())
            })?;
        }
        let mut state = self.state.write();
        if is_whole {
            // What was set aside for work is not taken while there is none.
            self.log.trim(&state.past.meta);
            // Nothing depends on it, and on a full disk it could only fail.
            if !self.is_full()
                && let Err(error) = self.trim_meta(&mut state.past.meta)
            {
                log::warn!("room that is not used was not given back: {error}");
            }
        }
        // Others may still have this device: no file waits for the last of them.
        state.past.bases.take_archives().into_iter().for_each(|archive| archive.close());
        self.kv.close();
        if is_whole { self.journal.close() } else { Ok(()) }
    }

    fn trim_meta(&self, meta: &mut Meta) -> Result<()> {
        meta.trim(&self.kv, &*self.dir, META_FILE)?;
        self.kv.trim_reserve()
    }

    /// Since when nothing is changed any more.
    pub fn stopped_since(&self) -> Option<Timestamp> {
        self.stopped.lock().as_ref().map(|stopped| stopped.since)
    }

    pub fn check_running(&self) -> Result<()> {
        if self.has_stopped.load(Ordering::Acquire) {
            let why = self.stopped.lock().as_ref().map(|stopped| stopped.why.clone()).unwrap_or_default();
            let is_only_read = self.is_only_read.load(Ordering::Acquire) && self.damage.lock().is_empty();
            return Err(if is_only_read { Error::Refused(Errno::ROFS, why) } else { Error::Stopped(why) });
        }
        Ok(())
    }

    /// The number of the last commit that is durable.
    pub fn commit_number(&self) -> u64 {
        self.durable_freezes.load(Ordering::SeqCst)
    }

    /// Tells the background thread that there is something to do.
    pub fn wake(&self) {
        // Who is woken needs the lock.
        let was_told = std::mem::replace(&mut *self.work.lock(), true);
        if !was_told {
            self.work_came.notify_one();
        }
    }

    /// Waits for work, at most `timeout`; true when there is some.
    pub fn wait_for_work(&self, timeout: std::time::Duration) -> bool {
        let mut work = self.work.lock();
        if !*work {
            self.work_came.wait_for(&mut work, timeout);
        }
        std::mem::take(&mut *work)
    }

    /// Room of the file system that carries the store, in bytes.
    pub fn room(&self) -> Result<crate::media::Room> {
        self.dir.room().map_err(|error| Error::media("asking for room", error))
    }

    pub fn meta_bytes(&self) -> Result<u64> {
        self.kv.file_bytes()
    }

    /// The tables as the last durable commit left them, apart from all that goes on.
    pub fn durable(&self) -> Result<Meta> {
        match self.committer() {
            Ok(_) => Meta::new(&self.kv),
            // It has stopped, and what is pending stays in the journal.
            Err(_) if self.check_running().is_err() => Meta::new(&self.kv),
            Err(error) => Err(error),
        }
    }

    /// Bytes of locations that only snapshots hold.
    pub fn log_bytes(&self) -> u64 {
        self.state.read().accounts.log_blocks.saturating_mul(BLOCK_BYTES as u64)
    }

    /// Looks whether metadata may grow; remembered until it may again.
    fn note_room(&self) -> Result<()> {
        self.kv.refill_reserve()?;
        let available = self.room()?.available;
        let has_room = self.kv.reserve_is_whole()? && available >= RESERVE_BYTES_MIN / 2;
        self.full.store(!has_room, Ordering::Relaxed);
        self.bound_records(available);
        Ok(())
    }

    /// Records that are committed must find room: the less there is, the sooner they are.
    fn bound_records(&self, available: u64) {
        let share = usize::try_from(available / DIRTY_RECORD_BYTES_SHARE).unwrap_or(usize::MAX);
        let most = share.clamp(DIRTY_RECORD_BYTES_MIN, DIRTY_RECORD_BYTES_MAX);
        self.record_bytes_max.store(most, Ordering::Relaxed);
    }

    /// Whether the open transaction has grown to where operations wait for its commit.
    fn holds_too_many_records(&self, state: &State) -> bool {
        state.past.meta.dirty_records() > DIRTY_RECORDS_MAX
            || state.past.meta.dirty_record_bytes() > self.record_bytes_max.load(Ordering::Relaxed)
    }

    /// Whether room has ended, as of the last commit.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    fn has_room_again(&self) -> Result<bool> {
        self.note_room()?;
        Ok(!self.full.load(Ordering::Relaxed))
    }
}

impl State {
    /// Room on the media that the dirty tracks may come to need, in bytes.
    fn dirty_room(&self, track_bytes: u64) -> usize {
        (self.dirty.len() + self.flushing.len()) * track_bytes as usize
    }

    fn wants_flush(&self, track_bytes: u64) -> bool {
        self.dirty_bytes >= DIRTY_BYTES_FLUSH || self.dirty_room(track_bytes) >= DIRTY_ROOM_FLUSH
    }

    /// Whether the open transaction has grown to where it is committed.
    fn wants_commit(&self) -> bool {
        self.past.meta.dirty_records() >= DIRTY_RECORDS_COMMIT
            || self.past.meta.dirty_record_bytes() >= DIRTY_RECORD_BYTES_COMMIT
    }
}
