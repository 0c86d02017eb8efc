//! Random operations through a mount, beside the same ones in an ordinary directory, whose whole copies
//! stand for the snapshots.

mod mounted;

use mounted::*;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

const STEPS: usize = 1500;

struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % below
    }

    fn path(&mut self) -> PathBuf {
        let depth = self.next(3);
        let directories = (0..depth).map(|_| format!("d{}", self.next(3))).collect::<PathBuf>();
        directories.join(format!("f{}", self.next(8)))
    }

    fn directory(&mut self) -> PathBuf {
        (0..=self.next(2)).map(|_| format!("d{}", self.next(3))).collect()
    }
}

/// One random operation, drawn once and carried out in both places.
#[derive(Debug)]
enum Operation {
    Write(PathBuf, u64, Vec<u8>),
    Truncate(PathBuf, u64),
    MakeDirectory(PathBuf),
    RemoveFile(PathBuf),
    RemoveDirectory(PathBuf),
    Rename(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Symlink(PathBuf, PathBuf),
    Mode(PathBuf, u32),
    Copy(PathBuf, PathBuf),
    Punch(PathBuf, u64, u64),
}

fn draw(random: &mut Random) -> Operation {
    use Operation::*;
    match random.next(16) {
        0..=5 => {
            let len = [1, 100, 1000, 5000, 16_384, 50_000][random.next(6)];
            let offset = [0, 0, 500, 1024, 16_000, 16_384, 100_000][random.next(7)];
            Write(random.path(), offset, vec![random.next(256) as u8; len])
        }
        6 => Truncate(random.path(), [0, 10, 1024, 1025, 16_384, 40_000][random.next(6)]),
        7 | 8 => MakeDirectory(random.directory()),
        9 => RemoveFile(random.path()),
        10 => RemoveDirectory(random.directory()),
        11 => {
            if random.next(3) == 0 {
                Rename(random.directory(), random.directory())
            } else {
                Rename(random.path(), random.path())
            }
        }
        12 => Link(random.path(), random.path()),
        13 => Symlink(random.path(), random.path()),
        14 => match random.next(3) {
            0 => Punch(random.path(), random.next(60_000) as u64, 1 + random.next(60_000) as u64),
            _ => Copy(random.path(), random.path()),
        },
        _ => Mode(random.path(), 0o400 + random.next(0o400) as u32),
    }
}

fn apply(root: &Path, operation: &Operation) -> io::Result<()> {
    use Operation::*;
    match operation {
        Write(path, offset, bytes) => {
            let file = File::options().write(true).create(true).truncate(false).open(root.join(path))?;
            file.write_all_at(bytes, *offset)
        }
        Truncate(path, size) => File::options().write(true).open(root.join(path))?.set_len(*size),
        MakeDirectory(path) => fs::create_dir(root.join(path)),
        RemoveFile(path) => fs::remove_file(root.join(path)),
        RemoveDirectory(path) => fs::remove_dir(root.join(path)),
        Rename(from, to) => fs::rename(root.join(from), root.join(to)),
        Link(from, to) => fs::hard_link(root.join(from), root.join(to)),
        Symlink(target, at) => std::os::unix::fs::symlink(target, root.join(at)),
        Mode(path, mode) => {
            // Links are not followed: they may lead anywhere in the tree.
            if root.join(path).symlink_metadata()?.is_symlink() {
                return Ok(());
            }
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(*mode))
        }
        Copy(from, to) => fs::copy(root.join(from), root.join(to)).map(|_| ()),
        Punch(path, offset, len) => {
            use rustix::fs::FallocateFlags;
            let file = File::options().write(true).open(root.join(path))?;
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            Ok(rustix::fs::fallocate(&file, flags, *offset, *len)?)
        }
    }
}

/// A listing without times: the two places are not written at the same moment.
fn without_times(mut list: Vec<Shown>) -> Vec<Shown> {
    for shown in &mut list {
        shown.mtime = (0, 0);
    }
    list
}

#[test]
fn random_operations_through_a_mount_match_a_directory() {
    if !can_mount() || !is_root() {
        return eprintln!("not run: needs /dev/fuse, and root for whom no mode is an obstacle");
    }
    for seed in [1u64, 20_261_121] {
        run(seed);
    }
}

fn run(seed: u64) {
    let mut random = Random(seed);
    let mounted = Mounted::new();
    let model = mounted.dir.path().join("model");
    fs::create_dir(&model).unwrap();
    let mut snapshots: BTreeMap<String, Vec<Shown>> = BTreeMap::new();
    for step in 0..STEPS {
        match random.next(40) {
            0 => {
                let name = format!("s{step}");
                let copy = mounted.dir.path().join(&name);
                assert!(Command::new("cp").arg("-a").arg(&model).arg(&copy).status().unwrap().success());
                let expected = listing(&mounted.live());
                fs::create_dir(mounted.snap().join(&name)).unwrap();
                assert_same(
                    &without_times(listing(&copy)),
                    &without_times(expected.clone()),
                    &format!("seed {seed} {name}"),
                );
                snapshots.insert(name, expected);
            }
            1 if snapshots.len() > 3 => {
                let victim = snapshots.keys().nth(random.next(snapshots.len())).unwrap().clone();
                fs::remove_dir(mounted.snap().join(&victim)).unwrap();
                snapshots.remove(&victim);
            }
            2 if step % 5 == 0 => mounted.remount(),
            _ => {
                let operation = draw(&mut random);
                let (there, here) = (apply(&model, &operation), apply(&mounted.live(), &operation));
                let number = |result: &io::Result<()>| result.as_ref().err().map(io::Error::raw_os_error);
                assert_eq!(number(&there), number(&here), "seed {seed} step {step}: {operation:?}: {here:?}");
            }
        }
        if step % 250 == 249 {
            let (model, live) = (without_times(listing(&model)), without_times(listing(&mounted.live())));
            assert_same(&model, &live, &format!("seed {seed} step {step}"));
        }
    }
    for round in 0..2 {
        for (name, expected) in &snapshots {
            assert_same(expected, &listing(&mounted.snap().join(name)), &format!("seed {seed} {name} round {round}"));
        }
        mounted.remount();
    }
    mounted.check();
}
