//! What can be asked for.
//!
//! A field that is not known is refused: it may have been meant to spare something. docs/protocol.md has every field.

mod options;

use super::answer::SetKind;
use crate::clock::Timestamp;
use crate::daemon::{MergeOptions, PruneOptions, RestoreOptions, RollOptions, SyncOptions};
use crate::target::Retention;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub protocol: u32,
    /// The base that is meant; without one, the first.
    pub base: Option<ByteBuf>,
    pub verb: Verb,
    /// What a tar archive comes from, or goes to: passed as a descriptor.
    #[serde(skip)]
    pub stream: Option<Arc<File>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Verb {
    Snap(Snap),
    List {
        /// Of all bases.
        all: bool,
    },
    /// Snapshots, or clones.
    Delete {
        names: Vec<ByteBuf>,
        /// Snapshots of these names of all bases of the group.
        group: Option<ByteBuf>,
        recursive: bool,
    },
    Rename {
        old: ByteBuf,
        new: ByteBuf,
    },
    Hold {
        names: Vec<ByteBuf>,
        /// Why it is held, or held no longer.
        tag: Option<ByteBuf>,
        held: bool,
    },
    Session(Session),
    Group(Group),
    Base(Base),
    Clone(CloneRequest),
    Refresh {
        name: ByteBuf,
        snapshot: ByteBuf,
    },
    Promote {
        name: ByteBuf,
    },
    /// Until what is copied in the background for a base is done.
    Wait {
        name: ByteBuf,
    },
    Mirror(Mirror),
    /// In place; without a snapshot, the last that was saved.
    Restore {
        snapshot: Option<ByteBuf>,
        paths: Vec<ByteBuf>,
        /// All bases of the group, in one step.
        group: Option<ByteBuf>,
    },
    /// What was there before the last restore comes back.
    Undo,
    /// In place, out of what a target has.
    RestoreFrom {
        snapshot: ByteBuf,
        paths: Vec<ByteBuf>,
        from: FromTarget,
    },
    /// To a directory outside the store.
    CopyOut(#[serde(with = "options::CopyOut")] RestoreOptions),
    History,
    Versions {
        path: ByteBuf,
    },
    Diff {
        before: ByteBuf,
        after: ByteBuf,
    },
    /// With one snapshot: what its increment holds.
    Tracks {
        before: ByteBuf,
        after: Option<ByteBuf>,
        path: Option<ByteBuf>,
        range: Option<ByteRange>,
    },
    Roll(#[serde(with = "options::Roll")] RollOptions),
    RollGroup {
        group: ByteBuf,
        #[serde(with = "options::Roll")]
        options: RollOptions,
    },
    Archive(Archive),
    Target(Targets),
    Backup(Backup),
    /// Writes a snapshot to a stream.
    Send(Send),
    Job(Job),
    Set(Sets),
    /// Shows the policy; changes what is given.
    Policy {
        drop_oldest: Option<bool>,
        /// How many snapshots before restores a base keeps, or all.
        #[serde(rename = "before_restore")]
        before_restores: Option<Keep>,
    },
    Status,
    Check,
    Sync(#[serde(with = "options::Sync")] SyncOptions),
    /// Unpacks a tar archive into a directory of `live`.
    Put {
        directory: ByteBuf,
    },
    /// Packs paths of a moment into a tar archive; without any, all of it.
    Get {
        snapshot: ByteBuf,
        paths: Vec<ByteBuf>,
    },
    Mount,
    /// What it would do; nothing is done.
    Rehearse(Box<Verb>),
}

/// What a clone, or clones of a group, are to be.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloneRequest {
    pub snapshot: ByteBuf,
    /// Of a group's: what stands before the name of each base.
    pub name: ByteBuf,
    pub group: Option<ByteBuf>,
    pub full: bool,
    pub copy: bool,
    pub offline: bool,
    pub reserve: bool,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Keep {
    All,
    Newest(u64),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snap {
    pub name: Option<ByteBuf>,
    pub group: Option<ByteBuf>,
    pub offline: bool,
    pub hold: bool,
    pub reserve: bool,
    pub save: bool,
}

/// Bytes of a file from the first up to, and without, the second.
pub type ByteRange = (u64, u64);

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Session {
    /// A base can have a name of its own for its snapshot behind it, after a colon.
    Register {
        name: ByteBuf,
        bases: Vec<ByteBuf>,
        group: Option<ByteBuf>,
        offline: bool,
        reserve: bool,
    },
    Relate {
        name: ByteBuf,
    },
    Activate {
        name: ByteBuf,
    },
    Deactivate {
        name: ByteBuf,
    },
    Show {
        name: ByteBuf,
        shown: bool,
    },
    /// The tracks that the increment of a snapshot holds.
    Tracks {
        name: ByteBuf,
        path: Option<ByteBuf>,
        range: Option<ByteRange>,
    },
    /// Bytes of them.
    Read {
        name: ByteBuf,
        inode: u64,
        range: ByteRange,
    },
    List,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Group {
    Create { name: ByteBuf, bases: Vec<ByteBuf> },
    Delete { name: ByteBuf },
    List,
}

/// A target that the store knows, or one in a directory, and what opens that.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FromTarget {
    pub target: Option<String>,
    #[serde(default, with = "crate::meta::path::optional")]
    pub directory: Option<PathBuf>,
    #[serde(default, with = "crate::meta::path::optional")]
    pub key_file: Option<PathBuf>,
    #[serde(default)]
    pub passphrase: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Base {
    /// One of a moment that a target has.
    FromSet {
        name: ByteBuf,
        snapshot: ByteBuf,
        from: FromTarget,
    },
    /// Empty, or as a snapshot, of which it is made independent.
    Create {
        name: ByteBuf,
        snapshot: Option<ByteBuf>,
        uid: u32,
        gid: u32,
        copy: bool,
        offline: bool,
        reserve: bool,
    },
    Delete {
        name: ByteBuf,
        recursive: bool,
    },
    Rename {
        old: ByteBuf,
        new: ByteBuf,
    },
    List,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Mirror {
    Establish {
        base: ByteBuf,
        name: ByteBuf,
        offline: bool,
    },
    Sync {
        name: ByteBuf,
    },
    Split {
        name: ByteBuf,
    },
    /// Back in step with its base; or the base with the mirror.
    Resync {
        name: ByteBuf,
        reverse: bool,
    },
    /// The mirror becomes what a snapshot of its base is.
    RestoreTo {
        name: ByteBuf,
        snapshot: ByteBuf,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Archive {
    Attach {
        #[serde(with = "crate::meta::path")]
        directory: PathBuf,
    },
    Detach {
        #[serde(default, with = "crate::meta::path::optional")]
        directory: Option<PathBuf>,
    },
    List {
        #[serde(default, with = "crate::meta::path::optional")]
        directory: Option<PathBuf>,
    },
    Verify {
        #[serde(default, with = "crate::meta::path::optional")]
        directory: Option<PathBuf>,
    },
    /// Takes in what was saved to another directory.
    Join {
        #[serde(with = "crate::meta::path")]
        directory: PathBuf,
    },
    Prune(#[serde(with = "options::Prune")] PruneOptions),
    Merge(#[serde(with = "options::Merge")] MergeOptions),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Targets {
    Add {
        name: String,
        #[serde(with = "crate::meta::path")]
        directory: PathBuf,
        /// Without one and without a passphrase, nothing is encrypted.
        #[serde(default, with = "crate::meta::path::optional")]
        key_file: Option<PathBuf>,
        #[serde(default)]
        passphrase: Option<String>,
    },
    /// The ways to the key of what is kept there.
    KeyList {
        target: Option<String>,
    },
    KeyAdd {
        target: Option<String>,
        #[serde(default, with = "crate::meta::path::optional")]
        key_file: Option<PathBuf>,
        #[serde(default)]
        passphrase: Option<String>,
    },
    KeyRemove {
        target: Option<String>,
        slot: usize,
    },
    List,
    Forget {
        name: String,
    },
}

/// Writes snapshots to a target.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// Without one, the newest.
    pub snapshot: Option<ByteBuf>,
    /// Without one, the only one.
    pub target: Option<String>,
    pub kind: SetKind,
    /// Every snapshot.
    pub all: bool,
    /// Those of all its bases, of one moment.
    #[serde(default)]
    pub group: Option<ByteBuf>,
    /// Of zstd, 1 to 19.
    #[serde(default)]
    pub level: Option<i32>,
    /// Bytes of files in a second, if they are not to be more.
    #[serde(default)]
    pub limit: Option<u64>,
    /// The daemon does it by itself, and the answer is the job.
    #[serde(default)]
    pub detach: bool,
}

/// A snapshot for a stream, sealed with the key of a target, or with what is given; otherwise it is not encrypted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send {
    /// Without one, the newest.
    pub snapshot: Option<ByteBuf>,
    pub level: Option<i32>,
    pub limit: Option<u64>,
    pub target: Option<String>,
    #[serde(default, with = "crate::meta::path::optional")]
    pub key_file: Option<PathBuf>,
    pub passphrase: Option<String>,
}

/// Work that is noted, or under way: by its number, or its name.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Job {
    List {
        /// Those as well that have ended.
        ended: bool,
    },
    Show {
        job: String,
    },
    /// Until it has ended or stopped.
    Wait {
        job: String,
    },
    Pause {
        job: String,
    },
    Resume {
        job: String,
    },
    Cancel {
        job: String,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Sets {
    List {
        target: Option<String>,
    },
    /// Reads all of them, or all but data and so many hundredths of it.
    Verify {
        target: Option<String>,
        read: Option<u8>,
    },
    Delete {
        target: Option<String>,
        sets: Vec<ByteBuf>,
        dry_run: bool,
    },
    /// Lets all go but the newest, or the newest that is not after a time.
    Merge {
        target: Option<String>,
        sets: Vec<ByteBuf>,
        #[serde(default)]
        at: Option<Timestamp>,
        dry_run: bool,
    },
    /// Packs anew what lies in sets of which more than so many hundredths are of no use.
    Compact {
        target: Option<String>,
        waste: u8,
        dry_run: bool,
    },
    Rebuild {
        target: Option<String>,
    },
    /// Writes anew what has lost something, out of the store.
    Repair {
        target: Option<String>,
    },
    Prune {
        target: Option<String>,
        keep: Retention,
        dry_run: bool,
    },
}

impl Verb {
    /// Whether the daemon reads or writes files outside the store for this.
    pub(super) fn reaches_outside(&self) -> bool {
        match self {
            Verb::Rehearse(verb) => verb.reaches_outside(),
            // The owners that it makes would be its own to give.
            Verb::Put { .. } => true,
            Verb::Base(Base::FromSet { .. }) | Verb::RestoreFrom { .. } | Verb::Target(Targets::Add { .. }) => true,
            Verb::Backup(_) | Verb::Send(_) | Verb::Set(_) => true,
            Verb::Target(Targets::KeyList { .. } | Targets::KeyAdd { .. } | Targets::KeyRemove { .. }) => true,
            Verb::Target(Targets::List | Targets::Forget { .. }) => false,
            // What was noted by somebody who may.
            Verb::Job(job) => matches!(job, Job::Resume { .. }),
            Verb::CopyOut(_) | Verb::Sync(_) | Verb::Roll(_) | Verb::RollGroup { .. } | Verb::Archive(_) => true,
            Verb::Snap(_) | Verb::List { .. } | Verb::Delete { .. } | Verb::Rename { .. } => false,
            Verb::Hold { .. } | Verb::Session(_) | Verb::Group(_) | Verb::Base(_) | Verb::Clone(_) => false,
            Verb::Refresh { .. }
            | Verb::Promote { .. }
            | Verb::Wait { .. }
            | Verb::Mirror(_)
            | Verb::Restore { .. }
            | Verb::Undo => false,
            Verb::Get { .. } => false,
            Verb::History | Verb::Versions { .. } | Verb::Diff { .. } | Verb::Tracks { .. } => false,
            Verb::Policy { .. } | Verb::Status | Verb::Check | Verb::Mount => false,
        }
    }

    /// Whether it only reads the store: any number of such commands read a closed one at a time, and nothing is written there.
    pub(super) fn only_reads(&self) -> bool {
        match self {
            Verb::CopyOut(_)
            | Verb::Get { .. }
            | Verb::Send(_)
            | Verb::Session(Session::Tracks { .. } | Session::Read { .. }) => true,
            // It is done, and taken back.
            Verb::Rehearse(_) => false,
            verb => verb.changes_nothing(),
        }
    }

    /// What it is called where it takes long; jobs are listed as what they are.
    pub(super) fn work_name(&self) -> Option<&'static str> {
        Some(match self {
            Verb::Roll(_) | Verb::RollGroup { .. } => "roll",
            Verb::Archive(_) => "archive",
            Verb::CopyOut(_) | Verb::Restore { .. } | Verb::RestoreFrom { .. } | Verb::Undo => "restore",
            Verb::Sync(_) => "sync",
            Verb::Put { .. } => "put",
            Verb::Get { .. } => "get",
            Verb::Send(_) => "send",
            Verb::Check => "check",
            Verb::Set(_) => "set",
            Verb::Base(_) | Verb::Clone(_) | Verb::Mirror(_) => "copy",
            _ => return None,
        })
    }

    /// Whether it can be begun anew if it was broken off, since it changes nothing.
    pub(super) fn changes_nothing(&self) -> bool {
        matches!(
            self,
            Verb::List { .. }
                | Verb::History
                | Verb::Versions { .. }
                | Verb::Diff { .. }
                | Verb::Tracks { .. }
                | Verb::Status
                | Verb::Check
                | Verb::Mount
                | Verb::Rehearse(_)
                | Verb::Session(Session::List)
                | Verb::Group(Group::List)
                | Verb::Base(Base::List)
                | Verb::Archive(Archive::List { .. } | Archive::Verify { .. })
                | Verb::Target(Targets::List)
                | Verb::Job(Job::List { .. } | Job::Show { .. } | Job::Wait { .. })
                | Verb::Set(Sets::List { .. } | Sets::Verify { .. })
        )
    }
}
