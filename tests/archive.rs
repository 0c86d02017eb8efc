//! Rolling increments into an archive, and reading every time back, also when something is wrong with it.

mod mounted;

use mounted::*;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// States of a tree by the name of the snapshot that has to show them.
type States = BTreeMap<String, Vec<Shown>>;

/// A store that is rolled into an archive beside it.
struct Rolled {
    mounted: Mounted,
    states: States,
}

impl Rolled {
    fn new() -> Rolled {
        let mounted = Mounted::new();
        fs::create_dir_all(mounted.live().join("d/e")).unwrap();
        Rolled { mounted, states: States::new() }
    }

    fn archive(&self) -> PathBuf {
        self.mounted.dir.path().join("archive")
    }

    fn live(&self) -> PathBuf {
        self.mounted.live()
    }

    /// Every kind of change, different for each number.
    fn change(&self, i: u64) {
        let live = self.live();
        fs::write(live.join(format!("d/f{}", i % 5)), random_bytes(i, 40_000 + i as usize * 100)).unwrap();
        let big = File::options().write(true).create(true).truncate(false).open(live.join("big")).unwrap();
        big.write_all_at(&random_bytes(i + 1000, 5_000), i % 7 * 30_000).unwrap();
        fs::write(live.join("small"), format!("version {i}")).unwrap();
        fs::write(live.join(format!("d/e/only {i}")), format!("{i}")).unwrap();
        if let Some(old) = i.checked_sub(3) {
            let _gone_already = fs::remove_file(live.join(format!("d/e/only {old}")));
        }
        let (one, other) = (live.join("d/e/moves"), live.join("moved"));
        if i.is_multiple_of(2) && one.exists() {
            fs::rename(one, other).unwrap();
        } else if other.exists() {
            fs::rename(other, one).unwrap();
        } else {
            fs::write(one, "moves").unwrap();
        }
        let _gone_already = fs::remove_file(live.join("link"));
        std::os::unix::fs::symlink(format!("to {i}"), live.join("link")).unwrap();
        rustix::fs::setxattr(live.join("small"), "user.i", i.to_string().as_bytes(), rustix::fs::XattrFlags::empty())
            .unwrap();
    }

    /// Rolls the state there is, under this name.
    fn roll(&mut self, name: &str) {
        self.states.insert(name.to_string(), listing(&self.live()));
        let archive = self.archive();
        let said = self.mounted.ok(["roll", "--archive", archive.to_str().unwrap(), "--keep", "1", "--name", name]);
        assert!(said.lines().count() == 1 && said.starts_with(&format!("{name}: ")), "{said}");
    }

    fn several(count: u64) -> Rolled {
        let mut rolled = Rolled::new();
        for i in 0..count {
            rolled.change(i);
            rolled.roll(&format!("v{i}"));
        }
        rolled.change(count);
        rolled
    }

    fn increments(&self) -> Vec<PathBuf> {
        let names = names(&self.archive()).into_iter().filter(|name| name.ends_with(".increment"));
        names.map(|name| self.archive().join(name)).collect()
    }

    /// Every time in the mount is as it was.
    fn compare(&self, what: &str) {
        let shown = names(&self.mounted.snap());
        for (name, state) in &self.states {
            assert!(shown.contains(name), "{what}: {name} is not among {shown:?}");
            assert_same(&listing(&self.mounted.snap().join(name)), state, &format!("{what}: {name}"));
        }
    }

    fn verify(&self) {
        let said = self.mounted.ok(["archive", "verify"]);
        assert!(said.contains("no problems"), "{said}");
        for name in names(&self.archive()) {
            let is_own = ["archive", "index"].contains(&name.as_str());
            assert!(is_own || name.ends_with(".increment"), "{name} is left over");
        }
    }

