//! Other users: those of a mount that root has made, and the owners of stores that root works on.

mod mounted;

use mounted::*;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const STRANGER: u32 = 65534;
const OWNER: u32 = 1234;
const GROUP: u32 = 4321;

fn is_possible() -> bool {
    let is_possible = can_mount() && is_root();
    if !is_possible {
        eprintln!("not run: needs root and /dev/fuse");
    }
    is_possible
}

/// A store that root has mounted for all, in directories that all may enter.
fn mounted(options: &str) -> Mounted {
    let mounted = Mounted::unmounted();
    fs::set_permissions(mounted.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    mounted.mount(&[options]);
    mounted
}

/// Runs a shell's commands as somebody else.
fn as_user(uid: u32, gid: u32, commands: &str) -> Output {
    Command::new("sh").arg("-c").arg(commands).uid(uid).gid(gid).stdin(Stdio::null()).output().unwrap()
}

fn does(uid: u32, commands: &str) {
    let output = as_user(uid, uid, commands);
    assert!(output.status.success(), "{commands}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What a user reads there, if he may.
fn reads(uid: u32, gid: u32, path: &Path) -> Option<String> {
    let output = as_user(uid, gid, &format!("cat '{}'", path.display()));
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// Through `.snap`, nobody gets to what lay below a directory that was closed to him.
#[test]
fn dot_snap_leads_nobody_where_he_could_not_have_gone() {
    if !is_possible() {
        return;
    }
    let mounted = mounted("allow_other");
    let (live, snap) = (mounted.live(), mounted.snap());
    let common = live.join("tmp");
    fs::create_dir(&common).unwrap();
    fs::set_permissions(&common, fs::Permissions::from_mode(0o1777)).unwrap();
    let at = |path: &str| common.join(path).display().to_string();
    does(
        OWNER,
        &format!(
            "umask 022; mkdir -p {0}/sub/deep; chmod 710 {0}; chgrp {OWNER} {0}; echo key > {0}/sub/deep/key",
            at("desk")
        ),
    );
    chown(common.join("desk"), None, Some(GROUP)).unwrap();
    mounted.ok(["snap", "one"]);
    mounted.ok([OsStr::new("clone"), OsStr::new("one"), OsStr::new("other")]);
    mounted.ok_of("other", &["snap", "in-clone"]);
    let archive = mounted.dir.path().join("archive");
    mounted.ok([
        OsStr::new("roll"),
        OsStr::new("--archive"),
        archive.as_os_str(),
        OsStr::new("--name"),
        OsStr::new("two"),
    ]);
    let inside = common.join("desk/sub/deep");
    let times: Vec<PathBuf> =
        ["one", "two", "@now"].iter().map(|time| inside.join(".snap").join(time).join("key")).collect();
    // To whom it is open, as it was, it is open that way as well; also a member of the group.
    for time in &times {
        assert_eq!(reads(OWNER, OWNER, time).as_deref(), Some("key\n"), "{time:?}");
        assert_eq!(reads(STRANGER, GROUP, time).as_deref(), Some("key\n"), "{time:?}");
        assert_eq!(reads(STRANGER, STRANGER, time), None, "{time:?}");
    }
    // A stranger has directories of the same path now, in live and in a clone.
    does(OWNER, &format!("rm -r {}", at("desk")));
    does(STRANGER, &format!("mkdir -p {}", at("desk/sub/deep")));
    for time in &times {
        assert_eq!(reads(STRANGER, STRANGER, time), None, "{time:?}");
        // Whoever asked before him changes nothing.
        assert_eq!(reads(OWNER, OWNER, time).as_deref(), Some("key\n"), "{time:?}");
        assert_eq!(reads(STRANGER, STRANGER, time), None, "{time:?}");
        assert_eq!(fs::read_to_string(time).unwrap(), "key\n");
    }
    let in_clone = snap.join("other/tmp/desk/sub/deep/.snap/in-clone/key");
    assert_eq!(
        (reads(OWNER, OWNER, &in_clone).as_deref(), reads(STRANGER, STRANGER, &in_clone)),
        (Some("key\n"), None)
    );
    // What is open all the way down is open to all.
    does(OWNER, &format!("mkdir -p {0}; echo open > {0}/file", at("free/sub")));
    mounted.ok(["snap", "three"]);
    assert_eq!(reads(STRANGER, STRANGER, &common.join("free/sub/.snap/three/file")).as_deref(), Some("open\n"));
}

/// Whoever writes to a suid file takes the bit away, and the kernel hears of it before he can run it.
#[test]
fn what_was_written_to_is_run_as_nobody_else() {
    if !is_possible() {
        return;
    }
    for options in ["allow_other,suid", "allow_other,suid,writeback", "allow_other,suid,open=none"] {
        let mounted = mounted(options);
        let file = mounted.live().join("program");
        let path = file.display();
        for write in [
            format!("cat /bin/sh 1<> '{path}'"),
            format!("dd if=/bin/sh of='{path}' bs=64k conv=notrunc oflag=direct"),
            format!("dd if=/bin/sh of='{path}' conv=notrunc"),
            format!("cp /bin/sh '{path}'"),
            format!("truncate -s 10 '{path}'"),
            format!("fallocate -l 300000 '{path}'"),
        ] {
            for mode in [0o4777, 0o2777, 0o6777] {
                fs::write(&file, vec![0; 100_000]).unwrap();
                fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
                assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, mode);
                does(STRANGER, &write);
                let found = fs::metadata(&file).unwrap().mode() & 0o7777;
                assert_eq!(found, 0o777, "-o {options}: {mode:o} after {write}");
            }
        }
    }
}

/// What is brought in is its owner's from the beginning, and has its mode last.
#[test]
fn a_suid_file_is_nobody_elses_while_it_is_brought_in() {
    if !is_possible() {
        return;
    }
    let mounted = mounted("allow_other,suid");
    let source = mounted.dir.path().join("source");
    fs::create_dir_all(source.join("private")).unwrap();
    let program = source.join("program");
    let content: Vec<u8> = (0..96 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for round in 0..2 {
        // In the second one it takes the place of root's, which is there and has the bit.
        if round == 1 {
            fs::write(mounted.live().join("program"), "root's own").unwrap();
            fs::set_permissions(mounted.live().join("program"), fs::Permissions::from_mode(0o6755)).unwrap();
        }
        fs::write(&program, &content).unwrap();
        chown(&program, Some(OWNER), Some(GROUP)).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o6755)).unwrap();
        let mut sync = mounted.command([OsStr::new("sync"), source.as_os_str()]).stdout(Stdio::null()).spawn().unwrap();
        let (mut seen, mut taken) = (Vec::new(), 0);
        while sync.try_wait().unwrap().is_none() {
            let Ok(found) = fs::metadata(mounted.live().join("program")) else { continue };
            let is_whole = found.len() == content.len() as u64;
            let now = (found.uid(), found.gid(), found.mode() & 0o7777);
            assert!(found.len() <= 10 || now.0 == OWNER || now.2 & 0o6000 == 0, "{now:?}");
            if !seen.contains(&now) {
                seen.push(now);
                if found.len() > 10 && !is_whole {
                    mounted.run(["snap", &format!("during-{round}-{taken}")]);
                    taken += 1;
                }
            }
        }
        assert!(sync.wait().unwrap().success());
        let last = fs::metadata(mounted.live().join("program")).unwrap();
        assert_eq!((last.uid(), last.gid(), last.mode() & 0o7777), (OWNER, GROUP, 0o6755));
        for shown in fs::read_dir(mounted.snap()).unwrap() {
            let Ok(mut file) = fs::File::open(shown.unwrap().path().join("program")) else { continue };
            let found = file.metadata().unwrap();
            let mut start = [0; 10];
            file.read_exact(&mut start).unwrap();
            if found.mode() & 0o6000 != 0 && start != *b"root's own" {
                assert_eq!((found.uid(), found.gid(), found.len()), (OWNER, GROUP, content.len() as u64));
            }
        }
    }
    // The same where files are brought back, and of directories.
    mounted.ok(["snap", "whole"]);
    fs::write(mounted.live().join("program"), vec![7; 1 << 20]).unwrap();
    chown(mounted.live().join("program"), Some(0), Some(0)).unwrap();
    fs::set_permissions(mounted.live().join("program"), fs::Permissions::from_mode(0o4755)).unwrap();
    mounted.ok(["restore", "whole", "program"]);
    let last = fs::metadata(mounted.live().join("program")).unwrap();
    assert_eq!(
        (last.uid(), last.gid(), last.mode() & 0o7777, last.len()),
        (OWNER, GROUP, 0o6755, content.len() as u64)
    );
}

/// A directory that is there gets nothing that those could see who could look into it before.
#[test]
fn a_directory_is_closed_before_what_was_closed_comes_into_it() {
    if !is_possible() {
        return;
    }
    let mounted = mounted("allow_other");
    let (closed, out) = (mounted.live().join("closed"), mounted.dir.path().join("out"));
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    for i in 0..300 {
        fs::write(closed.join(format!("{i}")), vec![1; 100_000]).unwrap();
    }
    mounted.ok(["snap", "s"]);
    // Outside, and in live: by copying out, by bringing back, by a sync.
    let commands: [(PathBuf, Vec<std::ffi::OsString>); 3] = [
        (
            out.join("closed"),
            vec!["restore".into(), "s".into(), "--overwrite".into(), "--to".into(), out.clone().into_os_string()],
        ),
        (closed.clone(), vec!["restore".into(), "s".into(), "closed".into()]),
        (closed.clone(), vec!["sync".into()]),
    ];
    for (target, command) in commands {
        fs::remove_dir_all(&target).unwrap_or_default();
        fs::create_dir_all(&target).unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).unwrap();
        if command[0] == "sync" {
            // Its own mount is nothing to bring in: a copy of it is.
            let source = mounted.dir.path().join("source");
            assert!(
                Command::new("cp").arg("-a").args([&mounted.snap().join("s"), &source]).status().unwrap().success()
            );
            let mut sync =
                mounted.command([OsStr::new("sync"), source.as_os_str()]).stdout(Stdio::null()).spawn().unwrap();
            watch(&target, &mut sync);
            continue;
        }
        let mut command = mounted.command(command).stdout(Stdio::null()).spawn().unwrap();
        watch(&target, &mut command);
    }
}

/// Nothing is in a directory, at any time, while others can look into it.
fn watch(target: &Path, command: &mut std::process::Child) {
    while command.try_wait().unwrap().is_none() {
        let has_any = target.join("0").exists() || target.join("299").exists();
        let mode = fs::metadata(target).unwrap().mode() & 0o7777;
        assert!(!has_any || mode == 0o700, "{mode:o}");
    }
    assert!(command.wait().unwrap().success());
    assert_eq!((fs::metadata(target).unwrap().mode() & 0o7777, fs::read_dir(target).unwrap().count()), (0o700, 300));
}

/// Files of a store's directory: names that every command touches.
const FILES: [&str; 7] = ["store", "lock", "meta.redb", "volume.0", "journal", "reserve", "log"];

/// Whatever lies in the place of a store's file, nothing outside is read, changed or made by it, and nobody waits.
#[test]
fn a_stores_files_are_plain_files_of_its_own() {
    let mounted = Mounted::unmounted();
    mounted.ok(["snap", "a"]);
    if can_mount() {
        mounted.mount(&[]);
        mounted.umount();
    }
    let aside = mounted.dir.path().join("aside");
    let victim = mounted.dir.path().join("victim");
    for name in FILES {
        let file = mounted.store().join(name);
        if !file.exists() {
            continue;
        }
        fs::rename(&file, &aside).unwrap();
        fs::copy(&aside, &victim).unwrap();
        let before = fs::read(&victim).unwrap();
        let none = mounted.dir.path().join("none");
        type Put<'a> = (&'a str, Box<dyn Fn() + 'a>);
        let puts: [Put<'_>; 4] = [
            ("a link", Box::new(|| symlink(&victim, &file).unwrap())),
            ("a link to nothing", Box::new(|| symlink(&none, &file).unwrap())),
            ("another name of a file", Box::new(|| fs::hard_link(&victim, &file).unwrap())),
            ("a pipe", Box::new(|| rustix::fs::mkfifoat(rustix::fs::CWD, &file, 0o600.into()).unwrap())),
        ];
        for (what, put) in puts {
            put();
            let mut commands = vec![vec!["list"], vec!["snap"], vec!["check"]];
            let (store, snap) = (mounted.store(), mounted.snap());
            commands.push(vec!["mount", store.to_str().unwrap(), snap.to_str().unwrap()]);
            for command in commands {
                if command[0] == "mount" && !can_mount() {
                    continue;
                }
                let output = Command::new("timeout")
                    .args(["20", PITFS])
                    .args(&command)
                    .env("PITFS_STORE", &store)
                    .output()
                    .unwrap();
                let said = String::from_utf8_lossy(&output.stderr);
                // Only a daemon has a log.
                let is_refused = output.status.code() == Some(1);
                let is_needless = name == "log" && command[0] != "mount" && output.status.success();
                assert!(is_refused || is_needless, "{name} is {what}: {command:?}: {:?} {said}", output.status);
                assert!(!said.contains("panicked"), "{said}");
            }
            fs::remove_file(&file).unwrap();
            assert!(!none.exists(), "{name} is {what}");
            assert_eq!(fs::read(&victim).unwrap(), before, "{name} is {what}");
        }
        fs::rename(&aside, &file).unwrap();
    }
    mounted.check();
}

#[test]
fn what_is_left_of_replacing_a_file_is_not_followed() {
    let mounted = Mounted::unmounted();
    mounted.ok(["snap", "a"]);
    let victim = mounted.dir.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    for name in ["meta.redb.new", "store.new", "journal.new", "reserve.new"] {
        symlink(&victim, mounted.store().join(name)).unwrap();
    }
    mounted.check();
    mounted.ok(["snap", "b"]);
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
}

/// Root works on nobody's store without having been asked to, and then makes nothing that its owner cannot use.
#[test]
fn root_works_on_the_store_of_another_user_when_asked() {
    if !is_possible() {
        return;
    }
    let mounted = Mounted::unmounted();
    let store = mounted.store();
    fs::set_permissions(mounted.dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::remove_dir_all(&store).unwrap();
    does(OWNER, &format!("'{PITFS}' create '{}'", store.display()));
    let owners = || -> Vec<u32> {
        fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().metadata().unwrap().uid()).collect()
    };
    for command in [&["list"][..], &["snap"], &["check"], &["status"]] {
        let said = mounted.fails(1, command);
        assert!(said.contains("belongs to user 1234") && said.contains("--trust-owner"), "{command:?}: {said}");
    }
    let mount = |options: &[&str]| {
        let mut args = vec![OsStr::new("mount")];
        options.iter().for_each(|option| args.push(OsStr::new(option)));
        let (store, snap) = (mounted.store(), mounted.snap());
        mounted.run(args.into_iter().chain([store.as_os_str(), snap.as_os_str()]))
    };
    assert!(!mount(&[]).status.success());
    mounted.ok(["snap", "--trust-owner", "a"]);
    assert!(mount(&["--trust-owner"]).status.success());
    // Its owner works on it all the same.
    does(OWNER, &format!("'{PITFS}' -s '{}' snap b", store.display()));
    let socket = fs::metadata(store.join("control")).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!((socket.uid(), socket.mode() & 0o7777), (OWNER, 0o600));
    mounted.umount();
    assert!(mount(&["-o", "trust_owner"]).status.success());
    mounted.umount();
    assert!(owners().iter().all(|owner| *owner == OWNER), "{:?}", owners());
    does(OWNER, &format!("'{PITFS}' -s '{}' check", store.display()));
    // What belongs to a third one is nobody's.
    chown(store.join("journal"), Some(STRANGER), None).unwrap();
    let said = mounted.fails(1, ["--trust-owner", "list"]);
    assert!(said.contains("belongs to user 65534"), "{said}");
}

/// A directory in which others may make files: theirs are not taken for the store's.
#[test]
fn files_of_others_in_roots_store_are_refused() {
    if !is_possible() {
        return;
    }
    let mounted = Mounted::unmounted();
    mounted.ok(["snap", "a"]);
    chown(mounted.store(), Some(OWNER), None).unwrap();
    // The directory may be another's, if root has made all that is in it.
    mounted.ok(["list"]);
    mounted.mount(&[]);
    mounted.umount();
    let journal = mounted.store().join("journal");
    chown(&journal, Some(OWNER), None).unwrap();
    let said = mounted.fails(1, ["list"]);
    assert!(said.contains("journal") && said.contains("belongs to user 1234"), "{said}");
    chown(&journal, Some(0), None).unwrap();
    mounted.check();
}

/// In a directory that anybody may write to, anybody can have a socket.
#[test]
fn nobody_else_answers_for_a_daemon() {
    if !is_possible() {
        return;
    }
    let mounted = Mounted::unmounted();
    fs::set_permissions(mounted.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(mounted.store(), fs::Permissions::from_mode(0o777)).unwrap();
    let socket = mounted.store().join("control");
    let script = format!(
        "exec python3 -c 'import socket; s=socket.socket(socket.AF_UNIX); s.bind(\"{0}\"); s.listen()\nwhile 1: s.accept()[0].recv(1000)'",
        socket.display()
    );
    let mut other = Command::new("sh").arg("-c").arg(script).uid(STRANGER).gid(STRANGER).spawn().unwrap();
    wait_for("the socket of another user", || socket.exists());
    std::thread::sleep(std::time::Duration::from_millis(100));
    let said = mounted.fails(1, ["list"]);
    assert!(said.contains("user 65534") && said.contains("answers"), "{said}");
    // Nor does the directory's owner for root, who has not said that he trusts him.
    chown(mounted.store(), Some(STRANGER), None).unwrap();
    let said = mounted.fails(1, ["list"]);
    assert!(said.contains("could answer anything") && said.contains("--trust-owner"), "{said}");
    other.kill().unwrap();
    other.wait().unwrap();
    mounted.ok(["list"]);
}

/// Who has his own file open does not have another's open that comes in its place, nor one that is run with another's rights.
#[test]
fn an_open_file_does_not_become_anothers() {
    if !is_possible() {
        return;
    }
    let mounted = mounted("allow_other,suid");
    let (source, file) = (mounted.dir.path().join("source"), mounted.live().join("f"));
    fs::create_dir(&source).unwrap();
    fs::write(source.join("f"), "a secret of root").unwrap();
    fs::set_permissions(source.join("f"), fs::Permissions::from_mode(0o4711)).unwrap();
    mounted.ok([OsStr::new("sync"), source.as_os_str()]);
    mounted.ok(["snap", "s"]);
    for command in
        [vec![OsStr::new("sync"), source.as_os_str()], vec![OsStr::new("restore"), OsStr::new("s"), OsStr::new("f")]]
    {
        fs::write(&file, "his own bytes...").unwrap();
        chown(&file, Some(OWNER), None).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        let open = fs::File::options().read(true).write(true).open(&file).unwrap();
        mounted.ok(&command);
        let found = fs::metadata(&file).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o7777), (0, 0o4711), "{command:?}");
        assert_eq!(fs::read(&file).unwrap(), b"a secret of root");
        use std::os::unix::fs::FileExt;
        let mut bytes = [0; 16];
        open.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"his own bytes...", "{command:?}");
        open.write_all_at(b"#!", 0).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"a secret of root");
        let said = mounted.json(&["sync", "-n", source.to_str().unwrap()]);
        assert_eq!(said["changed"].as_u64().unwrap() + said["added"].as_u64().unwrap(), 0, "{said}");
    }
}

