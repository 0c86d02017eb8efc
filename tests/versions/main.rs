//! The versions of paths and the tracks that changed, compared with what reading every moment shows.

#![allow(clippy::single_range_in_vec_init)]

mod cost;
mod deleting;
mod world;

use pitfs::clock::{Epoch, Timestamp};
use pitfs::device::{InodeNo, LIVE, Moment, SnapshotState};
use pitfs::error::{Errno, Error};
use pitfs::logstore::Codec;
use pitfs::media::{MediaDir, TestDir};
use pitfs::meta::Table;
use pitfs::tree::{
    Caller, Change, ChangedTracks, CreateOptions, DifferenceKind, Kind, New, RenameMode, SetTime, SetXattr, Tree,
    Version, bitmap, root_of,
};
use pitfs::view::Views;
use std::ops::Range;
use std::sync::Arc;

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
    tree.names().make(ROOT_USER, parent, name.as_bytes(), new).unwrap().0
}

fn file(tree: &Tree, name: &str) -> InodeNo {
    make(tree, root_of(LIVE), name, Kind::File)
}

fn snap(views: &Views, name: &str) -> Epoch {
    views.snapshots().take(Some(name.as_bytes())).unwrap().epoch
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
    let found = views.tree().comparison().versions(views.base(), path.as_bytes()).unwrap();
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
    tree.files().write(f, 0, b"one", false).unwrap();
    tree.files().write(f, 0, b"two", false).unwrap();
    snap(&views, "small");
    snap(&views, "small again");
    // A time and a further name are no new version.
    tree.attributes()
        .change(f, Change { mtime: Some(SetTime::To(Timestamp::default())), ..Change::default() })
        .unwrap();
    tree.names().link(f, root_of(LIVE), b"other name").unwrap();
    snap(&views, "touched");
    tree.attributes().change(f, Change { permissions: Some(0o600), ..Change::default() }).unwrap();
    snap(&views, "mode");
    tree.attributes().set_xattr(f, b"user.a", b"1", SetXattr::default()).unwrap();
    snap(&views, "xattr");
    tree.attributes().set_xattr(f, b"user.a", b"2", SetXattr::default()).unwrap();
    tree.attributes().set_xattr(f, b"user.a", b"1", SetXattr::default()).unwrap();
    snap(&views, "the same xattr");
    tree.files().write(f, 3 * TRACK, &[7; 100], false).unwrap();
    snap(&views, "large");
    // The times may lie: what counts are the bytes.
    let mtime = tree.inode(f.live()).unwrap().mtime;
    tree.files().write(f, 3 * TRACK, &[8; 100], false).unwrap();
    tree.attributes().change(f, Change { mtime: Some(SetTime::To(mtime)), ..Change::default() }).unwrap();
    let in_live =
        [("live", "live"), ("large", "large"), ("the same xattr", "xattr"), ("mode", "mode"), ("touched", "small")];
    assert_eq!(versions(&views, "f"), pairs(&[&in_live[..], &[("empty", "empty")]].concat()));
    assert_eq!(
        versions(&views, "other name"),
        pairs(&in_live[..4].iter().copied().chain([("touched", "touched")]).collect::<Vec<_>>())
    );
    let newest = &tree.comparison().versions(LIVE, b"f").unwrap()[0];
    assert_eq!((newest.time, newest.size, newest.kind), (mtime, 3 * TRACK + 100, Kind::File));
    // A snapshot that is gone shows nothing any more.
    views.deletions().delete(&[b"mode", b"small"]).unwrap();
    while tree.device().removal().step().unwrap() {}
    let left = [("live", "live"), ("large", "large"), ("the same xattr", "xattr"), ("touched", "small again")];
    assert_eq!(versions(&views, "f"), pairs(&[&left[..], &[("empty", "empty")]].concat()));
    match tree.comparison().versions(LIVE, b"no/such file") {
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
        tree.names().rename(from.0, from.1.as_bytes(), to.0, to.1.as_bytes(), RenameMode::Replace).unwrap();
    };
    let d = make(tree, root, "d", Kind::Directory);
    let f = make(tree, d, "f", Kind::File);
    tree.files().write(f, 0, b"first", false).unwrap();
    snap(&views, "1");
    // Saved as editors do it.
    let new = make(tree, d, "f.new", Kind::File);
    tree.files().write(new, 0, b"second", false).unwrap();
    rename((d, "f.new"), (d, "f"));
    snap(&views, "2");
    rename((root, "d"), (root, "moved"));
    snap(&views, "3");
    let other = make(tree, root, "d", Kind::Directory);
    tree.files().write(make(tree, other, "f", Kind::File), 0, b"third", false).unwrap();
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
        .map(|file| {
            let tracks = file.tracks.iter().map(|tracks| tracks.start.number()..tracks.end.number());
            (String::from_utf8(file.path.clone()).unwrap(), tracks.collect(), file.is_whole)
        })
        .collect()
}

