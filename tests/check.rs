//! Damage behind the store's back: `check` finds it and names it, and everything else stays readable.

mod mounted;

use mounted::*;
use pitfs::control::{PROTOCOL, Request, Session, Snap, Verb, serve};
use pitfs::daemon::Daemon;
use pitfs::error::Result;
use pitfs::tree::{Caller, Change, Kind, New, ROOT, RenameMode, Tree};
use serde_bytes::ByteBuf;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes that do not compress and that no other file has.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

/// A store with files in `live` and in two snapshots; not mounted.
fn sample() -> (Mounted, PathBuf) {
    let mounted = Mounted::unmounted();
    let source = mounted.dir.path().join("source");
    fs::create_dir_all(source.join("directory/deep")).unwrap();
    for i in 0..40u64 {
        let path = if i % 2 == 0 { format!("directory/deep/file {i}") } else { format!("file {i}") };
        fs::write(source.join(path), noise(i, 200 + 3000 * i as usize)).unwrap();
    }
    mounted.ok(["sync", source.to_str().unwrap()]);
    mounted.ok(["snap", "one"]);
    fs::write(source.join("file 39"), noise(139, 90_000)).unwrap();
    mounted.ok(["sync", source.to_str().unwrap()]);
    mounted.ok(["snap", "two"]);
    mounted.check();
    (mounted, source)
}

fn find(haystack: &[u8], needle: &[u8]) -> usize {
    haystack.windows(needle.len()).position(|window| window == needle).unwrap()
}

fn flip(path: &std::path::Path, offset: usize) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset as u64).unwrap();
}

#[test]
fn a_damaged_track_is_named_in_every_view_that_shows_it() {
    let (mounted, source) = sample();
    let volume = mounted.store().join("volume.0");
    // In `file 39` as it was in snapshot one only, and in a file that is everywhere.
    let bytes = fs::read(&volume).unwrap();
    flip(&volume, find(&bytes, &noise(39, 40_000)[20_000..20_100]));
    flip(&volume, find(&bytes, &noise(30, 60_000)[50_000..50_100]));
    let output = mounted.run(["check"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("2 problems") && text.contains("checksum"), "{text}");
    for expected in
        ["one/file 39", "live/directory/deep/file 30", "one/directory/deep/file 30", "two/directory/deep/file 30"]
    {
        assert!(text.contains(&format!("damaged: {expected}\n")), "{expected}: {text}");
    }
    for intact in ["live/file 39", "two/file 39", "file 38"] {
        assert!(!text.contains(intact), "{intact}: {text}");
    }
    let json = String::from_utf8_lossy(&mounted.run(["check", "--json"]).stdout).into_owned();
    assert!(json.contains("\"one/file 39\""), "{json}");
    if !can_mount() {
        return;
    }
    mounted.mount(&[]);
    for shown in listing_of_names(&source) {
        for view in ["live", "one", "two"] {
            let is_damaged = shown.ends_with("file 30") || view == "one" && shown.ends_with("file 39");
            let read = fs::read(mounted.snap().join(view).join(&shown));
            match (is_damaged, read) {
                (true, Err(error)) => assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error())),
                (true, Ok(_)) => panic!("{view}/{} is damaged and was read", shown.display()),
                (false, Err(error)) => panic!("{view}/{}: {error}", shown.display()),
                (false, Ok(bytes)) if view != "one" || !shown.ends_with("file 39") => {
                    assert!(bytes == fs::read(source.join(&shown)).unwrap(), "{view}/{}", shown.display());
                }
                (false, Ok(_)) => {}
            }
        }
    }
}

