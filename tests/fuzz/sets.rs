//! Sets, the list of them and what else a target has: bytes that are others, under checks that are right or not.

use super::sample::*;
use super::watch::watched;
use bolero::generator::{TypeGenerator, ValueGenerator};
use pitfs::daemon::{BackupOptions, Daemon, FromSets, Parts, backup, check, create_from_sets};
use pitfs::error::Error;
use pitfs::id::Id;
use pitfs::logstore::Codec;
use pitfs::media::{Shelf, TestDir, TestShelf};
use pitfs::meta::encode;
use pitfs::set::{Foot, Header, Kind, Seal, Sets, Value, Writer, id_of, object_name, recast};
use pitfs::target::{Repository, Target};
use pitfs::tree::{CreateOptions, Tree};
use pitfs::view::{InSet, InSets, Views, show_sets};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

const HEAD: usize = 56;
const END: usize = 40;
const START: usize = 5;
const CHECK: usize = 8;
const CATALOGUE_HEAD: usize = 32;
const LEAF: u8 = 2;
const FOOT: u8 = 0xf1;
/// What leads in circles, or from everywhere to one place, has no end.
const ENTRIES_MAX: usize = 20_000;

#[derive(Clone, Debug, TypeGenerator)]
struct Mutation {
    /// Which set, and which of its frames.
    set: u8,
    frame: u8,
    way: Way,
}

#[derive(Clone, Debug, TypeGenerator)]
enum Way {
    Flip {
        at: u16,
        bit: u8,
    },
    Set {
        at: u16,
        to: u8,
    },
    /// A number at the edge of something.
    Edge {
        at: u16,
        which: u8,
    },
    Cut {
        at: u16,
    },
    Insert {
        at: u16,
        bytes: Vec<u8>,
    },
    Replace {
        bytes: Vec<u8>,
    },
    /// The content of another frame.
    Exchange {
        set: u8,
        frame: u8,
    },
    /// A piece of it stands somewhere else as well.
    Repeat {
        from: u16,
        len: u8,
        to: u16,
    },
}

const EDGES: &[&[u8]] = &[
    &[0],
    &[0xff],
    &[0x7f],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0x1f],
    &[0x80, 0x80, 0x04],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0xce, 0xff, 0xff, 0xff, 0xff],
    &[0xdd, 0xff, 0xff, 0xff, 0xff],
    &[0xdb, 0xff, 0xff, 0xff, 0xff],
    &[0xc6, 0x7f, 0xff, 0xff, 0xff],
    &[0xc0],
    &[0x91, 0x91, 0x91, 0x91, 0x91, 0x91],
];

impl Way {
    fn change(&self, bytes: &mut Vec<u8>, other: impl FnOnce(u8, u8) -> Vec<u8>) {
        let len = bytes.len();
        let place = |at: &u16| usize::from(*at) % (len + 1);
        match self {
            Way::Flip { at, bit } => bytes.iter_mut().skip(place(at)).take(1).for_each(|byte| *byte ^= 1 << (bit % 8)),
            Way::Set { at, to } => bytes.iter_mut().skip(place(at)).take(1).for_each(|byte| *byte = *to),
            Way::Edge { at, which } => {
                let edge = EDGES[usize::from(*which) % EDGES.len()];
                bytes.splice(place(at)..(place(at) + edge.len()).min(len), edge.iter().copied());
            }
            Way::Cut { at } => bytes.truncate(place(at)),
            Way::Insert { at, bytes: more } => drop(bytes.splice(place(at)..place(at), more.iter().copied())),
            Way::Replace { bytes: others } => bytes.clone_from(others),
            Way::Exchange { set, frame } => *bytes = other(*set, *frame),
            Way::Repeat { from, len: some, to } => {
                let piece = bytes[place(from)..(place(from) + usize::from(*some)).min(len)].to_vec();
                bytes.splice(place(to)..place(to), piece);
            }
        }
    }
}

/// A frame as it is before it is sealed.
#[derive(Clone, Debug)]
struct Frame {
    kind: u8,
    content: Vec<u8>,
    /// As it lies there.
    stored: Vec<u8>,
}

