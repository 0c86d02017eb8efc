//! Snapshots kept at a target, and read from there when the store is gone.

mod back;
mod kept;
#[path = "../mounted/mod.rs"]
mod mounted;

use kept::*;
use mounted::*;
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn the_store_is_gone_and_every_moment_is_there() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let dir = mounted.dir.path().to_path_buf();
    let (target, key, old) = (dir.join("usb"), dir.join("key"), dir.join("old"));
    let moments = backed_up(&mounted, &target, &["--key-file", key.to_str().unwrap()]);
    let listed = mounted.ok(["set", "list"]);
    assert!(listed.matches("incremental").count() == 3 && listed.contains("differential"), "{listed}");
    assert!(mounted.ok(["set", "verify"]).contains("5 sets"));
    assert!(mounted.ok(["backup"]).contains("there already"));
    mounted.umount();
    fs::remove_dir_all(mounted.store()).unwrap();

    fs::create_dir(&old).unwrap();
    let pitfs = |args: &[&str]| {
        let output = Command::new(PITFS).args(args).env("PITFS_KEY_FILE", &key).current_dir(&dir).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.success(), text)
    };
    let (target, old_text) = (target.to_str().unwrap(), old.to_str().unwrap());
    let without = Command::new(PITFS).args(["mount", target, old_text]).output().unwrap();
    assert!(String::from_utf8_lossy(&without.stderr).contains("PITFS_KEY_FILE"), "{without:?}");
    let (is_mounted, text) = pitfs(&["mount", target, old_text]);
    assert!(is_mounted, "{text}");
    let _ends = Ends(&old);
    for (name, wanted) in &moments {
        assert_eq!(&listing(&old.join(name)), wanted, "{name}");
    }
    assert_eq!(listing(&old.join("live")), moments.last().unwrap().1);
    let mut value = [0; 5];
    rustix::fs::getxattr(old.join("m4/a/9"), "user.a", &mut value).unwrap();
    assert_eq!(&value, b"value");
    assert_eq!(fs::write(old.join("live/x"), "x").unwrap_err().raw_os_error(), Some(libc_erofs()));
    let (_, differences) = pitfs(&["-s", old_text, "diff", "m1", "m2"]);
    for line in ["M a/1", "- a/101", "+ new 1/", "R a/201 -> new 1/moved"] {
        assert!(differences.contains(line), "{line}: {differences}");
    }
    assert!(!differences.contains("a/150"), "{differences}");
    // Of the large file one track of 64 KiB differs; of what did not change, none.
    let (_, tracks) = pitfs(&["-s", old_text, "diff", "m1", "m2", "--tracks", "--json"]);
    assert!(tracks.contains("a/deep/large") && tracks.contains("a/1\""), "{tracks}");
    assert!(!tracks.contains("a/150"), "{tracks}");
    let same = pitfs(&["-s", old_text, "diff", "m4", "live", "--tracks"]);
    assert!(same.0 && same.1.is_empty(), "{same:?}");
    let (_, versions) = pitfs(&["-s", old_text, "versions", "a/deep/large"]);
    assert_eq!(versions.lines().count(), 1 + 5, "{versions}");
    // And without a mount.
    assert!(pitfs(&["-s", target, "list"]).1.contains("m3"));
    let (is_done, text) = pitfs(&["-s", target, "restore", "m2", "a/deep", "--to", "out"]);
    assert!(is_done, "{text}");
    assert_eq!(
        fs::read(dir.join("out/a/deep/large")).or(fs::read(dir.join("out/deep/large"))).unwrap(),
        fs::read(old.join("m2/a/deep/large")).unwrap()
    );
}

fn libc_erofs() -> i32 {
    rustix::io::Errno::ROFS.raw_os_error()
}

