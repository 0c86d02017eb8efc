//! The kernel's switch for requests through rings, which is as it was after a run.

use crate::Result;
use std::fs;
use std::sync::OnceLock;

const PARAMETER: &str = "/sys/module/fuse/parameters/enable_uring";

/// How it was.
static BEFORE: OnceLock<String> = OnceLock::new();

/// Has the kernel offer rings, as root may.
pub fn on() -> Result<()> {
    let before = fs::read_to_string(PARAMETER).map_err(|error| format!("{PARAMETER}: {error}"))?;
    BEFORE.get_or_init(|| before);
    fs::write(PARAMETER, "Y").map_err(|error| format!("{PARAMETER}: {error}").into())
}

/// Puts it back.
pub fn back() {
    if let Some(before) = BEFORE.get()
        && let Err(error) = fs::write(PARAMETER, before.trim())
    {
        eprintln!("bench: {PARAMETER}: {error}");
    }
}
