//! Going back in place, with everything that programs and the kernel have in their hands meanwhile.

mod mounted;

use mounted::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A process that stands in a directory with a file open and mapped, and says what it sees when asked.
struct Watcher {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

const WATCH: &str = r#"
import mmap, os, sys
os.chdir(sys.argv[1])
f = open(sys.argv[2], 'r+b')
m = mmap.mmap(f.fileno(), 0)
m[:]
for _ in sys.stdin:
    f.seek(0)
    size = os.fstat(f.fileno()).st_size
    same = f.read()[:len(m)] == m[:size] and open(sys.argv[2], 'rb').read()[:len(m)] == m[:size]
    print(same, size, m[0], len(os.listdir('.')), os.path.exists('gone'), os.path.exists('later'), flush=True)
"#;

impl Watcher {
    fn new(directory: &Path, name: &str) -> Option<Watcher> {
        let mut command = Command::new("python3");
        command.args(["-c", WATCH]).arg(directory).arg(name).stdin(Stdio::piped()).stdout(Stdio::piped());
        let Ok(mut child) = command.spawn() else {
            eprintln!("without a mapped file: there is no python3");
            return None;
        };
        let said = BufReader::new(child.stdout.take().unwrap());
        Some(Watcher { child, said })
    }

    fn sees(&mut self) -> String {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim().to_string()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _gone_already = self.child.wait();
    }
}

fn first_state(live: &Path) {
    fs::create_dir_all(live.join("d/deep/er")).unwrap();
    fs::create_dir(live.join("gone dir")).unwrap();
    for i in 0..30 {
        fs::write(live.join(format!("d/f{i}")), random_bytes(i, 50_000)).unwrap();
    }
    fs::write(live.join("d/file"), vec![1; 100_000]).unwrap();
    fs::write(live.join("d/gone"), "was there").unwrap();
    fs::write(live.join("gone dir/f"), "was there").unwrap();
    fs::write(live.join("d/deep/er/f"), "deep").unwrap();
    fs::write(live.join("kind"), "a file").unwrap();
    fs::hard_link(live.join("d/gone"), live.join("second name")).unwrap();
    std::os::unix::fs::symlink("d/f1", live.join("symlink")).unwrap();
    rustix::fs::setxattr(live.join("d/f5"), "user.a", b"first", rustix::fs::XattrFlags::empty()).unwrap();
}

fn second_state(live: &Path) {
    fs::write(live.join("d/file"), vec![2; 60_000]).unwrap();
    fs::remove_file(live.join("d/gone")).unwrap();
    fs::remove_dir_all(live.join("gone dir")).unwrap();
    fs::write(live.join("d/later"), "new").unwrap();
    fs::create_dir(live.join("later dir")).unwrap();
    fs::write(live.join("later dir/f"), "new").unwrap();
    for i in 0..10 {
        File::options()
            .write(true)
            .open(live.join(format!("d/f{i}")))
            .unwrap()
            .write_all_at(&random_bytes(50 + i, 9_000), 30_000)
            .unwrap();
    }
    for i in 10..15 {
        fs::rename(live.join(format!("d/f{i}")), live.join(format!("moved {i}"))).unwrap();
    }
    fs::rename(live.join("d/deep"), live.join("deep")).unwrap();
    fs::remove_file(live.join("kind")).unwrap();
    fs::create_dir(live.join("kind")).unwrap();
    fs::remove_file(live.join("symlink")).unwrap();
    std::os::unix::fs::symlink("d/f2", live.join("symlink")).unwrap();
    rustix::fs::setxattr(live.join("d/f5"), "user.a", b"second", rustix::fs::XattrFlags::empty()).unwrap();
    fs::set_permissions(live.join("d/f6"), fs::Permissions::from_mode(0o600)).unwrap();
}

/// All paths of a tree, and whether the kernel says that each is there.
fn paths(root: &Path) -> BTreeSet<PathBuf> {
    listing(root).into_iter().map(|found| found.path).collect()
}

fn xattr(path: &Path) -> String {
    let mut value = [0; 20];
    let len = rustix::fs::getxattr(path, "user.a", &mut value).unwrap();
    String::from_utf8_lossy(&value[..len]).into_owned()
}

#[test]
fn every_read_after_a_restore_shows_the_restored_state() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let (root, live) = (mounted.snap(), mounted.live());
    first_state(&live);
    mounted.ok(["snap", "first"]);
    let first = listing(&live);
    second_state(&live);
    mounted.ok(["snap", "second"]);
    let second = listing(&live);
    let all: Vec<PathBuf> = paths(&root.join("first")).union(&paths(&root.join("second"))).cloned().collect();

