//! What is done with the sets of a store at a target: read and verified, let go, merged, and packed anew where much of one is of no
//! use any more.
//!
//! Every moment is whole by itself: what lies between two is let go without touching either. So merging moves no bytes, and what
//! takes room is what nothing shows any more, in sets that others still need.

use super::backup::{BackupOptions, Parts, write};
use super::targets::AtTarget;
use super::{LEVEL, OnProgress, Progress};
use crate::clock::Timestamp;
use crate::device::Snapshot;
use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::set::{Kind, SetFile, Spot, recast_all};
use crate::shown::{shown, shown_file};
use crate::target::{Listed, Repository, Retention};
use crate::tree::{Lost, lost_of};
use crate::view::Views;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A set as it was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedSet {
    pub listed: Listed,
    pub problems: Vec<String>,
    /// What its moment has lost by that, or by what is wrong with others.
    pub lost: Lost,
}

/// What went from a target, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetGo {
    pub gone: Vec<Listed>,
    /// What stays, and why.
    pub kept: Vec<(Listed, Vec<String>)>,
    /// Bytes that are free then.
    pub freed: u64,
    /// Bytes that were written anew.
    pub written: u64,
    pub is_dry_run: bool,
}

/// Reads sets and verifies them: all of their bytes, or all but data and so many hundredths of it.
pub fn verify_sets(repository: &Repository, share: Option<u8>, progress: OnProgress<'_>) -> Result<Vec<VerifiedSet>> {
    let all = repository.catalogue().sets();
    let total_bytes = all.iter().map(|listed| listed.bytes).sum();
    let mut bytes = 0;
    let (mut verified, mut damage) = (Vec::new(), Damage::default());
    damage.sets.extend(repository.gone()?);
    for listed in all {
        let mut problems = Vec::new();
        match repository.sets().file(listed.id) {
            Ok(file) => file.verify(share, &mut |read, damaged| {
                bytes += read;
                if let Some((offset, error)) = damaged {
                    damage.frames.insert((listed.id, offset));
                    problems.push(error.to_string());
                }
                progress(&Progress { files: verified.len() as u64, bytes, total_bytes })
            })?,
            Err(error @ (Error::Corrupt { .. } | Error::Store(_) | Error::Media { .. })) => {
                damage.sets.insert(listed.id);
                problems.push(error.to_string())
            }
            Err(error) => return Err(error),
        }
        verified.push(VerifiedSet { listed: listed.clone(), problems, lost: Lost::default() });
    }
    if damage.is_nothing() {
        return Ok(verified);
    }
    for one in verified.iter_mut().filter(|one| one.listed.is_moment() && damage.can_be_in(&one.listed)) {
        one.lost = lost_of(repository.sets(), one.listed.id, &|spot| damage.is_in(spot))?;
        for needed in one.listed.needs.iter().filter(|id| **id != one.listed.id && damage.sets.contains(id)) {
            one.problems.push(format!("it needs the set {needed}, which is not there or cannot be opened"));
        }
    }
    Ok(verified)
}

/// What is damaged at a target.
#[derive(Default)]
struct Damage {
    /// Sets of which nothing can be read.
    sets: HashSet<Id>,
    frames: HashSet<(Id, u64)>,
}

impl Damage {
    fn is_nothing(&self) -> bool {
        self.sets.is_empty() && self.frames.is_empty()
    }

    fn is_in(&self, spot: &Spot) -> bool {
        self.sets.contains(&spot.set) || self.frames.contains(&(spot.set, spot.offset))
    }

    /// Whether a moment can have lost something.
    fn can_be_in(&self, listed: &Listed) -> bool {
        let is_damaged = |id: &Id| self.sets.contains(id) || self.frames.iter().any(|(set, _)| set == id);
        is_damaged(&listed.id) || listed.needs.iter().any(is_damaged)
    }
}

/// What was mended at a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Moments that had lost something, and were written anew out of the store.
    pub mended: Vec<Listed>,
    /// Those that are as they were, and why.
    pub left: Vec<(VerifiedSet, String)>,
    pub freed: u64,
    pub written: u64,
}

