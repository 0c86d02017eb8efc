//! Time as a name: `@TIME`, `.snapshots` and `.snap`, found by name and not listed.

mod mounted;

use mounted::*;
use rustix::io::Errno;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> Option<Errno> {
    Errno::from_io_error(&result.unwrap_err())
}

fn run(program: &str, args: &[&str], directory: &Path) -> String {
    let output = Command::new(program).args(args).current_dir(directory).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{program} {args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The snapshots `one` and `two`, two seconds apart; `d` was renamed to `e` between them.
fn sample() -> Mounted {
    let mounted = Mounted::new();
    let live = mounted.live();
    fs::create_dir_all(live.join("d/inner")).unwrap();
    fs::write(live.join("d/inner/f"), "1").unwrap();
    mounted.ok(["snap", "one"]);
    std::thread::sleep(Duration::from_millis(2100));
    fs::rename(live.join("d"), live.join("e")).unwrap();
    fs::write(live.join("e/inner/f"), "2").unwrap();
    mounted.ok(["snap", "two"]);
    fs::write(live.join("e/inner/f"), "3").unwrap();
    mounted
}

#[test]
fn times_lead_to_the_newest_snapshot_not_after_them() {
    if !can_mount() {
        return;
    }
    let mounted = sample();
    let root = mounted.snap();
    let leads_to = |name: &str| fs::read_link(root.join(name)).map(|target| target.to_str().unwrap().to_string()).ok();
    let list = mounted.json(&["list"]);
    let seconds = |at: usize| list[at]["seconds"].as_i64().unwrap();
    assert_eq!(leads_to("@now").as_deref(), Some("two"));
    assert_eq!(read(&root.join("@now/e/inner/f")), "2");
    assert_eq!(leads_to(&format!("@{}", seconds(0))).as_deref(), Some("one"));
    assert_eq!(leads_to(&format!("@{}", seconds(1) - 1)).as_deref(), Some("one"));
    assert_eq!(leads_to(&format!("@{}", seconds(1))).as_deref(), Some("two"));
    assert_eq!(leads_to(&format!("@{}", seconds(0) - 1)), None);
    let text = |at: usize| list[at]["time"].as_str().unwrap().to_string();
    for at in [0, 1] {
        assert_eq!(leads_to(&format!("@{}", text(at).replace(" UTC", "Z"))).as_deref(), Some(["one", "two"][at]));
    }
    for wrong in ["@", "@yesterday", "@1y", "@tomorrow", "@nonsense", "@one", "@GMT-2026", "@GMT-1999.01.01-00.00.00"] {
        assert!(root.join(wrong).symlink_metadata().is_err(), "{wrong}");
    }
    // As time goes by, so does what a span leads to.
    std::thread::sleep(Duration::from_secs(1).saturating_sub(Duration::from_millis(100)));
    mounted.ok(["snap", "three"]);
    assert_eq!(leads_to("@now").as_deref(), Some("three"));
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(leads_to("@1s").as_deref(), Some("three"));
    mounted.ok(["rename", "three", "drei"]);
    assert_eq!(leads_to("@now").as_deref(), Some("drei"));
    mounted.ok(["delete", "drei"]);
    assert_eq!(leads_to("@now").as_deref(), Some("two"));
    mounted.ok(["delete", "one", "two"]);
    assert_eq!(leads_to("@now"), None);
    mounted.ok(["snap", "four"]);
    assert_eq!(leads_to("@now").as_deref(), Some("four"));
    // They are not to be made, moved or removed.
    assert_eq!(errno(fs::create_dir(root.join("@5h"))), Some(Errno::INVAL));
    assert!(fs::rename(root.join("@now"), root.join("x")).is_err());
    assert!(fs::rename(root.join("four"), root.join("@4h")).is_err());
    assert!(fs::remove_file(root.join("@now")).is_err());
    assert!(fs::remove_dir(root.join(".snapshots")).is_err());
    assert!(fs::write(root.join(".snapshots/f"), "").is_err());
    assert_eq!(leads_to("@now").as_deref(), Some("four"));
    let said = mounted.fails(1, ["restore", "--at", "1990-01-02T03:04:05.25", "--to", "/tmp/nowhere"]);
    assert!(said.contains("from before 1990-01-02 03:04:05.25 UTC"), "{said}");
    let said = mounted.fails(1, ["restore", "--at", "nonsense", "--to", "/tmp/nowhere"]);
    assert!(said.contains("is no time"), "{said}");
    mounted.check();
}

#[test]
fn a_time_with_a_fraction_is_that_instant() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    mounted.ok(["snap", "one"]);
    mounted.ok(["snap", "two"]);
    let list = mounted.json(&["list"]);
    let time = |at: usize, later: i64| {
        let nanos =
            list[at]["seconds"].as_i64().unwrap() * 1_000_000_000 + list[at]["nanoseconds"].as_i64().unwrap() + later;
        let (seconds, nanos) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000) as u32);
        let text = pitfs::clock::Timestamp { seconds, nanos: 0 }.as_text().replace(" UTC", "");
        (text.clone(), format!("{}.{nanos:09}Z", text.replace(' ', "T")))
    };
    for door in ["", ".snapshots/"] {
        let leads_to = |text: &str| {
            let path = mounted.snap().join(format!("{door}@{text}"));
            let live = if door.is_empty() { path } else { path.join("live") };
            live.metadata().ok().map(|found| (found.mtime(), found.mtime_nsec()))
        };
        let taken = |at: usize| (list[at]["seconds"].as_i64().unwrap(), list[at]["nanoseconds"].as_i64().unwrap());
        assert_eq!(leads_to(&time(0, 0).1), Some(taken(0)), "{door}");
        assert_eq!(leads_to(&time(0, -1).1), None, "{door}");
        assert_eq!(leads_to(&time(1, -1).1), Some(taken(0)), "{door}");
        assert_eq!(leads_to(&time(1, 0).1), Some(taken(1)), "{door}");
        let second = time(1, 0).0.replace(' ', "T");
        assert_eq!(leads_to(&format!("{second}Z")), Some(taken(1)), "{door}");
        assert_eq!(leads_to(&format!("{}Z", &second[..second.len() - 3])), Some(taken(1)), "{door}");
    }
    mounted.fails(1, ["restore", "--at", &time(0, -1).1, "--to", "nowhere"]);
}

