//! What a command can ask of an open store, and how it is asked across the store's socket.
//!
//! A message is its length (32 bits, little-endian) and JSON, as docs/protocol.md has it. A client sends one [`Request`] and
//! reads [`Reply`]s: `Begun`, any number of `Progress`, then `Done`, `Failed` or `Closing`. A command that opens the store
//! itself calls [`serve`] directly: both ways are the same code.

mod answer;
mod client;
mod passing;
mod request;
mod serve;
mod server;
#[cfg(test)]
mod tests;

pub use answer::{
    Answer, ArchiveInfo, BackupInfo, BaseInfo, BaseRollInfo, BytesInfo, Change, CheckInfo, CopiedOutInfo, DeletionInfo,
    DetachedInfo, DifferenceInfo, DirectoryInfo, DoneInfo, ErrorInfo, FileTracksInfo, FreedInfo, GoneInfo, GroupInfo,
    HealthInfo, HistoryInfo, IncrementInfo, JobInfo, JobState, KeyInfo, Kind, LetGoInfo, MissingInfo, MountedInfo,
    PathInfo, PathText, PlanInfo, PlannedInfo, PolicyInfo, ProblemInfo, ProgressInfo, Reply, RestoredInfo, RollInfo,
    SessionInfo, SessionState, SetInfo, SetKind, ShortenedInfo, SnapshotInfo, State, StatusInfo, StreamInfo, SyncInfo,
    TargetInfo, TimeInfo, TracksInfo, TroubleInfo, UpgradeInfo, VerifiedInfo, VersionInfo, WhenFull, WorkerInfo,
    spelling,
};
pub use client::{Target, ask, ask_with, base_shown, locate_store, view_depth};
pub use request::{
    Archive, Backup, Base, ByteRange, CloneRequest, FromTarget, Group, Job, Keep, Mirror, Request, Send, Session, Sets,
    Snap, Targets, Verb,
};
pub use serve::serve;
pub use server::{Listening, Server};

use crate::error::{Errno, Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};
use std::io::{self, Read, Write};

/// Of the messages below. A client and a daemon of different versions do not talk to each other.
pub const PROTOCOL: u32 = 12;

/// The socket's name in the store's directory.
const SOCKET: &str = "control";
const REQUEST_BYTES_MAX: u32 = 1 << 20;
const REPLY_BYTES_MAX: u32 = 1 << 31;

/// Names and paths of a request are bytes: text where they are, and a list of numbers only where they are none.
struct BytesAsText;

impl Formatter for BytesAsText {
    fn write_byte_array<W: ?Sized + Write>(&mut self, out: &mut W, bytes: &[u8]) -> io::Result<()> {
        match std::str::from_utf8(bytes) {
            Ok(text) => serde_json::to_writer(out, text).map_err(io::Error::from),
            Err(_) => CompactFormatter.write_byte_array(out, bytes),
        }
    }
}

/// A message as it is sent, without its length.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let written = message.serialize(&mut Serializer::with_formatter(&mut bytes, BytesAsText));
    written.map_err(|error| Error::media("making a message for the control socket", error.into()))?;
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::Refused(Errno::PROTO, format!("a message on the control socket makes no sense: {error}"))
    })
}

/// A message in front of which its length goes.
fn framed<T: Serialize>(message: &T, most: u32) -> Result<([u8; 4], Vec<u8>)> {
    let bytes = encode(message)?;
    let len = u32::try_from(bytes.len()).ok().filter(|len| *len <= most);
    let len = len.ok_or_else(|| {
        Error::Refused(Errno::MSGSIZE, format!("a message of {} bytes is too long for the control socket", bytes.len()))
    })?;
    Ok((len.to_le_bytes(), bytes))
}

fn sending(error: io::Error) -> Error {
    Error::media("sending on the control socket", error)
}

fn send<T: Serialize>(out: &mut impl Write, message: &T) -> Result<()> {
    let (len, bytes) = framed(message, REPLY_BYTES_MAX)?;
    out.write_all(&len).and_then(|()| out.write_all(&bytes)).map_err(sending)
}

/// A message, not yet read.
fn receive(from: &mut impl Read, most: u32) -> Result<Vec<u8>> {
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
        return Err(failed(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(bytes)
}