/// Verifies all sets, and writes moments anew that have lost something, where the store still has their snapshots.
pub fn repair_sets(at: &mut AtTarget, views: &Views, progress: OnProgress<'_>) -> Result<Repaired> {
    let _locked = at.lock()?;
    let verified = verify_sets(&at.repository, None, progress)?;
    let bad: HashSet<Id> = verified
        .iter()
        .filter(|one| !one.problems.is_empty())
        .map(|one| one.listed.id)
        .chain(at.repository.gone()?)
        .collect();
    let mut repaired = Repaired::default();
    // What is only a part is written again by whoever goes on.
    let parts: Vec<Id> = at.repository.catalogue().parts().map(|part| part.id).filter(|id| bad.contains(id)).collect();
    if !parts.is_empty() {
        repaired.freed += at.repository.let_go(&parts, Vec::new())?;
    }
    let mut stored: HashMap<Id, Snapshot> = HashMap::new();
    for base in views.bases().all()? {
        let all = views.of(base.id).snapshots().all()?.into_iter().filter(|one| one.is_readable() && !one.is_archived);
        stored.extend(all.map(|one| (one.record.id, one)));
    }
    for one in
        verified.into_iter().filter(|one| one.listed.is_moment() && !(one.lost.is_nothing() && one.problems.is_empty()))
    {
        let Some(snapshot) = stored.get(&one.listed.header.mark.id) else {
            repaired.left.push((one, "the store has that snapshot no longer".into()));
            continue;
        };
        let is_good = |listed: &Listed| !bad.contains(&listed.id) && !listed.needs.iter().any(|id| bad.contains(id));
        let options =
            BackupOptions { snapshot: None, kind: Kind::Incremental, level: LEVEL, limit: None, parts: Parts::NONE };
        let here = views.of(snapshot.base);
        let written = write(&here, (&at.target, &mut at.repository), snapshot, &options, &is_good, progress)?;
        if let Some((path, why)) = written.missing.first() {
            // It could have lost more than the one that is there.
            at.repository.note_hidden(written.summary.id)?;
            at.repository.sweep()?;
            repaired.left.push((one, format!("the store cannot read it either ({path}: {why})")));
            continue;
        }
        let file = at.repository.sets().file(written.summary.id)?;
        // With it there may be something to make the next one over.
        repaired.freed += at.repository.let_go(&[one.listed.id], vec![Listed::of(&file)])?;
        repaired.written += written.added;
        repaired.mended.push(one.listed);
    }
    Ok(repaired)
}

/// The sets of moments that are meant: by the name of a snapshot, by that of a base before it, or by a set's own id or its beginning.
pub(super) fn chosen(at: &AtTarget, names: &[Vec<u8>]) -> Result<Vec<Listed>> {
    let moments: Vec<&Listed> = at.repository.catalogue().moments().collect();
    let parts: Vec<&Listed> = at.repository.catalogue().parts().collect();
    let mut found: Vec<Listed> = Vec::new();
    for name in names {
        let is_meant = |listed: &&&Listed| {
            let header = &listed.header;
            let full = format!("{}:{}", header.base_name, header.mark.name);
            [&header.mark.name, &full, &listed.name_with_id()].iter().any(|one| one.as_bytes() == name)
        };
        let is_id = |listed: &&&Listed| name.len() >= 8 && listed.id.to_string().as_bytes().starts_with(name);
        // A snapshot can have the name of another one's set.
        let all = moments.iter().filter(|one| is_meant(one) || is_id(one)).chain(parts.iter().filter(is_id));
        let all: Vec<&Listed> = all.copied().collect();
        let shown = shown(name);
        match &all[..] {
            [] => {
                let text = format!("the target has no moment \"{shown}\"; `pitfs set list` shows what it has");
                return Err(Error::Refused(Errno::NOENT, text));
            }
            [first, rest @ ..] if rest.iter().any(|other| other.header.mark.id != first.header.mark.id) => {
                let ids: Vec<String> = all
                    .iter()
                    .map(|one| format!("{}:{} {}", one.header.base_name, one.header.mark.name, one.id))
                    .collect();
                let text = format!("\"{shown}\" can be several; say which, by base or by set: {}", ids.join(", "));
                return Err(Error::Refused(Errno::INVAL, text));
            }
            all => found.extend(all.iter().map(|listed| (*listed).clone())),
        }
    }
    let mut seen = HashSet::new();
    found.retain(|listed| seen.insert(listed.id));
    Ok(found)
}

