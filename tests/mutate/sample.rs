//! A store with something of everything, an archive, and what all views of it show.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub const PITFS: &str = env!("CARGO_BIN_EXE_pitfs");

/// Files of a tree with their bytes.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

pub struct Sample {
    dir: tempfile::TempDir,
}

/// Snapshots, the first of which only the archive has.
pub const VIEWS: [&str; 4] = ["first", "second", "third", "live"];

pub fn files(root: &Path) -> Files {
    let mut files = Files::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(path),
                Ok(kind) if kind.is_file() => {
                    let below = path.strip_prefix(root).unwrap().to_path_buf();
                    files.insert(below, fs::read(&path).unwrap_or_default());
                }
                _ => {}
            }
        }
    }
    files
}

fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * i + i / 7 * seed + seed) as u8).collect()
}

impl Sample {
    pub fn new() -> Sample {
        let dir = crate::guard::temporary();
        let sample = Sample { dir };
        let source = sample.dir.path().join("source");
        fs::create_dir_all(source.join("directory/deep")).unwrap();
        fs::create_dir(sample.snap()).unwrap();
        let ok = |args: &[&str]| assert!(sample.command(args).status().unwrap().success(), "{args:?}");
        let put = |name: &str, seed, len| fs::write(source.join(name), bytes(seed, len)).unwrap();
        let (store, archive) = (sample.store(), sample.archive());
        ok(&["create", store.to_str().unwrap(), "--track-size", "16K"]);
        for (at, view) in VIEWS.into_iter().enumerate() {
            put("small", at, 10 + at);
            put("in the record", at, 900);
            put("directory/one track", 7, 9000);
            put("directory/many tracks", at + 20, 120_000);
            put(&format!("directory/deep/of {view}"), at, 20_000);
            std::os::unix::fs::symlink("directory", source.join("link")).unwrap_or_default();
            fs::hard_link(source.join("small"), source.join(format!("also small {at}"))).unwrap();
            ok(&["sync", source.to_str().unwrap()]);
            if view != "live" {
                ok(&["snap", view]);
            }
            sample.shown_as(view, &source);
            if view == "second" {
                ok(&["roll", "--name", "rolled", "--keep", "2", "--archive", archive.to_str().unwrap()]);
                ok(&["clone", "second", "clone"]);
            }
        }
        drop(fs::remove_dir_all(&source));
        copy(&sample.place(), &sample.dir.path().join("kept"));
        sample
    }

    fn shown_as(&self, view: &'static str, source: &Path) {
        copy(source, &self.dir.path().join("shown").join(view));
    }

    /// What a view showed.
    pub fn files_of(&self, view: &str) -> Files {
        files(&self.dir.path().join("shown").join(view))
    }

    /// Where the store and its archive are.
    pub fn place(&self) -> PathBuf {
        self.dir.path().join("place")
    }

    pub fn store(&self) -> PathBuf {
        fs::create_dir_all(self.place()).unwrap();
        self.place().join("store")
    }

    pub fn archive(&self) -> PathBuf {
        self.place().join("archive")
    }

    pub fn snap(&self) -> PathBuf {
        self.dir.path().join("snap")
    }

    pub fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    pub fn put_back(&self) {
        fs::remove_dir_all(self.place()).unwrap_or_default();
        copy(&self.dir.path().join("kept"), &self.place());
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PITFS);
        command.args(args).env("PITFS_STORE", self.place().join("store")).env("RUST_BACKTRACE", "0");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}