#[test]
fn a_target_that_is_not_there_is_not_made() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let target = mounted.dir.path().join("usb");
    backed_up(&mounted, &target, &["--no-encryption"]);
    mounted.ok(["snap", "more"]);
    let away = mounted.dir.path().join("away");
    fs::rename(&target, &away).unwrap();
    assert!(mounted.fails(1, ["backup"]).contains("is its disk mounted?"));
    // Where a disk is mounted, an empty directory is when it is not.
    fs::create_dir(&target).unwrap();
    assert!(mounted.fails(1, ["backup"]).contains("is its disk mounted?"));
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    let other = mounted.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    mounted.ok(["target", "add", "other", other.to_str().unwrap(), "--no-encryption"]);
    fs::copy(other.join("target"), target.join("target")).unwrap();
    assert!(mounted.fails(1, ["backup", "--target", "usb"]).contains("another target is there"));
    fs::remove_dir_all(&target).unwrap();
    fs::rename(&away, &target).unwrap();
    mounted.ok(["backup", "--target", "usb"]);
    assert!(mounted.fails(1, ["backup"]).contains("say which: other, usb"));
    let inside = mounted.live().join("inside");
    fs::create_dir(&inside).unwrap();
    let message = mounted.fails(1, ["target", "add", "inside", inside.to_str().unwrap(), "--no-encryption"]);
    assert!(message.contains("lost with it"), "{message}");
    mounted.ok(["target", "forget", "other"]);
    assert!(mounted.fails(1, ["target", "forget", "other"]).contains("there are: usb"));
    // A name that cannot be has nothing made for it.
    let new = mounted.dir.path().join("new");
    fs::create_dir(&new).unwrap();
    mounted.fails(1, ["target", "add", "a/b", new.to_str().unwrap(), "--no-encryption"]);
    assert_eq!(fs::read_dir(&new).unwrap().count(), 0);
    assert!(!mounted.ok(["target", "list"]).contains("other"));
}

#[test]
fn what_could_not_be_read_is_named_and_never_other_bytes() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let live = mounted.live();
    for (seed, name) in [(1, "one"), (2, "two")] {
        fs::write(live.join(name), noise(seed)).unwrap();
    }
    mounted.ok(["snap", "then"]);
    let two = fs::read(live.join("two")).unwrap();
    lose_some(&mounted);
    let target = mounted.add_target();
    let message = mounted.fails(3, ["backup"]);
    assert!(message.contains("one: "), "{message}");
    assert!(mounted.ok(["set", "list"]).contains("incomplete"));
    let old = mounted.dir.path().join("old");
    fs::create_dir(&old).unwrap();
    assert!(Command::new(PITFS).arg("mount").arg(&target).arg(&old).status().unwrap().success());
    let _ends = Ends(&old);
    assert_eq!(fs::read(old.join("then/two")).unwrap(), two);
    assert!(fs::read(old.join("then/one")).is_err());
    // Nothing is made over it.
    mounted.ok(["snap", "later"]);
    assert!(mounted.fails(3, ["backup"]).contains("one: "));
    assert!(!mounted.ok(["set", "list"]).contains("incremental"));
}

/// The process of a mount at a directory, as its daemon's lock in a scratch store says it.
fn daemon_of(scratch: &Path) -> rustix::process::Pid {
    let lock = fs::read_to_string(scratch.join("lock")).unwrap();
    let number = lock.lines().find_map(|line| line.strip_prefix("process ")?.parse().ok()).unwrap();
    rustix::process::Pid::from_raw(number).unwrap()
}

/// What is made to show a target goes when it is shown no longer; of a process that was killed, with the next.
#[test]
fn nothing_is_left_of_what_shows_a_target() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let dir = mounted.dir.path().to_path_buf();
    let [target, old, scratch] = ["usb", "old", "scratch"].map(|name| dir.join(name));
    backed_up(&mounted, &target, &["--no-encryption"]);
    [&old, &scratch].into_iter().for_each(|path| fs::create_dir(path).unwrap());
    let pitfs = |args: &[&str]| {
        let output = Command::new(PITFS).args(args).env("TMPDIR", &scratch).current_dir(&dir).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let left = || fs::read_dir(&scratch).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    pitfs(&["-s", "usb", "list"]);
    assert_eq!(left(), [""; 0].map(std::path::PathBuf::from));
    pitfs(&["mount", "usb", "old"]);
    let _ends = Ends(&old);
    let [shown] = &left()[..] else { panic!("{:?}", left()) };
    // Somebody else looks into it meanwhile, and leaves it alone.
    pitfs(&["-s", "usb", "list"]);
    assert_eq!(left(), std::slice::from_ref(shown));
    rustix::process::kill_process(daemon_of(shown), rustix::process::Signal::KILL).unwrap();
    wait_for("the end of the daemon", || fs::read_dir(&old).is_err());
    detach(&old);
    pitfs(&["-s", "usb", "list"]);
    assert_eq!(left().len(), 0);
    pitfs(&["mount", "usb", "old"]);
    pitfs(&["umount", "old"]);
    wait_for("the end of the scratch store", || left().is_empty());
}

