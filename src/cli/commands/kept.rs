//! What is kept and for how long, and what there was.

use super::args::{History, Hold, Policy, Versions, WhenFull};
use super::asking::quietly;
use super::output::{count, print, print_json, size, table};
use super::{bytes, headed, say_done, unexpected};
use crate::control::{Answer, Target, Verb};
use crate::error::Result;
use serde_bytes::ByteBuf;

pub(super) fn hold(target: &Target, args: Hold, held: bool, as_json: bool) -> Result<bool> {
    let (names, tag) = (args.names.into_iter().map(bytes).collect(), args.tag.map(bytes));
    say_done(as_json, quietly(target, Verb::Hold { names, tag, held })?)
}

pub(super) fn policy(target: &Target, args: &Policy) -> Result<bool> {
    let drop_oldest = args.when_full.map(|what| what == WhenFull::DropOldest);
    let verb = Verb::Policy { drop_oldest, before_restores: args.before_restore };
    let Answer::Policy(policy) = quietly(target, verb)? else { return Err(unexpected()) };
    if args.json {
        print_json(&policy)?;
    } else if !policy.deleted.is_empty() {
        print(&format!("{} deleted\n", count(policy.deleted.len() as u64, "snapshot")))?;
    } else if args.when_full.is_none() && args.before_restore.is_none() {
        let kept = policy.before_restore.map_or("all".into(), |kept| kept.to_string());
        print(&format!("when-full {}\nbefore-restore {kept}\n", policy.when_full.as_str()))?;
    }
    Ok(true)
}

pub(super) fn history(target: &Target, args: &History) -> Result<bool> {
    let Answer::History(entries) = quietly(target, Verb::History)? else { return Err(unexpected()) };
    if args.json {
        return print_json(&entries).map(|()| true);
    }
    let rows = entries.into_iter().map(|entry| {
        let base = entry.base.unwrap_or_else(|| "(deleted)".into());
        vec![entry.time.text, user_name(entry.uid), base, entry.what]
    });
    print(&table(&headed(["time", "user", "base", "what"], rows))).map(|()| true)
}

/// The name of a user, if it can be told.
fn user_name(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let wanted = uid.to_string();
    let found = users.lines().find(|line| line.split(':').nth(2) == Some(&wanted));
    found.and_then(|line| line.split(':').next()).map_or_else(|| format!("uid {uid}"), str::to_string)
}

pub(super) fn versions(target: &Target, path: Vec<u8>, args: &Versions) -> Result<bool> {
    let verb = Verb::Versions { path: ByteBuf::from(path) };
    let Answer::Versions(versions) = quietly(target, verb)? else { return Err(unexpected()) };
    if args.json {
        return print_json(&versions).map(|()| true);
    }
    let rows = versions.iter().map(|version| {
        let shown = version.snapshot.clone().unwrap_or_else(|| "live".into());
        vec![shown, version.modified.clone(), size(version.size_bytes)]
    });
    print(&table(&headed(["snapshot", "modified", "size"], rows))).map(|()| true)
}
