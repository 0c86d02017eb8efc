//! The key-value store's file, with a checksum for every page, verified at every read.
//!
//! ```text
//! file:   [checksums of 511 pages][page 0][page 1] … [page 510][checksums][page 511] …
//! ```
//!
//! A group is 512 pages of 4 KiB: one page of checksums and the 511 pages it covers.
//!
//! Invariants:
//! - a page that a durable commit refers to is never rewritten in place (the key-value store copies on
//!   write), so its checksum is the same in every version of the checksum page that a power cut,
//!   even one in the middle of writing that page, can leave behind;
//! - page 0, the one page that is rewritten in place, carries checksums of its own and is not covered;
//! - a checksum of 0 stands for a page of zeros that was never written.

use super::Reserve;
use crate::limits::{FULL_DISK_PAUSE, FULL_DISK_TRIES};
use crate::media::Media;
use parking_lot::Mutex;
use redb::StorageBackend;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use xxhash_rust::xxh3::xxh3_64_with_seed;

const PAGE: usize = 4096;
const COVERED: u64 = 511;

/// Set as soon as a page was found damaged; tells a reader that the store has to be reopened.
pub(super) type DamageFlag = Arc<AtomicBool>;

#[derive(Debug)]
pub(super) struct CheckedPages {
    media: Arc<dyn Media>,
    reserve: Option<Arc<Reserve>>,
    groups: Mutex<Groups>,
    damaged: DamageFlag,
}

#[derive(Debug, Default)]
struct Groups {
    sums: HashMap<u64, Box<[u64]>>,
    dirty: HashSet<u64>,
}

impl CheckedPages {
    pub(super) fn new(media: Arc<dyn Media>, reserve: Option<Arc<Reserve>>, damaged: DamageFlag) -> CheckedPages {
        CheckedPages { media, reserve, groups: Mutex::default(), damaged }
    }

    /// Bytes of the pages that were written, as of the last sync: the rest of the file takes no room.
    pub(super) fn written_bytes(media: &dyn Media) -> io::Result<u64> {
        let groups = media.len()?.div_ceil((COVERED + 1) * PAGE as u64);
        let mut written = 0;
        for group in 0..groups {
            let mut sums = [0u8; PAGE];
            media.read_at(group * (COVERED + 1) * PAGE as u64, &mut sums)?;
            written += sums.chunks_exact(8).filter(|sum| sum.iter().any(|&byte| byte != 0)).count() as u64;
        }
        Ok(written * PAGE as u64)
    }

    /// Reads the beginning of page 0.
    pub(super) fn read_head(media: &dyn Media, out: &mut [u8]) -> io::Result<()> {
        media.read_at(CheckedPages::physical(0), out)
    }

    fn note_failure<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|_| self.damaged.store(true, Ordering::Release))
    }

    fn checksum(page: u64, bytes: &[u8]) -> u64 {
        if bytes.iter().all(|&byte| byte == 0) { 0 } else { xxh3_64_with_seed(bytes, page).max(1) }
    }

    fn physical(page: u64) -> u64 {
        (page / COVERED * (COVERED + 1) + page % COVERED + 1) * PAGE as u64
    }

    fn physical_len(pages: u64) -> u64 {
        if pages == 0 { 0 } else { CheckedPages::physical(pages - 1) + PAGE as u64 }
    }

    fn sums<'a>(&self, groups: &'a mut Groups, group: u64) -> io::Result<&'a mut Box<[u64]>> {
        match groups.sums.entry(group) {
            Entry::Occupied(sums) => Ok(sums.into_mut()),
            Entry::Vacant(place) => {
                let mut bytes = [0u8; PAGE];
                let offset = group * (COVERED + 1) * PAGE as u64;
                if offset < self.media.len()? {
                    self.media.read_at(offset, &mut bytes)?;
                }
                let sums = bytes.chunks_exact(8).map(|sum| u64::from_le_bytes(sum.try_into().expect("eight bytes")));
                Ok(place.insert(sums.collect()))
            }
        }
    }

    fn read_page(&self, page: u64, out: &mut [u8]) -> io::Result<()> {
        self.media.read_at(CheckedPages::physical(page), out)?;
        if page == 0 {
            return Ok(());
        }
        let expected = self.sums(&mut self.groups.lock(), page / COVERED)?[(page % COVERED + 1) as usize];
        if CheckedPages::checksum(page, out) != expected {
            self.damaged.store(true, Ordering::Release);
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("page {page} of the metadata does not match its checksum"),
            ));
        }
        Ok(())
    }

    fn write_page(&self, page: u64, bytes: &[u8]) -> io::Result<()> {
        self.with_reserve(|| self.media.write_at(CheckedPages::physical(page), bytes))?;
        self.note(page, bytes)
    }

    fn note(&self, page: u64, bytes: &[u8]) -> io::Result<()> {
        let mut groups = self.groups.lock();
        self.sums(&mut groups, page / COVERED)?[(page % COVERED + 1) as usize] = CheckedPages::checksum(page, bytes);
        groups.dirty.insert(page / COVERED);
        Ok(())
    }

    /// Tries again where the disk is full: after giving up some of the reserve, and where nothing is left of it, a few
    /// times more. A failure here ends all writing, and a disk may be full for a moment only: while somebody else's
    /// file grows, or while room that was freed waits for a commit of the file system below.
    fn with_reserve(&self, action: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let mut tries = 0;
        loop {
            match action() {
                Err(error) if is_no_space(&error) => {
                    if self.give_up_some()? {
                        continue;
                    }
                    if tries == FULL_DISK_TRIES {
                        return Err(error);
                    }
                    std::thread::sleep(FULL_DISK_PAUSE * tries);
                    tries += 1;
                }
                result => return result,
            }
        }
    }

    fn give_up_some(&self) -> io::Result<bool> {
        self.reserve.as_ref().map_or(Ok(false), |reserve| reserve.give_up_some())
    }
}

