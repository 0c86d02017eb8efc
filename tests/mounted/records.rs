//! What somebody else could have written into a store.

use super::Mounted;
use pitfs::device::{InodeNo, Settings};
use pitfs::media::{DiskDir, MediaDir};
use pitfs::meta::{Kv, Overlay, Pair, Table, encode};
use pitfs::tree::{Inode, ROOT};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The tables of a store that is closed, to be changed with right checksums.
pub struct Records {
    pub kv: Kv,
    pub seed: u64,
}

impl Records {
    pub fn of(store: &Path) -> Records {
        let kv = Kv::open(DiskDir::open(store).unwrap().open("meta.redb", false).unwrap(), None).unwrap();
        let read = |bytes: &[u8]| Ok(rmp_serde::from_slice::<Settings>(bytes).unwrap());
        let settings = kv.tables().unwrap().with(Table::State, b"settings", read).unwrap().unwrap();
        Records { kv, seed: settings.hash_seed }
    }

    pub fn all(&self, table: Table) -> Vec<Pair> {
        self.kv.tables().unwrap().range(table, &[], &[u8::MAX; 400]).unwrap().map(|pair| pair.unwrap()).collect()
    }

    /// A record of any inode that is a file.
    pub fn file(&self) -> (Vec<u8>, Vec<u8>, Inode) {
        let mut files = self.all(Table::Inode).into_iter().filter_map(|(key, value)| {
            let inode: Inode = rmp_serde::from_slice(&value[5..]).ok()?;
            (inode.mode >> 12 == 8).then_some((key, value, inode))
        });
        files.next_back().unwrap()
    }

    /// The key of an entry of the first base's root, where it is looked for, or a little behind.
    pub fn entry_key(&self, name: &[u8], is_misplaced: bool) -> Vec<u8> {
        let hash = (xxh3_64_with_seed(name, self.seed) >> 1) + u64::from(is_misplaced);
        [&ROOT.prefix()[..], &hash.to_be_bytes(), name].concat()
    }

    /// An entry of the root that leads to a file.
    pub fn add_entry(&self, name: &[u8], is_misplaced: bool) {
        let (key, value, _) = self.file();
        let number = InodeNo::of_key(&key).unwrap();
        self.put(Table::Dirent, &self.entry_key(name, is_misplaced), &value[..5], &(number, 8u8));
    }

    pub fn put<T: serde::Serialize>(&self, table: Table, key: &[u8], birth: &[u8], value: &T) {
        let mut overlay = Overlay::default();
        overlay.put(table, key, [birth, &encode(value)].concat());
        self.kv.commit(&overlay).unwrap();
    }

    /// A record of a table that has no births.
    pub fn get<T: serde::de::DeserializeOwned>(&self, table: Table, key: &[u8]) -> T {
        let read = |bytes: &[u8]| Ok(rmp_serde::from_slice::<T>(bytes).unwrap());
        self.kv.tables().unwrap().with(table, key, read).unwrap().unwrap()
    }

    pub fn remove(&self, table: Table, key: &[u8]) {
        let mut overlay = Overlay::default();
        overlay.remove(table, key);
        self.kv.commit(&overlay).unwrap();
    }
}

/// A command that ends; its exit status and what it said.
pub fn ends(mounted: &Mounted, args: &[&str]) -> (i32, String) {
    let mut child = mounted.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(120);
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "{args:?} does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!text.contains("panicked"), "{args:?}: {text}");
    (output.status.code().unwrap(), text)
}
