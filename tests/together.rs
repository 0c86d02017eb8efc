//! Records that each could be, with right checksums, and that make no sense together: `check` names each.

mod mounted;

use mounted::*;
use pitfs::clock::Epoch;
use pitfs::device::{BaseId, BaseRecord, InodeNo, LIVE};
use pitfs::logstore::Descriptor;
use pitfs::media::DiskDir;
use pitfs::meta::{Overlay, Pair, Table, encode};
use pitfs::tree::{Caller, Inode, Kind, New, ROOT, Tree};
use serde_bytes::ByteBuf;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

const TRACK_BYTES: u64 = 16 << 10;
/// A number that nothing in a sample has.
const NOTHING: InodeNo = InodeNo::new(LIVE, 900);

impl Records {
    fn change(&self, change: impl FnOnce(&mut Overlay)) {
        let mut overlay = Overlay::default();
        change(&mut overlay);
        self.kv.commit(&overlay).unwrap();
    }

    fn put_whole(&self, table: Table, key: &[u8], value: Vec<u8>) {
        self.change(|overlay| overlay.put(table, key, value));
    }

    fn epoch(&self) -> u32 {
        self.get::<(u32, u64, u64)>(Table::State, b"history").0
    }

    fn key_in(&self, directory: InodeNo, name: &[u8]) -> Vec<u8> {
        let hash = xxh3_64_with_seed(name, self.seed) >> 1;
        [&directory.prefix()[..], &hash.to_be_bytes(), name].concat()
    }

    /// An entry of the first base: its directory, its record, and the inode that it names.
    fn entry(&self, name: &str) -> (InodeNo, Vec<u8>, InodeNo) {
        let all = self.all(Table::Dirent).into_iter();
        let (key, value) =
            all.filter(|(key, _)| key[..4] == [0; 4]).find(|(key, _)| &key[20..] == name.as_bytes()).unwrap();
        let (number, _): (InodeNo, u8) = rmp_serde::from_slice(&value[5..]).unwrap();
        (InodeNo::of_key(&key).unwrap(), value, number)
    }

    fn change_inode(&self, number: InodeNo, change: impl FnOnce(&mut Inode)) {
        let key = inode_key(number);
        let value = self.all(Table::Inode).into_iter().find(|(other, _)| *other == key).unwrap().1;
        let mut inode: Inode = rmp_serde::from_slice(&value[5..]).unwrap();
        change(&mut inode);
        self.put_whole(Table::Inode, &key, [&value[..5], &encode(&inode)].concat());
    }

    /// Old values of a table of the first base: the record's own key, its end, and the value.
    fn old(&self, table: Table) -> Vec<(Vec<u8>, u32, Vec<u8>)> {
        let all = self.all(Table::Preimage).into_iter().filter(|(key, _)| key[..5] == [0, 0, 0, 0, table as u8]);
        let parts = |(key, value): Pair| {
            let (rest, end) = key[5..].split_last_chunk::<4>().unwrap();
            ([&key[..4], rest].concat(), u32::from_be_bytes(*end), value)
        };
        all.map(parts).collect()
    }

    fn put_old(&self, table: Table, key: &[u8], end: u32, value: Option<Vec<u8>>) {
        let (end, number) = (end.to_be_bytes(), [table as u8]);
        let preimage = [&key[..4], &number, &key[4..], &end].concat();
        let increment = [&key[..4], &end, &number, &key[4..]].concat();
        self.change(|overlay| match value {
            Some(value) => {
                overlay.put(Table::Preimage, &preimage, value);
                overlay.put(Table::Increment, &increment, Vec::new());
            }
            None => {
                overlay.remove(Table::Preimage, &preimage);
                overlay.remove(Table::Increment, &increment);
            }
        });
    }

    fn change_base(&self, name: &str, change: impl FnOnce(BaseId, &mut BaseRecord)) {
        for (key, value) in self.all(Table::Base) {
            let mut record: BaseRecord = rmp_serde::from_slice(&value).unwrap();
            if record.name == name {
                change(BaseId::of_key(&key).unwrap(), &mut record);
                return self.put_whole(Table::Base, &key, encode(&record));
            }
        }
        panic!("there is no base {name}");
    }

