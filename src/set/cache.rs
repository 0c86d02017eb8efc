//! What was read of sets, kept for whoever asks for it again.

use crate::id::Id;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A set, and an offset in it.
pub(super) type Address = (Id, u64);

/// Things by where they lie, up to so many bytes; what was not asked for longest goes first.
pub(super) struct Cache<T> {
    inner: Mutex<Inner<T>>,
    most: usize,
}

struct Inner<T> {
    found: HashMap<Address, (Arc<T>, usize, u64)>,
    /// By when each was asked for last.
    order: BTreeMap<u64, Address>,
    clock: u64,
    bytes: usize,
}

impl<T> Cache<T> {
    pub fn new(most: usize) -> Cache<T> {
        let inner = Inner { found: HashMap::new(), order: BTreeMap::new(), clock: 0, bytes: 0 };
        Cache { inner: Mutex::new(inner), most }
    }

    pub fn get(&self, at: Address) -> Option<Arc<T>> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let (found, _, asked) = inner.found.get_mut(&at)?;
        inner.order.remove(asked);
        inner.clock += 1;
        *asked = inner.clock;
        inner.order.insert(inner.clock, at);
        Some(found.clone())
    }

    pub fn put(&self, at: Address, thing: Arc<T>, bytes: usize) {
        let mut inner = self.inner.lock();
        inner.clock += 1;
        let clock = inner.clock;
        if let Some((_, before, asked)) = inner.found.insert(at, (thing, bytes, clock)) {
            inner.order.remove(&asked);
            inner.bytes -= before;
        }
        inner.order.insert(clock, at);
        inner.bytes += bytes;
        while inner.bytes > self.most
            && let Some((_, oldest)) = inner.order.pop_first()
        {
            if let Some((_, bytes, _)) = inner.found.remove(&oldest) {
                inner.bytes -= bytes;
            }
        }
    }

    /// Forgets all.
    pub fn clear(&self) {
        let mut inner = self.inner.lock();
        (inner.found, inner.order, inner.bytes) = (HashMap::new(), BTreeMap::new(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_for_longest_makes_room() {
        let cache = Cache::new(100);
        let id = Id::random();
        (0..4).for_each(|at| cache.put((id, at), Arc::new(at), 25));
        assert!(cache.get((id, 0)).is_some());
        cache.put((id, 9), Arc::new(9), 1);
        assert!(cache.get((id, 0)).is_some() && cache.get((id, 1)).is_none() && cache.get((id, 9)).is_some());
        cache.put((id, 9), Arc::new(10), 2);
        assert_eq!(cache.get((id, 9)).as_deref(), Some(&10));
        // What is larger than all has no place, and takes none.
        cache.put((id, 5), Arc::new(5), 101);
        assert!(cache.get((id, 5)).is_none());
        cache.put((id, 6), Arc::new(6), 100);
        assert!(cache.get((id, 6)).is_some());
        cache.clear();
        assert!(cache.get((id, 6)).is_none());
    }
}
