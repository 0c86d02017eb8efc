//! The command's side of the control socket, and finding the store that is meant.

use super::server::short_path;
use super::{Answer, PROTOCOL, REPLY_BYTES_MAX, Reply, Request, SOCKET, Verb, receive, send, serve};
use crate::daemon::{Daemon, OnProgress};
use crate::error::{Errno, Error, Result};
use crate::fuse::STORE_XATTR;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The directory of the store that is meant by a path: the store itself, or anything inside its mount.
pub fn locate_store(path: &Path) -> Result<PathBuf> {
    if let Err(Errno::NOTCONN) = rustix::fs::statvfs(path) {
        return Err(crate::fuse::dead_mount(path));
    }
    let absolute = path.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::Store(format!(
            "there is no store at {}; make one with `pitfs create {}`",
            path.display(),
            path.display()
        )),
        _ => Error::media(format!("looking at {}", path.display()), error),
    })?;
    if crate::daemon::is_store(&absolute) {
        return Ok(absolute);
    }
    let mut buffer = vec![0; 4096];
    for directory in absolute.ancestors().filter(|directory| is_mount_root(directory)) {
        if let Ok(len) = rustix::fs::getxattr(directory, STORE_XATTR, &mut buffer) {
            return Ok(PathBuf::from(OsString::from_vec(buffer[..len].to_vec())));
        }
    }
    Ok(absolute)
}

/// Below a mount root anybody can set xattrs of any name.
fn is_mount_root(directory: &Path) -> bool {
    let device = |path: &Path| path.metadata().map(|found| found.dev()).ok();
    directory.parent().is_some_and(|above| device(above) != device(directory))
}

/// Has a request carried out: by the daemon that has the store open, or else here.
pub fn ask(store: &Path, verb: Verb, progress: OnProgress<'_>) -> Result<Answer> {
    if let Some(stream) = connect(store)? {
        return ask_daemon(stream, verb, progress);
    }
    let daemon = Daemon::open(store)?;
    let answer = serve(&daemon, verb, progress)?;
    daemon.finish_deletions()?;
    daemon.close()?;
    Ok(answer)
}

/// The daemon's socket, or `None` where no daemon has the store open.
fn connect(store: &Path) -> Result<Option<UnixStream>> {
    if !store.join(SOCKET).exists() {
        return Ok(None);
    }
    let directory = File::open(store).map_err(|error| Error::media(format!("opening {}", store.display()), error))?;
    match UnixStream::connect(short_path(&directory)) {
        Ok(stream) => Ok(Some(stream)),
        // Left over from a daemon that was killed.
        Err(error) if matches!(error.kind(), std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound) => {
            Ok(None)
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(Error::Refused(
            Errno::PERM,
            format!("the store {} belongs to another user; only its owner and root may use it", store.display()),
        )),
        Err(error) => Err(Error::media("connecting to the daemon", error)),
    }
}

fn ask_daemon(mut stream: UnixStream, verb: Verb, progress: OnProgress<'_>) -> Result<Answer> {
    send(&mut stream, &Request { protocol: PROTOCOL, verb })?;
    loop {
        match receive(&mut stream, REPLY_BYTES_MAX)? {
            Reply::Progress(told) => progress(&told)?,
            Reply::Done(answer) => return Ok(answer),
            Reply::Failed { errno, text } => return Err(Error::Refused(Errno::from_raw_os_error(errno), text)),
        }
    }
}
