//! Room set aside on the file system that carries a store, so that a full store can still delete.
//!
//! The reserve is a file of real blocks. When writing metadata finds the disk full, the file gives up a
//! piece and the write is tried again; a later commit fills it up when there is room.

use crate::limits::{RESERVE_BYTES_MAX, RESERVE_BYTES_MIN, RESERVE_SHARE};
use crate::media::{Media, MediaDir};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const FILE: &str = "reserve";
const PIECE: u64 = 1 << 20;

#[derive(Debug)]
pub struct Reserve {
    media: Arc<dyn Media>,
    dir: Arc<dyn MediaDir>,
    /// What the file system could spare.
    most: u64,
    /// What it should be now.
    full: AtomicU64,
    /// The most it has had: less than that was given up, and is to come back before anything grows.
    had: AtomicU64,
    lock: Mutex<()>,
}

impl Reserve {
    /// Opens the reserve of a store and fills it as far as there is room.
    pub fn open(dir: Arc<dyn MediaDir>) -> io::Result<Reserve> {
        let media = dir.open(FILE, true)?;
        let most = (dir.room()?.total / RESERVE_SHARE).clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX);
        let had = AtomicU64::new(RESERVE_BYTES_MIN.max(media.len()?).min(most));
        Ok(Reserve { media, dir, most, full: AtomicU64::new(RESERVE_BYTES_MIN), had, lock: Mutex::default() })
    }

    /// What a commit that deletes can need at most follows what there is of metadata: it writes pages anew.
    pub fn scale(&self, meta_bytes: u64) {
        self.full.store(meta_bytes.clamp(RESERVE_BYTES_MIN, self.most), Ordering::Relaxed);
    }

    fn full(&self) -> u64 {
        self.full.load(Ordering::Relaxed)
    }

    /// Bytes that the reserve of a store has, without opening it.
    pub fn bytes_in(dir: &dyn MediaDir) -> io::Result<u64> {
        if dir.exists(FILE)? { dir.open(FILE, false)?.len() } else { Ok(0) }
    }

    /// Gives one piece back to the file system; false when nothing is left.
    pub fn give_up_some(&self) -> io::Result<bool> {
        let _guard = self.lock.lock();
        let len = self.media.len()?;
        if len == 0 {
            return Ok(false);
        }
        self.media.set_len(len.saturating_sub(PIECE))?;
        Ok(true)
    }

    /// Takes back what was given up, where the file system has room again.
    pub fn refill(&self) -> io::Result<()> {
        let _guard = self.lock.lock();
        let (len, full) = (self.media.len()?, self.full());
        if len >= full {
            return Ok(());
        }
        let missing = full - len;
        if self.dir.room()?.available < missing + PIECE {
            return Ok(());
        }
        match self.media.allocate(len, missing) {
            Ok(()) => {
                self.had.fetch_max(full, Ordering::Relaxed);
                Ok(())
            }
            // Somebody else was faster; the reserve stays small until the next try.
            Err(_) => self.media.set_len(len),
        }
    }

    /// Gives back what is more than it should be now.
    pub fn trim(&self) -> io::Result<()> {
        let _guard = self.lock.lock();
        let full = self.full();
        self.had.fetch_min(full, Ordering::Relaxed);
        if self.media.len()? > full { self.media.set_len(full) } else { Ok(()) }
    }

    /// Bytes that it may still come to take, as metadata grows.
    pub fn to_come(&self) -> io::Result<u64> {
        Ok(self.most.saturating_sub(self.media.len()?))
    }

    /// Bytes the reserve holds now.
    pub fn bytes(&self) -> io::Result<u64> {
        self.media.len()
    }

    pub fn is_whole(&self) -> io::Result<bool> {
        Ok(self.media.len()? >= self.full().min(self.had.load(Ordering::Relaxed)))
    }
}
