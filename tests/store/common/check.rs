//! Checks that the records of a store hold together: names, inodes, tracks, pre-images, room.

use pitfs::clock::Epoch;
use pitfs::device::{
    BaseId, InodeNo, LIVE, Moment, Pointer, Snapshot, SnapshotRecord, State, split_increment, split_preimage,
    split_record, split_track_key,
};
use pitfs::limits::{BLOCK_BYTES, INLINE_BYTES_MAX, PSEGS_IN_SEGMENT, SEGMENT_BLOCKS, SEGMENT_BYTES};
use pitfs::logstore::{Descriptor, Holders, Location};
use pitfs::meta::{Pair, Table, prefix_end};
use pitfs::tree::{Inode, Kind, Tree, is_root};
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;

/// An inode's number, with its base.
type Number = InodeNo;

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
    /// For each location the pre-images that name it: base, birth, end.
    kept: HashMap<Location, Vec<(BaseId, Epoch, Epoch)>>,
}

/// Checks a store that was just opened, so that nothing is in memory only.
pub fn check(tree: &Tree) -> Result<(), String> {
    check_all(tree, true)
}

/// Like [`check`]; what a snapshot holds alone is counted exactly only where nothing was ever shared.
pub fn check_all(tree: &Tree, was_shared: bool) -> Result<(), String> {
    let look = tree.device().look().map_err(|error| error.to_string())?;
    let mut check = Check { tree, state: &look, holders: HashMap::new(), kept: HashMap::new() };
    let bases: Vec<BaseId> = look.bases().map(|(base, _)| base).collect();
    for &base in &bases {
        let in_it = |text: String| format!("base {base}: {text}");
        check.base(base).map_err(in_it)?;
    }
    check.tombstones()?;
    check.tracks()?;
    let snapshots = check.snapshots()?;
    let log_blocks = check.log(&snapshots)?;
    check.shared()?;
    check.room()?;
    let held_alone = check.held_alone(&snapshots);
    let is_approximate = |snapshot: &Snapshot| {
        was_shared || snapshots.iter().any(|other| other.base == snapshot.base && other.record.deleting)
    };
    drop(look);
    let log_bytes = tree.device().log_bytes();
    ensure!(
        log_bytes == log_blocks * BLOCK_BYTES as u64,
        "{log_bytes} bytes of log are counted, {log_blocks} blocks found"
    );
    for (snapshot, alone) in held_alone {
        let unique = tree.device().removal().unique_bytes(snapshot.point()).map_err(|error| error.to_string())?;
        ensure!(
            is_approximate(&snapshot) || unique == alone,
            "deleting {:?} of base {} would free {alone} bytes, it is said to free {unique}",
            snapshot.record.name,
            snapshot.base
        );
    }
    Ok(())
}

fn decode<T: DeserializeOwned>(table: Table, key: &[u8], value: &[u8]) -> Result<T, String> {
    pitfs::meta::decode(table, key, value).map_err(|error| error.to_string())
}

fn number_of_key(key: &[u8]) -> Number {
    InodeNo::of_key(key).expect("a key of an inode's record")
}

/// A number that is stored without its base.
fn base_of(key: &[u8]) -> BaseId {
    BaseId::of_key(key).expect("the key of a record")
}

fn number_at(key: &[u8], at: usize) -> Number {
    InodeNo::new(base_of(key), u64::from_be_bytes(key[at..at + 8].try_into().expect("eight bytes")))
}

