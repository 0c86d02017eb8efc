//! Taking and ending snapshots, of one base or of several at one moment.
//!
//! ```text
//! register ──▶ Registered ──relate──▶ Related ──activate──▶ snapshots of all its bases, in one commit
//!                          flush, commit        nothing left to do but that commit
//! ```

use super::base::needed_by;
use super::naming::{check_free, free_name};
use super::{LIVE_NAME, Views, check_name, has_free_number, refused};
use crate::clock::Timestamp;
use crate::device::{ArchiveRecord, BaseId, Changing, Point, Purpose, SnapOptions, Snapshot, State};
use crate::error::{Errno, Error, Result};
use crate::meta::{Table, decode};
use serde::{Deserialize, Serialize};

const DROP_OLDEST: &[u8] = b"drop oldest";

/// A snapshot that is wanted.
#[derive(Clone, Debug, Default)]
pub struct SnapRequest<'a> {
    /// Without one it gets the time, in UTC.
    pub name: Option<&'a [u8]>,
    pub options: SnapOptions,
}

/// What is stored of a session before it is activated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    pub bases: Vec<BaseId>,
    pub time: Timestamp,
    pub offline: bool,
    pub is_related: bool,
}

/// A session that is not active yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub name: String,
    pub record: SessionRecord,
}

