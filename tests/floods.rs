//! What anybody who may use a mount can ask for in quantity: it costs as much as it is worth, and stops nobody else.

mod mounted;

use mounted::*;
use pitfs::device::{InodeNo, TrackNo};
use pitfs::error::{Errno, Error, Result};
use pitfs::limits::{
    COPY_BYTES_MAX, DIRTY_RECORD_BYTES_MAX, STEP_TRACKS, STEP_XATTRS, XATTR_VALUE_BYTES_MAX, XATTR_VALUES_BYTES_MAX,
};
use pitfs::logstore::Codec;
use pitfs::media::TestDir;
use pitfs::tree::{Caller, Change, CreateOptions, Kind, New, ROOT, SetXattr, Tree};
use rustix::fs::{Mode, OFlags, mkdirat, open, openat};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

const TRACK: usize = 16 << 10;
const CALLER: Caller = Caller { uid: 0, gid: 0, umask: 0 };
const FILE: New<'static> = New { kind: Kind::File, permissions: 0o644, rdev: 0, target: b"" };

/// An empty tree that nobody serves in the background.
fn tree(hash_seed: u64, capacity: Option<u64>) -> Tree {
    let dir = TestDir::new();
    dir.set_capacity(capacity);
    let options = CreateOptions { track_bytes: TRACK, codec: Codec::None, uid: 0, gid: 0, mode: 0o755, hash_seed };
    Tree::create(Arc::new(dir.clone()), &options).unwrap();
    Tree::open(Arc::new(dir)).unwrap()
}

fn file(tree: &Tree, name: &[u8]) -> InodeNo {
    tree.names().make(CALLER, ROOT, name, FILE).unwrap().0
}

/// Sets large xattrs, eight for each file, until one is refused or there are so many; the files.
fn set_xattrs(tree: &Tree, count: usize, mut each: impl FnMut()) -> (usize, Result<()>) {
    let value = random_bytes(1, XATTR_VALUE_BYTES_MAX);
    for i in 0..count {
        let name = format!("file {}", i / 8).into_bytes();
        let set = || {
            let inode = match tree.names().lookup(ROOT.live(), &name) {
                Ok((inode, _)) => inode,
                Err(_) => tree.names().make(CALLER, ROOT, &name, FILE)?.0,
            };
            tree.attributes().set_xattr(inode, format!("user.{i}").as_bytes(), &value, SetXattr::default())
        };
        if let Err(error) = set() {
            return (i, Err(error));
        }
        each();
    }
    (count, Ok(()))
}

#[test]
fn open_changes_are_bounded_by_their_bytes() {
    let tree = tree(1, None);
    let mut most = 0;
    let open = || tree.device().look().unwrap().meta().dirty_record_bytes();
    let (_, result) = set_xattrs(&tree, 2 * DIRTY_RECORD_BYTES_MAX / XATTR_VALUE_BYTES_MAX, || most = most.max(open()));
    result.unwrap();
    let one = XATTR_VALUE_BYTES_MAX + 4096;
    assert!(most > DIRTY_RECORD_BYTES_MAX / 2, "{most} bytes are no test");
    assert!(most <= DIRTY_RECORD_BYTES_MAX + one, "{most} bytes were open");
}

#[test]
fn changes_that_are_large_end_with_the_room_and_not_the_store() {
    for megabytes in [48, 100] {
        let tree = tree(1, Some(megabytes << 20));
        let (set, result) = set_xattrs(&tree, 10_000, || {});
        let error = result.unwrap_err();
        assert!(error.is_no_space(), "with {megabytes} MiB: {error}");
        assert!(set > 100, "{set} fitted into {megabytes} MiB");
        // What frees room goes on.
        tree.commit().unwrap();
        for i in 0..set / 8 {
            let inode = tree.names().unlink(ROOT, format!("file {i}").as_bytes()).unwrap();
            while tree.inode(inode.live()).is_ok() {
                assert!(tree.reap_step().unwrap());
            }
        }
        tree.commit().unwrap();
        tree.device().close().unwrap();
    }
}

#[test]
fn an_inode_goes_with_its_xattrs_in_steps() {
    let tree = tree(1, None);
    let inode = file(&tree, b"f");
    for i in 0..3 * STEP_XATTRS + 1 {
        tree.attributes().set_xattr(inode, format!("user.{i}").as_bytes(), b"value", SetXattr::default()).unwrap();
    }
    let left = || tree.attributes().xattr_names(inode.live()).map_or(0, |names| names.len());
    tree.names().unlink(ROOT, b"f").unwrap();
    assert_eq!(left(), 2 * STEP_XATTRS + 1);
    let mut steps = 1;
    while tree.inode(inode.live()).is_ok() {
        assert!(tree.reap_step().unwrap());
        steps += 1;
    }
    assert_eq!(steps, 4);
}

