//! Which archive a base has.

use super::Views;
use crate::archive::Mark;
use crate::device::{ArchiveRecord, Changed, Shown, Snapshot};
use crate::error::Result;
use std::collections::BTreeSet;

impl Views {
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

    /// Says which times an archive has that it had not `before`, or the other way round.
    pub fn times_changed(&self, before: &[Snapshot]) -> Result<()> {
        let after = self.snapshots().with_archived()?;
        let epochs = |all: &[Snapshot]| all.iter().map(|snapshot| snapshot.epoch).collect::<BTreeSet<_>>();
        let (had, has) = (epochs(before), epochs(&after));
        let changed = before.iter().chain(&after).filter(|one| had.contains(&one.epoch) != has.contains(&one.epoch));
        let shown = |one: &Snapshot| Shown::Snapshot { base: self.base, name: one.record.name.clone() };
        self.tree.device().feed().publish(changed.map(|one| Changed::Shown(shown(one))).collect());
        Ok(())
    }
}
