//! What happens when room ends: refuse, or drop the oldest snapshots; and room that is set aside.

mod mounted;

use mounted::*;
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

const DISK_MEGABYTES: u64 = 96;

/// A mounted store on a small disk. The disk goes after it.
fn small() -> Option<(Mounted, Disk)> {
    small_disk(DISK_MEGABYTES)
}

const FILE_BYTES: usize = 2 << 20;

/// Writes one file anew, to the end or until there is no room.
fn rewrite(live: &Path, seed: u64) -> Result<(), Errno> {
    let write = || {
        let mut file = File::create(live.join(format!("f{}", seed % 8)))?;
        file.write_all(&random_bytes(seed, FILE_BYTES))?;
        file.sync_all()
    };
    write().map_err(|error: std::io::Error| Errno::from_io_error(&error).unwrap())
}

#[test]
fn the_oldest_snapshots_go_when_room_ends_and_that_is_wanted() {
    let Some((mounted, _disk)) = small() else { return };
    assert_eq!(mounted.ok(["policy"]), "when-full refuse\nbefore-restore all\n");
    mounted.ok(["policy", "--when-full", "drop-oldest"]);
    assert_eq!(mounted.ok(["policy"]), "when-full drop-oldest\nbefore-restore all\n");
    let live = mounted.live();
    for seed in 0..8 {
        rewrite(&live, seed).unwrap();
    }
    mounted.ok(["snap", "held", "--hold"]);
    let held = listing(&mounted.snap().join("held"));
    // Four times what there is room for.
    let count = DISK_MEGABYTES * 4 / 2;
    for seed in 8..8 + count {
        rewrite(&live, seed).unwrap_or_else(|error| panic!("file {seed} of {count}: {error}"));
        if seed % 4 == 0 {
            mounted.ok(["snap", &format!("s{seed}")]);
        }
    }
    let left = names(&mounted.snap());
    assert!(left.contains(&"held".into()) && !left.contains(&"s8".into()), "{left:?}");
    assert!(!mounted.snap().join("s8").exists());
    assert!(left.len() > 3, "no more went than had to: {left:?}");
    // The newest are left.
    let last = format!("s{}", (8 + count - 1) / 4 * 4);
    assert!(left.contains(&last), "{left:?}");
    assert_same(&listing(&mounted.snap().join("held")), &held, "the one that is held");
    for seed in count..8 + count {
        assert!(fs::read(live.join(format!("f{}", seed % 8))).unwrap() == random_bytes(seed, FILE_BYTES), "{seed}");
    }
    assert!(mounted.ok(["history"]).contains("drop \"s8\": room ended"));
    mounted.remount();
    assert_same(&listing(&mounted.snap().join("held")), &held, "the one that is held, mounted again");
    mounted.check();
    mounted.umount();
    mounted.check();
}

#[test]
fn without_that_writes_are_refused() {
    let Some((mounted, _disk)) = small() else { return };
    let live = mounted.live();
    for seed in 0..8 {
        rewrite(&live, seed).unwrap();
    }
    mounted.ok(["snap", "first"]);
    let first = listing(&mounted.snap().join("first"));
    let mut seed = 8;
    let error = loop {
        match rewrite(&live, seed) {
            Ok(()) => mounted.run(["snap", &format!("s{seed}")]),
            Err(error) => break error,
        };
        seed += 1;
        assert!(seed < DISK_MEGABYTES, "the disk never filled up");
    };
    assert_eq!(error, Errno::NOSPC);
    let left = names(&mounted.snap());
    assert!(left.contains(&"first".into()) && left.contains(&"s8".into()), "{left:?}");
    assert_same(&listing(&mounted.snap().join("first")), &first, "nothing went");
    // Changed while it is full, the policy makes room.
    mounted.ok(["policy", "--when-full", "drop-oldest"]);
    wait_for("room", || {
        seed += 1;
        let is_written = rewrite(&live, seed).is_ok();
        mounted.run(["snap", &format!("s{seed}")]);
        is_written && !mounted.snap().join("first").exists()
    });
    mounted.ok(["policy", "--when-full", "refuse"]);
    mounted.umount();
    mounted.check();
}

#[test]
fn all_held_is_as_refused() {
    let Some((mounted, _disk)) = small() else { return };
    let live = mounted.live();
    mounted.ok(["policy", "--when-full", "drop-oldest"]);
    let mut seed = 0;
    let error = loop {
        match rewrite(&live, seed) {
            Ok(()) => mounted.run(["snap", &format!("s{seed}"), "--hold"]),
            Err(error) => break error,
        };
        seed += 1;
        assert!(seed < DISK_MEGABYTES, "the disk never filled up");
    };
    assert_eq!(error, Errno::NOSPC);
    assert!(names(&mounted.snap()).contains(&"s0".into()));
    // What the first ones hold, those after them hold as well, until it is written anew.
    let released: Vec<String> = (0..16).map(|i| format!("s{i}")).collect();
    mounted.ok(["release".to_string()].into_iter().chain(released));
    wait_for("room", || {
        seed += 1;
        let is_written = rewrite(&live, seed).is_ok();
        mounted.run(["snap", &format!("s{seed}"), "--hold"]);
        is_written && !names(&mounted.snap()).contains(&"s0".into())
    });
    mounted.umount();
    mounted.check();
}

