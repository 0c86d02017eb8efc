//! Names of snapshots and bases: which are possible, which are free, and time as a name.

use super::session::Session;
use super::{Views, refused};
use crate::clock::{Timestamp, parse_until};
use crate::device::{BaseId, Snapshot, State};
pub use crate::device::{LIVE_NAME, is_virtual_name};
use crate::error::{Errno, Result};
use crate::limits::NAME_BYTES_MAX;
use crate::meta::Table;
use crate::shown::shown;
use std::collections::HashSet;

/// Checks that a snapshot or a base could have this name.
pub fn check_name(name: &[u8]) -> Result<&str> {
    let shown = shown(name);
    let name_text = std::str::from_utf8(name)
        .map_err(|_| refused(Errno::ILSEQ, format!("the name {shown:?} is not UTF-8; use a name that is")))?;
    match name_text {
        "" => Err(refused(Errno::INVAL, "a name cannot be empty".into())),
        "." | ".." => Err(refused(Errno::INVAL, format!("{shown:?} cannot be a name"))),
        LIVE_NAME => Err(refused(Errno::EXIST, "`live` is the tree itself and cannot be another name".into())),
        _ if name_text.contains('/') => {
            Err(refused(Errno::INVAL, format!("the name {shown:?} has a slash; it has to be one directory name")))
        }
        _ if name_text.chars().any(char::is_control) => {
            Err(refused(Errno::INVAL, format!("the name {shown:?} has control characters; leave them out")))
        }
        _ if is_virtual_name(name) => Err(refused(
            Errno::INVAL,
            format!("{shown:?} cannot be a name: `@…` stands for a time, `.snap` and `.snapshots` for all snapshots"),
        )),
        _ if name.len() > NAME_BYTES_MAX => Err(refused(
            Errno::NAMETOOLONG,
            format!("the name has {} bytes; at most {NAME_BYTES_MAX} are possible", name.len()),
        )),
        _ => Ok(name_text),
    }
}

fn sessions(state: &State) -> Result<impl Iterator<Item = Result<Session>>> {
    let all = state.meta().range(Table::Session, &[], &[u8::MAX; 256])?;
    Ok(all.map(|pair| pair.and_then(|(key, value)| Session::of(&key, &value))))
}

/// The session that is not active yet and will give a base a snapshot of this name.
fn registered(state: &State, base: BaseId, name: &str) -> Result<Option<String>> {
    for session in sessions(state)? {
        let session = session?;
        if session.record.names(&session.name).any(|(of, known)| of == base && known == name) {
            return Ok(Some(session.name));
        }
    }
    Ok(None)
}

/// Checks that no snapshot of a base, session for it or tree shown beside it has this name.
pub(super) fn check_free(state: &State, base: BaseId, name: &str) -> Result<()> {
    if state.moments().snapshot_named(base, name)?.is_some() {
        let text = format!("a snapshot named {name:?} exists already; choose another name or delete it first");
        return Err(refused(Errno::EXIST, text));
    }
    if let Some(session) = registered(state, base, name)? {
        let text = format!(
            "a session named {session:?} is registered, which will take {name:?}; choose another name, or give it up with `pitfs session deactivate {session}`"
        );
        return Err(refused(Errno::EXIST, text));
    }
    match state.base_named(name) {
        Some(_) => Err(refused(Errno::EXIST, format!("a base or clone is named {name:?}; choose another name"))),
        None => Ok(()),
    }
}

/// That no archive has a snapshot: there it keeps its name, by which it is shown when the store has freed it.
pub(super) fn check_not_saved(state: &State, snapshot: &Snapshot) -> Result<()> {
    let known = state.moments().known_archived(snapshot.base)?;
    let attached = state.archive(snapshot.base).and_then(|archive| archive.mark(snapshot.epoch));
    match known.iter().chain(&attached).any(|mark| mark.id == snapshot.record.id) {
        false => Ok(()),
        true => {
            let name = &snapshot.record.name;
            let text = format!(
                "the archive has {name:?} under this name already; a snapshot can be renamed until `pitfs roll` saves it"
            );
            Err(refused(Errno::BUSY, text))
        }
    }
}

/// A name that begins like this and is free; with a number behind it where that is taken.
pub(super) fn free_name(state: &State, bases: &[BaseId], plain: &str) -> Result<String> {
    let mut reserved = HashSet::new();
    for session in sessions(state)? {
        let session = session?;
        reserved.extend(session.record.names(&session.name).map(|(base, name)| (base, name.to_string())));
    }
    let is_taken = |name: &str| -> Result<bool> {
        for base in bases {
            if state.moments().snapshot_named(*base, name)?.is_some() || reserved.contains(&(*base, name.to_string())) {
                return Ok(true);
            }
        }
        Ok(state.base_named(name).is_some())
    };
    let mut name = plain.to_string();
    let mut number = 2u32;
    while is_taken(&name)? {
        name = format!("{plain}-{number}");
        number += 1;
    }
    Ok(name)
}

impl Views {
    /// The newest snapshot that can be looked into and is not after a time, given as text.
    pub fn at_time(&self, text: &str) -> Result<Snapshot> {
        let time = parse_until(text, Timestamp::now())?;
        if let Some(found) = self.before(time)? {
            return Ok(found);
        }
        let mut hidden = self.snapshots().with_archived()?;
        hidden.retain(|snapshot| snapshot.record.time <= time);
        let why = match hidden.pop() {
            Some(snapshot) if !snapshot.is_readable() => {
                format!(" that can be looked into: {:?} was deactivated and has ended", snapshot.record.name)
            }
            Some(snapshot) => format!(" that is shown: {:?} is offline", snapshot.record.name),
            None => String::new(),
        };
        Err(refused(Errno::NOENT, format!("there is no snapshot from before {}{why}", time.as_exact_text())))
    }

    /// The newest snapshot that can be looked into and is not after a time.
    pub fn before(&self, time: Timestamp) -> Result<Option<Snapshot>> {
        let mut newest: Option<Snapshot> = None;
        for snapshot in self.snapshots().with_archived()? {
            // The clock may have jumped: the time counts, and only then the order.
            let is_later = newest.as_ref().is_none_or(|newest| newest.record.time <= snapshot.record.time);
            if snapshot.record.time <= time && is_later && snapshot.is_readable() && !snapshot.record.offline {
                newest = Some(snapshot);
            }
        }
        Ok(newest)
    }
}
