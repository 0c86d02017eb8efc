//! The end of a mount that the daemon wants: on a signal, or when it could not begin well.

use super::{Mounted, unmount_path};
use crate::error::{Errno, Error, Result};
use crate::fuse::Notify;
use crate::fuse::mounts::Door;
use crate::fuse::number::KernelNo;
use crate::fuse::opened::Unwritten;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long what is being served may take once the mount is gone.
const TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);
/// How often what programs have written is fetched after they were stopped, and the pause between: a write that had asked
/// before may only now be on its way into the kernel's cache.
const FETCHES: usize = 6;
const PAUSE: Duration = Duration::from_millis(40);

/// Takes a mount away again unless the mounting has gone well.
pub(super) struct Begun<'a> {
    pub(super) mount_point: &'a Path,
    pub(super) has_gone_well: bool,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.has_gone_well
            && let Err(error) = unmount_path(self.mount_point, true)
        {
            log::warn!("{error}");
        }
    }
}

impl Unwritten<'_> {
    /// While the mount ends: attributes of a file that is open for writing are for nobody but the visitor.
    pub(in crate::fuse) fn ending_for(&self, process: u32, number: KernelNo) -> Result<()> {
        let visitor = self.fs.ending_visitor.load(Ordering::Acquire);
        let is_written = || self.fs.writable(number).is_ok_and(|inode| self.fs.open_for_writing.has(inode));
        match visitor == 0 || visitor == process || !is_written() {
            true => Ok(()),
            false => Err(Error::Posix(Errno::NOTCONN)),
        }
    }

    /// Whether attributes of files that are open for writing may not be kept, so that each write(2) asks for them.
    pub(in crate::fuse) fn is_stopping_writers(&self) -> bool {
        self.fs.ending_visitor.load(Ordering::Acquire) != 0
    }

    /// With the writeback cache: lets every write(2) from now on fail, and fetches what earlier ones have written. The kernel
    /// asks for attributes that it does not know before each write, and from now on it may not keep those of a file that is
    /// open for writing. An answer that was on its way is undone by the next round.
    fn stop_writers(&self, notify: &Notify) -> Result<()> {
        self.fetch_dirty_pages(notify)?;
        self.fs.ending_visitor.store(notify.visitor().unwrap_or(u32::MAX), Ordering::Release);
        for _ in 0..FETCHES {
            notify.attributes_changed(self.fs.open_for_writing.all());
            std::thread::sleep(PAUSE);
            self.fetch_dirty_pages(notify)?;
        }
        Ok(())
    }
}

impl Mounted {
    /// Unmounts, if need be under its users' feet. What write(2) had taken is in the daemon then, or it fails.
    pub fn end(&self) {
        let unmount = |lazy| {
            // Not by a name that may lead elsewhere now.
            let door = self.device.and_then(|device| Door::to(device, &self.mount_point));
            let at = door.as_ref().map_or_else(|| self.mount_point.clone(), Door::path);
            self.notify.unmount(&at, lazy)
        };
        let result = match unmount(false) {
            Err(error) if error.errno() == Errno::BUSY => {
                if self.fs.writeback
                    && let Err(error) = self.fs.unwritten().stop_writers(&self.notify)
                {
                    log::error!("what programs were writing may not be there: {error}");
                }
                // Those who still use it keep the session until this process ends.
                return unmount(true).unwrap_or_else(|error| log::error!("{error}"));
            }
            result => result,
        };
        if let Err(error) = result
            && !self.has_ended()
        {
            log::error!("{error}");
        }
        let start = Instant::now();
        while !self.has_ended() && start.elapsed() < TIMEOUT {
            std::thread::sleep(POLL);
        }
    }
}

/// Whether a mount at `mount_point` would hide the store: the daemon would wait for itself when it looks for its files.
pub(super) fn hides(mount_point: &Path, store: &Path) -> bool {
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| PathBuf::from(path));
    let (store, mount_point) = (canonical(store), canonical(mount_point));
    store != mount_point && store.starts_with(mount_point)
}
