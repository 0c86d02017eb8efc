//! Snapshots kept at a target, and read from there when the store is gone.

mod mounted;

use mounted::*;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

fn fill(live: &Path) {
    fs::create_dir_all(live.join("a/deep/er")).unwrap();
    for number in 0..300 {
        fs::write(live.join(format!("a/{number}")), format!("file {number}\n").repeat(number)).unwrap();
    }
    let large: Vec<u8> = (0..2_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(live.join("a/deep/large"), large).unwrap();
    fs::hard_link(live.join("a/7"), live.join("a/deep/er/seven")).unwrap();
    symlink("../nowhere", live.join("a/link")).unwrap();
    fs::set_permissions(live.join("a/8"), fs::Permissions::from_mode(0o751)).unwrap();
    rustix::fs::setxattr(live.join("a/9"), "user.a", b"value", rustix::fs::XattrFlags::empty()).unwrap();
}

fn change(live: &Path, round: usize) {
    fs::write(live.join(format!("a/{round}")), format!("changed in {round}")).unwrap();
    fs::remove_file(live.join(format!("a/{}", 100 + round))).unwrap();
    fs::create_dir(live.join(format!("new {round}"))).unwrap();
    fs::rename(live.join(format!("a/{}", 200 + round)), live.join(format!("new {round}/moved"))).unwrap();
    let large = fs::OpenOptions::new().write(true).open(live.join("a/deep/large")).unwrap();
    large.write_all_at(&[0xa5, round as u8], round as u64 * 100_000).unwrap();
}

/// A store with a target, and what its snapshots show.
fn backed_up(mounted: &Mounted, target: &Path, how: &[&str]) -> Vec<(String, Vec<Shown>)> {
    fs::create_dir(target).unwrap();
    let add = [&["target", "add", "usb", target.to_str().unwrap()], how].concat();
    mounted.ok(add);
    fill(&mounted.live());
    let mut moments = Vec::new();
    for round in 0..5 {
        let name = format!("m{round}");
        mounted.ok(["snap", &name]);
        moments.push((name.clone(), listing(&mounted.snap().join(&name))));
        // Some are written later, all at once, and one differs from the first alone.
        match round {
            0 | 1 => drop(mounted.ok(["backup"])),
            3 => drop(mounted.ok(["backup", "--since-full", &name])),
            _ => {}
        }
        change(&mounted.live(), round);
    }
    mounted.ok(["backup", "--all-snapshots"]);
    moments
}

#[test]
fn the_store_is_gone_and_every_moment_is_there() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let dir = mounted.dir.path().to_path_buf();
    let (target, key, old) = (dir.join("usb"), dir.join("key"), dir.join("old"));
    let moments = backed_up(&mounted, &target, &["--key-file", key.to_str().unwrap()]);
    let listed = mounted.ok(["set", "list"]);
    assert!(listed.matches("incremental").count() == 3 && listed.contains("differential"), "{listed}");
    assert!(mounted.ok(["set", "verify"]).contains("5 sets"));
    assert!(mounted.ok(["backup"]).contains("there already"));
    mounted.umount();
    fs::remove_dir_all(mounted.store()).unwrap();

    fs::create_dir(&old).unwrap();
    let pitfs = |args: &[&str]| {
        let output = Command::new(PITFS).args(args).env("PITFS_KEY_FILE", &key).current_dir(&dir).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.success(), text)
    };
    let (target, old_text) = (target.to_str().unwrap(), old.to_str().unwrap());
    let without = Command::new(PITFS).args(["mount", target, old_text]).output().unwrap();
    assert!(String::from_utf8_lossy(&without.stderr).contains("PITFS_KEY_FILE"), "{without:?}");
    let (is_mounted, text) = pitfs(&["mount", target, old_text]);
    assert!(is_mounted, "{text}");
    let _ends = Ends(&old);
    for (name, wanted) in &moments {
        assert_eq!(&listing(&old.join(name)), wanted, "{name}");
    }
    assert_eq!(listing(&old.join("live")), moments.last().unwrap().1);
    let mut value = [0; 5];
    rustix::fs::getxattr(old.join("m4/a/9"), "user.a", &mut value).unwrap();
    assert_eq!(&value, b"value");
    assert_eq!(fs::write(old.join("live/x"), "x").unwrap_err().raw_os_error(), Some(libc_erofs()));
    let (_, differences) = pitfs(&["-s", old_text, "diff", "m1", "m2"]);
    for line in ["M a/1", "- a/101", "+ new 1/", "R a/201 -> new 1/moved"] {
        assert!(differences.contains(line), "{line}: {differences}");
    }
    assert!(!differences.contains("a/150"), "{differences}");
    // Of the large file one track of 64 KiB differs; of what did not change, none.
    let (_, tracks) = pitfs(&["-s", old_text, "diff", "m1", "m2", "--tracks", "--json"]);
    assert!(tracks.contains("a/deep/large") && tracks.contains("a/1\""), "{tracks}");
    assert!(!tracks.contains("a/150"), "{tracks}");
    let same = pitfs(&["-s", old_text, "diff", "m4", "live", "--tracks"]);
    assert!(same.0 && same.1.is_empty(), "{same:?}");
    let (_, versions) = pitfs(&["-s", old_text, "versions", "a/deep/large"]);
    assert_eq!(versions.lines().count(), 1 + 5, "{versions}");
    // And without a mount.
    assert!(pitfs(&["-s", target, "list"]).1.contains("m3"));
    let (is_done, text) = pitfs(&["-s", target, "restore", "m2", "a/deep", "--to", "out"]);
    assert!(is_done, "{text}");
    assert_eq!(
        fs::read(dir.join("out/a/deep/large")).or(fs::read(dir.join("out/deep/large"))).unwrap(),
        fs::read(old.join("m2/a/deep/large")).unwrap()
    );
}

fn libc_erofs() -> i32 {
    rustix::io::Errno::ROFS.raw_os_error()
}

/// Unmounts, whatever happened.
struct Ends<'a>(&'a Path);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        let _ended = Command::new(PITFS).arg("umount").arg(self.0).status();
    }
}

