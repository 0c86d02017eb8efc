//! `pitfs put` and `pitfs get`: what goes in as a tar archive comes out as one, and is what tar(1) makes of it.

mod mounted;

use mounted::*;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn tar(args: &[&str]) -> Option<Output> {
    let output = Command::new("tar").args(args).output().ok()?;
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(output)
}

/// A tree with one of everything.
fn sample(at: &Path) {
    fs::create_dir_all(at.join("directory/deep")).unwrap();
    fs::write(at.join("directory/deep/file"), "deep").unwrap();
    fs::write(at.join("empty"), "").unwrap();
    let large: Vec<u8> = (0..3_000_000u32).map(|number| (number / 7) as u8).collect();
    fs::write(at.join("large"), large).unwrap();
    fs::hard_link(at.join("large"), at.join("directory/other")).unwrap();
    symlink("../nowhere/at all", at.join("directory/link")).unwrap();
    let long = "n".repeat(200);
    fs::write(at.join(&long), "long name").unwrap();
    symlink("t".repeat(300), at.join("long link")).unwrap();
    let sparse = File::create(at.join("sparse")).unwrap();
    sparse.write_all_at(b"in the middle", 5 << 20).unwrap();
    sparse.write_all_at(&[1; 100_000], 9 << 20).unwrap();
    sparse.set_len(20 << 20).unwrap();
    assert!(Command::new("mkfifo").arg(at.join("fifo")).status().unwrap().success());
    fs::set_permissions(at.join("directory/deep/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(at.join("directory/deep"), fs::Permissions::from_mode(0o2711)).unwrap();
    rustix::fs::setxattr(at.join("empty"), "user.a", b"value \xff\0", rustix::fs::XattrFlags::empty()).unwrap();
    if is_root() {
        std::os::unix::fs::chown(at.join("directory/deep/file"), Some(12_345), Some(3_000_000)).unwrap();
        fs::set_permissions(at.join("directory/deep/file"), fs::Permissions::from_mode(0o4751)).unwrap();
        assert!(Command::new("mknod").arg(at.join("device")).args(["c", "7", "300"]).status().unwrap().success());
    }
    let _ = Command::new("setfacl").args(["-m", "u:77:rx,m::rx"]).arg(at.join("large")).status();
    // What was there before its directory had a list for what comes has none.
    fs::create_dir_all(at.join("listed/inner")).unwrap();
    fs::write(at.join("listed/inner/file"), "in it").unwrap();
    assert!(Command::new("mkfifo").arg(at.join("listed/fifo")).status().unwrap().success());
    let _ = Command::new("setfacl").args(["-m", "d:u:78:rwx"]).arg(at.join("listed")).status();
    let touch =
        Command::new("touch").args(["-h", "-d", "1965-01-02 03:04:05.123456789 UTC"]).arg(at.join("empty")).status();
    assert!(touch.unwrap().success());
    let touch = Command::new("touch").args(["-d", "2001-02-03 04:05:06.7 UTC"]).arg(at.join("directory/deep")).status();
    assert!(touch.unwrap().success());
}

/// What there is to know of all that is below a directory.
fn facts(root: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let found = path.symlink_metadata().unwrap();
            let content = match () {
                () if found.is_file() => format!("{:x}", xxhash_rust::xxh3::xxh3_64(&fs::read(&path).unwrap())),
                () if found.is_symlink() => format!("{:?}", fs::read_link(&path).unwrap()),
                () => String::new(),
            };
            let mut names = vec![0; 4096];
            let len = rustix::fs::llistxattr(&path, &mut names).unwrap_or(0);
            let mut xattrs: Vec<String> = Vec::new();
            for name in names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
                let mut value = vec![0; 4096];
                let len = rustix::fs::lgetxattr(&path, name, &mut value).unwrap();
                xattrs.push(format!("{}={:?}", String::from_utf8_lossy(name), &value[..len]));
            }
            xattrs.sort();
            let time = (found.mtime(), found.mtime_nsec());
            let size = if found.is_dir() { 0 } else { found.size() };
            let links = if found.is_dir() { 0 } else { found.nlink() };
            all.push(format!(
                "{:?} {:o} {} {} {} {size} {links} {time:?} {content} {xattrs:?}",
                path.strip_prefix(root).unwrap(),
                found.mode(),
                found.uid(),
                found.gid(),
                found.rdev(),
            ));
            if found.is_dir() {
                pending.push(path);
            }
        }
    }
    all.sort();
    all
}

fn put(mounted: &Mounted, archive: &Path, args: &[&str]) -> Output {
    mounted
        .command(std::iter::once("put").chain(args.iter().copied()))
        .stdin(File::open(archive).unwrap())
        .output()
        .unwrap()
}

