//! Backups as jobs: they go on without the command that asked for them, and after the daemon that did them.

mod mounted;

use mounted::*;
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

const LARGE: usize = 48 << 20;
/// Bytes that `set list` counts of what is only a part.
const UNIT: u64 = 8 << 20;

/// A store with a large file and a target that is not encrypted; where that is.
fn with_target() -> (Mounted, PathBuf) {
    let mounted = Mounted::new();
    let target = mounted.dir.path().join("usb");
    fs::create_dir(&target).unwrap();
    mounted.ok(["target", "add", "usb", target.to_str().unwrap(), "--no-encryption"]);
    fs::write(mounted.live().join("large"), random_bytes(1, LARGE)).unwrap();
    fs::write(mounted.live().join("small"), "small").unwrap();
    mounted.ok(["snap", "one"]);
    (mounted, target)
}

fn show(mounted: &Mounted, job: &str) -> Value {
    mounted.json(&["job", "show", job])
}

fn state(mounted: &Mounted, job: &str) -> String {
    show(mounted, job)["state"].as_str().unwrap().to_string()
}

/// Begins a backup that takes long, and waits until a part of it is written.
fn detached(mounted: &Mounted) -> String {
    let job = mounted.json(&["backup", "one", "--detach", "--limit", "8M"]);
    let name = job["job"].as_str().unwrap().to_string();
    assert_eq!((&job["holds"][0], &job["detached"]), (&"one".into(), &true.into()), "{job}");
    wait_until_begun(mounted, &name);
    name
}

fn wait_until_begun(mounted: &Mounted, job: &str) {
    wait_for("some of the backup", || show(mounted, job)["progress"]["bytes"].as_u64().unwrap() > 2 * UNIT);
}

/// Holds of a snapshot, and whether anything is held for a job.
fn is_held(mounted: &Mounted) -> bool {
    let list = mounted.json(&["list"]);
    list.as_array().unwrap().iter().any(|one| one["tags"].to_string().contains("job "))
}

/// The job is done, what it wrote is whole, and of what was there nothing was written again.
fn goes_on_to_the_end(mounted: &Mounted, job: &str) {
    let said = mounted.ok(["job", "wait", job]);
    assert!(said.contains("1 snapshot"), "{said}");
    let done = show(mounted, job);
    assert_eq!(done["state"], "done", "{done}");
    assert!(done["added"].as_u64().unwrap() < LARGE as u64 - UNIT, "it began anew: {done}");
    assert!(!is_held(mounted));
    is_whole(mounted);
}

fn is_whole(mounted: &Mounted) {
    assert!(mounted.ok(["set", "verify"]).contains("no problems"));
    let to = mounted.dir.path().join("restored");
    let target = mounted.dir.path().join("usb");
    mounted.ok(["restore", "--from", target.to_str().unwrap(), "one", "--to", to.to_str().unwrap()]);
    assert_same(&listing(&mounted.snap().join("one")), &listing(&to), "what comes back");
    fs::remove_dir_all(to).unwrap();
}

#[test]
fn a_backup_is_paused_and_goes_on_where_it_was() {
    if !can_mount() {
        return;
    }
    let (mounted, target) = with_target();
    let job = detached(&mounted);
    assert!(mounted.fails(1, ["delete", "one"]).contains(&format!("held for the job {job}")));
    let listed = mounted.ok(["job", "list"]);
    assert!(listed.contains("running") && listed.contains("backup to usb"), "{listed}");
    assert!(mounted.ok(["job", "pause", &job]).contains("paused"));
    assert_eq!(state(&mounted, &job), "paused");
    assert!(is_held(&mounted), "it is to go on");
    // Meanwhile nothing has the target, which has a part and no moment.
    let moved = mounted.dir.path().join("moved");
    fs::rename(&target, &moved).unwrap();
    fs::rename(&moved, &target).unwrap();
    let sets = mounted.json(&["set", "list"]);
    assert!(sets.as_array().unwrap().len() == 1 && sets[0]["part"] == true, "{sets}");
    assert!(mounted.ok(["set", "list"]).contains("part"));
    assert!(mounted.ok(["set", "verify"]).contains("no problems"));
    assert!(mounted.ok(["job", "resume", &job]).contains(&job));
    goes_on_to_the_end(&mounted, &job);
    assert!(mounted.ok(["job", "list"]).contains("nothing is under way"));
    assert!(mounted.ok(["job", "list", "--all"]).contains("done"));
    assert!(mounted.fails(1, ["job", "cancel", &job]).contains("is done"));
    assert!(mounted.fails(1, ["job", "show", "77"]).contains("there is no job 77"));
    assert!(mounted.fails(1, ["job", "cancel", "nothing"]).contains("there is no job"));
    // A list that is made anew knows parts as well.
    fs::remove_file(
        fs::read_dir(&target)
            .unwrap()
            .map(|one| one.unwrap().path())
            .find(|one| one.is_dir())
            .unwrap()
            .join("catalogue"),
    )
    .unwrap();
    mounted.ok(["set", "rebuild"]);
    is_whole(&mounted);
}

