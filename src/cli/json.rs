//! Every answer as JSON, with one spelling: sizes are bytes and named so, a time is text with its numbers beside it,
//! a path is text with all its bytes beside it where it is none.

use super::output::{hex, path};
use crate::clock::Timestamp;
use crate::control::{
    Answer, DeletionInfo, MissingInfo, PlanInfo, SessionInfo, SnapshotInfo, StatusInfo, TracksInfo, VersionInfo,
};
use crate::daemon::{
    ArchiveInfo, BringBackReport, CheckReport, Detached, MissingTime, RestoreReport, RollReport, Shortened, SyncReport,
    UpgradeReport, WorkerInfo,
};
use crate::device::SnapshotState;
use crate::tree::Difference;
use crate::view::{BaseInfo, BaseKind, HistoryEntry};
use serde_json::{Value, json};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A list, of whatever has JSON of its own.
pub fn all<'a, T: 'a>(of: impl IntoIterator<Item = &'a T>, json: impl Fn(&T) -> Value) -> Value {
    of.into_iter().map(json).collect()
}

/// An object with a time under a name, as text, and as seconds since 1970 and nanoseconds; these are `seconds` and
/// `nanoseconds` of what is called `time`.
fn put_time(object: &mut Value, name: &str, time: Timestamp) {
    let before = if name == "time" { String::new() } else { format!("{name}_") };
    object[name] = time.as_text().into();
    object[format!("{before}seconds")] = time.seconds.into();
    object[format!("{before}nanoseconds")] = time.nanos.into();
}

/// The same of a path: itself, which JSON can say of any text, or with escapes and all its bytes in hexadecimal where it is none.
pub fn put_path(object: &mut Value, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object[name] = text.into(),
        Err(_) => {
            object[name] = path(bytes).into();
            object[format!("{name}_hex")] = hex(bytes).into();
        }
    }
}

/// And of one outside the store.
pub fn put_file(object: &mut Value, name: &str, file: &Path) {
    put_path(object, name, file.as_os_str().as_bytes());
}

fn with_path(mut object: Value, name: &str, bytes: &[u8]) -> Value {
    put_path(&mut object, name, bytes);
    object
}

/// A path outside the store, or null.
fn put_file_or_null(object: &mut Value, name: &str, file: Option<&Path>) {
    match file {
        Some(file) => put_file(object, name, file),
        None => object[name] = Value::Null,
    }
}

/// An object that has nothing but a path outside the store.
pub fn of_file(name: &str, file: &Path) -> Value {
    with_path(json!({}), name, file.as_os_str().as_bytes())
}

/// `active`, `deactivated`, `ended` or `archived`.
pub fn state_of(snapshot: &SnapshotInfo) -> &'static str {
    match snapshot.state {
        _ if snapshot.archived => "archived",
        SnapshotState::Active => "active",
        SnapshotState::Deactivated => "deactivated",
        SnapshotState::Ended(_) => "ended",
    }
}

pub fn snapshot(snapshot: &SnapshotInfo) -> Value {
    let mut value = json!({
        "name": snapshot.name,
        "id": snapshot.id.to_string(),
        "base": snapshot.base,
        "epoch": snapshot.epoch,
        "state": state_of(snapshot),
        "purpose": snapshot.purpose,
        "held": snapshot.held,
        "tags": snapshot.tags,
        "needed_by": snapshot.needed_by,
        "needed_by_archive": snapshot.is_anchor,
        "offline": snapshot.offline,
        "archived": snapshot.archived,
        // What only an archive has is not counted.
        "refers_bytes": (!snapshot.archived).then_some(snapshot.refers),
        "unique_bytes": snapshot.unique,
        "reserved_bytes": snapshot.reserve,
    });
    put_time(&mut value, "time", snapshot.time);
    value
}

pub fn snapshots<'a>(all: impl IntoIterator<Item = &'a SnapshotInfo>) -> Value {
    self::all(all, snapshot)
}

