//! The connection of a mount to the kernel, by the number that the kernel has for it: how it is ended when nobody can serve it.

use super::mounts::{MountInfo, force, mount_at, mounts};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::AsFd;
use std::path::Path;

/// The number of the mount's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection(pub u32);

impl Connection {
    /// That of what was just mounted.
    pub(super) fn at(mount_point: &Path) -> Option<Connection> {
        mount_at(mount_point).filter(|mount| mount.is_pitfs()).map(|mount| Connection(mount.device.minor))
    }

    /// Ends it: whoever waits for an answer gets an error, whatever the request came through. False where this user may not.
    /// When it has ended already, its number may be that of another mount by now: so `device`, which serves it, is asked first.
    pub(super) fn abort(self, device: impl AsFd) -> bool {
        if !is_connected(device) {
            return true;
        }
        let is_it = |mount: &MountInfo| mount.is_pitfs() && mount.device.minor == self.0;
        self.switch_off() || mounts().into_iter().find(is_it).is_some_and(|mount| force(&mount))
    }

    /// By the kernel's switch, which is there where its file system for that is mounted, and belongs to the user who mounted.
    pub(super) fn switch_off(self) -> bool {
        std::fs::write(format!("/sys/fs/fuse/connections/{}/abort", self.0), b"1").is_ok()
    }
}

/// Whether the connection that a descriptor of /dev/fuse serves is there: the kernel tells an error of any other.
fn is_connected(device: impl AsFd) -> bool {
    let mut asked = [PollFd::new(&device, PollFlags::empty())];
    let told = poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    told.is_err() || !asked[0].revents().contains(PollFlags::ERR)
}
