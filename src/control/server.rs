//! The daemon's side of the control socket.
//!
//! The socket is there before the store is open: who connects meanwhile waits for his answer. It goes before the store is
//! closed. Who was not taken on by then is told by the end of the connection, and works on the closed store.

use super::passing::WithFile;
use super::{ErrorInfo, PROTOCOL, REQUEST_BYTES_MAX, Reply, Request, SOCKET, decode, receive, send, serve};
use crate::daemon::{Daemon, Progress};
use crate::error::{Errno, Error, Result};
use crate::media::Directory;
use crate::shown::shown_file;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use parking_lot::{Condvar, Mutex};
use rustix::fs::{AtFlags, Mode, OFlags, Uid};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen as listen_on, socket_with};
use serde::Deserialize;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A client that does not send its request within this time is dropped.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// How long requests may take that are being carried out when the store is about to be closed.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// After a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections that the store's owner may have at a time, where somebody else runs the daemon.
const CONNECTIONS_MAX: usize = 128;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// A path to the socket in an open directory that fits into the few bytes the system call has for it, however long the
/// store's is.
pub(super) fn socket_in(directory: &Directory) -> PathBuf {
    let by_number = PathBuf::from(format!("/proc/self/fd/{}", directory.as_file().as_raw_fd()));
    // Without /proc the path has to do.
    if by_number.exists() { by_number } else { directory.path().to_path_buf() }.join(SOCKET)
}

/// A socket that takes connections, and answers none yet.
pub struct Listening {
    directory: Arc<Directory>,
    listener: UnixListener,
}

impl Listening {
    /// For a store whose lock this process has.
    pub fn begin(directory: &Arc<Directory>) -> Result<Listening> {
        let listen = || -> std::io::Result<Listening> {
            // Whatever is there is left over.
            directory.remove(SOCKET)?;
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            // What is bound gets the mode that it has then, less what the process masks: at no time is it another's.
            rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o600))?;
            bind(&socket, &SocketAddrUnix::new(socket_in(directory))?)?;
            let listening = Listening { directory: directory.clone(), listener: socket.into() };
            if rustix::process::geteuid().is_root() && directory.owner() != 0 {
                // The store's owner may ask as well; `check_peer` says for what.
                give_socket(directory)?;
            }
            listen_on(&listening.listener, BACKLOG)?;
            Ok(listening)
        };
        let path = directory.path().join(SOCKET);
        listen().map_err(|error| Error::media(format!("opening the control socket {}", shown_file(&path)), error))
    }

    /// Answers from now on.
    pub fn serve(self, daemon: &Arc<Daemon>) -> Result<Server> {
        let failed = |error| Error::media("answering on the control socket", error);
        let work = Arc::new(Work::default());
        let listener = self.listener.try_clone().map_err(failed)?;
        let (daemon, taken) = (daemon.clone(), work.clone());
        let acceptor = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || accept(&listener, &daemon, &taken))
            .map_err(failed)?;
        Ok(Server { listening: self, work, acceptor: Some(acceptor) })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Err(error) = self.directory.remove(SOCKET) {
            log::warn!("{} stays behind: {error}", shown_file(&self.directory.path().join(SOCKET)));
        }
    }
}

/// Makes the socket that was just bound its directory's owner's: that one and no other, which he may have put there.
fn give_socket(directory: &Directory) -> std::io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let socket = File::from(rustix::fs::openat(directory.as_file(), SOCKET, flags, Mode::empty())?);
    let found = socket.metadata()?;
    if !found.file_type().is_socket() || found.nlink() != 1 || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(std::io::Error::other("something else has its name"));
    }
    Ok(rustix::fs::chownat(&socket, "", Some(Uid::from_raw(directory.owner())), None, AtFlags::EMPTY_PATH)?)
}

/// What is being carried out.
#[derive(Default)]
struct Work {
    ends: AtomicBool,
    requests: Mutex<usize>,
    less: Condvar,
    /// Connections of the store's owner, where somebody else runs the daemon.
    owners: AtomicUsize,
}

/// A connection of the store's owner, counted for as long as it lives.
struct OwnersConnection<'a>(&'a AtomicUsize);

impl Work {
    /// Refused where there are very many already: nobody else could connect in the end.
    fn owners_connection(&self) -> Result<OwnersConnection<'_>> {
        let one = OwnersConnection(&self.owners);
        if self.owners.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            let text = "this user has too many connections to the daemon; wait for the commands that are running";
            return Err(Error::Refused(Errno::AGAIN, text.into()));
        }
        Ok(one)
    }
}

impl Drop for OwnersConnection<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a request for as long as it lives.
struct Counted(Arc<Work>);

