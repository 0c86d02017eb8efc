//! Sessions: snapshots that are prepared, and shown or not.

use crate::control::ByteRange;
use clap::{Args as ClapArgs, Subcommand};
use std::ffi::OsString;

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
