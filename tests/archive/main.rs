//! Rolling increments into an archive, and reading every time back, also when something is wrong with it.

mod damaged;
mod former;
#[path = "../mounted/mod.rs"]
mod mounted;
mod rolled;
mod swapped;

use mounted::*;
use rolled::Rolled;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn every_time_is_read_back_byte_for_byte() {
    if !can_mount() {
        return;
    }
    let mut rolled = Rolled::several(8);
    // Two of them more than a second apart from all others, so that a time means just one.
    for name in ["w0", "w1"] {
        std::thread::sleep(Duration::from_millis(1100));
        rolled.roll(name);
        std::thread::sleep(Duration::from_millis(1100));
        rolled.change(100);
        rolled.roll(&format!("after {name}"));
    }
    let mounted = &rolled.mounted;
    let stored = mounted.json(&["list"]);
    let stored: Vec<_> = stored.as_array().unwrap().iter().filter(|found| found["archived"] == false).collect();
    assert_eq!(stored.len(), 1, "{stored:?}");
    assert_eq!(rolled.increments().len(), rolled.states.len() - 1);
    let list = mounted.json(&["list"]);
    let list = list.as_array().unwrap().clone();
    let at = |name: &str| {
        let found = list.iter().find(|found| found["name"] == name).unwrap();
        found["time"].as_str().unwrap().replace(" UTC", "Z")
    };
    rolled.compare("mounted");
    rolled.verify();
    // Nothing of it can be written to, and it is found in all the other ways.
    assert!(fs::write(mounted.snap().join("v0/small"), "no").is_err());
    assert!(fs::remove_dir(mounted.snap().join("v0")).is_err());
    assert_eq!(read(&mounted.live().join(".snap/v3/small")), "version 3");
    assert_eq!(read(&mounted.live().join("d/e/.snap/v3/only 3")), "3");
    let w0 = at("w0");
    assert_eq!(fs::read_link(mounted.snap().join(format!("@{w0}"))).unwrap().to_str(), Some("w0"));
    let diff = mounted.ok(["diff", "v0", "v1"]);
    assert!(diff.contains("M small") && diff.contains("+ d/e/only 1"), "{diff}");
    mounted.remount();
    rolled.compare("mounted again");
    for is_mounted in [true, false] {
        if !is_mounted {
            mounted.umount();
        }
        for name in ["v0", "v4", "w1"] {
            rolled.compare_copy(&[name], name);
        }
        rolled.compare_copy(&["--at", &w0], "w0");
        rolled.compare_copy(&["--at", &at("w1")], "w1");
        let out = mounted.dir.path().join("some");
        mounted.ok(["restore", "v2", "small", "d/e", "--to", out.to_str().unwrap()]);
        assert_eq!(read(&out.join("small")), "version 2");
        assert_eq!(names(&out), ["d", "small"]);
        fs::remove_dir_all(&out).unwrap();
        mounted.check();
    }
}

#[test]
fn what_is_archived_is_not_changed_by_command() {
    if !can_mount() {
        return;
    }
    let rolled = Rolled::several(4);
    let mounted = &rolled.mounted;
    let before = mounted.ok(["list", "--json"]);
    for args in [
        &["delete", "v1"][..],
        &["rename", "v1", "x"],
        &["hold", "v1"],
        &["release", "v1"],
        &["session", "deactivate", "v1"],
        &["session", "offline", "v1"],
        &["snap", "v1"],
        &["delete", "-n", "v1"],
    ] {
        let said = mounted.run(args);
        assert_eq!(mounted.ok(["list", "--json"]), before, "{args:?} changed something");
        assert!(!said.status.success(), "{args:?} did nothing and said nothing");
    }
    // The one that the archive continues from.
    let said = mounted.fails(1, ["delete", "v3"]);
    assert!(said.contains("continues from \"v3\"") && said.contains("pitfs roll"), "{said}");
    assert!(fs::remove_dir(mounted.snap().join("v3")).is_err());
    rolled.compare("after all that");
    mounted.remount();
    rolled.compare("after all that, mounted again");
    mounted.check();
}