#[test]
fn a_hole_of_many_tracks_is_made_in_steps() {
    let tree = tree(1, None);
    let inode = file(&tree, b"f");
    let size = TRACK * (STEP_TRACKS as usize * 2 + 100) + 500;
    let mut expected = random_bytes(2, size);
    tree.files().write(inode, 0, &expected, false).unwrap();
    tree.commit().unwrap();
    let tracks = || tree.inode(inode.live()).unwrap().tracks;
    let full = tracks();
    // In memory alone, in part, and not at all: at the edges and inside.
    let written = random_bytes(3, 70_000);
    for at in [TRACK * 10 - 5, TRACK * 300 + 77] {
        tree.files().write(inode, at as u64, &written, false).unwrap();
        expected[at..at + written.len()].copy_from_slice(&written);
    }
    let hole = TRACK + 100..size - TRACK - 100;
    tree.files().zero(inode, hole.start as u64, hole.len() as u64, true, false).unwrap();
    expected[hole].fill(0);
    assert!(tree.files().read(inode.live(), 0, size).unwrap() == expected);
    assert_eq!(tracks(), 4, "of {full}");
    assert_eq!(tree.files().seek_hole(inode.live(), 0).unwrap(), 2 * TRACK as u64);
    // To the end and beyond, and over what is a hole already.
    tree.files().zero(inode, 0, 3 * size as u64, false, false).unwrap();
    assert_eq!(tracks(), 0);
    let found = tree.files().read(inode.live(), 0, 4 * size).unwrap();
    assert!(found.len() == 3 * size && found.iter().all(|byte| *byte == 0));
    // As large as can be, which has no track.
    tree.files().zero(inode, 0, i64::MAX as u64, true, false).unwrap();
}

#[test]
fn a_file_of_many_tracks_is_cut_in_steps() {
    let tree = tree(1, None);
    let inode = file(&tree, b"f");
    let step = TRACK as u64 * STEP_TRACKS;
    let size = 3 * step + 500;
    let expected = random_bytes(2, size as usize);
    tree.files().write(inode, 0, &expected, false).unwrap();
    tree.commit().unwrap();
    // Far away, in memory alone, and in the middle.
    let written = random_bytes(3, 70_000);
    let end = size * 1000 + 70_000;
    tree.files().write(inode, end - 70_000, &written, false).unwrap();
    let steps =
        || tree.device().look().unwrap().tracks().every_track(inode, TrackNo::ALL, STEP_TRACKS, u64::MAX).unwrap().0;
    assert_eq!(steps().len(), 4);
    let cut_to = |size: u64| tree.attributes().change(inode, Change { size: Some(size), ..Change::default() }).unwrap();
    // What others see meanwhile is always the front of what it was.
    let seen = std::thread::scope(|scope| {
        let cutting = scope.spawn(|| cut_to(5_000));
        let mut seen = vec![end];
        while !cutting.is_finished() {
            let size = tree.inode(inode.live()).unwrap().size;
            assert!(
                size <= *seen.last().unwrap() && (size == 5_000 || size.is_multiple_of(TRACK as u64) || size == end)
            );
            if size != *seen.last().unwrap() {
                seen.push(size);
            }
        }
        seen
    });
    assert!(seen.len() <= 6, "{seen:?}");
    let found = tree.inode(inode.live()).unwrap();
    assert_eq!((found.size, found.tracks), (5_000, 1));
    cut_to(size);
    let mut expected = expected;
    expected[5_000..].fill(0);
    assert!(tree.files().read(inode.live(), 0, size as usize).unwrap() == expected);
}

/// Files share locks: whoever waits for one does not wait until a large file is cut, or has a hole.
#[test]
fn others_have_their_turn_between_the_steps() {
    let tree = tree(1, None);
    let big = file(&tree, b"big");
    // 64 locks for all files.
    let others: Vec<InodeNo> = (0..64).map(|i| file(&tree, format!("f{i}").as_bytes())).collect();
    let size = 20 * TRACK * STEP_TRACKS as usize;
    for hole in [true, false] {
        tree.files().write(big, 0, &random_bytes(2, size), false).unwrap();
        tree.commit().unwrap();
        let between = std::thread::scope(|scope| {
            let cutting = scope.spawn(|| match hole {
                true => tree.files().zero(big, 0, size as u64, true, false).unwrap(),
                false => drop(tree.attributes().change(big, Change { size: Some(0), ..Change::default() }).unwrap()),
            });
            let mut between = 0;
            while !cutting.is_finished() {
                others.iter().for_each(|other| tree.files().write(*other, 0, b"x", false).unwrap());
                between += 1;
            }
            between
        });
        assert!(between > 1, "{between} rounds, hole: {hole}");
    }
}

