//! What was changed after it was written is found, and does no harm. What lies in a set is tried where sets are (`set/tests.rs`).

use super::*;
use std::os::unix::fs::FileExt;

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn bytes_that_are_no_increment_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), close in 0..3) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join(NAME);
        let start = [&b""[..], crate::set::MAGIC, b"pitfsinc"][close as usize];
        std::fs::write(&path, [start, &bytes].concat()).unwrap();
        prop_assert!(open(&path).is_err());
    }
}

#[test]
fn a_place_that_makes_no_sense_is_refused() {
    let (_dir, reader) = written(&sample());
    let places = reader.entries().filter_map(|entry| match entry.unwrap().value {
        Value::Track(place) => Some(place),
        Value::Record(_) => None,
    });
    let place = places.last().unwrap();
    assert!(reader.read_track(&place).is_ok());
    let len = reader.file_bytes();
    for block in [0, 1, place.block - 1, place.block + 1, len - 40, len, u64::MAX] {
        assert!(reader.read_track(&Place { block, ..place }).is_err());
    }
    let past = (place.at + 1_000_000, place.raw);
    for (at, raw) in [past, (place.at, place.raw + 1_000_000), (u32::MAX, u32::MAX)] {
        assert!(reader.read_track(&Place { at, raw, ..place }).is_err());
    }
    for stored in [0, place.stored - 1, place.stored + 1, u32::MAX] {
        let again = open(reader.path()).unwrap();
        assert!(again.read_track(&Place { stored, ..place }).is_err());
    }
}

#[test]
fn every_byte_that_changed_is_found() {
    let (_dir, reader) = written(&sample());
    let path = reader.path();
    let bytes = std::fs::read(path).unwrap();
    assert!((10_000..30_000).contains(&bytes.len()), "{}", bytes.len());
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
    let (_dir, reader) = written(&sample());
    let file = std::fs::OpenOptions::new().write(true).open(reader.path()).unwrap();
    let bytes = std::fs::read(reader.path()).unwrap();
    for len in (0..bytes.len()).rev() {
        file.set_len(len as u64).unwrap();
        assert!(open(reader.path()).is_err(), "{len}");
    }
    for more in [1, 40, 5000] {
        std::fs::write(reader.path(), [&bytes[..], &vec![0; more]].concat()).unwrap();
        assert!(open(reader.path()).is_err(), "{more} more");
    }
    // The end alone, behind what has nothing to do with it.
    std::fs::write(reader.path(), [&bytes[..], &[7; 100], &bytes[bytes.len() - 40..]].concat()).unwrap();
    assert!(open(reader.path()).is_err());
}

/// What a set has that is a moment leads nowhere, and a moment is no increment.
#[test]
fn a_set_that_is_a_moment_is_no_increment() {
    use crate::media::DiskShelf;
    use crate::set::{Seal, Sets, Writer as SetWriter, object_name};
    let dir = TempDir::new().unwrap();
    let shelf = DiskShelf::of(directory(dir.path()));
    let (one, other) = (Id::random(), Id::random());
    let moment = crate::set::Header { reverse: None, ..header().in_set() };
    for (id, header) in [(one, &moment), (other, &header().in_set())] {
        SetWriter::create(&shelf, id, header, &Seal::plain(), 1).unwrap().finish().unwrap();
    }
    let error = open(&dir.path().join(object_name(one))).unwrap_err();
    assert!(error.to_string().contains("is a moment, and no increment"), "{error}");
    assert!(open(&dir.path().join(object_name(other))).is_ok());
    let sets = Sets::new(Arc::new(shelf), Seal::plain());
    assert!(sets.file(one).is_ok());
    let error = sets.file(other).unwrap_err();
    assert!(error.to_string().contains("is an increment of an archive"), "{error}");
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
    let (_written, reader) = written(&sample());
    let mut bytes = std::fs::read(reader.path()).unwrap();
    bytes[8] += 1;
    let check = xxhash_rust::xxh3::xxh3_64(&bytes[..48]);
    bytes[48..56].copy_from_slice(&check.to_le_bytes());
    let text = refusal(&bytes);
    assert!(text.contains("has format 2") && text.contains("use a newer version"), "{text}");
    assert!(matches!(open(&dir.path().join("nothing")), Err(Error::Media { .. })));
}

#[test]
fn a_reader_can_be_shared() {
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&written(&sample()).1);
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
            let written = Writer::create(&directory(dir.path()), NAME, &header, LEVEL).unwrap().finish().unwrap();
            let error = open(&written.path).unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "{name:?}: {error}");
            std::fs::remove_file(written.path).unwrap();
        }
    }
}
