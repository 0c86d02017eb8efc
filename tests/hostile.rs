//! What somebody prepared, with right checksums: it is damage, said with the place where it is, and never used.

mod mounted;

use mounted::*;
use pitfs::device::{InodeNo, LIVE};
use pitfs::error::Error;
use pitfs::media::DiskDir;
use pitfs::meta::{Overlay, Pair, Table, encode};
use pitfs::tree::{Inode, ROOT, Tree};
use serde_bytes::ByteBuf;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What nothing can be called.
fn impossible() -> Vec<Vec<u8>> {
    let all: [&[u8]; 8] = [b"", b".", b"..", b"../beside", b"/absolute", b"a/b", b"a\0b", &[b'x'; 256]];
    all.map(<[u8]>::to_vec).to_vec()
}

/// A store with a file in its root and one in a directory, and a snapshot of both.
fn sample() -> Mounted {
    let mounted = Mounted::unmounted();
    let source = mounted.dir.path().join("source");
    fs::create_dir_all(source.join("directory")).unwrap();
    fs::write(source.join("file"), "content").unwrap();
    fs::write(source.join("directory/other"), "content").unwrap();
    mounted.ok(["sync", source.to_str().unwrap()]);
    mounted.ok(["snap", "one"]);
    mounted
}

fn mkfifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// What lies beside the directory to which something was restored.
fn beside(mounted: &Mounted) -> Vec<String> {
    let names = fs::read_dir(mounted.dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// `check` says it, nothing is written outside of what `restore` was given, and what else there is stays.
fn is_damage(mounted: &Mounted, what: &str) {
    let said = mounted.run(["check"]);
    let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert_eq!(said.status.code(), Some(1), "{what}: {text}");
    assert!(text.contains("damaged") && !text.contains("panicked"), "{what}: {text}");
    let to = mounted.dir.path().join("to");
    for snapshot in ["live", "one"] {
        let said = mounted.run(["restore", snapshot, "--to", to.to_str().unwrap()]);
        assert!(!String::from_utf8_lossy(&said.stderr).contains("panicked"), "{what}");
        let below = mounted.run(["restore", snapshot, "directory", "--to", to.to_str().unwrap()]);
        assert!(!String::from_utf8_lossy(&below.stderr).contains("panicked"), "{what}");
        let _there_may_be_none = fs::remove_dir_all(&to);
    }
    assert_eq!(beside(mounted), ["snap", "source", "store"], "{what}: made outside");
}

#[test]
fn an_entry_with_a_name_that_cannot_be_is_damage() {
    let mounted = sample();
    let whole = fs::read(mounted.store().join("meta.redb")).unwrap();
    let misplaced = [(b"misplaced".to_vec(), true)];
    for (name, is_misplaced) in impossible().into_iter().map(|name| (name, false)).chain(misplaced) {
        let shown = name.escape_ascii().to_string();
        fs::write(mounted.store().join("meta.redb"), &whole).unwrap();
        Records::of(&mounted.store()).add_entry(&name, is_misplaced);
        is_damage(&mounted, &shown);
        let tree = Tree::open(Arc::new(DiskDir::open(&mounted.store()).unwrap())).unwrap();
        let mut seen = Vec::new();
        let listed = tree.names().list(ROOT.live(), 0, |entry| {
            seen.push(entry.name.clone());
            Ok(true)
        });
        assert!(matches!(listed, Err(Error::Corrupt { .. })), "{shown}: {listed:?}");
        assert!(!seen.contains(&name), "{shown} was listed");
        assert!(tree.names().lookup(ROOT.live(), &name).is_err(), "{shown} was found");
        // An empty path, and one of a dot, is the root's.
        let is_root = matches!(name.as_slice(), b"" | b".");
        assert!(is_root || tree.comparison().versions(LIVE, &name).is_err(), "{shown} has versions");
        assert!(tree.names().lookup(ROOT.live(), b"file").is_ok(), "what else there is stays");
    }
}

/// Work that somebody put there deletes nothing that is not noted as going, and nothing that something needs.
#[test]
fn nothing_goes_because_of_work_that_its_record_knows_nothing_of() {
    let mounted = sample();
    mounted.ok(["clone", "one", "clone"]);
    mounted.ok(["base", "create", "second"]);
    mounted.ok_of("second", &["snap", "other"]);
    let whole = fs::read(mounted.store().join("meta.redb")).unwrap();
    let records = Records::of(&mounted.store());
    let (key, _) = records.all(Table::Snapshot).remove(0);
    let epoch = u64::from(u32::from_be_bytes(key[4..].try_into().unwrap()));
    let bases = records.all(Table::Base);
    let second = bases.iter().find(|(_, value)| value.windows(6).any(|name| name == b"second")).unwrap().0.clone();
    drop(records);
    let work = |base: &[u8], kind: u8, number: u64| [base, &[kind], &number.to_be_bytes()].concat();
    let first = [0; 4];
    for (table, key, value) in [
        (Table::Orphan, work(&first, 6, 0), encode(&())),
        (Table::Orphan, work(&second, 6, 0), encode(&())),
        (Table::Orphan, work(&first, 1, epoch), encode(&ByteBuf::new())),
        (Table::State, [&b"filling"[..], &first].concat(), encode(&())),
        (Table::State, [&b"filling"[..], &second].concat(), encode(&())),
    ] {
        fs::write(mounted.store().join("meta.redb"), &whole).unwrap();
        let records = Records::of(&mounted.store());
        let mut overlay = Overlay::default();
        overlay.put(table, &key, value);
        records.kv.commit(&overlay).unwrap();
        drop(records);
        let what = key.escape_ascii().to_string();
        let (status, text) = ends(&mounted, &["check"]);
        assert!(status != 0 && text.contains("damaged"), "{what}: {text}");
        ends(&mounted, &["snap", "new"]);
        let to = mounted.dir.path().join("to");
        // What is being filled has nothing to show.
        let is_filling = |base| base == "second" && key.starts_with(b"filling") && key.ends_with(&second);
        let all = [("live", "one"), ("live", "live"), ("second", "other"), ("clone", "live")];
        for (base, snapshot) in all.into_iter().filter(|(base, _)| !is_filling(*base)) {
            let args = ["restore", snapshot, "--to", to.to_str().unwrap()];
            mounted.ok_of(base, &args);
            fs::remove_dir_all(&to).unwrap();
        }
    }
}

/// Of records that share what lies at a place, each is looked at.
#[test]
fn a_shared_track_of_which_one_record_says_another_thing_is_damage() {
    let mounted = Mounted::unmounted();
    let source = mounted.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), (0..50_000u64).map(|i| (i * i / 7) as u8).collect::<Vec<_>>()).unwrap();
    mounted.ok(["sync", source.to_str().unwrap()]);
    mounted.ok(["snap", "one"]);
    mounted.ok(["clone", "--full", "--wait", "one", "full"]);
    mounted.ok(["check"]);
    let records = Records::of(&mounted.store());
    let tracks = records.all(Table::Track);
    let shares = |(key, value): &&Pair| tracks.iter().any(|(other, of)| other < key && of[5..] == value[5..]);
    let (key, value) = tracks.iter().find(shares).expect("a clone shares what it was made of");
    // The checksum is the last of it.
    let mut changed = value.clone();
    *changed.last_mut().unwrap() ^= 1;
    let mut overlay = Overlay::default();
    overlay.put(Table::Track, key, changed);
    records.kv.commit(&overlay).unwrap();
    drop(records);
    let (status, text) = ends(&mounted, &["check"]);
    assert!(status == 1 && text.contains("another thing") && text.contains("file"), "{text}");
}

