//! The command's side of the control socket, and finding the store that is meant.

use super::passing::send_with;
use super::server::socket_in;
use super::{
    Answer, ErrorInfo, PROTOCOL, REPLY_BYTES_MAX, REQUEST_BYTES_MAX, Reply, Request, SOCKET, Verb, decode, framed,
    receive, sending, serve,
};
use crate::daemon::{Daemon, OnProgress, Patience, is_dead, trusts_owners};
use crate::error::{Errno, Error, Result};
use crate::fuse::{BASE_XATTR, STORE_XATTR, mount_at};
use crate::media::Directory;
use crate::shown::shown_file;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::fs::FileType;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use serde_bytes::ByteBuf;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The store that is meant, and which base of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The store's directory.
    pub store: PathBuf,
    /// Without one, the first base.
    pub base: Option<Vec<u8>>,
}

/// What is meant by a path: a store, STORE:BASE, or anything inside the mount of one.
pub fn locate_store(path: &Path) -> Result<Target> {
    // One whose daemon cannot end would not even say that.
    let around = crate::fuse::mount_around(path);
    if let Some(mount) = around.as_ref().filter(|mount| is_dead(mount) == Some(true)) {
        return Err(crate::fuse::dead_mount(&mount.at));
    }
    if let Err(Errno::NOTCONN) = rustix::fs::statvfs(path) {
        return Err(crate::fuse::dead_mount(path));
    }
    let absolute = match path.canonicalize() {
        Ok(absolute) => absolute,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let bytes = path.as_os_str().as_bytes();
            if let Some(colon) = bytes.iter().rposition(|byte| *byte == b':').filter(|at| *at > 0) {
                let base = bytes[colon + 1..].to_vec();
                let found = locate_store(Path::new(OsStr::from_bytes(&bytes[..colon])))?;
                return Ok(Target { base: Some(base), ..found });
            }
            let shown = shown_file(path);
            let text = format!("there is no store at {shown}; make one with `pitfs create {shown}`");
            return Err(Error::Refused(Errno::NOENT, text));
        }
        Err(error) => return Err(Error::media(format!("looking at {}", shown_file(path)), error)),
    };
    if crate::daemon::is_store(&absolute) {
        return Ok(Target { store: absolute, base: None });
    }
    for directory in absolute.ancestors().filter(|directory| is_mount_root(directory)) {
        if let Some(store) = xattr(directory, STORE_XATTR) {
            let store = PathBuf::from(OsString::from_vec(store));
            // Who has a file system of his own can have it say anything.
            let here = around.clone().filter(|mount| mount.at == directory).or_else(|| mount_at(directory));
            if here.is_some_and(|mount| mount.is_pitfs() && mount.may_show(&store)) {
                return Ok(Target { store, base: base_at(directory, &absolute) });
            }
        }
    }
    Ok(Target { store: absolute, base: None })
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 4096];
    let len = rustix::fs::getxattr(path, name, &mut buffer).ok()?;
    buffer.truncate(len);
    Some(buffer)
}

/// The base inside whose part of a mount a path lies: the mount root, a directory in it or one in that say so.
fn base_at(root: &Path, path: &Path) -> Option<Vec<u8>> {
    let rest = path.strip_prefix(root).ok()?;
    let mut at = root.to_path_buf();
    let mut found = xattr(&at, BASE_XATTR);
    let depth = if found.is_some() { 1 } else { 2 };
    for name in rest.components().take(depth) {
        at.push(name);
        found = xattr(&at, BASE_XATTR).or(found);
    }
    found
}

/// The name of the base that a directory of a mount shows, or is the root of.
pub fn base_shown(directory: &Path) -> Option<Vec<u8>> {
    xattr(directory, BASE_XATTR)
}

/// How many names lead from a mount's root to a view: with several bases the base's comes first.
pub fn view_depth(mount_point: &Path) -> usize {
    if xattr(mount_point, BASE_XATTR).is_some() { 1 } else { 2 }
}

/// Below a mount root anybody can set xattrs of any name.
fn is_mount_root(directory: &Path) -> bool {
    let device = |path: &Path| path.metadata().map(|found| found.dev()).ok();
    directory.parent().is_some_and(|above| device(above) != device(directory))
}

/// Has a request carried out: by the daemon that has the store open, or else here. Waits for one that opens or closes it.
pub fn ask(target: &Target, verb: Verb, progress: OnProgress<'_>) -> Result<Answer> {
    ask_with(target, verb, None, progress)
}

/// The same with a stream that a tar archive comes from, or goes to.
pub fn ask_with(target: &Target, verb: Verb, stream: Option<Arc<File>>, progress: OnProgress<'_>) -> Result<Answer> {
    let base = target.base.clone().map(ByteBuf::from);
    let request = Request { protocol: PROTOCOL, base, verb, stream };
    let mut patience = Patience::new(&target.store);
    loop {
        if let Some(stream) = connect(&target.store)? {
            if let Some(answer) = ask_daemon(&target.store, stream, &request, progress)? {
                return Ok(answer);
            }
        } else if let Some(daemon) = Daemon::try_open(&target.store, request.verb.only_reads())? {
            let answer = serve(&daemon, request, rustix::process::getuid().as_raw(), progress)?;
            daemon.finish_deletions()?;
            daemon.close()?;
            return Ok(answer);
        }
        patience.pause()?;
    }
}

