//! `delete` and `base delete`: what went, or would go.

use super::super::output::{count, print, print_json, size, table};
use super::bases::kind_of;
use super::{ask, unexpected};
use crate::control::{Answer, DeletionInfo, Kind, SnapshotInfo, Target, Verb};
use crate::error::Result;
use std::collections::HashSet;

/// What is done, and told of it.
pub(super) struct Told {
    pub dry_run: bool,
    /// What goes is told in text as well.
    pub goes: bool,
    pub as_json: bool,
}

pub(super) fn delete(target: &Target, verb: Verb, told: Told) -> Result<bool> {
    let verb = if told.dry_run { Verb::Rehearse(Box::new(verb)) } else { verb };
    let Answer::Deletion(deletion) = ask(target, verb, &mut |_| Ok(()))? else { return Err(unexpected()) };
    if told.as_json {
        return print_json(&deletion).map(|()| true);
    }
    if told.goes || told.dry_run {
        print(&deletion_text(&deletion))?;
    }
    Ok(true)
}

fn deletion_text(deletion: &DeletionInfo) -> String {
    let DeletionInfo { dry_run, bases, snapshots, bytes, paths } = deletion;
    let goes = if *dry_run { "would be deleted" } else { "deleted" };
    let is_of_one = |snapshots: &[SnapshotInfo]| snapshots.iter().all(|one| one.base == snapshots[0].base);
    let is_plain = bases.is_empty() && is_of_one(snapshots);
    let mut text = String::new();
    for base in bases {
        text.push_str(&format!("{}: {goes}, {}\n", base.name, kind_of(base)));
        for snapshot in snapshots.iter().filter(|snapshot| snapshot.base == base.name) {
            text.push_str(&format!("{}:{}: {goes}\n", snapshot.base, snapshot.name));
        }
    }
    let going: HashSet<&str> = bases.iter().map(|base| base.name.as_str()).collect();
    for snapshot in snapshots.iter().filter(|snapshot| !going.contains(snapshot.base.as_str())) {
        let base = if is_plain { String::new() } else { format!("{}:", snapshot.base) };
        text.push_str(&format!("{base}{}: {goes}\n", snapshot.name));
    }
    text.push_str(&format!("{} {goes}", counted(deletion)));
    let (Some(bytes), Some(paths)) = (bytes, paths) else { return text + "\n" };
    text.push_str(&format!(", {} would be freed\n", size(*bytes)));
    let rows = paths.iter().map(|freed| {
        let base = if is_plain { String::new() } else { format!("{}: ", freed.base) };
        vec![format!("{base}{}", freed.path), size(freed.bytes)]
    });
    text + &table(&rows.collect::<Vec<_>>())
}

/// `2 clones, 1 mirror and 7 snapshots`.
fn counted(deletion: &DeletionInfo) -> String {
    let number = |kind: Kind| deletion.bases.iter().filter(|base| base.kind == kind).count() as u64;
    let all = [
        (number(Kind::Base), "base"),
        (number(Kind::Clone), "clone"),
        (number(Kind::Mirror), "mirror"),
        (deletion.snapshots.len() as u64, "snapshot"),
    ];
    let all: Vec<String> =
        all.iter().filter(|(number, _)| *number > 0).map(|(number, what)| count(*number, what)).collect();
    match all.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => count(0, "snapshot"),
    }
}