#[test]
fn a_target_that_is_not_there_is_not_made() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let target = mounted.dir.path().join("usb");
    backed_up(&mounted, &target, &["--no-encryption"]);
    mounted.ok(["snap", "more"]);
    let away = mounted.dir.path().join("away");
    fs::rename(&target, &away).unwrap();
    assert!(mounted.fails(1, ["backup"]).contains("is its disk mounted?"));
    // Where a disk is mounted, an empty directory is when it is not.
    fs::create_dir(&target).unwrap();
    assert!(mounted.fails(1, ["backup"]).contains("is its disk mounted?"));
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    let other = mounted.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    mounted.ok(["target", "add", "other", other.to_str().unwrap(), "--no-encryption"]);
    fs::copy(other.join("target"), target.join("target")).unwrap();
    assert!(mounted.fails(1, ["backup", "--target", "usb"]).contains("another target is there"));
    fs::remove_dir_all(&target).unwrap();
    fs::rename(&away, &target).unwrap();
    mounted.ok(["backup", "--target", "usb"]);
    assert!(mounted.fails(1, ["backup"]).contains("say which: other, usb"));
    let inside = mounted.live().join("inside");
    fs::create_dir(&inside).unwrap();
    let message = mounted.fails(1, ["target", "add", "inside", inside.to_str().unwrap(), "--no-encryption"]);
    assert!(message.contains("lost with it"), "{message}");
    mounted.ok(["target", "forget", "other"]);
    assert!(mounted.fails(1, ["target", "forget", "other"]).contains("there are: usb"));
    // A name that cannot be has nothing made for it.
    let new = mounted.dir.path().join("new");
    fs::create_dir(&new).unwrap();
    mounted.fails(1, ["target", "add", "a/b", new.to_str().unwrap(), "--no-encryption"]);
    assert_eq!(fs::read_dir(&new).unwrap().count(), 0);
    assert!(!mounted.ok(["target", "list"]).contains("other"));
}

/// Bytes that cannot be compressed.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as u8
    };
    std::iter::repeat_with(next).take(300_000).collect()
}

/// The store's disk loses some of a file of that noise.
fn lose_some(mounted: &Mounted) {
    mounted.umount();
    let volume = mounted.store().join("volume.0");
    let mut bytes = fs::read(&volume).unwrap();
    let lost = &noise(1)[70_000..70_064];
    let at = bytes.windows(64).position(|some| some == lost).expect("noise is stored as it is");
    bytes[at] ^= 1;
    fs::write(&volume, bytes).unwrap();
    mounted.mount(&[]);
}

#[test]
fn what_could_not_be_read_is_named_and_never_other_bytes() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let live = mounted.live();
    for (seed, name) in [(1, "one"), (2, "two")] {
        fs::write(live.join(name), noise(seed)).unwrap();
    }
    mounted.ok(["snap", "then"]);
    let two = fs::read(live.join("two")).unwrap();
    lose_some(&mounted);
    let target = mounted.dir.path().join("usb");
    fs::create_dir(&target).unwrap();
    mounted.ok(["target", "add", "usb", target.to_str().unwrap(), "--no-encryption"]);
    let message = mounted.fails(3, ["backup"]);
    assert!(message.contains("one: "), "{message}");
    assert!(mounted.ok(["set", "list"]).contains("incomplete"));
    let old = mounted.dir.path().join("old");
    fs::create_dir(&old).unwrap();
    assert!(Command::new(PITFS).arg("mount").arg(&target).arg(&old).status().unwrap().success());
    let _ends = Ends(&old);
    assert_eq!(fs::read(old.join("then/two")).unwrap(), two);
    assert!(fs::read(old.join("then/one")).is_err());
    // Nothing is made over it.
    mounted.ok(["snap", "later"]);
    assert!(mounted.fails(3, ["backup"]).contains("one: "));
    assert!(!mounted.ok(["set", "list"]).contains("incremental"));
}

/// The process of a mount at a directory, as its daemon's lock in a scratch store says it.
fn daemon_of(scratch: &Path) -> rustix::process::Pid {
    let lock = fs::read_to_string(scratch.join("lock")).unwrap();
    let number = lock.lines().find_map(|line| line.strip_prefix("process ")?.parse().ok()).unwrap();
    rustix::process::Pid::from_raw(number).unwrap()
}

/// What is made to show a target goes when it is shown no longer; of a process that was killed, with the next.
#[test]
fn nothing_is_left_of_what_shows_a_target() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let dir = mounted.dir.path().to_path_buf();
    let [target, old, scratch] = ["usb", "old", "scratch"].map(|name| dir.join(name));
    backed_up(&mounted, &target, &["--no-encryption"]);
    [&old, &scratch].into_iter().for_each(|path| fs::create_dir(path).unwrap());
    let pitfs = |args: &[&str]| {
        let output = Command::new(PITFS).args(args).env("TMPDIR", &scratch).current_dir(&dir).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let left = || fs::read_dir(&scratch).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    pitfs(&["-s", "usb", "list"]);
    assert_eq!(left(), [""; 0].map(std::path::PathBuf::from));
    pitfs(&["mount", "usb", "old"]);
    let _ends = Ends(&old);
    let [shown] = &left()[..] else { panic!("{:?}", left()) };
    // Somebody else looks into it meanwhile, and leaves it alone.
    pitfs(&["-s", "usb", "list"]);
    assert_eq!(left(), std::slice::from_ref(shown));
    rustix::process::kill_process(daemon_of(shown), rustix::process::Signal::KILL).unwrap();
    wait_for("the end of the daemon", || fs::read_dir(&old).is_err());
    detach(&old);
    pitfs(&["-s", "usb", "list"]);
    assert_eq!(left().len(), 0);
    pitfs(&["mount", "usb", "old"]);
    pitfs(&["umount", "old"]);
    wait_for("the end of the scratch store", || left().is_empty());
}

