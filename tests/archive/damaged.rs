//! Something is wrong with an archive: it is named, and the rest is read.

use crate::mounted::*;
use crate::rolled::Rolled;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn what_is_repaired_is_shown_again() {
    if !can_mount() {
        return;
    }
    let mut rolled = Rolled::several(6);
    rolled.compare("whole");
    let middle = rolled.increments()[2].clone();
    let aside = rolled.mounted.dir.path().join("aside");
    let repairs: [&[&str]; 3] = [&["archive", "verify"], &["archive", "list"], &["roll", "--name", "more"]];
    for repair in repairs {
        fs::rename(&middle, &aside).unwrap();
        let output = rolled.mounted.run(["archive", "verify"]);
        assert!(!output.status.success());
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.starts_with("4 increments, ") && said.contains("problem"), "{said}");
        assert_eq!(names(&rolled.mounted.snap()), ["live", "v3", "v4", "v5"]);
        assert!(!rolled.mounted.snap().join("v0").exists());
        fs::rename(&aside, &middle).unwrap();
        let state = listing(&rolled.live());
        rolled.mounted.ok(repair);
        if repair[0] == "roll" {
            rolled.states.insert("more".into(), state);
        }
        rolled.compare(&format!("{repair:?}"));
    }
    let file = File::options().read(true).write(true).open(&middle).unwrap();
    let len = file.metadata().unwrap().len();
    // The index has what a damaged head says: its time is shown all the same, and it is told.
    let mut byte = [0];
    file.read_exact_at(&mut byte, 20).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 20).unwrap();
    for command in ["list", "verify"] {
        let output = rolled.mounted.run(["archive", command, "--json"]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let problem = told[0]["problems"][0].as_str().unwrap();
        assert!(problem.contains(middle.to_str().unwrap()) && problem.contains("cannot be relied on"), "{problem}");
        let damaged = |at: usize| told[0]["increments"][at]["damaged"].as_bool().unwrap();
        assert_eq!((damaged(1), damaged(2), damaged(3)), (false, true, false), "{command}");
        assert_eq!(told[0]["increments"][2]["reachable"], true);
        assert!(rolled.mounted.snap().join("v2").exists());
    }
    let said = rolled.mounted.run(["archive", "list"]).stdout;
    assert_eq!(String::from_utf8(said).unwrap().lines().filter(|line| line.ends_with("  damaged")).count(), 1);
    file.write_all_at(&byte, 20).unwrap();
    // One that was read in part is not counted.
    file.write_all_at(&[0; 8], len - 8).unwrap();
    let output = rolled.mounted.run(["archive", "verify"]);
    let (said, problems) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(said.starts_with("5 increments, "), "{said}");
    assert!(problems.contains("its end is missing or was overwritten"), "{problems}");
    // Away when the store is mounted, and back before it is again.
    file.write_all_at(b"pitfsend", len - 8).unwrap();
    rolled.mounted.umount();
    fs::rename(rolled.archive(), &aside).unwrap();
    rolled.mounted.mount(&[]);
    assert_eq!(names(&rolled.mounted.snap()).iter().filter(|name| name.starts_with('v')).count(), 1);
    fs::rename(&aside, rolled.archive()).unwrap();
    rolled.verify();
    rolled.compare("back");
}

/// Does harm to a file.
type Damage = fn(&Path);

