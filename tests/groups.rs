//! What is done to all bases of a group as one; and trees that are offline, or come out of an archive.

mod mounted;

use mounted::*;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A store with the bases `live` and `b` in the group `g`, with a file in each; mounted, where that can be had.
fn sample() -> Option<Mounted> {
    let mounted = Mounted::with_group()?;
    write(&mounted, "first");
    Some(mounted)
}

fn write(mounted: &Mounted, text: &str) {
    for base in ["live", "b"] {
        fs::write(mounted.snap().join(base).join("live/f"), format!("{text} of {base}")).unwrap();
    }
}

fn assert_is(mounted: &Mounted, below: &str, text: &str) {
    for base in ["live", "b"] {
        assert_eq!(read(&mounted.snap().join(base).join(below).join("f")), format!("{text} of {base}"));
    }
}

fn commits(mounted: &Mounted) -> usize {
    mounted.json(&["history"]).as_array().unwrap().len()
}

#[test]
fn a_group_goes_back_in_one_step() {
    let Some(mounted) = sample() else { return };
    mounted.ok(["snap", "--group", "g", "s"]);
    write(&mounted, "second");
    let before = commits(&mounted);
    let said = mounted.ok(["restore", "--group", "g", "s"]);
    assert!(said.contains("live:s: restored") && said.contains("b:s: restored"), "{said}");
    assert_eq!(commits(&mounted), before + 1, "one step");
    assert_is(&mounted, "live", "first");
    // What was there before has one name, and is gone back to as one.
    let names: Vec<String> =
        ["live", "b"].map(|base| mounted.snapshots_of(base).into_iter().find(|name| name != "s").unwrap()).to_vec();
    assert!(names[0] == names[1] && names[0].starts_with("before-restore-"), "{names:?}");
    mounted.ok(["restore", "--group", "g", &names[0]]);
    assert_is(&mounted, "live", "second");
    // Where nothing differs, that is said of each.
    mounted.ok(["snap", "--group", "g", "same"]);
    let told = mounted.json(&["restore", "--group", "g", "same"]);
    let of = |at: usize| (told[at]["restored"]["base"].clone(), told[at]["before"].clone());
    assert_eq!((of(0), of(1)), (("live".into(), Value::Null), ("b".into(), Value::Null)), "{told}");
    let plan = mounted.json(&["restore", "--group", "g", "same", "-n"]);
    assert_eq!((plan["restored"].as_array().unwrap().len(), plan["taken"].as_array().unwrap().len()), (2, 0), "{plan}");
    assert!(mounted.ok(["restore", "--group", "g", "same"]).contains("nothing differs"));
    assert!(mounted.ok(["restore", "--group", "g", "same", "-n"]).contains("nothing differs"));
    // Where one base lacks the snapshot, nothing is done.
    mounted.ok(["snap", "only live"]);
    write(&mounted, "third");
    let said = mounted.fails(1, ["restore", "--group", "g", "only live"]);
    assert!(said.contains("there is no snapshot named \"only live\""), "{said}");
    assert_is(&mounted, "live", "third");
    mounted.fails(2, ["restore", "--group", "g", "s", "f"]);
    mounted.check();
}

#[test]
fn a_group_is_saved_and_gone_back_with_as_one() {
    let Some(mounted) = sample() else { return };
    let said = mounted.fails(1, ["restore", "--group", "g", "--last"]);
    assert!(said.contains("nothing was saved yet of all bases"), "{said}");
    mounted.ok(["save", "--group", "g", "one"]);
    write(&mounted, "second");
    // Of one base alone it is no save of the group.
    mounted.ok(["save", "two"]);
    mounted.ok(["restore", "--group", "g", "--last"]);
    assert_is(&mounted, "live", "first");
    assert!(mounted.ok(["history"]).contains("save --group \"g\" \"one\""));
}

