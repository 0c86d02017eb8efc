//! Every kind of region of what a target has, damaged in every way: what is read is right, or an error that names what is damaged.

use crate::chain::{Chain, Model, Rng, key_of, objects, read_moment, seals, thing, write};
use pitfs::daemon::verify_sets;
use pitfs::error::Error;
use pitfs::id::Id;
use pitfs::set::{Key, Seal, Sets, id_of};
use pitfs::target::{Keys, Opens, Target};
use std::collections::BTreeMap;
use std::ops::Range;
use tempfile::TempDir;

const KEYS: u64 = 400;
const HEAD: usize = 56;
const END: usize = 40;
/// Bytes of a frame before what is sealed.
const START: usize = 5;

/// How many places of each kind of region are damaged; `PITFS_DAMAGES` says otherwise.
fn places() -> u64 {
    std::env::var("PITFS_DAMAGES").map_or(2, |text| text.parse().expect("a number"))
}

/// The regions of a set by their kinds, as docs/format.md has them.
fn regions(bytes: &[u8]) -> BTreeMap<&'static str, Vec<Range<usize>>> {
    let number =
        |at: usize, len: usize| bytes[at..at + len].iter().rev().fold(0, |all, byte| all << 8 | usize::from(*byte));
    let end = bytes.len() - END;
    let foot = number(end, 8);
    let mut found: BTreeMap<_, Vec<Range<usize>>> = BTreeMap::new();
    for (kind, place) in [("head", 0..HEAD), ("end", end..bytes.len())] {
        found.insert(kind, Vec::from([place]));
    }
    let mut at = HEAD;
    while at < end {
        let len = START + number(at, 4);
        let kind = match bytes[at + 4] {
            0xf0 => "header",
            0xf1 => "foot",
            0 => "data",
            1 => "label",
            2 => "leaf",
            _ => "inner",
        };
        assert_eq!(kind == "foot", at == foot);
        found.entry(kind).or_default().push(at..at + len);
        found.entry("start").or_default().push(at..at + START);
        found.entry("seal").or_default().push(at + len - 8..at + len);
        at += len;
    }
    assert_eq!(at, end);
    found
}

#[derive(Clone, Debug)]
enum Way {
    Flip(usize, u8),
    Cut(usize),
    /// What another region is, which may be one of another set.
    Swap(Range<usize>, Vec<u8>),
    /// The same, but as long as it was.
    Overwrite(Range<usize>, Vec<u8>),
    Zero(Range<usize>),
}

fn damage(bytes: &mut Vec<u8>, way: &Way) {
    match way.clone() {
        Way::Flip(at, bit) => bytes[at] ^= 1 << bit,
        Way::Cut(at) => bytes.truncate(at),
        Way::Swap(at, other) => drop(bytes.splice(at, other)),
        Way::Overwrite(at, other) => {
            let len = at.len().min(other.len());
            bytes[at][..len].copy_from_slice(&other[..len]);
        }
        Way::Zero(at) => bytes[at].fill(0),
    }
}

/// Whether an error says which object it is about.
fn names_one(error: &Error, names: &[String]) -> bool {
    let text = error.to_string();
    matches!(error, Error::Corrupt { .. } | Error::Store(_)) && names.iter().any(|name| text.contains(name))
}

/// Reads all of a moment in both ways; how much is damaged.
fn read_all(sets: &Sets, set: Id, model: &Model, names: &[String], what: &str) -> usize {
    let mut damaged = 0;
    let mut failed = |error: &Error| {
        assert!(names_one(error, names), "{what}: {error:?}");
        damaged += 1;
    };
    let mut found = Model::new();
    match sets.scan(set, b"", &[0xff]) {
        Err(error) => failed(&error),
        Ok(scan) => {
            for entry in scan {
                match entry.and_then(|entry| Ok((thing(sets, &entry)?, entry.key))) {
                    Ok((thing, key)) => {
                        assert_eq!(model.get(&key), Some(&thing), "{what}: {key:?}");
                        found.insert(key, thing);
                    }
                    Err(error) => failed(&error),
                }
            }
        }
    }
    let is_all = found.len() == model.len();
    for key in (0..KEYS + 3).step_by(7).map(key_of) {
        match sets.find(set, &key).and_then(|found| found.map(|entry| thing(sets, &entry)).transpose()) {
            Ok(found) => assert_eq!(found.as_ref(), model.get(&key), "{what}: {key:?}"),
            Err(error) => failed(&error),
        }
    }
    assert!(is_all || damaged > 0, "{what}: {} of {} are there, and nothing is damaged", found.len(), model.len());
    damaged
}

