//! Moments written as sets, beside maps that have the same.

use super::layout::{END, End, HEAD, Head};
use super::node::{Line, Node, Place, decode_inner, decode_leaf, encode_inner, encode_leaf};
use super::unit::{Label, Told, What};
use super::*;
use crate::clock::{Epoch, Timestamp};
use crate::error::{Error, Result};
use crate::media::{Shelf, TestShelf};
use crate::purpose::Purpose;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Thing {
    Record(Vec<u8>),
    Track(Vec<u8>),
}

type Model = BTreeMap<Vec<u8>, (Epoch, Thing)>;

struct Rng(u64);

impl Rng {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        let len = self.below(most + 1);
        let seed = self.below(1 << 30);
        (0..len).map(|at| (at * at + seed * 7 + at / 9) as u8).collect()
    }
}

fn header(before: Option<Before>) -> Header {
    let (id, time) = (Id::random(), Timestamp::default());
    let mark = Mark { epoch: Epoch::new(7), id, name: "then".into(), time, purpose: Purpose::Plain, offline: false };
    let (store, base, base_name) = (Id::of_parts("store", &[]), Id::of_parts("base", &[]), "live".to_string());
    let kind = if before.is_some() { Kind::Incremental } else { Kind::Full };
    Header { store, base, base_name, mark, kind, before, track_bytes: 65_536, hash_seed: 3, bytes: 100, reverse: None }
}

fn delta(key: &[u8], birth: Epoch, thing: Option<&Thing>) -> Delta {
    let change = match thing {
        Some(Thing::Record(value)) => Change::Record(value.clone()),
        Some(Thing::Track(bytes)) => Change::Track(bytes.clone()),
        None => Change::Gone,
    };
    Delta { key: key.to_vec(), birth, change }
}

fn all_of(model: &Model) -> Vec<Delta> {
    model.iter().map(|(key, (birth, thing))| delta(key, *birth, Some(thing))).collect()
}

fn write(shelf: &Arc<TestShelf>, seal: &Seal, sets: &Sets, before: Option<Id>, changes: Vec<Delta>) -> Result<Summary> {
    let named = before.map(|set| Before { set, snapshot: Id::default() });
    let mut writer = Writer::create(shelf, Id::random(), &header(named), seal, 3)?;
    update(&mut writer, before.map(|before| (sets, before)), changes.into_iter().map(Ok))?;
    writer.finish()
}

fn is_model(sets: &Sets, moment: Id, model: &Model) {
    let mut found = Model::new();
    for entry in sets.scan(moment, b"", &[0xff; 40]).unwrap() {
        let entry = entry.unwrap();
        found.insert(entry.key, (entry.birth, thing(sets, &entry.value).unwrap()));
    }
    assert!(found == *model, "{} of {} entries", found.len(), model.len());
}

fn thing(sets: &Sets, value: &Value<Spot>) -> Result<Thing> {
    match value {
        Value::Record(value) => Ok(Thing::Record(value.clone())),
        Value::Track { len, place } => sets.read(place, *len).map(Thing::Track),
        Value::Lost => panic!("nothing is lost"),
    }
}

fn key_of(number: u64) -> Vec<u8> {
    let table = if number.is_multiple_of(3) { 4 } else { (number % 3) as u8 };
    [&[table][..], &(number * 0x1_0001).to_be_bytes()].concat()
}

fn random_thing(rng: &mut Rng, key: &[u8]) -> Thing {
    if key[0] == 4 { Thing::Track(rng.bytes(3000)) } else { Thing::Record(rng.bytes(90)) }
}

/// Changes a model, and says how.
fn change(rng: &mut Rng, model: &mut Model, epoch: Epoch, keys: u64, count: u64) -> Vec<Delta> {
    let mut changed = BTreeMap::new();
    for _ in 0..count {
        let key = key_of(rng.below(keys));
        if rng.below(4) == 0 {
            if model.remove(&key).is_some() {
                changed.insert(key, None);
            }
        } else {
            let thing = random_thing(rng, &key);
            model.insert(key.clone(), (epoch, thing.clone()));
            changed.insert(key, Some(thing));
        }
    }
    changed.into_iter().map(|(key, thing)| delta(&key, epoch, thing.as_ref())).collect()
}

