//! What a test leaves on the machine goes also when the test is killed: mounts, loop devices, daemons and directories.
//!
//! A process beside the test, in a group of its own, waits until the test is gone. Then it unmounts what is mounted below the
//! directories that it was told of, and removes them.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use tempfile::TempDir;

/// Names come as the list of mounts has them. printf(1) wants one more digit.
const GUARD: &str = r#"
trap '' INT TERM HUP QUIT
export LC_ALL=C
plain() { printf %b "$(printf '%s' "$1" | sed 's/\\/\\0/g')"; }
directories=$(cat)
printf '%s\n' "$directories" | while IFS= read -r directory; do
    at=$(plain "$directory")
    [ -d "$at" ] || continue
    for try in 1 2 3; do
        awk '{ print $5 }' /proc/self/mountinfo | tac | while IFS= read -r mount; do
            case $mount in "$directory"/*) ;; *) continue ;; esac
            mount=$(plain "$mount")
            umount -l "$mount" || fusermount3 -uz "$mount"
        done
    done
    rm -rf --one-file-system "$at"
done
"#;

/// A name as the list of mounts has it, in one line whatever it is.
fn escaped(name: &[u8]) -> Vec<u8> {
    let escape = |byte: &u8| match byte {
        b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
        _ => vec![*byte],
    };
    name.iter().flat_map(escape).collect()
}

fn begin() -> Option<ChildStdin> {
    let mut command = Command::new("sh");
    command.args(["-c", GUARD]).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().inspect_err(|error| eprintln!("nobody guards this test: {error}")).ok()?.stdin
}

/// A new directory, of which nothing is left when this process is gone, however it ends.
pub fn temporary() -> TempDir {
    guarded(tempfile::tempdir().unwrap())
}

/// The same of one that is there already.
pub fn guarded(directory: TempDir) -> TempDir {
    static GUARD: OnceLock<Option<Mutex<ChildStdin>>> = OnceLock::new();
    if let Some(guard) = GUARD.get_or_init(|| begin().map(Mutex::new)) {
        let line = [&escaped(directory.path().as_os_str().as_bytes())[..], b"\n"].concat();
        guard.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line).unwrap();
    }
    directory
}
