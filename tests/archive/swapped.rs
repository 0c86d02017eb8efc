//! Whoever owns a directory above an archive puts a link in its place, or something else is where the archive should be.

use crate::damaged::MountedOn;
use crate::mounted::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// Names and contents of the files in a directory.
fn files(path: &Path) -> Vec<(String, Vec<u8>)> {
    names(path).into_iter().map(|name| (name.clone(), fs::read(path.join(name)).unwrap())).collect()
}

#[test]
fn a_link_in_the_place_of_a_directory_above_leads_nothing_elsewhere() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let at = |path: &str| mounted.dir.path().join(path);
    let archive = at("outer/archive");
    let roll = |i: u32| {
        fs::write(mounted.live().join("f"), format!("version {i}")).unwrap();
        mounted.ok(["roll", "--archive", archive.to_str().unwrap(), "--keep", "1", "--name", &format!("v{i}")])
    };
    (0..4).for_each(|i| drop(roll(i)));
    let victim = at("victim/archive");
    fs::create_dir_all(&victim).unwrap();
    for name in names(&archive).into_iter().chain([".x.increment.new".into(), "index.new".into()]) {
        fs::write(victim.join(name), "precious").unwrap();
    }
    fs::rename(at("outer"), at("away")).unwrap();
    symlink(at("victim"), at("outer")).unwrap();
    let label = victim.join("archive");
    for (has_label, word) in [(true, "is no label of an archive"), (false, "is not there")] {
        if !has_label {
            fs::remove_file(&label).unwrap();
        }
        let before = files(&victim);
        for args in [
            &["roll", "--keep", "1"][..],
            &["archive", "prune", "--keep", "1"],
            &["archive", "merge", "--per", "year"],
            &["archive", "join", at("away").to_str().unwrap()],
            &["archive", "list"],
        ] {
            let said = mounted.fails(1, args);
            assert!(said.contains(word), "{args:?}: {said}");
        }
        mounted.remount();
        mounted.fails(1, ["roll", "--keep", "1"]);
        assert_eq!(files(&victim), before);
    }
    fs::remove_file(at("outer")).unwrap();
    fs::rename(at("away"), at("outer")).unwrap();
    roll(4);
    assert!(mounted.ok(["archive", "verify"]).contains("no problems"));
    for i in 0..4 {
        assert_eq!(read(&mounted.snap().join(format!("v{i}/f"))), format!("version {i}"));
    }
    mounted.umount();
    mounted.check();
}

#[test]
fn an_archive_is_begun_in_a_directory_and_not_at_the_end_of_a_link() {
    for (mounted, _) in Mounted::unmounted_and_mounted() {
        let at = |path: &str| mounted.dir.path().join(path);
        fs::write(at("file"), "").unwrap();
        fs::set_permissions(at("file"), fs::Permissions::from_mode(0o400)).unwrap();
        symlink(at("none"), at("dangling")).unwrap();
        for (path, word) in
            [("file", "is no directory"), ("dangling", "is not there"), ("dangling/below", "is not there")]
        {
            for more in [&[][..], &["-n"]] {
                let path = at(path);
                let said = mounted.fails(1, ["roll", "--archive", path.to_str().unwrap()].iter().chain(more));
                assert!(said.contains(word) && !said.contains("os error"), "{said}");
            }
        }
        assert!(!at("none").exists());
        assert_eq!(mounted.ok(["list", "--json"]).trim(), "[]");
    }
}

#[test]
fn a_roll_that_is_refused_leaves_no_directory_that_it_made() {
    let mounted = Mounted::unmounted();
    let disk = mounted.dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=64k", "pitfs-test"]).arg(&disk);
    if !is_root() || !mount.status().unwrap().success() {
        eprintln!("not run: nothing can be mounted here");
        return;
    }
    let _disk = MountedOn(disk.clone());
    fs::create_dir(disk.join("there")).unwrap();
    fs::write(disk.join("filler"), vec![1; 64 << 10]).unwrap();
    for path in ["new", "there", "there/a/b"] {
        let said = mounted.fails(1, ["roll", "--archive", disk.join(path).to_str().unwrap()]);
        assert!(said.contains("o space left"), "{said}");
        assert_eq!((names(&disk), names(&disk.join("there"))), (vec!["filler".into(), "there".into()], vec![]));
    }
    assert_eq!(mounted.ok(["list", "--json"]).trim(), "[]");
}