/// Reads all that is there after an object was damaged.
fn look(chain: &Chain, object: &str, what: &str) {
    let (at, _dir) = chain.at().unwrap_or_else(|error| panic!("{what}: {error}"));
    let repository = &at.repository;
    assert_eq!(repository.was_rebuilt.is_some(), object == "catalogue", "{what}");
    assert_eq!(repository.catalogue().moments().count(), chain.models.len(), "{what}");
    let names = [object.to_string()];
    let mut damaged = 0;
    for listed in repository.catalogue().moments() {
        let model = &chain.models[&listed.header.mark.id];
        damaged += read_all(repository.sets(), listed.id, model, &names, what);
    }
    assert!(damaged == 0 || object != "catalogue", "{what}");
    for verified in verify_sets(&at.repository, None, &mut |_| Ok(())).unwrap() {
        let is_it = id_of(object) == Some(verified.listed.id);
        let needs_it = verified.listed.needs.iter().any(|id| id_of(object) == Some(*id));
        assert!(!is_it || !verified.problems.is_empty(), "{what}: {verified:?}");
        assert!(is_it || needs_it || verified.problems.is_empty(), "{what}: {verified:?}");
        let id = object.trim_end_matches(".set");
        assert!(verified.problems.iter().all(|problem| problem.contains(id)), "{what}: {verified:?}");
    }
}

/// Ways to damage one kind of region of an object.
fn ways(rng: &mut Rng, own: &[Range<usize>], others: &[Vec<u8>]) -> Vec<Way> {
    let mut ways = Vec::new();
    for _ in 0..places() {
        let region = own[rng.below(own.len() as u64) as usize].clone();
        let place = region.start + rng.below(region.len() as u64) as usize;
        ways.extend([Way::Flip(place, rng.below(8) as u8), Way::Cut(place), Way::Zero(region.clone())]);
        if !others.is_empty() {
            let other = others[rng.below(others.len() as u64) as usize].clone();
            ways.extend([Way::Swap(region.clone(), other.clone()), Way::Overwrite(region, other)]);
        }
    }
    ways
}

#[test]
fn every_region_of_a_set_is_right_or_damaged() {
    let mut rng = Rng(3);
    for seal in seals() {
        let (chain, other) = (Chain::new(seal.clone(), KEYS), Chain::new(seal.clone(), KEYS));
        let repository = chain.open().unwrap();
        assert!(repository.catalogue().moments().all(|listed| read_moment(repository.sets(), listed.id).is_ok()));
        let (all, foreign) = (objects(&chain.shelf), objects(&other.shelf));
        let mut kinds: BTreeMap<&str, Vec<Vec<u8>>> = BTreeMap::new();
        for bytes in all.iter().chain(&foreign).filter(|(name, _)| id_of(name).is_some()).map(|(_, bytes)| bytes) {
            for (kind, places) in regions(bytes) {
                kinds.entry(kind).or_default().extend(places.into_iter().map(|place| bytes[place].to_vec()));
            }
        }
        assert_eq!(kinds.len(), 10, "{:?}", kinds.keys());
        for (name, bytes) in all.iter().filter(|(name, _)| id_of(name).is_some()) {
            for (kind, own) in regions(bytes) {
                for way in ways(&mut rng, &own, &kinds[kind]) {
                    let mut changed = bytes.clone();
                    damage(&mut changed, &way);
                    if changed == *bytes {
                        continue;
                    }
                    let what = format!("{seal:?}, {kind} of {name}: {way:.200?}");
                    chain.shelf.change(name, |bytes| *bytes = changed);
                    look(&chain, name, &what);
                    chain.shelf.change(name, |now| now.clone_from(bytes));
                }
            }
        }
    }
}

