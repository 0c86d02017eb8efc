//! Numbers at their edges in every record of a store, with right checksums: what makes no sense is damage, said by what opens
//! the store or by `check`; no command meets a fault, and each ends soon.

mod mounted;

use mounted::*;
use pitfs::control::{Request, Session, Snap, Verb, serve};
use pitfs::daemon::{Daemon, RestoreOptions, RollOptions};
use pitfs::device::Moment;
use pitfs::error::{Error, Result};
use pitfs::media::{DiskDir, MediaDir};
use pitfs::meta::{Kv, Overlay, Pair, Table, encode};
use pitfs::tree::{Caller, Kind, New, ROOT};
use serde_bytes::ByteBuf;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const EDGES: [u64; 6] = [0, 1, 1 << 31, u32::MAX as u64, 1 << 63, u64::MAX];
/// Records of a table that are tried: the first, the last, and some between.
const RECORDS: usize = 4;
/// One case of so many is tried in a run of all tests, and with `PITFS_ALL_EDGES` every one.
const EACH: usize = 29;
/// What no step of these takes, on a busy machine.
const LONGEST: Duration = Duration::from_secs(20);

/// Faults that were logged, by whatever thread.
struct Faults(Mutex<Vec<String>>);

static FAULTS: Faults = Faults(Mutex::new(Vec::new()));

impl log::Log for Faults {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let text = record.args().to_string();
        if text.contains("a fault in pitfs") {
            self.0.lock().unwrap().push(text);
        }
    }

    fn flush(&self) {}
}

/// A store with something in every table, and an archive.
fn sample() -> Mounted {
    let mounted = Mounted::unmounted();
    let source = mounted.dir.path().join("source");
    let archive = mounted.dir.path().join("archive");
    fs::create_dir_all(source.join("directory")).unwrap();
    let put = |name: &str, seed: u8, len: usize| {
        let bytes: Vec<u8> = (0..len).map(|i| (i * i / 7) as u8 ^ seed).collect();
        fs::write(source.join(name), bytes).unwrap();
    };
    put("going", 9, 30_000);
    std::os::unix::fs::symlink("file", source.join("link")).unwrap();
    for (at, name) in ["first", "second", "third"].into_iter().enumerate() {
        put("file", at as u8, 60_000);
        put("small", at as u8, 100 + at);
        put(&format!("directory/of {name}"), at as u8, 20_000);
        if at == 0 {
            fs::hard_link(source.join("small"), source.join("also small")).unwrap();
            rustix::fs::setxattr(source.join("file"), "user.a", b"value", rustix::fs::XattrFlags::empty()).unwrap();
        }
        mounted.ok(["sync", source.to_str().unwrap()]);
        mounted.ok(["snap", name]);
        if at == 0 {
            fs::remove_file(source.join("going")).unwrap();
            mounted.ok(["roll", "--name", "rolled", "--archive", archive.to_str().unwrap()]);
        }
    }
    mounted.ok(["clone", "second", "clone"]);
    mounted.ok(["clone", "--full", "--wait", "--reserve", "third", "full"]);
    mounted.ok(["mirror", "establish", "live", "mirror"]);
    mounted.ok(["session", "register", "planned"]);
    mounted.ok(["session", "deactivate", "third"]);
    mounted.ok(["group", "create", "group", "live", "full"]);
    mounted
}

fn records(store: &Path) -> Kv {
    Kv::open(DiskDir::open(store).unwrap().open("meta.redb", false).unwrap(), None).unwrap()
}

/// Work that is under way, which ends before a store is closed.
fn add_work(store: &Path) {
    let kv = records(store);
    let mut overlay = Overlay::default();
    let key = |base: u32, kind: u8, number: u64| [&base.to_be_bytes()[..], &[kind], &number.to_be_bytes()].concat();
    let all = kv.tables().unwrap().range(Table::Base, &[], &[255; 9]).unwrap();
    let clone = all.map(|pair| pair.unwrap()).find(|(_, value)| value[2..].starts_with(b"clone")).unwrap();
    let base = u32::from_be_bytes(clone.0.try_into().unwrap());
    let nothing = ByteBuf::new();
    let walk = BTreeMap::from([("Changed", (0u32, 1u32, 2u32))]);
    overlay.put(Table::Orphan, &key(base, 2, 4), encode(&((walk,), 0, &nothing, 5u64, 7u64)));
    overlay.put(Table::Orphan, &key(base, 3, 2), encode(&(0u32, 1u32, 2u32, &nothing)));
    overlay.put(Table::Orphan, &key(0, 1, 1), encode(&nothing));
    overlay.put(Table::Orphan, &key(0, 5, 0), encode(&(&nothing, 1u64, 2u64, 3u64, 4u64, true, true, false, 5u64)));
    overlay.put(Table::Orphan, &key(0, 5, 1), encode(&3u64));
    overlay.put(Table::Tombstone, &key(base, 1, 99), Vec::new());
    overlay.put(Table::Passed, &[&0u32.to_be_bytes()[..], &key(3, 1, 2)].concat(), Vec::new());
    kv.commit(&overlay).unwrap();
    kv.close();
}

