//! The daemon's side of the control socket.

use super::{PROTOCOL, REQUEST_BYTES_MAX, Reply, Request, SOCKET, receive, send, serve};
use crate::daemon::{Daemon, Progress};
use crate::error::{Errno, Error, Result};
use std::fs::{File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A client that does not send its request within this time is dropped.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Answers on the socket until it is dropped.
pub struct Server {
    path: PathBuf,
}

/// A path to a socket that fits into the few bytes the system call has for it, however long the store's is.
pub(super) fn short_path(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))
}

impl Server {
    pub fn start(daemon: &Arc<Daemon>) -> Result<Server> {
        let path = daemon.path().join(SOCKET);
        let failed = |error| Error::media(format!("opening the control socket {}", path.display()), error);
        // We hold the store's lock: whatever is there is left over.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let directory = File::open(daemon.path()).map_err(failed)?;
        let listener = UnixListener::bind(short_path(&directory)).map_err(failed)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed)?;
        if rustix::process::geteuid().is_root() {
            // The store's owner may ask as well; `check_peer` says for what.
            let owner = directory.metadata().map_err(failed)?.uid();
            std::os::unix::fs::chown(&path, Some(owner), None).map_err(failed)?;
        }
        let daemon = Arc::downgrade(daemon);
        std::thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                for stream in listener.incoming() {
                    let (Ok(stream), Some(daemon)) = (stream, daemon.upgrade()) else { continue };
                    let spawned =
                        std::thread::Builder::new().name("request".into()).spawn(move || answer(&daemon, stream));
                    if let Err(error) = spawned {
                        log::error!("a request could not be served: {error}");
                    }
                }
            })
            .map_err(failed)?;
        Ok(Server { path })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            log::warn!("{} stays behind: {error}", self.path.display());
        }
    }
}

fn answer(daemon: &Daemon, mut stream: UnixStream) {
    let result = check_peer(daemon.path(), &stream).and_then(|(uid, may_reach_outside)| {
        stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
        let request: Request = receive(&mut stream, REQUEST_BYTES_MAX)?;
        if request.protocol != PROTOCOL {
            return Err(Error::Refused(
                Errno::PROTO,
                format!("the daemon speaks protocol {PROTOCOL} and this command {}; use the same version of pitfs", request.protocol),
            ));
        }
        if request.verb.reaches_outside() && !may_reach_outside {
            return Err(Error::Refused(
                Errno::PERM,
                "the daemon runs as another user and reads and writes no files for this one; run the command as that user or root".into(),
            ));
        }
        let mut last = Instant::now();
        let mut out = stream.try_clone()?;
        serve(daemon, request, uid, &mut |progress: &Progress| {
            if last.elapsed() < PROGRESS_INTERVAL {
                return Ok(());
            }
            last = Instant::now();
            // A client that was interrupted does not want the rest.
            send(&mut out, &Reply::Progress(progress.clone()))
                .map_err(|_| Error::Refused(Errno::INTR, "the command was interrupted".into()))
        })
    });
    let reply = match result {
        Ok(answer) => Reply::Done(Box::new(answer)),
        Err(error) => Reply::Failed { errno: error.errno().raw_os_error(), text: error.to_string() },
    };
    if let Err(error) = send(&mut stream, &reply) {
        log::debug!("nobody waits for the answer: {error}");
    }
}

/// Lets in root, the daemon's own user and the store's owner; the latter may not let the daemon touch
/// files outside the store. Returns who this peer is and whether it may.
fn check_peer(store: &Path, stream: &UnixStream) -> Result<(u32, bool)> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?.uid;
    if peer.is_root() || peer == rustix::process::geteuid() {
        return Ok((peer.as_raw(), true));
    }
    let owner = std::fs::metadata(store)?.uid();
    if peer.as_raw() == owner {
        return Ok((peer.as_raw(), false));
    }
    Err(Error::Refused(Errno::PERM, "only the store's owner and root may use its control socket".into()))
}
