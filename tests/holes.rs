//! Blocks, data and holes, and what is read: they agree for every kind of file, in every view, in every mode.

mod mounted;

use mounted::*;
use rustix::fs::{FallocateFlags, SeekFrom, copy_file_range, fallocate, seek};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const MODES: [&[&str]; 3] = [&[], &["writeback"], &["open=none"]];

/// Makes a file, and has its handle and what it holds.
type Make = fn(&Path) -> (File, Vec<u8>);

fn create(path: &Path) -> File {
    File::options().read(true).write(true).create_new(true).open(path).unwrap()
}

fn filled(path: &Path, bytes: Vec<u8>) -> (File, Vec<u8>) {
    let file = create(path);
    file.write_all_at(&bytes, 0).unwrap();
    (file, bytes)
}

fn sparse(path: &Path, size: usize, parts: &[(usize, &[u8])]) -> (File, Vec<u8>) {
    let file = create(path);
    file.set_len(size as u64).unwrap();
    let mut bytes = vec![0; size];
    for (at, part) in parts {
        file.write_all_at(part, *at as u64).unwrap();
        bytes[*at..at + part.len()].copy_from_slice(part);
    }
    (file, bytes)
}

const KINDS: &[(&str, Make)] = &[
    ("empty", |path| filled(path, Vec::new())),
    ("one byte", |path| filled(path, random_bytes(1, 1))),
    ("511 bytes", |path| filled(path, random_bytes(2, 511))),
    ("512 bytes", |path| filled(path, random_bytes(3, 512))),
    ("700 bytes", |path| filled(path, random_bytes(4, 700))),
    ("1024 bytes", |path| filled(path, random_bytes(5, 1024))),
    ("1025 bytes", |path| filled(path, random_bytes(6, 1025))),
    ("a track", |path| filled(path, random_bytes(7, 16 << 10))),
    ("many tracks", |path| filled(path, random_bytes(8, 200_001))),
    ("compressed", |path| filled(path, vec![b'a'; 300_000])),
    ("three bytes and zeros", |path| sparse(path, 900, &[(0, b"abc")])),
    ("small without data", |path| sparse(path, 900, &[])),
    ("large without data", |path| sparse(path, 400_000, &[])),
    ("data in the middle", |path| sparse(path, 1 << 20, &[(600_000, b"data")])),
    ("data at the end", |path| sparse(path, 300_000, &[(299_999, b"x")])),
    ("data past the end", |path| {
        let file = create(path);
        file.write_all_at(b"late", 150_000).unwrap();
        (file, [vec![0; 150_000], b"late".to_vec()].concat())
    }),
    ("patched", |path| {
        let (file, mut bytes) = filled(path, random_bytes(9, 100_000));
        file.sync_all().unwrap();
        file.write_all_at(b"patch", 40_000).unwrap();
        bytes[40_000..40_005].copy_from_slice(b"patch");
        (file, bytes)
    }),
    ("cut short", |path| {
        let (file, mut bytes) = filled(path, random_bytes(10, 100_000));
        file.set_len(600).unwrap();
        bytes.truncate(600);
        (file, bytes)
    }),
    ("punched", |path| {
        let (file, mut bytes) = filled(path, random_bytes(11, 200_000));
        fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 20_000, 130_000).unwrap();
        bytes[20_000..150_000].fill(0);
        (file, bytes)
    }),
    ("all punched", |path| {
        let (file, bytes) = filled(path, random_bytes(12, 100_000));
        fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, 1 << 20).unwrap();
        (file, vec![0; bytes.len()])
    }),
    ("shared", |path| {
        let (from, bytes) = filled(&path.with_extension("source"), random_bytes(13, 80_000));
        let to = create(path);
        assert_eq!(copy_file_range(&from, Some(&mut 0), &to, Some(&mut 0), 80_000).unwrap(), 80_000);
        (to, bytes)
    }),
];

