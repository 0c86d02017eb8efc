//! Asking the store, with or without showing how far it has come.

use super::output::Display;
use crate::control::{Answer, Target, Verb, ask};
use crate::error::Result;

pub(super) fn quietly(target: &Target, verb: Verb) -> Result<Answer> {
    ask(target, verb, &mut |_| Ok(()))
}

pub(super) fn with_display(target: &Target, verb: Verb, what: &'static str) -> Result<Answer> {
    let mut display = Display::new(what);
    let answer = ask(target, verb, &mut |progress| display.update(progress));
    display.finish();
    answer
}
