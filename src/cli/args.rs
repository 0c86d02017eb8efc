//! What can be said on the command line.

use crate::limits::{TRACK_BYTES_MAX, TRACK_BYTES_MIN};
use crate::logstore::Codec;
use clap::{Args as ClapArgs, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;

/// Every point in time of a tree of files as an ordinary directory.
#[derive(Debug, Parser)]
#[command(name = "pitfs", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = "STORE is a store's directory or any directory inside its mount. Without -s and \
PITFS_STORE it is the mount you stand in. See pitfs(8) for each command and pitfs(7) for the ideas.")]
pub struct Args {
    /// The store, or a directory inside its mount
    #[arg(short, long, global = true, env = "PITFS_STORE", value_name = "STORE", value_hint = ValueHint::DirPath)]
    pub store: Option<PathBuf>,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a store, empty or from an existing directory
    Create(Create),
    /// Show a store at a mount point
    Mount(Mount),
    /// End a mount with a clean commit
    Umount(Umount),
    /// Take a snapshot
    Snap(Snap),
    /// List the snapshots
    List(List),
    /// Delete snapshots
    Delete(Delete),
    /// Give a snapshot another name
    Rename(Rename),
    /// Copy files out of a snapshot, with their metadata
    Restore(Restore),
    /// Show what differs between two snapshots, or a snapshot and live
    Diff(Diff),
    /// Show what takes how much room
    Status(Status),
    /// Read everything and verify it
    Check(Check),
    /// Make live equal to a directory outside the store
    Sync(Sync),
    /// Print the completions for a shell
    #[command(hide = true)]
    Completions(Completions),
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Compression {
    #[default]
    Lz4,
    Zstd,
    None,
}

impl From<Compression> for Codec {
    fn from(compression: Compression) -> Codec {
        match compression {
            Compression::Lz4 => Codec::Lz4,
            Compression::Zstd => Codec::Zstd,
            Compression::None => Codec::None,
        }
    }
}

#[derive(Debug, ClapArgs)]
pub struct Create {
    /// The directory for the store; it must not exist or be empty
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub directory: PathBuf,
    /// Bring in the content of this directory
    #[arg(long, value_name = "SRC", value_hint = ValueHint::DirPath)]
    pub from: Option<PathBuf>,
    /// Leave out what matches: a name, or with a slash a path from SRC; may be given several times
    #[arg(long, value_name = "PATTERN", requires = "from")]
    pub exclude: Vec<String>,
    /// How to compress file data
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub compress: Compression,
    /// Size of a track, the unit of file data: a power of two from 16K to 1M
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = parse_track_size)]
    pub track_size: usize,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Mount {
    /// The store, unless given with -s; then the mount point
    #[arg(value_name = "STORE", value_hint = ValueHint::DirPath)]
    pub first: PathBuf,
    /// The directory to mount at
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub second: Option<PathBuf>,
    /// Mount options, separated by commas, see mount.pitfs(8)
    #[arg(short = 'o', long = "options", value_name = "OPTIONS")]
    pub options: Vec<String>,
    /// Stay in the foreground
    #[arg(short, long)]
    pub foreground: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Umount {
    /// The mount point, or the store
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub target: Option<PathBuf>,
    /// Unmount even while in use: it disappears now and ends with its last user
    #[arg(short, long)]
    pub lazy: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Snap {
    /// The snapshot's name; without one, the time in UTC
    #[arg(value_name = "NAME")]
    pub name: Option<OsString>,
    /// Print the snapshot as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct List {
    /// Print the list as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Delete {
    /// The snapshots to delete
    #[arg(value_name = "SNAPSHOT", required = true)]
    pub names: Vec<OsString>,
}

#[derive(Debug, ClapArgs)]
pub struct Rename {
    /// The snapshot
    #[arg(value_name = "SNAPSHOT")]
    pub old: OsString,
    /// Its new name
    #[arg(value_name = "NAME")]
    pub new: OsString,
}

#[derive(Debug, ClapArgs)]
pub struct Restore {
    /// The snapshot to copy from; `live` is possible too
    #[arg(value_name = "SNAPSHOT")]
    pub snapshot: OsString,
    /// Paths in the snapshot; without any, everything
    #[arg(value_name = "PATH")]
    pub paths: Vec<OsString>,
    /// The directory to copy to, made if it is missing; files keep their paths below it
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub to: PathBuf,
    /// Replace files that exist there
    #[arg(long)]
    pub overwrite: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Diff {
    /// The earlier state: a snapshot
    #[arg(value_name = "A")]
    pub before: OsString,
    /// The later state: a snapshot or live
    #[arg(value_name = "B", default_value = "live")]
    pub after: OsString,
    /// Print the differences as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Status {
    /// Print the status as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Check {
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Sync {
    /// The directory to bring in
    #[arg(value_name = "SRC", value_hint = ValueHint::DirPath)]
    pub source: PathBuf,
    /// The directory in live to make equal to it; without one, all of live
    #[arg(value_name = "DEST")]
    pub destination: Option<OsString>,
    /// Leave alone what matches: a name, or with a slash a path from SRC; may be given several times
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Only say what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Completions {
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// The whole command, for help, completions and tests.
pub fn command() -> clap::Command {
    Args::command()
}

fn parse_track_size(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.trim_end_matches(['B', 'b']).trim_end_matches(['i']) {
        text if text.ends_with(['K', 'k']) => (&text[..text.len() - 1], 1 << 10),
        text if text.ends_with(['M', 'm']) => (&text[..text.len() - 1], 1 << 20),
        text => (text, 1),
    };
    let bytes = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    bytes
        .filter(|bytes| bytes.is_power_of_two() && (TRACK_BYTES_MIN..=TRACK_BYTES_MAX).contains(bytes))
        .ok_or_else(|| "give a power of two from 16K to 1M".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::TRACK_BYTES_DEFAULT;

    #[test]
    fn the_command_holds_together() {
        command().debug_assert();
    }

    #[test]
    fn track_sizes_have_units_and_limits() {
        assert_eq!(parse_track_size("64K"), Ok(TRACK_BYTES_DEFAULT));
        assert_eq!(parse_track_size("1MiB"), Ok(1 << 20));
        assert_eq!(parse_track_size("16384"), Ok(16 << 10));
        for wrong in ["8K", "2M", "48K", "", "K", "x", "99999999999999999999K"] {
            assert!(parse_track_size(wrong).is_err(), "{wrong}");
        }
    }
}