fn get(mounted: &Mounted, archive: &Path, args: &[&str]) -> Output {
    let file = File::create(archive).unwrap();
    mounted.command(std::iter::once("get").chain(args.iter().copied())).stdout(file).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

fn paths(mounted: &Mounted) -> (PathBuf, PathBuf, PathBuf) {
    let at = |name| mounted.dir.path().join(name);
    (at("source"), at("in.tar"), at("out.tar"))
}

#[test]
fn what_goes_in_comes_out() {
    if !can_mount() {
        return;
    }
    for is_mounted in [false, true] {
        let mounted = Mounted::unmounted();
        let (source, archive, back) = paths(&mounted);
        sample(&source);
        let (from, to) = (source.to_str().unwrap(), archive.to_str().unwrap());
        let packed = [
            "--xattrs",
            "--xattrs-include=*",
            "--acls",
            "--numeric-owner",
            "-S",
            "--format=posix",
            "-C",
            from,
            "-cf",
            to,
            ".",
        ];
        let Some(_) = tar(&packed) else { return eprintln!("not run: tar is missing") };
        if is_mounted {
            mounted.mount(&[]);
        }
        let done = put(&mounted, &archive, &[]);
        assert!(done.status.success(), "{}", said(&done));
        mounted.ok(["snap", "one"]);
        if !is_mounted {
            mounted.mount(&[]);
        }
        assert_eq!(facts(&mounted.live()), facts(&source));
        assert!(mounted.live().join("sparse").metadata().unwrap().blocks() < 1000);
        if !is_mounted {
            mounted.umount();
        }
        let done = get(&mounted, &back, &["one"]);
        assert!(done.status.success(), "{}", said(&done));
        let out = mounted.dir.path().join("out");
        fs::create_dir(&out).unwrap();
        let (from, to) = (back.to_str().unwrap(), out.to_str().unwrap());
        tar(&["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-pxf", from, "-C", to]);
        assert_eq!(facts(&out), facts(&source));
        assert!(out.join("sparse").metadata().unwrap().blocks() < 1000);
        // A part of it.
        let done = get(&mounted, &back, &["one", "directory/deep", "empty"]);
        assert!(done.status.success(), "{}", said(&done));
        let listed = String::from_utf8(tar(&["-tf", back.to_str().unwrap()]).unwrap().stdout).unwrap();
        assert_eq!(listed.lines().collect::<Vec<_>>(), ["directory/deep/", "directory/deep/file", "empty"]);
        let missing = get(&mounted, &back, &["one", "nowhere"]);
        assert!(!missing.status.success() && said(&missing).contains("there is no"), "{}", said(&missing));
        if is_mounted {
            mounted.umount();
        }
        mounted.check();
    }
}

/// Entries as whoever wishes ill would write them.
fn hostile(archive: &Path) {
    let mut builder = tar::Builder::new(File::create(archive).unwrap());
    let mut add = |name: &[u8], kind: tar::EntryType, link: &[u8], data: &[u8]| {
        let mut header = tar::Header::new_ustar();
        let raw = header.as_old_mut();
        raw.name[..name.len()].copy_from_slice(name);
        raw.linkname[..link.len()].copy_from_slice(link);
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_cksum();
        builder.append(&header, data).unwrap();
    };
    use tar::EntryType as T;
    add(b"../outside", T::Regular, b"", b"x");
    add(b"way", T::Symlink, b"/", b"");
    add(b"way/inside", T::Regular, b"", b"x");
    add(b"a/../../b", T::Regular, b"", b"x");
    add(b"/absolute", T::Regular, b"", b"kept");
    add(b"link", T::Link, b"../../etc/passwd", b"");
    add(b"full", T::Directory, b"", b"");
    add(b"full/file", T::Regular, b"", b"kept");
    add(b"full", T::Regular, b"", b"in its place");
    add(b"\xff\xfe", T::Regular, b"", b"kept");
    add(b"strange", T::new(b'Q'), b"", b"");
    add(b"last", T::Regular, b"", b"kept");
    builder.finish().unwrap();
}

#[test]
fn what_cannot_be_made_is_said_and_the_rest_is_done() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let (_, archive, _) = paths(&mounted);
    hostile(&archive);
    fs::create_dir(mounted.live().join("into")).unwrap();
    fs::write(mounted.live().join("b"), "kept").unwrap();
    let done = put(&mounted, &archive, &["into", "--json"]);
    assert_eq!(done.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let problems: Vec<&str> =
        report["problems"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    assert_eq!(problems.len(), 6, "{problems:#?}");
    for about in ["../outside", "way/inside", "a/../../b", "link", "full", "strange"] {
        assert!(problems.iter().any(|problem| problem.starts_with(about)), "{about}: {problems:#?}");
    }
    let into = mounted.live().join("into");
    for kept in ["absolute", "full/file", "last"] {
        assert_eq!(fs::read(into.join(kept)).unwrap(), b"kept");
    }
    assert_eq!(fs::read(mounted.live().join("b")).unwrap(), b"kept");
    assert!(!mounted.live().join("outside").exists());
    // What is cut off is an error, and nothing half is left.
    let whole = fs::read(&archive).unwrap();
    fs::write(&archive, &whole[..whole.len() - 2200]).unwrap();
    let cut = put(&mounted, &archive, &["cut"]);
    assert_eq!(cut.status.code(), Some(1));
    fs::write(&archive, b"no archive at all, which is what this is").unwrap();
    let none = put(&mounted, &archive, &[]);
    assert!(!none.status.success() && said(&none).contains("tar archive"), "{}", said(&none));
    mounted.umount();
    mounted.check();
}

/// A header with a name and these changes to it, the records in front of it, and no bytes.
fn entry(name: &str, records: &[(&str, &[u8])], change: impl FnOnce(&mut tar::Header)) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_pax_extensions(records.iter().copied()).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_path(name).unwrap();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_size(0);
    change(&mut header);
    header.set_cksum();
    archive.append(&header, &b""[..]).unwrap();
    archive.into_inner().unwrap().split_last_chunk::<1024>().unwrap().0.to_vec()
}

#[test]
fn what_makes_no_sense_is_not_taken_for_nothing() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let (_, archive, _) = paths(&mounted);
    let device = |header: &mut tar::Header| {
        header.set_entry_type(tar::EntryType::Char);
        header.set_device_major(0o10000).unwrap();
        header.set_device_minor(1).unwrap();
    };
    let wrong = [
        entry("owner", &[], |header| header.as_old_mut().uid = *b"nobody\0\0"),
        entry("large owner", &[], |header| header.set_uid(1 << 32)),
        entry("time", &[], |header| header.as_old_mut().mtime[0] = b'x'),
        entry("mode", &[], |header| header.as_old_mut().mode[2] = b'9'),
        entry("recorded owner", &[("uid", b"-1")], |_| {}),
        entry("recorded time", &[("mtime", b"yesterday")], |_| {}),
        entry("list", &[("SCHILY.acl.access", b"user::rwx,\xff")], |_| {}),
        entry("raw list", &[("SCHILY.xattr.system.posix_acl_access", b"no list")], |_| {}),
        entry("device", &[], device),
        entry(".", &[], |_| {}),
    ];
    let right = [
        entry("blank", &[], |header| {
            (header.as_old_mut().uid, header.as_old_mut().gid) = ([b' '; 8], [0; 8]);
        }),
        entry("unsaid", &[("mtime", b""), ("path", b""), ("uid", b"")], |_| {}),
    ];
    let end = vec![0; 1024];
    let all: Vec<u8> = wrong.iter().chain(&right).chain([&end]).flatten().copied().collect();
    fs::write(&archive, &all).unwrap();
    let done = put(&mounted, &archive, &["into", "--json"]);
    assert_eq!(done.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let problems: Vec<&str> =
        report["problems"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    assert_eq!(problems.len(), wrong.len(), "{problems:#?}");
    let into = mounted.live().join("into");
    for name in
        ["owner", "large owner", "time", "mode", "recorded owner", "recorded time", "list", "raw list", "device", "."]
    {
        assert!(problems.iter().any(|problem| problem.starts_with(&format!("{name}: "))), "{name}: {problems:#?}");
    }
    // A file of which a list could not be set is there without it.
    let there: std::collections::BTreeSet<String> =
        fs::read_dir(&into).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(there.into_iter().collect::<Vec<_>>(), ["blank", "raw list", "unsaid"]);
    assert_eq!(into.join("unsaid").metadata().unwrap().mtime(), 1);
    // A size that makes no sense: what follows cannot be told apart from it.
    fs::write(&archive, [entry("size", &[("size", b"many")], |_| {}), end].concat()).unwrap();
    let none = put(&mounted, &archive, &["sizes"]);
    assert!(!none.status.success() && said(&none).contains("tar archive"), "{}", said(&none));
    // What ends where a file ends may lack others.
    for (cut, files) in [(&right.concat()[..], 2), (&b""[..], 0)] {
        fs::write(&archive, cut).unwrap();
        let cut = put(&mounted, &archive, &["cut", "--json"]);
        assert_eq!(cut.status.code(), Some(1));
        let report: serde_json::Value = serde_json::from_slice(&cut.stdout).unwrap();
        assert_eq!(report["files"], files);
        assert!(said(&cut).contains("it has no end"), "{}", said(&cut));
    }
    mounted.umount();
    mounted.check();
}

#[test]
fn who_does_not_read_or_write_any_more_ends_it() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::write(mounted.live().join("file"), vec![1; 3 << 20]).unwrap();
    mounted.ok(["snap", "one"]);
    // A pipe that nobody reads: the command is killed, and the daemon goes on.
    let mut child = mounted.command(["get", "one"]).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    child.kill().unwrap();
    child.wait().unwrap();
    let mut child = mounted.command(["put"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(&[0; 100]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    // Nobody else is kept out by what was left.
    let (source, archive, _) = paths(&mounted);
    fs::create_dir(&source).unwrap();
    fs::write(source.join("f"), "kept").unwrap();
    let Some(_) = tar(&["-C", source.to_str().unwrap(), "-cf", archive.to_str().unwrap(), "."]) else { return };
    let done = put(&mounted, &archive, &[]);
    assert!(done.status.success(), "{}", said(&done));
    assert_eq!(fs::read(mounted.live().join("f")).unwrap(), b"kept");
    mounted.umount();
    mounted.check();
}
