//! What can be said on the command line.

mod archives;
mod bases;
mod health;
mod hooks;
mod jobs;
mod kept;
mod sessions;
mod targets;

pub use archives::{Archive, ArchiveVerb, Roll};
pub use bases::{Base, BaseVerb, Clone, Group, GroupVerb, Mirror, MirrorVerb, Promote};
pub use health::{Doctor, Metrics, Status};
pub use hooks::Hooks;
pub use jobs::{Job, JobVerb, Named};
pub use kept::{History, Hold, Policy, Save, Undo, Versions, WhenFull};
pub use sessions::{Session, SessionVerb};
pub use targets::{Backup, Set, SetVerb, Target, TargetVerb};

use crate::control::ByteRange;
use crate::fuse::Role;
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
    /// The store, or a directory inside its mount; STORE:BASE means one base of several
    #[arg(short, long, global = true, value_name = "STORE", value_hint = ValueHint::DirPath)]
    #[arg(env = "PITFS_STORE", hide_env_values = true)]
    pub store: Option<PathBuf>,
    /// Print what was done, or found, as JSON, and errors too
    #[arg(long, global = true)]
    pub json: bool,
    /// As root, work on the store of another user, who could have root read or change by it what is not his
    #[arg(long, global = true)]
    pub trust_owner: bool,
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
    /// Delete snapshots, clones or mirrors
    Delete(Delete),
    /// Give a snapshot, clone or mirror another name
    Rename(Rename),
    /// Protect snapshots from being deleted
    Hold(Hold),
    /// End a hold
    Release(Hold),
    /// Go back to a snapshot, in place at once, or copy files out of it
    Restore(Restore),
    /// Bring back what was there before the last restore
    Undo(Undo),
    /// Take a snapshot to go back to with `restore --last`
    Save(Save),
    /// Show what was done, when and by whom
    History(History),
    /// Show what differs between two snapshots, or a snapshot and live
    Diff(Diff),
    /// List the distinct versions of a file or directory
    Versions(Versions),
    /// Make, list and delete bases: trees with snapshots of their own
    Base(Base),
    /// Take snapshots step by step, of one or several bases at one moment
    Session(Session),
    /// Make and delete groups of bases, for snapshots of one moment
    Group(Group),
    /// Make a writable tree out of a snapshot, at once
    Clone(Clone),
    /// Make a clone a base in its own right
    Promote(Promote),
    /// Keep a second copy of a base's tracks
    Mirror(Mirror),
    /// Take a snapshot and save the increment of the one before to an archive
    Roll(Roll),
    /// Attach, list and verify archives
    Archive(Archive),
    /// Add, list and forget targets: directories where snapshots are kept outside the store
    Target(Target),
    /// Write a snapshot to a target
    Backup(Backup),
    /// List what is under way, and wait for it, pause, resume or cancel it
    Job(Job),
    /// List and verify what a target has
    Set(Set),
    /// Show or set what happens when room ends
    Policy(Policy),
    /// Show how the store is, and what takes how much room
    Status(Status),
    /// Print what monitoring collects, as Prometheus reads it
    Metrics(Metrics),
    /// Look whether this machine, and a directory, are good for a store, and say what to do
    Doctor(Doctor),
    /// Read everything and verify it
    Check(Check),
    /// Make live equal to a directory outside the store
    Sync(Sync),
    /// Unpack a tar archive from the input into live
    Put(Put),
    /// Pack a snapshot, or paths of it, into a tar archive on the output
    Get(Get),
    /// Bring a store of an older format over, or back until that is confirmed
    Upgrade(Upgrade),
    /// Print the completions for a shell
    #[command(hide = true)]
    Completions(Completions),
    /// What a daemon starts beside itself
    #[command(hide = true)]
    Companion(Companion),
}

impl Verb {
    /// What runs before and after it, and what it is called. A dry run brings nothing to rest.
    pub fn hooks(&self) -> Option<(&'static str, &Hooks)> {
        match self {
            Verb::Snap(args) => Some(("snap", &args.hooks)),
            Verb::Restore(args) if !args.dry_run => Some(("restore", &args.hooks)),
            Verb::Roll(args) if !args.dry_run => Some(("roll", &args.hooks)),
            Verb::Backup(args) => Some(("backup", &args.hooks)),
            _ => None,
        }
    }
}

#[derive(Debug, ClapArgs)]
pub struct Companion {
    #[arg(value_name = "ROLE", value_parser = parse_role)]
    pub role: Role,
    /// The number of the mount's connection
    #[arg(value_name = "CONNECTION")]
    pub connection: Option<u32>,
}

