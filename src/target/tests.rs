//! Targets in directories: what is there, what is not, and what only looks like it.

use super::*;
use crate::clock::{Epoch, Timestamp};
use crate::media::TestShelf;
use crate::purpose::Purpose;
use crate::set::{Before, Change, Delta, Header, Kind, Mark, Writer, object_name, update};
use tempfile::TempDir;

fn header(store: Id, seconds: i64, before: Option<Before>) -> Header {
    let time = Timestamp { seconds, nanos: 0 };
    let (epoch, id) = (Epoch::new(seconds as u32), Id::random());
    let mark = Mark { epoch, id, name: format!("m{seconds}"), time, purpose: Purpose::Plain, offline: false };
    let kind = if before.is_some() { Kind::Incremental } else { Kind::Full };
    let base_name = "live".to_string();
    Header {
        store,
        base: Id::default(),
        base_name,
        mark,
        kind,
        before,
        track_bytes: 65_536,
        hash_seed: 3,
        bytes: 100,
        reverse: None,
    }
}

/// Adds a set with one more record than the one before.
fn add(repository: &mut Repository, seconds: i64, before: Option<Id>) -> Id {
    add_change(repository, seconds, before, Change::Record(b"value".to_vec()))
}

/// The same with a track.
fn add_large(repository: &mut Repository, seconds: i64, before: Option<Id>) -> Id {
    add_change(repository, seconds, before, Change::Track(vec![seconds as u8; 5000]))
}

fn add_change(repository: &mut Repository, seconds: i64, before: Option<Id>, change: Change) -> Id {
    let sets = repository.sets().clone();
    let named = before.map(|set| Before { set, snapshot: Id::default() });
    let id = Id::random();
    let header = header(repository.store(), seconds, named);
    let mut writer = Writer::create(&**sets.shelf(), id, &header, sets.seal(), 3).unwrap();
    let key = [&[1][..], &seconds.to_be_bytes()].concat();
    let delta = Delta { key, birth: Epoch::new(1), change };
    update(&mut writer, before.map(|before| (&*sets, before)), std::iter::once(Ok(delta))).unwrap();
    writer.finish().unwrap();
    repository.add(&sets.file(id).unwrap()).unwrap();
    id
}

#[test]
fn a_directory_is_a_target_when_it_says_so_and_which_one() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("target");
    assert!(Target::create(&path).is_err(), "nobody makes directories where a disk should be");
    std::fs::create_dir(&path).unwrap();
    assert!(!Target::is_one(&path));
    let message = Target::open(&path, None).err().unwrap().to_string();
    assert!(message.contains("is its disk mounted?"), "{message}");
    let id = Target::create(&path).unwrap().id();
    assert!(Target::is_one(&path) && Target::create(&path).is_err());
    assert_eq!(Target::open(&path, Some(id)).unwrap().id(), id);
    let message = Target::open(&path, Some(Id::random())).err().unwrap().to_string();
    assert!(message.contains("another target is there"), "{message}");
    assert!(Target::open(&dir.path().join("none"), None).is_err());
    let full = dir.path().join("full");
    std::fs::create_dir_all(full.join("something")).unwrap();
    assert!(Target::create(&full).err().unwrap().to_string().contains("\"something\""));
}

