//! Records that could each be, and together cannot: they are compared before anything is written over what is there.

mod mounted;

use mounted::*;
use pitfs::clock::Epoch;
use pitfs::daemon::Daemon;
use pitfs::device::{InodeNo, LIVE};
use pitfs::error::Error;
use pitfs::media::DiskDir;
use pitfs::meta::{Overlay, Pair, Table, encode};
use pitfs::tree::{Inode, ROOT, Tree};
use serde_bytes::ByteBuf;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Changes entries of an index.
type Change<'a> = &'a dyn Fn(&mut Overlay, Vec<Pair>);

/// What a segment says of itself.
type Descriptor = (u8, Vec<(u16, Vec<u32>)>, Vec<u16>, ByteBuf);

/// A store whose files take several segments, with a snapshot; and what was put into it.
fn sample() -> (Mounted, std::path::PathBuf) {
    let mounted = Mounted::unmounted();
    let source = mounted.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    for i in 0..3u8 {
        let bytes: Vec<u8> = (0..5_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ i).collect();
        fs::write(source.join(format!("large {i}")), bytes).unwrap();
    }
    fs::write(source.join("small"), "content").unwrap();
    mounted.ok(["sync", source.to_str().unwrap()]);
    mounted.ok(["snap", "one"]);
    (mounted, source)
}

/// The store says what is wrong, nothing changes it any more, and what it has can be copied out.
fn is_only_read(mounted: &Mounted, source: &Path, what: &str, said: &str) {
    let volume = fs::read(mounted.store().join("volume.0")).unwrap();
    let (status, text) = ends(mounted, &["check"]);
    assert!(status == 1 && text.contains(said), "{what}: {text}");
    let other = mounted.dir.path().join("other");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("new"), vec![7; 3_000_000]).unwrap();
    for args in [&["snap", "two"][..], &["sync", other.to_str().unwrap()], &["delete", "one"]] {
        let (status, text) = ends(mounted, args);
        assert!(status != 0, "{what}: {args:?}: {text}");
    }
    let to = mounted.dir.path().join("to");
    for snapshot in ["live", "one"] {
        mounted.ok(["restore", snapshot, "--to", to.to_str().unwrap()]);
        assert_same(&listing(source), &listing(&to), what);
        fs::remove_dir_all(&to).unwrap();
    }
    assert!(fs::read(mounted.store().join("volume.0")).unwrap() == volume, "{what}: the volume was written to");
}

#[test]
fn nothing_is_written_where_something_lies() {
    let (mounted, source) = sample();
    let meta = mounted.store().join("meta.redb");
    let whole = fs::read(&meta).unwrap();
    let map_key = [0u8; 6];
    let places: Vec<u32> = {
        let records = Records::of(&mounted.store());
        let segments = records.all(Table::Segment);
        let of = |value: &[u8]| rmp_serde::from_slice::<Descriptor>(value).unwrap().1.remove(0).1;
        segments.iter().flat_map(|(_, value)| of(value)).collect()
    };
    assert!(places.len() > 4 && !places.contains(&0), "{places:?}");
    for free in [0, places[0], places[places.len() - 1]] {
        fs::write(&meta, &whole).unwrap();
        {
            let records = Records::of(&mounted.store());
            let mut map: ByteBuf = records.get(Table::Volume, &map_key);
            map[free as usize / 8] &= !(1 << (free % 8));
            records.put(Table::Volume, &map_key, &[], &map);
        }
        is_only_read(&mounted, &source, &format!("{free} is said to be free"), "free");
    }
    let room_of_others = |records: &Records| {
        // What is said to lie elsewhere cannot be read: a segment that nothing is in says it.
        let (_, value) = records.all(Table::Segment).remove(0);
        let empty = 1 + u64::from_be_bytes(records.all(Table::Segment).last().unwrap().0[..].try_into().unwrap());
        let mut counters: (u64, u64, u64) = records.get(Table::State, b"logstore");
        counters.0 = counters.0.max(empty + 1);
        records.put(Table::State, b"logstore", &[], &counters);
        (rmp_serde::from_slice::<Descriptor>(&value).unwrap(), empty)
    };
    for (psegs, said) in [([0, 1, 2, 3], "label"), ([places[0], places[1], places[2], places[3]], "as well")] {
        fs::write(&meta, &whole).unwrap();
        {
            let records = Records::of(&mounted.store());
            let (mut descriptor, number) = room_of_others(&records);
            descriptor.1[0].1 = psegs.to_vec();
            descriptor.3.fill(0);
            descriptor.3[0] = 1;
            descriptor.2 = vec![0];
            records.put(Table::Segment, &number.to_be_bytes(), &[], &descriptor);
        }
        is_only_read(&mounted, &source, &format!("a segment at {psegs:?}"), said);
    }
    fs::write(&meta, &whole).unwrap();
    mounted.check();
}

