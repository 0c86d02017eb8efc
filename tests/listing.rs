//! What `list` shows of each snapshot, and holds with tags.

mod mounted;

use mounted::*;
use std::fs;

#[test]
fn a_hold_ends_with_its_last_tag() {
    for (mounted, _) in Mounted::unmounted_and_mounted() {
        for name in ["a", "b"] {
            mounted.ok(["snap", name]);
        }
        let tags = |at: usize| mounted.json(&["list"])[at]["tags"].clone();
        mounted.ok(["hold", "a", "--tag", "legal"]);
        mounted.ok(["hold", "a", "b", "-t", "backup"]);
        mounted.ok(["hold", "a", "-t", "backup"]);
        assert_eq!((tags(0), tags(1)), (serde_json::json!(["legal", "backup"]), serde_json::json!(["backup"])));
        assert!(mounted.ok(["list"]).contains("held:legal+backup"));
        // None of them changes if one is not held with it.
        assert!(mounted.fails(1, ["release", "a", "b", "-t", "legal"]).contains("not held with the tag \"legal\""));
        assert_eq!(tags(0), serde_json::json!(["legal", "backup"]));
        mounted.ok(["release", "a", "b", "-t", "backup"]);
        assert!(mounted.fails(1, ["delete", "a"]).contains("held"));
        mounted.ok(["delete", "b"]);
        mounted.ok(["release", "a", "-t", "legal"]);
        assert!(mounted.fails(1, ["release", "a", "-t", "legal"]).contains("\"a\" is not held"));
        // Without a tag it is `hold`, and all tags go.
        mounted.ok(["hold", "a"]);
        assert_eq!(tags(0), serde_json::json!(["hold"]));
        mounted.ok(["hold", "a", "--tag", "x"]);
        mounted.ok(["release", "a"]);
        assert_eq!(tags(0), serde_json::json!([]));
        mounted.ok(["snap", "c", "--hold"]);
        mounted.ok(["hold", "c", "--tag", "x"]);
        mounted.ok(["release", "c", "--tag", "x"]);
        assert_eq!(mounted.json(&["list"])[1]["held"], true, "what --hold said stands");
        for wrong in ["", "a\nb", &"x".repeat(256)] {
            assert!(mounted.fails(1, ["hold", "a", "--tag", wrong]).contains("cannot be a tag"));
        }
        let history = mounted.ok(["history"]);
        assert!(history.contains("hold --tag \"backup\" \"a\" \"b\""), "{history}");
    }
}

#[test]
fn snapshots_are_listed_as_it_is_wanted() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let write = |bytes: usize| fs::write(mounted.live().join("f"), random_bytes(bytes as u64, bytes)).unwrap();
    for (name, bytes) in [("b", 300_000), ("c", 100_000), ("a", 200_000)] {
        write(bytes);
        mounted.ok(["snap", name]);
    }
    write(10);
    mounted.ok(["save", "d"]);
    mounted.ok(["clone", "a", "try"]);
    mounted.ok(["-s", &mounted.of("try"), "snap", "of-try"]);
    let names = |args: &[&str]| -> Vec<String> {
        let text = mounted.ok(["list", "--columns", "name"].iter().chain(args));
        text.lines().skip(1).map(|line| line.trim().to_string()).collect()
    };
    assert_eq!(names(&[]), ["b", "c", "a", "d"]);
    assert_eq!(names(&["--sort", "name"]), ["a", "b", "c", "d"]);
    assert_eq!(names(&["--sort", "time"]), ["b", "c", "a", "d"]);
    assert_eq!(names(&["--sort", "refers"]), ["b", "a", "c", "d"]);
    assert_eq!(names(&["--sort", "frees"])[..3], ["b", "a", "c"]);
    assert_eq!(names(&["--all"]), ["b", "c", "a", "d", "of-try"]);
    assert_eq!(mounted.ok(["list", "--columns", "needed,name,purpose"]).lines().count(), 5);
    let list = mounted.ok(["list"]);
    assert!(list.contains("needed by try") && list.contains("save"), "{list}");
    let all = mounted.json(&["list", "--all"]);
    assert_eq!(all[2]["needed_by"], serde_json::json!(["try"]));
    assert_eq!(all[4]["base"], "try");
    assert!(all.as_array().unwrap().iter().all(|found| found["id"].as_str().unwrap().len() == 32));
    assert_eq!(mounted.json(&["status"])["id"].as_str().unwrap().len(), 32);
    assert_eq!(mounted.base_info("try")["id"].as_str().unwrap().len(), 32);
}