/// What can be wrong with an increment's file.
fn damages() -> Vec<(&'static str, Damage)> {
    fn write_in(path: &Path, at: impl Fn(u64) -> u64) {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let at = at(file.metadata().unwrap().len());
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x41], at).unwrap();
    }
    vec![
        ("the first byte", |path| write_in(path, |_| 0)),
        ("the header", |path| write_in(path, |_| 70)),
        ("the middle", |path| write_in(path, |len| len / 2)),
        ("three quarters", |path| write_in(path, |len| len * 3 / 4)),
        ("the last byte", |path| write_in(path, |len| len - 1)),
        ("cut in half", |path| {
            let file = File::options().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
        ("cut by a byte", |path| {
            let file = File::options().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        }),
        ("longer", |path| {
            let file = File::options().write(true).open(path).unwrap();
            let len = file.metadata().unwrap().len();
            file.write_all_at(b"more", len).unwrap();
        }),
        ("empty", |path| fs::write(path, "").unwrap()),
        ("missing", |path| fs::remove_file(path).unwrap()),
        ("something else", |path| fs::write(path, random_bytes(3, 9000)).unwrap()),
        ("of another store", |path| {
            let other = Rolled::several(2);
            fs::copy(&other.increments()[0], path).unwrap();
        }),
        ("another of the same archive", |path| {
            let first = names(path.parent().unwrap()).into_iter().find(|name| name.ends_with(".increment")).unwrap();
            fs::copy(path.with_file_name(first), path).unwrap();
        }),
    ]
}

/// Reads all of a tree; whether every byte of it was there. What is there has to be as it was.
fn is_whole(root: &Path, state: &[Shown], what: &str) -> bool {
    let mut whole = true;
    for shown in state {
        let path = root.join(&shown.path);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => match fs::read(&path) {
                Ok(bytes) => assert_eq!(
                    xxhash_rust::xxh3::xxh3_64(&bytes),
                    shown.content,
                    "{what}: {} has other bytes",
                    path.display()
                ),
                Err(_) => whole = false,
            },
            Ok(_) => {}
            Err(_) => whole = false,
        }
    }
    whole
}

