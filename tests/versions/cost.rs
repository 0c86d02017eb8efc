//! What versions cost: reads of metadata.

use super::{TRACK, create, file, make, snap};
use pitfs::device::LIVE;
use pitfs::media::{Media, MediaDir, Room, TestDir};
use pitfs::tree::{Kind, Tree, root_of};
use pitfs::view::Views;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A store in memory that counts reads of pages of its metadata.
#[derive(Clone, Debug, Default)]
struct Counting {
    dir: TestDir,
    reads: Arc<AtomicU64>,
}

#[derive(Debug)]
struct CountingFile {
    file: Arc<dyn Media>,
    reads: Arc<AtomicU64>,
}

impl MediaDir for Counting {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn Media>> {
        let file = self.dir.open(name, create)?;
        let reads = if name == "meta.redb" { self.reads.clone() } else { Arc::default() };
        Ok(Arc::new(CountingFile { file, reads }))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        self.dir.exists(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.dir.remove(name)
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.dir.replace(name, content)
    }

    fn room(&self) -> io::Result<Room> {
        self.dir.room()
    }

    fn describe(&self) -> String {
        self.dir.describe()
    }
}

impl Media for CountingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.file.read_at(offset, out)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.allocate(offset, len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.punch(offset, len)
    }
}

/// A file that changed five times while so many snapshots were taken: how many reads of metadata its versions
/// take, with nothing in caches, and how many it takes to list the snapshots after that.
fn reads_of_versions(snapshots: usize) -> (u64, u64) {
    let dir = Counting::default();
    let views = create(Arc::new(dir.clone()));
    let tree = views.tree();
    let d = make(tree, root_of(LIVE), "d", Kind::Directory);
    let (seldom, often) = (make(tree, d, "seldom", Kind::File), file(tree, "often"));
    tree.files().write(seldom, 0, &vec![1; 4 * TRACK as usize], false).unwrap();
    for i in 0..snapshots {
        tree.files().write(often, 0, &i.to_le_bytes(), false).unwrap();
        if i % (snapshots / 5) == 1 {
            tree.files().write(seldom, TRACK, &i.to_le_bytes(), false).unwrap();
        }
        snap(&views, &format!("s{i}"));
    }
    drop(views);
    let views = Views::new(Tree::open(Arc::new(dir.clone())).unwrap());
    let reads_of = |action: &dyn Fn()| {
        let before = dir.reads.load(Ordering::Relaxed);
        action();
        dir.reads.load(Ordering::Relaxed) - before
    };
    let reads = reads_of(&|| {
        let found = views.tree().comparison().versions(LIVE, b"d/seldom").unwrap();
        assert_eq!(found.len(), 6);
        assert_eq!(found[0].oldest.as_ref().unwrap().record.name, format!("s{}", snapshots / 5 * 4 + 1));
    });
    (reads, reads_of(&|| assert_eq!(views.snapshots().all().unwrap().len(), snapshots)))
}

#[test]
fn versions_cost_what_changed_and_not_what_was_kept() {
    let ((few, _), (many, all)) = (reads_of_versions(500), reads_of_versions(2000));
    assert!(many <= few + 4, "{many} reads of metadata with 2000 snapshots, {few} with 500");
    assert!(2 * many < all, "{many} reads of metadata, where listing the snapshots takes {all} more");
}
