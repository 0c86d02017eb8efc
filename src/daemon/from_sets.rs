//! A store made of what a target has of one: with its newest moment, or with all; and a base of one of its moments.
//!
//! The directory is no store before all is there. A file in it says from what it is being made; who makes it once more from the same
//! goes on where it was left, and any other begins anew.
//!
//! Invariant: a moment is laid over the one before it as the differences of both, said absolutely: what was laid over already is laid
//! over once more.

use super::identity::{self, Made};
use super::keeping::{chosen, verify_sets};
use super::lock::{Lock, Use};
use super::targets::AtTarget;
use super::{OnProgress, Progress};
use crate::clock::{Timestamp, parse_until};
use crate::device::{BaseId, Snapshot};
use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::logstore::Codec;
use crate::media::{DiskDir, MediaDir};
use crate::set::{Entry, Header, Mark, Sets, Spot, Value};
use crate::shown::{shown, shown_file, size};
use crate::target::{Listed, Repository};
use crate::tree::{Adopted, Adoption, CreateOptions, Tree};
use crate::view::{Views, adopt_base, adopt_snapshot, note_adopted};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

/// What a store is to be made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromSets {
    /// All moments, not the newest of each base alone.
    pub with_history: bool,
    pub codec: Codec,
    /// Bytes of a track; without a number, as in the sets.
    pub track_bytes: Option<usize>,
}

/// What was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FromSetsReport {
    pub snapshots: u64,
    /// Bytes of tracks that were read from the sets.
    pub bytes: u64,
    /// Snapshots that were left out, and sets of which it cannot be told what they have; each with the reason.
    pub left_out: Vec<String>,
}

/// Makes a store in a directory that is not there or empty. Moments of which something cannot be read are left out.
pub fn create_from_sets(
    path: &Path,
    repository: &Repository,
    options: &FromSets,
    progress: OnProgress<'_>,
) -> Result<FromSetsReport> {
    let is_new = path.symlink_metadata().is_err();
    let (wanted, left_out) = wanted_of(repository, options, &HashMap::new())?;
    let Some(first) = wanted.first() else {
        let text = format!("there is no whole set of the store {} there yet", repository.store());
        return Err(Error::Refused(Errno::NOENT, text));
    };
    let settings = CreateOptions {
        track_bytes: options.track_bytes.unwrap_or(first.header.track_bytes as usize),
        codec: options.codec,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mode: 0o755,
        hash_seed: first.header.hash_seed,
    };
    let make = |wanted: &[&Listed], left_out: Vec<String>, progress: OnProgress<'_>| {
        let source = source(repository, options, wanted);
        let made = identity::prepare_filling(path, &source)?;
        let report = FromSetsReport { left_out, ..Default::default() };
        Making { made: &made, repository, wanted, report }.run(&settings, &source, progress)
    };
    let error = match make(&wanted, left_out, &mut *progress) {
        Err(error @ (Error::Corrupt { .. } | Error::Store(_) | Error::Media { .. })) if !error.is_no_space() => error,
        result => return result.map_err(|error| in_words(error, path)),
    };
    // What else cannot be read is known before it is begun anew.
    let damaged = damaged_moments(repository, &mut *progress)?;
    if !wanted.iter().any(|listed| damaged.contains_key(&listed.id)) {
        return Err(error);
    }
    let (whole, left_out) = wanted_of(repository, options, &damaged)?;
    if whole.is_empty() {
        identity::prepare_directory(path)?.undo_as(is_new);
        let text = format!(
            "no moment that is wanted can be read whole: {error}; `pitfs restore --from TARGET SNAPSHOT --to DIR` copies out what can \
             be read"
        );
        return Err(Error::Refused(Errno::IO, text));
    }
    make(&whole, left_out, progress).map_err(|error| in_words(error, path))
}

fn in_words(error: Error, path: &Path) -> Error {
    match error.is_no_space() && !matches!(error, Error::Refused(..)) {
        true => {
            let text = format!(
                "there is no room in {}: make some, and give this command once more to go on",
                shown_file(path)
            );
            Error::Refused(Errno::NOSPC, text)
        }
        false => error,
    }
}

/// The sets of moments that have lost something, and what.
fn damaged_moments(repository: &Repository, progress: OnProgress<'_>) -> Result<HashMap<Id, String>> {
    let mut damaged = HashMap::new();
    for one in verify_sets(repository, None, progress)? {
        let lost = &one.lost;
        let first = lost.index.first().or(one.problems.first()).cloned();
        let why = match (lost.paths.first(), lost.paths.len() as u64 + lost.more_paths) {
            (Some(path), 1) => format!("{path} cannot be read"),
            (Some(path), count) => format!("{path} and {} more cannot be read", count - 1),
            (None, _) => first.unwrap_or_default(),
        };
        if !lost.is_nothing() {
            damaged.insert(one.listed.id, why);
        }
    }
    Ok(damaged)
}