/// One target keeps what several stores bring, each by itself.
#[test]
fn stores_share_a_target_and_nothing_else() {
    if !can_mount() {
        return;
    }
    let (one, two) = (Mounted::new(), Mounted::new());
    let target = one.dir.path().join("usb");
    let moments = backed_up(&one, &target, &["--no-encryption"]);
    let key = two.dir.path().join("key");
    two.ok(["target", "add", "usb", target.to_str().unwrap(), "--key-file", key.to_str().unwrap()]);
    fs::write(two.live().join("secret"), "of two").unwrap();
    two.ok(["snap", "m0"]);
    two.ok(["backup"]);
    assert_eq!(two.ok(["set", "list"]).lines().count(), 2);
    assert_eq!(one.ok(["set", "list"]).lines().count(), 1 + moments.len());
    let list = |of: &Path| {
        let output = Command::new(PITFS).arg("-s").arg(of).arg("list").env_remove("PITFS_KEY_FILE").output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    let both = list(&target);
    assert!(both.contains("several stores; say which"), "{both}");
    let stores: Vec<_> = both.split([' ', ',', '\n']).filter(|word| Path::new(word).is_dir()).collect();
    let told: Vec<String> =
        stores.iter().filter(|path| path.len() > target.as_os_str().len()).map(|path| list(Path::new(path))).collect();
    assert_eq!(told.len(), 2, "{both}");
    assert!(
        told.iter().any(|text| text.contains("m4")) && told.iter().any(|text| text.contains("are encrypted")),
        "{told:?}"
    );
}

/// Runs a command that is to succeed; what it printed.
fn pitfs_in(dir: &Path, args: &[&str]) -> String {
    let output = Command::new(PITFS).args(args).current_dir(dir).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{args:?}: {text}");
    text
}

/// From a target alone there is a store again, with its newest moment or with all, in which work goes on.
#[test]
fn a_store_comes_back_from_a_target() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let dir = mounted.dir.path().to_path_buf();
    let (target, key) = (dir.join("usb"), dir.join("key"));
    let mut moments = backed_up(&mounted, &target, &["--key-file", key.to_str().unwrap()]);
    // By its name as well, while the store is there.
    mounted.ok(["restore", "m1", "a/deep", "--from", "usb", "--to", dir.join("out").to_str().unwrap()]);
    assert_eq!(
        fs::read(dir.join("out/a/deep/large")).unwrap(),
        fs::read(mounted.snap().join("m1/a/deep/large")).unwrap()
    );
    mounted.umount();
    fs::remove_dir_all(mounted.store()).unwrap();
    pitfs_in(&dir, &["restore", "--from", "usb", "--key-file", "key", "m3", "a", "--to", "out3"]);
    assert_eq!(fs::read_to_string(dir.join("out3/a/2")).unwrap(), "changed in 2");

    for (store, how, count) in [("all", &["--history"][..], 5), ("one", &[][..], 1)] {
        let create = [&["create", store, "--from-set", "usb", "--key-file", "key"][..], how].concat();
        let told = pitfs_in(&dir, &create);
        assert!(told.contains(&format!("{count} snapshot")), "{told}");
        assert!(pitfs_in(&dir, &["-s", store, "check"]).contains("no problems"));
        let old = dir.join(format!("mount-{store}"));
        fs::create_dir(&old).unwrap();
        pitfs_in(&dir, &["mount", store, old.to_str().unwrap()]);
        let _ends = Ends(&old);
        for (name, wanted) in moments.iter().rev().take(count) {
            assert_eq!(&listing(&old.join(name)), wanted, "{name} of {store}");
        }
        assert_eq!(listing(&old.join("live")), moments.last().unwrap().1);
        // Work goes on: new names, snapshots and backups.
        let [before, after] = [&moments.last().unwrap().0, &format!("after {store}")];
        fs::write(old.join(format!("live/a/new of {store}")), "new").unwrap();
        fs::write(old.join("live/a/deep/large"), format!("small in {store}")).unwrap();
        pitfs_in(&old, &["snap", after]);
        assert_eq!(&listing(&old.join(before)), &moments.last().unwrap().1, "{before} of {store}");
        let differences = pitfs_in(&old, &["diff", before, after]);
        assert_eq!(differences.lines().count(), 2, "{differences}");
        pitfs_in(&old, &["target", "add", "usb", target.to_str().unwrap(), "--key-file", key.to_str().unwrap()]);
        // As the same store, which has what is there already.
        let told = pitfs_in(&old, &["backup", "--all-snapshots"]);
        assert!(
            told.contains(&format!("{before}: there already"))
                && told.lines().last().unwrap().contains("since the last,"),
            "{told}"
        );
        moments.push((after.clone(), listing(&old.join(after))));
        pitfs_in(&old, &["umount", old.to_str().unwrap()]);
        assert!(pitfs_in(&dir, &["-s", store, "check"]).contains("no problems"));
    }
    let again = Command::new(PITFS).args(["create", "one", "--from-set", "usb"]).current_dir(&dir).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    let none = Command::new(PITFS).args(["create", "two", "--from-set", "out"]).current_dir(&dir).output().unwrap();
    assert!(String::from_utf8_lossy(&none.stderr).contains("is no target"), "{none:?}");
    assert!(!dir.join("two").exists());
}

/// A store comes back with tracks of another size. It is another store to the target, and keeps its sets beside those.
#[test]
fn a_store_comes_back_with_other_tracks() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let dir = mounted.dir.path().to_path_buf();
    let target = dir.join("usb");
    let moments = backed_up(&mounted, &target, &["--no-encryption"]);
    let targets = mounted.json(&["target", "list"]);
    let first = target.join(targets[0]["store"].as_str().unwrap());
    let first = first.to_str().unwrap();
    mounted.umount();
    let snap = dir.join("back");
    fs::create_dir(&snap).unwrap();
    for size in ["32K", "1M"] {
        let store = format!("store-{size}");
        let made = ["create", &store, "--from-set", first, "--history", "--track-size", size, "--compress", "zstd"];
        assert!(pitfs_in(&dir, &made).contains("5 snapshots"));
        let ok = |args: &[&str]| pitfs_in(&dir, &[&["-s", &store], args].concat());
        assert!(ok(&["check"]).contains("no problems"));
        pitfs_in(&dir, &["mount", &store, snap.to_str().unwrap()]);
        let _ends = Ends(&snap);
        for (name, wanted) in &moments {
            assert_eq!(&listing(&snap.join(name)), wanted, "{size}: {name}");
        }
        change(&snap.join("live"), 50);
        ok(&["snap", "later"]);
        let wanted = listing(&snap.join("later"));
        ok(&["target", "add", "disk", target.to_str().unwrap(), "--no-encryption"]);
        let told = ok(&["backup"]);
        assert!(told.contains("in full"), "{told}");
        change(&snap.join("live"), 51);
        ok(&["snap", "last"]);
        assert!(ok(&["backup"]).contains("since the last"));
        assert!(ok(&["set", "verify"]).contains("2 sets") && ok(&["set", "list"]).contains("last"));
        ok(&["restore", "later", "--from", "disk", "--to", &format!("out-{size}")]);
        let shape = |all: &[Shown]| all.iter().map(|one| (one.path.clone(), one.size, one.content)).collect::<Vec<_>>();
        assert_eq!(shape(&listing(&dir.join(format!("out-{size}")))), shape(&wanted));
        // What is of the other store cannot be looked into in place: a track is something else there.
        let refused =
            Command::new(PITFS).args(["-s", &store, "restore", "m1", "--from", first]).current_dir(&dir).output();
        let told = String::from_utf8(refused.unwrap().stderr).unwrap();
        assert!(told.contains("keeps files differently"), "{told}");
    }
}