fn model_of(rng: &mut Rng, keys: u64) -> Model {
    let things = (0..keys).map(key_of).map(|key| {
        let thing = random_thing(rng, &key);
        (key, (Epoch::new(1), thing))
    });
    things.collect()
}

#[test]
fn each_moment_of_a_chain_is_what_was_written() {
    for (seal, seed) in [(Seal::plain(), 1), (Seal::with(&Key::of([9; 32])), 2)] {
        let shelf = Arc::new(TestShelf::default());
        let sets = Sets::new(Arc::new(shelf.clone()), seal.clone());
        let mut rng = Rng(seed);
        let mut model = model_of(&mut rng, 3000);
        let full = write(&shelf, &seal, &sets, None, all_of(&model)).unwrap();
        let mut moments = vec![(full.id, model.clone(), full)];
        for epoch in 2..40 {
            let (keys, count) = (3000 + rng.below(2000), [1, 10, 200, 2000][rng.below(4) as usize]);
            let changes = change(&mut rng, &mut model, Epoch::new(epoch), keys, count);
            // Now and then another history of an earlier moment.
            let before = moments
                [if rng.below(8) == 0 { rng.below(moments.len() as u64) as usize } else { moments.len() - 1 }]
            .clone();
            let (changes, now) = match before.0 == moments[moments.len() - 1].0 {
                true => (changes, model.clone()),
                false => {
                    let mut other = before.1.clone();
                    let changes = change(&mut rng, &mut other, Epoch::new(epoch), keys, count);
                    (changes, other)
                }
            };
            model = now.clone();
            let summary = write(&shelf, &seal, &sets, Some(before.0), changes).unwrap();
            moments.push((summary.id, now, summary));
        }
        for (id, model, summary) in &moments {
            is_model(&sets, *id, model);
            let tracks = model
                .values()
                .filter_map(|(_, thing)| if let Thing::Track(bytes) = thing { Some(bytes.len() as u64) } else { None });
            let (count, bytes) = (tracks.clone().count() as u64, tracks.sum::<u64>());
            assert_eq!((summary.foot.tracks, summary.foot.records), (count, model.len() as u64 - count));
            assert_eq!(summary.foot.sets.iter().map(|share| share.bytes).sum::<u64>(), bytes);
            for number in 0..200 {
                let key = key_of(rng.below(6000) + number);
                let found = sets.find(*id, &key).unwrap();
                let found = found.map(|entry| (entry.birth, thing(&sets, &entry.value).unwrap()));
                assert_eq!(found.as_ref(), model.get(&key));
            }
            let (from, to) = (key_of(rng.below(4000)), key_of(rng.below(4000)));
            let keys = sets.scan(*id, &from, &to).unwrap().map(|entry| entry.unwrap().key);
            let expected: Vec<_> = model.keys().filter(|key| **key >= from && **key < to).cloned().collect();
            assert_eq!(keys.collect::<Vec<_>>(), expected);
        }
    }
}

