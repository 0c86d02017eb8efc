//! Bits flipped and files cut short: what is damaged is reported, everything else still reads, and
//! nothing ever comes back different.

use crate::common::check::check;
use crate::common::compare::compare;
use crate::common::model::Picture;
use crate::common::rng::Rng;
use crate::common::world::{TRACK, World, open};
use pitfs::device::{Moment, TrackNo};
use pitfs::error::Error;
use pitfs::limits::{BLOCK_BYTES, PSEG_BYTES};
use pitfs::logstore::{Codec, Descriptor, Location};
use pitfs::media::{MediaDir, Tearing, TestDir};
use pitfs::meta::Table;
use pitfs::tree::{Caller, Kind, New, ROOT};
use pitfs::view::Views;
use std::sync::Arc;

const META: &str = "meta.redb";
const VOLUME: &str = "volume.0";

/// A store that was closed, with several snapshots, and what it shows.
fn filled(seed: u64, codec: Codec) -> (TestDir, Picture) {
    let dir = TestDir::new();
    let mut world = World::create(Arc::new(dir.clone()), seed, codec);
    for _ in 0..4 {
        for _ in 0..60 {
            world.change().expect("a change");
        }
        world.snapshot().expect("a snapshot");
    }
    world.close().expect("a commit");
    world.reopen().expect("it opens");
    check(world.tree()).expect("records hold together");
    world.close().expect("a commit");
    (dir, world.now)
}

fn copy(dir: &TestDir) -> TestDir {
    dir.after_power_cut(Tearing::LoseAll)
}

/// Opens a damaged store; `None` if that is refused for a reason that damage explains.
fn open_damaged(dir: &TestDir, what: &str) -> Option<Views> {
    match open(Arc::new(dir.clone())) {
        Ok(views) => Some(views),
        Err(Error::Corrupt { .. } | Error::Media { .. }) => None,
        Err(other) => panic!("{what}: opening fails with {other:?}"),
    }
}

/// Everything that reads is right; what cannot be read.
fn read_all(views: &Views, picture: &Picture, what: &str) -> Vec<Error> {
    compare(views, picture).unwrap_or_else(|text| panic!("{what}: {text}"))
}

/// Changes and commits either succeed or say what is damaged, and leave nothing that reads wrong.
fn change_damaged(views: Views, dir: &TestDir, picture: &Picture, what: &str) {
    let caller = Caller { uid: 0, gid: 0, umask: 0 };
    let new = New { kind: Kind::Fifo, permissions: 0o600, rdev: 0, target: b"" };
    let made = views.tree().names().make(caller, ROOT, b"made in a damaged store", new);
    let removed = made.and_then(|_| views.tree().names().unlink(ROOT, b"made in a damaged store"));
    match removed.and_then(|_| views.tree().commit()) {
        Ok(()) | Err(Error::Corrupt { .. } | Error::Media { .. } | Error::Stopped(_)) => {}
        Err(other) => panic!("{what}: a change fails with {other:?}"),
    }
    drop(views);
    if let Some(views) = open_damaged(dir, what) {
        let mut picture = picture.clone();
        // The time of the root has moved.
        if let Ok(root) = views.tree().inode(ROOT.live()) {
            picture.live.node_mut(ROOT).times = crate::common::world::times_of(&root);
        }
        read_all(&views, &picture, what);
    }
}

/// Every track that can be seen, in `live` and in snapshots.
fn locations(views: &Views, picture: &Picture) -> Vec<Location> {
    let mut moments = vec![(Moment::Live, &picture.live)];
    for (name, kept) in &picture.snapshots {
        moments.push((views.moment(name.as_bytes()).unwrap(), &*kept.model));
    }
    let look = views.tree().device().look().unwrap();
    let mut found = Vec::new();
    for (moment, model) in moments {
        for number in model.paths().into_keys().filter(|number| model.node(*number).kind == Kind::File) {
            let tracks = model.node(number).size().div_ceil(TRACK);
            let pointers =
                (0..tracks).filter_map(|track| look.pointer(number.at(moment), TrackNo::new(track)).unwrap());
            found.extend(pointers.flat_map(|(pointer, _)| pointer.locations().copied().collect::<Vec<_>>()));
        }
    }
    found
}

fn descriptor(views: &Views, id: u64) -> Descriptor {
    let look = views.tree().device().look().unwrap();
    look.meta().get(Table::Segment, &id.to_be_bytes()).unwrap().unwrap()
}

/// Where a byte of a segment lies on the volume.
fn place(views: &Views, segment: u64, address: u64) -> u64 {
    let psegs = descriptor(views, segment).members[0].psegs.clone();
    u64::from(psegs[(address / PSEG_BYTES) as usize]) * PSEG_BYTES + address % PSEG_BYTES
}

