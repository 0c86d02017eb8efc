//! Archives: what they have, and what was done with them.

use super::spelling::{self, PathText, TimeInfo};
use crate::daemon::{self, MissingTime};
use crate::purpose::Purpose;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveInfo {
    #[serde(flatten, with = "spelling::directory")]
    pub directory: PathText,
    pub base: String,
    pub bytes: u64,
    pub increments: Vec<IncrementInfo>,
    /// What is wrong, and which times cannot be reached for it.
    pub problems: Vec<String>,
    /// Times that it had and that cannot be read from it now.
    pub missing: Vec<MissingInfo>,
}

impl From<daemon::ArchiveInfo> for ArchiveInfo {
    fn from(archive: daemon::ArchiveInfo) -> ArchiveInfo {
        ArchiveInfo {
            directory: archive.directory.into(),
            base: archive.base,
            bytes: archive.bytes,
            increments: archive.increments.into_iter().map(IncrementInfo::from).collect(),
            problems: archive.problems,
            missing: archive.missing.into_iter().map(MissingInfo::from).collect(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncrementInfo {
    pub name: String,
    #[serde(flatten)]
    pub time: TimeInfo,
    pub epoch: u32,
    pub bytes: u64,
    #[serde(flatten, with = "spelling::file")]
    pub file: PathText,
    pub purpose: Purpose,
    /// Its time can be reached from the store.
    pub reachable: bool,
    pub damaged: bool,
    /// The file into which it was merged: it is left over.
    #[serde(flatten, with = "spelling::merged_into")]
    pub merged_into: Option<PathText>,
}

impl From<daemon::IncrementInfo> for IncrementInfo {
    fn from(increment: daemon::IncrementInfo) -> IncrementInfo {
        IncrementInfo {
            name: increment.name,
            time: increment.time.into(),
            epoch: increment.epoch.number(),
            bytes: increment.bytes,
            file: increment.file.into(),
            purpose: increment.purpose,
            reachable: increment.is_reachable,
            damaged: increment.is_damaged,
            merged_into: increment.merged_into.map(PathText::from),
        }
    }
}

/// A time that an archive had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingInfo {
    pub name: String,
    pub epoch: u32,
    pub purpose: Purpose,
    #[serde(flatten)]
    pub time: TimeInfo,
}

impl From<MissingTime> for MissingInfo {
    fn from(missing: MissingTime) -> MissingInfo {
        let MissingTime { name, time, epoch, purpose } = missing;
        MissingInfo { name, epoch: epoch.number(), purpose, time: time.into() }
    }
}

/// An archive that was read as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedInfo {
    pub archive: ArchiveInfo,
    /// Increments that are whole, and what they take.
    pub whole: u64,
    pub whole_bytes: u64,
}

impl From<daemon::ArchiveInfo> for VerifiedInfo {
    fn from(archive: daemon::ArchiveInfo) -> VerifiedInfo {
        VerifiedInfo { whole: archive.whole, whole_bytes: archive.whole_bytes, archive: archive.into() }
    }
}

/// An archive that is not attached any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetachedInfo {
    #[serde(flatten, with = "spelling::directory")]
    pub directory: PathText,
    /// The snapshot through which it is read.
    pub leads_to: Option<String>,
    /// What there is to be known before the store goes back to an older format.
    pub notes: Vec<String>,
}

impl From<daemon::Detached> for DetachedInfo {
    fn from(detached: daemon::Detached) -> DetachedInfo {
        let daemon::Detached { directory, leads_to, notes } = detached;
        DetachedInfo { directory: directory.into(), leads_to, notes }
    }
}

/// What went from an archive, or would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShortenedInfo {
    #[serde(flatten, with = "spelling::directory")]
    pub directory: PathText,
    /// The oldest first.
    pub times: Vec<GoneInfo>,
    /// What the archive takes less; not known ahead of a merge.
    pub bytes: u64,
    /// A save that stays because it is the newest.
    pub standing_save: Option<String>,
    pub dry_run: bool,
    pub problems: Vec<String>,
}

/// A time that cannot be reached any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoneInfo {
    pub name: String,
    #[serde(flatten)]
    pub time: TimeInfo,
}

impl From<daemon::Shortened> for ShortenedInfo {
    fn from(shortened: daemon::Shortened) -> ShortenedInfo {
        let times = shortened.times.into_iter().map(|(name, time)| GoneInfo { name, time: time.into() });
        ShortenedInfo {
            directory: shortened.directory.into(),
            times: times.collect(),
            bytes: shortened.bytes,
            standing_save: shortened.standing_save,
            dry_run: shortened.is_dry_run,
            problems: shortened.problems,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollInfo {
    pub snapshot: String,
    /// Increments that were saved.
    pub saved: u64,
    pub saved_bytes: u64,
    /// Snapshots that the store does not hold any more.
    pub freed: u64,
    #[serde(flatten, with = "spelling::archive")]
    pub archive: Option<PathText>,
    /// What is wrong with the archive.
    pub problems: Vec<String>,
}

impl From<daemon::RollReport> for RollInfo {
    fn from(report: daemon::RollReport) -> RollInfo {
        RollInfo {
            snapshot: report.snapshot,
            saved: report.saved,
            saved_bytes: report.saved_bytes,
            freed: report.freed,
            archive: report.archive.map(PathText::from),
            problems: report.problems,
        }
    }
}

/// Of one base of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseRollInfo {
    pub base: String,
    pub roll: RollInfo,
}