/// Whether a snapshot may go for want of room.
fn may_be_dropped(state: &State, snapshot: &Snapshot) -> Result<bool> {
    let is_wanted = snapshot.record.held || snapshot.record.reserve > 0 || state.is_archiving(snapshot.point());
    Ok(!is_wanted && state.dependants(snapshot.point())?.is_empty())
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
        self.snapshot_noted(&bases, request, &format!("--group {:?} ", String::from_utf8_lossy(group)))
    }

    /// `of` says in the history of what.
    fn snapshot_noted(&self, bases: &[BaseId], request: SnapRequest<'_>, of: &str) -> Result<Vec<Snapshot>> {
        let name = request.name.map(check_name).transpose()?;
        let mut taken = Vec::new();
        self.change(|change| {
            let time = Timestamp::now();
            let name = name.map(str::to_string);
            taken = take(change, bases, name, time, request.options)?;
            let name = taken.first().map_or("", |snapshot| &snapshot.record.name);
            Ok(match request.options.purpose {
                Purpose::Save => format!("save {name:?}"),
                Purpose::Roll => match &change.base_record(self.base)?.archive {
                    Some(archive) => format!("roll --archive {:?} --name {name:?}", archive.directory),
                    None => format!("roll --name {name:?}"),
                },
                _ => format!("snap {of}{name:?}"),
            })
        })?;
        Ok(taken)
    }

    /// The snapshots of these names, if nothing but what depends on them forbids to delete them.
    pub fn deletable(&self, names: &[&[u8]]) -> Result<Vec<Snapshot>> {
        let mut snapshots: Vec<Snapshot> = Vec::new();
        for name in names {
            if *name == LIVE_NAME.as_bytes() {
                return Err(refused(Errno::PERM, "`live` is the tree itself and cannot be deleted".into()));
            }
            let snapshot = self.expect_stored(name)?;
            self.check_not_anchor(&snapshot)?;
            if snapshot.record.held {
                let name = &snapshot.record.name;
                return Err(refused(Errno::BUSY, format!("{name:?} is held; `pitfs release {name}` ends that")));
            }
            if !snapshots.contains(&snapshot) {
                snapshots.push(snapshot);
            }
        }
        Ok(snapshots)
    }

    /// Makes snapshots disappear, durably; none of them if a name is wrong or something depends on one. Their
    /// room comes back in the background.
    pub fn delete(&self, names: &[&[u8]]) -> Result<Vec<Snapshot>> {
        loop {
            let snapshots = self.deletable(names)?;
            for snapshot in &snapshots {
                self.check_unneeded(snapshot)?;
            }
            match self.delete_snapshots(snapshots) {
                // Somebody came to need one of them: the check says who, if that is not over already.
                Err(Error::Posix(Errno::BUSY)) => {}
                result => return result,
            }
        }
    }

    /// Like [`Views::delete`], with all that depends on them.
    pub fn delete_recursive(&self, names: &[&[u8]]) -> Result<Vec<Snapshot>> {
        loop {
            let snapshots = self.deletable(names)?;
            for snapshot in &snapshots {
                self.finish_settling_from(snapshot.point())?;
                let dependants = self.tree.device().look()?.dependants(snapshot.point())?;
                for base in dependants.into_iter().filter(|base| *base != self.base) {
                    self.delete_base(base, true)?;
                }
                self.check_unneeded(snapshot)?;
            }
            match self.delete_snapshots(snapshots) {
                Err(Error::Posix(Errno::BUSY)) => {}
                result => return result,
            }
        }
    }

    /// The snapshot of this name, which has to be in the store.
    pub fn expect_stored(&self, name: &[u8]) -> Result<Snapshot> {
        let snapshot = self.expect(name)?;
        match snapshot.is_archived {
            true => {
                let text = format!("{:?} is in the archive, not in the store", snapshot.record.name);
                Err(refused(Errno::INVAL, text))
            }
            false => Ok(snapshot),
        }
    }

    /// The archive cannot be read without the snapshot that its newest increment leads to.
    fn check_not_anchor(&self, snapshot: &Snapshot) -> Result<()> {
        let look = self.tree.device().look()?;
        match &look.base_record(self.base)?.archive {
            Some(archive) if archive.needs(snapshot.epoch) => Err(refused(
                Errno::BUSY,
                format!(
                    "the archive {} continues from {:?}; `pitfs roll` takes it on from there, `pitfs archive detach` gives it up",
                    archive.directory.display(),
                    snapshot.record.name
                ),
            )),
            _ => Ok(()),
        }
    }

    fn delete_snapshots(&self, snapshots: Vec<Snapshot>) -> Result<Vec<Snapshot>> {
        if snapshots.is_empty() {
            return Ok(snapshots);
        }
        let points: Vec<Point> = snapshots.iter().map(Snapshot::point).collect();
        self.tree.device().hide_snapshots(&points)?;
        let names: Vec<String> = snapshots.iter().map(|snapshot| format!("{:?}", snapshot.record.name)).collect();
        self.change(|_| Ok(format!("delete {}", names.join(" "))))?;
        self.tree.device().wake();
        Ok(snapshots)
    }

    /// A restore that is still being settled from a snapshot is settled; EBUSY in words for what else depends on it.
    fn check_unneeded(&self, snapshot: &Snapshot) -> Result<()> {
        self.finish_settling_from(snapshot.point())?;
        let look = self.tree.device().look()?;
        let dependants = look.dependants(snapshot.point())?;
        if dependants.is_empty() {
            return Ok(());
        }
        let of_mirrors = "; a mirror releases a snapshot with the next `pitfs mirror sync`, or `resync` if it is split";
        let name = &snapshot.record.name;
        Err(refused(Errno::BUSY, needed_by(&look, name, snapshot.base, &dependants, of_mirrors)?))
    }

    /// Settles to the end what shows this state, as far as settling is under way.
    fn finish_settling_from(&self, point: Point) -> Result<()> {
        loop {
            let is_needed = {
                let look = self.tree.device().look()?;
                let settling = |base: &BaseId| look.is_settling(*base).unwrap_or(false);
                look.dependants(point)?.iter().any(settling)
            };
            if !is_needed || !self.tree.settle_step()? {
                return Ok(());
            }
        }
    }

    /// Changes what is stored of a snapshot: whether it is held, or shown.
    pub fn update(&self, name: &[u8], what: &str, update: impl FnOnce(&mut Snapshot)) -> Result<Snapshot> {
        let mut snapshot = self.expect_stored(name)?;
        update(&mut snapshot);
        self.change(|change| {
            change.update(&snapshot);
            Ok(format!("{what} {:?}", snapshot.record.name))
        })?;
        Ok(snapshot)
    }

    /// Ends the protection of a snapshot.
    pub fn deactivate(&self, name: &[u8]) -> Result<Snapshot> {
        let snapshot = self.expect_stored(name)?;
        let mut ended = None;
        self.change(|change| {
            ended = Some(change.deactivate(snapshot.point())?);
            Ok(format!("session deactivate {:?}", snapshot.record.name))
        })?;
        Ok(ended.unwrap_or(snapshot))
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
        Some(name) => {
            bases.iter().try_for_each(|base| check_free(change, *base, &name))?;
            name
        }
        None => free_name(change, bases, &time.as_name())?,
    };
    let mut taken = Vec::new();
    for &base in bases {
        taken.push(change.snapshot(base, name.clone(), time, options, &has_free_number)?);
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
        let record: Option<SessionRecord> = self.tree.device().look()?.meta().get(Table::Session, name)?;
        let name = String::from_utf8_lossy(name).into_owned();
        match record {
            Some(record) => Ok(Session { name, record }),
            None => Err(refused(
                Errno::NOENT,
                format!("no session {name:?} is registered; `pitfs session register {name}` does that"),
            )),
        }
    }

    /// Sessions that are registered or related.
    pub fn sessions(&self) -> Result<Vec<Session>> {
        let look = self.tree.device().look()?;
        let all = look.meta().range(Table::Session, &[], &[u8::MAX; 256])?;
        all.map(|pair| {
            let (key, value) = pair?;
            let name = String::from_utf8_lossy(&key).into_owned();
            Ok(Session { name, record: decode(Table::Session, &key, &value)? })
        })
        .collect()
    }

    pub fn register(&self, name: &[u8], bases: &[BaseId], offline: bool) -> Result<Session> {
        let name = check_name(name)?;
        let record = SessionRecord { bases: bases.to_vec(), time: Timestamp::now(), offline, is_related: false };
        self.change(|change| {
            if change.meta().contains(Table::Session, name.as_bytes())? {
                return Err(refused(Errno::EXIST, format!("a session {name:?} is registered already")));
            }
            bases.iter().try_for_each(|base| check_free(change, *base, name))?;
            change.meta_mut().put(Table::Session, name.as_bytes(), &record);
            let mut what = format!("session register {name:?}");
            if bases != [self.base] {
                names_of(change, bases).for_each(|base| what.push_str(&format!(" --base {base:?}")));
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
        let options = SnapOptions { offline: session.record.offline, ..SnapOptions::default() };
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
            taken = take(change, &session.record.bases, Some(session.name.clone()), time, options)?;
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
                let name = String::from_utf8_lossy(name);
                return Err(refused(
                    Errno::NOENT,
                    format!("there is no group {name:?}; `pitfs group list` shows those there are"),
                ));
            }
            change.meta_mut().remove(Table::Group, name);
            Ok(format!("group delete {:?}", String::from_utf8_lossy(name)))
        })
    }

    /// The bases of a group.
    pub fn group(&self, name: &[u8]) -> Result<Vec<BaseId>> {
        let look = self.tree.device().look()?;
        let found: Option<Vec<BaseId>> = look.meta().get(Table::Group, name)?;
        let name = String::from_utf8_lossy(name);
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

    /// Notes where this base's increments go, and which snapshots they need.
    pub fn set_archive(&self, archive: Option<ArchiveRecord>) -> Result<()> {
        self.tree.device().committer()?.change(|change| {
            let before = change.base_record(self.base)?.archive.clone();
            let what = match (&archive, before) {
                // How far a roll has come, which is noted itself.
                (Some(archive), Some(before)) if before.directory == archive.directory => None,
                (Some(archive), _) => Some(format!("archive attach {:?}", archive.directory)),
                (None, _) => Some("archive detach".into()),
            };
            change.set_archive(self.base, archive)?;
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
            let mut oldest: Option<Snapshot> = None;
            for (base, _) in look.bases() {
                for snapshot in look.snapshots(base)? {
                    if oldest.as_ref().is_some_and(|oldest| oldest.epoch <= snapshot.epoch) {
                        break;
                    }
                    if may_be_dropped(&look, &snapshot)? {
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
