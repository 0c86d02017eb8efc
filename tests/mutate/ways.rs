//! Ways in which a store's bytes become others.

use super::rng::Rng;
use super::sample::Sample;
use pitfs::media::{DiskDir, MediaDir};
use pitfs::meta::{Kv, Overlay, Pair, Table};
use std::fs;
use std::path::PathBuf;
use xxhash_rust::xxh3::xxh3_64_with_seed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A bit, some bytes, a block or the end of a file of the store.
    StoreAccident,
    /// The same of the archive.
    ArchiveAccident,
    /// Records that somebody has changed, in a store whose checksums are right.
    Records,
    /// Pages of the metadata, with checksums that are right.
    Pages,
    /// Records of the archive's index.
    Index,
}

const PAGE: usize = 4096;
/// Pages of one group, with the one of checksums.
const GROUP: usize = 512;

/// What encodes numbers, lengths and nothing at their edges.
const EDGES: [&[u8]; 10] = [
    &[],
    &[0],
    &[0x7f],
    &[0xc0],
    &[0xff],
    &[0xdd, 0xff, 0xff, 0xff, 0xff],
    &[0xc6, 0xff, 0xff, 0xff, 0xff],
    &[0xce, 0xff, 0xff, 0xff, 0xff],
    &[0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0],
];

impl Way {
    pub fn any(rng: &mut Rng) -> Way {
        rng.pick(&[
            Way::StoreAccident,
            Way::StoreAccident,
            Way::ArchiveAccident,
            Way::Records,
            Way::Records,
            Way::Pages,
            Way::Index,
        ])
    }

    pub fn name(self) -> &'static str {
        match self {
            Way::StoreAccident => "accidents of the store",
            Way::ArchiveAccident => "accidents of the archive",
            Way::Records => "records",
            Way::Pages => "pages",
            Way::Index => "index",
        }
    }

    pub fn is_accident(self) -> bool {
        matches!(self, Way::StoreAccident | Way::ArchiveAccident)
    }

    /// Whether there was anything to be changed.
    pub fn apply(self, sample: &Sample, rng: &mut Rng) -> bool {
        match self {
            Way::StoreAccident => accident(files_in(sample.store()), rng),
            Way::ArchiveAccident => accident(files_in(sample.archive()), rng),
            Way::Records => records(&sample.store(), "meta.redb", rng),
            Way::Index => records(&sample.archive(), "index", rng),
            Way::Pages => pages(&sample.store().join("meta.redb"), rng),
        }
    }
}

fn files_in(directory: PathBuf) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    // Whoever holds the lock says so, and nobody does.
    files.retain(|file| file.is_file() && !file.ends_with("lock") && fs::metadata(file).unwrap().len() > 0);
    files.sort();
    files
}

fn accident(files: Vec<PathBuf>, rng: &mut Rng) -> bool {
    let file = rng.pick(&files);
    let mut bytes = fs::read(&file).unwrap();
    // Where there is something: most of a file may be room that was set aside.
    let used: Vec<usize> = (0..bytes.len().div_ceil(PAGE))
        .filter(|page| bytes[page * PAGE..bytes.len().min((page + 1) * PAGE)].iter().any(|byte| *byte != 0))
        .collect();
    if used.is_empty() {
        return false;
    }
    let page = rng.pick(&used) * PAGE;
    let len = bytes.len();
    let at = page + rng.below((len - page).min(PAGE) as u64) as usize;
    let end = len.min(at + [1, 8, 512, PAGE][rng.below(4) as usize]);
    match rng.below(6) {
        0 | 1 => bytes[at] ^= 1 << rng.below(8),
        2 => bytes[at..end].fill(0),
        3 => (at..end).for_each(|i| bytes[i] = bytes[i].wrapping_mul(31).wrapping_add(7)),
        4 => bytes.truncate(at),
        _ => {
            // A block is where another should be.
            let other = rng.pick(&used) * PAGE;
            let piece = bytes[other..len.min(other + PAGE)].to_vec();
            let room = (len - page).min(piece.len());
            bytes[page..page + room].copy_from_slice(&piece[..room]);
        }
    }
    fs::write(file, bytes).unwrap();
    true
}

fn records(directory: &std::path::Path, name: &str, rng: &mut Rng) -> bool {
    let Ok(media) = DiskDir::open(directory).and_then(|directory| directory.open(name, false)) else { return false };
    let kv = Kv::open(media, None).unwrap();
    let mut all: Vec<(Table, Pair)> = Vec::new();
    for table in Table::ALL {
        let pairs = kv.tables().unwrap().range(table, &[], &[255; 300]).unwrap();
        all.extend(pairs.map(|pair| (table, pair.unwrap())));
    }
    if all.is_empty() {
        return false;
    }
    let mut overlay = Overlay::default();
    for _ in 0..1 + rng.below(3) {
        let at = rng.below(all.len() as u64) as usize;
        let (table, (key, value)) = &all[at];
        let (mut new_key, mut new_value) = (key.clone(), value.clone());
        match rng.below(8) {
            0..4 => change(&mut new_value, rng),
            4 => {
                change(&mut new_key, rng);
                overlay.remove(*table, key);
            }
            // What another record says.
            5 => new_value = all[rng.below(all.len() as u64) as usize].1.1.clone(),
            6 => change(&mut new_key, rng),
            _ => {
                overlay.remove(*table, key);
                continue;
            }
        }
        if !new_key.is_empty() {
            overlay.put(*table, &new_key, new_value);
        }
    }
    kv.commit(&overlay).unwrap();
    kv.close();
    true
}

fn change(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let at = rng.below(bytes.len() as u64 + 1) as usize;
    match rng.below(5) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
        1 => bytes.truncate(at),
        2 => bytes.extend_from_slice(rng.pick(&EDGES)),
        3 => *bytes = rng.pick(&EDGES).to_vec(),
        _ => {
            let edge = rng.pick(&EDGES);
            let end = bytes.len().min(at + edge.len().max(1));
            bytes.splice(at..end, edge.iter().copied());
        }
    }
}

fn pages(file: &std::path::Path, rng: &mut Rng) -> bool {
    let mut bytes = fs::read(file).unwrap();
    let has_content =
        |place: &usize| !place.is_multiple_of(GROUP) && bytes[place * PAGE..][..PAGE].iter().any(|byte| *byte != 0);
    // Without the first, which has checksums of the key-value store.
    let used: Vec<usize> = (2..bytes.len() / PAGE).filter(has_content).collect();
    if used.is_empty() {
        return false;
    }
    for _ in 0..1 + rng.below(3) {
        let page = rng.pick(&used) * PAGE;
        // What leads to the rest of a page stands at its beginning.
        let end = if rng.percent(60) { 64 } else { PAGE as u64 };
        let at = page + rng.below(end) as usize;
        match rng.below(3) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.below(256) as u8,
            _ => {
                let from = rng.pick(&used) * PAGE;
                bytes.copy_within(from..from + PAGE, page);
            }
        }
    }
    for place in (0..bytes.len() / PAGE).filter(|place| place % GROUP != 0) {
        let page = (place / GROUP * (GROUP - 1) + place % GROUP - 1) as u64;
        let content = &bytes[place * PAGE..][..PAGE];
        let sum = match content.iter().all(|byte| *byte == 0) {
            true => 0,
            false => xxh3_64_with_seed(content, page).max(1),
        };
        if page != 0 {
            let at = place / GROUP * GROUP * PAGE + place % GROUP * 8;
            bytes[at..at + 8].copy_from_slice(&sum.to_le_bytes());
        }
    }
    fs::write(file, bytes).unwrap();
    true
}
