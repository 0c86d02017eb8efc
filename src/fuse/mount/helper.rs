//! Mounting as a normal user, through the setuid program fusermount3 of libfuse.
//!
//! The program mounts and passes the open device back over a socket whose number it finds in
//! `_FUSE_COMMFD`.

use super::{FUSERMOUNT, Options, SUBTYPE};
use crate::error::{Errno, Error, Result};
use crate::shown::{shown, shown_file};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

/// Mounts; the open device, and with `auto_unmount` the socket that has to stay open.
pub(super) fn mount(mount_point: &Path, source: &str, options: &Options) -> Result<(OwnedFd, Option<UnixStream>)> {
    let failed = |error: std::io::Error| Error::media(format!("running {FUSERMOUNT}"), error);
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let flags = fcntl_getfd(&theirs).map_err(|errno| failed(errno.into()))?;
    fcntl_setfd(&theirs, flags - FdFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
    let mut child = Command::new(FUSERMOUNT)
        .arg("-o")
        .arg(option_list(source, options))
        .arg("--")
        .arg(mount_point)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    drop(theirs);
    if let Some(device) = receive_device(&ours) {
        if options.auto_unmount {
            return Ok((device, Some(ours)));
        }
        child.wait().map_err(failed)?;
        return Ok((device, None));
    }
    let mut said = Vec::new();
    if let Some(stderr) = &mut child.stderr {
        stderr.read_to_end(&mut said).map_err(failed)?;
    }
    child.wait().map_err(failed)?;
    let said = shown(said.trim_ascii()).to_string();
    if said.contains("user_allow_other") {
        return Err(Error::Refused(
            Errno::PERM,
            "allow_other and allow_root need a line `user_allow_other` in /etc/fuse.conf; root can add it".into(),
        ));
    }
    Err(Error::Refused(Errno::IO, format!("mounting at {} failed: {said}", shown_file(mount_point))))
}

fn receive_device(socket: &UnixStream) -> Option<OwnedFd> {
    let mut byte = [0u8; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            result => break result.ok()?,
        }
    };
    if received.bytes == 0 {
        return None;
    }
    ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    })
}

fn option_list(source: &str, options: &Options) -> String {
    // A comma would end the option.
    let source = source.replace('\\', "\\\\").replace(',', "\\,");
    let mut list = format!("fsname={source},subtype={SUBTYPE},default_permissions");
    for (is_set, option) in [
        (options.allow_other || options.allow_root, "allow_other"),
        (options.auto_unmount, "auto_unmount"),
        (options.read_only, "ro"),
        (options.dev, "dev"),
        (options.suid, "suid"),
        (options.noexec, "noexec"),
        (options.noatime, "noatime"),
        (options.sync, "sync"),
        (options.dirsync, "dirsync"),
    ] {
        if is_set {
            list.push(',');
            list.push_str(option);
        }
    }
    list
}
