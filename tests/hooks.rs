//! Commands that run before and after one of pitfs.

mod mounted;

use mounted::*;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn names_of(mounted: &Mounted) -> Vec<String> {
    mounted.json(&["list"]).as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_string()).collect()
}

#[test]
fn both_run_around_what_is_done() {
    let mounted = Mounted::unmounted();
    let log = mounted.dir.path().join("log");
    let said = format!("echo $PITFS_HOOK $PITFS_VERB $PITFS_RESULT >> {}; echo noise", log.display());
    let around = ["--before", &said, "--after", &said];
    let output = mounted.run([&["snap", "one"], &around[..]].concat());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stdout)), (Some(0), "one\n"), "{told}");
    assert!(told.contains("held for 0.") && told.matches("noise").count() == 2, "{told}");
    assert_eq!(fs::read_to_string(&log).unwrap(), "before snap\nafter snap done\n");
    let archive = mounted.dir.path().join("archive");
    mounted.add_target();
    let out = mounted.dir.path().join("out");
    let commands: [&[&str]; 3] = [
        &["roll", "--archive", archive.to_str().unwrap()],
        &["backup"],
        &["restore", "one", "--to", out.to_str().unwrap()],
    ];
    for command in commands {
        fs::remove_file(&log).unwrap();
        mounted.ok([command, &around[..]].concat());
        let verb = command[0];
        assert_eq!(fs::read_to_string(&log).unwrap(), format!("before {verb}\nafter {verb} done\n"));
    }
    // A dry run runs neither.
    fs::remove_file(&log).unwrap();
    for command in [&["roll", "-n"][..], &["restore", "one", "-n"]] {
        mounted.ok([command, &around[..]].concat());
    }
    assert!(!log.exists());
    // What fails in between is told to the one after.
    mounted.fails(1, [&["snap", "one"], &around[..]].concat());
    assert_eq!(fs::read_to_string(&log).unwrap(), "before snap\nafter snap failed\n");
}

#[test]
fn where_the_first_fails_or_is_too_slow_nothing_is_done() {
    let mounted = Mounted::unmounted();
    let after = mounted.dir.path().join("after");
    let ends = format!("echo $PITFS_RESULT > {}", after.display());
    let begun = Instant::now();
    for (before, why) in [
        ("exit 7", "ended with status 7; nothing was done"),
        ("kill -9 $$", "ended with signal 9; nothing was done"),
        ("sleep 60 & sleep 60", "took more than 1 s, and was ended; nothing was done"),
    ] {
        let told = mounted.fails(1, ["snap", "one", "--before", before, "--after", &ends, "--timeout", "1s"]);
        assert!(told.contains(why), "{told}");
        assert_eq!(fs::read_to_string(&after).unwrap(), "failed\n");
        fs::remove_file(&after).unwrap();
        assert!(names_of(&mounted).is_empty());
    }
    assert!(begun.elapsed() < Duration::from_secs(20));
    // One that fails afterwards takes nothing back.
    let told = mounted.fails(1, ["snap", "two", "--after", "exit 1"]);
    assert!(told.contains("what was asked for is done all the same"), "{told}");
    assert_eq!(names_of(&mounted), ["two"]);
    // With --json as well.
    let output = mounted.run(["--json", "snap", "three", "--before", "false"]);
    let error: serde_json::Value =
        serde_json::from_str(String::from_utf8_lossy(&output.stderr).lines().last().unwrap()).unwrap();
    assert_eq!(error["error"]["errno"], "ECANCELED");
}

/// What the first has begun is ended though the command is interrupted.
#[test]
fn an_interruption_runs_the_one_after() {
    let mounted = Mounted::unmounted();
    let (begun, after) = (mounted.dir.path().join("begun"), mounted.dir.path().join("after"));
    let before = format!("touch {}; sleep 60", begun.display());
    let ends = format!("echo $PITFS_RESULT > {}", after.display());
    let mut child = Command::new(PITFS)
        .arg("-s")
        .arg(mounted.store())
        .args(["snap", "one", "--timeout", "50s", "--before", &before, "--after", &ends])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the command before", || begun.exists());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(fs::read_to_string(&after).unwrap(), "failed\n");
    assert!(names_of(&mounted).is_empty());
}
