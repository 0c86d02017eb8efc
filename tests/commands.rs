//! The command line: what each command does, and what it says to bad input.

mod mounted;

use mounted::*;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

fn sample(root: &Path) {
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/b/file"), vec![3; 40_000]).unwrap();
    fs::write(root.join("small"), b"tiny").unwrap();
    fs::hard_link(root.join("small"), root.join("a/other name")).unwrap();
    std::os::unix::fs::symlink("small", root.join("link")).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(10 << 20).unwrap();
    sparse.write_all_at(b"in the middle", 5 << 20).unwrap();
    rustix::fs::setxattr(root.join("small"), "user.note", b"hello", rustix::fs::XattrFlags::empty()).unwrap();
}

/// The same commands on a store that is mounted and on one that is not.
#[test]
fn every_verb_works_mounted_and_unmounted() {
    for (mounted, is_mounted) in Mounted::unmounted_and_mounted() {
        let source = mounted.dir.path().join("source");
        sample(&source);
        let sync = |args: &[&str]| {
            let mut all = vec!["sync", source.to_str().unwrap()];
            all.extend(args);
            mounted.ok(all)
        };
        assert!(sync(&["-n"]).contains("add a/b/file"));
        assert!(sync(&[]).starts_with("7 added, 0 changed, 0 removed, 0 unchanged"), "{is_mounted}");
        assert!(sync(&[]).starts_with("0 added, 0 changed, 0 removed, 7 unchanged"), "{is_mounted}");
        mounted.ok(["snap", "one"]);
        fs::File::options()
            .write(true)
            .open(source.join("a/b/file"))
            .unwrap()
            .write_all_at(b"changed", 20_000)
            .unwrap();
        fs::remove_file(source.join("link")).unwrap();
        fs::rename(source.join("small"), source.join("renamed")).unwrap();
        fs::write(source.join("new"), b"new").unwrap();
        fs::write(source.join("left out.o"), b"").unwrap();
        let said = sync(&["--exclude", "*.o"]);
        // Of 40,000 bytes one track of 16 KiB was written.
        assert!(
            said.contains("16.0 KiB written") || said.contains("written") && !said.contains("39.1 KiB written"),
            "{said}"
        );
        mounted.ok(["snap", "two"]);
        let diff = mounted.ok(["diff", "one", "two"]);
        assert!(
            diff.contains("M a/b/file  39.1 KiB\n") && diff.contains("- link") && diff.contains("+ new  3 B"),
            "{diff}"
        );
        assert!(!diff.contains("left out"), "{diff}");
        let reverse = mounted.ok(["diff", "two", "one"]);
        assert!(reverse.contains("+ link") && reverse.contains("- new  3 B"), "{reverse}");
        assert_eq!(mounted.ok(["diff", "two"]), "");
        assert!(mounted.ok(["diff", "one", "two", "--json"]).contains("\"kind\": \"changed\""));
        let out = mounted.dir.path().join("out");
        let out_text = out.to_str().unwrap();
        mounted.ok(["restore", "two", "--to", out_text]);
        fs::remove_file(source.join("left out.o")).unwrap();
        assert_same(&listing(&source), &listing(&out), "restored and source");
        assert!(fs::metadata(out.join("sparse")).unwrap().blocks() < 1000, "holes stay holes");
        let some = mounted.dir.path().join("some");
        mounted.ok(["restore", "one", "a/b", "link", "--to", some.to_str().unwrap()]);
        assert_eq!(fs::read(some.join("a/b/file")).unwrap(), vec![3; 40_000]);
        assert!(some.join("link").is_symlink() && !some.join("small").exists());
        let again = mounted.fails(1, ["restore", "one", "link", "--to", some.to_str().unwrap()]);
        assert!(again.contains("exists already; --overwrite"), "{again}");
        mounted.ok(["restore", "one", "link", "--overwrite", "--to", some.to_str().unwrap()]);
        // What has the name of a directory is left alone.
        let taken = mounted.dir.path().join("taken");
        fs::create_dir_all(&taken).unwrap();
        let _there_already = std::os::unix::fs::symlink("elsewhere", taken.join("a"));
        for more in [&[][..], &["-n"]] {
            let said = mounted.fails(1, ["restore", "one", "a/b", "--to", taken.to_str().unwrap()].iter().chain(more));
            let wanted = format!("{}/a: a directory belongs here", taken.display());
            assert!(said.contains(&wanted), "{said}");
            let said =
                mounted.fails(1, ["restore", "one", "--to", source.join("new").to_str().unwrap()].iter().chain(more));
            assert!(said.contains("new is no directory") && !said.contains("os error"), "{said}");
        }
        mounted.ok(["rename", "one", "first"]);
        let list = mounted.ok(["list"]);
        assert!(list.lines().nth(1).unwrap().starts_with("first ") && list.lines().count() == 3, "{list}");
        let status = mounted.ok(["status"]);
        assert!(status.contains("log ") && status.contains("deleting it frees"), "{status}");
        mounted.ok(["delete", "first", "two"]);
        assert_eq!(mounted.ok(["list", "--json"]).trim(), "[]");
        mounted.check();
        if is_mounted {
            mounted.umount();
            mounted.check();
        }
    }
}

