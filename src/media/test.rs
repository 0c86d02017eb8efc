//! A media for tests: all bytes in memory, with a memory of what has been synced.
//!
//! Invariants:
//! - what a sync has returned for is in the durable image; what was written since is in the list of
//!   pending writes, numbered in the order of all files;
//! - after the media has stopped, every operation fails;
//! - [`TestDir::after_power_cut`] gives the durable image plus, depending on [`Tearing`], none, the first
//!   or any of the pending writes, each whole or cut at a 512-byte sector.

use super::{Media, MediaDir, Room};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

const SECTOR: usize = 512;
/// The unit in which room is given back.
const PAGE: u64 = 4096;

/// What becomes of writes that were not yet synced when the power went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tearing {
    /// None of them arrived.
    LoseAll,
    /// Each sector of them arrived or did not, by this seed.
    Random(u64),
    /// Those up to one of them arrived, the last in part; which, by this seed.
    InOrder(u64),
}

struct Coin(u64);

impl Coin {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }

    fn toss(&mut self) -> bool {
        self.next() & 1 == 0
    }
}

#[derive(Clone, Debug, Default)]
struct Image {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// By their numbers, counted over all files.
    pending: Vec<(u64, Change)>,
    /// Whole pages that were never written, or given back: they take no room.
    holes: BTreeSet<u64>,
}

impl Image {
    fn from_durable(bytes: Vec<u8>, mut holes: BTreeSet<u64>) -> Image {
        holes.retain(|page| (page + 1) * PAGE <= bytes.len() as u64);
        Image { now: bytes.clone(), durable: bytes, pending: Vec::new(), holes }
    }

    fn room(&self) -> u64 {
        self.now.len() as u64 - self.holes.len() as u64 * PAGE
    }

    fn holes_in(&self, bytes: Range<u64>) -> Vec<u64> {
        self.holes.range(bytes.start / PAGE..bytes.end.div_ceil(PAGE)).copied().collect()
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Len(u64),
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, data) => {
            let end = *offset as usize + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset as usize..end].copy_from_slice(data);
        }
        Change::Len(len) => bytes.resize(*len as usize, 0),
    }
}

#[derive(Debug, Default)]
struct Shared {
    files: BTreeMap<String, Image>,
    syncs: u64,
    /// Writes, changes of length, holes and syncs.
    changes: u64,
    /// The number of the sync that fails, counted from 1.
    stop_at: Option<u64>,
    /// The number of the change that fails, and may have arrived all the same.
    stop_at_change: Option<u64>,
    stopped: bool,
    capacity: Option<u64>,
    /// The file of which all reads fail.
    unreadable: Option<String>,
    /// So many reads succeed, and then none.
    reads_left: Option<u64>,
}

impl Shared {
    fn check(&self) -> io::Result<()> {
        if self.stopped { Err(io::Error::other("the test media has stopped")) } else { Ok(()) }
    }

    fn used(&self) -> u64 {
        self.files.values().map(Image::room).sum()
    }

