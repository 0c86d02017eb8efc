//! A small store with something of everything, and using all of a store whatever it holds.

use pitfs::clock::Timestamp;
use pitfs::device::{InodeAt, InodeNo, LIVE, Moment};
use pitfs::logstore::Codec;
use pitfs::media::{Media, MediaDir, Tearing, TestDir};
use pitfs::meta::{Kv, Meta, Pair, Table};
use pitfs::tree::*;
use pitfs::view::Views;
use std::collections::BTreeSet;
use std::sync::Arc;

pub const TRACK: usize = 16 << 10;
const ME: Caller = Caller { uid: 0, gid: 0, umask: 0o022 };

fn new(kind: Kind, target: &[u8]) -> New<'_> {
    New { kind, permissions: 0o755, rdev: 5, target }
}

/// Bytes that compress, but not to nothing.
pub fn text(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 3 % 50 + i / 1000) as u8).collect()
}

fn make(tree: &Tree, parent: InodeNo, name: &str, kind: Kind) -> InodeNo {
    tree.names().make(ME, parent, name.as_bytes(), new(kind, b"somewhere")).unwrap().0
}

/// A store in memory with files of all sizes, links, xattrs, shared tracks, snapshots and work left to do.
pub fn store(codec: Codec) -> TestDir {
    let dir = TestDir::new();
    let options = CreateOptions { track_bytes: TRACK, codec, uid: 0, gid: 0, mode: 0o755, hash_seed: 7 };
    Tree::create(Arc::new(dir.clone()), &options).unwrap();
    let views = Views::new(Tree::open(Arc::new(dir.clone())).unwrap());
    let tree = views.tree();
    let directory = make(tree, ROOT, "directory", Kind::Directory);
    let deep = make(tree, directory, "deep", Kind::Directory);
    for (i, len) in [10, 900, 5000, 40_000, 100_000].into_iter().enumerate() {
        let file = make(tree, [ROOT, directory, deep][i % 3], &format!("file {i}"), Kind::File);
        tree.files().write(file, 0, &text(len), false).unwrap();
        tree.names().link(file, deep, format!("link {i}").as_bytes()).unwrap();
        tree.attributes().set_xattr(file, b"user.a", &text(300 * i), SetXattr::default()).unwrap();
    }
    make(tree, deep, "symlink", Kind::Symlink);
    make(tree, ROOT, "fifo", Kind::Fifo);
    tree.commit().unwrap();
    views.snapshots().take(Some(b"one")).unwrap();
    let (large, _) = tree.names().lookup(directory.live(), b"file 4").unwrap();
    let (copied, _) = tree.names().lookup(ROOT.live(), b"file 3").unwrap();
    let start = Position { of: large.live(), offset: 0 };
    tree.files().copy_range(start, copied, 0, 3 * TRACK as u64, false).unwrap();
    tree.files().write(large, 20_000, &text(30_000), false).unwrap();
    // Patches, of which the snapshot holds some.
    for at in [70_000, 71_000, 90_000] {
        tree.files().write(large, at, b"a patch", false).unwrap();
        tree.commit().unwrap();
    }
    tree.names().rename(directory, b"deep", ROOT, b"moved", RenameMode::Replace).unwrap();
    views.snapshots().take(Some(b"two")).unwrap();
    tree.names().unlink(ROOT, b"file 0").unwrap();
    tree.files().write(large, 90_000, &text(90_000), false).unwrap();
    let time = Timestamp { seconds: 1, nanos: 2 };
    let origin = Origin { device: 1, inode: 2, size: 3, mtime: time, ctime: time, copy_ctime: time };
    tree.likeness().set_origin(large, &origin).unwrap();
    views.snapshots().take(Some(b"three")).unwrap();
    tree.files().write(large, 0, &text(50_000), false).unwrap();
    tree.files().write(large, 70_500, b"one more", false).unwrap();
    let gone = make(tree, ROOT, "gone", Kind::File);
    tree.held().hold(gone);
    tree.files().write(gone, 0, &text(70_000), false).unwrap();
    tree.names().unlink(ROOT, b"gone").unwrap();
    views.deletions().delete(&[b"two"]).unwrap();
    tree.commit().unwrap();
    dir
}

/// A copy that can be changed on its own.
pub fn copy(dir: &TestDir) -> TestDir {
    dir.after_power_cut(Tearing::LoseAll)
}

pub fn open_meta(dir: &TestDir) -> (Kv, Meta) {
    let kv = Kv::open(dir.open("meta.redb", false).unwrap(), None).unwrap();
    let meta = Meta::new(&kv).unwrap();
    (kv, meta)
}

/// All records of a store.
pub fn records(dir: &TestDir) -> Vec<(Table, Pair)> {
    let (_kv, meta) = open_meta(dir);
    let all = |table| meta.range(table, &[], &[u8::MAX; 400]).unwrap().map(|pair| pair.unwrap()).collect::<Vec<_>>();
    Table::ALL.into_iter().flat_map(|table| all(table).into_iter().map(move |pair| (table, pair))).collect()
}

