//! Running programs: timed, stopped when the run is interrupted, with caches as they should be.

use crate::Result;
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Process groups of what runs; `None` once the run is being ended.
static RUNNING: Mutex<Option<BTreeSet<i32>>> = Mutex::new(Some(BTreeSet::new()));

fn running<R>(change: impl FnOnce(&mut Option<BTreeSet<i32>>) -> R) -> R {
    change(&mut RUNNING.lock().unwrap_or_else(PoisonError::into_inner))
}

fn kill_group(group: i32) {
    if let Some(group) = Pid::from_raw(group) {
        // It may have ended by itself.
        let _gone = kill_process_group(group, Signal::KILL);
    }
}

/// Ends everything that was started here, and lets nothing start any more.
pub fn stop_all() {
    for group in running(Option::take).unwrap_or_default() {
        kill_group(group);
    }
}

/// Once the run is being ended, nobody goes on: whoever ends it ends the process.
fn wait_if_ending() {
    while running(|groups| groups.is_none()) {
        std::thread::park();
    }
}

/// A process group of its own, which ends with this.
pub struct Running {
    child: Option<Child>,
    group: i32,
}

impl Running {
    pub fn start(command: &mut Command) -> Result<Running> {
        command.process_group(0).stdin(Stdio::null());
        wait_if_ending();
        running(|groups| {
            let groups = groups.as_mut().ok_or("the run is being ended")?;
            let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
            let group = child.id() as i32;
            groups.insert(group);
            Ok(Running { child: Some(child), group })
        })
    }

    /// A line of shell that runs beside others.
    pub fn shell(line: &str) -> Result<Running> {
        Running::start(Command::new("sh").args(["-c", line]).stdout(Stdio::null()).stderr(Stdio::null()))
    }

    pub fn output(mut self) -> Result<Output> {
        let child = self.child.take().ok_or("it has ended")?;
        let output = child.wait_with_output()?;
        wait_if_ending();
        running(|groups| groups.as_mut().map(|groups| groups.remove(&self.group)));
        Ok(output)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            kill_group(self.group);
            let _gone = child.wait();
            running(|groups| groups.as_mut().map(|groups| groups.remove(&self.group)));
        }
    }
}

/// What a program said that has to succeed.
pub fn ok(command: &mut Command) -> Result<String> {
    let output = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}: {}", output.status, said.trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A line of shell that has to succeed.
pub fn shell(line: &str) -> Result<()> {
    let mut command = Command::new("sh");
    command.args(["-c", line]).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = Running::start(&mut command)?.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{line}: {}", said.lines().last().unwrap_or("it failed")).into())
}

/// Seconds that a line of shell takes; NaN if it fails.
pub fn timed(line: &str) -> f64 {
    let start = Instant::now();
    seconds(shell(line), start)
}

/// Seconds since `start`; NaN if what was measured failed, which is said.
pub fn seconds<T>(result: Result<T>, start: Instant) -> f64 {
    let took = start.elapsed().as_secs_f64();
    match result {
        Ok(_) => took,
        Err(error) => {
            eprintln!("bench: {error}");
            f64::NAN
        }
    }
}

/// Operations a second of fio with 4 KiB each; NaN if it fails.
pub fn fio(arguments: &str) -> f64 {
    let line = format!("fio --output-format=terse --ioengine=psync --bs=4k {arguments}");
    let Ok(text) = ok(Command::new("sh").args(["-c", &line])).inspect_err(|error| eprintln!("bench: {error}")) else {
        return f64::NAN;
    };
    let fields: Vec<&str> = text.trim().lines().last().unwrap_or_default().split(';').collect();
    // Operations a second of reading and of writing.
    let value = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    value(7).zip(value(48)).map_or(f64::NAN, |(read, written)| read.max(written))
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Empties the kernel's caches; false without the right to.
pub fn drop_caches() -> bool {
    rustix::fs::sync();
    is_root() && std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

/// Runs `measure` with empty caches; NaN where they cannot be emptied.
pub fn cold(measure: impl FnOnce() -> f64) -> f64 {
    if drop_caches() { measure() } else { f64::NAN }
}

pub fn has(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).chain([Path::new("/usr/sbin").into()]).any(|path| path.join(program).exists())
}