/// The daemon's socket, or `None` where no daemon has the store open.
fn connect(store: &Path) -> Result<Option<UnixStream>> {
    let opening = |error| Error::media(format!("opening {}", shown_file(store)), error);
    let directory = match Directory::open(store) {
        // What is wrong with it is said by whoever works on the closed store.
        Err(error) if error.kind() != std::io::ErrorKind::PermissionDenied => return Ok(None),
        directory => directory.map_err(opening)?,
    };
    if directory.kind(SOCKET).map_err(opening)? != Some(FileType::Socket) {
        return Ok(None);
    }
    match connected(&socket_in(&directory)) {
        Ok(stream) => check_daemon(&directory, &stream).map(|()| Some(stream)),
        // Left over from a daemon that was killed.
        Err(error) if matches!(error.kind(), std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound) => {
            Ok(None)
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(Error::Refused(
            Errno::PERM,
            format!("the store {} belongs to another user; only its owner and root may use it", shown_file(store)),
        )),
        Err(error) => Err(Error::media("connecting to the daemon", error)),
    }
}

/// Connects, but does not wait long for a daemon that accepts nobody.
fn connected(path: &Path) -> std::io::Result<UnixStream> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(CONNECTING))?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Err(Errno::AGAIN) => return Err(std::io::Error::other("the daemon takes no connections")),
        connected => connected?,
    }
    set_socket_timeout(&socket, Timeout::Send, None)?;
    Ok(socket.into())
}

/// Who answers has to be root, this user, or the store's owner: anybody may have made a socket in a directory that he may
/// write to.
fn check_daemon(directory: &Directory, stream: &UnixStream) -> Result<()> {
    let daemon = getsockopt(stream, PeerCredentials).map_err(std::io::Error::from)?.uid();
    let us = rustix::process::geteuid();
    if daemon == 0 || daemon == us.as_raw() {
        return Ok(());
    }
    let shown = shown_file(directory.path());
    let text = match (daemon == directory.owner(), us.is_root() && !trusts_owners()) {
        (true, false) => return Ok(()),
        (true, true) => format!(
            "user {daemon} has the store {shown} mounted and could answer anything: work on it as that user or, if you trust him as \
             yourself, with --trust-owner"
        ),
        (false, _) => {
            format!("user {daemon}, to whom the store {shown} does not belong, answers at its control socket")
        }
    };
    Err(Error::Refused(Errno::PERM, text))
}

/// Whether the other side is gone.
fn is_end(error: &Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error, Error::Media { source, .. } if matches!(source.kind(), BrokenPipe | ConnectionReset | UnexpectedEof))
}

fn daemon_ended(store: &Path) -> Error {
    Error::Store(format!(
        "the daemon that has {} mounted ended before it answered: what was asked for may be done in part; `pitfs mount` mounts the store again, `pitfs history` and `pitfs list` show what was done",
        shown_file(store)
    ))
}

fn send_request(stream: &mut UnixStream, request: &Request) -> Result<()> {
    let (len, bytes) = framed(request, REQUEST_BYTES_MAX)?;
    match &request.stream {
        Some(file) => send_with(stream, &len, file)?,
        None => stream.write_all(&len).map_err(sending)?,
    }
    stream.write_all(&bytes).map_err(sending)
}

/// The daemon's answer; none if it ended before it began, or has broken off what can be begun anew.
fn ask_daemon(
    store: &Path,
    mut stream: UnixStream,
    request: &Request,
    progress: OnProgress<'_>,
) -> Result<Option<Answer>> {
    match send_request(&mut stream, request) {
        // It may have answered before it read all.
        Err(error) if !is_end(&error) => return Err(error),
        _ => {}
    }
    let mut has_begun = false;
    stream.set_read_timeout(Some(SILENCE))?;
    loop {
        match receive(&mut stream, REPLY_BYTES_MAX).and_then(|message| decode(&message)) {
            Ok(Reply::Begun) => {
                has_begun = true;
                stream.set_read_timeout(None)?;
            }
            Ok(Reply::Progress(told)) => progress(&told.into())?,
            Ok(Reply::Done(answer)) => return Ok(Some(*answer)),
            Ok(Reply::Closing) => return Ok(None),
            Ok(Reply::Failed(ErrorInfo { number, message, .. })) => {
                return Err(Error::Refused(known_errno(number), message));
            }
            Err(error) if is_silence(&error) && !has_begun => {
                log::warn!("waiting for the daemon of {}, which opens it or has much to do", shown_file(store));
                stream.set_read_timeout(None)?;
            }
            Err(error) if is_end(&error) && !has_begun => return Ok(None),
            Err(error) if is_end(&error) => return Err(daemon_ended(store)),
            Err(error) => return Err(error),
        }
    }
}

/// How long connecting may take.
const CONNECTING: Duration = Duration::from_secs(10);
/// After this it is said what is waited for.
const SILENCE: Duration = Duration::from_secs(3);

fn is_silence(error: &Error) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    matches!(error, Error::Media { source, .. } if matches!(source.kind(), TimedOut | WouldBlock))
}

/// An error number as Linux has them, whatever was sent.
fn known_errno(number: i32) -> Errno {
    match number {
        1..4096 => Errno::from_raw_os_error(number),
        _ => Errno::IO,
    }
}
