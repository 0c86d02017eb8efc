//! What the kernel, and programs through it, hold of a file while it is changed behind their backs. Nothing here closes
//! a descriptor or ends a process in passing: that makes the kernel write out what it holds.

mod mounted;

use mounted::*;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A way to change a tree behind the kernel's back: what it is called, what prepares it when the tree is as it shall
/// become, and what does it.
struct Way {
    name: &'static str,
    keep: fn(&Mounted),
    bring: fn(&Mounted, &str),
}

fn source(mounted: &Mounted) -> PathBuf {
    mounted.dir.path().join("source")
}

fn copied(mounted: &Mounted) {
    let status = Command::new("cp").arg("-a").arg(mounted.live()).arg(source(mounted)).status().unwrap();
    assert!(status.success());
}

/// What the store has no more is brought back from its archive.
fn archived(mounted: &Mounted) {
    let archive = mounted.dir.path().join("archive");
    mounted.ok(["roll", "--archive", archive.to_str().unwrap(), "--name", "then"]);
    mounted.ok(["roll", "--name", "later"]);
    mounted.ok(["delete", "then"]);
}

const WAYS: [Way; 6] = [
    Way { name: "whole", keep: |m| drop(m.ok(["snap", "then"])), bring: |m, _| drop(m.ok(["restore", "then"])) },
    Way {
        name: "path",
        keep: |m| drop(m.ok(["snap", "then"])),
        bring: |m, path| drop(m.ok(["restore", "then", path])),
    },
    Way { name: "sync", keep: copied, bring: |m, _| drop(m.ok([std::ffi::OsStr::new("sync"), source(m).as_os_str()])) },
    Way {
        name: "mirror",
        keep: |m| {
            m.ok(["mirror", "establish", "live", "copy"]);
            m.ok(["mirror", "split", "copy"]);
        },
        bring: |m, _| drop(m.ok(["mirror", "restore", "copy"])),
    },
    Way { name: "archived", keep: archived, bring: |m, _| drop(m.ok(["restore", "then"])) },
    Way { name: "archived path", keep: archived, bring: |m, path| drop(m.ok(["restore", "then", path])) },
];

/// In every mode and way, with a tree and a program that stands in it.
fn each(prepare: impl Fn(&Path), change: impl Fn(&mut Holder, &Way), check: impl Fn(&mut Holder, &Path, &str)) {
    if !can_mount() {
        return;
    }
    for mode in MODES {
        for way in &WAYS {
            let what = format!("{mode:?}, {}", way.name);
            let mounted = Mounted::with_options(mode);
            prepare(&mounted.live());
            (way.keep)(&mounted);
            let Some(mut holder) = Holder::new(&mounted.live()) else { return };
            change(&mut holder, way);
            (way.bring)(&mounted, "f");
            check(&mut holder, &mounted.live(), &what);
            drop(holder);
            mounted.umount();
            mounted.check();
        }
    }
}

#[test]
fn what_is_appended_goes_to_the_end_that_the_file_has_now() {
    for (then, now) in [("0123456789", "xyz"), ("old", "0123456789012345678901234567890123456789"), ("same", "size")] {
        each(
            |live| fs::write(live.join("f"), then).unwrap(),
            |holder, _| {
                holder.run("a = os.open('f', os.O_WRONLY | os.O_APPEND)");
                holder.run(&format!("os.ftruncate(a, 0); os.write(a, b'{now}')"));
            },
            |holder, live, what| {
                holder.run("os.write(a, b'one'); os.write(a, b'two')");
                assert_eq!(holder.says("os.fstat(a).st_size"), (then.len() + 6).to_string(), "{what}");
                holder.run("os.fsync(a)");
                assert_eq!(fs::read_to_string(live.join("f")).unwrap(), format!("{then}onetwo"), "{what}");
            },
        );
    }
}