fn is_no_space(error: &io::Error) -> bool {
    matches!(rustix::io::Errno::from_io_error(error), Some(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT))
}

impl CheckedPages {
    fn len_pages(&self) -> io::Result<u64> {
        let physical = self.media.len()? / PAGE as u64;
        let groups = physical.div_ceil(COVERED + 1);
        Ok((physical - groups) * PAGE as u64)
    }

    fn read_pages(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 > self.len_pages()? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        let mut whole = [0u8; PAGE];
        while done < out.len() {
            let at = offset + done as u64;
            let (page, within) = (at / PAGE as u64, (at % PAGE as u64) as usize);
            let count = (PAGE - within).min(out.len() - done);
            if count == PAGE {
                self.read_page(page, &mut out[done..done + PAGE])?;
            } else {
                self.read_page(page, &mut whole)?;
                out[done..done + count].copy_from_slice(&whole[within..within + count]);
            }
            done += count;
        }
        Ok(())
    }

    fn set_len_pages(&self, len: u64) -> io::Result<()> {
        if !len.is_multiple_of(PAGE as u64) {
            return Err(io::Error::other("the metadata file grows in whole pages only"));
        }
        let (before, pages) = (self.len_pages()? / PAGE as u64, len / PAGE as u64);
        self.with_reserve(|| self.media.set_len(CheckedPages::physical_len(pages)))?;
        if pages < before {
            // What is cut off reads as zeros should the file grow again.
            let mut groups = self.groups.lock();
            let kept_groups = pages.div_ceil(COVERED);
            groups.sums.retain(|group, _| *group < kept_groups);
            groups.dirty.retain(|group| *group < kept_groups);
            if !pages.is_multiple_of(COVERED) {
                let group = pages / COVERED;
                self.sums(&mut groups, group)?[(pages % COVERED + 1) as usize..].fill(0);
                groups.dirty.insert(group);
            }
        }
        Ok(())
    }

    fn sync_data_pages(&self) -> io::Result<()> {
        let mut groups = self.groups.lock();
        let dirty: Vec<u64> = groups.dirty.iter().copied().collect();
        for group in dirty {
            let bytes: Vec<u8> = self.sums(&mut groups, group)?.iter().flat_map(|sum| sum.to_le_bytes()).collect();
            self.with_reserve(|| self.media.write_at(group * (COVERED + 1) * PAGE as u64, &bytes))?;
        }
        groups.dirty.clear();
        drop(groups);
        self.media.sync()
    }

    fn write_pages(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let first = offset / PAGE as u64;
        if offset.is_multiple_of(PAGE as u64) && data.len().is_multiple_of(PAGE) {
            // Runs of pages within a group lie in one piece.
            let mut page = first;
            let mut rest = data;
            while !rest.is_empty() {
                let count = ((COVERED - page % COVERED) as usize).min(rest.len() / PAGE);
                let (run, after) = rest.split_at(count * PAGE);
                self.with_reserve(|| self.media.write_at(CheckedPages::physical(page), run))?;
                for (i, bytes) in run.chunks_exact(PAGE).enumerate() {
                    self.note(page + i as u64, bytes)?;
                }
                page += count as u64;
                rest = after;
            }
            return Ok(());
        }
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let (page, within) = (at / PAGE as u64, (at % PAGE as u64) as usize);
            let count = (PAGE - within).min(data.len() - done);
            let mut whole = [0u8; PAGE];
            if count < PAGE {
                self.read_page(page, &mut whole)?;
            }
            whole[within..within + count].copy_from_slice(&data[done..done + count]);
            self.write_page(page, &whole)?;
            done += count;
        }
        Ok(())
    }
}