/// Opening looks at some segments only: whoever writes looks at the others, and what was not made durable is not said to be.
#[test]
fn what_opening_has_not_looked_at_is_looked_at_before_a_write() {
    const SEGMENTS: u64 = 3000;
    let (mounted, source) = sample();
    {
        let records = Records::of(&mounted.store());
        let (_, value) = records.all(Table::Segment).remove(0);
        let (redundancy, members, _, map): Descriptor = rmp_serde::from_slice(&value).unwrap();
        let mut counters: (u64, u64, u64) = records.get(Table::State, b"logstore");
        let mut overlay = Overlay::default();
        let mut chunks = vec![vec![0u8; 512]; 4];
        chunks[0].copy_from_slice(&records.get::<ByteBuf>(Table::Volume, &[0; 6]));
        let mut empty = map;
        empty.fill(0);
        empty[0] = 1;
        for number in 0..SEGMENTS {
            let place = 400 + number as u32 * 4;
            // The last lies where another one does.
            let place = if number == SEGMENTS - 1 { members[0].1[0] } else { place };
            let psegs: Vec<u32> = (place..place + 4).collect();
            psegs.iter().for_each(|pseg| chunks[*pseg as usize / 4096][*pseg as usize % 4096 / 8] |= 1 << (pseg % 8));
            let descriptor: Descriptor = (redundancy, vec![(0, psegs)], vec![0], empty.clone());
            overlay.put(Table::Segment, &(counters.0 + number).to_be_bytes(), encode(&descriptor));
        }
        counters.0 += SEGMENTS;
        overlay.put(Table::State, b"logstore", encode(&counters));
        for (number, chunk) in chunks.into_iter().enumerate() {
            overlay.put(Table::Volume, &[0, 0, 0, 0, 0, number as u8], encode(&ByteBuf::from(chunk)));
        }
        records.kv.commit(&overlay).unwrap();
    }
    let volume = fs::read(mounted.store().join("volume.0")).unwrap();
    let other = mounted.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("new"), vec![7; 3_000_000]).unwrap();
    for _ in 0..2 {
        let (status, text) = ends(&mounted, &["sync", other.to_str().unwrap()]);
        assert!(status != 0 && text.contains("as well"), "{text}");
    }
    assert!(fs::read(mounted.store().join("volume.0")).unwrap() == volume, "the volume was written to");
    let to = mounted.dir.path().join("to");
    // What is whole is copied out, whether or not it is said at the end that the store has stopped.
    ends(&mounted, &["restore", "one", "--to", to.to_str().unwrap()]);
    assert_same(&listing(&source), &listing(&to), "one");
}

#[test]
fn what_is_born_later_than_now_is_damage() {
    let (mounted, _) = sample();
    mounted.ok(["delete", "one"]);
    {
        let records = Records::of(&mounted.store());
        let history: (u32, u64, u64) = records.get(Table::State, b"history");
        assert!(history.0 > 1);
        let (key, value, inode) = records.file();
        let later = [&[0xce][..], &(history.0 + 1).to_be_bytes()].concat();
        assert!(value[..5] != later[..]);
        records.put(Table::Inode, &key, &later, &inode);
    }
    let tree = Tree::open(Arc::new(DiskDir::open(&mounted.store()).unwrap())).unwrap();
    let mut names = Vec::new();
    let listed = tree.names().list(ROOT.live(), 0, |entry| {
        names.push(entry.name.clone());
        Ok(true)
    });
    listed.unwrap();
    let looked: Vec<bool> = names
        .iter()
        .map(|name| match tree.names().lookup(ROOT.live(), name) {
            Ok(_) => true,
            Err(Error::Corrupt { problem, .. }) => !problem.contains("is born in epoch"),
            Err(error) => panic!("{error}"),
        })
        .collect();
    assert_eq!(looked.iter().filter(|is_whole| !**is_whole).count(), 1, "{names:?}: {looked:?}");
    for (name, is_whole) in names.iter().zip(&looked) {
        assert_eq!(tree.comparison().versions(LIVE, name).is_ok(), *is_whole, "versions of {name:?}");
    }
}

