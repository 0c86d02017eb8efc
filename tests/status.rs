//! How a store is: told to people, to monitoring, and to Prometheus.

mod mounted;

use mounted::*;
use std::fs;
use std::process::{Command, Output};

fn first_line(mounted: &Mounted) -> String {
    mounted.ok(["status"]).lines().next().unwrap_or_default().to_string()
}

fn said(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8(output.stdout.clone()).unwrap())
}

#[test]
fn the_first_line_says_how_it_is_and_what_helps() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    assert_eq!(first_line(&mounted), "state      normal");
    let done = |mounted: &Mounted| {
        let status = mounted.json(&["status"]);
        let done = status["done"].as_array().unwrap().iter();
        done.map(|one| one["what"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert!(done(&mounted).is_empty());
    let archive = mounted.dir.path().join("archive");
    mounted.ok(["snap", "one"]);
    mounted.ok(["roll", "--archive", archive.to_str().unwrap(), "--name", "two"]);
    mounted.add_target();
    mounted.ok(["backup"]);
    mounted.ok(["check"]);
    assert_eq!(done(&mounted), ["snapshot", "roll", "backup", "check"]);
    let status = mounted.ok(["status"]);
    let last = status.lines().find(|line| line.starts_with("last ")).unwrap();
    for what in ["snapshot", "roll", "backup", "check"] {
        assert!(last.contains(&format!("{what} ")) && last.contains(" s ago"), "{last}");
    }
    // An archive that is not there protects nothing.
    fs::rename(&archive, archive.with_extension("away")).unwrap();
    let line = first_line(&mounted);
    assert!(line.starts_with("state      degraded, archive: ") && line.contains("; "), "{line}");
    fs::rename(archive.with_extension("away"), &archive).unwrap();
    assert_eq!(first_line(&mounted), "state      normal");
}

#[test]
fn damage_that_a_check_found_is_told_until_one_finds_none() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let source = mounted.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), random_bytes(5, 300_000)).unwrap();
    mounted.ok(["sync", source.to_str().unwrap()]);
    mounted.ok(["check"]);
    let volume = mounted.store().join("volume.0");
    let whole = fs::read(&volume).unwrap();
    let wanted = &random_bytes(5, 300_000)[..64];
    let at = whole.windows(64).position(|window| window == wanted).unwrap();
    let mut damaged = whole.clone();
    damaged[at] ^= 1;
    fs::write(&volume, damaged).unwrap();
    mounted.fails(1, ["check"]);
    let line = first_line(&mounted);
    assert!(
        line.starts_with("state      degraded, since ") && line.contains("the last check found 1 problem; "),
        "{line}"
    );
    assert_eq!(said(&mounted.run(["status", "--check"])).0, 1);
    fs::write(&volume, whole).unwrap();
    mounted.ok(["check"]);
    assert_eq!(first_line(&mounted), "state      normal");
}

#[test]
fn monitoring_is_told_in_one_line_and_an_exit_status() {
    let mounted = Mounted::unmounted();
    let check = |more: &[&str]| said(&mounted.run([&["status", "--check"], more].concat()));
    let (status, line) = check(&[]);
    assert!(status == 0 && line.starts_with("PITFS OK - ") && line.contains(": normal | available="), "{line}");
    let (status, line) = check(&["--max-age", "26h"]);
    assert!(
        status == 2 && line.starts_with("PITFS CRITICAL - ") && line.contains("there is no snapshot yet"),
        "{line}"
    );
    mounted.ok(["snap", "one"]);
    assert_eq!(check(&["--max-age", "26h"]).0, 0);
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let (status, line) = check(&["--max-age", "1s"]);
    assert!(status == 2 && line.contains("the last snapshot is ") && line.contains(" old, 1 s at most"), "{line}");
    // Who backs up wants to know when that stops; whoever does not is not asked to.
    mounted.add_target();
    let (status, line) = check(&["--max-age", "26h"]);
    assert!(status == 2 && line.contains("there is no backup yet"), "{line}");
    mounted.ok(["backup"]);
    let (status, line) = check(&["--max-age", "26h"]);
    assert!(status == 0 && line.contains(" backup_age=") && line.lines().count() == 1, "{line}");
    // What cannot be asked is unknown.
    let output = Command::new(PITFS).args(["-s", "/none/such", "status", "--check"]).output().unwrap();
    let (status, line) = said(&output);
    assert!(status == 3 && line.starts_with("PITFS UNKNOWN - ") && line.lines().count() == 1, "{line}");
    // Wrong usage stays that.
    assert_eq!(mounted.run(["status", "--check", "--max-age", "soon"]).status.code(), Some(2));
    assert_eq!(mounted.run(["status", "--max-age", "1h"]).status.code(), Some(2));
}

