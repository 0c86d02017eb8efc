//! Targets, and backups to them.

use super::Hooks;
use clap::{Args as ClapArgs, Subcommand, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Debug, ClapArgs)]
pub struct Target {
    #[command(subcommand)]
    pub verb: TargetVerb,
}

#[derive(Debug, Subcommand)]
pub enum TargetVerb {
    /// Keep snapshots of this store in a directory, best on another disk
    Add {
        /// What the target is called from now on
        #[arg(value_name = "NAME")]
        name: String,
        /// An empty directory, or one that is a target already
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: PathBuf,
        /// Encrypt what goes there with the key in this file, which is made if it is not there: without it nothing can be read
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        #[arg(required_unless_present_any = ["no_encryption", "passphrase"])]
        #[arg(conflicts_with_all = ["no_encryption", "passphrase"])]
        key_file: Option<PathBuf>,
        /// Encrypt what goes there with a passphrase, which is asked for, or taken from PITFS_PASSPHRASE
        #[arg(long, conflicts_with = "no_encryption")]
        passphrase: bool,
        /// Do not encrypt: whoever can read the directory can read every snapshot
        #[arg(long)]
        no_encryption: bool,
    },
    /// List what opens the encrypted sets of a target
    Keys {
        /// The target; without it, the only one
        #[arg(value_name = "TARGET")]
        target: Option<String>,
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Let a key file or a passphrase more open them; nothing is written anew
    AddKey {
        /// The target; without it, the only one
        #[arg(value_name = "TARGET")]
        target: Option<String>,
        /// The key in this file, which is made if it is not there
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        #[arg(required_unless_present = "passphrase", conflicts_with = "passphrase")]
        key_file: Option<PathBuf>,
        /// A passphrase, which is asked for, or taken from PITFS_NEW_PASSPHRASE
        #[arg(long)]
        passphrase: bool,
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Let something open them no longer; one has to stay
    RemoveKey {
        /// Its number in the list
        #[arg(value_name = "SLOT")]
        slot: usize,
        /// The target; without it, the only one
        #[arg(value_name = "TARGET")]
        target: Option<String>,
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
    /// List the targets
    List {
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Forget a target; what is kept there stays
    Forget {
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Let old moments go, but those that are to be kept, of each base
    #[command(group(clap::ArgGroup::new("rule").required(true).multiple(true).args([
        "keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly", "keep_within",
    ])))]
    Prune {
        /// The target; without it, the only one
        #[arg(value_name = "TARGET")]
        target: Option<String>,
        /// Keep the newest N
        #[arg(long, value_name = "N", default_value_t)]
        keep_last: u64,
        /// Keep the newest of each of the N newest hours that have any, in UTC
        #[arg(long, value_name = "N", default_value_t)]
        keep_hourly: u64,
        /// The same of days
        #[arg(long, value_name = "N", default_value_t)]
        keep_daily: u64,
        /// The same of weeks, which begin on Mondays
        #[arg(long, value_name = "N", default_value_t)]
        keep_weekly: u64,
        /// The same of months
        #[arg(long, value_name = "N", default_value_t)]
        keep_monthly: u64,
        /// The same of years
        #[arg(long, value_name = "N", default_value_t)]
        keep_yearly: u64,
        /// Keep all that are not older, as 36h, 30d, 12w or 1y
        #[arg(long, value_name = "TIME", value_parser = parse_span)]
        keep_within: Option<u64>,
        /// Change nothing; say what would go, and why the others stay
        #[arg(short = 'n', long)]
        dry_run: bool,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, ClapArgs)]
pub struct Backup {
    /// The snapshot; without one, the newest
    #[arg(value_name = "SNAPSHOT")]
    pub snapshot: Option<OsString>,
    /// The target; without it, the only one
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Write all of it, whatever the target has already
    #[arg(long, conflicts_with = "since_full")]
    pub full: bool,
    /// Write what differs from the last that was written in full
    #[arg(long)]
    pub since_full: bool,
    /// Every snapshot, the oldest first
    #[arg(long, conflicts_with = "snapshot")]
    pub all_snapshots: bool,
    /// The snapshots of all bases of this group: of that name, or the newest that they have of one moment
    #[arg(long, value_name = "GROUP", conflicts_with = "all_snapshots")]
    pub group: Option<OsString>,
    /// How much to compress: 1 is fastest, 19 smallest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=19))]
    pub level: Option<i32>,
    /// Read no more than so much of files in a second, as 20M
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub limit: Option<u64>,
    /// Let the daemon do it by itself, and print the job
    #[arg(long)]
    pub detach: bool,
    /// Write it to the output, in full, for a pipe or another machine
    #[arg(long, value_name = "-", value_parser = parse_output)]
    #[arg(conflicts_with_all = ["full", "since_full", "all_snapshots", "group", "detach", "json"])]
    pub to: Option<String>,
    /// Seal the output with the key in a file, which is made if it is not there
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "to")]
    #[arg(conflicts_with_all = ["target", "passphrase", "no_encryption"])]
    pub key_file: Option<PathBuf>,
    /// Seal the output with a passphrase, which is asked for
    #[arg(long, requires = "to", conflicts_with_all = ["target", "no_encryption"])]
    pub passphrase: bool,
    /// Do not encrypt the output
    #[arg(long, requires = "to", conflicts_with = "target")]
    pub no_encryption: bool,
    #[command(flatten)]
    pub hooks: Hooks,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Set {
    #[command(subcommand)]
    pub verb: SetVerb,
}

