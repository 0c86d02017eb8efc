//! Backups: snapshots written to a target as sets.
//!
//! A set is made over the newest whole set that is of a snapshot of the same base: what differs between the two is written. Where the
//! store still has that snapshot, both are compared; where it was deleted, what has become what it is since then is written, and what
//! the set has and this snapshot has not. Where there is none, all is.
//!
//! Invariants:
//! - a set is in the target's catalogue when it is whole and durable, and not before;
//! - what takes long is written in parts, each a set of its own that says up to which key its moment goes: whoever goes on, for this
//!   snapshot or a later one, writes what comes behind that key, and what has changed before it;
//! - one that misses something of its snapshot says so, and no other one is ever made over it.

use super::from_sets::is_of_like_store;
use super::targets::{check_newest, note_newest};
use super::{OnProgress, Progress};
use crate::clock::Epoch;
use crate::device::{BaseRecord, Snapshot};
use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::limits::{BLOCK_BYTES, PART_BYTES, PART_TIME, SET_UNIT_BYTES};
use crate::set::{Before, Change, Delta, Header, Key, Kind, Sets, Summary, Writer, update};
use crate::target::{Catalogue, Listed, Repository, Target};
use crate::tree::{Burden, Carried, Carry, Tree};
use crate::view::Views;
use serde_bytes::ByteBuf;
use std::collections::{HashMap, HashSet};
use std::fs::File;
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
    pub parts: Parts,
}

/// Levels of zstd that sets can be compressed with.
pub const LEVELS: std::ops::RangeInclusive<i32> = 1..=19;

pub(super) fn check_level(level: i32) -> Result<()> {
    if LEVELS.contains(&level) {
        return Ok(());
    }
    let text = format!("compression has levels from {} to {}, not {level}", LEVELS.start(), LEVELS.end());
    Err(Error::Refused(Errno::INVAL, text))
}

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
    pub base: String,
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

/// When a set that is long is written in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// A part is whole after so many bytes of files, and so long a time: what is written then stays, whatever happens.
    pub bytes: u64,
    pub time: Duration,
    /// What is broken off before it has so many bytes is not kept.
    pub least: u64,
}

impl Parts {
    /// Nothing is kept before all is there.
    pub(super) const NONE: Parts = Parts { bytes: u64::MAX, time: Duration::MAX, least: u64::MAX };
}

impl Default for Parts {
    fn default() -> Parts {
        Parts { bytes: PART_BYTES, time: PART_TIME, least: SET_UNIT_BYTES as u64 }
    }
}

/// The next element of what is carried, as a set takes it; none any more as soon as a part is whole.
struct Changes<'a, 'p> {
    carry: Box<dyn Iterator<Item = Result<Carried>> + 'a>,
    tell: &'a mut dyn FnMut(u64) -> Result<()>,
    done: u64,
    brake: Brake,
    missing: &'p mut Missing,
    parts: Parts,
    /// The key of the last one.
    last: Vec<u8>,
    /// Up to this key the moment of another snapshot is laid over: what is broken off before is of neither.
    whole_behind: Vec<u8>,
    ended: Ended,
}

/// What could not be read, by path, and why.
type Missing = Vec<(String, String)>;

/// Why no more is carried.
enum Ended {
    /// There is none.
    All,
    Part,
    BrokenOff(Error),
}

impl Changes<'_, '_> {
    /// Whether what there is by now can be a part. What has lost something is nothing that another one can be made over.
    fn can_be_part(&self) -> bool {
        self.last > self.whole_behind && self.missing.is_empty()
    }

    /// Whether it is to be one.
    fn is_part(&self) -> bool {
        self.can_be_part() && self.done >= self.parts.bytes && self.brake.begun.elapsed() >= self.parts.time
    }

    fn delta(&mut self, Carried { table, key, birth, what }: Carried) -> Delta {
        let key = [&[table as u8], &key[..]].concat();
        self.last.clone_from(&key);
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
        Delta { key, birth, change }
    }
}

