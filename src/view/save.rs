//! Saves: snapshots to be gone back to. The newest of a base stands until the next, wherever it is by then.

use super::refused;
use super::snapshot::Snapshots;
use crate::archive::Mark;
use crate::device::{BaseId, Changing, Snapshot, State, last_save_key};
use crate::error::{Errno, Result};
use crate::meta::Table;
use crate::purpose::Purpose;

/// Notes what was saved last, so that an older save is never taken for it.
pub(super) fn note_saved(change: &mut Changing<'_>, snapshot: &Snapshot) {
    change.meta_mut().put(Table::State, &last_save_key(snapshot.base), &snapshot.mark());
}

/// The newest save of a base, in the store or in its archive.
pub(super) fn newest_save(state: &State, base: BaseId) -> Result<Option<Snapshot>> {
    let is_save = |snapshot: &Snapshot| snapshot.record.purpose == Purpose::Save && snapshot.is_readable();
    let stored = state.moments().snapshots(base)?.into_iter().rev().find(is_save);
    let archived = state.archive(base).and_then(|archive| archive.newest_save());
    match archived {
        // One that was deleted from the store may be newer than what is left there.
        Some(mark) if stored.as_ref().is_none_or(|stored| stored.epoch < mark.epoch) => {
            Ok(state.moments().snapshot(base, mark.epoch)?.or(stored))
        }
        _ => Ok(stored),
    }
}

impl Snapshots<'_> {
    pub fn newest_save(self) -> Result<Option<Snapshot>> {
        let look = self.views.tree.device().look()?;
        newest_save(&look, self.views.base)
    }

    /// The snapshot of the last `save`; refused where it is gone, since an older one is another state.
    pub fn last_save(self) -> Result<Snapshot> {
        let (newest, last) = {
            let look = self.views.tree.device().look()?;
            let last: Option<Mark> = look.meta().get(Table::State, &last_save_key(self.views.base))?;
            (newest_save(&look, self.views.base)?, last)
        };
        match (newest, last) {
            (Some(newest), Some(last)) if newest.record.id != last.id => {
                let (name, taken) = (&newest.record.name, newest.record.time.as_text());
                let text = format!(
                    "the last save {:?} ({}) is not there any more; the newest that is left is {name:?} ({taken}): `pitfs restore {name}` goes back to that",
                    last.name,
                    last.time.as_text()
                );
                Err(refused(Errno::NOENT, text))
            }
            (Some(newest), _) => Ok(newest),
            (None, Some(last)) => {
                let text = format!(
                    "the last save {:?} ({}) is not there any more: it was deleted, or it is in an archive that cannot be read now; `pitfs status` says more",
                    last.name,
                    last.time.as_text()
                );
                Err(refused(Errno::NOENT, text))
            }
            (None, None) => Err(refused(Errno::NOENT, "nothing was saved yet; `pitfs save` does that".into())),
        }
    }
}
