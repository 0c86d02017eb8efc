//! Dry runs change nothing, are refused as the real thing is, and say what that does then.

mod mounted;

use mounted::*;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// All that commands tell of a store, and all bytes of its archives.
fn state(mounted: &Mounted) -> Vec<String> {
    let told = [
        &["history"][..],
        &["list", "--all"],
        &["base", "list"],
        &["session", "list"],
        &["group", "list"],
        &["archive", "list"],
        &["policy"],
    ];
    let mut all: Vec<String> = Vec::new();
    for args in told {
        let output = mounted.run([args, &["--json"]].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        // What is in memory alone is counted when it gets a place, which happens any time.
        let lines: Vec<&str> = text.lines().filter(|line| !line.contains("\"refers_bytes\"")).collect();
        all.push(format!("{args:?}: {}", lines.join("\n")));
    }
    for name in ["archive", "other", "out"] {
        let directory = mounted.dir.path().join(name);
        if directory.exists() {
            all.push(format!("{name}: {:?}", listing(&directory)));
        }
    }
    all
}

fn assert_unchanged(mounted: &Mounted, before: &[String], args: &[&str]) {
    for (before, after) in before.iter().zip(state(mounted)) {
        let differs = before.lines().zip(after.lines()).find(|(before, after)| before != after);
        assert!(*before == after, "{args:?} has changed {:?}: {differs:?}", before.split(':').next());
    }
}

/// What a dry run says, which has changed nothing.
fn planned(mounted: &Mounted, args: &[&str]) -> Value {
    let before = state(mounted);
    let text = mounted.ok([args, &["-n"]].concat());
    let plan = mounted.json(&[args, &["--dry-run"]].concat());
    assert!(!text.is_empty() && plan["dry_run"] == true, "{args:?}: {text}");
    assert_unchanged(mounted, &before, args);
    plan
}

/// That a dry run is refused in the words in which the real thing is, and neither changes anything.
fn refused(mounted: &Mounted, args: &[&str]) {
    let before = state(mounted);
    let dry = mounted.fails(1, [args, &["-n"]].concat());
    assert_unchanged(mounted, &before, args);
    assert_eq!(dry, mounted.fails(1, args), "{args:?}");
    assert_unchanged(mounted, &before, args);
}

fn names(snapshots: &Value) -> Vec<String> {
    let name = |one: &Value| one["name"].as_str().unwrap().to_string();
    snapshots.as_array().unwrap().iter().map(name).collect()
}

/// A store with changes of every kind since the snapshot `s`.
fn changed() -> Option<Mounted> {
    if !can_mount() {
        return None;
    }
    let mounted = Mounted::new();
    let live = mounted.live();
    let write = |name: &str, bytes: &[u8]| fs::write(live.join(name), bytes).unwrap();
    for directory in ["d", "d/below", "moved", "gone"] {
        fs::create_dir(live.join(directory)).unwrap();
    }
    for name in ["same", "written", "mode", "d/file", "d/below/file", "moved/file", "gone/file", "renamed"] {
        write(name, &[1; 5000]);
    }
    mounted.ok(["snap", "s"]);
    write("written", &[2; 7000]);
    write("d/new", &[2; 10]);
    fs::set_permissions(live.join("mode"), PermissionsExt::from_mode(0o600)).unwrap();
    fs::remove_file(live.join("d/below/file")).unwrap();
    fs::rename(live.join("moved"), live.join("d/moved")).unwrap();
    fs::remove_dir_all(live.join("gone")).unwrap();
    fs::rename(live.join("renamed"), live.join("d/renamed")).unwrap();
    Some(mounted)
}

#[test]
fn a_restore_that_is_tried_says_what_the_restore_does() {
    let Some(mounted) = changed() else { return };
    for paths in [&["written"][..], &["d"], &["mode", "d/below"], &["gone", "written"], &["moved"], &["/"]] {
        let args = [&["restore", "s"], paths].concat();
        let plan = planned(&mounted, &args);
        assert_eq!((names(&plan["restored"]), plan["taken"].as_array().unwrap().len()), (vec!["s".into()], 1));
        let done = mounted.json(&args);
        for field in ["files", "bytes", "removed"] {
            assert_eq!(plan[field], done[field], "{field} of {args:?}: {plan}");
        }
        // The same is nothing to do now.
        let plan = planned(&mounted, &args);
        assert_eq!((plan["files"].as_u64(), plan["taken"].as_array().unwrap().len()), (Some(0), 0), "{args:?}: {plan}");
        mounted.ok(["restore", done["before"]["name"].as_str().unwrap()]);
    }
    // As a whole.
    mounted.ok(["policy", "--before-restore", "1"]);
    let plan = planned(&mounted, &["restore", "s"]);
    assert_eq!((names(&plan["restored"]), plan["taken"].as_array().unwrap().len()), (vec!["s".into()], 1));
    assert_eq!(plan["taken"][0]["purpose"], "before-restore");
    assert!(plan["taken"][0]["id"].is_null() && plan["restored"][0]["id"].is_string(), "it gets one when it is taken");
    let before = mounted.snapshots_of("live");
    mounted.ok(["restore", "s"]);
    let after = mounted.snapshots_of("live");
    let gone: Vec<&String> = before.iter().filter(|name| !after.contains(name)).collect();
    assert_eq!(names(&plan["freed"]).iter().collect::<Vec<_>>(), gone, "what the policy lets go is said");
    assert!(!gone.is_empty());
    let plan = planned(&mounted, &["restore", "s"]);
    assert_eq!((names(&plan["restored"]), &plan["files"]), (vec!["s".into()], &0.into()));
    assert_eq!(names(&plan["taken"]), [""; 0], "nothing differs");
    for args in [&["restore", "none"][..], &["restore", "s", "none"], &["restore", "--last"], &["restore", "s", ""]] {
        refused(&mounted, args);
    }
}

#[test]
fn copying_out_that_is_tried_makes_nothing() {
    let Some(mounted) = changed() else { return };
    let out = mounted.dir.path().join("out");
    let to = ["--to", out.to_str().unwrap()];
    for paths in [&[][..], &["d/below", "written"]] {
        let args = [&["restore", "s"], paths, &to].concat();
        let plan = planned(&mounted, &args);
        assert!(!out.exists());
        let done = mounted.json(&args);
        for field in ["files", "bytes", "problems"] {
            assert_eq!(plan[field], done[field], "{field} of {args:?}");
        }
        // What is there is in the way, and is said to be.
        let dry = mounted.run([&args, &["-n", "--json"][..]].concat());
        let real = mounted.run([&args, &["--json"][..]].concat());
        assert_eq!((dry.status.code(), real.status.code()), (Some(1), Some(1)));
        let [dry, real] = [dry, real].map(|output| serde_json::from_slice::<Value>(&output.stdout).unwrap());
        let problems = |value: &Value| {
            let all = value["problems"].as_array().unwrap().iter();
            all.map(|problem| problem.as_str().unwrap().to_string()).collect::<BTreeSet<_>>()
        };
        assert!(!problems(&dry).is_empty());
        assert_eq!(problems(&dry), problems(&real));
        assert_eq!(mounted.json(&[&args, &["-n", "--overwrite"][..]].concat())["bytes"], done["bytes"]);
        fs::remove_dir_all(&out).unwrap();
    }
    let inside = mounted.live().join("x");
    refused(&mounted, &["restore", "s", "--to", inside.to_str().unwrap()]);
    assert!(!inside.exists());
}

#[test]
fn clones_and_mirrors_that_are_tried_are_not_made() {
    let Some(mounted) = Mounted::with_group() else { return };
    for base in ["live", "b"] {
        fs::write(mounted.snap().join(base).join("live/f"), [1; 300_000]).unwrap();
    }
    mounted.ok(["snap", "--group", "g", "s"]);
    let tried = |args: &[&str]| {
        let before: BTreeSet<String> = names(&mounted.json(&["base", "list"])).into_iter().collect();
        let plan = planned(&mounted, args);
        mounted.ok(args);
        let bases = mounted.json(&["base", "list"]);
        let made: BTreeSet<String> = names(&bases).into_iter().filter(|name| !before.contains(name)).collect();
        let planned = plan["made"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_string());
        assert_eq!(made, planned.collect(), "{args:?}");
        (plan, bases)
    };
    let refers = mounted.json(&["list"])[0]["refers_bytes"].as_u64().unwrap();
    assert!(refers > 0);
    let (plan, _) = tried(&["clone", "s", "c"]);
    assert_eq!((&plan["copied_bytes"], &plan["reserved_bytes"]), (&0.into(), &0.into()));
    let (plan, bases) = tried(&["clone", "--copy", "--reserve", "--wait", "s", "d"]);
    assert_eq!((&plan["copied_bytes"], &plan["reserved_bytes"]), (&refers.into(), &refers.into()));
    let d = bases.as_array().unwrap().iter().find(|base| base["name"] == "d").unwrap();
    assert_eq!(d["reserved_bytes"], plan["reserved_bytes"]);
    tried(&["clone", "--group", "g", "s", "e"]);
    tried(&["restore", "s", "--to-base", "f", "--wait"]);
    tried(&["restore", "s", "--to-clone", "h"]);
    let (plan, _) = tried(&["mirror", "establish", "live", "m"]);
    assert_eq!(plan["copied_bytes"], refers);
    fs::write(mounted.snap().join("live/live/f"), [2; 100_000]).unwrap();
    let changed = planned(&mounted, &["mirror", "sync", "m"]);
    assert!((1..=refers).contains(&changed["copied_bytes"].as_u64().unwrap()), "{changed}");
    tried(&["mirror", "sync", "m"]);
    assert_eq!(planned(&mounted, &["mirror", "sync", "m"])["copied_bytes"], 0);
    tried(&["mirror", "split", "m"]);
    fs::write(mounted.snap().join("m/live/f"), [3; 100_000]).unwrap();
    let plan = planned(&mounted, &["mirror", "restore", "m"]);
    assert_eq!((&plan["changed"][0], &plan["taken"][0]["purpose"]), (&"live".into(), &"before-restore".into()));
    tried(&["mirror", "resync", "m"]);
    tried(&["restore", "s", "--to-mirror", "m"]);
    mounted.ok(["snap", "t"]);
    let plan = planned(&mounted, &["clone", "--refresh", "c", "t"]);
    assert_eq!((&plan["changed"][0], &plan["restored"][0]["name"]), (&"c".into(), &"t".into()));
    for args in [
        &["clone", "s", "c"][..],
        &["clone", "s", "x:y"],
        &["clone", "none", "x"],
        &["clone", "--refresh", "live", "s"],
        &["mirror", "establish", "none", "x"],
        &["mirror", "split", "m"],
        &["mirror", "sync", "m"],
        &["restore", "s", "--to-mirror", "c"],
        &["restore", "s", "--to-base", "b"],
    ] {
        refused(&mounted, args);
    }
    // Whole bases of a group.
    fs::write(mounted.snap().join("b/live/f"), [4; 10]).unwrap();
    let plan = planned(&mounted, &["restore", "--group", "g", "s"]);
    assert_eq!((names(&plan["restored"]).len(), plan["taken"].as_array().unwrap().len()), (2, 2));
    refused(&mounted, &["restore", "--group", "none", "s"]);
    // A dry run is one also where nothing holds the store open.
    mounted.umount();
    planned(&mounted, &["restore", "s"]);
    planned(&mounted, &["clone", "s", "z"]);
    mounted.check();
}

/// The snapshots that the store holds itself.
fn stored(mounted: &Mounted) -> Vec<String> {
    let all = mounted.json(&["list"]);
    let stored = all.as_array().unwrap().iter().filter(|one| one["archived"] == false);
    stored.map(|one| one["name"].as_str().unwrap().to_string()).collect()
}

fn archived(archive: &Path) -> usize {
    let files = fs::read_dir(archive).unwrap();
    files.filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().ends_with(".increment")).count()
}

