//! `umount`: the end of a mount, and of its daemon, whatever state they are in.

use super::super::args::Umount;
use crate::control::{Answer, MountedInfo, PathText, Target, Verb, ask, locate_store, spelling};
use crate::daemon::{Use, holder, holding, is_dead, is_read, last_use, store_of, wait_a_moment, wait_for};
use crate::error::{Errno, Error, Result};
use crate::fuse::{DeviceNo, MountInfo, free, mount_around, mount_at, mounts, unmount_path, users};
use crate::shown::shown_file;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// After this it is said what is waited for.
const SILENCE: Duration = Duration::from_secs(3);
/// How long a daemon may take to notice that it was unmounted, and to end when it has closed the store.
const NOTICE: Duration = Duration::from_secs(5);
/// How long `umount` waits for the daemon's last commit.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Users of the mount that are named.
const USERS_SHOWN: usize = 5;

#[derive(Serialize)]
struct Unmounted {
    lazy: bool,
    #[serde(flatten, serialize_with = "spelling::unmounted::serialize")]
    unmounted: PathText,
}

pub fn umount(store: Option<PathBuf>, args: &Umount, as_json: bool) -> Result<bool> {
    let target = args.target.clone().or(store).map_or_else(std::env::current_dir, Ok);
    let target = target.and_then(std::path::absolute).map_err(|error| Error::media("looking where we stand", error))?;
    let done = Unmounted { lazy: args.lazy, unmounted: target.as_path().into() };
    let is_done = end(target, args)?;
    super::say(as_json, &done)?;
    Ok(is_done)
}

fn end(target: PathBuf, args: &Umount) -> Result<bool> {
    // Standing inside would keep it busy.
    std::env::set_current_dir("/").map_err(|error| Error::media("leaving the directory", error))?;
    if let Some(mount) = dead_mount_of(&target) {
        free(&mount)?;
        log::warn!(
            "the daemon of {} had been killed; its mount at {} is gone",
            shown_file(&mount.source),
            shown_file(&mount.at)
        );
        return store_of(&mount).map_or(Ok(true), |store| wait_for_end(&store, args.lazy, None));
    }
    let store = match locate_store(&target) {
        Err(error) if error.errno() == Errno::NOENT => {
            let text = format!("{} does not exist; give the mount point, or the store", shown_file(&target));
            return Err(Error::Refused(Errno::NOENT, text));
        }
        // The daemon is gone; what is left of its mount can go.
        Err(error) if error.errno() == Errno::NOTCONN => return unmount_path(&target, true).map(|()| true),
        target => target?,
    };
    let mount_point = match ask_mount_point(&store) {
        Ok(Some(mount_point)) => mount_point,
        // One of a store that can only be read is known to nobody but the kernel.
        Ok(None) => match mounts().into_iter().rev().find(|mount| mount.shows(&store.store)) {
            Some(mount) if is_read(&store.store) => mount.at,
            _ => return Err(Error::Refused(Errno::INVAL, format!("{} is not mounted", shown_file(&target)))),
        },
        // It is of another user, and where it is mounted is not told.
        Err(error) if error.errno() == Errno::PERM && mount_at(&target).is_none() => return Err(error),
        // The daemon may be gone and the mount still there.
        Err(_) => target.clone(),
    };
    let device = mount_at(&mount_point).map(|mount| mount.device);
    if device.is_none()
        && let Some(process) = shows_elsewhere(&store.store)
    {
        return Err(mounted_elsewhere(&store.store, &mount_point, process));
    }
    let daemon = holding(&store.store);
    unmount_path(&mount_point, args.lazy)?;
    let is_done = wait_for_end(&store.store, args.lazy, device)?;
    let start = Instant::now();
    let is_shown_elsewhere = || mounts().iter().any(|mount| mount.shows(&store.store));
    while is_read(&store.store) && !is_shown_elsewhere() && start.elapsed() < NOTICE {
        wait_a_moment(start.elapsed());
    }
    // So that what the store lies on can be unmounted next.
    if let Some(daemon) = daemon
        && holder(&store.store).is_ok_and(|holder| holder.is_none())
    {
        wait_for(&daemon, NOTICE);
    }
    Ok(is_done)
}

