//! The protocol is what docs/protocol.md says: every verb, every answer, every field, and nothing else.

use super::answer::{
    Answer, ArchiveInfo, BaseInfo, BaseRollInfo, BytesInfo, Change, CheckInfo, CopiedOutInfo, DeletionInfo,
    DetachedInfo, DifferenceInfo, DirectoryInfo, ErrorInfo, FileTracksInfo, FreedInfo, GoneInfo, GroupInfo,
    HistoryInfo, IncrementInfo, Kind, MissingInfo, MountedInfo, PathInfo, PathText, PlanInfo, PlannedInfo, PolicyInfo,
    ProblemInfo, ProgressInfo, Reply, RestoredInfo, RollInfo, SessionInfo, SessionState, ShortenedInfo, SnapshotInfo,
    State, StatusInfo, StreamInfo, SyncInfo, TimeInfo, TracksInfo, VerifiedInfo, VersionInfo, WhenFull, WorkerInfo,
};
use super::request::{Archive, Keep, Request, Session, Snap, Verb};
use super::{BackupInfo, JobInfo, JobState, KeyInfo, LetGoInfo, SetInfo, SetKind, TargetInfo};
use super::{DoneInfo, HealthInfo, TroubleInfo};
use super::{PROTOCOL, decode, encode};
use crate::clock::{Period, Timestamp};
use crate::daemon::{HealthState, MergeOptions, PruneOptions, RestoreOptions, RollOptions, SyncOptions};
use crate::error::Errno;
use crate::purpose::Purpose;
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const DOCUMENT: &str = include_str!("../../docs/protocol.md");

/// No text, so that it is told with all its bytes.
fn path() -> PathText {
    b"a\xff".to_vec().into()
}

fn time() -> TimeInfo {
    Timestamp { seconds: 1_795_000_000, nanos: 7 }.into()
}

fn text() -> String {
    "text".to_string()
}

fn snapshot() -> SnapshotInfo {
    SnapshotInfo {
        name: text(),
        id: Some(text()),
        base: text(),
        epoch: 3,
        time: time(),
        state: State::Missing,
        purpose: Purpose::BeforeRestore,
        held: true,
        tags: vec![text()],
        needed_by: vec![text()],
        needed_by_archive: true,
        offline: false,
        archived: true,
        refers_bytes: Some(u64::MAX),
        unique_bytes: None,
        reserved_bytes: 0,
        problems: Some(vec![text()]),
    }
}

fn base() -> BaseInfo {
    BaseInfo {
        name: text(),
        id: text(),
        time: time(),
        kind: Kind::Clone,
        of: Some(text()),
        snapshots: 2,
        refers_bytes: 1,
        needs: Some(text()),
        settled_blocks: Some(1),
        blocks_to_settle: Some(2),
        split: false,
        copied_bytes: Some(1),
        bytes_to_copy: Some(2),
        copy_stopped: true,
        filling: false,
        offline: false,
        reserved_bytes: 0,
    }
}

fn archive() -> ArchiveInfo {
    let increment = IncrementInfo {
        name: text(),
        time: time(),
        epoch: 2,
        bytes: 5,
        file: path(),
        purpose: Purpose::Roll,
        reachable: true,
        damaged: false,
        merged_into: Some(path()),
    };
    ArchiveInfo {
        directory: path(),
        base: text(),
        bytes: 5,
        increments: vec![increment],
        problems: vec![text()],
        missing: vec![MissingInfo { name: text(), epoch: 1, purpose: Purpose::Plain, time: time() }],
    }
}

fn roll() -> RollInfo {
    let (saved, saved_bytes, freed) = (1, 2, 3);
    RollInfo { snapshot: text(), saved, saved_bytes, freed, archive: Some(path()), problems: vec![text()] }
}

fn restored() -> RestoredInfo {
    let (files, bytes, removed) = (Some(1), Some(2), None);
    RestoredInfo { restored: snapshot(), before: Some(snapshot()), files, bytes, removed, problems: vec![text()] }
}

fn plan() -> PlanInfo {
    PlanInfo {
        dry_run: true,
        restored: vec![snapshot()],
        taken: vec![snapshot().untaken()],
        deactivated: vec![snapshot()],
        saved: vec![snapshot()],
        freed: vec![snapshot()],
        made: vec![text()],
        changed: vec![text()],
        files: Some(1),
        bytes: Some(2),
        removed: Some(3),
        copied_bytes: Some(4),
        reserved_bytes: 5,
        archives: vec![DirectoryInfo { directory: path() }],
        problems: vec![text()],
    }
}

