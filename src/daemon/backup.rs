//! Backups: snapshots written to a target as sets.
//!
//! A set is made over the newest whole set that is of a snapshot of the same base: what differs between the two is written. Where the
//! store still has that snapshot, both are compared; where it was deleted, what has become what it is since then is written, and what
//! the set has and this snapshot has not. Where there is none, all is.
//!
//! Invariants:
//! - a set is in the target's catalogue when it is whole and durable, and not before;
//! - one that misses something of its snapshot says so, and no other one is ever made over it.

use super::targets::{check_newest, note_newest};
use super::{OnProgress, Progress};
use crate::clock::Epoch;
use crate::device::Snapshot;
use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::limits::BLOCK_BYTES;
use crate::set::{Before, Change, Delta, Header, Key, Kind, Sets, Summary, Writer, update};
use crate::target::{Listed, Repository, Target};
use crate::tree::{Burden, Carried, Carry, Tree};
use crate::view::Views;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The level of zstd that sets are compressed with.
pub const LEVEL: i32 = 5;

/// What is asked of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupOptions {
    /// The snapshot; the newest one if none is named.
    pub snapshot: Option<Vec<u8>>,
    pub kind: Kind,
    /// Of zstd.
    pub level: i32,
    /// Bytes of files in a second, if they are not to be more.
    pub limit: Option<u64>,
}

/// Levels of zstd that sets can be compressed with.
pub const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;

/// Keeps bytes from being more than so many in a second.
struct Brake {
    limit: Option<u64>,
    begun: Instant,
}

/// Waiting is broken off as soon as whoever asked has gone.
const WAIT: Duration = Duration::from_millis(100);

impl Brake {
    fn of(limit: Option<u64>) -> Brake {
        Brake { limit: limit.filter(|limit| *limit > 0), begun: Instant::now() }
    }

    /// Waits until so many bytes may have been read.
    fn hold(&self, bytes: u64, tell: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        let Some(limit) = self.limit else { return Ok(()) };
        let due = Duration::from_secs_f64(bytes as f64 / limit as f64);
        while let Some(left) = due.checked_sub(self.begun.elapsed()).filter(|left| !left.is_zero()) {
            std::thread::sleep(left.min(WAIT));
            tell(bytes)?;
        }
        Ok(())
    }
}

/// What a backup did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupReport {
    pub snapshot: String,
    /// The set that has the snapshot, and whether it was there already.
    pub set: Id,
    pub was_there: bool,
    pub kind: Kind,
    /// Bytes that the set takes at the target.
    pub bytes: u64,
    /// Bytes of tracks that changed, before compression.
    pub added: u64,
    /// What could not be read, by path, and why.
    pub missing: Vec<(String, String)>,
}

/// The next element of what is carried, as a set takes it.
struct Changes<'a, 'p> {
    carry: Box<dyn Iterator<Item = Result<Carried>> + 'a>,
    tell: &'a mut dyn FnMut(u64) -> Result<()>,
    done: u64,
    brake: Brake,
    missing: &'p mut Vec<(String, String)>,
}

impl Iterator for Changes<'_, '_> {
    type Item = Result<Delta>;

    fn next(&mut self) -> Option<Result<Delta>> {
        let carried = match self.carry.next()? {
            Ok(carried) => carried,
            Err(error) => return Some(Err(error)),
        };
        self.done += carried.file_bytes();
        if let Err(error) = (self.tell)(self.done).and_then(|()| self.brake.hold(self.done, self.tell)) {
            return Some(Err(error));
        }
        let Carried { table, key, birth, what } = carried;
        let key = [&[table as u8], &key[..]].concat();
        let change = match what {
            Burden::Record(value) => Change::Record(value),
            Burden::Track(bytes) => Change::Track(bytes.to_vec()),
            Burden::Gone => Change::Gone,
            Burden::Lost(path, error) => {
                log::error!("{path:?} is not in the set: {error}");
                if self.missing.last().map(|(last, _)| last) != Some(&path) {
                    self.missing.push((path.clone(), error.to_string()));
                }
                Change::Lost(path)
            }
        };
        Some(Ok(Delta { key, birth, change }))
    }
}

