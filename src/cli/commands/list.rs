//! `list`, and how a snapshot is shown everywhere.

use super::super::args::{Column, List, Sort};
use super::super::output::{print, print_json, size, table, tell_all};
use super::{ask, unexpected};
use crate::control::{Answer, SnapshotInfo, State, Target, Verb};
use crate::error::Result;
use crate::purpose::Purpose;
use std::cmp::Reverse;
use std::collections::HashSet;

pub(super) fn list(target: &Target, args: &List) -> Result<bool> {
    let Answer::List(mut list) = ask(target, Verb::List { all: args.all }, &mut |_| Ok(()))? else {
        return Err(unexpected());
    };
    match args.sort {
        Some(Sort::Name) => list.sort_by(|a, b| a.name.cmp(&b.name)),
        Some(Sort::Time) => list.sort_by_key(|found| (found.time.seconds, found.time.nanoseconds)),
        Some(Sort::Refers) => list.sort_by_key(|found| Reverse(found.refers_bytes)),
        Some(Sort::Frees) => list.sort_by_key(|found| Reverse(found.unique_bytes)),
        None => {}
    }
    if args.json {
        return print_json(&list).map(|()| true);
    }
    let columns = match (args.columns.is_empty(), args.all) {
        (false, _) => args.columns.clone(),
        (true, false) => DEFAULT.to_vec(),
        (true, true) => [&[Column::Base], DEFAULT].concat(),
    };
    let heads = columns.iter().map(|column| column.heading().to_string()).collect();
    let mut rows = vec![heads];
    rows.extend(list.iter().map(|snapshot| columns.iter().map(|column| cell(snapshot, *column)).collect()));
    if rows.len() > 1 {
        print(&table(&rows))?;
    }
    // Each time that is missing has all the problems of its base.
    let mut told = HashSet::new();
    let missing = list.iter().filter(|found| found.problems.is_some() && told.insert(&found.base));
    tell_all(missing.flat_map(|found| found.problems.iter().flatten()));
    Ok(true)
}

const DEFAULT: &[Column] = &[Column::Name, Column::Time, Column::Refers, Column::Frees, Column::Notes];

fn cell(snapshot: &SnapshotInfo, column: Column) -> String {
    match column {
        Column::Name => snapshot.name.clone(),
        Column::Base => snapshot.base.clone(),
        Column::Id => snapshot.id.clone().unwrap_or_default(),
        Column::Epoch => snapshot.epoch.to_string(),
        Column::Time => snapshot.time.text.clone(),
        Column::Refers => snapshot.refers_bytes.map_or(String::new(), size),
        Column::Frees => snapshot.unique_bytes.map_or(String::new(), size),
        Column::State => snapshot.state.as_str().into(),
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
    let archive = snapshot.needed_by_archive.then_some("the archive");
    snapshot.needed_by.iter().map(String::as_str).chain(archive).collect::<Vec<_>>().join(",")
}

fn notes(snapshot: &SnapshotInfo) -> String {
    let mut notes = Vec::new();
    if snapshot.state != State::Active {
        notes.push(snapshot.state.as_str().to_string());
    }
    notes.extend(Some(purpose(snapshot.purpose).to_string()).filter(|purpose| !purpose.is_empty()));
    if snapshot.held {
        let is_plain = snapshot.tags == [crate::device::HOLD_TAG];
        notes.push(if is_plain { "held".into() } else { format!("held:{}", snapshot.tags.join("+")) });
    }
    for (is_so, note) in [(snapshot.offline, "offline"), (snapshot.reserved_bytes > 0, "reserved")] {
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
