//! Bases, clones and mirrors.

use super::args::{BaseVerb, Clone, MirrorVerb};
use super::asking::{quietly, with_display};
use super::delete::{self, Told};
use super::output::{print, print_json, size, table, tell};
use super::{bytes, name_of, plan, say_done, unexpected};
use crate::control::{Answer, Base, BaseInfo, CloneRequest, Kind, Mirror, MountedInfo, Target, Verb};
use crate::error::Result;
use crate::view::Copying;
use serde_bytes::ByteBuf;
use serde_json::json;
use std::ffi::OsString;

pub(super) fn base(target: &Target, verb: BaseVerb, as_json: bool) -> Result<bool> {
    let mut wait = None;
    let (verb, json, is_list) = match verb {
        BaseVerb::Create { name, from, copy, offline, reserve, wait: waits, dry_run, json } => {
            let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
            if waits {
                wait = Some(bytes(name.clone()));
            }
            let (name, snapshot) = (bytes(name), from.map(bytes));
            let create = Base::Create { name, snapshot, uid, gid, copy, offline, reserve };
            if dry_run {
                return plan::show(target, Verb::Base(create), json);
            }
            (create, json, false)
        }
        BaseVerb::Wait { name } => {
            let done = json!({ "name": name_of(&name) });
            waited(target, bytes(name))?;
            return say_done(as_json, done);
        }
        BaseVerb::List { json } => (Base::List, json, true),
        BaseVerb::Delete { name, recursive, dry_run } => {
            let verb = Verb::Base(Base::Delete { name: bytes(name), recursive });
            return delete::delete(target, verb, Told { dry_run, goes: recursive, as_json });
        }
        BaseVerb::Rename { old, new } => (Base::Rename { old: bytes(old), new: bytes(new) }, as_json, false),
    };
    let is_new = matches!(verb, Base::Create { .. });
    let Answer::Bases(mut bases) = with_display(target, Verb::Base(verb), "copying")? else { return Err(unexpected()) };
    if let Some(name) = wait {
        waited(target, name)?;
        let Answer::Bases(now) = quietly(target, Verb::Base(Base::List))? else { return Err(unexpected()) };
        bases = now;
    }
    if is_new
        && let Answer::Mount(MountedInfo { mount_point: Some(mount_point) }) = quietly(target, Verb::Mount)?
        && crate::control::view_depth(mount_point.as_path()) == 1
    {
        tell(format_args!("{mount_point} shows one base; the new one is shown when the store is mounted again"));
    }
    if json {
        print_json(&bases)?;
    } else if is_list {
        print(&table(&base_rows(&bases)))?;
    }
    Ok(true)
}

/// Waits until what is copied in the background for a base is done.
fn waited(target: &Target, name: ByteBuf) -> Result<()> {
    with_display(target, Verb::Wait { name }, "copying").map(|_| ())
}

/// Does what begins copies in the background, and waits for their end.
pub(super) fn copied(target: &Target, verb: Verb, waits: bool, as_json: bool) -> Result<bool> {
    let Answer::Bases(mut bases) = with_display(target, verb, "copying")? else { return Err(unexpected()) };
    if waits {
        bases.iter().try_for_each(|base| waited(target, ByteBuf::from(base.name.clone())))?;
    }
    if waits && as_json {
        let Answer::Bases(now) = quietly(target, Verb::Base(Base::List))? else { return Err(unexpected()) };
        let is_meant = |base: &BaseInfo| bases.iter().any(|known| known.id == base.id);
        bases = now.into_iter().filter(is_meant).collect();
    }
    say_done(as_json, Answer::Bases(bases))
}

/// What a base is, and of what.
pub(super) fn kind_of(base: &BaseInfo) -> String {
    let of = base.of.as_ref().map_or(String::new(), |of| format!(" of {of}"));
    let is_independent = base.needs.is_none() && base.copied_bytes.is_none();
    match base.kind {
        Kind::Base => "base".to_string(),
        // Of a snapshot that is gone.
        Kind::Clone if base.of.is_none() && base.copied_bytes.is_none() => "clone, independent".to_string(),
        Kind::Clone if base.of.is_some() && is_independent => format!("clone{of}, independent"),
        Kind::Clone => format!("clone{of}"),
        Kind::Mirror if base.split => format!("mirror{of}, split"),
        Kind::Mirror => format!("mirror{of}"),
    }
}

pub(super) fn base_rows(bases: &[BaseInfo]) -> Vec<Vec<String>> {
    let mut rows = vec![["base", "kind", "snapshots", "refers to", "made"].map(str::to_string).to_vec()];
    rows.extend(bases.iter().map(|base| {
        let kind = kind_of(base);
        let kind = match base.settled_blocks.zip(base.blocks_to_settle) {
            Some((done, total)) if total > 0 => format!("{kind}, {} % settled", done * 100 / total),
            Some(_) => format!("{kind}, being settled"),
            None => kind,
        };
        let kind = match base.copied_bytes.zip(base.bytes_to_copy) {
            Some((done, total)) if base.copy_stopped => {
                format!("{kind}, incomplete: no room, {} of {} copied", size(done), size(total))
            }
            Some((done, total)) => {
                format!("{kind}, {} % copied", Copying { done, total, is_stopped: false }.percent())
            }
            None => kind,
        };
        let kind = match (base.filling, base.offline) {
            (true, _) => format!("{kind}, being filled"),
            (false, true) => format!("{kind}, offline"),
            (false, false) => kind,
        };
        let kind = if base.reserved_bytes > 0 { format!("{kind}, reserved") } else { kind };
        vec![base.name.clone(), kind, base.snapshots.to_string(), size(base.refers_bytes), base.time.text.clone()]
    }));
    rows
}

pub(super) fn clone(target: &Target, args: Clone, as_json: bool) -> Result<bool> {
    let Clone { first, second, full, copy, group, offline, reserve, wait, refresh, dry_run } = args;
    let moved = json!({ "name": name_of(&first), "snapshot": name_of(&second) });
    let (snapshot, name) = (bytes(first), bytes(second));
    if refresh {
        let verb = Verb::Refresh { name: snapshot, snapshot: name };
        if dry_run {
            return plan::show(target, verb, as_json);
        }
        quietly(target, verb)?;
        return say_done(as_json, moved);
    }
    let verb = Verb::Clone(CloneRequest { snapshot, name, group: group.map(bytes), full, copy, offline, reserve });
    if dry_run { plan::show(target, verb, as_json) } else { copied(target, verb, wait, as_json) }
}

pub(super) fn promote(target: &Target, name: OsString, waits: bool, as_json: bool) -> Result<bool> {
    copied(target, Verb::Promote { name: bytes(name) }, waits, as_json)
}

pub(super) fn mirror(target: &Target, args: super::args::Mirror, as_json: bool) -> Result<bool> {
    let verb = match args.verb {
        MirrorVerb::Establish { base, name, offline } => {
            Mirror::Establish { base: bytes(base), name: bytes(name), offline }
        }
        MirrorVerb::Sync { name } => Mirror::Sync { name: bytes(name) },
        MirrorVerb::Split { name } => Mirror::Split { name: bytes(name) },
        MirrorVerb::Resync { name, reverse } => Mirror::Resync { name: bytes(name), reverse },
        MirrorVerb::Restore { name } => Mirror::Resync { name: bytes(name), reverse: true },
    };
    match args.dry_run {
        true => plan::show(target, Verb::Mirror(verb), as_json),
        false => copied(target, Verb::Mirror(verb), !args.no_wait, as_json),
    }
}
