//! The journal: what is durable before the key-value store has it, so that nobody need wait for that.
//!
//! An entry is written, synced, and obsolete as soon as the key-value store has the same things. It is what
//! fsync makes durable, or a small commit as a whole. What is in an entry is for the layers above. The file
//! has two halves: entries written after freeze *n* go to half *n mod 2*, from its start. When freeze *n* + 2
//! comes, the key-value store has commit *n* + 1, and the half may be written over.
//!
//! Invariants:
//! - when [`Journal::sync`] has returned, the entry and all before it in its half survive a power cut;
//! - an entry that was read back was written whole, by one opening of the store; whether all before it can be read it says.
//!
//! An entry that does not match its check was being written when the power was cut, or is damaged, and nobody can tell which.
//! Those behind it that do match were written as well, and are good as far as they do not build on what is lost: a commit
//! that may be is what all entries after its freeze build on, and of other entries each says on which it builds.

use crate::error::{Error, Result};
use crate::limits::{BLOCK_BYTES, COUNT_MAX, JOURNAL_BYTES_MAX, JOURNAL_BYTES_MIN, JOURNAL_SHARE};
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

    /// The kind whose magic differs by one bit at most; none where that is so of both.
    fn likely(magic: &[u8]) -> Option<EntryKind> {
        let wrong = |kind: EntryKind| kind.magic().iter().zip(magic).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
        match [EntryKind::Inode, EntryKind::Commit].map(|kind| wrong(kind) <= 1) {
            [true, false] => Some(EntryKind::Inode),
            [false, true] => Some(EntryKind::Commit),
            _ => None,
        }
    }
}

/// The place of an entry: the freeze after which it was written, and its number among those.
pub type Place = (u64, u32);

/// Where an entry stands: to be waited for with [`Journal::sync`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    serial: u64,
    place: Option<Place>,
}

impl Ticket {
    /// Which entry it is of; none where none was needed.
    pub fn place(self) -> Option<Place> {
        self.place
    }
}

/// An entry that was read back.
#[derive(Debug)]
pub struct Entry {
    /// The freeze after which it was written.
    pub after: u64,
    /// The how manieth of them it is.
    pub number: u32,
    pub kind: EntryKind,
    pub payload: Vec<u8>,
    /// One before it in its half cannot be read.
    pub is_behind_gap: bool,
}

