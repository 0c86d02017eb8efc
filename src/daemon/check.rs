//! Checking a store: every checksum and every cross-reference, of one commit as a whole.
//!
//! The tables are read as the last durable commit left them, while work goes on. What looks wrong is
//! compared with the current state before it is reported: what has changed since says nothing.
//!
//! What a record says, and whether it can be so, its owner knows (`check.rs` of `tree`, `device`, `logstore` and `view`). Here is
//! the order in which all of it is looked at, where what is wrong is found, and the report.

mod bases;
mod epochs;
mod layered;
mod others;
mod paths;
mod records;
mod tracks;

use super::{Daemon, OnProgress, Progress};
use crate::clock::Epoch;
use crate::device::check::Bases;
use crate::device::{Snapshot, epoch_of};
use crate::error::{Error, Result};
use crate::meta::{Meta, Pair, Table, hex};
use crate::view::{Upkeep, note_upkeep};
use paths::{PATH_BYTES_ALL, Paths};
use serde_bytes::ByteBuf;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub text: String,
    /// The files it concerns, each with the view in which they lie: `live/a/b`, `SNAPSHOT/a/b`.
    pub paths: Vec<ByteBuf>,
    /// There are more of them, or would be: a report has no room for all.
    pub has_more_paths: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    pub inodes: u64,
    pub names: u64,
    pub tracks: u64,
    pub read_bytes: u64,
    pub snapshots: u64,
    pub problems: Vec<Problem>,
    /// Problems beyond those that are listed.
    pub more_problems: u64,
}

impl CheckReport {
    pub fn is_clean(&self) -> bool {
        self.count() == 0
    }

    /// Problems that were found, listed or not.
    pub fn count(&self) -> u64 {
        (self.problems.len() as u64).saturating_add(self.more_problems)
    }

    /// Problems that are listed without some of their paths.
    pub fn without_paths(&self) -> u64 {
        self.problems.iter().filter(|problem| problem.has_more_paths).count() as u64
    }
}

/// Problems beyond this many are counted and not listed.
const PROBLEMS_MAX: usize = 10_000;
/// Bytes of what is said of a problem: keys of records that somebody prepared can be long.
const TEXT_BYTES_MAX: usize = 4096;

/// Reads everything. Problems are in the report; an error means that checking itself failed.
pub fn check(daemon: &Daemon, progress: OnProgress<'_>) -> Result<CheckReport> {
    let device = daemon.views.tree().device();
    // A store that has stopped writing can still be checked as its last commit left it.
    if device.check_running().is_ok() {
        daemon.views.tree().commit()?;
    }
    let mut snapshots = Vec::new();
    for base in daemon.views.bases().all()? {
        let views = daemon.views.of(base.id);
        snapshots.extend(views.unless_gone(views.snapshots().all())?.into_iter().flatten());
    }
    let mut check = Check {
        daemon,
        meta: device.durable()?,
        epoch: Epoch::ZERO,
        bases: Bases::default(),
        snapshots,
        report: CheckReport::default(),
        room: PATH_BYTES_ALL,
        is_partial: false,
        progress,
    };
    check.report.snapshots = check.snapshots.len() as u64;
    check.all()?;
    let report = check.report;
    note_upkeep(&daemon.views, Upkeep::Check, report.count());
    Ok(report)
}

struct Check<'a> {
    daemon: &'a Daemon,
    /// The tables of the last durable commit.
    meta: Meta,
    /// The epoch and the bases that they have.
    epoch: Epoch,
    bases: Bases,
    snapshots: Vec<Snapshot>,
    report: CheckReport,
    /// Bytes that paths in the report may still take.
    room: usize,
    /// Something could not be read: what is missing elsewhere may be for that reason.
    is_partial: bool,
    progress: OnProgress<'a>,
}

