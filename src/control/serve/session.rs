//! Sessions, and groups of bases.

use super::base::base_answer;
use super::compare::tracks_answer;
use super::{bases_of, infos};
use crate::control::{Answer, BytesInfo, Group, GroupInfo, Session, SessionInfo};
use crate::device::{BaseId, InodeNo, Snapshot, SnapshotState};
use crate::error::{Errno, Error, Result};
use crate::view::{RegisterOptions, Views};
use serde_bytes::ByteBuf;

/// Bytes of saved tracks that one answer carries.
const READ_BYTES_MAX: u64 = 4 << 20;

/// `of_one` says that only one base is meant.
pub(super) fn session(views: &Views, session: Session, of_one: bool) -> Result<Answer> {
    match session {
        Session::Register { name, bases, group, offline, reserve } => {
            let bases = named_bases(views, &bases, group.as_ref())?;
            views.sessions().register(&name, &bases, RegisterOptions { offline, reserve })?;
            sessions(views)
        }
        Session::Relate { name } => {
            check_not_taken(views, &name)?;
            views.sessions().relate(&name)?;
            sessions(views)
        }
        Session::Activate { name } => {
            check_not_taken(views, &name)?;
            let taken = views.sessions().activate(&name)?;
            infos(views, &taken).map(Answer::Snapshots)
        }
        Session::Deactivate { name } => {
            if views.sessions().named(&name).is_ok() {
                views.sessions().unregister(&name)?;
                return sessions(views);
            }
            let snapshot = views.snapshots().expect_stored(&name)?;
            let all = if of_one { vec![snapshot] } else { views.snapshots().of_one_moment(&snapshot)? };
            let ended = views.snapshots().deactivate_all(&all)?;
            infos(views, &ended).map(Answer::Snapshots)
        }
        Session::Show { name, shown } => {
            let is_base = views.find(&name)?.is_none() && views.tree().device().look()?.base_named(&name).is_some();
            if is_base {
                let base = views.bases().named(&name)?;
                views.bases().show(base, shown)?;
                return base_answer(views, base);
            }
            let what = if shown { "session online" } else { "session offline" };
            let snapshot = views.snapshots().update(&name, what, |record| record.offline = !shown)?;
            infos(views, &[snapshot]).map(Answer::Snapshots)
        }
        Session::Tracks { name, path, range } => {
            let snapshot = ended(views, &name)?;
            let found = views.tree().track_changes().saved_tracks(
                snapshot.base,
                snapshot.epoch,
                path.as_deref().map(Vec::as_slice),
            )?;
            Ok(tracks_answer(views, found, range))
        }
        Session::Read { name, inode, range: (from, to) } => {
            let snapshot = ended(views, &name)?;
            let inode = InodeNo::new(snapshot.base, inode);
            let to = to.min(from.saturating_add(READ_BYTES_MAX));
            let data = views.tree().track_changes().read_saved(snapshot.epoch, inode, from..to)?;
            Ok(Answer::Bytes(BytesInfo { data }))
        }
        Session::List => sessions(views),
    }
}

/// Bases with the names that their snapshots are to have, where that is not the session's.
fn named_bases(views: &Views, given: &[ByteBuf], group: Option<&ByteBuf>) -> Result<Vec<(BaseId, Vec<u8>)>> {
    let mut names = std::collections::BTreeMap::new();
    let mut bases = Vec::new();
    for given in given {
        // A base has no colon in its name.
        let mut parts = given.splitn(2, |byte| *byte == b':');
        let base = ByteBuf::from(parts.next().unwrap_or_default());
        if let Some(own) = parts.next() {
            names.insert(views.bases().named(&base)?, own.to_vec());
        }
        bases.push(base);
    }
    let bases = bases_of(views, &bases, group)?;
    Ok(bases.into_iter().map(|base| (base, names.remove(&base).unwrap_or_default())).collect())
}

/// Says of a session that is one no more that its snapshot was taken.
fn check_not_taken(views: &Views, name: &[u8]) -> Result<()> {
    let (Err(_), Some(snapshot)) = (views.sessions().named(name), views.find(name)?) else { return Ok(()) };
    let name = &snapshot.record.name;
    let text = match snapshot.record.state {
        _ if snapshot.is_archived => format!("the snapshot {name:?} was taken, and is in the archive"),
        SnapshotState::Active => {
            format!(
                "the session {name:?} is active already: its snapshot was taken; `pitfs session deactivate {name}` is next"
            )
        }
        SnapshotState::Deactivated | SnapshotState::Ended(_) => {
            format!("the session {name:?} was active, and is deactivated already")
        }
    };
    Err(Error::Refused(Errno::INVAL, text))
}

/// A snapshot whose increment changes no more.
fn ended(views: &Views, name: &[u8]) -> Result<Snapshot> {
    let snapshot = views.expect(name)?;
    if snapshot.record.state == SnapshotState::Active {
        let name = &snapshot.record.name;
        let text = format!(
            "{name:?} is active: look into it, or `pitfs session deactivate {name}` first; saved tracks are read of \
             what is deactivated"
        );
        return Err(Error::Refused(Errno::INVAL, text));
    }
    Ok(snapshot)
}

fn sessions(views: &Views) -> Result<Answer> {
    let all = views.sessions().all()?.into_iter().map(|session| {
        let bases = names_of(views, &session.record.bases);
        SessionInfo::new(session, bases)
    });
    Ok(Answer::Sessions(all.collect()))
}

fn names_of(views: &Views, bases: &[BaseId]) -> Vec<String> {
    bases.iter().map(|base| views.of(*base).base_name().unwrap_or_else(|_| "(deleted)".into())).collect()
}

pub(super) fn group(views: &Views, group: Group) -> Result<Answer> {
    match group {
        Group::Create { name, bases } => views.groups().create(&name, &bases_of(views, &bases, None)?)?,
        Group::Delete { name } => views.groups().delete(&name)?,
        Group::List => {}
    }
    let groups =
        views.groups().all()?.into_iter().map(|(name, bases)| GroupInfo { name, bases: names_of(views, &bases) });
    Ok(Answer::Groups(groups.collect()))
}
