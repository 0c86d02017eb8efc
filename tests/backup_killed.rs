//! The daemon killed while it writes to a target, again and again.

mod mounted;

use mounted::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

fn change(live: &Path, rng: &mut Rng, round: u64) {
    fs::write(live.join("large"), rng.bytes(3_000_000)).unwrap();
    for file in 0..40 {
        let name = live.join(format!("file {}", rng.next() % 100));
        let len = rng.next() as usize % 40_000;
        if file % 5 == 4 {
            let _there_may_be_none = fs::remove_file(name);
        } else {
            fs::write(name, rng.bytes(len)).unwrap();
        }
    }
    fs::create_dir(live.join(format!("directory {round}"))).unwrap();
}

/// Objects of the target that are not whole.
fn unfinished(target: &Path) -> Vec<PathBuf> {
    let stores = fs::read_dir(target).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let objects = stores.flat_map(|store| fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path()));
    objects.filter(|path| path.file_name().unwrap().to_string_lossy().ends_with(".new")).collect()
}

/// Unmounts, whatever happened.
struct Ends<'a>(&'a Path);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        let _ended = Command::new(PITFS).arg("umount").arg(self.0).status();
    }
}

/// `PITFS_KILLS` says how often, `PITFS_SEED` when.
#[test]
fn what_was_reported_as_backed_up_survives_the_killing_of_the_daemon() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let (target, mut rng) = (mounted.dir.path().join("usb"), Rng(number("PITFS_SEED", 1)));
    fs::create_dir(&target).unwrap();
    let key = mounted.dir.path().join("key");
    mounted.ok(["target", "add", "usb", target.to_str().unwrap(), "--key-file", key.to_str().unwrap()]);
    let (mut taken, mut reported, mut longest) = (BTreeMap::new(), Vec::new(), 400);
    for round in 0..number("PITFS_KILLS", 10) {
        change(&mounted.live(), &mut rng, round);
        let name = format!("m{round}");
        mounted.ok(["snap", &name]);
        taken.insert(name.clone(), listing(&mounted.snap().join(&name)));
        let mut backup = mounted.command(["backup"]);
        let mut child = backup.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(rng.next() % longest));
        mounted.kill();
        let is_reported = child.wait().unwrap().success();
        mounted.mount(&[]);
        if is_reported {
            reported.push(name);
        }
        let listed = mounted.ok(["set", "list"]);
        for name in &reported {
            assert!(listed.lines().any(|line| line.split_whitespace().any(|word| word == name)), "{name}: {listed}");
        }
        let verified = mounted.run(["set", "verify"]);
        let text = String::from_utf8_lossy(&verified.stdout).into_owned() + &String::from_utf8_lossy(&verified.stderr);
        assert!(verified.status.success(), "round {round}: {text}");
        // Now and then the next finds what several left.
        if round % 3 != 2 {
            let start = Instant::now();
            mounted.ok(["backup"]);
            longest = start.elapsed().as_millis() as u64 + 50;
            reported.push(format!("m{round}"));
            assert_eq!(unfinished(&target), [""; 0].map(PathBuf::from), "round {round}");
        }
    }
    mounted.ok(["backup", "--all-snapshots"]);
    assert!(mounted.ok(["set", "verify"]).contains("no problems"));
    assert_eq!(unfinished(&target), [""; 0].map(PathBuf::from));
    mounted.umount();
    mounted.check();
    let old = mounted.dir.path().join("old");
    fs::create_dir(&old).unwrap();
    let shown = Command::new(PITFS).arg("mount").arg(&target).arg(&old).env("PITFS_KEY_FILE", &key).status().unwrap();
    assert!(shown.success());
    let _ends = Ends(&old);
    for (name, wanted) in &taken {
        assert_same(&listing(&old.join(name)), wanted, name);
    }
}

/// A store that is made of a target is none before it is whole, and whoever makes it once more completes it.
#[test]
fn a_store_that_is_being_made_is_killed_and_made() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let (dir, mut rng) = (mounted.dir.path(), Rng(number("PITFS_SEED", 1)));
    let (target, made, old) = (dir.join("usb"), dir.join("made"), dir.join("old"));
    fs::create_dir(&target).unwrap();
    fs::create_dir(&old).unwrap();
    mounted.ok(["target", "add", "usb", target.to_str().unwrap(), "--no-encryption"]);
    let mut taken = BTreeMap::new();
    for round in 0..6 {
        change(&mounted.live(), &mut rng, round);
        // Too much to be kept in memory until it is all there.
        if round == 2 {
            fs::write(mounted.live().join("huge"), vec![7; 50_000_000]).unwrap();
        }
        let name = format!("m{round}");
        mounted.ok(["snap", &name]);
        taken.insert(name.clone(), listing(&mounted.snap().join(&name)));
    }
    mounted.ok(["backup", "--all-snapshots"]);
    let create = |store: &Path| {
        let mut create = Command::new(PITFS);
        create.arg("create").arg(store).arg("--from-set").arg(&target).arg("--history").stdout(Stdio::null());
        create
    };
    let start = Instant::now();
    assert!(create(&dir.join("other")).status().unwrap().success());
    let whole = start.elapsed().as_millis() as u64;
    for round in 0..number("PITFS_KILLS", 10) {
        let mut child = create(&made).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(rng.next() % (whole + 20)));
        let _done_already = child.kill();
        let is_done = child.wait().unwrap().success();
        assert!(!is_done || made.join("store").exists());
        // Now and then all is begun anew.
        if made.join("store").exists() {
            assert!(mounted.command(["-s", made.to_str().unwrap(), "check"]).output().unwrap().status.success());
            fs::remove_dir_all(&made).unwrap();
        }
        if round % 4 == 3 {
            taken.remove(&format!("m{}", round / 4));
            mounted.run(["set", "delete", &format!("m{}", round / 4)]);
        }
    }
    assert!(create(&made).status().unwrap().success());
    let checked = Command::new(PITFS).arg("-s").arg(&made).arg("check").output().unwrap();
    assert!(String::from_utf8_lossy(&checked.stdout).contains("no problems"), "{checked:?}");
    assert!(!made.join("filling").exists());
    assert!(Command::new(PITFS).arg("mount").arg(&made).arg(&old).status().unwrap().success());
    let _ends = Ends(&old);
    for (name, wanted) in &taken {
        assert_same(&listing(&old.join(name)), wanted, name);
    }
}