    /// An epoch of the past of which there is no snapshot.
    fn free_epoch(&self) -> u32 {
        let taken: Vec<u32> =
            self.all(Table::Snapshot).iter().map(|(key, _)| u32::from_be_bytes(key[4..].try_into().unwrap())).collect();
        (1..self.epoch()).find(|epoch| !taken.contains(epoch)).unwrap()
    }

    fn change_segment(&self, change: impl FnOnce(&mut Descriptor)) {
        let (key, value) = self.all(Table::Segment).remove(0);
        let mut descriptor: Descriptor = rmp_serde::from_slice(&value).unwrap();
        change(&mut descriptor);
        self.put_whole(Table::Segment, &key, encode(&descriptor));
    }

    fn change_map(&self, change: impl FnOnce(&mut [u8])) {
        let (key, value) = self.all(Table::Volume).remove(0);
        let mut map: ByteBuf = rmp_serde::from_slice(&value).unwrap();
        change(&mut map);
        self.put_whole(Table::Volume, &key, encode(&map));
    }
}

fn inode_key(number: InodeNo) -> Vec<u8> {
    number.prefix().to_vec()
}

fn with_birth(birth: u32, value: &[u8]) -> Vec<u8> {
    [&value[..1], &birth.to_be_bytes(), &value[5..]].concat()
}

fn birth_of(value: &[u8]) -> u32 {
    u32::from_be_bytes(value[1..5].try_into().unwrap())
}

/// A store with snapshots, of which one was deleted and one deactivated, an archive, a base that was restored, a clone
/// that looks through to what it is of, a mirror, and files that went, with their names.
fn sample() -> Mounted {
    let mounted = Mounted::unmounted();
    let source = mounted.dir.path().join("source");
    let archive = mounted.dir.path().join("archive");
    fs::create_dir_all(source.join("directory/sub/deep")).unwrap();
    let put = |name: &str, seed: u8, len: usize| {
        let bytes: Vec<u8> = (0..len).map(|i| (i * i / 7) as u8 ^ seed).collect();
        fs::write(source.join(name), bytes).unwrap();
    };
    let sync = || mounted.ok(["sync", source.to_str().unwrap()]);
    put("file", 1, 60_000);
    put("going", 2, 40_000);
    put("small", 3, 100);
    put("two names", 4, 30_000);
    fs::hard_link(source.join("going"), source.join("directory/going as well")).unwrap();
    fs::hard_link(source.join("two names"), source.join("directory/the other")).unwrap();
    rustix::fs::setxattr(source.join("file"), "user.a", b"value", rustix::fs::XattrFlags::empty()).unwrap();
    sync();
    mounted.ok(["snap", "one"]);
    mounted.ok(["roll", "--name", "rolled", "--archive", archive.to_str().unwrap()]);
    put("file", 5, 70_000);
    put("directory/new", 6, 500);
    fs::remove_file(source.join("going")).unwrap();
    fs::remove_file(source.join("directory/going as well")).unwrap();
    sync();
    mounted.ok(["snap", "two"]);
    put("file", 7, 50_000);
    put("short", 8, 20_000);
    sync();
    mounted.ok(["snap", "three"]);
    mounted.ok(["restore", "two"]);
    mounted.ok(["base", "wait", "live"]);
    put("directory/new", 9, 2500);
    sync();
    mounted.ok(["snap", "four"]);
    mounted.ok(["snap", "five"]);
    mounted.ok(["delete", "three"]);
    mounted.ok(["session", "deactivate", "four"]);
    mounted.ok(["clone", "two", "clone"]);
    mounted.ok_of("clone", &["snap", "of the clone"]);
    mounted.ok(["mirror", "establish", "live", "mirror"]);
    mounted.ok(["base", "wait", "mirror"]);
    mounted.check();
    mounted
}

/// Changes records of a store that is as before, and looks that `check` says all of this.
struct Forger {
    mounted: Mounted,
    whole: Vec<u8>,
}

