//! Telling the kernel what changed behind its back. Never called by a thread that serves requests.

use super::number::ROOT;
use crate::device::InodeNo;
use fuser::{INodeNo, Notifier};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Invalidates what the kernel keeps.
#[derive(Clone)]
pub struct Notify {
    notifier: Notifier,
    mount_point: PathBuf,
}

impl Notify {
    pub(super) fn new(notifier: Notifier, mount_point: PathBuf) -> Notify {
        Notify { notifier, mount_point }
    }

    pub(super) fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    pub(super) fn drop_pages(&self, number: INodeNo, offset: u64, len: usize) {
        report(self.notifier.inval_inode(number, offset as i64, len as i64));
    }

    /// A snapshot came, went or was renamed by command.
    pub fn snapshot_changed(&self, name: &str) {
        report(self.notifier.inval_entry(INodeNo(ROOT), OsStr::new(name)));
        report(self.notifier.inval_inode(INodeNo(ROOT), 0, 0));
    }

    /// An entry of a live directory came, went or leads elsewhere.
    pub fn entry_changed(&self, directory: InodeNo, name: &[u8]) {
        report(self.notifier.inval_entry(INodeNo(directory), OsStr::from_bytes(name)));
        report(self.notifier.inval_inode(INodeNo(directory), 0, 0));
    }

    /// Attributes or data of a live inode changed.
    pub fn inode_changed(&self, inode: InodeNo) {
        report(self.notifier.inval_inode(INodeNo(inode), 0, 0));
    }
}

fn report(result: io::Result<()>) {
    if let Err(error) = result
        && error.kind() != io::ErrorKind::NotFound
    {
        log::warn!("the kernel's cache could not be brought up to date: {error}");
    }
}
