//! The mounted file system as programs see it.

mod mounted;

use mounted::*;
use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, SeekFrom, XattrFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Errno {
    Errno::from_io_error(&result.unwrap_err()).unwrap()
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What POSIX and Linux promise, tried on an ordinary directory first and then on `live`.
#[test]
fn live_behaves_like_any_directory() {
    let control = temporary();
    posix(control.path());
    if can_mount() {
        let mounted = Mounted::new();
        posix(&mounted.live());
        mounted.ok(["snap", "s"]);
        mounted.remount();
        assert_same(&listing(&mounted.live()), &listing(&mounted.snap().join("s")), "snapshot and live");
        mounted.check();
    }
}

fn posix(root: &Path) {
    for (name, test) in [
        ("files", files as fn(&Path)),
        ("open_flags", open_flags),
        ("names", names_and_links),
        ("renames", renames),
        ("attributes", attributes),
        ("special", special_files),
        ("unlinked", unlinked_open_files),
        ("holes", holes),
        ("xattrs", xattrs),
        ("sgid", sgid_directories),
        ("locks", locks),
        ("maps", shared_maps),
        ("listing", stable_listings),
    ] {
        let directory = root.join(name);
        fs::create_dir(&directory).unwrap();
        test(&directory);
    }
}

fn files(dir: &Path) {
    let path = dir.join("f");
    for len in [0usize, 1, 1000, 1024, 1025, 4096, 16383, 16384, 16385, 200_000, 3_000_000] {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 31 + i / 256) as u8).collect();
        fs::write(&path, &bytes).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes, "{len}");
    }
    let file = File::options().read(true).write(true).open(&path).unwrap();
    file.write_all_at(b"in the middle", 1_000_000).unwrap();
    file.write_all_at(b"far behind the end", 5_000_000).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 5_000_018);
    assert_eq!(&bytes[1_000_000..1_000_013], b"in the middle");
    assert!(bytes[3_000_000..5_000_000].iter().all(|&byte| byte == 0));
    file.set_len(100).unwrap();
    file.set_len(20_000).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert!(bytes.len() == 20_000 && bytes[100..].iter().all(|&byte| byte == 0) && bytes[50] != 0);
    file.sync_all().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 20_000);
}

fn open_flags(dir: &Path) {
    let path = dir.join("f");
    let mut file = File::options().append(true).create_new(true).open(&path).unwrap();
    file.write_all(b"one").unwrap();
    let mut other = File::options().append(true).open(&path).unwrap();
    other.write_all(b"two").unwrap();
    file.write_all(b"three").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"onetwothree");
    assert_eq!(errno(File::options().write(true).create_new(true).open(&path)), Errno::EXIST);
    File::options().write(true).truncate(true).open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    let direct = File::options().read(true).write(true).custom_flags(OFlags::DIRECT.bits() as i32).open(&path);
    if let Ok(direct) = direct {
        let mut room = vec![7u8; 3 * 4096];
        let start = room.as_ptr().align_offset(4096);
        direct.write_all_at(&room[start..start + 4096], 0).unwrap();
        room.fill(0);
        direct.read_exact_at(&mut room[start..start + 4096], 0).unwrap();
        assert!(room[start..start + 4096].iter().all(|&byte| byte == 7));
    }
    assert_eq!(errno(File::open(dir.join("missing"))), Errno::NOENT);
    assert_eq!(errno(File::open(path.join("below"))), Errno::NOTDIR);
}

fn names_and_links(dir: &Path) {
    let long = "n".repeat(255);
    fs::write(dir.join(&long), b"x").unwrap();
    assert_eq!(errno(fs::write(dir.join("n".repeat(256)), b"x")), Errno::NAMETOOLONG);
    let odd = dir.join(OsStr::from_bytes(b"not\xffutf8\nname"));
    fs::write(&odd, b"odd").unwrap();
    assert_eq!(fs::read(&odd).unwrap(), b"odd");
    let (a, b) = (dir.join("a"), dir.join("b"));
    fs::write(&a, b"shared").unwrap();
    fs::hard_link(&a, &b).unwrap();
    assert_eq!(fs::metadata(&a).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(&a).unwrap().ino(), fs::metadata(&b).unwrap().ino());
    assert_eq!(errno(fs::hard_link(&a, &b)), Errno::EXIST);
    fs::remove_file(&a).unwrap();
    assert_eq!(fs::metadata(&b).unwrap().nlink(), 1);
    assert_eq!(fs::read(&b).unwrap(), b"shared");
    let target = "t".repeat(4000);
    std::os::unix::fs::symlink(&target, dir.join("link")).unwrap();
    assert_eq!(fs::read_link(dir.join("link")).unwrap().as_os_str(), target.as_str());
    let sub = dir.join("sub");
    fs::create_dir(&sub).unwrap();
    assert_eq!(errno(fs::create_dir(&sub)), Errno::EXIST);
    assert_eq!(errno(fs::remove_dir(dir)), Errno::NOTEMPTY);
    assert_eq!(errno(fs::remove_file(&sub)), Errno::ISDIR);
    assert_eq!(errno(fs::remove_dir(&b)), Errno::NOTDIR);
    let before = fs::metadata(dir).unwrap().nlink();
    fs::create_dir(sub.join("deeper")).unwrap();
    fs::remove_dir(sub.join("deeper")).unwrap();
    fs::remove_dir(&sub).unwrap();
    assert_eq!(fs::metadata(dir).unwrap().nlink(), before - 1);
}