#[test]
fn snapshots_of_a_group_are_deleted_in_one_step_or_not_at_all() {
    let Some(mounted) = sample() else { return };
    for name in ["s", "t"] {
        mounted.ok(["snap", "--group", "g", name]);
    }
    mounted.ok_of("b", &["hold", "t"]);
    let said = mounted.fails(1, ["delete", "--group", "g", "s", "t"]);
    assert!(said.contains("b: \"t\" is held; `pitfs -s STORE:b release t`"), "it says of which base: {said}");
    mounted.ok_of("b", &["release", "t"]);
    mounted.ok(["clone", "b:s", "c"]);
    let said = mounted.fails(1, ["delete", "--group", "g", "s", "t"]);
    assert!(said.contains("needed by c"), "{said}");
    for base in ["live", "b"] {
        assert_eq!(mounted.snapshots_of(base), ["s", "t"]);
    }
    assert_eq!(mounted.fails(1, ["delete", "-n", "--group", "g", "s", "t"]), said);
    let would = mounted.json(&["delete", "-n", "--group", "g", "s", "--recursive"]);
    assert_eq!((&would["bases"][0]["name"], would["snapshots"].as_array().unwrap().len()), (&"c".into(), 2));
    let before = commits(&mounted);
    mounted.ok(["delete", "--group", "g", "t"]);
    assert_eq!(commits(&mounted), before + 1);
    mounted.ok(["delete", "--group", "g", "s", "--recursive"]);
    assert!(mounted.snapshots_of("live").is_empty() && mounted.snapshots_of("b").is_empty());
    assert!(mounted.base_info("c").is_null());
    assert!(!mounted.snap().join("b/s").exists() && !mounted.snap().join("live/s").exists());
    mounted.check();
}

#[test]
fn a_moment_is_deactivated_as_a_whole_unless_one_base_is_meant() {
    let Some(mounted) = sample() else { return };
    let state = |base: &str, name: &str| {
        let list = mounted.json(&["-s", &mounted.of(base), "list"]);
        let all = list.as_array().unwrap().clone();
        all.into_iter().find(|found| found["name"] == name).unwrap()["state"].as_str().unwrap().to_string()
    };
    mounted.ok(["session", "register", "s", "--base", "live", "--base", "b:other"]);
    mounted.ok(["session", "relate", "s"]);
    // The name of each is taken from now on, in its base alone.
    assert!(mounted.fails_of("b", &["snap", "other"]).contains("session named \"s\" is registered"));
    mounted.ok(["snap", "other"]);
    mounted.ok(["session", "activate", "s"]);
    assert_eq!(
        (mounted.snapshots_of("live"), mounted.snapshots_of("b")),
        (vec!["other".into(), "s".into()], vec!["other".into()])
    );
    assert_eq!(read(&mounted.snap().join("b/other/f")), "first of b");
    // That of another moment stays.
    mounted.ok(["session", "deactivate", "s"]);
    assert_eq!([state("live", "s"), state("b", "other"), state("live", "other")], ["ended", "ended", "active"]);
    assert!(!mounted.snap().join("b/other").exists());
    mounted.ok(["snap", "--group", "g", "z"]);
    mounted.ok_of("b", &["session", "deactivate", "z"]);
    assert_eq!([state("live", "z"), state("b", "z")], ["active", "ended"]);
    let said = mounted.fails(1, ["session", "deactivate", "z"]);
    assert!(said.contains("deactivated already"), "{said}");
    assert_eq!(state("live", "z"), "active", "all of them or none");
    // What has ended says so wherever it is asked for.
    for args in
        [&["restore", "b:z"][..], &["restore", "b:z", "--to-base", "n"], &["clone", "b:z", "n"], &["diff", "b:z", "b"]]
    {
        let said = mounted.fails(1, args);
        assert!(said.contains("was deactivated and has ended"), "{args:?}: {said}");
    }
    let said = mounted.fails_of("b", &["restore", "@now"]);
    assert!(said.contains("that can be looked into: \"z\" was deactivated and has ended"), "{said}");
}

#[test]
fn a_group_is_cloned_in_one_step() {
    let Some(mounted) = sample() else { return };
    mounted.ok(["snap", "--group", "g", "s"]);
    write(&mounted, "second");
    mounted.ok(["base", "create", "t-b"]);
    mounted.fails(1, ["clone", "--group", "g", "s", "t"]);
    assert!(mounted.base_info("t-live").is_null(), "all or none");
    mounted.ok(["base", "delete", "t-b"]);
    mounted.ok(["clone", "--group", "g", "--full", "--wait", "s", "t"]);
    for base in ["live", "b"] {
        let clone = mounted.snap().join(base).join(format!("t-{base}/f"));
        assert_eq!(read(&clone), format!("first of {base}"));
        assert!(mounted.base_info(&format!("t-{base}"))["needs"].is_null());
    }
    mounted.check();
}

