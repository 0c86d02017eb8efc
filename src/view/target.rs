//! The targets that a store knows: where snapshots of it are kept outside.

use super::Views;
use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::meta::{Table, decode, prefix_end, record_name};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A target as the store remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetRecord {
    pub id: Id,
    #[serde(with = "crate::meta::path")]
    pub directory: PathBuf,
    /// The file that has the key; without one, what is kept there is not encrypted.
    #[serde(with = "crate::meta::path::optional")]
    pub key_file: Option<PathBuf>,
}

const PREFIX: &[u8] = b"target ";

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

    /// Remembers a target under a name that is free.
    pub fn add(self, name: &str, record: &TargetRecord) -> Result<()> {
        self.check_free(name)?;
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
