//! Several bases in one store, sessions step by step, and groups of one moment.

mod mounted;

use mounted::*;
use rustix::io::Errno;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Option<Errno> {
    Errno::from_io_error(&result.unwrap_err())
}

fn mount_at(mounted: &Mounted, store: &str) {
    mounted.ok(["mount", store, mounted.snap().to_str().unwrap()]);
}

#[test]
fn a_store_with_one_base_is_mounted_as_it_always_was() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    assert_eq!(names(&mounted.snap()), ["live"]);
    fs::write(mounted.live().join("f"), "first").unwrap();
    fs::create_dir(mounted.snap().join("s")).unwrap();
    assert_eq!(names(&mounted.snap()), ["live", "s"]);
    // Another base does not turn the mount over that programs are using.
    mounted.ok(["base", "create", "b"]);
    assert_eq!(names(&mounted.snap()), ["live", "s"]);
    assert_eq!(read(&mounted.live().join("f")), "first");
    mounted.remount();
    assert_eq!(names(&mounted.snap()), ["b", "live"]);
    assert_eq!(names(&mounted.snap().join("live")), ["live", "s"]);
    mounted.ok(["base", "delete", "b"]);
    mounted.remount();
    assert_eq!(names(&mounted.snap()), ["live", "s"]);
    mounted.check();
}

#[test]
fn several_bases_stand_side_by_side() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::unmounted();
    mounted.ok(["base", "create", "b"]);
    mounted.mount(&[]);
    let root = mounted.snap();
    let (a_live, b_live) = (root.join("live/live"), root.join("b/live"));
    fs::write(a_live.join("f"), "in a").unwrap();
    fs::write(b_live.join("f"), "in b").unwrap();

    // mkdir takes a snapshot of the base in whose directory it is.
    fs::create_dir(root.join("b/one")).unwrap();
    assert_eq!((mounted.snapshots_of("live"), mounted.snapshots_of("b")), (vec![], vec!["one".to_string()]));
    fs::write(b_live.join("f"), "later").unwrap();
    assert_eq!(read(&root.join("b/one/f")), "in b");
    assert_eq!(errno(fs::write(root.join("b/one/f"), "no")), Some(Errno::ROFS));
    fs::create_dir(root.join("live/one")).unwrap();
    assert_eq!(read(&root.join("live/one/f")), "in a");
    fs::rename(root.join("b/one"), root.join("b/uno")).unwrap();
    assert_eq!(names(&root.join("b")), ["live", "uno"]);
    assert_eq!(names(&root.join("live")), ["live", "one"]);
    fs::remove_dir(root.join("live/one")).unwrap();
    assert_eq!(names(&root.join("live")), ["live"]);

    // One is another file system to the other, for link and rename; a copy works.
    assert_eq!(errno(fs::rename(a_live.join("f"), b_live.join("g"))), Some(Errno::XDEV));
    assert_eq!(errno(fs::hard_link(a_live.join("f"), b_live.join("g"))), Some(Errno::XDEV));
    assert_eq!(errno(fs::rename(root.join("b/uno"), root.join("live/uno"))), Some(Errno::XDEV));
    let bytes = random_bytes(1, 300_000);
    fs::write(a_live.join("big"), &bytes).unwrap();
    fs::copy(a_live.join("big"), b_live.join("big")).unwrap();
    fs::copy(root.join("b/uno/f"), a_live.join("from b")).unwrap();
    fs::write(a_live.join("big"), "new").unwrap();
    assert!(fs::read(b_live.join("big")).unwrap() == bytes);
    assert_eq!(read(&a_live.join("from b")), "in b");

    // The kernel has been told what is not there, and then it is.
    assert!(!root.join("c").exists());
    mounted.ok(["base", "create", "c"]);
    assert_eq!(names(&root.join("c")), ["live"]);
    mounted.ok(["base", "rename", "c", "d"]);
    assert!(!root.join("c").exists() && root.join("d/live").is_dir());
    fs::rename(root.join("d"), root.join("e")).unwrap();
    assert_eq!(names(&root), ["b", "e", "live"]);
    assert_eq!(mounted.base_info("e")["snapshots"], 0);
    // mkdir beside the bases makes one.
    fs::create_dir(root.join("made")).unwrap();
    assert_eq!(mounted.base_info("made")["kind"], "base");
    fs::write(root.join("made/live/f"), "kept").unwrap();
    let file = File::options().write(true).open(root.join("made/live/f")).unwrap();
    mounted.ok(["base", "delete", "made"]);
    assert!(!root.join("made").exists() && !names(&root).contains(&"made".into()));
    assert!(!root.join("made/live/f").exists());
    assert!(file.write_at(b"lost", 0).is_err());
    drop(file);

    let all: Vec<_> = ["live", "b", "e"].iter().map(|base| listing(&root.join(base).join("live"))).collect();
    mounted.kill();
    mounted.mount(&[]);
    for (base, before) in ["live", "b", "e"].iter().zip(&all) {
        // What was not synced may be lost, but not become something else.
        let after = listing(&root.join(base).join("live"));
        assert!(after.iter().all(|found| before.iter().any(|known| known.path == found.path)), "{base}");
    }
    mounted.check();
}

