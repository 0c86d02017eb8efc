use super::*;
use crate::clock::{Epoch, Timestamp};
use crate::id::Id;
use crate::purpose::Purpose;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::Arc;
use std::sync::atomic::Ordering;

fn mark(epoch: u32) -> Mark {
    let (id, name) = (Id::of_parts("snapshot", &[&epoch.to_le_bytes()]), format!("r{epoch}"));
    let time = Timestamp { seconds: epoch.into(), nanos: 0 };
    Mark { epoch: Epoch::new(epoch), id, name, time, purpose: Purpose::Plain, offline: false }
}

fn label() -> Label {
    Label { archive: Id::random(), store: Id::random(), base: Id::random() }
}

fn directory(path: &Path) -> Arc<Directory> {
    Arc::new(Directory::open(path).unwrap())
}

fn save(directory: &Arc<Directory>, label: &Label, epoch: u32) -> Increment {
    let Label { store, base: base_id, .. } = *label;
    let (from, to, base_name) = (mark(epoch), mark(epoch + 1), "live".to_string());
    let name = file_name(&from, &to);
    let (base, track_bytes, hash_seed, merged) = (0, 65_536, 1, Vec::new());
    let header = Header { store, base_id, base, base_name, from, to, track_bytes, hash_seed, merged };
    let Summary { path, bytes, .. } = Writer::create(directory, &name, &header, LEVEL).unwrap().finish().unwrap();
    Increment { header, path, bytes }
}

fn open(directory: &Arc<Directory>, label: Label) -> Result<Archive> {
    Archive::open(directory, label, 0, |_, _| Ok(Default::default()), &|_| Ok(true), &mut |_| Ok(()))
}

/// A look at an archive reads of each increment once what it is.
#[test]
fn what_is_known_of_increments_is_read_once_for_each_look() {
    let dir = tempfile::tempdir().unwrap();
    let (directory, label) = (directory(dir.path()), label());
    (1..=20).for_each(|epoch| drop(save(&directory, &label, epoch)));
    let decoded = |archive: &Archive| archive.index.decoded.swap(0, Ordering::Relaxed);
    assert_eq!(decoded(&open(&directory, label).unwrap()), 0, "nothing is known at first");
    let archive = open(&directory, label).unwrap();
    assert_eq!((decoded(&archive), archive.increments().len()), (20, 20));
    save(&directory, &label, 21);
    archive.refresh(&|_| Ok(true), &mut |_| Ok(())).unwrap();
    assert_eq!((decoded(&archive), archive.increments().len()), (20, 21));
    let parts = archive.increments();
    archive.merge(&parts[3..9], &mut |_| Ok(())).unwrap();
    assert_eq!((decoded(&archive), archive.increments().len()), (0, 16));
}

#[test]
fn an_archive_that_was_closed_is_free_whoever_still_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let (directory, label) = (directory(dir.path()), label());
    save(&directory, &label, 1);
    let first = open(&directory, label).unwrap();
    // Also for whoever has the same descriptor.
    assert!(open(&directory, label).unwrap_err().to_string().contains("is in use"));
    first.close();
    assert_eq!(open(&directory, label).unwrap().increments(), first.increments());
}

/// Names, contents and identities of what is in a directory.
fn state(path: &Path) -> BTreeMap<String, (Vec<u8>, u64)> {
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        (name.into_string().unwrap(), (fs::read(&entry).unwrap(), entry.metadata().unwrap().ino()))
    };
    fs::read_dir(path).unwrap().map(entry).collect()
}

#[test]
fn whoever_swaps_the_directory_for_a_link_has_nothing_made_or_removed_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    let label = label();
    for path in ["outer/archive", "victim/archive", "theirs"] {
        fs::create_dir_all(at(path)).unwrap();
    }
    let opened = directory(&at("outer/archive"));
    label.create(&opened).unwrap();
    (3..=9).for_each(|epoch| drop(save(&opened, &label, epoch)));
    let archive = open(&opened, label).unwrap();
    fs::write(at("outer/archive/.x.increment.new"), "").unwrap();
    save(&directory(&at("theirs")), &label, 2);
    let names = || state(&at("outer/archive")).into_keys().chain([file_name(&mark(10), &mark(11))]);
    for name in names().chain(["index.new".into()]) {
        fs::write(at("victim/archive").join(name), "precious").unwrap();
    }
    fs::write(at("victim/archive").join(temporary_name(&file_name(&mark(10), &mark(11)))), "precious").unwrap();
    let victim = state(&at("victim/archive"));
    archive.check_there().unwrap();

    fs::rename(at("outer"), at("away")).unwrap();
    symlink(at("victim"), at("outer")).unwrap();
    let said = archive.check_there().unwrap_err().to_string();
    assert!(said.contains("is not there"), "{said}");
    archive.append(save(archive.directory(), &label, 10), &mut |_| Ok(())).unwrap();
    archive.take_in(&directory(&at("theirs")), &|_| Ok(true), &mut |_| Ok(())).unwrap();
    archive.refresh(&|_| Ok(true), &mut |_| Ok(())).unwrap();
    let all = archive.increments();
    assert_eq!(all.len(), 9);
    archive.prune(&all[..2], &mut |_| Ok(())).unwrap();
    let merged = archive.merge(&all[2..5], &mut |_| Ok(())).unwrap();
    assert_eq!(merged.problems, [""; 0]);
    assert_eq!(archive.remove_leftovers(), [""; 0]);
    archive.pack().unwrap();
    archive.close();
    drop(archive);
    remove_index(&opened).and_then(|()| Label::remove(&opened)).unwrap();
    assert_eq!(state(&at("victim/archive")), victim);
    let kept = [merged.increment.name()].into_iter().chain(all[5..].iter().map(Increment::name));
    assert!(state(&at("away/archive")).into_keys().eq(kept));
}

#[test]
fn an_increment_may_be_anybodys_and_have_several_names_but_is_no_link() {
    let dir = tempfile::tempdir().unwrap();
    let (opened, label) = (directory(dir.path()), label());
    let [first, second] = [1, 2].map(|epoch| save(&opened, &label, epoch));
    fs::hard_link(&first.path, dir.path().join("copy")).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&first.path, Some(65534), None).unwrap();
    }
    fs::rename(&second.path, dir.path().join("elsewhere")).unwrap();
    symlink(dir.path().join("elsewhere"), &second.path).unwrap();
    let Survey { increments, broken, .. } = Survey::of(&opened).unwrap();
    assert_eq!(increments, [first]);
    assert!(broken[0].path == second.path && broken[0].problem.contains("no plain file"), "{broken:?}");
}
