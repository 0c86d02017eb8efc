//! Dry runs: what a command would do, in words and as JSON.

use super::super::output::{Display, count, print, print_json, size};
use super::{ask, unexpected, warn};
use crate::control::{Answer, PlanInfo, SnapshotInfo, Target, Verb};
use crate::error::Result;
use crate::shown::line;

/// Asks what a command would do, and shows it; false where something could not be done.
pub(super) fn show(target: &Target, verb: Verb, as_json: bool) -> Result<bool> {
    let mut display = Display::new("looking");
    let answer = ask(target, Verb::Rehearse(Box::new(verb)), &mut |progress| display.update(progress));
    display.finish();
    let Answer::Plan(plan) = answer? else { return Err(unexpected()) };
    if as_json {
        print_json(&plan)?;
    } else {
        print(&plan_text(&plan))?;
        warn(&plan.problems);
    }
    Ok(plan.problems.is_empty())
}

fn plan_text(plan: &PlanInfo) -> String {
    let is_of_several = |snapshots: &[SnapshotInfo]| snapshots.iter().any(|one| one.base != snapshots[0].base);
    let named = |snapshots: &[SnapshotInfo]| {
        let several = is_of_several(snapshots);
        let name = |one: &SnapshotInfo| if several { format!("{}:{}", one.base, one.name) } else { one.name.clone() };
        snapshots.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    let mut lines = Vec::new();
    // Whatever restores something in place keeps what was there before.
    let is_nothing = plan.removed.is_some() && plan.taken.is_empty();
    let targets = [&plan.made[..], &plan.changed].concat().join(", ");
    match (plan.restored.is_empty(), targets.is_empty()) {
        _ if is_nothing => lines.push("nothing differs and nothing would be changed".into()),
        (false, true) => {
            for one in &plan.restored {
                let base = if plan.restored.len() > 1 { format!("{}:", one.base) } else { String::new() };
                lines.push(format!("{base}{} ({}) would be restored", one.name, one.time.text));
            }
        }
        (false, false) if plan.made.is_empty() => {
            lines.push(format!("{targets} would become what {} was", named(&plan.restored)));
        }
        (false, false) => lines.push(format!("{targets} would be made of {}", named(&plan.restored))),
        (true, false) if plan.made.is_empty() => lines.push(format!("{targets} would be changed")),
        (true, false) => lines.push(format!("{targets} would be made")),
        (true, true) => {}
    }
    if let (Some(files), false) = (plan.files, is_nothing) {
        let removed = plan.removed.map_or(String::new(), |removed| format!(", {removed} removed"));
        lines.push(format!("{}, {} would be restored{removed}", count(files, "file"), size(plan.bytes.unwrap_or(0))));
    }
    if let Some(copied) = plan.copied_bytes {
        lines.push(format!("{} would be copied in the store", size(copied)));
    }
    if plan.reserved_bytes > 0 {
        lines.push(format!("{} would be set aside", size(plan.reserved_bytes)));
    }
    if !plan.taken.is_empty() {
        lines.push(format!("{} would be taken", named(&plan.taken)));
    }
    if !plan.deactivated.is_empty() {
        let all = count(plan.deactivated.len() as u64, "snapshot");
        lines.push(format!("{all} would be deactivated: {}", named(&plan.deactivated)));
    }
    if !plan.archives.is_empty() {
        let to = plan.archives.iter().map(|archive| archive.directory.to_string()).collect::<Vec<_>>().join(", ");
        let all = count(plan.saved.len() as u64, "increment");
        let of = if plan.saved.is_empty() { String::new() } else { format!(": {}", named(&plan.saved)) };
        lines.push(format!("{all} would be saved to {to}{of}"));
    }
    if !plan.freed.is_empty() {
        let all = count(plan.freed.len() as u64, "snapshot");
        lines.push(format!("{all} would be freed: {}", named(&plan.freed)));
    }
    lines.iter().map(|one| format!("{}\n", line(one))).collect()
}