fn status() -> StatusInfo {
    let failure = Some(text());
    StatusInfo {
        store: path(),
        id: text(),
        mount_point: Some(path()),
        transport: Some(text()),
        track_bytes: 1,
        compression: text(),
        total_bytes: 2,
        available_bytes: 3,
        live_bytes: 4,
        log_bytes: 5,
        metadata_bytes: 6,
        segment_bytes: 7,
        reserved_bytes: 8,
        drop_oldest: true,
        bases: vec![base()],
        archives: vec![archive()],
        saves: vec![snapshot()],
        snapshots: vec![snapshot()],
        workers: vec![WorkerInfo { name: text(), working: true, turns: 9, waits_for: Some(text()), failure }],
        only_read: false,
        stopped: Some(text()),
        health: HealthInfo {
            state: HealthState::ReadOnly,
            troubles: vec![TroubleInfo { what: text(), since: Some(time()), helps: text() }],
        },
        done: vec![DoneInfo::new("check", Timestamp::now(), 1)],
        targets: vec![text()],
    }
}

/// What differs, and what changes nothing.
fn looks() -> Vec<Answer> {
    let session =
        SessionInfo { name: text(), bases: vec![text()], state: SessionState::Related, offline: true, time: time() };
    let history = HistoryInfo { time: time(), uid: 1000, base: None, what: text() };
    let version = VersionInfo {
        snapshot: Some(text()),
        taken: Some(text()),
        taken_seconds: Some(-1),
        taken_nanoseconds: Some(2),
        modified: text(),
        modified_seconds: -3,
        modified_nanoseconds: 4,
        size_bytes: 5,
        inode: 6,
    };
    let difference = DifferenceInfo {
        kind: Change::Renamed,
        path: path(),
        from: Some(path()),
        directory: false,
        size_before_bytes: Some(1),
        size_after_bytes: Some(2),
    };
    let (size_before_bytes, size_after_bytes) = (Some(1), Some(2));
    let file =
        FileTracksInfo { path: path(), inode: 4, size_before_bytes, size_after_bytes, tracks: vec![(0, 2), (3, 4)] };
    let problem = ProblemInfo { text: text(), paths: vec![PathInfo { path: path() }], more_paths: true };
    let check = CheckInfo {
        inodes: 1,
        names: 2,
        tracks: 3,
        snapshots: 4,
        read_bytes: 5,
        problems: vec![problem],
        more_problems: 6,
        problems_without_paths: 1,
    };
    vec![
        Answer::List(vec![snapshot()]),
        Answer::Sessions(vec![session]),
        Answer::Groups(vec![GroupInfo { name: text(), bases: vec![text()] }]),
        Answer::Bases(vec![base()]),
        Answer::History(vec![history]),
        Answer::Versions(vec![version]),
        Answer::Differences(vec![difference]),
        Answer::Tracks(TracksInfo { track_bytes: 65_536, files: vec![file] }),
        Answer::Bytes(BytesInfo { data: vec![0, 1, 255] }),
        Answer::Archives(vec![archive()]),
        Answer::Targets(vec![target()]),
        Answer::Backups(vec![backup()]),
        Answer::Jobs(vec![job()]),
        Answer::Sets(vec![set()]),
        Answer::LetGo(let_go()),
        Answer::Keys(vec![KeyInfo { slot: 1, passphrase: true }]),
        Answer::Verified(VerifiedInfo { archive: archive(), whole: 1, whole_bytes: 5 }),
        Answer::Status(Box::new(status())),
        Answer::Check(check),
        Answer::Plan(plan()),
        Answer::Mount(MountedInfo { mount_point: Some(path()) }),
    ]
}

fn target() -> TargetInfo {
    TargetInfo { name: text(), id: text(), store: text(), directory: path(), encrypted: true, key_file: Some(path()) }
}

fn let_go() -> LetGoInfo {
    let (gone, kept, problems) = (vec![set()], vec![set()], vec![text()]);
    LetGoInfo { gone, kept, freed_bytes: 5, written_bytes: 6, dry_run: true, problems }
}

fn backup() -> BackupInfo {
    let (kind, missing) = (SetKind::Differential, vec![text()]);
    BackupInfo { base: text(), snapshot: text(), set: text(), kind, was_there: true, bytes: 5, added: 6, missing }
}

