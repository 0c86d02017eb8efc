//! Bases and names: what leads from one to another has to lead there.

use super::{Check, Paths};
use crate::clock::Epoch;
use crate::device::{BaseId, BaseRecord, MirrorRecord, Point, Snapshot, SnapshotRef, split_base, split_snapshot};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::meta::{Table, decode, record_name};
use crate::shown::shown;
use std::collections::HashMap;

impl Check<'_> {
    pub(super) fn load_bases(&mut self) -> Result<()> {
        self.has_all_bases = self.wholly(|check| {
            check.each(Table::Base, |check, (key, value)| {
                match split_base(&key, &value) {
                    Ok((base, record)) => drop(check.bases.insert(base, record)),
                    Err(error) => check.unreadable(error.to_string(), Paths::default()),
                }
                Ok(())
            })
        })?;
        Ok(())
    }

    /// What the tables have of a snapshot. `Err` where that cannot be read, which is named elsewhere.
    fn stored(&self, point: Point) -> Result<Option<Snapshot>> {
        let key = [point.base.prefix(), point.epoch.to_be_bytes()].concat();
        self.meta.with(Table::Snapshot, &key, |value| split_snapshot(&key, value))
    }

    /// Names of snapshots lead to snapshots that have them.
    pub(super) fn names(&mut self) -> Result<()> {
        self.each(Table::Name, |check, (key, value)| {
            let base = match BaseId::of_key(&key) {
                Ok(base) => base,
                Err(_) => {
                    let problem = "its key names no base";
                    check
                        .problem(Error::corrupt(record_name(Table::Name, &key), problem).to_string(), Paths::default());
                    return Ok(());
                }
            };
            // Of a base that is being deleted, snapshots go before their names.
            if check.bases.get(&base).is_some_and(|record| record.deleting) {
                return Ok(());
            }
            let (Some(name), Ok(epoch)) = (key.get(4..), decode::<Epoch>(Table::Name, &key, &value)) else {
                return Ok(());
            };
            let problem = match check.stored(Point { base, epoch }) {
                Err(_) => return Ok(()),
                Ok(None) => format!("leads to epoch {epoch}, of which there is no snapshot"),
                Ok(Some(found)) if found.record.deleting => {
                    format!("leads to the snapshot {:?}, which is being deleted", found.record.name)
                }
                Ok(Some(found)) if found.record.name.as_bytes() != name => {
                    format!("leads to a snapshot named {:?}", found.record.name)
                }
                Ok(Some(_)) => return Ok(()),
            };
            if check.is_current(Table::Name, &key, &value) {
                let of = check.name_of(base);
                check.say(format!("the name \"{}\" of a snapshot of {of} {problem}", shown(name)));
            }
            Ok(())
        })
    }

    fn name_of(&self, base: BaseId) -> String {
        self.bases.get(&base).map_or(format!("base {base}, which is not there"), |record| format!("{:?}", record.name))
    }

    /// What bases say of each other.
    pub(super) fn between_bases(&mut self) -> Result<()> {
        let bases: Vec<(BaseId, BaseRecord)> = self
            .bases
            .iter()
            .filter(|(_, record)| !record.deleting)
            .map(|(id, record)| (*id, record.clone()))
            .collect();
        let mut named: HashMap<&str, BaseId> = HashMap::new();
        for (id, record) in &bases {
            if let Some(other) = named.insert(&record.name, *id) {
                self.of_base(*id, format!("base {other} has the same name"))?;
            }
            if record.clone_of.is_some_and(|point| point.base == *id) {
                self.of_base(*id, "it is said to be a clone of itself, and so is shown nowhere".into())?;
            }
            for era in &record.eras {
                if let Some(why) = self.missing(era.source, None)? {
                    let Point { base, epoch } = era.source;
                    let of = self.name_of(base);
                    let text = format!("what it shows is that of epoch {epoch} of {of}: {why}");
                    self.of_base(*id, text)?;
                }
            }
            if let Some(mirror) = record.mirror {
                self.mirror(*id, mirror)?;
            }
        }
        Ok(())
    }

    fn mirror(&mut self, id: BaseId, mirror: MirrorRecord) -> Result<()> {
        if self.bases.get(&mirror.of).is_none_or(|of| of.deleting) && self.has_all_bases {
            return self.of_base(id, format!("it is a mirror of base {}, which is not there", mirror.of));
        }
        let Some(same) = mirror.same else { return Ok(()) };
        for (base, marked) in [(mirror.of, Some(same.of)), (id, same.own)] {
            let Some(SnapshotRef { epoch, id: unique }) = marked else { continue };
            if let Some(why) = self.missing(Point { base, epoch }, Some(unique))? {
                let of = self.name_of(base);
                let text = format!("as a mirror it was the same as {of} in epoch {epoch} of that: {why}");
                self.of_base(id, text)?;
            }
        }
        Ok(())
    }

    /// Why a snapshot that a base needs is none.
    fn missing(&self, point: Point, unique: Option<Id>) -> Result<Option<&'static str>> {
        match self.bases.get(&point.base) {
            None if !self.has_all_bases => return Ok(None),
            None => return Ok(Some("there is no such base")),
            Some(record) if record.deleting => return Ok(Some("that base is being deleted")),
            Some(_) => {}
        }
        Ok(match self.stored(point) {
            Err(_) => None,
            Ok(None) => Some("there is no such snapshot"),
            Ok(Some(found)) if !found.is_readable() => Some("that snapshot is deleted or has ended"),
            Ok(Some(found)) if unique.is_some_and(|unique| found.record.id != unique) => {
                Some("the snapshot there is another one")
            }
            Ok(Some(_)) => None,
        })
    }

    /// Says what is wrong with a base, if that is still as it was.
    fn of_base(&mut self, id: BaseId, problem: String) -> Result<()> {
        let key = id.prefix();
        if let (Some(value), Some(record)) = (self.meta.get_raw(Table::Base, &key)?, self.bases.get(&id))
            && self.is_current(Table::Base, &key, &value)
        {
            let text = format!("the base {:?} ({}): {problem}", record.name, record_name(Table::Base, &key));
            self.say(text);
        }
        Ok(())
    }
}
