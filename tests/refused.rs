//! What commands say when what they work on is gone, not there yet, or has no room.

mod mounted;

use mounted::*;
use pitfs::control::{Answer, Base, BaseInfo, CloneRequest, Keep, PROTOCOL, Request, Session, Snap, Verb, serve};
use pitfs::daemon::{Daemon, OnProgress};
use pitfs::error::{Errno, Error, Result};
use pitfs::view::CloneOptions;
use serde_bytes::ByteBuf;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

fn bytes(text: &str) -> ByteBuf {
    ByteBuf::from(text.as_bytes().to_vec())
}

fn ask(daemon: &Daemon, base: Option<&str>, verb: Verb, progress: OnProgress<'_>) -> Result<Answer> {
    serve(daemon, Request { protocol: PROTOCOL, base: base.map(bytes), verb, stream: None }, 0, progress)
}

fn clone_of(snapshot: &str, name: &str) -> Verb {
    Verb::Clone(CloneRequest {
        snapshot: bytes(snapshot),
        name: bytes(name),
        group: None,
        full: false,
        copy: false,
        offline: false,
        reserve: false,
    })
}

fn bases(daemon: &Daemon) -> Vec<BaseInfo> {
    match ask(daemon, None, Verb::Base(Base::List), &mut |_| Ok(())).unwrap() {
        Answer::Bases(all) => all,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_refused(result: Result<Answer>, errno: Errno, says: &str) {
    match result {
        Err(Error::Refused(found, text)) if found == errno && text.contains(says) => {}
        other => panic!("{says:?} was expected: {other:?}"),
    }
}

/// A store, not mounted, with a base `other` whose snapshot `old` only its archive has.
fn with_archived() -> (Mounted, Daemon) {
    let mounted = Mounted::unmounted();
    mounted.ok(["base", "create", "other"]);
    let source = mounted.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    for i in 0..20 {
        fs::write(source.join(format!("f{i}")), random_bytes(i, 10_000)).unwrap();
    }
    mounted.ok_of("other", &["sync", source.to_str().unwrap()]);
    mounted.ok_of("other", &["snap", "old"]);
    fs::write(source.join("f0"), "new").unwrap();
    mounted.ok_of("other", &["sync", source.to_str().unwrap()]);
    let archive = mounted.dir.path().join("archive");
    mounted.ok_of("other", &["roll", "--archive", archive.to_str().unwrap(), "--keep", "1", "--name", "new"]);
    let daemon = Daemon::open(&mounted.store()).unwrap();
    (mounted, daemon)
}

#[test]
fn a_base_that_is_being_filled_is_nobody_elses() {
    let (mounted, daemon) = with_archived();
    let mut asked = 0;
    ask(&daemon, None, clone_of("other:old", "c"), &mut |_| {
        asked += 1;
        let filling: Vec<String> = bases(&daemon).into_iter().filter(|base| base.filling).map(|b| b.name).collect();
        assert_eq!(filling, ["c"]);
        let others = [
            (None, Verb::Delete { names: vec![bytes("c")], group: None, recursive: true }),
            (None, Verb::Base(Base::Delete { name: bytes("c"), recursive: true })),
            (None, Verb::Base(Base::Rename { old: bytes("c"), new: bytes("d") })),
            (None, Verb::Promote { name: bytes("c") }),
            (None, Verb::Refresh { name: bytes("c"), snapshot: bytes("other:old") }),
            (None, Verb::Session(Session::Show { name: bytes("c"), shown: true })),
            (None, Verb::Diff { before: bytes("c"), after: bytes("c") }),
            (Some("c"), Verb::List { all: false }),
        ];
        for (base, verb) in others {
            let what = format!("{verb:?}");
            let result = ask(&daemon, base, verb, &mut |_| Ok(()));
            assert!(
                matches!(&result, Err(Error::Refused(Errno::BUSY, text)) if text.contains("is being filled")),
                "{what}: {result:?}"
            );
        }
        Ok(())
    })
    .unwrap();
    assert!(asked > 1, "nobody asked while it was filled");
    assert!(bases(&daemon).iter().all(|base| !base.filling));
    ask(&daemon, None, Verb::Delete { names: vec![bytes("c")], group: None, recursive: false }, &mut |_| Ok(()))
        .unwrap();
    drop(daemon);
    mounted.check();
}

#[test]
fn a_base_that_was_deleted_while_it_was_to_be_filled_keeps_no_store_from_being_opened() {
    let (mounted, daemon) = with_archived();
    let views = daemon.views();
    let other = views.of(views.bases().named(b"other").unwrap());
    let old = other.expect(b"old").unwrap();
    let is_noted = |daemon: &Daemon| !daemon.views().bases().unfinished_fillings().unwrap().is_empty();
    for (name, is_deleted) in [("gone", true), ("unfinished", false)] {
        let options = CloneOptions { is_shown_beside: true, ..CloneOptions::default() };
        let base = views.bases().begin_filling(&old, name.as_bytes(), options).unwrap();
        // Nobody ever meets it as one that is whole.
        assert!(is_noted(&daemon) && bases(&daemon).iter().all(|base| !base.filling || base.offline));
        if is_deleted {
            views.tree().device().removal().hide_base(base, |_| ()).unwrap();
        }
    }
    drop(other);
    drop(daemon);
    let daemon = Daemon::open(&mounted.store()).unwrap();
    assert!(!is_noted(&daemon) && bases(&daemon).iter().all(|base| base.name != "gone" && base.name != "unfinished"));
    drop(daemon);
    mounted.check();
}

#[test]
fn what_looks_at_all_bases_leaves_out_those_that_go_meanwhile() {
    let (mounted, daemon) = with_archived();
    let stop = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..60 {
                let name = format!("b{i}");
                let create = Base::Create {
                    name: bytes(&name),
                    snapshot: Some(bytes("other:new")),
                    uid: 0,
                    gid: 0,
                    copy: false,
                    offline: false,
                    reserve: false,
                };
                ask(&daemon, None, Verb::Base(create), &mut |_| Ok(())).unwrap();
                ask(&daemon, Some(&name), Verb::Snap(Snap { save: true, ..Snap::default() }), &mut |_| Ok(())).unwrap();
                let delete = Base::Delete { name: bytes(&name), recursive: true };
                ask(&daemon, None, Verb::Base(delete), &mut |_| Ok(())).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        });
        let mut asked = 0;
        while !stop.load(Ordering::Relaxed) {
            let policy = Verb::Policy { drop_oldest: None, before_restores: Some(Keep::Newest(3)) };
            for verb in [Verb::List { all: true }, Verb::Status, Verb::Base(Base::List), Verb::Check, policy] {
                let what = format!("{verb:?}");
                ask(&daemon, None, verb, &mut |_| Ok(())).unwrap_or_else(|error| panic!("{what}: {error}"));
                asked += 1;
            }
        }
        asked
    });
    assert!(asked > 20, "hardly anything was asked: {asked}");
    drop(daemon);
    mounted.check();
}

