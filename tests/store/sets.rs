//! Snapshots of random stores written to a target as sets, and looked into there with no store.

use crate::common::compare::compare_snapshot;
use crate::common::model::Model;
use crate::common::world::World;
use pitfs::archive::Mark;
use pitfs::clock::Timestamp;
use pitfs::daemon::{
    AtTarget, BackupOptions, BackupReport, Daemon, FromSets, Parts, Progress, backup, check, compact_sets,
    create_from_sets, delete_sets, merge_sets, prune_sets, verify_sets,
};
use pitfs::device::{BaseId, Moment, Snapshot};
use pitfs::error::{Errno, Error};
use pitfs::id::Id;
use pitfs::logstore::Codec;
use pitfs::media::TestDir;
use pitfs::set::{Key, Kind, Value};
use pitfs::target::{Keys, Opens, Retention, Target};
use pitfs::tree::{Burden, Carried, Carry, CreateOptions, Tree};
use pitfs::view::{InSet, InSets, Views, show_sets};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const ROUNDS: usize = 40;

/// What was backed up: by snapshot, the base that it is of, and what it shows.
type BackedUp = BTreeMap<Id, (BaseId, Rc<Model>)>;

fn options(hash_seed: u64, track_bytes: u32) -> CreateOptions {
    CreateOptions { track_bytes: track_bytes as usize, codec: Codec::None, uid: 1, gid: 1, mode: 0o755, hash_seed }
}

/// Backs up a random snapshot of the base that is being worked on.
fn back_up(world: &mut World, target: &Target, key: Option<&Key>, done: &mut BackedUp) -> Result<(), Error> {
    let here = world.here();
    let names: Vec<(String, Rc<Model>)> =
        world.now.snapshots.iter().map(|(name, kept)| (name.clone(), kept.model.clone())).collect();
    if names.is_empty() {
        return Ok(());
    }
    let (name, model) = world.rng.pick(&names);
    let kind = [Kind::Incremental, Kind::Incremental, Kind::Differential, Kind::Full][world.rng.below(4) as usize];
    // Now and then in parts, and broken off in one: what comes later goes on with what is there.
    let bytes = if world.rng.below(3) > 0 { 1 << 30 } else { (1 << 14) + world.rng.below(1 << 17) };
    let parts = Parts { bytes, time: Duration::ZERO, least: world.rng.below(2) * 4096 };
    let options = BackupOptions { snapshot: Some(name.clone().into_bytes()), kind, level: 1, limit: None, parts };
    let mut left = if world.rng.below(3) == 0 { world.rng.below(200) } else { u64::MAX };
    let result = backup(&here, target, key, &options, &mut |_| {
        left = left.saturating_sub(1);
        if left == 0 { Err(Error::Refused(Errno::INTR, "broken off".into())) } else { Ok(()) }
    });
    match result {
        Err(Error::Refused(Errno::INTR, _)) => {}
        Ok(report) => {
            assert!(report.missing.is_empty() && report.snapshot == name);
            let snapshot = here.expect(name.as_bytes())?;
            has_all(&here, &snapshot, target, key, &report);
            done.insert(snapshot.record.id, (snapshot.base, model));
        }
        // What has ended cannot be looked into, here or there.
        Err(Error::Refused(..)) => assert!(!here.expect(name.as_bytes())?.is_readable()),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Whether a set has all records that its snapshot has, and no others.
fn has_all(here: &Views, snapshot: &Snapshot, target: &Target, key: Option<&Key>, report: &BackupReport) {
    let repository = target.repository(here.tree().device().settings().id, key).unwrap();
    let sets = repository.sets();
    let found = sets.scan(report.set, b"", &[0xff]).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let value = match entry.value {
            Value::Record(value) => value,
            Value::Track { len, place } => sets.read(&place, len).unwrap(),
            Value::Lost => panic!("nothing is lost"),
        };
        (entry.key, value)
    });
    let found: BTreeMap<Vec<u8>, Vec<u8>> = found.collect();
    let wanted = Carry::all(here.tree(), snapshot.base, snapshot.epoch).map(|carried| {
        let Carried { table, key, what, .. } = carried.unwrap();
        let value = match what {
            Burden::Record(value) => value,
            Burden::Track(bytes) => bytes.to_vec(),
            other => panic!("{other:?}"),
        };
        ([&[table as u8], &key[..]].concat(), value)
    });
    let wanted: BTreeMap<Vec<u8>, Vec<u8>> = wanted.collect();
    for key in found.keys().chain(wanted.keys()) {
        assert!(
            found.get(key) == wanted.get(key),
            "{:?} of {}: record {key:?}: found {:?}, expected {:?}",
            report.kind,
            snapshot.record.name,
            found.get(key),
            wanted.get(key)
        );
    }
}

