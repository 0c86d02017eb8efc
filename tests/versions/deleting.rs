//! What deleting costs and frees, and what comparing many names costs: look-ups of metadata.
#![cfg(debug_assertions)]

use super::{TRACK, file, in_memory, make, settle, snap};
use pitfs::clock::Epoch;
use pitfs::device::{BaseId, LIVE, Moment};
use pitfs::meta::lookups;
use pitfs::tree::{Kind, root_of};
use pitfs::view::{CloneOptions, ToDelete, Views};

fn lookups_of<R>(action: impl FnOnce() -> R) -> (u64, R) {
    let before = lookups();
    let result = action();
    (lookups() - before, result)
}

/// What the background does. It commits now and then, so that what is removed is not passed for ever.
fn finish(views: &Views) {
    while views.tree().device().removal().step().unwrap() {
        views.tree().commit().unwrap();
    }
}

/// Look-ups of deleting so many snapshots, all but the first and the last, at once: of the command, of what is done in
/// the background, and of telling what it would free.
fn lookups_of_deleting(snapshots: usize) -> [u64; 3] {
    let views = in_memory();
    let (often, seldom) = (file(views.tree(), "often"), file(views.tree(), "seldom"));
    // What a snapshot that stays needs is not looked at again and again.
    let write = |byte| views.tree().files().write(seldom, 0, &vec![byte; 64 * TRACK as usize], false).unwrap();
    write(1);
    for i in 0..snapshots + 2 {
        if i == snapshots + 1 {
            write(2);
        }
        views.tree().files().write(often, 0, &i.to_le_bytes(), false).unwrap();
        snap(&views, &format!("s{i}"));
    }
    views.tree().commit().unwrap();
    let names: Vec<String> = (1..=snapshots).map(|i| format!("s{i}")).collect();
    let names: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
    let what = ToDelete { names: &names, of: &[LIVE], ..ToDelete::default() };
    let (planning, _) = lookups_of(|| {
        let plan = views.deletions().plan(&what).unwrap();
        let epochs = plan.snapshots.iter().map(|snapshot| snapshot.epoch).collect();
        views.tree().device().look().unwrap().freed_room().by_all(&[(LIVE, epochs)].into(), &[]).unwrap()
    });
    let (deleting, _) = lookups_of(|| views.deletions().delete_all(&what).unwrap());
    let (freeing, ()) = lookups_of(|| finish(&views));
    assert_eq!(views.snapshots().all().unwrap().len(), 2);
    [deleting, freeing, planning]
}

#[test]
fn deleting_many_costs_as_much_for_each_as_deleting_few() {
    let (few, many) = (lookups_of_deleting(250), lookups_of_deleting(2000));
    for (what, (few, many)) in ["deleting", "freeing", "planning"].iter().zip(few.into_iter().zip(many)) {
        assert!(few > 250, "{what}: {few} look-ups are counted for 250 snapshots");
        assert!(many < few * 8 * 5 / 4, "{what}: {many} look-ups for 2000 snapshots, {few} for 250");
    }
}

/// Look-ups of comparing a tree with one in which all so many names of a file went, and as many files were made anew.
fn lookups_of_comparing(names: usize) -> u64 {
    let views = in_memory();
    let tree = views.tree();
    let one = file(tree, "one");
    let links = make(tree, root_of(LIVE), "links", Kind::Directory);
    let files = make(tree, root_of(LIVE), "files", Kind::Directory);
    for i in 0..names {
        tree.names().link(one, links, format!("{i}").as_bytes()).unwrap();
        make(tree, files, &format!("{i}"), Kind::Symlink);
    }
    let before = snap(&views, "before");
    for i in 0..names {
        tree.names().unlink(links, format!("{i}").as_bytes()).unwrap();
        tree.names().unlink(files, format!("{i}").as_bytes()).unwrap();
        make(tree, files, &format!("{i}"), Kind::File);
    }
    views.tree().commit().unwrap();
    let (found, differences) = lookups_of(|| tree.comparison().diff(LIVE, Moment::At(before), Moment::Live).unwrap());
    assert_eq!(differences.len(), 2 * names);
    found
}

#[test]
fn comparing_many_names_costs_as_much_for_each_as_comparing_few() {
    let (few, many) = (lookups_of_comparing(250), lookups_of_comparing(2000));
    assert!(few > 250 && many < few * 8 * 5 / 4, "{many} look-ups for 2000 names, {few} for 250");
}

#[test]
fn what_deleting_would_free_is_what_it_frees() {
    let views = in_memory();
    let tree = views.tree();
    let (shared, own) = (file(tree, "shared"), file(tree, "own"));
    let write = |inode, byte: u8| tree.files().write(inode, 0, &vec![byte; 4 * TRACK as usize], false).unwrap();
    write(shared, 1);
    write(own, 2);
    snap(&views, "a");
    write(own, 3);
    snap(&views, "b");
    write(own, 4);
    let a = views.expect(b"a").unwrap();
    for (name, options) in [
        (&b"plain"[..], CloneOptions { is_shown_beside: true, ..CloneOptions::default() }),
        (b"full", CloneOptions { is_full: true, is_shown_beside: true, ..CloneOptions::default() }),
        (b"copied", CloneOptions { is_full: true, copies: true, is_shown_beside: true, ..CloneOptions::default() }),
    ] {
        views.bases().clone_all(&[(a.clone(), name.to_vec())], options, None).unwrap();
    }
    settle(tree);
    while views.bases().copy_step().unwrap() {}
    let plain = views.of(views.bases().named(b"plain").unwrap());
    plain.tree().files().write(own.in_base(plain.base()), 0, &[5; TRACK as usize], false).unwrap();
    snap(&plain, "mine");
    plain.tree().files().write(own.in_base(plain.base()), 0, &[6; TRACK as usize], false).unwrap();
    tree.commit().unwrap();
    let base = |name: &[u8]| views.bases().named(name).unwrap();
    for (names, trees, expected) in [
        (&[&b"b"[..]][..], &[][..], vec![]),
        (&[], &[base(b"full")][..], vec!["full"]),
        (&[], &[base(b"copied")], vec!["copied"]),
        // The clone that depends on it goes as well.
        (&[b"a"], &[], vec!["plain"]),
    ] {
        let what = ToDelete { names, of: &[LIVE], trees, is_recursive: true };
        let plan = views.deletions().plan(&what).unwrap();
        let goes: Vec<&str> = plan.bases.iter().map(|going| going.info.name.as_str()).collect();
        assert_eq!(goes, expected);
        let epochs: Vec<Epoch> = plan.snapshots.iter().map(|snapshot| snapshot.epoch).collect();
        let bases: Vec<BaseId> = plan.bases.iter().map(|going| going.info.id).collect();
        let freed = tree.device().look().unwrap().freed_room().by_all(&[(LIVE, epochs)].into(), &bases).unwrap();
        let used = || {
            tree.commit().unwrap();
            tree.device().log().usage().used
        };
        let before = used();
        views.deletions().delete_all(&what).unwrap();
        finish(&views);
        assert_eq!(freed.values().sum::<u64>(), before - used(), "{names:?} {expected:?}");
    }
}