#[test]
fn what_changed_is_what_it_costs() {
    let (shelf, seal, mut rng) = (Arc::new(TestShelf::default()), Seal::plain(), Rng(5));
    let sets = Sets::new(Arc::new(shelf.clone()), seal.clone());
    let things = (0..200_000).map(|number| (key_of(number), (Epoch::new(1), Thing::Record(rng.bytes(60)))));
    let mut model: Model = things.collect();
    let full = write(&shelf, &seal, &sets, None, all_of(&model)).unwrap();
    sets.forget();
    let mut before = full.id;
    for epoch in 2..6 {
        let (mut changes, read) = (Vec::new(), shelf.read.load(Ordering::Relaxed));
        for number in [5, 100_000, 100_001, 199_999] {
            let thing = Thing::Record(rng.bytes(60));
            model.insert(key_of(number), (Epoch::new(epoch), thing.clone()));
            changes.push(delta(&key_of(number), Epoch::new(epoch), Some(&thing)));
        }
        changes.sort_by(|a, b| a.key.cmp(&b.key));
        let summary = write(&shelf, &seal, &sets, Some(before), changes).unwrap();
        let read = shelf.read.load(Ordering::Relaxed) - read;
        assert!(summary.bytes < 130_000 && read < 200_000, "{} bytes written, {read} read", summary.bytes);
        before = summary.id;
    }
    let nothing = write(&shelf, &seal, &sets, Some(before), Vec::new()).unwrap();
    assert!(nothing.bytes < 1000, "{} bytes", nothing.bytes);
    is_model(&sets, nothing.id, &model);
    let all_gone = model.keys().map(|key| delta(key, Epoch::new(9), None)).collect();
    let empty = write(&shelf, &seal, &sets, Some(nothing.id), all_gone).unwrap();
    assert_eq!((empty.foot.root, empty.foot.records), (None, 0));
    is_model(&sets, empty.id, &Model::new());
    // Looking one up in a long chain reads a node of each level, and opens the sets that these lie in.
    sets.forget();
    let reads = shelf.reads.load(Ordering::Relaxed);
    assert!(sets.find(before, &key_of(77)).unwrap().is_some());
    assert!(shelf.reads.load(Ordering::Relaxed) - reads < 5 * 4 + 5);
}

#[test]
fn what_failed_is_not_there() {
    let (shelf, seal, mut rng) = (Arc::new(TestShelf::default()), Seal::plain(), Rng(6));
    let sets = Sets::new(Arc::new(shelf.clone()), seal.clone());
    let model = model_of(&mut rng, 500);
    let mut writes = 0;
    loop {
        shelf.fail_after(Some(writes));
        match write(&shelf, &seal, &sets, None, all_of(&model)) {
            Ok(summary) => break is_model(&sets, summary.id, &model),
            Err(error) => assert!(matches!(error, Error::Media { .. }), "{error}"),
        }
        assert!(shelf.list().unwrap().is_empty());
        writes += 1;
    }
    assert!(writes > 10, "{writes} writes");
}

#[test]
fn keys_ascend_and_nothing_is_too_long() {
    let (shelf, seal) = (Arc::new(TestShelf::default()), Seal::plain());
    let mut writer = Writer::create(&shelf, Id::random(), &header(None), &seal, 3).unwrap();
    writer.record(b"b", Epoch::new(1), b"").unwrap();
    for key in [&b"a"[..], b"b", &[b'z'; 1025]] {
        assert!(matches!(writer.record(key, Epoch::new(1), b""), Err(Error::Refused(..))));
    }
    assert!(writer.track(b"c", Epoch::new(1), &vec![0; (1 << 20) + 1]).is_err());
    drop(writer);
    assert!(shelf.list().unwrap().is_empty());
}

