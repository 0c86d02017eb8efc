//! `mount`: the daemon in front or in the background, its start and its end.

mod umount;

pub use umount::umount;

use super::args::Mount;
use super::commands::known_passphrase;
use super::log_file::{LOG, open_log};
use super::messages;
use super::output::{print_json, tell_lines};
use crate::control::{Listening, PathText, Server, spelling};
use crate::daemon::{
    Daemon, KEY_FILE_VARIABLE, Lock, PASSPHRASE_VARIABLE, Use, give_key_file, is_dead, trust_owners, trusts_owners,
    wants_passphrase,
};
use crate::error::{Errno, Error, Result};
use crate::fuse::{Options, free, mount_at, open_mount_point, parse_options};
use crate::media::Directory;
use crate::shown::shown_file;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};

/// Set for a daemon that was started in the background: it says on standard output when it works.
const READY_VARIABLE: &str = "PITFS_SAY_READY";
const READY: &str = "ready";
/// What it says where it cannot begin, with the number of the error behind it; standard error has the words.
const FAILED: &str = "failed ";

/// Files that a daemon may have to have open at a time.
const DESCRIPTORS: u64 = 64;

pub fn mount(store: Option<PathBuf>, args: &Mount, as_json: bool) -> Result<bool> {
    let (store, mount_point) = match (&args.second, store) {
        (Some(mount_point), _) => (args.first.clone(), mount_point.clone()),
        (None, Some(store)) => (store, args.first.clone()),
        (None, None) => {
            return Err(Error::Usage("give the store and the mount point: `pitfs mount STORE DIR`".into()));
        }
    };
    let options = parse_options(&args.options).map_err(Error::as_usage)?;
    args.key_file.iter().for_each(|file| give_key_file(std::path::absolute(file).unwrap_or(file.clone())));
    if options.trust_owner {
        trust_owners();
    }
    let seen = |path: &Path| PathText::from(std::path::absolute(path).unwrap_or(path.to_path_buf()));
    let done = Shown { store: seen(&store), mount_point: seen(&mount_point) };
    let is_done = match args.foreground {
        true => in_front(&store, &mount_point, &options).inspect_err(say_failed),
        false => in_background(&store, &mount_point, args),
    }?;
    say(as_json, &done)?;
    Ok(is_done)
}

/// What is mounted, and where.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten, serialize_with = "spelling::store::serialize")]
    store: PathText,
    #[serde(flatten, serialize_with = "spelling::mount_point::serialize")]
    mount_point: PathText,
}

/// In JSON only: in text, what works says nothing.
fn say(as_json: bool, done: &impl Serialize) -> Result<()> {
    if as_json { print_json(done) } else { Ok(()) }
}

/// STORE or STORE:BASE; a directory of that whole name is the store.
fn split_base(given: &Path) -> (PathBuf, Option<Vec<u8>>) {
    let bytes = given.as_os_str().as_bytes();
    match bytes.iter().rposition(|byte| *byte == b':').filter(|at| *at > 0 && !given.exists()) {
        Some(at) => (PathBuf::from(std::ffi::OsStr::from_bytes(&bytes[..at])), Some(bytes[at + 1..].to_vec())),
        None => (given.to_path_buf(), None),
    }
}

/// What is open from the start on, so that nothing has to be opened once the mount stands.
struct Background {
    /// Where the log is, if there can be one.
    log: Option<(Arc<Directory>, File)>,
    null: File,
}

impl Background {
    /// Where the daemon was started in the background.
    fn prepare(lock: &Lock) -> Result<Option<Background>> {
        if std::env::var_os(READY_VARIABLE).is_none() {
            return Ok(None);
        }
        let store = lock.directory();
        let path = store.path().join(LOG);
        let opening = |error| Error::media(format!("opening the daemon's log {}", shown_file(&path)), error);
        let log = match lock.is_shared() {
            true => None,
            false => Some((store.clone(), open_log(store).map_err(opening)?)),
        };
        let failed = |error| Error::media("opening /dev/null", error);
        let null = File::options().read(true).write(true).open("/dev/null").map_err(failed)?;
        // Out of the caller's session: its end, or a Ctrl-C there, is not ours.
        rustix::process::setsid().map_err(|errno| Error::media("leaving the caller's session", errno.into()))?;
        Ok(Some(Background { log, null }))
    }

