//! Archives: rolling out, and what is said of them.

use super::args::{ArchiveVerb, Roll};
use super::asking::with_display;
use super::output::{count, print, print_json, size, table, tell_all};
use super::{absolute, bytes, headed, plan, unexpected};
use crate::clock::{Timestamp, parse_when};
use crate::control::{
    Answer, Archive, ArchiveInfo, DetachedInfo, IncrementInfo, RollInfo, ShortenedInfo, Target, Verb, VerifiedInfo,
};
use crate::daemon::{MergeOptions, PruneOptions, RollOptions};
use crate::error::Result;

pub(super) fn roll(target: &Target, args: Roll) -> Result<bool> {
    let archive = args.archive.as_deref().map(absolute).transpose()?;
    let options = RollOptions { archive, keep: args.keep, name: args.name.map(bytes) };
    if args.dry_run {
        let verb = match args.group.map(bytes) {
            Some(group) => Verb::RollGroup { group, options },
            None => Verb::Roll(options),
        };
        return plan::show(target, verb, args.json);
    }
    let Some(group) = args.group else {
        let Answer::Roll(report) = with_display(target, Verb::Roll(options), "rolling")? else {
            return Err(unexpected());
        };
        if args.json {
            print_json(&report)?;
        } else {
            print_roll("", &report)?;
        }
        return Ok(report.problems.is_empty());
    };
    let verb = Verb::RollGroup { group: bytes(group), options };
    let Answer::RollGroup(reports) = with_display(target, verb, "rolling")? else { return Err(unexpected()) };
    if args.json {
        print_json(&reports)?;
    } else {
        reports.iter().try_for_each(|one| print_roll(&format!("{}:", one.base), &one.roll))?;
    }
    Ok(reports.iter().all(|one| one.roll.problems.is_empty()))
}

fn print_roll(base: &str, report: &RollInfo) -> Result<()> {
    tell_all(&report.problems);
    print(&format!(
        "{base}{}: {} saved ({}), {} freed\n",
        report.snapshot,
        count(report.saved, "increment"),
        size(report.saved_bytes),
        count(report.freed, "snapshot")
    ))
}

pub(super) fn archive(target: &Target, verb: ArchiveVerb, as_json: bool) -> Result<bool> {
    let (verb, json, shows) = match verb {
        ArchiveVerb::Attach { directory } => (Archive::Attach { directory: absolute(&directory)? }, as_json, false),
        ArchiveVerb::Detach { directory } => {
            (Archive::Detach { directory: directory.as_deref().map(absolute).transpose()? }, as_json, false)
        }
        ArchiveVerb::List { directory, json } => {
            (Archive::List { directory: directory.as_deref().map(absolute).transpose()? }, json, true)
        }
        ArchiveVerb::Verify { directory, json } => {
            (Archive::Verify { directory: directory.as_deref().map(absolute).transpose()? }, json, false)
        }
        ArchiveVerb::Join { directory } => (Archive::Join { directory: absolute(&directory)? }, as_json, false),
        ArchiveVerb::Prune { keep, before, dry_run, json } => {
            let before = before.as_deref().map(when).transpose()?;
            (Archive::Prune(PruneOptions { keep, before, is_dry_run: dry_run }), json, false)
        }
        ArchiveVerb::Merge { per, before, dry_run, json } => {
            let before = before.as_deref().map(when).transpose()?;
            (Archive::Merge(MergeOptions { per: per.into(), before, is_dry_run: dry_run }), json, false)
        }
    };
    let archives = match with_display(target, Verb::Archive(verb), "reading")? {
        Answer::Archives(archives) => archives,
        Answer::Verified(verified) => return show_verified(&verified, json),
        Answer::Detached(detached) if as_json => return print_json(&detached).map(|()| true),
        Answer::Detached(detached) => return print(&detached_text(&detached)).map(|()| true),
        Answer::Shortened(shortened) => return show_shortened(&shortened, json),
        _ => return Err(unexpected()),
    };
    if json {
        print_json(&archives)?;
    }
    for archive in archives.iter().filter(|_| !json) {
        if shows {
            print(&table(&increment_rows(archive)))?;
            print(&leftovers_text(archive))?;
        }
        tell_all(&archive.problems);
    }
    Ok(archives.iter().all(|archive| archive.problems.is_empty()))
}

fn show_verified(verified: &VerifiedInfo, as_json: bool) -> Result<bool> {
    let VerifiedInfo { archive, whole, whole_bytes } = verified;
    if as_json {
        print_json(&[archive])?;
    } else {
        let verdict = match archive.problems.len() {
            0 => "no problems".to_string(),
            problems => count(problems as u64, "problem"),
        };
        print(&format!("{}, {} read: {verdict}\n", count(*whole, "increment"), size(*whole_bytes)))?;
        print(&leftovers_text(archive))?;
        tell_all(&archive.problems);
    }
    Ok(archive.problems.is_empty())
}

/// What interrupted merges have left, if they have.
fn leftovers_text(archive: &ArchiveInfo) -> String {
    let left: Vec<_> = archive.increments.iter().filter(|increment| increment.merged_into.is_some()).collect();
    if left.is_empty() {
        return String::new();
    }
    let (number, bytes) = (count(left.len() as u64, "increment"), size(left.iter().map(|one| one.bytes).sum()));
    format!("{number}, {bytes}, left over of a merge: the next roll, `archive prune` or `archive merge` removes them\n")
}

pub(super) fn when(text: &str) -> Result<Timestamp> {
    parse_when(text, Timestamp::now())
}

fn show_shortened(shortened: &ShortenedInfo, json: bool) -> Result<bool> {
    if json {
        print_json(shortened)?;
    } else {
        print(&shortened_text(shortened))?;
        tell_all(&shortened.problems);
    }
    Ok(shortened.problems.is_empty())
}

fn shortened_text(shortened: &ShortenedInfo) -> String {
    let ShortenedInfo { times, bytes, standing_save, dry_run, .. } = shortened;
    let rows = times.iter().map(|gone| vec![gone.name.clone(), gone.time.text.clone()]);
    let mut text = table(&rows.collect::<Vec<_>>());
    let goes = if *dry_run { "would go" } else { "went" };
    // What a merge saves is not known before.
    let less = if *dry_run && *bytes == 0 { String::new() } else { format!(", {} less", size(*bytes)) };
    text.push_str(&format!("{} {goes} from the archive{less}\n", count(times.len() as u64, "time")));
    if let Some(save) = standing_save {
        text.push_str(&format!("{save:?} stays: it is the newest save\n"));
    }
    text
}

fn detached_text(detached: &DetachedInfo) -> String {
    let directory = &detached.directory;
    let mut text = match &detached.leads_to {
        Some(name) => format!(
            "{directory}: detached; it leads to the snapshot {name:?}, which has to stay in the store for the archive to be attached again\n"
        ),
        None => format!("{directory}: detached; it has no increments\n"),
    };
    detached.notes.iter().for_each(|note| text.push_str(&format!("{note}\n")));
    text
}

fn increment_rows(archive: &ArchiveInfo) -> Vec<Vec<String>> {
    let row = |increment: &IncrementInfo| {
        let reach = match &increment.merged_into {
            Some(_) => "left over of a merge",
            None if increment.damaged => "damaged",
            None if increment.reachable => "",
            None => "cannot be reached",
        };
        vec![increment.name.clone(), increment.time.text.clone(), size(increment.bytes), reach.to_string()]
    };
    headed(["time", "taken", "size", ""], archive.increments.iter().map(row))
}
