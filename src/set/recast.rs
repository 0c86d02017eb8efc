//! Writing a moment that is there already once more, so that it lies in some sets no longer: their bytes are copied, all others stay
//! where they are.

use super::{Change, Delta, Entry, Header, Kind, SetFile, Sets, Spot, Summary, Value, Writer, update};
use crate::error::Result;
use crate::id::Id;
use std::collections::HashSet;
use std::sync::Arc;

/// A moment that was written once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recast {
    /// The set that had it, and the one that has it now.
    pub old: Id,
    pub new: Id,
}

/// Writes the moment of a set once more under a new id, over one before it that was, if there is one; `leaves` are the sets that
/// nothing of it may lie in. `tell` is called with the bytes that were copied.
pub fn recast(
    sets: &Sets,
    file: &SetFile,
    (id, over): (Id, Option<Recast>),
    leaves: &HashSet<Id>,
    level: i32,
    tell: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Summary> {
    let kind = if over.is_some() { Kind::Incremental } else { Kind::Full };
    let before = match over {
        Some(over) => Some(super::Before { set: over.new, snapshot: sets.file(over.new)?.header().mark.id }),
        None => None,
    };
    let header = Header { kind, before, ..file.header().clone() };
    let mut writer = Writer::create(&**sets.shelf(), id, &header, sets.seal(), level)?;
    let (mut copied, mut lost) = (0, 0);
    let missing = &file.foot().missing;
    let mut delta = |key: Vec<u8>, entry: Option<Entry<Spot>>| {
        let Some(entry) = entry else {
            return Ok(Delta { key, birth: header.mark.epoch, change: Change::Gone });
        };
        let change = match entry.value {
            Value::Record(value) => Change::Record(value),
            Value::Track { len, place } if leaves.contains(&place.set) => {
                copied += u64::from(len);
                tell(copied)?;
                Change::Track(sets.read(&place, len)?)
            }
            Value::Track { len, place } => Change::Kept(place, len),
            Value::Lost => {
                let path = missing.get(lost).or(missing.last()).cloned().unwrap_or_default();
                lost += 1;
                Change::Lost(path)
            }
        };
        Ok(Delta { key, birth: entry.birth, change })
    };
    match over {
        None => {
            let all = sets.scan(file.id(), b"", &[0xff])?;
            update(&mut writer, None, all.map(|entry| entry.and_then(|entry| delta(entry.key.clone(), Some(entry)))))?;
        }
        Some(Recast { old, new }) => {
            let differing = sets.differences(old, file.id())?;
            let differing = differing.map(|differing| differing.and_then(|(key, _, is)| delta(key, is)));
            update(&mut writer, Some((sets, new)), differing)?;
        }
    }
    writer.finish()
}

/// The moments of some sets, each written once more over the one before it, in their order.
pub fn recast_all(
    sets: &Sets,
    moments: &[Arc<SetFile>],
    ids: &mut dyn FnMut() -> Result<Id>,
    leaves: &HashSet<Id>,
    level: i32,
    tell: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Vec<Recast>> {
    let mut done: Vec<Recast> = Vec::new();
    let mut copied = 0;
    for file in moments {
        let (id, over) = (ids()?, done.last().copied());
        let before = copied;
        recast(sets, file, (id, over), leaves, level, &mut |bytes| {
            copied = before + bytes;
            tell(copied)
        })?;
        done.push(Recast { old: file.id(), new: id });
    }
    Ok(done)
}
