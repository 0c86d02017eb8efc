//! Targets, and the sets that are kept there.

use super::spelling::{self, PathText, TimeInfo};
use crate::daemon::{BackupReport, LetGo, Repaired, VerifiedSet};
use crate::id::Id;
use crate::set;
use crate::target::{Listed, Slot};
use crate::tree::Lost;
use crate::view::TargetRecord;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetInfo {
    pub name: String,
    pub id: String,
    /// Under which id this store's sets lie there.
    pub store: String,
    #[serde(flatten, with = "spelling::directory")]
    pub directory: PathText,
    pub encrypted: bool,
    /// The file with the key, where it is in one.
    #[serde(flatten, with = "spelling::key_file")]
    pub key_file: Option<PathText>,
}

impl TargetInfo {
    pub fn of(name: String, record: TargetRecord, store: Id) -> TargetInfo {
        TargetInfo {
            name,
            id: record.id.to_string(),
            store: store.to_string(),
            directory: record.directory.into(),
            encrypted: record.key_file.is_some() || record.key.is_some(),
            key_file: record.key_file.map(Into::into),
        }
    }
}

/// A way to the key of what is kept at a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    pub slot: usize,
    /// A passphrase opens it; otherwise a key file does.
    pub passphrase: bool,
}

impl KeyInfo {
    pub fn of(slot: usize, found: &Slot) -> KeyInfo {
        KeyInfo { slot, passphrase: found.cost.is_some() }
    }
}

/// What a set builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetKind {
    Full,
    Differential,
    Incremental,
}

impl From<set::Kind> for SetKind {
    fn from(kind: set::Kind) -> SetKind {
        match kind {
            set::Kind::Full => SetKind::Full,
            set::Kind::Differential => SetKind::Differential,
            set::Kind::Incremental => SetKind::Incremental,
        }
    }
}

impl From<SetKind> for set::Kind {
    fn from(kind: SetKind) -> set::Kind {
        match kind {
            SetKind::Full => set::Kind::Full,
            SetKind::Differential => set::Kind::Differential,
            SetKind::Incremental => set::Kind::Incremental,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupInfo {
    pub base: String,
    pub snapshot: String,
    pub set: String,
    pub kind: SetKind,
    /// It was at the target already, and nothing was written.
    pub was_there: bool,
    pub bytes: u64,
    /// Bytes of files that are new or changed, before compression.
    pub added: u64,
    /// What could not be read, and why: the set is incomplete.
    pub missing: Vec<String>,
}

impl From<BackupReport> for BackupInfo {
    fn from(report: BackupReport) -> BackupInfo {
        BackupInfo {
            base: report.base,
            snapshot: report.snapshot,
            set: report.set.to_string(),
            kind: report.kind.into(),
            was_there: report.was_there,
            bytes: report.bytes,
            added: report.added,
            missing: report.missing.into_iter().map(|(path, why)| format!("{path}: {why}")).collect(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetInfo {
    pub set: String,
    pub snapshot: String,
    pub snapshot_id: String,
    #[serde(flatten)]
    pub time: TimeInfo,
    pub base: String,
    pub kind: SetKind,
    /// The set that it was made over.
    pub over: Option<String>,
    pub bytes: u64,
    /// Some of the snapshot could not be read when it was made.
    pub incomplete: bool,
    /// Its moment was let go: it is there for others.
    pub hidden: bool,
    /// It is a part of a moment that is not whole yet.
    pub part: bool,
    /// Why it stays, where that was asked.
    pub reasons: Vec<String>,
    /// What was found wrong when it was read.
    pub problems: Vec<String>,
    /// What its moment has lost: paths, and pieces of the index that cannot be read.
    pub lost: Vec<String>,
}

impl From<&Listed> for SetInfo {
    fn from(listed: &Listed) -> SetInfo {
        SetInfo {
            set: listed.id.to_string(),
            snapshot: listed.header.mark.name.clone(),
            snapshot_id: listed.header.mark.id.to_string(),
            time: listed.header.mark.time.into(),
            base: listed.header.base_name.clone(),
            kind: listed.header.kind.into(),
            over: listed.header.before.map(|before| before.set.to_string()),
            bytes: listed.bytes,
            incomplete: listed.missing > 0,
            hidden: listed.is_hidden,
            part: listed.part.is_some(),
            reasons: Vec::new(),
            problems: Vec::new(),
            lost: Vec::new(),
        }
    }
}

impl From<VerifiedSet> for SetInfo {
    fn from(verified: VerifiedSet) -> SetInfo {
        let Lost { paths, more_paths, index } = verified.lost;
        let more = (more_paths > 0).then(|| format!("and {more_paths} more"));
        let index = index.into_iter().map(|why| format!("what is named by a part of its index: {why}"));
        let lost = paths.into_iter().chain(more).chain(index).collect();
        SetInfo { problems: verified.problems, lost, ..SetInfo::from(&verified.listed) }
    }
}

/// What went from a target, or would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetGoInfo {
    pub gone: Vec<SetInfo>,
    pub kept: Vec<SetInfo>,
    pub freed_bytes: u64,
    /// Bytes of files that were written anew.
    pub written_bytes: u64,
    pub dry_run: bool,
    /// What could not be done, or read, and why.
    pub problems: Vec<String>,
}

impl From<LetGo> for LetGoInfo {
    fn from(done: LetGo) -> LetGoInfo {
        let LetGo { gone, kept, freed, written, is_dry_run } = done;
        LetGoInfo {
            gone: gone.iter().map(SetInfo::from).collect(),
            kept: kept.iter().map(|(listed, reasons)| SetInfo { reasons: reasons.clone(), ..listed.into() }).collect(),
            freed_bytes: freed,
            written_bytes: written,
            dry_run: is_dry_run,
            problems: Vec::new(),
        }
    }
}

impl From<Repaired> for LetGoInfo {
    fn from(done: Repaired) -> LetGoInfo {
        let Repaired { mended, left, freed, written } = done;
        let kept = |listed: &Listed| SetInfo { reasons: vec!["mended".into()], ..listed.into() };
        let problem = |(one, why): &(VerifiedSet, String)| {
            format!("{:?} has lost something, and {why}", one.listed.header.mark.name)
        };
        LetGoInfo {
            gone: Vec::new(),
            kept: mended.iter().map(kept).chain(left.iter().map(|(one, _)| SetInfo::from(one.clone()))).collect(),
            freed_bytes: freed,
            written_bytes: written,
            dry_run: false,
            problems: left.iter().map(problem).collect(),
        }
    }
}