    let file = File::options().read(true).write(true).open(live.join("d/file")).unwrap();
    let f0 = File::open(live.join("d/f0")).unwrap();
    let later = File::open(live.join("d/later")).unwrap();
    let mut watcher = Watcher::new(&live.join("d"), "file");
    let mut sees = |expected: &str| {
        if let Some(watcher) = &mut watcher {
            assert_eq!(watcher.sees(), expected);
        }
    };
    let state = |expected: &[Shown], moment: &str, len: u64| {
        // First what was there or was not there, by name, then by listing.
        for path in &all {
            let is_there = live.join(path).symlink_metadata().is_ok();
            assert_eq!(is_there, expected.iter().any(|found| found.path == *path), "{} {moment}", path.display());
        }
        assert_same(&listing(&live), expected, moment);
        assert_eq!(file.metadata().unwrap().len(), len, "{moment}");
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == fs::read(live.join("d/file")).unwrap(), "{moment}");
        assert_eq!(file.read_at(&mut [0; 8], len).unwrap(), 0, "{moment}: the end of the file");
        let mut bytes = vec![0; 50_000];
        f0.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == fs::read(live.join("d/f0")).unwrap(), "{moment}");
    };
    state(&second, "second", 60_000);
    sees("True 60000 2 27 False True");
    assert_eq!(xattr(&live.join("d/f5")), "second");

    let start = Instant::now();
    let said = mounted.ok(["restore", "first"]);
    let took = start.elapsed();
    sees("True 100000 1 33 True False");
    state(&first, "restored", 100_000);
    assert_eq!(xattr(&live.join("d/f5")), "first");
    assert!(took < Duration::from_secs(2), "{took:?}");
    // A file that is not there any more: an error or its bytes, as when it was removed or not yet.
    match later.read_at(&mut [0; 3], 0) {
        Ok(len) => assert_eq!(len, 3),
        Err(error) => assert!(error.raw_os_error().is_some_and(|number| number != 5), "{error}"),
    }
    let before = said.trim().rsplit(' ').next().unwrap().to_string();
    assert!(before.starts_with("before-restore-"), "{said}");
    assert_eq!(names(&root), [before.as_str(), "first", "live", "second"]);
    assert_same(&listing(&root.join("second")), &second, "a newer snapshot stays");
    assert_same(&listing(&root.join(&before)), &second, "what was there before");

    // Undone, and done again, with what is open.
    mounted.ok(["restore", &before]);
    sees("True 60000 2 27 False True");
    state(&second, "undone", 60_000);
    mounted.ok(["restore", "first"]);
    sees("True 100000 1 33 True False");
    state(&first, "done again", 100_000);
    // What is written now is written to the restored state.
    file.write_all_at(b"after", 99_995).unwrap();
    fs::write(live.join("d/later"), "again").unwrap();
    fs::remove_file(live.join("d/f0")).unwrap();
    fs::write(live.join("d/deep/er/f"), "deeper").unwrap();
    fs::remove_dir(live.join("kind")).unwrap_err();
    let written = listing(&live);
    assert!(fs::read(live.join("d/file")).unwrap().ends_with(b"\x01after"));
    mounted.remount_under(&mut watcher);
    assert_same(&listing(&live), &written, "mounted again");
    for (name, state) in [("first", &first), ("second", &second), (&before, &second)] {
        assert_same(&listing(&root.join(name)), state, name);
    }
    mounted.check();
    mounted.umount();
    mounted.check();
}

