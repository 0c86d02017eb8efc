//! What records say of time, and bases, snapshots and names of each other: whether it can be so.
//!
//! Tables are given as the commit that is checked has them, which is not the state that others see; whether what is wrong still
//! is so, the caller knows.

use super::base::{BaseRecord, BaseReserve, Counts, MirrorRecord, Point, SnapshotRef, split_base};
use super::increments::Named;
use super::number::BaseId;
use super::record::{rest_of, split_preimage, split_record};
use super::snapshot::{Snapshot, snapshot_key, split_snapshot};
use crate::archive::Mark;
use crate::clock::Epoch;
use crate::error::{Error, Result};
use crate::id::Id;
use crate::meta::{Meta, Table, decode, record_name};
use crate::shown::shown;
use std::collections::{BTreeMap, HashMap};

/// Whether a record says that there is nothing: it has a birth only.
pub fn is_tombstone(value: &[u8]) -> bool {
    split_record(Table::State, &[], value).is_ok_and(|(_, value)| value.is_empty())
}

/// The birth of a record; of one that has none, before all.
pub fn birth_of(table: Table, key: &[u8], value: &[u8]) -> Epoch {
    split_record(table, key, value).map_or(Epoch::ZERO, |(birth, _)| birth)
}

/// What is wrong with when a record as it is now was born, if the store has come to an epoch. One without a birth is named where
/// it is taken apart.
pub fn birth_problem(table: Table, key: &[u8], value: &[u8], epoch: Epoch) -> Option<String> {
    let (birth, _) = split_record(table, key, value).ok()?;
    let text = || format!("it is said to be born in epoch {birth}, and the store has come to {epoch}");
    (birth > epoch).then(text)
}

/// What is wrong with when an old value was there.
pub fn end_problem(Named { table, key, end }: &Named, value: &[u8], epoch: Epoch) -> Option<String> {
    let (birth, _) = split_record(*table, key, value).ok()?;
    if *end > epoch {
        Some(format!("it is said to end in epoch {end}, and the store has come to {epoch}"))
    } else if *end <= birth {
        Some(format!("it is said to be born in epoch {birth} and to end in epoch {end}"))
    } else {
        None
    }
}

/// What ended when, in the order of keys and in that of time: the same facts twice.
#[derive(Default)]
pub struct Facts {
    preimages: Sum,
    increments: Sum,
}

#[derive(Default, PartialEq, Eq)]
struct Sum {
    count: u64,
    sum: u64,
}

impl Sum {
    fn add(&mut self, Named { table, key, end }: &Named) {
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(key, end.number().into());
        self.count += 1;
        self.sum = self.sum.wrapping_add(hash ^ u64::from(*table as u8));
    }
}

impl Facts {
    /// What a pre-image is of.
    pub fn preimage(&mut self, key: &[u8]) -> Result<Named> {
        let named = ended(key)?;
        self.preimages.add(&named);
        Ok(named)
    }

    pub fn increment(&mut self, key: &[u8]) -> Result<()> {
        self.increments.add(&Named::of(key)?);
        Ok(())
    }

    pub fn problem(&self) -> Option<String> {
        let (preimages, increments) = (self.preimages.count, self.increments.count);
        let text = || format!("the log has {preimages} pre-images and {increments} increments that do not match");
        (self.preimages != self.increments).then(text)
    }
}

/// The record of which a pre-image is an old value.
pub fn ended(key: &[u8]) -> Result<Named> {
    let (table, key, end) = split_preimage(key)?;
    Ok(Named { table, key, end })
}

/// Whether a record by itself can be what its table has.
pub fn check_record(table: Table, key: &[u8], value: &[u8]) -> Result<()> {
    let or_damage = |is_possible: bool, problem: &str| match is_possible {
        true => Ok(()),
        false => Err(Error::corrupt(record_name(table, key), problem)),
    };
    let is_table = |at: usize| key.get(at).is_some_and(|number| Table::from_number(*number).is_some());
    match table {
        Table::State => check_state(key, value),
        Table::Snapshot => split_snapshot(key, value).map(drop),
        Table::Name => or_damage(decode::<Epoch>(table, key, value)? > Epoch::ZERO, "no snapshot has its epoch"),
        Table::Tombstone => or_damage(is_table(4), "its key is that of no record"),
        Table::Passed => {
            let birth = key.get(4..).and_then(|rest| rest.first_chunk()).map(|birth| Epoch::from_be_bytes(*birth));
            or_damage(is_table(8) && birth.is_some_and(|birth| birth.is_possible()), "its key is that of no record")
        }
        Table::Archived => {
            let mark: Mark = decode(table, key, value)?;
            let is_its = key.len() == 8 && key[4..] == mark.epoch.to_be_bytes();
            or_damage(is_its && mark.has_name(), "no archive has such a time")
        }
        _ => Ok(()),
    }
}

/// What is kept of each base besides its record.
fn check_state(key: &[u8], value: &[u8]) -> Result<()> {
    let table = Table::State;
    let of_base = |name: &[u8]| key.strip_prefix(name).is_some_and(|base| base.len() == 4);
    match key {
        _ if of_base(b"counts") => decode::<Counts>(table, key, value).map(drop),
        _ if of_base(b"ended") => decode::<Epoch>(table, key, value).map(drop),
        _ if of_base(b"reserve") => decode::<BaseReserve>(table, key, value).map(drop),
        _ if of_base(b"last save") => decode::<Mark>(table, key, value).map(drop),
        _ => Ok(()),
    }
}

