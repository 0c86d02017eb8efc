//! `delete` and `base delete`: what went, or would go.

use super::super::json;
use super::super::output::{count, path, print, print_json, size, table};
use super::points::kind_of;
use super::{ask, unexpected};
use crate::control::{Answer, DeletionInfo, SnapshotInfo, Target, Verb};
use crate::error::Result;
use crate::view::{BaseInfo, BaseKind};

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
        return print_json(&json::deletion(&deletion, told.dry_run)).map(|()| true);
    }
    if told.goes || told.dry_run {
        print(&deletion_text(&deletion, told.dry_run))?;
    }
    Ok(true)
}

fn deletion_text(deletion: &DeletionInfo, is_dry_run: bool) -> String {
    let goes = if is_dry_run { "would be deleted" } else { "deleted" };
    let DeletionInfo { bases, snapshots, freed } = deletion;
    let is_of_one = |snapshots: &[SnapshotInfo]| snapshots.iter().all(|one| one.base == snapshots[0].base);
    let is_plain = bases.is_empty() && is_of_one(snapshots);
    let mut text = String::new();
    for (base, snapshots) in bases {
        text.push_str(&format!("{}: {goes}, {}\n", base.name, kind_of(base)));
        for snapshot in snapshots {
            text.push_str(&format!("{}:{}: {goes}\n", snapshot.base, snapshot.name));
        }
    }
    for snapshot in snapshots {
        let base = if is_plain { String::new() } else { format!("{}:", snapshot.base) };
        text.push_str(&format!("{base}{}: {goes}\n", snapshot.name));
    }
    text.push_str(&format!("{} {goes}", counted(deletion)));
    let Some(freed) = freed else { return text + "\n" };
    text.push_str(&format!(", {} would be freed\n", size(freed.bytes)));
    let rows = freed.paths.iter().map(|(base, name, bytes)| {
        let base = if is_plain { String::new() } else { format!("{base}: ") };
        vec![format!("{base}{}", path(name)), size(*bytes)]
    });
    text + &table(&rows.collect::<Vec<_>>())
}

/// `2 clones, 1 mirror and 7 snapshots`.
fn counted(deletion: &DeletionInfo) -> String {
    let number = |is: fn(&BaseInfo) -> bool| deletion.bases.iter().filter(|(base, _)| is(base)).count() as u64;
    let of_bases = deletion.bases.iter().map(|(_, snapshots)| snapshots.len()).sum::<usize>();
    let all = [
        (number(|base| base.kind == BaseKind::Base), "base"),
        (number(|base| matches!(base.kind, BaseKind::Clone(_))), "clone"),
        (number(|base| matches!(base.kind, BaseKind::Mirror(_))), "mirror"),
        ((of_bases + deletion.snapshots.len()) as u64, "snapshot"),
    ];
    let all: Vec<String> =
        all.iter().filter(|(number, _)| *number > 0).map(|(number, what)| count(*number, what)).collect();
    match all.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => count(0, "snapshot"),
    }
}
