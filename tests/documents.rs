//! The documents say what the program does: man pages and completions follow the command line, and each
//! promise names tests that exist.

use clap::{Arg, Command};
use clap_complete::{Shell, generate};
use pitfs::cli::command;
use pitfs::fuse::OPTION_HELP;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The commands as they are typed, `snap` and `base create`, those that have commands of their own among them.
fn visible_commands() -> Vec<(String, Command)> {
    let mut command = command();
    command.build();
    let mut found = Vec::new();
    collect_visible("", &command, &mut found);
    found
}

fn collect_visible(above: &str, command: &Command, found: &mut Vec<(String, Command)>) {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let typed = format!("{above}{}", verb.get_name());
        found.push((typed.clone(), verb.clone()));
        collect_visible(&format!("{typed} "), verb, found);
    }
}

fn visible_arguments(command: &Command) -> Vec<Arg> {
    command.get_arguments().filter(|argument| !argument.is_hide_set()).cloned().collect()
}

/// The options of a command as they are typed, `-s` and `--store`.
fn options(command: &Command) -> BTreeSet<String> {
    let arguments = visible_arguments(command);
    let short = arguments.iter().filter_map(Arg::get_short).map(|letter| format!("-{letter}"));
    let long = arguments.iter().filter_map(Arg::get_long).map(|name| format!("--{name}"));
    short.chain(long).collect()
}

fn positionals(command: &Command) -> BTreeSet<String> {
    let arguments = visible_arguments(command);
    let names = arguments.iter().filter(|argument| argument.is_positional()).flat_map(|argument| {
        argument.get_value_names().expect("every positional has a name").iter().map(ToString::to_string)
    });
    names.collect()
}

/// The words behind a macro of mdoc(7): `Fl s Ar STORE , Fl -store Ar STORE` has `s` and `-store` behind `Fl`.
fn behind(name: &str, text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with('.')) {
        let words: Vec<&str> = line.trim_start_matches('.').split_whitespace().collect();
        found.extend(words.windows(2).filter(|pair| pair[0] == name).map(|pair| pair[1].to_string()));
    }
    found
}

fn flags(text: &str) -> BTreeSet<String> {
    behind("Fl", text).into_iter().map(|flag| format!("-{flag}")).collect()
}

/// A page's text between a heading and the next of the same or a higher level.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let start = page.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("there is no {heading}")) + 1;
    let rest = &page[start + heading.len()..];
    let ends = if heading.starts_with(".Ss") { vec!["\n.Ss ", "\n.Sh "] } else { vec!["\n.Sh "] };
    let end = ends.iter().filter_map(|mark| rest.find(mark)).min().unwrap_or(rest.len());
    &rest[..end]
}

#[test]
fn the_man_page_has_every_verb_with_its_options_and_no_others() {
    let page = read("man/pitfs.8");
    let commands = section(&page, ".Sh COMMANDS");
    let common: BTreeSet<String> =
        ["-s", "--store", "-h", "--help", "--json", "--trust-owner"].into_iter().map(str::to_string).collect();
    let top = options(&{
        let mut command = command();
        command.build();
        command
    });
    let described = flags(section(&page, ".Sh DESCRIPTION"));
    assert_eq!(described, top, "options of pitfs itself");
    for (name, verb) in visible_commands() {
        let text = section(commands, &format!(".Ss {name}"));
        assert!(text.lines().any(|line| line == format!(".Cm {name}")), "the synopsis of {name}");
        let (real, written) = (options(&verb), flags(text));
        let missing: Vec<_> = real.difference(&common).filter(|option| !written.contains(*option)).collect();
        assert!(missing.is_empty(), "{name} has {missing:?}, which the man page does not name");
        let invented: Vec<_> = written.difference(&real).collect();
        assert!(invented.is_empty(), "the man page gives {name} {invented:?}, which it does not have");
        let named = behind("Ar", text);
        for positional in positionals(&verb) {
            assert!(named.contains(&positional), "{name} takes {positional}, which the man page does not name");
        }
    }
    let mut real: BTreeSet<String> = visible_commands().into_iter().map(|(name, _)| name).collect();
    real.insert("completions".into());
    for line in commands.lines().filter_map(|line| line.strip_prefix(".Ss ")) {
        assert!(real.contains(line), "the man page describes {line}, which does not exist");
    }
}