    /// What would change the archive is refused, in words, before anything is done.
    fn refuses_to_change(&self, word: &str) {
        let archive = self.archive();
        let (listed, files) = (self.mounted.ok(["list", "--json"]), names(&archive));
        let archive = archive.to_str().unwrap();
        for args in [
            &["roll", "--keep", "1"][..],
            &["roll", "-n"],
            &["roll", "--archive", archive],
            &["archive", "prune", "--keep", "1"],
            &["archive", "merge", "--per", "year"],
            &["archive", "join", "/tmp"],
        ] {
            let said = self.mounted.fails(1, args);
            assert!(
                said.contains(word) && said.contains(archive) && said.contains("Nothing was changed"),
                "{args:?}: {said}"
            );
        }
        assert_eq!(self.mounted.ok(["list", "--json"]), listed);
        assert_eq!(names(&self.archive()), files);
    }

    /// A time copied out is as it was.
    fn compare_copy(&self, args: &[&str], name: &str) {
        let out = self.mounted.dir.path().join("out");
        let mut all = vec!["restore"];
        all.extend(args);
        all.extend(["--to", out.to_str().unwrap()]);
        self.mounted.ok(all);
        assert_same(&listing(&out), &self.states[name], &format!("{args:?}"));
        fs::remove_dir_all(&out).unwrap();
    }
}

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

#[test]
fn what_is_repaired_is_shown_again() {
    if !can_mount() {
        return;
    }
    let mut rolled = Rolled::several(6);
    rolled.compare("whole");
    let middle = rolled.increments()[2].clone();
    let aside = rolled.mounted.dir.path().join("aside");
    let repairs: [&[&str]; 3] = [&["archive", "verify"], &["archive", "list"], &["roll", "--name", "more"]];
    for repair in repairs {
        fs::rename(&middle, &aside).unwrap();
        let output = rolled.mounted.run(["archive", "verify"]);
        assert!(!output.status.success());
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.starts_with("4 increments, ") && said.contains("problem"), "{said}");
        assert_eq!(names(&rolled.mounted.snap()), ["live", "v3", "v4", "v5"]);
        assert!(!rolled.mounted.snap().join("v0").exists());
        fs::rename(&aside, &middle).unwrap();
        let state = listing(&rolled.live());
        rolled.mounted.ok(repair);
        if repair[0] == "roll" {
            rolled.states.insert("more".into(), state);
        }
        rolled.compare(&format!("{repair:?}"));
    }
    let file = File::options().read(true).write(true).open(&middle).unwrap();
    let len = file.metadata().unwrap().len();
    // The index has what a damaged head says: its time is shown all the same, and it is told.
    let mut byte = [0];
    file.read_exact_at(&mut byte, 20).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 20).unwrap();
    for command in ["list", "verify"] {
        let output = rolled.mounted.run(["archive", command, "--json"]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let problem = told[0]["problems"][0].as_str().unwrap();
        assert!(problem.contains(middle.to_str().unwrap()) && problem.contains("cannot be relied on"), "{problem}");
        let damaged = |at: usize| told[0]["increments"][at]["damaged"].as_bool().unwrap();
        assert_eq!((damaged(1), damaged(2), damaged(3)), (false, true, false), "{command}");
        assert_eq!(told[0]["increments"][2]["reachable"], true);
        assert!(rolled.mounted.snap().join("v2").exists());
    }
    let said = rolled.mounted.run(["archive", "list"]).stdout;
    assert_eq!(String::from_utf8(said).unwrap().lines().filter(|line| line.ends_with("  damaged")).count(), 1);
    file.write_all_at(&byte, 20).unwrap();
    // One that was read in part is not counted.
    file.write_all_at(&[0; 8], len - 8).unwrap();
    let output = rolled.mounted.run(["archive", "verify"]);
    let (said, problems) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(said.starts_with("5 increments, "), "{said}");
    assert!(problems.contains("its end is missing or was overwritten"), "{problems}");
    // Away when the store is mounted, and back before it is again.
    file.write_all_at(b"pitfsend", len - 8).unwrap();
    rolled.mounted.umount();
    fs::rename(rolled.archive(), &aside).unwrap();
    rolled.mounted.mount(&[]);
    assert_eq!(names(&rolled.mounted.snap()).iter().filter(|name| name.starts_with('v')).count(), 1);
    fs::rename(&aside, rolled.archive()).unwrap();
    rolled.verify();
    rolled.compare("back");
}

/// Does harm to a file.
type Damage = fn(&Path);

