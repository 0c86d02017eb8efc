//! Clones: writable trees made out of snapshots.

mod mounted;

use mounted::*;
use rustix::io::Errno;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Option<Errno> {
    Errno::from_io_error(&result.unwrap_err())
}

const FILES: u64 = 12;

/// A mounted store with files of some size and a snapshot `s` of them.
fn sample() -> Mounted {
    let mounted = Mounted::new();
    let live = mounted.live();
    fs::create_dir_all(live.join("d/e")).unwrap();
    for i in 0..FILES {
        fs::write(live.join(format!("d/f{i}")), random_bytes(i, 200_000)).unwrap();
    }
    fs::write(live.join("d/e/small"), "small").unwrap();
    fs::hard_link(live.join("d/e/small"), live.join("linked")).unwrap();
    std::os::unix::fs::symlink("d/f0", live.join("symlink")).unwrap();
    mounted.ok(["snap", "s"]);
    mounted
}

/// Changes some of everything below a directory.
fn change(root: &std::path::Path, seed: u64) {
    File::options().write(true).open(root.join("d/f0")).unwrap().write_all_at(b"inside", 70_000).unwrap();
    fs::write(root.join("d/f1"), random_bytes(seed, 100_000)).unwrap();
    fs::remove_file(root.join("d/f2")).unwrap();
    fs::rename(root.join("d/f3"), root.join("moved")).unwrap();
    fs::rename(root.join("d/e"), root.join("other e")).unwrap();
    fs::write(root.join("new"), random_bytes(seed + 1, 50_000)).unwrap();
    fs::write(root.join("linked"), "longer than it was").unwrap();
    File::options().write(true).open(root.join("d/f4")).unwrap().set_len(5).unwrap();
    rustix::fs::setxattr(root.join("d/f5"), "user.a", b"b", rustix::fs::XattrFlags::empty()).unwrap();
    fs::remove_file(root.join("symlink")).unwrap();
}

#[test]
fn a_clone_is_a_tree_of_its_own_beside_live() {
    if !can_mount() {
        return;
    }
    let mounted = sample();
    let root = mounted.snap();
    let s = listing(&root.join("s"));
    assert!(!root.join("c").exists());
    let before = room_used(&root);
    mounted.ok(["clone", "s", "c"]);
    assert_eq!(names(&root), ["c", "live", "s"]);
    assert_same(&listing(&root.join("c")), &s, "the clone and its snapshot");
    assert!(room_used(&root) < before + (1 << 20), "the tracks are shared");

    change(&root.join("c"), 100);
    let c = listing(&root.join("c"));
    assert_same(&listing(&root.join("s")), &s, "the snapshot, after writing to the clone");
    assert_same(&listing(&mounted.live()), &s, "live, after writing to the clone");
    change(&mounted.live(), 200);
    fs::remove_file(mounted.live().join("d/f9")).unwrap();
    let live = listing(&mounted.live());
    assert_same(&listing(&root.join("c")), &c, "the clone, after writing to live");
    assert_same(&listing(&root.join("s")), &s, "the snapshot, after writing to live");
    assert_eq!(errno(fs::rename(root.join("c/new"), mounted.live().join("x"))), Some(Errno::XDEV));
    assert_eq!(errno(fs::hard_link(root.join("c/new"), mounted.live().join("x"))), Some(Errno::XDEV));

    // It has snapshots of its own, found in it by name.
    mounted.ok_of("c", &["snap", "own"]);
    fs::write(root.join("c/new"), "later").unwrap();
    let own = root.join("c/.snap/own");
    assert_same(&listing(&own), &c, "the clone's snapshot");
    assert_eq!(names(&root.join("c/.snap")), ["own"]);
    assert_eq!(read(&root.join("c/other e/.snap/own/small")), "longer than it was");
    ok_in(&root.join("c/d"), &["snap", "from inside"]);
    assert_eq!(mounted.snapshots_of("c"), ["own", "from inside"]);
    assert_eq!(mounted.snapshots_of("live"), ["s"]);

    mounted.remount();
    assert_same(&listing(&root.join("s")), &s, "the snapshot, mounted again");
    assert_same(&listing(&mounted.live()), &live, "live, mounted again");
    assert_same(&listing(&own), &c, "the clone's snapshot, mounted again");
    assert_eq!(names(&root), ["c", "live", "s"]);
    let diff = mounted.ok_of("c", &["diff", "own"]);
    assert_eq!(diff.lines().count(), 1, "{diff}");
    mounted.check();

    // Deleted, nothing of it is left and nothing else is touched.
    mounted.ok(["delete", "c"]);
    assert!(!root.join("c").exists() && names(&root) == ["live", "s"]);
    assert_same(&listing(&root.join("s")), &s, "the snapshot, without the clone");
    assert_same(&listing(&mounted.live()), &live, "live, without the clone");
    mounted.umount();
    mounted.check();
}

