//! Random operations on bases, compared with what reading every moment shows.

use super::{ROOT_USER, TRACK, in_memory, settle, shown, snap};
use pitfs::archive::{Archive, Label, Mark};
use pitfs::clock::{Epoch, Timestamp};
use pitfs::device::{ArchiveRecord, BaseId, InodeAt, InodeNo, LIVE, Moment, Snapshot, TrackNo, index_entry};
use pitfs::error::{Errno, Error};
use pitfs::id::Id;
use pitfs::media::Directory;
use pitfs::meta::Table;
use pitfs::tree::{Change, Inode, Kind, New, Position, RenameMode, SetTime, SetXattr, Tree, root_of};
use pitfs::view::Views;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

struct Rng(u64);

impl Rng {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end.max(1)
    }

    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    fn pick<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        if all.is_empty() { None } else { Some(all[self.below(all.len())].clone()) }
    }
}

#[derive(Clone)]
struct Place {
    path: String,
    parent: InodeNo,
    name: String,
    inode: InodeNo,
    kind: Kind,
}

fn walk(tree: &Tree, base: BaseId, moment: Moment) -> Vec<Place> {
    let mut found = Vec::new();
    let mut directories = vec![(root_of(base), String::new())];
    while let Some((parent, path)) = directories.pop() {
        tree.names()
            .list(parent.at(moment), 0, |entry| {
                let name = String::from_utf8(entry.name.clone()).unwrap();
                let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                if entry.kind == Kind::Directory {
                    directories.push((entry.inode, path.clone()));
                }
                found.push(Place { path, parent, name, inode: entry.inode, kind: entry.kind });
                Ok(true)
            })
            .unwrap();
    }
    found
}

