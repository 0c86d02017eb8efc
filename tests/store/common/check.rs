//! Checks that the records of a store hold together: names, inodes, tracks, pre-images, room.

use pitfs::device::{
    Epoch, LIVE, Pointer, Snapshot, SnapshotRecord, State, split_increment, split_preimage, split_record,
};
use pitfs::limits::{BLOCK_BYTES, INLINE_BYTES_MAX, PSEGS_IN_SEGMENT, SEGMENT_BLOCKS, SEGMENT_BYTES};
use pitfs::logstore::{Descriptor, Holders, Location};
use pitfs::meta::{Pair, Table};
use pitfs::tree::{Inode, Kind, ROOT, Tree};
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;
use std::collections::{BTreeMap, BTreeSet, HashMap};

type Number = u64;

macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*));
        }
    };
}

struct Check<'a> {
    tree: &'a Tree,
    state: &'a State,
    /// How many records name a location.
    holders: HashMap<Location, Holders>,
}

/// Checks a store that was just opened, so that nothing is in memory only.
pub fn check(tree: &Tree) -> Result<(), String> {
    let look = tree.device().look().map_err(|error| error.to_string())?;
    let mut check = Check { tree, state: &look, holders: HashMap::new() };
    let inodes = check.inodes()?;
    check.names(&inodes)?;
    check.tracks(&inodes)?;
    let snapshots = check.snapshots()?;
    let log_blocks = check.log(&snapshots)?;
    check.shared()?;
    check.room()?;
    drop(look);
    let log_bytes = tree.device().log_bytes();
    ensure!(
        log_bytes == log_blocks * BLOCK_BYTES as u64,
        "{log_bytes} bytes of log are counted, {log_blocks} blocks found"
    );
    Ok(())
}

fn decode<T: DeserializeOwned>(table: Table, key: &[u8], value: &[u8]) -> Result<T, String> {
    pitfs::meta::decode(table, key, value).map_err(|error| error.to_string())
}

fn number_at(key: &[u8], at: usize) -> Number {
    u64::from_be_bytes(key[at..at + 8].try_into().expect("eight bytes"))
}

