//! Mirrors: a second copy of a base, in step, apart and back.

mod mounted;

use mounted::*;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

fn change(root: &Path, seed: u64) {
    fs::write(root.join("text"), format!("state {seed}")).unwrap();
    fs::write(root.join("large"), random_bytes(seed, 300_000)).unwrap();
    fs::create_dir_all(root.join(format!("made {seed}/deeper"))).unwrap();
    fs::write(root.join(format!("made {seed}/deeper/file")), random_bytes(seed + 1, 20_000)).unwrap();
    if let Some(before) = seed.checked_sub(1) {
        let _there_may_be_none = fs::remove_dir_all(root.join(format!("made {before}")));
    }
}

/// A store with two bases, so that a mirror is shown, each under its name.
fn sample() -> Mounted {
    let mounted = Mounted::unmounted();
    mounted.ok(["base", "create", "other"]);
    mounted.mount(&[]);
    change(&mounted.snap().join("live/live"), 1);
    mounted
}

fn is_same(mounted: &Mounted, a: &str, b: &str) -> bool {
    // Inodes keep their numbers within a view only, and are not compared.
    listing(&mounted.snap().join(a)) == listing(&mounted.snap().join(b))
}

#[test]
fn a_mirror_follows_its_base_and_goes_its_own_way_when_it_is_split() {
    if !can_mount() {
        return;
    }
    let mounted = sample();
    let live = mounted.snap().join("live/live");
    let used = || mounted.json(&["status"])["live_bytes"].as_u64().unwrap();
    let before = used();
    mounted.ok(["mirror", "establish", "live", "copy"]);
    assert!(is_same(&mounted, "live/live", "copy/live"));
    assert!(used() > before + 300_000, "the tracks are there twice");
    let copy = mounted.snap().join("copy/live");
    assert!(fs::write(copy.join("text"), "no").is_err(), "a mirror in step cannot be written to");
    change(&live, 2);
    assert!(!is_same(&mounted, "live/live", "copy/live"));
    mounted.ok(["mirror", "sync", "copy"]);
    assert!(is_same(&mounted, "live/live", "copy/live"));
    let refused = mounted.fails(1, ["mirror", "resync", "copy"]);
    assert!(refused.contains("in step"), "{refused}");
    mounted.ok(["mirror", "split", "copy"]);
    change(&copy, 3);
    change(&live, 4);
    let of_live = listing(&live);
    mounted.ok(["mirror", "resync", "copy"]);
    assert_same(&listing(&copy), &of_live, "the mirror is back in step");
    assert_same(&listing(&live), &of_live, "the base is as it was");
    mounted.check();
    // The other direction.
    mounted.ok(["mirror", "split", "copy"]);
    change(&copy, 5);
    change(&live, 6);
    let of_copy = listing(&copy);
    mounted.ok(["mirror", "restore", "copy"]);
    assert_same(&listing(&live), &of_copy, "the base is what the mirror was");
    assert_same(&listing(&copy), &of_copy, "the mirror is what it was");
    assert!(fs::write(copy.join("text"), "no").is_err(), "both are in step");
    fs::write(live.join("after"), "and on").unwrap();
    mounted.ok(["mirror", "sync", "copy"]);
    assert!(is_same(&mounted, "live/live", "copy/live"));
    mounted.check();
    mounted.remount();
    assert!(is_same(&mounted, "live/live", "copy/live"));
    mounted.ok(["base", "delete", "copy"]);
    assert!(!mounted.snap().join("copy").exists());
    mounted.check();
}

