//! Paths outside the store, which commands are given: found step by step, so that nothing is asked of a mount that
//! this process serves itself, and refused where they lie in the store or in such a mount.

use super::Daemon;
use super::archives::leads_nowhere;
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

/// What of a store a path can lie in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Mount,
    Store,
}

impl Part {
    fn refused(self, given: &Path) -> Error {
        let what = match self {
            Part::Mount => "lies in the mount of this store, where cp copies without copying data",
            Part::Store => "lies in the store's own directory",
        };
        Error::Refused(Errno::INVAL, format!("{} {what}; choose another directory", shown_file(given)))
    }
}

/// Puts the names of a path before those that are still to be followed.
fn put_before(names: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => names.push_front(name.to_os_string()),
            Component::ParentDir => names.push_front("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

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

    /// Told by its path alone: a mount is not looked at.
    fn is_mount(&self, at: &Path) -> bool {
        self.mount_points.iter().any(|mount_point| mount_point == at)
    }

    fn is_store(&self, found: &Metadata) -> bool {
        self.store == Some((found.dev(), found.ino()))
    }

    /// Where a path leads to, without links, as far as it is there, and whether a link led to what is not there. It may lead
    /// through what is ours and out again.
    fn resolve(&self, given: &Path) -> Result<(PathBuf, bool)> {
        let of_given = |error| Error::media(format!("looking at {}", shown_file(given)), error);
        let mut at = PathBuf::from("/");
        let (mut is_there, mut is_dangling) = (true, false);
        let mut links = 0;
        // Where what is ours begins.
        let mut ours: Option<(PathBuf, Part)> = None;
        let mut names: VecDeque<OsString> = VecDeque::new();
        put_before(&mut names, given);
        // How many of the names are from the path itself: those before them are from links.
        let mut left = names.len();
        while let Some(name) = names.pop_front() {
            let is_of_link = names.len() >= left;
            left = left.min(names.len());
            if name == ".." {
                if !is_there {
                    return Err(of_given(rustix::io::Errno::NOENT.into()));
                }
                at.pop();
            } else {
                at.push(&name);
            }
            ours = ours.filter(|(begin, _)| at.starts_with(begin));
            if name == ".." || !is_there || ours.as_ref().is_some_and(|(_, part)| *part == Part::Mount) {
                continue;
            }
            if self.is_mount(&at) {
                ours = Some((at.clone(), Part::Mount));
                continue;
            }
            match at.symlink_metadata() {
                Ok(found) if found.is_symlink() => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(of_given(rustix::io::Errno::LOOP.into()));
                    }
                    let target = at.read_link().map_err(of_given)?;
                    at.pop();
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    put_before(&mut names, &target);
                }
                Ok(found) => ours = ours.or_else(|| self.is_store(&found).then(|| (at.clone(), Part::Store))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    (is_there, is_dangling) = (false, is_of_link)
                }
                Err(error) => return Err(of_given(error)),
            }
        }
        match ours.filter(|(begin, _)| at.starts_with(begin)) {
            Some((_, part)) => Err(part.refused(given)),
            None => Ok((at, is_dangling)),
        }
    }
}

impl Daemon {
    /// Where a path that was given leads to, or would: absolute, and without links as far as it is there. EINVAL where that
    /// is in the store or in a mount of it.
    pub(super) fn outside(&self, given: &Path) -> Result<PathBuf> {
        Ok(Own::of(self).resolve(given)?.0)
    }

    /// The same for what is made where it is missing, but not at the end of a link.
    pub(super) fn outside_to_make(&self, given: &Path) -> Result<PathBuf> {
        match Own::of(self).resolve(given)? {
            (_, true) => Err(leads_nowhere(given)),
            (at, false) => Ok(at),
        }
    }

    /// Refuses a mount point that would hide the store or an archive of it: nobody could reach them any more.
    pub(super) fn check_hides_nothing(&self, mount_point: &Path) -> Result<()> {
        let refused = |text| Err(Error::Refused(Errno::INVAL, text));
        if mount_point.starts_with(&self.path) {
            return refused("a store cannot be mounted over itself; choose another directory".into());
        }
        match self.archive_directories()?.into_iter().find(|archive| archive.starts_with(mount_point)) {
            Some(archive) => refused(format!(
                "a mount at {} would hide the archive {}; choose another directory",
                shown_file(mount_point),
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
        let resolve = |path: &str| own.resolve(&root.join(path));
        let found = |path: &str| resolve(path).map(|(at, _)| at.strip_prefix(&root).unwrap().to_path_buf());
        assert_eq!(found("to-b/up/./b").unwrap(), Path::new("a/b"));
        assert_eq!(found("to-b/../other").unwrap(), Path::new("a/other"));
        // Ways that lead through what is ours and out again.
        assert_eq!(found("shown/live/../../a/b").unwrap(), Path::new("a/b"));
        assert_eq!(found("to-live/x/../../../new").unwrap(), Path::new("new"));
        assert_eq!(found("store/inner/../../a").unwrap(), Path::new("a"));
        assert_eq!(found("to-store/../../new").unwrap(), Path::new("new"));
        // As in the kernel, nothing is above what is not there.
        for missing in ["to-b/new/../other", "no/../shown/live/x", "no/../store/x"] {
            assert!(found(missing).unwrap_err().to_string().contains("o such file"), "{missing}");
        }
        assert_eq!(found("a/new/deep").unwrap(), Path::new("a/new/deep"));
        link("a/none", "dangling");
        link("dangling", "to-dangling");
        for (path, is_dangling) in [
            ("dangling", true),
            ("to-dangling", true),
            ("dangling/new", true),
            ("to-b/new/deep", false),
            ("to-b", false),
        ] {
            assert_eq!(resolve(path).unwrap().1, is_dangling, "{path}");
        }
        for own in [
            "store",
            "store/inner/x",
            "shown",
            "shown/live/x",
            "to-live",
            "to-store/x",
            "a/../shown/x",
            "shown/../store",
        ] {
            assert_eq!(found(own).unwrap_err().errno(), Errno::INVAL, "{own}");
        }
        assert!(found("round").unwrap_err().to_string().contains("symbolic links"));
        std::fs::write(root.join("file"), "").unwrap();
        assert!(found("file/below").unwrap_err().to_string().contains("Not a directory"));
    }
}