/// Writes a snapshot of a base to a target.
pub fn backup(
    views: &Views,
    target: &Target,
    key: Option<&Key>,
    options: &BackupOptions,
    progress: OnProgress<'_>,
) -> Result<BackupReport> {
    if !LEVELS.contains(&options.level) {
        let text = format!("compression has levels from {} to {}, not {}", LEVELS.start(), LEVELS.end(), options.level);
        return Err(Error::Refused(Errno::INVAL, text));
    }
    // One at a time: two would not see each other's sets.
    let _locked = target.lock()?;
    let mut repository = target.repository(views.targets().store()?, key)?;
    check_newest(target, &mut repository, views.targets().seen(target.id())?)?;
    // What an interruption left, or finished and did not list.
    repository.sweep()?;
    let snapshot = chosen(views, options.snapshot.as_deref())?;
    if let Some(found) = repository.catalogue().of_snapshot(snapshot.record.id)
        && (options.kind != Kind::Full || found.header.kind == Kind::Full)
    {
        let found = there_already(&snapshot, found);
        views.targets().mark(&snapshot)?;
        return Ok(found);
    }
    let gone = repository.gone()?;
    let is_good = |listed: &Listed| !listed.needs.iter().any(|id| gone.contains(id));
    let Written { summary, kind, added, missing } =
        write(views, (target, &repository), &snapshot, options, &is_good, progress)?;
    let file = repository.sets().file(summary.id)?;
    repository.add(&file)?;
    note_newest(views, target, &repository)?;
    if missing.is_empty() {
        views.targets().mark(&snapshot)?;
    }
    let (set, bytes) = (summary.id, summary.bytes);
    Ok(BackupReport { snapshot: snapshot.record.name, set, was_there: false, kind, bytes, added, missing })
}

/// A set that was written, and is in no list yet.
pub(super) struct Written {
    pub summary: Summary,
    pub kind: Kind,
    pub added: u64,
    pub missing: Vec<(String, String)>,
}

/// Writes a snapshot as a set, over the newest of those that are good for that.
pub(super) fn write(
    views: &Views,
    (target, repository): (&Target, &Repository),
    snapshot: &Snapshot,
    options: &BackupOptions,
    is_good: &dyn Fn(&Listed) -> bool,
    progress: OnProgress<'_>,
) -> Result<Written> {
    let tree = views.tree();
    let settings = tree.device().settings();
    let base_record = tree.device().look()?.base_record(snapshot.base)?.clone();
    let before = match options.kind {
        Kind::Full => None,
        kind => {
            let may_be = |listed: &&Listed| {
                listed.header.base == base_record.id
                    && listed.missing == 0
                    && (kind == Kind::Incremental || listed.header.kind == Kind::Full)
                    && is_good(listed)
            };
            newest_known(views, snapshot, repository.catalogue().moments().filter(may_be))?
        }
    };
    let sets = repository.sets().clone();
    let (before, carry) = carried(tree, &sets, snapshot, before)?;
    let kind = if before.is_some() { options.kind } else { Kind::Full };
    let header = Header {
        store: repository.store(),
        base: base_record.id,
        base_name: base_record.name.clone(),
        mark: snapshot.mark(),
        kind,
        before: before.as_ref().map(|listed| Before { set: listed.id, snapshot: listed.header.mark.id }),
        track_bytes: settings.track_bytes,
        hash_seed: settings.hash_seed,
        bytes: snapshot.record.refers * BLOCK_BYTES as u64,
    };
    let total_bytes = if before.is_some() { 0 } else { header.bytes };
    let mut tell = |bytes| progress(&Progress { files: 0, bytes, total_bytes });
    let mut missing = Vec::new();
    let mut writer = Writer::create(&**sets.shelf(), Id::random(), &header, sets.seal(), options.level)?;
    let mut changes =
        Changes { carry, tell: &mut tell, done: 0, brake: Brake::of(options.limit), missing: &mut missing };
    let written = update(&mut writer, before.as_ref().map(|listed| (&*sets, listed.id)), &mut changes);
    let added = changes.done;
    let summary = written.and_then(|()| writer.finish()).map_err(|error| explain_no_room(target, error))?;
    Ok(Written { summary, kind, added, missing })
}