impl Mounted {
    /// Mounted again, after the watcher has let go.
    fn remount_under(&self, watcher: &mut Option<Watcher>) {
        drop(watcher.take());
        // Files of the test itself are open as well: killed, a mount goes all the same.
        File::open(self.live()).unwrap().sync_all().unwrap();
        rustix::fs::syncfs(File::open(self.live()).unwrap()).unwrap();
        self.ok(["snap", "to commit"]);
        self.kill();
        self.mount(&[]);
    }
}

/// A random change of one of a few names; what is there already stays as it is in many ways.
fn change_at_random(live: &Path, i: u64) {
    let dice = random_bytes(i, 8);
    let name = |n: u8| live.join(["a", "b", "d/a", "d/b", "d/e/a", "e/a"][usize::from(n % 6)]);
    let (one, other) = (name(dice[0]), name(dice[1]));
    for directory in ["d/e", "e"] {
        let _there_already = fs::create_dir_all(live.join(directory));
    }
    // What fails, as any of it may, changes nothing.
    let _done = match dice[2] % 12 {
        0..4 => File::options().write(true).create(true).truncate(false).open(&one).and_then(|file| {
            file.write_all_at(&random_bytes(i, 1 + usize::from(dice[3]) * 40), u64::from(dice[4]) * 300)
        }),
        4 => File::options().write(true).open(&one).and_then(|file| file.set_len(u64::from(dice[3]) * 300)),
        5 => fs::remove_file(&one),
        6 | 7 => fs::rename(&one, &other),
        8 => fs::hard_link(&one, &other),
        9 => fs::rename(live.join("d/e"), live.join("e/moved")),
        10 => fs::remove_dir_all(live.join(["d", "e"][usize::from(dice[3] % 2)])),
        _ => fs::set_permissions(&one, fs::Permissions::from_mode(0o600 + u32::from(dice[3] % 64))),
    };
    // Nothing tells by its time that it is another.
    let then = std::time::SystemTime::UNIX_EPOCH;
    let _gone = File::options().write(true).open(&one).and_then(|file| file.set_modified(then));
}

/// Files by their inode numbers, open since they were first seen.
fn keep_open(live: &Path, open: &mut BTreeMap<u64, File>) {
    for found in listing(live).into_iter().filter(|found| found.kind == 'f') {
        let path = live.join(found.path);
        let inode = fs::metadata(&path).unwrap().ino();
        open.entry(inode).or_insert_with(|| File::open(&path).unwrap());
    }
}

