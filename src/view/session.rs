//! Taking and ending snapshots, of one base or of several at one moment.
//!
//! ```text
//! register ──▶ Registered ──relate──▶ Related ──activate──▶ snapshots of all its bases, in one commit
//!                          flush, commit        nothing left to do but that commit
//! ```

use super::naming::{check_free, free_name};
use super::save::{newest_save, note_saved};
use super::{Views, check_name, has_free_number, refused};
use crate::archive::Mark;
use crate::clock::Timestamp;
use crate::device::{ArchiveRecord, BaseId, Changing, Point, SnapOptions, Snapshot, SnapshotRecord, State};
use crate::error::{Errno, Error, Result};
use crate::meta::{Table, decode};
use crate::purpose::Purpose;
use crate::shown::shown;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const DROP_OLDEST: &[u8] = b"drop oldest";
/// Epochs that snapshots of one moment are apart at most.
const MOMENT_EPOCHS: u32 = 4096;

/// A snapshot that is wanted.
#[derive(Clone, Debug, Default)]
pub struct SnapRequest<'a> {
    /// Without one it gets the time, in UTC.
    pub name: Option<&'a [u8]>,
    pub options: SnapOptions,
    /// How many snapshots a roll leaves in the store, for the history.
    pub keep: Option<u64>,
}

/// The options of a snapshot in the words of the command line.
fn words(options: SnapOptions) -> String {
    let SnapOptions { offline, held, reserve, .. } = options;
    let all = [(offline, "--offline "), (held, "--hold "), (reserve, "--reserve ")];
    all.iter().filter(|(is_so, _)| *is_so).map(|(_, option)| *option).collect()
}

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// What needs each snapshot that something needs.
pub(super) type Needed = BTreeMap<Point, Vec<BaseId>>;

/// Whether a snapshot may go by rule, or for want of room.
pub(super) fn may_be_dropped(state: &State, needed: &Needed, snapshot: &Snapshot) -> bool {
    let is_wanted = snapshot.record.held || snapshot.record.reserve > 0 || state.is_archiving(snapshot.point());
    !is_wanted && !needed.contains_key(&snapshot.point())
}

impl Views {
    /// Takes a snapshot of this base, durably. Without a name it gets the time, in UTC.
    pub fn snapshot(&self, name: Option<&[u8]>) -> Result<Snapshot> {
        let request = SnapRequest { name, ..SnapRequest::default() };
        let mut taken = self.snapshot_all(&[self.base], request)?;
        taken.pop().ok_or(Error::Posix(Errno::NOENT))
    }

    /// Takes snapshots of several bases, all of one moment and with one name, durably.
    pub fn snapshot_all(&self, bases: &[BaseId], request: SnapRequest<'_>) -> Result<Vec<Snapshot>> {
        self.snapshot_noted(bases, request, "")
    }

    /// Takes snapshots of the bases of a group, like [`Views::snapshot_all`].
    pub fn snapshot_group(&self, group: &[u8], request: SnapRequest<'_>) -> Result<Vec<Snapshot>> {
        let bases = self.group(group)?;
        self.snapshot_noted(&bases, request, &format!("--group {:?} ", shown(group)))
    }

    /// `of` says in the history of what.
    fn snapshot_noted(&self, bases: &[BaseId], request: SnapRequest<'_>, of: &str) -> Result<Vec<Snapshot>> {
        let name = request.name.map(check_name).transpose()?;
        let mut taken = Vec::new();
        self.change(|change| {
            let time = Timestamp::now();
            let name = name.map(str::to_string);
            taken = take(change, bases, name, time, request.options)?;
            if request.options.purpose == Purpose::Save {
                taken.iter().for_each(|snapshot| note_saved(change, snapshot));
            }
            let name = taken.first().map_or("", |snapshot| &snapshot.record.name);
            let keep = request.keep.map_or(String::new(), |keep| format!("--keep {keep} "));
            Ok(match request.options.purpose {
                Purpose::Save => format!("save {of}{name:?}"),
                Purpose::Roll => match &change.base_record(self.base)?.archive {
                    Some(archive) if of.is_empty() => {
                        format!("roll --archive {:?} {keep}--name {name:?}", archive.directory)
                    }
                    _ => format!("roll {of}{keep}--name {name:?}"),
                },
                _ => format!("snap {of}{}{name:?}", words(request.options)),
            })
        })?;
        Ok(taken)
    }

