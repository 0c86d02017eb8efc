//! Rolling all bases of a group: one moment of all of them, then saved base by base.

use super::Rolls;
use super::{RollOptions, RollReport, request};
use crate::daemon::OnProgress;
use crate::error::{Errno, Result};
use crate::view::Views;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

impl Rolls<'_> {
    /// Takes a snapshot of all bases of a group at one moment, and rolls each base on to it, like [`Rolls::roll`]. An
    /// archive that is given has a directory for each base. What goes wrong with one base is in its report, and the
    /// others are rolled all the same.
    pub fn roll_group(
        self,
        views: &Views,
        group: &[u8],
        options: &RollOptions,
        progress: OnProgress<'_>,
    ) -> Result<Vec<(String, RollReport)>> {
        let _rolling = self.begin()?;
        let options = &self.located(options)?;
        if options.archive.is_some() {
            views.rehearsing().snapshots().take_of_group(group, request(options))?;
        }
        let mut bases = Vec::new();
        let members = views.groups().bases(group)?;
        for base in &members {
            let views = views.of(*base);
            let name = views.base_name()?;
            let archive = self.archive_of_member(&views, options.archive.as_deref())?;
            let options = RollOptions { archive, ..options.clone() };
            let archive = views.as_one_of(members.len(), self.prepare_roll(&views, &options, progress))?;
            bases.push((views, name, options, archive));
        }
        let taken = views.snapshots().take_of_group(group, request(options))?;
        let mut reports = Vec::new();
        for (views, name, options, archive) in bases {
            // A base that came into the group meanwhile has not been prepared, and one that went was not taken.
            let Some(taken) = taken.iter().find(|taken| taken.base == views.base()) else { continue };
            let report = match self.roll_taken(&views, (taken, archive), &options, progress) {
                Ok(report) => report,
                Err(error) if error.errno() == Errno::INTR => return Err(error),
                Err(error) => RollReport {
                    snapshot: taken.record.name.clone(),
                    problems: vec![format!("{name}: {error}")],
                    ..RollReport::default()
                },
            };
            reports.push((name, report));
        }
        Ok(reports)
    }

    /// Which archive is given to a base of a group, by the directory of them all. A base that got another name stays with the
    /// one that it has there.
    pub(super) fn archive_of_member(self, views: &Views, there: Option<&Path>) -> Result<Option<PathBuf>> {
        let Some(there) = there else { return Ok(None) };
        let attached = self.daemon.archives().record(views)?.map(|record| record.directory);
        match attached.is_some_and(|directory| directory.parent() == Some(there)) {
            true => Ok(None),
            false => {
                self.daemon.outside_to_make(&there.join(OsStr::from_bytes(views.base_name()?.as_bytes()))).map(Some)
            }
        }
    }
}
