//! What is written comes back.

mod damage;

use super::*;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::id::Id;
use crate::limits::{SET_DATA_BYTES, TRACK_BYTES_MAX};
use crate::media::Directory;
use crate::purpose::Purpose;
use crate::set::Mark;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

/// An entry's birth, whether it is a track, and its bytes.
type Old = (Epoch, bool, Vec<u8>);
type Model = BTreeMap<(u8, Vec<u8>), Old>;

const NAME: &str = "increment";

fn header() -> Header {
    let mark = |epoch: Epoch, name: &str| {
        let time = Timestamp { seconds: 1_795_000_000 + i64::from(epoch.number()), nanos: 7 };
        Mark {
            epoch,
            id: Id::of_parts(name, &[]),
            name: name.into(),
            time,
            purpose: if epoch == Epoch::new(7) { Purpose::Save } else { Purpose::Roll },
            offline: epoch == Epoch::new(8),
        }
    };
    Header {
        store: Id::of_parts("store", &[]),
        base_id: Id::of_parts("base", &[]),
        base: 1,
        base_name: "live".into(),
        from: mark(Epoch::new(7), "before"),
        to: mark(Epoch::new(8), "after ü"),
        track_bytes: 65_536,
        hash_seed: u64::MAX - 1,
        merged: Vec::new(),
    }
}

fn directory(path: &Path) -> Arc<Directory> {
    Arc::new(Directory::open(path).unwrap())
}

fn open(path: &Path) -> Result<Reader, Error> {
    Reader::open(&directory(path.parent().unwrap()), path.file_name().unwrap().to_str().unwrap())
}

fn write(dir: &Path, model: &Model) -> Result<Summary, Error> {
    let mut writer = Writer::create(&directory(dir), NAME, &header(), LEVEL)?;
    for ((table, key), (birth, is_track, bytes)) in model {
        match is_track {
            true => writer.track(*table, key, *birth, bytes)?,
            false => writer.record(*table, key, *birth, bytes)?,
        }
    }
    writer.finish()
}

fn written(model: &Model) -> (TempDir, Reader) {
    let dir = TempDir::new().unwrap();
    let summary = write(dir.path(), model).unwrap();
    let reader = open(&summary.path).unwrap();
    assert_eq!(*reader.summary(), summary);
    (dir, reader)
}

fn old(reader: &Reader, entry: Entry) -> ((u8, Vec<u8>), Old) {
    let (is_track, bytes) = match &entry.value {
        Value::Record(bytes) => (false, bytes.clone()),
        Value::Track(place) => (true, reader.read_track(place).unwrap().to_vec()),
    };
    ((entry.table, entry.key), (entry.birth, is_track, bytes))
}

fn read<'a>(reader: &'a Reader, entries: Entries<'a>) -> Vec<((u8, Vec<u8>), Old)> {
    entries.map(|entry| old(reader, entry.unwrap())).collect()
}

fn part(model: &Model, table: u8, from: &[u8], to: &[u8]) -> Vec<((u8, Vec<u8>), Old)> {
    let is_in = |(found, key): &(u8, Vec<u8>)| *found == table && from <= key.as_slice() && key.as_slice() < to;
    model.iter().filter(|(key, _)| is_in(key)).map(|(key, old)| (key.clone(), old.clone())).collect()
}

/// Tables and keys with much in common, as those of a store have.
fn key() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let part = prop_oneof![
        Just(&b""[..]),
        Just(&b"\0\0\0\0"[..]),
        Just(&b"\0\0\0\x01"[..]),
        Just(&b"name"[..]),
        Just(&b"\xff\xff"[..])
    ];
    let key = (prop::collection::vec(part, 0..4), prop::collection::vec(any::<u8>(), 0..3));
    (1..5u8, key.prop_map(|(parts, end)| [parts.concat(), end].concat()))
}

fn model() -> impl Strategy<Value = Model> {
    let text = (0..400usize).prop_map(|len| b"the same words again ".iter().copied().cycle().take(len).collect());
    let bytes = prop_oneof![text, prop::collection::vec(any::<u8>(), 0..60)];
    prop::collection::btree_map(key(), (any::<u32>().prop_map(Epoch::new), any::<bool>(), bytes), 0..120)
}

/// An increment of some 20 KB in several blocks of each kind.
fn sample() -> Model {
    let mut state = 1u64;
    let mut noise = |len: usize| -> Vec<u8> {
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(len).collect()
    };
    let mut model = Model::new();
    for inode in 0..60u64 {
        model.insert((1, inode.to_be_bytes().to_vec()), (Epoch::new(3), false, noise(30)));
        model.insert((3, [&inode.to_be_bytes()[..], b"user.x"].concat()), (Epoch::new(4), false, b"value ".repeat(20)));
        let len = if inode % 7 == 0 { 1500 } else { 100 };
        model.insert((4, inode.to_be_bytes().repeat(2)), (Epoch::new(5), true, noise(len)));
    }
    model
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn everything_comes_back_whichever_way_it_is_read(
        model in model(), others in prop::collection::vec((key(), key()), 0..8)
    ) {
        let (_dir, reader) = written(&model);
        reader.verify(&mut |_| Ok(())).unwrap();
        prop_assert_eq!(reader.header(), &header());
        let tracks = model.values().filter(|(_, is_track, _)| *is_track);
        prop_assert_eq!(reader.summary().track_bytes, tracks.clone().map(|old| old.2.len() as u64).sum::<u64>());
        prop_assert_eq!(reader.summary().tracks, tracks.count() as u64);
        prop_assert_eq!(reader.summary().records + reader.summary().tracks, model.len() as u64);
        prop_assert_eq!(reader.file_bytes(), std::fs::metadata(reader.path()).unwrap().len());
        let all: Vec<_> = model.clone().into_iter().collect();
        prop_assert_eq!(read(&reader, reader.entries()), all);
        for (table, key) in model.keys().chain(others.iter().flat_map(|(a, b)| [a, b])) {
            let found = reader.find(*table, key).unwrap().map(|entry| old(&reader, entry).1);
            prop_assert_eq!(found.as_ref(), model.get(&(*table, key.clone())));
        }
        for ((table, from), (_, to)) in &others {
            prop_assert_eq!(read(&reader, reader.range(*table, from, to)), part(&model, *table, from, to));
        }
        for (table, _) in model.keys() {
            prop_assert_eq!(read(&reader, reader.range(*table, b"", &[0xff; 300])), part(&model, *table, b"", &[0xff; 300]));
        }
    }
}

