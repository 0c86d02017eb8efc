//! Small processes beside the daemon, for what may wait for the mount.
//!
//! A thread that waits in the kernel for its own mount cannot be killed there, and a process does not let go of
//! anything before its last thread has ended: a daemon that is killed while one of its threads waits for what the others
//! can no longer answer would stay for ever, with the store's lock and with all who wait for its mount. So no
//! thread of the daemon does what can wait for the mount. A companion does, and the daemon waits for that on a socket,
//! where it can be killed.
//!
//! | companion | does | has |
//! |---|---|---|
//! | notifier | hands the kernel notifications, which wait for locks of pages and directories | the connection, joined anew |
//! | visitor | opens and syncs files of the mount, looks at them, sets what they are already (`beside.rs`), and unmounts it | nothing |
//!
//! - They are started when the mount is up, beside what it has to do first, and again if they were killed. Each ends with the daemon: the
//!   socket is closed then.
//! - The visitor does not have the connection: it is aborted when the daemon is gone, which frees the visitor.
//! - The notifier has one of its own, through which nothing is read while the daemon lives. What the daemon had read and
//!   not answered ends when it is gone; what nobody has read the notifier refuses, until its own notification is
//!   through. Then it ends, and the connection with it.
//!
//! - Programs can hold what a companion waits for, and wait for something else themselves: for a file system of their own, say. After
//!   [`PATIENCE`] another companion goes on in its place, and whoever asked is told that this one message is late.
//!
//! Messages: the length (32 bits, in the machine's order) and that many bytes. Answers: [`ANSWER`] bytes for each message.

mod notifier;
mod visitor;

pub(super) use visitor::Visit;

use super::beside::Beside;
use super::connection::Connection;
use crate::error::{Errno, Error, Result};
use parking_lot::{Condvar, Mutex};
use rustix::fd::BorrowedFd;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// The hidden command that makes a process a companion; what it is follows.
pub const COMMAND: &str = "companion";

/// An error number, or 0, in 32 bits, then 64 bits that depend on the message.
const ANSWER: usize = 12;
/// Messages that are under way at a time: their answers fit into the socket's buffer.
const WINDOW: usize = 256;
const MESSAGE_BYTES_MAX: usize = 1 << 16;
/// How long a companion is waited for that answers nothing, and how long while others are stuck.
const PATIENCE: Duration = Duration::from_secs(20);
const PATIENCE_WITH_STUCK: Duration = Duration::from_secs(1);
/// With so many stuck no other is started.
const STUCK_MAX: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Notifier,
    Visitor,
}

impl Role {
    const ALL: [Role; 2] = [Role::Notifier, Role::Visitor];

