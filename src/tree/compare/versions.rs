//! The versions of one path.
//!
//! A path is followed through time instead of through one moment: each of its names leads to an inode for a
//! span of epochs, and the inode's record has spans within that. Every change of an inode's bytes, xattrs or
//! entries stores its record anew, so that between two records nothing changes, and only where one ends is
//! looked whether anything did that makes a version. The cost follows the changes of the path, not the
//! snapshots; with an archive attached, all times are listed once.
//!
//! ```text
//! snapshots      1      2      3      4      5      live
//! a              ├── inode 7 ─────┤├── inode 9 ──────────   entry of the root
//! a/b            ├─ 8 ─┤├─ 10 ────┤   ├─ 12 ─────────────   entry of 7, then of 9
//! records of b   ├─────┤├─┤├──────┤   ├──────┤├──────────   each a version if it differs and is seen
//! ```

use super::diff::Comparison;
use crate::clock::{Epoch, Timestamp};
use crate::device::{BaseId, InodeNo, Snapshot, Span, State, Timeline, Value};
use crate::error::{Errno, Error, Result};
use crate::meta::{Table, decode, is_name};
use crate::tree::inode::{self, Inode, Kind, root_of};
use crate::tree::paths::names_of;
use std::collections::BTreeSet;
use std::ops::Range;

/// What one path was for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The newest snapshot that shows it; `None` if it is what is there now.
    pub snapshot: Option<Snapshot>,
    /// The oldest snapshot that shows it; `None` if none does yet.
    pub oldest: Option<Snapshot>,
    pub inode: InodeNo,
    /// When the content was changed last.
    pub time: Timestamp,
    /// When the inode was changed last.
    pub changed: Timestamp,
    /// Bytes of a file or of a symlink's target; entries of a directory.
    pub size: u64,
    pub kind: Kind,
}

/// An inode's record at the path, in a span of epochs that can be seen.
struct Shown {
    inode: InodeNo,
    record: Inode,
    seen: Seen,
}

/// What shows a span of epochs: the oldest and the newest snapshot, and whether the base now does.
struct Seen {
    oldest: Option<Snapshot>,
    newest: Option<Snapshot>,
    is_live: bool,
    /// The first and the last epoch that show it; the base now has its current one.
    first: Epoch,
    last: Epoch,
}

impl Comparison<'_> {
    /// The distinct versions of what is at a path, newest first. A version of a file ends when its bytes, mode,
    /// owner, xattrs or its inode at that path change, one of a directory when its entries or attributes do.
    /// Rewriting a file with the same bytes counts as a change; setting times and links elsewhere do not. Only
    /// what a snapshot that can be read or the base now shows is a version.
    pub fn versions(self, base: BaseId, path: &[u8]) -> Result<Vec<Version>> {
        let timeline = {
            let look = self.tree.device.look()?;
            look.moments().check(root_of(base).live())?;
            look.chronicle().timeline(base)?
        };
        let shown = self.shown_at(base, &timeline, path)?;
        if shown.is_empty() {
            let path = crate::shown::shown(path);
            let text = format!("there is no {path:?}, neither now nor in a snapshot");
            return Err(Error::Refused(Errno::NOENT, text));
        }
        let mut versions: Vec<Version> = Vec::new();
        for group in shown.chunk_by(|a, b| a.inode == b.inode) {
            let begins = self.begins(base, &timeline, group)?;
            for (shown, begins) in group.iter().zip(begins) {
                match versions.last_mut() {
                    Some(last) if !begins => last.go_on(shown),
                    _ => versions.push(Version::of(shown)),
                }
            }
        }
        versions.reverse();
        Ok(versions)
    }

    /// All that was at a path and can be seen, oldest first.
    fn shown_at(self, base: BaseId, timeline: &Timeline, path: &[u8]) -> Result<Vec<Shown>> {
        let look = self.tree.device.look()?;
        let now = look.epoch();
        let mut places: Vec<(InodeNo, Range<Epoch>)> = vec![(root_of(base), Epoch::ZERO..now.next())];
        for name in names_of(path) {
            if !is_name(name) {
                return Ok(Vec::new());
            }
            let mut below = Vec::new();
            for (directory, window) in places {
                let key = self.tree.names().dirent_key(directory, name);
                for Span { epochs, value } in look.chronicle().spans(timeline, Table::Dirent, &key, window)? {
                    below.push((self.tree.names().entry_of(&key, &value.bytes)?.inode, epochs));
                }
            }
            places = below;
        }
        let mut shown = Vec::new();
        for (inode, window) in places {
            let key = inode::key(inode);
            for Span { epochs, value } in look.chronicle().spans(timeline, Table::Inode, &key, window)? {
                if let Some(seen) = Seen::of(&look, timeline, epochs, now)? {
                    let record: Inode = decode(Table::Inode, &key, &value.bytes)?;
                    shown.push(Shown { inode, record: record.checked_stored(inode)?, seen });
                }
            }
        }
        Ok(shown)
    }

    /// Which of these records of one inode begin a version.
    fn begins(self, base: BaseId, timeline: &Timeline, shown: &[Shown]) -> Result<Vec<bool>> {
        let mut begins = vec![true];
        {
            let look = self.tree.device.look()?;
            for pair in shown.windows(2) {
                let [before, after] = pair else { break };
                // Was it away meanwhile, where a snapshot shows it?
                let was_away = timeline.first(&look, before.seen.last.next()..after.seen.first)?.is_some();
                begins.push(was_away || differ(&before.record, &after.record));
            }
        }
        let tables = match shown.first().map(|shown| shown.record.kind()) {
            Some(Kind::File) => &[Table::Xattr, Table::Track][..],
            Some(Kind::Directory) => &[Table::Xattr, Table::Dirent],
            Some(_) => &[Table::Xattr],
            None => &[],
        };
        for table in tables {
            if begins.contains(&false) {
                self.note_changes(base, timeline, *table, shown, &mut begins)?;
            }
        }
        Ok(begins)
    }

    /// Notes at which of some moments an inode's records in a table are not what they were at the one before.
    /// Records of tracks and entries that only came into being are told by their number, in the inode's record.
    fn note_changes(
        self,
        base: BaseId,
        timeline: &Timeline,
        table: Table,
        shown: &[Shown],
        begins: &mut [bool],
    ) -> Result<()> {
        let (Some(first), Some(last)) = (shown.first(), shown.last()) else { return Ok(()) };
        let inode = first.inode;
        let moments: Vec<Epoch> = shown.iter().map(|shown| shown.seen.first).collect();
        let window = first.seen.first..last.seen.first.next();
        let note_all = |look: &State, keys: BTreeSet<Vec<u8>>, begins: &mut [bool]| -> Result<()> {
            for key in keys {
                note_turns(&look.chronicle().spans(timeline, table, &key, window.clone())?, &moments, begins);
            }
            Ok(())
        };
        let mut cursor = Vec::new();
        loop {
            let look = self.tree.device.look()?;
            let (keys, next) = look.chronicle().replaced_keys(table, inode, &cursor)?;
            note_all(&look, keys, begins)?;
            match next {
                Some(next) => cursor = next,
                None => break,
            }
        }
        let archived = timeline.archived_keys(table, inode)?;
        let look = self.tree.device.look()?;
        note_all(&look, archived, begins)?;
        if table == Table::Xattr || !look.base_record(base)?.eras.is_empty() {
            note_all(&look, look.chronicle().present_keys(table, inode)?, begins)?;
        }
        if table == Table::Track
            && last.seen.is_live
            && last.seen.oldest.is_none()
            && look.tracks().has_tracks_in_memory(inode)
            && let Some(begins) = begins.last_mut()
        {
            *begins = true;
        }
        Ok(())
    }
}

