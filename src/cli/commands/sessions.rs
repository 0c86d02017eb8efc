//! Sessions.

use super::args::SessionVerb;
use super::asking::quietly;
use super::groups::distinct;
use super::output::{print, print_json, table};
use super::tracks::{print_tracks, read_saved};
use super::{bytes, headed, say_done, unexpected};
use crate::control::{Answer, Session, SessionInfo, SnapshotInfo, State, Target, Verb};
use crate::error::Result;
use serde::Serialize;

pub(super) fn session(target: &Target, verb: SessionVerb, as_json: bool) -> Result<bool> {
    let verb = match verb {
        SessionVerb::Register { name, base, group, offline, reserve } => {
            Session::Register { name: bytes(name), bases: distinct(base)?, group: group.map(bytes), offline, reserve }
        }
        SessionVerb::Relate { name } => Session::Relate { name: bytes(name) },
        SessionVerb::Activate { name } => Session::Activate { name: bytes(name) },
        SessionVerb::Deactivate { name } => Session::Deactivate { name: bytes(name) },
        SessionVerb::Online { name } => Session::Show { name: bytes(name), shown: true },
        SessionVerb::Offline { name } => Session::Show { name: bytes(name), shown: false },
        SessionVerb::Tracks { name, path, range, json } => {
            let verb = Session::Tracks { name: bytes(name), path: path.map(bytes), range };
            return print_tracks(quietly(target, Verb::Session(verb))?, json);
        }
        SessionVerb::Read { name, path, inode, range } => {
            return read_saved(target, bytes(name), path, inode, range, as_json);
        }
        SessionVerb::List { json } => return list_sessions(target, json),
    };
    say_done(as_json, quietly(target, Verb::Session(verb))?)
}

/// A session, before and after it was activated.
#[derive(Serialize)]
#[serde(untagged)]
enum Step<'a> {
    Snapshot(&'a SnapshotInfo),
    Session(&'a SessionInfo),
}

fn list_sessions(target: &Target, as_json: bool) -> Result<bool> {
    let Answer::Sessions(sessions) = quietly(target, Verb::Session(Session::List))? else { return Err(unexpected()) };
    let Answer::List(mut snapshots) = quietly(target, Verb::List { all: false })? else { return Err(unexpected()) };
    snapshots.retain(|snapshot| snapshot.state != State::Missing);
    if as_json {
        let all = snapshots.iter().map(Step::Snapshot).chain(sessions.iter().map(Step::Session));
        return print_json(&all.collect::<Vec<_>>()).map(|()| true);
    }
    let mut rows: Vec<Vec<String>> = snapshots
        .iter()
        .map(|snapshot| {
            let shown = if snapshot.offline { "offline" } else { "" };
            vec![
                snapshot.name.clone(),
                snapshot.state.as_str().into(),
                snapshot.base.clone(),
                shown.into(),
                snapshot.time.text.clone(),
            ]
        })
        .collect();
    rows.extend(sessions.iter().map(|session| {
        let shown = if session.offline { "offline" } else { "" };
        vec![
            session.name.clone(),
            session.state.as_str().into(),
            session.bases.join(","),
            shown.into(),
            session.time.text.clone(),
        ]
    }));
    print(&table(&headed(["snapshot", "state", "base", "", "taken"], rows.into_iter()))).map(|()| true)
}