#[test]
fn clones_of_clones_and_who_depends_on_whom() {
    if !can_mount() {
        return;
    }
    let mounted = sample();
    let root = mounted.snap();
    let s = listing(&root.join("s"));
    mounted.ok(["clone", "s", "c"]);
    change(&root.join("c"), 1);
    let c = listing(&root.join("c"));
    mounted.ok_of("c", &["snap", "t"]);
    fs::write(root.join("c/new"), "later").unwrap();
    assert!(!root.join("cc").exists());
    mounted.ok(["clone", "c:t", "cc"]);
    assert_same(&listing(&root.join("cc")), &c, "the clone of a clone");
    change(&mounted.live(), 7);
    fs::write(root.join("cc/new"), "its own").unwrap();
    fs::remove_dir_all(root.join("cc/d")).unwrap();
    assert_same(&listing(&root.join("c/.snap/t")), &c, "the clone's snapshot");
    mounted.ok_of("cc", &["snap", "u"]);
    mounted.ok(["clone", "cc:u", "ccc"]);
    assert_eq!(names(&root), ["c", "cc", "ccc", "live", "s"]);
    let kinds: Vec<_> = ["c", "cc", "ccc"].iter().map(|name| mounted.base_info(name)["of"].clone()).collect();
    assert_eq!(kinds, ["live:s", "c:t", "cc:u"]);

    let refuses =
        |result: String, needed_by: &str| assert!(result.contains(&format!("needed by {needed_by};")), "{result}");
    refuses(mounted.fails(1, ["delete", "s"]), "c");
    refuses(mounted.fails_of("c", &["delete", "t"]), "cc");
    refuses(mounted.fails(1, ["delete", "c"]), "cc");
    refuses(mounted.fails(1, ["base", "delete", "cc"]), "ccc");
    assert_eq!(errno(fs::remove_dir(root.join("s"))), Some(Errno::BUSY));
    assert_eq!(errno(fs::remove_dir(root.join("c"))), Some(Errno::NOTEMPTY));
    assert_eq!(names(&root), ["c", "cc", "ccc", "live", "s"]);
    assert_same(&listing(&root.join("s")), &s, "the snapshot that was not deleted");
    mounted.remount();
    assert_eq!(read(&root.join("ccc/new")), "its own");
    assert!(!root.join("ccc/d").exists());

    mounted.ok(["delete", "cc", "--recursive"]);
    assert_eq!(names(&root), ["c", "live", "s"]);
    assert!(!root.join("cc").exists() && !root.join("ccc").exists());
    assert_same(&listing(&root.join("c/.snap/t")), &c, "what the deleted ones depended on");
    mounted.ok(["delete", "s", "--recursive"]);
    assert_eq!(names(&root), ["live"]);
    assert!(!root.join("c").exists());
    assert!(mounted.json(&["base", "list"]).as_array().unwrap().len() == 1);
    mounted.umount();
    mounted.check();
}

#[test]
fn a_clone_is_renamed_by_command_and_by_mv() {
    if !can_mount() {
        return;
    }
    for several in [false, true] {
        let mounted = sample();
        let root = match several {
            false => mounted.snap(),
            true => {
                mounted.ok(["base", "create", "b"]);
                mounted.remount();
                mounted.snap().join("live")
            }
        };
        let s = listing(&root.join("s"));
        let shown = |expected: &[&str]| {
            assert_eq!(names(&root), expected, "{several}");
            for name in ["c", "d", "e", "s"] {
                assert_eq!(root.join(name).exists(), expected.contains(&name), "{name} {several}");
            }
        };
        shown(&["live", "s"]);
        mounted.ok(["clone", "s", "c"]);
        shown(&["c", "live", "s"]);
        mounted.ok(["rename", "c", "d"]);
        shown(&["d", "live", "s"]);
        mounted.ok(["base", "rename", "d", "e"]);
        shown(&["e", "live", "s"]);
        let open = File::options().write(true).open(root.join("e/d/f0")).unwrap();
        fs::rename(root.join("e"), root.join("c")).unwrap();
        shown(&["c", "live", "s"]);
        open.write_all_at(b"still", 0).unwrap();
        assert!(fs::read(root.join("c/d/f0")).unwrap().starts_with(b"still"));
        assert!(fs::rename(root.join("c"), root.join("s")).is_err());
        assert!(fs::rename(root.join("c"), root.join("live")).is_err());
        // A clone of a clone is renamed and deleted in the same place.
        mounted.ok_of("c", &["snap", "own"]);
        mounted.ok(["clone", "c:own", "d"]);
        shown(&["c", "d", "live", "s"]);
        mounted.ok(["rename", "d", "e"]);
        shown(&["c", "e", "live", "s"]);
        mounted.ok(["base", "rename", "e", "d"]);
        shown(&["c", "d", "live", "s"]);
        mounted.ok(["delete", "d"]);
        shown(&["c", "live", "s"]);
        mounted.ok(["base", "delete", "c"]);
        shown(&["live", "s"]);
        assert_same(&listing(&root.join("s")), &s, "the snapshot");
        mounted.check();
    }
}