#[test]
fn an_epoch_before_something_ended_is_damage() {
    let (mounted, source) = sample();
    fs::write(source.join("small"), "changed").unwrap();
    mounted.ok(["sync", source.to_str().unwrap()]);
    mounted.ok(["snap", "two"]);
    mounted.ok(["snap", "three"]);
    {
        let records = Records::of(&mounted.store());
        let mut history: (u32, u64, u64) = records.get(Table::State, b"history");
        history.0 = 1;
        records.put(Table::State, b"history", &[], &history);
        for (key, _) in [records.all(Table::Snapshot), records.all(Table::Name)].concat().into_iter() {
            records.remove(Table::Snapshot, &key);
            records.remove(Table::Name, &key);
        }
    }
    let (status, text) = ends(&mounted, &["check"]);
    assert!(status == 1 && text.contains("ended in"), "{text}");
    assert_ne!(ends(&mounted, &["snap", "again"]).0, 0);
}

#[test]
fn an_inode_that_only_the_past_has_is_not_given_again() {
    let (mounted, source) = sample();
    fs::write(source.join("newest"), "of all").unwrap();
    mounted.ok(["sync", source.to_str().unwrap()]);
    mounted.ok(["snap", "two"]);
    fs::remove_file(source.join("newest")).unwrap();
    mounted.ok(["sync", source.to_str().unwrap()]);
    {
        let records = Records::of(&mounted.store());
        let last = records.all(Table::Inode).last().unwrap().0.clone();
        let last = u64::from_be_bytes(last[4..].try_into().unwrap());
        let next: u64 = records.get(Table::State, b"next inode");
        assert!(next > last + 1, "the last is gone");
        records.put(Table::State, b"next inode", &[], &(last + 1));
    }
    let (status, text) = ends(&mounted, &["check"]);
    assert!(status == 1 && text.contains("the next inode is said to be"), "{text}");
    assert_ne!(ends(&mounted, &["snap", "again"]).0, 0);
}

/// What is held, or needed, does not go whatever its own record says.
#[test]
fn a_snapshot_does_not_go_because_its_record_says_so() {
    for needs in [&["hold", "one"][..], &["clone", "one", "clone"]] {
        stays(needs);
    }
}

fn stays(needs: &[&str]) {
    let (mounted, source) = sample();
    mounted.ok(needs);
    {
        let records = Records::of(&mounted.store());
        let (key, mut value) = records.all(Table::Snapshot).remove(0);
        // Behind the name and the time: `deleting`.
        let at = value.windows(9).position(|from| from[..2] == [0xc2; 2] && from.ends_with(b"Activ")).unwrap();
        value[at] = 0xc3;
        let mut overlay = Overlay::default();
        overlay.put(Table::Snapshot, &key, value);
        let work = [&key[..4], &[1][..], &[0; 4], &key[4..]].concat();
        overlay.put(Table::Orphan, &work, encode(&ByteBuf::new()));
        records.kv.commit(&overlay).unwrap();
    }
    let (status, text) = ends(&mounted, &["check"]);
    assert!(status == 1 && text.contains("is not to be deleted"), "{text}");
    for _ in 0..3 {
        ends(&mounted, &["status"]);
    }
    let left = Records::of(&mounted.store()).all(Table::Snapshot).len();
    assert_eq!(left, 1);
    let to = mounted.dir.path().join("to");
    mounted.ok(["restore", "live", "--to", to.to_str().unwrap()]);
    assert_same(&listing(&source), &listing(&to), "live");
    if needs[0] == "clone" {
        let to = mounted.dir.path().join("clone");
        mounted.ok_of("clone", &["restore", "live", "--to", to.to_str().unwrap()]);
        assert_same(&listing(&source), &listing(&to), "clone");
    }
}

#[test]
fn a_damaged_key_of_positions_costs_no_store() {
    let (mounted, _) = sample();
    Records::of(&mounted.store()).put(Table::State, b"positions", &[], &"no key");
    mounted.ok(["snap", "two"]);
    mounted.check();
}

/// The first page of a database has no checksum, and memory is taken by what it says.
#[test]
fn a_database_of_many_small_regions_is_refused_at_once() {
    let (mounted, source) = sample();
    let archive = mounted.dir.path().join("archive");
    fs::write(source.join("small"), "changed").unwrap();
    mounted.ok(["sync", source.to_str().unwrap()]);
    mounted.ok(["roll", "--archive", archive.to_str().unwrap()]);
    for (at, size) in [(16u64, 1000u32), (20, 1), (20, 16), (12, 512)] {
        for file in [mounted.store().join("meta.redb"), archive.join("index")] {
            let whole = fs::read(&file).unwrap();
            let open = File::options().write(true).open(&file).unwrap();
            // Behind the page of checksums.
            open.write_all_at(&size.to_le_bytes(), 4096 + at).unwrap();
            open.set_len(8 << 40).unwrap();
            let start = Instant::now();
            let (status, text) = ends(&mounted, &["list"]);
            assert!(start.elapsed() < Duration::from_secs(10), "{file:?} takes {:?}", start.elapsed());
            match file.ends_with("index") {
                true => assert!(status == 0 && text.contains("one"), "{text}"),
                false => {
                    assert!(status != 0 && text.contains("its first page says"), "{text}");
                    fs::write(&file, &whole).unwrap();
                }
            }
        }
    }
    mounted.check();
}