/// A snapshot that would be taken: its id is given when it is.
fn not_taken(snapshot: &SnapshotInfo) -> Value {
    let mut value = self::snapshot(snapshot);
    value["id"] = Value::Null;
    value
}

/// A time that an archive had, with the fields of a snapshot and the reasons why it cannot be read.
pub fn missing_of(of: &MissingInfo, time: &MissingTime) -> Value {
    let mut value = json!({
        "name": time.name,
        "id": null,
        "base": of.base,
        "epoch": time.epoch,
        "state": "missing",
        "purpose": time.purpose,
        "held": false,
        "tags": [],
        "needed_by": [],
        "needed_by_archive": false,
        "offline": false,
        "archived": true,
        "refers_bytes": null,
        "unique_bytes": null,
        "reserved_bytes": 0,
        "problems": of.problems,
    });
    put_time(&mut value, "time", time.time);
    value
}

pub fn base(base: &BaseInfo) -> Value {
    let (kind, of) = match &base.kind {
        BaseKind::Base => ("base", None),
        BaseKind::Clone(of) => ("clone", of.as_ref()),
        BaseKind::Mirror(of) => ("mirror", Some(of)),
    };
    let mut value = json!({
        "name": base.name,
        "id": base.unique_id.to_string(),
        "kind": kind,
        "of": of,
        "snapshots": base.snapshots,
        "refers_bytes": base.refers,
        "needs": base.needs,
        "settled_blocks": base.settling.map(|settling| settling.0),
        "blocks_to_settle": base.settling.map(|settling| settling.1),
        "split": base.is_split,
        "copied_bytes": base.copying.map(|copying| copying.done),
        "bytes_to_copy": base.copying.map(|copying| copying.total),
        "copy_stopped": base.copying.is_some_and(|copying| copying.is_stopped),
        "filling": base.is_filling,
        "offline": base.is_offline,
        "reserved_bytes": base.reserve,
    });
    put_time(&mut value, "time", base.time);
    value
}

pub fn session(session: &SessionInfo) -> Value {
    let mut value = json!({
        "name": session.name,
        "bases": session.bases,
        "state": session.state(),
        "offline": session.record.offline,
    });
    put_time(&mut value, "time", session.record.time);
    value
}

pub fn group((name, bases): &(String, Vec<String>)) -> Value {
    json!({ "name": name, "bases": bases })
}

/// What an answer says, for commands that say nothing of it in text.
pub fn answer(answer: &Answer) -> Value {
    match answer {
        Answer::Snapshots(all) => json!({ "snapshots": snapshots(all) }),
        Answer::Bases(bases) => json!({ "bases": all(bases, base) }),
        Answer::Sessions(sessions) => json!({ "sessions": all(sessions, session) }),
        Answer::Groups(groups) => json!({ "groups": all(groups, group) }),
        _ => json!({}),
    }
}

pub fn detached(detached: &Detached) -> Value {
    let mut value = json!({ "leads_to": detached.leads_to, "notes": detached.notes });
    put_file(&mut value, "directory", &detached.directory);
    value
}

pub fn deletion(deletion: &DeletionInfo, is_dry_run: bool) -> Value {
    let of_bases = deletion.bases.iter().flat_map(|(_, snapshots)| snapshots);
    let mut value = json!({
        "dry_run": is_dry_run,
        "bases": all(deletion.bases.iter().map(|(base, _)| base), base),
        "snapshots": snapshots(of_bases.chain(&deletion.snapshots)),
    });
    if let Some(freed) = &deletion.freed {
        value["paths"] =
            all(&freed.paths, |(base, path, bytes)| with_path(json!({ "base": base, "bytes": bytes }), "path", path));
        value["bytes"] = freed.bytes.into();
    }
    value
}