/// A set that is lost costs the moments that need it, which are named; all others come back.
#[test]
fn what_a_lost_set_had_is_left_out_of_a_store_that_comes_back() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let dir = mounted.dir.path().to_path_buf();
    let target = dir.join("usb");
    let moments = backed_up(&mounted, &target, &["--no-encryption"]);
    let sets = mounted.json(&["set", "list"]);
    let set_of = |name: &str| {
        let set = sets.as_array().unwrap().iter().find(|set| set["snapshot"] == name).unwrap();
        set["set"].as_str().unwrap().to_string()
    };
    let targets = mounted.json(&["target", "list"]);
    let here = target.join(targets[0]["store"].as_str().unwrap());
    let snap = dir.join("back");
    fs::create_dir(&snap).unwrap();
    mounted.umount();
    let brought_back = |store: &str, lost: &str| {
        let made =
            Command::new(PITFS).args(["create", store, "--from-set", "usb", "--history"]).current_dir(&dir).output();
        let made = made.unwrap();
        let told = String::from_utf8(made.stderr).unwrap();
        assert_eq!(made.status.code(), Some(3), "{told}");
        assert!(told.contains(lost) && told.contains("left out"), "{told}");
        pitfs_in(&dir, &["mount", store, snap.to_str().unwrap()]);
        let _ends = Ends(&snap);
        let there: Vec<_> = moments.iter().filter(|(name, _)| snap.join(name).exists()).collect();
        for (name, wanted) in &there {
            assert_eq!(&listing(&snap.join(name)), wanted, "{name}");
        }
        there.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    let last = here.join(format!("{}.set", set_of("m4")));
    fs::rename(&last, dir.join("aside")).unwrap();
    let there = brought_back("one", "m4: the set ");
    assert!(!there.contains(&"m4".to_string()) && there.len() >= 3, "{there:?}");
    // The list of sets is lost as well, and one of them damaged.
    fs::rename(dir.join("aside"), &last).unwrap();
    let mut bytes = fs::read(&last).unwrap();
    let end = bytes.len() - 20;
    bytes[end] ^= 1;
    fs::write(&last, bytes).unwrap();
    fs::remove_file(here.join("catalogue")).unwrap();
    // Which one is the newest nobody knows then, and it is not guessed.
    let newest =
        Command::new(PITFS).args(["restore", "--from", "usb", "--to", "out"]).current_dir(&dir).output().unwrap();
    let told = String::from_utf8(newest.stderr).unwrap();
    assert!(newest.status.code() == Some(1) && told.contains("which moment is the newest"), "{told}");
    let at_time = ["-s", "store", "restore", "--from", "usb", "@now"];
    let at_time = Command::new(PITFS).args(at_time).current_dir(&dir).output().unwrap();
    let told = String::from_utf8(at_time.stderr).unwrap();
    assert!(at_time.status.code() == Some(1) && told.contains("which moment is the newest"), "{told}");
    let there = brought_back("two", &set_of("m4"));
    assert!(!there.contains(&"m4".to_string()) && there.len() >= 3, "{there:?}");
}

/// What changed since a snapshot is known after it was deleted: the next set is made over the last one nevertheless.
#[test]
fn a_difference_needs_no_snapshot_that_was_backed_up() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let target = mounted.dir.path().join("usb");
    fs::create_dir(&target).unwrap();
    mounted.ok(["target", "add", "usb", target.to_str().unwrap(), "--no-encryption"]);
    fill(&mounted.live());
    let mut moments = Vec::new();
    for round in 0..4 {
        let name = format!("m{round}");
        mounted.ok(["snap", &name]);
        moments.push((name.clone(), listing(&mounted.snap().join(&name))));
        let told = mounted.ok(["backup"]);
        let (kind, most) = if round == 0 { ("in full", 4_000_000) } else { ("since the last", 60_000) };
        assert!(told.contains(kind), "{told}");
        let set = fs::read_dir(&target).unwrap().filter_map(|entry| fs::read_dir(entry.unwrap().path()).ok()).flatten();
        let newest = set.map(|entry| entry.unwrap()).filter(|entry| entry.path().extension().is_some());
        let newest = newest.max_by_key(|entry| entry.metadata().unwrap().modified().unwrap()).unwrap();
        assert!(newest.metadata().unwrap().len() < most, "round {round}: {} bytes", newest.metadata().unwrap().len());
        mounted.ok(["delete", &name]);
        change(&mounted.live(), round);
        // What is in use without a name is no part of any moment, and is whole in the next when it has one again.
        if round == 1 {
            fs::remove_dir_all(mounted.live().join("new 0")).unwrap();
        }
    }
    let old = mounted.dir.path().join("old");
    fs::create_dir(&old).unwrap();
    pitfs_in(mounted.dir.path(), &["mount", target.to_str().unwrap(), old.to_str().unwrap()]);
    let _ends = Ends(&old);
    for (name, wanted) in &moments {
        assert_eq!(&listing(&old.join(name)), wanted, "{name}");
    }
}

