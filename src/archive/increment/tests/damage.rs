//! What was changed after it was written is found, does no harm, and leaves the rest readable.

use super::super::layout::{
    self, BLOCK_START, BlockStart, CHECK, FOOTER, Footer, HEAD_START, MAGIC, PLAIN, Seed, VERSION, encode_head,
    number_at,
};
use super::*;
use crate::shown::shown_file;
use std::os::unix::fs::FileExt;

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn bytes_that_are_no_increment_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), is_close: bool) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join(NAME);
        let start = if is_close { encode_head(&path, &header()).unwrap() } else { Vec::new() };
        std::fs::write(&path, [start, bytes].concat()).unwrap();
        prop_assert!(open(&path).is_err());
    }

    #[test]
    fn bytes_whose_checksums_are_right_do_no_harm(
        model in model(), changes in prop::collection::vec((any::<usize>(), any::<usize>(), any::<u8>(), any::<bool>()), 1..6)
    ) {
        let (_dir, reader) = written(&model, TINY);
        let mut bytes = std::fs::read(reader.path()).unwrap();
        for (block, at, byte, is_in_start) in changes {
            change_with_checksums(&mut bytes, block, at, byte, is_in_start);
        }
        std::fs::write(reader.path(), &bytes).unwrap();
        read_hostile(reader.path(), model.keys());
    }
}

fn seed_of(bytes: &[u8]) -> (Seed, usize) {
    let start = HEAD_START + u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize + CHECK;
    (Seed(number_at(bytes, start - CHECK)), start)
}

/// Offset and length of each block, as far as the starts of blocks make sense, then of the footer.
fn parts(bytes: &[u8]) -> Vec<(usize, usize)> {
    let (_, mut at) = seed_of(bytes);
    let end = bytes.len() - FOOTER;
    let mut found = Vec::new();
    while at + BLOCK_START <= end {
        let start = BlockStart::decode(bytes[at..at + BLOCK_START].try_into().unwrap());
        let len = BLOCK_START + start.stored as usize;
        if at + len > end {
            break;
        }
        found.push((at, len));
        at += len;
    }
    found.push((end, FOOTER));
    found
}

/// Changes a byte of a block or of the footer, and makes its checksum right.
fn change_with_checksums(bytes: &mut [u8], block: usize, place: usize, byte: u8, is_in_start: bool) {
    let seed = seed_of(bytes).0;
    let parts = parts(bytes);
    let (at, len) = parts[block % parts.len()];
    if len == FOOTER && at + FOOTER == bytes.len() {
        bytes[at + place % 48] = byte;
        let check = seed.check(at as u64, &bytes[at..at + 48]);
        bytes[at + 48..at + 56].copy_from_slice(&check.to_le_bytes());
        return;
    }
    let changed = match is_in_start || len == BLOCK_START {
        true => CHECK + place % (BLOCK_START - CHECK),
        false => BLOCK_START + place % (len - BLOCK_START),
    };
    bytes[at + changed] = byte;
    let check = seed.check(at as u64, &bytes[at + CHECK..at + len]);
    bytes[at..at + CHECK].copy_from_slice(&check.to_le_bytes());
}

/// Reads all that can be read: it ends, and what comes is in order.
fn read_hostile<'a>(path: &Path, keys: impl Iterator<Item = &'a (u8, Vec<u8>)>) {
    let Ok(reader) = open(path) else { return };
    let mut last = None;
    for (count, entry) in reader.entries().enumerate() {
        assert!((count as u64) < reader.file_bytes(), "no end");
        let Ok(entry) = entry else { continue };
        if let Value::Track(place) = &entry.value
            && let Ok(bytes) = reader.read_track(place)
        {
            assert_eq!(bytes.len(), place.raw as usize);
        }
        let key = Some((entry.table, entry.key));
        assert!(key > last, "the order of keys");
        last = key;
    }
    for (table, key) in keys {
        if let Ok(Some(entry)) = reader.find(*table, key) {
            assert_eq!((entry.table, &entry.key), (*table, key));
        }
    }
    let _an_error_is_fine = reader.verify(&mut |_| Ok(()));
}

#[test]
fn a_place_that_makes_no_sense_is_refused() {
    let (_dir, reader) = written(&sample(), USUAL);
    let places = reader.entries().filter_map(|entry| match entry.unwrap().value {
        Value::Track(place) => Some(place),
        Value::Record(_) => None,
    });
    let place = places.last().unwrap();
    assert!(reader.read_track(&place).is_ok());
    let len = reader.file_bytes();
    for block in [0, 1, place.block - 1, place.block + 1, len - FOOTER as u64, len, u64::MAX] {
        assert!(reader.read_track(&Place { block, ..place }).is_err());
    }
    for (at, raw) in [(place.at + 1, place.raw), (place.at, place.raw + 1), (u32::MAX, u32::MAX)] {
        assert!(reader.read_track(&Place { at, raw, ..place }).is_err());
    }
    let (_, root) = reader.root().unwrap();
    let error = reader.read_track(&Place { block: root, at: 0, raw: 1 }).unwrap_err();
    assert!(error.to_string().contains("of kind 1 instead of 0"), "{error}");
}