impl Check<'_> {
    fn all(&self, table: Table) -> Result<Vec<Pair>, String> {
        let pairs = self.state.meta().range(table, &[], &[u8::MAX; 300]).map_err(|error| error.to_string())?;
        pairs.map(|pair| pair.map_err(|error| error.to_string())).collect()
    }

    /// Records with a birth: key, birth, value.
    fn born<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<(Vec<u8>, T)>, String> {
        let split = |(key, bytes): Pair| {
            let (birth, value) = split_record(table, &key, &bytes).map_err(|error| error.to_string())?;
            ensure!(birth <= self.state.epoch(), "a record of table {} is born in the future", table.name());
            let value = decode(table, &key, value)?;
            Ok((key, value))
        };
        self.all(table)?.into_iter().map(split).collect()
    }

    fn inodes(&self) -> Result<BTreeMap<Number, Inode>, String> {
        let inodes: BTreeMap<Number, Inode> =
            self.born::<Inode>(Table::Inode)?.into_iter().map(|(key, inode)| (number_at(&key, 4), inode)).collect();
        let orphans: BTreeSet<Number> =
            // Kind 0 is an inode; see docs/format.md.
            self.all(Table::Orphan)?.iter().filter(|(key, _)| key[4] == 0).map(|(key, _)| number_at(key, 5)).collect();
        let nameless: BTreeSet<Number> =
            inodes.iter().filter(|(_, inode)| inode.links == 0).map(|(number, _)| *number).collect();
        ensure!(orphans == nameless, "inodes without a name: {nameless:?}, to be removed: {orphans:?}");
        for (key, _) in self.all(Table::Xattr)? {
            ensure!(inodes.contains_key(&number_at(&key, 4)), "an xattr belongs to no inode");
        }
        for (number, inode) in &inodes {
            let is_inline = !inode.inline.is_empty();
            ensure!(
                !is_inline || inode.inline.len() as u64 <= inode.size,
                "inode {number} has more inline bytes than its size"
            );
            ensure!(
                !is_inline || inode.kind() != Kind::File || inode.tracks == 0 && inode.size <= INLINE_BYTES_MAX as u64,
                "file {number} of {} bytes is inline",
                inode.size
            );
        }
        Ok(inodes)
    }

    fn names(&self, inodes: &BTreeMap<Number, Inode>) -> Result<(), String> {
        let mut names: BTreeMap<Number, BTreeSet<(Number, Vec<u8>)>> = BTreeMap::new();
        let (mut entries, mut subdirectories) = (HashMap::<Number, u64>::new(), HashMap::<Number, u32>::new());
        for (key, (number, kind)) in self.born::<(Number, u8)>(Table::Dirent)? {
            let (parent, name) = (number_at(&key, 4), key[20..].to_vec());
            let inode =
                inodes.get(&number).ok_or(format!("an entry of {parent} names inode {number}, which is not there"))?;
            ensure!(inode.kind() as u8 == kind, "an entry says another kind than inode {number}");
            ensure!(names.entry(number).or_default().insert((parent, name)), "an entry of {parent} is there twice");
            *entries.entry(parent).or_default() += 1;
            *subdirectories.entry(parent).or_default() += u32::from(inode.is_directory());
        }
        let mut links: BTreeMap<Number, BTreeSet<(Number, Vec<u8>)>> = BTreeMap::new();
        for (key, ()) in self.born::<()>(Table::Link)? {
            links.entry(number_at(&key, 4)).or_default().insert((number_at(&key, 12), key[20..].to_vec()));
        }
        for (&number, inode) in inodes {
            let mut wanted = links.remove(&number).unwrap_or_default();
            let found = names.remove(&number).unwrap_or_default();
            if inode.is_directory() {
                let count = subdirectories.get(&number).copied().unwrap_or_default();
                ensure!(
                    inode.size == entries.remove(&number).unwrap_or_default(),
                    "directory {number} miscounts its entries"
                );
                ensure!(
                    inode.links == 0 || inode.links == count + 2,
                    "directory {number} miscounts its subdirectories"
                );
            } else {
                ensure!(inode.links as usize == found.len(), "inode {number} miscounts its names");
            }
            if inode.links > 0 && number != ROOT {
                wanted.insert((inode.parent, inode.name.to_vec()));
                ensure!(wanted == found, "inode {number} believes in the names {wanted:?}, found {found:?}");
            } else {
                ensure!(wanted.is_empty() && found.is_empty(), "inode {number} has names and should have none");
            }
        }
        ensure!(entries.is_empty() && names.is_empty() && links.is_empty(), "names without inodes are left");
        Ok(())
    }

    fn tracks(&mut self, inodes: &BTreeMap<Number, Inode>) -> Result<(), String> {
        let track_bytes = self.tree.device().track_bytes();
        let mut counts: BTreeMap<Number, u64> = BTreeMap::new();
        for (key, pointer) in self.born::<Pointer>(Table::Track)? {
            let (number, track) = (number_at(&key, 4), number_at(&key, 12));
            let inode = inodes.get(&number).ok_or(format!("a track belongs to inode {number}, which is not there"))?;
            let end = track * track_bytes + pointer.held() as u64;
            ensure!(
                inode.links == 0 || end <= inode.size,
                "track {track} of inode {number} ends at {end}, after the file"
            );
            ensure!(pointer.held() as u64 <= track_bytes, "track {track} of inode {number} is too long");
            *counts.entry(number).or_default() += 1;
            for location in pointer.locations() {
                self.holders.entry(*location).or_default().live += 1;
            }
        }
        for (number, inode) in inodes.iter().filter(|(_, inode)| inode.links > 0) {
            let count = counts.get(number).copied().unwrap_or_default();
            ensure!(inode.tracks == count, "inode {number} counts {} tracks and has {count}", inode.tracks);
        }
        Ok(())
    }

    /// All snapshots, also those that are being deleted.
    fn snapshots(&self) -> Result<Vec<Snapshot>, String> {
        let mut all = Vec::new();
        let mut names: BTreeMap<Vec<u8>, Epoch> = BTreeMap::new();
        for (key, value) in self.all(Table::Name)? {
            names.insert(key[4..].to_vec(), decode(Table::Name, &key, &value)?);
        }
        for (key, value) in self.all(Table::Snapshot)? {
            let epoch = u32::from_be_bytes(key[4..].try_into().expect("four bytes"));
            let record: SnapshotRecord = decode(Table::Snapshot, &key, &value)?;
            ensure!(epoch < self.state.epoch(), "a snapshot lies in the future");
            let named = names.remove(record.name.as_bytes());
            ensure!(record.deleting || named == Some(epoch), "the snapshot {:?} is not found by name", record.name);
            all.push(Snapshot { base: LIVE, epoch, record, is_archived: false });
        }
        ensure!(names.is_empty(), "names of snapshots that are not there: {names:?}");
        Ok(all)
    }

    /// Pre-images and increments; the blocks that only they hold.
    fn log(&mut self, snapshots: &[Snapshot]) -> Result<u64, String> {
        let mut facts = BTreeSet::new();
        for (full, bytes) in self.all(Table::Preimage)? {
            let (table, key, end) = split_preimage(&full).map_err(|error| error.to_string())?;
            let (birth, value) = split_record(table, &key, &bytes).map_err(|error| error.to_string())?;
            let is_needed = snapshots.iter().any(|snapshot| birth <= snapshot.epoch && snapshot.epoch < end);
            ensure!(is_needed, "a pre-image of table {} from {birth} to {end} holds no snapshot", table.name());
            if table == Table::Track {
                let pointer: Pointer = decode(table, &key, value)?;
                for location in pointer.locations() {
                    self.holders.entry(*location).or_default().log += 1;
                }
            }
            facts.insert((table, key, end));
        }
        for (full, _) in self.all(Table::Increment)? {
            let fact = split_increment(&full).map_err(|error| error.to_string())?;
            ensure!(facts.remove(&fact), "an increment without a pre-image: {fact:?}");
        }
        ensure!(facts.is_empty(), "pre-images without an increment: {facts:?}");
        let only_log = self.holders.iter().filter(|(_, holders)| holders.live == 0);
        Ok(only_log.map(|(location, _)| location.blocks() as u64).sum())
    }

    fn shared(&self) -> Result<(), String> {
        let mut counted: BTreeMap<Vec<u8>, Holders> = BTreeMap::new();
        for (key, value) in self.all(Table::Shared)? {
            counted.insert(key.clone(), decode(Table::Shared, &key, &value)?);
        }
        for (location, holders) in &self.holders {
            let said = counted.remove(&location.key()[..]);
            let expected = (holders.all() > 1).then_some(*holders);
            ensure!(said == expected, "{location:?} has {holders:?}, counted are {said:?}");
        }
        ensure!(counted.is_empty(), "counts of holders of locations that nothing names: {counted:?}");
        Ok(())
    }

    /// Blocks, segments and physical segments.
    fn room(&self) -> Result<(), String> {
        let log = self.tree.device().log();
        let mut in_use: BTreeMap<u64, Vec<bool>> = BTreeMap::new();
        let mut used_blocks = 0u64;
        for location in self.holders.keys() {
            let first = usize::from(location.block);
            let map = in_use.entry(location.segment).or_insert_with(|| vec![false; SEGMENT_BLOCKS]);
            for block in &mut map[first..first + location.blocks()] {
                ensure!(!*block, "two tracks share a block: {location:?}");
                *block = true;
            }
        }
        let mut psegs = BTreeSet::from([0]);
        let mut rooms = BTreeSet::new();
        let mut segments = 0;
        for segment in log.descriptors(self.state.meta()).map_err(|error| error.to_string())? {
            let (id, descriptor): (u64, Descriptor) = segment.map_err(|error| error.to_string())?;
            segments += 1;
            let mut map = in_use.remove(&id).unwrap_or(vec![false; SEGMENT_BLOCKS]);
            for &block in &descriptor.summary {
                ensure!(!map[usize::from(block)], "a track lies on the summary of segment {id}");
                map[usize::from(block)] = true;
            }
            for (block, is_used) in map.iter().enumerate() {
                let is_taken = descriptor.is_taken(block as u16);
                ensure!(is_taken == *is_used, "block {block} of segment {id}: taken {is_taken}, used {is_used}");
            }
            let used = map.iter().filter(|used| **used).count();
            used_blocks += used as u64;
            match (SEGMENT_BLOCKS - used) * 8 / SEGMENT_BLOCKS {
                0 => {}
                class => {
                    rooms.insert([&[class as u8][..], &id.to_be_bytes()].concat());
                }
            }
            for member in &descriptor.members {
                ensure!(member.psegs.len() == PSEGS_IN_SEGMENT, "segment {id} has the wrong size");
                for &pseg in &member.psegs {
                    ensure!(psegs.insert(pseg), "physical segment {pseg} is used twice");
                }
            }
            self.summary(id, &descriptor)?;
        }
        ensure!(in_use.is_empty(), "tracks lie in segments that are not there: {:?}", in_use.keys());
        let found: BTreeSet<Vec<u8>> = self.all(Table::Room)?.into_iter().map(|(key, _)| key).collect();
        ensure!(found == rooms, "the table of room has {found:?}, expected {rooms:?}");
        self.volume(&psegs)?;
        let usage = log.usage();
        ensure!(
            usage.used == used_blocks * BLOCK_BYTES as u64,
            "{} bytes used are counted, found {used_blocks} blocks",
            usage.used
        );
        ensure!(usage.segments == segments * SEGMENT_BYTES, "{} bytes of segments, found {segments}", usage.segments);
        Ok(())
    }

    /// Every track has its entry in the summary of its segment.
    fn summary(&self, id: u64, descriptor: &Descriptor) -> Result<(), String> {
        let entries = self.tree.device().log().summary(id, descriptor).map_err(|error| error.to_string())?;
        let entries: BTreeSet<(u16, u32, u64)> =
            entries.iter().map(|entry| (entry.block, entry.stored, entry.check)).collect();
        for location in self.holders.keys().filter(|location| location.segment == id) {
            let entry = (location.block, location.stored, location.check);
            ensure!(entries.contains(&entry), "{location:?} is not in the summary");
        }
        Ok(())
    }

    fn volume(&self, psegs: &BTreeSet<u32>) -> Result<(), String> {
        let mut found = BTreeSet::new();
        for (key, value) in self.all(Table::Volume)? {
            let chunk = u32::from_be_bytes(key[2..].try_into().expect("four bytes"));
            let bytes: ByteBuf = decode(Table::Volume, &key, &value)?;
            let taken = |bit: &usize| bytes[bit / 8] >> (bit % 8) & 1 == 1;
            found.extend((0..bytes.len() * 8).filter(taken).map(|bit| chunk * bytes.len() as u32 * 8 + bit as u32));
        }
        ensure!(found == *psegs, "physical segments taken: {found:?}, used: {psegs:?}");
        Ok(())
    }

    /// No record is left but the root and what counts.
    fn is_bare(&self) -> Result<(), String> {
        for table in [Table::Dirent, Table::Xattr, Table::Track, Table::Link, Table::Preimage, Table::Increment] {
            ensure!(self.all(table)?.is_empty(), "records are left in table {}", table.name());
        }
        for table in [Table::Snapshot, Table::Name, Table::Shared, Table::Orphan] {
            ensure!(self.all(table)?.is_empty(), "records are left in table {}", table.name());
        }
        ensure!(self.state.meta().contains(Table::Base, &LIVE.to_be_bytes()).unwrap_or(false), "no base");
        Ok(())
    }
}

/// Checks that nothing is left of what was removed; `most` is the room that may stay in use, in bytes.
pub fn check_bare(tree: &Tree, most: u64) -> Result<(), String> {
    let look = tree.device().look().map_err(|error| error.to_string())?;
    Check { tree, state: &look, holders: HashMap::new() }.is_bare()?;
    let used = tree.device().log().usage().used;
    ensure!(used <= most, "{used} bytes are in use, at most {most} should be");
    Ok(())
}
