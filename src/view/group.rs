//! Groups: bases of which snapshots are taken at one moment.

use super::{Views, check_name, refused};
use crate::device::{BaseId, Snapshot, State};
use crate::error::{Errno, Result};
use crate::meta::{Table, decode};
use crate::purpose::Purpose;
use crate::shown::shown;

/// The names of bases that are there.
pub(super) fn names_of<'a>(state: &'a State, bases: &'a [BaseId]) -> impl Iterator<Item = &'a str> {
    bases.iter().filter_map(|base| Some(state.base_record(*base).ok()?.name.as_str()))
}

pub(super) fn is_there(state: &State, base: BaseId) -> bool {
    state.base_record(base).is_ok_and(|record| !record.deleting)
}

/// Groups of bases.
#[derive(Clone, Copy)]
pub struct Groups<'a> {
    pub(super) views: &'a Views,
}

impl Groups<'_> {
    pub fn create(self, name: &[u8], bases: &[BaseId]) -> Result<()> {
        let name = check_name(name)?;
        self.views.change(|change| {
            if change.meta().contains(Table::Group, name.as_bytes())? {
                return Err(refused(Errno::EXIST, format!("there is a group {name:?} already; delete it first")));
            }
            change.meta_mut().put(Table::Group, name.as_bytes(), &bases.to_vec());
            let bases: Vec<String> = names_of(change, bases).map(|base| format!("{base:?}")).collect();
            Ok(format!("group create {name:?} {}", bases.join(" ")))
        })
    }

    pub fn delete(self, name: &[u8]) -> Result<()> {
        self.views.change(|change| {
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
    pub fn bases(self, name: &[u8]) -> Result<Vec<BaseId>> {
        let look = self.views.tree.device().look()?;
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

    pub fn all(self) -> Result<Vec<(String, Vec<BaseId>)>> {
        let look = self.views.tree.device().look()?;
        let all = look.meta().range(Table::Group, &[], &[u8::MAX; 256])?;
        all.map(|pair| {
            let (key, value) = pair?;
            let mut bases: Vec<BaseId> = decode(Table::Group, &key, &value)?;
            bases.retain(|base| is_there(&look, *base));
            Ok((String::from_utf8_lossy(&key).into_owned(), bases))
        })
        .collect()
    }

    /// The snapshots of a name, or `@TIME`, of all bases of a group.
    pub fn snapshots(self, group: &[u8], name: &[u8]) -> Result<Vec<Snapshot>> {
        let bases = self.bases(group)?;
        let found = |base: &BaseId| self.views.of(*base).as_one_of(bases.len(), self.views.of(*base).expect(name));
        bases.iter().map(found).collect()
    }

    /// The last `save` of all bases of a group.
    pub fn last_save(self, group: &[u8]) -> Result<Vec<Snapshot>> {
        let is_save = |snapshot: &Snapshot| snapshot.record.purpose == Purpose::Save;
        self.last(group, is_save)?.ok_or_else(|| {
            let group = shown(group);
            let text =
                format!("nothing was saved yet of all bases of {group:?}; `pitfs save --group {group}` does that");
            refused(Errno::NOENT, text)
        })
    }

    /// The newest snapshots of one moment that all bases of a group have and that can be looked into.
    pub fn newest(self, group: &[u8]) -> Result<Vec<Snapshot>> {
        self.last(group, Snapshot::is_readable)?.ok_or_else(|| {
            let group = shown(group);
            let text = format!(
                "the bases of {group:?} have no snapshots of one moment; `pitfs snap --group {group}` takes some"
            );
            refused(Errno::NOENT, text)
        })
    }

    /// The newest of one moment that all bases have, of which something is so.
    fn last(self, group: &[u8], is_so: impl Fn(&Snapshot) -> bool) -> Result<Option<Vec<Snapshot>>> {
        let bases = self.bases(group)?;
        let mut first = self.views.of(bases[0]).snapshots().all()?;
        first.retain(&is_so);
        for one in first.into_iter().rev() {
            let mut all = self.views.snapshots().of_one_moment(&one)?;
            all.retain(|snapshot| bases.contains(&snapshot.base) && is_so(snapshot));
            if all.len() == bases.len() {
                return Ok(Some(all));
            }
        }
        Ok(None)
    }
}