#[test]
fn all_snapshots_by_time_as_samba_reads_them() {
    if !can_mount() {
        return;
    }
    let mounted = sample();
    let root = mounted.snap();
    let list = mounted.json(&["list"]);
    let gmt = |at: usize| {
        let text = list[at]["time"].as_str().unwrap();
        format!("@GMT-{}", text[..19].replace('-', ".").replace(' ', "-").replace(':', "."))
    };
    for shadow in [root.join(".snapshots"), root.join("live/.snapshots")] {
        assert_eq!(names(&shadow), [gmt(0), gmt(1)]);
        assert!(!shadow.join("nonsense").exists());
    }
    for at in [0, 1] {
        let link = fs::read_link(root.join(gmt(at))).unwrap();
        assert_eq!(link.to_str(), Some(["one", "two"][at]));
        let path = ["d/inner/f", "e/inner/f"][at];
        assert_eq!(read(&root.join("live/.snapshots").join(gmt(at)).join(path)), ["1", "2"][at]);
    }
    // The same after another mount, where they are asked for by name first.
    mounted.remount();
    assert_eq!(read(&root.join("live/.snapshots").join(gmt(1)).join("e/inner/f")), "2");
    mounted.ok(["session", "offline", "two"]);
    assert_eq!(names(&root.join("live/.snapshots")), [gmt(0)]);
    mounted.ok(["session", "online", "two"]);
    mounted.ok(["delete", "one"]);
    assert_eq!(names(&root.join("live/.snapshots")), [gmt(1)]);
    mounted.check();
}