fn job() -> JobInfo {
    JobInfo {
        job: text(),
        what: text(),
        state: JobState::Stopped,
        time: time(),
        uid: 1,
        detached: true,
        target: Some(text()),
        snapshots: 3,
        written: 2,
        progress: ProgressInfo { files: 1, bytes: 2, total_bytes: 3 },
        added: 5,
        bytes: 6,
        holds: vec![text()],
        waits_for: Some(text()),
        ended: Some(time()),
        failure: Some(text()),
        missing: vec![text()],
    }
}

fn set() -> SetInfo {
    SetInfo {
        set: text(),
        snapshot: text(),
        snapshot_id: text(),
        time: time(),
        base: text(),
        kind: SetKind::Full,
        over: Some(text()),
        bytes: 5,
        incomplete: true,
        hidden: true,
        part: true,
        reasons: vec![text()],
        lost: vec![text()],
        problems: vec![text()],
    }
}

/// One of each, with all that it can have.
fn answers() -> Vec<Answer> {
    let freed = FreedInfo { base: text(), path: path(), bytes: 5 };
    let deletion = DeletionInfo {
        dry_run: true,
        bases: vec![base()],
        snapshots: vec![snapshot()],
        bytes: Some(5),
        paths: Some(vec![freed]),
    };
    let shortened = ShortenedInfo {
        directory: path(),
        times: vec![GoneInfo { name: text(), time: time() }],
        bytes: 3,
        standing_save: Some(text()),
        dry_run: false,
        problems: vec![text()],
    };
    let sync = SyncInfo {
        dry_run: true,
        added: 1,
        changed: 2,
        removed: 3,
        unchanged: 4,
        read_bytes: 5,
        written_bytes: 6,
        planned: vec![PlannedInfo { what: text(), path: path() }],
        left_out: vec![text()],
        problems: vec![text()],
    };
    let policy =
        PolicyInfo { when_full: WhenFull::DropOldest, before_restore: Some(3), deleted: vec![snapshot().untaken()] };
    let mut answers = vec![
        Answer::Nothing,
        Answer::Snapshots(vec![snapshot()]),
        Answer::Deletion(deletion),
        Answer::Restored(Box::new(restored())),
        Answer::RestoredAll(vec![restored()]),
        Answer::CopiedOut(CopiedOutInfo { directory: path(), files: 1, bytes: 2, problems: vec![text()] }),
        Answer::Roll(roll()),
        Answer::RollGroup(vec![BaseRollInfo { base: text(), roll: roll() }]),
        Answer::Detached(DetachedInfo { directory: path(), leads_to: Some(text()), notes: vec![text()] }),
        Answer::Shortened(shortened),
        Answer::Policy(policy),
        Answer::Sync(sync),
        Answer::Stream(StreamInfo { files: 1, bytes: 2, problems: vec![text()] }),
    ];
    answers.extend(looks());
    answers
}

/// The names that a type takes where it is given another; `None` where it takes none at all.
fn expected<T: DeserializeOwned>(other: Value) -> Option<(bool, BTreeSet<String>)> {
    let error = serde_json::from_value::<T>(other).err().unwrap().to_string();
    let is_field = error.starts_with("unknown field");
    let (_, names) = error.split_once("expected ")?;
    (is_field || error.starts_with("unknown variant"))
        .then(|| (is_field, names.split('`').skip(1).step_by(2).map(str::to_string).collect()))
}

/// What stands between backquotes in a part of a line.
fn quoted(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_string).collect()
}

/// The first cell of each row of a table, and the second.
fn rows(heading: &str) -> Vec<(&'static str, &'static str)> {
    let from = DOCUMENT.find(heading).unwrap_or_else(|| panic!("there is no table {heading}"));
    let rows = DOCUMENT[from..].lines().skip(2).take_while(|line| line.starts_with("| "));
    rows.map(|row| {
        let mut cells = row.trim_matches(['|', ' ']).split(" |").map(str::trim);
        (cells.next().unwrap(), cells.next().unwrap())
    })
    .collect()
}

