//! Tracks that were read in part, kept for the next part.

use super::Location;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::limits::TRACK_CACHE_BYTES;

/// What lay at locations, the oldest first to go. A location whose blocks are used again has another
/// checksum, so that what is found is always right.
#[derive(Default)]
pub(super) struct Cache {
    tracks: HashMap<Location, Arc<Vec<u8>>>,
    order: VecDeque<Location>,
    bytes: usize,
}

impl Cache {
    pub fn get(&self, location: &Location) -> Option<Arc<Vec<u8>>> {
        self.tracks.get(location).cloned()
    }

    pub fn put(&mut self, location: Location, bytes: Arc<Vec<u8>>) {
        self.bytes += bytes.len();
        match self.tracks.insert(location, bytes) {
            Some(old) => self.bytes -= old.len(),
            None => self.order.push_back(location),
        }
        while self.bytes > TRACK_CACHE_BYTES
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.tracks.remove(&oldest).map_or(0, |bytes| bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logstore::Codec;

    #[test]
    fn the_oldest_tracks_make_room() {
        let location = |block| Location { segment: 1, block, stored: 1, raw: 1, codec: Codec::None, check: 5 };
        let mut cache = Cache::default();
        for block in 0..10 {
            cache.put(location(block), Arc::new(vec![block as u8; TRACK_CACHE_BYTES / 4]));
        }
        assert!(cache.get(&location(5)).is_none());
        assert_eq!(cache.get(&location(9)).unwrap()[0], 9);
        assert!(cache.bytes <= TRACK_CACHE_BYTES && cache.order.len() == cache.tracks.len());
        assert!(cache.get(&Location { check: 6, ..location(9) }).is_none());
    }
}
