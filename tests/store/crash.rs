//! The power is cut at every single sync of a workload, and at random changes of many more: the store is then
//! at one commit, whole.

use crate::common::check::{check, check_bare};
use crate::common::compare::compare_exactly;
use crate::common::model::Picture;
use crate::common::rng::Rng;
use crate::common::world::{World, complete, open};
use pitfs::error::Error;
use pitfs::limits::SEGMENT_BYTES;
use pitfs::logstore::Codec;
use pitfs::media::{Tearing, TestDir};
use pitfs::tree::{Kind, ROOT};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

const STEPS: usize = 150;

/// Changes, until the media stops.
type Work = fn(&mut World) -> Result<(), Error>;

/// Changes of whole trees among them, with settling in all stages.
fn work_on_trees(world: &mut World) -> Result<(), Error> {
    for _ in 0..STEPS {
        match world.rng.below(100) {
            0..55 => world.change()?,
            55..63 => world.change_snapshots()?,
            63..88 => world.change_bases_at_once()?,
            88..97 => world.commit()?,
            _ => world.commit().and_then(|()| world.reopen())?,
        }
    }
    world.commit()
}

/// More files than a step settles.
const FILES: usize = 540;

/// A restore and a clone, settled step by step with a commit after each; then all goes.
fn work_in_steps(world: &mut World) -> Result<(), Error> {
    let names: Vec<Vec<u8>> = (0..FILES).map(|i| format!("file {i}").into_bytes()).collect();
    for (i, name) in names.iter().enumerate() {
        let made = world.make_kind(ROOT, name, Kind::File)?;
        if let (Some(number), 0) = (made, i % 40) {
            world.write_to(number, 0, 20_000)?;
        }
    }
    world.snapshot()?;
    let first = world.now.snapshots.keys().next().expect("it was just taken").clone();
    for (i, name) in names.iter().enumerate() {
        let number = world.now.live.entry(ROOT, name).expect("it was made");
        match i % 3 {
            0 => world.write_to(number, 10, 3000)?,
            1 => world.unlink_name(ROOT, name)?,
            _ => {
                world.unlink_name(ROOT, name)?;
                world.make_kind(ROOT, name, Kind::Directory)?;
            }
        }
    }
    let clone = world.clone_of(world.now.base, &first, false, true)?;
    world.restore_to(&first)?;
    settle_in_steps(world, 2)?;
    world.restore_to(&first)?;
    world.now.go_to(clone);
    for _ in 0..10 {
        world.change()?;
    }
    world.promote_base(clone)?;
    settle_in_steps(world, usize::MAX)?;
    world.delete_this_base(clone)?;
    while world.tree().device().removal().step()? {
        world.commit()?;
    }
    Ok(())
}

fn settle_in_steps(world: &mut World, most: usize) -> Result<(), Error> {
    for _ in 0..most {
        if !world.tree().settle_step()? {
            break;
        }
        // Some of it in a commit, some in the next.
        if world.rng.percent(60) {
            world.commit()?;
        }
    }
    Ok(())
}

/// Changes with many commits among them.
fn work(world: &mut World) -> Result<(), Error> {
    for _ in 0..STEPS {
        match world.rng.below(100) {
            0..84 => world.change()?,
            84..92 => world.change_snapshots()?,
            92..98 => world.commit()?,
            _ => world.commit().and_then(|()| world.reopen())?,
        }
    }
    world.commit()
}

fn begin(seed: u64, codec: Codec) -> (World, TestDir) {
    let dir = TestDir::new();
    (World::create(Arc::new(dir.clone()), seed, codec), dir)
}

/// After a failure nothing may be written any more, and everything can still be read.
fn check_stopped(world: &World) {
    let tree = world.tree();
    assert!(matches!(tree.commit(), Err(Error::Stopped(_))), "a commit after a failure");
    assert!(matches!(tree.names().unlink(ROOT, b"x"), Err(Error::Stopped(_))), "a change after a failure");
    assert!(matches!(world.views().snapshots().take(None), Err(Error::Stopped(_))), "a snapshot after a failure");
    assert!(tree.inode(ROOT.live()).is_ok(), "reading after a failure");
}

/// What the store in `dir` shows: `before` the commit that was interrupted, or `after` it.
fn recognize(dir: &TestDir, before: &Picture, after: &Picture) -> Picture {
    let views = open(Arc::new(dir.clone())).unwrap_or_else(|error| panic!("it does not open: {error}"));
    let mut mismatches = Vec::new();
    for picture in [before, after] {
        let mut picture = picture.clone();
        picture.forget_nameless();
        complete(&views, &mut picture).expect("the store can be read");
        match compare_exactly(&views, &picture) {
            Ok(()) => {
                check(views.tree()).unwrap_or_else(|text| panic!("its records do not hold together: {text}"));
                return picture;
            }
            Err(text) => mismatches.push(text),
        }
    }
    panic!("neither before ({}) nor after ({})", mismatches[0], mismatches[1]);
}

fn cut_at(seed: u64, codec: Codec, work: Work, sync: u64) {
    let (mut world, stopped) = begin(seed, codec);
    stopped.stop_at_sync(sync);
    let error = work(&mut world).expect_err("the media stops on the way");
    assert!(stopped.has_stopped(), "stopped by {error}");
    if world.is_open() {
        check_stopped(&world);
    }
    let (before, after) = (world.durable.clone(), world.now.clone());
    for tearing in [Tearing::LoseAll, Tearing::Random(seed << 20 | sync)] {
        let dir = stopped.after_power_cut(tearing);
        world.durable = recognize(&dir, &before, &after);
        world.go_on_in(Arc::new(dir)).expect("it opened before");
        for _ in 0..25 {
            world.change().expect("a change after the power cut");
        }
        world.settle().expect("settling goes on after the power cut");
        world.look_at_protection().expect("the store can be read");
        world.snapshot().expect("a snapshot after the power cut");
        world.reopen().expect("it opens after more changes");
        world.compare("after more changes");
        check(world.tree()).expect("records hold together after more changes");
    }
    world.remove_everything().expect("everything can be removed");
    check_bare(world.tree(), SEGMENT_BYTES / 100).expect("nothing is left");
}