pub fn plan(plan: &PlanInfo) -> Value {
    json!({
        "dry_run": true,
        "restored": snapshots(&plan.restored),
        "taken": all(&plan.taken, not_taken),
        "deactivated": snapshots(&plan.deactivated),
        "saved": snapshots(&plan.saved),
        "freed": snapshots(&plan.freed),
        "made": plan.made,
        "changed": plan.changed,
        "files": plan.files,
        "bytes": plan.bytes,
        "removed": plan.removed,
        "copied_bytes": plan.copied,
        "reserved_bytes": plan.reserved,
        "archives": all(&plan.archives, |directory| with_path(json!({}), "directory", directory)),
        "problems": plan.problems,
    })
}

/// Gone back to in place; without what was before, nothing differed. What is done in one step is not counted.
pub fn restored(before: Option<&SnapshotInfo>, to: &SnapshotInfo, counted: Option<&BringBackReport>) -> Value {
    json!({
        "restored": snapshot(to),
        "before": before.map(snapshot),
        "files": counted.map(|report| report.files),
        "bytes": counted.map(|report| report.bytes),
        "removed": counted.map(|report| report.removed),
        "problems": counted.map_or(&[][..], |report| &report.problems),
    })
}

pub fn copied_out(report: &RestoreReport, to: &Path) -> Value {
    let mut value = json!({ "files": report.files, "bytes": report.bytes, "problems": report.problems });
    put_file(&mut value, "directory", to);
    value
}

pub fn synced(report: &SyncReport, is_dry_run: bool) -> Value {
    json!({
        "dry_run": is_dry_run,
        "added": report.added,
        "changed": report.changed,
        "removed": report.removed,
        "unchanged": report.unchanged,
        "read_bytes": report.read_bytes,
        "written_bytes": report.written_bytes,
        "planned": all(&report.planned, |planned| with_path(json!({ "what": planned.what }), "path", &planned.path)),
        "left_out": report.left_out,
        "problems": report.problems,
    })
}

pub fn rolled(report: &RollReport) -> Value {
    let mut value = json!({
        "snapshot": report.snapshot,
        "saved": report.saved,
        "saved_bytes": report.saved_bytes,
        "freed": report.freed,
        "problems": report.problems,
    });
    put_file_or_null(&mut value, "archive", report.archive.as_deref());
    value
}

pub fn checked(report: &CheckReport) -> Value {
    let paths = |paths: &[serde_bytes::ByteBuf]| all(paths, |path| with_path(json!({}), "path", path));
    json!({
        "inodes": report.inodes,
        "names": report.names,
        "tracks": report.tracks,
        "snapshots": report.snapshots,
        "read_bytes": report.read_bytes,
        "problems": all(&report.problems, |problem| json!({
            "text": problem.text,
            "paths": paths(&problem.paths),
            "more_paths": problem.has_more_paths,
        })),
        "more_problems": report.more_problems,
        "problems_without_paths": report.without_paths(),
    })
}

pub fn difference(found: &Difference) -> Value {
    let mut value = json!({
        "kind": found.kind,
        "from": null,
        "directory": found.is_directory,
        "size_before_bytes": found.size_before,
        "size_after_bytes": found.size_after,
    });
    put_path(&mut value, "path", &found.path);
    if let Some(from) = &found.from {
        put_path(&mut value, "from", from);
    }
    value
}

pub fn version(version: &VersionInfo) -> Value {
    let mut value = json!({
        "snapshot": version.snapshot,
        "taken": null,
        "size_bytes": version.size,
        "inode": version.inode,
    });
    if let Some(taken) = version.taken {
        put_time(&mut value, "taken", taken);
    }
    put_time(&mut value, "modified", version.modified);
    value
}

/// Beyond so many tracks, 4 TiB of the usual ones, there are only ranges: a hole would take memory as bytes do.
const BITMAP_TRACKS_MAX: u64 = 1 << 26;