fn parse_role(name: &str) -> Result<Role, String> {
    Role::named(name).ok_or_else(|| format!("{name:?} is no companion of a daemon"))
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
    pub exclude: Vec<OsString>,
    /// Do not enter directories on other file systems than SRC
    #[arg(short = 'x', long, requires = "from")]
    pub one_file_system: bool,
    /// Bring back a store that was backed up to this target: the newest whole moment of each of its bases
    #[arg(long, value_name = "TARGET", value_hint = ValueHint::DirPath, conflicts_with = "from")]
    pub from_set: Option<PathBuf>,
    /// With all moments that the target has, as snapshots
    #[arg(long, requires = "from_set")]
    pub history: bool,
    /// The file with the key of the target's sets
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "from_set")]
    pub key_file: Option<PathBuf>,
    /// How to compress file data
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    pub compress: Compression,
    /// Size of a track, the unit of file data: a power of two from 16K to 1M; 64K, or that of the sets
    #[arg(long, value_name = "SIZE", value_parser = parse_track_size)]
    pub track_size: Option<usize>,
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
    /// Where a target is mounted: the file with the key of its sets
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key_file: Option<PathBuf>,
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
    /// Take it of all bases of this group, at one moment
    #[arg(long, value_name = "GROUP")]
    pub group: Option<OsString>,
    /// Do not show it in the mount until `session online`
    #[arg(long)]
    pub offline: bool,
    /// Protect it from being deleted until `release`
    #[arg(long)]
    pub hold: bool,
    /// Set room aside, so that all it holds can be written anew
    #[arg(long)]
    pub reserve: bool,
    #[command(flatten)]
    pub hooks: Hooks,
    /// Print the snapshot as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct List {
    /// List those of all bases, clones and mirrors
    #[arg(short, long)]
    pub all: bool,
    /// In this order: names and times upwards, sizes downwards
    #[arg(long, value_enum, value_name = "BY")]
    pub sort: Option<Sort>,
    /// What to show of each, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', value_name = "COLUMNS")]
    pub columns: Vec<Column>,
    /// Print the list as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    Name,
    Time,
    Refers,
    Frees,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Column {
    Name,
    Base,
    Id,
    Epoch,
    Time,
    Refers,
    Frees,
    State,
    Purpose,
    Held,
    Needed,
    Notes,
}

impl Column {
    pub fn heading(self) -> &'static str {
        match self {
            Column::Name => "snapshot",
            Column::Base => "base",
            Column::Id => "id",
            Column::Epoch => "epoch",
            Column::Time => "taken",
            Column::Refers => "refers to",
            Column::Frees => "frees",
            Column::State => "state",
            Column::Purpose => "purpose",
            Column::Held => "held for",
            Column::Needed => "needed by",
            Column::Notes => "",
        }
    }
}