#[test]
fn what_cannot_be_done_to_bases_is_said() {
    for is_mounted in [false, true] {
        if is_mounted && !can_mount() {
            return;
        }
        let mounted = Mounted::unmounted();
        mounted.ok(["base", "create", "b"]);
        mounted.ok(["snap", "s"]);
        if is_mounted {
            mounted.mount(&[]);
        }
        let before = mounted.ok(["base", "list", "--json"]);
        for (args, says) in [
            (&["base", "create", "b"][..], "b"),
            (&["base", "create", "live"], "live"),
            (&["base", "create", "s"], "\"s\""),
            (&["base", "create", "a:b"], "colon"),
            (&["base", "create", "a/b"], "slash"),
            (&["base", "create", "@2h"], "@"),
            (&["base", "create", ""], "empty"),
            (&["base", "create", "new", "--from", "none"], "no snapshot named \"none\""),
            (&["base", "rename", "b", "s"], "\"s\""),
            (&["base", "rename", "none", "x"], "no base named \"none\""),
            (&["base", "delete", "live"], "first base"),
            (&["base", "delete", "none"], "no base named \"none\""),
            (&["delete", "b"], "no snapshot named \"b\"; a base, clone or mirror is: `pitfs base delete b`"),
            (&["snap", "b"], "\"b\""),
        ] {
            let said = mounted.fails(1, args);
            assert!(said.contains(says), "{args:?}: {said}");
        }
        // A base that is given twice, with two names for its snapshot or none.
        for args in [
            &["session", "register", "--base", "live:q", "--base", "live:r", "z"][..],
            &["session", "register", "--base", "b", "--base", "live", "--base", "b:z", "z"],
            &["group", "create", "g", "b", "live", "b"],
        ] {
            let said = mounted.fails(2, args);
            assert!(said.contains("is given twice"), "{args:?}: {said}");
        }
        let said = mounted.fails_of("none", &["list"]);
        assert!(said.contains("no base named \"none\""), "{said}");
        assert_eq!(mounted.ok(["base", "list", "--json"]), before);
        mounted.ok_of("b", &["snap", "held", "--hold"]);
        let said = mounted.fails(1, ["base", "delete", "b"]);
        assert!(said.contains("held"), "{said}");
        mounted.ok_of("b", &["release", "held"]);
        mounted.ok(["base", "delete", "b"]);
        mounted.check();
    }
}