#[test]
fn every_verb_is_documented_with_its_fields_and_no_others() {
    let (_, verbs) = expected::<Verb>(json!("?")).unwrap();
    assert!(verbs.len() > 20);
    let mut real = BTreeSet::new();
    for verb in &verbs {
        match expected::<Verb>(json!({ verb: { "?": 1 } })) {
            // Another verb.
            Some((false, _)) if verb == "rehearse" => drop(real.insert((format!("`{verb}`"), BTreeSet::new()))),
            Some((false, parts)) => {
                for part in parts {
                    let fields = expected::<Verb>(json!({ verb: { &part: { "?": 1 } } })).unwrap_or_default().1;
                    real.insert((format!("`{verb}` `{part}`"), fields));
                }
            }
            fields => drop(real.insert((format!("`{verb}`"), fields.unwrap_or_default().1))),
        }
    }
    let written = rows("| verb |").into_iter().map(|(verb, fields)| (verb.to_string(), quoted(fields)));
    assert_eq!(written.collect::<BTreeSet<_>>(), real);
}

/// What is marked as such, and nothing else, may be left out.
#[test]
fn fields_that_may_be_left_out_are_documented_as_such() {
    for (verb, fields) in rows("| verb |").into_iter().filter(|(verb, _)| *verb != "`rehearse`") {
        let needed: BTreeSet<String> = fields
            .split(", ")
            .filter(|field| !field.is_empty() && !field.ends_with('?'))
            .map(|field| field.trim_matches('`').to_string())
            .collect();
        let mut given = serde_json::Map::new();
        // Whatever is missed is given, until nothing is.
        let missed = loop {
            let inner = Value::Object(given.clone());
            let whole = verb.split(' ').rev().fold(inner, |value, part| json!({ part.trim_matches('`'): value }));
            let Err(error) = serde_json::from_value::<Verb>(whole) else { break given };
            let error = error.to_string();
            let Some((_, field)) = error.split_once("missing field `") else { break given };
            let field = field.split('`').next().unwrap().to_string();
            let value = match field.as_str() {
                "names" | "bases" | "paths" | "exclude" | "sets" => json!([]),
                "range" => json!([0, 1]),
                "uid" | "gid" | "inode" | "waste" | "slot" => json!(0),
                "per" => json!("day"),
                "kind" => json!("full"),
                "options" | "keep" => json!({}),
                "name" | "old" | "new" | "base" | "snapshot" | "before" | "after" | "path" => json!("x"),
                "group" | "directory" | "to" | "source" | "destination" => json!("x"),
                _ => json!(false),
            };
            given.insert(field, value);
        };
        assert_eq!(missed.keys().cloned().collect::<BTreeSet<_>>(), needed, "{verb}");
    }
}

/// All names of objects in a value; what stands beside a name by a rule is left out.
fn names(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let beside = ["_hex", "_seconds", "_nanoseconds"];
                let is_beside =
                    beside.iter().any(|end| name.strip_suffix(end).is_some_and(|of| fields.contains_key(of)));
                let is_of_time = fields.contains_key("time") && (name == "seconds" || name == "nanoseconds");
                if !is_beside && !is_of_time {
                    found.insert(name.clone());
                }
                names(field, found);
            }
        }
        Value::Array(all) => all.iter().for_each(|value| names(value, found)),
        _ => {}
    }
}

#[test]
fn every_answer_is_documented_with_its_fields_and_no_others() {
    let (_, known) = expected::<Answer>(json!("?")).unwrap();
    let written: BTreeSet<String> = rows("| answer |").into_iter().flat_map(|(answer, _)| quoted(answer)).collect();
    assert_eq!(written, known);
    let mut tried = BTreeSet::new();
    let mut real = BTreeSet::new();
    for answer in answers() {
        let value = serde_json::to_value(&answer).unwrap();
        let Value::Object(fields) = value else {
            tried.insert(value.as_str().unwrap().to_string());
            continue;
        };
        tried.extend(fields.keys().cloned());
        fields.values().for_each(|inner| names(inner, &mut real));
    }
    assert_eq!(tried, known);
    // In brackets stand values.
    let outside = |cell: &str| cell.split('(').map(|part| part.rsplit(')').next().unwrap_or(part)).collect::<String>();
    let written: BTreeSet<String> = rows("| object |").iter().flat_map(|(_, cell)| quoted(&outside(cell))).collect();
    let written: BTreeSet<String> = written.into_iter().filter(|name| !name.starts_with("--")).collect();
    assert_eq!(written, real);
}

