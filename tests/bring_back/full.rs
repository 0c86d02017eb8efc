//! On a disk that is full.

use super::store::{Store, noise};
use pitfs::device::Moment;
use pitfs::error::Errno;
use std::path::PathBuf;
use std::process::Command;

/// A small file system of its own, gone with the test.
struct Small(PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        let _gone_already = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_ends_the_work_and_more_room_completes_it() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("not run: needs root");
    }
    let outer = crate::guard::temporary();
    let disk = outer.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", "size=300m", "pitfs-test"]).arg(&disk);
    if !command.status().unwrap().success() {
        return eprintln!("not run: cannot mount a tmpfs");
    }
    let _small = Small(disk.clone());
    let store = Store::in_directory(tempfile::tempdir_in(&disk).unwrap(), 16 << 10);
    store.mkdir("top");
    // Metadata: tracks would be shared, and take no room.
    for i in 0..200 {
        store.write(format!("top/{i}"), b"then");
        store.set_xattr(format!("top/{i}"), "user.large", &noise(i, 50_000));
        store.set_xattr(format!("top/{i}"), "user.larger", &noise(1000 + i, 60_000));
    }
    let then = store.snap("then");
    for i in 0..200 {
        store.write(format!("top/{i}"), b"now");
        store.set_xattr(format!("top/{i}"), "user.large", b"small");
        store.set_xattr(format!("top/{i}"), "user.larger", b"small");
    }
    store.tree().commit().unwrap();
    // All but what a snapshot needs.
    let free = rustix::fs::statvfs(&disk).unwrap();
    let filler = disk.join("filler");
    std::fs::write(&filler, vec![1; (free.f_bavail * free.f_frsize) as usize - (3 << 20)]).unwrap();
    let error = store.try_back(&then, &[b"top"]).unwrap_err();
    assert_eq!(error.errno(), Errno::NOSPC, "{error}");
    assert!(error.to_string().contains("no room is left"), "{error}");
    eprintln!("{error}");
    std::fs::remove_file(filler).unwrap();
    let report = store.try_back(&then, &[b"top"]).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    let is_top = |path: &[u8]| path.starts_with(b"top");
    let [expected, found] = [Moment::At(then.epoch), Moment::Live].map(|moment| store.picture(moment).part(&is_top));
    super::store::assert_same(&expected, &found, "top");
    store.check();
}
