//! Groups, and lists of bases that are given.

use super::args::GroupVerb;
use super::asking::quietly;
use super::output::{print, print_json, table};
use super::{bytes, headed, unexpected};
use crate::control::{Answer, Group, Target, Verb};
use crate::error::{Error, Result};
use crate::shown::shown;
use serde_bytes::ByteBuf;
use std::collections::HashSet;
use std::ffi::OsString;

pub(super) fn group(target: &Target, verb: GroupVerb, as_json: bool) -> Result<bool> {
    let (verb, json, is_list) = match verb {
        GroupVerb::Create { name, bases } => {
            (Group::Create { name: bytes(name), bases: distinct(bases)? }, as_json, false)
        }
        GroupVerb::List { json } => (Group::List, json, true),
        GroupVerb::Delete { name } => (Group::Delete { name: bytes(name) }, as_json, false),
    };
    let Answer::Groups(groups) = quietly(target, Verb::Group(verb))? else { return Err(unexpected()) };
    if json {
        print_json(&groups)?;
    } else if is_list {
        let rows = groups.into_iter().map(|group| vec![group.name, group.bases.join(", ")]);
        print(&table(&headed(["group", "bases"], rows)))?;
    }
    Ok(true)
}

/// Bases, perhaps with a name behind a colon; wrong usage where one is given twice.
pub(super) fn distinct(given: Vec<OsString>) -> Result<Vec<ByteBuf>> {
    let given: Vec<ByteBuf> = given.into_iter().map(bytes).collect();
    let mut known = HashSet::new();
    for one in &given {
        let base = one.split(|byte| *byte == b':').next().unwrap_or_default();
        if !known.insert(base) {
            return Err(Error::Usage(format!("the base {:?} is given twice", shown(base).to_string())));
        }
    }
    Ok(given)
}
