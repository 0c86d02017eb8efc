//! Promises of docs/semantics.md that no other test shows.

mod mounted;

use mounted::*;
use rustix::fs::{CWD, FallocateFlags, Mode, OFlags, RenameFlags, XattrFlags, statvfs};
use rustix::io::Errno;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Errno {
    Errno::from_io_error(&result.unwrap_err()).unwrap()
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Bytes that the store takes, as statfs(2) tells it.
fn used(path: &Path) -> u64 {
    let stat = statvfs(path).unwrap();
    (stat.f_blocks - stat.f_bfree) * stat.f_frsize
}

#[test]
fn a_file_keeps_its_number_within_a_view() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let (live, snap) = (mounted.live().join("f"), mounted.snap().join("s/f"));
    fs::write(&live, b"x").unwrap();
    mounted.ok(["snap", "s"]);
    let number = |path: &Path| fs::metadata(path).unwrap().ino();
    let (in_live, in_snap) = (number(&live), number(&snap));
    assert_ne!(in_live, in_snap);
    fs::rename(&live, mounted.live().join("g")).unwrap();
    mounted.ok(["rename", "s", "t"]);
    mounted.remount();
    assert_eq!(number(&mounted.live().join("g")), in_live);
    assert_eq!(number(&mounted.snap().join("t/f")), in_snap);
    fs::remove_file(mounted.live().join("g")).unwrap();
    for i in 0..100 {
        fs::write(mounted.live().join(format!("new {i}")), b"").unwrap();
        assert_ne!(number(&mounted.live().join(format!("new {i}"))), in_live);
    }
}

#[test]
fn reading_leaves_access_times_alone() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(&["atime"]);
    let path = mounted.live().join("f");
    fs::write(&path, noise(100_000)).unwrap();
    let before = fs::metadata(&path).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::read(&path).unwrap();
    fs::read_dir(mounted.live()).unwrap().count();
    mounted.remount();
    fs::read(&path).unwrap();
    let after = fs::metadata(&path).unwrap();
    assert_eq!((after.atime(), after.atime_nsec()), (before.atime(), before.atime_nsec()));
}

#[test]
fn a_copy_out_of_a_snapshot_shares_its_tracks() {
    if !can_mount() {
        return;
    }
    const LEN: usize = 8 << 20;
    let mounted = Mounted::new();
    let (original, copy) = (mounted.live().join("f"), mounted.live().join("copy"));
    let bytes = noise(LEN);
    fs::write(&original, &bytes).unwrap();
    mounted.ok(["snap", "s"]);
    let before = used(&mounted.snap());
    fs::copy(mounted.snap().join("s/f"), &copy).unwrap();
    File::open(&copy).unwrap().sync_all().unwrap();
    let after = used(&mounted.snap());
    assert!(after < before + LEN as u64 / 2, "{before} and then {after} bytes are used");
    // Each holder goes on its own.
    std::os::unix::fs::FileExt::write_all_at(&File::options().write(true).open(&copy).unwrap(), b"new", 5).unwrap();
    assert_eq!(fs::read(mounted.snap().join("s/f")).unwrap(), bytes);
    fs::remove_file(&original).unwrap();
    mounted.ok(["delete", "s"]);
    mounted.remount();
    let found = fs::read(&copy).unwrap();
    assert!(found[5..8] == *b"new" && found[8..] == bytes[8..] && found[..5] == bytes[..5]);
    mounted.check();
}

#[test]
fn the_room_that_is_told_is_true() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let path = mounted.live().join("f");
    // Others use the disk beneath as well: asked between two equal answers.
    let beneath = || statvfs(mounted.dir.path()).map(|stat| stat.f_bavail * stat.f_frsize).unwrap();
    let mut said = (0, 0);
    wait_for("the disk beneath to stand still", || {
        let before = beneath();
        let stat = statvfs(mounted.snap()).unwrap();
        said = (stat.f_bavail * stat.f_frsize, before);
        before == beneath()
    });
    assert!(said.0 <= said.1, "{said:?}");
    let empty = used(&mounted.snap());
    fs::write(&path, noise(4 << 20)).unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
    let grown = used(&mounted.snap()) - empty;
    assert!((4 << 20..5 << 20).contains(&grown), "4 MiB took {grown} bytes");
    fs::remove_file(&path).unwrap();
    wait_for("the room to come back", || used(&mounted.snap()) < empty + (1 << 20));
}