/// Moments are let go, merged and packed anew, and what stays is what it was.
#[test]
fn moments_are_let_go_and_the_others_stay_whole() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let dir = mounted.dir.path().to_path_buf();
    let target = dir.join("usb");
    let moments = backed_up(&mounted, &target, &["--no-encryption"]);
    let names = || -> Vec<String> {
        let list = mounted.ok(["set", "list"]);
        list.lines().skip(1).map(|line| line.split_whitespace().next().unwrap().to_string()).collect()
    };
    assert!(mounted.fails(1, ["set", "delete", "nothing"]).contains("has no moment"));
    assert!(mounted.fails(1, ["set", "merge", "m1"]).contains("two sets at least"));
    let told = mounted.ok(["set", "delete", "m1", "-n"]);
    assert!(told.contains("would go") && names().len() == 5, "{told}");
    mounted.ok(["set", "delete", "m1"]);
    let kept = mounted.ok(["target", "prune", "--keep-last", "2", "-n"]);
    assert!(kept.contains("m4") && kept.contains("last") && kept.contains("would go"), "{kept}");
    mounted.ok(["set", "merge", "m2", "m3"]);
    assert!(mounted.ok(["set", "list"]).lines().any(|line| line.contains("m3") && line.contains(" full ")));
    mounted.ok(["target", "prune", "--keep-last", "2"]);
    assert_eq!(names()[..2], ["m3", "m4"], "{:?}", names());
    assert!(mounted.ok(["set", "list"]).contains("that was let go, or went into others, and that others need"));
    assert!(mounted.ok(["set", "verify", "--read", "5%"]).contains("no problems"));
    // What an interruption left stays in a dry run, as all does.
    let store = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let left = store.join(".left.set.new");
    fs::write(&left, "half").unwrap();
    mounted.ok(["set", "compact", "--waste", "0%", "-n"]);
    assert!(left.exists());
    let packed = mounted.ok(["set", "compact", "--waste", "0%"]);
    assert!(!left.exists());
    assert!(packed.contains("written anew") || packed.starts_with("0 sets"), "{packed}");
    mounted.ok(["set", "rebuild"]);
    assert_eq!(names()[..2], ["m3", "m4"]);
    assert!(mounted.ok(["set", "verify"]).contains("no problems"));
    // The next is made over what is left.
    change(&mounted.live(), 7);
    mounted.ok(["snap", "m5"]);
    assert!(mounted.ok(["backup"]).contains("since the last"));
    let old = dir.join("old");
    fs::create_dir(&old).unwrap();
    pitfs_in(&dir, &["mount", "usb", "old"]);
    let _ends = Ends(&old);
    for (name, wanted) in moments.iter().skip(3) {
        assert_eq!(&listing(&old.join(name)), wanted, "{name}");
    }
    assert!(!old.join("m2").exists());
    // All of that without the store.
    assert!(pitfs_in(&dir, &["-s", "usb", "set", "list"]).contains("m5"));
    pitfs_in(&dir, &["-s", "usb", "set", "delete", "m3"]);
    assert!(!mounted.ok(["set", "list"]).contains("m3"));
}

/// A passphrase opens what is kept, is changed without a set being written anew, and is not asked for by the store.
#[test]
fn a_passphrase_opens_a_target_and_can_be_changed() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let dir = mounted.dir.path().to_path_buf();
    let (target, old) = (dir.join("usb"), dir.join("old"));
    fs::create_dir(&target).unwrap();
    fs::create_dir(&old).unwrap();
    let with = |variables: &[(&str, &str)], args: &[&str]| {
        // Nobody is there to be asked.
        let mut alone = Command::new("setsid");
        alone.arg("-w").arg(PITFS).args(args).envs(variables.iter().copied()).current_dir(&dir);
        let output = alone.stdin(std::process::Stdio::null()).output().unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    let store = mounted.store();
    let store = store.to_str().unwrap();
    let add = ["-s", store, "target", "add", "usb", "usb", "--passphrase"];
    let (is_done, told) = with(&[], &add);
    assert!(!is_done && told.contains("PITFS_PASSPHRASE"), "{told}");
    assert!(!with(&[("PITFS_PASSPHRASE", "")], &add).0);
    assert_eq!(fs::read_dir(&target).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count(), 0);
    assert!(with(&[("PITFS_PASSPHRASE", "correct horse")], &add).0);
    fs::write(mounted.live().join("secret"), "said to nobody").unwrap();
    mounted.ok(["snap", "m"]);
    mounted.ok(["backup"]);
    assert!(mounted.ok(["target", "list"]).contains(" encrypted"));
    let (is_done, told) = with(&[], &["-s", "usb", "list"]);
    assert!(!is_done && told.contains("PITFS_PASSPHRASE"), "{told}");
    let (is_done, told) = with(&[("PITFS_PASSPHRASE", "wrong")], &["-s", "usb", "list"]);
    assert!(!is_done && told.contains("the passphrase is wrong"), "{told}");
    let (is_done, told) = with(&[("PITFS_PASSPHRASE", "correct horse")], &["mount", "usb", "old"]);
    assert!(is_done, "{told}");
    let ends = Ends(&old);
    assert_eq!(fs::read_to_string(old.join("m/secret")).unwrap(), "said to nobody");
    drop(ends);
    // Another one, by somebody who has the store, and by one who has the target and the passphrase alone.
    let (is_done, told) =
        with(&[("PITFS_NEW_PASSPHRASE", "battery")], &["-s", store, "target", "add-key", "--passphrase"]);
    assert!(is_done && told.matches("passphrase").count() == 2, "{told}");
    assert!(with(&[], &["-s", store, "target", "remove-key", "0"]).0);
    assert!(!with(&[("PITFS_PASSPHRASE", "correct horse")], &["-s", "usb", "list"]).0);
    let battery = [("PITFS_PASSPHRASE", "battery"), ("PITFS_NEW_PASSPHRASE", "staple")];
    assert!(with(&battery, &["-s", "usb", "target", "add-key", "--key-file", "key"]).0);
    assert!(with(&[("PITFS_KEY_FILE", "key")], &["-s", "usb", "set", "verify"]).0);
    mounted.ok(["snap", "n"]);
    assert!(mounted.ok(["backup"]).contains("since the last"));
}