/// One inode that makes no sense keeps nobody from what else is in its directory.
#[test]
fn an_inode_that_cannot_be_read_is_listed_with_the_others() {
    if !can_mount() {
        return;
    }
    let mounted = sample();
    let records = Records::of(&mounted.store());
    let (key, value, _) = records.file();
    records.put(Table::Inode, &key, &value[..5], &"nothing of an inode");
    drop(records);
    mounted.mount(&[]);
    // The last file that was made is the one in the directory.
    let directory = mounted.live().join("directory");
    for _ in 0..2 {
        let entries: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(entries.iter().map(fs::DirEntry::file_name).collect::<Vec<_>>(), ["other"]);
        assert!(entries[0].file_type().unwrap().is_file());
        // `ls -l` asks for attributes, which the listing brings.
        let listed = Command::new("ls").arg("-l").arg(&directory).output().unwrap();
        assert!(!listed.status.success() && String::from_utf8_lossy(&listed.stdout).contains("other"), "{listed:?}");
        assert!(fs::read(directory.join("other")).is_err());
        fs::write(directory.join("new"), "new").unwrap();
        fs::remove_file(directory.join("new")).unwrap();
    }
}

/// A snapshot shows the old values of entries.
#[test]
fn an_old_entry_with_a_name_that_cannot_be_is_damage() {
    let mounted = sample();
    fs::remove_file(mounted.dir.path().join("source/file")).unwrap();
    mounted.ok(["sync", mounted.dir.path().join("source").to_str().unwrap()]);
    let whole = fs::read(mounted.store().join("meta.redb")).unwrap();
    for name in impossible() {
        fs::write(mounted.store().join("meta.redb"), &whole).unwrap();
        let records = Records::of(&mounted.store());
        let is_entry = |(key, value): &Pair| key[4] == Table::Dirent as u8 && value.len() > 5;
        let (key, value) = records.all(Table::Preimage).into_iter().find(is_entry).unwrap();
        let entry = records.entry_key(&name, false);
        let end = &key[key.len() - 4..];
        let mut overlay = Overlay::default();
        overlay.put(Table::Preimage, &[&entry[..4], &[Table::Dirent as u8], &entry[4..], end].concat(), value);
        overlay.put(Table::Increment, &[&entry[..4], end, &[Table::Dirent as u8], &entry[4..]].concat(), Vec::new());
        records.kv.commit(&overlay).unwrap();
        drop(records);
        is_damage(&mounted, &name.escape_ascii().to_string());
    }
}

