//! Who holds a location: records of live, and pre-images in the log.
//!
//! Nearly every location has one holder, and no entry in the table says so. With more, the table counts
//! them. Which kind a single holder is, its caller knows: it is the record that names the location.

use super::Location;
use crate::error::Result;
use crate::meta::{Meta, Table};
use serde::{Deserialize, Serialize};

/// A record that names a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    Live,
    Log,
}

/// How many hold a location.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holders {
    #[serde(deserialize_with = "crate::limits::number::count")]
    pub live: u64,
    #[serde(deserialize_with = "crate::limits::number::count")]
    pub log: u64,
}

impl Holders {
    pub fn all(&self) -> u64 {
        self.live.saturating_add(self.log)
    }

    fn single(holder: Holder) -> Holders {
        match holder {
            Holder::Live => Holders { live: 1, log: 0 },
            Holder::Log => Holders { live: 0, log: 1 },
        }
    }

    pub(super) fn count(&mut self, holder: Holder) -> &mut u64 {
        match holder {
            Holder::Live => &mut self.live,
            Holder::Log => &mut self.log,
        }
    }
}

impl Location {
    /// How many hold it, if several do.
    pub fn sharers(&self, meta: &Meta) -> Result<Option<Holders>> {
        meta.get(Table::Shared, &self.key())
    }

    pub fn is_shared(&self, meta: &Meta) -> Result<bool> {
        meta.contains(Table::Shared, &self.key())
    }
}

fn load(meta: &Meta, location: &Location, known: Holder) -> Result<Holders> {
    Ok(location.sharers(meta)?.unwrap_or(Holders::single(known)))
}

fn store(meta: &mut Meta, location: &Location, holders: Holders) {
    match holders.all() {
        0 | 1 => meta.remove(Table::Shared, &location.key()),
        _ => meta.put(Table::Shared, &location.key(), &holders),
    }
}

/// A live record names a location that `known` holds; who held it before.
pub(super) fn share(meta: &mut Meta, location: &Location, known: Holder) -> Result<Holders> {
    let before = load(meta, location, known)?;
    store(meta, location, Holders { live: before.live.saturating_add(1), ..before });
    Ok(before)
}

/// A live record becomes a pre-image; who holds its location then.
pub(super) fn keep(meta: &mut Meta, location: &Location) -> Result<Holders> {
    let before = load(meta, location, Holder::Live)?;
    let after = Holders { live: before.live.saturating_sub(1), log: before.log.saturating_add(1) };
    if after.all() > 1 {
        store(meta, location, after);
    }
    Ok(after)
}

/// A holder lets go; who is left.
pub(super) fn release(meta: &mut Meta, location: &Location, holder: Holder) -> Result<Holders> {
    let mut holders = load(meta, location, holder)?;
    let had_entry = holders.all() > 1;
    let count = holders.count(holder);
    *count = count.saturating_sub(1);
    if had_entry {
        store(meta, location, holders);
    }
    Ok(holders)
}