#[test]
fn stores_have_their_own_and_their_keys() {
    let dir = TempDir::new().unwrap();
    let target = Target::create(dir.path()).unwrap();
    let [open, secret] = [Id::random(), Id::random()];
    target.add_store(open, None).unwrap();
    let key = make_key_file(&dir.path().join(".key")).unwrap();
    let keys = Keys::create(secret, &key, &Opens::File(key.clone())).unwrap();
    target.add_store(secret, Some(&keys)).unwrap();
    assert!(target.add_store(secret, None).is_err());
    assert_eq!(target.stores().unwrap().len(), 2);
    assert!(target.repository(open, Some(&key)).err().unwrap().to_string().contains("is not encrypted"));
    assert!(target.repository(secret, None).err().unwrap().to_string().contains("is encrypted"));
    assert!(target.repository(Id::random(), None).err().unwrap().to_string().contains("has nothing of the store"));
    for (store, key) in [(open, None), (secret, Some(&key))] {
        let mut repository = target.repository(store, key).unwrap();
        let first = add(&mut repository, 10, None);
        add(&mut repository, 20, Some(first));
        let again = target.repository(store, key).unwrap();
        assert_eq!(again.catalogue(), repository.catalogue());
        let names: Vec<&str> = again.catalogue().moments().map(|listed| listed.header.mark.name.as_str()).collect();
        assert_eq!(names, ["m10", "m20"]);
        // Its one leaf was written anew.
        assert!(again.catalogue().needed().is_empty());
        let path = dir.path().join(store.to_string()).join("catalogue");
        let has_names = std::fs::read(path).unwrap().windows(3).any(|some| some == b"m20");
        assert_eq!(has_names, key.is_none(), "names are not told without the key");
    }
    let other = Key::of([1; 32]);
    // Another key finds nothing that it opens, and that is not taken for an empty target.
    let wrong = target.repository(secret, Some(&other)).err().unwrap().to_string();
    assert!(wrong.contains("not sealed with this key") && wrong.contains("none of 2 sets"), "{wrong}");
}

#[test]
fn a_catalogue_that_is_lost_or_damaged_is_made_anew() {
    let dir = TempDir::new().unwrap();
    let (target, store) = (Target::create(dir.path()).unwrap(), Id::random());
    target.add_store(store, None).unwrap();
    let mut repository = target.repository(store, None).unwrap();
    let first = add(&mut repository, 10, None);
    let second = add(&mut repository, 20, Some(first));
    let path = dir.path().join(store.to_string()).join("catalogue");
    let whole = std::fs::read(&path).unwrap();
    let sets = repository.catalogue().sets().to_vec();
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 2;
        std::fs::write(&path, bytes).unwrap();
        let found = target.repository(store, None).unwrap();
        assert!(found.was_rebuilt.is_some() && found.catalogue().sets() == sets, "byte {at}");
    }
    std::fs::remove_file(&path).unwrap();
    let mut found = target.repository(store, None).unwrap();
    assert!(found.was_rebuilt.is_some());
    assert!(found.rebuild(0).unwrap().is_empty());
    let found = target.repository(store, None).unwrap();
    assert!(found.was_rebuilt.is_none() && found.catalogue().sets() == sets);
    // One that was written more often than can be was not.
    let mut forged = found.catalogue().clone();
    forged.number = crate::limits::COUNT_MAX;
    forged.write(found.sets(), store).unwrap();
    let found = target.repository(store, None).unwrap();
    assert!(found.was_rebuilt.is_some() && found.catalogue().sets() == sets);
    // What cannot be read is told, and the others are there.
    let object = dir.path().join(store.to_string()).join(object_name(first));
    std::fs::write(&object, "nonsense").unwrap();
    let mut found = target.repository(store, None).unwrap();
    let unread = found.rebuild(0).unwrap();
    assert!(unread.len() == 1 && unread[0].0 == first);
    assert_eq!(found.catalogue().sets().iter().map(|listed| listed.id).collect::<Vec<_>>(), [second]);
    std::fs::remove_file(object).unwrap();
}

#[test]
fn what_was_let_go_stays_as_long_as_a_moment_needs_it() {
    let dir = TempDir::new().unwrap();
    let (target, store) = (Target::create(dir.path()).unwrap(), Id::random());
    target.add_store(store, None).unwrap();
    let mut repository = target.repository(store, None).unwrap();
    let first = add_large(&mut repository, 10, None);
    let second = add_large(&mut repository, 20, Some(first));
    let third = add_large(&mut repository, 30, Some(second));
    let there = |id: Id| dir.path().join(store.to_string()).join(object_name(id)).exists();
    repository.let_go(&[first], Vec::new()).unwrap();
    assert!(there(first), "the others have bytes in it");
    assert_eq!(repository.catalogue().moments().count(), 2);
    // Also where the catalogue is lost.
    std::fs::remove_file(dir.path().join(store.to_string()).join("catalogue")).unwrap();
    let mut repository = target.repository(store, None).unwrap();
    repository.rebuild(0).unwrap();
    assert_eq!(repository.catalogue().moments().map(|listed| listed.id).collect::<Vec<_>>(), [second, third]);
    repository.let_go(&[second, third], Vec::new()).unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join(store.to_string())).unwrap().count(), 1, "the catalogue is left");
}