/// Whatever is damaged, what is read is right, or an error.
#[test]
fn nothing_damaged_reads_as_something_else() {
    for seal in [Seal::plain(), Seal::with(&Key::of([1; 32]))] {
        let (shelf, mut rng) = (Arc::new(TestShelf::default()), Rng(7));
        let sets = Sets::new(Arc::new(shelf.clone()), seal.clone());
        let mut model = model_of(&mut rng, 600);
        let first = write(&shelf, &seal, &sets, None, all_of(&model)).unwrap();
        let changes = change(&mut rng, &mut model, Epoch::new(2), 700, 40);
        let second = write(&shelf, &seal, &sets, Some(first.id), changes).unwrap();
        let names = [first.id, second.id].map(object_name);
        for round in 0..1500 {
            let name = &names[round % 2];
            let (mut at, bit) = (0, 1 << rng.below(8));
            shelf.change(name, |bytes| {
                at = rng.below(bytes.len() as u64) as usize;
                bytes[at] ^= bit;
            });
            sets.forget();
            let mut damaged = 0;
            for number in (0..700).step_by(13) {
                let key = key_of(number);
                let found = sets
                    .find(second.id, &key)
                    .and_then(|found| found.map(|entry| Ok((entry.birth, thing(&sets, &entry.value)?))).transpose());
                match found {
                    Ok(found) => assert_eq!(found.as_ref(), model.get(&key), "byte {at} of {name}"),
                    Err(Error::Corrupt { .. } | Error::Store(_)) => damaged += 1,
                    Err(error) => panic!("byte {at} of {name}: {error}"),
                }
            }
            let scanned = sets.scan(second.id, b"", &[0xff; 40]).map_or(0, |scan| scan.flatten().count());
            assert!(scanned <= model.len() && damaged <= 60);
            shelf.change(name, |bytes| bytes[at] ^= bit);
        }
        sets.forget();
        is_model(&sets, second.id, &model);
        let other = Sets::new(Arc::new(shelf.clone()), Seal::with(&Key::of([2; 32])));
        let text = other.file(first.id).unwrap_err().to_string();
        assert!(text.contains("not encrypted") || text.contains("not sealed with this key"), "{text}");
    }
}

#[test]
fn sets_that_were_swapped_or_cut_are_told() {
    let (shelf, seal, mut rng) = (Arc::new(TestShelf::default()), Seal::plain(), Rng(8));
    let sets = Sets::new(Arc::new(shelf.clone()), seal.clone());
    let model = model_of(&mut rng, 100);
    let [one, two] = [1, 2].map(|_| write(&shelf, &seal, &sets, None, all_of(&model)).unwrap());
    let mut bytes = Vec::new();
    shelf.change(&object_name(two.id), |found| bytes.clone_from(found));
    shelf.change(&object_name(one.id), |found| *found = bytes.clone());
    sets.forget();
    assert!(sets.file(one.id).unwrap_err().to_string().contains("under another's name"));
    for len in [0, 10, 56, 100, bytes.len() - 1] {
        shelf.change(&object_name(two.id), |found| *found = bytes[..len].to_vec());
        sets.forget();
        assert!(matches!(sets.file(two.id), Err(Error::Corrupt { .. })), "{len} bytes");
    }
    shelf.remove(&object_name(two.id)).unwrap();
    assert!(sets.file(two.id).unwrap_err().to_string().contains("is not there"));
}

#[test]
fn all_of_a_set_is_verified() {
    let (shelf, seal, mut rng) = (Arc::new(TestShelf::default()), Seal::plain(), Rng(9));
    let sets = Sets::new(Arc::new(shelf.clone()), seal.clone());
    let model = model_of(&mut rng, 2000);
    let summary = write(&shelf, &seal, &sets, None, all_of(&model)).unwrap();
    let damage = |sets: &Sets| -> Result<(u64, usize)> {
        let (mut bytes, mut damaged) = (0, 0);
        sets.file(summary.id)?.verify(None, &mut |read, error| {
            bytes += read;
            damaged += usize::from(error.is_some());
            Ok(())
        })?;
        Ok((bytes, damaged))
    };
    let (bytes, damaged) = damage(&sets).unwrap();
    assert!(damaged == 0 && bytes > summary.bytes * 9 / 10, "{bytes} of {}", summary.bytes);
    for _ in 0..300 {
        let (mut at, bit) = (0, 1 << rng.below(8));
        shelf.change(&object_name(summary.id), |bytes| {
            at = rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= bit;
        });
        sets.forget();
        // Nothing of an object is there for nothing.
        assert!(damage(&sets).map_or(true, |(_, damaged)| damaged > 0), "byte {at}");
        shelf.change(&object_name(summary.id), |bytes| bytes[at] ^= bit);
    }
}