/// Clones that look through to the snapshot, and those that share its tracks.
#[test]
fn a_damaged_track_is_named_in_clones_and_bases_as_well() {
    let (mounted, _) = sample();
    mounted.ok(["clone", "two", "through"]);
    mounted.ok(["clone", "--full", "--wait", "two", "sharing"]);
    mounted.ok(["base", "create", "--from", "two", "--wait", "based"]);
    mounted.ok_of("through", &["snap", "inside"]);
    let volume = mounted.store().join("volume.0");
    let bytes = fs::read(&volume).unwrap();
    flip(&volume, find(&bytes, &noise(30, 60_000)[50_000..50_100]));
    let output = mounted.run(["check"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for view in ["live", "two", "through:live", "through:inside", "sharing:live", "based:live"] {
        assert!(text.contains(&format!("damaged: {view}/directory/deep/file 30\n")), "{view}: {text}");
    }
    assert!(!text.contains("file 38"), "{text}");
    let said = mounted.fails(1, ["clone", "--copy", "--wait", "two", "copied"]);
    assert!(said.contains("\"copied\" is copied but for 1 damaged track"), "{said}");
}

fn listing_of_names(root: &std::path::Path) -> Vec<PathBuf> {
    listing(root).into_iter().filter(|shown| shown.kind == 'f').map(|shown| shown.path).collect()
}

/// One flipped bit anywhere in the metadata: found, or without any effect; and never a wrong byte.
#[test]
fn damaged_metadata_is_found_and_gives_no_wrong_byte() {
    let (mounted, source) = sample();
    let meta = mounted.store().join("meta.redb");
    let whole = fs::read(&meta).unwrap();
    let (mut found, mut refused) = (0, 0);
    for i in 0..60usize {
        // Past the first pages: those have checksums of their own, and a second copy.
        let offset = 8192 + (i * 7919 * 131 + 13) % (whole.len() - 8192);
        fs::write(&meta, &whole).unwrap();
        flip(&meta, offset);
        let output = mounted.run(["check"]);
        let text = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
        match output.status.code() {
            Some(0) => {}
            Some(1) if text.contains("damaged") || text.contains("cannot be read") || text.contains("checksum") => {
                found += 1
            }
            other => panic!("{other:?} at {offset}: {text}"),
        }
        assert!(!text.contains("panicked"), "{text}");
        let out = mounted.dir.path().join(format!("out {i}"));
        let restored = mounted.run(["restore", "live", "--to", out.to_str().unwrap()]);
        refused += usize::from(!restored.status.success());
        for name in listing_of_names(&source) {
            match fs::read(out.join(&name)) {
                Ok(bytes) => {
                    let is_right = bytes == fs::read(source.join(&name)).unwrap();
                    let text = String::from_utf8_lossy(&restored.stderr);
                    assert!(
                        is_right || text.contains(name.file_name().unwrap().to_str().unwrap()),
                        "offset {offset}: {}",
                        name.display()
                    );
                }
                Err(_) => {
                    assert!(!restored.status.success(), "offset {offset}: {} is missing without a word", name.display())
                }
            }
        }
    }
    assert!(found >= 3, "only {found} of 60 flipped bits were found");
    eprintln!("{found} of 60 flipped bits were found by check, {refused} hit a restore of live");
    fs::write(&meta, &whole).unwrap();
    mounted.check();
}

/// What is checked is one commit, whatever goes on meanwhile.
#[test]
fn nothing_is_wrong_with_a_store_that_is_worked_with() {
    let mounted = Mounted::unmounted();
    let daemon = Daemon::open(&mounted.store()).unwrap();
    let tree = daemon.views().tree();
    let ends = Instant::now() + Duration::from_secs(8);
    let has_time = || Instant::now() < ends;
    let ask = |base: &str, verb: Verb| {
        let request = Request { protocol: PROTOCOL, base: Some(name(base)), verb, stream: None };
        // Names are taken, or gone, or needed: the ones that succeed are enough.
        serve(&daemon, request, 0, &mut |_| Ok(())).is_ok()
    };
    let (mut checks, done) = (0, AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for at in (0..).take_while(|_| has_time()) {
                done.fetch_add(u64::from(work(tree, at).is_ok()), Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            for at in 0.. {
                if !has_time() {
                    return;
                }
                let one = |at: u64| name(&format!("{at}"));
                ask("live", Verb::Snap(Snap { name: Some(one(at)), ..Snap::default() }));
                ask("live", Verb::Delete { names: vec![one(at.saturating_sub(5))], group: None, recursive: true });
                match at % 7 {
                    1 => {
                        let snapshot = Some(one(at - 1));
                        ask("live", Verb::Restore { snapshot, paths: Vec::new(), group: None });
                    }
                    3 => {
                        let snapshot = daemon.views().snapshot_of(format!("{at}").as_bytes()).unwrap();
                        let clone = format!("clone {at}");
                        let _is_taken =
                            daemon.views().bases().clone_snapshot(&snapshot, clone.as_bytes(), at % 2 == 0, true);
                        ask(&clone, Verb::Snap(Snap { name: Some(one(1000 + at)), ..Snap::default() }));
                    }
                    5 => {
                        ask("live", Verb::Session(Session::Deactivate { name: one(at - 1) }));
                    }
                    _ => {}
                }
            }
        });
        scope.spawn(|| {
            while has_time() {
                let _is_over = (tree.settle_step(), tree.reap_step(), tree.device().removal().step());
            }
        });
        while has_time() {
            let report = pitfs::daemon::check(&daemon, &mut |_| Ok(())).unwrap();
            assert!(report.is_clean(), "{:#?}", report.problems);
            checks += 1;
        }
    });
    assert!(checks > 10 && done.load(Ordering::Relaxed) > 100, "{checks} {done:?}");
    daemon.close().unwrap();
    drop(daemon);
    mounted.check();
}

fn name(text: &str) -> ByteBuf {
    ByteBuf::from(text.as_bytes())
}

/// Something that changes names, sizes and links; many of these fail.
fn work(tree: &Tree, seed: u64) -> Result<()> {
    let random = xxh3_64_with_seed(b"work", seed);
    let caller = Caller { uid: 0, gid: 0, umask: 0 };
    let new = |kind| New { kind, permissions: 0o755, rdev: 0, target: b"" };
    let called = |shift: u64| format!("{}", random >> shift & 7).into_bytes();
    let in_some = |shift: u64| match random >> shift & 3 {
        0 => Ok(ROOT),
        _ => tree.names().lookup(ROOT.live(), &called(shift + 2)).map(|(inode, _)| inode),
    };
    let (from, to) = (in_some(8)?, in_some(16)?);
    let (old, other) = (called(24), called(28));
    let file = || tree.names().lookup(from.live(), &old).map(|(inode, _)| inode);
    match random % 10 {
        0 | 1 => tree.names().make(caller, from, &old, new(Kind::Directory)).map(drop),
        2 | 3 => tree.names().make(caller, from, &old, new(Kind::File)).map(drop),
        // No directory goes into another one, which could be in it.
        4 => match tree.names().lookup(from.live(), &old)?.1.is_directory() {
            true => tree.names().rename(from, &old, ROOT, &other, RenameMode::Replace),
            false => tree.names().rename(from, &old, to, &other, RenameMode::Replace),
        },
        5 => tree.names().link(file()?, to, &other).map(drop),
        6 => tree.names().unlink(from, &old).map(drop),
        7 => tree.names().remove_directory(from, &old).map(drop),
        8 => tree.files().write(file()?, random >> 40 & 0xf_ffff, &vec![random as u8; 20_000], false),
        _ => tree.attributes().change(file()?, Change { size: Some(random >> 44), ..Change::default() }).map(drop),
    }
}
