//! Targets, and backups to them.

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
        #[arg(required_unless_present = "no_encryption", conflicts_with = "no_encryption")]
        key_file: Option<PathBuf>,
        /// Do not encrypt: whoever can read the directory can read every snapshot
        #[arg(long)]
        no_encryption: bool,
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
        /// The target; without it, the only one
        #[arg(value_name = "TARGET")]
        target: Option<String>,
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Read and verify all of them
    Verify {
        /// The target; without it, the only one
        #[arg(value_name = "TARGET")]
        target: Option<String>,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}