#[test]
fn room_that_is_set_aside_is_there_when_it_is_needed() {
    let Some((mounted, _disk)) = small() else { return };
    let live = mounted.live();
    for seed in 0..8 {
        rewrite(&live, seed).unwrap();
    }
    mounted.ok(["snap", "r", "--reserve"]);
    let r = listing(&mounted.snap().join("r"));
    let status = mounted.json(&["status"]);
    let reserved = status["reserved_bytes"].as_u64().unwrap();
    assert!(reserved >= 16 << 20, "{reserved}");
    // Others fill what is left; what was there can still be written anew, all of it.
    let mut others = 0;
    for seed in 1000.. {
        let write = || -> std::io::Result<()> {
            let mut file = File::create(live.join(format!("other {seed}")))?;
            file.write_all(&random_bytes(seed, FILE_BYTES))?;
            file.sync_all()
        };
        match write() {
            Ok(()) => others += 1,
            Err(error) => {
                assert_eq!(Errno::from_io_error(&error), Some(Errno::NOSPC));
                break;
            }
        }
    }
    assert!(others >= 10, "{others} files fitted");
    for seed in 8..16 {
        let path = live.join(format!("f{}", seed % 8));
        let write = File::options().write(true).open(path).and_then(|mut file| {
            file.write_all(&random_bytes(seed, FILE_BYTES))?;
            file.sync_all()
        });
        write.unwrap_or_else(|error| panic!("file {seed} in reserved room: {error}"));
    }
    assert_same(&listing(&mounted.snap().join("r")), &r, "the snapshot with its room");
    // More than there is cannot be set aside.
    let said = mounted.fails(1, ["snap", "too much", "--reserve"]);
    assert!(!names(&mounted.snap()).contains(&"too much".into()), "{said}");
    mounted.ok(["delete", "r"]);
    assert_eq!(mounted.json(&["status"])["reserved_bytes"], 0);
    wait_for("the room to come back", || rewrite(&live, 50).is_ok());
    mounted.umount();
    mounted.check();
}

#[test]
fn the_policy_tells_what_it_let_go() {
    let mounted = Mounted::unmounted();
    let source = mounted.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    mounted.ok(["snap", "s"]);
    for text in ["1", "2", "3"] {
        fs::write(source.join("f"), text).unwrap();
        mounted.ok(["sync", source.to_str().unwrap()]);
        mounted.ok(["restore", "s"]);
    }
    assert_eq!(mounted.ok(["policy", "--before-restore", "2"]), "1 snapshot deleted\n");
    assert_eq!(mounted.ok(["policy", "--before-restore", "2"]), "");
    let told = mounted.json(&["policy", "--before-restore", "1"]);
    let deleted = told["deleted"].as_array().unwrap();
    assert_eq!((deleted.len(), &deleted[0]["purpose"]), (1, &"before-restore".into()), "{told}");
    assert_eq!(mounted.json(&["policy"])["deleted"], serde_json::json!([]));
}

/// What brings files in makes room as a write does, through the mount and without one.
#[test]
fn the_oldest_snapshots_go_for_a_sync_as_well() {
    let Some((mounted, _disk)) = small() else { return };
    mounted.ok(["policy", "--when-full", "drop-oldest"]);
    let source = temporary();
    // Four times what there is room for.
    let count = DISK_MEGABYTES * 4 / 16;
    for round in 0..count {
        for file in 0..8 {
            let bytes = random_bytes(round * 8 + file, FILE_BYTES);
            fs::write(source.path().join(format!("f{file}")), bytes).unwrap();
        }
        if round == count / 2 {
            mounted.umount();
        }
        mounted.ok(["sync", source.path().to_str().unwrap()]);
        mounted.ok(["snap", &format!("s{round}")]);
    }
    let history = mounted.ok(["history"]);
    assert!(history.contains("drop \"s0\": room ended"), "{history}");
    assert!(mounted.ok(["list"]).contains(&format!("s{}", count - 1)));
    let to = mounted.dir.path().join("to");
    mounted.ok(["restore", &format!("s{}", count - 1), "f3", "--to", to.to_str().unwrap()]);
    assert!(fs::read(to.join("f3")).unwrap() == fs::read(source.path().join("f3")).unwrap());
    mounted.check();
}
