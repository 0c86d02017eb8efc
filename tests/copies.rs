//! Copies in the background on small disks, and room that is set aside.

mod mounted;

use mounted::*;
use std::fs;
use std::io::Write;
use std::path::Path;

const FILE_BYTES: usize = 4 << 20;

fn fill(live: &Path, name: &str, seed: u64) -> std::io::Result<()> {
    let mut file = fs::File::create(live.join(name))?;
    file.write_all(&random_bytes(seed, FILE_BYTES))?;
    file.sync_all()
}

/// A mounted store with so many files of 4 MiB on a disk of so many MiB.
fn sample(megabytes: u64, files: u64) -> Option<(Mounted, Disk)> {
    let (mounted, disk) = small_disk(megabytes)?;
    for seed in 0..files {
        fill(&mounted.live(), &format!("f{seed}"), seed).unwrap();
    }
    Some((mounted, disk))
}

fn available(mounted: &Mounted) -> u64 {
    let stat = rustix::fs::statvfs(mounted.snap()).unwrap();
    stat.f_bavail * stat.f_frsize
}

#[test]
fn a_copy_that_does_not_fit_is_refused_before_it_begins() {
    let Some((mounted, _disk)) = sample(160, 18) else { return };
    mounted.ok(["snap", "s"]);
    let before = mounted.json(&["status"])["live_bytes"].clone();
    for args in [
        &["clone", "--copy", "s", "c"][..],
        &["base", "create", "c", "--from", "s", "--copy"],
        &["restore", "s", "--to-base", "c", "--copy"],
        &["restore", "s", "--to-clone", "c", "--copy"],
        &["mirror", "establish", "live", "c"],
        &["mirror", "establish", "live", "c", "--no-wait"],
    ] {
        let said = mounted.fails(1, args);
        assert!(said.contains("does not fit") && said.contains("are free"), "{args:?}: {said}");
        assert!(mounted.base_info("c").is_null(), "{args:?}");
    }
    assert_eq!(mounted.json(&["status"])["live_bytes"], before);
    assert!(mounted.snapshots_of("live") == ["s"]);
    // Without a copy there is nothing that would not fit.
    mounted.ok(["clone", "--full", "--wait", "s", "c"]);
    mounted.check();
}

#[test]
fn a_copy_that_meets_the_end_of_room_says_so_and_goes_on() {
    let Some((mounted, _disk)) = sample(224, 16) else { return };
    mounted.ok(["base", "create", "b"]);
    mounted.ok(["snap", "s"]);
    mounted.umount();
    // Others are faster: the copy begins when there is room for it, and does not find it any more.
    mounted.ok(["clone", "--copy", "s", "c"]);
    mounted.mount(&[]);
    let live = mounted.snap().join("live/live");
    for seed in 0.. {
        if fill(&live, &format!("more{seed}"), 100 + seed).is_err() {
            break;
        }
    }
    wait_for("the copy to stop", || mounted.base_info("c")["copy_stopped"] == true || is_whole(&mounted));
    if is_whole(&mounted) {
        // It was the faster one.
        return;
    }
    let said = mounted.fails(1, ["base", "wait", "c"]);
    assert!(said.contains("no room to copy all of \"c\"") && said.contains("goes on when there is room"), "{said}");
    let list = mounted.ok(["base", "list"]);
    assert!(list.contains("incomplete: no room") && !list.contains("independent"), "{list}");
    assert!(mounted.ok(["status"]).contains("incomplete: no room"));
    assert!(mounted.ok(["history"]).contains("copy of \"c\": stopped, no room"));
    for name in names(&live).into_iter().filter(|name| name.starts_with("more")) {
        fs::remove_file(live.join(name)).unwrap();
    }
    wait_for("the copy to go on to its end", || is_whole(&mounted));
    let history = mounted.ok(["history"]);
    assert!(
        history.contains("copy of \"c\": goes on") && history.contains("copy of \"c\": all is copied"),
        "{history}"
    );
    mounted.ok(["base", "wait", "c"]);
    assert!(mounted.ok(["base", "list"]).contains("independent"));
    for seed in 0..16 {
        assert!(fs::read(mounted.snap().join(format!("live/c/f{seed}"))).unwrap() == random_bytes(seed, FILE_BYTES));
    }
    mounted.umount();
    mounted.check();
}

fn is_whole(mounted: &Mounted) -> bool {
    let info = mounted.base_info("c");
    info["bytes_to_copy"].is_null() && info["needs"].is_null()
}