/// Lets some of what was backed up go, merges some, or packs what is left anew.
fn let_some_go(world: &mut World, at: &mut AtTarget, done: &mut BackedUp) -> Result<(), Error> {
    let all: Vec<(Id, Id, Id)> =
        at.repository.catalogue().moments().map(|one| (one.id, one.header.mark.id, one.header.base)).collect();
    if all.len() < 4 {
        return Ok(());
    }
    let (mut quiet, is_dry_run) = (|_: &Progress| Ok(()), world.rng.percent(20));
    let report = match world.rng.below(4) {
        0 => {
            let (set, _, _) = world.rng.pick(&all);
            delete_sets(at, &[set.to_string().into_bytes()], is_dry_run)?
        }
        1 => {
            let (_, _, base) = world.rng.pick(&all);
            let of_base: Vec<Vec<u8>> =
                all.iter().filter(|one| one.2 == base).map(|one| one.0.to_string().into_bytes()).collect();
            let some = 2 + world.rng.below(3) as usize;
            if of_base.len() < some {
                return Ok(());
            }
            let from = world.rng.below((of_base.len() - some + 1) as u64) as usize;
            merge_sets(at, &of_base[from..from + some], None, is_dry_run)?
        }
        2 => {
            let rule = Retention { last: all.len() as u64 - 1 - world.rng.below(3), ..Retention::default() };
            prune_sets(at, &rule, Timestamp::now(), is_dry_run)?
        }
        _ => {
            let waste = world.rng.below(60) as u8;
            let moments = at.repository.catalogue().moments().count();
            let done = compact_sets(at, waste, is_dry_run, &mut quiet)?;
            assert_eq!(at.repository.catalogue().moments().count(), moments);
            if !is_dry_run {
                let left: Vec<_> =
                    done.gone.iter().filter(|one| at.repository.catalogue().find(one.id).is_some()).collect();
                assert!(left.is_empty(), "{left:?} lie there still");
            }
            return Ok(());
        }
    };
    if !is_dry_run {
        let left: Vec<Id> = at.repository.catalogue().moments().map(|one| one.header.mark.id).collect();
        for gone in report.gone.iter().map(|one| one.header.mark.id).filter(|id| !left.contains(id)) {
            done.remove(&gone);
        }
        assert_eq!(left.len() + report.gone.len(), all.len());
    }
    for verified in verify_sets(&at.repository, None, &mut quiet)? {
        assert!(verified.problems.is_empty(), "{verified:?}");
    }
    Ok(())
}

/// Looks into all that a target has, and compares it.
fn compare_all(target: &Target, store: Id, key: Option<&Key>, done: &BackedUp) -> Result<(), Error> {
    let repository = target.repository(store, key)?;
    let mut bases: BTreeMap<Id, Vec<InSet>> = BTreeMap::new();
    let mut settings = None;
    for listed in repository.catalogue().moments() {
        settings = Some((listed.header.hash_seed, listed.header.track_bytes));
        let moments = bases.entry(listed.header.base).or_default();
        // Of a snapshot that was written twice, both are the same.
        let times = moments.iter().filter(|moment| moment.mark.id == listed.header.mark.id).count();
        let name = format!("{}.{times}", listed.header.mark.id);
        moments.push(InSet { mark: Mark { name, ..listed.header.mark.clone() }, set: listed.id, bytes: 0 });
    }
    let Some((hash_seed, track_bytes)) = settings else { return Ok(()) };
    let dir = Arc::new(TestDir::new());
    Tree::create(dir.clone(), &options(hash_seed, track_bytes))?;
    let views = Views::new(Tree::open(dir)?);
    let shown =
        bases.values().enumerate().map(|(at, moments)| InSets { name: format!("b{at}"), moments: moments.clone() });
    show_sets(&views, repository.sets(), shown.collect())?;
    views.tree().only_read("it shows sets")?;
    let mut found = 0;
    for (at, moments) in bases.values().enumerate() {
        let base = views.bases().named(format!("b{at}").as_bytes())?;
        let here = views.of(base);
        for InSet { mark, .. } in moments {
            let (_, model) = &done[&mark.id];
            let moment = here.moment(mark.name.as_bytes())?;
            compare_snapshot(here.tree(), moment, &model.in_base(base))
                .unwrap_or_else(|text| panic!("{} ({}): {text}", mark.name, mark.epoch));
            found += 1;
        }
        // As it is now it is as it was last.
        let last = &moments.last().expect("it has one").mark;
        let (_, model) = &done[&last.id];
        compare_snapshot(here.tree(), Moment::Live, &model.in_base(base))
            .unwrap_or_else(|text| panic!("live of {at}: {text}"));
    }
    assert!(found >= done.len(), "{found} of {} are there", done.len());
    Ok(())
}

