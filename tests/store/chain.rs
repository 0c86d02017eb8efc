//! Chains of sets on a shelf in memory, beside maps that have the same.

use pitfs::archive::Mark;
use pitfs::clock::{Epoch, Timestamp};
use pitfs::daemon::AtTarget;
use pitfs::error::{Error, Result};
use pitfs::id::Id;
use pitfs::media::{Shelf, TestShelf};
use pitfs::purpose::Purpose;
use pitfs::set::{
    Before, Change, Delta, Entry, Header, Key, Kind, Seal, Sets, Spot, Value, Writer, object_name, update,
};
use pitfs::target::{Repository, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tempfile::TempDir;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    Record(Vec<u8>),
    Track(Vec<u8>),
}

pub type Model = BTreeMap<Vec<u8>, Thing>;

/// The table that tracks are in.
const TRACKS: u8 = 4;

#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn bytes(&mut self, least: u64, most: u64) -> Vec<u8> {
        (0..least + self.below(most - least)).map(|_| self.below(256) as u8).collect()
    }

    fn thing(&mut self, key: &[u8]) -> Thing {
        if key[0] == TRACKS { Thing::Track(self.bytes(1, 3000)) } else { Thing::Record(self.bytes(40, 90)) }
    }
}

pub fn key_of(number: u64) -> Vec<u8> {
    [&[if number.is_multiple_of(8) { TRACKS } else { 1 }][..], &(number * 0x101).to_be_bytes()].concat()
}

/// The sets of a store, two bases of it, and what its moments have.
#[derive(Clone)]
pub struct Chain {
    pub shelf: Arc<TestShelf>,
    pub seal: Seal,
    pub store: Id,
    /// By snapshot.
    pub models: BTreeMap<Id, Model>,
    /// The newest snapshot of the first base.
    last: (Id, Model),
    rng: Rng,
    time: i64,
}

/// A snapshot that is to be written, and what changed since the one before.
pub struct Next {
    header: Header,
    /// The snapshot that it comes after.
    before: Option<Id>,
    changes: Vec<Delta>,
    pub model: Model,
}

impl Next {
    /// The same of another store, which has nothing before it.
    pub fn first(&self, store: Id) -> Next {
        let header = Header { store, before: None, kind: Kind::Full, ..self.header.clone() };
        Next { header, before: None, changes: self.changes.clone(), model: self.model.clone() }
    }

    /// The same, which is said to take so much room in a store.
    pub fn of_bytes(mut self, bytes: u64) -> Next {
        self.header.bytes = bytes;
        self
    }
}

pub fn seals() -> [Seal; 2] {
    [Seal::plain(), Seal::with(&Key::of([7; 32]))]
}

impl Chain {
    /// Five moments of one base, `m0` to `m4`, and two of another, `n0` and `n1`. The first is let go, and has what others need.
    pub fn new(seal: Seal, keys: u64) -> Chain {
        let (shelf, last) = (Arc::new(TestShelf::default()), (Id::default(), Model::new()));
        let (models, rng) = (BTreeMap::new(), Rng(keys));
        let mut chain = Chain { shelf, seal, store: Id::random(), models, last, rng, time: 0 };
        let mut repository = chain.open().unwrap();
        let bases = ["m", "n"].map(|name| (name, Id::random()));
        for (name, base, count) in [(bases[0].0, bases[0].1, 5), (bases[1].0, bases[1].1, 2)] {
            let (mut before, mut model) = (None, Model::new());
            for number in 0..count {
                let next = chain.next(&format!("{name}{number}"), base, before, &model, keys);
                model = next.model.clone();
                write(&mut repository, &next).unwrap();
                chain.models.insert(next.header.mark.id, model.clone());
                before = Some(next.header.mark.id);
                if name == "m" {
                    chain.last = (next.header.mark.id, model.clone());
                }
            }
        }
        let first = repository.catalogue().moments().find(|listed| listed.header.mark.name == "m0").unwrap().clone();
        repository.let_go(&[first.id], Vec::new()).unwrap();
        chain.models.remove(&first.header.mark.id);
        chain
    }

    /// A moment after another one, of which some changed.
    fn next(&mut self, name: &str, base: Id, before: Option<Id>, model: &Model, keys: u64) -> Next {
        self.time += 10;
        let (time, id) = (Timestamp { seconds: self.time, nanos: 0 }, Id::random());
        let epoch = Epoch::new(self.time as u32);
        let mark = Mark { epoch, id, name: name.into(), time, purpose: Purpose::Plain, offline: false };
        let kind = if before.is_some() { Kind::Incremental } else { Kind::Full };
        let named = before.map(|snapshot| Before { set: Id::default(), snapshot });
        let base_name = if name.starts_with('m') { "live" } else { "other" }.to_string();
        let track_bytes = 65_536;
        let header = Header {
            store: self.store,
            base,
            base_name,
            mark,
            kind,
            before: named,
            track_bytes,
            hash_seed: 3,
            bytes: 100,
            reverse: None,
        };
        let (mut model, mut changed) = (model.clone(), BTreeSet::new());
        for at in 0..if before.is_some() { keys / 8 } else { keys } {
            let key = key_of(if before.is_some() { self.rng.below(keys) } else { at });
            if before.is_some() && self.rng.below(5) == 0 {
                model.remove(&key);
            } else {
                model.insert(key.clone(), self.rng.thing(&key));
            }
            changed.insert(key);
        }
        let delta = |key: Vec<u8>| {
            let change = match model.get(&key) {
                Some(Thing::Record(value)) => Change::Record(value.clone()),
                Some(Thing::Track(bytes)) => Change::Track(bytes.clone()),
                None => Change::Gone,
            };
            Delta { key, birth: epoch, change }
        };
        let changes = changed.into_iter().map(delta).collect();
        Next { header, before, changes, model }
    }

