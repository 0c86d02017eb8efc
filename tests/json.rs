//! `--json`: of every command, and of errors.

mod mounted;

use mounted::*;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn value(text: &str, args: &[&str]) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{args:?}: {error}\n{text}"))
}

/// Runs one command after the other; the verbs that were tried.
fn run_all(mounted: &Mounted, steps: &[&[&str]]) -> BTreeSet<String> {
    let mut tried = BTreeSet::new();
    for (at, step) in steps.iter().enumerate() {
        // The option stands before the command or behind it.
        let args: Vec<&str> =
            if at % 2 == 0 { [&["--json"], *step].concat() } else { [step, &["--json"][..]].concat() };
        let output = mounted.run(&args);
        let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{args:?}: {said}\n{text}");
        check_spelling(&value(&text, &args), &args);
        let is_word =
            |word: &&&str| !word.starts_with('-') && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        let words = step.iter().take_while(is_word);
        let words: Vec<&str> = words.copied().collect();
        tried.extend((1..=words.len().min(2)).map(|count| words[..count].join(" ")));
    }
    tried
}

/// A time is never without its numbers, a size is in bytes and says so, and paths are not in lists of text.
fn check_spelling(value: &Value, args: &[&str]) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                assert!(!name.contains("size") || name.ends_with("_bytes"), "{args:?}: {name}");
                assert!(!name.starts_with("is_") && (name != "paths" || !field[0].is_string()), "{args:?}: {name}");
                let is_time = field.as_str().is_some_and(|text| text.ends_with(" UTC") && text.len() == 23);
                let before = if name == "time" { String::new() } else { format!("{name}_") };
                for number in ["seconds", "nanoseconds"] {
                    let found = &fields.get(&format!("{before}{number}"));
                    assert!(!is_time || found.is_some_and(Value::is_i64), "{args:?}: {name} has no {number}");
                }
                check_spelling(field, args);
            }
        }
        Value::Array(all) => all.iter().for_each(|value| check_spelling(value, args)),
        _ => {}
    }
}

#[test]
fn every_command_says_in_json_what_it_did() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let path = |name: &str| mounted.dir.path().join(name).to_str().unwrap().to_string();
    let (other, at, source, out) = (path("other"), path("at"), path("source"), path("out"));
    let (archive, target) = (path("archive"), path("target"));
    let (safe, key, another) = (path("safe"), path("key"), path("another key"));
    fs::create_dir(&safe).unwrap();
    fs::create_dir(&target).unwrap();
    fs::create_dir(&at).unwrap();
    fs::create_dir(&source).unwrap();
    fs::write(Path::new(&source).join("f"), [2; 50_000]).unwrap();
    fs::write(mounted.live().join("f"), [1; 50_000]).unwrap();
    let mut tried = run_all(
        &mounted,
        &[
            &["create", &other],
            &["mount", &other, &at],
            &["umount", &at],
            &["upgrade", "-s", &other],
            &["snap", "s"],
            &["snap", "t"],
            &["save", "u"],
            &["rename", "t", "v"],
            &["hold", "v"],
            &["release", "v"],
            &["list"],
            &["delete", "v", "-n"],
            &["delete", "v"],
            &["diff", "s"],
            &["diff", "s", "live", "--tracks"],
            &["versions", "f"],
            &["history"],
            &["status"],
            &["metrics"],
            &["doctor"],
            &["check"],
            &["policy", "--when-full", "refuse"],
            &["clone", "s", "c"],
            &["clone", "c", "s", "--refresh"],
            &["rename", "c", "d"],
            &["promote", "d", "--wait"],
            &["base", "create", "b"],
            &["base", "rename", "b", "bb"],
            &["base", "wait", "bb"],
            &["base", "list"],
            &["group", "create", "g", "live", "bb"],
            &["group", "list"],
            &["snap", "both", "--group", "g"],
            &["group", "delete", "g"],
            &["base", "delete", "bb"],
            &["mirror", "establish", "live", "m"],
            &["mirror", "sync", "m"],
            &["mirror", "split", "m"],
            &["mirror", "resync", "m"],
            &["mirror", "split", "m"],
            &["mirror", "restore", "m"],
            &["delete", "m"],
            &["session", "register", "x"],
            &["session", "relate", "x"],
            &["session", "list"],
            &["session", "activate", "x"],
            &["session", "offline", "x"],
            &["session", "online", "x"],
            &["restore", "s", "--to", &out],
            &["sync", &source],
            &["session", "deactivate", "x"],
            &["session", "tracks", "x"],
            &["session", "read", "x", "f"],
            &["restore", "s"],
            &["restore", "s", "f"],
            &["undo", "-n"],
            &["undo"],
            &["undo"],
            &["roll", "--archive", &archive, "--name", "r1"],
            &["roll", "--name", "r2"],
            &["archive", "list"],
            &["archive", "verify"],
            &["archive", "prune", "--keep", "1", "-n"],
            &["archive", "merge", "--per", "day", "-n"],
            &["archive", "detach"],
            &["archive", "attach", &archive],
            &["target", "add", "usb", &target, "--no-encryption"],
            &["target", "list"],
            &["backup"],
            &["job", "list"],
            &["job", "show", "1"],
            &["job", "wait", "1"],
            &["set", "list"],
            &["set", "verify"],
            &["snap", "t1"],
            &["backup"],
            &["snap", "t2"],
            &["backup"],
            &["set", "merge", "t1", "t2"],
            &["set", "delete", "t2", "-n"],
            &["target", "prune", "--keep-last", "1"],
            &["set", "compact"],
            &["set", "rebuild"],
            &["set", "repair"],
            &["target", "forget", "usb"],
            &["target", "add", "safe", &safe, "--key-file", &key],
            &["target", "keys"],
            &["target", "add-key", "--key-file", &another],
            &["target", "remove-key", "0"],
        ],
    );
    // What needs increments elsewhere answers as `archive attach` does.
    tried.insert("archive join".to_string());
    // Nothing here takes so long, or comes through a pipe: `tests/jobs.rs` and `tests/transfer.rs` have them.
    tried.extend(["job pause", "job resume", "job cancel", "set receive"].map(str::to_string));
    // Their archive is the input, and the output: `tests/streams.rs` has them.
    tried.extend(["put", "get"].map(str::to_string));
    let mut command = pitfs::cli::command();
    command.build();
    let mut missing = Vec::new();
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let of_its_own = verb.get_subcommands().map(|part| format!("{} {}", verb.get_name(), part.get_name()));
        let names: Vec<String> = std::iter::once(verb.get_name().to_string()).chain(of_its_own).collect();
        missing.extend(names.into_iter().filter(|name| !tried.contains(name)));
    }
    assert!(missing.is_empty(), "not tried: {missing:?}");
}