/// The moments that are to be in it, the oldest first, and what is left out, such as what is known to be damaged.
fn wanted_of<'a>(
    repository: &'a Repository,
    options: &FromSets,
    damaged: &HashMap<Id, String>,
) -> Result<(Vec<&'a Listed>, Vec<String>)> {
    let (mut found, mut seen, mut left_out) = (Vec::new(), HashSet::new(), Vec::new());
    let mut newest: HashMap<Id, &Listed> = HashMap::new();
    let gone = repository.gone()?;
    for listed in repository.catalogue().moments() {
        let mark = &listed.header.mark;
        if listed.missing > 0 {
            left_out.push((mark, "not all of it could be read when it was backed up".to_string()));
        } else if let Some(set) = listed.needs.iter().find(|id| gone.contains(id)) {
            left_out.push((mark, format!("the set {set}, which has some of it, is not there")));
        } else if let Some(why) = damaged.get(&listed.id) {
            left_out.push((mark, why.clone()));
        } else if seen.insert(mark.id) {
            newest.insert(listed.header.base, listed);
            found.push(listed);
        }
    }
    // What is there whole as well is not left out.
    left_out.retain(|(mark, _)| !found.iter().any(|listed| listed.header.mark.id == mark.id));
    let told = |(mark, why): (&Mark, String)| format!("{}: {why}; it is left out", mark.name);
    let mut left_out: Vec<String> = left_out.into_iter().map(told).collect();
    left_out.extend(repository.unread.iter().map(|(id, why)| format!("{why}; what the set {id} has is left out")));
    if !options.with_history {
        found.retain(|listed| newest.get(&listed.header.base).is_some_and(|last| last.id == listed.id));
    }
    let sizes = |listed: &&Listed| (listed.header.track_bytes, listed.header.hash_seed);
    if let Some(other) = found.iter().find(|listed| sizes(listed) != sizes(&found[0])) {
        let text = format!("the set {} is of a store with other tracks than the first", other.id);
        return Err(Error::Refused(Errno::INVAL, text));
    }
    Ok((found, left_out))
}

/// What a store is made from, all of it, so that it can be told whether it is the same once more: what was laid over of a moment that
/// is not there any more would stay.
fn source(repository: &Repository, options: &FromSets, wanted: &[&Listed]) -> String {
    let ids: Vec<[u8; 16]> = wanted.iter().map(|listed| listed.id.to_bytes()).collect();
    let all = Id::of_parts("sets", &ids.iter().map(|id| &id[..]).collect::<Vec<_>>());
    let what = if options.with_history { "history" } else { "newest" };
    let how = (options.codec, options.track_bytes);
    format!("pitfs store being made\nof {} {what} from {all}\n{how:?}\n", repository.store())
}

struct Making<'a> {
    made: &'a Made,
    repository: &'a Repository,
    wanted: &'a [&'a Listed],
    report: FromSetsReport,
}