#[test]
fn a_damaged_catalogue_is_made_anew() {
    let mut rng = Rng(4);
    for seal in seals() {
        let (chain, other) = (Chain::new(seal.clone(), KEYS), Chain::new(seal.clone(), KEYS));
        let (own, other) = (objects(&chain.shelf)["catalogue"].clone(), objects(&other.shelf)["catalogue"].clone());
        let regions = [0..8, 8..12, 12..16, 16..32, 32..own.len() - 8, own.len() - 8..own.len(), 0..own.len()];
        for region in regions {
            let others = [other[region.start.min(other.len())..region.end.min(other.len())].to_vec()];
            for way in ways(&mut rng, &[region], &others) {
                let mut changed = own.clone();
                damage(&mut changed, &way);
                if changed == own {
                    continue;
                }
                chain.shelf.change("catalogue", |bytes| *bytes = changed);
                look(&chain, "catalogue", &format!("{seal:?}, {way:.200?}"));
            }
        }
    }
}

/// What opens a target, and what opens the sets in it.
#[test]
fn a_damaged_label_or_keys_are_told() {
    let (dir, mut rng) = (TempDir::new().unwrap(), Rng(5));
    let (target, stores) = (Target::create(dir.path()).unwrap(), [Id::random(), Id::random()]);
    let file = Key::of([3; 32]);
    let key = Key::of([4; 32]);
    for store in stores {
        let keys = Keys::create(store, &key, &Opens::File(file.clone())).unwrap();
        target.add_store(store, Some(&keys)).unwrap();
        let mut chain = Chain::new(Seal::with(&key), 8);
        let (next, place) = (chain.one_more("m5", 8), dir.path().join(store.to_string()));
        assert!(
            write(&mut target.repository(store, Some(&key)).unwrap(), &next.first(store)).is_ok() && place.is_dir()
        );
    }
    let open = || -> Result<usize, Error> {
        let target = Target::open(dir.path(), None)?;
        let keys = target.keys(stores[0])?;
        let key = keys.map(|keys| keys.open(&Opens::File(file.clone())).map(|(key, _)| key)).transpose()?;
        Ok(target.repository(stores[0], key.as_ref())?.catalogue().moments().count())
    };
    assert_eq!(open().unwrap(), 1);
    let keys = |store: Id| dir.path().join(store.to_string()).join("keys");
    for (path, other) in [(keys(stores[0]), keys(stores[1])), (dir.path().join("target"), keys(stores[1]))] {
        let (whole, other) = (std::fs::read(&path).unwrap(), std::fs::read(other).unwrap());
        let all = std::slice::from_ref(&(0..whole.len())).to_vec();
        for way in (0..10).flat_map(|_| ways(&mut rng, &all, std::slice::from_ref(&other))) {
            let mut changed = whole.clone();
            damage(&mut changed, &way);
            std::fs::write(&path, &changed).unwrap();
            match open() {
                // A label that names another target, which nobody expects here.
                Ok(found) => assert!(found == 1 && path.ends_with("target"), "{way:?} of {}", path.display()),
                Err(error) => {
                    let text = error.to_string();
                    let names_it = text.contains(dir.path().to_str().unwrap()) || text.contains("the key file");
                    assert!(names_it, "{way:?} of {}: {text}", path.display());
                }
            }
        }
        std::fs::remove_file(&path).unwrap();
        assert!(open().is_err(), "{}", path.display());
        std::fs::write(&path, &whole).unwrap();
    }
    assert_eq!(open().unwrap(), 1);
}
