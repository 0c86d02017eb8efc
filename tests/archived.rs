//! Times that only an archive has, and what they are called and needed for.

mod mounted;

use mounted::*;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// A store that is rolled: `t1`, `t2` and so on, each with its number in a file, of which the store keeps the newest.
struct Times(Mounted);

impl Times {
    fn new() -> Option<Times> {
        can_mount().then(|| Times(Mounted::new()))
    }

    fn up_to(last: u32) -> Option<Times> {
        let times = Times::new()?;
        (1..=last).for_each(|turn| times.roll(turn));
        Some(times)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_string()
    }

    fn write(&self, text: &str) {
        fs::write(self.0.live().join("f"), text).unwrap();
    }

    fn roll(&self, turn: u32) {
        self.write(&turn.to_string());
        // What is missing from the archive is a problem, said each time.
        let (archive, name) = (self.text("archive"), format!("t{turn}"));
        let roll = self.0.run(["roll", "--archive", &archive, "--keep", "1", "--name", &name]);
        assert!(String::from_utf8_lossy(&roll.stdout).contains("saved"), "{roll:?}");
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.0.snap().join(name).join("f")).ok()
    }

    /// The files of the archive, the oldest first.
    fn increments(&self) -> Vec<PathBuf> {
        let names = names(&self.path("archive")).into_iter().filter(|name| name.ends_with(".increment"));
        names.map(|name| self.path("archive").join(name)).collect()
    }
}

/// A save that only the archive has is newer than one that the store was told to hold.
#[test]
fn the_newest_save_may_be_in_the_archive_while_an_older_one_is_held() {
    let Some(times) = Times::new() else { return };
    let mounted = &times.0;
    for name in ["s1", "s2"] {
        times.write(name);
        mounted.ok(["save", name]);
    }
    mounted.ok(["hold", "s1"]);
    times.roll(1);
    // By itself it stands: a roll frees neither.
    mounted.ok(["delete", "s2"]);
    (2..=3).for_each(|turn| times.roll(turn));
    mounted.ok(["archive", "prune", "--keep", "1"]);
    mounted.ok(["restore", "--last"]);
    assert_eq!(times.read("live").unwrap(), "s2");
}

/// Neither do they become leftovers that the next roll removes.
#[test]
fn joining_what_was_merged_elsewhere_hides_no_time() {
    // Times went from the archive, or one of its increments is somewhere else for a while.
    for is_lost in [false, true] {
        let Some(times) = Times::up_to(6) else { return };
        let mounted = &times.0;
        mounted.ok(["archive", "detach"]);
        let copy = Command::new("cp").arg("-a").args([times.path("archive"), times.path("backup")]).status();
        assert!(copy.unwrap().success());
        mounted.ok(["archive", "attach", &times.text("backup")]);
        mounted.ok(["archive", "merge", "--per", "year"]);
        mounted.ok(["archive", "detach"]);
        mounted.ok(["archive", "attach", &times.text("archive")]);
        let lost = is_lost.then(|| times.increments()[3].clone());
        match &lost {
            Some(lost) => fs::rename(lost, times.path("lost")).unwrap(),
            None => drop(mounted.ok(["archive", "prune", "--keep", "3"])),
        }
        mounted.run(["archive", "list"]);
        let state = || (1..=6).map(|turn| times.read(&format!("t{turn}"))).collect::<Vec<_>>();
        let shown = state();
        let said = mounted.fails(1, ["archive", "join", &times.text("backup")]);
        assert!(said.contains("was merged over"), "{said}");
        times.roll(7);
        assert_eq!(state(), shown);
        if let Some(lost) = lost {
            fs::rename(times.path("lost"), lost).unwrap();
            mounted.ok(["archive", "list"]);
            for turn in 1..=7 {
                assert_eq!(times.read(&format!("t{turn}")), Some(turn.to_string()), "all can be reached again");
            }
        }
    }
}

/// What may be the last save stays, with all that leads to it, while the way to it is interrupted.
#[test]
fn a_save_behind_a_gap_can_be_reached_when_the_gap_is_closed() {
    let Some(times) = Times::up_to(2) else { return };
    let mounted = &times.0;
    times.write("3");
    mounted.ok(["save", "s3"]);
    (4..=7).for_each(|turn| times.roll(turn));
    mounted.ok(["delete", "s3"]);
    let (interrupted, away) = (times.increments()[4].clone(), times.path("away"));
    fs::rename(&interrupted, &away).unwrap();
    times.roll(8);
    let pruned = mounted.run(["archive", "prune", "--keep", "1"]);
    assert!(String::from_utf8_lossy(&pruned.stdout).contains("s3"), "{pruned:?}");
    fs::rename(&away, &interrupted).unwrap();
    mounted.ok(["archive", "verify"]);
    mounted.ok(["restore", "--last"]);
    assert_eq!(times.read("live").unwrap(), "3");
}

