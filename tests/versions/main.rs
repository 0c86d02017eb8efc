//! The versions of paths and the tracks that changed, compared with what reading every moment shows.

#![allow(clippy::single_range_in_vec_init)]

use pitfs::archive::Archive;
use pitfs::clock::Timestamp;
use pitfs::device::{
    ArchiveRecord, BaseId, InodeNo, LIVE, Moment, Snapshot, SnapshotState, in_base, index_entry, inode_prefix,
};
use pitfs::error::{Errno, Error};
use pitfs::logstore::Codec;
use pitfs::media::{Media, MediaDir, Room, TestDir};
use pitfs::meta::Table;
use pitfs::tree::{
    Caller, Change, ChangedTracks, CreateOptions, DifferenceKind, Inode, Kind, New, Position, RenameMode, SetTime,
    SetXattr, Tree, Version, bitmap, root_of,
};
use pitfs::view::Views;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const TRACK: u64 = 16 << 10;
const ROOT_USER: Caller = Caller { uid: 0, gid: 0, umask: 0 };

fn create(dir: Arc<dyn MediaDir>) -> Views {
    let options =
        CreateOptions { track_bytes: TRACK as usize, codec: Codec::None, uid: 0, gid: 0, mode: 0o755, hash_seed: 1 };
    Tree::create(dir.clone(), &options).unwrap();
    Views::new(Tree::open(dir).unwrap())
}

fn in_memory() -> Views {
    create(Arc::new(TestDir::new()))
}

fn make(tree: &Tree, parent: InodeNo, name: &str, kind: Kind) -> InodeNo {
    let new = New { kind, permissions: 0o755, rdev: 0, target: if kind == Kind::Symlink { b"target" } else { b"" } };
    tree.make(ROOT_USER, parent, name.as_bytes(), new).unwrap().0
}

fn file(tree: &Tree, name: &str) -> InodeNo {
    make(tree, root_of(LIVE), name, Kind::File)
}

fn snap(views: &Views, name: &str) -> u32 {
    views.snapshot(Some(name.as_bytes())).unwrap().epoch
}

fn settle(tree: &Tree) {
    while tree.settle_step().unwrap() {}
}

/// The newest and the oldest snapshot of each version, by name.
fn shown(versions: &[Version]) -> Vec<(&str, &str)> {
    versions
        .iter()
        .map(|version| {
            let newest = version.snapshot.as_ref().map_or("live", |snapshot| &snapshot.record.name);
            (newest, version.oldest.as_ref().map_or("live", |snapshot| &snapshot.record.name))
        })
        .collect()
}

fn versions(views: &Views, path: &str) -> Vec<(String, String)> {
    let found = views.tree().versions(views.base(), path.as_bytes()).unwrap();
    shown(&found).into_iter().map(|(newest, oldest)| (newest.to_string(), oldest.to_string())).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(newest, oldest)| (newest.to_string(), oldest.to_string())).collect()
}