#[test]
fn every_byte_that_changed_is_found() {
    let (_dir, reader) = written(&sample(), Sizes { tracks: 3000, records: 1000 });
    let path = reader.path();
    let bytes = std::fs::read(path).unwrap();
    assert!((15_000..30_000).contains(&bytes.len()), "{}", bytes.len());
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    for (at, byte) in bytes.iter().enumerate() {
        file.write_all_at(&[byte ^ (1 << (at % 8))], at as u64).unwrap();
        let found = open(path).and_then(|reader| reader.verify(&mut |_| Ok(())));
        assert!(matches!(found, Err(Error::Corrupt { .. } | Error::Store(_))), "{at}: {found:?}");
        file.write_all_at(&[*byte], at as u64).unwrap();
    }
    reader.verify(&mut |_| Ok(())).unwrap();
}

#[test]
fn a_file_of_any_other_length_is_refused() {
    let (_dir, reader) = written(&sample(), USUAL);
    let file = std::fs::OpenOptions::new().write(true).open(reader.path()).unwrap();
    let bytes = std::fs::read(reader.path()).unwrap();
    for len in (0..bytes.len()).rev() {
        file.set_len(len as u64).unwrap();
        assert!(open(reader.path()).is_err(), "{len}");
    }
    for more in [1, FOOTER, 5000] {
        std::fs::write(reader.path(), [&bytes[..], &vec![0; more]].concat()).unwrap();
        assert!(open(reader.path()).is_err(), "{more} more");
    }
    // The end alone, behind what has nothing to do with it.
    std::fs::write(reader.path(), [&bytes[..], &[7; 100], &bytes[bytes.len() - FOOTER..]].concat()).unwrap();
    assert!(open(reader.path()).is_err());
}

#[test]
fn what_is_not_damaged_can_still_be_read() {
    let model = sample();
    let (_dir, reader) = written(&model, Sizes { tracks: 3000, records: 300 });
    let mut bytes = std::fs::read(reader.path()).unwrap();
    let (_, root) = reader.root().unwrap();
    let children = parts(&bytes).into_iter().filter(|(at, len)| *len > 200 && (*at as u64) < root);
    let records = children.filter(|(at, _)| bytes[at + 16] == layout::RECORDS);
    let (at, _) = records.skip(3).step_by(4).next().unwrap();
    bytes[at + BLOCK_START + 5] ^= 1;
    std::fs::write(reader.path(), &bytes).unwrap();
    let reader = open(reader.path()).unwrap();
    let (good, bad): (Vec<_>, Vec<_>) = reader.entries().partition(|entry| entry.is_ok());
    assert_eq!(bad.len(), 1);
    let Some(Err(Error::Corrupt { object, .. })) = bad.into_iter().next() else { panic!("another error") };
    assert_eq!(object, format!("the block at {at} of {}", shown_file(reader.path())));
    assert!(good.len() > model.len() - 20 && good.len() < model.len());
    for entry in good {
        let (key, old) = old(&reader, entry.unwrap());
        assert_eq!(model.get(&key), Some(&old));
        assert!(reader.find(key.0, &key.1).is_ok());
    }
    assert!(reader.verify(&mut |_| Ok(())).is_err());
}

#[test]
fn a_block_of_another_increment_is_damage() {
    let model = sample();
    let (_dir, reader) = written(&model, USUAL);
    let other_dir = TempDir::new().unwrap();
    let header = Header { hash_seed: 5, ..header() };
    let mut writer = Writer::create(&directory(other_dir.path()), NAME, &header, LEVEL).unwrap();
    for ((table, key), (birth, is_track, bytes)) in &model {
        match is_track {
            true => writer.track(*table, key, *birth, bytes).unwrap(),
            false => writer.record(*table, key, *birth, bytes).unwrap(),
        }
    }
    let other = std::fs::read(writer.finish().unwrap().path).unwrap();
    let mut bytes = std::fs::read(reader.path()).unwrap();
    // The same blocks, but for a header of other numbers of shorter form: they lie elsewhere.
    let ((at, len), (other_at, other_len)) = (parts(&bytes)[0], parts(&other)[0]);
    assert_eq!(len, other_len);
    bytes[at..at + len].copy_from_slice(&other[other_at..other_at + len]);
    std::fs::write(reader.path(), &bytes).unwrap();
    assert!(open(reader.path()).unwrap().verify(&mut |_| Ok(())).is_err());
}