/// The same commands about a base that is one of several, mounted or not.
#[test]
fn a_command_knows_which_base_is_meant() {
    for is_mounted in [false, true] {
        if is_mounted && !can_mount() {
            return;
        }
        let mounted = Mounted::unmounted();
        mounted.ok(["base", "create", "b"]);
        if is_mounted {
            mounted.mount(&[]);
        }
        let source = mounted.dir.path().join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("f"), "one").unwrap();
        mounted.ok_of("b", &["sync", source.to_str().unwrap()]);
        mounted.ok_of("b", &["snap", "one"]);
        fs::write(source.join("f"), "and two").unwrap();
        mounted.ok_of("b", &["sync", source.to_str().unwrap()]);
        mounted.ok_of("b", &["snap", "two"]);
        assert_eq!(mounted.snapshots_of("b"), ["one", "two"]);
        assert!(mounted.snapshots_of("live").is_empty());
        let diff = mounted.ok_of("b", &["diff", "one", "two"]);
        assert!(diff.starts_with("M f"), "{diff}");
        let out = mounted.dir.path().join("out");
        mounted.ok_of("b", &["restore", "one", "--to", out.to_str().unwrap()]);
        assert_eq!(read(&out.join("f")), "one");
        let versions = mounted.ok_of("b", &["versions", "f"]);
        assert!(versions.contains("one") && versions.contains("live"), "{versions}");
        mounted.ok_of("b", &["rename", "one", "uno"]);
        mounted.ok_of("b", &["delete", "two"]);
        assert_eq!(mounted.snapshots_of("b"), ["uno"]);
        let status = mounted.ok(["status"]);
        assert!(status.contains("b:uno"), "{status}");
        if !is_mounted {
            mounted.check();
            continue;
        }
        let root = mounted.snap();
        for (at, base) in [("b", "b"), ("b/live", "b"), ("b/uno", "b"), ("live", "live"), ("live/live", "live")] {
            let name = format!("in {}", at.replace('/', " "));
            ok_in(&root.join(at), &["snap", &name]);
            assert!(mounted.snapshots_of(base).contains(&name), "{at}");
            ok_in(Path::new("/"), &["-s", root.join(at).to_str().unwrap(), "delete", &name]);
            assert!(!mounted.snapshots_of(base).contains(&name), "{at}");
        }
        let versions = ok_in(&root.join("b/live"), &["versions", "f"]);
        assert!(versions.contains("uno"), "{versions}");
        let versions = ok_in(&root, &["-s", root.join("b").to_str().unwrap(), "versions", "b/live/f"]);
        assert!(versions.contains("uno"), "{versions}");
        mounted.umount();
        // One of them alone.
        mount_at(&mounted, &mounted.of("b"));
        assert_eq!(names(&root), ["live", "uno"]);
        assert_eq!(read(&root.join("live/f")), "and two");
        for at in [root.clone(), root.join("live"), root.join("uno")] {
            ok_in(&at, &["snap", "again"]);
            assert_eq!(names(&root), ["again", "live", "uno"]);
            ok_in(&at, &["delete", "again"]);
            assert_eq!(names(&root), ["live", "uno"]);
        }
        let versions = ok_in(&root.join("live"), &["versions", "f"]);
        assert!(versions.contains("uno"), "{versions}");
        fs::create_dir(root.join("made")).unwrap();
        assert_eq!(mounted.snapshots_of("b"), ["uno", "made"]);
        mounted.check();
    }
}