/// What a program finds that copies data and leaves holes out.
fn copied(file: &File, size: usize) -> (Vec<u8>, bool) {
    let mut bytes = vec![0; size];
    let mut has_data = false;
    let mut at = 0;
    loop {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => return (bytes, has_data),
            Err(errno) => panic!("SEEK_DATA {at}: {errno}"),
        };
        let end = seek(file, SeekFrom::Hole(data)).unwrap();
        assert!(at <= data && data < end && end <= size as u64, "from {at}: data {data} to {end} of {size}");
        file.read_exact_at(&mut bytes[data as usize..end as usize], data).unwrap();
        has_data = true;
        at = end;
    }
}

fn check(path: &Path, expected: &[u8]) {
    let shown = path.display();
    let metadata = fs::metadata(path).unwrap();
    assert_eq!(metadata.len(), expected.len() as u64, "{shown}");
    let (copied, has_data) = copied(&File::open(path).unwrap(), expected.len());
    assert!(copied == expected, "{shown}: a copy without holes has other bytes");
    assert!(fs::read(path).unwrap() == expected, "{shown}: other bytes are read");
    assert!(metadata.blocks() > 0 || !has_data, "{shown} has data and no blocks");
}

#[test]
fn blocks_data_and_bytes_agree_for_every_kind_of_file_in_every_view() {
    if !can_mount() {
        return;
    }
    for options in MODES {
        let mounted = Mounted::with_options(options);
        let root = mounted.snap();
        fs::create_dir(mounted.live().join("d")).unwrap();
        let check_all = |view: &str, made: &[(&str, Vec<u8>)]| {
            for (name, expected) in made {
                check(&root.join(view).join(name), expected);
            }
        };
        let mut made = Vec::new();
        for (name, make) in KINDS {
            let path = mounted.live().join("d").join(name);
            let (file, bytes) = make(&path);
            check(&path, &bytes);
            drop(file);
            check(&path, &bytes);
            made.push((*name, bytes));
        }
        check_all("live/d", &made);
        mounted.ok(["snap", "A"]);
        for view in ["live/d", "A/d", "live/d/.snap/A", "live/.snap/A/d"] {
            check_all(view, &made);
        }
        mounted.ok(["clone", "A", "clone"]);
        check_all("clone/d", &made);
        // What is archived is freed in the store.
        let archive = mounted.dir.path().join("archive");
        for name in ["B", "C"] {
            fs::write(mounted.live().join("d").join("many tracks"), name).unwrap();
            fs::remove_file(mounted.live().join("d").join("patched")).unwrap_or_default();
            mounted.ok(["roll", "--archive", archive.to_str().unwrap(), "--keep", "1", "--name", name]);
        }
        check_all("A/d", &made);
        mounted.umount();
        mounted.mount(options);
        for view in ["A/d", "clone/d"] {
            check_all(view, &made);
        }
        mounted.umount();
        mounted.check();
    }
}

/// Stores into a file through a mapping that stays, makes a file larger by write(2), or removes a file and goes on writing;
/// then says so and waits.
const HOLDER: &str = r#"
import mmap, os, sys
what, path = sys.argv[1:]
file = os.open(path, os.O_RDWR)
if what == 'maps':
    memory = mmap.mmap(file, 400000)
    memory[200000:200005] = b'store'
else:
    if what == 'removes': os.unlink(path)
    os.pwrite(file, b'write', 200000)
    os.pwrite(file, b'write', 900000)
print('ready', flush=True)
sys.stdin.read()
"#;