/// Where the numbers of MessagePack lie in what may be several objects.
fn numbers(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    let len = |at: usize, size: usize| bytes[at..at + size].iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
    while at < bytes.len() {
        let start = at;
        at += 1;
        let number = match bytes[start] {
            0..=0x7f | 0xe0..=0xff => Some(0),
            0xcc | 0xd0 => Some(1),
            0xcd | 0xd1 => Some(2),
            0xce | 0xd2 => Some(4),
            0xcf | 0xd3 => Some(8),
            _ => None,
        };
        if let Some(size) = number {
            at += size;
            found.push(start..at);
            continue;
        }
        at += match bytes[start] {
            byte @ 0xa0..=0xbf => usize::from(byte & 0x1f),
            0xc4 | 0xd9 => 1 + len(at, 1),
            0xc5 | 0xda => 2 + len(at, 2),
            0xc6 | 0xdb => 4 + len(at, 4),
            0xdc | 0xde => 2,
            0xdd | 0xdf => 4,
            _ => 0,
        };
    }
    found
}

/// Numbers in the keys of a table: where, and of how many bytes.
fn key_numbers(table: Table, len: usize) -> Vec<(usize, usize)> {
    match table {
        Table::State | Table::Session | Table::Group => Vec::new(),
        Table::Inode | Table::Xattr | Table::Origin => vec![(0, 4), (4, 8)],
        Table::Dirent | Table::Track | Table::Link => vec![(0, 4), (4, 8), (12, 8)],
        Table::Preimage => vec![(0, 4), (len - 4, 4)],
        Table::Increment | Table::Snapshot | Table::Passed | Table::Archived => vec![(0, 4), (4, 4)],
        Table::Name | Table::Base | Table::Tombstone => vec![(0, 4)],
        Table::Segment | Table::History => vec![(0, 8)],
        Table::Volume => vec![(0, 2), (2, 4)],
        Table::Room => vec![(0, 1), (1, 8)],
        Table::Shared => vec![(0, 8), (8, 2)],
        Table::Orphan => vec![(0, 4), (5, 8)],
    }
}

/// A record that takes the place of another, or stands beside it, with one number at an edge.
struct Case {
    what: String,
    edge: u64,
    table: Table,
    key: Vec<u8>,
    value: Vec<u8>,
}

fn cases(store: &Path) -> Vec<Case> {
    let kv = records(store);
    let tables = kv.tables().unwrap();
    let mut cases = Vec::new();
    for table in Table::ALL {
        let all: Vec<Pair> = tables.range(table, &[], &[255; 300]).unwrap().map(|pair| pair.unwrap()).collect();
        assert!(!all.is_empty(), "nothing is in table {}", table.name());
        let all_of_it = matches!(table, Table::State | Table::Orphan | Table::Base);
        let wanted = if all_of_it { all.len() } else { RECORDS };
        let places: BTreeSet<usize> = (0..wanted).map(|i| i * (all.len() - 1) / (wanted - 1).max(1)).collect();
        for (key, value) in places.into_iter().map(|place| &all[place]) {
            for edge in EDGES {
                let case = |place: String, key: Vec<u8>, value: Vec<u8>| {
                    let shown =
                        if table == Table::State { key.escape_ascii().to_string() } else { pitfs::meta::hex(&key) };
                    Case { what: format!("{} {shown} {place}", table.name()), edge, table, key, value }
                };
                for (at, number) in numbers(value).into_iter().enumerate() {
                    let value = [&value[..number.start], &encode(&edge), &value[number.end..]].concat();
                    cases.push(case(format!("number {at}"), key.clone(), value));
                }
                let fits = |len: usize| len == 8 || edge >> (len * 8) == 0;
                for (at, len) in key_numbers(table, key.len()).into_iter().filter(|(_, len)| fits(*len)) {
                    let mut key = key.clone();
                    key[at..at + len].copy_from_slice(&edge.to_be_bytes()[8 - len..]);
                    cases.push(case(format!("key at {at}"), key, value.clone()));
                }
            }
        }
    }
    kv.close();
    cases
}