#[test]
fn every_directory_has_its_past() {
    if !can_mount() {
        return;
    }
    let mounted = sample();
    let (root, live) = (mounted.snap(), mounted.live());
    assert_eq!(names(&live.join(".snap")), ["one", "two"]);
    for directory in [".snap/one/d/inner", "e/.snap/one/inner", "e/inner/.snap/one"] {
        assert_eq!(read(&live.join(directory).join("f")), "1", "{directory}");
    }
    for directory in [".snap/two/e/inner", "e/.snap/two/inner", "e/inner/.snap/two", "e/inner/.snap/@now"] {
        assert_eq!(read(&live.join(directory).join("f")), "2", "{directory}");
    }
    assert_eq!(names(&live.join("e/inner/.snap")), ["one", "two"]);
    // A directory that was not there then, one that took the place of another, and one that was renamed again.
    fs::create_dir(live.join("new")).unwrap();
    assert!(!live.join("new/.snap").exists());
    fs::create_dir_all(live.join("d/inner")).unwrap();
    assert_eq!(names(&live.join("d/.snap")), ["one"]);
    assert_eq!(read(&live.join("d/inner/.snap/one/f")), "1");
    fs::rename(live.join("e"), live.join("again")).unwrap();
    assert_eq!(read(&live.join("again/inner/.snap/one/f")), "1");
    assert_eq!(read(&live.join("again/.snap/two/inner/f")), "2");
    // One directory stands in several places, each on its own.
    assert_eq!(read(&root.join("one/d/inner/f")), "1");
    let inside = live.join("again/inner/.snap/one");
    assert_eq!(run("pwd", &["-P"], &inside).trim(), inside.to_str().unwrap());
    assert_eq!(run("cat", &["f"], &inside), "1");
    assert_eq!(run("cat", &["../two/f"], &inside), "2");
    assert_eq!(errno(fs::write(inside.join("f"), "no")), Some(Errno::ROFS));
    assert!(errno(fs::create_dir(live.join("again/.snap/one/x"))).is_some());
    assert!(ok_in(&inside, &["list"]).contains("two"));
    // A snapshot is all past; only what is written to has one.
    assert!(!root.join("one/d/.snap").exists());
    assert!(!live.join("again/inner/f/.snap").exists());
    // Looked at, a directory can still be moved and removed.
    fs::remove_dir_all(live.join("again")).unwrap();
    assert!(!live.join("again/.snap").exists());
    mounted.ok(["delete", "one"]);
    assert!(!live.join("d/.snap").exists());
    mounted.check();
}

#[test]
fn a_real_name_comes_before_a_hidden_one() {
    if !can_mount() {
        return;
    }
    let mounted = sample();
    let live = mounted.live();
    let source = mounted.dir.path().join("source");
    fs::create_dir_all(source.join(".snap")).unwrap();
    fs::write(source.join(".snap/f"), "real").unwrap();
    fs::write(source.join("@now"), "real").unwrap();
    assert_eq!(names(&live.join("e/.snap")), ["one", "two"]);
    mounted.ok(["sync", source.to_str().unwrap(), "e"]);
    assert_eq!(names(&live.join("e")), [".snap", "@now"]);
    assert_eq!(read(&live.join("e/.snap/f")), "real");
    assert_eq!(read(&live.join("e/@now")), "real");
    fs::remove_dir_all(live.join("e/.snap")).unwrap();
    assert_eq!(names(&live.join("e")), ["@now"]);
    assert_eq!(names(&live.join("e/.snap")), ["one", "two"]);
    mounted.check();
}

#[test]
fn tools_that_walk_do_not_run_into_the_past() {
    if !can_mount() {
        return;
    }
    let mounted = sample();
    let (root, live) = (mounted.snap(), mounted.live());
    // The kernel knows of all of them.
    for known in ["@now", ".snapshots", "live/.snap", "live/e/.snap", "live/e/.snap/one", "live/.snapshots"] {
        assert!(root.join(known).symlink_metadata().is_ok(), "{known}");
    }
    assert_eq!(names(&root), ["live", "one", "two"]);
    assert_eq!(names(&live), ["e"]);
    assert_eq!(run("find", &["."], &live), ".\n./e\n./e/inner\n./e/inner/f\n");
    assert_eq!(run("ls", &["-RA"], &live), ".:\ne\n\n./e:\ninner\n\n./e/inner:\nf\n");
    let walked = run("find", &[".", "-name", "f"], &root);
    assert_eq!(walked.lines().count(), 3, "{walked}");
    let copy = mounted.dir.path().join("copy");
    run("cp", &["-a", ".", copy.to_str().unwrap()], &live);
    assert_same(&listing(&copy), &listing(&live), "a copy of live");
    // Numbers say what is the same.
    let number = |path: &str| fs::metadata(root.join(path)).unwrap().ino();
    assert_eq!(number("live/e/.snap/.."), number("live/e"));
    assert_eq!(number("live/e/.."), number("live"));
    let all = ["live/e", "one/d", "two/e", "live/e/.snap", "live/e/.snap/one", "live/e/.snap/two", ".snapshots"];
    let numbers: std::collections::BTreeSet<u64> = all.iter().map(|path| number(path)).collect();
    assert_eq!(numbers.len(), all.len());
    // Removed with a tool that walks: nothing is in its way.
    run("rm", &["-r", "e"], &live);
    assert!(names(&live).is_empty());
    assert_eq!(read(&root.join("two/e/inner/f")), "2");
    mounted.check();
}