#[test]
fn a_roll_that_is_tried_takes_saves_and_frees_nothing() {
    let Some(mounted) = changed() else { return };
    let archive = mounted.dir.path().join("archive");
    let to = archive.to_str().unwrap();
    mounted.ok(["snap", "held", "--hold"]);
    for (at, args) in [
        &["roll", "--archive", to, "--name", "r0"][..],
        &["roll", "--name", "r1"],
        &["roll", "--keep", "1", "--name", "r2"],
        &["roll", "--archive", to, "--keep", "2", "--name", "r3"],
    ]
    .into_iter()
    .enumerate()
    {
        let plan = planned(&mounted, args);
        assert!(at > 0 || !archive.exists());
        let before = stored(&mounted);
        let done = mounted.json(args);
        let after: BTreeSet<String> = stored(&mounted).into_iter().collect();
        assert_eq!(names(&plan["taken"]), [done["snapshot"].as_str().unwrap()]);
        assert_eq!(plan["saved"].as_array().unwrap().len() as u64, done["saved"].as_u64().unwrap(), "{plan}");
        let gone: Vec<String> = before.into_iter().filter(|name| !after.contains(name)).collect();
        assert_eq!(names(&plan["freed"]), gone);
        assert_eq!(plan["archives"][0]["directory"], to);
        for name in names(&plan["deactivated"]).iter().filter(|name| after.contains(*name)) {
            let all = mounted.json(&["list"]);
            let state = all.as_array().unwrap().iter().find(|one| one["name"] == *name).unwrap()["state"].clone();
            assert!(state != "active", "{name}: {state}");
        }
    }
    assert_eq!(archived(&archive), 5);
    // One that is not attached is looked at as it is.
    mounted.ok(["archive", "detach"]);
    let plan = planned(&mounted, &["roll", "--archive", to, "--name", "r4"]);
    let done = mounted.json(&["roll", "--archive", to, "--name", "r4"]);
    assert_eq!(plan["saved"].as_array().unwrap().len() as u64, done["saved"].as_u64().unwrap(), "{plan}");
    // What is only in the archive is copied.
    let times = mounted.json(&["list"]);
    let old = times.as_array().unwrap().iter().find(|one| one["archived"] == true).unwrap()["name"].clone();
    let old = old.as_str().unwrap();
    let plan = planned(&mounted, &["clone", old, "c"]);
    assert!(plan["copied_bytes"].as_u64().unwrap() > 0 && plan["files"].as_u64().unwrap() > 0, "{plan}");
    let plan = planned(&mounted, &["restore", old]);
    let done = mounted.json(&["restore", old]);
    assert_eq!((&plan["files"], &plan["removed"]), (&done["files"], &done["removed"]), "{plan}");
    refused(&mounted, &["roll", "--name", "r4"]);
    refused(&mounted, &["roll", "--archive", mounted.live().join("x").to_str().unwrap()]);
    refused(&mounted, &["roll", "--archive", mounted.dir.path().join("other").to_str().unwrap()]);
    refused(&mounted, &["roll", "--group", "none"]);
    refused(&mounted, &["clone", old, "live"]);
}

