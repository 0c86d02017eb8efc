//! Sessions: snapshots that are prepared step by step.
//!
//! ```text
//! register ──▶ Registered ──relate──▶ Related ──activate──▶ snapshots of all its bases, in one commit
//!                          flush, commit        nothing left to do but that commit
//! ```

use super::group::is_there;
use super::naming::check_free;
use super::snapshot::{take_named, words};
use super::{Views, check_name, refused};
use crate::clock::Timestamp;
use crate::device::{BaseId, SnapOptions, Snapshot};
use crate::error::{Errno, Error, Result};
use crate::meta::{Table, decode};
use crate::shown::shown;
use serde::{Deserialize, Serialize};

/// What is stored of a session before it is activated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    pub bases: Vec<BaseId>,
    pub time: Timestamp,
    pub offline: bool,
    pub is_related: bool,
    /// Names of the snapshots of the first bases, where they are not the session's: empty, or not given.
    #[serde(default)]
    pub names: Vec<String>,
    /// Room is to be set aside for the snapshots.
    #[serde(default)]
    pub reserve: bool,
}

impl SessionRecord {
    /// The bases, and what the snapshot of each will be called.
    pub fn names<'a>(&'a self, session: &'a str) -> impl Iterator<Item = (BaseId, &'a str)> {
        let own = self.names.iter().map(String::as_str).chain(std::iter::repeat(""));
        self.bases.iter().zip(own).map(move |(base, own)| (*base, if own.is_empty() { session } else { own }))
    }
}

/// How a session is to be registered.
#[derive(Clone, Debug, Default)]
pub struct RegisterOptions {
    pub offline: bool,
    pub reserve: bool,
}

/// A session that is not active yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub name: String,
    pub record: SessionRecord,
}

impl Session {
    /// The session that a record says. Its names become those of snapshots: what none can have is damage.
    pub fn of(key: &[u8], value: &[u8]) -> Result<Session> {
        let record: SessionRecord = decode(Table::Session, key, value)?;
        let own = record.names.iter().map(|name| name.as_bytes()).filter(|name| !name.is_empty());
        match std::iter::once(key).chain(own).find(|name| check_name(name).is_err()) {
            None => Ok(Session { name: String::from_utf8_lossy(key).into_owned(), record }),
            Some(name) => {
                let what = format!("the session \"{}\"", shown(key));
                Err(Error::corrupt(what, format!("no snapshot can have the name \"{}\"", shown(name))))
            }
        }
    }
}

/// Sessions: snapshots prepared, and taken together.
#[derive(Clone, Copy)]
pub struct Sessions<'a> {
    pub(super) views: &'a Views,
}

impl Sessions<'_> {
    pub fn named(self, name: &[u8]) -> Result<Session> {
        match self.views.tree.device().look()?.meta().get_raw(Table::Session, name)? {
            Some(value) => Session::of(name, &value),
            None => {
                let name = shown(name);
                let text = format!("no session {name:?} is registered; `pitfs session register {name}` does that");
                Err(refused(Errno::NOENT, text))
            }
        }
    }

    /// Sessions that are registered or related.
    pub fn all(self) -> Result<Vec<Session>> {
        let look = self.views.tree.device().look()?;
        let all = look.meta().range(Table::Session, &[], &[u8::MAX; 256])?;
        all.map(|pair| {
            let (key, value) = pair?;
            Session::of(&key, &value)
        })
        .collect()
    }

    /// Reserves names for snapshots of bases: the session's, or each its own.
    pub fn register(self, name: &[u8], bases: &[(BaseId, Vec<u8>)], options: RegisterOptions) -> Result<Session> {
        let name = check_name(name)?;
        let mut own = Vec::new();
        for (_, name) in bases {
            own.push(if name.is_empty() { String::new() } else { check_name(name)?.to_string() });
        }
        let bases: Vec<BaseId> = bases.iter().map(|(base, _)| *base).collect();
        let names = if own.iter().all(String::is_empty) { Vec::new() } else { own };
        let RegisterOptions { offline, reserve } = options;
        let time = Timestamp::now();
        let record = SessionRecord { bases, time, offline, is_related: false, names, reserve };
        self.views.change(|change| {
            if change.meta().contains(Table::Session, name.as_bytes())? {
                return Err(refused(Errno::EXIST, format!("a session {name:?} is registered already")));
            }
            record.names(name).try_for_each(|(base, name)| check_free(change, base, name))?;
            if reserve {
                change.check_reservable(&record.bases)?;
            }
            change.meta_mut().put(Table::Session, name.as_bytes(), &record);
            let options = words(SnapOptions { offline, reserve, ..SnapOptions::default() });
            let mut what = format!("session register {options}{name:?}");
            if record.bases != [self.views.base] || !record.names.is_empty() {
                for (base, own) in record.names(name) {
                    let base = &change.base_record(base)?.name;
                    let own = if own == name { String::new() } else { format!(":{own}") };
                    what.push_str(&format!(" --base {:?}", format!("{base}{own}")));
                }
            }
            Ok(what)
        })?;
        Ok(Session { name: name.to_string(), record })
    }

    /// Does ahead what takes time: everything written so far becomes durable.
    pub fn relate(self, name: &[u8]) -> Result<Session> {
        let mut session = self.named(name)?;
        if session.record.is_related {
            let text = format!("the session {:?} is related already; `pitfs session activate` is next", session.name);
            return Err(refused(Errno::INVAL, text));
        }
        self.views.fetched()?;
        self.views.tree.commit()?;
        session.record.is_related = true;
        self.views.change(|change| {
            change.meta_mut().put(Table::Session, name, &session.record);
            Ok(format!("session relate {:?}", session.name))
        })?;
        Ok(session)
    }

    pub fn activate(self, name: &[u8]) -> Result<Vec<Snapshot>> {
        let session = self.named(name)?;
        if !session.record.is_related {
            let name = &session.name;
            let text = format!("the session {name:?} is not related; `pitfs session relate {name}` comes first");
            return Err(refused(Errno::INVAL, text));
        }
        let SessionRecord { offline, reserve, .. } = session.record;
        let options = SnapOptions { offline, reserve, ..SnapOptions::default() };
        let fetched = self.views.fetched()?;
        let mut taken = Vec::new();
        self.views.change(|change| {
            if session.record.bases.iter().any(|base| !is_there(change, *base)) {
                let name = &session.name;
                let text = format!(
                    "a base of the session {name:?} was deleted; `pitfs session deactivate {name}` gives it up"
                );
                return Err(refused(Errno::NOENT, text));
            }
            change.meta_mut().remove(Table::Session, name);
            let time = Timestamp::now();
            taken = take_named(change, fetched, session.record.names(&session.name), time, options)?;
            Ok(format!("session activate {:?}", session.name))
        })?;
        Ok(taken)
    }

    /// Takes a session back that is not active.
    pub fn unregister(self, name: &[u8]) -> Result<()> {
        let session = self.named(name)?;
        self.views.change(|change| {
            change.meta_mut().remove(Table::Session, name);
            Ok(format!("session deactivate {:?}", session.name))
        })
    }
}
