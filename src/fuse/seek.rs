//! lseek(2) for data and holes, where the kernel can have data that nobody else knows of.
//!
//! The kernel asks without writing out what it keeps: what a mapping or, with the writeback cache, write(2) put into a
//! hole, or past the end of the file. So an answer that rests on a hole of a file that may be dirty is given after the kernel
//! was told to drop the pages there, which makes it write them out, and from what is known then.
//!
//! The kernel holds the inode's lock until it is answered. Dropping pages does not take it; fsync(2) and close(2) do.

use super::mount::Served;
use super::number::KernelNo;
use super::{FileSystem, convert};
use crate::device::{InodeNo, Moment};
use crate::error::{Errno, Error, Result};
use fuser::ReplyLseek;
use std::ops::Range;

/// Tracks that are walked while others wait: a few milliseconds.
pub(super) const LONG_SEEK_TRACKS: u64 = 1 << 14;

const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// What is looked for, from an offset on.
#[derive(Clone, Copy)]
struct Sought {
    inode: InodeNo,
    moment: Moment,
    offset: u64,
    is_data: bool,
}

/// An offset, or NXIO; and the hole without which it would be another one.
type Answer = (Result<u64>, Option<Range<u64>>);

impl FileSystem {
    fn sought(&self, number: KernelNo, offset: i64, whence: i32) -> Result<Sought> {
        let (inode, moment) = self.inside(number)?;
        let offset = u64::try_from(offset).map_err(|_| Error::Posix(Errno::NXIO))?;
        match whence {
            SEEK_DATA | SEEK_HOLE => Ok(Sought { inode, moment, offset, is_data: whence == SEEK_DATA }),
            _ => Err(Error::Posix(Errno::INVAL)),
        }
    }

    fn answer(&self, sought: Sought) -> Answer {
        let Sought { inode, moment, offset, is_data } = sought;
        let tree = self.views.tree();
        let data_after = |offset| tree.files().seek_data(inode, offset, moment);
        if is_data {
            return match data_after(offset) {
                Ok(data) => (Ok(data), (data > offset).then_some(offset..data)),
                Err(Error::Posix(Errno::NXIO)) => (Err(Error::Posix(Errno::NXIO)), Some(offset..u64::MAX)),
                Err(error) => (Err(error), None),
            };
        }
        match tree.files().seek_hole(inode, offset, moment) {
            Ok(hole) => (Ok(hole), Some(hole..data_after(hole).unwrap_or(u64::MAX))),
            Err(Error::Posix(Errno::NXIO)) => (Err(Error::Posix(Errno::NXIO)), Some(offset..u64::MAX)),
            Err(error) => (Err(error), None),
        }
    }

    /// Whether the kernel may have data in a hole. Past the end only write(2) puts some, which it keeps back with the
    /// writeback cache.
    fn may_have_data(&self, sought: Sought, hole: &Range<u64>) -> bool {
        let Sought { inode, moment, .. } = sought;
        let is_inside = || self.views.tree().inode(inode, moment).is_ok_and(|found| hole.start < found.size);
        moment == Moment::Live && self.may_be_dirty(inode) && (self.writeback || is_inside())
    }
}

impl Served {
    pub(super) fn seek(&self, number: KernelNo, offset: i64, whence: i32, reply: ReplyLseek) {
        let sought = match self.sought(number, offset, whence) {
            Ok(sought) => sought,
            Err(error) => return reply.error(convert::errno(error)),
        };
        match (self.answer(sought), self.notify()) {
            ((_, Some(hole)), Some(notify)) if self.may_have_data(sought, &hole) => {
                let fs = self.file_system();
                // The kernel writes pages out by requests: not on a thread that serves them.
                std::thread::spawn(move || {
                    let mut seen = hole.start;
                    let mut rests_on = Some(hole);
                    let mut found = Err(Error::Posix(Errno::NXIO));
                    while let Some(hole) = rests_on.filter(|hole| hole.end > seen) {
                        // No length means all that follows.
                        let len = if hole.end == u64::MAX { 0 } else { hole.end - hole.start };
                        notify.drop_pages(number, hole.start, len as usize);
                        seen = hole.end;
                        (found, rests_on) = fs.answer(sought);
                    }
                    answer(reply, found);
                });
            }
            ((found, _), _) => answer(reply, found),
        }
    }
}

fn answer(reply: ReplyLseek, found: Result<u64>) {
    match found {
        Ok(offset) => reply.offset(offset as i64),
        Err(error) => reply.error(convert::errno(error)),
    }
}
