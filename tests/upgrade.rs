//! Stores and archives that earlier versions wrote, brought over and back. `tests/kept/` has one of each released format.

mod mounted;

use mounted::*;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A store of format 3 with its archive, which is not where it was. A daemon was killed on it just after an fsync.
struct Kept {
    dir: tempfile::TempDir,
}

impl Kept {
    fn new() -> Kept {
        let dir = temporary();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kept/format-3.tar.zst");
        let bytes = zstd::stream::decode_all(fs::File::open(path).unwrap()).unwrap();
        tar::Archive::new(bytes.as_slice()).unpack(dir.path()).unwrap();
        Kept { dir }
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn archive(&self) -> PathBuf {
        self.dir.path().join("archive")
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(PITFS).args(args).env("PITFS_STORE", self.store()).current_dir(self.dir.path()).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn upgrade(&self) -> String {
        self.ok(&["upgrade", "--archive", self.archive().to_str().unwrap()])
    }

    /// Makes `small` say something in `live`.
    fn put(&self, small: &str) {
        let source = self.dir.path().join("src");
        fs::create_dir_all(&source).unwrap();
        fs::write(source.join("small"), small).unwrap();
        self.ok(&["sync", "src"]);
    }

    /// Saves increments of the present format to the archive.
    fn save_since(&self) {
        for (small, name) in [("five\n", "r4"), ("six\n", "r5")] {
            self.put(small);
            self.ok(&["roll", "--keep", "1", "--name", name]);
        }
    }

    /// Another store with an archive of its own.
    fn another(&self) -> PathBuf {
        let (store, archive) = (self.dir.path().join("another"), self.dir.path().join("another-archive"));
        let there = store.to_str().unwrap();
        self.ok(&["create", there]);
        self.ok(&["-s", there, "roll", "--archive", archive.to_str().unwrap()]);
        archive
    }

    fn format(&self) -> String {
        fs::read_to_string(self.store().join("store")).unwrap()
    }

    /// What a time of `live` shows of the file `small`, or of another.
    fn reads(&self, time: &str, file: &str) -> Option<String> {
        let to = self.dir.path().join("out");
        let _not_there = fs::remove_dir_all(&to);
        self.ok(&["restore", time, "--to", to.to_str().unwrap()]);
        fs::read_to_string(to.join(file)).ok()
    }

    /// Everything that the kept store shows.
    fn compare(&self, what: &str) {
        for (time, small) in
            [("r2", "two\n"), ("saved", "two\n"), ("r3", "three\n"), ("plain", "three\n"), ("last", "four\n")]
        {
            assert_eq!(self.reads(time, "small").as_deref(), Some(small), "{what}: {time}");
        }
        assert_eq!(self.reads("live", "small").as_deref(), Some("three\n"), "{what}");
        assert_eq!(self.reads("live", "fsynced").as_deref(), Some("on disk"), "{what}");
        assert_eq!(self.reads("r2", "dir/sub/file").as_deref(), Some("deep\n"), "{what}");
        assert_eq!(self.reads("saved", "dir/sub/file"), None, "{what}");
        assert_eq!(self.reads("forclone", "inclone").as_deref(), Some("clone-base\n"), "{what}");
        let large = self.reads("r3", "large").unwrap();
        let patched = format!("a{}a", "X".repeat(4));
        assert_eq!((large.len(), &large[69_999..70_005]), (200_000, patched.as_str()), "{what}");
        assert!(self.ok(&["check"]).contains("no problems"), "{what}");
    }

    fn compare_archived(&self, what: &str) {
        assert_eq!(self.reads("r1", "small").as_deref(), Some("one\n"), "{what}");
        let large = self.reads("r1", "large").unwrap();
        assert!(large.len() == 200_000 && large.bytes().all(|byte| byte == b'a'), "{what}");
    }
}

/// Names, lengths and hashes of the files of a directory.
fn image(directory: &Path) -> BTreeSet<(String, usize, u64)> {
    let of = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        let bytes = fs::read(entry.path()).unwrap();
        (entry.file_name().into_string().unwrap(), bytes.len(), xxhash_rust::xxh3::xxh3_64(&bytes))
    };
    fs::read_dir(directory).unwrap().map(of).collect()
}

#[test]
fn an_older_format_is_refused_in_words_and_left_as_it_is() {
    let kept = Kept::new();
    let (store, archive) = (image(&kept.store()), image(&kept.archive()));
    for args in [&["list"][..], &["status"], &["check"], &["snap"], &["mount", kept.store().to_str().unwrap(), "."]] {
        let said = kept.fails(args);
        assert!(said.contains("has format 3") && said.contains("pitfs upgrade"), "{args:?}: {said}");
    }
    assert_eq!((image(&kept.store()), image(&kept.archive())), (store, archive));
}

#[test]
fn a_store_is_brought_over_with_its_archive() {
    let kept = Kept::new();
    let output = kept.run(&["upgrade", "--archive", kept.archive().to_str().unwrap()]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("from format 3 to 4") && said.contains("--undo"), "{said}");
    let warned = String::from_utf8(output.stderr).unwrap();
    assert_eq!(warned, "", "neither is its index of before damage, nor is it missed where it was");
    kept.compare("upgraded");
    kept.compare_archived("upgraded");
    assert_eq!(kept.ok(&["base", "list"]).lines().count(), 1 + 3);
    assert!(kept.ok(&["session", "list"]).contains("later"));
    assert!(kept.ok(&["group", "list"]).contains('g'));
    // It goes on, also the archive, across both forms of increments.
    kept.save_since();
    for (time, small) in [("r1", "one\n"), ("r2", "two\n"), ("last", "four\n"), ("r4", "five\n"), ("r5", "six\n")] {
        assert_eq!(kept.reads(time, "small").as_deref(), Some(small), "{time}");
    }
    kept.ok(&["mirror", "sync", "amirror"]);
    assert!(kept.ok(&["archive", "verify"]).contains("no problems"));
    // Increments that format 3 could not read are in the archive now.
    let said = kept.fails(&["upgrade", "--undo"]);
    assert!(said.contains("were saved to") && said.contains("since"), "{said}");
    kept.ok(&["upgrade", "--confirm"]);
    assert!(kept.fails(&["upgrade", "--undo"]).contains("no upgrade to be undone"));
    assert!(kept.fails(&["upgrade", "--confirm"]).contains("no upgrade to be confirmed"));
    assert!(kept.ok(&["upgrade"]).contains("has format 4"));
}

#[test]
fn an_archive_that_is_not_there_is_brought_over_later() {
    let kept = Kept::new();
    let output = kept.run(&["upgrade"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("was not brought over") && said.contains("archive attach"), "{said}");
    kept.compare("without the archive");
    assert!(kept.fails(&["roll"]).contains("is not there"));
    kept.ok(&["archive", "attach", kept.archive().to_str().unwrap()]);
    kept.compare_archived("attached");
    kept.ok(&["roll", "--keep", "1", "--name", "r9"]);
    kept.compare_archived("rolled on");
}

#[test]
fn an_upgrade_is_undone_with_all_that_was_done_since() {
    let kept = Kept::new();
    let archive = image(&kept.archive());
    kept.upgrade();
    kept.ok(&["snap", "since"]);
    kept.ok(&["upgrade", "--undo"]);
    assert_eq!(kept.format(), "pitfs store\nformat 3\n");
    let is_increment = |(name, ..): &(String, usize, u64)| name.ends_with(".increment");
    let increments: BTreeSet<_> = archive.into_iter().filter(is_increment).collect();
    assert_eq!(image(&kept.archive()), increments);
    assert!(kept.fails(&["list"]).contains("has format 3"));
    assert!(kept.fails(&["upgrade", "--undo"]).contains("was not upgraded"));
    kept.upgrade();
    kept.compare("there and back");
    kept.compare_archived("there and back");
    assert_eq!(kept.reads("since", "small").as_deref(), Some("three\n"));
}

#[test]
fn what_format_3_could_not_say_is_refused_before_anything_is_undone() {
    use std::os::unix::ffi::OsStrExt;
    let kept = Kept::new();
    kept.upgrade();
    kept.ok(&["archive", "detach"]);
    let archive = kept.dir.path().join(std::ffi::OsStr::from_bytes(b"archive \xff"));
    let roll = Command::new(PITFS).args(["roll", "--archive"]).arg(&archive).env("PITFS_STORE", kept.store()).output();
    assert!(roll.unwrap().status.success());
    assert!(kept.fails(&["upgrade", "--undo"]).contains("not UTF-8"));
    assert!(kept.format().ends_with("upgraded from 3\n"));
    kept.compare("refused");
    kept.ok(&["archive", "detach"]);
    kept.ok(&["upgrade", "--undo"]);
}

#[test]
fn nothing_is_undone_while_the_archive_is_not_there_or_another_is_in_its_place() {
    let kept = Kept::new();
    let another = kept.another();
    let (archive, away) = (kept.archive(), kept.dir.path().join("away"));
    for saves in [false, true] {
        kept.upgrade();
        if saves {
            kept.save_since();
        }
        let whole = image(&archive);
        let refused = |what: &str| {
            let said = kept.fails(&["upgrade", "--undo"]);
            assert!(said.contains(what) && said.contains("archive detach"), "{said}");
            assert!(kept.format().ends_with("upgraded from 3\n"));
        };
        // Its disk is not mounted.
        fs::rename(&archive, &away).unwrap();
        refused("is not there");
        fs::create_dir(&archive).unwrap();
        refused("is not there");
        assert_eq!(image(&archive).len(), 0);
        // Another one is.
        fs::remove_dir(&archive).unwrap();
        fs::rename(&another, &archive).unwrap();
        let others = image(&archive);
        refused("is another archive");
        assert_eq!(image(&archive), others);
        fs::rename(&archive, &another).unwrap();
        // Somebody, such as a mounted copy of the store, works with it.
        fs::rename(&away, &archive).unwrap();
        let held = fs::File::open(&archive).unwrap();
        rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let said = kept.fails(&["upgrade", "--undo"]);
        assert!(said.contains("is in use by a copy") && said.contains("unmount"), "{said}");
        assert_eq!(image(&archive), whole);
        drop(held);
        match saves {
            true => refused("were saved to"),
            false => drop(kept.ok(&["upgrade", "--undo"])),
        }
    }
    kept.compare_archived("refused");
    assert_eq!(kept.reads("r4", "small").as_deref(), Some("five\n"));
}

/// Increments name what was made since the upgrade by its id.
#[test]
fn an_archive_with_newer_increments_is_read_again_after_a_second_upgrade() {
    let kept = Kept::new();
    let archive = kept.archive();
    let other = kept.dir.path().join("of-other");
    let (archive, other) = (archive.to_str().unwrap(), other.to_str().unwrap());
    let of_other = |args: &[&str]| kept.ok(&[&["-s", &format!("{}:other", kept.store().display())], args].concat());
    kept.upgrade();
    kept.save_since();
    kept.ok(&["base", "create", "other"]);
    for name in ["b1", "b2", "b3"] {
        of_other(&["roll", "--archive", other, "--keep", "1", "--name", name]);
    }
    assert!(kept.fails(&["upgrade", "--undo"]).contains("brought over again"));
    kept.ok(&["archive", "detach"]);
    of_other(&["archive", "detach"]);
    kept.ok(&["upgrade", "--undo"]);
    kept.ok(&["upgrade"]);
    kept.ok(&["archive", "attach", archive]);
    kept.compare_archived("attached again");
    assert_eq!(kept.reads("r4", "small").as_deref(), Some("five\n"));
    kept.put("seven\n");
    kept.ok(&["roll", "--keep", "1", "--name", "r6"]);
    assert!(kept.ok(&["archive", "verify"]).contains("no problems"));
    of_other(&["archive", "attach", other]);
    assert!(of_other(&["list"]).contains("b1"));
    assert!(kept.ok(&["check"]).contains("no problems"));
}

/// Format 3 has no record of which save was the last.
#[test]
fn the_last_save_of_before_an_undo_is_not_looked_for_after_it() {
    let kept = Kept::new();
    kept.upgrade();
    kept.put("first\n");
    kept.ok(&["save", "first"]);
    kept.put("second\n");
    kept.ok(&["save", "second"]);
    // As format 3 lets it go, and saves another.
    kept.ok(&["delete", "second"]);
    assert!(kept.fails(&["restore", "--last"]).contains("is not there any more"));
    kept.ok(&["upgrade", "--undo"]);
    kept.upgrade();
    kept.ok(&["restore", "--last"]);
    assert_eq!(kept.reads("live", "small").as_deref(), Some("first\n"));
}

#[test]
fn what_an_undo_cannot_keep_is_said() {
    let kept = Kept::new();
    kept.upgrade();
    let reserved = || {
        let status: serde_json::Value = serde_json::from_str(&kept.ok(&["status", "--json"])).unwrap();
        status["reserved_bytes"].as_u64().unwrap()
    };
    let before = reserved();
    kept.ok(&["hold", "r3", "--tag", "backup"]);
    kept.ok(&["session", "register", "own", "--base", "live:other-name", "--reserve"]);
    kept.ok(&["base", "create", "away", "--from", "r3", "--offline", "--reserve", "--wait"]);
    let output = kept.run(&["upgrade", "--undo"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let has = |words: &[&str]| said.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(has(&["snapshot \"r3\" of \"live\"", "\"backup\""]), "{said}");
    assert!(has(&["session \"own\"", "\"other-name\""]) && has(&["session \"own\"", "no room"]), "{said}");
    assert!(has(&["base \"away\"", "no room"]) && has(&["base \"away\"", "offline"]), "{said}");
    assert_eq!(said.lines().count(), 5, "{said}");
    kept.upgrade();
    assert_eq!(reserved(), before, "nobody would ever give it back");
    let output = kept.run(&["upgrade", "--undo", "--json"]);
    assert!(String::from_utf8(output.stdout).unwrap().contains("\"dropped\""));
}

#[test]
fn the_archives_of_several_bases_are_found_below_the_directory_given() {
    let kept = Kept::new();
    let path = |name: &str| kept.dir.path().join(name);
    let run = |of: &str, args: &[&str]| kept.ok(&[&["-s", &format!("{}:{of}", kept.store().display())], args].concat());
    kept.upgrade();
    kept.save_since();
    kept.ok(&["base", "create", "other"]);
    for name in ["b1", "b2", "b3"] {
        run("other", &["roll", "--archive", path("all/other").to_str().unwrap(), "--keep", "1", "--name", name]);
    }
    fs::create_dir(path("moved")).unwrap();
    fs::rename(kept.archive(), path("moved/live")).unwrap();
    fs::rename(path("all/other"), path("moved/other")).unwrap();
    let output = kept.run(&["upgrade", "--archive", "moved"]);
    let (said, warned) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!((said.matches("is attached").count(), warned.as_str()), (2, ""));
    kept.compare_archived("found");
    assert!(run("other", &["list"]).contains("b1"));
    // Of one base it is what was given, and the others are where they were.
    fs::rename(path("moved/live"), path("elsewhere")).unwrap();
    assert_eq!(kept.ok(&["upgrade", "--archive", "elsewhere"]).matches("is attached").count(), 2);
    kept.compare_archived("found elsewhere");
    // Another store's is not taken, and what is no archive is refused.
    let output = kept.run(&["upgrade", "--archive", kept.another().to_str().unwrap()]);
    let warned = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && warned.contains("no base of this store has its archive in"), "{warned}");
}

#[test]
fn what_is_no_archive_is_refused_before_anything_is_changed() {
    let kept = Kept::new();
    fs::create_dir_all(kept.dir.path().join("src/dir")).unwrap();
    fs::write(kept.dir.path().join("src/dir/file"), "no archive").unwrap();
    for given in ["src", "none"] {
        let said = kept.fails(&["upgrade", "--archive", given]);
        assert!(said.contains("there is no archive in") && said.contains("Nothing was changed"), "{said}");
    }
    assert_eq!(kept.format(), "pitfs store\nformat 3\n");
}

/// It takes an index of the present format for damage.
#[test]
fn an_archive_that_was_detached_before_an_undo_is_left_as_format_3_knows_it() {
    let kept = Kept::new();
    let (archive, away) = (kept.archive(), kept.dir.path().join("away"));
    kept.upgrade();
    assert!(archive.join("index").exists());
    let said = kept.ok(&["archive", "detach"]);
    assert!(!archive.join("index").exists() && !said.contains("index"), "{said}");
    kept.ok(&["archive", "attach", archive.to_str().unwrap()]);
    // What cannot be done is said.
    kept.save_since();
    fs::rename(&archive, &away).unwrap();
    let said = kept.ok(&["archive", "detach"]);
    assert!(said.contains("archive/index is of format 4"), "{said}");
    fs::rename(&away, &archive).unwrap();
    kept.ok(&["archive", "attach", archive.to_str().unwrap()]);
    let said = kept.ok(&["archive", "detach"]);
    assert!(said.contains("were saved since the upgrade") && !said.contains("index"), "{said}");
    kept.ok(&["archive", "attach", archive.to_str().unwrap()]);
    kept.ok(&["upgrade", "--confirm"]);
    let said = kept.ok(&["archive", "detach"]);
    assert!(archive.join("index").exists() && !said.contains("--undo"), "{said}");
}

/// As after an undo that was interrupted, or where the archive was never there since the upgrade.
#[test]
fn an_archive_without_a_label_is_told_by_its_increments() {
    let kept = Kept::new();
    kept.upgrade();
    for name in ["archive", "index"] {
        fs::remove_file(kept.archive().join(name)).unwrap();
    }
    kept.ok(&["upgrade", "--undo"]);
    kept.upgrade();
    // With its label, but without what format 3 would go on with, it is refused.
    let increments = || fs::read_dir(kept.archive()).unwrap().map(|entry| entry.unwrap().path());
    for path in increments().filter(|path| path.extension().is_some_and(|suffix| suffix == "increment")) {
        fs::rename(&path, kept.dir.path().join(path.file_name().unwrap())).unwrap();
    }
    assert!(kept.fails(&["upgrade", "--undo"]).contains("lost its newest increments"));
}

#[test]
fn an_interrupted_upgrade_is_completed_or_undone() {
    let [old, new] = [Kept::new(), Kept::new()];
    new.upgrade();
    // The records may be of either format while the file says that they are on the way.
    for (records, what) in [(&old, "old records"), (&new, "new records")] {
        for line in ["upgrading from 3", "going back to 3"] {
            let kept = Kept::new();
            for name in ["meta.redb", "volume.0", "journal"] {
                let from = records.store().join(name);
                if from.exists() {
                    fs::copy(from, kept.store().join(name)).unwrap();
                }
            }
            fs::write(kept.store().join("store"), format!("pitfs store\nformat 4\n{line}\n")).unwrap();
            assert!(kept.fails(&["list"]).contains("was interrupted"), "{what}, {line}");
            if line.starts_with("going") {
                assert!(kept.fails(&["upgrade"]).contains("--undo"), "{what}");
            } else {
                kept.upgrade();
                kept.compare(&format!("{what}, {line}, completed"));
                fs::write(kept.store().join("store"), format!("pitfs store\nformat 4\n{line}\n")).unwrap();
            }
            kept.ok(&["upgrade", "--undo"]);
            assert_eq!(kept.format(), "pitfs store\nformat 3\n");
            kept.upgrade();
            kept.compare(&format!("{what}, {line}"));
        }
    }
}

/// On a full disk there is the room that a store sets aside, and without that nothing is begun.
#[test]
fn an_upgrade_has_the_room_to_go_back_or_is_refused() {
    for has_reserve in [true, false] {
        let kept = Kept::new();
        let path = kept.dir.path().join("disk");
        fs::create_dir(&path).unwrap();
        let Some(_disk) = is_root().then(|| Disk::mount(&kept.dir.path().join("image"), &path, 64)).flatten() else {
            eprintln!("not run: needs root and a loop device");
            return;
        };
        let copied =
            Command::new("cp").args(["-a", "--sparse=always"]).arg(kept.store()).arg(path.join("store")).status();
        assert!(copied.unwrap().success());
        fs::remove_dir_all(kept.store()).unwrap();
        std::os::unix::fs::symlink(path.join("store"), kept.store()).unwrap();
        let reserve = fs::File::create(kept.store().join("reserve")).unwrap();
        let bytes = if has_reserve { 2 << 20 } else { 0 };
        std::os::unix::fs::FileExt::write_all_at(&reserve, &vec![0; bytes], 0).unwrap();
        reserve.sync_all().unwrap();
        fill(&path.join("filler"));
        // Who has a store is noted in `lock`.
        let stored = || image(&kept.store()).into_iter().filter(|(name, ..)| name != "lock").collect::<BTreeSet<_>>();
        let before = stored();
        if has_reserve {
            kept.upgrade();
            fill(&path.join("more"));
            kept.compare("on a full disk");
            kept.ok(&["upgrade", "--undo"]);
            assert_eq!(kept.format(), "pitfs store\nformat 3\n");
            fs::remove_file(path.join("filler")).unwrap();
            kept.upgrade();
            kept.compare("with room again");
        } else {
            let said = kept.fails(&["upgrade"]);
            assert!(said.contains("KiB of room") && said.contains("nothing was changed"), "{said}");
            assert_eq!(stored(), before);
        }
    }
}

/// Makes a file of all the room that there is.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    while std::io::Write::write(&mut file, &[1; 4096]).is_ok_and(|written| written > 0) {}
    let _full = file.sync_all();
}

#[test]
fn copies_that_were_brought_over_apart_are_one_store_with_two_histories() {
    let [one, other] = [Kept::new(), Kept::new()];
    one.upgrade();
    // The other's archive is that of the first: both know what was before.
    let output = other.run(&["upgrade", "--archive", one.archive().to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    one.ok(&["roll", "--keep", "1", "--name", "o1"]);
    assert!(other.fails(&["roll", "--keep", "1", "--name", "t1"]).contains("has gone on without this store"));
    one.compare_archived("the one");
    other.compare_archived("the other");
    other.compare("the other");
}
