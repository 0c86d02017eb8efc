//! The code is as it is said to be: which file is where, how long things are, who calls whom, and what is done in one place only.

mod sources;

use sources::{read, rust_files};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The map of the code names each file in one room, by itself or with its folder, and nothing that is not there.
#[test]
fn each_file_has_its_room() {
    let text = read("docs/code.md");
    assert!(text.lines().count() <= 150, "it is a map, not a book");
    let rooms = text.split("## Rooms").nth(1).unwrap().split("\n## ").next().unwrap();
    let lines = rooms.lines().filter(|line| line.starts_with("| `"));
    let named: Vec<&str> = lines
        .flat_map(|line| line.split('|').nth(1).unwrap().split('`'))
        .filter(|part| part.ends_with(".rs") || part.ends_with('/'))
        .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for room in &named {
        assert!(root.join(room).exists(), "there is no {room}");
    }
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    for file in files {
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap();
        let is_in = |room: &&&str| match room.strip_suffix('/') {
            // A folder, with its face.
            Some(folder) => path.starts_with(**room) || path.strip_suffix(".rs") == Some(folder),
            None => path == **room,
        };
        assert_eq!(named.iter().filter(is_in).count(), 1, "the rooms of {path}");
    }
}

/// A thread of the mount has nothing of where the one runs that began it: that is taken off in one place.
#[test]
fn threads_of_the_mount_begin_in_one_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/fuse");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    files.push(root.with_extension("rs"));
    for file in files.iter().filter(|file| !file.ends_with("fuse/thread.rs")) {
        let code = program(&fs::read_to_string(file).unwrap());
        let begins = ["thread::spawn(", "thread::Builder", "thread::scope("].iter().find(|call| code.contains(**call));
        assert!(begins.is_none(), "{} has {begins:?}: thread.rs begins threads", file.display());
    }
}

/// What a test that mounts makes is gone after it, also when it is killed: its directories come from one place.
#[test]
fn what_tests_that_mount_make_is_guarded() {
    const UNGUARDED: &str = concat!("tempfile::", "tempdir()");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let has_guard = |face: &Path| {
        fs::read_to_string(face).is_ok_and(|text| text.contains("\nmod mounted;\n") || text.contains("\nmod guard;\n"))
    };
    for entry in fs::read_dir(&root).unwrap() {
        let path = entry.unwrap().path();
        let mut files = vec![path.clone()];
        if path.is_dir() {
            files = Vec::new();
            rust_files(&path, &mut files);
        }
        // Parts of several tests have no main.rs.
        let mounts = ["mounted", "rig"].iter().any(|part| path.ends_with(part))
            || has_guard(&path)
            || has_guard(&path.join("main.rs"));
        for file in files.iter().filter(|file| mounts && !file.ends_with("mounted/guard.rs")) {
            let text = fs::read_to_string(file).unwrap();
            assert!(!text.contains(UNGUARDED), "{} has a directory that nobody guards", file.display());
        }
    }
}

/// One noun a file: what is longer holds several.
#[test]
fn no_file_is_a_hall() {
    let mut files = Vec::new();
    rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    for file in files {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 600, "{} has {lines} lines", file.display());
    }
}

/// The types that a file has inherent blocks of, without what they are parted by.
fn types_implemented(source: &str) -> BTreeSet<String> {
    let heads = source.lines().filter_map(|line| line.trim_start().strip_prefix("impl"));
    let named = heads.filter(|head| head.starts_with([' ', '<']) && !head.contains(" for ")).map(|head| {
        let head = match head.strip_prefix('<') {
            Some(parameters) => after_parameters(parameters),
            None => head,
        };
        let path: String = head.trim_start().chars().take_while(|c| c.is_alphanumeric() || "_:".contains(*c)).collect();
        path.rsplit("::").next().unwrap_or_default().to_string()
    });
    named.collect()
}

/// What follows the parameters of a block, which may have some in them.
fn after_parameters(text: &str) -> &str {
    let mut depth = 1;
    for (at, c) in text.char_indices() {
        // An arrow ends nothing.
        depth += match c {
            '<' => 1,
            '>' if !text[..at].ends_with('-') => -1,
            _ => 0,
        };
        if depth == 0 {
            return &text[at + 1..];
        }
    }
    ""
}