#[test]
fn a_session_takes_its_steps_in_order() {
    for is_mounted in [false, true] {
        if is_mounted && !can_mount() {
            return;
        }
        let mounted = Mounted::unmounted();
        mounted.ok(["base", "create", "b"]);
        mounted.ok(["snap", "taken"]);
        if is_mounted {
            mounted.mount(&[]);
        }
        let state = || (mounted.ok(["session", "list", "--json"]), mounted.ok_of("b", &["list", "--json"]));
        let refused = |args: &[&str], says: &str| {
            let before = state();
            let said = mounted.fails(1, args);
            assert!(said.contains(says), "{args:?}: {said}");
            assert_eq!(state(), before, "{args:?} changed something");
        };
        for step in ["relate", "activate", "deactivate", "online", "offline"] {
            refused(&["session", step, "s"], "\"s\"");
        }
        refused(&["session", "register", "taken"], "\"taken\"");
        refused(&["session", "register", "s", "--base", "none"], "no base named \"none\"");
        refused(&["session", "register", "s", "--group", "none"], "no group \"none\"");
        refused(&["session", "register", "live"], "live");
        mounted.ok(["session", "register", "s", "--base", "live", "--base", "b"]);
        let list = mounted.ok(["session", "list"]);
        assert!(list.contains("registered") && list.contains("live,b"), "{list}");
        refused(&["session", "register", "s"], "registered already");
        refused(&["session", "activate", "s"], "relate s` comes first");
        for step in ["online", "offline"] {
            refused(&["session", step, "s"], "\"s\"");
        }
        mounted.ok(["session", "relate", "s"]);
        assert!(mounted.ok(["session", "list"]).contains("related"));
        refused(&["session", "relate", "s"], "related already");
        mounted.ok(["session", "activate", "s"]);
        for step in ["relate", "activate"] {
            refused(&["session", step, "s"], "\"s\"");
        }
        assert!(mounted.snapshots_of("live").contains(&"s".into()) && mounted.snapshots_of("b") == ["s"]);
        let (a, b) = (mounted.json(&["list"]), mounted.json(&["-s", &mounted.of("b"), "list"]));
        assert_eq!(a[1]["time"], b[0]["time"], "one moment");
        mounted.ok(["session", "deactivate", "s"]);
        refused(&["session", "deactivate", "s"], "deactivated already");

        // Given up before it is active, at either step.
        mounted.ok(["session", "register", "t"]);
        mounted.ok(["session", "deactivate", "t"]);
        mounted.ok(["session", "register", "t"]);
        mounted.ok(["session", "relate", "t"]);
        mounted.ok(["session", "deactivate", "t"]);
        refused(&["session", "activate", "t"], "\"t\"");

        // Its name is taken from the first step on, in each of its bases.
        mounted.ok(["session", "register", "u", "--base", "live", "--base", "b"]);
        mounted.ok(["session", "relate", "u"]);
        let b = mounted.of("b");
        for args in [
            &["snap", "u"][..],
            &["-s", &b, "snap", "u"],
            &["rename", "taken", "u"],
            &["clone", "taken", "u"],
            &["base", "create", "u"],
            &["base", "rename", "b", "u"],
            &["mirror", "establish", "b", "u"],
            &["save", "u"],
        ] {
            refused(args, "a session named \"u\" is registered");
        }
        if is_mounted {
            for base in ["live", "b"] {
                assert_eq!(errno(fs::create_dir(mounted.snap().join(base).join("u"))), Some(Errno::EXIST));
            }
            let root = mounted.snap().join("live");
            assert_eq!(errno(fs::rename(root.join("taken"), root.join("u"))), Some(Errno::EXIST));
        }
        mounted.ok(["session", "activate", "u"]);
        assert!(mounted.snapshots_of("live").contains(&"u".into()) && mounted.snapshots_of("b").contains(&"u".into()));
        // A session for another base does not take it.
        mounted.ok(["session", "register", "w", "--base", "b"]);
        mounted.ok(["snap", "w"]);
        refused(&["base", "create", "w"], "\"w\"");
        refused(&["session", "register", "taken", "--base", "b", "--base", "live"], "\"taken\" exists already");
        // A base that is gone by then.
        mounted.ok(["session", "register", "v", "--base", "live", "--base", "b"]);
        mounted.ok(["session", "relate", "v"]);
        mounted.ok(["base", "delete", "b"]);
        let said = mounted.fails(1, ["session", "activate", "v"]);
        assert!(!said.contains("os error") && !mounted.snapshots_of("live").contains(&"v".into()), "{said}");
        mounted.ok(["session", "deactivate", "v"]);
        mounted.check();
    }
}

#[test]
fn a_snapshot_of_another_base_is_pointed_to() {
    let mounted = Mounted::unmounted();
    mounted.ok(["base", "create", "b"]);
    mounted.ok_of("b", &["snap", "s"]);
    for args in [
        &["session", "online", "s"][..],
        &["delete", "s"],
        &["rename", "s", "t"],
        &["hold", "s"],
        &["diff", "s"],
        &["restore", "s"],
        &["clone", "s", "c"],
    ] {
        let said = mounted.fails(1, args);
        assert!(said.contains("no snapshot named \"s\"; the base \"b\" has one: `-s STORE:b`"), "{args:?}: {said}");
    }
    mounted.ok(["base", "create", "other"]);
    mounted.ok_of("other", &["snap", "s"]);
    let said = mounted.fails(1, ["session", "online", "s"]);
    assert!(said.contains("the bases b, other have one: `-s STORE:BASE`"), "{said}");
    let said = mounted.fails(1, ["session", "online", "t"]);
    assert!(said.contains("`pitfs list` shows"), "{said}");
}