/// What can be wrong with an increment's file.
fn damages() -> Vec<(&'static str, Damage)> {
    fn write_in(path: &Path, at: impl Fn(u64) -> u64) {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let at = at(file.metadata().unwrap().len());
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x41], at).unwrap();
    }
    vec![
        ("the first byte", |path| write_in(path, |_| 0)),
        ("the header", |path| write_in(path, |_| 70)),
        ("the middle", |path| write_in(path, |len| len / 2)),
        ("three quarters", |path| write_in(path, |len| len * 3 / 4)),
        ("the last byte", |path| write_in(path, |len| len - 1)),
        ("cut in half", |path| {
            let file = File::options().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
        ("cut by a byte", |path| {
            let file = File::options().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        }),
        ("longer", |path| {
            let file = File::options().write(true).open(path).unwrap();
            let len = file.metadata().unwrap().len();
            file.write_all_at(b"more", len).unwrap();
        }),
        ("empty", |path| fs::write(path, "").unwrap()),
        ("missing", |path| fs::remove_file(path).unwrap()),
        ("something else", |path| fs::write(path, random_bytes(3, 9000)).unwrap()),
        ("of another store", |path| {
            let other = Rolled::several(2);
            fs::copy(&other.increments()[0], path).unwrap();
        }),
        ("another of the same archive", |path| {
            let first = names(path.parent().unwrap()).into_iter().find(|name| name.ends_with(".increment")).unwrap();
            fs::copy(path.with_file_name(first), path).unwrap();
        }),
    ]
}

/// Reads all of a tree; whether every byte of it was there. What is there has to be as it was.
fn is_whole(root: &Path, state: &[Shown], what: &str) -> bool {
    let mut whole = true;
    for shown in state {
        let path = root.join(&shown.path);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => match fs::read(&path) {
                Ok(bytes) => assert_eq!(
                    xxhash_rust::xxh3::xxh3_64(&bytes),
                    shown.content,
                    "{what}: {} has other bytes",
                    path.display()
                ),
                Err(_) => whole = false,
            },
            Ok(_) => {}
            Err(_) => whole = false,
        }
    }
    whole
}

