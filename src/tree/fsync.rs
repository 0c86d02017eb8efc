//! fsync(2): one file made durable, without waiting for what others have changed.
//!
//! What a file became since the last commit goes to the journal, if that is little: its record, the bytes
//! written, and, if it is new, the entry under which it is found, with directories above it that are new as
//! well. After a crash this is done again on the last commit. Everything else that fsync may be asked for
//! is a commit.

use super::NEXT_INODE;
use super::data::Files;
use super::data::inline_part;
use super::inode::{self, Inode, Kind};
use crate::device::{Change, InodeNo, Journaling, Source, TrackNo};
use crate::error::{Error, Result};
use crate::journal;
use crate::limits::JOURNAL_DATA_MAX;
use crate::meta::{Table, is_name};
use crate::shown::shown;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::HashSet;
use std::ops::Range;

/// An entry of the journal.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    /// Inodes to be made if they are not there, each after its directory; the file itself is the last.
    new: Vec<(InodeNo, Inode)>,
    inode: InodeNo,
    record: Inode,
    /// The size to which the file is cut first.
    cut: Option<u64>,
    /// Bytes to be written then, and where.
    pieces: Vec<(u64, ByteBuf)>,
    /// The entry of the same inode that is to be done before, if there is one.
    #[serde(default = "not_said")]
    builds_on: Option<journal::Place>,
}

/// In entries of older versions: it may be any that comes before.
const NOT_SAID: journal::Place = (u64::MAX, u32::MAX);

fn not_said() -> Option<journal::Place> {
    Some(NOT_SAID)
}

const JOURNAL: &str = "the journal";

/// An entry whose bytes are still to be read.
struct Draft {
    after: u64,
    entry: Entry,
    parts: Vec<Part>,
}

/// A range of bytes and the tracks that hold it.
type Part = (Range<u64>, Vec<(TrackNo, Source)>);

/// New directories above a new file that are journaled with it, at most; with more, a commit is better.
const NEW_ABOVE_MAX: usize = 64;

/// What fsync finds.
enum Found {
    /// All is in the journal, or will be when this is.
    Journaled(journal::Ticket),
    Draft(Box<Draft>),
    NeedsCommit,
}

