//! `list`, and how a snapshot is shown everywhere.

use super::super::args::{Column, List, Sort};
use super::super::json::{self, state_of};
use super::super::output::{print, print_json, size, table, tell_all};
use super::{ask, unexpected};
use crate::clock::Epoch;
use crate::control::{Answer, ListInfo, MissingInfo, SnapshotInfo, Target, Verb};
use crate::daemon::MissingTime;
use crate::error::Result;
use crate::purpose::Purpose;
use serde_json::Value;
use std::cmp::Reverse;

/// A line of the list.
enum Entry<'a> {
    Snapshot(&'a SnapshotInfo),
    Missing(&'a MissingInfo, &'a MissingTime),
}

pub(super) fn list(target: &Target, args: &List) -> Result<bool> {
    let Answer::List(list) = ask(target, Verb::List { all: args.all }, &mut |_| Ok(()))? else {
        return Err(unexpected());
    };
    let entries = entries(&list, args.sort);
    if args.json {
        return print_json(&entries.iter().map(Entry::json).collect::<Vec<_>>()).map(|()| true);
    }
    let columns = match (args.columns.is_empty(), args.all) {
        (false, _) => args.columns.clone(),
        (true, false) => DEFAULT.to_vec(),
        (true, true) => [&[Column::Base], DEFAULT].concat(),
    };
    let heads = columns.iter().map(|column| column.heading().to_string()).collect();
    let mut rows = vec![heads];
    rows.extend(entries.iter().map(|entry| columns.iter().map(|column| entry.cell(*column)).collect()));
    if rows.len() > 1 {
        print(&table(&rows))?;
    }
    tell_all(list.missing.iter().flat_map(|missing| &missing.problems));
    Ok(true)
}

const DEFAULT: &[Column] = &[Column::Name, Column::Time, Column::Refers, Column::Frees, Column::Notes];

/// Oldest first, base by base, unless something else is wanted.
fn entries(list: &ListInfo, sort: Option<Sort>) -> Vec<Entry<'_>> {
    let mut entries: Vec<Entry> = list.snapshots.iter().map(Entry::Snapshot).collect();
    let missing = |of| move |time| Entry::Missing(of, time);
    entries.extend(list.missing.iter().flat_map(|of| of.times.iter().map(missing(of))));
    match sort {
        Some(Sort::Name) => entries.sort_by(|a, b| a.name().cmp(b.name())),
        Some(Sort::Time) => entries.sort_by_key(Entry::time),
        Some(Sort::Refers) => entries.sort_by_key(|entry| Reverse(entry.snapshot().map(|found| found.refers))),
        Some(Sort::Frees) => entries.sort_by_key(|entry| Reverse(entry.snapshot().map(|found| found.unique))),
        None if list.missing.is_empty() => {}
        None => {
            let mut bases: Vec<&str> = Vec::new();
            for entry in &entries {
                if !bases.contains(&entry.base()) {
                    bases.push(entry.base());
                }
            }
            entries.sort_by_key(|entry| (bases.iter().position(|base| *base == entry.base()), entry.epoch()));
        }
    }
    entries
}

impl<'a> Entry<'a> {
    fn snapshot(&self) -> Option<&'a SnapshotInfo> {
        match self {
            Entry::Snapshot(snapshot) => Some(snapshot),
            Entry::Missing(..) => None,
        }
    }

    fn name(&self) -> &'a str {
        match self {
            Entry::Snapshot(snapshot) => &snapshot.name,
            Entry::Missing(_, time) => &time.name,
        }
    }

    fn base(&self) -> &'a str {
        match self {
            Entry::Snapshot(snapshot) => &snapshot.base,
            Entry::Missing(of, _) => &of.base,
        }
    }

    fn epoch(&self) -> Epoch {
        match self {
            Entry::Snapshot(snapshot) => snapshot.epoch,
            Entry::Missing(_, time) => time.epoch,
        }
    }

    fn time(&self) -> (i64, u32) {
        let time = match self {
            Entry::Snapshot(snapshot) => snapshot.time,
            Entry::Missing(_, time) => time.time,
        };
        (time.seconds, time.nanos)
    }

    fn json(&self) -> Value {
        match self {
            Entry::Snapshot(snapshot) => json::snapshot(snapshot),
            Entry::Missing(of, time) => json::missing_of(of, time),
        }
    }

    fn cell(&self, column: Column) -> String {
        match self {
            Entry::Snapshot(snapshot) => cell(snapshot, column),
            Entry::Missing(of, time) => match column {
                Column::Name => time.name.clone(),
                Column::Base => of.base.clone(),
                Column::Time => time.time.as_text(),
                Column::Epoch => time.epoch.to_string(),
                Column::State => "missing".into(),
                Column::Notes if time.purpose == Purpose::Plain => "missing".into(),
                Column::Notes => format!("missing,{}", purpose(time.purpose)),
                Column::Purpose => purpose(time.purpose).into(),
                Column::Id | Column::Refers | Column::Frees | Column::Held | Column::Needed => String::new(),
            },
        }
    }
}

fn cell(snapshot: &SnapshotInfo, column: Column) -> String {
    let unless_archived = |text: String| if snapshot.archived { String::new() } else { text };
    match column {
        Column::Name => snapshot.name.clone(),
        Column::Base => snapshot.base.clone(),
        Column::Id => snapshot.id.to_string(),
        Column::Epoch => snapshot.epoch.to_string(),
        Column::Time => snapshot.time.as_text(),
        Column::Refers => unless_archived(size(snapshot.refers)),
        Column::Frees => unless_archived(snapshot.unique.map_or(String::new(), size)),
        Column::State => state_of(snapshot).into(),
        Column::Purpose => purpose(snapshot.purpose).into(),
        Column::Held => snapshot.tags.join(","),
        Column::Needed => needed(snapshot),
        Column::Notes => notes(snapshot),
    }
}

fn purpose(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Plain => "",
        Purpose::Save => "save",
        Purpose::BeforeRestore => "before-restore",
        Purpose::Mirror => "mirror",
        Purpose::Roll => "roll",
    }
}

fn needed(snapshot: &SnapshotInfo) -> String {
    let archive = snapshot.is_anchor.then_some("the archive");
    snapshot.needed_by.iter().map(String::as_str).chain(archive).collect::<Vec<_>>().join(",")
}

fn notes(snapshot: &SnapshotInfo) -> String {
    let state = state_of(snapshot);
    let mut notes = Vec::new();
    if state != "active" {
        notes.push(state.to_string());
    }
    notes.extend(Some(purpose(snapshot.purpose).to_string()).filter(|purpose| !purpose.is_empty()));
    if snapshot.held {
        let is_plain = snapshot.tags == [crate::device::HOLD_TAG];
        notes.push(if is_plain { "held".into() } else { format!("held:{}", snapshot.tags.join("+")) });
    }
    for (is_so, note) in [(snapshot.offline, "offline"), (snapshot.reserve > 0, "reserved")] {
        if is_so {
            notes.push(note.into());
        }
    }
    let needed = needed(snapshot);
    if !needed.is_empty() {
        notes.push(format!("needed by {needed}"));
    }
    notes.join(",")
}

/// Name, time, what it refers to, what deleting it frees, and what is special about it.
pub(super) fn snapshot_row(snapshot: &SnapshotInfo) -> Vec<String> {
    DEFAULT.iter().map(|column| cell(snapshot, *column)).collect()
}