#[test]
fn what_is_wrong_with_an_archive_is_named_and_the_rest_is_read() {
    if !can_mount() {
        return;
    }
    let rolled = Rolled::several(7);
    let mounted = &rolled.mounted;
    mounted.umount();
    let aside = mounted.dir.path().join("aside");
    assert!(Command::new("cp").arg("-a").arg(rolled.archive()).arg(&aside).status().unwrap().success());
    const DAMAGED: usize = 3;
    for keeps_index in [true, false] {
        for (what, damage) in damages() {
            let what = format!("{what}, {}", if keeps_index { "with its index" } else { "without an index" });
            let path = rolled.increments()[DAMAGED].clone();
            let file = path.file_name().unwrap().to_str().unwrap().to_string();
            damage(&path);
            if !keeps_index {
                fs::remove_file(rolled.archive().join("index")).unwrap();
            }
            mounted.mount(&[]);
            let output = mounted.run(["archive", "verify"]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{what}: {said}");
            // Without an index nobody knows what a missing file was called, only where the others do not join.
            let names_file = said.contains(&file) || what == "missing, without an index";
            assert!(names_file, "{what}: the file is not named: {said}");
            assert!(said.contains("cannot be"), "{what}: the times are not named: {said}");
            let shown = names(&mounted.snap());
            let mut lost = 0;
            for (at, (name, state)) in rolled.states.iter().enumerate() {
                let root = mounted.snap().join(name);
                if !shown.contains(name) {
                    assert!(at <= DAMAGED, "{what}: {name} is not shown: {said}");
                    lost += 1;
                } else if at > DAMAGED {
                    assert_same(&listing(&root), state, &format!("{what}: {name}"));
                } else if !is_whole(&root, state, &format!("{what}: {name}")) {
                    lost += 1;
                }
            }
            // With an index only what is read of the file itself can be lost; a byte that nothing needs is not.
            if !keeps_index && !what.contains("byte") {
                assert!(lost > 0, "{what}: nothing was lost");
            }
            mounted.check();
            mounted.umount();
            fs::remove_dir_all(rolled.archive()).unwrap();
            assert!(Command::new("cp").arg("-a").arg(&aside).arg(rolled.archive()).status().unwrap().success());
        }
    }
    mounted.mount(&[]);
    rolled.compare("as it was");
}

#[test]
fn the_index_is_made_anew() {
    if !can_mount() {
        return;
    }
    let mut rolled = Rolled::several(5);
    let index = rolled.archive().join("index");
    let damages: [(&str, Damage); 5] = [
        ("deleted", |index| fs::remove_file(index).unwrap()),
        ("empty", |index| fs::write(index, "").unwrap()),
        ("something else", |index| fs::write(index, random_bytes(4, 70_000)).unwrap()),
        ("cut", |index| {
            let file = File::options().write(true).open(index).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
        ("damaged", |index| {
            let file = File::options().write(true).open(index).unwrap();
            for at in (0..file.metadata().unwrap().len()).step_by(1000) {
                file.write_all_at(&[0x5a; 40], at).unwrap();
            }
        }),
    ];
    for (at, (what, damage)) in damages.into_iter().enumerate() {
        rolled.mounted.umount();
        damage(&index);
        rolled.mounted.mount(&[]);
        rolled.compare(what);
        rolled.change(20 + at as u64);
        rolled.roll(what);
        rolled.verify();
    }
    // One that is older than the archive.
    rolled.mounted.umount();
    let old = fs::read(&index).unwrap();
    rolled.mounted.mount(&[]);
    rolled.change(40);
    rolled.roll("newer");
    rolled.mounted.umount();
    fs::write(&index, old).unwrap();
    rolled.mounted.mount(&[]);
    rolled.compare("an old index");
    rolled.verify();
    rolled.mounted.check();
}

/// Something is mounted on a directory, as long as it lives.
struct MountedOn(PathBuf);

impl MountedOn {
    /// Itself, so that nothing can be written there.
    fn read_only(directory: &Path) -> Option<MountedOn> {
        let mount = |args: &[&str]| Command::new("mount").args(args).arg(directory).output().unwrap().status.success();
        if !is_root() || !mount(&["--bind", directory.to_str().unwrap()]) {
            eprintln!("not run: nothing can be mounted here");
            return None;
        }
        let mounted = MountedOn(directory.to_path_buf());
        assert!(mount(&["-o", "remount,ro,bind"]));
        Some(mounted)
    }
}

impl Drop for MountedOn {
    fn drop(&mut self) {
        let _gone_already = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn an_archive_that_may_only_be_read_is_read() {
    if !can_mount() {
        return;
    }
    let mut rolled = Rolled::several(3);
    let index = rolled.archive().join("index");
    rolled.mounted.umount();
    let old = fs::read(&index).unwrap();
    rolled.mounted.mount(&[]);
    rolled.roll("v3");
    rolled.change(9);
    // The index may be what it should be, have too little, or be damaged or missing.
    let damages: [(&str, &dyn Fn()); 4] = [
        ("as it is", &|| {}),
        ("old", &|| fs::write(&index, &old).unwrap()),
        ("damaged", &|| fs::write(&index, random_bytes(4, 70_000)).unwrap()),
        ("missing", &|| fs::remove_file(&index).unwrap()),
    ];
    for (what, damage) in damages {
        rolled.mounted.umount();
        damage();
        let before = names(&rolled.archive());
        let bytes = fs::read(&index).ok();
        let Some(read_only) = MountedOn::read_only(&rolled.archive()) else { return };
        for is_mounted in [false, true] {
            if is_mounted {
                rolled.mounted.mount(&[]);
                rolled.compare(what);
            }
            rolled.compare_copy(&["v1"], "v1");
            let said = rolled.mounted.ok(["archive", "verify"]);
            let increments = rolled.increments().len();
            assert!(
                said.starts_with(&format!("{increments} increments")) && said.contains("no problems"),
                "{what}: {said}"
            );
            assert_eq!(rolled.mounted.ok(["archive", "list"]).lines().count(), 1 + increments, "{what}");
            rolled.refuses_to_change("read-only");
        }
        rolled.mounted.ok(["archive", "detach"]);
        let said = rolled.mounted.fails(1, ["roll", "--archive", rolled.archive().to_str().unwrap()]);
        assert!(said.contains("read-only"), "{said}");
        rolled.mounted.ok(["archive", "attach", rolled.archive().to_str().unwrap()]);
        rolled.compare(&format!("{what}, attached again"));
        assert_eq!((names(&rolled.archive()), fs::read(&index).ok()), (before, bytes), "{what}: something was written");
        drop(read_only);
        // While it stays mounted the archive can be written to again.
        rolled.change(10);
        rolled.roll(&format!("after {what}"));
        rolled.verify();
        rolled.mounted.remount();
        rolled.compare(&format!("after {what}"));
    }
    rolled.mounted.umount();
    rolled.mounted.check();
}

/// An index that cannot be written for lack of room hides nothing, and a roll says what there is no room for.
#[test]
fn an_archive_on_a_full_disk_is_read() {
    if !can_mount() {
        return;
    }
    let mut rolled = Rolled::new();
    fs::create_dir(rolled.archive()).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=12m", "pitfs-test"]).arg(rolled.archive());
    if !is_root() || !mount.status().unwrap().success() {
        eprintln!("not run: nothing can be mounted here");
        return;
    }
    let _disk = MountedOn(rolled.archive());
    for i in 0..4 {
        rolled.change(i);
        rolled.roll(&format!("v{i}"));
    }
    rolled.change(4);
    rolled.mounted.umount();
    fs::remove_file(rolled.archive().join("index")).unwrap();
    let filler = rolled.archive().join("filler");
    let mut file = File::create(&filler).unwrap();
    while std::io::Write::write(&mut file, &[1; 4096]).is_ok_and(|written| written > 0) {}
    drop(file);
    rolled.mounted.mount(&[]);
    rolled.compare("on a full disk");
    assert!(rolled.mounted.ok(["archive", "verify"]).contains("no problems"));
    let increments = rolled.increments();
    let said = rolled.mounted.fails(1, ["roll", "--keep", "1", "--name", "v4"]);
    let archive = rolled.archive();
    assert!(said.contains(&format!("no room in the archive {}", archive.display())), "{said}");
    assert!(said.contains("archive prune") && !said.contains("the store"), "{said}");
    assert_eq!(rolled.increments(), increments);
    rolled.states.insert("v4".into(), listing(&rolled.live()));
    rolled.compare("after a roll that did not fit");
    // Letting times go needs no room.
    assert!(rolled.mounted.ok(["archive", "prune", "--keep", "2"]).contains("1 time went"));
    rolled.states.remove("v0");
    rolled.compare("pruned");
    rolled.mounted.remount();
    rolled.compare("pruned, mounted again");
    fs::remove_file(&filler).unwrap();
    rolled.roll("v5");
    rolled.compare("with room again");
    rolled.verify();
    rolled.mounted.umount();
    rolled.mounted.check();
}

#[test]
fn an_increment_that_cannot_be_read_does_not_hide_the_others() {
    if !can_mount() {
        return;
    }
    let mut rolled = Rolled::new();
    for i in 0..3 {
        rolled.change(i);
        rolled.roll(&format!("v{i}"));
    }
    rolled.change(3);
    rolled.mounted.ok(["roll", "--keep", "1", "--name", "v3"]);
    rolled.mounted.umount();
    // Reading it fails, as of a bad block.
    let oldest = rolled.increments().into_iter().next().unwrap();
    fs::rename(&oldest, oldest.with_extension("away")).unwrap();
    fs::create_dir(&oldest).unwrap();
    rolled.mounted.mount(&[]);
    let list = rolled.mounted.json(&["list"]);
    let states: Vec<_> =
        list.as_array().unwrap().iter().map(|one| (one["name"].clone(), one["state"].clone())).collect();
    let expected = [("v0", "missing"), ("v1", "archived"), ("v2", "archived"), ("v3", "active")];
    assert_eq!(states, expected.map(|(name, state)| (name.into(), state.into())));
    let status = rolled.mounted.json(&["status"]);
    let problems = status["archives"][0]["problems"].to_string();
    assert!(problems.contains(oldest.file_name().unwrap().to_str().unwrap()), "{problems}");
    rolled.mounted.umount();
}
