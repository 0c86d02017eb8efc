//! What a command can ask of an open store, and how it is asked across the store's socket.
//!
//! A message is its length (32 bits, little-endian) and MessagePack. A client sends one [`Request`] and
//! reads [`Reply`]s: `Begun`, any number of `Progress`, then `Done`, `Failed` or `Closing`. A command that opens the store
//! itself calls [`serve`] directly: both ways are the same code.

mod answer;
mod client;
mod request;
mod serve;
mod server;

pub use answer::{
    Answer, DeletionInfo, FreedInfo, ListInfo, MissingInfo, PlanInfo, Reply, SessionInfo, SnapshotInfo, StatusInfo,
    TracksInfo, VersionInfo,
};
pub use client::{Target, ask, base_shown, locate_store, view_depth};
pub use request::{Archive, Base, ByteRange, CloneRequest, Group, Keep, Mirror, Request, Session, Snap, Verb};
pub use serve::serve;
pub use server::{Listening, Server};

use crate::error::{Errno, Error, Result};
use serde::Serialize;
use std::io::{Read, Write};

/// Of the messages below. A client and a daemon of different versions do not talk to each other.
pub const PROTOCOL: u32 = 8;

/// The socket's name in the store's directory.
const SOCKET: &str = "control";
const REQUEST_BYTES_MAX: u32 = 1 << 20;
const REPLY_BYTES_MAX: u32 = 1 << 31;

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