/// What a moment has nothing of any more is not named by those after it, however many there were.
#[test]
fn a_long_chain_names_what_it_lies_in() {
    let (shelf, seal) = (Arc::new(TestShelf::default()), Seal::plain());
    let sets = Sets::new(Arc::new(shelf.clone()), seal.clone());
    let mut before = None;
    for number in 0..300 {
        let thing = Thing::Track(vec![number as u8; 100]);
        let changes = vec![delta(&key_of(3 * (number % 4)), Epoch::new(number as u32 + 1), Some(&thing))];
        let summary = write(&shelf, &seal, &sets, before, changes).unwrap();
        assert!(summary.foot.sets.len() < 8 && summary.bytes < 1500, "{number}: {} bytes", summary.bytes);
        before = Some(summary.id);
    }
}

/// Changes bytes in up to four places.
fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..=rng.below(4) {
        let place = |rng: &mut Rng, bytes: &Vec<u8>| rng.below(bytes.len() as u64 + 1) as usize;
        let at = place(rng, bytes);
        match rng.below(7) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.below(256) as u8),
            2 => drop(bytes.splice(at..at, [0xff; 9])),
            3 => {
                let to = place(rng, bytes);
                let piece = bytes[at.min(to)..at.max(to)].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => drop(bytes.splice(at..(at + 1).min(bytes.len()), [])),
            5 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = [0, 1, 0x7f, 0x80, 0xff][at % 5]),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << rng.below(8)),
        }
    }
}

/// What is decoded of a hundred thousand inputs is what it would be written as, or it is told that it is nothing.
#[test]
fn mutated_nodes_labels_heads_and_ends_are_decoded_or_told() {
    let mut rng = Rng(11);
    let entry = |number: u64| Entry {
        key: key_of(number * 7),
        birth: Epoch::new(number as u32),
        value: match number % 4 {
            0 => Value::Track { len: 10, place: Place { set: 1, offset: 900 + number, stored: 70, at: number as u32 } },
            1 => Value::Lost,
            _ => Value::Record(vec![number as u8; number as usize % 20]),
        },
    };
    let mut entries: Vec<_> = (0..20).map(entry).collect();
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    let line = |entry: &Entry<Place>| Line { first: entry.key.clone(), set: 3, offset: 1 << 33, stored: 800 };
    let lines: Vec<_> = entries.iter().map(line).collect();
    let told = entries.iter().zip([What::Record, What::Track { len: 77 }, What::Gone].into_iter().cycle());
    let told = told.map(|(entry, what)| Told { key: entry.key.clone(), birth: entry.birth, what }).collect();
    let label = Label { number: 2, frames: vec![100, 70_000], told };
    let samples = [encode_leaf(&entries), encode_inner(&lines), label.encode()];
    let (id, store) = (Id::of_parts("set", &[]), Id::of_parts("store", &[]));
    let head = Head { id, store, is_secret: false }.encode();
    let end = End { foot: 100, stored: 55, bytes: 200 }.encode(&head);
    for round in 0..100_000 {
        let mut bytes = samples[round % 3].clone();
        mutate(&mut rng, &mut bytes);
        if let Ok(Node::Leaf(found)) = decode_leaf(&bytes) {
            assert!(matches!(decode_leaf(&encode_leaf(&found)), Ok(Node::Leaf(again)) if again == found));
        }
        if let Ok(Node::Inner(found)) = decode_inner(&bytes) {
            assert!(matches!(decode_inner(&encode_inner(&found)), Ok(Node::Inner(again)) if again == found));
        }
        if let Ok(found) = Label::decode(&bytes) {
            assert_eq!(Label::decode(&found.encode()).as_ref(), Ok(&found));
        }
        let mut bytes = [&head[..], &end].concat();
        mutate(&mut rng, &mut bytes);
        bytes.resize(HEAD + END, 0);
        let (changed, rest) = bytes.split_first_chunk::<HEAD>().unwrap();
        assert!(Head::decode(changed).is_err() || *changed == head);
        let rest = rest.first_chunk::<END>().unwrap();
        assert!(End::decode(rest, &head, 200).is_err() || *rest == end || rest[12..16] != end[12..16]);
    }
}
