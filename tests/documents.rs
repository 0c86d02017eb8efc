//! The documents say what the program does: man pages and completions follow the command line, and each
//! promise names tests that exist.

mod sources;

use clap::{Arg, Command};
use clap_complete::{Shell, generate};
use pitfs::cli::command;
use pitfs::fuse::OPTION_HELP;
use sources::read;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

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

/// systemd takes the units, and thinks none too open.
#[test]
fn the_units_are_without_mistakes() {
    let dir = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    // What they run has to be there, and is not installed; pages of the manual are looked for where they are installed.
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let text = read(&format!("systemd/{name}")).replace("/usr/local/bin/pitfs", env!("CARGO_BIN_EXE_pitfs"));
        let text: String =
            text.lines().filter(|line| !line.starts_with("Documentation=")).map(|line| format!("{line}\n")).collect();
        let unit = dir.path().join(name.replace('@', "@work"));
        std::fs::write(&unit, text).unwrap();
        units.push(unit);
    }
    assert_eq!(units.len(), 5);
    let analyze = |arguments: &[&str], units: &[std::path::PathBuf]| {
        std::process::Command::new("systemd-analyze").args(arguments).args(units).output()
    };
    let Ok(verified) = analyze(&["verify"], &units) else { return eprintln!("not run: systemd-analyze is missing") };
    assert!(verified.status.success() && verified.stderr.is_empty(), "{}", String::from_utf8_lossy(&verified.stderr));
    let services: Vec<_> =
        units.into_iter().filter(|unit| unit.extension().is_some_and(|is| is == "service")).collect();
    assert_eq!(services.len(), 3);
    let judged = analyze(&["security", "--offline=true", "--threshold=40"], &services).unwrap();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
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
