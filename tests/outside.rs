//! What comes in from outside the store and what goes out: lists and xattrs, names that are not UTF-8, patterns, files that
//! give less than their size, trees deeper than paths, what belongs to the store itself.

mod mounted;

use mounted::*;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
const CAPABILITY: &str = "security.capability";

fn bytes(text: &[u8]) -> OsString {
    OsString::from_vec(text.to_vec())
}

/// A list that lets user 65534 do everything.
fn list() -> Vec<u8> {
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(1u16, 7u16, u32::MAX), (2, 7, 65534), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 0, u32::MAX)]
    {
        list.extend([&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    list
}

fn set(path: &Path, name: &str, value: &[u8]) -> bool {
    rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty()).is_ok()
}

fn get(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1024];
    let len = rustix::fs::getxattr(path, name, &mut value).ok()?;
    value.truncate(len);
    Some(value)
}

/// A store made of a directory `source`, not mounted.
fn store_of(source: &Path, args: &[&OsStr]) -> Mounted {
    let mounted = Mounted { dir: temporary() };
    fs::create_dir(mounted.snap()).unwrap();
    let store = mounted.store();
    let mut all = vec![OsStr::new("create"), store.as_os_str(), OsStr::new("--from"), source.as_os_str()];
    all.extend(args);
    mounted.ok(all);
    mounted
}