/// What an operation may be refused for; anything else is a mistake.
fn allowed<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Error::Refused(..)) => None,
        Err(Error::Posix(errno)) => {
            use Errno as E;
            let all = [E::EXIST, E::NOENT, E::NOTDIR, E::ISDIR, E::NOTEMPTY, E::NODATA, E::INVAL, E::PERM, E::XDEV];
            assert!(all.contains(&errno), "{errno}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

struct World {
    views: Views,
    bases: Vec<BaseId>,
    rng: Rng,
    count: u64,
    /// Inodes that may have been written without having other bytes then.
    loose: BTreeSet<InodeNo>,
    restored: BTreeSet<BaseId>,
    /// Where increments of the first base go.
    archive: Option<(tempfile::TempDir, Arc<Archive>)>,
}

impl World {
    fn new(seed: u64) -> World {
        let rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut world = World {
            views: in_memory(),
            bases: vec![LIVE],
            rng,
            count: 0,
            loose: BTreeSet::new(),
            restored: BTreeSet::new(),
            archive: None,
        };
        if seed.is_multiple_of(2) {
            let dir = tempfile::tempdir().unwrap();
            let device = world.views.tree().device();
            let base = device.look().unwrap().base_record(LIVE).unwrap().id;
            let label = Label { archive: Id::random(), store: device.settings().id, base };
            let directory = Arc::new(Directory::open(dir.path()).unwrap());
            label.create(&directory).unwrap();
            let holds = |mark: &Mark| device.archiving().holds(LIVE, mark);
            let archive = Archive::open(&directory, label, LIVE.number(), index_entry, &holds, &mut |_| Ok(()));
            let archive = Arc::new(archive.unwrap());
            world.views.tree().device().archiving().set_archive(LIVE, Some(archive.clone()));
            world.archive = Some((dir, archive));
        }
        world
    }

    /// Bytes that were never written before, none of them zero.
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        self.count += 1;
        let mut noise = Rng(self.count.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        (0..len).map(|_| noise.below(255) as u8 + 1).collect()
    }

    fn offset(&mut self) -> u64 {
        match self.rng.below(4) {
            0 => self.rng.below(900) as u64,
            1 => self.rng.below(6) as u64 * TRACK,
            _ => self.rng.below(100_000) as u64,
        }
    }

    /// Makes sure that a file has bytes it never had, or lets the comparison know that it may not.
    fn stamp(&mut self, inode: InodeNo) {
        if self.rng.percent(60) {
            let bytes = self.bytes(12);
            self.views.tree().files().write(inode, 0, &bytes, false).unwrap();
        } else {
            self.loose.insert(inode);
        }
    }

    fn moments(&self, base: BaseId) -> Vec<Moment> {
        let snapshots = self.views.of(base).snapshots().with_archived().unwrap();
        let readable = snapshots.iter().filter(|snapshot| snapshot.is_readable());
        readable.map(|snapshot| Moment::At(snapshot.epoch)).chain([Moment::Live]).collect()
    }

    fn step(&mut self) {
        let base = self.rng.pick(&self.bases).unwrap();
        let views = self.views.of(base);
        let tree = views.tree();
        let all = walk(tree, base, Moment::Live);
        let of = |kind: Kind| all.iter().filter(|place| place.kind == kind).cloned().collect::<Vec<_>>();
        let mut directories: Vec<InodeNo> = of(Kind::Directory).iter().map(|place| place.inode).collect();
        directories.push(root_of(base));
        let directory = self.rng.pick(&directories).unwrap();
        let name = self.rng.pick(&["a", "b", "c", "d"]).unwrap();
        let any = self.rng.pick(&all);
        let file = self.rng.pick(&of(Kind::File)).map(|place| place.inode);
        match (self.rng.below(100), any, file) {
            (0..14, ..) => {
                let kind = self.rng.pick(&[Kind::File, Kind::File, Kind::Directory, Kind::Symlink]).unwrap();
                let new = New { kind, permissions: 0o755, rdev: 0, target: b"target" };
                let new = if kind == Kind::Symlink { new } else { New { target: b"", ..new } };
                allowed(tree.names().make(ROOT_USER, directory, name.as_bytes(), new));
            }
            (14..40, _, Some(file)) => {
                let len = if self.rng.percent(50) { 1 + self.rng.below(700) } else { 1 + self.rng.below(40_000) };
                let (offset, bytes) = (self.offset(), self.bytes(len));
                tree.files().write(file, offset, &bytes, false).unwrap();
            }
            (40..46, _, Some(file)) => {
                let change = Change { size: Some(self.offset()), ..Change::default() };
                tree.attributes().change(file, change).unwrap();
                self.stamp(file);
            }
            (46..50, _, Some(file)) => {
                let (offset, len) = (self.offset(), 1 + self.offset());
                tree.files().zero(file, offset, len, self.rng.percent(50), false).unwrap();
                self.stamp(file);
            }
            (50..55, _, Some(file)) => {
                let moment = self.rng.pick(&self.moments(base)).unwrap();
                let files: Vec<Place> =
                    walk(tree, base, moment).into_iter().filter(|place| place.kind == Kind::File).collect();
                if let Some(source) = self.rng.pick(&files) {
                    let offset = self.rng.below(3) as u64 * TRACK;
                    let from = Position { of: source.inode.at(moment), offset };
                    tree.files().copy_range(from, file, self.rng.below(3) as u64 * TRACK, 1 << 20, false).unwrap();
                    self.loose.insert(file);
                    self.stamp(file);
                }
            }
            (55..60, Some(place), _) => {
                if place.kind == Kind::Directory {
                    allowed(tree.names().remove_directory(place.parent, place.name.as_bytes()));
                } else {
                    tree.names().unlink(place.parent, place.name.as_bytes()).unwrap();
                }
            }
            (60..70, Some(place), _) => {
                let target = all.iter().find(|other| other.inode == directory).map_or("", |place| &place.path);
                let is_inside = |inner: &str, outer: &str| inner == outer || inner.starts_with(&format!("{outer}/"));
                let new_path = if target.is_empty() { name.to_string() } else { format!("{target}/{name}") };
                let mode = self.rng.pick(&[RenameMode::Replace, RenameMode::Exchange]).unwrap();
                if !is_inside(&new_path, &place.path) && !is_inside(&place.path, &new_path) {
                    allowed(tree.names().rename(place.parent, place.name.as_bytes(), directory, name.as_bytes(), mode));
                }
            }
            (70..73, _, Some(file)) => {
                allowed(tree.names().link(file, directory, name.as_bytes()));
            }
            (73..79, Some(place), _) => {
                let value = self.bytes(5);
                let attribute = self.rng.pick(&[&b"user.a"[..], b"user.ab"]).unwrap();
                if place.kind == Kind::Symlink || self.rng.percent(30) {
                    allowed(tree.attributes().remove_xattr(place.inode, attribute));
                } else {
                    tree.attributes().set_xattr(place.inode, attribute, &value, SetXattr::default()).unwrap();
                }
            }
            (79..85, Some(place), _) => {
                let change = match self.rng.below(3) {
                    0 => Change { permissions: Some(0o700 + self.rng.below(3) as u32), ..Change::default() },
                    1 => Change { uid: Some(self.rng.below(3) as u32), ..Change::default() },
                    _ => Change { mtime: Some(SetTime::To(Timestamp::default())), ..Change::default() },
                };
                tree.attributes().change(place.inode, change).unwrap();
            }
            (85..87, ..) => tree.commit().unwrap(),
            (87..91, ..) => {
                tree.reap_step().unwrap();
                tree.device().removal().step().unwrap();
                tree.settle_step().unwrap();
            }
            (91, ..) => self.roll(),
            (92..96, ..) => {
                self.count += 1;
                snap(&views, &format!("{base}-{}", self.count));
            }
            (96.., ..) => self.change_snapshots(base),
            _ => {}
        }
    }

    /// Saves increments to the archive, and lets some of the snapshots that it has go.
    fn roll(&mut self) {
        let Some((_, archive)) = &self.archive else { return };
        let tree = self.views.tree();
        while tree.device().look().unwrap().noted_work().is_settling(LIVE).unwrap() {
            settle(tree);
        }
        let from = archive.tip().map_or(Epoch::ZERO, |tip| tip.epoch);
        let mut all = self.views.snapshots().all().unwrap();
        all.retain(|snapshot| snapshot.epoch >= from && snapshot.is_readable());
        for pair in all.windows(2) {
            let (directory, pair) = (archive.directory(), (&pair[0], &pair[1]));
            let saved = tree.device().archiving().save_increment(directory, pair, 1, &mut |_| Ok(())).unwrap();
            archive.append(saved, &mut |_| Ok(())).unwrap();
            let (directory, anchor) = (archive.path().to_path_buf(), Some(pair.1.as_ref()));
            let record = ArchiveRecord { directory, id: archive.id(), anchor, saving: Vec::new(), hosts: Vec::new() };
            self.views.set_archive(Some(record), Some(&archive.marks_after(Epoch::ZERO))).unwrap();
        }
        for snapshot in self.views.snapshots().all().unwrap() {
            let name = snapshot.record.name.as_bytes();
            if archive.mark(snapshot.epoch).is_some() && self.rng.percent(60) {
                allowed(self.views.deletions().delete(&[name]));
            }
        }
        while tree.device().removal().step().unwrap() {}
    }

    fn change_snapshots(&mut self, base: BaseId) {
        let views = self.views.of(base);
        let Some(snapshot) = self.rng.pick(&views.snapshots().all().unwrap()) else { return };
        let name = snapshot.record.name.as_bytes();
        let tip = self.archive.as_ref().and_then(|(_, archive)| archive.tip());
        let is_tip = base == LIVE && tip.is_some_and(|tip| tip.epoch == snapshot.epoch);
        self.count += 1;
        match self.rng.below(6) {
            0 | 1 => drop(allowed(views.deletions().delete(&[name]))),
            // What its archive leads to is needed.
            2 if !is_tip => drop(allowed(views.snapshots().deactivate(name))),
            3 | 4 if snapshot.is_readable() => {
                allowed(views.restores().restore(&snapshot));
                self.restored.insert(base);
            }
            5 if snapshot.is_readable() && self.bases.len() < 3 => {
                let name = format!("clone {}", self.count);
                let clone =
                    views.bases().clone_snapshot(&snapshot, name.as_bytes(), self.rng.percent(50), false).unwrap();
                self.bases.push(clone);
            }
            _ => {}
        }
    }

    fn check(&mut self, when: &str) {
        for base in self.bases.clone() {
            self.check_versions(base, when);
            self.check_changed(base, when);
        }
    }
}

/// All that a version is told apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    inode: InodeNo,
    attributes: (u32, u32, u32),
    bytes: Vec<u8>,
    entries: BTreeSet<(Vec<u8>, InodeNo)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

fn facts(tree: &Tree, at: InodeAt) -> Facts {
    let found = tree.inode(at).unwrap();
    let mut entries = BTreeSet::new();
    let bytes = match found.kind() {
        Kind::File => tree.files().read(at, 0, found.size as usize).unwrap(),
        Kind::Symlink => tree.names().read_link(at).unwrap(),
        _ => {
            tree.names().list(at, 0, |entry| Ok(entries.insert((entry.name.clone(), entry.inode)))).unwrap();
            Vec::new()
        }
    };
    let attributes = (found.mode, found.uid, found.gid);
    Facts { inode: at.inode, attributes, bytes, entries, xattrs: tree.attributes().xattrs(at).unwrap() }
}

impl World {
    fn check_versions(&self, base: BaseId, when: &str) {
        let tree = self.views.tree();
        let moments = self.moments(base);
        let mut paths = vec![BTreeMap::new(); moments.len()];
        for (paths, moment) in paths.iter_mut().zip(&moments) {
            paths.insert(String::new(), root_of(base));
            paths.extend(walk(tree, base, *moment).into_iter().map(|place| (place.path, place.inode)));
        }
        // What was restored meanwhile, an archive cannot tell from what was written.
        let is_archived =
            |i: usize| tree.device().look().unwrap().moments().is_archived(root_of(base).at(moments[i])).unwrap();
        let is_mixed = |i: usize| self.restored.contains(&base) && (is_archived(i) || is_archived(i - 1));
        let all: BTreeSet<&String> = paths.iter().flat_map(BTreeMap::keys).collect();
        for path in all {
            let shown: Vec<Option<Facts>> = moments
                .iter()
                .zip(&paths)
                .map(|(moment, paths)| paths.get(path).map(|inode| facts(tree, inode.at(*moment))))
                .collect();
            let found = tree.comparison().versions(base, path.as_bytes()).unwrap();
            let moment_of = |snapshot: &Option<Snapshot>| {
                snapshot.as_ref().map_or(Moment::Live, |snapshot| Moment::At(snapshot.epoch))
            };
            let at = |moment| moments.iter().position(|other| *other == moment).unwrap();
            // The moments that each version claims, oldest first.
            let mut claims = vec![None; moments.len()];
            for (i, version) in found.iter().rev().enumerate() {
                let (first, last) = (at(moment_of(&version.oldest)), at(moment_of(&version.snapshot)));
                assert!(first <= last, "{when}: {path}: {:?}", self::shown(&found));
                for claim in &mut claims[first..=last] {
                    assert_eq!(claim.replace(i), None, "{when}: {path} is claimed twice: {:?}", self::shown(&found));
                }
                let inode = tree.inode(version.inode.at(moments[last])).unwrap();
                let told = (version.time, version.changed, version.size, version.kind);
                assert_eq!(told, (inode.mtime, inode.ctime, inode.size, inode.kind()), "{when}: {path}");
            }
            for (i, facts) in shown.iter().enumerate() {
                let what = || format!("{when}: base {base}, {path:?} at {:?}: {:?}", moments[i], self::shown(&found));
                assert_eq!(claims[i].is_some(), facts.is_some(), "{}", what());
                if i == 0 || claims[i].is_none() || claims[i - 1].is_none() {
                    assert!(i == 0 || claims[i].is_none() || claims[i] != claims[i - 1], "{}", what());
                } else if *facts != shown[i - 1] {
                    assert_ne!(claims[i], claims[i - 1], "{}", what());
                } else if !is_mixed(i) && !facts.as_ref().is_some_and(|facts| self.loose.contains(&facts.inode)) {
                    assert_eq!(claims[i], claims[i - 1], "{}", what());
                }
            }
        }
    }

    /// Everything that is known of the tracks of all files at a moment.
    fn files(&self, base: BaseId, moment: Moment) -> BTreeMap<InodeNo, File> {
        let tree = self.views.tree();
        let mut files: BTreeMap<InodeNo, File> = BTreeMap::new();
        for place in walk(tree, base, moment).into_iter().filter(|place| place.kind == Kind::File) {
            let file = files.entry(place.inode).or_insert_with(|| {
                let inode: Inode = tree.inode(place.inode.at(moment)).unwrap();
                let bytes = tree.files().read(place.inode.at(moment), 0, inode.size as usize).unwrap();
                let look = tree.device().look().unwrap();
                let tracks = (0..inode.size.div_ceil(TRACK)).map(|track| Track {
                    is_dirty: moment == Moment::Live && look.tracks().is_in_memory(&(place.inode, TrackNo::new(track))),
                    record: look.value(Table::Track, &track_key(place.inode, track), moment).unwrap(),
                    bytes: bytes[(track * TRACK) as usize..].iter().copied().take(TRACK as usize).collect(),
                });
                let is_archived = look.moments().is_archived(place.inode.at(moment)).unwrap();
                let inline = inode.inline.to_vec();
                File { size: inode.size, inline, tracks: tracks.collect(), paths: Vec::new(), is_archived }
            });
            file.paths.push(place.path);
        }
        files
    }

    fn check_changed(&mut self, base: BaseId, when: &str) {
        let moments = self.moments(base);
        for _ in 0..4 {
            let (before, after) = (self.rng.pick(&moments).unwrap(), self.rng.pick(&moments).unwrap());
            let (old, new) = (self.files(base, before), self.files(base, after));
            let mut expected = BTreeMap::new();
            for inode in old.keys().chain(new.keys()) {
                let (old, new) = (old.get(inode), new.get(inode));
                let size = |file: Option<&File>| file.map(|file| file.size);
                let tracks = if before == after { BTreeSet::new() } else { differing(old, new) };
                let is_whole = old.is_some() != new.is_some();
                if is_whole || size(old) != size(new) || !tracks.is_empty() {
                    expected.insert(*inode, (size(old), size(new), tracks, is_whole));
                }
            }
            let what = format!("{when}: base {base} from {before:?} to {after:?}");
            let found = self.views.tree().track_changes().changed_tracks(base, before, after, None).unwrap();
            let got: BTreeMap<_, _> = found
                .iter()
                .map(|file| {
                    let tracks = numbers(&file.tracks);
                    (file.inode, (file.size_before, file.size_after, tracks, file.is_whole))
                })
                .collect();
            for (inode, expected) in &expected {
                assert!(got.get(inode).is_some_and(|got| got.2.is_superset(&expected.2)), "{what}: {inode} {got:?}");
            }
            let mut may_be_more = BTreeSet::new();
            for (inode, got) in &got {
                let files = [old.get(inode), new.get(inode)];
                let is_archived = files.iter().flatten().any(|file| file.is_archived);
                // What was restored meanwhile, an archive cannot tell from what was written.
                let is_loose = is_archived && (self.restored.contains(&base) || self.loose.contains(inode));
                if is_loose {
                    may_be_more.insert(*inode);
                }
                assert!(is_loose || Some(got) == expected.get(inode), "{what}: {inode} {got:?}, {expected:?}");
            }
            assert_eq!(got.len(), found.len(), "{what}");
            for file in &found {
                let paths = new.get(&file.inode).or(old.get(&file.inode)).map(|file| &file.paths);
                let path = String::from_utf8(file.path.clone()).unwrap();
                assert!(paths.is_some_and(|paths| paths.contains(&path)), "{what}: {path:?} of {paths:?}");
                assert!(file.tracks.windows(2).all(|pair| pair[0].end < pair[1].start), "{what}");
            }
            let all = walk(self.views.tree(), base, before);
            let Some(place) = self.rng.pick(&all) else { continue };
            let is_below = |inode: &InodeNo| {
                let paths = [&old, &new].into_iter().filter_map(|files| files.get(inode)).flat_map(|file| &file.paths);
                let below = format!("{}/", place.path);
                paths.into_iter().any(|path| *path == place.path || path.starts_with(&below))
            };
            let found = self
                .views
                .tree()
                .track_changes()
                .changed_tracks(base, before, after, Some(place.path.as_bytes()))
                .unwrap();
            let got: BTreeSet<InodeNo> = found.iter().map(|file| file.inode).collect();
            let wanted: BTreeSet<InodeNo> = expected.keys().copied().filter(is_below).collect();
            assert!(wanted.is_subset(&got), "{what} below {}: {got:?}, expected {wanted:?}", place.path);
            assert!(got.difference(&wanted).all(|inode| may_be_more.contains(inode)), "{what}: {got:?}, {wanted:?}");
        }
    }

    /// What the increments of snapshots hold that can be read, once nothing is left to be settled.
    fn check_bits(&self, when: &str) {
        let tree = self.views.tree();
        settle(tree);
        while tree.device().removal().step().unwrap() {}
        for base in self.bases.clone() {
            let snapshots = self.views.of(base).snapshots().all().unwrap();
            let readable = |i: usize| snapshots.get(i).is_none_or(|snapshot| snapshot.is_readable());
            for (i, snapshot) in snapshots.iter().enumerate().filter(|(i, _)| readable(*i) && readable(i + 1)) {
                let next = snapshots.get(i + 1).map_or(Moment::Live, |next| Moment::At(next.epoch));
                let (old, new) = (self.files(base, Moment::At(snapshot.epoch)), self.files(base, next));
                let bits = tree.track_changes().session_bits(base, snapshot.epoch, None).unwrap();
                let changed =
                    tree.track_changes().changed_tracks(base, Moment::At(snapshot.epoch), next, None).unwrap();
                assert_eq!(bits, changed, "{when}: bits of {}", snapshot.record.name);
                let found = tree.track_changes().saved_tracks(base, snapshot.epoch, None).unwrap();
                let got: BTreeMap<InodeNo, BTreeSet<u64>> =
                    found.iter().map(|file| (file.inode, numbers(&file.tracks))).collect();
                for (inode, file) in &old {
                    let has = |track: &u64| match file.inline.is_empty() {
                        true => file.tracks[*track as usize].record.is_some(),
                        false => *track == 0,
                    };
                    let mut wanted = match new.get(inode) {
                        Some(new) => differing(Some(file), Some(new)),
                        // Its tracks are removed when nobody uses it any more.
                        None => continue,
                    };
                    wanted.retain(|track| (*track as usize) < file.tracks.len() && has(track));
                    let got = got.get(inode).cloned().unwrap_or_default();
                    let what = format!("{when}: bits of {} for {:?}", snapshot.record.name, file.paths);
                    assert!(got.is_superset(&wanted), "{what}: {got:?}, expected {wanted:?}");
                    // A restore may have brought back what was replaced.
                    let may_be_more = self.loose.contains(inode) || self.restored.contains(&base);
                    assert!(may_be_more || got == wanted, "{what}: {got:?}, expected {wanted:?}");
                }
            }
        }
    }
}

fn track_key(inode: InodeNo, track: u64) -> Vec<u8> {
    [&inode.prefix()[..], &track.to_be_bytes()].concat()
}

struct Track {
    /// What the record says where it lies.
    record: Option<Vec<u8>>,
    is_dirty: bool,
    bytes: Vec<u8>,
}

struct File {
    size: u64,
    inline: Vec<u8>,
    tracks: Vec<Track>,
    paths: Vec<String>,
    is_archived: bool,
}

/// The tracks that differ, by where they lie; an archive names places in another way.
fn numbers(tracks: &[Range<TrackNo>]) -> BTreeSet<u64> {
    tracks.iter().flat_map(|tracks| tracks.start.number()..tracks.end.number()).collect()
}

fn differing(old: Option<&File>, new: Option<&File>) -> BTreeSet<u64> {
    let count = [old, new].into_iter().flatten().map(|file| file.tracks.len()).max().unwrap_or(0);
    let inline = |file: Option<&File>| file.map_or(Vec::new(), |file| file.inline.clone());
    let archived = |file: Option<&File>| file.is_some_and(|file| file.is_archived);
    let differs = |track: &usize| {
        let [a, b] = [old, new].map(|file| file.and_then(|file| file.tracks.get(*track)));
        let record = |track: Option<&Track>| track.and_then(|track| track.record.clone());
        let is_dirty = [a, b].into_iter().flatten().any(|track| track.is_dirty);
        let is_moved = match archived(old) || archived(new) {
            false => record(a) != record(b),
            true => record(a).is_some() != record(b).is_some() || has_other_bytes(a, b),
        };
        is_dirty || is_moved || *track == 0 && inline(old) != inline(new)
    };
    (0..count).filter(differs).map(|track| track as u64).collect()
}

fn has_other_bytes(a: Option<&Track>, b: Option<&Track>) -> bool {
    let [a, b] = [a, b].map(|track| track.map_or(&[][..], |track| &track.bytes));
    let zeros = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let common = a.len().min(b.len());
    a[..common] != b[..common] || !zeros(&a[common..]) || !zeros(&b[common..])
}

#[test]
fn versions_and_tracks_are_those_that_reading_every_moment_shows() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("PITFS_SEED").unwrap_or(1);
    for seed in first..first + number("PITFS_SEEDS").unwrap_or(8) {
        let mut world = World::new(seed);
        for round in 0..8 {
            for _ in 0..60 {
                world.step();
            }
            world.check(&format!("seed {seed}, round {round}"));
            if world.rng.percent(20) {
                world.check_bits(&format!("seed {seed}, round {round}"));
                world.check(&format!("seed {seed}, round {round}, settled"));
            }
        }
    }
}
