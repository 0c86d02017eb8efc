//! A store that is being made of sets, interrupted, and what is there to be made of it changed meanwhile.

use crate::chain::{Chain, seals, write};
use pitfs::daemon::{AtTarget, BackupOptions, Daemon, FromSets, Parts, backup, check, create_from_sets, delete_sets};
use pitfs::device::Moment;
use pitfs::error::{Errno, Error, Result};
use pitfs::logstore::Codec;
use pitfs::media::TestDir;
use pitfs::set::Kind;
use pitfs::target::Target;
use pitfs::tree::{
    Adopted, Adoption, Burden, Caller, Carried, Carry, CreateOptions, Kind as FileKind, New, ROOT, Tree,
};
use pitfs::view::Views;
use std::sync::Arc;
use tempfile::TempDir;

const ME: Caller = Caller { uid: 0, gid: 0, umask: 0o022 };
/// More than is kept in memory before there is a commit.
const LARGE: usize = 48 << 20;

fn make(views: &Views, name: &str, len: usize) -> Result<()> {
    let tree = views.tree();
    let new = New { kind: FileKind::File, permissions: 0o644, rdev: 0, target: b"" };
    let (inode, _) = tree.names().make(ME, ROOT, name.as_bytes(), new)?;
    for at in (0..len).step_by(1 << 20) {
        tree.files().write(inode, at as u64, &vec![at as u8 ^ 5; (len - at).min(1 << 20)], false)?;
    }
    tree.commit()
}

fn names(views: &Views, moment: Moment) -> Vec<String> {
    let mut found = Vec::new();
    let each = |entry: &pitfs::tree::Entry| {
        found.push(String::from_utf8_lossy(&entry.name).into_owned());
        Ok(true)
    };
    views.tree().names().list(ROOT.at(moment), 0, each).unwrap();
    found.retain(|name| name != "." && name != "..");
    found.sort();
    found
}

/// A moment is let go between two tries: nothing of what was laid over of it is left.
#[test]
fn a_store_that_was_begun_of_other_moments_is_begun_anew() -> Result<()> {
    let (dir, place) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (target, media) = (Target::create(dir.path())?, Arc::new(TestDir::new()));
    let settings = CreateOptions { track_bytes: 1 << 20, codec: Codec::Lz4, uid: 0, gid: 0, mode: 0o755, hash_seed: 1 };
    Tree::create(media.clone(), &settings)?;
    let views = Views::new(Tree::open(media)?);
    let store = views.tree().device().settings().id;
    target.add_store(store, None)?;
    for (name, made) in [("m1", "one"), ("m2", "two"), ("m3", "three")] {
        make(&views, made, if name == "m2" { LARGE } else { 100 })?;
        if name == "m3" {
            views.tree().names().unlink(ROOT, b"two")?;
        }
        views.snapshots().take(Some(name.as_bytes()))?;
        let options = BackupOptions {
            snapshot: Some(name.into()),
            kind: Kind::Incremental,
            level: 1,
            limit: None,
            parts: Parts::default(),
        };
        backup(&views, &target, None, &options, &mut |_| Ok(()))?;
    }
    let (path, made) =
        (place.path().join("store"), FromSets { with_history: true, codec: Codec::Lz4, track_bytes: None });
    let mut calls = 0;
    let interrupted = create_from_sets(&path, &target.repository(store, None)?, &made, &mut |_| {
        calls += 1;
        if calls > 50 { Err(Error::Refused(Errno::INTR, "enough".into())) } else { Ok(()) }
    });
    assert!(interrupted.is_err() && path.join("filling").exists(), "{interrupted:?} after {calls}");
    let at = &mut AtTarget {
        target: Target::open(dir.path(), None)?,
        repository: target.repository(store, None)?,
        key: None,
        seen: 0,
    };
    delete_sets(at, &[b"m2".to_vec()], false)?;
    assert_eq!(create_from_sets(&path, &target.repository(store, None)?, &made, &mut |_| Ok(()))?.snapshots, 2);
    let daemon = Daemon::open(&path)?;
    let problems = check(&daemon, &mut |_| Ok(()))?.problems;
    assert!(problems.is_empty(), "{problems:?}");
    let views = daemon.views();
    for (name, wanted) in [("m1", &["one"][..]), ("m3", &["one", "three"])] {
        assert_eq!(names(views, views.moment(name.as_bytes())?), wanted, "{name}");
    }
    assert_eq!(names(views, Moment::Live), ["one", "three"]);
    daemon.close()
}

/// What has no room is refused, and leaves nothing behind.
#[test]
fn what_will_not_fit_is_not_begun() -> Result<()> {
    let place = TempDir::new().unwrap();
    let mut chain = Chain::new(seals()[0].clone(), 8);
    let next = chain.one_more("m5", 8).of_bytes(1 << 60);
    let (path, made) =
        (place.path().join("store"), FromSets { with_history: false, codec: Codec::Lz4, track_bytes: None });
    let mut repository = chain.open()?;
    write(&mut repository, &next)?;
    let refused = create_from_sets(&path, &repository, &made, &mut |_| Ok(()));
    assert!(matches!(&refused, Err(Error::Refused(Errno::NOSPC, text)) if text.contains("1.0 EiB")), "{refused:?}");
    assert!(!path.exists());
    Ok(())
}

/// A small disk takes what fits when it is compressed, though all of it would not.
#[test]
fn what_is_compressed_needs_no_room_of_what_it_was() -> Result<()> {
    let source = Arc::new(TestDir::new());
    let settings = CreateOptions { track_bytes: 1 << 20, codec: Codec::Lz4, uid: 0, gid: 0, mode: 0o755, hash_seed: 1 };
    Tree::create(source.clone(), &settings)?;
    let views = Views::new(Tree::open(source)?);
    make(&views, "two", LARGE)?;
    let snapshot = views.snapshots().take(Some(b"m1")).and_then(|_| views.expect(b"m1"))?;
    let small = TestDir::new();
    small.set_capacity(Some(42 << 20));
    Tree::create(Arc::new(small.clone()), &settings)?;
    let made = Views::new(Tree::open(Arc::new(small))?);
    let mut adoption = Adoption::into(made.tree(), made.base(), 1 << 20);
    for carried in Carry::all(views.tree(), snapshot.base, snapshot.epoch) {
        let Carried { table, key, what, .. } = carried?;
        let what = match what {
            Burden::Record(value) => Adopted::Record(value),
            Burden::Track(bytes) => Adopted::Track(bytes.to_vec()),
            other => panic!("{other:?}"),
        };
        adoption.take(&[&[table as u8], &key[..]].concat(), what)?;
    }
    adoption.finish()?;
    assert_eq!(names(&made, Moment::Live), ["two"]);
    Ok(())
}