/// `PITFS_SEED` changes otherwise.
#[test]
fn whatever_changed_is_shown_as_it_was() {
    if !can_mount() {
        return;
    }
    let seed = std::env::var("PITFS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let mounted = Mounted::new();
    let live = mounted.live();
    let (mut states, mut open) = (Vec::new(), BTreeMap::new());
    for round in 0..60 {
        for i in 0..1 + round % 7 {
            change_at_random(&live, seed * 10_000 + round * 100 + i);
        }
        keep_open(&live, &mut open);
        mounted.ok(["snap", &format!("s{round}")]);
        states.push(listing(&live));
        if round % 2 == 1 {
            for i in 50..50 + round % 5 {
                change_at_random(&live, seed * 10_000 + round * 100 + i);
            }
            keep_open(&live, &mut open);
            let to = usize::from(random_bytes(seed * 100 + round, 1)[0]) % states.len();
            mounted.ok(["restore", &format!("s{to}")]);
            let what = format!("round {round}, back to s{to}");
            assert_same(&listing(&live), &states[to], &what);
            for found in states[to].iter().filter(|found| found.kind == 'f') {
                let path = live.join(&found.path);
                let metadata = fs::metadata(&path).unwrap();
                let Some(file) = open.get(&metadata.ino()) else { continue };
                let mut bytes = vec![0; metadata.len() as usize];
                file.read_exact_at(&mut bytes, 0).unwrap();
                assert!(bytes == fs::read(&path).unwrap(), "{what}: {} through what was open", found.path.display());
                assert_eq!(file.metadata().unwrap().len(), metadata.len(), "{what}: {}", found.path.display());
            }
        }
    }
    drop(open);
    mounted.umount();
    mounted.check();
}

/// The kernel thinks that it is dead as long as something below it is open, or a process stands in it.
#[test]
fn a_removed_directory_comes_back_with_what_is_in_it() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let live = mounted.live();
    fs::create_dir_all(live.join("d/e")).unwrap();
    fs::create_dir_all(live.join("other/e")).unwrap();
    fs::write(live.join("d/e/f"), "content").unwrap();
    let state = listing(&live);
    mounted.ok(["snap", "s"]);
    for i in 0..3 {
        let (file, directory) = (File::open(live.join("d/e/f")).unwrap(), File::open(live.join("other/e")).unwrap());
        fs::remove_dir_all(live.join("d")).unwrap();
        // Removed by moving another one there.
        fs::create_dir(live.join("empty")).unwrap();
        fs::rename(live.join("empty"), live.join("other/e")).unwrap();
        mounted.ok(["restore", "s"]);
        assert_same(&listing(&live), &state, &format!("time {i}"));
        let mut bytes = [0; 7];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"content", "through what was open all the time");
        fs::write(live.join("other/e/new"), "").unwrap();
        assert_eq!(names(&live.join("other/e")), ["new"]);
        fs::remove_file(live.join("other/e/new")).unwrap();
        mounted.ok(["restore", "s"]);
        drop((file, directory));
    }
    mounted.umount();
    mounted.check();
}

#[test]
fn two_restores_at_once_are_one_after_the_other() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let (root, live) = (mounted.snap(), mounted.live());
    let mut states = Vec::new();
    for (name, fill) in [("a", first_state as fn(&Path)), ("b", second_state)] {
        fill(&live);
        mounted.ok(["snap", name]);
        states.push(listing(&live));
    }
    for _ in 0..5 {
        std::thread::scope(|scope| {
            for name in ["a", "b"] {
                let mounted = &mounted;
                scope.spawn(move || mounted.ok(["restore", name]));
            }
        });
        let found = listing(&live);
        assert!(states.contains(&found), "neither of the two states");
    }
    // In quick succession, while what came before is still being settled.
    for i in 0..10 {
        mounted.ok(["restore", ["a", "b"][i % 2]]);
        assert_same(&listing(&live), &states[i % 2], "in turn");
    }
    for (name, state) in ["a", "b"].iter().zip(&states) {
        assert_same(&listing(&root.join(name)), state, name);
    }
    mounted.remount();
    assert_same(&listing(&live), &states[1], "mounted again");
    mounted.check();
}

#[test]
fn a_restore_outlives_the_daemon_wherever_it_is() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let live = mounted.live();
    let fill = |seed: u64| {
        for i in 0..800 {
            let path = live.join(format!("dir {}/f{i}", (i + seed) % 20));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, random_bytes(seed + i, 3000)).unwrap();
        }
    };
    fill(0);
    mounted.ok(["snap", "a"]);
    let a = listing(&live);
    fs::remove_dir_all(live.join("dir 3")).unwrap();
    fill(7);
    mounted.ok(["snap", "b"]);
    let b = listing(&live);
    for (i, wait_ms) in [0, 0, 3, 10, 30, 100].into_iter().enumerate() {
        let (name, state) = [("a", &a), ("b", &b)][i % 2];
        mounted.ok(["restore", name]);
        std::thread::sleep(Duration::from_millis(wait_ms));
        mounted.kill();
        mounted.mount(&[]);
        assert_same(&listing(&live), state, name);
        // And once more while it goes on settling.
        mounted.kill();
        if i % 3 == 2 {
            mounted.check();
        }
        mounted.mount(&[]);
        assert_same(&listing(&live), state, name);
    }
    wait_for("settling", || mounted.base_info("live")["settled_blocks"].is_null());
    assert_same(&listing(&live), &b, "settled");
    assert_same(&listing(&mounted.snap().join("a")), &a, "a");
    assert_same(&listing(&mounted.snap().join("b")), &b, "b");
    mounted.umount();
    mounted.check();
}

