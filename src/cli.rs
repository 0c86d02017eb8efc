//! The command line: parse without doing anything, then resolve and run. Exit status: 0 done, 1 failed,
//! 2 wrong usage.

mod args;
mod commands;
mod mounting;
mod output;

pub use args::command;

use args::Args;
use clap::Parser;
use std::process::ExitCode;

const FAILED: u8 = 1;

pub fn main() -> ExitCode {
    // A reader that has seen enough, like `head`, ends us quietly.
    let args = Args::parse();
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("PITFS_LOG", "warn,fuser=error"))
        .format_target(false)
        .init();
    match commands::run(args) {
        Ok(is_all_well) => ExitCode::from(if is_all_well { 0 } else { FAILED }),
        Err(error) => {
            eprintln!("pitfs: {error}");
            ExitCode::from(FAILED)
        }
    }
}