/// Lets moments go, which are named.
pub fn delete_sets(at: &mut AtTarget, names: &[Vec<u8>], is_dry_run: bool) -> Result<LetGo> {
    let _locked = at.lock()?;
    if !is_dry_run {
        // What an earlier one was interrupted in.
        at.repository.sweep()?;
    }
    let gone = chosen(at, names)?;
    let_go(at, (gone, Vec::new()), Vec::new(), is_dry_run)
}

/// Lets moments go that a rule does not keep; each base by itself. Of a snapshot that has several sets all go or stay.
pub fn prune_sets(at: &mut AtTarget, rule: &Retention, now: Timestamp, is_dry_run: bool) -> Result<LetGo> {
    let _locked = at.lock()?;
    let mut bases: Vec<(Id, Vec<Listed>)> = Vec::new();
    for listed in at.repository.catalogue().moments() {
        match bases.iter_mut().find(|(base, _)| *base == listed.header.base) {
            Some((_, all)) => all.push(listed.clone()),
            None => bases.push((listed.header.base, vec![listed.clone()])),
        }
    }
    let (mut gone, mut kept) = (Vec::new(), Vec::new());
    for (_, all) in bases {
        // Incomplete ones are not what is kept of a time.
        let mut times: Vec<(Id, Timestamp)> = Vec::new();
        for listed in all.iter().filter(|listed| listed.missing == 0) {
            if times.iter().all(|(id, _)| *id != listed.header.mark.id) {
                times.push((listed.header.mark.id, listed.header.mark.time));
            }
        }
        let reasons = rule.reasons(&times.iter().map(|(_, time)| *time).collect::<Vec<_>>(), now);
        let why: HashMap<Id, Vec<String>> = times.iter().map(|(id, _)| *id).zip(reasons).collect();
        for listed in all {
            match why.get(&listed.header.mark.id) {
                Some(reasons) if reasons.is_empty() => gone.push(listed),
                Some(reasons) => kept.push((listed, reasons.clone())),
                None => kept.push((listed, vec!["incomplete".to_string()])),
            }
        }
    }
    let_go(at, (gone, Vec::new()), kept, is_dry_run)
}

/// Lets all of some moments go but the newest, or the newest that is not after a time, which counts as a full one from then on. No
/// bytes are moved.
pub fn merge_sets(at: &mut AtTarget, names: &[Vec<u8>], until: Option<Timestamp>, is_dry_run: bool) -> Result<LetGo> {
    let _locked = at.lock()?;
    let mut all = chosen(at, names)?;
    if all.iter().any(|listed| listed.header.base != all[0].header.base) {
        return Err(Error::Refused(Errno::INVAL, "sets of several bases cannot become one".into()));
    }
    if let Some(part) = all.iter().find(|listed| listed.part.is_some()) {
        let text = format!("the set {} is only a part of a moment, and nothing can be merged into it", part.id);
        return Err(Error::Refused(Errno::INVAL, text));
    }
    all.sort_by_key(|listed| (listed.header.mark.time, listed.header.mark.epoch));
    all.retain(|listed| until.is_none_or(|until| listed.header.mark.time <= until));
    let too_few = || Error::Refused(Errno::INVAL, "name two sets at least, not after the time that was given".into());
    let mut last = all.pop().filter(|_| !all.is_empty()).ok_or_else(too_few)?;
    // Its index knows all of it already.
    last.header.kind = Kind::Full;
    let coming = vec![last.clone()];
    let_go(at, (all, coming), vec![(last, vec!["merged".to_string()])], is_dry_run)
}

/// Lets some sets go, in the same step as others come.
fn let_go(
    at: &mut AtTarget,
    (gone, coming): (Vec<Listed>, Vec<Listed>),
    kept: Vec<(Listed, Vec<String>)>,
    is_dry_run: bool,
) -> Result<LetGo> {
    let ids: Vec<Id> = gone.iter().map(|listed| listed.id).collect();
    let freed = match is_dry_run {
        true => at.repository.would_free(&ids),
        false => at.repository.let_go(&ids, coming)?,
    };
    Ok(LetGo { gone, kept, freed, written: 0, is_dry_run })
}

