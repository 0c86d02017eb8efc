//! What a command can ask of an open store, and how it is asked across the store's socket.
//!
//! A message is its length (32 bits, little-endian) and MessagePack. A client sends one [`Request`] and
//! reads [`Reply`]s: any number of `Progress`, then `Done` or `Failed`. A command that opens the store
//! itself calls [`serve`] directly: both ways are the same code.

mod client;
mod server;

pub use client::{ask, locate_store};
pub use server::Server;

use crate::clock::Timestamp;
use crate::daemon::{
    CheckReport, Daemon, OnProgress, Progress, RestoreOptions, RestoreReport, SyncOptions, SyncReport,
};
use crate::device::Snapshot;
use crate::error::{Errno, Error, Result};
use crate::tree::{Difference, Space};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::path::PathBuf;

/// Of the messages below. A client and a daemon of different versions do not talk to each other.
pub const PROTOCOL: u32 = 1;

/// The socket's name in the store's directory.
const SOCKET: &str = "control";
const REQUEST_BYTES_MAX: u32 = 1 << 20;
const REPLY_BYTES_MAX: u32 = 1 << 31;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    pub protocol: u32,
    pub verb: Verb,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Verb {
    Snap { name: Option<serde_bytes::ByteBuf> },
    List,
    Delete { names: Vec<serde_bytes::ByteBuf> },
    Rename { old: serde_bytes::ByteBuf, new: serde_bytes::ByteBuf },
    Diff { before: serde_bytes::ByteBuf, after: serde_bytes::ByteBuf },
    Status,
    Check,
    Restore(RestoreOptions),
    Sync(SyncOptions),
    Mount,
}

impl Verb {
    /// Whether the daemon reads or writes files outside the store for this.
    fn reaches_outside(&self) -> bool {
        match self {
            Verb::Restore(_) | Verb::Sync(_) => true,
            Verb::Snap { .. } | Verb::List | Verb::Delete { .. } | Verb::Rename { .. } => false,
            Verb::Diff { .. } | Verb::Status | Verb::Check | Verb::Mount => false,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    Progress(Progress),
    Done(Answer),
    /// The text is for the user.
    Failed {
        errno: i32,
        text: String,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    Nothing,
    Snapshots(Vec<SnapshotInfo>),
    Differences(Vec<Difference>),
    Status(StatusInfo),
    Check(CheckReport),
    Restore(RestoreReport),
    Sync(SyncReport),
    Mount { mount_point: Option<PathBuf> },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    pub name: String,
    pub epoch: u32,
    pub time: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusInfo {
    pub store: PathBuf,
    pub mount_point: Option<PathBuf>,
    pub track_bytes: u64,
    pub compression: String,
    pub space: Space,
    /// What deleting each snapshot, alone, would free.
    pub unique: Vec<(SnapshotInfo, u64)>,
    /// Why writing has stopped, if it has.
    pub stopped: Option<String>,
}

impl From<&Snapshot> for SnapshotInfo {
    fn from(snapshot: &Snapshot) -> SnapshotInfo {
        SnapshotInfo { name: snapshot.record.name.clone(), epoch: snapshot.epoch, time: snapshot.record.time }
    }
}

/// Carries out a request on an open store.
pub fn serve(daemon: &Daemon, verb: Verb, progress: OnProgress<'_>) -> Result<Answer> {
    match verb {
        Verb::Snap { name } => {
            let snapshot = daemon.snapshot(name.as_deref().map(|name| name.as_slice()))?;
            Ok(Answer::Snapshots(vec![SnapshotInfo::from(&snapshot)]))
        }
        Verb::List => Ok(Answer::Snapshots(daemon.views().snapshots()?.iter().map(SnapshotInfo::from).collect())),
        Verb::Delete { names } => {
            let names: Vec<&[u8]> = names.iter().map(|name| name.as_slice()).collect();
            Ok(Answer::Snapshots(daemon.delete_snapshots(&names)?.iter().map(SnapshotInfo::from).collect()))
        }
        Verb::Rename { old, new } => daemon.rename_snapshot(&old, &new).map(|()| Answer::Nothing),
        Verb::Diff { before, after } => {
            let views = daemon.views();
            let differences = views.tree().diff(views.base(), views.moment(&before)?, views.moment(&after)?)?;
            Ok(Answer::Differences(differences))
        }
        Verb::Status => status(daemon).map(Answer::Status),
        Verb::Check => Ok(Answer::Check(daemon.check(progress)?)),
        Verb::Restore(options) => Ok(Answer::Restore(daemon.restore(&options, progress)?)),
        Verb::Sync(options) => Ok(Answer::Sync(daemon.sync(&options, progress)?)),
        Verb::Mount => Ok(Answer::Mount { mount_point: daemon.mount_point() }),
    }
}

fn status(daemon: &Daemon) -> Result<StatusInfo> {
    let tree = daemon.views().tree();
    let mut unique = Vec::new();
    for snapshot in daemon.views().snapshots()? {
        unique.push((SnapshotInfo::from(&snapshot), tree.device().unique_bytes(snapshot.point())?));
    }
    let settings = tree.device().settings();
    Ok(StatusInfo {
        store: daemon.path().to_path_buf(),
        mount_point: daemon.mount_point(),
        track_bytes: settings.track_bytes.into(),
        compression: format!("{:?}", settings.codec).to_lowercase(),
        space: tree.space()?,
        unique,
        stopped: tree.device().check_running().err().map(|error| error.to_string()),
    })
}

fn send<T: Serialize>(out: &mut impl Write, message: &T) -> Result<()> {
    let bytes = crate::meta::encode(message);
    let len = u32::try_from(bytes.len()).ok().filter(|len| *len <= REPLY_BYTES_MAX);
    let len =
        len.ok_or_else(|| Error::Refused(Errno::MSGSIZE, "the answer is too long for the control socket".into()))?;
    out.write_all(&len.to_le_bytes())
        .and_then(|()| out.write_all(&bytes))
        .map_err(|error| Error::media("sending on the control socket", error))
}

fn receive<T: serde::de::DeserializeOwned>(from: &mut impl Read, most: u32) -> Result<T> {
    let failed = |error| Error::media("receiving from the control socket", error);
    let mut len = [0; 4];
    from.read_exact(&mut len).map_err(failed)?;
    let len = u32::from_le_bytes(len);
    if len > most {
        return Err(Error::Refused(Errno::MSGSIZE, "a message on the control socket is too long".into()));
    }
    // Grows with what arrives, not with what was announced.
    let mut bytes = Vec::new();
    let got = from.take(len.into()).read_to_end(&mut bytes).map_err(failed)?;
    if got < len as usize {
        return Err(failed(std::io::ErrorKind::UnexpectedEof.into()));
    }
    rmp_serde::from_slice(&bytes)
        .map_err(|_| Error::Refused(Errno::PROTO, "a message on the control socket makes no sense".into()))
}
