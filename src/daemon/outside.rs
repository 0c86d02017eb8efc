//! Paths outside the store, which commands are given: found step by step, so that nothing is asked of a mount that
//! this process serves itself, and refused where they lie in the store or in such a mount.

use super::Daemon;
use crate::error::{Errno, Error, Result};
use crate::fuse::mounts;
use crate::shown::shown_file;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Links that a path may lead through, as in the kernel.
const LINKS_MAX: usize = 40;

/// What of the tree of files belongs to a store.
struct Own {
    /// Device and inode number of its directory, which may be seen elsewhere as well.
    store: Option<(u64, u64)>,
    mount_points: Vec<PathBuf>,
}

impl Own {
    fn of(daemon: &Daemon) -> Own {
        let store = daemon.path.metadata().ok().map(|store| (store.dev(), store.ino()));
        let mount_points = daemon.mount_point().map_or_else(Vec::new, |at| mounts_of_same(&at));
        Own { store, mount_points }
    }

    /// What is at a place that may be looked at, if anything is.
    fn look_at(&self, at: &Path, given: &Path) -> Result<Option<Metadata>> {
        let shown = || shown_file(given);
        let refused = |why| Err(Error::Refused(Errno::INVAL, format!("{} {why}; choose another directory", shown())));
        if self.mount_points.iter().any(|mount_point| mount_point == at) {
            return refused("lies in the mount of this store, where cp copies without copying data");
        }
        let found = match at.symlink_metadata() {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::media(format!("looking at {}", shown()), error)),
        };
        match self.store == Some((found.dev(), found.ino())) {
            true => refused("lies in the store's own directory"),
            false => Ok(Some(found)),
        }
    }

    /// Where a path leads to, without links, as far as it is there.
    fn resolve(&self, given: &Path) -> Result<PathBuf> {
        let of_given = |error| Error::media(format!("looking at {}", shown_file(given)), error);
        let mut at = PathBuf::from("/");
        let mut is_there = true;
        let mut links = 0;
        let mut names: VecDeque<OsString> = VecDeque::new();
        let push = |names: &mut VecDeque<OsString>, path: &Path| {
            for component in path.components().rev() {
                match component {
                    Component::Normal(name) => names.push_front(name.to_os_string()),
                    Component::ParentDir => names.push_front("..".into()),
                    Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
                }
            }
        };
        push(&mut names, given);
        while let Some(name) = names.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            at.push(&name);
            if !is_there {
                continue;
            }
            match self.look_at(&at, given)? {
                Some(found) if found.is_symlink() => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(of_given(rustix::io::Errno::LOOP.into()));
                    }
                    let target = at.read_link().map_err(of_given)?;
                    at.pop();
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    push(&mut names, &target);
                }
                Some(_) => {}
                None => is_there = false,
            }
        }
        Ok(at)
    }
}

impl Daemon {
    /// Where a path that was given leads to, or would: absolute, and without links as far as it is there. EINVAL where that
    /// is in the store or in a mount of it.
    pub(super) fn outside(&self, given: &Path) -> Result<PathBuf> {
        Own::of(self).resolve(given)
    }

    /// Refuses a mount point that would hide the store or an archive of it: nobody could reach them any more.
    pub(super) fn check_hides_nothing(&self, mount_point: &Path) -> Result<()> {
        let Ok(mount_point) = mount_point.canonicalize() else { return Ok(()) };
        let refused = |text| Err(Error::Refused(Errno::INVAL, text));
        if mount_point.starts_with(&self.path) {
            return refused("a store cannot be mounted over itself; choose another directory".into());
        }
        match self.archive_directories()?.into_iter().find(|archive| archive.starts_with(&mount_point)) {
            Some(archive) => refused(format!(
                "a mount at {} would hide the archive {}; choose another directory",
                shown_file(&mount_point),
                shown_file(&archive)
            )),
            None => Ok(()),
        }
    }

    /// The archives that are attached to bases of this store.
    pub(super) fn archive_directories(&self) -> Result<Vec<PathBuf>> {
        let look = self.views.tree().device().look()?;
        let archives = look.bases().filter_map(|(_, record)| record.archive.as_ref());
        Ok(archives.map(|archive| archive.directory.clone()).collect())
    }
}

/// All places at which the file system is mounted that is mounted at one; that one if it cannot be told.
pub(super) fn mounts_of_same(mount_point: &Path) -> Vec<PathBuf> {
    let mounts = mounts();
    let device = mounts.iter().rev().find(|mount| mount.at == mount_point).map(|mount| mount.device);
    let same = mounts.into_iter().filter(|mount| Some(mount.device) == device).map(|mount| mount.at);
    same.chain([mount_point.to_path_buf()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_followed_as_the_kernel_does_and_refused_where_it_is_our_own() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let make = |name: &str| std::fs::create_dir_all(root.join(name)).unwrap();
        let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, root.join(name)).unwrap();
        make("store/inner");
        make("shown/live");
        make("a/b");
        link("a/b", "to-b");
        link("../../a", "a/b/up");
        link("shown/live", "to-live");
        link(root.join("store/inner").to_str().unwrap(), "to-store");
        link("round", "round");
        let store = root.join("store").metadata().unwrap();
        let own = Own { store: Some((store.dev(), store.ino())), mount_points: vec![root.join("shown")] };
        let found = |path: &str| own.resolve(&root.join(path)).map(|at| at.strip_prefix(&root).unwrap().to_path_buf());
        assert_eq!(found("to-b/up/./b").unwrap(), Path::new("a/b"));
        assert_eq!(found("to-b/new/../other").unwrap(), Path::new("a/b/other"));
        assert_eq!(found("a/new/deep").unwrap(), Path::new("a/new/deep"));
        for own in ["store", "store/inner/x", "shown", "shown/live/x", "to-live", "to-store/x", "shown/../a"] {
            assert_eq!(found(own).unwrap_err().errno(), Errno::INVAL, "{own}");
        }
        assert!(found("round").unwrap_err().to_string().contains("symbolic links"));
        std::fs::write(root.join("file"), "").unwrap();
        assert!(found("file/below").unwrap_err().to_string().contains("Not a directory"));
    }
}