fn run(seed: u64, bases: u64) -> Result<(), Error> {
    let dir = TempDir::new().expect("a directory");
    let target = Target::create(dir.path())?;
    let mut world = World::create(Arc::new(TestDir::new()), seed, Codec::Lz4);
    let store = world.tree().device().settings().id;
    let key = seed.is_multiple_of(2).then(|| Key::of([seed as u8; 32]));
    let keys = key.as_ref().map(|key| Keys::create(store, key, &Opens::File(key.clone()))).transpose()?;
    target.add_store(store, keys.as_ref())?;
    let mut done = BackedUp::new();
    for round in 0..ROUNDS {
        for _ in 0..50 {
            match world.rng.below(100) {
                0..90 if world.rng.percent(bases) => world.change_bases()?,
                0..90 => world.change()?,
                90..97 => world.change_snapshots()?,
                97 => world.commit()?,
                _ => world.commit().and_then(|()| world.reopen())?,
            }
            if world.rng.percent(8) {
                back_up(&mut world, &target, key.as_ref(), &mut done)?;
            }
            if world.rng.percent(1) {
                let go_at = &mut AtTarget {
                    target: Target::open(dir.path(), None)?,
                    repository: target.repository(store, key.as_ref())?,
                    key: key.clone(),
                    seen: 0,
                };
                let_some_go(&mut world, go_at, &mut done)?;
            }
        }
        if round % 10 == 9 {
            compare_all(&target, store, key.as_ref(), &done)?;
        }
    }
    assert!(done.len() > 5, "{} were backed up", done.len());
    // The store is gone.
    drop(world);
    compare_all(&target, store, key.as_ref(), &done)?;
    brought_back(&target, store, key.as_ref(), &done)
}

/// Makes a store of all that a target has, and compares it.
fn brought_back(target: &Target, store: Id, key: Option<&Key>, done: &BackedUp) -> Result<(), Error> {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("store");
    let repository = target.repository(store, key)?;
    // With tracks as they were, and larger and smaller ones.
    for (with_history, track_bytes) in
        [(false, None), (true, None), (false, Some(1 << 20)), (true, Some(64 << 10)), (true, Some(16 << 10))]
    {
        let made = FromSets { with_history, codec: Codec::Lz4, track_bytes };
        let report = create_from_sets(&path, &repository, &made, &mut |_| Ok(()))?;
        assert!(report.left_out.is_empty() && (!with_history || report.snapshots == done.len() as u64), "{report:?}");
        let daemon = Daemon::open(&path)?;
        let problems = check(&daemon, &mut |_| Ok(()))?.problems;
        assert!(problems.is_empty(), "{problems:?}");
        let views = daemon.views();
        let bases: Vec<BaseId> = views.bases().all()?.into_iter().map(|info| info.id).collect();
        let mut found = 0;
        for base in bases {
            let here = views.of(base);
            let all = here.snapshots().all()?;
            for snapshot in &all {
                let model = done[&snapshot.record.id].1.in_base(base);
                compare_snapshot(here.tree(), Moment::At(snapshot.epoch), &model)
                    .unwrap_or_else(|text| panic!("{} brought back {made:?}: {text}", snapshot.record.name));
                found += 1;
            }
            if let Some(last) = all.last() {
                let model = done[&last.record.id].1.in_base(base);
                compare_snapshot(here.tree(), Moment::Live, &model).unwrap_or_else(|text| panic!("live: {text}"));
            }
        }
        assert_eq!(found, report.snapshots);
        drop(daemon);
        std::fs::remove_dir_all(&path).expect("it can go");
    }
    Ok(())
}

/// `PITFS_SEED` says with which seed to begin, `PITFS_RUNS` how many there are.
#[test]
fn every_snapshot_that_was_backed_up_is_what_it_was() {
    let number = |variable, default| std::env::var(variable).map_or(default, |text| text.parse().expect("a number"));
    let first = number("PITFS_SEED", 1);
    for seed in first..first + number("PITFS_RUNS", 6) {
        println!("seed {seed}");
        run(seed, if seed % 3 == 0 { 0 } else { 5 }).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}
