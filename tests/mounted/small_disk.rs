//! A store on a small disk of its own.

use super::{Mounted, can_mount, is_root, temporary};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small ext4 in a file, gone with the test.
pub struct Disk(PathBuf);

impl Disk {
    pub fn mount(image: &Path, at: &Path, megabytes: u64) -> Option<Disk> {
        File::create(image).unwrap().set_len(megabytes << 20).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(image).output();
        if !made.is_ok_and(|made| made.status.success()) {
            eprintln!("not run: mkfs.ext4 is missing");
            return None;
        }
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(image).arg(at).output().unwrap();
        if !mounted.status.success() {
            eprintln!("not run: no loop device: {}", String::from_utf8_lossy(&mounted.stderr));
            return None;
        }
        Some(Disk(at.to_path_buf()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _gone_already = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// A mounted store on a small disk. The disk goes after it.
pub fn small_disk(megabytes: u64) -> Option<(Mounted, Disk)> {
    if !can_mount() || !is_root() {
        eprintln!("not run: needs root and /dev/fuse");
        return None;
    }
    let mounted = Mounted { dir: temporary() };
    let disk = mounted.dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let small = Disk::mount(&mounted.dir.path().join("image"), &disk, megabytes)?;
    fs::create_dir(mounted.snap()).unwrap();
    std::os::unix::fs::symlink(disk.join("store"), mounted.store()).unwrap();
    mounted.ok(["create", disk.join("store").to_str().unwrap()]);
    mounted.mount(&[]);
    Some((mounted, small))
}
