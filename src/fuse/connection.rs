//! The connection of a mount to the kernel, by the number that the kernel has for it: how it is ended when nobody can serve it.

use super::mounts::mount_at;
use std::path::Path;

/// The number of the mount's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection(pub u32);

impl Connection {
    /// That of what was just mounted.
    pub(super) fn at(mount_point: &Path) -> Option<Connection> {
        mount_at(mount_point).filter(|mount| mount.is_pitfs()).map(|mount| Connection(mount.device.minor))
    }

    /// Ends it: whoever waits for an answer gets an error, whatever the request came through. False where this user may not, or
    /// there is none.
    pub(super) fn abort(self) -> bool {
        // Belongs to the user who mounted.
        std::fs::write(format!("/sys/fs/fuse/connections/{}/abort", self.0), b"1").is_ok()
    }
}