    pub fn name(self) -> &'static str {
        match self {
            Role::Notifier => "notifier",
            Role::Visitor => "visitor",
        }
    }

    pub fn named(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// The error number, and a number that depends on what was asked.
pub(super) type Outcome = (Result<(), Errno>, u64);

struct Running {
    child: Child,
    socket: UnixStream,
    /// Bytes of answers that nobody waits for any more.
    awaited: usize,
}

/// Why a companion did not answer all.
enum End {
    Gone(io::Error),
    /// It waits in the kernel, for what somebody holds who waits for something else.
    Stuck,
}

#[derive(Default)]
struct Processes {
    running: Option<Running>,
    /// They go on by themselves when they can, and end then.
    stuck: Vec<Running>,
}

/// The daemon's end.
pub(super) struct Companion {
    role: Role,
    /// Ended by it when the daemon is gone.
    connection: Option<Connection>,
    device: Arc<File>,
    beside: Arc<Beside>,
    processes: Mutex<Processes>,
}

impl Companion {
    pub(super) fn new(role: Role, connection: Option<Connection>, device: Arc<File>, beside: Arc<Beside>) -> Companion {
        Companion { role, connection, device, beside, processes: Mutex::default() }
    }

    /// Has messages dealt with in their order. An error if there is no companion to be had; ETIMEDOUT for a message that
    /// somebody holds up, which is dealt with when he lets go.
    pub(super) fn ask(&self, messages: &[Vec<u8>]) -> io::Result<Vec<Outcome>> {
        self.exchange(messages, false, Some(PATIENCE))
    }

    /// The same of one that nobody can hold up for ever, however long it takes.
    pub(super) fn ask_to_the_end(&self, message: Vec<u8>) -> io::Result<Vec<Outcome>> {
        self.exchange(&[message], false, None)
    }

    /// The same of messages that ask from beside: what the kernel sends in its name meanwhile changes nothing.
    pub(super) fn ask_from_beside(&self, messages: &[Vec<u8>]) -> io::Result<Vec<Outcome>> {
        self.exchange(messages, true, Some(PATIENCE))
    }

    fn exchange(&self, messages: &[Vec<u8>], is_beside: bool, patience: Option<Duration>) -> io::Result<Vec<Outcome>> {
        let mut processes = self.processes.lock();
        self.reap(&mut processes);
        let mut outcomes = Vec::with_capacity(messages.len());
        let (mut was_gone, mut was_stuck) = (false, false);
        while outcomes.len() < messages.len() {
            let patience = match processes.stuck.len() {
                STUCK_MAX.. if patience.is_some() => {
                    outcomes.resize(messages.len(), (Err(Errno::TIMEDOUT), 0));
                    break;
                }
                1.. => patience.map(|_| PATIENCE_WITH_STUCK),
                0 => patience,
            };
            let mut running = processes.running.take().map_or_else(|| self.start(), Ok)?;
            let process = running.child.id();
            self.beside.begin(if is_beside { process } else { 0 });
            let ended = running.exchange(&messages[outcomes.len()..], patience, &mut outcomes);
            self.beside.end(process, is_beside && matches!(ended, Err(End::Stuck)));
            match ended {
                Ok(()) => processes.running = Some(running),
                Err(End::Stuck) => {
                    log::warn!(
                        "the {} of this daemon waits for what a program holds; another one is started",
                        self.role.name()
                    );
                    // The next one tries those behind this message; if it is stuck as well, all have been handed over and follow later.
                    let late = if was_stuck { running.awaited.div_ceil(ANSWER) } else { 1 };
                    outcomes.extend(std::iter::repeat_n((Err(Errno::TIMEDOUT), 0), late));
                    was_stuck = true;
                    processes.stuck.push(running);
                }
                // What was done in part is done again: each message can be.
                Err(End::Gone(error)) if !was_gone => {
                    log::warn!("the {} of this daemon is gone ({error}); another one is started", self.role.name());
                    was_gone = true;
                    running.child.wait()?;
                }
                Err(End::Gone(error)) => return Err(error),
            }
        }
        Ok(outcomes)
    }

    /// Lets those go that were stuck and are not any more.
    fn reap(&self, processes: &mut Processes) {
        for mut stuck in std::mem::take(&mut processes.stuck) {
            // Of one about which that cannot be told nothing is believed.
            if stuck.is_waited_for().unwrap_or(true) {
                processes.stuck.push(stuck);
                continue;
            }
            let Running { mut child, socket, .. } = stuck;
            let process = child.id();
            drop(socket);
            // Its number may be another's from here on.
            match child.wait() {
                Ok(_) => self.beside.forget(process),
                Err(error) => log::warn!("a {} that has ended is not known to have: {error}", self.role.name()),
            }
        }
    }

    /// Has it running before it is needed: whoever asks meanwhile waits for the start of this one.
    pub(super) fn prepare(&self) {
        let mut processes = self.processes.lock();
        if processes.running.is_none() {
            match self.start() {
                Ok(started) => processes.running = Some(started),
                // Whoever needs it tries again, and says what follows.
                Err(error) => log::debug!("no {} yet: {error}", self.role.name()),
            }
        }
    }

    /// The process that is a companion now.
    pub(super) fn process(&self) -> Option<u32> {
        self.processes.lock().running.as_ref().map(|running| running.child.id())
    }

    fn start(&self) -> io::Result<Running> {
        let (ours, theirs) = UnixStream::pair()?;
        let device = match self.role {
            Role::Notifier => {
                let joined = File::options().read(true).write(true).open(super::mount::DEVICE)?;
                crate::system::join_connection(&joined, &self.device)?;
                Stdio::from(joined)
            }
            Role::Visitor => Stdio::null(),
        };
        let mut command = Command::new(program());
        command.arg(COMMAND).arg(self.role.name()).current_dir("/");
        command.args(self.connection.map(|connection| connection.0.to_string()));
        command.stdin(OwnedFd::from(theirs)).stdout(device).stderr(Stdio::null());
        Ok(Running { child: command.spawn()?, socket: ours, awaited: 0 })
    }
}

/// This program, also if its file was replaced since.
pub fn program() -> PathBuf {
    match std::env::current_exe() {
        Ok(path) if path.exists() => path,
        _ => PathBuf::from("/proc/self/exe"),
    }
}

impl Running {
    /// Appends the outcomes of messages, as far as they are answered.
    fn exchange(
        &mut self,
        messages: &[Vec<u8>],
        patience: Option<Duration>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), End> {
        self.socket.set_read_timeout(patience).map_err(End::Gone)?;
        for messages in messages.chunks(WINDOW) {
            let mut bytes = Vec::new();
            for message in messages {
                bytes.extend((message.len() as u32).to_ne_bytes());
                bytes.extend(message);
            }
            self.socket.write_all(&bytes).map_err(End::Gone)?;
            let mut answers = vec![0; messages.len() * ANSWER];
            let mut filled = 0;
            let ended = self.fill(&mut answers, &mut filled);
            outcomes.extend(answers[..filled].as_chunks::<ANSWER>().0.iter().map(decode));
            self.awaited = answers.len() - filled;
            ended?;
        }
        Ok(())
    }

    fn fill(&mut self, answers: &mut [u8], filled: &mut usize) -> Result<(), End> {
        while *filled < answers.len() {
            match self.socket.read(&mut answers[*filled..]) {
                Ok(0) => return Err(End::Gone(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => *filled += count,
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return Err(End::Stuck),
                    _ => return Err(End::Gone(error)),
                },
            }
        }
        Ok(())
    }

    /// Whether one that was stuck still is.
    fn is_waited_for(&mut self) -> io::Result<bool> {
        self.socket.set_nonblocking(true)?;
        let mut answers = vec![0; self.awaited];
        let mut filled = 0;
        let ended = self.fill(&mut answers, &mut filled);
        self.awaited -= filled;
        Ok(matches!(ended, Err(End::Stuck)))
    }
}

fn decode(answer: &[u8; ANSWER]) -> Outcome {
    let [a, b, c, d, number @ ..] = *answer;
    let result = match i32::from_ne_bytes([a, b, c, d]) {
        0 => Ok(()),
        errno => Err(Errno::from_raw_os_error(errno)),
    };
    (result, u64::from_ne_bytes(number))
}

fn encode((result, number): Outcome) -> impl Iterator<Item = u8> {
    let errno = result.err().map_or(0, Errno::raw_os_error);
    errno.to_ne_bytes().into_iter().chain(number.to_ne_bytes())
}

/// What a companion does until the daemon is gone.
pub fn run(role: Role, connection: Option<u32>) -> Result<bool> {
    let failed = |error| Error::media("beginning as a companion", error);
    // What ends the daemon, or all of its group, must not end this before the daemon is done with it.
    rustix::process::setsid().map_err(|errno| failed(errno.into()))?;
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::default()).map_err(failed)?;
    }
    let socket = rustix::stdio::stdin();
    let served = match role {
        Role::Notifier => {
            let device = rustix::stdio::stdout();
            notifier::watch(socket, device, connection.map(Connection)).map_err(failed)?;
            serve(socket, |message| notifier::tell(device, message))
        }
        Role::Visitor => serve(socket, visitor::visit),
    };
    served.map(|()| true).map_err(failed)
}

