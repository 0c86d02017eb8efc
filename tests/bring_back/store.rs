//! A store of its own for each test, worked on by paths, and pictures of what it shows.

use pitfs::clock::{Epoch, Timestamp};
use pitfs::daemon::{
    AddTarget, BackupOptions, BringBackReport, Daemon, FromSets, KeptBy, Parts, Progress, add_target, backup,
    create_from_sets, open_repository, open_target,
};
use pitfs::device::{InodeAt, InodeNo, LIVE, Moment, Snapshot};
use pitfs::error::{Error, Result};
use pitfs::logstore::Codec;
use pitfs::meta::Table;
use pitfs::set;
use pitfs::tree::{Caller, Change, CreateOptions, Inode, Kind, New, ROOT, RenameMode, SetTime, Tree};
use pitfs::view::Views;
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;
use std::sync::Arc;

pub const TRACK: u64 = 16 << 10;
pub const MAKER: Caller = Caller { uid: 1000, gid: 100, umask: 0o022 };

pub struct Store {
    pub dir: tempfile::TempDir,
    pub daemon: Daemon,
}

/// Bytes that no other seed has and that do not compress.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// All files below a directory.
fn files_below(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

impl Store {
    pub fn new() -> Store {
        Store::with_tracks(TRACK as usize)
    }

    pub fn with_tracks(track_bytes: usize) -> Store {
        let dir = crate::guard::temporary();
        let options = CreateOptions { track_bytes, codec: Codec::Lz4, uid: 0, gid: 0, mode: 0o755, hash_seed: 5 };
        Daemon::create(&dir.path().join("store"), &options).unwrap();
        let daemon = Daemon::open(&dir.path().join("store")).unwrap();
        Store { dir, daemon }
    }

    pub fn views(&self) -> &Arc<Views> {
        self.daemon.views()
    }

    pub fn tree(&self) -> &Tree {
        self.views().tree()
    }

    pub fn snap(&self, name: &str) -> Snapshot {
        self.daemon.views().snapshots().take(Some(name.as_bytes())).unwrap()
    }

    pub fn at(&self, path: impl AsRef<[u8]>) -> InodeNo {
        self.tree().names().resolve(LIVE, path.as_ref(), Moment::Live).unwrap()
    }

    pub fn inode(&self, path: impl AsRef<[u8]>) -> Inode {
        self.tree().inode(self.at(path).live()).unwrap()
    }

    pub fn exists(&self, path: impl AsRef<[u8]>) -> bool {
        self.tree().names().resolve(LIVE, path.as_ref(), Moment::Live).is_ok()
    }

    pub fn make(&self, path: impl AsRef<[u8]>, kind: Kind, target: &[u8]) -> InodeNo {
        let (parent, name) = split(path.as_ref());
        let rdev = if kind == Kind::CharDevice { 0x103 } else { 0 };
        let new = New { kind, permissions: if kind == Kind::Directory { 0o755 } else { 0o644 }, rdev, target };
        self.tree().names().make(MAKER, self.at(parent), name, new).unwrap().0
    }

    pub fn mkdir(&self, path: impl AsRef<[u8]>) -> InodeNo {
        self.make(path, Kind::Directory, b"")
    }

    /// Makes a file, or gives one other bytes.
    pub fn write(&self, path: impl AsRef<[u8]>, bytes: &[u8]) -> InodeNo {
        let path = path.as_ref();
        let inode = if self.exists(path) { self.at(path) } else { self.make(path, Kind::File, b"") };
        self.resize(inode, 0);
        self.write_at(inode, 0, bytes);
        inode
    }

    pub fn write_at(&self, inode: InodeNo, offset: u64, bytes: &[u8]) {
        self.tree().files().write(inode, offset, bytes, false).unwrap();
    }

    pub fn resize(&self, inode: InodeNo, size: u64) {
        self.tree().attributes().change(inode, Change { size: Some(size), ..Change::default() }).unwrap();
    }

    pub fn read(&self, path: impl AsRef<[u8]>) -> Vec<u8> {
        self.tree().files().read(self.at(path).live(), 0, 100 << 20).unwrap()
    }

    pub fn chmod(&self, path: impl AsRef<[u8]>, permissions: u32) {
        let change = Change { permissions: Some(permissions), ..Change::default() };
        self.tree().attributes().change(self.at(path), change).unwrap();
    }

    pub fn chown(&self, path: impl AsRef<[u8]>, uid: u32, gid: u32) {
        let change = Change { uid: Some(uid), gid: Some(gid), ..Change::default() };
        self.tree().attributes().change(self.at(path), change).unwrap();
    }

    pub fn utime(&self, path: impl AsRef<[u8]>, seconds: i64) {
        let time = |nanos| Some(SetTime::To(Timestamp { seconds, nanos }));
        self.tree()
            .attributes()
            .change(self.at(path), Change { atime: time(5), mtime: time(7), ..Change::default() })
            .unwrap();
    }

    pub fn set_xattr(&self, path: impl AsRef<[u8]>, name: &str, value: &[u8]) {
        self.tree()
            .attributes()
            .set_xattr(self.at(path), name.as_bytes(), value, pitfs::tree::SetXattr::default())
            .unwrap();
    }

    pub fn link(&self, old: impl AsRef<[u8]>, new: impl AsRef<[u8]>) {
        let (parent, name) = split(new.as_ref());
        self.tree().names().link(self.at(old), self.at(parent), name).unwrap();
    }

    pub fn rename_as(&self, old: impl AsRef<[u8]>, new: impl AsRef<[u8]>, mode: RenameMode) {
        let ((from, name), (to, new_name)) = (split(old.as_ref()), split(new.as_ref()));
        self.tree().names().rename(self.at(from), name, self.at(to), new_name, mode).unwrap();
    }

    pub fn rename(&self, old: impl AsRef<[u8]>, new: impl AsRef<[u8]>) {
        self.rename_as(old, new, RenameMode::Replace);
    }

    /// Removes a name, of a directory with all that is in it.
    pub fn remove(&self, path: impl AsRef<[u8]>) {
        let path = path.as_ref();
        let (parent, name) = split(path);
        let inode = self.at(path);
        if !self.inode(path).is_directory() {
            self.tree().names().unlink(self.at(parent), name).unwrap();
            return;
        }
        let mut names = Vec::new();
        let each = |entry: &pitfs::tree::Entry| {
            names.push(entry.name.clone());
            Ok(true)
        };
        self.tree().names().list(inode.live(), 0, each).unwrap();
        for name in names {
            self.remove([path, b"/", &name].concat());
        }
        self.tree().names().remove_directory(self.at(parent), name).unwrap();
    }

    pub fn try_back(&self, snapshot: &Snapshot, paths: &[&[u8]]) -> Result<BringBackReport> {
        self.back_with(snapshot, paths, &mut |_| Ok(()))
    }

    pub fn back_with(
        &self,
        snapshot: &Snapshot,
        paths: &[&[u8]],
        progress: &mut dyn FnMut(&Progress) -> Result<()>,
    ) -> Result<BringBackReport> {
        let paths: Vec<ByteBuf> = paths.iter().map(|path| ByteBuf::from(*path)).collect();
        let result = self.daemon.path_restores().bring_back(self.views(), snapshot, &paths, progress);
        self.tree().device().feed().wait();
        result.map(|(report, _)| report)
    }

    /// Brings paths back, which is told before, and looks at what became of everything.
    pub fn back(&self, snapshot: &Snapshot, paths: &[&[u8]]) -> BringBackReport {
        let wanted: Vec<ByteBuf> = paths.iter().map(|path| ByteBuf::from(*path)).collect();
        let told = self.daemon.path_restores().rehearse(self.views(), snapshot, &wanted, &mut |_| Ok(()));
        let (told, before) = told.unwrap();
        let report = self.try_back(snapshot, paths).unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        let counted = |report: &BringBackReport| (report.files, report.bytes, report.removed);
        assert_eq!((counted(&told), before.is_some()), (counted(&report), !report.before.is_empty()), "{paths:?}");
        self.check_back(snapshot, &report, paths);
        report
    }

    /// This store, opened again, and a copy of it.
    pub fn copied(self) -> (Store, Store) {
        let Store { dir, daemon } = self;
        daemon.close().unwrap();
        drop(daemon);
        let other = crate::guard::temporary();
        let copied =
            std::process::Command::new("cp").arg("-a").arg(dir.path().join("store")).arg(other.path()).status();
        assert!(copied.unwrap().success());
        let open = |dir: tempfile::TempDir| Store { daemon: Daemon::open(&dir.path().join("store")).unwrap(), dir };
        (open(dir), open(other))
    }

    /// A store made of all that is kept outside.
    pub fn made_of_kept(&self, track_bytes: usize) -> Store {
        let dir = crate::guard::temporary();
        let at = open_repository(&self.daemon, self.views(), None).unwrap();
        let options = FromSets { with_history: true, codec: Codec::Lz4, track_bytes: Some(track_bytes) };
        let made = create_from_sets(&dir.path().join("store"), &at.repository, &options, &mut |_| Ok(())).unwrap();
        assert!(made.left_out.is_empty(), "{:?}", made.left_out);
        Store { daemon: Daemon::open(&dir.path().join("store")).unwrap(), dir }
    }

    /// Undoes the last restore, of paths, which is told before.
    pub fn undo(&self) -> BringBackReport {
        let (kept, paths) = self.views().restores().last_undo().unwrap();
        let undo = |views: &Views| self.daemon.path_restores().undo(views, &kept, &paths, &mut |_| Ok(())).unwrap().0;
        let (told, done) = (undo(&self.views().rehearsing()), undo(self.views()));
        self.tree().device().feed().wait();
        let counts = |report: &BringBackReport| (report.files, report.bytes, report.removed);
        assert!(done.problems.is_empty(), "{:?}", done.problems);
        assert_eq!(counts(&told), counts(&done), "{paths:?}");
        done
    }

    /// Keeps a snapshot outside the store.
    pub fn keep(&self, snapshot: &Snapshot) {
        if self.views().targets().all().unwrap().is_empty() {
            let directory = self.dir.path().join("usb");
            std::fs::create_dir(&directory).unwrap();
            let target = AddTarget { name: "usb".into(), directory, lock: KeptBy::Nobody };
            add_target(&self.daemon, self.views(), &target).unwrap();
        }
        let (target, key) = open_target(self.views(), None).unwrap();
        let options = BackupOptions {
            snapshot: Some(snapshot.record.name.clone().into_bytes()),
            kind: set::Kind::Incremental,
            level: 1,
            limit: None,
            parts: Parts::default(),
        };
        backup(self.views(), &target, key.as_ref(), &options, &mut |_| Ok(())).unwrap();
    }

    /// Changes a byte in what is kept outside where some bytes lie, which do not compress.
    pub fn damage_kept(&self, bytes: &[u8]) {
        let mut is_found = false;
        for entry in files_below(&self.dir.path().join("usb")) {
            let mut kept = std::fs::read(&entry).unwrap();
            if let Some(at) = kept.windows(32).position(|window| window == &bytes[..32]) {
                kept[at] ^= 1;
                std::fs::write(&entry, kept).unwrap();
                is_found = true;
            }
        }
        assert!(is_found);
    }

    /// Brings paths back out of what is kept outside, which is told before.
    pub fn try_back_from_set(&self, name: &str, paths: &[&[u8]]) -> Result<BringBackReport> {
        let paths: Vec<ByteBuf> = paths.iter().map(|path| ByteBuf::from(*path)).collect();
        let at = open_repository(&self.daemon, self.views(), None).unwrap();
        let back = |views: &Views| {
            let wanted = (name.as_bytes(), paths.as_slice());
            self.daemon.path_restores().bring_back_from_set(views, &at, wanted, &mut |_| Ok(()))
        };
        let (_, told, _) = back(&self.views().rehearsing())?;
        let (_, report, before) = back(self.views())?;
        self.tree().device().feed().wait();
        let counted = |report: &BringBackReport| (report.files, report.bytes, report.removed);
        assert_eq!((counted(&told), before.is_some()), (counted(&report), !report.before.is_empty()), "{paths:?}");
        Ok(report)
    }

    /// The same, untold.
    pub fn back_from_set(&self, name: &str, paths: &[&[u8]]) -> Result<BringBackReport> {
        let paths: Vec<ByteBuf> = paths.iter().map(|path| ByteBuf::from(*path)).collect();
        let at = open_repository(&self.daemon, self.views(), None).unwrap();
        let wanted = (name.as_bytes(), paths.as_slice());
        let result = self.daemon.path_restores().bring_back_from_set(self.views(), &at, wanted, &mut |_| Ok(()));
        self.tree().device().feed().wait();
        result.map(|(_, report, _)| report)
    }

    /// What was brought back is as it was in the snapshot, and nothing else has changed.
    pub fn check_back(&self, snapshot: &Snapshot, report: &BringBackReport, paths: &[&[u8]]) {
        self.check_back_to(&self.picture(Moment::At(snapshot.epoch)), report, paths);
    }

    /// The same of what is known of the snapshot.
    pub fn check_back_to(&self, then: &Picture, report: &BringBackReport, paths: &[&[u8]]) {
        // Without a snapshot of what was there before, nothing differed.
        let before = self.views().find(report.before.as_bytes()).unwrap();
        assert_eq!(before.is_some(), !report.before.is_empty());
        let (old, new) =
            (self.picture(before.map_or(Moment::Live, |before| Moment::At(before.epoch))), self.picture(Moment::Live));
        let is_inside = |path: &[u8]| {
            paths.iter().any(|top| {
                let top = top.strip_suffix(b"/").unwrap_or(top);
                top.is_empty() || path == top || path.strip_prefix(top).is_some_and(|rest| rest.starts_with(b"/"))
            })
        };
        assert_same(&then.part(&is_inside), &new.part(&is_inside), "what was brought back");
        // A file with names on both sides that were its names then is one file, and changes with all of them.
        let is_shared = |path: &[u8]| {
            let inode = old.inodes.get(path);
            inode.is_some()
                && then.inodes.get(path) == inode
                && old.inodes.iter().any(|(other, found)| Some(found) == inode && is_inside(other))
        };
        let mut expected = old.part(&|path| !is_inside(path) && !is_shared(path));
        let mut found = new.part(&|path| !is_inside(path) && !is_shared(path));
        // Directories around what was brought back were changed in so far.
        for path in paths {
            let mut above = *path;
            while !above.is_empty() {
                above = split(above).0;
                match (expected.0.get_mut(above), found.0.get_mut(above)) {
                    (Some(expected), Some(found)) => found.times = expected.times,
                    (None, Some(_)) => {
                        let made = found.0.remove(above).unwrap();
                        assert_eq!(made, then.part(&|_| true).0[above], "a directory that was missing");
                    }
                    _ => {}
                }
            }
        }
        assert_same(&expected, &found, "everything else");
        for (path, inode) in &old.inodes {
            if !is_inside(path) {
                assert_eq!(new.inodes.get(path), Some(inode), "{}", String::from_utf8_lossy(path));
            }
        }
    }

    /// Brings paths back that do not differ: nothing is touched, and no snapshot stays.
    pub fn back_again(&self, snapshot: &Snapshot, paths: &[&[u8]]) {
        // What is settled, and what goes of files without a name, in the background is no change.
        while self.tree().settle_step().unwrap() || self.tree().reap_step().unwrap() {}
        let before = self.daemon.views().snapshots().take(None).unwrap();
        let report = self.try_back(snapshot, paths).unwrap();
        assert_eq!((report.files, report.bytes, report.removed, report.before.as_str()), (0, 0, 0, ""), "{report:?}");
        let after = self.daemon.views().snapshots().take(None).unwrap();
        assert_eq!(self.increments(before.epoch, after.epoch), 0);
        let (before, after) = (Moment::At(before.epoch), Moment::At(after.epoch));
        assert_eq!(self.tree().comparison().diff(LIVE, before, after).unwrap(), []);
    }

    /// Records changed after one epoch, up to another.
    pub fn increments(&self, after: Epoch, to: Epoch) -> usize {
        let key = |epoch: Epoch| [0u32.to_be_bytes(), (epoch.next()).to_be_bytes()].concat();
        self.tree().device().look().unwrap().meta().range(Table::Increment, &key(after), &key(to)).unwrap().count()
    }

    pub fn check(&self) {
        while self.tree().settle_step().unwrap() {}
        let report = pitfs::daemon::check(&self.daemon, &mut |_| Ok(())).unwrap();
        assert_eq!(report.problems, []);
    }

    pub fn picture(&self, moment: Moment) -> Picture {
        let mut picture = Picture::default();
        let mut directories = vec![(Vec::new(), ROOT)];
        picture.add(self.tree(), Vec::new(), ROOT.at(moment));
        while let Some((path, inode)) = directories.pop() {
            let mut entries = Vec::new();
            let each = |entry: &pitfs::tree::Entry| {
                entries.push(entry.clone());
                Ok::<bool, Error>(true)
            };
            self.tree().names().list(inode.at(moment), 0, each).unwrap();
            for entry in entries {
                let path = if path.is_empty() { entry.name } else { [&path[..], b"/", &entry.name].concat() };
                picture.add(self.tree(), path.clone(), entry.inode.at(moment));
                if entry.kind == Kind::Directory {
                    directories.push((path, entry.inode));
                }
            }
        }
        picture
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub mode: u32,
    pub owner: (u32, u32),
    pub rdev: u32,
    pub times: (Timestamp, Timestamp),
    pub size: u64,
    pub content: Vec<u8>,
    pub tracks: u64,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The first path of the same inode.
    pub same_as: Vec<u8>,
}

/// Everything that can be seen at a moment.
#[derive(Default)]
pub struct Picture {
    pub all: BTreeMap<Vec<u8>, Shown>,
    pub inodes: BTreeMap<Vec<u8>, InodeNo>,
}

/// A part of a picture, with the links within it.
#[derive(PartialEq, Eq)]
pub struct Part(pub BTreeMap<Vec<u8>, Shown>);

impl Picture {
    fn add(&mut self, tree: &Tree, path: Vec<u8>, at: InodeAt) {
        let inode = tree.inode(at).unwrap();
        let content = match inode.kind() {
            Kind::File => content(tree, at),
            Kind::Symlink => tree.names().read_link(at).unwrap(),
            _ => Vec::new(),
        };
        let shown = Shown {
            mode: inode.mode,
            owner: (inode.uid, inode.gid),
            rdev: inode.rdev,
            times: (inode.atime, inode.mtime),
            size: if inode.is_directory() { 0 } else { inode.size },
            content,
            tracks: inode.tracks,
            xattrs: tree.attributes().xattrs(at).unwrap(),
            same_as: Vec::new(),
        };
        self.all.insert(path.clone(), shown);
        self.inodes.insert(path, at.inode);
    }

    pub fn part(&self, is_in: &dyn Fn(&[u8]) -> bool) -> Part {
        let mut first: BTreeMap<InodeNo, &Vec<u8>> = BTreeMap::new();
        let mut part = BTreeMap::new();
        for (path, shown) in self.all.iter().filter(|(path, _)| is_in(path)) {
            let same_as = first.entry(self.inodes[path]).or_insert(path).to_vec();
            part.insert(path.clone(), Shown { same_as, ..shown.clone() });
        }
        Part(part)
    }
}

/// The bytes of a file, with the places of those that are not in holes.
fn content(tree: &Tree, at: InodeAt) -> Vec<u8> {
    let mut content = Vec::new();
    let mut offset = 0;
    while let Ok(data) = tree.files().seek_data(at, offset) {
        offset = tree.files().seek_hole(at, data).unwrap();
        content.extend(data.to_be_bytes());
        content.extend(tree.files().read(at, data, (offset - data) as usize).unwrap());
    }
    content
}

pub fn assert_same(expected: &Part, found: &Part, what: &str) {
    for (path, shown) in &expected.0 {
        let name = String::from_utf8_lossy(path);
        let other = found.0.get(path).unwrap_or_else(|| panic!("{what}: {name} is missing"));
        let without = |shown: &Shown| Shown { content: Vec::new(), ..shown.clone() };
        assert_eq!(without(shown), without(other), "{what}: {name}");
        assert!(shown.content == other.content, "{what}: {name} has other bytes");
    }
    for path in found.0.keys() {
        assert!(expected.0.contains_key(path), "{what}: {} is too much", String::from_utf8_lossy(path));
    }
}
