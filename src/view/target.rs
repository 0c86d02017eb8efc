//! The targets that a store knows: where snapshots of it are kept outside.

use super::Views;
use crate::clock::Epoch;
use crate::device::{BaseId, Snapshot};
use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::meta::{Table, decode, prefix_end, record_name};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::path::PathBuf;

/// A target as the store remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetRecord {
    pub id: Id,
    #[serde(with = "crate::meta::path")]
    pub directory: PathBuf,
    /// The file that has the key; without one and without a key, what is kept there is not encrypted.
    #[serde(with = "crate::meta::path::optional")]
    pub key_file: Option<PathBuf>,
    /// The key itself, where a passphrase opens it there.
    #[serde(default)]
    pub key: Option<ByteBuf>,
}

const PREFIX: &[u8] = b"target ";
/// Under what id a store keeps its sets, where that is not its own: it was made of what another one had kept.
const KEEPS_AS: &[u8] = b"keeps sets as";
/// Of which snapshots of a base there are sets: each, by its id, with its epoch. It outlives the snapshot.
const BACKED_UP: &[u8] = b"backed up ";
/// How new the list of sets was that was seen last at a target of an id.
const SEEN: &[u8] = b"list of sets at ";
/// As many of a base are remembered.
const BACKED_UP_MOST: usize = 256;

/// What records of targets say, if one is of those.
pub(super) fn check_record(key: &[u8], value: &[u8]) -> Result<()> {
    if key.starts_with(PREFIX) {
        decode::<TargetRecord>(Table::State, key, value).map(drop)
    } else if key == KEEPS_AS {
        decode::<Id>(Table::State, key, value).map(drop)
    } else if key.starts_with(SEEN) {
        decode::<u64>(Table::State, key, value).map(drop)
    } else if key.starts_with(BACKED_UP) {
        decode::<Epoch>(Table::State, key, value).map(drop)
    } else {
        Ok(())
    }
}

fn backed_up(base: BaseId, snapshot: Option<Id>) -> Vec<u8> {
    let id = snapshot.map(Id::to_bytes);
    [BACKED_UP, &base.prefix(), id.as_ref().map_or(&[][..], |id| &id[..])].concat()
}

fn key(name: &str) -> Vec<u8> {
    [PREFIX, name.as_bytes()].concat()
}

/// The targets of a store.
#[derive(Clone, Copy)]
pub struct Targets<'a> {
    pub(super) views: &'a Views,
}

impl Targets<'_> {
    /// All targets, by name.
    pub fn all(self) -> Result<Vec<(String, TargetRecord)>> {
        let look = self.views.tree.device().look()?;
        let all = look.meta().range(Table::State, PREFIX, &prefix_end(PREFIX))?;
        all.map(|pair| {
            let (key, value) = pair?;
            let record = decode(Table::State, &key, &value)?;
            let damaged = || Error::corrupt(record_name(Table::State, &key), "its name is no text");
            let name = std::str::from_utf8(&key[PREFIX.len()..]).map_err(|_| damaged())?;
            Ok((name.to_string(), record))
        })
        .collect()
    }

    /// The target of a name; without one, the only one.
    pub fn named(self, name: Option<&str>) -> Result<(String, TargetRecord)> {
        let all = self.all()?;
        let names = || all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        let text = match (name, &all[..]) {
            (None, [only]) => return Ok(only.clone()),
            (_, []) => "the store knows no target; `pitfs target add NAME DIR` comes first".to_string(),
            (None, _) => format!("there are several targets; say which: {}", names()),
            (Some(name), _) => match all.iter().find(|(other, _)| other == name) {
                Some(found) => return Ok(found.clone()),
                None => format!("there is no target {name:?}; there are: {}", names()),
            },
        };
        Err(Error::Refused(Errno::NOENT, text))
    }

    /// That a target can be given a name.
    pub fn check_free(self, name: &str) -> Result<()> {
        super::check_name(name.as_bytes())?;
        if self.all()?.iter().any(|(other, _)| other == name) {
            let text = format!("there is a target {name:?} already; `pitfs target forget {name}` comes first");
            return Err(Error::Refused(Errno::EXIST, text));
        }
        Ok(())
    }

    /// The id of this store at its targets.
    pub fn store(self) -> Result<Id> {
        let device = self.views.tree.device();
        let kept: Option<Id> = device.look()?.meta().get(Table::State, KEEPS_AS)?;
        Ok(kept.unwrap_or(device.settings().id))
    }

    /// Lets a store that was just made of what another one had kept go on with it.
    pub fn keep_as(self, store: Id) -> Result<()> {
        self.views.tree.device().committer()?.change(|change| {
            change.meta_mut().put(Table::State, KEEPS_AS, &store);
            Ok(())
        })
    }

    /// How often the newest list of sets was written that was seen at a target.
    pub fn seen(self, target: Id) -> Result<u64> {
        let key = [SEEN, &target.to_bytes()].concat();
        Ok(self.views.tree.device().look()?.meta().get(Table::State, &key)?.unwrap_or_default())
    }

    pub fn note_seen(self, target: Id, number: u64) -> Result<()> {
        if self.seen(target)? >= number {
            return Ok(());
        }
        self.views.tree.device().committer()?.change(|change| {
            change.meta_mut().put(Table::State, &[SEEN, &target.to_bytes()].concat(), &number);
            Ok(())
        })
    }

    /// The epoch of a snapshot of this base of which there is a whole set, though the snapshot may be gone.
    pub fn epoch_of_mark(self, snapshot: Id) -> Result<Option<Epoch>> {
        self.views.tree.device().look()?.meta().get(Table::State, &backed_up(self.views.base, Some(snapshot)))
    }

    /// Remembers that there is a whole set of a snapshot.
    pub fn mark(self, snapshot: &Snapshot) -> Result<()> {
        let id = snapshot.record.id;
        if self.views.of(snapshot.base).targets().epoch_of_mark(id)? == Some(snapshot.epoch) {
            return Ok(());
        }
        self.views.tree.device().committer()?.change(|change| {
            let prefix = backed_up(snapshot.base, None);
            let mut known: Vec<(Epoch, Vec<u8>)> = Vec::new();
            for pair in change.meta().range(Table::State, &prefix, &prefix_end(&prefix))? {
                let (key, value) = pair?;
                known.push((decode(Table::State, &key, &value)?, key));
            }
            known.sort_unstable();
            for (_, key) in known.iter().take((known.len() + 1).saturating_sub(BACKED_UP_MOST)) {
                change.meta_mut().remove(Table::State, key);
            }
            change.meta_mut().put(Table::State, &backed_up(snapshot.base, Some(id)), &snapshot.epoch);
            Ok(())
        })
    }

    /// Remembers a target under a name that is free.
    pub fn add(self, name: &str, record: &TargetRecord) -> Result<()> {
        self.check_free(name)?;
        if let Some((known, _)) = self.all()?.into_iter().find(|(_, known)| known.id == record.id) {
            let text = format!(
                "it is the target {known:?}, or a copy of it; where it lies elsewhere now, `pitfs target forget {known}` comes first"
            );
            return Err(Error::Refused(Errno::EXIST, text));
        }
        self.views.change(|change| {
            change.meta_mut().put(Table::State, &key(name), record);
            Ok(format!("target add {name:?}"))
        })
    }

    /// Forgets a target.
    pub fn forget(self, name: &str) -> Result<()> {
        self.named(Some(name))?;
        self.views.change(|change| {
            change.meta_mut().remove(Table::State, &key(name));
            Ok(format!("target forget {name:?}"))
        })
    }
}
