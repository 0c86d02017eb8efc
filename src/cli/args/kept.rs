//! What is kept and for how long, and what there was: holds, saves, policies, history and versions.

use crate::control::Keep;
use clap::{Args as ClapArgs, ValueEnum, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Debug, ClapArgs)]
pub struct Undo {
    /// Change nothing; say what would be restored and removed
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Save {
    /// The snapshot's name; without one, the time in UTC
    #[arg(value_name = "NAME")]
    pub name: Option<OsString>,
    /// Save all bases of this group, at one moment
    #[arg(long, value_name = "GROUP")]
    pub group: Option<OsString>,
    /// Print the snapshot as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Hold {
    /// The snapshots
    #[arg(value_name = "SNAPSHOT", required = true)]
    pub names: Vec<OsString>,
    /// Why: several can hold one snapshot, and each releases its own
    #[arg(short, long, value_name = "TAG")]
    pub tag: Option<OsString>,
}

#[derive(Debug, ClapArgs)]
pub struct Policy {
    /// What happens when room ends: writes are refused, or the oldest snapshots that are not held are dropped
    #[arg(long, value_enum, value_name = "WHAT")]
    pub when_full: Option<WhenFull>,
    /// How many of the snapshots that restores take of what was there before each base keeps: the newest N, or all
    #[arg(long, value_name = "N", value_parser = parse_kept)]
    pub before_restore: Option<Keep>,
    /// Print the policy as JSON
    #[arg(long)]
    pub json: bool,
}

fn parse_kept(text: &str) -> Result<Keep, String> {
    match text {
        "all" => Ok(Keep::All),
        _ => match text.parse() {
            Ok(most) if most > 0 => Ok(Keep::Newest(most)),
            _ => Err("give a number from 1 on, or all".into()),
        },
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WhenFull {
    Refuse,
    DropOldest,
}

#[derive(Debug, ClapArgs)]
pub struct History {
    /// Print the history as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Versions {
    /// A path in live, or below the mount
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub path: PathBuf,
    /// Print the versions as JSON
    #[arg(long)]
    pub json: bool,
}
