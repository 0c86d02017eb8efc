//! Which moments can be seen, and under which names.
//!
//! A view is a base at a moment: what one directory under the mount shows. `live` is the base now; every
//! snapshot is a view of its own, and read-only.

use crate::clock::Timestamp;
use crate::device::{Epoch, Moment, Snapshot, State};
use crate::error::{Errno, Error, Result};
use crate::limits::{NAME_BYTES_MAX, VIEW_BITS};
use crate::tree::Tree;

/// The name of the base that is written to.
pub const LIVE_NAME: &str = "live";

/// A tree and the names of its moments.
pub struct Views {
    tree: Tree,
}

/// A view's number: 0 for `live`, otherwise a number that no other snapshot of the store has.
pub type ViewNo = u32;

/// The number of a snapshot's view. Epochs whose number is taken are never used, see [`Views::snapshot`].
pub fn view_number(epoch: Epoch) -> ViewNo {
    epoch & ((1 << VIEW_BITS) - 1)
}

/// Only `live` can be written to.
pub fn check_writable(moment: Moment) -> Result<()> {
    match moment {
        Moment::Live => Ok(()),
        Moment::At(_) => Err(Error::Posix(Errno::ROFS)),
    }
}

fn refused(errno: Errno, text: String) -> Error {
    Error::Refused(errno, text)
}

/// Checks that a snapshot could have this name.
pub fn check_name(name: &[u8]) -> Result<&str> {
    let shown = String::from_utf8_lossy(name);
    let name_text = std::str::from_utf8(name)
        .map_err(|_| refused(Errno::ILSEQ, format!("the snapshot name {shown:?} is not UTF-8; use a name that is")))?;
    match name_text {
        "" => Err(refused(Errno::INVAL, "a snapshot name cannot be empty".into())),
        "." | ".." => Err(refused(Errno::INVAL, format!("{shown:?} cannot be a snapshot name"))),
        LIVE_NAME => Err(refused(Errno::EXIST, "`live` is the tree itself and cannot be a snapshot name".into())),
        _ if name_text.contains('/') => Err(refused(
            Errno::INVAL,
            format!("the snapshot name {shown:?} has a slash; it has to be one directory name"),
        )),
        _ if name_text.chars().any(char::is_control) => {
            Err(refused(Errno::INVAL, format!("the snapshot name {shown:?} has control characters; leave them out")))
        }
        _ if name.len() > NAME_BYTES_MAX => Err(refused(
            Errno::NAMETOOLONG,
            format!("the snapshot name has {} bytes; at most {NAME_BYTES_MAX} are possible", name.len()),
        )),
        _ => Ok(name_text),
    }
}

fn check_free(state: &State, name: &str) -> Result<()> {
    match state.snapshot_named(name)? {
        Some(_) => Err(refused(
            Errno::EXIST,
            format!("a snapshot named {name:?} exists already; choose another name or delete it first"),
        )),
        None => Ok(()),
    }
}

/// The time as a name; with a number behind it where that is taken.
fn default_name(state: &State, time: Timestamp) -> Result<String> {
    let plain = time.as_name();
    let mut name = plain.clone();
    let mut number = 2u32;
    while state.snapshot_named(&name)?.is_some() {
        name = format!("{plain}-{number}");
        number += 1;
    }
    Ok(name)
}

/// Whether no other snapshot's view has this epoch's number, and it is not that of `live`.
fn has_free_number(state: &State, epoch: Epoch) -> Result<bool> {
    if view_number(epoch) == 0 {
        return Ok(false);
    }
    let mut other = epoch;
    while let Some(earlier) = other.checked_sub(1 << VIEW_BITS) {
        if state.snapshot(earlier)?.is_some() {
            return Ok(false);
        }
        other = earlier;
    }
    Ok(true)
}

impl Views {
    pub fn new(tree: Tree) -> Views {
        Views { tree }
    }

    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Takes a snapshot, durably. Without a name it gets the time, in UTC.
    pub fn snapshot(&self, name: Option<&[u8]>) -> Result<Snapshot> {
        let name = name.map(check_name).transpose()?;
        let time = Timestamp::now();
        let choose = |state: &State| match name {
            Some(name) => check_free(state, name).map(|()| name.to_string()),
            None => default_name(state, time),
        };
        self.tree.device().committer()?.snapshot(time, choose, has_free_number)
    }

    /// All snapshots, oldest first.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        self.tree.device().look()?.snapshots()
    }

    pub fn find(&self, name: &[u8]) -> Result<Option<Snapshot>> {
        match std::str::from_utf8(name) {
            Ok(name) => self.tree.device().look()?.snapshot_named(name),
            Err(_) => Ok(None),
        }
    }

    /// The snapshot of this name; an error in words where there is none.
    pub fn expect(&self, name: &[u8]) -> Result<Snapshot> {
        self.find(name)?.ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            refused(Errno::NOENT, format!("there is no snapshot named {name:?}; `pitfs list` shows those there are"))
        })
    }

    /// The moment of `live` or of a snapshot, by name.
    pub fn moment(&self, name: &[u8]) -> Result<Moment> {
        if name == LIVE_NAME.as_bytes() { Ok(Moment::Live) } else { Ok(Moment::At(self.expect(name)?.epoch)) }
    }

    /// Makes snapshots disappear, durably; none of them if a name is wrong. Their room comes back in the
    /// background.
    pub fn delete(&self, names: &[&[u8]]) -> Result<Vec<Snapshot>> {
        let mut snapshots: Vec<Snapshot> = Vec::new();
        for name in names {
            if *name == LIVE_NAME.as_bytes() {
                return Err(refused(Errno::PERM, "`live` is the tree itself and cannot be deleted".into()));
            }
            let snapshot = self.expect(name)?;
            if !snapshots.contains(&snapshot) {
                snapshots.push(snapshot);
            }
        }
        for snapshot in &snapshots {
            self.tree.device().hide_snapshot(snapshot.epoch)?;
        }
        self.tree.commit()?;
        self.tree.device().wake();
        Ok(snapshots)
    }

    /// Gives a snapshot another name, durably.
    pub fn rename(&self, old: &[u8], new: &[u8]) -> Result<Snapshot> {
        let new = check_name(new)?;
        if old == LIVE_NAME.as_bytes() {
            return Err(refused(Errno::PERM, "`live` is the tree itself and cannot be renamed".into()));
        }
        let snapshot = self.expect(old)?;
        if old == new.as_bytes() {
            return Ok(snapshot);
        }
        self.tree.device().rename_snapshot(snapshot.epoch, new, |state| check_free(state, new))?;
        self.tree.commit()?;
        Ok(snapshot)
    }
}
