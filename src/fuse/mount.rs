//! Mounting and unmounting, and the session between.

mod end;
mod helper;
mod options;
mod point;

pub use point::MountPoint;

use super::connection::Connection;
use super::device::Domains;
use super::mounts::{DeviceNo, Door, mount_at};
use super::news::Teller;
use super::ring::{self, Prepared, Requests, Rings, Serves};
use super::{FileSystem, Notify, REQUEST_BYTES};
use crate::device::Changed;
use crate::error::{Errno, Error, Result};
use crate::shown::shown_file;
use fuser::{Config, Session, SessionACL};
use options::THREADS_DEFAULT;
pub use options::UseRings;
pub use options::{OPTION_HELP, Options, parse_options};
use rustix::fs::AtFlags;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub const DEVICE: &str = "/dev/fuse";
const SUBTYPE: &str = "pitfs";
pub const FUSERMOUNT: &str = "fusermount3";
/// Users of a mount that an error names.
const USERS_SHOWN: usize = 3;

/// What to do where a daemon was killed and its mount is left.
pub fn dead_mount(path: &Path) -> Error {
    let shown = shown_file(path);
    Error::Refused(
        Errno::NOTCONN,
        format!(
            "at {shown} hangs a mount whose daemon is gone; run `pitfs umount {shown}` and try again (`umount -f {shown}` as root or `fusermount3 -uz {shown}` do it too)"
        ),
    )
}

/// Opens a directory as the mount point of a store, or says what is wrong with it as such, before anything is started.
pub fn open_mount_point(path: &Path, store: &Path, options: &Options) -> Result<MountPoint> {
    let refused = |errno, text: String| Err(Error::Refused(errno, text));
    let shown = shown_file(path);
    // Of what it is, not of its name, which may lead somewhere else in a moment.
    let opened = MountPoint::open(path).and_then(|point| {
        // The kernel may know attributes of a mount whose daemon is gone; its room it has to ask for.
        rustix::fs::fstatvfs(&point.file)?;
        Ok((rustix::fs::fstat(&point.file)?.st_dev, point))
    });
    let (device, point) = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return refused(
                Errno::NOENT,
                format!("the mount point {shown} does not exist; make it with `mkdir -p {shown}`"),
            );
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            return refused(Errno::NOTDIR, format!("the mount point {shown} is not a directory"));
        }
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOTCONN) => return Err(dead_mount(path)),
        Err(error) => return Err(Error::media(format!("looking at the mount point {shown}"), error)),
    };
    if end::hides(&point.path, store) {
        let text = format!("a mount at {shown} would hide the store {}; choose another directory", shown_file(store));
        return refused(Errno::INVAL, text);
    }
    let above = rustix::fs::statat(&point.file, "..", AtFlags::empty());
    if above.is_ok_and(|above| above.st_dev != device) {
        return refused(
            Errno::BUSY,
            format!("something is mounted at {shown} already; unmount it first or choose another directory"),
        );
    }
    let is_empty = point.is_empty().map_err(|error| Error::media(format!("listing the mount point {shown}"), error))?;
    if !is_empty && !options.nonempty {
        return refused(
            Errno::NOTEMPTY,
            format!(
                "the mount point {shown} is not empty and what is in it would be hidden; choose an empty directory, or add -o nonempty"
            ),
        );
    }
    if !Path::new(DEVICE).exists() {
        return refused(Errno::NODEV, format!("{DEVICE} does not exist; load the kernel module with `modprobe fuse`"));
    }
    let needs_fusermount = !rustix::process::geteuid().is_root() || options.auto_unmount;
    if needs_fusermount && Command::new(FUSERMOUNT).arg("--version").output().is_err() {
        return refused(
            Errno::NOENT,
            format!(
                "{FUSERMOUNT} is needed to mount as a normal user and is not there; install it with `apt-get install fuse3` (or your system's package of that name)"
            ),
        );
    }
    if let Err(error) = File::options().read(true).write(true).open(DEVICE)
        && error.kind() == std::io::ErrorKind::PermissionDenied
    {
        return refused(
            Errno::ACCESS,
            format!(
                "{DEVICE} is closed to this user; it is open to all on most systems: root can do so with `chmod 666 {DEVICE}`"
            ),
        );
    }
    Ok(point)
}

/// As long as it is there, the kernel is told of what it did not ask for.
struct Fed(Arc<FileSystem>);

