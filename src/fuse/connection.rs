//! The connection of a mount to the kernel, by the number that the kernel has for it: how it is ended when nobody can serve it.

use super::mounts::{MountInfo, force, mount_at, mounts};
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
        let is_it = |mount: &MountInfo| mount.is_pitfs() && mount.device.minor == self.0;
        self.switch_off() || mounts().into_iter().find(is_it).is_some_and(|mount| force(&mount))
    }

    /// By the kernel's switch, which is there where its file system for that is mounted, and belongs to the user who mounted.
    pub(super) fn switch_off(self) -> bool {
        std::fs::write(format!("/sys/fs/fuse/connections/{}/abort", self.0), b"1").is_ok()
    }
}