#[test]
fn what_a_mapping_had_stored_does_not_come_back() {
    each(
        |live| {
            fs::write(live.join("f"), vec![b'A'; 200_000]).unwrap();
            // Nothing but the mapping changes this one.
            fs::write(live.join("g"), vec![b'A'; 200_000]).unwrap();
        },
        |holder, _| {
            holder.run("f = os.open('f', os.O_RDWR); os.write(f, b'B' * 150000)");
            holder.run("g = os.open('g', os.O_RDWR)");
            holder.run("m = mmap.mmap(f, 200000); n = mmap.mmap(g, 200000)");
            holder.run("m[70000:70004] = b'DIRT'; m[199000:199004] = b'DIRT'; n[70000:70004] = b'DIRT'");
        },
        |holder, live, what| {
            let is_path = what.ends_with("path");
            assert_eq!(holder.says("m[70000:70004] + m[0:4] + m[199000:199004]"), "b'AAAAAAAAAAAA'", "{what}");
            holder.run("m.flush(); os.fsync(f)");
            assert_eq!(fs::read(live.join("f")).unwrap(), vec![b'A'; 200_000], "{what}");
            let other = if is_path { "b'DIRT'" } else { "b'AAAA'" };
            assert_eq!(holder.says("n[70000:70004]"), other, "{what}: only what is asked for");
            // What is stored from now on is in the file.
            holder.run("m[10:13] = b'new'; m.flush(); n.flush(); os.fsync(f); os.fsync(g)");
            assert_eq!(fs::read(live.join("f")).unwrap()[9..14], *b"AnewA", "{what}");
            if !is_path {
                assert_eq!(fs::read(live.join("g")).unwrap(), vec![b'A'; 200_000], "{what}");
            }
        },
    );
}

#[test]
fn what_a_mapping_had_stored_is_kept_before_it_goes() {
    if !can_mount() {
        return;
    }
    for mode in MODES {
        let mounted = Mounted::with_options(mode);
        fs::write(mounted.live().join("f"), vec![b'A'; 10_000]).unwrap();
        mounted.ok(["snap", "then"]);
        let Some(mut holder) = Holder::new(&mounted.live()) else { return };
        holder.run("f = os.open('f', os.O_RDWR); m = mmap.mmap(f, 10000); m[5000:5004] = b'DIRT'");
        mounted.ok(["restore", "then"]);
        let before = fs::read_dir(mounted.snap()).unwrap().map(|entry| entry.unwrap().path());
        let before = before.into_iter().find(|path| path.to_str().unwrap().contains("before-restore")).unwrap();
        assert_eq!(fs::read(before.join("f")).unwrap()[5000..5004], *b"DIRT", "{mode:?}");
        assert_eq!(fs::read(mounted.live().join("f")).unwrap(), vec![b'A'; 10_000], "{mode:?}");
    }
}

#[test]
fn an_open_file_has_the_size_and_the_times_that_it_had() {
    for (then, now) in [(100_000usize, 10usize), (10, 50_000)] {
        each(
            |live| {
                fs::write(live.join("f"), vec![b'A'; then]).unwrap();
                set_time(&live.join("f"), 1_000_000_000);
            },
            |holder, _| {
                holder.run("w = os.open('f', os.O_RDWR); r = os.open('f', os.O_RDONLY)");
                holder.run(&format!("os.ftruncate(w, 0); os.write(w, b'B' * {now}); os.fsync(w)"));
                holder.run("m = mmap.mmap(r, 0, prot=mmap.PROT_READ); m[0]");
                holder.run("os.lseek(r, 5, 0); fcntl.flock(r, fcntl.LOCK_EX)");
            },
            |holder, live, what| {
                assert_eq!(holder.says("os.fstat(r).st_size"), then.to_string(), "{what}");
                // A path that is given is likened, times and all; a sync gives the times of its source.
                assert_eq!(holder.says("int(os.fstat(r).st_mtime)"), "1000000000", "{what}");
                assert_eq!(holder.says("os.lseek(r, 0, 1)"), "5", "{what}: the position is the program's");
                // What goes by the size that the kernel has, without asking.
                holder.run("p, q = os.pipe(); t = os.open('/tmp', os.O_TMPFILE | os.O_RDWR)");
                let expected = then.min(20_000);
                assert_eq!(holder.says("os.splice(r, q, 20000, offset_src=0)"), expected.to_string(), "{what}");
                assert_eq!(holder.says("os.sendfile(t, r, 0, 200000)"), then.to_string(), "{what}");
                assert_eq!(holder.says("os.pread(r, 200000, 0) == b'A' * os.fstat(r).st_size"), "True", "{what}");
                holder.run("c = os.open('copy', os.O_RDWR | os.O_CREAT)");
                assert_eq!(holder.says("os.copy_file_range(r, c, 200000, 0)"), then.to_string(), "{what}");
                assert_eq!(holder.says("os.lseek(r, 0, os.SEEK_HOLE)"), then.to_string(), "{what}");
                assert_eq!(holder.says("os.lseek(r, 0, os.SEEK_END)"), then.to_string(), "{what}");
                holder.run("n = mmap.mmap(w, 0); x = n[len(n) - 1]");
                assert_eq!(holder.says("len(n)"), then.to_string(), "{what}");
                let other = fs::File::open(live.join("f")).unwrap();
                let lock = rustix::fs::flock(&other, rustix::fs::FlockOperation::NonBlockingLockExclusive);
                assert!(lock.is_err(), "{what}: the lock is still held");
                let found = fs::metadata(live.join("f")).unwrap();
                assert_eq!((found.size(), found.mtime()), (then as u64, 1_000_000_000), "{what}");
            },
        );
    }
}