/// An inode has one of its names in its record, further ones beside.
#[test]
fn an_inode_that_says_to_have_such_a_name_is_damaged() {
    let mounted = sample();
    let whole = fs::read(mounted.store().join("meta.redb")).unwrap();
    for name in impossible() {
        let shown = name.escape_ascii().to_string();
        for is_further in [false, true] {
            fs::write(mounted.store().join("meta.redb"), &whole).unwrap();
            let records = Records::of(&mounted.store());
            let (key, value, inode) = records.file();
            match is_further {
                true => {
                    let link = [&key[..], &ROOT.number().to_be_bytes(), &name].concat();
                    records.put(Table::Link, &link, &value[..5], &());
                }
                // Without a name it is an inode that has none yet.
                false if name.is_empty() => continue,
                false => {
                    records.put(Table::Inode, &key, &value[..5], &Inode { name: ByteBuf::from(name.clone()), ..inode })
                }
            }
            drop(records);
            is_damage(&mounted, &shown);
        }
    }
}

/// Snapshots, bases and sessions: what they are called becomes the name of a directory.
#[test]
fn a_snapshot_base_or_session_with_such_a_name_is_damaged() {
    let mounted = sample();
    mounted.ok(["base", "create", "second"]);
    mounted.ok(["session", "register", "planned"]);
    let whole = fs::read(mounted.store().join("meta.redb")).unwrap();
    let texts = impossible().into_iter().map(|name| String::from_utf8(name).unwrap());
    for name in texts.chain([".snap".to_string(), ".snapshots".to_string(), "@now".to_string()]) {
        for (table, was) in [(Table::Snapshot, "one"), (Table::Base, "second"), (Table::Session, "planned")] {
            fs::write(mounted.store().join("meta.redb"), &whole).unwrap();
            let records = Records::of(&mounted.store());
            let mut overlay = Overlay::default();
            for (key, value) in records.all(table) {
                if table == Table::Session {
                    overlay.remove(table, &key);
                    overlay.put(table, name.as_bytes(), value);
                } else if let Some(at) = value.windows(was.len()).position(|piece| piece == was.as_bytes()) {
                    // The first field of an array, as MessagePack has texts.
                    let rest = &value[at + was.len()..];
                    overlay.put(table, &key, [&value[..1], &encode(&name), rest].concat());
                }
            }
            assert!(!overlay.is_empty());
            records.kv.commit(&overlay).unwrap();
            drop(records);
            let listed = match table {
                Table::Session => mounted.run(["session", "list"]),
                _ => mounted.run(["list"]),
            };
            let text = String::from_utf8_lossy(&listed.stderr).into_owned();
            // The others can be looked into.
            let status = if table == Table::Session { 1 } else { 0 };
            assert_eq!(listed.status.code(), Some(status), "{table:?} {name:?}: {text}");
            assert!(text.contains("damaged") && !text.contains("panicked"), "{table:?} {name:?}: {text}");
            let said = mounted.run(["check"]);
            let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
            assert_eq!(said.status.code(), Some(1), "{table:?} {name:?}: {text}");
            assert!(
                text.contains("nothing can have its name") || table == Table::Session,
                "{table:?} {name:?}: {text}"
            );
        }
    }
}