/// What the README says for when the disk is gone, word for word.
#[test]
fn the_walk_of_the_readme() {
    if !can_mount() {
        return;
    }
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let section = readme.split("### When the disk is gone").nth(1).unwrap().split("```").nth(1).unwrap();
    let commands: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    assert!(commands.len() > 10, "{commands:?}");
    let dir = temporary();
    let before = r#"
        set -e
        trap 'pitfs umount --lazy snap; pitfs umount --lazy old' EXIT
        mkdir -p project/docs snap
        echo 'first draft' > project/docs/notes.txt
        pitfs create store --from project
        pitfs -s store snap before
        pitfs mount store snap
        echo 'second draft' > snap/live/docs/notes.txt
        pitfs -s snap snap after
        pitfs umount snap
        trap 'pitfs umount --lazy old' EXIT
    "#;
    let after = "test \"$(pitfs -s store list | wc -l)\" = 3; pitfs -s store check; trap - EXIT";
    let script = format!("{before}\n{}\n{after}\n", commands.join("\n"));
    let path = format!("{}:{}", Path::new(PITFS).parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh").arg("-c").arg(script).current_dir(dir.path()).env("PATH", path).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(told.matches("first draft").count(), 2, "{told}");
    assert!(told.contains("after: there already") && told.contains("2 snapshots"), "{told}");
}

/// What is lost at a target is named by moment and path, and comes again out of the store where that has it.
#[test]
fn what_is_lost_is_named_and_mended_out_of_the_store() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let target = mounted.dir.path().join("usb");
    fs::create_dir(&target).unwrap();
    mounted.ok(["target", "add", "usb", target.to_str().unwrap(), "--no-encryption"]);
    fs::create_dir_all(mounted.live().join("deep/er")).unwrap();
    let mut moments = Vec::new();
    for round in 0..4u64 {
        fs::write(mounted.live().join(format!("deep/er/{round}")), noise(round)).unwrap();
        mounted.ok(["snap", &format!("m{round}")]);
        mounted.ok(["backup"]);
        moments.push(listing(&mounted.snap().join(format!("m{round}"))));
    }
    let list: serde_json::Value = serde_json::from_str(&mounted.ok(["set", "list", "--json"])).unwrap();
    let store = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let object = |at: usize| store.join(format!("{}.set", list[at]["set"].as_str().unwrap()));
    // A bit of the first one's file, and the third as a whole.
    let mut bytes = fs::read(object(0)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(object(0), bytes).unwrap();
    fs::remove_file(object(2)).unwrap();
    let told = mounted.fails(1, ["set", "verify"]);
    for name in ["live:m0 has lost deep/er/0", "live:m3 has lost deep/er/0", "live:m3 has lost deep/er/2"] {
        assert!(told.contains(name), "{name}: {told}");
    }
    assert!(!told.contains("deep/er/1") && !told.contains("live:m1 has lost deep/er/2"), "{told}");
    // The next one needs nothing of what is gone.
    mounted.ok(["snap", "m4"]);
    assert!(mounted.ok(["backup"]).contains("m4: "));
    mounted.ok(["delete", "m1"]);
    let told = mounted.fails(1, ["set", "repair"]);
    assert!(told.contains("\"m1\" has lost something") && !told.contains("m3"), "{told}");
    let told = mounted.fails(1, ["set", "verify"]);
    assert!(told.contains("live:m1 has lost deep/er/0") && !told.contains("live:m0"), "{told}");
    mounted.ok(["set", "delete", "m1"]);
    assert!(mounted.ok(["set", "verify"]).contains("no problems"));
    let old = mounted.dir.path().join("old");
    fs::create_dir(&old).unwrap();
    pitfs_in(mounted.dir.path(), &["mount", target.to_str().unwrap(), old.to_str().unwrap()]);
    let _ends = Ends(&old);
    for (round, wanted) in moments.iter().enumerate().filter(|(round, _)| *round != 1) {
        assert_eq!(&listing(&old.join(format!("m{round}"))), wanted, "m{round}");
    }
}

/// A list of sets that was put back is told from one that is new.
#[test]
fn an_older_list_of_sets_is_not_believed() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let target = mounted.dir.path().join("usb");
    fs::create_dir(&target).unwrap();
    mounted.ok(["target", "add", "usb", target.to_str().unwrap(), "--no-encryption"]);
    fs::write(mounted.live().join("f"), "1").unwrap();
    mounted.ok(["snap", "m0"]);
    mounted.ok(["backup"]);
    let store = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let before = fs::read(store.join("catalogue")).unwrap();
    fs::write(mounted.live().join("f"), "2").unwrap();
    mounted.ok(["snap", "m1"]);
    mounted.ok(["backup", "--level", "19", "--limit", "1G"]);
    fs::write(store.join("catalogue"), before).unwrap();
    for args in [&["backup"][..], &["set", "delete", "m0"], &["set", "compact"]] {
        assert!(mounted.fails(1, args).contains("was put back"), "{args:?}");
    }
    // Whoever only looks sees what is there.
    assert_eq!(mounted.ok(["set", "list"]).lines().count(), 3);
    mounted.ok(["set", "rebuild"]);
    assert_eq!(mounted.ok(["set", "list"]).lines().count(), 3);
    assert!(mounted.ok(["backup"]).contains("there already"));
    // One that is damaged is made anew, and is no older one.
    for (round, content) in [("m2", &b"nonsense"[..]), ("m3", b"")] {
        fs::write(store.join("catalogue"), content).unwrap();
        mounted.ok(["snap", round]);
        assert!(mounted.ok(["backup"]).contains("since the last"));
        assert!(mounted.ok(["backup"]).contains("there already"));
        mounted.ok(["set", "compact"]);
    }
    assert_eq!(mounted.ok(["set", "list"]).lines().count(), 5);
}

/// A moment of a target becomes a base: sharing with what the store still has, and by reading where it has nothing.
#[test]
fn a_moment_of_a_target_becomes_a_base() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let dir = mounted.dir.path().to_path_buf();
    let (target, key) = (dir.join("usb"), dir.join("key"));
    let moments = backed_up(&mounted, &target, &["--key-file", key.to_str().unwrap()]);
    assert!(mounted.fails(2, ["restore", "--from", "usb", "--to-base", "x"]).contains("which snapshot"));
    assert!(mounted.fails(1, ["restore", "none", "--from", "usb", "--to-base", "x"]).contains("has no moment"));
    mounted.ok(["delete", "m1", "m2"]);
    mounted.ok(["restore", "m1", "--from", "usb", "--to-base", "one"]);
    mounted.ok(["delete", "m0", "m3", "m4"]);
    let by_path = [target.to_str().unwrap(), "--key-file", key.to_str().unwrap()];
    mounted.ok([&["restore", "m2", "--from"][..], &by_path, &["--to-base", "two"]].concat());
    assert!(mounted.fails(1, ["restore", "m2", "--from", "usb", "--to-base", "two"]).contains("choose another name"));
    mounted.umount();
    mounted.check();
    mounted.mount(&[]);
    for (name, base) in [("m1", "one"), ("m2", "two")] {
        let (_, wanted) = moments.iter().find(|(moment, _)| moment == name).unwrap();
        assert_eq!(&listing(&mounted.snap().join(base).join("live")), wanted, "{base}");
    }
    fs::write(mounted.snap().join("one/live/a/5"), "changed").unwrap();
    mounted.check();
}

