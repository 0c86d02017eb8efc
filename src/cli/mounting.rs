//! `mount` and `umount`: the daemon in front or in the background, and its end.

use super::args::{Mount, Umount};
use crate::control::{Answer, Server, Target, Verb, ask, locate_store};
use crate::daemon::Daemon;
use crate::error::{Errno, Error, Result};
use crate::fuse::{Options, check_mount_point, parse_options, unmount_path};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Set for a daemon that was started in the background: it says on standard output when it works.
const READY_VARIABLE: &str = "PITFS_SAY_READY";
const READY: &str = "ready";
const LOG: &str = "log";
const OLD_LOG: &str = "log.old";
const LOG_BYTES_MAX: u64 = 1 << 20;

const POLL: Duration = Duration::from_millis(20);
/// How long the end of a mount waits for requests that are still being served.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// How long `umount` waits for the daemon's last commit.
const UMOUNT_TIMEOUT: Duration = Duration::from_secs(600);

pub fn mount(store: Option<PathBuf>, args: &Mount) -> Result<bool> {
    let (store, mount_point) = match (&args.second, store) {
        (Some(mount_point), _) => (args.first.clone(), mount_point.clone()),
        (None, Some(store)) => (store, args.first.clone()),
        (None, None) => {
            return Err(Error::Refused(
                Errno::INVAL,
                "give the store and the mount point: `pitfs mount STORE DIR`".into(),
            ));
        }
    };
    let options = parse_options(&args.options)?;
    if args.foreground { in_front(&store, &mount_point, &options) } else { in_background(&store, &mount_point, args) }
}

/// STORE or STORE:BASE; a directory of that whole name is the store.
fn split_base(given: &Path) -> (PathBuf, Option<Vec<u8>>) {
    use std::os::unix::ffi::OsStrExt;
    let bytes = given.as_os_str().as_bytes();
    match bytes.iter().rposition(|byte| *byte == b':').filter(|at| *at > 0 && !given.exists()) {
        Some(at) => (PathBuf::from(std::ffi::OsStr::from_bytes(&bytes[..at])), Some(bytes[at + 1..].to_vec())),
        None => (given.to_path_buf(), None),
    }
}

fn in_front(store: &Path, mount_point: &Path, options: &Options) -> Result<bool> {
    let (tell, wait) = std::sync::mpsc::channel();
    let mut signals =
        Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(|error| Error::media("catching signals", error))?;
    let tell_signal = tell.clone();
    std::thread::spawn(move || {
        for _signal in signals.forever() {
            if tell_signal.send(()).is_err() {
                return;
            }
        }
    });
    let (store, base) = split_base(store);
    let daemon = Arc::new(Daemon::open(&store)?);
    check_mount_point(mount_point, options)?;
    daemon.mount(base.as_deref(), mount_point, options, move || {
        if tell.send(()).is_err() {
            log::debug!("the mount ended after the daemon");
        }
    })?;
    let server = Server::start(&daemon).inspect_err(|_| end_mount(&daemon))?;
    say_ready(daemon.path())?;
    wait.recv().map_err(|_| Error::Store("nobody is left to say when to end".into()))?;
    let was_signalled = !daemon.is_unmounted();
    if was_signalled {
        // What is written from here on may still be on its way; what came before is safe now.
        daemon.views().tree().commit()?;
        end_mount(&daemon);
    }
    let closed = daemon.close();
    drop(server);
    closed.map(|()| true)
}

/// Unmounts, if need be under its users' feet, and waits a little for what is being served.
fn end_mount(daemon: &Daemon) {
    let Some(mount_point) = daemon.mount_point() else { return };
    let result = match unmount_path(&mount_point, false) {
        Err(error) if error.errno() == Errno::BUSY => unmount_path(&mount_point, true),
        result => result,
    };
    if let Err(error) = result {
        log::error!("{error}");
    }
    let start = Instant::now();
    while !daemon.is_unmounted() && start.elapsed() < END_TIMEOUT {
        std::thread::sleep(POLL);
    }
}

