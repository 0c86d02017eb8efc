//! The power is cut while files are fsynced one by one: what fsync promised is there, and each file is as
//! it was at one moment after its last fsync.

use crate::common::check::check;
use crate::common::model::write;
use crate::common::rng::Rng;
use crate::common::world::open;
use pitfs::device::InodeNo;
use pitfs::error::Error;
use pitfs::logstore::Codec;
use pitfs::media::{Tearing, TestDir};
use pitfs::tree::{Caller, Change, CreateOptions, Kind, New, ROOT, RenameMode, Tree};
use pitfs::view::Views;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const TRACK: usize = 16 << 10;
const CALLER: Caller = Caller { uid: 0, gid: 0, umask: 0 };

type State = (Vec<u8>, u32);

struct File {
    parent: InodeNo,
    name: Vec<u8>,
    /// What it was after each change.
    history: Vec<State>,
    /// The place in its history of the last fsync or commit; `None` before the first.
    synced: Option<usize>,
    /// It was renamed or removed after that.
    is_moved: bool,
}

struct Load {
    views: Arc<Views>,
    rng: Rng,
    directories: Vec<InodeNo>,
    files: BTreeMap<InodeNo, File>,
    removed: BTreeMap<InodeNo, File>,
    next_name: u32,
}

fn create(dir: &TestDir) {
    let options = CreateOptions { track_bytes: TRACK, codec: Codec::Lz4, uid: 0, gid: 0, mode: 0o755, hash_seed: 7 };
    Tree::create(Arc::new(dir.clone()), &options).unwrap();
}

impl Load {
    fn new(dir: &TestDir, seed: u64) -> Load {
        let views = Arc::new(open(Arc::new(dir.clone())).unwrap());
        let (files, removed) = (BTreeMap::new(), BTreeMap::new());
        Load { views, rng: Rng::new(seed), directories: vec![ROOT], files, removed, next_name: 0 }
    }

    fn tree(&self) -> &Tree {
        self.views.tree()
    }

    fn name(&mut self) -> Vec<u8> {
        // Names come again, so that one file takes the name that another one had.
        self.next_name += 1;
        format!("n{}", self.rng.below(u64::from(self.next_name / 2) + 3)).into_bytes()
    }

    fn all_synced(&mut self) {
        self.removed.clear();
        for file in self.files.values_mut() {
            (file.synced, file.is_moved) = (Some(file.history.len() - 1), false);
        }
    }

    fn step(&mut self) -> Result<(), Error> {
        let numbers: Vec<InodeNo> = self.files.keys().copied().collect();
        if numbers.is_empty() || self.rng.percent(12) {
            return self.make();
        }
        let number = self.rng.pick(&numbers);
        match self.rng.below(100) {
            0..40 => self.write(number)?,
            40..48 => {
                let size = self.rng.below(3 * TRACK as u64);
                self.tree().attributes().change(number, Change { size: Some(size), ..Change::default() })?;
                self.changed(number, |(bytes, _)| bytes.resize(size as usize, 0));
            }
            48..52 => {
                let (offset, len) = (self.rng.below(2 * TRACK as u64), self.rng.below(TRACK as u64 + 9) + 1);
                self.tree().files().zero(number, offset, len, true, false)?;
                self.changed(number, |(bytes, _)| {
                    let end = bytes.len().min((offset + len) as usize);
                    if (offset as usize) < end {
                        bytes[offset as usize..end].fill(0);
                    }
                });
            }
            52..56 => {
                let mode = self.rng.below(0o1000) as u32;
                self.tree().attributes().change(number, Change { permissions: Some(mode), ..Change::default() })?;
                self.changed(number, |(_, permissions)| *permissions = mode);
            }
            56..60 => self.rename(number)?,
            60..63 => self.remove(number)?,
            63..66 => {
                self.tree().commit()?;
                self.all_synced();
            }
            66..68 => {
                self.views.snapshots().take(None)?;
                self.all_synced();
            }
            _ => {
                self.tree().files().sync_inode(number)?;
                let file = self.files.get_mut(&number).unwrap();
                (file.synced, file.is_moved) = (Some(file.history.len() - 1), false);
            }
        }
        Ok(())
    }

    fn changed(&mut self, number: InodeNo, change: impl FnOnce(&mut State)) {
        let file = self.files.get_mut(&number).unwrap();
        let mut state = file.history.last().unwrap().clone();
        change(&mut state);
        file.history.push(state);
    }