#[test]
fn detached_and_attached() {
    if !can_mount() {
        return;
    }
    let mut rolled = Rolled::several(4);
    let archive = rolled.archive();
    let archive = archive.to_str().unwrap();
    let all = names(&rolled.mounted.snap());
    let mounted = &rolled.mounted;
    let other = mounted.dir.path().join("other");
    assert!(mounted.fails(1, ["archive", "attach", other.to_str().unwrap()]).contains("attached already"));
    mounted.ok(["archive", "attach", archive]);
    assert!(mounted.fails(1, ["archive", "detach", "/tmp"]).contains("is attached, not /tmp"));
    let said = mounted.ok(["archive", "detach", archive]);
    assert!(said.lines().count() == 1 && said.contains("\"v3\", which has to stay in the store"), "{said}");
    assert_eq!(names(&mounted.snap()), ["live", "v3"]);
    assert!(!mounted.snap().join("v0").exists());
    assert!(mounted.fails(1, ["archive", "detach"]).contains("no archive is attached"));
    assert!(mounted.fails(1, ["archive", "list"]).contains("no archive is attached"));
    assert_eq!(mounted.ok(["archive", "list", archive]).lines().count(), 1 + 3);
    mounted.remount();
    assert_eq!(names(&mounted.snap()), ["live", "v3"]);
    mounted.ok(["archive", "attach", archive]);
    assert_eq!(names(&mounted.snap()), all);
    rolled.compare("attached");
    for wrong in [mounted.store(), mounted.store().join("archive")] {
        assert!(
            !mounted.run(["-s", &mounted.of("live"), "archive", "attach", wrong.to_str().unwrap()]).status.success()
        );
    }
    // Away while the store is mounted, and back the next time.
    mounted.umount();
    let away = mounted.dir.path().join("away");
    fs::rename(rolled.archive(), &away).unwrap();
    mounted.mount(&[]);
    assert_eq!(names(&mounted.snap()), ["live", "v3"]);
    let said = mounted.fails(1, ["roll"]);
    assert!(said.contains("is not there"), "{said}");
    assert_eq!(names(&mounted.snap()), ["live", "v3"], "a roll that cannot be done leaves nothing");
    mounted.umount();
    fs::rename(&away, rolled.archive()).unwrap();
    mounted.mount(&[]);
    rolled.compare("back");
    rolled.change(50);
    rolled.roll("more");
    rolled.compare("rolled on");
    rolled.verify();
    // Detached and with the snapshot gone that it leads to, its times are named.
    let mounted = &rolled.mounted;
    mounted.ok(["archive", "detach"]);
    mounted.ok(["delete", "more"]);
    let said = mounted.fails(1, ["archive", "attach", archive]);
    assert!(said.contains("\"more\"") && said.contains("cannot be reached"), "{said}");
    assert!(mounted.fails(1, ["archive", "list"]).contains("no archive is attached"));
    mounted.check();
}

