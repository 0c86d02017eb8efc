//! The process that mounts the tree and serves it, until whoever started it closes its input, ends, or somebody unmounts it.

use super::device::{self, REQUEST_BYTES};
use super::tree::{ROOT_MODE, Tree};
use super::{MOUNTED, SOURCE, rings};
use crate::Result;
use fuser::{Config, Session, SessionACL};
use pitfs::error::Errno;
use pitfs::fuse::ring::{Prepared, Rings, Serves};
use pitfs::fuse::{mount_at, placement};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{getegid, geteuid};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const DEVICE: &str = "/dev/fuse";
/// As pitfs has them by itself.
const THREADS: usize = 2;
/// How often it is tried to unmount what is in use, and the pause between.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// Takes the mount away when serving it could not begin, or is over.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        if is_mounted(&self.0)
            && let Err(errno) = unmount(&self.0, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
        {
            eprintln!("bench: {}: {errno}", self.0.display());
        }
    }
}

/// Whether what is mounted at a directory is a floor. Asks nothing of it.
pub fn is_mounted(dir: &Path) -> bool {
    mount_at(dir).is_some_and(|mount| mount.source == Path::new(SOURCE))
}

/// Mounts at a directory, says so, and serves.
pub fn serve(dir: &Path, with_rings: bool) -> Result<()> {
    let prepared = if with_rings { Some(Prepared::new()?) } else { None };
    let device = mount_device(dir)?;
    let _mount = Mount(dir.to_path_buf());
    let tree = Arc::new(Tree::new(geteuid().as_raw(), getegid().as_raw()));
    let further = Arc::new(device.try_clone()?);
    let has_rings = Arc::new(AtomicBool::new(with_rings));
    let mut config = Config::default();
    config.acl = SessionACL::All;
    // With rings, what still comes through the device is little.
    config.n_threads = Some(if with_rings { 1 } else { THREADS });
    if !with_rings {
        placement::allow();
    }
    let served = device::Served::new(tree.clone(), has_rings.clone());
    let session = Session::from_fd(served, device.into(), SessionACL::All, config)?;
    if has_rings.load(Ordering::Acquire) != with_rings {
        return Err("this kernel does not offer rings for FUSE".into());
    }
    let server: Arc<dyn Serves> = Arc::new(rings::Served(tree));
    let rings = prepared.map(|prepared| prepared.begin(&server, &further)).transpose()?;
    // It would hold the connection.
    drop(further);
    read_ahead(dir)?;
    let at = dir.to_path_buf();
    std::thread::Builder::new().name("end".into()).spawn(move || end_with_input(&at))?;
    println!("{MOUNTED}");
    io::stdout().flush()?;
    session.run()?;
    rings.into_iter().for_each(Rings::join);
    Ok(())
}

/// Mounts as root; the device that serves it.
fn mount_device(dir: &Path) -> Result<File> {
    let device = File::options().read(true).write(true).open(DEVICE).map_err(|error| format!("{DEVICE}: {error}"))?;
    let failed = |error: Errno| format!("mounting at {}: {error}", dir.display());
    let data = format!(
        "fd={},rootmode={ROOT_MODE:o},user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        geteuid().as_raw(),
        getegid().as_raw()
    );
    let kind = format!("fuse.{SOURCE}");
    let flags = MountFlags::NODEV | MountFlags::NOSUID;
    mount(SOURCE, dir, kind, flags, Some(CString::new(data)?.as_c_str())).map_err(failed)?;
    Ok(device)
}

/// Lets the kernel read as far ahead as a request is long.
fn read_ahead(dir: &Path) -> Result<()> {
    let mount = mount_at(dir).ok_or_else(|| format!("{} was unmounted at once", dir.display()))?;
    let path = format!("/sys/class/bdi/{}/read_ahead_kb", mount.device);
    std::fs::write(&path, (REQUEST_BYTES >> 10).to_string()).map_err(|error| format!("{path}: {error}").into())
}

/// Waits for the end of the input, and ends this process with its mount.
fn end_with_input(dir: &Path) {
    if let Err(error) = io::copy(&mut io::stdin(), &mut io::sink()) {
        eprintln!("bench: reading from whoever started the floor: {error}");
    }
    for _ in 0..TRIES {
        match unmount(dir, UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) => std::thread::sleep(PAUSE),
            _ => break,
        }
    }
    // Those who still use it get an error from now on.
    drop(Mount(dir.to_path_buf()));
    std::process::exit(0);
}
