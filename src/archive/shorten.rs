//! Making an archive shorter: letting its oldest increments go, and merging several into one.
//!
//! Merging takes times out of the middle: of a merged increment the first time can still be reached, and those within it
//! cannot. What each record was at the first is in the first increment that has it, if it was born by then:
//!
//! ```text
//! from ── to ═ from ── to ═ from ── to   becomes   from ──────────────────── to
//! ```
//!
//! Invariants:
//! - what is to go is out of the chain first, then out of the index, and its file goes last: a crash in between leaves
//!   files that are taken up again, or that a merged one spans;
//! - a merged increment is whole under its final name before anything of its parts goes, and names what they led to.

use super::{
    Archive, Entries, Entry, Header, Increment, LEVEL, Leftover, Reader, Tell, Value, Writer, explain_no_room, failed,
    file_name, sync,
};
use crate::clock::Epoch;
use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::limits::ARCHIVE_MERGED_MAX;
use crate::media::Directory;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashSet};
use std::path::Path;
use std::sync::Arc;

/// What came of a merge.
#[derive(Debug)]
pub struct Merged {
    pub increment: Increment,
    /// Parts that could not be removed, and why.
    pub problems: Vec<String>,
}

impl Archive {
    /// Lets increments go: the oldest of the chain, and what cannot be reached behind them; their bytes.
    pub fn prune(&self, gone: &[Increment], tell: Tell<'_>) -> Result<u64> {
        let paths = paths(gone);
        let (joined, left): (Vec<Increment>, Vec<Increment>) =
            self.increments().into_iter().partition(|one| paths.contains(&*one.path));
        self.inner.write().set_chain(left);
        for one in &joined {
            tell(0)?;
            self.index.forget(one)?;
        }
        let index = self.index.tables()?;
        self.inner.write().set_index(index);
        self.remove(gone)
    }

    /// Merges increments of the chain that follow each other into one, which begins where the first does. What reads
    /// meanwhile sees what was there before. Parts that cannot be removed stay as leftovers.
    pub fn merge(&self, parts: &[Increment], tell: Tell<'_>) -> Result<Merged> {
        let follow = |pair: &[Increment]| pair[0].header.to.id == pair[1].header.from.id;
        let [first, .., last] = parts else {
            return Err(Error::Refused(Errno::INVAL, "one increment alone cannot be merged".into()));
        };
        if !parts.windows(2).all(follow) {
            return Err(Error::Refused(Errno::INVAL, "only increments that follow each other can be merged".into()));
        }
        let merged = self.ids_within(parts);
        let header = Header { to: last.header.to.clone(), merged, ..first.header.clone() };
        let merged = write_merged(&self.directory, parts, header, tell);
        let merged = merged.map_err(|error| explain_no_room(self.path(), error))?;
        let mut joined = self.increments();
        joined.retain(|one| !parts.contains(one));
        joined.push(merged.clone());
        joined.sort_by_key(|one| one.header.from.epoch);
        // The parts go out of the index before the whole comes in: what they have ends where it ends.
        let mut has_others = true;
        for part in parts {
            tell(0)?;
            has_others &= self.index.forget(part)?;
        }
        match has_others {
            true => self.index.take_up(&merged, tell)?,
            false => self.index.follow(&None, &joined, tell)?.map_err(|unreadable| unreadable.error)?,
        }
        self.index.trim()?;
        let index = self.index.tables()?;
        self.retire(parts)?;
        {
            let mut inner = self.inner.write();
            inner.set_chain(joined);
            inner.set_index(index);
            let left = |part: &Increment| Leftover { increment: part.clone(), merged: merged.path.clone() };
            // What was left of the parts is left of the whole from now on.
            for old in inner.leftovers.iter_mut().filter(|old| parts.iter().any(|part| part.path == old.merged)) {
                old.merged.clone_from(&merged.path);
            }
            inner.leftovers.extend(parts.iter().map(left));
            inner.leftovers.sort_by(|a, b| a.merged.cmp(&b.merged));
        }
        let problems = self.remove_leftovers();
        Ok(Merged { increment: merged, problems })
    }

    /// The snapshots whose times go with a merge, and those that went before if something of them is still there.
    fn ids_within(&self, parts: &[Increment]) -> Vec<Id> {
        let mut ids: Vec<Id> = parts[1..].iter().map(|part| part.header.from.id).collect();
        let leftovers = self.leftovers();
        for part in parts.iter().filter(|part| leftovers.iter().any(|left| left.merged == part.path)) {
            ids.extend(&part.header.merged);
        }
        // Leftovers beyond that are shown as increments that cannot be reached.
        ids.truncate(ARCHIVE_MERGED_MAX);
        ids
    }

    /// Removes the files of increments that are not shown any more; their bytes.
    fn remove(&self, gone: &[Increment]) -> Result<u64> {
        for one in gone {
            self.directory.remove(&one.name()).map_err(|error| failed("removing", &one.path, error))?;
        }
        sync(&self.directory)?;
        let paths = paths(gone);
        self.inner.write().others.retain(|one| !paths.contains(&*one.path));
        Ok(gone.iter().map(|one| one.bytes).sum())
    }
}

/// The files of increments: no two have one.
fn paths(increments: &[Increment]) -> HashSet<&Path> {
    increments.iter().map(|one| &*one.path).collect()
}

/// Writes what the first of several increments would have been, had the times within not been kept.
fn write_merged(directory: &Arc<Directory>, parts: &[Increment], header: Header, tell: Tell<'_>) -> Result<Increment> {
    let readers: Vec<Reader> = parts.iter().map(|part| part.open(directory)).collect::<Result<_>>()?;
    let mut sources: Vec<Entries<'_>> = readers.iter().map(Reader::entries).collect();
    let mut heads = BinaryHeap::new();
    for at in 0..sources.len() {
        heads.extend(next_of(&mut sources, at)?);
    }
    let name = file_name(&header.from, &header.to);
    let mut writer = Writer::create(directory, &name, &header, LEVEL)?;
    let mut done = 0;
    let mut last: Option<(u8, Vec<u8>)> = None;
    while let Some(Head { key, at, birth, value }) = heads.pop() {
        heads.extend(next_of(&mut sources, at)?);
        // The oldest increment that has a key has what it was, unless it came to be after the first time.
        if last.as_ref() == Some(&key) || birth > header.from.epoch {
            continue;
        }
        match &value {
            Value::Record(value) => writer.record(key.0, &key.1, birth, value)?,
            Value::Track(place) => {
                let bytes = readers[at].read_track(place)?;
                writer.track(key.0, &key.1, birth, &bytes)?;
                done += bytes.len() as u64;
            }
        }
        last = Some(key);
        tell(done)?;
    }
    let summary = writer.finish()?;
    Ok(Increment { header, path: summary.path, bytes: summary.bytes })
}

/// The next entry of one of several increments.
struct Head {
    key: (u8, Vec<u8>),
    /// Which of the increments, the oldest first.
    at: usize,
    birth: Epoch,
    value: Value,
}

fn next_of(sources: &mut [Entries<'_>], at: usize) -> Result<Option<Head>> {
    let entry = sources[at].next().transpose()?;
    Ok(entry.map(|Entry { table, key, birth, value }| Head { key: (table, key), at, birth, value }))
}

/// The smallest key first, and of equal ones that of the oldest increment.
impl Ord for Head {
    fn cmp(&self, other: &Head) -> Ordering {
        (&other.key, other.at).cmp(&(&self.key, self.at))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Head) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Head) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}