impl Making<'_> {
    fn run(mut self, settings: &CreateOptions, source: &str, progress: OnProgress<'_>) -> Result<FromSetsReport> {
        let lock = Lock::take(&self.made.directory, &Use::Command)?;
        let dir: Arc<dyn MediaDir> = Arc::new(DiskDir::of(lock.directory().clone()));
        if !self.made.goes_on {
            let begun = self.check_room(&*dir).and_then(|()| Tree::create(dir.clone(), settings));
            let noted = begun.and_then(|()| identity::note_filling(lock.directory(), source));
            noted.inspect_err(|_| self.made.undo())?;
        }
        let views = Views::new(Tree::open(dir)?);
        self.fill(&views, progress)?;
        // With other tracks it is another store to the target: a difference to what is there could not say what it has.
        if self.wanted.iter().all(|listed| is_of_like_store(&views, &listed.header)) {
            views.targets().keep_as(self.repository.store())?;
        }
        note_adopted(&views, &format!("create --from-set {:?}", self.repository.sets().shelf().describe()))?;
        drop(views);
        identity::write(lock.directory())?;
        identity::end_filling(lock.directory())?;
        Ok(self.report)
    }

    /// Refuses what will not fit, before a byte is written.
    fn check_room(&self, dir: &dyn MediaDir) -> Result<()> {
        let newest: HashMap<Id, &Listed> = self.wanted.iter().map(|listed| (listed.header.base, *listed)).collect();
        let is_newest = |listed: &&&Listed| newest.get(&listed.header.base).is_some_and(|last| last.id == listed.id);
        // What the moments before had differently takes about what it does in the sets.
        let needs = |listed: &&Listed| if is_newest(&listed) { listed.header.bytes } else { listed.bytes };
        let needs = self.wanted.iter().map(needs).fold(0, u64::saturating_add);
        let room = dir.room().map_err(|error| Error::media("looking for room", error))?;
        if needs > room.available {
            let (needs, has) = (size(needs), size(room.available));
            let text = format!("{} needs about {needs}, and has {has}", shown_file(self.made.directory.path()));
            return Err(Error::Refused(Errno::NOSPC, text));
        }
        Ok(())
    }

    fn fill(&mut self, views: &Views, progress: OnProgress<'_>) -> Result<()> {
        let mut bases: HashMap<Id, (BaseId, Option<Id>)> = HashMap::new();
        let total_bytes = self.wanted.iter().map(|listed| listed.bytes).sum();
        let (mut files, mut done) = (0, 0);
        let there = snapshots_of(views)?;
        for listed in self.wanted {
            let header = &listed.header;
            let (base, before) = match bases.get(&header.base) {
                Some(found) => *found,
                None => (adopt_base(views, header.base, &header.base_name, header.mark.time)?, None),
            };
            let here = views.of(base);
            if !there.contains(&header.mark.id) {
                let sets = self.repository.sets();
                let mut tell = |bytes| {
                    files += 1;
                    progress(&Progress { files, bytes: done + bytes, total_bytes })
                };
                self.report.bytes += lay_over(&here, sets, before, listed.id, &mut tell)?;
                here.targets().mark(&adopt_snapshot(&here, &header.mark)?)?;
            }
            self.report.snapshots += 1;
            done += listed.bytes;
            bases.insert(header.base, (base, Some(listed.id)));
        }
        Ok(())
    }
}

/// The snapshots that an interrupted beginning has brought back.
fn snapshots_of(views: &Views) -> Result<HashSet<Id>> {
    let mut there = HashSet::new();
    for base in views.bases().all()? {
        there.extend(views.of(base.id).snapshots().all()?.into_iter().map(|snapshot| snapshot.record.id));
    }
    Ok(there)
}

/// Lets a base be what a set's moment is, where it is what that of another one is, or empty; bytes of tracks that were read.
pub(super) fn lay_over(
    views: &Views,
    sets: &Sets,
    before: Option<Id>,
    moment: Id,
    tell: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<u64> {
    let track_bytes = sets.file(moment)?.header().track_bytes;
    let mut adoption = Adoption::into(views.tree(), views.base(), track_bytes.into());
    let mut bytes = 0;
    let mut take = |adoption: &mut Adoption<'_>, key: &[u8], entry: Option<Entry<Spot>>| {
        let what = match entry.map(|entry| entry.value) {
            None => Adopted::Gone,
            Some(Value::Record(value)) => Adopted::Record(value),
            Some(Value::Track { len, place }) => {
                bytes += u64::from(len);
                Adopted::Track(sets.read(&place, len)?)
            }
            Some(Value::Lost) => {
                return Err(Error::corrupt(format!("the set {moment}"), "it has not all of its moment"));
            }
        };
        tell(bytes)?;
        adoption.take(key, what)
    };
    match before {
        None => {
            for entry in sets.scan(moment, b"", &[0xff])? {
                let entry = entry?;
                take(&mut adoption, &entry.key.clone(), Some(entry))?;
            }
        }
        Some(before) => {
            for differing in sets.differences(before, moment)? {
                let (key, was, is) = differing?;
                let was = was.map(|entry| entry.value);
                if was.as_ref() == is.as_ref().map(|entry| &entry.value) {
                    continue;
                }
                let record = if let Some(Value::Record(record)) = &was { Some(record.as_slice()) } else { None };
                adoption.begin(&key, record)?;
                take(&mut adoption, &key, is)?;
            }
        }
    }
    adoption.finish()?;
    Ok(bytes)
}