/// The bases of the commit that is checked.
#[derive(Default)]
pub struct Bases {
    bases: BTreeMap<BaseId, BaseRecord>,
    /// Some could not be read: what leads nowhere may lead to those.
    has_gaps: bool,
}

impl Bases {
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let (base, record) = split_base(key, value)?;
        self.bases.insert(base, record);
        Ok(())
    }

    /// Some base could not be read.
    pub fn lost_some(&mut self) {
        self.has_gaps = true;
    }

    /// Whether its own records are all that a base shows.
    pub fn is_whole(&self, base: BaseId) -> bool {
        self.bases.get(&base).is_some_and(|record| record.eras.is_empty() && !record.deleting)
    }

    pub fn name(&self, base: BaseId) -> Option<&str> {
        self.bases.get(&base).map(|record| record.name.as_str())
    }

    fn described(&self, base: BaseId) -> String {
        self.name(base).map_or(format!("base {base}, which is not there"), |name| format!("{name:?}"))
    }

    /// The snapshot that a record says, if it can be looked into and own records of its base are all that it shows. What is
    /// damaged is named elsewhere.
    pub fn snapshot_of_own(&self, key: &[u8], value: &[u8]) -> Option<Point> {
        let snapshot = split_snapshot(key, value).ok().filter(Snapshot::is_readable)?;
        let base = self.bases.get(&snapshot.base).filter(|base| !base.deleting)?;
        base.eras.iter().all(|era| era.since >= snapshot.epoch).then(|| snapshot.point())
    }

    /// What is wrong with a name: whether it leads to a snapshot that has it.
    pub fn name_problem(&self, meta: &Meta, key: &[u8], value: &[u8]) -> Option<String> {
        let Ok(base) = BaseId::of_key(key) else {
            return Some(Error::corrupt(record_name(Table::Name, key), "its key names no base").to_string());
        };
        // Of a base that is being deleted, snapshots go before their names.
        if self.bases.get(&base).is_some_and(|record| record.deleting) {
            return None;
        }
        let (name, epoch) = (rest_of(key), decode::<Epoch>(Table::Name, key, value).ok()?);
        let problem = match stored(meta, Point { base, epoch }).ok()? {
            None => format!("leads to epoch {epoch}, of which there is no snapshot"),
            Some(found) if found.record.deleting => {
                format!("leads to the snapshot {:?}, which is being deleted", found.record.name)
            }
            Some(found) if found.record.name.as_bytes() != name => {
                format!("leads to a snapshot named {:?}", found.record.name)
            }
            Some(_) => return None,
        };
        Some(format!("the name \"{}\" of a snapshot of {} {problem}", shown(name), self.described(base)))
    }

    /// What is wrong with what bases say of each other, each with the base that says it.
    pub fn problems(&self, meta: &Meta) -> Vec<(BaseId, String)> {
        let mut found = Vec::new();
        let mut named: HashMap<&str, BaseId> = HashMap::new();
        for (id, record) in self.bases.iter().filter(|(_, record)| !record.deleting) {
            let mut say = |problem: String| {
                let text =
                    format!("the base {:?} ({}): {problem}", record.name, record_name(Table::Base, &id.prefix()));
                found.push((*id, text));
            };
            if let Some(other) = named.insert(&record.name, *id) {
                say(format!("base {other} has the same name"));
            }
            if record.clone_of.is_some_and(|point| point.base == *id) {
                say("it is said to be a clone of itself, and so is shown nowhere".into());
            }
            for era in &record.eras {
                if let Some(why) = self.missing(meta, era.source, None) {
                    let Point { base, epoch } = era.source;
                    say(format!("what it shows is that of epoch {epoch} of {}: {why}", self.described(base)));
                }
            }
            if let Some(mirror) = record.mirror {
                self.mirror(meta, *id, mirror, &mut say);
            }
        }
        found
    }

    fn mirror(&self, meta: &Meta, id: BaseId, mirror: MirrorRecord, say: &mut dyn FnMut(String)) {
        if self.bases.get(&mirror.of).is_none_or(|of| of.deleting) && !self.has_gaps {
            return say(format!("it is a mirror of base {}, which is not there", mirror.of));
        }
        let Some(same) = mirror.same else { return };
        for (base, marked) in [(mirror.of, Some(same.of)), (id, same.own)] {
            let Some(SnapshotRef { epoch, id: unique }) = marked else { continue };
            if let Some(why) = self.missing(meta, Point { base, epoch }, Some(unique)) {
                let of = self.described(base);
                say(format!("as a mirror it was the same as {of} in epoch {epoch} of that: {why}"));
            }
        }
    }

    /// Why a snapshot that a base needs is none.
    fn missing(&self, meta: &Meta, point: Point, unique: Option<Id>) -> Option<&'static str> {
        match self.bases.get(&point.base) {
            None if self.has_gaps => return None,
            None => return Some("there is no such base"),
            Some(record) if record.deleting => return Some("that base is being deleted"),
            Some(_) => {}
        }
        match stored(meta, point).ok()? {
            None => Some("there is no such snapshot"),
            Some(found) if !found.is_readable() => Some("that snapshot is deleted or has ended"),
            Some(found) if unique.is_some_and(|unique| found.record.id != unique) => {
                Some("the snapshot there is another one")
            }
            Some(_) => None,
        }
    }
}

/// What the tables have of a snapshot. What of it cannot be read is named elsewhere.
fn stored(meta: &Meta, point: Point) -> Result<Option<Snapshot>> {
    let key = snapshot_key(point.base, point.epoch);
    meta.with(Table::Snapshot, &key, |value| split_snapshot(&key, value))
}