#[test]
fn every_reply_is_documented() {
    let (_, known) = expected::<Reply>(json!("?")).unwrap();
    let written: BTreeSet<String> = rows("| reply |")
        .iter()
        .map(|(reply, _)| reply.trim_matches(['`', '{', '"']).split('"').next().unwrap().to_string())
        .collect();
    assert_eq!(written, known);
    let failed = serde_json::to_value(ErrorInfo::new(Errno::NOENT, "none")).unwrap();
    assert_eq!(failed, json!({ "errno": "ENOENT", "number": 2, "message": "none" }));
    let progress = serde_json::to_value(ProgressInfo { files: 1, bytes: 2, total_bytes: 3 }).unwrap();
    let mut fields = BTreeSet::new();
    names(&failed, &mut fields);
    names(&progress, &mut fields);
    assert!(fields.iter().all(|field| DOCUMENT.contains(&format!("`{field}`"))), "{fields:?}");
}

#[test]
fn the_documented_exchange_is_one() {
    let exchange: Vec<&str> = DOCUMENT.lines().filter(|line| line.starts_with("    > ")).collect();
    let [asked] = exchange.as_slice() else { panic!("{exchange:?}") };
    let request: Request = decode(asked.trim_start_matches("    > ").as_bytes()).unwrap();
    assert_eq!(request.protocol, PROTOCOL);
    let replies: Vec<&str> = DOCUMENT.lines().filter_map(|line| line.strip_prefix("    < ")).collect();
    for told in &replies {
        let reply: Reply = decode(told.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(encode(&reply).unwrap()).unwrap(), *told);
    }
    assert!(replies.first().is_some_and(|told| *told == "\"begun\"") && replies.len() > 1);
    assert!(DOCUMENT.contains(&format!("This is protocol {PROTOCOL}.")));
    assert!(DOCUMENT.lines().count() <= 240);
}

#[test]
fn every_answer_comes_back_as_it_was() {
    for answer in answers() {
        let sent = encode(&Reply::Done(Box::new(answer))).unwrap();
        let received: Reply = decode(&sent).unwrap();
        assert_eq!(encode(&received).unwrap(), sent, "{}", String::from_utf8_lossy(&sent));
    }
}

#[test]
fn every_request_comes_back_as_it_was() {
    let odd = || ByteBuf::from(b"\"\\\n\xff".to_vec());
    let file = || std::path::PathBuf::from("/\\x\u{7}ä");
    let before = Some(Timestamp { seconds: -5, nanos: 999_999_999 });
    let sync =
        SyncOptions { source: file(), exclude: vec![odd(), ByteBuf::from("ä".to_string())], ..SyncOptions::default() };
    let merge = MergeOptions { per: Period::Week, before, is_dry_run: true };
    let roll = RollOptions { archive: Some(file()), keep: Some(1), name: Some(odd()) };
    for verb in [
        Verb::Status,
        Verb::Undo,
        Verb::Snap(Snap { name: Some(odd()), save: true, ..Snap::default() }),
        Verb::Session(Session::Read { name: ByteBuf::from("s".to_string()), inode: u64::MAX, range: (0, u64::MAX) }),
        Verb::CopyOut(RestoreOptions { snapshot: odd().into_vec(), paths: vec![odd()], to: file(), overwrite: true }),
        Verb::Sync(sync),
        Verb::Roll(roll.clone()),
        Verb::RollGroup { group: ByteBuf::from("g".to_string()), options: roll },
        Verb::Archive(Archive::Prune(PruneOptions { keep: Some(2), before, is_dry_run: false })),
        Verb::Archive(Archive::Merge(merge)),
        Verb::Archive(Archive::Detach { directory: Some(file()) }),
        Verb::Policy { drop_oldest: None, before_restores: Some(Keep::Newest(3)) },
        Verb::Rehearse(Box::new(Verb::Promote { name: odd() })),
    ] {
        let sent = encode(&Request { protocol: PROTOCOL, base: Some(odd()), verb, stream: None }).unwrap();
        let received: Request = decode(&sent).unwrap();
        assert_eq!(encode(&received).unwrap(), sent, "{}", String::from_utf8_lossy(&sent));
    }
    let sent = encode(&Verb::Rename { old: ByteBuf::from("a\"b".to_string()), new: odd() }).unwrap();
    assert_eq!(String::from_utf8(sent).unwrap(), r#"{"rename":{"old":"a\"b","new":[34,92,10,255]}}"#);
}
