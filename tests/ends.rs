//! How a daemon begins and ends, and what is left when it is killed.

mod mounted;

use mounted::*;
use rustix::process::Signal;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

/// Runs something that has to end.
fn in_time(command: &mut Command) -> Output {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > SOON {
            child.kill().unwrap();
            panic!("{command:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].concat().iter().map(|byte| char::from(*byte)).collect()
}

fn sh(script: &str, args: &[&OsStr]) -> Output {
    in_time(Command::new("sh").arg("-c").arg(script).arg("sh").args(args))
}

fn is_free(mounted: &Mounted) -> bool {
    let lock = File::open(mounted.store().join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
}

/// The processes that a daemon started beside itself.
fn companions(mounted: &Mounted) -> Vec<u32> {
    let daemon = mounted.daemon().unwrap().as_raw_nonzero();
    let all = fs::read_dir("/proc").unwrap().flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |number: &u32| {
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)) == Some(&daemon.to_string())
    };
    numbers.filter(is_child).collect()
}

fn signal(process: u32, signal: Signal) {
    let process = rustix::process::Pid::from_raw(process as i32).unwrap();
    rustix::process::kill_process(process, signal).unwrap();
}

#[test]
fn a_command_right_after_the_end_works_on_the_closed_store() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::unmounted();
    type End = (&'static str, fn(&Mounted));
    let ends: [End; 3] = [
        ("umount", |mounted| match is_root() {
            true => rustix::mount::unmount(mounted.snap(), rustix::mount::UnmountFlags::empty()).unwrap(),
            false => assert!(Command::new("fusermount3").arg("-u").arg(mounted.snap()).status().unwrap().success()),
        }),
        ("fusermount3", |mounted| match Command::new("fusermount3").arg("-u").arg(mounted.snap()).status() {
            Ok(status) => assert!(status.success()),
            Err(error) => {
                eprintln!("not run: fusermount3: {error}");
                mounted.umount();
            }
        }),
        ("SIGTERM", |mounted| mounted.signal_daemon(Signal::TERM)),
    ];
    for (round, (name, end)) in ends.into_iter().enumerate() {
        mounted.mount(&[]);
        let bytes = random_bytes(round as u64, 20 << 20);
        fs::write(mounted.live().join(name), &bytes).unwrap();
        end(&mounted);
        mounted.check();
        let shown = mounted.ok(["snap", name]);
        assert_eq!(shown.trim(), name);
        // And one that begins to be mounted is waited for.
        let (mut child, store, snap) = (Command::new(PITFS), mounted.store(), mounted.snap());
        let mut child = child.arg("mount").arg(store).arg(snap).stdin(Stdio::null()).spawn().unwrap();
        mounted.ok(["list"]);
        assert!(child.wait().unwrap().success());
        assert_eq!(fs::read(mounted.snap().join(name).join(name)).unwrap(), bytes);
        mounted.umount();
    }
}

#[test]
fn a_command_that_is_under_way_at_the_end_is_carried_out_or_says_that_it_was_not() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    for i in 0..40u64 {
        fs::write(mounted.live().join(format!("{i}")), random_bytes(i, 1 << 20)).unwrap();
    }
    let checks: Vec<Child> = (0..3)
        .map(|_| {
            let mut check = mounted.command(["check"]);
            check.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    std::thread::sleep(Duration::from_millis(30));
    mounted.umount();
    for check in checks {
        let output = check.wait_with_output().unwrap();
        assert!(output.status.success() && said(&output).contains("no problems"), "{}", said(&output));
    }
}

#[test]
fn a_start_that_fails_leaves_no_mount_behind() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::unmounted();
    let fails = |name: &str| {
        let place = mounted.store().join(name);
        let _not_there = fs::remove_file(&place);
        fs::create_dir(&place).unwrap();
        fs::write(place.join("in the way"), b"").unwrap();
        let said = mounted.fails(1, [OsStr::new("mount"), mounted.store().as_os_str(), mounted.snap().as_os_str()]);
        assert!(said.contains(name), "{said}");
        assert!(!is_mount_point(&mounted.snap()), "{name}");
        fs::remove_dir_all(&place).unwrap();
    };
    fails("log");
    fails("control");
    // Limits are those of the shell and of what it starts.
    let script = "ulimit -n $1; exec \"$2\" mount \"$3\" \"$4\"";
    for descriptors in [12, 14, 16, 20, 30, 64] {
        let (count, store, snap) = (descriptors.to_string(), mounted.store(), mounted.snap());
        let output = sh(script, &[OsStr::new(&count), OsStr::new(PITFS), store.as_os_str(), snap.as_os_str()]);
        assert_eq!(output.status.success(), mounted.live().exists(), "{descriptors}: {}", said(&output));
        assert_eq!(output.status.success(), is_mount_point(&snap), "{descriptors}: {}", said(&output));
        if output.status.success() {
            mounted.ok(["snap", &count]);
            mounted.umount();
        } else {
            assert!(said(&output).contains("may be open") || descriptors < 14, "{}", said(&output));
        }
    }
    mounted.mount(&[]);
    mounted.umount();
    mounted.check();
}

#[test]
fn a_mount_that_would_hide_the_store_is_refused() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::unmounted();
    for (place, expected) in [(mounted.dir.path().to_path_buf(), "would hide"), (mounted.store(), "over itself")] {
        let args =
            [OsStr::new("mount"), OsStr::new("-o"), OsStr::new("nonempty"), mounted.store().into_os_string().leak()];
        let said = mounted.fails(1, args.into_iter().chain([place.as_os_str()]));
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_daemon_keeps_nothing_of_whoever_started_it() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::unmounted();
    let elsewhere = temporary();
    let lock = elsewhere.path().join("lock");
    let script = "cd \"$1\" && exec 9>lock 8<. && \"$2\" mount \"$3\" \"$4\" && readlink /proc/self/ns/pid";
    let (store, snap) = (mounted.store(), mounted.snap());
    let output = sh(script, &[elsewhere.path().as_os_str(), OsStr::new(PITFS), store.as_os_str(), snap.as_os_str()]);
    assert!(output.status.success(), "{}", said(&output));
    mounted.ok(["snap", "with a companion"]);
    let daemon = mounted.daemon().unwrap().as_raw_nonzero().get() as u32;
    for process in companions(&mounted).into_iter().chain([daemon]) {
        let at = Path::new("/proc").join(process.to_string());
        for entry in fs::read_dir(at.join("fd")).unwrap().flatten() {
            let leads_to = fs::read_link(entry.path()).unwrap_or_default();
            assert!(!leads_to.starts_with(elsewhere.path()), "{process} has {} open", leads_to.display());
            let is_own = leads_to != lock;
            assert!(is_own);
        }
        assert_eq!(fs::read_link(at.join("cwd")).unwrap(), Path::new("/"));
        let session = || {
            let stat = fs::read_to_string(at.join("stat")).unwrap();
            stat.rsplit(')').next().unwrap().split_whitespace().nth(3).unwrap().to_string()
        };
        // A companion may have begun a moment ago.
        wait_for("its own session", || session() == process.to_string());
    }
    mounted.umount();
}

#[test]
fn commands_reach_a_daemon_in_another_pid_namespace() {
    if !can_mount() || !is_root() {
        return eprintln!("not run: needs root, to make a namespace, and /dev/fuse");
    }
    let mounted = Mounted::unmounted();
    let script = "\"$0\" mount \"$1\" \"$2\" && exec sleep 1000";
    let mut inside = Command::new("unshare")
        .args(["-pf", "--kill-child", "sh", "-c", script, PITFS])
        .args([mounted.store(), mounted.snap()])
        .spawn()
        .unwrap();
    wait_for("the mount", || mounted.live().exists());
    fs::write(mounted.live().join("f"), b"1").unwrap();
    mounted.ok(["snap", "A"]);
    assert_eq!(read(&mounted.snap().join("A/f")), "1");
    fs::write(mounted.live().join("f"), b"2").unwrap();
    mounted.ok(["restore", "A"]);
    assert_eq!(read(&mounted.live().join("f")), "1");
    mounted.umount();
    mounted.check();
    inside.kill().unwrap();
    inside.wait().unwrap();
}

#[test]
fn umount_says_who_has_the_mount_in_another_namespace() {
    if !can_mount() || !is_root() {
        return eprintln!("not run: needs root, to make a namespace, and /dev/fuse");
    }
    let mounted = Mounted::new();
    let mut other = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sleep", "1000"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let number = other.id();
    let own = fs::read_link("/proc/self/ns/mnt").unwrap();
    wait_for("the namespace", || fs::read_link(format!("/proc/{number}/ns/mnt")).is_ok_and(|other| other != own));
    let output = in_time(mounted.command([OsStr::new("umount"), mounted.snap().as_os_str()]).env_remove("PITFS_STORE"));
    let text = said(&output);
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(!output.status.success() && text.contains(&format!("process {number} (sleep)")), "{text}");
    assert!(text.contains("mount namespace"), "{text}");
    // With its end the daemon ends.
    wait_for("the end of the daemon", || is_free(&mounted));
    mounted.check();
}

#[test]
fn umount_says_where_the_store_is_mounted_in_another_namespace() {
    if !can_mount() || !is_root() {
        return eprintln!("not run: needs root, to make a namespace, and /dev/fuse");
    }
    let mounted = Mounted::unmounted();
    let script = "\"$0\" mount \"$1\" \"$2\"";
    let made = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", script, PITFS])
        .args([mounted.store(), mounted.snap()])
        .status()
        .unwrap();
    assert!(made.success() && mounted.is_open() && !mounted.live().exists());
    let said = mounted.fails(1, [OsStr::new("umount"), mounted.store().as_os_str()]);
    let number =
        said.split("`kill ").nth(1).and_then(|rest| rest.split('`').next()).unwrap_or_else(|| panic!("{said}"));
    assert!(said.contains("another mount namespace"), "{said}");
    assert!(Command::new("kill").arg(number).status().unwrap().success());
    wait_for("the end of the daemon", || is_free(&mounted));
    mounted.check();
}

/// Programs append numbers until they are refused; each knows how many were taken.
fn append_until_refused(live: &Path, writers: usize, end: impl FnOnce()) -> Vec<usize> {
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..writers)
            .map(|writer| {
                let path = live.join(format!("w{writer}"));
                scope.spawn(move || {
                    let mut file = File::create(path).unwrap();
                    (0..)
                        .take_while(|number: &usize| file.write_all(format!("{number:07}\n").as_bytes()).is_ok())
                        .count()
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(700));
        end();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    })
}

#[test]
fn sigterm_loses_nothing_that_write_has_taken() {
    if !can_mount() {
        return;
    }
    for options in [&[][..], &["writeback"]] {
        let mounted = Mounted::unmounted();
        for _ in 0..3 {
            mounted.mount(options);
            let taken = append_until_refused(&mounted.live(), 3, || mounted.signal_daemon(Signal::TERM));
            wait_for("the end of the daemon", || is_free(&mounted));
            mounted.mount(&[]);
            for (writer, taken) in taken.into_iter().enumerate() {
                let text = read(&mounted.live().join(format!("w{writer}")));
                let there = text.lines().zip(0..).take_while(|(line, number)| *line == format!("{number:07}")).count();
                assert!(there >= taken, "{options:?}: {taken} writes were taken, {there} are there");
            }
            mounted.umount();
        }
        mounted.check();
    }
}

/// Kills the daemon while `work` goes on, which has to end with an error then, and mounts again at the same place.
fn kill_during(mounted: &Mounted, options: &[&str], work: &[&(dyn Fn() -> bool + Sync)]) {
    for round in 0..6u64 {
        mounted.mount(options);
        let ends = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for work in work {
                let ends = &ends;
                scope.spawn(move || while !ends.load(Ordering::Relaxed) && work() {});
            }
            std::thread::sleep(Duration::from_millis(400 + 70 * round));
            let start = Instant::now();
            mounted.signal_daemon(Signal::KILL);
            wait_for("the store to be free", || is_free(mounted));
            assert!(start.elapsed() < SOON);
            ends.store(true, Ordering::Relaxed);
        });
    }
    // The mount that the last one left is taken away.
    mounted.mount(&[]);
    assert!(mounted.live().exists());
    mounted.umount();
    assert!(!is_mount_point(&mounted.snap()));
    mounted.check();
}