#[test]
fn a_full_clone_becomes_independent() {
    if !can_mount() {
        return;
    }
    for how in ["--full", "--copy"] {
        let mounted = sample();
        let root = mounted.snap();
        let s = listing(&root.join("s"));
        let before = room_used(&root);
        mounted.ok(["clone", "s", "c", how]);
        assert_same(&listing(&root.join("c")), &s, "a full clone, at once");
        change(&root.join("c"), 3);
        let c = listing(&root.join("c"));
        // Whatever of it is done by now: it goes on from there.
        mounted.kill();
        mounted.mount(&[]);
        let after_kill = listing(&root.join("c"));
        // The end of a copy is a commit, so that some of the changes can be there.
        let is_known = |found: &Shown| s.iter().chain(&c).any(|known| known.path == found.path);
        assert!(after_kill.iter().all(is_known), "what is there was there before or came with the changes");
        if after_kill != c {
            mounted.ok(["delete", "c"]);
            mounted.ok(["clone", "s", "c", how]);
            change(&root.join("c"), 3);
        }
        let c = listing(&root.join("c"));
        mounted.wait_settled("c");
        if how == "--full" {
            assert!(room_used(&root) < before + (2 << 20), "tracks stay shared");
        } else {
            wait_for("tracks of its own", || room_used(&root) > before + (3 << 19));
        }
        assert!(mounted.ok(["base", "list"]).contains("clone of live:s, independent"));
        mounted.ok(["delete", "s"]);
        let list = mounted.ok(["base", "list"]);
        assert!(list.contains("clone, independent") && !list.contains("deleted"), "{list}");
        assert!(mounted.base_info("c")["of"].is_null());
        assert_same(&listing(&root.join("c")), &c, "without its parent");
        change(&mounted.live(), 5);
        for i in 6..FILES {
            fs::remove_file(mounted.live().join(format!("d/f{i}"))).unwrap();
        }
        mounted.remount();
        assert_same(&listing(&root.join("c")), &c, "without its parent, mounted again");
        mounted.umount();
        mounted.check();
    }
}

#[test]
fn a_clone_that_is_promoted_stands_for_itself() {
    if !can_mount() {
        return;
    }
    let mounted = sample();
    let root = mounted.snap();
    mounted.ok(["clone", "s", "c"]);
    change(&root.join("c"), 9);
    mounted.ok_of("c", &["snap", "own"]);
    let own = listing(&root.join("c"));
    fs::write(root.join("c/new"), "later").unwrap();
    let c = listing(&root.join("c"));
    mounted.ok(["promote", "c"]);
    assert!(!root.join("c").exists(), "in a mount of one base there is no place for another");
    assert_eq!(names(&root), ["live", "s"]);
    assert_eq!(mounted.base_info("c")["kind"], "base");
    assert!(mounted.fails(1, ["promote", "c"]).contains("no clone"));
    assert!(mounted.fails(1, ["promote", "live"]).contains("no clone"));
    mounted.kill();
    mounted.mount(&[]);
    assert_eq!(names(&root), ["c", "live"]);
    assert_eq!(names(&root.join("c")), ["live", "own"]);
    mounted.wait_settled("c");
    mounted.ok(["delete", "s"]);
    assert_same(&listing(&root.join("c/own")), &own, "its snapshot");
    mounted.remount();
    assert_same(&listing(&root.join("c/own")), &own, "its snapshot, mounted again");
    assert_eq!(listing(&root.join("c/live")).len(), c.len());
    mounted.check();
    // In a mount of several a clone goes from beside live to beside the bases.
    mounted.ok_of("c", &["clone", "own", "d"]);
    assert_same(&listing(&root.join("c/d")), &own, "a clone of the new base");
    assert!(!root.join("d").exists());
    mounted.ok(["promote", "d"]);
    assert!(!root.join("c/d").exists() && root.join("d/live").is_dir());
    assert_eq!(names(&root), ["c", "d", "live"]);
    assert_same(&listing(&root.join("d/live")), &own, "promoted");
    mounted.wait_settled("d");
    mounted.ok(["base", "delete", "c"]);
    assert_same(&listing(&root.join("d/live")), &own, "without the one it came from");
    mounted.umount();
    mounted.check();
}