#[test]
fn types_are_found_in_every_spelling() {
    let source = "impl Plain {\n    impl<'a, F: Fn(&'a u8) -> Vec<u8>> Wrapped<'a, F> {\nimpl super::Far<'_> {\nimpl fmt::Debug for Other {\n\
                  implied\nimpl<T> Iterator for Each<T> {\n";
    assert_eq!(types_implemented(source).into_iter().collect::<Vec<_>>(), ["Far", "Plain", "Wrapped"]);
}

/// What a line may touch is bounded by the file where each type has few: a type that is everywhere is several, each with its noun.
#[test]
fn no_type_is_everywhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap().to_string();
        // Layers have names of their own.
        let layer = path.split(['/', '.']).next().unwrap().to_string();
        for name in types_implemented(&fs::read_to_string(&file).unwrap()) {
            places.entry(format!("{layer} {name}")).or_default().insert(path.clone());
        }
    }
    for (name, files) in &places {
        assert!(files.len() <= 4, "{name} is in {files:?}");
    }
}

/// The functions of a file that rustfmt has laid out, with how many lines each has.
fn functions(source: &str) -> Vec<(&str, usize)> {
    let lines: Vec<&str> = source.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let rest = line.trim_start();
        let indent = line.len() - rest.len();
        let rest = match rest.strip_prefix("pub(") {
            Some(rest) => rest.split_once(") ").map_or("", |(_, rest)| rest),
            None => rest.strip_prefix("pub ").unwrap_or(rest),
        };
        let rest = ["const ", "unsafe "].iter().fold(rest, |rest, word| rest.strip_prefix(word).unwrap_or(rest));
        let Some(name) = rest.strip_prefix("fn ") else { continue };
        let is_end = |line: &&str| {
            let rest = line.trim_start();
            line.len() - rest.len() == indent && (rest == "}" || rest.ends_with(';'))
        };
        let len = if line.ends_with('}') { Some(0) } else { lines[at..].iter().position(is_end) };
        found.push((name.split(['(', '<']).next().unwrap_or_default(), len.map_or(usize::MAX, |len| len + 1)));
    }
    found
}

#[test]
fn functions_are_measured() {
    let source = "fn one() {}\n    pub(in a::b) const fn two(\n        x: u8,\n    ) -> u8 {\n        x;\n        {\n        }\n    }\n\
                  fn three(\n) -> u8;\n// fn four() {\n";
    assert_eq!(functions(source), [("one", 1), ("two", 7), ("three", 2)]);
}

/// One thing a function: what is longer does several.
#[test]
fn no_function_is_a_corridor() {
    let mut files = Vec::new();
    rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    for file in files {
        for (name, lines) in functions(&fs::read_to_string(&file).unwrap()) {
            assert!(lines <= 70, "{name} in {} has {lines} lines", file.display());
        }
    }
}

/// The program's lines of a file, without its tests and comments; what is only compiled for tests is left out as a whole.
fn program(source: &str) -> String {
    let mut code = String::new();
    let mut lines = source.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            if !line.trim_start().starts_with("//") {
                code.push_str(line);
                code.push('\n');
            }
            continue;
        }
        // An item ends in its first line, or with the bracket below its beginning.
        let indent = line.len() - line.trim_start().len();
        let Some(first) = lines.by_ref().find(|line| !line.trim_start().starts_with("#[")) else { break };
        if !first.ends_with('{') {
            continue;
        }
        let end = format!("{}}}", " ".repeat(indent));
        lines.by_ref().find(|line| *line == end);
    }
    code
}

/// The parts of the crate that a program names: `crate::x`, and each x of `crate::{x::…, …}`.
fn parts_named(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    let mut named = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            named.insert(word(rest));
            continue;
        };
        let mut depth = 1;
        let mut part = String::new();
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 || depth == 1 && c == ',' {
                named.insert(word(part.trim_start()));
                part.clear();
            } else {
                part.push(c);
            }
            if depth == 0 {
                break;
            }
        }
    }
    named
}