/// Paths, or all, become what they were in a moment that only the target has: with what is still in the store shared, and with
/// nothing read that did not change.
#[test]
fn what_a_target_has_comes_back_in_place() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let dir = mounted.dir.path().to_path_buf();
    let (target, key) = (dir.join("usb"), dir.join("key"));
    let moments = backed_up(&mounted, &target, &["--key-file", key.to_str().unwrap()]);
    let shown = |moment: &str| &moments.iter().find(|(name, _)| name == moment).unwrap().1;
    mounted.ok(["delete", "m1", "m2", "m3"]);
    assert!(mounted.fails(1, ["restore", "none", "--from", "usb", "a"]).contains("has no moment"));
    assert!(mounted.fails(1, ["restore", "m1", "--from", "usb", "no such path"]).contains("nothing was changed"));
    assert!(mounted.fails(2, ["restore", "--from", "usb"]).contains("which snapshot"));
    // One file, which a program has open.
    let open = fs::File::open(mounted.live().join("a/deep/large")).unwrap();
    let before = listing(&mounted.live());
    let told = mounted.ok(["restore", "m1", "--from", "usb", "a/deep/large", "-n"]);
    assert!(told.contains("1 file") && listing(&mounted.live()) == before, "{told}");
    let plan = mounted.json(&["restore", "m1", "--from", "usb", "a/deep/large", "-n"]);
    assert_eq!((&plan["files"], &plan["restored"][0]["name"]), (&1.into(), &"m1".into()), "{plan}");
    let done = mounted.json(&["restore", "m1", "--from", "usb", "a/deep/large"]);
    assert_eq!((&done["files"], &done["restored"]["archived"]), (&1.into(), &true.into()), "{done}");
    let large = shown("m1").iter().find(|shown| shown.path.ends_with("large")).unwrap();
    let mut bytes = vec![0; large.size as usize];
    open.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == fs::read(mounted.live().join("a/deep/large")).unwrap());
    let now = listing(&mounted.live());
    assert_eq!(now.iter().find(|shown| shown.path == large.path).unwrap().content, large.content);
    let others =
        |all: &[Shown]| all.iter().filter(|one| !large.path.starts_with(&one.path)).cloned().collect::<Vec<_>>();
    assert_eq!(others(&now), others(&before));
    drop(open);
    // All of it, by name, by time, and by the directory alone; each can be undone.
    for (moment, from) in
        [("m2", vec!["usb"]), ("m3", vec![target.to_str().unwrap(), "--key-file", key.to_str().unwrap()])]
    {
        let told = mounted.ok([&["restore", moment, "--from"][..], &from].concat());
        let kept = told.trim().rsplit(' ').next().unwrap().to_string();
        assert_eq!(&listing(&mounted.live()), shown(moment), "{moment}");
        assert_eq!(listing(&mounted.snap().join(&kept)).len(), now.len(), "{told}");
        mounted.ok(["restore", &kept]);
        assert_eq!(listing(&mounted.live()), now);
        let again = mounted.ok([&["restore", moment, "--from"][..], &from].concat());
        assert!(again.contains("restored"), "{again}");
        assert!(mounted.ok([&["restore", moment, "--from"][..], &from].concat()).contains("nothing differs"));
        mounted.ok(["restore", &kept]);
    }
    let history = mounted.ok(["history"]);
    assert!(history.contains("restore --from") && history.contains("\"m3\" \"/\""), "{history}");
    // A time is that of the newest moment before it.
    let sets = mounted.json(&["set", "list"]);
    let time = sets.as_array().unwrap().iter().find(|set| set["snapshot"] == "m1").unwrap()["time"].as_str().unwrap();
    mounted.ok(["restore", &format!("@{time}"), "--from", "usb"]);
    mounted.umount();
    mounted.check();
    // In a store that nobody has mounted; and one that has nothing left to share with.
    mounted.ok(["delete", "m0", "m4"]);
    mounted.ok(["restore", "m4", "--from", "usb"]);
    mounted.check();
    mounted.mount(&[]);
    assert_eq!(&listing(&mounted.live()), shown("m4"));
}

/// A restore in place out of a target that a crash ended is completed by the same command.
#[test]
fn a_restore_in_place_goes_on_after_a_crash() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let (target, live) = (mounted.dir.path().join("usb"), mounted.live());
    fs::create_dir(&target).unwrap();
    mounted.ok(["target", "add", "usb", target.to_str().unwrap(), "--no-encryption"]);
    for i in 0..20 {
        fs::create_dir_all(live.join(format!("d/{i}"))).unwrap();
        for k in 0..50 {
            fs::write(live.join(format!("d/{i}/{k}")), &noise(i * 100 + k)[..5_000]).unwrap();
        }
    }
    mounted.ok(["snap", "s"]);
    mounted.ok(["backup"]);
    let state = listing(&live.join("d"));
    mounted.ok(["delete", "s"]);
    let mut interrupted = 0;
    for round in 0..20 {
        for i in 0..20 {
            fs::remove_dir_all(live.join(format!("d/{i}"))).unwrap();
            fs::write(live.join(format!("d/{i}")), format!("in the way {round}")).unwrap();
        }
        let before = fs::read_dir(mounted.snap()).unwrap().count();
        let mut restore = mounted.command(["restore", "s", "d", "--from", "usb"]).spawn().unwrap();
        while fs::read_dir(mounted.snap()).unwrap().count() == before {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        std::thread::sleep(std::time::Duration::from_millis(round * 7));
        let is_over = restore.try_wait().unwrap().is_some();
        mounted.kill();
        restore.wait().unwrap();
        mounted.mount(&[]);
        interrupted += u32::from(!is_over);
        mounted.ok(["restore", "s", "d", "--from", "usb"]);
        assert_eq!(listing(&live.join("d")), state, "round {round}");
        if interrupted == 5 {
            break;
        }
    }
    assert!(interrupted > 1, "{interrupted} restores were interrupted");
    mounted.umount();
    mounted.check();
}

