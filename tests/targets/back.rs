//! What a target has comes back: as a store, as a base, and in place.

use crate::kept::*;
use crate::mounted::*;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

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

/// Where a byte of a set is wrong, each moment that needs it is left out and named, and all others come back.
#[test]
fn what_is_damaged_is_left_out_of_a_store_that_comes_back() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let dir = mounted.dir.path().to_path_buf();
    let moments = backed_up(&mounted, &dir.join("usb"), &["--no-encryption"]);
    let targets = mounted.json(&["target", "list"]);
    let here = dir.join("usb").join(targets[0]["store"].as_str().unwrap());
    mounted.umount();
    let snap = dir.join("back");
    fs::create_dir(&snap).unwrap();
    let files = fs::read_dir(&here).unwrap().map(|entry| entry.unwrap().path());
    let (mut numbers, mut partial, mut none) = (0.., 0, 0);
    for set in files.filter(|path| path.extension().is_some_and(|kind| kind == "set")) {
        let whole = fs::read(&set).unwrap();
        for share in [1, 4, 7] {
            let mut damaged = whole.clone();
            damaged[whole.len() / 8 * share] ^= 0x20;
            fs::write(&set, damaged).unwrap();
            let store = format!("store-{}", numbers.next().unwrap());
            let create = ["create", &store, "--from-set", "usb", "--history"];
            let made = Command::new(PITFS).args(create).current_dir(&dir).output().unwrap();
            let told = String::from_utf8(made.stderr).unwrap();
            if made.status.code() == Some(1) {
                assert!(told.contains("no moment that is wanted can be read whole"), "{told}");
                assert!(!dir.join(&store).exists());
                none += 1;
                continue;
            }
            assert_eq!(made.status.code(), Some(3), "{told}");
            pitfs_in(&dir, &["mount", &store, snap.to_str().unwrap()]);
            let _ends = Ends(&snap);
            for (name, wanted) in &moments {
                match snap.join(name).exists() {
                    true => assert_eq!(&listing(&snap.join(name)), wanted, "{name}"),
                    false => assert!(told.contains(&format!("{name}: ")) && told.contains("left out"), "{told}"),
                }
            }
            // Without the history it is the newest that is whole.
            let (newest, _) = moments.iter().rfind(|(name, _)| snap.join(name).exists()).unwrap();
            let alone = format!("newest-{store}");
            let made = Command::new(PITFS).args(["create", &alone, "--from-set", "usb"]).current_dir(&dir).status();
            assert!(matches!(made.unwrap().code(), Some(0 | 3)));
            assert!(pitfs_in(&dir, &["-s", &alone, "list"]).contains(newest), "{newest}");
            partial += 1;
        }
        fs::write(&set, whole).unwrap();
    }
    assert!(partial >= 6 && none >= 1, "{partial}, {none}");
    assert!(pitfs_in(&dir, &["create", "whole", "--from-set", "usb", "--history"]).contains("5 snapshots"));
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
    let live = mounted.live();
    mounted.add_target();
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
        let (before, was) = (fs::read_dir(mounted.snap()).unwrap().count(), listing(&live.join("d")));
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
        if round % 2 == 0 {
            mounted.ok(["undo"]);
            assert_eq!(listing(&live.join("d")), was, "round {round}, undone");
        }
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
    two_kept(&mounted);
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
    mounted.add_target();
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
    mounted.add_target();
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

/// Makes something at a path.
type Make = fn(&Path);

/// A copy of a store gives numbers to its inodes that the first one gives to others, of other kinds. A moment of the other one comes
/// back as what it was, and nothing of this one becomes what it is not.
#[test]
fn a_moment_of_a_copy_comes_back_as_what_it_was() {
    if !can_mount() {
        return;
    }
    use std::os::unix::fs::symlink;
    let kinds: [(&str, Make); 5] = [
        ("link", |path| symlink("to", path).unwrap()),
        ("fifo", |path| {
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o640.into(), 0).unwrap()
        }),
        ("file", |path| fs::write(path, noise(7)).unwrap()),
        ("tiny", |path| fs::write(path, "tiny").unwrap()),
        ("directory", |path| fs::create_dir(path).unwrap()),
    ];
    let mounted = Mounted::new();
    let dir = mounted.dir.path().to_path_buf();
    mounted.add_target();
    let other = copied(&mounted);
    let _ends = Ends(&other);
    // Each pair of kinds has one number, under one name, under two, and with a second name.
    for (root, of) in [(mounted.snap(), 0), (other.clone(), 1)] {
        for (at, pair) in kinds.iter().flat_map(|one| kinds.iter().map(move |two| [one, two])).enumerate() {
            let make = pair[of].1;
            make(&root.join(format!("live/same-{at}")));
            make(&root.join(format!("live/{}-{at}", ["here", "there"][of])));
            if pair.iter().all(|(kind, _)| *kind != "directory") {
                let linked = root.join(format!("live/linked-{at}"));
                make(&linked);
                fs::hard_link(&linked, root.join(format!("live/more-{at}"))).unwrap();
            }
        }
    }
    mounted.ok(["snap", "here"]);
    mounted.ok(["backup"]);
    let state = listing(&mounted.snap().join("here"));
    let ours = listing(&other.join("live"));
    pitfs_in(&dir, &["-s", "copy", "snap", "ours"]);
    pitfs_in(&dir, &["-s", "copy", "backup"]);
    // A store that is made of both has both, whatever its tracks are.
    for size in ["16K", "64K", "1M"] {
        pitfs_in(&dir, &["create", size, "--from-set", "usb", "--history", "--track-size", size]);
        assert!(pitfs_in(&dir, &["-s", size, "check"]).contains("no problems"), "{size}");
        let at = dir.join(format!("at {size}"));
        fs::create_dir(&at).unwrap();
        pitfs_in(&dir, &["mount", size, at.to_str().unwrap()]);
        let _ends = Ends(&at);
        for (name, wanted) in [("here", &state), ("ours", &ours)] {
            assert_eq!(&listing(&at.join(name)), wanted, "{size}: {name}");
        }
    }
    let restore = ["-s", "copy", "restore", "--from", "usb", "here"];
    let told = pitfs_in(&dir, &[&restore[..], &["-n"]].concat());
    let done = pitfs_in(&dir, &restore);
    assert_eq!(listing(&other.join("live")), state, "{told}\n{done}");
    assert!(pitfs_in(&dir, &["-s", "copy", "check"]).contains("no problems"));
    assert!(pitfs_in(&dir, &restore).contains("nothing differs"));
    pitfs_in(&dir, &["-s", "copy", "snap", "after"]);
    pitfs_in(&dir, &["-s", "copy", "backup"]);
    assert!(pitfs_in(&dir, &["set", "verify", "usb"]).contains("no problems"));
    pitfs_in(&dir, &["-s", "copy", "undo"]);
    assert_eq!(listing(&other.join("live")), ours);
    assert!(pitfs_in(&dir, &["-s", "copy", "check"]).contains("no problems"));
}