/// What lies in an archive's directory is for whoever makes the archive.
#[test]
fn an_archive_takes_nobodys_file_and_gives_nobody_its_own() {
    let mounted = Mounted::unmounted();
    let archive = mounted.dir.path().join("archive");
    fs::create_dir(&archive).unwrap();
    fs::write(archive.join("index"), "precious").unwrap();
    let said = mounted.fails(1, [OsStr::new("roll"), OsStr::new("--archive"), archive.as_os_str()]);
    assert!(said.contains("as an archive's index is"), "{said}");
    assert_eq!(fs::read(archive.join("index")).unwrap(), b"precious");
    assert_eq!(fs::read_dir(&archive).unwrap().count(), 1);
    fs::remove_file(archive.join("index")).unwrap();
    if is_root() {
        chown(&archive, Some(OWNER), None).unwrap();
    }
    mounted.ok([OsStr::new("roll"), OsStr::new("--archive"), archive.as_os_str()]);
    mounted.ok(["roll"]);
    for entry in fs::read_dir(&archive).unwrap() {
        let found = entry.unwrap().metadata().unwrap();
        assert_eq!((found.uid(), found.mode() & 0o7777), (rustix::process::geteuid().as_raw(), 0o600));
    }
}

/// What is made in `.snap` is made in the directory above: by nobody whom its list keeps out.
#[test]
fn a_list_keeps_out_of_what_is_hidden_as_well() {
    if !is_possible() {
        return;
    }
    let mounted = mounted("allow_other");
    let directory = mounted.live().join("d");
    fs::create_dir(&directory).unwrap();
    chown(&directory, Some(0), Some(GROUP)).unwrap();
    mounted.ok(["snap", "one"]);
    // The owner's group may only look, and OWNER may write, so that the mode shows a group that may.
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(1u16, 7u16, u32::MAX), (2, 7, OWNER), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 5, u32::MAX)]
    {
        list.extend([&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    rustix::fs::setxattr(&directory, "system.posix_acl_access", &list, rustix::fs::XattrFlags::empty()).unwrap();
    assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o777, 0o775);
    for place in ["x", ".snap/x"] {
        let made = as_user(STRANGER, GROUP, &format!("mkdir '{}'", directory.join(place).display()));
        assert!(!made.status.success(), "{place}");
    }
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
}

/// A store says where its archive is. That counts for its owner, and for nobody who only looks into it.
#[test]
fn a_store_has_nobody_else_look_where_it_says() {
    if !is_possible() {
        return;
    }
    let mounted = Mounted::unmounted();
    let (place, store) = (mounted.dir.path().display().to_string(), mounted.store().display().to_string());
    fs::set_permissions(mounted.dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::remove_dir_all(mounted.store()).unwrap();
    does(OWNER, &format!("'{PITFS}' create '{store}'; '{PITFS}' -s '{store}' roll --archive '{place}/archive'"));
    does(OWNER, &format!("'{PITFS}' -s '{store}' roll; chmod -R a+rwX '{store}' '{place}/archive'"));
    let archive = mounted.dir.path().join("archive");
    let names = || -> Vec<_> {
        let mut names: Vec<_> = fs::read_dir(&archive).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    fs::remove_file(archive.join("index.redb")).unwrap_or_default();
    let before = names();
    let said = as_user(STRANGER, STRANGER, &format!("'{PITFS}' -s '{store}' status"));
    let said = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.contains("has been elsewhere") && said.contains("archive attach"), "{said}");
    assert_eq!(names(), before);
    let roll = as_user(STRANGER, STRANGER, &format!("'{PITFS}' -s '{store}' roll"));
    assert!(!roll.status.success() && names() == before);
    // Asked for, it is looked at.
    does(STRANGER, &format!("'{PITFS}' -s '{store}' archive attach '{place}/archive'"));
    does(OWNER, &format!("'{PITFS}' -s '{store}' archive verify"));
}

/// A look-up by somebody who may not go there takes nothing away from others.
#[test]
fn what_is_mounted_behind_dot_snap_stays_for_those_who_may_go_there() {
    if !is_possible() {
        return;
    }
    let mounted = mounted("allow_other");
    let closed = mounted.live().join("closed");
    let inside = closed.join("inside");
    fs::create_dir_all(inside.join("data")).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    mounted.ok(["snap", "one"]);
    // It is open now, and was not in the snapshot.
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    let other = mounted.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("inside"), "there").unwrap();
    let snapshot = inside.join(".snap/one");
    let bind = Bind::new(&other, &snapshot.join("data"));
    for _ in 0..2 {
        assert_eq!(reads(STRANGER, STRANGER, &snapshot.join("data/inside")), None);
        assert!(bind.is_there());
        assert_eq!(read(&snapshot.join("data/inside")), "there");
    }
}

/// What covers a directory is a mount at that directory, whatever became of its name after it was looked at; and what is taken
/// away is where it is now.
#[test]
fn a_mount_goes_from_where_it_is() {
    if !is_possible() {
        return;
    }
    let mounted = Mounted::unmounted();
    let at = |name: &str| mounted.dir.path().join(name);
    fs::create_dir_all(at("above/point")).unwrap();
    let (store, point) = (mounted.store(), at("above/point"));
    let words = [OsStr::new("mount"), OsStr::new("--foreground"), store.as_os_str(), point.as_os_str()];
    let mut daemon = mounted.command(words).spawn().unwrap();
    wait_for("the mount", || at("above/point/live").exists());
    // Its owner has something else in the place of the directory above.
    fs::rename(at("above"), at("moved")).unwrap();
    fs::create_dir_all(at("victim/point")).unwrap();
    fs::create_dir(at("other")).unwrap();
    fs::write(at("other/inside"), "").unwrap();
    let bind = Bind::new(&at("other"), &at("victim/point"));
    symlink(at("victim"), at("above")).unwrap();
    let process = rustix::process::Pid::from_raw(daemon.id() as i32).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    assert!(daemon.wait().unwrap().success());
    assert!(bind.is_there());
    assert!(!at("moved/point/live").exists());
}

/// Who has a file system of his own can have its root say that it shows any store.
#[test]
fn a_file_system_that_is_no_mount_of_pitfs_leads_to_no_store() {
    if !is_possible() {
        return;
    }
    let mounted = Mounted::unmounted();
    mounted.ok(["snap", "one"]);
    let at = mounted.dir.path().join("of another");
    fs::create_dir(&at).unwrap();
    assert!(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&at).status().unwrap().success());
    let store = mounted.store();
    let set = rustix::fs::setxattr(
        &at,
        "user.pitfs.store",
        store.as_os_str().as_encoded_bytes(),
        rustix::fs::XattrFlags::empty(),
    );
    let output = run_in(&at, ["delete", "one"]);
    assert!(Command::new("umount").arg(&at).status().unwrap().success());
    if set.is_err() {
        return eprintln!("not run: tmpfs has no such xattrs");
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("which store?"), "{said}");
    assert!(mounted.ok(["list"]).contains("one"));
}