fn renames(dir: &Path) {
    let path = |name: &str| dir.join(name);
    fs::write(path("a"), b"a").unwrap();
    fs::write(path("b"), b"b").unwrap();
    fs::rename(path("a"), path("b")).unwrap();
    assert_eq!((fs::read(path("b")).unwrap(), path("a").exists()), (b"a".to_vec(), false));
    fs::write(path("c"), b"c").unwrap();
    let rename = |from: &str, to: &str, flags| rustix::fs::renameat_with(CWD, path(from), CWD, path(to), flags);
    assert_eq!(rename("b", "c", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    rename("b", "d", RenameFlags::NOREPLACE).unwrap();
    rename("c", "d", RenameFlags::EXCHANGE).unwrap();
    assert_eq!((fs::read(path("c")).unwrap(), fs::read(path("d")).unwrap()), (b"a".to_vec(), b"c".to_vec()));
    assert_eq!(rename("c", "missing", RenameFlags::EXCHANGE), Err(Errno::NOENT));
    fs::create_dir(path("x")).unwrap();
    fs::create_dir(path("y")).unwrap();
    fs::write(path("y").join("inside"), b"1").unwrap();
    assert_eq!(errno(fs::rename(path("x"), path("y"))), Errno::NOTEMPTY);
    assert_eq!(errno(fs::rename(path("c"), path("x"))), Errno::ISDIR);
    assert_eq!(errno(fs::rename(path("x"), path("c"))), Errno::NOTDIR);
    assert_eq!(errno(fs::rename(path("y"), path("y").join("z"))), Errno::INVAL);
    fs::rename(path("y"), path("x")).unwrap();
    assert_eq!(fs::read(path("x").join("inside")).unwrap(), b"1");
    rename("x", "c", RenameFlags::EXCHANGE).unwrap();
    assert!(path("c").is_dir() && path("x").is_file());
    assert_eq!(fs::metadata(path("c").join("..")).unwrap().ino(), fs::metadata(dir).unwrap().ino());
}

fn attributes(dir: &Path) {
    let path = dir.join("f");
    fs::write(&path, b"x").unwrap();
    for (seconds, nanos) in [(0i64, 1i64), (-1, 999_999_999), (-86_400 * 365, 5), (1 << 32, 123_456_789), (1 << 33, 1)]
    {
        let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanos };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()).unwrap();
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.mtime(), found.mtime_nsec()), (seconds, nanos));
        assert_eq!((found.atime(), found.atime_nsec()), (seconds, nanos));
    }
    for mode in [0o0, 0o7777, 0o4755, 0o1777, 0o640] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode, "{mode:o}");
    }
    File::open(&path).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    let before = fs::metadata(&path).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    File::options().append(true).open(&path).unwrap().write_all(b"y").unwrap();
    let after = fs::metadata(&path).unwrap();
    assert!((after.mtime(), after.mtime_nsec()) > (before.mtime(), before.mtime_nsec()));
    assert!((after.ctime(), after.ctime_nsec()) > (before.ctime(), before.ctime_nsec()));
    if is_root() {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
        std::os::unix::fs::chown(&path, Some(12), Some(34)).unwrap();
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (12, 34, 0o755));
    }
    rustix::process::umask(Mode::from(0o027u32));
    fs::create_dir(dir.join("masked")).unwrap();
    fs::write(dir.join("masked file"), b"").unwrap();
    rustix::process::umask(Mode::from(0o022u32));
    assert_eq!(fs::metadata(dir.join("masked")).unwrap().mode() & 0o777, 0o750);
    assert_eq!(fs::metadata(dir.join("masked file")).unwrap().mode() & 0o777, 0o640);
}