#[test]
fn changed_tracks_are_those_written_between_two_moments() {
    let views = in_memory();
    let tree = views.tree();
    let d = make(tree, root_of(LIVE), "d", Kind::Directory);
    let (big, small, gone) = (file(tree, "big"), make(tree, d, "small", Kind::File), make(tree, d, "gone", Kind::File));
    tree.files().write(big, 0, &vec![1; 10 * TRACK as usize], false).unwrap();
    tree.files().write(small, 0, b"small", false).unwrap();
    tree.files().write(gone, 0, &vec![1; 2 * TRACK as usize], false).unwrap();
    let before = Moment::At(snap(&views, "before"));
    tree.files().write(big, 2 * TRACK + 5, b"x", false).unwrap();
    tree.files().write(big, 5 * TRACK - 1, b"xx", false).unwrap();
    tree.files().write(big, 20 * TRACK, b"x", false).unwrap();
    tree.files().write(small, 0, b"other", false).unwrap();
    tree.names().unlink(d, b"gone").unwrap();
    let new = make(tree, d, "new", Kind::File);
    tree.files().write(new, TRACK, &vec![1; TRACK as usize], false).unwrap();
    tree.attributes().change(file(tree, "empty"), Change::default()).unwrap();
    let live = tree.track_changes().changed_tracks(LIVE, before, Moment::Live, None).unwrap();
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
    assert_eq!(tracks(&tree.track_changes().changed_tracks(LIVE, before, after, None).unwrap()), expected);
    let back = tree.track_changes().changed_tracks(LIVE, after, before, None).unwrap();
    assert_eq!(tracks(&back), expected);
    assert_eq!((back[0].size_before, back[0].size_after), (Some(20 * TRACK + 1), Some(10 * TRACK)));
    assert_eq!(tracks(&tree.track_changes().changed_tracks(LIVE, before, after, Some(b"d")).unwrap()), expected[1..4]);
    assert_eq!(
        tracks(&tree.track_changes().changed_tracks(LIVE, before, after, Some(b"/d/new")).unwrap()),
        expected[2..3]
    );
    assert_eq!(tree.track_changes().changed_tracks(LIVE, after, Moment::Live, None).unwrap(), []);
    let refused = tree.track_changes().changed_tracks(LIVE, before, after, Some(b"d/nothing"));
    assert!(matches!(refused, Err(Error::Refused(Errno::NOENT, _))), "{refused:?}");
    views.deletions().delete(&[b"before"]).unwrap();
    let stale = tree.track_changes().changed_tracks(LIVE, before, after, None);
    assert!(matches!(stale, Err(Error::Gone)), "{stale:?}");
}

