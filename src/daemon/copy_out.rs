//! Copying files out of a view into an ordinary directory, with all their metadata.
//!
//! One thread walks the view and makes directories; others put in them what is no directory. Further names of an
//! inode are made when all first names are there, and attributes of directories come last. Everything is done in
//! directories that are open: trees may be deeper than paths can be, and no link is followed.

mod finish;
mod handle;
mod plan;
mod put;
mod walk;

pub use plan::plan_copy_out;

use super::descent::Descent;
use super::{Daemon, OnProgress};
use crate::error::{Errno, Error, Result};
use crate::shown::{shown, shown_file};
use crate::tree::{names_of, root_of};
use crate::view::{View, Views};
use put::{Putter, Tally};
use rustix::fs::{Mode, OFlags};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use walk::Walk;

/// What to copy out.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    pub snapshot: Vec<u8>,
    /// Paths in the snapshot; none stands for all of it.
    pub paths: Vec<serde_bytes::ByteBuf>,
    /// The directory that receives them, under the same paths.
    pub to: PathBuf,
    /// Replace what is there already.
    pub overwrite: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoreReport {
    pub files: u64,
    pub bytes: u64,
    /// What could not be restored, each with the reason.
    pub problems: Vec<String>,
}

/// Copies files out of a view of a base.
pub fn copy_out(
    daemon: &Daemon,
    views: &Views,
    options: &RestoreOptions,
    progress: OnProgress<'_>,
) -> Result<RestoreReport> {
    let View { base, moment } = views.view(&options.snapshot)?;
    let root = root_of(base);
    let to = target(daemon, &options.to)?;
    let making = |error| Error::media(format!("making {}", shown_file(&to)), error);
    let is_new = to.symlink_metadata().is_err();
    std::fs::create_dir_all(&to).map_err(making)?;
    let open = || -> std::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::open(&to, flags, Mode::empty())?)
    };
    let tally = Tally::of(&to);
    let putter = Putter {
        tree: views.tree(),
        moment,
        overwrite: options.overwrite,
        is_root: rustix::process::geteuid().is_root(),
        tally: &tally,
    };
    let mut walk = Walk {
        putter: &putter,
        root,
        descent: Descent::begin(open().map_err(making)?, OFlags::PATH).map_err(making)?,
        path: Vec::new(),
        depth: 0,
        jobs: None,
        numbered: 0,
        firsts: HashMap::new(),
        further: Vec::new(),
        directories: Vec::new(),
        visits: HashMap::new(),
        way: vec![root],
        progress,
    };
    let paths = apart(&options.paths);
    walk.with_threads(|walk| {
        if paths.is_empty() {
            walk.content(root)?;
        }
        paths.iter().try_for_each(|names| walk.path(names))
    });
    let opened = open().map(Arc::new).map_err(making)?;
    // A directory that was there already keeps its own attributes.
    let own = (paths.is_empty() && is_new).then_some(root);
    let finished = walk.finish_names(&opened).and_then(|()| walk.finish_directories(open().map_err(making)?, own));
    drop(walk);
    tally.reason()?;
    finished?;
    Ok(tally.report())
}

/// Where a directory is, or would be; refused where that is no directory.
fn target(daemon: &Daemon, given: &Path) -> Result<PathBuf> {
    let found = daemon.outside(given)?;
    if found.symlink_metadata().is_ok_and(|there| !there.is_dir()) {
        let text = format!("{} is no directory; name one to copy to, or one to be made", shown_file(given));
        return Err(Error::Refused(Errno::NOTDIR, text));
    }
    Ok(found)
}

fn not_in_snapshot(names: &[&[u8]]) -> String {
    format!(
        "{:?} is not in the snapshot; `ls` in the mounted snapshot or `pitfs diff` shows what is",
        shown(&names.join(&b'/'))
    )
}

/// A path without links, as far as it is there.
pub fn resolved(given: &Path) -> std::io::Result<PathBuf> {
    let mut missing = Vec::new();
    let mut at = given;
    loop {
        match at.canonicalize() {
            Ok(found) => return Ok(missing.iter().rev().fold(found, |path, name| path.join(name))),
            // What is a link that leads nowhere is not missing.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && at.symlink_metadata().is_err() => {
                match (at.file_name(), at.parent()) {
                    (Some(name), Some(above)) => (missing.push(name), at = above).0,
                    _ => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// The names of each path, without those that lie in others: two threads would be at one place.
fn apart(paths: &[serde_bytes::ByteBuf]) -> Vec<Vec<&[u8]>> {
    let mut kept: BTreeMap<Vec<&[u8]>, usize> = BTreeMap::new();
    for (at, path) in paths.iter().enumerate() {
        kept.entry(names_of(path).collect()).or_insert(at);
    }
    let is_in_another = |names: &[&[u8]]| (0..names.len()).any(|len| kept.contains_key(&names[..len]));
    let mut paths: Vec<(usize, &Vec<&[u8]>)> =
        kept.iter().filter(|(names, _)| !is_in_another(names)).map(|(names, at)| (*at, names)).collect();
    paths.sort_unstable();
    paths.into_iter().map(|(_, names)| names.clone()).collect()
}

/// The kernel's 32-bit form of a device number, as FUSE passes it, to that of the system calls.
pub(super) fn decode_device(device: u32) -> u64 {
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
    rustix::fs::makedev(major, minor)
}

/// The other way.
pub(super) fn encode_device(device: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}