#[test]
fn registered_sessions_outlive_the_daemon() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    mounted.ok(["session", "register", "s", "--offline"]);
    mounted.ok(["session", "relate", "s"]);
    mounted.kill();
    mounted.mount(&[]);
    fs::write(mounted.live().join("f"), "there").unwrap();
    mounted.ok(["session", "activate", "s"]);
    mounted.kill();
    mounted.mount(&[]);
    assert!(!mounted.snap().join("s").exists());
    mounted.ok(["session", "online", "s"]);
    assert_eq!(read(&mounted.snap().join("s/f")), "there");
    mounted.check();
}

#[test]
fn an_offline_snapshot_is_not_in_the_mount_until_it_is_online() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let root = mounted.snap();
    fs::create_dir(mounted.live().join("d")).unwrap();
    fs::write(mounted.live().join("d/f"), "1").unwrap();
    let ways = [root.join("s"), root.join("live/.snap/s"), root.join("live/d/.snap/s")];
    let is_shown = || {
        // What no snapshot shows has no past either.
        let listed = |dir: &Path| if dir.exists() { names(dir) } else { Vec::new() };
        let listed = [&root, &root.join("live/.snap"), &root.join("live/d/.snap")].map(|dir| listed(dir));
        let listed = listed.map(|names| names.contains(&"s".into()));
        let found = [0, 1, 2].map(|at| ways[at].is_dir());
        assert!(listed == [true; 3] && found == [true; 3] || listed == [false; 3] && found == [false; 3]);
        assert_eq!(root.join("@now").exists(), found[0]);
        found[0]
    };
    assert!(!is_shown());
    for args in [&["snap", "s", "--offline"][..], &["session", "offline", "s"]] {
        mounted.ok(args);
        assert!(!is_shown(), "{args:?}");
        assert_eq!(mounted.json(&["list"])[0]["offline"], true);
        mounted.ok(["session", "online", "s"]);
        assert!(is_shown(), "{args:?}");
        assert_eq!(read(&root.join("s/d/f")), "1");
    }
    mounted.ok(["session", "offline", "s"]);
    // By command it can be used all the same.
    fs::write(mounted.live().join("d/f"), "22").unwrap();
    assert!(mounted.ok(["diff", "s"]).contains("M d/f"));
    assert_eq!(errno(fs::create_dir(root.join("s"))), Some(Errno::EXIST));
    mounted.ok(["delete", "s"]);
    fs::create_dir(root.join("s")).unwrap();
    assert!(is_shown());
    mounted.check();
}

#[test]
fn a_deactivated_snapshot_shows_what_it_did_as_long_as_a_later_one_protects_it() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let (root, live) = (mounted.snap(), mounted.live());
    for i in 0..20 {
        fs::write(live.join(format!("f{i}")), random_bytes(i, 20_000)).unwrap();
    }
    mounted.ok(["snap", "a"]);
    let a = listing(&root.join("a"));
    for i in 0..10 {
        fs::write(live.join(format!("f{i}")), random_bytes(100 + i, 30_000)).unwrap();
    }
    mounted.ok(["snap", "b"]);
    let b = listing(&root.join("b"));
    mounted.ok(["session", "deactivate", "a"]);
    for i in 5..15 {
        fs::remove_file(live.join(format!("f{i}"))).unwrap();
    }
    fs::write(live.join("f0"), "new").unwrap();
    assert_same(&listing(&root.join("a")), &a, "deactivated, with an active one behind it");
    assert_same(&listing(&root.join("b")), &b, "active");
    mounted.remount();
    assert_same(&listing(&root.join("a")), &a, "deactivated and mounted again");
    assert_same(&listing(&root.join("b")), &b, "active and mounted again");
    let now = listing(&live);
    // The newest goes, and what it alone protected goes with it.
    mounted.ok(["session", "deactivate", "b"]);
    assert_eq!(names(&root), ["live"]);
    assert!(!root.join("b").exists(), "b ended");
    assert!(!root.join("a").exists(), "a is protected by nothing any more");
    fs::write(live.join("f1"), "new").unwrap();
    fs::write(live.join("f0"), "newer").unwrap();
    let said = mounted.fails(1, ["restore", "b", "--to", "/tmp/nowhere"]);
    assert!(said.contains("deactivated"), "{said}");
    assert_eq!(listing(&live).len(), now.len());
    // What changed while it was active is still known.
    assert!(!mounted.ok(["diff", "--tracks", "b"]).is_empty());
    let list = mounted.ok(["session", "list"]);
    assert_eq!(list.matches("ended").count(), 2, "{list}");
    mounted.check();
    mounted.ok(["delete", "a", "b"]);
    mounted.remount();
    mounted.check();
}

