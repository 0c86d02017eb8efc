//! The command line: parse without doing anything, then resolve and run. Exit status: 0 done, 1 failed,
//! 2 wrong usage, 3 incomplete.

mod args;
mod commands;
mod log_file;
mod messages;
mod mounting;
mod output;

pub use args::command;

use crate::error::{Errno, Error};
use crate::shown::{line, plain};
use args::Args;
use clap::Parser;
use clap::error::{ContextKind, ContextValue};
use commands::Outcome;
use std::process::ExitCode;

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;
const INCOMPLETE: u8 = 3;

pub fn main() -> ExitCode {
    // A reader that has seen enough, like `head`, ends us quietly.
    let args = match Args::try_parse().map_err(shown_wrong) {
        Ok(args) => args,
        Err(wrong) if wrong.use_stderr() && std::env::args_os().any(|arg| arg == "--json") => {
            output::print_error_json(Errno::INVAL, wrong.to_string().trim());
            return ExitCode::from(WRONG_USAGE);
        }
        // The name that this program was called by.
        Err(wrong) if plain(&wrong.to_string()) != wrong.to_string() => {
            output::tell_lines(&wrong.to_string());
            return ExitCode::from(WRONG_USAGE);
        }
        Err(wrong) => wrong.exit(),
    };
    let as_json = args.json;
    messages::begin();
    match commands::run(args) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::WithProblems) => ExitCode::from(FAILED),
        Ok(Outcome::Incomplete) => ExitCode::from(INCOMPLETE),
        Ok(Outcome::Status(status)) => ExitCode::from(status),
        Err(error) => {
            match as_json {
                true => output::print_error_json(error.cause(), &error.to_string()),
                false => output::tell(&error),
            }
            ExitCode::from(if matches!(error, Error::Usage(_)) { WRONG_USAGE } else { FAILED })
        }
    }
}

/// What is wrong with a command line, whose words it repeats.
fn shown_wrong(mut wrong: clap::Error) -> clap::Error {
    let kept = wrong.context().filter_map(|(kind, value)| Some((kind, shown_value(value)?)));
    for (kind, value) in kept.collect::<Vec<(ContextKind, ContextValue)>>() {
        wrong.insert(kind, value);
    }
    wrong
}

/// `None` where it can stay.
fn shown_value(value: &ContextValue) -> Option<ContextValue> {
    match value {
        ContextValue::String(text) => Some(ContextValue::String(line(text).into_owned())),
        ContextValue::Strings(texts) => {
            Some(ContextValue::Strings(texts.iter().map(|text| line(text).into_owned()).collect()))
        }
        // Advice that cannot be typed is none.
        ContextValue::StyledStrs(texts) => {
            let typed = texts.iter().filter(|text| line(&text.to_string()) == text.to_string());
            Some(ContextValue::StyledStrs(typed.cloned().collect()))
        }
        _ => None,
    }
}