#[test]
fn what_only_the_kernel_has_is_data_and_has_blocks() {
    if !can_mount() {
        return;
    }
    for options in MODES {
        for what in ["maps", "writes", "removes"] {
            let mounted = Mounted::with_options(options);
            let path = mounted.live().join("f");
            File::create(&path).unwrap().set_len(400_000).unwrap();
            assert!(fs::metadata(&path).unwrap().blocks() <= 1);
            let mut held = File::open(&path).unwrap();
            let mut command = Command::new("python3");
            command.args(["-c", HOLDER, what]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
            let Ok(mut holder) = command.spawn() else { return eprintln!("not run: no python3 to map memory with") };
            let mut ready = [0; 6];
            holder.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
            let size = if what == "maps" { 400_000 } else { 900_005 };
            let mut expected = vec![0; size];
            expected[200_000..200_005].copy_from_slice(if what == "maps" { b"store" } else { b"write" });
            if what != "maps" {
                expected[900_000..].copy_from_slice(b"write");
            }
            let said = format!("{what} with {options:?}");
            let metadata = held.metadata().unwrap();
            assert!(metadata.blocks() > 0, "{said}: no blocks");
            assert_eq!(metadata.len(), size as u64, "{said}");
            let (found, _) = copied(&held, size);
            assert!(found == expected, "{said}: a copy without holes has other bytes");
            let mut read = Vec::new();
            held.rewind().unwrap();
            held.read_to_end(&mut read).unwrap();
            assert!(read == expected, "{said}: other bytes are read");
            // What is no data is still told.
            assert_eq!(seek(&held, SeekFrom::Data(0)), Ok(196_608), "{said}");
            assert_eq!(seek(&held, SeekFrom::Data(300_000)).is_ok(), what != "maps", "{said}");
            drop(holder.stdin.take());
            assert!(holder.wait().unwrap().success());
        }
    }
}

/// A file is closed for the daemon a little later than for whoever closes it.
fn blocks_come_to(path: &Path, is_right: impl Fn(u64) -> bool, said: &str) {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let blocks = fs::metadata(path).unwrap().blocks();
        if is_right(blocks) {
            return;
        }
        assert!(Instant::now() < until, "{said}: {blocks} blocks");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn blocks_are_counted_anew_when_data_comes_and_when_files_are_closed() {
    if !can_mount() {
        return;
    }
    for options in MODES {
        let mounted = Mounted::with_options(options);
        let bytes = random_bytes(30, 4096);
        let (path, other) = (mounted.live().join("f"), mounted.live().join("g"));
        let said = format!("{options:?}");
        let mut file = create(&path);
        let seen = File::open(&path).unwrap();
        for many in [1, 64, 500] {
            for _ in 0..many {
                file.write_all(&bytes).unwrap();
                assert!(seen.metadata().unwrap().blocks() > 0, "{said}: data without a block");
            }
            file.sync_all().unwrap();
            let metadata = seen.metadata().unwrap();
            assert_eq!(metadata.blocks(), metadata.len() / 512, "{said}: open");
        }
        file.write_all(&bytes).unwrap();
        drop(file);
        blocks_come_to(&path, |blocks| blocks == 566 * 8, &said);
        // Cut to nothing, and opened once more.
        File::create(&path).unwrap().write_all(&bytes).unwrap();
        blocks_come_to(&path, |blocks| blocks == 8, &said);
        let file = File::create(&path).unwrap();
        assert!(seen.metadata().unwrap().blocks() <= 1, "{said}");
        drop(file);
        blocks_come_to(&path, |blocks| blocks == 0, &said);
        // One hole shows a block for as long as it may get data.
        let hole = create(&other);
        hole.set_len(400_000).unwrap();
        assert_eq!(fs::metadata(&other).unwrap().blocks(), 1, "{said}");
        drop(hole);
        blocks_come_to(&other, |blocks| blocks == u64::from(options == ["open=none"]), &said);
        let hole = File::options().write(true).open(&other).unwrap();
        assert_eq!(fs::metadata(&other).unwrap().blocks(), 1, "{said}");
        hole.write_all_at(&bytes, 0).unwrap();
        drop(hole);
        blocks_come_to(&other, |blocks| blocks > 1, &said);
    }
}
