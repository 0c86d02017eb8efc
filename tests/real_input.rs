//! The main job on real input: many published versions of one crate, one snapshot each.

mod mounted;

use mounted::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Successive versions of the crate `libc`: some 300 files each.
const VERSIONS: [u32; 16] = [140, 141, 142, 143, 144, 146, 147, 148, 149, 150, 151, 152, 153, 155, 156, 157];

/// Has cargo fetch and unpack one version.
fn fetch(dir: &Path, version: u32) -> Option<PathBuf> {
    let package = dir.join(format!("package-{version}"));
    fs::create_dir_all(package.join("src")).unwrap();
    fs::write(package.join("src/lib.rs"), "").unwrap();
    let manifest = format!(
        "[package]\nname = \"fetcher\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n[dependencies]\nlibc = \"=0.2.{version}\"\n"
    );
    fs::write(package.join("Cargo.toml"), manifest).unwrap();
    let output =
        Command::new(env!("CARGO")).args(["vendor", "--quiet", "vendor"]).current_dir(&package).output().unwrap();
    if !output.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    Some(package.join("vendor/libc"))
}

#[test]
fn every_version_of_a_crate_comes_back_from_its_snapshot() {
    let sources = temporary();
    let versions: Option<Vec<(u32, PathBuf)>> =
        VERSIONS.iter().map(|&version| Some((version, fetch(sources.path(), version)?))).collect();
    let Some(versions) = versions else {
        assert!(std::env::var_os("CI").is_none(), "cargo could not fetch the crate's versions");
        return eprintln!("not run: cargo could not fetch the crate's versions");
    };
    let mounted = Mounted::unmounted();
    let mut total = 0;
    for (i, (version, source)) in versions.iter().enumerate() {
        // Half of them are brought in while the store is mounted.
        if i == versions.len() / 2 && can_mount() {
            mounted.mount(&[]);
        }
        mounted.ok(["sync", source.to_str().unwrap()]);
        mounted.ok(["snap", &format!("0.2.{version}")]);
        total += listing(source).len();
    }
    assert!(total > 3000, "{total} files is not much");
    mounted.check();
    let kept: Vec<&(u32, PathBuf)> =
        versions.iter().enumerate().filter(|(i, _)| i % 3 != 2).map(|(_, kept)| kept).collect();
    let deleted =
        versions.iter().enumerate().filter(|(i, _)| i % 3 == 2).map(|(_, (version, _))| format!("0.2.{version}"));
    mounted.ok(["delete".to_string()].into_iter().chain(deleted));
    if can_mount() {
        compare(&mounted, &kept);
        mounted.remount();
        compare(&mounted, &kept);
        mounted.umount();
    }
    for (version, source) in kept {
        let out = mounted.dir.path().join(format!("out-{version}"));
        mounted.ok(["restore", &format!("0.2.{version}"), "--to", out.to_str().unwrap()]);
        assert_same(&listing(source), &listing(&out), &format!("0.2.{version}, restored"));
    }
    mounted.check();
}

fn compare(mounted: &Mounted, kept: &[&(u32, PathBuf)]) {
    assert_eq!(fs::read_dir(mounted.snap()).unwrap().count(), kept.len() + 1);
    for (version, source) in kept {
        let snapshot = mounted.snap().join(format!("0.2.{version}"));
        assert_same(&listing(source), &listing(&snapshot), &format!("0.2.{version}"));
    }
}

/// How many versions are rolled, and the versions they are taken from, the newest first: some were withdrawn.
const ROLLED: usize = 40;
const CANDIDATES: std::ops::RangeInclusive<u32> = 100..=157;

#[test]
fn every_version_of_a_crate_comes_back_from_the_archive() {
    let sources = temporary();
    let fetched = CANDIDATES.rev().filter_map(|version| Some((version, fetch(sources.path(), version)?)));
    let mut versions: Vec<(u32, PathBuf)> = fetched.take(ROLLED).collect();
    if versions.len() < ROLLED {
        assert!(std::env::var_os("CI").is_none(), "cargo could not fetch the crate's versions");
        return eprintln!("not run: cargo could not fetch the crate's versions");
    }
    versions.reverse();
    let mounted = Mounted::unmounted();
    let archive = mounted.dir.path().join("archive");
    let name = |version: u32| format!("0.2.{version}");
    for (version, source) in &versions {
        mounted.ok(["sync", source.to_str().unwrap()]);
        mounted.ok(["roll", "--archive", archive.to_str().unwrap(), "--keep", "1", "--name", &name(*version)]);
    }
    // Only the newest is left in the store.
    let list = mounted.ok(["list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let stored = list.as_array().unwrap().iter().filter(|snapshot| snapshot["archived"] == false);
    assert_eq!(stored.count(), 1, "{list}");
    mounted.ok(["archive", "verify"]);
    if can_mount() {
        mounted.mount(&[]);
        for (version, source) in &versions {
            let shown = mounted.snap().join(name(*version));
            assert_same(&listing(source), &listing(&shown), &format!("{version}, mounted"));
        }
        mounted.umount();
    }
    for (version, source) in &versions {
        let out = mounted.dir.path().join(format!("out-{version}"));
        mounted.ok(["restore", &name(*version), "--to", out.to_str().unwrap()]);
        assert_same(&listing(source), &listing(&out), &format!("{version}, restored"));
        fs::remove_dir_all(&out).unwrap();
    }
    mounted.check();
}