/// The names of bases, and of snapshots as BASE:NAME, that a deletion tells.
fn told(deletion: &Value) -> Vec<String> {
    let all = |field: &str| deletion[field].as_array().unwrap().clone();
    let base = |base: Value| base["name"].as_str().unwrap().to_string();
    let snapshot = |one: Value| format!("{}:{}", one["base"].as_str().unwrap(), one["name"].as_str().unwrap());
    all("bases").into_iter().map(base).chain(all("snapshots").into_iter().map(snapshot)).collect()
}

/// All bases and snapshots that there are.
fn there(mounted: &Mounted) -> BTreeSet<String> {
    let bases = mounted.json(&["base", "list"]).clone();
    told(&serde_json::json!({ "bases": bases, "snapshots": mounted.json(&["list", "--all"]) })).into_iter().collect()
}

#[test]
fn all_that_a_deletion_takes_along_is_told_before_and_after() {
    let Some(mounted) = Mounted::with_group() else { return };
    let write = |base: &str, byte: u8| fs::write(mounted.snap().join(base).join("f"), [byte; 100_000]).unwrap();
    write("live/live", 1);
    write("b/live", 2);
    for name in ["s", "t", "u"] {
        mounted.ok(["snap", "--group", "g", name]);
        write("live/live", 3);
    }
    // Clones of clones, with snapshots of their own, and mirrors of them.
    mounted.ok(["clone", "s", "c"]);
    write("live/c", 4);
    mounted.ok_of("c", &["snap", "c1"]);
    mounted.ok(["clone", "c:c1", "cc"]);
    mounted.ok_of("cc", &["snap", "cc1"]);
    mounted.ok(["mirror", "establish", "c", "m"]);
    mounted.ok_of("b", &["clone", "s", "d"]);
    mounted.ok(["mirror", "establish", "live", "n"]);
    for (args, goes) in [
        (&["delete", "--recursive", "--group", "g", "t"][..], 2),
        (&["delete", "n", "--recursive"], 2),
        (&["delete", "u"], 1),
        (&["delete", "--recursive", "--group", "g", "s"], 9),
    ] {
        let (before, unchanged) = (there(&mounted), state(&mounted));
        let text = mounted.ok([args, &["-n"]].concat());
        let plan = mounted.json(&[args, &["-n"]].concat());
        assert_unchanged(&mounted, &unchanged, args);
        let done = mounted.json(args);
        assert_eq!(told(&plan), told(&done), "{args:?}");
        assert_eq!((&plan["dry_run"], &done["dry_run"]), (&Value::Bool(true), &Value::Bool(false)));
        assert!(plan["bytes"].is_u64() && done["bytes"].is_null(), "{plan}");
        let after = there(&mounted);
        let gone: BTreeSet<String> = before.difference(&after).cloned().collect();
        assert_eq!(gone, told(&plan).into_iter().collect(), "{args:?}: {text}");
        assert_eq!(gone.len(), goes, "{args:?}: {gone:?}");
        for name in &gone {
            let name = name.split(':').next_back().unwrap();
            assert!(text.contains(&format!("{name}: would be deleted")), "{name}: {text}");
        }
    }
    mounted.check();
}