/// Whatever fails here makes the database refuse all further work: it has to be opened anew to be read.
impl StorageBackend for CheckedPages {
    fn len(&self) -> io::Result<u64> {
        self.note_failure(self.len_pages())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.note_failure(self.read_pages(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.note_failure(self.set_len_pages(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.note_failure(self.sync_data_pages())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.note_failure(self.write_pages(offset, data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{MediaDir, TestDir};

    #[test]
    fn pages_come_back_and_damage_is_seen() {
        let dir = TestDir::new();
        let media = dir.open("m", true).unwrap();
        let open = || CheckedPages::new(media.clone(), None, DamageFlag::default());
        let pages = open();
        pages.set_len(2000 * PAGE as u64).unwrap();
        let data: Vec<u8> = (0..1200 * PAGE).map(|i| (i / 7) as u8).collect();
        pages.write(PAGE as u64, &data).unwrap();
        pages.write(3, b"header").unwrap();
        pages.sync_data().unwrap();
        let pages = open();
        assert_eq!(pages.len().unwrap(), 2000 * PAGE as u64);
        let mut out = vec![0; data.len()];
        pages.read(PAGE as u64, &mut out).unwrap();
        assert_eq!(out, data);
        pages.read(1500 * PAGE as u64, &mut out[..PAGE]).unwrap();
        assert!(out[..PAGE].iter().all(|&byte| byte == 0));
        dir.damage("m", CheckedPages::physical(700) + 99, 4);
        let pages = open();
        assert!(pages.read(701 * PAGE as u64, &mut out[..PAGE]).is_ok());
        assert_eq!(pages.read(700 * PAGE as u64, &mut out[..8]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(pages.damaged.load(Ordering::Acquire));
    }

    /// Pages on a disk that is full, with nothing left in reserve.
    fn on_a_full_disk() -> (TestDir, CheckedPages) {
        let dir = TestDir::new();
        let reserve = Reserve::open(Arc::new(dir.clone())).unwrap();
        let pages = CheckedPages::new(dir.open("m", true).unwrap(), Some(Arc::new(reserve)), DamageFlag::default());
        pages.set_len(8 * PAGE as u64).unwrap();
        dir.set_capacity(Some(0));
        (dir, pages)
    }

    #[test]
    fn a_disk_that_is_full_for_a_moment_is_waited_for() {
        let (dir, pages) = on_a_full_disk();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(FULL_DISK_PAUSE * 10);
                dir.set_capacity(None);
            });
            pages.write(PAGE as u64, &[7; 3 * PAGE]).unwrap();
        });
        assert_eq!(dir.file_len("reserve"), 0);
        assert!(!pages.damaged.load(Ordering::Acquire));
        let mut out = [0; PAGE];
        pages.read(3 * PAGE as u64, &mut out).unwrap();
        assert_eq!(out, [7; PAGE]);
    }

    #[test]
    fn a_disk_that_stays_full_is_an_error_in_the_end() {
        let (_dir, pages) = on_a_full_disk();
        let start = std::time::Instant::now();
        let error = pages.write(PAGE as u64, &[7; PAGE]).unwrap_err();
        assert!(is_no_space(&error), "{error}");
        assert!(start.elapsed() < FULL_DISK_PAUSE * FULL_DISK_TRIES * FULL_DISK_TRIES, "{:?}", start.elapsed());
    }

    #[test]
    fn what_was_cut_off_reads_as_zeros_after_growing() {
        let dir = TestDir::new();
        let pages = CheckedPages::new(dir.open("m", true).unwrap(), None, DamageFlag::default());
        pages.set_len(20 * PAGE as u64).unwrap();
        pages.write(9 * PAGE as u64, &[7; PAGE]).unwrap();
        pages.set_len(5 * PAGE as u64).unwrap();
        pages.set_len(20 * PAGE as u64).unwrap();
        let mut out = [1; PAGE];
        pages.read(9 * PAGE as u64, &mut out).unwrap();
        assert_eq!(out, [0; PAGE]);
    }
}
