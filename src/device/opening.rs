//! A store laid out, and opened.

use super::accounts::Accounts;
use super::changes::Changes;
use super::past::{BaseRecord, HISTORY, LIVE, Past, or_damage};
use super::{COMMITS, Device, DirtyTracks, HistoryRecord, META_FILE, SETTINGS, Settings, State, missing};
use crate::clock::{Epoch, Timestamp};
use crate::error::{Error, Result};
use crate::journal::{Entry, EntryKind, Journal};
use crate::limits::*;
use crate::logstore::LogStore;
use crate::media::MediaDir;
use crate::meta::{Kv, Meta, Overlay, Reserve, Table, record_name};
use parking_lot::{Condvar, Mutex, RwLock};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

/// How many commits the key-value store has.
pub(super) fn commits(meta: &Meta) -> Result<u64> {
    let commits: u64 = meta.get(Table::State, COMMITS)?.ok_or_else(|| missing("number of commits"))?;
    match commits <= COUNT_MAX {
        true => Ok(commits),
        false => Err(Error::corrupt(record_name(Table::State, COMMITS), format!("no store has had {commits} commits"))),
    }
}

/// Opens the key-value store, with a reserve in which a commit ends when room does.
fn open_tables(dir: &Arc<dyn MediaDir>) -> Result<Kv> {
    let media = dir.open(META_FILE, false).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => {
            Error::corrupt(format!("the store in {}", dir.describe()), format!("{META_FILE} is missing"))
        }
        _ => Error::media(format!("opening {META_FILE}"), source),
    })?;
    dir.tidy(META_FILE).map_err(|source| Error::media(format!("tidying {META_FILE}"), source))?;
    let reserve = Reserve::open(dir.clone()).map_err(|source| Error::media("opening the reserve", source))?;
    let kv = Kv::open(media, Some(Arc::new(reserve)))?;
    kv.refill_reserve()?;
    Ok(kv)
}

fn settings_of(meta: &Meta) -> Result<Settings> {
    let settings: Settings = meta.get(Table::State, SETTINGS)?.ok_or_else(|| missing("settings"))?;
    let track_bytes = settings.track_bytes as usize;
    if !track_bytes.is_power_of_two() || !(TRACK_BYTES_MIN..=TRACK_BYTES_MAX).contains(&track_bytes) {
        let problem = format!("a track size of {track_bytes} is not possible");
        return Err(Error::corrupt("the metadata (meta.redb)", problem));
    }
    Ok(settings)
}

fn history_of(meta: &Meta) -> Result<HistoryRecord> {
    let history: HistoryRecord = meta.get(Table::State, HISTORY)?.ok_or_else(|| missing("record of its history"))?;
    match history.epoch == Epoch::ZERO {
        true => Err(Error::corrupt(record_name(Table::State, HISTORY), "epochs are counted from 1")),
        false => Ok(history),
    }
}

/// Lets the key-value store take over what the journal has of commits after `durable`; the entries that are left are
/// fsync's.
pub(super) fn take_over(kv: &Kv, journaled: &mut Vec<Entry>, durable: u64) -> Result<()> {
    for entry in journaled.extract_if(.., |entry| entry.kind == EntryKind::Commit) {
        if entry.after > durable {
            log::info!("commit {} is taken over from the journal", entry.after);
            kv.commit(&Overlay::from_bytes(&entry.payload)?)?;
        }
    }
    Ok(())
}

/// Segments that opening looks at; the background goes on.
const PLACES_AT_ONCE: usize = 2048;

impl Device {
    /// Lays out a new store.
    pub fn create(dir: Arc<dyn MediaDir>, settings: &Settings) -> Result<()> {
        let media = dir.open(META_FILE, true).map_err(|source| Error::media(format!("making {META_FILE}"), source))?;
        let kv = Kv::create(media, None)?;
        let mut meta = Meta::new(&kv)?;
        meta.put(Table::State, SETTINGS, settings);
        meta.put(Table::State, HISTORY, &HistoryRecord { epoch: Epoch::new(1), log_blocks: 0, reserved: 0 });
        meta.put(Table::Base, &LIVE.prefix(), &BaseRecord::new("live", Timestamp::now()));
        meta.put(Table::State, COMMITS, &0u64);
        LogStore::create(&*dir, &mut meta, settings.id)?;
        kv.commit(&meta.freeze())
    }

    /// Opens a store; with what was journaled after the last commit, which is to be done again before
    /// anything else.
    pub fn open(dir: Arc<dyn MediaDir>) -> Result<(Device, Vec<Entry>)> {
        let kv = open_tables(&dir)?;
        let mut meta = Meta::new(&kv)?;
        let settings = settings_of(&meta)?;
        let mut durable = commits(&meta)?;
        let (journal, mut journaled) = Journal::open(dir.clone(), RandomState::new().hash_one(durable), durable)?;
        let damage = match take_over(&kv, &mut journaled, durable) {
            Ok(()) => None,
            // What was committed before can still be read, and the journal stays as it is.
            Err(error @ Error::Corrupt { .. }) => {
                journaled.clear();
                kv.reopen()?;
                Some(error)
            }
            Err(error) => return Err(error),
        };
        meta.reattach(&kv)?;
        durable = commits(&meta)?;
        // What fsync journaled before that is in it.
        journaled.retain(|entry| entry.after >= durable);
        let history = history_of(&meta)?;
        let log = LogStore::open(dir.clone(), &meta, settings.id, settings.codec, settings.track_bytes as usize)?;
        // What is committed from now on is later than all that was journaled.
        let commits = journaled.iter().map(|entry| entry.after).fold(durable, u64::max);
        let mut state = State {
            past: Past::new(meta, history.epoch),
            accounts: Accounts::new(history.log_blocks, history.reserved),
            dirty: DirtyTracks::new(),
            flushing: DirtyTracks::new(),
            dirty_bytes: 0,
            changes: Changes::default(),
            replaying: (!journaled.is_empty()).then_some(durable),
        };
        let mut damage: Vec<Error> = damage.into_iter().collect();
        damage.extend(state.past.load_bases()?);
        or_damage(log.check_next(&state.past.meta), &mut damage)?;
        or_damage(log.check_places(&state.past.meta, PLACES_AT_ONCE), &mut damage)?;
        let device = Device {
            state: RwLock::new(state),
            log,
            kv,
            journal,
            dir,
            settings,
            commit_lock: Mutex::default(),
            freezes: AtomicU64::new(commits),
            durable_freezes: AtomicU64::new(commits),
            stopped: Mutex::default(),
            damage: Mutex::default(),
            has_stopped: AtomicBool::new(false),
            is_only_read: AtomicBool::new(false),
            full: AtomicBool::new(false),
            record_bytes_max: AtomicUsize::new(DIRTY_RECORD_BYTES_MAX),
            separating: Mutex::default(),
            work: Mutex::new(false),
            kept: Mutex::default(),
            work_came: Condvar::new(),
            feed: super::feed::Feed::default(),
        };
        device.bound_records(device.room()?.available);
        for damage in damage {
            device.found_damage(&damage);
            // What fsync made durable is done again when that is mended.
            journaled.clear();
        }
        Ok((device, journaled))
    }
}