/// Tells whoever started this daemon in the background that it works, and turns to the log file.
fn say_ready(store: &Path) -> Result<()> {
    if std::env::var_os(READY_VARIABLE).is_none() {
        return Ok(());
    }
    let failed = |error| Error::media("going to the background", error);
    let path = store.join(LOG);
    if path.metadata().is_ok_and(|found| found.len() > LOG_BYTES_MAX) {
        std::fs::rename(&path, store.join(OLD_LOG)).map_err(failed)?;
    }
    let log = File::options().create(true).append(true).mode(0o600).open(&path).map_err(failed)?;
    // Out of the caller's session: its end, or a Ctrl-C there, is not ours.
    rustix::process::setsid().map_err(|errno| failed(errno.into()))?;
    println!("{READY}");
    std::io::stdout().flush().map_err(failed)?;
    rustix::stdio::dup2_stderr(&log).map_err(|errno| failed(errno.into()))?;
    let null = File::options().read(true).write(true).open("/dev/null").map_err(failed)?;
    rustix::stdio::dup2_stdout(&null).map_err(|errno| failed(errno.into()))?;
    rustix::stdio::dup2_stdin(&null).map_err(|errno| failed(errno.into()))
}

fn in_background(store: &Path, mount_point: &Path, args: &Mount) -> Result<bool> {
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|error| Error::media(format!("looking at {}", path.display()), error))
    };
    let failed = |error| Error::media("starting the daemon", error);
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.arg("mount").arg("--foreground");
    for options in &args.options {
        command.arg("-o").arg(options);
    }
    command.arg("--").arg(absolute(store)?).arg(absolute(mount_point)?);
    command.env(READY_VARIABLE, "1").env_remove("PITFS_STORE").current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
    }
    if line.trim() == READY {
        return Ok(true);
    }
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said).map_err(failed)?;
    }
    child.wait().map_err(failed)?;
    let said = said.trim().trim_start_matches("pitfs: ").to_string();
    Err(Error::Store(if said.is_empty() { "the daemon ended without a word".into() } else { said }))
}

pub fn umount(store: Option<PathBuf>, args: &Umount) -> Result<bool> {
    let target = args.target.clone().or(store).map_or_else(std::env::current_dir, Ok);
    let target = target.and_then(std::path::absolute).map_err(|error| Error::media("looking where we stand", error))?;
    let store = match locate_store(&target) {
        // The daemon is gone; what is left of its mount can go.
        Err(error) if error.errno() == Errno::NOTCONN => return unmount_path(&target, args.lazy).map(|()| true),
        target => target?,
    };
    let mount_point = match ask_mount_point(&store) {
        Ok(Some(mount_point)) => mount_point,
        Ok(None) => {
            return Err(Error::Refused(Errno::INVAL, format!("{} is not mounted", target.display())));
        }
        // The daemon may be gone and the mount still there.
        Err(_) => target.clone(),
    };
    // Standing inside would keep it busy.
    std::env::set_current_dir("/").map_err(|error| Error::media("leaving the directory", error))?;
    unmount_path(&mount_point, args.lazy)?;
    wait_for_end(&store.store, args.lazy)
}

fn ask_mount_point(store: &Target) -> Result<Option<PathBuf>> {
    match ask(store, Verb::Mount, &mut |_| Ok(()))? {
        Answer::Mount { mount_point } => Ok(mount_point),
        _ => Err(Error::Refused(Errno::PROTO, "the daemon gave an answer to another question".into())),
    }
}

/// Waits until the daemon has committed and let go of the store.
fn wait_for_end(store: &Path, is_lazy: bool) -> Result<bool> {
    let timeout = if is_lazy { END_TIMEOUT } else { UMOUNT_TIMEOUT };
    let start = Instant::now();
    let lock = store.join("lock");
    while start.elapsed() < timeout {
        let Ok(file) = File::open(&lock) else { return Ok(true) };
        if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok(true);
        }
        std::thread::sleep(POLL);
    }
    if is_lazy {
        return Ok(true);
    }
    Err(Error::Store(format!(
        "the daemon of {} has not ended after {} seconds; its log is in the store",
        store.display(),
        timeout.as_secs()
    )))
}