#[test]
fn values_of_an_inode_are_bounded() {
    let tree = tree(1, None);
    let inode = file(&tree, b"f");
    let value = random_bytes(1, XATTR_VALUE_BYTES_MAX);
    let set =
        |name: &str, value: &[u8]| tree.attributes().set_xattr(inode, name.as_bytes(), value, SetXattr::default());
    let most = XATTR_VALUES_BYTES_MAX / XATTR_VALUE_BYTES_MAX - 1;
    for i in 0..most {
        set(&format!("user.{i}"), &value).unwrap();
    }
    let refused = |set: Result<()>| assert!(set.is_err_and(|error| error.errno() == Errno::NOSPC));
    set("user.small", b"1").unwrap();
    refused(set("user.large", &value));
    refused(set("user.small", &value));
    // What is there can be replaced.
    set("user.7", &value).unwrap();
    tree.attributes().remove_xattr(inode, b"user.7").unwrap();
    set("user.small", &value).unwrap();
}

#[test]
fn a_request_copies_a_part_and_the_caller_asks_for_the_rest() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let bytes = random_bytes(4, COPY_BYTES_MAX as usize + (5 << 20));
    fs::write(mounted.live().join("from"), &bytes).unwrap();
    let from = File::open(mounted.live().join("from")).unwrap();
    let to = File::create(mounted.live().join("to")).unwrap();
    // In step with tracks, and out of step.
    for shift in [0, 100] {
        to.set_len(0).unwrap();
        let (mut read, mut write) = (0, shift);
        while (read as usize) < bytes.len() {
            let (before, rest) = (read, bytes.len() - read as usize);
            let copied =
                rustix::fs::copy_file_range(&from, Some(&mut read), &to, Some(&mut write), rest).unwrap() as u64;
            assert!(copied > 0 && copied <= COPY_BYTES_MAX && read == before + copied);
        }
        let mut found = vec![0; bytes.len()];
        File::open(mounted.live().join("to")).unwrap().read_exact_at(&mut found, shift).unwrap();
        assert!(found == bytes);
    }
}

#[test]
fn what_is_said_again_and_again_is_in_the_log_once() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::unmounted();
    mounted.mount(&[]);
    let bytes = random_bytes(5, TRACK);
    fs::write(mounted.live().join("f"), &bytes).unwrap();
    mounted.umount();
    let volume = File::options().read(true).write(true).open(mounted.store().join("volume.0")).unwrap();
    let all = fs::read(mounted.store().join("volume.0")).unwrap();
    let at = all.windows(64).position(|part| part == &bytes[..64]).unwrap();
    volume.write_all_at(&[!bytes[9]], at as u64 + 9).unwrap();
    mounted.mount(&[]);
    let read = || File::open(mounted.live().join("f")).unwrap().read_at(&mut [0; 4096], 0);
    let failed = (0..200).filter(|_| read().is_err()).count();
    assert_eq!(failed, 200);
    mounted.umount();
    let log = fs::read_to_string(mounted.store().join("log")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let about: Vec<&&str> = lines.iter().filter(|line| line.contains("checksum")).collect();
    assert!(about.len() >= 2 && lines.len() <= 6, "{log}");
    let counted = |line: &str| line.split(" times more").next()?.rsplit(' ').next()?.parse::<usize>().ok();
    assert!(about.iter().any(|line| counted(line).is_some_and(|more| more >= 199)), "{log}");
}

/// The first 64 bits of XXH3's secret: names that begin with the sum of them and the seed have a hash that the 8 bytes behind
/// it do not change.
const SECRET: u64 = 0xbe4b_a423_396c_feb8;
const BEGIN: &[u8; 8] = b"aaaaaaaa";

fn seed() -> u64 {
    u64::from_le_bytes(*BEGIN).wrapping_sub(SECRET)
}

/// Names of one hash.
fn colliding(count: usize) -> Vec<Vec<u8>> {
    let names: Vec<Vec<u8>> =
        (0..count).map(|i| [&BEGIN[..], format!("{i:08}").as_bytes(), b"the same in each"].concat()).collect();
    let hashes: BTreeSet<u64> = names.iter().map(|name| xxhash_rust::xxh3::xxh3_64_with_seed(name, seed())).collect();
    assert_eq!(hashes.len(), 1);
    names
}

