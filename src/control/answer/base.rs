//! Bases, and what groups them: groups, and sessions.

use super::spelling::TimeInfo;
use crate::view::{self, BaseKind, Session};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Base,
    Clone,
    Mirror,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseInfo {
    pub name: String,
    pub id: String,
    #[serde(flatten)]
    pub time: TimeInfo,
    pub kind: Kind,
    /// Of a mirror its base; of a clone its snapshot, as BASE:SNAPSHOT, as long as that is there.
    pub of: Option<String>,
    pub snapshots: u64,
    /// What its tracks take, shared or not.
    pub refers_bytes: u64,
    /// The snapshot without which it could not be.
    pub needs: Option<String>,
    /// While something is being settled; of how many is 0 where that is not known.
    pub settled_blocks: Option<u64>,
    pub blocks_to_settle: Option<u64>,
    pub split: bool,
    /// While it gets tracks of its own.
    pub copied_bytes: Option<u64>,
    pub bytes_to_copy: Option<u64>,
    /// Room has ended; it goes on when there is some again.
    pub copy_stopped: bool,
    /// It is being filled from an archive.
    pub filling: bool,
    pub offline: bool,
    /// Room set aside for it.
    pub reserved_bytes: u64,
}

impl From<view::BaseInfo> for BaseInfo {
    fn from(base: view::BaseInfo) -> BaseInfo {
        let (kind, of) = match base.kind {
            BaseKind::Base => (Kind::Base, None),
            BaseKind::Clone(of) => (Kind::Clone, of),
            BaseKind::Mirror(of) => (Kind::Mirror, Some(of)),
        };
        BaseInfo {
            name: base.name,
            id: base.unique_id.to_string(),
            time: base.time.into(),
            kind,
            of,
            snapshots: base.snapshots,
            refers_bytes: base.refers,
            needs: base.needs,
            settled_blocks: base.settling.map(|settling| settling.0),
            blocks_to_settle: base.settling.map(|settling| settling.1),
            split: base.is_split,
            copied_bytes: base.copying.map(|copying| copying.done),
            bytes_to_copy: base.copying.map(|copying| copying.total),
            copy_stopped: base.copying.is_some_and(|copying| copying.is_stopped),
            filling: base.is_filling,
            offline: base.is_offline,
            reserved_bytes: base.reserve,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInfo {
    pub name: String,
    pub bases: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionState {
    Registered,
    Related,
}

impl SessionState {
    pub fn as_str(self) -> &'static str {
        match self {
            SessionState::Registered => "registered",
            SessionState::Related => "related",
        }
    }
}

/// A session that is not active yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    pub name: String,
    pub bases: Vec<String>,
    pub state: SessionState,
    pub offline: bool,
    /// When it was registered.
    #[serde(flatten)]
    pub time: TimeInfo,
}

impl SessionInfo {
    pub fn new(session: Session, bases: Vec<String>) -> SessionInfo {
        let Session { name, record } = session;
        let state = if record.is_related { SessionState::Related } else { SessionState::Registered };
        SessionInfo { name, bases, state, offline: record.offline, time: record.time.into() }
    }
}