    /// Turns to the log, and tells whoever started this daemon that it works, as the last thing it hears.
    fn say_ready(&self) -> Result<()> {
        let failed = |error| Error::media("going to the background", error);
        rustix::stdio::dup2_stdin(&self.null).map_err(|errno| failed(errno.into()))?;
        let errors = self.log.as_ref().map_or(&self.null, |(_, log)| log);
        rustix::stdio::dup2_stderr(errors).map_err(|errno| failed(errno.into()))?;
        if let Some((store, _)) = &self.log {
            messages::go_to_log_of(store);
        }
        let mut out = std::io::stdout();
        out.write_all(format!("{READY}\n").as_bytes()).and_then(|()| out.flush()).map_err(failed)?;
        rustix::stdio::dup2_stdout(&self.null).map_err(|errno| failed(errno.into()))
    }
}

/// Tells whoever started this daemon why it does not work. From the moment on at which it did, nobody hears this.
fn say_failed(error: &Error) {
    if std::env::var_os(READY_VARIABLE).is_some()
        && let Err(gone) = writeln!(std::io::stdout(), "{FAILED}{}", error.cause().raw_os_error())
    {
        log::debug!("nobody hears what failed: {gone}");
    }
}

fn in_front(store: &Path, mount_point: &Path, options: &Options) -> Result<bool> {
    // The lock of a script, a directory of another disk: they are not held for as long as the mount stands.
    crate::system::close_inherited();
    widen_limits()?;
    let (tell, wait) = std::sync::mpsc::channel();
    watch_signals(tell.clone())?;
    let (store, base) = split_base(store);
    let absolute = std::path::absolute(mount_point);
    let mount_point = absolute.map_err(|error| Error::media("looking where we stand", error))?;
    let taken = Daemon::take(&store, &Use::Starting)?;
    let lock = taken.lock();
    let options = &Options { read_only: options.read_only || taken.is_target(), ..options.clone() };
    std::env::set_current_dir("/").map_err(|error| Error::media("leaving the directory", error))?;
    clear_dead(&mount_point, lock.store())?;
    let mount_point = open_mount_point(&mount_point, lock.store(), options)?;
    let background = Background::prepare(lock)?;
    // Where nothing can be written, commands read the store themselves, beside the mount.
    let listening = if lock.is_shared() { None } else { Some(Listening::begin(lock.directory())?) };
    let daemon = Arc::new(taken.open()?);
    let ended = daemon.mount(base.as_deref(), mount_point, options, move || {
        if tell.send(()).is_err() {
            log::debug!("the mount ended after the daemon");
        }
    });
    let result = ended.and_then(|()| serve(&daemon, listening, background.as_ref(), &wait));
    let (server, result) = match result {
        Ok(server) => (server, Ok(())),
        Err(error) => (None, Err(error)),
    };
    let closed = end(&daemon, server);
    result.and(closed).map(|()| true)
}

/// Serves until somebody unmounts or a signal comes.
fn serve(
    daemon: &Arc<Daemon>,
    listening: Option<Listening>,
    background: Option<&Background>,
    wait: &Receiver<()>,
) -> Result<Option<Server>> {
    let server = listening.map(|listening| listening.serve(daemon)).transpose()?;
    if let Some(background) = background
        && let Err(error) = background.say_ready()
    {
        server.into_iter().for_each(Server::stop);
        return Err(error);
    }
    tell_manager(&[NotifyState::Ready]);
    messages::limit();
    loop {
        match wait.recv_timeout(messages::ROUND) {
            Err(RecvTimeoutError::Timeout) => log::logger().flush(),
            Ok(()) => break,
            // The threads that tell are there as long as this one.
            Err(RecvTimeoutError::Disconnected) => {
                log::error!("nobody is left to say when to end");
                break;
            }
        }
    }
    tell_manager(&[NotifyState::Stopping]);
    log::logger().flush();
    Ok(server)
}

/// Tells what has started this as a service, if anything has: systemd with `Type=notify`.
fn tell_manager(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("whoever started this as a service is not told of it: {error}");
    }
}