/// Lists a directory in pieces, each from where the one before ended; `each` gets every piece.
fn list_in_pieces(tree: &Tree, piece: usize, mut each: impl FnMut(&[Vec<u8>])) -> Vec<Vec<u8>> {
    let (mut names, mut offset) = (Vec::new(), 0);
    loop {
        let before = names.len();
        tree.names()
            .list(ROOT.live(), offset, |entry| {
                let is_wanted = names.len() < before + piece;
                if is_wanted {
                    assert!(entry.offset > offset);
                    offset = entry.offset;
                    names.push(entry.name.clone());
                }
                Ok(is_wanted)
            })
            .unwrap();
        each(&names[before..]);
        if names.len() == before {
            return names;
        }
    }
}

#[test]
fn names_of_one_hash_are_listed_and_removed_like_others() {
    let tree = tree(seed(), None);
    let mut all = colliding(700);
    all.extend((0..300).map(|i| format!("other {i}").into_bytes()));
    for name in &all {
        file(&tree, name);
    }
    all.sort();
    for piece in [1, 3, 64, 5000] {
        let mut listed = list_in_pieces(&tree, piece, |_| {});
        listed.sort();
        assert!(listed == all, "in pieces of {piece}");
    }
    // As rm(1) does, with others that come and go meanwhile; each that stays is named once.
    let mut removed = BTreeSet::new();
    let mut count = 0;
    let listed = list_in_pieces(&tree, 7, |names| {
        for name in names {
            if tree.names().unlink(ROOT, name).is_ok() {
                removed.insert(name.clone());
            }
        }
        count += 1;
        let new = [&BEGIN[..], format!("new{count:05}").as_bytes(), b"the same in each"].concat();
        file(&tree, &new);
        tree.names().unlink(ROOT, &new).unwrap();
    });
    assert_eq!(listed.len(), removed.len());
    assert!(all.iter().all(|name| removed.contains(name)));
    assert_eq!(tree.inode(ROOT.live()).unwrap().size, 0);
    assert!(list_in_pieces(&tree, 10, |_| {}).is_empty());
}

#[test]
fn positions_stay_over_mounts_and_do_not_tell_hashes() {
    let dir = TestDir::new();
    let options =
        CreateOptions { track_bytes: TRACK, codec: Codec::None, uid: 0, gid: 0, mode: 0o755, hash_seed: seed() };
    let positions = |dir: &TestDir| {
        let tree = Tree::open(Arc::new(dir.clone())).unwrap();
        for name in colliding(20) {
            match tree.names().make(CALLER, ROOT, &name, FILE) {
                Ok(_) | Err(Error::Posix(pitfs::error::Errno::EXIST)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let mut found = Vec::new();
        let mut add = |entry: &pitfs::tree::Entry| found.push((entry.offset, entry.name.clone()));
        tree.names()
            .list(ROOT.live(), 0, |entry| {
                add(entry);
                Ok(true)
            })
            .unwrap();
        tree.device().close().unwrap();
        found
    };
    Tree::create(Arc::new(dir.clone()), &options).unwrap();
    let first = positions(&dir);
    assert_eq!(positions(&dir), first);
    // In another store of the same seed they are in another order.
    let other = TestDir::new();
    Tree::create(Arc::new(other.clone()), &options).unwrap();
    assert_ne!(positions(&other), first);
}

/// To follow a path through all times costs as much as it is long: it is done for paths that a program can name.
#[test]
fn a_directory_too_deep_for_a_path_is_found_in_snapshots_as_itself() {
    if !can_mount() {
        return;
    }
    for (letters, far) in [(200, 25), (1, 300)] {
        deeper_than_looked(letters, far);
    }
}

/// A directory so many names down is found as itself, and one nearer to the root by its path.
fn deeper_than_looked(letters: usize, far: usize) {
    let mounted = Mounted::new();
    let name = "d".repeat(letters);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    // The directory so many names down, made where it is missing.
    let down = |names: usize| {
        let mut at = open(mounted.live(), flags, Mode::empty()).unwrap();
        for _ in 0..names {
            match mkdirat(&at, &name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(errno) => panic!("{errno}"),
            }
            at = openat(&at, &name, flags, Mode::empty()).unwrap();
        }
        at
    };
    let names_in = |names: usize| -> Option<Vec<String>> {
        let snap = openat(down(names), ".snap", flags, Mode::empty()).ok()?;
        let all = rustix::fs::Dir::new(snap).unwrap().map(|entry| entry.unwrap().file_name().to_str().unwrap().into());
        Some(all.filter(|name: &String| !name.starts_with('.')).collect())
    };
    let near = 3;
    down(far);
    mounted.ok(["snap", "one"]);
    assert_eq!(names_in(near).unwrap(), ["one"]);
    assert_eq!(names_in(far).unwrap(), ["one"]);
    // Others of the same paths.
    let away = mounted.live().join("away");
    fs::rename(mounted.live().join(&name), away).unwrap();
    assert_eq!(names_in(near).unwrap(), ["one"]);
    assert_eq!(names_in(far), None);
}