#[test]
fn the_bits_of_a_snapshot_outlive_its_end() {
    let views = in_memory();
    let tree = views.tree();
    let (big, small, gone) = (file(tree, "big"), file(tree, "small"), file(tree, "gone"));
    tree.files().write(big, 0, &vec![1; 10 * TRACK as usize], false).unwrap();
    tree.files().write(small, 0, b"small", false).unwrap();
    tree.files().write(gone, 0, &vec![1; TRACK as usize], false).unwrap();
    let first = snap(&views, "first");
    tree.files().write(big, 2 * TRACK, b"x", false).unwrap();
    // What no snapshot has was never protected, and has changed.
    tree.files().write(big, 30 * TRACK, b"x", false).unwrap();
    let saved = |epoch| tracks(&tree.track_changes().saved_tracks(LIVE, epoch, None).unwrap());
    let bits = |epoch| tracks(&tree.track_changes().session_bits(LIVE, epoch, None).unwrap());
    let is = |name: &str, tracks: &[Range<u64>], is_whole| (name.to_string(), tracks.to_vec(), is_whole);
    assert_eq!(bits(first), [is("big", &[2..3, 30..31], false)], "in memory");
    assert_eq!(saved(first), [is("big", &[2..3], false)], "in memory");
    let second = snap(&views, "second");
    tree.files().write(big, 3 * TRACK, b"x", false).unwrap();
    tree.files().write(big, 31 * TRACK, b"x", false).unwrap();
    tree.files().write(small, 0, b"other", false).unwrap();
    tree.attributes().change(big, Change { permissions: Some(0o600), ..Change::default() }).unwrap();
    tree.names().unlink(root_of(LIVE), b"gone").unwrap();
    while tree.reap_step().unwrap() {}
    let new = file(tree, "new");
    tree.files().write(new, 0, &vec![1; 2 * TRACK as usize], false).unwrap();
    let little = file(tree, "little");
    tree.files().write(little, 0, b"little", false).unwrap();
    let brief = file(tree, "brief");
    tree.files().write(brief, 0, &vec![1; TRACK as usize], false).unwrap();
    let of_first = [is("big", &[2..3, 30..31], false)];
    let shown = [
        is("big", &[3..4, 31..32], false),
        is("brief", &[0..1], true),
        is("gone", &[0..1], true),
        is("little", &[0..1], true),
        is("new", &[0..2], true),
        is("small", &[0..1], false),
    ];
    let saved_second = [is("big", &[3..4], false), is("gone", &[0..1], true), is("small", &[0..1], false)];
    assert_eq!((bits(first), bits(second)), (of_first.to_vec(), shown.to_vec()));
    assert_eq!((saved(first), saved(second)), (vec![is("big", &[2..3], false)], saved_second.to_vec()));
    for name in ["first", "second"] {
        views.snapshots().deactivate(name.as_bytes()).unwrap();
    }
    assert!(matches!(views.find(b"second").unwrap().unwrap().record.state, SnapshotState::Ended(_)));
    // Where a file that is gone was is not known any more.
    let mut ended = [&[is("", &[0..1], true)], &shown[..2], &shown[3..]].concat();
    assert_eq!((bits(first), bits(second)), (of_first.to_vec(), ended.clone()));
    // Whatever is done after that is in neither.
    for track in [7, 30, 31, 40] {
        tree.files().write(big, track * TRACK, b"y", false).unwrap();
    }
    tree.files().write(new, 0, &vec![2; 4 * TRACK as usize], false).unwrap();
    tree.files().write(little, 0, b"larger", false).unwrap();
    tree.files().write(file(tree, "later"), 0, &vec![1; TRACK as usize], false).unwrap();
    tree.names().unlink(root_of(LIVE), b"brief").unwrap();
    while tree.reap_step().unwrap() {}
    tree.attributes().change(small, Change { permissions: Some(0o600), ..Change::default() }).unwrap();
    tree.commit().unwrap();
    ended.remove(2);
    ended.insert(1, is("", &[0..1], true));
    assert_eq!((bits(first), bits(second)), (of_first.to_vec(), ended.clone()));
    // Nor what a snapshot kept that is gone again.
    let third = snap(&views, "third");
    tree.files().write(big, 8 * TRACK, b"x", false).unwrap();
    tree.files().write(new, TRACK, &vec![3; TRACK as usize], false).unwrap();
    assert_eq!((bits(first), bits(second)), (of_first.to_vec(), ended.clone()));
    assert_eq!(bits(third), [is("big", &[8..9], false), is("new", &[1..2], false)]);
    views.deletions().delete(&[b"third"]).unwrap();
    while tree.device().removal().step().unwrap() {}
    assert_eq!((bits(first), bits(second)), (of_first.to_vec(), ended.clone()));
    // What is read are the old bytes.
    let second_big = tree.track_changes().read_saved(second, big, 3 * TRACK..4 * TRACK).unwrap();
    assert_eq!(second_big, vec![1; TRACK as usize]);
    assert_eq!(tree.track_changes().read_saved(second, small, 0..100).unwrap(), b"small");
    for (inode, track) in [(big, 2), (big, 31), (new, 0), (little, 0)] {
        let read = tree.track_changes().read_saved(second, inode, track * TRACK..(track + 1) * TRACK);
        assert!(matches!(read, Err(Error::Refused(Errno::NODATA, _))), "{inode} {track}: {read:?}");
    }
    // With the last of them goes what was remembered for them.
    views.deletions().delete(&[b"second"]).unwrap();
    while tree.device().removal().step().unwrap() {}
    views.deletions().delete(&[b"first"]).unwrap();
    while tree.device().removal().step().unwrap() {}
    let look = tree.device().look().unwrap();
    assert_eq!(look.meta().range(Table::Passed, &[], &[u8::MAX; 40]).unwrap().count(), 0);
    drop(look);
    assert!(matches!(tree.track_changes().session_bits(LIVE, Epoch::new(1000), None), Err(Error::Gone)));
}

