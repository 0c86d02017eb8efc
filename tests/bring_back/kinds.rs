//! Each kind of change at a path is undone.

use super::store::*;
use pitfs::device::Moment;
use pitfs::error::{Errno, Error};
use pitfs::tree::{Kind, RenameMode};

/// A list that lets user 1000 read and write.
fn acl() -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(1u16, 6u16, u32::MAX), (2, 6, 1000), (4, 4, u32::MAX), (0x10, 6, u32::MAX), (0x20, 0, u32::MAX)]
    {
        bytes.extend([tag.to_le_bytes(), permissions.to_le_bytes()].concat());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// A tree with some of everything, in `top`, and something beside it.
fn sample(store: &Store) {
    store.mkdir("top");
    store.mkdir("top/dir");
    store.mkdir("top/dir/deep");
    store.mkdir("beside");
    store.write("beside/file", b"not to be touched");
    store.write("top/tiny", b"inline");
    store.write("top/file", &noise(1, 100_000));
    store.write("top/dir/file", &noise(2, 50_000));
    store.write("top/dir/deep/file", &noise(3, 20_000));
    store.write(b"top/dir/not \xff utf8", b"odd");
    store.link("top/file", "top/dir/linked");
    store.make("top/symlink", Kind::Symlink, b"some/where");
    store.make("top/fifo", Kind::Fifo, b"");
    store.make("top/device", Kind::CharDevice, b"");
    let sparse = store.write("top/sparse", &noise(4, 10_000));
    store.write_at(sparse, 40 * TRACK, &noise(5, 30_000));
    store.resize(sparse, 1 << 40);
    store.set_xattr("top/dir", "user.kind", b"directory");
    store.set_xattr("top/file", "user.one", b"1");
    store.set_xattr("top/file", "system.posix_acl_access", &acl());
    for path in ["top/file", "top/dir/deep", "top/dir", "top", "top/symlink"] {
        store.utime(path, 1_000_000_000);
    }
}

/// Does something to the sample, brings paths back, and then all of it.
#[track_caller]
fn undoes(what: impl Fn(&Store), paths: &[&str]) -> Store {
    let store = Store::new();
    sample(&store);
    let then = store.snap("then");
    what(&store);
    let paths: Vec<&[u8]> = paths.iter().map(|path| path.as_bytes()).collect();
    let report = store.back(&then, &paths);
    assert!(report.files + report.removed > 0, "{report:?}");
    store.back_again(&then, &paths);
    store.check();
    // And back again.
    let before = store.views().find(report.before.as_bytes()).unwrap().unwrap();
    store.back(&before, &[b""]);
    store.check();
    store
}

#[test]
fn content() {
    undoes(|store| store.write_at(store.at("top/file"), 20_000, b"changed"), &["top/file"]);
    undoes(|store| store.write_at(store.at("top/file"), 20_000, b"changed"), &["top"]);
    undoes(|store| store.resize(store.at("top/file"), 30_000), &["top/file"]);
    undoes(|store| store.resize(store.at("top/file"), 100), &["top/file"]);
    undoes(|store| store.resize(store.at("top/file"), 200_000), &["top/file"]);
    undoes(|store| store.write_at(store.at("top/file"), 300_000, b"behind the end"), &["top/file"]);
    undoes(
        |store| {
            store.write("top/file", b"tiny");
        },
        &["top/file"],
    );
    undoes(
        |store| {
            store.write("top/tiny", &noise(9, 90_000));
        },
        &["top/tiny"],
    );
    undoes(
        |store| {
            store.write("top/tiny", b"other");
        },
        &["top/tiny"],
    );
    undoes(|store| store.resize(store.at("top/sparse"), 20 * TRACK), &["top/sparse"]);
    undoes(|store| store.write_at(store.at("top/sparse"), 20 * TRACK, &noise(6, 99)), &["top/sparse"]);
    undoes(|store| store.write_at(store.at("top/sparse"), 1 << 39, &noise(6, 99)), &["top/sparse"]);
    let punch =
        |store: &Store| store.tree().files().zero(store.at("top/sparse"), 41 * TRACK, TRACK, true, false).unwrap();
    undoes(punch, &["top/sparse"]);
    let is_in_place = undoes(|store| store.write_at(store.at("top/dir/file"), 0, b"changed"), &["top/dir/file"]);
    assert_eq!(is_in_place.at("top/dir/file"), is_in_place.picture(Moment::Live).inodes[&b"top/dir/file"[..]]);
}

#[test]
fn an_inode_stays_what_it_is() {
    let store = Store::new();
    sample(&store);
    let then = store.snap("then");
    let (file, tiny, dir) = (store.at("top/file"), store.at("top/tiny"), store.at("top/dir"));
    store.write("top/file", b"x");
    store.write("top/tiny", &noise(1, 99_999));
    store.chmod("top/dir", 0o700);
    store.back(&then, &[b"top"]);
    assert_eq!((file, tiny, dir), (store.at("top/file"), store.at("top/tiny"), store.at("top/dir")));
}

#[test]
fn names() {
    let replace = |store: &Store| {
        store.write("top/new", &noise(7, 70_000));
        store.rename("top/new", "top/dir/file");
    };
    undoes(replace, &["top/dir/file"]);
    undoes(replace, &["top"]);
    undoes(|store| store.remove("top/dir/file"), &["top/dir/file"]);
    undoes(|store| store.remove("top/dir/file"), &["top/dir"]);
    undoes(|store| store.remove("top"), &["top"]);
    undoes(|store| store.remove("top"), &["top/dir/deep/file"]);
    undoes(|store| store.remove("top"), &["top/dir", "top/fifo", "top/dir/file"]);
    undoes(|store| store.remove("top"), &[""]);
    undoes(|store| store.remove("top/symlink"), &["top/symlink"]);
    undoes(|store| store.remove("top/device"), &["top/device", "/top//fifo/"]);
    undoes(
        |store| {
            store.write("top/more", b"x");
        },
        &["top"],
    );
    let more = |store: &Store| {
        store.mkdir("top/more");
        store.mkdir("top/more/deep");
        store.write("top/more/deep/file", b"x");
    };
    undoes(more, &["top"]);
    undoes(more, &[""]);
    let symlink = |store: &Store| {
        store.remove("top/symlink");
        store.make("top/symlink", Kind::Symlink, b"else/where");
    };
    undoes(symlink, &["top/symlink"]);
}

#[test]
fn renamed() {
    // Outside: that name keeps what it has.
    undoes(|store| store.rename("top/dir/file", "beside/kept"), &["top/dir/file"]);
    undoes(|store| store.rename("top/dir", "beside/kept"), &["top"]);
    undoes(|store| store.rename("top/dir", "beside/kept"), &["top/dir/deep"]);
    undoes(|store| store.rename("top", "beside/kept"), &["top"]);
    undoes(|store| store.rename("top/dir", "top/kept"), &["top/dir"]);
    // Inside.
    undoes(|store| store.rename("top/dir/file", "top/dir/deep/moved"), &["top"]);
    let moved = |store: &Store| {
        store.rename("top/dir", "top/moved");
        store.write("top/moved/more", b"x");
        store.write("top/moved/deep/file", b"y");
    };
    undoes(moved, &["top"]);
    undoes(|store| store.rename_as("top/dir/deep", "top/fifo", RenameMode::Exchange), &["top"]);
    undoes(|store| store.rename_as("top/dir", "top/file", RenameMode::Exchange), &["top/file", "top/dir"]);
    undoes(|store| store.rename_as("top/file", "top/dir/file", RenameMode::Exchange), &["top"]);
    let turned_over = |store: &Store| {
        store.rename("top/dir/deep", "top/deep");
        store.rename("top/dir", "top/deep/dir");
        store.rename("top/deep", "top/dir");
    };
    undoes(turned_over, &["top"]);
    let in_itself = |store: &Store| {
        store.rename("top/file", "top/t");
        store.mkdir("top/file");
        store.rename("top/t", "top/file/t");
    };
    undoes(in_itself, &["top/file"]);
    undoes(in_itself, &["top"]);
}

#[test]
fn a_directory_that_was_moved_inside_is_moved_back() {
    let store = Store::new();
    sample(&store);
    for i in 0..300 {
        store.write(format!("top/dir/deep/{i}"), format!("{i}").as_bytes());
    }
    let then = store.snap("then");
    let deep = store.at("top/dir/deep");
    store.rename("top/dir/deep", "top/moved");
    let report = store.back(&then, &[b"top"]);
    assert_eq!((store.at("top/dir/deep"), report.files, report.removed), (deep, 1, 0));
}

#[test]
fn attributes() {
    undoes(|store| store.chmod("top/file", 0o4711), &["top/file"]);
    undoes(|store| store.chmod("top/dir", 0o1777), &["top/dir"]);
    undoes(|store| store.chown("top/symlink", 5, 6), &["top/symlink"]);
    undoes(|store| store.chown("top/dir/deep", 5, 6), &["top"]);
    undoes(|store| store.utime("top/dir/deep/file", 77), &["top/dir/deep/file"]);
    undoes(|store| store.set_xattr("top/file", "user.one", b"2"), &["top/file"]);
    undoes(|store| store.set_xattr("top/file", "user.two", b"2"), &["top"]);
    let remove = |path: &'static str, name: &'static str| {
        move |store: &Store| store.tree().attributes().remove_xattr(store.at(path), name.as_bytes()).unwrap()
    };
    undoes(remove("top/dir", "user.kind"), &["top"]);
    undoes(remove("top/file", "system.posix_acl_access"), &["top/file"]);
    let large = |store: &Store| {
        for i in 0..40 {
            store.set_xattr("top/tiny", &format!("user.{i}"), &noise(i, 60_000));
        }
    };
    let store = undoes(large, &["top/tiny"]);
    let then = store.snap("large");
    store.remove("top/tiny");
    store.back(&then, &[b"top/tiny"]);
    undoes(|store| store.chmod("", 0o700), &["/"]);
}

#[test]
fn times_of_a_directory() {
    let store = Store::new();
    sample(&store);
    let then = store.snap("then");
    store.utime("top/dir/deep", 77);
    store.back(&then, &[b"top"]);
    store.back_again(&then, &[b"top"]);
}

#[test]
fn kinds() {
    let file_to_directory = |store: &Store| {
        store.remove("top/file");
        store.mkdir("top/file");
        store.mkdir("top/file/below");
        store.write("top/file/below/x", b"x");
    };
    undoes(file_to_directory, &["top/file"]);
    undoes(file_to_directory, &["top"]);
    let directory_to_file = |store: &Store| {
        store.remove("top/dir");
        store.write("top/dir", &noise(8, 40_000));
    };
    undoes(directory_to_file, &["top/dir"]);
    undoes(directory_to_file, &["top"]);
    let anew = |store: &Store| {
        store.remove("top/dir");
        store.mkdir("top/dir");
        store.mkdir("top/dir/file");
        store.write("top/dir/deep", b"x");
    };
    undoes(anew, &["top/dir"]);
    undoes(anew, &["top"]);
    let symlink = |store: &Store| {
        store.remove("top/dir");
        store.make("top/dir", Kind::Symlink, b"..");
    };
    undoes(symlink, &["top/dir"]);
    undoes(
        |store| {
            store.remove("top/fifo");
            store.make("top/fifo", Kind::Socket, b"");
        },
        &["top/fifo"],
    );
}

#[test]
fn hard_links() {
    // Both names are brought back: they are one file again.
    let parted = |store: &Store| {
        store.remove("top/dir/linked");
        store.write("top/dir/linked", b"another file");
    };
    undoes(parted, &["top"]);
    undoes(parted, &["top/file", "top/dir"]);
    undoes(|store| store.remove("top/dir/linked"), &["top"]);
    let both = |store: &Store| {
        store.remove("top/dir/linked");
        store.remove("top/file");
    };
    undoes(both, &["top"]);
    undoes(both, &["top/file"]);
    // Files that were two become two again.
    let joined = |store: &Store| {
        store.remove("top/tiny");
        store.link("top/dir/file", "top/tiny");
    };
    undoes(joined, &["top"]);
    undoes(joined, &["top/tiny"]);
    // A name from outside keeps what it has.
    let outside = |store: &Store| {
        store.link("top/file", "beside/link");
        store.write_at(store.at("top/file"), 0, b"changed");
    };
    undoes(outside, &["top"]);
    undoes(outside, &["top/file"]);
    let moved = |store: &Store| {
        store.rename("top/file", "beside/link");
        store.write_at(store.at("beside/link"), 0, b"changed");
    };
    undoes(moved, &["top"]);
    // A file whose names are on both sides, as they were then, changes with both.
    let store = undoes(|store| store.write_at(store.at("top/file"), 0, b"changed"), &["top/file"]);
    let then = store.snap("again");
    store.write("top/file", b"changed again");
    store.back(&then, &[b"top/file"]);
    assert_eq!(store.at("top/file"), store.at("top/dir/linked"));
}

#[test]
fn deep_directories() {
    let store = Store::new();
    let mut path = b"d".to_vec();
    store.mkdir(&path);
    for _ in 0..600 {
        path.extend(b"/d");
        store.mkdir(&path);
    }
    let file = [&path[..], b"/file"].concat();
    store.write(&file, b"at the bottom");
    let then = store.snap("then");
    store.write(&file, b"changed");
    store.back(&then, &[b"d"]);
    store.back_again(&then, &[b"d"]);
    store.remove("d/d/d");
    store.back(&then, &[b"d"]);
    store.rename("d", "e");
    store.back(&then, &[&file]);
    store.back(&then, &[b""]);
    store.check();
}

#[test]
fn many_entries() {
    let store = Store::new();
    store.mkdir("d");
    for i in 0..3000 {
        store.write(format!("d/{i}"), format!("{i}").as_bytes());
    }
    let then = store.snap("then");
    for i in (0..3000).step_by(3) {
        store.remove(format!("d/{i}"));
        store.write(format!("d/more {i}"), b"more");
        store.write(format!("d/{}", i + 1), b"changed");
    }
    let report = store.back(&then, &[b"d"]);
    assert_eq!((report.files, report.removed), (2000, 1000));
    store.back_again(&then, &[b"d"]);
    store.check();
}

#[test]
fn what_is_refused_changes_nothing() {
    let store = Store::new();
    sample(&store);
    let then = store.snap("then");
    store.write("top/file", b"changed");
    store.write("top/later", b"x");
    store.remove("top/dir/deep");
    store.write("top/dir/deep", b"in the way");
    let refused = |paths: &[&str], errno: Errno, words: &[&str]| {
        let paths: Vec<&[u8]> = paths.iter().map(|path| path.as_bytes()).collect();
        let error = store.try_back(&then, &paths).unwrap_err();
        assert_eq!(error.errno(), errno, "{error}");
        for word in words {
            assert!(error.to_string().contains(word), "{error}");
        }
    };
    refused(
        &["top/file", "top/later", "missing/at all", "top/file/below"],
        Errno::NOENT,
        &["\"top/later\"", "\"missing/at all\"", "\"top/file/below\"", "\"then\""],
    );
    refused(&["top/file", "top/dir/deep/file"], Errno::NOTDIR, &["\"top/dir/deep\""]);
    refused(&["top/../top"], Errno::INVAL, &[".."]);
    refused(&[], Errno::INVAL, &[]);
    let of_another = store.views().bases().clone_snapshot(&then, b"clone", false, true).unwrap();
    let clone = store.views().of(of_another);
    let error = store.daemon.path_restores().bring_back(&clone, &then, &[], &mut |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("clone"), "{error}");
    assert_eq!(store.views().snapshots().all().unwrap().len(), 1);
    assert_eq!(store.read("top/file"), b"changed");
}

#[test]
fn work_that_was_stopped_is_completed() {
    let store = Store::new();
    sample(&store);
    for i in 0..50 {
        store.write(format!("top/dir/{i}"), format!("{i}").as_bytes());
    }
    let then = store.snap("then");
    let mess = |store: &Store| {
        store.write("top/dir/deep/file", b"changed");
        store.rename("top/dir", "top/moved");
        store.write("top/dir", b"in the way");
        store.write("top/file", &noise(12, 90_000));
        for i in 0..50 {
            store.write(format!("top/moved/{i}"), b"changed");
        }
    };
    mess(&store);
    for stop in 0.. {
        let mut count = 0;
        let result = store.back_with(&then, &[b"top"], &mut |_| {
            count += 1;
            if count > stop * 7 { Err(Error::Posix(Errno::INTR)) } else { Ok(()) }
        });
        store.check();
        match result {
            Ok(report) => {
                assert!(stop > 3 && report.problems.is_empty());
                break;
            }
            Err(error) => assert_eq!(error.errno(), Errno::INTR),
        }
    }
    let report = store.back(&then, &[b"top"]);
    assert_eq!((report.files, report.removed), (0, 0));
}

#[test]
fn in_a_clone() {
    let store = Store::new();
    sample(&store);
    let then = store.snap("then");
    let clone = store.views().of(store.views().bases().clone_snapshot(&then, b"clone", false, true).unwrap());
    let mine = clone.snapshots().take(Some(b"mine")).unwrap();
    let root = pitfs::tree::root_of(clone.base());
    let top = store.tree().names().lookup(root.live(), b"top").unwrap().0;
    let (file, _) = store.tree().names().lookup(top.live(), b"file").unwrap();
    store.write_at(file, 0, b"changed");
    let (dir, _) = store.tree().names().lookup(top.live(), b"dir").unwrap();
    store.tree().names().unlink(dir, b"file").unwrap();
    let paths = [serde_bytes::ByteBuf::from("top")];
    let (report, _) = store.daemon.path_restores().bring_back(&clone, &mine, &paths, &mut |_| Ok(())).unwrap();
    assert_eq!((report.files, report.removed, report.problems.len()), (2, 0, 0), "{report:?}");
    assert_eq!(store.tree().files().read(file.live(), 0, 1 << 20).unwrap(), noise(1, 100_000));
    let (file, _) = store.tree().names().lookup(dir.live(), b"file").unwrap();
    assert_eq!(store.tree().files().read(file.live(), 0, 1 << 20).unwrap(), noise(2, 50_000));
    let differences = store.tree().comparison().diff(clone.base(), Moment::At(mine.epoch), Moment::Live).unwrap();
    assert_eq!(differences, []);
    assert_eq!(store.read("top/dir/file"), noise(2, 50_000), "the clone's origin is untouched");
}

#[test]
fn after_restores_that_are_not_settled() {
    let store = Store::new();
    sample(&store);
    let one = store.snap("one");
    store.write("top/dir/file", b"two");
    store.remove("top/dir/deep");
    let two = store.snap("two");
    store.views().restores().restore(&one).unwrap();
    let three = store.snap("three");
    store.views().restores().restore(&two).unwrap();
    // What the second restore went back over has the first in it.
    store.back(&three, &[b"top"]);
    store.back(&two, &[b"top/dir"]);
    store.back(&one, &[b""]);
    store.check();
}

/// Names that stay lead to what they led to before, whether they come before or behind those that their inodes are restored for.
#[test]
fn what_cannot_be_read_stays_as_it_is() {
    for (lost, other) in [("a", "b"), ("b", "a")] {
        for is_linked in [false, true] {
            let store = Store::new();
            store.mkdir("top");
            let [lost, other] = [lost, other].map(|name| format!("top/{name}"));
            store.write(&lost, &noise(31, 2_000_000));
            let inode = store.write(&other, &noise(32, 2_000_000));
            store.write("top/c", &noise(33, 10_000));
            let then = store.snap("then");
            store.keep(&then);
            store.views().deletions().delete(&[b"then"]).unwrap();
            store.damage_kept(&noise(31, 32));
            store.remove(&lost);
            match is_linked {
                true => store.link(&other, &lost),
                false => store.rename(&other, &lost),
            }
            store.link(&lost, "top/more");
            store.write(&lost, b"new");
            store.write("top/c", b"new as well");
            let times = store.inode(&lost).mtime;
            let report = store.back_from_set("then", &[b"top"]).unwrap();
            assert!(report.problems.len() == 1 && report.problems[0].contains(&lost), "{:?}", report.problems);
            assert_eq!((store.read(&lost), store.inode(&lost).mtime), (b"new".to_vec(), times), "{lost}, {is_linked}");
            assert_eq!((store.read(&other), store.at(&other)), (noise(32, 2_000_000), inode));
            assert!(store.read("top/c") == noise(33, 10_000) && !store.exists("top/more"));
            // Once more, it is the same.
            let report = store.back_from_set("then", &[b"top"]).unwrap();
            assert_eq!((report.files, report.problems.len()), (0, 1));
            assert_eq!(store.read(&lost), b"new");
            store.check();
        }
    }
}

/// What a restore brought goes, what it changed or removed comes back, and nothing else is touched; told before, and taken back in turn.
#[test]
fn an_undo_takes_back_what_a_restore_did() {
    let store = Store::new();
    sample(&store);
    store.mkdir("gone");
    store.mkdir("gone/deep");
    store.write("gone/deep/file", b"was there");
    store.write("gone/deep/beside", b"is not asked for");
    let then = store.snap("then");
    store.remove("gone");
    store.write("top/file", b"changed");
    store.write("top/dir/new", b"made since");
    store.remove("top/dir/deep");
    let paths: [&[u8]; 3] = [b"gone/deep/file", b"top/file", b"top/dir"];
    let before = store.picture(Moment::Live);
    assert!(store.views().restores().last_undo().is_err());
    store.back(&then, &paths);
    assert!(store.exists("gone/deep/file") && !store.exists("top/dir/new"));
    let restored = store.picture(Moment::Live);
    store.write("top/other", b"changed after the restore");
    let done = store.undo();
    // The file and both directories that led to it, and what the restore had brought back below `top/dir`.
    assert_eq!(done.removed, 3 + 2, "{done:?}");
    assert!(!store.exists("gone") && store.exists("top/dir/new") && !store.exists("top/dir/deep"));
    assert_eq!(
        (store.read("top/file"), store.read("top/other")),
        (b"changed".to_vec(), b"changed after the restore".to_vec())
    );
    let is_asked_for = |path: &[u8]| path.starts_with(b"gone") || path == b"top/file" || path.starts_with(b"top/dir");
    assert_same(&before.part(&is_asked_for), &store.picture(Moment::Live).part(&is_asked_for), "undone");
    store.undo();
    assert_same(&restored.part(&is_asked_for), &store.picture(Moment::Live).part(&is_asked_for), "and taken back");
    assert_eq!(store.read("top/other"), b"changed after the restore");
    // Of everything.
    let all = store.views().restores().restore(&then).unwrap();
    let (kept, paths) = store.views().restores().last_undo().unwrap();
    assert_eq!((kept.record.id, paths.len()), (all.before.record.id, 0));
    store.views().deletions().delete(&[all.before.record.name.as_bytes()]).unwrap();
    assert!(store.views().restores().last_undo().unwrap_err().to_string().contains("not kept any more"));
    store.check();
}