/// A program that appends lines until it is killed. None of them is on two pages, which the kernel could pass on one by one.
const APPENDER: &str = r#"
import os, sys
f = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
for n in range(10 ** 9):
    os.write(f, b'line %010d\n' % n)
"#;

#[test]
fn a_program_that_appends_all_the_time_leaves_no_hole_and_no_half_line() {
    if !can_mount() {
        return;
    }
    for mode in MODES {
        let mounted = Mounted::with_options(mode);
        let log = mounted.live().join("log");
        let old = "old line 000000\n".repeat(200);
        fs::write(&log, &old).unwrap();
        mounted.ok(["snap", "then"]);
        let Some(child) = Running::python(APPENDER, &[&log]) else { return };
        for i in 0..12 {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(60) {
                std::thread::sleep(Duration::from_millis(5));
            }
            mounted.ok(if i % 2 == 0 { vec!["restore", "then"] } else { vec!["restore", "then", "log"] });
            let text = fs::read(&log).unwrap();
            assert!(text.starts_with(old.as_bytes()), "{mode:?}, {i}: what was restored is there");
            let rest = String::from_utf8_lossy(&text[old.len()..]).into_owned();
            for line in rest.lines().rev().skip(1) {
                let is_whole = line.len() == 15 && line.starts_with("line ");
                assert!(is_whole, "{mode:?}, {i}: {:?}", &line[..line.len().min(60)]);
            }
        }
        drop(child);
        mounted.umount();
        mounted.check();
    }
}

#[test]
fn what_is_mounted_on_a_directory_that_did_not_change_stays() {
    if !can_mount() || !is_root() {
        return;
    }
    for way in &WAYS {
        for mode in MODES {
            let mounted = Mounted::with_options(mode);
            let what = format!("{mode:?}, {}", way.name);
            let (live, other) = (mounted.live(), mounted.dir.path().join("other"));
            fs::create_dir(&other).unwrap();
            fs::write(other.join("inside"), "there").unwrap();
            fs::create_dir_all(live.join("f/data/deep")).unwrap();
            fs::create_dir_all(live.join("f/moved/data")).unwrap();
            fs::write(live.join("f/file"), "one").unwrap();
            (way.keep)(&mounted);
            let bind = Bind::new(&other, &live.join("f/data"));
            fs::write(live.join("f/file"), "two").unwrap();
            fs::write(live.join("f/later"), "two").unwrap();
            assert!(!live.join("f/gone").exists());
            if way.name == "sync" {
                // What is mounted there is no part of the tree that is made equal.
                fs::remove_dir_all(source(&mounted).join("f/moved")).unwrap();
            }
            (way.bring)(&mounted, "f");
            assert!(bind.is_there(), "{what}");
            assert_eq!(fs::read_to_string(live.join("f/file")).unwrap(), "one", "{what}");
            assert!(!live.join("f/later").exists(), "{what}");
            drop(bind);
        }
    }
}

