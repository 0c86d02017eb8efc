//! Through a mount: the kernel believes nothing that it knew of what was brought back.

use super::store::Store;
use pitfs::fuse::{MountPoint, Options};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_open_goes_on_and_what_is_cached_is_forgotten() {
    if !Path::new("/dev/fuse").exists() {
        return eprintln!("not run: /dev/fuse is missing");
    }
    let store = Store::new();
    let snap = store.dir.path().join("snap");
    fs::create_dir(&snap).unwrap();
    store.daemon.mount(None, MountPoint::open(&snap).unwrap(), &Options::default(), || {}).unwrap();
    let live = snap.join("live");
    let top = live.join("top");
    fs::create_dir_all(top.join("dir/deep")).unwrap();
    fs::write(top.join("file"), vec![b'1'; 100_000]).unwrap();
    fs::write(top.join("saved"), b"one").unwrap();
    fs::write(top.join("dir/deep/file"), b"deep").unwrap();
    fs::write(top.join("deleted"), b"deleted").unwrap();
    fs::set_permissions(top.join("dir"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::create_dir(snap.join("then")).unwrap();

    let file = File::options().read(true).write(true).open(top.join("file")).unwrap();
    file.write_all_at(&[b'2'; 200_000], 0).unwrap();
    fs::write(top.join("new"), b"two").unwrap();
    fs::rename(top.join("new"), top.join("saved")).unwrap();
    let replaced = File::open(top.join("saved")).unwrap();
    fs::remove_file(top.join("deleted")).unwrap();
    assert!(!top.join("deleted").exists());
    fs::set_permissions(top.join("dir"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::rename(top.join("dir/deep"), top.join("moved")).unwrap();
    let moved = File::open(top.join("moved")).unwrap();
    fs::write(top.join("moved/more"), b"more").unwrap();
    fs::write(top.join("dir/deep"), b"in the way").unwrap();
    fs::write(top.join("later"), b"later").unwrap();
    assert_eq!(names(&top), ["dir", "file", "later", "moved", "saved"]);
    let mut bytes = vec![0; 200_000];
    file.read_exact_at(&mut bytes, 0).unwrap();

    let then = store.views().expect(b"then").unwrap();
    let report = store.back(&then, &[b"top"]);
    assert!(snap.join(&report.before).join("top/later").exists());
    assert!(names(&snap).contains(&report.before));
    assert_eq!(names(&top), ["deleted", "dir", "file", "saved"]);
    assert_eq!(names(&top.join("dir/deep")), ["file"]);
    assert_eq!(file.metadata().unwrap().size(), 100_000);
    assert!(file.read_at(&mut bytes, 0).unwrap() == 100_000 && bytes[..100_000].iter().all(|&byte| byte == b'1'));
    assert_eq!(fs::read(top.join("saved")).unwrap(), b"one");
    let count = replaced.read_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes[..count], b"two");
    assert_eq!(fs::read(top.join("deleted")).unwrap(), b"deleted");
    assert_eq!(fs::metadata(top.join("dir")).unwrap().mode(), 0o40750);
    assert_eq!(moved.metadata().unwrap().ino(), fs::metadata(top.join("dir/deep")).unwrap().ino());
    file.write_all_at(b"goes on", 0).unwrap();
    assert!(fs::read(top.join("file")).unwrap().starts_with(b"goes on1"));

    let before = store.views().expect(report.before.as_bytes()).unwrap();
    store.back(&before, &[b""]);
    assert_eq!(names(&top), ["dir", "file", "later", "moved", "saved"]);
    assert_eq!(fs::read(top.join("dir/deep")).unwrap(), b"in the way");
    pitfs::fuse::unmount_path(&snap, true).unwrap();
    store.check();
}