fn special_files(dir: &Path) {
    use rustix::fs::FileType;
    rustix::fs::mknodat(CWD, dir.join("fifo"), FileType::Fifo, Mode::from(0o600u32), 0).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(dir.join("s")).unwrap();
    if is_root() {
        let device = rustix::fs::makedev(300, 70_000);
        rustix::fs::mknodat(CWD, dir.join("c"), FileType::CharacterDevice, Mode::from(0o600u32), device).unwrap();
        assert_eq!(fs::metadata(dir.join("c")).unwrap().rdev(), device);
        rustix::fs::mknodat(CWD, dir.join("b"), FileType::BlockDevice, Mode::from(0o600u32), rustix::fs::makedev(8, 1))
            .unwrap();
    }
    let fifo = dir.join("fifo");
    let reader = std::thread::spawn(move || fs::read(fifo).unwrap());
    File::options().write(true).open(dir.join("fifo")).unwrap().write_all(b"through").unwrap();
    assert_eq!(reader.join().unwrap(), b"through");
}

fn unlinked_open_files(dir: &Path) {
    let path = dir.join("f");
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
    file.write_all(&[1; 50_000]).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.write_all_at(&[2; 10], 40_000).unwrap();
    fs::write(&path, b"another").unwrap();
    let mut bytes = vec![0; 50_000];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes[..40_000].iter().all(|&byte| byte == 1) && bytes[40_000..40_010] == [2; 10]);
    let replaced = File::open(&path).unwrap();
    fs::write(dir.join("new"), b"new").unwrap();
    fs::rename(dir.join("new"), &path).unwrap();
    let mut text = String::new();
    (&replaced).read_to_string(&mut text).unwrap();
    assert_eq!(text, "another");
}

fn holes(dir: &Path) {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(dir.join("f")).unwrap();
    file.set_len(1 << 40).unwrap();
    file.write_all_at(&[5; 65_536], 1 << 30).unwrap();
    assert!(file.metadata().unwrap().blocks() < 1000, "a sparse file takes little room");
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Data(0)).unwrap(), 1 << 30);
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Hole(1 << 30)).unwrap(), (1 << 30) + 65_536);
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Data((1 << 30) + 70_000)), Err(Errno::NXIO));
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Hole(0)).unwrap(), 0);
    file.set_len(1 << 20).unwrap();
    file.write_all_at(&vec![9; 1 << 20], 0).unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, 100_000, 200_000).unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::ZERO_RANGE, 500_000, 1000).unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, 1_000_000, 1 << 20).unwrap();
    let mut bytes = vec![0; 1 << 20];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let is_zero = |i: usize| (100_000..300_000).contains(&i) || (500_000..501_000).contains(&i) || i >= 1_000_000;
    assert!(bytes.iter().enumerate().all(|(i, &byte)| byte == if is_zero(i) { 0 } else { 9 }));
    assert_eq!(file.metadata().unwrap().len(), 1 << 20);
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 2 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 2 << 20);
    rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 3 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 2 << 20);
    let copy = File::options().read(true).write(true).create(true).truncate(true).open(dir.join("copy")).unwrap();
    let (mut from, mut to) = (0, 0);
    while rustix::fs::copy_file_range(&file, Some(&mut from), &copy, Some(&mut to), 1 << 30).unwrap() > 0 {}
    assert_eq!(fs::read(dir.join("copy")).unwrap(), fs::read(dir.join("f")).unwrap());
    (from, to) = (5, 77);
    rustix::fs::copy_file_range(&file, Some(&mut from), &copy, Some(&mut to), 1000).unwrap();
    copy.read_exact_at(&mut bytes[..1000], 77).unwrap();
    assert!(bytes[..1000].iter().all(|&byte| byte == 9));
}