impl Iterator for Changes<'_, '_> {
    type Item = Result<Delta>;

    fn next(&mut self) -> Option<Result<Delta>> {
        if !matches!(self.ended, Ended::All) {
            return None;
        }
        if self.is_part() {
            self.ended = Ended::Part;
            return None;
        }
        let carried = match self.carry.next()? {
            Ok(carried) => carried,
            Err(error) => return Some(Err(error)),
        };
        let done = self.done + carried.file_bytes();
        if let Err(error) = (self.tell)(done).and_then(|()| self.brake.hold(done, self.tell)) {
            if self.done < self.parts.least || !self.can_be_part() {
                return Some(Err(error));
            }
            self.ended = Ended::BrokenOff(error);
            return None;
        }
        self.done = done;
        Some(Ok(self.delta(carried)))
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
    let which = || chosen(views, options.snapshot.as_deref());
    backup_of(views, (target, key), &which, options, progress)
}

/// Writes the snapshot that is meant by the time that nobody else writes to the target.
pub(super) fn backup_of(
    views: &Views,
    (target, key): (&Target, Option<&Key>),
    which: &dyn Fn() -> Result<Snapshot>,
    options: &BackupOptions,
    progress: OnProgress<'_>,
) -> Result<BackupReport> {
    check_level(options.level)?;
    // One at a time: two would not see each other's sets.
    let _locked = locked(target, progress)?;
    let mut repository = target.repository(views.targets().store()?, key)?;
    check_newest(target, &mut repository, views.targets().seen(target.id())?)?;
    // What an interruption left, or finished and did not list.
    repository.sweep()?;
    let snapshot = which()?;
    if let Some(found) = repository.catalogue().of_snapshot(snapshot.record.id)
        && (options.kind != Kind::Full || found.header.kind == Kind::Full)
    {
        let found = there_already(&snapshot, found);
        views.targets().mark(&snapshot)?;
        return Ok(found);
    }
    let gone = repository.gone()?;
    let is_good = |listed: &Listed| !listed.needs.iter().any(|id| gone.contains(id));
    let Written { summary, kind, bytes, added, missing } =
        write(views, (target, &mut repository), &snapshot, options, &is_good, progress)?;
    let file = repository.sets().file(summary.id)?;
    repository.add(&file)?;
    note_newest(views, target, &repository)?;
    if missing.is_empty() {
        views.targets().mark(&snapshot)?;
    }
    let set = summary.id;
    let (base, snapshot) = (views.base_name()?, snapshot.record.name);
    Ok(BackupReport { base, snapshot, set, was_there: false, kind, bytes, added, missing })
}

/// A set that was written, and is in no list yet.
pub(super) struct Written {
    pub summary: Summary,
    pub kind: Kind,
    /// Bytes at the target, with those of parts.
    pub bytes: u64,
    pub added: u64,
    pub missing: Missing,
}

/// Writes a snapshot as a set, over the newest of those that are good for that. Parts of it are taken into the catalogue one after the
/// other, and what is there of one is not written again.
pub(super) fn write(
    views: &Views,
    (target, repository): (&Target, &mut Repository),
    snapshot: &Snapshot,
    options: &BackupOptions,
    is_good: IsGood<'_>,
    progress: OnProgress<'_>,
) -> Result<Written> {
    let (mut bytes, mut added) = (0, 0);
    let sets = repository.sets().clone();
    // Those that turned out to be damaged.
    let mut bad: HashSet<Id> = HashSet::new();
    loop {
        let is_good = |listed: &Listed| is_good(listed) && !bad.contains(&listed.id);
        let mut over = None;
        let piece = Piece::of(views, (&sets, repository.catalogue()), snapshot, options, (&is_good, &mut over));
        let written = piece.and_then(|piece| {
            piece.part.as_ref().map_or(Ok(()), |part| check_index(&sets, part.id))?;
            let kind = piece.kind;
            let written = piece.write((&sets, repository.store()), options, progress);
            written.map(|(summary, ended, missing)| (kind, summary, ended, missing))
        });
        let (kind, summary, ended, missing) = match (written, over) {
            (Err(error @ (Error::Corrupt { .. } | Error::Store(_))), Some(over)) => {
                log::warn!("nothing is made over the set {over}: {error}");
                bad.insert(over);
                continue;
            }
            (written, _) => written.map_err(|error| explain_no_room(target, error))?,
        };
        (bytes, added) = (bytes + summary.bytes, added + summary.added);
        if let Ended::All = ended {
            return Ok(Written { summary, kind, bytes, added, missing });
        }
        let file = repository.sets().file(summary.id)?;
        repository.add(&file)?;
        note_newest(views, target, repository)?;
        // It can be gone on with when the snapshot is not there any more.
        views.targets().mark(snapshot)?;
        if let Ended::BrokenOff(error) = ended {
            return Err(error);
        }
    }
}

/// Writes a snapshot as a set that needs no other one, to where nothing can be read.
pub(super) fn write_alone(
    views: &Views,
    (sets, store): (&Sets, Id),
    snapshot: &Snapshot,
    options: &BackupOptions,
    progress: OnProgress<'_>,
) -> Result<Written> {
    let options = BackupOptions { kind: Kind::Full, parts: Parts::NONE, ..options.clone() };
    let piece = Piece::of(views, (sets, &Catalogue::default()), snapshot, &options, (&|_| false, &mut None))?;
    let (summary, _, missing) = piece.write((sets, store), &options, progress)?;
    let (bytes, added) = (summary.bytes, summary.added);
    Ok(Written { summary, kind: Kind::Full, bytes, added, missing })
}

/// Whether something can be made over a set.
type IsGood<'a> = &'a dyn Fn(&Listed) -> bool;

/// That all of a set can be read but the bytes of files. Something broke off what it is a part of, and nodes of it that are kept are
/// not read otherwise.
fn check_index(sets: &Sets, id: Id) -> Result<()> {
    let mut found = Ok(());
    sets.file(id)?.verify(Some(0), &mut |_, damaged| {
        if let (Some((_, error)), true) = (damaged, found.is_ok()) {
            found = Err(error);
        }
        Ok(())
    })?;
    found
}

/// What is written of a moment in one go.
struct Piece<'a> {
    views: &'a Views,
    snapshot: &'a Snapshot,
    base: BaseRecord,
    kind: Kind,
    /// The set that the moment builds on, and the part of the moment that is there.
    before: Option<Listed>,
    part: Option<Listed>,
    whole_behind: Vec<u8>,
    carry: Box<dyn Iterator<Item = Result<Carried>> + 'a>,
}