/// One target keeps what several stores bring, each by itself.
#[test]
fn stores_share_a_target_and_nothing_else() {
    if !can_mount() {
        return;
    }
    let (one, two) = (Mounted::new(), Mounted::new());
    let target = one.dir.path().join("usb");
    let moments = backed_up(&one, &target, &["--no-encryption"]);
    let key = two.dir.path().join("key");
    two.ok(["target", "add", "usb", target.to_str().unwrap(), "--key-file", key.to_str().unwrap()]);
    fs::write(two.live().join("secret"), "of two").unwrap();
    two.ok(["snap", "m0"]);
    two.ok(["backup"]);
    assert_eq!(two.ok(["set", "list"]).lines().count(), 2);
    assert_eq!(one.ok(["set", "list"]).lines().count(), 1 + moments.len());
    let list = |of: &Path| {
        let output = Command::new(PITFS).arg("-s").arg(of).arg("list").env_remove("PITFS_KEY_FILE").output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    let both = list(&target);
    assert!(both.contains("several stores; say which"), "{both}");
    let stores: Vec<_> = both.split([' ', ',', '\n']).filter(|word| Path::new(word).is_dir()).collect();
    let told: Vec<String> =
        stores.iter().filter(|path| path.len() > target.as_os_str().len()).map(|path| list(Path::new(path))).collect();
    assert_eq!(told.len(), 2, "{both}");
    assert!(
        told.iter().any(|text| text.contains("m4")) && told.iter().any(|text| text.contains("are encrypted")),
        "{told:?}"
    );
}

/// What changed since a snapshot is known after it was deleted: the next set is made over the last one nevertheless.
#[test]
fn a_difference_needs_no_snapshot_that_was_backed_up() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let target = mounted.add_target();
    fill(&mounted.live());
    let mut moments = Vec::new();
    for round in 0..4 {
        let name = format!("m{round}");
        mounted.ok(["snap", &name]);
        moments.push((name.clone(), listing(&mounted.snap().join(&name))));
        let told = mounted.ok(["backup"]);
        let (kind, most) = if round == 0 { ("in full", 4_000_000) } else { ("since the last", 60_000) };
        assert!(told.contains(kind), "{told}");
        let set = fs::read_dir(&target).unwrap().filter_map(|entry| fs::read_dir(entry.unwrap().path()).ok()).flatten();
        let newest = set.map(|entry| entry.unwrap()).filter(|entry| entry.path().extension().is_some());
        let newest = newest.max_by_key(|entry| entry.metadata().unwrap().modified().unwrap()).unwrap();
        assert!(newest.metadata().unwrap().len() < most, "round {round}: {} bytes", newest.metadata().unwrap().len());
        mounted.ok(["delete", &name]);
        change(&mounted.live(), round);
        // What is in use without a name is no part of any moment, and is whole in the next when it has one again.
        if round == 1 {
            fs::remove_dir_all(mounted.live().join("new 0")).unwrap();
        }
    }
    let old = mounted.dir.path().join("old");
    fs::create_dir(&old).unwrap();
    pitfs_in(mounted.dir.path(), &["mount", target.to_str().unwrap(), old.to_str().unwrap()]);
    let _ends = Ends(&old);
    for (name, wanted) in &moments {
        assert_eq!(&listing(&old.join(name)), wanted, "{name}");
    }
}

