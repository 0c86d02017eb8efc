//! Bringing the records of a store from format 3 to the present one, and back.
//!
//! Format 3 had no ids. What it had gets some that follow from what it was: two copies of one store give the same thing
//! the same id, and what they did after they parted different ones. All records change in one commit.
//!
//! What the present format gave an id keeps it on the way back and over another upgrade, in records that format 3 leaves alone:
//! increments that were saved in between name it.

use super::opening::{commits, take_over};
use super::past::{
    ArchiveRecord, BaseId, BaseRecord, BaseReserve, Counts, Era, HISTORY, HOLD_TAG, MirrorRecord, Point, SEPARATE,
    Same, SnapshotRecord, SnapshotRef, SnapshotState, WALKED, last_save_key, offline_key, reserve_key,
};
use super::separate::{LEFT, Separate};
use super::{HistoryRecord, META_FILE, SETTINGS, Settings, missing};
use crate::archive::before_ids;
use crate::clock::{Epoch, Timestamp};
use crate::error::{Errno, Error, Result};
use crate::id::Id;
use crate::journal::Journal;
use crate::logstore::{Codec, Ids, LogStore};
use crate::media::MediaDir;
use crate::meta::{Kv, Meta, Overlay, Reserve, Table, decode};
use crate::purpose::Purpose;
use crate::shown::{shown, shown_file};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// How the keys of what is counted of a base begin.
const COUNTS: &[u8] = b"counts";
/// How the keys begin under which ids are kept while a store is of format 3 again.
const SNAPSHOT_ID: &[u8] = b"snapshot id";
const BASE_ID: &[u8] = b"base id";

#[derive(Serialize, Deserialize)]
struct Settings3 {
    track_bytes: u32,
    codec: Codec,
    hash_seed: u64,
}

#[derive(Serialize, Deserialize)]
struct BaseRecord3 {
    name: String,
    time: Timestamp,
    clone_of: Option<Point>,
    mirror: Option<MirrorRecord3>,
    eras: Vec<Era>,
    archive: Option<ArchiveRecord3>,
    deleting: bool,
}

#[derive(Serialize, Deserialize)]
struct MirrorRecord3 {
    of: BaseId,
    same: Option<(Epoch, Epoch)>,
    is_split: bool,
}

#[derive(Serialize, Deserialize)]
struct ArchiveRecord3 {
    directory: PathBuf,
    anchor: Option<Epoch>,
    saving: Vec<Epoch>,
}

#[derive(Serialize, Deserialize)]
struct SnapshotRecord3 {
    name: String,
    time: Timestamp,
    deleting: bool,
    offline: bool,
    held: bool,
    state: SnapshotState,
    purpose: Purpose,
    refers: u64,
    alone: Option<u64>,
    reserve: u64,
}

/// What is counted of a base.
#[derive(Serialize)]
struct Counts3 {
    refers: u64,
    newest_alone: Option<u64>,
}

/// A session that is not active yet; the present form has two fields more.
#[derive(Deserialize)]
struct Session4 {
    bases: Vec<BaseId>,
    time: Timestamp,
    is_offline: bool,
    is_related: bool,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    has_reserve: bool,
}

/// The ids of what was made in the present format before the store was brought back to format 3.
#[derive(Default)]
struct KeptIds {
    /// With the times of the snapshots, which tell that they are the very ones.
    snapshots: BTreeMap<(BaseId, Epoch), (Timestamp, Id)>,
    bases: BTreeMap<BaseId, Id>,
}

/// The metadata of a store that is not open, with what its journal has of commits.
struct Records {
    kv: Kv,
    meta: Meta,
}

impl Records {
    fn open(dir: &Arc<dyn MediaDir>) -> Result<Records> {
        let media =
            dir.open(META_FILE, false).map_err(|source| Error::media(format!("opening {META_FILE}"), source))?;
        dir.tidy(META_FILE).map_err(|source| Error::media(format!("tidying {META_FILE}"), source))?;
        // On a full disk it goes on with the room that was set aside for that.
        let reserve = Reserve::open(dir.clone()).map_err(|source| Error::media("opening the reserve", source))?;
        let kv = Kv::open(media, Some(Arc::new(reserve)))?;
        // Makes the tables that format 3 did not have.
        kv.commit(&Overlay::default())?;
        let durable = commits(&Meta::new(&kv)?)?;
        let (_, mut journaled) = Journal::open(dir.clone(), 0, durable)?;
        take_over(&kv, &mut journaled, durable)?;
        let meta = Meta::new(&kv)?;
        Ok(Records { kv, meta })
    }