impl Fed {
    fn begin(fs: &Arc<FileSystem>, notify: &Notify) -> Result<Fed> {
        let teller = Teller::new(notify.clone(), fs.views.clone())?;
        let (fed, of, by) = (Fed(fs.clone()), fs.clone(), notify.clone());
        let fetch = move || if of.writeback { of.unwritten().fetch_dirty_pages(&by) } else { Ok(()) };
        let views = fs.views.clone();
        // What cannot be read is told of.
        let concerns = move |change: &Changed| match change {
            Changed::Shown(_) => true,
            Changed::Record { .. } => !matches!(views.tree().altered(change), Ok(None)),
        };
        let news = fs.views.tree().device().feed().subscribe(Arc::new(fetch), Arc::new(concerns));
        let run = super::thread::begin("news", move || teller.run(&news));
        run.map(|_| fed).map_err(|error| Error::media("starting the thread that tells the kernel", error))
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        self.0.views.tree().device().feed().unsubscribe();
    }
}

/// A mounted file system.
pub struct Mounted {
    fs: Arc<FileSystem>,
    ended: Arc<AtomicBool>,
    notify: Notify,
    mount_point: PathBuf,
    device: Option<DeviceNo>,
    transport: Transport,
    /// With `auto_unmount`: fusermount3 unmounts when this is closed, however we end.
    _keep: Option<UnixStream>,
}

/// What requests come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Device,
    Rings,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Transport::Device => "device",
            Transport::Rings => "rings",
        })
    }
}

/// A connection to the kernel, which knows what it can ask for and serves nobody yet.
struct Connected {
    session: Session<Domains>,
    device: File,
    rings: Option<Rings>,
    keep: Option<UnixStream>,
    connection: Option<Connection>,
}

impl Mounted {
    /// Mounts; the kernel's requests are served from now on, and `on_end` is called when that is over.
    pub fn mount(
        fs: FileSystem,
        point: &MountPoint,
        source: &str,
        options: &Options,
        on_end: impl FnOnce() + Send + 'static,
    ) -> Result<Mounted> {
        let mount_point = point.path.clone();
        if options.writeback {
            fs.views.tree().stamps().follow_kernel()?;
        }
        let fs = Arc::new(fs);
        let source = options.fsname.as_deref().unwrap_or(source);
        let failed = |error: std::io::Error| explain(error, &mount_point);
        let prepared = prepare_rings(options.rings)?;
        let connected = match connect(&fs, point, source, options, prepared) {
            // The kernel waits for rings that do not come: another mount has to take the place of this.
            Err(Failed::Rings(error)) if options.rings == UseRings::IfThere => {
                log::warn!("{error}; requests come through {DEVICE}");
                connect(&fs, point, source, options, None)
            }
            connected => connected,
        };
        let Connected { session, device, rings, keep, connection } = connected.map_err(Failed::into_error)?;
        let mut begun = end::Begun { mount_point: &mount_point, has_gone_well: false };
        let transport = if rings.is_some() { Transport::Rings } else { Transport::Device };
        if let Some(connection) = connection {
            let device = device.try_clone().map_err(failed)?;
            fs.connection.get_or_init(|| (connection, device));
        }
        let notify = Notify::new(mount_point.clone(), device, fs.clone(), rings.is_some());
        // Set once, here.
        fs.notify.get_or_init(|| notify.clone());
        let feed = Fed::begin(&fs, &notify)?;
        let session = session.spawn().map_err(failed)?;
        let ended = Arc::new(AtomicBool::new(false));
        let has_ended = ended.clone();
        let served = fs.clone();
        let watch = move || {
            if let Err(error) = session.join() {
                log::error!("the mount ended with an error: {error}");
                // What comes through rings would go on without what comes through the device.
                served.end_connection();
            }
            rings.into_iter().for_each(Rings::join);
            drop(feed);
            has_ended.store(true, Ordering::Release);
            on_end();
        };
        super::thread::begin("session", watch).map_err(failed)?;
        begun.has_gone_well = true;
        notify.prepare();
        // Another one can be there by now, if somebody moved a directory above.
        let device = mount_at(&mount_point).filter(|mount| mount.was_made_by_us(source)).map(|mount| mount.device);
        device.iter().for_each(|device| read_ahead(*device));
        log::info!("requests come through the {transport}");
        Ok(Mounted { fs, ended, notify, mount_point: mount_point.clone(), device, transport, _keep: keep })
    }

    /// What requests come through.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// What the file system is known by.
    pub fn device(&self) -> Option<DeviceNo> {
        self.device
    }

