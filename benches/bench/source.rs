//! The tree of real files that is unpacked: sources of this project's dependencies, which are the same for everybody
//! with the same Cargo.lock.

use crate::Result;
use crate::command::ok;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const FILES_MIN: usize = 16_000;

fn count_files(directory: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() { count_files(&entry.path())? } else { 1 };
    }
    Ok(count)
}

/// The directories of all dependencies that are on this machine, by the directory they lie in.
pub fn directories() -> Result<BTreeMap<PathBuf, Vec<PathBuf>>> {
    let cargo = std::env::var("CARGO").unwrap_or("cargo".into());
    let metadata = |more: &[&str]| {
        let mut command = Command::new(&cargo);
        command.args(["metadata", "--format-version", "1", "--locked"]).args(more).arg("--manifest-path");
        ok(command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")))
    };
    // What other platforms need may never have been fetched.
    let text = metadata(&["--offline"]).or_else(|_| metadata(&[]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    let mut found: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        let Some(directory) = manifest.parent().filter(|_| !package["source"].is_null()) else { continue };
        if let (Some(parent), Some(name), true) = (directory.parent(), directory.file_name(), directory.exists()) {
            found.entry(parent.into()).or_default().push(name.into());
        }
    }
    Ok(found)
}

/// Packs them into a tar file, in as many copies as it takes to have enough files.
pub fn pack(tar: &Path) -> Result<PathBuf> {
    if tar.exists() {
        return Ok(tar.into());
    }
    let directories = directories()?;
    let mut files = 0;
    for (parent, names) in &directories {
        for name in names {
            files += count_files(&parent.join(name))?;
        }
    }
    if files == 0 {
        return Err("no sources of dependencies were found; give a tree to unpack with TREE=FILE.tar".into());
    }
    for copy in 0..FILES_MIN.div_ceil(files) {
        for (parent, names) in &directories {
            let mut command = Command::new("tar");
            command.arg("-C").arg(parent).arg(format!("--transform=s|^|copy{copy}/|S")).arg("-rf").arg(tar);
            ok(command.args(names))?;
        }
    }
    Ok(tar.into())
}
