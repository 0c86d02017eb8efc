//! What the two transports cost by themselves: a file system in memory, tuned as pitfs is, that does nothing else.
//!
//! It is served by a process of its own, this program again: nobody may serve what it uses itself. That process has a pipe
//! from the one that started it. When it closes, also since that one was killed, it unmounts and ends.

mod content;
mod device;
mod mount;
mod rings;
mod tree;

use crate::Result;
use crate::work::unmount;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// What this program is told as the first argument to mount and serve, before a directory and a transport.
pub const ARGUMENT: &str = "--floor";
const DEVICE: &str = "device";
const RINGS: &str = "rings";

/// What the list of mounts shows as the source.
const SOURCE: &str = "floor";
/// What the process says when it is mounted. Anything else is why it is not.
const MOUNTED: &str = "mounted";
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the process may take to unmount and to free what it has in memory.
const END_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// A file system in memory, mounted as long as this is there.
pub struct Floor {
    dir: PathBuf,
    child: Child,
}

impl Floor {
    /// Mounts at a directory, over rings or over /dev/fuse.
    pub fn begin(dir: &Path, rings: bool) -> Result<Floor> {
        let dir = dir.canonicalize().map_err(|error| format!("{}: {error}", dir.display()))?;
        let transport = if rings { RINGS } else { DEVICE };
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ARGUMENT).arg(&dir).arg(transport);
        // An interruption of the group of whoever started it is not for it: that one ends it.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let mut floor = Floor { dir, child };
        let said = floor.child.stdout.take().map(first_line).transpose()?.unwrap_or_default();
        match said.as_str() {
            MOUNTED => Ok(floor),
            "" => Err("the floor ended before it was mounted".into()),
            why => Err(format!("the floor over {transport}: {why}").into()),
        }
    }

    fn wait(&mut self) -> Result<()> {
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            if start.elapsed() > END_TIMEOUT {
                self.child.kill()?;
                self.child.wait()?;
                return Err("it did not end by itself".into());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let ended = self.wait();
        // It was killed, by us or by somebody else.
        let is_left = mount::is_mounted(&self.dir);
        let unmounted = if is_left { unmount(&self.dir) } else { Ok(()) };
        for error in [ended, unmounted].into_iter().filter_map(Result::err) {
            eprintln!("bench: the floor at {}: {error}", self.dir.display());
        }
    }
}

/// The first line that a process says; empty if it ends without a word.
fn first_line(stdout: ChildStdout) -> Result<String> {
    let limit = Timespec::try_from(BEGIN_TIMEOUT)?;
    if poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&limit))? == 0 {
        return Err(format!("the floor is not mounted after {} s", BEGIN_TIMEOUT.as_secs()).into());
    }
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    Ok(line.trim().to_string())
}

/// Mounts and serves, as [`Floor::begin`] asks for it.
pub fn serve(arguments: &[String]) -> ExitCode {
    let served = match arguments {
        [dir, transport] if transport == DEVICE => mount::serve(Path::new(dir), false),
        [dir, transport] if transport == RINGS => mount::serve(Path::new(dir), true),
        _ => Err(format!("{ARGUMENT} DIRECTORY {DEVICE}|{RINGS}").into()),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}
