//! Bases, clones, mirrors and groups.

use clap::{Args as ClapArgs, Subcommand};
use std::ffi::OsString;

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
