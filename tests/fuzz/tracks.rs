//! Bytes in the volume: hostile bodies of tracks under a right check value, and hostile summaries.

use super::sample::*;
use super::watch::watched;
use bolero::TypeGenerator;
use pitfs::device::{InodeNo, split_record};
use pitfs::logstore::{Codec, Descriptor, Location};
use pitfs::media::{MediaDir, TestDir};
use pitfs::meta::{Table, decode, encode};
use pitfs::tree::{ROOT, Tree};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64_with_seed;

const BLOCK: u64 = 4096;

#[derive(Clone, Debug, TypeGenerator)]
struct Body {
    codec: u8,
    raw: u32,
    /// What the record says, where it is not the truth.
    stored: Option<u32>,
    bytes: Vec<u8>,
}

/// A store, the record of the first track of a file in it, and where that lies in the volume.
struct Sample {
    dir: TestDir,
    key: Vec<u8>,
    /// The bytes of the record in front of its value.
    birth: Vec<u8>,
    location: Location,
    offset: u64,
    descriptor: Descriptor,
}

fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let dir = store(Codec::Zstd);
        let records = records(&dir);
        // One without patches.
        let plain = records.iter().filter(|(table, _)| *table == Table::Track).find_map(|(_, (key, value))| {
            let (_, record) = split_record(Table::Track, key, value).unwrap();
            Some((key.clone(), value[..5].to_vec(), decode::<Location>(Table::Track, key, record).ok()?))
        });
        let (key, birth, location) = plain.expect("a plain track");
        let (_, (id, value)) = records.iter().find(|(table, _)| *table == Table::Segment).expect("a segment");
        assert_eq!(id[..], location.segment.to_be_bytes(), "there is one segment");
        let descriptor: Descriptor = decode(Table::Segment, id, value).unwrap();
        let offset = place_of(&descriptor, location.block);
        Sample { dir, key, birth, location, offset, descriptor }
    })
}

fn place_of(descriptor: &Descriptor, block: u16) -> u64 {
    u64::from(descriptor.members[0].psegs[usize::from(block) / 512]) * (2 << 20) + u64::from(block) % 512 * BLOCK
}

#[test]
fn hostile_bodies_of_tracks_are_refused() {
    bolero::check!().with_type::<Body>().with_test_time(Duration::from_secs(3)).for_each(|body| {
        let sample = sample();
        let dir = copy(&sample.dir);
        let seed = sample.location.segment << 16 | u64::from(sample.location.block);
        let location = Location {
            stored: body.stored.unwrap_or(body.bytes.len() as u32),
            raw: body.raw,
            codec: [Codec::None, Codec::Lz4, Codec::Zstd][usize::from(body.codec) % 3],
            check: xxh3_64_with_seed(&body.bytes, seed),
            ..sample.location
        };
        dir.open("volume.0", false).unwrap().write_at(sample.offset, &body.bytes).unwrap();
        let (kv, mut meta) = open_meta(&dir);
        meta.put_raw(Table::Track, &sample.key, [&sample.birth[..], &encode(&location)].concat());
        kv.commit(&meta.freeze()).unwrap();
        watched(|| format!("{body:?}"), || read_all(&dir));
    });
}

/// A frame that says it holds four billion bytes, and blocks that unpack to far more than a track.
#[test]
fn bodies_that_claim_to_be_huge_are_refused() {
    let sample = sample();
    let zeros = vec![0; 1 << 24];
    let bomb = lz4_flex::block::compress(&zeros);
    let zstd_bomb = zstd::bulk::compress(&zeros, 1).unwrap();
    let claims = [0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0];
    for (codec, bytes) in [(Codec::Lz4, &bomb[..]), (Codec::Zstd, &zstd_bomb), (Codec::Zstd, &claims)] {
        for raw in [0, TRACK as u32, 1 << 20, 1 << 24, u32::MAX] {
            let dir = copy(&sample.dir);
            let bytes = &bytes[..bytes.len().min(100_000)];
            let seed = sample.location.segment << 16 | u64::from(sample.location.block);
            let check = xxh3_64_with_seed(bytes, seed);
            let location = Location { stored: bytes.len() as u32, raw, codec, check, ..sample.location };
            dir.open("volume.0", false).unwrap().write_at(sample.offset, bytes).unwrap();
            let (kv, mut meta) = open_meta(&dir);
            meta.put_raw(Table::Track, &sample.key, [&sample.birth[..], &encode(&location)].concat());
            kv.commit(&meta.freeze()).unwrap();
            let number = InodeNo::of_key(&sample.key).unwrap();
            let read = || {
                let tree = Tree::open(Arc::new(dir.clone())).unwrap();
                assert!(tree.files().read(number.live(), 0, 1 << 20).is_err(), "{codec:?} {raw}");
                assert!(tree.inode(ROOT.live()).is_ok());
            };
            watched(|| format!("{codec:?} {raw}"), read);
        }
    }
}

#[derive(Clone, Debug, TypeGenerator)]
struct Entry {
    slot: u8,
    block: u16,
    stored: u32,
    codec: u8,
    inode: u64,
    track: u64,
    is_right: bool,
}

#[test]
fn hostile_summaries_do_no_harm() {
    bolero::check!().with_type::<(Vec<Entry>, Vec<u8>)>().with_test_time(Duration::from_secs(3)).for_each(
        |(entries, noise)| {
            let sample = sample();
            let dir = copy(&sample.dir);
            let volume = dir.open("volume.0", false).unwrap();
            let offset = place_of(&sample.descriptor, sample.descriptor.summary[0]);
            volume.write_at(offset + 512, &noise[..noise.len().min(1000)]).unwrap();
            for entry in entries {
                let slot = u64::from(entry.slot) % 96;
                let mut bytes = Vec::new();
                bytes.extend(entry.block.to_le_bytes());
                bytes.extend(entry.stored.to_le_bytes());
                bytes.push(entry.codec);
                bytes.extend([1, 0, 0, 0, 1, 0, 0, 0]);
                bytes.extend(entry.inode.to_le_bytes());
                bytes.extend(entry.track.to_le_bytes());
                bytes.extend([9; 8]);
                let check = xxh3_64_with_seed(&bytes, sample.location.segment).to_le_bytes();
                bytes.extend(if entry.is_right { &check[..3] } else { &[0; 3] });
                volume.write_at(offset + slot / 12 * 512 + 8 + slot % 12 * 42, &bytes).unwrap();
            }
            volume.sync().unwrap();
            let read = || {
                let (_kv, meta) = open_meta(&dir);
                let tree = Tree::open(Arc::new(dir.clone())).unwrap();
                for descriptor in tree.device().log().descriptors(&meta).unwrap() {
                    let (id, descriptor) = descriptor.unwrap();
                    tree.device().log().summary(id, &descriptor.unwrap()).unwrap();
                }
                drop(tree);
                change_all(&dir);
            };
            watched(|| format!("{entries:?} {noise:?}"), read);
        },
    );
}