#[test]
fn what_is_restored_has_the_lists_and_xattrs_of_the_snapshot_and_no_others() {
    let dir = temporary();
    let (source, to) = (dir.path().join("source"), dir.path().join("to"));
    fs::create_dir_all(source.join("d/e")).unwrap();
    fs::write(source.join("d/f"), "secret").unwrap();
    fs::set_permissions(source.join("d/f"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::create_dir_all(to.join("d")).unwrap();
    if !set(&to, DEFAULT, &list()) || !set(&to.join("d"), "user.other", b"1") {
        eprintln!("not run: no lists or xattrs here");
        return;
    }
    assert!(set(&to.join("d"), DEFAULT, &list()) && set(&to.join("d"), ACCESS, &list()));
    let mounted = store_of(&source, &[]);
    mounted.ok([OsStr::new("restore"), OsStr::new("live"), OsStr::new("--to"), to.as_os_str()]);
    for path in ["d", "d/e", "d/f"] {
        let path = to.join(path);
        assert_eq!((get(&path, ACCESS), get(&path, DEFAULT), get(&path, "user.other")), (None, None, None), "{path:?}");
    }
    assert_eq!(fs::metadata(to.join("d/f")).unwrap().mode() & 0o777, 0o640);
    assert_eq!(get(&to, DEFAULT), Some(list()), "what was named with --to keeps its own");
    mounted.check();
}

#[test]
fn capabilities_of_files_come_in_and_go_out() {
    let dir = temporary();
    let (source, to) = (dir.path().join("source"), dir.path().join("to"));
    fs::create_dir(&source).unwrap();
    fs::write(source.join("ping"), "program").unwrap();
    // cap_net_raw+ep, version 2.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    if !is_root() || std::os::unix::fs::chown(source.join("ping"), Some(1234), Some(1234)).is_err() {
        eprintln!("not run: only root gives capabilities");
        return;
    }
    if !set(&source.join("ping"), CAPABILITY, &capability) {
        eprintln!("not run: no capabilities here");
        return;
    }
    let mounted = store_of(&source, &[]);
    mounted.ok(["snap", "a"]);
    for overwrite in [&[][..], &["--overwrite"]] {
        let mut args = vec![OsStr::new("restore"), OsStr::new("a"), OsStr::new("--to"), to.as_os_str()];
        args.extend(overwrite.iter().map(OsStr::new));
        mounted.ok(args);
        assert_eq!(get(&to.join("ping"), CAPABILITY), Some(capability.to_vec()));
        assert_eq!(fs::metadata(to.join("ping")).unwrap().uid(), 1234);
    }
    let report = mounted.json(&["sync", source.to_str().unwrap()]);
    assert_eq!((report["changed"].as_u64(), report["unchanged"].as_u64()), (Some(0), Some(1)), "{report}");
}

#[test]
fn patterns_leave_out_what_they_say_whatever_the_bytes_of_names() {
    let dir = temporary();
    let source = dir.path().join("source");
    let odd = bytes(b"caf\xe9.tmp");
    for directory in ["cache", "build", "a/build", "b"] {
        fs::create_dir_all(source.join(directory)).unwrap();
    }
    fs::write(source.join("cache").join(&odd), "x").unwrap();
    fs::write(source.join("cache/plain"), "x").unwrap();
    fs::write(source.join("build/o"), "x").unwrap();
    fs::write(source.join("a/build/notes"), "y").unwrap();
    fs::write(source.join("b/build"), "z").unwrap();
    let patterns = [OsStr::new("--exclude"), OsStr::new("cache/*"), OsStr::new("--exclude"), OsStr::new("build/")];
    let mounted = store_of(&source, &patterns);
    let to = dir.path().join("to");
    mounted.ok([OsStr::new("restore"), OsStr::new("live"), OsStr::new("--to"), to.as_os_str()]);
    assert_eq!(names(&to), ["a", "b", "cache"]);
    assert!(names(&to.join("cache")).is_empty());
    assert!(to.join("a/build/notes").exists() && to.join("b/build").exists());
    // A pattern need not be UTF-8 either; and what is excluded stays in live.
    let bring = |args: &[&OsStr]| {
        let mut all = vec![OsStr::new("sync"), source.as_os_str()];
        all.extend(args);
        mounted.ok(all);
    };
    bring(&[]);
    fs::remove_file(source.join("cache").join(&odd)).unwrap();
    fs::remove_file(source.join("cache/plain")).unwrap();
    bring(&[OsStr::new("--exclude"), &bytes(b"caf\xe9*")]);
    let to = dir.path().join("again");
    mounted.ok([OsStr::new("restore"), OsStr::new("live"), OsStr::new("--to"), to.as_os_str()]);
    let kept: Vec<OsString> = fs::read_dir(to.join("cache")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(kept, [odd]);
    mounted.check();
}

#[test]
fn a_file_is_what_it_gives_and_not_what_its_size_says() {
    for source in ["/sys/kernel/mm/transparent_hugepage", "/proc/sys/fs/inotify"] {
        if !Path::new(source).is_dir() {
            eprintln!("not run: no {source}");
            continue;
        }
        let mounted = store_of(Path::new(source), &[]);
        let to = mounted.dir.path().join("to");
        mounted.ok([OsStr::new("restore"), OsStr::new("live"), OsStr::new("--to"), to.as_os_str()]);
        for entry in
            fs::read_dir(source).unwrap().map(Result::unwrap).filter(|entry| entry.file_type().unwrap().is_file())
        {
            let wanted = fs::read(entry.path()).unwrap();
            assert_eq!(fs::read(to.join(entry.file_name())).unwrap(), wanted, "{:?}", entry.path());
        }
    }
}

#[test]
fn a_file_that_is_written_to_all_the_time_is_reported() {
    let dir = temporary();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("log"), vec![1; 8 << 20]).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mounted = Mounted { dir: temporary() };
    mounted.ok([OsStr::new("create"), mounted.store().as_os_str()]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let log = fs::File::options().write(true).open(source.join("log")).unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                log.set_len(4 << 20).unwrap();
                log.set_len(8 << 20).unwrap();
            }
        });
        // Where the machine does not let the writer run meanwhile, it is read whole.
        let is_reported = (0..100).any(|_| {
            let output = mounted.run([OsStr::new("sync"), source.as_os_str()]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(said.contains("written to while it was read").into()), "{output:?}");
            !output.status.success()
        });
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(is_reported, "it was read whole each time");
    });
    // It is read again, though nothing has changed since.
    mounted.ok([OsStr::new("sync"), source.as_os_str()]);
    let to = dir.path().join("to");
    mounted.ok([OsStr::new("restore"), OsStr::new("live"), OsStr::new("--to"), to.as_os_str()]);
    assert!(fs::read(to.join("log")).unwrap() == fs::read(source.join("log")).unwrap());
}

