//! Stores that are copied and put back, archives that come and go, and a naive memory of what each time showed.

use pitfs::control::{Answer, Archive, Request, Verb, serve};
use pitfs::daemon::{Daemon, RollOptions};
use pitfs::device::{InodeNo, LIVE, Moment};
use pitfs::error::Result;
use pitfs::logstore::Codec;
use pitfs::tree::{Caller, Change, CreateOptions, Kind, New, root_of};
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The files of a tree and their bytes.
pub type State = BTreeMap<String, Vec<u8>>;

const TRACK: usize = 16 << 10;

/// One store, with what it has to show.
#[derive(Clone)]
pub struct Store {
    pub path: PathBuf,
    pub live: State,
    /// Every time that was ever taken in its history, by name.
    pub times: BTreeMap<String, State>,
}

pub fn request(verb: Verb) -> Request {
    Request { protocol: pitfs::control::PROTOCOL, base: None, verb, stream: None }
}

impl Store {
    pub fn create(path: &Path) -> Store {
        let codec = Codec::Lz4;
        let options = CreateOptions { track_bytes: TRACK, codec, uid: 0, gid: 0, mode: 0o755, hash_seed: 5 };
        Daemon::create(path, &options).unwrap();
        Store { path: path.to_path_buf(), live: State::new(), times: BTreeMap::new() }
    }

    /// Works on the store while nobody else has it.
    pub fn open<R>(&self, work: impl FnOnce(&Daemon) -> R) -> R {
        let daemon = Daemon::open(&self.path).unwrap();
        let result = work(&daemon);
        daemon.close().unwrap();
        result
    }

    pub fn ask(&self, verb: Verb) -> Result<Answer> {
        self.open(|daemon| serve(daemon, request(verb), 0, &mut |_| Ok(())))
    }

    /// A copy of the closed store somewhere else.
    pub fn copy_to(&self, path: &Path) -> Store {
        copy(&self.path, path);
        Store { path: path.to_path_buf(), ..self.clone() }
    }

    /// Makes a file have these bytes.
    pub fn write(&mut self, name: &str, bytes: &[u8]) {
        self.open(|daemon| {
            let tree = daemon.views().tree();
            let root = root_of(LIVE);
            let inode = match tree.names().lookup(root.live(), name.as_bytes()) {
                Ok((inode, _)) => inode,
                Err(_) => {
                    let new = New { kind: Kind::File, permissions: 0o644, rdev: 0, target: b"" };
                    tree.names().make(Caller { uid: 0, gid: 0, umask: 0 }, root, name.as_bytes(), new).unwrap().0
                }
            };
            let change = Change { size: Some(bytes.len() as u64), ..Change::default() };
            tree.attributes().change(inode, change).unwrap();
            tree.files().write(inode, 0, bytes, false).unwrap();
        });
        self.live.insert(name.into(), bytes.to_vec());
    }

    pub fn snap(&mut self, name: &str) {
        self.open(|daemon| daemon.views().snapshots().take(Some(name.as_bytes())).map(|_| ())).unwrap();
        self.times.insert(name.into(), self.live.clone());
    }

    /// Rolls; the new time counts only if it was said to be there.
    pub fn roll(&mut self, archive: Option<&Path>, keep: Option<u64>, name: &str) -> Result<Vec<String>> {
        let name_bytes = Some(ByteBuf::from(name.as_bytes()));
        let options = RollOptions { archive: archive.map(Path::to_path_buf), keep, name: name_bytes };
        match self.ask(Verb::Roll(options))? {
            Answer::Roll(report) => {
                self.times.insert(name.into(), self.live.clone());
                Ok(report.problems)
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn attach(&self, directory: &Path) -> Result<Answer> {
        self.ask(Verb::Archive(Archive::Attach { directory: directory.to_path_buf() }))
    }

    /// The names of all times that the store shows, each compared with what it was.
    pub fn shown(&self, what: &str) -> Vec<String> {
        self.open(|daemon| {
            let views = daemon.views();
            let mut names = Vec::new();
            for snapshot in views.snapshots().with_archived().unwrap() {
                let name = snapshot.record.name.clone();
                if !snapshot.is_readable() {
                    continue;
                }
                let Some(expected) = self.times.get(&name) else {
                    panic!("{what}: {} shows {name}, which it never had", self.path.display())
                };
                let tree = views.tree();
                let moment = Moment::At(snapshot.epoch);
                let mut files = Vec::new();
                tree.names()
                    .list_with_inodes(root_of(LIVE).at(moment), 0, |entry, inode| {
                        files.push((String::from_utf8(entry.name.clone()).unwrap(), entry.inode, inode.size as usize));
                        Ok(true)
                    })
                    .unwrap();
                let read = |(file, inode, size): (_, InodeNo, _)| {
                    (file, tree.files().read(inode.at(moment), 0, size).unwrap())
                };
                let found: State = files.into_iter().map(read).collect();
                assert!(found == *expected, "{what}: {name} of {} is not what it was", self.path.display());
                names.push(name);
            }
            names
        })
    }
}

/// Replaces a directory by a copy of another.
pub fn copy(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// The increments in a directory, the oldest first.
pub fn increments(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let all = entries.map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = all.filter(|path| path.extension().is_some_and(|end| end == "increment")).collect();
    all.sort();
    all
}