impl Forger {
    fn new() -> Forger {
        let mounted = sample();
        let whole = fs::read(mounted.store().join("meta.redb")).unwrap();
        Forger { mounted, whole }
    }

    fn says(&self, expected: &[&str], forge: impl FnOnce(&Records)) -> String {
        fs::write(self.mounted.store().join("meta.redb"), &self.whole).unwrap();
        let records = Records::of(&self.mounted.store());
        forge(&records);
        drop(records);
        let said = self.mounted.run(["check"]);
        let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
        assert_eq!(said.status.code(), Some(1), "{expected:?}: {text}");
        for expected in expected {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        text
    }
}

#[test]
fn nothing_is_wrong_with_a_store_in_which_much_was_done() {
    let mounted = sample();
    // While a base shows what it was restored to, and what was deleted goes.
    mounted.ok(["restore", "one"]);
    mounted.check();
    mounted.ok(["base", "wait", "live"]);
    mounted.check();
    mounted.ok(["promote", "clone", "--wait"]);
    mounted.ok(["mirror", "split", "mirror"]);
    mounted.ok(["delete", "five"]);
    mounted.check();
    mounted.ok(["base", "delete", "mirror"]);
    mounted.ok(["archive", "detach"]);
    mounted.ok(["delete", "one", "two"]);
    mounted.check();
}

#[test]
fn a_record_of_an_epoch_to_come_is_named() {
    let forger = Forger::new();
    for table in [Table::Inode, Table::Dirent, Table::Track, Table::Xattr, Table::Link] {
        forger.says(&["is said to be born in epoch 4000, and the store has come to"], |records| {
            let (key, value) = records.all(table).into_iter().rfind(|(key, _)| key[..4] == [0; 4]).unwrap();
            records.put_whole(table, &key, with_birth(4000, &value));
        });
    }
}

#[test]
fn an_old_value_that_was_there_for_no_time_is_named() {
    let forger = Forger::new();
    // An xattr is part of nothing else.
    let of_xattr = |records: &Records, birth: u32, end: u32| {
        let (key, value) = records.all(Table::Xattr).into_iter().find(|(key, _)| key[..4] == [0; 4]).unwrap();
        records.put_old(Table::Xattr, &key, end, Some(with_birth(birth, &value)));
    };
    for (birth, end) in [(1, 1), (2, 1)] {
        let expected = format!("is said to be born in epoch {birth} and to end in epoch {end}");
        forger.says(&["an old value of", &expected, "1 problem\n"], |records| of_xattr(records, birth, end));
    }
    for birth in [1, 3000] {
        // Opening the store says that one cannot be as well.
        let expected = ["an old value of", "is said to end in epoch 4000, and the store has come to", "2 problems\n"];
        forger.says(&expected, |records| of_xattr(records, birth, 4000));
    }
}

/// One that makes no sense is named, and hides nothing of what is wrong elsewhere.
#[test]
fn keys_that_are_too_short_are_named() {
    let forger = Forger::new();
    let expected = ["its key is that of no entry", "its key names no base", "2 problems\n"];
    forger.says(&expected, |records| {
        let (_, value, _) = records.entry("file");
        records.put_whole(Table::Dirent, &[1, 2], value);
        records.put_whole(Table::Name, &[1], encode(&1u32));
    });
    // In whatever table it is, what is wrong elsewhere is named as well.
    for table in Table::ALL {
        let text = forger.says(&["record 0102 of table dirent is damaged: its key is that of no entry"], |records| {
            let (_, value, _) = records.entry("file");
            records.put_whole(Table::Dirent, &[1, 2], value.clone());
            records.put_whole(table, &[3], value);
        });
        assert!(table == Table::State || !text.ends_with(" 1 problem\n"), "{}: {text}", table.name());
    }
}

#[test]
fn an_old_entry_that_leads_elsewhere_is_named() {
    let forger = Forger::new();
    for (is_missing, name, path) in [
        (true, "going", "damaged: one/going\n"),
        (false, "going", "damaged: one/going\n"),
        (true, "going as well", "damaged: one/directory/going as well\n"),
    ] {
        let expected = [&format!("entry \"{name}\" of directory"), "in snapshot \"one\"", path, "1 problem\n"];
        forger.says(&expected, |records| {
            let mut old = records.old(Table::Dirent).into_iter();
            let (key, end, value) = old.find(|(key, _, _)| &key[20..] == name.as_bytes()).unwrap();
            let other = if is_missing { NOTHING } else { records.entry("directory").2 };
            records.put_old(Table::Dirent, &key, end, Some([&value[..5], &encode(&(other, 8u8))].concat()));
        });
    }
}

#[test]
fn an_old_value_of_an_inode_that_is_missing_is_named() {
    let forger = Forger::new();
    // Of a file that is gone now, both names are.
    let expected = ["damaged: one/going\n", "damaged: one/directory/going as well\n", "2 problems\n"];
    forger.says(&expected, |records| {
        let number = records.old(Table::Dirent).into_iter().find(|(key, _, _)| &key[20..] == b"going").unwrap().2;
        let (number, _): (InodeNo, u8) = rmp_serde::from_slice(&number[5..]).unwrap();
        let old: Vec<_> =
            records.old(Table::Inode).into_iter().filter(|(key, _, _)| *key == inode_key(number)).collect();
        assert!(!old.is_empty());
        old.iter().for_each(|(key, end, _)| records.put_old(Table::Inode, key, *end, None));
    });
    // And of one that is there now, under its one name, in the only snapshot that has lost it.
    let expected = ["entry \"file\" of directory 2 in snapshot \"one\"", "damaged: one/file\n", "1 problem\n"];
    forger.says(&expected, |records| {
        let number = records.entry("file").2;
        let (key, end, _) =
            records.old(Table::Inode).into_iter().find(|(key, _, _)| *key == inode_key(number)).unwrap();
        records.put_old(Table::Inode, &key, end, None);
    });
    // Where it was born anew, and the old value is not kept.
    let expected = ["entry \"small\" of directory 2 in snapshot \"one\"", "damaged: one/small\n"];
    forger.says(&expected, |records| {
        let key = inode_key(records.entry("small").2);
        let value = records.all(Table::Inode).into_iter().find(|(other, _)| *other == key).unwrap().1;
        assert_eq!(birth_of(&value), 1);
        records.put_whole(Table::Inode, &key, with_birth(records.epoch(), &value));
    });
}

#[test]
fn a_file_that_is_shorter_than_its_tracks_is_named() {
    let forger = Forger::new();
    let expected = [&format!("it is {TRACK_BYTES} bytes long, and has track"), "damaged: live/file\n", "1 problem\n"];
    forger.says(&expected, |records| {
        let number = records.entry("file").2;
        records.change_inode(number, |inode| inode.size = TRACK_BYTES);
    });
    forger.says(&["there is no such inode, and it has track 3", &format!("inode {NOTHING}")], |records| {
        let (_, value) = records.all(Table::Track).remove(0);
        records.put_whole(Table::Track, &[&inode_key(NOTHING)[..], &3u64.to_be_bytes()].concat(), value);
    });
}

#[test]
fn an_inode_without_links_that_has_a_name_is_named() {
    let forger = Forger::new();
    for (name, path) in [("small", "live/small"), ("two names", "live/two names")] {
        forger.says(&["it counts no links, and has", &format!("damaged: {path}\n"), "1 problem\n"], |records| {
            let number = records.entry(name).2;
            records.change_inode(number, |inode| inode.links = 0);
        });
    }
}

#[test]
fn a_base_that_shows_what_is_not_there_is_named() {
    let forger = Forger::new();
    for (expected, forge) in [
        ("the base \"clone\" (record 00000001 of table base): what it shows is that of epoch", 0),
        ("of base 500, which is not there: there is no such base", 1),
        ("there is no such snapshot", 0),
    ] {
        forger.says(&[expected], |records| {
            records.change_base("clone", |_, record| match forge {
                0 => record.eras[0].source.epoch = Epoch::new(records.free_epoch()),
                _ => record.eras[0].source.base = BaseId::new(500),
            });
        });
    }
}

#[test]
fn a_mirror_of_nothing_is_named() {
    let forger = Forger::new();
    forger.says(&["the base \"mirror\"", "it is a mirror of base 500, which is not there"], |records| {
        records.change_base("mirror", |_, record| record.mirror.as_mut().unwrap().of = BaseId::new(500));
    });
    forger.says(&["as a mirror it was the same as \"live\"", "there is no such snapshot", "1 problem\n"], |records| {
        let same = |record: &mut BaseRecord, epoch| {
            record.mirror.as_mut().unwrap().same.as_mut().unwrap().of.epoch = epoch;
        };
        records.change_base("mirror", |_, record| same(record, Epoch::new(records.free_epoch())));
    });
    forger.says(&["as a mirror it was the same as \"live\"", "the snapshot there is another one"], |records| {
        records.change_base("mirror", |_, record| {
            record.mirror.as_mut().unwrap().same.as_mut().unwrap().of.id = pitfs::id::Id::random();
        });
    });
}

#[test]
fn a_clone_of_itself_and_two_bases_of_one_name_are_named() {
    let forger = Forger::new();
    forger.says(&["it is said to be a clone of itself", "1 problem\n"], |records| {
        records.change_base("clone", |id, record| record.clone_of.as_mut().unwrap().base = id);
    });
    for name in ["live", "clone"] {
        forger.says(&[&format!("the base {name:?}"), "has the same name", "1 problem\n"], |records| {
            records.change_base("mirror", |_, record| record.name = name.into());
        });
    }
}

#[test]
fn a_name_that_leads_to_no_snapshot_or_another_is_named() {
    let forger = Forger::new();
    let name = |name: &str| [&0u32.to_be_bytes()[..], name.as_bytes()].concat();
    let expected = "the name \"ghost\" of a snapshot of \"live\" leads to epoch 999, of which there is no snapshot";
    forger.says(&[expected, "1 problem\n"], |records| records.put_whole(Table::Name, &name("ghost"), encode(&999u32)));
    forger.says(&["the name \"one\" of a snapshot of \"live\" leads to a snapshot named \"five\""], |records| {
        let (_, epoch) = records.all(Table::Name).into_iter().find(|(key, _)| *key == name("five")).unwrap();
        records.put_whole(Table::Name, &name("one"), epoch);
    });
    forger.says(&["of base 500, which is not there leads to epoch 1"], |records| {
        records.put_whole(Table::Name, &[&500u32.to_be_bytes()[..], b"one"].concat(), encode(&1u32));
    });
}

#[test]
fn segments_lie_where_the_map_of_room_says() {
    let forger = Forger::new();
    forger.says(&["is said to lie at the beginning of the volume, where its label is"], |records| {
        records.change_segment(|segment| segment.members[0].psegs[3] = 0);
    });
    forger.says(&["is said to lie in volume 7, which is not there"], |records| {
        records.change_segment(|segment| segment.members[0].volume = 7);
    });
    forger.says(&["segment 1 is said to lie at 5", "which the map of room has as free", "2 problems\n"], |records| {
        records.change_segment(|segment| assert!(segment.members[0].psegs.contains(&5)));
        records.change_map(|map| map[0] &= !(1 << 5));
    });
    let lost =
        "2 physical segments of the volume, of which the first is 81, are marked as taken, and no segment lies there";
    forger.says(&[lost, "1 problem\n"], |records| records.change_map(|map| map[10] |= 0b1010));
    forger.says(&["has the beginning of the volume as free, where its label is", "2 problems\n"], |records| {
        records.change_map(|map| map[0] &= !1);
    });
}

#[test]
fn directories_in_each_other_are_named_once() {
    let forger = Forger::new();
    let put_into = |records: &Records, name: &str, to: InodeNo| {
        let (from, value, number) = records.entry(name);
        records.change(|overlay| {
            overlay.remove(Table::Dirent, &records.key_in(from, name.as_bytes()));
            overlay.put(Table::Dirent, &records.key_in(to, name.as_bytes()), with_birth(records.epoch(), &value));
        });
        for (directory, change) in [(from, -1i32), (to, 1)] {
            records.change_inode(directory, |inode| {
                (inode.links, inode.size) =
                    (inode.links.wrapping_add_signed(change), inode.size.wrapping_add_signed(change.into()));
            });
        }
        records.change_inode(number, |inode| inode.parent = to);
    };
    // `directory` has `sub`, which has `deep`, which has `directory`.
    let text = forger.says(&["are in each other: no way leads to them from the root"], |records| {
        let deep = records.entry("deep").2;
        let numbers = [records.entry("directory").2, records.entry("sub").2, deep];
        assert!(numbers.iter().all(|number| *number != ROOT));
        put_into(records, "directory", deep);
    });
    assert_eq!(text.matches("in each other").count(), 1, "{text}");
    forger.says(&["is in itself: no way leads to it from the root"], |records| {
        put_into(records, "deep", records.entry("deep").2);
    });
    // One that has a name in two directories, each of which counts it.
    forger.says(&["it is a directory and has 2 names"], |records| {
        let (_, value, _) = records.entry("deep");
        records.put_whole(Table::Dirent, &records.key_in(ROOT, b"deep"), with_birth(records.epoch(), &value));
        records.change_inode(ROOT, |inode| (inode.links, inode.size) = (inode.links + 1, inode.size + 1));
    });
}

/// As many problems as are listed, of files that lie so deep that their paths take gigabytes.
#[test]
fn very_many_problems_with_long_paths_take_little_memory() {
    const DEPTH: usize = 1000;
    const FILES: usize = 10_050;
    let mounted = Mounted::unmounted();
    {
        let tree = Tree::open(Arc::new(DiskDir::open(&mounted.store()).unwrap())).unwrap();
        let caller = Caller { uid: 0, gid: 0, umask: 0 };
        let new = |kind| New { kind, permissions: 0o755, rdev: 0, target: b"" };
        let mut directory = ROOT;
        for _ in 0..DEPTH {
            directory = tree.names().make(caller, directory, &[b'd'; 255], new(Kind::Directory)).unwrap().0;
        }
        for number in 0..FILES {
            tree.names().make(caller, directory, format!("{number}").as_bytes(), new(Kind::File)).unwrap();
        }
        tree.commit().unwrap();
        tree.device().close().unwrap();
    }
    let records = Records::of(&mounted.store());
    records.change(|overlay| {
        for (key, value) in records.all(Table::Inode).into_iter().rev().take(FILES) {
            let inode: Inode = rmp_serde::from_slice(&value[5..]).unwrap();
            overlay.put(Table::Inode, &key, [&value[..5], &encode(&Inode { links: 7, ..inode })].concat());
        }
    });
    drop(records);
    let bounded = |args: &str| {
        let mut command = Command::new("sh");
        let script = format!("ulimit -v 1000000; exec {PITFS} {args}");
        let output = command.args(["-c", &script]).env("PITFS_STORE", mounted.store()).stderr(Stdio::piped());
        let output = output.output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(1), "{}", text.chars().take(2000).collect::<String>());
        text
    };
    let text = bounded("check");
    assert!(text.len() < 30 << 20, "{} bytes", text.len());
    assert!(text.contains("damaged: live/ddd"));
    assert!(text.contains("50 problems more: only so many are listed\n"), "{}", &text[text.len() - 1000..]);
    assert!(text.contains("problems are listed without some or all of the files"), "{}", &text[text.len() - 1000..]);
    assert!(text.contains(&format!("{FILES} problems\n")), "{}", &text[text.len() - 1000..]);
    let json: serde_json::Value = serde_json::from_str(&bounded("check --json")).unwrap();
    assert_eq!(json["more_problems"], 50);
    let problems = json["problems"].as_array().unwrap();
    let without = problems.iter().filter(|problem| problem["more_paths"] == true).count();
    assert_eq!(json["problems_without_paths"], without);
    assert!((9_000..10_000).contains(&without), "{without}");
    assert_eq!(problems[0]["more_paths"], false);
}
