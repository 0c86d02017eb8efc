//! The journal: what is durable before the key-value store has it, so that nobody need wait for that.
//!
//! An entry is written, synced, and obsolete as soon as the key-value store has the same things. It is what
//! fsync makes durable, or a small commit as a whole. What is in an entry is for the layers above. The file
//! has two halves: entries written after freeze *n* go to half *n mod 2*, from its start. When freeze *n* + 2
//! comes, the key-value store has commit *n* + 1, and the half may be written over.
//!
//! Invariants:
//! - when [`Journal::sync`] has returned, the entry and all before it in its half survive a power cut;
//! - an entry that was read back was written whole, by one opening of the store, without a gap before it.

use crate::error::{Error, Result};
use crate::limits::{BLOCK_BYTES, JOURNAL_BYTES_MAX, JOURNAL_BYTES_MIN, JOURNAL_SHARE};
use crate::media::{Media, MediaDir};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use xxhash_rust::xxh3::Xxh3;

const FILE: &str = "journal";
const HEADER: usize = 40;

/// What an entry tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// What has become of an inode since the freeze.
    Inode,
    /// All that the freeze froze.
    Commit,
}

impl EntryKind {
    fn magic(self) -> &'static [u8; 4] {
        match self {
            EntryKind::Inode => b"pitJ",
            EntryKind::Commit => b"pitC",
        }
    }

    fn from_magic(magic: &[u8]) -> Option<EntryKind> {
        [EntryKind::Inode, EntryKind::Commit].into_iter().find(|kind| kind.magic() == magic)
    }
}

/// Where an entry stands: to be waited for with [`Journal::sync`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// An entry that was read back.
#[derive(Debug)]
pub struct Entry {
    /// The freeze after which it was written.
    pub after: u64,
    pub kind: EntryKind,
    pub payload: Vec<u8>,
}

pub struct Journal {
    dir: Arc<dyn MediaDir>,
    /// Tells the entries of this opening of the store from older ones.
    nonce: u64,
    inner: Mutex<Inner>,
    /// Held while syncing; the ticket up to which everything is durable.
    synced: Mutex<Ticket>,
    is_filling: AtomicBool,
}

#[derive(Default)]
struct Inner {
    media: Option<Arc<dyn Media>>,
    half_bytes: u64,
    halves: [Half; 2],
    last: Ticket,
}

#[derive(Clone, Copy, Default)]
struct Half {
    after: u64,
    used: u64,
    entries: u32,
}

impl Journal {
    /// Opens the journal; with the entries that were written after freeze `durable`, the last one that
    /// was committed, or later, in the order in which they were written.
    pub fn open(dir: Arc<dyn MediaDir>, nonce: u64, durable: u64) -> Result<(Journal, Vec<Entry>)> {
        let failed = |source| Error::media(format!("reading {FILE}"), source);
        let mut inner = Inner::default();
        let mut entries = Vec::new();
        if dir.exists(FILE).map_err(failed)? {
            let media = dir.open(FILE, false).map_err(failed)?;
            inner.half_bytes = media.len().map_err(failed)? / 2 / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
            for half in 0..2 {
                let found = read_half(&*media, half * inner.half_bytes, inner.half_bytes).map_err(failed)?;
                entries.extend(found.into_iter().filter(|entry| entry.after >= durable && entry.after % 2 == half));
            }
            entries.sort_by_key(|entry| entry.after);
            inner.media = Some(media);
        }
        let journal = Journal {
            dir,
            nonce,
            inner: Mutex::new(inner),
            synced: Mutex::default(),
            is_filling: AtomicBool::new(false),
        };
        Ok((journal, entries))
    }

    /// Sets room for entries aside, where there is enough.
    pub fn prepare(&self) -> Result<()> {
        self.media(&mut self.inner.lock()).map(|_| ())
    }

    /// Appends a commit; `None` when there is no room for it, or none was ever set aside: making the file takes
    /// longer than it saves.
    pub fn append_commit(&self, freeze: u64, payload: &[u8]) -> Result<Option<Ticket>> {
        let mut inner = self.inner.lock();
        match inner.half_bytes {
            0 => Ok(None),
            _ => self.append_to(&mut inner, freeze, EntryKind::Commit, payload),
        }
    }

