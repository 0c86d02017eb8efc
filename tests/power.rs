//! The power is cut under a real daemon, at a random changing request to its disk, again and again: the
//! store is then at one commit, with everything in it that had been reported as done.
//!
//! `PITFS_CUTS` says how often, `PITFS_SEED` with which seed to begin.

mod disk;
mod load;
mod mounted;
mod rig;

use disk::{Disk, Image};
use load::{OnError, Rng};
use mounted::can_mount;
use rig::*;
use std::time::Duration;

/// Cuts that one store lives through.
const CUTS_IN_A_STORE: u64 = 8;

/// How many requests go by before the cut: often few, sometimes many.
fn requests(rng: &mut Rng) -> u64 {
    let most = 1 << rng.below(11);
    1 + rng.below(most)
}

fn codec(seed: u64) -> &'static str {
    ["lz4", "none", "zstd"][seed as usize % 3]
}

fn options(seed: u64) -> &'static [&'static str] {
    if seed % 5 == 4 { &["dirsync"] } else { &[] }
}

/// Loads the mount until the power goes; the daemon is then killed and its mount cleared away.
fn load_until_cut(rig: &mut Rig, rng: &mut Rng) {
    let ends_well = rng.percent(10);
    let patience = Duration::from_millis(if ends_well { rng.below(300) } else { 3000 });
    rig.load(rng, OnError::Stop, |_| {
        rig.disk().wait_for_cut(patience);
        if !ends_well {
            rig.disk().cut();
            // Writers whose changes nobody commits any more would go on for a while.
            rustix::process::kill_process(
                rustix::process::Pid::from_raw(rig.pid() as i32).unwrap(),
                rustix::process::Signal::KILL,
            )
            .unwrap();
        }
    });
    if ends_well {
        let done = rig.ledger.done();
        if rig.umount() && !rig.disk().is_cut() {
            rig.ledger.make_safe(&done);
        }
        rig.disk().cut();
    }
    rig.kill();
}

/// The store opens, holds together, and shows a state that it may show; what it shows.
fn examine(rig: &mut Rig, image: &Image, seed: u64, cut: u64) -> Found {
    rig.plug_in(image.clone(), seed);
    let failed = |rig: &Rig, text: String| -> ! { panic!("after cut {cut} of seed {seed}: {text}\n{}", rig.log()) };
    if let Err(text) = rig.check() {
        failed(rig, text);
    }
    if !rig.mount() {
        failed(rig, "it does not mount".into());
    }
    match rig.compare() {
        Ok(found) => found,
        Err(text) => failed(rig, text),
    }
}

fn cut_one_store(seed: u64, cuts: u64) {
    let mut rng = Rng::new(seed);
    let mut rig = Rig::new(options(seed));
    rig.plug_in(Image::default(), seed);
    let created = rig.create(codec(seed));
    assert!(created.status.success(), "{created:?}");
    assert!(rig.mount(), "{}", rig.log());
    rig.make_directories();
    for cut in 0..cuts {
        if rng.percent(20) {
            // While it closes or opens.
            assert!(rig.umount(), "{}", rig.log());
            rig.disk().cut_after(1 + rng.below(40));
            if rig.mount() {
                load_until_cut(&mut rig, &mut rng);
            } else {
                rig.kill();
                rig.disk().cut();
            }
        } else {
            rig.disk().cut_after(requests(&mut rng));
            load_until_cut(&mut rig, &mut rng);
        }
        // The same cut can have left different things on the disk.
        let disk = rig.disk.take().expect("plugged in");
        let survivors = if rng.percent(30) { 2 } else { 1 };
        let images: Vec<Image> = (0..survivors).map(|_| disk.after_power_cut(&mut rng)).collect();
        disk.unplug();
        for (i, image) in images.iter().enumerate() {
            let found = examine(&mut rig, image, seed, cut);
            if i + 1 < images.len() {
                rig.kill();
            } else {
                rig.accept(found);
            }
        }
        rig.log();
    }
    assert!(rig.umount(), "{}", rig.log());
    if let Err(text) = rig.check() {
        panic!("after the last cut of seed {seed}: {text}");
    }
}

#[test]
fn a_power_cut_under_load_loses_nothing_that_was_reported_as_done() {
    if !can_mount() {
        return;
    }
    let cuts = number("PITFS_CUTS", 24);
    with_seeds(number("PITFS_SEED", 1), cuts.div_ceil(CUTS_IN_A_STORE), |seed| {
        cut_one_store(seed, CUTS_IN_A_STORE.min(cuts));
    });
}

/// A store that was not yet created is none, and one that was can be used.
fn cut_a_creation(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut rig = Rig::new(&[]);
    rig.plug_in(Image::default(), seed);
    rig.disk().cut_after(1 + rng.below(40));
    let was_created = rig.create(codec(seed)).status.success();
    let disk: Disk = rig.disk.take().expect("plugged in");
    disk.cut();
    let image = disk.after_power_cut(&mut rng);
    disk.unplug();
    rig.plug_in(image, seed);
    let is_store = rig.disk().content("store").is_some();
    assert!(is_store || !was_created, "it was reported as created");
    if !is_store {
        let created = rig.create(codec(seed));
        assert!(created.status.success(), "{created:?}");
    }
    rig.check().unwrap();
    assert!(rig.mount(), "{}", rig.log());
    rig.make_directories();
    assert!(rig.umount(), "{}", rig.log());
}

#[test]
fn a_power_cut_while_a_store_is_created_leaves_a_store_or_none() {
    if !can_mount() {
        return;
    }
    with_seeds(number("PITFS_SEED", 1), number("PITFS_CUTS", 24).div_ceil(2), cut_a_creation);
}

/// An fsync of a file makes a new directory above it durable as well: with what it is, and not only its mode,
/// in which the mask of an access control list stands for the group.
#[test]
fn a_directory_that_the_journal_makes_has_its_xattrs() {
    if !can_mount() {
        return;
    }
    let mounted = mounted::Mounted::new();
    let directory = mounted.live().join("directory");
    std::fs::create_dir(&directory).unwrap();
    rustix::fs::setxattr(&directory, "user.kept", b"value", rustix::fs::XattrFlags::empty()).unwrap();
    let mut file = std::fs::File::create(directory.join("file")).unwrap();
    std::io::Write::write_all(&mut file, b"content").unwrap();
    file.sync_all().unwrap();
    drop(file);
    mounted.kill();
    mounted.mount(&[]);
    assert_eq!(std::fs::read(directory.join("file")).unwrap(), b"content");
    let mut value = [0; 10];
    let len = rustix::fs::getxattr(&directory, "user.kept", &mut value).expect("the directory has its xattr");
    assert_eq!(value[..len], *b"value");
    mounted.umount();
    mounted.check();
}
