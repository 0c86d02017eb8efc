//! The bytes of files, and the memory that they lie in.

use super::tree::Result;
use parking_lot::{Mutex, RwLock};
use pitfs::error::Errno;
use std::sync::Arc;

pub const FILE_BYTES_MAX: u64 = 64 << 30;
/// Memory of so many bytes is kept when its file is gone.
const SPARE_BYTES_MIN: usize = 16 << 20;
/// Of how many files it is kept.
const SPARES_MAX: usize = 4;

pub type Content = Arc<RwLock<Vec<u8>>>;

/// What there is of so many bytes after an offset.
pub fn within(bytes: &[u8], offset: u64, len: u32) -> &[u8] {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let end = start.saturating_add(len as usize).min(bytes.len());
    &bytes[start..end]
}

/// A size that a file can have.
fn checked(size: u64) -> Result<usize> {
    if size > FILE_BYTES_MAX { Err(Errno::FBIG) } else { Ok(size as usize) }
}

/// Memory of large files that are gone, the largest first. What it takes to have the same anew from the system, page by
/// page, is no cost of a transport.
#[derive(Default)]
pub struct Spares(Mutex<Vec<Vec<u8>>>);

impl Spares {
    /// Takes the memory of a file that is gone.
    pub fn keep(&self, mut bytes: Vec<u8>) {
        if bytes.capacity() < SPARE_BYTES_MIN {
            return;
        }
        bytes.clear();
        let mut spares = self.0.lock();
        spares.push(bytes);
        spares.sort_unstable_by_key(|spare| std::cmp::Reverse(spare.capacity()));
        spares.truncate(SPARES_MAX);
    }

    /// The smallest that is as large as this.
    fn take(&self, size: usize) -> Option<Vec<u8>> {
        let mut spares = self.0.lock();
        let at = spares.iter().rposition(|spare| spare.capacity() >= size)?;
        Some(spares.remove(at))
    }

    /// Makes room for so many bytes.
    fn grow(&self, bytes: &mut Vec<u8>, size: usize) -> Result<()> {
        if size > bytes.capacity().max(SPARE_BYTES_MIN)
            && let Some(mut spare) = self.take(size)
        {
            spare.extend_from_slice(bytes);
            self.keep(std::mem::replace(bytes, spare));
        }
        bytes.try_reserve(size.saturating_sub(bytes.len())).map_err(|_| Errno::NOSPC)
    }

    pub fn resize(&self, content: &Content, size: u64) -> Result<()> {
        let size = checked(size)?;
        let mut bytes = content.write();
        if size == 0 {
            self.keep(std::mem::take(&mut bytes));
            return Ok(());
        }
        self.grow(&mut bytes, size)?;
        bytes.resize(size, 0);
        Ok(())
    }

    /// Puts bytes where they belong; says where they end.
    pub fn put(&self, content: &Content, offset: u64, data: &[u8]) -> Result<u64> {
        let end = offset.checked_add(data.len() as u64).ok_or(Errno::FBIG)?;
        let (start, size) = (checked(offset)?, checked(end)?);
        let mut bytes = content.write();
        self.grow(&mut bytes, size)?;
        if start > bytes.len() {
            bytes.resize(start, 0);
        }
        let (over, behind) = data.split_at((bytes.len() - start).min(data.len()));
        bytes[start..start + over.len()].copy_from_slice(over);
        bytes.extend_from_slice(behind);
        Ok(end)
    }
}
