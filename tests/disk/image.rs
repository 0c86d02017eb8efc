//! What is on the disk: what every process sees, what would survive a power cut, and what lies between.
//!
//! Invariants, after `docs/format.md`, "What is assumed of the disk":
//! - what a file held when an fsync of it returned is in its durable bytes, and the names that were there
//!   when an fsync of the directory returned are in the durable names;
//! - every later change is in a list of pending changes, numbered in the order in which all of them came;
//! - a power cut keeps any part of those: whole, in sectors of 512 bytes, in any order, or none.

use super::bytes::Bytes;
use crate::load::Rng;
use std::collections::BTreeMap;

pub const SECTOR: usize = 512;
/// The number of the directory; there is one.
pub const ROOT: u64 = 1;

#[derive(Clone)]
pub enum Change {
    Write(u64, Vec<u8>),
    Len(u64),
    Allocate(u64, u64),
    Punch(u64, u64),
}

fn apply(bytes: &mut Bytes, change: &Change) {
    match change {
        Change::Write(offset, data) => bytes.write(*offset, data),
        Change::Len(len) => bytes.set_len(*len),
        Change::Allocate(offset, len) => bytes.allocate(*offset, *len),
        Change::Punch(offset, len) => bytes.punch(*offset, *len),
    }
}

#[derive(Clone)]
pub struct File {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub bytes: Bytes,
    durable: Bytes,
    pending: Vec<(u64, Change)>,
}

#[derive(Clone)]
enum Naming {
    Add(String, u64),
    Remove(String),
    Rename(String, String, u64),
}

fn name(names: &mut BTreeMap<String, u64>, naming: &Naming) {
    match naming {
        Naming::Add(name, number) => {
            names.insert(name.clone(), *number);
        }
        Naming::Remove(name) => {
            names.remove(name);
        }
        Naming::Rename(from, to, number) => {
            if names.get(from) == Some(number) {
                names.remove(from);
            }
            names.insert(to.clone(), *number);
        }
    }
}

/// How much of what was not synced has arrived when the power goes.
#[derive(Clone, Copy, Debug)]
enum Arrived {
    Nothing,
    Everything,
    /// All changes up to one of them, and a part of that.
    UpTo(u64),
    /// Each change or not, with this chance in percent.
    Changes(u64),
    /// Each sector of each change or not, with this chance in percent.
    Sectors(u64),
}

#[derive(Clone, Default)]
pub struct Image {
    pub files: BTreeMap<u64, File>,
    pub names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    pending_names: Vec<(u64, Naming)>,
    changes: u64,
    last_number: u64,
}

impl Image {
    fn next_change(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    pub fn find(&self, name: &str) -> Option<u64> {
        self.names.get(name).copied()
    }

    /// All bytes of a file as processes see them.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let file = &self.files[&self.find(name)?];
        Some(file.bytes.read(0, file.bytes.len()))
    }

    pub fn room(&self) -> u64 {
        self.files.values().map(|file| file.bytes.room()).sum()
    }

    pub fn create(&mut self, name: &str, mode: u32, uid: u32, gid: u32) -> u64 {
        self.last_number = self.last_number.max(ROOT) + 1;
        let number = self.last_number;
        let (bytes, durable) = (Bytes::default(), Bytes::default());
        self.files.insert(number, File { mode, uid, gid, bytes, durable, pending: Vec::new() });
        self.rename_or_add(Naming::Add(name.to_string(), number));
        number
    }

    fn rename_or_add(&mut self, naming: Naming) {
        let change = self.next_change();
        name(&mut self.names, &naming);
        self.pending_names.push((change, naming));
    }

    pub fn unlink(&mut self, name: &str) {
        self.rename_or_add(Naming::Remove(name.to_string()));
    }

    pub fn rename(&mut self, from: &str, to: &str, number: u64) {
        self.rename_or_add(Naming::Rename(from.to_string(), to.to_string(), number));
    }

    pub fn change(&mut self, number: u64, change: Change) {
        let count = self.next_change();
        if let Some(file) = self.files.get_mut(&number) {
            apply(&mut file.bytes, &change);
            file.pending.push((count, change));
        }
    }

    pub fn sync(&mut self, number: u64) {
        if let Some(file) = self.files.get_mut(&number) {
            for (_, change) in std::mem::take(&mut file.pending) {
                apply(&mut file.durable, &change);
            }
        }
    }

    pub fn sync_directory(&mut self) {
        for (_, naming) in std::mem::take(&mut self.pending_names) {
            name(&mut self.durable_names, &naming);
        }
    }

    /// What a machine finds after the power was cut now; what happened is chosen by `rng`.
    pub fn after_power_cut(&self, rng: &mut Rng) -> Image {
        let mut numbers: Vec<u64> = self.files.values().flat_map(|file| &file.pending).map(|(n, _)| *n).collect();
        numbers.extend(self.pending_names.iter().map(|(number, _)| *number));
        numbers.sort_unstable();
        let last = if numbers.is_empty() { 0 } else { rng.pick(&numbers) };
        let arrived = match rng.below(8) {
            0 => Arrived::Nothing,
            1 => Arrived::Everything,
            2 | 3 => Arrived::UpTo(last),
            4 => Arrived::Changes(50),
            chance => Arrived::Sectors([10, 50, 90][chance as usize - 5]),
        };
        let mut names = self.durable_names.clone();
        for (number, naming) in &self.pending_names {
            if arrives_whole(arrived, *number, rng) {
                name(&mut names, naming);
            }
        }
        let mut files = BTreeMap::new();
        for number in names.values() {
            let file = &self.files[number];
            let mut bytes = file.durable.clone();
            for (number, change) in &file.pending {
                arrive(&mut bytes, *number, change, arrived, rng);
            }
            let (durable, pending) = (bytes.clone(), Vec::new());
            files.insert(*number, File { bytes, durable, pending, ..file.clone() });
        }
        let durable_names = names.clone();
        Image { files, names, durable_names, pending_names: Vec::new(), ..*self }
    }
}

fn arrives_whole(arrived: Arrived, number: u64, rng: &mut Rng) -> bool {
    match arrived {
        Arrived::Nothing => false,
        Arrived::Everything => true,
        Arrived::UpTo(last) => number < last || number == last && rng.percent(50),
        Arrived::Changes(chance) | Arrived::Sectors(chance) => rng.percent(chance),
    }
}

fn arrive(bytes: &mut Bytes, number: u64, change: &Change, arrived: Arrived, rng: &mut Rng) {
    let chance = match (arrived, change) {
        (Arrived::Sectors(chance), Change::Write(..)) => chance,
        (Arrived::UpTo(last), Change::Write(..)) if number == last => 50,
        _ => {
            if arrives_whole(arrived, number, rng) {
                apply(bytes, change);
            }
            return;
        }
    };
    let Change::Write(offset, data) = change else { return };
    let mut at = 0;
    while at < data.len() {
        // Sectors are those of the disk, wherever the write begins.
        let count = (SECTOR - (*offset as usize + at) % SECTOR).min(data.len() - at);
        if rng.percent(chance) {
            bytes.write(offset + at as u64, &data[at..at + count]);
        }
        at += count;
    }
}
