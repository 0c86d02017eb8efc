//! Names of snapshots and bases in records, which are shown as names of directories.
//!
//! What a user gives is checked where it comes in, and more strictly. A record with a name that nobody could have given was
//! prepared by somebody, whatever its checksum says: it is damaged, and what it names is not shown.

use crate::error::{Error, Result};
use crate::meta::is_name;
use crate::shown::shown;

/// The name of a base's tree as it is now.
pub const LIVE_NAME: &str = "live";

/// Names under which something is found that no listing shows.
pub fn is_virtual_name(name: &[u8]) -> bool {
    name.first() == Some(&b'@') || name == b".snap" || name == b".snapshots"
}

/// Checks the name of a snapshot in a record; `what` says whose.
pub(in crate::device) fn check_snapshot_name(name: &str, what: impl FnOnce() -> String) -> Result<()> {
    if name == LIVE_NAME { Err(impossible(name, what())) } else { check_base_name(name, what) }
}

/// The same of a base, of which one is called as its tree is.
pub(in crate::device) fn check_base_name(name: &str, what: impl FnOnce() -> String) -> Result<()> {
    let bytes = name.as_bytes();
    if is_name(bytes) && !is_virtual_name(bytes) { Ok(()) } else { Err(impossible(name, what())) }
}

fn impossible(name: &str, what: String) -> Error {
    Error::corrupt(what, format!("nothing can have its name \"{}\"", shown(name.as_bytes())))
}