/// Two sets of a store, not encrypted, of which the second builds on the first; and their list.
struct Sample {
    store: Id,
    objects: BTreeMap<String, Vec<u8>>,
    sets: Vec<(Id, Vec<Frame>)>,
}

fn objects_of(target: &Target, store: Id) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(target.path().join(store.to_string())).unwrap().map(|entry| entry.unwrap());
    files.map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap())).collect()
}

fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let place = tempfile::tempdir().unwrap();
        let target = Target::create(place.path()).unwrap();
        let views = Views::new(Tree::open(Arc::new(store(Codec::None))).unwrap());
        let store = views.tree().device().settings().id;
        target.add_store(store, None).unwrap();
        for snapshot in ["one", "three"] {
            let options = BackupOptions {
                snapshot: Some(snapshot.into()),
                kind: Kind::Incremental,
                level: 1,
                limit: None,
                parts: Parts::default(),
            };
            backup(&views, &target, None, &options, &mut |_| Ok(())).unwrap();
        }
        let objects = objects_of(&target, store);
        let sets = objects.iter().filter_map(|(name, bytes)| Some((id_of(name)?, frames(bytes))));
        let mut sets: Vec<_> = sets.collect();
        sets.sort_by_key(|(_, frames)| frames.len());
        assert!(sets.len() == 2 && sets[0].1.iter().any(|frame| frame.kind == LEAF));
        Sample { store, objects, sets }
    })
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// All frames of a set that is whole.
fn frames(bytes: &[u8]) -> Vec<Frame> {
    let (mut at, mut found) = (HEAD, Vec::new());
    while at < bytes.len() - END {
        let len = START + u32_at(bytes, at);
        let sealed = &bytes[at + START..at + len - CHECK];
        let content = match sealed[0] {
            0 => sealed[5..].to_vec(),
            _ => zstd::bulk::decompress(&sealed[5..], u32_at(sealed, 1)).unwrap(),
        };
        found.push(Frame { kind: bytes[at + 4], content, stored: bytes[at..at + len].to_vec() });
        at += len;
    }
    found
}

/// A frame that is not compressed, with the check of its place.
fn sealed(id: Id, offset: u64, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut inner = vec![0];
    inner.extend((content.len() as u32).to_le_bytes());
    inner.extend_from_slice(content);
    let place = [&id.to_bytes()[..], &offset.to_le_bytes(), &[kind], &inner].concat();
    inner.extend(xxh3_64(&place).to_le_bytes());
    [&(inner.len() as u32).to_le_bytes()[..], &[kind], &inner].concat()
}

fn head(id: Id, store: Id) -> Vec<u8> {
    let mut head = [&b"pitfsset"[..], &1u32.to_le_bytes(), &[0; 4], &id.to_bytes(), &store.to_bytes()].concat();
    head.extend(xxh3_64(&head).to_le_bytes());
    head
}

fn end(head: &[u8], foot: u64, stored: u32, len: u64) -> Vec<u8> {
    let mut end = [&foot.to_le_bytes()[..], &stored.to_le_bytes(), &[0; 4], &len.to_le_bytes()].concat();
    let seed = u64::from_le_bytes(head[48..56].try_into().unwrap());
    end.extend(xxh3_64_with_seed(&end, seed).to_le_bytes());
    end.extend_from_slice(b"pitfsend");
    end
}

