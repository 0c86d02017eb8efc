//! Stores where nothing can be written: on a medium that is mounted read-only, and of somebody else who lets them be read.

mod mounted;

use mounted::*;
use rustix::mount::{MountFlags, mount_bind, mount_remount};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A store with two snapshots, and what its journal has besides.
fn sample() -> Mounted {
    let mounted = Mounted::unmounted();
    let source = mounted.dir.path().join("source");
    fs::create_dir_all(source.join("directory")).unwrap();
    fs::write(source.join("directory/file"), "zeroth").unwrap();
    mounted.ok(["sync", source.to_str().unwrap()]);
    mounted.ok(["snap", "zero"]);
    fs::write(source.join("directory/file"), "first").unwrap();
    fs::write(source.join("large"), vec![7; 300_000]).unwrap();
    mounted.ok(["sync", source.to_str().unwrap()]);
    mounted.ok(["snap", "one"]);
    mounted.ok(["roll", "--archive", mounted.dir.path().join("archive").to_str().unwrap(), "--keep", "2"]);
    fs::write(source.join("directory/file"), "second").unwrap();
    mounted.ok(["sync", source.to_str().unwrap()]);
    mounted.ok(["snap", "two"]);
    mounted
}

/// The store's directory at another place, where it cannot be written to, as its archive cannot; gone with it.
struct ReadOnly(PathBuf, PathBuf);

