//! The file that a daemon's messages go to.

use crate::media::{Access, Directory};
use std::fs::File;
use std::io::Result;

pub const LOG: &str = "log";
const OLD_LOG: &str = "log.old";
/// A log that is longer is moved away, to where the one before it was.
pub const LOG_BYTES_MAX: u64 = 1 << 20;

/// Opens the log of a store, after one that has become long was moved away.
pub fn open_log(store: &Directory) -> Result<File> {
    let (log, is_new) = store.open_or_make(LOG, Access::Append)?;
    if is_new || log.metadata()?.len() <= LOG_BYTES_MAX {
        return Ok(log);
    }
    store.rename(LOG, OLD_LOG)?;
    Ok(store.open_or_make(LOG, Access::Append)?.0)
}
