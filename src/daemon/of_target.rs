//! What stores have at a target, shown with no store: a scratch store is made that has the names of the moments and nothing else.
//!
//! It lies in a directory of its own among temporary files, is only read, and goes when it is closed; what a killed process has
//! left goes with the next.

use super::Lock;
use super::targets::{AtTarget, open_alone};
use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::logstore::Codec;
use crate::media::DiskDir;
use crate::shown::shown_file;
use crate::target::{Listed, Repository, given_twice};
use crate::tree::CreateOptions;
use crate::view::{InSet, InSets, Views, show_sets};
use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// In the name of a scratch store's directory.
const SCRATCH: &str = "pitfs-target-";

/// A scratch store, as long as it is there.
pub(super) struct Scratch {
    path: PathBuf,
    target: PathBuf,
    repository: Repository,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            log::warn!("{} stays behind: {error}", shown_file(&self.path));
        }
    }
}

impl Scratch {
    /// Makes one if a path leads to a target.
    pub fn of(path: &Path) -> Result<Option<Scratch>> {
        let Some(AtTarget { repository, .. }) = open_alone(path)? else { return Ok(None) };
        let shown = shown_file(path);
        let Some(first) = repository.catalogue().moments().next() else {
            let text = format!("the target {shown} has no set of the store {} yet", repository.store());
            return Err(Error::Refused(Errno::NOENT, text));
        };
        let how = |listed: &Listed| (listed.header.track_bytes, listed.header.hash_seed);
        if let Some(other) = repository.catalogue().moments().find(|listed| how(listed) != how(first)) {
            let (one, other) = (first.id, other.id);
            let text = format!("{shown} has the sets {one} and {other} of stores that keep files differently");
            return Err(Error::Refused(Errno::INVAL, text));
        }
        remove_left_over();
        let scratch = std::env::temp_dir().join(format!("{SCRATCH}{}", Id::random()));
        let failed = |error| Error::media(format!("making {}", shown_file(&scratch)), error);
        std::fs::DirBuilder::new().mode(0o700).create(&scratch).map_err(failed)?;
        let options = CreateOptions {
            track_bytes: first.header.track_bytes as usize,
            codec: Codec::None,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mode: 0o755,
            hash_seed: first.header.hash_seed,
        };
        let scratch = Scratch { path: scratch, target: path.to_path_buf(), repository };
        super::Daemon::create_in(&scratch.path, &options, DiskDir::passing)?;
        Ok(Some(scratch))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Shows the moments in the store that was made for it, which can only be read from then on.
    pub fn show(&self, views: &Views) -> Result<()> {
        let mut bases: BTreeMap<Id, Vec<&Listed>> = BTreeMap::new();
        for listed in self.repository.catalogue().moments() {
            bases.entry(listed.header.base).or_default().push(listed);
        }
        let mut shown: Vec<InSets> = Vec::new();
        for all in bases.into_values() {
            let Some(newest) = all.last() else { continue };
            let mut name = newest.header.base_name.clone();
            if shown.iter().any(|other| other.name == name) {
                name = format!("{name}~{}", newest.header.base.short());
            }
            shown.push(InSets { name, moments: told_apart(&all) });
        }
        // The base that has always been there comes first.
        shown.sort_by_key(|base| base.name != crate::view::LIVE_NAME);
        show_sets(views, self.repository.sets(), shown)?;
        views.tree().only_read(&format!("{} is a target, whose sets are never changed", shown_file(&self.target)))
    }
}

/// The moments of a base, the oldest first, each once, with names of their own.
fn told_apart(all: &[&Listed]) -> Vec<InSet> {
    let mut sets: HashMap<Id, &Listed> = HashMap::new();
    for listed in all {
        let known = sets.entry(listed.header.mark.id).or_insert(listed);
        if listed.missing <= known.missing {
            *known = listed;
        }
    }
    let twice = given_twice(all.iter().map(|listed| (listed.header.mark.name.as_str(), listed.header.mark.id)));
    let each = all.iter().filter(|listed| sets[&listed.header.mark.id].id == listed.id);
    let in_set = |listed: &&Listed| {
        let mut mark = listed.header.mark.clone();
        if twice.contains(mark.name.as_str()) {
            mark.name = listed.name_with_id();
        }
        InSet { mark, set: listed.id, bytes: listed.header.bytes }
    };
    each.map(in_set).collect()
}

/// Removes scratch stores of this user whose processes are gone.
fn remove_left_over() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    let me = rustix::process::geteuid().as_raw();
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(SCRATCH))
            && entry.metadata().is_ok_and(|found| found.is_dir() && std::os::unix::fs::MetadataExt::uid(&found) == me);
        let path = entry.path();
        // One that is just being made is no store yet.
        if is_ours
            && let Ok(directory) = super::checked(&path)
            && let Ok(Some(_lock)) = Lock::try_take(&directory, &super::Use::Command)
        {
            std::fs::remove_dir_all(&path).unwrap_or_default();
        }
    }
}