#[test]
fn a_deletion_that_is_tried_is_refused_as_the_real_one_is() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::write(mounted.live().join("f"), [1; 100_000]).unwrap();
    for name in ["s", "held", "rest"] {
        mounted.ok(["snap", name]);
    }
    mounted.ok(["hold", "held"]);
    mounted.ok(["clone", "s", "c"]);
    mounted.ok_of("c", &["snap", "kept", "--hold"]);
    for args in [
        &["delete", "s"][..],
        &["delete", "none"],
        &["delete", "live"],
        &["delete", "held"],
        &["delete", "rest", "held"],
        &["delete", "s", "--recursive"],
        &["base", "delete", "live"],
        &["base", "delete", "c", "--recursive"],
        &["base", "delete", "none"],
    ] {
        refused(&mounted, args);
    }
    mounted.check();
}

#[test]
fn what_a_sync_would_read_and_write_is_what_it_does() {
    let mounted = Mounted::unmounted();
    let source = mounted.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    let sync = |args: &[&str]| {
        let report = mounted.json(&[&["sync", source.to_str().unwrap()], args].concat());
        ["added", "changed", "removed", "unchanged", "read_bytes", "written_bytes"].map(|field| report[field].clone())
    };
    for turn in 0..3 {
        fs::write(source.join(format!("new {turn}")), random_bytes(turn, 100_000)).unwrap();
        fs::write(source.join("changes"), random_bytes(turn, 70_000)).unwrap();
        let sparse = fs::File::create(source.join(format!("sparse {turn}"))).unwrap();
        sparse.set_len(10 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", (5 << 20) + 5000).unwrap();
        let planned = sync(&["-n"]);
        assert_eq!(planned, sync(&[]), "{turn}");
    }
}