/// No name stands for two, whatever was given the name of an archived time while its archive was not attached.
#[test]
fn no_two_times_have_one_name() {
    let Some(times) = Times::up_to(4) else { return };
    let mounted = &times.0;
    let read = |name: &str| times.read(name).unwrap();
    mounted.ok(["archive", "detach"]);
    times.write("mine");
    mounted.ok(["snap", "t1"]);
    mounted.ok(["clone", "t4", "t2"]);
    mounted.ok(["archive", "attach", &times.text("archive")]);
    let shown = names(&mounted.snap());
    assert_eq!(shown.iter().collect::<BTreeSet<_>>().len(), shown.len(), "{shown:?}");
    let other = |of: &str| shown.iter().find(|name| name.starts_with(&format!("{of}~"))).unwrap().clone();
    for is_again in [false, true] {
        assert_eq!([read("t1"), read("t2"), read("t3")], ["mine", "4", "3"], "{is_again}");
        assert_eq!([read(&other("t1")), read(&other("t2"))], ["1", "2"], "{is_again}");
        for (name, wanted) in [("t1", "mine"), (&other("t1"), "1"), (&other("t2"), "2"), ("t3", "3")] {
            mounted.ok(["restore", name]);
            assert_eq!(read("live"), wanted, "{name} is the same to commands");
        }
        mounted.remount();
    }
    mounted.ok(["base", "delete", "t2"]);
    assert_eq!(read("t2"), "2", "the name is free");
}

/// It would be shown under its old name once it is freed.
#[test]
fn what_the_archive_has_keeps_its_name() {
    for (mounted, is_mounted) in Mounted::unmounted_and_mounted() {
        let archive = mounted.dir.path().join("archive");
        mounted.ok(["snap", "a"]);
        mounted.ok(["snap", "--offline", "hidden"]);
        mounted.ok(["roll", "--archive", archive.to_str().unwrap(), "--name", "b"]);
        assert!(mounted.fails(1, ["rename", "a", "c"]).contains("the archive has \"a\""));
        mounted.ok(["rename", "b", "c"]);
        mounted.ok(["roll", "--keep", "1", "--name", "d"]);
        assert!(mounted.ok(["list"]).contains("hidden"));
        if is_mounted {
            assert_eq!(names(&mounted.snap()), ["a", "c", "d", "live"], "what is offline stays so in the archive");
        }
    }
}

#[test]
fn an_archive_that_is_attached_anew_is_read_meanwhile() {
    let Some(times) = Times::new() else { return };
    let mounted = &times.0;
    let wanted = random_bytes(1, 1_000_000);
    fs::write(mounted.live().join("large"), &wanted).unwrap();
    times.roll(1);
    fs::remove_file(mounted.live().join("large")).unwrap();
    times.roll(2);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers = [0, 1].map(|_| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    assert!(fs::read(mounted.snap().join("t1/large")).unwrap() == wanted);
                    assert_eq!(names(&mounted.snap()), ["live", "t1", "t2"]);
                }
            })
        });
        for _ in 0..15 {
            mounted.ok(["archive", "attach", &times.text("archive")]);
        }
        is_over.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

/// Nothing else can be rolled until something is done about it, so that has to be said.
#[test]
fn what_a_roll_cannot_read_is_named_with_what_helps() {
    let mounted = Mounted::unmounted();
    let source = mounted.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    let wanted = random_bytes(1, 40_000);
    fs::write(source.join("f"), &wanted).unwrap();
    mounted.ok(["sync", source.to_str().unwrap()]);
    mounted.ok(["snap", "a"]);
    fs::write(source.join("f"), "new").unwrap();
    mounted.ok(["sync", source.to_str().unwrap()]);
    let volume = mounted.store().join("volume.0");
    let mut bytes = fs::read(&volume).unwrap();
    let at = bytes.windows(64).position(|found| found == &wanted[..64]).expect("it is stored as it is");
    bytes[at] ^= 1;
    fs::write(&volume, bytes).unwrap();
    let archive = mounted.dir.path().join("archive");
    let roll = ["roll", "--archive", archive.to_str().unwrap(), "--name", "b"];
    let said = mounted.fails(1, roll);
    for part in ["is damaged", "what \"a\" showed", "\"b\" was taken and stays", "pitfs check"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    mounted.ok(["delete", "a"]);
    mounted.ok(["roll", "--name", "c"]);
    assert!(mounted.ok(["archive", "verify"]).contains("no problems"));
}
