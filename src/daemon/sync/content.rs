//! The bytes of a file: compared by tracks, and only those written that differ.

use super::Sync;
use super::facts::Facts;
use crate::device::InodeNo;
use crate::error::{Errno, Error, Result};
use crate::tree::Change;
use rustix::fs::{Mode, OFlags, SeekFrom};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

/// Marks errors of the source, which concern one file only.
pub(super) const READING: &str = "reading the source";
/// Bytes read at once: whole tracks of every size.
const STEP_BYTES: u64 = 1 << 20;
const _: () = assert!(STEP_BYTES.is_multiple_of(crate::limits::TRACK_BYTES_MAX as u64));

/// Opens a file for reading. What it is has to be looked at: the name may lead to something else by now.
pub(super) fn open(directory: &OwnedFd, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?.into())
}

fn read_full(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < out.len() {
        match file.read_at(&mut out[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// The start of the next data at or after an offset, or the size where only a hole follows.
fn next_data(file: &File, offset: u64, size: u64) -> io::Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(data) => Ok(data),
        Err(Errno::NXIO) => Ok(size),
        // A file system without holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(offset),
        Err(errno) => Err(errno.into()),
    }
}

/// The end of the data at an offset.
fn next_hole(file: &File, offset: u64, size: u64) -> io::Result<u64> {
    match rustix::fs::seek(file, SeekFrom::Hole(offset)) {
        Ok(hole) => Ok(hole.max(offset + 1)),
        Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => Ok(size),
        Err(errno) => Err(errno.into()),
    }
}

/// The tracks in which a file has data, in runs.
pub(super) struct Runs<'a> {
    file: &'a File,
    size: u64,
    track_bytes: u64,
    at: u64,
}

impl Runs<'_> {
    pub(super) fn of(file: &File, size: u64, track_bytes: u64) -> Runs<'_> {
        Runs { file, size, track_bytes, at: 0 }
    }

    fn find(&mut self) -> io::Result<Option<Range<u64>>> {
        let data = if self.at < self.size { next_data(self.file, self.at, self.size)? } else { self.size };
        if data >= self.size {
            return Ok(None);
        }
        let start = (data / self.track_bytes * self.track_bytes).max(self.at);
        self.at = next_hole(self.file, data, self.size)?.next_multiple_of(self.track_bytes).min(self.size);
        Ok(Some(start..self.at))
    }
}

impl Iterator for Runs<'_> {
    type Item = io::Result<Range<u64>>;

    fn next(&mut self) -> Option<io::Result<Range<u64>>> {
        self.find().transpose()
    }
}

/// How often a file is read that is written to at the same time.
const TRIES: usize = 3;

impl Sync<'_> {
    /// Makes the bytes equal, again if the file was written to meanwhile. Whether any differed, what is known of the file
    /// that was read, and whether it was read at one moment.
    pub(super) fn settled_content(
        &mut self,
        file: &File,
        mut facts: Facts,
        inode: InodeNo,
        is_new: bool,
    ) -> Result<(bool, Facts, bool)> {
        let mut is_changed = false;
        for tried in 0..TRIES {
            is_changed |= self.content(file, facts.size, inode, is_new && tried == 0)?;
            let after = Facts::of(file).map_err(|error| Error::media(READING, error))?;
            if after.has_same_content(&facts) {
                return Ok((is_changed, facts, true));
            }
            facts = after;
        }
        Ok((is_changed, facts, false))
    }

    /// Makes the bytes equal, track by track; whether any differed. `size` is what the file is said to have: what it
    /// gives counts, less or more.
    fn content(&mut self, file: &File, size: u64, inode: InodeNo, is_new: bool) -> Result<bool> {
        let reading = |error| Error::media(READING, error);
        let old_size = if is_new { 0 } else { self.tree.inode(inode.live())?.size };
        let track_bytes = self.tree.device().track_bytes();
        let mut buffer = vec![0; STEP_BYTES.min(size.next_multiple_of(track_bytes).max(track_bytes)) as usize];
        let mut is_changed = false;
        let mut end = size;
        let mut offset = 0;
        'runs: for run in Runs::of(file, size, track_bytes) {
            let run = run.map_err(reading)?;
            is_changed |= self.hole(inode, offset, run.start.min(old_size), is_new)?;
            offset = run.start;
            while offset < run.end {
                let len = (buffer.len() as u64).min(run.end - offset) as usize;
                let bytes = &mut buffer[..len];
                let got = read_full(file, bytes, offset).map_err(reading)?;
                self.report.read_bytes += got as u64;
                is_changed |= self.tracks(inode, offset, &bytes[..got], old_size)?;
                offset += got as u64;
                if got < len {
                    end = offset;
                    break 'runs;
                }
            }
        }
        if end == size {
            is_changed |= self.hole(inode, offset, size.min(old_size), is_new)?;
            end = self.beyond(file, size, inode, old_size, &mut buffer)?;
            is_changed |= end > size;
        }
        is_changed |= end != old_size;
        if end != self.tree.inode(inode.live())?.size && !self.dry_run {
            self.before_change()?;
            self.tree.attributes().change(inode, Change { size: Some(end), ..Change::default() })?;
        }
        Ok(is_changed)
    }

    /// Reads what a file gives behind its size, as those of /proc do, and says where it ends. One that grows meanwhile is
    /// left to the next look.
    fn beyond(&mut self, file: &File, size: u64, inode: InodeNo, old_size: u64, buffer: &mut [u8]) -> Result<u64> {
        let reading = |error| Error::media(READING, error);
        let mut end = size;
        while read_full(file, &mut buffer[..1], end).map_err(reading)? > 0 {
            if Facts::of(file).map_err(reading)?.size != size {
                return Ok(size);
            }
            let got = read_full(file, buffer, end).map_err(reading)?;
            self.report.read_bytes += got as u64;
            self.tracks(inode, end, &buffer[..got], old_size)?;
            end += got as u64;
        }
        Ok(end)
    }

    /// Writes the tracks of a piece that differ from what is there.
    fn tracks(&mut self, inode: InodeNo, offset: u64, bytes: &[u8], old_size: u64) -> Result<bool> {
        if offset >= old_size {
            self.write(inode, offset, bytes)?;
            return Ok(true);
        }
        let mut is_changed = false;
        let track_bytes = self.tree.device().track_bytes() as usize;
        for (i, piece) in bytes.chunks(track_bytes).enumerate() {
            let at = offset + (i * track_bytes) as u64;
            if self.tree.files().read(inode.live(), at, piece.len())? != piece {
                self.write(inode, at, piece)?;
                is_changed = true;
            }
        }
        Ok(is_changed)
    }

    fn write(&mut self, inode: InodeNo, offset: u64, bytes: &[u8]) -> Result<()> {
        self.report.written_bytes += bytes.len() as u64;
        self.before_change()?;
        if self.dry_run { Ok(()) } else { self.tree.files().write(inode, offset, bytes, false) }
    }

    /// Makes a hole where the source has one and the copy has data.
    fn hole(&mut self, inode: InodeNo, from: u64, to: u64, is_new: bool) -> Result<bool> {
        if is_new || from >= to {
            return Ok(false);
        }
        match self.tree.files().seek_data(inode.live(), from) {
            Ok(data) if data < to => {
                self.before_change()?;
                if !self.dry_run {
                    self.tree.files().zero(inode, from, to - from, true, false)?;
                }
                Ok(true)
            }
            Ok(_) | Err(Error::Posix(Errno::NXIO)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