#[test]
fn what_opening_refuses_says_what_to_do() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(NAME);
    let refusal = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        match open(&path) {
            Err(Error::Store(text)) => text,
            other => panic!("{other:?}"),
        }
    };
    let text = refusal(b"hello, this is text");
    assert!(text.contains("increment is no increment of an archive"), "{text}");
    assert!(refusal(b"").contains("no increment"));
    let mut head = encode_head(&path, &header()).unwrap();
    assert_eq!(head[..8], *MAGIC);
    head[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
    let end = head.len() - CHECK;
    let check = xxhash_rust::xxh3::xxh3_64(&head[..end]);
    head[end..].copy_from_slice(&check.to_le_bytes());
    let text = refusal(&head);
    assert!(text.contains("has format 3") && text.contains("reads formats up to 2; use a newer version"), "{text}");
    assert!(matches!(open(&dir.path().join("nothing")), Err(Error::Media { .. })));
}

#[test]
fn a_root_that_is_no_root_is_found() {
    let (_dir, reader) = written(&sample(), TINY);
    let bytes = std::fs::read(reader.path()).unwrap();
    let (seed, start) = seed_of(&bytes);
    let end = bytes.len() - FOOTER;
    let footer = Footer::decode(bytes[end..].try_into().unwrap(), seed, start as u64, bytes.len() as u64).unwrap();
    let refused = |footer: Footer| {
        std::fs::write(reader.path(), [&bytes[..end], &footer.encode(seed)].concat()).unwrap();
        open(reader.path()).and_then(|reader| reader.verify(&mut |_| Ok(()))).is_err()
    };
    assert!(!refused(footer));
    assert!(refused(Footer { root: 0, root_kind: 0, ..footer }));
    assert!(refused(Footer { root_kind: footer.root_kind - 1, ..footer }));
    assert!(refused(Footer { records: footer.records + 1, ..footer }));
    assert!(refused(Footer { track_bytes: footer.track_bytes - 1, ..footer }));
    assert!(refused(Footer { root: parts(&bytes)[0].0 as u64, ..footer }));
}

#[test]
fn a_reader_can_be_shared_and_small_blocks_are_stored_as_they_are() {
    fn shared<T: Send + Sync>(_: &T) {}
    let (_dir, reader) = written(&sample(), TINY);
    shared(&reader);
    let bytes = std::fs::read(reader.path()).unwrap();
    let blocks = parts(&bytes);
    let plain = blocks[..blocks.len() - 1].iter().filter(|(at, _)| bytes[at + 17] == PLAIN);
    assert!(plain.count() > blocks.len() / 4, "the tests with right checksums change keys and places");
}

#[test]
fn an_index_that_names_one_block_again_and_again_has_an_end() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(NAME);
    let mut bytes = encode_head(&path, &header()).unwrap();
    let seed = seed_of(&bytes).0;
    let mut put = |kind: u8, raw: &[u8]| {
        let len = raw.len() as u32;
        let mut block = BlockStart { check: 0, stored: len, raw: len, kind, codec: PLAIN }.encode().to_vec();
        block.extend_from_slice(raw);
        let offset = bytes.len() as u64;
        let check = seed.check(offset, &block[CHECK..]);
        block[..CHECK].copy_from_slice(&check.to_le_bytes());
        bytes.extend_from_slice(&block);
        offset
    };
    // Key [1], birth 0, a record of no bytes.
    let mut below = put(layout::RECORDS, &[0, 1, 1, 0, 0]);
    for kind in layout::RECORDS + 1..=layout::KIND_MAX {
        let mut lines = Vec::new();
        for key in 1..100 {
            lines.extend_from_slice(&[0, 1, key]);
            crate::meta::packed::put_number(&mut lines, below);
        }
        below = put(kind, &lines);
    }
    let len = (bytes.len() + FOOTER) as u64;
    let footer = Footer { root: below, root_kind: layout::KIND_MAX, records: 1, bytes: len, ..Footer::default() };
    std::fs::write(&path, [&bytes[..], &footer.encode(seed)].concat()).unwrap();
    let reader = open(&path).unwrap();
    let (good, bad): (Vec<_>, Vec<_>) = reader.entries().partition(|entry| entry.is_ok());
    assert_eq!(good.len(), 1);
    assert!(bad.len() > 100 && bad.len() < 2000, "{}", bad.len());
    assert!(reader.verify(&mut |_| Ok(())).is_err());
}

/// A name in a head becomes that of a directory.
#[test]
fn a_head_with_a_name_that_cannot_be_is_damaged() {
    let dir = TempDir::new().unwrap();
    for name in ["", ".", "..", "../beside", "/absolute", "a/b", "a\0b", &"x".repeat(256)] {
        for is_from in [true, false] {
            let mut header = header();
            let mark = if is_from { &mut header.from } else { &mut header.to };
            mark.name = name.into();
            let written =
                Writer::create_with(&directory(dir.path()), NAME, &header, LEVEL, USUAL).unwrap().finish().unwrap();
            let error = open(&written.path).unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "{name:?}: {error}");
            std::fs::remove_file(written.path).unwrap();
        }
    }
}
