//! Names that somebody else chose reach no terminal, no log and no history as they are, and JSON has all their bytes.

mod mounted;

use mounted::*;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// What a name can do to a terminal: set its title, begin an escape with one byte, turn what follows around, end a line and
/// make up one. It is UTF-8.
const TEXT: &str = "\u{1b}]0;a\u{7}\u{9b}\u{202e}\u{2066}\u{200f}\u{61c}\r\npitfs: forged\u{85}\u{7f}";

/// The same with a byte that is not.
fn odd() -> OsString {
    OsString::from_vec([TEXT.as_bytes(), b"\xff"].concat())
}

/// A store, with all that belongs to it in a directory of such a name.
fn odd_store() -> Mounted {
    let mounted = Mounted { dir: guarded(tempfile::Builder::new().prefix(TEXT).tempdir().unwrap()) };
    fs::create_dir(mounted.snap()).unwrap();
    mounted.ok([OsStr::new("create"), mounted.store().as_os_str(), "--track-size=16K".as_ref()]);
    mounted
}

fn does_something(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t'))
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}')
}

/// Fails where text for people has something of [`odd`] in it as it is.
fn check_text(what: &str, text: &[u8]) {
    let text = std::str::from_utf8(text).unwrap_or_else(|error| panic!("{what}: {error}: {text:?}"));
    assert!(!text.chars().any(does_something), "{what}: {text:?}");
    assert!(!text.lines().any(|line| line.starts_with("pitfs: forged")), "{what}: {text:?}");
}

/// Runs a command, whatever comes of it, as text and as JSON; what it printed as JSON, if it did.
fn run(mounted: &Mounted, args: &[&OsStr]) -> Option<Value> {
    let mut printed = None;
    for json in [false, true] {
        let all = json.then_some(OsStr::new("--json")).into_iter().chain(args.iter().copied());
        let output = mounted.command(all).current_dir(mounted.dir.path()).env("COLUMNS", "1000").output().unwrap();
        let what = format!("{args:?}, json: {json}");
        check_text(&what, &output.stdout);
        check_text(&what, &output.stderr);
        assert!(output.status.code().is_some_and(|code| code <= 2), "{what}: {:?}", output.status);
        printed = serde_json::from_slice(&output.stdout).ok();
        assert!(!json || printed.is_some() || !output.status.success(), "{what}: {output:?}");
    }
    printed
}

/// The bytes of a path in JSON.
fn bytes_of(value: &Value, name: &str) -> Vec<u8> {
    match value[format!("{name}_hex")].as_str() {
        Some(hex) => hex.as_bytes().chunks(2).map(digits).collect(),
        None => value[name].as_str().unwrap_or_else(|| panic!("{name} of {value}")).as_bytes().to_vec(),
    }
}

fn digits(two: &[u8]) -> u8 {
    u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()
}

/// The paths of a list in JSON, as they were.
fn paths_of(list: &Value, name: &str) -> BTreeSet<PathBuf> {
    list.as_array().unwrap().iter().map(|one| PathBuf::from(OsString::from_vec(bytes_of(one, name)))).collect()
}

/// The words of a command line, with such names where it says so.
fn words(line: &str) -> Vec<OsString> {
    line.split(' ')
        .map(|word| {
            OsString::from_vec(replaced(replaced(word.into(), "ODD", odd().as_bytes()), "TEXT", TEXT.as_bytes()))
        })
        .collect()
}

fn replaced(bytes: Vec<u8>, what: &str, by: &[u8]) -> Vec<u8> {
    match bytes.windows(what.len()).position(|part| part == what.as_bytes()) {
        Some(at) => [&bytes[..at], by, &bytes[at + what.len()..]].concat(),
        None => bytes,
    }
}

