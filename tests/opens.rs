//! Opens: what may not be written to is not opened for writing, and nobody sees a snapshot changed.

mod mounted;

use mounted::*;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn open(path: &Path, flags: OFlags) -> Result<(), Errno> {
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o644)).map(|_| ())
}

/// A mount with a file in live, and all ways to it in a snapshot and a time of the archive.
fn sample(options: &[&str]) -> (Mounted, Vec<PathBuf>) {
    let mounted = Mounted::with_options(options);
    let (root, live) = (mounted.snap(), mounted.live());
    fs::create_dir(live.join("d")).unwrap();
    fs::write(live.join("d/f"), vec![b'y'; 20_000]).unwrap();
    fs::set_permissions(live.join("d/f"), fs::Permissions::from_mode(0o666)).unwrap();
    let archive = mounted.dir.path().join("archive");
    for name in ["old", "A"] {
        mounted.ok(["roll", "--archive", archive.to_str().unwrap(), "--keep", "1", "--name", name]);
    }
    let shadow = names(&live.join(".snapshots")).pop().unwrap();
    let ways = ["A/d/f", "old/d/f", "live/d/.snap/A/f", "live/.snap/A/d/f", "@now/d/f"];
    let mut ways: Vec<PathBuf> = ways.iter().map(|way| root.join(way)).collect();
    ways.push(live.join(".snapshots").join(&shadow).join("d/f"));
    ways.push(root.join(".snapshots").join(&shadow).join("live/d/f"));
    (mounted, ways)
}

#[test]
fn nothing_but_live_is_opened_for_writing() {
    if !can_mount() {
        return;
    }
    for options in [&[][..], &["open=all"], &["writeback"]] {
        let (mounted, ways) = sample(options);
        for way in &ways {
            let shown = way.display();
            open(way, OFlags::RDONLY).unwrap_or_else(|errno| panic!("{shown}: {errno}"));
            for flags in [OFlags::WRONLY, OFlags::RDWR, OFlags::RDWR | OFlags::CREATE, OFlags::WRONLY | OFlags::TRUNC] {
                for more in [OFlags::empty(), OFlags::APPEND, OFlags::DIRECT] {
                    assert_eq!(open(way, flags | more), Err(Errno::ROFS), "{shown} {flags:?} {more:?}");
                }
            }
            let beside = way.with_file_name("new");
            assert_eq!(open(&beside, OFlags::RDWR | OFlags::CREATE), Err(Errno::ROFS), "{shown}: a new file");
        }
        open(&mounted.live().join("d/f"), OFlags::RDWR).unwrap();
        open(&mounted.live().join("d/new"), OFlags::RDWR | OFlags::CREATE | OFlags::EXCL).unwrap();
        mounted.umount();
        mounted.check();
    }
}

#[test]
fn nobody_sees_a_snapshot_changed_by_a_mapping() {
    if !can_mount() || !is_root() {
        return eprintln!("not run: needs root and /dev/fuse");
    }
    let script = "import mmap, os, sys, time
for path in sys.argv[1:]:
    try:
        f = os.open(path, os.O_RDWR)
        m = mmap.mmap(f, 20000)
        m[5000:5005] = b'FORGE'
        print('stored in', path, flush=True)
        time.sleep(0.5)
    except OSError as error:
        assert error.errno == 30, (path, error)
";
    for options in [&["allow_other"][..], &["allow_other", "writeback"]] {
        let (mounted, ways) = sample(options);
        fs::set_permissions(mounted.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for uid in [0, 65534] {
            let mut command = Command::new("python3");
            command.arg("-c").arg(script).args(&ways).uid(uid).gid(uid);
            let Ok(output) = command.output() else { return eprintln!("not run: no python3 to map memory with") };
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(output.status.success() && said.is_empty(), "as user {uid}: {said}");
            for way in &ways {
                assert!(fs::read(way).unwrap() == vec![b'y'; 20_000], "{}", way.display());
            }
        }
    }
}

#[test]
fn a_database_in_wal_mode_is_read_in_a_snapshot() {
    if !can_mount() {
        return;
    }
    let script = "import sqlite3, subprocess, sys
pitfs, root = sys.argv[1:]
live = sqlite3.connect(root + '/live/w.db')
live.execute('pragma journal_mode=wal')
live.execute('create table t(a)')
live.execute('insert into t values(7)')
live.commit()
subprocess.run([pitfs, '-s', root, 'snap', 'A'], check=True, stdout=subprocess.DEVNULL)
live.execute('insert into t values(8)')
live.commit()
for how in ('', '?mode=ro'):
    old = sqlite3.connect('file:' + root + '/A/w.db' + how, uri=True)
    assert old.execute('select a from t').fetchall() == [(7,)], how
    old.close()
";
    let mounted = Mounted::new();
    let mut command = Command::new("python3");
    command.arg("-c").arg(script).arg(PITFS).arg(mounted.snap());
    match command.output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => eprintln!("not run: no python3"),
    }
}

/// As docs/semantics.md says of it.
#[test]
fn without_open_requests_a_snapshot_is_opened_and_not_written_to() {
    if !can_mount() {
        return;
    }
    let (mounted, ways) = sample(&["open=none"]);
    for way in &ways {
        let file = fs::File::options().write(true).open(way).unwrap();
        let written = std::os::unix::fs::FileExt::write_at(&file, b"x", 0);
        assert_eq!(Errno::from_io_error(&written.unwrap_err()), Some(Errno::ROFS), "{}", way.display());
        assert_eq!(open(way, OFlags::WRONLY | OFlags::TRUNC), Err(Errno::ROFS), "{}", way.display());
        assert!(fs::read(way).unwrap() == vec![b'y'; 20_000], "{}", way.display());
    }
    mounted.umount();
    mounted.check();
    let said = mounted.fails(2, ["mount", "-o", "open=none,writeback", "s", "t"]);
    assert!(said.contains("open=none"), "{said}");
}

#[test]
fn a_mirror_in_step_is_not_opened_for_writing() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::unmounted();
    mounted.ok(["base", "create", "other"]);
    mounted.mount(&[]);
    fs::write(mounted.snap().join("live/live/f"), "text").unwrap();
    mounted.ok(["mirror", "establish", "live", "mirror"]);
    let file = mounted.snap().join("mirror/live/f");
    assert_eq!(open(&file, OFlags::RDWR), Err(Errno::ROFS));
    mounted.ok(["mirror", "split", "mirror"]);
    open(&file, OFlags::RDWR).unwrap();
    mounted.ok(["mirror", "resync", "mirror"]);
    assert_eq!(open(&file, OFlags::RDWR), Err(Errno::ROFS));
}
