//! Targets: those that a store knows, added and opened; and those that a path leads to, with no store.

use super::Daemon;
use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::set::Key;
use crate::shown::shown_file;
use crate::target::{Keys, Opens, Repository, Slot, Target, make_key_file, read_key_file};
use crate::view::{TargetRecord, Views};
use serde_bytes::ByteBuf;
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
    pub lock: KeptBy,
}

/// What is needed to read what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptBy {
    /// Nothing.
    Nobody,
    /// A file with the key, which is made if it is not there.
    File(PathBuf),
    Passphrase(String),
}

impl KeptBy {
    /// What opens a slot for it.
    pub(super) fn opens(&self) -> Result<Option<Opens>> {
        match self {
            KeptBy::Nobody => Ok(None),
            KeptBy::File(path) => {
                let key = if path.exists() { read_key_file(path) } else { make_key_file(path) };
                key.map(Opens::File).map(Some)
            }
            KeptBy::Passphrase(text) if text.is_empty() => {
                Err(Error::Refused(Errno::INVAL, "an empty passphrase protects nothing".into()))
            }
            KeptBy::Passphrase(text) => Ok(Some(Opens::Passphrase(text.clone()))),
        }
    }
}

/// Lets a store keep snapshots at a target.
pub fn add_target(daemon: &Daemon, views: &Views, wanted: &AddTarget) -> Result<TargetRecord> {
    let AddTarget { name, directory, lock } = wanted;
    views.check_writable()?;
    if directory.starts_with(daemon.path()) || daemon.mount_point().is_some_and(|mount| directory.starts_with(mount)) {
        let text = format!("{} lies in the store itself: what is kept there is lost with it", shown_file(directory));
        return Err(Error::Refused(Errno::INVAL, text));
    }
    // Before anything is made outside.
    views.targets().check_free(name)?;
    let target = if Target::is_one(directory) { Target::open(directory, None)? } else { Target::create(directory)? };
    let store = views.targets().store()?;
    let opens = lock.opens()?;
    let key = if target.has_something_of(store)? {
        // What is there already has to open.
        let key = open_key(target.keys(store)?, opens.as_ref())?;
        target.repository(store, key.as_ref())?;
        key
    } else {
        let fresh = || Key::random().map_err(|problem| Error::Refused(Errno::IO, problem));
        let key = opens.as_ref().map(|_| fresh()).transpose()?;
        let keys = opens.zip(key.as_ref()).map(|(opens, key)| Keys::create(store, key, &opens)).transpose()?;
        target.add_store(store, keys.as_ref())?;
        key
    };
    let key_file = if let KeptBy::File(path) = lock { Some(path.clone()) } else { None };
    // The store has it all in the clear: with a key of its own it needs nobody to be asked.
    let key = key.filter(|_| key_file.is_none()).map(|key| ByteBuf::from(key.bytes().to_vec()));
    let record = TargetRecord { id: target.id(), directory: directory.clone(), key_file, key };
    views.targets().add(name, &record)?;
    Ok(record)
}

/// The key behind the slots.
fn open_key(keys: Option<Keys>, opens: Option<&Opens>) -> Result<Option<Key>> {
    match (keys, opens) {
        (Some(keys), Some(opens)) => keys.open(opens).map(|(key, _)| Some(key)),
        (None, None) => Ok(None),
        (Some(_), None) => {
            let text = "what is kept there is encrypted: give what opens it, with --key-file or --passphrase";
            Err(Error::Refused(Errno::NOKEY, text.into()))
        }
        (None, Some(_)) => Err(Error::Refused(
            Errno::KEYREJECTED,
            "what is kept there is not encrypted, and a key was given for it".into(),
        )),
    }
}

/// The key of what a store keeps at a target, as the store remembers it.
fn known_key(record: &TargetRecord, target: &Target, store: Id) -> Result<Option<Key>> {
    if let Some(key) = record.key.as_ref().and_then(|key| key.as_slice().try_into().ok()) {
        return Ok(Some(Key::of(key)));
    }
    let opens = record.key_file.as_deref().map(read_key_file).transpose()?.map(Opens::File);
    open_key(target.keys(store)?, opens.as_ref())
}

/// Opens a target that a store knows, by name, or the only one; and the key of what is kept there.
pub fn open_target(views: &Views, name: Option<&str>) -> Result<(Target, Option<Key>)> {
    let (_, record) = views.targets().named(name)?;
    let target = Target::open(&record.directory, Some(record.id))?;
    let store = views.targets().store()?;
    let key = known_key(&record, &target, store)?;
    Ok((target, key))
}

/// What a store has at a target, and where that is.
pub struct AtTarget {
    pub target: Target,
    pub repository: Repository,
    pub key: Option<Key>,
    /// How new the list of sets was that the store saw last; 0 without a store.
    pub seen: u64,
}

/// Refuses a list of sets that is older than one that this store has seen: whoever put it back has hidden sets by that. One that had
/// to be made anew goes on from there.
pub(super) fn check_newest(target: &Target, repository: &mut Repository, seen: u64) -> Result<()> {
    if repository.was_rebuilt.is_some() {
        repository.go_on_from(seen);
    }
    let found = repository.catalogue().number;
    if found >= seen {
        return Ok(());
    }
    let text = format!(
        "the list of sets at {} is an older one that was put back: it was written {found} times, and this store has seen one that was \
         written {seen} times; `pitfs -s STORE set rebuild` makes it anew from the sets that are there",
        shown_file(target.path())
    );
    Err(Error::Refused(Errno::STALE, text))
}