#[test]
fn a_backup_survives_the_daemon() {
    if !can_mount() {
        return;
    }
    let (mounted, _) = with_target();
    let job = detached(&mounted);
    mounted.umount();
    assert_eq!(state(&mounted, &job), "waiting");
    assert!(mounted.fails(1, ["job", "wait", &job]).contains("nobody works on the job"));
    assert!(mounted.fails(1, ["backup", "--detach"]).contains("no daemon has the store"));
    mounted.mount(&[]);
    wait_until_begun(&mounted, &job);
    // What was written since the last part is lost by this, and no more.
    mounted.kill();
    mounted.mount(&[]);
    goes_on_to_the_end(&mounted, &job);
    mounted.umount();
    mounted.check();
}

#[test]
fn a_backup_whose_target_goes_away_stops_and_goes_on_when_asked() {
    if !can_mount() {
        return;
    }
    let (mounted, target) = with_target();
    let moved = mounted.dir.path().join("elsewhere");
    fs::rename(&target, &moved).unwrap();
    let job = mounted.json(&["backup", "--detach"])["job"].as_str().unwrap().to_string();
    let said = mounted.fails(1, ["job", "wait", &job]);
    assert!(said.contains("has stopped") && said.contains("is its disk mounted?"), "{said}");
    assert!(is_held(&mounted));
    assert!(mounted.ok(["job", "list"]).contains("is its disk mounted?"));
    fs::rename(&moved, &target).unwrap();
    mounted.ok(["job", "resume", &job]);
    mounted.ok(["job", "wait", &job]);
    assert!(!is_held(&mounted));
    is_whole(&mounted);
}

#[test]
fn a_backup_that_is_cancelled_holds_nothing() {
    if !can_mount() {
        return;
    }
    let (mounted, _) = with_target();
    let job = detached(&mounted);
    // One that waits behind it.
    let second = mounted.json(&["backup", "one", "--full", "--detach"])["job"].as_str().unwrap().to_string();
    assert_eq!(state(&mounted, &second), "waiting");
    assert!(mounted.ok(["job", "pause", &second]).contains("paused"));
    assert_eq!(mounted.json(&["job", "resume", &second])["state"], "waiting");
    assert_eq!(mounted.json(&["job", "pause", &second])["state"], "paused");
    assert_eq!(mounted.json(&["job", "cancel", &second])["state"], "cancelled");
    assert!(mounted.ok(["job", "cancel", &job]).contains("cancelled"));
    assert!(mounted.fails(1, ["job", "wait", &job]).contains("was cancelled"));
    assert!(mounted.fails(1, ["job", "resume", &job]).contains("cannot go on"));
    assert!(!is_held(&mounted));
    // Whoever backs up then goes on with what there is, also with a later snapshot, and with what has changed before.
    fs::write(mounted.live().join("small"), "changed").unwrap();
    fs::write(mounted.live().join("new"), "new").unwrap();
    mounted.ok(["snap", "two"]);
    let done = mounted.json(&["backup", "two"]);
    assert!(done[0]["added"].as_u64().unwrap() < LARGE as u64 - UNIT, "{done}");
    let to = mounted.dir.path().join("restored");
    mounted.ok(["restore", "--from", "usb", "two", "--to", to.to_str().unwrap()]);
    assert_same(&listing(&mounted.snap().join("two")), &listing(&to), "what comes back");
}