impl Entry {
    pub fn place(&self) -> Place {
        (self.after, self.number)
    }
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
            let len = media.len().map_err(failed)?;
            if len > JOURNAL_BYTES_MAX {
                log::error!(
                    "the {FILE} has {len} bytes, and {JOURNAL_BYTES_MAX} are possible: it is damaged, and read no further"
                );
            }
            inner.half_bytes = len.min(JOURNAL_BYTES_MAX) / 2 / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
            for half in 0..2 {
                let found = read_half(&*media, half * inner.half_bytes, inner.half_bytes).map_err(failed)?;
                entries.extend(found.good_after(durable).filter(|entry| entry.after % 2 == half));
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
        inner.last = Ticket { serial: inner.last.serial + 1, place: Some((after, half.entries - 1)) };
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

/// What was found in a half.
#[derive(Default)]
struct Read {
    entries: Vec<Entry>,
    /// Of what cannot be read: the place, and the kind if that can be told.
    lost: Vec<(Place, Option<EntryKind>)>,
}

impl Read {
    /// The entries that say what the last durable commit has not, and build on nothing that is lost. What is lost is said.
    fn good_after(mut self, durable: u64) -> impl Iterator<Item = Entry> {
        self.entries.retain(|entry| entry.after >= durable);
        self.lost.retain(|((after, _), _)| *after >= durable);
        for ((after, number), _) in &self.lost {
            log::error!(
                "entry {number} after commit {after} of the {FILE} cannot be read: it is damaged, or was being written when \
                 the power was cut"
            );
        }
        let commits: Vec<u64> =
            self.entries.iter().filter(|entry| entry.kind == EntryKind::Commit).map(|entry| entry.after).collect();
        let may_be_commit = |(place, kind): &&(Place, Option<EntryKind>)| {
            *kind != Some(EntryKind::Inode) && place.0 > durable && !commits.contains(&place.0)
        };
        // What was written before a commit was, is good without it.
        for ((after, number), _) in self.lost.iter().filter(may_be_commit) {
            let before = self.entries.len();
            self.entries.retain(|entry| entry.after != *after || entry.number < *number);
            if self.entries.len() < before {
                log::error!("commit {after} may be what cannot be read: what was fsynced after it is lost as well");
            }
        }
        self.entries.into_iter()
    }
}

/// What all entries of one half have in common: after which freeze, and by which opening.
type Set = [u8; 16];

struct Header {
    kind: Option<EntryKind>,
    /// What it was, if a bit of the magic is wrong.
    likely_kind: Option<EntryKind>,
    number: u32,
    set: Set,
    after: u64,
    payload_len: u64,
    check: u64,
    bytes: [u8; HEADER],
}

impl Header {
    fn of(bytes: [u8; HEADER]) -> Header {
        let word = |from: usize| u64::from_le_bytes(bytes[from..from + 8].try_into().unwrap_or_default());
        Header {
            kind: EntryKind::from_magic(&bytes[..4]),
            likely_kind: EntryKind::likely(&bytes[..4]),
            number: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            set: bytes[8..24].try_into().unwrap_or_default(),
            after: word(8),
            payload_len: word(24),
            check: word(32),
            bytes,
        }
    }

    /// Where the next entry begins, if this one fits into `room`.
    fn whole_len(&self, room: u64) -> Option<u64> {
        let len = self.payload_len.checked_add(HEADER as u64).filter(|len| *len <= room)?;
        Some(len.next_multiple_of(BLOCK_BYTES as u64))
    }
}

/// One half of the file, for reading.
struct HalfReader<'a> {
    media: &'a dyn Media,
    start: u64,
    len: u64,
}

impl HalfReader<'_> {
    fn header(&self, at: u64) -> io::Result<Option<Header>> {
        if at + BLOCK_BYTES as u64 > self.len {
            return Ok(None);
        }
        let mut bytes = [0; HEADER];
        self.media.read_at(self.start + at, &mut bytes)?;
        Ok(Some(Header::of(bytes)))
    }

    /// The entry at a place, and where the next one begins; `None` if it is not whole.
    fn entry(&self, at: u64, header: &Header) -> io::Result<Option<(Entry, u64)>> {
        let kind = header.kind.filter(|_| header.after <= COUNT_MAX);
        let (Some(kind), Some(len)) = (kind, header.whole_len(self.len - at)) else { return Ok(None) };
        let mut payload = vec![0; header.payload_len as usize];
        self.media.read_at(self.start + at + HEADER as u64, &mut payload)?;
        let &Header { after, number, .. } = header;
        let is_whole = check(&header.bytes[..32], &payload) == header.check;
        Ok(is_whole.then_some((Entry { after, number, kind, payload, is_behind_gap: false }, at + len)))
    }

    /// The place of an entry of a set with at least this number, behind a place where none can be read. It begins where
    /// that one says to end, whatever set this is said to be of, if it is the first, or else at any block.
    fn behind(&self, at: u64, header: &Header, set: Option<Set>, number: u32) -> io::Result<Option<u64>> {
        if let Some(len) = header.whole_len(self.len - at)
            && let Some(next) = self.header(at + len)?
            && set.is_none_or(|set| set == next.set)
            && next.number == number
            && self.entry(at + len, &next)?.is_some()
        {
            return Ok(Some(at + len));
        }
        let set = set.unwrap_or(header.set);
        let mut at = at + BLOCK_BYTES as u64;
        while let Some(next) = self.header(at)? {
            if next.kind.is_some() && next.set == set && next.number >= number && self.entry(at, &next)?.is_some() {
                return Ok(Some(at));
            }
            at += BLOCK_BYTES as u64;
        }
        Ok(None)
    }
}