/// Remembers how new the list of sets is.
pub fn note_newest(views: &Views, target: &Target, repository: &Repository) -> Result<()> {
    views.targets().note_seen(target.id(), repository.catalogue().number)
}

/// The ways to the key of what a store keeps at a target.
pub enum KeyChange {
    Show,
    Add(KeptBy),
    /// The slot of a number.
    Remove(usize),
}

/// Shows or changes the ways to a key; the key itself stays, and no set is written anew.
pub fn change_keys(daemon: &Daemon, views: &Views, name: Option<&str>, change: &KeyChange) -> Result<Vec<Slot>> {
    let at = open_repository(daemon, views, name)?;
    let _locked = at.target.lock()?;
    let store = at.repository.store();
    let none = || Error::Refused(Errno::NOKEY, "what is kept there is not encrypted, and has no key".into());
    let mut keys = at.target.keys(store)?.ok_or_else(none)?;
    match change {
        KeyChange::Show => return Ok(keys.slots().to_vec()),
        KeyChange::Add(lock) => {
            let key = at.key.as_ref().ok_or_else(none)?;
            keys.add(key, &lock.opens()?.ok_or_else(none)?)?;
        }
        KeyChange::Remove(slot) => keys.remove(*slot)?,
    }
    at.target.write_keys(store, &keys)?;
    Ok(keys.slots().to_vec())
}

impl AtTarget {
    /// Keeps others from writing there for as long as the file is open, and looks at what is there by then.
    pub fn lock(&mut self) -> Result<std::fs::File> {
        let locked = self.lock_as_it_is()?;
        check_newest(&self.target, &mut self.repository, self.seen)?;
        Ok(locked)
    }

    /// The same, however old the list of sets is.
    pub(super) fn lock_as_it_is(&mut self) -> Result<std::fs::File> {
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
    let seen = views.targets().seen(target.id())?;
    Ok(AtTarget { target, repository, key, seen })
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

/// Asks whoever gives the command for the passphrase, if there is somebody.
static ASK: OnceLock<fn() -> Option<String>> = OnceLock::new();

/// How a passphrase is asked for.
pub fn ask_passphrase_by(ask: fn() -> Option<String>) {
    ASK.get_or_init(|| ask);
}

/// Whether what a path leads to, which may be a target, needs a passphrase that neither a file nor the environment spares.
pub fn wants_passphrase(path: &Path) -> bool {
    let is_given = KEY_FILE.get().is_some()
        || [KEY_FILE_VARIABLE, PASSPHRASE_VARIABLE].iter().any(|name| std::env::var_os(name).is_some());
    let wants = || {
        let (path, store) = target_of(path)?;
        let target = Target::open(&path, None).ok()?;
        let store = store.or_else(|| target.stores().ok()?.first().copied())?;
        let keys = target.keys(store).ok()??;
        Some(keys.slots().iter().any(|slot| slot.cost.is_some()))
    };
    !is_given && wants().unwrap_or_default()
}

/// The key of a store's sets, as it was given, or as the environment has it.
fn key_of(keys: Option<Keys>) -> Result<Option<crate::set::Key>> {
    let Some(keys) = keys else { return Ok(None) };
    let has_passphrase = keys.slots().iter().any(|slot| slot.cost.is_some());
    let file = KEY_FILE.get().cloned().or_else(|| std::env::var_os(KEY_FILE_VARIABLE).map(PathBuf::from));
    let opens = if let Some(path) = file {
        Opens::File(read_key_file(&path)?)
    } else if let Ok(passphrase) = std::env::var(PASSPHRASE_VARIABLE) {
        Opens::Passphrase(passphrase)
    } else if let Some(passphrase) = has_passphrase.then(|| ASK.get().and_then(|ask| ask())).flatten() {
        Opens::Passphrase(passphrase)
    } else {
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
    open_by(path, key_of)
}

/// The same, opened by what is given.
pub fn open_alone_by(path: &Path, lock: &KeptBy) -> Result<AtTarget> {
    let opens = match lock {
        KeptBy::File(path) => Some(Opens::File(read_key_file(path)?)),
        lock => lock.opens()?,
    };
    open_by(path, |keys| open_key(keys, opens.as_ref()))?.ok_or_else(|| no_target(path))
}

/// Where a target was expected.
pub fn no_target(path: &Path) -> Error {
    let text = match path.join("target").exists() {
        true => format!("{} is no target: its file \"target\" is damaged, or something else's", shown_file(path)),
        false => format!("{} is no target: it has no file \"target\"; is its disk mounted?", shown_file(path)),
    };
    Error::Refused(Errno::NOENT, text)
}

fn open_by(path: &Path, key_of: impl FnOnce(Option<Keys>) -> Result<Option<Key>>) -> Result<Option<AtTarget>> {
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
    let key = key_of(target.keys(store)?)?;
    let repository = target.repository(store, key.as_ref())?;
    Ok(Some(AtTarget { target, repository, key, seen: 0 }))
}
