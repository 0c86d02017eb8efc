//! Which archive a base has.

use super::Views;
use crate::archive::Mark;
use crate::device::ArchiveRecord;
use crate::error::Result;

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
}