/// Moments are let go, merged and packed anew, and what stays is what it was.
#[test]
fn moments_are_let_go_and_the_others_stay_whole() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let dir = mounted.dir.path().to_path_buf();
    let target = dir.join("usb");
    let moments = backed_up(&mounted, &target, &["--no-encryption"]);
    let names = || -> Vec<String> {
        let list = mounted.ok(["set", "list"]);
        list.lines().skip(1).map(|line| line.split_whitespace().next().unwrap().to_string()).collect()
    };
    assert!(mounted.fails(1, ["set", "delete", "nothing"]).contains("has no moment"));
    assert!(mounted.fails(1, ["set", "merge", "m1"]).contains("two sets at least"));
    let told = mounted.ok(["set", "delete", "m1", "-n"]);
    assert!(told.contains("would go") && names().len() == 5, "{told}");
    mounted.ok(["set", "delete", "m1"]);
    let kept = mounted.ok(["target", "prune", "--keep-last", "2", "-n"]);
    assert!(kept.contains("m4") && kept.contains("last") && kept.contains("would go"), "{kept}");
    mounted.ok(["set", "merge", "m2", "m3"]);
    assert!(mounted.ok(["set", "list"]).lines().any(|line| line.contains("m3") && line.contains(" full ")));
    mounted.ok(["target", "prune", "--keep-last", "2"]);
    assert_eq!(names()[..2], ["m3", "m4"], "{:?}", names());
    assert!(mounted.ok(["set", "list"]).contains("that was let go, or went into others, and that others need"));
    assert!(mounted.ok(["set", "verify", "--read", "5%"]).contains("no problems"));
    // What an interruption left stays in a dry run, as all does.
    let store = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let left = store.join(".left.set.new");
    fs::write(&left, "half").unwrap();
    mounted.ok(["set", "compact", "--waste", "0%", "-n"]);
    assert!(left.exists());
    let packed = mounted.ok(["set", "compact", "--waste", "0%"]);
    assert!(!left.exists());
    assert!(packed.contains("written anew") || packed.starts_with("0 sets"), "{packed}");
    mounted.ok(["set", "rebuild"]);
    assert_eq!(names()[..2], ["m3", "m4"]);
    assert!(mounted.ok(["set", "verify"]).contains("no problems"));
    // The next is made over what is left.
    change(&mounted.live(), 7);
    mounted.ok(["snap", "m5"]);
    assert!(mounted.ok(["backup"]).contains("since the last"));
    let old = dir.join("old");
    fs::create_dir(&old).unwrap();
    pitfs_in(&dir, &["mount", "usb", "old"]);
    let _ends = Ends(&old);
    for (name, wanted) in moments.iter().skip(3) {
        assert_eq!(&listing(&old.join(name)), wanted, "{name}");
    }
    assert!(!old.join("m2").exists());
    // All of that without the store.
    for how in [&["-s", "usb", "set", "list"][..], &["set", "list", "usb"], &["set", "list", "./usb"]] {
        assert!(pitfs_in(&dir, how).contains("m5"));
    }
    pitfs_in(&dir, &["-s", "usb", "set", "delete", "m3"]);
    assert!(!mounted.ok(["set", "list"]).lines().any(|line| line.starts_with("m3")));
}

