//! How a store is: for people, for monitoring, before there is one.

use super::targets::parse_span;
use clap::{Args as ClapArgs, ValueHint};
use std::path::PathBuf;

#[derive(Debug, ClapArgs)]
pub struct Status {
    /// For monitoring: print one line, and end with 0 if all is well, 1 for a warning, 2 if it is bad, 3 if it cannot be told
    #[arg(long, conflicts_with = "json")]
    pub check: bool,
    /// How old the newest snapshot may be, and where there is an archive or a target the last roll or backup, as 26h
    #[arg(long, value_name = "AGE", requires = "check", value_parser = parse_span)]
    pub max_age: Option<u64>,
    /// Print the status as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Doctor {
    /// A store, or a directory that is to become one; without it the store that is meant, if there is one
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub directory: Option<PathBuf>,
    /// Print what was found as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Metrics {
    /// Print what `status --json` prints
    #[arg(long)]
    pub json: bool,
}