#[test]
fn archived_times_that_are_missing_are_listed_with_the_reason() {
    for (mounted, _) in Mounted::unmounted_and_mounted() {
        let archive = mounted.dir.path().join("archive");
        mounted.ok(["snap", "a"]);
        for name in ["b", "c"] {
            mounted.ok(["roll", "--archive", archive.to_str().unwrap(), "--keep", "1", "--name", name]);
        }
        assert!(!mounted.ok(["list"]).contains("missing"));
        let purposes = || -> Vec<String> {
            let list = mounted.json(&["list"]);
            list.as_array().unwrap().iter().map(|time| time["purpose"].as_str().unwrap().into()).collect()
        };
        assert_eq!(purposes(), ["plain", "roll", "roll"], "archived times are what they were");
        fs::rename(&archive, mounted.dir.path().join("elsewhere")).unwrap();
        let output = mounted.run(["list"]);
        let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{said}");
        let states: Vec<bool> = text.lines().skip(1).map(|line| line.contains("missing")).collect();
        assert_eq!(states, [true, true, false], "{text}");
        assert_eq!(purposes(), ["plain", "roll", "roll"]);
        assert!(said.contains(archive.to_str().unwrap()), "{said}");
        let list = mounted.json(&["list", "--all"]);
        assert_eq!((&list[0]["state"], &list[0]["name"]), (&"missing".into(), &"a".into()));
        assert!(list[0]["problems"][0].as_str().unwrap().contains(archive.to_str().unwrap()));
    }
}

#[test]
fn sessions_are_listed_with_archived_snapshots() {
    let mounted = Mounted::unmounted();
    let archive = mounted.dir.path().join("archive");
    for name in ["a", "b"] {
        mounted.ok(["roll", "--archive", archive.to_str().unwrap(), "--keep", "1", "--name", name]);
    }
    mounted.ok(["session", "register", "c"]);
    let listed = mounted.json(&["session", "list"]);
    let in_json: Vec<&str> = listed.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    let text = mounted.ok(["session", "list"]);
    let in_text: Vec<&str> = text.lines().skip(1).map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!((&in_json, &in_text), (&vec!["a", "b", "c"], &vec!["a", "b", "c"]));
}

#[test]
fn what_is_archived_is_only_read() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let archive = mounted.dir.path().join("archive");
    for name in ["a", "b"] {
        mounted.ok(["roll", "--archive", archive.to_str().unwrap(), "--keep", "1", "--name", name]);
    }
    let (a, c) = (mounted.snap().join("a"), mounted.snap().join("c"));
    let errno = |result: std::io::Result<()>| rustix::io::Errno::from_io_error(&result.unwrap_err()).unwrap();
    assert_eq!(errno(fs::remove_dir(&a)), rustix::io::Errno::ROFS);
    assert_eq!(errno(fs::rename(&a, &c)), rustix::io::Errno::ROFS);
    for args in [&["delete", "a"][..], &["rename", "a", "c"], &["hold", "a"], &["session", "offline", "a"]] {
        assert!(mounted.fails(1, args).contains("is in the archive, not in the store"), "{args:?}");
    }
    assert!(a.is_dir());
}

#[test]
fn a_session_that_is_active_is_said_to_be() {
    for (mounted, _) in Mounted::unmounted_and_mounted() {
        mounted.ok(["session", "register", "x"]);
        mounted.ok(["session", "relate", "x"]);
        mounted.ok(["session", "activate", "x"]);
        for step in ["relate", "activate"] {
            assert!(mounted.fails(1, ["session", step, "x"]).contains("active already"));
        }
        mounted.ok(["session", "deactivate", "x"]);
        for step in ["relate", "activate"] {
            assert!(mounted.fails(1, ["session", step, "x"]).contains("deactivated"));
        }
        assert!(mounted.fails(1, ["session", "relate", "none"]).contains("no session"));
        // By the names that `status` and dry runs give.
        assert!(mounted.fails(1, ["delete", "live:x"]).contains("-s STORE:live"));
    }
}
