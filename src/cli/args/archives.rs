//! Archives, and rolling out to them.

use super::Hooks;
use clap::{Args as ClapArgs, Subcommand, ValueEnum, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Debug, ClapArgs)]
pub struct Roll {
    /// Roll all bases of this group, at one moment; below --archive each has a directory of its name
    #[arg(long, value_name = "GROUP")]
    pub group: Option<OsString>,
    /// The archive's directory, attached if it is not yet; without it, the one that is attached
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub archive: Option<PathBuf>,
    /// Free all snapshots but the newest N, as far as the archive has them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub keep: Option<u64>,
    /// The new snapshot's name; without one, the time in UTC
    #[arg(long, value_name = "NAME")]
    pub name: Option<OsString>,
    /// Change nothing; say what would be done, or why it would be refused
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub hooks: Hooks,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Archive {
    #[command(subcommand)]
    pub verb: ArchiveVerb,
}

#[derive(Debug, Subcommand)]
pub enum ArchiveVerb {
    /// Show the times of an archive in the mount, and continue it with `roll`
    Attach {
        /// The archive
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
    /// Show them no longer
    Detach {
        /// The archive, to be sure
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: Option<PathBuf>,
    },
    /// List the increments of an archive
    List {
        /// The archive; without it, the one that is attached
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: Option<PathBuf>,
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Take in increments of this base that were saved to another directory
    Join {
        /// The directory that has them
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
    /// Let the oldest times of the attached archive go
    #[command(group(clap::ArgGroup::new("which").required(true).multiple(true).args(["keep", "before"])))]
    Prune {
        /// How many of the newest times stay
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
        keep: Option<u64>,
        /// Only times before this one go
        #[arg(long, value_name = "TIME")]
        before: Option<String>,
        /// Say which would go, and change nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Merge increments of the attached archive: of each period the first time stays
    Merge {
        /// The period
        #[arg(long, value_enum, value_name = "PERIOD")]
        per: Per,
        /// Only times before this one are merged
        #[arg(long, value_name = "TIME")]
        before: Option<String>,
        /// Say which would go, and change nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Read and verify all increments, and compare the index with them
    Verify {
        /// The archive; without it, the one that is attached
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: Option<PathBuf>,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Per {
    Hour,
    Day,
    Week,
    Month,
    Year,
}

impl From<Per> for crate::clock::Period {
    fn from(per: Per) -> crate::clock::Period {
        match per {
            Per::Hour => crate::clock::Period::Hour,
            Per::Day => crate::clock::Period::Day,
            Per::Week => crate::clock::Period::Week,
            Per::Month => crate::clock::Period::Month,
            Per::Year => crate::clock::Period::Year,
        }
    }
}