#[test]
fn a_group_is_rolled_at_one_moment() {
    let Some(mounted) = sample() else { return };
    let archive = mounted.dir.path().join("archive");
    let said = mounted.ok(["roll", "--group", "g", "--archive", archive.to_str().unwrap(), "--name", "r1"]);
    assert!(said.contains("live:r1: 0 increments saved") && said.contains("b:r1: 0 increments saved"), "{said}");
    write(&mounted, "second");
    let reports = mounted.json(&["roll", "--group", "g", "--name", "r2", "--keep", "1"]);
    for (i, base) in ["live", "b"].into_iter().enumerate() {
        assert_eq!((&reports[i]["base"], &reports[i]["roll"]["saved"]), (&base.into(), &1.into()), "{reports}");
        assert_eq!(names(&archive.join(base)).iter().filter(|name| name.ends_with(".increment")).count(), 1);
    }
    assert_is(&mounted, "r1", "first");
    assert_is(&mounted, "r2", "second");
    let times = ["live", "b"].map(|base| {
        let list = mounted.json(&["-s", &mounted.of(base), "list"]);
        list.as_array().unwrap().iter().find(|found| found["name"] == "r2").unwrap()["time"].clone()
    });
    assert_eq!(times[0], times[1]);
    // A base that has another name now goes on where it was.
    mounted.ok(["base", "rename", "b", "other"]);
    let there = archive.to_str().unwrap();
    let plan = mounted.json(&["roll", "-n", "--group", "g", "--archive", there, "--name", "r3"]);
    let known = ["live", "b"].map(|name| archive.join(name).canonicalize().unwrap());
    let planned: Vec<_> = plan["archives"].as_array().unwrap().iter().map(|one| one["directory"].clone()).collect();
    assert_eq!(planned, known.map(|path| path.to_str().unwrap().to_string()), "a dry run goes on there as well");
    mounted.ok(["roll", "--group", "g", "--archive", there, "--name", "r3"]);
    assert_eq!(names(&archive), ["b", "live"]);
    let said = mounted.fails(
        1,
        ["roll", "--group", "g", "--archive", mounted.dir.path().join("elsewhere").to_str().unwrap(), "--name", "r4"],
    );
    assert!(said.contains("live: ") && said.contains("attached already"), "{said}");
    let elsewhere = mounted.dir.path().join("elsewhere");
    let rehearsed = mounted.fails(1, ["roll", "-n", "--group", "g", "--archive", elsewhere.to_str().unwrap()]);
    assert_eq!(rehearsed, said, "and is refused as the real one is");
    mounted.check();
}

#[test]
fn clones_bases_and_mirrors_can_be_offline() {
    let Some(mounted) = sample() else { return };
    mounted.ok(["snap", "s"]);
    mounted.ok(["clone", "--offline", "s", "c"]);
    mounted.ok(["restore", "s", "--to-clone", "c2", "--offline"]);
    mounted.ok(["restore", "s", "--to-base", "n", "--offline"]);
    mounted.ok(["base", "create", "e", "--offline"]);
    mounted.ok(["mirror", "establish", "b", "m", "--offline"]);
    let snap = mounted.snap();
    let shown = |name: &str| snap.join(name).exists() || snap.join("live").join(name).exists();
    let all = ["c", "c2", "n", "e", "m"];
    let assert_shown = |is_shown: bool| {
        let (root, live) = (names(&snap), names(&snap.join("live")));
        for name in all {
            assert_eq!(shown(name), is_shown, "{name}");
            assert_eq!(
                root.contains(&name.into()) || live.contains(&name.into()),
                is_shown,
                "{name}: {root:?} {live:?}"
            );
            assert_eq!(mounted.base_info(name)["offline"], !is_shown, "{name}");
        }
    };
    assert_shown(false);
    assert!(mounted.ok(["base", "list"]).contains("clone of live:s, offline"));
    // Commands reach it.
    mounted.ok_of("n", &["snap", "x"]);
    mounted.remount();
    assert_shown(false);
    all.iter().for_each(|name| drop(mounted.ok(["session", "online", name])));
    assert_shown(true);
    assert_eq!(read(&snap.join("live/c/f")), "first of live");
    let open = fs::File::open(snap.join("live/c/f")).unwrap();
    all.iter().for_each(|name| drop(mounted.ok(["session", "offline", name])));
    assert_shown(false);
    let mut bytes = [0; 5];
    std::os::unix::fs::FileExt::read_exact_at(&open, &mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"first", "what is open goes on");
    let said = mounted.fails(1, ["session", "offline", "live"]);
    assert!(said.contains("first base"), "{said}");
    mounted.ok(["base", "delete", "c"]);
    mounted.check();
}

