//! The namespace without a kernel: what is found and listed, and what making, renaming and removing does.

use super::{Door, Namespace, SHADOW, SNAP, Target, Virtual};
use crate::device::{InodeNo, LIVE};
use crate::error::{Errno, Error};
use crate::logstore::Codec;
use crate::media::TestDir;
use crate::tree::{Asker, Caller, CreateOptions, Kind, New, Tree};
use crate::view::{View, Views};
use std::sync::Arc;

fn namespace() -> (Namespace, Views) {
    let dir = Arc::new(TestDir::new());
    let options = CreateOptions { track_bytes: 16384, codec: Codec::None, uid: 0, gid: 0, mode: 0o755, hash_seed: 1 };
    Tree::create(dir.clone(), &options).unwrap();
    let views = Views::new(Tree::open(dir).unwrap());
    (Namespace::new(views.clone(), Some(LIVE)), views)
}

fn names(namespace: &Namespace, node: &Virtual) -> Vec<String> {
    let mut found = Vec::new();
    let mut offset = 0;
    // One entry at a time, as whoever has little room asks.
    while let Some((name, next)) = {
        let mut entry = None;
        let add = &mut |name: &[u8], next, _| {
            let is_full = entry.is_some();
            entry.get_or_insert_with(|| (String::from_utf8_lossy(name).into_owned(), next));
            Ok(is_full)
        };
        namespace.list(node, offset, add).unwrap();
        entry
    } {
        (offset, _) = (next, found.push(name));
    }
    found
}

fn find(namespace: &Namespace, node: &Virtual, name: &[u8]) -> Result<Target, Errno> {
    let root = Asker { uid: 0, is_in: &|_| true };
    namespace.lookup(&root, node, name).map(|(target, _)| target).map_err(|error| error.errno())
}

#[test]
fn what_is_made_in_the_root_is_a_snapshot_and_found_by_name_and_time() {
    let (namespace, views) = namespace();
    let root = Virtual::Root;
    assert_eq!(names(&namespace, &root), [".", "..", "live"]);
    assert_eq!(find(&namespace, &root, b"live"), Ok(Target::View(View::live(LIVE))));
    let Ok(Target::View(view)) = namespace.make(&root, b"one", 0, 0) else { panic!("no view") };
    assert_eq!(find(&namespace, &root, b"one"), Ok(Target::View(view)));
    namespace.rename(&root, b"one", b"two").unwrap();
    assert_eq!(names(&namespace, &root), [".", "..", "live", "two"]);
    let link = find(&namespace, &root, b"@0s").unwrap();
    assert_eq!(link, Target::Virtual(Virtual::Link("two".into())));
    assert_eq!(namespace.read_link(&Virtual::Link("two".into())).unwrap(), b"two");
    views.snapshots().update(b"two", "session offline", |record| record.offline = true).unwrap();
    assert_eq!((find(&namespace, &root, b"two"), names(&namespace, &root).len()), (Err(Errno::NOENT), 3));
    namespace.remove(&root, b"two", 0).unwrap();
    assert!(matches!(namespace.remove(&root, b"live", 0), Err(Error::Refused(Errno::PERM, _))));
}

#[test]
fn a_directory_has_its_past_unless_something_real_has_that_name_or_it_was_removed() {
    let (namespace, views) = namespace();
    let tree = views.tree();
    let root = View::live(LIVE).root();
    let new = New { kind: Kind::Directory, permissions: 0o755, rdev: 0, target: b"" };
    let (directory, _) = tree.names().make(Caller { uid: 0, gid: 0, umask: 0 }, root, b"d", new).unwrap();
    let hidden = |inode: InodeNo, name| namespace.hidden_lookup(inode.live(), name).map_err(|error| error.errno());
    assert_eq!(hidden(directory, SNAP), Err(Errno::NOENT), "no snapshot shows it");
    let taken = views.snapshots().take(Some(b"one")).unwrap();
    assert_eq!(hidden(directory, SNAP), Ok(Virtual::Snap(directory)));
    assert_eq!(hidden(root, SHADOW), Ok(Virtual::Shadow(LIVE)));
    assert_eq!(hidden(directory, SHADOW), Err(Errno::NOENT));
    let past = Virtual::Snap(directory);
    assert_eq!(names(&namespace, &past), [".", "..", "one"]);
    let aside = Target::Aside { inode: directory, epoch: taken.epoch, door: Door::Snap };
    assert_eq!(find(&namespace, &past, b"one"), Ok(aside));
    let standing = namespace.standing(&past).unwrap();
    assert_eq!((standing.kind, standing.permissions), (Kind::Directory, 0o755));
    assert_eq!(namespace.hide(directory.live(), SNAP).unwrap(), past);
    assert_eq!(hidden(directory, SNAP), Err(Errno::NOENT));
}