impl ReadOnly {
    fn of(mounted: &Mounted) -> ReadOnly {
        let at = mounted.dir.path().join("read-only");
        fs::create_dir(&at).unwrap();
        mount_bind(mounted.store(), &at).unwrap();
        let archive = mounted.dir.path().join("archive");
        mount_bind(&archive, &archive).unwrap();
        for place in [&at, &archive] {
            mount_remount(place, MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();
        }
        ReadOnly(at, archive)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        detach(&self.0);
        detach(&self.1);
    }
}

fn pitfs(store: &Path, args: &[&str]) -> Output {
    Command::new(PITFS).arg("-s").arg(store).args(args).output().unwrap()
}

fn ok(store: &Path, args: &[&str]) -> String {
    let output = pitfs(store, args);
    let said = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    assert!(output.status.success(), "{args:?}: {}", said(&output.stderr));
    said(&output.stdout)
}

/// What every file of a store is.
fn files(store: &Path) -> Vec<(std::ffi::OsString, Vec<u8>, i64)> {
    let mut all: Vec<_> = fs::read_dir(store)
        .unwrap()
        .map(|entry| entry.unwrap())
        // A socket is left over of what was killed.
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| {
            let found = entry.metadata().unwrap();
            (entry.file_name(), fs::read(entry.path()).unwrap(), found.mtime_nsec())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_store_on_a_read_only_medium_is_looked_into_and_mounted() {
    if !is_root() || !can_mount() {
        return;
    }
    let mounted = sample();
    // Its journal has what its tables have not.
    mounted.mount(&[]);
    fs::write(mounted.live().join("late"), "in the journal").unwrap();
    fs::File::open(mounted.live().join("late")).unwrap().sync_all().unwrap();
    mounted.kill();
    let before = files(&mounted.store());
    let read_only = ReadOnly::of(&mounted);
    let store = read_only.0.as_path();
    assert!(ok(store, &["list"]).contains("two"));
    assert!(ok(store, &["check"]).contains("no problems"));
    assert!(ok(store, &["diff", "one", "two"]).contains("directory/file"));
    assert!(ok(store, &["versions", "directory/file"]).lines().count() >= 2);
    ok(store, &["status"]);
    ok(store, &["history"]);
    let to = mounted.dir.path().join("to");
    for (snapshot, content) in [("one", "first"), ("two", "second"), ("live", "second")] {
        ok(store, &["restore", snapshot, "--to", to.to_str().unwrap()]);
        assert_eq!(fs::read_to_string(to.join("directory/file")).unwrap(), content);
        assert_eq!(to.join("late").exists(), snapshot == "live");
        fs::remove_dir_all(&to).unwrap();
    }
    for args in [&["snap", "three"][..], &["delete", "one"], &["sync", "/etc"], &["restore", "one"], &["hold", "one"]] {
        let output = pitfs(store, args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains("can only be read"), "{args:?}: {said}");
    }
    let at = mounted.dir.path().join("at");
    fs::create_dir(&at).unwrap();
    let at_text = at.to_str().unwrap();
    let mount = |options: &[&str]| Command::new(PITFS).arg("mount").args(options).arg(store).arg(&at).output().unwrap();
    let refused = String::from_utf8(mount(&[]).stderr).unwrap();
    assert!(refused.contains("-o ro"), "{refused}");
    let shown = mount(&["-o", "ro"]);
    assert!(shown.status.success(), "{}", String::from_utf8(shown.stderr).unwrap());
    assert_eq!(fs::read_to_string(at.join("one/directory/file")).unwrap(), "first");
    assert_eq!(fs::read_to_string(at.join("live/late")).unwrap(), "in the journal");
    assert_eq!(fs::read(at.join("live/large")).unwrap(), vec![7; 300_000]);
    assert_eq!(fs::write(at.join("live/late"), "").unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    // Several at a time, and through the mount as well, with what only the archive has.
    assert!(ok(store, &["list"]).contains("two"));
    assert!(ok(store, &["archive", "verify"]).contains("2 increments, "));
    assert_eq!(fs::read_to_string(at.join("zero/directory/file")).unwrap(), "zeroth");
    ok(store, &["restore", "zero", "--to", to.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(to.join("directory/file")).unwrap(), "zeroth");
    fs::remove_dir_all(&to).unwrap();
    assert!(ok(&at, &["list"]).contains("two"));
    let taken = Command::new(PITFS).args(["umount", at_text]).output().unwrap();
    assert!(taken.status.success(), "{}", String::from_utf8(taken.stderr).unwrap());
    assert!(!is_mount_point(&at));
    drop(read_only);
    assert!(before == files(&mounted.store()), "nothing was written");
    mounted.check();
}

#[test]
fn a_store_that_others_may_read_is_read_by_them() {
    if !is_root() {
        return;
    }
    let mounted = sample();
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    open(mounted.dir.path(), 0o755);
    open(&mounted.store(), 0o755);
    fs::read_dir(mounted.store()).unwrap().for_each(|entry| open(&entry.unwrap().path(), 0o644));
    let before = files(&mounted.store());
    let as_other = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", PITFS, "-s"]).arg(mounted.store()).args(args);
        command.output().unwrap()
    };
    let listed = as_other(&["list"]);
    if String::from_utf8_lossy(&listed.stderr).contains("failed to execute") {
        return eprintln!("not run: the program is where others cannot start it");
    }
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    for args in [&["list"][..], &["check"], &["diff", "one", "two"], &["status"]] {
        let output = as_other(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let refused = as_other(&["snap", "three"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("can only be read"));
    assert!(before == files(&mounted.store()), "nothing was written");
    mounted.ok(["snap", "three"]);
}

/// What only reads takes no more than that: a store that nobody has open is read by any number at a time, and is left as it is.
#[test]
fn who_only_reads_a_closed_store_writes_nothing_and_keeps_no_reader_out() {
    let mounted = sample();
    let before = files(&mounted.store());
    // Somebody else reads it, and does not end.
    let other = fs::File::open(mounted.store().join("lock")).unwrap();
    rustix::fs::flock(&other, rustix::fs::FlockOperation::LockShared).unwrap();
    let store = &mounted.store();
    let status = ok(store, &["status", "--json"]);
    assert!(status.contains("\"only_read\": false") || status.contains("\"only_read\":false"), "{status}");
    for args in [
        &["list"][..],
        &["check"],
        &["diff", "one", "two"],
        &["versions", "directory/file"],
        &["history"],
        &["base", "list"],
        &["archive", "verify"],
    ] {
        ok(store, args);
    }
    let to = mounted.dir.path().join("to");
    ok(store, &["restore", "one", "--to", to.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(to.join("directory/file")).unwrap(), "first");
    assert!(before == files(&mounted.store()), "nothing was written");
    let refused = pitfs(store, &["snap", "three"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("is being read"), "{said}");
    drop(other);
    mounted.ok(["snap", "three"]);
}
