//! Snapshots through a pipe: `backup --to -`, `set receive`, `restore --from -`, `create --from-set -`.

mod mounted;

use mounted::*;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

/// Runs a command with a stream on its input, and one on its output.
fn piped(mounted: &Mounted, args: &[&str], input: Option<&Path>, output: Option<&Path>) -> Output {
    let mut command = mounted.command(args);
    command.env_remove("PITFS_KEY_FILE");
    if let Some(input) = input {
        command.stdin(File::open(input).unwrap());
    }
    match output {
        Some(output) => command.stdout(File::create(output).unwrap()),
        None => command.stdout(Stdio::piped()),
    };
    command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap()
}

fn ok(mounted: &Mounted, args: &[&str], input: Option<&Path>, output: Option<&Path>) -> String {
    let found = piped(mounted, args, input, output);
    assert!(found.status.success(), "{args:?}: {}", String::from_utf8_lossy(&found.stderr));
    String::from_utf8(found.stdout).unwrap()
}

fn fails(mounted: &Mounted, args: &[&str], input: Option<&Path>) -> String {
    let found = piped(mounted, args, input, None);
    let said = String::from_utf8(found.stderr).unwrap();
    assert_eq!(found.status.code(), Some(1), "{args:?}: {said}");
    said
}

fn with_snapshots() -> (Mounted, PathBuf) {
    let mounted = Mounted::new();
    let live = mounted.live();
    fs::create_dir_all(live.join("a/b")).unwrap();
    for number in 0..50 {
        fs::write(live.join(format!("a/{number}")), format!("{number}").repeat(number * 20)).unwrap();
    }
    fs::write(live.join("a/b/large"), random_bytes(1, 3_000_000)).unwrap();
    fs::hard_link(live.join("a/7"), live.join("seven")).unwrap();
    mounted.ok(["snap", "one"]);
    fs::write(live.join("a/b/large"), random_bytes(2, 1_000_000)).unwrap();
    mounted.ok(["snap", "two"]);
    let dir = mounted.dir.path().to_path_buf();
    (mounted, dir)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Nothing but what is expected is in a directory.
fn has_only(directory: &Path, expected: &[&str]) {
    let mut found = names(directory);
    found.sort();
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(found, expected, "in {directory:?}");
}

#[test]
fn a_snapshot_goes_through_a_pipe() {
    if !can_mount() {
        return;
    }
    let (mounted, dir) = with_snapshots();
    let (one, two, usb) = (dir.join("one.stream"), dir.join("two.stream"), dir.join("usb"));
    let moments = ["one", "two"].map(|name| listing(&mounted.snap().join(name)));
    ok(&mounted, &["backup", "one", "--to", "-", "--no-encryption"], None, Some(&one));
    mounted.umount();
    // Of a closed store as well; without a name it is the newest.
    ok(&mounted, &["backup", "--to", "-", "--no-encryption", "--level", "1"], None, Some(&two));
    fs::create_dir(&usb).unwrap();
    assert!(ok(&mounted, &["set", "receive", text(&usb)], Some(&one), None).contains("1 set"));
    assert!(ok(&mounted, &["set", "receive", text(&usb)], Some(&one), None).contains("there already"));
    let received = ok(&mounted, &["set", "receive", text(&usb), "--json"], Some(&two), None);
    assert!(received.contains("\"sets\"") && received.contains("usb"), "{received}");
    fs::remove_dir_all(mounted.store()).unwrap();
    // A target as any other.
    let listed = ok(&mounted, &["-s", text(&usb), "set", "list"], None, None);
    assert!(listed.contains("one") && listed.contains("two"), "{listed}");
    assert!(ok(&mounted, &["-s", text(&usb), "set", "verify"], None, None).contains("no problems"));
    for (name, moment) in ["one", "two"].iter().zip(&moments) {
        let to = dir.join(format!("from usb {name}"));
        ok(&mounted, &["restore", "--from", text(&usb), name, "--to", text(&to)], None, None);
        assert_same(moment, &listing(&to), "what comes back from a target");
    }
    // Or without one.
    let (to, part, store) = (dir.join("to"), dir.join("part"), dir.join("again"));
    ok(&mounted, &["restore", "--from", "-", "--to", text(&to)], Some(&one), None);
    assert_same(&moments[0], &listing(&to), "what comes back from a stream");
    ok(&mounted, &["restore", "--from", "-", "two", "a/b", "--to", text(&part)], Some(&two), None);
    assert_eq!(fs::read(part.join("a/b/large")).unwrap(), random_bytes(2, 1_000_000));
    assert!(!part.join("seven").exists());
    // Without a name it is the newest of what there is.
    let newest = dir.join("newest");
    ok(&mounted, &["restore", "--from", text(&usb), "--to", text(&newest)], None, None);
    assert_same(&moments[1], &listing(&newest), "what comes back without a name");
    ok(&mounted, &["create", text(&store), "--from-set", "-"], Some(&two), None);
    let again = dir.join("to again");
    ok(&mounted, &["-s", text(&store), "restore", "two", "--to", text(&again)], None, None);
    assert_same(&moments[1], &listing(&again), "what a store has that comes from a stream");
    let said = fails(&mounted, &["restore", "--from", "-", "three", "--to", text(&dir.join("no"))], Some(&two));
    assert!(said.contains("three"), "{said}");
    let there = [
        "one.stream",
        "two.stream",
        "usb",
        "from usb one",
        "from usb two",
        "to",
        "part",
        "newest",
        "again",
        "to again",
        "snap",
    ];
    has_only(&dir, &there);
}

#[test]
fn a_stream_is_sealed_and_needs_its_key() {
    if !can_mount() {
        return;
    }
    let (mounted, dir) = with_snapshots();
    let (key, other, stream, to) = (dir.join("key"), dir.join("other key"), dir.join("stream"), dir.join("to"));
    ok(&mounted, &["backup", "one", "--to", "-", "--key-file", text(&key)], None, Some(&stream));
    ok(&mounted, &["backup", "one", "--to", "-", "--key-file", text(&other)], None, Some(&dir.join("other")));
    let content = fs::read(&stream).unwrap();
    assert!(!content.windows(5).any(|piece| piece == b"large"), "a name is not encrypted");
    let said = fails(&mounted, &["restore", "--from", "-", "--to", text(&to)], Some(&stream));
    assert!(said.contains("--key-file"), "{said}");
    let with = |key: &Path| ["restore", "--from", "-", "--to", text(&to), "--key-file", text(key)].map(str::to_string);
    let wrong = with(&other);
    let wrong: Vec<&str> = wrong.iter().map(String::as_str).collect();
    assert!(fails(&mounted, &wrong, Some(&stream)).contains("key"));
    assert!(!to.exists());
    let right = with(&key);
    let right: Vec<&str> = right.iter().map(String::as_str).collect();
    ok(&mounted, &right, Some(&stream), None);
    assert_same(&listing(&mounted.snap().join("one")), &listing(&to), "what comes back");
    // Whoever takes it in needs no key, and never mixes keys.
    let away = dir.join("away");
    fs::create_dir(&away).unwrap();
    assert!(ok(&mounted, &["set", "receive", text(&away)], Some(&stream), None).contains("1 set"));
    assert!(fails(&mounted, &["set", "receive", text(&away)], Some(&dir.join("other"))).contains("another key"));
    // With a target's key, what is received joins what was copied from there.
    let (usb, copy, joins) = (dir.join("usb"), dir.join("copy"), dir.join("joins"));
    fs::create_dir(&usb).unwrap();
    mounted.ok(["target", "add", "usb", text(&usb), "--key-file", text(&key)]);
    mounted.ok(["backup", "one"]);
    let copied = std::process::Command::new("cp").arg("-r").args([&usb, &copy]).status().unwrap();
    assert!(copied.success());
    ok(&mounted, &["backup", "two", "--to", "-", "--target", "usb"], None, Some(&joins));
    assert!(ok(&mounted, &["set", "receive", text(&copy)], Some(&joins), None).contains("1 set"));
    let mut list = mounted.command(["-s", text(&copy), "set", "list"]);
    let listed = String::from_utf8(list.env("PITFS_KEY_FILE", &key).output().unwrap().stdout).unwrap();
    assert!(listed.contains("one") && listed.contains("two"), "{listed}");
    let from_copy = dir.join("from copy");
    let args = ["restore", "--from", text(&copy), "two", "--to", text(&from_copy), "--key-file", text(&key)];
    ok(&mounted, &args, None, None);
    assert_same(&listing(&mounted.snap().join("two")), &listing(&from_copy), "what comes back");
}

#[test]
fn what_is_broken_off_or_changed_on_the_way_is_not_taken_in() {
    if !can_mount() {
        return;
    }
    let (mounted, dir) = with_snapshots();
    let (whole, broken, usb) = (dir.join("whole"), dir.join("broken"), dir.join("usb"));
    ok(&mounted, &["backup", "one", "--to", "-", "--no-encryption"], None, Some(&whole));
    let content = fs::read(&whole).unwrap();
    let places = [0, 7, 20, 39, 40, 41, 60, 100, content.len() / 2, content.len() - 20, content.len() - 1];
    for is_new in [true, false] {
        fs::create_dir(&usb).unwrap();
        if !is_new {
            ok(&mounted, &["backup", "two", "--to", "-", "--no-encryption"], None, Some(&broken));
            ok(&mounted, &["set", "receive", text(&usb)], Some(&broken), None);
        }
        let mut cut_or_changed = Vec::new();
        for place in places {
            cut_or_changed.push(content[..place].to_vec());
            let mut changed = content.clone();
            changed[place] ^= 0x41;
            cut_or_changed.push(changed);
        }
        for (number, bytes) in cut_or_changed.into_iter().enumerate() {
            fs::write(&broken, &bytes).unwrap();
            let found = piped(&mounted, &["set", "receive", text(&usb)], Some(&broken), None);
            let said = String::from_utf8_lossy(&found.stderr).into_owned();
            // The last byte says that nothing follows: all is there when that is missing or another.
            let is_last = number >= 2 * (places.len() - 1);
            assert!(!found.status.success() && said.contains("stream"), "{number}: {said}");
            let sets = if is_new { 0 } else { 1 };
            let there = files_of(&usb).iter().filter(|name| name.ends_with(".set")).count();
            assert!(there == sets || is_last && there == sets + 1, "{number}: {said}");
            assert!(!files_of(&usb).iter().any(|name| name.ends_with(".new")), "{number}: {said}");
            if is_last && !is_new {
                break;
            }
        }
        fs::remove_dir_all(&usb).unwrap();
    }
}

/// The names of all files below a directory.
fn files_of(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files_of(&entry.path())),
            false => found.push(entry.file_name().into_string().unwrap()),
        }
    }
    found
}

