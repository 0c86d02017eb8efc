//! A tree as one stream: a tar archive that is unpacked into a base, and a moment that is packed into one. Nothing of it is
//! a file outside: whoever asks brings the stream.
//!
//! Written is what POSIX has (pax), with times to the nanosecond, and what GNU tar and star add to it: xattrs
//! (`SCHILY.xattr.NAME`), access lists as text (`SCHILY.acl.access`, `SCHILY.acl.default`), and holes (`GNU.sparse`, 1.0).
//! Read is that as well, and what is older.

mod acl;
mod get;
mod members;
mod pax;
mod put;

pub use get::get;
pub use put::put;

use crate::error::{Errno, Error, Result};
use crate::shown::shown;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

/// What came of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamReport {
    pub files: u64,
    pub bytes: u64,
    /// What could not be made, or packed, each with the reason.
    pub problems: Vec<String>,
}

/// Problems that are told one by one, and bytes of each.
const PROBLEMS_MAX: usize = 10_000;
const PROBLEM_BYTES_MAX: usize = 4096;

impl StreamReport {
    fn problem(&mut self, path: &[u8], what: impl std::fmt::Display) {
        match self.problems.len() {
            PROBLEMS_MAX => self.problems.push("and more, which are not told one by one".into()),
            count if count < PROBLEMS_MAX => {
                let mut text = format!("{}: {what}", shown(path));
                text.truncate(
                    (0..=PROBLEM_BYTES_MAX.min(text.len())).rfind(|at| text.is_char_boundary(*at)).unwrap_or(0),
                );
                self.problems.push(text);
            }
            _ => {}
        }
    }
}

/// How long the other side may take before it is looked whether anybody still wants it.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Bytes that a pipe takes as a whole.
const PIPE_BUF: usize = 4096;

/// The stream, whose other side may be slow, or gone.
pub(super) struct Stream<F> {
    file: Arc<File>,
    is_file: bool,
    bytes: u64,
    /// Called again and again while the other side is waited for, with the bytes that went so far.
    is_wanted: F,
    /// Why it is not, when it is not.
    given_up: Option<Error>,
}

/// As whoever asks for a tar archive says.
type IsWanted<'a> = &'a mut dyn FnMut(u64) -> Result<()>;

impl<F: FnMut(u64) -> Result<()>> Stream<F> {
    pub(super) fn new(file: Arc<File>, is_wanted: F) -> Stream<F> {
        let is_file = file.metadata().is_ok_and(|found| found.is_file());
        Stream { file, is_file, bytes: 0, is_wanted, given_up: None }
    }

    fn wait(&mut self, for_what: PollFlags) -> io::Result<()> {
        loop {
            (self.is_wanted)(self.bytes).map_err(|error| {
                self.given_up = Some(error);
                io::Error::other("it is given up")
            })?;
            let ready = &mut [PollFd::new(&self.file, for_what)];
            match rustix::event::poll(ready, Some(&PAUSE)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                // A file of a disk is always ready.
                Err(Errno::PERM) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads or writes once that can be done.
    fn again(&mut self, for_what: PollFlags, mut work: impl FnMut(&File) -> io::Result<usize>) -> io::Result<usize> {
        loop {
            self.wait(for_what)?;
            match work(&self.file) {
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                result => return result,
            }
        }
    }

    /// What went wrong, in words.
    fn failed(&mut self, what: &str, error: io::Error) -> Error {
        self.given_up.take().unwrap_or_else(|| Error::media(what, error))
    }
}

impl<F: FnMut(u64) -> Result<()>> Read for Stream<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.again(PollFlags::IN, |mut file| file.read(buffer))?;
        self.bytes += read as u64;
        Ok(read)
    }
}

impl<F: FnMut(u64) -> Result<()>> Write for Stream<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // What a pipe that is ready takes without making anybody wait; more would wait for its reader.
        let most = if self.is_file { bytes.len() } else { bytes.len().min(PIPE_BUF) };
        let written = self.again(PollFlags::OUT, |mut file| file.write(&bytes[..most]))?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