impl Check<'_> {
    fn all(&mut self) -> Result<()> {
        for damage in self.daemon.views.tree().device().damage() {
            self.unreadable(damage, Paths::default());
        }
        self.epoch = epoch_of(&self.meta)?;
        bases::load(self)?;
        tracks::all(self)?;
        records::all(self)?;
        bases::names(self)?;
        bases::between(self)?;
        others::all(self)?;
        // What is being filled is noted, and nothing else may be.
        match self.daemon.views.bases().unfinished_fillings() {
            Err(error @ Error::Corrupt { .. }) => self.say(error.to_string()),
            found => drop(found?),
        }
        layered::all(self)
    }

    fn problem(&mut self, text: impl Into<String>, paths: Paths) {
        if self.is_full() {
            self.report.more_problems += 1;
            return;
        }
        self.room = if paths.is_out_of_room() { 0 } else { self.room.saturating_sub(paths.bytes) };
        let mut text = text.into();
        if text.len() > TEXT_BYTES_MAX {
            text.truncate((0..=TEXT_BYTES_MAX).rfind(|at| text.is_char_boundary(*at)).unwrap_or(0));
            text.push('…');
        }
        self.report.problems.push(Problem { text, paths: paths.found, has_more_paths: paths.is_cut });
    }

    /// A problem that concerns no file, or all.
    fn say(&mut self, text: impl Into<String>) {
        self.problem(text, Paths::default());
    }

    /// A problem for which what a record says is not known.
    fn unreadable(&mut self, text: impl Into<String>, paths: Paths) {
        self.is_partial = true;
        self.problem(text, paths);
    }

    /// Looks at something; whether all of it could be read.
    fn wholly(&mut self, look: impl FnOnce(&mut Self) -> Result<()>) -> Result<bool> {
        let before = std::mem::take(&mut self.is_partial);
        look(self)?;
        let is_whole = !self.is_partial;
        self.is_partial |= before;
        Ok(is_whole)
    }

    /// Whether further problems are only counted.
    fn is_full(&self) -> bool {
        self.report.problems.len() >= PROBLEMS_MAX
    }

    fn tell(&mut self) -> Result<()> {
        let report = &self.report;
        (self.progress)(&Progress { files: report.inodes, bytes: report.read_bytes, total_bytes: 0 })
    }

    /// Calls `each` with all pairs of a table. Where a page is damaged, reports which keys cannot be read
    /// and goes on behind them.
    fn each(&mut self, table: Table, mut each: impl FnMut(&mut Self, Pair) -> Result<()>) -> Result<()> {
        const BATCH: usize = 512;
        let mut from: Vec<u8> = Vec::new();
        loop {
            let mut batch = Vec::new();
            let mut damage = self.fill(table, &from, BATCH, &mut batch).err();
            if let (Some(Error::Corrupt { .. } | Error::Media { .. }), true) = (&damage, batch.is_empty()) {
                // Somebody else may have met the damage and reopened the metadata under this reader.
                self.reopen()?;
                damage = self.fill(table, &from, BATCH, &mut batch).err();
            }
            let (is_last, had_some) = (batch.len() < BATCH && damage.is_none(), !batch.is_empty());
            if let Some((key, _)) = batch.last() {
                from = key.clone();
                from.push(0);
            }
            for pair in batch {
                each(self, pair)?;
            }
            match damage {
                // What came before the damage is done; the next round looks at the damage itself.
                Some(Error::Corrupt { .. } | Error::Media { .. }) if had_some => {}
                Some(error @ Error::Corrupt { .. }) => match self.skip_damage(table, &from, &error)? {
                    Some(next) => from = next,
                    None => return Ok(()),
                },
                Some(error) => return Err(error),
                None if is_last => return Ok(()),
                None => {}
            }
            self.tell()?;
        }
    }

    fn fill(&self, table: Table, from: &[u8], most: usize, batch: &mut Vec<Pair>) -> Result<()> {
        for pair in self.meta.range(table, from, &[u8::MAX; 40])?.take(most) {
            batch.push(pair?);
        }
        Ok(())
    }

    /// Finds the first key behind a damaged page, by trying larger and larger steps and then halving.
    fn skip_damage(&mut self, table: Table, from: &[u8], error: &Error) -> Result<Option<Vec<u8>>> {
        let mut key = [0u8; 24];
        let len = from.len().min(key.len());
        key[..len].copy_from_slice(&from[..len]);
        let number = |bytes: &[u8]| u128::from_be_bytes(bytes[..16].try_into().unwrap_or_default());
        let start = number(&key);
        let at = |number: u128| number.to_be_bytes().to_vec();
        let (mut bad, mut good) = (start, None);
        for shift in 0..128u32 {
            let Some(next) = start.checked_add(1 << shift) else { break };
            if self.is_readable_from(table, &at(next))? {
                good = Some(next);
                break;
            }
            bad = next;
        }
        let until = match good {
            Some(mut good) => {
                while good - bad > 1 {
                    let middle = bad + (good - bad) / 2;
                    if self.is_readable_from(table, &at(middle))? {
                        good = middle;
                    } else {
                        bad = middle;
                    }
                }
                Some(at(good))
            }
            None => None,
        };
        let to = until.as_ref().map_or("the end".into(), |until| hex(until));
        let text = format!("table {}: keys from {} to {to} cannot be read: {error}", table.name(), hex(from));
        self.unreadable(text, Paths::default());
        self.reopen()?;
        Ok(until)
    }

    fn is_readable_from(&mut self, table: Table, key: &[u8]) -> Result<bool> {
        self.reopen()?;
        Ok(self.fill(table, key, 1, &mut Vec::new()).is_ok())
    }

    fn reopen(&mut self) -> Result<()> {
        let device = self.daemon.views.tree().device();
        // Looking at the state reopens the metadata if a damaged page was met.
        drop(device.look()?);
        self.meta = device.durable()?;
        Ok(())
    }

    /// Whether a record is still what the checked commit has: otherwise it was changed meanwhile.
    fn is_current(&self, table: Table, key: &[u8], value: &[u8]) -> bool {
        self.is_now(table, key, Some(value))
    }

    /// The same of a record, or of the lack of one.
    fn is_now(&self, table: Table, key: &[u8], value: Option<&[u8]>) -> bool {
        let look = self.daemon.views.tree().device().look();
        look.is_ok_and(|look| look.meta().get_raw(table, key).is_ok_and(|now| now.as_deref() == value))
    }
}