#[test]
fn errors_are_json_where_that_is_wanted() {
    let mounted = Mounted::unmounted();
    mounted.ok(["snap", "s", "--hold"]);
    let store = mounted.store();
    let (store, at) = (store.to_str().unwrap(), mounted.dir.path().to_str().unwrap());
    fs::create_dir_all(mounted.snap().join("full/of")).unwrap();
    let (full, file) = (format!("{at}/snap/full"), format!("{store}/meta.redb"));
    let (full, file) = (full.as_str(), file.as_str());
    for (status, errno, args) in [
        (1, "ENOENT", &["--json", "restore", "none"][..]),
        (1, "EBUSY", &["delete", "s", "--json"]),
        (1, "EEXIST", &["--json", "snap", "s"]),
        (1, "ENOENT", &["session", "relate", "none", "--json"]),
        (1, "ENOENT", &["list", "--json", "-s", "/none/such"]),
        (1, "ENOENT", &["roll", "--json", "--archive", "/proc/1/none"]),
        (2, "EINVAL", &["--json", "no-such-command"]),
        (2, "EINVAL", &["archive", "prune", "--json"]),
        (2, "EINVAL", &["list", "--json", "--sort", "colour"]),
        (2, "EINVAL", &["mount", "--json", "-o", "bogus", store, at]),
        (1, "ENOENT", &["mount", "--json", store, "/none/such"]),
        (1, "ENOTEMPTY", &["mount", "--json", store, full]),
        (1, "ENOTDIR", &["mount", "--json", store, file]),
        (1, "ENOENT", &["mount", "--json", "/none/such", at]),
    ] {
        let output = mounted.run(args);
        assert_eq!(output.status.code(), Some(status), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        let error = value(said.lines().last().unwrap_or_default(), args);
        assert_eq!(error["error"]["errno"], errno, "{said}");
        assert!(!error["error"]["message"].as_str().unwrap().is_empty() && error["error"]["number"].is_i64());
    }
    // Help and the version are what they are.
    assert!(mounted.ok(["--json", "--version"]).starts_with("pitfs "));
}

#[test]
fn paths_that_are_no_text_are_told_with_all_their_bytes() {
    if !can_mount() {
        return;
    }
    use std::os::unix::ffi::OsStrExt;
    let mounted = Mounted::new();
    mounted.ok(["snap", "s"]);
    for name in [&b"odd \xff"[..], b"plain"] {
        fs::write(mounted.live().join(std::ffi::OsStr::from_bytes(name)), b"x").unwrap();
    }
    let found = mounted.json(&["diff", "s"]);
    let (odd, plain) = (&found[0], &found[1]);
    assert_eq!((&odd["path"], &odd["path_hex"]), (&"odd \\xff".into(), &"6f646420ff".into()));
    assert_eq!((&plain["path"], &plain["path_hex"]), (&"plain".into(), &Value::Null));
    assert_eq!(plain["size_after_bytes"], 1);
    assert_eq!(plain["size_before_bytes"], Value::Null);

    // Outside the store as well.
    let odd_directory = |name: &[u8]| mounted.dir.path().join(std::ffi::OsStr::from_bytes(name));
    let (source, archive) = (odd_directory(b"from \xfe"), odd_directory(b"to \xfd"));
    fs::create_dir(&source).unwrap();
    fs::write(source.join(std::ffi::OsStr::from_bytes(b"\xfc")), b"new").unwrap();
    let run = |args: &[&std::ffi::OsStr]| {
        let output = mounted.run([&[std::ffi::OsStr::new("--json")], args].concat());
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let os = std::ffi::OsStr::new;
    let planned = &run(&[os("sync"), os("-n"), source.as_os_str()])["planned"];
    let find = |what: &str| planned.as_array().unwrap().iter().find(|one| one["what"] == what).unwrap().clone();
    assert_eq!((&find("add")["path"], &find("add")["path_hex"]), (&"\\xfc".into(), &"fc".into()));
    let hex_of = |path: &Path| path.as_os_str().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let rolled = run(&[os("roll"), os("--archive"), archive.as_os_str()]);
    assert_eq!(rolled["archive_hex"], hex_of(&archive));
    assert_eq!(run(&[os("status")])["archives"][0]["directory_hex"], hex_of(&archive));
    let listed = run(&[os("archive"), os("list")]);
    assert!(listed[0]["increments"][0]["file_hex"].as_str().unwrap().starts_with(&hex_of(&archive)));
    let out = odd_directory(b"out \xfb");
    let restored = run(&[os("restore"), os("s"), os("--to"), out.as_os_str()]);
    assert_eq!(restored["directory_hex"], hex_of(&out));
    let store = odd_directory(b"store \xfa");
    assert_eq!(run(&[os("create"), store.as_os_str()])["store_hex"], hex_of(&store));
    assert_eq!(run(&[os("-s"), store.as_os_str(), os("status")])["store_hex"], hex_of(&store));
}

/// JSON can say all that is text.
#[test]
fn paths_that_are_text_are_told_as_they_are() {
    let mounted = Mounted::unmounted();
    let source = mounted.dir.path().join("so\\urce\n");
    fs::create_dir(&source).unwrap();
    let odd = ["a\\b", "tab\t", "line\n\"quoted\"", "\u{7f}\u{1}", "plain ä"];
    for name in odd {
        fs::write(source.join(name), b"x").unwrap();
    }
    let planned = mounted.json(&["sync", "-n", source.to_str().unwrap()]);
    let mut found = BTreeSet::new();
    for one in planned["planned"].as_array().unwrap() {
        assert!(one["path_hex"].is_null(), "{one}");
        found.insert(one["path"].as_str().unwrap());
    }
    assert_eq!(found, BTreeSet::from(odd));
    mounted.ok(["snap", "back\\slash"]);
    let renamed = mounted.json(&["rename", "back\\slash", "other\\"]);
    assert_eq!((&renamed["was"], &renamed["name"]), (&"back\\slash".into(), &"other\\".into()));
    // In text they have escapes.
    assert!(mounted.ok(["sync", "-n", source.to_str().unwrap()]).contains("add a\\\\b\n"));
}

#[test]
fn a_restore_is_told_in_one_form() {
    let Some(_) = can_mount().then_some(()) else { return };
    let mounted = Mounted::new();
    let archive = mounted.dir.path().join("archive");
    fs::write(mounted.live().join("f"), [1; 50_000]).unwrap();
    for name in ["archived", "stored"] {
        mounted.ok(["roll", "--archive", archive.to_str().unwrap(), "--keep", "1", "--name", name]);
        fs::write(mounted.live().join("f"), name).unwrap();
    }
    let list = mounted.json(&["list"]);
    assert_eq!((&list[0]["state"], &list[0]["refers_bytes"]), (&"archived".into(), &Value::Null));
    assert!(list[1]["refers_bytes"].is_u64());
    let mut keys = BTreeSet::new();
    for (args, is_counted) in [(&["stored"][..], false), (&["archived"], true), (&["stored", "f"], true)] {
        let args = [&["restore"], args].concat();
        let (done, again) = (mounted.json(&args), mounted.json(&args));
        for told in [&done, &again] {
            keys.insert(told.as_object().unwrap().keys().cloned().collect::<Vec<_>>());
            assert_eq!((&told["restored"]["name"], &told["problems"]), (&args[1].into(), &Value::Array(Vec::new())));
            assert_eq!(told["files"].is_u64(), is_counted, "{told}");
        }
        assert_eq!(done["before"]["purpose"], "before-restore", "{args:?}");
        assert_eq!(again["before"], Value::Null, "{args:?}");
    }
    assert_eq!(keys.len(), 1, "{keys:?}");
}

#[test]
fn a_time_that_is_missing_has_the_fields_of_a_snapshot() {
    let mounted = Mounted::unmounted();
    let archive = mounted.dir.path().join("archive");
    for name in ["a", "b"] {
        mounted.ok(["roll", "--archive", archive.to_str().unwrap(), "--keep", "1", "--name", name]);
    }
    fs::rename(&archive, archive.with_extension("away")).unwrap();
    let list = mounted.json(&["list"]);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let (missing, there) = (&list[0], &list[1]);
    assert_eq!((&missing["state"], &there["state"]), (&"missing".into(), &"active".into()));
    let more: Vec<String> = keys(missing).symmetric_difference(&keys(there)).cloned().collect();
    assert_eq!(more, ["problems"]);
}
