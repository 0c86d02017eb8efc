//! Records of every table, changed behind the back of the page checksums.

use super::sample::*;
use super::watch::watched;
use bolero::generator::{TypeGenerator, ValueGenerator};
use pitfs::daemon::{Daemon, FORMAT};
use pitfs::logstore::Codec;
use pitfs::media::TestDir;
use pitfs::meta::{Pair, Table};
use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

/// One change of one record, as a number that is taken by the length of what it chooses from.
#[derive(Clone, Debug, TypeGenerator)]
struct Mutation {
    table: u8,
    record: u16,
    in_key: bool,
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
    /// A piece of MessagePack, or of a key, that is at the edge of something.
    Edge {
        at: u16,
        which: u8,
    },
    Cut {
        len: u16,
    },
    Append {
        bytes: Vec<u8>,
    },
    Replace {
        bytes: Vec<u8>,
    },
    /// The value of another record of any table.
    Exchange {
        table: u8,
        record: u16,
    },
    Remove,
    /// The record under its key in another table.
    Repeat {
        table: u8,
    },
}

const EDGES: &[&[u8]] = &[
    &[0xff],
    &[0x7f],
    &[0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0xcf, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0xcf, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0xce, 0xff, 0xff, 0xff, 0xff],
    &[0xce, 0x7f, 0xff, 0xff, 0xff],
    &[0xcd, 0xff, 0xff],
    &[0xcd, 0x07, 0xff],
    &[0xd3, 0x80, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00],
    &[0xd9, 0xff],
    &[0xdb, 0xff, 0xff, 0xff, 0xff],
    &[0xc6, 0xff, 0xff, 0xff, 0xff],
    &[0xdd, 0xff, 0xff, 0xff, 0xff],
    &[0xdf, 0xff, 0xff, 0xff, 0xff],
    &[0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91],
    &[0xc0],
    &[0xc1],
    &[0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
];

fn put(bytes: &mut Vec<u8>, at: u16, piece: &[u8]) {
    let at = usize::from(at) % (bytes.len() + 1);
    let end = (at + piece.len()).min(bytes.len());
    bytes.splice(at..end, piece.iter().copied());
}

struct Sample {
    dir: TestDir,
    records: Vec<(Table, Pair)>,
}

fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let dir = store(Codec::Lz4);
        let records = records(&dir);
        Sample { dir, records }
    })
}

impl Sample {
    fn pick(&self, table: u8, record: u16) -> &(Table, Pair) {
        // Each table that has records is as likely as any other, however few it has; but for the one without
        // which nothing opens.
        let table = match usize::from(table) {
            0..8 => Table::State,
            number => Table::ALL[1 + number % (Table::ALL.len() - 1)],
        };
        let of_table: Vec<_> = self.records.iter().filter(|(other, _)| *other == table).collect();
        match of_table.len() {
            0 => &self.records[usize::from(record) % self.records.len()],
            len => of_table[usize::from(record) % len],
        }
    }

    fn changed(&self, mutations: &[Mutation]) -> TestDir {
        let dir = copy(&self.dir);
        let (kv, mut meta) = open_meta(&dir);
        for mutation in mutations {
            let (table, (key, value)) = self.pick(mutation.table, mutation.record).clone();
            let (mut new_key, mut new_value, mut new_table) = (key.clone(), value, table);
            let bytes = if mutation.in_key { &mut new_key } else { &mut new_value };
            let mut is_removed = false;
            match &mutation.way {
                Way::Flip { at, bit } => {
                    let at = usize::from(*at) % bytes.len().max(1);
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << (bit % 8);
                    }
                }
                Way::Set { at, to } => put(bytes, *at, &[*to]),
                Way::Edge { at, which } => put(bytes, *at, EDGES[usize::from(*which) % EDGES.len()]),
                Way::Cut { len } => bytes.truncate(usize::from(*len) % (bytes.len() + 1)),
                Way::Append { bytes: more } => bytes.extend_from_slice(more),
                Way::Replace { bytes: others } => bytes.clone_from(others),
                Way::Exchange { table, record } => new_value.clone_from(&self.pick(*table, *record).1.1),
                Way::Remove => is_removed = true,
                Way::Repeat { table } => new_table = Table::ALL[usize::from(*table) % Table::ALL.len()],
            }
            if is_removed || mutation.in_key {
                meta.remove(table, &key);
            }
            if !is_removed {
                new_key.truncate(300);
                meta.put_raw(new_table, &new_key, new_value);
            }
        }
        kv.commit(&meta.freeze()).unwrap();
        dir
    }
}

/// Few at a time: most stores should get past opening.
fn mutations() -> impl ValueGenerator<Output = Vec<Mutation>> {
    bolero::produce::<Vec<Mutation>>().with().len(1usize..=3)
}

fn shown(mutations: &[Mutation]) -> String {
    format!("{mutations:?}")
}

#[test]
fn a_store_with_hostile_records_can_be_read() {
    bolero::check!().with_generator(mutations()).with_test_time(Duration::from_secs(4)).for_each(|mutations| {
        watched(|| shown(mutations), || read_all(&sample().changed(mutations)));
    });
}

#[test]
fn a_store_with_hostile_records_can_be_changed() {
    bolero::check!().with_generator(mutations()).with_test_time(Duration::from_secs(4)).for_each(|mutations| {
        watched(|| shown(mutations), || change_all(&sample().changed(mutations)));
    });
}

/// `check`, `restore` and `diff` on a real directory.
#[test]
fn a_store_with_hostile_records_can_be_checked() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("store");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("store"), format!("pitfs store\nformat {FORMAT}\n")).unwrap();
    let lay_out = |dir: &TestDir| {
        for name in ["meta.redb", "volume.0"] {
            fs::write(path.join(name), bytes_of(dir, name)).unwrap();
        }
    };
    lay_out(&sample().dir);
    let report = pitfs::daemon::check(&Daemon::open(&path).unwrap(), &mut |_| Ok(())).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    bolero::check!().with_generator(mutations()).with_test_time(Duration::from_secs(4)).for_each(|mutations| {
        lay_out(&sample().changed(mutations));
        let check = || {
            if let Ok(daemon) = Daemon::open(&path) {
                let _an_error_is_fine = pitfs::daemon::check(&daemon, &mut |_| Ok(()));
                let to = place.path().join("restored");
                let options = pitfs::daemon::RestoreOptions { snapshot: b"live".into(), to, ..Default::default() };
                let _an_error_is_fine = pitfs::daemon::copy_out(&daemon, daemon.views(), &options, &mut |_| Ok(()));
                let _an_error_is_fine = daemon.close();
            }
        };
        watched(|| shown(mutations), check);
        // Nothing was made beside what was asked for.
        let _there_may_be_none = fs::remove_dir_all(place.path().join("restored"));
        let left: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["store"], "restored outside of the directory that was named");
    });
}