#[test]
fn the_destination_of_a_sync_can_be_given_below_the_mount() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let source = mounted.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("f"), "x").unwrap();
    mounted.ok([OsStr::new("sync"), source.as_os_str(), mounted.live().join("a").as_os_str()]);
    mounted.ok([OsStr::new("sync"), source.as_os_str(), OsStr::new("b")]);
    assert_eq!(names(&mounted.live()), ["a", "b"]);
    assert_eq!(names(&mounted.live().join("a")), ["f"]);
    let elsewhere = mounted.dir.path().join("elsewhere");
    let said = mounted.fails(1, [OsStr::new("sync"), source.as_os_str(), elsewhere.as_os_str()]);
    assert!(said.contains("is not below"), "{said}");
    assert_eq!(names(&mounted.live()), ["a", "b"]);
    // Who stands in live means what lies there; what is a snapshot's is not live's.
    mounted.ok(["snap", "s"]);
    let within = |directory: &Path, destination: &str| {
        let args = [OsStr::new("sync"), source.as_os_str(), OsStr::new(destination)];
        mounted.command(args).current_dir(directory).output().unwrap()
    };
    assert!(within(&mounted.live().join("a"), "c").status.success());
    assert!(within(&mounted.live().join("b"), ".").status.success());
    assert!(!within(&mounted.snap().join("s/a"), ".").status.success());
    assert!(!within(&mounted.snap(), "s/a").status.success());
    assert_eq!(names(&mounted.live()), ["a", "b"]);
    assert_eq!(names(&mounted.live().join("a")), ["c", "f"]);
}

/// A variable that is not set is not all of live.
#[test]
fn a_sync_to_nowhere_is_refused() {
    for (mounted, is_mounted) in Mounted::unmounted_and_mounted() {
        let source = mounted.dir.path().join("source");
        fs::create_dir(&source).unwrap();
        let before = mounted.json(&["check"])["inodes"].clone();
        let to =
            |destination: &str| mounted.fails(1, [OsStr::new("sync"), source.as_os_str(), OsStr::new(destination)]);
        assert!(to("").contains("names no directory"));
        let said = to("/a");
        assert!(said.contains(if is_mounted { "is not below" } else { "no mount of the store" }), "{said}");
        assert_eq!(mounted.json(&["check"])["inodes"], before);
    }
}

#[test]
fn paths_outside_the_store_need_not_be_utf_8() {
    for (mounted, is_mounted) in Mounted::unmounted_and_mounted() {
        let odd = mounted.dir.path().join(bytes(b"alt\xe9"));
        fs::create_dir_all(odd.join("source")).unwrap();
        fs::write(odd.join("source/f"), "1").unwrap();
        let run = |args: &[&OsStr]| mounted.ok(args);
        run(&[OsStr::new("sync"), odd.join("source").as_os_str()]);
        run(&[OsStr::new("snap"), OsStr::new("a")]);
        run(&[OsStr::new("restore"), OsStr::new("a"), OsStr::new("--to"), odd.join("to").as_os_str()]);
        assert_eq!(read(&odd.join("to/f")), "1", "mounted: {is_mounted}");
        let said = run(&[OsStr::new("create"), odd.join("other").as_os_str(), OsStr::new("--json")]);
        assert!(said.contains(r"alt\\xe9/other"), "{said}");
        let said = run(&[OsStr::new("-s"), odd.join("other").as_os_str(), OsStr::new("status"), OsStr::new("--json")]);
        assert!(said.contains(r"alt\\xe9/other"), "{said}");
    }
}