#[test]
fn a_command_that_is_interrupted_leaves_a_part_and_no_hold() {
    if !can_mount() {
        return;
    }
    let (mounted, _) = with_target();
    for is_mounted in [true, false] {
        let name = if is_mounted { "one" } else { "two" };
        if !is_mounted {
            fs::write(mounted.live().join("more"), random_bytes(2, LARGE)).unwrap();
            mounted.ok(["snap", name]);
            mounted.umount();
        }
        let mut command = mounted.command(["backup", name, "--full", "--limit", "8M"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        if is_mounted {
            wait_for("the backup", || {
                let jobs = mounted.json(&["job", "list"]);
                let begun = jobs.as_array().unwrap().iter().find(|job| job["what"] == "backup to usb");
                begun.is_some_and(|job| job["progress"]["bytes"].as_u64().unwrap() > 2 * UNIT)
            });
        } else {
            std::thread::sleep(std::time::Duration::from_secs(3));
        }
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::INT).unwrap();
        let status = child.wait().unwrap();
        assert!(status.signal().is_some() || !status.success(), "{status}");
        // Of a closed store, the next command that writes lets it go.
        wait_for("the end of it", || !is_mounted || !is_held(&mounted));
        let jobs = mounted.ok(["job", "list", "--all"]);
        assert!(jobs.contains("stopped") && jobs.contains("interrupted"), "{jobs}");
        assert!(mounted.ok(["job", "list"]).contains("nothing is under way"));
        let done = mounted.json(&["backup", name, "--full"]);
        let all = if is_mounted { LARGE } else { 2 * LARGE } as u64;
        assert!(done[0]["added"].as_u64().unwrap() < all - UNIT, "{done}");
        assert!(!is_held(&mounted));
        is_whole_here(&mounted, is_mounted);
    }
}

fn is_whole_here(mounted: &Mounted, is_mounted: bool) {
    assert!(mounted.ok(["set", "verify"]).contains("no problems"));
    if is_mounted {
        is_whole(mounted);
    }
}

#[test]
fn what_is_deleted_all_the_same_is_missing_and_told() {
    if !can_mount() {
        return;
    }
    let (mounted, _) = with_target();
    let job = detached(&mounted);
    mounted.ok(["snap", "two"]);
    let second = mounted.json(&["backup", "two", "--detach"])["job"].as_str().unwrap().to_string();
    mounted.ok(["release", "two", "--tag", &format!("job {second}")]);
    mounted.ok(["delete", "two"]);
    mounted.ok(["job", "wait", &job]);
    let said = mounted.fails(3, ["job", "wait", &second]);
    assert!(said.contains("two: it was deleted before it was written"), "{said}");
    assert!(mounted.ok(["job", "list", "--all"]).contains("incomplete"));
}

#[test]
fn other_long_work_is_listed_and_can_be_cancelled() {
    if !can_mount() {
        return;
    }
    let (mounted, _) = with_target();
    let mut command = mounted.command(["get", "one", "large"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut vec![0; 4 << 20]).unwrap();
    let mut found = Value::Null;
    wait_for("the work to be listed", || {
        let jobs = mounted.json(&["job", "list"]);
        found = jobs.as_array().unwrap().iter().find(|job| job["what"] == "get").cloned().unwrap_or_default();
        !found.is_null()
    });
    let name = found["job"].as_str().unwrap();
    assert!(mounted.fails(1, ["job", "pause", name]).contains("only backups can"));
    assert!(mounted.ok(["job", "cancel", name]).contains("cancelled"));
    std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("it was cancelled"), "{said}");
}

/// The file of the only part that there is.
fn part_of(mounted: &Mounted, target: &Path) -> PathBuf {
    let sets = mounted.json(&["set", "list"]);
    let parts: Vec<_> =
        sets.as_array().unwrap().iter().filter(|set| set["part"] == true && set["hidden"] == false).collect();
    assert_eq!(parts.len(), 1, "{sets}");
    let store = fs::read_dir(target).unwrap().map(|one| one.unwrap().path()).find(|one| one.is_dir()).unwrap();
    store.join(format!("{}.set", parts[0]["set"].as_str().unwrap()))
}

#[test]
fn nothing_is_made_over_a_part_that_is_damaged() {
    if !can_mount() {
        return;
    }
    let (mounted, target) = with_target();
    for (round, cut) in [("index", 0), ("end", 10), ("half", 8 << 20)].into_iter().enumerate() {
        fs::write(mounted.live().join("large"), random_bytes(round as u64 + 10, LARGE)).unwrap();
        let name = format!("round {round}");
        mounted.ok(["snap", &name]);
        let job = mounted.json(&["backup", &name, "--full", "--detach", "--limit", "8M"]);
        let job = job["job"].as_str().unwrap().to_string();
        wait_until_begun(&mounted, &job);
        mounted.ok(["job", "cancel", &job]);
        let part = part_of(&mounted, &target);
        let mut bytes = fs::read(&part).unwrap();
        let len = bytes.len();
        match cut.1 {
            0 => bytes[len - 1200..len - 800].fill(0x5a),
            cut => bytes.truncate(len - cut),
        }
        fs::write(&part, bytes).unwrap();
        assert!(mounted.fails(1, ["set", "verify"]).contains("damaged"), "{}", cut.0);
        if round == 1 {
            // Mending lets it go.
            mounted.run(["set", "repair"]);
            assert!(!part.exists());
        }
        let done = mounted.json(&["backup", &name, "--full"]);
        assert!(done[0]["added"].as_u64().unwrap() >= LARGE as u64, "{}: {done}", cut.0);
        let to = mounted.dir.path().join("restored");
        mounted.ok(["restore", "--from", "usb", &name, "--to", to.to_str().unwrap()]);
        assert_same(&listing(&mounted.snap().join(&name)), &listing(&to), "what comes back");
        fs::remove_dir_all(to).unwrap();
    }
}

#[test]
fn a_part_is_gone_on_with_when_its_snapshot_is_gone() {
    if !can_mount() {
        return;
    }
    let (mounted, target) = with_target();
    let job = detached(&mounted);
    mounted.ok(["job", "cancel", &job]);
    let part = part_of(&mounted, &target);
    fs::write(mounted.live().join("small"), "changed").unwrap();
    fs::remove_file(mounted.live().join("small")).unwrap();
    fs::write(mounted.live().join("new"), "new").unwrap();
    mounted.ok(["snap", "two"]);
    mounted.ok(["delete", "one"]);
    let done = mounted.json(&["backup"]);
    assert!(done[0]["added"].as_u64().unwrap() < LARGE as u64 - UNIT, "{done}");
    let to = mounted.dir.path().join("restored");
    mounted.ok(["restore", "--from", "usb", "--to", to.to_str().unwrap()]);
    assert_same(&listing(&mounted.snap().join("two")), &listing(&to), "what comes back");
    // One that nobody goes on with is let go by its id.
    assert!(part.exists());
    mounted.ok(["snap", "three"]);
    fs::write(mounted.live().join("large"), random_bytes(7, LARGE)).unwrap();
    mounted.ok(["snap", "four"]);
    let job = mounted.json(&["backup", "four", "--full", "--detach", "--limit", "8M"]);
    let job = job["job"].as_str().unwrap().to_string();
    wait_until_begun(&mounted, &job);
    mounted.ok(["job", "cancel", &job]);
    let part = part_of(&mounted, &target);
    let id = part.file_stem().unwrap().to_str().unwrap().to_string();
    mounted.ok(["set", "delete", &id]);
    assert!(!part.exists());
}

#[test]
fn a_snapshot_that_goes_while_it_is_written_is_missing() {
    if !can_mount() {
        return;
    }
    let (mounted, _) = with_target();
    let job = detached(&mounted);
    mounted.ok(["release", "one", "--tag", &format!("job {job}")]);
    mounted.ok(["delete", "one"]);
    let said = mounted.fails(3, ["job", "wait", &job]);
    assert!(said.contains("one: it was deleted while it was written"), "{said}");
    let found = show(&mounted, &job);
    assert_eq!((&found["state"], &found["written"]), (&"incomplete".into(), &0.into()), "{found}");
    // A command does not say that it has written it either.
    mounted.ok(["snap", "two"]);
    let mut command = mounted.command(["backup", "two", "--full", "--limit", "8M"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut job = String::new();
    wait_for("the backup", || {
        let jobs = mounted.json(&["job", "list"]);
        let begun = jobs.as_array().unwrap().iter().find(|job| job["what"] == "backup to usb");
        job = begun.map(|job| job["job"].as_str().unwrap().to_string()).unwrap_or_default();
        begun.is_some_and(|job| job["progress"]["bytes"].as_u64().unwrap() > 0)
    });
    mounted.ok(["release", "two", "--tag", &format!("job {job}")]);
    mounted.ok(["delete", "two"]);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("two: it was deleted while it was written"), "{said}");
}