impl Check<'_> {
    fn all(&self, table: Table) -> Result<Vec<Pair>, String> {
        let pairs = self.state.meta().range(table, &[], &[u8::MAX; 300]).map_err(|error| error.to_string())?;
        pairs.map(|pair| pair.map_err(|error| error.to_string())).collect()
    }

    /// Records with a birth: key, birth, value.
    fn born(&self, table: Table) -> Result<Vec<Pair>, String> {
        let split = |(key, bytes): Pair| {
            let (birth, value) = split_record(table, &key, &bytes).map_err(|error| error.to_string())?;
            ensure!(birth <= self.state.epoch(), "a record of table {} is born in the future", table.name());
            Ok((key, value.to_vec()))
        };
        self.all(table)?.into_iter().map(split).collect()
    }

    /// What a base shows, its own or from elsewhere.
    fn shown<T: DeserializeOwned>(&self, table: Table, base: BaseId) -> Result<Vec<(Vec<u8>, T)>, String> {
        let prefix = base.prefix();
        let mut found = Vec::new();
        let scanned = self.state.scan(table, &prefix, &prefix_end(&prefix), Moment::Live, |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            Ok(ControlFlow::Continue(()))
        });
        scanned.map_err(|error| error.to_string())?;
        found.into_iter().map(|(key, value)| Ok((key.clone(), decode(table, &key, &value)?))).collect()
    }

    fn base(&self, base: BaseId) -> Result<(), String> {
        let inodes = self.inodes(base)?;
        self.names(base, &inodes)?;
        self.tracks_of(base, &inodes)
    }

    fn inodes(&self, base: BaseId) -> Result<BTreeMap<Number, Inode>, String> {
        let fill = |(key, inode): (Vec<u8>, Inode)| {
            (number_of_key(&key), Inode { parent: inode.parent.in_base(base), ..inode })
        };
        let inodes: BTreeMap<Number, Inode> = self.shown::<Inode>(Table::Inode, base)?.into_iter().map(fill).collect();
        let orphans: BTreeSet<Number> =
            // Kind 0 is an inode; see docs/format.md.
            self.all(Table::Orphan)?.iter().filter(|(key, _)| key[4] == 0).map(|(key, _)| number_at(key, 5)).collect();
        let mut nameless = inodes.iter().filter(|(_, inode)| inode.links == 0).map(|(number, _)| *number);
        // A clone shows what had no name as well; and a restore can have taken an orphan away or named it.
        let has_era = !self.state.base_record(base).map_err(|error| error.to_string())?.eras.is_empty();
        let lost = nameless.find(|number| !orphans.contains(number));
        ensure!(has_era || lost.is_none(), "inode {lost:?} has no name and nobody will remove it");
        for (key, _) in self.shown::<ByteBuf>(Table::Xattr, base)? {
            ensure!(inodes.contains_key(&number_of_key(&key)), "an xattr belongs to no inode");
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

    fn names(&self, base: BaseId, inodes: &BTreeMap<Number, Inode>) -> Result<(), String> {
        let mut names: BTreeMap<Number, BTreeSet<(Number, Vec<u8>)>> = BTreeMap::new();
        let (mut entries, mut subdirectories) = (HashMap::<Number, u64>::new(), HashMap::<Number, u32>::new());
        for (key, (number, kind)) in self.shown::<(u64, u8)>(Table::Dirent, base)? {
            let (number, parent, name) = (InodeNo::new(base, number), number_of_key(&key), key[20..].to_vec());
            let inode =
                inodes.get(&number).ok_or(format!("an entry of {parent} names inode {number}, which is not there"))?;
            ensure!(inode.kind() as u8 == kind, "an entry says another kind than inode {number}");
            ensure!(names.entry(number).or_default().insert((parent, name)), "an entry of {parent} is there twice");
            *entries.entry(parent).or_default() += 1;
            *subdirectories.entry(parent).or_default() += u32::from(inode.is_directory());
        }
        let mut links: BTreeMap<Number, BTreeSet<(Number, Vec<u8>)>> = BTreeMap::new();
        for (key, ()) in self.shown::<()>(Table::Link, base)? {
            links.entry(number_of_key(&key)).or_default().insert((number_at(&key, 12), key[20..].to_vec()));
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
            if inode.links > 0 && !is_root(number) {
                wanted.insert((inode.parent, inode.name.to_vec()));
                ensure!(wanted == found, "inode {number} believes in the names {wanted:?}, found {found:?}");
            } else {
                ensure!(wanted.is_empty() && found.is_empty(), "inode {number} has names and should have none");
            }
        }
        ensure!(entries.is_empty() && names.is_empty() && links.is_empty(), "names without inodes are left");
        Ok(())
    }

    fn tracks_of(&self, base: BaseId, inodes: &BTreeMap<Number, Inode>) -> Result<(), String> {
        let track_bytes = self.tree.device().track_bytes();
        let mut counts: BTreeMap<Number, u64> = BTreeMap::new();
        let mut blocks = 0;
        for (key, pointer) in self.shown::<Pointer>(Table::Track, base)? {
            let (number, track) = split_track_key(&key).ok_or("a key of a track makes no sense")?;
            let inode = inodes.get(&number).ok_or(format!("a track belongs to inode {number}, which is not there"))?;
            let end = track.start(track_bytes) + pointer.held() as u64;
            ensure!(
                inode.links == 0 || end <= inode.size,
                "track {track} of inode {number} ends at {end}, after the file"
            );
            ensure!(pointer.held() as u64 <= track_bytes, "track {track} of inode {number} is too long");
            *counts.entry(number).or_default() += 1;
            blocks += pointer.blocks();
        }
        for (number, inode) in inodes.iter().filter(|(_, inode)| inode.links > 0) {
            let count = counts.get(number).copied().unwrap_or_default();
            ensure!(inode.tracks == count, "inode {number} counts {} tracks and has {count}", inode.tracks);
        }
        let counted = self.state.counts(base).map_err(|error| error.to_string())?.refers;
        ensure!(counted == blocks, "{counted} blocks are counted, its tracks take {blocks}");
        Ok(())
    }

    /// Records without a value are noted, and nothing else is.
    fn tombstones(&self) -> Result<(), String> {
        let mut noted: BTreeSet<Vec<u8>> = self.all(Table::Tombstone)?.into_iter().map(|(key, _)| key).collect();
        for table in [Table::Inode, Table::Dirent, Table::Xattr, Table::Track, Table::Link] {
            for (key, _) in self.born(table)?.into_iter().filter(|(_, value)| value.is_empty()) {
                let note = [&key[..4], &[table as u8], &key[4..]].concat();
                let is_deleted = self.state.base_record(base_of(&key)).is_ok_and(|record| record.deleting);
                ensure!(noted.remove(&note) || is_deleted, "a tombstone of table {} is not noted", table.name());
            }
        }
        noted.retain(|key| self.state.base_record(base_of(key)).is_ok_and(|record| !record.deleting));
        ensure!(noted.is_empty(), "tombstones are noted that are not there: {noted:?}");
        Ok(())
    }

    /// What the records of all bases hold.
    fn tracks(&mut self) -> Result<(), String> {
        for (key, value) in self.born(Table::Track)?.into_iter().filter(|(_, value)| !value.is_empty()) {
            let pointer: Pointer = decode(Table::Track, &key, &value)?;
            for location in pointer.locations() {
                self.holders.entry(*location).or_default().live += 1;
            }
        }
        Ok(())
    }

    /// All snapshots, also those that are being deleted.
    fn snapshots(&self) -> Result<Vec<Snapshot>, String> {
        let mut all = Vec::new();
        let mut names: BTreeMap<(BaseId, Vec<u8>), Epoch> = BTreeMap::new();
        for (key, value) in self.all(Table::Name)? {
            names.insert((base_of(&key), key[4..].to_vec()), decode(Table::Name, &key, &value)?);
        }
        for (key, value) in self.all(Table::Snapshot)? {
            let base = base_of(&key);
            let epoch = Epoch::from_be_bytes(key[4..].try_into().expect("four bytes"));
            let record: SnapshotRecord = decode(Table::Snapshot, &key, &value)?;
            ensure!(epoch < self.state.epoch(), "a snapshot lies in the future");
            if !record.deleting && !self.is_going(base) {
                let named = names.remove(&(base, record.name.as_bytes().to_vec()));
                ensure!(named == Some(epoch), "the snapshot {:?} is not found by name", record.name);
            }
            all.push(Snapshot { base, epoch, record, is_archived: false });
        }
        names.retain(|(base, _), _| !self.is_going(*base));
        ensure!(names.is_empty(), "names of snapshots that are not there: {names:?}");
        Ok(all)
    }

    /// Whether a base is being deleted.
    fn is_going(&self, base: BaseId) -> bool {
        !self.state.bases().any(|(id, _)| id == base)
    }

    /// Pre-images and increments; the blocks that only they hold.
    fn log(&mut self, snapshots: &[Snapshot]) -> Result<u64, String> {
        let mut facts = BTreeSet::new();
        for (full, bytes) in self.all(Table::Preimage)? {
            let (table, key, end) = split_preimage(&full).map_err(|error| error.to_string())?;
            let (birth, value) = split_record(table, &key, &bytes).map_err(|error| error.to_string())?;
            let base = base_of(&key);
            let holds = |snapshot: &Snapshot| snapshot.base == base && birth <= snapshot.epoch && snapshot.epoch < end;
            ensure!(
                self.is_going(base) || snapshots.iter().any(holds),
                "a pre-image of table {} of base {base} from {birth} to {end} holds no snapshot",
                table.name()
            );
            if table == Table::Track && !value.is_empty() {
                let pointer: Pointer = decode(table, &key, value)?;
                for location in pointer.locations() {
                    self.holders.entry(*location).or_default().log += 1;
                    self.kept.entry(*location).or_default().push((base, birth, end));
                }
            }
            facts.insert((table, key, end));
        }
        for (full, _) in self.all(Table::Increment)? {
            let fact = split_increment(&full).map_err(|error| error.to_string())?;
            ensure!(
                facts.remove(&fact) || self.is_going(base_of(&fact.1)),
                "an increment without a pre-image: {fact:?}"
            );
        }
        facts.retain(|(_, key, _)| !self.is_going(base_of(key)));
        ensure!(facts.is_empty(), "pre-images without an increment: {facts:?}");
        let only_log = self.holders.iter().filter(|(_, holders)| holders.live == 0);
        Ok(only_log.map(|(location, _)| location.blocks() as u64).sum())
    }

    /// For each snapshot the bytes that it holds alone.
    fn held_alone(&self, snapshots: &[Snapshot]) -> Vec<(Snapshot, u64)> {
        let is_there = |snapshot: &&Snapshot| !snapshot.record.deleting && !self.is_going(snapshot.base);
        let snapshots: Vec<&Snapshot> = snapshots.iter().filter(is_there).collect();
        let mut found = Vec::new();
        for snapshot in &snapshots {
            let mut alone = 0;
            for (location, kept) in &self.kept {
                let holds = |other: &Snapshot, (base, birth, end): &(BaseId, Epoch, Epoch)| {
                    other.base == *base && *birth <= other.epoch && other.epoch < *end
                };
                let others = || snapshots.iter().filter(|other| other.point() != snapshot.point());
                let is_held = kept.iter().any(|fact| holds(snapshot, fact));
                let is_held_elsewhere = kept.iter().any(|fact| others().any(|other| holds(other, fact)));
                let bytes = (location.blocks() * BLOCK_BYTES) as u64;
                alone += if is_held && !is_held_elsewhere && self.holders[location].live == 0 { bytes } else { 0 };
            }
            found.push(((*snapshot).clone(), alone));
        }
        found
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
            let (id, descriptor) = segment.map_err(|error| error.to_string())?;
            let descriptor: Descriptor = descriptor.map_err(|error| error.to_string())?;
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

    /// No record is left but the root of the first base and what counts.
    fn is_bare(&self) -> Result<(), String> {
        let gone = [
            Table::Dirent,
            Table::Xattr,
            Table::Track,
            Table::Link,
            Table::Preimage,
            Table::Increment,
            Table::Snapshot,
            Table::Name,
            Table::Shared,
            Table::Orphan,
            Table::Tombstone,
        ];
        for table in gone {
            let left = self.all(table)?;
            ensure!(left.is_empty(), "{} records are left in table {}: {left:?}", left.len(), table.name());
        }
        let bases: Vec<BaseId> = self.all(Table::Base)?.iter().map(|(key, _)| base_of(key)).collect();
        ensure!(bases == [LIVE], "bases are left: {bases:?}");
        let inodes: Vec<Number> = self.all(Table::Inode)?.iter().map(|(key, _)| number_of_key(key)).collect();
        ensure!(inodes.iter().all(|number| is_root(*number) && number.base() == LIVE), "inodes are left: {inodes:?}");
        let counts = self.state.meta().range(Table::State, b"counts", b"countt").map_err(|error| error.to_string())?;
        ensure!(counts.count() <= 1, "counts of bases are left");
        Ok(())
    }
}

/// Checks that nothing is left of what was removed; `most` is the room that may stay in use, in bytes.
pub fn check_bare(tree: &Tree, most: u64) -> Result<(), String> {
    let look = tree.device().look().map_err(|error| error.to_string())?;
    Check { tree, state: &look, holders: HashMap::new(), kept: HashMap::new() }.is_bare()?;
    let used = tree.device().log().usage().used;
    ensure!(used <= most, "{used} bytes are in use, at most {most} should be");
    Ok(())
}