fn xattrs(dir: &Path) {
    let path = dir.join("f");
    fs::write(&path, b"").unwrap();
    let set = |name: &str, value: &[u8], flags| rustix::fs::setxattr(&path, name, value, flags);
    let get = |name: &str| {
        let mut value = vec![0; 70_000];
        rustix::fs::getxattr(&path, name, &mut value).map(|len| value[..len].to_vec())
    };
    set("user.a", b"1", XattrFlags::CREATE).unwrap();
    assert_eq!(set("user.a", b"2", XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(set("user.b", b"2", XattrFlags::REPLACE), Err(Errno::NODATA));
    set("user.a", b"22", XattrFlags::REPLACE).unwrap();
    set("user.empty", b"", XattrFlags::empty()).unwrap();
    set("user.big", &[7; 3000], XattrFlags::empty()).unwrap();
    assert_eq!(get("user.a").unwrap(), b"22");
    assert_eq!(get("user.empty").unwrap(), b"");
    assert_eq!(get("user.big").unwrap(), [7; 3000]);
    assert_eq!(get("user.missing"), Err(Errno::NODATA));
    assert_eq!(rustix::fs::getxattr(&path, "user.big", &mut [0; 10]), Err(Errno::RANGE));
    let mut list = vec![0; 1000];
    let len = rustix::fs::listxattr(&path, &mut list).unwrap();
    let mut found: Vec<&[u8]> =
        list[..len].split(|&byte| byte == 0).filter(|name| name.starts_with(b"user.")).collect();
    found.sort();
    assert_eq!(found, [&b"user.a"[..], b"user.big", b"user.empty"]);
    rustix::fs::removexattr(&path, "user.a").unwrap();
    assert_eq!(rustix::fs::removexattr(&path, "user.a"), Err(Errno::NODATA));
    assert_eq!(set("user.x", &vec![0; 65_537], XattrFlags::empty()), Err(Errno::TOOBIG));
    if is_root() {
        set("trusted.t", b"t", XattrFlags::empty()).unwrap();
        assert_eq!(get("trusted.t").unwrap(), b"t");
    }
}

fn sgid_directories(dir: &Path) {
    let sub = dir.join("shared");
    fs::create_dir(&sub).unwrap();
    if is_root() {
        std::os::unix::fs::chown(&sub, None, Some(1234)).unwrap();
    }
    fs::set_permissions(&sub, fs::Permissions::from_mode(0o2775)).unwrap();
    fs::create_dir(sub.join("d")).unwrap();
    fs::write(sub.join("f"), b"").unwrap();
    let (above, d, f) =
        (fs::metadata(&sub).unwrap(), fs::metadata(sub.join("d")).unwrap(), fs::metadata(sub.join("f")).unwrap());
    assert_eq!((d.gid(), f.gid()), (above.gid(), above.gid()));
    assert_eq!(d.mode() & 0o2000, 0o2000);
    assert_eq!(f.mode() & 0o2000, 0);
}

fn locks(dir: &Path) {
    use rustix::fs::{FlockOperation, flock};
    let path = dir.join("f");
    fs::write(&path, b"x").unwrap();
    let (a, b) = (File::open(&path).unwrap(), File::open(&path).unwrap());
    flock(&a, FlockOperation::LockExclusive).unwrap();
    assert_eq!(flock(&b, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK));
    flock(&a, FlockOperation::Unlock).unwrap();
    flock(&b, FlockOperation::NonBlockingLockShared).unwrap();
    let writer = File::options().write(true).open(&path).unwrap();
    rustix::fs::fcntl_lock(&writer, FlockOperation::NonBlockingLockExclusive).unwrap();
}

fn shared_maps(dir: &Path) {
    // Through another program: mapping memory is not for safe Rust.
    let path = dir.join("f");
    fs::write(&path, vec![b'a'; 100_000]).unwrap();
    let script = "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),0)\nm[50000:50005]=b'hello'\nm.flush()\nassert f.seek(50000)==50000 and f.read(5)==b'hello'\nm.close()";
    let run = Command::new("python3").arg("-c").arg(script).arg(&path).status();
    match run {
        Ok(status) => {
            assert!(status.success());
            assert_eq!(&fs::read(&path).unwrap()[49_999..50_006], b"ahelloa");
        }
        Err(_) => eprintln!("not run: no python3 to map memory with"),
    }
}

fn stable_listings(dir: &Path) {
    for i in 0..2000 {
        fs::write(dir.join(format!("file {i}")), b"").unwrap();
    }
    let mut listing = fs::read_dir(dir).unwrap();
    let mut seen: Vec<String> =
        (0..500).map(|_| listing.next().unwrap().unwrap().file_name().into_string().unwrap()).collect();
    for name in &seen {
        fs::remove_file(dir.join(name)).unwrap();
    }
    fs::write(dir.join("added"), b"").unwrap();
    seen.extend(listing.map(|entry| entry.unwrap().file_name().into_string().unwrap()).filter(|name| name != "added"));
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 2000, "every entry that stayed was listed, and none twice");
    assert_eq!(names(dir).len(), 1501);
}

#[test]
fn the_mount_root_is_a_control_surface() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let snap = mounted.snap();
    fs::write(mounted.live().join("f"), b"1").unwrap();
    assert_eq!(names(&snap), ["live"]);
    fs::create_dir(snap.join("one")).unwrap();
    let two = mounted.ok(["snap", "two"]);
    assert_eq!(two, "two\n");
    assert_eq!(names(&snap), ["live", "one", "two"]);
    assert_eq!(errno(fs::create_dir(snap.join("one"))), Errno::EXIST);
    assert_eq!(errno(fs::create_dir(snap.join(OsStr::from_bytes(b"\xff")))), Errno::ILSEQ);
    fs::rename(snap.join("two"), snap.join("three")).unwrap();
    assert_eq!(errno(fs::rename(snap.join("three"), snap.join("live"))), Errno::EXIST);
    assert_eq!(errno(fs::rename(snap.join("live"), snap.join("x"))), Errno::PERM);
    assert_eq!(errno(fs::write(snap.join("file"), b"")), Errno::PERM);
    assert_eq!(errno(std::os::unix::fs::symlink("a", snap.join("link"))), Errno::PERM);
    assert_eq!(errno(fs::remove_dir(snap.join("live"))), Errno::PERM);
    assert_eq!(errno(fs::set_permissions(&snap, fs::Permissions::from_mode(0o700))), Errno::PERM);
    mounted.ok(["rename", "three", "four"]);
    assert_eq!(names(&snap), ["four", "live", "one"]);
    assert!(!snap.join("three").exists() && snap.join("four").join("f").exists());
    fs::remove_dir(snap.join("one")).unwrap();
    mounted.ok(["delete", "four"]);
    assert_eq!(names(&snap), ["live"]);
    let first = mounted.ok(["snap"]);
    let second = mounted.ok(["snap"]);
    assert!(first != second && !first.contains(':'), "default names are made unique: {first} {second}");
    let shown: i64 = fs::metadata(snap.join(first.trim())).unwrap().mtime();
    let list = mounted.ok(["list", "--json"]);
    assert!(list.contains(&format!("\"seconds\": {shown}")), "the time of a snapshot is its mtime: {list}");
}