/// Whoever deletes one snapshot loses no other.
#[test]
fn what_a_deleted_snapshot_protected_is_shown_as_before() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let (root, live) = (mounted.snap(), mounted.live());
    let write = |seed: u64| {
        for i in 0..6 {
            if seed.is_multiple_of(i + 1) {
                fs::write(live.join(format!("f{i}")), random_bytes(seed * 10 + i, 30_000)).unwrap();
            }
        }
    };
    let mut shown = Vec::new();
    for turn in 1..=4 {
        write(turn);
        mounted.ok(["roll", "--name", &format!("r{turn}")]);
        shown.push((format!("r{turn}"), listing(&root.join(format!("r{turn}")))));
    }
    mounted.ok(["hold", "r1"]);
    for turn in (2..=4).rev() {
        write(10 + turn);
        match turn {
            3 => fs::remove_dir(root.join("r3")).unwrap(),
            _ => drop(mounted.ok(["delete", &format!("r{turn}")])),
        }
        shown.pop();
        write(20 + turn);
        for (name, wanted) in &shown {
            assert_same(&listing(&root.join(name)), wanted, name);
        }
        mounted.remount();
        for (name, wanted) in &shown {
            assert_same(&listing(&root.join(name)), wanted, name);
        }
    }
    assert_eq!(mounted.json(&["list"])[0]["state"], "active");
    mounted.check();
}

/// Nor does whoever deletes or moves what needed it, or gives that up.
#[test]
fn what_a_clone_or_an_archive_protected_is_shown_as_before() {
    if !can_mount() {
        return;
    }
    let archive = |mounted: &Mounted| mounted.dir.path().join("archive").to_str().unwrap().to_string();
    type Way<'a> = (&'a str, &'a dyn Fn(&Mounted), &'a dyn Fn(&Mounted));
    let clone = |mounted: &Mounted| drop(mounted.ok(["clone", "b", "c"]));
    let ways: [Way<'_>; 4] = [
        ("a clone is deleted", &clone, &|mounted| drop(mounted.ok(["base", "delete", "c"]))),
        ("a clone is moved", &clone, &|mounted| drop(mounted.ok(["clone", "--refresh", "c", "a"]))),
        ("a clone is promoted", &clone, &|mounted| drop(mounted.ok(["promote", "--wait", "c"]))),
        (
            "an archive is given up",
            &|mounted| drop(mounted.ok(["roll", "--archive", &archive(mounted), "--name", "r"])),
            &|mounted| {
                mounted.ok(["session", "deactivate", "r"]);
                mounted.ok(["archive", "detach"]);
            },
        ),
    ];
    for (what, protect, end) in ways {
        let mounted = Mounted::new();
        let (root, file) = (mounted.snap(), mounted.live().join("f"));
        let write = |text: &str| fs::write(&file, text).unwrap();
        for name in ["a", "b"] {
            write(name);
            mounted.ok(["snap", name]);
        }
        mounted.ok(["hold", "a"]);
        write("then");
        protect(&mounted);
        for name in ["a", "b"] {
            // A roll has deactivated what is not held.
            mounted.run(["session", "deactivate", name]);
        }
        write("now");
        end(&mounted);
        write("later");
        for _ in 0..2 {
            for name in ["a", "b"] {
                // Mounted again, a store of two bases has a directory for each.
                let places = [root.join(name), root.join("live").join(name)];
                let read = fs::read_to_string(places.into_iter().find(|place| place.is_dir()).unwrap().join("f"));
                assert!(read.as_ref().is_ok_and(|read| read == name), "{what}: {name}: {read:?}");
            }
            mounted.remount();
        }
        mounted.check();
    }
}