/// A set with some of its frames changed before they were sealed; what leads to the root is made right.
fn forged(sample: &Sample, number: usize, mutations: &[Mutation]) -> Vec<u8> {
    let (id, frames) = &sample.sets[number];
    let mut out = head(*id, sample.store);
    let (mut root, mut foot) = (0, 0);
    for (at, frame) in frames.iter().enumerate() {
        let offset = out.len() as u64;
        let mut content = frame.content.clone();
        if frame.kind == FOOT {
            foot = offset;
            let mut said: Foot = rmp_serde::from_slice(&content).unwrap();
            said.root = said.root.map(|was| pitfs::set::Root { offset: root, stored: 0, ..was });
            let len = |at: u64| out.get(at as usize..).map_or(0, |bytes| u32_at(bytes, 0) as u32);
            said.root = said.root.map(|was| pitfs::set::Root { stored: len(root), ..was });
            content = encode(&said);
        }
        let of_this = |mutation: &&Mutation| {
            usize::from(mutation.set) % sample.sets.len() == number && usize::from(mutation.frame) % frames.len() == at
        };
        let mut is_changed = frame.kind == FOOT || offset != frame_offset(frames, at);
        for mutation in mutations.iter().filter(of_this) {
            is_changed = true;
            mutation.way.change(&mut content, |set, frame| {
                let frames = &sample.sets[usize::from(set) % sample.sets.len()].1;
                frames[usize::from(frame) % frames.len()].content.clone()
            });
        }
        if (LEAF..0xf0).contains(&frame.kind) {
            root = offset;
        }
        match is_changed {
            true => out.extend(sealed(*id, offset, frame.kind, &content)),
            false => out.extend_from_slice(&frame.stored),
        }
    }
    let stored = (out.len() as u64 - foot - START as u64) as u32;
    let len = (out.len() + END) as u64;
    let end = end(&out[..HEAD], foot, stored, len);
    [out, end].concat()
}

fn frame_offset(frames: &[Frame], number: usize) -> u64 {
    (HEAD + frames[..number].iter().map(|frame| frame.stored.len()).sum::<usize>()) as u64
}

fn shelf_of<'a>(objects: impl IntoIterator<Item = (&'a String, &'a Vec<u8>)>) -> Arc<TestShelf> {
    let shelf = Arc::new(TestShelf::default());
    for (name, bytes) in objects {
        shelf.replace(name, bytes).unwrap();
    }
    shelf
}

fn with_forged(mutations: &[Mutation]) -> Arc<TestShelf> {
    let shelf = shelf_of(&sample().objects);
    for (number, (id, _)) in sample().sets.iter().enumerate() {
        shelf.replace(&object_name(*id), &forged(sample(), number, mutations)).unwrap();
    }
    shelf
}

/// Reads all that sets have; errors are as good as answers.
fn read_sets(shelf: &Arc<TestShelf>) {
    let sets = Sets::new(Arc::new(shelf.clone()), Seal::plain());
    let ids: Vec<Id> = sample().sets.iter().map(|(id, _)| *id).collect();
    let mut keys = vec![vec![1; 9]];
    for id in &ids {
        let Ok(file) = sets.file(*id) else { continue };
        let _an_error_is_fine = file.verify(None, &mut |_, _| Ok(()));
        for entry in sets.scan(*id, b"", &[0xff]).into_iter().flatten().take(ENTRIES_MAX).flatten() {
            if let Value::Track { len, place } = entry.value
                && let Ok(bytes) = sets.read(&place, len)
            {
                assert_eq!(bytes.len(), len as usize);
            }
            keys.push(entry.key);
        }
        for key in keys.iter().step_by(5) {
            if let Ok(Some(entry)) = sets.find(*id, key) {
                assert_eq!(entry.key, *key);
            }
        }
        let new = (Id::random(), None);
        let _an_error_is_fine = recast(&sets, &file, new, &HashSet::from([ids[0]]), 1, &mut |_| Ok(()));
    }
    let mut left = ENTRIES_MAX;
    let _an_error_is_fine = sets.differing(ids[0], ids[1], &mut |_| {
        left -= 1;
        if left == 0 { Err(Error::Gone) } else { Ok(()) }
    });
}