#[test]
fn snapshots_are_read_only_and_never_change() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let live = mounted.live();
    posix(&live);
    mounted.ok(["snap", "s"]);
    let snap = mounted.snap().join("s");
    let before = listing(&live);
    let file = snap.join("files/f");
    for result in [
        fs::write(&file, b"x").map(|_| ()),
        File::options().append(true).open(&file).and_then(|mut file| file.write_all(b"x")),
        fs::remove_file(&file),
        fs::remove_dir(snap.join("files")),
        fs::create_dir(snap.join("new")),
        fs::rename(&file, snap.join("files/g")),
        fs::hard_link(&file, snap.join("files/h")),
        std::os::unix::fs::symlink("x", snap.join("files/l")),
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)),
        File::open(&file).and_then(|file| file.set_modified(std::time::SystemTime::now())),
        rustix::fs::setxattr(&file, "user.x", b"1", XattrFlags::empty()).map_err(Into::into),
    ] {
        assert_eq!(errno(result), Errno::ROFS);
    }
    assert_eq!(errno(fs::rename(live.join("files/f"), snap.join("files/g"))), Errno::XDEV);
    assert_eq!(errno(fs::hard_link(&file, live.join("g"))), Errno::XDEV);
    fs::remove_dir_all(live.join("files")).unwrap();
    fs::remove_dir_all(live.join("holes")).unwrap();
    posix(&{
        fs::create_dir(live.join("again")).unwrap();
        live.join("again")
    });
    assert_same(&before, &listing(&snap), "after changes of live");
    mounted.remount();
    assert_same(&before, &listing(&snap), "after a remount");
    // Copying back from a snapshot shares its tracks.
    fs::copy(snap.join("holes/f"), live.join("back")).unwrap();
    assert_eq!(fs::read(live.join("back")).unwrap(), fs::read(snap.join("holes/f")).unwrap());
    mounted.ok(["delete", "s"]);
    assert_eq!(fs::read(live.join("back")).unwrap().len(), 2 << 20);
    wait_for("the deletion", || mounted.ok(["status", "--json"]).contains("\"log_bytes\": 0"));
    mounted.check();
}

#[test]
fn a_snapshot_can_go_while_it_is_in_use() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let data: Vec<u8> = (0..4_000_000u32).map(|i| (i / 7) as u8).collect();
    fs::write(mounted.live().join("f"), &data).unwrap();
    mounted.ok(["snap", "s"]);
    mounted.ok(["snap", "t"]);
    let file = File::open(mounted.snap().join("s/f")).unwrap();
    let mut start = vec![0; 1000];
    file.read_exact_at(&mut start, 0).unwrap();
    mounted.ok(["rename", "s", "renamed"]);
    file.read_exact_at(&mut start, 2_000_000).unwrap();
    assert_eq!(start, data[2_000_000..2_001_000]);
    mounted.ok(["delete", "renamed"]);
    match file.read_exact_at(&mut start, 3_500_000) {
        Ok(()) => assert_eq!(start, data[3_500_000..3_501_000]),
        Err(error) => assert_eq!(Errno::from_io_error(&error), Some(Errno::STALE)),
    }
    assert_eq!(fs::read(mounted.snap().join("t/f")).unwrap(), data);
    assert_eq!(fs::read(mounted.live().join("f")).unwrap(), data);
}