    /// Appends an entry of an inode; `None` when there is no room for it.
    pub fn append(&self, after: u64, payload: &[u8]) -> Result<Option<Ticket>> {
        self.append_to(&mut self.inner.lock(), after, EntryKind::Inode, payload)
    }

    fn append_to(&self, inner: &mut Inner, after: u64, kind: EntryKind, payload: &[u8]) -> Result<Option<Ticket>> {
        let Some(media) = self.media(inner)? else { return Ok(None) };
        let index = (after % 2) as usize;
        let mut half = inner.halves[index];
        if half.after > after {
            // A commit that is durable was frozen after what the entry tells of.
            return Ok(Some(Ticket::default()));
        }
        if half.after < after {
            half = Half { after, ..Half::default() };
        }
        let bytes = encode(kind, self.nonce, &half, payload);
        if half.used + bytes.len() as u64 > inner.half_bytes {
            self.is_filling.store(true, Ordering::Relaxed);
            return Ok(None);
        }
        media
            .write_at(index as u64 * inner.half_bytes + half.used, &bytes)
            .map_err(|source| Error::media(format!("writing {FILE}"), source))?;
        half.used += bytes.len() as u64;
        half.entries += 1;
        inner.halves[index] = half;
        self.is_filling.store(half.used > inner.half_bytes / 2, Ordering::Relaxed);
        inner.last.0 += 1;
        Ok(Some(inner.last))
    }

    /// Waits until an entry would survive a power cut.
    pub fn sync(&self, ticket: Ticket) -> Result<()> {
        let mut synced = self.synced.lock();
        // Whoever held the lock before may have synced this entry as well.
        if *synced >= ticket {
            return Ok(());
        }
        let (media, last) = {
            let inner = self.inner.lock();
            (inner.media.clone(), inner.last)
        };
        if let Some(media) = media {
            media.sync().map_err(|source| Error::media(format!("syncing {FILE}"), source))?;
        }
        *synced = last;
        Ok(())
    }

    /// All that is in it has been committed: its room goes back to the file system.
    pub fn close(&self) -> Result<()> {
        let mut inner = self.inner.lock();
        inner.half_bytes = 0;
        match &inner.media {
            Some(media) => media.set_len(0).map_err(|source| Error::media(format!("emptying {FILE}"), source)),
            None => Ok(()),
        }
    }

    /// Whether a commit would be good, to begin with an empty half.
    pub fn is_filling(&self) -> bool {
        self.is_filling.load(Ordering::Relaxed)
    }

    /// A freeze has come: the next entries go to an empty half.
    pub fn frozen(&self) {
        self.is_filling.store(false, Ordering::Relaxed);
    }

    /// The file, made when it is needed first; `None` where there is no room for it.
    fn media(&self, inner: &mut Inner) -> Result<Option<Arc<dyn Media>>> {
        if let Some(media) = &inner.media
            && inner.half_bytes > 0
        {
            return Ok(Some(media.clone()));
        }
        let failed = |source| Error::media(format!("making {FILE}"), source);
        let room = self.dir.room().map_err(failed)?;
        let half_bytes = (room.total / JOURNAL_SHARE).clamp(JOURNAL_BYTES_MIN, JOURNAL_BYTES_MAX) / 2;
        let half_bytes = half_bytes / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        if room.available < half_bytes * 8 {
            return Ok(None);
        }
        let media = self.dir.open(FILE, true).map_err(failed)?;
        match media.allocate(0, half_bytes * 2) {
            Ok(()) => media.sync().map_err(failed)?,
            Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        }
        inner.media = Some(media.clone());
        inner.half_bytes = half_bytes;
        Ok(Some(media))
    }
}