/// Makes a base of a moment that a target has, named as snapshots are. What the store still has of a snapshot that it is like is
/// shared with that; only the rest is read. It is shown when it is whole.
pub fn base_from_set(
    views: &Views,
    at: &AtTarget,
    (snapshot, name): (&[u8], &[u8]),
    progress: OnProgress<'_>,
) -> Result<BaseId> {
    let repository = &at.repository;
    let listed = moment_named(at, snapshot, None)?;
    if listed.missing > 0 {
        let text = format!("the set of {:?} is incomplete; copy what it has with --to", shown(snapshot));
        return Err(Error::Refused(Errno::INVAL, text));
    }
    let header = &listed.header;
    check_is_of_like_store(views, header)?;
    let like = alike(views, repository, &listed, None)?;
    if like.is_none() {
        let available = views.tree().space()?.available;
        if header.bytes > available {
            let (needs, has) = (size(header.bytes), size(available));
            return Err(Error::Refused(Errno::NOSPC, format!("it needs about {needs}, and the store has {has}")));
        }
    }
    let base = views.bases().begin_filling_from_set(like.as_ref().map(|like| &like.snapshot), name)?;
    let (mut files, before) = (0, like.map(|like| like.set));
    let mut tell = |bytes| {
        files += 1;
        progress(&Progress { files, bytes, total_bytes: if before.is_some() { 0 } else { header.bytes } })
    };
    let laid = lay_over(&views.of(base), repository.sets(), before, listed.id, &mut tell);
    let what = format!("restore --from {:?} {:?} --to-base {:?}", at.target.path(), header.mark.name, shown(name));
    match laid.and_then(|_| views.bases().end_filling_from_set(base, &what)) {
        Ok(()) => Ok(base),
        Err(error) => {
            views.bases().give_up_filling(base)?;
            Err(error)
        }
    }
}

/// The moment of a name, of a set's id, or of `@TIME`: the newest that is not after that time. Whole ones come first, and so do
/// those of a base, if its name is given.
pub(super) fn moment_named(at: &AtTarget, name: &[u8], base: Option<&str>) -> Result<Listed> {
    let mut found = match std::str::from_utf8(name).ok().and_then(|name| name.strip_prefix('@')) {
        Some(text) => {
            let time = parse_until(text, Timestamp::now())?;
            at.repository.check_all_known()?;
            let mut all: Vec<&Listed> = at.repository.catalogue().moments().collect();
            all.retain(|listed| listed.header.mark.time <= time);
            if all.iter().any(|listed| base == Some(&listed.header.base_name)) {
                all.retain(|listed| base == Some(&listed.header.base_name));
            }
            let newest = all.last().map(|listed| listed.header.mark.id);
            all.into_iter().filter(|listed| Some(listed.header.mark.id) == newest).cloned().collect()
        }
        None => match base.map(|base| chosen(at, &[[base.as_bytes(), b":", name].concat()])) {
            Some(Ok(found)) => found,
            _ => chosen(at, &[name.to_vec()])?,
        },
    };
    let shown = shown(name);
    if found.is_empty() {
        return Err(Error::Refused(Errno::NOENT, format!("the target has no moment that old: {shown}")));
    }
    found.retain(|listed| listed.part.is_none());
    let whole = found.iter().rfind(|listed| listed.missing == 0);
    let part =
        || Error::Refused(Errno::NOENT, format!("{shown} is only a part of a moment: its backup was interrupted"));
    whole.or(found.last()).cloned().ok_or_else(part)
}

/// Whether tracks and entries are in a set as they are here.
pub(super) fn is_of_like_store(views: &Views, header: &Header) -> bool {
    let settings = views.tree().device().settings();
    (header.track_bytes, header.hash_seed) == (settings.track_bytes, settings.hash_seed)
}

/// Whether what a set has can be looked into here, and taken over.
pub(super) fn check_is_of_like_store(views: &Views, header: &Header) -> Result<()> {
    if is_of_like_store(views, header) {
        return Ok(());
    }
    let text = "it is of another store, which keeps files differently: copy it out with --to, and bring that in with `pitfs put` or \
                `pitfs sync`";
    Err(Error::Refused(Errno::INVAL, text.into()))
}

/// A snapshot in the store, and the set that has it.
pub(super) struct Alike {
    pub snapshot: Snapshot,
    pub set: Id,
}

/// The one that is nearest to a moment: of the same base, both before and after it. In any base of the store, or in one.
pub(super) fn alike(
    views: &Views,
    repository: &Repository,
    wanted: &Listed,
    only: Option<BaseId>,
) -> Result<Option<Alike>> {
    let gone = repository.gone()?;
    let mut nearest: Option<(i64, Alike)> = None;
    for base in views.bases().all()?.into_iter().filter(|base| only.is_none_or(|only| base.id == only)) {
        for snapshot in views.of(base.id).snapshots().all()? {
            let Some(listed) = repository.catalogue().of_snapshot(snapshot.record.id) else { continue };
            let is_whole = !listed.needs.iter().any(|id| gone.contains(id));
            if !is_of_like_store(views, &listed.header)
                || listed.header.base != wanted.header.base
                || !snapshot.is_readable()
                || snapshot.is_archived
                || !is_whole
            {
                continue;
            }
            let away = (listed.header.mark.time.seconds - wanted.header.mark.time.seconds).abs();
            if nearest.as_ref().is_none_or(|(least, _)| away < *least) {
                nearest = Some((away, Alike { snapshot, set: listed.id }));
            }
        }
    }
    Ok(nearest.map(|(_, alike)| alike))
}