#[test]
fn a_copy_leaves_nothing_shared_whatever_is_written_meanwhile() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::write(mounted.live().join("f"), random_bytes(1, 1 << 20)).unwrap();
    mounted.ok(["snap", "s"]);
    mounted.ok(["clone", "--copy", "s", "c"]);
    let path = mounted.snap().join("c/f");
    let mut wanted = random_bytes(1, 1 << 20);
    for at in (0..64).map(|i| i * 16384 + 100) {
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"new", at as u64).unwrap();
        wanted[at..at + 3].copy_from_slice(b"new");
    }
    mounted.ok(["base", "wait", "c"]);
    assert!(fs::read(&path).unwrap() == wanted);
    // Nothing of it is needed by anybody else.
    let before = mounted.json(&["status"]);
    mounted.ok(["delete", "s"]);
    fs::remove_file(mounted.live().join("f")).unwrap();
    let log = || mounted.json(&["status"])["live_bytes"].as_u64().unwrap();
    wait_for("what only the base had to be free", || log() + (1 << 20) <= before["live_bytes"].as_u64().unwrap());
    assert!(fs::read(&path).unwrap() == wanted);
    mounted.umount();
    mounted.check();
}

#[test]
fn what_statfs_says_is_free_can_be_written_where_room_is_set_aside() {
    let Some((mounted, _disk)) = sample(300, 19) else { return };
    for name in ["r1", "r2"] {
        mounted.ok(["snap", name, "--reserve"]);
        // The disk beneath still gives its blocks to what was written: `status` is asked between two equal answers.
        let mut said = (0, 0, 1);
        wait_for("the free room to stand still", || {
            let before = available(&mounted);
            let status = mounted.json(&["status"])["available_bytes"].as_u64().unwrap();
            said = (before, status, available(&mounted));
            said.0 == said.2
        });
        let (free, status, _) = said;
        // In whole blocks.
        assert_eq!(status / 4096, free / 4096);
        let written = fs::write(mounted.live().join(name), random_bytes(7, 4096));
        if free > 4 << 20 {
            written.unwrap();
        } else if free == 0 {
            assert_eq!(written.unwrap_err().raw_os_error(), Some(rustix::io::Errno::NOSPC.raw_os_error()));
        }
    }
    // All of it can be written anew, as was promised.
    for seed in 0..19 {
        fill(&mounted.live(), &format!("f{seed}"), 50 + seed).unwrap();
    }
    for seed in 0..19 {
        assert!(fs::read(mounted.snap().join(format!("r2/f{seed}"))).unwrap() == random_bytes(seed, FILE_BYTES));
    }
    mounted.umount();
    mounted.check();
}

#[test]
fn a_clone_can_have_room_set_aside() {
    let Some((mounted, _disk)) = sample(224, 20) else { return };
    mounted.ok(["snap", "s"]);
    mounted.ok(["clone", "--reserve", "s", "c"]);
    assert_eq!(mounted.base_info("c")["reserved_bytes"].as_u64().unwrap(), 20 * FILE_BYTES as u64);
    let said = mounted.fails(1, ["clone", "--reserve", "s", "d"]);
    assert!(said.contains("cannot be set aside") && mounted.base_info("d").is_null(), "{said}");
    let said = mounted.fails(1, ["session", "register", "x", "--reserve"]);
    assert!(said.contains("cannot be set aside"), "{said}");
    // New data gets none of it, nor what is written anew elsewhere and keeps the old.
    let live = mounted.live();
    for seed in 0.. {
        if fill(&live, &format!("more{seed}"), 100 + seed).is_err() {
            break;
        }
    }
    for seed in 0..20 {
        if fs::OpenOptions::new()
            .write(true)
            .open(live.join(format!("f{seed}")))
            .is_ok_and(|mut file| file.write_all(&random_bytes(200 + seed, FILE_BYTES)).is_err())
        {
            break;
        }
        assert!(seed < 19, "all of live was written anew where nothing was free");
    }
    for seed in 0..20 {
        let mut file = fs::OpenOptions::new().write(true).open(mounted.snap().join(format!("c/f{seed}"))).unwrap();
        file.write_all(&random_bytes(300 + seed, FILE_BYTES)).unwrap_or_else(|error| panic!("f{seed}: {error}"));
    }
    mounted.remount();
    for seed in 0..20 {
        assert!(fs::read(mounted.snap().join(format!("c/f{seed}"))).unwrap() == random_bytes(300 + seed, FILE_BYTES));
        assert!(fs::read(mounted.snap().join(format!("s/f{seed}"))).unwrap() == random_bytes(seed, FILE_BYTES));
    }
    mounted.ok(["delete", "c"]);
    wait_for("the room to be free", || mounted.json(&["status"])["reserved_bytes"] == 0);
    mounted.umount();
    mounted.check();
}

#[test]
fn a_session_sets_room_aside_when_it_is_activated() {
    let mounted = Mounted::unmounted();
    mounted.ok(["session", "register", "r", "--reserve"]);
    mounted.ok(["session", "relate", "r"]);
    mounted.ok(["session", "activate", "r"]);
    let list = mounted.json(&["list"]);
    assert_eq!(list[0]["name"], "r");
    assert!(list[0]["reserved_bytes"].is_u64());
}