#[derive(Debug, ClapArgs)]
pub struct Delete {
    /// The snapshots to delete
    #[arg(value_name = "SNAPSHOT", required = true)]
    pub names: Vec<OsString>,
    /// Delete those of all bases of this group, as one
    #[arg(long, value_name = "GROUP")]
    pub group: Option<OsString>,
    /// Delete the clones, bases and mirrors that depend on them as well
    #[arg(long)]
    pub recursive: bool,
    /// Delete nothing; say what would go, what that would free and which paths hold most of it, or why it would be refused
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Print what went, or would go, as JSON
    #[arg(long)]
    pub json: bool,
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
    /// The snapshot, or @TIME; `live` is possible with --to. With --from and --to the newest, if it is not given
    #[arg(value_name = "SNAPSHOT", required_unless_present_any = ["last", "at", "from"])]
    pub snapshot: Option<OsString>,
    /// Paths in the snapshot; without any, everything
    #[arg(value_name = "PATH")]
    pub paths: Vec<OsString>,
    /// Go back with those of all bases of this group, as one
    #[arg(long, value_name = "GROUP", conflicts_with_all = ["to", "to_base", "to_clone", "to_mirror"])]
    pub group: Option<OsString>,
    /// With --to-base or --to-clone: do not show it in the mount until `session online`
    #[arg(long)]
    pub offline: bool,
    /// With --to-base or --to-clone: set room aside, so that all of it can be written anew
    #[arg(long)]
    pub reserve: bool,
    /// With --to-base or --to-clone: give it a second copy of the tracks
    #[arg(long)]
    pub copy: bool,
    /// With --to-base, --to-clone or --to-mirror: wait until what is copied in the background is done
    #[arg(long)]
    pub wait: bool,
    /// Go back to what was saved last; arguments are paths
    #[arg(long, conflicts_with_all = ["at", "to", "to_base", "to_clone", "to_mirror"])]
    pub last: bool,
    /// Go back to the newest snapshot that is not after this time; arguments are paths
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Copy to this directory instead, made if it is missing; files keep their paths below it
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub to: Option<PathBuf>,
    /// Make a new base of it instead
    #[arg(long, value_name = "NAME", conflicts_with_all = ["to", "to_clone", "to_mirror", "paths"])]
    pub to_base: Option<OsString>,
    /// Make a new clone of it instead
    #[arg(long, value_name = "NAME", conflicts_with_all = ["to", "to_mirror", "paths"])]
    pub to_clone: Option<OsString>,
    /// Let this mirror be what the snapshot is instead
    #[arg(long, value_name = "NAME", conflicts_with_all = ["to", "paths"])]
    pub to_mirror: Option<OsString>,
    /// Replace files that exist there
    #[arg(long, requires = "to")]
    pub overwrite: bool,
    /// Out of what this target has: a directory, which with --to needs no store, the name of a target of this store, or - for
    /// what `backup --to -` wrote, from the input
    #[arg(long, value_name = "TARGET", value_hint = ValueHint::DirPath)]
    #[arg(conflicts_with_all = ["last", "at", "group", "to_clone", "to_mirror", "copy", "offline", "reserve"])]
    pub from: Option<PathBuf>,
    /// The file with the key of the target's sets
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "from")]
    pub key_file: Option<PathBuf>,
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
pub struct Diff {
    /// The earlier state: a snapshot
    #[arg(value_name = "A")]
    pub before: OsString,
    /// The later state: a snapshot or live, which it is without one
    #[arg(value_name = "B")]
    pub after: Option<OsString>,
    /// With --tracks: only this file, or what is below this directory
    #[arg(value_name = "PATH", requires = "tracks")]
    pub path: Option<OsString>,
    /// Show the tracks that differ, as first byte, bytes and path; with A alone, those that changed while it was
    /// the newest
    #[arg(long)]
    pub tracks: bool,
    /// With --tracks, also of A alone: only this file, or what is below this directory
    #[arg(id = "only", long = "path", value_name = "PATH", requires = "tracks", conflicts_with = "path")]
    pub only: Option<OsString>,
    /// With --tracks: only those with bytes from FROM up to, without, TO; K, M and G are possible, as is FROM- for
    /// all from there on
    #[arg(long, value_name = "FROM-TO", requires = "tracks", value_parser = parse_range)]
    pub range: Option<ByteRange>,
    /// Print the differences as JSON
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
pub struct Put {
    /// The directory in live to unpack into; without one, all of live
    #[arg(value_name = "DEST")]
    pub destination: Option<OsString>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Get {
    /// The snapshot, @TIME or live
    #[arg(value_name = "SNAPSHOT")]
    pub snapshot: OsString,
    /// Paths in it; without any, all of it
    #[arg(value_name = "PATH")]
    pub paths: Vec<OsString>,
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
    pub exclude: Vec<OsString>,
    /// Do not enter directories on other file systems than SRC
    #[arg(short = 'x', long)]
    pub one_file_system: bool,
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

/// Bytes of a file: `FROM-TO` without TO, or `FROM-`.
fn parse_range(text: &str) -> Result<ByteRange, String> {
    let wrong = || "give FROM-TO or FROM- in bytes, as in 65536-131072 or 64K-128K".to_string();
    let number = |text: &str| {
        let (digits, shift) = match text.strip_suffix(|c: char| "kKmMgG".contains(c)) {
            Some(digits) if text.ends_with(['k', 'K']) => (digits, 10),
            Some(digits) if text.ends_with(['m', 'M']) => (digits, 20),
            Some(digits) => (digits, 30),
            None => (text, 0),
        };
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u64>().ok().filter(|_| is_plain).and_then(|number| number.checked_mul(1 << shift))
    };
    let (from, to) = text.split_once('-').ok_or_else(wrong)?;
    let from = number(from).ok_or_else(wrong)?;
    let to = if to.is_empty() { u64::MAX } else { number(to).ok_or_else(wrong)? };
    if from < to { Ok((from, to)) } else { Err("the range is empty: TO has to be above FROM".into()) }
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
    fn ranges_have_a_beginning_and_perhaps_an_end() {
        assert_eq!(parse_range("0-1"), Ok((0, 1)));
        assert_eq!(parse_range("64K-1M"), Ok((65536, 1 << 20)));
        assert_eq!(parse_range("5-"), Ok((5, u64::MAX)));
        for wrong in
            ["", "-", "5", "-5", "5-5", "6-5", "a-b", "1-2-3", "+1-2", "99999999999999999999-", "9999999999999G-"]
        {
            assert!(parse_range(wrong).is_err(), "{wrong}");
        }
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

#[derive(Debug, ClapArgs)]
pub struct Upgrade {
    /// Go back to the format from which the store was upgraded
    #[arg(long, conflicts_with_all = ["confirm", "archive"])]
    pub undo: bool,
    /// Keep the new format: it cannot be undone any more
    #[arg(long, conflicts_with = "archive")]
    pub confirm: bool,
    /// Where the attached archive is now, if not where it was
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub archive: Option<PathBuf>,
}