#[test]
fn a_mirror_becomes_what_a_snapshot_of_its_base_was() {
    if !can_mount() {
        return;
    }
    let mounted = sample();
    let live = mounted.snap().join("live/live");
    mounted.ok(["snap", "early"]);
    let early = listing(&live);
    mounted.ok(["mirror", "establish", "live", "copy"]);
    change(&live, 2);
    mounted.ok(["mirror", "sync", "copy"]);
    mounted.ok(["restore", "early", "--to-mirror", "copy"]);
    let copy = mounted.snap().join("copy/live");
    assert_same(&listing(&copy), &early, "the mirror");
    assert!(listing(&live) != early);
    fs::write(copy.join("more"), "it is split").unwrap();
    mounted.ok(["mirror", "resync", "copy"]);
    assert!(is_same(&mounted, "live/live", "copy/live"));
    mounted.check();
}

/// What has no name any more when a mirror is brought up is in it as it is in its base, and nobody notes what becomes of it there.
#[test]
fn what_was_in_use_without_a_name_is_whole_when_a_mirror_becomes_what_it_was() {
    if !can_mount() {
        return;
    }
    for is_established_late in [false, true] {
        let mounted = sample();
        let live = mounted.snap().join("live/live");
        mounted.ok(["snap", "early"]);
        let early = listing(&live);
        if !is_established_late {
            mounted.ok(["mirror", "establish", "live", "copy"]);
        }
        let in_use = fs::File::open(live.join("made 1/deeper/file")).unwrap();
        change(&live, 2);
        let how: &[&str] = if is_established_late { &["establish", "live", "copy"] } else { &["sync", "copy"] };
        mounted.ok([&["mirror"], how].concat());
        wait_until_idle(&mounted);
        mounted.ok(["restore", "early", "--to-mirror", "copy"]);
        wait_until_idle(&mounted);
        assert_same(&listing(&mounted.snap().join("copy/live")), &early, "the mirror");
        // Nor is anything left of it once nobody uses it.
        drop(in_use);
        mounted.ok(["mirror", "resync", "copy"]);
        wait_until_idle(&mounted);
        assert!(is_same(&mounted, "live/live", "copy/live"));
        mounted.check();
    }
}

/// Waits until what is done in the background is done, and has been looked for again since.
fn wait_until_idle(mounted: &Mounted) {
    wait_for("the background", || {
        let (status, bases) = (mounted.json(&["status"]), mounted.json(&["base", "list"]));
        let is_idle = status["workers"].as_array().unwrap().iter().all(|worker| worker["working"] == false);
        is_idle && bases.as_array().unwrap().iter().all(|base| base["settled_blocks"].is_null())
    });
    std::thread::sleep(std::time::Duration::from_millis(100));
}

#[test]
fn damage_of_a_base_does_not_touch_its_mirror() {
    if !can_mount() {
        return;
    }
    let mounted = sample();
    mounted.ok(["mirror", "establish", "live", "copy"]);
    let bases = mounted.json(&["base", "list"]);
    assert_eq!(bases.as_array().map(Vec::len), Some(3), "{bases}");
    mounted.umount();
    // Of the two copies of each track one is destroyed: the first block of data of the volume.
    let volume = mounted.store().join("volume.0");
    let mut bytes = fs::read(&volume).unwrap();
    let wanted = random_bytes(1, 300_000);
    let at = bytes.windows(64).position(|found| found == &wanted[..64]).expect("large is stored as it is");
    bytes[at..at + 4096].fill(0x55);
    fs::write(&volume, bytes).unwrap();
    mounted.mount(&[]);
    let read = |base: &str| fs::read(mounted.snap().join(base).join("live/large")).unwrap();
    assert_eq!(read("live"), wanted, "one of the two is damaged, and read from the other");
    assert_eq!(read("copy"), wanted);
    assert!(!mounted.run(["check"]).status.success(), "damage is still found");
    // Split, what has not been written since is still the same.
    let tracks = || fs::read(mounted.snap().join("live/live/large")).unwrap();
    mounted.ok(["mirror", "split", "copy"]);
    fs::write(mounted.snap().join("copy/live/text"), "apart").unwrap();
    assert_eq!(tracks(), wanted);
    assert_eq!(read("copy"), wanted);
    // What was written in the other one is not taken for it.
    fs::write(mounted.snap().join("live/live/large"), random_bytes(9, 300_000)).unwrap();
    assert_eq!(read("copy"), wanted);
    assert_eq!(read("live"), random_bytes(9, 300_000));
}