fn read_whole(path: &Path) -> bool {
    let mut buffer = vec![0; 1 << 16];
    let Ok(mut file) = File::open(path) else { return false };
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

#[test]
fn a_daemon_killed_while_it_invalidates_what_others_read_is_gone_at_once() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    for state in 0..2u64 {
        for file in 0..3 {
            fs::write(mounted.live().join(file.to_string()), random_bytes(state * 3 + file, 10 << 20)).unwrap();
        }
        mounted.ok(["snap", &state.to_string()]);
    }
    mounted.umount();
    let live = mounted.live();
    let readers: Vec<_> = (0..3).map(|file| live.join(file.to_string())).collect();
    let restore = || ["0", "1"].iter().all(|state| mounted.run(["restore", state]).status.success());
    let read = |file: usize| read_whole(&readers[file]);
    kill_during(&mounted, &[], &[&restore, &|| read(0), &|| read(1), &|| read(2)]);
}

#[test]
fn a_daemon_killed_while_it_fetches_what_was_written_is_gone_at_once() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::unmounted();
    let (snap, live) = (mounted.snap(), mounted.live());
    let write = |file: usize| {
        let Ok(mut file) = File::create(live.join(format!("w{file}"))) else { return false };
        (0..200u64).all(|n| file.write_all(&random_bytes(n, 9000)).is_ok())
    };
    let take = || fs::create_dir(snap.join("s")).is_ok() && fs::remove_dir(snap.join("s")).is_ok();
    kill_during(&mounted, &["writeback"], &[&take, &|| write(0), &|| write(1), &|| write(2)]);
}