#[test]
fn real_names_can_be_made_where_hidden_directories_are() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let (live, source) = (mounted.live(), mounted.dir.path().join("source"));
    for directory in [".snapshots/1", "new/.snap", "old/.snap/inner"] {
        fs::create_dir_all(source.join(directory)).unwrap();
    }
    for file in [".snapshots/1/info", "new/.snap/state", "old/.snap/state", "old/.snap/inner/f", "old/@2h", "@now"] {
        fs::write(source.join(file), file).unwrap();
    }
    fs::create_dir(live.join("old")).unwrap();
    fs::create_dir(live.join("gone")).unwrap();
    fs::write(live.join("file"), "file").unwrap();
    mounted.ok(["snap", "a"]);
    // Looked at before, by the kernel as well.
    assert_eq!(names(&live.join("old/.snap")), ["a"]);
    assert!(!names(&live.join(".snapshots")).is_empty());
    let copied = Command::new("cp").arg("-a").arg(source.join(".")).arg(&live).output().unwrap();
    assert!(copied.status.success(), "{copied:?}");
    for file in [".snapshots/1/info", "new/.snap/state", "old/.snap/state", "old/.snap/inner/f", "old/@2h", "@now"] {
        assert_eq!(read(&live.join(file)), file);
    }
    assert!(names(&live).contains(&".snapshots".into()) && names(&live.join("old")).contains(&".snap".into()));
    assert_eq!(
        fs::metadata(live.join("old/.snap")).unwrap().mtime(),
        fs::metadata(source.join("old/.snap")).unwrap().mtime()
    );
    // A link, a renamed file, something that is no directory.
    fs::remove_dir_all(live.join("old/.snap")).unwrap();
    assert_eq!(names(&live.join("old/.snap")), ["a"]);
    fs::hard_link(live.join("file"), live.join("old/.snap/linked")).unwrap();
    fs::rename(live.join("file"), live.join("gone/.snap/renamed")).unwrap();
    symlink("x", live.join("gone/.snap/symlink")).unwrap();
    assert_eq!(names(&live.join("gone/.snap")), ["renamed", "symlink"]);
    assert_eq!(read(&live.join("old/.snap/linked")), "file");
    fs::remove_dir_all(live.join("old/.snap")).unwrap();
    fs::remove_dir(live.join("old/.snap")).unwrap();
    assert!(!live.join("old/.snap").exists());
    fs::write(live.join("old/.snap"), "file").unwrap();
    assert_eq!(read(&live.join("old/.snap")), "file");
    fs::remove_file(live.join("old/.snap")).unwrap();
    // A directory that is renamed to it.
    fs::rename(live.join("new"), live.join("gone/.snap/new")).unwrap();
    mounted.ok(["snap", "b"]);
    let of_b = mounted.snap().join("b");
    assert_eq!(read(&of_b.join("gone/.snap/new/.snap/state")), "new/.snap/state");
    mounted.check();
    mounted.remount();
    assert_eq!(read(&live.join(".snapshots/1/info")), ".snapshots/1/info");
}

#[test]
fn nothing_outside_is_in_the_store_or_its_mount() {
    for (mounted, is_mounted) in Mounted::unmounted_and_mounted() {
        mounted.ok(["snap", "a"]);
        let link = mounted.dir.path().join("link");
        symlink(mounted.store(), &link).unwrap();
        let mut targets = vec![mounted.store().join("x"), link.join("x/y")];
        if is_mounted {
            let through = mounted.dir.path().join("through");
            symlink(mounted.live(), &through).unwrap();
            targets.extend([mounted.live().join("x"), through.join("x")]);
        }
        let _bound = is_root().then(|| {
            let bound = mounted.dir.path().join("bound");
            fs::create_dir(&bound).unwrap();
            targets.push(bound.join("y"));
            Bind::new(&mounted.store(), &bound)
        });
        for to in targets {
            for command in [
                &["restore", "a", "--to"][..],
                &["roll", "-n", "--archive"],
                &["archive", "attach"],
                &["archive", "list"],
                &["roll", "--archive"],
            ] {
                let said = mounted.fails(1, command.iter().map(OsStr::new).chain([to.as_os_str()]));
                assert!(said.contains(" lies in the ") && !to.exists(), "{command:?} {to:?}: {said}");
            }
            let there = to.ancestors().find(|above| above.exists()).unwrap();
            let said = mounted.fails(1, [OsStr::new("sync"), there.as_os_str()]);
            assert!(said.contains(" lies in the "), "{there:?}: {said}");
        }
    }
}