/// A passphrase opens what is kept, is changed without a set being written anew, and is not asked for by the store.
#[test]
fn a_passphrase_opens_a_target_and_can_be_changed() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let dir = mounted.dir.path().to_path_buf();
    let (target, old) = (dir.join("usb"), dir.join("old"));
    fs::create_dir(&target).unwrap();
    fs::create_dir(&old).unwrap();
    let with = |variables: &[(&str, &str)], args: &[&str]| {
        // Nobody is there to be asked.
        let mut alone = Command::new("setsid");
        alone.arg("-w").arg(PITFS).args(args).envs(variables.iter().copied()).current_dir(&dir);
        let output = alone.stdin(std::process::Stdio::null()).output().unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    let store = mounted.store();
    let store = store.to_str().unwrap();
    let add = ["-s", store, "target", "add", "usb", "usb", "--passphrase"];
    let (is_done, told) = with(&[], &add);
    assert!(!is_done && told.contains("PITFS_PASSPHRASE"), "{told}");
    assert!(!with(&[("PITFS_PASSPHRASE", "")], &add).0);
    assert_eq!(fs::read_dir(&target).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count(), 0);
    assert!(with(&[("PITFS_PASSPHRASE", "correct horse")], &add).0);
    fs::write(mounted.live().join("secret"), "said to nobody").unwrap();
    mounted.ok(["snap", "m"]);
    mounted.ok(["backup"]);
    assert!(mounted.ok(["target", "list"]).contains(" encrypted"));
    let (is_done, told) = with(&[], &["-s", "usb", "list"]);
    assert!(!is_done && told.contains("PITFS_PASSPHRASE"), "{told}");
    let (is_done, told) = with(&[("PITFS_PASSPHRASE", "wrong")], &["-s", "usb", "list"]);
    assert!(!is_done && told.contains("the passphrase is wrong"), "{told}");
    let (is_done, told) = with(&[("PITFS_PASSPHRASE", "correct horse")], &["mount", "usb", "old"]);
    assert!(is_done, "{told}");
    let ends = Ends(&old);
    assert_eq!(fs::read_to_string(old.join("m/secret")).unwrap(), "said to nobody");
    drop(ends);
    // Another one, by somebody who has the store, and by one who has the target and the passphrase alone.
    let (is_done, told) =
        with(&[("PITFS_NEW_PASSPHRASE", "battery")], &["-s", store, "target", "add-key", "--passphrase"]);
    assert!(is_done && told.matches("passphrase").count() == 2, "{told}");
    assert!(with(&[], &["-s", store, "target", "remove-key", "0"]).0);
    assert!(!with(&[("PITFS_PASSPHRASE", "correct horse")], &["-s", "usb", "list"]).0);
    let battery = [("PITFS_PASSPHRASE", "battery"), ("PITFS_NEW_PASSPHRASE", "staple")];
    assert!(with(&battery, &["-s", "usb", "target", "add-key", "--key-file", "key"]).0);
    assert!(with(&[("PITFS_KEY_FILE", "key")], &["-s", "usb", "set", "verify"]).0);
    mounted.ok(["snap", "n"]);
    assert!(mounted.ok(["backup"]).contains("since the last"));
}

