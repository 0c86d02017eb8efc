//! `pitfs upgrade`: works on a store that nobody has open.

use super::super::args::Upgrade;
use super::super::output::{print, print_json, tell_all};
use super::absolute;
use crate::control::{Target, UpgradeInfo};
use crate::daemon;
use crate::error::Result;
use crate::shown::shown_file;

pub(super) fn run(target: &Target, args: Upgrade, as_json: bool) -> Result<bool> {
    let store = &target.store;
    let shown = shown_file(store);
    if args.undo {
        let report = UpgradeInfo::new(store, daemon::undo_upgrade(store)?);
        if as_json {
            return say(&report);
        }
        let but = if report.dropped.is_empty() { "" } else { ", as far as that format knows it" };
        print(&format!("{shown} has format {} again, with all that was done since{but}\n", report.to))?;
        tell_all(&report.dropped);
        return Ok(true);
    }
    if args.confirm {
        let report = UpgradeInfo::new(store, daemon::confirm_upgrade(store)?);
        if as_json {
            return say(&report);
        }
        return print(&format!("{shown} stays in format {}\n", report.to)).map(|()| true);
    }
    let archive = args.archive.as_deref().map(absolute).transpose()?;
    let report = UpgradeInfo::new(store, daemon::upgrade(store, archive.as_deref(), &mut |_| Ok(()))?);
    if as_json {
        return say(&report);
    }
    let UpgradeInfo { from, to, can_be_undone, archives, problems, .. } = report;
    let mut text = match from == to {
        true => format!("{shown} has format {to}\n"),
        false => format!("{shown} was brought from format {from} to {to}\n"),
    };
    for archive in archives {
        text.push_str(&format!("archive {} is attached\n", archive.directory));
    }
    if can_be_undone {
        text.push_str("`pitfs upgrade --undo` goes back, `pitfs upgrade --confirm` ends that possibility\n");
    }
    print(&text)?;
    tell_all(&problems);
    Ok(problems.is_empty())
}

fn say(report: &UpgradeInfo) -> Result<bool> {
    print_json(report)?;
    Ok(report.problems.is_empty())
}
