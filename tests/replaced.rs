//! Trees that become, as a whole, what another tree or snapshot is: clones, mirrors, groups. What programs hold of
//! them is held as in `held.rs`: nothing here closes a descriptor in passing.

mod mounted;

use mounted::*;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Makes a tree what it shall be.
type Make<'a> = &'a dyn Fn(&Path);

/// A command that lets trees become something else.
struct Way {
    name: &'static str,
    /// Prepares a store with trees, these, that are as the first says, and of which `bring` makes what the second says.
    prepare: fn(&Mounted, Make, Make) -> Vec<PathBuf>,
    /// Leads to where programs hold something, from where they could open it.
    hold: fn(&Mounted, Make),
    bring: fn(&Mounted),
    /// Whether the trees can be written to before.
    is_open_before: bool,
    is_written_before: bool,
    /// And after.
    is_written_after: bool,
}

const NOTHING: fn(&Mounted, Make) = |_, _| ();

fn live(mounted: &Mounted) -> PathBuf {
    mounted.snap().join("live/live")
}

fn copy(mounted: &Mounted) -> PathBuf {
    mounted.snap().join("copy/live")
}

/// A mirror that is split, and what its base is by then.
fn split(mounted: &Mounted, now: Make, then: Make) -> Vec<PathBuf> {
    then(&live(mounted));
    mounted.ok(["mirror", "establish", "live", "copy"]);
    mounted.ok(["mirror", "split", "copy"]);
    now(&copy(mounted));
    vec![copy(mounted)]
}

fn in_step(mounted: &Mounted, now: Make, then: Make) -> Vec<PathBuf> {
    now(&live(mounted));
    mounted.ok(["mirror", "establish", "live", "copy"]);
    then(&live(mounted));
    vec![copy(mounted)]
}

const WAYS: [Way; 7] = [
    Way {
        name: "clone --refresh",
        prepare: |m, now, then| {
            now(&live(m));
            m.ok(["snap", "now"]);
            m.ok(["clone", "now", "clone"]);
            then(&live(m));
            m.ok(["snap", "then"]);
            vec![m.snap().join("live/clone")]
        },
        hold: NOTHING,
        bring: |m| drop(m.ok(["clone", "--refresh", "clone", "then"])),
        is_open_before: true,
        is_written_before: false,
        is_written_after: true,
    },
    Way {
        name: "mirror sync",
        prepare: in_step,
        hold: NOTHING,
        bring: |m| drop(m.ok(["mirror", "sync", "copy"])),
        is_open_before: false,
        is_written_before: false,
        is_written_after: false,
    },
    Way {
        name: "mirror split",
        prepare: in_step,
        hold: NOTHING,
        bring: |m| drop(m.ok(["mirror", "split", "copy"])),
        is_open_before: false,
        is_written_before: false,
        is_written_after: true,
    },
    Way {
        name: "mirror split again",
        prepare: |m, now, _| {
            now(&live(m));
            m.ok(["mirror", "establish", "live", "copy"]);
            m.ok(["mirror", "split", "copy"]);
            vec![copy(m)]
        },
        // What was opened while it was split, and is in step in between.
        hold: |m, then| {
            m.ok(["mirror", "resync", "copy"]);
            then(&live(m));
        },
        bring: |m| drop(m.ok(["mirror", "split", "copy"])),
        is_open_before: true,
        is_written_before: true,
        is_written_after: true,
    },
    Way {
        name: "mirror resync",
        prepare: split,
        hold: NOTHING,
        bring: |m| drop(m.ok(["mirror", "resync", "copy"])),
        is_open_before: true,
        is_written_before: true,
        is_written_after: false,
    },
    Way {
        name: "restore --to-mirror",
        prepare: |m, now, then| {
            then(&live(m));
            m.ok(["snap", "then"]);
            m.ok(["mirror", "establish", "live", "copy"]);
            m.ok(["mirror", "split", "copy"]);
            now(&live(m));
            now(&copy(m));
            vec![copy(m)]
        },
        hold: NOTHING,
        bring: |m| drop(m.ok(["restore", "then", "--to-mirror", "copy"])),
        is_open_before: true,
        is_written_before: true,
        is_written_after: true,
    },
    Way {
        name: "restore --group",
        prepare: |m, now, then| {
            let trees = vec![live(m), m.snap().join("other/live")];
            trees.iter().for_each(|tree| then(tree));
            m.ok(["group", "create", "g", "live", "other"]);
            m.ok(["snap", "--group", "g", "then"]);
            trees.iter().for_each(|tree| now(tree));
            trees
        },
        hold: NOTHING,
        bring: |m| drop(m.ok(["restore", "--group", "g", "then"])),
        is_open_before: true,
        is_written_before: true,
        is_written_after: true,
    },
];