#[test]
fn a_damaged_track_is_reported_and_all_else_reads() {
    for (seed, codec) in [(1, Codec::None), (2, Codec::Lz4), (3, Codec::Zstd)] {
        let (dir, picture) = filled(seed, codec);
        let views = open(Arc::new(copy(&dir))).unwrap();
        let all = locations(&views, &picture);
        let mut rng = Rng::new(seed);
        for _ in 0..40 {
            let location = rng.pick(&all);
            let within = rng.below(location.stored.into());
            let address = u64::from(location.block) * BLOCK_BYTES as u64 + within;
            let copy = copy(&dir);
            copy.damage(VOLUME, place(&views, location.segment, address), 1 << rng.below(8));
            let what = format!("seed {seed}, byte {within} of {location:?}");
            let damaged = open(Arc::new(copy.clone())).unwrap();
            let errors = read_all(&damaged, &picture, &what);
            let name = format!("segment {} block {} ", location.segment, location.block);
            assert!(!errors.is_empty(), "{what}: nobody noticed");
            assert!(errors.iter().all(|error| error.to_string().contains(&name)), "{what}: {errors:?}");
            change_damaged(damaged, &copy, &picture, &what);
        }
    }
}

#[test]
fn damage_where_no_track_lies_harms_nothing() {
    let (dir, picture) = filled(4, Codec::Lz4);
    let views = open(Arc::new(copy(&dir))).unwrap();
    let segment = locations(&views, &picture)[0].segment;
    let mut rng = Rng::new(4);
    for i in 0..30 {
        let copy = copy(&dir);
        let block = rng.pick(&descriptor(&views, segment).summary);
        let address = u64::from(block) * BLOCK_BYTES as u64 + rng.below(BLOCK_BYTES as u64);
        let what = format!("a summary, flip {i}");
        copy.damage(VOLUME, place(&views, segment, address), 1 << rng.below(8));
        let damaged = open(Arc::new(copy.clone())).unwrap();
        assert!(read_all(&damaged, &picture, &what).is_empty(), "{what}");
        change_damaged(damaged, &copy, &picture, &what);
    }
}

#[test]
fn damaged_metadata_is_reported_and_never_believed() {
    let mut refused = 0;
    let mut partly = 0;
    for seed in 5..7 {
        let (dir, picture) = filled(seed, Codec::Lz4);
        let len = dir.file_len(META);
        let mut rng = Rng::new(seed);
        for i in 0..150 {
            // The header and the first page of checksums get their share.
            let offset = if i % 5 == 0 { rng.below(2 * 4096) } else { rng.below(len) };
            let mask = 1 << rng.below(8);
            let what = format!("seed {seed}, byte {offset} of {len} of the metadata, mask {mask}");
            let copy = copy(&dir);
            copy.damage(META, offset, mask);
            let Some(views) = open_damaged(&copy, &what) else {
                refused += 1;
                continue;
            };
            partly += usize::from(!read_all(&views, &picture, &what).is_empty());
            change_damaged(views, &copy, &picture, &what);
        }
    }
    println!("{refused} were not opened, {partly} opened with damage");
    assert!(refused + partly > 50, "{refused} were not opened, {partly} opened with damage");
}

/// A whole page that comes back with other content, as from a misdirected write.
#[test]
fn overwritten_pages_of_metadata_are_never_believed() {
    let (dir, picture) = filled(8, Codec::Lz4);
    let pages = dir.file_len(META) / 4096;
    let mut rng = Rng::new(8);
    for _ in 0..80 {
        let (from, to) = (rng.below(pages), rng.below(pages));
        let what = format!("page {to} of {pages} of the metadata replaced by page {from}");
        let copy = copy(&dir);
        let media = copy.open(META, false).unwrap();
        let mut page = vec![0; 4096];
        if rng.percent(70) {
            media.read_at(from * 4096, &mut page).unwrap();
        }
        media.write_at(to * 4096, &page).unwrap();
        if let Some(views) = open_damaged(&copy, &what) {
            read_all(&views, &picture, &what);
            change_damaged(views, &copy, &picture, &what);
        }
    }
}

#[test]
fn files_cut_short_are_reported() {
    let (dir, picture) = filled(9, Codec::None);
    let mut rng = Rng::new(9);
    for name in [META, VOLUME] {
        let len = dir.file_len(name);
        let lengths = [0, 1, 23, 24, 512, 4095, 4096, 8192, len - 1, len - 4096];
        for i in 0..50 {
            let cut = lengths.get(i).copied().unwrap_or_else(|| rng.below(len));
            let what = format!("{name} cut from {len} to {cut}");
            let copy = copy(&dir);
            copy.open(name, false).unwrap().set_len(cut).unwrap();
            if let Some(views) = open_damaged(&copy, &what) {
                read_all(&views, &picture, &what);
                change_damaged(views, &copy, &picture, &what);
            }
        }
    }
}

#[test]
fn a_missing_file_is_named() {
    let (dir, picture) = filled(10, Codec::None);
    for name in [META, VOLUME] {
        let copy = copy(&dir);
        copy.remove(name).unwrap();
        let error = open(Arc::new(copy)).err().expect("it must not open");
        assert!(error.to_string().contains(name), "{error}");
    }
    dir.remove("reserve").unwrap();
    let views = open(Arc::new(dir)).expect("the reserve is made anew");
    assert!(read_all(&views, &picture, "without its reserve").is_empty());
}
