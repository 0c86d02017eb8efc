//! Targets that a store knows: added, opened and forgotten.

use super::Daemon;
use crate::error::{Errno, Error, Result};
use crate::set::Key;
use crate::shown::shown_file;
use crate::target::{Keys, Opens, Repository, Target, make_key_file, read_key_file};
use crate::view::{TargetRecord, Views};
use std::path::{Path, PathBuf};

/// How what goes to a target is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddTarget {
    pub name: String,
    /// Made a target if it is an empty directory.
    pub directory: PathBuf,
    /// The file with the key, which is made if it is not there; without one, nothing is encrypted.
    pub key_file: Option<PathBuf>,
}

/// Lets a store keep snapshots at a target.
pub fn add_target(daemon: &Daemon, views: &Views, wanted: &AddTarget) -> Result<TargetRecord> {
    let AddTarget { name, directory, key_file } = wanted;
    views.check_writable()?;
    if directory.starts_with(daemon.path()) || daemon.mount_point().is_some_and(|mount| directory.starts_with(mount)) {
        let text = format!("{} lies in the store itself: what is kept there is lost with it", shown_file(directory));
        return Err(Error::Refused(Errno::INVAL, text));
    }
    // Before anything is made outside.
    views.targets().check_free(name)?;
    let target = if Target::is_one(directory) { Target::open(directory, None)? } else { Target::create(directory)? };
    let store = views.tree().device().settings().id;
    let key = key_file.as_deref().map(|path| if path.exists() { read_key_file(path) } else { make_key_file(path) });
    let key = key.transpose()?;
    if target.stores()?.contains(&store) {
        // What is there already has to open.
        let key = open_key(target.keys(store)?, key.as_ref())?;
        target.repository(store, key.as_ref())?;
    } else {
        let fresh = || Key::random().map_err(|problem| Error::Refused(Errno::IO, problem));
        let keys = key.as_ref().map(|key| Keys::create(store, &fresh()?, &Opens::File(key.clone()))).transpose()?;
        target.add_store(store, keys.as_ref())?;
    }
    let record = TargetRecord { id: target.id(), directory: directory.clone(), key_file: key_file.clone() };
    views.targets().add(name, &record)?;
    Ok(record)
}

/// The key behind the slots, opened by that of a key file.
fn open_key(keys: Option<Keys>, file: Option<&Key>) -> Result<Option<Key>> {
    match (keys, file) {
        (Some(keys), Some(file)) => keys.open(&Opens::File(file.clone())).map(|(key, _)| Some(key)),
        (None, None) => Ok(None),
        (Some(_), None) => {
            Err(Error::Refused(Errno::NOKEY, "what is kept there is encrypted: give its key with --key-file".into()))
        }
        (None, Some(_)) => Err(Error::Refused(
            Errno::KEYREJECTED,
            "what is kept there is not encrypted, and a key was given for it".into(),
        )),
    }
}

/// Opens a target that a store knows, by name, or the only one; and the key of what is kept there.
pub fn open_target(views: &Views, name: Option<&str>) -> Result<(Target, Option<Key>)> {
    let (_, record) = views.targets().named(name)?;
    let target = Target::open(&record.directory, Some(record.id))?;
    let store = views.tree().device().settings().id;
    let file = record.key_file.as_deref().map(Path::new).map(read_key_file).transpose()?;
    let key = open_key(target.keys(store)?, file.as_ref())?;
    Ok((target, key))
}

/// What a store has at a target.
pub fn open_repository(views: &Views, name: Option<&str>) -> Result<Repository> {
    let (target, key) = open_target(views, name)?;
    target.repository(views.tree().device().settings().id, key.as_ref())
}