/// The entries of a half that were written by one opening after one freeze, with what lies between them and cannot be read.
fn read_half(media: &dyn Media, start: u64, len: u64) -> io::Result<Read> {
    let half = HalfReader { media, start, len };
    let mut read = Read::default();
    let mut set: Option<Set> = None;
    let (mut at, mut number) = (0, 0);
    while let Some(header) = half.header(at)? {
        let is_of_set = set.is_none_or(|set| set == header.set);
        if is_of_set
            && header.number >= number
            && (header.number == number || !read.lost.is_empty())
            && let Some((entry, next)) = half.entry(at, &header)?
        {
            set = Some(header.set);
            number = header.number.saturating_add(1);
            read.entries.push(Entry { is_behind_gap: !read.lost.is_empty(), ..entry });
            at = next;
            continue;
        }
        // The end, unless something of the same set lies behind.
        let is_begun = is_of_set && header.kind.is_some() && header.number == number;
        match half.behind(at, &header, set, number.saturating_add(1))? {
            Some(next) => {
                let found = half.header(next)?;
                let (after, next_number) = found.map_or((0, 0), |found| (found.after, found.number));
                // Of several in a row the kind of none is known.
                let kind = header.likely_kind.filter(|_| next_number == number.saturating_add(1));
                read.lost.push(((after, number), kind));
                at = next;
            }
            None => {
                if is_begun {
                    read.lost.push(((header.after, number), header.kind));
                }
                break;
            }
        }
    }
    Ok(read)
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

    /// Entries of different lengths after one freeze, the second a commit where `with_commit`.
    fn several(with_commit: bool) -> TestDir {
        let dir = TestDir::new();
        // Of a small disk: it is copied often.
        dir.set_capacity(Some(16 << 20));
        let (journal, _) = Journal::open(Arc::new(dir.clone()), 77, 0).unwrap();
        journal.prepare().unwrap();
        for (byte, len) in [(0, 100), (1, 9000), (2, 10), (3, 4100)] {
            match with_commit && byte == 1 {
                true => journal.sync(journal.append_commit(4, &vec![byte; len]).unwrap().unwrap()).unwrap(),
                false => append(&journal, 4, byte, len),
            }
        }
        dir
    }

    /// Where each of them begins, and how long it is.
    const SEVERAL: [(u64, u64); 4] = [(0, 140), (4096, 9040), (16384, 50), (20480, 4140)];

    #[test]
    fn a_flipped_bit_costs_the_entry_that_it_hits() {
        for with_commit in [false, true] {
            let whole = several(with_commit);
            for (hit, (start, len)) in SEVERAL.into_iter().enumerate() {
                for at in (0..HEADER as u64).chain((HEADER as u64..len).step_by(1777)).chain([len - 1]) {
                    let dir = whole.after_power_cut(crate::media::Tearing::LoseAll);
                    dir.damage("journal", start + at, 1);
                    // Before the commit is durable, and when it is.
                    for durable in [3, 4] {
                        let (_, entries) = Journal::open(Arc::new(dir.clone()), 2, durable).unwrap();
                        let found: Vec<u8> = entries.iter().map(|entry| entry.payload[0]).collect();
                        // Where a commit may be lost, what lies before it is all that is sure to be good.
                        let is_commit = with_commit && hit == 1;
                        let may_be_commit = durable == 3 && (is_commit || !with_commit && at == 3);
                        let is_good = |byte: &u8| if may_be_commit { *byte < hit as u8 } else { *byte != hit as u8 };
                        let expected: Vec<u8> = (0..4).filter(is_good).collect();
                        assert_eq!(found, expected, "byte {at} of entry {hit}, {with_commit}, {durable}");
                        assert!(entries.iter().all(|entry| entry.is_behind_gap == (entry.number > hit as u32)));
                    }
                }
            }
        }
    }

    #[test]
    fn what_a_user_wrote_is_no_entry() {
        let dir = Arc::new(TestDir::new());
        let (journal, _) = Journal::open(dir.clone(), 77, 0).unwrap();
        // A payload with what looks like an entry, at each place where one could begin.
        let mut payload = vec![0; BLOCK_BYTES - HEADER];
        for number in 1..4 {
            let half = Half { after: 4, used: 0, entries: number };
            payload.extend(encode(EntryKind::Inode, 78, &half, &[9; 10]));
        }
        let ticket = journal.append(4, &payload).unwrap().unwrap();
        journal.sync(ticket).unwrap();
        append(&journal, 4, 5, 10);
        for at in 0..HEADER as u64 + 1 {
            let dir = dir.after_power_cut(crate::media::Tearing::LoseAll);
            dir.damage("journal", at, 1);
            assert_eq!(payloads(&Journal::open(Arc::new(dir), 3, 4).unwrap().1), [(4, 5)], "byte {at}");
        }
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