#[test]
fn writes_are_in_snapshots_in_order() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let (a, b) = (mounted.live().join("a"), mounted.live().join("b"));
    fs::write(&a, 0u64.to_le_bytes()).unwrap();
    fs::write(&b, 0u64.to_le_bytes()).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (a, b) = (File::options().write(true).open(&a).unwrap(), File::options().write(true).open(&b).unwrap());
            for i in 1u64.. {
                a.write_all_at(&i.to_le_bytes(), 0).unwrap();
                b.write_all_at(&i.to_le_bytes(), 0).unwrap();
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for i in 0..30 {
            fs::create_dir(mounted.snap().join(format!("s{i}"))).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let number = |path: std::path::PathBuf| u64::from_le_bytes(fs::read(path).unwrap().try_into().unwrap());
    for i in 0..30 {
        let snap = mounted.snap().join(format!("s{i}"));
        let (a, b) = (number(snap.join("a")), number(snap.join("b")));
        assert!(a == b || a == b + 1, "s{i}: b has {b} and a, written before it, has {a}");
    }
}

#[test]
fn the_writeback_cache_brings_what_was_written_into_snapshots() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(&["writeback"]);
    let mut file = File::create(mounted.live().join("f")).unwrap();
    for i in 0..20u8 {
        file.write_all(&[i; 1000]).unwrap();
        let name = format!("s{i}");
        if i % 2 == 0 {
            mounted.ok(["snap", &name]);
        } else {
            fs::create_dir(mounted.snap().join(&name)).unwrap();
        }
        assert_eq!(fs::read(mounted.snap().join(&name).join("f")).unwrap().len(), (usize::from(i) + 1) * 1000);
    }
    assert_eq!(errno(File::options().write(true).open(mounted.snap().join("s3/f"))), Errno::ROFS);
    // And into what commands say of live.
    file.write_all(&[20; 1000]).unwrap();
    assert_eq!(mounted.json(&["diff", "s19"])[0]["path"], "f");
    file.write_all(&[21; 1000]).unwrap();
    assert_eq!(mounted.json(&["diff", "--tracks", "s19"])["files"][0]["size_after_bytes"], 22_000);
    file.write_all(&[22; 1000]).unwrap();
    let versions = mounted.json(&["versions", "f"]);
    assert!(versions.as_array().unwrap().iter().any(|version| version["size_bytes"] == 23_000), "{versions}");
    drop(file);
    mounted.umount();
    mounted.check();
}

#[test]
fn thousands_of_snapshots() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let path = mounted.live().join("f");
    for i in 0..2000 {
        fs::write(&path, format!("version {i}")).unwrap();
        fs::create_dir(mounted.snap().join(format!("s{i}"))).unwrap();
    }
    assert_eq!(names(&mounted.snap()).len(), 2001);
    for i in (0..2000).step_by(97) {
        assert_eq!(fs::read_to_string(mounted.snap().join(format!("s{i}/f"))).unwrap(), format!("version {i}"));
    }
    mounted.umount();
    let all: Vec<String> = (0..2000).filter(|i| i % 50 != 0).map(|i| format!("s{i}")).collect();
    mounted.ok(["delete".to_string()].into_iter().chain(all));
    mounted.mount(&[]);
    assert_eq!(names(&mounted.snap()).len(), 41);
    for i in (0..2000).step_by(50) {
        assert_eq!(fs::read_to_string(mounted.snap().join(format!("s{i}/f"))).unwrap(), format!("version {i}"));
    }
    mounted.check();
}