#[test]
fn a_way_through_the_mount_and_out_again_is_outside() {
    if !can_mount() {
        return eprintln!("not run: needs /dev/fuse");
    }
    let mounted = Mounted::new();
    fs::write(mounted.live().join("f"), "1").unwrap();
    let inside = |directory: &Path, args: &[&str]| {
        let output = mounted.command(args).current_dir(directory).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(inside(&mounted.snap(), &["roll", "--archive", "../archive"]), (Some(0), String::new()));
    assert_eq!(inside(&mounted.live(), &["archive", "verify", "../../archive"]).0, Some(0));
    assert!(mounted.dir.path().join("archive/archive").exists());
    // Nothing is above what is not there.
    for path in ["no/../snap/live/x", "no/../store/x"] {
        let (status, said) = inside(mounted.dir.path(), &["archive", "attach", path]);
        assert!(status == Some(1) && said.contains("No such file"), "{path}: {said}");
    }
    assert!(!mounted.live().join("x").exists() && !mounted.store().join("x").exists());
}

#[test]
fn what_belongs_to_the_store_is_left_out_of_a_sync_and_said() {
    for (mounted, is_mounted) in Mounted::unmounted_and_mounted() {
        let source = mounted.dir.path().to_path_buf();
        let archive = source.join("archive");
        mounted.ok([OsStr::new("roll"), OsStr::new("--archive"), archive.as_os_str()]);
        fs::write(source.join("f"), "1").unwrap();
        let report = mounted.json(&["sync", source.to_str().unwrap()]);
        let left_out = report["left_out"].to_string();
        assert!(left_out.contains("this store") && left_out.contains("an archive of this store"), "{report}");
        assert_eq!(left_out.contains("own mount"), is_mounted, "{report}");
        assert!(report["problems"].as_array().unwrap().is_empty());
        let to = temporary();
        let to = to.path().join("to");
        mounted.ok([OsStr::new("restore"), OsStr::new("live"), OsStr::new("--to"), to.as_os_str()]);
        assert_eq!(names(&to).into_iter().filter(|name| name != "snap").collect::<Vec<_>>(), ["f"]);
        for own in [&mounted.store(), &archive] {
            mounted.fails(1, [OsStr::new("sync"), own.as_os_str()]);
        }
    }
}

#[test]
fn one_file_system_stays_on_it() {
    if !can_mount() {
        return;
    }
    let (mounted, other) = (Mounted::unmounted(), Mounted::new());
    fs::write(other.live().join("elsewhere"), "1").unwrap();
    let source = other.dir.path().to_str().unwrap().to_string();
    mounted.ok(["sync", &source, "--exclude", "store/", "-x"]);
    let to = mounted.dir.path().join("to");
    mounted.ok([OsStr::new("restore"), OsStr::new("live"), OsStr::new("--to"), to.as_os_str()]);
    assert_eq!(names(&to), ["snap"]);
    assert!(names(&to.join("snap")).is_empty());
    mounted.ok(["sync", &source, "--exclude", "store/"]);
    // What came in before stays as it is.
    mounted.ok(["sync", &source, "--exclude", "store/", "--one-file-system"]);
    let to = mounted.dir.path().join("again");
    mounted.ok([OsStr::new("restore"), OsStr::new("live"), OsStr::new("--to"), to.as_os_str()]);
    assert_eq!(read(&to.join("snap/live/elsewhere")), "1");
}

#[test]
fn paths_below_the_mount_mean_what_is_there() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let live = mounted.live();
    fs::create_dir_all(live.join("docs/deep")).unwrap();
    fs::write(live.join("docs/deep/x"), "1").unwrap();
    fs::write(live.join("docs/x"), "1").unwrap();
    mounted.ok(["snap", "a"]);
    mounted.ok(["clone", "a", "copy"]);
    let restored = |args: &[&str], directory: &Path| {
        fs::write(live.join("docs/x"), "2").unwrap();
        let output = mounted.command([&["restore", "a"][..], args].concat()).current_dir(directory).output().unwrap();
        assert!(output.status.success(), "{args:?} in {directory:?}: {output:?}");
        assert_eq!(read(&live.join("docs/x")), "1", "{args:?} in {directory:?}");
    };
    let outside = mounted.dir.path();
    let absolute = live.join("docs/x").to_str().unwrap().to_string();
    restored(&[&absolute], outside);
    restored(&[mounted.snap().join("a/docs/x").to_str().unwrap()], outside);
    restored(&["docs/x"], outside);
    restored(&["snap/live/docs/x"], outside);
    restored(&["x"], &live.join("docs"));
    restored(&["../x"], &live.join("docs/deep"));
    restored(&["live/docs/x"], &mounted.snap());
    restored(&["docs/x"], &mounted.snap());
    restored(&[live.to_str().unwrap()], outside);
    // What is gone altogether, and a link to the mount.
    fs::remove_dir_all(live.join("docs")).unwrap();
    let link = outside.join("link");
    symlink(mounted.snap(), &link).unwrap();
    mounted.ok(["restore", "a", link.join("live/docs/deep/x").to_str().unwrap()]);
    assert_eq!(read(&live.join("docs/deep/x")), "1");
    let said = mounted.fails(1, ["restore", "a", mounted.snap().join("copy/docs/x").to_str().unwrap()]);
    assert!(said.contains("copy"), "{said}");
    let to = outside.join("to");
    mounted.ok(["restore", "a", "--to", to.to_str().unwrap(), &absolute]);
    assert_eq!(read(&to.join("docs/x")), "1");
}