/// In every mode and way that is `wanted`, with a program in each tree that changes.
fn each(
    wanted: impl Fn(&Way) -> bool,
    (now, then): (Make, Make),
    open: impl Fn(&mut Holder, &Way),
    check: impl Fn(&mut Holder, &Path, &Way, &str),
) {
    if !can_mount() {
        return;
    }
    for mode in MODES {
        for way in WAYS.iter().filter(|way| wanted(way)) {
            let what = format!("{mode:?}, {}", way.name);
            let mounted = two_bases(mode);
            let trees = (way.prepare)(&mounted, now, then);
            let Some(mut holders) = trees.iter().map(|tree| Holder::new(tree)).collect::<Option<Vec<_>>>() else {
                return;
            };
            holders.iter_mut().for_each(|holder| open(holder, way));
            (way.hold)(&mounted, then);
            (way.bring)(&mounted);
            holders.iter_mut().zip(&trees).for_each(|(holder, tree)| check(holder, tree, way, &what));
            drop(holders);
            mounted.umount();
            mounted.check();
        }
    }
}

/// A store in whose mount every base has its directory.
fn two_bases(mode: &[&str]) -> Mounted {
    let mounted = Mounted::unmounted();
    mounted.ok(["base", "create", "other"]);
    mounted.mount(mode);
    mounted
}

const MIB: u64 = 1 << 20;

/// A file with 64 KiB of data at an offset, and holes otherwise.
fn sparse(path: &Path, at: u64) {
    let file = fs::File::create(path).unwrap();
    file.write_all_at(&[b'S'; 65536], at).unwrap();
    file.set_len(4 * MIB).unwrap();
}

fn small(tree: &Path) {
    fs::write(tree.join("f"), "now").unwrap();
    fs::write(tree.join("same size"), vec![b'N'; 100_000]).unwrap();
    sparse(&tree.join("sparse"), 3 * MIB);
    fs::write(tree.join("goes"), "now").unwrap();
    let _there_was_none = fs::remove_file(tree.join("comes"));
    set_time(&tree.join("f"), 1_500_000_000);
}

fn large(tree: &Path) {
    fs::write(tree.join("f"), vec![b'T'; 70_000]).unwrap();
    fs::write(tree.join("same size"), vec![b'T'; 100_000]).unwrap();
    sparse(&tree.join("sparse"), MIB);
    let _there_was_none = fs::remove_file(tree.join("goes"));
    fs::write(tree.join("comes"), "then").unwrap();
    set_time(&tree.join("f"), 1_000_000_000);
}

#[test]
fn what_is_open_shows_what_the_tree_has_become() {
    let states: [(Make, Make, &str, u64); 2] = [(&small, &large, "T", MIB), (&large, &small, "N", 3 * MIB)];
    for (now, then, byte, data) in states {
        each(
            |_| true,
            (now, then),
            |holder, _| {
                holder.ok("r = os.open('f', os.O_RDONLY); s = os.open('same size', os.O_RDONLY)");
                holder.ok("h = os.open('sparse', os.O_RDONLY)");
                holder.ok("m = mmap.mmap(s, 0, prot=mmap.PROT_READ); n = mmap.mmap(h, 0, prot=mmap.PROT_READ)");
                holder.ok("out = len(os.read(r, 2)) + len(m[:]) + os.fstat(r).st_size; n[:]; out = None");
                holder.ok("os.lseek(h, 0, os.SEEK_DATA); os.listdir('.'); os.path.exists('comes')");
                holder.ok("fcntl.flock(s, fcntl.LOCK_EX)");
            },
            |holder, tree, _, what| {
                let of = |name: &str| fs::metadata(tree.join(name)).unwrap();
                let (size, seconds) = (of("f").size(), of("f").mtime());
                let is_large = byte == "T";
                assert_eq!(
                    (size, seconds),
                    if is_large { (70_000, 1_000_000_000) } else { (3, 1_500_000_000) },
                    "{what}"
                );
                assert_eq!(holder.says("os.fstat(r).st_size"), size.to_string(), "{what}");
                assert_eq!(holder.says("int(os.fstat(r).st_mtime)"), seconds.to_string(), "{what}");
                assert_eq!(holder.says("os.lseek(r, 0, 1)"), "2", "{what}");
                holder.ok("t = os.open('/tmp', os.O_TMPFILE | os.O_RDWR)");
                assert_eq!(holder.says("os.sendfile(t, r, 0, 200000)"), size.to_string(), "{what}");
                let content = if is_large { "b'T' * 70000" } else { "b'now'" };
                assert_eq!(holder.says(&format!("os.pread(r, 200000, 0) == {content}")), "True", "{what}");
                assert_eq!(holder.says(&format!("m[:] == b'{byte}' * 100000")), "True", "{what}");
                assert_eq!(holder.says(&format!("os.pread(s, 100000, 0) == b'{byte}' * 100000")), "True", "{what}");
                let data = (data, data + 65536);
                for call in ["os.lseek(h, 0, os.SEEK_DATA)", "n[:].index(b'S')"] {
                    assert_eq!(holder.says(call), data.0.to_string(), "{what}: {call}");
                }
                for call in [&format!("os.lseek(h, {}, os.SEEK_HOLE)", data.0), "n[:].rindex(b'S') + 1"] {
                    assert_eq!(holder.says(call), data.1.to_string(), "{what}: {call}");
                }
                let there =
                    if is_large { "'comes', 'f', 'same size', 'sparse'" } else { "'f', 'goes', 'same size', 'sparse'" };
                assert_eq!(holder.says("sorted(os.listdir('.'))"), format!("[{there}]"), "{what}");
                let is_there = if is_large { "(True, False)" } else { "(False, True)" };
                assert_eq!(holder.says("(os.path.exists('comes'), os.path.exists('goes'))"), is_there, "{what}");
                let other = fs::File::open(tree.join("same size")).unwrap();
                let lock = rustix::fs::flock(&other, rustix::fs::FlockOperation::NonBlockingLockExclusive);
                assert!(lock.is_err(), "{what}: the lock is still held");
            },
        );
    }
}