#[test]
fn what_is_wrong_with_an_archive_is_named_and_the_rest_is_read() {
    if !can_mount() {
        return;
    }
    let rolled = Rolled::several(7);
    let mounted = &rolled.mounted;
    mounted.umount();
    let aside = mounted.dir.path().join("aside");
    assert!(Command::new("cp").arg("-a").arg(rolled.archive()).arg(&aside).status().unwrap().success());
    const DAMAGED: usize = 3;
    for keeps_index in [true, false] {
        for (what, damage) in damages() {
            let what = format!("{what}, {}", if keeps_index { "with its index" } else { "without an index" });
            let path = rolled.increments()[DAMAGED].clone();
            let file = path.file_name().unwrap().to_str().unwrap().to_string();
            damage(&path);
            if !keeps_index {
                fs::remove_file(rolled.archive().join("index")).unwrap();
            }
            mounted.mount(&[]);
            let output = mounted.run(["archive", "verify"]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{what}: {said}");
            // Without an index nobody knows what a missing file was called, only where the others do not join.
            let names_file = said.contains(&file) || what == "missing, without an index";
            assert!(names_file, "{what}: the file is not named: {said}");
            assert!(said.contains("cannot be"), "{what}: the times are not named: {said}");
            let shown = names(&mounted.snap());
            let mut lost = 0;
            for (at, (name, state)) in rolled.states.iter().enumerate() {
                let root = mounted.snap().join(name);
                if !shown.contains(name) {
                    assert!(at <= DAMAGED, "{what}: {name} is not shown: {said}");
                    lost += 1;
                } else if at > DAMAGED {
                    assert_same(&listing(&root), state, &format!("{what}: {name}"));
                } else if !is_whole(&root, state, &format!("{what}: {name}")) {
                    lost += 1;
                }
            }
            // With an index only what is read of the file itself can be lost; a byte that nothing needs is not.
            if !keeps_index && !what.contains("byte") {
                assert!(lost > 0, "{what}: nothing was lost");
            }
            mounted.check();
            mounted.umount();
            fs::remove_dir_all(rolled.archive()).unwrap();
            assert!(Command::new("cp").arg("-a").arg(&aside).arg(rolled.archive()).status().unwrap().success());
        }
    }
    mounted.mount(&[]);
    rolled.compare("as it was");
}

#[test]
fn the_index_is_made_anew() {
    if !can_mount() {
        return;
    }
    let mut rolled = Rolled::several(5);
    let index = rolled.archive().join("index");
    let damages: [(&str, Damage); 5] = [
        ("deleted", |index| fs::remove_file(index).unwrap()),
        ("empty", |index| fs::write(index, "").unwrap()),
        ("something else", |index| fs::write(index, random_bytes(4, 70_000)).unwrap()),
        ("cut", |index| {
            let file = File::options().write(true).open(index).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
        ("damaged", |index| {
            let file = File::options().write(true).open(index).unwrap();
            for at in (0..file.metadata().unwrap().len()).step_by(1000) {
                file.write_all_at(&[0x5a; 40], at).unwrap();
            }
        }),
    ];
    for (at, (what, damage)) in damages.into_iter().enumerate() {
        rolled.mounted.umount();
        damage(&index);
        rolled.mounted.mount(&[]);
        rolled.compare(what);
        rolled.change(20 + at as u64);
        rolled.roll(what);
        rolled.verify();
    }
    // One that is older than the archive.
    rolled.mounted.umount();
    let old = fs::read(&index).unwrap();
    rolled.mounted.mount(&[]);
    rolled.change(40);
    rolled.roll("newer");
    rolled.mounted.umount();
    fs::write(&index, old).unwrap();
    rolled.mounted.mount(&[]);
    rolled.compare("an old index");
    rolled.verify();
    rolled.mounted.check();
}

/// Something is mounted on a directory, as long as it lives.
pub struct MountedOn(pub PathBuf);

impl MountedOn {
    /// Itself, so that nothing can be written there.
    fn read_only(directory: &Path) -> Option<MountedOn> {
        let mount = |args: &[&str]| Command::new("mount").args(args).arg(directory).output().unwrap().status.success();
        if !is_root() || !mount(&["--bind", directory.to_str().unwrap()]) {
            eprintln!("not run: nothing can be mounted here");
            return None;
        }
        let mounted = MountedOn(directory.to_path_buf());
        assert!(mount(&["-o", "remount,ro,bind"]));
        Some(mounted)
    }
}

impl Drop for MountedOn {
    fn drop(&mut self) {
        let _gone_already = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn an_archive_that_may_only_be_read_is_read() {
    if !can_mount() {
        return;
    }
    let mut rolled = Rolled::several(3);
    let index = rolled.archive().join("index");
    rolled.mounted.umount();
    let old = fs::read(&index).unwrap();
    rolled.mounted.mount(&[]);
    rolled.roll("v3");
    rolled.change(9);
    // The index may be what it should be, have too little, or be damaged or missing.
    let damages: [(&str, &dyn Fn()); 4] = [
        ("as it is", &|| {}),
        ("old", &|| fs::write(&index, &old).unwrap()),
        ("damaged", &|| fs::write(&index, random_bytes(4, 70_000)).unwrap()),
        ("missing", &|| fs::remove_file(&index).unwrap()),
    ];
    for (what, damage) in damages {
        rolled.mounted.umount();
        damage();
        let before = names(&rolled.archive());
        let bytes = fs::read(&index).ok();
        let Some(read_only) = MountedOn::read_only(&rolled.archive()) else { return };
        for is_mounted in [false, true] {
            if is_mounted {
                rolled.mounted.mount(&[]);
                rolled.compare(what);
            }
            rolled.compare_copy(&["v1"], "v1");
            let said = rolled.mounted.ok(["archive", "verify"]);
            let increments = rolled.increments().len();
            assert!(
                said.starts_with(&format!("{increments} increments")) && said.contains("no problems"),
                "{what}: {said}"
            );
            assert_eq!(rolled.mounted.ok(["archive", "list"]).lines().count(), 1 + increments, "{what}");
            rolled.refuses_to_change("read-only");
        }
        rolled.mounted.ok(["archive", "detach"]);
        let said = rolled.mounted.fails(1, ["roll", "--archive", rolled.archive().to_str().unwrap()]);
        assert!(said.contains("read-only"), "{said}");
        rolled.mounted.ok(["archive", "attach", rolled.archive().to_str().unwrap()]);
        rolled.compare(&format!("{what}, attached again"));
        assert_eq!((names(&rolled.archive()), fs::read(&index).ok()), (before, bytes), "{what}: something was written");
        drop(read_only);
        // While it stays mounted the archive can be written to again.
        rolled.change(10);
        rolled.roll(&format!("after {what}"));
        rolled.verify();
        rolled.mounted.remount();
        rolled.compare(&format!("after {what}"));
    }
    rolled.mounted.umount();
    rolled.mounted.check();
}

/// An index that cannot be written for lack of room hides nothing, and a roll says what there is no room for.
#[test]
fn an_archive_on_a_full_disk_is_read() {
    if !can_mount() {
        return;
    }
    let mut rolled = Rolled::new();
    fs::create_dir(rolled.archive()).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=12m", "pitfs-test"]).arg(rolled.archive());
    if !is_root() || !mount.status().unwrap().success() {
        eprintln!("not run: nothing can be mounted here");
        return;
    }
    let _disk = MountedOn(rolled.archive());
    for i in 0..4 {
        rolled.change(i);
        rolled.roll(&format!("v{i}"));
    }
    rolled.change(4);
    rolled.mounted.umount();
    fs::remove_file(rolled.archive().join("index")).unwrap();
    let filler = rolled.archive().join("filler");
    let mut file = File::create(&filler).unwrap();
    while std::io::Write::write(&mut file, &[1; 4096]).is_ok_and(|written| written > 0) {}
    drop(file);
    rolled.mounted.mount(&[]);
    rolled.compare("on a full disk");
    assert!(rolled.mounted.ok(["archive", "verify"]).contains("no problems"));
    let increments = rolled.increments();
    let said = rolled.mounted.fails(1, ["roll", "--keep", "1", "--name", "v4"]);
    let archive = rolled.archive();
    assert!(said.contains(&format!("no room in the archive {}", archive.display())), "{said}");
    assert!(said.contains("archive prune") && !said.contains("the store"), "{said}");
    assert_eq!(rolled.increments(), increments);
    rolled.states.insert("v4".into(), listing(&rolled.live()));
    rolled.compare("after a roll that did not fit");
    // Letting times go needs no room.
    assert!(rolled.mounted.ok(["archive", "prune", "--keep", "2"]).contains("1 time went"));
    rolled.states.remove("v0");
    rolled.compare("pruned");
    rolled.mounted.remount();
    rolled.compare("pruned, mounted again");
    fs::remove_file(&filler).unwrap();
    rolled.roll("v5");
    rolled.compare("with room again");
    rolled.verify();
    rolled.mounted.umount();
    rolled.mounted.check();
}

#[test]
fn an_increment_that_cannot_be_read_does_not_hide_the_others() {
    if !can_mount() {
        return;
    }
    let mut rolled = Rolled::new();
    for i in 0..3 {
        rolled.change(i);
        rolled.roll(&format!("v{i}"));
    }
    rolled.change(3);
    rolled.mounted.ok(["roll", "--keep", "1", "--name", "v3"]);
    rolled.mounted.umount();
    // Reading it fails, as of a bad block.
    let oldest = rolled.increments().into_iter().next().unwrap();
    fs::rename(&oldest, oldest.with_extension("away")).unwrap();
    fs::create_dir(&oldest).unwrap();
    rolled.mounted.mount(&[]);
    let list = rolled.mounted.json(&["list"]);
    let states: Vec<_> =
        list.as_array().unwrap().iter().map(|one| (one["name"].clone(), one["state"].clone())).collect();
    let expected = [("v0", "missing"), ("v1", "archived"), ("v2", "archived"), ("v3", "active")];
    assert_eq!(states, expected.map(|(name, state)| (name.into(), state.into())));
    let status = rolled.mounted.json(&["status"]);
    let problems = status["archives"][0]["problems"].to_string();
    assert!(problems.contains(oldest.file_name().unwrap().to_str().unwrap()), "{problems}");
    rolled.mounted.umount();
}