fn cut_everywhere(seed: u64, codec: Codec) {
    cut_everywhere_in(seed, codec, work)
}

fn cut_everywhere_in(seed: u64, codec: Codec, work: Work) {
    let (mut world, dir) = begin(seed, codec);
    let start = dir.syncs();
    work(&mut world).expect("nothing stops the first run");
    let syncs = dir.syncs() - start;
    assert!(syncs > 30, "the workload has {syncs} syncs only");
    for sync in 1..=syncs {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| cut_at(seed, codec, work, sync))) {
            println!("the power was cut at sync {sync} of {syncs} of seed {seed}, {codec:?}");
            resume_unwind(panic);
        }
    }
}

/// Cuts at any write, change of length, hole or sync, with what arrived before it in any order or in its own.
fn cut_at_change(seed: u64) {
    let codec = [Codec::Lz4, Codec::None, Codec::Zstd][seed as usize % 3];
    let (mut world, dir) = begin(seed, codec);
    let mut dir = dir;
    let mut rng = Rng::new(seed ^ 0x5eed);
    // The same store lives through several cuts.
    for cut in 0..3 {
        let most = 1 << rng.below(12);
        dir.stop_at_change(1 + rng.below(most));
        // Where the work ends before, the power goes at its end.
        let result = work(&mut world);
        assert!(result.is_ok() || dir.has_stopped(), "cut {cut}: {result:?}");
        let (before, after) = (world.durable.clone(), world.now.clone());
        let tearing = match rng.below(4) {
            0 => Tearing::LoseAll,
            1 => Tearing::InOrder(rng.next()),
            _ => Tearing::Random(rng.next()),
        };
        dir = dir.after_power_cut(tearing);
        world.durable = recognize(&dir, &before, &after);
        world.go_on_in(Arc::new(dir.clone())).expect("it opened before");
    }
    for _ in 0..25 {
        world.change().expect("a change after the power cuts");
    }
    world.snapshot().expect("a snapshot after the power cuts");
    world.reopen().expect("it opens after more changes");
    world.compare("after more changes");
    check(world.tree()).expect("records hold together after more changes");
}

/// `PITFS_CUTS` says how many cuts, `PITFS_SEED` with which seed to begin.
#[test]
fn a_power_cut_at_any_change_leaves_one_commit() {
    let number = |variable, default| match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
        Err(_) => default,
    };
    let (first, cuts): (u64, u64) = (number("PITFS_SEED", 1), number("PITFS_CUTS", 60));
    for seed in first..first + cuts.div_ceil(3) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| cut_at_change(seed))) {
            println!("failed with seed {seed}");
            resume_unwind(panic);
        }
    }
}

/// A store of which closing moves the metadata together.
fn wasteful() -> (World, TestDir) {
    let (mut world, dir) = begin(9, Codec::Lz4);
    let name = |i: usize| format!("a file with a name that takes some room, number {i}").into_bytes();
    for i in 0..9000 {
        world.make_kind(ROOT, &name(i), Kind::File).expect("there is room");
    }
    world.commit().expect("it becomes durable");
    for i in (0..9000).filter(|i| i % 10 > 0) {
        world.unlink_name(ROOT, &name(i)).expect("it is there");
    }
    while world.tree().reap_step().expect("removing goes on") {}
    for _ in 0..3 {
        world.commit().expect("it becomes durable");
    }
    (world, dir)
}

#[test]
fn a_power_cut_while_closing_leaves_the_commit() {
    let (world, full) = wasteful();
    for sync in 1.. {
        let dir = full.after_power_cut(Tearing::LoseAll);
        let views = open(Arc::new(dir.clone())).expect("it opens");
        let before = dir.file_len("meta.redb");
        dir.stop_at_sync(sync);
        views.tree().device().close().expect("all was durable before");
        assert!(views.tree().device().durable().is_err(), "nobody has it open any more");
        drop(views);
        if !dir.has_stopped() {
            let after = dir.file_len("meta.redb");
            assert!(after < before / 2, "{before} bytes before, {after} after");
            assert!(sync > 5, "closing has {sync} syncs only");
            recognize(&dir.after_power_cut(Tearing::LoseAll), &world.now, &world.now);
            break;
        }
        for tearing in [Tearing::LoseAll, Tearing::Random(sync), Tearing::InOrder(sync)] {
            recognize(&dir.after_power_cut(tearing), &world.now, &world.now);
        }
    }
}

#[test]
fn a_power_cut_leaves_one_commit_uncompressed() {
    cut_everywhere(1, Codec::None);
}

#[test]
fn a_power_cut_leaves_one_commit_with_lz4() {
    cut_everywhere(2, Codec::Lz4);
    cut_everywhere(3, Codec::Lz4);
}

#[test]
fn a_power_cut_leaves_one_commit_of_many_bases() {
    cut_everywhere_in(5, Codec::Lz4, work_on_trees);
}

#[test]
fn a_power_cut_while_a_restore_is_settled_leaves_one_commit() {
    cut_everywhere_in(6, Codec::Lz4, work_in_steps);
}

#[test]
fn a_power_cut_leaves_one_commit_with_zstd() {
    cut_everywhere(4, Codec::Zstd);
}