/// A snapshot that the target has.
fn there_already(snapshot: &Snapshot, found: &Listed) -> BackupReport {
    let (snapshot, set, kind) = (snapshot.record.name.clone(), found.id, found.header.kind);
    BackupReport { snapshot, set, was_there: true, kind, bytes: 0, added: 0, missing: Vec::new() }
}

/// The snapshot of a name, or the newest one.
fn chosen(views: &Views, name: Option<&[u8]>) -> Result<Snapshot> {
    let found = match name {
        Some(name) => views.expect(name)?,
        None => {
            let all = views.snapshots().all()?;
            let newest = all.into_iter().rfind(Snapshot::is_readable);
            let none = || Error::Refused(Errno::NOENT, "there is no snapshot yet; `pitfs snap` takes one".into());
            newest.ok_or_else(none)?
        }
    };
    if found.is_archived || !found.is_readable() {
        let text = format!(
            "{:?} is not in the store any more, or only in part: it cannot be written to a target",
            found.record.name
        );
        return Err(Error::Refused(Errno::INVAL, text));
    }
    Ok(found)
}

/// A set that another one can be made over: what its snapshot showed is known, or from which epoch on it is known what changed.
struct Reference {
    listed: Listed,
    epoch: Epoch,
    /// The snapshot itself is still there.
    is_stored: bool,
}

/// The newest of some sets that is of a snapshot of this store, before another one; in the store by now or not.
fn newest_known<'a>(
    views: &Views,
    snapshot: &Snapshot,
    sets: impl DoubleEndedIterator<Item = &'a Listed>,
) -> Result<Option<Reference>> {
    let here = views.of(snapshot.base);
    let all = here.snapshots().all()?;
    let stored: HashMap<Id, Epoch> =
        all.iter().filter(|one| one.is_readable()).map(|one| (one.record.id, one.epoch)).collect();
    for listed in sets.rev() {
        let id = listed.header.mark.id;
        let is_stored = stored.contains_key(&id);
        let epoch =
            stored.get(&id).copied().map_or_else(|| here.targets().epoch_of_mark(id), |epoch| Ok(Some(epoch)))?;
        if let Some(epoch) = epoch.filter(|epoch| *epoch < snapshot.epoch) {
            return Ok(Some(Reference { listed: listed.clone(), epoch, is_stored }));
        }
    }
    Ok(None)
}

/// What is to be carried, and over which set.
type Carriage<'a> = (Option<Listed>, Box<dyn Iterator<Item = Result<Carried>> + 'a>);

fn carried<'a>(tree: &'a Tree, sets: &'a Sets, snapshot: &Snapshot, before: Option<Reference>) -> Result<Carriage<'a>> {
    let (base, epoch) = (snapshot.base, snapshot.epoch);
    if let Some(Reference { listed, epoch: since, is_stored }) = before {
        if is_stored {
            return Ok((Some(listed), Box::new(Carry::since(tree, base, since, epoch)?)));
        }
        let keys = sets.scan(listed.id, b"", &[0xff])?.map(|entry| entry.map(|entry| entry.key));
        if let Some(beside) = Carry::beside(tree, base, (since, epoch), keys)? {
            return Ok((Some(listed), Box::new(beside)));
        }
    }
    Ok((None, Box::new(Carry::all(tree, base, epoch))))
}

/// A full disk, in words: not the store's is full.
pub(super) fn explain_no_room(target: &Target, error: Error) -> Error {
    if !error.is_no_space() {
        return error;
    }
    let text = format!(
        "there is no room in the target {}: {error}. What was backed up before is whole; make room there, and run this again",
        crate::shown::shown_file(target.path())
    );
    Error::Refused(error.errno(), text)
}