#[test]
fn what_is_held_is_not_freed_and_each_base_has_its_archive() {
    if !can_mount() {
        return;
    }
    let mut rolled = Rolled::several(2);
    rolled.mounted.ok(["hold", "v1"]);
    for i in 2..5 {
        rolled.roll(&format!("v{i}"));
        rolled.change(i);
    }
    let mounted = &rolled.mounted;
    let stored = |base: &str| {
        let list = mounted.json(&["-s", &mounted.of(base), "list"]);
        let stored = list.as_array().unwrap().iter().filter(|found| found["archived"] == false);
        stored.map(|found| found["name"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(stored("live"), ["v1", "v4"]);
    rolled.compare("with one held");
    mounted.ok(["base", "create", "b"]);
    let said = mounted.fails_of("b", &["archive", "attach", rolled.archive().to_str().unwrap()]);
    assert!(said.contains("the archive of another base of this store"), "{said}");
    let other = mounted.dir.path().join("other");
    for name in ["x", "y", "z"] {
        mounted.ok_of("b", &["roll", "--archive", other.to_str().unwrap(), "--keep", "1", "--name", name]);
    }
    assert_eq!(stored("b"), ["z"]);
    mounted.remount();
    assert_eq!(names(&mounted.snap().join("b")), ["live", "x", "y", "z"]);
    assert!(names(&mounted.snap().join("live")).contains(&"v0".to_string()));
    mounted.check();
}

/// Runs a roll and kills what does it, after a while.
/// All that is archived is read through it.
#[test]
fn the_snapshot_that_the_archive_leads_to_is_protected_also_when_it_is_deactivated() {
    if !can_mount() {
        return;
    }
    let mut rolled = Rolled::several(4);
    rolled.mounted.ok(["session", "deactivate", "v3"]);
    for i in 10..13 {
        rolled.change(i);
        rolled.compare("deactivated");
    }
    rolled.mounted.remount();
    rolled.change(13);
    rolled.compare("mounted again");
    rolled.roll("v4");
    rolled.change(14);
    rolled.compare("rolled on");
    rolled.verify();
    rolled.mounted.umount();
    rolled.mounted.check();
}

fn roll_and_kill(rolled: &Rolled, name: &str, wait: Duration, kills_daemon: bool) {
    let archive = rolled.archive();
    let mut command = Command::new(PITFS);
    command.args(["roll", "--archive", archive.to_str().unwrap(), "--keep", "1", "--name", name]);
    command.env("PITFS_STORE", rolled.mounted.store());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(wait);
    if kills_daemon {
        rolled.mounted.kill();
    } else {
        let _ended_already = child.kill();
    }
    child.wait().unwrap();
}

#[test]
fn a_roll_can_be_killed_at_any_moment() {
    if !can_mount() {
        return;
    }
    let mut rolled = Rolled::several(1);
    for i in 0..30u64 {
        rolled.change(i + 1);
        let is_mounted = i % 3 != 0;
        if !is_mounted {
            rolled.mounted.umount();
        }
        roll_and_kill(&rolled, &format!("k{i}"), Duration::from_millis(i * 37 % 61), is_mounted);
        rolled.mounted.mount(&[]);
        // Whatever it came to, from here on nothing is written before it is run again.
        let state = listing(&rolled.live());
        let again = rolled.mounted.ok(["roll", "--archive", rolled.archive().to_str().unwrap(), "--keep", "1"]);
        let again = again.split(':').next().unwrap().to_string();
        for name in names(&rolled.mounted.snap()) {
            if name == format!("k{i}") || name == again {
                rolled.states.insert(name, state.clone());
            }
        }
        assert!(rolled.states.contains_key(&again));
        if i % 10 == 9 {
            rolled.compare(&format!("killed {} times", i + 1));
            rolled.verify();
        }
    }
    let increments = rolled.increments().len();
    assert_eq!(increments, rolled.states.len() - 1, "one for each time but the last");
    assert!(increments >= 30);
    rolled.mounted.remount();
    rolled.compare("at the end");
    rolled.verify();
    rolled.mounted.check();
}

/// What is restored from a damaged archive is whole or as it was.
#[test]
fn a_file_that_cannot_be_read_whole_stays_as_it_is() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let (live, archive) = (mounted.live(), mounted.dir.path().join("archive"));
    let mark = |value: &str| {
        rustix::fs::setxattr(live.join("dd"), "user.is", value.as_bytes(), rustix::fs::XattrFlags::empty()).unwrap();
    };
    // Tracks in the store come first, more than one step shares, and those in the archive behind them.
    const STORED: usize = 20 << 20;
    let write = |seed: u64, len: usize, at: usize| {
        let file = File::options().write(true).create(true).truncate(false).open(live.join("dd")).unwrap();
        file.write_all_at(&random_bytes(seed, len), at as u64).unwrap();
    };
    write(1, STORED, 0);
    write(2, 3 << 20, STORED);
    fs::write(live.join("other"), "one").unwrap();
    mark("one");
    let one = listing(&live);
    mounted.ok(["roll", "--archive", archive.to_str().unwrap(), "--keep", "1", "--name", "w1"]);
    write(3, (3 << 20) + 500, STORED);
    fs::set_permissions(live.join("dd"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(live.join("other"), "two").unwrap();
    mark("two");
    mounted.ok(["roll", "--keep", "1", "--name", "w2"]);
    write(4, STORED, 0);
    let before = fs::read(live.join("dd")).unwrap();
    let two = listing(&live);
    let path = fs::read_dir(&archive).unwrap().map(|entry| entry.unwrap().path());
    let largest = path.filter(|path| path.extension().is_some_and(|end| end == "increment"));
    let largest = largest.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let (file, half) =
        (File::options().read(true).write(true).open(&largest).unwrap(), largest.metadata().unwrap().len() / 2);
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, half).unwrap();
    file.write_all_at(&bytes.map(|byte| byte ^ 0x41), half).unwrap();
    mounted.remount();
    let said = mounted.fails(1, ["restore", "w1"]);
    assert!(fs::read(live.join("dd")).unwrap() == before, "a part of the file was restored");
    assert!(said.contains("dd: not restored: ") && said.contains("is damaged"), "{said}");
    let now = listing(&live);
    let of = |state: &[Shown], name: &str| {
        state.iter().filter(|shown| shown.path.ends_with(name)).cloned().collect::<Vec<_>>()
    };
    assert_same(&of(&now, "dd"), &of(&two, "dd"), "the damaged file");
    assert_same(&of(&now, "other"), &of(&one, "other"), "the other file");
    // With the bytes back, all of it comes.
    file.write_all_at(&bytes, half).unwrap();
    mounted.ok(["restore", "w1"]);
    assert_same(&listing(&live), &one, "repaired");
    mounted.umount();
    mounted.check();
}