    fn all(&self, table: Table) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.meta.range(table, &[], &[u8::MAX; 256])?.collect()
    }

    /// Whether the records are of the present format.
    fn is_present(&self) -> Result<bool> {
        let settings = self.meta.get_raw(Table::State, SETTINGS)?.ok_or_else(|| missing("settings"))?;
        Ok(decode::<Settings>(Table::State, SETTINGS, &settings).is_ok())
    }

    /// Takes the ids out that were kept of what was there before.
    fn take_kept_ids(&mut self) -> Result<KeptIds> {
        let mut kept = KeptIds::default();
        for (key, value) in self.all(Table::State)? {
            if let Some(snapshot) = key.strip_prefix(SNAPSHOT_ID) {
                let point = super::past::split_snapshot_key(snapshot)?;
                kept.snapshots.insert(point, decode(Table::State, &key, &value)?);
            } else if let Some(base) = key.strip_prefix(BASE_ID) {
                kept.bases.insert(BaseId::of_key(base)?, decode(Table::State, &key, &value)?);
            } else {
                continue;
            }
            self.meta.remove(Table::State, &key);
        }
        Ok(kept)
    }

    fn commit(mut self) -> Result<()> {
        self.kv.commit(&self.meta.freeze())
    }
}

/// Brings the records of a store from format 3 to the present one. Nothing happens if they are there already.
pub fn upgrade(dir: &Arc<dyn MediaDir>) -> Result<()> {
    let mut records = Records::open(dir)?;
    if records.is_present()? {
        return Ok(());
    }
    let old: Settings3 = records.meta.get(Table::State, SETTINGS)?.ok_or_else(|| missing("settings"))?;
    let seed = old.hash_seed;
    let id = before_ids::store(seed);
    let kept = records.take_kept_ids()?;
    let mut ids: BTreeMap<(BaseId, Epoch), Id> = BTreeMap::new();
    for (key, value) in records.all(Table::Snapshot)? {
        let old: SnapshotRecord3 = decode(Table::Snapshot, &key, &value)?;
        let (base, epoch) = super::past::split_snapshot_key(&key)?;
        let kept = kept.snapshots.get(&(base, epoch)).filter(|(time, _)| *time == old.time);
        let id = kept.map_or_else(|| before_ids::snapshot(seed, base.number(), epoch, old.time), |(_, id)| *id);
        ids.insert((base, epoch), id);
        records.meta.put(Table::Snapshot, &key, &new_snapshot(old, id));
    }
    // What is gone is named by nothing that counts.
    let reference = |base: BaseId, epoch: Epoch| ids.get(&(base, epoch)).map(|id| SnapshotRef { epoch, id: *id });
    for (key, value) in records.all(Table::Base)? {
        let base = BaseId::of_key(&key)?;
        let old: BaseRecord3 = decode(Table::Base, &key, &value)?;
        let id = kept.bases.get(&base).copied().unwrap_or_else(|| before_ids::base(seed, base.number()));
        records.meta.put(Table::Base, &key, &new_base(old, id, seed, base, &reference));
        // Format 3 has gone on without it.
        records.meta.remove(Table::State, &last_save_key(base));
    }
    // Of before the store went back to format 3; what there is now is noted when the archives are attached.
    for (key, _) in records.all(Table::Archived)? {
        records.meta.remove(Table::Archived, &key);
    }
    let Settings3 { track_bytes, codec, hash_seed } = old;
    records.meta.put(Table::State, SETTINGS, &Settings { track_bytes, codec, hash_seed, id });
    let ids = Ids { store: id, volume: before_ids::volume(seed, 0) };
    LogStore::relabel(&**dir, &mut records.meta, Some(ids))?;
    records.commit()
}