/// The tracks of a file that changed, as ranges and as bits.
pub fn tracks(file: &TracksInfo) -> Value {
    let ranges: Vec<_> = file.tracks.iter().map(|(from, to)| Range { start: *from, end: *to }).collect();
    let count = ranges.last().map_or(0, |range| range.end);
    let mut value = json!({
        "inode": file.inode,
        "size_before_bytes": file.size_before,
        "size_after_bytes": file.size_after,
        "tracks": file.tracks,
        "bitmap": (count <= BITMAP_TRACKS_MAX).then(|| hex(&crate::tree::bitmap(&ranges, count))),
    });
    put_path(&mut value, "path", &file.path);
    value
}

/// Bytes that an increment has of a file.
pub fn saved_bytes(file: &TracksInfo, saved: &[u8]) -> Value {
    with_path(json!({ "inode": file.inode, "bytes": saved.len(), "data_hex": hex(saved) }), "path", &file.path)
}

pub fn history((entry, base): &(HistoryEntry, Option<String>)) -> Value {
    let mut value = json!({ "uid": entry.uid, "base": base, "what": entry.what });
    put_time(&mut value, "time", entry.time);
    value
}

pub fn archive(archive: &ArchiveInfo) -> Value {
    let increments = all(&archive.increments, |increment| {
        let mut value = json!({
            "name": increment.name,
            "epoch": increment.epoch,
            "bytes": increment.bytes,
            "purpose": increment.purpose,
            "reachable": increment.is_reachable,
            "damaged": increment.is_damaged,
        });
        put_time(&mut value, "time", increment.time);
        put_file(&mut value, "file", &increment.file);
        put_file_or_null(&mut value, "merged_into", increment.merged_into.as_deref());
        value
    });
    let missing = all(&archive.missing, |missing| {
        let mut value = json!({ "name": missing.name, "epoch": missing.epoch, "purpose": missing.purpose });
        put_time(&mut value, "time", missing.time);
        value
    });
    let mut value = json!({
        "base": archive.base,
        "bytes": archive.bytes,
        "increments": increments,
        "problems": archive.problems,
        "missing": missing,
    });
    put_file(&mut value, "directory", &archive.directory);
    value
}

pub fn shortened(shortened: &Shortened) -> Value {
    let times = all(&shortened.times, |(name, time)| {
        let mut value = json!({ "name": name });
        put_time(&mut value, "time", *time);
        value
    });
    let mut value = json!({
        "times": times,
        "bytes": shortened.bytes,
        "standing_save": shortened.standing_save,
        "dry_run": shortened.is_dry_run,
        "problems": shortened.problems,
    });
    put_file(&mut value, "directory", &shortened.directory);
    value
}

pub fn upgraded(store: &Path, report: &UpgradeReport) -> Value {
    let mut value = json!({
        "from": report.from,
        "to": report.to,
        "can_be_undone": report.can_be_undone,
        "archives": all(&report.archives, |archive| of_file("directory", archive)),
        "problems": report.problems,
        "dropped": report.dropped,
    });
    put_file(&mut value, "store", store);
    value
}

fn worker(worker: &WorkerInfo) -> Value {
    json!({
        "name": worker.name,
        "working": worker.is_working,
        "turns": worker.turns,
        "waits_for": worker.waits_for,
        "failure": worker.failure,
    })
}

pub fn status(status: &StatusInfo) -> Value {
    let mut value = json!({
        "id": status.id.to_string(),
        "track_bytes": status.track_bytes,
        "compression": status.compression,
        "total_bytes": status.space.total,
        "available_bytes": status.space.available,
        "live_bytes": status.space.live,
        "log_bytes": status.space.log,
        "metadata_bytes": status.space.meta,
        "segment_bytes": status.space.segments,
        "reserved_bytes": status.reserved,
        "drop_oldest": status.drop_oldest,
        "bases": all(&status.bases, base),
        "archives": all(&status.archives, archive),
        "saves": snapshots(&status.saves),
        "snapshots": snapshots(&status.snapshots),
        "workers": all(&status.workers, worker),
        "only_read": status.only_read,
        "stopped": status.stopped,
    });
    put_file(&mut value, "store", &status.store);
    put_file_or_null(&mut value, "mount_point", status.mount_point.as_deref());
    value
}