#[test]
fn several_users_and_their_permissions() {
    if !can_mount() || !is_root() {
        return eprintln!("not run: needs root and /dev/fuse");
    }
    let mounted = Mounted::with_options(&["allow_other"]);
    fs::set_permissions(mounted.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let live = mounted.live();
    fs::set_permissions(&live, fs::Permissions::from_mode(0o1777)).unwrap();
    let run = |uid: u32, script: &str| {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).current_dir(&live).uid(uid).gid(uid);
        command.output().unwrap().status.success()
    };
    assert!(run(1001, "umask 077; echo mine > mine; chmod 600 mine"));
    assert_eq!(fs::metadata(live.join("mine")).unwrap().uid(), 1001);
    assert!(!run(1002, "cat mine"), "another user's file is closed");
    assert!(!run(1002, "rm -f mine; test ! -e mine"), "the sticky bit protects it");
    assert!(!run(1002, "mkdir ../by-1002"), "snapshots are the mounting user's to take");
    if run(0, "setfacl -m u:1002:r mine && setfacl -d -m u:1002:rwx . ") {
        assert!(run(1002, "test \"$(cat mine)\" = mine"), "an access list lets the user in");
        assert!(run(1001, "mkdir d && echo x > d/f && chmod g+rwx d"));
        assert!(run(1002, "echo y > d/g"), "the default list was inherited");
    } else {
        panic!("setfacl did not work");
    }
    mounted.ok(["snap", "s"]);
    assert!(run(1002, "test \"$(cat ../s/mine)\" = mine"), "lists count in snapshots");
    assert!(!run(1003, "cat ../s/mine"));
    // suid bits go when another user writes.
    assert!(run(0, "echo a > suid; chmod 6777 suid"));
    assert!(run(1002, "echo b >> suid"));
    assert_eq!(fs::metadata(live.join("suid")).unwrap().mode() & 0o7777, 0o777);
}

/// The mode that /dev/fuse gets back, however the test ends.
struct Lent(u32);

impl Drop for Lent {
    fn drop(&mut self) {
        fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(self.0)).unwrap();
    }
}

/// How a daemon is scheduled is for whoever starts it to say.
#[test]
fn threads_keep_the_policy_that_the_daemon_was_started_with() {
    const BATCH: &str = "3";
    const IDLE: &str = "5";
    const POLICY: usize = 41;
    if !can_mount() {
        return;
    }
    let mounted = Mounted::unmounted();
    let mut command = Command::new("chrt");
    command.args(["--batch", "0", PITFS, "mount"]).args([mounted.store(), mounted.snap()]);
    if !command.status().is_ok_and(|status| status.success()) {
        return eprintln!("not run: chrt cannot");
    }
    for i in 0..100 {
        fs::write(mounted.live().join(i.to_string()), [7; 200_000]).unwrap();
        assert!(fs::read(mounted.live().join(i.to_string())).unwrap() == [7; 200_000]);
    }
    mounted.ok(["snap", "one"]);
    let tasks = format!("/proc/{}/task", mounted.daemon().unwrap().as_raw_nonzero());
    let mut count = 0;
    for task in fs::read_dir(tasks).unwrap().flatten() {
        let Ok(stat) = fs::read_to_string(task.path().join("stat")) else { continue };
        let policy = stat.rsplit(')').next().unwrap().split(' ').nth(POLICY - 2).unwrap();
        // A thread may count as idle while a program asks it on.
        assert!([BATCH, IDLE].contains(&policy), "{stat}");
        count += 1;
    }
    assert!(count > 5, "{count} threads");
}

