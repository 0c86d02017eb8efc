//! A read that fails, wherever in an operation: what is reported as failed has not been done, and only a commit that cannot
//! read stops the store.

use pitfs::device::InodeNo;
use pitfs::error::Result;
use pitfs::logstore::Codec;
use pitfs::media::{Tearing, TestDir};
use pitfs::tree::{Caller, Change, CreateOptions, Kind, New, Position, ROOT, RenameMode, Tree};
use std::collections::BTreeMap;
use std::sync::Arc;

const TRACK: usize = 16 << 10;

/// All that a tree shows: of each path its kind, size, mode and bytes, and how many names it has.
type Shown = BTreeMap<String, (Kind, u64, u32, u32, Vec<u8>)>;

fn shown(tree: &Tree) -> Shown {
    let mut found = Shown::new();
    let mut pending = vec![(String::new(), ROOT)];
    while let Some((path, directory)) = pending.pop() {
        let mut inside = Vec::new();
        tree.names()
            .list(directory.live(), 0, |entry| {
                inside.push((String::from_utf8(entry.name.to_vec()).unwrap(), entry.inode));
                Ok(true)
            })
            .unwrap();
        for (name, inode) in inside {
            let path = format!("{path}/{name}");
            let is = tree.inode(inode.live()).unwrap();
            let bytes = match is.kind() {
                Kind::File => tree.files().read(inode.live(), 0, is.size as usize).unwrap(),
                _ => Vec::new(),
            };
            if is.is_directory() {
                pending.push((path.clone(), inode));
            }
            found.insert(path, (is.kind(), is.size, is.permissions(), is.links, bytes));
        }
    }
    found
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn make(tree: &Tree, parent: InodeNo, name: &str, kind: Kind) -> InodeNo {
    let new = New { kind, permissions: 0o755, rdev: 0, target: b"" };
    tree.names().make(Caller { uid: 0, gid: 0, umask: 0 }, parent, name.as_bytes(), new).unwrap().0
}

fn at(tree: &Tree, name: &str) -> Result<InodeNo> {
    Ok(tree.names().lookup(ROOT.live(), name.as_bytes())?.0)
}

/// A store with files of all kinds, of which much is shared.
fn sample() -> TestDir {
    let dir = TestDir::new();
    let options = CreateOptions { track_bytes: TRACK, codec: Codec::Lz4, uid: 0, gid: 0, mode: 0o755, hash_seed: 1 };
    Tree::create(Arc::new(dir.clone()), &options).unwrap();
    let tree = Tree::open(Arc::new(dir.clone())).unwrap();
    for (name, len) in [("a", 5 * TRACK + 100), ("b", 3 * TRACK), ("shared", 200 * TRACK), ("small", 100)] {
        let file = make(&tree, ROOT, name, Kind::File);
        tree.files().write(file, 0, &noise(len as u64, len), false).unwrap();
    }
    tree.commit().unwrap();
    let copy = make(&tree, ROOT, "copy", Kind::File);
    let position = Position { of: at(&tree, "shared").unwrap().live(), offset: 0 };
    tree.files().copy_range(position, copy, 0, 200 * TRACK as u64, false).unwrap();
    let directory = make(&tree, ROOT, "directory", Kind::Directory);
    make(&tree, ROOT, "empty", Kind::Directory);
    for number in 0..1500 {
        let file = make(&tree, directory, &format!("file {number}"), Kind::File);
        tree.files().write(file, 0, &noise(number, 20_000), false).unwrap();
    }
    tree.names().link(at(&tree, "b").unwrap(), directory, b"second name of b").unwrap();
    tree.commit().unwrap();
    drop(tree);
    dir
}

type Operation = (&'static str, fn(&Tree) -> Result<()>);

/// Each takes one transaction.
const OPERATIONS: [Operation; 14] = [
    ("unlink a large file", |tree| tree.names().unlink(ROOT, b"a").map(drop)),
    ("unlink one of two names", |tree| tree.names().unlink(ROOT, b"b").map(drop)),
    ("unlink what is shared", |tree| tree.names().unlink(ROOT, b"copy").map(drop)),
    ("remove a directory", |tree| tree.names().remove_directory(ROOT, b"empty").map(drop)),
    ("rename", |tree| tree.names().rename(ROOT, b"a", ROOT, b"c", RenameMode::NoReplace).map(drop)),
    ("rename over another", |tree| tree.names().rename(ROOT, b"b", ROOT, b"a", RenameMode::Replace).map(drop)),
    ("exchange", |tree| tree.names().rename(ROOT, b"b", ROOT, b"directory", RenameMode::Exchange).map(drop)),
    ("cut to nothing", |tree| resize(tree, "a", 0)),
    ("cut within a track", |tree| resize(tree, "a", TRACK as u64 + 100)),
    ("cut what is shared", |tree| resize(tree, "copy", TRACK as u64)),
    ("punch a hole", |tree| tree.files().zero(at(tree, "a")?, 100, 3 * TRACK as u64, true, false)),
    ("write", |tree| tree.files().write(at(tree, "copy")?, 1000, &noise(9, 2 * TRACK), false)),
    ("let a small file grow", |tree| tree.files().write(at(tree, "small")?, 5 * TRACK as u64, b"x", false)),
    ("share tracks", |tree| {
        let position = Position { of: at(tree, "shared")?.live(), offset: 0 };
        tree.files().copy_range(position, at(tree, "a")?, 0, 4 * TRACK as u64, false).map(drop)
    }),
];

fn resize(tree: &Tree, name: &str, size: u64) -> Result<()> {
    tree.attributes().change(at(tree, name)?, Change { size: Some(size), ..Change::default() }).map(drop)
}

#[test]
fn what_failed_since_something_could_not_be_read_was_not_done() {
    let sample = sample();
    let before = shown(&Tree::open(Arc::new(sample.after_power_cut(Tearing::LoseAll))).unwrap());
    let mut failures = 0;
    for (what, operation) in OPERATIONS {
        for reads in 0.. {
            let dir = sample.after_power_cut(Tearing::LoseAll);
            let tree = Tree::open(Arc::new(dir.clone())).unwrap();
            dir.fail_reads_after(Some(reads));
            let done = operation(&tree);
            dir.fail_reads_after(None);
            let Err(error) = done else {
                assert!(reads > 1, "{what} reads nothing");
                break;
            };
            failures += 1;
            assert_eq!(error.errno(), rustix::io::Errno::IO, "{what}, {reads} reads: {error}");
            tree.device().check_running().unwrap_or_else(|error| panic!("{what}, {reads} reads: {error}"));
            tree.commit().unwrap_or_else(|error| panic!("{what}, {reads} reads: {error}"));
            assert!(shown(&tree) == before, "{what} failed after {reads} reads, and did something");
            operation(&tree).unwrap_or_else(|error| panic!("{what}, {reads} reads, once more: {error}"));
        }
    }
    assert!(failures > 40, "{failures} reads failed");
}
