//! Nothing is left of a test that was killed.

mod mounted;

use mounted::*;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const KILLED: &str = "what_is_killed";
const SAYS: &str = "directory ";

/// Started by the other one.
#[test]
#[ignore = "waits to be killed"]
fn what_is_killed() {
    let Some((mounted, _disk)) = small_disk(64) else { return };
    println!("\n{SAYS}{}", mounted.dir.path().display());
    loop {
        std::thread::park();
    }
}

fn is_mounted_below(directory: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let below = format!("{}/", directory.display());
    mounts.lines().any(|line| line.split(' ').nth(4).is_some_and(|at| at.starts_with(&below)))
}

fn has_loop_device(image: &Path) -> bool {
    let devices = std::fs::read_dir("/sys/block").unwrap().flatten();
    let files = devices.filter_map(|device| std::fs::read_to_string(device.path().join("loop/backing_file")).ok());
    files.into_iter().any(|file| file.trim_end().starts_with(image.to_str().unwrap()))
}

#[test]
fn nothing_is_left_of_a_test_that_is_killed() {
    if !can_mount() || !is_root() {
        return;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([KILLED, "--exact", "--ignored", "--nocapture"]).process_group(0);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let said = lines.filter_map(|line| line.strip_prefix(SAYS).map(PathBuf::from)).next();
    let Some(directory) = said else {
        child.wait().unwrap();
        return eprintln!("not run: no loop device");
    };
    assert!(is_mounted_below(&directory) && has_loop_device(&directory.join("image")));
    let group = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    child.wait().unwrap();
    let image = directory.join("image");
    wait_for("what was left", || !is_mounted_below(&directory) && !directory.exists() && !has_loop_device(&image));
}
