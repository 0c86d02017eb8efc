//! The command line: parse without doing anything, then resolve and run. Exit status: 0 done, 1 failed,
//! 2 wrong usage.

mod args;
mod commands;
mod json;
mod log_file;
mod messages;
mod mounting;
mod output;

pub use args::command;

use crate::error::{Errno, Error};
use args::Args;
use clap::Parser;
use std::process::ExitCode;

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;

pub fn main() -> ExitCode {
    // A reader that has seen enough, like `head`, ends us quietly.
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(wrong) if wrong.use_stderr() && std::env::args_os().any(|arg| arg == "--json") => {
            output::print_error_json(Errno::INVAL, wrong.to_string().trim());
            return ExitCode::from(WRONG_USAGE);
        }
        Err(wrong) => wrong.exit(),
    };
    let as_json = args.json;
    messages::begin();
    match commands::run(args) {
        Ok(is_all_well) => ExitCode::from(if is_all_well { 0 } else { FAILED }),
        Err(error) => {
            match as_json {
                true => output::print_error_json(error.cause(), &error.to_string()),
                false => eprintln!("pitfs: {error}"),
            }
            ExitCode::from(if matches!(error, Error::Usage(_)) { WRONG_USAGE } else { FAILED })
        }
    }
}
