//! Pages of the metadata that are others, with checksums that are right: the key-value store believes them.

use super::sample::*;
use super::watch::{is_a_test, watched};
use bolero::TypeGenerator;
use pitfs::daemon::{Daemon, FORMAT};
use pitfs::fault::ENDED;
use pitfs::logstore::Codec;
use pitfs::media::{Media, MediaDir, TestDir};
use pitfs::tree::{ROOT, Tree};
use std::fs;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64_with_seed;

const PAGE: usize = 4096;
/// Pages of one group, with the one of checksums.
const GROUP: usize = 512;

fn sample() -> &'static TestDir {
    static SAMPLE: OnceLock<TestDir> = OnceLock::new();
    SAMPLE.get_or_init(|| store(Codec::Lz4))
}

#[derive(Clone, Debug, TypeGenerator)]
struct Mutation {
    page: u16,
    /// What leads to the rest of a page stands at its beginning.
    is_at_beginning: bool,
    at: u16,
    way: Way,
}

#[derive(Clone, Debug, TypeGenerator)]
enum Way {
    Flip(u8),
    Set(u8),
    /// Another page is there as well.
    Copy(u16),
}

/// Makes the checksums of all pages right.
fn rehash(bytes: &mut [u8]) {
    for place in (0..bytes.len() / PAGE).filter(|place| place % GROUP != 0) {
        let page = (place / GROUP * (GROUP - 1) + place % GROUP - 1) as u64;
        let content = &bytes[place * PAGE..][..PAGE];
        let is_zeros = content.iter().all(|byte| *byte == 0);
        let sum = if is_zeros { 0 } else { xxh3_64_with_seed(content, page).max(1) };
        if page != 0 {
            bytes[place / GROUP * GROUP * PAGE + place % GROUP * 8..][..8].copy_from_slice(&sum.to_le_bytes());
        }
    }
}

fn changed(mutations: &[Mutation]) -> TestDir {
    let dir = copy(sample());
    let mut bytes = bytes_of(&dir, "meta.redb");
    let has_content =
        |place: &usize| !place.is_multiple_of(GROUP) && bytes[place * PAGE..][..PAGE].iter().any(|byte| *byte != 0);
    // Without the first, which has checksums of the key-value store.
    let used: Vec<usize> = (2..bytes.len() / PAGE).filter(has_content).collect();
    let of = |number: u16| used[usize::from(number) % used.len()] * PAGE;
    for mutation in mutations {
        let page = of(mutation.page);
        let at = page + usize::from(mutation.at) % if mutation.is_at_beginning { 64 } else { PAGE };
        match mutation.way {
            Way::Flip(bit) => bytes[at] ^= 1 << (bit % 8),
            Way::Set(to) => bytes[at] = to,
            Way::Copy(from) => bytes.copy_within(of(from)..of(from) + PAGE, page),
        }
    }
    rehash(&mut bytes);
    let media: Arc<dyn Media> = dir.open("meta.redb", false).unwrap();
    media.write_at(0, &bytes).unwrap();
    media.sync().unwrap();
    dir
}

#[test]
fn checksums_are_made_right() {
    let mut bytes = bytes_of(sample(), "meta.redb");
    let before = bytes.clone();
    rehash(&mut bytes);
    assert!(bytes == before, "what is whole stays");
    assert!(Tree::open(Arc::new(changed(&[]))).unwrap().inode(ROOT.live()).is_ok());
}

/// Runs one of the tests that are ignored in processes of its own, for so long or as `make fuzz` says: some of what is tried
/// ends the program in order, and then the next begins.
fn in_processes(test: &str, seconds: u64) {
    is_a_test();
    const TIME: &str = "BOLERO_RANDOM_TEST_TIME_MS";
    let asked = std::env::var(TIME).ok().and_then(|millis| millis.parse().ok());
    let end = Instant::now() + asked.map_or(Duration::from_secs(seconds), Duration::from_millis);
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        // What it leaves goes with this.
        let place = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", test, "--ignored", "--nocapture"]);
        child.env(TIME, left.as_millis().to_string()).env("TMPDIR", place.path());
        let output = child.output().unwrap();
        match output.status.code() {
            Some(0 | ENDED) => {}
            _ => panic!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)),
        }
    }
}

#[test]
fn metadata_with_hostile_pages_can_be_read_and_changed() {
    in_processes("pages::hostile_pages_are_read_and_changed", 5);
}

#[test]
fn metadata_with_hostile_pages_can_be_checked() {
    in_processes("pages::hostile_pages_are_checked", 3);
}

#[test]
#[ignore = "run in a process of its own"]
fn hostile_pages_are_read_and_changed() {
    bolero::check!().with_type::<(Mutation, Option<Mutation>)>().for_each(|(first, second)| {
        let mutations: Vec<Mutation> = [Some(first), second.as_ref()].into_iter().flatten().cloned().collect();
        let dir = changed(&mutations);
        watched(
            || format!("{mutations:?}"),
            || {
                read_all(&dir);
                change_all(&dir);
            },
        );
    });
}

#[test]
#[ignore = "run in a process of its own"]
fn hostile_pages_are_checked() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("store");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("store"), format!("pitfs store\nformat {FORMAT}\n")).unwrap();
    bolero::check!().with_type::<(Mutation, Option<Mutation>)>().for_each(|(first, second)| {
        let mutations: Vec<Mutation> = [Some(first), second.as_ref()].into_iter().flatten().cloned().collect();
        let dir = changed(&mutations);
        for name in ["meta.redb", "volume.0"] {
            fs::write(path.join(name), bytes_of(&dir, name)).unwrap();
        }
        let check = || {
            if let Ok(daemon) = Daemon::open(&path) {
                let _an_error_is_fine = pitfs::daemon::check(&daemon, &mut |_| Ok(()));
                let _an_error_is_fine = daemon.close();
            }
        };
        watched(|| format!("{mutations:?}"), check);
    });
}