impl Files<'_> {
    /// Makes an inode durable: its bytes and attributes, and a file that is new with its name.
    pub fn sync_inode(self, number: InodeNo) -> Result<()> {
        let ticket = {
            // Entries of a file have to be in the order in which it changed.
            let _file = self.tree.locks.lock(number);
            match self.draft(number)? {
                Found::Journaled(ticket) => Some(ticket),
                Found::Draft(draft) => self.journal(draft)?,
                Found::NeedsCommit => None,
            }
        };
        match ticket {
            Some(ticket) => self.tree.device.fsync().sync(ticket),
            None => self.tree.commit(),
        }
    }

    fn draft(self, number: InodeNo) -> Result<Found> {
        let mut state = self.tree.device.fsync().hold_still()?;
        let Some(change) = state.changes().get(number) else { return Ok(Found::Journaled(journal::Ticket::default())) };
        if change.needs_commit {
            return Ok(Found::NeedsCommit);
        }
        if !change.is_pending {
            return Ok(Found::Journaled(change.journaled));
        }
        let bytes: u64 = change.ranges.iter().map(|range| range.end - range.start).sum();
        let Some(record) = inode::find(&state, number.live())? else { return Ok(Found::NeedsCommit) };
        let is_journaled = matches!(record.kind(), Kind::File | Kind::Directory);
        if record.links == 0 || !is_journaled || bytes > JOURNAL_DATA_MAX {
            return Ok(Found::NeedsCommit);
        }
        let mut new = Vec::new();
        if !self.list_new(&mut state, number, &record, &change, &mut new)? {
            return Ok(Found::NeedsCommit);
        }
        let mut parts = Vec::new();
        let mut pieces = Vec::new();
        for range in change.ranges {
            if record.tracks == 0 {
                pieces.push((range.start, ByteBuf::from(inline_part(&record, range))));
                continue;
            }
            let tracks = self.tracks_of(range.clone());
            let sources =
                TrackNo::each(tracks).map(|track| Ok((track, self.tree.device.source(&state, number.live(), track)?)));
            parts.push((range, sources.collect::<Result<_>>()?));
        }
        state.changes().begin(number);
        let builds_on = change.journaled.place();
        let record = Inode { inline: ByteBuf::new(), ..record };
        let entry = Entry { new, inode: number, record, cut: change.cut, pieces, builds_on };
        Ok(Found::Draft(Box::new(Draft { after: state.after(), entry, parts })))
    }

    /// Lists the inode and the directories above it as far as they are new, the uppermost first; false if that
    /// cannot be journaled.
    fn list_new(
        self,
        state: &mut Journaling<'_>,
        number: InodeNo,
        record: &Inode,
        change: &Change,
        new: &mut Vec<(InodeNo, Inode)>,
    ) -> Result<bool> {
        let mut chain = Vec::new();
        let (mut at, mut record, mut is_new) = (number, record.clone(), change.is_new);
        // A directory that is new needs no commit for its entries: they are made one by one.
        while is_new {
            if chain.len() == NEW_ABOVE_MAX || !state.base_record(at.base())?.eras.is_empty() {
                return Ok(false);
            }
            let Some(parent) = inode::find(state, record.parent.live())? else { return Ok(false) };
            let number = std::mem::replace(&mut at, record.parent);
            chain.push((number, std::mem::replace(&mut record, parent)));
            is_new = state.changes().get(at).unwrap_or_default().is_new;
        }
        for (number, record) in chain.into_iter().rev() {
            if !self.list_one_new(state, number, &record, new)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn list_one_new(
        self,
        state: &mut Journaling<'_>,
        number: InodeNo,
        record: &Inode,
        new: &mut Vec<(InodeNo, Inode)>,
    ) -> Result<bool> {
        // The file's own xattrs would have asked for a commit; those of a directory above are looked for.
        if !super::xattr::names(state, number.live())?.is_empty() {
            return Ok(false);
        }
        let key = self.tree.names().dirent_key(record.parent, &record.name);
        for value in state.found_by_replay(Table::Dirent, &key)? {
            // An older state may shine through, or a tombstone hide it.
            if value.is_empty() {
                return Ok(false);
            }
            if self.tree.names().entry_of(&key, &value)?.inode != number {
                return Ok(false);
            }
        }
        let (size, tracks) = (0, 0);
        new.push((number, Inode { size, tracks, inline: ByteBuf::new(), ..record.clone() }));
        Ok(state.changes().claim(&key, number))
    }

    /// Reads what a draft lacks and appends it; `None` when only a commit will do.
    fn journal(self, draft: Box<Draft>) -> Result<Option<journal::Ticket>> {
        let Draft { after, mut entry, parts } = *draft;
        for (range, sources) in parts {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            if let Err(error) = self.fill(&mut bytes, entry.inode.live(), &range, sources) {
                // What was written is in memory or on the media: a commit can still make it durable.
                log::warn!("inode {} is not journaled: {error}", entry.inode);
                return Ok(None);
            }
            entry.pieces.push((range.start, ByteBuf::from(bytes)));
        }
        let ticket = self.tree.device.fsync().append(after, &crate::meta::encode(&entry))?;
        if let Some(ticket) = ticket {
            let mut state = self.tree.device.fsync().hold_still()?;
            for (number, _) in &entry.new {
                state.changes().journaled(*number, ticket);
            }
            state.changes().journaled(entry.inode, ticket);
        }
        Ok(ticket)
    }

    /// Does again what was journaled after the last commit, and commits.
    pub(super) fn replay(self, entries: Vec<journal::Entry>) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        log::info!("{} entries of the journal are done again", entries.len());
        let durable = self.tree.device.fsync().replaying();
        let mut done = HashSet::new();
        let mut has_gap = false;
        for journaled in entries {
            has_gap |= journaled.is_behind_gap;
            let place = journaled.place();
            let is_there = |before: Option<journal::Place>| match before {
                None => true,
                Some(NOT_SAID) => !has_gap,
                // The last commit has what was journaled before it.
                Some(before) => Some(before.0) < durable || done.contains(&before),
            };
            match self.replay_if(&journaled.payload, is_there) {
                Ok(()) => {
                    done.insert(place);
                }
                // It costs what it says, and what builds on that.
                Err(error) if is_of_entry(&error) => {
                    has_gap = true;
                    log::error!("entry {} after commit {} of the journal is not done again: {error}", place.1, place.0);
                }
                Err(error) => return Err(error),
            }
        }
        self.tree.device.fsync().replayed();
        self.tree.commit()
    }

    fn replay_if(self, payload: &[u8], is_there: impl Fn(Option<journal::Place>) -> bool) -> Result<()> {
        let damaged = |problem: String| Error::corrupt(JOURNAL, problem);
        let entry: Entry =
            rmp_serde::from_slice(payload).map_err(|error| damaged(format!("an entry does not decode: {error}")))?;
        if let Some((_, record)) = entry.new.iter().find(|(_, record)| !is_name(&record.name)) {
            let name = shown(&record.name);
            return Err(damaged(format!("nothing can have the name \"{name}\" that it gives to an inode")));
        }
        if !is_there(entry.builds_on) {
            return Err(damaged(format!("what came before it of inode {} is lost", entry.inode.number())));
        }
        self.replay_one(entry)
    }

    fn replay_one(self, entry: Entry) -> Result<()> {
        let Entry { new, inode: number, record, cut, pieces, .. } = entry;
        for (number, record) in new {
            self.make_again(number, record)?;
        }
        if let Some(size) = cut {
            self.set_size(number, size)?;
        }
        for (offset, bytes) in pieces {
            self.write(number, offset, &bytes, false)?;
        }
        if record.kind() == Kind::File {
            self.set_size(number, record.size)?;
        }
        let mut txn = self.tree.device.begin()?;
        let mut found = inode::load(&txn, number.live())?;
        (found.mode, found.uid, found.gid) = (record.mode, record.uid, record.gid);
        (found.atime, found.mtime, found.ctime) = (record.atime, record.mtime, record.ctime);
        inode::store(&mut txn, number, &found)?;
        txn.finish()
    }

    fn set_size(self, number: InodeNo, size: u64) -> Result<()> {
        if self.tree.inode(number.live())?.size == size {
            return Ok(());
        }
        self.tree.attributes().change(number, super::Change { size: Some(size), ..Default::default() })?;
        Ok(())
    }

    /// Makes an inode that an entry names, empty, unless it is there.
    fn make_again(self, number: InodeNo, mut record: Inode) -> Result<()> {
        let mut txn = self.tree.device.begin_growing()?;
        if inode::find(&txn, number.live())?.is_some() {
            return Ok(());
        }
        let next: u64 = txn.meta().get(Table::State, NEXT_INODE)?.unwrap_or_default();
        txn.meta_mut().put(Table::State, NEXT_INODE, &next.max(number.number() + 1));
        record.links = if record.is_directory() { 2 } else { 1 };
        let directory = inode::load_directory(&txn, record.parent.live())?;
        self.tree.names().add_entry(&mut txn, directory, number, &record, record.btime)?;
        txn.finish()
    }
}

/// Whether an entry cannot be done again for what it says, or for what is not there any more.
fn is_of_entry(error: &Error) -> bool {
    match error {
        Error::Corrupt { object, .. } => object == JOURNAL,
        Error::Gone | Error::Unshared => true,
        Error::Posix(_) => !error.is_no_space(),
        _ => false,
    }
}
