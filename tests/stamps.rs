//! Times of files with the writeback cache, where the kernel stamps what is written and the daemon all else.

mod mounted;

use mounted::*;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

/// Size, time of modification and time of change, by name.
type Times = BTreeMap<String, (u64, (i64, i64), (i64, i64))>;

fn times(directory: &Path) -> Times {
    let shown = |name: &String| {
        let found = fs::symlink_metadata(directory.join(name)).unwrap();
        (found.size(), (found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec()))
    };
    names(directory).into_iter().map(|name| (name.clone(), shown(&name))).collect()
}

fn pause() {
    std::thread::sleep(Duration::from_millis(7));
}

/// Every way in which a file is written, some left open.
fn write_all_ways(directory: &Path) -> Vec<File> {
    let mut open = Vec::new();
    for i in 0..20 {
        fs::write(directory.join(format!("at once {i}")), "text").unwrap();
        let mut file = File::create(directory.join(format!("later {i}"))).unwrap();
        pause();
        file.write_all(&random_bytes(i, 70_000)).unwrap();
        open.push(file);
    }
    for (i, file) in open.iter().enumerate() {
        match i % 5 {
            0 => file.sync_all().unwrap(),
            1 => file.set_len(500).unwrap(),
            2 => file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap(),
            _ => {}
        }
        if i % 2 == 0 {
            pause();
            file.write_all_at(b"again", 30).unwrap();
        }
    }
    rustix::fs::sync();
    open[3].write_all_at(b"once more", 40_000).unwrap();
    rustix::fs::setxattr(directory.join("at once 1"), "user.a", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    fs::hard_link(directory.join("at once 2"), directory.join("a second name")).unwrap();
    fs::rename(directory.join("at once 3"), directory.join("a new name")).unwrap();
    fs::set_permissions(directory.join("at once 4"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    open
}

#[test]
fn times_stay_as_they_were_shown() {
    if !can_mount() {
        return;
    }
    for options in [&[][..], &["writeback"]] {
        let mounted = Mounted::with_options(options);
        let open = write_all_ways(&mounted.live());
        let shown = times(&mounted.live());
        mounted.ok(["snap", "open"]);
        drop(open);
        assert_eq!(times(&mounted.live()), shown, "closing changed times, with {options:?}");
        mounted.ok(["snap", "closed"]);
        mounted.umount();
        mounted.mount(options);
        for view in ["live", "closed"] {
            assert_eq!(times(&mounted.snap().join(view)), shown, "{view}, with {options:?}");
        }
        let modified = |times: Times| times.into_iter().map(|(name, (_, at, _))| (name, at)).collect::<Vec<_>>();
        assert_eq!(modified(times(&mounted.snap().join("open"))), modified(shown), "{options:?}");
        assert_eq!(mounted.ok(["diff", "open", "closed"]), "", "{options:?}");
    }
}

#[test]
fn what_was_made_later_is_never_older() {
    if !can_mount() {
        return;
    }
    for options in [&[][..], &["writeback"]] {
        let mounted = Mounted::with_options(options);
        let mut last = (0, 0);
        for i in 0..400 {
            let path = mounted.live().join(format!("{i}"));
            match i % 4 {
                0 => fs::create_dir(&path).unwrap(),
                1 | 2 => fs::write(&path, "text").unwrap(),
                _ => std::os::unix::fs::symlink("x", &path).unwrap(),
            }
            let found = fs::symlink_metadata(&path).unwrap();
            let time = (found.mtime(), found.mtime_nsec());
            assert!(time >= last, "{i} is older than what was made before, with {options:?}");
            last = time;
        }
    }
}

/// What fetches the bytes of a file that is open fetches its time as well. No process is started here: closing a
/// descriptor that it inherited would do that.
#[test]
fn a_snapshot_has_the_times_that_open_files_had() {
    if !can_mount() {
        return;
    }
    for options in [&[][..], &["writeback"]] {
        let mounted = Mounted::with_options(options);
        let path = mounted.live().join("f");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.write_all_at(b"first.", 0).unwrap();
        let shown = |path: &Path| {
            let found = fs::symlink_metadata(path).unwrap();
            (found.mtime(), found.mtime_nsec())
        };
        let mut then = Vec::new();
        for name in ["one", "two", "three"] {
            pause();
            file.write_all_at(name.as_bytes(), 0).unwrap();
            then.push((name, shown(&path)));
            fs::create_dir(mounted.snap().join(name)).unwrap();
            assert_eq!(shown(&path), then.last().unwrap().1, "a snapshot changes no time");
        }
        let differ = then.windows(2).all(|two| two[0].1 != two[1].1);
        assert!(differ, "{then:?}");
        for (name, time) in then {
            assert_eq!(shown(&mounted.snap().join(name).join("f")), time, "{name}, with {options:?}");
        }
    }
}

/// The kernel takes them from a file that it truncates, and asking it for nothing but to take the size anew is that to it.
#[test]
fn capabilities_stay_when_the_kernel_is_told_of_a_change() {
    // cap_net_raw+ep, version 2.
    const VALUE: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const NAME: &str = "security.capability";
    if !can_mount() || !is_root() {
        return;
    }
    let set = |path: &Path| rustix::fs::setxattr(path, NAME, &VALUE, rustix::fs::XattrFlags::empty()).unwrap();
    let has = |path: &Path| {
        let mut value = [0; 64];
        rustix::fs::getxattr(path, NAME, &mut value[..]).is_ok_and(|len| value[..len] == VALUE)
    };
    for options in [&[][..], &["writeback"]] {
        let mounted = Mounted::with_options(options);
        let source = mounted.dir.path().join("source");
        fs::create_dir(&source).unwrap();
        let (given, file) = (source.join("f"), mounted.live().join("f"));
        let sync = |bytes: usize| {
            fs::write(&given, random_bytes(bytes as u64, bytes)).unwrap();
            set(&given);
            mounted.ok(["sync", source.to_str().unwrap()]);
            assert!(has(&file), "after sync, with {options:?}");
            fs::read(&file).unwrap();
        };
        sync(5000);
        mounted.ok(["snap", "one"]);
        sync(300);
        mounted.ok(["restore", "one"]);
        assert!(has(&file), "after restore, with {options:?}");
        fs::write(&file, "more").unwrap();
        assert!(!has(&file), "who writes takes it");
        mounted.ok(["restore", "one", "f"]);
        assert!(has(&file), "after the restore of the path, with {options:?}");
    }
}