#[test]
fn what_is_appended_goes_to_the_end_that_the_tree_has_become() {
    let states: [(Make, Make, u64); 2] = [(&small, &large, 70_000), (&large, &small, 3)];
    for (now, then, end) in states {
        each(
            |way| way.is_open_before && way.is_written_after,
            (now, then),
            |holder, way| {
                holder.ok("a = os.open('f', os.O_RDWR | os.O_APPEND)");
                if way.is_written_before {
                    holder.ok("os.write(a, b'more'); out = None");
                }
            },
            |holder, tree, _, what| {
                assert_eq!(holder.says("os.write(a, b'one') + os.write(a, b'two')"), "6", "{what}");
                assert_eq!(holder.says("os.fstat(a).st_size"), (end + 6).to_string(), "{what}");
                holder.ok("os.fsync(a)");
                let found = fs::read(tree.join("f")).unwrap();
                assert_eq!(found[end as usize..], *b"onetwo", "{what}");
                assert!(found[..end as usize] == if end == 3 { b"now".to_vec() } else { vec![b'T'; 70_000] }, "{what}");
            },
        );
    }
}

/// Appends as soon as the daemon, asked without the kernel's cache, says that the file has become another one.
const AT_ONCE: &str = r#"
import mmap, os, sys
a = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
d = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
page = mmap.mmap(-1, 4096)
os.preadv(d, [page], 0)
first = page[0]
os.fstat(a)
open(sys.argv[2], 'w').close()
while page[0] == first:
    os.preadv(d, [page], 0)
os.write(a, b'appended')
os.rename(sys.argv[2], sys.argv[2] + '.over')
"#;

#[test]
fn what_is_appended_before_the_kernel_was_told_leaves_no_hole() {
    if !can_mount() {
        return;
    }
    let states: [(Make, Make, &[u8]); 2] = [(&small, &large, &[b'T'; 70_000]), (&large, &small, b"now")];
    for mode in MODES {
        for way in WAYS.iter().filter(|way| way.is_open_before && way.is_written_after) {
            for (now, then, expected) in states {
                let what = format!("{mode:?}, {}", way.name);
                let mounted = two_bases(mode);
                let trees = (way.prepare)(&mounted, now, then);
                let said = mounted.dir.path().join("said");
                let Some(running) = Running::python(AT_ONCE, &[&trees[0].join("f"), &said]) else { return };
                wait_for("the program", || said.exists());
                (way.hold)(&mounted, then);
                (way.bring)(&mounted);
                wait_for("what is appended", || !said.exists());
                let found = fs::read(trees[0].join("f")).unwrap();
                assert!(found.starts_with(expected), "{what}: written over what the tree has become");
                let rest = &found[expected.len()..];
                assert!(rest.is_empty() || rest == b"appended", "{what}: {} more: {rest:?}", rest.len());
                drop(running);
                mounted.umount();
                mounted.check();
            }
        }
    }
}

