//! Random changes, and random paths brought back.

use super::store::*;
use pitfs::device::{Moment, Snapshot};
use pitfs::error::{Errno, Error};
use pitfs::tree::{Kind, Position, RenameMode};

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }
}

const NAMES: [&[u8]; 6] = [b"a", b"b", b"c", b"\xfe\xff", b"long name", b"f"];
const DEPTH: usize = 4;

struct World {
    store: Store,
    random: Random,
    step: u64,
    /// What is kept outside of snapshots, which may be gone.
    kept: Vec<(String, Picture)>,
}

impl World {
    /// Paths of what there is, of directories or of everything else.
    fn paths(&self, directories: bool) -> Vec<Vec<u8>> {
        let picture = self.store.picture(Moment::Live);
        let is_directory = |mode: u32| Kind::from_mode(mode) == Some(Kind::Directory);
        picture
            .all
            .iter()
            .filter(|(_, shown)| is_directory(shown.mode) == directories)
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// A name in some directory, that need not be there.
    fn place(&mut self) -> Vec<u8> {
        let depth = |path: &[u8]| path.split(|&byte| byte == b'/').count();
        let directories: Vec<_> = self.paths(true).into_iter().filter(|path| depth(path) < DEPTH).collect();
        let directory = self.random.pick(&directories).clone();
        let name = *self.random.pick(&NAMES);
        if directory.is_empty() { name.to_vec() } else { [&directory[..], b"/", name].concat() }
    }

    fn change(&mut self) {
        self.step += 1;
        let seed = self.step;
        let place = self.place();
        let is_free = !self.store.exists(&place);
        let files = self.paths(false);
        let everything: Vec<_> =
            files.iter().cloned().chain(self.paths(true).into_iter().filter(|path| !path.is_empty())).collect();
        let size = [0, 10, 900, 5000, 20_000, 60_000, 100_000][self.random.below(7) as usize];
        let some = |random: &mut Random, all: &[Vec<u8>]| (!all.is_empty()).then(|| random.pick(all).clone());
        let (store, random) = (&self.store, &mut self.random);
        match random.below(24) {
            0..=3 if is_free => {
                store.write(&place, &noise(seed, size));
            }
            4..=6 if is_free => {
                store.mkdir(&place);
            }
            7 if is_free => {
                store.make(&place, Kind::Symlink, &noise(seed, 20));
            }
            8 if is_free => {
                store.make(&place, *random.pick(&[Kind::Fifo, Kind::CharDevice]), b"");
            }
            9 | 10 if is_free => {
                if let Some(file) = some(random, &files) {
                    store.link(file, &place);
                }
            }
            11..=13 => {
                if let Some(file) = some(random, &files)
                    && store.inode(&file).kind() == Kind::File
                {
                    let inode = store.at(&file);
                    match random.below(5) {
                        0 => store.resize(inode, random.below(120_000)),
                        1 => store
                            .tree()
                            .files()
                            .zero(inode, random.below(50_000), random.below(60_000), true, false)
                            .unwrap(),
                        2 => {
                            let from = Position { of: inode.live(), offset: 0 };
                            store.tree().files().copy_range(from, inode, 2 * TRACK, 3 * TRACK, false).unwrap();
                        }
                        _ => store.write_at(inode, random.below(90_000), &noise(seed, size / 3)),
                    }
                }
            }
            14..=17 => {
                let (Some(from), Some(over)) = (some(random, &everything), some(random, &everything)) else { return };
                let mode = *random.pick(&[RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange]);
                let to = if mode == RenameMode::NoReplace { place } else { over };
                let is_below = |path: &[u8], above: &[u8]| path.starts_with(&[above, b"/"].concat()) || path == above;
                if !is_below(&to, &from) && !is_below(&from, &to) {
                    let ((a, name), (b, new)) = (split(&from), split(&to));
                    match store.tree().names().rename(store.at(a), name, store.at(b), new, mode) {
                        Ok(()) | Err(Error::Posix(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            18 | 19 => {
                if let Some(path) = some(random, &everything) {
                    store.remove(path);
                }
            }
            20 => {
                if let Some(path) = some(random, &everything) {
                    store.chmod(&path, 0o700 + random.below(0o100) as u32);
                    store.chown(&path, random.below(3) as u32, 7);
                }
            }
            21 => {
                if let Some(path) = some(random, &everything) {
                    store.utime(path, random.below(1 << 30) as i64);
                }
            }
            22 => {
                if let Some(path) = some(random, &everything) {
                    let name = *random.pick(&["user.a", "user.b"]);
                    store.set_xattr(path, name, &noise(seed, 30));
                }
            }
            _ => {
                if let Some(path) = some(random, &everything) {
                    let _not_there = store.tree().attributes().remove_xattr(store.at(path), b"user.a");
                }
            }
        }
    }

    fn bring_back(&mut self, snapshots: &[Snapshot]) {
        let then = self.random.pick(snapshots).clone();
        let known: Vec<Vec<u8>> = self.store.picture(Moment::At(then.epoch)).all.into_keys().collect();
        let count = 1 + self.random.below(3) * self.random.below(2);
        let paths: Vec<Vec<u8>> = (0..count).map(|_| self.random.pick(&known).clone()).collect();
        let paths: Vec<&[u8]> = paths.iter().map(Vec::as_slice).collect();
        let store = &self.store;
        let old = store.picture(Moment::Live).part(&|_| true);
        let report = match store.try_back(&then, &paths) {
            // Something above a path is no directory now.
            Err(Error::Refused(Errno::NOTDIR, _)) => return,
            result => result.unwrap(),
        };
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        store.check_back(&then, &report, &paths);
        if self.random.below(4) == 0 {
            store.back_again(&then, &paths);
        }
        if self.random.below(3) == 0 && !report.before.is_empty() {
            let before = store.views().find(report.before.as_bytes()).unwrap().unwrap();
            store.back(&before, &[b""]);
            assert_same(&old, &store.picture(Moment::Live).part(&|_| true), "undone");
        } else if self.random.below(2) == 0 && !report.before.is_empty() {
            store.undo();
            let mut found = store.picture(Moment::Live).part(&|_| true);
            // Around what was restored directories were changed in so far, and what was linked to names there got an inode of its own.
            for (path, shown) in &mut found.0 {
                let Some(old) = old.0.get(path) else { continue };
                shown.same_as.clone_from(&old.same_as);
                if shown.mode & libc::S_IFMT == libc::S_IFDIR {
                    shown.times = old.times;
                }
            }
            assert_same(&old, &found, "undone as far as it went");
        }
    }

    /// The same out of what is kept outside.
    fn bring_back_from_set(&mut self) {
        if self.kept.is_empty() {
            return;
        }
        let which = self.random.below(self.kept.len() as u64) as usize;
        let (name, then) = &self.kept[which];
        let known: Vec<&[u8]> = then.all.keys().map(Vec::as_slice).collect();
        let count = 1 + self.random.below(3) * self.random.below(2);
        let paths: Vec<&[u8]> = (0..count).map(|_| *self.random.pick(&known)).collect();
        let store = &self.store;
        let old = store.picture(Moment::Live).part(&|_| true);
        let report = match store.try_back_from_set(name, &paths) {
            Err(Error::Refused(Errno::NOTDIR, _)) => return,
            result => result.unwrap(),
        };
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        store.check_back_to(then, &report, &paths);
        match self.random.below(3) {
            0 => {
                let again = store.try_back_from_set(name, &paths).unwrap();
                assert_eq!((again.files, again.bytes, again.removed, again.before.as_str()), (0, 0, 0, ""));
            }
            1 if !report.before.is_empty() => {
                let before = store.views().find(report.before.as_bytes()).unwrap().unwrap();
                store.back(&before, &[b""]);
                assert_same(&old, &store.picture(Moment::Live).part(&|_| true), "undone");
            }
            _ => {}
        }
    }
}

fn run(seed: u64) {
    eprintln!("seed {seed}");
    let mut world = World::of(Store::new(), seed);
    let mut snapshots: Vec<Snapshot> = Vec::new();
    for round in 0..8 {
        for _ in 0..world.random.below(40) {
            world.change();
        }
        if round == 0 || world.random.below(2) == 0 {
            let taken = world.store.snap(&format!("round {round}"));
            if world.random.below(3) > 0 {
                world.store.keep(&taken);
                world.kept.push((taken.record.name.clone(), world.store.picture(Moment::At(taken.epoch))));
            }
            snapshots.push(taken);
        }
        if world.random.below(6) == 0 {
            let to = world.random.pick(&snapshots).clone();
            world.store.views().restores().restore(&to).unwrap();
        }
        for _ in 0..world.random.below(10) {
            world.change();
        }
        match world.random.below(2) {
            0 => world.bring_back(&snapshots),
            _ => world.bring_back_from_set(),
        }
        if snapshots.len() > 2 && world.random.below(2) == 0 {
            let gone = snapshots.remove(world.random.below(snapshots.len() as u64) as usize);
            world.store.daemon.views().deletions().delete(&[gone.record.name.as_bytes()]).unwrap();
        }
    }
    world.store.check();
}

/// PITFS_SEED=n begins elsewhere, PITFS_RUNS=n makes more of them.
#[test]
fn random_changes_are_undone_where_they_are_asked_for() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let first = number("PITFS_SEED", 1);
    for seed in first..first + number("PITFS_RUNS", 25) {
        run(seed);
    }
}

impl World {
    fn of(store: Store, seed: u64) -> World {
        World { store, random: Random(seed.wrapping_mul(0x9E37_79B9) | 1), step: 0, kept: Vec::new() }
    }

    fn change_often(&mut self, most: u64) {
        for _ in 0..self.random.below(most) {
            self.change();
        }
    }
}

/// A store and a copy of it, which back up to one target: the copy brings back what the first one has had since.
fn run_copies(seed: u64) {
    eprintln!("copies, seed {seed}");
    let mut first = World::of(Store::new(), seed);
    first.change_often(30);
    first.store.keep(&first.store.snap("both"));
    let (store, other) = first.store.copied();
    let (mut first, mut copy) = (World::of(store, seed), World::of(other, seed + 1000));
    for round in 0..6 {
        first.change_often(15);
        let taken = first.store.snap(&format!("first {round}"));
        first.store.keep(&taken);
        copy.kept.push((taken.record.name.clone(), first.store.picture(Moment::At(taken.epoch))));
        copy.change_often(15);
        if copy.random.below(2) == 0 {
            let taken = copy.store.snap(&format!("copy {round}"));
            copy.store.keep(&taken);
            copy.kept.push((taken.record.name.clone(), copy.store.picture(Moment::At(taken.epoch))));
        }
        copy.bring_back_from_set();
        copy.store.check();
    }
    // What both have kept, in one store, with tracks of this size and of others.
    let made = first.store.made_of_kept(TRACK as usize);
    let other = first.store.made_of_kept(4 * TRACK as usize);
    for store in [&made, &other] {
        store.check();
    }
    for (name, wanted) in &copy.kept {
        let at = |store: &Store| Moment::At(store.views().find(name.as_bytes()).unwrap().unwrap().epoch);
        let (shown, recut) = (made.picture(at(&made)), other.picture(at(&other)));
        assert_same(&wanted.part(&|_| true), &shown.part(&|_| true), name);
        // Where holes are, and of how many tracks a file consists, is the store's affair.
        let without = |picture: &Picture| {
            let mut part = picture.part(&|_| true);
            part.0.values_mut().for_each(|shown| (shown.content, shown.tracks) = (Vec::new(), 0));
            part
        };
        assert_same(&without(wanted), &without(&recut), name);
        for path in shown.all.keys() {
            let read = |store: &Store, picture: &Picture| {
                store.tree().files().read(picture.inodes[path].at(at(store)), 0, 1 << 20).unwrap_or_default()
            };
            assert!(read(&made, &shown) == read(&other, &recut), "{name}: {}", String::from_utf8_lossy(path));
        }
    }
}

#[test]
fn what_copies_keep_beside_each_other_comes_back() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let first = number("PITFS_SEED", 1);
    for seed in first..first + number("PITFS_RUNS", 15) {
        run_copies(seed);
    }
}