#[test]
fn companions_that_are_killed_are_replaced() {
    if !can_mount() {
        return;
    }
    for options in [&[][..], &["writeback"]] {
        let mounted = Mounted::with_options(options);
        let path = mounted.live().join("f");
        let mut file = File::create(&path).unwrap();
        for round in 0..3 {
            file.write_all(format!("{round}").as_bytes()).unwrap();
            mounted.ok(["snap", &format!("s{round}")]);
            assert_eq!(read(&mounted.snap().join(format!("s{round}/f"))).len(), round + 1, "{options:?}");
            let all = companions(&mounted);
            assert!(!all.is_empty());
            all.into_iter().for_each(|process| signal(process, Signal::KILL));
        }
        drop(file);
        assert_eq!(read(&path), "012");
        mounted.ok(["restore", "s0"]);
        assert_eq!(read(&path), "0");
        mounted.umount();
        mounted.check();
    }
}

/// What is left by a daemon that was killed together with what it had started, at the worst moment: a connection that
/// nobody serves and nobody aborts.
fn left_without_service(mounted: &Mounted) -> Vec<u32> {
    mounted.ok(["snap"]);
    let companions = companions(mounted);
    assert!(!companions.is_empty());
    companions.iter().for_each(|process| signal(*process, Signal::STOP));
    mounted.signal_daemon(Signal::KILL);
    wait_for("the store to be free", || is_free(mounted));
    companions
}