type Make<'a> = &'a dyn Fn(&Path);

/// Pipes, sockets, links and directories where an archive has files: none is waited for, followed or believed.
#[test]
fn what_is_no_file_in_an_archive_is_refused_at_once() {
    let mounted = sample();
    let archive = mounted.dir.path().join("archive");
    fs::create_dir(&archive).unwrap();
    mounted.ok(["roll", "--archive", archive.to_str().unwrap()]);
    fs::write(mounted.dir.path().join("source/file"), "other content").unwrap();
    mounted.ok(["sync", mounted.dir.path().join("source").to_str().unwrap()]);
    mounted.ok(["roll"]);
    let increments = || -> Vec<PathBuf> {
        let all = fs::read_dir(&archive).unwrap().map(|entry| entry.unwrap().path());
        all.filter(|path| path.extension().is_some_and(|end| end == "increment")).collect()
    };
    let genuine = increments().pop().unwrap();
    let elsewhere = mounted.dir.path().join("elsewhere");
    fs::write(&elsewhere, "nobody's").unwrap();
    let kinds: [(&str, Make<'_>); 4] = [
        ("pipe", &|path| mkfifo(path)),
        ("socket", &|path| drop(UnixListener::bind(path).unwrap())),
        ("link", &|path| symlink(&elsewhere, path).unwrap()),
        ("directory", &|path| fs::create_dir(path).unwrap()),
    ];
    for (kind, make) in kinds {
        let remove = |path: &Path| match kind {
            "directory" => fs::remove_dir(path).unwrap(),
            _ => fs::remove_file(path).unwrap(),
        };
        let odd = archive.join("0000000009-x.increment");
        make(&odd);
        let (_, text) = ends(&mounted, &["archive", "list"]);
        assert!(text.contains("0000000009-x.increment"), "{kind}: {text}");
        let (status, text) = ends(&mounted, &["list"]);
        assert_eq!(status, 0, "{kind}: {text}");
        remove(&odd);
        // In the place of the index, which is made anew.
        let index = archive.join("index");
        fs::remove_file(&index).unwrap();
        make(&index);
        let (status, text) = ends(&mounted, &["list", "--all"]);
        assert_eq!(status, 0, "{kind}: {text}");
        assert!(index.symlink_metadata().unwrap().is_file(), "{kind}");
        assert_eq!(fs::read(&elsewhere).unwrap(), b"nobody's", "{kind}");
        // In the place of one that was there: it is not found, and the others are.
        let kept = fs::read(&genuine).unwrap();
        fs::remove_file(&genuine).unwrap();
        make(&genuine);
        let (status, text) = ends(&mounted, &["list"]);
        assert_eq!(status, 0, "{kind}: {text}");
        remove(&genuine);
        fs::write(&genuine, kept).unwrap();
        // In the place of the label, without which it is no archive.
        let label = archive.join("archive");
        let kept = fs::read(&label).unwrap();
        fs::remove_file(&label).unwrap();
        make(&label);
        let (_, text) = ends(&mounted, &["list"]);
        assert!(text.contains("archive"), "{kind}: {text}");
        remove(&label);
        fs::write(&label, kept).unwrap();
    }
    assert_eq!(ends(&mounted, &["archive", "verify"]).0, 0);
}

/// What a panic ends is undone, or the store changes nothing more.
#[test]
fn a_panic_in_the_middle_of_a_change_stops_the_store() {
    let mounted = sample();
    let tree = Tree::open(Arc::new(DiskDir::open(&mounted.store()).unwrap())).unwrap();
    let fault = |change: &dyn Fn()| pitfs::fault::contained(change).unwrap_err();
    fault(&|| {
        let _txn = tree.device().begin().unwrap();
        panic!("before anything was changed");
    });
    fault(&|| {
        let _look = tree.device().look().unwrap();
        panic!("while looking");
    });
    let failed = tree.device().committer().unwrap().change(|_| -> pitfs::error::Result<()> { panic!("a command") });
    assert!(matches!(failed, Err(Error::Fault(_))));
    tree.device().check_running().unwrap();
    tree.commit().unwrap();
    fault(&|| {
        let mut txn = tree.device().begin().unwrap();
        txn.meta_mut().put(Table::State, b"half", &1u8);
        panic!("in the middle");
    });
    assert!(matches!(tree.device().check_running(), Err(Error::Stopped(_))));
    assert_eq!(tree.device().look().unwrap().meta().get::<u8>(Table::State, b"half").unwrap(), None);
    assert!(tree.names().lookup(ROOT.live(), b"file").is_ok(), "what is there can be read");
}

/// Work on what no inode and no epoch is would be looked for again and again.
#[test]
fn work_with_a_number_that_nothing_has_is_damage() {
    for (kind, number) in [(0u8, 1u64 << 40), (0, u64::MAX), (1, u64::MAX), (1, u32::MAX.into())] {
        let mounted = sample();
        {
            let records = Records::of(&mounted.store());
            let key = [&0u32.to_be_bytes()[..], &[kind], &number.to_be_bytes()].concat();
            records.put(Table::Orphan, &key, &[], &ByteBuf::new());
        }
        for args in [&["list"][..], &["status"], &["check"]] {
            ends(&mounted, args);
        }
    }
}

/// An inode that no file can be, and one that cannot be read, cost no other file of the directory.
#[test]
fn what_one_name_leads_to_costs_no_other_name() {
    let change: [fn(&mut Inode); 3] =
        [|inode| inode.size = u64::MAX, |inode| inode.size = 1 << 62, |inode| inode.size = 1 << 63];
    for change in change {
        let mounted = sample();
        let source = mounted.dir.path().join("source");
        (0..20).for_each(|i| fs::write(source.join(format!("beside {i}")), "1").unwrap());
        mounted.ok(["sync", source.to_str().unwrap()]);
        {
            let records = Records::of(&mounted.store());
            let (key, value, mut inode) = records.file();
            change(&mut inode);
            records.put(Table::Inode, &key, &value[..5], &inode);
        }
        assert_eq!(ends(&mounted, &["check"]).0, 1);
        let to = mounted.dir.path().join("to");
        let (status, said) = ends(&mounted, &["restore", "live", "--to", to.to_str().unwrap()]);
        assert!(status == 1 && said.contains("damaged"), "{said}");
        let found = fs::read_dir(&to).unwrap().count() + fs::read_dir(to.join("directory")).unwrap().count();
        // All but one of the root's files, the directory and the one in it.
        assert_eq!(found, 22, "{said}");
        ends(&mounted, &["restore", "live", "--dry-run", "--to", mounted.dir.path().join("other").to_str().unwrap()]);
    }
}

/// A directory that is found in itself is walked through once.
#[test]
fn a_directory_that_contains_itself_ends() {
    let mounted = sample();
    {
        let records = Records::of(&mounted.store());
        let directory = records.all(Table::Inode).into_iter().find_map(|(key, value)| {
            let inode: Inode = rmp_serde::from_slice(&value[5..]).ok()?;
            let number = InodeNo::of_key(&key).unwrap();
            (inode.mode >> 12 == 4 && number != ROOT).then_some((number, value[..5].to_vec()))
        });
        let (number, birth) = directory.unwrap();
        let hash = xxh3_64_with_seed(b"loop", records.seed) >> 1;
        let key = [&number.prefix()[..], &hash.to_be_bytes(), b"loop"].concat();
        records.put(Table::Dirent, &key, &birth, &(number, 4u8));
        records.put(Table::Dirent, &records.entry_key(b"self", false), &birth, &(ROOT, 4u8));
    }
    let to = mounted.dir.path().join("to");
    let (status, said) = ends(&mounted, &["restore", "live", "--to", to.to_str().unwrap()]);
    assert!(status == 1 && said.contains("contains itself"), "{said}");
    assert_eq!(fs::read(to.join("directory/other")).unwrap(), b"content");
    let other = mounted.dir.path().join("other");
    let (_, said) = ends(&mounted, &["restore", "live", "--dry-run", "--to", other.to_str().unwrap()]);
    assert!(said.contains("contains itself"), "{said}");
}

/// Snapshots that somebody prepared in any number cost each what one costs.
#[test]
fn thirty_thousand_snapshots_cost_what_each_costs() {
    const SNAPSHOTS: u32 = 30_000;
    for is_deactivated in [false, true] {
        let mounted = sample();
        {
            let records = Records::of(&mounted.store());
            let (key, value) = records.all(Table::Snapshot).pop().unwrap();
            let mut overlay = Overlay::default();
            for epoch in 2..SNAPSHOTS {
                let name = format!("{epoch:05}");
                // The first field is the name; "Active" becomes what it is to be.
                let state = value.windows(7).position(|piece| piece == b"\xa6Active").unwrap();
                let after = &value[state + 7..];
                let new = if is_deactivated { encode(&"Deactivated") } else { encode(&"Active") };
                let record = [&value[..1], &encode(&name), &value[5..state], &new, after].concat();
                overlay.put(Table::Snapshot, &[&key[..4], &epoch.to_be_bytes()].concat(), record);
                overlay.put(Table::Name, &[&key[..4], name.as_bytes()].concat(), encode(&epoch));
            }
            overlay.put(Table::State, b"history", encode(&(SNAPSHOTS, 0u64, 0u64)));
            records.kv.commit(&overlay).unwrap();
        }
        let archive = mounted.dir.path().join("archive");
        fs::create_dir(&archive).unwrap();
        let archive = archive.to_str().unwrap();
        let commands: [&[&str]; 5] = [
            &["check"],
            &["list"],
            &["status"],
            &["snap", "one more"],
            &["roll", "--keep", "1", "--dry-run", "--archive", archive],
        ];
        for args in commands {
            let start = Instant::now();
            mounted.ok(args);
            assert!(start.elapsed() < Duration::from_secs(20), "{args:?} takes {:?}", start.elapsed());
        }
    }
}
