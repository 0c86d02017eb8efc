//! The file that a daemon's messages go to.

use std::fs::File;
use std::io::Result;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

pub const LOG: &str = "log";
const OLD_LOG: &str = "log.old";
/// A log that is longer is moved away, to where the one before it was.
pub const LOG_BYTES_MAX: u64 = 1 << 20;

/// Opens the log of a store, after one that has become long was moved away.
pub fn open_log(store: &Path) -> Result<File> {
    let path = store.join(LOG);
    if path.metadata().is_ok_and(|found| found.is_file() && found.len() > LOG_BYTES_MAX) {
        std::fs::rename(&path, store.join(OLD_LOG))?;
    }
    File::options().create(true).append(true).mode(0o600).open(&path)
}