#[test]
fn a_restore_that_changes_nothing_leaves_nothing_behind() {
    for (mounted, _) in Mounted::unmounted_and_mounted() {
        let source = mounted.dir.path().join("source");
        fs::create_dir_all(source.join("d")).unwrap();
        fs::write(source.join("d/f"), vec![1; 100_000]).unwrap();
        mounted.ok(["sync", source.to_str().unwrap()]);
        mounted.ok(["snap", "a"]);
        let count = || mounted.json(&["list"]).as_array().unwrap().len();
        assert!(mounted.json(&["restore", "a"])["before"].is_null());
        assert_eq!(mounted.json(&["restore", "a", "d/f"])["before"], serde_json::Value::Null);
        assert_eq!(count(), 1);
        fs::write(source.join("d/f"), vec![2; 100_000]).unwrap();
        mounted.ok(["sync", source.to_str().unwrap()]);
        assert!(!mounted.json(&["restore", "a"])["before"].is_null());
        assert_eq!(count(), 2);
        // It is there already, whichever way.
        assert!(mounted.json(&["restore", "a"])["before"].is_null());
        assert_eq!(mounted.json(&["restore", "a", "d"])["before"], serde_json::Value::Null);
        assert_eq!(count(), 2);
        // A time is a change as well.
        mounted.ok(["sync", source.to_str().unwrap()]);
        assert_ne!(mounted.json(&["restore", "a", "d/f"])["before"], serde_json::Value::Null);
        assert_eq!(count(), 3);
        mounted.check();
    }
}