impl<'a> Piece<'a> {
    fn of(
        views: &'a Views,
        (sets, catalogue): (&'a Sets, &Catalogue),
        snapshot: &'a Snapshot,
        options: &BackupOptions,
        (is_good, over): (IsGood<'_>, &mut Option<Id>),
    ) -> Result<Piece<'a>> {
        let base = views.tree().device().look()?.base_record(snapshot.base)?.clone();
        let is_ours = |listed: &&Listed| {
            let is_of_base = listed.header.base == base.id && is_of_like_store(views, &listed.header);
            is_of_base && listed.missing == 0 && is_good(listed)
        };
        let (known, can_be_beside) = (Known::of(views, snapshot)?, Carry::can_be_beside(views.tree(), snapshot.base)?);
        let before = match options.kind {
            Kind::Full => None,
            kind => {
                let may_be = |listed: &&Listed| {
                    is_ours(listed) && (kind == Kind::Incremental || listed.header.kind == Kind::Full)
                };
                known.newest(snapshot, catalogue.moments().filter(may_be))?
            }
        };
        let before = before.filter(|before| before.is_stored || can_be_beside);
        let kind = if before.is_some() { options.kind } else { Kind::Full };
        let built_on = before.as_ref().map(|before| before.listed.id);
        let goes_on = |part: &&Listed| {
            is_ours(part) && part.header.kind == kind && part.header.before.map(|before| before.set) == built_on
        };
        let part = known.part(snapshot, can_be_beside, catalogue.parts().filter(goes_on))?;
        *over = part.as_ref().or(before.as_ref()).map(|one| one.listed.id);
        let carry = carried(views.tree(), sets, snapshot, before.as_ref(), part.as_ref())?;
        let other = part.as_ref().filter(|part| part.epoch < snapshot.epoch).and_then(|part| part.listed.part.clone());
        let whole_behind = other.map(ByteBuf::into_vec).unwrap_or_default();
        let (before, part) = (before.map(|before| before.listed), part.map(|part| part.listed));
        Ok(Piece { views, snapshot, base, kind, before, part, whole_behind, carry })
    }

    fn header(&self, store: Id) -> Header {
        let settings = self.views.tree().device().settings();
        let before = |listed: &Listed| Before { set: listed.id, snapshot: listed.header.mark.id };
        Header {
            store,
            base: self.base.id,
            base_name: self.base.name.clone(),
            mark: self.snapshot.mark(),
            kind: self.kind,
            before: self.before.as_ref().map(before),
            track_bytes: settings.track_bytes,
            hash_seed: settings.hash_seed,
            bytes: self.snapshot.record.refers * BLOCK_BYTES as u64,
            reverse: None,
        }
    }

    /// Writes it, until all is written or a part is whole.
    fn write(
        self,
        (sets, store): (&Sets, Id),
        options: &BackupOptions,
        progress: OnProgress<'_>,
    ) -> Result<(Summary, Ended, Missing)> {
        let header = self.header(store);
        let total_bytes = if self.before.is_some() { 0 } else { header.bytes };
        let there = match (&self.before, &self.part) {
            (None, Some(part)) => sets.file(part.id)?.foot().sets.iter().map(|share| share.bytes).sum(),
            _ => 0,
        };
        let mut tell = |bytes| progress(&Progress { files: 0, bytes: there + bytes, total_bytes });
        let mut missing = Missing::new();
        let mut writer = Writer::create(&**sets.shelf(), Id::random(), &header, sets.seal(), options.level)?;
        let over = self.part.as_ref().or(self.before.as_ref()).map(|listed| (sets, listed.id));
        let mut changes = Changes {
            carry: self.carry,
            tell: &mut tell,
            done: 0,
            brake: Brake::of(options.limit),
            missing: &mut missing,
            parts: options.parts,
            last: Vec::new(),
            whole_behind: self.whole_behind,
            ended: Ended::All,
        };
        update(&mut writer, over, &mut changes)?;
        let (last, ended) = (changes.last, changes.ended);
        let summary = if let Ended::All = ended { writer.finish()? } else { writer.finish_part(last)? };
        Ok((summary, ended, missing))
    }
}

/// The lock of a target, when nobody else has it any more.
fn locked(target: &Target, progress: OnProgress<'_>) -> Result<File> {
    loop {
        match target.lock() {
            Err(Error::Refused(Errno::BUSY, _)) => std::thread::sleep(WAIT),
            locked => return locked,
        }
        progress(&Progress::default())?;
    }
}

/// A snapshot that the target has.
fn there_already(snapshot: &Snapshot, found: &Listed) -> BackupReport {
    let (base, snapshot) = (found.header.base_name.clone(), snapshot.record.name.clone());
    let (set, kind) = (found.id, found.header.kind);
    BackupReport { base, snapshot, set, was_there: true, kind, bytes: 0, added: 0, missing: Vec::new() }
}

/// The snapshot of a name, or the newest one.
pub(super) fn chosen(views: &Views, name: Option<&[u8]>) -> Result<Snapshot> {
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

/// What a store knows of the snapshots of sets.
struct Known {
    here: Views,
    stored: HashMap<Id, Epoch>,
}

impl Known {
    /// Of the base of a snapshot.
    fn of(views: &Views, snapshot: &Snapshot) -> Result<Known> {
        let here = views.of(snapshot.base);
        let all = here.snapshots().all()?.into_iter().filter(Snapshot::is_readable);
        let stored = all.map(|one| (one.record.id, one.epoch)).collect();
        Ok(Known { here, stored })
    }

    /// A set, if the epoch of its snapshot is known: that is in the store, or was.
    fn reference(&self, listed: &Listed) -> Result<Option<Reference>> {
        let id = listed.header.mark.id;
        let stored = self.stored.get(&id).copied();
        let epoch = stored.map_or_else(|| self.here.targets().epoch_of_mark(id), |epoch| Ok(Some(epoch)))?;
        Ok(epoch.map(|epoch| Reference { listed: listed.clone(), epoch, is_stored: stored.is_some() }))
    }

    /// The newest of some sets that is of a snapshot before another one.
    fn newest<'a>(
        &self,
        snapshot: &Snapshot,
        sets: impl DoubleEndedIterator<Item = &'a Listed>,
    ) -> Result<Option<Reference>> {
        for listed in sets.rev() {
            if let Some(found) = self.reference(listed)?.filter(|found| found.epoch < snapshot.epoch) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The part that is worth going on with: the furthest of the newest snapshot, this one or one before.
    fn part<'a>(
        &self,
        snapshot: &Snapshot,
        can_be_beside: bool,
        parts: impl Iterator<Item = &'a Listed>,
    ) -> Result<Option<Reference>> {
        let mut best: Option<Reference> = None;
        for listed in parts {
            let is_of_use = |found: &Reference| found.epoch <= snapshot.epoch && (found.is_stored || can_be_beside);
            let Some(found) = self.reference(listed)?.filter(is_of_use) else { continue };
            let is_behind = |best: &Reference| (best.epoch, &best.listed.part) < (found.epoch, &found.listed.part);
            if best.as_ref().is_none_or(is_behind) {
                best = Some(found);
            }
        }
        Ok(best)
    }
}

/// What is to be carried, over a set, and over a part of the moment.
fn carried<'a>(
    tree: &'a Tree,
    sets: &'a Sets,
    snapshot: &Snapshot,
    before: Option<&Reference>,
    part: Option<&Reference>,
) -> Result<Box<dyn Iterator<Item = Result<Carried>> + 'a>> {
    let (base, epoch) = (snapshot.base, snapshot.epoch);
    let last = part.and_then(|part| part.listed.part.as_ref()).map_or(&[][..], |last| last.as_slice());
    let rest: Box<dyn Iterator<Item = _>> = match before {
        None => Box::new(Carry::all(tree, base, epoch).behind(last)),
        Some(Reference { epoch: since, is_stored: true, .. }) => {
            Box::new(Carry::since(tree, base, *since, epoch)?.behind(last))
        }
        Some(Reference { listed, epoch: since, is_stored: false }) => {
            let from = if last.is_empty() { Vec::new() } else { [last, &[0]].concat() };
            let keys = sets.scan(listed.id, &from, &[0xff])?.map(|entry| entry.map(|entry| entry.key));
            Box::new(Carry::all(tree, base, epoch).behind(last).beside(*since, keys))
        }
    };
    Ok(match part {
        // What has changed since in what is there of it comes first.
        Some(part) if part.epoch < epoch && part.is_stored => {
            Box::new(Carry::since(tree, base, part.epoch, epoch)?.up_to(last).chain(rest))
        }
        Some(part) if part.epoch < epoch => {
            let keys =
                sets.scan(part.listed.id, &[], &[last, &[0]].concat())?.map(|entry| entry.map(|entry| entry.key));
            Box::new(Carry::all(tree, base, epoch).up_to(last).beside(part.epoch, keys).chain(rest))
        }
        _ => rest,
    })
}

/// A full disk, in words: not the store's is full.
pub(super) fn explain_no_room(target: &Target, error: Error) -> Error {
    if !error.is_no_space() {
        return error;
    }
    let text = format!(
        "there is no room in the target {}: {error}. What was backed up before is whole; make room there, and run this again, or resume the job",
        crate::shown::shown_file(target.path())
    );
    Error::Refused(error.errno(), text)
}