/// The walk-through of the manual, word for word.
#[test]
fn the_walk_through() {
    if !can_mount() {
        return;
    }
    let dir = temporary();
    fs::create_dir(dir.path().join("snap")).unwrap();
    sample(&dir.path().join("project"));
    fs::write(dir.path().join("project/README"), b"read me\n").unwrap();
    let script = r#"
        set -e
        pitfs create store --from project
        pitfs mount store snap
        trap 'cd ..; pitfs umount --lazy snap' EXIT
        test "$(ls snap)" = live
        cd snap
        pitfs snap before
        mkdir before-upgrade
        echo new > live/README
        ls
        ! diff -r --no-dereference before-upgrade live
        cp before-upgrade/README live/
        diff -r --no-dereference before-upgrade live
        pitfs list; pitfs diff before-upgrade; pitfs delete before-upgrade; pitfs status; pitfs check
        echo more >> ../project/README
        pitfs sync ../project
        cmp ../project/README live/README
        cd ..
        pitfs umount snap
        trap - EXIT
        test -z "$(ls snap)"
    "#;
    let path = format!("{}:{}", Path::new(PITFS).parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh")
        .arg("-c")
        .arg(script)
        .current_dir(dir.path())
        .env("PATH", path)
        .env_remove("PITFS_STORE")
        .output();
    let output = output.unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn stores_that_cannot_be_used_say_why() {
    let mounted = Mounted::unmounted();
    let dir = mounted.dir.path();
    let text = |path: &Path| path.to_str().unwrap().to_string();
    let missing = dir.join("missing");
    let said = mounted.fails(1, ["-s", &text(&missing), "list"]);
    assert!(said.contains("there is no store at") && said.contains("pitfs create"), "{said}");
    let empty = dir.join("empty");
    fs::create_dir(&empty).unwrap();
    let said = mounted.fails(1, ["-s", &text(&empty), "list"]);
    assert!(said.contains("is not a pitfs store"), "{said}");
    fs::write(empty.join("something"), b"").unwrap();
    let said = mounted.fails(1, ["create", &text(&empty)]);
    assert!(said.contains("is not empty (it has something)"), "{said}");
    let said = mounted.fails(1, ["create", &text(&mounted.store())]);
    assert!(said.contains("is a store already"), "{said}");
    let said = mounted.fails(1, ["create", &text(&dir.join("new")), "--from", &text(&missing)]);
    assert!(said.contains("missing") && !dir.join("new").exists(), "{said}");
    for wrong in
        [&["create", "x", "--track-size", "3K"][..], &["create", "x", "--compress", "rar"], &["snapp"], &["diff"], &[]]
    {
        mounted.fails(2, wrong);
    }
    let identity = mounted.store().join("store");
    fs::write(&identity, "pitfs store\nformat 5\n").unwrap();
    let said = mounted.fails(1, ["list"]);
    assert!(said.contains("has format 5") && said.contains("newer pitfs"), "{said}");
    fs::write(&identity, "pitfs store\nformat 1\n").unwrap();
    let said = mounted.fails(1, ["list"]);
    assert!(said.contains("has format 1") && said.contains("new store"), "{said}");
    fs::write(&identity, "rubbish").unwrap();
    assert!(mounted.fails(1, ["list"]).contains("damaged"));
    fs::write(&identity, "pitfs store\nformat 4\n").unwrap();
    mounted.ok(["list"]);
    for (file, len) in
        [("meta.redb", 0u64), ("meta.redb", 5000), ("meta.redb", 40_000), ("volume.0", 10), ("volume.0", 0)]
    {
        let path = mounted.store().join(file);
        let whole = fs::read(&path).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
        let said = mounted.fails(1, ["list"]);
        assert!(said.contains("damaged") && said.contains(file.trim_end_matches(".0")), "{file} cut to {len}: {said}");
        fs::write(&path, whole).unwrap();
        mounted.ok(["list"]);
    }
    fs::rename(mounted.store().join("volume.0"), dir.join("elsewhere")).unwrap();
    let said = mounted.fails(1, ["list"]);
    assert!(said.contains("volume.0 is missing"), "{said}");
}

#[test]
fn mount_points_that_cannot_be_used_say_why() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::unmounted();
    let dir = mounted.dir.path();
    let store = mounted.store();
    let mount = |at: &Path, options: &[&str]| {
        let mut args = vec![OsStr::new("mount"), store.as_os_str(), at.as_os_str()];
        args.extend(options.iter().map(OsStr::new));
        mounted.fails(1, args)
    };
    assert!(mount(&dir.join("missing"), &[]).contains("does not exist; make it with `mkdir"));
    fs::write(dir.join("file"), b"").unwrap();
    assert!(mount(&dir.join("file"), &[]).contains("is not a directory"));
    fs::create_dir_all(dir.join("full/of")).unwrap();
    assert!(mount(&dir.join("full"), &[]).contains("is not empty"));
    let missing = dir.join("missing");
    let said = mounted.fails(1, ["umount", missing.to_str().unwrap()]);
    assert!(said.contains("missing does not exist") && !said.contains("pitfs create"), "{said}");
    mounted.mount(&[]);
    let said = mount(&mounted.snap(), &[]);
    assert!(said.contains("is in use by process") && said.contains("mounted at"), "{said}");
    let other = Mounted::unmounted();
    let said = other.fails(1, [OsStr::new("mount"), other.store().as_os_str(), mounted.snap().as_os_str()]);
    assert!(said.contains("something is mounted at"), "{said}");
    let said = mounted.fails(1, ["umount", dir.join("missing").to_str().unwrap()]);
    assert!(said.contains("missing"), "{said}");
    let inside = fs::File::open(mounted.live()).unwrap();
    let said = mounted.fails(1, ["umount", mounted.snap().to_str().unwrap()]);
    assert!(said.contains("in use") && said.contains("--lazy"), "{said}");
    drop(inside);
    // A daemon that was killed leaves a dead mount: one of another store says what to do.
    mounted.signal_daemon(rustix::process::Signal::KILL);
    wait_for("the daemon's end", || rustix::fs::statvfs(mounted.snap()).is_err());
    let said = other.fails(1, [OsStr::new("mount"), other.store().as_os_str(), mounted.snap().as_os_str()]);
    let advice = format!("run `pitfs umount {}`", mounted.snap().display());
    assert!(said.contains(&advice) && said.contains("daemon is gone"), "{said}");
    mounted.ok(["umount", mounted.snap().to_str().unwrap()]);
    mounted.mount(&[]);
    mounted.umount();
    let said = mounted.fails(1, ["umount", mounted.snap().to_str().unwrap()]);
    assert!(said.contains("not mounted") || said.contains("not a pitfs"), "{said}");
}

#[test]
fn a_machine_without_fuse_is_named_as_such() {
    if !is_root() {
        return eprintln!("not run: needs root, to hide /dev/fuse");
    }
    let mounted = Mounted::unmounted();
    let hidden = "mount -t tmpfs none /dev && exec \"$@\"";
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", hidden, "sh", PITFS, "mount", "--foreground"])
        .args([mounted.store(), mounted.snap()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("/dev/fuse does not exist") && said.contains("modprobe"),
        "{said}"
    );
}

#[test]
fn snapshot_names_that_cannot_be_used_say_why() {
    let mounted = Mounted::unmounted();
    mounted.ok(["snap", "taken"]);
    mounted.ok(["snap", "other"]);
    let long = "n".repeat(256);
    for (name, expected) in [
        (OsStr::new("taken"), "exists already"),
        (OsStr::new("a/b"), "has a slash"),
        (OsStr::new("live"), "`live` is the tree itself"),
        (OsStr::new(""), "cannot be empty"),
        (OsStr::new(&long), "256 bytes"),
        (OsStr::from_bytes(b"a\xff"), "not UTF-8"),
        (OsStr::new(".."), "cannot be a name"),
        (OsStr::new("a\nb"), "control characters"),
    ] {
        let said = mounted.fails(1, [OsStr::new("snap"), name]);
        assert!(said.contains(expected), "{name:?}: {said}");
        let said = mounted.fails(1, [OsStr::new("rename"), OsStr::new("other"), name]);
        assert!(said.contains(expected), "{name:?}: {said}");
    }
    for args in
        [&["delete", "nope"][..], &["diff", "nope"], &["rename", "nope", "x"], &["restore", "nope", "--to", "x"]]
    {
        let said = mounted.fails(1, args);
        assert!(said.contains("there is no snapshot named \"nope\"") && said.contains("pitfs list"), "{said}");
    }
    // Of a store that was mounted, and has the log of its daemon.
    fs::write(mounted.store().join("log"), b"").unwrap();
    let said = mounted.fails(1, ["create", mounted.store().to_str().unwrap()]);
    assert!(said.contains("is a store already"), "{said}");
    let said = mounted.fails(1, ["delete", "taken", "nope"]);
    assert!(said.contains("nope"), "{said}");
    assert!(mounted.ok(["list"]).contains("taken"), "nothing is deleted when a name is wrong");
    assert!(mounted.fails(1, ["delete", "live"]).contains("cannot be deleted"));
    let said = mounted
        .fails(1, ["restore", "taken", "no/such/file", "--to", mounted.dir.path().join("out").to_str().unwrap()]);
    assert!(said.contains("no/such/file") && said.contains("not in the snapshot"), "{said}");
}

#[test]
fn unreadable_files_are_reported_and_the_rest_is_done() {
    let mounted = Mounted::unmounted();
    let source = mounted.dir.path().join("source");
    sample(&source);
    if !is_root() {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(source.join("small"), fs::Permissions::from_mode(0o0)).unwrap();
        let output = mounted.run(["sync", source.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("small: Permission denied"));
        return;
    }
    // Root can read everything but a name that vanishes; it is enough that a wrong source is refused.
    let said = mounted.fails(1, ["sync", source.join("small").to_str().unwrap()]);
    assert!(said.contains("is not a directory"), "{said}");
    let said = mounted.fails(1, ["sync", mounted.store().to_str().unwrap()]);
    assert!(said.contains("lies in the store's own directory"), "{said}");
    mounted.ok(["sync", mounted.dir.path().to_str().unwrap(), "below/here"]);
    mounted.check();
}

#[test]
fn of_many_problems_the_first_are_shown() {
    use std::os::unix::fs::symlink;
    let mounted = Mounted::unmounted();
    let source = mounted.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    for i in 0..30 {
        symlink("x", source.join(OsStr::from_bytes(format!("link {i}\n").as_bytes()))).unwrap();
    }
    symlink("x", source.join(OsStr::from_bytes(b"\xff"))).unwrap();
    let planned = mounted.ok([OsStr::new("sync"), OsStr::new("-n"), source.as_os_str()]);
    assert!(planned.contains("add \\xff\n") && planned.contains("add link 7\\n\n"), "{planned}");
    mounted.ok([OsStr::new("sync"), source.as_os_str()]);
    mounted.ok(["snap", "s"]);
    let out = mounted.dir.path().join("out");
    let restore = |more: &[&str]| mounted.run(["restore", "s", "--to", out.to_str().unwrap()].iter().chain(more));
    assert!(restore(&[]).status.success());
    let said = String::from_utf8(restore(&[]).stderr).unwrap();
    assert_eq!(said.lines().count(), 21, "{said}");
    assert!(said.lines().take(20).all(|line| line.ends_with("it exists already; --overwrite replaces it")), "{said}");
    assert!(said.ends_with("pitfs: and 11 more; --json shows all\n"), "{said}");
    let all: serde_json::Value = serde_json::from_slice(&restore(&["--json"]).stdout).unwrap();
    let problems = all["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 31);
    let escaped = format!("{}/\\xff: it exists", out.display());
    assert!(problems.iter().any(|problem| problem.as_str().unwrap().starts_with(&escaped)), "{all}");
}

#[test]
fn an_empty_path_is_not_everything() {
    for (mounted, _) in Mounted::unmounted_and_mounted() {
        let source = mounted.dir.path().join("source");
        sample(&source);
        mounted.ok(["sync", source.to_str().unwrap()]);
        mounted.ok(["save", "s"]);
        mounted.ok(["sync", source.join("a").to_str().unwrap()]);
        let out = mounted.dir.path().join("out");
        let before = (mounted.ok(["diff", "s"]), mounted.ok(["list"]), mounted.ok(["history"]));
        for args in [
            &["restore", "s", ""][..],
            &["restore", "s", "small", ""],
            &["restore", "--last", ""],
            &["restore", "--at", "now", ""],
            &["restore", "s", "", "--to", out.to_str().unwrap()],
        ] {
            let said = mounted.fails(1, args);
            assert!(said.contains("a path is empty; name what is to be restored"), "{args:?}: {said}");
        }
        assert_eq!((mounted.ok(["diff", "s"]), mounted.ok(["list"]), mounted.ok(["history"])), before);
        assert!(!out.exists());
        mounted.ok(["restore", "s", "small"]);
    }
}

#[test]
fn a_daemon_that_dies_leaves_its_client_with_an_answer() {
    use rustix::process::Signal;
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    // It does not come to begin: nothing was done, and the command works on the store that nobody has open any more.
    mounted.signal_daemon(Signal::STOP);
    let start = |args: &[&OsStr]| {
        let mut command = mounted.command(args);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let client = start(&[OsStr::new("snap"), OsStr::new("s")]);
    let is_waiting = || {
        let path = format!("/proc/{}/wchan", client.id());
        let calls = fs::read_to_string(path).unwrap_or_default();
        calls.contains("unix_stream")
    };
    for _ in 0..100 {
        if is_waiting() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    mounted.kill();
    let output = client.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    mounted.mount(&[]);
    assert!(mounted.snap().join("s").exists());
    // It has begun.
    let source = temporary();
    for i in 0..200 {
        fs::write(source.path().join(format!("f{i}")), random_bytes(i, 300_000)).unwrap();
    }
    let client = start(&[OsStr::new("sync"), source.path().as_os_str()]);
    wait_for("the first files", || fs::read_dir(mounted.live()).unwrap().count() > 2);
    mounted.kill();
    let output = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("ended before it answered") && said.contains("`pitfs mount`"), "{said}");
    mounted.mount(&[]);
    mounted.check();
}

#[test]
fn history_has_the_words_of_the_command_line() {
    let mounted = Mounted::unmounted();
    let dir = mounted.dir.path();
    let source = dir.join("source");
    sample(&source);
    let (source, archive) = (source.to_str().unwrap(), dir.join("archive"));
    let what = || -> Vec<String> {
        let all = mounted.json(&["history"]);
        all.as_array().unwrap().iter().map(|entry| entry["what"].as_str().unwrap().to_string()).collect()
    };
    let tells = |args: &[&str], wanted: &[&str]| {
        let before = what();
        mounted.ok(args);
        assert_eq!(what()[before.len()..], *wanted, "{args:?}");
    };
    let synced = format!("sync {source:?}");
    tells(&["sync", "-n", source], &[]);
    tells(&["sync", source], &[&synced]);
    tells(&["sync", source], &[]);
    tells(&["sync", source, "in/here"], &[&format!("{synced} \"in/here\"")]);
    fs::write(Path::new(source).join("more.o"), b"").unwrap();
    fs::write(Path::new(source).join("more"), b"").unwrap();
    let options = ["--exclude", "*.o", "--exclude", "c d", "-x"];
    tells(
        &[&["sync", source], &options[..]].concat(),
        &[&format!("sync --exclude \"*.o\" --exclude \"c d\" --one-file-system {source:?}")],
    );
    tells(&["snap", "three", "--hold", "--offline", "--reserve"], &["snap --offline --hold --reserve \"three\""]);
    mounted.ok(["release", "three"]);
    mounted.ok(["delete", "three"]);
    tells(&["snap", "one"], &["snap \"one\""]);
    tells(&["base", "create", "b"], &["base create \"b\""]);
    tells(&["group", "create", "all", "live", "b"], &["group create \"all\" \"live\" \"b\""]);
    tells(&["snap", "--group", "all", "two"], &["snap --group \"all\" \"two\""]);
    tells(&["rename", "two", "zwei"], &["rename \"two\" \"zwei\""]);
    tells(&["session", "register", "s", "--group", "all"], &["session register \"s\" --base \"live\" --base \"b\""]);
    tells(&["session", "register", "o", "--offline"], &["session register --offline \"o\""]);
    tells(&["mirror", "establish", "b", "m", "--offline"], &["mirror establish --offline \"b\" \"m\""]);
    let archive = archive.to_str().unwrap();
    tells(
        &["roll", "--archive", archive, "--name", "r", "--keep", "1"],
        &[
            &format!("archive attach {archive:?}"),
            &format!("roll --archive {archive:?} --keep 1 --name \"r\""),
            "session deactivate \"one\"",
            "session deactivate \"zwei\"",
            "delete \"one\" \"zwei\"",
        ],
    );
    tells(&["clone", "one", "cc", "--full", "--offline"], &["clone --full --offline \"one\" \"cc\""]);
    tells(
        &["archive", "merge", "--per", "year", "--before", "2100-01-01T00:00Z"],
        &["archive merge --per year --before \"2100-01-01 00:00:00 UTC\"; times gone: 1"],
    );
    mounted.ok(["roll", "--name", "r2"]);
    tells(&["archive", "prune", "--keep", "1"], &["archive prune --keep 1; times gone: 1"]);
    tells(&["archive", "detach"], &["archive detach"]);
    tells(&["roll", "--name", "q"], &["roll --name \"q\"", "session deactivate \"r2\""]);

    let store = dir.join("of source");
    let status = mounted.run(["create", store.to_str().unwrap(), "--from", source, "--exclude", "*.o"]).status;
    assert!(status.success());
    let history = mounted.ok([OsStr::new("-s"), store.as_os_str(), OsStr::new("history")]);
    assert!(
        history.contains(&format!("create --exclude \"*.o\" --from {source:?}")) && history.lines().count() == 2,
        "{history}"
    );
}

#[test]
fn the_mount_helper_says_how_it_is_used() {
    let helper = Path::new(env!("CARGO_MANIFEST_DIR")).join("mount-helper/mount.pitfs");
    for args in [&["store"][..], &["store", "dir", "more"], &["-q", "store", "dir"]] {
        let output = Command::new(&helper).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("usage: "), "{args:?}");
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    let mounted = Mounted::unmounted();
    let run = |args: &[&str]| {
        let output = mounted.command(args).env_remove("PITFS_STORE").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let (store, at) = (mounted.store(), mounted.snap());
    let (store, at) = (store.to_str().unwrap(), at.to_str().unwrap());
    assert!(run(&["mount", store]).contains("`pitfs mount STORE DIR`"));
    for options in ["bogus", "threads=0", "open=some"] {
        assert!(run(&["mount", store, at, "-o", options]).contains(&format!("-o {options}")), "{options}");
    }
}

#[test]
fn a_mount_through_the_mount_helper() {
    if !can_mount() || !is_root() {
        return eprintln!("not run: needs root and /dev/fuse");
    }
    let helper = Path::new(env!("CARGO_MANIFEST_DIR")).join("mount-helper/mount.pitfs");
    let mounted = Mounted::unmounted();
    let path = format!("{}:{}", Path::new(PITFS).parent().unwrap().display(), std::env::var("PATH").unwrap());
    let status = Command::new(helper)
        .arg(mounted.store())
        .arg(mounted.snap())
        .args(["-n", "-o", "rw,noatime,allow_other,nofail"])
        .env("PATH", path)
        .status();
    assert!(status.unwrap().success());
    fs::write(mounted.live().join("f"), b"1").unwrap();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts.lines().find(|line| line.contains(mounted.snap().to_str().unwrap())).unwrap();
    assert!(line.contains(" fuse.pitfs ") && line.contains("noatime") && line.contains("allow_other"), "{line}");
}