    fn make(&mut self) -> Result<(), Error> {
        let name = self.name();
        let parent = self.rng.pick(&self.directories.clone());
        let kind = if self.rng.percent(20) { Kind::Directory } else { Kind::File };
        let new = New { kind, permissions: 0o644, rdev: 0, target: b"" };
        match self.tree().names().make(CALLER, parent, &name, new) {
            Ok((number, _)) if kind == Kind::Directory => self.directories.push(number),
            Ok((number, _)) => {
                let history = vec![(Vec::new(), 0o644)];
                self.files.insert(number, File { parent, name, history, synced: None, is_moved: false });
            }
            Err(Error::Posix(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn write(&mut self, number: InodeNo) -> Result<(), Error> {
        let most = self.rng.pick(&[200, 3000, 9000, 40_000]);
        let (offset, len) = (self.rng.below(most), self.rng.below(most) as usize + 1);
        let data = self.rng.bytes(len);
        // It may have happened when an error is reported.
        self.changed(number, |(bytes, _)| write(bytes, offset as usize, &data));
        self.tree().files().write(number, offset, &data, false)
    }

    fn rename(&mut self, number: InodeNo) -> Result<(), Error> {
        let (new_name, new_parent) = (self.name(), self.rng.pick(&self.directories.clone()));
        let file = &self.files[&number];
        match self.tree().names().rename(file.parent, &file.name, new_parent, &new_name, RenameMode::NoReplace) {
            Ok(()) => {
                let file = self.files.get_mut(&number).unwrap();
                (file.parent, file.name, file.is_moved) = (new_parent, new_name, true);
            }
            Err(Error::Posix(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn remove(&mut self, number: InodeNo) -> Result<(), Error> {
        let mut file = self.files.remove(&number).unwrap();
        file.is_moved = true;
        let result = self.tree().names().unlink(file.parent, &file.name).map(|_| ());
        self.removed.insert(number, file);
        result
    }

    fn verify(&self, dir: TestDir) {
        let views = open(Arc::new(dir)).unwrap_or_else(|error| panic!("it does not open: {error}"));
        let tree = views.tree();
        check(tree).unwrap_or_else(|text| panic!("its records do not hold together: {text}"));
        let removed = self.removed.iter().map(|(number, file)| (number, file, true));
        for (&number, file, is_removed) in self.files.iter().map(|(number, file)| (number, file, false)).chain(removed)
        {
            let Some(synced) = file.synced else { continue };
            let found = match tree.inode(number.live()) {
                Ok(found) if found.links > 0 => found,
                _ if is_removed => continue,
                _ => panic!("inode {number} was fsynced and is gone"),
            };
            let bytes = tree.files().read(number.live(), 0, 1 << 20).unwrap();
            let state = (bytes, found.permissions());
            let place = file.history[synced..].iter().position(|known| *known == state);
            assert!(
                place.is_some(),
                "inode {number} has {} bytes, mode {:o}; fsynced were {} of mode {:o}, and {} changes followed",
                state.0.len(),
                state.1,
                file.history[synced].0.len(),
                file.history[synced].1,
                file.history.len() - synced - 1,
            );
            if !file.is_moved {
                let named = tree.names().lookup(file.parent.live(), &file.name).map(|(number, _)| number);
                assert!(matches!(named, Ok(named) if named == number), "inode {number} has lost its name");
            }
        }
    }
}

/// Works until the media stops, and looks at what is left; with `commits` while somebody else commits.
fn cut(seed: u64, sync: u64, commits: bool) -> bool {
    let dir = TestDir::new();
    create(&dir);
    let mut load = Load::new(&dir, seed);
    dir.stop_at_sync(sync);
    let mut failed = false;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        if commits {
            let (done, views) = (&done, load.views.clone());
            scope.spawn(move || while !done.load(Ordering::Relaxed) && views.tree().commit().is_ok() {});
        }
        failed = (0..400).any(|_| load.step().is_err());
        done.store(true, Ordering::Relaxed);
    });
    for tearing in [Tearing::LoseAll, Tearing::Random(seed << 20 | sync)] {
        load.verify(dir.after_power_cut(tearing));
    }
    failed
}

#[test]
fn what_was_fsynced_survives_a_power_cut_at_any_sync() {
    for (seed, step) in [(1, 2), (2, 9), (3, 9)] {
        let mut sync = 1;
        while cut(seed, sync, false) {
            sync += step;
        }
        assert!(sync > 60, "seed {seed} has {sync} syncs only");
    }
}

#[test]
fn what_was_fsynced_survives_while_commits_go_on() {
    let mut rng = Rng::new(5);
    for seed in 100..130 {
        cut(seed, rng.below(300) + 1, true);
    }
}

/// A restore waits for one flush only; what it undid must not come again with an fsync after it.
#[test]
fn what_a_restore_undid_is_not_done_again_by_an_fsync() {
    for tearing in [Tearing::LoseAll, Tearing::InOrder(3)] {
        let dir = TestDir::new();
        create(&dir);
        let views = open(Arc::new(dir.clone())).unwrap();
        let tree = views.tree();
        tree.device().fsync().prepare().unwrap();
        let new = New { kind: Kind::File, permissions: 0o644, rdev: 0, target: b"" };
        let (file, _) = tree.names().make(CALLER, ROOT, b"file", new).unwrap();
        let content = Rng::new(1).bytes(100_000);
        tree.files().write(file, 0, &content, false).unwrap();
        let before = views.snapshots().take(Some(b"before")).unwrap();
        tree.attributes().change(file, Change { size: Some(0), ..Change::default() }).unwrap();
        tree.files().write(file, 5000, b"after", false).unwrap();
        views.restores().restore(&before).unwrap();
        tree.files().sync_inode(file).unwrap();
        let views = open(Arc::new(dir.after_power_cut(tearing))).unwrap();
        check(views.tree()).unwrap();
        assert!(views.tree().files().read(file.live(), 0, 200_000).unwrap() == content);
    }
}
