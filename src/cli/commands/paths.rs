//! Paths as the user gives them, and what they mean in the store.

use super::asking::quietly;
use super::output::file;
use super::unexpected;
use crate::control::{Answer, Target, Verb};
use crate::daemon::resolved;
use crate::error::{Errno, Error, Result};
use crate::shown::{shown, shown_file};
use serde_bytes::ByteBuf;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

fn mount_point(target: &Target) -> Result<Option<PathBuf>> {
    let Answer::Mount(mounted) = quietly(target, Verb::Mount)? else { return Err(unexpected()) };
    Ok(mounted.mount_point.map(PathBuf::from))
}

/// The path below live that a path given by the user means: below the mount, or as it is.
pub(super) fn path_in_live(target: &Target, given: &Path) -> Result<Vec<u8>> {
    let mount_point = mount_point(target)?;
    match below_mount(target, mount_point.as_deref(), given)? {
        Some((_, path)) => Ok(path),
        None => relative(mount_point.as_deref(), given),
    }
}

/// The same of what is to be written to, which is in live and in no other view.
pub(super) fn destination(target: &Target, given: &Path) -> Result<Vec<u8>> {
    if given.as_os_str().is_empty() {
        let text = "an empty path names no directory; without a destination all of live is meant";
        return Err(Error::Refused(Errno::INVAL, text.into()));
    }
    let mount_point = mount_point(target)?;
    match below_mount(target, mount_point.as_deref(), given)? {
        Some((view, _)) if view.file_name() != Some(crate::view::LIVE_NAME.as_ref()) => {
            Err(Error::Refused(Errno::INVAL, format!("{} is not in live", file(given))))
        }
        Some((_, path)) => Ok(path),
        None => relative(mount_point.as_deref(), given),
    }
}

/// A path as it was given, from the root of a view.
fn relative(mount_point: Option<&Path>, given: &Path) -> Result<Vec<u8>> {
    if !given.is_absolute() {
        return Ok(given.as_os_str().as_bytes().to_vec());
    }
    let given = file(given);
    let text = match mount_point {
        Some(mount_point) => format!("{given} is not below {}", file(mount_point)),
        None => format!("{given} lies in no mount of the store; paths are relative to the root of live"),
    };
    Err(Error::Refused(Errno::INVAL, text))
}

/// The paths of what is to be restored; one that means a whole view is `/`.
pub(super) fn paths_in_view(target: &Target, given: Vec<OsString>) -> Result<Vec<ByteBuf>> {
    if given.is_empty() {
        return Ok(Vec::new());
    }
    let mount_point = mount_point(target)?;
    let paths = given.into_iter().map(|path| match path.is_empty() {
        true => Ok(ByteBuf::new()),
        false => match path_in_view(target, mount_point.as_deref(), Path::new(&path))? {
            whole if whole.is_empty() => Ok(ByteBuf::from("/")),
            path => Ok(ByteBuf::from(path)),
        },
    });
    paths.collect()
}

fn path_in_view(target: &Target, mount_point: Option<&Path>, given: &Path) -> Result<Vec<u8>> {
    let below = below_mount(target, mount_point, given)?;
    Ok(below.map_or_else(|| given.as_os_str().as_bytes().to_vec(), |(_, path)| path))
}

/// The view that a path lies in, and the path from its root; `None` if it is not one below the mount.
fn below_mount(target: &Target, mount_point: Option<&Path>, given: &Path) -> Result<Option<(PathBuf, Vec<u8>)>> {
    let Some(mount_point) = mount_point else { return Ok(None) };
    let looking = |error| Error::media("looking at the path", error);
    let absolute = std::path::absolute(given).map_err(looking)?;
    let here = match (entered(mount_point, &absolute), absolute.parent(), absolute.file_name()) {
        (Some(here), _, _) => here,
        // What it leads to may be gone, or a link: the directory it is in tells where we are.
        (None, Some(parent), Some(name)) => resolved(parent).map_err(looking)?.join(name),
        (None, _, _) => absolute,
    };
    let Ok(below) = here.strip_prefix(mount_point) else { return Ok(None) };
    // The view's name goes; in a mount of several bases the base's before it as well.
    let mut names = below.components();
    let mut view = mount_point.to_path_buf();
    for _ in 0..crate::control::view_depth(mount_point) {
        if let Some(name) = names.next() {
            view.push(name);
        }
    }
    if !given.is_absolute() && !is_there(&view) {
        return Ok(None);
    }
    check_base(target, mount_point, &view)?;
    Ok(Some((view, names.as_path().as_os_str().as_bytes().to_vec())))
}

/// A path that leads into a mount, from there on as it is written: links in the tree are whoever's who may write there, and
/// are not followed.
fn entered(mount_point: &Path, absolute: &Path) -> Option<PathBuf> {
    let names: Vec<Component<'_>> = absolute.components().collect();
    let (mut here, rest) = (1..=names.len()).find_map(|count| {
        let front: PathBuf = names[..count].iter().collect();
        let here = front.canonicalize().ok().filter(|here| here.starts_with(mount_point))?;
        Some((here, &names[count..]))
    })?;
    for name in rest {
        match name {
            Component::ParentDir => drop(here.pop()),
            name => here.push(name),
        }
    }
    Some(here)
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Refuses a path in a view of another base than is meant.
fn check_base(target: &Target, mount_point: &Path, view: &Path) -> Result<()> {
    use crate::control::base_shown;
    let wanted = target.base.clone().or_else(|| base_shown(mount_point));
    match (base_shown(view), wanted) {
        (Some(found), Some(wanted)) if found != wanted => {
            let (found, shown) = (shown(&found), shown_file(view));
            let text = format!("{shown} shows the base {found:?}; -s STORE:{found} says that it is meant");
            Err(Error::Refused(Errno::INVAL, text))
        }
        _ => Ok(()),
    }
}
