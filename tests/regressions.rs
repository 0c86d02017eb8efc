//! Mistakes that were made once, each with the test that would have shown it.

mod mounted;

use mounted::*;
use pitfs::device::{InodeNo, LIVE, Moment};
use pitfs::logstore::Codec;
use pitfs::media::{Tearing, TestDir};
use pitfs::tree::{Change, CreateOptions, SetXattr, Tree};
use pitfs::view::Views;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

const NOBODY: u32 = 65534;

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Runs `pitfs` somewhere, without a store in the environment.
fn run_in<S: AsRef<OsStr>>(directory: &Path, args: &[S]) -> Output {
    Command::new(PITFS).args(args).current_dir(directory).env_remove("PITFS_STORE").output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[test]
fn a_store_inside_another_stores_mount_is_the_one_that_is_meant() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let inner = mounted.live().join("inner");
    mounted.ok([OsStr::new("create"), inner.as_os_str()]);
    mounted.ok([OsStr::new("-s"), inner.as_os_str(), OsStr::new("snap"), OsStr::new("within")]);
    assert!(mounted.ok([OsStr::new("-s"), inner.as_os_str(), OsStr::new("list")]).contains("\nwithin "));
    assert_eq!(mounted.ok(["list"]), "", "the store around it has no snapshot");
    // Any other directory belongs to the mount it lies in.
    fs::create_dir(mounted.live().join("plain")).unwrap();
    let output = run_in(&mounted.live().join("plain"), &["snap", "around"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(mounted.ok(["list"]).contains("\naround "));
}

#[test]
fn an_xattr_below_a_mount_root_leads_to_no_store() {
    if !can_mount() {
        return;
    }
    let (mounted, other) = (Mounted::new(), Mounted::unmounted());
    let trap = mounted.live().join("trap");
    fs::create_dir(&trap).unwrap();
    let value = other.store();
    rustix::fs::setxattr(
        &trap,
        pitfs::fuse::STORE_XATTR,
        value.as_os_str().as_encoded_bytes(),
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let output = run_in(&trap, &["snap", "s"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(other.ok(["list"]), "");
    assert!(mounted.ok(["list"]).contains("\ns "));
}

#[test]
fn with_dirsync_a_change_of_a_directory_is_durable_when_it_returns() {
    if !can_mount() {
        return;
    }
    type Step = (&'static str, fn(&Path), fn(&Path) -> bool);
    let steps: [Step; 7] = [
        ("mkdir", |live| fs::create_dir(live.join("d")).unwrap(), |live| live.join("d").is_dir()),
        ("create", |live| drop(fs::File::create(live.join("f")).unwrap()), |live| live.join("f").is_file()),
        ("symlink", |live| symlink("f", live.join("s")).unwrap(), |live| live.join("s").is_symlink()),
        (
            "link",
            |live| fs::hard_link(live.join("f"), live.join("g")).unwrap(),
            |live| live.join("g").metadata().is_ok_and(|found| found.nlink() == 2),
        ),
        (
            "rename",
            |live| fs::rename(live.join("g"), live.join("d/h")).unwrap(),
            |live| live.join("d/h").is_file() && !live.join("g").exists(),
        ),
        ("unlink", |live| fs::remove_file(live.join("d/h")).unwrap(), |live| !live.join("d/h").exists()),
        ("rmdir", |live| fs::remove_dir(live.join("d")).unwrap(), |live| !live.join("d").exists()),
    ];
    for option in ["dirsync", "sync"] {
        let mounted = Mounted::with_options(&[option]);
        for (what, change, is_there) in steps {
            change(&mounted.live());
            mounted.kill();
            mounted.mount(&[option]);
            assert!(is_there(&mounted.live()), "{what} with -o {option}");
        }
    }
}

#[test]
fn what_is_excluded_stays_below_directories_that_the_source_lost() {
    let mounted = Mounted::unmounted();
    let source = mounted.dir.path().join("source");
    fs::create_dir_all(source.join("a/deep")).unwrap();
    fs::create_dir_all(source.join("b")).unwrap();
    for file in ["a/deep/keep.o", "a/deep/gone", "a/gone", "b/gone"] {
        fs::write(source.join(file), file).unwrap();
    }
    let sync = ["sync", source.to_str().unwrap(), "--exclude", "*.o"];
    mounted.ok(&sync[..2]);
    fs::remove_dir_all(source.join("a")).unwrap();
    fs::remove_dir_all(source.join("b")).unwrap();
    let planned = mounted.ok([&sync[..], &["-n"]].concat());
    assert!(planned.contains("a/gone") && !planned.contains("keep.o"), "{planned}");
    mounted.ok(sync);
    let shown = |to: &str| {
        let to = mounted.dir.path().join(to);
        mounted.ok(["restore", "live", "--to", to.to_str().unwrap()]);
        listing(&to).into_iter().map(|shown| shown.path.to_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(shown("first"), ["a", "a/deep", "a/deep/keep.o"]);
    // Nor does something else take the place of such a directory.
    fs::write(source.join("a"), b"a file now").unwrap();
    let said = mounted.fails(1, sync);
    assert!(said.contains("holds excluded files and stays"), "{said}");
    assert_eq!(shown("second"), ["a", "a/deep", "a/deep/keep.o"]);
    mounted.check();
}

#[test]
fn diff_shows_a_file_that_was_replaced_once() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let live = mounted.live();
    let write = |name: &str, content: &[u8]| fs::write(live.join(name), content).unwrap();
    let large = noise(50_000);
    for name in ["attributes", "changed", "renamed over", "same"] {
        write(name, b"one");
    }
    for name in ["large", "large and other"] {
        write(name, &large);
    }
    fs::create_dir(live.join("dir")).unwrap();
    write("dir/same", b"one");
    symlink("one", live.join("symlink")).unwrap();
    mounted.ok(["snap", "s"]);
    let names = ["attributes", "changed", "same", "large", "large and other", "dir/same", "symlink"];
    for name in names {
        fs::remove_file(live.join(name)).unwrap();
    }
    fs::remove_dir(live.join("dir")).unwrap();
    for name in ["attributes", "same"] {
        write(name, b"one");
    }
    fs::set_permissions(live.join("attributes"), fs::Permissions::from_mode(0o600)).unwrap();
    write("changed", b"three");
    write("large", &large);
    let mut other = large;
    other[45_000] ^= 1;
    write("large and other", &other);
    fs::create_dir(live.join("dir")).unwrap();
    write("dir/same", b"one");
    symlink("two", live.join("symlink")).unwrap();
    write("new", b"two");
    fs::rename(live.join("new"), live.join("renamed over")).unwrap();
    let expected = "A attributes\nM changed  3 B -> 5 B\nM large and other  48.8 KiB\nM renamed over  3 B\nM symlink";
    let diff = mounted.ok(["diff", "s"]);
    assert!(diff.starts_with(expected) && diff.lines().count() == 5, "{diff}");
    let back = mounted.ok(["diff", "live", "s"]);
    assert!(back.starts_with("A attributes\nM changed  5 B -> 3 B\n") && back.lines().count() == 5, "{back}");
}

#[test]
fn restore_leaves_the_attributes_of_a_directory_that_was_there() {
    let mounted = Mounted::unmounted();
    let source = mounted.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), b"content").unwrap();
    fs::set_permissions(&source, fs::Permissions::from_mode(0o751)).unwrap();
    mounted.ok(["sync", source.to_str().unwrap()]);
    mounted.ok(["snap", "s"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    let (old, new) = (mounted.dir.path().join("old"), mounted.dir.path().join("new"));
    fs::create_dir(&old).unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o1700)).unwrap();
    for (to, expected) in [(&old, 0o1700), (&new, 0o751)] {
        mounted.ok(["restore", "s", "--to", to.to_str().unwrap()]);
        assert_eq!(fs::read(to.join("file")).unwrap(), b"content");
        assert_eq!(mode(to), expected, "{}", to.display());
    }
}

#[test]
fn restore_leaves_no_half_file_and_removes_none_but_its_own() {
    let mounted = Mounted::unmounted();
    let source = mounted.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    let content = noise(60_000);
    fs::write(source.join("damaged"), &content).unwrap();
    fs::write(source.join("whole"), b"whole").unwrap();
    mounted.ok(["sync", source.to_str().unwrap()]);
    let to = mounted.dir.path().join("to");
    fs::create_dir(&to).unwrap();
    fs::write(to.join("whole"), b"was here").unwrap();
    let restore = ["restore", "live", "--to", to.to_str().unwrap()];
    let said = mounted.fails(1, restore);
    assert!(said.contains("whole: it exists already"), "{said}");
    assert_eq!(fs::read(to.join("whole")).unwrap(), b"was here");
    fs::remove_file(to.join("damaged")).unwrap();
    fs::remove_file(to.join("whole")).unwrap();
    fs::create_dir(to.join("whole")).unwrap();
    for with in [&[][..], &["--overwrite"], &["--overwrite", "-n"], &["-n"]] {
        let said = mounted.fails(1, [&restore[..], with].concat());
        assert!(
            said.contains("whole: a directory is there, which is never replaced; move it away"),
            "{with:?}: {said}"
        );
    }
    fs::remove_file(to.join("damaged")).unwrap();
    fs::remove_dir(to.join("whole")).unwrap();
    let volume = mounted.store().join("volume.0");
    let bytes = fs::read(&volume).unwrap();
    let mark = &content[40_000..40_016];
    let at = bytes.windows(mark.len()).position(|window| window == mark).unwrap();
    fs::File::options().write(true).open(&volume).unwrap().write_all_at(&[!mark[0]], at as u64).unwrap();
    let said = mounted.fails(1, restore);
    assert!(said.contains("damaged"), "{said}");
    assert!(!to.join("damaged").exists(), "the first tracks could be read, and are no file");
    assert_eq!(fs::read(to.join("whole")).unwrap(), b"whole");
}

#[test]
fn another_name_of_a_file_is_restored_where_one_cannot_be() {
    let mounted = Mounted::unmounted();
    let source = mounted.dir.path().join("source");
    fs::create_dir_all(source.join("d")).unwrap();
    let names = ["a", "b", "d/c"];
    fs::write(source.join(names[0]), b"content").unwrap();
    for name in &names[1..] {
        fs::hard_link(source.join(names[0]), source.join(name)).unwrap();
    }
    mounted.ok(["sync", source.to_str().unwrap()]);
    for (round, blocked) in names.into_iter().enumerate() {
        let to = mounted.dir.path().join(format!("to {round}"));
        fs::create_dir_all(to.join("d")).unwrap();
        fs::write(to.join(blocked), b"was here").unwrap();
        let said = mounted.fails(1, ["restore", "live", "--to", to.to_str().unwrap()]);
        assert!(said.contains(&format!("{blocked}: it exists already")), "{said}");
        assert_eq!(fs::read(to.join(blocked)).unwrap(), b"was here");
        let others: Vec<_> = names.iter().filter(|name| **name != blocked).map(|name| to.join(name)).collect();
        let inode = fs::metadata(&others[0]).unwrap().ino();
        for other in &others {
            assert_eq!(fs::read(other).unwrap(), b"content");
            assert_eq!(fs::metadata(other).unwrap().ino(), inode, "{}", other.display());
        }
        let all = ["restore", "live", "d", "d/c", "a", "b", "a", "--overwrite", "--to", to.to_str().unwrap()];
        mounted.ok(all);
        assert!(names.iter().all(|name| fs::read(to.join(name)).unwrap() == b"content"));
    }
}

#[test]
fn umount_works_from_inside_the_mount() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::create_dir(mounted.live().join("d")).unwrap();
    for (directory, args) in [
        (mounted.live().join("d"), &["umount"][..]),
        (mounted.snap(), &["umount", "."]),
        (mounted.live(), &["umount", "d"]),
    ] {
        let output = run_in(&directory, args);
        assert!(output.status.success(), "{args:?}: {}", said(&output));
        assert!(!is_mount_point(&mounted.snap()));
        mounted.mount(&[]);
    }
}

#[test]
fn the_owner_of_a_store_commands_a_daemon_of_root_inside_the_store_only() {
    if !can_mount() || !is_root() {
        return eprintln!("not run: needs root, to become somebody else, and /dev/fuse");
    }
    let mounted = Mounted::unmounted();
    fs::set_permissions(mounted.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = mounted.dir.path().join("pitfs");
    // Not by this process: a fork of another test could keep the copy open for writing.
    assert!(Command::new("cp").arg(PITFS).arg(&program).status().unwrap().success());
    let store = mounted.store();
    let inside: Vec<_> = fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().path()).collect();
    for path in inside.iter().chain([&store]) {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    mounted.mount(&["trust_owner"]);
    let run = |uid: u32, args: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("-s").arg(&store).args(args).current_dir("/").uid(uid).gid(uid).output().unwrap()
    };
    for args in [
        &["snap", "x"][..],
        &["list"],
        &["rename", "x", "y"],
        &["diff", "y"],
        &["status"],
        &["check"],
        &["snap", "z"],
        &["delete", "z"],
    ] {
        let output = run(NOBODY, args);
        assert!(output.status.success(), "{args:?}: {}", said(&output));
    }
    let to = mounted.dir.path().join("to");
    for args in [&["sync", "/etc"][..], &["restore", "y", "--to", to.to_str().unwrap()]] {
        let output = run(NOBODY, args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(said(&output).contains("the daemon runs as another user"), "{args:?}: {}", said(&output));
    }
    assert!(!to.exists() && fs::read_dir(mounted.live()).unwrap().next().is_none());
    assert_eq!(run(NOBODY - 1, &["snap", "no"]).status.code(), Some(1));
    let list = mounted.ok(["list"]);
    assert!(list.contains("\ny ") && list.lines().count() == 2, "{list}");
}

#[test]
fn no_snapshot_is_deleted_when_a_name_is_wrong() {
    let mounted = Mounted::unmounted();
    for name in ["a", "b", "c"] {
        mounted.ok(["snap", name]);
    }
    for wrong in ["live", "nope"] {
        mounted.fails(1, ["delete", "a", "b", wrong]);
        assert_eq!(mounted.ok(["list"]).lines().count(), 1 + 3, "{wrong}");
    }
    mounted.ok(["delete", "a", "b", "a"]);
    let list = mounted.ok(["list"]);
    assert!(list.contains("\nc ") && list.lines().count() == 2, "{list}");
}

/// A store on test media with three snapshots.
fn three_snapshots() -> (Views, TestDir) {
    let dir = TestDir::new();
    let options = CreateOptions { track_bytes: 16 << 10, codec: Codec::Lz4, uid: 0, gid: 0, mode: 0o755, hash_seed: 1 };
    Tree::create(Arc::new(dir.clone()), &options).unwrap();
    let views = Views::new(Tree::open(Arc::new(dir.clone())).unwrap());
    for name in [&b"a"[..], b"b", b"c"] {
        views.snapshots().take(Some(name)).unwrap();
    }
    (views, dir)
}

#[test]
fn several_snapshots_are_deleted_in_one_commit() {
    let all = [&b"a"[..], b"b", b"c"];
    let syncs_of = |names: &[&[u8]]| {
        let (views, dir) = three_snapshots();
        let before = dir.syncs();
        views.deletions().delete(names).unwrap();
        dir.syncs() - before
    };
    let syncs = syncs_of(&all);
    assert!(syncs < 2 * syncs_of(&all[..1]), "{syncs} syncs are more than one commit");
    for stop in 1..=syncs {
        let (views, dir) = three_snapshots();
        dir.stop_at_sync(stop);
        assert!(views.deletions().delete(&all).is_err(), "it stops at sync {stop}");
        let left =
            Views::new(Tree::open(Arc::new(dir.after_power_cut(Tearing::LoseAll))).unwrap()).snapshots().all().unwrap();
        assert!([0, 3].contains(&left.len()), "{} are left after sync {stop}", left.len());
    }
}

#[test]
fn the_log_stays_empty_in_normal_use() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::write(mounted.live().join("f"), b"text").unwrap();
    // Asks the file whether it is a terminal, as many programs do.
    let script = "if [ -t 0 ]; then exit 1; fi < f; test -r f; cat f >/dev/null";
    assert!(Command::new("sh").arg("-c").arg(script).current_dir(mounted.live()).status().unwrap().success());
    mounted.ok(["snap", "s"]);
    mounted.remount();
    assert_eq!(fs::read_to_string(mounted.store().join("log")).unwrap(), "");
}

#[test]
fn an_interrupted_command_ends_in_the_daemon_too() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    const FILES: usize = 6000;
    for i in 0..FILES {
        fs::write(mounted.live().join(format!("f{i}")), vec![1; 5000]).unwrap();
    }
    mounted.ok(["snap", "s"]);
    let out = mounted.dir.path().join("out");
    let mut restore = Command::new(PITFS)
        .args(["restore", "s", "--to"])
        .arg(&out)
        .env("PITFS_STORE", mounted.store())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the first files", || fs::read_dir(&out).is_ok_and(|entries| entries.count() > 10));
    restore.kill().unwrap();
    restore.wait().unwrap();
    let count = || fs::read_dir(&out).unwrap().count();
    // What is told ten times a second is noticed soon.
    std::thread::sleep(Duration::from_millis(500));
    let soon = count();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(count(), soon, "the daemon goes on for nobody");
    assert!(soon < FILES, "all {FILES} files were there before the interruption");
}

#[test]
fn commands_with_wrong_places_say_so() {
    let mounted = Mounted::unmounted();
    let source = mounted.dir.path().join("source");
    fs::create_dir_all(source.join("d")).unwrap();
    fs::write(source.join("a"), b"a").unwrap();
    fs::write(source.join("b"), b"b").unwrap();
    let said = mounted.fails(1, ["sync", source.to_str().unwrap(), "../x"]);
    assert!(said.contains("below live"), "{said}");
    mounted.ok(["sync", source.to_str().unwrap()]);
    mounted.ok(["snap", "s"]);
    let inside = mounted.store().join("x");
    let said = mounted.fails(1, ["restore", "s", "--to", inside.to_str().unwrap()]);
    assert!(said.contains("the store's own directory") && !inside.exists(), "{said}");
    let out = mounted.dir.path().join("out");
    let said = mounted.fails(1, ["restore", "s", "a", "missing", "b", "--to", out.to_str().unwrap()]);
    assert!(said.contains("missing"), "{said}");
    assert!(out.join("a").exists() && out.join("b").exists(), "what is there is restored");
    // A directory that has a directory called `store` is no store.
    let output =
        Command::new(PITFS).arg("list").current_dir(mounted.dir.path()).env_remove("PITFS_STORE").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("which store?"), "{said}");
    if can_mount() {
        let said = mounted.fails(
            1,
            [
                OsStr::new("mount"),
                OsStr::new("-o"),
                OsStr::new("nonempty"),
                mounted.store().as_os_str(),
                mounted.store().as_os_str(),
            ],
        );
        assert!(said.contains("cannot be mounted over itself"), "{said}");
        let archive = mounted.dir.path().join("disk/archive");
        mounted.ok([OsStr::new("roll"), OsStr::new("--archive"), archive.as_os_str()]);
        for (at, what) in [(mounted.dir.path(), "the store"), (archive.parent().unwrap(), "the archive")] {
            let said = mounted.fails(
                1,
                ["mount".as_ref(), "-o".as_ref(), "nonempty".as_ref(), mounted.store().as_os_str(), at.as_os_str()],
            );
            assert!(said.contains("would hide") && said.contains(what), "{said}");
        }
    }
}

#[test]
fn a_hole_of_any_length_is_punched_at_once() {
    if !can_mount() {
        return eprintln!("not run: needs /dev/fuse");
    }
    let mounted = Mounted::new();
    let file = fs::File::create_new(mounted.live().join("f")).unwrap();
    file.write_all_at(&[b'x'; 5000], 0).unwrap();
    file.set_len(i64::MAX as u64).unwrap();
    let before = std::time::Instant::now();
    let mode = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, mode, 0, i64::MAX as u64).unwrap();
    assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
    let mut bytes = [1; 5000];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [0; 5000]);
}

