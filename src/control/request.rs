//! What can be asked for.

use crate::daemon::{RestoreOptions, RollOptions, SyncOptions};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::path::PathBuf;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    pub protocol: u32,
    /// The base that is meant; without one, the first.
    pub base: Option<ByteBuf>,
    pub verb: Verb,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Verb {
    Snap(Snap),
    List,
    /// Snapshots, or clones.
    Delete {
        names: Vec<ByteBuf>,
        recursive: bool,
    },
    /// What deleting snapshots would free.
    Freed {
        names: Vec<ByteBuf>,
    },
    Rename {
        old: ByteBuf,
        new: ByteBuf,
    },
    Hold {
        names: Vec<ByteBuf>,
        held: bool,
    },
    Session(Session),
    Group(Group),
    Base(Base),
    Clone {
        snapshot: ByteBuf,
        name: ByteBuf,
        full: bool,
        copy: bool,
    },
    Refresh {
        name: ByteBuf,
        snapshot: ByteBuf,
    },
    Promote {
        name: ByteBuf,
    },
    Mirror(Mirror),
    /// In place; without a snapshot, the last that was saved.
    Restore {
        snapshot: Option<ByteBuf>,
        paths: Vec<ByteBuf>,
    },
    /// To a directory outside the store.
    CopyOut(RestoreOptions),
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
    },
    Roll(RollOptions),
    Archive(Archive),
    /// Shows the policy; changes what is given.
    Policy {
        drop_oldest: Option<bool>,
    },
    Status,
    Check,
    Sync(SyncOptions),
    Mount,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snap {
    pub name: Option<ByteBuf>,
    pub group: Option<ByteBuf>,
    pub offline: bool,
    pub hold: bool,
    pub reserve: bool,
    pub save: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Session {
    Register { name: ByteBuf, bases: Vec<ByteBuf>, group: Option<ByteBuf>, offline: bool },
    Relate { name: ByteBuf },
    Activate { name: ByteBuf },
    Deactivate { name: ByteBuf },
    Show { name: ByteBuf, shown: bool },
    List,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Group {
    Create { name: ByteBuf, bases: Vec<ByteBuf> },
    Delete { name: ByteBuf },
    List,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Base {
    /// Empty, or as a snapshot, of which it is made independent.
    Create {
        name: ByteBuf,
        snapshot: Option<ByteBuf>,
        uid: u32,
        gid: u32,
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
pub enum Mirror {
    Establish {
        base: ByteBuf,
        name: ByteBuf,
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
pub enum Archive {
    Attach { directory: PathBuf },
    Detach { directory: Option<PathBuf> },
    List { directory: Option<PathBuf> },
    Verify { directory: Option<PathBuf> },
}

impl Verb {
    /// Whether the daemon reads or writes files outside the store for this.
    pub(super) fn reaches_outside(&self) -> bool {
        match self {
            Verb::CopyOut(_) | Verb::Sync(_) | Verb::Roll(_) | Verb::Archive(_) => true,
            Verb::Snap(_) | Verb::List | Verb::Delete { .. } | Verb::Freed { .. } | Verb::Rename { .. } => false,
            Verb::Hold { .. } | Verb::Session(_) | Verb::Group(_) | Verb::Base(_) | Verb::Clone { .. } => false,
            Verb::Refresh { .. } | Verb::Promote { .. } | Verb::Mirror(_) | Verb::Restore { .. } => false,
            Verb::History | Verb::Versions { .. } | Verb::Diff { .. } | Verb::Tracks { .. } => false,
            Verb::Policy { .. } | Verb::Status | Verb::Check | Verb::Mount => false,
        }
    }
}