#[test]
fn the_mount_root_refuses_what_it_cannot_mean() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let (root, live) = (mounted.snap(), mounted.live());
    for name in ["one", "two"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    fs::create_dir(live.join("d")).unwrap();
    fs::write(live.join("f"), b"").unwrap();
    assert_eq!(errno(fs::rename(live.join("d"), root.join("d"))), Errno::XDEV);
    assert_eq!(errno(fs::rename(root.join("one"), live.join("one"))), Errno::XDEV);
    assert_eq!(errno(fs::hard_link(live.join("f"), root.join("f"))), Errno::PERM);
    let exchanged = rustix::fs::renameat_with(CWD, root.join("one"), CWD, root.join("two"), RenameFlags::EXCHANGE);
    assert_eq!(exchanged, Err(Errno::INVAL));
    assert_eq!(rustix::fs::setxattr(&root, "user.a", b"", XattrFlags::empty()), Err(Errno::PERM));
    assert_eq!(errno(fs::create_dir(root.join("a\nb"))), Errno::INVAL);
    assert_eq!(errno(fs::create_dir(root.join("n".repeat(256)))), Errno::NAMETOOLONG);
    let time = |path: &Path| fs::metadata(path).map(|found| (found.mtime(), found.mtime_nsec())).unwrap();
    assert_eq!(time(&root), time(&root.join("two")), "the root shows the time of the newest snapshot");
    assert!(time(&root.join("one")) < time(&root.join("two")));
}

#[test]
fn what_is_not_supported_says_so() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let path = mounted.live().join("f");
    fs::write(&path, noise(100_000)).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let temporary = rustix::fs::open(mounted.live(), OFlags::TMPFILE | OFlags::RDWR, Mode::from(0o600u32));
    assert_eq!(temporary.err(), Some(Errno::OPNOTSUPP));
    for mode in [FallocateFlags::COLLAPSE_RANGE, FallocateFlags::INSERT_RANGE] {
        assert_eq!(rustix::fs::fallocate(&file, mode, 0, 16_384), Err(Errno::OPNOTSUPP));
    }
    let too_much = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1 << 60);
    assert_eq!(too_much, Err(Errno::NOSPC));
    let set = |name: &str| rustix::fs::setxattr(&path, name, b"1", XattrFlags::empty());
    assert_eq!(set("system.other"), Err(Errno::OPNOTSUPP));
    assert_eq!(set(&format!("user.{}", "n".repeat(251))), Err(Errno::RANGE));
    assert_eq!(set(&format!("user.{}", "n".repeat(250))), Ok(()));
    if is_root() {
        let whiteout = rustix::fs::renameat_with(CWD, &path, CWD, mounted.live().join("g"), RenameFlags::WHITEOUT);
        assert_eq!(whiteout, Err(Errno::INVAL));
    }
}

#[test]
fn commands_work_on_a_read_only_mount() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(&["ro"]);
    mounted.ok(["snap", "s"]);
    mounted.ok(["rename", "s", "t"]);
    assert!(mounted.snap().join("t").is_dir());
    mounted.ok(["delete", "t"]);
    assert!(!mounted.snap().join("t").exists());
}

#[test]
fn other_users_give_no_commands() {
    if !can_mount() || !is_root() {
        return eprintln!("not run: needs root, to become somebody else, and /dev/fuse");
    }
    let mounted = Mounted::with_options(&["allow_other"]);
    fs::set_permissions(mounted.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = mounted.dir.path().join("pitfs");
    // Another process copies it: a descriptor of ours could be inherited by what another test starts, and a
    // program that somebody has open for writing cannot be run.
    assert!(Command::new("cp").arg(PITFS).arg(&program).status().unwrap().success());
    for args in [&["list"][..], &["snap", "s"], &["status"], &["restore", "live", "--to", "/tmp/nowhere"]] {
        for store in [mounted.store(), mounted.snap()] {
            let output = Command::new(&program).arg("-s").arg(store).args(args).uid(65534).gid(65534).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
            assert!(said.contains("belongs to another user"), "{args:?}: {said}");
        }
    }
    assert_eq!(mounted.ok(["list"]), "");
}