    /// The snapshot of this name, which has to be in the store.
    pub fn expect_stored(&self, name: &[u8]) -> Result<Snapshot> {
        let snapshot = self.expect(name)?;
        match snapshot.is_archived {
            true => {
                let text = format!(
                    "{:?} is in the archive, not in the store, and is only read there; `pitfs archive prune` and `archive merge` let times go",
                    snapshot.record.name
                );
                Err(refused(Errno::ROFS, text))
            }
            false => Ok(snapshot),
        }
    }

    /// Changes what is stored of a snapshot: whether it is shown.
    pub fn update(&self, name: &[u8], what: &str, update: impl Fn(&mut SnapshotRecord)) -> Result<Snapshot> {
        let update = |record: &mut SnapshotRecord| {
            update(record);
            Ok(())
        };
        self.update_all(&[name], what, update)?.pop().ok_or(Error::Posix(Errno::STALE))
    }

    /// Changes what is stored of snapshots in one step; of none of them if one refuses. What others change of them
    /// meanwhile stays.
    pub(super) fn update_all(
        &self,
        names: &[&[u8]],
        what: &str,
        update: impl Fn(&mut SnapshotRecord) -> Result<()>,
    ) -> Result<Vec<Snapshot>> {
        let mut found: Vec<Snapshot> = Vec::new();
        for name in names {
            let snapshot = self.expect_stored(name)?;
            if !found.iter().any(|known| known.point() == snapshot.point()) {
                found.push(snapshot);
            }
        }
        self.change(|change| {
            let mut shown = String::new();
            for snapshot in &mut found {
                let state: &State = change;
                let now = state.snapshot(snapshot.base, snapshot.epoch)?.filter(|now| !now.is_archived);
                *snapshot = now.ok_or(Error::Posix(Errno::STALE))?;
                update(&mut snapshot.record)?;
                change.update(snapshot);
                shown.push_str(&format!(" {:?}", snapshot.record.name));
            }
            Ok(format!("{what}{shown}"))
        })?;
        Ok(found)
    }