#[test]
fn suid_and_sgid_go_with_fallocate_and_with_a_list_set_from_outside_the_group() {
    if !can_mount() || !is_root() {
        return eprintln!("not run: needs root and /dev/fuse");
    }
    let mounted = Mounted::with_options(&["allow_other"]);
    fs::set_permissions(mounted.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let live = mounted.live();
    let run = |script: &str| {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).current_dir(&live).uid(1001).gid(1001);
        assert!(command.status().unwrap().success(), "{script}");
    };
    let mode = |name: &str| fs::metadata(live.join(name)).unwrap().mode() & 0o7777;
    let make = |name: &str, gid: u32, mode: u32| {
        fs::write(live.join(name), [1; 8192]).unwrap();
        std::os::unix::fs::chown(live.join(name), Some(1001), Some(gid)).unwrap();
        fs::set_permissions(live.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    for (name, how) in [("grow", "-l 100000"), ("punch", "-p -l 4096"), ("zero", "-z -l 4096"), ("keep", "-n -l 9000")]
    {
        make(name, 1001, 0o6777);
        run(&format!("fallocate {how} {name}"));
        assert_eq!(mode(name), 0o777, "after fallocate {how}");
    }
    make("outside", 3000, 0o2755);
    run("setfacl -m u:5:rwx outside");
    assert_eq!(mode("outside") & 0o2000, 0);
    make("inside", 1001, 0o2755);
    run("setfacl -m u:5:rwx inside");
    assert_eq!(mode("inside") & 0o2000, 0o2000);
}

#[test]
fn xattr_names_are_judged_as_on_other_file_systems() {
    let (_dir, tree) = tree_in_memory();
    let number = file_in(&tree, b"f");
    let acl = b"system.posix_acl_access";
    assert!(tree.attributes().remove_xattr(number, acl).is_ok(), "a list that is not there is removed");
    let wrong = tree.attributes().set_xattr(number, b"user.", b"x", SetXattr::default()).unwrap_err();
    assert_eq!(wrong.errno(), pitfs::error::Errno::INVAL);
    let gone = tree.attributes().remove_xattr(number, b"user.a").unwrap_err();
    assert_eq!(gone.errno(), pitfs::error::Errno::NODATA);
}

#[test]
fn the_sgid_bit_goes_with_the_access_list_and_with_no_other_xattr() {
    let (_dir, tree) = tree_in_memory();
    let number = file_in(&tree, b"f");
    tree.attributes().change(number, Change { permissions: Some(0o6755), ..Change::default() }).unwrap();
    let permissions = || tree.inode(number.live()).unwrap().permissions();
    let set = |name: &[u8], value: &[u8], clears_sgid| {
        tree.attributes().set_xattr(number, name, value, SetXattr { clears_sgid, ..SetXattr::default() })
    };
    // Version 2; then tag, permissions and id of owner, group and others.
    let rwx = |tag: u8, bits: u8| [tag, 0, bits, 0, 0xff, 0xff, 0xff, 0xff];
    let list = [&[2, 0, 0, 0][..], &rwx(0x01, 7), &rwx(0x04, 5), &rwx(0x20, 0)].concat();
    set(b"user.a", b"x", true).unwrap();
    assert!(set(b"system.posix_acl_access", b"no list", true).is_err());
    assert_eq!(permissions(), 0o6755);
    set(b"system.posix_acl_access", &list, false).unwrap();
    assert_eq!(permissions(), 0o6750);
    set(b"system.posix_acl_access", &list, true).unwrap();
    assert_eq!(permissions(), 0o4750);
}

#[test]
fn room_can_be_used_as_soon_as_it_was_freed() {
    let (dir, tree) = tree_in_memory();
    dir.set_capacity(Some(64 << 20));
    let big = file_in(&tree, b"big");
    let piece = noise(1 << 20);
    let mut len = 0;
    while tree.files().write(big, len, &piece, false).is_ok() {
        len += piece.len() as u64;
    }
    assert!(len > 16 << 20, "{len} bytes were all");
    let small = file_in(&tree, b"small");
    tree.names().unlink(pitfs::tree::ROOT, b"big").unwrap();
    while tree.reap_step().unwrap() {}
    tree.files().write(small, 0, &piece, false).expect("there is room again");
}

#[test]
fn a_commit_is_not_lost_where_the_metadata_cannot_be_read_for_a_while() {
    let (dir, tree) = tree_in_memory();
    for i in 0..3000 {
        file_in(&tree, format!("a file with a name that takes room, {i}").as_bytes());
    }
    tree.commit().unwrap();
    drop(tree);
    // With nothing of it in memory.
    let views = Views::new(Tree::open(Arc::new(dir.clone())).unwrap());
    let tree = views.tree();
    file_in(tree, b"small");
    views.snapshots().take(Some(b"a")).unwrap();
    dir.fail_reads(Some("meta.redb"));
    let list = || tree.names().list(pitfs::tree::ROOT.live(), 0, |_| Ok(true));
    list().expect_err("all of it was in memory");
    for _ in 0..3 {
        views.snapshots().take(Some(b"b")).expect_err("the metadata cannot be read");
    }
    tree.device().check_running().expect("reading failed, and writing did not");
    dir.fail_reads(None);
    list().unwrap();
    file_in(tree, b"smaller");
    views.snapshots().take(Some(b"c")).unwrap();
    let after = Views::new(Tree::open(Arc::new(dir.after_power_cut(Tearing::LoseAll))).unwrap());
    for (name, has_smaller) in [(&b"a"[..], false), (b"c", true)] {
        let moment = Moment::At(after.expect(name).unwrap().epoch);
        after.tree().names().lookup(pitfs::tree::ROOT.at(moment), b"small").unwrap();
        assert_eq!(after.tree().names().lookup(pitfs::tree::ROOT.at(moment), b"smaller").is_ok(), has_smaller);
    }
}

#[test]
fn a_copy_that_fails_says_how_much_was_copied() {
    const MIB: u64 = 1 << 20;
    let (dir, tree) = tree_in_memory();
    let (from, to) = (file_in(&tree, b"from"), file_in(&tree, b"to"));
    for i in 0..8 {
        tree.files().write(from, i * MIB, &noise(MIB as usize), false).unwrap();
    }
    tree.commit().unwrap();
    let used: u64 = ["meta.redb", "volume.0", "reserve"].iter().map(|name| dir.file_len(name)).sum();
    // Not at the edge of a track, so nothing is shared.
    let position = |offset| pitfs::tree::Position { of: from.live(), offset };
    let mut copied = 0;
    for room in 2..40 {
        dir.set_capacity(Some(used + room * MIB / 2));
        match tree.files().copy_range(position(1000 + copied), to, 500 + copied, 7 * MIB - copied, false) {
            Ok(more) => {
                assert!(more > 0);
                copied += more;
            }
            Err(error) => assert!(error.is_no_space(), "{error}"),
        }
        let size = tree.inode(to.live()).unwrap().size;
        assert_eq!(size, if copied == 0 { 0 } else { 500 + copied }, "what was told is what there is");
        if copied == 7 * MIB {
            break;
        }
    }
    assert_eq!(copied, 7 * MIB);
    let bytes = tree.files().read(to.live(), 500, copied as usize).unwrap();
    assert!(bytes == tree.files().read(from.live(), 1000, copied as usize).unwrap());
}

#[test]
fn one_of_two_commands_at_once_gets_a_name() {
    let (_dir, tree) = tree_in_memory();
    let views = Views::new(tree);
    let snapshot = views.snapshots().take(Some(b"s")).unwrap();
    for i in 0..60 {
        let name = format!("n{i}");
        let attempt = |which: usize| match which {
            0 => views.bases().clone_snapshot(&snapshot, name.as_bytes(), false, true).is_ok(),
            1 => views.bases().create(name.as_bytes(), 0, 0, 0o755).is_ok(),
            2 => views.mirrors().establish(name.as_bytes(), false).is_ok(),
            _ => views.snapshots().take(Some(name.as_bytes())).is_ok(),
        };
        let made: Vec<bool> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|which| scope.spawn(move || attempt((which + i) % 4))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(made.iter().filter(|made| **made).count(), 1, "{name}: {made:?}");
    }
}

#[test]
fn what_comes_to_need_a_snapshot_while_it_is_deleted_is_named() {
    let (_dir, tree) = tree_in_memory();
    let views = Views::new(tree);
    for i in 0..150 {
        let names: Vec<String> = (0..3).map(|which| format!("s{i}-{which}")).collect();
        let taken: Vec<_> = names.iter().map(|name| views.snapshots().take(Some(name.as_bytes())).unwrap()).collect();
        let last = taken.last().unwrap();
        let all: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
        let (cloned, deleted) = std::thread::scope(|scope| {
            let clone = scope.spawn(|| views.bases().clone_snapshot(last, format!("c{i}").as_bytes(), false, true));
            let delete = scope.spawn(|| views.deletions().delete(&all));
            (clone.join().unwrap(), delete.join().unwrap())
        });
        let left = names.iter().filter(|name| views.find(name.as_bytes()).unwrap().is_some()).count();
        match (cloned, deleted) {
            (Ok(_), Err(error)) => {
                assert!(error.to_string().contains("is needed by"), "{error:?}");
                assert_eq!(left, 3, "all of them are deleted, or none");
            }
            (Err(_), Ok(_)) => assert_eq!(left, 0),
            other => panic!("both or neither: {other:?}"),
        }
    }
}

/// Restores are settled in the background; here nobody does that.
#[test]
fn a_restore_that_an_unsettled_restore_went_back_over_is_seen_by_diff() {
    let (views, _dir) = three_snapshots();
    let tree = views.tree();
    let file = file_in(tree, b"file");
    tree.files().write(file, 0, b"one", false).unwrap();
    let one = views.snapshots().take(None).unwrap();
    tree.files().write(file, 0, b"two", false).unwrap();
    let two = views.snapshots().take(None).unwrap();
    views.restores().restore(&one).unwrap();
    let three = views.snapshots().take(None).unwrap();
    views.restores().restore(&two).unwrap();
    assert_eq!(tree.files().read(file.live(), 0, 9).unwrap(), b"two");
    let differences = tree.comparison().diff(LIVE, Moment::At(three.epoch), Moment::Live).unwrap();
    assert_eq!(differences.iter().map(|found| found.path.as_slice()).collect::<Vec<_>>(), [b"file"]);
}

/// What is being brought back has no name until it is whole.
#[test]
fn an_inode_that_never_got_its_name_goes() {
    let (dir, tree) = tree_in_memory();
    let file = file_in(&tree, b"file");
    tree.files().write(file, 0, &noise(100_000), false).unwrap();
    tree.commit().unwrap();
    let made = tree.likeness().make_nameless(file.live()).unwrap();
    tree.likeness().become_like(made, file.live(), &mut |_| Ok(())).unwrap();
    while tree.reap_step().unwrap() {}
    assert!(tree.likeness().is_like(made, file.live()).unwrap());
    tree.commit().unwrap();
    let after = Tree::open(Arc::new(dir.after_power_cut(Tearing::LoseAll))).unwrap();
    assert_eq!(after.inode(made.live()).unwrap().links, 0);
    while after.reap_step().unwrap() {}
    assert!(after.inode(made.live()).is_err() && after.inode(file.live()).is_ok());
    tree.made(made);
    assert!(tree.inode(made.live()).is_err());
}

fn tree_in_memory() -> (TestDir, Tree) {
    let dir = TestDir::new();
    let options =
        CreateOptions { track_bytes: 64 << 10, codec: Codec::None, uid: 0, gid: 0, mode: 0o755, hash_seed: 1 };
    Tree::create(Arc::new(dir.clone()), &options).unwrap();
    let tree = Tree::open(Arc::new(dir.clone())).unwrap();
    (dir, tree)
}

fn file_in(tree: &Tree, name: &[u8]) -> InodeNo {
    let caller = pitfs::tree::Caller { uid: 0, gid: 0, umask: 0 };
    let new = pitfs::tree::New { kind: pitfs::tree::Kind::File, permissions: 0o644, rdev: 0, target: b"" };
    tree.names().make(caller, pitfs::tree::ROOT, name, new).unwrap().0
}

#[test]
fn a_store_that_was_closed_needs_no_recovery_whoever_still_has_it() {
    let (dir, tree) = tree_in_memory();
    file_in(&tree, b"content");
    let syncs_to_open = || {
        let before = dir.syncs();
        let opened = Tree::open(Arc::new(dir.clone())).unwrap();
        (opened, dir.syncs() - before)
    };
    tree.device().close().unwrap();
    let (second, with_others_alive) = syncs_to_open();
    second.device().close().unwrap();
    drop((tree, second));
    let (_third, with_nobody) = syncs_to_open();
    assert_eq!(with_others_alive, with_nobody, "it was recovered");
}

/// A base that is being deleted has set nothing aside any more, and takes nothing of what others have.
#[test]
fn a_base_that_goes_leaves_what_others_have_set_aside() {
    use pitfs::device::{BaseId, LIVE, SnapOptions};
    use pitfs::view::SnapRequest;
    const BYTES: usize = 1 << 20;
    let (_dir, tree) = tree_in_memory();
    let views = Views::new(tree);
    let caller = pitfs::tree::Caller { uid: 0, gid: 0, umask: 0 };
    let new = pitfs::tree::New { kind: pitfs::tree::Kind::File, permissions: 0o644, rdev: 0, target: b"" };
    let reserving = |base: BaseId| {
        let root = pitfs::tree::root_of(base);
        let (file, _) = views.tree().names().make(caller, root, b"f", new).unwrap();
        views.tree().files().write(file, 0, &noise(BYTES), false).unwrap();
        let options = SnapOptions { reserve: true, ..SnapOptions::default() };
        views.of(base).snapshots().take_all(&[base], SnapRequest { options, ..SnapRequest::default() }).unwrap();
        file
    };
    let reserved = || views.tree().device().look().unwrap().reserved_room();
    reserving(LIVE);
    let of_live = reserved();
    assert!(of_live >= BYTES as u64);
    let base = views.bases().create(b"b", 0, 0, 0o755).unwrap();
    let file = reserving(base);
    assert!(reserved() >= of_live + BYTES as u64);
    // What the snapshot has kept by now came out of its reserve.
    views.tree().files().write(file, 0, &vec![7; BYTES], false).unwrap();
    views.tree().commit().unwrap();
    assert!(reserved() < of_live + BYTES as u64);
    views.deletions().delete_base(base, false).unwrap();
    assert_eq!(reserved(), of_live, "while its room comes back in the background");
}