#[test]
fn what_a_program_names_is_found_in_every_spelling() {
    let source = "use crate::{a::{B, C},\n    d, e as f};\nuse crate::g;\n// crate::no\n#[cfg(test)]\nmod tests {\n    use crate::h;\n}\n\
                  #[cfg(test)]\nuse crate::i;\nfn j() { crate::k::l() }\n";
    let expected = ["a", "d", "e", "g", "k"].map(String::from);
    assert_eq!(parts_named(&program(source)), BTreeSet::from(expected));
}

/// The layers, from the top; calls go down this list and never up. A layer may use any below it.
#[test]
fn no_layer_calls_up() {
    let layers = [
        &["cli"][..],
        &["control"],
        &["daemon"],
        &["fuse"],
        &["view"],
        &["tree"],
        &["device"],
        &["logstore"],
        &["target"],
        &["archive"],
        &["set"],
        &["journal"],
        &["meta"],
        &["media"],
        &["clock", "error", "fault", "id", "limits", "proc", "purpose", "shown", "system"],
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let known: BTreeSet<&str> = layers.iter().copied().flatten().copied().collect();
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    for file in files {
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap();
        let name = path.split(['/', '.']).next().unwrap();
        let named = parts_named(&program(&fs::read_to_string(&file).unwrap()));
        if matches!(name, "lib" | "main") {
            continue;
        }
        assert!(known.contains(name), "{path} is in no layer");
        let level = layers.iter().position(|names| names.contains(&name)).unwrap();
        for above in layers[..level].iter().copied().flatten() {
            assert!(!named.contains(*above), "{path}: {name} calls up to {above}");
        }
    }
}

/// The past is a floor of its own: it knows keys and values, and neither tracks nor where their bytes lie.
#[test]
fn the_past_knows_records_and_nothing_else() {
    const KNOWN: [&str; 9] = ["archive", "set", "meta", "clock", "error", "id", "limits", "purpose", "shown"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/device");
    let mut files = vec![root.join("past.rs")];
    rust_files(&root.join("past"), &mut files);
    assert!(files.len() > 10);
    for file in files {
        let text = program(&fs::read_to_string(&file).unwrap());
        // What is for the device alone says so.
        let text = text.replace("pub(in crate::device)", "pub");
        let named = parts_named(&text);
        let others: Vec<_> = named.iter().filter(|name| !KNOWN.contains(&name.as_str())).collect();
        assert!(others.is_empty() && !text.contains("super::super"), "{}: knows {others:?}", file.display());
    }
}

/// What a program names of a part of the crate: `part::x`, and the words of `part::{…}`.
fn taken_from(part: &str, code: &str) -> BTreeSet<String> {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mark = format!("{part}::");
    let mut taken = BTreeSet::new();
    for (at, _) in code.match_indices(&mark).filter(|(at, _)| !code[..*at].ends_with(is_of_word)) {
        let rest = &code[at + mark.len()..];
        let mut depth = 0;
        let end = rest.find(|c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0 && !is_of_word(c)
        });
        let words = rest[..end.unwrap_or(rest.len())].split(|c: char| !is_of_word(c));
        taken.extend(words.filter(|word| !word.is_empty()).map(String::from));
    }
    taken
}

#[test]
fn what_is_taken_of_a_part_is_found_in_every_spelling() {
    let code = "use crate::{meta::{Table, decode as read, path::{a, b}}, x::C};\nuse crate::meta::hex;\nfn f() { crate::meta::get::<D>(meta_e::F, rmeta::G, meta::Kv::h()) }\n";
    let expected = ["Kv", "Table", "a", "as", "b", "decode", "get", "hex", "path", "read"].map(String::from);
    assert_eq!(taken_from("meta", code), BTreeSet::from(expected));
}

/// Tables of which a program gets values by their types.
fn tables_decoded(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_ascii_alphanumeric()).collect::<String>();
    let before = |at: usize| code[..at].trim_end();
    let decoded = code.match_indices("Table::").filter(|(at, _)| {
        let Some(call) = before(*at).strip_suffix('(') else { return false };
        let call =
            if call.ends_with('>') { call.rfind("::<").map_or(call, |generics| &call[..generics]) } else { call };
        ["decode", ".get"].iter().any(|name| call.ends_with(name))
    });
    decoded.map(|(at, mark)| word(&code[at + mark.len()..])).collect()
}