/// A link that somebody puts into the tree does not make root restore, or bring in, something else.
#[test]
fn links_below_the_mount_are_not_followed() {
    if !is_possible() {
        return;
    }
    let mounted = mounted("allow_other");
    let live = mounted.live();
    let source = mounted.dir.path().join("source");
    for (path, text) in
        [(live.join("etc/conf"), "old"), (live.join("u/docs/conf"), "his"), (source.join("conf"), "new")]
    {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    mounted.ok(["snap", "one"]);
    fs::write(live.join("etc/conf"), "newer").unwrap();
    fs::rename(live.join("u/docs"), live.join("u/away")).unwrap();
    symlink("../etc", live.join("u/docs")).unwrap();
    let to = mounted.dir.path().join("to");
    for args in [
        vec!["restore", "one", "u/docs/conf"],
        vec!["restore", "one", "u/docs/conf", "--to", to.to_str().unwrap()],
        vec!["sync", source.to_str().unwrap(), "u/docs/sub"],
    ] {
        let output = run_in(&live, &args);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(read(&live.join("etc/conf")), "newer", "{args:?}: {said}");
        assert!(!live.join("etc/sub").exists(), "{args:?}: {said}");
    }
    let taken = to.join("u/docs/conf");
    assert!(!taken.exists() || read(&taken) == "his");
}

/// What gets attributes or another name at the end of a restore is what was made, not what has its name by then.
#[test]
fn what_is_exchanged_while_it_is_restored_gets_nothing_of_anothers() {
    if !is_possible() {
        return;
    }
    let mounted = Mounted::unmounted();
    let at = |path: &str| mounted.dir.path().join(path);
    let source = at("source");
    for (path, text) in
        [("home/his/file", "his"), ("home/closed/key", "secret"), ("home/name", "whole"), ("own/file", "")]
    {
        fs::create_dir_all(source.join(path).parent().unwrap()).unwrap();
        fs::write(source.join(path), text).unwrap();
    }
    fs::hard_link(source.join("home/name"), source.join("own/other name")).unwrap();
    fs::set_permissions(source.join("home/closed"), fs::Permissions::from_mode(0o700)).unwrap();
    chown(source.join("home"), Some(OWNER), None).unwrap();
    chown(source.join("home/his"), Some(OWNER), None).unwrap();
    // Long enough for all directories to be there before the last file is.
    fs::write(source.join("large"), (0..100u64 << 20).map(|i| (i * i / 512) as u8).collect::<Vec<_>>()).unwrap();
    mounted.ok(["sync", source.to_str().unwrap()]);
    mounted.ok(["snap", "one"]);
    fs::write(at("foreign"), "foreign").unwrap();
    let home = at("to/home");
    let mut restoring = mounted.command(["restore", "one", "--to", at("to").to_str().unwrap()]).spawn().unwrap();
    wait_for("what is exchanged", || {
        ["closed/key", "his/file", "name"].iter().all(|name| home.join(name).exists())
            || restoring.try_wait().unwrap().is_some()
    });
    let exchange = rustix::fs::RenameFlags::EXCHANGE;
    let here = rustix::fs::CWD;
    rustix::fs::renameat_with(here, home.join("his"), here, home.join("closed"), exchange).unwrap();
    fs::rename(at("foreign"), home.join("name")).unwrap();
    restoring.wait().unwrap();
    let closed = home.join("his");
    assert_eq!(read(&closed.join("key")), "secret");
    let found = closed.metadata().unwrap();
    assert_eq!((found.uid(), found.mode() & 0o777), (0, 0o700));
    let other = at("to/own/other name");
    assert!(!other.exists() || read(&other) == "whole");
}
