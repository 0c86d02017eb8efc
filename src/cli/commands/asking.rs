//! Asking the store, with or without showing how far it has come.

use super::output::Display;
use crate::control::{Answer, Target, Verb, ask};
use crate::error::{Errno, Error, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) fn quietly(target: &Target, verb: Verb) -> Result<Answer> {
    ask(target, verb, &mut |_| Ok(()))
}

pub(super) fn with_display(target: &Target, verb: Verb, what: &'static str) -> Result<Answer> {
    displayed(target, verb, what, || Ok(()))
}

/// The same, as long as it is still wanted.
fn displayed(target: &Target, verb: Verb, what: &'static str, is_wanted: impl Fn() -> Result<()>) -> Result<Answer> {
    let mut display = Display::new(what);
    let answer = ask(target, verb, &mut |progress| is_wanted().and_then(|()| display.update(progress)));
    display.finish();
    answer
}

/// A command that ends in order where it is interrupted, as `left` says; at once when that is asked for again.
pub(super) fn until_interrupted(target: &Target, verb: Verb, what: &'static str, left: &str) -> Result<Answer> {
    let is_interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // As a shell tells of one that a signal has ended.
        let again = register_conditional_shutdown(signal, 128 + signal, is_interrupted.clone());
        let first = again.and_then(|_| register(signal, is_interrupted.clone()));
        first.map_err(|error| Error::media("catching signals", error))?;
    }
    displayed(target, verb, what, || match is_interrupted.load(Ordering::SeqCst) {
        true => Err(Error::Refused(Errno::INTR, format!("interrupted; {left}"))),
        false => Ok(()),
    })
}
