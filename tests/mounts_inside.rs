//! What is mounted on directories of snapshots and clones, while these go elsewhere or go: it stays where the directory
//! is still shown, and is not there any more otherwise. Nothing stays that nobody can reach, and nothing waits.

mod mounted;

use mounted::*;
use std::fs;
use std::path::{Path, PathBuf};

/// A store with a directory `data` and a file in its tree, and a directory beside it to be mounted.
fn sample(mode: &[&str]) -> Option<Mounted> {
    if !can_mount() || !is_root() {
        return None;
    }
    let mounted = Mounted::with_options(mode);
    fs::create_dir(other(&mounted)).unwrap();
    fs::write(other(&mounted).join("inside"), "there").unwrap();
    fs::create_dir_all(mounted.live().join("data")).unwrap();
    fs::write(mounted.live().join("f"), "first").unwrap();
    Some(mounted)
}

fn other(mounted: &Mounted) -> PathBuf {
    mounted.dir.path().join("other")
}

fn archive(mounted: &Mounted) -> String {
    mounted.dir.path().join("archive").to_str().unwrap().to_string()
}

/// A snapshot `s` that an archive has as well, with a later one.
fn archived(mounted: &Mounted) {
    mounted.ok(["roll", "--archive", &archive(mounted), "--name", "s"]);
    fs::write(mounted.live().join("f"), "second").unwrap();
    mounted.ok(["roll", "--name", "later"]);
}

/// What is mounted below the mount point, also where no path leads to it.
fn inside(mounted: &Mounted) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let below = format!("{}/", mounted.snap().to_str().unwrap());
    let points = mounts.lines().map(|line| line.split(' ').nth(4).unwrap());
    points.filter(|point| point.starts_with(&below)).map(Into::into).collect()
}

/// Something is mounted in a directory, and stays there through a command.
fn stays(mounted: &Mounted, directory: &Path, what: &str, command: &[&str]) {
    let bind = Bind::new(&other(mounted), &directory.join("data"));
    let mut holder = Holder::new(&directory.join("data"));
    mounted.ok(command);
    assert!(bind.is_there(), "{what}: {command:?}");
    assert_eq!(inside(mounted), [bind.0.to_str().unwrap()], "{what}: {command:?}");
    assert_eq!(read(&directory.join("f")), "first", "{what}: {command:?}");
    if let Some(holder) = &mut holder {
        assert_eq!(holder.says("os.listdir('.')"), "['inside']", "{what}: {command:?}");
    }
    drop(holder);
    drop(bind);
    assert!(inside(mounted).is_empty(), "{what}: {command:?}");
}

/// Something is mounted in a directory that goes with a command, and goes with it; who stands in it is told, unless it
/// is only not shown any more.
fn goes(mounted: &Mounted, directory: &Path, what: &str, command: &[&str]) {
    let _bind = Bind::new(&other(mounted), &directory.join("data"));
    let inside_it = Holder::new(&directory.join("data"));
    let mut beside_it = Holder::new(directory);
    mounted.ok(command);
    assert!(!directory.exists(), "{what}: {command:?}");
    assert!(inside(mounted).is_empty(), "{what}: {command:?}: {:?}", inside(mounted));
    if let Some((mut inside_it, beside_it)) = inside_it.zip(beside_it.as_mut()) {
        assert_eq!(inside_it.says("os.listdir('.')"), "['inside']", "{what}: {command:?}: another file system's");
        // Nothing that the kernel may remember.
        let expected = if command[1] == "offline" { "ENOENT" } else { "ESTALE" };
        assert_eq!(beside_it.run("os.stat('never looked at')"), expected, "{what}: {command:?}");
    }
    assert!(other(mounted).join("inside").exists());
}

#[test]
fn it_stays_wherever_a_time_is_read_from() {
    for mode in MODES {
        let Some(mounted) = sample(mode) else { return };
        let what = format!("{mode:?}");
        archived(&mounted);
        let archive = archive(&mounted);
        for directory in [mounted.snap().join("s"), mounted.live().join(".snap/s")] {
            stays(&mounted, &directory, &what, &["archive", "detach"]);
            stays(&mounted, &directory, &what, &["archive", "attach", &archive]);
        }
        stays(&mounted, &mounted.snap().join("s"), &what, &["roll", "--keep", "1", "--name", "last"]);
        let list = mounted.json(&["list"]);
        let s = list.as_array().unwrap().iter().find(|found| found["name"] == "s").unwrap().clone();
        assert_eq!(s["state"], "archived", "{s}");
        stays(&mounted, &mounted.snap().join("s"), &what, &["roll", "--keep", "1", "--name", "newest"]);
        mounted.umount();
        mounted.check();
    }
}

