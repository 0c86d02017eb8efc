//! What can be said about points in time beyond snapshots: bases, sessions, clones, mirrors, archives.

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
    /// Delete a base, clone or mirror with its snapshots
    Delete {
        /// The base
        #[arg(value_name = "NAME")]
        name: OsString,
        /// Delete all that depends on it as well
        #[arg(long)]
        recursive: bool,
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
        /// A base to take it of; may be given several times
        #[arg(long, value_name = "BASE")]
        base: Vec<OsString>,
        /// Take it of the bases of this group
        #[arg(long, value_name = "GROUP")]
        group: Option<OsString>,
        /// Do not show it in the mount until `online`
        #[arg(long)]
        offline: bool,
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
    /// Stop protecting what a snapshot shows; or give up a session that is not active
    Deactivate {
        /// The session or snapshot
        #[arg(value_name = "NAME")]
        name: OsString,
    },
    /// Show a snapshot in the mount
    Online {
        /// The snapshot
        #[arg(value_name = "NAME")]
        name: OsString,
    },
    /// Do not show a snapshot in the mount
    Offline {
        /// The snapshot
        #[arg(value_name = "NAME")]
        name: OsString,
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
    /// Move a clone that was not written to onto another snapshot
    #[arg(long, conflicts_with_all = ["full", "copy"])]
    pub refresh: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Promote {
    /// The clone
    #[arg(value_name = "CLONE")]
    pub name: OsString,
}

#[derive(Debug, ClapArgs)]
pub struct Hold {
    /// The snapshots
    #[arg(value_name = "SNAPSHOT", required = true)]
    pub names: Vec<OsString>,
}

#[derive(Debug, ClapArgs)]
pub struct Mirror {
    #[command(subcommand)]
    pub verb: MirrorVerb,
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
    },
    /// Bring a mirror up to what its base is now
    Sync {
        /// The mirror
        #[arg(value_name = "NAME")]
        name: OsString,
    },
    /// Let a mirror be written to, apart from its base
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
    /// The archive's directory, attached if it is not yet; without it, the one that is attached
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub archive: Option<PathBuf>,
    /// Free all snapshots but the newest N, as far as the archive has them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub keep: Option<u64>,
    /// The new snapshot's name; without one, the time in UTC
    #[arg(long, value_name = "NAME")]
    pub name: Option<OsString>,
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
    /// Read and verify all increments
    Verify {
        /// The archive; without it, the one that is attached
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: Option<PathBuf>,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, ClapArgs)]
pub struct Policy {
    /// What happens when room ends: writes are refused, or the oldest snapshots that are not held are dropped
    #[arg(long, value_enum, value_name = "WHAT")]
    pub when_full: Option<WhenFull>,
    /// Print the policy as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WhenFull {
    Refuse,
    DropOldest,
}