/// What is wrong with how a case was taken.
#[derive(Default)]
struct Found {
    faults: Vec<String>,
    /// Damage was said, when the store was opened or by `check`.
    is_said: bool,
}

impl Found {
    fn step<T>(&mut self, what: &str, step: impl FnOnce() -> Result<T>) -> Option<T> {
        let start = Instant::now();
        let result = Error::of_panic(step);
        if start.elapsed() > LONGEST {
            self.faults.push(format!("{what} takes {:?}", start.elapsed()));
        }
        result
            .inspect_err(|error| {
                if let Error::Fault(_) = error {
                    self.faults.push(format!("{what}: {error}"))
                }
            })
            .ok()
    }
}

fn name(text: &str) -> ByteBuf {
    ByteBuf::from(text.as_bytes())
}

fn try_case(mounted: &Mounted) -> Found {
    let mut found = Found::default();
    let daemon = match Error::of_panic(|| Daemon::open(&mounted.store())) {
        Ok(daemon) => daemon,
        Err(Error::Fault(what)) => return Found { faults: vec![format!("opening: {what}")], is_said: true },
        Err(error) => {
            let is_said = matches!(error, Error::Corrupt { .. });
            let faults = if is_said { Vec::new() } else { vec![format!("opening: {error}")] };
            return Found { faults, is_said };
        }
    };
    let check = found.step("check", || pitfs::daemon::check(&daemon, &mut |_| Ok(())));
    found.is_said = check.is_none_or(|check| !check.problems.is_empty());
    let to = mounted.dir.path().join("to");
    let copy_out = RestoreOptions { snapshot: b"live".to_vec(), paths: Vec::new(), to: to.clone(), overwrite: false };
    let old = RestoreOptions { snapshot: b"first".to_vec(), overwrite: true, ..copy_out.clone() };
    let restore = Verb::Restore { snapshot: Some(name("second")), paths: Vec::new(), group: None };
    let delete = |what: &str| Verb::Delete { names: vec![name(what)], group: None, recursive: false };
    let (before, after, path) = (name("first"), name("third"), name("file"));
    let tracks = Verb::Tracks { before: before.clone(), after: Some(after.clone()), path: None, range: None };
    let before_writing = [
        Verb::Status,
        Verb::List { all: true },
        Verb::History,
        Verb::Session(Session::List),
        Verb::Base(pitfs::control::Base::List),
        Verb::Diff { before, after },
        tracks,
        Verb::Versions { path },
        Verb::CopyOut(copy_out),
        Verb::CopyOut(old),
        Verb::Rehearse(Box::new(Verb::Roll(RollOptions::default()))),
    ];
    let after_writing = [
        Verb::Snap(Snap { name: Some(name("new")), reserve: true, ..Snap::default() }),
        delete("second"),
        restore,
        Verb::Roll(RollOptions { keep: Some(1), ..RollOptions::default() }),
        Verb::Base(pitfs::control::Base::Delete { name: name("full"), recursive: true }),
        Verb::Check,
    ];
    let ask = |found: &mut Found, base: &str, verb: Verb| {
        let what = format!("{verb:?}");
        let what = what.split([' ', '{', '(']).next().unwrap_or_default().to_string();
        let request = Request { protocol: pitfs::control::PROTOCOL, base: Some(name(base)), verb, stream: None };
        found.step(&what, || serve(&daemon, request, 0, &mut |_| Ok(())));
    };
    before_writing.into_iter().for_each(|verb| ask(&mut found, "live", verb));
    ask(&mut found, "clone", Verb::Status);
    found.step("ls", || walk(&daemon));
    found.step("write", || write(&daemon));
    after_writing.into_iter().for_each(|verb| ask(&mut found, "live", verb));
    found.step("deletions", || daemon.finish_deletions());
    found.step("closing", || daemon.close());
    let _there_may_be_none = fs::remove_dir_all(to);
    found
}