#[test]
fn mount_and_umount_free_a_mount_that_nobody_serves() {
    if !can_mount() || !is_root() {
        return eprintln!("not run: needs root, who may abort a connection, and /dev/fuse");
    }
    let mounted = Mounted::unmounted();
    let (store, snap) = (mounted.store(), mounted.snap());
    for command in
        [vec![OsStr::new("umount"), snap.as_os_str()], vec![OsStr::new("mount"), store.as_os_str(), snap.as_os_str()]]
    {
        mounted.mount(&[]);
        fs::write(mounted.live().join("f"), b"1").unwrap();
        let stopped = left_without_service(&mounted);
        let live = mounted.live();
        let waits = std::thread::spawn(move || fs::read_dir(live.join("never looked at")).map(|_| ()));
        let status = in_time(mounted.command(["-s", snap.to_str().unwrap(), "list"]).env_remove("PITFS_STORE"));
        assert!(said(&status).contains("pitfs umount"), "{}", said(&status));
        let output = in_time(&mut mounted.command(&command));
        assert!(output.status.success(), "{command:?}: {}", said(&output));
        assert!(said(&output).contains("killed"), "{}", said(&output));
        assert!(waits.join().unwrap().is_err());
        stopped.into_iter().for_each(|process| signal(process, Signal::KILL));
        if is_mount_point(&snap) {
            assert_eq!(read(&mounted.live().join("f")), "1");
            mounted.umount();
        }
    }
    mounted.check();
}

#[test]
fn after_every_kind_of_end_the_next_mount_works() {
    if !can_mount() || !is_root() {
        return eprintln!("not run: needs root, to end mounts in all ways, and /dev/fuse");
    }
    use rustix::mount::{UnmountFlags, unmount};
    let mounted = Mounted::unmounted();
    let snap = mounted.snap();
    let ends: [&dyn Fn(); 5] = [
        &|| mounted.signal_daemon(Signal::KILL),
        &|| mounted.signal_daemon(Signal::TERM),
        &|| unmount(&snap, UnmountFlags::DETACH).unwrap(),
        &|| unmount(&snap, UnmountFlags::FORCE).unwrap(),
        &|| mounted.umount(),
    ];
    for (round, end) in ends.iter().enumerate() {
        mounted.mount(&[]);
        fs::write(mounted.live().join(round.to_string()), b"here").unwrap();
        File::open(mounted.live().join(round.to_string())).unwrap().sync_all().unwrap();
        end();
        mounted.mount(&[]);
        assert_eq!(read(&mounted.live().join(round.to_string())), "here");
        assert_eq!(fs::metadata(mounted.live()).unwrap().dev(), fs::metadata(&snap).unwrap().dev());
        mounted.umount();
        assert!(!is_mount_point(&snap), "round {round}");
    }
    mounted.check();
}