/// Each command with such a name in each place. Most refuse it, and say so.
const COMMANDS: &[&str] = &[
    "ODD",
    "--ODD",
    "--x=ODD",
    "-ODD",
    "snap ODD",
    "snap TEXT",
    "snap a\u{202e}b",
    "snap --group ODD",
    "snap s --ODD",
    "snap s ODD TEXT",
    "save ODD",
    "list",
    "list --columns ODD",
    "list --columns=ODD",
    "-s ODD list",
    "-s ODD:ODD list",
    "-s .:ODD status",
    "hold a\u{202e}b",
    "hold ODD",
    "hold ODD --tag ODD",
    "hold s --tag ODD",
    "hold s --tag TEXT",
    "release ODD",
    "release a\u{202e}b --tag ODD",
    "release a\u{202e}b",
    "rename ODD ODD",
    "rename s ODD",
    "rename s TEXT",
    "delete ODD",
    "delete @ODD",
    "delete @TEXT -n",
    "diff ODD",
    "diff TEXT live",
    "diff s live ODD",
    "diff s live nothing/ODD",
    "diff s live --tracks",
    "diff s live --tracks --range ODD",
    "versions ODD",
    "versions TEXT",
    "versions snap/live/ODD",
    "base create TEXT",
    "base create ODD",
    "base create b\u{202e}b",
    "base rename ODD ODD",
    "base wait ODD",
    "base delete TEXT",
    "base list",
    "group create ODD live b\u{202e}b",
    "group create g\u{202e}g live b\u{202e}b",
    "group list",
    "group delete ODD",
    "session register TEXT",
    "session register ODD",
    "session register x\u{202e}x",
    "session list",
    "session relate ODD",
    "session relate x\u{202e}x",
    "session activate ODD",
    "session offline TEXT",
    "session deactivate ODD",
    "session deactivate x\u{202e}x",
    "session tracks ODD",
    "session read ODD ODD",
    "session read a\u{202e}b ODD",
    "clone s ODD",
    "clone ODD c",
    "clone s c\u{202e}c",
    "promote ODD",
    "mirror establish ODD m",
    "mirror establish live ODD",
    "mirror sync ODD",
    "mirror sync TEXT --dry-run",
    "restore ODD",
    "restore TEXT ODD",
    "restore s ODD -n",
    "restore s ../ODD",
    "restore s nothing/ODD",
    "restore s snap/live/ODD -n",
    "restore s --to ODD",
    "restore s ODD --to out",
    "restore s nothing --to ODD",
    "restore @ODD",
    "restore --last --group ODD",
    "roll --archive ODD --name ODD",
    "roll --archive source",
    "roll --archive TEXT --group ODD",
    "roll --archive archive --name r\u{202e}r",
    "archive list",
    "archive verify",
    "archive attach ODD",
    "archive attach source",
    "archive attach ODD/TEXT",
    "archive detach ODD",
    "archive prune --keep ODD",
    "archive prune --before ODD",
    "archive merge --per ODD",
    "archive join ODD",
    "archive join source",
    "policy --when-full ODD",
    "policy --before-restore ODD",
    "sync ODD",
    "sync TEXT",
    "sync source/ODD",
    "sync source ODD -n",
    "sync source ../ODD",
    "sync source f/ODD",
    "sync source --exclude=ODD -n",
    "sync source --exclude [ODD",
    "sync source",
    "create source",
    "create ODD",
    "create new --from ODD",
    "create new --track-size ODD",
    "create new --compress ODD",
    "create source/ODD/new",
    "mount ODD ODD",
    "mount new ODD",
    "mount store source/ODD",
    "mount store source",
    "mount store snap -o ODD",
    "mount store snap -o threads=ODD",
    "mount store:ODD source/empty",
    "mount source source/empty",
    "umount ODD",
    "umount source/ODD",
    "umount source",
    "upgrade",
    "upgrade --archive ODD",
    "completions ODD",
    "companion ODD",
    "status",
    "check",
    "history",
    "list --all",
];

/// Bytes that cannot be compressed, of several blocks.
fn random() -> Vec<u8> {
    (0..6_000u64).flat_map(|number| xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes()).to_le_bytes()).collect()
}

/// What a store has to do with, outside of it.
fn fill(mounted: &Mounted) {
    let path = |name: &str| mounted.dir.path().join(name);
    for name in ["source", "source/empty", "archive"] {
        fs::create_dir(path(name)).unwrap();
    }
    fs::create_dir(path("source").join(odd())).unwrap();
    fs::write(path("source/f"), random()).unwrap();
    fs::write(path("source").join(TEXT), "text").unwrap();
    fs::write(path("source").join(odd()).join(odd()), "more").unwrap();
    for step in ["snap s", "sync source", "roll --archive archive --name t"] {
        let output = mounted.command(words(step)).current_dir(mounted.dir.path()).output().unwrap();
        assert!(output.status.success(), "{step}: {output:?}");
    }
    let increment = [b"0000000009-", odd().as_bytes(), b".increment"].concat();
    fs::write(path("archive").join(OsString::from_vec(increment)), "none").unwrap();
}

#[test]
fn no_command_shows_a_name_as_it_is() {
    for is_mounted in [false, true].into_iter().filter(|is_mounted| !is_mounted || can_mount()) {
        let mounted = odd_store();
        fill(&mounted);
        if is_mounted {
            mounted.mount(&[]);
        }
        for line in COMMANDS {
            let words = words(line);
            run(&mounted, &words.iter().map(OsString::as_os_str).collect::<Vec<_>>());
            assert!(!is_mounted || is_mount_point(&mounted.snap()), "{line:?}");
        }
        if is_mounted {
            mounted.umount();
        }
    }
}

#[test]
fn the_log_has_no_name_as_it_is() {
    if !can_mount() {
        return;
    }
    let mounted = odd_store();
    fill(&mounted);
    let increments = || fs::read_dir(mounted.dir.path().join("archive")).unwrap().map(|entry| entry.unwrap().path());
    fs::write(mounted.dir.path().join("source/f"), "f").unwrap();
    mounted.ok(["sync".as_ref(), mounted.dir.path().join("source").as_os_str()]);
    mounted.ok(["roll", "--keep", "1"]);
    for increment in increments().filter(|path| path.extension().is_some_and(|end| end == "increment")) {
        let mut bytes = fs::read(&increment).unwrap();
        if bytes.len() < 40_000 {
            continue;
        }
        // In the blocks of that file.
        bytes.iter_mut().take(40_000).skip(10_000).step_by(1_000).for_each(|byte| *byte ^= 1);
        fs::write(&increment, bytes).unwrap();
    }
    mounted.mount(&[]);
    // What is in the archive cannot be read, which the daemon says with the name of the file.
    fs::read(mounted.snap().join("t/f")).unwrap_err();
    mounted.umount();
    let log = fs::read(mounted.store().join("log")).unwrap();
    check_text("log", &log);
    assert!(String::from_utf8_lossy(&log).contains("\\x1b]0;a"), "{log:?}");
}