/// What the README says for when the disk is gone, word for word.
#[test]
fn the_walk_of_the_readme() {
    if !can_mount() {
        return;
    }
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let section = readme.split("### When the disk is gone").nth(1).unwrap().split("```").nth(1).unwrap();
    let commands: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    assert!(commands.len() > 10, "{commands:?}");
    let dir = temporary();
    let before = r#"
        set -e
        trap 'pitfs umount --lazy snap; pitfs umount --lazy old' EXIT
        mkdir -p project/docs snap
        echo 'first draft' > project/docs/notes.txt
        pitfs create store --from project
        pitfs -s store snap before
        pitfs mount store snap
        echo 'second draft' > snap/live/docs/notes.txt
        pitfs -s snap snap after
        pitfs umount snap
        trap 'pitfs umount --lazy old' EXIT
    "#;
    let after = "test \"$(pitfs -s store list | wc -l)\" = 3; pitfs -s store check; trap - EXIT";
    let script = format!("{before}\n{}\n{after}\n", commands.join("\n"));
    let path = format!("{}:{}", Path::new(PITFS).parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh").arg("-c").arg(script).current_dir(dir.path()).env("PATH", path).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(told.matches("first draft").count(), 2, "{told}");
    assert!(told.contains("after: there already") && told.contains("2 snapshots"), "{told}");
}

/// What is lost at a target is named by moment and path, and comes again out of the store where that has it.
#[test]
fn what_is_lost_is_named_and_mended_out_of_the_store() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let target = mounted.add_target();
    fs::create_dir_all(mounted.live().join("deep/er")).unwrap();
    let mut moments = Vec::new();
    for round in 0..4u64 {
        fs::write(mounted.live().join(format!("deep/er/{round}")), noise(round)).unwrap();
        mounted.ok(["snap", &format!("m{round}")]);
        mounted.ok(["backup"]);
        moments.push(listing(&mounted.snap().join(format!("m{round}"))));
    }
    let list: serde_json::Value = serde_json::from_str(&mounted.ok(["set", "list", "--json"])).unwrap();
    let store = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let object = |at: usize| store.join(format!("{}.set", list[at]["set"].as_str().unwrap()));
    // A bit of the first one's file, and the third as a whole.
    let mut bytes = fs::read(object(0)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(object(0), bytes).unwrap();
    fs::remove_file(object(2)).unwrap();
    let told = mounted.fails(1, ["set", "verify"]);
    for name in ["live:m0 has lost deep/er/0", "live:m3 has lost deep/er/0", "live:m3 has lost deep/er/2"] {
        assert!(told.contains(name), "{name}: {told}");
    }
    assert!(!told.contains("deep/er/1") && !told.contains("live:m1 has lost deep/er/2"), "{told}");
    // The next one needs nothing of what is gone.
    mounted.ok(["snap", "m4"]);
    assert!(mounted.ok(["backup"]).contains("m4: "));
    mounted.ok(["delete", "m1"]);
    let told = mounted.fails(1, ["set", "repair"]);
    assert!(told.contains("\"m1\" has lost something") && !told.contains("m3"), "{told}");
    let told = mounted.fails(1, ["set", "verify"]);
    assert!(told.contains("live:m1 has lost deep/er/0") && !told.contains("live:m0"), "{told}");
    mounted.ok(["set", "delete", "m1"]);
    assert!(mounted.ok(["set", "verify"]).contains("no problems"));
    let old = mounted.dir.path().join("old");
    fs::create_dir(&old).unwrap();
    pitfs_in(mounted.dir.path(), &["mount", target.to_str().unwrap(), old.to_str().unwrap()]);
    let _ends = Ends(&old);
    for (round, wanted) in moments.iter().enumerate().filter(|(round, _)| *round != 1) {
        assert_eq!(&listing(&old.join(format!("m{round}"))), wanted, "m{round}");
    }
}

/// A list of sets that was put back is told from one that is new.
#[test]
fn an_older_list_of_sets_is_not_believed() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let target = mounted.add_target();
    fs::write(mounted.live().join("f"), "1").unwrap();
    mounted.ok(["snap", "m0"]);
    mounted.ok(["backup"]);
    let store = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let before = fs::read(store.join("catalogue")).unwrap();
    fs::write(mounted.live().join("f"), "2").unwrap();
    mounted.ok(["snap", "m1"]);
    mounted.ok(["backup", "--level", "19", "--limit", "1G"]);
    fs::write(store.join("catalogue"), before).unwrap();
    for args in [&["backup"][..], &["set", "delete", "m0"], &["set", "compact"]] {
        assert!(mounted.fails(1, args).contains("was put back"), "{args:?}");
    }
    // Whoever only looks sees what is there.
    assert_eq!(mounted.ok(["set", "list"]).lines().count(), 3);
    mounted.ok(["set", "rebuild"]);
    assert_eq!(mounted.ok(["set", "list"]).lines().count(), 3);
    assert!(mounted.ok(["backup"]).contains("there already"));
    // One that is damaged is made anew, and is no older one.
    for (round, content) in [("m2", &b"nonsense"[..]), ("m3", b"")] {
        fs::write(store.join("catalogue"), content).unwrap();
        mounted.ok(["snap", round]);
        assert!(mounted.ok(["backup"]).contains("since the last"));
        assert!(mounted.ok(["backup"]).contains("there already"));
        mounted.ok(["set", "compact"]);
    }
    assert_eq!(mounted.ok(["set", "list"]).lines().count(), 5);
}

