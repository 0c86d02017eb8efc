//! What changed while a snapshot was the newest, and what its increment has saved, by command.

mod mounted;

use mounted::*;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;

const TRACK: u64 = 16 << 10;

/// First byte and length of each range, by path.
fn ranges(text: &str) -> BTreeMap<String, Vec<(u64, u64)>> {
    let mut found: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ' ');
        let mut number = || parts.next().unwrap().parse().unwrap();
        let range = (number(), number());
        found.entry(parts.next().unwrap().to_string()).or_default().push(range);
    }
    found
}

#[test]
fn changed_tracks_of_a_snapshot_are_enough_to_copy() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let live = mounted.live();
    fs::File::create(live.join("sparse")).unwrap().set_len(64 * TRACK).unwrap();
    fs::write(live.join("grows"), random_bytes(1, 2 * TRACK as usize)).unwrap();
    fs::write(live.join("small"), "small").unwrap();
    let copy = mounted.dir.path().join("copy");
    mounted.ok(["snap", "a"]);
    mounted.ok(["restore", "a", "--to", copy.to_str().unwrap()]);
    let open = |name: &str| fs::OpenOptions::new().write(true).open(live.join(name)).unwrap();
    open("sparse").write_all_at(&random_bytes(2, TRACK as usize), 5 * TRACK).unwrap();
    open("grows").write_all_at(&random_bytes(3, 40_000), 2 * TRACK - 100).unwrap();
    open("small").write_all_at(b"SM", 0).unwrap();
    fs::write(live.join("new"), random_bytes(4, 70_000)).unwrap();
    fs::write(live.join("little"), "new and little").unwrap();
    let one = mounted.ok(["diff", "--tracks", "a"]);
    assert_eq!(one, mounted.ok(["diff", "--tracks", "a", "live"]), "in memory");
    mounted.ok(["snap", "b"]);
    assert_eq!(one, mounted.ok(["diff", "--tracks", "a"]), "with the next snapshot");
    assert_eq!(mounted.ok(["diff", "--tracks", "b"]), "");
    mounted.ok(["delete", "b"]);
    assert_eq!(one, mounted.ok(["diff", "--tracks", "a", "live"]), "without it");
    // A tool that copies only what is listed has all of it.
    for (path, ranges) in ranges(&mounted.ok(["diff", "--tracks", "a"])) {
        let source = fs::File::open(live.join(&path)).unwrap();
        let size = source.metadata().unwrap().len();
        let target = fs::OpenOptions::new().write(true).create(true).truncate(false).open(copy.join(&path)).unwrap();
        target.set_len(size).unwrap();
        for (from, len) in ranges {
            let mut bytes = vec![0; (size.min(from + len) - from) as usize];
            source.read_exact_at(&mut bytes, from).unwrap();
            target.write_all_at(&bytes, from).unwrap();
        }
    }
    for name in names(&live) {
        assert!(fs::read(live.join(&name)).unwrap() == fs::read(copy.join(&name)).unwrap(), "{name}");
    }
    // Of a path, and of a range.
    let of = |args: &[&str]| mounted.ok(["diff", "--tracks", "a"].iter().chain(args));
    assert_eq!(ranges(&of(&["--path", "new"])).keys().collect::<Vec<_>>(), ["new"]);
    assert_eq!(of(&["--path", "sparse", "--range", "0-80K"]), "");
    assert_eq!(of(&["--path", "sparse", "--range", "81920-81921"]), format!("{} {TRACK} sparse\n", 5 * TRACK));
    assert_eq!(of(&["live", "grows", "--range", "64K-"]), format!("{} {TRACK} grows\n", 4 * TRACK));
    assert!(mounted.fails(1, ["diff", "--tracks", "a", "--path", "nothing"]).contains("there is no \"nothing\""));
    mounted.fails(2, ["diff", "--tracks", "a", "--range", "5-5"]);
}

#[test]
fn saved_tracks_are_read_where_the_snapshot_shows_no_more() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let live = mounted.live();
    let old = random_bytes(1, 10 * TRACK as usize - 100);
    fs::write(live.join("f"), &old).unwrap();
    fs::write(live.join("small"), "small").unwrap();
    mounted.ok(["snap", "a"]);
    let file = fs::OpenOptions::new().write(true).open(live.join("f")).unwrap();
    for track in [2, 3, 9, 20] {
        file.write_all_at(b"new", track * TRACK).unwrap();
    }
    fs::write(live.join("small"), "other").unwrap();
    fs::write(live.join("new"), random_bytes(2, 20_000)).unwrap();
    let said = mounted.fails(1, ["session", "read", "a", "f"]);
    assert!(said.contains("is active"), "{said}");
    mounted.ok(["session", "deactivate", "a"]);
    // Nobody needs the old ones of these any more.
    file.write_all_at(b"later", 5 * TRACK).unwrap();
    file.write_all_at(b"later", 2 * TRACK).unwrap();
    let saved = ranges(&mounted.ok(["session", "tracks", "a"]));
    assert_eq!(saved["f"], [(2 * TRACK, 2 * TRACK), (9 * TRACK, TRACK)]);
    assert_eq!(saved.keys().collect::<Vec<_>>(), ["f", "small"]);
    assert!(ranges(&mounted.ok(["diff", "--tracks", "a"])).contains_key("new"));
    let read = |args: &[&str]| mounted.run(["session", "read", "a"].iter().chain(args)).stdout;
    let part = |from: u64, to: u64| &old[from as usize..old.len().min(to as usize)];
    assert!(read(&["f"]) == [part(2 * TRACK, 4 * TRACK), part(9 * TRACK, 10 * TRACK)].concat());
    assert!(read(&["f", "--range", "40000-50000"]) == part(40_000, 50_000));
    assert!(read(&["f", "--range", &format!("{}-", 9 * TRACK + 5)]) == part(9 * TRACK + 5, u64::MAX));
    assert_eq!(read(&["small"]), b"small");
    for range in ["0-10", "60000-70000", "81920-81930"] {
        let said = mounted.fails(1, ["session", "read", "a", "f", "--range", range]);
        assert!(said.contains("are not in the increment of \"a\""), "{range}: {said}");
    }
    let said = mounted.fails(1, ["session", "read", "a", "new"]);
    assert!(said.contains("has no tracks of \"new\""), "{said}");
    // A file that is gone is found by its number.
    let inode = mounted.json(&["session", "tracks", "a", "f"])["files"][0]["inode"].to_string();
    fs::remove_file(live.join("f")).unwrap();
    drop(file);
    assert!(read(&["--inode", &inode, "--range", "40000-50000"]) == part(40_000, 50_000));
    mounted.remount();
    assert!(read(&["--inode", &inode, "--range", "40000-50000"]) == part(40_000, 50_000));
    mounted.check();
    // Nothing of it is left when it is deleted.
    mounted.ok(["delete", "a"]);
    mounted.fails(1, ["session", "tracks", "a"]);
    mounted.umount();
    mounted.check();
}