#[test]
fn a_value_that_is_decoded_is_found() {
    let code = "decode::<Vec<u8>>(Table::A, k); meta.get(Table::B, k); x.get::<u8>(\n    Table::C, k); meta.contains(Table::D, k); decode(table, Table::E)";
    assert_eq!(tables_decoded(code), BTreeSet::from(["A", "B", "C"].map(String::from)));
}

/// Who owns a record takes it apart, and nobody else: what the layers do not know, by the table of docs/design.md, and who owns
/// which table, by that of docs/code.md.
#[test]
fn who_owns_a_record_takes_it_apart() {
    /// What the records of each layer are, and what takes them apart.
    const META: &[&str] = &["decode", "Kv", "Overlay", "Stored"];
    const DEVICE: &[&str] =
        &["split_record", "split_preimage", "split_increment", "split_track_key", "Pointer", "Patch", "Era", "Counts"];
    const LOGSTORE: &[&str] = &["Holders", "Descriptor", "Owner"];
    const OF_TREE: &[&str] = &["Inode", "Dirent", "Xattr", "Link", "Origin"];
    const OF_VIEW: &[&str] = &["Session", "Group", "History"];
    const OF_LOGSTORE: &[&str] = &["Segment", "Volume", "Room", "Shared"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    let none_of = |path: &str, what: &str, found: &BTreeSet<String>, known: &[&str]| {
        let found: Vec<_> = known.iter().filter(|name| found.contains(**name)).collect();
        assert!(found.is_empty(), "{path} {what} {found:?}, which others own");
    };
    for file in files {
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap();
        let code = program(&fs::read_to_string(&file).unwrap());
        let layer = path.split(['/', '.']).next().unwrap();
        let tables = taken_from("Table", &code);
        let of_logstore = taken_from("logstore", &code);
        match layer {
            "cli" | "control" | "daemon" | "fuse" => {
                none_of(path, "takes", &taken_from("meta", &code), META);
                none_of(path, "takes", &taken_from("device", &code), DEVICE);
                none_of(path, "takes", &of_logstore, LOGSTORE);
                let tracks = taken_from("device", &code).into_iter().find(|name| name.contains("Track"));
                assert!(tracks.is_none() || layer != "fuse", "{path} takes {tracks:?}");
                // It walks through all of them, and hands each record to its owner.
                assert!(tables.is_empty() || path.starts_with("daemon/check/"), "{path} names {tables:?}");
                let records = taken_from("device", &code).into_iter().find(|name| name.ends_with("Record"));
                assert!(records.is_none() || !path.starts_with("daemon/check"), "{path} takes {records:?}");
                assert_eq!(tables_decoded(&code), BTreeSet::new(), "{path}");
            }
            "view" => {
                let own = ["State", "Session", "Group", "History"];
                let others: Vec<_> = tables.iter().filter(|table| !own.contains(&table.as_str())).collect();
                assert!(others.is_empty(), "{path} names {others:?}");
                none_of(path, "takes", &taken_from("device", &code), &DEVICE[..6]);
                none_of(path, "takes", &of_logstore, LOGSTORE);
            }
            "tree" => {
                let where_data_lies: Vec<_> = of_logstore.iter().filter(|name| *name != "Codec").collect();
                assert!(where_data_lies.is_empty(), "{path} names {where_data_lies:?}");
                none_of(path, "takes", &taken_from("device", &code), &["Pointer", "Patch"]);
                none_of(path, "names", &tables, &[OF_VIEW, OF_LOGSTORE].concat());
                none_of(path, "decodes", &tables_decoded(&code), &["Track"]);
            }
            "device" => {
                none_of(path, "names", &tables, OF_LOGSTORE);
                none_of(path, "decodes", &tables_decoded(&code), OF_TREE);
                // Format 3 had them otherwise.
                if path != "device/upgrade.rs" {
                    none_of(path, "names", &tables, OF_VIEW);
                }
            }
            "logstore" => {
                let own = [OF_LOGSTORE, &["State", "ALL"]].concat();
                let others: Vec<_> = tables.iter().filter(|table| !own.contains(&table.as_str())).collect();
                assert!(others.is_empty(), "{path} names {others:?}");
            }
            _ => {}
        }
    }
}
