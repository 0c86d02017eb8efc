//! The connection of a mount to the kernel, by the number that the kernel has for it: how it is ended when nobody can serve it.

use super::mounts::{Door, force, mount_at, mounts};
use crate::error::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::Write;
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
    /// Once it has ended, its number may be another's. So what is known by the number is taken hold of first; then `device`,
    /// which serves the connection, says whether it is there, and with it all the while its number.
    pub(super) fn abort(self, device: impl AsFd) -> bool {
        let switch = self.switch();
        let mount = mounts().into_iter().find(|mount| mount.is_pitfs() && mount.device.minor == self.0);
        let _held = mount.as_ref().and_then(|mount| Door::to(mount.device, &mount.at));
        if !is_connected(device) {
            return true;
        }
        switch.is_some_and(press) || mount.is_some_and(|mount| force(&mount))
    }

    /// Ends what has the number now, which the caller holds.
    pub(super) fn switch_off(self) -> bool {
        self.switch().is_some_and(press)
    }

    /// The kernel's switch, which is there where its file system for that is mounted, and belongs to the user who mounted. Open,
    /// it is that of this connection alone.
    fn switch(self) -> Option<File> {
        File::options().write(true).open(format!("/sys/fs/fuse/connections/{}/abort", self.0)).ok()
    }
}

fn press(mut switch: File) -> bool {
    switch.write_all(b"1").is_ok()
}

/// Whether the connection that a descriptor of /dev/fuse serves is there: the kernel tells an error of any other.
fn is_connected(device: impl AsFd) -> bool {
    let mut asked = [PollFd::new(&device, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    while let Err(Errno::INTR) = poll(&mut asked, Some(&at_once)) {}
    !asked[0].revents().contains(PollFlags::ERR)
}