#[test]
fn only_a_clone_that_was_not_written_to_is_moved() {
    if !can_mount() {
        return;
    }
    let mounted = sample();
    let root = mounted.snap();
    let s = listing(&root.join("s"));
    change(&mounted.live(), 11);
    mounted.ok(["snap", "t"]);
    let t = listing(&root.join("t"));
    mounted.ok(["clone", "s", "c"]);
    assert_same(&listing(&root.join("c")), &s, "before");
    let file = File::open(root.join("c/d/f1")).unwrap();
    assert!(!root.join("c/new").exists() && root.join("c/d/f2").exists());
    mounted.ok(["clone", "--refresh", "c", "t"]);
    assert_same(&listing(&root.join("c")), &t, "after");
    let mut bytes = vec![0; 100];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(fs::read(root.join("t/d/f1")).unwrap().starts_with(&bytes), "an open file");
    drop(file);
    assert_eq!(mounted.base_info("c")["of"], "live:t");
    // Nothing depends on the first any more.
    mounted.ok(["delete", "s"]);
    assert!(mounted.fails(1, ["delete", "t"]).contains("needed by c;"));
    mounted.ok(["snap", "u"]);
    fs::write(root.join("c/written"), "").unwrap();
    fs::remove_file(root.join("c/written")).unwrap();
    let said = mounted.fails(1, ["clone", "--refresh", "c", "u"]);
    assert!(said.contains("written to"), "{said}");
    mounted.ok(["clone", "t", "d"]);
    mounted.ok_of("d", &["snap", "own"]);
    let said = mounted.fails(1, ["clone", "--refresh", "d", "u"]);
    assert!(said.contains("snapshots of its own"), "{said}");
    for (args, says) in [
        (&["clone", "--refresh", "live", "u"][..], "does not depend"),
        (&["clone", "--refresh", "none", "u"], "no base named"),
        (&["clone", "--refresh", "c", "none"], "no snapshot named"),
        (&["clone", "none", "x"], "no snapshot named"),
        (&["clone", "live", "x"], "one of its snapshots"),
        (&["clone", "u", "d"], "\"d\""),
        (&["clone", "u", "t"], "\"t\""),
        (&["clone", "u", "live"], "live"),
    ] {
        let said = mounted.fails(1, args);
        assert!(said.contains(says), "{args:?}: {said}");
    }
    mounted.remount();
    assert_same(&listing(&root.join("d")), &t, "the clone that was refused");
    mounted.check();
}

#[test]
fn what_is_synced_in_a_clone_outlives_the_daemon() {
    if !can_mount() {
        return;
    }
    let mounted = sample();
    let root = mounted.snap();
    let s = listing(&root.join("s"));
    mounted.ok(["clone", "s", "c"]);
    let inside = File::options().write(true).open(root.join("c/d/f0")).unwrap();
    inside.write_all_at(b"inside", 70_000).unwrap();
    inside.sync_all().unwrap();
    fs::create_dir(root.join("c/made")).unwrap();
    let new = File::create(root.join("c/made/new")).unwrap();
    new.write_all_at(b"new", 0).unwrap();
    new.sync_all().unwrap();
    let big = File::create(root.join("c/d/f1")).unwrap();
    big.write_all_at(&random_bytes(77, 600_000), 0).unwrap();
    big.sync_data().unwrap();
    fs::remove_file(root.join("c/d/f2")).unwrap();
    File::open(root.join("c/d")).unwrap().sync_all().unwrap();
    mounted.kill();
    mounted.mount(&[]);
    let mut f0 = random_bytes(0, 200_000);
    f0[70_000..70_006].copy_from_slice(b"inside");
    assert!(fs::read(root.join("c/d/f0")).unwrap() == f0);
    assert_eq!(read(&root.join("c/made/new")), "new");
    assert!(fs::read(root.join("c/d/f1")).unwrap() == random_bytes(77, 600_000));
    assert!(!root.join("c/d/f2").exists());
    assert_same(&listing(&root.join("s")), &s, "the snapshot");
    assert_same(&listing(&mounted.live()), &s, "live");
    mounted.check();
}

/// It goes through what the clone shows in pieces that begin anywhere.
#[test]
fn check_ends_when_a_clone_shows_what_is_gone_elsewhere() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let live = mounted.live();
    for i in 0..600 {
        fs::write(live.join(format!("{i}")), "content").unwrap();
    }
    mounted.ok(["snap", "s"]);
    for i in 100..600 {
        fs::remove_file(live.join(format!("{i}"))).unwrap();
    }
    mounted.ok(["clone", "s", "c"]);
    let mut check = mounted.command(["check"]).spawn().unwrap();
    wait_for("check to end", || check.try_wait().unwrap().is_some());
    assert!(check.wait().unwrap().success());
    assert_eq!(names(&mounted.snap().join("c")).len(), 600);
    mounted.umount();
    mounted.check();
}