/// Ends a daemon, whether it was unmounted, told to end or could not begin: no command is let in any more, nothing is
/// mounted, everything that was taken is durable.
fn end(daemon: &Daemon, server: Option<Server>) -> Result<()> {
    daemon.begin_closing();
    if let Some(server) = server {
        server.stop();
    }
    daemon.end_mount();
    daemon.close()
}

fn watch_signals(tell: Sender<()>) -> Result<()> {
    let failed = |error| Error::media("catching signals", error);
    // A file that may not grow further is an error of one write, not the end.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(failed)?;
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(failed)?;
    let watch = move || {
        for _signal in signals.forever() {
            if tell.send(()).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(watch).map(|_| ()).map_err(failed)
}

/// The limits of whoever started this are meant for other programs, as far as they can be changed.
fn widen_limits() -> Result<()> {
    for resource in [Resource::Nofile, Resource::Fsize] {
        let limit = getrlimit(resource);
        if limit.current != limit.maximum
            && let Err(errno) = setrlimit(resource, Rlimit { current: limit.maximum, maximum: limit.maximum })
        {
            log::debug!("a limit stays: {errno}");
        }
    }
    match getrlimit(Resource::Nofile).current {
        Some(most) if most < DESCRIPTORS => Err(Error::Refused(
            Errno::MFILE,
            format!("only {most} files may be open at a time (`ulimit -n`); to mount, pitfs needs {DESCRIPTORS}"),
        )),
        _ => Ok(()),
    }
}

/// What is left at the mount point of a daemon of this store, whose lock we have: it can only be dead.
fn clear_dead(mount_point: &Path, store: &Path) -> Result<()> {
    while let Some(mount) = mount_at(mount_point).filter(|mount| mount.is_pitfs()) {
        let shown = shown_file(mount_point);
        if mount.shows(store) {
            log::warn!("the daemon that had this store mounted at {shown} was killed; that mount is taken away");
            free(&mount)?;
        } else if is_dead(&mount) == Some(true) {
            return Err(crate::fuse::dead_mount(mount_point));
        } else {
            return Ok(());
        }
    }
    Ok(())
}

fn in_background(store: &Path, mount_point: &Path, args: &Mount) -> Result<bool> {
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|error| Error::media(format!("looking at {}", shown_file(path)), error))
    };
    let failed = |error| Error::media("starting the daemon", error);
    let mut command = Command::new(crate::fuse::program());
    command.arg("mount").arg("--foreground");
    for options in &args.options {
        command.arg("-o").arg(options);
    }
    if trusts_owners() {
        command.arg("--trust-owner");
    }
    command.arg("--").arg(absolute(store)?).arg(absolute(mount_point)?);
    command.env(READY_VARIABLE, "1").env_remove("PITFS_STORE").current_dir("/");
    // From there, a path that was relative would lead elsewhere.
    if let Some(file) = args.key_file.clone().or_else(|| std::env::var_os(KEY_FILE_VARIABLE).map(PathBuf::from)) {
        command.env(KEY_FILE_VARIABLE, absolute(&file)?);
    }
    // In the background nobody is asked.
    if wants_passphrase(store)
        && let Some(passphrase) = known_passphrase()
    {
        command.env(PASSPHRASE_VARIABLE, passphrase);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
    }
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said).map_err(failed)?;
    }
    if line.trim() == READY {
        // Warnings of the beginning; the rest is in its log.
        tell_lines(&said);
        return Ok(true);
    }
    child.wait().map_err(failed)?;
    // What it has to say of itself is its last line; those before it are warnings.
    let (before, said) =
        said.trim_end().rsplit_once('\n').map_or((None, said.trim()), |(before, said)| (Some(before), said));
    if let Some(before) = before {
        tell_lines(&format!("{before}\n"));
    }
    let said = said.trim_start_matches("pitfs: ").to_string();
    if said.is_empty() {
        return Err(Error::Store("the daemon ended without a word".into()));
    }
    let number = line.trim_end().strip_prefix(FAILED).and_then(|number| number.parse().ok());
    Err(Error::Refused(number.map_or(Errno::IO, Errno::from_raw_os_error), said))
}
