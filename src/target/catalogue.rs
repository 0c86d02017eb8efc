//! Which sets a store has at a target: one small object, replaced as a whole.
//!
//! ```text
//! "pitfscat" │ version u32 │ 0 u32 │ store 16 │ sealed: catalogue, MessagePack
//! ```

use super::going::hidden_at;
use super::{read_whole, sets_at};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::meta::encode;
use crate::set::{Header, SetFile, Sets};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;

const OBJECT: &str = "catalogue";
const MAGIC: &[u8; 8] = b"pitfscat";
const VERSION: u32 = 1;
const HEAD: usize = 32;
const BYTES_MAX: u64 = 256 << 20;

/// A set that is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub id: Id,
    pub header: Header,
    /// Length of the object.
    pub bytes: u64,
    /// The sets that something of its moment lies in, itself among them.
    pub needs: Vec<Id>,
    /// How many things of the snapshot could not be read when it was made.
    pub missing: u64,
    /// The moment was let go: the set is there for others only.
    pub is_hidden: bool,
    /// It is only a part of a moment, up to and with this key. It is kept until there is a whole set of this snapshot or of a later
    /// one, which may need it.
    #[serde(default)]
    pub part: Option<ByteBuf>,
}

/// Characters of a set's id that stand for it.
const SHORT_ID: usize = 8;

/// A name that others have as well, told apart by the id of a set.
pub fn with_id(name: &str, set: &str) -> String {
    format!("{name}~{}", set.get(..SHORT_ID).unwrap_or(set))
}

/// Names that more than one have, of names with whose they are: a copy of a store can have given one again, and so can the store itself.
pub fn given_twice<N: Clone + Eq + Hash, I: Clone + PartialEq>(names: impl Iterator<Item = (N, I)>) -> HashSet<N> {
    let (mut first, mut twice) = (HashMap::new(), HashSet::new());
    for (name, id) in names {
        if *first.entry(name.clone()).or_insert_with(|| id.clone()) != id {
            twice.insert(name);
        }
    }
    twice
}

impl Listed {
    pub fn of(file: &SetFile) -> Listed {
        let foot = file.foot();
        Listed {
            id: file.id(),
            header: file.header().clone(),
            bytes: file.bytes(),
            needs: foot.sets.iter().filter(|share| share.nodes > 0 || share.bytes > 0).map(|share| share.set).collect(),
            missing: foot.missing.len() as u64,
            is_hidden: false,
            part: foot.part.clone(),
        }
    }

    /// The name of its snapshot, told apart from another one's.
    pub fn name_with_id(&self) -> String {
        with_id(&self.header.mark.name, &self.id.to_string())
    }

    /// Whether it can be looked into.
    pub fn is_moment(&self) -> bool {
        !self.is_hidden && self.part.is_none()
    }

    /// Whether it is of no use any more by itself, when another one comes.
    fn is_behind(&self, other: &Listed) -> bool {
        self.part.is_some()
            && other.is_moment()
            && other.missing == 0
            && other.header.base == self.header.base
            && other.header.mark.epoch >= self.header.mark.epoch
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    /// Counts the times that it was written: an older one that was put back is told by it.
    #[serde(deserialize_with = "crate::limits::number::count")]
    pub number: u64,
    sets: Vec<Listed>,
}

impl Catalogue {
    /// All sets, in the order in which their snapshots were taken.
    pub fn sets(&self) -> &[Listed] {
        &self.sets
    }

    pub(super) fn sets_mut(&mut self) -> &mut Vec<Listed> {
        &mut self.sets
    }

    pub fn find(&self, id: Id) -> Option<&Listed> {
        self.sets.iter().find(|listed| listed.id == id)
    }

    /// The moments that can be looked into, the oldest first.
    pub fn moments(&self) -> impl DoubleEndedIterator<Item = &Listed> {
        self.sets.iter().filter(|listed| listed.is_moment())
    }

    /// Parts of moments that are not whole yet.
    pub fn parts(&self) -> impl Iterator<Item = &Listed> {
        self.sets.iter().filter(|listed| !listed.is_hidden && listed.part.is_some())
    }

    /// The newest whole set of a snapshot, if there is one.
    pub fn of_snapshot(&self, snapshot: Id) -> Option<&Listed> {
        self.moments().filter(|listed| listed.missing == 0).rfind(|listed| listed.header.mark.id == snapshot)
    }