#[test]
fn what_an_interruption_left_is_taken_in_or_goes() {
    let dir = TempDir::new().unwrap();
    let (target, store) = (Target::create(dir.path()).unwrap(), Id::random());
    target.add_store(store, None).unwrap();
    let mut repository = target.repository(store, None).unwrap();
    let first = add(&mut repository, 10, None);
    let catalogue = dir.path().join(store.to_string()).join("catalogue");
    let before = std::fs::read(&catalogue).unwrap();
    let second = add(&mut repository, 20, Some(first));
    std::fs::write(&catalogue, before).unwrap();
    let shelf = repository.sets().shelf().clone();
    // One that was to take another's place, one whose deletion was not done, and one that is half written.
    let third = Id::random();
    repository.note_hidden(third).unwrap();
    shelf.put(&object_name(third)).and_then(|putting| putting.finish()).unwrap();
    repository.note_hidden(first).unwrap();
    std::fs::write(dir.path().join(store.to_string()).join(format!(".{}.new", object_name(third))), "half").unwrap();
    let mut repository = target.repository(store, None).unwrap();
    repository.sweep().unwrap();
    let listed = |repository: &Repository| repository.catalogue().moments().map(|one| one.id).collect::<Vec<_>>();
    assert_eq!(listed(&repository), [first, second]);
    assert_eq!(std::fs::read_dir(dir.path().join(store.to_string())).unwrap().count(), 3);
    assert_eq!(listed(&target.repository(store, None).unwrap()), [first, second]);
}

/// What the seal vouches for is decoded or told nevertheless: without a key anybody can have made it.
#[test]
fn mutated_catalogues_and_keys_are_read_or_told() {
    let (shelf, store, mut state) = (Arc::new(TestShelf::default()), Id::random(), 3u64);
    let mut below = |end: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % end
    };
    let mut repository = Repository::open(Arc::new(shelf.clone()), store, Seal::plain()).unwrap();
    let first = add(&mut repository, 10, None);
    add(&mut repository, 20, Some(first));
    let key = Key::of([5; 32]);
    Keys::create(store, &key, &Opens::File(key.clone())).unwrap().write(&shelf).unwrap();
    let whole = |name: &str| read_whole(&shelf, name, 0..=1 << 20).unwrap().unwrap();
    let (catalogue, keys) = (whole("catalogue"), whole("keys"));
    for round in 0..20_000 {
        let (name, sample, head) = if round % 2 == 0 { ("catalogue", &catalogue, 32) } else { ("keys", &keys, 16) };
        let mut content = sample[head..sample.len() - 8].to_vec();
        for _ in 0..=below(3) {
            let at = below(content.len() + 1);
            match below(4) {
                0 => content.truncate(at),
                1 => content.insert(at, below(256) as u8),
                2 => drop(content.splice(at..(at + 5).min(content.len()), [0xdd, 0xff, 0xff, 0xff, 0xff])),
                _ => content.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << below(8)),
            }
        }
        let mut bytes = [&sample[..head], &content].concat();
        bytes.extend(xxhash_rust::xxh3::xxh3_64(&bytes).to_le_bytes());
        shelf.replace(name, &bytes).unwrap();
        if name == "catalogue" {
            let found = Repository::open(Arc::new(shelf.clone()), store, Seal::plain()).unwrap();
            assert!(found.was_rebuilt.is_none() || found.catalogue().sets().len() == 2);
        } else if let Ok(Some(found)) = Keys::read(&shelf, store)
            && let Ok((opened, _)) = found.open(&Opens::File(key.clone()))
        {
            assert_eq!(opened, key);
        }
    }
}