    /// Takes room for a range of a file that is to be written.
    fn fill(&mut self, name: &str, bytes: Range<u64>) -> io::Result<()> {
        self.check()?;
        let holes = self.files[name].holes_in(bytes.clone());
        let grown = bytes.end.saturating_sub(self.files[name].now.len() as u64) + holes.len() as u64 * PAGE;
        if self.capacity.is_some_and(|capacity| grown > 0 && self.used() + grown > capacity) {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        if let Some(file) = self.files.get_mut(name) {
            file.holes.retain(|page| !holes.contains(page));
        }
        Ok(())
    }

    fn change(&mut self, name: &str, change: Change) -> io::Result<()> {
        match &change {
            Change::Write(offset, data) => self.fill(name, *offset..offset + data.len() as u64)?,
            Change::Len(_) => self.check()?,
        }
        if let Some(file) = self.files.get_mut(name) {
            if let Change::Len(len) = &change {
                file.holes.retain(|page| (page + 1) * PAGE <= *len);
                file.holes.extend((file.now.len() as u64).div_ceil(PAGE)..len / PAGE);
            }
            apply(&mut file.now, &change);
            file.pending.push((self.changes, change));
        }
        self.count()
    }

    /// Counts a change that was just made.
    fn count(&mut self) -> io::Result<()> {
        self.changes += 1;
        self.stopped |= self.stop_at_change == Some(self.changes);
        self.check()
    }

    fn count_sync(&mut self) -> io::Result<()> {
        self.syncs += 1;
        self.stopped |= self.stop_at == Some(self.syncs);
        self.count()
    }

    fn punch(&mut self, name: &str, bytes: Range<u64>) -> io::Result<()> {
        self.check()?;
        if let Some(file) = self.files.get_mut(name) {
            let end = bytes.end.min(file.now.len() as u64);
            if bytes.start < end {
                let change = Change::Write(bytes.start, vec![0; (end - bytes.start) as usize]);
                apply(&mut file.now, &change);
                file.pending.push((self.changes, change));
                file.holes.extend(bytes.start.div_ceil(PAGE)..end / PAGE);
            }
        }
        self.count()
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.check()?;
        self.count_sync()?;
        if let Some(file) = self.files.get_mut(name) {
            for (_, change) in std::mem::take(&mut file.pending) {
                apply(&mut file.durable, &change);
            }
        }
        Ok(())
    }
}

/// A store's directory in memory.
#[derive(Clone, Debug, Default)]
pub struct TestDir {
    shared: Arc<Mutex<Shared>>,
}

impl TestDir {
    pub fn new() -> TestDir {
        TestDir::default()
    }

    /// How many syncs there have been.
    pub fn syncs(&self) -> u64 {
        self.shared.lock().syncs
    }

    /// Lets the `n`th sync from now, and everything after it, fail.
    pub fn stop_at_sync(&self, n: u64) {
        let mut shared = self.shared.lock();
        shared.stop_at = Some(shared.syncs + n);
    }

    /// How many changes there have been.
    pub fn changes(&self) -> u64 {
        self.shared.lock().changes
    }

    /// Lets the `n`th change from now, and everything after it, fail; a power cut may find it done.
    pub fn stop_at_change(&self, n: u64) {
        let mut shared = self.shared.lock();
        shared.stop_at_change = Some(shared.changes + n);
    }

    pub fn has_stopped(&self) -> bool {
        self.shared.lock().stopped
    }

    /// Limits the bytes of all files together.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.shared.lock().capacity = bytes;
    }

    /// Lets all reads of a file fail, or of none.
    pub fn fail_reads(&self, name: Option<&str>) {
        self.shared.lock().unreadable = name.map(str::to_string);
    }

    /// Lets all reads fail but the next so many, or none.
    pub fn fail_reads_after(&self, reads: Option<u64>) {
        self.shared.lock().reads_left = reads;
    }

    /// What a machine finds after the power was cut now.
    pub fn after_power_cut(&self, tearing: Tearing) -> TestDir {
        let shared = self.shared.lock();
        let mut files = BTreeMap::new();
        let mut coin = match tearing {
            Tearing::LoseAll => Coin(1),
            Tearing::Random(seed) | Tearing::InOrder(seed) => Coin(seed | 1),
        };
        let pending = || shared.files.values().flat_map(|file| &file.pending).map(|(number, _)| *number);
        let first = pending().min().unwrap_or(0);
        let last = first + coin.next() % (pending().max().unwrap_or(0) - first + 1);
        for (name, file) in &shared.files {
            let mut bytes = file.durable.clone();
            for (number, change) in &file.pending {
                let is_certain = matches!(tearing, Tearing::InOrder(_)) && *number < last;
                let is_lost = match tearing {
                    Tearing::LoseAll => true,
                    Tearing::Random(_) => false,
                    Tearing::InOrder(_) => *number > last,
                };
                match change {
                    _ if is_lost => {}
                    _ if is_certain => apply(&mut bytes, change),
                    Change::Len(_) if coin.toss() => apply(&mut bytes, change),
                    Change::Len(_) => {}
                    Change::Write(offset, data) => {
                        for (i, sector) in data.chunks(SECTOR).enumerate() {
                            if coin.toss() {
                                apply(&mut bytes, &Change::Write(offset + (i * SECTOR) as u64, sector.to_vec()));
                            }
                        }
                    }
                }
            }
            files.insert(name.clone(), Image::from_durable(bytes, file.holes.clone()));
        }
        let capacity = shared.capacity;
        TestDir { shared: Arc::new(Mutex::new(Shared { files, capacity, ..Shared::default() })) }
    }