#[test]
fn a_directory_that_comes_back_to_its_name_takes_along_what_is_mounted_inside() {
    if !can_mount() || !is_root() {
        return;
    }
    for way in &WAYS[..2] {
        let mounted = Mounted::new();
        let (live, other) = (mounted.live(), mounted.dir.path().join("other"));
        fs::create_dir(&other).unwrap();
        fs::write(other.join("inside"), "there").unwrap();
        fs::create_dir_all(live.join("f/a/data")).unwrap();
        (way.keep)(&mounted);
        fs::rename(live.join("f/a"), live.join("f/b")).unwrap();
        let _bind = Bind::new(&other, &live.join("f/b/data"));
        (way.bring)(&mounted, "f");
        let bind = Bind(live.join("f/a/data"));
        assert!(bind.is_there(), "{}", way.name);
        assert!(!live.join("f/b").exists(), "{}", way.name);
    }
}

#[test]
fn large_directories_are_looked_up_again_and_mounts_stay() {
    if !can_mount() || !is_root() {
        return;
    }
    let mounted = Mounted::new();
    let (live, other) = (mounted.live(), mounted.dir.path().join("other"));
    fs::create_dir(&other).unwrap();
    fs::write(other.join("inside"), "there").unwrap();
    fs::create_dir_all(live.join("data")).unwrap();
    (0..10_100).for_each(|i| drop(fs::File::create(live.join(format!("f{i}"))).unwrap()));
    mounted.ok(["snap", "then"]);
    for is_mounted in [true, false] {
        let bind = is_mounted.then(|| Bind::new(&other, &live.join("data")));
        fs::remove_file(live.join("f77")).unwrap();
        fs::write(live.join("later"), "new").unwrap();
        assert!(!live.join("f77").exists());
        mounted.ok(["restore", "then"]);
        assert!(bind.is_none_or(|bind| bind.is_there()));
        assert!(live.join("f77").exists() && !live.join("later").exists());
        assert_eq!(fs::read_dir(&live).unwrap().count(), 10_101);
    }
}

#[test]
fn what_is_mounted_in_a_snapshot_or_clone_stays_when_it_gets_another_name() {
    if !can_mount() || !is_root() {
        return;
    }
    for is_one in [true, false] {
        let mounted = Mounted::unmounted();
        if !is_one {
            mounted.ok(["base", "create", "other base"]);
        }
        mounted.mount(&[]);
        let top = if is_one { mounted.snap() } else { mounted.snap().join("live") };
        let other = mounted.dir.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("inside"), "there").unwrap();
        fs::create_dir(top.join("live/data")).unwrap();
        mounted.ok(["snap", "snapshot"]);
        mounted.ok(["clone", "snapshot", "clone"]);
        for name in ["snapshot", "clone"] {
            let new = format!("{name} 2");
            // The kernel remembers that there is nothing.
            assert!(!top.join(&new).exists());
            let _bind = Bind::new(&other, &top.join(name).join("data"));
            mounted.ok(["rename", name, &new]);
            // The old name comes first: it must not matter.
            assert!(!top.join(name).exists());
            assert!(Bind(top.join(&new).join("data")).is_there(), "{name}, one base: {is_one}");
        }
    }
}

#[test]
fn asking_from_beside_holds_nothing_and_shows_nothing() {
    if !can_mount() {
        return;
    }
    for mode in MODES {
        let mounted = Mounted::with_options(mode);
        let file = mounted.live().join("f");
        fs::write(&file, random_bytes(1, 1_000_000)).unwrap();
        mounted.ok(["snap", "then"]);
        fs::write(&file, "short").unwrap();
        mounted.ok(["restore", "then"]);
        let number = fs::metadata(&file).unwrap().ino();
        for name in [format!(".pitfs-beside-{number:016x}"), ".pitfs-beside-0000000000000001".into()] {
            assert!(!mounted.snap().join(name).exists(), "{mode:?}");
        }
        fs::remove_file(&file).unwrap();
        let names = mounted.json(&["list"]);
        for snapshot in names.as_array().unwrap() {
            mounted.ok(["delete", snapshot["name"].as_str().unwrap()]);
        }
        let used = || mounted.json(&["status"])["live_bytes"].as_u64().unwrap();
        wait_for("the room of a file that was removed", || used() < 100_000);
    }
}