#[test]
fn json_gives_names_back() {
    let mounted = odd_store();
    fill(&mounted);
    let json = |args: &str| run(&mounted, &words(args).iter().map(OsString::as_os_str).collect::<Vec<_>>()).unwrap();
    let found = paths_of(&json("diff s live"), "path");
    let odd_path = Path::new(&odd()).join(odd());
    for path in [Path::new(TEXT), &odd_path] {
        assert!(found.contains(path), "{path:?} in {found:?}");
    }
    let status = json("status");
    assert_eq!(bytes_of(&status, "store"), mounted.store().as_os_str().as_bytes());
    let directory = mounted.dir.path().join("archive");
    assert_eq!(bytes_of(&status["archives"][0], "directory"), directory.as_os_str().as_bytes());
    run(&mounted, &words("snap a\u{202e}b").iter().map(OsString::as_os_str).collect::<Vec<_>>());
    let names = json("list");
    assert!(names.as_array().unwrap().iter().any(|snapshot| snapshot["name"] == "a\u{202e}b"), "{names}");
}

#[test]
fn what_is_damaged_is_named_without_effect() {
    let mounted = odd_store();
    let source = mounted.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    let data = random();
    fs::write(source.join(odd()), &data).unwrap();
    let store = mounted.dir.path().join("other");
    let made = ["create", "--compress=none", "--from"].map(OsStr::new);
    mounted.ok(made.into_iter().chain([source.as_os_str(), store.as_os_str()]));
    let volume = store.join("volume.0");
    let mut bytes = fs::read(&volume).unwrap();
    let at = bytes.windows(64).position(|part| part == &data[..64]).unwrap();
    bytes[at + 9] ^= 1;
    fs::write(&volume, bytes).unwrap();
    let found = run(&mounted, &["-s".as_ref(), store.as_os_str(), "check".as_ref()]).unwrap();
    let path = bytes_of(&found["problems"][0]["paths"][0], "path");
    assert!(path.ends_with(odd().as_bytes()), "{found}");
    for command in ["roll", "restore s --to out", "diff s live", "versions ODD"] {
        let words = words(command);
        let args = [OsStr::new("-s"), store.as_os_str()].into_iter().chain(words.iter().map(OsString::as_os_str));
        run(&mounted, &args.collect::<Vec<_>>());
    }
}

/// Uses of lossy text that are not for people: names that records hold as text, and texts that are compared.
const NOT_SHOWN: &[(&str, usize)] = &[
    ("archive.rs", 1),
    ("archive/index.rs", 1),
    ("cli/commands.rs", 1),
    ("control/serve/base.rs", 1),
    ("control/serve/rehearse.rs", 1),
    ("control/serve/restore.rs", 1),
    ("daemon.rs", 1),
    ("daemon/identity.rs", 1),
    ("daemon/lock.rs", 1),
    ("view.rs", 2),
    ("view/group.rs", 1),
    ("view/session.rs", 1),
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false => found.push(path),
        }
    }
}

/// The lines of the program, without its tests, in which one of these words is; by file.
fn lines_with(words: &[&str]) -> Vec<(String, Vec<String>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let lines = |file: &PathBuf| {
        let source = fs::read_to_string(file).unwrap();
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        let found = code.lines().filter(|line| words.iter().any(|word| line.contains(word)));
        let found: Vec<String> = found.map(|line| line.trim().to_string()).collect();
        let name = file.strip_prefix(&root).unwrap().to_str().unwrap().to_string();
        (!found.is_empty() && !name.contains("/tests")).then_some((name, found))
    };
    let mut found: Vec<_> = files.iter().filter_map(lines).collect();
    found.sort();
    found
}

#[test]
fn names_become_text_in_one_place() {
    let found = lines_with(&[".display()"]);
    assert!(found.is_empty(), "`shown_file` is for that: {found:#?}");
    for (file, lines) in lines_with(&["from_utf8_lossy", "to_string_lossy"]) {
        let known = NOT_SHOWN.iter().find(|(name, _)| *name == file).map_or(0, |(_, known)| *known);
        assert_eq!(lines.len(), known, "`shown` is for what people read; {file}: {lines:#?}");
    }
}

#[test]
fn text_is_printed_in_one_place() {
    for (file, lines) in lines_with(&["print!(", "println!(", "dbg!("]) {
        assert_eq!(file, "cli/output.rs", "functions of cli/output.rs are for that: {lines:#?}");
    }
}
