//! Telling the kernel what changed behind its back. Never called by a thread that serves requests.

use super::number::{ROOT, base_number, live_number};
use crate::device::{BaseId, InodeNo};
use fuser::{INodeNo, Notifier};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Invalidates what the kernel keeps.
#[derive(Clone)]
pub struct Notify {
    notifier: Notifier,
    mount_point: PathBuf,
    /// The connection itself, for what the library has no call for.
    device: Arc<File>,
    only: Option<BaseId>,
}

/// FUSE_NOTIFY_INC_EPOCH, since Linux 6.16: every name that the kernel remembers is looked up again.
const INC_EPOCH: i32 = 8;

impl Notify {
    pub(super) fn new(notifier: Notifier, mount_point: PathBuf, device: File, only: Option<BaseId>) -> Notify {
        Notify { notifier, mount_point, device: Arc::new(device), only }
    }

    pub(super) fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    pub(super) fn drop_pages(&self, number: INodeNo, offset: u64, len: usize) {
        report(self.notifier.inval_inode(number, offset as i64, len as i64));
    }

    /// A snapshot or clone of a base, or the base itself, came, went or was renamed by command.
    pub fn shown_changed(&self, base: BaseId, name: &str) {
        for directory in [ROOT, base_number(base)] {
            if directory == ROOT || self.only.is_none() {
                report(self.notifier.inval_entry(INodeNo(directory), OsStr::new(name)));
                report(self.notifier.inval_inode(INodeNo(directory), 0, 0));
            }
        }
    }

    /// Lets the kernel look up every name that it remembers again; false if it cannot do that by itself.
    pub fn look_up_again(&self) -> bool {
        let message: Vec<u8> = [16u32.to_ne_bytes(), INC_EPOCH.to_ne_bytes(), [0; 4], [0; 4]].concat();
        let told = (&*self.device).write_all(&message);
        told.inspect_err(|error| log::debug!("this kernel looks nothing up again by itself: {error}")).is_ok()
    }

    /// An entry of a live directory came, went or leads elsewhere.
    pub fn entry_changed(&self, directory: InodeNo, name: &[u8]) {
        report(self.notifier.inval_entry(INodeNo(live_number(directory)), OsStr::from_bytes(name)));
        report(self.notifier.inval_inode(INodeNo(live_number(directory)), 0, 0));
    }

    /// Attributes or data of a live inode changed.
    pub fn inode_changed(&self, inode: InodeNo) {
        report(self.notifier.inval_inode(INodeNo(live_number(inode)), 0, 0));
    }
}

fn report(result: io::Result<()>) {
    if let Err(error) = result
        && error.kind() != io::ErrorKind::NotFound
    {
        log::warn!("the kernel's cache could not be brought up to date: {error}");
    }
}
