//! A store on a disk that has no room left: nothing acknowledged is lost, and removing gives room back.

use crate::common::check::{check, check_bare};
use crate::common::rng::Rng;
use crate::common::world::{TRACK, World};
use pitfs::device::InodeNo;
use pitfs::error::{Errno, Error};
use pitfs::id::Id;
use pitfs::limits::{BLOCK_BYTES, SEGMENT_BYTES};
use pitfs::logstore::{Codec, LogStore, Owner};
use pitfs::media::{MediaDir, TestDir};
use pitfs::meta::{Kv, Meta};
use pitfs::tree::{Kind, ROOT};
use std::sync::Arc;

/// Room for segments, metadata, the reserve and the journal.
const CAPACITY: u64 = 42 << 20;
/// Files that are removed together: a track needs room in one piece.
const NEIGHBOURS: u64 = 32;

fn small(seed: u64, codec: Codec) -> (World, TestDir) {
    let dir = TestDir::new();
    dir.set_capacity(Some(CAPACITY));
    (World::create(Arc::new(dir.clone()), seed, codec), dir)
}

fn name(number: u64) -> Vec<u8> {
    format!("file {number}").into_bytes()
}

/// Writes files until there is no room; how many there are then. `len` gives their lengths.
fn fill(world: &mut World, first: u64, mut len: impl FnMut(&mut Rng) -> u64) -> u64 {
    for number in first.. {
        let made = match world.make_kind(ROOT, &name(number), Kind::File) {
            Ok(made) => made.expect("the name is free"),
            Err(error) if error.is_no_space() => return number,
            Err(error) => panic!("making file {number}: {error}"),
        };
        let len = len(&mut world.rng);
        match world.write_to(made, 0, len as usize) {
            Ok(()) => {}
            Err(error) if error.is_no_space() => return number + 1,
            Err(error) => panic!("writing file {number}: {error}"),
        }
        if number % 16 == 15 {
            durable_or_full(world.commit());
        }
    }
    unreachable!("no disk is that large")
}

fn durable_or_full(result: Result<(), Error>) -> bool {
    match result {
        Ok(()) => true,
        Err(error) if error.is_no_space() => false,
        Err(error) => panic!("neither durable nor full: {error}"),
    }
}

/// A snapshot, if there is room for one.
fn try_snapshot(world: &mut World) -> bool {
    let before = world.now.clone();
    let is_taken = durable_or_full(world.snapshot());
    if !is_taken {
        world.now = before;
    }
    is_taken
}

fn verify(world: &mut World, when: &str) {
    world.compare(when);
    world.commit().unwrap_or_else(|error| panic!("{when}: {error}"));
    world.reopen().unwrap_or_else(|error| panic!("{when}: {error}"));
    world.compare(when);
    check(world.tree()).unwrap_or_else(|text| panic!("{when}: {text}"));
}

fn data_bytes(world: &World) -> u64 {
    world.now.live.nodes.values().map(|node| node.bytes.len() as u64).sum()
}

fn lookup(world: &World, number: u64) -> Option<InodeNo> {
    world.now.live.entry(ROOT, &name(number))
}