#[test]
fn what_is_held_does_not_end() {
    for (mounted, _) in Mounted::unmounted_and_mounted() {
        mounted.ok(["base", "create", "b"]);
        mounted.ok(["group", "create", "g", "live", "b"]);
        mounted.ok(["snap", "--group", "g", "s"]);
        mounted.ok_of("b", &["hold", "s"]);
        let states = || {
            let list = mounted.json(&["list", "--all"]);
            list.as_array()
                .unwrap()
                .iter()
                .map(|found| found["state"].as_str().unwrap().to_string())
                .collect::<Vec<_>>()
        };
        let said = mounted.fails(1, ["session", "deactivate", "s"]);
        assert!(said.contains("is held and would end"), "{said}");
        assert_eq!(states(), ["active", "active"], "all of a moment or none");
        // Deactivated it may be while a later one protects it, which may not be deactivated then.
        mounted.ok_of("b", &["snap", "t"]);
        mounted.ok(["session", "deactivate", "s"]);
        assert!(mounted.ok_of("b", &["list"]).contains("deactivated"));
        let said = mounted.fails(1, ["-s", &mounted.of("b"), "session", "deactivate", "t"]);
        assert!(said.contains("\"s\" is held"), "{said}");
        mounted.ok_of("b", &["release", "s"]);
        mounted.ok_of("b", &["session", "deactivate", "t"]);
    }
}

const BASES: [&str; 3] = ["live", "b", "c"];

#[test]
fn a_group_has_one_moment() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::unmounted();
    mounted.ok(["base", "create", "b"]);
    mounted.ok(["base", "create", "c"]);
    mounted.ok(["group", "create", "g", "c", "live", "b"]);
    for (args, says) in [
        (&["group", "create", "g", "b"][..], "already"),
        (&["group", "create", "h", "none"], "no base named"),
        (&["group", "delete", "h"], "no group"),
        (&["snap", "x", "--group", "h"], "no group"),
    ] {
        let said = mounted.fails(1, args);
        assert!(said.contains(says), "{args:?}: {said}");
    }
    mounted.mount(&[]);
    let counter = |base: &str, view: &str| mounted.snap().join(base).join(view).join("counter");
    for base in BASES {
        fs::write(counter(base, "live"), 0u64.to_le_bytes()).unwrap();
    }
    let stop = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let files = BASES.map(|base| File::options().write(true).open(counter(base, "live")).unwrap());
            let mut count = 0u64;
            while !stop.load(Ordering::Relaxed) {
                count += 1;
                for file in &files {
                    file.write_all_at(&count.to_le_bytes(), 0).unwrap();
                }
            }
            count
        });
        for i in 0..60 {
            if i % 3 == 0 {
                let name = format!("s{i}");
                mounted.ok(["session", "register", &name, "--group", "g"]);
                mounted.ok(["session", "relate", &name]);
                mounted.ok(["session", "activate", &name]);
            } else {
                mounted.ok(["snap", &format!("s{i}"), "--group", "g"]);
            }
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    let verify = || {
        let mut seen = std::collections::BTreeSet::new();
        for i in 0..60 {
            let [a, b, c] = BASES.map(|base| {
                let bytes = fs::read(counter(base, &format!("s{i}"))).unwrap();
                u64::from_le_bytes(bytes.try_into().unwrap())
            });
            assert!(a >= b && b >= c && c + 1 >= a && a <= written, "snapshot s{i} shows {a}, {b}, {c}");
            seen.insert(a);
        }
        assert!(seen.len() > 10, "the writer hardly ran: {seen:?}");
    };
    verify();
    mounted.remount();
    verify();
    // A group outlives its base; what is left of it is still one.
    mounted.ok(["base", "delete", "c"]);
    let said = mounted.run(["snap", "after", "--group", "g"]);
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.status.success() || !text.contains("os error"), "{text}");
    mounted.ok(["group", "delete", "g"]);
    assert_eq!(mounted.json(&["group", "list"]), serde_json::json!([]));
    mounted.check();
}
