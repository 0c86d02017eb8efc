//! Random operations on a store and on a naive model of it.

use crate::common::check::{check, check_all, check_bare};
use crate::common::compare::compare_tree;
use crate::common::world::World;
use pitfs::device::Separated;
use pitfs::error::Error;
use pitfs::limits::SEGMENT_BYTES;
use pitfs::logstore::Codec;
use pitfs::media::{DiskDir, MediaDir, TestDir};
use pitfs::tree::{Kind, ROOT};
use std::sync::Arc;

const ROUNDS: usize = 30;
const STEPS: usize = 100;

fn run(dir: Arc<dyn MediaDir>, seed: u64, codec: Codec) -> Result<(), Error> {
    run_world(World::create(dir, seed, codec), 0)
}

/// Of a hundred operations, `bases` are on whole trees.
fn run_world(mut world: World, bases: u64) -> Result<(), Error> {
    for round in 0..ROUNDS {
        for step in 0..STEPS {
            let result = match world.rng.below(100) {
                0..90 if world.rng.percent(bases) => world.change_bases(),
                0..90 => world.change(),
                90..95 => world.change_snapshots(),
                95..98 => world.commit(),
                98 => world.tree().device().committer()?.flush(),
                _ => world.commit().and_then(|()| world.reopen()),
            };
            result.inspect_err(|error| panic!("round {round}, step {step}: {error}"))?;
        }
        world.compare(&format!("after round {round}"));
        world.compare_differences()?;
        if round % 3 == 2 {
            if world.rng.percent(70) {
                world.commit()?;
            }
            world.reopen()?;
            world.compare(&format!("reopened after round {round}"));
            let was_shared = world.may_share || bases > 0;
            check_all(world.tree(), was_shared).unwrap_or_else(|text| panic!("after round {round}: {text}"));
        }
    }
    world.remove_everything()?;
    world.compare("after everything was removed");
    // One empty segment may stay open for what comes next.
    let summary = SEGMENT_BYTES / 1000;
    check_bare(world.tree(), summary).unwrap_or_else(|text| panic!("after everything was removed: {text}"));
    world.reopen()?;
    check(world.tree()).unwrap_or_else(|text| panic!("reopened after everything was removed: {text}"));
    Ok(())
}

fn run_seeds(codec: Codec, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        // Shown when the test fails.
        println!("seed {seed}, {codec:?}");
        run(Arc::new(TestDir::new()), seed, codec).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

/// `PITFS_BASES` says how many runs, `PITFS_SEED` with which seed to begin.
#[test]
fn a_store_of_many_bases_is_its_model() {
    let number = |variable, default| match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
        Err(_) => default,
    };
    let (first, runs): (u64, u64) = (number("PITFS_SEED", 400), number("PITFS_BASES", 6));
    for seed in first..first + runs {
        println!("seed {seed}");
        let world = World::create(Arc::new(TestDir::new()), seed, Codec::Lz4);
        run_world(world, 6 + seed % 4 * 8).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[test]
fn what_a_snapshot_holds_alone_is_counted() {
    for seed in 500..504 {
        println!("seed {seed}");
        let mut world = World::create(Arc::new(TestDir::new()), seed, Codec::Lz4);
        world.may_share = false;
        run_world(world, 0).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[test]
fn a_store_is_its_model_uncompressed() {
    run_seeds(Codec::None, 0..3);
}

#[test]
fn a_store_is_its_model_with_lz4() {
    run_seeds(Codec::Lz4, 100..103);
}

#[test]
fn a_store_is_its_model_with_zstd() {
    run_seeds(Codec::Zstd, 200..203);
}

#[test]
fn a_store_on_a_real_disk_is_its_model() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    run(Arc::new(DiskDir::open(dir.path()).unwrap()), 300, Codec::Lz4).expect("nothing fails");
}

/// What two snapshots that are being deleted share is dropped by the one that is deleted last, whichever
/// deletion began first.
#[test]
fn deletions_that_overtake_each_other_leave_nothing() {
    for first in 1..=2 {
        let mut world = World::create(Arc::new(TestDir::new()), first, Codec::Lz4);
        let names: Vec<Vec<u8>> = (0..800).map(|i| format!("file {i}").into_bytes()).collect();
        for name in &names {
            world.make_kind(ROOT, name, Kind::File).unwrap();
        }
        // Every record is born before both snapshots and ends after them.
        world.snapshot().unwrap();
        world.snapshot().unwrap();
        for name in &names {
            world.unlink_name(ROOT, name).unwrap();
        }
        let device = world.tree().device();
        for number in [first, 3 - first] {
            world.views().deletions().delete(&[format!("snapshot {number}").as_bytes()]).unwrap();
            assert!(device.removal().step().unwrap());
        }
        while device.removal().step().unwrap() {}
        check_bare(world.tree(), 0).unwrap();
    }
}

/// What tells how a mirror differs is needed until the mirror is settled, also where deletions come first.
#[test]
fn a_mirror_is_in_step_whatever_is_done_first() {
    let mut world = World::create(Arc::new(TestDir::new()), 600, Codec::Lz4);
    for _ in 0..200 {
        world.change().unwrap();
    }
    let views = world.views().clone();
    let copy = || while views.tree().separate_step().unwrap() != Separated::Nothing {};
    let settle = || {
        while views.tree().settle_step().unwrap() {}
        // What is not copied yet is not split.
        copy();
    };
    let delete = || while views.tree().device().removal().step().unwrap() {};
    let mirror = views.mirrors().establish(b"mirror", false).unwrap().base;
    settle();
    let check = |what: &str, world: &mut World| {
        settle();
        let before: Vec<_> = views.snapshots().all().unwrap();
        let marked = before.into_iter().rev().find(|snapshot| snapshot.record.name.starts_with("mirror-")).unwrap();
        let model = world.now.live.in_base(mirror);
        compare_tree(&views.of(mirror), &model).unwrap_or_else(|text| panic!("{what}, {}: {text}", marked.record.name));
        for _ in 0..200 {
            world.change().unwrap();
        }
    };
    check("established", &mut world);
    for _ in 0..3 {
        views.of(mirror).mirrors().sync().unwrap();
        delete();
        check("synced", &mut world);
    }
    // It is split as its base is now, which it takes over first.
    settle();
    views.of(mirror).mirrors().split().unwrap();
    settle();
    views.of(mirror).mirrors().resync().unwrap();
    delete();
    check("resynced", &mut world);
}
