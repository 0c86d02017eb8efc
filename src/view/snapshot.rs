//! Taking and ending snapshots, of one base or of several at one moment.

use super::naming::{check_free, check_not_saved, free_name};
use super::save::note_saved;
use super::{LIVE_NAME, Views, check_name, has_free_number, refused};
use crate::clock::{Epoch, Timestamp};
use crate::device::{BaseId, Changing, Fetched, SnapOptions, Snapshot, SnapshotRecord, State};
use crate::error::{Errno, Error, Result};
use crate::purpose::Purpose;
use crate::shown::shown;

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
pub(super) fn words(options: SnapOptions) -> String {
    let SnapOptions { offline, held, reserve, .. } = options;
    let all = [(offline, "--offline "), (held, "--hold "), (reserve, "--reserve ")];
    all.iter().filter(|(is_so, _)| *is_so).map(|(_, option)| *option).collect()
}

/// Snapshots of a base, and of several at one moment.
#[derive(Clone, Copy)]
pub struct Snapshots<'a> {
    pub(super) views: &'a Views,
}

impl Snapshots<'_> {
    /// Takes a snapshot of this base, durably. Without a name it gets the time, in UTC.
    pub fn take(self, name: Option<&[u8]>) -> Result<Snapshot> {
        let request = SnapRequest { name, ..SnapRequest::default() };
        let mut taken = self.take_all(&[self.views.base], request)?;
        taken.pop().ok_or(Error::Posix(Errno::NOENT))
    }

    /// Takes snapshots of several bases, all of one moment and with one name, durably.
    pub fn take_all(self, bases: &[BaseId], request: SnapRequest<'_>) -> Result<Vec<Snapshot>> {
        self.take_noted(bases, request, "")
    }

    /// Takes snapshots of the bases of a group, like [`Snapshots::take_all`].
    pub fn take_of_group(self, group: &[u8], request: SnapRequest<'_>) -> Result<Vec<Snapshot>> {
        let bases = self.views.groups().bases(group)?;
        self.take_noted(&bases, request, &format!("--group {:?} ", shown(group)))
    }

    /// `of` says in the history of what.
    fn take_noted(self, bases: &[BaseId], request: SnapRequest<'_>, of: &str) -> Result<Vec<Snapshot>> {
        let name = request.name.map(check_name).transpose()?;
        let fetched = self.views.fetched()?;
        let mut taken = Vec::new();
        self.views.change(|change| {
            let time = Timestamp::now();
            let name = name.map(str::to_string);
            taken = take(change, fetched, bases, name, time, request.options)?;
            if request.options.purpose == Purpose::Save {
                taken.iter().for_each(|snapshot| note_saved(change, snapshot));
            }
            let name = taken.first().map_or("", |snapshot| &snapshot.record.name);
            let keep = request.keep.map_or(String::new(), |keep| format!("--keep {keep} "));
            Ok(match request.options.purpose {
                Purpose::Save => format!("save {of}{name:?}"),
                Purpose::Roll => match &change.base_record(self.views.base)?.archive {
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
    pub fn expect_stored(self, name: &[u8]) -> Result<Snapshot> {
        let snapshot = self.views.expect(name)?;
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
    pub fn update(self, name: &[u8], what: &str, update: impl Fn(&mut SnapshotRecord)) -> Result<Snapshot> {
        let update = |record: &mut SnapshotRecord| {
            update(record);
            Ok(())
        };
        self.update_all(&[name], what, update)?.pop().ok_or(Error::Gone)
    }

    /// Changes what is stored of snapshots in one step; of none of them if one refuses. What others change of them
    /// meanwhile stays.
    pub(super) fn update_all(
        self,
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
        self.views.change(|change| {
            let mut shown = String::new();
            for snapshot in &mut found {
                let state: &State = change;
                let now = state.moments().snapshot(snapshot.base, snapshot.epoch)?.filter(|now| !now.is_archived);
                *snapshot = now.ok_or(Error::Gone)?;
                update(&mut snapshot.record)?;
                change.update(snapshot);
                shown.push_str(&format!(" {:?}", snapshot.record.name));
            }
            Ok(format!("{what}{shown}"))
        })?;
        Ok(found)
    }

    /// Ends the protection of these snapshots, as far as they are there and active, in one step.
    pub fn deactivate_active(self, snapshots: &[Snapshot]) -> Result<()> {
        if snapshots.is_empty() {
            return Ok(());
        }
        self.views.tree.device().committer()?.change(|change| {
            for snapshot in snapshots {
                match change.deactivate(snapshot.point()) {
                    Ok(ended) => self.views.note(change, &format!("session deactivate {:?}", ended.record.name))?,
                    // It was deleted, or deactivated, meanwhile.
                    Err(Error::Gone | Error::Refused(Errno::INVAL, _)) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
    }

    /// Ends the protection of a snapshot.
    pub fn deactivate(self, name: &[u8]) -> Result<Snapshot> {
        let snapshot = self.expect_stored(name)?;
        self.deactivate_all(std::slice::from_ref(&snapshot))?.pop().ok_or(Error::Gone)
    }

    /// Ends the protection of snapshots in one step; of none of them if one is deactivated already.
    pub fn deactivate_all(self, snapshots: &[Snapshot]) -> Result<Vec<Snapshot>> {
        let mut ended = Vec::new();
        self.views.change(|change| {
            for snapshot in snapshots {
                ended.push(change.deactivate(snapshot.point())?);
            }
            let name = snapshots.first().map_or("", |snapshot| &snapshot.record.name);
            Ok(format!("session deactivate {name:?}"))
        })?;
        Ok(ended)
    }

    /// All snapshots, oldest first.
    pub fn all(self) -> Result<Vec<Snapshot>> {
        self.views.tree.device().look()?.moments().snapshots(self.views.base)
    }

    /// All snapshots, and the times that only the archive holds, oldest first.
    pub fn with_archived(self) -> Result<Vec<Snapshot>> {
        let mut all =
            self.views.tree.device().look()?.moments().shown_after(self.views.base, Epoch::ZERO, usize::MAX)?;
        all.retain(|snapshot| !snapshot.record.deleting);
        Ok(all)
    }

    /// Gives a snapshot another name, durably.
    pub fn rename(self, old: &[u8], new: &[u8]) -> Result<Snapshot> {
        let new = check_name(new)?;
        if old == LIVE_NAME.as_bytes() {
            return Err(refused(Errno::PERM, "`live` is the tree itself and cannot be renamed".into()));
        }
        let snapshot = self.expect_stored(old)?;
        if old == new.as_bytes() {
            return Ok(snapshot);
        }
        self.views.change(|change| {
            check_free(change, self.views.base, new)?;
            check_not_saved(change, &snapshot)?;
            change.rename(&snapshot, new);
            Ok(format!("rename {:?} {new:?}", snapshot.record.name))
        })?;
        Ok(snapshot)
    }

    /// The snapshots that were taken at the moment of one, of all bases.
    pub fn of_one_moment(self, snapshot: &Snapshot) -> Result<Vec<Snapshot>> {
        let look = self.views.tree.device().look()?;
        let mut found = Vec::new();
        for (base, _) in look.bases() {
            // Those of one moment have epochs one behind the other, but for some that cannot be used.
            let near = snapshot.epoch.minus(MOMENT_EPOCHS)..=snapshot.epoch.plus(MOMENT_EPOCHS);
            let after = look.moments().snapshots_after(base, near.start().before(), MOMENT_EPOCHS as usize * 2)?;
            found.extend(after.into_iter().find(|other| {
                let is_near = near.contains(&other.epoch) && !other.record.deleting;
                is_near && other.record.time == snapshot.record.time && other.record.purpose == snapshot.record.purpose
            }));
        }
        Ok(found)
    }
}

/// Takes the snapshots of one moment.
pub(super) fn take(
    change: &mut Changing<'_>,
    fetched: Fetched,
    bases: &[BaseId],
    name: Option<String>,
    time: Timestamp,
    options: SnapOptions,
) -> Result<Vec<Snapshot>> {
    let name = match name {
        Some(name) => name,
        None => free_name(change, bases, &time.as_name())?,
    };
    take_named(change, fetched, bases.iter().map(|base| (*base, name.as_str())), time, options)
}

/// The same, each under its name.
pub(super) fn take_named<'a>(
    change: &mut Changing<'_>,
    fetched: Fetched,
    names: impl Iterator<Item = (BaseId, &'a str)>,
    time: Timestamp,
    options: SnapOptions,
) -> Result<Vec<Snapshot>> {
    let mut taken = Vec::new();
    for (base, name) in names {
        check_free(change, base, name)?;
        taken.push(change.snapshot(fetched, base, name.to_string(), time, options, &has_free_number)?);
    }
    Ok(taken)
}