#[test]
fn it_goes_with_a_time_that_only_the_archive_had() {
    for mode in MODES {
        let Some(mounted) = sample(mode) else { return };
        let what = format!("{mode:?}");
        archived(&mounted);
        mounted.ok(["delete", "s"]);
        let directory = mounted.snap().join("s");
        goes(&mounted, &directory, &what, &["archive", "detach"]);
        mounted.ok(["archive", "attach", &archive(&mounted)]);
        assert!(Bind::new(&other(&mounted), &directory.join("data")).is_there(), "{what}");
        mounted.ok(["roll", "--name", "latest"]);
        goes(&mounted, &directory, &what, &["archive", "prune", "--keep", "1"]);
        mounted.umount();
        mounted.check();
    }
}

#[test]
fn it_goes_with_a_snapshot_or_a_clone() {
    for mode in MODES {
        let Some(mounted) = sample(mode) else { return };
        let what = format!("{mode:?}");
        for name in ["a", "b", "c"] {
            mounted.ok(["snap", name]);
        }
        mounted.ok(["clone", "a", "clone"]);
        for (name, command) in [
            ("b", &["delete", "b"][..]),
            ("c", &["session", "offline", "c"]),
            ("clone", &["session", "offline", "clone"]),
        ] {
            goes(&mounted, &mounted.snap().join(name), &what, command);
        }
        mounted.ok(["session", "online", "clone"]);
        goes(&mounted, &mounted.snap().join("clone"), &what, &["delete", "clone"]);
        goes(&mounted, &mounted.snap().join("a"), &what, &["delete", "a"]);
        mounted.umount();
        mounted.check();
    }
}

#[test]
fn no_directory_is_removed_or_replaced_while_something_is_mounted_inside() {
    for mode in MODES {
        let Some(mounted) = sample(mode) else { return };
        let live = mounted.live();
        fs::create_dir_all(live.join("d/data")).unwrap();
        mounted.ok(["snap", "s"]);
        fs::remove_dir(live.join("d/data")).unwrap();
        fs::create_dir(live.join("e")).unwrap();
        let is_busy = |result: std::io::Result<()>, what: &str| {
            let errno = result.unwrap_err().raw_os_error();
            assert_eq!(errno, Some(rustix::io::Errno::BUSY.raw_os_error()), "{mode:?}: {what}");
        };
        let s = mounted.snap().join("s");
        for (at, gone) in
            [(live.join("d/.snap/s"), live.join("d")), (live.join(".snap/s"), live.join(".snap")), (s.clone(), s)]
        {
            let what = gone.to_str().unwrap();
            let bind = Bind::new(&other(&mounted), &at.join("data"));
            is_busy(fs::remove_dir(&gone), what);
            if gone.starts_with(&live) {
                is_busy(fs::rename(live.join("e"), &gone), what);
            }
            assert!(bind.is_there(), "{mode:?}: {what}");
            drop(bind);
            fs::remove_dir(&gone).unwrap();
            assert!(inside(&mounted).is_empty(), "{mode:?}: {what}");
        }
        mounted.umount();
        mounted.check();
    }
}

#[test]
fn it_moves_with_a_clone_that_is_promoted() {
    for mode in MODES {
        let Some(mounted) = sample(mode) else { return };
        mounted.ok(["snap", "s"]);
        mounted.ok(["base", "create", "second"]);
        mounted.remount();
        mounted.ok(["clone", "live:s", "clone"]);
        let old = mounted.snap().join("live/clone");
        let _bind = Bind::new(&other(&mounted), &old.join("data"));
        mounted.ok(["promote", "clone"]);
        let bind = Bind(mounted.snap().join("clone/live/data"));
        assert!(bind.is_there(), "{mode:?}");
        assert!(!old.exists(), "{mode:?}");
        assert_eq!(inside(&mounted), [bind.0.to_str().unwrap()], "{mode:?}");
        drop(bind);
        mounted.umount();
        mounted.check();
    }
}
