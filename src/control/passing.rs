//! A stream that a client brings with its request: passed over the socket as a descriptor, with the length in front of the message.

use super::sending;
use crate::error::Result;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// Sends the first bytes of a message, and a descriptor with them.
pub(super) fn send_with(socket: &UnixStream, bytes: &[u8], file: &File) -> Result<()> {
    let descriptors = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(sending(io::Error::other("there is no room for a descriptor")));
    }
    let sent = sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL);
    match sent.map_err(|error| sending(error.into()))? {
        len if len == bytes.len() => Ok(()),
        _ => Err(sending(io::ErrorKind::WriteZero.into())),
    }
}

/// A socket from which a descriptor is taken if one comes with the first bytes.
pub(super) struct WithFile<'a> {
    pub socket: &'a mut UnixStream,
    pub file: Option<File>,
}

impl Read for WithFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.file.is_some() {
            return self.socket.read(buffer);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let slice = &mut [IoSliceMut::new(buffer)];
        let received = recvmsg(&*self.socket, slice, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.file = descriptors.last().map(File::from);
            }
        }
        Ok(received.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_descriptor_comes_with_the_message() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (mut reads, writes) = io::pipe().unwrap();
        send_with(&ours, b"four", &File::from(std::os::fd::OwnedFd::from(writes))).unwrap();
        (&ours).write_all(b" and more").unwrap();
        let mut with = WithFile { socket: &mut theirs, file: None };
        let mut bytes = [0; 13];
        with.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"four and more");
        with.file.take().unwrap().write_all(b"through").unwrap();
        let mut text = String::new();
        reads.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }
}