impl Version {
    fn of(shown: &Shown) -> Version {
        let mut version = Version {
            snapshot: None,
            oldest: shown.seen.oldest.clone(),
            inode: shown.inode,
            time: shown.record.mtime,
            changed: shown.record.ctime,
            size: shown.record.size,
            kind: shown.record.kind(),
        };
        version.go_on(shown);
        version
    }

    /// It is shown a while longer, with other times perhaps.
    fn go_on(&mut self, shown: &Shown) {
        self.snapshot = if shown.seen.is_live { None } else { shown.seen.newest.clone() };
        (self.time, self.changed) = (shown.record.mtime, shown.record.ctime);
    }
}

impl Seen {
    /// What shows a span of epochs, if anything does.
    fn of(state: &State, timeline: &Timeline, epochs: Range<Epoch>, now: Epoch) -> Result<Option<Seen>> {
        let is_live = epochs.contains(&now);
        let oldest = timeline.first(state, epochs.clone())?;
        let newest = if oldest.is_some() { timeline.last(state, epochs)? } else { None };
        let epoch = |snapshot: &Option<Snapshot>| snapshot.as_ref().map(|snapshot| snapshot.epoch);
        let last = if is_live { Some(now) } else { epoch(&newest) };
        let first = epoch(&oldest).or(last);
        Ok(first.zip(last).map(|(first, last)| Seen { oldest, newest, is_live, first, last }))
    }
}

/// Whether two records of one inode tell by themselves that something else is shown.
fn differ(a: &Inode, b: &Inode) -> bool {
    let facts = |inode: &Inode| (inode.mode, inode.uid, inode.gid, inode.rdev, inode.size, inode.tracks);
    facts(a) != facts(b) || a.inline != b.inline
}

/// Notes the moments, of ascending ones, at which a key is not what it was at the one before.
fn note_turns(spans: &[Span], moments: &[Epoch], turns: &mut [bool]) {
    let mut note = |i: usize| {
        if let Some(turn) = turns.get_mut(i) {
            *turn = true;
        }
    };
    let mut last: Option<&Value> = None;
    let mut told = 0;
    for Span { epochs, value } in spans {
        let from = moments.partition_point(|moment| *moment < epochs.start);
        let to = moments.partition_point(|moment| *moment < epochs.end);
        if from == to {
            continue;
        }
        if from > told && last.take().is_some() {
            note(told);
        }
        if from > 0 && !last.is_some_and(|last| last.is_same(value)) {
            note(from);
        }
        (last, told) = (Some(value), to);
    }
    if last.is_some() {
        note(told);
    }
}
