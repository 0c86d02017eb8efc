//! lseek(2) for data and holes, where the kernel can have data that nobody else knows of.
//!
//! The kernel asks without writing out what it keeps: what a mapping or, with the writeback cache, write(2) put into a
//! hole, or past the end of the file. So an answer that rests on a hole of a file that may be dirty is given after the kernel
//! was told to drop the pages there, which makes it write them out, and from what is known then.
//!
//! The kernel holds the inode's lock until it is answered. Dropping pages does not take it; fsync(2) and close(2) do.

use super::FileSystem;
use super::number::KernelNo;
use crate::device::InodeAt;
use crate::error::{Errno, Error, Result};
use std::ops::Range;
use std::sync::Arc;

/// Tracks that are walked while others wait: a few milliseconds.
const LONG_SEEK_TRACKS: u64 = 1 << 14;

const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// What is looked for, from an offset on.
#[derive(Clone, Copy)]
struct Wanted {
    at: InodeAt,
    offset: u64,
    is_data: bool,
}

/// An offset, or NXIO; and the hole without which it would be another one.
type Answer = (Result<u64>, Option<Range<u64>>);

fn wanted(fs: &FileSystem, number: KernelNo, offset: i64, whence: i32) -> Result<Wanted> {
    let at = fs.inside(number)?;
    let offset = u64::try_from(offset).map_err(|_| Error::Posix(Errno::NXIO))?;
    match whence {
        SEEK_DATA | SEEK_HOLE => Ok(Wanted { at, offset, is_data: whence == SEEK_DATA }),
        _ => Err(Error::Posix(Errno::INVAL)),
    }
}

fn answer(fs: &FileSystem, wanted: Wanted) -> Answer {
    let Wanted { at, offset, is_data } = wanted;
    let tree = fs.views.tree();
    let data_after = |offset| tree.files().seek_data(at, offset);
    if is_data {
        return match data_after(offset) {
            Ok(data) => (Ok(data), (data > offset).then_some(offset..data)),
            Err(Error::Posix(Errno::NXIO)) => (Err(Error::Posix(Errno::NXIO)), Some(offset..u64::MAX)),
            Err(error) => (Err(error), None),
        };
    }
    match tree.files().seek_hole(at, offset) {
        Ok(hole) => (Ok(hole), Some(hole..data_after(hole).unwrap_or(u64::MAX))),
        Err(Error::Posix(Errno::NXIO)) => (Err(Error::Posix(Errno::NXIO)), Some(offset..u64::MAX)),
        Err(error) => (Err(error), None),
    }
}

/// Whether the kernel may have data in a hole. Past the end only write(2) puts some, which it keeps back with the
/// writeback cache.
fn may_have_data(fs: &FileSystem, wanted: Wanted, hole: &Range<u64>) -> bool {
    let Wanted { at, .. } = wanted;
    let is_inside = || fs.views.tree().inode(at).is_ok_and(|found| hole.start < found.size);
    at.is_live() && fs.unwritten().may_be_dirty(at.inode) && (fs.writeback || is_inside())
}

/// How an offset is found.
pub(super) enum Sought {
    Now(Result<u64>),
    /// The kernel writes pages out by requests before: not on a thread that serves them.
    AfterPages(Box<dyn FnOnce() -> Result<u64> + Send>),
}

/// Whether it is walked so far that nobody should wait for it.
pub(super) fn is_seek_long(fs: &FileSystem, number: KernelNo, offset: i64) -> bool {
    fs.has_more_tracks(number, offset.max(0) as u64, LONG_SEEK_TRACKS)
}

pub(super) fn lseek(fs: &Arc<FileSystem>, number: KernelNo, offset: i64, whence: i32) -> Sought {
    let wanted = match wanted(fs, number, offset, whence) {
        Ok(wanted) => wanted,
        Err(error) => return Sought::Now(Err(error)),
    };
    match (answer(fs, wanted), fs.notify.get().cloned()) {
        ((_, Some(hole)), Some(notify)) if may_have_data(fs, wanted, &hole) => {
            let fs = fs.clone();
            Sought::AfterPages(Box::new(move || {
                let mut seen = hole.start;
                let mut rests_on = Some(hole);
                let mut found = Err(Error::Posix(Errno::NXIO));
                while let Some(hole) = rests_on.filter(|hole| hole.end > seen) {
                    // No length means all that follows.
                    let len = if hole.end == u64::MAX { 0 } else { hole.end - hole.start };
                    notify.drop_pages(number, hole.start, len as usize);
                    seen = hole.end;
                    (found, rests_on) = answer(&fs, wanted);
                }
                found
            }))
        }
        ((found, _), _) => Sought::Now(found),
    }
}