/// An index has nothing of its own: `archive verify` compares it with the increments.
#[test]
fn an_index_that_says_other_things_is_made_anew() {
    let (mounted, source) = sample();
    let archive = mounted.dir.path().join("archive");
    for text in ["second", "third"] {
        fs::write(source.join("small"), text).unwrap();
        mounted.ok(["sync", source.to_str().unwrap()]);
        mounted.ok(["roll", "--archive", archive.to_str().unwrap(), "--keep", "1"]);
    }
    mounted.ok(["archive", "verify"]);
    let index = |change: Change<'_>| {
        let directory = DiskDir::open(&archive).unwrap();
        let file = pitfs::media::MediaDir::open(&directory, "index", false).unwrap();
        let kv = pitfs::meta::Kv::open(file, None).unwrap();
        let all = kv.tables().unwrap().range(Table::Preimage, &[], &[u8::MAX; 40]).unwrap();
        let mut overlay = Overlay::default();
        change(&mut overlay, all.map(|pair| pair.unwrap()).collect());
        kv.commit(&overlay).unwrap();
    };
    let of = |table: Table| move |(key, _): &Pair| key[4] == table as u8;
    let is_inode = of(Table::Inode);
    let put_other = |overlay: &mut Overlay, all: Vec<Pair>| {
        let (key, mut value) = all.into_iter().find(|pair| is_inode(pair)).unwrap();
        let inode: Inode = rmp_serde::from_slice(&value[5..]).unwrap();
        value.truncate(5);
        value.extend(encode(&Inode { mode: inode.mode ^ 0o777, ..inode }));
        overlay.put(Table::Preimage, &key, value);
    };
    let take_away = |overlay: &mut Overlay, all: Vec<Pair>| {
        overlay.remove(Table::Preimage, &all.into_iter().find(|pair| is_inode(pair)).unwrap().0);
    };
    let add = |overlay: &mut Overlay, all: Vec<Pair>| {
        let (mut key, value) = all.into_iter().find(|pair| is_inode(pair)).unwrap();
        key[11] ^= 0x40;
        overlay.put(Table::Preimage, &key, value);
    };
    for change in [&put_other as Change<'_>, &take_away, &add] {
        index(change);
        let (status, text) = ends(&mounted, &["archive", "verify"]);
        assert!(status == 1 && text.contains("the index said other things"), "{text}");
        mounted.ok(["archive", "verify"]);
    }
}

/// Directories that lie in each other are looked through once when a restore is settled.
#[test]
fn directories_in_a_circle_are_settled() {
    let (mounted, source) = sample();
    fs::create_dir_all(source.join("outer/inner")).unwrap();
    mounted.ok(["sync", source.to_str().unwrap()]);
    {
        let records = Records::of(&mounted.store());
        let directories: Vec<(InodeNo, Vec<u8>)> = records
            .all(Table::Inode)
            .into_iter()
            .filter_map(|(key, value)| {
                let inode: Inode = rmp_serde::from_slice(&value[5..]).ok()?;
                let number = InodeNo::of_key(&key).unwrap();
                (inode.mode >> 12 == 4 && number != ROOT).then(|| (number, value[..5].to_vec()))
            })
            .collect();
        assert_eq!(directories.len(), 2);
        for ((inside, birth), (leads_to, _)) in directories.iter().zip(directories.iter().rev()) {
            let hash = xxhash_rust::xxh3::xxh3_64_with_seed(b"round", records.seed) >> 1;
            let key = [&inside.prefix()[..], &hash.to_be_bytes(), b"round"].concat();
            records.put(Table::Dirent, &key, birth, &(*leads_to, 4u8));
        }
    }
    mounted.ok(["snap", "two"]);
    for args in [
        &["restore", "one"][..],
        &["base", "wait", "live"],
        &["restore", "two"],
        &["base", "wait", "live"],
        &["clone", "--full", "--wait", "two", "clone"],
        &["roll"],
    ] {
        let (_, text) = ends(&mounted, args);
        assert!(!text.contains("usage"), "{args:?}: {text}");
    }
    let to = mounted.dir.path().join("to");
    ends(&mounted, &["restore", "live", "--to", to.to_str().unwrap()]);
    assert!(to.join("outer/inner").is_dir());
    assert_eq!(fs::read(to.join("small")).unwrap(), b"content");
}