/// What the store's disk has lost comes back where it is named, though nothing changed since.
#[test]
fn what_the_store_has_lost_comes_back_in_place() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let target = mounted.dir.path().join("usb");
    fs::create_dir(&target).unwrap();
    mounted.ok(["target", "add", "usb", target.to_str().unwrap(), "--no-encryption"]);
    for (seed, name) in [(1, "one"), (2, "two")] {
        fs::write(mounted.live().join(name), noise(seed)).unwrap();
    }
    mounted.ok(["snap", "then"]);
    mounted.ok(["backup"]);
    lose_some(&mounted);
    assert!(fs::read(mounted.live().join("one")).is_err());
    assert!(mounted.ok(["restore", "then", "two", "--from", "usb"]).contains("nothing differs"));
    assert!(mounted.ok(["restore", "then", "one", "--from", "usb"]).contains("1 file"));
    assert!(fs::read(mounted.live().join("one")).unwrap() == noise(1));
    assert!(mounted.ok(["restore", "then", "one", "--from", "usb"]).contains("nothing differs"));
    // Beside a directory that is named as well.
    fs::create_dir(mounted.live().join("d")).unwrap();
    assert!(mounted.fails(1, ["restore", "then", "one", "d", "--from", "usb"]).contains("nothing was changed"));
}

/// What a restore out of a target takes room for is what is not in the store any more.
#[test]
fn what_the_store_still_has_is_shared() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let target = mounted.dir.path().join("usb");
    fs::create_dir(&target).unwrap();
    mounted.ok(["target", "add", "usb", target.to_str().unwrap(), "--no-encryption"]);
    for number in 0..40 {
        fs::write(mounted.live().join(format!("{number}")), &noise(number)[..60_000]).unwrap();
    }
    for (name, changed) in [("one", 0), ("two", 1), ("three", 2)] {
        fs::write(mounted.live().join(format!("{changed}")), &noise(100 + changed)[..60_000]).unwrap();
        mounted.ok(["snap", name]);
    }
    mounted.ok(["backup", "--all-snapshots"]);
    let wanted = listing(&mounted.snap().join("two"));
    mounted.ok(["delete", "two"]);
    // Live has nothing of it any more, and `one` nearly all.
    for number in 0..40 {
        fs::remove_file(mounted.live().join(format!("{number}"))).unwrap();
    }
    let used = || {
        mounted.ok(["snap", "now"]);
        mounted.ok(["delete", "now"]);
        let status = mounted.json(&["status"]);
        status["live_bytes"].as_u64().unwrap() + status["log_bytes"].as_u64().unwrap()
    };
    let before = used();
    mounted.ok(["restore", "two", "--from", "usb"]);
    assert_eq!(listing(&mounted.live()), wanted);
    let more = used() - before;
    assert!(more < 500_000, "{more} bytes more are used for 2,400,000 of which 60,000 are new");
    mounted.check();
}

/// A file that was in use without a name when the snapshot was taken that is shared with leaves nothing in what comes back.
#[test]
fn what_had_no_name_leaves_nothing_in_what_comes_back() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let target = mounted.dir.path().join("usb");
    fs::create_dir(&target).unwrap();
    mounted.ok(["target", "add", "usb", target.to_str().unwrap(), "--no-encryption"]);
    let path = mounted.live().join("f");
    let file = fs::File::create(&path).unwrap();
    // A hole of a megabyte between two ends.
    file.write_all_at(&noise(1)[..70_000], 0).unwrap();
    file.write_all_at(&noise(2)[..70_000], 1 << 20).unwrap();
    mounted.ok(["snap", "named"]);
    mounted.ok(["backup"]);
    let wanted = fs::read(&path).unwrap();
    // It loses its name, and the hole is filled.
    fs::remove_file(&path).unwrap();
    file.write_all_at(&vec![7; 2 << 20], 0).unwrap();
    mounted.ok(["snap", "nameless"]);
    mounted.ok(["backup"]);
    mounted.ok(["delete", "named"]);
    mounted.ok(["restore", "named", "--from", "usb", "--to-base", "back"]);
    drop(file);
    mounted.umount();
    mounted.check();
    mounted.mount(&[]);
    assert!(fs::read(mounted.snap().join("back/live/f")).unwrap() == wanted);
    mounted.check();
}

/// What the store cannot read mends nothing: the set that is there stays, and is not said to be whole.
#[test]
fn what_the_store_has_lost_as_well_is_not_mended() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let target = mounted.dir.path().join("usb");
    fs::create_dir(&target).unwrap();
    mounted.ok(["target", "add", "usb", target.to_str().unwrap(), "--no-encryption"]);
    for (seed, name) in [(1, "one"), (2, "two")] {
        fs::write(mounted.live().join(name), noise(seed)).unwrap();
    }
    mounted.ok(["snap", "then"]);
    mounted.ok(["backup"]);
    let store = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let sets = || fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let before = sets();
    let set = before.iter().find(|path| path.extension().is_some_and(|end| end == "set")).unwrap();
    let mut bytes = fs::read(set).unwrap();
    let some = &noise(2)[1000..1064];
    let two = bytes.windows(64).position(|found| found == some).expect("noise is stored as it is");
    bytes[two] ^= 1;
    fs::write(set, bytes).unwrap();
    lose_some(&mounted);
    let told = mounted.fails(1, ["set", "repair"]);
    assert!(told.contains("cannot read it either (one: "), "{told}");
    assert_eq!(sets().len(), before.len());
    let told = mounted.fails(1, ["set", "verify"]);
    // Both have bytes in that frame, and the frames behind it are as they were.
    assert!(told.contains("live:then has lost one") && told.contains("live:then has lost two"), "{told}");
    assert_eq!(told.matches("is damaged").count(), 1, "{told}");
}
