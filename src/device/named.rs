//! What increments name, of the store and of its archives, visited a look at a time.

use super::Device;
use super::past::{BaseId, Increments, InodeNo, Moment, Named};
use crate::archive::{Archive, Increment};
use crate::clock::Epoch;
use crate::error::Result;
use crate::meta::Table;
use std::ops::Range;

/// Records read under one lock.
const STEP: usize = 1024;

/// Visits all records of a walk, a look at a time.
pub fn each_named(device: &Device, mut walk: Increments, visit: &mut dyn FnMut(&Named) -> Result<()>) -> Result<()> {
    while walk.cursor().is_some() {
        let named = walk.step(&*device.look()?, STEP)?;
        named.iter().try_for_each(&mut *visit)?;
    }
    Ok(())
}

/// Visits what the increments in the archive of a base name that begin in these epochs, if only the archive has one of
/// the moments.
pub fn each_named_outside(
    device: &Device,
    base: BaseId,
    moments: &[Moment],
    epochs: Range<Epoch>,
    visit: &mut dyn FnMut(&Named) -> Result<()>,
) -> Result<()> {
    let elsewhere = device.look()?.base(base)?.elsewhere.clone();
    if let Some(elsewhere) = elsewhere {
        let end = epochs.end;
        return elsewhere
            .each_differing(base, (epochs.start, end), &mut |table, key| visit(&Named { table, key, end }));
    }
    let archive = {
        let look = device.look()?;
        let mut is_needed = false;
        for moment in moments {
            is_needed |= look.moments().is_archived(InodeNo::new(base, 0).at(*moment))?;
        }
        look.archive(base).filter(|_| is_needed)
    };
    let Some(archive) = archive else { return Ok(()) };
    for increment in archive.increments().iter().filter(|found| epochs.contains(&found.header.from.epoch)) {
        each_named_in(base, &archive, increment, visit)?;
    }
    Ok(())
}

/// Visits what one increment in the archive of a base names.
pub fn each_named_in(
    base: BaseId,
    archive: &Archive,
    increment: &Increment,
    visit: &mut dyn FnMut(&Named) -> Result<()>,
) -> Result<()> {
    for entry in increment.open(archive.directory())?.entries() {
        let entry = entry?;
        if let Some(table) = Table::from_number(entry.table) {
            let key = [&base.prefix()[..], &entry.key].concat();
            visit(&Named { table, key, end: increment.header.to.epoch })?;
        }
    }
    Ok(())
}