/// Sets of which more than so many hundredths are of no use to any moment that is kept, and bytes of it.
fn wasteful(at: &AtTarget, most: u8) -> Result<HashMap<Id, u64>> {
    let sets = at.repository.sets();
    let mut used: HashMap<Id, u64> = HashMap::new();
    for listed in at.repository.catalogue().sets().iter().filter(|listed| !listed.is_hidden) {
        for share in &sets.file(listed.id)?.foot().sets {
            // What one moment has of an earlier set, the moments before it have as well.
            let most = used.entry(share.set).or_default();
            *most = (*most).max(share.bytes);
        }
    }
    let mut wasteful = HashMap::new();
    // Parts go with what they become.
    let is_awaited = |id: &Id| at.repository.catalogue().parts().any(|part| part.needs.contains(id));
    let hidden = at.repository.catalogue().sets().iter().filter(|listed| listed.is_hidden && !is_awaited(&listed.id));
    for listed in hidden {
        let all = sets.file(listed.id)?.foot().sets.first().map_or(0, |own| own.bytes);
        let waste = all.saturating_sub(used.get(&listed.id).copied().unwrap_or_default());
        if u128::from(waste) * 100 > u128::from(all) * u128::from(most) {
            wasteful.insert(listed.id, waste);
        }
    }
    Ok(wasteful)
}

/// Writes moments once more that lie in sets of which more than so many hundredths are of no use, and lets those sets go.
pub fn compact_sets(at: &mut AtTarget, most: u8, is_dry_run: bool, progress: OnProgress<'_>) -> Result<LetGo> {
    let _locked = at.lock()?;
    if !is_dry_run {
        at.repository.sweep()?;
    }
    let wasteful = wasteful(at, most)?;
    let leaves: HashSet<Id> = wasteful.keys().copied().collect();
    let gone: Vec<Listed> = wasteful.keys().filter_map(|id| at.repository.catalogue().find(*id)).cloned().collect();
    let mut done = LetGo { gone, is_dry_run, ..LetGo::default() };
    if is_dry_run || leaves.is_empty() {
        done.freed = wasteful.values().sum();
        return Ok(done);
    }
    let lies_there = |listed: &&Listed| listed.needs.iter().any(|id| leaves.contains(id));
    let mut lines: HashMap<Id, Vec<Listed>> = HashMap::new();
    for listed in at.repository.catalogue().moments().filter(lies_there) {
        lines.entry(listed.header.base).or_default().push(listed.clone());
    }
    let (mut going, mut coming) = (Vec::new(), Vec::new());
    for moments in lines.into_values() {
        let sets = at.repository.sets().clone();
        let files: Vec<Arc<SetFile>> = moments.iter().map(|listed| sets.file(listed.id)).collect::<Result<_>>()?;
        let mut ids = || {
            let id = Id::random();
            at.repository.note_hidden(id).map(|()| id)
        };
        let before = done.written;
        let recast = recast_all(&sets, &files, &mut ids, &leaves, LEVEL, &mut |bytes| {
            done.written = before + bytes;
            progress(&Progress { files: 0, bytes: done.written, total_bytes: 0 })
        });
        let recast = recast.map_err(|error| super::backup::explain_no_room(&at.target, error))?;
        for one in recast {
            going.push(one.old);
            coming.push(Listed::of(&*sets.file(one.new)?));
        }
    }
    done.freed = at.repository.let_go(&going, coming)?;
    Ok(done)
}

/// Makes the catalogue anew from the sets; those that cannot be read, and why.
pub fn rebuild_sets(at: &mut AtTarget) -> Result<Vec<String>> {
    let _locked = at.lock_as_it_is()?;
    let unread = at.repository.rebuild(at.seen)?;
    at.repository.sweep()?;
    let place = shown_file(at.target.path()).to_string();
    Ok(unread.into_iter().map(|(id, why)| format!("the set {id} of {place} cannot be read: {why}")).collect())
}