#[test]
fn umount_unmounts_nothing_but_pitfs() {
    if !can_mount() || !is_root() {
        return;
    }
    let mounted = Mounted::new();
    let other = mounted.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    assert!(sh("mount -t tmpfs none \"$1\"", &[other.as_os_str()]).status.success());
    for args in [&["umount"][..], &["umount", "--lazy"]] {
        let mut command = Command::new(PITFS);
        let here = in_time(command.args(args).current_dir(&other).env_remove("PITFS_STORE"));
        assert!(said(&here).contains("is tmpfs, not pitfs") && !here.status.success(), "{}", said(&here));
        let named = in_time(Command::new(PITFS).args(args).arg(&other));
        assert!(said(&named).contains("is tmpfs, not pitfs") && !named.status.success(), "{}", said(&named));
    }
    assert!(is_mount_point(&other));
    // What hides the mount is not taken for it.
    let snap = mounted.snap();
    assert!(sh("mount -t tmpfs none \"$1\"", &[snap.as_os_str()]).status.success());
    let store = in_time(Command::new(PITFS).arg("umount").arg(mounted.store()));
    assert!(said(&store).contains("is tmpfs, not pitfs"), "{}", said(&store));
    for path in [&snap, &other] {
        assert!(sh("umount \"$1\"", &[path.as_os_str()]).status.success());
    }
}

/// Reads names of a directory, or writes to a file, with memory of a file system that does not answer: what it has locked
/// for that stays locked.
const WAITS: &str = r#"
import ctypes, mmap, os, sys, time
memory = mmap.mmap(os.open(sys.argv[1], os.O_RDONLY), 65536, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
if os.path.isdir(sys.argv[2]):
    directory = os.open(sys.argv[2], os.O_RDONLY | os.O_DIRECTORY)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    open(sys.argv[3], 'w').close(); time.sleep(1)
    ctypes.CDLL(None).syscall(ctypes.c_long(217), directory, ctypes.c_void_p(address), 65536)
else:
    file = os.open(sys.argv[2], os.O_WRONLY)
    open(sys.argv[3], 'w').close(); time.sleep(1)
    os.write(file, memoryview(memory))
"#;

/// A program that waits for a file system of its own keeps its files, and neither commands nor the daemon.
#[test]
fn what_waits_for_another_file_system_holds_up_no_command() {
    if !can_mount() {
        return;
    }
    let others = Mounted::new();
    fs::write(others.live().join("memory"), vec![7; 65536]).unwrap();
    for (options, held) in [(&["writeback"][..], "file"), (&[], "directory")] {
        let mounted = Mounted::with_options(options);
        let live = mounted.live();
        fs::create_dir(live.join("directory")).unwrap();
        fs::write(live.join("directory/inside"), "content").unwrap();
        fs::write(live.join("file"), "old").unwrap();
        mounted.ok(["snap", "one"]);
        fs::write(live.join("directory/other"), "content").unwrap();
        // Nothing of it may be cached.
        others.remount();
        let began = mounted.dir.path().join("began");
        let memory = others.live().join("memory");
        let arguments: [&Path; 3] = [&memory, &live.join(held), &began];
        let stopped = others.daemon().unwrap();
        let Some(holder) = Running::python(WAITS, &arguments) else { return };
        wait_for("the program", || began.exists());
        rustix::process::kill_process(stopped, Signal::STOP).unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        let command = match held {
            "file" => &["snap", "two"][..],
            _ => &["restore", "one"],
        };
        let (status, text) = ends(&mounted, command);
        // What is written to a file is fetched in another way, and the kernel hears of names when it can.
        assert_eq!(status, 0, "{command:?}: {text}");
        // It is over as soon as that lets go.
        rustix::process::kill_process(stopped, Signal::CONT).unwrap();
        drop(holder);
        mounted.ok(["snap", "three"]);
        if held == "directory" {
            wait_for("the kernel to know", || !live.join("directory/other").exists());
        }
        assert_eq!(read(&live.join("directory/inside")), "content");
        mounted.umount();
        mounted.check();
    }
}
