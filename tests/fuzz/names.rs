//! Names from outside: of snapshots and files, mount options, and paths given to commands.

use super::sample::*;
use super::watch::{Target, watched};
use pitfs::daemon::{Daemon, FORMAT, RestoreOptions, SyncOptions};
use pitfs::device::Moment;
use pitfs::logstore::Codec;
use pitfs::media::TestDir;
use pitfs::tree::*;
use pitfs::view::{Views, check_name};
use serde_bytes::ByteBuf;
use std::fs;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const CALLER: Caller = Caller { uid: 1, gid: 2, umask: 0 };

fn sample() -> &'static TestDir {
    static SAMPLE: OnceLock<TestDir> = OnceLock::new();
    SAMPLE.get_or_init(|| store(Codec::None))
}

#[test]
fn names_of_snapshots_are_good_or_refused() {
    bolero::check!().with_test_time(Duration::from_millis(500)).for_each(|name| {
        let is_good = check_name(name).is_ok();
        let text = std::str::from_utf8(name);
        let may_be = text.is_ok_and(|text| {
            let is_plain = !text.contains('/') && !text.chars().any(char::is_control) && !text.starts_with('@');
            !text.is_empty() && text.len() <= 255 && is_plain
        });
        assert_eq!(
            is_good,
            may_be && !["live", ".", "..", ".snap", ".snapshots"].map(str::as_bytes).contains(&name),
            "{name:?}"
        );
    });
}

#[test]
fn mount_options_are_known_or_refused() {
    bolero::check!().with_type::<Vec<String>>().with_test_time(Duration::from_millis(500)).for_each(|options| {
        let _an_error_is_fine = pitfs::fuse::parse_options(options);
        let after_name: Vec<String> = options.iter().map(|text| format!("threads={text},fsname={text}")).collect();
        let _an_error_is_fine = pitfs::fuse::parse_options(&after_name);
    });
}

#[test]
fn names_of_files_come_back_as_they_were_or_are_refused() {
    bolero::check!().with_type::<(Vec<u8>, Vec<u8>)>().with_test_time(Duration::from_secs(1)).for_each(
        |(name, other)| {
            let dir = copy(sample());
            let use_names = || {
                let views = Views::new(Tree::open(Arc::new(dir.clone())).unwrap());
                let tree = views.tree();
                let new = New { kind: Kind::File, permissions: 0o600, rdev: 0, target: b"" };
                if tree.names().make(CALLER, ROOT, name, new).is_ok() {
                    assert!(!name.is_empty() && name.len() <= 255 && !name.contains(&b'/') && !name.contains(&0));
                    let (number, _) = tree.names().lookup(ROOT.live(), name).unwrap();
                    assert_eq!(tree.names().paths(number.live()).unwrap(), std::slice::from_ref(name));
                    assert_eq!(tree.names().resolve(pitfs::device::LIVE, name, Moment::Live).unwrap(), number);
                    if tree.names().rename(ROOT, name, ROOT, other, RenameMode::NoReplace).is_ok() {
                        assert_eq!(tree.names().lookup(ROOT.live(), other).unwrap().0, number);
                    }
                }
                let _an_error_is_fine = tree.names().resolve(pitfs::device::LIVE, name, Moment::Live);
                if tree.attributes().set_xattr(ROOT, name, other, SetXattr::default()).is_ok() {
                    assert_eq!(tree.attributes().xattr(ROOT.live(), name).unwrap(), *other);
                }
                for name in [name, other] {
                    let is_taken = views.snapshots().take(Some(name)).is_ok();
                    assert_eq!(views.find(name).is_ok_and(|found| found.is_some()), is_taken, "{name:?}");
                }
                tree.commit().unwrap();
            };
            watched(|| format!("{name:?} {other:?}"), use_names);
        },
    );
}

/// A path, put together from what leads out of a directory.
fn path(pieces: &[u8]) -> Vec<u8> {
    const PIECES: &[&[u8]] = &[
        b"/",
        b"..",
        b"/..",
        b"../",
        b".",
        b"//",
        b"directory",
        b"file 3",
        b"moved",
        b"symlink",
        b"\xff",
        b"*",
        b"\n",
    ];
    pieces.iter().take(8).flat_map(|piece| PIECES[usize::from(*piece) % PIECES.len()].iter().copied()).collect()
}

#[test]
fn paths_given_to_restore_and_sync_stay_inside() {
    let place = tempfile::tempdir().unwrap();
    let (store, source, to) = (place.path().join("store"), place.path().join("source"), place.path().join("to"));
    fs::create_dir(&store).unwrap();
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), b"from outside").unwrap();
    fs::write(store.join("store"), format!("pitfs store\nformat {FORMAT}\n")).unwrap();
    for name in ["meta.redb", "volume.0"] {
        fs::write(store.join(name), bytes_of(sample(), name)).unwrap();
    }
    let daemon = Target::new(Daemon::open(&store).unwrap());
    bolero::check!().with_type::<(Vec<u8>, Vec<u8>)>().with_test_time(Duration::from_secs(1)).for_each(|(one, two)| {
        let (one, two) = (path(one), path(two));
        let use_paths = || {
            let paths = vec![ByteBuf::from(one.clone()), ByteBuf::from(two.clone())];
            let options = RestoreOptions { snapshot: b"live".into(), paths, to: to.clone(), overwrite: true };
            let _an_error_is_fine = pitfs::daemon::copy_out(&daemon, daemon.views(), &options, &mut |_| Ok(()));
            let exclude = vec![ByteBuf::from(two.clone())];
            let options =
                SyncOptions { source: source.clone(), destination: one.clone(), exclude, ..SyncOptions::default() };
            let _an_error_is_fine = pitfs::daemon::sync(&daemon, daemon.views(), &options, &mut |_| Ok(()));
        };
        watched(|| format!("{:?} {:?}", one.escape_ascii().to_string(), two.escape_ascii().to_string()), use_paths);
        let _there_may_be_none = fs::remove_dir_all(&to);
        let mut left: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["source", "store"], "something was made outside: {one:?} {two:?}");
    });
    daemon.close().unwrap();
}
