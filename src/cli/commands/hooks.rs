//! Commands of the user's that run before and after one of ours.
//!
//! ```text
//! before ──well──▶ the work ──▶ after, whatever came of it
//!    └──failed, too slow or interrupted ──▶ after; nothing was done
//! ```

use super::Outcome;
use super::output::tell;
use crate::cli::args::Hooks;
use crate::error::{Errno, Error, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag::register;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often a command is looked after.
const ROUND: Duration = Duration::from_millis(5);

/// Does some work between both, if the first one ends well.
pub(super) fn around(hooks: &Hooks, verb: &str, work: impl FnOnce() -> Result<Outcome>) -> Result<Outcome> {
    if hooks.before.is_none() && hooks.after.is_none() {
        return work();
    }
    // Whoever interrupts us must not keep what the first has begun from being ended by the second.
    let is_interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        register(signal, is_interrupted.clone()).map_err(|error| Error::media("catching signals", error))?;
    }
    let begun = Instant::now();
    let result = run(hooks.before.as_deref(), "before", verb, "", hooks.limit(), Some(&is_interrupted))
        .map_err(|why| Error::Refused(Errno::CANCELED, format!("{why}; nothing was done")))
        .and_then(|()| work());
    let state = match &result {
        Ok(Outcome::Done) => "done",
        Ok(Outcome::Incomplete) => "incomplete",
        Ok(Outcome::WithProblems | Outcome::Status(_)) => "problems",
        Err(_) => "failed",
    };
    let after = run(hooks.after.as_deref(), "after", verb, state, hooks.limit(), None);
    tell(format_args!(
        "held for {:.3} s, from the begin of the command before to the end of the one after",
        begun.elapsed().as_secs_f64()
    ));
    match (after, &result) {
        (Err(why), Ok(_)) => {
            tell(format_args!("{why}; what was asked for is {state} all the same"));
            Ok(Outcome::WithProblems)
        }
        (Err(why), Err(_)) => {
            tell(why);
            result
        }
        (Ok(()), _) => result,
    }
}

/// Runs one, if there is one, with a shell; what went wrong in words.
fn run(
    command: Option<&str>,
    which: &str,
    verb: &str,
    state: &str,
    limit: Duration,
    is_interrupted: Option<&AtomicBool>,
) -> Result<(), String> {
    let Some(command) = command else { return Ok(()) };
    // What it prints must not get into what we print for a script.
    let child = Command::new("/bin/sh")
        .args(["-c", command])
        .env("PITFS_HOOK", which)
        .env("PITFS_VERB", verb)
        .env("PITFS_RESULT", state)
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .process_group(0)
        .spawn();
    let mut child = child.map_err(|error| format!("the command {which} could not be run: {error}"))?;
    let end = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("the command {which} ended with {}", told(status))),
            Ok(None) => {}
            Err(error) => return Err(format!("the command {which} cannot be waited for: {error}")),
        }
        if is_interrupted.is_some_and(|flag| flag.load(Ordering::SeqCst)) {
            end_all(&mut child);
            return Err("interrupted".into());
        }
        if Instant::now() >= end {
            end_all(&mut child);
            return Err(format!("the command {which} took more than {} s, and was ended", limit.as_secs()));
        }
        std::thread::sleep(ROUND);
    }
}

fn told(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no status".into(),
    }
}

/// Ends it with all that it has started.
fn end_all(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let killed = group.map_or(Ok(()), |group| kill_process_group(group, Signal::KILL));
    if killed.is_err() || child.wait().is_err() {
        tell("a command that was to be ended may still be running");
    }
}