/// The mount that is meant, if its daemon is gone: at this place, around it, or of this store.
fn dead_mount_of(target: &Path) -> Option<MountInfo> {
    let is_known_dead = |mount: &MountInfo| mount.is_pitfs() && is_dead(mount) == Some(true);
    mount_at(target)
        .or_else(|| mount_around(target))
        .filter(is_known_dead)
        .or_else(|| mounts().into_iter().rev().find(|mount| mount.shows(target) && is_known_dead(mount)))
}

fn ask_mount_point(store: &Target) -> Result<Option<PathBuf>> {
    match ask(store, Verb::Mount, &mut |_| Ok(()))? {
        Answer::Mount(MountedInfo { mount_point }) => Ok(mount_point.map(PathBuf::from)),
        _ => Err(Error::Refused(Errno::PROTO, "the daemon gave an answer to another question".into())),
    }
}

/// Waits until the daemon has committed and let go of the store. `device` is that of what it had mounted.
fn wait_for_end(store: &Path, is_lazy: bool, device: Option<DeviceNo>) -> Result<bool> {
    let start = Instant::now();
    let mut has_told = false;
    loop {
        // A store that is not there, or closed to this user, is nothing to wait for.
        let Ok(Some(holder)) = holder(store) else { return how_it_ended(store) };
        let waited = start.elapsed();
        match holder.uses {
            // Others have it by now.
            Use::Command | Use::Starting => return Ok(true),
            Use::Mounted { .. } if is_lazy && waited > NOTICE => return Ok(true),
            Use::Mounted { .. } if waited > NOTICE => return Err(still_mounted(store, device)),
            _ if waited > TIMEOUT => {
                let text = format!(
                    "the daemon of {} has not ended after {} seconds; its log is in the store",
                    shown_file(store),
                    TIMEOUT.as_secs()
                );
                return Err(Error::Store(text));
            }
            _ if waited > SILENCE && !std::mem::replace(&mut has_told, true) => {
                log::warn!("it is unmounted; waiting for {holder}");
            }
            _ => {}
        }
        wait_a_moment(waited);
    }
}

fn how_it_ended(store: &Path) -> Result<bool> {
    match last_use(store) {
        Ok(Use::Failed(why)) => Err(Error::Store(format!(
            "it is unmounted, but the store {} was not closed well: {why}; what was not fsynced may be lost",
            shown_file(store)
        ))),
        _ => Ok(true),
    }
}

/// The daemon of a store that has it mounted in another mount namespace, as far as that can be seen here.
fn shows_elsewhere(store: &Path) -> Option<u32> {
    let holder = holder(store).ok()??;
    let process = holder.process.filter(|_| matches!(holder.uses, Use::Mounted { .. }))?;
    let space = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    (space(&process.to_string())? != space("self")?).then_some(process)
}

fn mounted_elsewhere(store: &Path, mount_point: &Path, process: u32) -> Error {
    let (store, at) = (shown_file(store), shown_file(mount_point));
    let text = format!(
        "{at} is not mounted here: process {process} shows the store {store} there in another mount namespace; \
         `nsenter -t {process} -m pitfs umount {at}` unmounts it, and `kill {process}` ends it, with all that was written kept"
    );
    Error::Refused(Errno::INVAL, text)
}

/// Unmounted here, and its daemon goes on.
fn still_mounted(store: &Path, device: Option<DeviceNo>) -> Error {
    let users = device.map(users).unwrap_or_default();
    let shown: Vec<String> = users.iter().take(USERS_SHOWN).map(ToString::to_string).collect();
    let by = match shown.as_slice() {
        [] => "somebody whom this user cannot see still uses it, perhaps in another mount namespace".to_string(),
        shown => shown.join("; "),
    };
    Error::Store(format!(
        "it is unmounted here, but the store {} stays in use, since {by}; the daemon ends with the last of them, or when SIGTERM is sent to it",
        shown_file(store)
    ))
}