fn populate(root: &Path) {
    fs::create_dir_all(root.join("d/e")).unwrap();
    fs::write(root.join("d/large"), random_bytes(1, 200_000)).unwrap();
    fs::write(root.join("d/e/small"), "small").unwrap();
    fs::hard_link(root.join("d/large"), root.join("d/e/again")).unwrap();
    std::os::unix::fs::symlink("e/small", root.join("d/link")).unwrap();
    let file = fs::File::create(root.join("d/sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", 1 << 20).unwrap();
    let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    for path in ["d/large", "d/e", "d"] {
        fs::File::open(root.join(path)).unwrap().set_times(fs::FileTimes::new().set_modified(then)).unwrap();
    }
}

#[test]
fn a_time_that_only_an_archive_has_becomes_a_base_or_a_clone() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::unmounted();
    mounted.ok(["base", "create", "other"]);
    mounted.mount(&[]);
    let live = mounted.snap().join("live/live");
    populate(&live);
    let then = listing(&live);
    let archive = mounted.dir.path().join("archive");
    mounted.ok(["roll", "--archive", archive.to_str().unwrap(), "--name", "old"]);
    fs::write(live.join("d/large"), random_bytes(2, 300_000)).unwrap();
    fs::remove_dir_all(live.join("d/e")).unwrap();
    mounted.ok(["roll", "--name", "new", "--keep", "1"]);
    assert!(mounted.ok(["list"]).contains("archived"));
    mounted.ok(["restore", "old", "--to-base", "n"]);
    mounted.ok(["base", "create", "n2", "--from", "old", "--offline"]);
    mounted.ok(["restore", "old", "--to-clone", "c"]);
    mounted.ok(["clone", "old", "c2"]);
    assert_same(&listing(&mounted.snap().join("n/live")), &then, "the new base");
    for clone in ["c", "c2"] {
        assert_same(&listing(&mounted.snap().join("live").join(clone)), &then, clone);
    }
    assert!(!mounted.snap().join("n2").exists());
    mounted.ok(["session", "online", "n2"]);
    assert_same(&listing(&mounted.snap().join("n2/live")), &then, "the base that was offline");
    // Each is its own.
    fs::write(mounted.snap().join("live/c/d/large"), "mine").unwrap();
    fs::write(mounted.snap().join("n/live/d/large"), "and mine").unwrap();
    mounted.ok(["archive", "detach"]);
    mounted.remount();
    assert_same(&listing(&mounted.snap().join("live/c2")), &then, "without the archive");
    assert!(mounted.base_info("c2")["needs"].is_null());
    mounted.check();
}

/// What a group was at one moment is backed up as one, and comes back as one.
#[test]
fn a_group_is_backed_up_as_one() {
    let Some(mounted) = sample() else { return };
    let target = mounted.dir.path().join("usb");
    fs::create_dir(&target).unwrap();
    mounted.ok(["target", "add", "usb", target.to_str().unwrap(), "--no-encryption"]);
    assert!(mounted.fails(1, ["backup", "--group", "g"]).contains("no snapshots of one moment"));
    mounted.ok(["snap", "--group", "g", "s"]);
    write(&mounted, "second");
    mounted.ok(["snap", "only live"]);
    let said = mounted.ok(["backup", "--group", "g"]);
    assert!(said.contains("live:s: ") && said.contains("b:s: ") && !said.contains("only live"), "{said}");
    assert!(mounted.ok(["backup", "--group", "g", "s"]).matches("there already").count() == 2);
    assert!(mounted.fails(1, ["backup", "--group", "g", "only live"]).contains("only live"));
    mounted.fails(2, ["backup", "--group", "g", "--all-snapshots"]);
    // By the daemon, which holds them all until it is done.
    write(&mounted, "third");
    mounted.ok(["snap", "--group", "g", "t"]);
    let job = mounted.json(&["backup", "--group", "g", "--detach"]);
    assert_eq!(job["holds"], serde_json::json!(["t", "t"]), "{job}");
    mounted.ok(["job", "wait", job["job"].as_str().unwrap()]);
    for base in ["live", "b"] {
        assert_eq!(mounted.ok_of(base, &["delete", "t"]), "", "nothing is held any more");
    }
    mounted.umount();
    // From the target alone, both are there.
    let made = mounted.dir.path().join("made");
    let made = made.to_str().unwrap();
    run_in(mounted.dir.path(), ["create", made, "--from-set", target.to_str().unwrap(), "--history"]);
    let listed = ok_in(mounted.dir.path(), &["-s", made, "base", "list"]);
    assert!(listed.contains("live") && listed.contains('b'), "{listed}");
    for base in ["live", "b"] {
        let out = mounted.dir.path().join(format!("out {base}"));
        let view = format!("{base}:t");
        ok_in(mounted.dir.path(), &["-s", made, "restore", &view, "--to", out.to_str().unwrap()]);
        assert_eq!(read(&out.join("f")), format!("third of {base}"));
    }
}