/// Header, payload, and zeros to the end of a block.
fn encode(kind: EntryKind, nonce: u64, half: &Half, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity((HEADER + payload.len()).next_multiple_of(BLOCK_BYTES));
    bytes.extend_from_slice(kind.magic());
    bytes.extend_from_slice(&half.entries.to_le_bytes());
    bytes.extend_from_slice(&half.after.to_le_bytes());
    bytes.extend_from_slice(&nonce.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&check(&bytes, payload).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    bytes
}

fn check(header: &[u8], payload: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(header);
    hash.update(payload);
    hash.digest()
}

/// The entries of a half, up to the first that is not whole or not of the same opening.
fn read_half(media: &dyn Media, start: u64, len: u64) -> io::Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut first: Option<[u8; 16]> = None;
    let mut at = 0;
    while at + BLOCK_BYTES as u64 <= len {
        let mut header = [0; HEADER];
        media.read_at(start + at, &mut header)?;
        let word = |from: usize| u64::from_le_bytes(header[from..from + 8].try_into().unwrap_or_default());
        let number = u32::from_le_bytes(header[4..8].try_into().unwrap_or_default());
        let payload_len = word(24);
        let Some(kind) = EntryKind::from_magic(&header[..4]) else { break };
        let is_next = number as usize == entries.len()
            && first.is_none_or(|first| first == header[8..24])
            && payload_len <= len - at - HEADER as u64;
        if !is_next {
            break;
        }
        let mut payload = vec![0; payload_len as usize];
        media.read_at(start + at + HEADER as u64, &mut payload)?;
        if check(&header[..32], &payload) != word(32) {
            break;
        }
        first = header[8..24].try_into().ok();
        entries.push(Entry { after: word(8), kind, payload });
        at += (HEADER as u64 + payload_len).next_multiple_of(BLOCK_BYTES as u64);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::TestDir;

    fn payloads(entries: &[Entry]) -> Vec<(u64, u8)> {
        entries.iter().map(|entry| (entry.after, entry.payload[0])).collect()
    }

    fn append(journal: &Journal, after: u64, byte: u8, len: usize) {
        let ticket = journal.append(after, &vec![byte; len]).unwrap().unwrap();
        journal.sync(ticket).unwrap();
    }

    #[test]
    fn entries_come_back_in_order_until_they_are_obsolete() {
        let dir = Arc::new(TestDir::new());
        let open = |nonce, durable| Journal::open(dir.clone(), nonce, durable).unwrap();
        let (journal, entries) = open(1, 0);
        assert!(entries.is_empty());
        append(&journal, 3, 1, 100);
        append(&journal, 3, 2, 5000);
        append(&journal, 4, 3, 1);
        assert_eq!(payloads(&open(2, 3).1), [(3, 1), (3, 2), (4, 3)]);
        assert_eq!(payloads(&open(2, 4).1), [(4, 3)]);
        append(&journal, 5, 4, 1);
        assert_eq!(payloads(&open(2, 4).1), [(4, 3), (5, 4)], "the half of 3 is written over");
        assert_eq!(journal.append(3, &[9]).unwrap(), Some(Ticket::default()), "obsolete before it was written");
        assert!(open(2, 6).1.is_empty());
    }

    #[test]
    fn entries_of_an_earlier_opening_do_not_follow_later_ones() {
        let dir = Arc::new(TestDir::new());
        let (journal, _) = Journal::open(dir.clone(), 1, 0).unwrap();
        for byte in 0..3 {
            append(&journal, 2, byte, 10);
        }
        let (journal, _) = Journal::open(dir.clone(), 2, 2).unwrap();
        append(&journal, 2, 7, 10);
        assert_eq!(payloads(&Journal::open(dir.clone(), 3, 2).unwrap().1), [(2, 7)]);
    }

    #[test]
    fn commits_are_told_from_what_fsync_writes() {
        let dir = Arc::new(TestDir::new());
        let (journal, _) = Journal::open(dir.clone(), 1, 0).unwrap();
        assert_eq!(journal.append_commit(1, &[1]).unwrap(), None, "there is no file yet");
        journal.prepare().unwrap();
        append(&journal, 1, 2, 10);
        journal.sync(journal.append_commit(1, &[3]).unwrap().unwrap()).unwrap();
        let kinds: Vec<EntryKind> = Journal::open(dir, 2, 1).unwrap().1.iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [EntryKind::Inode, EntryKind::Commit]);
    }

    #[test]
    fn a_full_half_takes_no_more_until_the_next_freeze() {
        let dir = Arc::new(TestDir::new());
        let (journal, _) = Journal::open(dir, 1, 0).unwrap();
        let large = vec![1; JOURNAL_BYTES_MIN as usize / 8];
        let mut count = 0;
        while journal.append(1, &large).unwrap().is_some() {
            count += 1;
            assert!(count < 1000, "no end");
        }
        assert!(count >= 3 && journal.is_filling());
        journal.frozen();
        assert!(!journal.is_filling() && journal.append(2, &large).unwrap().is_some());
    }
}
