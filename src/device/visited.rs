//! A moment in a set, looked into as one of a base of the store that knows nothing of it.

use super::Device;
use super::past::{BaseId, Elsewhere, InodeNo, Point};
use crate::clock::Epoch;
use crate::error::Result;
use crate::id::Id;
use crate::set::Sets;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// The epoch that stands for it: the last one, of which no snapshot can be taken.
const VISITED: Epoch = Epoch::MAX.before();

/// Can be looked into until this is dropped, in this process alone: nothing of it is in the store.
pub struct Visited<'a> {
    device: &'a Device,
    base: BaseId,
    sets: Arc<Sets>,
    set: Id,
}

/// Lets the moment of a set be one of a base, which has to be of a store with tracks and hashes like this one's. Of each base one at
/// a time.
pub fn visit<'a>(device: &'a Device, base: BaseId, sets: &Arc<Sets>, set: Id) -> Visited<'a> {
    let visited = Elsewhere::new(sets.clone(), BTreeMap::from([(VISITED, set)]));
    device.state.write().past.bases.set_visited(base, Some(Arc::new(visited)));
    Visited { device, base, sets: sets.clone(), set }
}

impl Visited<'_> {
    pub fn point(&self) -> Point {
        Point { base: self.base, epoch: VISITED }
    }

    /// The inodes of which anything differs from what another set has of them.
    pub fn differing_from(&self, other: Id, on_step: &mut dyn FnMut() -> Result<()>) -> Result<HashSet<InodeNo>> {
        let mut inodes = HashSet::new();
        for differing in self.sets.differences(other, self.set)? {
            let (key, was, is) = differing?;
            on_step()?;
            if was.map(|entry| entry.value) != is.map(|entry| entry.value) {
                let key = [&self.base.prefix()[..], key.get(1..).unwrap_or_default()].concat();
                inodes.extend(InodeNo::of_key(&key));
            }
        }
        Ok(inodes)
    }
}

impl Drop for Visited<'_> {
    fn drop(&mut self) {
        self.device.state.write().past.bases.set_visited(self.base, None);
    }
}

/// Whether a point was one of a moment that was only looked into.
pub fn is_visited(point: Point) -> bool {
    point.epoch == VISITED
}