    /// A moment after the newest of the first base.
    pub fn one_more(&mut self, name: &str, keys: u64) -> Next {
        let (before, model) = self.last.clone();
        let base = self.open().unwrap().catalogue().of_snapshot(before).unwrap().header.base;
        self.next(name, base, Some(before), &model, keys)
    }

    /// What is on the shelf, on another one.
    pub fn copy(&self) -> Chain {
        let shelf = Arc::new(TestShelf::default());
        for (name, bytes) in objects(&self.shelf) {
            shelf.replace(&name, &bytes).unwrap();
        }
        Chain { shelf, ..self.clone() }
    }

    pub fn open(&self) -> Result<Repository> {
        Repository::open(Arc::new(self.shelf.clone()), self.store, self.seal.clone())
    }

    /// What is there as commands have it; the directory is only what is locked.
    pub fn at(&self) -> Result<(AtTarget, TempDir)> {
        let dir = TempDir::new().unwrap();
        Ok((AtTarget { target: Target::create(dir.path())?, repository: self.open()?, key: None, seen: 0 }, dir))
    }

    /// Compares all moments that are there, and tells of what snapshots they are.
    pub fn compare(&self, repository: &Repository) -> BTreeSet<Id> {
        let mut found = BTreeSet::new();
        for listed in repository.catalogue().moments() {
            let snapshot = listed.header.mark.id;
            let model = &self.models[&snapshot];
            let read = read_moment(repository.sets(), listed.id);
            let read = read.unwrap_or_else(|error| panic!("{}: {error}", listed.header.mark.name));
            assert!(read == *model, "{} has {} of {}", listed.header.mark.name, read.len(), model.len());
            found.insert(snapshot);
        }
        found
    }

    /// Whether the shelf has what its catalogue names, and nothing else; nothing is hidden that nobody needs.
    pub fn has_no_more_than_needed(&self) {
        let repository = self.open().unwrap();
        assert_eq!(repository.was_rebuilt, None);
        let mut expected = BTreeSet::from(["catalogue".to_string()]);
        let needed = repository.catalogue().needed();
        for listed in repository.catalogue().sets() {
            expected.insert(object_name(listed.id));
            if listed.is_hidden {
                expected.insert(format!("{}.hidden", listed.id));
                assert!(needed.contains_key(&listed.id), "{} is of no use", listed.id);
            }
        }
        let names: BTreeSet<String> = objects(&self.shelf).into_keys().collect();
        assert_eq!(names, expected);
    }
}

pub fn objects(shelf: &Arc<TestShelf>) -> BTreeMap<String, Vec<u8>> {
    let read = |(name, len): (String, u64)| {
        let mut bytes = vec![0; len as usize];
        shelf.open(&name).unwrap().read_at(0, &mut bytes).unwrap();
        (name, bytes)
    };
    shelf.list().unwrap().into_iter().map(read).collect()
}

/// Writes a snapshot, as a backup does, if it is not there.
pub fn write(repository: &mut Repository, next: &Next) -> Result<Id> {
    repository.sweep()?;
    if let Some(found) = repository.catalogue().of_snapshot(next.header.mark.id) {
        return Ok(found.id);
    }
    let sets = repository.sets().clone();
    let before = next.before.map(|snapshot| repository.catalogue().of_snapshot(snapshot).expect("it is there").id);
    let mut writer = Writer::create(&**sets.shelf(), Id::random(), &next.header, sets.seal(), 1)?;
    update(&mut writer, before.map(|before| (&*sets, before)), next.changes.iter().cloned().map(Ok))?;
    let id = writer.finish()?.id;
    repository.add(&*sets.file(id)?)?;
    Ok(id)
}

pub fn snapshot_of(next: &Next) -> Id {
    next.header.mark.id
}

pub fn thing(sets: &Sets, entry: &Entry<Spot>) -> Result<Thing> {
    match &entry.value {
        Value::Record(value) => Ok(Thing::Record(value.clone())),
        Value::Track { len, place } => sets.read(place, *len).map(Thing::Track),
        Value::Lost => Err(Error::Store("it is lost".into())),
    }
}

pub fn read_moment(sets: &Sets, set: Id) -> Result<Model> {
    let mut model = Model::new();
    for entry in sets.scan(set, b"", &[0xff])? {
        let entry = entry?;
        let thing = thing(sets, &entry)?;
        model.insert(entry.key, thing);
    }
    Ok(model)
}
