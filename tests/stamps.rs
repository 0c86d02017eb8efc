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