/// Restoring paths takes several steps; mounting completes them.
#[test]
fn a_restore_of_paths_is_completed_after_a_crash() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let live = mounted.live();
    for i in 0..40 {
        fs::create_dir_all(live.join(format!("d/{i}"))).unwrap();
        for k in 0..50 {
            fs::write(live.join(format!("d/{i}/{k}")), random_bytes(i * 100 + k, 5_000)).unwrap();
        }
    }
    fs::write(live.join("elsewhere"), "").unwrap();
    mounted.ok(["snap", "s"]);
    let state = listing(&live.join("d"));
    let restores = || names(&mounted.snap()).iter().filter(|name| name.starts_with("before-restore")).count();
    let (mut took, mut interrupted) = (Duration::from_millis(300), 0);
    for round in 0..30 {
        fs::write(live.join("elsewhere"), format!("{round}")).unwrap();
        for i in 0..40 {
            fs::remove_dir_all(live.join(format!("d/{i}"))).unwrap();
            fs::create_dir(live.join(format!("d/{i}"))).unwrap();
            fs::write(live.join(format!("d/{i}/{}", i + 10)), format!("other {round}")).unwrap();
            fs::write(live.join(format!("d/{i}/new")), "new").unwrap();
        }
        let before = restores();
        // Some of it is durable when the end comes.
        let start = Instant::now();
        let mut restore = mounted.command(["restore", "s", "d"]).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(took * (round % 7 + 1) / 9);
        if round % 2 == 1 {
            mounted.ok(["snap", &format!("while {round}")]);
        }
        let is_over = restore.try_wait().unwrap().is_some();
        if is_over {
            took = start.elapsed().min(took);
        }
        mounted.kill();
        restore.wait().unwrap();
        mounted.mount(&[]);
        let has_begun = restores() > before;
        if has_begun {
            assert_same(&listing(&live.join("d")), &state, &format!("round {round}"));
        }
        interrupted += u32::from(has_begun && !is_over);
        if interrupted == 5 {
            break;
        }
    }
    assert!(interrupted > 0, "no restore was ever interrupted");
    mounted.umount();
    mounted.check();
}

/// Sharing reads nothing, so that damage comes along with the track, and what is around it as well.
#[test]
fn damage_in_the_store_leaves_no_mixed_file() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let file = mounted.live().join("f");
    let (one, other) = (random_bytes(1, 20 << 20), random_bytes(2, 20 << 20));
    fs::write(&file, &one).unwrap();
    mounted.ok(["snap", "s"]);
    File::options().write(true).open(&file).unwrap().write_all_at(&other, 0).unwrap();
    mounted.ok(["snap", "other"]);
    mounted.umount();
    let volume = mounted.store().join("volume.0");
    let mut bytes = fs::read(&volume).unwrap();
    let middle = one.len() / 2;
    let at = bytes.windows(64).position(|found| found == &one[middle..middle + 64]).expect("it is stored as it is");
    bytes[at..at + 4].fill(0x55);
    fs::write(&volume, bytes).unwrap();
    for paths in [&["f"][..], &[]] {
        mounted.mount(&[]);
        mounted.ok(["restore", "other"]);
        mounted.ok([&["restore", "s"], paths].concat());
        let found = File::open(&file).unwrap();
        let mut damaged = 0;
        for at in (0..one.len()).step_by(4096) {
            let mut bytes = [0; 4096];
            match found.read_exact_at(&mut bytes, at as u64) {
                Ok(()) => assert!(bytes == one[at..at + 4096], "{paths:?}: the bytes at {at} are not those restored"),
                Err(_) => damaged += 4096,
            }
        }
        assert!((1..=128 << 10).contains(&damaged), "{paths:?}: {damaged} bytes cannot be read");
        drop(found);
        mounted.umount();
    }
}