#[test]
fn so_many_snapshots_before_restores_are_kept_as_the_policy_says() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let source = mounted.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    mounted.ok(["snap", "a"]);
    let change_and_restore = |i: usize, args: &[&str]| {
        fs::write(source.join("f"), i.to_string()).unwrap();
        mounted.ok(["sync", source.to_str().unwrap()]);
        mounted.ok(args);
        // What a restore that is still settled needs is not dropped.
        mounted.wait_settled("live");
    };
    let before = || {
        let list = mounted.json(&["list"]);
        let all = list.as_array().unwrap().iter().filter(|snapshot| snapshot["purpose"] == "before-restore");
        all.map(|snapshot| snapshot["name"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert!(mounted.ok(["policy"]).contains("before-restore all"));
    (0..3).for_each(|i| change_and_restore(i, &["restore", "a"]));
    let all = before();
    assert_eq!(all.len(), 3);
    mounted.ok(["hold", &all[0]]);
    mounted.ok(["policy", "--before-restore", "1"]);
    assert_eq!(before(), [all[0].clone(), all[2].clone()]);
    change_and_restore(4, &["restore", "a", "/"]);
    assert_eq!(before().len(), 2);
    assert!(!before().contains(&all[2]) && before().contains(&all[0]));
    assert_eq!(mounted.json(&["policy"])["before_restore"], 1);
    mounted.ok(["policy", "--before-restore", "all"]);
    mounted.fails(2, ["policy", "--before-restore", "0"]);
    mounted.check();
}

/// So many directories, each in the one before, and a file in the last.
fn dig(top: &Path, depth: usize) {
    let mut at: std::os::fd::OwnedFd = fs::File::open(top).unwrap().into();
    for _ in 0..depth {
        rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::from(0o755)).unwrap();
        at = rustix::fs::openat(&at, "d", rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    }
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    let file = rustix::fs::openat(&at, "f", flags, rustix::fs::Mode::from(0o644)).unwrap();
    rustix::io::write(&file, b"deep").unwrap();
}

/// How many directories lie in one another, and what the file in the last says.
fn depth_of(top: &Path) -> (usize, Vec<u8>) {
    let mut at: std::os::fd::OwnedFd = fs::File::open(top).unwrap().into();
    let mut depth = 0;
    while let Ok(below) = rustix::fs::openat(&at, "d", rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()) {
        at = below;
        depth += 1;
    }
    let file = rustix::fs::openat(&at, "f", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
    let mut buffer = vec![0; 16];
    let len = file.map_or(0, |file| rustix::io::read(&file, &mut buffer).unwrap());
    buffer.truncate(len);
    (depth, buffer)
}

#[test]
fn trees_may_be_deeper_than_paths() {
    const DEPTH: usize = 5000;
    for (mounted, is_mounted) in Mounted::unmounted_and_mounted() {
        let source = mounted.dir.path().join("source");
        fs::create_dir(&source).unwrap();
        mounted.ok(["snap", "empty"]);
        dig(&source, DEPTH);
        let sync = || mounted.json(&["sync", source.to_str().unwrap()]);
        assert_eq!(sync()["added"].as_u64(), Some(DEPTH as u64 + 1));
        assert_eq!(sync()["unchanged"].as_u64(), Some(DEPTH as u64 + 1));
        mounted.ok(["snap", "deep"]);
        assert_eq!(mounted.ok(["diff", "empty", "deep"]).lines().count(), DEPTH + 1);
        let to: PathBuf = mounted.dir.path().join("to");
        mounted.ok([OsStr::new("restore"), OsStr::new("deep"), OsStr::new("--to"), to.as_os_str()]);
        assert_eq!(depth_of(&to), (DEPTH, b"deep".to_vec()));
        // Removed by command, and brought back whole and by path.
        fs::rename(source.join("d"), mounted.dir.path().join("away")).unwrap();
        assert_eq!(sync()["removed"].as_u64(), Some(DEPTH as u64 + 1));
        assert_eq!(mounted.ok(["diff", "deep"]).lines().count(), DEPTH + 1);
        mounted.ok(["restore", "deep"]);
        mounted.ok(["restore", "empty", "/"]);
        mounted.ok(["restore", "deep", "d"]);
        if is_mounted {
            assert_eq!(depth_of(&mounted.live()), (DEPTH, b"deep".to_vec()));
            fs::create_dir(mounted.live().join("own")).unwrap();
            dig(&mounted.live().join("own"), DEPTH);
            let removed = Command::new("rm").arg("-rf").arg(mounted.live().join("d")).status().unwrap();
            assert!(removed.success());
            mounted.ok(["restore", "deep", "d"]);
            assert_eq!(depth_of(&mounted.live()), (DEPTH, b"deep".to_vec()));
        }
        mounted.ok(["versions", "d"]);
        mounted.check();
        for tree in [&to, &mounted.dir.path().join("away")] {
            assert!(Command::new("rm").arg("-rf").arg(tree).status().unwrap().success());
        }
    }
}

#[test]
fn many_names_of_one_file_and_many_files_made_again_are_compared() {
    const NAMES: usize = 6_000;
    let mounted = Mounted::unmounted();
    let source = mounted.dir.path().join("source");
    fs::create_dir_all(source.join("links")).unwrap();
    fs::create_dir_all(source.join("files")).unwrap();
    fs::write(source.join("one"), "1").unwrap();
    for i in 0..NAMES {
        fs::hard_link(source.join("one"), source.join(format!("links/{i}"))).unwrap();
        fs::write(source.join(format!("files/{i}")), "1").unwrap();
    }
    mounted.ok(["sync", source.to_str().unwrap()]);
    mounted.ok(["snap", "a"]);
    fs::remove_dir_all(source.join("links")).unwrap();
    fs::remove_dir_all(source.join("files")).unwrap();
    mounted.ok(["sync", source.to_str().unwrap()]);
    mounted.ok(["snap", "b"]);
    fs::create_dir(source.join("files")).unwrap();
    (0..NAMES).for_each(|i| fs::write(source.join(format!("files/{i}")), "2").unwrap());
    mounted.ok(["sync", source.to_str().unwrap()]);
    assert_eq!(mounted.ok(["diff", "a", "b"]).lines().count(), 2 * NAMES + 2);
    // Each file is one change, in a directory that was made again.
    let again = mounted.ok(["diff", "a"]);
    assert_eq!(again.lines().filter(|line| line.starts_with("M files/")).count(), NAMES);
    assert_eq!(again.lines().filter(|line| line.starts_with("- links")).count(), NAMES + 1);
}

/// Neither a file of which one of two names is gone, nor a directory with a file in its place, or a file with a directory.
#[test]
fn what_cannot_be_read_takes_nothings_place() {
    const NOBODY: u32 = 65534;
    if !is_root() {
        return eprintln!("not run: needs root, to become somebody else");
    }
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    let dir = temporary();
    let (source, own, program) = (dir.path().join("source"), dir.path().join("own"), dir.path().join("pitfs"));
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(dir.path(), 0o755);
    assert!(Command::new("cp").arg(PITFS).arg(&program).status().unwrap().success());
    fs::create_dir(&own).unwrap();
    chown(&own, Some(NOBODY), Some(NOBODY)).unwrap();
    let run = |args: &[&OsStr]| {
        let mut command = Command::new(&program);
        command.arg("-s").arg(own.join("store")).args(args).uid(NOBODY).gid(NOBODY).output().unwrap()
    };
    let os = |text: &'static str| OsStr::new(text);

    fs::create_dir_all(source.join("d")).unwrap();
    fs::write(source.join("f"), "precious").unwrap();
    fs::hard_link(source.join("f"), source.join("g")).unwrap();
    fs::write(source.join("d/work"), "much").unwrap();
    fs::write(source.join("closed"), "open once").unwrap();
    let store = own.join("store");
    assert!(run(&[os("create"), store.as_os_str(), os("--from"), source.as_os_str()]).status.success());
    fs::remove_file(source.join("g")).unwrap();
    fs::remove_dir_all(source.join("d")).unwrap();
    fs::write(source.join("d"), "secret").unwrap();
    mode(&source.join("f"), 0);
    mode(&source.join("d"), 0);
    fs::remove_file(source.join("closed")).unwrap();
    fs::create_dir(source.join("closed")).unwrap();
    mode(&source.join("closed"), 0o700);
    let synced = run(&[os("sync"), source.as_os_str()]);
    assert_eq!(synced.status.code(), Some(1));
    let said = String::from_utf8_lossy(&synced.stderr).into_owned();
    assert_eq!(said.matches("Permission denied").count(), 3, "{said}");
    let to = own.join("to");
    assert!(run(&[os("restore"), os("live"), os("--to"), to.as_os_str()]).status.success());
    assert_eq!(names(&to), ["closed", "d", "f"]);
    assert_eq!(fs::read_to_string(to.join("f")).unwrap(), "precious");
    assert_eq!(fs::read_to_string(to.join("closed")).unwrap(), "open once");
    assert_eq!(fs::read_to_string(to.join("d/work")).unwrap(), "much");
}

/// Data need not begin where a track does.
#[test]
fn an_equal_file_with_holes_is_unchanged_when_it_is_read_again() {
    let dir = temporary();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    let file = fs::File::create(source.join("f")).unwrap();
    file.set_len(1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"data", (128 << 10) + 8192).unwrap();
    let mounted = store_of(&source, &[]);
    // Another inode of the same bytes and times.
    let copy = dir.path().join("copy");
    assert!(Command::new("cp").args(["-a", "--sparse=always"]).arg(&source).arg(&copy).status().unwrap().success());
    for args in [&["sync", "-n"][..], &["sync"]] {
        let mut args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
        args.push(copy.as_os_str());
        args.push(OsStr::new("--json"));
        let report: serde_json::Value = serde_json::from_str(&mounted.ok(args)).unwrap();
        assert_eq!((report["changed"].as_u64(), report["unchanged"].as_u64()), (Some(0), Some(1)), "{report}");
    }
}

/// Each either arrives or is said not to have.
#[test]
fn a_file_that_gets_shorter_while_it_is_copied_out_does_not_hold_it_up() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let path = mounted.live().join("f");
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                fs::write(&path, random_bytes(1, 6_000_000)).unwrap();
                fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
            }
        });
        for turn in 0..15 {
            let to = mounted.dir.path().join(format!("to {turn}"));
            let output = mounted.run([OsStr::new("restore"), OsStr::new("live"), OsStr::new("--to"), to.as_os_str()]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let is_said = said.contains("made shorter") || said.contains("removed it meanwhile");
            assert!(output.status.success() || is_said, "{said}");
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