/// Notes whose keys make no sense hold up neither settling nor deleting.
#[test]
fn notes_that_make_no_sense_hold_up_no_work() {
    let (mounted, source) = sample();
    fs::write(source.join("small"), "other").unwrap();
    mounted.ok(["sync", source.to_str().unwrap()]);
    mounted.ok(["snap", "two"]);
    let epoch = {
        let records = Records::of(&mounted.store());
        let (two, _) = records.all(Table::Snapshot).pop().unwrap();
        let mut overlay = Overlay::default();
        overlay.put(Table::Tombstone, &[0, 0, 0, 0, 200], Vec::new());
        overlay.put(Table::Passed, &[&two[..], &[200]].concat(), Vec::new());
        records.kv.commit(&overlay).unwrap();
        Epoch::from_be_bytes(*two.last_chunk().unwrap())
    };
    let daemon = Daemon::open(&mounted.store()).unwrap();
    let (views, tree) = (daemon.views(), daemon.views().tree());
    let one = views.find(b"one").unwrap().unwrap();
    views.restores().restore(&one).unwrap();
    while tree.settle_step().unwrap() {}
    views.deletions().delete(&[b"two"]).unwrap();
    while tree.device().removal().step().unwrap() {}
    let look = tree.device().look().unwrap();
    let left = |table| look.meta().range(table, &[], &[u8::MAX; 40]).unwrap().count();
    assert_eq!((left(Table::Tombstone), left(Table::Passed)), (0, 0));
    assert!(look.moments().snapshot(one.base, epoch).unwrap().is_none());
    drop(look);
    daemon.close().unwrap();
    // It has the store until it is gone.
    drop(daemon);
    mounted.ok(["check"]);
}

/// A base whose work cannot be done for damage holds up no other, and neither does an inode that cannot be removed.
#[test]
fn what_is_damaged_holds_up_no_other_work() {
    let (mounted, source) = sample();
    fs::remove_file(source.join("large 0")).unwrap();
    mounted.ok(["sync", source.to_str().unwrap()]);
    mounted.ok(["snap", "two"]);
    // The one has a record of now, the other none.
    let [unreadable, free] = [38, 39].map(|number| InodeNo::new(LIVE, number));
    let note = |inode: InodeNo| [&LIVE.prefix()[..], &[0], &inode.number().to_be_bytes()].concat();
    {
        let records = Records::of(&mounted.store());
        let mut overlay = Overlay::default();
        let tracks = records.all(Table::Preimage).into_iter().filter(|(key, _)| key[4] == Table::Track as u8);
        for (key, value) in tracks {
            overlay.put(Table::Preimage, &key, [&value[..5], &[0xc1]].concat());
        }
        let (two, _) = records.all(Table::Snapshot).pop().unwrap();
        let now = Epoch::from_be_bytes(*two.last_chunk().unwrap()).next();
        overlay.put(Table::Inode, &unreadable.prefix(), [&[0xce], &now.to_be_bytes()[..], &[0xc1]].concat());
        overlay.put(Table::State, b"next inode", encode(&40u64));
        for inode in [unreadable, free] {
            overlay.put(Table::Orphan, &note(inode), encode(&()));
        }
        records.kv.commit(&overlay).unwrap();
    }
    let daemon = Daemon::open(&mounted.store()).unwrap();
    let (views, tree) = (daemon.views(), daemon.views().tree());
    let clone = |of: &[u8], name: &[u8]| {
        views.bases().clone_snapshot(&views.find(of).unwrap().unwrap(), name, true, false).unwrap()
    };
    let (damaged, whole) = (clone(b"one", b"damaged"), clone(b"two", b"whole"));
    while let Ok(true) = tree.settle_step() {}
    assert!(matches!(tree.settle_step(), Err(Error::Corrupt { .. })), "it is said");
    while let Ok(true) = tree.reap_step() {}
    assert!(matches!(tree.reap_step(), Err(Error::Corrupt { .. })), "it is said");
    let look = tree.device().look().unwrap();
    assert!(look.noted_work().is_settling(damaged).unwrap() && !look.noted_work().is_settling(whole).unwrap());
    assert!(!look.meta().contains(Table::Orphan, &note(free)).unwrap());
}
