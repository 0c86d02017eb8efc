//! Increments that an earlier program wrote, kept as they are.

use super::layout::{BLOCK_START, BlockStart, CHECK, FOOTER, HEAD_START, Seed, number_at};
use super::*;
use crate::archive::increment::Value;
use crate::error::{Error, Result};
use proptest::prelude::*;
use std::io::Read;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The files of an archive of format 4, with some thirty files in five rounds.
fn kept() -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kept/archive-4.tar.zst");
    let bytes = zstd::stream::decode_all(std::fs::File::open(path).unwrap()).unwrap();
    let mut found = Vec::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().extension().is_some_and(|end| end == "increment") {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            found.push(bytes);
        }
    }
    assert_eq!(found.len(), 4);
    found
}

fn open(path: &Path) -> Result<Reader> {
    Reader::of(std::fs::File::open(path).unwrap(), path.to_path_buf())
}

fn file(dir: &TempDir, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join("increment");
    std::fs::write(&path, bytes).unwrap();
    path
}

fn verified(dir: &TempDir, bytes: &[u8]) -> Result<()> {
    open(&file(dir, bytes))?.verify(&mut |_| Ok(()))
}

#[test]
fn what_was_written_before_there_were_sets_is_read() {
    let dir = TempDir::new().unwrap();
    for (round, bytes) in kept().into_iter().enumerate() {
        let reader = open(&file(&dir, &bytes)).unwrap();
        assert_eq!(reader.header().from.name, format!("round {round}"));
        reader.verify(&mut |_| Ok(())).unwrap();
        let entries: Vec<_> = reader.entries().map(Result::unwrap).collect();
        let mut tracks = 0;
        for entry in &entries {
            assert_eq!(reader.find(entry.table, &entry.key).unwrap().as_ref(), Some(entry));
            if let Value::Track(place) = &entry.value {
                assert_eq!(reader.read_track(place).unwrap().len(), place.raw as usize);
                tracks += 1;
            }
        }
        let summary = reader.summary();
        assert!(tracks > 0 && (tracks, entries.len() as u64) == (summary.tracks, summary.tracks + summary.records));
    }
}

#[test]
fn every_byte_that_changed_is_found_and_so_is_any_other_length() {
    let dir = TempDir::new().unwrap();
    let bytes = &kept()[0];
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        let found = verified(&dir, &changed);
        assert!(matches!(found, Err(Error::Corrupt { .. } | Error::Store(_))), "{at}: {found:?}");
        assert!(verified(&dir, &bytes[..at]).is_err(), "{at}");
    }
    assert!(verified(&dir, &[&bytes[..], &[0]].concat()).is_err());
}

/// Offset and length of each block, as far as the starts of blocks make sense.
fn blocks(bytes: &[u8]) -> (Seed, Vec<(usize, usize)>) {
    let start = HEAD_START + u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize + CHECK;
    let (mut at, end) = (start, bytes.len() - FOOTER);
    let mut found = Vec::new();
    while at + BLOCK_START <= end {
        let len = BLOCK_START + BlockStart::decode(bytes[at..at + BLOCK_START].try_into().unwrap()).stored as usize;
        if at + len > end {
            break;
        }
        found.push((at, len));
        at += len;
    }
    (Seed(number_at(bytes, start - CHECK)), found)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Somebody who prepares a file makes its checksums right.
    #[test]
    fn bytes_whose_checksums_are_right_do_no_harm(
        which in 0..4usize,
        changes in prop::collection::vec((any::<usize>(), any::<usize>(), any::<u8>(), any::<bool>()), 1..6)
    ) {
        let mut bytes = kept().swap_remove(which);
        for (block, at, byte, is_in_start) in changes {
            let (seed, all) = blocks(&bytes);
            let Some((start, len)) = all.get(block % all.len().max(1)).copied() else { break };
            let changed = match is_in_start {
                true => CHECK + at % (BLOCK_START - CHECK),
                false => CHECK + at % (len - CHECK),
            };
            bytes[start + changed] = byte;
            let check = seed.check(start as u64, &bytes[start + CHECK..start + len]);
            bytes[start..start + CHECK].copy_from_slice(&check.to_le_bytes());
        }
        let dir = TempDir::new().unwrap();
        let Ok(reader) = open(&file(&dir, &bytes)) else { return Ok(()) };
        let mut last = None;
        for (count, entry) in reader.entries().enumerate() {
            prop_assert!((count as u64) < 1 << 20, "no end");
            let Ok(entry) = entry else { continue };
            if let Value::Track(place) = &entry.value
                && let Ok(bytes) = reader.read_track(place)
            {
                prop_assert_eq!(bytes.len(), place.raw as usize);
            }
            let key = Some((entry.table, entry.key));
            prop_assert!(key > last, "the order of keys");
            last = key;
        }
        let _an_error_is_fine = reader.verify(&mut |_| Ok(()));
    }
}