fn run(seed: u64, codec: Codec, len: fn(&mut Rng) -> u64) {
    let (mut world, dir) = small(seed, codec);
    let mut count = fill(&mut world, 0, len);
    world.tree().device().check_running().expect("a full disk does not stop the store");
    verify(&mut world, "full for the first time");
    for round in 0..2 {
        // Overwriting needs new room: it works or is refused, and never harms.
        for _ in 0..20 {
            let number = world.rng.below(count);
            let (offset, len) = (world.rng.below(3) * TRACK, 1 + world.rng.below(TRACK));
            if let Some(inode) = lookup(&world, number) {
                durable_or_full(world.write_to(inode, offset, len as usize));
            }
        }
        durable_or_full(world.commit());
        let is_taken = try_snapshot(&mut world);
        world.tree().device().check_running().expect("a full disk does not stop the store");
        verify(&mut world, &format!("a snapshot on a full disk, round {round}"));
        // Half of the files go. While a snapshot holds them, that gives no room back.
        for number in 0..count {
            if number / NEIGHBOURS % 2 == round % 2 && lookup(&world, number).is_some() {
                world.unlink_name(ROOT, &name(number)).expect("removing works on a full disk");
            }
        }
        verify(&mut world, &format!("half removed, round {round}"));
        if is_taken {
            while !world.now.snapshots.is_empty() {
                world.delete_snapshot().expect("deleting a snapshot works on a full disk");
            }
        }
        while world.tree().device().removal().step().expect("deleting goes on") {}
        while world.tree().reap_step().expect("removing goes on") {}
        for _ in 0..2 {
            world.commit().expect("what was removed becomes durable");
        }
        let before = data_bytes(&world);
        count = fill(&mut world, count, len);
        let gained = data_bytes(&world).saturating_sub(before);
        assert!(gained > CAPACITY / 10, "{gained} bytes could be written after half was removed, round {round}");
        verify(&mut world, &format!("full again, round {round}"));
    }
    world.remove_everything().expect("everything can be removed");
    check_bare(world.tree(), SEGMENT_BYTES / 100).expect("nothing is left");
    dir.set_capacity(None);
    verify(&mut world, "empty");
}

#[test]
fn a_full_disk_loses_nothing_large_files() {
    run(1, Codec::None, |rng| rng.below(300_000));
}

/// Many tracks of one block: the summaries of segments have to grow on the way.
#[test]
fn a_full_disk_loses_nothing_small_files() {
    run(2, Codec::Lz4, |rng| 1500 + rng.below(BLOCK_BYTES as u64));
}

#[test]
fn a_full_disk_loses_nothing_compressed() {
    run(3, Codec::Zstd, |rng| rng.below(5 * TRACK));
}

/// Whoever has reserved a slot gets it, also where the summary has to grow on the way.
#[test]
fn every_reserved_slot_can_be_filled() {
    for seed in 0..12 {
        let dir = TestDir::new();
        dir.set_capacity(Some(2 * SEGMENT_BYTES));
        let kv = Kv::create(dir.open("meta", true).unwrap(), None).unwrap();
        let mut meta = Meta::new(&kv).unwrap();
        LogStore::create(&dir, &mut meta, Id::default()).unwrap();
        let log = LogStore::open(Arc::new(dir), &meta, Id::default(), Codec::None, TRACK as usize).unwrap();
        let mut track = 0;
        let mut append = |meta: &mut Meta, bytes: u64| {
            track += 1;
            let owner = Owner { base: 1, inode: 9, at: track, is_patch: false, birth: 1 };
            log.append(meta, &log.encode(&vec![7; bytes as usize]), owner).expect("there is a slot for it");
            log.unreserve(1);
        };
        // Small tracks use up the entries of the summary before the room.
        let mut rng = Rng::new(seed);
        for _ in 0..rng.below(1500) {
            log.reserve(&mut meta, 1).expect("the segment is not full yet");
            append(&mut meta, 1);
        }
        let mut slots = 0;
        while log.reserve(&mut meta, 1).is_ok() {
            slots += 1;
        }
        assert!(slots > 100, "{slots} slots");
        for _ in 0..slots {
            append(&mut meta, TRACK);
        }
    }
}

#[test]
fn no_room_is_reported_as_such() {
    let (mut world, _dir) = small(4, Codec::None);
    fill(&mut world, 0, |_| 200_000);
    let inode = lookup(&world, 0).expect("the first file fits");
    while durable_or_full(world.write_to(inode, world_end(&world, inode), 4 * TRACK as usize)) {}
    let error = world.write_to(inode, world_end(&world, inode), 4 * TRACK as usize).expect_err("the disk is full");
    assert_eq!(error.errno(), Errno::NOSPC);
}

fn world_end(world: &World, inode: InodeNo) -> u64 {
    world.now.live.node(inode).size()
}
