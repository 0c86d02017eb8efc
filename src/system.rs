//! Calls to the kernel that no safe library has. The only place with unsafe code.

#![expect(unsafe_code, reason = "see above; each use says why it is sound")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Closes every descriptor but the first three.
///
/// To be called before this process has opened anything: what is closed belongs to whoever started it.
pub fn close_inherited() {
    const FIRST: i32 = 3;
    // SAFETY: the caller says that no object of this process owns a descriptor yet.
    if unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, 0) } == 0 {
        return;
    }
    // Before Linux 5.9.
    let Ok(listing) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = listing
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd >= FIRST)
        .collect();
    for descriptor in open {
        // SAFETY: as above; the listing's own is closed already, and closing it again does nothing.
        unsafe { libc::close(descriptor) };
    }
}

/// Sets the scheduling policy of this thread.
pub fn set_policy(policy: i32) -> bool {
    const THIS: i32 = 0;
    set_policy_of(THIS, policy)
}

/// Sets the scheduling policy of a thread, by its number.
pub fn set_policy_of(thread: i32, policy: i32) -> bool {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a value that lives until the call returns.
    unsafe { libc::sched_setscheduler(thread, policy, &parameters) == 0 }
}

/// Lets `device`, which has to be `/dev/fuse` newly opened, serve the same connection as `other`.
pub fn join_connection(device: &File, other: &File) -> io::Result<()> {
    /// FUSE_DEV_IOC_CLONE: `_IOR(229, 0, uint32_t)`.
    const CLONE: libc::Ioctl = 0x8004_e500_u32 as libc::Ioctl;
    let other = other.as_raw_fd() as u32;
    // SAFETY: the kernel reads four bytes behind the pointer, which is to a value that lives until the call returns.
    match unsafe { libc::ioctl(device.as_raw_fd(), CLONE, &raw const other) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