/// Writing a part of a damaged track loses nothing of the rest.
#[test]
fn a_damaged_track_is_written_in_part_over_what_the_other_has() {
    if !can_mount() {
        return;
    }
    for which in 0..2 {
        let mounted = sample();
        mounted.ok(["mirror", "establish", "live", "copy"]);
        let mut wanted = random_bytes(1, 300_000);
        damage_one_copy(&mounted, &wanted, which);
        let path = mounted.snap().join("live/live/large");
        let read = |wanted: &[u8]| {
            mounted.umount();
            mounted.mount(&[]);
            assert!(fs::read(&path).unwrap() == wanted, "{which}");
        };
        // So many that they are merged on the way, and once more than a mirror has.
        for turn in 0..30_u8 {
            let at = usize::from(turn) * 1_777;
            wanted[at..at + 100].fill(turn);
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[turn; 100], at as u64).unwrap();
            drop(file);
            mounted.ok_of("live", &["snap", &format!("s{turn}")]);
            if turn % 7 == 0 {
                read(&wanted);
            }
        }
        read(&wanted);
        assert_eq!(fs::read(mounted.snap().join("live/s29/large")).unwrap(), wanted);
        mounted.umount();
    }
}

/// Damages the first track of the sample's large file, in its base or in its mirror.
fn damage_one_copy(mounted: &Mounted, large: &[u8], which: usize) {
    mounted.umount();
    let volume = mounted.store().join("volume.0");
    let mut bytes = fs::read(&volume).unwrap();
    let places: Vec<usize> = (0..bytes.len() - 64).filter(|at| bytes[*at..at + 64] == large[..64]).collect();
    assert_eq!(places.len(), 2, "of the base and of its mirror");
    bytes[places[which]..][..4096].fill(0x55);
    fs::write(&volume, &bytes).unwrap();
    mounted.mount(&[]);
}

/// A roll reads as everybody does.
#[test]
fn a_damaged_track_is_rolled_from_the_mirror() {
    if !can_mount() {
        return;
    }
    // One of the two is that of the base.
    for which in 0..2 {
        let mounted = sample();
        mounted.ok(["mirror", "establish", "live", "copy"]);
        let live = mounted.snap().join("live/live");
        let archive = mounted.dir.path().join("archive");
        mounted.ok_of("live", &["roll", "--archive", archive.to_str().unwrap(), "--name", "r1"]);
        let wanted = listing(&live);
        damage_one_copy(&mounted, &random_bytes(1, 300_000), which);
        fs::write(live.join("large"), random_bytes(2, 300_000)).unwrap();
        mounted.ok_of("live", &["roll", "--keep", "1", "--name", "r2"]);
        assert_same(&listing(&mounted.snap().join("live/r1")), &wanted, "the archive has it whole");
        assert!(mounted.ok_of("live", &["archive", "verify"]).contains("no problems"));
        mounted.umount();
    }
}

#[test]
fn a_time_of_an_archive_is_not_what_a_mirror_becomes() {
    let mounted = Mounted::unmounted();
    mounted.ok(["mirror", "establish", "live", "copy"]);
    let archive = mounted.dir.path().join("archive");
    for name in ["t1", "t2"] {
        mounted.ok(["roll", "--archive", archive.to_str().unwrap(), "--keep", "1", "--name", name]);
    }
    let said = mounted.fails(1, ["restore", "--to-mirror", "copy", "t1"]);
    assert!(said.contains("is in the archive, not in the store") && said.contains("--from t1"), "{said}");
    mounted.ok(["restore", "--to-mirror", "copy", "t2"]);
}