#[test]
fn the_man_page_has_every_value_of_every_choice() {
    let page = read("man/pitfs.8");
    let values = behind("Cm", &page);
    for (name, verb) in visible_commands() {
        for argument in visible_arguments(&verb).iter().filter(|argument| argument.get_action().takes_values()) {
            for value in argument.get_possible_values() {
                let value = value.get_name();
                assert!(values.contains(value), "{name} {argument} takes {value}");
            }
            for default in argument.get_default_values() {
                let default = default.to_string_lossy();
                assert!(page.contains(&*default), "{name} {argument} is {default} by default");
            }
        }
    }
}

#[test]
fn the_man_page_has_every_mount_option_and_no_others() {
    let page = read("man/mount.pitfs.8");
    let text = section(&page, ".Sh MOUNT OPTIONS");
    let items: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix(".It Cm "))
        .flat_map(|line| {
            line.replace(" Ns = Ns Ar ", "=")
                .replace(" Ns = Ns Cm ", "=")
                .split(" , ")
                .map(str::to_string)
                .collect::<Vec<_>>()
        })
        .collect();
    let real: BTreeSet<String> = OPTION_HELP.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(items, real);
}

#[test]
fn man_pages_are_free_of_mistakes() {
    for page in ["man/pitfs.8", "man/pitfs.7", "man/mount.pitfs.8"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        let Ok(output) = std::process::Command::new("mandoc").args(["-Tlint", "-Wwarning"]).arg(&path).output() else {
            println!("not run: there is no mandoc");
            return;
        };
        assert!(output.status.success(), "{page}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn completions_name_every_verb_and_option() {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut text = Vec::new();
        generate(shell, &mut command(), "pitfs", &mut text);
        let text = String::from_utf8(text).unwrap();
        for (name, verb) in visible_commands() {
            assert!(text.contains(verb.get_name()), "{shell}: {name}");
            for long in visible_arguments(&verb).iter().filter_map(Arg::get_long) {
                let spelled = if shell == Shell::Fish { format!("-l {long}") } else { format!("--{long}") };
                assert!(text.contains(&spelled), "{shell}: {spelled} of {name}");
            }
        }
    }
}

#[test]
fn make_finds_what_was_built_wherever_cargo_builds() {
    let install = |name: &str, value: &str| {
        let mut make = std::process::Command::new("make");
        for variable in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR", "CARGO_BUILD_TARGET", "MAKEFLAGS"] {
            make.env_remove(variable);
        }
        if !name.is_empty() {
            make.env(name, value);
        }
        let output = make.args(["-n", "install"]).current_dir(env!("CARGO_MANIFEST_DIR")).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for (name, value, expected) in [
        ("", "", "/release/pitfs"),
        ("CARGO_TARGET_DIR", "/else where", "/else where/release/pitfs"),
        ("CARGO_BUILD_TARGET_DIR", "/elsewhere", "/elsewhere/release/pitfs"),
        ("CARGO_BUILD_TARGET", "a-b-c", "/a-b-c/release/pitfs"),
    ] {
        match install(name, value) {
            Ok(text) => assert!(text.contains(expected), "{name}: {text}"),
            Err(error) => return println!("not run: there is no make: {error}"),
        }
    }
}

#[test]
fn the_mount_helpers_are_shell_scripts_without_mistakes() {
    for name in ["mount.pitfs", "mount.fuse.pitfs"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("mount-helper").join(name);
        let output = std::process::Command::new("sh").arg("-n").arg(&path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// systemd takes the unit, and thinks it not too open.
#[test]
fn the_unit_is_without_mistakes() {
    let units = tempfile::tempdir().unwrap();
    let unit = units.path().join("pitfs@work.service");
    // What it runs has to be there, and is not installed; pages of the manual are looked for where they are installed.
    let text = read("systemd/pitfs@.service").replace("/usr/local/bin/pitfs", env!("CARGO_BIN_EXE_pitfs"));
    let text: String =
        text.lines().filter(|line| !line.starts_with("Documentation=")).map(|line| format!("{line}\n")).collect();
    std::fs::write(&unit, text).unwrap();
    let analyze =
        |arguments: &[&str]| std::process::Command::new("systemd-analyze").args(arguments).arg(&unit).output();
    let Ok(verified) = analyze(&["verify"]) else { return eprintln!("not run: systemd-analyze is missing") };
    assert!(verified.status.success() && verified.stderr.is_empty(), "{}", String::from_utf8_lossy(&verified.stderr));
    let judged = analyze(&["security", "--offline=true", "--threshold=50"]).unwrap();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
}

/// All Rust files below a directory.
fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

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
        let text = fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let begins = ["thread::spawn(", "thread::Builder", "thread::scope("].iter().find(|call| code.contains(**call));
        assert!(begins.is_none(), "{} has {begins:?}: thread.rs begins threads", file.display());
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

#[test]
fn every_promise_has_a_number_of_its_own_and_tests_that_exist() {
    let text = read("docs/semantics.md");
    let mut numbers = Vec::new();
    for line in text.lines() {
        let Some((number, tests)) = line.strip_prefix("| S").and_then(|row| row.split_once(" | ")) else { continue };
        let number: u32 = number.parse().unwrap_or_else(|_| panic!("{line}"));
        numbers.push(number);
        let places: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!places.is_empty(), "S{number} names no test");
        for place in places {
            let (file, function) = place.split_once("::").unwrap_or_else(|| panic!("S{number}: {place}"));
            let source = read(file);
            // Tests of source files are in their module `tests`; only the last part is a function.
            let function = function.rsplit("::").next().unwrap_or(function);
            let mark = format!("fn {function}(");
            let at = source.find(&mark).unwrap_or_else(|| panic!("S{number}: {file} has no {function}"));
            let before = source[..at].trim_end();
            assert!(before.ends_with("#[test]"), "S{number}: {function} in {file} is not a test");
        }
    }
    let expected: Vec<u32> = (1..=numbers.len() as u32).collect();
    assert!(!numbers.is_empty());
    assert_eq!(numbers, expected, "the numbers in the table of tests");
    let headings: Vec<u32> =
        text.lines().filter_map(|line| line.strip_prefix("**S")?.split_once('.')?.0.parse().ok()).collect();
    assert_eq!(headings, expected, "the numbers of the promises");
}

#[test]
fn documents_name_no_file_that_is_not_there() {
    for document in ["README.md", "docs/design.md", "docs/semantics.md", "docs/format.md", "docs/protocol.md"] {
        for word in read(document).split('`').skip(1).step_by(2) {
            let is_own =
                ["src/", "tests/", "docs/", "man/", "mount-helper/"].iter().any(|start| word.starts_with(start));
            if is_own && !word.contains(' ') {
                let file = word.split("::").next().unwrap_or(word);
                assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(file).exists(), "{document} names {file}");
            }
        }
    }
}

/// What a document says outside of tables and code: each paragraph, and each item of a list, in one line.
fn paragraphs(text: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut is_code = false;
    for line in text.lines().map(str::trim) {
        let is_fence = line.starts_with("```");
        is_code ^= is_fence;
        let is_text = !is_code && !is_fence && !line.is_empty() && !line.starts_with(['|', '#']);
        let behind_number = line.trim_start_matches(|c: char| c.is_ascii_digit());
        let is_numbered = behind_number.len() < line.len() && behind_number.starts_with(". ");
        if !is_text || is_numbered || line.starts_with("- ") {
            found.push(String::new());
        }
        if let Some(paragraph) = found.last_mut().filter(|_| is_text) {
            paragraph.push_str(line);
            paragraph.push(' ');
        }
    }
    found
}

/// The first sentence of more than so many words: its first ones.
fn labyrinth(paragraph: &str, words_max: usize) -> Option<String> {
    let mut sentence = Vec::new();
    for word in paragraph.split_whitespace() {
        // Signs of lists and arrows are no words.
        if word.contains(char::is_alphanumeric) {
            sentence.push(word);
        }
        if sentence.len() > words_max {
            return Some(sentence.join(" "));
        }
        // Bold text, brackets and quotes may end behind the full stop.
        if word.trim_end_matches(['*', ')', '"']).ends_with('.') {
            sentence.clear();
        }
    }
    None
}

#[test]
fn labyrinths_are_found() {
    let text = "# a b c d\n\n**a.** b c\nd. e\n- f g\n- h\n1. i j\n| k l m n |\n```\no p q r\n```\ns (t u.) v w";
    let found = paragraphs(text);
    assert_eq!(found.iter().find_map(|paragraph| labyrinth(paragraph, 3)), None);
    let short: Vec<String> = found.iter().filter_map(|paragraph| labyrinth(paragraph, 2)).collect();
    assert_eq!(short, ["b c d.", "s (t u.)"]);
}

#[test]
fn no_sentence_is_a_labyrinth() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec![root.join("README.md")];
    documents.extend(fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    documents.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    assert!(documents.len() > 5);
    for document in documents {
        for paragraph in paragraphs(&fs::read_to_string(&document).unwrap()) {
            if let Some(sentence) = labyrinth(&paragraph, 40) {
                panic!("{}: more than 40 words: {sentence} …", document.display());
            }
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
        &["archive"],
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
    const KNOWN: [&str; 8] = ["archive", "meta", "clock", "error", "id", "limits", "purpose", "shown"];
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

/// Whether one of the licences that an expression offers is among those that are taken.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = expression.replace('/', " OR ");
    // An AND of the outermost level asks for each side, with ORs in brackets.
    let of = |part: &str| {
        let part = part.trim().trim_start_matches('(').trim_end_matches(')');
        part.split(" OR ").any(|licence| allowed.contains(licence.trim()))
    };
    match expression.contains(" AND ") {
        true => expression.split(" AND ").all(of),
        false => of(&expression),
    }
}

#[test]
fn what_is_built_in_has_licences_that_are_taken() {
    let output = std::process::Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--offline",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let deny = read("deny.toml");
    let (_, list) = deny.split_once("allow = [").unwrap();
    let (list, _) = list.split_once(']').unwrap();
    let allowed: BTreeSet<String> = list.split('"').skip(1).step_by(2).map(str::to_string).collect();
    assert!(is_allowed("(MIT OR Apache-2.0) AND Unicode-3.0", &allowed) && !is_allowed("MIT AND GPL-3.0", &allowed));
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 20);
    for package in packages {
        let licence = package["license"].as_str().unwrap_or("none that is named");
        assert!(is_allowed(licence, &allowed), "{} has {licence}", package["name"]);
        let source = package["source"].as_str();
        assert!(source.is_none_or(|source| source.starts_with("registry+")), "{} is of {source:?}", package["name"]);
    }
}

/// Two versions of one crate are two chances for a fault, and one of them is old.
#[test]
fn what_is_built_in_is_there_once() {
    let output = std::process::Command::new(env!("CARGO"))
        .args([
            "tree",
            "--duplicates",
            "--edges",
            "no-dev,no-build,no-proc-macro",
            "--depth",
            "0",
            "--locked",
            "--offline",
        ])
        .args(["--target", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "");
}
