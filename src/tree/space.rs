//! Room, in true figures.

use super::Tree;
use crate::error::Result;
use crate::limits::{RESERVE_BYTES_MIN, SEGMENT_BYTES};
use serde::{Deserialize, Serialize};

/// Room in bytes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Space {
    /// What the store could hold if it had all that is available.
    pub total: u64,
    /// What can still be written.
    pub available: u64,
    /// File data of `live`.
    pub live: u64,
    /// File data that only snapshots hold.
    pub log: u64,
    /// The metadata file.
    pub meta: u64,
    /// What segments take on the disk, with the free blocks inside them.
    pub segments: u64,
}

impl Tree {
    pub fn space(&self) -> Result<Space> {
        let usage = self.device.log().usage();
        let room = self.device.room()?;
        let meta = self.device.meta_bytes()?;
        let log = self.device.log_bytes();
        // The disk gives room to whole segments only.
        let new_segments = room.available.saturating_sub(RESERVE_BYTES_MIN) / SEGMENT_BYTES * SEGMENT_BYTES;
        let reserved = self.device.look()?.reserved_room();
        let available = (new_segments + usage.segments.saturating_sub(usage.used)).saturating_sub(reserved);
        Ok(Space {
            total: usage.used + meta + available,
            available,
            live: usage.used.saturating_sub(log),
            log,
            meta,
            segments: usage.segments,
        })
    }
}
