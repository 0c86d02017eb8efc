//! What a roll would do. Nothing is taken, written, attached or freed.

use super::Rolls;
use super::{
    RollOptions, active_before, attached, check_continues, check_names_are_free, is_done_with, request, to_free,
    unsaved,
};
use crate::archive::{Reach, check_writable};
use crate::daemon::archives::{check_nothing_at, open_there, problems_of};
use crate::device::Snapshot;
use crate::error::{Errno, Error, Result};
use crate::view::Views;
use std::path::{Path, PathBuf};

/// What a roll of a base would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollPlan {
    /// Without a name that was given, its name is that of this moment.
    pub taken: Snapshot,
    /// Snapshots that would protect nothing any more.
    pub deactivated: Vec<Snapshot>,
    /// Where increments would go.
    pub archive: Option<PathBuf>,
    /// Times that the archive would have besides.
    pub saved: Vec<Snapshot>,
    /// Snapshots that would go.
    pub freed: Vec<Snapshot>,
    /// What is wrong with the archive.
    pub problems: Vec<String>,
}

impl Rolls<'_> {
    pub fn plan(self, views: &Views, options: &RollOptions) -> Result<RollPlan> {
        let _rolling = self.begin()?;
        let options = &self.located(options)?;
        let archive = self.archive_rolled_to(views, options.archive.as_deref())?;
        let taken = views.rehearsing().snapshots().take_all(&[views.base()], request(options))?;
        let taken = taken.into_iter().next().ok_or(Error::Posix(Errno::NOENT))?;
        plan(views, taken, archive, options.keep)
    }

    /// The same of all bases of a group.
    pub fn plan_group(self, views: &Views, group: &[u8], options: &RollOptions) -> Result<Vec<RollPlan>> {
        let _rolling = self.begin()?;
        let options = &self.located(options)?;
        let mut archives = Vec::new();
        let members = views.groups().bases(group)?;
        for base in &members {
            let views = views.of(*base);
            let given = self.archive_of_member(&views, options.archive.as_deref())?;
            let archive = views.as_one_of(members.len(), self.archive_rolled_to(&views, given.as_deref()))?;
            archives.push((*base, archive));
        }
        let taken = views.rehearsing().snapshots().take_of_group(group, request(options))?;
        let plans = archives.into_iter().filter_map(|(base, archive)| {
            let taken = taken.iter().find(|taken| taken.base == base)?.clone();
            Some(plan(&views.of(base), taken, archive, options.keep))
        });
        plans.collect()
    }

    /// What the archive that would be rolled to has; `None` where none is attached or given.
    fn archive_rolled_to(self, views: &Views, given: Option<&Path>) -> Result<Option<Reach>> {
        let record = attached(views, given)?;
        let (directory, reach) = match (&record, given) {
            (None, None) => return Ok(None),
            (None, Some(path)) => match open_there(path)? {
                Some(directory) => {
                    check_writable(&directory)?;
                    let reach = self.daemon.archives().reach_of(views, &directory)?;
                    (directory, reach)
                }
                None => {
                    check_nothing_at(path)?;
                    return Ok(Some(Reach::of_nothing(path)));
                }
            },
            (Some(record), _) => {
                self.daemon.archives().look_again(views)?;
                let archive = self.daemon.archives().open_attached(views, record)?;
                check_writable(archive.directory())?;
                (archive.directory().clone(), archive.reach())
            }
        };
        check_continues(&reach, record.as_ref())?;
        check_names_are_free(&directory, &reach, views.snapshots().all()?)?;
        Ok(Some(reach))
    }
}

fn plan(views: &Views, taken: Snapshot, archive: Option<Reach>, keep: Option<u64>) -> Result<RollPlan> {
    let mut all = views.snapshots().all()?;
    all.push(taken.clone());
    let mut saved = archive.as_ref().map_or(Vec::new(), |archive| unsaved(archive, all.clone()));
    // The last is what the newest increment leads to, and stays.
    saved.pop();
    let freed = match keep {
        None => Vec::new(),
        Some(keep) => to_free(views, all.clone(), keep, |snapshot| match &archive {
            None => true,
            Some(archive) => is_done_with(archive, snapshot) || saved.contains(snapshot),
        })?,
    };
    Ok(RollPlan {
        deactivated: active_before(all, &taken),
        problems: archive.as_ref().map_or(Vec::new(), |archive| problems_of(&archive.broken)),
        archive: archive.map(|archive| archive.directory),
        taken,
        saved,
        freed,
    })
}
