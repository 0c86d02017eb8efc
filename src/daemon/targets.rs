//! Targets: those that a store knows, added and opened; and those that a path leads to, with no store.

use super::Daemon;
use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::set::Key;
use crate::shown::shown_file;
use crate::target::{Keys, Opens, Repository, Target, make_key_file, read_key_file};
use crate::view::{TargetRecord, Views};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What opens encrypted sets, for whoever only reads: a file with the key, or a passphrase.
pub const KEY_FILE_VARIABLE: &str = "PITFS_KEY_FILE";
pub const PASSPHRASE_VARIABLE: &str = "PITFS_PASSPHRASE";

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
    let store = views.targets().store()?;
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
    let store = views.targets().store()?;
    let file = record.key_file.as_deref().map(Path::new).map(read_key_file).transpose()?;
    let key = open_key(target.keys(store)?, file.as_ref())?;
    Ok((target, key))
}

/// What a store has at a target, and where that is.
pub struct AtTarget {
    pub target: Target,
    pub repository: Repository,
}

impl AtTarget {
    /// Keeps others from writing there for as long as the file is open, and looks at what is there by then.
    pub fn lock(&mut self) -> Result<std::fs::File> {
        let locked = self.target.lock()?;
        self.repository.look_again()?;
        Ok(locked)
    }
}

/// What a store has at a target that it knows; where a target is shown with no store, that one.
pub fn open_repository(daemon: &Daemon, views: &Views, name: Option<&str>) -> Result<AtTarget> {
    if let Some(path) = daemon.shown_target() {
        let gone = || Error::Refused(Errno::NOENT, format!("the target {} is not there any more", shown_file(path)));
        return open_alone(path)?.ok_or_else(gone);
    }
    let (target, key) = open_target(views, name)?;
    let repository = target.repository(views.targets().store()?, key.as_ref())?;
    Ok(AtTarget { target, repository })
}

/// The target that a path leads to, and the store that is meant there, if the path says that.
fn target_of(path: &Path) -> Option<(PathBuf, Option<Id>)> {
    if Target::is_one(path) {
        return Some((path.to_path_buf(), None));
    }
    let (above, store) = (path.parent()?, path.file_name()?.to_str()?.parse().ok()?);
    Target::is_one(above).then(|| (above.to_path_buf(), Some(store)))
}

/// The file that whoever gives the command has named for the key of what is read.
static KEY_FILE: OnceLock<PathBuf> = OnceLock::new();

/// Lets this process open encrypted sets with the key in a file.
pub fn give_key_file(path: PathBuf) {
    KEY_FILE.get_or_init(|| path);
}

/// The key of a store's sets, as it was given, or as the environment has it.
fn key_of(keys: Option<Keys>) -> Result<Option<crate::set::Key>> {
    let Some(keys) = keys else { return Ok(None) };
    let file = KEY_FILE.get().cloned().or_else(|| std::env::var_os(KEY_FILE_VARIABLE).map(PathBuf::from));
    let opens = if let Some(path) = file {
        Opens::File(read_key_file(&path)?)
    } else if let Ok(passphrase) = std::env::var(PASSPHRASE_VARIABLE) {
        Opens::Passphrase(passphrase)
    } else {
        let has_passphrase = keys.slots().iter().any(|slot| slot.cost.is_some());
        let passphrase = if has_passphrase { format!(", or {PASSPHRASE_VARIABLE}") } else { String::new() };
        let text = format!(
            "the sets are encrypted: give the file with their key, with --key-file or as {KEY_FILE_VARIABLE}=FILE{passphrase}"
        );
        return Err(Error::Refused(Errno::NOKEY, text));
    };
    keys.open(&opens).map(|(key, _)| Some(key))
}

/// What a target has of a store, found by a path alone: that of the target, or of a store's directory in it. Nothing, if it leads to
/// no target.
pub fn open_alone(path: &Path) -> Result<Option<AtTarget>> {
    let Some((path, store)) = target_of(path) else { return Ok(None) };
    let target = Target::open(&path, None)?;
    let stores = target.stores()?;
    let shown = shown_file(&path);
    let store = match (store, &stores[..]) {
        (Some(store), _) => store,
        (None, [store]) => *store,
        (None, []) => {
            let text = format!("the target {shown} has no sets of any store yet");
            return Err(Error::Refused(Errno::NOENT, text));
        }
        (None, all) => {
            let all: Vec<String> =
                all.iter().map(|store| shown_file(&path.join(store.to_string())).to_string()).collect();
            let text = format!("the target {shown} has sets of several stores; say which: {}", all.join(", "));
            return Err(Error::Refused(Errno::INVAL, text));
        }
    };
    let repository = target.repository(store, key_of(target.keys(store)?)?.as_ref())?;
    Ok(Some(AtTarget { target, repository }))
}