    pub fn notify(&self) -> &Notify {
        &self.notify
    }

    /// Whether the kernel has ended the session: somebody has unmounted it.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

/// Why there is no connection.
enum Failed {
    /// It was there, and rings could not be used.
    Rings(Error),
    Other(Error),
}

impl Failed {
    fn into_error(self) -> Error {
        match self {
            Failed::Rings(error) | Failed::Other(error) => error,
        }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Other(error)
    }
}

/// Rings, if they are to be used and can be.
fn prepare_rings(wanted: UseRings) -> Result<Option<Prepared>> {
    match wanted {
        UseRings::Never => Ok(None),
        UseRings::IfThere if !ring::is_enabled() => Ok(None),
        UseRings::IfThere => Ok(Prepared::new().inspect_err(|error| log::warn!("{error}")).ok()),
        UseRings::Always => {
            if !ring::is_enabled() {
                ring::enable()?;
            }
            Prepared::new().map(Some)
        }
    }
}

/// Mounts, and begins a session. The mount goes again where that fails.
fn connect(
    fs: &Arc<FileSystem>,
    point: &MountPoint,
    source: &str,
    options: &Options,
    prepared: Option<Prepared>,
) -> std::result::Result<Connected, Failed> {
    let mut config = Config::default();
    config.acl = match (options.allow_other, options.allow_root) {
        (true, _) => SessionACL::All,
        (false, true) => SessionACL::RootAndOwner,
        (false, false) => SessionACL::Owner,
    };
    // With rings, what still comes through the device is little.
    let threads = if prepared.is_some() { 1 } else { options.threads.unwrap_or(THREADS_DEFAULT) };
    config.n_threads = Some(threads);
    if threads > 1 {
        super::device::allow_following();
    }
    let failed = |error: std::io::Error| explain(error, &point.path);
    let needs_helper = !rustix::process::geteuid().is_root() || options.auto_unmount;
    let (device, keep) = if needs_helper {
        helper::mount(&point.path, source, options)?
    } else {
        (mount_as_root(point, source, options)?, None)
    };
    let mut begun = end::Begun { mount_point: &point.path, has_gone_well: false };
    let connection = Connection::at(&point.path);
    let further = File::from(device.try_clone().map_err(failed)?);
    let has_rings = Arc::new(AtomicBool::new(prepared.is_some()));
    let served = super::device::served(fs.clone(), has_rings.clone());
    let session = Session::from_fd(served, device, config.acl, config).map_err(failed)?;
    let rings = match prepared {
        Some(prepared) if has_rings.load(Ordering::Acquire) => {
            let device = Arc::new(further.try_clone().map_err(failed)?);
            // The kernel waits for rings that do not come, and with it whoever has looked into the mount.
            let server: Arc<dyn Serves> = Arc::new(Requests(fs.clone()));
            let begun = prepared.begin(&server, &device).inspect_err(|_| {
                let _has_ended = connection.is_some_and(|connection| connection.abort(&*device));
            });
            Some(begun.map_err(Failed::Rings)?)
        }
        Some(_) => {
            let text = "this kernel has rings for FUSE, and does not offer them";
            return Err(Failed::Rings(Error::Refused(Errno::OPNOTSUPP, text.into())));
        }
        None => None,
    };
    begun.has_gone_well = true;
    Ok(Connected { session, device: further, rings, keep, connection })
}

/// Lets the kernel read as far ahead as a request is long. By itself it asks for 128 KiB: a large file is then read in eight times
/// as many requests. Only root may, and without it a mount works as well.
fn read_ahead(device: DeviceNo) {
    let path = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if let Err(error) = std::fs::write(&path, (REQUEST_BYTES >> 10).to_string()) {
        log::debug!("{path}: {error}; the kernel reads ahead as far as it does by itself");
    }
}

/// Unmounts what is pitfs's own, and nothing else. With `lazy` also while it is in use: it disappears now and ends with its
/// last user.
pub fn unmount_path(mount_point: &Path, lazy: bool) -> Result<()> {
    let mut flags = UnmountFlags::NOFOLLOW;
    flags.set(UnmountFlags::DETACH, lazy);
    let shown = shown_file(mount_point);
    let door = match mount_at(mount_point) {
        Some(mount) if mount.is_pitfs() => Door::to(mount.device, &mount.at),
        Some(mount) => {
            let text =
                format!("what is mounted at {shown} is {}, not pitfs; `umount {shown}` unmounts it", mount.kind());
            return Err(Error::Refused(Errno::INVAL, text));
        }
        None => None,
    };
    match unmount(door.as_ref().map_or(mount_point.to_path_buf(), Door::path), flags) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => {
            let mut command = Command::new(FUSERMOUNT);
            command.arg(if lazy { "-uz" } else { "-u" }).arg("--").arg(mount_point);
            let output = command.output().map_err(|error| Error::media(format!("running {FUSERMOUNT}"), error))?;
            if output.status.success() {
                return Ok(());
            }
            let said = crate::shown::shown(output.stderr.trim_ascii()).to_string();
            if said.contains("busy") {
                return Err(Error::Refused(Errno::BUSY, format!("{shown} could not be unmounted: {said}")));
            }
            // It only says that it does not know it.
            match mount_at(mount_point) {
                None => Err(Error::Refused(Errno::INVAL, format!("{shown} is not mounted"))),
                Some(_) if said.contains("not found") => {
                    let text = format!("{shown} was mounted by another user, who, like root, can unmount it");
                    Err(Error::Refused(Errno::PERM, text))
                }
                Some(_) => Err(Error::Refused(Errno::PERM, format!("{shown} could not be unmounted: {said}"))),
            }
        }
        Err(Errno::BUSY) => Err(Error::Refused(Errno::BUSY, in_use(mount_point))),
        Err(Errno::INVAL) => Err(Error::Refused(Errno::INVAL, format!("{shown} is not mounted"))),
        Err(error) => {
            Err(Error::Refused(error, format!("{shown} could not be unmounted: {}", std::io::Error::from(error))))
        }
    }
}