/// Splitting is of the moment in which it is done.
#[test]
fn a_mirror_is_split_as_its_base_is_then() {
    if !can_mount() {
        return;
    }
    let mounted = sample();
    let live = mounted.snap().join("live/live");
    mounted.ok(["mirror", "establish", "live", "copy"]);
    change(&live, 2);
    let then = listing(&live);
    mounted.ok(["mirror", "split", "copy"]);
    change(&live, 3);
    assert_same(&listing(&mounted.snap().join("copy/live")), &then, "what was changed after the last sync is in it");
    mounted.ok(["mirror", "resync", "copy"]);
    assert!(is_same(&mounted, "live/live", "copy/live"));
    mounted.check();
}

#[test]
fn what_a_mirror_needs_is_said() {
    let mounted = Mounted::unmounted();
    mounted.ok(["base", "create", "c"]);
    mounted.ok_of("c", &["snap", "s"]);
    mounted.ok(["mirror", "establish", "c", "mm"]);
    for step in ["in step", "split"] {
        let mark = mounted.snapshots_of("c").pop().unwrap();
        for args in [&["base", "delete", "c"][..], &["-s", &mounted.of("c"), "delete", &mark]] {
            let said = mounted.fails(1, args);
            assert!(said.contains("needed by mm; delete them first, or add --recursive"), "{step}: {said}");
            assert!(said.contains("a mirror ") && !said.contains("promote"), "{step}: {said}");
        }
        if step == "in step" {
            mounted.ok(["mirror", "split", "mm"]);
        }
    }
    let said = mounted.fails(1, ["mirror", "split", "mm"]);
    assert!(said.contains("the mirror \"mm\" is split already"), "{said}");
    let said = mounted.fails(1, ["mirror", "sync", "mm"]);
    assert!(said.contains("resync mm` comes first"), "{said}");
    let mark = mounted.snapshots_of("c").pop().unwrap();
    // What the mirror itself has changed is known from a snapshot of its own.
    let own = mounted.snapshots_of("mm").pop().unwrap();
    let said = mounted.fails_of("mm", &["delete", &own]);
    assert!(said.contains("needed by mm itself; `pitfs mirror resync mm`"), "{said}");
    // Clones beside it can be made independent.
    mounted.ok(["clone", "c:s", "cc"]);
    let said = mounted.fails(1, ["base", "delete", "c"]);
    assert!(said.contains("needed by mm, cc; delete them first, make the clones independent with"), "{said}");
    mounted.ok(["mirror", "resync", "mm"]);
    assert!(!mounted.snapshots_of("c").contains(&mark) && !mounted.snapshots_of("mm").contains(&own));
    let mark = mounted.snapshots_of("c").pop().unwrap();
    mounted.ok_of("c", &["delete", &mark, "--recursive"]);
    assert!(mounted.base_info("mm").is_null() && mounted.snapshots_of("c") == ["s"]);
    mounted.check();
    mounted.ok(["base", "delete", "c", "--recursive"]);
    mounted.check();
}

/// Tracks that were copied are others with the same bytes.
#[test]
fn what_was_copied_back_does_not_differ() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let file = mounted.live().join("f");
    fs::write(&file, random_bytes(1, 100_000)).unwrap();
    mounted.ok(["snap", "a"]);
    fs::write(&file, random_bytes(2, 110_000)).unwrap();
    mounted.ok(["snap", "x"]);
    mounted.ok(["mirror", "establish", "live", "m"]);
    mounted.ok(["mirror", "split", "m"]);
    mounted.ok(["mirror", "restore", "m"]);
    assert_eq!(mounted.ok(["diff", "x"]), "");
    assert!(mounted.ok(["diff", "a"]).contains("M f"));
    let archive = mounted.dir.path().join("archive");
    mounted.ok(["roll", "--archive", archive.to_str().unwrap(), "--keep", "1"]);
    mounted.ok(["restore", "a"]);
    assert_eq!(mounted.ok(["diff", "a"]), "");
    mounted.umount();
    mounted.check();
}