#[test]
fn versions_end_where_something_changes_that_is_seen() {
    let views = in_memory();
    let tree = views.tree();
    let f = file(tree, "f");
    snap(&views, "empty");
    tree.write(f, 0, b"one", false).unwrap();
    tree.write(f, 0, b"two", false).unwrap();
    snap(&views, "small");
    snap(&views, "small again");
    // A time and a further name are no new version.
    tree.change(f, Change { mtime: Some(SetTime::To(Timestamp::default())), ..Change::default() }).unwrap();
    tree.link(f, root_of(LIVE), b"other name").unwrap();
    snap(&views, "touched");
    tree.change(f, Change { permissions: Some(0o600), ..Change::default() }).unwrap();
    snap(&views, "mode");
    tree.set_xattr(f, b"user.a", b"1", SetXattr::default()).unwrap();
    snap(&views, "xattr");
    tree.set_xattr(f, b"user.a", b"2", SetXattr::default()).unwrap();
    tree.set_xattr(f, b"user.a", b"1", SetXattr::default()).unwrap();
    snap(&views, "the same xattr");
    tree.write(f, 3 * TRACK, &[7; 100], false).unwrap();
    snap(&views, "large");
    // The times may lie: what counts are the bytes.
    let mtime = tree.inode(f, Moment::Live).unwrap().mtime;
    tree.write(f, 3 * TRACK, &[8; 100], false).unwrap();
    tree.change(f, Change { mtime: Some(SetTime::To(mtime)), ..Change::default() }).unwrap();
    let in_live =
        [("live", "live"), ("large", "large"), ("the same xattr", "xattr"), ("mode", "mode"), ("touched", "small")];
    assert_eq!(versions(&views, "f"), pairs(&[&in_live[..], &[("empty", "empty")]].concat()));
    assert_eq!(
        versions(&views, "other name"),
        pairs(&in_live[..4].iter().copied().chain([("touched", "touched")]).collect::<Vec<_>>())
    );
    let newest = &tree.versions(LIVE, b"f").unwrap()[0];
    assert_eq!((newest.time, newest.size, newest.kind), (mtime, 3 * TRACK + 100, Kind::File));
    // A snapshot that is gone shows nothing any more.
    views.delete(&[b"mode", b"small"]).unwrap();
    while tree.device().delete_step().unwrap() {}
    let left = [("live", "live"), ("large", "large"), ("the same xattr", "xattr"), ("touched", "small again")];
    assert_eq!(versions(&views, "f"), pairs(&[&left[..], &[("empty", "empty")]].concat()));
    match tree.versions(LIVE, b"no/such file") {
        Err(Error::Refused(Errno::NOENT, text)) => assert!(text.contains("no/such file"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn versions_follow_a_path_through_renamed_directories_and_replaced_files() {
    let views = in_memory();
    let tree = views.tree();
    let root = root_of(LIVE);
    let rename = |from: (InodeNo, &str), to: (InodeNo, &str)| {
        tree.rename(from.0, from.1.as_bytes(), to.0, to.1.as_bytes(), RenameMode::Replace).unwrap();
    };
    let d = make(tree, root, "d", Kind::Directory);
    let f = make(tree, d, "f", Kind::File);
    tree.write(f, 0, b"first", false).unwrap();
    snap(&views, "1");
    // Saved as editors do it.
    let new = make(tree, d, "f.new", Kind::File);
    tree.write(new, 0, b"second", false).unwrap();
    rename((d, "f.new"), (d, "f"));
    snap(&views, "2");
    rename((root, "d"), (root, "moved"));
    snap(&views, "3");
    let other = make(tree, root, "d", Kind::Directory);
    tree.write(make(tree, other, "f", Kind::File), 0, b"third", false).unwrap();
    snap(&views, "4");
    rename((root, "d"), (root, "away"));
    rename((root, "moved"), (root, "d"));
    assert_eq!(versions(&views, "d/f"), pairs(&[("live", "live"), ("4", "4"), ("2", "2"), ("1", "1")]));
    assert_eq!(versions(&views, "moved/f"), pairs(&[("4", "3")]));
    assert_eq!(versions(&views, "d"), pairs(&[("live", "live"), ("4", "4"), ("2", "2"), ("1", "1")]));
    assert_eq!(versions(&views, "/d/./f/"), versions(&views, "d/f"));
    assert_eq!(versions(&views, "").len(), 4);
    // Away and back where no snapshot sees it is nothing.
    snap(&views, "5");
    rename((root, "d"), (root, "gone for a moment"));
    rename((root, "gone for a moment"), (root, "d"));
    assert_eq!(versions(&views, "d/f")[0], ("live".to_string(), "5".to_string()));
}

#[test]
fn a_bitmap_has_the_lowest_bit_of_each_byte_first() {
    assert_eq!(bitmap(&[0..1, 3..5, 9..100], 12), [0b0001_1001, 0b0000_1110]);
    assert_eq!(bitmap(&[], 8), [0]);
    assert_eq!(bitmap(&[5..6], 0), [0u8; 0]);
}

fn tracks(found: &[ChangedTracks]) -> Vec<(String, Vec<Range<u64>>, bool)> {
    found
        .iter()
        .map(|file| (String::from_utf8(file.path.clone()).unwrap(), file.tracks.clone(), file.is_whole))
        .collect()
}

#[test]
fn changed_tracks_are_those_written_between_two_moments() {
    let views = in_memory();
    let tree = views.tree();
    let d = make(tree, root_of(LIVE), "d", Kind::Directory);
    let (big, small, gone) = (file(tree, "big"), make(tree, d, "small", Kind::File), make(tree, d, "gone", Kind::File));
    tree.write(big, 0, &vec![1; 10 * TRACK as usize], false).unwrap();
    tree.write(small, 0, b"small", false).unwrap();
    tree.write(gone, 0, &vec![1; 2 * TRACK as usize], false).unwrap();
    let before = Moment::At(snap(&views, "before"));
    tree.write(big, 2 * TRACK + 5, b"x", false).unwrap();
    tree.write(big, 5 * TRACK - 1, b"xx", false).unwrap();
    tree.write(big, 20 * TRACK, b"x", false).unwrap();
    tree.write(small, 0, b"other", false).unwrap();
    tree.unlink(d, b"gone").unwrap();
    let new = make(tree, d, "new", Kind::File);
    tree.write(new, TRACK, &vec![1; TRACK as usize], false).unwrap();
    tree.change(file(tree, "empty"), Change::default()).unwrap();
    let live = tree.changed_tracks(LIVE, before, Moment::Live, None).unwrap();
    let file = |name: &str, tracks: &[Range<u64>], is_whole| (name.to_string(), tracks.to_vec(), is_whole);
    let expected = [
        file("big", &[2..3, 4..6, 20..21], false),
        file("d/gone", &[0..2], true),
        file("d/new", &[1..2], true),
        file("d/small", &[0..1], false),
        file("empty", &[], true),
    ];
    assert_eq!(tracks(&live), expected, "in memory");
    assert_eq!((live[0].size_before, live[0].size_after), (Some(10 * TRACK), Some(20 * TRACK + 1)));
    assert_eq!((live[1].size_before, live[1].size_after), (Some(2 * TRACK), None));
    let after = Moment::At(snap(&views, "after"));
    assert_eq!(tracks(&tree.changed_tracks(LIVE, before, after, None).unwrap()), expected);
    let back = tree.changed_tracks(LIVE, after, before, None).unwrap();
    assert_eq!(tracks(&back), expected);
    assert_eq!((back[0].size_before, back[0].size_after), (Some(20 * TRACK + 1), Some(10 * TRACK)));
    assert_eq!(tracks(&tree.changed_tracks(LIVE, before, after, Some(b"d")).unwrap()), expected[1..4]);
    assert_eq!(tracks(&tree.changed_tracks(LIVE, before, after, Some(b"/d/new")).unwrap()), expected[2..3]);
    assert_eq!(tree.changed_tracks(LIVE, after, Moment::Live, None).unwrap(), []);
    let refused = tree.changed_tracks(LIVE, before, after, Some(b"d/nothing"));
    assert!(matches!(refused, Err(Error::Refused(Errno::NOENT, _))), "{refused:?}");
    views.delete(&[b"before"]).unwrap();
    let stale = tree.changed_tracks(LIVE, before, after, None);
    assert!(matches!(stale, Err(Error::Posix(Errno::STALE))), "{stale:?}");
}

#[test]
fn the_bits_of_a_snapshot_outlive_its_end() {
    let views = in_memory();
    let tree = views.tree();
    let (big, small, gone) = (file(tree, "big"), file(tree, "small"), file(tree, "gone"));
    tree.write(big, 0, &vec![1; 10 * TRACK as usize], false).unwrap();
    tree.write(small, 0, b"small", false).unwrap();
    tree.write(gone, 0, &vec![1; TRACK as usize], false).unwrap();
    let first = snap(&views, "first");
    tree.write(big, 2 * TRACK, b"x", false).unwrap();
    // What no snapshot has was never protected.
    tree.write(big, 30 * TRACK, b"x", false).unwrap();
    let bits = |epoch| tracks(&tree.session_bits(LIVE, epoch).unwrap());
    let file = |name: &str, track: u64, is_whole| (name.to_string(), vec![track..track + 1], is_whole);
    assert_eq!(bits(first), [file("big", 2, false)], "in memory");
    let second = snap(&views, "second");
    tree.write(big, 3 * TRACK, b"x", false).unwrap();
    tree.write(small, 0, b"other", false).unwrap();
    tree.change(big, Change { permissions: Some(0o600), ..Change::default() }).unwrap();
    tree.unlink(root_of(LIVE), b"gone").unwrap();
    while tree.reap_step().unwrap() {}
    assert_eq!(bits(first), [file("big", 2, false)]);
    assert_eq!(bits(second), [file("big", 3, false), file("gone", 0, true), file("small", 0, false)]);
    for name in ["first", "second"] {
        views.deactivate(name.as_bytes()).unwrap();
    }
    assert!(matches!(views.find(b"second").unwrap().unwrap().record.state, SnapshotState::Ended(_)));
    tree.write(big, 7 * TRACK, b"x", false).unwrap();
    tree.change(small, Change { permissions: Some(0o600), ..Change::default() }).unwrap();
    tree.commit().unwrap();
    assert_eq!(bits(first), [file("big", 2, false)]);
    // Where a file that is gone was is not known any more.
    assert_eq!(bits(second), [file("", 0, true), file("big", 3, false), file("small", 0, false)]);
    let third = snap(&views, "third");
    tree.write(big, 8 * TRACK, b"x", false).unwrap();
    assert_eq!(bits(second).len(), 3);
    assert_eq!(bits(third), [file("big", 8, false)]);
    assert!(matches!(tree.session_bits(LIVE, 1000), Err(Error::Posix(Errno::STALE))));
}

// Random operations.

struct Rng(u64);

impl Rng {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end.max(1)
    }

    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    fn pick<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        if all.is_empty() { None } else { Some(all[self.below(all.len())].clone()) }
    }
}

#[derive(Clone)]
struct Place {
    path: String,
    parent: InodeNo,
    name: String,
    inode: InodeNo,
    kind: Kind,
}

fn walk(tree: &Tree, base: BaseId, moment: Moment) -> Vec<Place> {
    let mut found = Vec::new();
    let mut directories = vec![(root_of(base), String::new())];
    while let Some((parent, path)) = directories.pop() {
        tree.list(parent, 0, moment, |entry| {
            let name = String::from_utf8(entry.name.clone()).unwrap();
            let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
            if entry.kind == Kind::Directory {
                directories.push((entry.inode, path.clone()));
            }
            found.push(Place { path, parent, name, inode: entry.inode, kind: entry.kind });
            Ok(true)
        })
        .unwrap();
    }
    found
}

/// What an operation may be refused for; anything else is a mistake.
fn allowed<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Error::Refused(..)) => None,
        Err(Error::Posix(errno)) => {
            use Errno as E;
            let all = [E::EXIST, E::NOENT, E::NOTDIR, E::ISDIR, E::NOTEMPTY, E::NODATA, E::INVAL, E::PERM, E::XDEV];
            assert!(all.contains(&errno), "{errno}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

struct World {
    views: Views,
    bases: Vec<BaseId>,
    rng: Rng,
    count: u64,
    /// Inodes that may have been written without having other bytes then.
    loose: BTreeSet<InodeNo>,
    restored: BTreeSet<BaseId>,
    /// Where increments of the first base go.
    archive: Option<(tempfile::TempDir, Arc<Archive>)>,
}

impl World {
    fn new(seed: u64) -> World {
        let rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut world = World {
            views: in_memory(),
            bases: vec![LIVE],
            rng,
            count: 0,
            loose: BTreeSet::new(),
            restored: BTreeSet::new(),
            archive: None,
        };
        if seed.is_multiple_of(2) {
            let dir = tempfile::tempdir().unwrap();
            let number = world.views.tree().device().store_number();
            let archive = Arc::new(Archive::open(dir.path(), (number, LIVE), index_entry, &mut |_| Ok(())).unwrap());
            world.views.tree().device().set_archive(LIVE, Some(archive.clone()));
            world.archive = Some((dir, archive));
        }
        world
    }

    /// Bytes that were never written before, none of them zero.
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        self.count += 1;
        let mut noise = Rng(self.count.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        (0..len).map(|_| noise.below(255) as u8 + 1).collect()
    }

    fn offset(&mut self) -> u64 {
        match self.rng.below(4) {
            0 => self.rng.below(900) as u64,
            1 => self.rng.below(6) as u64 * TRACK,
            _ => self.rng.below(100_000) as u64,
        }
    }

    /// Makes sure that a file has bytes it never had, or lets the comparison know that it may not.
    fn stamp(&mut self, inode: InodeNo) {
        if self.rng.percent(60) {
            let bytes = self.bytes(12);
            self.views.tree().write(inode, 0, &bytes, false).unwrap();
        } else {
            self.loose.insert(inode);
        }
    }

    fn moments(&self, base: BaseId) -> Vec<Moment> {
        let snapshots = self.views.of(base).all_snapshots().unwrap();
        let readable = snapshots.iter().filter(|snapshot| snapshot.is_readable());
        readable.map(|snapshot| Moment::At(snapshot.epoch)).chain([Moment::Live]).collect()
    }

    fn step(&mut self) {
        let base = self.rng.pick(&self.bases).unwrap();
        let views = self.views.of(base);
        let tree = views.tree();
        let all = walk(tree, base, Moment::Live);
        let of = |kind: Kind| all.iter().filter(|place| place.kind == kind).cloned().collect::<Vec<_>>();
        let mut directories: Vec<InodeNo> = of(Kind::Directory).iter().map(|place| place.inode).collect();
        directories.push(root_of(base));
        let directory = self.rng.pick(&directories).unwrap();
        let name = self.rng.pick(&["a", "b", "c", "d"]).unwrap();
        let any = self.rng.pick(&all);
        let file = self.rng.pick(&of(Kind::File)).map(|place| place.inode);
        match (self.rng.below(100), any, file) {
            (0..14, ..) => {
                let kind = self.rng.pick(&[Kind::File, Kind::File, Kind::Directory, Kind::Symlink]).unwrap();
                let new = New { kind, permissions: 0o755, rdev: 0, target: b"target" };
                let new = if kind == Kind::Symlink { new } else { New { target: b"", ..new } };
                allowed(tree.make(ROOT_USER, directory, name.as_bytes(), new));
            }
            (14..40, _, Some(file)) => {
                let len = if self.rng.percent(50) { 1 + self.rng.below(700) } else { 1 + self.rng.below(40_000) };
                let (offset, bytes) = (self.offset(), self.bytes(len));
                tree.write(file, offset, &bytes, false).unwrap();
            }
            (40..46, _, Some(file)) => {
                let change = Change { size: Some(self.offset()), ..Change::default() };
                tree.change(file, change).unwrap();
                self.stamp(file);
            }
            (46..50, _, Some(file)) => {
                let (offset, len) = (self.offset(), 1 + self.offset());
                tree.zero(file, offset, len, self.rng.percent(50), false).unwrap();
                self.stamp(file);
            }
            (50..55, _, Some(file)) => {
                let moment = self.rng.pick(&self.moments(base)).unwrap();
                let files: Vec<Place> =
                    walk(tree, base, moment).into_iter().filter(|place| place.kind == Kind::File).collect();
                if let Some(source) = self.rng.pick(&files) {
                    let offset = self.rng.below(3) as u64 * TRACK;
                    let from = Position { inode: source.inode, offset, moment };
                    tree.copy_range(from, file, self.rng.below(3) as u64 * TRACK, 1 << 20, false).unwrap();
                    self.loose.insert(file);
                    self.stamp(file);
                }
            }
            (55..60, Some(place), _) => {
                if place.kind == Kind::Directory {
                    allowed(tree.remove_directory(place.parent, place.name.as_bytes()));
                } else {
                    tree.unlink(place.parent, place.name.as_bytes()).unwrap();
                }
            }
            (60..70, Some(place), _) => {
                let target = all.iter().find(|other| other.inode == directory).map_or("", |place| &place.path);
                let is_inside = |inner: &str, outer: &str| inner == outer || inner.starts_with(&format!("{outer}/"));
                let new_path = if target.is_empty() { name.to_string() } else { format!("{target}/{name}") };
                let mode = self.rng.pick(&[RenameMode::Replace, RenameMode::Exchange]).unwrap();
                if !is_inside(&new_path, &place.path) && !is_inside(&place.path, &new_path) {
                    allowed(tree.rename(place.parent, place.name.as_bytes(), directory, name.as_bytes(), mode));
                }
            }
            (70..73, _, Some(file)) => {
                allowed(tree.link(file, directory, name.as_bytes()));
            }
            (73..79, Some(place), _) => {
                let value = self.bytes(5);
                let attribute = self.rng.pick(&[&b"user.a"[..], b"user.ab"]).unwrap();
                if place.kind == Kind::Symlink || self.rng.percent(30) {
                    allowed(tree.remove_xattr(place.inode, attribute));
                } else {
                    tree.set_xattr(place.inode, attribute, &value, SetXattr::default()).unwrap();
                }
            }
            (79..85, Some(place), _) => {
                let change = match self.rng.below(3) {
                    0 => Change { permissions: Some(0o700 + self.rng.below(3) as u32), ..Change::default() },
                    1 => Change { uid: Some(self.rng.below(3) as u32), ..Change::default() },
                    _ => Change { mtime: Some(SetTime::To(Timestamp::default())), ..Change::default() },
                };
                tree.change(place.inode, change).unwrap();
            }
            (85..87, ..) => tree.commit().unwrap(),
            (87..91, ..) => {
                tree.reap_step().unwrap();
                tree.device().delete_step().unwrap();
                tree.settle_step().unwrap();
            }
            (91, ..) => self.roll(),
            (92..96, ..) => {
                self.count += 1;
                snap(&views, &format!("{base}-{}", self.count));
            }
            (96.., ..) => self.change_snapshots(base),
            _ => {}
        }
    }

    /// Saves increments to the archive, and lets some of the snapshots that it has go.
    fn roll(&mut self) {
        let Some((_, archive)) = &self.archive else { return };
        let tree = self.views.tree();
        while tree.device().look().unwrap().is_settling(LIVE).unwrap() {
            settle(tree);
        }
        let from = archive.tip().map_or(0, |tip| tip.epoch);
        let mut all = self.views.snapshots().unwrap();
        all.retain(|snapshot| snapshot.epoch >= from && snapshot.is_readable());
        for pair in all.windows(2) {
            let (directory, pair) = (archive.directory(), (&pair[0], &pair[1]));
            tree.device().save_increment(directory, pair, 1, &mut |_| Ok(())).unwrap();
            archive.refresh(&mut |_| Ok(())).unwrap();
            let (directory, anchor) = (directory.to_path_buf(), Some(pair.1.epoch));
            self.views.set_archive(Some(ArchiveRecord { directory, anchor, saving: Vec::new() })).unwrap();
        }
        for snapshot in self.views.snapshots().unwrap() {
            let name = snapshot.record.name.as_bytes();
            if archive.mark(snapshot.epoch).is_some() && self.rng.percent(60) {
                allowed(self.views.delete(&[name]));
            }
        }
        while tree.device().delete_step().unwrap() {}
    }

    fn change_snapshots(&mut self, base: BaseId) {
        let views = self.views.of(base);
        let Some(snapshot) = self.rng.pick(&views.snapshots().unwrap()) else { return };
        let name = snapshot.record.name.as_bytes();
        let tip = self.archive.as_ref().and_then(|(_, archive)| archive.tip());
        let is_tip = base == LIVE && tip.is_some_and(|tip| tip.epoch == snapshot.epoch);
        self.count += 1;
        match self.rng.below(6) {
            0 | 1 => drop(allowed(views.delete(&[name]))),
            // What its archive leads to is needed.
            2 if !is_tip => drop(allowed(views.deactivate(name))),
            3 | 4 if snapshot.is_readable() => {
                allowed(views.restore(&snapshot));
                self.restored.insert(base);
            }
            5 if snapshot.is_readable() && self.bases.len() < 3 => {
                let name = format!("clone {}", self.count);
                let clone = views.clone_snapshot(&snapshot, name.as_bytes(), self.rng.percent(50), false).unwrap();
                self.bases.push(clone);
            }
            _ => {}
        }
    }

    fn check(&mut self, when: &str) {
        for base in self.bases.clone() {
            self.check_versions(base, when);
            self.check_changed(base, when);
        }
    }
}

/// All that a version is told apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    inode: InodeNo,
    attributes: (u32, u32, u32),
    bytes: Vec<u8>,
    entries: BTreeSet<(Vec<u8>, InodeNo)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

fn facts(tree: &Tree, inode: InodeNo, moment: Moment) -> Facts {
    let found = tree.inode(inode, moment).unwrap();
    let mut entries = BTreeSet::new();
    let bytes = match found.kind() {
        Kind::File => tree.read(inode, 0, found.size as usize, moment).unwrap(),
        Kind::Symlink => tree.read_link(inode, moment).unwrap(),
        _ => {
            tree.list(inode, 0, moment, |entry| Ok(entries.insert((entry.name.clone(), entry.inode)))).unwrap();
            Vec::new()
        }
    };
    let attributes = (found.mode, found.uid, found.gid);
    Facts { inode, attributes, bytes, entries, xattrs: tree.xattrs(inode, moment).unwrap() }
}

impl World {
    fn check_versions(&self, base: BaseId, when: &str) {
        let tree = self.views.tree();
        let moments = self.moments(base);
        let mut paths = vec![BTreeMap::new(); moments.len()];
        for (paths, moment) in paths.iter_mut().zip(&moments) {
            paths.insert(String::new(), root_of(base));
            paths.extend(walk(tree, base, *moment).into_iter().map(|place| (place.path, place.inode)));
        }
        // What was restored meanwhile, an archive cannot tell from what was written.
        let is_archived = |i: usize| tree.device().look().unwrap().is_archived(root_of(base), moments[i]).unwrap();
        let is_mixed = |i: usize| self.restored.contains(&base) && (is_archived(i) || is_archived(i - 1));
        let all: BTreeSet<&String> = paths.iter().flat_map(BTreeMap::keys).collect();
        for path in all {
            let shown: Vec<Option<Facts>> = moments
                .iter()
                .zip(&paths)
                .map(|(moment, paths)| paths.get(path).map(|inode| facts(tree, *inode, *moment)))
                .collect();
            let found = tree.versions(base, path.as_bytes()).unwrap();
            let moment_of = |snapshot: &Option<Snapshot>| {
                snapshot.as_ref().map_or(Moment::Live, |snapshot| Moment::At(snapshot.epoch))
            };
            let at = |moment| moments.iter().position(|other| *other == moment).unwrap();
            // The moments that each version claims, oldest first.
            let mut claims = vec![None; moments.len()];
            for (i, version) in found.iter().rev().enumerate() {
                let (first, last) = (at(moment_of(&version.oldest)), at(moment_of(&version.snapshot)));
                assert!(first <= last, "{when}: {path}: {:?}", self::shown(&found));
                for claim in &mut claims[first..=last] {
                    assert_eq!(claim.replace(i), None, "{when}: {path} is claimed twice: {:?}", self::shown(&found));
                }
                let inode = tree.inode(version.inode, moments[last]).unwrap();
                let told = (version.time, version.changed, version.size, version.kind);
                assert_eq!(told, (inode.mtime, inode.ctime, inode.size, inode.kind()), "{when}: {path}");
            }
            for (i, facts) in shown.iter().enumerate() {
                let what = || format!("{when}: base {base}, {path:?} at {:?}: {:?}", moments[i], self::shown(&found));
                assert_eq!(claims[i].is_some(), facts.is_some(), "{}", what());
                if i == 0 || claims[i].is_none() || claims[i - 1].is_none() {
                    assert!(i == 0 || claims[i].is_none() || claims[i] != claims[i - 1], "{}", what());
                } else if *facts != shown[i - 1] {
                    assert_ne!(claims[i], claims[i - 1], "{}", what());
                } else if !is_mixed(i) && !facts.as_ref().is_some_and(|facts| self.loose.contains(&facts.inode)) {
                    assert_eq!(claims[i], claims[i - 1], "{}", what());
                }
            }
        }
    }

    /// Everything that is known of the tracks of all files at a moment.
    fn files(&self, base: BaseId, moment: Moment) -> BTreeMap<InodeNo, File> {
        let tree = self.views.tree();
        let mut files: BTreeMap<InodeNo, File> = BTreeMap::new();
        for place in walk(tree, base, moment).into_iter().filter(|place| place.kind == Kind::File) {
            let file = files.entry(place.inode).or_insert_with(|| {
                let inode: Inode = tree.inode(place.inode, moment).unwrap();
                let bytes = tree.read(place.inode, 0, inode.size as usize, moment).unwrap();
                let look = tree.device().look().unwrap();
                let tracks = (0..inode.size.div_ceil(TRACK)).map(|track| Track {
                    is_dirty: moment == Moment::Live && look.is_in_memory(&(place.inode, track)),
                    record: look.value(Table::Track, &track_key(place.inode, track), moment).unwrap(),
                    bytes: bytes[(track * TRACK) as usize..].iter().copied().take(TRACK as usize).collect(),
                });
                let is_archived = look.is_archived(place.inode, moment).unwrap();
                let inline = inode.inline.to_vec();
                File { size: inode.size, inline, tracks: tracks.collect(), paths: Vec::new(), is_archived }
            });
            file.paths.push(place.path);
        }
        files
    }

    fn check_changed(&mut self, base: BaseId, when: &str) {
        let moments = self.moments(base);
        for _ in 0..4 {
            let (before, after) = (self.rng.pick(&moments).unwrap(), self.rng.pick(&moments).unwrap());
            let (old, new) = (self.files(base, before), self.files(base, after));
            let mut expected = BTreeMap::new();
            for inode in old.keys().chain(new.keys()) {
                let (old, new) = (old.get(inode), new.get(inode));
                let size = |file: Option<&File>| file.map(|file| file.size);
                let tracks = if before == after { BTreeSet::new() } else { differing(old, new) };
                let is_whole = old.is_some() != new.is_some();
                if is_whole || size(old) != size(new) || !tracks.is_empty() {
                    expected.insert(*inode, (size(old), size(new), tracks, is_whole));
                }
            }
            let what = format!("{when}: base {base} from {before:?} to {after:?}");
            let found = self.views.tree().changed_tracks(base, before, after, None).unwrap();
            let got: BTreeMap<_, _> = found
                .iter()
                .map(|file| {
                    let tracks: BTreeSet<u64> = file.tracks.iter().flat_map(Clone::clone).collect();
                    (file.inode, (file.size_before, file.size_after, tracks, file.is_whole))
                })
                .collect();
            for (inode, expected) in &expected {
                assert!(got.get(inode).is_some_and(|got| got.2.is_superset(&expected.2)), "{what}: {inode} {got:?}");
            }
            let mut may_be_more = BTreeSet::new();
            for (inode, got) in &got {
                let files = [old.get(inode), new.get(inode)];
                let is_archived = files.iter().flatten().any(|file| file.is_archived);
                // What was restored meanwhile, an archive cannot tell from what was written.
                let is_loose = is_archived && (self.restored.contains(&base) || self.loose.contains(inode));
                if is_loose {
                    may_be_more.insert(*inode);
                }
                assert!(is_loose || Some(got) == expected.get(inode), "{what}: {inode} {got:?}, {expected:?}");
            }
            assert_eq!(got.len(), found.len(), "{what}");
            for file in &found {
                let paths = new.get(&file.inode).or(old.get(&file.inode)).map(|file| &file.paths);
                let path = String::from_utf8(file.path.clone()).unwrap();
                assert!(paths.is_some_and(|paths| paths.contains(&path)), "{what}: {path:?} of {paths:?}");
                assert!(file.tracks.windows(2).all(|pair| pair[0].end < pair[1].start), "{what}");
            }
            let all = walk(self.views.tree(), base, before);
            let Some(place) = self.rng.pick(&all) else { continue };
            let is_below = |inode: &InodeNo| {
                let paths = [&old, &new].into_iter().filter_map(|files| files.get(inode)).flat_map(|file| &file.paths);
                let below = format!("{}/", place.path);
                paths.into_iter().any(|path| *path == place.path || path.starts_with(&below))
            };
            let found = self.views.tree().changed_tracks(base, before, after, Some(place.path.as_bytes())).unwrap();
            let got: BTreeSet<InodeNo> = found.iter().map(|file| file.inode).collect();
            let wanted: BTreeSet<InodeNo> = expected.keys().copied().filter(is_below).collect();
            assert!(wanted.is_subset(&got), "{what} below {}: {got:?}, expected {wanted:?}", place.path);
            assert!(got.difference(&wanted).all(|inode| may_be_more.contains(inode)), "{what}: {got:?}, {wanted:?}");
        }
    }

    /// What the increments of snapshots hold that can be read, once nothing is left to be settled.
    fn check_bits(&self, when: &str) {
        let tree = self.views.tree();
        settle(tree);
        while tree.device().delete_step().unwrap() {}
        for base in self.bases.clone() {
            let snapshots = self.views.of(base).snapshots().unwrap();
            let readable = |i: usize| snapshots.get(i).is_none_or(|snapshot| snapshot.is_readable());
            for (i, snapshot) in snapshots.iter().enumerate().filter(|(i, _)| readable(*i) && readable(i + 1)) {
                let next = snapshots.get(i + 1).map_or(Moment::Live, |next| Moment::At(next.epoch));
                let (old, new) = (self.files(base, Moment::At(snapshot.epoch)), self.files(base, next));
                let found = tree.session_bits(base, snapshot.epoch).unwrap();
                let got: BTreeMap<InodeNo, BTreeSet<u64>> = found
                    .iter()
                    .map(|file| (file.inode, file.tracks.iter().flat_map(Clone::clone).collect()))
                    .collect();
                for (inode, file) in &old {
                    let has = |track: &u64| match file.inline.is_empty() {
                        true => file.tracks[*track as usize].record.is_some(),
                        false => *track == 0,
                    };
                    let mut wanted = match new.get(inode) {
                        Some(new) => differing(Some(file), Some(new)),
                        // Its tracks are removed when nobody uses it any more.
                        None => continue,
                    };
                    wanted.retain(|track| (*track as usize) < file.tracks.len() && has(track));
                    let got = got.get(inode).cloned().unwrap_or_default();
                    let what = format!("{when}: bits of {} for {:?}", snapshot.record.name, file.paths);
                    assert!(got.is_superset(&wanted), "{what}: {got:?}, expected {wanted:?}");
                    // A restore may have brought back what was replaced.
                    let may_be_more = self.loose.contains(inode) || self.restored.contains(&base);
                    assert!(may_be_more || got == wanted, "{what}: {got:?}, expected {wanted:?}");
                }
            }
        }
    }
}

fn track_key(inode: InodeNo, track: u64) -> Vec<u8> {
    [&inode_prefix(inode)[..], &track.to_be_bytes()].concat()
}

struct Track {
    /// What the record says where it lies.
    record: Option<Vec<u8>>,
    is_dirty: bool,
    bytes: Vec<u8>,
}

struct File {
    size: u64,
    inline: Vec<u8>,
    tracks: Vec<Track>,
    paths: Vec<String>,
    is_archived: bool,
}

/// The tracks that differ, by where they lie; an archive names places in another way.
fn differing(old: Option<&File>, new: Option<&File>) -> BTreeSet<u64> {
    let count = [old, new].into_iter().flatten().map(|file| file.tracks.len()).max().unwrap_or(0);
    let inline = |file: Option<&File>| file.map_or(Vec::new(), |file| file.inline.clone());
    let archived = |file: Option<&File>| file.is_some_and(|file| file.is_archived);
    let differs = |track: &usize| {
        let [a, b] = [old, new].map(|file| file.and_then(|file| file.tracks.get(*track)));
        let record = |track: Option<&Track>| track.and_then(|track| track.record.clone());
        let is_dirty = [a, b].into_iter().flatten().any(|track| track.is_dirty);
        let is_moved = match archived(old) || archived(new) {
            false => record(a) != record(b),
            true => record(a).is_some() != record(b).is_some() || has_other_bytes(a, b),
        };
        is_dirty || is_moved || *track == 0 && inline(old) != inline(new)
    };
    (0..count).filter(differs).map(|track| track as u64).collect()
}

fn has_other_bytes(a: Option<&Track>, b: Option<&Track>) -> bool {
    let [a, b] = [a, b].map(|track| track.map_or(&[][..], |track| &track.bytes));
    let zeros = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let common = a.len().min(b.len());
    a[..common] != b[..common] || !zeros(&a[common..]) || !zeros(&b[common..])
}

#[test]
fn versions_and_tracks_are_those_that_reading_every_moment_shows() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("PITFS_SEED").unwrap_or(1);
    for seed in first..first + number("PITFS_SEEDS").unwrap_or(8) {
        let mut world = World::new(seed);
        for round in 0..8 {
            for _ in 0..60 {
                world.step();
            }
            world.check(&format!("seed {seed}, round {round}"));
            if world.rng.percent(20) {
                world.check_bits(&format!("seed {seed}, round {round}"));
                world.check(&format!("seed {seed}, round {round}, settled"));
            }
        }
    }
}

// What it costs.

/// A store in memory that counts reads of pages of its metadata.
#[derive(Clone, Debug, Default)]
struct Counting {
    dir: TestDir,
    reads: Arc<AtomicU64>,
}

#[derive(Debug)]
struct CountingFile {
    file: Arc<dyn Media>,
    reads: Arc<AtomicU64>,
}

impl MediaDir for Counting {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn Media>> {
        let file = self.dir.open(name, create)?;
        let reads = if name == "meta.redb" { self.reads.clone() } else { Arc::default() };
        Ok(Arc::new(CountingFile { file, reads }))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.dir.exists(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.dir.remove(name)
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.dir.replace(name, content)
    }

    fn room(&self) -> io::Result<Room> {
        self.dir.room()
    }

    fn describe(&self) -> String {
        self.dir.describe()
    }
}

impl Media for CountingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.file.read_at(offset, out)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.allocate(offset, len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.punch(offset, len)
    }
}

/// A file that changed five times while so many snapshots were taken: how many reads of metadata its versions
/// take, with nothing in caches, and how many it takes to list the snapshots after that.
fn reads_of_versions(snapshots: usize) -> (u64, u64) {
    let dir = Counting::default();
    let views = create(Arc::new(dir.clone()));
    let tree = views.tree();
    let d = make(tree, root_of(LIVE), "d", Kind::Directory);
    let (seldom, often) = (make(tree, d, "seldom", Kind::File), file(tree, "often"));
    tree.write(seldom, 0, &vec![1; 4 * TRACK as usize], false).unwrap();
    for i in 0..snapshots {
        tree.write(often, 0, &i.to_le_bytes(), false).unwrap();
        if i % (snapshots / 5) == 1 {
            tree.write(seldom, TRACK, &i.to_le_bytes(), false).unwrap();
        }
        snap(&views, &format!("s{i}"));
    }
    drop(views);
    let views = Views::new(Tree::open(Arc::new(dir.clone())).unwrap());
    let reads_of = |action: &dyn Fn()| {
        let before = dir.reads.load(Ordering::Relaxed);
        action();
        dir.reads.load(Ordering::Relaxed) - before
    };
    let reads = reads_of(&|| {
        let found = views.tree().versions(LIVE, b"d/seldom").unwrap();
        assert_eq!(found.len(), 6);
        assert_eq!(found[0].oldest.as_ref().unwrap().record.name, format!("s{}", snapshots / 5 * 4 + 1));
    });
    (reads, reads_of(&|| assert_eq!(views.snapshots().unwrap().len(), snapshots)))
}

#[test]
fn versions_cost_what_changed_and_not_what_was_kept() {
    let ((few, _), (many, all)) = (reads_of_versions(500), reads_of_versions(2000));
    assert!(many <= few + 4, "{many} reads of metadata with 2000 snapshots, {few} with 500");
    assert!(2 * many < all, "{many} reads of metadata, where listing the snapshots takes {all} more");
}

#[test]
fn what_a_restore_took_away_differs_before_it_is_settled() {
    let views = in_memory();
    let tree = views.tree();
    let snapshot = views.snapshot(Some(b"s")).unwrap();
    let d = make(tree, root_of(LIVE), "d", Kind::Directory);
    let e = make(tree, d, "e", Kind::Directory);
    tree.write(make(tree, e, "f", Kind::File), 0, b"text", false).unwrap();
    let before = Moment::At(views.restore(&snapshot).unwrap().before.epoch);
    let shown = |from, to| -> Vec<(DifferenceKind, Vec<u8>)> {
        tree.diff(LIVE, from, to).unwrap().into_iter().map(|found| (found.kind, found.path)).collect()
    };
    let all = |kind| [&b"d"[..], b"d/e", b"d/e/f"].map(|path| (kind, path.to_vec()));
    for _ in 0..2 {
        assert_eq!(shown(before, Moment::Live), all(DifferenceKind::Removed));
        assert_eq!(shown(Moment::Live, before), all(DifferenceKind::Added));
        let found = tree.changed_tracks(LIVE, before, Moment::Live, None).unwrap();
        assert_eq!(tracks(&found), [("d/e/f".to_string(), vec![0..1], true)]);
        settle(tree);
    }
}

#[test]
fn a_clone_has_versions_of_its_own() {
    let views = in_memory();
    let f = file(views.tree(), "f");
    let snapshot = views.snapshot(Some(b"s")).unwrap();
    let clone = views.clone_snapshot(&snapshot, b"clone", false, false).unwrap();
    let found = views.tree().versions(clone, b"f").unwrap();
    assert_eq!((found.len(), found[0].inode, found[0].snapshot.clone()), (1, in_base(clone, f), None));
    // The clone has no snapshots of its own.
    assert_eq!(found[0].oldest, None);
}