    pub(super) fn add(&mut self, listed: Listed) {
        self.sets.retain(|other| other.id != listed.id);
        for part in self.sets.iter_mut().filter(|part| part.is_behind(&listed)) {
            part.is_hidden = true;
        }
        let place = |listed: &Listed| (listed.header.mark.time, listed.header.mark.epoch, listed.id);
        let at = self.sets.partition_point(|other| place(other) <= place(&listed));
        self.sets.insert(at, listed);
    }

    /// Lets parts go that a whole set has made moot, in whatever order both came.
    fn hide_old_parts(&mut self) {
        let moments: Vec<Listed> = self.moments().cloned().collect();
        for part in self.sets.iter_mut().filter(|part| moments.iter().any(|whole| part.is_behind(whole))) {
            part.is_hidden = true;
        }
    }

    /// The catalogue of a store; an empty one where there is none and no set.
    pub(super) fn read(sets: &Sets, store: Id) -> Result<Catalogue> {
        let shelf = sets.shelf();
        let path = format!("{}/{OBJECT}", shelf.describe());
        let damaged = |problem: String| Error::corrupt(path.clone(), problem);
        let Some(mut bytes) = read_whole(&**shelf, OBJECT, HEAD as u64..=BYTES_MAX)? else {
            return match sets_at(&**shelf)?.is_empty() {
                true => Ok(Catalogue::default()),
                false => Err(damaged("it is not there, and there are sets".into())),
            };
        };
        let mut content = bytes.split_off(HEAD);
        if bytes[..8] != MAGIC[..] || bytes[16..] != store.to_bytes() {
            return Err(damaged("it is not the catalogue of this store".into()));
        }
        sets.seal().open(&bytes, &mut content).map_err(damaged)?;
        // What the seal vouches for says which format it is.
        if bytes[8..12] != VERSION.to_le_bytes() {
            return Err(Error::Store(format!("{path} has a format that this pitfs does not know; use a newer one")));
        }
        let found = rmp_serde::from_slice(&content);
        found.map_err(|error| damaged(format!("it does not decode: {error}")))
    }

    /// Puts it in the place of the one that is there, with the next number.
    pub(super) fn write(&mut self, sets: &Sets, store: Id) -> Result<()> {
        self.number += 1;
        let shelf = sets.shelf();
        let path = format!("{}/{OBJECT}", shelf.describe());
        let mut bytes = [&MAGIC[..], &VERSION.to_le_bytes(), &[0; 4], &store.to_bytes()].concat();
        let mut content = encode(self);
        let sealed = sets.seal().close(&bytes, &mut content);
        sealed.map_err(|problem| Error::Refused(crate::error::Errno::IO, format!("{path}: {problem}")))?;
        bytes.extend_from_slice(&content);
        shelf.replace(OBJECT, &bytes).map_err(|error| Error::media(format!("writing {path}"), error))
    }

    /// What the sets themselves say, and those that cannot be read.
    pub(super) fn of_sets(sets: &Sets, store: Id) -> Result<(Catalogue, Vec<(Id, String)>)> {
        let (mut catalogue, mut unread) = (Catalogue::default(), Vec::new());
        let hidden = hidden_at(&**sets.shelf())?;
        for (id, _) in sets_at(&**sets.shelf())? {
            match sets.file(id) {
                Ok(file) if file.header().store == store => {
                    catalogue.add(Listed { is_hidden: hidden.contains(&id), ..Listed::of(&file) });
                }
                Ok(_) => unread.push((id, "it is of another store".into())),
                Err(error @ (Error::Corrupt { .. } | Error::Store(_))) => unread.push((id, error.to_string())),
                Err(error) => return Err(error),
            }
        }
        catalogue.hide_old_parts();
        Ok((catalogue, unread))
    }

    /// For each set of which some other one needs something, how many do.
    pub fn needed(&self) -> HashMap<Id, usize> {
        let mut needed = HashMap::new();
        for listed in self.sets.iter().filter(|listed| !listed.is_hidden) {
            listed.needs.iter().filter(|id| **id != listed.id).for_each(|id| *needed.entry(*id).or_default() += 1);
        }
        needed
    }
}