/// As `ls` and `cat` of all that a mount shows of the first base.
fn walk(daemon: &Daemon) -> Result<()> {
    let tree = daemon.views().tree();
    let mut moments = vec![Moment::Live];
    moments.extend(daemon.views().snapshots().with_archived()?.iter().map(|snapshot| Moment::At(snapshot.epoch)));
    for moment in moments {
        let mut entries = Vec::new();
        // What can be listed is read, whatever comes behind it.
        let _may_be_damaged = tree.names().list(ROOT.at(moment), 0, |entry| {
            entries.push(entry.clone());
            Ok(true)
        });
        for entry in entries.iter().take(50) {
            let read = tree.files().read(entry.inode.at(moment), 0, 1 << 20);
            let read = read.and_then(|_| {
                tree.files().seek_data(entry.inode.at(moment), 0).and(tree.files().seek_hole(entry.inode.at(moment), 0))
            });
            let attributes = tree
                .names()
                .lookup(ROOT.at(moment), &entry.name)
                .and(tree.names().read_link(entry.inode.at(moment)).map(drop));
            for error in [read.map(drop), attributes].into_iter().filter_map(Result::err) {
                assert!(!matches!(error, Error::Fault(_)), "{error}");
            }
        }
    }
    Ok(())
}

fn write(daemon: &Daemon) -> Result<()> {
    let tree = daemon.views().tree();
    let caller = Caller { uid: 0, gid: 0, umask: 0 };
    let new = New { kind: Kind::File, permissions: 0o644, rdev: 0, target: b"" };
    if let Ok((file, _)) = tree.names().make(caller, ROOT, b"new", new) {
        tree.files().write(file, 100_000, &[7; 50_000], false)?;
    }
    for name in [&b"file"[..], b"small"] {
        if let Ok((file, _)) = tree.names().lookup(ROOT.live(), name) {
            let _may_be_damaged = tree.files().write(file, 10_000, &[8; 9000], false);
        }
    }
    tree.names().unlink(ROOT, b"link")?;
    tree.commit()
}

/// Files of the store and its archive, as they were.
fn keep(mounted: &Mounted) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let files = ["store", "archive"]
        .into_iter()
        .flat_map(|directory| fs::read_dir(mounted.dir.path().join(directory)).unwrap());
    files
        .map(|file| file.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

fn run(worker: usize, workers: usize, all: bool) -> Vec<String> {
    let mounted = sample();
    add_work(&mounted.store());
    let kept = keep(&mounted);
    let mut wrong = Vec::new();
    for (at, case) in cases(&mounted.store()).iter().enumerate() {
        if at % workers != worker || !all && !(at / workers).is_multiple_of(EACH) {
            continue;
        }
        for directory in ["store", "archive"] {
            for file in fs::read_dir(mounted.dir.path().join(directory)).unwrap().map(|file| file.unwrap().path()) {
                if !kept.iter().any(|(kept, _)| *kept == file) {
                    let _socket_or_so = fs::remove_file(file);
                }
            }
        }
        for (path, bytes) in &kept {
            fs::write(path, bytes).unwrap();
        }
        let kv = records(&mounted.store());
        let mut overlay = Overlay::default();
        overlay.put(case.table, &case.key, case.value.clone());
        kv.commit(&overlay).unwrap();
        kv.close();
        drop(kv);
        let found = try_case(&mounted);
        let logged = std::mem::take(&mut *FAULTS.0.lock().unwrap());
        let what = format!("{} = {}", case.what, case.edge);
        wrong.extend(found.faults.iter().chain(&logged).map(|fault| format!("{what}: {fault}")));
        // Files elsewhere may have any numbers, and work may be over before it is looked at.
        let is_free = matches!(case.table, Table::Origin | Table::Orphan);
        let makes_none = case.edge >= 1 << 63 && !is_free;
        if makes_none && !found.is_said {
            wrong.push(format!("{what}: nobody says it"));
        }
    }
    wrong
}

#[test]
fn a_number_that_makes_no_sense_is_damage_and_no_fault() {
    log::set_logger(&FAULTS).unwrap();
    log::set_max_level(log::LevelFilter::Error);
    let all = std::env::var_os("PITFS_ALL_EDGES").is_some();
    let workers: Vec<_> = (0..2).map(|worker| std::thread::spawn(move || run(worker, 2, all))).collect();
    let wrong: Vec<String> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
