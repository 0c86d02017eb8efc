//! Blocks that were read, kept for the next entry or track that lies in them.

use super::cursor::Block;
use crate::limits::{ARCHIVE_CACHE_BLOCKS, ARCHIVE_CACHE_BYTES};
use std::collections::VecDeque;

/// The block that was not asked for longest is in front, and first to go.
#[derive(Debug, Default)]
pub(super) struct Cache {
    blocks: VecDeque<Block>,
    bytes: usize,
}

impl Cache {
    pub(super) fn get(&mut self, offset: u64) -> Option<Block> {
        // They are few, and what was read last is asked for most.
        let at = self.blocks.iter().rposition(|block| block.offset == offset)?;
        let block = self.blocks.remove(at)?;
        self.blocks.push_back(block.clone());
        Some(block)
    }

    pub(super) fn put(&mut self, block: Block) {
        // Two readers can have missed the same block.
        if self.get(block.offset).is_some() {
            return;
        }
        self.bytes += block.bytes.len();
        self.blocks.push_back(block);
        while (self.bytes > ARCHIVE_CACHE_BYTES || self.blocks.len() > ARCHIVE_CACHE_BLOCKS)
            && let Some(oldest) = self.blocks.pop_front()
        {
            self.bytes -= oldest.bytes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::TRACKS;
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_was_not_asked_for_longest_makes_room() {
        let mut cache = Cache::default();
        let put = |cache: &mut Cache, offset, len| {
            cache.put(Block { offset, kind: TRACKS, bytes: Arc::new(vec![0; len]) });
        };
        for offset in 0..4 {
            put(&mut cache, offset, ARCHIVE_CACHE_BYTES / 4);
        }
        assert!(cache.get(0).is_some());
        put(&mut cache, 4, 1);
        assert!(cache.get(0).is_some() && cache.get(1).is_none() && cache.get(4).is_some());
        for offset in 10..1000 {
            put(&mut cache, offset, 1);
            put(&mut cache, offset, 1);
        }
        assert_eq!(cache.blocks.len(), ARCHIVE_CACHE_BLOCKS);
        assert_eq!(cache.bytes, ARCHIVE_CACHE_BLOCKS);
    }
}
