//! What can be said about points in time beyond snapshots: bases, sessions, clones, mirrors, archives.

use crate::control::{ByteRange, Keep};
use clap::{Args as ClapArgs, Subcommand, ValueEnum, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Debug, ClapArgs)]
pub struct Base {
    #[command(subcommand)]
    pub verb: BaseVerb,
}

#[derive(Debug, Subcommand)]
pub enum BaseVerb {
    /// Make a base, empty or as a snapshot was
    Create {
        /// The base's name
        #[arg(value_name = "NAME")]
        name: OsString,
        /// Begin as this snapshot; its tracks are shared and the snapshot is soon not needed
        #[arg(long, value_name = "SNAPSHOT")]
        from: Option<OsString>,
        /// Give it a second copy of the tracks, in the background
        #[arg(long, requires = "from")]
        copy: bool,
        /// Do not show it in the mount until `session online`
        #[arg(long)]
        offline: bool,
        /// Set room aside, so that all of it can be written anew
        #[arg(long, requires = "from")]
        reserve: bool,
        /// Wait until it is independent, and copied with --copy
        #[arg(long, requires = "from")]
        wait: bool,
        /// Change nothing; say what would be done, or why it would be refused
        #[arg(short = 'n', long, requires = "from")]
        dry_run: bool,
        /// Print all bases as JSON
        #[arg(long)]
        json: bool,
    },
    /// List bases, clones and mirrors
    List {
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Wait until what is copied in the background for a base, clone or mirror is done
    Wait {
        /// The base
        #[arg(value_name = "NAME")]
        name: OsString,
    },
    /// Delete a base, clone or mirror with its snapshots
    Delete {
        /// The base
        #[arg(value_name = "NAME")]
        name: OsString,
        /// Delete all that depends on it as well
        #[arg(long)]
        recursive: bool,
        /// Delete nothing; say what would go and what that would free, or why it would be refused
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Give a base, clone or mirror another name
    Rename {
        /// The base
        #[arg(value_name = "NAME")]
        old: OsString,
        /// Its new name
        #[arg(value_name = "NEW")]
        new: OsString,
    },
}

#[derive(Debug, ClapArgs)]
pub struct Session {
    #[command(subcommand)]
    pub verb: SessionVerb,
}

#[derive(Debug, Subcommand)]
pub enum SessionVerb {
    /// Reserve a name for a snapshot of one or several bases
    Register {
        /// The snapshot's name
        #[arg(value_name = "NAME")]
        name: OsString,
        /// A base to take it of, with the name for its snapshot if that is another one; may be given several times
        #[arg(long, value_name = "BASE[:NAME]")]
        base: Vec<OsString>,
        /// Take it of the bases of this group
        #[arg(long, value_name = "GROUP")]
        group: Option<OsString>,
        /// Do not show it in the mount until `online`
        #[arg(long)]
        offline: bool,
        /// Set room aside, so that all it holds can be written anew
        #[arg(long)]
        reserve: bool,
    },
    /// Do ahead what takes time
    Relate {
        /// The session
        #[arg(value_name = "NAME")]
        name: OsString,
    },
    /// Take the snapshot, of all its bases at one moment
    Activate {
        /// The session
        #[arg(value_name = "NAME")]
        name: OsString,
    },
    /// Stop protecting what a snapshot, and those of other bases of its moment, shows; or give up a session
    Deactivate {
        /// The session or snapshot
        #[arg(value_name = "NAME")]
        name: OsString,
    },
    /// Show a snapshot, base, clone or mirror in the mount
    Online {
        /// The snapshot or base
        #[arg(value_name = "NAME")]
        name: OsString,
    },
    /// Do not show a snapshot, base, clone or mirror in the mount
    Offline {
        /// The snapshot or base
        #[arg(value_name = "NAME")]
        name: OsString,
    },
    /// Show the tracks that a deactivated snapshot's increment has saved, as first byte, bytes and path
    Tracks {
        /// The snapshot
        #[arg(value_name = "NAME")]
        name: OsString,
        /// Only this file, or what is below this directory
        #[arg(value_name = "PATH")]
        path: Option<OsString>,
        /// Only those with bytes from FROM up to, without, TO
        #[arg(long, value_name = "FROM-TO", value_parser = super::parse_range)]
        range: Option<ByteRange>,
        /// Print the tracks as JSON
        #[arg(long)]
        json: bool,
    },
    /// Write saved tracks of a file to standard output, one behind the other
    Read {
        /// The snapshot
        #[arg(value_name = "NAME")]
        name: OsString,
        /// The file
        #[arg(value_name = "PATH", required_unless_present = "inode")]
        path: Option<OsString>,
        /// The file by its number, as `session tracks --json` tells it, where its path is not known any more
        #[arg(long, value_name = "NUMBER", conflicts_with = "path")]
        inode: Option<u64>,
        /// Only the bytes from FROM up to, without, TO; all of them must have been saved
        #[arg(long, value_name = "FROM-TO", value_parser = super::parse_range)]
        range: Option<ByteRange>,
    },
    /// List sessions and snapshots with their states
    List {
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, ClapArgs)]
pub struct Group {
    #[command(subcommand)]
    pub verb: GroupVerb,
}

#[derive(Debug, Subcommand)]
pub enum GroupVerb {
    /// Make a consistency group of bases
    Create {
        /// The group's name
        #[arg(value_name = "NAME")]
        name: OsString,
        /// Its bases
        #[arg(value_name = "BASE", required = true)]
        bases: Vec<OsString>,
    },
    /// List the groups
    List {
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete a group; its bases stay
    Delete {
        /// The group
        #[arg(value_name = "NAME")]
        name: OsString,
    },
}

#[derive(Debug, ClapArgs)]
pub struct Clone {
    /// The snapshot; with --refresh, the clone
    #[arg(value_name = "SNAPSHOT")]
    pub first: OsString,
    /// The clone's name; with --refresh, the snapshot
    #[arg(value_name = "NAME")]
    pub second: OsString,
    /// Make it independent of the snapshot, in the background; tracks stay shared
    #[arg(long)]
    pub full: bool,
    /// Like --full, and give it a second copy of the tracks
    #[arg(long)]
    pub copy: bool,
    /// Clone those of all bases of this group, as one; each clone is called NAME-BASE
    #[arg(long, value_name = "GROUP")]
    pub group: Option<OsString>,
    /// Do not show it in the mount until `session online`
    #[arg(long)]
    pub offline: bool,
    /// Set room aside, so that all of it can be written anew
    #[arg(long)]
    pub reserve: bool,
    /// Wait until what --full or --copy does in the background is done
    #[arg(long)]
    pub wait: bool,
    /// Move a clone that was not written to onto another snapshot
    #[arg(long, conflicts_with_all = ["full", "copy", "group", "offline", "reserve", "wait"])]
    pub refresh: bool,
    /// Change nothing; say what would be done, or why it would be refused
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Promote {
    /// The clone
    #[arg(value_name = "CLONE")]
    pub name: OsString,
    /// Wait until it needs no snapshot any more
    #[arg(long)]
    pub wait: bool,
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
pub struct Mirror {
    #[command(subcommand)]
    pub verb: MirrorVerb,
    /// Do not wait for the copy: it goes on in the background
    #[arg(long, global = true)]
    pub no_wait: bool,
    /// Change nothing; say what would be done, or why it would be refused
    #[arg(short = 'n', long, global = true)]
    pub dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub enum MirrorVerb {
    /// Make a second copy of all tracks of a base
    Establish {
        /// The base
        #[arg(value_name = "BASE")]
        base: OsString,
        /// The mirror's name
        #[arg(value_name = "NAME")]
        name: OsString,
        /// Do not show it in the mount until `session online`
        #[arg(long)]
        offline: bool,
    },
    /// Bring a mirror up to what its base is now
    Sync {
        /// The mirror
        #[arg(value_name = "NAME")]
        name: OsString,
    },
    /// Let a mirror be written to, apart from its base, from what that is now on
    Split {
        /// The mirror
        #[arg(value_name = "NAME")]
        name: OsString,
    },
    /// Bring a split mirror back in step; only what differs is copied
    Resync {
        /// The mirror
        #[arg(value_name = "NAME")]
        name: OsString,
        /// The other direction: the base becomes what the mirror is
        #[arg(long)]
        reverse: bool,
    },
    /// Let the base become what its split mirror is, like `resync --reverse`
    Restore {
        /// The mirror
        #[arg(value_name = "NAME")]
        name: OsString,
    },
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