/// Answers that the daemon has not yet. They do not wait for long for those behind them: by what is answered the daemon knows
/// what a companion is stuck in.
#[derive(Default)]
struct Answers {
    pending: Mutex<Vec<u8>>,
    came: Condvar,
}

impl Answers {
    fn add(&self, outcome: Outcome) {
        let mut pending = self.pending.lock();
        if pending.is_empty() {
            self.came.notify_one();
        }
        pending.extend(encode(outcome));
    }

    /// False if the daemon is gone.
    fn send(&self, to: BorrowedFd<'_>) -> bool {
        let mut pending = self.pending.lock();
        write_all(to, &std::mem::take(&mut *pending))
    }

    /// Sends what is left behind while the next message is dealt with.
    fn send_late(&self, to: BorrowedFd<'_>) {
        const PAUSE: Duration = Duration::from_millis(50);
        loop {
            {
                let mut pending = self.pending.lock();
                while pending.is_empty() {
                    self.came.wait(&mut pending);
                }
            }
            std::thread::sleep(PAUSE);
            if !self.send(to) {
                return;
            }
        }
    }
}

fn serve(socket: BorrowedFd<'static>, mut deal_with: impl FnMut(&[u8]) -> Outcome) -> io::Result<()> {
    let answers = Arc::new(Answers::default());
    let late = answers.clone();
    super::thread::begin("answers", move || late.send_late(socket))?;
    let mut received = Vec::new();
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    loop {
        let count = match rustix::io::read(socket, &mut *buffer) {
            Err(Errno::INTR) => continue,
            Ok(0) | Err(_) => return Ok(()),
            Ok(count) => count,
        };
        received.extend_from_slice(&buffer[..count]);
        let mut rest = received.as_slice();
        while let Some((message, after)) = first(rest) {
            answers.add(deal_with(message));
            rest = after;
        }
        let left = rest.len();
        received.drain(..received.len() - left);
        if !answers.send(socket) {
            return Ok(());
        }
    }
}

/// The first whole message, and what follows it.
fn first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_ne_bytes(*len) as usize)
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Err(Errno::INTR) => {}
            Ok(0) | Err(_) => return false,
            Ok(count) => bytes = &bytes[count..],
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_whole_and_answers_come_back_as_they_were() {
        let mut bytes = Vec::new();
        for message in [&b"one"[..], b"", b"three"] {
            bytes.extend((message.len() as u32).to_ne_bytes());
            bytes.extend(message);
        }
        let (one, rest) = first(&bytes).unwrap();
        let (nothing, rest) = first(rest).unwrap();
        assert_eq!((one, nothing), (&b"one"[..], &b""[..]));
        assert!(first(&rest[..rest.len() - 1]).is_none());
        assert_eq!(first(rest).unwrap(), (&b"three"[..], &b""[..]));
        for outcome in [(Ok(()), 0), (Err(Errno::NOENT), u64::MAX), (Ok(()), 1 << 40)] {
            let bytes: Vec<u8> = encode(outcome).collect();
            assert_eq!(decode(bytes.as_slice().try_into().unwrap()), outcome);
        }
    }
}
