//! The FUSE front end: takes fuser's requests apart, calls, and replies. It knows kernel inode numbers,
//! handles and errno, and nothing of tracks and records.
//!
//! The mount root is a control surface: `mkdir` there takes a snapshot, `rmdir` deletes one, `mv` renames
//! one. Everything below is a view: `live`, or a snapshot, read-only.
//!
//! This daemon is the only writer, so the kernel may keep what it was told for as long as it likes; what
//! changes behind its back is invalidated by [`Notify`].

mod aside;
mod attr;
mod beside;
mod companion;
mod connection;
mod device;
mod listing;
mod mount;
mod mounts;
mod names;
mod news;
mod nodes;
mod notify;
mod number;
mod opened;
mod operations;
pub mod ring;
mod root;
mod seek;
mod thread;

pub use companion::{Role, program, run as run_companion};
pub use device::placement;
pub use mount::{
    DEVICE, FUSERMOUNT, MountPoint, Mounted, OPTION_HELP, Options, Transport, UseRings, dead_mount, open_mount_point,
    parse_options, unmount_path,
};
pub use mounts::{DeviceNo, MountInfo, User, free, has_mounts_inside, mount_around, mount_at, mounts, unescape, users};
pub use names::Names;
pub use notify::Notify;
pub use opened::Opens;

use crate::device::{BaseId, InodeAt, InodeNo, silently};
use crate::error::{Errno, Error, Result};
use crate::view::{Namespace, Views};
use aside::Aside;
use beside::Beside;
use connection::Connection;
use number::{KernelNo, Node, Numbers, Place};
use opened::{NotStored, OpenForWriting};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long the kernel may keep what cannot change without its knowledge.
const KEEP: Duration = Duration::from_secs(24 * 3600);
/// Bytes of one request.
const REQUEST_BYTES: u32 = 1 << 20;

/// An xattr of the mount root: the directory of the store that is mounted here.
pub const STORE_XATTR: &str = "user.pitfs.store";
/// An xattr of a directory that shows a base with its snapshots, and of the roots of trees: the base's name.
pub const BASE_XATTR: &str = "user.pitfs.base";

/// What a mount shows, and what is known of its kernel.
pub struct FileSystem {
    views: Views,
    numbers: Numbers,
    namespace: Namespace,
    /// The store's directory: the mount root tells it to those who ask.
    store: PathBuf,
    writeback: bool,
    opens: Opens,
    /// Nobody but this user and root is let in.
    only_for: Option<u32>,
    /// Every change of a directory waits for the disk.
    dirsync: bool,
    open_for_writing: OpenForWriting,
    not_stored: NotStored,
    /// While the mount ends: the process that may open files, since it fetches what others have written. Else 0.
    ending_visitor: AtomicU32,
    beside: Arc<Beside>,
    /// Tells the kernel what it did not ask for.
    telling: Aside,
    /// What the kernel knows the connection by, when it is mounted.
    connection: OnceLock<(Connection, std::fs::File)>,
    /// What the kernel is told through, when it is mounted.
    notify: OnceLock<Notify>,
}

impl FileSystem {
    /// Shows one base, or all that there are.
    pub fn new(views: Views, only: Option<BaseId>, store: &Path, options: &Options) -> FileSystem {
        FileSystem {
            namespace: Namespace::new(views.clone(), only),
            views,
            numbers: Numbers::default(),
            store: store.to_path_buf(),
            writeback: options.writeback,
            opens: options.opens,
            only_for: (options.allow_root && !options.allow_other).then(|| rustix::process::geteuid().as_raw()),
            dirsync: options.dirsync || options.sync,
            open_for_writing: OpenForWriting::default(),
            not_stored: NotStored::default(),
            ending_visitor: AtomicU32::new(0),
            beside: Arc::default(),
            telling: Aside::default(),
            connection: OnceLock::new(),
            notify: OnceLock::new(),
        }
    }

    /// Makes a change of a directory durable, if the mount asks for that.
    fn settle<T>(&self, changed: T) -> Result<T> {
        if self.dirsync {
            self.views.tree().commit()?;
        }
        Ok(changed)
    }

    /// The inode behind a kernel number, in whatever view.
    fn inside(&self, number: KernelNo) -> Result<InodeAt> {
        match self.numbers.node(number)? {
            Node::Virtual(_) => Err(Error::Posix(Errno::PERM)),
            Node::In(place) => Ok(place.at),
        }
    }

    /// The inode behind a kernel number that is about to be changed: in a base as it is now only.
    fn writable(&self, number: KernelNo) -> Result<InodeNo> {
        Ok(self.writable_place(number)?.inode())
    }

    fn writable_place(&self, number: KernelNo) -> Result<Place> {
        match self.numbers.node(number)? {
            Node::Virtual(_) => Err(Error::Posix(Errno::PERM)),
            Node::In(place) => {
                crate::view::check_writable(place.moment())?;
                // A mirror that is in step with its base is not written to.
                if place.way != 0 {
                    self.views.of(place.inode().base()).check_writable()?;
                }
                Ok(place)
            }
        }
    }
}

/// The error number that whoever asked will see. What points to a fault of the store goes to the log as well.
fn number_told(error: &Error) -> i32 {
    match error {
        Error::Media { .. } | Error::Corrupt { .. } if !error.is_no_space() => log::error!("{error}"),
        _ => {}
    }
    error.errno().raw_os_error()
}

/// What a request changes, the kernel knows.
fn contained(request: &str, serve: impl FnOnce()) {
    if let Err(what) = crate::fault::contained(|| silently(serve)) {
        log::error!("a fault in pitfs ended a request, {request}: {what}");
    }
}