/// Brings the records of a store back to format 3; what was changed since it was upgraded stays, but for what is in the answer:
/// what format 3 has no words for.
pub fn downgrade(dir: &Arc<dyn MediaDir>) -> Result<Vec<String>> {
    let mut records = Records::open(dir)?;
    let mut dropped = Vec::new();
    if !records.is_present()? {
        return Ok(dropped);
    }
    let new: Settings = records.meta.get(Table::State, SETTINGS)?.ok_or_else(|| missing("settings"))?;
    let seed = new.hash_seed;
    let mut names = BTreeMap::new();
    for (key, value) in records.all(Table::Base)? {
        names.insert(BaseId::of_key(&key)?, decode::<BaseRecord>(Table::Base, &key, &value)?.name);
    }
    for (key, value) in records.all(Table::Snapshot)? {
        let new: SnapshotRecord = decode(Table::Snapshot, &key, &value)?;
        let (base, epoch) = super::past::split_snapshot_key(&key)?;
        if new.id != before_ids::snapshot(seed, base.number(), epoch, new.time) {
            records.meta.put(Table::State, &[SNAPSHOT_ID, &key].concat(), &(new.time, new.id));
        }
        if !new.deleting && new.tags.iter().any(|tag| tag != HOLD_TAG) {
            let (name, of) = (&new.name, names.get(&base));
            let of = of.map_or(String::new(), |base| format!(" of {base:?}"));
            let tags = quoted(&new.tags);
            dropped.push(format!("the snapshot {name:?}{of} stays held, and who holds it is forgotten: {tags}"));
        }
        records.meta.put(Table::Snapshot, &key, &old_snapshot(new));
    }
    for (key, value) in records.all(Table::Base)? {
        let new: BaseRecord = decode(Table::Base, &key, &value)?;
        if new.id != before_ids::base(seed, BaseId::of_key(&key)?.number()) {
            records.meta.put(Table::State, &[BASE_ID, &key].concat(), &new.id);
        }
        dropped.extend(drop_reserve(&mut records, BaseId::of_key(&key)?, &new)?);
        if !new.deleting && records.meta.contains(Table::State, &offline_key(BaseId::of_key(&key)?))? {
            dropped.push(format!("the base {:?} is offline, and format 3 shows it all the same", new.name));
        }
        records.meta.put(Table::Base, &key, &old_base(new)?);
    }
    shorten_sessions(&mut records, &mut dropped)?;
    shorten_the_rest(&mut records)?;
    let Settings { track_bytes, codec, hash_seed, id: _ } = new;
    records.meta.put(Table::State, SETTINGS, &Settings3 { track_bytes, codec, hash_seed });
    LogStore::relabel(&**dir, &mut records.meta, None)?;
    records.commit().map(|()| dropped)
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

/// Format 3 would count the room as set aside for good. What is to be said of it.
fn drop_reserve(records: &mut Records, base: BaseId, record: &BaseRecord) -> Result<Option<String>> {
    let key = reserve_key(base);
    let Some(reserve) = records.meta.get::<BaseReserve>(Table::State, &key)? else { return Ok(None) };
    records.meta.remove(Table::State, &key);
    let history: Option<HistoryRecord> = records.meta.get(Table::State, HISTORY)?;
    let history = history.ok_or_else(|| missing("record of its history"))?;
    let reserved = history.reserved.saturating_sub(reserve.bytes);
    records.meta.put(Table::State, HISTORY, &HistoryRecord { reserved, ..history });
    Ok(Some(format!("no room is set aside for the base {:?} any more", record.name)))
}

fn shorten_sessions(records: &mut Records, dropped: &mut Vec<String>) -> Result<()> {
    for (key, value) in records.all(Table::Session)? {
        let Session4 { bases, time, is_offline, is_related, mut names, has_reserve } =
            decode(Table::Session, &key, &value)?;
        records.meta.put(Table::Session, &key, &(bases, time, is_offline, is_related));
        let session = shown(&key);
        names.retain(|name| !name.is_empty());
        if !names.is_empty() {
            let names = quoted(&names);
            dropped.push(format!(
                "all snapshots of the session {session:?} will have its name, none will be called {names}"
            ));
        }
        if has_reserve {
            dropped.push(format!("the session {session:?} will set no room aside"));
        }
    }
    Ok(())
}

/// What has fields more than format 3 reads.
fn shorten_the_rest(records: &mut Records) -> Result<()> {
    for (key, value) in records.all(Table::State)? {
        if key.starts_with(COUNTS) && key.len() == COUNTS.len() + 4 {
            let Counts { refers, newest_alone, .. } = decode(Table::State, &key, &value)?;
            records.meta.put(Table::State, &key, &Counts3 { refers, newest_alone });
        }
    }
    for (key, value) in records.all(Table::Orphan)? {
        if key.get(4) == Some(&WALKED) {
            records.meta.remove(Table::Orphan, &key);
        }
        if key.get(4) != Some(&SEPARATE) {
            continue;
        }
        if key.get(5..) == Some(&LEFT.to_be_bytes()[..]) {
            records.meta.remove(Table::Orphan, &key);
            continue;
        }
        let work: Separate = decode(Table::Orphan, &key, &value)?;
        records.meta.put(Table::Orphan, &key, &(&work.cursor, work.done));
    }
    Ok(())
}

fn new_snapshot(old: SnapshotRecord3, id: Id) -> SnapshotRecord {
    let SnapshotRecord3 { name, time, deleting, offline, held, state, purpose, refers, alone, reserve } = old;
    let tags = Vec::new();
    SnapshotRecord { name, time, deleting, offline, held, state, purpose, refers, alone, reserve, id, tags }
}

fn old_snapshot(new: SnapshotRecord) -> SnapshotRecord3 {
    let SnapshotRecord { name, time, deleting, offline, held, state, purpose, refers, alone, reserve, .. } = new;
    SnapshotRecord3 { name, time, deleting, offline, held, state, purpose, refers, alone, reserve }
}

fn new_base(
    old: BaseRecord3,
    id: Id,
    seed: u64,
    base: BaseId,
    reference: &dyn Fn(BaseId, Epoch) -> Option<SnapshotRef>,
) -> BaseRecord {
    let BaseRecord3 { name, time, clone_of, mirror, eras, archive, deleting } = old;
    let mirror = mirror.map(|MirrorRecord3 { of, same, is_split }| {
        let same = same.and_then(|(first, own)| Some(Same { of: reference(of, first)?, own: reference(base, own) }));
        MirrorRecord { of, same, is_split }
    });
    let archive = archive.map(|ArchiveRecord3 { directory, anchor, saving }| ArchiveRecord {
        directory,
        id: before_ids::archive(seed, base.number()),
        anchor: anchor.and_then(|anchor| reference(base, anchor)),
        saving: saving.into_iter().filter_map(|epoch| reference(base, epoch)).collect(),
        hosts: Vec::new(),
    });
    BaseRecord { name, time, clone_of, mirror, eras, archive, deleting, id }
}

/// Refused where format 3 could not say it.
fn old_base(new: BaseRecord) -> Result<BaseRecord3> {
    let BaseRecord { name, time, clone_of, mirror, eras, archive, deleting, id: _ } = new;
    let mirror = mirror.map(|MirrorRecord { of, same, is_split }| MirrorRecord3 {
        of,
        same: same.map(|same| same.epochs()),
        is_split,
    });
    if let Some(archive) = archive.as_ref().filter(|archive| archive.directory.to_str().is_none()) {
        let shown = shown_file(&archive.directory);
        let text =
            format!("format 3 cannot name the archive {shown}, which is not UTF-8; `pitfs archive detach` comes first");
        return Err(Error::Refused(Errno::INVAL, text));
    }
    let archive = archive.map(|ArchiveRecord { directory, id: _, anchor, saving, hosts: _ }| ArchiveRecord3 {
        directory,
        anchor: anchor.map(|anchor| anchor.epoch),
        saving: saving.into_iter().map(|saving| saving.epoch).collect(),
    });
    Ok(BaseRecord3 { name, time, clone_of, mirror, eras, archive, deleting })
}