#[derive(Debug, Subcommand)]
pub enum SetVerb {
    /// List the sets of this store at a target
    List {
        /// The target, or its directory, which needs no store; without it, the only target
        #[arg(value_name = "TARGET")]
        target: Option<String>,
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Read and verify all of them
    Verify {
        /// The target, or its directory, which needs no store; without it, the only target
        #[arg(value_name = "TARGET")]
        target: Option<String>,
        /// Read so much of the files' data only, another part each time, and all of what leads to it
        #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
        read: Option<u8>,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Let moments go; what others need of them stays
    Delete {
        /// Names of snapshots, or ids of sets
        #[arg(value_name = "SET", required = true)]
        sets: Vec<OsString>,
        /// The target, or its directory, which needs no store; without it, the only target
        #[arg(long, value_name = "NAME")]
        target: Option<String>,
        /// Change nothing; say what would go
        #[arg(short = 'n', long)]
        dry_run: bool,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Make one of several: the newest of them, which counts as a full one then. Nothing is copied
    Merge {
        /// Names of snapshots, or ids of sets, all of one base
        #[arg(value_name = "SET", required = true)]
        sets: Vec<OsString>,
        /// Those after this time are left alone
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        /// The target, or its directory, which needs no store; without it, the only target
        #[arg(long, value_name = "NAME")]
        target: Option<String>,
        /// Change nothing; say what would go
        #[arg(short = 'n', long)]
        dry_run: bool,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Pack anew what lies in sets of which much is of no use any more
    Compact {
        /// The target, or its directory, which needs no store; without it, the only target
        #[arg(value_name = "TARGET")]
        target: Option<String>,
        /// How much of a set may be of no use
        #[arg(long, value_name = "PERCENT", default_value = "50%", value_parser = parse_percent)]
        waste: u8,
        /// Change nothing; say what would be packed anew
        #[arg(short = 'n', long)]
        dry_run: bool,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Verify all of them, and write moments anew that have lost something, where the store still has them
    Repair {
        /// The target, or its directory, which needs no store; without it, the only target
        #[arg(value_name = "TARGET")]
        target: Option<String>,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Take what `backup --to -` wrote from the input into a directory
    Receive {
        /// A target, or an empty directory, which is made one
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: PathBuf,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Make the list of sets anew, from the sets
    Rebuild {
        /// The target, or its directory, which needs no store; without it, the only target
        #[arg(value_name = "TARGET")]
        target: Option<String>,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}

/// What stands for the output.
fn parse_output(text: &str) -> Result<String, String> {
    let wrong = || "only - is possible, for the output; `pitfs target add` makes a directory a target".to_string();
    (text == "-").then(|| text.to_string()).ok_or_else(wrong)
}

/// Hundredths, with or without their sign.
fn parse_percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse().ok();
    number.filter(|number| *number <= 100).ok_or_else(|| format!("{text:?} is no share; give 0% to 100%"))
}

/// A span of time in seconds.
pub(super) fn parse_span(text: &str) -> Result<u64, String> {
    const UNITS: [(char, u64); 6] =
        [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400), ('w', 7 * 86_400), ('y', 366 * 86_400)];
    let found =
        UNITS.iter().find_map(|(unit, seconds)| text.strip_suffix(*unit)?.parse::<u64>().ok()?.checked_mul(*seconds));
    found.ok_or_else(|| format!("{text:?} is no span of time; give a number and s, m, h, d, w or y, as 36h"))
}

/// Bytes in a second.
fn parse_rate(text: &str) -> Result<u64, String> {
    const UNITS: [(char, u32); 4] = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
    let (number, shift) =
        UNITS.iter().find_map(|(unit, shift)| Some((text.strip_suffix(*unit)?, *shift))).unwrap_or((text, 0));
    let found =
        number.parse::<u64>().ok().filter(|number| *number > 0).and_then(|number| number.checked_mul(1 << shift));
    found.ok_or_else(|| format!("{text:?} is no rate; give bytes a second, or with K, M, G or T, as 20M"))
}

impl SetVerb {
    /// Which target is meant, of those verbs that are told.
    pub fn target(&mut self) -> Option<&mut Option<String>> {
        match self {
            SetVerb::List { target, .. }
            | SetVerb::Verify { target, .. }
            | SetVerb::Delete { target, .. }
            | SetVerb::Merge { target, .. }
            | SetVerb::Compact { target, .. }
            | SetVerb::Repair { target, .. }
            | SetVerb::Rebuild { target, .. } => Some(target),
            SetVerb::Receive { .. } => None,
        }
    }
}
