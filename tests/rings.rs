//! Requests through the kernel's rings: chosen, refused, and ended in every way.

mod mounted;

use mounted::*;
use parking_lot::{Mutex, MutexGuard};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const PARAMETER: &str = "/sys/module/fuse/parameters/enable_uring";

/// Whether the kernel offers rings is one for all: as long as a test has this, it is as that wants it.
struct Offered(String, #[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

static ONE: Mutex<()> = Mutex::new(());

impl Offered {
    fn set(is_offered: bool) -> Option<Offered> {
        let lock = ONE.lock();
        if !is_root() || !can_mount() || !Path::new(PARAMETER).exists() {
            eprintln!("not run: rings for FUSE need Linux 6.14 with CONFIG_FUSE_IO_URING, and root");
            return None;
        }
        let before = fs::read_to_string(PARAMETER).unwrap();
        fs::write(PARAMETER, if is_offered { "Y" } else { "N" }).unwrap();
        Some(Offered(before, lock))
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        fs::write(PARAMETER, &self.0).unwrap();
    }
}

fn through_rings() -> Mounted {
    let mounted = Mounted::unmounted();
    mounted.mount(&["io_uring=on"]);
    mounted
}

fn transport(mounted: &Mounted) -> String {
    let status = mounted.ok(["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    status["transport"].as_str().unwrap().to_string()
}

#[test]
fn rings_serve_where_the_kernel_offers_them_and_the_device_elsewhere() {
    let Some(offered) = Offered::set(true) else { return };
    let mounted = Mounted::new();
    assert_eq!(transport(&mounted), "rings");
    assert!(mounted.ok(["status"]).contains("rings"));
    mounted.umount();
    mounted.mount(&["io_uring=off"]);
    assert_eq!(transport(&mounted), "device");
    mounted.umount();
    fs::write(PARAMETER, "N").unwrap();
    mounted.mount(&[]);
    assert_eq!(transport(&mounted), "device");
    mounted.umount();
    // Root may have them switched on.
    mounted.mount(&["io_uring=on"]);
    assert_eq!((transport(&mounted), fs::read_to_string(PARAMETER).unwrap().trim()), ("rings".into(), "Y"));
    mounted.umount();
    drop(offered);
}

#[test]
fn every_kind_of_request_is_answered() {
    let Some(_offered) = Offered::set(true) else { return };
    let mounted = through_rings();
    let live = mounted.live();
    let file = live.join("file");
    fs::write(&file, vec![7; 3 << 20]).unwrap();
    assert_eq!(fs::read(&file).unwrap(), vec![7; 3 << 20]);
    let open = File::options().read(true).write(true).open(&file).unwrap();
    open.write_all_at(b"in the middle", 1 << 20).unwrap();
    open.set_len(5 << 20).unwrap();
    open.sync_all().unwrap();
    assert_eq!(rustix::fs::seek(&open, rustix::fs::SeekFrom::Hole(0)).unwrap(), 3 << 20);
    rustix::fs::fallocate(&open, rustix::fs::FallocateFlags::empty(), 0, 6 << 20).unwrap();
    let copy = File::create(live.join("copy")).unwrap();
    assert_eq!(rustix::fs::copy_file_range(&open, None, &copy, None, 4096).unwrap(), 4096);
    rustix::fs::setxattr(&file, "user.a", b"value", rustix::fs::XattrFlags::CREATE).unwrap();
    let mut value = [0; 16];
    assert_eq!(rustix::fs::getxattr(&file, "user.a", &mut value).unwrap(), 5);
    assert_eq!(rustix::fs::listxattr(&file, &mut value).unwrap(), 7);
    assert_eq!(rustix::fs::getxattr(&file, "user.a", &mut value[..2]), Err(rustix::io::Errno::RANGE));
    rustix::fs::removexattr(&file, "user.a").unwrap();
    std::os::unix::fs::symlink("target", live.join("link")).unwrap();
    assert_eq!(fs::read_link(live.join("link")).unwrap(), Path::new("target"));
    fs::hard_link(&file, live.join("other")).unwrap();
    fs::create_dir(live.join("directory")).unwrap();
    fs::rename(live.join("other"), live.join("directory/moved")).unwrap();
    let fifo = Command::new("mkfifo").arg(live.join("fifo")).status().unwrap();
    assert!(fifo.success());
    for number in 0..3000 {
        File::create(live.join(format!("directory/{number}"))).unwrap();
    }
    assert_eq!(fs::read_dir(live.join("directory")).unwrap().count(), 3001);
    rustix::fs::statfs(&live).unwrap();
    // A snapshot is taken, looked into, and deleted.
    fs::create_dir(mounted.snap().join("one")).unwrap();
    fs::remove_file(&file).unwrap();
    assert_eq!(fs::read(mounted.snap().join("one/file")).unwrap().len(), 6 << 20);
    assert_eq!(fs::read_dir(live.join("directory/.snap/one")).unwrap().count(), 3001);
    fs::remove_dir(mounted.snap().join("one")).unwrap();
    fs::remove_dir_all(live.join("directory")).unwrap();
    drop((open, copy));
    mounted.umount();
    mounted.check();
}

#[test]
fn a_request_that_waits_holds_up_no_other() {
    let Some(_offered) = Offered::set(true) else { return };
    let mounted = through_rings();
    let live = mounted.live();
    std::thread::scope(|scope| {
        // More at a time than a queue has entries, and all of them wait for the disk.
        for writer in 0..24 {
            let live = &live;
            scope.spawn(move || {
                let mut file = File::create(live.join(format!("{writer}"))).unwrap();
                for _ in 0..20 {
                    file.write_all(&[1; 8192]).unwrap();
                    file.sync_all().unwrap();
                }
            });
        }
        for _ in 0..200 {
            fs::metadata(live.join("0")).ok();
            File::create(live.join("new")).unwrap();
            fs::remove_file(live.join("new")).unwrap();
        }
    });
    assert_eq!(fs::read_dir(&live).unwrap().count(), 24);
    mounted.umount();
    mounted.check();
}

#[test]
fn it_ends_when_the_daemon_is_killed_and_when_users_are_still_there() {
    let Some(_offered) = Offered::set(true) else { return };
    let mounted = through_rings();
    let file = mounted.live().join("file");
    fs::write(&file, "kept").unwrap();
    File::open(&file).unwrap().sync_all().unwrap();
    let open = File::open(&file).unwrap();
    mounted.kill();
    assert!(open.metadata().is_err());
    drop(open);
    mounted.mount(&["io_uring=on"]);
    let open = File::options().read(true).write(true).open(&file).unwrap();
    mounted.ok(["umount", "--lazy", mounted.snap().to_str().unwrap()]);
    // Its last user still reads and writes.
    let mut bytes = [0; 4];
    assert_eq!((open.read_at(&mut bytes, 0).unwrap(), &bytes), (4, b"kept"));
    drop(open);
    mounted.mount(&[]);
    assert_eq!(fs::read(&file).unwrap(), b"kept");
    mounted.umount();
    mounted.check();
}

#[test]
fn what_root_alone_may_switch_on_is_refused_to_others_in_words() {
    let Some(_offered) = Offered::set(false) else { return };
    let mounted = Mounted::unmounted();
    let at = mounted.snap();
    let open = |path: &Path| {
        fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
    };
    open(mounted.dir.path());
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", PITFS, "create"]);
    let store = mounted.dir.path().join("own");
    let made = command.arg(&store).output().unwrap();
    if String::from_utf8_lossy(&made.stderr).contains("failed to execute") {
        return eprintln!("not run: the program is where others cannot start it");
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", PITFS, "mount", "-o", "io_uring=on"]);
    let refused = command.arg(&store).arg(&at).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success());
    if said.contains("/dev/fuse is closed") {
        return eprintln!("not run: {said}");
    }
    assert!(said.contains("only root can switch them on"), "{said}");
}

/// Numbers of mounts are given out again. What ends a connection by its number must not do so when it has ended by itself: it
/// would end the next one.
#[test]
fn a_mount_that_ends_takes_no_other_with_it() {
    let Some(_offered) = Offered::set(true) else { return };
    let (first, next) = (Mounted::unmounted(), Mounted::unmounted());
    for _ in 0..10 {
        first.mount(&["io_uring=on"]);
        fs::write(first.live().join("file"), b"to be stored").unwrap();
        // Its daemon goes on until all is stored.
        assert!(Command::new("umount").arg(first.snap()).status().unwrap().success());
        next.mount(&["io_uring=on"]);
        std::thread::sleep(Duration::from_millis(300));
        fs::write(next.live().join("file"), b"there").unwrap();
        next.umount();
    }
}