#[test]
fn what_cannot_be_sent_or_received_is_said() {
    if !can_mount() {
        return;
    }
    let (mounted, dir) = with_snapshots();
    assert!(mounted.fails(2, ["backup", "--to", "-"]).contains("--no-encryption"));
    mounted.fails(2, ["backup", "--to", "elsewhere", "--no-encryption"]);
    mounted.fails(2, ["backup", "--no-encryption"]);
    mounted.fails(2, ["backup", "--to", "-", "--detach", "--no-encryption"]);
    let nothing = dir.join("nothing");
    fs::write(&nothing, "not a stream of anything, but long enough to be one\n").unwrap();
    let usb = dir.join("usb");
    fs::create_dir(&usb).unwrap();
    assert!(fails(&mounted, &["set", "receive", text(&usb)], Some(&nothing)).contains("no stream"));
    has_only(&usb, &[]);
    assert!(mounted.fails(2, ["restore", "--from", "-", "one"]).contains("--to"));
    // Nobody reads what is written.
    let mut command = mounted.command(["backup", "one", "--to", "-", "--no-encryption"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    // Or takes nothing: whoever is interrupted, and a daemon that ends, do not wait for that.
    fs::write(mounted.live().join("large"), random_bytes(3, 20 << 20)).unwrap();
    mounted.ok(["snap", "large"]);
    let mut command = mounted.command(["backup", "large", "--to", "-", "--no-encryption"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the work", || mounted.ok(["job", "list"]).contains("send"));
    let start = std::time::Instant::now();
    let name = mounted.json(&["job", "list"])[0]["job"].as_str().unwrap().to_string();
    mounted.ok(["job", "cancel", &name]);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let mut command = mounted.command(["backup", "large", "--to", "-", "--no-encryption"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the work", || mounted.ok(["job", "list"]).contains("send"));
    mounted.umount();
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
    assert!(!child.wait().unwrap().success());
}