    /// Ends the protection of these snapshots, as far as they are there and active, in one step.
    pub fn deactivate_active(&self, snapshots: &[Snapshot]) -> Result<()> {
        if snapshots.is_empty() {
            return Ok(());
        }
        self.tree.device().committer()?.change(|change| {
            for snapshot in snapshots {
                match change.deactivate(snapshot.point()) {
                    Ok(ended) => self.note(change, &format!("session deactivate {:?}", ended.record.name))?,
                    // It was deleted, or deactivated, meanwhile.
                    Err(Error::Posix(Errno::STALE) | Error::Refused(Errno::INVAL, _)) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
    }

    /// Ends the protection of a snapshot.
    pub fn deactivate(&self, name: &[u8]) -> Result<Snapshot> {
        let snapshot = self.expect_stored(name)?;
        self.deactivate_all(std::slice::from_ref(&snapshot))?.pop().ok_or(Error::Posix(Errno::STALE))
    }

    /// Ends the protection of snapshots in one step; of none of them if one is deactivated already.
    pub fn deactivate_all(&self, snapshots: &[Snapshot]) -> Result<Vec<Snapshot>> {
        let mut ended = Vec::new();
        self.change(|change| {
            for snapshot in snapshots {
                ended.push(change.deactivate(snapshot.point())?);
            }
            let name = snapshots.first().map_or("", |snapshot| &snapshot.record.name);
            Ok(format!("session deactivate {name:?}"))
        })?;
        Ok(ended)
    }

    /// The snapshots that were taken at the moment of one, of all bases.
    pub fn of_one_moment(&self, snapshot: &Snapshot) -> Result<Vec<Snapshot>> {
        let look = self.tree.device().look()?;
        let mut found = Vec::new();
        for (base, _) in look.bases() {
            // Those of one moment have epochs one behind the other, but for some that cannot be used.
            let near = snapshot.epoch.saturating_sub(MOMENT_EPOCHS)..=snapshot.epoch.saturating_add(MOMENT_EPOCHS);
            let after = look.snapshots_after(base, near.start().saturating_sub(1), MOMENT_EPOCHS as usize * 2)?;
            found.extend(after.into_iter().find(|other| {
                let is_near = near.contains(&other.epoch) && !other.record.deleting;
                is_near && other.record.time == snapshot.record.time && other.record.purpose == snapshot.record.purpose
            }));
        }
        Ok(found)
    }

    /// The snapshots of a name, or `@TIME`, of all bases of a group.
    pub fn of_group(&self, group: &[u8], name: &[u8]) -> Result<Vec<Snapshot>> {
        let bases = self.group(group)?;
        let found = |base: &BaseId| self.of(*base).as_one_of(bases.len(), self.of(*base).expect(name));
        bases.iter().map(found).collect()
    }

    /// The last `save` of all bases of a group.
    pub fn last_save_of_group(&self, group: &[u8]) -> Result<Vec<Snapshot>> {
        let bases = self.group(group)?;
        let mut saves = self.of(bases[0]).snapshots()?;
        saves.retain(|snapshot| snapshot.record.purpose == Purpose::Save);
        for save in saves.into_iter().rev() {
            let mut all = self.of_one_moment(&save)?;
            all.retain(|snapshot| bases.contains(&snapshot.base));
            if all.len() == bases.len() {
                return Ok(all);
            }
        }
        let group = shown(group);
        let text = format!("nothing was saved yet of all bases of {group:?}; `pitfs save --group {group}` does that");
        Err(refused(Errno::NOENT, text))
    }
}

/// Takes the snapshots of one moment.
pub(super) fn take(
    change: &mut Changing<'_>,
    bases: &[BaseId],
    name: Option<String>,
    time: Timestamp,
    options: SnapOptions,
) -> Result<Vec<Snapshot>> {
    let name = match name {
        Some(name) => name,
        None => free_name(change, bases, &time.as_name())?,
    };
    take_named(change, bases.iter().map(|base| (*base, name.as_str())), time, options)
}

/// The same, each under its name.
fn take_named<'a>(
    change: &mut Changing<'_>,
    names: impl Iterator<Item = (BaseId, &'a str)>,
    time: Timestamp,
    options: SnapOptions,
) -> Result<Vec<Snapshot>> {
    let mut taken = Vec::new();
    for (base, name) in names {
        check_free(change, base, name)?;
        taken.push(change.snapshot(base, name.to_string(), time, options, &has_free_number)?);
    }
    Ok(taken)
}

/// The names of bases that are there.
fn names_of<'a>(state: &'a State, bases: &'a [BaseId]) -> impl Iterator<Item = &'a str> {
    bases.iter().filter_map(|base| Some(state.base_record(*base).ok()?.name.as_str()))
}

fn is_there(state: &State, base: BaseId) -> bool {
    state.base_record(base).is_ok_and(|record| !record.deleting)
}

// Sessions that are prepared step by step, and groups.
impl Views {
    pub fn session(&self, name: &[u8]) -> Result<Session> {
        match self.tree.device().look()?.meta().get_raw(Table::Session, name)? {
            Some(value) => Session::of(name, &value),
            None => {
                let name = shown(name);
                let text = format!("no session {name:?} is registered; `pitfs session register {name}` does that");
                Err(refused(Errno::NOENT, text))
            }
        }
    }

    /// Sessions that are registered or related.
    pub fn sessions(&self) -> Result<Vec<Session>> {
        let look = self.tree.device().look()?;
        let all = look.meta().range(Table::Session, &[], &[u8::MAX; 256])?;
        all.map(|pair| {
            let (key, value) = pair?;
            Session::of(&key, &value)
        })
        .collect()
    }

    /// Reserves names for snapshots of bases: the session's, or each its own.
    pub fn register(&self, name: &[u8], bases: &[(BaseId, Vec<u8>)], options: RegisterOptions) -> Result<Session> {
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
        self.change(|change| {
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
            if record.bases != [self.base] || !record.names.is_empty() {
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
    pub fn relate(&self, name: &[u8]) -> Result<Session> {
        let mut session = self.session(name)?;
        if session.record.is_related {
            let text = format!("the session {:?} is related already; `pitfs session activate` is next", session.name);
            return Err(refused(Errno::INVAL, text));
        }
        self.tree.commit()?;
        session.record.is_related = true;
        self.change(|change| {
            change.meta_mut().put(Table::Session, name, &session.record);
            Ok(format!("session relate {:?}", session.name))
        })?;
        Ok(session)
    }

    pub fn activate(&self, name: &[u8]) -> Result<Vec<Snapshot>> {
        let session = self.session(name)?;
        if !session.record.is_related {
            let name = &session.name;
            let text = format!("the session {name:?} is not related; `pitfs session relate {name}` comes first");
            return Err(refused(Errno::INVAL, text));
        }
        let SessionRecord { offline, reserve, .. } = session.record;
        let options = SnapOptions { offline, reserve, ..SnapOptions::default() };
        let mut taken = Vec::new();
        self.change(|change| {
            if session.record.bases.iter().any(|base| !is_there(change, *base)) {
                let name = &session.name;
                let text = format!(
                    "a base of the session {name:?} was deleted; `pitfs session deactivate {name}` gives it up"
                );
                return Err(refused(Errno::NOENT, text));
            }
            change.meta_mut().remove(Table::Session, name);
            let time = Timestamp::now();
            taken = take_named(change, session.record.names(&session.name), time, options)?;
            Ok(format!("session activate {:?}", session.name))
        })?;
        Ok(taken)
    }

    /// Takes a session back that is not active.
    pub fn unregister(&self, name: &[u8]) -> Result<()> {
        let session = self.session(name)?;
        self.change(|change| {
            change.meta_mut().remove(Table::Session, name);
            Ok(format!("session deactivate {:?}", session.name))
        })
    }

    pub fn create_group(&self, name: &[u8], bases: &[BaseId]) -> Result<()> {
        let name = check_name(name)?;
        self.change(|change| {
            if change.meta().contains(Table::Group, name.as_bytes())? {
                return Err(refused(Errno::EXIST, format!("there is a group {name:?} already; delete it first")));
            }
            change.meta_mut().put(Table::Group, name.as_bytes(), &bases.to_vec());
            let bases: Vec<String> = names_of(change, bases).map(|base| format!("{base:?}")).collect();
            Ok(format!("group create {name:?} {}", bases.join(" ")))
        })
    }

    pub fn delete_group(&self, name: &[u8]) -> Result<()> {
        self.change(|change| {
            if !change.meta().contains(Table::Group, name)? {
                let name = shown(name);
                return Err(refused(
                    Errno::NOENT,
                    format!("there is no group {name:?}; `pitfs group list` shows those there are"),
                ));
            }
            change.meta_mut().remove(Table::Group, name);
            Ok(format!("group delete {:?}", shown(name)))
        })
    }

    /// The bases of a group.
    pub fn group(&self, name: &[u8]) -> Result<Vec<BaseId>> {
        let look = self.tree.device().look()?;
        let found: Option<Vec<BaseId>> = look.meta().get(Table::Group, name)?;
        let name = shown(name);
        let mut bases = found.ok_or_else(|| {
            refused(Errno::NOENT, format!("there is no group {name:?}; `pitfs group create {name} BASE…` makes one"))
        })?;
        bases.retain(|base| is_there(&look, *base));
        match bases.is_empty() {
            true => Err(refused(Errno::NOENT, format!("all bases of the group {name:?} were deleted"))),
            false => Ok(bases),
        }
    }

    pub fn groups(&self) -> Result<Vec<(String, Vec<BaseId>)>> {
        let look = self.tree.device().look()?;
        let all = look.meta().range(Table::Group, &[], &[u8::MAX; 256])?;
        all.map(|pair| {
            let (key, value) = pair?;
            let mut bases: Vec<BaseId> = decode(Table::Group, &key, &value)?;
            bases.retain(|base| is_there(&look, *base));
            Ok((String::from_utf8_lossy(&key).into_owned(), bases))
        })
        .collect()
    }

    /// Notes where this base's increments go, which snapshots they need, and, if given, which times are there.
    pub fn set_archive(&self, archive: Option<ArchiveRecord>, times: Option<&[Mark]>) -> Result<()> {
        self.tree.device().committer()?.change(|change| {
            let before = change.base_record(self.base)?.archive.clone();
            let what = match (&archive, before) {
                // How far a roll has come, which is noted itself.
                (Some(archive), Some(before)) if before.directory == archive.directory => None,
                (Some(archive), _) => Some(format!("archive attach {:?}", archive.directory)),
                (None, _) => Some("archive detach".into()),
            };
            change.set_archive(self.base, archive)?;
            if let Some(times) = times {
                change.note_archived(self.base, times)?;
            }
            what.map_or(Ok(()), |what| self.note(change, &what))
        })
    }

    /// Whether the oldest snapshots are dropped when room ends, rather than writes refused.
    pub fn drops_oldest(&self) -> Result<bool> {
        Ok(self.tree.device().look()?.meta().get(Table::State, DROP_OLDEST)?.unwrap_or(false))
    }

    pub fn set_drop_oldest(&self, drop_oldest: bool) -> Result<()> {
        self.change(|change| {
            change.meta_mut().put(Table::State, DROP_OLDEST, &drop_oldest);
            Ok(format!("policy --when-full {}", if drop_oldest { "drop-oldest" } else { "refuse" }))
        })
    }

    /// Drops the oldest snapshot to make room, if that is the store's policy; false if there is nothing to be had.
    pub fn make_room(&self) -> Result<bool> {
        if !self.drops_oldest()? || self.drop_oldest()?.is_none() {
            return Ok(false);
        }
        while self.tree.device().delete_step()? {}
        // What is freed may be used when that is durable.
        self.tree.commit().map(|()| true)
    }

    /// Deletes the oldest snapshot of the store that may go for want of room; `None` where there is none.
    pub fn drop_oldest(&self) -> Result<Option<Snapshot>> {
        let oldest = {
            let look = self.tree.device().look()?;
            let needed = look.all_dependants()?;
            let mut oldest: Option<Snapshot> = None;
            // Nothing would come of it where they are kept.
            for (base, _) in look.bases().filter(|(base, _)| !self.tree.device().is_kept(*base)) {
                let save = newest_save(&look, base)?.map(|save| save.epoch);
                let mut snapshots = look.snapshots(base)?;
                // A roll that is under way, or the next one, goes on from what it has just taken.
                snapshots.pop_if(|newest| newest.record.purpose == Purpose::Roll);
                for snapshot in snapshots {
                    if oldest.as_ref().is_some_and(|oldest| oldest.epoch <= snapshot.epoch) {
                        break;
                    }
                    if save != Some(snapshot.epoch) && may_be_dropped(&look, &needed, &snapshot) {
                        oldest = Some(snapshot);
                    }
                }
            }
            oldest
        };
        if let Some(oldest) = &oldest {
            log::warn!("room ends: the snapshot {:?} is dropped", oldest.record.name);
            self.tree.device().hide_snapshots(&[oldest.point()])?;
            self.of(oldest.base).change(|_| Ok(format!("drop {:?}: room ended", oldest.record.name)))?;
            if let Some(tell) = self.on_dropped.get() {
                tell(oldest);
            }
        }
        Ok(oldest)
    }
}