    /// Changes stored bytes behind the store's back.
    pub fn damage(&self, name: &str, offset: u64, mask: u8) {
        if let Some(file) = self.shared.lock().files.get_mut(name) {
            file.now[offset as usize] ^= mask;
            file.durable = file.now.clone();
        }
    }

    pub fn file_len(&self, name: &str) -> u64 {
        self.shared.lock().files.get(name).map_or(0, |file| file.now.len() as u64)
    }
}

impl MediaDir for TestDir {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn Media>> {
        let mut shared = self.shared.lock();
        shared.check()?;
        if !shared.files.contains_key(name) {
            if !create {
                return Err(io::ErrorKind::NotFound.into());
            }
            shared.files.insert(name.to_string(), Image::default());
        }
        Ok(Arc::new(TestFile { shared: self.shared.clone(), name: name.to_string() }))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.shared.lock().files.contains_key(name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.shared.lock().files.remove(name);
        Ok(())
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut shared = self.shared.lock();
        shared.check()?;
        let holes: BTreeSet<u64> = content
            .chunks(PAGE as usize)
            .enumerate()
            .filter(|(_, page)| page.iter().all(|&byte| byte == 0))
            .map(|(number, _)| number as u64)
            .collect();
        let image = Image::from_durable(content.to_vec(), holes);
        if shared.capacity.is_some_and(|capacity| shared.used() + image.room() > capacity) {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        let counted = shared.count_sync();
        // The change that fails may have arrived.
        if counted.is_ok() || shared.changes.is_multiple_of(2) {
            shared.files.insert(name.to_string(), image);
        }
        counted
    }

    fn room(&self) -> io::Result<Room> {
        let shared = self.shared.lock();
        let total = shared.capacity.unwrap_or(1 << 40);
        Ok(Room { total, available: total.saturating_sub(shared.used()) })
    }

    fn describe(&self) -> String {
        "test media".into()
    }
}

#[derive(Debug)]
struct TestFile {
    shared: Arc<Mutex<Shared>>,
    name: String,
}

impl Media for TestFile {
    fn len(&self) -> io::Result<u64> {
        let shared = self.shared.lock();
        shared.check()?;
        Ok(shared.files[&self.name].now.len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut shared = self.shared.lock();
        shared.check()?;
        if shared.unreadable.as_ref() == Some(&self.name) || shared.reads_left == Some(0) {
            return Err(rustix::io::Errno::IO.into());
        }
        shared.reads_left = shared.reads_left.map(|left| left - 1);
        let bytes = &shared.files[&self.name].now;
        let range = offset as usize..offset as usize + out.len();
        out.copy_from_slice(bytes.get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.shared.lock().change(&self.name, Change::Write(offset, data.to_vec()))
    }

    fn sync(&self) -> io::Result<()> {
        self.shared.lock().sync(&self.name)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.shared.lock().change(&self.name, Change::Len(len))
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut shared = self.shared.lock();
        shared.fill(&self.name, offset..offset + len)?;
        if (shared.files[&self.name].now.len() as u64) < offset + len {
            shared.change(&self.name, Change::Len(offset + len))?;
            shared.fill(&self.name, offset..offset + len)?;
        }
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.shared.lock().punch(&self.name, offset..offset + len)
    }
}
