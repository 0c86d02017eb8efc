//! A store with a target, and what is done with both.

use crate::mounted::*;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

pub fn fill(live: &Path) {
    fs::create_dir_all(live.join("a/deep/er")).unwrap();
    for number in 0..300 {
        fs::write(live.join(format!("a/{number}")), format!("file {number}\n").repeat(number)).unwrap();
    }
    let large: Vec<u8> = (0..2_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(live.join("a/deep/large"), large).unwrap();
    fs::hard_link(live.join("a/7"), live.join("a/deep/er/seven")).unwrap();
    symlink("../nowhere", live.join("a/link")).unwrap();
    fs::set_permissions(live.join("a/8"), fs::Permissions::from_mode(0o751)).unwrap();
    rustix::fs::setxattr(live.join("a/9"), "user.a", b"value", rustix::fs::XattrFlags::empty()).unwrap();
}

pub fn change(live: &Path, round: usize) {
    fs::write(live.join(format!("a/{round}")), format!("changed in {round}")).unwrap();
    fs::remove_file(live.join(format!("a/{}", 100 + round))).unwrap();
    fs::create_dir(live.join(format!("new {round}"))).unwrap();
    fs::rename(live.join(format!("a/{}", 200 + round)), live.join(format!("new {round}/moved"))).unwrap();
    let large = fs::OpenOptions::new().write(true).open(live.join("a/deep/large")).unwrap();
    large.write_all_at(&[0xa5, round as u8], round as u64 * 100_000).unwrap();
}

/// A store with a target, and what its snapshots show.
pub fn backed_up(mounted: &Mounted, target: &Path, how: &[&str]) -> Vec<(String, Vec<Shown>)> {
    fs::create_dir(target).unwrap();
    let add = [&["target", "add", "usb", target.to_str().unwrap()], how].concat();
    mounted.ok(add);
    fill(&mounted.live());
    let mut moments = Vec::new();
    for round in 0..5 {
        let name = format!("m{round}");
        mounted.ok(["snap", &name]);
        moments.push((name.clone(), listing(&mounted.snap().join(&name))));
        // Some are written later, all at once, and one differs from the first alone.
        match round {
            0 | 1 => drop(mounted.ok(["backup"])),
            3 => drop(mounted.ok(["backup", "--since-full", &name])),
            _ => {}
        }
        change(&mounted.live(), round);
    }
    mounted.ok(["backup", "--all-snapshots"]);
    moments
}

/// Unmounts, whatever happened.
pub struct Ends<'a>(pub &'a Path);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        let _ended = Command::new(PITFS).arg("umount").arg(self.0).status();
    }
}

/// Bytes that cannot be compressed.
pub fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as u8
    };
    std::iter::repeat_with(next).take(300_000).collect()
}

/// The store's disk loses some of a file of that noise.
pub fn lose_some(mounted: &Mounted) {
    mounted.umount();
    let volume = mounted.store().join("volume.0");
    let mut bytes = fs::read(&volume).unwrap();
    let lost = &noise(1)[70_000..70_064];
    let at = bytes.windows(64).position(|some| some == lost).expect("noise is stored as it is");
    bytes[at] ^= 1;
    fs::write(&volume, bytes).unwrap();
    mounted.mount(&[]);
}

/// Runs a command that is to succeed; what it printed.
pub fn pitfs_in(dir: &Path, args: &[&str]) -> String {
    let output = Command::new(PITFS).args(args).current_dir(dir).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{args:?}: {text}");
    text
}

/// Two files of noise, in the snapshot `then` and at a target.
pub fn two_kept(mounted: &Mounted) -> PathBuf {
    let target = mounted.add_target();
    for (seed, name) in [(1, "one"), (2, "two")] {
        fs::write(mounted.live().join(name), noise(seed)).unwrap();
    }
    mounted.ok(["snap", "then"]);
    mounted.ok(["backup"]);
    target
}

/// A copy of the store, called `copy`, mounted beside it; where.
pub fn copied(mounted: &Mounted) -> PathBuf {
    let dir = mounted.dir.path();
    mounted.umount();
    assert!(Command::new("cp").arg("-a").args([mounted.store(), dir.join("copy")]).status().unwrap().success());
    let other = dir.join("other");
    fs::create_dir(&other).unwrap();
    pitfs_in(dir, &["mount", "copy", "other"]);
    mounted.mount(&[]);
    other
}