/// What to do about a mount that is in use, and by whom.
fn in_use(mount_point: &Path) -> String {
    let shown = shown_file(mount_point);
    let users = mount_at(mount_point).map(|mount| super::mounts::users(mount.device)).unwrap_or_default();
    // Those in other mount namespaces are not in its way.
    let mut here = users.iter().filter(|user| user.sees_at.is_none()).map(|user| format!("; {user}"));
    let by: String = here.by_ref().take(USERS_SHOWN).collect();
    let more = if here.next().is_some() { "; and others" } else { "" };
    format!("{shown} is in use; leave it, or unmount it with --lazy (`fuser -vm {shown}` shows who is there){by}{more}")
}

fn explain(error: std::io::Error, mount_point: &Path) -> Error {
    let text = error.to_string();
    if let Some(Errno::ACCESS | Errno::PERM) = Errno::from_io_error(&error) {
        return Error::Refused(
            Errno::PERM,
            format!("{DEVICE} or {} may not be used by this user: {}", shown_file(mount_point), text.trim()),
        );
    }
    Error::Refused(Errno::IO, format!("mounting at {} failed: {}", shown_file(mount_point), text.trim()))
}

fn mount_as_root(point: &MountPoint, source: &str, options: &Options) -> Result<OwnedFd> {
    let device = File::options().read(true).write(true).open(DEVICE).map_err(|error| {
        Error::Refused(Errno::NODEV, format!("{DEVICE} cannot be opened: {error}; is the kernel module `fuse` loaded?"))
    })?;
    let failed = |errno: Errno| explain(errno.into(), &point.path);
    let root_mode = rustix::fs::fstat(&point.file).map_err(failed)?.st_mode;
    let mut data = format!(
        "fd={},rootmode={root_mode:o},user_id=0,group_id={},default_permissions",
        device.as_raw_fd(),
        rustix::process::getegid().as_raw()
    );
    if options.allow_other || options.allow_root {
        data.push_str(",allow_other");
    }
    let mut flags = MountFlags::empty();
    for (is_set, flag) in [
        (options.read_only, MountFlags::RDONLY),
        (!options.dev, MountFlags::NODEV),
        (!options.suid, MountFlags::NOSUID),
        (options.noexec, MountFlags::NOEXEC),
        (options.noatime, MountFlags::NOATIME),
        (options.sync, MountFlags::SYNCHRONOUS),
        (options.dirsync, MountFlags::DIRSYNC),
    ] {
        flags.set(flag, is_set);
    }
    let text = |text: &str| {
        CString::new(text).map_err(|_| Error::Refused(Errno::INVAL, "a mount option contains a zero byte".into()))
    };
    let kind = format!("fuse.{SUBTYPE}");
    mount(text(source)?.as_c_str(), point.door(), text(&kind)?.as_c_str(), flags, Some(text(&data)?.as_c_str()))
        .map_err(failed)?;
    Ok(device.into())
}
