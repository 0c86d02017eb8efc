//! Links that a kernel counts by itself.

mod mounted;

use mounted::*;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const ROUNDS: usize = 500;

/// Looks at everything in a directory, as long as others change it.
fn look(directory: &Path, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            drop((path.symlink_metadata(), fs::read(&path)));
        }
    }
}

/// A file that has lost one of its names while others looked at it is not taken for one that has none.
#[test]
fn a_file_keeps_its_other_names_whoever_looks_at_it_meanwhile() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let directory = mounted.live().join("d");
    fs::create_dir(&directory).unwrap();
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| directory.join(name));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        (0..3).for_each(|_| drop(scope.spawn(|| look(&directory, &is_over))));
        let linked = (0..ROUNDS).try_for_each(|round| {
            fs::write(&a, [1; 5000])?;
            fs::hard_link(&a, &b)?;
            fs::File::options().append(true).open(&b)?.write_all(&[2; 5000])?;
            fs::set_permissions(&a, fs::Permissions::from_mode(0o600))?;
            match round % 2 {
                0 => fs::remove_file(&b)?,
                // What is replaced loses a name as well.
                _ => fs::write(&d, "d").and_then(|()| fs::rename(&d, &b)).and_then(|()| fs::remove_file(&b))?,
            }
            fs::hard_link(&a, &c)?;
            assert_eq!(a.metadata()?.nlink(), 2);
            fs::remove_file(&c)?;
            fs::remove_file(&a)
        });
        is_over.store(true, Ordering::Relaxed);
        linked.unwrap();
    });
}