#[test]
fn what_a_restore_took_away_differs_before_it_is_settled() {
    let views = in_memory();
    let tree = views.tree();
    let snapshot = views.snapshots().take(Some(b"s")).unwrap();
    let d = make(tree, root_of(LIVE), "d", Kind::Directory);
    let e = make(tree, d, "e", Kind::Directory);
    tree.files().write(make(tree, e, "f", Kind::File), 0, b"text", false).unwrap();
    let before = Moment::At(views.restores().restore(&snapshot).unwrap().before.epoch);
    let shown = |from, to| -> Vec<(DifferenceKind, Vec<u8>)> {
        tree.comparison().diff(LIVE, from, to).unwrap().into_iter().map(|found| (found.kind, found.path)).collect()
    };
    let all = |kind| [&b"d"[..], b"d/e", b"d/e/f"].map(|path| (kind, path.to_vec()));
    for _ in 0..2 {
        assert_eq!(shown(before, Moment::Live), all(DifferenceKind::Removed));
        assert_eq!(shown(Moment::Live, before), all(DifferenceKind::Added));
        let found = tree.track_changes().changed_tracks(LIVE, before, Moment::Live, None).unwrap();
        assert_eq!(tracks(&found), [("d/e/f".to_string(), vec![0..1], true)]);
        settle(tree);
    }
}

#[test]
fn a_clone_has_versions_of_its_own() {
    let views = in_memory();
    let f = file(views.tree(), "f");
    let snapshot = views.snapshots().take(Some(b"s")).unwrap();
    let clone = views.bases().clone_snapshot(&snapshot, b"clone", false, false).unwrap();
    let found = views.tree().comparison().versions(clone, b"f").unwrap();
    assert_eq!((found.len(), found[0].inode, found[0].snapshot.clone()), (1, f.in_base(clone), None));
    // The clone has no snapshots of its own.
    assert_eq!(found[0].oldest, None);
}