#[test]
fn entries_out_of_order_are_refused_and_the_others_stay() {
    let dir = TempDir::new().unwrap();
    let mut writer = Writer::create(&directory(dir.path()), NAME, &header(), LEVEL).unwrap();
    writer.record(2, b"middle", Epoch::new(1), &[7; 100]).unwrap();
    for (table, key) in [(2, &b"middle"[..]), (2, b"early"), (2, b""), (1, b"zebra")] {
        assert!(matches!(writer.record(table, key, Epoch::new(1), b"x"), Err(Error::Refused(..))));
        assert!(matches!(writer.track(table, key, Epoch::new(1), b"x"), Err(Error::Refused(..))));
    }
    assert!(writer.record(3, &[0; 5000], Epoch::new(1), b"x").is_err(), "a key that is too long");
    assert!(writer.track(3, b"x", Epoch::new(1), &vec![0; TRACK_BYTES_MAX + 1]).is_err(), "a track that is too long");
    writer.track(2, b"middle and more", Epoch::new(1), b"y").unwrap();
    let reader = open(&writer.finish().unwrap().path).unwrap();
    assert_eq!(
        reader.entries().map(|entry| entry.unwrap().key).collect::<Vec<_>>(),
        [&b"middle"[..], b"middle and more"]
    );
}

#[test]
fn an_increment_without_entries_is_one() {
    let (_dir, reader) = written(&Model::new());
    reader.verify(&mut |_| Ok(())).unwrap();
    assert_eq!(reader.entries().count(), 0);
    assert_eq!(reader.find(1, b"x").unwrap(), None);
    assert_eq!(reader.range(1, b"", b"x").count(), 0);
}

#[test]
fn tracks_longer_than_a_block_and_empty_ones_come_back() {
    let large: Vec<u8> = (0..TRACK_BYTES_MAX as u32).flat_map(|n| [(n % 251) as u8, (n >> 13) as u8]).collect();
    let sizes = [0, TRACK_BYTES_MAX, 0, 1, SET_DATA_BYTES, SET_DATA_BYTES + 1, TRACK_BYTES_MAX, 0];
    let tracks = sizes.iter().zip(0u8..).map(|(len, n)| ((4, vec![n]), (Epoch::new(1), true, large[..*len].to_vec())));
    let model: Model = tracks.collect();
    let (_dir, reader) = written(&model);
    reader.verify(&mut |_| Ok(())).unwrap();
    assert_eq!(read(&reader, reader.entries()), model.into_iter().collect::<Vec<_>>());
}

#[test]
fn many_entries_are_all_found() {
    let key = |n: u32| [&[0; 60][..], &n.wrapping_mul(0x9E37_79B9).to_be_bytes(), &n.to_be_bytes()].concat();
    let model: Model = (0..9000).map(|n| ((2, key(n)), (Epoch::new(n), n % 3 == 0, vec![n as u8; 20]))).collect();
    let (_dir, reader) = written(&model);
    reader.verify(&mut |_| Ok(())).unwrap();
    assert_eq!(read(&reader, reader.entries()).len(), 9000);
    for (table, key) in model.keys() {
        assert!(reader.find(*table, key).unwrap().is_some());
        assert!(reader.find(*table, &[&key[..], &[0]].concat()).unwrap().is_none());
    }
}

#[test]
fn what_is_not_finished_leaves_nothing_and_leftovers_are_replaced() {
    let dir = TempDir::new().unwrap();
    let files = || std::fs::read_dir(dir.path()).unwrap().count();
    std::fs::write(dir.path().join(".increment.new"), [1; 9999]).unwrap();
    let mut writer = Writer::create(&directory(dir.path()), NAME, &header(), LEVEL).unwrap();
    assert!(files() == 1 && !dir.path().join(NAME).exists());
    writer.track(4, b"x", Epoch::new(1), &[1; 200_000]).unwrap();
    drop(writer);
    assert_eq!(files(), 0);
    let summary = write(dir.path(), &sample()).unwrap();
    assert_eq!(files(), 1);
    assert_eq!(summary.path, dir.path().join(NAME));
    assert_eq!(summary.bytes, std::fs::metadata(&summary.path).unwrap().len());
}

#[test]
fn verification_tells_how_far_it_is_and_can_be_ended() {
    let (_dir, reader) = written(&sample());
    let mut told = Vec::new();
    let tell = &mut |bytes| {
        told.push(bytes);
        Ok(())
    };
    reader.verify(tell).unwrap();
    assert!(told.len() > 2 && told.is_sorted() && told.last() == Some(&reader.file_bytes()));
    let mut calls = 0;
    let stopped = reader.verify(&mut |_| {
        calls += 1;
        Err(Error::Store("enough".into()))
    });
    assert!(matches!(stopped, Err(Error::Store(_))) && calls == 1);
}
