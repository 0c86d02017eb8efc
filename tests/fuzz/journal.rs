//! The journal: hostile bytes in its file, and entries whose check value is right.

use super::sample::*;
use super::watch::watched;
use bolero::TypeGenerator;
use pitfs::journal::{EntryKind, Journal};
use pitfs::logstore::Codec;
use pitfs::media::{MediaDir, TestDir};
use pitfs::tree::{Caller, Kind, New, ROOT, Tree};
use pitfs::view::Views;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use xxhash_rust::xxh3::Xxh3;

const BLOCK: u64 = 4096;
const HEADER: usize = 40;

/// A store whose journal has entries after the last commit, which is in the journal as well.
fn sample() -> &'static TestDir {
    static SAMPLE: OnceLock<TestDir> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let dir = store(Codec::Lz4);
        let views = Views::new(Tree::open(Arc::new(dir.clone())).unwrap());
        let tree = views.tree();
        let caller = Caller { uid: 0, gid: 0, umask: 0 };
        let new = New { kind: Kind::File, permissions: 0o600, rdev: 0, target: b"" };
        for len in [100, 5000, 40_000] {
            if len == 40_000 {
                views.snapshots().take(Some(b"journaled")).unwrap();
            }
            let (number, _) = tree.names().make(caller, ROOT, format!("journaled {len}").as_bytes(), new).unwrap();
            tree.files().write(number, 0, &text(len), false).unwrap();
            tree.files().sync_inode(number).unwrap();
        }
        dir
    })
}

#[derive(Clone, Debug, TypeGenerator)]
struct Mutation {
    entry: u8,
    in_payload: bool,
    at: u16,
    bytes: Vec<u8>,
    /// The entry's check value is made right again.
    is_right: bool,
}

/// Where the entries begin.
fn entries(journal: &[u8]) -> Vec<usize> {
    let starts = (0..journal.len()).step_by(BLOCK as usize);
    starts.filter(|at| journal[*at..].starts_with(b"pitJ") || journal[*at..].starts_with(b"pitC")).collect()
}

fn change(journal: &mut [u8], mutation: &Mutation) {
    let entries = entries(journal);
    let start = entries[usize::from(mutation.entry) % entries.len()];
    let payload = |journal: &[u8]| u64::from_le_bytes(journal[start + 24..start + 32].try_into().unwrap()) as usize;
    let (from, len) = if mutation.in_payload { (start + HEADER, payload(journal)) } else { (start, HEADER) };
    let from = from + usize::from(mutation.at) % len.max(1);
    let end = (from + mutation.bytes.len()).min(journal.len());
    journal[from..end].copy_from_slice(&mutation.bytes[..end - from]);
    let end = start.saturating_add(HEADER).saturating_add(payload(journal));
    if mutation.is_right && end <= journal.len() {
        let mut hash = Xxh3::new();
        hash.update(&journal[start..start + 32]);
        hash.update(&journal[start + HEADER..end]);
        journal[start + 32..start + HEADER].copy_from_slice(&hash.digest().to_le_bytes());
    }
}

#[test]
fn a_hostile_journal_is_refused_or_done_again() {
    let bytes = bytes_of(sample(), "journal");
    assert_eq!(entries(&bytes).len(), 4, "the sample has entries");
    let (_, found) = Journal::open(Arc::new(copy(sample())), 1, 0).unwrap();
    assert_eq!(found.iter().filter(|entry| entry.kind == EntryKind::Commit).count(), 1);
    assert_eq!(found.len(), 4);
    bolero::check!().with_type::<(Mutation, Option<Mutation>)>().with_test_time(Duration::from_secs(3)).for_each(
        |(first, second)| {
            let dir = copy(sample());
            let mut journal = bytes.clone();
            change(&mut journal, first);
            if let Some(second) = second
                && !entries(&journal).is_empty()
            {
                change(&mut journal, second);
            }
            let media = dir.open("journal", false).unwrap();
            media.write_at(0, &journal).unwrap();
            media.sync().unwrap();
            let open = || {
                if let Ok(tree) = Tree::open(Arc::new(dir.clone())) {
                    assert!(tree.inode(ROOT.live()).is_ok());
                }
                read_all(&dir);
                change_all(&dir);
            };
            watched(|| format!("{first:?} {second:?}"), open);
        },
    );
}

/// The files that the sample journaled, as a store shows them.
fn journaled(dir: &TestDir) -> Vec<usize> {
    let tree = Tree::open(Arc::new(dir.clone())).unwrap();
    let lens = [100, 5000, 40_000].into_iter().filter(|len| {
        let Ok((number, _)) = tree.names().lookup(ROOT.live(), format!("journaled {len}").as_bytes()) else {
            return false;
        };
        let bytes = tree.files().read(number.live(), 0, 1 << 20).unwrap();
        assert!(bytes == text(*len), "{len} bytes came back as {}", bytes.len());
        true
    });
    lens.collect()
}

/// Where the entry of a file begins, and its number among all.
fn entry_of(journal: &[u8], len: usize) -> (usize, usize) {
    let name = format!("journaled {len}");
    let is_there =
        |start: &usize| journal[*start..].windows(name.len()).take(400).any(|piece| piece == name.as_bytes());
    let entries = entries(journal);
    let number = entries.iter().rposition(is_there).unwrap();
    (entries[number], number)
}

#[test]
fn a_flipped_bit_costs_the_file_that_it_hits() {
    let bytes = bytes_of(sample(), "journal");
    let all = journaled(&copy(sample()));
    assert!(all.len() == 3);
    let (start, _) = entry_of(&bytes, 40_000);
    for at in (0..HEADER).chain((HEADER..40_000).step_by(3001)) {
        let dir = copy(sample());
        dir.damage("journal", (start + at) as u64, 1);
        assert_eq!(journaled(&dir), [100, 5000], "byte {at}");
        assert_eq!(journaled(&dir), [100, 5000], "once more, byte {at}");
    }
}

/// An entry makes files again, under the names that it says.
#[test]
fn an_entry_with_a_name_that_cannot_be_is_not_done_again() {
    let bytes = bytes_of(sample(), "journal");
    let name = b"journaled 40000";
    for other in [&b"../aled 40000xx"[..], b"journal/d 40000", b"journal\0d 40000"] {
        let mut journal = bytes.clone();
        let (start, entry) = entry_of(&journal, 40_000);
        let at = journal[start..].windows(name.len()).position(|piece| piece == name).unwrap();
        journal[start + at..][..name.len()].copy_from_slice(other);
        let bytes = Vec::new();
        change(&mut journal, &Mutation { entry: entry as u8, in_payload: true, at: 0, bytes, is_right: true });
        let dir = copy(sample());
        dir.open("journal", false).unwrap().write_at(0, &journal).unwrap();
        assert_eq!(journaled(&dir), [100, 5000]);
    }
}