/// What the store cannot read mends nothing: the set that is there stays, and is not said to be whole.
#[test]
fn what_the_store_has_lost_as_well_is_not_mended() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let target = two_kept(&mounted);
    let store = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let sets = || fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let before = sets();
    let set = before.iter().find(|path| path.extension().is_some_and(|end| end == "set")).unwrap();
    let mut bytes = fs::read(set).unwrap();
    let some = &noise(2)[1000..1064];
    let two = bytes.windows(64).position(|found| found == some).expect("noise is stored as it is");
    bytes[two] ^= 1;
    fs::write(set, bytes).unwrap();
    lose_some(&mounted);
    let told = mounted.fails(1, ["set", "repair"]);
    assert!(told.contains("cannot read it either (one: "), "{told}");
    assert_eq!(sets().len(), before.len());
    let told = mounted.fails(1, ["set", "verify"]);
    // Both have bytes in that frame, and the frames behind it are as they were.
    assert!(told.contains("live:then has lost one") && told.contains("live:then has lost two"), "{told}");
    assert_eq!(told.matches("is damaged").count(), 1, "{told}");
}

/// A store and a copy of it back up to one target: two chains side by side, each whole, and nothing of one over the other.
#[test]
fn a_copy_of_a_store_keeps_its_sets_beside_the_others() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let dir = mounted.dir.path().to_path_buf();
    mounted.add_target();
    fill(&mounted.live());
    mounted.ok(["snap", "before"]);
    mounted.ok(["backup"]);
    let other = copied(&mounted);
    let _ends = Ends(&other);
    let here = |args: &[&str]| drop(mounted.ok(args));
    let there = |args: &[&str]| drop(pitfs_in(&dir, &[&["-s", "copy"], args].concat()));
    let mut states = Vec::new();
    for round in 0..2 {
        for (side, root) in [mounted.snap(), other.clone()].into_iter().enumerate() {
            let run = |args: &[&str]| if side == 0 { here(args) } else { there(args) };
            change(&root.join("live"), 2 * round + side);
            fs::write(root.join("live/which"), format!("{side} {round}")).unwrap();
            run(&["snap", &format!("v{round}")]);
            states.push(listing(&root.join(format!("v{round}"))));
            run(&["backup"]);
        }
    }
    let sets: serde_json::Value = serde_json::from_str(&mounted.ok(["set", "list", "--json"])).unwrap();
    let of = |name: &str| sets.as_array().unwrap().iter().filter(|set| set["snapshot"] == name).collect::<Vec<_>>();
    let (first, second) = (of("v0"), of("v1"));
    assert_eq!((first.len(), second.len()), (2, 2), "{sets}");
    assert!(first.iter().all(|set| set["over"] == of("before")[0]["set"]), "{sets}");
    let over: Vec<_> = second.iter().map(|set| &set["over"]).collect();
    assert!(over == [&first[0]["set"], &first[1]["set"]] || over == [&first[1]["set"], &first[0]["set"]], "{sets}");
    let shown = mounted.ok(["set", "list"]);
    for set in first.iter().chain(&second) {
        let id = &set["set"].as_str().unwrap()[..8];
        assert!(shown.contains(&format!("{}~{id}", set["snapshot"].as_str().unwrap())), "{shown}");
    }
    // Without either store.
    assert!(pitfs_in(&dir, &["set", "verify", "usb"]).contains("no problems"));
    let output = Command::new(PITFS).args(["restore", "--from", "usb", "v0", "--to", "out"]).current_dir(&dir).output();
    assert!(!output.unwrap().status.success() && !dir.join("out").exists());
    let mut seen = Vec::new();
    for set in first.iter().chain(&second) {
        let name = format!("{}~{}", set["snapshot"].as_str().unwrap(), &set["set"].as_str().unwrap()[..8]);
        pitfs_in(&dir, &["restore", "--from", "usb", &name, "--to", &name]);
        seen.push(listing(&dir.join(name)));
    }
    assert!(states.iter().all(|state| seen.contains(state)));
    let gone = format!("v1~{}", &second[0]["set"].as_str().unwrap()[..8]);
    pitfs_in(&dir, &["set", "delete", &gone, "--target", "./usb"]);
    let left = pitfs_in(&dir, &["set", "list", "usb"]);
    assert!(left.contains("v0~") && left.contains("v1 ") && !left.contains("v1~"), "{left}");
}