impl Counted {
    fn new(work: &Arc<Work>) -> Counted {
        *work.requests.lock() += 1;
        Counted(work.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        *self.0.requests.lock() -= 1;
        self.0.less.notify_all();
    }
}

/// Answers on the socket until it is stopped.
pub struct Server {
    listening: Listening,
    work: Arc<Work>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    /// Takes no more requests, lets those that take long end soon, and waits for those that were taken.
    pub fn stop(mut self) {
        self.work.ends.store(true, Ordering::Release);
        // Whoever waits in `accept` is woken, and further connections are refused.
        if let Err(errno) = rustix::net::shutdown(&self.listening.listener, rustix::net::Shutdown::Both) {
            log::warn!("the control socket could not be closed: {errno}");
            return;
        }
        if let Some(acceptor) = self.acceptor.take()
            && acceptor.join().is_err()
        {
            log::error!("the thread of the control socket ended with a panic");
        }
        drop(self.listening);
        let until = Instant::now() + STOP_TIMEOUT;
        let mut requests = self.work.requests.lock();
        while *requests > 0 {
            if self.work.less.wait_until(&mut requests, until).timed_out() {
                log::warn!("{} requests of commands have not ended", *requests);
                return;
            }
        }
    }
}

fn accept(listener: &UnixListener, daemon: &Arc<Daemon>, work: &Arc<Work>) {
    for stream in listener.incoming() {
        if work.ends.load(Ordering::Acquire) {
            return;
        }
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                log::error!("a connection to the control socket was not accepted: {error}");
                std::thread::sleep(PAUSE);
                continue;
            }
        };
        let (daemon, work) = (daemon.clone(), work.clone());
        let answer = move || answer(&daemon, stream, &work);
        let spawned = std::thread::Builder::new().name("request".into()).spawn(answer);
        if let Err(error) = spawned {
            log::error!("a request could not be served: {error}");
        }
    }
}

fn answer(daemon: &Daemon, mut stream: UnixStream, work: &Arc<Work>) {
    let mut counted = None;
    let reply = match carry_out(daemon, &mut stream, work, &mut counted) {
        Ok(Some(reply)) => reply,
        Ok(None) => return,
        Err(error) => Reply::Failed(ErrorInfo::new(error.cause(), &error.to_string())),
    };
    if let Err(error) = send(&mut stream, &reply) {
        log::debug!("nobody waits for the answer: {error}");
    }
}

/// The reply to a request; none where the end of the connection says that nothing was done.
/// It counts until the reply is sent.
fn carry_out(
    daemon: &Daemon,
    stream: &mut UnixStream,
    work: &Arc<Work>,
    counted: &mut Option<Counted>,
) -> Result<Option<Reply>> {
    let (uid, may_reach_outside) = check_peer(daemon.owner(), stream)?;
    // Root and whoever runs this could end it as well.
    let _connection = if may_reach_outside { None } else { Some(work.owners_connection()?) };
    stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    let request = read_request(stream)?;
    if request.verb.reaches_outside() && !may_reach_outside {
        return Err(Error::Refused(
            Errno::PERM,
            "the daemon runs as another user and reads and writes no files for this one; run the command as that user or root".into(),
        ));
    }
    let ends = || work.ends.load(Ordering::Acquire);
    // Before the look: whoever waits for the end waits for this one, or this one sees that it is near.
    *counted = Some(Counted::new(work));
    if ends() {
        return Ok(None);
    }
    send(stream, &Reply::Begun)?;
    let may_be_repeated = request.verb.changes_nothing();
    let mut last = Instant::now();
    let mut out = stream.try_clone()?;
    let result = serve(daemon, request, uid, &mut |progress: &Progress| {
        if ends() {
            let text = "the daemon ends, since it was unmounted or told to; what was done so far stays, run the command again for the rest";
            return Err(Error::Refused(Errno::INTR, text.into()));
        }
        if last.elapsed() < PROGRESS_INTERVAL {
            return Ok(());
        }
        last = Instant::now();
        // A client that was interrupted does not want the rest.
        send(&mut out, &Reply::Progress(progress.into()))
            .map_err(|_| Error::Refused(Errno::INTR, "the command was interrupted".into()))
    });
    match result {
        Err(_) if may_be_repeated && ends() => Ok(Some(Reply::Closing)),
        result => Ok(Some(Reply::Done(Box::new(result?)))),
    }
}

fn read_request(stream: &mut UnixStream) -> Result<Request> {
    /// What is the same in every version.
    #[derive(Deserialize)]
    struct Greeting {
        protocol: u32,
    }
    let mut with = WithFile { socket: stream, file: None };
    let message = receive(&mut with, REQUEST_BYTES_MAX)?;
    let stream = with.file.map(Arc::new);
    let Greeting { protocol } = decode(&message)?;
    if protocol == PROTOCOL {
        return decode(&message).map(|request| Request { stream, ..request });
    }
    let text =
        format!("the daemon speaks protocol {PROTOCOL} and this command {protocol}; use the same version of pitfs");
    Err(Error::Refused(Errno::PROTO, text))
}

/// Lets in root, the daemon's own user and the store's owner; the latter may not let the daemon touch
/// files outside the store. Returns who this peer is and whether it may.
fn check_peer(owner: u32, stream: &UnixStream) -> Result<(u32, bool)> {
    // The process has no number here if it is in a PID namespace that this one does not see.
    let peer = getsockopt(stream, PeerCredentials).map_err(std::io::Error::from)?.uid();
    if peer == 0 || peer == rustix::process::geteuid().as_raw() {
        return Ok((peer, true));
    }
    if peer == owner {
        return Ok((peer, false));
    }
    Err(Error::Refused(Errno::PERM, "only the store's owner and root may use its control socket".into()))
}