pub fn bytes_of(dir: &TestDir, name: &str) -> Vec<u8> {
    let media: Arc<dyn Media> = dir.open(name, false).unwrap();
    let mut bytes = vec![0; media.len().unwrap() as usize];
    media.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Work in steps that has to end; a store that leads in circles may not keep it busy for ever.
const STEPS_MAX: usize = 2000;
const NODES_MAX: usize = 200;
const READ_MAX: usize = 200_000;

/// Reads everything that the store shows; errors are as good as answers.
pub fn read_all(dir: &TestDir) {
    let Ok(tree) = Tree::open(Arc::new(dir.clone())) else { return };
    read_views(&Views::new(tree));
}

pub fn read_views(views: &Views) {
    let tree = views.tree();
    let mut moments = vec![Moment::Live];
    for snapshot in views.snapshots().all().unwrap_or_default() {
        let _an_error_is_fine = views.find(snapshot.record.name.as_bytes());
        let _an_error_is_fine = tree.device().removal().unique_bytes(snapshot.point());
        moments.push(Moment::At(snapshot.epoch));
    }
    let _an_error_is_fine = tree.space();
    for &moment in &moments {
        let mut seen = BTreeSet::new();
        let mut ahead: Vec<InodeNo> = first_inodes().rev().collect();
        while let Some(number) = ahead.pop().filter(|_| seen.len() < NODES_MAX) {
            if !seen.insert(number) {
                continue;
            }
            read_node(tree, number.at(moment));
            let mut names = Vec::new();
            let _an_error_is_fine = tree.names().list(number.at(moment), 0, |entry| {
                names.push(entry.name.clone());
                ahead.push(entry.inode);
                Ok(ahead.len() < NODES_MAX)
            });
            for name in names {
                let _an_error_is_fine = tree.names().lookup(number.at(moment), &name);
            }
            let _an_error_is_fine = tree.names().list_with_inodes(number.at(moment), 0, |_, _| Ok(true));
        }
        for path in [&b"directory/file 4"[..], b"moved/link 3", b"file 3/x"] {
            let _an_error_is_fine = tree.names().resolve(pitfs::device::LIVE, path, moment);
        }
    }
    for &before in &moments {
        let _an_error_is_fine = tree.comparison().diff(pitfs::device::LIVE, before, Moment::Live);
        let _an_error_is_fine = tree.comparison().diff(pitfs::device::LIVE, Moment::Live, before);
    }
}

fn read_node(tree: &Tree, at: InodeAt) {
    let Ok(inode) = tree.inode(at) else { return };
    let _an_error_is_fine = tree.names().read_link(at);
    let _an_error_is_fine = tree.names().paths(at);
    let _an_error_is_fine = tree.likeness().origin(at.inode);
    for name in tree.attributes().xattr_names(at).unwrap_or_default() {
        let _an_error_is_fine = tree.attributes().xattr(at, &name);
    }
    for offset in [0, 1, TRACK as u64 - 1, 100_000, inode.size.saturating_sub(10), u64::MAX / 2] {
        if let Ok(bytes) = tree.files().read(at, offset, READ_MAX) {
            assert!(bytes.len() <= READ_MAX);
        }
        let _an_error_is_fine = tree.files().seek_data(at, offset);
        let _an_error_is_fine = tree.files().seek_hole(at, offset);
    }
}

/// Those of the first base, used or not.
fn first_inodes() -> impl DoubleEndedIterator<Item = InodeNo> {
    (ROOT.number()..30).map(|number| InodeNo::new(LIVE, number))
}

/// Changes everything that the store lets be changed; errors are as good as answers.
pub fn change_all(dir: &TestDir) {
    for round in 0..2 {
        let Ok(tree) = Tree::open(Arc::new(dir.clone())) else { return };
        let views = Views::new(tree);
        let tree = views.tree();
        let _an_error_is_fine = views.snapshots().take(Some(format!("new {round}").as_bytes()));
        for number in first_inodes() {
            change_node(tree, number);
        }
        for name in [&b"one"[..], b"three", b"new 0"] {
            let _an_error_is_fine = views.snapshots().rename(name, b"renamed");
            let _an_error_is_fine = views.deletions().delete(&[name, b"renamed"]);
            let _an_error_is_fine = views.deletions().delete(&[b"renamed"]);
        }
        for _ in 0..STEPS_MAX {
            if !tree.device().removal().step().unwrap_or(false) && !tree.reap_step().unwrap_or(false) {
                break;
            }
        }
        let _an_error_is_fine = tree.commit();
        let _an_error_is_fine = tree.commit();
    }
}

fn change_node(tree: &Tree, number: InodeNo) {
    let _an_error_is_fine = tree.names().make(ME, number, b"made", new(Kind::File, b""));
    let _an_error_is_fine = tree.files().write(number, 10_000, &text(20_000), true);
    let _an_error_is_fine = tree.files().write(number, 100_000, b"x", true);
    let _an_error_is_fine = tree.files().zero(number, 5000, 40_000, false, false);
    let from = Position { of: number.live(), offset: 0 };
    let _an_error_is_fine = tree.files().copy_range(from, InodeNo::new(LIVE, number.number() ^ 1), 0, 100_000, false);
    let _an_error_is_fine = tree.attributes().set_xattr(number, b"user.b", b"value", SetXattr::default());
    let _an_error_is_fine = tree.attributes().remove_xattr(number, b"user.a");
    let _an_error_is_fine = tree.names().link(number, ROOT, format!("linked {number}").as_bytes());
    for size in [50_000, 700] {
        let _an_error_is_fine = tree.attributes().change(number, Change { size: Some(size), ..Change::default() });
    }
    let mut names = Vec::new();
    let _an_error_is_fine = tree.names().list(number.live(), 0, |entry| {
        names.push(entry.name.clone());
        Ok(names.len() < NODES_MAX)
    });
    for name in names {
        let _an_error_is_fine = tree.names().rename(number, &name, ROOT, b"moved here", RenameMode::Exchange);
        let _an_error_is_fine = tree.names().unlink(number, &name);
        let _an_error_is_fine = tree.names().remove_directory(number, &name);
    }
}