#[test]
fn writers_elsewhere_and_here_go_on() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::unmounted();
    mounted.ok(["base", "create", "b"]);
    mounted.mount(&[]);
    let (here, there) = (mounted.snap().join("live/live"), mounted.snap().join("b/live"));
    first_state(&here);
    for base in [&here, &there] {
        fs::write(base.join("counter"), 0u64.to_le_bytes()).unwrap();
    }
    mounted.ok(["snap", "first"]);
    second_state(&here);
    let stop = AtomicBool::new(false);
    let write = |base: &Path| {
        let file = File::options().read(true).write(true).open(base.join("counter")).unwrap();
        let mut count = 0u64;
        while !stop.load(Ordering::Relaxed) {
            count += 1;
            file.write_all_at(&count.to_le_bytes(), 0).unwrap();
            if base == there {
                let mut bytes = [0; 8];
                file.read_exact_at(&mut bytes, 0).unwrap();
                assert_eq!(u64::from_le_bytes(bytes), count, "another base was restored");
                fs::write(there.join(format!("new {count}")), "new").unwrap();
                fs::remove_file(there.join(format!("new {count}"))).unwrap();
            }
        }
        count
    };
    std::thread::scope(|scope| {
        let writers = [&here, &there].map(|base| scope.spawn(move || write(base)));
        for _ in 0..10 {
            mounted.ok(["restore", "first"]);
            assert!(here.join("d/gone").exists() && !here.join("d/later").exists());
            fs::write(here.join("d/later"), "again").unwrap();
            fs::remove_file(here.join("d/gone")).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        for (writer, base) in writers.into_iter().zip([&here, &there]) {
            let count = writer.join().unwrap();
            let bytes = fs::read(base.join("counter")).unwrap();
            assert!(count > 10 && u64::from_le_bytes(bytes.try_into().unwrap()) <= count);
        }
    });
    mounted.check();
}

#[test]
fn save_and_go_back_and_what_history_tells() {
    for (mounted, _) in Mounted::unmounted_and_mounted() {
        let source = mounted.dir.path().join("source");
        fs::create_dir(&source).unwrap();
        let put = |text: &str| {
            fs::write(source.join("f"), text).unwrap();
            mounted.ok(["sync", source.to_str().unwrap()]);
        };
        let shown = || {
            let out = mounted.dir.path().join("out");
            mounted.ok(["restore", "live", "--overwrite", "--to", out.to_str().unwrap()]);
            read(&out.join("f"))
        };
        let said = mounted.fails(1, ["restore", "--last"]);
        assert!(said.contains("pitfs save"), "{said}");
        put("one");
        mounted.ok(["save"]);
        put("two, longer");
        mounted.ok(["snap", "not a save"]);
        mounted.ok(["restore", "--last"]);
        assert_eq!(shown(), "one");
        put("three");
        mounted.ok(["save", "named"]);
        put("the fourth");
        mounted.ok(["restore", "--last"]);
        assert_eq!(shown(), "three");
        // Once more: the last save is still that one.
        put("fifth");
        mounted.ok(["restore", "--last"]);
        assert_eq!(shown(), "three");
        let history = mounted.json(&["history"]);
        let what: Vec<&str> = history.as_array().unwrap().iter().map(|entry| entry["what"].as_str().unwrap()).collect();
        let wanted = ["save \"20", "snap \"not a save\"", "restore \"20", "save \"named\"", "restore \"named\""];
        let mut at = 0;
        for wanted in wanted {
            let found = what[at..].iter().position(|what| what.starts_with(wanted));
            at += found.unwrap_or_else(|| panic!("{wanted} is not in {what:?}")) + 1;
        }
        let uid = rustix::process::getuid().as_raw();
        assert!(history.as_array().unwrap().iter().all(|entry| entry["uid"] == uid), "{history}");
        let text = mounted.ok(["history"]);
        assert!(text.lines().skip(1).all(|line| line.starts_with("20") && line.contains(" UTC  ")), "{text}");
        mounted.check();
    }
}
