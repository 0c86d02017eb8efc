//! Commands in other ways than from afar: about one base, from inside a mount, as JSON.

use super::{Mounted, PITFS};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

impl Mounted {
    /// What a command prints with `--json`.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let text = self.ok(args.iter().chain(&["--json"]));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    }

    /// `-s STORE:BASE`.
    pub fn of(&self, base: &str) -> String {
        format!("{}:{base}", self.store().to_str().unwrap())
    }

    /// A command about one base, which has to succeed.
    pub fn ok_of(&self, base: &str, args: &[&str]) -> String {
        let of = self.of(base);
        self.ok(["-s", of.as_str()].iter().chain(args))
    }

    pub fn fails_of(&self, base: &str, args: &[&str]) -> String {
        let of = self.of(base);
        self.fails(1, ["-s", of.as_str()].iter().chain(args))
    }

    /// Names of the snapshots of a base, oldest first.
    pub fn snapshots_of(&self, base: &str) -> Vec<String> {
        let of = self.of(base);
        let list = self.json(&["-s", &of, "list"]);
        let there = list.as_array().unwrap().iter().filter(|found| found["state"] != "missing");
        there.map(|found| found["name"].as_str().unwrap().to_string()).collect()
    }

    /// The one of `base list` with this name.
    pub fn base_info(&self, name: &str) -> serde_json::Value {
        let all = self.json(&["base", "list"]);
        all.as_array().unwrap().iter().find(|base| base["name"] == name).cloned().unwrap_or_default()
    }

    /// Waits until a base depends on no snapshot and nothing of it is settled any more.
    pub fn wait_settled(&self, base: &str) {
        super::wait_for("settling", || {
            let info = self.base_info(base);
            info["settled_blocks"].is_null() && info["needs"].is_null()
        });
    }
}

/// Runs a command that finds the store by where it stands.
pub fn run_in<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(directory: &Path, args: I) -> Output {
    let mut command = Command::new(PITFS);
    command.args(args).current_dir(directory).env_remove("PITFS_STORE").stdin(Stdio::null());
    command.output().unwrap()
}

/// The same, and it has to succeed.
pub fn ok_in(directory: &Path, args: &[&str]) -> String {
    let output = run_in(directory, args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?} in {}: {text}{errors}", directory.display());
    text
}

/// A C program, compiled beside a test's store; none where there is no compiler, which is said.
pub fn compiled(mounted: &Mounted, source: &str, options: &[&str]) -> Option<PathBuf> {
    let (from, to) = (mounted.dir.path().join("program.c"), mounted.dir.path().join("program"));
    fs::write(&from, source).unwrap();
    match Command::new("cc").args(["-w", "-o"]).arg(&to).arg(&from).args(options).status() {
        Ok(status) => {
            assert!(status.success());
            Some(to)
        }
        Err(_) => {
            eprintln!("not run: no cc to compile a program with");
            None
        }
    }
}

/// The names in a directory, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Bytes that do not compress, different for each seed.
pub fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| step()).collect()
}

/// Bytes that a store takes, as statfs(2) tells it.
pub fn room_used(path: &Path) -> u64 {
    let stat = rustix::fs::statvfs(path).unwrap();
    (stat.f_blocks - stat.f_bfree) * stat.f_frsize
}