#[test]
fn a_normal_user_mounts_through_fusermount3() {
    if !can_mount() || !is_root() {
        return eprintln!("not run: needs root, to become somebody else, and /dev/fuse");
    }
    const NOBODY: u32 = 65534;
    let dir = temporary();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let home = dir.path().join("home");
    fs::create_dir_all(home.join("snap")).unwrap();
    // A binary below a closed home directory cannot be run by others.
    let program = dir.path().join("pitfs");
    // Not by this process: a fork of another test could keep the copy open for writing.
    assert!(Command::new("cp").arg(PITFS).arg(&program).status().unwrap().success());
    for path in [home.clone(), home.join("snap")] {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let run = |args: &[&str]| {
        let output = Command::new(&program)
            .args(args)
            .current_dir(&home)
            .env("PITFS_STORE", "store")
            .uid(NOBODY)
            .gid(NOBODY)
            .output();
        let output = output.unwrap();
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let expect = |args: &[&str]| {
        let (ok, text) = run(args);
        assert!(ok, "{args:?}: {text}");
    };
    expect(&["create", "store"]);
    // On most systems the device is open to all; where it is not, that is said, and lent for this test.
    let mode = fs::metadata("/dev/fuse").unwrap().mode() & 0o777;
    if mode & 0o006 != 0o006 {
        let (ok, text) = run(&["mount", "store", "snap"]);
        assert!(!ok && text.contains("/dev/fuse is closed to this user"), "{text}");
        fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666)).unwrap();
    }
    let lent = Lent(mode);
    // What root owns outside belongs to the user inside, who could not use it otherwise.
    let source = dir.path().join("of-root");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("f"), b"root's").unwrap();
    expect(&["create", "imported", "--from", "../of-root"]);
    expect(&["mount", "imported", "snap"]);
    let write = "echo mine > snap/live/f && echo new > snap/live/g";
    let write = Command::new("sh").arg("-c").arg(write).current_dir(&home).uid(NOBODY).gid(NOBODY).status();
    expect(&["umount", "snap"]);
    let mounted = run(&["mount", "store", "snap"]);
    drop(lent);
    assert!(write.unwrap().success(), "a store made without root is the user's");
    assert!(mounted.0, "{}", mounted.1);
    let write = Command::new("sh")
        .arg("-c")
        .arg("echo hi > snap/live/f && mkdir snap/s")
        .current_dir(&home)
        .uid(NOBODY)
        .gid(NOBODY)
        .status();
    assert!(write.unwrap().success());
    expect(&["snap", "t"]);
    expect(&["umount", "snap"]);
    expect(&["restore", "s", "--to", "out"]);
    assert_eq!(fs::read(home.join("out/f")).unwrap(), b"hi\n");
    expect(&["check"]);
    let mut command = Command::new(&program);
    command.args(["mount", "store", "snap"]).current_dir(&home).env("PATH", "/nonexistent");
    let text = String::from_utf8_lossy(&command.uid(NOBODY).gid(NOBODY).output().unwrap().stderr).into_owned();
    assert!(text.contains("fusermount3") && text.contains("install"), "{text}");
    // What is root's is not unmounted, in words.
    let as_root = |args: &[&str]| {
        let output = Command::new(&program).args(args).current_dir(dir.path()).env_remove("PITFS_STORE").output();
        assert!(output.unwrap().status.success(), "{args:?}");
    };
    fs::create_dir(dir.path().join("roots-snap")).unwrap();
    as_root(&["create", "roots"]);
    as_root(&["mount", "roots", "roots-snap"]);
    let said = ["snap", "../roots-snap", "../roots"].map(|at| run(&["umount", at]));
    as_root(&["umount", "roots-snap"]);
    let wanted = ["snap is not mounted", "roots-snap was mounted by another user", "roots belongs to another user"];
    for ((ok, said), wanted) in said.iter().zip(wanted) {
        assert!(!ok && said.contains(wanted), "{said}");
    }
}

#[test]
fn sigterm_and_umount_end_in_a_clean_commit() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::write(mounted.live().join("a"), vec![1; 100_000]).unwrap();
    mounted.signal_daemon(rustix::process::Signal::TERM);
    wait_for("the end of the daemon", || !is_mount_point(&mounted.snap()));
    wait_for("the lock", || mounted.run(["list"]).status.success());
    mounted.mount(&[]);
    assert_eq!(fs::read(mounted.live().join("a")).unwrap(), vec![1; 100_000]);
    fs::write(mounted.live().join("b"), vec![2; 100_000]).unwrap();
    if is_root() {
        rustix::mount::unmount(mounted.snap(), rustix::mount::UnmountFlags::empty()).unwrap();
        wait_for("the lock", || mounted.run(["list"]).status.success());
    } else {
        mounted.umount();
    }
    mounted.mount(&[]);
    assert_eq!(fs::read(mounted.live().join("b")).unwrap(), vec![2; 100_000]);
    // With somebody inside, SIGTERM still ends it.
    let open = File::open(mounted.live().join("b")).unwrap();
    fs::write(mounted.live().join("c"), b"c").unwrap();
    mounted.signal_daemon(rustix::process::Signal::TERM);
    wait_for("the end of the mount", || !is_mount_point(&mounted.snap()));
    drop(open);
    wait_for("the lock", || mounted.run(["list"]).status.success());
    mounted.mount(&[]);
    assert_eq!(fs::read(mounted.live().join("c")).unwrap(), b"c");
    mounted.umount();
    mounted.check();
}

#[test]
fn read_only_mounts_change_nothing() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::write(mounted.live().join("f"), b"1").unwrap();
    mounted.umount();
    mounted.mount(&["ro"]);
    assert_eq!(errno(fs::write(mounted.live().join("f"), b"2")), Errno::ROFS);
    assert_eq!(errno(fs::create_dir(mounted.snap().join("s"))), Errno::ROFS);
    assert_eq!(fs::read(mounted.live().join("f")).unwrap(), b"1");
}

/// `umount DISK` can follow at once.
#[test]
fn after_umount_the_daemon_has_nothing_open_any_more() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    for turn in 0..10_u8 {
        let daemon = mounted.daemon().unwrap().as_raw_nonzero();
        fs::write(mounted.live().join("f"), vec![turn; 3_000_000]).unwrap();
        mounted.umount();
        let stat = fs::read_to_string(format!("/proc/{daemon}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z ") || stat.contains(") X "), "{stat}");
        mounted.mount(&[]);
    }
}
