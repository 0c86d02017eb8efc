//! Checking a store: every checksum and every cross-reference, of one commit as a whole.
//!
//! The tables are read as the last durable commit left them, while work goes on. What looks wrong is
//! compared with the current state before it is reported: what has changed since says nothing.

mod others;
mod records;
mod tracks;

use super::{Daemon, OnProgress, Progress};
use crate::device::{Epoch, InodeNo, LIVE, Moment, Snapshot, base_of, number_of};
use crate::error::{Error, Result};
use crate::meta::{Meta, Pair, Table, hex};
use crate::view::LIVE_NAME;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::BTreeSet;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub text: String,
    /// The files it concerns, each with the view in which they lie: `live/a/b`, `SNAPSHOT/a/b`.
    pub paths: Vec<ByteBuf>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    pub inodes: u64,
    pub names: u64,
    pub tracks: u64,
    pub read_bytes: u64,
    pub snapshots: u64,
    pub problems: Vec<Problem>,
}

/// Problems beyond this many are counted and not listed.
const PROBLEMS_MAX: usize = 10_000;

impl Daemon {
    /// Reads everything. Problems are in the report; an error means that checking itself failed.
    pub fn check(&self, progress: OnProgress<'_>) -> Result<CheckReport> {
        let device = self.views.tree().device();
        // A store that has stopped writing can still be checked as its last commit left it.
        if device.check_running().is_ok() {
            self.views.tree().commit()?;
        }
        let mut snapshots = Vec::new();
        for base in self.views.bases()? {
            let views = self.views.of(base.id);
            snapshots.extend(views.unless_gone(views.snapshots())?.into_iter().flatten());
        }
        let mut check =
            Check { daemon: self, meta: device.durable()?, snapshots, report: CheckReport::default(), progress };
        check.report.snapshots = check.snapshots.len() as u64;
        device.damage().into_iter().for_each(|damage| check.problem(damage, Vec::new()));
        check.tracks()?;
        check.records()?;
        check.others()?;
        check.layered()?;
        Ok(check.report)
    }
}

struct Check<'a> {
    daemon: &'a Daemon,
    /// The tables of the last durable commit.
    meta: Meta,
    snapshots: Vec<Snapshot>,
    report: CheckReport,
    progress: OnProgress<'a>,
}

impl Check<'_> {
    fn problem(&mut self, text: impl Into<String>, paths: Vec<ByteBuf>) {
        if self.report.problems.len() < PROBLEMS_MAX {
            self.report.problems.push(Problem { text: text.into(), paths });
        }
    }

    fn tell(&mut self) -> Result<()> {
        let report = &self.report;
        (self.progress)(&Progress { files: report.inodes, bytes: report.read_bytes, total_bytes: 0 })
    }

    /// Where an inode is found in every view that shows what was born at `birth` and ended at `end`.
    fn paths(&self, inode: InodeNo, birth: Epoch, end: Option<Epoch>) -> Vec<ByteBuf> {
        let mut paths = Vec::new();
        if end.is_none() {
            paths.extend(self.paths_at(inode, LIVE_NAME, Moment::Live));
        }
        for snapshot in self.snapshots.iter().filter(|snapshot| snapshot.base == base_of(inode)) {
            if birth <= snapshot.epoch && end.is_none_or(|end| snapshot.epoch < end) {
                paths.extend(self.paths_at(inode, &snapshot.record.name, Moment::At(snapshot.epoch)));
            }
        }
        paths
    }

    /// Where an inode is found in one view.
    fn paths_at(&self, inode: InodeNo, name: &str, moment: Moment) -> Vec<ByteBuf> {
        let number = number_of(inode);
        let view = match base_of(inode) {
            LIVE => format!("{name}/"),
            base => self.daemon.views.of(base).base_name().map_or("?:".into(), |base| format!("{base}:{name}/")),
        };
        let without = |why: &str| vec![format!("{view}? (inode {number}, {why})").into_bytes().into()];
        match self.daemon.views.tree().paths(inode, moment) {
            Ok(found) if found.is_empty() => without("which has no name there"),
            Ok(found) => found.iter().map(|path| ByteBuf::from([view.as_bytes(), path].concat())).collect(),
            Err(_) => without("whose name is damaged"),
        }
    }

    /// Calls `each` with all pairs of a table. Where a page is damaged, reports which keys cannot be read
    /// and goes on behind them.
    fn each(&mut self, table: Table, mut each: impl FnMut(&mut Self, Pair) -> Result<()>) -> Result<()> {
        const BATCH: usize = 512;
        let mut from: Vec<u8> = Vec::new();
        loop {
            let mut batch = Vec::new();
            let mut damage = self.fill(table, &from, BATCH, &mut batch).err();
            if let (Some(Error::Corrupt { .. }), true) = (&damage, batch.is_empty()) {
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
                Some(Error::Corrupt { .. }) if had_some => {}
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
        self.problem(
            format!("table {}: keys from {} to {to} cannot be read: {error}", table.name(), hex(from)),
            Vec::new(),
        );
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
        let look = self.daemon.views.tree().device().look();
        look.is_ok_and(|look| look.meta().get_raw(table, key).is_ok_and(|now| now.as_deref() == Some(value)))
    }
}

/// The inodes that a table's problems concern, once each.
type Inodes = BTreeSet<InodeNo>;