#[test]
fn what_mappings_and_writes_had_stored_does_not_come_back() {
    each(
        |way| way.is_written_before,
        (&small, &large),
        |holder, _| {
            holder.ok("f = os.open('f', os.O_RDWR); s = os.open('same size', os.O_RDWR)");
            holder.ok("os.ftruncate(f, 90000); os.pwrite(f, b'W' * 50000, 40000); out = None");
            holder.ok("m = mmap.mmap(f, 90000); n = mmap.mmap(s, 100000)");
            holder.ok("m[20:24] = b'DIRT'; m[60000:60004] = b'DIRT'; n[50000:50004] = b'DIRT'");
        },
        |holder, tree, way, what| {
            assert_eq!(holder.says("m[20:24] + m[60000:60004] + n[50000:50004]"), "b'TTTTTTTTTTTT'", "{what}");
            holder.ok("m.flush(); n.flush(); os.fsync(f); os.fsync(s)");
            assert!(fs::read(tree.join("f")).unwrap() == vec![b'T'; 70_000], "{what}");
            assert!(fs::read(tree.join("same size")).unwrap() == vec![b'T'; 100_000], "{what}");
            if way.is_written_after {
                holder.ok("m[10:13] = b'new'; n[10:13] = b'new'; m.flush(); n.flush()");
                for name in ["f", "same size"] {
                    assert_eq!(fs::read(tree.join(name)).unwrap()[9..14], *b"TnewT", "{what}");
                }
            }
        },
    );
}

#[test]
fn what_is_stored_in_a_clone_keeps_it_from_being_moved() {
    if !can_mount() {
        return;
    }
    let way = &WAYS[0];
    for mode in MODES {
        let mounted = two_bases(mode);
        let clone = &(way.prepare)(&mounted, &small, &large)[0];
        let Some(mut holder) = Holder::new(clone) else { return };
        holder.ok("f = os.open('same size', os.O_RDWR); m = mmap.mmap(f, 0); m[5:9] = b'KEEP'");
        let said = mounted.fails(1, ["clone", "--refresh", "clone", "then"]);
        assert!(said.contains("it was written to"), "{mode:?}: {said}");
        assert_eq!(holder.says("m[4:10]"), "b'NKEEPN'", "{mode:?}");
        assert_eq!(fs::read(clone.join("same size")).unwrap()[4..10], *b"NKEEPN", "{mode:?}");
    }
}

/// A mirror that was split is in step, of which a program has files open for writing from before.
fn closed(bring: &str, check: impl Fn(&Mounted, &mut Holder, &str)) {
    if !can_mount() {
        return;
    }
    for mode in MODES {
        let what = format!("{mode:?}, mirror {bring}");
        let mounted = two_bases(mode);
        split(&mounted, &small, &large);
        let Some(mut holder) = Holder::new(&copy(&mounted)) else { return };
        holder.ok("f = os.open('f', os.O_RDWR | os.O_APPEND); s = os.open('same size', os.O_RDWR)");
        holder.ok("m = mmap.mmap(s, 0); m[5:9] = b'KEEP'");
        mounted.ok(["mirror", bring, "copy"]);
        check(&mounted, &mut holder, &what);
        drop(holder);
        mounted.umount();
        mounted.check();
    }
}

#[test]
fn what_a_mapping_of_a_mirror_had_stored_goes_to_its_base_with_it() {
    closed("restore", |mounted, holder, what| {
        for tree in [live(mounted), copy(mounted)] {
            assert_eq!(fs::read(tree.join("same size")).unwrap()[4..10], *b"NKEEPN", "{what}: {}", tree.display());
            assert_eq!(read(&tree.join("f")), "now", "{what}");
        }
        assert_eq!(holder.says("m[4:10]"), "b'NKEEPN'", "{what}");
        assert_eq!(holder.run("m.flush()"), "None", "{what}: nothing of it is left");
    });
}

#[test]
fn a_mirror_in_step_is_written_to_by_nobody_who_could_before() {
    for bring in ["restore", "resync"] {
        closed(bring, |mounted, holder, what| {
            let same = |which: &str| {
                for name in ["f", "same size"] {
                    let (a, b) = (live(mounted).join(name), copy(mounted).join(name));
                    wait_for(&format!("{what}: {which}"), || fs::read(&a).unwrap() == fs::read(&b).unwrap());
                    assert_eq!(fs::metadata(&a).unwrap().size(), fs::metadata(&b).unwrap().size(), "{what}");
                }
            };
            let size = fs::metadata(copy(mounted).join("f")).unwrap().size().to_string();
            // With the writeback cache the kernel takes it, and says so at the next fsync(2).
            assert!(holder.run("os.write(f, b'no'); os.fsync(f)") == "EROFS", "{what}");
            same("what is not written to be forgotten");
            wait_for("the size that it has", || holder.says("os.fstat(f).st_size") == size);
            holder.ok("m[50000:50002] = b'no'");
            assert_eq!(holder.run("m.flush()"), "EROFS", "{what}");
            same("what is not stored to be forgotten");
            for call in ["os.ftruncate(f, 0)", "os.utime(f)", "os.fchmod(f, 0o600)", "os.open('new', os.O_CREAT)"] {
                assert_eq!(holder.run(call), "EROFS", "{what}: {call}");
            }
            same("nothing");
        });
    }
}
