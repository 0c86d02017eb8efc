//! What differs between moments, and what was done when.

use super::spelling::{self, PathText, TimeInfo};
use crate::clock::Timestamp;
use crate::tree::{ChangedTracks, Difference, DifferenceKind, Version};
use crate::view::HistoryEntry;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    Added,
    Removed,
    /// The bytes of a file, or the target of a symlink.
    Changed,
    /// Mode, owner or xattrs, and not the content.
    Attributes,
    Renamed,
}

impl From<DifferenceKind> for Change {
    fn from(kind: DifferenceKind) -> Change {
        match kind {
            DifferenceKind::Added => Change::Added,
            DifferenceKind::Removed => Change::Removed,
            DifferenceKind::Changed => Change::Changed,
            DifferenceKind::Attributes => Change::Attributes,
            DifferenceKind::Renamed => Change::Renamed,
        }
    }
}

/// One path that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferenceInfo {
    pub kind: Change,
    #[serde(flatten, with = "spelling::path")]
    pub path: PathText,
    /// Where it was before, if it was renamed.
    #[serde(flatten, with = "spelling::from")]
    pub from: Option<PathText>,
    pub directory: bool,
    pub size_before_bytes: Option<u64>,
    pub size_after_bytes: Option<u64>,
}

impl From<Difference> for DifferenceInfo {
    fn from(found: Difference) -> DifferenceInfo {
        DifferenceInfo {
            kind: found.kind.into(),
            path: found.path.into(),
            from: found.from.map(PathText::from),
            directory: found.is_directory,
            size_before_bytes: found.size_before,
            size_after_bytes: found.size_after,
        }
    }
}

/// One content of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionInfo {
    /// The newest snapshot that shows it; nothing: it is what is there now.
    pub snapshot: Option<String>,
    /// When that snapshot was taken.
    pub taken: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_seconds: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_nanoseconds: Option<u32>,
    pub modified: String,
    pub modified_seconds: i64,
    pub modified_nanoseconds: u32,
    pub size_bytes: u64,
    pub inode: u64,
}

impl From<Version> for VersionInfo {
    fn from(version: Version) -> VersionInfo {
        let taken = version.snapshot.as_ref().map(|snapshot| snapshot.record.time);
        VersionInfo {
            snapshot: version.snapshot.map(|snapshot| snapshot.record.name),
            taken: taken.map(Timestamp::as_text),
            taken_seconds: taken.map(|time| time.seconds),
            taken_nanoseconds: taken.map(|time| time.nanos),
            modified: version.time.as_text(),
            modified_seconds: version.time.seconds,
            modified_nanoseconds: version.time.nanos,
            size_bytes: version.size,
            inode: version.inode.number(),
        }
    }
}

/// Which tracks changed, of which files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracksInfo {
    pub track_bytes: u64,
    pub files: Vec<FileTracksInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileTracksInfo {
    #[serde(flatten, with = "spelling::path")]
    pub path: PathText,
    pub inode: u64,
    pub size_before_bytes: Option<u64>,
    pub size_after_bytes: Option<u64>,
    /// Numbers of tracks: the first, and the one behind the last.
    pub tracks: Vec<(u64, u64)>,
}

impl From<ChangedTracks> for FileTracksInfo {
    fn from(file: ChangedTracks) -> FileTracksInfo {
        FileTracksInfo {
            path: file.path.into(),
            inode: file.inode.number(),
            size_before_bytes: file.size_before,
            size_after_bytes: file.size_after,
            tracks: file.tracks.into_iter().map(|range| (range.start.number(), range.end.number())).collect(),
        }
    }
}

/// Bytes that an increment has saved of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BytesInfo {
    #[serde(rename = "data_hex", with = "spelling::hexadecimal")]
    pub data: Vec<u8>,
}

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryInfo {
    #[serde(flatten)]
    pub time: TimeInfo,
    pub uid: u32,
    /// Its name, where it is still there.
    pub base: Option<String>,
    /// Like the command that did it.
    pub what: String,
}

impl HistoryInfo {
    pub fn new(entry: HistoryEntry, base: Option<String>) -> HistoryInfo {
        HistoryInfo { time: entry.time.into(), uid: entry.uid, base, what: entry.what }
    }
}