/// Shows what a target has, as a mount does.
fn show(shelf: &Arc<TestShelf>) {
    let Ok(mut repository) = Repository::open(Arc::new(shelf.clone()), sample().store, Seal::plain()) else { return };
    let mut bases: BTreeMap<Id, Vec<InSet>> = BTreeMap::new();
    for listed in repository.catalogue().moments() {
        let moment = InSet { mark: listed.header.mark.clone(), set: listed.id, bytes: listed.header.bytes };
        bases.entry(listed.header.base).or_default().push(moment);
    }
    let Some(header) = repository.catalogue().moments().next().map(|listed| listed.header.clone()) else { return };
    let dir = Arc::new(TestDir::new());
    let track_bytes = header.track_bytes as usize;
    let options =
        CreateOptions { track_bytes, codec: Codec::None, uid: 1, gid: 1, mode: 0o755, hash_seed: header.hash_seed };
    // What no store could have is told before.
    if Tree::create(dir.clone(), &options).is_err() {
        return;
    }
    let views = Views::new(Tree::open(dir).unwrap());
    let bases = bases.into_iter().enumerate();
    let bases = bases.map(|(at, (_, moments))| InSets { name: format!("base {at}"), moments }).collect();
    if show_sets(&views, repository.sets(), bases).is_ok() {
        let _an_error_is_fine = views.tree().only_read("it shows sets");
        for base in views.bases().all().unwrap_or_default() {
            read_views(&views.of(base.id));
        }
    }
    let _an_error_is_fine = repository.rebuild(0);
    let _an_error_is_fine = repository.sweep();
}

fn mutations() -> impl ValueGenerator<Output = Vec<Mutation>> {
    bolero::produce::<Vec<Mutation>>().with().len(1usize..=3)
}

/// What is changed below is read as it is where nothing is.
#[test]
fn sets_are_forged_as_they_are_written() {
    let shelf = with_forged(&[]);
    let repository = Repository::open(Arc::new(shelf.clone()), sample().store, Seal::plain()).unwrap();
    for listed in repository.catalogue().moments() {
        let entries = repository.sets().scan(listed.id, b"", &[0xff]).unwrap();
        let read = entries.map(|entry| match entry.unwrap().value {
            Value::Track { len, place } => repository.sets().read(&place, len).unwrap().len(),
            _ => 0,
        });
        assert!(read.filter(|len| *len > 0).count() > 3);
    }
    show(&shelf);
}

#[test]
fn hostile_frames_of_sets_are_read_or_refused() {
    bolero::check!().with_generator(mutations()).with_test_time(Duration::from_secs(4)).for_each(|mutations| {
        watched(|| format!("{mutations:?}"), || read_sets(&with_forged(mutations)));
    });
}

#[test]
fn hostile_frames_of_sets_are_shown_or_refused() {
    bolero::check!().with_generator(mutations()).with_test_time(Duration::from_secs(4)).for_each(|mutations| {
        watched(|| format!("{mutations:?}"), || show(&with_forged(mutations)));
    });
}

/// A store is made of it that has no problems, or none is made.
#[test]
fn no_store_comes_of_hostile_sets_that_is_none() {
    bolero::check!().with_generator(mutations()).with_test_time(Duration::from_secs(4)).for_each(|mutations| {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("store");
        let make = || {
            let shelf = with_forged(mutations);
            let opened = Repository::open(Arc::new(shelf), sample().store, Seal::plain());
            let made = FromSets { with_history: true, codec: Codec::None, track_bytes: None };
            let of = |repository| create_from_sets(&path, &repository, &made, &mut |_| Ok(()));
            if opened.and_then(of).is_ok()
                && let Ok(daemon) = Daemon::open(&path)
            {
                // What records say of each other may be wrong, and is told.
                let _an_error_is_fine = check(&daemon, &mut |_| Ok(()));
                read_views(daemon.views());
                let _an_error_is_fine = daemon.close();
            }
        };
        watched(|| format!("{mutations:?}"), make);
    });
}

/// The bytes of an object, changed wherever they are; heads and ends have checks that are right or not.
#[test]
fn hostile_bytes_of_sets_are_read_or_refused() {
    let generator = bolero::produce::<(u8, bool, Vec<Way>)>();
    bolero::check!().with_generator(generator).with_test_time(Duration::from_secs(3)).for_each(
        |(set, is_right, ways)| {
            let (id, _) = sample().sets[usize::from(*set) % sample().sets.len()];
            let shelf = shelf_of(&sample().objects);
            shelf.change(&object_name(id), |bytes| {
                for way in ways.iter().take(3) {
                    way.change(bytes, |set, _| {
                        let (id, _) = sample().sets[usize::from(set) % sample().sets.len()];
                        sample().objects[&object_name(id)].clone()
                    });
                }
                if *is_right && bytes.len() >= HEAD + END {
                    let check = xxh3_64(&bytes[..48]).to_le_bytes();
                    bytes[48..HEAD].copy_from_slice(&check);
                    let end = bytes.len() - END;
                    let (body, last) = bytes.split_at_mut(end);
                    let seed = u64::from_le_bytes(body[48..HEAD].try_into().unwrap());
                    let check = xxh3_64_with_seed(&last[..24], seed).to_le_bytes();
                    last[24..32].copy_from_slice(&check);
                }
            });
            watched(|| format!("{set} {is_right} {ways:?}"), || read_sets(&shelf));
        },
    );
}