#[test]
fn what_was_removed_meanwhile_is_said_to_be() {
    let (mounted, daemon) = with_archived();
    let result = ask(&daemon, None, clone_of("other:old", "c"), &mut |progress| {
        let delete = Verb::Base(Base::Delete { name: bytes("other"), recursive: true });
        if progress.files == 3 {
            ask(&daemon, None, delete, &mut |_| Ok(()))?;
        }
        Ok(())
    });
    assert_refused(result, Errno::STALE, "another command removed it meanwhile");
    assert_eq!(bases(&daemon).len(), 1, "what was not filled is gone as well");
    drop(daemon);
    mounted.check();
}

#[test]
fn a_store_without_room_is_named_with_what_is_free() {
    let Some((mounted, disk)) = small_disk(48) else { return };
    let source = mounted.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    for i in 0..80 {
        fs::write(source.join(format!("f{i}")), random_bytes(i, 1 << 20)).unwrap();
    }
    let said = mounted.fails(1, ["sync", source.to_str().unwrap()]);
    for part in ["store", "free", "delete snapshots"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    mounted.umount();
    mounted.check();
    drop(disk);
}

#[test]
fn a_file_of_an_archive_that_does_not_fit_leaves_the_one_that_is_there() {
    let Some((mounted, disk)) = small_disk(64) else { return };
    let archive = mounted.dir.path().join("archive");
    let file = mounted.live().join("f");
    let (then, now) = (random_bytes(1, 16 << 20), random_bytes(2, 16 << 20));
    fs::write(&file, &then).unwrap();
    mounted.ok(["roll", "--archive", archive.to_str().unwrap(), "--name", "then"]);
    fs::write(&file, &now).unwrap();
    mounted.ok(["roll", "--keep", "1", "--name", "now"]);
    let fill = mounted.live().join("fill");
    let free = mounted.json(&["status"])["available_bytes"].as_u64().unwrap() as usize;
    fs::write(&fill, random_bytes(3, free - (8 << 20))).unwrap();
    for args in [&["restore", "-n", "then", "f"][..], &["restore", "then", "f"]] {
        let said = mounted.fails(1, args);
        assert!(said.contains("no room"), "{said}");
        assert!(fs::read(&file).unwrap() == now, "{args:?}");
    }
    assert!(!mounted.ok(["list"]).contains("before-restore"), "nothing was changed, so nothing is kept");
    fs::remove_file(&fill).unwrap();
    mounted.ok(["restore", "then", "f"]);
    assert!(fs::read(&file).unwrap() == then);
    mounted.umount();
    mounted.check();
    drop(disk);
}

#[test]
fn an_archive_without_room_is_not_taken_for_the_store() {
    let Some((mounted, disk)) = small_disk(16) else { return };
    // The store is beside the small disk, the archive on it.
    let store = mounted.dir.path().join("large");
    let archive = mounted.dir.path().join("disk/archive");
    mounted.umount();
    let ok = |args: &[&str]| mounted.ok([&["-s", store.to_str().unwrap()], args].concat());
    let source = mounted.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    mounted.ok(["create", store.to_str().unwrap()]);
    for seed in 0..2 {
        fs::write(source.join("f"), random_bytes(seed, 20 << 20)).unwrap();
        ok(&["sync", source.to_str().unwrap()]);
        ok(&["snap", &format!("s{seed}")]);
    }
    fs::write(source.join("f"), "small").unwrap();
    ok(&["sync", source.to_str().unwrap()]);
    let said = mounted
        .fails(1, ["-s", store.to_str().unwrap(), "roll", "--archive", archive.to_str().unwrap(), "--keep", "1"]);
    assert!(said.contains("no room in the archive") && said.contains("Make room on its disk"), "{said}");
    assert!(!said.contains("delete snapshots"), "{said}");
    drop(disk);
}

#[test]
fn only_a_roll_begins_an_archive() {
    let mounted = Mounted::unmounted();
    let missing = mounted.dir.path().join("not-mounted/archive");
    let said = mounted.fails(1, ["archive", "attach", missing.to_str().unwrap()]);
    assert!(said.contains("there is no directory") && !missing.exists(), "{said}");
    // As a mount point is without its disk.
    let empty = mounted.dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let said = mounted.fails(1, ["archive", "attach", empty.to_str().unwrap()]);
    assert!(said.contains("there is no archive in") && names(&empty).is_empty(), "{said}");
    // Nor is that an archive without problems.
    for (command, directory) in [("list", &empty), ("verify", &empty), ("list", &missing), ("verify", &missing)] {
        let said = mounted.fails(1, ["archive", command, directory.to_str().unwrap()]);
        assert!(said.contains("no archive"), "{said}");
    }
    mounted.ok(["roll", "--archive", missing.to_str().unwrap()]);
    // One that was just begun has no increment yet.
    for command in ["list", "verify"] {
        mounted.ok(["archive", command, missing.to_str().unwrap()]);
    }
    mounted.ok(["archive", "detach"]);
    mounted.ok(["archive", "verify", missing.to_str().unwrap()]);
}

#[test]
fn a_pattern_that_makes_no_sense_is_refused_before_a_store_is_made() {
    let mounted = Mounted::unmounted();
    let (store, source) = (mounted.dir.path().join("new"), mounted.dir.path().join("source"));
    fs::create_dir(&source).unwrap();
    let source = source.to_str().unwrap();
    for pattern in ["", "[", "/", "../x", "a**"] {
        mounted.fails(2, ["create", store.to_str().unwrap(), "--from", source, "--exclude", pattern]);
        assert!(!store.exists(), "{pattern}");
        mounted.fails(2, ["sync", source, "--exclude", pattern]);
    }
}

/// Stores in a mapping while the store has no room, then lets what is there go, twice. What each says, and what the file
/// shows after.
const STORES_AND_RESTORES: &str = r#"
import mmap, os, subprocess, sys
pitfs, store, tree, *command = sys.argv[1:]
f = os.open(tree + '/f', os.O_RDWR)
m = mmap.mmap(f, 2000000)
m[:] = os.urandom(2000000)
for _ in range(2):
    r = subprocess.run([pitfs, '-s', store, *command], capture_output=True, text=True)
    print(r.returncode, 'would be lost' in r.stderr, m[:4] == b'AAAA')
"#;

#[test]
fn what_a_mapping_has_stored_is_not_lost_silently_where_it_does_not_fit() {
    for (base, command) in [("live", &["restore", "then"][..]), ("copy", &["mirror", "restore", "copy"])] {
        let Some((mounted, disk)) = small_disk(32) else { return };
        fs::write(mounted.live().join("f"), vec![b'A'; 2_000_000]).unwrap();
        mounted.ok(["snap", "then"]);
        mounted.ok(["mirror", "establish", "live", "copy"]);
        mounted.ok(["mirror", "split", "copy"]);
        // Now each has its directory.
        mounted.remount();
        let tree = mounted.snap().join(base).join("live");
        let mut fill = fs::File::create(mounted.snap().join("live/live/fill")).unwrap();
        let mut seed = 0;
        while std::io::Write::write_all(&mut fill, &random_bytes(seed, 65536)).and_then(|()| fill.sync_all()).is_ok() {
            seed += 1;
        }
        drop(fill);
        let mut python = std::process::Command::new("python3");
        python.args(["-c", STORES_AND_RESTORES, PITFS]).args([mounted.store(), tree]).args(command);
        let Ok(output) = python.output() else { return eprintln!("not run: no python3") };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            said.starts_with("1 True False\n"),
            "{command:?}: the first time it is refused: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        mounted.umount();
        mounted.check();
        drop(disk);
    }
}