#[test]
fn what_prometheus_reads() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    mounted.ok(["snap", "one"]);
    mounted.ok(["check"]);
    let text = mounted.ok(["metrics"]);
    let store = mounted.store().canonicalize().unwrap();
    let store = store.to_str().unwrap();
    for wanted in [
        format!("pitfs_health{{store=\"{store}\",state=\"normal\"}} 1\n"),
        format!("pitfs_health{{store=\"{store}\",state=\"stopped\"}} 0\n"),
        format!("pitfs_troubles{{store=\"{store}\"}} 0\n"),
        format!("pitfs_snapshots{{store=\"{store}\",base=\"live\"}} 1\n"),
        format!("pitfs_last_problems{{store=\"{store}\",what=\"check\"}} 0\n"),
        "# TYPE pitfs_room_bytes gauge\n".to_string(),
    ] {
        assert!(text.contains(&wanted), "{wanted}{text}");
    }
    // Each line is a comment, or a name with labels and a number.
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("pitfs_") && value.parse::<i64>().is_ok(), "{line}");
    }
    let available = |text: &str| text.contains("kind=\"available\"");
    assert!(available(&text) && text.ends_with("# EOF\n"));
}

#[test]
fn a_machine_a_directory_and_a_store_are_looked_at() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    mounted.ok(["snap", "one"]);
    let archive = mounted.dir.path().join("archive");
    mounted.ok(["roll", "--archive", archive.to_str().unwrap()]);
    let usb = mounted.add_target();
    let look = |args: &[&str]| {
        let output = mounted.run([&["doctor", "--json"], args].concat());
        let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let all = all.as_array().unwrap().clone();
        let is_bad = all.iter().any(|one| one["grade"] == "bad");
        assert_eq!(output.status.code(), Some(i32::from(is_bad)), "{all:?}");
        for one in &all {
            assert_eq!(one["grade"] == "good", one["helps"].is_null(), "{one}");
        }
        all
    };
    let grade = |all: &[serde_json::Value], what: &str| {
        let found = all.iter().find(|one| one["what"] == what);
        found.map(|one| one["grade"].as_str().unwrap().to_string())
    };
    let all = look(&[]);
    for what in ["kernel", "store", "clock", "mount", "archive", "target", "snapshot"] {
        assert_eq!(grade(&all, what).as_deref(), Some("good"), "{what}: {all:?}");
    }
    assert_eq!(grade(&all, "check").as_deref(), Some("poor"));
    assert!(grade(&all, "file system").is_some() && grade(&all, "room").is_some());
    mounted.ok(["check"]);
    for away in [&archive, &usb] {
        fs::rename(away, away.with_extension("away")).unwrap();
    }
    let all = look(&[]);
    assert_eq!(grade(&all, "check").as_deref(), Some("good"));
    assert_eq!((grade(&all, "store").as_deref(), grade(&all, "target").as_deref()), (Some("poor"), Some("poor")));
    // A directory that is to become a store, and is left as it is.
    let before = fs::read_dir(mounted.dir.path()).unwrap().count();
    let all = look(&[mounted.dir.path().join("new").to_str().unwrap()]);
    assert!(grade(&all, "file system").is_some() && grade(&all, "store").is_none());
    assert_eq!(fs::read_dir(mounted.dir.path()).unwrap().count(), before);
    // In words, what helps stands behind all.
    let text = String::from_utf8(mounted.run(["doctor"]).stdout).unwrap();
    assert!(text.contains("\n\n") && text.contains("target: attach or mount its disk"), "{text}");
}

/// What has started a mount as a service is told when it works, and when it ends.
#[test]
fn a_service_manager_is_told() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::unmounted();
    let socket = mounted.dir.path().join("notify");
    let listening = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    listening.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    let heard = || {
        let mut bytes = [0; 256];
        let len = listening.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..len]).trim().to_string()
    };
    let mut child = Command::new(PITFS)
        .args(["mount", "--foreground"])
        .args([mounted.store(), mounted.snap()])
        .env("NOTIFY_SOCKET", &socket)
        .spawn()
        .unwrap();
    assert_eq!(heard(), "READY=1");
    assert!(mounted.live().is_dir());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(heard(), "STOPPING=1");
    assert!(child.wait().unwrap().success());
}