#[test]
fn a_hostile_catalogue_is_read_or_made_anew() {
    let generator = bolero::produce::<Vec<Way>>().with().len(1usize..=3);
    bolero::check!().with_generator(generator).with_test_time(Duration::from_secs(3)).for_each(|ways| {
        let whole = &sample().objects["catalogue"];
        let (head, mut content) =
            (whole[..CATALOGUE_HEAD].to_vec(), whole[CATALOGUE_HEAD..whole.len() - CHECK].to_vec());
        for way in ways {
            way.change(&mut content, |set, frame| {
                let frames = &sample().sets[usize::from(set) % sample().sets.len()].1;
                frames[usize::from(frame) % frames.len()].content.clone()
            });
        }
        let check = xxh3_64(&[&head[..], &content].concat()).to_le_bytes();
        let shelf = shelf_of(&sample().objects);
        shelf.change("catalogue", |bytes| *bytes = [&head[..], &content, &check].concat());
        watched(|| format!("{ways:?}"), || show(&shelf));
    });
}

/// Nodes that all lead to the same ones below: the tree has few of them, and no end.
#[test]
fn an_index_that_leads_to_one_place_again_and_again_ends() {
    let header = sample().sets[0].1[0].content.clone();
    let said: Header = rmp_serde::from_slice(&header).unwrap();
    let id = Id::random();
    let mut out = head(id, sample().store);
    let mut put = |kind: u8, content: &[u8]| {
        let offset = out.len() as u64;
        let frame = sealed(id, offset, kind, content);
        out.extend_from_slice(&frame);
        (offset, (frame.len() - START) as u32)
    };
    put(0xf0, &header);
    // One record: key, birth, value.
    let mut below = put(LEAF, &[0, 1, 1, 1, 0]);
    let number = pitfs::meta::packed::put_number;
    for level in 1..=12 {
        let mut content = Vec::new();
        for line in 0..200u8 {
            // Keys ascend: all but the first have two bytes.
            content.extend([&[0, 1, 1][..], &[1, 1, line][..]][usize::from(line > 0)]);
            [0, below.0, below.1.into()].into_iter().for_each(|part| number(&mut content, part));
        }
        below = put(LEAF + level, &content);
    }
    let root = pitfs::set::Root { set: 0, kind: LEAF + 12, offset: below.0, stored: below.1 };
    let own = pitfs::set::Share { set: id, nodes: 13, bytes: 0 };
    let foot = Foot { root: Some(root), sets: vec![own], records: 1, ..Foot::default() };
    let foot = put(FOOT, &encode(&foot));
    let len = (out.len() + END) as u64;
    let end = end(&out[..HEAD], foot.0, foot.1, len);
    out.extend(end);
    let shelf = Arc::new(TestShelf::default());
    shelf.replace(&object_name(id), &out).unwrap();
    let sets = Sets::new(Arc::new(shelf.clone()), Seal::plain());
    let read = || {
        let found = sets.scan(id, b"", &[0xff]).unwrap();
        let count = found.take_while(Result::is_ok).take(ENTRIES_MAX).count();
        assert!(count < ENTRIES_MAX, "{count} entries of one record");
        sets.differing(id, id, &mut |_| Ok(())).unwrap();
        let over = Writer::create(&shelf, Id::random(), &said, &Seal::plain(), 1);
        assert!(pitfs::set::update(&mut over.unwrap(), Some((&sets, id)), std::iter::empty()).is_ok());
    };
    watched(|| "an index in circles".into(), read);
}
